//! What only Redis can show: commands, round trips, TTLs, what a dump gives away, foreign records.

use std::collections::BTreeMap;
use std::time::Duration;

use bottle_session::{
    Action, Changes, ErrorKind, IdFormat, Layout, Lifetimes, Load, RedisConfig, RedisPool,
    RedisStore, Save, Saved, SessionId, SessionStore,
};
use redis::{Commands, Connection};

use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::redis_server::{RedisServer, info};
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
        let store = set_up(RedisStore::new(RedisPool::open(&server.url(0)).unwrap()));
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
            // Redis 7 counts the part of a command of its own.
            let ours = ["info", "config", "config|resetstat"].contains(&name.as_str());
            (!ours).then_some((name, calls))
        });
        (trips, commands.collect())
    }

    fn config(&mut self, name: &str, value: &str) {
        let set = redis::cmd("CONFIG").arg("SET").arg(name).arg(value).to_owned();
        set.exec(&mut self.redis).unwrap();
    }

    fn ttl(&mut self) -> Duration {
        let keys = self.keys();
        assert_eq!(keys.len(), 1, "{keys:?}");
        Duration::from_millis(self.redis.pttl::<_, i64>(&keys[0]).unwrap().try_into().unwrap())
    }

    /// The only record's key in Redis.
    fn key(&mut self) -> String {
        let keys = self.keys();
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

#[test]
fn a_load_is_one_round_trip() {
    let mut fixture = Fixture::new();
    let id = create(&fixture.store, &[("a", "1")]);
    load(&fixture.store, &id).unwrap();
    let (trips, used) = fixture.count(|store| {
        load(store, &id).unwrap();
    });
    assert_eq!(trips, 1);
    assert_eq!(used, commands(&[("evalsha", 1), ("hgetall", 1), ("pexpire", 1), ("time", 1)]));
}

#[test]
fn a_save_is_one_round_trip() {
    let mut fixture = Fixture::new();
    let id = create(&fixture.store, &[("a", "1")]);
    let (trips, used) = fixture.count(|store| {
        save(store, &id, Action::Update, &[("a", "2"), ("b", "3")]).unwrap();
    });
    assert_eq!(trips, 1);
    let expected = [("evalsha", 1), ("hgetall", 1), ("hset", 1), ("pexpire", 1), ("time", 1)];
    assert_eq!(used, commands(&expected));
}

#[test]
fn a_batch_is_one_round_trip() {
    let mut fixture = Fixture::new();
    let ids: Vec<_> = (0..32).map(|_| create(&fixture.store, &[("a", "1")])).collect();
    load(&fixture.store, &ids[0]).unwrap();
    let loads: Vec<_> = ids.iter().map(|id| Load { id, lifetimes: IDLE }).collect();
    let (trips, used) = fixture.count(|store| {
        assert!(store.load_many(&loads).into_iter().all(|record| record.unwrap().is_some()));
    });
    assert_eq!((trips, used["evalsha"]), (1, 32));
    let changes = set(&[("a", "2")]);
    let update = |id| Save {
        id,
        action: Action::Update,
        changes: &changes,
        lifetimes: IDLE,
        remember: None,
        created: None,
    };
    let saves: Vec<_> = ids.iter().map(update).collect();
    let (trips, used) = fixture.count(|store| {
        let mut saved = store.save_many(&saves).into_iter();
        assert!(saved.all(|saved| saved.unwrap() == Saved::Stored));
    });
    assert_eq!((trips, used["evalsha"]), (1, 32));
    let (trips, used) = fixture.count(|store| {
        store.load_many(&[]);
        store.save_many(&[]);
    });
    assert_eq!((trips, used), (0, BTreeMap::new()));
}

#[test]
fn an_operation_is_one_round_trip() {
    let mut fixture = Fixture::new();
    let id = create(&fixture.store, &[("a", "1")]);
    let load = Load { id: &id, lifetimes: IDLE };
    let act = |store: &RedisStore| {
        store.increment(&load, "n", 1).unwrap();
        store.take(&load, &["a", "b"]).unwrap();
        store.set_if_absent(&load, "c", "1").unwrap();
    };
    act(&fixture.store);
    let (trips, used) = fixture.count(act);
    assert_eq!((trips, used["evalsha"]), (3, 3));
}

#[test]
fn the_ttl_is_what_the_lifetimes_say() {
    let hour = Duration::from_secs(3600);
    let day = Some(24 * hour);
    let limited = |absolute| Lifetimes { idle: hour, absolute: Some(absolute) };
    for (lifetimes, remember, seconds) in [
        (IDLE, None, 3600),
        (IDLE, day, 24 * 3600),
        (limited(hour / 2), None, 1800),
        (limited(2 * hour), None, 3600),
        (limited(2 * hour), day, 7200),
        (Lifetimes { idle: Duration::MAX, absolute: None }, None, 100 * 365 * 24 * 3600),
    ] {
        let mut fixture = Fixture::new();
        let (id, changes) = (fresh_id(IdFormat::Base64Url), set(&[("a", "1")]));
        let save = |id, action, remember| Save {
            id,
            action,
            changes: &changes,
            lifetimes,
            remember,
            created: None,
        };
        fixture.store.save(&save(&id, Action::Create, remember)).unwrap();
        is_about(fixture.ttl(), seconds);
        let key = fixture.key();
        let load = Load { id: &id, lifetimes };
        let ways: [&dyn Fn(&RedisStore); 5] = [
            &|store| assert!(store.load(&load).unwrap().is_some()),
            &|store| {
                assert_eq!(store.save(&save(&id, Action::Update, None)).unwrap(), Saved::Stored)
            },
            &|store| assert!(store.increment(&load, "n", 1).unwrap() > 0),
            &|store| assert_eq!(store.take(&load, &["none"]).unwrap(), [None]),
            &|store| assert!(!store.set_if_absent(&load, "a", "9").unwrap()),
        ];
        for refresh in ways {
            let _: bool = fixture.redis.pexpire(&key, 60_000).unwrap();
            refresh(&fixture.store);
            is_about(fixture.ttl(), seconds);
        }
        let _: bool = fixture.redis.pexpire(&key, 60_000).unwrap();
        let to = fresh_id(IdFormat::Base64Url);
        fixture.store.save(&save(&id, Action::Rotate { to: &to }, None)).unwrap();
        is_about(fixture.ttl(), seconds);
    }
}

#[test]
fn a_dump_of_redis_shows_no_id() {
    let mut fixture = Fixture::new();
    let id = create(&fixture.store, &[("name", "Chris")]);
    let to = fresh_id(IdFormat::Base64Url);
    save(&fixture.store, &id, Action::Rotate { to: &to }, &[]).unwrap();
    let key = fixture.key();
    assert_eq!(key.len(), "bottle.session:".len() + 64, "{key}");
    let record: Vec<(Vec<u8>, Vec<u8>)> = fixture.redis.hgetall(&key).unwrap();
    let dump: Vec<u8> = redis::cmd("DUMP").arg(&key).query(&mut fixture.redis).unwrap();
    let all = [key.into_bytes(), dump, format!("{record:?}").into_bytes()].concat();
    let all = String::from_utf8_lossy(&all);
    for id in [id, to] {
        for secret in [id.expose(), id.expose_uuid(), id.expose_uuid().replace('-', "")] {
            assert!(!all.contains(&secret[..secret.len() - 1]), "{all}");
        }
    }
}

#[test]
fn bottle_sessions_layout_is_pythons() {
    let mut fixture = Fixture::with(|store| store.layout(Layout::BottleSession));
    let id = SessionId::parse("0123456789abcdef0123456789abcdef", IdFormat::Uuid).unwrap();
    save(&fixture.store, &id, Action::Create, &[("name", "Chris")]).unwrap();
    let key = "session:01234567-89ab-cdef-0123-456789abcdef";
    assert_eq!(fixture.key(), key);
    let record: BTreeMap<String, String> = fixture.redis.hgetall(key).unwrap();
    assert_eq!(record, BTreeMap::from([("name".into(), "Chris".into())]));
    // What Python's session["colour"] = "zelená" sends.
    let _: i64 = fixture.redis.hset(key, "colour", "zelená").unwrap();
    let _: bool = fixture.redis.expire(key, 300).unwrap();
    let expected = owned(&[("colour", "zelená"), ("name", "Chris")]);
    assert_eq!(fields(&fixture.store, &id), Some(expected));
    is_about(fixture.ttl(), 3600);
    let _: i64 = fixture.redis.del(key).unwrap();
    assert_eq!(fields(&fixture.store, &id), None);
}

#[test]
fn another_owners_record_is_never_given_out_and_the_connection_is_closed() {
    let mut fixture = Fixture::new();
    let alice = create(&fixture.store, &[("name", "Alice")]);
    let key = fixture.key();
    let bob = create(&fixture.store, &[("name", "Bob")]);
    let bobs = fixture.keys().into_iter().find(|other| *other != key).unwrap();
    let _: () = fixture.redis.rename(&key, &bobs).unwrap();
    let carol = create(&fixture.store, &[("name", "Carol")]);

    let before = fixture.connections();
    let error = load(&fixture.store, &bob).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Desync, "{error}");
    assert_eq!(fields(&fixture.store, &carol), Some(owned(&[("name", "Carol")])));
    assert_eq!(fixture.connections(), before + 1, "the connection was used again");

    let batch = [&carol, &bob, &alice].map(|id| Load { id, lifetimes: IDLE });
    let answers = fixture.store.load_many(&batch);
    assert!(matches!(&answers[..], [Ok(Some(_)), Err(_), Ok(None)]), "{answers:?}");

    let bobs_load = Load { id: &bob, lifetimes: IDLE };
    for error in [
        save(&fixture.store, &bob, Action::Update, &[("name", "Bob")]).unwrap_err(),
        fixture.store.increment(&bobs_load, "n", 1).unwrap_err(),
        fixture.store.take(&bobs_load, &["name"]).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Desync, "{error}");
    }
    let record: BTreeMap<String, String> = fixture.redis.hgetall(&bobs).unwrap();
    assert_eq!(record["name"], "Alice");
}

