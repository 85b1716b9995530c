//! HTTP/1.0 and 1.1 (RFC 9112) between bytes and values, without a socket.
//!
//! Whatever is ambiguous is refused, never guessed: two readings of one message are how requests are
//! smuggled past a proxy.

mod body;
mod head;
mod host;
mod refusal;
mod write;

pub(crate) use body::BodyDecoder;
#[cfg(test)]
use body::Decoded;
pub(crate) use head::{Head, HeadLimits, Parsed, parse_head};
pub(crate) use host::is_authority;
pub(crate) use refusal::refusal;
pub(crate) use write::{ChunkEnd, Delivery, push_chunk, write_head};

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
    const TOO_LARGE: Refused = Refused(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
}

/// RFC 9110 section 5.5: what a field's value, and a quoted string, may hold; bytes above ASCII too.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// RFC 9110 section 5.6.2.
pub(crate) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod corpus;
#[cfg(test)]
mod tests;
