//! The places, the threads that drive them, and the watch over both.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::thread::Thread;
use std::time::{Duration, Instant};

use http::StatusCode;

use super::access::Logged;
use super::connection::{Connection, Incoming, Next};
use super::drive::drive;
use super::load::Load;
use super::options::Options;
use super::outgoing::Outgoing;
use super::place::{Job, Place, Rest, Step};
use super::poller::{Back, Poller, Ready, turn_away};
use super::pool::Pool;
use crate::exchange::Exchange;
use crate::response::{Body, Response};
use crate::server::ShutdownStage;
use crate::service::Service;

/// How long a step may take before the turn goes to another thread: between one and two of these.
const PATIENCE: Duration = Duration::from_millis(1);

/// After how many looks without work the watch goes to sleep.
const QUIET_LOOKS: u32 = 20;

/// How long a server that is to end at once waits for its threads to let go of the sockets.
const LAST_WAIT: Duration = Duration::from_secs(1);

pub(super) struct Engine {
    pub(super) service: Service,
    options: Arc<Options>,
    pub(super) places: Vec<Place>,
    pool: Pool,
    stage: AtomicU8,
    /// Threads in a handler that do not drive a place.
    blocked: AtomicUsize,
    /// Places that still run.
    running: AtomicUsize,
    /// How many places serve connections, from the first on.
    active: AtomicUsize,
    /// Up to how many of them while their threads compute.
    cores: usize,
    watch: Thread,
    watch_sleeps: AtomicBool,
}

impl Engine {
    /// An engine watched over by the current thread.
    pub(super) fn new(
        service: Service,
        options: Arc<Options>,
        places: Vec<Place>,
        cores: usize,
    ) -> Engine {
        Engine {
            service,
            pool: Pool::new(options.max_threads),
            options,
            stage: AtomicU8::new(0),
            blocked: AtomicUsize::new(0),
            running: AtomicUsize::new(places.len()),
            active: AtomicUsize::new(1),
            cores,
            places,
            watch: std::thread::current(),
            watch_sleeps: AtomicBool::new(false),
        }
    }

    /// Takes note of a shutdown.
    pub(super) fn enter(&self, stage: ShutdownStage) {
        self.stage.fetch_max(stage as u8, Ordering::SeqCst);
        self.places.iter().for_each(Place::wake);
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
        self.blocked.load(Ordering::SeqCst) >= self.options.max_threads
    }

    /// A thread that had lost its turn is done with what it was in.
    pub(super) fn unblocked(&self) {
        self.blocked.fetch_sub(1, Ordering::SeqCst);
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
    pub(super) fn serve(self: &Arc<Engine>) {
        for at in 0..self.places.len() {
            self.clone().start(at, 0);
        }
        self.watch();
        self.pool.stop();
    }

    fn start(self: Arc<Engine>, at: usize, turn: u64) {
        let pool = self.pool.clone();
        pool.run_now(Box::new(move || drive(&self, at, turn)));
    }

    /// Looks every millisecond whether a driver is stuck, as long as there is work.
    fn watch(self: &Arc<Engine>) {
        let mut seen = vec![0; self.places.len()];
        let mut load = Load::now(&self.places);
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
            quiet = if self.look(&mut seen) { 0 } else { quiet + 1 };
            let active = self.active.load(Ordering::Relaxed);
            if let Some(needed) = load.places_needed(&self.places, active, self.cores)
                && needed != active
            {
                log::debug!("serves in {needed} places");
                self.active.store(needed, Ordering::Relaxed);
            }
            if quiet < QUIET_LOOKS || stage != ShutdownStage::Running {
                std::thread::park_timeout(PATIENCE);
                continue;
            }
            self.watch_sleeps.store(true, Ordering::SeqCst);
            // A driver that became busy before it could see that the watch sleeps is seen here.
            if !self.places.iter().any(|place| place.work().busy) {
                std::thread::park();
            }
            self.watch_sleeps.store(false, Ordering::SeqCst);
            load = Load::now(&self.places);
            quiet = 0;
        }
    }

    /// One look; whether there was work since the last one.
    fn look(self: &Arc<Engine>, seen: &mut [u64]) -> bool {
        let mut worked = false;
        for (at, place) in self.places.iter().enumerate() {
            let beat = place.beat();
            if beat != seen[at] {
                seen[at] = beat;
                worked = true;
            } else if !self.all_blocked() {
                self.hand_over(at, beat);
            }
        }
        worked
    }

    fn hand_over(self: &Arc<Engine>, at: usize, stuck_at: u64) {
        let Some((turn, rest)) = self.places[at].hand_over(stuck_at, Instant::now()) else {
            return;
        };
        self.blocked.fetch_add(1, Ordering::SeqCst);
        self.clone().start(at, turn);
        self.spread(at, rest);
    }

