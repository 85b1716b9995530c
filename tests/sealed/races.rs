//! Requests for one session at the same time.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use bottle_session::{Callback, Plugin, Route};

use super::*;

/// So many browsers with one cookie, at the same time.
fn at_once(client: &TestClient, count: usize, act: impl Fn(usize, &TestClient) + Sync) {
    let start = Barrier::new(count);
    thread::scope(|scope| {
        for number in 0..count {
            let (client, start, act) = (same_session(client), &start, &act);
            scope.spawn(move || {
                start.wait();
                act(number, &client);
            });
        }
    });
}

#[test]
fn additions_of_sixteen_threads_all_count() {
    on_each_store(|store| {
        let client = client(plugin(&store).sealed());
        text(&client, "/set/n/10");
        let sums = Mutex::new(Vec::new());
        at_once(&client, 16, |_, client| {
            for _ in 0..10 {
                sums.lock().unwrap().push(text(client, "/incr/n").parse::<u64>().unwrap());
            }
        });
        let mut sums = sums.into_inner().unwrap();
        sums.sort();
        assert!(sums.iter().copied().eq((1..=160).map(|n| 10 + 3 * n)), "{sums:?}");
        assert_eq!(text(&client, "/get/n"), "490");
    });
}

#[test]
fn one_of_sixteen_takes_and_one_sets() {
    on_each_store(|store| {
        let client = client(plugin(&store).sealed());
        text(&client, "/set/prize/won");
        let (taken, set) = (AtomicUsize::new(0), AtomicUsize::new(0));
        at_once(&client, 16, |_, client| {
            match text(client, "/take/prize").as_str() {
                "-" => {}
                value => {
                    assert_eq!(value, "won");
                    taken.fetch_add(1, Ordering::Relaxed);
                }
            }
            if text(client, "/absent/lock/mine") == "true" {
                set.fetch_add(1, Ordering::Relaxed);
            }
        });
        assert_eq!((taken.into_inner(), set.into_inner()), (1, 1));
        assert_eq!(text(&client, "/all"), "lock=mine;");
    });
}

