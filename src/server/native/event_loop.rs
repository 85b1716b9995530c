//! An event loop: one poller, its connections and channels, and the one worker that runs it.
//!
//! The worker polls, and runs the handlers of what is ready itself. One that blocks in a handler loses its
//! epoch (see [`EventLoop::hand_off`]): another worker takes the poller and the tasks that it had not started.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::access::Logged;
use super::body::SharedBody;
use super::connection::Connection;
use super::options::Options;
use super::outgoing::Audience;
use super::ownership::{Owned, Ownership};
use super::poller::{Poller, Resumed, Returned, WAKER};
use crate::lock::lock;
use crate::message::response::Response;
use crate::pipeline::exchange::Exchange;
use crate::pipeline::service::Endpoint;

/// How soon after one hand-off another one says that requests of this kind block.
const AGAIN: Duration = Duration::from_millis(20);

pub(super) struct EventLoop {
    /// The first ones are active.
    pub(super) number: usize,
    pub(super) poller: Mutex<Poller>,
    waker: Arc<mio::Waker>,
    pub(super) ownership: Ownership<Work>,
    /// About how many connections there are.
    connections: AtomicUsize,
    /// How long the worker was not waiting for its poller, in nanoseconds, and how often.
    busy: AtomicU64,
    iterations: AtomicU64,
    /// The worker, as the system numbers threads; 0 where that is not known.
    pub(super) worker: AtomicU32,
}

/// What is under way, stage by stage, so that whoever runs the loop next can go on with it.
#[derive(Default)]
pub(super) struct Work {
    /// Whether the loop has come to its end, and nobody runs it any more.
    ended: bool,
    pub(super) activity: Activity,
    /// What may block, and nobody has started.
    pub(super) tasks: VecDeque<Task>,
    /// Requests whose handlers have run.
    pub(super) ran: Vec<InFlight>,
    /// Requests that wait for operations, for the poller to submit.
    pub(super) submitted: Vec<InFlight>,
    /// Requests that another worker has taken through a stage.
    pub(super) resumed: Vec<Resumed>,
    pub(super) answered: VecDeque<(Response, Recipient)>,
    /// Connections for the poller to take.
    pub(super) returned: Vec<Returned>,
    /// When the loop was last handed off.
    handed_off: Option<Instant>,
}

impl Work {
    /// Whether there is something to do besides what the poller finds.
    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
            && self.ran.is_empty()
            && self.resumed.is_empty()
            && self.answered.is_empty()
    }
}

/// What the worker is in.
#[derive(Default)]
pub(super) enum Activity {
    /// What takes no time: hooks and plugins that do not block, or a body that is sent.
    #[default]
    Stages,
    /// Plugins that acquire and hardly ever block.
    Acquire,
    /// The handler of this route.
    Handler(Option<Arc<Endpoint>>),
}

/// Something that may block.
pub(super) enum Task {
    /// Plugins that hardly ever block are to acquire what these requests ask for.
    Acquire(Vec<InFlight>),
    /// The handler of a request that is prepared.
    Run(InFlight),
    /// An answer whose body must be read further.
    SendBody(Box<Connection>),
}

/// A request on its way.
pub(super) type InFlight = (Exchange, Recipient);

/// A request on its way, apart from its exchange.
pub(super) struct Recipient {
    pub(super) connection: Box<Connection>,
    pub(super) audience: Audience,
    pub(super) stream: Option<SharedBody>,
    pub(super) logged: Option<Logged>,
}

impl EventLoop {
    pub(super) fn new(number: usize, options: Arc<Options>) -> io::Result<EventLoop> {
        let mut poller = Poller::new(options)?;
        let waker = Arc::new(mio::Waker::new(poller.registry(), WAKER)?);
        let channels = waker.clone();
        poller.wake = Some(Arc::new(move || wake(&channels)));
        Ok(EventLoop {
            number,
            poller: Mutex::new(poller),
            waker,
            ownership: Ownership::new(Work::default()),
            connections: AtomicUsize::new(0),
            busy: AtomicU64::new(0),
            iterations: AtomicU64::new(0),
            worker: AtomicU32::new(0),
        })
    }

    pub(super) fn poller(&self) -> MutexGuard<'_, Poller> {
        lock(&self.poller)
    }

    /// What is under way, for whoever adds to it.
    pub(super) fn work(&self) -> MutexGuard<'_, Owned<Work>> {
        self.ownership.lock()
    }

    pub(super) fn wake(&self) {
        wake(&self.waker);
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

    /// Notes what the worker did since its poller woke it.
    pub(super) fn worked(&self, since: Instant) {
        let nanos = u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.busy.fetch_add(nanos, Ordering::Relaxed);
        self.iterations.fetch_add(1, Ordering::Relaxed);
    }

    /// For how long, and for how many iterations, the worker has been at work in all.
    pub(super) fn worked_so_far(&self) -> (Duration, u64) {
        let busy = Duration::from_nanos(self.busy.load(Ordering::Relaxed));
        (busy, self.iterations.load(Ordering::Relaxed))
    }

    /// Takes a connection (back) from a thread that does not run this loop.
    pub(super) fn return_connection(&self, returned: Returned) {
        self.work().returned.push(returned);
        self.wake();
    }

    /// Takes requests whose handlers have run on another thread.
    pub(super) fn return_ran(&self, ran: InFlight) {
        self.work().ran.push(ran);
        self.wake();
    }

    /// Takes requests that have been taken through a stage on another thread.
    pub(super) fn resume(&self, resumed: impl IntoIterator<Item = InFlight>) {
        let resumed = resumed.into_iter().map(|in_flight| Resumed { in_flight, over: None });
        self.work().resumed.extend(resumed);
        self.wake();
    }

    /// Takes a connection from another loop, unless this one has ended.
    pub(super) fn offer(&self, connection: Box<Connection>) -> Result<(), Box<Connection>> {
        let mut work = self.work();
        if work.ended {
            return Err(connection);
        }
        self.expect_one();
        work.returned.push(Returned::New(connection));
        drop(work);
        self.wake();
        Ok(())
    }

    /// Ends the loop, unless connections have come for it meanwhile that are not to be dropped.
    pub(super) fn end(&self, at_once: bool) -> bool {
        let mut work = self.work();
        work.ended = at_once || work.returned.is_empty();
        work.ended
    }

    /// Takes the loop from a worker that is still in the task of this heartbeat, and says what that is.
    ///
    /// The next worker goes on with the tasks that were not started, unless this one blocks and the loop was handed
    /// off a moment ago as well: where two requests blocked, those behind them may block too, and each is to have a
    /// thread of its own. These are in the answer.
    pub(super) fn hand_off(
        &self,
        heartbeat: u64,
        blocks: bool,
        count: impl FnOnce(),
    ) -> Option<(u64, Activity, VecDeque<Task>)> {
        let (epoch, mut work) = self.ownership.hand_off(heartbeat)?;
        count();
        let activity = std::mem::take(&mut work.activity);
        let mut tasks = VecDeque::new();
        if blocks
            && work
                .handed_off
                .replace(Instant::now())
                .is_some_and(|before| before.elapsed() < AGAIN)
        {
            tasks = std::mem::take(&mut work.tasks);
        }
        Some((epoch, activity, tasks))
    }
}

fn wake(waker: &mio::Waker) {
    if let Err(error) = waker.wake() {
        log::error!("the poller cannot be woken: {error}");
    }
}