#[test]
fn a_damaged_record_is_no_session() {
    type Damage<'a> = &'a [(&'a str, Option<&'a [u8]>)];
    let damages: [(&str, Damage<'_>); 4] = [
        ("no metadata", &[("\0", None)]),
        ("strange metadata", &[("\0", Some(b"x"))]),
        ("a later version", &[("\0", Some(b"2:1:1::00"))]),
        ("not UTF-8", &[("name", Some(b"\xff\xfe"))]),
    ];
    for (what, damage) in damages {
        let mut fixture = Fixture::new();
        let id = create(&fixture.store, &[("name", "Chris")]);
        let key = fixture.key();
        for (field, value) in damage {
            let _: i64 = match value {
                Some(value) => fixture.redis.hset(&key, field, value).unwrap(),
                None => fixture.redis.hdel(&key, field).unwrap(),
            };
        }
        assert_eq!(fields(&fixture.store, &id), None, "{what}");
        if what != "not UTF-8" {
            let saved = save(&fixture.store, &id, Action::Update, &[("b", "2")]).unwrap();
            assert_eq!(saved, Saved::Gone, "{what}");
        }
    }
}

#[test]
fn a_record_of_another_type_is_an_error_of_its_own_session() {
    for layout in [Layout::Default, Layout::BottleSession] {
        let mut fixture = Fixture::with(|store| store.layout(layout));
        let id = create(&fixture.store, &[("name", "Chris")]);
        let key = fixture.key();
        let _: () = fixture.redis.set(&key, "a string").unwrap();
        let (first, last) =
            (create(&fixture.store, &[("a", "1")]), create(&fixture.store, &[("b", "2")]));
        let batch = [&first, &id, &last].map(|id| Load { id, lifetimes: IDLE });
        let answers = fixture.store.load_many(&batch);
        let [Ok(Some(_)), Err(error), Ok(Some(_))] = &answers[..] else { panic!("{answers:?}") };
        // Not Unavailable: another try would not help.
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.to_string().contains("WRONGTYPE"), "{error}");
        let load = Load { id: &id, lifetimes: IDLE };
        for error in [
            save(&fixture.store, &id, Action::Update, &[("b", "2")]).unwrap_err(),
            save(&fixture.store, &id, Action::Create, &[("b", "2")]).unwrap_err(),
            save(&fixture.store, &first, Action::Rotate { to: &id }, &[]).unwrap_err(),
            fixture.store.increment(&load, "n", 1).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        }
        assert_eq!(fixture.redis.get::<_, String>(&key).unwrap(), "a string");
    }
}

