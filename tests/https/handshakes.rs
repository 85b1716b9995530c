//! Handshakes that are slow, break off, or fail.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use bottle_session::rustls::ClientConnection;
use bottle_session::rustls::pki_types::ServerName;

use super::{ALERT, GET, HOUR, SHORT, app, bind, client_hello, connect, exchange, raw};
use crate::faults::wait_until;
use crate::support::process::Program;
use crate::support::serving::{Client, Serving};
use crate::support::tls::{self, TlsStream};

/// A greeter with the certificate of all tests, and its log once it has ended.
pub(super) fn greeter(options: &[&str]) -> (Program, std::thread::JoinHandle<String>) {
    let (certificate, key) = (tls::own().text("own.pem"), tls::own().text("own.key"));
    let own = ["--listen", "https://127.0.0.1:0", "--certificate", &certificate, "--key", &key];
    Program::greeter_logging(&[&own[..], options].concat(), None)
}

pub(super) fn client_of(program: &Program) -> Client {
    Client::inside_tls(TcpStream::connect(program.address).unwrap())
}

/// A connection whose client has sent all of its handshake but the last message, and read the server's.
fn without_finished(address: std::net::SocketAddr) -> TcpStream {
    let (mut stream, mut session) = (raw(address), tls::session(&tls::config()));
    session.write_tls(&mut stream).unwrap();
    while session.is_handshaking() {
        session.read_tls(&mut stream).unwrap();
        session.process_new_packets().unwrap();
    }
    stream
}

#[test]
fn a_handshake_that_does_not_go_on_is_ended_by_the_deadline_for_a_head_and_delays_nobody() {
    let server = Serving::start(bind().head_deadline(8 * SHORT), app());
    let hello = client_hello();
    let mut stalled: Vec<TcpStream> = [0, 1, 5, hello.len() / 2, hello.len() - 1]
        .map(|length| {
            let mut stream = raw(server.address);
            stream.write_all(&hello[..length]).unwrap();
            stream
        })
        .into();
    stalled.push(without_finished(server.address));
    assert_eq!(server.client().get("/").text(), "hello");
    for mut stream in stalled {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(!rest.starts_with(b"HTTP"), "no plain answer");
    }
}

#[test]
fn a_byte_now_and_then_does_not_prolong_a_handshake() {
    let server = Serving::start(bind().head_deadline(4 * SHORT), app());
    let stream = raw(server.address);
    stream.set_nodelay(true).unwrap();
    stream.set_nonblocking(true).unwrap();
    // The header of a record that is as long as one can be: there is no end to it.
    (&stream).write_all(&[0x16, 3, 1, 0x3f, 0xff, 1, 0, 0x3f, 0xf0]).unwrap();
    wait_until("the server has enough", || {
        let _ = (&stream).write_all(&[0]);
        let waits = |error: std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
        !(&stream).read(&mut [0; 100]).is_err_and(waits)
    });
    assert_eq!(server.client().get("/").text(), "hello");
}

#[test]
fn two_thousand_half_open_handshakes_keep_nobody_from_being_served_and_everything_comes_back() {
    let native = bind().head_deadline(HOUR).lame_duck(HOUR).drain_deadline(HOUR);
    let server = Serving::start(native, app());
    let hello = client_hello();
    let half_open: Vec<_> = (0..2_000)
        .map(|number| match number % 20 {
            0 => without_finished(server.address),
            even if even % 2 == 0 => raw(server.address),
            _ => {
                let mut stream = raw(server.address);
                stream.write_all(&hello[..number % hello.len()]).unwrap();
                stream
            }
        })
        .collect();
    for _ in 0..10 {
        assert_eq!(server.client().get("/").text(), "hello");
    }
    drop(half_open);
    // One that was forgotten would be waited for.
    server.shutdown.shutdown();
    server.join();
}

#[test]
fn two_thousand_silent_or_half_clients_cost_little_until_the_deadline_takes_their_descriptors() {
    let (program, log) = greeter(&[]);
    assert_eq!(client_of(&program).get("/").status, 200);
    let ((_, files_before), before) = (program.threads_and_files(), program.memory());
    let hello = client_hello();
    let half_open: Vec<_> = (0..2_000)
        .map(|number| {
            let mut stream = raw(program.address);
            stream.write_all(&hello[..number % 2 * hello.len() / 2]).unwrap();
            stream
        })
        .collect();
    assert_eq!(client_of(&program).get("/").status, 200);
    let each = program.memory().saturating_sub(before) / 2_000;
    assert!(each < 8 * 1024, "{each} bytes for each");
    // Nobody leaves: it is the server that has enough.
    wait_until("descriptors come back", || program.threads_and_files().1 <= files_before);
    drop(half_open);
    assert_eq!(client_of(&program).get("/").status, 200);
    program.terminate();
    assert!(!log.join().unwrap().contains("ERROR"));
}

