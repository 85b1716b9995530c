//! What a user of Redis must be allowed, as the documentation says, and what happens where something of it is not.

use bottle_session::{
    Action, App, Changes, EndDevices, ErrorKind, Layout, Load, LogIn, OldId, RedisConfig,
    RedisPool, RedisStore, Result, Save, Saved, Session, SessionPlugin, SessionStore, TestClient,
};

use crate::support::redis_server::RedisServer;
use crate::support::sessions::{IDLE, fresh_id, set};

/// The commands that the documentation of `RedisStore` lists.
pub fn documented() -> Vec<&'static str> {
    let source = include_str!("../src/session/store/redis.rs");
    let lines = source.lines().filter_map(|line| line.strip_prefix("///     +"));
    lines.flat_map(|line| line.split([' ', '+']).filter(|word| !word.is_empty())).collect()
}

/// A pool of a user who may use these commands on these keys.
fn pool(server: &RedisServer, commands: &[&str]) -> RedisPool {
    let mut user = redis::cmd("ACL");
    user.arg("SETUSER").arg("app").arg(&["reset", "on", ">secret", "-@all"]);
    user.arg(&["~bottle.session:*", "~session:*"]);
    for command in commands {
        user.arg(format!("+{command}"));
    }
    user.exec(&mut server.connect(0)).unwrap();
    let config = RedisConfig::from_url(&server.url(0)).unwrap();
    RedisPool::new(config.username("app").password("secret")).unwrap()
}

#[test]
fn what_the_documentation_lists_is_enough() {
    let server = RedisServer::start(&[]);
    let commands = documented();
    assert!(commands.len() > 15 && commands.contains(&"hgetall"), "{commands:?}");
    for layout in [Layout::Default, Layout::BottleSession] {
        let mut app = App::new();
        let plugin = SessionPlugin::new().pool(pool(&server, &commands)).layout(layout);
        app.install(plugin).unwrap();
        app.get("/<what>", |s: &mut Session, what: &str| -> Result<()> {
            match what {
                "set" => s.set("name", "Ada"),
                "remove" => drop(s.remove("name")),
                "clear" => {
                    s.clear();
                    s.set("again", "1");
                }
                "remember" => s.remember(std::time::Duration::from_secs(7200)),
                "incr" => drop(s.incr("n", 1)?),
                "take" => drop(s.take("again")?),
                "claim" => drop(s.set_if_absent("claimed", "yes")?),
                "flash" => s.flash("info", "message"),
                "flashes" => drop(s.take_flashes()?),
                "regenerate" => s.regenerate(),
                "clear-and-regenerate" => {
                    s.clear();
                    s.set("kept", "1");
                    s.regenerate();
                }
                "destroy" => s.destroy(),
                _ => drop(s.get("name")),
            }
            Ok(())
        });
        let client = TestClient::new(app).unwrap();
        for what in [
            "set",
            "get",
            "set",
            "remember",
            "incr",
            "remove",
            "clear",
            "take",
            "claim",
            "flash",
            "flashes",
            "regenerate",
            "get",
            "clear-and-regenerate",
            "destroy",
            "get",
            "set",
        ] {
            let answer = client.get(&format!("/{what}")).send();
            assert_eq!(answer.status(), 200, "{layout:?} {what}");
        }
        assert!(client.cookie("bottle.session").is_some());
    }
    // One that takes over what Python has left.
    let store = RedisStore::new(pool(&server, &commands)).migrate_from(Layout::BottleSession);
    let key = "session:01234567-89ab-cdef-0123-456789abcdef";
    redis::cmd("HSET").arg(key).arg(&["a", "1"]).exec(&mut server.connect(0)).unwrap();
    let id = "0123456789abcdef0123456789abcdef";
    let id = bottle_session::SessionId::parse(id, bottle_session::IdFormat::Uuid).unwrap();
    assert!(store.load(&Load { id: &id, lifetimes: IDLE }).unwrap().session().is_some());
}

