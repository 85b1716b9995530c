//! What operators see of a server: what it believes, what it logs, and how it ends.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bottle_session::http::StatusCode;
use bottle_session::server::native::Native;
use bottle_session::{
    App, Cookie, CsrfPlugin, Error, ErrorKind, Event, Events, HttpError, Load, Loaded, LogEvents,
    MemoryStore, Redirect, Request, Response, ResponseHead, Result, Save, Saved, Session,
    SessionPlugin, SessionStore, TestClient, Urls, redirect,
};

use crate::support::logs::{collect_logs, logs_of};
use crate::support::process::Program;
use crate::support::proxies::{Proxy, folder};
use crate::support::serving::{Client, Serving};

#[test]
fn an_app_below_a_path_of_its_proxy_has_that_in_its_addresses_and_cookies() {
    let mut app = App::new();
    app.install(SessionPlugin::new().in_memory()).unwrap();
    app.get("/item/<id:int>", |urls: &Urls, id: i64| {
        urls.build("item", &[("id", &id.to_string())])
    })
    .name("item");
    app.get("/go", |urls: &Urls| -> Result<Redirect> {
        Ok(redirect(urls.build("item", &[("id", "7")])?))
    });
    app.get("/elsewhere", || redirect("/x"));
    app.get("/seen", |request: &Request| format!("{}|{}", request.prefix(), request.path()));
    app.get("/cookies", |session: &mut Session, head: &mut ResponseHead| -> Result<()> {
        session.set("a", "1");
        head.set_cookie(Cookie::build(("mine", "1")).path("/cart"))?;
        head.set_cookie(Cookie::build(("__Host-mine", "1")).path("/").secure(true))
    });
    let native = Native::bind("127.0.0.1:0").unwrap().trusted_proxies(["127.0.0.1"]).unwrap();
    let server = Serving::start(native, app);
    let ask = |path: &str, prefix: &str| {
        let head =
            format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-Forwarded-Prefix: {prefix}\r\n\r\n");
        server.client().send(head).reply()
    };
    for (prefix, shown) in [("/shop", "/shop"), ("/shop/", "/shop"), ("//evil", ""), ("http:", "")]
    {
        assert_eq!(ask("/item/7", prefix).text(), format!("{shown}/item/7"));
        assert_eq!(ask("/seen", prefix).text(), format!("{shown}|/seen"));
        let location = |path| ask(path, prefix).header("location").unwrap().to_owned();
        assert_eq!(location("/go"), format!("{shown}/item/7"), "not twice");
        assert_eq!(location("/elsewhere"), "/x", "as it was given");
        let reply = ask("/cookies", prefix);
        let mut paths: Vec<_> = reply
            .headers
            .iter()
            .filter(|(name, _)| name == "set-cookie")
            .map(|(_, value)| {
                let path = value.split("; ").find_map(|part| part.strip_prefix("Path="));
                (value.split_once('=').unwrap().0, path.unwrap().to_owned())
            })
            .collect();
        paths.sort_unstable();
        let session = if shown.is_empty() { "/".to_owned() } else { shown.to_owned() };
        let expected = [
            ("__Host-mine", "/".to_owned()),
            ("bottle.session", session),
            ("mine", format!("{shown}/cart")),
        ];
        assert_eq!(paths, expected, "{prefix}");
    }
}

/// Input that would begin a line of its own in the log, clear a terminal, and show text backwards.
const FORGED: &str = "x\r\nERROR forged line\x1b[2J\u{202e}\u{85}";

