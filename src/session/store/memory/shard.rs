//! A part of the store that has a lock of its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::queue::{Due, Queue};
use super::record::{StoredSession, Timestamp, Worth};
use super::traces::Traces;
use crate::session::id::SessionId;
use crate::session::store::Lifetimes;

/// How many due records of each worth an access looks at: more than the one it may add, so that expired records go
/// faster than new ones come, and no thread has to collect them.
const SWEEP: usize = 4;

/// Records, where they are, and which of them are due when.
///
/// A record that was used since it was queued stands too early there and moves on when its turn comes, so that using a
/// session costs nothing there.
pub(super) struct Shard {
    slots: HashMap<SessionId, u32>,
    records: Vec<StoredSession>,
    queues: [Queue; Worth::ALL.len()],
    /// The sessions of this shard in which each user is logged in.
    users: HashMap<Box<str>, Vec<SessionId>>,
    pub(super) traces: Traces,
    /// How many sessions all shards hold.
    held: Arc<AtomicUsize>,
}

impl Shard {
    pub(super) fn new(held: Arc<AtomicUsize>) -> Shard {
        let (slots, records, queues) = (HashMap::new(), Vec::new(), Default::default());
        let (users, traces) = (HashMap::new(), Traces::default());
        Shard { slots, records, queues, users, traces, held }
    }

    /// The slot of this id's record, unless that has expired; one that has is removed.
    pub(super) fn live(
        &mut self,
        id: &SessionId,
        lifetimes: &Lifetimes,
        now: Timestamp,
    ) -> Option<u32> {
        let slot = *self.slots.get(id)?;
        let stored = self.stored(slot);
        if stored.has_ended(now) || stored.is_past_absolute(lifetimes, now) {
            self.end(slot);
            return None;
        }
        Some(slot)
    }

    pub(super) fn stored(&self, slot: u32) -> &StoredSession {
        &self.records[slot as usize]
    }

    /// Changes a record, and its place in a queue where it is due earlier now or is of another worth.
    pub(super) fn change<T>(
        &mut self,
        slot: u32,
        change: impl FnOnce(&mut StoredSession) -> T,
    ) -> T {
        let stored = &mut self.records[slot as usize];
        let before = (stored.worth, stored.place);
        let changed = change(stored);
        let (worth, at) = (stored.worth, stored.expires);
        if worth != before.0 {
            self.leave_queue(before);
            self.queue(slot);
        } else if self.queues[worth as usize].due_at(before.1) > at {
            self.put_off(Due { at, slot });
        }
        changed
    }

    pub(super) fn insert(&mut self, stored: StoredSession) {
        self.traces.remove(&stored.id);
        // As many as a store holds at most.
        let slot = self.records.len() as u32;
        self.slots.insert(stored.id.clone(), slot);
        if let Some(user) = stored.user() {
            match self.users.get_mut(user) {
                Some(sessions) => sessions.push(stored.id.clone()),
                None => drop(self.users.insert(user.into(), vec![stored.id.clone()])),
            }
        }
        self.records.push(stored);
        self.queue(slot);
    }

    /// Takes a record out, whose place in the store stays reserved.
    pub(super) fn take(&mut self, slot: u32) -> StoredSession {
        let StoredSession { worth, place, .. } = *self.stored(slot);
        self.leave_queue((worth, place));
        let stored = self.records.swap_remove(slot as usize);
        self.slots.remove(&stored.id);
        if let Some(user) = stored.user()
            && let Some(sessions) = self.users.get_mut(user)
        {
            sessions.retain(|id| *id != stored.id);
            if sessions.is_empty() {
                self.users.remove(user);
            }
        }
        // The last one has taken its slot.
        if let Some(moved) = self.records.get(slot as usize) {
            self.slots.insert(moved.id.clone(), slot);
            self.queues[moved.worth as usize].rename(moved.place, slot);
        }
        stored
    }

    /// Removes the record of this id, expired or not, and says whether it was live; then it is known for a while that it
    /// has ended.
    pub(super) fn destroy(&mut self, id: &SessionId, now: Timestamp) -> bool {
        let Some(slot) = self.slots.get(id) else { return false };
        let slot = *slot;
        let was_live = !self.stored(slot).has_ended(now);
        self.end(slot);
        if was_live {
            self.traces.ended(id.clone(), now);
        }
        was_live
    }

    /// The sessions here in which this user is logged in, those that have expired left out.
    pub(super) fn of_user(
        &self,
        user: &str,
        now: Timestamp,
    ) -> impl Iterator<Item = &StoredSession> {
        let sessions = self.users.get(user).into_iter().flatten();
        let stored = sessions.filter_map(|id| Some(self.stored(*self.slots.get(id)?)));
        stored.filter(move |stored| !stored.has_ended(now))
    }

    fn end(&mut self, slot: u32) {
        drop(self.take(slot));
        self.held.fetch_sub(1, Ordering::Relaxed);
    }

    /// Removes some of what has expired.
    pub(super) fn sweep(&mut self, now: Timestamp) {
        Worth::ALL.into_iter().for_each(|worth| self.sweep_queue(worth, now, SWEEP));
    }

    /// Removes all that has expired.
    pub(super) fn sweep_all(&mut self, now: Timestamp) {
        Worth::ALL.into_iter().for_each(|worth| self.sweep_queue(worth, now, usize::MAX));
    }

    fn sweep_queue(&mut self, worth: Worth, now: Timestamp, steps: usize) {
        for _ in 0..steps {
            let first = self.queues[worth as usize].first();
            let Some(Due { slot, .. }) = first.filter(|due| due.at <= now) else { return };
            match self.stored(slot).expires {
                at if at <= now => self.end(slot),
                at => self.put_off(Due { at, slot }),
            }
        }
    }

    /// The session to lose first, where one must be: of those that hold least, the one that is nearest to its end.
    pub(super) fn least(&mut self) -> Option<(Worth, Due)> {
        Worth::ALL.into_iter().find_map(|worth| {
            loop {
                let due = self.queues[worth as usize].first()?;
                match self.stored(due.slot).expires {
                    at if at == due.at => return Some((worth, due)),
                    at => self.put_off(Due { at, slot: due.slot }),
                }
            }
        })
    }

    fn queue(&mut self, slot: u32) {
        let Shard { records, queues, .. } = self;
        let StoredSession { worth, expires: at, .. } = records[slot as usize];
        queues[worth as usize].push(Due { at, slot }, |slot, place| {
            records[slot as usize].place = place;
        });
    }

    fn put_off(&mut self, Due { at, slot }: Due) {
        let Shard { records, queues, .. } = self;
        let StoredSession { worth, place, .. } = records[slot as usize];
        queues[worth as usize].change(place, at, |slot, place| {
            records[slot as usize].place = place;
        });
    }

    fn leave_queue(&mut self, (worth, place): (Worth, u32)) {
        let Shard { records, queues, .. } = self;
        queues[worth as usize].remove(place, |slot, place| records[slot as usize].place = place);
    }

    #[cfg(test)]
    pub(super) fn queued(&self) -> usize {
        self.queues.iter().map(Queue::len).sum()
    }
}
