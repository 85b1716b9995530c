//! What only Redis can show: commands, round trips, TTLs, what a dump gives away, foreign records.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bottle_session::{
    Action, Changes, ErrorKind, IdFormat, Layout, Lifetimes, Load, RedisPool, RedisStore, Remember,
    Save, Saved, SessionId, SessionStore,
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
    // It writes nothing.
    assert_eq!(used, commands(&[("hgetall", 1), ("echo", 1)]));
}

#[test]
fn a_save_is_one_round_trip() {
    let mut fixture = Fixture::new();
    let id = create(&fixture.store, &[("a", "1")]);
    let (trips, used) = fixture.count(|store| {
        save(store, &id, Action::Update, &[("a", "2"), ("b", "3")]).unwrap();
    });
    assert_eq!(trips, 1);
    let transaction = [("multi", 1), ("hset", 1), ("hmget", 1), ("pexpire", 1), ("exec", 1)];
    let expected = [&transaction[..], &[("echo", 1)]].concat();
    assert_eq!(used, commands(&expected));
}

#[test]
fn a_creation_an_end_and_a_move_are_one_round_trip_each() {
    for layout in [Layout::Default, Layout::BottleSession] {
        let mut fixture = Fixture::with(|store| store.layout(layout));
        let format = fixture.store.id_format();
        let (id, to) = (fresh_id(format), fresh_id(format));
        create(&fixture.store, &[("a", "1")]);
        for (id, action) in [
            (&id, Action::Create),
            (&id, Action::Update),
            (&id, Action::Rotate { to: &to }),
            (&to, Action::Destroy),
        ] {
            let (trips, used) = fixture.count(|store| {
                let pairs = if action == Action::Destroy { &[][..] } else { &[("b", "2")] };
                assert_eq!(save(store, id, action, pairs).unwrap(), Saved::Stored);
            });
            assert_eq!(trips, 1, "{layout:?} {action:?}: {used:?}");
        }
    }
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
    assert_eq!((trips, used["hgetall"], used["echo"]), (1, 32, 1));
    let changes = set(&[("a", "2")]);
    let update = |id| Save::new(id, Action::Update, &changes, IDLE);
    let saves: Vec<_> = ids.iter().map(update).collect();
    let (trips, used) = fixture.count(|store| {
        let mut saved = store.save_many(&saves).into_iter();
        assert!(saved.all(|saved| saved.unwrap() == Saved::Stored));
    });
    assert_eq!((trips, used["exec"], used["echo"]), (1, 32, 1));
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
    let (trips, used) = fixture.count(act);
    assert_eq!((trips, used["eval"]), (3, 3));
}

#[test]
fn the_ttl_is_a_tenth_longer_than_the_lifetimes_say_and_never_past_the_absolute_limit() {
    let hour = Duration::from_secs(3600);
    let day = Some(24 * hour);
    let limited = |absolute| Lifetimes { idle: hour, absolute: Some(absolute) };
    let forever = Lifetimes { idle: Duration::MAX, absolute: None };
    let hundred_years = 100 * 365 * 24 * 3600;
    for (lifetimes, remember, seconds) in [
        (IDLE, None, 3960),
        (IDLE, day, 24 * 3960),
        (limited(hour / 2), None, 1800),
        (limited(2 * hour), None, 3960),
        (limited(2 * hour), day, 7200),
        (forever, None, hundred_years),
        (forever, Some(Duration::MAX), hundred_years),
    ] {
        let mut fixture = Fixture::new();
        let (id, changes) = (fresh_id(IdFormat::Base64Url), set(&[("a", "1")]));
        let update = Save::new(&id, Action::Update, &changes, lifetimes);
        let remember = Remember::To(remember);
        let create = Save { action: Action::Create, remember, ..update.clone() };
        fixture.store.save(&create).unwrap();
        is_about(fixture.ttl(), seconds);
        let key = fixture.key();
        let load = Load { id: &id, lifetimes };
        let created = fixture.store.load(&load).unwrap().unwrap().created;
        let refreshes: [&dyn Fn(&RedisStore); 2] =
            [&|store| assert_eq!(store.save(&update).unwrap(), Saved::Stored), &|store| {
                let known = Save { created, ..update.clone() };
                assert_eq!(store.save(&known).unwrap(), Saved::Stored);
            }];
        for refresh in refreshes {
            let _: bool = fixture.redis.pexpire(&key, 60_000).unwrap();
            refresh(&fixture.store);
            is_about(fixture.ttl(), seconds);
        }
        let _: bool = fixture.redis.pexpire(&key, 60_000).unwrap();
        let before = fixture.ttl();
        assert!(fixture.store.load(&load).unwrap().is_some());
        assert_eq!(fixture.store.increment(&load, "n", 1).unwrap(), 1);
        assert_eq!(fixture.store.take(&load, &["none"]).unwrap(), [None]);
        assert!(!fixture.store.set_if_absent(&load, "a", "9").unwrap());
        assert!(fixture.ttl() <= before, "these leave it as it is");
        let to = fresh_id(IdFormat::Base64Url);
        fixture.store.save(&Save { action: Action::Rotate { to: &to }, ..update.clone() }).unwrap();
        is_about(fixture.ttl(), seconds);
    }
}