#[test]
fn an_oversized_record_is_no_session() {
    for layout in [Layout::Default, Layout::BottleSession] {
        let mut fixture = Fixture::with(|store| store.layout(layout).max_fields(3).max_bytes(1000));
        let id = create(&fixture.store, &[("a", "1"), ("b", "2"), ("c", "3")]);
        assert!(fields(&fixture.store, &id).is_some());
        let key = fixture.key();
        let _: i64 = fixture.redis.hset(&key, "d", "4").unwrap();
        assert_eq!(fields(&fixture.store, &id), None);
        let _: i64 = fixture.redis.hdel(&key, "d").unwrap();
        assert!(fields(&fixture.store, &id).is_some());
        let _: i64 = fixture.redis.hset(&key, "c", "x".repeat(995)).unwrap();
        assert!(fields(&fixture.store, &id).is_some());
        let _: i64 = fixture.redis.hset(&key, "c", "x".repeat(996)).unwrap();
        assert_eq!(fields(&fixture.store, &id), None);
    }
}

#[test]
fn caps_hold_for_every_way_to_write() {
    for layout in [Layout::Default, Layout::BottleSession] {
        let fixture = Fixture::with(|store| store.layout(layout).max_fields(2).max_bytes(10));
        let store = &fixture.store;
        let id = create(store, &[("a", "1"), ("b", "2")]);
        let load = Load { id: &id, lifetimes: IDLE };
        let (to, other) = (fresh_id(store.id_format()), fresh_id(store.id_format()));
        for error in [
            save(store, &id, Action::Update, &[("c", "3")]).unwrap_err(),
            save(store, &id, Action::Update, &[("a", "1234567890")]).unwrap_err(),
            save(store, &id, Action::Rotate { to: &to }, &[("c", "3")]).unwrap_err(),
            save(store, &other, Action::Create, &[("a", "1234567890")]).unwrap_err(),
            store.increment(&load, "c", 1).unwrap_err(),
            store.increment(&load, "a", 1_000_000_000).unwrap_err(),
            store.set_if_absent(&load, "c", "3").unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Session, "{error}");
        }
        assert_eq!(fields(store, &id), Some(owned(&[("a", "1"), ("b", "2")])));
        assert_eq!(fields(store, &to), None);
        assert_eq!(fields(store, &other), None);
        assert_eq!(store.increment(&load, "a", 10).unwrap(), 11);
    }
}

