//! The adapter for the [`tiny_http`](https://docs.rs/tiny_http/0.12) server.
//!
//! The same app on worker threads over tiny_http 0.12. What the [native](super::native) server refuses, as ambiguous or
//! malformed, is refused here by the same rules (RFC 9112): 400, the connection ends, and nothing behind it is run.
//!
//! Its known limits, none of which an adapter can lift:
//!
//! - there are no read, write or idle time-outs: a slow client holds its connection, and a handler that
//!   waits for its body holds a worker;
//! - keep-alive connections opened in a burst can wait for each other (tiny_http serves each on a thread
//!   of a small pool of its own), and one failed `accept` ends the listener;
//! - a head is in memory whole before its size and the number of its fields are looked at;
//! - spaces around a line of the head are gone before anybody sees them: a field that begins with a space, which to
//!   RFC 9112 section 5.2 goes on with the one before, is a field of its own, and of a request line the words behind the
//!   third are dropped. What tiny_http cannot read at all it answers with its own 400, 417 or 505;
//! - a chunked body is read leniently, and one that is malformed breaks off for the handler that reads it;
//! - away from unix, a connection that is refused is not closed, but left until the client goes.
//!
//! One limit is covered: tiny_http allocates what is left of an unread body in one piece when it drops a
//! request, so that `Content-Length: 100000000000` ends the process. A request that announces more than
//! [`MAX_CONTENT_LENGTH`] is answered 413 and its connection is given up unread.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use http::{StatusCode, header};

use super::http1::{Framing, Head, HeadLimits, Parsed, Refused, parse_head};
use super::{
    ListenAddress, Server, ShutdownHandle, ShutdownStage, cannot_listen, canonical, elsewhere,
};
use crate::lock::lock;
use crate::logging::{ThrottledLog, request_id};
use crate::message::body::RequestBody;
use crate::message::request::Request;
use crate::message::response::{Body, Response};
use crate::pipeline::service::Service;
use crate::{Error, ErrorKind, Result};

/// The longest body that a request may announce: 1 GiB. What a handler reads has its own, smaller limit;
/// see [`App::body_limit`](crate::App::body_limit).
pub const MAX_CONTENT_LENGTH: usize = 1024 * 1024 * 1024;

/// The limits of heads; those that the native server has unless told otherwise.
const HEAD: HeadLimits = HeadLimits { bytes: 64 * 1024, target: 8 * 1024, fields: 100 };

/// For how long what still comes from a connection that was refused is not served: tiny_http has read it by then,
/// as no more comes in.
const REFUSED_FOR: Duration = Duration::from_secs(60);

/// How many worker threads run handlers unless told otherwise.
const DEFAULT_WORKERS: usize = 16;

/// A tiny_http server that listens; see the [module](self) for its limits.
pub struct TinyHttp {
    server: Arc<::tiny_http::Server>,
    address: ListenAddress,
    elsewhere: String,
    workers: usize,
}

impl TinyHttp {
    /// Listens on an address such as `127.0.0.1:8888`; port 0 takes any free one.
    pub fn bind(address: &str) -> Result<TinyHttp> {
        let resolved: Vec<_> =
            address.to_socket_addrs().map_err(|error| cannot_listen(address, error))?.collect();
        let listener = std::net::TcpListener::bind(resolved.as_slice())
            .map_err(|error| cannot_listen(address, error))?;
        let mut bound = TinyHttp::from_listener(listener)?;
        bound.elsewhere = elsewhere(address, &bound.address);
        Ok(bound)
    }

    /// Serves a listener that is bound already.
    pub fn from_listener(listener: std::net::TcpListener) -> Result<TinyHttp> {
        let address = ListenAddress::Tcp(listener.local_addr()?);
        let server = ::tiny_http::Server::from_listener(listener, None)
            .map_err(|error| Error::new(ErrorKind::Io, format!("tiny_http: {error}")))?;
        let (server, elsewhere) = (Arc::new(server), String::new());
        Ok(TinyHttp { server, address, elsewhere, workers: DEFAULT_WORKERS })
    }

    /// How many threads run handlers: 16 unless set; at least one.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> TinyHttp {
        self.workers = workers.max(1);
        self
    }
}

impl Server for TinyHttp {
    fn address(&self) -> ListenAddress {
        self.address.clone()
    }

    fn serve(self, service: Service, shutdown: &ShutdownHandle) -> Result<()> {
        let _serving = service.serving(&self.address, shutdown);
        let (address, elsewhere) = (&self.address, &self.elsewhere);
        log::info!("tiny_http listens on {address}{elsewhere} with {} workers", self.workers);
        // The handle may live on, and must not hold the port.
        let (server, workers) = (Arc::downgrade(&self.server), self.workers);
        shutdown.on_change(move |_| {
            if let Some(server) = server.upgrade() {
                (0..workers).for_each(|_| server.unblock());
            }
        });
        let serving = Workers {
            server: &self.server,
            service: &service,
            receiving: Mutex::default(),
            refused: Mutex::default(),
        };
        std::thread::scope(|scope| {
            for number in 0..self.workers {
                let serving = &serving;
                std::thread::Builder::new()
                    .name(format!("worker-{number}"))
                    .spawn_scoped(scope, move || serving.work(shutdown))?;
            }
            Ok(())
        })
    }
}