#[test]
fn a_session_with_one_short_value_takes_less_than_200_bytes_of_redis() {
    let mut fixture = Fixture::new();
    let changes = set(&[("name", "Ada")]);
    let id = fresh_id(IdFormat::Base64Url);
    let save = Save::new(&id, Action::Create, &changes, IDLE);
    fixture.store.save(&save).unwrap();
    let key = fixture.key();
    let usage = redis::cmd("MEMORY").arg("USAGE").arg(&key).to_owned();
    let bytes: u64 = usage.query(&mut fixture.redis).unwrap();
    println!("{bytes} bytes");
    // tower-sessions has 203, actix-session 214.
    assert!(bytes < 200, "{bytes} bytes");
}

#[test]
fn a_dump_of_redis_shows_no_id() {
    let mut fixture = Fixture::new();
    let id = create(&fixture.store, &[("name", "Chris")]);
    let to = fresh_id(IdFormat::Base64Url);
    save(&fixture.store, &id, Action::Rotate { to: &to }, &[]).unwrap();
    let key = fixture.key();
    assert_eq!(key.len(), "bottle.session:".len() + 28, "{key}");
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
    let to = fresh_id(IdFormat::Base64Url);
    for error in [
        fixture.store.take(&bobs_load, &["name"]).unwrap_err(),
        save(&fixture.store, &bob, Action::Update, &[("name", "Bob")]).unwrap_err(),
        fixture.store.increment(&bobs_load, "n", 1).unwrap_err(),
        save(&fixture.store, &bob, Action::Rotate { to: &to }, &[]).unwrap_err(),
    ] {
        let before = fixture.connections();
        assert_eq!(error.kind(), ErrorKind::Desync, "{error}");
        assert_eq!(fields(&fixture.store, &carol), Some(owned(&[("name", "Carol")])));
        assert!(fixture.connections() <= before + 1);
    }
    // It is nobody's, whatever has been written to it.
    assert_eq!(fields(&fixture.store, &to), None);
    assert_eq!(load(&fixture.store, &bob).unwrap_err().kind(), ErrorKind::Desync);
}

#[test]
fn a_damaged_record_is_no_session() {
    type Damage<'a> = &'a [(&'a str, Option<&'a [u8]>)];
    let damages: [(&str, Damage<'_>); 7] = [
        ("no proof", &[("\0", None)]),
        ("a strange proof", &[("\0", Some(b"x"))]),
        ("an empty proof", &[("\0", Some(b""))]),
        ("a proof of the version before", &[("\0", Some(b"1:1760000000000:1760000000000::00"))]),
        ("no time of creation", &[("\0", Some(b"1AAAAAAAAAAA"))]),
        ("a strange time of creation", &[("\0", Some(b"1AAAAAAAAAAA-1"))]),
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
            assert_eq!(fields(&fixture.store, &id), None, "{what}");
        }
    }
}

#[test]
fn the_stores_own_fields_may_be_missing_or_strange() {
    for (field, value) in
        [("\0s", None), ("\0s", Some("x")), ("\0s", Some("1.2.3")), ("\0r", Some("-5"))]
    {
        let mut fixture = Fixture::new();
        let id = create(&fixture.store, &[("name", "Chris")]);
        let key = fixture.key();
        let _: i64 = match value {
            Some(value) => fixture.redis.hset(&key, field, value).unwrap(),
            None => fixture.redis.hdel(&key, field).unwrap(),
        };
        let record = load(&fixture.store, &id).unwrap().unwrap();
        // Old enough to be saved anew.
        let old = field == "\0s";
        assert_eq!(
            record.renewed_ago >= Some(Duration::from_secs(360)),
            old,
            "{field:?} {value:?}"
        );
        assert_eq!(save(&fixture.store, &id, Action::Update, &[]).unwrap(), Saved::Stored);
        let record = load(&fixture.store, &id).unwrap().unwrap();
        assert!(record.renewed_ago < Some(Duration::from_secs(60)), "{field:?} {value:?}");
        is_about(fixture.ttl(), 3960);
    }
}

