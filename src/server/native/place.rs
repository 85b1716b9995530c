//! A place: one poller, its connections, and the one thread that drives it.
//!
//! How many there are is the business of [`load`]. The thread that drives a place polls, and runs the
//! handlers of what is ready itself; a thread that is stuck in one step loses its turn (see
//! [`Place::hand_over`]), and another one takes the poller and what it had not begun.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::access::Logged;
use super::body::SharedBody;
use super::connection::Connection;
use super::line::Line;
use super::load;
use super::options::Options;
use super::outgoing::Audience;
use super::poller::{Back, Poller, WAKER};
use crate::message::response::Response;
use crate::pipeline::exchange::Exchange;
use crate::pipeline::service::Endpoint;

/// How soon after one lost turn another one says that requests of this kind block.
const AGAIN: Duration = Duration::from_millis(20);

pub(super) struct Place {
    /// The first ones serve.
    pub(super) number: usize,
    pub(super) poller: Mutex<Poller>,
    waker: mio::Waker,
    work: Mutex<Work>,
    /// By what they wait for.
    lines: [Mutex<Line<(Exchange, Job)>>; 2],
    /// Moves on with each step of the driver: one that does not move is stuck.
    beat: AtomicU64,
    /// About how many connections there are.
    connections: AtomicUsize,
    /// How long the driver was not waiting for its poller, in nanoseconds, and how often.
    busy: AtomicU64,
    turns: AtomicU64,
    /// The thread that drives, as the system numbers it; 0 where that is not known.
    driver: AtomicU32,
}

/// What is under way, stage by stage, so that whoever gets the turn can go on with it.
#[derive(Default)]
pub(super) struct Work {
    /// Whose turn it is: a driver with another number has lost it.
    pub(super) turn: u64,
    /// Whether the place has come to its end, and nobody drives it any more.
    ended: bool,
    /// Whether the driver is in its steps, not at the poller.
    pub(super) busy: bool,
    pub(super) doing: Doing,
    pub(super) pending: VecDeque<Step>,
    pub(super) ran: Vec<(Exchange, Job)>,
    pub(super) answered: VecDeque<(Response, Job)>,
    /// Connections for the poller to take.
    pub(super) back: Vec<Back>,
    /// When the turn was last taken from a driver.
    lost_at: Option<Instant>,
}

impl Work {
    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.ran.is_empty() && self.answered.is_empty()
    }

    /// Takes out what nobody has begun.
    pub(super) fn take_rest(&mut self) -> Rest {
        Rest {
            pending: std::mem::take(&mut self.pending),
            ran: std::mem::take(&mut self.ran),
            answered: std::mem::take(&mut self.answered),
        }
    }
}

/// For what requests wait together, on a thread that does not drive the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// For plugins to get what their handlers ask for.
    Acquire,
    /// For plugins to save, before they are answered.
    Release,
}

impl Wait {
    pub(super) const ALL: [Wait; 2] = [Wait::Acquire, Wait::Release];
}

/// What the driver is in.
#[derive(Default)]
pub(super) enum Doing {
    /// What takes no time, hooks, or a body that is sent.
    #[default]
    Steps,
    /// Plugins that get or save something for many requests together.
    Plugins,
    Handler(Option<Arc<Endpoint>>),
}

/// What a driver had not begun when it lost its turn.
#[derive(Default)]
pub(super) struct Rest {
    pub(super) pending: VecDeque<Step>,
    pub(super) ran: Vec<(Exchange, Job)>,
    pub(super) answered: VecDeque<(Response, Job)>,
}

