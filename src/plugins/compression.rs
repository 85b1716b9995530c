//! Answers that travel compressed.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode};

use self::encoder::{Encoder, Encoding, Stream};
use self::negotiation::accepted;
use crate::message::request::Request;
use crate::message::response::{Body, Response};
use crate::pipeline::exchange::Exchange;
use crate::pipeline::plugin::Plugin;
use crate::pipeline::route::Route;

mod encoder;
mod negotiation;

/// Bodies in memory up to this size are compressed on the event loop, in a millisecond or two; larger ones while they
/// are sent, on another thread.
const AT_ONCE: usize = 64 * 1024;

/// Compresses answers for clients that accept it: brotli (feature `brotli`) or gzip (feature `gzip`), as `Accept-Encoding`
/// prefers (RFC 9110 section 12.5.3), brotli where it has no preference.
///
/// Compressed is what gets smaller: text, HTML, CSS, JavaScript, JSON, XML, SVG, WebAssembly and the like, from
/// [`min_size`](Self::min_size) on. Streams are compressed piece by piece, each sent when it is there (pieces of a few bytes hardly
/// get smaller); not so `text/event-stream`. Left alone are answers that have a `Content-Encoding` already, parts of files (206), and those with
/// `Cache-Control: no-transform`. What is compressed loses its `Content-Length` or gets a new one, gets
/// `Vary: Accept-Encoding`, and a strong `ETag` becomes a weak one: it is the same content in other bytes.
///
/// # Secrets
///
/// Who can make a visitor's browser send requests, and see how long the encrypted answers are, can guess a secret that stands
/// in a compressed page beside text from the request (BREACH, CVE-2013-3587). So answers made for one visitor alone are not
/// compressed: those to requests with `Authorization`, and those that say so by `Set-Cookie`, `Vary: Cookie` or
/// `Cache-Control: private` or `no-store`, as all do whose handler looked at a [`Session`](crate::Session), or at a
/// signed or encrypted cookie. Tokens of
/// [`csrf_token`](crate::Session::csrf_token) are masked anew in each page and cannot be guessed so; where such pages hold no
/// other secret, or repeat nothing of the request, [`personal`](Self::personal) compresses them too, for all routes or for those
/// of a group.
///
/// ```
/// use bottle_session::{App, CompressionPlugin, Html, TestClient};
///
/// let mut app = App::new();
/// app.install(CompressionPlugin::new())?;
/// app.get("/", || Html("<li>tea</li>".repeat(1000)));
/// let answer = TestClient::new(app)?.get("/").header("accept-encoding", "gzip").send();
/// assert_eq!(answer.header("vary"), Some("Accept-Encoding"));
/// # #[cfg(feature = "gzip")]
/// assert!(answer.bytes().len() < 200);
/// # Ok::<(), bottle_session::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct CompressionPlugin {
    min_size: u64,
    personal: bool,
}

impl CompressionPlugin {
    /// A plugin that compresses what is for everybody, from 1 KiB on.
    pub fn new() -> CompressionPlugin {
        CompressionPlugin { min_size: 1024, personal: false }
    }

    /// From how many bytes on a body is compressed: 1024 unless set. One whose length is not known always is.
    #[must_use]
    pub fn min_size(mut self, bytes: u64) -> CompressionPlugin {
        self.min_size = bytes;
        self
    }

    /// Compresses answers made for one visitor, too; see [above](Self#secrets) for what that can give away.
    #[must_use]
    pub fn personal(mut self) -> CompressionPlugin {
        self.personal = true;
        self
    }

    fn is_for_compression(&self, request: &Request, answer: &Response) -> bool {
        let headers = answer.headers();
        let status = answer.status();
        let has_body = !status.is_informational()
            && ![StatusCode::NO_CONTENT, StatusCode::PARTIAL_CONTENT, StatusCode::NOT_MODIFIED]
                .contains(&status);
        let is_large = match answer.body() {
            Body::Bytes(bytes) => bytes.len() as u64 >= self.min_size,
            Body::Stream { length, .. } => length.is_none_or(|length| length >= self.min_size),
        };
        has_body
            && is_large
            && !headers.contains_key(header::CONTENT_ENCODING)
            && !has_word(headers, header::CACHE_CONTROL, &["no-transform"])
            && headers.get(header::CONTENT_TYPE).is_some_and(shrinks)
            && (self.personal || !is_personal(request, headers))
    }
}

