//! Behind nginx, with the shortest lines that the guide gives for it.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

use bottle_session::server::native::Native;
use bottle_session::{
    App, CsrfPlugin, Request, Response, Server, Session, SessionPlugin, ShutdownHandle,
};

use crate::support::proxies::{Proxy, folder, nginx_in_short, runs_as_root};
use crate::support::serving::Serving;

fn app() -> App {
    let mut app = App::new();
    app.install(SessionPlugin::new().in_memory().hardened()).unwrap();
    app.install(CsrfPlugin::new()).unwrap();
    app.get("/who", |request: &Request| {
        let client = request.remote_addr().map_or("-".to_owned(), |at| at.ip().to_string());
        format!("{client} {:?} {}", request.scheme(), request.host().unwrap_or("-"))
    });
    app.get("/token", |session: &mut Session| session.csrf_token().to_owned());
    app.post("/buy", |session: &mut Session| {
        let bought = session.parse("bought").unwrap_or(0) + 1;
        session.set("bought", bought);
        bought.to_string()
    });
    app.post("/size", |request: &Request| -> bottle_session::Result<String> {
        let mut reader = request.body_reader()?;
        Ok(std::io::copy(&mut reader, &mut std::io::sink())?.to_string())
    })
    .skip("csrf");
    app.get("/many", || {
        Response::stream(std::io::Read::take(std::io::repeat(b'x'), 300_000), None)
    });
    app
}

#[test]
fn a_unix_socket_is_not_for_users_who_are_not_of_its_group() {
    if !runs_as_root() {
        // Only root can start somebody else's processes; the mode itself is tested with the socket.
        return;
    }
    let folder = folder("others");
    let address = format!("unix:{}", folder.join("app.socket").display());
    let server = Native::bind(&address).unwrap();
    let (service, shutdown) = (app().build().unwrap(), ShutdownHandle::new());
    std::thread::scope(|scope| {
        scope.spawn(|| server.serve(service, &shutdown).unwrap());
        let stop = Stop(&shutdown);
        let lines = nginx_in_short(&folder.join("app.socket"));
        let nginx = Proxy::nginx_as(folder, Some("www-data"), &lines);
        assert_eq!(nginx.client().get("/who").status, 502);
        assert!(nginx.log().contains("Permission denied"), "{}", nginx.log());
        drop(stop);
    });
}

#[test]
fn behind_nginx_sessions_work_and_only_nginx_is_believed() {
    let folder = folder("nginx");
    let socket = folder.join("app.socket");
    // As Debian's nginx does; as plain user nobody can start one for another user.
    let user = runs_as_root().then_some("www-data");
    let group = user.map_or(String::new(), |group| format!("?group={group}"));
    let address = format!("unix:{}{group}", socket.display());
    let server = Native::bind(&address).unwrap().trusted_proxies(["unix"]).unwrap();
    let (service, shutdown) = (app().build().unwrap(), ShutdownHandle::new());
    std::thread::scope(|scope| {
        scope.spawn(|| server.serve(service, &shutdown).unwrap());
        let stop = Stop(&shutdown);
        let nginx = Proxy::nginx_as(folder, user, &nginx_in_short(&socket));
        let mut client = nginx.client();

        // What a client makes up about itself, nginx replaces.
        let lies = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n\
                    Forwarded: for=6.6.6.6;proto=https;host=evil\r\n";
        client.send(format!("GET /who HTTP/1.1\r\nHost: shop.example:81\r\n{lies}\r\n"));
        assert_eq!(client.reply().text(), "127.0.0.1 Http shop.example:81");

        // A session, and a form that is checked against its token and the site's own address.
        let reply = client.get("/token");
        let cookie = reply.header("set-cookie").unwrap();
        assert!(cookie.starts_with("__Host-") && cookie.contains("; Secure"), "{cookie}");
        let cookie = cookie.split_once(';').unwrap().0;
        let token = reply.text();
        let buy = |origin: &str, token: &str| {
            format!(
                "POST /buy HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\nOrigin: {origin}\r\n\
                 X-CSRF-Token: {token}\r\nContent-Length: 0\r\n\r\n"
            )
        };
        for (origin, token, expected) in [
            ("http://a", token, (200, "1")),
            ("http://a", token, (200, "2")),
            ("http://evil", token, (403, "")),
            ("http://a", "made-up", (403, "")),
        ] {
            let reply = client.send(buy(origin, token)).reply();
            assert_eq!(reply.status, expected.0, "{origin} {token}");
            assert!(reply.text().starts_with(expected.1), "{}", reply.text());
        }

        // Bodies of unknown length, both ways.
        let chunk = format!("8000\r\n{}\r\n", "y".repeat(0x8000));
        let head = "POST /size HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        client.send(head);
        for _ in 0..16 {
            client.stream.write_all(chunk.as_bytes()).unwrap();
        }
        assert_eq!(client.send("0\r\n\r\n").reply().text(), (16 * 0x8000).to_string());
        assert_eq!(client.get("/many").body.len(), 300_000);
        drop(stop);
    });
}

