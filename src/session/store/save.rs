//! What a store is to write: an action, and the fields that changed.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use super::devices::LogIn;
use super::record::Lifetimes;
use crate::session::id::SessionId;

/// A wish to save one session: only what changed.
#[derive(Clone)]
pub struct Save<'a> {
    /// Whose session: the id it was loaded or created under.
    pub id: &'a SessionId,
    /// What is to happen to it.
    pub action: Action<'a>,
    /// The fields that changed.
    pub changes: &'a Changes,
    /// How long it lives from now on.
    pub lifetimes: Lifetimes,
    /// The session's own idle limit.
    pub remember: Remember,
    /// Where the answer does not send the cookie: how long ago [that was](crate::Record::renewed_ago), which the record is to
    /// say from now on as well. A save starts the record's life anew all the same.
    pub renewed_ago: Option<Duration>,
    /// The user who logs in, with a creation or a move. Where the session that is to move is not there any more, one is
    /// created under the new id, of this and the changes alone; but for an id that has, or had, a
    /// [grace period](OldId::InGrace): then nothing is written, as the caller can go on under the next one.
    pub login: Option<LogIn<'a>>,
    /// Who is logged in already, as the caller has it from a [`Record`](crate::Record). A store whose index of users is
    /// elsewhere than its records goes by it.
    pub user: Option<&'a str>,
    /// What becomes of the id that a [move](Action::Rotate) is from.
    pub old_id: OldId<'a>,
    /// When the session was created, if the caller has it from a [`Record`](crate::Record): for stores that would have to look.
    pub created: Option<SystemTime>,
}

impl<'a> Save<'a> {
    /// A save that leaves the session's own idle limit as it is, and says no more than what is necessary.
    pub fn new(
        id: &'a SessionId,
        action: Action<'a>,
        changes: &'a Changes,
        lifetimes: Lifetimes,
    ) -> Save<'a> {
        let remember = Remember::Same(None);
        let (renewed_ago, login, user, created) = (None, None, None, None);
        let old_id = OldId::default();
        Save { id, action, changes, lifetimes, remember, renewed_ago, login, user, old_id, created }
    }

    /// The idle limit that the request takes the session to have, once this is saved.
    pub(crate) fn idle(&self) -> Duration {
        self.remember.limit().unwrap_or(self.lifetimes.idle)
    }
}

/// Shows which fields change, and neither a value nor who logs in.
impl fmt::Debug for Save<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Save")
            .field("id", &self.id)
            .field("action", &self.action)
            .field("changes", &self.changes)
            .field("lifetimes", &self.lifetimes)
            .field("remember", &self.remember)
            .field("renewed_ago", &self.renewed_ago)
            .field("logs_in", &self.login.is_some())
            .field("old_id", &self.old_id)
            .field("created", &self.created)
            .finish()
    }
}

/// The idle limit of a session's own, which [`Session::remember`](crate::Session::remember) sets; without one it is
/// [`Lifetimes::idle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remember {
    /// It stays as the store has it. This is what the request has loaded.
    Same(Option<Duration>),
    /// It becomes this one, or there is none any more.
    To(Option<Duration>),
}

impl Remember {
    /// What the session has, as far as the request knows, once it is saved.
    pub fn limit(self) -> Option<Duration> {
        let (Remember::Same(limit) | Remember::To(limit)) = self;
        limit
    }
}

impl Default for Remember {
    fn default() -> Remember {
        Remember::Same(None)
    }
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
    /// step; the old id is dead at once. If the old one is not there any more, nothing is written, unless somebody
    /// [logs in](Save::login), and except that a repetition of the same move answers [`Saved::Stored`] again. A record that is already there
    /// under the new id is never overwritten: while the old one is there too, that is an error.
    Rotate {
        /// The new id: a fresh one, so that a record under it proves that the move happened.
        to: &'a SessionId,
    },
    /// The session ends; `changes` are empty. [`Saved::Gone`] says that there was none to end, neither under this id nor where it
    /// [leads](OldId::Linked).
    Destroy,
    /// The id, which a session has moved away from [with a grace period](OldId::InGrace), goes on being one of its ids for as long
    /// as [`lifetimes`](Save::lifetimes) and [`remember`](Save::remember) say that the session lives; `changes` are empty.
    ExtendGrace,
    /// The id's [grace period](OldId::InGrace) is over so long from now, unless it is so earlier; `changes` are empty. From then
    /// on, and for an hour at least, a load of it answers [`Loaded::PastGrace`](crate::Loaded::PastGrace).
    EndGrace(Duration),
}

