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

use std::time::{Duration, Instant};

pub(super) use super::config::Node;

/// After this long, sentinels that have not led a failover know of it.
const SETTLED: Duration = Duration::from_secs(5);

/// For how long a failover counts as under way of which nothing more is heard.
const FORGOTTEN: Duration = Duration::from_secs(15);

/// For how long an answer says how it is now.
const FRESH: Duration = Duration::from_millis(2500);

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
            let fresh = sentinel.answered.is_some_and(|at| now.duration_since(at) < FRESH);
            let names = sentinel.names.as_ref().map(|(node, ..)| node);
            fresh && sentinel.sign.is_none() && names.is_some() && names == self.master.as_ref()
        });
        let is_over = self.is_majority(unchanged.count());
        let mut given_up = false;
        for sentinel in &mut self.sentinels {
            let Some(sign) = sentinel.sign else { continue };
            let age = now.duration_since(sign);
            if age >= FORGOTTEN || age >= SETTLED && is_over {
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
            claim.since.is_none_or(|since| now.duration_since(since) >= SETTLED)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn node(port: u16) -> Node {
        ("10.0.0.1".to_owned(), port)
    }

    /// A failover from 1 to 2, as seen over so many sentinels, by seconds since the start.
    struct Scene {
        failover: Failover,
        start: Instant,
    }

    impl Scene {
        fn of(sentinels: usize) -> Scene {
            let mut failover = Failover::new(sentinels);
            let start = Instant::now();
            assert_eq!(failover.adopt(&node(1), start), None);
            let mut scene = Scene { failover, start };
            for number in 0..sentinels {
                assert_eq!(scene.says(0.0, number, 1, 4, false), None);
            }
            scene
        }

        fn at(&self, seconds: f64) -> Instant {
            self.start + Duration::from_secs_f64(seconds)
        }

        fn hears(&mut self, seconds: f64, number: usize, announced: Announced) -> Option<Change> {
            self.failover.announced(number, &announced, self.at(seconds))
        }

        fn says(
            &mut self,
            seconds: f64,
            number: usize,
            master: u16,
            epoch: u64,
            leads_failover: bool,
        ) -> Option<Change> {
            let answered = Answered { master: node(master), epoch, leads_failover };
            self.failover.answered(number, Some(answered), self.at(seconds))
        }

        fn tick(&mut self, seconds: f64) -> Option<Change> {
            self.failover.tick(self.at(seconds))
        }

        fn candidates(&self, seconds: f64) -> Vec<u16> {
            let nodes = self.failover.candidates(self.at(seconds));
            nodes.into_iter().map(|(_, port)| port).collect()
        }
    }

    fn begins() -> Announced {
        Announced::Failover(node(1))
    }

    fn switches() -> Announced {
        Announced::Switched(node(1), node(2))
    }

    #[test]
    fn a_planned_failover_holds_writes_until_the_switch() {
        let mut scene = Scene::of(3);
        assert_eq!(scene.hears(1.0, 0, begins()), Some(Change::Held));
        assert_eq!(scene.hears(1.1, 0, begins()), None);
        // The others know nothing of it, and are many.
        for second in [1.5, 2.5, 3.5, 9.5, 14.0] {
            assert_eq!(scene.says(second, 0, 1, 4, true), None);
            assert_eq!(scene.says(second, 1, 1, 4, false), None);
            assert_eq!(scene.says(second, 2, 1, 4, false), None);
            assert_eq!(scene.tick(second + 0.5), None, "at {second}");
        }
        assert_eq!(scene.hears(15.0, 0, switches()), Some(Change::Switched(node(2))));
        assert!(!scene.failover.is_held());
        // Who still names the old one is not followed back.
        assert_eq!(scene.says(15.1, 1, 1, 4, false), None);
        assert_eq!(scene.says(15.1, 2, 1, 4, false), None);
        assert_eq!(scene.candidates(15.2), [2]);
        assert_eq!(scene.says(15.3, 0, 2, 5, false), None);
        // Late words of the same failover.
        assert_eq!(scene.hears(15.4, 1, begins()), None);
        assert_eq!(scene.hears(15.5, 1, switches()), None);
        assert_eq!(scene.says(15.6, 1, 2, 5, false), None);
        assert_eq!(scene.says(15.6, 2, 2, 5, false), None);
        assert_eq!(scene.candidates(15.7), [2]);
    }

    #[test]
    fn a_failover_ends_where_its_leader_says_so() {
        let mut scene = Scene::of(3);
        assert_eq!(scene.hears(1.0, 0, begins()), Some(Change::Held));
        let aborts = Announced::Aborted(node(1));
        assert_eq!(scene.hears(2.0, 1, aborts.clone()), None, "another one's");
        assert_eq!(scene.hears(2.0, 0, aborts), Some(Change::Released));
        // By its answer, which tells of a failover as well.
        assert_eq!(scene.says(3.0, 0, 1, 4, true), Some(Change::Held));
        assert_eq!(scene.says(4.0, 0, 1, 4, false), Some(Change::Released));
    }

    #[test]
    fn a_majority_ends_a_failover_whose_leader_has_vanished_once_it_must_know() {
        let mut scene = Scene::of(3);
        assert_eq!(scene.hears(1.0, 0, begins()), Some(Change::Held));
        scene.failover.lost(0);
        let mut released = None;
        for second in 2..15 {
            let second = f64::from(second);
            scene.says(second, 1, 1, 4, false);
            scene.says(second, 2, 1, 4, false);
            if let Some(change) = scene.tick(second + 0.1) {
                released.get_or_insert((second, change));
            }
        }
        assert_eq!(released, Some((6.0, Change::Released)));
    }

    #[test]
    fn without_a_majority_it_ends_after_fifteen_seconds() {
        for sentinels in [1, 2] {
            let mut scene = Scene::of(sentinels);
            assert_eq!(scene.hears(1.0, 0, begins()), Some(Change::Held));
            scene.failover.lost(0);
            for second in 2..16 {
                let second = f64::from(second);
                if sentinels == 2 {
                    assert_eq!(scene.says(second, 1, 1, 4, false), None);
                }
                assert_eq!(scene.tick(second), None, "at {second}");
            }
            assert_eq!(scene.tick(16.0), Some(Change::GivenUp));
        }
    }

    #[test]
    fn a_switch_that_was_not_announced_holds_writes_until_the_majority_has_decided() {
        let mut scene = Scene::of(3);
        assert_eq!(scene.says(1.0, 0, 2, 5, false), Some(Change::Held));
        assert_eq!(scene.candidates(1.1), [2], "the newest epoch");
        assert_eq!(scene.says(2.0, 1, 2, 5, false), Some(Change::Switched(node(2))));
        // Whoever has connected to it knows.
        let mut scene = Scene::of(3);
        assert_eq!(scene.says(1.0, 0, 2, 5, false), Some(Change::Held));
        let adopted = scene.failover.adopt(&node(2), scene.at(1.1));
        assert_eq!(adopted, Some(Change::Switched(node(2))));
        assert_eq!(scene.says(1.2, 1, 1, 4, false), None);
        assert_eq!(scene.says(1.2, 2, 1, 4, false), None);
    }

    #[test]
    fn one_that_is_wrong_is_outvoted() {
        // Of the same epoch, and older.
        for epoch in [0, 4] {
            let mut scene = Scene::of(3);
            assert_eq!(scene.says(1.0, 0, 9, epoch, false), None);
            assert_eq!(scene.candidates(1.1)[0], 1);
            // It announces its own switch.
            let wrong = Announced::Switched(node(1), node(9));
            assert_eq!(scene.hears(2.0, 0, wrong), Some(Change::Switched(node(9))));
            assert_eq!(scene.says(2.1, 0, 9, epoch, false), Some(Change::Switched(node(1))));
        }
        // Of a newer one, which nobody follows.
        let mut scene = Scene::of(3);
        assert_eq!(scene.says(1.0, 0, 9, 7, false), Some(Change::Held));
        for second in [2.0, 3.0, 4.0, 5.0] {
            assert_eq!(scene.says(second, 0, 9, 7, false), None);
            assert_eq!(scene.says(second, 1, 1, 4, false), None);
            assert_eq!(scene.says(second, 2, 1, 4, false), None);
            assert_eq!(scene.tick(second), None);
        }
        assert_eq!(scene.tick(6.0), Some(Change::Released));
        assert_eq!(scene.candidates(6.1), [1, 9]);
        assert_eq!(scene.says(7.0, 0, 9, 7, false), None, "once is enough");
    }

    #[test]
    fn where_no_sentinel_is_there_the_last_master_is_still_one() {
        let mut scene = Scene::of(3);
        (0..3).for_each(|number| scene.failover.lost(number));
        assert_eq!(scene.candidates(60.0), [1]);
        assert!(Failover::new(3).candidates(Instant::now()).is_empty());
    }

    #[test]
    fn what_concerns_another_master_concerns_nobody() {
        let mut scene = Scene::of(3);
        for of in [Announced::Failover(node(3)), Announced::Switched(node(3), node(4))] {
            assert_eq!(scene.hears(1.0, 0, of), None);
        }
        assert_eq!(scene.failover.master(), Some(&node(1)));
    }
}