/// Something that may block.
pub(super) enum Step {
    /// A request that is prepared.
    Run(Exchange, Job),
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

impl Place {
    pub(super) fn new(number: usize, options: Arc<Options>) -> io::Result<Place> {
        let poller = Poller::new(options)?;
        let waker = mio::Waker::new(poller.registry(), WAKER)?;
        Ok(Place {
            number,
            poller: Mutex::new(poller),
            waker,
            work: Mutex::default(),
            lines: Default::default(),
            beat: AtomicU64::new(0),
            connections: AtomicUsize::new(0),
            busy: AtomicU64::new(0),
            turns: AtomicU64::new(0),
            driver: AtomicU32::new(0),
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

    /// Whether plugins are what the driver is in.
    pub(super) fn is_in_plugins(&self) -> bool {
        matches!(self.work().doing, Doing::Plugins)
    }

    /// Says that a step begins.
    pub(super) fn step(&self) {
        self.beat.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn beat(&self) -> u64 {
        self.beat.load(Ordering::Relaxed)
    }

    /// About how many connections there are, those on their way here included.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Takes note of how many connections there really are.
    pub(super) fn count(&self, connections: usize) {
        self.connections.store(connections, Ordering::Relaxed);
    }

    /// Takes note of a connection on its way here.
    pub(super) fn expect_one(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes what the driver did since its poller woke it.
    pub(super) fn worked(&self, since: Instant) {
        let nanos = u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.busy.fetch_add(nanos, Ordering::Relaxed);
        self.turns.fetch_add(1, Ordering::Relaxed);
    }

    /// For how long, and for how many turns, the driver has been at work in all.
    pub(super) fn worked_so_far(&self) -> (Duration, u64) {
        let busy = Duration::from_nanos(self.busy.load(Ordering::Relaxed));
        (busy, self.turns.load(Ordering::Relaxed))
    }

    pub(super) fn driven_by_this_thread(&self) {
        self.driver.store(load::this_thread().unwrap_or(0), Ordering::Relaxed);
    }

    pub(super) fn driver(&self) -> u32 {
        self.driver.load(Ordering::Relaxed)
    }

    /// Takes a connection (back) from a thread that does not drive this place.
    pub(super) fn give(&self, back: Back) {
        self.work().back.push(back);
        self.wake();
    }

    /// Takes a connection from another place, unless this one has ended.
    pub(super) fn offer(&self, connection: Box<Connection>) -> Result<(), Box<Connection>> {
        let mut work = self.work();
        if work.ended {
            return Err(connection);
        }
        self.expect_one();
        work.back.push(Back::New(connection));
        drop(work);
        self.wake();
        Ok(())
    }

    /// Ends the place, unless connections have come for it meanwhile that are not to be dropped.
    pub(super) fn end(&self, at_once: bool) -> bool {
        let mut work = self.work();
        work.ended = at_once || work.back.is_empty();
        work.ended
    }

    /// Takes what the driver is to go on with from a thread that does not drive this place.
    pub(super) fn go_on_with(&self, rest: Rest) {
        let mut work = self.work();
        work.pending.extend(rest.pending);
        work.ran.extend(rest.ran);
        work.answered.extend(rest.answered);
        drop(work);
        self.wake();
    }

    /// The requests that wait for this on another thread.
    pub(super) fn line(&self, wait: Wait) -> MutexGuard<'_, Line<(Exchange, Job)>> {
        self.lines[wait as usize].lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Whether any wait for a thread to begin with them.
    pub(super) fn has_line(&self) -> bool {
        Wait::ALL.into_iter().any(|wait| !self.line(wait).is_empty())
    }

    /// Takes the turn from a driver that is still in the step of this beat, and says what that is.
    ///
    /// The new driver goes on with the rest, unless the driver blocks and this happens again at once: where two
    /// requests blocked, those behind them may block too, and each is to have a thread of its own.
    pub(super) fn hand_over(
        &self,
        stuck_at: u64,
        blocks: bool,
        now: Instant,
        lost: impl FnOnce(),
    ) -> Option<(u64, Doing, Rest)> {
        let mut work = self.work();
        if !work.busy || self.beat() != stuck_at {
            return None;
        }
        work.turn += 1;
        work.busy = false;
        lost();
        let doing = std::mem::take(&mut work.doing);
        let mut rest = Rest::default();
        if blocks && !matches!(doing, Doing::Plugins) {
            let again = work.lost_at.replace(now).is_some_and(|lost| now - lost < AGAIN);
            if again {
                rest = work.take_rest();
            }
        }
        Some((work.turn, doing, rest))
    }
}
