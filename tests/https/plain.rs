//! Plain HTTP and other noise on a port of TLS, and TLS on a port of plain HTTP.

use std::io::{Read, Write};

use bottle_session::server::native::Native;

use super::handshakes::{client_of, greeter};
use super::{HOUR, app, bind, client_hello, exchange, raw};
use crate::support::logs::logs_of;
use crate::support::process::Program;
use crate::support::serving::Serving;

#[test]
fn plain_http_on_the_port_of_tls_gets_a_page_that_names_the_https_address() {
    let server = Serving::start(bind().head_deadline(HOUR), app());
    let own = server.address;
    for (request, host) in [
        ("GET / HTTP/1.1\r\nHost: example.org:8443\r\n\r\n", "example.org:8443".to_owned()),
        ("GET /a?b=c HTTP/1.1\r\nHost: example.org\r\n\r\n", "example.org".to_owned()),
        (
            "POST / HTTP/1.1\r\nHost: a\"><script>\r\nContent-Length: 5\r\n\r\nabcde",
            own.to_string(),
        ),
        ("G", own.to_string()),
        ("GET / HTTP/1.0\r\n\r\n", own.to_string()),
    ] {
        let answer = String::from_utf8(exchange(server.address, request.as_bytes())).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{request:?}: {answer}");
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
        let text = format!("\r\n\r\nThis port speaks https: use https://{host}/\n");
        assert!(answer.ends_with(&text), "{request:?}: {answer}");
    }
    let head = exchange(server.address, b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(head.starts_with(b"HTTP/1.1 400 ") && head.ends_with(b"\r\n\r\n"));
    assert_eq!(server.client().get("/").text(), "hello");
}

#[test]
fn what_is_neither_tls_nor_http_is_closed_at_once() {
    let server = Serving::start(bind().head_deadline(HOUR), app());
    for noise in [
        &b"\x00"[..],
        b"\x80\x2e\x01\x03\x01",
        b"SSH-2.0-x\r\n",
        b"\x16HTTP",
        b"\xff\xff",
        b"get /",
    ] {
        let mut stream = raw(server.address);
        stream.write_all(noise).unwrap();
        let mut answer = Vec::new();
        // Nothing but an end is waited for: it comes though the deadline is far.
        let _ = stream.read_to_end(&mut answer);
        let expected = if noise[0] == b'S' { &b"HTTP/1.1 400 "[..] } else { b"" };
        let alert = answer.first() == Some(&super::ALERT);
        assert!(answer.starts_with(expected) || alert, "{noise:?}: {answer:?}");
    }
    assert_eq!(server.client().get("/").text(), "hello");
}

#[test]
fn failures_of_tls_are_lines_for_debugging_only() {
    let (program, log) = greeter(&[]);
    exchange(program.address, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    exchange(program.address, b"\x16\x03\x01\x00\x05hello");
    exchange(program.address, b"\0");
    assert_eq!(client_of(&program).get("/").status, 200);
    program.terminate();
    let log = log.join().unwrap();
    let lines: Vec<_> = log.lines().filter(|line| line.contains(" has failed (")).collect();
    assert_eq!(lines.len(), 3, "{log}");
    for (number, line) in lines.iter().enumerate() {
        assert!(line.contains("DEBUG "), "{line}");
        assert!(line.contains(&format!("has failed ({} so far): ", number + 1)), "{line}");
    }
    assert!(lines[0].ends_with("it speaks plain HTTP"), "{}", lines[0]);
    assert!(lines[2].ends_with("it speaks neither TLS nor HTTP"), "{}", lines[2]);
    assert!(!log.contains("panicked") && !log.contains("WARN bottle_session::server"), "{log}");
}

#[test]
fn tls_on_the_port_of_plain_http_is_closed_with_one_line_that_says_so() {
    let server = Serving::start(Native::bind("127.0.0.1:0").unwrap().head_deadline(HOUR), app());
    for _ in 0..5 {
        let answer = exchange(server.address, &client_hello());
        assert!(answer.starts_with(b"HTTP/1.1 400 "), "{answer:?}");
    }
    assert_eq!(server.client().get("/").text(), "hello");
    let lines = logs_of(" speaks TLS to a port that serves plain http");
    // All other servers of this process that were spoken to so have their own.
    assert!(lines.iter().all(|line| line.starts_with("INFO 127.0.0.1:") && line.is_ascii()));

    let (program, log) = Program::greeter_logging(&[], None);
    for _ in 0..3 {
        exchange(program.address, &client_hello());
    }
    program.terminate();
    let log = log.join().unwrap();
    let loud = log.lines().filter(|line| line.contains(" speaks TLS ") && !line.contains("DEBUG "));
    // Once it begins; "over:" may follow.
    assert_eq!(loud.filter(|line| !line.contains("over: ")).count(), 1, "{log}");
}