#[test]
fn no_users_key_reaches_the_metadata() {
    let fixture = Fixture::new();
    let store = &fixture.store;
    let id = create(store, &[("a", "1")]);
    let load = Load { id: &id, lifetimes: IDLE };
    let changes = set(&[("\0", "x")]);
    let bad = Save {
        id: &id,
        action: Action::Update,
        changes: &changes,
        lifetimes: IDLE,
        remember: None,
        created: None,
    };
    let changes = set(&[("b", "2")]);
    let good = Save { changes: &changes, ..bad.clone() };
    let saved = store.save_many(&[bad, good]);
    assert!(matches!(&saved[..], [Err(_), Ok(Saved::Stored)]), "{saved:?}");
    for error in [
        store.increment(&load, "\0", 1).unwrap_err(),
        store.take(&load, &["a", "\0"]).unwrap_err(),
        store.set_if_absent(&load, "\0x", "1").unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Session, "{error}");
    }
    assert_eq!(fields(store, &id), Some(owned(&[("a", "1"), ("b", "2")])));
}

#[test]
fn a_repeated_creation_is_stored_once() {
    for layout in [Layout::Default, Layout::BottleSession] {
        let fixture = Fixture::with(|store| store.layout(layout));
        let id = create(&fixture.store, &[("a", "1"), ("b", "2")]);
        let again = save(&fixture.store, &id, Action::Create, &[("a", "1"), ("b", "2")]).unwrap();
        assert_eq!(again, Saved::Stored);
        assert!(save(&fixture.store, &id, Action::Create, &[("a", "1")]).is_err());
        assert_eq!(fields(&fixture.store, &id), Some(owned(&[("a", "1"), ("b", "2")])));
    }
}

#[test]
fn a_session_may_have_very_many_fields() {
    let fixture = Fixture::with(|store| store.max_fields(10_000).max_bytes(1 << 20));
    let id = fresh_id(IdFormat::Base64Url);
    let many = |value: Option<&str>| Changes {
        cleared: false,
        fields: (0..9_999).map(|at| (format!("f{at}"), value.map(str::to_owned))).collect(),
    };
    let save = |action: Action<'_>, changes: &Changes| {
        let save =
            Save { id: &id, action, changes, lifetimes: IDLE, remember: None, created: None };
        assert_eq!(fixture.store.save(&save).unwrap(), Saved::Stored);
    };
    save(Action::Create, &many(Some("1")));
    assert_eq!(fields(&fixture.store, &id).unwrap().len(), 9_999);
    save(Action::Update, &many(None));
    assert_eq!(fields(&fixture.store, &id), Some(Vec::new()));
}

