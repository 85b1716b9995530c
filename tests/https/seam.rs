//! Requests in records and segments of random lengths are answered as they are without TLS.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::{app, bind, raw};
use crate::support::serving::Serving;
use crate::support::tls::{self, TlsStream};
use bottle_session::server::native::Native;

/// xorshift64: the same numbers in each run, unless another seed is given.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }

    /// Mostly small, sometimes large.
    fn length(&mut self, largest: usize) -> usize {
        let bits = self.below(largest.ilog2() as usize + 1);
        1 + self.below(1 << bits)
    }

    fn requests(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        for _ in 0..1 + self.below(6) {
            let length = self.length(90_000);
            let body = vec![b'a' + self.below(26) as u8; length];
            let head = match self.below(6) {
                0 => format!("GET /number/{length} HTTP/1.1\r\nHost: a\r\n\r\n"),
                1 => "GET /stream HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
                2 => "HEAD /large HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
                3 => format!("POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"),
                4 => format!("POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"),
                _ => "POST /count HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                    .to_owned(),
            };
            let (is_post, chunked) = (head.starts_with("POST"), head.contains("chunked"));
            all.extend(head.into_bytes());
            if chunked {
                for chunk in body.chunks(self.length(30_000)) {
                    all.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
                    all.extend(chunk);
                    all.extend(b"\r\n");
                }
                all.extend(b"0\r\n\r\n");
            } else if is_post {
                all.extend(body);
            }
        }
        // What ends it: a last request, or what is none.
        all.extend(match self.below(3) {
            0 => &b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n"[..],
            _ => b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        });
        all
    }

    /// Sends the bytes in segments, and sometimes waits for them to arrive.
    fn send(&mut self, mut socket: &TcpStream, mut bytes: &[u8]) {
        let largest = self.length(100_000);
        while !bytes.is_empty() {
            let (segment, rest) = bytes.split_at(self.length(largest).min(bytes.len()));
            if socket.write_all(segment).is_err() {
                return;
            }
            if self.below(40) == 0 {
                std::thread::sleep(Duration::from_micros(300));
            }
            bytes = rest;
        }
    }
}

/// An answer without what changes from second to second.
fn without_dates(answers: &[u8]) -> String {
    let text = String::from_utf8_lossy(answers);
    let lines = text.split("\r\n").filter(|line| !line.starts_with("date: "));
    lines.collect::<Vec<_>>().join("\r\n")
}

#[test]
fn in_any_records_and_segments_requests_are_answered_as_without_tls() {
    let seeds = if std::env::var_os("BOTTLE_SESSION_LONG").is_some() { 3_000 } else { 25 };
    let plain = Serving::start(Native::bind("127.0.0.1:0").unwrap().body_buffer(20_000), app());
    let secure = Serving::start(bind().body_buffer(20_000), app());
    for seed in 1..=seeds {
        let mut random = Random(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        let requests = random.requests();

        let socket = raw(plain.address);
        socket.set_nodelay(true).unwrap();
        let mut expected = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(|| Random(seed).send(&socket, &requests));
            let _ = (&socket).read_to_end(&mut expected);
        });

        let stream = TlsStream::new(raw(secure.address), tls::session(&tls::config()));
        stream.socket().set_nodelay(true).unwrap();
        stream.shake_hands().unwrap();
        let (mut wire, mut rest) = (Vec::new(), &requests[..]);
        let largest = random.length(16_384);
        {
            let mut session = stream.session();
            session.set_buffer_limit(None);
            while !rest.is_empty() {
                let (record, behind) = rest.split_at(random.length(largest).min(rest.len()));
                session.writer().write_all(record).unwrap();
                rest = behind;
                if random.below(50) == 0 {
                    session.refresh_traffic_keys().unwrap();
                }
                while session.wants_write() {
                    session.write_tls(&mut wire).unwrap();
                }
            }
        }
        let mut answered = Vec::new();
        let socket = stream.socket();
        std::thread::scope(|scope| {
            scope.spawn(|| random.send(socket, &wire));
            let (mut session, mut buffer) = (stream.session(), [0; 16 * 1024]);
            let mut receiver = socket.try_clone().unwrap();
            loop {
                let count = receiver.read(&mut buffer).unwrap_or(0);
                let mut bytes = &buffer[..count];
                while !bytes.is_empty() {
                    session.read_tls(&mut bytes).unwrap();
                    session.process_new_packets().unwrap();
                    let _ = session.reader().read_to_end(&mut answered);
                    if session.process_new_packets().unwrap().peer_has_closed() {
                        return;
                    }
                }
                assert!(count > 0, "seed {seed}: no close_notify");
            }
        });
        assert!(without_dates(&answered) == without_dates(&expected), "seed {seed}");
    }
}
