//! The contract between sessions and what keeps them.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use crate::session::id::{IdFormat, SessionId};
use crate::{Error, ErrorKind, Result};

/// How long a session lives. The store's clock decides, never the cookie's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// The idle limit: every load or save starts it anew. A session that is
    /// [remembered](crate::Session::remember) has its own, which goes before this one.
    pub idle: Duration,
    /// The absolute limit, counted from the session's creation; a new id does not start it anew.
    pub absolute: Option<Duration>,
}

/// A wish to load one session.
#[derive(Clone, Debug)]
pub struct Load<'a> {
    /// Whose session.
    pub id: &'a SessionId,
    /// How long it lives from now on.
    pub lifetimes: Lifetimes,
}

/// What a store holds of one session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The user's fields, in no particular order, each key once.
    pub fields: Vec<(String, String)>,
    /// When the session was created, by the store's clock; `None` where the layout does not say.
    pub created: Option<SystemTime>,
    /// How long ago the session was last saved, by the store's clock; `None` where the layout does not
    /// say. The cookie was last sent then.
    pub saved_ago: Option<Duration>,
    /// The session's own idle limit, set by [`Session::remember`](crate::Session::remember).
    pub remember: Option<Duration>,
}

/// A wish to save one session: only what changed.
#[derive(Clone, Debug)]
pub struct Save<'a> {
    /// Whose session: the id it was loaded or created under.
    pub id: &'a SessionId,
    /// What is to happen to it.
    pub action: Action<'a>,
    /// The fields that changed.
    pub changes: &'a Changes,
    /// How long it lives from now on.
    pub lifetimes: Lifetimes,
    /// A change of the session's own idle limit; `None` leaves it as it is.
    pub remember: Option<Duration>,
}

/// What a save does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action<'a> {
    /// The session is new. A record that is already there is never overwritten: that is an error, except
    /// that a repetition of the same creation may answer [`Saved::Stored`] again.
    Create,
    /// The session was loaded. If it is not there any more, nothing is written. Without changes this
    /// says no more than that the session was saved just now.
    Update,
    /// The session moves to this new id, with its data, the changes and its creation time, in one atomic
    /// step; the old id is dead at once. If the old one is not there any more, nothing is written, except
    /// that a repetition of the same move answers [`Saved::Stored`] again. A record that is already there
    /// under the new id is never overwritten: while the old one is there too, that is an error.
    Rotate {
        /// The new id: a fresh one, so that a record under it proves that the move happened.
        to: &'a SessionId,
    },
    /// The session ends, whether or not it is still there; `changes` are empty.
    Destroy,
}

/// The fields that changed since the load.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// All fields that the store holds go first.
    pub cleared: bool,
    /// Each changed field: its new value, or `None` where it was removed.
    pub fields: BTreeMap<String, Option<String>>,
}

impl Changes {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        !self.cleared && self.fields.is_empty()
    }
}

/// How a save ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saved {
    /// Written, and as durable as the store makes it.
    Stored,
    /// The session was destroyed, moved or expired since it was loaded: nothing was written.
    Gone,
}

/// Hears when a store stops answering, and why, and when it answers again.
pub type BreakerObserver = Box<dyn Fn(Option<&Error>) + Send + Sync>;

/// Hears of a record that is no session, and why.
pub type DamageObserver = Box<dyn Fn(&Error) + Send + Sync>;

