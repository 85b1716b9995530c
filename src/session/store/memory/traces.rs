//! What sessions have left under ids that are theirs no more: tombstones, and ids in their grace period.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::record::Timestamp;
use crate::session::id::SessionId;
use crate::session::store::save::{RETIRED_FOR, TOMBSTONE_FOR};
use crate::session::store::{Loaded, OldId};

/// What is left under an id.
enum Trace {
    Ended,
    /// The session has moved there.
    Linked(SessionId),
    /// The id goes on being one of the session's until then.
    Grace {
        to: SessionId,
        text: Box<str>,
        ends: Option<Timestamp>,
    },
}

/// What is lost with a trace, least first: where there are too many, they go in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Worth {
    /// That whoever comes with the id is told of.
    Warning,
    /// That whoever comes with the id disturbs nobody.
    Order,
    /// A session.
    Session,
}

struct Left {
    trace: Trace,
    /// Until when it is known.
    until: Timestamp,
    /// Its place in the queue of its worth.
    number: u64,
}

#[derive(Default)]
pub(super) struct Traces {
    by_id: HashMap<SessionId, Left>,
    /// Which one of each worth goes first.
    queues: [BTreeMap<(Timestamp, u64), SessionId>; 3],
    numbered: u64,
}

impl Left {
    fn worth(&self) -> Worth {
        match self.trace {
            Trace::Grace { ends: None, .. } => Worth::Session,
            Trace::Grace { .. } => Worth::Warning,
            Trace::Ended | Trace::Linked(_) => Worth::Order,
        }
    }
}

impl Traces {
    /// What a session leaves behind that has moved away, and will not live longer than until `expires`.
    pub(super) fn moved(
        &mut self,
        from: SessionId,
        to: &SessionId,
        old_id: OldId<'_>,
        expires: Timestamp,
        now: Timestamp,
    ) {
        let (trace, until) = match old_id {
            OldId::Linked => (Trace::Linked(to.clone()), now.after(TOMBSTONE_FOR)),
            OldId::Unlinked => (Trace::Ended, now.after(TOMBSTONE_FOR)),
            OldId::InGrace(text) => {
                (Trace::Grace { to: to.clone(), text: text.into(), ends: None }, expires)
            }
        };
        self.leave(from, trace, until);
    }

    /// What a session leaves behind that was ended.
    pub(super) fn ended(&mut self, id: SessionId, now: Timestamp) {
        self.leave(id, Trace::Ended, now.after(TOMBSTONE_FOR));
    }

    fn leave(&mut self, id: SessionId, trace: Trace, until: Timestamp) {
        self.remove(&id);
        self.numbered += 1;
        let number = self.numbered;
        let left = Left { trace, until, number };
        self.queues[left.worth() as usize].insert((until, number), id.clone());
        self.by_id.insert(id, left);
    }

    pub(super) fn remove(&mut self, id: &SessionId) {
        if let Some(left) = self.by_id.remove(id) {
            self.queues[left.worth() as usize].remove(&(left.until, left.number));
        }
    }

    fn get(&self, id: &SessionId, now: Timestamp) -> Option<&Trace> {
        if self.by_id.is_empty() {
            return None;
        }
        self.by_id.get(id).filter(|left| left.until > now).map(|left| &left.trace)
    }

    /// What a load of an id answers under which there is no session.
    pub(super) fn loaded(&self, id: &SessionId, now: Timestamp) -> Loaded {
        match self.get(id, now) {
            None => Loaded::Unknown,
            Some(Trace::Ended | Trace::Linked(_)) => Loaded::Ended,
            Some(Trace::Grace { text, ends, .. }) => {
                let text = text.to_string();
                match ends {
                    None => Loaded::Replaced(text),
                    Some(ends) if *ends <= now => {
                        Loaded::Retired { left: text, since: now.since(*ends) }
                    }
                    Some(_) => Loaded::Ending(text),
                }
            }
        }
    }

