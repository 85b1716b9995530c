//! What took long a moment ago, and so is likely to take long again.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

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

    /// It was slow, now, and counts as slow for this long.
    pub(crate) fn mark(&self, memory: Duration) {
        self.until.store(millis_after(memory), Ordering::Relaxed);
    }
}

/// Milliseconds from the first use of this clock to this long after now; never 0.
fn millis_after(later: Duration) -> u64 {
    static FIRST: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from((FIRST.elapsed() + later).as_millis()).unwrap_or(u64::MAX).saturating_add(1)
}

#[test]
fn what_was_slow_is_slow_for_a_while() {
    let slow = Slow::default();
    assert!(!slow.is());
    slow.mark(Duration::from_secs(3600));
    assert!(slow.is());
    slow.mark(Duration::from_millis(20));
    while slow.is() {
        std::thread::yield_now();
    }
}
