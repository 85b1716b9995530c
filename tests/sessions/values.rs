//! What sessions hold, and what saving it costs.

use super::*;

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
        assert!(error.contains("(at tests/sessions/values.rs:"), "{error}");
    }
}
