//! Sealed values: what a store shows of them, what becomes of damage, and that sessions do all that they do otherwise.

#[path = "sealed/seen.rs"]
mod seen;

#[path = "sealed/races.rs"]
mod races;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bottle_session::{
    Action, App, Changes, CsrfPlugin, Durability, ErrorKind, Fields, Layout, Load, Loaded,
    LoginPlugin, MemoryStore, Provided, RedisPool, RedisStore, Request, Result, Save, Saved,
    Session, SessionId, SessionPlugin, SessionStore, SqliteStore, TestClient,
};

use crate::support::redis_server::RedisServer;
use crate::support::sessions::{IDLE, load};

const COOKIE: &str = "bottle.session";

/// Where the data key of a record lies.
const KEY: &str = "\u{1}k";

/// Each handler of a session's operations.
fn app(plugin: SessionPlugin) -> App {
    let mut app = App::new();
    app.install(plugin).unwrap();
    app.get("/set/<key>/<value>", |s: &mut Session, key: &str, value: &str| s.set(key, value));
    app.get("/get/<key>", |s: &mut Session, key: &str| s.get(key).unwrap_or("-").to_owned());
    app.get("/all", |s: &mut Session| {
        s.iter().map(|(key, value)| format!("{key}={value};")).collect::<String>()
    });
    app.get("/remove/<key>", |s: &mut Session, key: &str| s.remove(key).unwrap_or_default());
    app.get("/clear", |s: &mut Session| s.clear());
    app.get("/clear-and-set/<value>", |s: &mut Session, value: &str| {
        s.clear();
        s.set("fresh", value);
    });
    app.get("/commit/<value>", |s: &mut Session, value: &str| -> Result<String> {
        s.set("committed", value);
        s.commit()?;
        s.set("after", value);
        Ok(s.get("committed").unwrap_or("-").to_owned())
    });
    app.get("/incr/<key>", |s: &mut Session, key: &str| match s.incr(key, 3) {
        Ok(sum) => sum.to_string(),
        Err(error) => format!("{:?}", error.kind()),
    });
    app.get("/take/<key>", |s: &mut Session, key: &str| -> Result<String> {
        Ok(s.take(key)?.unwrap_or("-".to_owned()))
    });
    app.get("/absent/<key>/<value>", |s: &mut Session, key: &str, value: &str| -> Result<String> {
        Ok(s.set_if_absent(key, value)?.to_string())
    });
    app.get("/regenerate", |s: &mut Session| s.regenerate());
    app.get("/regenerate-and-set/<value>", |s: &mut Session, value: &str| {
        s.regenerate();
        s.set("moved", value);
    });
    app.get("/in/<user>", |s: &mut Session, user: &str| s.log_in(user));
    app.get("/in-twice/<value>", |s: &mut Session, value: &str| -> Result<()> {
        s.set("first", value);
        s.log_in("ada")?;
        s.commit()?;
        s.set("second", value);
        s.regenerate();
        s.commit()?;
        s.log_in("ada")
    });
    app.get("/who", |s: &mut Session| s.user_id().unwrap_or("-").to_owned());
    app.get("/destroy", |s: &mut Session| s.destroy());
    app.get("/remember", |s: &mut Session| s.remember(Duration::from_secs(3600)));
    app.get("/flash/<text>", |s: &mut Session, text: &str| s.flash("info", text));
    app.get("/flashes", |s: &mut Session| -> Result<String> {
        Ok(s.take_flashes()?.into_iter().map(|flash| flash.text + ";").collect())
    });
    app.get("/token", |s: &mut Session| s.csrf_token());
    app
}

fn client(plugin: SessionPlugin) -> TestClient {
    TestClient::new(app(plugin)).unwrap()
}

/// Another browser, with the same cookie.
fn same_session(client: &TestClient) -> TestClient {
    let other = TestClient::of(client.service().clone());
    other.set_cookie(COOKIE, &client.cookie(COOKIE).expect("there is a session"));
    other
}

#[track_caller]
fn text(client: &TestClient, path: &str) -> String {
    let answer = client.get(path).send();
    assert_eq!(answer.status(), 200, "{path}: {}", answer.text());
    answer.text()
}

fn id(client: &TestClient) -> SessionId {
    let cookie = client.cookie(COOKIE).expect("there is a session");
    SessionId::parse(&cookie, Default::default()).expect("it is an id")
}

/// What the store holds under the client's id, the plugin's own fields included.
fn held(store: &dyn SessionStore, client: &TestClient) -> Fields {
    load(store, &id(client)).unwrap().expect("it is live").fields
}

