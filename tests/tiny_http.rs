//! The tiny_http adapter over real sockets.

use std::io::Read;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bottle_session::server::tiny_http::TinyHttp;
use bottle_session::{
    App, ListenAddress, Request, Response, Result, Server, Session, SessionPlugin, ShutdownHandle,
};

use crate::support::http::{Browser, exchange};
use crate::support::serving::Serving;

/// Serves the app while the test runs, then stops and hands back what serving came to.
fn serving(app: App, workers: usize, test: impl FnOnce(SocketAddr)) {
    let server = TinyHttp::bind("127.0.0.1:0").unwrap().workers(workers);
    let ListenAddress::Tcp(address) = server.address() else { panic!("a TCP address") };
    let service = app.build().unwrap();
    let shutdown = ShutdownHandle::new();
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| server.serve(service, &shutdown));
        let stop = StopOnDrop(&shutdown);
        test(address);
        drop(stop);
        serving.join().unwrap().unwrap();
    });
}

/// A test that fails must not wait for a server that nobody stops.
struct StopOnDrop<'a>(&'a ShutdownHandle);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.shutdown();
    }
}

fn post(
    address: SocketAddr,
    path: &str,
    headers: &str,
    body: &str,
) -> crate::support::http::Answer {
    let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
    exchange(address, format!("{head}{body}").as_bytes())
}

#[test]
fn bodies_arrive_and_answers_leave() {
    let mut app = App::new();
    app.body_limit(100);
    app.post("/echo", |request: &Request| -> Result<Vec<u8>> { Ok(request.body()?.to_vec()) });
    app.post("/stream", |request: &Request| -> Result<String> {
        let mut bytes = Vec::new();
        request.body_reader()?.read_to_end(&mut bytes)?;
        Ok(bytes.len().to_string())
    });
    app.get("/length", || Response::stream("known".as_bytes(), Some(5)));
    app.get("/chunked", || Response::stream("un".as_bytes().chain("known".as_bytes()), None));
    app.get("/panic", || -> String { panic!("on purpose") });
    app.get("/late-panic", || Response::stream(Failing, None));
    app.get("/address", |request: &Request| request.remote_addr().unwrap().ip().to_string());
    serving(app, 2, |address| {
        let chunked = "Transfer-Encoding: chunked\r\n";
        assert_eq!(post(address, "/echo", "Content-Length: 5\r\n", "hello").body, "hello");
        assert_eq!(
            post(address, "/echo", chunked, "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n").body,
            "abcde"
        );
        let large = "x".repeat(101);
        assert_eq!(post(address, "/echo", "Content-Length: 101\r\n", &large).status, 413);
        let in_chunks = format!("65\r\n{large}\r\n0\r\n\r\n");
        assert_eq!(post(address, "/echo", chunked, &in_chunks).status, 413);
        // What is taken as a stream has no limit.
        let larger = "x".repeat(300_000);
        assert_eq!(post(address, "/stream", "Content-Length: 300000\r\n", &larger).body, "300000");
        let mut browser = Browser::default();
        assert_eq!(browser.text(address, "/length"), "known");
        assert_eq!(browser.text(address, "/chunked").replace("\r\n", " ").trim(), "7 unknown 0");
        assert_eq!(browser.text(address, "/address"), "127.0.0.1");
        for _ in 0..4 {
            // More panics than workers: none of them ends one.
            assert_eq!(browser.get(address, "/panic").status, 500);
        }
        assert_eq!(browser.get(address, "/late-panic").status, 200);
        assert_eq!(browser.text(address, "/length"), "known");
        let head =
            exchange(address, b"HEAD /length HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        assert_eq!((head.status, head.body.as_str()), (200, ""));
        let length = head.headers.iter().find(|header| header.0 == "content-length");
        assert_eq!(length.map(|header| header.1.as_str()), Some("5"));
    });
}

/// A body that breaks off.
struct Failing;

impl Read for Failing {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        Err(std::io::Error::other("on purpose"))
    }
}

#[test]
fn a_request_that_runs_at_shutdown_is_finished_and_its_session_saved() {
    let (entered, wait_entered) = mpsc::channel();
    let (leave, wait_leave) = mpsc::channel::<()>();
    let wait_leave = std::sync::Mutex::new(wait_leave);
    let mut app = App::new();
    app.install(SessionPlugin::new().in_memory()).unwrap();
    app.get("/slow", move |session: &mut Session| {
        session.set("slow", "yes");
        entered.send(()).unwrap();
        wait_leave.lock().unwrap().recv().unwrap();
        "finished"
    });
    let server = TinyHttp::bind("127.0.0.1:0").unwrap();
    let ListenAddress::Tcp(address) = server.address() else { panic!("a TCP address") };
    let service = app.build().unwrap();
    let shutdown = ShutdownHandle::new();
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| server.serve(service, &shutdown));
        let client = scope.spawn(move || Browser::default().get(address, "/slow"));
        wait_entered.recv().unwrap();
        shutdown.shutdown();
        leave.send(()).unwrap();
        let answer = client.join().unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (200, "finished"));
        assert_eq!(answer.set_cookies().len(), 1);
        serving.join().unwrap().unwrap();
    });
}

