//! The session plugin on a real Redis: what it costs, and what happens at the same time.

use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use bottle_session::http::Method;
use bottle_session::{
    App, ErrorKind, Event, Exchange, Layout, RedisConfig, RedisConnection, RedisPlugin, RedisPool,
    Request, Result, Session, SessionPlugin, TestClient, named,
};

use crate::support::redis_server::{RedisServer, but_tombstones, info};
use crate::support::sessions::together;

struct Fixture {
    client: TestClient,
    redis: redis::Connection,
    _server: RedisServer,
}

impl Fixture {
    fn new(set_up: impl FnOnce(SessionPlugin) -> SessionPlugin) -> Fixture {
        let server = RedisServer::start(&[]);
        let pool = RedisPool::open(&server.url(0)).unwrap();
        let mut app = App::new();
        app.install(set_up(SessionPlugin::new().pool(pool.clone()))).unwrap();
        app.install(RedisPlugin::new().pool(pool)).unwrap();
        app.get("/get/<key>", |s: &mut Session, key: &str| s.get(key).unwrap_or("-").to_owned());
        app.get("/set/<key>/<value>", |s: &mut Session, key: &str, value: &str| s.set(key, value));
        app.get("/regenerate", |s: &mut Session| s.regenerate());
        app.get("/destroy", |s: &mut Session| s.destroy());
        app.get("/without", || "without");
        app.get("/flash", |s: &mut Session| s.flash("info", "message"));
        app.get("/take-flashes", |s: &mut Session| -> Result<String> {
            Ok(s.take_flashes()?.len().to_string())
        });
        app.get("/flash-and-take", |s: &mut Session| -> Result<String> {
            s.flash("info", "message");
            Ok(s.take_flashes()?.len().to_string())
        });
        app.get("/csrf-token", |s: &mut Session| s.csrf_token());
        app.get("/unused", |_: &mut RedisConnection| "unused");
        app.get("/visits", |s: &mut Session, rdb: &mut RedisConnection| -> Result<String> {
            let visits: u64 = rdb.incr("visits", 1)?;
            s.set("visit", visits);
            Ok(visits.to_string())
        });
        app.get(
            "/by-name",
            named!(|rdb: &mut RedisConnection| -> Result<String> {
                rdb.get::<Option<String>>("visits").map(|visits| visits.unwrap_or_default())
            }),
        );
        let client = TestClient::new(app).unwrap();
        let redis = server.connect(0);
        let mut fixture = Fixture { client, redis, _server: server };
        // The first session brings the connection and the scripts along.
        fixture.text("/set/first/1");
        fixture.text("/get/first");
        fixture.text("/regenerate");
        fixture.text("/destroy");
        // The end of the connection that waited for the server's start is a read, too.
        while info(&mut fixture.redis, "clients")["connected_clients"] != "2" {}
        fixture
    }

    fn text(&mut self, path: &str) -> String {
        let response = self.client.get(path).send();
        assert_eq!(response.status(), 200, "{path}: {}", response.text());
        response.text()
    }

    fn reads(&mut self) -> u64 {
        info(&mut self.redis, "stats")["total_reads_processed"].parse().unwrap()
    }

    /// How many times the server had to read from a connection: round trips.
    fn trips(&mut self, act: impl FnOnce(&mut Fixture)) -> u64 {
        let before = self.reads();
        act(self);
        // Our own question was read, too.
        self.reads() - before - 1
    }
}

#[test]
fn flash_messages_and_tokens_cost_no_more_than_they_must() {
    let mut fixture = Fixture::new(|plugin| plugin);
    // The first take brings its script along.
    for path in ["/set/a/1", "/flash", "/take-flashes"] {
        fixture.text(path);
    }
    for (path, text, trips) in [
        ("/flash", "", 2),
        ("/take-flashes", "1", 2),
        ("/take-flashes", "0", 1),
        ("/flash-and-take", "1", 1),
    ] {
        let spent = fixture.trips(|fixture| assert_eq!(fixture.text(path), text));
        assert_eq!(spent, trips, "{path}");
    }
    assert_eq!(fixture.trips(|fixture| assert!(!fixture.text("/csrf-token").is_empty())), 1);
}

