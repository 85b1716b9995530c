//! The event loops, the threads that run them, and the monitor of both.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::thread::Thread;
use std::time::{Duration, Instant};

use http::StatusCode;

use super::access::Logged;
use super::autoscaler::{self, Autoscaler};
use super::connection::{Connection, Incoming, Next};
use super::event_loop::{Activity, EventLoop, InFlight, Job, Task};
use super::event_loops::EventLoops;
use super::options::Options;
use super::outgoing::Outgoing;
use super::poller::Returned;
#[cfg(feature = "https")]
use super::redirects::{self, Redirected};
use super::run_loop;
use super::threads::Threads;
use crate::logging::Recurring;
use crate::message::response::{Body, Response};
use crate::pipeline::exchange::{Exchange, Position};
use crate::pipeline::service::Service;
use crate::server::ShutdownStage;
use crate::{Error, ErrorKind, Result};

/// A worker that waits for something else than a core for this long in a handler is blocked; how often the monitor
/// ticks.
const BLOCKED_AFTER: Duration = Duration::from_millis(1);

/// One that computes is blocked after this long: another thread would have no core either.
const COMPUTES_TOO_LONG: Duration = Duration::from_millis(10);

/// For how long a handler that blocked is left to other threads.
const HANDLER_IS_SLOW: Duration = Duration::from_secs(1);

/// After how many ticks without work the monitor goes to sleep.
const QUIET_TICKS: u32 = 20;

/// How long a server that is to end at once waits for its threads to let go of the sockets.
const LAST_WAIT: Duration = Duration::from_secs(1);

pub(super) struct Engine {
    pub(super) service: Service,
    options: Arc<Options>,
    pub(super) event_loops: EventLoops,
    threads: Threads,
    /// Of their own: a storm of handshakes must take no thread that handlers wait for.
    #[cfg(feature = "https")]
    handshakes: Threads,
    stage: AtomicU8,
    /// Requests that are handled while their bodies still arrive.
    receiving: AtomicUsize,
    /// Event loops that still run.
    running: AtomicUsize,
    /// Up to how many event loops are active.
    cores: usize,
    monitor: Thread,
    monitor_sleeps: AtomicBool,
    /// Requests refused for want of threads.
    refused: Recurring,
}

impl Engine {
    /// An engine whose monitor is the current thread.
    pub(super) fn new(
        service: Service,
        options: Arc<Options>,
        event_loops: EventLoops,
        cores: usize,
    ) -> Engine {
        Engine {
            service,
            threads: Threads::new(options.max_threads),
            #[cfg(feature = "https")]
            handshakes: Threads::new(cores),
            options,
            stage: AtomicU8::new(0),
            receiving: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            cores,
            event_loops,
            monitor: std::thread::current(),
            monitor_sleeps: AtomicBool::new(false),
            refused: Recurring::default(),
        }
    }

    /// Takes note of a shutdown.
    pub(super) fn enter(&self, stage: ShutdownStage) {
        self.stage.fetch_max(stage as u8, Ordering::SeqCst);
        self.event_loops.all().iter().for_each(|event_loop| event_loop.wake());
        self.monitor.unpark();
    }

    pub(super) fn stage(&self) -> ShutdownStage {
        match self.stage.load(Ordering::SeqCst) {
            0 => ShutdownStage::Running,
            1 => ShutdownStage::Graceful,
            _ => ShutdownStage::Immediate,
        }
    }

    /// Whether a shutdown has come so far that what has not fully arrived is not waited for.
    pub(super) fn is_cut_off(&self) -> bool {
        self.options.cut_off.load(Ordering::SeqCst)
    }

    fn cut_off(&self) {
        self.options.cut_off.store(true, Ordering::SeqCst);
        self.event_loops.all().iter().for_each(|event_loop| event_loop.wake());
    }

    /// Whether as many handlers block as may.
    pub(super) fn all_blocked(&self) -> bool {
        self.threads.is_full()
    }

    /// Counts the current worker as one that waits for the outside, unless no more threads are left than are kept for
    /// others. Where it keeps its epoch, it [ends](Engine::end_waiting) that itself.
    pub(super) fn begin_waiting(&self) -> bool {
        self.threads.begin_waiting()
    }