#[test]
fn forgotten_scripts_are_given_again_and_the_batch_keeps_its_order() {
    let mut fixture = Fixture::new();
    let ids: Vec<_> = (0..3).map(|_| create(&fixture.store, &[("a", "1")])).collect();
    let to = fresh_id(IdFormat::Base64Url);
    let changes = set(&[("b", "2")]);
    let none = Changes::default();
    let save = |id, action| Save {
        id,
        action,
        changes: if action == Action::Destroy { &none } else { &changes },
        lifetimes: IDLE,
        remember: None,
        created: None,
    };
    let batch = [
        save(&ids[0], Action::Update),
        save(&ids[0], Action::Rotate { to: &to }),
        save(&ids[0], Action::Update),
        save(&ids[1], Action::Destroy),
        save(&ids[1], Action::Update),
        save(&ids[2], Action::Update),
    ];
    let _: () = redis::cmd("SCRIPT").arg("FLUSH").query(&mut fixture.redis).unwrap();
    let saved: Vec<_> = fixture.store.save_many(&batch).into_iter().map(Result::unwrap).collect();
    use Saved::{Gone, Stored};
    assert_eq!(saved, [Stored, Stored, Gone, Stored, Gone, Stored]);
    let loads = [&to, &ids[1], &ids[2]].map(|id| Load { id, lifetimes: IDLE });
    let _: () = redis::cmd("SCRIPT").arg("FLUSH").query(&mut fixture.redis).unwrap();
    let loaded = fixture.store.load_many(&loads);
    assert!(matches!(&loaded[..], [Ok(Some(_)), Ok(None), Ok(Some(_))]), "{loaded:?}");
    let load = Load { id: &to, lifetimes: IDLE };
    let _: () = redis::cmd("SCRIPT").arg("FLUSH").query(&mut fixture.redis).unwrap();
    assert_eq!(fixture.store.increment(&load, "n", 5).unwrap(), 5);
}

#[test]
fn where_redis_refuses_to_write_people_still_read() {
    let refusals: [(&str, &str, &str); 3] = [
        ("short of memory", "maxmemory", "1"),
        ("without its replicas", "min-replicas-to-write", "1"),
        ("a replica", "", ""),
    ];
    for (what, option, value) in refusals {
        let mut fixture = Fixture::new();
        let id = create(&fixture.store, &[("a", "1"), ("b", "2")]);
        if option.is_empty() {
            let replicate = redis::cmd("REPLICAOF").arg("127.0.0.1").arg("1").to_owned();
            replicate.exec(&mut fixture.redis).unwrap();
        } else {
            fixture.config(option, value);
        }
        let held = owned(&[("a", "1"), ("b", "2")]);
        assert_eq!(fields(&fixture.store, &id), Some(held.clone()), "{what}");
        let mut changes = set(&[("a", "9")]);
        changes.cleared = true;
        let update = Save {
            id: &id,
            action: Action::Update,
            changes: &changes,
            lifetimes: IDLE,
            remember: None,
            created: None,
        };
        let load = Load { id: &id, lifetimes: IDLE };
        for error in [
            fixture.store.save(&update).unwrap_err(),
            fixture.store.increment(&load, "n", 1).unwrap_err(),
            fixture.store.set_if_absent(&load, "n", "1").unwrap_err(),
            save(&fixture.store, &fresh_id(IdFormat::Base64Url), Action::Create, &[]).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{what}: {error}");
        }
        assert_eq!(fields(&fixture.store, &id), Some(held), "{what}: written in part");
    }
}

#[test]
fn a_thousand_pairs_of_savers_lose_nothing() {
    let fixture = Fixture::new();
    let store = &fixture.store;
    for round in 0..1000 {
        let round = round.to_string();
        let id = create(store, &[("start", &round)]);
        let save = |key| save(store, &id, Action::Update, &[(key, &round)]).unwrap();
        let saved = together(|| save("left"), || save("right"));
        assert_eq!(saved, (Saved::Stored, Saved::Stored));
        let expected = owned(&[("left", &round), ("right", &round), ("start", &round)]);
        assert_eq!(fields(store, &id), Some(expected));
    }
}

