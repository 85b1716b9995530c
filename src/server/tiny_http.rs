//! The adapter for the [`tiny_http`](https://docs.rs/tiny_http/0.12) server.
//!
//! The same app on worker threads over tiny_http 0.12. Its known limits, none of which an adapter can
//! lift:
//!
//! - there are no read, write or idle time-outs: a slow client holds its connection, and a handler that
//!   waits for its body holds a worker;
//! - keep-alive connections opened in a burst can wait for each other (tiny_http serves each on a thread
//!   of a small pool of its own), and one failed `accept` ends the listener;
//! - the size and the number of headers have no limit.
//!
//! One limit is covered: tiny_http allocates what is left of an unread body in one piece when it drops a
//! request, so that `Content-Length: 100000000000` ends the process. A request that announces more than
//! [`MAX_CONTENT_LENGTH`] is answered 413 and its connection is given up unread.

use std::io::{self, Read};
use std::net::ToSocketAddrs;
use std::sync::{Arc, Mutex};

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, StatusCode, Uri, Version};

use super::{ListenAddress, Server, ShutdownHandle, ShutdownStage, cannot_listen};
use crate::message::request::{Request, RequestBody};
use crate::message::response::{Body, HttpError, IntoResponse, Response};
use crate::pipeline::service::Service;
use crate::{Error, ErrorKind, Result};

/// The longest body that a request may announce: 1 GiB. What a handler reads has its own, smaller limit;
/// see [`App::body_limit`](crate::App::body_limit).
pub const MAX_CONTENT_LENGTH: usize = 1024 * 1024 * 1024;

/// How many worker threads run handlers unless told otherwise.
const DEFAULT_WORKERS: usize = 16;

/// A tiny_http server that listens; see the [module](self) for its limits.
pub struct TinyHttp {
    server: Arc<::tiny_http::Server>,
    address: ListenAddress,
    workers: usize,
}

impl TinyHttp {
    /// Listens on an address such as `127.0.0.1:8888`; port 0 takes any free one.
    pub fn bind(address: &str) -> Result<TinyHttp> {
        let resolved: Vec<_> =
            address.to_socket_addrs().map_err(|error| cannot_listen(address, error))?.collect();
        let listener = std::net::TcpListener::bind(resolved.as_slice())
            .map_err(|error| cannot_listen(address, error))?;
        TinyHttp::from_listener(listener)
    }

    /// Serves a listener that is bound already.
    pub fn from_listener(listener: std::net::TcpListener) -> Result<TinyHttp> {
        let address = ListenAddress::Tcp(listener.local_addr()?);
        let server = ::tiny_http::Server::from_listener(listener, None)
            .map_err(|error| Error::new(ErrorKind::Io, format!("tiny_http: {error}")))?;
        Ok(TinyHttp { server: Arc::new(server), address, workers: DEFAULT_WORKERS })
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
        service.serving(&self.address);
        log::info!("tiny_http listens on {} with {} workers", self.address, self.workers);
        // The handle may live on, and must not hold the port.
        let (server, workers) = (Arc::downgrade(&self.server), self.workers);
        shutdown.on_change(move |_| {
            if let Some(server) = server.upgrade() {
                (0..workers).for_each(|_| server.unblock());
            }
        });
        std::thread::scope(|scope| {
            for number in 0..self.workers {
                let (server, service) = (&self.server, &service);
                std::thread::Builder::new()
                    .name(format!("worker-{number}"))
                    .spawn_scoped(scope, move || work(server, service, shutdown))?;
            }
            Ok(())
        })
    }
}

/// One worker: request after request, until the shutdown wakes it.
fn work(server: &::tiny_http::Server, service: &Service, shutdown: &ShutdownHandle) {
    while shutdown.stage() == ShutdownStage::Running {
        match server.recv() {
            Ok(request) => answer(request, service),
            // What `unblock` wakes a worker with, at shutdown.
            Err(_) if shutdown.stage() != ShutdownStage::Running => return,
            Err(error) => {
                log::error!("tiny_http stopped accepting: {error}");
                return shutdown.shutdown();
            }
        }
    }
}

fn answer(incoming: ::tiny_http::Request, service: &Service) {
    if incoming.body_length().is_some_and(|length| length > MAX_CONTENT_LENGTH) {
        return give_up(incoming);
    }
    let head = head(&incoming);
    let length = incoming.body_length().map(|length| length as u64);
    let shared = Arc::new(Mutex::new(Some(incoming)));
    let response = match head {
        Ok(request) => {
            let reader = Box::new(SharedBody(shared.clone()));
            service.handle(request.with_body(RequestBody::Stream { reader, length }))
        }
        Err(error) => plain(error.into_response()),
    };
    let taken = shared.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
    let Some(incoming) = taken else { return };
    if let Err(error) = incoming.respond(outgoing(response)) {
        log::debug!("the client went away before its answer: {error}");
    }
}

/// Answers a request whose body must not be read, nor dropped: tiny_http would allocate all of it.
fn give_up(incoming: ::tiny_http::Request) {
    log::warn!("refused a body of {:?} bytes and gave its connection up", incoming.body_length());
    let refused = Response::text("The request body is too large.\n")
        .with_status(StatusCode::PAYLOAD_TOO_LARGE)
        .with_header(header::CONNECTION, "close");
    let stream = incoming.upgrade("none", outgoing(refused));
    // Dropping the stream would drop the body's reader and abort the process; a leaked connection is the
    // smaller harm.
    std::mem::forget(stream);
}

fn plain(response: Response) -> Response {
    let status = response.status();
    Response::text(format!("{status}\n")).with_status(status)
}

/// The request's line and headers.
fn head(incoming: &::tiny_http::Request) -> Result<Request, HttpError> {
    let bad = |what: &str| HttpError::new(StatusCode::BAD_REQUEST).with_message(what);
    let method = Method::from_bytes(incoming.method().as_str().as_bytes())
        .map_err(|_| bad("not a method"))?;
    let target = if incoming.url() == "*" {
        PathAndQuery::from_static("*")
    } else {
        let uri: Uri = incoming.url().parse().map_err(|_| bad("not a request target"))?;
        uri.path_and_query().cloned().ok_or_else(|| bad("not a request target"))?
    };
    let mut headers = HeaderMap::new();
    for field in incoming.headers() {
        let name = HeaderName::from_bytes(field.field.as_str().as_str().as_bytes())
            .map_err(|_| bad("not a header name"))?;
        let value = HeaderValue::from_bytes(field.value.as_bytes())
            .map_err(|_| bad("not a header value"))?;
        headers.append(name, value);
    }
    let version = match (incoming.http_version().0, incoming.http_version().1) {
        (1, 0) => Version::HTTP_10,
        _ => Version::HTTP_11,
    };
    let request = Request::new(method, target).with_headers(headers).with_version(version);
    Ok(match incoming.remote_addr() {
        Some(address) => request.with_remote_addr(*address),
        None => request,
    })
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
                    log::warn!("tiny_http cannot send header {name}: its value is not ASCII")
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
struct SharedBody(Arc<Mutex<Option<::tiny_http::Request>>>);

impl Read for SharedBody {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut request = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match request.as_mut() {
            Some(request) => request.as_reader().read(buffer),
            None => Err(io::Error::new(
                io::ErrorKind::NotConnected,
                "tiny_http gives a request's body only until its answer is sent",
            )),
        }
    }
}
