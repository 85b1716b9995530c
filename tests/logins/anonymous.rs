//! Sessions in which nobody is logged in.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bottle_session::{MemoryStore, Session, SessionPlugin, TestClient};

use super::{another, devices_app, text};

#[test]
fn sessions_without_a_user_have_an_idle_limit_of_their_own() {
    let now = Arc::new(Mutex::new(SystemTime::now()));
    let clock = now.clone();
    let pass = |seconds| *now.lock().unwrap() += Duration::from_secs(seconds);
    let store = MemoryStore::with_clock(move || *clock.lock().unwrap());
    let plugin = SessionPlugin::new().store(store).anonymous_lifetime(Duration::from_secs(60));
    let counters = plugin.counters();
    let mut app = devices_app(plugin);
    app.get("/set", |s: &mut Session| s.set("cart", 1));
    app.get("/cart", |s: &mut Session| s.get("cart").unwrap_or("-").to_owned());
    app.get("/remember", |s: &mut Session| s.remember(Duration::from_secs(600)));
    let client = TestClient::new(app).unwrap();
    let sends = |path: &str| {
        let cookie = client.get(path).send().header("set-cookie").map(str::to_owned);
        cookie.map(|cookie| {
            cookie.split("; ").find(|part| part.starts_with("Max-Age")).map(str::to_owned)
        })
    };
    assert_eq!(sends("/set"), Some(Some("Max-Age=66".to_owned())));
    pass(50);
    assert_eq!(text(&client, "/cart"), "1");
    pass(70);
    assert_eq!(text(&client, "/cart"), "-", "the short limit");
    text(&client, "/set");
    assert_eq!(sends("/in/ada"), Some(Some("Max-Age=330".to_owned())));
    pass(290);
    assert_eq!((text(&client, "/cart"), text(&client, "/who")), ("1".into(), "ada".into()));
    text(&client, "/out");
    // One that is remembered is so, before and behind a login.
    text(&client, "/set");
    assert_eq!(sends("/remember"), Some(Some("Max-Age=660".to_owned())));
    pass(590);
    assert_eq!(sends("/in/ada"), Some(Some("Max-Age=660".to_owned())));
    assert_eq!((counters.snapshot().created, counters.snapshot().anonymous), (3, 3));
    // Whoever logs in at once was never anybody else.
    let other = another(&client);
    text(&other, "/in/bob");
    assert_eq!((counters.snapshot().created, counters.snapshot().anonymous), (4, 3));
}

#[test]
fn a_browser_cookie_stays_one_while_nobody_is_logged_in() {
    let plugin = SessionPlugin::new().in_memory().cookie_lifetime(None);
    let mut app = devices_app(plugin.anonymous_lifetime(Duration::from_secs(60)));
    app.get("/set", |s: &mut Session| s.set("cart", 1));
    let answer = TestClient::new(app).unwrap().get("/set").send();
    assert!(!answer.header("set-cookie").unwrap().contains("Max-Age"));
}