/// Ends the server, also where the test fails.
struct Stop<'a>(&'a ShutdownHandle);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.shutdown_now();
    }
}

/// How many visitors send large bodies at the same time.
const SENDERS: usize = 4;

/// Sends bodies of so many megabytes to what answers without reading them, through proxies over TCP.
fn early_answers(name: &str, megabytes: &[usize], rounds: usize) {
    let mut app = App::new();
    app.post("/unauthorized", || http::StatusCode::UNAUTHORIZED);
    app.post("/too-large", |request: &Request| -> bottle_session::Result<String> {
        Ok(request.body()?.len().to_string())
    });
    let server = Native::bind("127.0.0.1:0").unwrap().max_body(70_000_000);
    let server = Serving::start(server, app);
    let limited = Native::bind("127.0.0.1:0").unwrap().max_body(1_000_000);
    let limited = Serving::start(limited, App::new());
    let nginx = |buffering| {
        let lines = format!(
            "client_max_body_size 0;\nserver {{ listen LISTEN;\nproxy_http_version 1.1;\n\
             proxy_set_header Connection \"\"; proxy_request_buffering {buffering};\n\
             location / {{ proxy_pass http://{}; }}\nlocation /limited {{ proxy_pass http://{}; }} }}",
            server.address, limited.address
        );
        Proxy::nginx(folder(&format!("early-{name}-nginx-{buffering}")), &lines)
    };
    let haproxy = || {
        let lines = format!(
            "defaults\n mode http\n timeout client 60s\n timeout server 60s\n timeout connect 5s\n\
             frontend all\n bind LISTEN\n use_backend limited if {{ path /limited }}\n\
             default_backend app\nbackend app\n server one {}\nbackend limited\n server one {}",
            server.address, limited.address
        );
        Proxy::haproxy(folder(&format!("early-{name}-haproxy")), &lines)
    };
    let table = [("/unauthorized", 401), ("/nowhere", 404), ("/too-large", 413), ("/limited", 413)];
    let cases: Vec<_> = (0..rounds)
        .flat_map(|_| megabytes)
        .flat_map(|size| table.map(|(path, status)| (path, status, size * 1_000_000)))
        .collect();
    for (front, proxy) in [
        ("nginx, buffering on", nginx("on")),
        ("nginx, buffering off", nginx("off")),
        ("HAProxy", haproxy()),
    ] {
        let next = AtomicUsize::new(0);
        let send_all = || {
            while let Some((path, status, length)) = cases.get(next.fetch_add(1, Ordering::Relaxed))
            {
                let mut client = proxy.client();
                client.send(format!(
                    "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"
                ));
                // As browsers and curl do: sends until there is an answer.
                let mut sending = client.stream.try_clone().unwrap();
                let body = std::io::Read::take(std::io::repeat(b'x'), *length as u64);
                let sender = std::thread::spawn(move || {
                    let mut body = std::io::BufReader::with_capacity(1 << 18, body);
                    let _ = std::io::copy(&mut body, &mut sending);
                });
                let reply = client.try_reply(false);
                let _ = client.stream.shutdown(std::net::Shutdown::Both);
                sender.join().unwrap();
                let what = format!("{path}, {length} bytes, {front}");
                assert_eq!(
                    reply.map(|reply| reply.status),
                    Some(*status),
                    "{what}: {}",
                    proxy.log()
                );
            }
        };
        std::thread::scope(|scope| (0..SENDERS).for_each(|_| drop(scope.spawn(send_all))));
    }
}

#[test]
fn a_server_that_is_full_says_503_through_nginx() {
    let server = Native::bind("127.0.0.1:0").unwrap().max_connections(40);
    let server = Serving::start(server, App::new());
    let mut kept: Vec<_> = (0..40).map(|_| server.client()).collect();
    assert!(kept.iter_mut().all(|client| client.get("/").status == 404));
    let lines = format!(
        "client_max_body_size 0;\nserver {{ listen LISTEN;\nlocation / {{ proxy_pass http://{}; }} }}",
        server.address
    );
    let nginx = Proxy::nginx(folder("full"), &lines);
    for _ in 0..20 {
        let length = 2_000_000;
        let mut client = nginx.client();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"));
        let reply = client.send("x".repeat(length)).reply();
        assert_eq!(reply.status, 503, "{}", nginx.log());
    }
}

#[test]
fn who_sends_a_large_body_through_a_proxy_sees_an_answer_that_was_made_without_reading_it() {
    early_answers("some", &[2, 20], 6);
    if std::env::var_os("BOTTLE_SESSION_LONG").is_some() {
        early_answers("many", &[2, 20, 60], 21);
    }
}
