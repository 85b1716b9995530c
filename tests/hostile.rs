//! Clients that are slow, broken or mean, against the native server: others are served meanwhile. All of it holds over
//! TLS, too: this file is a module of tests.rs twice.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread::ThreadId;
use std::time::Duration;

use bottle_session::http::StatusCode;
use bottle_session::server::native::Native;
use bottle_session::{App, Batch, HttpError, Json, Plugin, Provided, Provision, Request, Response};

use crate::support::serving::Serving;

const SHORT: Duration = Duration::from_millis(60);

fn bind() -> Native {
    let native = Native::bind("127.0.0.1:0").unwrap();
    #[cfg(feature = "https")]
    if module_path!().ends_with("hostile_over_tls") {
        return crate::support::tls::inside(native);
    }
    native
}

pub fn app() -> App {
    let mut app = App::new();
    app.get("/", || "hello");
    app.post("/ignore", || "ignored");
    app.post("/read", |request: &Request| -> bottle_session::Result<String> {
        let mut reader = request.body_reader()?;
        match std::io::copy(&mut reader, &mut std::io::sink()) {
            Ok(length) => Ok(length.to_string()),
            Err(error) => Ok(format!("broken: {error}")),
        }
    });
    app.post("/body", |request: &Request| request.body().map(|body| body.len().to_string()));
    app.post("/json", |Json(text): Json<String>| text);
    app.post("/copy", |request: &Request| -> bottle_session::Result<String> {
        let mut reader = request.body_reader()?;
        Ok(std::io::copy(&mut reader, &mut std::io::sink())?.to_string())
    });
    app.post("/copy-io", |request: &Request| -> Result<String, HttpError> {
        let mut text = String::new();
        request.body_reader()?.read_to_string(&mut text)?;
        Ok(text.len().to_string())
    });
    app.get("/endless", || Response::stream(std::io::repeat(b'x'), None));
    app.get("/truncated", || Response::stream(&b"abc"[..], Some(5)));
    app.get("/early", || StatusCode::CONTINUE);
    app.get("/last", || Response::text("last").with_header("connection", "Close"));
    app
}

/// A gate that handlers wait at.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<(usize, bool)>, Condvar)>);

impl Gate {
    pub fn pass(&self) {
        let mut state = self.0.0.lock().unwrap();
        state.0 += 1;
        self.0.1.notify_all();
        while !state.1 {
            state = self.0.1.wait(state).unwrap();
        }
    }

    pub fn wait_for(&self, waiting: usize) {
        let mut state = self.0.0.lock().unwrap();
        while state.0 < waiting {
            state = self.0.1.wait(state).unwrap();
        }
    }

    fn waiting(&self) -> usize {
        self.0.0.lock().unwrap().0
    }

    pub fn open(&self) {
        self.0.0.lock().unwrap().1 = true;
        self.0.1.notify_all();
    }
}

fn gated(gate: &Gate) -> App {
    let (mut app, gate) = (app(), gate.clone());
    app.get("/wait", move || {
        gate.pass();
        "passed"
    });
    app
}

#[test]
fn what_is_refused_is_answered_once_and_nothing_behind_it_is_a_request() {
    let server = Serving::start(bind().max_body(1000), app());
    let behind = "GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(3);
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(9000));
    let large = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(70_000));
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(200));
    let post = |fields: &str| format!("POST /ignore HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
    let table = [
        (post("Content-Length: 5\r\nContent-Length: 6"), 400),
        (post("Content-Length: 5\r\nTransfer-Encoding: chunked"), 400),
        (post("Transfer-Encoding: chunked") + "5\nabcde\r\n0\r\n\r\n", 400),
        (post("Transfer-Encoding: chunked") + "-5\r\n", 400),
        (post("Transfer-Encoding: gzip"), 400),
        (post("Transfer-Encoding: gzip, chunked"), 501),
        (post("Transfer-Encoding : chunked"), 400),
        (post("X: a\r\n b"), 400),
        (post("X: a\rb"), 400),
        (post("X: a\0b"), 400),
        (post("Host: b"), 400),
        (post("Expect: the unexpected"), 417),
        (post("Content-Length: 1001"), 413),
        (post("Content-Length: 100000000000"), 413),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/3.0\r\nHost: a\r\n\r\n".to_owned(), 505),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 501),
        ("\x16\x03\x01\0\r\n\r\n".to_owned(), 400),
        (long, 414),
        (large, 431),
        (many, 431),
    ];
    for (request, status) in table {
        let mut client = server.client();
        client.send(format!("{request}{behind}"));
        let reply = client.reply();
        assert_eq!(reply.status, status, "{:?}", &request[..request.len().min(90)]);
        assert_eq!(reply.header("connection"), Some("close"));
        assert!(client.is_closed(), "something else was answered: {request:.90?}");
    }
    assert_eq!(server.client().get("/").text(), "hello");
}