#[test]
fn a_thousand_destroyed_sessions_stay_destroyed() {
    let fixture = Fixture::new();
    let store = &fixture.store;
    let mut gone = 0;
    for _ in 0..1000 {
        let id = create(store, &[("a", "1")]);
        let (_, saved) = together(
            || save(store, &id, Action::Destroy, &[]).unwrap(),
            || save(store, &id, Action::Update, &[("b", "2")]).unwrap(),
        );
        gone += u32::from(saved == Saved::Gone);
        assert_eq!(fields(store, &id), None);
    }
    assert!(gone > 0 && gone < 1000, "both orders were meant to happen: {gone}");
}

#[test]
fn sessions_of_bottle_session_move_to_the_default_layout() {
    let mut fixture = Fixture::with(|store| store.migrate_from(Layout::BottleSession));
    let store = &fixture.store;
    assert_eq!(store.id_format(), IdFormat::Base64Url);
    assert_eq!(store.former_id_format(), Some(IdFormat::Uuid));
    let id = SessionId::parse("0123456789abcdef0123456789abcdef", IdFormat::Uuid).unwrap();
    assert_eq!(fields(store, &id), None);
    let key = "session:01234567-89ab-cdef-0123-456789abcdef";
    let _: i64 = fixture.redis.hset(key, "name", "Chris").unwrap();
    let _: bool = fixture.redis.expire(key, 300).unwrap();

    let held = owned(&[("name", "Chris")]);
    for _ in 0..2 {
        assert_eq!(fields(store, &id), Some(held.clone()));
    }
    let record = load(store, &id).unwrap().unwrap();
    assert!(record.created.is_some());
    assert!(fixture.key().starts_with("bottle.session:"));
    is_about(fixture.ttl(), 3600);
    let store = &fixture.store;
    assert_eq!(save(store, &id, Action::Update, &[("b", "2")]).unwrap(), Saved::Stored);

    // What a Python request that was still on its way leaves behind does not replace it.
    let _: i64 = fixture.redis.hset(key, "name", "late").unwrap();
    assert_eq!(fields(store, &id), Some(owned(&[("b", "2"), ("name", "Chris")])));

    // Nor does it outlive the id.
    let to = fresh_id(IdFormat::Base64Url);
    assert_eq!(save(store, &id, Action::Rotate { to: &to }, &[]).unwrap(), Saved::Stored);
    assert_eq!(fields(store, &id), None);
    assert_eq!(fields(store, &to), Some(owned(&[("b", "2"), ("name", "Chris")])));
}

#[test]
fn a_destroyed_session_does_not_come_back_from_the_former_layout() {
    let mut fixture = Fixture::with(|store| store.migrate_from(Layout::BottleSession));
    let id = SessionId::parse("0123456789abcdef0123456789abcdef", IdFormat::Uuid).unwrap();
    let key = "session:01234567-89ab-cdef-0123-456789abcdef";
    let _: i64 = fixture.redis.hset(key, "name", "Chris").unwrap();
    save(&fixture.store, &id, Action::Destroy, &[]).unwrap();
    assert_eq!(fields(&fixture.store, &id), None);
    assert!(fixture.keys().is_empty());
}

#[test]
fn a_replica_that_cannot_move_a_session_says_so() {
    let mut fixture = Fixture::with(|store| store.migrate_from(Layout::BottleSession));
    let id = SessionId::parse("0123456789abcdef0123456789abcdef", IdFormat::Uuid).unwrap();
    let key = "session:01234567-89ab-cdef-0123-456789abcdef";
    let _: i64 = fixture.redis.hset(key, "name", "Chris").unwrap();
    let replicate = redis::cmd("REPLICAOF").arg("127.0.0.1").arg("1").to_owned();
    replicate.exec(&mut fixture.redis).unwrap();
    let error = load(&fixture.store, &id).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let fixture = Fixture::new();
    let store = || RedisStore::new(RedisPool::open(&fixture.server.url(0)).unwrap());
    let limited = Lifetimes { absolute: Some(Duration::from_secs(1)), ..IDLE };
    let python = Layout::BottleSession;
    for (store, lifetimes, problem) in [
        (store().layout(python), limited, "absolute limit (max_age)"),
        (store().migrate_from(Layout::Default), IDLE, "already has"),
        (store().layout(python).migrate_from(python), IDLE, "already has"),
        (store().layout(python).migrate_from(Layout::Default), IDLE, "has no way"),
    ] {
        let error = store.check(&lifetimes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(problem), "{error}");
    }
    store().check(&limited).unwrap();
    store().layout(python).check(&IDLE).unwrap();
    store().migrate_from(python).check(&limited).unwrap();
}

