//! The contract between sessions and what keeps them.

use std::sync::Arc;

use super::caps::Caps;
use super::devices::{Device, EndDevices, no_index};
use super::record::{Lifetimes, Load, Loaded};
use super::save::{Save, Saved};
use crate::pipeline::operation::{Answer, Operation, Progress, Remote, Round};
use crate::session::id::{IdFormat, SessionId};
use crate::{Error, ErrorKind, Result};

/// Hears when a store stops answering, and why, and when it answers again.
pub type BreakerObserver = Box<dyn Fn(Option<&Error>) + Send + Sync>;

/// Hears of a record that is no session, and why.
pub type DamageObserver = Box<dyn Fn(&Error) + Send + Sync>;

/// What keeps sessions. [`MemoryStore`](crate::MemoryStore) and [`RedisStore`](crate::RedisStore) are
/// two; a third needs only the required methods, and these may simply block.
///
/// # Contract
///
/// - An unknown, expired or damaged session is no session: `load` answers [`Loaded::Unknown`]. An error means that
///   the store itself failed: [`Unavailable`](crate::ErrorKind::Unavailable) where another try later can
///   help (the client gets a 503), any other kind where it cannot (a 500).
/// - A save starts the idle limit anew; a load and the operations on single fields leave it as it is, and a record lives a tenth
///   [longer](Lifetimes::kept_for) than it says. Only in a store that cannot say
///   [when that was](crate::Record::renewed_ago) a load starts the idle limit anew.
/// - Nothing goes past the absolute limit, after which the session is unknown.
/// - A save writes the changed fields and no others: two saves of different fields both survive.
/// - Keys and values are any text, except that no key begins with NUL: stores may keep their own fields there.
/// - A save, and each of the operations on single fields, is one atomic step. A save never brings back what is gone, nor does a load
///   or a save that ended with an error.
/// - `Ok` means stored.
/// - A store that keeps tombstones answers [`Loaded::Ended`] for the id of a session that was ended, or moved away, less than a
///   minute ago, by its own clock. A [`Destroy`](crate::Action::Destroy) of an id that a session has moved away from less than a
///   minute ago ends the session where it is now, over any number of moves, unless one of them was to
///   [leave no trace](crate::OldId::Unlinked); where it cannot know, that is an error.
/// - A store that keeps logins lists a user's live sessions, and once it has ended them, none that was logged in before is
///   ever loaded again.
/// - The methods on slices answer in the order of the slice, one answer for each; one session's error
///   concerns no other.
///
/// ```
/// use bottle_session::{MemoryStore, SessionPlugin, SessionStore};
/// use std::sync::Arc;
///
/// // One store for two plugins, or for a plugin and the app's own code.
/// let store: Arc<dyn SessionStore> = Arc::new(MemoryStore::new().capacity(10_000));
/// let plugin = SessionPlugin::new().store(store.clone());
/// # let _ = (plugin, store);
/// ```
pub trait SessionStore: Send + Sync + 'static {
    /// Loads one session.
    fn load(&self, load: &Load<'_>) -> Result<Loaded>;

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

    /// Sets these fields, of which there is one at least, if the field `key`, which may be one of them, holds exactly the text `held`, or is not there where
    /// that is `None`, and tells whether it did: all of it in one atomic step. Like the other operations it leaves the idle
    /// limit as it is, and a session that is not there is an error of kind [`Gone`](crate::ErrorKind::Gone).
    ///
    /// Sealed sessions need it, and nothing else does. The error of a store that
    /// [cannot do it](SessionStore::can_compare_and_set) is of kind [`Config`](crate::ErrorKind::Config).
    fn compare_and_set(
        &self,
        load: &Load<'_>,
        key: &str,
        held: Option<&str>,
        fields: &[(&str, &str)],
    ) -> Result<bool> {
        let _ = (load, key, held, fields);
        Err(cannot_compare_and_set())
    }

    /// Whether the store can [compare and set](SessionStore::compare_and_set). Where it cannot, which is so unless a store
    /// says otherwise, `SessionPlugin::sealed` is refused at install.
    fn can_compare_and_set(&self) -> bool {
        false
    }

    /// Loads many sessions, in one round trip where the store can.
    fn load_many(&self, batch: &[Load<'_>]) -> Vec<Result<Loaded>> {
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

    /// Whether loads, of a store that [may block](SessionStore::may_block), hardly ever do, as those from a file that the
    /// system has in memory. False unless a store says otherwise. The native server then has them run on its event loops,
    /// and on other threads for a second after one did block; see
    /// [`Plugin::acquire_rarely_blocks`](crate::Plugin::acquire_rarely_blocks).
    fn loads_rarely_block(&self) -> bool {
        false
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

    /// Whether a session can [move](crate::Action::Rotate) from one of these ids to the other; where not, another
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

    /// Whether the store keeps [who is logged in](crate::Record::login), and which sessions each user has. Where it does not, which
    /// is so unless a store says otherwise, [`Session::log_in`](crate::Session::log_in) is an error, and options that need
    /// it are refused at install.
    fn keeps_logins(&self) -> bool {
        false
    }

    /// Whether the store keeps [tombstones](Loaded::Ended) and ids in their [grace period](crate::OldId::InGrace). Where it does
    /// not, which is so unless a store says otherwise, a request that comes with the id of a session that has just ended gets a new
    /// session, and [`renew_every`](crate::SessionPlugin::renew_every) is refused at install.
    fn keeps_tombstones(&self) -> bool {
        false
    }

    /// The live sessions in which this user is logged in, the latest login first, and which of them is the one with this
    /// id. Nothing of it is kept: what ends meanwhile may be in it.
    ///
    /// The error of a store that [keeps no logins](SessionStore::keeps_logins) is of kind
    /// [`Config`](crate::ErrorKind::Config).
    fn devices(&self, user: &str, this: Option<&SessionId>) -> Result<Vec<Device>> {
        let _ = (user, this);
        Err(no_index())
    }

    /// Ends sessions in which this user is logged in, and says how many were there.
    ///
    /// Once it has returned, none of those that it was to end is ever loaded again, also where a login or a move of one was
    /// under way: such a save answers [`Saved::Gone`] or an error. After an error, or where the process died, some may be
    /// left, and the same call once more ends them. This is for admin tools and password resets as well, outside of any
    /// request:
    ///
    /// ```
    /// use bottle_session::{EndDevices, MemoryStore, SessionStore};
    ///
    /// let store = MemoryStore::new();
    /// assert_eq!(store.end_devices("ada", EndDevices::All)?, 0);
    /// # Ok::<(), bottle_session::Error>(())
    /// ```
    fn end_devices(&self, user: &str, which: EndDevices<'_>) -> Result<usize> {
        let _ = (user, which);
        Err(no_index())
    }

    /// Refuses settings that this store cannot honour, when the plugin is installed.
    fn check(&self, lifetimes: &Lifetimes) -> Result<()> {
        let _ = lifetimes;
        Ok(())
    }
}

/// A store that several plugins, or a plugin and the app's own code, share.
impl<S: SessionStore + ?Sized> SessionStore for Arc<S> {
    fn load(&self, load: &Load<'_>) -> Result<Loaded> {
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

    fn compare_and_set(
        &self,
        load: &Load<'_>,
        key: &str,
        held: Option<&str>,
        fields: &[(&str, &str)],
    ) -> Result<bool> {
        (**self).compare_and_set(load, key, held, fields)
    }

    fn can_compare_and_set(&self) -> bool {
        (**self).can_compare_and_set()
    }

    fn load_many(&self, batch: &[Load<'_>]) -> Vec<Result<Loaded>> {
        (**self).load_many(batch)
    }

    fn save_many(&self, batch: &[Save<'_>]) -> Vec<Result<Saved>> {
        (**self).save_many(batch)
    }

    fn may_block(&self) -> bool {
        (**self).may_block()
    }

    fn loads_rarely_block(&self) -> bool {
        (**self).loads_rarely_block()
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

    fn keeps_tombstones(&self) -> bool {
        (**self).keeps_tombstones()
    }

    fn devices(&self, user: &str, this: Option<&SessionId>) -> Result<Vec<Device>> {
        (**self).devices(user, this)
    }

    fn end_devices(&self, user: &str, which: EndDevices<'_>) -> Result<usize> {
        (**self).end_devices(user, which)
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
    fn load_operation(&self, batch: &[Load<'_>]) -> Box<dyn StoreOperation<Result<Loaded>>>;

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

/// The error of a store that cannot compare and set.
pub(crate) fn cannot_compare_and_set() -> Error {
    Error::new(
        ErrorKind::Config,
        "the session store cannot compare and set, which sealed sessions need; take MemoryStore, SqliteStore, or \
         RedisStore in its default layout",
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