#[test]
fn a_request_in_single_bytes_is_a_request() {
    let server = Serving::start(bind(), app());
    let mut client = server.client();
    client.stream.set_nodelay(true).unwrap();
    let request =
        "POST /read HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    for byte in request.bytes() {
        client.send([byte]);
    }
    assert_eq!(client.reply().text(), "3");
}

#[test]
fn a_client_that_sends_half_a_request_is_told_and_closed() {
    // Long enough for a client on a busy machine to begin.
    let server =
        Serving::start(bind().head_deadline(8 * SHORT).body_rate(1_000_000, 4 * SHORT), app());
    for half in ["GET / HT", "POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc"] {
        let mut client = server.client();
        assert_eq!(client.send(half).reply().status, 408, "{half:?}");
        assert!(client.is_closed());
    }
    let mut silent = server.client();
    assert!(silent.is_closed());
}

#[test]
fn a_streamed_body_that_is_slow_or_long_or_malformed_says_what_its_answer_should_be() {
    let server = bind().body_buffer(2).max_body(50_000).body_rate(1_000_000, 4 * SHORT);
    let server = Serving::start(server, app());
    let chunk = "9c40\r\n".to_owned() + &"x".repeat(40_000) + "\r\n";
    let table = [
        ("Content-Length: 100\r\n\r\nabc", 408, "too slowly"),
        ("Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n64\r\nabc", 408, "too slowly"),
        (&format!("Transfer-Encoding: chunked\r\n\r\n{chunk}{chunk}"), 413, "larger than 50000"),
        ("Transfer-Encoding: chunked\r\n\r\nb\r\nabcdefghijk\r\nx", 400, "malformed"),
    ];
    for (rest, status, why) in table {
        let ask = |target: &str| {
            let mut client = server.client();
            client.send(format!(
                "POST {target} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{rest}"
            ));
            let reply = client.reply();
            assert!(client.is_closed(), "{target} {rest:.60}");
            reply
        };
        for target in ["/body", "/copy", "/copy-io", "/json"] {
            let reply = ask(target);
            assert_eq!(reply.status, status, "{target} {rest:.60}");
            assert!(reply.text().contains(why), "{target} {rest:.60}: {}", reply.text());
        }
        // A handler that looks at the error itself is free to.
        let seen = ask("/read");
        assert!(seen.text().starts_with("broken: ") && seen.text().contains(why), "{seen:?}");
    }
}

#[test]
fn clients_that_send_large_bodies_slowly_leave_threads_for_others() {
    let hour = Duration::from_secs(3600);
    let server = Serving::start(bind().max_threads(2).body_rate(1, hour), app());
    let head = "POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 70000\r\n";
    let mut slow = server.client();
    // Told to go on by the handler that waits for it.
    assert_eq!(slow.send(format!("{head}Expect: 100-continue\r\n\r\n")).reply().status, 100);
    for expect in ["", "Expect: 100-continue\r\n"] {
        let mut another = server.client();
        let reply = another.send(format!("{head}{expect}\r\n")).reply();
        assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")));
        assert!(another.is_closed());
        assert_eq!(server.client().get("/").text(), "hello");
    }
    assert_eq!(slow.send("x".repeat(70_000)).reply().text(), "70000");
    assert_eq!(slow.send(format!("{head}\r\n{}", "x".repeat(70_000))).reply().text(), "70000");
}