    pub(super) fn end_waiting(&self) {
        self.threads.end_waiting();
    }

    /// Whether as many requests wait for a thread as may.
    pub(super) fn is_crowded(&self) -> bool {
        self.all_blocked() && self.threads.waiting() >= self.options.max_queue
    }

    /// A worker whose epoch has passed is done with what it was in.
    pub(super) fn unblocked(&self) {
        self.threads.unblocked();
    }

    /// Takes requests through the stage that they are in on a thread that may block; their loop goes on with what
    /// comes of it. Where no thread is free and too many wait for one, those that have only begun are refused.
    pub(super) fn carry_out(self: &Arc<Engine>, event_loop: &Arc<EventLoop>, batch: Vec<InFlight>) {
        let releases = |(exchange, _): &InFlight| {
            matches!(exchange.position(), Position::Releasing(_) | Position::Released)
        };
        let (releasing, acquiring): (Vec<_>, Vec<_>) = batch.into_iter().partition(releases);
        if self.is_crowded() {
            for in_flight in acquiring {
                self.refuse(event_loop, in_flight, "the queue for a thread is full");
            }
        } else {
            self.offload_stage(event_loop, acquiring, Service::acquire_all);
        }
        self.offload_stage(event_loop, releasing, Service::release_all);
    }

    fn offload_stage(
        self: &Arc<Engine>,
        event_loop: &Arc<EventLoop>,
        batch: Vec<InFlight>,
        stage: fn(&Service, &mut [Exchange]),
    ) {
        if batch.is_empty() {
            return;
        }
        let (engine, event_loop) = (self.clone(), event_loop.clone());
        self.threads.run(Box::new(move || {
            let (mut exchanges, jobs): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
            if contained(|| stage(&engine.service, &mut exchanges)).is_none() {
                // Whose panic that was is not known, nor how far it came.
                exchanges.iter_mut().for_each(Exchange::fail);
            }
            event_loop.resume(exchanges.into_iter().zip(jobs));
        }));
    }

    /// An event loop has ended.
    pub(super) fn ended(&self) {
        self.running.fetch_sub(1, Ordering::SeqCst);
        self.monitor.unpark();
    }

    /// Makes sure that the monitor ticks, now that there is work.
    pub(super) fn wake_monitor(&self) {
        if self.monitor_sleeps.load(Ordering::SeqCst)
            && self.monitor_sleeps.swap(false, Ordering::SeqCst)
        {
            self.monitor.unpark();
        }
    }

    /// Serves until a shutdown has come to its end.
    pub(super) fn serve(self: &Arc<Engine>) -> Result<()> {
        for event_loop in self.event_loops.all() {
            self.open(event_loop);
        }
        if self.threads.is_empty() {
            return Err(Error::new(ErrorKind::Io, "cannot serve: the system gives no thread"));
        }
        self.monitor();
        self.threads.stop();
        #[cfg(feature = "https")]
        self.handshakes.stop();
        Ok(())
    }

    /// Lets a new event loop run.
    fn open(self: &Arc<Engine>, event_loop: Arc<EventLoop>) {
        self.running.fetch_add(1, Ordering::SeqCst);
        self.start(event_loop, 0);
    }

    fn start(self: &Arc<Engine>, event_loop: Arc<EventLoop>, epoch: u64) {
        let engine = self.clone();
        self.threads.run_now(Box::new(move || {
            // A loop that nobody runs would be lost with all its connections.
            while contained(|| run_loop::run(&engine, &event_loop, epoch)).is_none() {
                log::error!("the worker of an event loop panicked; it goes on");
                let mut work = event_loop.work();
                if work.epoch != epoch {
                    drop(work);
                    return engine.unblocked();
                }
                work.busy = false;
            }
        }));
    }

    /// Lets more or fewer event loops be active.
    fn resize(self: &Arc<Engine>, count: usize) {
        while self.event_loops.all().len() < count {
            match self.event_loops.add() {
                Ok(event_loop) => self.open(event_loop),
                // Those that there are must do: out of file descriptors, most likely.
                Err(error) => return log::debug!("no other event loop: {error}"),
            }
        }
        log::debug!("{count} event loops are active");
        self.event_loops.activate(count);
    }

