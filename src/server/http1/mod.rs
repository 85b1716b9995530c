//! HTTP/1.0 and 1.1 (RFC 9112) between bytes and values, without a socket.
//!
//! Whatever is ambiguous is refused, never guessed: two readings of one message are how requests are
//! smuggled past a proxy.

mod body;
mod head;
mod write;

pub(crate) use body::BodyDecoder;
#[cfg(test)]
use body::Decoded;
pub(crate) use head::{Head, HeadLimits, Parsed, parse_head};
pub(crate) use write::{ChunkEnd, Delivery, push_chunk, refusal, write_head};

use http::StatusCode;

/// How the length of a request's body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is none.
    Empty,
    /// `Content-Length`; more than zero.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// A message that is not served, and the status that says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused(pub(crate) StatusCode);

impl Refused {
    const BAD: Refused = Refused(StatusCode::BAD_REQUEST);
}

#[cfg(test)]
mod tests;
