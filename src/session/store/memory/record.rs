//! What the store keeps of one session, in as few bytes as will do.

use std::num::NonZeroU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::session::id::SessionId;
use crate::session::store::devices::{Device, handle_of};
use crate::session::store::fields::{Fields, Packed};
use crate::session::store::{Action, Lifetimes, Login, Remember, Save};
use crate::session::view::hold_nothing_private;

/// A point in time as nanoseconds since 1970. [`Timestamp::NEVER`] is in the year 2554.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Timestamp(pub(super) u64);

impl Timestamp {
    pub(super) const NEVER: Timestamp = Timestamp(u64::MAX);

    pub(super) fn of(time: SystemTime) -> Timestamp {
        Timestamp(nanos(time.duration_since(UNIX_EPOCH).unwrap_or_default()))
    }

    pub(super) fn time(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(self.0)
    }

    pub(super) fn after(self, time: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(nanos(time)))
    }

    pub(super) fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Five centuries are as good as any longer time.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// How long sessions are kept when the store is full: those of the first priority are evicted first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Priority {
    /// It holds a CSRF token or flashes and nothing else: visitors get one with the first form, bots with each request.
    Incidental,
    /// It holds data, and nobody is logged in.
    Anonymous,
    LoggedIn,
}

impl Priority {
    pub(super) const ALL: [Priority; 3] =
        [Priority::Incidental, Priority::Anonymous, Priority::LoggedIn];

    fn of(fields: &Fields, logged_in: bool) -> Priority {
        match hold_nothing_private(fields) {
            _ if logged_in => Priority::LoggedIn,
            true => Priority::Incidental,
            false => Priority::Anonymous,
        }
    }
}

/// Who has logged in, when, and from where.
struct LoggedIn {
    at: Timestamp,
    user: Box<str>,
    handle: Box<str>,
    agent: Box<str>,
    address: Box<str>,
}

pub(super) struct StoredSession {
    pub(super) id: SessionId,
    pub(super) fields: Packed,
    pub(super) created: Timestamp,
    /// When the idle limit last began anew together with the cookie.
    pub(super) renewed: Timestamp,
    /// The idle limit that the request which saved it last took it to have.
    saved_for: u64,
    remember: Option<NonZeroU64>,
    login: Option<Box<LoggedIn>>,
    pub(super) expires: Timestamp,
    pub(super) priority: Priority,
    /// Its position in the expiry queue of its priority.
    pub(super) position: u32,
}

impl StoredSession {
    /// The record that a creation makes.
    pub(super) fn new(save: &Save<'_>, fields: &Fields, now: Timestamp) -> StoredSession {
        let mut stored = StoredSession {
            id: save.id.clone(),
            fields: fields.pack(),
            created: now,
            renewed: now,
            saved_for: 0,
            remember: None,
            login: None,
            expires: Timestamp::NEVER,
            priority: Priority::of(fields, save.login.is_some()),
            position: 0,
        };
        stored.set_remember(save.remember.limit());
        stored.saved(save, now);
        stored
    }

    pub(super) fn set_fields(&mut self, fields: &Fields) {
        (self.fields, self.priority) = (fields.pack(), Priority::of(fields, self.login.is_some()));
    }

    /// Applies a save, but for its changes.
    pub(super) fn saved(&mut self, save: &Save<'_>, now: Timestamp) {
        if let Remember::To(limit) = save.remember {
            self.set_remember(limit);
        }
        let new_id = match save.action {
            Action::Create => Some(save.id),
            Action::Rotate { to } => Some(to),
            _ => None,
        };
        if let (Some(login), Some(id)) = (save.login, new_id) {
            self.login = Some(Box::new(LoggedIn {
                at: now,
                user: login.user.into(),
                handle: handle_of(id).into(),
                agent: login.agent.into(),
                address: login.address.into(),
            }));
            self.priority = Priority::LoggedIn;
        }
        if save.renewed_ago.is_none() {
            self.renewed = now;
        }
        self.saved_for = nanos(save.idle());
        let end = save.lifetimes.end(self.remember(), self.created.time(), now.time());
        self.expires = end.map_or(Timestamp::NEVER, Timestamp::of);
    }

    fn set_remember(&mut self, limit: Option<Duration>) {
        self.remember = limit.and_then(|limit| NonZeroU64::new(nanos(limit).max(1)));
    }

    pub(super) fn remember(&self) -> Option<Duration> {
        self.remember.map(|nanos| Duration::from_nanos(nanos.get()))
    }

    pub(super) fn login(&self) -> Option<Login> {
        let LoggedIn { at, user, .. } = &**self.login.as_ref()?;
        Some(Login { user: user.to_string(), at: at.time() })
    }

    pub(super) fn user(&self) -> Option<&str> {
        self.login.as_ref().map(|login| &*login.user)
    }

    pub(super) fn handle(&self) -> Option<&str> {
        self.login.as_ref().map(|login| &*login.handle)
    }

    /// The session as its user's list shows it.
    pub(super) fn device(&self, this: Option<&SessionId>) -> Option<Device> {
        let LoggedIn { at, handle, agent, address, .. } = &**self.login.as_ref()?;
        Some(Device {
            handle: handle.to_string(),
            logged_in: at.time(),
            last_seen: self.renewed.time(),
            agent: agent.to_string(),
            address: address.to_string(),
            is_this: this == Some(&self.id),
        })
    }

    /// Whether the request that saved it last took it to have this idle limit.
    pub(super) fn was_saved_for(&self, idle: Duration) -> bool {
        self.saved_for == nanos(idle)
    }

    pub(super) fn has_ended(&self, now: Timestamp) -> bool {
        self.expires <= now
    }

    /// Whether it is over by an absolute limit that may have been shortened since it was last saved.
    pub(super) fn is_past_absolute(&self, lifetimes: &Lifetimes, now: Timestamp) -> bool {
        lifetimes.absolute_end(self.created.time()).is_some_and(|end| Timestamp::of(end) <= now)
    }
}