    /// Ticks every millisecond as long as there is work: sees whether a worker is blocked, and how many event loops
    /// are needed.
    fn monitor(self: &Arc<Engine>) {
        let mut seen = Vec::new();
        let mut autoscaler = Autoscaler::new(&self.event_loops.all());
        let (mut quiet, mut end, mut lame_duck) = (0, None, None);
        while self.running.load(Ordering::SeqCst) > 0 {
            let stage = self.stage();
            let now = Instant::now();
            if stage != ShutdownStage::Running {
                let wait = match stage {
                    ShutdownStage::Immediate => LAST_WAIT,
                    _ => self.options.drain_deadline,
                };
                let due = end.map_or(now + wait, |end: Instant| end.min(now + wait));
                end = Some(due);
                let cut_off = *lame_duck.get_or_insert(now + self.options.lame_duck);
                if now >= cut_off && !self.is_cut_off() {
                    self.cut_off();
                }
                if now >= due && stage == ShutdownStage::Immediate {
                    log::warn!("ends while requests are still being handled");
                    return;
                }
                if now >= due {
                    self.enter(ShutdownStage::Immediate);
                    end = None;
                }
            }
            let event_loops = self.event_loops.all();
            quiet = if self.tick(&event_loops, &mut seen, now) { 0 } else { quiet + 1 };
            let active = self.event_loops.active();
            if let Some(needed) = autoscaler.needed(&event_loops, active, self.cores)
                && needed != active
                && stage == ShutdownStage::Running
            {
                self.resize(needed);
            }
            if quiet < QUIET_TICKS || stage != ShutdownStage::Running {
                std::thread::park_timeout(BLOCKED_AFTER);
                continue;
            }
            self.monitor_sleeps.store(true, Ordering::SeqCst);
            // A worker that became busy before it could see that the monitor sleeps is seen here.
            if !self.event_loops.all().iter().any(|event_loop| event_loop.work().busy) {
                std::thread::park();
            }
            self.monitor_sleeps.store(false, Ordering::SeqCst);
            autoscaler = Autoscaler::new(&event_loops);
            quiet = 0;
        }
    }

    /// One tick; whether there was work since the last one.
    fn tick(
        self: &Arc<Engine>,
        event_loops: &[Arc<EventLoop>],
        seen: &mut Vec<(u64, Instant)>,
        now: Instant,
    ) -> bool {
        seen.resize(event_loops.len(), (0, now));
        let mut worked = false;
        for (event_loop, seen) in event_loops.iter().zip(seen) {
            let heartbeat = event_loop.heartbeat();
            if heartbeat != seen.0 {
                *seen = (heartbeat, now);
                worked = true;
            } else {
                // Whatever the limit of threads: somebody must accept, refuse and shut down.
                self.hand_off(event_loop, heartbeat, now, now - seen.1);
            }
        }
        worked
    }

    /// Gives an event loop whose worker is blocked to another one.
    fn hand_off(
        self: &Arc<Engine>,
        event_loop: &Arc<EventLoop>,
        heartbeat: u64,
        now: Instant,
        still_for: Duration,
    ) {
        if !event_loop.work().busy {
            return;
        }
        // Another thread has no use for the time of one that computes, or waits for a core.
        let blocks = !autoscaler::computes(event_loop.worker());
        if still_for < COMPUTES_TOO_LONG && !blocks {
            return;
        }
        // Counted before the worker can notice, and be done.
        let lost = |activity: &Activity| match activity {
            Activity::Body => {}
            Activity::Stages | Activity::Handler(_) => self.threads.blocked(),
        };
        let Some((epoch, activity, tasks)) = event_loop.hand_off(heartbeat, blocks, now, lost)
        else {
            return;
        };
        if let Activity::Handler(Some(endpoint)) = activity
            && blocks
        {
            endpoint.slow.mark(HANDLER_IS_SLOW);
        }
        self.start(event_loop.clone(), epoch);
        tasks.into_iter().for_each(|task| self.offload(event_loop, task));
    }

