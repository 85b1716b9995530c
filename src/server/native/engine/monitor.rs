//! The monitor: sees which workers are blocked and hands their event loops off, and how many event loops are needed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Engine;
use crate::server::ShutdownStage;
use crate::server::native::autoscaler::{self, Autoscaler};
use crate::server::native::event_loop::{Activity, EventLoop};

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

impl Engine {
    /// Makes sure that the monitor ticks, now that there is work.
    pub(crate) fn wake_monitor(&self) {
        if self.monitor_sleeps.load(Ordering::SeqCst)
            && self.monitor_sleeps.swap(false, Ordering::SeqCst)
        {
            self.monitor.unpark();
        }
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
    pub(super) fn monitor(self: &Arc<Engine>) {
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
            if !self.event_loops.all().iter().any(|event_loop| event_loop.work().is_busy()) {
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
            let heartbeat = event_loop.ownership.heartbeat();
            if heartbeat != seen.0 {
                *seen = (heartbeat, now);
                worked = true;
            } else if event_loop.work().is_busy() {
                // Whatever the limit of threads: somebody must accept, refuse and shut down.
                self.hand_off(event_loop, heartbeat, now - seen.1);
            }
        }
        worked
    }

    /// Gives an event loop whose worker has been in one task for this long to another one, if it is blocked.
    fn hand_off(self: &Arc<Engine>, event_loop: &Arc<EventLoop>, heartbeat: u64, since: Duration) {
        // Another thread has no use for the time of one that computes, or waits for a core.
        let blocks = !autoscaler::computes(event_loop.worker.load(Ordering::Relaxed));
        if since < COMPUTES_TOO_LONG && !blocks {
            return;
        }
        // Counted before the worker can notice, and be done.
        let handed_off = event_loop.hand_off(heartbeat, blocks, || self.threads.blocked());
        let Some((epoch, activity, tasks)) = handed_off else { return };
        match activity {
            Activity::Handler(Some(endpoint)) if blocks => {
                endpoint.handler_blocks.set_for(HANDLER_IS_SLOW);
            }
            Activity::Acquire if blocks => self.acquire_blocks.set_for(HANDLER_IS_SLOW),
            _ => {}
        }
        self.start(event_loop.clone(), epoch);
        tasks.into_iter().for_each(|task| self.offload(event_loop, task));
    }
}
