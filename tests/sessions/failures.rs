//! Stores that fail, and what is told of it.

use super::*;

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
    let expected = [
        "Created",
        "Anonymous",
        "Loaded",
        "Loaded",
        "Renewed",
        "Loaded",
        "Destroyed",
        "MalformedId",
    ];
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
