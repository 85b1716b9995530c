//! A part of the store that has a lock of its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::expiry_queue::{Entry, ExpiryQueue};
use super::record::{Priority, StoredSession, Timestamp};
use super::tombstones::Tombstones;
use crate::session::id::SessionId;
use crate::session::store::Lifetimes;

/// How many due records of each priority an access checks: more than the one it may add, so that expired records are removed
/// faster than new ones come, and no thread has to collect them.
const SWEEP_STEPS: usize = 4;

/// Records in slots, an index of them by id, and queues of when they expire.
///
/// A record that was used since it was queued is queued too early and is queued anew when it is due, so that using a session
/// does not change the queue.
pub(super) struct Shard {
    slots: HashMap<SessionId, u32>,
    records: Vec<StoredSession>,
    queues: [ExpiryQueue; Priority::ALL.len()],
    /// The sessions of this shard in which each user is logged in.
    users: HashMap<Box<str>, Vec<SessionId>>,
    pub(super) tombstones: Tombstones,
    /// How many sessions all shards hold.
    count: Arc<AtomicUsize>,
}

impl Shard {
    pub(super) fn new(count: Arc<AtomicUsize>) -> Shard {
        let (slots, records, queues) = (HashMap::new(), Vec::new(), Default::default());
        let (users, tombstones) = (HashMap::new(), Tombstones::default());
        Shard { slots, records, queues, users, tombstones, count }
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

    /// Changes a record, and its queue entry if it expires earlier now or has another priority.
    pub(super) fn change<T>(
        &mut self,
        slot: u32,
        change: impl FnOnce(&mut StoredSession) -> T,
    ) -> T {
        let stored = &mut self.records[slot as usize];
        let before = (stored.priority, stored.position);
        let changed = change(stored);
        let (priority, at) = (stored.priority, stored.expires);
        if priority != before.0 {
            self.remove_from_queue(before);
            self.queue(slot);
        } else if self.queues[priority as usize].expires(before.1) > at {
            self.requeue(Entry { at, slot });
        }
        changed
    }

    pub(super) fn insert(&mut self, stored: StoredSession) {
        self.tombstones.remove(&stored.id);
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

    /// Takes a record out. Its place in the store stays reserved.
    pub(super) fn take(&mut self, slot: u32) -> StoredSession {
        let StoredSession { priority, position, .. } = *self.stored(slot);
        self.remove_from_queue((priority, position));
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
            self.queues[moved.priority as usize].set_slot(moved.position, slot);
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
            self.tombstones.add_ended(id.clone(), now);
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
        self.count.fetch_sub(1, Ordering::Relaxed);
    }

    /// Removes some of what has expired.
    pub(super) fn sweep(&mut self, now: Timestamp) {
        Priority::ALL.into_iter().for_each(|priority| self.sweep_queue(priority, now, SWEEP_STEPS));
    }

    /// Removes all that has expired.
    pub(super) fn sweep_all(&mut self, now: Timestamp) {
        Priority::ALL.into_iter().for_each(|priority| self.sweep_queue(priority, now, usize::MAX));
    }

    fn sweep_queue(&mut self, priority: Priority, now: Timestamp, steps: usize) {
        for _ in 0..steps {
            let first = self.queues[priority as usize].first();
            let Some(Entry { slot, .. }) = first.filter(|due| due.at <= now) else { return };
            match self.stored(slot).expires {
                at if at <= now => self.end(slot),
                at => self.requeue(Entry { at, slot }),
            }
        }
    }

    /// The session to evict first: of those of the lowest priority, the one that expires first.
    pub(super) fn eviction_candidate(&mut self) -> Option<(Priority, Entry)> {
        Priority::ALL.into_iter().find_map(|priority| {
            loop {
                let due = self.queues[priority as usize].first()?;
                match self.stored(due.slot).expires {
                    at if at == due.at => return Some((priority, due)),
                    at => self.requeue(Entry { at, slot: due.slot }),
                }
            }
        })
    }

    fn queue(&mut self, slot: u32) {
        let Shard { records, queues, .. } = self;
        let StoredSession { priority, expires: at, .. } = records[slot as usize];
        queues[priority as usize].push(Entry { at, slot }, |slot, position| {
            records[slot as usize].position = position;
        });
    }

    fn requeue(&mut self, Entry { at, slot }: Entry) {
        let Shard { records, queues, .. } = self;
        let StoredSession { priority, position, .. } = records[slot as usize];
        queues[priority as usize].change(position, at, |slot, position| {
            records[slot as usize].position = position;
        });
    }

    fn remove_from_queue(&mut self, (priority, position): (Priority, u32)) {
        let Shard { records, queues, .. } = self;
        queues[priority as usize]
            .remove(position, |slot, position| records[slot as usize].position = position);
    }

    #[cfg(test)]
    pub(super) fn queued(&self) -> usize {
        self.queues.iter().map(ExpiryQueue::len).sum()
    }
}
