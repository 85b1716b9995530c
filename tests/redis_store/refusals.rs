//! Settings and servers that refuse.

use super::*;

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
        // A rotation that may not leave the new id under the old one does not happen.
        let to = fresh_id(IdFormat::Base64Url);
        let rotate = Save { action: Action::Rotate { to: &to }, ..refresh.clone() };
        let rotated = fixture.store.save(&Save { old_id: OldId::InGrace("text"), ..rotate });
        assert_eq!(rotated.unwrap_err().kind(), ErrorKind::Unavailable, "{what}");
        assert_eq!(fields(&fixture.store, &to), None, "{what}");
        assert_eq!(fields(&fixture.store, &id), Some(held), "{what}: written in part");
        // What only removes works where there is no memory left, and says that it has.
        let ended = save(&fixture.store, &id, Action::Destroy, &[]);
        match option {
            "maxmemory" => {
                assert_eq!(ended.unwrap(), Saved::Stored);
                assert_eq!(fixture.store.load(&load).unwrap(), Loaded::Ended);
                assert_eq!(save(&fixture.store, &id, Action::Destroy, &[]).unwrap(), Saved::Gone);
            }
            _ => assert_eq!(ended.unwrap_err().kind(), ErrorKind::Unavailable, "{what}"),
        }
    }
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
