//! Pages for the app's author, and who sees them.

use std::net::TcpStream;

use bottle_session::server::native::Native;
use bottle_session::{App, HttpError, Own, Session, SessionPlugin};

use crate::support::logs::logs_of;
use crate::support::serving::{Client, Reply, Serving};

fn app(debug: bool) -> App {
    let mut app = App::new();
    app.debug(debug);
    app.install(SessionPlugin::new().in_memory()).unwrap();
    app.error_default(|| "the usual page");
    app.get("/read/<number>", |_: &mut Session, number: &str| -> Result<String, HttpError> {
        Ok(number.parse::<u8>().map_err(std::io::Error::other)?.to_string())
    })
    .name("reading");
    app.get("/panics", || -> &'static str { panic!("<on purpose>") });
    app.provide(|| Own(0u8)).finish(|_, _| Err::<(), _>(std::io::Error::other("no commit")));
    app.get("/finish", |_: &mut Own<u8>| "never");
    app
}

fn ask(serving: &Serving, path: &str, headers: &str) -> Reply {
    let mut client = Client::new(TcpStream::connect(serving.address).unwrap());
    client.send(format!("GET {path} HTTP/1.1\r\n{headers}\r\n")).reply()
}

#[test]
fn an_author_sees_what_went_wrong_where() {
    let serving = Serving::start(Native::bind("127.0.0.1:0").unwrap(), app(true));
    let secret = "Host: localhost\r\nCookie: a=secret\r\nAuthorization: Basic secret\r\n\
        Proxy-Authorization: Basic secret\r\nX-CSRF-Token: secret\r\nX-Api-Key: secret\r\n\
        X-Color: <red>\r\n";
    let page = ask(&serving, "/read/%3Cmany%3E", secret);
    assert_eq!(page.status, 500);
    assert_eq!(page.header("cache-control"), Some("no-store"));
    let text = page.text();
    for part in [
        "<h1>500 Internal Server Error</h1>",
        "invalid digit found in string",
        "GET /read/&lt;number&gt;",
        "<tr><th>registered at</th><td>tests/debug_pages.rs:",
        "<tr><th>raised at</th><td>tests/debug_pages.rs:",
        "<tr><th>&lt;number&gt;</th><td>&lt;many&gt;</td></tr>",
        "<td>&amp;mut bottle_session::Session</td>",
        "<tr><th>name</th><td>reading</td></tr>",
        "<th>x-color</th><td>&lt;red&gt;</td>",
        "<th>session</th><td>keyword &quot;session&quot;, asked for here</td>",
        "<h2>Backtrace</h2>",
        "debug_pages",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("secret") && !text.contains("<script"), "{text}");

    let panics = ask(&serving, "/panics", "Host: [::1]:80\r\n");
    for part in ["panicked: &lt;on purpose&gt;", "<h2>Backtrace</h2>", "debug_pages::app"] {
        assert!(panics.text().contains(part), "{part}: {}", panics.text());
    }
    assert!(ask(&serving, "/finish", "Host: 127.0.0.1\r\n").text().contains("no commit"));
    // Only what is the server's fault.
    assert_eq!(ask(&serving, "/nowhere", "Host: localhost\r\n").text(), "the usual page");
    let json = ask(&serving, "/panics", "Host: localhost\r\nAccept: application/json\r\n");
    assert_eq!(json.text(), "the usual page");
}

#[test]
fn nobody_else_sees_it() {
    let serving = Serving::start(Native::bind("127.0.0.1:0").unwrap(), app(true));
    let usual = |headers: &str| {
        let page = ask(&serving, "/panics", headers);
        assert_eq!((page.status, page.text()), (500, "the usual page"), "{headers}");
    };
    for name in [
        "Forwarded: for=192.0.2.7",
        "X-Forwarded-For: 192.0.2.7",
        "X-Forwarded-Host: a",
        "Via: 1.1 a",
        "X-Real-IP: a",
    ] {
        usual(&format!("Host: localhost\r\n{name}\r\n"));
    }
    usual("Host: evil.example\r\n");
    usual("Host: localhost.evil.example\r\n");
    // Scripts of other sites, which CORS may let read it; a form or a link of theirs shows it to who sits here.
    usual("Host: localhost\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: cors\r\n");
    usual("Host: localhost\r\nOrigin: https://evil.example\r\n");
    let shown = ask(
        &serving,
        "/panics",
        "Host: localhost\r\nSec-Fetch-Site: same-origin\r\nOrigin: http://localhost\r\n",
    );
    assert_ne!(shown.text(), "the usual page");
    // nginx unless told otherwise: its own name for the app, and not a word of who asks.
    let mut nginx = serving.client();
    let page = nginx.send("GET /panics HTTP/1.0\r\nHost: 127.0.0.1:8888\r\n\r\n").reply();
    assert_eq!(page.text(), "the usual page");
    drop(nginx);
    drop(serving);
    let warnings =
        logs_of("debug(true) shows nothing of an error: the request came through a proxy");
    assert_eq!(warnings.len(), 1, "one for all of them: {warnings:?}");

    let open = Serving::start(Native::bind("0.0.0.0:0").unwrap(), app(true));
    let address = format!("127.0.0.1:{}", open.address.port());
    let mut client = Client::new(TcpStream::connect(address).unwrap());
    let page = client.send("GET /panics HTTP/1.1\r\nHost: localhost\r\n\r\n").reply();
    assert_eq!(page.text(), "the usual page", "the server listens for others, too");

    let off = Serving::start(Native::bind("127.0.0.1:0").unwrap(), app(false));
    assert_eq!(ask(&off, "/panics", "Host: localhost\r\n").text(), "the usual page");
}