#[test]
fn a_read_is_one_round_trip_a_change_two_and_what_asks_for_nothing_none() {
    for layout in [Layout::Default, Layout::BottleSession] {
        let mut fixture = Fixture::new(|plugin| plugin.layout(layout));
        let table = [
            // A first visit that stores nothing.
            ("/get/name", 0),
            ("/without", 0),
            ("/unused", 0),
            // New, and changed: there was nothing to load.
            ("/set/name/Ada", 1),
            ("/get/name", 1),
            ("/set/name/Bob", 2),
            ("/set/name/Bob", 1),
            ("/without", 0),
            ("/regenerate", 2),
            ("/get/name", 1),
            ("/visits", 3),
            ("/destroy", 2),
            ("/get/name", 0),
        ];
        for (number, (path, expected)) in table.into_iter().enumerate() {
            let trips = fixture.trips(|fixture| {
                fixture.text(path);
            });
            assert_eq!(trips, expected, "{layout:?}, row {number}: {path}");
        }
        fixture.client.set_cookie("bottle.session", "malformed");
        let malformed = fixture.trips(|fixture| assert_eq!(fixture.text("/get/name"), "-"));
        assert_eq!(malformed, 0, "a malformed id never reaches the store");
    }
}

#[test]
fn a_batch_of_requests_loads_and_saves_in_one_round_trip_each() {
    let mut fixture = Fixture::new(|plugin| plugin);
    let service = fixture.client.service().clone();
    let browsers: Vec<_> = (0..32)
        .map(|number| {
            let browser = TestClient::of(service.clone());
            browser.get(&format!("/set/name/user{number}")).send();
            browser.cookie("bottle.session").unwrap()
        })
        .collect();
    let request = |target: &str, id: &str| {
        let mut request = Request::new(Method::GET, target.parse().unwrap());
        let cookie = format!("bottle.session={id}").parse().unwrap();
        request.headers_mut().insert("cookie", cookie);
        Exchange::new(request)
    };
    for (target, expected) in [("/get/name", 1), ("/set/name/changed", 2)] {
        let mut batch: Vec<_> = browsers.iter().map(|id| request(target, id)).collect();
        let trips = fixture.trips(|_| {
            service.prepare(&mut batch);
            batch.iter_mut().for_each(|exchange| service.run(exchange));
            service.finish(&mut batch);
        });
        assert_eq!(trips, expected, "{target}");
        for (number, exchange) in batch.into_iter().enumerate() {
            let response = exchange.into_response();
            assert_eq!(response.status(), 200);
            if target.starts_with("/get") {
                assert_eq!(response.into_bytes().unwrap(), format!("user{number}"));
            }
        }
    }
}

/// A client that has the same session as another one: a second tab of the same browser.
fn tab_of(client: &TestClient) -> TestClient {
    let tab = TestClient::of(client.service().clone());
    tab.set_cookie("bottle.session", &client.cookie("bottle.session").unwrap());
    tab
}

#[test]
fn requests_that_set_different_fields_at_the_same_time_both_survive_a_thousand_times() {
    let mut fixture = Fixture::new(|plugin| plugin);
    fixture.text("/set/start/1");
    let (left, right) = (tab_of(&fixture.client), tab_of(&fixture.client));
    for round in 0..1000 {
        let set =
            |tab: &TestClient, key: &str| tab.get(&format!("/set/{key}/{round}")).send().status();
        let statuses = together(|| set(&left, "left"), || set(&right, "right"));
        assert_eq!(statuses, (200, 200));
        assert_eq!(fixture.text("/get/left"), round.to_string());
        assert_eq!(fixture.text("/get/right"), round.to_string());
    }
}

