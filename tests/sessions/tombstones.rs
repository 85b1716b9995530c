//! Requests with an id that was taken away a moment ago.

use bottle_session::Counters;

use super::*;

/// An app whose sessions people log in to, its counters, and the clock of its store.
fn app() -> (TestClient, Counters, Clock) {
    let clock = Clock::default();
    let plugin = SessionPlugin::new().store(clock.store());
    let counters = plugin.counters();
    let mut app = App::new();
    app.install(plugin).unwrap();
    app.get("/get", |s: &mut Session| s.get("a").unwrap_or("-").to_owned());
    app.get("/set/<value>", |s: &mut Session, value: &str| s.set("a", value));
    app.get("/incr", |s: &mut Session| -> Result<String> { Ok(s.incr("n", 1)?.to_string()) });
    app.get("/in/<user>", |s: &mut Session, user: &str| s.log_in(user));
    app.get("/who", |s: &mut Session| s.user_id().unwrap_or("-").to_owned());
    app.get("/regenerate", |s: &mut Session| s.regenerate());
    app.get("/out", |s: &mut Session| s.log_out());
    app.get("/out-and-set", |s: &mut Session| {
        s.log_out();
        s.set("a", "fresh");
    });
    (TestClient::new(app).unwrap(), counters, clock)
}

/// Another browser that has this cookie.
fn with(client: &TestClient, id: &str) -> TestClient {
    let other = TestClient::of(client.service().clone());
    other.set_cookie(COOKIE, id);
    other
}

#[test]
fn a_request_that_was_under_way_beside_a_login_makes_no_session_and_sets_no_cookie() {
    for (before, ends) in [
        ("/set/1", "/in/ada"),
        ("/in/ada", "/in/ada"),
        ("/in/ada", "/in/bob"),
        ("/set/1", "/regenerate"),
        ("/in/ada", "/out"),
    ] {
        let (browser, counters, clock) = app();
        text(&browser, before);
        let old = browser.cookie(COOKIE).unwrap();
        text(&browser, ends);
        let created = counters.snapshot().created;
        let late = with(&browser, &old);
        assert_eq!(text(&late, "/get"), "-", "{before} {ends}");
        assert_eq!(counters.snapshot().write_lost, 0);
        let response = late.get("/set/late").send();
        assert_eq!((response.status(), response.set_cookies().len()), (200, 0), "{before} {ends}");
        assert_eq!(counters.snapshot().write_lost, 1);
        // What acts at once says so.
        assert_eq!(late.get("/incr").send().status(), 409);
        assert_eq!(late.cookie(COOKIE).as_deref(), Some(&*old));
        assert_eq!(counters.snapshot().created, created, "{before} {ends}");
        // An id that is unknown has none of this.
        clock.pass(Duration::from_secs(61));
        text(&late, "/set/new");
        assert_eq!(counters.snapshot().created, created + 1);
        assert_eq!(text(&late, "/get"), "new");
    }
}

#[test]
fn who_logs_in_with_such_an_id_gets_a_session_all_the_same() {
    let (browser, ..) = app();
    text(&browser, "/in/ada");
    let late = with(&browser, &browser.cookie(COOKIE).unwrap());
    text(&browser, "/out");
    text(&late, "/in/ada");
    assert_eq!((text(&late, "/who"), text(&browser, "/who")), ("ada".into(), "-".into()));
}

#[test]
fn a_logout_with_the_old_id_ends_the_session_under_its_new_one() {
    let (browser, ..) = app();
    text(&browser, "/in/ada");
    let old = browser.cookie(COOKIE).unwrap();
    // Twice: a second login of the same user, and a new id.
    text(&browser, "/in/ada");
    text(&browser, "/regenerate");
    assert_eq!(text(&browser, "/who"), "ada");
    let late = with(&browser, &old);
    let response = late.get("/out").send();
    assert_eq!(
        response.cookie(COOKIE).map(|cookie| cookie.value().to_owned()),
        Some(String::new())
    );
    assert_eq!((text(&browser, "/who"), late.cookie(COOKIE)), ("-".into(), None));
    // Where nothing is left to be ended, no session is made in its place.
    let again = with(&browser, &old);
    for path in ["/out", "/out-and-set"] {
        assert!(again.get(path).send().set_cookies().is_empty(), "{path}");
    }
}

