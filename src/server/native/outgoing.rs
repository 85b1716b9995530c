//! An answer on its way to the client, as far as the socket takes it.

use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::LazyLock;

use bytes::Bytes;
use http::{StatusCode, Version};

use super::transport::{Sent, Transport};
use crate::logging::request_id::{self, RequestId};
use crate::logging::{OneLine, ThrottledLog};
use crate::message::response::{Body, Response};
use crate::server::http1::{ChunkEnd, Delivery, push_chunk, refusal, write_head};

/// Bodies up to this size are copied behind the head: one write is cheaper than two.
const COPIED: usize = 16 * 1024;

/// How much of a streamed body is read at a time.
const PIECE: usize = 32 * 1024;

/// What is still to be sent.
pub(super) struct Outgoing {
    buffer: Vec<u8>,
    sent: usize,
    /// A body too large to be copied.
    body: Bytes,
    source: Option<Source>,
    pub(super) keep_alive: bool,
}

/// A body that is read while it is sent.
struct Source {
    reader: Box<dyn Read + Send>,
    /// Of the request that it answers.
    request_id: Option<RequestId>,
    /// How much must still come, where that was promised.
    left: Option<u64>,
    chunked: bool,
}

impl Drop for Source {
    /// A panic in the body's own `drop` must not reach the worker of an event loop.
    fn drop(&mut self) {
        let _guard = request_id::enter(self.request_id.as_ref());
        let reader = std::mem::replace(&mut self.reader, Box::new(io::empty()));
        if catch_unwind(AssertUnwindSafe(|| drop(reader))).is_err() {
            log::error!("the body of an answer panicked when it was dropped");
        }
    }
}

/// Whom an answer is for.
#[derive(Clone, Copy)]
pub(super) struct Audience {
    pub(super) version: Version,
    pub(super) head: bool,
    pub(super) keep_alive: bool,
}

impl Outgoing {
    pub(super) fn new(response: Response, audience: Audience) -> Outgoing {
        let request_id = response.request_id().cloned();
        let (status, headers, body) = response.into_parts();
        if status.is_informational() {
            log::error!("{status} cannot be an answer; sent is a 500");
            return Outgoing::refusal(StatusCode::INTERNAL_SERVER_ERROR, audience.head, None);
        }
        let length = match &body {
            // What `Response` keeps of the body that a HEAD request does not get.
            Body::Bytes(bytes) if bytes.is_empty() && audience.head => headers
                .get(http::header::CONTENT_LENGTH)
                .and_then(|value| value.to_str().ok()?.parse().ok()),
            Body::Bytes(bytes) => Some(bytes.len() as u64),
            Body::Stream { length, .. } => *length,
        };
        let delivery = Delivery::of(status, audience.head, audience.version, length);
        let said_close = headers
            .get(http::header::CONNECTION)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"));
        let keep_alive = audience.keep_alive && delivery != Delivery::UntilClose && !said_close;
        let copied = match &body {
            Body::Bytes(bytes) if bytes.len() <= COPIED => bytes.len(),
            _ => 0,
        };
        let mut buffer = Vec::with_capacity(384 + copied);
        write_head(&mut buffer, status, &headers, delivery, audience.version, keep_alive);
        let mut outgoing =
            Outgoing { buffer, sent: 0, body: Bytes::new(), source: None, keep_alive };
        match body {
            _ if !delivery.has_body() => {}
            Body::Bytes(bytes) if bytes.len() <= COPIED => {
                outgoing.buffer.extend_from_slice(&bytes);
            }
            Body::Bytes(bytes) => outgoing.body = bytes,
            Body::Stream { reader, length } => {
                let chunked = delivery == Delivery::Chunked;
                outgoing.source = Some(Source { reader, request_id, left: length, chunked });
            }
        }
        outgoing
    }

