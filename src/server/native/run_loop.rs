//! What the worker of an event loop does: it takes what is ready through its stages, as long as the epoch is its own.
//!
//! No stage waits. A request whose plugins wait for an operation is with the poller, which has submitted it to the
//! channel of the remote service, until that is over; one whose plugins may block is with another thread until they
//! are done.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};

use super::autoscaler;
#[cfg(feature = "https")]
use super::connection::Purpose;
use super::connection::{Connection, Job};
use super::engine::{Engine, catch_panic};
use super::event_loop::{Activity, EventLoop, InFlight, Recipient, Task, Work};
use super::ownership::Owned;
use super::poller::Resumed;
use crate::lock::try_lock;
use crate::pipeline::exchange::{Exchange, Position, Waits};
use crate::pipeline::service::Blocking;
use crate::server::ShutdownStage;

/// The worker that has this epoch of an event loop.
pub(super) struct Worker<'a> {
    pub(super) engine: &'a Arc<Engine>,
    pub(super) event_loop: &'a Arc<EventLoop>,
    pub(super) epoch: u64,
}

impl Worker<'_> {
    /// Runs the loop as long as the epoch is this worker's.
    pub(super) fn run(&self) {
        let Worker { engine, event_loop, .. } = *self;
        event_loop.worker.store(autoscaler::this_thread().unwrap_or(0), Ordering::Relaxed);
        loop {
            let mut poller = event_loop.poller();
            let (returned, submitted, rest) = {
                let mut work = event_loop.work();
                let returned = std::mem::take(&mut work.returned);
                (returned, std::mem::take(&mut work.submitted), !work.is_empty())
            };
            for returned in returned {
                engine.event_loops.take_back(&mut poller, event_loop, returned);
            }
            let stage = engine.stage();
            if stage != ShutdownStage::Running {
                poller.stop_accepting();
                if engine.is_cut_off() {
                    poller.close_unbegun();
                }
            }
            let at_once = stage == ShutdownStage::Immediate;
            if (at_once || poller.is_empty_for_good()) && event_loop.end(at_once) {
                let cut = poller.clear();
                return engine.ended(cut);
            }
            let unreachable = poller.submit(submitted);
            if let Err(error) = poller.poll(rest || !unreachable.is_empty()) {
                log::error!("polling failed: {error}");
                engine.enter(ShutdownStage::Immediate);
            }
            event_loop.count(poller.count());
            let woke = poller.woke;
            let accepted = std::mem::take(&mut poller.accepted);
            let ready = std::mem::take(&mut poller.ready);
            let resumed = std::mem::take(&mut poller.resumed);
            let ended = std::mem::take(&mut poller.ended);
            drop(poller);
            engine.drop_abandoned_streams(event_loop, ended);
            engine.distribute(event_loop, accepted);
            engine.run_blocking_stages(event_loop, unreachable);
            if self.work(ready, resumed).is_none() {
                engine.threads.unblocked();
                return event_loop.wake();
            }
            event_loop.worked(woke);
        }
    }

    /// Takes what is ready through its stages; `None` where the epoch has passed meanwhile.
    fn work(&self, ready: Vec<(Box<Connection>, Job)>, resumed: Vec<Resumed>) -> Option<()> {
        let nothing_new = ready.is_empty() && resumed.is_empty();
        if nothing_new && self.event_loop.work().is_empty() {
            return Some(());
        }
        self.event_loop.ownership.begin().activity = Activity::Stages;
        self.engine.wake_monitor();
        self.prepare(ready, resumed)?;
        self.run_tasks()?;
        self.release()?;
        self.send()?;
        self.event_loop.ownership.finish(self.epoch).then_some(())
    }

    /// Says that the worker goes on to stages; `None` where the epoch has passed.
    fn enter_stages(&self) -> Option<MutexGuard<'_, Owned<Work>>> {
        let mut work = self.event_loop.ownership.lock_as(self.epoch)?;
        work.activity = Activity::Stages;
        self.event_loop.ownership.record_heartbeat();
        Some(work)
    }

    /// New requests find their routes, and plugins acquire what they ask for. Requests whose operations are over go on
    /// where they were.
    fn prepare(&self, ready: Vec<(Box<Connection>, Job)>, mut resumed: Vec<Resumed>) -> Option<()> {
        let Worker { engine, event_loop, .. } = *self;
        resumed.append(&mut event_loop.work().resumed);
        let count = ready.len() + resumed.len();
        let (mut exchanges, mut recipients) =
            (Vec::with_capacity(count), Vec::with_capacity(count));
        let (mut bodies, mut released) = (Vec::new(), Vec::new());
        for (connection, job) in ready {
            match job {
                Job::SendBody => bodies.push(Task::SendBody(connection)),
                #[cfg(feature = "https")]
                Job::Compute => engine.compute(event_loop, connection),
                #[cfg(feature = "https")]
                Job::Handle(incoming) if connection.purpose == Purpose::Redirects => {
                    engine.redirect(event_loop, connection, incoming);
                }
                Job::Handle(incoming) if incoming.stream.is_some() => {
                    engine.receive(event_loop, connection, incoming);
                }
                Job::Handle(incoming) => {
                    let (exchange, recipient) = engine.begin(connection, incoming);
                    exchanges.push(exchange);
                    recipients.push(recipient);
                }
            }
        }
        catch_panic(|| engine.service.route(&mut exchanges));
        for Resumed { in_flight: (mut exchange, recipient), over } in resumed {
            if let Some((slot, waiting)) = over {
                catch_panic(|| engine.service.conclude(&mut exchange, slot, waiting));
            }
            match exchange.position() {
                Position::Acquiring(_) | Position::Acquired => {
                    exchanges.push(exchange);
                    recipients.push(recipient);
                }
                Position::Releasing(_) | Position::Released => released.push((exchange, recipient)),
            }
        }
        catch_panic(|| engine.service.acquire(&mut exchanges, Blocking::Forbidden));
        {
            let mut work = event_loop.work();
            work.tasks.extend(bodies);
            work.ran.extend(released);
        }
        self.acquired(exchanges, recipients)
    }

    /// Requests have acquired what they can without blocking.
    fn acquired(&self, exchanges: Vec<Exchange>, recipients: Vec<Recipient>) -> Option<()> {
        let Worker { event_loop, epoch, .. } = *self;
        let (mut operations, mut rarely_blocking, mut blocking) =
            (Vec::new(), Vec::new(), Vec::new());
        let mut prepared = Vec::with_capacity(exchanges.len());
        for (exchange, recipient) in exchanges.into_iter().zip(recipients) {
            match exchange.waits() {
                Waits::Nothing => prepared.push((exchange, recipient)),
                Waits::Operation => operations.push((exchange, recipient)),
                Waits::Thread if self.acquires_here(&exchange) => {
                    rarely_blocking.push((exchange, recipient));
                }
                Waits::Thread => blocking.push((exchange, recipient)),
            }
        }
        let mut work = event_loop.work();
        for (exchange, recipient) in prepared {
            match exchange.must_run() {
                true => work.tasks.push_back(Task::Run((exchange, recipient))),
                // No handler is needed, and so no thread.
                false => work.ran.push((exchange, recipient)),
            }
        }
        if !rarely_blocking.is_empty() {
            work.tasks.push_back(Task::Acquire(rarely_blocking));
        }
        let is_mine = work.is_owned_by(epoch);
        drop(work);
        self.start_waits(is_mine, operations, blocking);
        is_mine.then_some(())
    }

    /// Whether the plugin that this request waits for runs on this thread.
    fn acquires_here(&self, exchange: &Exchange) -> bool {
        let engine = self.engine;
        !engine.acquire_blocks.is_set()
            && catch_panic(|| engine.service.rarely_blocks(exchange)) == Some(true)
    }

    /// Sees that requests get what they wait for. Before the worker goes on to tasks, so that these and the remote
    /// service work at the same time.
    fn start_waits(&self, is_mine: bool, operations: Vec<InFlight>, blocking: Vec<InFlight>) {
        let Worker { engine, event_loop, .. } = *self;
        if !operations.is_empty() {
            match try_lock(&event_loop.poller) {
                Some(mut poller) if is_mine => {
                    let unreachable = poller.send(operations);
                    drop(poller);
                    engine.run_blocking_stages(event_loop, unreachable);
                }
                // Another worker has the loop, and perhaps waits in its poller.
                _ => {
                    event_loop.work().submitted.extend(operations);
                    event_loop.wake();
                }
            }
        }
        engine.run_blocking_stages(event_loop, blocking);
    }

    /// Runs what may block, one task after the other.
    fn run_tasks(&self) -> Option<()> {
        let Worker { engine, event_loop, epoch } = *self;
        loop {
            let task = {
                let mut work = event_loop.ownership.lock_as(epoch)?;
                let Some(task) = work.tasks.pop_front() else { return Some(()) };
                work.activity = match &task {
                    Task::SendBody(_) => Activity::Stages,
                    Task::Acquire(_) => Activity::Acquire,
                    Task::Run((exchange, _)) => Activity::Handler(exchange.endpoint().cloned()),
                };
                // Before the monitor can look: what it sees blocked is not this task.
                event_loop.ownership.record_heartbeat();
                task
            };
            match task {
                Task::Run(in_flight) if engine.threads.queue_is_full() => {
                    engine.refuse(event_loop, in_flight, "the queue for a thread is full");
                }
                task if engine.threads.is_full() || should_offload(engine, &task) => {
                    engine.offload(event_loop, task);
                }
                Task::SendBody(connection) => {
                    let returned = engine.send_body(connection);
                    event_loop.work().returned.push(returned);
                }
                Task::Acquire(batch) => {
                    let (mut exchanges, recipients): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
                    engine.run_stage(&mut exchanges, |service, batch| {
                        service.acquire(batch, Blocking::Rare);
                    });
                    self.acquired(exchanges, recipients)?;
                }
                Task::Run((mut exchange, recipient)) => {
                    catch_panic(|| engine.service.run(&mut exchange));
                    let mut work = event_loop.work();
                    work.ran.push((exchange, recipient));
                    if !work.is_owned_by(epoch) {
                        return None;
                    }
                }
            }
        }
    }

    /// Plugins release what the requests hold whose handlers have run, and the answers are completed.
    fn release(&self) -> Option<()> {
        let Worker { engine, event_loop, epoch } = *self;
        let ran = std::mem::take(&mut self.enter_stages()?.ran);
        if ran.is_empty() {
            return Some(());
        }
        let (mut exchanges, recipients): (Vec<Exchange>, Vec<_>) = ran.into_iter().unzip();
        let kept =
            catch_panic(|| engine.service.release(&mut exchanges, Blocking::Forbidden)).is_some();
        let (mut operations, mut blocking) = (Vec::new(), Vec::new());
        let mut answered = Vec::with_capacity(recipients.len());
        for (exchange, recipient) in exchanges.into_iter().zip(recipients) {
            match exchange.waits() {
                Waits::Operation if kept => operations.push((exchange, recipient)),
                Waits::Thread if kept => blocking.push((exchange, recipient)),
                _ => answered.push((engine.complete(exchange, kept), recipient)),
            }
        }
        let mut work = event_loop.work();
        work.answered.extend(answered);
        let is_mine = work.is_owned_by(epoch);
        work.submitted.extend(operations);
        drop(work);
        engine.run_blocking_stages(event_loop, blocking);
        is_mine.then_some(())
    }

    fn send(&self) -> Option<()> {
        loop {
            let Some((response, recipient)) = self.enter_stages()?.answered.pop_front() else {
                return Some(());
            };
            let returned = self.engine.answer(response, recipient);
            self.event_loop.work().returned.push(returned);
        }
    }
}

/// Whether another thread is to run it: what blocked a moment ago, or a body that may wait.
fn should_offload(engine: &Engine, task: &Task) -> bool {
    match task {
        Task::Run((exchange, _)) => exchange.handler_blocks(),
        Task::SendBody(connection) => connection.may_wait(),
        Task::Acquire(_) => engine.acquire_blocks.is_set(),
    }
}