#[test]
fn a_session_destroyed_while_another_request_runs_stays_destroyed_a_thousand_times() {
    let server = RedisServer::start(&[]);
    let plugin = SessionPlugin::new().pool(RedisPool::open(&server.url(0)).unwrap());
    let counters = plugin.counters();
    let mut app = App::new();
    app.install(plugin).unwrap();
    let loaded = Arc::new(Barrier::new(2));
    let destroyed = loaded.clone();
    app.get("/set", |s: &mut Session| s.set("name", "Ada"));
    app.get("/get", |s: &mut Session| s.get("name").unwrap_or("-").to_owned());
    app.get("/destroy", |s: &mut Session| s.destroy());
    // Changes a session that has gone since this request loaded it.
    app.get("/late", move |s: &mut Session| {
        loaded.wait();
        loaded.wait();
        s.set("late", "yes");
        "late"
    });
    let client = TestClient::new(app).unwrap();
    for _ in 0..1000 {
        client.forget_cookies();
        client.get("/set").send();
        let (late, other, witness) = (tab_of(&client), tab_of(&client), tab_of(&client));
        let (answer, _) = together(
            || late.get("/late").send(),
            || {
                destroyed.wait();
                assert_eq!(other.get("/destroy").send().status(), 200);
                destroyed.wait();
            },
        );
        assert_eq!((answer.status(), answer.set_cookies().len()), (200, 0));
        assert_eq!(witness.get("/get").send().text(), "-");
    }
    assert_eq!(counters.snapshot().write_lost, 1000);
    let keys = but_tombstones(&mut server.connect(0));
    assert!(keys.is_empty(), "{keys:?}");
}

#[test]
fn a_handlers_own_commands_leave_nothing_behind_for_the_next() {
    let server = RedisServer::start(&[]);
    let pool = RedisPool::open(&server.url(0)).unwrap();
    let mut app = App::new();
    app.install(RedisPlugin::new().pool(pool.clone())).unwrap();
    app.get("/select", |rdb: &mut RedisConnection| -> Result<()> { rdb.command("SELECT", 5) });
    app.get("/multi", |rdb: &mut RedisConnection| -> Result<()> { rdb.run(&redis::cmd("MULTI")) });
    app.get("/wrong-type", |rdb: &mut RedisConnection| -> Result<String> {
        rdb.set("text", "abc")?;
        let number: Result<u64> = rdb.get("text");
        let list: Result<Vec<String>> = rdb.command("LRANGE", ("text", 0, 1));
        Ok(format!("{} {}", number.is_err(), list.is_err()))
    });
    app.get("/db", |rdb: &mut RedisConnection| -> Result<String> {
        rdb.set("here", "zero")?;
        rdb.get("here")
    });
    let client = TestClient::new(app).unwrap();
    for path in ["/select", "/multi", "/db"] {
        assert_eq!(client.get(path).send().status(), 200, "{path}");
        assert_eq!(client.get("/db").send().text(), "zero", "after {path}");
    }
    assert_eq!(client.get("/wrong-type").send().text(), "true true");
    assert_eq!(pool.connections(), (1, 1));
}

#[test]
fn a_browser_keeps_its_session_when_the_app_leaves_pythons_layout() {
    let mut fixture = Fixture::new(|plugin| plugin.migrate_from(Layout::BottleSession));
    let (key, id) =
        ("session:01234567-89ab-cdef-0123-456789abcdef", "0123456789abcdef0123456789abcdef");
    let set = redis::cmd("HSET").arg(key).arg("name").arg("Chris").to_owned();
    set.exec(&mut fixture.redis).unwrap();
    fixture.client.set_cookie("bottle.session", id);
    assert_eq!(fixture.text("/get/name"), "Chris");
    fixture.text("/set/name/Christine");
    assert_eq!(fixture.client.cookie("bottle.session").as_deref(), Some(id));
    fixture.text("/regenerate");
    assert_eq!(fixture.client.cookie("bottle.session").unwrap().len(), 43);
    assert_eq!(fixture.text("/get/name"), "Christine");
    fixture.client.set_cookie("bottle.session", id);
    assert_eq!(fixture.text("/get/name"), "-");
}