#[test]
fn a_chunked_body_that_fits_the_buffer_and_is_longer_than_any_may_be_is_refused() {
    let server = Serving::start(bind().max_body(10), app());
    let ask = |chunks: &str| {
        let mut client = server.client();
        let head = "POST /body HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        client.send(format!("{head}{chunks}0\r\n\r\n")).reply()
    };
    assert_eq!(ask("5\r\nabcde\r\n5\r\nabcde\r\n").text(), "10");
    assert_eq!(ask("5\r\nabcde\r\n6\r\nabcdef\r\n").status, 413);
}

#[test]
fn deadlines_and_limits_may_be_as_long_and_as_large_as_can_be() {
    let endless = Duration::MAX;
    let native = bind()
        .head_deadline(endless)
        .body_rate(u64::MAX, endless)
        .idle_deadline(endless)
        .write_deadline(endless)
        .drain_deadline(endless)
        .max_head(usize::MAX)
        .max_target(usize::MAX)
        .max_fields(usize::MAX)
        .max_body(u64::MAX)
        .max_threads(usize::MAX)
        .max_queue(usize::MAX)
        .max_connections(usize::MAX)
        .active_threads(usize::MAX);
    let server = Serving::start(native, app());
    let mut client = server.client();
    assert_eq!(client.get("/").text(), "hello");
    client.send("POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 70000\r\n\r\n");
    assert_eq!(client.send("x".repeat(70_000)).reply().text(), "70000");
    server.shutdown.shutdown();
    server.join();
}

#[test]
fn an_idle_connection_is_closed_after_its_deadline() {
    let server = Serving::start(bind().idle_deadline(SHORT), app());
    let mut client = server.client();
    assert_eq!(client.get("/").text(), "hello");
    assert!(client.is_closed());
}

#[test]
fn a_client_that_takes_nothing_loses_its_connection() {
    let (sender, dropped) = mpsc::channel();
    let sender = Mutex::new(sender);
    let mut app = app();
    app.get("/watched", move || Response::stream(Watched(sender.lock().unwrap().clone()), None));
    let server = Serving::start(bind().write_deadline(SHORT), app);
    let mut client = server.client();
    client.send("GET /watched HTTP/1.1\r\nHost: a\r\n\r\n");
    // The client reads nothing, and yet the server lets go of the answer.
    dropped.recv().unwrap();
    assert_eq!(server.client().get("/").text(), "hello");
}

/// An endless body that tells when it is dropped.
struct Watched(mpsc::Sender<()>);

impl Read for Watched {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        std::io::repeat(b'x').read(buffer)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

/// Panics when it is dropped.
#[derive(Clone)]
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("on purpose");
    }
}

/// A body that gives so many bytes, or says so of more than there is room for, and holds a bomb.
struct Unsound {
    left: usize,
    _bomb: Option<Bomb>,
}

impl Read for Unsound {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.left == usize::MAX {
            return Ok(buffer.len() + 1);
        }
        let count = self.left.min(buffer.len());
        self.left -= count;
        Ok(count)
    }
}

fn unsound(left: usize, bomb: Option<Bomb>) -> Response {
    Response::stream(Unsound { left, _bomb: bomb }, None)
}

#[test]
fn a_panic_outside_of_handlers_costs_one_answer_and_no_thread_and_no_connection() {
    let mut app = app();
    app.before_request(|request: &mut Request| {
        if request.path() == "/extension" {
            request.extensions_mut().insert(Bomb);
        }
    });
    app.get("/extension", || "dropped");
    app.get("/short", || unsound(10, Some(Bomb)));
    app.get("/long", || unsound(usize::MAX - 1, Some(Bomb)));
    app.get("/greedy", || unsound(usize::MAX, None));
    app.get("/greedy-known", || {
        Response::stream(Unsound { left: usize::MAX, _bomb: None }, Some(10))
    });
    let native = bind().active_threads(1).max_threads(2);
    let server = Serving::start(native.drain_deadline(Duration::from_secs(3600)), app);
    for _ in 0..3 {
        assert_eq!(server.client().get("/short").body, [0; 10]);
        assert_eq!(server.client().get("/extension").status, 500);
        for target in ["/greedy", "/greedy-known"] {
            let mut client = server.client();
            client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
            assert_eq!(client.try_reply(false), None);
        }
        let mut head = server.client();
        head.send("HEAD /short HTTP/1.1\r\nHost: a\r\n\r\n");
        head.try_reply(true);
        // Dropped where connections are closed, while nothing runs.
        let mut left = server.client();
        left.send("GET /long HTTP/1.1\r\nHost: a\r\n\r\n");
        left.stream.read_exact(&mut [0; 1000]).unwrap();
        drop(left);
        assert_eq!(server.client().get("/").text(), "hello");
    }
    // A connection that was forgotten would be waited for.
    server.shutdown.shutdown();
    server.join();
}