#[test]
fn what_is_ambiguous_is_answered_400_and_nothing_behind_it_is_run() {
    let ran = Arc::new(AtomicUsize::new(0));
    let (seen, smuggled) = (ran.clone(), ran.clone());
    let mut app = App::new();
    app.body_limit(100);
    app.post("/", move |request: &Request| {
        let _ = request.body();
        seen.fetch_add(1, Ordering::SeqCst);
        "run"
    });
    app.get("/smuggled", move || {
        smuggled.fetch_add(1, Ordering::SeqCst);
        "smuggled"
    });
    app.get("/host", |request: &Request| request.host().unwrap_or("none").to_owned());
    let server = Serving::start(TinyHttp::bind("127.0.0.1:0").unwrap(), app);
    let behind = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let post =
        |fields: &str, body: &str| format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n{body}{behind}");
    let table = [
        // Smuggled: what one reader takes for a body is a request to the other.
        (post("Host: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked", "0\r\n\r\n"), 400),
        (post("Host: a\r\nContent-Length: 5\r\nTransfer-Encoding: identity", "0\r\n\r\n"), 400),
        (post("Host: a\r\nContent-Length: 5\r\nTransfer-Encoding: xchunked", "0\r\n\r\n"), 400),
        (post("Host: a\r\nTransfer-Encoding: xchunked", "0\r\n\r\n"), 400),
        (post("Host: a\r\nTransfer-Encoding: gzip, chunked", "0\r\n\r\n"), 501),
        (
            post(
                "Host: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
                "0\r\n\r\n",
            ),
            400,
        ),
        (post("Host: a\r\nContent-Length: 5\r\nContent-Length: 0", "abcde"), 400),
        (post("Host: a\r\nContent-Length: 0\r\nContent-Length: 47", ""), 400),
        (post("Host: a\r\nContent-Length: 5, 5", ""), 400),
        (post("Host: a\r\nContent-Length: +5", ""), 400),
        (post("Host: a\r\nContent-Length: 0x5", ""), 400),
        (post("Host: a\r\nContent-Length : 5", ""), 400),
        (post("Host: a\r\nX: a\0b", ""), 400),
        // Whom it is for.
        (post("X: y", ""), 400),
        (post("Host: a\r\nHost: b", ""), 400),
        (post("Host: a\r\nhost: a", ""), 400),
        (post("Host: a@evil", ""), 400),
        (post("Host: a/b", ""), 400),
        (format!("CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n{behind}"), 501),
        (format!("GET /#x HTTP/1.1\r\nHost: a\r\n\r\n{behind}"), 400),
        (format!("GET http://a@evil/ HTTP/1.1\r\nHost: a\r\n\r\n{behind}"), 400),
        (format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n{behind}", "x".repeat(9000)), 414),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n{behind}", "X: y\r\n".repeat(200)), 431),
    ];
    for (request, status) in table {
        let mut client = server.client();
        let reply = client.send(&request).reply();
        assert_eq!(reply.status, status, "{request:.150?}");
        // What stood behind it has no answer but perhaps another refusal, and then the connection ends.
        while let Some(reply) = client.try_reply(false) {
            assert_eq!(reply.status, 400, "{request:.150?}");
        }
    }
    assert_eq!(ran.load(Ordering::SeqCst), 0, "requests that were run");
    // A chunked body of which the rest was not read, and one that breaks off in the middle.
    let head = "Host: a\r\nTransfer-Encoding: chunked";
    for body in
        [format!("1000\r\n{}{behind}", "x".repeat(101)), format!("5\r\nabcdeXX\r\n{behind}")]
    {
        let mut client = server.client();
        assert_eq!(client.send(post(head, &body)).reply().status, 200);
        while let Some(reply) = client.try_reply(false) {
            assert_eq!(reply.status, 400, "{body:.150?}");
        }
    }
    assert_eq!(ran.load(Ordering::SeqCst), 2, "requests that were run");
    let mut client = server.client();
    for host in ["Host: a:80", "Host: [::1]"] {
        let get = format!("GET /host HTTP/1.1\r\n{host}\r\n\r\n");
        assert_eq!(client.send(get).reply().text(), &host[6..]);
    }
    let absolute = "GET http://b/host HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(client.send(absolute).reply().text(), "b", "the target's host counts");
    assert_eq!(client.send("GET /host HTTP/1.0\r\n\r\n").reply().text(), "none");
}

#[test]
fn the_port_is_free_some_time_after_the_server_has_ended() {
    let server = TinyHttp::bind("127.0.0.1:0").unwrap();
    let ListenAddress::Tcp(address) = server.address() else { panic!("a TCP address") };
    let shutdown = ShutdownHandle::new();
    shutdown.shutdown();
    server.serve(App::new().build().unwrap(), &shutdown).unwrap();
    // Although there is still a handle to it.
    while std::net::TcpListener::bind(address).is_err() {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(format!("{shutdown:?}"), "ShutdownHandle(Graceful)");
}

#[test]
fn an_address_that_cannot_be_had_is_an_error_that_says_so() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for address in [address.as_str(), "nonsense", "127.0.0.1:99999"] {
        let error = TinyHttp::bind(address).err().expect("cannot listen").to_string();
        assert!(error.starts_with(&format!("cannot listen on {address:?}: ")), "{error}");
    }
}