struct Workers<'a> {
    server: &'a ::tiny_http::Server,
    service: &'a Service,
    receiving: Mutex<()>,
    refused: Mutex<RefusedClients>,
}

/// The clients whose connections were refused, and since when: tiny_http may have read more requests of theirs.
#[derive(Default)]
struct RefusedClients {
    since: HashMap<SocketAddr, Instant>,
    in_order: VecDeque<(SocketAddr, Instant)>,
}

impl RefusedClients {
    fn holds(&mut self, peer: &SocketAddr) -> bool {
        while let Some((first, since)) = self.in_order.front().copied()
            && since.elapsed() >= REFUSED_FOR
        {
            self.in_order.pop_front();
            if self.since.get(&first) == Some(&since) {
                self.since.remove(&first);
            }
        }
        self.since.contains_key(peer)
    }

    fn insert(&mut self, peer: SocketAddr) {
        let now = Instant::now();
        self.since.insert(peer, now);
        self.in_order.push_back((peer, now));
    }
}

impl Workers<'_> {
    /// One worker: request after request, until the shutdown wakes it.
    fn work(&self, shutdown: &ShutdownHandle) {
        while shutdown.stage() == ShutdownStage::Running {
            match self.receive() {
                Ok((incoming, Ok(head))) => self.answer(incoming, *head),
                Ok((incoming, Err(Refused(status)))) => refuse(incoming, status),
                // What `unblock` wakes a worker with, at shutdown.
                Err(_) if shutdown.stage() != ShutdownStage::Running => return,
                Err(error) => {
                    log::error!("tiny_http stopped accepting: {error}");
                    return shutdown.shutdown();
                }
            }
        }
    }

    /// The next request, and what its head says by the rules of the native server.
    ///
    /// One worker at a time receives and looks: a request is refused before any behind it on its connection is seen.
    fn receive(&self) -> io::Result<(::tiny_http::Request, Result<Box<Head>, Refused>)> {
        let _one = self.receiving.lock();
        let incoming = self.server.recv()?;
        let mut refused = self.refused();
        let peer = incoming.remote_addr().copied();
        let head = match peer.is_some_and(|peer| refused.holds(&peer)) {
            true => Err(Refused(StatusCode::BAD_REQUEST)),
            false => head(&incoming),
        };
        if let (Err(_), Some(peer)) = (&head, peer) {
            refused.insert(peer);
        }
        Ok((incoming, head))
    }

    fn refused(&self) -> MutexGuard<'_, RefusedClients> {
        lock(&self.refused)
    }

    fn answer(&self, incoming: ::tiny_http::Request, head: Head) {
        if incoming.body_length().is_some_and(|length| length > MAX_CONTENT_LENGTH) {
            return give_up(incoming);
        }
        let length = match head.framing {
            Framing::Empty => Some(0),
            Framing::Length(length) => Some(length),
            Framing::Chunked => None,
        };
        let mut request = Request::new(head.method, head.target)
            .with_headers(head.headers)
            .with_version(head.version);
        if let Some(address) = incoming.remote_addr() {
            request = request.with_remote_addr(canonical(*address));
        }
        let shared = SharedBody::of(incoming);
        let reader = Box::new(shared.clone());
        let response =
            self.service.handle(request.with_body(RequestBody::Stream { reader, length }));
        let _guard = request_id::enter(response.request_id());
        let Some(incoming) = shared.reclaim() else { return };
        // Where a chunked body ends is known only to who has read it: to tiny_http the rest would be a request.
        let unread = head.framing == Framing::Chunked && !shared.has_ended();
        let peer = incoming.remote_addr().copied().filter(|_| unread);
        if let Some(peer) = peer {
            self.refused().insert(peer);
        }
        if let Err(error) = incoming.respond(outgoing(response)) {
            log::debug!("the client went away before its answer: {error}");
        }
        peer.into_iter().for_each(end);
    }
}

/// Answers what is no request, and ends its connection: where the next one would begin is not known.
fn refuse(incoming: ::tiny_http::Request, status: StatusCode) {
    log::debug!("refused a request of {:?}: {status}", incoming.remote_addr());
    let peer = incoming.remote_addr().copied();
    let _ = incoming.respond(outgoing(plain(status)));
    peer.into_iter().for_each(end);
}

fn plain(status: StatusCode) -> Response {
    Response::text(format!("{status}\n")).with_status(status)
}

