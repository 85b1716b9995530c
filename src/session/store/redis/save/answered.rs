//! What the replies to a save mean.

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use super::{CreatesBy, MAX_MOVES, SaveAction, SaveStep, State};
use crate::redis::{RedisReply as Reply, Replies};
use crate::session::store::id_taken;
use crate::session::store::redis::index::key_of;
use crate::session::store::redis::record::{self, RecordError};
use crate::session::store::redis::{foreign, newer, refused};
use crate::session::store::{Fields, Loaded, Saved};
use crate::{Error, Result};

impl SaveStep {
    pub(super) fn created(&mut self, reply: Option<Reply<'_>>) -> Result<State, RecordError> {
        match (reply, self.creates_by) {
            (Some(Reply::Status(b"OK")), CreatesBy::Restore) => Ok(stored()),
            (Some(Reply::Error(line)), CreatesBy::Restore) if line.starts_with(b"BUSYKEY") => {
                Ok(State::Comparing)
            }
            (Some(Reply::Error(line)), CreatesBy::Restore) if is_restore_refused(line) => {
                self.creates_by = CreatesBy::Script;
                Ok(State::Writing)
            }
            (Some(Reply::Integer(created @ (0 | 1))), CreatesBy::Script) => {
                // It was not something else that was refused.
                self.settings.creates_by_script.store(true, Ordering::Relaxed);
                Ok(if created == 1 { stored() } else { State::Comparing })
            }
            (Some(Reply::Error(line)), _) => Ok(State::Over(Err(refused(line)))),
            _ => Err(RecordError::Desync),
        }
    }

    /// Whether the record that is there is what was to be created: then this was the second time. If it was what a
    /// late save has left, it has made room by now.
    pub(super) fn compared(
        &self,
        replies: &mut Replies<'_>,
        now: SystemTime,
    ) -> Result<State, RecordError> {
        let hash = match (replies.next(), replies.next()) {
            (Some(Reply::Nil), Some(Reply::Array(hash))) => hash,
            (Some(Reply::Error(line)), Some(_)) | (Some(_), Some(Reply::Error(line))) => {
                return Ok(State::Over(Err(refused(line))));
            }
            _ => return Err(RecordError::Desync),
        };
        let (settings, lifetimes) = (&self.settings, &self.lifetimes);
        let found = record::read(settings, settings.layout, &self.key, hash, lifetimes, now);
        let mut wanted = Fields::new();
        for chunk in &self.values.set {
            let mut words = chunk.iter().map(String::from_utf8_lossy);
            while let (Some(name), Some(value)) = (words.next(), words.next()) {
                wanted.insert(&name, &value);
            }
        }
        let is_wanted = match found.map(|found| found.loaded) {
            Ok(Loaded::Session(record)) => record.fields == wanted,
            Ok(_) if hash.is_empty() && wanted.is_empty() => true,
            Ok(_) if hash.is_empty() => return Ok(State::Writing),
            // It has reached its absolute limit, and no update has found that yet; or it has left something.
            Ok(_) => return Ok(State::Removing),
            Err(_) => false,
        };
        Ok(if is_wanted { stored() } else { State::Over(Err(id_taken())) })
    }

    pub(super) fn updated(
        &mut self,
        mut results: Replies<'_>,
        now: SystemTime,
    ) -> Result<State, RecordError> {
        if !self.has_proof() {
            return match results.next() {
                Some(Reply::Array(_)) => Ok(stored()),
                Some(Reply::Nil) => Ok(self.gone()),
                Some(Reply::Error(line)) => Ok(State::Over(Err(refused(line)))),
                _ => Err(RecordError::Desync),
            };
        }
        let Some(values) = results.len().checked_sub(2) else { return Err(RecordError::Desync) };
        if let Some(line) = results.by_ref().take(values).find_map(error_line) {
            return Ok(State::Over(Err(refused(line))));
        }
        match (results.next(), results.next()) {
            // The key has ended in the midst of the transaction, as it can in Redis 5.
            (Some(Reply::Array(_)), Some(Reply::Integer(0))) => Ok(self.gone()),
            (Some(Reply::Array(own)), Some(Reply::Integer(_))) => self.read_lifetime(own, now),
            (Some(Reply::Error(line)), _) | (_, Some(Reply::Error(line))) => {
                Ok(State::Over(Err(refused(line))))
            }
            _ => Err(RecordError::Desync),
        }
    }

