//! Headers that make browsers careful: on which answers, and which.

use bottle_session::http::uri::PathAndQuery;
use bottle_session::http::{HeaderMap, HeaderValue, Method};
use bottle_session::{
    App, Request, Response, ResponseHead, Scheme, SecurityHeadersPlugin, TestClient, abort,
};
use std::time::Duration;

const POLICY: &str = "default-src 'self'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'; object-src 'none'";

fn app(plugin: SecurityHeadersPlugin) -> App {
    let mut app = App::new();
    app.install(plugin).unwrap();
    app.get("/", || "hello");
    app.get("/refused", || Err::<(), _>(abort(403, "No.")));
    app.get("/panics", || -> &'static str { panic!("on purpose") });
    app.get("/own", || {
        Response::text("x")
            .with_header("content-security-policy", "default-src *")
            .with_header("referrer-policy", "no-referrer")
    });
    app.get("/head", |head: &mut ResponseHead| head.set_header("referrer-policy", "no-referrer"));
    app.get("/skips", || "hello").skip("security_headers");
    app
}

#[test]
fn each_answer_has_them_error_pages_and_what_is_no_page_included() {
    let client = TestClient::new(app(SecurityHeadersPlugin::new())).unwrap();
    for (path, status) in [("/", 200), ("/refused", 403), ("/panics", 500), ("/nowhere", 404)] {
        let answer = client.get(path).send();
        assert_eq!(answer.status(), status);
        for (name, value) in [
            ("content-security-policy", POLICY),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "strict-origin-when-cross-origin"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{path}");
        }
        assert_eq!(answer.header("strict-transport-security"), None, "{path}");
    }
    assert_eq!(client.post("/").send().status(), 405);
    assert!(client.post("/").send().header("x-content-type-options").is_some());
    assert_eq!(client.get("/skips").send().header("x-content-type-options"), None);
}

#[test]
fn a_handler_can_say_otherwise() {
    let client = TestClient::new(app(SecurityHeadersPlugin::new())).unwrap();
    let answer = client.get("/own").send();
    assert_eq!(answer.header("content-security-policy"), Some("default-src *"));
    assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(client.get("/head").send().header("referrer-policy"), Some("no-referrer"));
}

#[test]
fn a_header_of_the_apps_own_takes_the_place_of_one_of_the_plugins() {
    let plugin = SecurityHeadersPlugin::new()
        .directive("img-src", "*")
        .header("referrer-policy", "no-referrer")
        .header("content-security-policy", "default-src 'none'");
    let client = TestClient::new(app(plugin)).unwrap();
    let answer = client.get("/").send();
    assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
    assert_eq!(answer.header("content-security-policy"), Some("default-src 'none'"));
    // A handler's goes before both.
    let answer = client.get("/own").send();
    assert_eq!(answer.header("content-security-policy"), Some("default-src *"));
}

#[test]
fn options_change_what_is_sent() {
    let plugin = SecurityHeadersPlugin::new()
        .directive("frame-ancestors", "'none'")
        .directive("script-src", "'self' https://cdn.example")
        .without_directive("object-src")
        .report_only()
        .referrer_policy("same-origin")
        .header("permissions-policy", "camera=()");
    let answer = TestClient::new(app(plugin)).unwrap().get("/").send();
    assert_eq!(answer.header("content-security-policy"), None);
    assert_eq!(
        answer.header("content-security-policy-report-only"),
        Some(
            "default-src 'self'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'; \
             script-src 'self' https://cdn.example"
        )
    );
    assert_eq!(answer.header("referrer-policy"), Some("same-origin"));
    assert_eq!(answer.header("permissions-policy"), Some("camera=()"));
}

#[test]
fn transport_security_is_said_over_https_to_public_names_alone() {
    let year = Some("max-age=31536000");
    let plain = SecurityHeadersPlugin::new;
    for (plugin, scheme, host, expected) in [
        (plain(), Scheme::Https, "shop.example", year),
        (plain(), Scheme::Https, "shop.example:8443", year),
        (plain(), Scheme::Http, "shop.example", None),
        (plain(), Scheme::Https, "localhost:8443", None),
        (plain(), Scheme::Https, "127.0.0.1", None),
        (plain().hsts(None), Scheme::Https, "shop.example", None),
        (
            plain().hsts(Duration::from_secs(60)).hsts_subdomains(),
            Scheme::Https,
            "shop.example",
            Some("max-age=60; includeSubDomains"),
        ),
    ] {
        let service = app(plugin).build().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::from_static(host));
        let request = Request::new(Method::GET, PathAndQuery::from_static("/"))
            .with_headers(headers)
            .with_scheme(scheme);
        let answer = service.handle(request);
        let sent = answer.headers().get("strict-transport-security");
        assert_eq!(sent.map(|value| value.to_str().unwrap()), expected, "{scheme} {host}");
    }
}

#[test]
fn what_cannot_be_a_header_is_refused_when_it_is_installed() {
    for (plugin, text) in [
        (
            SecurityHeadersPlugin::new().directive("script-src", "'self'; img-src *"),
            "\"script-src 'self'; img-src *\" is not one directive",
        ),
        (SecurityHeadersPlugin::new().header("a b", "c"), "not a header name"),
        (SecurityHeadersPlugin::new().header("a", "b\n"), "not a header value for a"),
    ] {
        let error = App::new().install(plugin).map(drop).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
}