#[test]
fn a_record_of_a_newer_version_is_an_error_and_never_no_session() {
    let mut fixture = Fixture::new();
    let id = create(&fixture.store, &[("name", "Chris")]);
    let key = fixture.key();
    let _: i64 = fixture.redis.hset(&key, "\0", "2 whatever that may be").unwrap();
    let at = Load { id: &id, lifetimes: IDLE };
    let to = fresh_id(IdFormat::Base64Url);
    for error in [
        load(&fixture.store, &id).unwrap_err(),
        save(&fixture.store, &id, Action::Update, &[("b", "2")]).unwrap_err(),
        save(&fixture.store, &id, Action::Rotate { to: &to }, &[]).unwrap_err(),
        fixture.store.increment(&at, "n", 1).unwrap_err(),
        fixture.store.take(&at, &["b"]).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Config);
        assert_eq!(
            error.to_string(),
            "the session's record in redis was written by a newer version of bottle-session; bring this \
             program up to that version too, or keep the two apart with key_prefix"
        );
    }
    let proof: String = fixture.redis.hget(&key, "\0").unwrap();
    assert_eq!(proof, "2 whatever that may be");
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
            fixture.store.increment(&load, "n", 1).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        }
        save(&fixture.store, &first, Action::Rotate { to: &id }, &[]).unwrap_err();
        assert!(fields(&fixture.store, &first).is_some());
        assert_eq!(fixture.redis.get::<_, String>(&key).unwrap(), "a string");
    }
}

#[test]
fn a_record_that_is_far_too_large_is_no_session() {
    for layout in [Layout::Default, Layout::BottleSession] {
        let mut fixture = Fixture::with(|store| store.layout(layout).max_fields(3).max_bytes(1000));
        let id = create(&fixture.store, &[("a", "1"), ("b", "2"), ("c", "3")]);
        let key = fixture.key();
        // What requests at the same time have made of it together.
        for number in 4..=12 {
            assert!(fields(&fixture.store, &id).is_some(), "{number} fields");
            let _: i64 = fixture.redis.hset(&key, number.to_string(), "4").unwrap();
        }
        assert_eq!(fields(&fixture.store, &id).unwrap().len(), 12);
        // All others together have 22 bytes, and 1 is the key's.
        let others = 2 * 2 + 9 * 2 + 3;
        let _: i64 = fixture.redis.hset(&key, "c", "x".repeat(4000 - others - 1)).unwrap();
        assert!(fields(&fixture.store, &id).is_some());
        let whole: BTreeMap<String, String> = fixture.redis.hgetall(&key).unwrap();
        for (name, value) in [("c", "x".repeat(4000 - others)), ("d", "4".to_owned())] {
            let _: i64 = fixture
                .redis
                .hset_multiple(&key, &whole.iter().collect::<Vec<_>>())
                .map(|()| 0)
                .unwrap();
            assert!(fields(&fixture.store, &id).is_some());
            let _: i64 = fixture.redis.hset(&key, name, value).unwrap();
            assert_eq!(fields(&fixture.store, &id), None);
            // It is not read again and again.
            assert!(fixture.keys().is_empty());
        }
    }
}

/// Together with what the session holds it is for [`Session`](bottle_session::Session) to judge, which has loaded it.
#[test]
fn what_is_too_large_by_itself_is_not_written() {
    for layout in [Layout::Default, Layout::BottleSession] {
        let fixture = Fixture::with(|store| store.layout(layout).max_fields(2).max_bytes(10));
        let store = &fixture.store;
        let id = create(store, &[("a", "1"), ("b", "2")]);
        let (to, other) = (fresh_id(store.id_format()), fresh_id(store.id_format()));
        let large = [("a", "1234567890")];
        let many = [("c", "3"), ("d", "4"), ("e", "5")];
        for error in [
            save(store, &id, Action::Update, &large).unwrap_err(),
            save(store, &id, Action::Update, &many).unwrap_err(),
            save(store, &id, Action::Rotate { to: &to }, &many).unwrap_err(),
            save(store, &other, Action::Create, &large).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Session, "{error}");
        }
        assert_eq!(fields(store, &id), Some(owned(&[("a", "1"), ("b", "2")])));
        assert_eq!((fields(store, &to), fields(store, &other)), (None, None));
        assert_eq!(store.caps(), bottle_session::Caps { fields: 2, bytes: 10 });
        // Two requests, each of which knows of two fields.
        for pair in [("c", "3"), ("d", "4")] {
            assert_eq!(save(store, &id, Action::Update, &[pair]).unwrap(), Saved::Stored);
        }
        assert_eq!(fields(store, &id).unwrap().len(), 4);
    }
}