    pub(super) fn rotated(
        &mut self,
        mut results: Replies<'_>,
        now: SystemTime,
    ) -> Result<State, RecordError> {
        let SaveAction::Rotate(rotation) = &self.action else { return Err(RecordError::Desync) };
        let to = &rotation.to;
        let moved = match results.next() {
            Some(Reply::Array(_)) => true,
            Some(Reply::Nil) => false,
            Some(Reply::Integer(0)) => return Ok(State::Over(Err(id_taken()))),
            Some(Reply::Error(line)) => return Ok(State::Over(Err(refused(line)))),
            Some(Reply::Bulk(proof)) => {
                let record_error = self.key.created(proof).err().unwrap_or(RecordError::Desync);
                return self.record_error(record_error);
            }
            _ => return Err(RecordError::Desync),
        };
        // Under its old id it is not. If it is under the new one, who but this move can have brought it there?
        let (own, is_there) = match results.next() {
            Some(Reply::Array(own)) => {
                let proof = { own }.next().and_then(Reply::bulk);
                let created = proof.and_then(|proof| to.created(proof).ok());
                (
                    Some(own),
                    created.is_some_and(|created| {
                        !record::is_past_absolute(&self.lifetimes, created, now)
                    }),
                )
            }
            Some(Reply::Integer(keys)) => (None, keys == 1),
            Some(Reply::Error(line)) => return Ok(State::Over(Err(refused(line)))),
            _ => return Err(RecordError::Desync),
        };
        match (moved, own) {
            (true, Some(own)) => {
                // From here on it is an update of the record under its new key.
                self.key = to.clone();
                self.action = SaveAction::Update;
                self.read_lifetime(own, now)
            }
            (true, None) => Ok(stored()),
            (false, _) if is_there => Ok(stored()),
            (false, _) if self.former.is_some() => Ok(State::CleaningUp),
            (false, _) => Ok(self.gone()),
        }
    }

    /// Reads what became of an end, or of a change to a grace period.
    pub(super) fn ended(&mut self, reply: Option<Reply<'_>>) -> Result<State, RecordError> {
        match (reply, &mut self.action) {
            (Some(Reply::Integer(0)), _) => Ok(self.gone()),
            (Some(Reply::Integer(_)), _) => Ok(stored()),
            (Some(Reply::Error(line)), _) => Ok(State::Over(Err(refused(line)))),
            (Some(Reply::Bulk(_)), SaveAction::Destroy { moves, .. }) if *moves == MAX_MOVES => {
                Ok(State::Over(Err(moved_too_often())))
            }
            (Some(Reply::Bulk(name)), SaveAction::Destroy { moves, former, .. }) => {
                (*moves, *former) = (*moves + 1, None);
                self.key.name = key_of(&self.settings, name).into();
                Ok(State::Writing)
            }
            _ => Err(RecordError::Desync),
        }
    }

    /// Reads what an update asks for at its end: whether there is a session, and how long it is to live.
    pub(super) fn read_lifetime(
        &mut self,
        mut own: Replies<'_>,
        now: SystemTime,
    ) -> Result<State, RecordError> {
        let created = match own.next() {
            // Also where it has ended since it was written: what it has left is not to live as long as it would have.
            Some(Reply::Nil) => return Ok(State::CleaningUp),
            Some(Reply::Bulk(proof)) => match self.key.created(proof) {
                Ok(created) => created,
                Err(record_error) => return self.record_error(record_error),
            },
            _ => return Err(RecordError::Desync),
        };
        if record::is_past_absolute(&self.lifetimes, created, now) {
            return Ok(State::Removing);
        }
        let idle = own.next().and_then(Reply::bulk).and_then(record::number);
        let idle = idle.map_or(self.lifetimes.idle, Duration::from_millis);
        // Without the time of creation the record may have been given a later end than the absolute limit.
        let is_right = self.created.is_some() || self.lifetimes.absolute.is_none();
        if is_right && record::milliseconds(idle) == record::milliseconds(self.idle) {
            return Ok(stored());
        }
        // Or somebody else has set the limit since this session was loaded, or taken it back.
        self.idle = idle;
        self.created = Some(created);
        self.is_written = true;
        self.former = None;
        Ok(State::Extending)
    }

    pub(super) fn gone(&self) -> State {
        State::Over(Ok(if self.is_written { Saved::Stored } else { Saved::Gone }))
    }

    /// The proof that is there is not that of this session.
    pub(super) fn record_error(&mut self, record_error: RecordError) -> Result<State, RecordError> {
        match record_error {
            RecordError::Damaged(_) | RecordError::TooLarge => Ok(self.gone()),
            RecordError::Newer => Ok(State::Over(Err(newer()))),
            RecordError::Desync => Err(record_error),
            RecordError::Foreign => {
                self.state = State::Over(Err(foreign()));
                Err(record_error)
            }
        }
    }
}

/// Whether a RESTORE may have been refused because this server, or this user, has none or another one. What else is wrong (OOM,
/// READONLY, LOADING) has a code of its own.
fn is_restore_refused(line: &[u8]) -> bool {
    line.starts_with(b"NOPERM") || line.starts_with(b"ERR ")
}

pub(super) fn unmoved() -> Error {
    Error::new(
        crate::ErrorKind::Unavailable,
        "redis did not let the session move from its former layout when it was loaded, nothing was written; \
         another try moves it",
    )
}

fn moved_too_often() -> Error {
    Error::new(
        crate::ErrorKind::Unavailable,
        "the session moves to new ids faster than it can be ended; another try ends it",
    )
}

pub(super) fn stored() -> State {
    State::Over(Ok(Saved::Stored))
}

fn error_line(reply: Reply<'_>) -> Option<&[u8]> {
    match reply {
        Reply::Error(line) => Some(line),
        _ => None,
    }
}
