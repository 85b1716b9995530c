//! Who runs an event loop: one worker at a time, the one that has its epoch.
//!
//! A worker runs handlers itself. One that blocks in a handler loses the loop: the monitor gives the next epoch to another
//! worker. This is what makes that safe; `tests/model` checks 2 to 8 in every order of the threads' steps:
//!
//! 1. A connection is with its poller, in one queue of the loop's work, or with one thread. It is moved, never shared.
//! 2. The queues are reached under one lock, and taken from only by the worker that has the epoch at that moment.
//! 3. Only the worker that has the epoch polls. While it polls it is not busy, and nobody takes the epoch from it.
//! 4. [`hand_off`](Ownership::hand_off) takes the epoch from a busy worker that has begun nothing else since its heartbeat
//!    was read: what it blocks in is what the monitor saw.
//! 5. With the epoch, all that is queued goes to the next worker. The former one keeps the task that it is in.
//! 6. The former worker finds out when it takes the lock. It queues what it has done for the next one, and leaves.
//! 7. A task is begun by whoever took it out of its queue, once.
//! 8. Epochs only go up: a worker never has again what it has lost.
//! 9. Whoever takes the epoch counts the worker as blocked under the same lock, so before that one can uncount itself.
//! 10. A loop ends under the same lock under which it is given connections: none comes to a loop that has ended.

use std::ops::{Deref, DerefMut};

use super::sync::{AtomicU64, Mutex, MutexGuard, Ordering};
use crate::lock::lock;

/// The work of an event loop, and who may take from it.
pub(super) struct Ownership<W> {
    owned: Mutex<Owned<W>>,
    /// Goes up with each task that the worker begins: one that does not move is blocked.
    heartbeat: AtomicU64,
}

/// The work, locked.
pub(super) struct Owned<W> {
    /// Goes up with each hand-off: a worker with an older number runs the loop no more.
    epoch: u64,
    /// Whether the worker is at its tasks, not at the poller.
    busy: bool,
    work: W,
}

impl<W> Ownership<W> {
    /// A loop that the worker of epoch 0 may run.
    pub(super) fn new(work: W) -> Ownership<W> {
        let owned = Mutex::new(Owned { epoch: 0, busy: false, work });
        Ownership { owned, heartbeat: AtomicU64::new(0) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Owned<W>> {
        lock(&self.owned)
    }

    /// The work, for the worker that has this epoch; `None` where it has passed.
    pub(super) fn lock_as(&self, epoch: u64) -> Option<MutexGuard<'_, Owned<W>>> {
        Some(self.lock()).filter(|owned| owned.is_owned_by(epoch))
    }

    /// The worker goes from the poller to its tasks.
    pub(super) fn begin(&self) -> MutexGuard<'_, Owned<W>> {
        let mut owned = self.lock();
        owned.busy = true;
        self.record_heartbeat();
        owned
    }

    /// The worker goes back to the poller; false where its epoch has passed.
    pub(super) fn finish(&self, epoch: u64) -> bool {
        self.lock_as(epoch).map(|mut owned| owned.busy = false).is_some()
    }

    /// Says that a task begins.
    pub(super) fn record_heartbeat(&self) {
        self.heartbeat.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn heartbeat(&self) -> u64 {
        self.heartbeat.load(Ordering::Relaxed)
    }

    /// Takes the loop from a worker that is still in the task of this heartbeat: the next epoch, and the work, locked.
    pub(super) fn hand_off(&self, heartbeat: u64) -> Option<(u64, MutexGuard<'_, Owned<W>>)> {
        let mut owned = self.lock();
        if !owned.busy || self.heartbeat() != heartbeat {
            return None;
        }
        owned.epoch += 1;
        owned.busy = false;
        Some((owned.epoch, owned))
    }
}

impl<W> Owned<W> {
    pub(super) fn is_owned_by(&self, epoch: u64) -> bool {
        self.epoch == epoch
    }

    pub(super) fn is_busy(&self) -> bool {
        self.busy
    }
}

impl<W> Deref for Owned<W> {
    type Target = W;

    fn deref(&self) -> &W {
        &self.work
    }
}

impl<W> DerefMut for Owned<W> {
    fn deref_mut(&mut self) -> &mut W {
        &mut self.work
    }
}
