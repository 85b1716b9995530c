//! What only Redis can show: commands, round trips, TTLs, what a dump gives away, foreign records.

mod layouts;
mod races;
mod records;
mod refusals;
mod round_trips;
mod tombstones;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bottle_session::{
    Action, Changes, EndDevices, ErrorKind, IdFormat, Layout, Lifetimes, Load, Loaded, LogIn,
    OldId, RedisConfig, RedisPool, RedisStore, Remember, Save, Saved, SessionId, SessionStore,
};
use redis::{Commands, Connection};

use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::redis_server::{RedisServer, but_tombstones, info};
use crate::support::sessions::{IDLE, create, fields, fresh_id, load, owned, save, set, together};

/// A server of the test's own: it counts, flushes and breaks.
struct Fixture {
    store: RedisStore,
    redis: Connection,
    server: RedisServer,
}

impl Fixture {
    fn new() -> Fixture {
        Fixture::with(|store| store)
    }

    fn with(set_up: impl FnOnce(RedisStore) -> RedisStore) -> Fixture {
        let server = RedisServer::start(&[]);
        // What takes long does, on a machine that is busy.
        let config = RedisConfig::from_url(&server.url(0)).unwrap();
        let ten_seconds = Duration::from_secs(10);
        let config = config.connect_timeout(ten_seconds).operation_timeout(ten_seconds);
        let store = set_up(RedisStore::new(RedisPool::new(config).unwrap()));
        Fixture { store, redis: server.connect(0), server }
    }

    fn keys(&mut self) -> Vec<String> {
        self.redis.keys("*").unwrap()
    }

    fn info(&mut self, section: &str) -> BTreeMap<String, String> {
        info(&mut self.redis, section)
    }

    fn reads(&mut self) -> u64 {
        self.info("stats")["total_reads_processed"].parse().unwrap()
    }

    fn connections(&mut self) -> u64 {
        self.info("stats")["total_connections_received"].parse().unwrap()
    }

    /// How many round trips and which commands this takes.
    fn count(&mut self, act: impl FnOnce(&RedisStore)) -> (u64, BTreeMap<String, u64>) {
        let _: () = redis::cmd("CONFIG").arg("RESETSTAT").query(&mut self.redis).unwrap();
        let before = self.reads();
        act(&self.store);
        // Our own question was read, too.
        let trips = self.reads() - before - 1;
        let commands = self.info("commandstats").into_iter().filter_map(|(name, value)| {
            let name = name.strip_prefix("cmdstat_")?.to_owned();
            let calls = value.strip_prefix("calls=")?.split(',').next()?.parse().ok()?;
            // Redis 7 counts the part of a command of its own. The time is asked for once a second.
            let ours = ["info", "config", "config|resetstat", "time"].contains(&name.as_str());
            (!ours).then_some((name, calls))
        });
        (trips, commands.collect())
    }

    fn config(&mut self, name: &str, value: &str) {
        let set = redis::cmd("CONFIG").arg("SET").arg(name).arg(value).to_owned();
        set.exec(&mut self.redis).unwrap();
    }

    fn ttl(&mut self) -> Duration {
        let keys = but_tombstones(&mut self.redis);
        assert_eq!(keys.len(), 1, "{keys:?}");
        Duration::from_millis(self.redis.pttl::<_, i64>(&keys[0]).unwrap().try_into().unwrap())
    }

    /// The only record's key in Redis.
    fn key(&mut self) -> String {
        let keys = but_tombstones(&mut self.redis);
        assert_eq!(keys.len(), 1, "{keys:?}");
        keys[0].clone()
    }
}

fn commands(pairs: &[(&str, u64)]) -> BTreeMap<String, u64> {
    pairs.iter().map(|(name, calls)| (name.to_string(), *calls)).collect()
}

#[track_caller]
fn is_about(time: Duration, seconds: u64) {
    let expected = Duration::from_secs(seconds);
    assert!(time <= expected && time > expected - Duration::from_secs(60), "{time:?}");
}