#[test]
fn what_is_set_behind_a_logout_is_a_new_session_only_where_the_logout_has_ended_one() {
    let (browser, ..) = app();
    text(&browser, "/in/ada");
    let old = browser.cookie(COOKIE).unwrap();
    text(&browser, "/out-and-set");
    assert_eq!((text(&browser, "/get"), text(&browser, "/who")), ("fresh".into(), "-".into()));
    // Beside a login that has taken the id away: the browser has the cookie of the login by now.
    let victim = with(&browser, "");
    victim.forget_cookies();
    text(&victim, "/set/1");
    let planted = victim.cookie(COOKIE).unwrap();
    text(&victim, "/in/ada");
    let late = with(&victim, &planted);
    assert!(late.get("/out-and-set").send().set_cookies().is_empty());
    assert_eq!(text(&victim, "/who"), "ada");
    // By the id that leads to the session it is ended, and the new one takes its place.
    text(&victim, "/regenerate");
    let last = victim.cookie(COOKIE).unwrap();
    text(&victim, "/regenerate");
    let late = with(&victim, &last);
    text(&late, "/out-and-set");
    assert_eq!((text(&late, "/get"), text(&victim, "/who")), ("fresh".into(), "-".into()));
    assert_ne!(late.cookie(COOKIE), Some(old));
}

#[test]
fn two_logins_in_one_request_link_the_planted_id_to_nothing() {
    let mut app = App::new();
    app.install(SessionPlugin::new().in_memory()).unwrap();
    app.get("/set", |s: &mut Session| s.set("a", 1));
    app.get("/in", |s: &mut Session| -> Result<()> {
        s.log_in("ada")?;
        s.log_in("ada")
    });
    app.get("/who", |s: &mut Session| s.user_id().unwrap_or("-").to_owned());
    app.get("/out", |s: &mut Session| s.log_out());
    let victim = TestClient::new(app).unwrap();
    text(&victim, "/set");
    let planted = victim.cookie(COOKIE).unwrap();
    text(&victim, "/in");
    text(&with(&victim, &planted), "/out");
    assert_eq!(text(&victim, "/who"), "ada");
}

#[test]
fn an_id_whose_session_is_gone_hides_no_other_cookie() {
    let (browser, ..) = app();
    text(&browser, "/set/1");
    let dead = browser.cookie(COOKIE).unwrap();
    text(&browser, "/out");
    text(&browser, "/set/2");
    let live = browser.cookie(COOKIE).unwrap();
    browser.forget_cookies();
    let cookies = format!("{COOKIE}={dead}; {COOKIE}={live}");
    assert_eq!(browser.get("/get").header("cookie", &cookies).send().text(), "2");
}

#[test]
fn who_has_planted_an_id_ends_nobodys_login() {
    for before in ["/set/1", "/in/mallory"] {
        let (victim, ..) = app();
        text(&victim, before);
        let planted = victim.cookie(COOKIE).unwrap();
        text(&victim, "/in/ada");
        let mallory = with(&victim, &planted);
        let response = mallory.get("/out").send();
        assert!(response.set_cookies().is_empty(), "{before}: {:?}", response.set_cookies());
        assert_eq!(text(&victim, "/who"), "ada", "{before}");
    }
}

#[test]
fn a_logout_with_an_unknown_id_makes_the_browser_forget_it() {
    let (browser, ..) = app();
    browser.set_cookie(COOKIE, &"A".repeat(43));
    text(&browser, "/out");
    assert_eq!(browser.cookie(COOKIE), None);
    // A browser without one is told nothing.
    assert!(browser.get("/out").send().set_cookies().is_empty());
}