#[test]
fn a_reply_that_no_session_has_is_not_read() {
    let (_server, port) = RedisServer::start_on_port();
    let proxy = FaultProxy::start(port);
    let store =
        RedisStore::new(RedisPool::open(&proxy.url()).unwrap()).max_bytes(1000).max_fields(2);
    let largest = "x".repeat(499);
    let id = create(&store, &[("a", &largest), ("b", &largest)]);
    assert!(load(&store, &id).unwrap().is_some());
    // Far below what the pool would read for the app's own commands.
    proxy.set(Fault::Garbage(format!("$99999\r\n{}\r\n", "x".repeat(99_999)).leak().as_bytes()));
    let error = load(&store, &id).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Redis);
    assert!(error.to_string().contains("which no session of this store has"), "{error}");
    proxy.set(Fault::Pass);
    assert!(load(&store, &id).unwrap().is_some());
}

#[test]
fn a_reply_of_another_shape_closes_the_connection_although_it_has_the_sessions_mark() {
    let (server, port) = RedisServer::start_on_port();
    let proxy = FaultProxy::start(port);
    // One connection: another that was just being made would get the reply as well.
    let config = RedisConfig::from_url(&proxy.url()).unwrap().pool_size(1);
    let store = RedisStore::new(RedisPool::new(config).unwrap());
    let id = create(&store, &[("a", "1")]);
    let key = Load { id: &id, lifetimes: IDLE };
    let load = |store: &RedisStore| load(store, &id).map(|record| format!("{record:?}"));
    let save = |store: &RedisStore| {
        save(store, &id, Action::Update, &[]).map(|saved| format!("{saved:?}"))
    };
    let take = |store: &RedisStore| store.take(&key, &["b"]).map(|taken| format!("{taken:?}"));
    let add = |store: &RedisStore| store.increment(&key, "n", 1).map(|sum| sum.to_string());
    type Act<'a> = &'a dyn Fn(&RedisStore) -> bottle_session::Result<String>;
    let table: [(Act<'_>, &str); 8] = [
        (&load, "$2\r\nok\r\n"),
        (&load, "$6\r\nstored\r\n"),
        (&load, "$2\r\nok\r\n:1\r\n"),
        (&load, "$4\r\ngone\r\n*0\r\n"),
        (&save, "$2\r\nok\r\n:1\r\n:1\r\n:1\r\n*0\r\n"),
        (&take, "$2\r\nok\r\n:1\r\n"),
        (&add, "$2\r\nok\r\n*0\r\n"),
        (&add, "$6\r\nstored\r\n"),
    ];
    for (act, rest) in table {
        assert!(act(&store).is_ok(), "{rest:?}");
        let before = server.newest_client();
        let count = 1 + rest.matches(['$', ':', '*']).count();
        let reply = format!("*{count}\r\n$16\r\n{}\r\n{rest}", id.mark());
        proxy.set(Fault::Garbage(reply.leak().as_bytes()));
        assert_eq!(act(&store).unwrap_err().kind(), ErrorKind::Desync, "{rest:?}");
        proxy.set(Fault::Pass);
        assert!(act(&store).is_ok(), "{rest:?}");
        assert_ne!(server.newest_client(), before, "{rest:?}");
    }
}

#[test]
fn an_error_of_redis_shows_no_key() {
    // Redis quotes the arguments of a command that it does not know; in this layout a key is an id.
    let server = RedisServer::start(&["--rename-command", "EVALSHA", ""]);
    let store =
        RedisStore::new(RedisPool::open(&server.url(0)).unwrap()).layout(Layout::BottleSession);
    let id = fresh_id(IdFormat::Uuid);
    let error = load(&store, &id).unwrap_err();
    // Quoted in one way or another.
    let text = error.to_string().replace('`', "'");
    assert!(text.contains("unknown command 'EVALSHA'"), "{error}");
    assert!(!format!("{error} {error:?}").contains(&id.expose_uuid()), "{error:?}");
}
