//! All places, and which of them a connection should be in.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};

use super::connection::Connection;
use super::options::Options;
use super::place::Place;
use super::poller::{Back, Poller};
use super::socket::Listener;

/// The places that there are, of which the first ones serve; they are made when they are first needed.
pub(super) struct Places {
    all: RwLock<Vec<Arc<Place>>>,
    active: AtomicUsize,
    options: Arc<Options>,
}

impl Places {
    /// One place, which is active and listens.
    pub(super) fn new(options: Arc<Options>, listener: Listener) -> io::Result<Places> {
        let first = Arc::new(Place::new(0, options.clone())?);
        first.poller().listen(listener)?;
        Ok(Places { all: RwLock::new(vec![first]), active: AtomicUsize::new(1), options })
    }

    pub(super) fn all(&self) -> Vec<Arc<Place>> {
        self.all.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// How many places serve.
    pub(super) fn active(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    /// Makes another place, which nobody drives yet.
    pub(super) fn add(&self) -> io::Result<Arc<Place>> {
        let mut all = self.all.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        let place = Arc::new(Place::new(all.len(), self.options.clone())?);
        all.push(place.clone());
        Ok(place)
    }

    /// Lets so many places serve; those beyond hand on their connections as these come back.
    pub(super) fn activate(&self, count: usize) {
        self.active.store(count, Ordering::Relaxed);
    }

    /// About how many connections there are.
    pub(super) fn connections(&self) -> usize {
        let all = self.all.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        all.iter().map(|place| place.connections()).sum()
    }

    /// Takes a connection back at its place or, where the load is to be spread differently, elsewhere.
    pub(super) fn take_back(&self, poller: &mut Poller, here: &Place, back: Back) {
        let back = match (back, self.elsewhere(here)) {
            (Back::Open(connection), Some(there)) => match poller.part_with(connection) {
                Ok(connection) => {
                    here.count(poller.count());
                    return settle(connection, &there, here);
                }
                Err(connection) => Back::Open(connection),
            },
            (back, _) => back,
        };
        poller.take(back);
    }

    /// Finds a place for a new connection.
    pub(super) fn welcome(&self, connection: Box<Connection>, here: &Place) {
        match self.least() {
            Some(there) => settle(connection, &there, here),
            None => stay(connection, here),
        }
    }

    /// Where a connection of this place that comes back should better be: elsewhere if the place is inactive
    /// or has clearly more of them than another. Those that are idle stay: they cost nothing where they are.
    fn elsewhere(&self, here: &Place) -> Option<Arc<Place>> {
        let active = self.active();
        if here.number == 0 && active == 1 {
            return None;
        }
        let least = self.least()?;
        let (mine, its) = (here.connections(), least.connections());
        (here.number >= active || mine > its + its / 8 + 2).then_some(least)
    }

    /// The active place that has fewest connections.
    fn least(&self) -> Option<Arc<Place>> {
        let all = self.all.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        all.iter().take(self.active()).min_by_key(|place| place.connections()).cloned()
    }
}

fn settle(connection: Box<Connection>, there: &Place, here: &Place) {
    if there.number == here.number {
        return stay(connection, here);
    }
    if let Err(connection) = there.offer(connection) {
        stay(connection, here);
    }
}

fn stay(connection: Box<Connection>, here: &Place) {
    here.expect_one();
    here.work().back.push(Back::New(connection));
}
