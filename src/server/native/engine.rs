//! The places, the threads that drive them, and the watch over both.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::thread::Thread;
use std::time::{Duration, Instant};

use http::StatusCode;

use super::connection::{Connection, Incoming, Next};
use super::load::Load;
use super::options::Options;
use super::outgoing::Outgoing;
use super::place::{Job, Logged, Place, Rest, Step};
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
    service: Service,
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

    fn stage(&self) -> ShutdownStage {
        match self.stage.load(Ordering::SeqCst) {
            0 => ShutdownStage::Running,
            1 => ShutdownStage::Graceful,
            _ => ShutdownStage::Immediate,
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
            } else if self.blocked.load(Ordering::SeqCst) < self.options.max_threads {
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
    fn spread(self: &Arc<Engine>, at: usize, rest: Rest) {
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

    fn pump(&self, mut connection: Box<Connection>) -> Back {
        let next = connection.pump();
        back(connection, next)
    }

    fn finish(&self, ran: Vec<(Exchange, Job)>) -> Vec<(Response, Job)> {
        let (mut exchanges, jobs): (Vec<_>, Vec<_>) = ran.into_iter().unzip();
        self.service.finish(&mut exchanges);
        exchanges.into_iter().map(Exchange::into_response).zip(jobs).collect()
    }

    fn answer(&self, response: Response, mut job: Job) -> Back {
        let whole = job.connection.reclaim(job.stream);
        job.audience.keep_alive &= whole && self.stage() == ShutdownStage::Running;
        if let Some(logged) = job.logged {
            let length = match response.body() {
                Body::Bytes(bytes) => Some(bytes.len() as u64),
                Body::Stream { length, .. } => *length,
            };
            let length = length.map_or("-".to_owned(), |length| length.to_string());
            let (status, took) = (response.status().as_u16(), logged.started.elapsed());
            log::info!(target: "bottle_session::access", "{} {status} {length} {took:?}", logged.line);
        }
        let outgoing = Outgoing::new(response, job.audience);
        let next = job.connection.answer(outgoing);
        back(job.connection, next)
    }

    /// A request that was read becomes an exchange.
    fn begin(&self, connection: Box<Connection>, incoming: Incoming) -> (Exchange, Job) {
        let Incoming { exchange, audience, stream } = incoming;
        let request = exchange.request();
        let logged = self.options.access_log.then(|| {
            let peer = request.remote_addr().map_or("-".to_owned(), |peer| peer.ip().to_string());
            let line = format!("{peer} \"{} {}\"", request.method(), request.target());
            Logged { line, started: Instant::now() }
        });
        (exchange, Job { connection, audience, stream, logged })
    }

    /// Gives accepted connections to the active places.
    fn distribute(&self, at: usize, accepted: Vec<Connection>) {
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
    fn take_back(&self, poller: &mut Poller, at: usize, back: Back) {
        let back = match (back, self.elsewhere(at)) {
            (Back::Open(connection), Some(to)) => match poller.part_with(connection) {
                Ok(connection) => {
                    self.places[at].count(poller.len());
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
    fn queue(self: &Arc<Engine>, at: usize, ready: Vec<Ready>) {
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

/// Drives a place as long as the turn is this thread's.
fn drive(engine: &Arc<Engine>, at: usize, turn: u64) {
    let place = &engine.places[at];
    loop {
        let mut poller = place.poller();
        let (returned, rest) = {
            let mut work = place.work();
            (std::mem::take(&mut work.back), !work.is_empty())
        };
        returned.into_iter().for_each(|back| engine.take_back(&mut poller, at, back));
        let stage = engine.stage();
        if stage == ShutdownStage::Immediate
            || (stage != ShutdownStage::Running && poller.is_empty())
        {
            poller.clear();
            engine.running.fetch_sub(1, Ordering::SeqCst);
            return engine.watch.unpark();
        }
        if let Err(error) = poller.turn(stage, rest) {
            log::error!("polling failed: {error}");
            engine.enter(ShutdownStage::Immediate);
        }
        place.count(poller.len());
        let woke = poller.woke;
        let accepted = std::mem::take(&mut poller.accepted);
        let ready = std::mem::take(&mut poller.ready);
        drop(poller);
        engine.distribute(at, accepted);
        if engine.blocked.load(Ordering::SeqCst) >= engine.options.max_threads {
            engine.queue(at, ready);
            let rest = place.work().take_rest();
            engine.spread(at, rest);
        } else if work(engine, at, turn, ready).is_none() {
            engine.blocked.fetch_sub(1, Ordering::SeqCst);
            return place.wake();
        }
        place.worked(woke);
    }
}

/// Takes what is ready through its stages; `None` where the turn was lost meanwhile.
fn work(engine: &Arc<Engine>, at: usize, turn: u64, ready: Vec<Ready>) -> Option<()> {
    let place = &engine.places[at];
    if ready.is_empty() && place.work().is_empty() {
        return Some(());
    }
    begin(engine, place);
    prepare(engine, place, turn, ready)?;
    run(engine, place, turn)?;
    finish(engine, place, turn)?;
    send(engine, place, turn)?;
    let mut work = place.work();
    (work.turn == turn).then(|| work.busy = false)
}

fn begin(engine: &Engine, place: &Place) {
    place.step();
    place.work().busy = true;
    if engine.watch_sleeps.load(Ordering::SeqCst)
        && engine.watch_sleeps.swap(false, Ordering::SeqCst)
    {
        engine.watch.unpark();
    }
}

fn prepare(engine: &Engine, place: &Place, turn: u64, ready: Vec<Ready>) -> Option<()> {
    let (mut exchanges, mut jobs) =
        (Vec::with_capacity(ready.len()), Vec::with_capacity(ready.len()));
    let mut pumps = Vec::new();
    for ready in ready {
        match ready {
            Ready::Pump(connection) => pumps.push(Step::Pump(connection)),
            Ready::Handle(connection, incoming) => {
                let (exchange, job) = engine.begin(connection, incoming);
                exchanges.push(exchange);
                jobs.push(job);
            }
        }
    }
    engine.service.route(&mut exchanges);
    let (mut waiting, mut waiting_jobs) = (Vec::new(), Vec::new());
    let mut work = place.work();
    work.pending.extend(pumps);
    for (exchange, job) in exchanges.into_iter().zip(jobs) {
        if exchange.waits() {
            waiting.push(exchange);
            waiting_jobs.push(job);
        } else {
            // Should a plugin wait for too long, the next owner of the turn goes on with these.
            work.pending.push_back(Step::Run(exchange, job));
        }
    }
    if !waiting.is_empty() {
        drop(work);
        place.step();
        engine.service.acquire(&mut waiting);
        work = place.work();
        let prepared = waiting.into_iter().zip(waiting_jobs);
        work.pending.extend(prepared.map(|(exchange, job)| Step::Run(exchange, job)));
    }
    (work.turn == turn).then_some(())
}

fn run(engine: &Engine, place: &Place, turn: u64) -> Option<()> {
    loop {
        let step = {
            let mut work = place.work();
            if work.turn != turn {
                return None;
            }
            match work.pending.pop_front() {
                Some(step) => step,
                None => return Some(()),
            }
        };
        place.step();
        match step {
            Step::Pump(connection) => {
                let back = engine.pump(connection);
                place.work().back.push(back);
            }
            Step::Run(mut exchange, job) => {
                engine.service.run(&mut exchange);
                let mut work = place.work();
                if work.turn == turn {
                    work.ran.push((exchange, job));
                    continue;
                }
                drop(work);
                for (response, job) in engine.finish(vec![(exchange, job)]) {
                    let back = engine.answer(response, job);
                    place.work().back.push(back);
                }
            }
        }
    }
}

fn finish(engine: &Engine, place: &Place, turn: u64) -> Option<()> {
    let mut ran = {
        let mut work = place.work();
        if work.turn != turn {
            return None;
        }
        std::mem::take(&mut work.ran)
    };
    // As in `prepare`: those that wait for no plugin go ahead.
    let waiting: Vec<_> = ran.extract_if(.., |(exchange, _)| exchange.waits()).collect();
    let mut kept = true;
    for part in [ran, waiting] {
        if !part.is_empty() {
            kept = release(engine, place, turn, part);
        }
    }
    kept.then_some(())
}

/// Whether the turn is still this thread's; if not, it has sent these answers itself.
fn release(engine: &Engine, place: &Place, turn: u64, ran: Vec<(Exchange, Job)>) -> bool {
    place.step();
    let answered = engine.finish(ran);
    let mut work = place.work();
    if work.turn == turn {
        work.answered.extend(answered);
        return true;
    }
    drop(work);
    for (response, job) in answered {
        let back = engine.answer(response, job);
        place.give(back);
    }
    false
}

fn send(engine: &Engine, place: &Place, turn: u64) -> Option<()> {
    loop {
        let (response, job) = {
            let mut work = place.work();
            if work.turn != turn {
                return None;
            }
            match work.answered.pop_front() {
                Some(answered) => answered,
                None => return Some(()),
            }
        };
        place.step();
        let back = engine.answer(response, job);
        place.work().back.push(back);
    }
}