#[test]
fn operations_in_the_store_work_on_new_and_emptied_sessions_in_both_layouts() {
    for layout in [Layout::Default, Layout::BottleSession] {
        let server = RedisServer::start(&[]);
        let pool = RedisPool::open(&server.url(0)).unwrap();
        let mut app = App::new();
        app.install(SessionPlugin::new().pool(pool).layout(layout)).unwrap();
        app.get("/incr", |s: &mut Session| s.incr("n", 2).map(|n| n.to_string()));
        app.get("/claim", |s: &mut Session| s.set_if_absent("owner", "me").map(|b| b.to_string()));
        app.get("/get/<key>", |s: &mut Session, key: &str| s.get(key).unwrap_or("-").to_owned());
        app.get("/empty-and-set", |s: &mut Session| -> Result<String> {
            let keys: Vec<String> = s.keys().map(str::to_owned).collect();
            let taken = keys.iter().map(|key| s.take(key)).collect::<Result<Vec<_>>>()?;
            s.set("after", "kept");
            Ok(format!("{taken:?}"))
        });
        app.get("/remove-commit-set", |s: &mut Session| -> Result<()> {
            s.remove("after");
            s.commit()?;
            s.set("again", "kept");
            Ok(())
        });
        let client = TestClient::new(app).unwrap();
        let text = |path: &str| {
            let response = client.get(path).send();
            assert_eq!(response.status(), 200, "{layout:?} {path}");
            response.text()
        };
        assert_eq!(text("/incr"), "2", "{layout:?}");
        assert_eq!(text("/incr"), "4");
        client.forget_cookies();
        assert_eq!(text("/claim"), "true");
        assert_eq!(text("/claim"), "false");
        assert_eq!(text("/empty-and-set"), "[Some(\"me\")]");
        assert_eq!(text("/get/after"), "kept", "{layout:?}");
        text("/remove-commit-set");
        assert_eq!(text("/get/again"), "kept", "{layout:?}");
        assert_eq!(text("/get/after"), "-", "{layout:?}");
    }
}

#[test]
fn a_record_that_is_damaged_or_too_large_is_no_session_and_an_event_says_so() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let log = heard.clone();
    let mut counters = None;
    let mut fixture = Fixture::new(|plugin| {
        let plugin = plugin.max_bytes(1000).max_fields(2).events(move |event: Event<'_>| {
            if let Event::Damaged(why) = event {
                log.lock().unwrap().push(why.to_string());
            }
        });
        counters = Some(plugin.counters());
        plugin
    });
    let too_large = "is far larger than 2 fields or 1000 bytes: it is no session";
    let large = "x".repeat(4000);
    for (number, (field, value, why)) in [
        ("name", large.as_bytes(), too_large),
        ("name", b"\xff", "is not text: it is no session"),
        ("\0", b"x", "has a damaged proof: it is no session"),
    ]
    .into_iter()
    .enumerate()
    {
        fixture.client.forget_cookies();
        redis::cmd("FLUSHALL").exec(&mut fixture.redis).unwrap();
        fixture.text("/set/name/Ada");
        fixture.text("/set/other/1");
        let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut fixture.redis).unwrap();
        let set = redis::cmd("HSET").arg(&keys[0]).arg(field).arg(value).to_owned();
        set.exec(&mut fixture.redis).unwrap();
        assert_eq!(fixture.text("/get/name"), "-", "{why}");
        let heard = heard.lock().unwrap();
        assert_eq!(heard.len(), number + 1, "{heard:?}");
        assert!(heard[number].ends_with(why), "{heard:?}");
        assert!(!heard[number].contains(&fixture.client.cookie("bottle.session").unwrap()));
    }
    assert_eq!(counters.unwrap().snapshot().damaged, 3);
}

