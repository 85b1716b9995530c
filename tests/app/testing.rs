//! The client of tests.

use super::*;

#[test]
fn the_client_keeps_cookies_and_no_attributes() {
    let client = client(|app| {
        app.get("/set", |head: &mut ResponseHead| {
            let cookie = Cookie::build(("a", "1")).path("/").http_only(true).secure(true);
            head.set_cookie(cookie)
        });
        app.get("/expire", || {
            Response::text("")
                .with_header("set-cookie", "a=; Expires=Thu, 01 Jan 1970 00:00:00 GMT")
        });
        app.get("/", |request: &Request| {
            request
                .cookies()
                .iter()
                .map(|(name, value)| format!("{name}={value};"))
                .collect::<String>()
        });
    });
    client.set_cookie("b", "é");
    client.get("/set").send();
    let mut sent: Vec<_> = client.get("/").send().text().split(';').map(str::to_owned).collect();
    sent.sort();
    assert_eq!(sent, ["", "a=1", "b=é"]);
    client.get("/expire").send();
    assert_eq!(client.get("/").send().text(), "b=é;");
}

#[test]
fn the_client_takes_an_answer_as_a_server_sends_it() {
    let client = client(|app| {
        app.get("/204", || (204, "text"));
        app.get("/304", || (304, "text"));
        app.get("/short", || Response::stream(&b"123"[..], Some(4)));
    });
    assert_eq!(client.get("/204").send().text(), "");
    assert_eq!(client.get("/304").send().text(), "");
    let short = std::panic::AssertUnwindSafe(|| client.get("/short").send());
    assert!(std::panic::catch_unwind(short).is_err());
}