#[test]
fn no_text_of_an_error_or_panic_begins_a_line_in_the_log_or_steers_a_terminal() {
    collect_logs();
    let mut app = App::new();
    app.install(SessionPlugin::new().store(Failing).cookie_name("forged")).unwrap();
    app.get("/forged/error", || -> Result<String> { Err(Error::new(ErrorKind::Input, FORGED)) });
    app.get("/forged/source", || -> Result<String> {
        Err(Error::new(ErrorKind::Input, "outer").with_source(FORGED))
    });
    app.get("/forged/http", || -> std::result::Result<String, HttpError> {
        Err(HttpError::new(StatusCode::BAD_GATEWAY).with_source(FORGED))
    });
    app.get("/forged/panic", || -> String { panic!("{FORGED}") });
    app.get("/forged/session", |session: &mut Session| session.set("a", "1"));
    app.get("/forged/stream", || Response::stream(Failing, None));
    app.get("/forged/page", || -> Result<String> { Err(Error::new(ErrorKind::Input, "page")) });
    app.error(502, || -> String { panic!("{FORGED}") });
    app.after_request(|request: &Request, _: &mut Response| {
        assert!(request.path() != "/forged/page", "{FORGED}");
    });
    let server = Serving::start(Native::bind("127.0.0.1:0").unwrap(), app);
    for path in ["error", "source", "http", "panic", "session", "stream", "page"] {
        let mut client = server.client();
        let close = "Host: a\r\nConnection: close";
        client.send(format!("GET /forged/{path} HTTP/1.1\r\n{close}\r\n\r\n"));
        // To the end, which the one that breaks off comes to before its time.
        let _ = client.stream.read_to_end(&mut Vec::new());
    }
    let forged = logs_of("ERROR forged line");
    assert_eq!(forged.len(), 8, "{forged:#?}");
    for line in forged {
        let escaped = "x\\r\\nERROR forged line\\u{1b}[2J\\u{202e}\\u{85}";
        assert!(line.contains(escaped) && !line.contains(['\r', '\n', '\x1b']), "{line:?}");
    }
}

#[test]
fn behind_a_proxy_the_warning_of_an_open_cookie_comes_when_somebody_comes_from_elsewhere() {
    collect_logs();
    let native = || Native::bind("127.0.0.1:0").unwrap();
    let ask = |name: &str, server: Native, heads: &[&str]| {
        let mut app = App::new();
        let plugin = SessionPlugin::new().in_memory().cookie_name(name);
        let hard = name == "proxied-hard";
        app.install(plugin.cookie_secure(hard).cookie_httponly(hard)).unwrap();
        app.get("/", |_: &mut Session| "hello");
        app.get("/without", || "hello");
        let server = Serving::start(server, app);
        for head in heads {
            let path = if head.contains("X-Without") { "/without" } else { "/" };
            let reply =
                server.client().send(format!("GET {path} HTTP/1.1\r\n{head}\r\n\r\n")).reply();
            assert_eq!(reply.status, 200);
        }
        logs_of(&format!("with session cookie {name} "))
    };
    let https = "Host: localhost\r\nX-Forwarded-Proto: https";
    let public = "Host: shop.example";
    let forwarded = "Host: localhost\r\nX-Forwarded-Host: shop.example:8080";
    let trusting = || native().trusted_proxies(["127.0.0.1"]).unwrap();
    for (name, heads, what) in [
        ("proxied-https", [https, https, public], "over https"),
        ("proxied-public", [public, public, https], "of a public host"),
        ("proxied-forwarded", [forwarded, https, https], "of a public host"),
    ] {
        let lines = ask(name, trusting(), &heads);
        let expected = format!(
            "WARN a proxy passes on what visitors ask {what}, with session cookie {name} ("
        );
        assert!(matches!(&lines[..], [line] if line.starts_with(&expected)), "{lines:?}");
    }
    let none = [""; 0];
    // Nobody who is believed says so, or there is nothing to warn of.
    assert_eq!(ask("proxied-lie", native(), &[https, public, forwarded]), none);
    assert_eq!(
        ask("proxied-own", trusting(), &["Host: localhost", "Host: 10.0.0.1:80", "Host: app"]),
        none
    );
    assert_eq!(ask("proxied-hard", trusting(), &[https, public]), none);
    assert_eq!(ask("proxied-none", trusting(), &["X-Without: 1\r\nHost: shop.example"]), none);
}

