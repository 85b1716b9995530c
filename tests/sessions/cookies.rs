//! Cookies: attributes, when they are sent, and what caches may keep.

use super::*;

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
        let shutdown = ShutdownHandle::new();
        let mut served = Vec::new();
        let mut serve = |address| served.push(service.serving(address, &shutdown));
        local.iter().chain([&unix]).for_each(&mut serve);
        assert_eq!(lines().len(), 1, "{name}: nobody else sees it");
        public.iter().for_each(&mut serve);
        let warnings = lines().iter().filter(|line| line.starts_with("WARN serving ")).count();
        assert_eq!(warnings, if warned { public.len() } else { 0 }, "{name}");
        let https = ListenAddress::Tls("0.0.0.0:443".parse().unwrap());
        serve(&https);
        assert_eq!(lines().len(), 1 + warnings, "{name}: {https}");
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
        // Its page of an error depends on `Accept`, too.
        assert!(answer.headers().get_all("vary").iter().any(|vary| vary == "Cookie"), "{path}");
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
        // Its page of an error depends on `Accept`, too.
        assert!(answer.headers().get_all("vary").iter().any(|vary| vary == "Cookie"), "{path}");
    }
}
