//! Servers of ours that end with the test, and clients that speak in bytes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use bottle_session::{App, ListenAddress, Result, Server, ShutdownHandle};

use super::logs::{assert_no_ids, collect_logs};

/// A server on a thread of this test.
pub struct Serving {
    pub address: SocketAddr,
    pub shutdown: ShutdownHandle,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Serving {
    pub fn start(server: impl Server + Send + 'static, app: App) -> Serving {
        collect_logs();
        let ListenAddress::Tcp(address) = server.address() else { panic!("a TCP address") };
        let (service, shutdown) = (app.build().unwrap(), ShutdownHandle::new());
        let handle = shutdown.clone();
        let thread = std::thread::spawn(move || server.serve(service, &handle));
        Serving { address, shutdown, thread: Some(thread) }
    }

    pub fn client(&self) -> Client {
        Client::new(TcpStream::connect(self.address).expect("the server listens"))
    }

    /// Waits until the server has ended.
    pub fn join(mut self) {
        self.thread.take().unwrap().join().unwrap().unwrap();
    }
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

/// One connection.
pub struct Client {
    pub stream: TcpStream,
    reader: BufReader<TcpStream>,
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
    pub fn new(stream: TcpStream) -> Client {
        // A server that never answers fails a test and does not hang it.
        stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
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
