//! How connections end: with `close_notify`, unless an answer breaks off.

use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{GET, HOUR, LAST, SHORT, app, bind, connect};
use crate::faults::wait_until;
use crate::support::logs::logs_of;
use crate::support::serving::Serving;
use crate::support::tls::TlsStream;

/// Reads to the end, and says whether that was said (`close_notify`).
fn to_the_end(stream: &mut TlsStream) -> (Vec<u8>, bool) {
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => (answer, true),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => (answer, false),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn each_connection_ends_with_close_notify_behind_its_last_answer() {
    let native = bind().max_body(10).idle_deadline(SHORT).head_deadline(8 * SHORT);
    let server = Serving::start(native, app());
    let post = |length: &str| {
        format!("POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n")
    };
    for (request, status) in [
        (LAST.to_owned(), "200"),
        ("not a request\r\n\r\n".to_owned(), "400"),
        (post("11"), "413"),
        ("GET / HT".to_owned(), "408"),
        // Until the connection closes: `close_notify` is the end of the body.
        ("GET /stream HTTP/1.0\r\n\r\n".to_owned(), "200"),
        // Closed by its idle deadline.
        (GET.to_owned(), "200"),
        (GET.repeat(3), "200"),
        (format!("HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n{GET}"), "200"),
    ] {
        let mut stream = connect(&server);
        stream.write_all(request.as_bytes()).unwrap();
        let (answer, said) = to_the_end(&mut stream);
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:.40?}: {answer:.40}");
        assert!(said, "no close_notify behind {request:.40?}");
    }
    // Nothing asked, and its time is over.
    let mut silent = connect(&server);
    silent.shake_hands().unwrap();
    assert_eq!(to_the_end(&mut silent), (Vec::new(), true));
}

#[test]
fn a_shutdown_says_close_notify_to_who_is_idle_and_behind_last_answers() {
    let server = Serving::start(bind().lame_duck(4 * SHORT), app());
    let (mut idle, mut silent, mut asks) = (connect(&server), connect(&server), connect(&server));
    for stream in [&mut idle, &mut asks] {
        stream.write_all(GET.as_bytes()).unwrap();
        let mut answer = [0; 15];
        stream.read_exact(&mut answer).unwrap();
    }
    silent.shake_hands().unwrap();
    server.shutdown.shutdown();
    // Within the time of the lame duck: it is answered, and told that it is the last answer.
    let _ = asks.write_all(GET.as_bytes());
    server.join();
    for stream in [&mut idle, &mut silent] {
        assert!(to_the_end(stream).1);
    }
    let (answer, said) = to_the_end(&mut asks);
    assert!(said && String::from_utf8_lossy(&answer).contains("connection: close"));
}

#[test]
fn an_answer_that_breaks_off_does_not_look_whole() {
    let server = Serving::start(bind(), app());
    for version in ["1.0", "1.1"] {
        let mut stream = connect(&server);
        stream
            .write_all(format!("GET /broken HTTP/{version}\r\nHost: a\r\n\r\n").as_bytes())
            .unwrap();
        let (answer, said) = to_the_end(&mut stream);
        assert!(answer.starts_with(b"HTTP/1.1 200 ") && !said, "HTTP/{version}");
    }
}

#[test]
fn a_client_that_leaves_in_a_head_or_a_body_has_made_no_request_and_no_noise() {
    let handled = Arc::new(AtomicUsize::new(0));
    let (counted, mut app) = (handled.clone(), app());
    app.route(["GET", "POST"], "/left-early", move || {
        counted.fetch_add(1, Ordering::SeqCst);
        "handled"
    });
    let server = Serving::start(bind().head_deadline(HOUR).drain_deadline(HOUR), app);
    let head = "POST /left-early HTTP/1.1\r\nHost: a\r\n";
    for part in [
        "GET /left-early HTTP/1.1\r\nHost: a\r\n",
        &format!("{head}Content-Length: 9\r\n\r\nabc"),
        &format!("{head}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"),
    ] {
        for says_so in [false, true] {
            let mut stream = connect(&server);
            stream.write_all(part.as_bytes()).unwrap();
            if says_so {
                stream.session().send_close_notify();
                stream.flush().unwrap();
            }
            stream.shutdown_socket();
        }
    }
    // Between requests it is the usual thing to do.
    let mut stream = connect(&server);
    stream.write_all(GET.as_bytes()).unwrap();
    stream.read_exact(&mut [0; 15]).unwrap();
    drop(stream);
    server.shutdown.shutdown();
    server.join();
    assert_eq!(handled.load(Ordering::SeqCst), 0);
    assert_eq!(logs_of("left-early"), [""; 0]);
}

#[test]
fn who_says_that_it_sends_no_more_still_gets_its_answer() {
    let server = Serving::start(bind(), app());
    let mut stream = connect(&server);
    stream.write_all(GET.as_bytes()).unwrap();
    stream.session().send_close_notify();
    stream.flush().unwrap();
    let (answer, said) = to_the_end(&mut stream);
    assert!(answer.ends_with(b"hello") && said);
    // Also where it says so and asks in the same record.
    let mut stream = connect(&server);
    stream.shake_hands().unwrap();
    {
        let mut session = stream.session();
        session.writer().write_all(GET.as_bytes()).unwrap();
        session.send_close_notify();
    }
    stream.flush().unwrap();
    let (answer, said) = to_the_end(&mut stream);
    assert!(answer.ends_with(b"hello") && said);
    wait_until("it is served on", || server.client().get("/").status == 200);
}
