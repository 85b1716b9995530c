//! A place: one poller, its connections, and the one thread that drives it.
//!
//! There are as many places as cores. The thread that drives a place polls, and runs the handlers of
//! what is ready itself; a thread that stays in one step for more than about a millisecond loses its
//! turn (see [`Place::hand_over`]), and another one takes what it had not begun, and the poller.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use super::body::SharedBody;
use super::connection::Connection;
use super::options::Options;
use super::outgoing::Audience;
use super::poller::{Back, Poller, WAKER};
use crate::exchange::Exchange;
use crate::response::Response;

pub(super) struct Place {
    pub(super) poller: Mutex<Poller>,
    waker: mio::Waker,
    work: Mutex<Work>,
    /// Moves on with each step of the driver: one that does not move is stuck.
    beat: AtomicU64,
    /// About how many connections there are.
    pub(super) connections: AtomicUsize,
}

/// What is under way, stage by stage, so that whoever gets the turn can go on with it.
#[derive(Default)]
pub(super) struct Work {
    /// Whose turn it is: a driver with another number has lost it.
    pub(super) turn: u64,
    /// Whether the driver is in its steps, not at the poller.
    pub(super) busy: bool,
    pub(super) pending: VecDeque<Step>,
    pub(super) ran: Vec<(Exchange, Job)>,
    pub(super) answered: VecDeque<(Response, Job)>,
    /// Connections for the poller to take.
    pub(super) back: Vec<Back>,
}

/// Something that may block.
pub(super) enum Step {
    /// A request that is prepared.
    Run(Box<(Exchange, Job)>),
    /// An answer whose body must be read further.
    Pump(Box<Connection>),
}

/// A request on its way, apart from its exchange.
pub(super) struct Job {
    pub(super) connection: Box<Connection>,
    pub(super) audience: Audience,
    pub(super) stream: Option<SharedBody>,
    pub(super) logged: Option<Logged>,
}

/// What the access log says of a request.
pub(super) struct Logged {
    pub(super) line: String,
    pub(super) started: Instant,
}

impl Place {
    pub(super) fn new(options: Arc<Options>) -> io::Result<Place> {
        let poller = Poller::new(options)?;
        let waker = mio::Waker::new(poller.registry(), WAKER)?;
        Ok(Place {
            poller: Mutex::new(poller),
            waker,
            work: Mutex::default(),
            beat: AtomicU64::new(0),
            connections: AtomicUsize::new(0),
        })
    }

    pub(super) fn poller(&self) -> MutexGuard<'_, Poller> {
        self.poller.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(super) fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(super) fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            log::error!("the poller cannot be woken: {error}");
        }
    }

    /// Says that a step begins.
    pub(super) fn step(&self) {
        self.beat.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn beat(&self) -> u64 {
        self.beat.load(Ordering::Relaxed)
    }

    /// Takes a connection (back) from a thread that does not drive this place.
    pub(super) fn give(&self, back: Back) {
        self.work().back.push(back);
        self.wake();
    }

    /// Takes the turn from a driver that is still in the step of this beat, and what it had not begun.
    pub(super) fn hand_over(&self, stuck_at: u64) -> Option<(u64, Work)> {
        let mut work = self.work();
        if !work.busy || self.beat() != stuck_at {
            return None;
        }
        work.turn += 1;
        work.busy = false;
        let turn = work.turn;
        let back = std::mem::take(&mut work.back);
        let taken = std::mem::replace(&mut *work, Work { turn, back, ..Work::default() });
        Some((turn, taken))
    }
}
