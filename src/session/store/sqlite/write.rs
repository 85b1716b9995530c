//! What is to happen to sessions, and how it happens in a transaction.

use rusqlite::{Connection, OptionalExtension, params};

use super::json;
use super::record::{Kept, Key, Moment, Wish};
use crate::session::store::memory::{applied, integer, put};
use crate::session::store::{
    Action, Caps, Changes, Fields, Lifetimes, Load, Save, Saved, gone, id_taken, not_a_number,
};
use crate::{Error, ErrorKind, Result};

/// One wish, for the thread that carries it out with those of others.
pub(super) struct Write {
    key: Key,
    lifetimes: Lifetimes,
    what: What,
}

pub(super) enum What {
    Create(Changes, Wish),
    Update(Changes, Wish),
    Rotate(Key, Changes, Wish),
    Destroy,
    Increment(String, i64),
    Take(Vec<String>),
    SetIfAbsent(String, String),
}

pub(super) enum Answer {
    Saved(Saved),
    Sum(i64),
    Taken(Vec<Option<String>>),
    Set(bool),
}

impl Write {
    pub(super) fn save(save: &Save<'_>, prefix: &str) -> Write {
        let (changes, wish) = (save.changes.clone(), Wish::of(save));
        let what = match save.action {
            Action::Create => What::Create(changes, wish),
            Action::Update => What::Update(changes, wish),
            Action::Rotate { to } => What::Rotate(Key::of(to, prefix), changes, wish),
            Action::Destroy => What::Destroy,
        };
        Write { key: Key::of(save.id, prefix), lifetimes: save.lifetimes, what }
    }

    pub(super) fn operation(load: &Load<'_>, prefix: &str, what: What) -> Write {
        Write { key: Key::of(load.id, prefix), lifetimes: load.lifetimes, what }
    }
}

/// Why a wish was not carried out.
enum Failure {
    /// The file failed: nothing of the transaction is.
    File(rusqlite::Error),
    /// This one cannot be; the others of the transaction are.
    Own(Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Failure {
        Failure::File(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Own(error)
    }
}

/// A row that is there.
pub(super) enum Found {
    Kept(Kept),
    /// It holds what none of ours does.
    Damaged,
}

/// The row of this key.
pub(super) fn find(connection: &Connection, key: &Key) -> rusqlite::Result<Option<Found>> {
    let mut statement = connection.prepare_cached(
        "SELECT mark, created, renewed, saved_for, remember, expires, user, user_since, fields \
         FROM sessions WHERE key = ?1",
    )?;
    statement
        .query_row([&key.digest[..]], |row| {
            Ok(Kept::read(row, &key.mark).map_or(Found::Damaged, Found::Kept))
        })
        .optional()
}

/// Removes a row that was found dead and has not been saved since.
pub(super) fn bury(
    connection: &Connection,
    digest: &[u8; 32],
    expires: Moment,
) -> rusqlite::Result<()> {
    let mut statement =
        connection.prepare_cached("DELETE FROM sessions WHERE key = ?1 AND expires = ?2")?;
    statement.execute(params![digest, expires.0]).map(drop)
}

/// A transaction that is open, at this time and with these caps.
pub(super) struct Transaction<'a> {
    pub(super) connection: &'a Connection,
    pub(super) now: Moment,
    pub(super) caps: Caps,
}

impl Transaction<'_> {
    /// Carries out one wish. The outer error concerns the whole transaction, the inner one this wish alone, of which
    /// nothing is written then.
    pub(super) fn carry_out(&self, write: &Write) -> rusqlite::Result<Result<Answer>> {
        let Write { key, lifetimes, what } = write;
        let done = match what {
            What::Create(changes, wish) => self.create(key, changes, wish),
            What::Update(changes, wish) => self.update(key, changes, wish),
            What::Rotate(to, changes, wish) => self.rotate(key, to, changes, wish),
            What::Destroy => self.destroy(key),
            operation => self.operate(key, lifetimes, operation),
        };
        match done {
            Ok(answer) => Ok(Ok(answer)),
            Err(Failure::Own(error)) => Ok(Err(error)),
            Err(Failure::File(error)) => Err(error),
        }
    }

    fn create(&self, key: &Key, changes: &Changes, wish: &Wish) -> Result<Answer, Failure> {
        let fields = applied(Fields::new(), changes, &self.caps)?;
        let kept = Kept::new(wish, &fields, self.now);
        if self.insert(key, &kept)? {
            return Ok(Answer::Saved(Saved::Stored));
        }
        match self.live(key, &wish.lifetimes)? {
            Some(there) if there.fields == kept.fields => {}
            Some(_) => return Err(id_taken().into()),
            None => drop(self.insert(key, &kept)?),
        }
        Ok(Answer::Saved(Saved::Stored))
    }

