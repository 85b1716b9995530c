//! Ids: renewed, destroyed, never adopted.

use super::*;

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
        let vary = answer.headers().get_all("vary").iter();
        assert_eq!(vary.filter(|vary| *vary == "Cookie").count(), 1);
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
fn who_destroys_a_session_that_another_request_has_ended_makes_no_other_one() {
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
    let response = client.get("/again").send();
    assert_eq!((response.status(), response.set_cookies().len()), (200, 0));
    assert_eq!(text(&client, "/get"), "-");
}
