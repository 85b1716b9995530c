//! Whether a failover of a master is under way and who the master is, by what its sentinels say. No I/O.
//!
//! A replica is the new master a quarter of a second after a planned failover has begun, but Sentinel demotes the old one
//! only some ten seconds later, and all that this one acknowledges until then is lost. So from the first sign of a
//! failover no write is acknowledged, until it is over:
//!
//! - a sentinel says that there is another master (`+promoted-slave`, `+switch-master`, or a majority when it is asked);
//! - the sentinel that leads it has aborted it, or says when it is asked that it leads none;
//! - that sentinel says nothing any more, and a majority of all that are configured names the same master as before and
//!   leads no failover, five seconds after its last sign: sentinels that do not lead one hear of it at its end;
//! - nobody says anything for 15 seconds.
//!
//! Sentinels that contradict each other: the newest configuration epoch is right, as among themselves. One that claims
//! a newer epoch, and that nobody follows for five seconds, is wrong.

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

pub(super) use super::config::Node;

/// How long it takes until sentinels that have not led a failover know of it.
const GOSSIP_TIME: Duration = Duration::from_secs(5);

/// After how long a failover counts as over without further news.
const FAILOVER_TIMEOUT: Duration = Duration::from_secs(15);

/// For how long the answer of a sentinel is current.
const ANSWER_TTL: Duration = Duration::from_millis(2500);

/// What a sentinel has announced of the master of our name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Announced {
    /// It is about to fail over this master.
    Failover(Node),
    /// It has given that up.
    Aborted(Node),
    /// The second is master in place of the first.
    Switched(Node, Node),
}

/// What a sentinel answers when it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answered {
    pub(super) master: Node,
    /// The epoch of the configuration that names it.
    pub(super) epoch: u64,
    /// Whether this sentinel is failing that master over.
    pub(super) leads_failover: bool,
}

/// What has changed for those who write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Writes wait.
    Held,
    /// Writes go on, with the master that was before.
    Released,
    /// The same, as nothing more was heard.
    GivenUp,
    /// Connections lead to this one from now on.
    Switched(Node),
}

pub(super) struct Failover {
    /// Where connections lead, and the epoch that names it.
    master: Option<Node>,
    epoch: u64,
    since: Option<Instant>,
    sentinels: Vec<Sentinel>,
}

#[derive(Default)]
struct Sentinel {
    /// What it said last, and since when it says that.
    names: Option<(Node, u64, Instant)>,
    /// When it last answered; unset while it is not there.
    answered: Option<Instant>,
    /// When it last gave a sign of a failover that is not over.
    sign: Option<Instant>,
}

/// A master that is named, by so many sentinels.
struct Claim<'a> {
    node: &'a Node,
    epoch: u64,
    votes: usize,
    since: Option<Instant>,
}

impl Failover {
    pub(super) fn new(sentinels: usize) -> Failover {
        let sentinels = (0..sentinels).map(|_| Sentinel::default()).collect();
        Failover { master: None, epoch: 0, since: None, sentinels }
    }

    pub(super) fn is_held(&self) -> bool {
        self.sentinels.iter().any(|sentinel| sentinel.sign.is_some())
    }

    /// Where connections lead.
    pub(super) fn master(&self) -> Option<&Node> {
        self.master.as_ref()
    }

    /// A sentinel announces something unasked.
    pub(super) fn announced(
        &mut self,
        number: usize,
        announced: &Announced,
        now: Instant,
    ) -> Option<Change> {
        let was_held = self.is_held();
        let is_master = |node: &Node| self.master.as_ref().is_none_or(|master| master == node);
        match announced {
            Announced::Failover(of) if is_master(of) => self.sentinels[number].sign = Some(now),
            Announced::Aborted(of) if is_master(of) => self.sentinels[number].sign = None,
            Announced::Switched(_, to) if self.master.as_ref() == Some(to) => {
                self.sentinels[number].sign = None;
            }
            // Its epoch is known once the sentinel is asked.
            Announced::Switched(from, to) if is_master(from) => {
                let epoch = self.epoch + 1;
                self.sentinels[number].names = Some((to.clone(), epoch, now));
                return Some(self.switch(to.clone(), epoch, now));
            }
            // Of a master that is none any more.
            _ => {}
        }
        self.change(was_held, false)
    }

    /// A sentinel answers, or says that it knows no such master.
    pub(super) fn answered(
        &mut self,
        number: usize,
        answered: Option<Answered>,
        now: Instant,
    ) -> Option<Change> {
        let was_held = self.is_held();
        let sentinel = &mut self.sentinels[number];
        sentinel.answered = Some(now);
        let Some(Answered { master, epoch, leads_failover }) = answered else {
            (sentinel.names, sentinel.sign) = (None, None);
            return self.change(was_held, false);
        };
        let same = matches!(&sentinel.names, Some((node, e, _)) if (node, *e) == (&master, epoch));
        if !same {
            sentinel.names = Some((master.clone(), epoch, now));
        }
        if self.master.as_ref().is_some_and(|ours| *ours != master) {
            // A switch that was not heard of, perhaps. The others will tell.
            if !same && epoch > self.epoch {
                sentinel.sign = Some(now);
            }
        } else {
            sentinel.sign = leads_failover.then_some(now);
            let votes = self.votes().filter(|(node, ..)| *node == master);
            self.epoch = votes.map(|(_, epoch, _)| *epoch).max().unwrap_or(epoch);
        }
        if let Some(to) = self.outvoted(now) {
            let (node, epoch) = to;
            return Some(self.switch(node, epoch, now));
        }
        self.change(was_held, false)
    }

