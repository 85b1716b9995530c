//! Who is logged in.

use super::*;

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
