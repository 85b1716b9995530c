//! Sessions in this process's memory.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use super::contract::{
    Action, Caps, Changes, Lifetimes, Load, Login, Record, Remember, Save, Saved, SessionStore,
    gone, id_taken, not_a_number,
};
use super::fields::Fields;
use crate::session::id::SessionId;
use crate::{Error, ErrorKind, Result};

/// Threads that want different sessions seldom wait for each other.
const SHARDS: usize = 16;

/// How many due records each access to a shard looks at: more than the one it may add, so that expired
/// records go faster than new ones come, and no thread has to collect them.
const SWEEP: usize = 4;

/// Keeps sessions in this process's memory: they end with it, and no other process sees them.
///
/// For tests, for examples, and for an app of one process whose sessions may go when it restarts. It never
/// holds more than its [`capacity`](MemoryStore::capacity).
///
/// ```
/// use bottle_session::MemoryStore;
///
/// let store = MemoryStore::new().capacity(10_000);
/// assert!(store.is_empty());
/// ```
pub struct MemoryStore {
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
    held: AtomicUsize,
    capacity: usize,
    caps: Caps,
    clock: Box<dyn Fn() -> SystemTime + Send + Sync>,
}

#[derive(Default)]
struct Shard {
    records: HashMap<SessionId, Kept>,
    /// Who may have expired by when. A record that was used since stands too early here and moves on when
    /// its turn comes, so that using a session costs nothing here.
    due: BTreeMap<Due, SessionId>,
    queued: u64,
}

/// A time, and a number that tells apart what is due at the same time.
type Due = (SystemTime, u64);

struct Kept {
    fields: Fields,
    created: SystemTime,
    /// When the idle limit last began anew together with the cookie.
    renewed: SystemTime,
    /// The idle limit that the request which saved it last took it to have.
    saved_for: Duration,
    remember: Option<Duration>,
    login: Option<Login>,
    /// `None` where the end is past what a `SystemTime` can say.
    expires: Option<SystemTime>,
    due: Option<Due>,
}

impl MemoryStore {
    /// An empty store for 100,000 sessions of at most 256 fields and 64 KiB.
    pub fn new() -> MemoryStore {
        // Wall time that never jumps: a corrected system clock ends no session.
        let (wall, start) = (SystemTime::now(), Instant::now());
        MemoryStore::with_clock(move || wall + start.elapsed())
    }

    /// An empty store that asks this clock, so that a test can let time pass.
    pub fn with_clock(clock: impl Fn() -> SystemTime + Send + Sync + 'static) -> MemoryStore {
        MemoryStore {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            held: AtomicUsize::new(0),
            capacity: 100_000,
            caps: Caps::default(),
            clock: Box::new(clock),
        }
    }

    /// How many sessions it holds at most. When it is full, expired ones make room; if there are none, a new
    /// session is refused with [`Unavailable`](ErrorKind::Unavailable), and no live one is lost.
    pub fn capacity(mut self, sessions: usize) -> MemoryStore {
        self.capacity = sessions;
        self
    }

    /// How many fields one session holds at most.
    pub fn max_fields(mut self, fields: usize) -> MemoryStore {
        self.caps.fields = fields;
        self
    }

    /// How many bytes the keys and values of one session have at most.
    pub fn max_bytes(mut self, bytes: usize) -> MemoryStore {
        self.caps.bytes = bytes;
        self
    }

