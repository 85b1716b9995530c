//! What the file keeps of one session: a row.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::types::{FromSqlResult, ValueRef};

use super::json;
use super::tombstones::OwnedOldId;
use crate::Result;
use crate::session::id::SessionId;
use crate::session::store::devices::handle_of;
use crate::session::store::{Action, Fields, Lifetimes, Load, Login, Record, Remember, Save};

/// A point in time as milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Timestamp(pub(super) i64);

impl Timestamp {
    pub(super) const NEVER: Timestamp = Timestamp(i64::MAX);

    pub(super) fn of(time: SystemTime) -> Timestamp {
        Timestamp(millis(time.duration_since(UNIX_EPOCH).unwrap_or_default()))
    }

    pub(super) fn time(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.0.max(0) as u64)
    }

    pub(super) fn after(self, time: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(millis(time)))
    }

    pub(super) fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0).max(0) as u64)
    }
}

/// The end of time is as good as any longer one.
fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// What a row is found by: SHA-256 of prefix and id, and the owner's mark, which the row must carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) digest: [u8; 32],
    pub(super) mark: [u8; 8],
}

impl Key {
    /// With a prefix, an id of one store is none in another that shares its file.
    pub(super) fn of(id: &SessionId, prefix: &str) -> Key {
        let digest = match prefix {
            "" => id.digest(),
            prefix => id.derived(&[b"bottle-session prefix\0", prefix.as_bytes()].concat()),
        };
        Key { digest, mark: id.owner_mark() }
    }
}

pub(super) struct StoredSession {
    /// A JSON object of texts, sorted by key: the same fields are the same text.
    pub(super) fields: String,
    pub(super) created: Timestamp,
    /// When the idle limit last began anew together with the cookie.
    pub(super) renewed: Timestamp,
    /// The idle limit that the request which saved it last took it to have, in milliseconds.
    pub(super) saved_for: i64,
    /// The session's own idle limit, in milliseconds.
    pub(super) remember: Option<i64>,
    pub(super) login: Option<LoggedIn>,
    pub(super) expires: Timestamp,
}

/// Who has logged in, when, and from where.
pub(super) struct LoggedIn {
    pub(super) at: Timestamp,
    pub(super) user: String,
    pub(super) handle: String,
    pub(super) agent: String,
    pub(super) address: String,
}

impl StoredSession {
    /// The record that a creation makes.
    pub(super) fn new(save: &SaveParameters, fields: &Fields, now: Timestamp) -> StoredSession {
        let mut stored = StoredSession {
            fields: json::write(fields),
            created: now,
            renewed: now,
            saved_for: 0,
            remember: None,
            login: None,
            expires: Timestamp::NEVER,
        };
        stored.set_remember(save.remember.limit());
        stored.saved(save, now);
        stored
    }

    /// The columns of a session's row, from `mark` on.
    pub(super) fn read(row: &rusqlite::Row<'_>) -> FromSqlResult<StoredSession> {
        let column = |at: usize| row.get_ref(at).unwrap_or(ValueRef::Null);
        let text = |at: usize| column(at).as_str().map(str::to_owned);
        let login = match column(6) {
            ValueRef::Null => None,
            _ => Some(LoggedIn {
                user: text(6)?,
                at: Timestamp(column(7).as_i64()?),
                handle: text(8)?,
                agent: text(9)?,
                address: text(10)?,
            }),
        };
        Ok(StoredSession {
            created: Timestamp(column(1).as_i64()?),
            renewed: Timestamp(column(2).as_i64()?),
            saved_for: column(3).as_i64()?,
            remember: column(4).as_i64_or_null()?,
            expires: Timestamp(column(5).as_i64()?),
            login,
            fields: text(11)?,
        })
    }

    /// Takes note of a save, but for its changes.
    pub(super) fn saved(&mut self, save: &SaveParameters, now: Timestamp) {
        if let Remember::To(limit) = save.remember {
            self.set_remember(limit);
        }
        if let Some(login) = &save.login {
            self.login = Some(LoggedIn {
                at: now,
                user: login.user.clone(),
                handle: login.handle.clone(),
                agent: login.agent.clone(),
                address: login.address.clone(),
            });
        }
        if !save.keeps_cookie {
            self.renewed = now;
        }
        self.saved_for = millis(save.idle);
        self.expires = end(&save.lifetimes, self.remember(), self.created.time(), now);
    }

