//! How often what was how large.

use std::sync::atomic::{AtomicU64, Ordering};

/// Upper bounds for the times of requests and round trips, in seconds.
pub(crate) const SECONDS: &[f64] = &[
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];

/// Upper bounds for how many operations go together.
pub(crate) const SIZES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0];

/// Counts in buckets, each with an upper bound, and above all of them.
pub(crate) struct Histogram {
    bounds: &'static [f64],
    buckets: Box<[AtomicU64]>,
    /// Of all values, in millionths.
    sum: AtomicU64,
}

impl Histogram {
    pub(crate) fn new(bounds: &'static [f64]) -> Histogram {
        let buckets = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Histogram { bounds, buckets, sum: AtomicU64::new(0) }
    }

    pub(crate) fn observe(&self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add((value * 1e6).round() as u64, Ordering::Relaxed);
    }

    /// Bounds, and how many values are in each bucket.
    pub(crate) fn buckets(&self) -> impl Iterator<Item = (f64, u64)> {
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        bounds.zip(self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)))
    }

    /// How many values there were.
    pub(crate) fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }

    pub(crate) fn sum(&self) -> f64 {
        self.sum.load(Ordering::Relaxed) as f64 / 1e6
    }
}

#[test]
fn a_value_is_in_the_first_bucket_whose_bound_it_does_not_pass() {
    let histogram = Histogram::new(&[0.5, 1.0]);
    for value in [0.0, 0.5, 0.500_001, 1.0, 7.0] {
        histogram.observe(value);
    }
    let buckets: Vec<_> = histogram.buckets().collect();
    assert_eq!(buckets, [(0.5, 2), (1.0, 2), (f64::INFINITY, 1)]);
    assert_eq!(histogram.sum(), 9.000_001);
}
