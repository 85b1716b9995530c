//! Rows found expired that the file does not mark as such yet. They stay expired when the clock goes back.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::record::Timestamp;
use crate::lock::lock;

/// How many rows are remembered at most.
const MAX_ROWS: usize = 4096;

/// A row that was found expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ExpiredRow {
    pub(super) digest: [u8; 32],
    /// The value of the column. A row with another one has been saved anew since.
    pub(super) expires: Timestamp,
    pub(super) expiry: Expiry,
}

/// What of a row has expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expiry {
    /// The whole row.
    Row,
    /// The grace period of the id.
    GracePeriod,
}

/// The rows by their digests.
#[derive(Default)]
pub(super) struct ExpiredRows {
    rows: Mutex<HashMap<[u8; 32], ExpiredRow>>,
    count: AtomicUsize,
}

impl ExpiredRows {
    pub(super) fn all(&self) -> Vec<ExpiredRow> {
        match self.count.load(Ordering::SeqCst) {
            0 => Vec::new(),
            _ => lock(&self.rows).values().copied().collect(),
        }
    }

    pub(super) fn get(&self, digest: &[u8; 32], expires: Timestamp) -> Option<Expiry> {
        if self.count.load(Ordering::SeqCst) == 0 {
            return None;
        }
        lock(&self.rows).get(digest).filter(|row| row.expires == expires).map(|row| row.expiry)
    }

    pub(super) fn add(&self, expired: Vec<ExpiredRow>) {
        let mut rows = lock(&self.rows);
        for row in expired {
            if rows.len() < MAX_ROWS || rows.contains_key(&row.digest) {
                rows.insert(row.digest, row);
            }
        }
        self.count.store(rows.len(), Ordering::SeqCst);
    }

    /// Forgets rows that the file marks as expired by now.
    pub(super) fn forget(&self, marked: &[ExpiredRow]) {
        if marked.is_empty() {
            return;
        }
        let mut rows = lock(&self.rows);
        for row in marked {
            if rows.get(&row.digest) == Some(row) {
                rows.remove(&row.digest);
            }
        }
        self.count.store(rows.len(), Ordering::SeqCst);
    }
}
