//! What is in Redis: lifetimes, sizes, and records that are none.

use super::*;

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
        let created = fixture.store.load(&load).unwrap().session().unwrap().created;
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
        assert!(fixture.store.load(&load).unwrap().session().is_some());
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
    // The session, and what it has left under its old id.
    let keys = fixture.keys();
    assert_eq!(keys.len(), 2);
    let mut all = Vec::new();
    for key in keys {
        assert_eq!(key.len(), "bottle.session:".len() + 28, "{key}");
        let record: Vec<(Vec<u8>, Vec<u8>)> = fixture.redis.hgetall(&key).unwrap();
        let dump: Vec<u8> = redis::cmd("DUMP").arg(&key).query(&mut fixture.redis).unwrap();
        all.extend([key.into_bytes(), dump, format!("{record:?}").into_bytes()].concat());
    }
    let all = String::from_utf8_lossy(&all);
    for id in [id, to] {
        for secret in [id.expose(), id.expose_uuid(), id.expose_uuid().replace('-', "")] {
            assert!(!all.contains(&secret[..secret.len() - 1]), "{all}");
        }
    }
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
    assert!(
        matches!(&answers[..], [Ok(Loaded::Session(_)), Err(_), Ok(Loaded::Unknown)]),
        "{answers:?}"
    );

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
        let [Ok(Loaded::Session(_)), Err(error), Ok(Loaded::Session(_))] = &answers[..] else {
            panic!("{answers:?}")
        };
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
fn a_restart_from_the_append_only_file_begins_no_lifetime_anew() {
    let mut server = RedisServer::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let store = RedisStore::new(RedisPool::open(&server.url(0)).unwrap());
    create(&store, &[("a", "1")]);
    let key: String = redis::cmd("RANDOMKEY").query(&mut server.connect(0)).unwrap();
    let left = |server: &RedisServer| -> i64 { server.connect(0).pttl(&key).unwrap() };
    // By so much a lifetime that began anew would be longer.
    std::thread::sleep(Duration::from_millis(100));
    let before = left(&server);
    assert!(before > 0);
    server.kill();
    server.start_again();
    let after = left(&server);
    assert!((1..=before).contains(&after), "{before} ms were left, then {after}");
}
