//! The sessions of one user, which an index finds.

use rusqlite::types::FromSqlResult;
use rusqlite::{Connection, params};

use super::record::{Key, Timestamp};
use super::tombstones::CLEARED_COLUMNS;
use super::write::{Failure, Transaction, damaged};
use crate::Result;
use crate::session::id::SessionId;
use crate::session::store::devices::{Device, EndDevices, beyond, newest_first, no_such_device};
use crate::session::store::save::TOMBSTONE_FOR;

/// Which of a user's sessions are to end, for the thread that ends them.
pub(super) enum Ending {
    All,
    AllBut(Key),
    One(String),
}

impl Ending {
    pub(super) fn of(which: EndDevices<'_>, key: impl FnOnce(&SessionId) -> Key) -> Ending {
        match which {
            EndDevices::All => Ending::All,
            EndDevices::AllBut(stays) => Ending::AllBut(key(stays)),
            EndDevices::One(handle) => Ending::One(handle.to_owned()),
        }
    }
}

/// The live sessions of a user of the store with this prefix.
pub(super) fn list(
    connection: &Connection,
    prefix: &str,
    user: &str,
    this: Option<&Key>,
    now: Timestamp,
) -> rusqlite::Result<Result<Vec<Device>>> {
    let mut statement = connection.prepare_cached(
        "SELECT handle, logged_in, renewed, agent, address, key FROM sessions \
         WHERE user = ?1 AND prefix = ?2 AND expires > ?3",
    )?;
    let mut rows = statement.query(params![user, prefix, now.0])?;
    let mut devices = Vec::new();
    while let Some(row) = rows.next()? {
        let Ok(device) = read(row, this) else { return Ok(Err(damaged())) };
        devices.push(device);
    }
    newest_first(&mut devices);
    Ok(Ok(devices))
}

fn read(row: &rusqlite::Row<'_>, this: Option<&Key>) -> FromSqlResult<Device> {
    let column = |at: usize| row.get_ref(at).unwrap_or(rusqlite::types::ValueRef::Null);
    let text = |at: usize| column(at).as_str().map(str::to_owned);
    let time = |at: usize| column(at).as_i64().map(|millis| Timestamp(millis).time());
    let digest = column(5).as_blob()?;
    Ok(Device {
        handle: text(0)?,
        logged_in: time(1)?,
        last_seen: time(2)?,
        agent: text(3)?,
        address: text(4)?,
        is_this: this.is_some_and(|this| this.digest == digest),
    })
}

impl Transaction<'_> {
    /// Ends sessions of a user, and says how many were live. All of them end in one step, or none.
    pub(super) fn end_of(&self, user: &str, which: &Ending) -> Result<usize, Failure> {
        let (stays, handle) = match which {
            Ending::All => (None, None),
            Ending::AllBut(stays) => (Some(&stays.digest[..]), None),
            Ending::One(handle) => (None, Some(handle.as_str())),
        };
        if let Some(stays) = stays
            && !self.is_logged_in(user, stays)?
        {
            return Err(no_such_device().into());
        }
        // Those that have expired as well, as the clock may go back; they are no more than they were.
        let mut end = self.connection.prepare_cached(&format!(
            "UPDATE sessions SET {CLEARED_COLUMNS}, expires = iif(expires > ?3, ?4, expires) \
             WHERE user = ?1 AND prefix = ?2 AND key IS NOT ?5 AND (?6 IS NULL OR handle = ?6) \
             RETURNING expires > ?3"
        ))?;
        let (now, until) = (self.now.0, self.now.after(TOMBSTONE_FOR).0);
        let ended = params![user, self.prefix, now, until, stays, handle];
        let ended = end.query_map(ended, |row| row.get::<_, bool>(0))?;
        let were_live = ended.collect::<rusqlite::Result<Vec<_>>>()?;
        Ok(were_live.into_iter().filter(|was_live| *was_live).count())
    }

    fn is_logged_in(&self, user: &str, digest: &[u8]) -> Result<bool, Failure> {
        let mut statement = self.connection.prepare_cached(
            "SELECT 1 FROM sessions WHERE key = ?1 AND user = ?2 AND prefix = ?3 AND expires > ?4",
        )?;
        Ok(statement.exists(params![digest, user, self.prefix, self.now.0])?)
    }

    /// Ends the oldest sessions of a user who has just logged in into this one, beyond as many as there may be.
    pub(super) fn end_oldest(
        &self,
        user: &str,
        max_sessions: Option<usize>,
        key: &Key,
    ) -> Result<(), Failure> {
        if max_sessions.is_none() {
            return Ok(());
        }
        // The login is written by now: a damaged row of another one is no reason to fail it.
        let listed = list(self.connection, self.prefix, user, Some(key), self.now)?;
        let Ok(devices) = listed else { return Ok(()) };
        for handle in beyond(max_sessions, &devices) {
            self.end_of(user, &Ending::One(handle))?;
        }
        Ok(())
    }
}
