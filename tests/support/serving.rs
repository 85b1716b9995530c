//! Servers of ours that end with the test, and clients that speak in bytes.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use bottle_session::{App, ListenAddress, Result, Server, ShutdownHandle};

use super::logs::{assert_no_ids, collect_logs};
#[cfg(feature = "https")]
use super::tls::{self, TlsStream};

/// A server on a thread of this test.
pub struct Serving {
    pub address: SocketAddr,
    is_https: bool,
    pub shutdown: ShutdownHandle,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Serving {
    pub fn start(server: impl Server + Send + 'static, app: App) -> Serving {
        collect_logs();
        let (address, is_https) = (server.address(), server.address().is_https());
        let address = address.socket_addr().expect("a TCP address");
        let (service, shutdown) = (app.build().unwrap(), ShutdownHandle::new());
        let handle = shutdown.clone();
        let thread = std::thread::spawn(move || server.serve(service, &handle));
        Serving { address, is_https, shutdown, thread: Some(thread) }
    }

    /// Whether it speaks TLS.
    pub fn is_https(&self) -> bool {
        self.is_https
    }

    pub fn client(&self) -> Client {
        client_of(self.address, self.is_https)
    }

    /// A client on this connection, with TLS where the server speaks that.
    pub fn talk(&self, stream: TcpStream) -> Client {
        if self.is_https { Client::inside_tls(stream) } else { Client::new(stream) }
    }

    /// Waits until the server has ended.
    pub fn join(mut self) {
        self.thread.take().unwrap().join().unwrap().unwrap();
    }
}

/// A client of the server at this address, with TLS where it speaks that.
pub fn client_of(address: SocketAddr, is_https: bool) -> Client {
    let stream = TcpStream::connect(address).expect("the server listens");
    if is_https { Client::inside_tls(stream) } else { Client::new(stream) }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.shutdown.shutdown_now();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        assert_no_ids();
    }
}

/// What a client's bytes travel over.
pub enum Stream {
    Bare(TcpStream),
    #[cfg(feature = "https")]
    Tls(TlsStream),
}

impl Stream {
    pub fn socket(&self) -> &TcpStream {
        match self {
            Stream::Bare(socket) => socket,
            #[cfg(feature = "https")]
            Stream::Tls(stream) => stream.socket(),
        }
    }

    pub fn set_nodelay(&self, on: bool) -> io::Result<()> {
        self.socket().set_nodelay(on)
    }

    pub fn try_clone(&self) -> io::Result<Stream> {
        match self {
            Stream::Bare(socket) => socket.try_clone().map(Stream::Bare),
            #[cfg(feature = "https")]
            Stream::Tls(stream) => Ok(Stream::Tls(stream.clone())),
        }
    }

    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Stream::Bare(socket) => socket.shutdown(how),
            #[cfg(feature = "https")]
            Stream::Tls(stream) => stream.shutdown(how),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Bare(socket) => socket.read(buffer),
            #[cfg(feature = "https")]
            Stream::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Bare(socket) => socket.write(buffer),
            #[cfg(feature = "https")]
            Stream::Tls(stream) => stream.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Bare(socket) => socket.flush(),
            #[cfg(feature = "https")]
            Stream::Tls(stream) => stream.flush(),
        }
    }
}

/// One connection.
pub struct Client {
    pub stream: Stream,
    reader: BufReader<Stream>,
}

#[derive(Debug, PartialEq)]
pub struct Reply {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|header| header.0 == name).map(|header| header.1.as_str())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Client {
    /// A client of a server that listens here, whether it serves already or not.
    pub fn of(address: &ListenAddress) -> Client {
        let stream = TcpStream::connect(address.socket_addr().unwrap()).unwrap();
        if address.is_https() { Client::inside_tls(stream) } else { Client::new(stream) }
    }

    pub fn new(stream: TcpStream) -> Client {
        Client::over(Stream::Bare(stream))
    }

    /// A client that trusts the certificate of all tests.
    #[cfg(feature = "https")]
    pub fn inside_tls(stream: TcpStream) -> Client {
        Client::over(Stream::Tls(TlsStream::new(stream, tls::session(&tls::config()))))
    }

    #[cfg(not(feature = "https"))]
    fn inside_tls(_: TcpStream) -> Client {
        unreachable!("no server speaks TLS")
    }

    pub fn over(stream: Stream) -> Client {
        // A server that never answers fails a test and does not hang it.
        stream.socket().set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        let reader = BufReader::new(stream.try_clone().unwrap());
        Client { stream, reader }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Client {
        self.stream.write_all(bytes.as_ref()).expect("the server reads");
        self
    }

    pub fn get(&mut self, target: &str) -> Reply {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")).reply()
    }

    pub fn reply(&mut self) -> Reply {
        self.try_reply(false).expect("an answer")
    }

    pub fn reply_to_head(&mut self) -> Reply {
        self.try_reply(true).expect("an answer")
    }

    /// The next answer; `None` where the connection is closed instead.
    pub fn try_reply(&mut self, head: bool) -> Option<Reply> {
        let line = self.line()?;
        let status = line.split(' ').nth(1)?.parse().expect("a status");
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut reply = Reply { status, headers, body: Vec::new() };
        if head || [100, 204, 304].contains(&status) {
            return Some(reply);
        }
        if reply.header("transfer-encoding").is_some_and(|value| value == "chunked") {
            loop {
                let size = usize::from_str_radix(&self.line()?, 16).expect("a chunk size");
                let mut chunk = vec![0; size];
                self.reader.read_exact(&mut chunk).ok()?;
                reply.body.extend(chunk);
                assert_eq!(self.line()?, "");
                if size == 0 {
                    return Some(reply);
                }
            }
        }
        match reply.header("content-length").map(|length| length.parse().expect("a length")) {
            Some(length) => {
                reply.body.resize(length, 0);
                self.reader.read_exact(&mut reply.body).ok()?;
            }
            None => drop(self.reader.read_to_end(&mut reply.body)),
        }
        Some(reply)
    }

    /// Whether the server has closed the connection, having sent nothing more.
    pub fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        // A reset is an end, too.
        let _ = self.reader.read_to_end(&mut rest);
        rest.is_empty()
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(line.trim_end().to_owned()),
        }
    }
}
