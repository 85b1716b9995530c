//! Sessions in Redis.

mod devices;
mod dump;
mod errors;
mod index;
mod indexed;
mod load;
mod operate;
mod record;
mod save;
mod settings;
mod steps;
#[cfg(test)]
mod tests;
mod tombstone;
mod transaction;

use std::collections::HashSet;
use std::sync::Arc;

use self::devices::{EndStep, ListStep};
use self::errors::{desync, explained, foreign, newer, refused};
use self::indexed::IndexedSave;
use self::load::LoadStep;
use self::operate::{Atomic, Done, OperateStep};
use self::record::Key;
use self::settings::{Damaged, Settings};
use self::steps::{Step, Steps};
use super::devices::{Device, EndDevices, no_index};
use super::{
    Action, BreakerObserver, Caps, DamageObserver, Lifetimes, Load, Loaded, PipelinedStore, Save,
    Saved, SessionStore, StoreOperation, cannot_compare_and_set,
};
use crate::lock::write;
use crate::pipeline::operation::{Operation, Remote};
use crate::redis::{RedisCluster, RedisPool, slot};
use crate::session::id::{IdFormat, SessionId};
use crate::{Error, ErrorKind, Result};

// The scripts: what must look before it writes. They are sent whole, as EVAL, so that Redis need not know them before;
// all but the one that each visitor's first request needs.
const CREATE: &str = include_str!("redis/lua/create.lua");
const COMPARE: &str =
    concat!(include_str!("redis/lua/run.lua"), include_str!("redis/lua/compare.lua"));
const GUARD: &str = concat!(include_str!("redis/lua/run.lua"), include_str!("redis/lua/guard.lua"));
const EMPTY: &str =
    concat!(include_str!("redis/lua/clear.lua"), include_str!("redis/lua/empty.lua"));
const ROTATE: &str = concat!(
    include_str!("redis/lua/run.lua"),
    include_str!("redis/lua/clear.lua"),
    include_str!("redis/lua/tombstone.lua"),
    include_str!("redis/lua/rotate.lua")
);
const DESTROY: &str =
    concat!(include_str!("redis/lua/tombstone.lua"), include_str!("redis/lua/destroy.lua"));
const END: &str =
    concat!(include_str!("redis/lua/tombstone.lua"), include_str!("redis/lua/end.lua"));
const GRACE: &str =
    concat!(include_str!("redis/lua/tombstone.lua"), include_str!("redis/lua/grace.lua"));
const MOVE: &str = include_str!("redis/lua/move.lua");

/// Keeps sessions in Redis: they outlive the process, and all processes share them.
///
/// Loading is one round trip, saving is another, for one session as for a whole batch: plain commands, each save
/// of them a transaction on the session's key, so that it is one atomic step and works on a cluster as well. A logout with an id
/// that the session has just moved away from takes another for each move. Needs Redis 5 or newer, or Valkey.
///
/// ```no_run
/// use bottle_session::{RedisPool, RedisStore};
///
/// let store = RedisStore::new(RedisPool::open("redis://localhost:6379/0")?);
/// # Ok::<(), bottle_session::Error>(())
/// ```
///
/// # What an ACL must allow
///
/// The keys of the [prefix](RedisStore::key_prefix), and these commands, some of which only scripts use:
///
/// ```text
/// ACL SETUSER app on >secret ~bottle.session:* -@all
///     +ping +time +echo +multi +exec
///     +hgetall +hset +hdel +hmget +pexpire +unlink +eval +restore
///     +hget +hkeys +hexists +exists +rename +hincrby +hsetnx +pttl
/// ```
///
/// In a cluster also `asking` and `cluster|slots`, behind Sentinel `role`, with [`replicas`](crate::RedisConfig::replicas)
/// `wait`; a pool that says what it is and looks at the server's settings does
/// so with `client|setname`, `client|setinfo` and `info`, and does without.
#[derive(Debug)]
pub struct RedisStore {
    backend: Backend,
    remote: Remote,
    /// Where a write counts once as many replicas have it as are to.
    write_remote: Remote,
    settings: Arc<Settings>,
}

/// Where the sessions are.
#[derive(Debug)]
enum Backend {
    Pool(RedisPool),
    Cluster(RedisCluster),
}