#[test]
fn slow_handlers_delay_nobody_and_each_gets_a_thread() {
    let gate = Gate::default();
    let server = Serving::start(bind(), gated(&gate));
    let mut waiting: Vec<_> = (0..200).map(|_| server.client()).collect();
    for client in &mut waiting {
        client.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    gate.wait_for(200);
    for _ in 0..10 {
        assert_eq!(server.client().get("/").text(), "hello");
    }
    gate.open();
    for client in &mut waiting {
        assert_eq!(client.reply().text(), "passed");
        assert_eq!(client.get("/").text(), "hello");
    }
}

pub struct Held;

impl Provided for Held {}

/// A plugin that waits at one gate before it provides, and at another before it takes back.
pub struct Slow(pub Gate, pub Gate);

impl Plugin for Slow {
    fn name(&self) -> &str {
        "slow"
    }

    fn provides(&self) -> Option<Provision> {
        Some(Provision::of::<Held>("held"))
    }

    fn acquire(&self, batch: &mut Batch<'_>) {
        self.0.pass();
        batch.iter_mut().for_each(|mut entry| entry.put(Held));
    }

    fn release(&self, batch: &mut Batch<'_>) {
        self.1.pass();
        batch.iter_mut().for_each(|mut entry| assert!(entry.take::<Held>().is_some()));
    }
}

/// By which thread it was acquired.
struct AcquiredBy(ThreadId);

impl Provided for AcquiredBy {}

/// A plugin that says on which thread it acquired.
struct SaysWhere {
    may_block: bool,
}

impl Plugin for SaysWhere {
    fn name(&self) -> &str {
        "says where"
    }

    fn provides(&self) -> Option<Provision> {
        Some(Provision::of::<AcquiredBy>("acquired"))
    }

    fn may_block(&self) -> bool {
        self.may_block
    }

    fn acquire(&self, batch: &mut Batch<'_>) {
        let thread = std::thread::current().id();
        batch.iter_mut().for_each(|mut entry| entry.put(AcquiredBy(thread)));
    }

    fn release(&self, batch: &mut Batch<'_>) {
        batch.iter_mut().for_each(|mut entry| assert!(entry.take::<AcquiredBy>().is_some()));
    }
}

#[test]
fn only_plugins_that_may_block_run_on_another_thread_than_the_event_loop() {
    for may_block in [true, false] {
        let mut app = app();
        app.install(SaysWhere { may_block }).unwrap();
        app.get("/acquired", |by: &mut AcquiredBy| {
            (by.0 == std::thread::current().id()).to_string()
        });
        let server = Serving::start(bind().active_threads(1), app);
        let mut client = server.client();
        let together = (0..100).filter(|_| client.get("/acquired").text() == "true").count();
        // A busy machine may take the loop from any one of them, and give it to a thread that has just acquired.
        let expected = if may_block { together < 50 } else { together > 0 };
        assert!(expected, "{may_block}: {together} of 100 on one thread");
    }
}

#[test]
fn who_came_while_all_threads_were_blocked_gets_the_first_that_is_free_though_nobody_else_comes() {
    let (acquire, release, handler) = (Gate::default(), Gate::default(), Gate::default());
    release.open();
    handler.open();
    let mut app = gated(&handler);
    app.install(Slow(acquire.clone(), release)).unwrap();
    app.get("/held", |_: &mut Held| "held");
    let server = Serving::start(bind().active_threads(1).max_threads(2), app);
    let ask = |target| {
        let mut client = server.client();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        client
    };
    let mut held = vec![ask("/held")];
    acquire.wait_for(1);
    held.push(ask("/held"));
    acquire.wait_for(2);
    // There is no other thread, neither for these nor for a handler.
    held.push(ask("/held"));
    let mut last = ask("/wait");
    // Longer than the server looks after requests of which none gets on.
    std::thread::sleep(SHORT);
    acquire.open();
    assert_eq!(last.reply().text(), "passed");
    for mut client in held {
        assert_eq!(client.reply().text(), "held");
    }
}

#[test]
fn while_turns_are_lost_and_connections_move_every_request_gets_its_own_answer() {
    let mut app = app();
    app.get("/for/<micros:int>/<name>", |micros: u64, name: &str| {
        // Some handlers wait, some compute, most do neither.
        if micros.is_multiple_of(2) {
            std::thread::sleep(Duration::from_micros(micros));
        } else {
            let begun = std::time::Instant::now();
            while begun.elapsed() < Duration::from_micros(micros) {}
        }
        name.to_owned()
    });
    let server = Serving::start(bind().active_threads(4), app);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let server = &server;
            scope.spawn(move || {
                let mut clients: Vec<_> = (0..8).map(|_| server.client()).collect();
                for round in 0..60 {
                    for (at, client) in clients.iter_mut().enumerate() {
                        let micros = match (round + at) % 8 {
                            0 => 4_000,
                            1 => 1_501,
                            2 => 600,
                            _ => 0,
                        };
                        let name = format!("{thread}-{at}-{round}");
                        let ask = format!("GET /for/{micros}/{name} HTTP/1.1\r\nHost: a\r\n\r\n");
                        // Every third client asks twice at once.
                        client.send(ask.repeat(1 + usize::from(at % 3 == 0)));
                    }
                    for (at, client) in clients.iter_mut().enumerate() {
                        for _ in 0..1 + usize::from(at % 3 == 0) {
                            assert_eq!(client.reply().text(), format!("{thread}-{at}-{round}"));
                        }
                    }
                }
            });
        }
    });
}

