//! Idle and absolute limits.

use super::*;

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
