//! Answers: status, headers and body.

use std::fmt;
use std::io::Read;

use bytes::Bytes;
use cookie::Cookie;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use serde::Serialize;

use crate::logging::request_id::RequestId;
use crate::message::cookies::set_cookie_value;
use crate::message::http_error::HttpError;
use crate::message::into_response::IntoResponse;
use crate::message::response_head::header_pair;
use crate::message::status::IntoStatus;

pub(super) const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
pub(super) const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// An answer: status, headers and body.
#[derive(Debug)]
pub struct Response {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    body: Body,
    /// The error behind it.
    pub(super) error: Option<HttpError>,
    /// Whether an error page shows that error already.
    is_error_page: bool,
    /// Whether a hook has put it in the place of an error.
    after_error: bool,
    /// Of the request that it answers.
    request_id: Option<RequestId>,
}

/// The body of an answer.
///
/// ```
/// use bottle_session::{Body, Response};
///
/// let Body::Bytes(bytes) = Response::text("hello").into_parts().2 else { panic!("it is all there") };
/// assert_eq!(&bytes[..], b"hello");
/// let Body::Stream { length, .. } = Response::stream(std::io::empty(), Some(0)).into_parts().2 else {
///     panic!("it is read later")
/// };
/// assert_eq!(length, Some(0));
/// ```
#[non_exhaustive]
pub enum Body {
    /// All of it.
    Bytes(Bytes),
    /// A stream, read until it ends by the server's thread.
    Stream {
        /// Where it comes from.
        reader: Box<dyn Read + Send>,
        /// How many bytes it gives, where that is known; sent as `Content-Length`.
        length: Option<u64>,
    },
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Body::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
            Body::Stream { length, .. } => write!(f, "stream of {length:?} bytes"),
        }
    }
}

impl Response {
    /// An empty answer with this status, a number or a [`StatusCode`]. One that is no status makes it a logged 500.
    pub fn new(status: impl IntoStatus) -> Response {
        match status.into_status() {
            Ok(status) => Response {
                status,
                headers: HeaderMap::new(),
                body: Body::Bytes(Bytes::new()),
                error: None,
                is_error_page: false,
                after_error: false,
                request_id: None,
            },
            Err(error) => HttpError::from(error).into_response(),
        }
    }

    /// A 200 of plain text.
    pub fn text(text: impl Into<String>) -> Response {
        Response::of(TEXT, Bytes::from(text.into()))
    }

    /// A 200 of HTML. Whatever comes from a user must have been escaped.
    pub fn html(html: impl Into<String>) -> Response {
        Response::of(HTML, Bytes::from(html.into()))
    }

    /// A 200 of bytes, `application/octet-stream` unless a header says otherwise.
    pub fn bytes(bytes: impl Into<Bytes>) -> Response {
        Response::of(BYTES, bytes.into())
    }

    /// A 200 of JSON, or a logged 500 where the value cannot be JSON.
    pub fn json(value: &impl Serialize) -> Response {
        match serde_json::to_vec(value) {
            Ok(json) => Response::of(JSON, Bytes::from(json)),
            Err(error) => HttpError::from(error).into_response(),
        }
    }

    /// A 200 whose body is read from `reader` while it is sent: `Content-Length` where the length is
    /// known, chunked otherwise.
    pub fn stream(reader: impl Read + Send + 'static, length: Option<u64>) -> Response {
        let mut response = Response::of(BYTES, Bytes::new());
        response.body = Body::Stream { reader: Box::new(reader), length };
        response
    }

    /// A 200 whose body is made of pieces, each sent when it is there: text or bytes, from a generator for example.
    /// `application/octet-stream` unless a header says otherwise.
    ///
    /// ```
    /// use bottle_session::{App, Response, TestClient};
    ///
    /// let mut app = App::new();
    /// app.get("/count", || {
    ///     let lines = (1..=3).map(|number| format!("{number}\n"));
    ///     Response::chunks(lines).with_header("content-type", "text/plain")
    /// });
    /// assert_eq!(TestClient::new(app)?.get("/count").send().text(), "1\n2\n3\n");
    /// # Ok::<(), bottle_session::Error>(())
    /// ```
    pub fn chunks<I>(pieces: I) -> Response
    where
        I: IntoIterator<Item: Into<Bytes> + 'static, IntoIter: Send + 'static>,
    {
        let pieces = pieces.into_iter().map(Into::into);
        Response::stream(Chunks { pieces, piece: Bytes::new() }, None)
    }

    pub(super) fn of(content_type: HeaderValue, body: Bytes) -> Response {
        let mut response = Response::new(StatusCode::OK);
        response.headers.insert(header::CONTENT_TYPE, content_type);
        response.body = Body::Bytes(body);
        response
    }

    /// The same answer with another status, a number or a [`StatusCode`]. One that is no status makes it a logged 500.
    #[must_use]
    pub fn with_status(mut self, status: impl IntoStatus) -> Response {
        match status.into_status() {
            Ok(status) => {
                self.status = status;
                self
            }
            Err(error) => HttpError::from(error).into_response(),
        }
    }