/// Requests of all kinds, some from clients that leave early, with hardly a thread to be had: each answer is the
/// one that was asked for or a 503, and in the end no connection is missing.
#[test]
fn at_every_limit_at_once_answers_are_right_and_nothing_gets_lost() {
    let mut app = app();
    app.get("/for/<micros:int>/<name>", |micros: u64, name: &str| {
        std::thread::sleep(Duration::from_micros(micros));
        name.to_owned()
    });
    app.get("/many/<name>", |name: &str| {
        let text = name.repeat(30_000);
        Response::stream(std::io::Cursor::new(text), None)
    });
    let native = bind().max_threads(3).max_queue(3).max_connections(20).active_threads(2);
    let native = native.body_buffer(1000).drain_deadline(Duration::from_secs(3600));
    let server = Serving::start(native, app);
    let served = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..24_usize {
            let (server, served) = (&server, &served);
            scope.spawn(move || {
                for round in 0..200_usize {
                    let name = format!("{thread}-{round}");
                    let (request, expected) = match (thread + 7 * round) % 6 {
                        0 => (format!("GET /for/3000/{name} HTTP/1.1\r\n\r\n"), name),
                        1 => (format!("GET /many/{name} HTTP/1.1\r\n\r\n"), name.repeat(30_000)),
                        2 => {
                            let length = 2000 + round;
                            let head =
                                format!("POST /read HTTP/1.1\r\nContent-Length: {length}\r\n");
                            (format!("{head}\r\n{}", "x".repeat(length)), length.to_string())
                        }
                        3 => {
                            let head = "POST /ignore HTTP/1.1\r\nContent-Length: 1500\r\n";
                            (format!("{head}\r\n{}", "x".repeat(1500)), "ignored".to_owned())
                        }
                        _ => (format!("GET /for/0/{name} HTTP/1.1\r\n\r\n"), name),
                    };
                    let request = request.replacen("\r\n", "\r\nHost: a\r\n", 1);
                    let mut client = server.client();
                    for again in [true, false] {
                        let cut =
                            if round % 5 == 0 { round * 7 % request.len() } else { request.len() };
                        // A refusal can come before all is sent.
                        let _ = client.stream.write_all(&request.as_bytes()[..cut]);
                        if cut < request.len() || round % 11 == 0 {
                            break;
                        }
                        let Some(reply) = client.try_reply(false) else { break };
                        if reply.status != 503 {
                            assert_eq!(reply.text(), expected);
                            served.fetch_add(1, Ordering::Relaxed);
                        }
                        if !again || reply.header("connection") == Some("close") {
                            break;
                        }
                    }
                }
            });
        }
    });
    assert!(served.load(Ordering::Relaxed) > 100, "{served:?}");
    // A connection that was forgotten would be waited for.
    server.shutdown.shutdown();
    server.join();
}