#[test]
fn a_remembered_session_lives_as_long_as_its_cookie_says_however_often_its_request_saves() {
    for layout in [Layout::Default, Layout::BottleSession] {
        let server = RedisServer::start(&[]);
        let mut app = App::new();
        let pool = RedisPool::open(&server.url(0)).unwrap();
        app.install(SessionPlugin::new().pool(pool).layout(layout)).unwrap();
        app.get("/<how>", |s: &mut Session, how: &str| -> Result<()> {
            s.set("name", "Ada");
            s.remember(Duration::from_secs(30 * 86_400));
            s.commit()?;
            match how {
                "change" => s.set("name", "Bob"),
                "renew" => s.regenerate(),
                "add" => drop(s.incr("n", 1)?),
                _ => {}
            }
            Ok(())
        });
        let client = TestClient::new(app).unwrap();
        let mut redis = server.connect(0);
        for how in ["once", "change", "renew", "add"] {
            client.forget_cookies();
            redis::cmd("FLUSHALL").exec(&mut redis).unwrap();
            let answer = client.get(&format!("/{how}")).send();
            let cookie = answer.set_cookies()[0];
            assert!(cookie.contains("Max-Age=2851200"), "{layout:?} {how}: {cookie}");
            let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut redis).unwrap();
            // What a new id has left under the old one lives for a minute.
            let ttl = |key| -> i64 { redis::cmd("TTL").arg(key).query(&mut redis).unwrap() };
            let left = keys.iter().map(ttl).max().unwrap();
            assert!(left > 29 * 86_400, "{layout:?} {how}: {left} s");
        }
    }
}

#[test]
fn a_url_leaves_alone_what_it_does_not_say() {
    let server = RedisServer::start(&[]);
    let lock = redis::cmd("CONFIG").arg("SET").arg("requirepass").arg("secret").to_owned();
    lock.exec(&mut server.connect(0)).unwrap();
    let config = RedisConfig::default().url(&server.url(0)).unwrap();
    for plugin in [
        SessionPlugin::new().password("secret").url(&server.url(0)),
        SessionPlugin::new().url(&server.url(0)).password("secret"),
        SessionPlugin::new().redis(config.clone().password("secret")),
        SessionPlugin::new().host("nowhere.invalid").redis(config).password("secret"),
    ] {
        let mut app = App::new();
        app.install(plugin).unwrap();
        app.get("/", |s: &mut Session| s.set("a", "1"));
        assert_eq!(TestClient::new(app).unwrap().get("/").send().status(), 200);
    }
}

#[test]
fn an_id_is_nothing_in_another_cookie_although_they_share_a_pool() {
    let server = RedisServer::start(&[]);
    let pool = RedisPool::open(&server.url(0)).unwrap();
    let mut app = App::new();
    app.install(SessionPlugin::new().pool(pool.clone())).unwrap();
    let below_pool = pool.clone();
    let admin = SessionPlugin::new().pool(pool).keyword("admin").cookie_name("admin.session");
    app.install(admin).unwrap();
    // An app of its own below, with a plugin of the same keyword.
    let mut below = App::new();
    let its = SessionPlugin::new().pool(below_pool).cookie_name("below.session");
    below.install(its).unwrap();
    below.get("/who", |s: &mut Session| s.get("user").unwrap_or("-").to_owned());
    app.mount("/below", below).isolated();
    app.get("/login", named!(|session: &mut Session| session.set("user", "mallory")));
    app.get("/admin", named!(|admin: &mut Session| admin.get("user").unwrap_or("-").to_owned()));
    let client = TestClient::new(app).unwrap();
    client.get("/login").send();
    client.set_cookie("admin.session", &client.cookie("bottle.session").unwrap());
    assert_eq!(client.get("/admin").send().text(), "-");
    client.set_cookie("below.session", &client.cookie("bottle.session").unwrap());
    assert_eq!(client.get("/below/who").send().text(), "-");
}

