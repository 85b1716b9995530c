//! The places, the threads that drive them, and the watch over both.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::thread::Thread;
use std::time::{Duration, Instant};

use http::StatusCode;

use super::access::Logged;
use super::connection::{Connection, Incoming, Next};
use super::drive::drive;
use super::load::{self, Load};
use super::options::Options;
use super::outgoing::Outgoing;
use super::place::{Doing, Job, Place, Rest, Step, Wait};
use super::places::Places;
use super::poller::{Back, Ready, turn_away};
use super::pool::Pool;
use crate::message::response::{Body, Response};
use crate::pipeline::exchange::Exchange;
use crate::pipeline::service::Service;
use crate::pipeline::slow::Slow;
use crate::server::ShutdownStage;
use crate::{Error, ErrorKind, Result};

/// A driver that blocks for this long in a handler is stuck; how often the watch looks.
const PATIENCE: Duration = Duration::from_millis(1);

/// One that computes is stuck after this long: another thread would have no core either. So is one in plugins:
/// while it waits for Redis the next batch grows, and to begin that at once would make many small ones.
const LONG_PATIENCE: Duration = Duration::from_millis(10);

/// For how long a handler that blocked is left to other threads.
const HANDLER_IS_SLOW: Duration = Duration::from_secs(1);

/// For how long plugins that blocked are: longer, as to find out again holds up requests that need none, and
/// longer than a breaker waits between its trials.
const PLUGINS_ARE_SLOW: Duration = Duration::from_secs(5);

/// After how many looks without work the watch goes to sleep.
const QUIET_LOOKS: u32 = 20;

/// How long a server that is to end at once waits for its threads to let go of the sockets.
const LAST_WAIT: Duration = Duration::from_secs(1);

pub(super) struct Engine {
    pub(super) service: Service,
    options: Arc<Options>,
    pub(super) places: Places,
    pool: Pool,
    stage: AtomicU8,
    /// Requests that are handled while their bodies still arrive.
    receiving: AtomicUsize,
    /// Places that still run.
    running: AtomicUsize,
    /// Up to how many places serve while their threads compute.
    cores: usize,
    watch: Thread,
    watch_sleeps: AtomicBool,
    /// Whether plugins were slow lately.
    pub(super) plugins: Slow,
}

impl Engine {
    /// An engine watched over by the current thread.
    pub(super) fn new(
        service: Service,
        options: Arc<Options>,
        places: Places,
        cores: usize,
    ) -> Engine {
        Engine {
            service,
            pool: Pool::new(options.max_threads),
            options,
            stage: AtomicU8::new(0),
            receiving: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            cores,
            places,
            watch: std::thread::current(),
            watch_sleeps: AtomicBool::new(false),
            plugins: Slow::default(),
        }
    }

    /// Takes note of a shutdown.
    pub(super) fn enter(&self, stage: ShutdownStage) {
        self.stage.fetch_max(stage as u8, Ordering::SeqCst);
        self.places.all().iter().for_each(|place| place.wake());
        self.watch.unpark();
    }

    pub(super) fn stage(&self) -> ShutdownStage {
        match self.stage.load(Ordering::SeqCst) {
            0 => ShutdownStage::Running,
            1 => ShutdownStage::Graceful,
            _ => ShutdownStage::Immediate,
        }
    }

    /// Whether as many handlers block as may.
    pub(super) fn all_blocked(&self) -> bool {
        self.pool.is_full()
    }

    /// A thread that had lost its turn is done with what it was in.
    pub(super) fn unblocked(&self) {
        self.pool.let_go();
    }

    /// Whether something that was slow a moment ago is left to another thread.
    pub(super) fn leaves(&self, slow: &Slow) -> bool {
        slow.is() && !self.all_blocked()
    }

    /// Waits for plugins on another thread; the driver of the place goes on with what comes of it.
    pub(super) fn wait_aside(
        self: &Arc<Engine>,
        place: &Arc<Place>,
        wait: Wait,
        batch: Vec<(Exchange, Job)>,
    ) {
        place.line(wait).push(batch);
        self.staff(place, wait, Instant::now());
        // By a thread that has lost its turn, this may happen while no driver is busy.
        self.be_watched();
    }

