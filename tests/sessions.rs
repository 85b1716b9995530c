//! Sessions as a browser sees them, on the memory store.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bottle_session::http::{self, HeaderMap, Method};
use bottle_session::{
    App, Callback, Cookie, Error, ErrorKind, Event, Exchange, HttpError, IdFormat, Layout,
    ListenAddress, Load, MemoryStore, Plugin, Record, RedisPool, Request, ResponseHead, Result,
    Route, SameSite, Save, Saved, Session, SessionId, SessionPlugin, SessionStore, TestClient,
    abort, named, redirect,
};

use crate::support::logs::{collect_logs, logs_of};
use crate::support::redis_server::RedisServer;

/// A clock that a test moves.
#[derive(Clone, Default)]
struct Clock(Arc<AtomicU64>);

impl Clock {
    fn pass(&self, time: Duration) {
        self.0.fetch_add(time.as_secs(), Ordering::SeqCst);
    }

    fn store(&self) -> MemoryStore {
        let seconds = self.0.clone();
        let start = SystemTime::now();
        MemoryStore::with_clock(move || start + Duration::from_secs(seconds.load(Ordering::SeqCst)))
    }
}

fn client(plugin: SessionPlugin) -> TestClient {
    // Whatever they do shows no id in any log.
    collect_logs();
    let mut app = App::new();
    app.install(plugin).unwrap();
    app.get("/get/<key>", |s: &mut Session, key: &str| s.get(key).unwrap_or("-").to_owned());
    app.get("/set/<key>/<value>", |s: &mut Session, key: &str, value: &str| s.set(key, value));
    app.get("/remove/<key>", |s: &mut Session, key: &str| s.remove(key).unwrap_or_default());
    app.get("/clear", |s: &mut Session| s.clear());
    app.get("/regenerate", |s: &mut Session| s.regenerate());
    app.get("/destroy", |s: &mut Session| s.destroy());
    app.get("/destroy-and-set", |s: &mut Session| {
        s.destroy();
        s.set("fresh", "yes");
    });
    app.get("/forget", |s: &mut Session| s.remember(None));
    app.get("/remember/<days:int>", |s: &mut Session, days: u64| {
        s.set("kept", "yes");
        s.remember(Duration::from_secs(days * 86_400));
    });
    app.get("/untouched", |_: &mut Session| "untouched");
    app.get("/without", || "without");
    app.get("/abort", |s: &mut Session| {
        s.set("before", "abort");
        abort(403, "no")
    });
    app.get("/redirect", |s: &mut Session| {
        s.set("before", "redirect");
        redirect("/")
    });
    app.get("/fail", |s: &mut Session| -> std::result::Result<(), HttpError> {
        s.set("before", "failure");
        "x".parse::<u8>()?;
        Ok(())
    });
    app.get("/panic", |s: &mut Session| -> String {
        s.set("before", "panic");
        panic!("on purpose")
    });
    app.get("/incr", |s: &mut Session| -> Result<String> { Ok(s.incr("n", 1)?.to_string()) });
    app.get("/take/<key>", |s: &mut Session, key: &str| s.take(key).map(|v| format!("{v:?}")));
    app.get("/claim/<value>", |s: &mut Session, value: &str| {
        s.set_if_absent("claim", value).map(|set| set.to_string())
    });
    app.get("/large", |s: &mut Session| {
        s.set("small", "1");
        s.set("large", "x".repeat(70_000));
        "acknowledged"
    });
    app.get("/try-large", |s: &mut Session| match s.try_set("large", "x".repeat(70_000)) {
        Ok(()) => "stored".to_owned(),
        Err(error) => error.to_string(),
    });
    TestClient::new(app).unwrap()
}

fn text(client: &TestClient, path: &str) -> String {
    let response = client.get(path).send();
    assert_eq!(response.status(), 200, "{path}: {}", response.text());
    response.text()
}

const COOKIE: &str = "bottle.session";

#[test]
fn a_session_remembers() {
    let client = client(SessionPlugin::new().in_memory());
    text(&client, "/set/name/Ada");
    text(&client, "/set/born/1815");
    assert_eq!(text(&client, "/get/name"), "Ada");
    assert_eq!(text(&client, "/remove/name"), "Ada");
    assert_eq!(text(&client, "/get/name"), "-");
    assert_eq!(text(&client, "/get/born"), "1815");
    let id = client.cookie(COOKIE);
    text(&client, "/clear");
    assert_eq!(text(&client, "/get/born"), "-");
    text(&client, "/set/again/1");
    assert_eq!(client.cookie(COOKIE), id);
    let other = TestClient::of(client.service().clone());
    assert_eq!(text(&other, "/get/again"), "-");
}

#[test]
fn the_cookie_is_what_the_options_say() {
    let set_cookie = |plugin: SessionPlugin| {
        let client = client(plugin.in_memory());
        let response = client.get("/set/a/1").send();
        assert_eq!(response.header("cache-control"), Some("no-store"));
        assert_eq!(response.header("vary"), Some("Cookie"));
        let cookies = response.set_cookies();
        assert_eq!(cookies.len(), 1);
        let (name, rest) = cookies[0].split_once('=').unwrap();
        let (value, attributes) = rest.split_once("; ").unwrap();
        assert_eq!(value.len(), 43, "{value}");
        let mut attributes: Vec<_> = attributes.split("; ").collect();
        attributes.sort_unstable();
        format!("{name}: {}", attributes.join("; "))
    };
    let new = SessionPlugin::new;
    let table = [
        (new(), "bottle.session: Max-Age=330; Path=/; SameSite=Lax"),
        (new().cookie_lifetime(None), "bottle.session: Path=/; SameSite=Lax"),
        (
            new().cookie_lifetime(Duration::from_secs(600)),
            "bottle.session: Max-Age=660; Path=/; SameSite=Lax",
        ),
        (
            new().cookie_secure(true).cookie_httponly(true).cookie_name("id"),
            "id: HttpOnly; Max-Age=330; Path=/; SameSite=Lax; Secure",
        ),
        (
            new()
                .cookie_path("/shop")
                .cookie_domain("example.org")
                .cookie_same_site(SameSite::Strict),
            "bottle.session: Domain=example.org; Max-Age=330; Path=/shop; SameSite=Strict",
        ),
        (
            new().cookie_same_site(SameSite::None).cookie_secure(true).cookie_partitioned(true),
            "bottle.session: Max-Age=330; Partitioned; Path=/; SameSite=None; Secure",
        ),
        (
            new().hardened(),
            "__Host-bottle.session: HttpOnly; Max-Age=330; Path=/; SameSite=Lax; Secure",
        ),
    ];
    for (plugin, expected) in table {
        assert_eq!(set_cookie(plugin), expected);
    }
}

