//! How many places the load needs.
//!
//! One thread that is never idle serves small requests faster than two that wake each other up, and
//! leaves the rest of the machine to Redis or the database. So connections are served in one place until
//! its thread has no time left, and only then in more: as many as cores where the threads compute, and more
//! where they spend their time waiting, for something too short to cost them their turn, while cores are idle.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::place::Place;

/// How long the load is watched before anything is changed.
const WINDOW: Duration = Duration::from_millis(100);

/// The share of its time above which a place has none left.
const FULL: f64 = 0.9;

/// The share of the time of one place fewer below which that suffices.
const ROOMY: f64 = 0.6;

/// How much of a core must be idle for another thread that computes to be of use.
const SPARE: f64 = 0.5;

/// The share of their time that threads which mostly wait spend waiting.
const WAITING: f64 = 0.5;

/// Requests that wait this long for those before them are to be spread, whatever else the cores do.
const LONG_TURN: Duration = Duration::from_millis(5);

/// How many places there may be for each core, where threads wait.
const MOST_PER_CORE: usize = 16;

/// What was seen at the start of a window.
pub(super) struct Load {
    since: Instant,
    marks: Vec<Mark>,
    idle: Option<Duration>,
}

/// What a place had done by then.
struct Mark {
    busy: Duration,
    turns: u64,
    driver: u32,
    /// For how long its thread had had a core or waited for one.
    ran: Option<Duration>,
}

impl Mark {
    fn of(place: &Place) -> Mark {
        let (busy, turns) = place.worked_so_far();
        let driver = place.driver();
        Mark { busy, turns, driver, ran: ran(driver) }
    }
}

impl Load {
    pub(super) fn now(places: &[Arc<Place>]) -> Load {
        Load {
            since: Instant::now(),
            marks: places.iter().map(|place| Mark::of(place)).collect(),
            idle: idle_time(),
        }
    }

    /// How many places should be active, once a window is over.
    pub(super) fn places_needed(
        &mut self,
        places: &[Arc<Place>],
        active: usize,
        cores: usize,
    ) -> Option<usize> {
        let elapsed = self.since.elapsed();
        if elapsed < WINDOW {
            return None;
        }
        let before = std::mem::replace(self, Load::now(places));
        let (mut busy, mut waited, mut turns) = (Duration::ZERO, Duration::ZERO, 0);
        for (now, before) in self.marks.iter().zip(&before.marks) {
            let worked = now.busy.saturating_sub(before.busy).min(elapsed);
            busy += worked;
            turns += now.turns - before.turns;
            if let (Some(ran), Some(before_ran)) = (now.ran, before.ran)
                && now.driver == before.driver
            {
                waited += worked.saturating_sub(ran.saturating_sub(before_ran));
            }
        }
        let share = |time: Duration| time.as_secs_f64() / elapsed.as_secs_f64();
        let seen = Seen {
            used: share(busy),
            waited: share(waited),
            turn: busy.checked_div(u32::try_from(turns).unwrap_or(u32::MAX)).unwrap_or_default(),
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
    /// How many places' time was used, and how much of that the threads neither had a core nor wanted one.
    used: f64,
    waited: f64,
    /// The mean length of a turn.
    turn: Duration,
    /// Whether a core was idle.
    spare: bool,
}

fn needed(seen: Seen, active: usize, cores: usize) -> usize {
    let waits = seen.waited >= WAITING * seen.used;
    let most = if waits { cores.saturating_mul(MOST_PER_CORE) } else { cores };
    let crowded = seen.used >= FULL * active as f64;
    // Where no core is idle, whatever the threads wait for has none to spare either: more of them than cores would
    // only make smaller batches.
    let some_use = seen.spare || active < cores && (waits || seen.turn > LONG_TURN);
    if crowded && active < most && some_use {
        return (active * 2).min(most);
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

/// For how long a thread of this process has had a core or waited for one.
fn ran(thread: u32) -> Option<Duration> {
    if thread == 0 {
        return None;
    }
    ran_in(&std::fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).ok()?)
}

fn ran_in(schedstat: &str) -> Option<Duration> {
    // The times on a core and in the queue for one, in nanoseconds (sched-stats.txt of Linux).
    let mut numbers = schedstat.split_whitespace();
    let mut nanos = || numbers.next()?.parse::<u64>().ok();
    Some(Duration::from_nanos(nanos()? + nanos()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_added_when_there_is_no_time_left_and_a_core_to_be_had_or_none_needed() {
        let ms = Duration::from_millis;
        // Used, of that waited, mean turn, whether a core is idle, active; how many of 2 cores are to be.
        let table = [
            (0.5, 0.0, ms(1), true, 1, 1),
            (0.98, 0.0, ms(1), true, 1, 2),
            (0.98, 0.4, ms(1), false, 1, 1),
            (0.98, 0.0, ms(6), false, 1, 2),
            (1.98, 0.0, ms(6), true, 2, 2),
            (0.98, 0.9, ms(1), false, 1, 2),
            (1.98, 1.9, ms(1), false, 2, 2),
            (1.98, 1.9, ms(1), true, 2, 4),
            (1.98, 1.9, ms(6), false, 2, 2),
            (20.0, 19.0, ms(1), true, 20, 32),
            (32.0, 32.0, ms(1), true, 32, 32),
            (1.0, 0.0, ms(1), true, 2, 2),
            (0.5, 0.0, ms(1), true, 2, 1),
            (0.0, 0.0, ms(0), true, 8, 7),
        ];
        for (used, waited, turn, spare, active, expected) in table {
            let seen = Seen { used, waited, turn, spare };
            assert_eq!(needed(seen, active, 2), expected, "{seen:?} {active}");
        }
        let idle = Seen { used: 0.0, waited: 0.0, turn: ms(0), spare: true };
        assert_eq!(needed(idle, 1, usize::MAX), 1);
    }

    #[test]
    fn what_the_system_tells_is_read() {
        let stat = "cpu  100 2 30 4000 50 0 7 0 0 0\ncpu0 50 1 15 2000 25 0 3 0 0 0\n";
        assert_eq!(idle_in(stat), Some(Duration::from_millis(40_500)));
        assert_eq!((idle_in("cpu  100 x"), idle_in("intr 5")), (None, None));
        assert_eq!(ran_in("1500 500 7\n"), Some(Duration::from_nanos(2000)));
        assert_eq!((ran_in(""), ran_in("5"), ran(0)), (None, None, None));
        assert!(computes_in("7 (worker) R) R 1 7"));
        assert!(!computes_in("7 (worker) S 1 7") && !computes_in("") && !computes(0));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_thread_that_computes_is_told_from_one_that_waits() {
        let thread = this_thread().unwrap();
        let before = ran(thread).unwrap();
        while ran(thread).unwrap() < before + Duration::from_millis(5) {}
        assert!(computes(thread));
        let (since, before) = (Instant::now(), ran(thread).unwrap());
        std::thread::sleep(Duration::from_millis(50));
        assert!(ran(thread).unwrap() - before < since.elapsed() - Duration::from_millis(10));
    }
}
