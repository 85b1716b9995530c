//! Tombstones: what the store keeps under an id after its session has ended or moved to another id, the grace period of that
//! id included.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::record::Timestamp;
use crate::session::id::SessionId;
use crate::session::store::save::{PAST_GRACE_FOR, TOMBSTONE_FOR};
use crate::session::store::{Loaded, OldId};

enum Kind {
    Ended,
    /// The session has moved there.
    Linked(SessionId),
    /// The session has moved there, and this id still opens it until `ends`.
    Grace {
        to: SessionId,
        text: Box<str>,
        ends: Option<Timestamp>,
    },
}

/// How long tombstones are kept when there are too many: those of the first priority are evicted first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Priority {
    /// A grace period that is over or about to end: without it a late request gets a new session, and no event is emitted.
    GraceLimited,
    /// Without it, a late request of the session gets a new one.
    Ended,
    /// An open grace period: without it the visitor loses the session.
    InGrace,
}

struct Tombstone {
    kind: Kind,
    expires: Timestamp,
    /// Tells entries of a queue apart that expire at the same time.
    number: u64,
}

#[derive(Default)]
pub(super) struct Tombstones {
    by_id: HashMap<SessionId, Tombstone>,
    /// One queue for each priority, ordered by expiry.
    queues: [BTreeMap<(Timestamp, u64), SessionId>; 3],
    last_number: u64,
}

impl Tombstone {
    fn priority(&self) -> Priority {
        match self.kind {
            Kind::Grace { ends: None, .. } => Priority::InGrace,
            Kind::Grace { .. } => Priority::GraceLimited,
            Kind::Ended | Kind::Linked(_) => Priority::Ended,
        }
    }
}

impl Tombstones {
    /// Adds the tombstone of a session that has moved to another id. `expires` is when the session expires at the latest.
    pub(super) fn add_moved(
        &mut self,
        from: SessionId,
        to: &SessionId,
        old_id: OldId<'_>,
        expires: Timestamp,
        now: Timestamp,
    ) {
        let (kind, expires) = match old_id {
            OldId::Linked => (Kind::Linked(to.clone()), now.after(TOMBSTONE_FOR)),
            OldId::Unlinked => (Kind::Ended, now.after(TOMBSTONE_FOR)),
            OldId::InGrace(text) => {
                (Kind::Grace { to: to.clone(), text: text.into(), ends: None }, expires)
            }
        };
        self.insert(from, kind, expires);
    }

    /// Adds the tombstone of a session that was ended.
    pub(super) fn add_ended(&mut self, id: SessionId, now: Timestamp) {
        self.insert(id, Kind::Ended, now.after(TOMBSTONE_FOR));
    }

    fn insert(&mut self, id: SessionId, kind: Kind, expires: Timestamp) {
        self.remove(&id);
        self.last_number += 1;
        let number = self.last_number;
        let tombstone = Tombstone { kind, expires, number };
        self.queues[tombstone.priority() as usize].insert((expires, number), id.clone());
        self.by_id.insert(id, tombstone);
    }

    pub(super) fn remove(&mut self, id: &SessionId) {
        if let Some(tombstone) = self.by_id.remove(id) {
            self.queues[tombstone.priority() as usize]
                .remove(&(tombstone.expires, tombstone.number));
        }
    }

    fn get(&self, id: &SessionId, now: Timestamp) -> Option<&Kind> {
        if self.by_id.is_empty() {
            return None;
        }
        self.by_id
            .get(id)
            .filter(|tombstone| tombstone.expires > now)
            .map(|tombstone| &tombstone.kind)
    }

    /// What a load of an id returns that is no session's.
    pub(super) fn loaded(&self, id: &SessionId, now: Timestamp) -> Loaded {
        match self.get(id, now) {
            None => Loaded::Unknown,
            Some(Kind::Ended | Kind::Linked(_)) => Loaded::Ended,
            Some(Kind::Grace { text, ends, .. }) => {
                let text = text.to_string();
                match ends {
                    None => Loaded::InGrace(text),
                    Some(ends) if *ends <= now => {
                        Loaded::PastGrace { left: text, since: now.since(*ends) }
                    }
                    Some(_) => Loaded::GraceEnding(text),
                }
            }
        }
    }

    /// Whether the id has, or had, a grace period.
    pub(super) fn had_grace_period(&self, id: &SessionId, now: Timestamp) -> bool {
        self.loaded(id, now).left().is_some()
    }