/// For how long a store knows that a session has ended, or moved away from an id.
pub(crate) const TOMBSTONE_FOR: Duration = Duration::from_secs(60);

/// For how long a store knows that an id had a grace period that is over.
pub(crate) const PAST_GRACE_FOR: Duration = Duration::from_secs(60 * 60);

/// What becomes of the id that a session moves away from, in a store that [keeps tombstones](crate::SessionStore::keeps_tombstones);
/// in another one it is unknown from then on.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum OldId<'a> {
    /// It is dead at once. For a minute a load of it answers [`Loaded::Ended`](crate::Loaded::Ended), and a
    /// [`Destroy`](Action::Destroy) of it ends the session under its new id.
    #[default]
    Linked,
    /// It is dead at once. For a minute a load of it answers [`Loaded::Ended`](crate::Loaded::Ended); a
    /// [`Destroy`](Action::Destroy) of it ends nothing.
    Unlinked,
    /// It has a grace period: until [that ends](Action::EndGrace) a load of it answers this text as
    /// [`Loaded::InGrace`](crate::Loaded::InGrace), and a [`Destroy`](Action::Destroy) of it ends the session under its new id. It
    /// lives as long as the session would that is saved now and never again, unless that is [extended](Action::ExtendGrace).
    ///
    /// The text is the new id, encrypted under a key that is derived from the old one: whoever holds the old id, and nobody
    /// else, can read it.
    InGrace(&'a str),
}

/// Does not show the text.
impl fmt::Debug for OldId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            OldId::Linked => "Linked",
            OldId::Unlinked => "Unlinked",
            OldId::InGrace(_) => "InGrace",
        })
    }
}

/// The fields that changed since the load.
///
/// ```
/// use bottle_session::Changes;
///
/// let mut changes = Changes::default();
/// assert!(changes.is_empty());
/// changes.fields.insert("name".to_owned(), Some("Ada".to_owned())); // set
/// changes.fields.insert("visits".to_owned(), None); // removed
/// // No `Debug` shows a value.
/// assert!(!format!("{changes:?}").contains("Ada"));
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// All fields that the store holds go first, but for those whose keys begin with U+0001, which are the plugin's own.
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

/// Shows which fields change, and no value.
impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |set: bool| -> Vec<&String> {
            let fields = self.fields.iter().filter(|(_, value)| value.is_some() == set);
            fields.map(|(name, _)| name).collect()
        };
        f.debug_struct("Changes")
            .field("cleared", &self.cleared)
            .field("set", &names(true))
            .field("removed", &names(false))
            .finish()
    }
}

/// How a save ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saved {
    /// Written, and as durable as the store makes it.
    Stored,
    /// The session was destroyed, moved or expired since it was loaded: nothing was written. Of a
    /// [`Destroy`](Action::Destroy): there was none.
    Gone,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::id::IdFormat;
    use crate::session::store::{Login, Record};

    #[test]
    fn no_debug_shows_a_value() {
        let id = SessionId::parse(&"A".repeat(43), IdFormat::default()).expect("an id");
        let fields = [("set", Some("secret".to_owned())), ("removed", None)];
        let fields = fields.map(|(key, value)| (key.to_owned(), value));
        let changes = Changes { cleared: false, fields: fields.into() };
        let record = Record {
            fields: [("card", "secret")].into_iter().collect(),
            login: Some(Login { user: "secret".to_owned(), at: SystemTime::UNIX_EPOCH }),
            ..Record::default()
        };
        let lifetimes = Lifetimes { idle: Duration::from_secs(60), absolute: None };
        let mut save = Save::new(&id, Action::Create, &changes, lifetimes);
        save.login = Some(LogIn::new("secret"));
        let shown = format!("{record:?} {changes:?} {save:?}");
        assert!(!shown.contains("secret") && !shown.contains("AAAA"), "{shown}");
        for name in ["card", "set: [\"set\"]", "removed: [\"removed\"]", "SessionId(#"] {
            assert!(shown.contains(name), "{name}: {shown}");
        }
    }
}
