//! How many places the load needs.
//!
//! One thread that is never idle serves small requests faster than two that wake each other up, and
//! leaves the rest of the machine to Redis or the database. So connections are served in one place until
//! its thread has no time left, and only then in more.

use std::time::{Duration, Instant};

use super::place::Place;

/// How long the load is watched before anything is changed.
const WINDOW: Duration = Duration::from_millis(100);

/// The share of its time above which a place has none left.
const FULL: f64 = 0.9;

/// The share of the time of one place fewer below which that suffices.
const ROOMY: f64 = 0.6;

/// How much of a core must be idle for another thread to be of use.
const SPARE: f64 = 0.5;

/// Requests that wait this long for those before them are to be spread, whatever else the cores do.
const LONG_TURN: Duration = Duration::from_millis(5);

/// What was seen at the start of a window.
pub(super) struct Load {
    since: Instant,
    worked: Vec<(Duration, u64)>,
    idle: Option<Duration>,
}

impl Load {
    pub(super) fn now(places: &[Place]) -> Load {
        Load {
            since: Instant::now(),
            worked: places.iter().map(Place::worked_so_far).collect(),
            idle: idle_time(),
        }
    }

    /// How many places should be active, once a window is over: `cores` at most as long as their threads
    /// compute, more where they wait for something and cores stand idle.
    pub(super) fn places_needed(
        &mut self,
        places: &[Place],
        active: usize,
        cores: usize,
    ) -> Option<usize> {
        let elapsed = self.since.elapsed();
        if elapsed < WINDOW {
            return None;
        }
        let before = std::mem::replace(self, Load::now(places));
        let (mut busy, mut turns) = (Duration::ZERO, 0);
        for (now, before) in self.worked.iter().zip(&before.worked) {
            busy += now.0.saturating_sub(before.0).min(elapsed);
            turns += now.1 - before.1;
        }
        let seen = Seen {
            used: busy.as_secs_f64() / elapsed.as_secs_f64(),
            turn: busy.checked_div(u32::try_from(turns).unwrap_or(u32::MAX)).unwrap_or_default(),
            spare: match (self.idle, before.idle) {
                (Some(now), Some(before)) => {
                    now.saturating_sub(before).as_secs_f64() / elapsed.as_secs_f64() >= SPARE
                }
                // Where it cannot be known, assume that the machine is ours.
                _ => true,
            },
        };
        Some(needed(seen, active, cores, places.len()))
    }
}

/// What a window has shown.
#[derive(Clone, Copy)]
struct Seen {
    /// How many places' time was used.
    used: f64,
    /// The mean length of a turn.
    turn: Duration,
    /// Whether a core was idle.
    spare: bool,
}

fn needed(seen: Seen, active: usize, cores: usize, most: usize) -> usize {
    let full = seen.used >= FULL * active as f64;
    let spread = seen.turn > LONG_TURN && active < cores;
    if full && (seen.spare || spread) {
        return (active * 2).min(if seen.spare { most } else { cores });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_added_when_there_is_no_time_left_and_a_core_to_be_had() {
        let ms = Duration::from_millis;
        // Used, mean turn, whether a core is idle, active, and how many are to be, of 2 cores and 8 places.
        let table = [
            (0.5, ms(1), true, 1, 1),
            (0.98, ms(1), true, 1, 2),
            (0.98, ms(1), false, 1, 1),
            (0.98, ms(6), false, 1, 2),
            (1.98, ms(6), false, 2, 2),
            (1.98, ms(1), true, 2, 4),
            (8.0, ms(1), true, 8, 8),
            (1.0, ms(1), true, 2, 2),
            (0.5, ms(1), true, 2, 1),
            (0.0, ms(0), true, 8, 7),
        ];
        for (used, turn, spare, active, expected) in table {
            let seen = Seen { used, turn, spare };
            assert_eq!(needed(seen, active, 2, 8), expected, "{used} {turn:?} {spare} {active}");
        }
    }

    #[test]
    fn idle_time_is_that_of_all_cores_together() {
        let stat = "cpu  100 2 30 4000 50 0 7 0 0 0\ncpu0 50 1 15 2000 25 0 3 0 0 0\n";
        assert_eq!(idle_in(stat), Some(Duration::from_millis(40_500)));
        assert_eq!(idle_in("cpu  100 x"), None);
        assert_eq!(idle_in("intr 5"), None);
    }
}