    /// Whether the id is in its grace period.
    pub(super) fn is_in_grace(&self, id: &SessionId, now: Timestamp) -> bool {
        matches!(self.loaded(id, now), Loaded::InGrace(_) | Loaded::GraceEnding(_))
    }

    /// The id under which to go on to end the session.
    pub(super) fn next_id(&self, id: &SessionId, now: Timestamp) -> Option<SessionId> {
        match self.get(id, now)? {
            Kind::Ended => None,
            Kind::Grace { ends: Some(ends), .. } if *ends <= now => None,
            Kind::Linked(to) | Kind::Grace { to, .. } => Some(to.clone()),
        }
    }

    /// Keeps the tombstone of an id in its grace period until `expires`, and returns whether the id is in one. One whose grace
    /// period has an end is kept beyond that anyway.
    pub(super) fn extend_grace(
        &mut self,
        id: &SessionId,
        expires: Timestamp,
        now: Timestamp,
    ) -> bool {
        if !self.is_in_grace(id, now) {
            return false;
        }
        self.change(id, |tombstone| {
            if let Kind::Grace { ends: None, .. } = tombstone.kind {
                tombstone.expires = expires;
            }
        })
    }

    /// Ends the grace period of an id after this time, unless it ends earlier, and returns whether the id is in one.
    pub(super) fn end_grace(&mut self, id: &SessionId, after: Duration, now: Timestamp) -> bool {
        if !self.is_in_grace(id, now) {
            return false;
        }
        let at = now.after(after);
        self.change(id, |tombstone| {
            if let Kind::Grace { ends, .. } = &mut tombstone.kind {
                let end = ends.map_or(at, |ends| ends.min(at));
                *ends = Some(end);
                tombstone.expires = end.after(PAST_GRACE_FOR);
            }
        })
    }

    /// Changes the tombstone of an id and queues it anew, and returns whether there is one.
    fn change(&mut self, id: &SessionId, change: impl FnOnce(&mut Tombstone)) -> bool {
        let Some(mut tombstone) = self.by_id.remove(id) else { return false };
        self.queues[tombstone.priority() as usize].remove(&(tombstone.expires, tombstone.number));
        change(&mut tombstone);
        self.queues[tombstone.priority() as usize]
            .insert((tombstone.expires, tombstone.number), id.clone());
        self.by_id.insert(id.clone(), tombstone);
        true
    }

    /// Removes the tombstones that have expired, and those beyond `max`: by priority, then those that expire first.
    pub(super) fn sweep(&mut self, now: Timestamp, max: usize) {
        let Tombstones { by_id, queues, .. } = self;
        for queue in queues.iter_mut() {
            while let Some(first) = queue.first_entry()
                && (first.key().0 <= now || by_id.len() > max)
            {
                by_id.remove(&first.remove());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::id::{IdFormat, IdGenerator};

    #[test]
    fn where_there_are_too_many_open_grace_periods_stay_longest() {
        let (mut tombstones, ids, now) =
            (Tombstones::default(), IdGenerator::new(), Timestamp(1_000));
        let id = || ids.next(IdFormat::default()).unwrap();
        let [open, ended, over, next] = [(); 4].map(|()| id());
        let soon = now.after(Duration::from_secs(1));
        tombstones.add_moved(open.clone(), &next, OldId::InGrace("text"), soon, now);
        tombstones.add_ended(ended.clone(), now);
        tombstones.add_moved(over.clone(), &next, OldId::InGrace("text"), soon, now);
        assert!(tombstones.end_grace(&over, Duration::ZERO, now));
        let known = |tombstones: &Tombstones| {
            [&open, &ended, &over].map(|id| tombstones.loaded(id, now) != Loaded::Unknown)
        };
        for (most, left) in [
            (3, [true, true, true]),
            (2, [true, true, false]),
            (1, [true, false, false]),
            (0, [false, false, false]),
        ] {
            tombstones.sweep(now, most);
            assert_eq!(known(&tombstones), left, "{most}");
        }
        tombstones.add_ended(ended.clone(), now);
        tombstones.sweep(now.after(TOMBSTONE_FOR), 10);
        assert!(tombstones.by_id.is_empty() && tombstones.queues.iter().all(BTreeMap::is_empty));
    }
}
