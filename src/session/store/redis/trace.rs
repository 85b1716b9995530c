//! What a session leaves under a key that is its own no more: a tombstone, or an id in its grace period.
//!
//! It is a hash with one field of the store's own and no proof, so that no reader takes it for a session, also where a late
//! update adds values to it. The field is `<kind><until>.<end>.<next>.<text>`: until when it is known, when the grace period
//! ends (0 while that is open), the name of the session's next key, and the text for who holds the id. When it ends is part of it, as
//! a late update changes when the key does; what removes the rest of such an update sets that right.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::record;
use crate::session::store::{Loaded, OldId};

/// What was left, in a record that is no session.
pub(super) const TRACE: &[u8] = b"\0x";

/// What a session leaves.
#[derive(Clone, Debug)]
pub(super) enum Trace {
    /// The text is the mark of whoever has ended it, or nothing.
    Ended(String),
    /// The session has moved.
    Linked,
    /// The same, and the id goes on being one of its own; this is for whoever holds it.
    Grace(String),
}

impl Trace {
    pub(super) fn of(old_id: OldId<'_>) -> Trace {
        match old_id {
            OldId::Linked => Trace::Linked,
            OldId::Unlinked => Trace::Ended(String::new()),
            OldId::InGrace(text) => Trace::Grace(text.to_owned()),
        }
    }

    /// As it is written, where the session's next key has this name.
    pub(super) fn written(&self, until: u64, next: &[u8]) -> Vec<u8> {
        let (kind, next, text) = match self {
            Trace::Ended(mark) => (b"e", &b""[..], &mark[..]),
            Trace::Linked => (b"r", next, ""),
            Trace::Grace(text) => (b"g", next, &text[..]),
        };
        [&kind[..], &record::base36(until), b".0.", next, b".", text.as_bytes()].concat()
    }
}

/// A mark that nobody else leaves, by which who ends a session twice, as the first answer was lost, finds itself.
pub(super) fn mark() -> String {
    static SEED: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0));
    static MADE: AtomicU64 = AtomicU64::new(0);
    format!("{:x}-{:x}", *SEED, MADE.fetch_add(1, Ordering::Relaxed))
}

/// What a load answers that finds this.
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
                0 => Loaded::Replaced(text),
                end if end <= now => {
                    Loaded::Retired { left: text, since: Duration::from_millis(now - end) }
                }
                _ => Loaded::Ending(text),
            }
        }
        _ => Loaded::Unknown,
    })
}
