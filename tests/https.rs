//! HTTPS of the native server, by clients of others: openssl, Python's ssl, rustls, Chromium, and bytes on a socket.

mod browser;
mod clients;
mod closing;
mod guide;
mod handshakes;
mod limits;
mod plain;
mod records;
mod redirects;
mod renewal;
mod seam;
mod start;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bottle_session::server::native::Native;
use bottle_session::{App, Request, Response, Scheme};

use crate::support::serving::Serving;
use crate::support::tls::{self, TlsStream};

const SHORT: Duration = Duration::from_millis(60);
const HOUR: Duration = Duration::from_secs(3600);

/// A TLS record with an alert of two bytes, of whichever version.
const ALERT: u8 = 0x15;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const LAST: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

fn bind() -> Native {
    tls::inside(Native::bind("127.0.0.1:0").unwrap())
}

fn app() -> App {
    let mut app = App::new();
    app.get("/", || "hello");
    app.get("/large", || vec![b'z'; 3_000_000]);
    app.get("/stream", || Response::stream(std::io::repeat(b'x').take(100_000), None));
    app.get("/broken", || Response::stream(Broken::default(), None));
    app.get("/number/<number>", |number: &str| number.to_owned());
    app.post("/body", |request: &Request| request.body().map(<[u8]>::to_vec));
    app.post("/count", |request: &Request| -> bottle_session::Result<String> {
        let mut reader = request.body_reader()?;
        Ok(std::io::copy(&mut reader, &mut std::io::sink())?.to_string())
    })
    .body_limit(u64::MAX);
    app.get("/about", |request: &Request| {
        let secure = request.scheme() == Scheme::Https;
        format!("{secure} {}", request.url())
    });
    app
}

/// A body that fails behind its first bytes.
#[derive(Default)]
struct Broken(bool);

impl Read for Broken {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if std::mem::replace(&mut self.0, true) {
            return Err(std::io::Error::other("on purpose"));
        }
        buffer[..3].copy_from_slice(b"abc");
        Ok(3)
    }
}

/// A client that trusts the certificate of all tests.
fn connect(server: &Serving) -> TlsStream {
    let stream = TlsStream::connect(server.address, &tls::config());
    stream.socket().set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    stream
}

/// A connection to the same port without TLS.
fn raw(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    stream
}

/// What a client sends first.
fn client_hello() -> Vec<u8> {
    let mut bytes = Vec::new();
    tls::session(&tls::config()).write_tls(&mut bytes).unwrap();
    bytes
}

/// Sends bytes and reads to the end, which may be a reset.
fn exchange(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = raw(address);
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}
