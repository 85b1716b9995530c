//! What operators see of a server: what it believes, what it logs, and how it ends.

use std::io::Read;
use std::net::TcpStream;

use bottle_session::http::StatusCode;
use bottle_session::server::native::Native;
use bottle_session::{
    App, Cookie, Error, ErrorKind, HttpError, Load, Record, Redirect, Request, Response,
    ResponseHead, Result, Save, Saved, Session, SessionPlugin, SessionStore, Urls, redirect,
};

use crate::support::logs::{collect_logs, logs_of};
use crate::support::process::Program;
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
    app.error(502, |_: &HttpError, _: &Request| -> String { panic!("{FORGED}") });
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

/// A store and a body that say what input made them say.
struct Failing;

impl SessionStore for Failing {
    fn load(&self, _: &Load<'_>) -> Result<Option<Record>> {
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
fn what_is_down_writes_a_line_when_it_begins_and_not_one_for_each_request() {
    collect_logs();
    let mut app = App::new();
    app.get("/down/<what>", |what: &str| -> Result<String> {
        Err(Error::new(ErrorKind::Unavailable, format!("{what} is away")))
    });
    let server = Serving::start(Native::bind("127.0.0.1:0").unwrap(), app);
    let mut client = server.client();
    for _ in 0..1_000 {
        for what in ["store", "mailer"] {
            assert_eq!(client.get(&format!("/down/{what}")).status, 503);
        }
    }
    for what in ["store", "mailer"] {
        let line = format!("WARN GET /down/{what} answers 503: {what} is away");
        assert_eq!(logs_of(&format!("{what} is away")), [line]);
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