/// What a handler does after it has emptied its session goes on, in both layouts.
#[test]
fn an_emptied_session_can_be_used_in_the_same_request() {
    for layout in [Layout::Default, Layout::BottleSession] {
        let server = RedisServer::start(&[]);
        let mut app = App::new();
        let pool = RedisPool::open(&server.url(0)).unwrap();
        app.install(SessionPlugin::new().pool(pool).layout(layout)).unwrap();
        app.get("/set", |s: &mut Session| s.set("name", "Ada"));
        app.get("/get/<key>", |s: &mut Session, key: &str| s.get(key).unwrap_or("-").to_owned());
        app.get("/flash", |s: &mut Session| s.flash("info", "earlier"));
        app.get("/incr", |s: &mut Session| -> Result<String> {
            s.remove("name");
            Ok(s.incr("n", 5)?.to_string())
        });
        app.get("/if-absent", |s: &mut Session| -> Result<String> {
            s.clear();
            Ok(s.set_if_absent("n", 5)?.to_string())
        });
        app.get("/take", |s: &mut Session| -> Result<String> {
            s.remove("name");
            s.take("other")?;
            s.set("n", 5);
            Ok(String::new())
        });
        app.get("/renew", |s: &mut Session| -> Result<String> {
            s.remove("name");
            s.regenerate();
            s.commit()?;
            Ok(s.incr("n", 5)?.to_string())
        });
        app.get("/flashes", |s: &mut Session| -> Result<String> {
            s.remove("name");
            s.flash("info", "now");
            let taken = s.take_flashes()?.len().to_string();
            s.set("n", 5);
            Ok(taken)
        });
        let client = TestClient::new(app).unwrap();
        for (before, path, answer) in [
            ("/set", "/incr", "5"),
            ("/set", "/if-absent", "true"),
            ("/set", "/take", ""),
            ("/set", "/renew", "5"),
            ("/flash", "/flashes", "2"),
        ] {
            client.forget_cookies();
            client.get(before).send();
            let response = client.get(path).send();
            assert_eq!((response.status(), &*response.text()), (200, answer), "{layout:?} {path}");
            assert_eq!(client.get("/get/n").send().text(), "5", "{layout:?} {path}");
        }
    }
}

/// What an operation in the store finds gone has no cookie, whatever was due before it found out.
#[test]
fn an_operation_that_came_too_late_never_touches_the_new_cookie() {
    for layout in [Layout::Default, Layout::BottleSession] {
        let server = RedisServer::start(&[]);
        let mut app = App::new();
        let pool = RedisPool::open(&server.url(0)).unwrap();
        app.install(SessionPlugin::new().pool(pool).layout(layout)).unwrap();
        app.get("/set", |s: &mut Session| s.set("name", "Ada"));
        app.get("/regenerate", |s: &mut Session| s.regenerate());
        app.get("/destroy", |s: &mut Session| s.destroy());
        let other: Arc<Mutex<Option<TestClient>>> = Arc::default();
        let meanwhile = other.clone();
        app.get(
            "/<path>/<commit>/<operation>",
            move |s: &mut Session, path: &str, commit: &str, operation: &str| {
                if commit == "commit" {
                    s.set("early", "yes");
                    s.commit().unwrap();
                }
                let tab = meanwhile.lock().unwrap().take().unwrap();
                assert_eq!(tab.get(&format!("/{path}")).send().status(), 200);
                let error = match operation {
                    "incr" => s.incr("n", 1).unwrap_err(),
                    "take" => s.take("name").unwrap_err(),
                    _ => s.set_if_absent("name", "x").unwrap_err(),
                };
                assert_eq!(error.kind(), ErrorKind::Gone);
            },
        );
        let client = TestClient::new(app).unwrap();
        for path in ["regenerate", "destroy"] {
            for (commit, operation) in
                [("commit", "incr"), ("no", "incr"), ("commit", "take"), ("no", "set-if-absent")]
            {
                client.forget_cookies();
                client.get("/set").send();
                *other.lock().unwrap() = Some(tab_of(&client));
                let answer = client.get(&format!("/{path}/{commit}/{operation}")).send();
                let row = format!("{layout:?} {path} {commit} {operation}");
                assert_eq!((answer.status(), answer.set_cookies()), (200, vec![]), "{row}");
            }
        }
    }
}