#[test]
fn a_cookie_that_browsers_drop_and_a_login_that_others_can_read_are_logged_once_with_what_to_do() {
    collect_logs();
    let ask = |name: &str, secure: Option<bool>, http_only: bool, heads: &[&str]| {
        let plugin = SessionPlugin::new().in_memory().cookie_name(name).cookie_httponly(http_only);
        let mut app = App::new();
        app.install(match secure {
            Some(secure) => plugin.cookie_secure(secure),
            None => plugin,
        })
        .unwrap();
        app.get("/", |session: &mut Session| session.log_in("ada"));
        let native = Native::bind("127.0.0.1:0").unwrap();
        let server = Serving::start(native.trusted_proxies(["127.0.0.1"]).unwrap(), app);
        for head in heads {
            let reply = server.client().send(format!("GET / HTTP/1.1\r\n{head}\r\n\r\n")).reply();
            assert_eq!(reply.status, 200);
        }
        let of = |text: &str| logs_of(text).iter().filter(|line| line.contains(name)).count();
        (of("where browsers drop it"), of("a user has logged in with session cookie"))
    };
    let elsewhere = "Host: shop.example\r\nX-Forwarded-For: 203.0.113.7";
    let secured = "Host: shop.example\r\nX-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: https";
    let here = "Host: localhost:8080";
    assert_eq!(ask("kept-lost", Some(true), true, &[elsewhere, elsewhere, here]), (1, 0));
    assert_eq!(
        ask("kept-local", Some(true), true, &[here, "Host: [::1]:1", "Host: a.localhost"]),
        (0, 0)
    );
    assert_eq!(ask("kept-https", Some(true), false, &[secured]), (0, 0));
    assert_eq!(ask("kept-open", None, false, &[here, elsewhere, elsewhere]), (0, 1));
    assert_eq!(ask("kept-auto", None, false, &[secured, here]), (0, 0));
    assert_eq!(ask("kept-scripts", None, true, &[elsewhere]), (0, 0));
}

/// A store and a body that say what input made them say.
struct Failing;

impl SessionStore for Failing {
    fn load(&self, _: &Load<'_>) -> Result<Loaded> {
        Err(Error::new(ErrorKind::Unavailable, FORGED))
    }

    fn save(&self, _: &Save<'_>) -> Result<Saved> {
        Err(Error::new(ErrorKind::Unavailable, FORGED))
    }

    fn increment(&self, _: &Load<'_>, _: &str, _: i64) -> Result<i64> {
        Err(Error::new(ErrorKind::Unavailable, FORGED))
    }

    fn take(&self, _: &Load<'_>, _: &[&str]) -> Result<Vec<Option<String>>> {
        Err(Error::new(ErrorKind::Unavailable, FORGED))
    }

    fn set_if_absent(&self, _: &Load<'_>, _: &str, _: &str) -> Result<bool> {
        Err(Error::new(ErrorKind::Unavailable, FORGED))
    }
}

impl Read for Failing {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        Err(std::io::Error::other(FORGED))
    }
}

#[test]
fn what_is_down_or_wrong_writes_a_line_when_it_begins_and_not_one_for_each_request() {
    collect_logs();
    let mut app = App::new();
    app.get("/down/<what>", |what: &str| -> Result<String> {
        Err(Error::new(ErrorKind::Unavailable, format!("{what} is away")))
    });
    app.get("/wrong", || -> Result<String> {
        Err(Error::new(ErrorKind::Config, "a setting is wrong"))
    });
    let server = Serving::start(Native::bind("127.0.0.1:0").unwrap(), app);
    let mut client = server.client();
    for _ in 0..1_000 {
        for what in ["store", "mailer"] {
            assert_eq!(client.get(&format!("/down/{what}")).status, 503);
        }
        assert_eq!(client.get("/wrong").status, 500);
    }
    let wrong = "ERROR GET /wrong answers 500: a setting is wrong";
    assert_eq!(logs_of("a setting is wrong"), [wrong]);
    for what in ["store", "mailer"] {
        let line = format!("WARN GET /down/{what} answers 503: {what} is away");
        assert_eq!(logs_of(&format!("{what} is away")), [line]);
    }
}

#[test]
fn what_somebody_can_bring_about_as_often_as_they_like_is_not_a_line_each_time() {
    collect_logs();
    let mut app = App::new();
    app.install(SessionPlugin::new().store(MemoryStore::new().capacity(1))).unwrap();
    app.install(CsrfPlugin::new()).unwrap();
    app.get("/often/set", |session: &mut Session| session.set("a", "1"));
    app.post("/often/form", || "done");
    app.get("/often/end", || Response::stream(Often, None));
    let server = Serving::start(Native::bind("127.0.0.1:0").unwrap(), app);
    let mut client = server.client();
    for _ in 0..200 {
        assert_eq!(client.get("/often/set").status, 200, "a full store keeps nobody out");
        let foreign = "POST /often/form HTTP/1.1\r\nHost: a\r\nOrigin: http://evil\u{202e}\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(client.send(foreign).reply().status, 403);
        let mut breaks = server.client();
        breaks.send("GET /often/end HTTP/1.1\r\nHost: a\r\n\r\n");
        let _ = breaks.stream.read_to_end(&mut Vec::new());
        LogEvents.event(Event::Damaged(&Error::new(ErrorKind::Session, "it happens often")));
    }
    for (part, level) in [
        ("store in memory is full and loses live sessions: it holds 1;", "WARN "),
        ("POST /often/form is refused by the csrf plugin", "INFO "),
        ("an answer breaks off: it happens often", "ERROR "),
        ("damaged session data: it happens often", "WARN "),
    ] {
        let lines = logs_of(part);
        assert!(matches!(&lines[..], [line] if line.starts_with(level)), "{lines:?}");
    }
    // What a header holds begins no line and turns none around.
    assert!(logs_of("POST /often/form")[0].contains("http://evil\\u{202e}"));
}