/// A body that waits at a gate, and then has a word.
struct Waiting(Gate, bool);

impl Read for Waiting {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if std::mem::replace(&mut self.1, true) {
            return Ok(0);
        }
        self.0.pass();
        buffer[..4].copy_from_slice(b"word");
        Ok(4)
    }
}

#[test]
fn however_many_streams_wait_health_checks_quick_requests_and_files_pass() {
    let (streams, slow) = (Gate::default(), Gate::default());
    let mut app = gated(&slow);
    let gate = streams.clone();
    app.get("/events", move || Response::stream(Waiting(gate.clone(), false), None));
    app.get("/file", || Response::stream(std::io::repeat(b'x').take(100_000), Some(100_000)));
    // Another thread than the event loop's is to run it, once it has blocked.
    app.get("/sleep", || {
        std::thread::sleep(Duration::from_millis(5));
        "slept"
    });
    let server = Serving::start(bind().max_threads(8).active_threads(1), app);
    let ask = || {
        let mut client = server.client();
        client.send("GET /events HTTP/1.1\r\nHost: a\r\n\r\n");
        client
    };
    // Seven of eight threads wait in them, and those behind have their heads and wait for a thread.
    let mut clients: Vec<_> = (0..7).map(|_| ask()).collect();
    streams.wait_for(7);
    clients.extend((0..33).map(|_| ask()));
    for client in &mut clients {
        let mut head = [0; 15];
        client.stream.read_exact(&mut head).unwrap();
        assert_eq!(&head, b"HTTP/1.1 200 OK");
    }
    for _ in 0..100 {
        assert_eq!(server.client().get("/").text(), "hello");
        assert_eq!(server.client().get("/file").body.len(), 100_000);
    }
    let upload = "POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n";
    let upload = upload.to_owned() + &"x".repeat(100_000);
    for _ in 0..3 {
        assert_eq!(server.client().get("/sleep").text(), "slept");
        let mut client = server.client();
        client.send(&upload);
        assert_eq!(client.reply().text(), "100000");
    }
    assert_eq!(streams.waiting(), 7, "the last thread is not theirs");
    // A handler may have it, and then all wait.
    let mut last = server.client();
    last.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
    slow.wait_for(1);
    streams.open();
    for mut client in clients {
        let mut rest = Vec::new();
        while !rest.ends_with(b"4\r\nword\r\n0\r\n\r\n") {
            let mut byte = [0];
            client.stream.read_exact(&mut byte).unwrap();
            rest.extend(byte);
        }
    }
    slow.open();
    assert_eq!(last.reply().text(), "passed");
}

/// A body that waits at a gate, and tells when it is dropped.
struct Left(Waiting, mpsc::Sender<()>);

impl Read for Left {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        let _ = self.1.send(());
    }
}

