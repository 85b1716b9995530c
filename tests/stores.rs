//! Every store keeps the contract.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bottle_session::testing::store_contract::{Capabilities, StoreUnderTest, check_clause};
use bottle_session::{
    Layout, Load, Loaded, MemoryStore, RedisPool, RedisStore, Result, Save, Saved, SessionStore,
    store_contract,
};

#[cfg(feature = "sqlite")]
use bottle_session::{Durability, SqliteStore};

use crate::support::redis_server::RedisServer;

pub struct Memory {
    store: MemoryStore,
    now: Arc<Mutex<SystemTime>>,
}

impl Memory {
    pub fn new() -> Memory {
        let now = Arc::new(Mutex::new(SystemTime::now()));
        let clock = now.clone();
        Memory { store: MemoryStore::with_clock(move || *clock.lock().unwrap()), now }
    }
}

impl StoreUnderTest for Memory {
    fn store(&self) -> &dyn SessionStore {
        &self.store
    }

    fn advance(&self, by: Duration) {
        *self.now.lock().unwrap() += by;
    }
}

store_contract!(memory, Memory::new());

/// A store that takes what any parser takes for a number.
struct Lenient(Memory);

impl SessionStore for Lenient {
    fn load(&self, load: &Load<'_>) -> Result<Loaded> {
        self.0.store.load(load)
    }
    fn save(&self, save: &Save<'_>) -> Result<Saved> {
        self.0.store.save(save)
    }
    fn increment(&self, load: &Load<'_>, key: &str, by: i64) -> Result<i64> {
        let held = self
            .0
            .store
            .load(load)?
            .session()
            .and_then(|record| record.fields.get(key)?.parse().ok());
        match held {
            Some(held) => Ok(by + i64::saturating_sub(held, 1)),
            None => self.0.store.increment(load, key, by),
        }
    }
    fn take(&self, load: &Load<'_>, keys: &[&str]) -> Result<Vec<Option<String>>> {
        self.0.store.take(load, keys)
    }
    fn set_if_absent(&self, load: &Load<'_>, key: &str, value: &str) -> Result<bool> {
        self.0.store.set_if_absent(load, key, value)
    }
}

impl StoreUnderTest for Lenient {
    fn store(&self) -> &dyn SessionStore {
        self
    }
    fn advance(&self, by: Duration) {
        self.0.advance(by);
    }
}

#[test]
fn a_clause_that_does_not_hold_shows_what_was_asked_and_what_came_back() {
    let subject = Lenient(Memory::new());
    let check = || check_clause("an_increment_refuses_what_is_no_number", &subject);
    let panic = catch_unwind(AssertUnwindSafe(check)).unwrap_err();
    let text = panic.downcast_ref::<String>().unwrap();
    for part in [
        "an_increment_refuses_what_is_no_number does not hold: this has to be an error: 1",
        "save session 6: create, {\"n\": Some(\"+1\")}",
        "increment session 6: \"n\" by 1 -> 1",
    ] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
}

/// A store in a database of its own, so that no other test grows older with it.
pub struct Redis {
    store: RedisStore,
    layout: Layout,
    connection: Mutex<redis::Connection>,
    _server: Arc<RedisServer>,
}

impl Redis {
    pub fn new(layout: Layout) -> Redis {
        let server = RedisServer::shared();
        let database = server.fresh_database();
        let pool = RedisPool::open(&server.url(database)).unwrap();
        let connection = Mutex::new(server.connect(database));
        Redis { store: RedisStore::new(pool).layout(layout), layout, connection, _server: server }
    }

    /// How many entries the only index of users has, if there is one.
    pub fn index_length(&self) -> Option<usize> {
        let connection = &mut *self.connection.lock().unwrap();
        let keys: Vec<String> = redis::cmd("KEYS").arg("*:u:*").query(connection).unwrap();
        let key = keys.first()?;
        let names: Vec<String> = redis::cmd("HKEYS").arg(key).query(connection).unwrap();
        Some(names.iter().filter(|name| *name != "generation").count())
    }
}