impl Default for CompressionPlugin {
    fn default() -> CompressionPlugin {
        CompressionPlugin::new()
    }
}

impl Plugin for CompressionPlugin {
    fn name(&self) -> &str {
        "compression"
    }

    fn watches(&self, _: &Route) -> bool {
        true
    }

    fn end(&self, exchange: &mut Exchange, answer: &mut Response) {
        let request = exchange.request();
        if !self.is_for_compression(request, answer) {
            return;
        }
        let encoding = accepted(request.headers());
        let headers = answer.headers_mut();
        if !has_word(headers, header::VARY, &["accept-encoding", "*"]) {
            headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
        }
        let Some(encoding) = encoding else { return };
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding.name()));
        headers.remove(header::CONTENT_LENGTH);
        headers.remove(header::ACCEPT_RANGES);
        weaken(headers);
        // Nobody reads the body, whose length as a client of GET sees it may differ.
        let is_head = request.method() == Method::HEAD;
        answer.map_body(|body| match body {
            Body::Bytes(bytes) if bytes.len() <= AT_ONCE => compressed(encoding, &bytes),
            Body::Bytes(_) if is_head => Stream::body(encoding, std::io::empty()),
            Body::Bytes(bytes) => Stream::body(encoding, std::io::Cursor::new(bytes)),
            Body::Stream { reader, .. } => Stream::body(encoding, reader),
        });
    }
}

fn compressed(encoding: Encoding, bytes: &[u8]) -> Body {
    let mut encoder = Encoder::new(encoding, Some(bytes.len()));
    encoder.write(bytes);
    Body::Bytes(Bytes::from(encoder.finish()))
}

/// Whether one of these words, in lower case, stands in the lists of this header.
fn has_word(headers: &HeaderMap, name: header::HeaderName, words: &[&str]) -> bool {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    let mut all = values.flat_map(|value| value.split(','));
    all.any(|word| words.iter().any(|known| word.trim().eq_ignore_ascii_case(known)))
}

/// Whether an answer was made for one visitor.
fn is_personal(request: &Request, headers: &HeaderMap) -> bool {
    request.headers().contains_key(header::AUTHORIZATION)
        || headers.contains_key(header::SET_COOKIE)
        || has_word(headers, header::VARY, &["cookie", "authorization", "*"])
        || has_word(headers, header::CACHE_CONTROL, &["private", "no-store"])
}

/// Whether content of this type gets smaller. Events would wait for each other.
fn shrinks(content_type: &HeaderValue) -> bool {
    let essence = content_type.to_str().unwrap_or("").split(';').next().unwrap_or("").trim();
    let essence = essence.to_ascii_lowercase();
    match essence.split_once('/') {
        Some(("text", kind)) => kind != "event-stream",
        Some((_, kind)) if kind.ends_with("+json") || kind.ends_with("+xml") => true,
        _ => matches!(
            &*essence,
            "application/json"
                | "application/javascript"
                | "application/xml"
                | "application/wasm"
                | "application/manifest"
                | "application/x-ndjson"
                | "font/ttf"
                | "font/otf"
                | "image/bmp"
                | "image/x-icon"
        ),
    }
}

/// RFC 9110 section 8.8.1: a strong validator changes with each byte.
fn weaken(headers: &mut HeaderMap) {
    if let Some(etag) = headers.get_mut(header::ETAG)
        && etag.as_bytes().starts_with(b"\"")
        && let Ok(weak) = HeaderValue::from_bytes(&[b"W/", etag.as_bytes()].concat())
    {
        *etag = weak;
    }
}
