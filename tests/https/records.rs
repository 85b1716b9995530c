//! Requests in whatever records and segments.

use std::io::{Read, Write};

use bottle_session::rustls::ClientConnection;

use super::{GET, app, bind, connect, raw};
use crate::support::serving::{Client, Serving, Stream};
use crate::support::tls::{self, TlsStream};

/// The records for these bytes of a request, one for each piece.
fn records<'a>(
    session: &mut ClientConnection,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Vec<u8> {
    let mut wire = Vec::new();
    for piece in pieces {
        session.writer().write_all(piece).unwrap();
        while session.wants_write() {
            session.write_tls(&mut wire).unwrap();
        }
    }
    wire
}

fn client(stream: &TlsStream) -> Client {
    Client::over(Stream::Tls(stream.clone()))
}

#[test]
fn a_request_in_the_same_segment_as_the_end_of_the_handshake_is_answered() {
    let server = Serving::start(bind(), app());
    for _ in 0..20 {
        let (mut socket, mut session) = (raw(server.address), tls::session(&tls::config()));
        session.write_tls(&mut socket).unwrap();
        while session.is_handshaking() {
            session.read_tls(&mut socket).unwrap();
            session.process_new_packets().unwrap();
        }
        // Finished waits to be sent; the request goes with it.
        session.writer().write_all(GET.as_bytes()).unwrap();
        let mut wire = Vec::new();
        while session.wants_write() {
            session.write_tls(&mut wire).unwrap();
        }
        socket.write_all(&wire).unwrap();
        let stream = TlsStream::new(socket, session);
        assert_eq!(client(&stream).reply().text(), "hello");
    }
}

#[test]
fn four_hundred_requests_in_one_record_and_one_in_records_of_a_byte_are_answered_in_order() {
    let server = Serving::start(bind(), app());
    let stream = connect(&server);
    stream.shake_hands().unwrap();
    let many: String =
        (0..400).map(|n| format!("GET /number/{n} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    // No longer than a record can be.
    let (first, second) = many.split_at(many.len() / 2);
    let wire = records(&mut stream.session(), [first.as_bytes(), second.as_bytes()]);
    stream.socket().write_all(&wire).unwrap();
    let mut answers = client(&stream);
    for n in 0..400 {
        assert_eq!(answers.reply().text(), n.to_string());
    }
    let wire = records(&mut stream.session(), GET.as_bytes().chunks(1));
    stream.socket().write_all(&wire).unwrap();
    assert_eq!(answers.reply().text(), "hello");
    // A record of which each byte is a segment of its own.
    stream.socket().set_nodelay(true).unwrap();
    let wire = records(&mut stream.session(), [GET.as_bytes()]);
    for byte in wire {
        stream.socket().write_all(&[byte]).unwrap();
    }
    assert_eq!(answers.reply().text(), "hello");
}

#[test]
fn a_handshake_of_single_bytes_is_one() {
    let server = Serving::start(bind(), app());
    let (mut socket, mut session) = (raw(server.address), tls::session(&tls::config()));
    socket.set_nodelay(true).unwrap();
    session.writer().write_all(GET.as_bytes()).unwrap();
    while session.is_handshaking() || session.wants_write() {
        let mut wire = Vec::new();
        while session.wants_write() {
            session.write_tls(&mut wire).unwrap();
        }
        for byte in wire {
            socket.write_all(&[byte]).unwrap();
        }
        if session.is_handshaking() {
            session.read_tls(&mut socket).unwrap();
            session.process_new_packets().unwrap();
        }
    }
    assert_eq!(client(&TlsStream::new(socket, session)).reply().text(), "hello");
}

#[test]
fn bodies_of_every_length_around_a_record_and_a_buffer_arrive_while_large_answers_leave() {
    let server = Serving::start(bind(), app());
    let mut lengths = vec![0, 1, 100_000, 5_000_000];
    for edge in [4096, 16_384, 2 * 16_384, 64 * 1024, 5 * 16_384] {
        lengths.extend(edge - 2..=edge + 2);
    }
    let stream = connect(&server);
    stream.shake_hands().unwrap();
    let sending = lengths.clone();
    let sender = stream.clone();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for length in sending {
                let head =
                    format!("POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
                // Records before they are sent: the other thread may have what it receives meanwhile.
                let mut request = head.into_bytes();
                request.resize(request.len() + length, b'x');
                request.extend(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
                for piece in request.chunks(16_000) {
                    let wire = records(&mut sender.session(), [piece]);
                    sender.socket().write_all(&wire).unwrap();
                }
            }
        });
        // Reads without holding the session while it waits.
        let (mut received, mut wire) = (Vec::new(), [0; 16 * 1024]);
        let mut socket = stream.socket().try_clone().unwrap();
        let mut expected = lengths.iter();
        while expected.len() > 0 {
            let count = socket.read(&mut wire).unwrap();
            assert!(count > 0, "the server has closed");
            let mut bytes = &wire[..count];
            while !bytes.is_empty() {
                let mut session = stream.session();
                session.read_tls(&mut bytes).unwrap();
                session.process_new_packets().unwrap();
                let _ = session.reader().read_to_end(&mut received);
            }
            while let Some(length) = first_answers(&mut received) {
                assert_eq!(Some(&length), expected.next());
            }
        }
    });
}

/// Takes the answers to a POST and to the GET behind it, once they are whole; what the first one says.
fn first_answers(received: &mut Vec<u8>) -> Option<usize> {
    let (end, body) = answer(received, 0)?;
    let (end, large) = answer(received, end).filter(|(_, body)| body.len() == 3_000_000)?;
    assert!(large.iter().all(|byte| *byte == b'z'));
    let said = std::str::from_utf8(body).unwrap().parse().unwrap();
    received.drain(..end);
    Some(said)
}

/// The body of the answer that begins here, and where that ends.
fn answer(received: &[u8], begin: usize) -> Option<(usize, &[u8])> {
    let rest = received.get(begin..)?;
    let head = rest.windows(4).take(4096).position(|bytes| bytes == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&rest[..head]).unwrap();
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let length: usize = length.parse().unwrap();
    let body = rest.get(head..head + length)?;
    Some((begin + head + length, body))
}

#[test]
fn keys_that_are_updated_by_the_client_are_followed() {
    let server = Serving::start(bind(), app());
    let stream = connect(&server);
    let mut asks = client(&stream);
    for _ in 0..5 {
        assert_eq!(asks.get("/").text(), "hello");
        stream.session().refresh_traffic_keys().unwrap();
    }
    let body = "x".repeat(200_000);
    asks.send(format!("POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len()));
    for piece in body.as_bytes().chunks(50_000) {
        stream.session().refresh_traffic_keys().unwrap();
        asks.send(piece);
    }
    assert_eq!(asks.reply().text(), "200000");
}

#[test]
fn what_is_not_a_record_of_this_connection_ends_it_with_an_alert() {
    let server = Serving::start(bind(), app());
    let stream = connect(&server);
    let mut asks = client(&stream);
    assert_eq!(asks.get("/").text(), "hello");
    let mut forged = records(&mut stream.session(), [GET.as_bytes()]);
    *forged.last_mut().unwrap() ^= 1;
    stream.socket().write_all(&forged).unwrap();
    let mut rest = Vec::new();
    let error = stream.clone().read_to_end(&mut rest).unwrap_err().to_string();
    assert!(rest.is_empty() && error.contains("BadRecordMac"), "{error}");
}