    /// Gives each of these a thread.
    pub(super) fn spread(self: &Arc<Engine>, at: usize, rest: Rest) {
        for step in rest.pending {
            let engine = self.clone();
            self.pool.run(Box::new(move || engine.aside(at, |engine| engine.run(step))));
        }
        for (response, job) in rest.answered {
            let engine = self.clone();
            self.pool
                .run(Box::new(move || engine.aside(at, |engine| engine.answer(response, job))));
        }
        if !rest.ran.is_empty() {
            let engine = self.clone();
            self.pool.run(Box::new(move || {
                for (response, job) in engine.finish(rest.ran) {
                    engine.aside(at, |engine| engine.answer(response, job));
                }
            }));
        }
    }

    /// Does something on a thread that does not drive the place.
    fn aside(self: &Arc<Engine>, at: usize, step: impl FnOnce(&Engine) -> Back) {
        self.blocked.fetch_add(1, Ordering::SeqCst);
        let back = step(self);
        self.blocked.fetch_sub(1, Ordering::SeqCst);
        self.places[at].give(back);
    }

    /// Runs one prepared request to its answer, or sends more of one.
    fn run(&self, step: Step) -> Back {
        match step {
            Step::Pump(connection) => self.pump(connection),
            Step::Run(mut exchange, job) => {
                self.service.run(&mut exchange);
                self.service.finish(std::slice::from_mut(&mut exchange));
                self.answer(exchange.into_response(), job)
            }
        }
    }

    pub(super) fn pump(&self, mut connection: Box<Connection>) -> Back {
        let next = connection.pump();
        back(connection, next)
    }

    pub(super) fn finish(&self, ran: Vec<(Exchange, Job)>) -> Vec<(Response, Job)> {
        let (mut exchanges, jobs): (Vec<_>, Vec<_>) = ran.into_iter().unzip();
        self.service.finish(&mut exchanges);
        exchanges.into_iter().map(Exchange::into_response).zip(jobs).collect()
    }

    pub(super) fn answer(&self, response: Response, mut job: Job) -> Back {
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
    pub(super) fn distribute(&self, at: usize, accepted: Vec<Connection>) {
        for connection in accepted {
            if self.places.iter().map(Place::connections).sum::<usize>()
                >= self.options.max_connections
            {
                turn_away(&connection);
                continue;
            }
            self.settle(Box::new(connection), self.least(), at);
        }
    }

    /// Takes a connection back, here or, where the load is to be spread differently, elsewhere.
    pub(super) fn take_back(&self, poller: &mut Poller, at: usize, back: Back) {
        let back = match (back, self.elsewhere(at)) {
            (Back::Open(connection), Some(to)) => match poller.part_with(connection) {
                Ok(connection) => {
                    self.places[at].count(poller.count());
                    return self.settle(connection, to, at);
                }
                Err(connection) => Back::Open(connection),
            },
            (back, _) => back,
        };
        poller.take(back);
    }

    fn settle(&self, connection: Box<Connection>, to: usize, from: usize) {
        let (place, back) = (&self.places[to], Back::New(connection));
        place.expect_one();
        if to == from {
            place.work().back.push(back);
        } else {
            place.give(back);
        }
    }

    /// Where a connection of this place should better be: all of an inactive place's, and some of one that
    /// has clearly more than another.
    fn elsewhere(&self, at: usize) -> Option<usize> {
        let active = self.active.load(Ordering::Relaxed);
        if at == 0 && active == 1 {
            return None;
        }
        let least = self.least();
        let (here, there) = (self.places[at].connections(), self.places[least].connections());
        (at >= active || here > there + there / 8 + 2).then_some(least)
    }

    /// The active place that has fewest connections.
    fn least(&self) -> usize {
        let active = self.active.load(Ordering::Relaxed);
        (0..active).min_by_key(|at| self.places[*at].connections()).unwrap_or(0)
    }

    /// All threads that may be blocked are: what is ready waits for one of them, up to a limit.
    pub(super) fn queue(self: &Arc<Engine>, at: usize, ready: Vec<Ready>) {
        for ready in ready {
            let engine = self.clone();
            let full = self.pool.waiting() >= self.options.max_queue;
            match ready {
                Ready::Pump(connection) => self.pool.run(Box::new(move || {
                    engine.aside(at, |engine| engine.pump(connection));
                })),
                Ready::Handle(mut connection, incoming) if full => {
                    log::warn!("refused a request: all threads are busy and the queue is full");
                    let refusal = Outgoing::refusal(StatusCode::SERVICE_UNAVAILABLE);
                    connection.reclaim(incoming.stream);
                    let next = connection.answer(refusal);
                    self.places[at].work().back.push(back(connection, next));
                }
                Ready::Handle(connection, incoming) => self.pool.run(Box::new(move || {
                    engine.aside(at, |engine| {
                        let (mut exchange, job) = engine.begin(connection, incoming);
                        engine.service.prepare(std::slice::from_mut(&mut exchange));
                        engine.run(Step::Run(exchange, job))
                    });
                })),
            }
        }
    }
}

fn back(connection: Box<Connection>, next: Next) -> Back {
    match next {
        Next::Close => Back::Closed(connection.slot),
        _ => Back::Open(connection),
    }
}
