//! Forged requests, as the app sees them.

use bottle_session::http::Method;
use bottle_session::{
    App, CsrfPlugin, Layout, RedisPool, Request, Result, Session, SessionPlugin, TestClient, named,
};

use crate::support::logs::{collect_logs, logs_of};
use crate::support::redis_server::RedisServer;

fn app(sessions: SessionPlugin) -> App {
    let mut app = App::new();
    app.install(CsrfPlugin::new()).unwrap();
    app.install(sessions).unwrap();
    app.get("/token", |s: &mut Session| s.csrf_token());
    app.get("/two-tokens", |s: &mut Session| format!("{} {}", s.csrf_token(), s.csrf_token()));
    app.get("/login", |s: &mut Session| {
        s.set("user", "ada");
        s.regenerate();
        s.csrf_token()
    });
    app.get("/early-token", |s: &mut Session| {
        let token = s.csrf_token();
        s.regenerate();
        token
    });
    app.get("/logout", |s: &mut Session| s.destroy());
    app.get("/keys", |s: &mut Session| s.keys().collect::<Vec<_>>().join(" "));
    app.get("/clear", |s: &mut Session| s.clear());
    app.route(["POST", "PUT", "PATCH", "DELETE", "GET"], "/act", || "done");
    app.route("ANY", "/any", || "done");
    app.post("/hook", || "heard").skip("csrf");
    app.post("/refused/<number>", |_: &str| "never");
    app.post("/own", |s: &mut Session, request: &Request| {
        s.verify_csrf(request.header("x-token").unwrap_or("")).to_string()
    })
    .skip("csrf");
    app.post("/upload", |request: &Request| -> Result<String> {
        let mut text = String::new();
        request.body_reader()?.read_to_string(&mut text)?;
        Ok(text)
    });
    app
}

fn client() -> TestClient {
    TestClient::new(app(SessionPlugin::new().in_memory())).unwrap()
}

fn token(client: &TestClient) -> String {
    client.get("/token").send().text()
}

fn act(client: &TestClient, token: &str) -> u16 {
    let by_form = client.post("/act").form(&[("a", "b"), ("csrf_token", token)]).send().status();
    let by_header = client.post("/act").header("x-csrf-token", token).send().status();
    assert_eq!(by_form, by_header);
    by_form
}

#[test]
fn a_request_with_its_sessions_token_passes() {
    let client = client();
    let first = token(&client);
    assert_eq!(act(&client, &first), 200);
    // As often as it is used, and beside later ones.
    let second = token(&client);
    assert_ne!(first, second, "masked anew");
    assert_eq!((act(&client, &first), act(&client, &second)), (200, 200));
    let both = client.get("/two-tokens").send().text();
    for token in both.split(' ') {
        assert_eq!(act(&client, token), 200);
    }
    assert_eq!(client.get("/keys").send().text(), "_csrf");
}

#[test]
fn a_token_is_safe_in_html_and_never_the_id() {
    let client = client();
    let token = token(&client);
    assert_eq!(token.len(), 86);
    assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)), "{token}");
    assert!(!token.contains(&client.cookie("bottle.session").unwrap()[..8]));
}

#[test]
fn a_request_without_the_right_token_is_refused() {
    let client = client();
    let right = token(&client);
    let mut flipped = right.clone().into_bytes();
    flipped[5] = if flipped[5] == b'A' { b'B' } else { b'A' };
    let flipped = String::from_utf8(flipped).unwrap();
    let doubled = format!("{}{}", &right[..43], &right[..43]);
    let wrong = ["", "x", &right[..85], &format!("{right}A"), &flipped, &doubled, &"é".repeat(43)];
    for wrong in wrong {
        assert_eq!(client.post("/act").form(&[("csrf_token", wrong)]).send().status(), 403);
    }
    assert_eq!(client.post("/act").send().status(), 403);
    assert_eq!(client.post("/act").form(&[("token", &right)]).send().status(), 403);
    // A page of another site can send this body without asking, under this type alone.
    let body = format!("csrf_token={right}");
    let refused = client.post("/act").header("content-type", "text/plain").body(body).send();
    assert_eq!(refused.status(), 403);
    assert!(refused.text().contains("carries no token"), "{}", refused.text());
}

#[test]
fn another_visitors_token_is_refused() {
    let client = client();
    let other = TestClient::of(client.service().clone());
    let theirs = token(&other);
    token(&client);
    assert_eq!(act(&client, &theirs), 403);
    assert_eq!(act(&other, &theirs), 200);
    // Nor does any token do for a visitor who has no session.
    let nobody = TestClient::of(client.service().clone());
    assert_eq!(act(&nobody, &theirs), 403);
    assert_eq!(nobody.cookie("bottle.session"), None);
}

