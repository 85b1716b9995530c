//! Requests as they arrive: a head, then a body that is gathered or streamed.

use std::time::Instant;

use bytes::Bytes;
use http::{Method, StatusCode};
use memchr::memchr;

use super::{Connection, Job, Next, State};
use crate::message::body::RequestBody;
use crate::message::request::Request;
#[cfg(feature = "https")]
use crate::message::request::Scheme;
use crate::pipeline::exchange::Exchange;
use crate::server::http1::{BodyDecoder, Framing, Head, Parsed, Refused, parse_head};
use crate::server::native::body::SharedBody;
use crate::server::native::forwarded;
use crate::server::native::outgoing::Audience;

/// How much an idle connection may keep of its buffer.
pub(super) const KEPT: usize = 1024;

pub(crate) struct Gathering {
    pub(super) head: Box<Head>,
    pub(super) decoder: BodyDecoder,
    pub(super) body: Vec<u8>,
    pub(super) started: Instant,
}

/// A request and what its answer needs to know.
pub(crate) struct Incoming {
    pub(crate) exchange: Exchange,
    pub(crate) audience: Audience,
    pub(crate) stream: Option<SharedBody>,
}

impl Connection {
    pub(super) fn take_head(&mut self, now: Instant) -> Result<Option<Next>, Refused> {
        if self.input.is_empty() {
            return Ok(None);
        }
        let new = self.input.get(self.looked_at..).unwrap_or_default();
        let within = self.input.len() <= self.options.head.bytes;
        if self.looked_at > 0 && within && memchr(b'\n', new).is_none() {
            // Without another line there is nothing to understand: single bytes are to cost little.
            self.looked_at = self.input.len();
            return Ok(None);
        }
        let Parsed::Complete(head) = parse_head(&self.input, &self.options.head)? else {
            self.looked_at = self.input.len();
            return Ok(None);
        };
        self.looked_at = 0;
        if matches!(head.framing, Framing::Length(length) if length > self.options.max_body) {
            return Err(Refused(StatusCode::PAYLOAD_TOO_LARGE));
        }
        consume(&mut self.input, head.consumed);
        match head.framing {
            Framing::Empty => {
                Ok(Some(self.begin_request(*head, RequestBody::Bytes(Bytes::new()), None)))
            }
            framing => {
                let decoder = BodyDecoder::new(framing);
                let gathering = Gathering { head, decoder, body: Vec::new(), started: now };
                self.deadline = now + self.options.body_allowance(0);
                self.state = State::Body(Box::new(gathering));
                self.take_body()
            }
        }
    }

    pub(super) fn take_body(&mut self) -> Result<Option<Next>, Refused> {
        let State::Body(gathering) = &mut self.state else { return Ok(None) };
        let limit = self.options.body_buffer;
        let must_stream = match gathering.head.framing {
            Framing::Length(length) => length > limit as u64,
            _ => false,
        };
        if !must_stream {
            let step = gathering.decoder.decode(&self.input, &mut gathering.body, limit)?;
            consume(&mut self.input, step.consumed);
            // Only a chunked body can turn out to be too long; nothing else looks at one that fits the buffer.
            if gathering.body.len() as u64 > self.options.max_body {
                return Err(Refused(StatusCode::PAYLOAD_TOO_LARGE));
            }
        }
        let waits_to_be_told = gathering.head.expect_continue && gathering.body.is_empty();
        let done = gathering.decoder.is_done();
        // What was received and cannot be decoded for want of room shows that the body is too long to hold.
        let full = !self.input.is_empty();
        if !done && !must_stream && !waits_to_be_told && !full {
            let allowed = self.options.body_allowance(gathering.body.len() as u64);
            self.deadline = gathering.started + allowed;
            return Ok(None);
        }
        let State::Body(gathering) = std::mem::replace(&mut self.state, State::Handled) else {
            return Ok(None);
        };
        let Gathering { head, decoder, body, .. } = *gathering;
        if done {
            return Ok(Some(self.begin_request(*head, RequestBody::Bytes(body.into()), None)));
        }
        let length = match head.framing {
            Framing::Length(length) => Some(length),
            _ => None,
        };
        let stream = SharedBody::new(
            self.transport.clone(),
            decoder,
            (std::mem::take(&mut self.input), body),
            head.expect_continue,
            self.options.clone(),
        );
        let body = RequestBody::Stream { reader: Box::new(stream.clone()), length };
        Ok(Some(self.begin_request(*head, body, Some(stream))))
    }

    fn begin_request(&mut self, head: Head, body: RequestBody, stream: Option<SharedBody>) -> Next {
        self.state = State::Handled;
        let audience = Audience {
            version: head.version,
            head: head.method == Method::HEAD,
            keep_alive: head.keep_alive,
        };
        let mut request = Request::new(head.method, head.target)
            .with_version(head.version)
            .with_headers(head.headers)
            .with_body(body);
        #[cfg(feature = "https")]
        if !self.transport.is_plain() {
            request = request.with_scheme(Scheme::Https);
        }
        if let Some(peer) = self.peer {
            request = request.with_remote_addr(peer);
        }
        if !self.options.trusted_proxies.is_empty() {
            request = forwarded::apply(request, self.peer, &self.options);
        }
        Next::Hand(Job::Handle(Incoming { exchange: Exchange::new(request), audience, stream }))
    }
}

/// Takes what was understood off the input. What large requests needed, an idle connection must not keep.
pub(super) fn consume(input: &mut Vec<u8>, count: usize) {
    input.drain(..count);
    if input.is_empty() && input.capacity() > KEPT {
        *input = Vec::new();
    }
}