#[test]
fn no_users_key_reaches_the_metadata() {
    let fixture = Fixture::new();
    let store = &fixture.store;
    let id = create(store, &[("a", "1")]);
    let load = Load { id: &id, lifetimes: IDLE };
    let changes = set(&[("\0", "x")]);
    let bad = Save::new(&id, Action::Update, &changes, IDLE);
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
        let save = Save::new(&id, action, changes, IDLE);
        assert_eq!(fixture.store.save(&save).unwrap(), Saved::Stored);
    };
    save(Action::Create, &many(Some("1")));
    assert_eq!(fields(&fixture.store, &id).unwrap().len(), 9_999);
    save(Action::Update, &many(None));
    assert_eq!(fields(&fixture.store, &id), Some(Vec::new()));
}

#[test]
fn a_batch_keeps_its_order_also_where_a_step_takes_two_round_trips() {
    let mut fixture = Fixture::new();
    let ids: Vec<_> = (0..3).map(|_| create(&fixture.store, &[("a", "1")])).collect();
    let to = fresh_id(IdFormat::Base64Url);
    let changes = set(&[("b", "2")]);
    let none = Changes::default();
    let save = |id, action| {
        Save::new(id, action, if action == Action::Destroy { &none } else { &changes }, IDLE)
    };
    let batch = [
        save(&ids[0], Action::Update),
        save(&ids[0], Action::Rotate { to: &to }),
        save(&ids[0], Action::Update),
        save(&ids[1], Action::Destroy),
        save(&ids[1], Action::Update),
        save(&ids[2], Action::Update),
    ];
    let saved: Vec<_> = fixture.store.save_many(&batch).into_iter().map(Result::unwrap).collect();
    use Saved::{Gone, Stored};
    assert_eq!(saved, [Stored, Stored, Gone, Stored, Gone, Stored]);
    let loads = [&to, &ids[1], &ids[2]].map(|id| Load { id, lifetimes: IDLE });
    let loaded = fixture.store.load_many(&loads);
    assert!(matches!(&loaded[..], [Ok(Some(_)), Ok(None), Ok(Some(_))]), "{loaded:?}");
    // Nothing is left of what came too late.
    assert_eq!(fixture.keys().len(), 2);
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
        let update = Save::new(&id, Action::Update, &changes, IDLE);
        let load = Load { id: &id, lifetimes: IDLE };
        let refresh = Save { changes: &Changes::default(), ..update.clone() };
        // Who only reads is not logged out by a Redis that is full for long.
        let refreshed = fixture.store.save(&refresh);
        match option {
            "maxmemory" => assert_eq!(refreshed.unwrap(), Saved::Stored),
            _ => assert_eq!(refreshed.unwrap_err().kind(), ErrorKind::Unavailable),
        }
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
    is_about(fixture.ttl(), 3960);
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

/// Where Redis does not write now, sessions that are to move are read where they are.
#[test]
fn sessions_of_bottle_session_are_read_where_they_cannot_be_moved_now() {
    let (key, id) =
        ("session:01234567-89ab-cdef-0123-456789abcdef", "0123456789abcdef0123456789abcdef");
    let id = SessionId::parse(id, IdFormat::Uuid).unwrap();
    for option in ["maxmemory", "min-replicas-to-write", "REPLICAOF"] {
        let mut fixture = Fixture::with(|store| store.migrate_from(Layout::BottleSession));
        let _: i64 = fixture.redis.hset(key, "name", "Chris").unwrap();
        match option {
            "REPLICAOF" => redis::cmd(option).arg("127.0.0.1").arg("1").to_owned(),
            _ => redis::cmd("CONFIG").arg("SET").arg(option).arg("1").to_owned(),
        }
        .exec(&mut fixture.redis)
        .unwrap();
        for _ in 0..2 {
            assert_eq!(fields(&fixture.store, &id), Some(owned(&[("name", "Chris")])), "{option}");
            // A move needs no memory, but Redis 7 queues nothing for a transaction without.
            assert!(fixture.key() == key || option == "maxmemory", "{option}");
        }
        let error = save(&fixture.store, &id, Action::Update, &[("a", "1")]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
}

#[test]
fn what_cannot_be_taken_over_from_bottle_session_stays_where_it_is() {
    let (key, id) =
        ("session:01234567-89ab-cdef-0123-456789abcdef", "0123456789abcdef0123456789abcdef");
    let id = SessionId::parse(id, IdFormat::Uuid).unwrap();
    let many: Vec<_> = (0..1025).map(|at| (format!("f{at}"), b"1".to_vec())).collect();
    type Pairs = Vec<(String, Vec<u8>)>;
    let cases: [(Pairs, &str); 4] = [
        (
            vec![("name".into(), b"\xff".to_vec())],
            "has fields that are not text; it is not taken over",
        ),
        (vec![("n\u{e9}".into(), b"1".to_vec()), ("b".into(), b"\xc3".to_vec())], "not taken over"),
        (many, "is far larger than 256 fields or 65536 bytes"),
        (vec![("a".into(), vec![b'x'; 5 * 65536])], "is far larger than 256 fields or 65536 bytes"),
    ];
    for (pairs, why) in cases {
        let mut fixture = Fixture::with(|store| store.migrate_from(Layout::BottleSession));
        let heard = Arc::new(Mutex::new(Vec::new()));
        let log = heard.clone();
        fixture.store.on_damage(Box::new(move |why| log.lock().unwrap().push(why.to_string())));
        let _: () = fixture.redis.hset_multiple(key, &pairs).unwrap();
        assert_eq!(fields(&fixture.store, &id), None, "{why}");
        let heard = heard.lock().unwrap();
        assert!(heard.len() == 1 && heard[0].contains(why), "{heard:?}");
        assert_eq!((fixture.key().as_str(), fixture.redis.hlen(key)), (key, Ok(pairs.len())));
    }
    // Within what is tolerated it is taken over.
    let mut fixture = Fixture::with(|store| store.migrate_from(Layout::BottleSession));
    let pairs: Vec<_> = (0..257).map(|at| (format!("f{at}"), "1")).collect();
    let _: () = fixture.redis.hset_multiple(key, &pairs).unwrap();
    assert_eq!(fields(&fixture.store, &id).unwrap().len(), 257);
    assert!(fixture.key().starts_with("bottle.session:"));
}

#[test]
fn in_bottle_sessions_layout_a_value_that_is_not_text_is_absent_and_left_alone() {
    let mut fixture = Fixture::with(|store| store.layout(Layout::BottleSession));
    let heard = Arc::new(Mutex::new(0));
    let log = heard.clone();
    fixture.store.on_damage(Box::new(move |why| {
        assert!(
            why.to_string().ends_with("has fields that are not text; these are left out"),
            "{why}"
        );
        *log.lock().unwrap() += 1;
    }));
    let id = create(&fixture.store, &[("name", "Chris"), ("b", "2")]);
    let key = fixture.key();
    let _: i64 = fixture.redis.hset(&key, "picture", b"\xff\xd8").unwrap();
    let _: i64 = fixture.redis.hset(&key, b"\xff", "1").unwrap();
    assert_eq!(fields(&fixture.store, &id), Some(owned(&[("b", "2"), ("name", "Chris")])));
    assert_eq!(*heard.lock().unwrap(), 1);
    assert_eq!(save(&fixture.store, &id, Action::Update, &[("b", "3")]).unwrap(), Saved::Stored);
    assert_eq!(fields(&fixture.store, &id), Some(owned(&[("b", "3"), ("name", "Chris")])));
    let kept: Vec<u8> = fixture.redis.hget(&key, "picture").unwrap();
    assert_eq!(kept, b"\xff\xd8");
    let load = Load { id: &id, lifetimes: IDLE };
    assert_eq!(fixture.store.take(&load, &["picture", "b"]).unwrap(), [None, Some("3".into())]);
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
    proxy.set(Fault::Garbage(format!("$199999\r\n{}\r\n", "x".repeat(199_999)).leak().as_bytes()));
    let error = load(&store, &id).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Redis);
    assert!(error.to_string().contains("which no session of this store has"), "{error}");
    proxy.set(Fault::Pass);
    assert!(load(&store, &id).unwrap().is_some());
}

#[test]
fn an_error_of_redis_shows_no_key() {
    // Redis quotes the arguments of a command that it does not know; in this layout a key is an id.
    let server = RedisServer::start(&["--rename-command", "HGETALL", ""]);
    let store =
        RedisStore::new(RedisPool::open(&server.url(0)).unwrap()).layout(Layout::BottleSession);
    let id = fresh_id(IdFormat::Uuid);
    let error = load(&store, &id).unwrap_err();
    // Quoted in one way or another.
    let text = error.to_string().replace('`', "'");
    assert!(text.contains("unknown command 'HGETALL'"), "{error}");
    assert!(!format!("{error} {error:?}").contains(&id.expose_uuid()), "{error:?}");
}
