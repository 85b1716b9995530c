//! Requests of other sites' scripts: preflights, and what answers say to them.

use bottle_session::http::Method;
use bottle_session::testing::TestResponse;
use bottle_session::{App, CorsPlugin, TestClient, abort};

const SITE: &str = "https://app.example";

fn app(plugin: CorsPlugin) -> App {
    let mut app = App::new();
    app.install(plugin).unwrap();
    // A guard that preflights cannot pass: they carry no cookie.
    app.before(|request: &bottle_session::Request| match request.header("cookie") {
        Some(_) => Ok(()),
        None => Err(abort(401, "Who are you?")),
    });
    app.get("/data", || "data");
    app.put("/data", || "kept");
    app.route("ANY", "/any", || "whatever");
    app.delete("/private", || "gone").skip("cors");
    app
}

fn preflight(client: &TestClient, path: &str, origin: &str, method: &str) -> TestResponse {
    client
        .request(Method::OPTIONS, path)
        .header("origin", origin)
        .header("access-control-request-method", method)
        .header("access-control-request-headers", "x-token")
        .send()
}

fn allowed(answer: &TestResponse) -> Option<&str> {
    answer.header("access-control-allow-origin")
}

#[test]
fn preflights_are_answered_before_guards_and_handlers() {
    let plugin =
        CorsPlugin::new().origin("https://APP.example:443/").origin("http://localhost:3000");
    let client = TestClient::new(app(plugin)).unwrap();
    for (path, origin, method, expected) in [
        ("/data", SITE, "PUT", Some(SITE)),
        ("/data", "http://localhost:3000", "PUT", Some("http://localhost:3000")),
        ("/any", SITE, "PATCH", Some(SITE)),
        ("/data", "https://app.example:8443", "PUT", None),
        ("/data", "http://app.example", "PUT", None),
        ("/data", "https://app.example.evil", "PUT", None),
        ("/data", "https://evilapp.example", "PUT", None),
        ("/data", "null", "PUT", None),
        // Where there is no such route, the browser may find out by itself.
        ("/nowhere", SITE, "GET", Some(SITE)),
    ] {
        let answer = preflight(&client, path, origin, method);
        assert_eq!(answer.status(), 204, "{path} {origin}");
        assert_eq!(allowed(&answer), expected, "{path} {origin}");
        let vary = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";
        assert_eq!(answer.header("vary"), Some(vary));
        let names = [
            "access-control-allow-methods",
            "access-control-allow-headers",
            "access-control-max-age",
        ];
        let values = expected.map(|_| ["GET, HEAD, POST, PUT, PATCH, DELETE", "x-token", "7200"]);
        assert_eq!(
            names.map(|name| answer.header(name)),
            match values {
                Some(values) => values.map(Some),
                None => [None; 3],
            }
        );
        assert_eq!(answer.header("access-control-allow-credentials"), None);
    }
}

#[test]
fn a_preflight_for_a_route_that_skips_the_plugin_is_not_answered_for_it() {
    let client = TestClient::new(app(CorsPlugin::new().origin(SITE))).unwrap();
    let answer = preflight(&client, "/private", SITE, "DELETE");
    assert_eq!((answer.status(), allowed(&answer)), (204, None));
    assert_eq!(answer.header("allow"), Some("DELETE, OPTIONS"));
}

#[test]
fn other_options_requests_are_no_preflights() {
    let client = TestClient::new(app(CorsPlugin::new().origin(SITE))).unwrap();
    let answer = client.request(Method::OPTIONS, "/data").send();
    assert_eq!(answer.header("allow"), Some("GET, HEAD, OPTIONS, PUT"));
    let answer = client.request(Method::OPTIONS, "/data").header("origin", SITE).send();
    assert_eq!((answer.status(), allowed(&answer)), (204, Some(SITE)));
}

/// Whether caches are told that it depends on `Origin`; a page of an error depends on `Accept`, too.
fn varies(answer: &TestResponse) -> bool {
    let named = answer.headers().get_all("vary").iter().filter_map(|value| value.to_str().ok());
    named.flat_map(|value| value.split(',')).any(|name| name.trim() == "Origin")
}