#[test]
fn the_log_says_what_the_cookie_will_be_and_warns_where_others_can_see_it() {
    collect_logs();
    let local = ["127.0.0.1:80", "[::1]:80"].map(|at| ListenAddress::Tcp(at.parse().unwrap()));
    let unix = ListenAddress::Unix("/run/app.socket".into());
    let public = ["0.0.0.0:80", "[::]:80", "192.0.2.1:80"];
    let public = public.map(|at| ListenAddress::Tcp(at.parse().unwrap()));
    let new = |name: &str| SessionPlugin::new().in_memory().cookie_name(name);
    for (name, plugin, attributes, warned) in [
        ("bare", new("logged-bare"), "(Path=/; SameSite=Lax; Secure over https)", true),
        ("secure", new("logged-secure").cookie_secure(true), "SameSite=Lax; Secure)", true),
        (
            "only",
            new("logged-only").cookie_httponly(true),
            "SameSite=Lax; HttpOnly; Secure over https)",
            true,
        ),
        ("hard", new("logged-hard").hardened(), "SameSite=Lax; Secure; HttpOnly)", false),
    ] {
        let mut app = App::new();
        app.install(plugin).unwrap();
        let lines = || logs_of(&format!("logged-{name} "));
        let start = lines();
        assert_eq!(start.len(), 1, "{start:?}");
        let said = start[0].starts_with("INFO ") && start[0].contains(attributes);
        assert!(said && start[0].contains("idle limit 300s"), "{start:?}");
        let service = app.build().unwrap();
        local.iter().chain([&unix]).for_each(|address| service.serving(address));
        assert_eq!(lines().len(), 1, "{name}: nobody else sees it");
        public.iter().for_each(|address| service.serving(address));
        let warnings = lines().iter().filter(|line| line.starts_with("WARN serving ")).count();
        assert_eq!(warnings, if warned { public.len() } else { 0 }, "{name}");
        let https = ListenAddress::Tls("0.0.0.0:443".parse().unwrap());
        service.serving(&https);
        assert_eq!(lines().len(), 1 + warnings, "{name}: {https}");
    }
}

#[test]
fn no_debug_shows_an_id() {
    let shown = Arc::new(Mutex::new(String::new()));
    let mut app = App::new();
    app.install(SessionPlugin::new().in_memory()).unwrap();
    let all = shown.clone();
    app.get(
        "/",
        move |s: &mut Session, request: &Request, headers: &HeaderMap, head: &mut ResponseHead| {
            s.regenerate();
            s.commit().unwrap();
            let id = request.cookie(COOKIE).unwrap().into_owned();
            head.set_cookie(Cookie::new("own", id)).unwrap();
            *all.lock().unwrap() += &format!("{s:?} {request:?} {headers:?} {head:?}");
            *all.lock().unwrap() += &format!("{:?} {:?}", request.cookies(), request.headers());
        },
    );
    app.get("/set", |s: &mut Session| s.set("name", "Ada"));
    let client = TestClient::new(app).unwrap();
    client.get("/set").send();
    let old = client.cookie(COOKIE).unwrap();
    let mut request = Request::new(Method::GET, "/".parse().unwrap());
    let cookie = format!("{COOKIE}={old}").parse().unwrap();
    request = request.with_headers(HeaderMap::from_iter([(http::header::COOKIE, cookie)]));
    let mut exchange = [Exchange::new(request)];
    client.service().prepare(&mut exchange);
    client.service().run(&mut exchange[0]);
    client.service().finish(&mut exchange);
    let shown = format!("{} {exchange:?}", shown.lock().unwrap());
    let [exchange] = exchange;
    let response = exchange.into_response();
    let new = response.headers()["set-cookie"].to_str().unwrap();
    let new = new.split(['=', ';']).nth(1).unwrap().to_owned();
    client.set_cookie(COOKIE, &new);
    let again = client.get("/").send();
    let shown = format!("{shown} {response:?} {again:?}");
    for id in [old, new, client.cookie(COOKIE).unwrap()] {
        assert_eq!(id.len(), 43);
        assert!(!shown.contains(&id[..8]), "{id} in {shown}");
    }
}

#[test]
fn hardened_has_the_last_word_wherever_it_stands() {
    let plugin = SessionPlugin::new().in_memory().hardened().cookie_name("id").cookie_secure(false);
    let cookie = client(plugin).get("/set/a/1").send().set_cookies()[0].to_owned();
    assert!(cookie.starts_with("__Host-id=") && cookie.contains("Secure"), "{cookie}");
    let mut app = App::new();
    let domain = SessionPlugin::new().in_memory().hardened().cookie_domain("example.org");
    assert!(app.install(domain).is_err());
}

#[test]
fn what_was_refused_is_no_success_even_if_a_commit_told_of_it() {
    let mut app = App::new();
    app.install(SessionPlugin::new().in_memory()).unwrap();
    app.get("/large", |s: &mut Session| {
        s.set("large", "x".repeat(70_000));
        let _ = s.commit();
        "acknowledged"
    });
    app.get("/no-time", |s: &mut Session| {
        s.set("a", "1");
        s.remember(Duration::ZERO);
    });
    let client = TestClient::new(app).unwrap();
    for path in ["/large", "/no-time"] {
        let response = client.get(path).send();
        assert_eq!((response.status(), response.set_cookies().len()), (500, 0), "{path}");
    }
}

#[test]
fn untouched_and_new_means_no_cookie_and_no_record() {
    let store = Counted::default();
    let client = client(SessionPlugin::new().store(store.clone()));
    for path in
        ["/untouched", "/get/a", "/without", "/remove/a", "/clear", "/regenerate", "/destroy"]
    {
        let response = client.get(path).send();
        assert!(response.set_cookies().is_empty(), "{path}");
    }
    assert_eq!(store.counts(), (0, 0));
    assert_eq!(client.get("/get/a").send().header("vary"), Some("Cookie"));
    assert_eq!(client.get("/untouched").send().header("vary"), None);
}

#[test]
fn whatever_is_asked_of_a_session_the_answer_varies_with_its_cookie() {
    let mut app = App::new();
    app.install(SessionPlugin::new().in_memory()).unwrap();
    app.get("/set", |s: &mut Session| s.set("a", "1"));
    app.get("/<what>", |s: &mut Session, what: &str| match what {
        "get" => format!("{:?}", s.get("a")),
        "get_json" => format!("{:?}", s.get_json::<u8>("a")),
        "len" => s.len().to_string(),
        "keys" => s.keys().collect(),
        "is_new" => s.is_new().to_string(),
        "created" => format!("{:?}", s.created()),
        "verify_csrf" => s.verify_csrf("").to_string(),
        "take_flashes" => format!("{:?}", s.take_flashes()),
        "take" => format!("{:?}", s.take("none")),
        _ => String::new(),
    });
    let client = TestClient::new(app).unwrap();
    client.get("/set").send();
    let asked = ["get", "get_json", "len", "keys", "is_new", "created", "verify_csrf"];
    for what in asked.into_iter().chain(["take_flashes", "take"]) {
        let answer = client.get(&format!("/{what}")).send();
        assert_eq!(answer.header("vary"), Some("Cookie"), "{what}");
    }
    assert_eq!(client.get("/nothing").send().header("vary"), None);
}

#[test]
fn a_read_is_one_load_and_a_change_one_save_more() {
    let store = Counted::default();
    let client = client(SessionPlugin::new().store(store.clone()));
    let cost = |path: &str| {
        let before = store.counts();
        text(&client, path);
        (store.counts().0 - before.0, store.counts().1 - before.1)
    };
    assert_eq!(cost("/set/a/1"), (0, 1));
    assert_eq!(cost("/get/a"), (1, 0));
    assert_eq!(cost("/untouched"), (1, 0));
    assert_eq!(cost("/set/a/2"), (1, 1));
    assert_eq!(cost("/set/a/2"), (1, 0));
    assert_eq!(cost("/without"), (0, 0));
    assert_eq!(cost("/regenerate"), (1, 1));
    client.set_cookie(COOKIE, "malformed");
    assert_eq!(cost("/get/a"), (0, 0));
}