    fn update(&self, key: &Key, changes: &Changes, wish: &Wish) -> Result<Answer, Failure> {
        let Some(mut kept) = self.live(key, &wish.lifetimes)? else {
            return Ok(Answer::Saved(Saved::Gone));
        };
        self.change(&mut kept, changes, wish)?;
        let Kept { fields, renewed, saved_for, remember, expires, .. } = &kept;
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
        wish: &Wish,
    ) -> Result<Answer, Failure> {
        let taken = self.live(to, &wish.lifetimes)?.is_some();
        let Some(mut kept) = self.live(key, &wish.lifetimes)? else {
            // Nobody but this move knows the new id, so a record under it is what the move wrote.
            return match (taken, &wish.login) {
                (true, _) => Ok(Answer::Saved(Saved::Stored)),
                (false, None) => Ok(Answer::Saved(Saved::Gone)),
                (false, Some(_)) => self.create(to, changes, wish),
            };
        };
        if taken {
            return Err(id_taken().into());
        }
        self.change(&mut kept, changes, wish)?;
        self.remove(key)?;
        self.insert(to, &kept)?;
        Ok(Answer::Saved(Saved::Stored))
    }

    /// Writes the changes into a live record, and starts its idle limit anew.
    fn change(&self, kept: &mut Kept, changes: &Changes, wish: &Wish) -> Result<(), Failure> {
        if !changes.is_empty() {
            let fields = json::read(&kept.fields).map_err(|_| damaged())?;
            kept.fields = json::write(&applied(fields, changes, &self.caps)?);
        }
        kept.saved(wish, self.now);
        Ok(())
    }

    fn destroy(&self, key: &Key) -> Result<Answer, Failure> {
        self.remove(key)?;
        Ok(Answer::Saved(Saved::Stored))
    }

    /// Lets an operation work on the fields of one live session.
    fn operate(
        &self,
        key: &Key,
        lifetimes: &Lifetimes,
        operation: &What,
    ) -> Result<Answer, Failure> {
        let kept = self.live(key, lifetimes)?.ok_or_else(gone)?;
        let mut fields = json::read(&kept.fields).map_err(|_| damaged())?;
        let answer = match operation {
            What::Increment(field, by) => {
                let held = fields.get(field).map_or(Some(0), integer);
                let sum = held.and_then(|held| held.checked_add(*by));
                let sum = sum.ok_or_else(|| not_a_number(field))?;
                put(&mut fields, field, &sum.to_string(), &self.caps)?;
                Answer::Sum(sum)
            }
            What::Take(keys) => Answer::Taken(keys.iter().map(|key| fields.remove(key)).collect()),
            What::SetIfAbsent(field, value) => {
                let absent = !fields.contains_key(field);
                if absent {
                    put(&mut fields, field, value, &self.caps)?;
                }
                Answer::Set(absent)
            }
            What::Create(..) | What::Update(..) | What::Rotate(..) | What::Destroy => {
                unreachable!("a save is none of the operations")
            }
        };
        let fields = json::write(&fields);
        if fields != kept.fields {
            let mut statement =
                self.connection.prepare_cached("UPDATE sessions SET fields = ?2 WHERE key = ?1")?;
            statement.execute(params![key.digest, fields])?;
        }
        Ok(answer)
    }

    /// The row of this key, unless it has expired; one that has is removed.
    fn live(&self, key: &Key, lifetimes: &Lifetimes) -> Result<Option<Kept>, Failure> {
        match find(self.connection, key)? {
            None => Ok(None),
            Some(Found::Damaged) => Err(damaged().into()),
            Some(Found::Kept(kept)) if kept.is_live(lifetimes, self.now) => Ok(Some(kept)),
            Some(Found::Kept(_)) => {
                self.remove(key)?;
                Ok(None)
            }
        }
    }

    /// Whether it was inserted: there was no row of this key.
    fn insert(&self, key: &Key, kept: &Kept) -> Result<bool, Failure> {
        let Kept { fields, created, renewed, saved_for, remember, login, expires } = kept;
        let (user, since) = login.as_ref().map(|(user, since)| (user, since.0)).unzip();
        let mut statement = self.connection.prepare_cached(
            "INSERT INTO sessions \
             (key, mark, created, renewed, saved_for, remember, expires, user, user_since, fields) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT (key) DO NOTHING",
        )?;
        let inserted = statement.execute(params![
            key.digest, key.mark, created.0, renewed.0, saved_for, remember, expires.0, user,
            since, fields
        ])?;
        Ok(inserted > 0)
    }

    fn remove(&self, key: &Key) -> Result<(), Failure> {
        let mut statement =
            self.connection.prepare_cached("DELETE FROM sessions WHERE key = ?1")?;
        statement.execute([&key.digest[..]])?;
        Ok(())
    }
}

/// The error of a row that holds what none of ours does: for who asks for this session, and for nobody else.
pub(super) fn damaged() -> Error {
    Error::new(
        ErrorKind::Config,
        "the row of a session is damaged, or was written by another program",
    )
}
