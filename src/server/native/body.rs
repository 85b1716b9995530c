//! A request body that is too large to be held: the handler reads it from the socket.

use std::io::{self, Read};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::StatusCode;

use super::options::Options;
use super::transport::{Received, Transport, Trouble, is_blocked};
use crate::lock::lock;
use crate::server::http1::{BodyDecoder, Refused};
use crate::{Error, HttpError};

/// How often a handler that waits for a body looks whether the server still waits for it.
const SHUTDOWN_CHECK: Duration = Duration::from_millis(200);

/// The body, shared by the handler that reads it and the server that takes its connection back.
#[derive(Clone)]
pub(super) struct SharedBody(Arc<Mutex<Unread>>);

/// What of the body has not been read.
struct Unread {
    /// Gone once the server has it back, as a reader that a handler keeps must not keep the connection; and once the body is
    /// broken.
    transport: Option<Arc<Transport>>,
    decoder: BodyDecoder,
    /// Bytes from the wire that were not decoded yet.
    raw: Vec<u8>,
    /// Decoded bytes that were not read yet, and how many of them were.
    ready: Vec<u8>,
    read: usize,
    /// Whether the client waits to be told to send.
    expects: bool,
    /// When the handler first asked for more than had arrived.
    started: Option<Instant>,
    received: u64,
    options: Arc<Options>,
}

impl SharedBody {
    pub(super) fn new(
        transport: Arc<Transport>,
        decoder: BodyDecoder,
        (raw, ready): (Vec<u8>, Vec<u8>),
        expects: bool,
        options: Arc<Options>,
    ) -> SharedBody {
        SharedBody(Arc::new(Mutex::new(Unread {
            transport: Some(transport),
            decoder,
            raw,
            received: ready.len() as u64,
            ready,
            read: 0,
            expects,
            started: None,
            options,
        })))
    }

    /// Takes the connection back. `Some` holds what arrived behind the body; `None` says that the body
    /// was not read to its end, so that the connection cannot go on.
    pub(super) fn close(&self) -> Option<Vec<u8>> {
        let mut body = lock(&self.0);
        let intact = body.transport.take().is_some() && body.decoder.is_done();
        intact.then(|| std::mem::take(&mut body.raw))
    }
}

impl Read for SharedBody {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut body = lock(&self.0);
        body.read(buffer)
    }
}

impl Unread {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.transport.is_none() {
                let text = "a request's body can be read only until its answer is made";
                return Err(io::Error::new(io::ErrorKind::NotConnected, text));
            }
            let ready = &self.ready[self.read..];
            if !ready.is_empty() || buffer.is_empty() {
                let count = ready.len().min(buffer.len());
                buffer[..count].copy_from_slice(&ready[..count]);
                self.read += count;
                return Ok(count);
            }
            if self.decoder.is_done() {
                return Ok(0);
            }
            self.receive().inspect_err(|_| self.transport = None)?;
        }
    }

    /// Decodes what is there, or waits for more.
    fn receive(&mut self) -> io::Result<()> {
        self.ready.clear();
        self.read = 0;
        if self.raw.is_empty() {
            self.wait()?;
        }
        let before = self.ready.len();
        let step = self
            .decoder
            .decode(&self.raw, &mut self.ready, self.options.body_buffer.max(1))
            .map_err(|Refused(status)| {
                let text = "The request body is malformed.".to_owned();
                refused(io::ErrorKind::InvalidData, status, text)
            })?;
        self.raw.drain(..step.consumed);
        self.received += (self.ready.len() - before) as u64;
        if self.received > self.options.max_body {
            let text = format!("The request body is larger than {} bytes.", self.options.max_body);
            return Err(refused(io::ErrorKind::FileTooLarge, StatusCode::PAYLOAD_TOO_LARGE, text));
        }
        Ok(())
    }

    fn wait(&mut self) -> io::Result<()> {
        let started = *self.started.get_or_insert_with(Instant::now);
        let Some(transport) = self.transport.clone() else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        transport.socket().set_nonblocking(false)?;
        let mut piece = [0; 16 * 1024];
        loop {
            if self.options.cut_off.load(Ordering::SeqCst) {
                let text =
                    "The server shuts down; the rest of the request body did not arrive in time.";
                let status = StatusCode::SERVICE_UNAVAILABLE;
                return Err(refused(io::ErrorKind::ConnectionAborted, status, text.to_owned()));
            }
            let allowed = self.options.body_allowance(self.received);
            let left = allowed.saturating_sub(started.elapsed());
            if left.is_zero() {
                let text = "The request body arrives too slowly.".to_owned();
                return Err(refused(io::ErrorKind::TimedOut, StatusCode::REQUEST_TIMEOUT, text));
            }
            transport.socket().set_timeout(left.min(SHUTDOWN_CHECK))?;
            if std::mem::take(&mut self.expects) {
                transport.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            match transport.receive(&mut piece, &mut self.raw) {
                // A part of a record, perhaps, in which there is nothing to read yet.
                _ if !self.raw.is_empty() => return Ok(()),
                Ok(Received::End) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(Trouble::Io(error)) if is_blocked(&error) => {}
                Err(trouble) => return Err(trouble.into()),
            }
        }
    }
}

/// What a handler that returns the error answers.
fn refused(kind: io::ErrorKind, status: StatusCode, text: String) -> io::Error {
    io::Error::new(kind, Error::from(HttpError::new(status).with_message(text)))
}