#[test]
fn a_token_ends_with_its_id() {
    let client = client();
    let before = token(&client);
    let after = client.get("/login").send().text();
    assert_eq!((act(&client, &before), act(&client, &after)), (403, 200));
    let early = client.get("/early-token").send().text();
    assert_eq!((act(&client, &after), act(&client, &early)), (403, 403));
    let last = token(&client);
    client.get("/logout").send();
    assert_eq!(act(&client, &last), 403);
}

#[test]
fn a_visitors_first_page_may_log_them_in() {
    let client = client();
    let token = client.get("/login").send().text();
    assert_eq!(act(&client, &token), 200);
    assert_eq!(client.get("/keys").send().text(), "_csrf user");
}

#[test]
fn tokens_work_on_redis_in_both_layouts() {
    for layout in [Layout::Default, Layout::BottleSession] {
        let server = RedisServer::start(&[]);
        let pool = RedisPool::open(&server.url(0)).unwrap();
        let sessions = SessionPlugin::new().pool(pool).layout(layout);
        let client = TestClient::new(app(sessions)).unwrap();
        let before = token(&client);
        assert_eq!(act(&client, &before), 200, "{layout:?}");
        let after = client.get("/login").send().text();
        assert_eq!((act(&client, &before), act(&client, &after)), (403, 200), "{layout:?}");
    }
}

#[test]
fn clearing_the_session_voids_no_token() {
    let client = client();
    let token = token(&client);
    client.get("/clear").send();
    assert_eq!(act(&client, &token), 200);
}

#[test]
fn a_page_of_another_site_is_refused_even_with_the_token() {
    let client = client();
    let token = token(&client);
    let send = |name: &str, value: &str| {
        client.post("/act").header("x-csrf-token", &token).header(name, value).send()
    };
    assert_eq!(send("sec-fetch-site", "same-origin").status(), 200);
    assert_eq!(send("origin", "http://localhost").status(), 200);
    assert_eq!(send("sec-fetch-site", "cross-site").status(), 403);
    let refused = send("origin", "http://evil.example");
    assert_eq!(refused.status(), 403);
    assert!(refused.text().contains("another site"), "{}", refused.text());
}

/// What a visitor does between opening a form and sending it.
const MEANWHILE: [(&str, &[&str]); 4] = [
    ("nothing", &[]),
    ("they log in, in a second tab", &["/login"]),
    ("their session ends, as over night", &["/logout"]),
    ("two tabs are restored at once, with a session from before", &["/logout", "/login"]),
];

#[test]
fn a_form_that_was_open_meanwhile_passes_where_the_browser_says_that_it_is_the_sites_own() {
    for (what, pages) in MEANWHILE {
        for sent_token in [true, false] {
            let client = client();
            let token = token(&client);
            pages.iter().for_each(|page| drop(client.get(page).send()));
            let fields = if sent_token { vec![("csrf_token", &token)] } else { vec![] };
            let sent =
                client.post("/act").header("sec-fetch-site", "same-origin").form(&fields).send();
            assert_eq!((sent.status(), &sent.text()[..]), (200, "done"), "{what}");
        }
    }
}

#[test]
fn always_token_asks_for_the_token_as_well() {
    let app = |csrf| {
        let mut app = App::new();
        app.install(csrf).unwrap();
        app.install(SessionPlugin::new().in_memory()).unwrap();
        app.get("/token", |s: &mut Session| s.csrf_token());
        app.post("/act", || "done");
        TestClient::new(app).unwrap()
    };
    for (csrf, without) in [(CsrfPlugin::new(), 200), (CsrfPlugin::new().always_token(), 403)] {
        let client = app(csrf);
        let token = token(&client);
        let send = |fields: &[(&str, &str)]| {
            client
                .post("/act")
                .header("sec-fetch-site", "same-origin")
                .form(&fields)
                .send()
                .status()
        };
        assert_eq!((send(&[]), send(&[("csrf_token", &token)])), (without, 200));
    }
}

#[test]
fn a_page_that_hides_where_it_is_passes_with_its_token() {
    let client = client();
    let token = token(&client);
    let send = |token: &str| {
        let form = client.post("/act").header("origin", "null").form(&[("csrf_token", token)]);
        form.send().status()
    };
    assert_eq!((send(&token), send("x")), (200, 403));
}

