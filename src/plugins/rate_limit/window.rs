//! The sliding window: from two counts to a verdict.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How many requests in which time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) limit: u64,
    pub(super) length: Duration,
}

/// A point of time among windows that follow each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct At {
    /// Which window.
    pub(super) index: u64,
    /// How much of it has passed, of 1.
    passed: f64,
}

/// How many requests there were in a window, the one to be judged included, and in the one before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counted {
    pub(super) before: u64,
    pub(super) now: u64,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) passes: bool,
    /// How many more would pass now.
    pub(super) remaining: u64,
    /// For one that is refused, after how many seconds one would pass; else, when the window ends.
    pub(super) seconds: u64,
}

impl Window {
    pub(super) fn at(&self, now: SystemTime) -> At {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let length = self.length.as_nanos().max(1);
        let passed = (since % length) as f64 / length as f64;
        At { index: u64::try_from(since / length).unwrap_or(u64::MAX), passed }
    }

    pub(super) fn judge(&self, counted: impl Into<Counted>, at: At) -> Verdict {
        let Counted { before, now } = counted.into();
        let (limit, before, now) = (self.limit as f64, before as f64, now as f64);
        let used = before * (1.0 - at.passed) + now;
        let passes = used <= limit;
        // Until when, in windows from the beginning of this one.
        let until = if passes {
            1.0
        } else if now < limit {
            // The one before slides out.
            1.0 - (limit - now - 1.0).max(0.0) / before
        } else {
            // This one has to slide out itself.
            2.0 - (limit - 1.0) / now
        };
        // A fraction that only the arithmetic brought about is no second more.
        let seconds = (until - at.passed) * self.length.as_secs_f64() - 1e-6;
        let seconds = seconds.ceil().max(1.0);
        let remaining = (limit - used).floor().max(0.0);
        Verdict { passes, remaining: remaining as u64, seconds: seconds as u64 }
    }
}

#[test]
fn the_window_slides() {
    let window = Window { limit: 10, length: Duration::from_secs(60) };
    let verdict = |passes, remaining, seconds| Verdict { passes, remaining, seconds };
    for (before, now, second, expected) in [
        (0, 1, 0, verdict(true, 9, 60)),
        (0, 10, 30, verdict(true, 0, 30)),
        // 11 at 30 s: in 30 s they are the ones before, of which 9 count after six more.
        (0, 11, 30, verdict(false, 0, 41)),
        // Half of ten before, and five.
        (10, 5, 30, verdict(true, 0, 30)),
        (10, 6, 30, verdict(false, 0, 12)),
        (10, 1, 0, verdict(false, 0, 12)),
        (10, 1, 6, verdict(true, 0, 54)),
        // Who goes on stays out.
        (0, 1000, 59, verdict(false, 0, 61)),
    ] {
        let at = window.at(UNIX_EPOCH + Duration::from_secs(600 + second));
        assert_eq!(at.index, 10);
        assert_eq!(window.judge((before, now), at), expected, "{before} {now} {second}");
    }
}
