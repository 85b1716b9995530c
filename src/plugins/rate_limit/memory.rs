//! Counts in this process.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Mutex;

use super::Key;
use super::window::Counted;
use crate::lock::lock;

const SHARDS: usize = 16;

/// How many visitors a shard counts in a window; 16 times as many are some 30 MB at most.
const CAPACITY: usize = 16_384;

#[derive(Default)]
pub(super) struct MemoryCounts {
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
}

/// The counts of two windows: whatever is older is of no use.
#[derive(Default)]
struct Shard {
    index: u64,
    now: HashMap<Key, u64>,
    before: HashMap<Key, u64>,
}

impl MemoryCounts {
    /// Counts a request in the window of this index; `None` where there are too many visitors to count one more.
    pub(super) fn count(&self, index: u64, key: Key) -> Option<Counted> {
        let shard = &self.shards[self.hasher.hash_one(key) as usize % SHARDS];
        lock(shard).count(index, key)
    }
}

impl Shard {
    fn count(&mut self, index: u64, key: Key) -> Option<Counted> {
        // A clock that was set back changes nothing.
        if index > self.index {
            self.before = match index - self.index {
                1 => std::mem::take(&mut self.now),
                _ => HashMap::new(),
            };
            self.now = HashMap::new();
            self.index = index;
        }
        if self.now.len() >= CAPACITY && !self.now.contains_key(&key) {
            return None;
        }
        let now = self.now.entry(key).or_insert(0);
        *now += 1;
        Some(Counted { before: self.before.get(&key).copied().unwrap_or(0), now: *now })
    }
}

#[test]
fn counts_of_two_windows_are_kept_and_of_no_more_visitors_than_there_is_room_for() {
    let mut shard = Shard::default();
    let key = |number: usize| (number as u128).to_be_bytes();
    let counted = |counted: Option<Counted>| counted.map(|counted| (counted.before, counted.now));
    for (index, expected) in
        [(1, (0, 1)), (1, (0, 2)), (2, (2, 1)), (1, (2, 2)), (3, (2, 1)), (5, (0, 1))]
    {
        assert_eq!(counted(shard.count(index, key(0))), Some(expected), "{index}");
    }
    for number in 1..CAPACITY {
        assert!(shard.count(5, key(number)).is_some());
    }
    assert_eq!(counted(shard.count(5, key(CAPACITY))), None);
    assert_eq!(counted(shard.count(5, key(0))), Some((0, 2)));
    assert_eq!(counted(shard.count(6, key(CAPACITY))), Some((0, 1)));
}
