//! Rows that were found dead and do not say so yet: they stay dead when the clock goes back.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::record::Moment;
use crate::lock::lock;

/// How many there are at most.
const MOST: usize = 4096;

/// A row that was found dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dead {
    pub(super) digest: [u8; 32],
    /// As the row has it, which has been saved anew where it has another one.
    pub(super) expires: Moment,
    pub(super) death: Death,
}

/// What a row is dead as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Death {
    /// There is nothing any more.
    Expired,
    /// The grace period is over.
    Retired,
}

/// By their digests.
#[derive(Default)]
pub(super) struct Graves {
    dead: Mutex<HashMap<[u8; 32], Dead>>,
    count: AtomicUsize,
}

impl Graves {
    pub(super) fn all(&self) -> Vec<Dead> {
        match self.count.load(Ordering::SeqCst) {
            0 => Vec::new(),
            _ => lock(&self.dead).values().copied().collect(),
        }
    }

    pub(super) fn get(&self, digest: &[u8; 32], expires: Moment) -> Option<Death> {
        if self.count.load(Ordering::SeqCst) == 0 {
            return None;
        }
        lock(&self.dead).get(digest).filter(|dead| dead.expires == expires).map(|dead| dead.death)
    }

    pub(super) fn add(&self, dead: Vec<Dead>) {
        let mut graves = lock(&self.dead);
        for dead in dead {
            if graves.len() < MOST || graves.contains_key(&dead.digest) {
                graves.insert(dead.digest, dead);
            }
        }
        self.count.store(graves.len(), Ordering::SeqCst);
    }

    pub(super) fn forget(&self, buried: &[Dead]) {
        if buried.is_empty() {
            return;
        }
        let mut graves = lock(&self.dead);
        for dead in buried {
            if graves.get(&dead.digest) == Some(dead) {
                graves.remove(&dead.digest);
            }
        }
        self.count.store(graves.len(), Ordering::SeqCst);
    }
}
