//! Writes to sessions, and how each is carried out in a transaction.

use std::time::Duration;

use rusqlite::types::{FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::devices::Ending;
use super::expired::{ExpiredRow, Expiry};
use super::json;
use super::record::{Key, SaveParameters, StoredSession, Timestamp};
use super::tombstones::Tombstone;
use crate::session::store::memory::{applied, integer, put};
use crate::session::store::{
    Action, Caps, Changes, Fields, Lifetimes, Save, Saved, gone, id_taken, not_a_number,
};
use crate::{Error, ErrorKind, Result};

/// One write, queued for the thread that commits it together with others.
pub(super) enum Write {
    Create(Key, Changes, SaveParameters),
    Update(Key, Changes, SaveParameters),
    Rotate(Key, Key, Changes, SaveParameters),
    Destroy(Key, Lifetimes),
    ExtendGrace(Key, SaveParameters),
    EndGrace(Key, Duration, SaveParameters),
    Operate(Key, Lifetimes, Operation),
    /// Of this user's sessions.
    End(String, Ending),
}

/// An atomic operation on the fields. It leaves the idle limit as it is.
pub(super) enum Operation {
    Increment(String, i64),
    Take(Vec<String>),
    SetIfAbsent(String, String),
    CompareAndSet { key: String, held: Option<String>, fields: Vec<(String, String)> },
}

pub(super) enum Answer {
    Saved(Saved),
    Sum(i64),
    Taken(Vec<Option<String>>),
    Set(bool),
    Ended(usize),
}

impl Write {
    pub(super) fn save(save: &Save<'_>, prefix: &str) -> Write {
        let key = Key::of(save.id, prefix);
        let said = || (save.changes.clone(), SaveParameters::of(save));
        match save.action {
            Action::Create => {
                let (changes, parameters) = said();
                Write::Create(key, changes, parameters)
            }
            Action::Update => {
                let (changes, parameters) = said();
                Write::Update(key, changes, parameters)
            }
            Action::Rotate { to } => {
                let (changes, parameters) = said();
                Write::Rotate(key, Key::of(to, prefix), changes, parameters)
            }
            Action::Destroy => Write::Destroy(key, save.lifetimes),
            Action::ExtendGrace => Write::ExtendGrace(key, SaveParameters::of(save)),
            Action::EndGrace(after) => Write::EndGrace(key, after, SaveParameters::of(save)),
        }
    }
}

/// Why a write was not carried out.
pub(super) enum Failure {
    /// The file failed: no write of the transaction is carried out.
    File(rusqlite::Error),
    /// This write alone failed; the others of the transaction are carried out.
    Write(Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Failure {
        Failure::File(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Write(error)
    }
}

/// A row that is there.
pub(super) enum Found {
    Session(StoredSession),
    /// The session has ended or moved away.
    Tombstone(Tombstone),
    /// The row cannot be read.
    Damaged,
}

impl Found {
    /// A row that carries this mark.
    fn read(row: &Row<'_>, mark: &[u8; 8]) -> FromSqlResult<Found> {
        let column = |at: usize| row.get_ref(at).unwrap_or(ValueRef::Null);
        if column(0).as_blob()? != mark {
            return Err(FromSqlError::InvalidType);
        }
        Ok(match column(11) {
            ValueRef::Null => {
                let expires = Timestamp(column(5).as_i64()?);
                Found::Tombstone(Tombstone::read([12, 13, 14].map(column), expires)?)
            }
            _ => Found::Session(StoredSession::read(row)?),
        })
    }

    /// When it expires.
    pub(super) fn expires(&self) -> Option<Timestamp> {
        match self {
            Found::Session(stored) => Some(stored.expires),
            Found::Tombstone(tombstone) => Some(tombstone.expires),
            Found::Damaged => None,
        }
    }

    /// What of it has expired at this time, where the row is not marked so.
    pub(super) fn expiry(&self, lifetimes: &Lifetimes, now: Timestamp) -> Option<Expiry> {
        match self {
            Found::Session(stored) => (!stored.is_live(lifetimes, now)).then_some(Expiry::Row),
            Found::Tombstone(tombstone) if tombstone.expires <= now => Some(Expiry::Row),
            Found::Tombstone(tombstone) => {
                tombstone.is_past_grace(now).then_some(Expiry::GracePeriod)
            }
            Found::Damaged => None,
        }
    }

    /// What is left of it after this expiry.
    pub(super) fn after(self, expiry: Option<Expiry>) -> Option<Found> {
        match (expiry, self) {
            (None, found) => Some(found),
            (Some(Expiry::GracePeriod), Found::Tombstone(tombstone)) => {
                Some(Found::Tombstone(tombstone.after_grace()))
            }
            (Some(_), _) => None,
        }
    }
}

/// The row of this key.
pub(super) fn find(connection: &Connection, key: &Key) -> rusqlite::Result<Option<Found>> {
    let mut statement = connection.prepare_cached(
        "SELECT mark, created, renewed, saved_for, remember, expires, user, logged_in, handle, agent, address, \
         fields, next, grace, grace_ends FROM sessions WHERE key = ?1",
    )?;
    statement
        .query_row([&key.digest[..]], |row| {
            Ok(Found::read(row, &key.mark).unwrap_or(Found::Damaged))
        })
        .optional()
}

/// Deletes a row that has expired, or marks its grace period as over, unless it has been saved since.
pub(super) fn mark_expired(connection: &Connection, row: &ExpiredRow) -> rusqlite::Result<()> {
    let ExpiredRow { digest, expires, expiry } = row;
    let sql = match expiry {
        Expiry::Row => "DELETE FROM sessions WHERE key = ?1 AND expires = ?2",
        Expiry::GracePeriod => "UPDATE sessions SET next = NULL WHERE key = ?1 AND expires = ?2",
    };
    connection.prepare_cached(sql)?.execute(params![digest, expires.0]).map(drop)
}

/// A transaction that is open, at this time and with these caps.
pub(super) struct Transaction<'a> {
    pub(super) connection: &'a Connection,
    pub(super) now: Timestamp,
    pub(super) caps: Caps,
    pub(super) prefix: &'a str,
}

impl Transaction<'_> {
    /// Carries out one write. The outer error fails the whole transaction, the inner one this write alone, of which nothing
    /// is stored then.
    pub(super) fn carry_out(&self, write: &Write) -> rusqlite::Result<Result<Answer>> {
        let done = match write {
            Write::Create(key, changes, parameters) => self.create(key, changes, parameters),
            Write::Update(key, changes, parameters) => self.update(key, changes, parameters),
            Write::Rotate(key, to, changes, parameters) => {
                self.rotate(key, to, changes, parameters)
            }
            Write::Destroy(key, lifetimes) => self.destroy(key, lifetimes),
            Write::ExtendGrace(key, parameters) => self.extend_grace(key, parameters),
            Write::EndGrace(key, after, parameters) => self.end_grace(key, *after, parameters),
            Write::Operate(key, lifetimes, operation) => self.operate(key, lifetimes, operation),
            Write::End(user, which) => self.end_of(user, which).map(Answer::Ended),
        };
        match done {
            Ok(answer) => Ok(Ok(answer)),
            Err(Failure::Write(error)) => Ok(Err(error)),
            Err(Failure::File(error)) => Err(error),
        }
    }

    fn create(
        &self,
        key: &Key,
        changes: &Changes,
        parameters: &SaveParameters,
    ) -> Result<Answer, Failure> {
        let fields = applied(Fields::new(), changes, &self.caps)?;
        let stored = StoredSession::new(parameters, &fields, self.now);
        if !self.insert(key, &stored)? {
            match self.live(key, &parameters.lifetimes)? {
                Some(there) if there.fields == stored.fields => {
                    return Ok(Answer::Saved(Saved::Stored));
                }
                Some(_) => return Err(id_taken().into()),
                None => self.replace(key, &stored)?,
            }
        }
        self.logged_in(key, parameters)?;
        Ok(Answer::Saved(Saved::Stored))
    }

    fn update(
        &self,
        key: &Key,
        changes: &Changes,
        parameters: &SaveParameters,
    ) -> Result<Answer, Failure> {
        let Some(mut stored) = self.live(key, &parameters.lifetimes)? else {
            return Ok(Answer::Saved(Saved::Gone));
        };
        self.change(&mut stored, changes, parameters)?;
        let StoredSession { fields, renewed, saved_for, remember, expires, .. } = &stored;
        let mut statement = self.connection.prepare_cached(
            "UPDATE sessions SET renewed = ?2, saved_for = ?3, remember = ?4, expires = ?5, fields = ?6 \
             WHERE key = ?1",
        )?;
        statement
            .execute(params![key.digest, renewed.0, saved_for, remember, expires.0, fields])?;
        Ok(Answer::Saved(Saved::Stored))
    }

    fn rotate(
        &self,
        key: &Key,
        to: &Key,
        changes: &Changes,
        parameters: &SaveParameters,
    ) -> Result<Answer, Failure> {
        let taken = self.live(to, &parameters.lifetimes)?.is_some();
        let mut stored = match self.find_current(key, &parameters.lifetimes)? {
            Some(Found::Session(stored)) => stored,
            Some(Found::Damaged) => return Err(damaged().into()),
            // Nobody but this move knows the new id, so a record under it is what the move wrote.
            _ if taken => return Ok(Answer::Saved(Saved::Stored)),
            Some(Found::Tombstone(tombstone)) if tombstone.had_grace_period() => {
                return Ok(Answer::Saved(Saved::Gone));
            }
            _ if parameters.login.is_some() => return self.create(to, changes, parameters),
            _ => return Ok(Answer::Saved(Saved::Gone)),
        };
        if taken {
            return Err(id_taken().into());
        }
        self.change(&mut stored, changes, parameters)?;
        self.replace_by_tombstone(key, to, &parameters.old_id, stored.expires)?;
        self.replace(to, &stored)?;
        self.logged_in(to, parameters)?;
        Ok(Answer::Saved(Saved::Stored))
    }

    /// After a login, ends those that are too many.
    fn logged_in(&self, key: &Key, parameters: &SaveParameters) -> Result<(), Failure> {
        match &parameters.login {
            Some(login) => self.end_oldest(&login.user, login.max_sessions, key),
            None => Ok(()),
        }
    }

    /// Writes the changes into a live record, and starts its idle limit anew.
    fn change(
        &self,
        stored: &mut StoredSession,
        changes: &Changes,
        parameters: &SaveParameters,
    ) -> Result<(), Failure> {
        if !changes.is_empty() {
            let fields = json::read(&stored.fields).map_err(|_| damaged())?;
            stored.fields = json::write(&applied(fields, changes, &self.caps)?);
        }
        stored.saved(parameters, self.now);
        Ok(())
    }

    /// Lets an operation work on the fields of one live session.
    fn operate(
        &self,
        key: &Key,
        lifetimes: &Lifetimes,
        operation: &Operation,
    ) -> Result<Answer, Failure> {
        let stored = self.live(key, lifetimes)?.ok_or_else(gone)?;
        let mut fields = json::read(&stored.fields).map_err(|_| damaged())?;
        let answer = match operation {
            Operation::Increment(field, by) => {
                let held = fields.get(field).map_or(Some(0), integer);
                let sum = held.and_then(|held| held.checked_add(*by));
                let sum = sum.ok_or_else(|| not_a_number(field))?;
                put(&mut fields, field, &sum.to_string(), &self.caps)?;
                Answer::Sum(sum)
            }
            Operation::Take(keys) => {
                Answer::Taken(keys.iter().map(|key| fields.remove(key)).collect())
            }
            Operation::SetIfAbsent(field, value) => {
                let absent = !fields.contains_key(field);
                if absent {
                    put(&mut fields, field, value, &self.caps)?;
                }
                Answer::Set(absent)
            }
            Operation::CompareAndSet { key, held, fields: set } => {
                let is_held = fields.get(key) == held.as_deref();
                if is_held {
                    set.iter()
                        .try_for_each(|(key, value)| put(&mut fields, key, value, &self.caps))?;
                }
                Answer::Set(is_held)
            }
        };
        let fields = json::write(&fields);
        if fields != stored.fields {
            let mut statement =
                self.connection.prepare_cached("UPDATE sessions SET fields = ?2 WHERE key = ?1")?;
            statement.execute(params![key.digest, fields])?;
        }
        Ok(answer)
    }

    /// The live session of this key.
    fn live(&self, key: &Key, lifetimes: &Lifetimes) -> Result<Option<StoredSession>, Failure> {
        match self.find_current(key, lifetimes)? {
            Some(Found::Session(stored)) => Ok(Some(stored)),
            Some(Found::Damaged) => Err(damaged().into()),
            Some(Found::Tombstone(_)) | None => Ok(None),
        }
    }

    /// The row of this key at this time: one that has expired is deleted first.
    pub(super) fn find_current(
        &self,
        key: &Key,
        lifetimes: &Lifetimes,
    ) -> Result<Option<Found>, Failure> {
        let Some(found) = find(self.connection, key)? else { return Ok(None) };
        let expiry = found.expiry(lifetimes, self.now);
        if let (Some(expires), Some(expiry)) = (found.expires(), expiry) {
            mark_expired(self.connection, &ExpiredRow { digest: key.digest, expires, expiry })?;
        }
        Ok(found.after(expiry))
    }

    /// Whether it was inserted: there was no row of this key.
    fn insert(&self, key: &Key, stored: &StoredSession) -> Result<bool, Failure> {
        let StoredSession { fields, created, renewed, saved_for, remember, login, expires } =
            stored;
        let login = login.as_ref();
        let mut statement = self.connection.prepare_cached(
            "INSERT INTO sessions (key, mark, created, renewed, saved_for, remember, expires, fields, \
             user, logged_in, prefix, handle, agent, address) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14) \
             ON CONFLICT (key) DO NOTHING",
        )?;
        let inserted = statement.execute(params![
            key.digest,
            key.mark,
            created.0,
            renewed.0,
            saved_for,
            remember,
            expires.0,
            fields,
            login.map(|login| &login.user),
            login.map(|login| login.at.0),
            login.map(|_| self.prefix),
            login.map(|login| &login.handle),
            login.map(|login| &login.agent),
            login.map(|login| &login.address),
        ])?;
        Ok(inserted > 0)
    }

    /// Inserts a session where there is none, but perhaps what another one has left.
    fn replace(&self, key: &Key, stored: &StoredSession) -> Result<(), Failure> {
        let mut statement =
            self.connection.prepare_cached("DELETE FROM sessions WHERE key = ?1")?;
        statement.execute([&key.digest[..]])?;
        self.insert(key, stored).map(drop)
    }
}

/// The error of a row that holds what none of ours does: for who asks for this session, and for nobody else.
pub(super) fn damaged() -> Error {
    Error::new(
        ErrorKind::Config,
        "the row of a session is damaged, or was written by another program",
    )
}
