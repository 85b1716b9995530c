//! What the worker of an event loop does: it takes what is ready through its stages, as long as the epoch is its own.
//!
//! No stage waits. A request whose plugins wait for an operation is with the poller, which has submitted it to the
//! channel of the remote service, until that is over; one whose plugins may block is with another thread until they
//! are done.

use std::sync::Arc;

#[cfg(feature = "https")]
use super::connection::Purpose;
use super::engine::{Engine, contained};
use super::event_loop::{Activity, EventLoop, InFlight, Task};
use super::poller::{Ready, Resumed};
use crate::pipeline::exchange::{Exchange, Position, Waits};
use crate::pipeline::service::Blocking;
use crate::server::ShutdownStage;

/// Runs an event loop as long as the epoch is this worker's.
pub(super) fn run(engine: &Arc<Engine>, event_loop: &Arc<EventLoop>, epoch: u64) {
    event_loop.run_by_this_thread();
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
        engine.carry_out(event_loop, unreachable);
        if work(engine, event_loop, epoch, ready, resumed).is_none() {
            engine.unblocked();
            return event_loop.wake();
        }
        event_loop.worked(woke);
    }
}

/// Takes what is ready through its stages; `None` where the epoch has passed meanwhile.
fn work(
    engine: &Arc<Engine>,
    event_loop: &Arc<EventLoop>,
    epoch: u64,
    ready: Vec<Ready>,
    resumed: Vec<Resumed>,
) -> Option<()> {
    let nothing_new = ready.is_empty() && resumed.is_empty();
    if nothing_new && event_loop.work().is_empty() {
        return Some(());
    }
    begin(engine, event_loop);
    prepare(engine, event_loop, epoch, ready, resumed)?;
    run_tasks(engine, event_loop, epoch)?;
    release(engine, event_loop, epoch)?;
    send(engine, event_loop, epoch)?;
    event_loop.ownership().finish(epoch).then_some(())
}

fn begin(engine: &Engine, event_loop: &EventLoop) {
    event_loop.ownership().begin().activity = Activity::Stages;
    engine.wake_monitor();
}

/// Says that the worker goes on to stages, as long as the epoch is its own.
fn enter_stages(event_loop: &EventLoop, epoch: u64) {
    if let Some(mut work) = event_loop.ownership().lock_as(epoch) {
        work.activity = Activity::Stages;
        event_loop.ownership().record_heartbeat();
    }
}

/// New requests find their routes, and plugins acquire what they ask for. Requests whose operations are over go on
/// where they were.
fn prepare(
    engine: &Arc<Engine>,
    event_loop: &Arc<EventLoop>,
    epoch: u64,
    ready: Vec<Ready>,
    mut resumed: Vec<Resumed>,
) -> Option<()> {
    resumed.append(&mut event_loop.work().resumed);
    let count = ready.len() + resumed.len();
    let (mut exchanges, mut recipients) = (Vec::with_capacity(count), Vec::with_capacity(count));
    let (mut pumps, mut released) = (Vec::new(), Vec::new());
    for ready in ready {
        match ready {
            Ready::Pump(connection) => pumps.push(Task::Pump(connection)),
            #[cfg(feature = "https")]
            Ready::Compute(connection) => engine.compute(event_loop, connection),
            #[cfg(feature = "https")]
            Ready::Handle(connection, incoming) if connection.purpose == Purpose::Redirects => {
                engine.redirect(event_loop, connection, incoming);
            }
            Ready::Handle(connection, incoming) if incoming.stream.is_some() => {
                engine.receive(event_loop, connection, incoming);
            }
            Ready::Handle(connection, incoming) => {
                let (exchange, recipient) = engine.begin(connection, incoming);
                exchanges.push(exchange);
                recipients.push(recipient);
            }
        }
    }
    contained(|| engine.service.route(&mut exchanges));
    for Resumed { in_flight: (mut exchange, recipient), over } in resumed {
        if let Some((slot, waiting)) = over {
            contained(|| engine.service.conclude(&mut exchange, slot, waiting));
        }
        match exchange.position() {
            Position::Acquiring(_) | Position::Acquired => {
                exchanges.push(exchange);
                recipients.push(recipient);
            }
            Position::Releasing(_) | Position::Released => released.push((exchange, recipient)),
        }
    }
    contained(|| engine.service.acquire(&mut exchanges, Blocking::Forbidden));
    let (mut operations, mut blocking) = (Vec::new(), Vec::new());
    let mut work = event_loop.work();
    work.tasks.extend(pumps);
    work.ran.extend(released);
    for (exchange, recipient) in exchanges.into_iter().zip(recipients) {
        match exchange.waits() {
            // No handler is needed, and so no thread.
            Waits::Nothing if !exchange.must_run() => work.ran.push((exchange, recipient)),
            Waits::Nothing => work.tasks.push_back(Task::Run((exchange, recipient))),
            Waits::Operation => operations.push((exchange, recipient)),
            Waits::Thread => blocking.push((exchange, recipient)),
        }
    }
    let is_mine = work.is_owned_by(epoch);
    drop(work);
    set_off(engine, event_loop, is_mine, operations, blocking);
    is_mine.then_some(())
}