/// Makes all records older, in one step.
pub const AGE: &str = r"
local DIGITS = '0123456789abcdefghijklmnopqrstuvwxyz'
local function older(time)
  local left, text = tonumber(time, 36) - ARGV[1], ''
  repeat
    local digit = math.fmod(left, 36)
    text = string.sub(DIGITS, digit + 1, digit + 1) .. text
    left = math.floor(left / 36)
  until left == 0
  return text
end
for _, key in ipairs(redis.call('KEYS', '*')) do
  local left = redis.call('PTTL', key) - ARGV[1]
  local proof, saved, login = unpack(redis.call('HMGET', key, '\0', '\0s', '\0u'))
  if proof then
    local at, idle = string.match(saved, '^(%w+)(%.%w+)$')
    proof = string.sub(proof, 1, 12) .. older(string.sub(proof, 13))
    redis.call('HSET', key, '\0', proof, '\0s', older(at) .. idle)
    if login then
      local since, user = string.match(login, '^(%w+)(%..*)$')
      redis.call('HSET', key, '\0u', older(since) .. user)
    end
  elseif redis.call('HEXISTS', key, '\0x') == 1 then
    local tombstone = redis.call('HGET', key, '\0x')
    local kind, till, ends, rest = string.match(tombstone, '^(%l)(%w+)%.(%w+)(%..*)$')
    if ends ~= '0' then ends = older(ends) end
    redis.call('HSET', key, '\0x', kind .. older(till) .. '.' .. ends .. rest)
  elseif string.find(key, ':u:', 1, true) then
    local entries = redis.call('HGETALL', key)
    for at = 1, #entries, 2 do
      local generation, since, rest = string.match(entries[at + 1], '^(%S+) (%w+) (.*)$')
      if since then redis.call('HSET', key, entries[at], generation .. ' ' .. older(since) .. ' ' .. rest) end
    end
  end
  if left > 0 then redis.call('PEXPIRE', key, left) else redis.call('DEL', key) end
end";

impl StoreUnderTest for Redis {
    fn store(&self) -> &dyn SessionStore {
        &self.store
    }

    fn advance(&self, by: Duration) {
        let age = redis::cmd("EVAL").arg(AGE).arg(0).arg(by.as_millis() as u64).to_owned();
        age.exec(&mut self.connection.lock().unwrap()).unwrap();
    }

    fn capabilities(&self) -> Capabilities {
        match self.layout {
            Layout::BottleSession => Capabilities::fields_only(),
            _ => Capabilities::default(),
        }
    }
}

store_contract!(redis_default_layout, Redis::new(Layout::Default));
store_contract!(redis_bottle_session_layout, Redis::new(Layout::BottleSession));

/// A store in a file of its own.
#[cfg(feature = "sqlite")]
pub struct File {
    store: SqliteStore,
    now: Arc<Mutex<SystemTime>>,
    _folder: tempfile::TempDir,
}

#[cfg(feature = "sqlite")]
impl File {
    pub fn new(durability: Durability) -> File {
        let folder = tempfile::tempdir().unwrap();
        let now = Arc::new(Mutex::new(SystemTime::now()));
        let clock = now.clone();
        let path = folder.path().join("sessions.db");
        let store = SqliteStore::with_clock(path, move || *clock.lock().unwrap()).unwrap();
        File { store: store.durability(durability), now, _folder: folder }
    }
}

#[cfg(feature = "sqlite")]
impl StoreUnderTest for File {
    fn store(&self) -> &dyn SessionStore {
        &self.store
    }

    fn advance(&self, by: Duration) {
        *self.now.lock().unwrap() += by;
    }
}

#[cfg(feature = "sqlite")]
store_contract!(sqlite, File::new(Durability::Full));