#[test]
fn who_is_refused_reads_what_happened_and_the_log_says_why() {
    collect_logs();
    let client = client();
    let stale = token(&client);
    client.get("/login").send();
    let nothing = "neither the form field csrf_token nor the header X-CSRF-Token";
    for (path, header, token, reason, text) in [
        (
            "/refused/1",
            ("sec-fetch-site", "cross-site"),
            "",
            "rule 1, Sec-Fetch-Site names another site; Sec-Fetch-Site: cross-site, Origin: not sent, Host: localhost",
            "the request comes from a page of another site.",
        ),
        (
            "/refused/2",
            ("origin", "http://evil.example"),
            "",
            "rule 1, Origin names another site; Sec-Fetch-Site: not sent, Origin: http://evil.example, Host: localhost",
            "the request comes from a page of another site.",
        ),
        ("/refused/3", ("accept", "*/*"), "", nothing, "Go back: what you typed is still there."),
        (
            "/refused/4",
            ("sec-fetch-site", "none"),
            &stale,
            "rule 2, its token is not that of its session; Sec-Fetch-Site: none",
            "the page is from before you logged in or out, or was open for too long. Go back: what you typed is still there.",
        ),
    ] {
        let fields: Vec<_> =
            [("csrf_token", token)].into_iter().filter(|field| !field.1.is_empty()).collect();
        let refused = client.post(path).header(header.0, header.1).form(&fields).send();
        assert_eq!(refused.status(), 403);
        assert!(refused.text().contains("Nothing was changed: "), "{}", refused.text());
        assert!(refused.text().contains(text), "{}", refused.text());
        let lines = logs_of(&format!("POST {path} is refused by the csrf plugin: "));
        assert!(
            matches!(&lines[..], [line] if line.starts_with("INFO ") && line.contains(reason)),
            "{lines:?}"
        );
    }
}

#[test]
fn unsafe_methods_are_checked_and_safe_ones_are_not() {
    let client = client();
    let table = [
        ("GET", "/act", 200),
        ("HEAD", "/act", 200),
        ("POST", "/act", 403),
        ("PUT", "/act", 403),
        ("PATCH", "/act", 403),
        ("DELETE", "/act", 403),
        ("GET", "/any", 200),
        ("OPTIONS", "/any", 200),
        ("POST", "/any", 403),
        ("MADE-UP", "/any", 403),
        ("POST", "/hook", 200),
    ];
    for (method, path, status) in table {
        let method: Method = method.parse().unwrap();
        let got = client.request(method.clone(), path).header("sec-fetch-site", "none");
        assert_eq!(got.send().status(), status, "{method} {path}");
    }
}

#[test]
fn with_the_header_the_body_is_left_to_the_handler() {
    let client = client();
    let token = token(&client);
    let send = client.post("/upload").header("x-csrf-token", &token).body("large");
    assert_eq!(send.send().text(), "large");
}

#[test]
fn a_handler_can_check_a_token_itself() {
    let client = client();
    let token = token(&client);
    for (token, verdict) in [(&token[..], "true"), ("x", "false")] {
        assert_eq!(client.post("/own").header("x-token", token).send().text(), verdict);
    }
}

#[test]
fn pages_that_load_together_spoil_no_form_of_the_other() {
    let client = client();
    client.get("/login").send();
    let cookie = client.cookie("bottle.session").unwrap();
    let tokens: Vec<String> = std::thread::scope(|scope| {
        let load = || {
            let page = TestClient::of(client.service().clone());
            page.set_cookie("bottle.session", &cookie);
            token(&page)
        };
        let pages: Vec<_> = (0..8).map(|_| scope.spawn(load)).collect();
        pages.into_iter().map(|page| page.join().unwrap()).collect()
    });
    for token in tokens {
        assert_eq!(act(&client, &token), 200);
    }
}

#[test]
fn tokens_belong_to_the_session_of_the_plugins_keyword() {
    let mut app = App::new();
    app.install(SessionPlugin::new().in_memory()).unwrap();
    app.install(SessionPlugin::new().in_memory().keyword("admin").cookie_name("admin")).unwrap();
    app.install(CsrfPlugin::new().keyword("admin")).unwrap();
    app.get(
        "/tokens",
        named!(|session: &mut Session, admin: &mut Session| {
            format!("{} {}", session.csrf_token(), admin.csrf_token())
        }),
    );
    app.post("/act", || "done");
    let client = TestClient::new(app).unwrap();
    let tokens = client.get("/tokens").send().text();
    let (session, admin) = tokens.split_once(' ').unwrap();
    assert_eq!((act(&client, session), act(&client, admin)), (403, 200));
}

#[test]
fn without_a_session_plugin_the_app_does_not_build() {
    let mut app = App::new();
    app.install(CsrfPlugin::new()).unwrap();
    app.get("/", || "fine");
    app.post("/act", || "not fine");
    let error = app.build().unwrap_err().to_string();
    let expected = r#"route /act: plugin "csrf" uses keyword "session", which no plugin"#;
    assert!(error.starts_with(expected), "{error}");
}