#[test]
fn a_cookie_is_sent_anew_once_a_tenth_of_its_life_has_passed() {
    let clock = Clock::default();
    let client = client(SessionPlugin::new().store(clock.store()));
    let cookies = |path: &str| client.get(path).send().set_cookies().len();
    assert_eq!(cookies("/set/a/1"), 1);
    assert_eq!(cookies("/get/a"), 0);
    assert_eq!(cookies("/set/a/2"), 0);
    for path in ["/get/a", "/set/a/3", "/set/a/2"] {
        // A change in between starts the record's life anew, and not the cookie's.
        clock.pass(Duration::from_secs(29));
        assert_eq!(cookies("/get/a"), 0);
        assert_eq!(cookies("/set/b/1"), 0);
        clock.pass(Duration::from_secs(1));
        assert_eq!(cookies(path), 1, "{path}");
        assert_eq!(cookies("/get/a"), 0);
        text(&client, "/set/b/2");
    }
    // Reading alone keeps it alive, far past its lifetime.
    for _ in 0..10 {
        clock.pass(Duration::from_secs(200));
        assert_eq!(text(&client, "/get/a"), "2");
    }
    // Whoever comes back within it finds it, wherever in the last tenth it was started anew.
    for (last, away, found) in [(29, 300, true), (29, 301, false), (0, 329, true), (0, 330, false)]
    {
        client.forget_cookies();
        text(&client, "/set/a/2");
        clock.pass(Duration::from_secs(last));
        assert_eq!(cookies("/get/a"), 0);
        clock.pass(Duration::from_secs(away));
        assert_eq!(text(&client, "/get/a"), if found { "2" } else { "-" }, "{last} {away}");
    }
}

#[test]
fn a_browser_cookie_is_sent_once_and_lives_seven_days_in_the_store() {
    let clock = Clock::default();
    let client = client(SessionPlugin::new().store(clock.store()).cookie_lifetime(None));
    let cookies = |path: &str| client.get(path).send().set_cookies().len();
    assert_eq!(cookies("/set/a/1"), 1);
    assert_eq!(cookies("/set/a/2"), 0);
    // Twice: the record is started anew, although the cookie needs not be.
    for _ in 0..2 {
        clock.pass(Duration::from_secs(7 * 86_400 - 1));
        let answer = client.get("/get/a").send();
        assert_eq!((answer.text().as_str(), answer.set_cookies().len()), ("2", 0));
    }
    clock.pass(Duration::from_secs(7 * 86_400 * 11 / 10));
    assert_eq!(text(&client, "/get/a"), "-");
}

#[test]
fn a_cookie_is_kept_for_400_days_at_most_and_sent_anew_after_30() {
    let clock = Clock::default();
    let lifetime = Duration::from_secs(1000 * 86_400);
    let client = client(SessionPlugin::new().store(clock.store()).cookie_lifetime(lifetime));
    let cookie = client.get("/set/a/1").send().set_cookies()[0].to_owned();
    assert!(cookie.contains("Max-Age=34560000"), "{cookie}");
    clock.pass(Duration::from_secs(30 * 86_400 - 1));
    assert_eq!(client.get("/get/a").send().set_cookies().len(), 0);
    clock.pass(Duration::from_secs(1));
    assert_eq!(client.get("/get/a").send().set_cookies().len(), 1);
}

#[test]
fn the_absolute_limit_ends_a_busy_session() {
    let clock = Clock::default();
    let plugin = SessionPlugin::new().store(clock.store()).max_age(Duration::from_secs(1000));
    let client = client(plugin);
    text(&client, "/set/a/1");
    for _ in 0..4 {
        clock.pass(Duration::from_secs(240));
        assert_eq!(text(&client, "/get/a"), "1");
        text(&client, "/regenerate");
    }
    clock.pass(Duration::from_secs(41));
    assert_eq!(text(&client, "/get/a"), "-");
}

#[test]
fn a_remembered_session_has_its_own_lifetime() {
    let clock = Clock::default();
    let client = client(SessionPlugin::new().store(clock.store()).cookie_lifetime(None));
    let response = client.get("/remember/30").send();
    assert!(response.set_cookies()[0].contains("Max-Age=2851200"), "{:?}", response.set_cookies());
    clock.pass(Duration::from_secs(29 * 86_400));
    assert_eq!(text(&client, "/get/kept"), "yes");
    clock.pass(Duration::from_secs(29 * 86_400));
    assert_eq!(text(&client, "/get/kept"), "yes");
    clock.pass(Duration::from_secs(33 * 86_400));
    assert_eq!(text(&client, "/get/kept"), "-");
}

#[test]
fn a_session_that_is_no_longer_remembered_has_the_plugins_lifetime_and_cookie() {
    for (lifetime, attributes) in
        [(None, "Path=/"), (Some(Duration::from_secs(300)), "Path=/; Max-Age=330")]
    {
        let clock = Clock::default();
        let plugin = SessionPlugin::new().store(clock.store()).cookie_lifetime(lifetime);
        let client = client(plugin);
        client.get("/remember/30").send();
        let answer = client.get("/forget").send();
        let cookie = answer.set_cookies()[0].to_owned();
        assert!(cookie.ends_with(attributes), "{cookie}");
        assert_eq!(client.get("/forget").send().set_cookies().len(), 0, "nothing is taken back");
        let kept = lifetime.unwrap_or(Duration::from_secs(7 * 86_400)) * 11 / 10;
        clock.pass(kept);
        assert_eq!(text(&client, "/get/kept"), "-");
    }
}

#[test]
fn a_page_whose_session_holds_only_a_token_or_flashes_is_kept_by_back() {
    let mut app = App::new();
    app.install(SessionPlugin::new().in_memory()).unwrap();
    app.get("/token", |s: &mut Session| s.csrf_token());
    app.get("/flash", |s: &mut Session| s.flash("info", "Saved."));
    app.get("/both/<key>", |s: &mut Session, key: &str| {
        s.csrf_token();
        s.set(key, 1);
    });
    let service = app.build().unwrap();
    for (path, caching) in [
        ("/token", "private, no-cache"),
        ("/flash", "private, no-cache"),
        ("/both/name", "no-store"),
        ("/both/_csrf2", "no-store"),
    ] {
        let answer = TestClient::of(service.clone()).get(path).send();
        assert_eq!(answer.set_cookies().len(), 1, "{path}");
        assert_eq!(answer.header("cache-control"), Some(caching), "{path}");
        assert_eq!(answer.header("vary"), Some("Cookie"), "{path}");
    }
}

#[test]
fn a_renewed_session_keeps_its_values_and_the_old_id_is_dead() {
    let client = client(SessionPlugin::new().in_memory());
    text(&client, "/set/name/Ada");
    let old = client.cookie(COOKIE).unwrap();
    text(&client, "/regenerate");
    let new = client.cookie(COOKIE).unwrap();
    assert_ne!(old, new);
    assert_eq!(text(&client, "/get/name"), "Ada");
    client.set_cookie(COOKIE, &old);
    assert_eq!(text(&client, "/get/name"), "-");
}

#[test]
fn a_destroyed_session_is_gone_and_its_cookie_with_it() {
    let client = client(SessionPlugin::new().in_memory());
    text(&client, "/set/name/Ada");
    let old = client.cookie(COOKIE).unwrap();
    let response = client.get("/destroy").send();
    assert!(response.set_cookies()[0].contains("Max-Age=0"), "{:?}", response.set_cookies());
    assert_eq!(client.cookie(COOKIE), None);
    client.set_cookie(COOKIE, &old);
    assert_eq!(text(&client, "/get/name"), "-");
    client.forget_cookies();
    text(&client, "/set/name/Bob");
    let before = client.cookie(COOKIE).unwrap();
    text(&client, "/destroy-and-set");
    assert_ne!(client.cookie(COOKIE).unwrap(), before);
    assert_eq!(text(&client, "/get/fresh"), "yes");
    assert_eq!(text(&client, "/get/name"), "-");
}

