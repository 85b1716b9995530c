//! The contract between sessions and what keeps them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::fields::Fields;
use crate::pipeline::operation::{Answer, Operation, Progress, Remote, Round};
use crate::session::id::{IdFormat, SessionId};
use crate::{Error, ErrorKind, Result};

/// How long a session lives. The store's clock decides, never the cookie's.
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

/// What a store holds of one session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The user's fields.
    pub fields: Fields,
    /// When the session was created, by the store's clock; `None` where the layout does not say.
    pub created: Option<SystemTime>,
    /// How long ago the idle limit last began anew together with the cookie, by the store's clock: that is when the
    /// session was created or moved, or last saved without a [`Save::renewed_ago`]. Once it is a tenth of the limit, the
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
    /// Where the answer does not send the cookie: how long ago [that was](Record::renewed_ago), which the record is to
    /// say from now on as well. A save starts the record's life anew all the same.
    pub renewed_ago: Option<Duration>,
    /// The user who logs in, with a creation or a move. Where the session that is to move is not there any more, one is
    /// created under the new id, of this and the changes alone.
    pub login: Option<&'a str>,
    /// When the session was created, if the caller has it from a [`Record`]: for stores that would have to look.
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
        let (renewed_ago, login, created) = (None, None, None);
        Save { id, action, changes, lifetimes, remember, renewed_ago, login, created }
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
    /// The session ends, whether or not it is still there; `changes` are empty.
    Destroy,
}

/// The fields that changed since the load.
#[derive(Clone, Default, PartialEq, Eq)]
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
    /// The session was destroyed, moved or expired since it was loaded: nothing was written.
    Gone,
}

/// Hears when a store stops answering, and why, and when it answers again.
pub type BreakerObserver = Box<dyn Fn(Option<&Error>) + Send + Sync>;

/// Hears of a record that is no session, and why.
pub type DamageObserver = Box<dyn Fn(&Error) + Send + Sync>;