#[test]
fn two_thousand_handshakes_that_are_cut_leave_nothing_behind() {
    let (program, log) = greeter(&[]);
    assert_eq!(client_of(&program).get("/").status, 200);
    let (_, files_before) = program.threads_and_files();
    let hello = client_hello();
    // In clear, as nothing is encrypted yet (RFC 8446 section 6.1).
    let close_notify = [ALERT, 3, 3, 0, 2, 1, 0];
    for number in 0..2_000 {
        let mut stream = raw(program.address);
        let cut = &hello[..number % hello.len()];
        match number % 4 {
            0 => stream.write_all(cut).unwrap(),
            1 => stream.write_all(&[cut, &close_notify[..]].concat()).unwrap(),
            2 => stream.write_all(&[&hello[..], &close_notify[..]].concat()).unwrap(),
            _ => {
                let mut stream = without_finished(program.address);
                let _ = stream.write_all(&close_notify[..number % 8]);
            }
        }
    }
    wait_until("descriptors come back", || program.threads_and_files().1 <= files_before);
    // No thread spins: there is a time in which it uses no core.
    wait_until("it is idle", || {
        let before = program.cpu_ticks();
        std::thread::sleep(Duration::from_millis(100));
        program.cpu_ticks() == before
    });
    assert_eq!(client_of(&program).get("/").status, 200);
    program.terminate();
    let log = log.join().unwrap();
    let loud = log.lines().filter(|line| line.contains("WARN ") && !line.contains("serving "));
    assert_eq!(loud.collect::<Vec<_>>(), [""; 0]);
    assert!(!log.contains("ERROR"));
    assert!(log.contains(" has failed (1 so far): "), "they are counted");
}

#[test]
fn tls_1_0_and_1_1_and_other_protocols_are_refused_with_the_alert_that_says_why() {
    let server = Serving::start(bind(), app());
    // A ClientHello without supported_versions: this is the newest version that it offers.
    let old = |version: u8| {
        let mut body = vec![3, version];
        body.extend([7; 32]);
        body.extend([0, 0, 2, 0xc0, 0x13, 1, 0]);
        let mut hello = vec![0x16, 3, 1, 0, body.len() as u8 + 4, 1, 0, 0, body.len() as u8];
        hello.extend(body);
        hello
    };
    for version in [1, 2] {
        let answer = exchange(server.address, &old(version));
        // protocol_version
        assert_eq!((answer[0], &answer[5..]), (ALERT, &[2, 70][..]), "3.{version}: {answer:?}");
    }
    let offering = |protocols: &[&str]| {
        let mut config = tls::trusting(&tls::own().path("own.pem"));
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let name = ServerName::try_from("localhost").unwrap();
        let session = ClientConnection::new(Arc::new(config), name).unwrap();
        TlsStream::new(raw(server.address), session)
    };
    for (protocols, agreed) in [
        (&[][..], None),
        (&["http/1.1"], Some("http/1.1")),
        (&["h2", "http/1.1"], Some("http/1.1")),
    ] {
        let stream = offering(protocols);
        stream.shake_hands().unwrap();
        let found = stream.session().alpn_protocol().map(<[u8]>::to_vec);
        assert_eq!(found.as_deref(), agreed.map(str::as_bytes), "{protocols:?}");
    }
    for protocols in [&["h2"][..], &["acme-tls/1"], &["h2", "http/1.0"]] {
        let error = offering(protocols).shake_hands().unwrap_err().to_string();
        // 120 (RFC 7301 section 3.2).
        assert!(error.contains("NoApplicationProtocol"), "{protocols:?}: {error}");
    }
}

#[test]
fn a_client_that_came_without_trust_hears_no_reset_but_is_heard() {
    // It refuses the certificate by an alert, which is no reason for anything loud.
    let server = Serving::start(bind(), app());
    let stranger = tls::Folder::new();
    tls::make_certificate(&stranger, "other", 10);
    let config = Arc::new(tls::trusting(&stranger.path("other.pem")));
    for _ in 0..20 {
        let error = TlsStream::connect(server.address, &config).shake_hands().unwrap_err();
        assert!(error.to_string().contains("invalid peer certificate"), "{error}");
    }
    assert_eq!(server.client().get("/").text(), "hello");
}

#[test]
fn the_first_answer_waits_for_no_acknowledgement() {
    let server = Serving::start(bind(), app());
    let fastest = (0..30)
        .map(|_| {
            let begun = std::time::Instant::now();
            let mut stream = connect(&server);
            stream.write_all(GET.as_bytes()).unwrap();
            stream.read_exact(&mut [0; 15]).unwrap();
            begun.elapsed()
        })
        .min();
    // For so long a client may put off its acknowledgement (Linux), and so long Nagle's algorithm would hold an answer
    // back behind tickets.
    assert!(fastest.unwrap() < Duration::from_millis(40), "{fastest:?}");
}

#[test]
fn a_storm_of_handshakes_takes_no_threads_from_handlers() {
    let server = Serving::start(bind().max_threads(2).head_deadline(HOUR), app());
    let mut connected = server.client();
    assert_eq!(connected.get("/").text(), "hello");
    std::thread::scope(|scope| {
        let storm: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..25 {
                        connect(&server).shake_hands().unwrap();
                    }
                })
            })
            .collect();
        while storm.iter().any(|thread| !thread.is_finished()) {
            assert_eq!(connected.get("/").text(), "hello");
        }
    });
}