/// How a session is written in Redis.
///
/// ```
/// use bottle_session::{Layout, SessionPlugin};
///
/// // Live sessions are shared with Python's bottle-session.
/// let shared = SessionPlugin::new().layout(Layout::BottleSession);
/// // Those that Python left behind are taken over.
/// let taken_over = SessionPlugin::new().migrate_from(Layout::BottleSession);
/// # let _ = (shared, taken_over);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Layout {
    /// The key is `bottle.session:` and 168 bits of the id's SHA-256 in base64url, so that whoever reads Redis or a dump of
    /// it can open no session. A hash holds the user's fields and the store's own, whose names begin with NUL: `"\0"`, the
    /// proof that this is a session (version, owner's mark, time of creation), `"\0s"`, when and with which idle limit it was last
    /// saved, `"\0r"`, its own idle limit where it has one, and `"\0u"`, who is logged in and since when. The key of a dead id holds `"\0x"` for a
    /// minute, that of one in its grace period for as long as the session lives, and for an hour longer. A session with one short value takes 152 bytes (`MEMORY USAGE`).
    #[default]
    Default,
    /// What Python's bottle-session 1.0 writes, so that both share live sessions: the key is `session:` and
    /// the id as a UUID with dashes, and the hash holds the user's fields and nothing else.
    ///
    /// There is no place for more, therefore: an absolute limit is refused; a session's own idle limit counts
    /// for the request that sets it and ends with the next one; no owner's mark is checked; nobody can [log in](crate::Session::log_in); the key in Redis
    /// is the id; and a session whose last field is removed is gone: a request that has emptied what it sees, and
    /// saved that at once, goes on in a new session, also where another has added a field meanwhile. Unless the
    /// cookie ends with the browser, each answer sends it, so that one that comes late can put a dead id in place of
    /// a renewed one. Two plugins of one app that use this layout
    /// need a database each, or an id from the cookie of one opens the same session in the other, as in Python.
    BottleSession,
}

impl RedisStore {
    /// A store in the [default layout](Layout::Default) for sessions of at most 256 fields and 64 KiB.
    pub fn new(pool: RedisPool) -> RedisStore {
        let remotes = [pool.remote(), pool.write_remote()];
        RedisStore::over(Backend::Pool(pool), remotes, false)
    }

    /// The same in a cluster.
    ///
    /// In the default layout, two hexadecimal digits of the id's digest stand in braces behind the prefix, so
    /// that an id can be renewed in one atomic step within one of 256 slots. With
    /// [`Layout::BottleSession`], whose keys are fixed, renewing an id tries some ten thousand new ones for
    /// one in the same slot, which takes some milliseconds.
    pub fn on_cluster(cluster: RedisCluster) -> RedisStore {
        let remotes = [cluster.remote(), cluster.write_remote()];
        RedisStore::over(Backend::Cluster(cluster), remotes, true)
    }

    fn over(backend: Backend, [remote, write_remote]: [Remote; 2], in_cluster: bool) -> RedisStore {
        let settings = Settings {
            layout: Layout::Default,
            former: None,
            prefix: None,
            caps: Caps::default(),
            in_cluster,
            damaged: Damaged::default(),
            creates_by_script: Arc::default(),
        };
        RedisStore { backend, remote, write_remote, settings: Arc::new(settings) }
    }

    fn set(mut self, set: impl FnOnce(&mut Settings)) -> RedisStore {
        set(Arc::make_mut(&mut self.settings));
        self
    }

    /// How sessions are written in Redis.
    pub fn layout(self, layout: Layout) -> RedisStore {
        self.set(|settings| settings.layout = layout)
    }

    /// Takes over the live sessions of another layout, for an app that leaves Python's bottle-session.
    ///
    /// A cookie that the new layout does not know is looked for in the old one; a session found there moves
    /// to the new layout in one atomic step and keeps its id, so that no request of this browser, not even one
    /// on its way, loses it. Its creation counts from the move. What cannot be taken over, because it is not text or far
    /// too large, stays where it is and is told as [damaged](crate::Event::Damaged). While Redis refuses to write, sessions are read where they are.
    /// New sessions, and those whose id is renewed,
    /// have ids of the new kind. The way back does not exist: stop the Python processes first, as a session
    /// that moved is unknown to them. Once the longest lifetime has passed, remove this setting.
    ///
    /// Two plugins that take over from one database open each other's former sessions meanwhile, as they did in
    /// Python. Both keys are in one script, which a cluster cannot run.
    pub fn migrate_from(self, former: Layout) -> RedisStore {
        self.set(|settings| settings.former = Some(former))
    }

