//! Tombstones: what the file keeps under an id after its session has ended or moved to another id, the grace period of that
//! id included. A tombstone is the row of the session without its fields and user.

use std::time::Duration;

use rusqlite::params;
use rusqlite::types::{FromSqlError, FromSqlResult, ValueRef};

use super::record::{Key, SaveParameters, Timestamp};
use super::write::{Answer, Failure, Found, Transaction};
use crate::session::store::save::{PAST_GRACE_FOR, TOMBSTONE_FOR};
use crate::session::store::{Lifetimes, Loaded, OldId, Saved};

/// The columns that an UPDATE sets to NULL to turn the row of a session into a tombstone.
pub(super) const CLEARED_COLUMNS: &str = "fields = NULL, remember = NULL, user = NULL, logged_in = NULL, prefix = NULL, \
                                  handle = NULL, agent = NULL, address = NULL";

/// How many moves of a session are followed to end it. Rows that were edited by hand may form a cycle.
const MAX_MOVES: usize = 10_000;

/// The row of an id that is no session's any more.
pub(super) struct Tombstone {
    kind: Kind,
    /// When the row may be deleted.
    pub(super) expires: Timestamp,
}

enum Kind {
    Ended,
    /// The session has moved there.
    Linked(Key),
    /// The session has moved there, and this id still opens it until `ends`.
    Grace {
        to: Key,
        text: String,
        ends: Option<Timestamp>,
    },
    /// The grace period of the id has ended at this time.
    PastGrace(String, Timestamp),
}

impl Tombstone {
    /// Reads the columns that only tombstones have.
    pub(super) fn read(
        [next, text, ends]: [ValueRef<'_>; 3],
        expires: Timestamp,
    ) -> FromSqlResult<Tombstone> {
        let kind = match (next, text, ends.as_i64_or_null()?.map(Timestamp)) {
            (ValueRef::Null, ValueRef::Null, None) => Kind::Ended,
            (ValueRef::Null, text, Some(ends)) => Kind::PastGrace(text.as_str()?.to_owned(), ends),
            (next, ValueRef::Null, None) => Kind::Linked(key(next)?),
            (next, text, ends) => {
                Kind::Grace { to: key(next)?, text: text.as_str()?.to_owned(), ends }
            }
        };
        Ok(Tombstone { kind, expires })
    }

    /// Whether the id has, or had, a grace period.
    pub(super) fn had_grace_period(&self) -> bool {
        matches!(self.kind, Kind::Grace { .. } | Kind::PastGrace(..))
    }

    /// Whether its grace period is over although the row is not marked so.
    pub(super) fn is_past_grace(&self, now: Timestamp) -> bool {
        matches!(self.kind, Kind::Grace { ends: Some(ends), .. } if ends <= now)
    }

    pub(super) fn after_grace(self) -> Tombstone {
        match self.kind {
            Kind::Grace { text, ends: Some(ends), .. } => {
                Tombstone { kind: Kind::PastGrace(text, ends), ..self }
            }
            kind => Tombstone { kind, ..self },
        }
    }

    /// What a load of the id returns.
    pub(super) fn loaded(self, now: Timestamp) -> Loaded {
        match self.kind {
            Kind::Ended | Kind::Linked(_) => Loaded::Ended,
            Kind::Grace { text, ends: None, .. } => Loaded::InGrace(text),
            Kind::Grace { text, .. } => Loaded::GraceEnding(text),
            Kind::PastGrace(left, ends) => Loaded::PastGrace { left, since: now.since(ends) },
        }
    }

    /// The key under which to go on to end the session.
    fn next_key(self) -> Option<Key> {
        match self.kind {
            Kind::Linked(to) | Kind::Grace { to, .. } => Some(to),
            Kind::Ended | Kind::PastGrace(..) => None,
        }
    }
}

/// Digest and mark in one.
fn key(column: ValueRef<'_>) -> FromSqlResult<Key> {
    let of = |bytes: &[u8]| {
        let (digest, mark) = bytes.split_first_chunk()?;
        Some(Key { digest: *digest, mark: mark.try_into().ok()? })
    };
    of(column.as_blob()?).ok_or(FromSqlError::InvalidType)
}

/// An [`OldId`] that owns its text, for the thread that commits the move.
pub(super) enum OwnedOldId {
    Unlinked,
    Linked,
    InGrace(String),
}

impl OwnedOldId {
    pub(super) fn of(old_id: OldId<'_>) -> OwnedOldId {
        match old_id {
            OldId::Linked => OwnedOldId::Linked,
            OldId::Unlinked => OwnedOldId::Unlinked,
            OldId::InGrace(text) => OwnedOldId::InGrace(text.to_owned()),
        }
    }
}

impl Transaction<'_> {
    /// Ends the session that is under this id, or has moved away from it.
    pub(super) fn destroy(&self, key: &Key, lifetimes: &Lifetimes) -> Result<Answer, Failure> {
        let mut at = *key;
        for _ in 0..MAX_MOVES {
            let next = match self.find_current(&at, lifetimes)? {
                None => None,
                Some(Found::Session(_) | Found::Damaged) => {
                    self.write_tombstone(&at, None, None, self.now.after(TOMBSTONE_FOR))?;
                    return Ok(Answer::Saved(Saved::Stored));
                }
                Some(Found::Tombstone(tombstone)) => tombstone.next_key(),
            };
            match next {
                None => break,
                Some(next) => at = next,
            }
        }
        Ok(Answer::Saved(Saved::Gone))
    }

