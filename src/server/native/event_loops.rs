//! All event loops, and which of them a connection should be in.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};

use super::connection::{Connection, Purpose};
use super::event_loop::EventLoop;
use super::options::Options;
use super::poller::{Poller, Returned};
use super::socket::Listener;
use crate::lock::{read, write};

/// The event loops that there are, of which the first ones serve; they are made when they are first needed.
pub(super) struct EventLoops {
    all: RwLock<Vec<Arc<EventLoop>>>,
    active: AtomicUsize,
    options: Arc<Options>,
}

impl EventLoops {
    /// One event loop, which is active and listens.
    pub(super) fn new(
        options: Arc<Options>,
        listeners: impl IntoIterator<Item = (Listener, Purpose)>,
    ) -> io::Result<EventLoops> {
        let first = Arc::new(EventLoop::new(0, options.clone())?);
        for (listener, purpose) in listeners {
            first.poller().listen(listener, purpose)?;
        }
        Ok(EventLoops { all: RwLock::new(vec![first]), active: AtomicUsize::new(1), options })
    }

    pub(super) fn all(&self) -> Vec<Arc<EventLoop>> {
        read(&self.all).clone()
    }

    /// How many event loops serve.
    pub(super) fn active(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    /// Makes another event loop, which nobody runs yet.
    pub(super) fn add(&self) -> io::Result<Arc<EventLoop>> {
        let mut all = write(&self.all);
        let event_loop = Arc::new(EventLoop::new(all.len(), self.options.clone())?);
        all.push(event_loop.clone());
        Ok(event_loop)
    }

    /// Lets so many event loops serve; those beyond hand on their connections as these come back.
    pub(super) fn activate(&self, count: usize) {
        self.active.store(count, Ordering::Relaxed);
    }

    /// About how many connections there are.
    pub(super) fn connections(&self) -> usize {
        let all = read(&self.all);
        all.iter().map(|event_loop| event_loop.connections()).sum()
    }

    /// Takes a connection back at its loop or, where the load is to be spread differently, elsewhere.
    pub(super) fn take_back(&self, poller: &mut Poller, here: &EventLoop, returned: Returned) {
        let returned = match (returned, self.elsewhere(here)) {
            (Returned::Open(connection), Some(there)) => match poller.detach(connection) {
                Ok(connection) => {
                    here.count(poller.count());
                    return place(connection, &there, here);
                }
                Err(connection) => Returned::Open(connection),
            },
            (returned, _) => returned,
        };
        poller.take(returned);
    }

    /// Finds an event loop for a new connection.
    pub(super) fn assign(&self, connection: Box<Connection>, here: &EventLoop) {
        let there = self.least();
        place(connection, there.as_deref().unwrap_or(here), here);
    }

    /// Where a connection of this loop that comes back should better be: elsewhere if the loop is inactive
    /// or has clearly more of them than another. Those that are idle stay: they cost nothing where they are.
    fn elsewhere(&self, here: &EventLoop) -> Option<Arc<EventLoop>> {
        let active = self.active();
        if here.number == 0 && active == 1 {
            return None;
        }
        let least = self.least()?;
        let (mine, its) = (here.connections(), least.connections());
        (here.number >= active || mine > its + its / 8 + 2).then_some(least)
    }

    /// The active event loop that has fewest connections.
    fn least(&self) -> Option<Arc<EventLoop>> {
        let all = read(&self.all);
        all.iter().take(self.active()).min_by_key(|event_loop| event_loop.connections()).cloned()
    }
}

/// Gives a connection to a loop, or keeps it here where that is this one or has ended.
fn place(connection: Box<Connection>, there: &EventLoop, here: &EventLoop) {
    let kept =
        if there.number == here.number { Some(connection) } else { there.offer(connection).err() };
    if let Some(connection) = kept {
        here.expect_one();
        here.work().returned.push(Returned::New(connection));
    }
}