/// Whether all values that the store holds are sealed, or none is.
#[track_caller]
fn is_sealed(store: &dyn SessionStore, client: &TestClient) -> bool {
    let fields = held(store, client);
    let is_text = |text: &str| text.len() < 54;
    let users = fields.iter().filter(|(key, _)| !key.starts_with('\u{1}'));
    let plain: Vec<_> = users.filter(|(_, text)| is_text(text)).map(|(key, _)| key).collect();
    match fields.contains_key(KEY) {
        true => assert!(plain.is_empty(), "{plain:?} are not sealed"),
        false => assert!(!plain.is_empty()),
    }
    fields.contains_key(KEY)
}

/// The same test on each store.
fn on_each_store(test: impl Fn(Arc<dyn SessionStore>)) {
    test(Arc::new(MemoryStore::new()));
    let server = RedisServer::shared();
    let pool = RedisPool::open(&server.url(server.fresh_database())).unwrap();
    test(Arc::new(RedisStore::new(pool)));
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("sessions.db")).unwrap();
    test(Arc::new(store.durability(Durability::Relaxed)));
}

fn plugin(store: &Arc<dyn SessionStore>) -> SessionPlugin {
    SessionPlugin::new().store(store.clone())
}

/// A sequence of numbers that is the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % end
    }
}

/// Something that a visitor does.
fn step(random: &mut Random) -> String {
    let key = ["a", "b", "c", "ü%20"][random.below(4) as usize];
    let value = ["1", "41", "tea", "a%20long%20value%20with%20%E2%82%AC"][random.below(4) as usize];
    match random.below(24) {
        0..=4 => format!("/set/{key}/{value}"),
        5 => format!("/remove/{key}"),
        6 => "/clear".to_owned(),
        7 => format!("/clear-and-set/{value}"),
        8 => format!("/commit/{value}"),
        9..=10 => format!("/incr/{key}"),
        11..=12 => format!("/take/{key}"),
        13..=14 => format!("/absent/{key}/{value}"),
        15 => "/regenerate".to_owned(),
        16 => format!("/regenerate-and-set/{value}"),
        17..=18 => format!("/in/{}", ["ada", "bob"][random.below(2) as usize]),
        19 => format!("/in-twice/{value}"),
        20 => "/remember".to_owned(),
        21 => format!("/flash/{value}"),
        22 => "/flashes".to_owned(),
        _ if random.below(4) == 0 => "/destroy".to_owned(),
        _ => "/who".to_owned(),
    }
}

/// The keys of flashes are random.
fn comparable(answer: &str) -> String {
    let fields = answer.split(';').filter(|field| !field.starts_with("_flash."));
    fields.collect::<Vec<_>>().join(";")
}

#[test]
fn a_sealed_session_does_all_that_another_one_does() {
    on_each_store(|store| {
        for seed in 0..if cfg!(debug_assertions) { 8 } else { 40 } {
            let rotated = |plugin: SessionPlugin| match store.keeps_tombstones() && seed % 2 == 0 {
                true => plugin.renew_every(Duration::from_millis(1)),
                false => plugin,
            };
            let sealed = client(rotated(plugin(&store).sealed()));
            let plain = client(rotated(SessionPlugin::new().in_memory()));
            let (mut random, mut steps) = (Random(seed), Vec::new());
            for _ in 0..60 {
                steps.push(step(&mut random));
                for path in [steps.last().unwrap(), "/all"] {
                    let (got, expected) = (sealed.get(path).send(), plain.get(path).send());
                    assert_eq!(got.status(), expected.status(), "{path} after {steps:?}");
                    let (got, expected) = (comparable(&got.text()), comparable(&expected.text()));
                    assert_eq!(got, expected, "{path} after {steps:?}");
                }
                if sealed.cookie(COOKIE).is_some() {
                    assert!(is_sealed(&*store, &sealed), "after {steps:?}");
                }
            }
        }
    });
}