    /// Turns the row of a session that has moved to another key into a tombstone. `expires` is when the session expires at
    /// the latest.
    pub(super) fn replace_by_tombstone(
        &self,
        from: &Key,
        to: &Key,
        old_id: &OwnedOldId,
        expires: Timestamp,
    ) -> Result<(), Failure> {
        let minute = self.now.after(TOMBSTONE_FOR);
        match old_id {
            OwnedOldId::Unlinked => self.write_tombstone(from, None, None, minute),
            OwnedOldId::Linked => self.write_tombstone(from, Some(to), None, minute),
            OwnedOldId::InGrace(text) => self.write_tombstone(from, Some(to), Some(text), expires),
        }
    }

    fn write_tombstone(
        &self,
        key: &Key,
        next: Option<&Key>,
        text: Option<&str>,
        expires: Timestamp,
    ) -> Result<(), Failure> {
        let next = next.map(|next| [&next.digest[..], &next.mark[..]].concat());
        let mut statement = self.connection.prepare_cached(&format!(
            "UPDATE sessions SET {CLEARED_COLUMNS}, mark = ?2, next = ?3, grace = ?4, expires = ?5 WHERE key = ?1"
        ))?;
        statement.execute(params![key.digest, key.mark, next, text, expires.0])?;
        Ok(())
    }

    /// Has an id that is in its grace period known for as long as the session lives that is saved now.
    pub(super) fn extend_grace(
        &self,
        key: &Key,
        parameters: &SaveParameters,
    ) -> Result<Answer, Failure> {
        // One that is to end is known for long behind that.
        let end = |ends: Option<Timestamp>| match ends {
            Some(ends) => ends.after(PAST_GRACE_FOR),
            None => parameters.end(self.now),
        };
        self.change_grace(key, parameters, |ends| (ends, end(ends)))
    }

    /// Ends the grace period of an id so long from now, unless it ends earlier.
    pub(super) fn end_grace(
        &self,
        key: &Key,
        after: Duration,
        parameters: &SaveParameters,
    ) -> Result<Answer, Failure> {
        let end = self.now.after(after);
        self.change_grace(key, parameters, |ends| {
            let end = ends.map_or(end, |ends| ends.min(end));
            (Some(end), end.after(PAST_GRACE_FOR))
        })
    }

    /// Changes when the grace period of an id ends, and until when it is known.
    fn change_grace(
        &self,
        key: &Key,
        parameters: &SaveParameters,
        change: impl FnOnce(Option<Timestamp>) -> (Option<Timestamp>, Timestamp),
    ) -> Result<Answer, Failure> {
        let Some(Found::Tombstone(Tombstone { kind: Kind::Grace { ends, .. }, .. })) =
            self.find_current(key, &parameters.lifetimes)?
        else {
            return Ok(Answer::Saved(Saved::Gone));
        };
        let (ends, expires) = change(ends);
        let mut statement = self
            .connection
            .prepare_cached("UPDATE sessions SET grace_ends = ?2, expires = ?3 WHERE key = ?1")?;
        statement.execute(params![key.digest, ends.map(|ends| ends.0), expires.0])?;
        Ok(Answer::Saved(Saved::Stored))
    }
}
