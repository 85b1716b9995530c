//! The layout of Python's bottle-session, and the move from it.

use super::*;

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
    assert!(but_tombstones(&mut fixture.redis).is_empty());
    // Nor does a Python process bring it back within a minute.
    let _: i64 = fixture.redis.hset(key, "name", "late").unwrap();
    assert_eq!(fields(&fixture.store, &id), None);
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
