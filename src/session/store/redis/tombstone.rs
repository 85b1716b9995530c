//! Tombstones: what Redis keeps under a key after its session has ended or moved to another id, the grace period of that id
//! included.
//!
//! A tombstone is a hash with one field of the store's own and no proof, so that no reader takes it for a session, even if a
//! late update adds values to it. The field is `<kind><until>.<end>.<next>.<text>`: when the tombstone expires, when the grace
//! period ends (0 while it is open), the name of the session's next key, and the text for requests that come with the id. The
//! expiry is part of the text as a late update changes that of the key; removing the values of such an update restores it.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::record;
use crate::session::store::{Loaded, OldId};

/// The field that holds the tombstone.
pub(super) const TOMBSTONE_FIELD: &[u8] = b"\0x";

/// What a tombstone says.
#[derive(Clone, Debug)]
pub(super) enum Tombstone {
    /// The session has ended. The text is the mark of the save that ended it, or nothing.
    Ended(String),
    /// The session has moved.
    Linked,
    /// The session has moved, and the id is in its grace period. The text is for requests that come with the id.
    Grace(String),
}

impl Tombstone {
    pub(super) fn of(old_id: OldId<'_>) -> Tombstone {
        match old_id {
            OldId::Linked => Tombstone::Linked,
            OldId::Unlinked => Tombstone::Ended(String::new()),
            OldId::InGrace(text) => Tombstone::Grace(text.to_owned()),
        }
    }

    /// The text of the field. `next` is the name of the session's next key.
    pub(super) fn written(&self, until: u64, next: &[u8]) -> Vec<u8> {
        let (kind, next, text) = match self {
            Tombstone::Ended(mark) => (b"e", &b""[..], &mark[..]),
            Tombstone::Linked => (b"r", next, ""),
            Tombstone::Grace(text) => (b"g", next, &text[..]),
        };
        [&kind[..], &record::base36(until), b".0.", next, b".", text.as_bytes()].concat()
    }
}

/// A unique mark. By it a save that is repeated because its first reply was lost recognizes its own tombstone.
pub(super) fn mark() -> String {
    static SEED: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0));
    static MADE: AtomicU64 = AtomicU64::new(0);
    format!("{:x}-{:x}", *SEED, MADE.fetch_add(1, Ordering::Relaxed))
}

/// What a load returns that finds this text.
pub(super) fn loaded(written: &[u8], now: u64) -> Loaded {
    parsed(written, now).unwrap_or_default()
}

fn parsed(written: &[u8], now: u64) -> Option<Loaded> {
    let (kind, rest) = written.split_first()?;
    let mut parts = rest.splitn(4, |byte| *byte == b'.');
    let (until, end) = (record::number(parts.next()?)?, record::number(parts.next()?)?);
    let text = parts.nth(1)?;
    Some(match kind {
        _ if until <= now => Loaded::Unknown,
        b'e' | b'r' => Loaded::Ended,
        b'g' => {
            let text = String::from_utf8(text.to_vec()).ok()?;
            match end {
                0 => Loaded::InGrace(text),
                end if end <= now => {
                    Loaded::PastGrace { left: text, since: Duration::from_millis(now - end) }
                }
                _ => Loaded::GraceEnding(text),
            }
        }
        _ => Loaded::Unknown,
    })
}
