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

/// What is lost with a session, least first: a full store lets go of these in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Worth {
    /// A CSRF token or flashes and nothing else: what a visitor gets with the first form, and a bot with each request.
    Incidental,
    /// What somebody has left who has not logged in.
    Anonymous,
    LoggedIn,
}

impl Worth {
    pub(super) const ALL: [Worth; 3] = [Worth::Incidental, Worth::Anonymous, Worth::LoggedIn];

    fn of(fields: &Fields, logged_in: bool) -> Worth {
        match hold_nothing_private(fields) {
            _ if logged_in => Worth::LoggedIn,
            true => Worth::Incidental,
            false => Worth::Anonymous,
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
    pub(super) worth: Worth,
    /// Its place in the queue of its worth.
    pub(super) place: u32,
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
            worth: Worth::of(fields, save.login.is_some()),
            place: 0,
        };
        stored.set_remember(save.remember.limit());
        stored.saved(save, now);
        stored
    }

    pub(super) fn set_fields(&mut self, fields: &Fields) {
        (self.fields, self.worth) = (fields.pack(), Worth::of(fields, self.login.is_some()));
    }

    /// Takes note of a save, but for its changes.
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
            self.worth = Worth::LoggedIn;
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