/// What keeps sessions. [`MemoryStore`](crate::MemoryStore) and [`RedisStore`](crate::RedisStore) are
/// two; a third needs only the required methods, and these may simply block.
///
/// # Contract
///
/// - An unknown, expired or damaged session is no session: `load` answers `Ok(None)`. An error means that
///   the store itself failed: [`Unavailable`](crate::ErrorKind::Unavailable) where another try later can
///   help (the client gets a 503), any other kind where it cannot (a 500).
/// - A save starts the idle limit anew; a load and the three operations leave it as it is, and a record lives a tenth
///   [longer](Lifetimes::kept_for) than it says. Only in a store that cannot say
///   [when that was](Record::renewed_ago) a load starts the idle limit anew.
/// - Nothing goes past the absolute limit, after which the session is unknown.
/// - A save writes the changed fields and no others: two saves of different fields both survive.
/// - Keys and values are any text, except that no key begins with NUL: stores may keep their own fields there.
/// - A save, and each of the three operations, is one atomic step. A save never brings back what is gone, nor does a load
///   or a save that ended with an error.
/// - `Ok` means stored.
/// - The methods on slices answer in the order of the slice, one answer for each; one session's error
///   concerns no other.
pub trait SessionStore: Send + Sync + 'static {
    /// Loads one session.
    fn load(&self, load: &Load<'_>) -> Result<Option<Record>>;

    /// Saves one session.
    fn save(&self, save: &Save<'_>) -> Result<Saved>;

    /// Adds to a number and returns the sum; a missing field counts as 0. A number is what an increment writes: decimal
    /// digits, behind a `-` where it is negative; `+1`, `01`, `-0` and ` 1` are none. A field that is no number, or a sum
    /// outside of `i64`, is an error of kind [`Session`](crate::ErrorKind::Session) whose text quotes the key, and the
    /// field stays as it is; a session that is not there is one of kind [`Gone`](crate::ErrorKind::Gone).
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

    /// Whether loads or saves may block: wait for a network, a disk, or a lock that is held for long. True unless a
    /// store says otherwise. The native server then calls them on threads that may block; else on its event loops,
    /// which is cheaper.
    fn may_block(&self) -> bool {
        true
    }

    /// The store as one whose loads and saves are [operations](Operation) at a remote service, for which no thread
    /// has to wait. A store that has this is asked by it, and not through [`load`](SessionStore::load) and
    /// [`save`](SessionStore::save), for what a request needs before and after its handler.
    fn pipelined(&self) -> Option<&dyn PipelinedStore> {
        None
    }

    /// How much one session may hold. What would go past it is refused where it is set, by what the request has
    /// loaded; so two requests together may go past it, which the store has to bear with.
    fn caps(&self) -> Caps {
        Caps { fields: usize::MAX, bytes: usize::MAX }
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

    /// Has the observer called whenever a load finds a record that is damaged, or far larger than the store's caps, and
    /// so no session, or a field that is not text. A store that keeps its records to itself never calls it.
    fn on_damage(&self, observer: DamageObserver) {
        let _ = observer;
    }

    /// Whether a session without fields stays a session. Where it does not, the store lets go of it with
    /// its last field.
    fn keeps_empty(&self) -> bool {
        true
    }

    /// Whether the store keeps [who is logged in](Record::login). [`Session::log_in`](crate::Session::log_in) is an
    /// error where it does not, which is so unless a store says otherwise.
    fn keeps_logins(&self) -> bool {
        false
    }

    /// Refuses settings that this store cannot honour, when the plugin is installed.
    fn check(&self, lifetimes: &Lifetimes) -> Result<()> {
        let _ = lifetimes;
        Ok(())
    }
}

/// A store that several plugins, or a plugin and the app's own code, share.
impl<S: SessionStore + ?Sized> SessionStore for Arc<S> {
    fn load(&self, load: &Load<'_>) -> Result<Option<Record>> {
        (**self).load(load)
    }

    fn save(&self, save: &Save<'_>) -> Result<Saved> {
        (**self).save(save)
    }

    fn increment(&self, load: &Load<'_>, key: &str, by: i64) -> Result<i64> {
        (**self).increment(load, key, by)
    }

    fn take(&self, load: &Load<'_>, keys: &[&str]) -> Result<Vec<Option<String>>> {
        (**self).take(load, keys)
    }

    fn set_if_absent(&self, load: &Load<'_>, key: &str, value: &str) -> Result<bool> {
        (**self).set_if_absent(load, key, value)
    }

    fn load_many(&self, batch: &[Load<'_>]) -> Vec<Result<Option<Record>>> {
        (**self).load_many(batch)
    }

    fn save_many(&self, batch: &[Save<'_>]) -> Vec<Result<Saved>> {
        (**self).save_many(batch)
    }

    fn may_block(&self) -> bool {
        (**self).may_block()
    }

    fn pipelined(&self) -> Option<&dyn PipelinedStore> {
        (**self).pipelined()
    }

    fn caps(&self) -> Caps {
        (**self).caps()
    }

    fn id_format(&self) -> IdFormat {
        (**self).id_format()
    }

    fn former_id_format(&self) -> Option<IdFormat> {
        (**self).former_id_format()
    }

    fn can_move(&self, from: &SessionId, to: &SessionId) -> bool {
        (**self).can_move(from, to)
    }

    fn on_breaker(&self, observer: BreakerObserver) {
        (**self).on_breaker(observer);
    }

    fn on_damage(&self, observer: DamageObserver) {
        (**self).on_damage(observer);
    }

    fn keeps_empty(&self) -> bool {
        (**self).keeps_empty()
    }

    fn keeps_logins(&self) -> bool {
        (**self).keeps_logins()
    }

    fn check(&self, lifetimes: &Lifetimes) -> Result<()> {
        (**self).check(lifetimes)
    }
}

/// A store whose loads and saves are [operations](Operation) at a remote service.
///
/// The native server's event loops send them over a connection of their own, many in one pipeline, and take the
/// requests further when the replies are there; others [run](Remote::run) them and wait.
pub trait PipelinedStore {
    /// Where the operations are carried out.
    fn remote(&self) -> &Remote;

    /// Where saves are carried out: the same place, unless they go over connections of their own.
    fn write_remote(&self) -> &Remote {
        self.remote()
    }

    /// Loads these sessions, which are the cookies of one request. It ends with one answer for each, in this order.
    fn load_operation(&self, batch: &[Load<'_>])
    -> Box<dyn StoreOperation<Result<Option<Record>>>>;

    /// Saves these sessions, which are those of one request, in this order. It ends with one answer for each.
    fn save_operation(&self, batch: &[Save<'_>]) -> Box<dyn StoreOperation<Result<Saved>>>;
}

/// An operation at a store, and the answers that it ends with.
pub trait StoreOperation<T>: Operation {
    /// The answers, once it is over.
    fn into_answers(self: Box<Self>) -> Vec<T>;
}

impl<T: 'static> Operation for Box<dyn StoreOperation<T>> {
    fn request(&mut self, round: &mut Round<'_>) {
        (**self).request(round);
    }

    fn answer(&mut self, answer: Answer<'_>) -> Progress {
        (**self).answer(answer)
    }

    fn fail(&mut self, error: Error) {
        (**self).fail(error);
    }
}

/// How much one session may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// How many fields.
    pub fields: usize,
    /// How many bytes all keys and values have together.
    pub bytes: usize,
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

    /// What both allow.
    pub(crate) fn and(&self, other: Caps) -> Caps {
        let (fields, bytes) = (self.fields.min(other.fields), self.bytes.min(other.bytes));
        Caps { fields, bytes }
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
    save.login = Some("secret");
    let shown = format!("{record:?} {changes:?} {save:?}");
    assert!(!shown.contains("secret") && !shown.contains("AAAA"), "{shown}");
    for name in ["card", "set: [\"set\"]", "removed: [\"removed\"]", "SessionId(#"] {
        assert!(shown.contains(name), "{name}: {shown}");
    }
}
