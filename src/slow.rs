//! What took long a moment ago, and so is likely to take long again.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What takes this long is slow.
pub(crate) const PATIENCE: Duration = Duration::from_millis(1);

/// For how long it counts as slow then: longer than a breaker waits between its trials.
const MEMORY: Duration = Duration::from_secs(1);

/// Something that may be slow.
#[derive(Debug, Default)]
pub(crate) struct Slow {
    /// Until when it counts as slow, in milliseconds; 0 where it does not.
    until: AtomicU64,
}

impl Slow {
    /// Whether it was slow a moment ago.
    pub(crate) fn is(&self) -> bool {
        let until = self.until.load(Ordering::Relaxed);
        // Of what was never slow, no clock is asked.
        until > 0 && millis_after(Duration::ZERO) < until
    }

    /// It was slow, now.
    pub(crate) fn mark(&self) {
        self.until.store(millis_after(MEMORY), Ordering::Relaxed);
    }

    /// Takes note of how long it took.
    pub(crate) fn took(&self, took: Duration) {
        if took >= PATIENCE {
            self.mark();
        }
    }
}

/// Milliseconds from the first use of this clock to this long after now; never 0.
fn millis_after(later: Duration) -> u64 {
    static FIRST: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from((FIRST.elapsed() + later).as_millis()).unwrap_or(u64::MAX).saturating_add(1)
}

#[test]
fn what_took_long_is_slow_and_what_did_not_is_not() {
    let slow = Slow::default();
    assert!(!slow.is());
    slow.took(PATIENCE / 2);
    assert!(!slow.is());
    slow.took(PATIENCE);
    assert!(slow.is());
    slow.took(Duration::ZERO);
    assert!(slow.is(), "one quick answer, as of an open breaker, does not make it quick");
    while slow.is() {
        std::thread::sleep(PATIENCE);
    }
}