    /// How many sessions it holds, those included that expired and were not yet collected.
    pub fn len(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn create(&self, save: &Save<'_>) -> Result<Saved> {
        let fields = applied(&Fields::new(), save.changes, &self.caps)?;
        self.reserve()?;
        let (mut shard, now) = self.shard(save.id);
        if let Some(kept) = shard.live(save.id, &save.lifetimes, now, &self.held) {
            self.held.fetch_sub(1, Ordering::Relaxed);
            return if kept.fields == fields { Ok(Saved::Stored) } else { Err(id_taken()) };
        }
        let mut kept = Kept {
            fields,
            created: now,
            renewed: now,
            saved_for: save.idle(),
            remember: save.remember.limit(),
            login: save.login.map(|user| Login { user: user.to_owned(), at: now }),
            expires: None,
            due: None,
        };
        kept.expires = kept.end(&save.lifetimes, now);
        shard.insert(save.id, kept);
        Ok(Saved::Stored)
    }

    fn update(&self, save: &Save<'_>) -> Result<Saved> {
        let (mut shard, now) = self.shard(save.id);
        let Some(kept) = shard.live(save.id, &save.lifetimes, now, &self.held) else {
            return Ok(Saved::Gone);
        };
        kept.fields = applied(&kept.fields, save.changes, &self.caps)?;
        kept.saved(save, now);
        shard.touch(save.id, &save.lifetimes, now);
        Ok(Saved::Stored)
    }

    fn rotate(&self, save: &Save<'_>, to: &SessionId) -> Result<Saved> {
        let mut pair = self.pair(save.id, to);
        let now = (self.clock)();
        let taken = pair.target().live(to, &save.lifetimes, now, &self.held).is_some();
        let Some(kept) = pair.source().live(save.id, &save.lifetimes, now, &self.held) else {
            // Nobody but this move knows the new id, so a record under it is what the move wrote.
            return match (taken, save.login) {
                (true, _) => Ok(Saved::Stored),
                (false, None) => Ok(Saved::Gone),
                (false, Some(_)) => {
                    drop(pair);
                    self.create(&Save { id: to, action: Action::Create, ..save.clone() })
                }
            };
        };
        if taken {
            return Err(id_taken());
        }
        let fields = applied(&kept.fields, save.changes, &self.caps)?;
        let Some(mut kept) = pair.source().remove(save.id) else { return Ok(Saved::Gone) };
        kept.fields = fields;
        kept.saved(save, now);
        kept.expires = kept.end(&save.lifetimes, now);
        pair.target().insert(to, kept);
        Ok(Saved::Stored)
    }

    fn destroy(&self, save: &Save<'_>) -> Saved {
        let (mut shard, _) = self.shard(save.id);
        if shard.remove(save.id).is_some() {
            self.held.fetch_sub(1, Ordering::Relaxed);
        }
        Saved::Stored
    }

    /// Lets `act` work on the fields of one live session.
    fn operate<T>(&self, load: &Load<'_>, act: impl FnOnce(&mut Fields) -> Result<T>) -> Result<T> {
        let (mut shard, now) = self.shard(load.id);
        let kept = shard.live(load.id, &load.lifetimes, now, &self.held).ok_or_else(gone)?;
        act(&mut kept.fields)
    }

    /// Makes sure that one more session has its place.
    fn reserve(&self) -> Result<()> {
        let place = || {
            self.held
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
                    (held < self.capacity).then_some(held + 1)
                })
                .is_ok()
        };
        if place() {
            return Ok(());
        }
        for shard in &self.shards {
            lock(shard).sweep((self.clock)(), usize::MAX, &self.held);
        }
        if place() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            format!(
                "the session store in memory is full: it holds {} live sessions; raise its capacity, \
                 shorten their lifetimes, or keep sessions in Redis",
                self.capacity
            ),
        ))
    }

    fn shard(&self, id: &SessionId) -> (MutexGuard<'_, Shard>, SystemTime) {
        let mut shard = lock(&self.shards[self.place(id)]);
        let now = (self.clock)();
        shard.sweep(now, SWEEP, &self.held);
        (shard, now)
    }

    /// The shards of two ids, locked in one order by everybody, so that two moves never wait for each other.
    fn pair(&self, old: &SessionId, new: &SessionId) -> Pair<'_> {
        let (old, new) = (self.place(old), self.place(new));
        let first = lock(&self.shards[old.min(new)]);
        let second = (old != new).then(|| lock(&self.shards[old.max(new)]));
        Pair { first, second, source_is_first: old <= new }
    }

    fn place(&self, id: &SessionId) -> usize {
        self.hasher.hash_one(id) as usize % self.shards.len()
    }
}