/// What keeps sessions. [`MemoryStore`](crate::MemoryStore) and [`RedisStore`](crate::RedisStore) are
/// two; a third needs only the required methods.
///
/// # Contract
///
/// - An unknown, expired or damaged session is no session: `load` answers `Ok(None)`. An error means that
///   the store itself failed: [`Unavailable`](crate::ErrorKind::Unavailable) where another try later can
///   help (the client gets a 503), any other kind where it cannot (a 500).
/// - A load and a save start the idle limit anew. Neither goes past the absolute one, after which the
///   session is unknown.
/// - A save writes the changed fields and no others: two saves of different fields both survive.
/// - Keys and values are any text, except that no key begins with NUL: stores may keep their own fields there.
/// - A save, and each of the three operations, is one atomic step. A save never brings back what is gone.
/// - `Ok` means stored.
/// - The methods on slices answer in the order of the slice, one answer for each; one session's error
///   concerns no other.
pub trait SessionStore: Send + Sync + 'static {
    /// Loads one session and starts its idle limit anew.
    fn load(&self, load: &Load<'_>) -> Result<Option<Record>>;

    /// Saves one session.
    fn save(&self, save: &Save<'_>) -> Result<Saved>;

    /// Adds to a number and returns the sum; a missing field counts as 0. A field that is no integer, or
    /// a sum that does not fit, is an error of kind [`Session`](crate::ErrorKind::Session); a session that is not there is one
    /// of kind [`Gone`](crate::ErrorKind::Gone).
    fn increment(&self, load: &Load<'_>, key: &str, by: i64) -> Result<i64>;

    /// Removes these fields and returns what they held. Of several takers exactly one gets a value. A
    /// session that is not there is an error of kind [`Gone`](crate::ErrorKind::Gone).
    fn take(&self, load: &Load<'_>, keys: &[&str]) -> Result<Vec<Option<String>>>;

    /// Sets the field unless it is there, and tells whether it did. A session that is not there is an
    /// error of kind [`Gone`](crate::ErrorKind::Gone).
    fn set_if_absent(&self, load: &Load<'_>, key: &str, value: &str) -> Result<bool>;

    /// Loads many sessions, in one round trip where the store can.
    fn load_many(&self, batch: &[Load<'_>]) -> Vec<Result<Option<Record>>> {
        batch.iter().map(|load| self.load(load)).collect()
    }

    /// Saves many sessions, in one round trip where the store can.
    fn save_many(&self, batch: &[Save<'_>]) -> Vec<Result<Saved>> {
        batch.iter().map(|save| self.save(save)).collect()
    }

    /// Which ids the store's sessions have.
    fn id_format(&self) -> IdFormat {
        IdFormat::default()
    }

    /// Which ids the store also finds, besides those of [`id_format`](SessionStore::id_format), because it
    /// takes over the sessions of an older layout; new ids are never made in this format.
    fn former_id_format(&self) -> Option<IdFormat> {
        None
    }

    /// Whether a session can [move](Action::Rotate) from one of these ids to the other; where not, another
    /// fresh id is tried. In a cluster, both must be in one place for that to be one atomic step.
    fn can_move(&self, from: &SessionId, to: &SessionId) -> bool {
        let _ = (from, to);
        true
    }

    /// Has the observer called whenever the store stops answering, with the reason, and when it answers
    /// again. A store that has no notion of that never calls it.
    fn on_breaker(&self, observer: BreakerObserver) {
        let _ = observer;
    }

    /// Has the observer called whenever a load finds a record that is damaged, or larger than the store's caps, and
    /// so no session. A store that keeps its records to itself never calls it.
    fn on_damage(&self, observer: DamageObserver) {
        let _ = observer;
    }

    /// Whether a session without fields stays a session. Where it does not, the store lets go of it with
    /// its last field.
    fn keeps_empty(&self) -> bool {
        true
    }

    /// Refuses settings that this store cannot honour, when the plugin is installed.
    fn check(&self, lifetimes: &Lifetimes) -> Result<()> {
        let _ = lifetimes;
        Ok(())
    }
}

/// How much one session may hold. Enforced where a session is saved, so that concurrent saves cannot pass
/// it together, and again where one is loaded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caps {
    /// How many fields.
    pub(crate) fields: usize,
    /// How many bytes all keys and values have together.
    pub(crate) bytes: usize,
}

impl Default for Caps {
    fn default() -> Caps {
        Caps { fields: 256, bytes: 64 * 1024 }
    }
}

impl Caps {
    /// Refuses a session of this size.
    pub(crate) fn check(&self, fields: usize, bytes: usize) -> Result<()> {
        if fields > self.fields || bytes > self.bytes {
            return Err(self.exceeded());
        }
        Ok(())
    }

    pub(crate) fn exceeded(&self) -> Error {
        let Caps { fields, bytes } = self;
        Error::new(
            ErrorKind::Session,
            format!(
                "the session would grow past its caps of {fields} fields and {bytes} bytes, nothing \
                 was written; store less, or raise the caps of the store"
            ),
        )
    }
}

/// The error of a creation or a move onto a record that is already there.
pub(crate) fn id_taken() -> Error {
    Error::new(
        ErrorKind::Redis,
        "the store already holds a record under the new session's id, nothing was written",
    )
}

/// The error of an operation on a session that is not there.
pub(crate) fn gone() -> Error {
    Error::new(
        ErrorKind::Gone,
        "the session was destroyed, renewed or expired while it was in use, nothing was written",
    )
}

/// The error of adding to a field that holds something else, or past the range.
pub(crate) fn not_a_number(key: &str) -> Error {
    Error::new(
        ErrorKind::Session,
        format!(
            "session field {key:?} cannot be added to: it is no 64-bit integer, or the sum is none"
        ),
    )
}