    /// The server's own answer to what cannot be served, with this text or its status as one; the connection closes behind
    /// it.
    pub(super) fn refusal(status: StatusCode, head: bool, text: Option<&str>) -> Outgoing {
        Outgoing {
            buffer: refusal(status, head, text),
            sent: 0,
            body: Bytes::new(),
            source: None,
            keep_alive: false,
        }
    }

    /// Whether all is sent that was read of the body, and there is more to read.
    pub(super) fn needs_more(&self) -> bool {
        self.sent == self.buffer.len() && self.body.is_empty() && self.source.is_some()
    }

    /// Whether what is still to be read of the body may be long in coming: events, for one. Of a file, or of anything
    /// else that is there already, the length is known.
    pub(super) fn may_wait(&self) -> bool {
        self.source.as_ref().is_some_and(|source| source.left.is_none())
    }

    /// Sends what is there, without blocking.
    pub(super) fn flush(&mut self, transport: &Transport) -> io::Result<Sent> {
        let mut some = false;
        loop {
            let in_buffer = self.sent < self.buffer.len();
            let rest = if in_buffer { &self.buffer[self.sent..] } else { &self.body[..] };
            if rest.is_empty() {
                break;
            }
            match transport.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) if in_buffer => (self.sent, some) = (self.sent + count, true),
                Ok(count) => {
                    some = true;
                    let _ = self.body.split_to(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Sent::Blocked { some });
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let whole = self.source.is_none();
        if whole && !self.keep_alive {
            transport.say_last();
        }
        match transport.flush()? {
            Sent::Blocked { some: more } => Ok(Sent::Blocked { some: some || more }),
            _ if whole => Ok(Sent::All),
            _ => Ok(Sent::NeedsMore),
        }
    }

    /// Sends, and reads the body meanwhile; for threads that may block.
    pub(super) fn send(&mut self, transport: &Transport) -> io::Result<Sent> {
        loop {
            match self.flush(transport)? {
                Sent::NeedsMore => self.refill()?,
                sent => return Ok(sent),
            }
        }
    }

    /// Reads the next piece of the body.
    fn refill(&mut self) -> io::Result<()> {
        let Some(source) = &mut self.source else { return Ok(()) };
        let _guard = request_id::enter(source.request_id.as_ref());
        let mut piece = vec![0; PIECE];
        let room = source.left.map_or(PIECE, |left| left.min(PIECE as u64) as usize);
        let count = match room {
            0 => 0,
            room => read(&mut source.reader, &mut piece[..room])?,
        };
        self.buffer.clear();
        self.sent = 0;
        match &mut source.left {
            Some(left) if count == 0 && *left > 0 => {
                let text = format!("the body of an answer ended {left} bytes too early");
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
            }
            Some(left) => *left -= count as u64,
            None => {}
        }
        if source.chunked {
            let end = if count == 0 { ChunkEnd::Last } else { ChunkEnd::More };
            push_chunk(&mut self.buffer, &piece[..count], end);
        } else {
            self.buffer.extend_from_slice(&piece[..count]);
        }
        if count == 0 || source.left == Some(0) {
            self.source = None;
        }
        Ok(())
    }
}

/// Reads from what an app gave; a panic there breaks this answer off and nothing else.
fn read(reader: &mut Box<dyn Read + Send>, buffer: &mut [u8]) -> io::Result<usize> {
    // What answers are read from may be down for all of them.
    static REPEATED: LazyLock<ThrottledLog> = LazyLock::new(ThrottledLog::default);
    let error = loop {
        let read = catch_unwind(AssertUnwindSafe(|| reader.read(buffer)));
        match read.unwrap_or_else(|_| Err(io::Error::other("the body of an answer panicked"))) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break error,
            Ok(count) if count > buffer.len() => {
                let text = "the body of an answer claims to have read more than it was asked for";
                break io::Error::other(text);
            }
            read => return read,
        }
    };
    let line = OneLine(&error).to_string();
    REPEATED.log_throttled(log::Level::Error, &line, || format!("an answer breaks off: {line}"));
    Err(error)
}
