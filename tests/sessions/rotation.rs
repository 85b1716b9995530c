//! A new id from time to time, and a grace period for the old one.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Barrier;
use std::thread;

use bottle_session::{Counters, Counts, CsrfPlugin};

use super::*;

/// An app whose sessions are due for a new id with each request that comes a millisecond after the last one.
fn app() -> (TestClient, Counters, Clock) {
    app_that_renews_every(Duration::from_millis(1))
}

fn app_that_renews_every(time: Duration) -> (TestClient, Counters, Clock) {
    let clock = Clock::default();
    let plugin = SessionPlugin::new().store(clock.store()).renew_every(time);
    let counters = plugin.counters();
    let mut app = App::new();
    app.install(plugin).unwrap();
    app.install(CsrfPlugin::new()).unwrap();
    app.get("/get/<key>", |s: &mut Session, key: &str| s.get(key).unwrap_or("-").to_owned());
    app.get("/set/<key>/<value>", |s: &mut Session, key: &str, value: &str| s.set(key, value));
    app.get("/all", |s: &mut Session| format!("{:?}", s.iter().collect::<Vec<_>>()));
    app.get("/clear", |s: &mut Session| s.clear());
    app.get("/incr", |s: &mut Session| -> Result<String> { Ok(s.incr("n", 1)?.to_string()) });
    app.get("/in/<user>", |s: &mut Session, user: &str| s.log_in(user));
    app.get("/who", |s: &mut Session| s.user_id().unwrap_or("-").to_owned());
    app.get("/regenerate", |s: &mut Session| s.regenerate());
    app.get("/out", |s: &mut Session| s.log_out());
    app.get("/token", |s: &mut Session| s.csrf_token());
    app.post("/form", || "taken");
    app.get("/panic", |_: &mut Session| -> String { panic!("on purpose") });
    (TestClient::new(app).unwrap(), counters, clock)
}

/// A browser that has this cookie, and takes no other.
fn with(client: &TestClient, id: &str) -> TestClient {
    let other = TestClient::of(client.service().clone());
    other.set_cookie(COOKIE, id);
    other
}

fn id(client: &TestClient) -> String {
    client.cookie(COOKIE).unwrap()
}

/// Lets so much time pass that a session is due for a new id.
fn wait() {
    thread::sleep(Duration::from_millis(3));
}

/// A browser with a session that was rotated by its last request, and the id that it had before.
fn rotated(client: &TestClient) -> String {
    text(client, "/set/a/1");
    let old = id(client);
    wait();
    text(client, "/get/a");
    assert_ne!(id(client), old);
    old
}

fn counts(counters: &Counters) -> (u64, u64, u64) {
    let Counts { renewed, write_lost, id_past_grace, .. } = counters.snapshot();
    (renewed, write_lost, id_past_grace)
}

/// Lets time pass until the browser has a new id: a request that is due for one may first end the grace period of the last.
fn next_id(client: &TestClient) {
    let old = id(client);
    for _ in 0..2 {
        wait();
        text(client, "/who");
        if id(client) != old {
            return;
        }
    }
    panic!("no new id");
}