/// Ends the connection of a client, which tiny_http itself does only where the client has asked for it. Its socket is
/// found by the client's address among the files that the process has open.
#[cfg(unix)]
fn end(peer: SocketAddr) {
    use nix::sys::socket::{Shutdown, SockaddrStorage, getpeername, shutdown};
    let is_peer = |address: SockaddrStorage| match peer {
        SocketAddr::V4(peer) => address.as_sockaddr_in().is_some_and(|it| *it == peer.into()),
        SocketAddr::V6(peer) => address.as_sockaddr_in6().is_some_and(|it| *it == peer.into()),
    };
    let files = std::fs::read_dir("/dev/fd").into_iter().flatten().flatten();
    for file in files.filter_map(|file| file.file_name().to_str()?.parse().ok()) {
        if getpeername(file).is_ok_and(is_peer) {
            let _ = shutdown(file, Shutdown::Both);
        }
    }
}

#[cfg(not(unix))]
fn end(_: SocketAddr) {}

/// What clients and handlers can bring about as often as they like.
static REPEATED: LazyLock<ThrottledLog> = LazyLock::new(ThrottledLog::default);

/// Answers a request whose body must not be read, nor dropped: tiny_http would allocate all of it.
fn give_up(incoming: ::tiny_http::Request) {
    REPEATED.log_throttled(log::Level::Warn, "body", || {
        let length = incoming.body_length();
        format!("refused a body of {length:?} bytes and gave its connection up")
    });
    let refused = Response::text("The request body is too large.\n")
        .with_status(StatusCode::PAYLOAD_TOO_LARGE)
        .with_header(header::CONNECTION, "close");
    let peer = incoming.remote_addr().copied();
    let stream = incoming.upgrade("none", outgoing(refused));
    peer.into_iter().for_each(end);
    // Dropping the stream would drop the body's reader and abort the process; a leaked connection is the
    // smaller harm, and the client at least is told that it is over.
    std::mem::forget(stream);
}

/// What the request's line and fields say, written down again as tiny_http has read them.
fn head(incoming: &::tiny_http::Request) -> Result<Box<Head>, Refused> {
    let version = incoming.http_version();
    let line =
        format!("{} {} HTTP/{}.{}\r\n", incoming.method(), incoming.url(), version.0, version.1);
    let mut text = line.into_bytes();
    for field in incoming.headers() {
        text.extend_from_slice(format!("{}: {}\r\n", field.field, field.value).as_bytes());
    }
    text.extend_from_slice(b"\r\n");
    match parse_head(&text, &HEAD)? {
        Parsed::Complete(head) if head.consumed == text.len() => Ok(head),
        _ => Err(Refused(StatusCode::BAD_REQUEST)),
    }
}

fn outgoing(response: Response) -> ::tiny_http::Response<Box<dyn Read + Send>> {
    let (status, headers, body) = response.into_parts();
    let (reader, length): (Box<dyn Read + Send>, Option<usize>) = match body {
        Body::Bytes(bytes) => {
            let length = headers
                .get(header::CONTENT_LENGTH)
                .and_then(|value| value.to_str().ok()?.parse().ok())
                .filter(|_| bytes.is_empty());
            (Box::new(io::Cursor::new(bytes.clone())), Some(length.unwrap_or(bytes.len())))
        }
        Body::Stream { reader, length } => (reader, length.and_then(|n| usize::try_from(n).ok())),
    };
    let headers = headers
        .iter()
        .filter(|(name, _)| *name != header::CONTENT_LENGTH)
        .filter_map(|(name, value)| {
            ::tiny_http::Header::from_bytes(name.as_str().as_bytes(), value.as_bytes())
                .map_err(|()| {
                    REPEATED.log_throttled(log::Level::Warn, name.as_str(), || {
                        format!("tiny_http cannot send header {name}: its value is not ASCII")
                    });
                })
                .ok()
        })
        .collect();
    let status = ::tiny_http::StatusCode(status.as_u16());
    // Never chunked where the length is known.
    ::tiny_http::Response::new(status, headers, reader, length, None)
        .with_chunked_threshold(usize::MAX)
}

/// The body of a request that tiny_http keeps: read through the request itself, while that is there.
#[derive(Clone)]
struct SharedBody(Arc<Mutex<Kept>>);

struct Kept {
    request: Option<::tiny_http::Request>,
    ended: bool,
}

impl SharedBody {
    fn of(request: ::tiny_http::Request) -> SharedBody {
        SharedBody(Arc::new(Mutex::new(Kept { request: Some(request), ended: false })))
    }

    fn reclaim(&self) -> Option<::tiny_http::Request> {
        self.kept().request.take()
    }

    /// Whether it was read to its end.
    fn has_ended(&self) -> bool {
        self.kept().ended
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        lock(&self.0)
    }
}

impl Read for SharedBody {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut kept = self.kept();
        let Some(request) = &mut kept.request else {
            let text = "tiny_http gives a request's body only until its answer is sent";
            return Err(io::Error::new(io::ErrorKind::NotConnected, text));
        };
        let count = request.as_reader().read(buffer)?;
        kept.ended |= count == 0 && !buffer.is_empty();
        Ok(count)
    }
}