    /// Gives a task a thread of its own.
    pub(super) fn offload(self: &Arc<Engine>, event_loop: &Arc<EventLoop>, task: Task) {
        let (engine, event_loop) = (self.clone(), event_loop.clone());
        match task {
            Task::Pump(connection) => {
                let (slot, waits) = (connection.slot, connection.may_wait());
                let place = (event_loop.number, slot);
                let here = event_loop.clone();
                let pump = Box::new(move || event_loop.give(engine.pump(connection)));
                if !waits {
                    return self.threads.run(pump);
                }
                // Its head is sent: there is nothing left to say.
                if let Err(pump) = self.threads.run_patiently(place, pump, self.options.max_queue) {
                    self.note_refusal("too many streams wait for a thread");
                    contained(|| drop(pump));
                    here.give(Returned::Closed(slot));
                }
            }
            Task::Run((mut exchange, job)) => self.threads.run(Box::new(move || {
                contained(|| engine.service.run(&mut exchange));
                if exchange.holds_anything() {
                    return event_loop.give_ran((exchange, job));
                }
                let kept =
                    contained(|| engine.service.release_all(std::slice::from_mut(&mut exchange)));
                let response = engine.complete(exchange, kept.is_some());
                event_loop.give(engine.answer(response, job));
            })),
        }
    }

    /// Closes those of these connections whose streams wait for a thread: their clients have left. One that has closed
    /// only its side cannot be told from these.
    pub(super) fn leave(&self, event_loop: &EventLoop, ended: Vec<usize>) {
        if ended.is_empty() {
            return;
        }
        for (slot, pump) in self.threads.take_back(event_loop.number, ended) {
            contained(|| drop(pump));
            event_loop.give(Returned::Closed(slot));
        }
    }

    pub(super) fn pump(&self, mut connection: Box<Connection>) -> Returned {
        let slot = connection.slot;
        let pumped = contained(|| {
            let next = connection.pump();
            returned(connection, next)
        });
        pumped.unwrap_or(Returned::Closed(slot))
    }

    /// The answer of a request that plugins are done with. `kept` is false after a panic: what was finished then is
    /// unknown, and nothing is to be trusted.
    pub(super) fn complete(&self, mut exchange: Exchange, kept: bool) -> Response {
        let completed = kept && contained(|| self.service.complete(&mut exchange)).is_some();
        contained(|| exchange.into_response())
            .filter(|_| completed)
            .unwrap_or_else(|| Response::new(StatusCode::INTERNAL_SERVER_ERROR))
    }

    pub(super) fn answer(&self, response: Response, job: Job) -> Returned {
        let slot = job.connection.slot;
        contained(|| self.send(response, job)).unwrap_or(Returned::Closed(slot))
    }

    fn send(&self, response: Response, mut job: Job) -> Returned {
        let whole = job.connection.reclaim(job.stream);
        job.audience.keep_alive &= whole && self.stage() == ShutdownStage::Running;
        let mut status = response.status();
        let mut length = match response.body() {
            Body::Bytes(bytes) => Some(bytes.len() as u64),
            Body::Stream { length, .. } => *length,
        };
        let mut outgoing = Outgoing::new(response, job.audience);
        if outgoing.may_wait() && self.threads.is_overrun(self.options.max_queue) {
            self.note_refusal("too many streams wait for a thread");
            (status, length) = (StatusCode::SERVICE_UNAVAILABLE, None);
            outgoing = Outgoing::refusal(status, job.audience.head);
        }
        if let Some(logged) = job.logged {
            logged.answered(status, length);
        }
        // A body that may wait is a task of its own, which threads are left by.
        let next = match outgoing.may_wait() {
            true => job.connection.answer_without_waiting(outgoing),
            false => job.connection.answer(outgoing),
        };
        returned(job.connection, next)
    }

    /// A request that was read becomes an exchange.
    pub(super) fn begin(&self, connection: Box<Connection>, incoming: Incoming) -> InFlight {
        let Incoming { exchange, audience, stream } = incoming;
        let logged = self.options.access_log.then(|| Logged::new(exchange.request()));
        (exchange, Job { connection, audience, stream, logged })
    }

    /// Gives accepted connections to the active event loops.
    pub(super) fn distribute(&self, event_loop: &EventLoop, accepted: Vec<Connection>) {
        for mut connection in accepted {
            let turned_away = self.options.turned_away.count();
            let is_full =
                self.event_loops.connections() >= self.options.max_connections + turned_away;
            if !is_full || connection.turn_away() {
                self.event_loops.welcome(Box::new(connection), event_loop);
            }
        }
    }