    fn set_remember(&mut self, limit: Option<Duration>) {
        self.remember = limit.map(|limit| millis(limit).max(1));
    }

    fn remember(&self) -> Option<Duration> {
        self.remember.map(|limit| Duration::from_millis(limit.max(0) as u64))
    }

    /// Whether the request that saved it last took it to have this idle limit.
    fn was_saved_for(&self, idle: Duration) -> bool {
        self.saved_for == millis(idle)
    }

    pub(super) fn is_live(&self, lifetimes: &Lifetimes, now: Timestamp) -> bool {
        now < self.expires && !self.is_past_absolute(lifetimes, now)
    }

    /// Whether it is over by an absolute limit that may have been shortened since it was last saved.
    fn is_past_absolute(&self, lifetimes: &Lifetimes, now: Timestamp) -> bool {
        lifetimes.absolute_end(self.created.time()).is_some_and(|end| Timestamp::of(end) <= now)
    }

    /// What a load answers.
    pub(super) fn record(self, load: &Load<'_>, now: Timestamp) -> Result<Record, json::Damaged> {
        let mut ago = now.since(self.renewed);
        let idle = self.remember().unwrap_or(load.lifetimes.idle);
        if !self.was_saved_for(idle) {
            // Saved by a request that did not know of this limit: its cookie may end too early or too late.
            ago = ago.max(idle / 10);
        }
        Ok(Record {
            fields: json::read(&self.fields)?,
            created: Some(self.created.time()),
            renewed_ago: Some(ago),
            remember: self.remember(),
            login: self.login.map(|login| Login { user: login.user, at: login.at.time() }),
        })
    }
}

/// When a row expires that is saved now and never again.
fn end(
    lifetimes: &Lifetimes,
    remember: Option<Duration>,
    created: SystemTime,
    now: Timestamp,
) -> Timestamp {
    lifetimes.end(remember, created, now.time()).map_or(Timestamp::NEVER, Timestamp::of)
}

/// The parameters of a [`Save`], without its action and changes, for the thread that commits it.
pub(super) struct SaveParameters {
    pub(super) lifetimes: Lifetimes,
    remember: Remember,
    /// The idle limit that the request takes the session to have.
    idle: Duration,
    /// Whether the answer leaves the cookie as it is.
    keeps_cookie: bool,
    pub(super) login: Option<LoginParameters>,
    /// What the store keeps under the id that the session moves away from.
    pub(super) old_id: OwnedOldId,
    created: Option<SystemTime>,
}

/// The parameters of a [`LogIn`](crate::LogIn), and the handle of the new session.
pub(super) struct LoginParameters {
    pub(super) user: String,
    handle: String,
    agent: String,
    address: String,
    pub(super) max_sessions: Option<usize>,
}

impl SaveParameters {
    pub(super) fn of(save: &Save<'_>) -> SaveParameters {
        let new_id = match save.action {
            Action::Create => Some(save.id),
            Action::Rotate { to } => Some(to),
            _ => None,
        };
        let login = save.login.zip(new_id).map(|(login, id)| LoginParameters {
            user: login.user.to_owned(),
            handle: handle_of(id),
            agent: login.agent.to_owned(),
            address: login.address.to_owned(),
            max_sessions: login.max_sessions,
        });
        SaveParameters {
            lifetimes: save.lifetimes,
            remember: save.remember,
            idle: save.idle(),
            keeps_cookie: save.renewed_ago.is_some(),
            login,
            old_id: OwnedOldId::of(save.old_id),
            created: save.created,
        }
    }

    /// When a session expires that is saved now and never again, by what the save says of it.
    pub(super) fn end(&self, now: Timestamp) -> Timestamp {
        let created = self.created.unwrap_or(now.time());
        end(&self.lifetimes, self.remember.limit(), created, now)
    }
}