#[test]
fn sessions_that_are_there_go_on_and_are_sealed_with_the_next_save() {
    on_each_store(|store| {
        for (path, all) in [
            ("/set/c/3", "a=1;b=2;c=3;"),
            ("/set/a/3", "a=3;b=2;"),
            ("/remove/a", "b=2;"),
            ("/incr/a", "a=4;b=2;"),
            ("/take/a", "b=2;"),
            ("/absent/a/3", "a=1;b=2;"),
            ("/clear-and-set/3", "fresh=3;"),
            ("/regenerate", "a=1;b=2;"),
            ("/regenerate-and-set/3", "a=1;b=2;moved=3;"),
            ("/in/ada", "a=1;b=2;"),
            ("/in-twice/3", "a=1;b=2;first=3;second=3;"),
            ("/commit/3", "a=1;after=3;b=2;committed=3;"),
            ("/remember", "a=1;b=2;"),
        ] {
            let former = client(plugin(&store));
            text(&former, "/set/a/1");
            text(&former, "/set/b/2");
            let sealed = client(plugin(&store).sealed());
            sealed.set_cookie(COOKIE, &former.cookie(COOKIE).unwrap());
            assert_eq!(text(&sealed, "/all"), "a=1;b=2;", "{path}");
            assert!(!is_sealed(&*store, &sealed), "{path}: who reads writes nothing");
            text(&sealed, path);
            assert!(is_sealed(&*store, &sealed), "{path}");
            assert_eq!(text(&sealed, "/all"), all, "{path}");
            // Without the option, too, a session is what its record says.
            former.set_cookie(COOKIE, &sealed.cookie(COOKIE).unwrap());
            assert_eq!(text(&former, "/all"), all, "{path}");
            text(&former, "/set/d/4");
            assert!(is_sealed(&*store, &former), "{path}");
            assert_eq!(text(&sealed, "/get/d"), "4", "{path}");
        }
    });
}

#[test]
fn who_only_reads_gets_a_sealed_session_when_its_idle_limit_starts_anew() {
    let now = Arc::new(Mutex::new(std::time::SystemTime::now()));
    let clock = now.clone();
    let store: Arc<dyn SessionStore> =
        Arc::new(MemoryStore::with_clock(move || *clock.lock().unwrap()));
    let former = client(plugin(&store));
    text(&former, "/set/a/1");
    let sealed = client(plugin(&store).sealed());
    sealed.set_cookie(COOKIE, &former.cookie(COOKIE).unwrap());
    *now.lock().unwrap() += Duration::from_secs(60);
    assert_eq!(text(&sealed, "/get/a"), "1");
    assert!(is_sealed(&*store, &sealed));
    assert_eq!(text(&sealed, "/get/a"), "1");
}

fn write(store: &dyn SessionStore, client: &TestClient, fields: &[(&str, Option<&str>)]) {
    let fields = fields.iter().map(|(key, text)| (key.to_string(), text.map(str::to_owned)));
    let changes = Changes { cleared: false, fields: fields.collect() };
    let saved = store.save(&Save::new(&id(client), Action::Update, &changes, IDLE));
    assert_eq!(saved.unwrap(), Saved::Stored);
}