    /// What the keys in Redis begin with: `bottle.session:`, or `session:` in
    /// [`Layout::BottleSession`], which is fixed in Python's. Stores of two plugins in one Redis need prefixes of
    /// their own, or an id from the cookie of one opens the same session in the other.
    pub fn key_prefix(self, prefix: impl Into<String>) -> RedisStore {
        self.set(|settings| settings.prefix = Some(prefix.into()))
    }

    /// How many fields one session holds at most. A record with more than four times as many is no session.
    pub fn max_fields(self, fields: usize) -> RedisStore {
        self.set(|settings| settings.caps.fields = fields)
    }

    /// How many bytes the keys and values of one session have at most. A record with more than four times as many is no
    /// session.
    pub fn max_bytes(self, bytes: usize) -> RedisStore {
        self.set(|settings| settings.caps.bytes = bytes)
    }

    /// Carries these steps out there and waits.
    fn run<S: Step>(remote: &Remote, steps: impl Iterator<Item = S>) -> Vec<S::Outcome> {
        let mut steps: Vec<Steps<S>> = steps.map(|step| Steps::new([step])).collect();
        let open = steps.iter_mut().filter(|steps| !steps.is_over());
        let mut operations: Vec<_> = open.map(|steps| steps as &mut dyn Operation).collect();
        remote.run(&mut operations);
        steps.into_iter().flat_map(Steps::into_outcomes).collect()
    }

    fn check_index(&self) -> Result<()> {
        if self.keeps_logins() { Ok(()) } else { Err(no_index()) }
    }

    fn operate(&self, load: &Load<'_>, operation: Atomic) -> Result<Done> {
        let step = OperateStep::new(&self.settings, load, operation)?;
        Self::run(&self.write_remote, std::iter::once(step)).pop().unwrap_or_else(|| Err(desync()))
    }
}

impl SessionStore for RedisStore {
    fn load(&self, load: &Load<'_>) -> Result<Loaded> {
        only(self.load_many(std::slice::from_ref(load)))
    }

    fn save(&self, save: &Save<'_>) -> Result<Saved> {
        only(self.save_many(std::slice::from_ref(save)))
    }

    fn increment(&self, load: &Load<'_>, key: &str, by: i64) -> Result<i64> {
        match self.operate(load, Atomic::Increment(key.to_owned(), by))? {
            Done::Number(sum) => Ok(sum),
            _ => Err(desync()),
        }
    }

    fn take(&self, load: &Load<'_>, keys: &[&str]) -> Result<Vec<Option<String>>> {
        let keys = keys.iter().map(|key| (*key).to_owned()).collect();
        match self.operate(load, Atomic::Take(keys))? {
            Done::Values(values) => Ok(values),
            _ => Err(desync()),
        }
    }

    fn set_if_absent(&self, load: &Load<'_>, key: &str, value: &str) -> Result<bool> {
        match self.operate(load, Atomic::SetIfAbsent(key.to_owned(), value.to_owned()))? {
            Done::Number(set) => Ok(set == 1),
            _ => Err(desync()),
        }
    }

    fn compare_and_set(
        &self,
        load: &Load<'_>,
        key: &str,
        held: Option<&str>,
        fields: &[(&str, &str)],
    ) -> Result<bool> {
        if !self.can_compare_and_set() {
            return Err(cannot_compare_and_set());
        }
        let (key, held) = (key.to_owned(), held.map(str::to_owned));
        let fields = fields.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let fields = fields.collect();
        match self.operate(load, Atomic::CompareAndSet { key, held, fields })? {
            Done::Number(set) => Ok(set == 1),
            _ => Err(desync()),
        }
    }

    fn can_compare_and_set(&self) -> bool {
        self.settings.layout == Layout::Default
    }