#[test]
fn a_session_that_many_seal_at_the_same_time_stays_readable_and_loses_nothing() {
    on_each_store(|store| {
        let plain = client(plugin(&store));
        let sealed = plugin(&store).sealed();
        let counters = sealed.counters();
        let sealed = client(sealed);
        for round in 0..if cfg!(debug_assertions) { 15 } else { 60 } {
            plain.forget_cookies();
            for path in ["/set/old/kept", "/set/n/0", "/set/prize/won"] {
                text(&plain, path);
            }
            sealed.set_cookie(COOKIE, &plain.cookie(COOKIE).unwrap());
            let taken = AtomicUsize::new(0);
            at_once(&sealed, 8, |number, client| match number {
                0..=2 => drop(text(client, &format!("/set/own{number}/{round}"))),
                3..=5 => drop(text(client, "/incr/n")),
                _ => {
                    if text(client, "/take/prize") == "won" {
                        taken.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
            let expected = format!("n=9;old=kept;own0={round};own1={round};own2={round};");
            assert_eq!(text(&sealed, "/all"), expected);
            assert_eq!(taken.into_inner(), 1);
            assert!(is_sealed(&*store, &sealed));
        }
        assert_eq!(counters.snapshot().damaged, 0);
    });
}

#[test]
fn what_is_set_while_somebody_logs_in_moves_along() {
    on_each_store(|store| {
        let gate = Arc::new(Barrier::new(2));
        let plugin = plugin(&store).sealed();
        let counters = plugin.counters();
        let mut app = app(plugin);
        let at = gate.clone();
        app.get("/slow-in", move |s: &mut Session| -> Result<()> {
            s.log_in("ada")?;
            s.set("by-login", "1");
            at.wait();
            at.wait();
            Ok(())
        });
        let client = TestClient::new(app).unwrap();
        text(&client, "/set/cart/tea");
        (0..6).for_each(|round| drop(text(&client, &format!("/set/prize{round}/won"))));
        // Each time with values under the data keys of logins before, which are more than a record has room for at the end.
        for round in 0..11 {
            let beside = same_session(&client);
            thread::scope(|scope| {
                scope.spawn(|| text(&client, "/slow-in"));
                gate.wait();
                text(&beside, &format!("/set/beside{round}/{round}"));
                if round < 6 {
                    assert_eq!(text(&beside, &format!("/take/prize{round}")), "won");
                }
                gate.wait();
            });
            assert_eq!(text(&client, "/who"), "ada");
            for round in 0..=round {
                let prize = text(&client, &format!("/get/prize{round}"));
                assert_eq!(prize, "-", "what was taken does not come back");
            }
            assert_eq!(text(&client, "/get/cart"), "tea");
            for round in 0..=round {
                assert_eq!(text(&client, &format!("/get/beside{round}")), round.to_string());
            }
        }
        assert_eq!(counters.snapshot().damaged, 0);
    });
}

#[test]
fn rotations_and_changes_at_the_same_time_lose_no_value() {
    let store: Arc<dyn SessionStore> = Arc::new(MemoryStore::new());
    let plugin = plugin(&store).sealed().renew_every(Duration::from_millis(60));
    let counters = plugin.counters();
    let client = client(plugin);
    text(&client, "/set/n/0");
    // The first id may be too many rotations ago at the end.
    let last_cookie = Mutex::new(None);
    at_once(&client, 8, |number, client| {
        for turn in 0..25 {
            thread::sleep(Duration::from_millis(5));
            text(client, &format!("/set/own{number}/{turn}"));
            text(client, "/incr/n");
            assert_eq!(text(client, &format!("/get/own{number}")), turn.to_string());
        }
        last_cookie.lock().unwrap().replace(client.cookie(COOKIE).unwrap());
    });
    client.set_cookie(COOKIE, &last_cookie.into_inner().unwrap().unwrap());
    assert_eq!(text(&client, "/get/n"), (3 * 8 * 25).to_string());
    let counts = counters.snapshot();
    assert!(counts.renewed > 1, "{counts:?}");
    assert_eq!((counts.damaged, counts.write_lost), (0, 0), "{counts:?}");
}

#[test]
fn clearing_while_another_request_rotates_keeps_the_key() {
    let store: Arc<dyn SessionStore> = Arc::new(MemoryStore::new());
    let gate = Arc::new(Barrier::new(2));
    let plugin = plugin(&store).sealed().renew_every(Duration::from_millis(1));
    let mut app = app(plugin);
    let at = gate.clone();
    app.get("/slow-clear", move |s: &mut Session| {
        s.clear();
        s.set("fresh", "1");
        at.wait();
        at.wait();
    });
    let client = TestClient::new(app).unwrap();
    text(&client, "/set/a/1");
    let beside = same_session(&client);
    thread::scope(|scope| {
        scope.spawn(|| text(&client, "/slow-clear"));
        gate.wait();
        thread::sleep(Duration::from_millis(2));
        let before = beside.cookie(COOKIE);
        text(&beside, "/set/b/2");
        assert_ne!(beside.cookie(COOKIE), before, "it was rotated");
        gate.wait();
    });
    assert_eq!(text(&client, "/all"), "fresh=1;");
    assert_eq!(text(&beside, "/all"), "fresh=1;");
}

/// Changes the session behind the session plugin, which is installed after it.
struct Outer;

impl Plugin for Outer {
    fn name(&self) -> &str {
        "outer"
    }

    fn apply(&self, callback: Callback, route: &Route) -> Callback {
        if !route.asks_for("session") {
            return callback;
        }
        Callback::new(move |exchange| {
            let answer = callback.call(exchange);
            if let Some(session) = exchange.provided::<Session>("session") {
                session.set("outer", "late");
            }
            answer
        })
    }
}

#[test]
fn what_changes_a_session_after_the_handler_is_sealed_all_the_same() {
    on_each_store(|store| {
        let former = client(plugin(&store));
        text(&former, "/set/a/1");
        let mut app = App::new();
        app.install(Outer).unwrap();
        app.install(plugin(&store).sealed()).unwrap();
        app.get("/all", |s: &mut Session| {
            s.iter().map(|(key, value)| format!("{key}={value};")).collect::<String>()
        });
        app.get("/set", |s: &mut Session| s.set("b", 2));
        let client = TestClient::new(app).unwrap();
        client.set_cookie(COOKIE, &former.cookie(COOKIE).unwrap());
        assert_eq!(text(&client, "/all"), "a=1;");
        let fields = held(&*store, &client);
        assert!(!fields.contains_key(KEY), "the handler's thread had nothing to save");
        assert!(fields.get("outer").is_some_and(|text| !text.contains("late")));
        assert_eq!(text(&client, "/all"), "a=1;outer=late;");
        text(&client, "/set");
        assert!(is_sealed(&*store, &client));
        assert_eq!(text(&client, "/all"), "a=1;b=2;outer=late;");
    });
}