/// All that a store does, and what became of it.
pub fn use_all(store: &RedisStore) -> Vec<Result<()>> {
    let [id, to, late, other, old, new] = [(); 6].map(|()| fresh_id(store.id_format()));
    let save = |id, action, changes: &Changes| {
        let save = Save::new(id, action, changes, IDLE);
        store.save(&save).map(drop)
    };
    let load = Load { id: &id, lifetimes: IDLE };
    let (mut changes, none) = (set(&[("a", "1"), ("b", "2")]), Changes::default());
    let created = save(&id, Action::Create, &changes);
    changes.fields.insert("b".to_owned(), None);
    let cleared = Changes { cleared: true, ..changes.clone() };
    let log_in = |id| {
        if !store.keeps_logins() {
            return Ok(());
        }
        let save = Save::new(id, Action::Create, &none, IDLE);
        store.save(&Save { login: Some(LogIn::new("ada")), ..save })?;
        store.devices("ada", None)?;
        store.end_devices("ada", EndDevices::All).map(drop)
    };
    let in_grace = || {
        if !store.keeps_tombstones() {
            return Ok(());
        }
        save(&old, Action::Create, &none)?;
        let old_id = OldId::InGrace("text");
        let rotate = Save::new(&old, Action::Rotate { to: &new }, &none, IDLE);
        store.save(&Save { old_id, ..rotate })?;
        save(&old, Action::ExtendGrace, &none)?;
        save(&old, Action::EndGrace(IDLE.idle), &none)?;
        // By the old id.
        save(&old, Action::Destroy, &none)
    };
    vec![
        created,
        log_in(&other),
        store.load(&load).map(drop),
        save(&id, Action::Update, &changes),
        save(&id, Action::Update, &cleared),
        save(&late, Action::Update, &changes),
        save(&id, Action::Create, &set(&[("a", "other")])).or(Ok(())),
        store.increment(&load, "n", 1).map(drop),
        store.set_if_absent(&load, "c", "1").map(drop),
        store.take(&load, &["c"]).map(drop),
        save(&id, Action::Rotate { to: &to }, &none),
        save(&to, Action::Rotate { to: &id }, &cleared),
        in_grace(),
        save(&id, Action::Destroy, &none),
    ]
}

#[test]
fn what_is_not_allowed_is_named_with_what_would_do_and_leaves_no_record_without_an_end() {
    let server = RedisServer::start(&[]);
    let mut connection = server.connect(0);
    for layout in [Layout::Default, Layout::BottleSession] {
        for missing in documented().into_iter().filter(|command| *command != "restore") {
            redis::cmd("FLUSHALL").exec(&mut connection).unwrap();
            let allowed = documented().into_iter().filter(|command| *command != missing);
            let store = RedisStore::new(pool(&server, &allowed.collect::<Vec<_>>())).layout(layout);
            let outcomes = use_all(&store);
            let refused: Vec<_> = outcomes.iter().filter_map(|done| done.as_ref().err()).collect();
            for error in &refused {
                let text = error.to_string();
                // An operation on a session that could not be made.
                if error.kind() != ErrorKind::Gone {
                    assert_eq!(
                        error.kind(),
                        ErrorKind::Config,
                        "{layout:?} without {missing}: {text}"
                    );
                    let names = text.contains(missing) || text.contains("script");
                    assert!(
                        names && text.contains("documentation of RedisStore"),
                        "{missing}: {text}"
                    );
                }
            }
            // What the other layout, or a pool that is in doubt, needs.
            let elsewhere: &[&str] = match layout {
                Layout::Default => &["ping", "exists"],
                _ => &["ping", "hexists", "hkeys", "pttl"],
            };
            if !elsewhere.contains(&missing) {
                assert!(!refused.is_empty(), "{layout:?}: nothing needs {missing}");
            }
            let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut connection).unwrap();
            for key in keys {
                let left: i64 = redis::cmd("PTTL").arg(&key).query(&mut connection).unwrap();
                assert!(left > 0, "{layout:?} without {missing}: {key} stays for ever");
            }
        }
    }
}

#[test]
fn without_restore_a_script_creates_sessions_or_nothing() {
    let server = RedisServer::start(&[]);
    let mut connection = server.connect(0);
    for layout in [Layout::Default, Layout::BottleSession] {
        for missing in [&["restore"][..], &["restore", "pexpire"]] {
            redis::cmd("FLUSHALL").exec(&mut connection).unwrap();
            let allowed = documented().into_iter().filter(|command| !missing.contains(command));
            let store = RedisStore::new(pool(&server, &allowed.collect::<Vec<_>>())).layout(layout);
            let outcomes = use_all(&store);
            if missing == ["restore"] {
                assert!(outcomes.iter().all(Result::is_ok), "{layout:?}: {outcomes:?}");
            } else {
                assert_eq!(outcomes[0].as_ref().unwrap_err().kind(), ErrorKind::Config);
                let size: u64 = redis::cmd("DBSIZE").query(&mut connection).unwrap();
                assert_eq!(size, 0, "{layout:?}: all or nothing");
            }
        }
    }
}

