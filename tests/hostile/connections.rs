//! Connections: deadlines, those that are idle, and what ends them.

use super::*;

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
