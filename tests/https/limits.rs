//! What the plain server promises, with TLS: limits, sockets of systemd, the lame duck.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use bottle_session::server::native::Native;
use bottle_session::{App, Request, SessionPlugin};

use super::{GET, HOUR, app, bind, connect, raw};
use crate::faults::wait_until;
use crate::support::logs::logs_of;
use crate::support::process::Program;
use crate::support::serving::{Client, Serving};
use crate::support::tls;

#[test]
fn a_connection_past_the_limit_is_closed_without_a_plain_byte() {
    let server = Serving::start(bind().max_connections(2), app());
    let mut kept = [server.client(), server.client()];
    assert!(kept.iter_mut().all(|client| client.get("/").status == 200));
    let mut beyond = raw(server.address);
    let mut answer = Vec::new();
    let _ = beyond.read_to_end(&mut answer);
    assert_eq!(answer, b"");
    assert!(connect(&server).shake_hands().is_err());
    assert_eq!(kept[0].get("/").text(), "hello");
    drop(kept);
    wait_until("there is room again", || connect(&server).shake_hands().is_ok());
}

#[test]
fn in_its_last_seconds_a_server_shakes_hands_with_who_was_accepted_and_answers() {
    let server = Serving::start(bind().lame_duck(HOUR).head_deadline(HOUR), app());
    let (silent, mut half_head) = (connect(&server), connect(&server));
    half_head.write_all(&GET.as_bytes()[..10]).unwrap();
    server.shutdown.shutdown();
    wait_until("nobody listens", || TcpStream::connect(server.address).is_err());
    let mut silent = Client::over(crate::support::serving::Stream::Tls(silent));
    let reply = silent.get("/");
    assert_eq!((reply.text(), reply.header("connection")), ("hello", Some("close")));
    half_head.write_all(&GET.as_bytes()[10..]).unwrap();
    let mut answer = Vec::new();
    half_head.read_to_end(&mut answer).unwrap();
    assert!(answer.ends_with(b"hello"));
    drop(silent);
    server.join();
}

#[test]
fn handshakes_that_are_under_way_at_the_cut_off_are_closed() {
    let server = Serving::start(
        bind().lame_duck(super::SHORT).head_deadline(HOUR).drain_deadline(HOUR),
        app(),
    );
    let silent = raw(server.address);
    let mut half = raw(server.address);
    half.write_all(&super::client_hello()[..50]).unwrap();
    let handshaken = connect(&server);
    handshaken.shake_hands().unwrap();
    server.shutdown.shutdown();
    server.join();
    for mut stream in [silent, half] {
        let _ = stream.read_to_end(&mut Vec::new());
    }
}

#[test]
fn a_socket_that_systemd_passes_on_is_served_with_tls() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let early = TcpStream::connect(address).unwrap();
    let (certificate, key) = (tls::own().text("own.pem"), tls::own().text("own.key"));
    let options = ["--listen", "https://systemd", "--certificate", &certificate, "--key", &key];
    for early in [Some(early), None] {
        let program = Program::greeter_handed_with(listener.try_clone().unwrap(), &options);
        let stream = early.unwrap_or_else(|| TcpStream::connect(address).unwrap());
        assert_eq!(Client::inside_tls(stream).get("/").status, 200);
        assert!(program.terminate().success());
    }
}

#[test]
fn a_server_over_tls_says_https_in_its_address_its_requests_and_its_cookies() {
    let native = bind().trusted_proxies(["127.0.0.1"]).unwrap();
    let mut app = app();
    app.install(SessionPlugin::new().in_memory()).unwrap();
    app.get("/set", |session: &mut bottle_session::Session| session.set("name", "Ada"));
    app.get("/seen", |request: &Request| format!("{:?} {}", request.scheme(), request.url()));
    let server = Serving::start(native, app);
    wait_until("it says where it listens", || {
        !logs_of(&format!("INFO listens on https://{} with", server.address)).is_empty()
    });
    let ask = |path: &str, fields: &str| {
        let mut client = server.client();
        client
            .send(format!("GET {path} HTTP/1.1\r\nHost: example.org:8443\r\n{fields}\r\n"))
            .reply()
    };
    let cookie = |fields: &str| {
        ask("/set", fields).header("set-cookie").unwrap().split("; ").any(|part| part == "Secure")
    };
    for (fields, seen) in [
        ("", "Https https://example.org:8443/seen?a=b"),
        ("X-Forwarded-Proto: https\r\n", "Https https://example.org:8443/seen?a=b"),
        ("X-Forwarded-Proto: http\r\n", "Http http://example.org:8443/seen?a=b"),
        ("X-Forwarded-Proto: gopher\r\n", "Https https://example.org:8443/seen?a=b"),
    ] {
        assert_eq!(ask("/seen?a=b", fields).text(), seen, "{fields:?}");
        assert_eq!(cookie(fields), seen.starts_with("Https"), "{fields:?}");
    }
    let plain = Native::bind("127.0.0.1:0").unwrap();
    let mut app = App::new();
    app.get("/seen", |request: &Request| format!("{:?} {}", request.scheme(), request.url()));
    let plain = Serving::start(plain, app);
    assert_eq!(plain.client().get("/seen").text(), "Http http://a/seen");
    let old = plain.client().send("GET /seen HTTP/1.0\r\n\r\n").reply();
    assert_eq!(old.text(), "Http /seen");
}