#[test]
fn a_value_that_was_not_sealed_for_its_place_is_damage() {
    type Damage = fn(&Fields, &Fields) -> Vec<(&'static str, Option<String>)>;
    let swaps: [(&str, Damage); 7] = [
        ("two values of a session", |one, _| {
            vec![("a", one.get("b").map(str::to_owned)), ("b", one.get("a").map(str::to_owned))]
        }),
        ("the value of another field", |one, _| vec![("b", one.get("a").map(str::to_owned))]),
        ("another session's value", |_, other| vec![("a", other.get("a").map(str::to_owned))]),
        ("another session's key", |_, other| vec![(KEY, other.get(KEY).map(str::to_owned))]),
        ("another session's record", |_, other| {
            let own = |name| (name, other.get(name).map(str::to_owned));
            vec![own("a"), own("b"), own(KEY)]
        }),
        ("plain text", |_, _| vec![("a", Some("plain".to_owned()))]),
        ("an empty text", |_, _| vec![("a", Some(String::new()))]),
    ];
    on_each_store(|store| {
        for (what, damage) in &swaps {
            let plugin = plugin(&store).sealed();
            let counters = plugin.counters();
            let one = client(plugin);
            let other = TestClient::of(one.service().clone());
            for client in [&one, &other] {
                text(client, "/set/a/1");
                text(client, "/set/b/2");
            }
            let damage = damage(&held(&*store, &one), &held(&*store, &other));
            let damage: Vec<_> =
                damage.iter().map(|(name, text)| (*name, text.as_deref())).collect();
            write(&*store, &one, &damage);
            assert_eq!(text(&one, "/all"), "", "{what}: no session, and no value of it");
            assert_eq!(counters.snapshot().damaged, 1, "{what}");
            assert_eq!(text(&other, "/all"), "a=1;b=2;", "{what}: others go on");
            // A new one takes its place.
            let before = one.cookie(COOKIE);
            text(&one, "/set/a/3");
            assert_ne!(one.cookie(COOKIE), before, "{what}");
            assert_eq!(text(&one, "/all"), "a=3;", "{what}");
        }
    });
}

#[test]
fn what_is_damaged_while_a_request_has_the_session_is_an_error() {
    for path in ["/incr/a", "/take/a"] {
        let store: Arc<dyn SessionStore> = Arc::new(MemoryStore::new());
        let mut app = App::new();
        let plugin = plugin(&store).sealed();
        let counters = plugin.counters();
        app.install(plugin).unwrap();
        let (writing, reading) = (store.clone(), path);
        app.get("/set", |s: &mut Session| s.set("a", 1));
        app.get("/damage", move |s: &mut Session, request: &Request| -> Result<String> {
            let id = request.cookies().raw(COOKIE).next().unwrap();
            let id = SessionId::parse(id, Default::default()).unwrap();
            let fields = [("a".to_owned(), Some("7".to_owned()))];
            let changes = Changes { cleared: false, fields: fields.into() };
            writing.save(&Save::new(&id, Action::Update, &changes, IDLE))?;
            Ok(match reading {
                "/incr/a" => s.incr("a", 1)?.to_string(),
                _ => s.take("a")?.unwrap_or_default(),
            })
        });
        let client = TestClient::new(app).unwrap();
        client.get("/set").send();
        let answer = client.get("/damage").send();
        assert_eq!(answer.status(), 500, "{path}: {}", answer.text());
        assert_eq!(counters.snapshot().damaged, 1, "{path}");
    }
}

#[test]
fn the_caps_count_values_as_they_are() {
    let server = RedisServer::shared();
    let in_redis = SessionPlugin::new().url(&server.url(server.fresh_database()));
    for plugin in [SessionPlugin::new().in_memory(), in_redis] {
        let client = client(plugin.sealed().max_bytes(1000).max_fields(10));
        for n in 0..9 {
            text(&client, &format!("/set/{n}/{}", "x".repeat(99)));
        }
        assert_eq!(client.get(&format!("/set/9/{}", "x".repeat(100))).send().status(), 500);
        text(&client, &format!("/set/9/{}", "x".repeat(99)));
        assert_eq!(client.get("/set/y/z").send().status(), 500);
        assert_eq!(text(&client, "/all").len(), 1000 + 2 * 10);
    }
    // What a store that is given has room for is known before it refuses.
    let store = MemoryStore::new().max_bytes(3000).max_fields(14);
    let store: Arc<dyn SessionStore> = Arc::new(store);
    let client = client(plugin(&store).sealed());
    let mut set = 0;
    while client.get(&format!("/set/{set}/{}", "x".repeat(120))).send().status() == 200 {
        set += 1;
    }
    let answer = client.get(&format!("/set/{set}/{}", "x".repeat(120))).send();
    assert!((5..=10).contains(&set), "{set}: {}", answer.text());
    for n in 0..10 - set {
        text(&client, &format!("/set/small{n}/x"));
    }
    assert_eq!(
        client.get("/set/more/x").send().status(),
        500,
        "ten keys, and four of the plugin's"
    );
    text(&client, "/in/ada");
}

#[test]
fn what_cannot_be_sealed_is_refused_at_install() {
    struct Third(MemoryStore);
    impl SessionStore for Third {
        fn load(&self, load: &Load<'_>) -> Result<Loaded> {
            self.0.load(load)
        }
        fn save(&self, save: &Save<'_>) -> Result<Saved> {
            self.0.save(save)
        }
        fn increment(&self, load: &Load<'_>, key: &str, by: i64) -> Result<i64> {
            self.0.increment(load, key, by)
        }
        fn take(&self, load: &Load<'_>, keys: &[&str]) -> Result<Vec<Option<String>>> {
            self.0.take(load, keys)
        }
        fn set_if_absent(&self, load: &Load<'_>, key: &str, value: &str) -> Result<bool> {
            self.0.set_if_absent(load, key, value)
        }
    }
    let python = SessionPlugin::new().layout(Layout::BottleSession);
    let small = MemoryStore::new().max_bytes(1000);
    for (plugin, text) in [
        (python, "Layout::BottleSession values are what Python reads"),
        (SessionPlugin::new().store(Third(MemoryStore::new())), "can compare and set"),
        (SessionPlugin::new().store(small), "have no room for sealed values"),
    ] {
        let error = App::new().install(plugin.sealed()).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(text), "{error}");
    }
}
