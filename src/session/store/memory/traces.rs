//! What sessions have left under ids that are theirs no more: tombstones, and ids in their grace period.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::record::Moment;
use crate::session::id::SessionId;
use crate::session::store::save::{RETIRED_FOR, TOMBSTONE_FOR};
use crate::session::store::{Loaded, OldId};

/// What is left under an id.
enum Trace {
    Ended,
    /// The session has moved there.
    Leads(SessionId),
    /// The id goes on being one of the session's until then.
    Grace {
        to: SessionId,
        text: Box<str>,
        ends: Option<Moment>,
    },
}

struct Left {
    trace: Trace,
    /// Until when it is known.
    until: Moment,
    /// Its place in the queue.
    number: u64,
}

#[derive(Default)]
pub(super) struct Traces {
    by_id: HashMap<SessionId, Left>,
    /// Which one goes first.
    queue: BTreeMap<(Moment, u64), SessionId>,
    numbered: u64,
}

impl Traces {
    /// What a session leaves behind that has moved away, and will not live longer than until `expires`.
    pub(super) fn moved(
        &mut self,
        from: SessionId,
        to: &SessionId,
        old_id: OldId<'_>,
        expires: Moment,
        now: Moment,
    ) {
        let (trace, until) = match old_id {
            OldId::Leads => (Trace::Leads(to.clone()), now.after(TOMBSTONE_FOR)),
            OldId::Severed => (Trace::Ended, now.after(TOMBSTONE_FOR)),
            OldId::InGrace(text) => {
                (Trace::Grace { to: to.clone(), text: text.into(), ends: None }, expires)
            }
        };
        self.leave(from, trace, until);
    }

    /// What a session leaves behind that was ended.
    pub(super) fn ended(&mut self, id: SessionId, now: Moment) {
        self.leave(id, Trace::Ended, now.after(TOMBSTONE_FOR));
    }

    fn leave(&mut self, id: SessionId, trace: Trace, until: Moment) {
        self.remove(&id);
        self.numbered += 1;
        let number = self.numbered;
        self.queue.insert((until, number), id.clone());
        self.by_id.insert(id, Left { trace, until, number });
    }

    pub(super) fn remove(&mut self, id: &SessionId) {
        if let Some(left) = self.by_id.remove(id) {
            self.queue.remove(&(left.until, left.number));
        }
    }

    fn get(&self, id: &SessionId, now: Moment) -> Option<&Trace> {
        if self.by_id.is_empty() {
            return None;
        }
        self.by_id.get(id).filter(|left| left.until > now).map(|left| &left.trace)
    }

    /// What a load of an id answers under which there is no session.
    pub(super) fn loaded(&self, id: &SessionId, now: Moment) -> Loaded {
        match self.get(id, now) {
            None => Loaded::Unknown,
            Some(Trace::Ended | Trace::Leads(_)) => Loaded::Ended,
            Some(Trace::Grace { ends: Some(ends), .. }) if *ends <= now => Loaded::Retired,
            Some(Trace::Grace { text, .. }) => Loaded::Replaced(text.to_string()),
        }
    }

    /// Whether the id is in its grace period.
    pub(super) fn is_in_grace(&self, id: &SessionId, now: Moment) -> bool {
        matches!(self.loaded(id, now), Loaded::Replaced(_))
    }

    /// Where whoever ends this id ends the session.
    pub(super) fn leads_to(&self, id: &SessionId, now: Moment) -> Option<SessionId> {
        match self.get(id, now)? {
            Trace::Ended => None,
            Trace::Grace { ends: Some(ends), .. } if *ends <= now => None,
            Trace::Leads(to) | Trace::Grace { to, .. } => Some(to.clone()),
        }
    }

    /// Has an id that is in its grace period known until then; whether it is in one. One that is to end is known for long behind
    /// that anyway.
    pub(super) fn extend(&mut self, id: &SessionId, until: Moment, now: Moment) -> bool {
        match self.get(id, now) {
            Some(Trace::Grace { ends: None, .. }) => self.know_until(id, until),
            _ => self.is_in_grace(id, now),
        }
    }

    /// Ends the grace period of an id so long from now, unless it ends earlier; whether it has one.
    pub(super) fn end_grace(&mut self, id: &SessionId, after: Duration, now: Moment) -> bool {
        if !self.is_in_grace(id, now) {
            return false;
        }
        let Some(Left { trace: Trace::Grace { ends, .. }, .. }) = self.by_id.get_mut(id) else {
            return false;
        };
        let at = now.after(after);
        let end = ends.map_or(at, |ends| ends.min(at));
        *ends = Some(end);
        self.know_until(id, end.after(RETIRED_FOR))
    }

    fn know_until(&mut self, id: &SessionId, until: Moment) -> bool {
        let Some(left) = self.by_id.get_mut(id) else { return false };
        self.queue.remove(&(left.until, left.number));
        left.until = until;
        self.queue.insert((until, left.number), id.clone());
        true
    }

    /// Forgets what nobody has to know any more, and what is beyond so many.
    pub(super) fn sweep(&mut self, now: Moment, most: usize) {
        while let Some((&(until, number), _)) = self.queue.first_key_value()
            && (until <= now || self.queue.len() > most)
        {
            if let Some(id) = self.queue.remove(&(until, number)) {
                self.by_id.remove(&id);
            }
        }
    }
}