    /// Sees that a thread serves those that wait.
    fn staff(self: &Arc<Engine>, place: &Arc<Place>, wait: Wait, now: Instant) {
        let Some(number) = place.line(wait).understaffed(now, LONG_PATIENCE) else { return };
        let (engine, place) = (self.clone(), place.clone());
        let next = move |place: &Place| place.line(wait).next(number, Instant::now());
        self.pool.run(Box::new(move || {
            while let Some(batch) = next(&place) {
                place.go_on_with(engine.wait(wait, batch));
            }
        }));
    }

    /// Waits for plugins.
    pub(super) fn wait(&self, wait: Wait, batch: Vec<(Exchange, Job)>) -> Rest {
        match wait {
            Wait::Acquire => {
                let (mut exchanges, jobs): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
                contained(|| self.service.acquire_all(&mut exchanges));
                let prepared = exchanges.into_iter().zip(jobs);
                let pending = prepared.map(|(exchange, job)| Step::Run(exchange, job)).collect();
                Rest { pending, ..Rest::default() }
            }
            Wait::Release => Rest { answered: self.finish(batch).into(), ..Rest::default() },
        }
    }

    /// A place has ended.
    pub(super) fn ended(&self) {
        self.running.fetch_sub(1, Ordering::SeqCst);
        self.watch.unpark();
    }

    /// Makes sure that the watch looks, now that there is work.
    pub(super) fn be_watched(&self) {
        if self.watch_sleeps.load(Ordering::SeqCst)
            && self.watch_sleeps.swap(false, Ordering::SeqCst)
        {
            self.watch.unpark();
        }
    }

    /// Serves until a shutdown has come to its end.
    pub(super) fn serve(self: &Arc<Engine>) -> Result<()> {
        for place in self.places.all() {
            self.open(place);
        }
        if self.pool.is_empty() {
            return Err(Error::new(ErrorKind::Io, "cannot serve: the system gives no thread"));
        }
        self.watch();
        self.pool.stop();
        Ok(())
    }

    /// Lets a new place be driven.
    fn open(self: &Arc<Engine>, place: Arc<Place>) {
        self.running.fetch_add(1, Ordering::SeqCst);
        self.start(place, 0);
    }

    fn start(self: &Arc<Engine>, place: Arc<Place>, turn: u64) {
        let engine = self.clone();
        self.pool.run_now(Box::new(move || drive(&engine, &place, turn)));
    }

    /// Lets more or fewer places serve.
    fn resize(self: &Arc<Engine>, count: usize) {
        while self.places.all().len() < count {
            match self.places.add() {
                Ok(place) => self.open(place),
                // Those that there are must do: out of file descriptors, most likely.
                Err(error) => return log::debug!("no other place to serve in: {error}"),
            }
        }
        log::debug!("serves in {count} places");
        self.places.activate(count);
    }