    fn load_many(&self, batch: &[Load<'_>]) -> Vec<Result<Loaded>> {
        Self::run(&self.remote, batch.iter().map(|load| LoadStep::new(&self.settings, load)))
    }

    fn save_many(&self, batch: &[Save<'_>]) -> Vec<Result<Saved>> {
        // One session more than once: what comes later finds done what came before, also where that took two round
        // trips. Under two ids it counts as two: what else is done to a session that is ended by an old id comes before or after.
        let (mut saved, mut start, mut seen) = (Vec::with_capacity(batch.len()), 0, HashSet::new());
        for end in 0..=batch.len() {
            let ids = batch.get(end).map(|save| match save.action {
                Action::Rotate { to } => [save.id, to],
                _ => [save.id; 2],
            });
            if ids.is_none_or(|ids| ids.iter().any(|id| seen.contains(id))) {
                let part = batch[start..end].iter();
                let steps = part.map(|save| IndexedSave::new(&self.settings, save));
                saved.extend(Self::run(&self.write_remote, steps));
                (start, seen) = (end, HashSet::new());
            }
            seen.extend(ids.into_iter().flatten());
        }
        saved
    }

    fn pipelined(&self) -> Option<&dyn PipelinedStore> {
        Some(self)
    }

    fn caps(&self) -> Caps {
        self.settings.caps
    }

    fn id_format(&self) -> IdFormat {
        id_format(self.settings.layout)
    }

    fn keeps_empty(&self) -> bool {
        self.settings.keeps_empty()
    }

    fn keeps_logins(&self) -> bool {
        self.settings.layout == Layout::Default
    }

    fn keeps_tombstones(&self) -> bool {
        self.settings.layout == Layout::Default
    }

    fn devices(&self, user: &str, this: Option<&SessionId>) -> Result<Vec<Device>> {
        self.check_index()?;
        only(Self::run(&self.remote, std::iter::once(ListStep::new(&self.settings, user, this))))
    }

    fn end_devices(&self, user: &str, which: EndDevices<'_>) -> Result<usize> {
        self.check_index()?;
        let step = EndStep::new(&self.settings, user, which);
        only(Self::run(&self.write_remote, std::iter::once(step)))
    }

    fn former_id_format(&self) -> Option<IdFormat> {
        self.settings.former.map(id_format)
    }

    fn on_breaker(&self, observer: BreakerObserver) {
        match &self.backend {
            Backend::Pool(pool) => pool.on_breaker(observer),
            Backend::Cluster(cluster) => cluster.on_breaker(observer),
        }
    }

    fn on_damage(&self, observer: DamageObserver) {
        let observers = &self.settings.damaged.0;
        write(observers).push(Arc::new(observer));
    }

    fn can_move(&self, from: &SessionId, to: &SessionId) -> bool {
        let slot_of = |id| slot(&Key::new(&self.settings, self.settings.layout, id).name);
        !self.settings.in_cluster || slot_of(from) == slot_of(to)
    }

    fn check(&self, lifetimes: &Lifetimes) -> Result<()> {
        let refuse = |message: &str| Err(Error::new(ErrorKind::Config, message));
        match (self.settings.layout, self.settings.former) {
            (Layout::BottleSession, _) if lifetimes.absolute.is_some() => refuse(
                "Layout::BottleSession has no place for the time of creation, so it cannot keep an \
                 absolute limit (max_age); leave the limit out, or use Layout::Default",
            ),
            (_, Some(_)) if self.settings.in_cluster => refuse(
                "RedisStore::migrate_from moves a session from one key to another in one step, which a \
                 cluster cannot do; migrate before the move to a cluster",
            ),
            (layout, Some(former)) if layout == former => refuse(
                "RedisStore::migrate_from names the layout that the store already has; set the new \
                 one with RedisStore::layout",
            ),
            (Layout::BottleSession, Some(_)) => refuse(
                "RedisStore::migrate_from has no way from the default layout to \
                 Layout::BottleSession; it takes over bottle-session's sessions into the default one",
            ),
            _ => match &self.backend {
                Backend::Pool(pool) => pool.check_replicas(),
                Backend::Cluster(cluster) => cluster.check_replicas(),
            },
        }
    }
}

impl PipelinedStore for RedisStore {
    fn remote(&self) -> &Remote {
        &self.remote
    }

    fn write_remote(&self) -> &Remote {
        &self.write_remote
    }

    fn load_operation(&self, batch: &[Load<'_>]) -> Box<dyn StoreOperation<Result<Loaded>>> {
        Box::new(Steps::new(batch.iter().map(|load| LoadStep::new(&self.settings, load))))
    }

    fn save_operation(&self, batch: &[Save<'_>]) -> Box<dyn StoreOperation<Result<Saved>>> {
        Box::new(Steps::new(batch.iter().map(|save| IndexedSave::new(&self.settings, save))))
    }
}

fn id_format(layout: Layout) -> IdFormat {
    match layout {
        Layout::Default => IdFormat::Base64Url,
        Layout::BottleSession => IdFormat::Uuid,
    }
}

/// One answer for one request.
fn only<T>(answers: Vec<Result<T>>) -> Result<T> {
    answers.into_iter().next().unwrap_or_else(|| Err(desync()))
}
