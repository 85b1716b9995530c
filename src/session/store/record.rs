//! What a store is asked for, and what it holds of one session.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::fields::Fields;
use crate::session::id::SessionId;

/// How long a session lives. The store's clock decides, never the cookie's.
///
/// ```
/// use bottle_session::Lifetimes;
/// use std::time::{Duration, SystemTime};
///
/// let lifetimes = Lifetimes { idle: Duration::from_secs(600), absolute: Some(Duration::from_secs(3600)) };
/// // A tenth longer than promised.
/// assert_eq!(lifetimes.kept_for(None), Duration::from_secs(660));
/// let created = SystemTime::now();
/// assert_eq!(lifetimes.absolute_end(created), Some(created + Duration::from_secs(3600)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// The idle limit: every save starts it anew. A session that is [remembered](crate::Session::remember) has its
    /// own, which goes before this one.
    pub idle: Duration,
    /// The absolute limit, counted from the session's creation; a new id does not start it anew.
    pub absolute: Option<Duration>,
}

impl Lifetimes {
    /// How long a record is kept that is saved now and never again: the idle limit, or the session's own one, and a
    /// tenth more. A read starts the idle limit anew only once a tenth of it has passed, and must not log anybody out
    /// early.
    pub fn kept_for(&self, remember: Option<Duration>) -> Duration {
        let idle = remember.unwrap_or(self.idle);
        idle.saturating_add(idle / 10)
    }

    /// When the absolute limit ends a session that was created then.
    pub fn absolute_end(&self, created: SystemTime) -> Option<SystemTime> {
        created.checked_add(self.absolute?)
    }

    /// When a record ends that is saved then and never again; `None` where that is past what a `SystemTime` can say.
    pub fn end(
        &self,
        remember: Option<Duration>,
        created: SystemTime,
        saved: SystemTime,
    ) -> Option<SystemTime> {
        let idle = saved.checked_add(self.kept_for(remember));
        idle.into_iter().chain(self.absolute_end(created)).min()
    }
}

/// A wish to load one session.
#[derive(Clone, Debug)]
pub struct Load<'a> {
    /// Whose session.
    pub id: &'a SessionId,
    /// How long it lives.
    pub lifetimes: Lifetimes,
}

/// What a store finds under an id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Loaded {
    /// A session.
    Session(Record),
    /// Nothing: there never was a session, or it ended more than a minute ago, or expired.
    #[default]
    Unknown,
    /// A session was ended, or moved away from this id, less than a minute ago. Only a store that
    /// [keeps tombstones](crate::SessionStore::keeps_tombstones) tells that from `Unknown`.
    Ended,
    /// A session has moved away from this id [with a grace period](crate::OldId::InGrace), and this is the text that was left for
    /// whoever holds the id. The session may have ended since.
    InGrace(String),
    /// The same, and the grace period [is about to end](crate::Action::EndGrace).
    GraceEnding(String),
    /// The same, and the grace period is over: whoever comes with it has, perhaps, a copied cookie.
    PastGrace {
        /// The text.
        left: String,
        /// For how long it has been over.
        since: Duration,
    },
}

impl Loaded {
    /// What was left for whoever holds an id that has, or had, a grace period.
    pub(crate) fn left(&self) -> Option<&str> {
        match self {
            Loaded::InGrace(left) | Loaded::GraceEnding(left) | Loaded::PastGrace { left, .. } => {
                Some(left)
            }
            Loaded::Session(_) | Loaded::Unknown | Loaded::Ended => None,
        }
    }

    /// The session, if there is one.
    pub fn session(self) -> Option<Record> {
        match self {
            Loaded::Session(record) => Some(record),
            _ => None,
        }
    }
}

/// For stores that keep no tombstones.
impl From<Option<Record>> for Loaded {
    fn from(record: Option<Record>) -> Loaded {
        record.map_or(Loaded::Unknown, Loaded::Session)
    }
}

/// What a store holds of one session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The user's fields.
    pub fields: Fields,
    /// When the session was created, by the store's clock; `None` where the layout does not say.
    pub created: Option<SystemTime>,
    /// How long ago the idle limit last began anew together with the cookie, by the store's clock: that is when the
    /// session was created or moved, or last saved without a [`Save::renewed_ago`](crate::Save::renewed_ago). Once it is a tenth of the limit, the
    /// end of the request saves the session so and sends the cookie. `None` where the layout does not say; then each load
    /// starts the idle limit anew, and each answer sends the cookie.
    pub renewed_ago: Option<Duration>,
    /// The session's own idle limit, set by [`Session::remember`](crate::Session::remember).
    pub remember: Option<Duration>,
    /// Who is logged in.
    pub login: Option<Login>,
}

/// Who is logged in in a session, set by [`Session::log_in`](crate::Session::log_in).
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The app's own name for the user.
    pub user: String,
    /// Since when, by the store's clock.
    pub at: SystemTime,
}

/// Does not show who.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("at", &self.at).finish_non_exhaustive()
    }
}
