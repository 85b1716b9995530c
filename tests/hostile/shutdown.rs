//! Ends of the server: what is finished, cut and closed.

use bottle_session::server::ShutdownStage;
use bottle_session::{Server, ShutdownHandle};

use super::*;
use crate::support::logs::logs_of;

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

/// Counts how often it is closed.
#[derive(Clone, Default)]
struct Closing(Arc<AtomicUsize>);

impl Plugin for Closing {
    fn name(&self) -> &str {
        "closing"
    }

    fn close(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn plugins_are_closed_once_when_the_server_has_ended_whoever_holds_what() {
    let (closing, gate) = (Closing::default(), Gate::default());
    let mut app = gated(&gate);
    app.install(closing.clone()).unwrap();
    let (service, shutdown) = (app.build().unwrap(), ShutdownHandle::new());
    let server = bind().drain_deadline(SHORT);
    let address = server.address().socket_addr().unwrap();
    let serving = {
        let (service, shutdown) = (service.clone(), shutdown.clone());
        std::thread::spawn(move || server.serve(service, &shutdown))
    };
    // A handler that never returns, an answer that never ends, and a clone of the service.
    let mut clients = ["/wait", "/endless"].map(|target| {
        let mut client = crate::support::serving::client_of(address, is_over_tls());
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        client
    });
    gate.wait_for(1);
    clients[1].stream.read_exact(&mut [0; 1000]).unwrap();
    assert_eq!(closing.0.load(Ordering::SeqCst), 0);
    shutdown.shutdown();
    serving.join().unwrap().unwrap();
    assert_eq!(closing.0.load(Ordering::SeqCst), 1);
    gate.open();
    drop(service);
    assert_eq!(closing.0.load(Ordering::SeqCst), 1);
}

#[test]
fn requests_that_are_cut_at_the_end_are_in_the_log() {
    // As many as no other test leaves.
    let count = if is_over_tls() { 21 } else { 22 };
    let line = format!("ended with {count} requests unfinished");
    let gate = Gate::default();
    let server = Serving::start(bind().drain_deadline(SHORT), gated(&gate));
    let mut clients: Vec<_> = (0..count).map(|_| server.client()).collect();
    for client in &mut clients {
        client.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    gate.wait_for(count);
    assert!(logs_of(&line).is_empty());
    server.shutdown.shutdown();
    server.join();
    gate.open();
    assert_eq!(logs_of(&line).len(), 1);
}

#[test]
fn a_stream_hears_that_the_server_stops() {
    let mut app = app();
    app.get("/clock", |shutdown: &ShutdownHandle| {
        let shutdown = shutdown.clone();
        let mut chunks = ["begin ", "end"].into_iter();
        Response::chunks(std::iter::from_fn(move || {
            let chunk = chunks.next()?;
            if chunk == "end" {
                let stage = shutdown.wait_timeout(Duration::from_secs(3600));
                assert_eq!(stage, ShutdownStage::Graceful);
            }
            Some(chunk)
        }))
    });
    let server = Serving::start(bind().drain_deadline(Duration::from_secs(3600)), app);
    let mut client = server.client();
    client.send("GET /clock HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut seen = Vec::new();
    while !seen.ends_with(b"begin \r\n") {
        let mut byte = [0];
        client.stream.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
    server.shutdown.shutdown();
    let mut rest = Vec::new();
    client.stream.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"3\r\nend\r\n0\r\n\r\n");
    server.join();
}