#[test]
fn unknown_and_malformed_ids_are_never_adopted() {
    let client = client(SessionPlugin::new().in_memory());
    let made_up = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    for id in [made_up, "short", "", "%00", "0123456789abcdef0123456789abcdef"] {
        client.forget_cookies();
        client.set_cookie(COOKIE, id);
        text(&client, "/set/name/Eve");
        assert_ne!(client.cookie(COOKIE).unwrap(), id);
        assert_eq!(text(&client, "/get/name"), "Eve");
    }
}

#[test]
fn of_several_cookies_of_its_name_the_first_that_is_a_session_counts() {
    let store = Counted::default();
    let plugin = SessionPlugin::new().store(store.clone());
    let counters = plugin.counters();
    let client = client(plugin);
    let ids = ["Ada", "Bob"].map(|name| {
        client.forget_cookies();
        text(&client, &format!("/set/name/{name}"));
        client.cookie(COOKIE).unwrap()
    });
    client.forget_cookies();
    let (ada, bob) = (ids[0].as_str(), ids[1].as_str());
    let dead: Vec<_> = ["A", "E", "I", "M"].map(|last| "A".repeat(42) + last).to_vec();
    let dead: Vec<_> = dead.iter().map(String::as_str).collect();
    for (sent, name, loads) in [
        (vec![ada, bob], "Ada", 2),
        // One that a path, a domain or somebody else has left behind is in nobody's way.
        (vec![dead[0], bob], "Bob", 2),
        (vec!["nonsense", bob], "Bob", 1),
        (vec![dead[0], dead[0], bob], "Bob", 2),
        (vec![dead[0], dead[1], dead[2], bob], "Bob", 4),
        // However many there are, no more are looked up.
        (vec![dead[0], dead[1], dead[2], dead[3], bob], "-", 4),
        (vec![dead[0], dead[1]], "-", 2),
    ] {
        let cookies: Vec<_> = sent.iter().map(|id| format!("{COOKIE}={id}")).collect();
        let (before, unknown) = (store.counts().0, counters.snapshot().unknown_id);
        let answer = client.get("/get/name").header("cookie", &cookies.join("; ")).send();
        assert_eq!((answer.status(), &*answer.text()), (200, name), "{sent:?}");
        assert_eq!(store.counts().0 - before, loads, "{sent:?}");
        let none = u64::from(name == "-");
        assert_eq!(counters.snapshot().unknown_id - unknown, none, "{sent:?}");
    }
}

#[test]
fn a_session_that_cannot_be_had_is_not_replaced_by_that_of_another_cookie() {
    let store = Counted::default();
    let client = client(SessionPlugin::new().store(store.clone()));
    let ids = ["Ada", "Bob"].map(|name| {
        client.forget_cookies();
        text(&client, &format!("/set/name/{name}"));
        client.cookie(COOKIE).unwrap()
    });
    client.forget_cookies();
    let (ada, bob, dead) = (&*ids[0], &*ids[1], &*"A".repeat(43));
    *store.failing_load.lock().unwrap() = SessionId::parse(ada, IdFormat::Base64Url);
    for (sent, status, name) in [
        ([ada, bob], 503, ""),
        ([dead, ada], 503, ""),
        ([bob, ada], 200, "Bob"),
        ([dead, bob], 200, "Bob"),
    ] {
        let cookies = format!("{COOKIE}={}; {COOKIE}={}", sent[0], sent[1]);
        let answer = client.get("/get/name").header("cookie", &cookies).send();
        assert_eq!(answer.status(), status, "{sent:?}");
        assert!(status != 200 || answer.text() == name, "{sent:?}: {}", answer.text());
    }
}

#[test]
fn what_a_handler_set_before_it_failed_is_saved_unless_it_panicked() {
    let client = client(SessionPlugin::new().in_memory());
    for (path, status, expected) in [
        ("/abort", 403, "abort"),
        ("/redirect", 303, "redirect"),
        ("/fail", 500, "failure"),
        ("/panic", 500, "failure"),
    ] {
        assert_eq!(client.get(path).send().status(), status);
        assert_eq!(text(&client, "/get/before"), expected, "{path}");
    }
}

#[test]
fn operations_in_the_store_give_their_real_result() {
    let client = client(SessionPlugin::new().in_memory());
    assert_eq!(text(&client, "/incr"), "1");
    assert_eq!(text(&client, "/incr"), "2");
    assert_eq!(text(&client, "/get/n"), "2");
    assert_eq!(text(&client, "/take/n"), "Some(\"2\")");
    assert_eq!(text(&client, "/take/n"), "None");
    assert_eq!(text(&client, "/claim/one"), "true");
    assert_eq!(text(&client, "/claim/two"), "false");
    assert_eq!(text(&client, "/get/claim"), "one");
    text(&client, "/set/n/many");
    assert_eq!(client.get("/incr").send().status(), 500);
}

#[test]
fn what_is_too_large_is_never_acknowledged() {
    let client = client(SessionPlugin::new().in_memory());
    let response = client.get("/large").send();
    assert_eq!(response.status(), 500);
    assert!(response.set_cookies().is_empty());
    let why = text(&client, "/try-large");
    assert!(why.starts_with("session key \"large\": a value of 70000 bytes would make"), "{why}");
    text(&client, "/set/a/1");
    assert_eq!(client.get("/large").send().status(), 500);
    assert_eq!(text(&client, "/get/small"), "-");
    for number in 0..300 {
        let status = client.get(&format!("/set/key{number}/1")).send().status();
        assert_eq!(status, if number < 255 { 200 } else { 500 }, "{number}");
    }
}

/// Each of them is within the caps, by what it has loaded; together they are not.
#[test]
fn two_requests_that_go_past_the_caps_together_log_nobody_out() {
    let server = RedisServer::start(&[]);
    let pool = RedisPool::open(&server.url(0)).unwrap();
    let mut app = App::new();
    app.install(SessionPlugin::new().pool(pool).max_bytes(1000).max_fields(3)).unwrap();
    let other: Arc<Mutex<Option<TestClient>>> = Arc::default();
    let meanwhile = other.clone();
    app.get("/set/<key>/<bytes:int>", move |s: &mut Session, key: &str, bytes: usize| {
        let tab = meanwhile.lock().unwrap().take();
        if let Some(tab) = tab {
            assert_eq!(tab.get("/set/other/600").send().status(), 200);
        }
        s.set(key, "x".repeat(bytes));
    });
    app.get("/size", |s: &mut Session| s.values().map(str::len).sum::<usize>().to_string());
    app.get("/shrink", |s: &mut Session| s.set("other", "x".repeat(500)));
    let client = TestClient::new(app).unwrap();
    client.get("/set/first/1").send();
    let tab = TestClient::of(client.service().clone());
    tab.set_cookie(COOKIE, &client.cookie(COOKIE).unwrap());
    *other.lock().unwrap() = Some(tab);
    assert_eq!(client.get("/set/own/600").send().status(), 200);
    assert_eq!(text(&client, "/size"), "1201");
    // It does not grow any more, but what makes it smaller is no mistake.
    assert_eq!(client.get("/set/own/700").send().status(), 500);
    assert_eq!(client.get("/set/more/1").send().status(), 500);
    assert_eq!(client.get("/shrink").send().status(), 200);
    assert_eq!(text(&client, "/size"), "1101");
}

