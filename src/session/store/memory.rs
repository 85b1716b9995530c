//! Sessions in this process's memory.

mod devices;
mod expiry_queue;
mod record;
mod shard;
#[cfg(test)]
mod tests;
mod tombstones;

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Instant, SystemTime};

use self::record::{Priority, StoredSession, Timestamp};
use self::shard::Shard;
use self::tombstones::Tombstones;
use super::devices::{Device, EndDevices};
use super::fields::Fields;
use super::{
    Action, Caps, Changes, Load, Loaded, Record, Save, Saved, SessionStore, gone, id_taken,
    not_a_number,
};
use crate::lock::lock;
use crate::logging::ThrottledLog;
use crate::session::id::SessionId;
use crate::session::reserved::is_reserved;
use crate::{Error, ErrorKind, Result};

/// Threads that want different sessions seldom wait for each other.
const SHARDS: usize = 16;

/// How many tombstones a shard keeps whatever the capacity.
const MIN_TOMBSTONES: usize = 1024;

/// Keeps sessions in this process's memory: they end with it, and no other process sees them.
///
/// For tests, for examples, and for an app of one process whose sessions may go when it restarts. It never
/// holds more than its [`capacity`](MemoryStore::capacity). A session with one short value takes about 250 bytes.
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
    count: Arc<AtomicUsize>,
    capacity: usize,
    caps: Caps,
    clock: Box<dyn Fn() -> SystemTime + Send + Sync>,
    full: ThrottledLog,
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
        let count = Arc::new(AtomicUsize::new(0));
        MemoryStore {
            shards: (0..SHARDS).map(|_| Mutex::new(Shard::new(count.clone()))).collect(),
            hasher: RandomState::new(),
            count,
            capacity: 100_000,
            caps: Caps::default(),
            clock: Box::new(clock),
            full: ThrottledLog::default(),
        }
    }

    /// How many sessions it holds at most; no more than 2<sup>32</sup> - 1. When it is full, expired ones make room for
    /// a new one. If there are none, a live one does: one that holds nothing but a CSRF token or flashes, as those of
    /// bots do; if there is none, one in which nobody has [logged in](crate::Session::log_in); and of several the one
    /// that is nearest to its end. So nobody is kept from logging in, whoever fills it. The log says so when it begins.
    pub fn capacity(mut self, sessions: usize) -> MemoryStore {
        self.capacity = sessions.min(u32::MAX as usize);
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
        self.count.load(Ordering::Relaxed)
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many sessions it holds at most.
    pub(crate) fn max_sessions(&self) -> usize {
        self.capacity
    }

    fn create(&self, save: &Save<'_>) -> Result<Saved> {
        let fields = applied(Fields::new(), save.changes, &self.caps)?;
        self.reserve()?;
        let (mut shard, now) = self.shard(save.id);
        if let Some(slot) = shard.live(save.id, &save.lifetimes, now) {
            self.count.fetch_sub(1, Ordering::Relaxed);
            return match shard.stored(slot).fields == fields.pack() {
                true => Ok(Saved::Stored),
                false => Err(id_taken()),
            };
        }
        shard.insert(StoredSession::new(save, &fields, now));
        drop(shard);
        self.end_oldest(save.login, save.id);
        Ok(Saved::Stored)
    }

    fn update(&self, save: &Save<'_>) -> Result<Saved> {
        let (mut shard, now) = self.shard(save.id);
        let Some(slot) = shard.live(save.id, &save.lifetimes, now) else {
            return Ok(Saved::Gone);
        };
        shard.change(slot, |stored| self.change(stored, save, now))
    }

    fn rotate(&self, save: &Save<'_>, to: &SessionId) -> Result<Saved> {
        let mut pair = self.pair(save.id, to);
        let now = self.now();
        let taken = pair.target().live(to, &save.lifetimes, now).is_some();
        let Some(slot) = pair.source().live(save.id, &save.lifetimes, now) else {
            if !taken && pair.source().tombstones.had_grace_period(save.id, now) {
                return Ok(Saved::Gone);
            }
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
        let mut stored = pair.source().take(slot);
        let changed = self.change(&mut stored, save, now);
        match changed {
            Ok(_) => {
                stored.id = to.clone();
                let expires = stored.expires;
                pair.target().insert(stored);
                pair.source().tombstones.add_moved(save.id.clone(), to, save.old_id, expires, now);
                drop(pair);
                self.end_oldest(save.login, to);
            }
            Err(_) => pair.source().insert(stored),
        }
        changed
    }

    /// Writes the changes into a live record, and starts its idle limit anew.
    fn change(&self, stored: &mut StoredSession, save: &Save<'_>, now: Timestamp) -> Result<Saved> {
        if !save.changes.is_empty() {
            stored.set_fields(&applied(stored.fields.unpack(), save.changes, &self.caps)?);
        }
        stored.saved(save, now);
        Ok(Saved::Stored)
    }

    fn destroy(&self, save: &Save<'_>) -> Saved {
        let mut id = Some(save.id.clone());
        // Each step is one that a session has moved on meanwhile.
        while let Some(at) = id {
            let (mut shard, now) = self.shard(&at);
            if shard.destroy(&at, now) {
                return Saved::Stored;
            }
            id = shard.tombstones.next_id(&at, now);
        }
        Saved::Gone
    }

    /// Changes the tombstones of the shard of this id.
    fn change_tombstones(
        &self,
        id: &SessionId,
        change: impl FnOnce(&mut Tombstones, Timestamp) -> bool,
    ) -> Saved {
        let (mut shard, now) = self.shard(id);
        if change(&mut shard.tombstones, now) { Saved::Stored } else { Saved::Gone }
    }

    /// Lets `act` work on the fields of one live session.
    fn operate<T>(&self, load: &Load<'_>, act: impl FnOnce(&mut Fields) -> Result<T>) -> Result<T> {
        let (mut shard, now) = self.shard(load.id);
        let slot = shard.live(load.id, &load.lifetimes, now).ok_or_else(gone)?;
        shard.change(slot, |stored| {
            let mut fields = stored.fields.unpack();
            let done = act(&mut fields)?;
            stored.set_fields(&fields);
            Ok(done)
        })
    }

    /// Reserves the place of one more session, and evicts another one if the store is full.
    fn reserve(&self) -> Result<()> {
        let try_reserve = || {
            self.count
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
                    (count < self.capacity).then_some(count + 1)
                })
                .is_ok()
        };
        while !try_reserve() {
            let candidate = self.eviction_candidate();
            if try_reserve() {
                break;
            }
            let Some(candidate) = candidate else {
                let text =
                    "the session store in memory has no place for any session; raise its capacity";
                return Err(Error::new(ErrorKind::Unavailable, text));
            };
            if self.evict(candidate) {
                self.full.log_throttled(log::Level::Warn, "full", || {
                    format!(
                        "the session store in memory is full and loses live sessions: it holds {}; raise its \
                         capacity, shorten their lifetimes, or keep sessions in Redis",
                        self.capacity
                    )
                });
                break;
            }
        }
        Ok(())
    }

    /// The session of all shards to evict first: its priority, when it expires, and its shard.
    fn eviction_candidate(&self) -> Option<(Priority, Timestamp, usize)> {
        let of_one = |(number, shard): (usize, &Mutex<Shard>)| {
            let mut shard = lock(shard);
            shard.sweep_all(self.now());
            shard.eviction_candidate().map(|(priority, due)| (priority, due.at, number))
        };
        self.shards.iter().enumerate().filter_map(of_one).min()
    }

    /// Evicts a session of this shard and keeps its place reserved. Returns false if the shard has changed meanwhile and has
    /// no session of so low a priority: then all shards must be searched again.
    fn evict(&self, (priority, at, number): (Priority, Timestamp, usize)) -> bool {
        let mut shard = lock(&self.shards[number]);
        match shard.eviction_candidate() {
            Some((found, due)) if (found, due.at) <= (priority, at) => {
                drop(shard.take(due.slot));
                true
            }
            _ => false,
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::of((self.clock)())
    }

    fn shard(&self, id: &SessionId) -> (MutexGuard<'_, Shard>, Timestamp) {
        let mut shard = lock(&self.shards[self.shard_index(id)]);
        let now = self.now();
        shard.sweep(now);
        shard.tombstones.sweep(now, self.capacity / SHARDS + MIN_TOMBSTONES);
        (shard, now)
    }

    /// The shards of two ids, locked in one order by everybody, so that two moves never wait for each other.
    fn pair(&self, old: &SessionId, new: &SessionId) -> Pair<'_> {
        let (old, new) = (self.shard_index(old), self.shard_index(new));
        let first = lock(&self.shards[old.min(new)]);
        let second = (old != new).then(|| lock(&self.shards[old.max(new)]));
        Pair { first, second, source_is_first: old <= new }
    }

    fn shard_index(&self, id: &SessionId) -> usize {
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
    fn load(&self, load: &Load<'_>) -> Result<Loaded> {
        let (mut shard, now) = self.shard(load.id);
        let Some(slot) = shard.live(load.id, &load.lifetimes, now) else {
            return Ok(shard.tombstones.loaded(load.id, now));
        };
        let stored = shard.stored(slot);
        let mut ago = now.since(stored.renewed);
        let idle = stored.remember().unwrap_or(load.lifetimes.idle);
        if !stored.was_saved_for(idle) {
            // Saved by a request that did not know of this limit: its cookie may end too early or too late.
            ago = ago.max(idle / 10);
        }
        Ok(Loaded::Session(Record {
            fields: stored.fields.unpack(),
            created: Some(stored.created.time()),
            renewed_ago: Some(ago),
            remember: stored.remember(),
            login: stored.login(),
        }))
    }

    fn keeps_logins(&self) -> bool {
        true
    }

    fn keeps_tombstones(&self) -> bool {
        true
    }

    fn devices(&self, user: &str, this: Option<&SessionId>) -> Result<Vec<Device>> {
        Ok(self.list(user, this))
    }

    fn end_devices(&self, user: &str, which: EndDevices<'_>) -> Result<usize> {
        self.end_of(user, which)
    }

    fn save(&self, save: &Save<'_>) -> Result<Saved> {
        match save.action {
            Action::Create => self.create(save),
            Action::Update => self.update(save),
            Action::Rotate { to } => self.rotate(save, to),
            Action::Destroy => Ok(self.destroy(save)),
            Action::ExtendGrace => {
                let end = |now: Timestamp| {
                    let created = save.created.unwrap_or(now.time());
                    save.lifetimes.end(save.remember.limit(), created, now.time())
                };
                Ok(self.change_tombstones(save.id, |tombstones, now| {
                    tombstones.extend_grace(
                        save.id,
                        end(now).map_or(Timestamp::NEVER, Timestamp::of),
                        now,
                    )
                }))
            }
            Action::EndGrace(after) => Ok(self.change_tombstones(save.id, |tombstones, now| {
                tombstones.end_grace(save.id, after, now)
            })),
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

    fn compare_and_set(
        &self,
        load: &Load<'_>,
        key: &str,
        held: Option<&str>,
        fields: &[(&str, &str)],
    ) -> Result<bool> {
        self.operate(load, |stored| {
            let is_held = stored.get(key) == held;
            if is_held {
                fields.iter().try_for_each(|(key, value)| put(stored, key, value, &self.caps))?;
            }
            Ok(is_held)
        })
    }

    fn can_compare_and_set(&self) -> bool {
        true
    }

    /// A lock is held for as long as it takes to copy a session.
    fn may_block(&self) -> bool {
        false
    }

    fn caps(&self) -> Caps {
        self.caps
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

/// The fields after the changes, or an error if they would be too many or too large.
pub(super) fn applied(mut fields: Fields, changes: &Changes, caps: &Caps) -> Result<Fields> {
    if changes.cleared {
        fields.retain(is_reserved);
    }
    for (key, value) in &changes.fields {
        match value {
            Some(value) => fields.insert(key, value),
            None => drop(fields.remove(key)),
        }
    }
    caps.check(fields.len(), fields.bytes())?;
    Ok(fields)
}

pub(super) fn put(fields: &mut Fields, key: &str, value: &str, caps: &Caps) -> Result<()> {
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
