//! An answer's head, and the frames of its body.

use std::cell::RefCell;
use std::io::Write;
use std::time::{Duration, SystemTime};

use http::header::{self, HeaderMap};
use http::{StatusCode, Version};

/// How an answer's body is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// No body and no length: 204, 304.
    None,
    /// The answer to a HEAD request: the length that a GET would have, where it is known, and no body.
    LengthOnly(Option<u64>),
    /// `Content-Length`.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// Until the connection closes: a body of unknown length to an HTTP/1.0 client.
    UntilClose,
}

impl Delivery {
    /// How to deliver a body of this length, `None` where it is not known.
    pub(crate) fn of(
        status: StatusCode,
        head: bool,
        version: Version,
        length: Option<u64>,
    ) -> Self {
        if status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED {
            return Delivery::None;
        }
        match length {
            length if head => Delivery::LengthOnly(length),
            Some(length) => Delivery::Length(length),
            None if version == Version::HTTP_10 => Delivery::UntilClose,
            None => Delivery::Chunked,
        }
    }

    pub(crate) fn has_body(self) -> bool {
        !matches!(self, Delivery::None | Delivery::LengthOnly(_))
    }
}

/// Writes status line and headers. Framing is the server's business: what the app says about it is left
/// out.
pub(crate) fn write_head(
    out: &mut Vec<u8>,
    status: StatusCode,
    headers: &HeaderMap,
    delivery: Delivery,
    version: Version,
    keep_alive: bool,
) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or("").as_bytes());
    out.extend_from_slice(b"\r\n");
    for (name, value) in headers {
        if ![header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION].contains(name) {
            line(out, name.as_str(), value.as_bytes());
        }
    }
    if !headers.contains_key(header::DATE) {
        push_date(out);
    }
    match delivery {
        Delivery::Length(length) | Delivery::LengthOnly(Some(length)) => {
            let _ = write!(out, "content-length: {length}\r\n");
        }
        Delivery::Chunked => line(out, "transfer-encoding", b"chunked"),
        Delivery::None | Delivery::LengthOnly(None) | Delivery::UntilClose => {}
    }
    if !keep_alive {
        line(out, "connection", b"close");
    } else if version == Version::HTTP_10 {
        line(out, "connection", b"keep-alive");
    }
    out.extend_from_slice(b"\r\n");
}

/// Whether more chunks follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChunkEnd {
    More,
    Last,
}

/// Writes one chunk; an empty one writes nothing, as that would end the body.
pub(crate) fn push_chunk(out: &mut Vec<u8>, data: &[u8], end: ChunkEnd) {
    if !data.is_empty() {
        let _ = write!(out, "{:x}\r\n", data.len());
        out.extend_from_slice(data);
        out.extend_from_slice(b"\r\n");
    }
    if end == ChunkEnd::Last {
        out.extend_from_slice(b"0\r\n\r\n");
    }
}

fn line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// The date changes once a second; writing it out for each answer would cost more than the rest of the
/// head.
fn push_date(out: &mut Vec<u8>) {
    thread_local! {
        static DATE: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
    }
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    DATE.with_borrow_mut(|(second, text)| {
        if *second != since.as_secs() || text.is_empty() {
            *second = since.as_secs();
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(*second);
            *text = httpdate::fmt_http_date(now);
        }
        line(out, "date", text.as_bytes());
    });
}