impl Default for MemoryStore {
    fn default() -> MemoryStore {
        MemoryStore::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("len", &self.len())
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

impl SessionStore for MemoryStore {
    fn load(&self, load: &Load<'_>) -> Result<Option<Record>> {
        let (mut shard, now) = self.shard(load.id);
        let Some(kept) = shard.live(load.id, &load.lifetimes, now, &self.held) else {
            return Ok(None);
        };
        let mut ago = now.duration_since(kept.renewed).unwrap_or_default();
        let idle = kept.remember.unwrap_or(load.lifetimes.idle);
        if kept.saved_for != idle {
            // Saved by a request that did not know of this limit: its cookie may end too early or too late.
            ago = ago.max(idle / 10);
        }
        Ok(Some(Record {
            fields: kept.fields.clone(),
            created: Some(kept.created),
            renewed_ago: Some(ago),
            remember: kept.remember,
            login: kept.login.clone(),
        }))
    }

    fn keeps_logins(&self) -> bool {
        true
    }

    fn save(&self, save: &Save<'_>) -> Result<Saved> {
        match save.action {
            Action::Create => self.create(save),
            Action::Update => self.update(save),
            Action::Rotate { to } => self.rotate(save, to),
            Action::Destroy => Ok(self.destroy(save)),
        }
    }

    fn increment(&self, load: &Load<'_>, key: &str, by: i64) -> Result<i64> {
        self.operate(load, |fields| {
            let held = fields.get(key).map_or(Some(0), integer);
            let sum =
                held.and_then(|held| held.checked_add(by)).ok_or_else(|| not_a_number(key))?;
            put(fields, key, &sum.to_string(), &self.caps)?;
            Ok(sum)
        })
    }

    fn take(&self, load: &Load<'_>, keys: &[&str]) -> Result<Vec<Option<String>>> {
        self.operate(load, |fields| Ok(keys.iter().map(|key| fields.remove(key)).collect()))
    }

    fn set_if_absent(&self, load: &Load<'_>, key: &str, value: &str) -> Result<bool> {
        self.operate(load, |fields| {
            let absent = !fields.contains_key(key);
            if absent {
                put(fields, key, value, &self.caps)?;
            }
            Ok(absent)
        })
    }

    /// A lock is held for as long as it takes to copy a session.
    fn may_block(&self) -> bool {
        false
    }

    fn caps(&self) -> Caps {
        self.caps
    }
}

impl Shard {
    /// The record of this id unless it has expired; one that has is removed.
    fn live(
        &mut self,
        id: &SessionId,
        lifetimes: &Lifetimes,
        now: SystemTime,
        held: &AtomicUsize,
    ) -> Option<&mut Kept> {
        let kept = self.records.get(id)?;
        // The absolute limit may have been shortened since the record was last used.
        if kept.ended(now) || kept.past_absolute(lifetimes, now) {
            self.remove(id);
            held.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        self.records.get_mut(id)
    }

    /// Starts the idle limit anew.
    fn touch(&mut self, id: &SessionId, lifetimes: &Lifetimes, now: SystemTime) {
        let Some(kept) = self.records.get_mut(id) else { return };
        kept.expires = kept.end(lifetimes, now);
        let too_late = match (kept.expires, kept.due) {
            (Some(expires), Some((due, _))) => expires < due,
            (expires, due) => expires.is_some() && due.is_none(),
        };
        if too_late {
            self.queue(id);
        }
    }

    fn insert(&mut self, id: &SessionId, kept: Kept) {
        self.records.insert(id.clone(), kept);
        self.queue(id);
    }

    fn remove(&mut self, id: &SessionId) -> Option<Kept> {
        let mut kept = self.records.remove(id)?;
        if let Some(due) = kept.due.take() {
            self.due.remove(&due);
        }
        Some(kept)
    }

    fn queue(&mut self, id: &SessionId) {
        let Some(kept) = self.records.get_mut(id) else { return };
        if let Some(due) = kept.due.take() {
            self.due.remove(&due);
        }
        let Some(expires) = kept.expires else { return };
        self.queued += 1;
        kept.due = Some((expires, self.queued));
        self.due.insert((expires, self.queued), id.clone());
    }

    /// Removes what has expired, looking at no more than `steps` records that may have.
    fn sweep(&mut self, now: SystemTime, steps: usize, held: &AtomicUsize) {
        for _ in 0..steps {
            let Some(entry) = self.due.first_entry().filter(|entry| entry.key().0 <= now) else {
                return;
            };
            let id = entry.get().clone();
            if self.records.get(&id).is_some_and(|kept| !kept.ended(now)) {
                self.queue(&id);
            } else {
                self.remove(&id);
                held.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

impl Kept {
    fn ended(&self, now: SystemTime) -> bool {
        self.expires.is_some_and(|end| end <= now)
    }

    fn past_absolute(&self, lifetimes: &Lifetimes, now: SystemTime) -> bool {
        lifetimes.absolute_end(self.created).is_some_and(|end| end <= now)
    }

    /// Takes note of a save, but for its changes and the end.
    fn saved(&mut self, save: &Save<'_>, now: SystemTime) {
        if let Remember::To(limit) = save.remember {
            self.remember = limit;
        }
        if let Some(user) = save.login {
            self.login = Some(Login { user: user.to_owned(), at: now });
        }
        if save.renewed_ago.is_none() {
            self.renewed = now;
        }
        self.saved_for = save.idle();
    }

    /// When it ends if it is saved now and never again.
    fn end(&self, lifetimes: &Lifetimes, now: SystemTime) -> Option<SystemTime> {
        lifetimes.end(self.remember, self.created, now)
    }
}

/// The shards of a move's two ids, which may be one.
struct Pair<'a> {
    first: MutexGuard<'a, Shard>,
    second: Option<MutexGuard<'a, Shard>>,
    source_is_first: bool,
}

impl Pair<'_> {
    fn source(&mut self) -> &mut Shard {
        self.get(self.source_is_first)
    }

    fn target(&mut self) -> &mut Shard {
        self.get(!self.source_is_first)
    }

    fn get(&mut self, first: bool) -> &mut Shard {
        match &mut self.second {
            Some(second) if !first => second,
            _ => &mut self.first,
        }
    }
}

/// A poisoned lock is no reason to fail: nothing that runs under it is the user's, and nothing panics midway.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// The fields after the changes, or an error if they would be too many or too large.
fn applied(fields: &Fields, changes: &Changes, caps: &Caps) -> Result<Fields> {
    let mut fields = if changes.cleared { Fields::new() } else { fields.clone() };
    for (key, value) in &changes.fields {
        match value {
            Some(value) => fields.insert(key, value),
            None => drop(fields.remove(key)),
        }
    }
    caps.check(fields.len(), fields.bytes())?;
    Ok(fields.compact())
}

fn put(fields: &mut Fields, key: &str, value: &str, caps: &Caps) -> Result<()> {
    let (count, freed) = match fields.get(key) {
        Some(old) => (fields.len(), key.len() + old.len()),
        None => (fields.len() + 1, 0),
    };
    caps.check(count, fields.bytes() - freed + key.len() + value.len())?;
    fields.insert(key, value);
    Ok(())
}

/// Reads an integer as Redis does: no plus sign, no leading zeros, so that both stores agree on what is one.
pub(crate) fn integer(text: &str) -> Option<i64> {
    text.parse().ok().filter(|number: &i64| number.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::id::{IdFormat, IdGenerator};
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    const LIFETIMES: Lifetimes =
        Lifetimes { idle: Duration::from_secs(60), absolute: Some(Duration::from_secs(3600)) };

    struct Fixture {
        store: MemoryStore,
        seconds: Arc<AtomicU64>,
        ids: IdGenerator,
    }

    impl Fixture {
        fn new() -> Fixture {
            let seconds = Arc::new(AtomicU64::new(0));
            let clock = seconds.clone();
            let store = MemoryStore::with_clock(move || {
                SystemTime::UNIX_EPOCH + Duration::from_secs(clock.load(Ordering::SeqCst))
            });
            Fixture { store, seconds, ids: IdGenerator::new() }
        }

        fn id(&self) -> SessionId {
            self.ids.next(IdFormat::default()).unwrap()
        }

        fn pass(&self, seconds: u64) {
            self.seconds.fetch_add(seconds, Ordering::SeqCst);
        }

        fn save(
            &self,
            id: &SessionId,
            action: Action<'_>,
            pairs: &[(&str, &str)],
        ) -> Result<Saved> {
            let fields =
                pairs.iter().map(|(key, value)| (key.to_string(), Some(value.to_string())));
            let changes = Changes { cleared: false, fields: fields.collect() };
            self.store.save(&Save::new(id, action, &changes, LIFETIMES))
        }

        fn create(&self) -> SessionId {
            let id = self.id();
            self.save(&id, Action::Create, &[]).unwrap();
            id
        }

        fn load(&self, id: &SessionId) -> Option<Record> {
            self.store.load(&Load { id, lifetimes: LIFETIMES }).unwrap()
        }

        fn queued(&self) -> usize {
            self.store.shards.iter().map(|shard| lock(shard).due.len()).sum()
        }
    }

    #[test]
    fn a_full_store_refuses_a_new_session_and_keeps_the_live_ones() {
        let mut fixture = Fixture::new();
        fixture.store = fixture.store.capacity(100);
        let ids: Vec<_> = (0..100).map(|_| fixture.create()).collect();
        let error = fixture.save(&fixture.id(), Action::Create, &[]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("raise its capacity"), "{error}");
        assert!(ids.iter().all(|id| fixture.load(id).is_some()));
        fixture.save(&ids[0], Action::Destroy, &[]).unwrap();
        fixture.create();
        assert_eq!(fixture.store.len(), 100);
    }

    #[test]
    fn expired_sessions_make_room_in_a_full_store() {
        let mut fixture = Fixture::new();
        fixture.store = fixture.store.capacity(100);
        let ids: Vec<_> = (0..100).map(|_| fixture.create()).collect();
        fixture.pass(59);
        assert_eq!(fixture.save(&ids[7], Action::Update, &[]).unwrap(), Saved::Stored);
        fixture.pass(7);
        let fresh: Vec<_> = (0..99).map(|_| fixture.create()).collect();
        assert!(fixture.save(&fixture.id(), Action::Create, &[]).is_err());
        assert!(fixture.load(&ids[7]).is_some());
        assert!(fresh.iter().all(|id| fixture.load(id).is_some()));
    }

    #[test]
    fn a_refused_creation_costs_no_place() {
        let mut fixture = Fixture::new();
        fixture.store = fixture.store.capacity(2);
        let id = fixture.create();
        for _ in 0..3 {
            assert!(fixture.save(&id, Action::Create, &[("other", "content")]).is_err());
        }
        fixture.create();
        assert_eq!(fixture.store.len(), 2);
    }

    #[test]
    fn abandoned_sessions_go_without_being_asked_for() {
        let fixture = Fixture::new();
        for _ in 0..2000 {
            fixture.create();
        }
        fixture.pass(66);
        for _ in 0..1000 {
            fixture.create();
        }
        // Each creation sweeps four places in one of 16 shards, which not all are hit equally often.
        assert!(fixture.store.len() < 1200, "{}", fixture.store.len());
    }

    #[test]
    fn neither_use_nor_churn_makes_the_queue_grow() {
        let fixture = Fixture::new();
        let kept = fixture.create();
        for round in 0..1000 {
            let id = fixture.create();
            let to = fixture.id();
            fixture.save(&id, Action::Update, &[]).unwrap();
            fixture.save(&id, Action::Rotate { to: &to }, &[]).unwrap();
            fixture.save(&to, Action::Destroy, &[]).unwrap();
            fixture.pass(round % 2);
            assert_eq!(fixture.save(&kept, Action::Update, &[]).unwrap(), Saved::Stored);
        }
        assert_eq!((fixture.store.len(), fixture.queued()), (1, 1));
    }

    #[test]
    fn a_session_without_a_reachable_end_lives_on() {
        let fixture = Fixture::new();
        let id = fixture.id();
        let lifetimes = Lifetimes { idle: Duration::MAX, absolute: Some(Duration::MAX) };
        let changes = Changes::default();
        let save = Save::new(&id, Action::Create, &changes, lifetimes);
        fixture.store.save(&save).unwrap();
        fixture.pass(u64::from(u32::MAX));
        assert!(fixture.store.load(&Load { id: &id, lifetimes }).unwrap().is_some());
        assert!(fixture.load(&id).is_none(), "the limit of this call has passed");
        assert!(fixture.store.is_empty());
    }

    #[test]
    fn two_moves_in_opposite_directions_never_wait_for_each_other() {
        let fixture = Fixture::new();
        let ids: Vec<_> = (0..4).map(|_| fixture.id()).collect();
        fixture.save(&ids[0], Action::Create, &[("a", "1")]).unwrap();
        fixture.save(&ids[1], Action::Create, &[("b", "2")]).unwrap();
        std::thread::scope(|scope| {
            for turn in 0..4 {
                let (fixture, ids) = (&fixture, &ids);
                scope.spawn(move || {
                    for round in 0..2000 {
                        let (old, new) = (&ids[(turn + round) % 4], &ids[(turn + round + 1) % 4]);
                        // Onto a live id it is refused, from a dead one nothing moves: both are fine here.
                        let _ = fixture.save(old, Action::Rotate { to: new }, &[]);
                    }
                });
            }
        });
        assert_eq!(ids.iter().filter(|id| fixture.load(id).is_some()).count(), 2);
    }

    #[test]
    fn caps_hold_for_every_way_to_write() {
        let mut fixture = Fixture::new();
        fixture.store = fixture.store.max_fields(2).max_bytes(10);
        let id = fixture.id();
        fixture.save(&id, Action::Create, &[("a", "1"), ("b", "2")]).unwrap();
        let load = Load { id: &id, lifetimes: LIFETIMES };
        let to = fixture.id();
        let refused = [
            fixture.save(&id, Action::Update, &[("c", "3")]).unwrap_err(),
            fixture.save(&id, Action::Update, &[("a", "1234567890")]).unwrap_err(),
            fixture.save(&id, Action::Rotate { to: &to }, &[("c", "3")]).unwrap_err(),
            fixture.save(&fixture.id(), Action::Create, &[("a", "1234567890")]).unwrap_err(),
            fixture.store.increment(&load, "c", 1).unwrap_err(),
            fixture.store.set_if_absent(&load, "c", "3").unwrap_err(),
        ];
        for error in refused {
            assert_eq!(error.kind(), ErrorKind::Session, "{error}");
        }
        let fields = fixture.load(&id).unwrap().fields;
        assert!(fields.iter().eq([("a", "1"), ("b", "2")]));
        assert_eq!(fixture.store.increment(&load, "a", 10).unwrap(), 11);
    }
}
