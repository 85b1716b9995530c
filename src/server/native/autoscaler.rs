//! How many event loops the load needs.
//!
//! One thread that is never idle serves small requests faster than two that wake each other up, and
//! leaves the rest of the machine to Redis or the database. So connections are served by one event loop until
//! its worker has no time left, and only then by more, up to one for each core.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::event_loop::EventLoop;

/// How long the load is watched before anything is changed.
const WINDOW: Duration = Duration::from_millis(100);

/// The share of its time above which a worker has none left.
const FULL: f64 = 0.9;

/// The share of the time of one worker fewer below which that suffices.
const ROOMY: f64 = 0.6;

/// How much of a core must be idle for another worker to be of use.
const SPARE: f64 = 0.5;

/// Requests that wait this long for those before them are to be spread, whatever else the cores do.
const LONG_ITERATION: Duration = Duration::from_millis(5);

/// What was seen at the start of a window.
pub(super) struct Autoscaler {
    since: Instant,
    /// For how long each worker had been busy by then, and for how many iterations.
    workers: Vec<(Duration, u64)>,
    idle: Option<Duration>,
}

impl Autoscaler {
    pub(super) fn new(event_loops: &[Arc<EventLoop>]) -> Autoscaler {
        Autoscaler {
            since: Instant::now(),
            workers: event_loops.iter().map(|event_loop| event_loop.worked_so_far()).collect(),
            idle: idle_time(),
        }
    }

    /// How many event loops should be active, once a window is over.
    pub(super) fn needed(
        &mut self,
        event_loops: &[Arc<EventLoop>],
        active: usize,
        cores: usize,
    ) -> Option<usize> {
        let elapsed = self.since.elapsed();
        if elapsed < WINDOW {
            return None;
        }
        let before = std::mem::replace(self, Autoscaler::new(event_loops));
        let (mut busy, mut iterations) = (Duration::ZERO, 0);
        for (now, before) in self.workers.iter().zip(&before.workers) {
            busy += now.0.saturating_sub(before.0).min(elapsed);
            iterations += now.1 - before.1;
        }
        let share = |time: Duration| time.as_secs_f64() / elapsed.as_secs_f64();
        let seen = Seen {
            used: share(busy),
            iteration: busy
                .checked_div(u32::try_from(iterations).unwrap_or(u32::MAX))
                .unwrap_or_default(),
            spare: match (self.idle, before.idle) {
                (Some(now), Some(before)) => share(now.saturating_sub(before)) >= SPARE,
                // Where it cannot be known, assume that the machine is ours.
                _ => true,
            },
        };
        Some(needed(seen, active, cores))
    }
}

/// What a window has shown.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// How many workers' time was used.
    used: f64,
    /// The mean length of an iteration.
    iteration: Duration,
    /// Whether a core was idle.
    spare: bool,
}

fn needed(seen: Seen, active: usize, cores: usize) -> usize {
    let crowded = seen.used >= FULL * active as f64;
    if crowded && active < cores && (seen.spare || seen.iteration > LONG_ITERATION) {
        return (active * 2).min(cores);
    }
    if active > 1 && seen.used < ROOMY * (active - 1) as f64 {
        return active - 1;
    }
    active
}

/// For how long cores were idle since the machine started, all cores together.
fn idle_time() -> Option<Duration> {
    idle_in(&std::fs::read_to_string("/proc/stat").ok()?)
}

fn idle_in(stat: &str) -> Option<Duration> {
    // The fourth and fifth number are the times in idle and waiting for a disk, in hundredths of a second
    // (proc(5), USER_HZ).
    let mut numbers = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().skip(3);
    let mut ticks = || numbers.next()?.parse::<u64>().ok();
    Some(Duration::from_millis(10 * (ticks()? + ticks()?)))
}

/// The number of the current thread, where the system tells it.
pub(super) fn this_thread() -> Option<u32> {
    let link = std::fs::read_link("/proc/thread-self").ok()?;
    link.file_name()?.to_str()?.parse().ok()
}

/// Whether a thread of this process has a core or waits for one; it waits for something else where not, or where
/// that is not known.
pub(super) fn computes(thread: u32) -> bool {
    thread != 0
        && std::fs::read_to_string(format!("/proc/self/task/{thread}/stat"))
            .is_ok_and(|stat| computes_in(&stat))
}

fn computes_in(stat: &str) -> bool {
    // Behind the name, which is in brackets and may itself have some, is the state; R is running or ready to
    // (proc(5)).
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('R'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_loops_are_added_when_there_is_no_time_left_and_a_core_to_be_had() {
        let ms = Duration::from_millis;
        // Used, mean iteration, whether a core is idle, active; how many of 2 cores are to be.
        let table = [
            (0.5, ms(1), true, 1, 1),
            (0.98, ms(1), true, 1, 2),
            (0.98, ms(1), false, 1, 1),
            (0.98, ms(6), false, 1, 2),
            (1.98, ms(6), true, 2, 2),
            (1.0, ms(1), true, 2, 2),
            (0.5, ms(1), true, 2, 1),
            (0.0, ms(0), true, 8, 7),
        ];
        for (used, iteration, spare, active, expected) in table {
            let seen = Seen { used, iteration, spare };
            assert_eq!(needed(seen, active, 2), expected, "{seen:?} {active}");
        }
        let idle = Seen { used: 0.0, iteration: ms(0), spare: true };
        assert_eq!(needed(idle, 1, usize::MAX), 1);
    }

    #[test]
    fn what_the_system_tells_is_read() {
        let stat = "cpu  100 2 30 4000 50 0 7 0 0 0\ncpu0 50 1 15 2000 25 0 3 0 0 0\n";
        assert_eq!(idle_in(stat), Some(Duration::from_millis(40_500)));
        assert_eq!((idle_in("cpu  100 x"), idle_in("intr 5")), (None, None));
        assert!(computes_in("7 (worker) R) R 1 7"));
        assert!(!computes_in("7 (worker) S 1 7") && !computes_in("") && !computes(0));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_thread_that_computes_is_told_from_one_that_waits() {
        assert!(computes(this_thread().unwrap()));
        let (tell, told) = std::sync::mpsc::channel();
        let (let_go, gate) = std::sync::mpsc::channel::<()>();
        let waits = std::thread::spawn(move || {
            tell.send(this_thread().unwrap()).unwrap();
            let _ = gate.recv();
        });
        let thread = told.recv().unwrap();
        while computes(thread) {
            std::thread::yield_now();
        }
        drop(let_go);
        waits.join().unwrap();
    }
}