#[test]
fn streams_that_wait_for_a_thread_are_bounded_and_let_go_of_when_their_visitors_leave() {
    let (gate, (sender, dropped)) = (Gate::default(), mpsc::channel());
    let (streams, sender) = (gate.clone(), Mutex::new(sender));
    let mut app = app();
    app.get("/events", move || {
        let body = Waiting(streams.clone(), false);
        Response::stream(Left(body, sender.lock().unwrap().clone()), None)
    });
    let server = Serving::start(bind().max_threads(2).max_queue(3).active_threads(1), app);
    let begin = || {
        let mut client = server.client();
        client.send("GET /events HTTP/1.1\r\nHost: a\r\n\r\n");
        client
    };
    let ask = || {
        let (mut client, mut head) = (begin(), [0; 12]);
        client.stream.read_exact(&mut head).unwrap();
        (client, String::from_utf8(head.into()).unwrap())
    };
    let (running, status) = ask();
    assert_eq!(status, "HTTP/1.1 200");
    gate.wait_for(1);
    for _ in 0..3 {
        // Three of these wait, and the others are not kept.
        let begun: Vec<_> = (0..6).map(|_| ask()).collect();
        (0..3).for_each(|_| dropped.recv().unwrap());
        assert_eq!(ask().1, "HTTP/1.1 503");
        dropped.recv().unwrap();
        drop(begun);
        (0..3).for_each(|_| dropped.recv().unwrap());
    }
    // Who leaves before there is an answer is found out, too.
    for _ in 0..3 {
        drop(begin());
        dropped.recv().unwrap();
    }
    assert_eq!(gate.waiting(), 1, "none of them has had a thread");
    let (last, _) = ask();
    gate.open();
    for mut client in [running, last] {
        let mut rest = Vec::new();
        while !rest.ends_with(b"4\r\nword\r\n0\r\n\r\n") {
            let mut byte = [0];
            client.stream.read_exact(&mut byte).unwrap();
            rest.extend(byte);
        }
    }
}

#[test]
fn past_the_last_thread_requests_wait_and_past_the_queue_they_are_refused() {
    let gate = Gate::default();
    let native = bind().max_threads(2).max_queue(1).active_threads(1);
    let server = Serving::start(native, gated(&gate));
    let mut clients: Vec<_> = (0..2).map(|_| server.client()).collect();
    for client in &mut clients {
        client.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    gate.wait_for(2);
    // Both threads wait; one of these is queued, and all others are refused.
    let (sender, replies) = mpsc::channel();
    std::thread::scope(|scope| {
        for mut client in (0..6).map(|_| server.client()) {
            let sender = sender.clone();
            scope.spawn(move || sender.send(client.get("/wait")).unwrap());
        }
        for _ in 0..5 {
            let refused = replies.recv().unwrap();
            assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
        }
        assert_eq!(gate.waiting(), 2, "no third thread was made");
        gate.open();
        assert_eq!(replies.recv().unwrap().text(), "passed");
    });
    for client in &mut clients {
        assert_eq!(client.reply().text(), "passed");
    }
    assert_eq!(server.client().get("/").text(), "hello");
}

#[test]
fn a_thousand_idle_connections_and_disconnects_at_every_byte_harm_nobody() {
    // They are silent from the start, for as long as a slow machine needs.
    let server = Serving::start(bind().head_deadline(Duration::from_secs(3600)), app());
    let idle: Vec<_> = (0..1000).map(|_| TcpStream::connect(server.address).unwrap()).collect();
    let request =
        "POST /read HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let requests = request.repeat(2);
    for cut in 0..=requests.len() {
        for half_closed in [false, true] {
            let mut client = server.client();
            client.send(&requests[..cut]);
            if half_closed {
                client.stream.shutdown(Shutdown::Write).unwrap();
                for _ in 0..cut / request.len() {
                    assert_eq!(client.reply().text(), "3", "{cut}");
                }
                assert!(client.is_closed(), "{cut}");
            }
        }
    }
    for _ in 0..20 {
        let mut client = server.client();
        client.send("GET /endless HTTP/1.1\r\nHost: a\r\n\r\n");
        client.stream.read_exact(&mut [0; 1000]).unwrap();
    }
    for stream in &idle[..20] {
        let mut client = server.talk(stream.try_clone().unwrap());
        assert_eq!(client.get("/").text(), "hello");
    }
}

#[test]
fn a_half_closed_client_gets_its_answer() {
    let server = Serving::start(bind(), app());
    let mut client = server.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.reply().text(), "hello");
    assert!(client.is_closed());
}