    /// Whether the id has, or had, a grace period.
    pub(super) fn has_next(&self, id: &SessionId, now: Timestamp) -> bool {
        self.loaded(id, now).left().is_some()
    }

    /// Whether the id is in its grace period.
    pub(super) fn is_in_grace(&self, id: &SessionId, now: Timestamp) -> bool {
        matches!(self.loaded(id, now), Loaded::Replaced(_) | Loaded::Ending(_))
    }

    /// Where whoever ends this id ends the session.
    pub(super) fn leads_to(&self, id: &SessionId, now: Timestamp) -> Option<SessionId> {
        match self.get(id, now)? {
            Trace::Ended => None,
            Trace::Grace { ends: Some(ends), .. } if *ends <= now => None,
            Trace::Linked(to) | Trace::Grace { to, .. } => Some(to.clone()),
        }
    }

    /// Has an id that is in its grace period known until then; whether it is in one. One that is to end is known for long behind
    /// that anyway.
    pub(super) fn extend(&mut self, id: &SessionId, until: Timestamp, now: Timestamp) -> bool {
        if !self.is_in_grace(id, now) {
            return false;
        }
        self.change(id, |left| {
            if let Trace::Grace { ends: None, .. } = left.trace {
                left.until = until;
            }
        })
    }

    /// Ends the grace period of an id so long from now, unless it ends earlier; whether it has one.
    pub(super) fn end_grace(&mut self, id: &SessionId, after: Duration, now: Timestamp) -> bool {
        if !self.is_in_grace(id, now) {
            return false;
        }
        let at = now.after(after);
        self.change(id, |left| {
            if let Trace::Grace { ends, .. } = &mut left.trace {
                let end = ends.map_or(at, |ends| ends.min(at));
                *ends = Some(end);
                left.until = end.after(RETIRED_FOR);
            }
        })
    }

    /// Changes what is left under an id, and its place in the queues; whether there is something.
    fn change(&mut self, id: &SessionId, change: impl FnOnce(&mut Left)) -> bool {
        let Some(mut left) = self.by_id.remove(id) else { return false };
        self.queues[left.worth() as usize].remove(&(left.until, left.number));
        change(&mut left);
        self.queues[left.worth() as usize].insert((left.until, left.number), id.clone());
        self.by_id.insert(id.clone(), left);
        true
    }

    /// Forgets what nobody has to know any more, and what is beyond so many: first of that which is worth least what is known
    /// for the shortest time.
    pub(super) fn sweep(&mut self, now: Timestamp, most: usize) {
        let Traces { by_id, queues, .. } = self;
        for queue in queues.iter_mut() {
            while let Some(first) = queue.first_entry()
                && (first.key().0 <= now || by_id.len() > most)
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
        let (mut traces, ids, now) = (Traces::default(), IdGenerator::new(), Timestamp(1_000));
        let id = || ids.next(IdFormat::default()).unwrap();
        let [open, ended, over, next] = [(); 4].map(|()| id());
        let soon = now.after(Duration::from_secs(1));
        traces.moved(open.clone(), &next, OldId::InGrace("text"), soon, now);
        traces.ended(ended.clone(), now);
        traces.moved(over.clone(), &next, OldId::InGrace("text"), soon, now);
        assert!(traces.end_grace(&over, Duration::ZERO, now));
        let known = |traces: &Traces| {
            [&open, &ended, &over].map(|id| traces.loaded(id, now) != Loaded::Unknown)
        };
        for (most, left) in [
            (3, [true, true, true]),
            (2, [true, true, false]),
            (1, [true, false, false]),
            (0, [false, false, false]),
        ] {
            traces.sweep(now, most);
            assert_eq!(known(&traces), left, "{most}");
        }
        traces.ended(ended.clone(), now);
        traces.sweep(now.after(TOMBSTONE_FOR), 10);
        assert!(traces.by_id.is_empty() && traces.queues.iter().all(BTreeMap::is_empty));
    }
}