#[test]
fn bots_that_fill_the_memory_keep_nobody_from_logging_in_and_log_nobody_out() {
    let mut app = App::new();
    app.install(SessionPlugin::new().store(MemoryStore::new().capacity(50))).unwrap();
    app.get("/form", |session: &mut Session| session.csrf_token());
    app.get("/flash", |session: &mut Session| session.flash("info", "Log in first."));
    app.get("/log-in/<name>", |session: &mut Session, name: &str| {
        session.regenerate();
        session.set("user", name);
    });
    app.get("/", |session: &mut Session| session.get("user").unwrap_or("nobody").to_owned());
    let first = TestClient::new(app).unwrap();
    let visitor = || TestClient::of(first.service().clone());
    let mut users = Vec::new();
    for number in 0..40 {
        for _ in 0..25 {
            for path in ["/form", "/flash"] {
                assert_eq!(visitor().get(path).send().status(), 200);
            }
        }
        // With a form before it, as everybody logs in.
        let user = visitor();
        assert_eq!(user.get("/form").send().status(), 200);
        assert_eq!(user.get(&format!("/log-in/{number}")).send().status(), 200);
        users.push(user);
    }
    for (number, user) in users.iter().enumerate() {
        assert_eq!(user.get("/").send().text(), number.to_string());
    }
}

struct Often;

impl Read for Often {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        Err(std::io::Error::other("it happens often"))
    }
}

#[test]
fn a_process_out_of_file_descriptors_says_so_once_and_when_it_is_over() {
    let (program, log) = Program::greeter_with_few_files(40);
    let mut loud = Vec::new();
    let mut wait_for = |what: &str, mut count: usize| {
        for line in log.iter().filter(|line| line.contains("accepting pauses")) {
            count -= usize::from(line.contains(what));
            if !line.contains("DEBUG ") {
                loud.push(line);
            }
            if count == 0 {
                return;
            }
        }
        panic!("the greeter has ended");
    };
    let clients: Vec<_> = (0..60).map(|_| TcpStream::connect(program.address).unwrap()).collect();
    wait_for("DEBUG ", 20);
    drop(clients);
    assert_eq!(Client::new(TcpStream::connect(program.address).unwrap()).get("/").status, 200);
    wait_for("over: ", 1);
    assert_eq!(loud.len(), 2, "{loud:#?}");
    assert!(loud.iter().all(|line| line.contains("ERROR ")), "{loud:#?}");
}

const HOUR: Duration = Duration::from_secs(3600);

fn counting() -> App {
    let mut app = App::new();
    app.get("/", || "hello");
    app.post("/", |request: &Request| -> Result<String> { Ok(request.body()?.len().to_string()) });
    app.post("/stream", |request: &Request| -> Result<String> {
        let mut bytes = Vec::new();
        request.body_reader()?.read_to_end(&mut bytes)?;
        Ok(bytes.len().to_string())
    });
    app
}

const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n";

#[test]
fn a_server_that_shuts_down_answers_what_comes_on_open_connections_and_says_that_it_is_the_last() {
    let native = Native::bind("127.0.0.1:0").unwrap().lame_duck(HOUR).head_deadline(HOUR);
    let server = Serving::start(native, counting());
    let (mut idle, mut half_head, mut half_body) =
        (server.client(), server.client(), server.client());
    assert_eq!(idle.get("/").header("connection"), None);
    half_head.send(&POST[..30]);
    half_body.send(POST).send("a");
    // Connected, and nothing sent; perhaps not accepted yet.
    let mut silent = server.client();
    server.shutdown.shutdown();
    while TcpStream::connect(server.address).is_ok() {
        std::thread::yield_now();
    }
    idle.send(POST).send("abc");
    half_head.send(&POST[30..]).send("abc");
    half_body.send("bc");
    silent.send(POST).send("abc");
    for mut client in [idle, half_head, half_body, silent] {
        let reply = client.reply();
        assert_eq!((reply.text(), reply.header("connection")), ("3", Some("close")));
        assert!(client.is_closed());
    }
    // Nobody is left to wait for, however long it might.
    server.join();
}