    /// Looks every millisecond whether a driver is stuck, as long as there is work.
    fn watch(self: &Arc<Engine>) {
        let mut seen = Vec::new();
        let mut load = Load::now(&self.places.all());
        let (mut quiet, mut end) = (0, None);
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
                if now >= due && stage == ShutdownStage::Immediate {
                    log::warn!("ends while requests are still being handled");
                    return;
                }
                if now >= due {
                    self.enter(ShutdownStage::Immediate);
                    end = None;
                }
            }
            let places = self.places.all();
            quiet = if self.look(&places, &mut seen, now) { 0 } else { quiet + 1 };
            let active = self.places.active();
            if let Some(needed) = load.places_needed(&places, active, self.cores)
                && needed != active
                && stage == ShutdownStage::Running
            {
                self.resize(needed);
            }
            if quiet < QUIET_LOOKS || stage != ShutdownStage::Running {
                std::thread::park_timeout(PATIENCE);
                continue;
            }
            self.watch_sleeps.store(true, Ordering::SeqCst);
            // A driver that became busy before it could see that the watch sleeps is seen here, and so is what it
            // has left in a line.
            let awaited = |place: &Arc<Place>| place.work().busy || place.has_line();
            if !self.places.all().iter().any(awaited) {
                std::thread::park();
            }
            self.watch_sleeps.store(false, Ordering::SeqCst);
            load = Load::now(&places);
            quiet = 0;
        }
    }

    /// One look; whether there was work since the last one.
    fn look(
        self: &Arc<Engine>,
        places: &[Arc<Place>],
        seen: &mut Vec<(u64, Instant)>,
        now: Instant,
    ) -> bool {
        seen.resize(places.len(), (0, now));
        let mut worked = false;
        // Where no other request comes to notice that the thread of a line is held up, or that one is free again.
        for place in places.iter().filter(|place| place.has_line()) {
            worked = true;
            if !self.all_blocked() {
                Wait::ALL.into_iter().for_each(|wait| self.staff(place, wait, now));
            }
        }
        for (place, seen) in places.iter().zip(seen) {
            let beat = place.beat();
            if beat != seen.0 {
                *seen = (beat, now);
                worked = true;
            } else {
                // Whatever the limit of threads: somebody must accept, refuse and shut down.
                self.hand_over(place, beat, now, now - seen.1);
            }
        }
        worked
    }

    fn hand_over(
        self: &Arc<Engine>,
        place: &Arc<Place>,
        stuck_at: u64,
        now: Instant,
        stuck_for: Duration,
    ) {
        if !place.work().busy {
            return;
        }
        // Another thread has no use for the time of one that computes, or waits for a core. And what plugins wait
        // for, many requests wait for together.
        let blocks = !load::computes(place.driver());
        if stuck_for < LONG_PATIENCE && (!blocks || place.is_in_plugins()) {
            return;
        }
        // Counted before the driver can notice, and be done.
        let lost = || self.pool.hold_up();
        let Some((turn, doing, rest)) = place.hand_over(stuck_at, blocks, now, lost) else {
            return;
        };
        match doing {
            Doing::Plugins if blocks => self.plugins.mark(PLUGINS_ARE_SLOW),
            Doing::Handler(Some(endpoint)) if blocks => endpoint.slow.mark(HANDLER_IS_SLOW),
            Doing::Plugins | Doing::Handler(_) | Doing::Steps => {}
        }
        self.start(place.clone(), turn);
        self.spread(place, rest);
    }

    /// Gives each of these a thread.
    pub(super) fn spread(self: &Arc<Engine>, place: &Arc<Place>, rest: Rest) {
        for step in rest.pending {
            self.aside(place, |engine| engine.run(step));
        }
        for (response, job) in rest.answered {
            self.aside(place, |engine| engine.answer(response, job));
        }
        // Those that wait for no plugin go ahead here, too.
        let (waiting, ran): (Vec<_>, Vec<_>) =
            rest.ran.into_iter().partition(|(exchange, _)| exchange.waits_at_all());
        if !ran.is_empty() {
            let (engine, place) = (self.clone(), place.clone());
            self.pool.run(Box::new(move || {
                for (response, job) in engine.finish(ran) {
                    place.give(engine.answer(response, job));
                }
            }));
        }
        if !waiting.is_empty() {
            self.wait_aside(place, Wait::Release, waiting);
        }
    }

    /// Does something on a thread that does not drive the place.
    pub(super) fn aside(
        self: &Arc<Engine>,
        place: &Arc<Place>,
        step: impl FnOnce(&Engine) -> Back + Send + 'static,
    ) {
        let (engine, place) = (self.clone(), place.clone());
        self.pool.run(Box::new(move || place.give(step(&engine))));
    }

    /// Runs one prepared request to its answer, or sends more of one.
    pub(super) fn run(&self, step: Step) -> Back {
        match step {
            Step::Pump(connection) => self.pump(connection),
            Step::Run(mut exchange, job) => {
                contained(|| self.service.run(&mut exchange));
                let (response, job) = self.finish_one(exchange, job);
                self.answer(response, job)
            }
        }
    }

    pub(super) fn pump(&self, mut connection: Box<Connection>) -> Back {
        let slot = connection.slot;
        let pumped = contained(|| {
            let next = connection.pump();
            back(connection, next)
        });
        pumped.unwrap_or(Back::Closed(slot))
    }

    pub(super) fn finish(&self, ran: Vec<(Exchange, Job)>) -> Vec<(Response, Job)> {
        let (mut exchanges, jobs): (Vec<_>, Vec<_>) = ran.into_iter().unzip();
        let finished = contained(|| self.service.finish(&mut exchanges)).is_some();
        exchanges.into_iter().map(|exchange| response_of(exchange, finished)).zip(jobs).collect()
    }

    pub(super) fn finish_one(&self, mut exchange: Exchange, job: Job) -> (Response, Job) {
        let one = std::slice::from_mut(&mut exchange);
        let finished = contained(|| self.service.finish(one)).is_some();
        (response_of(exchange, finished), job)
    }

    pub(super) fn answer(&self, response: Response, job: Job) -> Back {
        let slot = job.connection.slot;
        contained(|| self.send(response, job)).unwrap_or(Back::Closed(slot))
    }

    fn send(&self, response: Response, mut job: Job) -> Back {
        let whole = job.connection.reclaim(job.stream);
        job.audience.keep_alive &= whole && self.stage() == ShutdownStage::Running;
        if let Some(logged) = job.logged {
            let length = match response.body() {
                Body::Bytes(bytes) => Some(bytes.len() as u64),
                Body::Stream { length, .. } => *length,
            };
            logged.answered(response.status(), length);
        }
        let outgoing = Outgoing::new(response, job.audience);
        let next = job.connection.answer(outgoing);
        back(job.connection, next)
    }

    /// A request that was read becomes an exchange.
    pub(super) fn begin(&self, connection: Box<Connection>, incoming: Incoming) -> (Exchange, Job) {
        let Incoming { exchange, audience, stream } = incoming;
        let logged = self.options.access_log.then(|| Logged::new(exchange.request()));
        (exchange, Job { connection, audience, stream, logged })
    }

    /// Gives accepted connections to the active places.
    pub(super) fn distribute(&self, place: &Place, accepted: Vec<Connection>) {
        for connection in accepted {
            if self.places.connections() >= self.options.max_connections {
                turn_away(&connection);
            } else {
                self.places.welcome(Box::new(connection), place);
            }
        }
    }

    /// All threads that may be blocked are: what is ready waits for one of them, up to a limit.
    pub(super) fn queue(self: &Arc<Engine>, place: &Arc<Place>, ready: Vec<Ready>) {
        for ready in ready {
            match ready {
                Ready::Pump(connection) => self.aside(place, |engine| engine.pump(connection)),
                Ready::Handle(connection, incoming)
                    if self.pool.waiting() >= self.options.max_queue =>
                {
                    self.refuse(place, connection, incoming, "the queue for a thread is full");
                }
                Ready::Handle(connection, incoming) if incoming.stream.is_some() => {
                    self.receive(place, connection, incoming);
                }
                Ready::Handle(connection, incoming) => {
                    self.aside(place, |engine| engine.handle(connection, incoming));
                }
            }
        }
    }

    /// Handles a request whose body still arrives: whatever reads it waits for the client, and must delay
    /// nobody else. Threads are left for those that need not wait for theirs.
    pub(super) fn receive(
        self: &Arc<Engine>,
        place: &Arc<Place>,
        connection: Box<Connection>,
        incoming: Incoming,
    ) {
        let most = self.options.max_threads.div_ceil(2);
        if self.receiving.fetch_add(1, Ordering::SeqCst) >= most {
            self.receiving.fetch_sub(1, Ordering::SeqCst);
            return self.refuse(place, connection, incoming, "too many bodies are arriving");
        }
        self.aside(place, |engine| {
            let back = engine.handle(connection, incoming);
            engine.receiving.fetch_sub(1, Ordering::SeqCst);
            back
        });
    }

    /// Takes one request through all its stages.
    fn handle(&self, connection: Box<Connection>, incoming: Incoming) -> Back {
        let (mut exchange, job) = self.begin(connection, incoming);
        contained(|| self.service.prepare(std::slice::from_mut(&mut exchange)));
        self.run(Step::Run(exchange, job))
    }

    fn refuse(
        &self,
        place: &Place,
        mut connection: Box<Connection>,
        incoming: Incoming,
        why: &str,
    ) {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        log::warn!("refused a request: {why}");
        if self.options.access_log {
            Logged::new(incoming.exchange.request()).answered(status, None);
        }
        connection.reclaim(incoming.stream);
        let next = connection.answer(Outgoing::refusal(status));
        place.work().back.push(back(connection, next));
    }
}

/// Keeps a panic that gets past the service, of a `drop` or a logger of the application's, from the thread:
/// a place that nobody drives would be lost with all its connections.
pub(super) fn contained<T>(step: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(step)).ok()
}

/// After a panic among exchanges, which of them were finished is unknown: none of them is to be trusted.
fn response_of(exchange: Exchange, finished: bool) -> Response {
    contained(|| exchange.into_response())
        .filter(|_| finished)
        .unwrap_or_else(|| Response::new(StatusCode::INTERNAL_SERVER_ERROR))
}

fn back(connection: Box<Connection>, next: Next) -> Back {
    match next {
        Next::Close => Back::Closed(connection.slot),
        _ => Back::Open(connection),
    }
}
