//! Sessions that were found dead and whose rows are still there: they stay dead when the clock goes back.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::group::lock;
use super::record::Moment;

/// How many there are at most.
const MOST: usize = 4096;

/// Their ends, by their keys.
#[derive(Default)]
pub(super) struct Graves {
    ends: Mutex<HashMap<[u8; 32], Moment>>,
    count: AtomicUsize,
}

impl Graves {
    pub(super) fn all(&self) -> Vec<([u8; 32], Moment)> {
        match self.count.load(Ordering::SeqCst) {
            0 => Vec::new(),
            _ => lock(&self.ends).iter().map(|(digest, expires)| (*digest, *expires)).collect(),
        }
    }

    pub(super) fn has(&self, digest: &[u8; 32], expires: Moment) -> bool {
        self.count.load(Ordering::SeqCst) > 0 && lock(&self.ends).get(digest) == Some(&expires)
    }

    pub(super) fn add(&self, dead: Vec<([u8; 32], Moment)>) {
        let mut ends = lock(&self.ends);
        let room = MOST.saturating_sub(ends.len());
        ends.extend(dead.into_iter().take(room));
        self.count.store(ends.len(), Ordering::SeqCst);
    }

    pub(super) fn forget(&self, buried: &[([u8; 32], Moment)]) {
        if buried.is_empty() {
            return;
        }
        let mut ends = lock(&self.ends);
        for (digest, expires) in buried {
            if ends.get(digest) == Some(expires) {
                ends.remove(digest);
            }
        }
        self.count.store(ends.len(), Ordering::SeqCst);
    }
}