#[test]
fn a_session_that_has_had_its_id_for_long_enough_gets_a_new_one_and_keeps_all_it_has() {
    let (browser, counters, _) = app();
    text(&browser, "/in/ada");
    text(&browser, "/set/a/1");
    for _ in 0..5 {
        next_id(&browser);
        assert_eq!((text(&browser, "/get/a"), text(&browser, "/who")), ("1".into(), "ada".into()));
    }
    assert_eq!(counts(&counters).1, 0);
    // Nobody sees what the plugin keeps there.
    assert_eq!(text(&browser, "/all"), r#"[("a", "1")]"#);
    text(&browser, "/clear");
    assert_eq!((text(&browser, "/all"), text(&browser, "/who")), ("[]".into(), "ada".into()));
    next_id(&browser);
    assert_eq!(text(&browser, "/all"), "[]");
}

#[test]
fn until_the_new_id_has_been_presented_the_old_one_is_good_and_each_answer_carries_the_new_one() {
    let (browser, counters, clock) = app();
    let old = rotated(&browser);
    let new = id(&browser);
    for round in 0..3 {
        // The answer with the new id was lost, time and again.
        let lost = with(&browser, &old);
        text(&lost, &format!("/set/b/{round}"));
        assert_eq!(id(&lost), new);
        assert_eq!(text(&with(&browser, &old), "/get/b"), round.to_string());
        assert_eq!(text(&with(&browser, &old), "/incr"), (round + 1).to_string());
        clock.pass(Duration::from_secs(200));
    }
    // For as long as the session lives, which each use makes longer.
    assert_eq!(text(&browser, "/get/b"), "2");
    assert_eq!(counts(&counters), (1, 0, 0));
}

#[test]
fn ten_seconds_after_the_new_id_was_presented_the_old_one_is_dead_and_whoever_has_it_is_an_event() {
    let (browser, counters, clock) = app();
    let old = rotated(&browser);
    text(&browser, "/get/a");
    clock.pass(Duration::from_secs(9));
    assert_eq!(text(&with(&browser, &old), "/get/a"), "1", "a request that was under way");
    clock.pass(Duration::from_secs(2));
    let thief = with(&browser, &old);
    assert_eq!(counts(&counters).2, 0);
    assert_eq!(text(&thief, "/get/a"), "-");
    assert_eq!(counts(&counters).2, 1);
    // For a minute it may be a request that was on its way: it makes no session in the place of the new one.
    assert!(thief.get("/set/a/2").send().set_cookies().is_empty());
    assert_eq!(id(&thief), old);
    clock.pass(Duration::from_secs(60));
    // Later it is a stranger's, which ends nothing, and whose session is one of its own.
    text(&with(&browser, &old), "/out");
    text(&thief, "/set/a/2");
    assert_eq!((text(&browser, "/get/a"), text(&thief, "/get/a")), ("1".into(), "2".into()));
    assert_eq!(counts(&counters).2, 4);
}

#[test]
fn once_the_new_id_was_presented_nobody_gets_it_for_the_old_one() {
    let (browser, ..) = app();
    let old = rotated(&browser);
    let before = with(&browser, &old);
    text(&before, "/get/a");
    assert_eq!(id(&before), id(&browser));
    text(&browser, "/get/a");
    let thief = with(&browser, &old);
    assert_eq!((text(&thief, "/get/a"), id(&thief)), ("1".to_owned(), old.clone()));
    text(&thief, "/set/b/1");
    assert_eq!(id(&thief), old);
}

/// An app with a handler that is in the midst of its work until the test lets it go on.
fn slow_app() -> (TestClient, Clock, Arc<Barrier>) {
    let (clock, barrier) = (Clock::default(), Arc::new(Barrier::new(2)));
    let plugin = SessionPlugin::new().store(clock.store()).renew_every(Duration::from_millis(1));
    let mut app = App::new();
    app.install(plugin).unwrap();
    app.install(CsrfPlugin::new()).unwrap();
    app.get("/get/<key>", |s: &mut Session, key: &str| s.get(key).unwrap_or("-").to_owned());
    app.get("/set/<key>/<value>", |s: &mut Session, key: &str, value: &str| s.set(key, value));
    app.get("/in/<user>", |s: &mut Session, user: &str| s.log_in(user));
    app.get("/who", |s: &mut Session| s.user_id().unwrap_or("-").to_owned());
    app.post("/form", || "taken");
    let waits = barrier.clone();
    app.get("/slow/<what>", move |s: &mut Session, what: &str| -> Result<String> {
        let seen = s.get("a").unwrap_or("-").to_owned();
        waits.wait();
        waits.wait();
        match what {
            "set" => s.set("b", "slow"),
            "clear" => s.clear(),
            "out" => s.log_out(),
            "others" => return s.end_other_devices().map(|count| count.to_string()),
            "token" => {
                s.incr("n", 1)?;
                return Ok(s.csrf_token());
            }
            _ => {}
        }
        Ok(seen)
    });
    (TestClient::new(app).unwrap(), clock, barrier)
}

/// Has `meanwhile` happen while a request with this cookie is in the midst of its work; its answer, and the cookie that its
/// browser has then.
fn during(
    (client, barrier): (&TestClient, &Barrier),
    (id, what): (&str, &str),
    meanwhile: impl FnOnce(),
) -> (String, Option<String>) {
    let slow = with(client, id);
    thread::scope(|scope| {
        let slow = scope.spawn(move || {
            let answer = text(&slow, &format!("/slow/{what}"));
            (answer, slow.cookie(COOKIE))
        });
        barrier.wait();
        let done = catch_unwind(AssertUnwindSafe(meanwhile));
        // Whatever became of it: the request is to come to its end.
        barrier.wait();
        let answered = slow.join().unwrap();
        done.unwrap_or_else(|panic| resume_unwind(panic));
        answered
    })
}

#[test]
fn a_request_that_only_read_does_not_bring_back_an_id_that_a_login_has_taken_away_meanwhile() {
    let (browser, _, barrier) = slow_app();
    let old = rotated(&browser);
    // Both with the old id, in its grace period.
    let (_, cookie) = during((&browser, &barrier), (&old, "read"), || {
        text(&with(&browser, &old), "/in/ada");
    });
    assert_eq!(cookie.as_deref(), Some(&*old), "the answer carried no id");
}

#[test]
fn a_request_that_is_slower_than_the_grace_period_saves_and_ends_what_it_came_with() {
    for what in ["set", "out", "others"] {
        let (browser, clock, barrier) = slow_app();
        text(&browser, "/in/ada");
        text(&browser, "/set/a/1");
        let (old, other) = (id(&browser), with(&browser, &id(&browser)));
        other.forget_cookies();
        text(&other, "/in/ada");
        let (answer, cookie) = during((&browser, &barrier), (&old, what), || {
            next_id(&browser);
            text(&browser, "/get/a");
            clock.pass(Duration::from_secs(60));
        });
        match what {
            "set" => assert_eq!(text(&browser, "/get/b"), "slow"),
            "out" => assert_eq!((text(&browser, "/who"), cookie), ("-".to_owned(), None)),
            _ => assert_eq!((answer.as_str(), text(&browser, "/who")), ("1", "ada".to_owned())),
        }
        assert_eq!(text(&other, "/who"), if what == "others" { "-" } else { "ada" }, "{what}");
    }
}

#[test]
fn clearing_beside_a_rotation_leaves_what_the_plugin_knows_of_it() {
    let (browser, clock, barrier) = slow_app();
    text(&browser, "/set/a/1");
    let old = id(&browser);
    during((&browser, &barrier), (&old, "clear"), || next_id(&browser));
    assert_ne!(id(&browser), old);
    assert_eq!(text(&browser, "/get/a"), "-");
    // The request with the new id has ended the grace period of the old one.
    clock.pass(Duration::from_secs(11));
    let late = with(&browser, &old);
    text(&late, "/set/a/2");
    assert_ne!(id(&late), id(&browser));
}

#[test]
fn a_token_that_is_made_beside_a_rotation_is_one() {
    let (browser, _, barrier) = slow_app();
    text(&browser, "/set/a/1");
    let old = id(&browser);
    let (token, cookie) = during((&browser, &barrier), (&old, "token"), || next_id(&browser));
    assert_eq!(cookie, browser.cookie(COOKIE));
    let posted = browser.post("/form").form(&[("csrf_token", token)]).send();
    assert_eq!(posted.status(), 200);
}

#[test]
fn requests_with_the_old_id_that_are_under_way_lose_nothing() {
    let time = Duration::from_millis(20);
    let (browser, counters, _) = app_that_renews_every(time);
    text(&browser, "/set/start/1");
    thread::sleep(time);
    let old = id(&browser);
    let (start, browser) = (Barrier::new(8), &browser);
    let ids: Vec<_> = thread::scope(|scope| {
        let (start, old) = (&start, &old);
        let threads: Vec<_> = (0..8)
            .map(|number| {
                scope.spawn(move || {
                    let client = with(browser, old);
                    start.wait();
                    for round in 0..50 {
                        text(&client, &format!("/set/k{number}/{round}"));
                        client.get("/incr").send();
                    }
                    id(&client)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(counts(&counters).1, 0, "no write was lost");
    let last = with(browser, &ids[0]);
    for number in 0..8 {
        assert_eq!(text(&last, &format!("/get/k{number}")), "49");
    }
    assert_eq!(text(&last, "/incr"), "401");
}

#[test]
fn tokens_of_open_forms_stay_valid_over_a_rotation_and_not_over_a_login() {
    let (browser, ..) = app();
    text(&browser, "/set/a/1");
    let token = text(&browser, "/token");
    let post = |token: &str| browser.post("/form").form(&[("csrf_token", token)]).send().status();
    for _ in 0..3 {
        wait();
        assert_eq!(post(&token), 200);
    }
    let later = text(&browser, "/token");
    assert_eq!((post(&later), post(&token)), (200, 200));
    for voids in ["/in/ada", "/regenerate", "/in/ada"] {
        let token = text(&browser, "/token");
        assert_eq!(post(&token), 200);
        text(&browser, voids);
        assert_eq!(post(&token), 403, "{voids}");
    }
}

#[test]
fn logging_in_and_out_and_regenerate_have_no_grace() {
    for ends in ["/in/ada", "/regenerate", "/out"] {
        for by_old in [false, true] {
            let (browser, ..) = app();
            let old = rotated(&browser);
            let late = with(&browser, &old);
            // By the new id, or by the old one, which was good.
            text(if by_old { &late } else { &browser }, ends);
            let again = with(&browser, &old);
            assert_eq!(text(&again, "/get/a"), "-", "{ends} {by_old}");
            assert!(again.get("/set/a/2").send().set_cookies().is_empty(), "{ends} {by_old}");
            if by_old && ends == "/out" {
                assert_eq!(text(&browser, "/get/a"), "-", "by the new id neither");
            }
        }
    }
}

#[test]
fn a_rotation_is_lost_by_no_panic() {
    let (browser, ..) = app();
    text(&browser, "/set/a/1");
    wait();
    assert_eq!(browser.get("/panic").send().status(), 500);
    assert_eq!(text(&browser, "/get/a"), "1");
}

#[test]
fn options_that_cannot_be_kept_are_refused() {
    let refused = |plugin: SessionPlugin| {
        let error = App::new().install(plugin).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        error.to_string()
    };
    let python = SessionPlugin::new().layout(Layout::BottleSession).pool({
        let server = RedisServer::shared();
        RedisPool::open(&server.url(server.fresh_database())).unwrap()
    });
    assert!(refused(python.renew_every(Duration::from_secs(60))).contains("grace period"));
    let zero = SessionPlugin::new().in_memory().renew_every(Duration::ZERO);
    assert!(refused(zero).contains("renew_every(0)"));
}