#[test]
fn answers_say_who_may_read_them_error_pages_too_and_vary_by_that() {
    let plugin = || CorsPlugin::new().origin(SITE).credentials().expose(["x-total", "etag"]);
    let client = TestClient::new(app(plugin())).unwrap();
    for (path, origin, status, expected) in [
        ("/data", Some(SITE), 401, Some(SITE)),
        ("/nowhere", Some(SITE), 404, Some(SITE)),
        ("/data", Some("https://evil.example"), 401, None),
        ("/data", None, 401, None),
    ] {
        let mut request = client.get(path);
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        let answer = request.send();
        assert_eq!((answer.status(), allowed(&answer)), (status, expected), "{path} {origin:?}");
        assert!(varies(&answer), "{path} {origin:?}");
        let credentials = answer.header("access-control-allow-credentials");
        assert_eq!(credentials, expected.map(|_| "true"));
        let exposed = answer.header("access-control-expose-headers");
        assert_eq!(exposed, expected.map(|_| "x-total, etag"));
    }
}

#[test]
fn any_origin_needs_no_vary_and_a_rule_can_decide() {
    let client = TestClient::new(app(CorsPlugin::new().any_origin())).unwrap();
    let answer = client.get("/data").header("origin", "https://anywhere.example").send();
    assert_eq!((allowed(&answer), varies(&answer)), (Some("*"), false));
    let rule = |origin: &str| origin.strip_suffix(".app.example").is_some();
    let client = TestClient::new(app(CorsPlugin::new().origin_if(rule))).unwrap();
    for (origin, expected) in [("https://a.app.example", true), ("https://app.example", false)] {
        let answer = client.get("/data").header("origin", origin).send();
        assert_eq!(allowed(&answer), expected.then_some(origin));
    }
}

#[test]
fn an_app_of_its_own_scheme_is_an_origin() {
    for (allowed_one, sent) in [
        ("capacitor://localhost", "capacitor://localhost"),
        ("Tauri://LocalHost:1420", "tauri://localhost:1420"),
        (
            "chrome-extension://aapbdbdomjkkjkaonfhkkikfgjllcleb",
            "chrome-extension://aapbdbdomjkkjkaonfhkkikfgjllcleb",
        ),
        ("HTTPS://App.Example:443", "https://app.example"),
    ] {
        let client = TestClient::new(app(CorsPlugin::new().origin(allowed_one))).unwrap();
        let answer = client.get("/data").header("origin", sent).send();
        assert_eq!(allowed(&answer), Some(sent));
        let answer = client.get("/data").header("origin", "null").send();
        assert_eq!(allowed(&answer), None);
    }
}

#[test]
fn a_group_can_have_its_own() {
    let mut app = App::new();
    app.group("/api", |api| -> bottle_session::Result<()> {
        api.install(CorsPlugin::new().origin(SITE).headers(["x-one", "x-two"]).methods(["PUT"]))?;
        api.put("/note", || "kept");
        Ok(())
    });
    app.put("/note", || "kept");
    let client = TestClient::new(app).unwrap();
    let answer = preflight(&client, "/api/note", SITE, "PUT");
    assert_eq!(answer.header("access-control-allow-headers"), Some("x-one, x-two"));
    assert_eq!(answer.header("access-control-allow-methods"), Some("PUT"));
    assert_eq!(allowed(&preflight(&client, "/note", SITE, "PUT")), None);
}

#[test]
fn what_would_be_dangerous_or_means_nothing_is_refused_when_it_is_installed() {
    for (plugin, text) in [
        (CorsPlugin::new(), "no origin is allowed"),
        (CorsPlugin::new().any_origin().credentials(), "every site could act as its visitors"),
        (CorsPlugin::new().origin("app.example"), "\"app.example\" is no origin"),
        (CorsPlugin::new().origin("https://app.example/path"), "is no origin"),
        (CorsPlugin::new().origin("null"), "is no origin"),
        (CorsPlugin::new().origin("capacitor://localhost/path"), "is no origin"),
        (CorsPlugin::new().origin("https://:secret@app.example"), "is no origin"),
        (CorsPlugin::new().origin("data:text/html,x"), "is no origin"),
        (CorsPlugin::new().origin("file:///tmp"), "is no origin"),
        (CorsPlugin::new().origin(SITE).methods(["GET IT"]), "\"GET IT\" is no method"),
        (CorsPlugin::new().origin(SITE).headers(["a:b"]), "\"a:b\" is no header"),
    ] {
        let error = App::new().install(plugin).map(drop).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
}