#[test]
fn a_late_answer_never_touches_the_new_cookie() {
    let clock = Clock::default();
    let slow = Arc::new(Mutex::new(None::<TestClient>));
    let mut app = App::new();
    app.install(SessionPlugin::new().store(clock.store())).unwrap();
    let others = slow.clone();
    // While this handler runs, another request of the same browser renews or ends the session.
    app.get("/slow/<how>/<path:path>", move |s: &mut Session, how: &str, path: &str| {
        if let Some(other) = others.lock().unwrap().as_ref() {
            assert_eq!(other.get(&format!("/{path}")).send().status(), 200);
        }
        if how == "set" {
            s.set("late", "yes");
        }
    });
    app.get("/set", |s: &mut Session| s.set("name", "Ada"));
    app.get("/regenerate", |s: &mut Session| s.regenerate());
    app.get("/destroy", |s: &mut Session| s.destroy());
    app.get("/late", |s: &mut Session| s.get("late").unwrap_or("-").to_owned());
    let client = TestClient::new(app).unwrap();
    for (how, what) in
        [("read", "regenerate"), ("set", "regenerate"), ("read", "destroy"), ("set", "destroy")]
    {
        client.forget_cookies();
        client.get("/set").send();
        // Old enough that a read would send the cookie anew.
        clock.pass(Duration::from_secs(100));
        let other = TestClient::of(client.service().clone());
        other.set_cookie(COOKIE, &client.cookie(COOKIE).unwrap());
        *slow.lock().unwrap() = Some(other);
        let response = client.get(&format!("/slow/{how}/{what}")).send();
        assert_eq!(response.status(), 200);
        assert!(response.set_cookies().is_empty(), "{how} {what}: {:?}", response.set_cookies());
        let other = slow.lock().unwrap().take().unwrap();
        assert_eq!(text(&other, "/late"), "-", "{how} {what}");
        assert_eq!(text(&client, "/late"), "-", "{how} {what}");
    }
}

#[test]
fn what_is_done_at_once_sends_no_cookie_that_another_request_has_made_a_dead_one() {
    let clock = Clock::default();
    let meanwhile = Arc::new(Mutex::new(None::<TestClient>));
    let mut app = App::new();
    app.install(SessionPlugin::new().store(clock.store())).unwrap();
    app.get("/set", |s: &mut Session| s.flash("info", "message"));
    app.get("/regenerate", |s: &mut Session| s.regenerate());
    let others = meanwhile.clone();
    app.get("/<what>", move |s: &mut Session, what: &str| -> Result<()> {
        match what {
            "commit" => s.commit()?,
            "incr" => drop(s.incr("n", 1)?),
            "take" => drop(s.take("none")?),
            "claim" => drop(s.set_if_absent("claimed", "yes")?),
            _ => drop(s.take_flashes()?),
        }
        if let Some(other) = others.lock().unwrap().take() {
            assert_eq!(other.get("/regenerate").send().status(), 200);
        }
        Ok(())
    });
    let client = TestClient::new(app).unwrap();
    for what in ["commit", "incr", "take", "claim", "flashes"] {
        for renewed in [false, true] {
            client.forget_cookies();
            client.get("/set").send();
            // Old enough that the cookie is to be sent anew.
            clock.pass(Duration::from_secs(100));
            let other = TestClient::of(client.service().clone());
            other.set_cookie(COOKIE, &client.cookie(COOKIE).unwrap());
            *meanwhile.lock().unwrap() = renewed.then_some(other);
            let answer = client.get(&format!("/{what}")).send();
            let cookies = usize::from(!renewed);
            assert_eq!((answer.status(), answer.set_cookies().len()), (200, cookies), "{what}");
        }
    }
}

#[test]
fn commit_tells_that_a_session_has_gone() {
    let other = Arc::new(Mutex::new(None::<TestClient>));
    let mut app = App::new();
    app.install(SessionPlugin::new().in_memory()).unwrap();
    let destroyer = other.clone();
    app.get("/set", |s: &mut Session| s.set("name", "Ada"));
    app.get("/destroy", |s: &mut Session| s.destroy());
    app.get("/commit", move |s: &mut Session| {
        s.set("a", "1");
        s.commit().unwrap();
        if let Some(other) = destroyer.lock().unwrap().as_ref() {
            other.get("/destroy").send();
        }
        s.set("b", s.parse("b").unwrap_or(1) + 1);
        format!("{:?} {:?}", s.commit().map_err(|e| e.kind()), s.incr("n", 1).map_err(|e| e.kind()))
    });
    let client = TestClient::new(app).unwrap();
    assert_eq!(text(&client, "/commit"), "Ok(()) Ok(1)");
    let thief = TestClient::of(client.service().clone());
    thief.set_cookie(COOKIE, &client.cookie(COOKIE).unwrap());
    *other.lock().unwrap() = Some(thief);
    assert_eq!(text(&client, "/commit"), "Err(Gone) Err(Gone)");
}