/// Where a session ends with its last field, another request can have added one: destroy means that too.
#[test]
fn a_session_that_was_emptied_and_then_destroyed_is_dead() {
    for layout in [Layout::Default, Layout::BottleSession] {
        let server = RedisServer::start(&[]);
        let mut app = App::new();
        let pool = RedisPool::open(&server.url(0)).unwrap();
        app.install(SessionPlugin::new().pool(pool).layout(layout)).unwrap();
        app.get("/set/<key>", |s: &mut Session, key: &str| s.set(key, "1"));
        app.get("/get/<key>", |s: &mut Session, key: &str| s.get(key).unwrap_or("-").to_owned());
        let other: Arc<Mutex<Option<TestClient>>> = Arc::default();
        let meanwhile = other.clone();
        app.get("/logout/<go_on:int>", move |s: &mut Session, go_on: u8| -> Result<()> {
            s.remove("a");
            let tab = meanwhile.lock().unwrap().take().unwrap();
            assert_eq!(tab.get("/set/b").send().status(), 200);
            s.commit()?;
            if go_on == 1 {
                s.set("c", "1");
                s.commit()?;
            }
            s.destroy();
            Ok(())
        });
        let client = TestClient::new(app).unwrap();
        for go_on in [0, 1] {
            client.get("/set/a").send();
            let witness = tab_of(&client);
            *other.lock().unwrap() = Some(tab_of(&client));
            assert_eq!(client.get(&format!("/logout/{go_on}")).send().status(), 200);
            assert_eq!(client.cookie("bottle.session"), None, "{layout:?} {go_on}");
            assert_eq!(witness.get("/get/b").send().text(), "-", "{layout:?} {go_on}");
            let keys = but_tombstones(&mut server.connect(0));
            assert!(keys.is_empty(), "{layout:?} {go_on}: {keys:?}");
        }
    }
}

#[test]
fn the_edges_of_what_a_session_can_hold_are_the_same_everywhere() {
    let server = RedisServer::start(&[]);
    let pool = |db| RedisPool::open(&server.url(db)).unwrap();
    let new = || SessionPlugin::new().cookie_lifetime(Duration::MAX);
    for (name, plugin) in [
        ("memory", new().in_memory().max_age(Duration::MAX)),
        ("redis", new().pool(pool(0)).max_age(Duration::MAX)),
        ("bottle-session", new().pool(pool(1)).layout(Layout::BottleSession)),
        ("short", SessionPlugin::new().pool(pool(2)).max_age(Duration::from_secs(60))),
    ] {
        let mut app = App::new();
        app.install(plugin).unwrap();
        app.get("/fields/<count:int>", |s: &mut Session, count: usize| {
            (0..count).for_each(|n| s.set(n.to_string(), n));
        });
        app.get("/bytes/<count:int>", |s: &mut Session, count: usize| s.set("", "x".repeat(count)));
        app.get("/remember/<nanos:int>", |s: &mut Session, nanos: u64| {
            s.set("kept", nanos);
            s.remember(if nanos == 0 { Duration::MAX } else { Duration::from_nanos(nanos) });
        });
        app.get("/odd", |s: &mut Session| {
            s.set("", "");
            s.set("a\0b", "\0\r\n");
            s.set("\u{10ffff}", "é\u{0}");
            s.set("_csrf", "mine");
        });
        app.get("/nul", |s: &mut Session| s.set("\0", "x"));
        app.get("/size", |s: &mut Session| {
            let bytes: usize = s.iter().map(|(key, value)| key.len() + value.len()).sum();
            format!("{} {bytes}", s.len())
        });
        let client = TestClient::new(app).unwrap();
        for (path, status, size) in [
            ("/fields/256", 200, "256 1316"),
            ("/fields/257", 500, "0 0"),
            ("/bytes/65536", 200, "1 65536"),
            ("/bytes/65537", 500, "0 0"),
            ("/odd", 200, "4 22"),
            ("/nul", 500, "0 0"),
            ("/remember/0", 200, "1 5"),
        ] {
            client.forget_cookies();
            let answer = client.get(path).send();
            assert_eq!(answer.status(), status, "{name} {path}: {}", answer.text());
            assert_eq!(client.get("/size").send().text(), size, "{name} {path}");
            assert_eq!(client.get("/size").send().text(), size, "{name} {path}");
        }
        client.forget_cookies();
        let answer = client.get("/remember/1").send();
        assert_eq!((answer.status(), answer.set_cookies().len()), (200, 1), "{name}");
        assert!(answer.set_cookies()[0].contains("Max-Age=1"), "{name} {:?}", answer.set_cookies());
    }
}