#[test]
fn what_refuses_a_head_request_has_no_body() {
    let server = Serving::start(bind().max_body(10), app());
    for (request, status) in [
        ("HEAD / HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("\r\nHEAD / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned(), 400),
        (format!("HEAD /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(9000)), 414),
        ("HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n".to_owned(), 413),
        ("HEAD / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n".to_owned(), 400),
        ("HEAD /early HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 500),
    ] {
        let mut client = server.client();
        let reply = client.send(&request).reply_to_head();
        assert_eq!(reply.status, status, "{request:.60?}");
        assert!(reply.header("content-length").is_some_and(|length| length != "0"));
        assert!(client.is_closed(), "a body behind {request:.60?}");
    }
}

#[test]
fn an_answer_that_cannot_be_completed_is_broken_off() {
    let server = Serving::start(bind(), app());
    let mut client = server.client();
    client.send("GET /truncated HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.try_reply(false), None);
    assert_eq!(server.client().get("/early").status, 500);
}

#[test]
fn a_handler_may_ask_to_close_and_nothing_behind_its_answer_is_a_request() {
    let server = Serving::start(bind(), app());
    let mut client = server.client();
    client.send("GET /last HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let reply = client.reply();
    assert_eq!((reply.text(), reply.header("connection")), ("last", Some("close")));
    assert!(client.is_closed());
}

#[test]
fn a_large_body_that_nobody_reads_ends_the_connection_behind_the_answer() {
    let server = Serving::start(bind(), app());
    let mut client = server.client();
    client.send("POST /ignore HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n");
    client.send(vec![b'G'; 100_000]);
    let reply = client.reply();
    assert_eq!((reply.text(), reply.header("connection")), ("ignored", Some("close")));
    assert!(client.is_closed());
}

#[test]
fn a_second_shutdown_ends_at_once_and_a_first_one_after_its_deadline() {
    for now in [true, false] {
        let gate = Gate::default();
        let server = Serving::start(bind().drain_deadline(SHORT), gated(&gate));
        let mut client = server.client();
        client.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
        gate.wait_for(1);
        server.shutdown.shutdown();
        if now {
            server.shutdown.shutdown_now();
        }
        // Ends although a handler still waits.
        server.join();
        gate.open();
    }
}

#[test]
fn a_shutdown_with_nobody_left_does_not_wait_for_its_deadline() {
    for visited in [false, true] {
        let server = Serving::start(bind().drain_deadline(Duration::from_secs(3600)), app());
        if visited {
            assert_eq!(server.client().get("/").text(), "hello");
        }
        server.shutdown.shutdown();
        server.join();
    }
}

#[test]
fn a_shutdown_closes_what_is_idle_and_answers_what_is_under_way() {
    let gate = Gate::default();
    let server = Serving::start(bind(), gated(&gate));
    let mut idle = server.client();
    assert_eq!(idle.get("/").text(), "hello");
    let mut running = server.client();
    running.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
    gate.wait_for(1);
    server.shutdown.shutdown();
    assert!(idle.is_closed());
    gate.open();
    let reply = running.reply();
    assert_eq!((reply.text(), reply.header("connection")), ("passed", Some("close")));
    drop(running);
    server.join();
}

#[test]
fn trailers_are_bounded_and_never_become_headers() {
    let mut app = app();
    app.post("/headers", |request: &Request| -> bottle_session::Result<String> {
        let text = String::from_utf8_lossy(request.body()?);
        Ok(format!("{text} {:?} {:?}", request.header("host"), request.header("x-admin")))
    });
    let server = Serving::start(bind(), app);
    let request = |trailers: &str| {
        let head = "POST /headers HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        format!("{head}3\r\nabc\r\n0\r\n{trailers}\r\n")
    };
    let mut client = server.client();
    client.send(request("Host: b\r\nX-Admin: yes\r\nConnection: close\r\n"));
    assert_eq!(client.reply().text(), "abc Some(\"a\") None");
    client.send(request(&"X: y\r\n".repeat(100)));
    assert_eq!(client.reply().text(), "abc Some(\"a\") None");
    client.send(request(&"X: y\r\n".repeat(101)));
    assert_eq!(client.reply().status, 431);
    assert!(client.is_closed());
}

#[test]
fn what_is_refused_is_refused_with_the_same_status_in_single_bytes() {
    let server = Serving::start(bind(), app());
    let table = [
        ("GET / HTTP/2.0\r\n", 505),
        ("GET /  HTTP/1.1\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a:80A0\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n", 400),
    ];
    for (request, status) in table {
        let mut client = server.client();
        client.stream.set_nodelay(true).unwrap();
        for byte in request.bytes() {
            client.send([byte]);
        }
        assert_eq!(client.reply().status, status, "{request:?}");
        assert!(client.is_closed());
    }
}