#[test]
fn a_new_id_that_the_store_has_reaches_the_browser_also_where_the_request_fails() {
    let mut app = App::new();
    app.install(SessionPlugin::new().in_memory()).unwrap();
    app.get("/set", |s: &mut Session| s.set("name", "Ada"));
    app.get("/get/<key>", |s: &mut Session, key: &str| s.get(key).unwrap_or("-").to_owned());
    app.get("/panic", |s: &mut Session| -> Result<String> {
        s.regenerate();
        s.commit()?;
        s.set("late", "lost");
        panic!("on purpose")
    });
    app.get("/refused", |s: &mut Session| -> Result<()> {
        s.regenerate();
        s.commit()?;
        s.set("late", "x".repeat(100_000));
        Ok(())
    });
    app.get("/not-committed", |s: &mut Session| -> String {
        s.regenerate();
        panic!("on purpose")
    });
    app.get("/destroyed", |s: &mut Session| -> Result<String> {
        s.regenerate();
        s.commit()?;
        s.destroy();
        s.commit()?;
        panic!("on purpose")
    });
    let client = TestClient::new(app).unwrap();
    client.get("/set").send();
    for path in ["/panic", "/refused"] {
        let (old, answer) = (client.cookie(COOKIE).unwrap(), client.get(path).send());
        assert_eq!(answer.status(), 500, "{path}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
        assert_ne!(client.cookie(COOKIE).unwrap(), old, "{path}");
        assert_eq!(text(&client, "/get/name"), "Ada", "{path}");
        assert_eq!(text(&client, "/get/late"), "-", "{path}");
    }
    for (path, name) in [("/not-committed", "Ada"), ("/destroyed", "-")] {
        assert_eq!(client.get(path).send().set_cookies(), [""; 0], "{path}");
        assert_eq!(text(&client, "/get/name"), name, "{path}");
    }
}

#[test]
fn a_new_id_that_the_store_has_reaches_the_browser_also_where_another_plugin_panics() {
    struct Panics;
    impl Plugin for Panics {
        fn name(&self) -> &str {
            "panics"
        }
        fn apply(&self, callback: Callback, _: &Route) -> Callback {
            Callback::new(move |exchange| match callback.call(exchange) {
                answer if answer.status() == 201 => panic!("on purpose"),
                answer => answer,
            })
        }
    }
    let mut app = App::new();
    // Further out than the session.
    app.install(Panics).unwrap();
    app.install(SessionPlugin::new().in_memory()).unwrap();
    app.get("/set", |s: &mut Session| s.set("name", "Ada"));
    app.get("/get", |s: &mut Session| s.get("name").unwrap_or("-").to_owned());
    app.get("/login/<status:int>", |s: &mut Session, status: u16| -> Result<(u16, String)> {
        s.regenerate();
        s.commit()?;
        Ok((status, String::new()))
    });
    let client = TestClient::new(app).unwrap();
    client.get("/set").send();
    for (status, answered) in [(200, 200), (201, 500)] {
        let (old, answer) = (client.cookie(COOKIE), client.get(&format!("/login/{status}")).send());
        assert_eq!((answer.status(), answer.set_cookies().len()), (answered, 1));
        assert_eq!(answer.headers().get_all("vary").iter().count(), 1);
        assert_ne!(client.cookie(COOKIE), old);
        assert_eq!(text(&client, "/get"), "Ada");
    }
}

#[test]
fn a_new_id_that_the_store_has_needs_no_second_save_to_reach_the_browser() {
    let clock = Clock::default();
    let store = Counted { inner: Arc::new(clock.store()), ..Counted::default() };
    let mut app = App::new();
    app.install(SessionPlugin::new().store(store.clone())).unwrap();
    app.get("/set", |s: &mut Session| s.set("name", "Ada"));
    app.get("/get", |s: &mut Session| s.get("name").unwrap_or("-").to_owned());
    let failing = store.failing_saves.clone();
    app.get("/login", move |s: &mut Session| -> Result<()> {
        s.regenerate();
        s.commit()?;
        *failing.lock().unwrap() = true;
        Ok(())
    });
    let client = TestClient::new(app).unwrap();
    client.get("/set").send();
    // Old enough that a read would send the cookie anew, which is a save.
    clock.pass(Duration::from_secs(100));
    let saves = store.counts().1;
    let (old, answer) = (client.cookie(COOKIE), client.get("/login").send());
    assert_eq!((answer.status(), store.counts().1 - saves), (200, 1));
    assert_ne!(client.cookie(COOKIE), old);
    assert_eq!(text(&client, "/get"), "Ada");
}

#[test]
fn who_destroys_a_session_that_was_lost_starts_a_new_one() {
    let other: Arc<Mutex<Option<TestClient>>> = Arc::default();
    let mut app = App::new();
    app.install(SessionPlugin::new().in_memory()).unwrap();
    app.get("/set", |s: &mut Session| s.set("name", "Ada"));
    app.get("/get", |s: &mut Session| s.get("name").unwrap_or("-").to_owned());
    app.get("/destroy", |s: &mut Session| s.destroy());
    let elsewhere = other.clone();
    app.get("/again", move |s: &mut Session| {
        // Meanwhile the session ends in another tab.
        elsewhere.lock().unwrap().as_ref().unwrap().get("/destroy").send();
        assert_eq!(s.incr("n", 1).unwrap_err().kind(), ErrorKind::Gone);
        s.destroy();
        s.set("name", "Bob");
    });
    let client = TestClient::new(app).unwrap();
    client.get("/set").send();
    let tab = TestClient::of(client.service().clone());
    tab.set_cookie(COOKIE, &client.cookie(COOKIE).unwrap());
    *other.lock().unwrap() = Some(tab);
    assert_eq!(client.get("/again").send().status(), 200);
    assert_eq!(text(&client, "/get"), "Bob");
}

#[test]
fn what_is_a_number_does_not_depend_on_whether_it_is_stored() {
    let mut app = App::new();
    app.install(SessionPlugin::new().in_memory()).unwrap();
    let answer = |sum: Result<i64>| format!("{:?}", sum.map_err(|error| error.kind()));
    app.get("/set/<n>", |s: &mut Session, n: &str| s.set("n", n));
    app.get("/incr", move |s: &mut Session| answer(s.incr("n", 1)));
    app.get("/both/<n>", move |s: &mut Session, n: &str| {
        s.set("n", n);
        answer(s.incr("n", 1))
    });
    let client = TestClient::new(app).unwrap();
    for n in ["41", "-1", "+41", "007", "-0", "1.0", "9223372036854775807"] {
        client.forget_cookies();
        let new = text(&client, &format!("/both/{n}"));
        client.forget_cookies();
        client.get(&format!("/set/{n}")).send();
        assert_eq!(text(&client, "/incr"), new, "{n}");
    }
}

#[test]
fn two_keywords_on_one_route() {
    let mut app = App::new();
    app.install(SessionPlugin::new().in_memory()).unwrap();
    let admin = SessionPlugin::new().in_memory().keyword("admin").cookie_name("admin.session");
    app.install(admin).unwrap();
    app.get(
        "/",
        named!(|admin: &mut Session, session: &mut Session| {
            admin.set("who", "admin");
            session.set("who", "user");
        }),
    );
    app.get(
        "/who",
        named!(|session: &mut Session, admin: &mut Session| {
            format!("{:?} {:?}", session.get("who"), admin.get("who"))
        }),
    );
    app.get("/admin", named!(|admin: &mut Session| admin.get("who").unwrap_or("-").to_owned()));
    let client = TestClient::new(app).unwrap();
    client.get("/").send();
    assert_eq!(text(&client, "/who"), "Some(\"user\") Some(\"admin\")");
    assert_ne!(client.cookie(COOKIE), client.cookie("admin.session"));
    let stolen = TestClient::of(client.service().clone());
    stolen.set_cookie("admin.session", &client.cookie(COOKIE).unwrap());
    assert_eq!(text(&stolen, "/admin"), "-");
}

#[test]
fn settings_that_cannot_work_are_refused_at_install() {
    let error = |plugins: Vec<SessionPlugin>| {
        let mut app = App::new();
        plugins
            .into_iter()
            .find_map(|plugin| app.install(plugin).err().map(|error| error.to_string()))
            .expect("a refusal")
    };
    let new = || SessionPlugin::new().in_memory();
    let table = [
        (vec![new(), new().cookie_name("b")], "cannot have keyword \"session\""),
        (vec![new(), new().keyword("b")], "cannot have cookie \"bottle.session\""),
        (vec![new().cookie_name("__Host-a")], "__Host- cookie only with"),
        (vec![new().cookie_same_site(SameSite::None)], "SameSite=None cookie only with"),
        (vec![new().cookie_lifetime(Duration::ZERO)], "a lifetime of zero"),
        (vec![new().host("redis")], "do not go with in_memory"),
        (
            vec![SessionPlugin::new().migrate_from(Layout::BottleSession).hardened()],
            "migrate_from finds no former session",
        ),
    ];
    for (plugins, expected) in table {
        let error = error(plugins);
        assert!(error.contains(expected), "{error}\nlacks {expected}");
        assert!(error.contains("(at tests/sessions.rs:"), "{error}");
    }
}

#[test]
fn a_store_that_fails_makes_nobody_anonymous() {
    let store = Counted::default();
    let mut app = App::new();
    app.install(SessionPlugin::new().store(store.clone())).unwrap();
    app.get("/get", |s: &mut Session| s.get("name").unwrap_or("-").to_owned());
    app.get("/set", |s: &mut Session| {
        s.set("name", "Ada");
        "acknowledged"
    });
    app.get("/option", |s: Option<&mut Session>| s.is_some().to_string());
    app.get("/without", || "fine");
    let client = TestClient::new(app).unwrap();
    client.get("/set").send();
    *store.failing.lock().unwrap() = Some(ErrorKind::Unavailable);
    for path in ["/get", "/set"] {
        let response = client.get(path).send();
        assert_eq!(response.status(), 503, "{path}");
        assert!(response.header("retry-after").is_some());
        assert!(response.set_cookies().is_empty());
    }
    assert_eq!(text(&client, "/option"), "false");
    let without = client.get("/option").send();
    assert_eq!(without.header("cache-control"), Some("no-store"), "it is so only while this lasts");
    assert_eq!(without.header("vary"), Some("Cookie"));
    assert_eq!(text(&client, "/without"), "fine");
    // New visitors too: what cannot be saved is not acknowledged.
    let stranger = TestClient::of(client.service().clone());
    assert_eq!(text(&stranger, "/get"), "-");
    let response = stranger.get("/set").send();
    assert_eq!((response.status(), response.set_cookies().len()), (503, 0));
    *store.failing.lock().unwrap() = Some(ErrorKind::Config);
    assert_eq!(client.get("/get").send().status(), 500);
    *store.failing.lock().unwrap() = None;
    assert_eq!(text(&client, "/get"), "Ada");
}

#[test]
fn what_a_commit_has_lost_no_later_one_acknowledges() {
    let store = Counted::default();
    let mut app = App::new();
    app.install(SessionPlugin::new().store(store.clone())).unwrap();
    app.get("/set", |s: &mut Session| s.set("name", "Ada"));
    app.get("/get", |s: &mut Session| s.keys().collect::<Vec<_>>().join(" "));
    let failing = store.failing_saves.clone();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let told = heard.clone();
    app.get("/pay/<what>", move |s: &mut Session, what: &str| {
        match what {
            "lost" => s.set("paid", "yes"),
            _ => s.set("large", "x".repeat(70_000)),
        }
        *failing.lock().unwrap() = true;
        let lost = s.commit();
        // The store works again.
        *failing.lock().unwrap() = false;
        s.set("more", "yes");
        let later = [s.commit(), s.incr("n", 1).map(drop), s.take("name").map(drop)];
        let kinds = std::iter::once(lost).chain(later).map(|done| done.map_err(|e| e.kind()));
        *told.lock().unwrap() = kinds.collect();
        "paid"
    });
    let client = TestClient::new(app).unwrap();
    client.get("/set").send();
    for (what, status, kind) in
        [("lost", 503, ErrorKind::Unavailable), ("refused", 500, ErrorKind::Session)]
    {
        let answer = client.get(&format!("/pay/{what}")).send();
        assert_eq!((answer.status(), answer.set_cookies().len()), (status, 0), "{what}");
        assert_eq!(*heard.lock().unwrap(), [Err(kind); 4], "{what}");
        assert_eq!(text(&client, "/get"), "name", "{what}");
    }
}

#[test]
fn what_the_store_said_of_a_failure_is_in_the_log_once_whatever_the_handler_made_of_it() {
    collect_logs();
    let store = Counted::default();
    let mut app = App::new();
    app.install(SessionPlugin::new().store(store.clone())).unwrap();
    app.get("/set", |s: &mut Session| s.flash("info", "message"));
    app.get("/<what>/<how>", |s: &mut Session, what: &str, how: &str| -> Result<()> {
        let done = match what {
            "commit" => {
                s.set("name", "Ada");
                s.commit()
            }
            "incr" => s.incr("n", 1).map(drop),
            "take" => s.take("none").map(drop),
            "claim" => s.set_if_absent("claimed", "yes").map(drop),
            _ => s.take_flashes().map(drop),
        };
        if how == "told" { done } else { Ok(()) }
    });
    let client = TestClient::new(app).unwrap();
    client.get("/set").send();
    for what in ["commit", "incr", "take", "claim", "flashes"] {
        for (kind, level) in [(ErrorKind::Unavailable, "WARN "), (ErrorKind::Redis, "ERROR ")] {
            for how in ["told", "ignored"] {
                let text = format!("the store says {what} {kind:?} {how}");
                *store.failing_with.lock().unwrap() = Some((kind, text.clone()));
                let status = client.get(&format!("/{what}/{how}")).send().status();
                *store.failing_with.lock().unwrap() = None;
                let expected = match (kind, how, what) {
                    // Nothing of what was to be saved is lost.
                    (_, "ignored", "incr" | "take" | "claim" | "flashes") => 200,
                    (ErrorKind::Unavailable, ..) => 503,
                    _ => 500,
                };
                assert_eq!(status, expected, "{text}");
                let lines = logs_of(&text);
                assert!(lines.len() == 1 && lines[0].starts_with(level), "{lines:?}");
            }
        }
    }
}

#[test]
fn what_could_not_be_saved_is_for_no_cache_to_keep_whatever_the_handler_said() {
    let store = Counted::default();
    let mut app = App::new();
    app.install(SessionPlugin::new().store(store.clone())).unwrap();
    app.get("/<what>", |s: &mut Session, head: &mut ResponseHead, what: &str| -> Result<()> {
        head.set_header("cache-control", "public, max-age=3600")?;
        match what {
            "set" => s.set("name", "Ada"),
            _ => s.set("large", "x".repeat(70_000)),
        }
        Ok(())
    });
    let client = TestClient::new(app).unwrap();
    *store.failing_saves.lock().unwrap() = true;
    for (path, status) in [("/set", 503), ("/large", 500)] {
        let answer = client.get(path).send();
        assert_eq!(answer.status(), status, "{path}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
        assert_eq!(answer.header("vary"), Some("Cookie"), "{path}");
    }
}

#[test]
fn who_only_reads_is_let_in_where_the_store_refuses_to_write() {
    let clock = Clock::default();
    let store = Counted { inner: Arc::new(clock.store()), ..Counted::default() };
    let plugin = SessionPlugin::new().store(store.clone());
    let counters = plugin.counters();
    let client = client(plugin);
    text(&client, "/set/a/1");
    // Old enough that the cookie would be sent anew, which is a save.
    clock.pass(Duration::from_secs(100));
    *store.failing_saves.lock().unwrap() = true;
    let response = client.get("/get/a").send();
    assert_eq!((response.status(), response.text().as_str()), (200, "1"));
    assert!(response.set_cookies().is_empty());
    assert_eq!(client.get("/set/a/2").send().status(), 503);
    *store.failing_saves.lock().unwrap() = false;
    assert_eq!(client.get("/get/a").send().set_cookies().len(), 1);
    assert_eq!(counters.snapshot().write_lost, 0);
}

#[test]
fn events_and_counters_tell_what_happened() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let log = heard.clone();
    let plugin = SessionPlugin::new()
        .in_memory()
        .events(move |event: Event<'_>| log.lock().unwrap().push(format!("{event:?}")));
    let counters = plugin.counters();
    let client = client(plugin);
    for path in ["/set/a/1", "/get/a", "/regenerate", "/destroy"] {
        client.get(path).send();
    }
    client.set_cookie(COOKIE, "nonsense");
    client.get("/get/a").send();
    let expected = ["Created", "Loaded", "Loaded", "Renewed", "Loaded", "Destroyed", "MalformedId"];
    assert_eq!(*heard.lock().unwrap(), expected);
    let counts = counters.snapshot();
    assert_eq!((counts.created, counts.loaded, counts.renewed, counts.destroyed), (1, 3, 1, 1));
    assert_eq!(counts.iter().find(|(name, _)| *name == "malformed_id"), Some(("malformed_id", 1)));
}

#[test]
fn an_observer_that_panics_disturbs_nobody() {
    let plugin = SessionPlugin::new()
        .in_memory()
        .events(|_: Event<'_>| std::panic::resume_unwind(Box::new("on purpose")));
    let counters = plugin.counters();
    let client = client(plugin);
    for path in ["/set/a/1", "/regenerate", "/get/a"] {
        text(&client, path);
    }
    assert_eq!(text(&client, "/get/a"), "1");
    assert_eq!(counters.snapshot().renewed, 1);
}

/// A memory store that counts what it is asked, and fails when told.
#[derive(Clone, Default)]
struct Counted {
    inner: Arc<MemoryStore>,
    loads: Arc<AtomicU64>,
    saves: Arc<AtomicU64>,
    failing: Arc<Mutex<Option<ErrorKind>>>,
    failing_saves: Arc<Mutex<bool>>,
    failing_load: Arc<Mutex<Option<SessionId>>>,
    /// With this, `increment`, `take` and `set_if_absent` fail, and so do saves.
    failing_with: Arc<Mutex<Option<(ErrorKind, String)>>>,
}

impl Counted {
    fn counts(&self) -> (u64, u64) {
        (self.loads.load(Ordering::SeqCst), self.saves.load(Ordering::SeqCst))
    }

    fn check_writing(&self) -> Result<()> {
        match &*self.failing_with.lock().unwrap() {
            Some((kind, text)) => Err(Error::new(*kind, text.clone())),
            None => Ok(()),
        }
    }

    fn check(&self) -> Result<()> {
        match *self.failing.lock().unwrap() {
            Some(kind) => Err(Error::new(kind, "told to fail")),
            None => Ok(()),
        }
    }
}

impl SessionStore for Counted {
    fn load(&self, load: &Load<'_>) -> Result<Option<Record>> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        self.check()?;
        if self.failing_load.lock().unwrap().as_ref() == Some(load.id) {
            return Err(Error::new(ErrorKind::Unavailable, "told to fail"));
        }
        self.inner.load(load)
    }

    fn save(&self, save: &Save<'_>) -> Result<Saved> {
        self.saves.fetch_add(1, Ordering::SeqCst);
        self.check()?;
        if *self.failing_saves.lock().unwrap() {
            return Err(Error::new(ErrorKind::Unavailable, "told to fail"));
        }
        self.check_writing()?;
        self.inner.save(save)
    }

    fn increment(&self, load: &Load<'_>, key: &str, by: i64) -> Result<i64> {
        self.check_writing()?;
        self.inner.increment(load, key, by)
    }

    fn take(&self, load: &Load<'_>, keys: &[&str]) -> Result<Vec<Option<String>>> {
        self.check_writing()?;
        self.inner.take(load, keys)
    }

    fn set_if_absent(&self, load: &Load<'_>, key: &str, value: &str) -> Result<bool> {
        self.check_writing()?;
        self.inner.set_if_absent(load, key, value)
    }
}

#[test]
fn an_ignored_failure_of_a_commit_is_still_no_success() {
    let down = SessionPlugin::new().host("127.0.0.1").port(1);
    let mut app = App::new();
    app.install(down).unwrap();
    app.get("/", |session: &mut Session| {
        session.set("name", "Ada");
        let _ = session.incr("visits", 1);
        "saved"
    });
    let client = TestClient::new(app).unwrap();
    let answer = client.get("/").send();
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.header("set-cookie"), None);
}

fn login_client(plugin: SessionPlugin) -> TestClient {
    let mut app = App::new();
    app.install(plugin).unwrap();
    app.get("/who", |s: &mut Session| s.user_id().unwrap_or("-").to_owned());
    app.get("/in/<user>", |s: &mut Session, user: &str| s.log_in(user));
    app.get("/out", |s: &mut Session| s.log_out());
    app.get("/set/<key>/<value>", |s: &mut Session, key: &str, value: &str| s.set(key, value));
    app.get("/get/<key>", |s: &mut Session, key: &str| s.get(key).unwrap_or("-").to_owned());
    app.get("/since", |s: &mut Session| format!("{:?}", s.logged_in_at()));
    app.get("/both/<user>", |s: &mut Session, user: &str| -> Result<String> {
        s.set("before", "1");
        s.log_in(user)?;
        s.set("after", "1");
        Ok(s.keys().collect::<Vec<_>>().join(" "))
    });
    app.get("/at-once/<user>", |s: &mut Session, user: &str| -> Result<String> {
        s.log_in(user)?;
        s.commit()?;
        s.set("after", "1");
        Ok(s.user_id().unwrap_or("-").to_owned())
    });
    TestClient::new(app).unwrap()
}

#[test]
fn who_logs_in_gets_a_new_id_and_keeps_what_an_anonymous_session_held() {
    let client = login_client(SessionPlugin::new().in_memory());
    text(&client, "/set/cart/1");
    let planted = client.cookie(COOKIE).unwrap();
    let answer = client.get("/in/ada").send();
    assert_eq!(answer.set_cookies().len(), 1);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_ne!(client.cookie(COOKIE).unwrap(), planted);
    assert_eq!((text(&client, "/who"), text(&client, "/get/cart")), ("ada".into(), "1".into()));
    // Who planted the id has nothing.
    let attacker = TestClient::of(client.service().clone());
    attacker.set_cookie(COOKIE, &planted);
    assert_eq!((text(&attacker, "/who"), text(&attacker, "/get/cart")), ("-".into(), "-".into()));
    // Once more: again a new id, and the values stay.
    let first = (client.cookie(COOKIE).unwrap(), text(&client, "/since"));
    text(&client, "/in/ada");
    assert_ne!(client.cookie(COOKIE).unwrap(), first.0);
    assert_ne!(text(&client, "/since"), first.1);
    assert_eq!(text(&client, "/get/cart"), "1");
}

#[test]
fn another_user_who_logs_in_finds_nothing_of_the_one_before() {
    for way in ["/in/bob", "/both/bob", "/at-once/bob"] {
        let client = login_client(SessionPlugin::new().in_memory());
        text(&client, "/in/ada");
        text(&client, "/set/secret/1");
        let adas = client.cookie(COOKIE).unwrap();
        client.get(way).send();
        assert_eq!(text(&client, "/who"), "bob", "{way}");
        assert_eq!(text(&client, "/get/secret"), "-", "{way}");
        assert_eq!(text(&client, "/get/before"), "-", "{way}");
        let other = TestClient::of(client.service().clone());
        other.set_cookie(COOKIE, &adas);
        assert_eq!(text(&other, "/who"), "-", "the old session has ended: {way}");
    }
}

#[test]
fn a_login_into_nothing_makes_a_session_and_a_logout_ends_it() {
    let client = login_client(SessionPlugin::new().in_memory());
    assert_eq!(text(&client, "/both/ada"), "after before");
    assert_eq!((text(&client, "/who"), text(&client, "/get/before")), ("ada".into(), "1".into()));
    let old = client.cookie(COOKIE).unwrap();
    text(&client, "/out");
    assert_eq!((text(&client, "/who"), client.cookie(COOKIE)), ("-".into(), None));
    client.set_cookie(COOKIE, &old);
    assert_eq!(text(&client, "/who"), "-");
    // With a login and nothing else.
    client.forget_cookies();
    text(&client, "/in/ada");
    assert_eq!(text(&client, "/who"), "ada");
    assert_eq!(text(&client, "/at-once/ada"), "ada");
    assert_eq!(text(&client, "/get/after"), "1");
}

#[test]
fn a_user_without_a_name_cannot_log_in() {
    let mut app = App::new();
    app.install(SessionPlugin::new().in_memory()).unwrap();
    app.post("/", |s: &mut Session, request: &Request| {
        s.log_in(request.query("name").unwrap().unwrap_or_default())
            .map_or_else(|error| error.to_string(), |()| "in".to_owned())
    });
    let client = TestClient::new(app).unwrap();
    let long = "x".repeat(257);
    for (name, expected) in [
        (
            "",
            r#"user "" cannot log in: a user's name has 1 to 256 bytes and no control characters"#,
        ),
        (
            "a\nb",
            r#"user "a\nb" cannot log in: a user's name has 1 to 256 bytes and no control characters"#,
        ),
        (&long, "cannot log in"),
        (&long[1..], "in"),
        ("číslo 7", "in"),
    ] {
        let name: String = form_urlencoded::byte_serialize(name.as_bytes()).collect();
        let answer = client.post(&format!("/?name={name}")).send().text();
        assert!(answer.ends_with(expected) || answer.contains(expected), "{name:?}: {answer}");
    }
}