    /// Handles a request whose body still arrives: whatever reads it waits for the client, and must delay
    /// nobody else. Half of the threads are left for those that need not wait for theirs. A body has a deadline and
    /// a stream has none, so it takes no turn behind streams.
    pub(super) fn receive(
        self: &Arc<Engine>,
        event_loop: &Arc<EventLoop>,
        connection: Box<Connection>,
        incoming: Incoming,
    ) {
        let most = self.options.max_threads.div_ceil(2);
        if self.receiving.fetch_add(1, Ordering::SeqCst) >= most {
            self.receiving.fetch_sub(1, Ordering::SeqCst);
            let in_flight = self.begin(connection, incoming);
            return self.refuse(event_loop, in_flight, "too many bodies are arriving");
        }
        let (engine, event_loop) = (self.clone(), event_loop.clone());
        self.threads.run(Box::new(move || {
            let (mut exchange, job) = engine.begin(connection, incoming);
            let one = std::slice::from_mut(&mut exchange);
            contained(|| engine.service.prepare(one));
            contained(|| engine.service.run(&mut one[0]));
            let kept = contained(|| engine.service.release_all(one));
            let response = engine.complete(exchange, kept.is_some());
            let returned = engine.answer(response, job);
            engine.receiving.fetch_sub(1, Ordering::SeqCst);
            event_loop.give(returned);
        }));
    }

    /// Computes a step of a handshake on one of the threads for these.
    #[cfg(feature = "https")]
    pub(super) fn compute(
        self: &Arc<Engine>,
        event_loop: &Arc<EventLoop>,
        mut connection: Box<Connection>,
    ) {
        let (engine, event_loop, asked) = (self.clone(), event_loop.clone(), Instant::now());
        self.handshakes.run(Box::new(move || {
            let slot = connection.slot;
            let computed = contained(|| {
                let next =
                    if engine.is_cut_off() { Next::Close } else { connection.compute(asked) };
                returned(connection, next)
            });
            event_loop.give(computed.unwrap_or(Returned::Closed(slot)));
        }));
    }

    /// Answers a request that came to a listener which only redirects.
    #[cfg(feature = "https")]
    pub(super) fn redirect(
        self: &Arc<Engine>,
        event_loop: &Arc<EventLoop>,
        connection: Box<Connection>,
        incoming: Incoming,
    ) {
        let (exchange, job) = self.begin(connection, incoming);
        let redirects = self.options.redirects.as_ref();
        match redirects.map(|redirects| redirects.answer(exchange.request())) {
            None => event_loop.work().returned.push(Returned::Closed(job.connection.slot)),
            Some(Redirected::Answer(response)) => {
                let returned = self.answer(response, job);
                event_loop.work().returned.push(returned);
            }
            Some(Redirected::File(path)) => {
                let (engine, event_loop) = (self.clone(), event_loop.clone());
                self.threads.run(Box::new(move || {
                    event_loop.give(engine.answer(redirects::challenge(&path), job));
                }));
            }
        }
    }

    fn note_refusal(&self, why: &str) {
        let line = || format!("refused a request: {why}");
        self.refused.happened(log::Level::Warn, why, line);
    }

    /// Answers a request 503 and closes its connection.
    pub(super) fn refuse(&self, event_loop: &EventLoop, (exchange, job): InFlight, why: &str) {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        self.note_refusal(why);
        contained(|| drop(exchange));
        if let Some(logged) = job.logged {
            logged.answered(status, None);
        }
        let mut connection = job.connection;
        connection.reclaim(job.stream);
        let next = connection.answer(Outgoing::refusal(status, job.audience.head));
        event_loop.work().returned.push(returned(connection, next));
    }
}

/// Keeps a panic that gets past the service, of a `drop` or a logger of the application's, from the thread:
/// an event loop that nobody runs would be lost with all its connections.
pub(super) fn contained<T>(step: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(step)).ok()
}

fn returned(connection: Box<Connection>, next: Next) -> Returned {
    match next {
        Next::Close => Returned::Closed(connection.slot),
        _ => Returned::Open(connection),
    }
}
