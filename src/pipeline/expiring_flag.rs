//! A flag that clears itself after a time.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A flag that clears itself after a time. Reading one that was never set asks no clock.
#[derive(Debug, Default)]
pub(crate) struct ExpiringFlag {
    /// When it clears itself, in milliseconds; 0 if it was never set.
    until: AtomicU64,
}

impl ExpiringFlag {
    pub(crate) fn is_set(&self) -> bool {
        let until = self.until.load(Ordering::Relaxed);
        until > 0 && millis_after(Duration::ZERO) < until
    }

    pub(crate) fn set_for(&self, time: Duration) {
        self.until.store(millis_after(time), Ordering::Relaxed);
    }
}

/// Milliseconds from the first use of this clock to this long after now; never 0.
fn millis_after(later: Duration) -> u64 {
    static FIRST: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from((FIRST.elapsed() + later).as_millis()).unwrap_or(u64::MAX).saturating_add(1)
}

#[test]
fn a_flag_is_set_for_a_while() {
    let flag = ExpiringFlag::default();
    assert!(!flag.is_set());
    flag.set_for(Duration::from_secs(3600));
    assert!(flag.is_set());
    flag.set_for(Duration::from_millis(20));
    while flag.is_set() {
        std::thread::yield_now();
    }
}