    /// A sentinel is not there any more.
    pub(super) fn lost(&mut self, number: usize) {
        self.sentinels[number].answered = None;
    }

    /// Looks what has become of a failover that is under way.
    pub(super) fn tick(&mut self, now: Instant) -> Option<Change> {
        let was_held = self.is_held();
        let unchanged = self.sentinels.iter().filter(|sentinel| {
            let fresh = sentinel.answered.is_some_and(|at| now.duration_since(at) < ANSWER_TTL);
            let names = sentinel.names.as_ref().map(|(node, ..)| node);
            fresh && sentinel.sign.is_none() && names.is_some() && names == self.master.as_ref()
        });
        let is_over = self.is_majority(unchanged.count());
        let mut given_up = false;
        for sentinel in &mut self.sentinels {
            let Some(sign) = sentinel.sign else { continue };
            let age = now.duration_since(sign);
            if age >= FAILOVER_TIMEOUT || age >= GOSSIP_TIME && is_over {
                given_up |= !is_over;
                sentinel.sign = None;
            }
        }
        self.change(was_held, given_up)
    }

    /// Which servers may be the master, the likeliest first.
    pub(super) fn candidates(&self, now: Instant) -> Vec<Node> {
        self.claims(now).into_iter().map(|claim| claim.node.clone()).collect()
    }

    /// This server says that it is the master, and connections lead there from now on.
    pub(super) fn adopt(&mut self, node: &Node, now: Instant) -> Option<Change> {
        if self.master.as_ref() == Some(node) {
            return None;
        }
        let epochs = self.votes().filter(|(named, ..)| named == node).map(|(_, epoch, _)| *epoch);
        let epoch = epochs.max().unwrap_or(0);
        if self.master.is_some() {
            return Some(self.switch(node.clone(), epoch, now));
        }
        // What was heard before holds.
        (self.master, self.epoch, self.since) = (Some(node.clone()), epoch, Some(now));
        None
    }

    fn switch(&mut self, to: Node, epoch: u64, now: Instant) -> Change {
        (self.master, self.epoch, self.since) = (Some(to.clone()), epoch, Some(now));
        self.sentinels.iter_mut().for_each(|sentinel| sentinel.sign = None);
        Change::Switched(to)
    }

    fn change(&self, was_held: bool, given_up: bool) -> Option<Change> {
        match (was_held, self.is_held()) {
            (false, true) => Some(Change::Held),
            (true, false) if given_up => Some(Change::GivenUp),
            (true, false) => Some(Change::Released),
            _ => None,
        }
    }

    /// What the sentinels say that are there.
    fn votes(&self) -> impl Iterator<Item = &(Node, u64, Instant)> {
        let there = self.sentinels.iter().filter(|sentinel| sentinel.answered.is_some());
        there.filter_map(|sentinel| sentinel.names.as_ref())
    }

    fn is_majority(&self, votes: usize) -> bool {
        votes * 2 > self.sentinels.len()
    }

    /// Another master than ours, where a majority is for it.
    fn outvoted(&self, now: Instant) -> Option<(Node, u64)> {
        let ours = self.master.as_ref()?;
        let first = self.claims(now).into_iter().next()?;
        let other = first.node != ours && self.is_majority(first.votes);
        other.then(|| (first.node.clone(), first.epoch))
    }

    /// The masters that may be right, the likeliest first.
    fn claims(&self, now: Instant) -> Vec<Claim<'_>> {
        let ours = self.master.iter().map(|node| Claim {
            node,
            epoch: self.epoch,
            votes: 0,
            since: self.since,
        });
        let mut claims: Vec<Claim<'_>> = ours.collect();
        for (node, epoch, since) in self.votes() {
            match claims.iter_mut().find(|claim| claim.node == node) {
                Some(claim) => {
                    claim.votes += 1;
                    claim.epoch = claim.epoch.max(*epoch);
                    claim.since = claim.since.min(Some(*since));
                }
                None => claims.push(Claim { node, epoch: *epoch, votes: 1, since: Some(*since) }),
            }
        }
        let is_settled = |claim: &Claim<'_>| {
            claim.since.is_none_or(|since| now.duration_since(since) >= GOSSIP_TIME)
        };
        // Nobody has followed those who know better, for long enough.
        let trusted: Vec<bool> = claims
            .iter()
            .map(|claim| {
                let newer = claims.iter().filter(|other| other.epoch > claim.epoch);
                self.is_majority(claim.votes) && { newer }.all(is_settled)
            })
            .collect();
        let newest = claims.iter().map(|claim| claim.epoch).max();
        let mut claims: Vec<_> = claims.into_iter().zip(trusted).collect();
        claims.retain(|(claim, trusted)| *trusted || Some(claim.epoch) == newest);
        claims.sort_by_key(|(claim, trusted)| {
            let other = self.master.as_ref() != Some(claim.node);
            (!trusted, std::cmp::Reverse((claim.epoch, claim.votes)), other)
        });
        claims.into_iter().map(|(claim, _)| claim).collect()
    }
}
