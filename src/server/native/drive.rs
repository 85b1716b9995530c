//! The thread of a place: it takes what is ready through its stages, as long as the turn is its own.

use std::sync::Arc;

use super::engine::{Engine, contained};
use super::place::{Doing, Job, Place, Step, Wait};
use super::poller::Ready;
use crate::pipeline::exchange::Exchange;
use crate::server::ShutdownStage;

/// Drives a place as long as the turn is this thread's.
pub(super) fn drive(engine: &Arc<Engine>, place: &Arc<Place>, turn: u64) {
    place.driven_by_this_thread();
    loop {
        let mut poller = place.poller();
        let (returned, rest) = {
            let mut work = place.work();
            (std::mem::take(&mut work.back), !work.is_empty())
        };
        returned.into_iter().for_each(|back| engine.places.take_back(&mut poller, place, back));
        let stage = engine.stage();
        if stage != ShutdownStage::Running {
            poller.stop_accepting();
        }
        let at_once = stage == ShutdownStage::Immediate;
        if (at_once || poller.is_empty_for_good()) && place.end(at_once) {
            poller.clear();
            return engine.ended();
        }
        if let Err(error) = poller.turn(rest) {
            log::error!("polling failed: {error}");
            engine.enter(ShutdownStage::Immediate);
        }
        place.count(poller.count());
        let woke = poller.woke;
        let accepted = std::mem::take(&mut poller.accepted);
        let ready = std::mem::take(&mut poller.ready);
        drop(poller);
        engine.distribute(place, accepted);
        if engine.all_blocked() {
            engine.queue(place, ready);
            let rest = place.work().take_rest();
            engine.spread(place, rest);
        } else if work(engine, place, turn, ready).is_none() {
            engine.unblocked();
            return place.wake();
        }
        place.worked(woke);
    }
}

/// Takes what is ready through its stages; `None` where the turn was lost meanwhile.
fn work(engine: &Arc<Engine>, place: &Arc<Place>, turn: u64, ready: Vec<Ready>) -> Option<()> {
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
    let mut work = place.work();
    (work.busy, work.doing) = (true, Doing::Steps);
    place.step();
    drop(work);
    engine.be_watched();
}

/// Says what the driver goes on to do, as long as the turn is its own.
fn enter(place: &Place, turn: u64, doing: Doing) {
    let mut work = place.work();
    if work.turn == turn {
        work.doing = doing;
        place.step();
    }
}

fn prepare(engine: &Arc<Engine>, place: &Arc<Place>, turn: u64, ready: Vec<Ready>) -> Option<()> {
    let (mut exchanges, mut jobs) =
        (Vec::with_capacity(ready.len()), Vec::with_capacity(ready.len()));
    let mut pumps = Vec::new();
    for ready in ready {
        match ready {
            Ready::Pump(connection) => pumps.push(Step::Pump(connection)),
            Ready::Handle(connection, incoming) if incoming.stream.is_some() => {
                engine.receive(place, connection, incoming);
            }
            Ready::Handle(connection, incoming) => {
                let (exchange, job) = engine.begin(connection, incoming);
                exchanges.push(exchange);
                jobs.push(job);
            }
        }
    }
    contained(|| engine.service.route(&mut exchanges));
    let mut waiting = Vec::new();
    let mut work = place.work();
    work.pending.extend(pumps);
    for (exchange, job) in exchanges.into_iter().zip(jobs) {
        if exchange.waits_at_all() {
            waiting.push((exchange, job));
        } else {
            // Should a plugin wait for too long, the next owner of the turn goes on with these.
            work.pending.push_back(Step::Run(exchange, job));
        }
    }
    if waiting.is_empty() {
        return (work.turn == turn).then_some(());
    }
    if work.turn != turn {
        // These must not wait for what this thread goes on to wait for.
        place.wake();
    }
    drop(work);
    if engine.leaves(&engine.plugins) {
        engine.wait_aside(place, Wait::Acquire, waiting);
    } else {
        enter(place, turn, Doing::Plugins);
        let rest = engine.wait(Wait::Acquire, waiting);
        place.work().pending.extend(rest.pending);
    }
    (place.work().turn == turn).then_some(())
}

fn run(engine: &Arc<Engine>, place: &Arc<Place>, turn: u64) -> Option<()> {
    loop {
        let step = {
            let mut work = place.work();
            if work.turn != turn {
                return None;
            }
            let Some(step) = work.pending.pop_front() else { return Some(()) };
            work.doing = match &step {
                Step::Pump(_) => Doing::Steps,
                Step::Run(exchange, _) => Doing::Handler(exchange.endpoint().cloned()),
            };
            // Before the watch can look: what it sees stuck is not this step.
            place.step();
            step
        };
        match step {
            Step::Pump(connection) => {
                let back = engine.pump(connection);
                place.work().back.push(back);
            }
            Step::Run(exchange, job) if exchange.slow().is_some_and(|slow| engine.leaves(slow)) => {
                engine.aside(place, |engine| engine.run(Step::Run(exchange, job)));
            }
            Step::Run(mut exchange, job) => {
                contained(|| engine.service.run(&mut exchange));
                let mut work = place.work();
                if work.turn == turn {
                    work.ran.push((exchange, job));
                    continue;
                }
                drop(work);
                let (response, job) = engine.finish_one(exchange, job);
                let back = engine.answer(response, job);
                place.work().back.push(back);
            }
        }
    }
}

fn finish(engine: &Arc<Engine>, place: &Arc<Place>, turn: u64) -> Option<()> {
    let mut ran = {
        let mut work = place.work();
        if work.turn != turn {
            return None;
        }
        std::mem::take(&mut work.ran)
    };
    // As in `prepare`: those that wait for no plugin go ahead.
    let waiting: Vec<_> = ran.extract_if(.., |(exchange, _)| exchange.waits_at_all()).collect();
    let mut kept = ran.is_empty() || release(engine, place, turn, Doing::Steps, ran);
    if !waiting.is_empty() {
        if engine.leaves(&engine.plugins) {
            engine.wait_aside(place, Wait::Release, waiting);
        } else {
            kept = release(engine, place, turn, Doing::Plugins, waiting);
        }
    }
    kept.then_some(())
}

/// Whether the turn is still this thread's; if not, it has sent these answers itself.
fn release(
    engine: &Engine,
    place: &Place,
    turn: u64,
    doing: Doing,
    ran: Vec<(Exchange, Job)>,
) -> bool {
    enter(place, turn, doing);
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
    enter(place, turn, Doing::Steps);
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