    /// The same answer with this header in place of any of its name.
    ///
    /// A name or value that cannot be a header (RFC 9110 section 5: no CR, LF or NUL) makes the answer a
    /// logged 500, so that nothing gets out in its place.
    #[must_use]
    pub fn with_header<N, V>(mut self, name: N, value: V) -> Response
    where
        N: TryInto<HeaderName, Error: Into<http::Error>>,
        V: TryInto<HeaderValue, Error: Into<http::Error>>,
    {
        match header_pair(name, value) {
            Ok((name, value)) => {
                self.headers.insert(name, value);
                self
            }
            Err(error) => HttpError::from(error).into_response(),
        }
    }

    /// The same answer with one more cookie; one that cannot be written makes it a logged 500.
    #[must_use]
    pub fn with_cookie(mut self, cookie: impl Into<Cookie<'static>>) -> Response {
        match set_cookie_value(&cookie.into()) {
            Ok(value) => {
                self.headers.append(header::SET_COOKIE, value);
                self
            }
            Err(error) => HttpError::from(error).into_response(),
        }
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The headers, to change.
    pub fn headers_mut(&mut self) -> &mut HeaderMap {
        &mut self.headers
    }

    /// The body.
    pub fn body(&self) -> &Body {
        &self.body
    }

    /// Puts another body in the place of the one that `change` is given.
    pub fn map_body(&mut self, change: impl FnOnce(Body) -> Body) {
        let body = std::mem::replace(&mut self.body, Body::Bytes(Bytes::new()));
        self.body = change(body);
    }

    /// The id of the request that it answers.
    pub(crate) fn request_id(&self) -> Option<&RequestId> {
        self.request_id.as_ref()
    }

    pub(crate) fn set_request_id(&mut self, id: Option<RequestId>) {
        self.request_id = id;
    }

    /// The error behind the answer, where it came from `abort`, a failed `Result`, a panic, a plugin, or from no route
    /// that fits; also once an error page shows it. [`HttpError::cause`] is what the log says of it.
    pub fn error(&self) -> Option<&HttpError> {
        self.error.as_ref()
    }

    /// Whether the answer tells of an error: a status of 400 or more, whatever page shows it, or a panic. A redirection
    /// is none. For [`finish`](crate::ProviderOptions::finish) it also does where an
    /// [after-request hook](crate::App::after_request) has put another answer in the place of an error.
    pub fn is_error(&self) -> bool {
        let is_error = |status: StatusCode| status.as_u16() >= 400;
        self.after_error
            || is_error(self.status)
            || self.error.as_ref().is_some_and(|error| is_error(error.status()))
    }

    /// The whole body in memory; reads a stream to its end.
    pub fn into_bytes(self) -> std::io::Result<Bytes> {
        match self.body {
            Body::Bytes(bytes) => Ok(bytes),
            Body::Stream { mut reader, .. } => {
                let mut bytes = Vec::new();
                reader.read_to_end(&mut bytes)?;
                Ok(Bytes::from(bytes))
            }
        }
    }

    /// Status, headers and body.
    pub fn into_parts(self) -> (StatusCode, HeaderMap, Body) {
        (self.status, self.headers, self.body)
    }

    /// A copy of an answer that is no error, without its body where that is a stream.
    pub(super) fn without_stream(&self) -> Response {
        let body = match &self.body {
            Body::Bytes(bytes) => bytes.clone(),
            Body::Stream { .. } => Bytes::new(),
        };
        Response {
            status: self.status,
            headers: self.headers.clone(),
            body: Body::Bytes(body),
            error: None,
            is_error_page: false,
            after_error: self.after_error,
            request_id: self.request_id.clone(),
        }
    }

    /// Whether no error page shows its error yet.
    pub(crate) fn needs_error_page(&self) -> bool {
        self.error.is_some() && !self.is_error_page
    }

    /// This answer stands in the place of an error.
    pub(crate) fn set_after_error(&mut self) {
        self.after_error = true;
    }

    /// This answer is the page that shows the error.
    pub(crate) fn set_error_page_of(&mut self, error: HttpError) {
        (self.error, self.is_error_page) = (Some(error), true);
    }

    /// The error behind the answer, with what was put onto the answer's head since.
    pub(crate) fn take_error(&mut self) -> Option<HttpError> {
        if self.is_error_page {
            return None;
        }
        let mut error = self.error.take()?;
        let mut headers = std::mem::take(&mut self.headers);
        // These are about a body, and the page that shows the error will have another one.
        for name in [header::CONTENT_TYPE, header::CONTENT_LENGTH, header::CONTENT_ENCODING] {
            match error.0.headers.remove(&name) {
                Some(own) => headers.insert(name, own),
                None => headers.remove(name),
            };
        }
        error.0.headers = headers;
        Some(error)
    }

    /// Keeps what a HEAD request may have: all headers and the length, not the body.
    pub(crate) fn discard_body(&mut self) {
        let length = match std::mem::replace(&mut self.body, Body::Bytes(Bytes::new())) {
            Body::Bytes(bytes) => Some(bytes.len() as u64),
            Body::Stream { length, .. } => length,
        };
        if let Some(length) = length {
            self.headers.entry(header::CONTENT_LENGTH).or_insert(HeaderValue::from(length));
        }
    }
}

/// Pieces as a stream.
struct Chunks<I> {
    pieces: I,
    piece: Bytes,
}

impl<I: Iterator<Item = Bytes>> Read for Chunks<I> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.next() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let length = self.piece.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.piece.split_to(length));
        Ok(length)
    }
}