#[test]
fn a_record_of_any_size_is_created_as_its_script_would_create_it() {
    let server = RedisServer::start(&[]);
    let all = documented();
    let scripted: Vec<_> = all.iter().copied().filter(|command| *command != "restore").collect();
    let long = "é".repeat(20_000);
    for (fields, value) in [(1, "x"), (1, ""), (63, "y"), (64, "z"), (256, "w"), (1, &long[..])] {
        let changes = (0..fields).map(|number| (format!("key{number}"), Some(value.to_owned())));
        let changes = Changes { cleared: false, fields: changes.collect() };
        let created = [&all, &scripted].map(|commands| {
            let store = RedisStore::new(pool(&server, commands));
            let id = fresh_id(store.id_format());
            let create = || store.save(&Save::new(&id, Action::Create, &changes, IDLE)).unwrap();
            // The second time is as good as the first: its answer was lost, perhaps.
            assert_eq!((create(), create()), (Saved::Stored, Saved::Stored));
            let record = store.load(&Load { id: &id, lifetimes: IDLE }).unwrap().session().unwrap();
            let held: Vec<_> = record
                .fields
                .iter()
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect();
            let mut connection = server.connect(0);
            let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut connection).unwrap();
            let of_key =
                |command: &str, what: &str| redis::cmd(command).arg(what).arg(&keys[0]).take();
            let memory: u64 = of_key("MEMORY", "USAGE").query(&mut connection).unwrap();
            let encoding: String = of_key("OBJECT", "ENCODING").query(&mut connection).unwrap();
            let left: i64 = redis::cmd("PTTL").arg(&keys[0]).query(&mut connection).unwrap();
            let idle = IDLE.idle.as_millis() as i64;
            assert!((idle..=idle * 11 / 10).contains(&left), "{left}");
            redis::cmd("FLUSHALL").exec(&mut connection).unwrap();
            (held, encoding, memory)
        });
        let [restored, scripted] = created;
        assert_eq!(restored.0.len(), fields);
        let case = format!("{fields} fields of {} bytes", value.len());
        assert!(restored.0 == scripted.0, "{case}");
        assert_eq!(restored.1, scripted.1, "{case}");
        // What the allocator gives for the same size is not the same each time.
        let (one, other) = (restored.2, scripted.2);
        assert!(one.abs_diff(other) <= 32 + other / 20, "{one}, {other}: {case}");
    }
}

#[test]
fn an_update_without_its_pexpire_changes_nothing() {
    let server = RedisServer::start(&[]);
    let all = documented();
    let without: Vec<_> = all.iter().copied().filter(|command| *command != "pexpire").collect();
    for layout in [Layout::Default, Layout::BottleSession] {
        let store = RedisStore::new(pool(&server, &all)).layout(layout);
        let [id, to] = [(); 2].map(|()| fresh_id(store.id_format()));
        let save = |action, changes: &Changes| {
            let (id, lifetimes) = (&id, IDLE);
            store.save(&Save::new(id, action, changes, lifetimes))
        };
        assert_eq!(save(Action::Create, &set(&[("a", "1")])).unwrap(), Saved::Stored);
        pool(&server, &without);
        for (action, changes) in [
            (Action::Update, set(&[("a", "2"), ("b", "2")])),
            (Action::Update, Changes { cleared: true, ..Changes::default() }),
            (Action::Rotate { to: &to }, set(&[("a", "2")])),
        ] {
            assert_eq!(save(action, &changes).unwrap_err().kind(), ErrorKind::Config);
        }
        let record = store.load(&Load { id: &id, lifetimes: IDLE }).unwrap().session().unwrap();
        assert!(record.fields.iter().eq([("a", "1")]), "{layout:?}");
    }
}

#[test]
fn a_command_that_has_another_name_is_named_with_what_would_do() {
    for (renamed, layout) in [("HGETALL", Layout::Default), ("EVAL", Layout::BottleSession)] {
        let server = RedisServer::start(&["--rename-command", renamed, "elsewhere"]);
        let store = RedisStore::new(RedisPool::open(&server.url(0)).unwrap()).layout(layout);
        let outcomes = use_all(&store);
        let refused: Vec<_> = outcomes.into_iter().filter_map(Result::err).collect();
        let named = refused.iter().filter(|error| error.to_string().contains(renamed));
        for error in named.clone() {
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains("under their own names"), "{error}");
        }
        assert!(named.count() > 0, "{refused:?}");
    }
}
