//! Requests that wait for the same: while one batch of them is under way, the next one grows.

use std::time::{Duration, Instant};

pub(super) struct Line<T> {
    queue: Vec<T>,
    /// Which thread serves it: one with another number is no longer needed.
    number: u64,
    /// Since when it has been at its present batch; none where no thread is.
    since: Option<Instant>,
}

impl<T> Default for Line<T> {
    fn default() -> Line<T> {
        Line { queue: Vec::new(), number: 0, since: None }
    }
}

impl<T> Line<T> {
    pub(super) fn push(&mut self, batch: Vec<T>) {
        self.queue.extend(batch);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The number of a thread to start where these need one: none serves, or the one that does has been at its
    /// batch for too long.
    pub(super) fn understaffed(&mut self, now: Instant, patience: Duration) -> Option<u64> {
        let served =
            self.since.is_some_and(|since| now.saturating_duration_since(since) < patience);
        if served || self.queue.is_empty() {
            return None;
        }
        self.since = Some(now);
        self.number += 1;
        Some(self.number)
    }

    /// The next batch for the thread of this number; none where it is to end.
    pub(super) fn next(&mut self, number: u64, now: Instant) -> Option<Vec<T>> {
        if self.number != number {
            return None;
        }
        self.since = (!self.queue.is_empty()).then_some(now);
        self.since.map(|_| std::mem::take(&mut self.queue))
    }
}

#[test]
fn one_thread_serves_batch_after_batch_and_another_one_where_it_is_held_up() {
    let (mut line, start) = (Line::default(), Instant::now());
    let after = |ms| start + Duration::from_millis(ms);
    let patience = Duration::from_millis(10);
    assert_eq!(line.understaffed(start, patience), None, "nobody waits");
    line.push(vec![1, 2]);
    assert_eq!(line.understaffed(start, patience), Some(1));
    assert_eq!(line.next(1, start), Some(vec![1, 2]));
    line.push(vec![3]);
    assert_eq!(line.understaffed(after(9), patience), None);
    line.push(vec![4]);
    assert_eq!(line.next(1, after(9)), Some(vec![3, 4]));
    assert_eq!(line.understaffed(after(30), patience), None, "held up, but nobody waits");
    line.push(vec![5]);
    assert_eq!(line.understaffed(after(30), patience), Some(2));
    assert_eq!(line.next(1, after(31)), None, "the first one has been replaced");
    assert_eq!(line.next(2, after(31)), Some(vec![5]));
    assert_eq!(line.next(2, after(32)), None);
    line.push(vec![6]);
    assert_eq!(line.understaffed(after(32), patience), Some(3), "the second one has ended");
}