#[test]
fn as_process_1_of_a_container_the_server_ends_when_it_is_asked() {
    let program = Program::greeter_as_process_1();
    assert_eq!(Client::new(TcpStream::connect(program.address).unwrap()).get("/").status, 200);
    assert!(program.terminate().success());
}

#[test]
fn a_request_that_has_not_fully_arrived_is_none_that_runs_when_the_server_shuts_down() {
    let native = Native::bind("127.0.0.1:0")
        .unwrap()
        .lame_duck(Duration::from_millis(100))
        .head_deadline(HOUR)
        .idle_deadline(HOUR)
        .body_rate(1, HOUR)
        .drain_deadline(HOUR);
    let server = Serving::start(native, counting());
    let large = "POST /stream HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nabc";
    let chunked = "POST /stream HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab";
    let mut clients = Vec::new();
    for part in ["", "\r\n", "GET / HT", &POST[..30], POST, large, chunked] {
        let mut client = server.client();
        client.send(part);
        clients.push((part, client));
    }
    let mut idle = server.client();
    assert_eq!(idle.get("/").text(), "hello");
    server.shutdown.shutdown();
    server.join();
    assert!(idle.is_closed());
    for (part, mut client) in clients {
        // A handler that was reading can tell its client; the others have nobody who would.
        let status = client.try_reply(false).map(|reply| reply.status);
        assert_eq!(status, (part == large).then_some(503), "{part:?}");
    }
}

/// Restarts a server twenty times while visitors post through this proxy.
fn restart_under_load(proxy: &Proxy, listener: &TcpListener) {
    let over = AtomicBool::new(false);
    let (posted, served) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let visit = || {
        let mut client = proxy.client();
        while !over.load(Ordering::SeqCst) {
            let reply = client.send(POST).send("abc").try_reply(false);
            let reply = reply.expect("the proxy keeps its visitors");
            assert_eq!((reply.status, reply.text()), (200, "3"), "{}", proxy.log());
            posted.fetch_add(1, Ordering::SeqCst);
            if reply.header("connection") == Some("close") {
                client = proxy.client();
            }
        }
    };
    std::thread::scope(|scope| {
        let visitors: Vec<_> = (0..8).map(|_| scope.spawn(visit)).collect();
        for _ in 0..20 {
            // As systemd does: the socket stays, and the next process is handed it when the last one has ended.
            let listener = listener.try_clone().unwrap();
            let server = Serving::start(Native::from_listener(listener).unwrap(), counting());
            let before = posted.load(Ordering::SeqCst);
            while posted.load(Ordering::SeqCst) < before + 100
                && !visitors.iter().any(|visitor| visitor.is_finished())
            {
                std::thread::sleep(Duration::from_millis(1));
            }
            served.fetch_add(posted.load(Ordering::SeqCst) - before, Ordering::SeqCst);
            if over.load(Ordering::SeqCst) || visitors.iter().any(|visitor| visitor.is_finished()) {
                break;
            }
            server.shutdown.shutdown();
            server.join();
        }
        // The last one serves those that are on their way.
        let last = Native::from_listener(listener.try_clone().unwrap()).unwrap();
        let last = Serving::start(last, counting());
        over.store(true, Ordering::SeqCst);
        visitors.into_iter().for_each(|visitor| visitor.join().unwrap());
        drop(last);
    });
    assert!(served.load(Ordering::SeqCst) >= 2_000);
}

#[test]
fn restarts_under_load_fail_no_visitor_behind_nginx() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let lines = format!(
        "upstream app {{ server {}; keepalive 16; }}\nserver {{ listen LISTEN;\nlocation / {{\n\
         proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }}",
        listener.local_addr().unwrap()
    );
    restart_under_load(&Proxy::nginx(folder("restart-nginx"), &lines), &listener);
}

#[test]
fn restarts_under_load_fail_no_visitor_behind_haproxy() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let lines = format!(
        "defaults\n mode http\n timeout client 60s\n timeout server 60s\n timeout connect 5s\n\
         listen app\n bind LISTEN\n http-reuse safe\n server one {}",
        listener.local_addr().unwrap()
    );
    restart_under_load(&Proxy::haproxy(folder("restart-haproxy"), &lines), &listener);
}