/// Sees that requests get what they wait for. Before the worker goes on to tasks, so that these and the remote
/// service work at the same time.
fn set_off(
    engine: &Arc<Engine>,
    event_loop: &Arc<EventLoop>,
    is_mine: bool,
    operations: Vec<InFlight>,
    blocking: Vec<InFlight>,
) {
    if !operations.is_empty() {
        match event_loop.poller.try_lock() {
            Ok(mut poller) if is_mine => {
                let unreachable = poller.send(operations);
                drop(poller);
                engine.carry_out(event_loop, unreachable);
            }
            // Another worker has the loop, and perhaps waits in its poller.
            _ => {
                event_loop.work().submitted.extend(operations);
                event_loop.wake();
            }
        }
    }
    engine.carry_out(event_loop, blocking);
}

/// Runs what may block, one task after the other.
fn run_tasks(engine: &Arc<Engine>, event_loop: &Arc<EventLoop>, epoch: u64) -> Option<()> {
    loop {
        let (task, waits) = {
            let mut work = event_loop.ownership().lock_as(epoch)?;
            let Some(task) = work.tasks.pop_front() else { return Some(()) };
            let waits = matches!(&task, Task::Pump(connection) if connection.may_wait());
            let waits = waits && engine.begin_waiting();
            work.activity = match &task {
                Task::Pump(_) if waits => Activity::Body,
                Task::Pump(_) => Activity::Stages,
                Task::Run((exchange, _)) => Activity::Handler(exchange.endpoint().cloned()),
            };
            // Before the monitor can look: what it sees blocked is not this task.
            event_loop.ownership().record_heartbeat();
            (task, waits)
        };
        match task {
            Task::Pump(connection) if waits => {
                let returned = engine.pump(connection);
                let mut work = event_loop.work();
                work.returned.push(returned);
                if !work.is_owned_by(epoch) {
                    return None;
                }
                work.activity = Activity::Stages;
                drop(work);
                engine.end_waiting();
            }
            Task::Run(in_flight) if engine.is_crowded() => {
                engine.refuse(event_loop, in_flight, "the queue for a thread is full");
            }
            task if engine.all_blocked() || should_offload(&task) => {
                engine.offload(event_loop, task);
            }
            Task::Pump(connection) => {
                let returned = engine.pump(connection);
                event_loop.work().returned.push(returned);
            }
            Task::Run((mut exchange, recipient)) => {
                contained(|| engine.service.run(&mut exchange));
                let mut work = event_loop.work();
                work.ran.push((exchange, recipient));
                if !work.is_owned_by(epoch) {
                    return None;
                }
            }
        }
    }
}

/// Whether another thread is to run it: a handler that blocked a moment ago, or a body that may wait.
fn should_offload(task: &Task) -> bool {
    match task {
        Task::Run((exchange, _)) => exchange.handler_blocks(),
        Task::Pump(connection) => connection.may_wait(),
    }
}

/// Plugins release what the requests hold whose handlers have run, and the answers are completed.
fn release(engine: &Arc<Engine>, event_loop: &Arc<EventLoop>, epoch: u64) -> Option<()> {
    let ran = std::mem::take(&mut event_loop.ownership().lock_as(epoch)?.ran);
    if ran.is_empty() {
        return Some(());
    }
    enter_stages(event_loop, epoch);
    let (mut exchanges, recipients): (Vec<Exchange>, Vec<_>) = ran.into_iter().unzip();
    let kept = contained(|| engine.service.release(&mut exchanges, Blocking::Forbidden)).is_some();
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
    engine.carry_out(event_loop, blocking);
    is_mine.then_some(())
}

fn send(engine: &Engine, event_loop: &EventLoop, epoch: u64) -> Option<()> {
    enter_stages(event_loop, epoch);
    loop {
        let (response, recipient) = {
            let mut work = event_loop.ownership().lock_as(epoch)?;
            match work.answered.pop_front() {
                Some(answered) => answered,
                None => return Some(()),
            }
        };
        event_loop.ownership().record_heartbeat();
        let returned = engine.answer(response, recipient);
        event_loop.work().returned.push(returned);
    }
}
