//! Answers: what a handler can reply with, and how it becomes status, headers and body.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::io::Read;
use std::panic::Location;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use cookie::Cookie;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::Serialize;

use crate::error::in_users_program;
use crate::message::cookies::set_cookie_value;
use crate::message::forms::{self, FormError};
use crate::{Error, ErrorKind, Result};

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// How long a client is told to wait after a 503, in seconds: a breaker has looked again by then.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// An answer: status, headers and body.
#[derive(Debug)]
pub struct Response {
    status: StatusCode,
    headers: HeaderMap,
    body: Body,
    /// The error behind it.
    error: Option<HttpError>,
    /// Whether an error page shows that error already.
    dressed: bool,
    /// Whether a hook has put it in the place of an error.
    after_error: bool,
}

/// The body of an answer.
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
                dressed: false,
                after_error: false,
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

    fn of(content_type: HeaderValue, body: Bytes) -> Response {
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
    fn without_stream(&self) -> Response {
        let body = match &self.body {
            Body::Bytes(bytes) => bytes.clone(),
            Body::Stream { .. } => Bytes::new(),
        };
        Response {
            status: self.status,
            headers: self.headers.clone(),
            body: Body::Bytes(body),
            error: None,
            dressed: false,
            after_error: self.after_error,
        }
    }

    /// Whether no error page shows its error yet.
    pub(crate) fn is_bare(&self) -> bool {
        self.error.is_some() && !self.dressed
    }

    /// This answer stands in the place of an error.
    pub(crate) fn set_after_error(&mut self) {
        self.after_error = true;
    }

    /// This answer is the page that shows the error.
    pub(crate) fn dress(&mut self, error: HttpError) {
        (self.error, self.dressed) = (Some(error), true);
    }

    /// The error behind the answer, with what was put onto the answer's head since.
    pub(crate) fn take_error(&mut self) -> Option<HttpError> {
        if self.dressed {
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

/// A status: a [`StatusCode`], or a number from 100 to 599 (RFC 9110 section 15).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no status",
    note = "a status is a number such as `404`, or a `StatusCode`"
)]
pub trait IntoStatus {
    /// The status, or an error that names what is none.
    fn into_status(self) -> Result<StatusCode>;
}

impl IntoStatus for StatusCode {
    fn into_status(self) -> Result<StatusCode> {
        Ok(self)
    }
}

impl IntoStatus for u16 {
    fn into_status(self) -> Result<StatusCode> {
        let status = StatusCode::from_u16(self).ok().filter(|status| status.as_u16() < 600);
        status.ok_or_else(|| {
            let text = format!("{self} is no HTTP status; a status is a number from 100 to 599");
            Error::new(ErrorKind::Input, text)
        })
    }
}

pub(crate) fn header_pair<N, V>(name: N, value: V) -> Result<(HeaderName, HeaderValue)>
where
    N: TryInto<HeaderName, Error: Into<http::Error>>,
    V: TryInto<HeaderValue, Error: Into<http::Error>>,
{
    let refused = |what: &str, error: http::Error| {
        Error::new(ErrorKind::Input, format!("not a header {what}")).with_source(error)
    };
    let name = name.try_into().map_err(|error| refused("name", error.into()))?;
    let value =
        value.try_into().map_err(|error| refused(&format!("value for {name}"), error.into()))?;
    Ok((name, value))
}

/// Headers and cookies set while a request is handled, whatever its answer will be: a handler's
/// `&mut ResponseHead` argument.
///
/// They are put onto the answer that is chosen in the end, so they survive `abort`, redirects, error
/// pages and failed handlers.
///
/// `Debug` shows the names of the cookies and no values: some are secrets.
#[derive(Clone, Default)]
pub struct ResponseHead {
    headers: HeaderMap,
    cookies: Vec<Cookie<'static>>,
}

impl ResponseHead {
    /// Sets a header in place of whatever the answer has under its name.
    pub fn set_header<N, V>(&mut self, name: N, value: V) -> Result<()>
    where
        N: TryInto<HeaderName, Error: Into<http::Error>>,
        V: TryInto<HeaderValue, Error: Into<http::Error>>,
    {
        let (name, value) = header_pair(name, value)?;
        self.headers.insert(name, value);
        Ok(())
    }

    /// Sets a cookie. A later one of the same name, path and domain takes its place.
    pub fn set_cookie(&mut self, cookie: impl Into<Cookie<'static>>) -> Result<()> {
        let cookie = cookie.into();
        set_cookie_value(&cookie)?;
        let same = |other: &Cookie<'_>| {
            (other.name(), other.path(), other.domain())
                == (cookie.name(), cookie.path(), cookie.domain())
        };
        self.cookies.retain(|other| !same(other));
        self.cookies.push(cookie);
        Ok(())
    }

    /// Makes the browser forget a cookie. Path and domain must be those it was set with.
    pub fn remove_cookie(&mut self, cookie: impl Into<Cookie<'static>>) -> Result<()> {
        let mut cookie = cookie.into();
        cookie.make_removal();
        self.set_cookie(cookie)
    }

    /// The headers set so far, cookies apart.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The headers, to change.
    pub fn headers_mut(&mut self) -> &mut HeaderMap {
        &mut self.headers
    }

    /// The cookies set so far.
    pub fn cookies(&self) -> &[Cookie<'static>] {
        &self.cookies
    }

    pub(crate) fn merge(&mut self, other: ResponseHead) {
        self.headers.extend(other.headers);
        for cookie in other.cookies {
            // Each was checked when it was set.
            let _ = self.set_cookie(cookie);
        }
    }

    pub(crate) fn attach(self, response: &mut Response) {
        let vary = self.headers.get_all(header::VARY).iter().cloned().collect::<Vec<_>>();
        let mut headers = self.headers;
        headers.remove(header::VARY);
        response.headers.extend(headers);
        // Vary gathers: replacing it would let a cache forget what the handler said.
        for value in vary {
            response.headers.append(header::VARY, value);
        }
        for cookie in &self.cookies {
            if let Ok(value) = set_cookie_value(cookie) {
                response.headers.append(header::SET_COOKIE, value);
            }
        }
    }
}

impl fmt::Debug for ResponseHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cookies: Vec<_> = self.cookies.iter().map(Cookie::name).collect();
        f.debug_struct("ResponseHead")
            .field("headers", &self.headers)
            .field("cookies", &cookies)
            .finish()
    }
}

/// What a handler can reply with.
///
/// | reply | answer |
/// |---|---|
/// | `&'static str`, `String`, `Cow<'static, str>`, `char` | 200, `text/plain` |
/// | [`Html`] | 200, `text/html` |
/// | `Vec<u8>`, `&'static [u8]`, [`Bytes`] | 200, `application/octet-stream` |
/// | [`Json<T>`], [`serde_json::Value`] | 200, `application/json` |
/// | `()` | 200, empty |
/// | [`StatusCode`] | that status, empty |
/// | `(StatusCode, T)`, `(u16, T)` | `T` with that status |
/// | `Option<T>` | `T`, or a 404 |
/// | `Result<T, E>` | `T`; an error is a logged 500, unless it is an [`HttpError`], a [`Redirect`] or a [`Response`] |
/// | [`Response`], [`HttpError`], [`Redirect`] | itself |
///
/// A handler has replies of one type. Where they differ, say `-> Response` and call `.into_response()` on each, or end
/// early with `Err` in a `Result<T, HttpError>`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a handler's reply",
    label = "the reply of this handler is `{Self}`",
    note = "a handler replies with text, `Html`, bytes, `Json<T>`, `(StatusCode, T)`, `Option<T>`, `Result<T, E>` or `Response`",
    note = "replies of several types: say `-> Response`, and call `.into_response()` on each"
)]
pub trait IntoResponse {
    /// Makes the answer.
    fn into_response(self) -> Response;
}

/// HTML text as a reply: `Html(format!("<b>{}</b>", escape_html(name)))`.
#[derive(Clone, Debug)]
pub struct Html<T>(pub T);

/// A JSON document: as a reply, anything that serde can serialize; as a handler's argument, the request's
/// body.
#[derive(Clone, Debug)]
pub struct Json<T>(pub T);

/// Text that is safe inside HTML elements and quoted attributes.
pub fn escape_html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

macro_rules! replies {
    ($($reply:ty: $this:ident => $response:expr;)*) => {$(
        impl IntoResponse for $reply {
            fn into_response(self) -> Response {
                let $this = self;
                $response
            }
        }
    )*};
}

replies! {
    Response: this => this;
    &'static str: this => Response::of(TEXT, Bytes::from_static(this.as_bytes()));
    String: this => Response::text(this);
    Cow<'static, str>: this => Response::text(this);
    char: this => Response::text(this);
    Vec<u8>: this => Response::bytes(this);
    &'static [u8]: this => Response::of(BYTES, Bytes::from_static(this));
    Bytes: this => Response::bytes(this);
    serde_json::Value: this => Response::json(&this);
    (): _this => Response::new(StatusCode::OK);
    StatusCode: this => Response::new(this);
}

impl<T: Into<String>> IntoResponse for Html<T> {
    fn into_response(self) -> Response {
        Response::html(self.0)
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        Response::json(&self.0)
    }
}

impl<T: IntoResponse> IntoResponse for (StatusCode, T) {
    fn into_response(self) -> Response {
        self.1.into_response().with_status(self.0)
    }
}

impl<T: IntoResponse> IntoResponse for (u16, T) {
    fn into_response(self) -> Response {
        self.1.into_response().with_status(self.0)
    }
}

impl<T: IntoResponse> IntoResponse for Option<T> {
    fn into_response(self) -> Response {
        match self {
            Some(reply) => reply.into_response(),
            None => HttpError::of(StatusCode::NOT_FOUND).into_response(),
        }
    }
}

impl<T: IntoResponse, E: IntoHttpError> IntoResponse for Result<T, E> {
    fn into_response(self) -> Response {
        match self {
            Ok(reply) => reply.into_response(),
            Err(error) => error.into_http_error().into_response(),
        }
    }
}

/// What can be the error of a handler's, a hook's or a provider's `Result`: [`HttpError`], [`Redirect`], [`Response`],
/// and every type that is [`std::error::Error`], `Send` and `Sync`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the error of a handler's `Result`",
    label = "the error of this `Result` is `{Self}`",
    note = "with `Result<T, HttpError>`, `Err(abort(400, text))` answers that status, `Err(redirect(address).into())` a redirection, and `?` takes any type that is `std::error::Error + Send + Sync`",
    note = "what is no `std::error::Error`, such as `anyhow::Error` or `Box<dyn Error + Send + Sync>`, goes through `.map_err(bottle_session::Error::other)?`"
)]
pub trait IntoHttpError {
    /// The error as an answer.
    fn into_http_error(self) -> HttpError;
}

#[diagnostic::do_not_recommend]
impl<E: Into<HttpError>> IntoHttpError for E {
    fn into_http_error(self) -> HttpError {
        self.into()
    }
}

/// What a hook or a guard may return: nothing, or a `Result` whose error is the answer.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be what a hook returns",
    label = "this hook returns `{Self}`",
    note = "a hook returns nothing, or a `Result<(), E>` whose error is the answer: `Err(redirect(\"/login\"))`, `Err(abort(403, text))`, and `Ok(())` to go on"
)]
pub trait HookOutcome {
    /// The answer, if the hook gives one.
    fn into_answer(self) -> Option<Response>;
}

impl HookOutcome for () {
    fn into_answer(self) -> Option<Response> {
        None
    }
}

impl<E: IntoHttpError> HookOutcome for std::result::Result<(), E> {
    fn into_answer(self) -> Option<Response> {
        self.err().map(|error| error.into_http_error().into_response())
    }
}

/// An answer that ends a handler early: what [`abort`] makes, and what any other error becomes.
///
/// `?` turns every [`std::error::Error`] that is `Send` and `Sync` into one: a 500 whose cause is logged, with the file
/// and line of that `?`, and not shown, or what the error itself says where it is an [`Error`] of this crate. It
/// therefore does not implement `std::error::Error` itself.
#[derive(Debug)]
pub struct HttpError(Box<Failed>);

#[derive(Debug)]
struct Failed {
    status: StatusCode,
    message: String,
    headers: HeaderMap,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
    /// A whole answer that goes out as it is.
    reply: Option<Response>,
    /// Where it was made.
    raised: Option<&'static Location<'static>>,
}

impl HttpError {
    /// An error with this status, a number or a [`StatusCode`], and no text of its own. A number that is no status
    /// (RFC 9110 section 15: 100 to 599) is a logged 500.
    #[track_caller]
    pub fn new(status: impl IntoStatus) -> HttpError {
        match status.into_status() {
            Ok(status) => HttpError::of(status).raised_at(Location::caller()),
            Err(error) => HttpError::from(error).raised_at(Location::caller()),
        }
    }

    fn of(status: StatusCode) -> HttpError {
        HttpError(Box::new(Failed {
            status,
            message: String::new(),
            headers: HeaderMap::new(),
            source: None,
            reply: None,
            raised: None,
        }))
    }

    /// Blames this place, where it is one of the user's program and not of this crate or the standard library.
    fn raised_at(mut self, location: &'static Location<'static>) -> HttpError {
        self.0.raised = self.0.raised.or_else(|| in_users_program(location));
        self
    }

    /// The same error with another status, a number or a [`StatusCode`].
    #[must_use]
    pub fn with_status(mut self, status: impl IntoStatus) -> HttpError {
        match status.into_status() {
            Ok(status) => {
                self.0.status = status;
                if let Some(reply) = &mut self.0.reply {
                    reply.status = status;
                }
                self
            }
            Err(error) => HttpError::from(error),
        }
    }

    /// The same error with a text for the client.
    #[must_use]
    pub fn with_message(mut self, message: impl Into<String>) -> HttpError {
        self.0.message = message.into();
        self
    }

    /// The same error with its cause, for the log.
    #[must_use]
    pub fn with_source(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> HttpError {
        self.0.source = Some(source.into().into());
        self
    }

    /// The same error with this header on its answer, text or typed. What cannot be a header makes it a logged 500.
    #[must_use]
    pub fn with_header<N, V>(mut self, name: N, value: V) -> HttpError
    where
        N: TryInto<HeaderName, Error: Into<http::Error>>,
        V: TryInto<HeaderValue, Error: Into<http::Error>>,
    {
        match header_pair(name, value) {
            Ok((name, value)) => {
                let headers = match &mut self.0.reply {
                    Some(reply) => &mut reply.headers,
                    None => &mut self.0.headers,
                };
                headers.insert(name, value);
                self
            }
            Err(error) => HttpError::from(error),
        }
    }

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The text for the client; empty where there is none. It may hold what the client sent: an HTML page
    /// shows it through [`escape_html`].
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The cause, for the log.
    pub fn cause(&self) -> Option<&(dyn std::error::Error + Send + Sync + 'static)> {
        self.0.source.as_deref()
    }

    /// Where in the user's program it was made: the `?` that turned another error into it, the [`abort`], the
    /// [`new`](HttpError::new). `None` where it was made elsewhere, such as by the router or of a reply that is an `Err`.
    pub fn location(&self) -> Option<&'static Location<'static>> {
        self.0.raised
    }

    /// The error, for one of several who ask for it. A body that is a stream is sent once: the first who asks has it.
    pub(crate) fn hand_out(&mut self) -> HttpError {
        let kept = Failed {
            status: self.0.status,
            message: self.0.message.clone(),
            headers: self.0.headers.clone(),
            source: self.0.source.clone(),
            reply: self.0.reply.as_ref().map(Response::without_stream),
            raised: self.0.raised,
        };
        std::mem::replace(self, HttpError(Box::new(kept)))
    }

    /// The headers that the answer will have whatever page shows it.
    pub(crate) fn headers(&self) -> &HeaderMap {
        &self.0.headers
    }
}

impl IntoResponse for HttpError {
    fn into_response(mut self) -> Response {
        if let Some(reply) = self.0.reply.take() {
            return reply;
        }
        let mut response = Response::new(self.0.status);
        response.headers = self.0.headers.clone();
        response.error = Some(self);
        response
    }
}

/// Ends a handler with an error status, a number or a [`StatusCode`]: `return Err(abort(404, "no such page"))`.
///
/// A number that is no status (RFC 9110 section 15: 100 to 599) is a logged 500.
#[track_caller]
pub fn abort(status: impl IntoStatus, message: impl Into<String>) -> HttpError {
    let location = Location::caller();
    match status.into_status() {
        Ok(status) => HttpError::of(status).with_message(message),
        Err(error) => HttpError::of(StatusCode::INTERNAL_SERVER_ERROR).with_source(error),
    }
    .raised_at(location)
}

/// Asks the client for name and password: a 401 with the challenge that has a browser ask its user (RFC 7617). What
/// they sent is [`Request::basic_auth`](crate::Request::basic_auth).
///
/// ```
/// use bottle_session::{App, HttpError, Request, TestClient, basic_challenge};
///
/// let mut app = App::new();
/// app.before(|request: &Request| -> Result<(), HttpError> {
///     match request.basic_auth() {
///         Some((name, password)) if name == "ada" && password == "secret" => Ok(()),
///         _ => Err(basic_challenge("The library")),
///     }
/// });
/// app.get("/", || "books");
///
/// let client = TestClient::new(app)?;
/// let challenge = r#"Basic realm="The library", charset="UTF-8""#;
/// assert_eq!(client.get("/").send().header("www-authenticate"), Some(challenge));
/// assert_eq!(client.get("/").basic_auth("ada", "secret").send().text(), "books");
/// # Ok::<(), bottle_session::Error>(())
/// ```
#[track_caller]
pub fn basic_challenge(realm: &str) -> HttpError {
    let quoted = realm.replace('\\', "\\\\").replace('"', "\\\"");
    HttpError::new(StatusCode::UNAUTHORIZED)
        .with_message("A name and a password are needed.")
        .with_header(
            header::WWW_AUTHENTICATE,
            format!("Basic realm=\"{quoted}\", charset=\"UTF-8\""),
        )
}

/// Sends the client to another address with a 303 (RFC 9110 section 15.4.4: the next request is a GET):
/// as a reply, `redirect("/login")`, or early, `return Err(redirect("/login").into())`.
///
/// The address goes out as it is, of this site or of another. What cannot stand in one, such as a space, a
/// line end, a backslash or `é`, is percent-encoded; what is encoded already stays so. An address that a visitor named
/// (`/login?next=…`) may lead anywhere. This one stays on the site:
///
/// ```
/// use bottle_session::{Redirect, redirect};
///
/// fn back_to(next: &str) -> Redirect {
///     // With two slashes, the second begins the name of a host.
///     redirect(if next.starts_with('/') && !next.starts_with("//") { next } else { "/" })
/// }
/// # let _ = back_to("//evil.example");
/// ```
///
/// Another status is one word: [`redirect("/new").permanent()`](Redirect::permanent) is a 308.
pub fn redirect(location: impl Into<String>) -> Redirect {
    let location = utf8_percent_encode(&location.into(), NOT_IN_ADDRESS).to_string();
    let answer = Response::new(StatusCode::SEE_OTHER).with_header(header::LOCATION, location);
    Redirect(Box::new(answer))
}

/// What no address holds as it is (RFC 3986 section 2). Browsers drop tabs and take a backslash for a slash:
/// unencoded, `/\evil.example` were another host.
const NOT_IN_ADDRESS: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'<')
    .add(b'>')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// A redirection; see [`redirect`].
///
/// A handler has replies of one type. One that returns early with `redirect` and replies with a page at its end turns the
/// page into this type, or both into a [`Response`]:
///
/// ```
/// use bottle_session::{App, Html, Session, SessionPlugin, redirect};
///
/// let mut app = App::new();
/// app.install(SessionPlugin::new().in_memory())?;
/// app.get("/", |session: &mut Session| {
///     if session.get("name").is_none() {
///         return redirect("/login");
///     }
///     Html("<b>Hello</b>").into()
/// });
/// # app.build()?;
/// # Ok::<(), bottle_session::Error>(())
/// ```
#[derive(Debug)]
pub struct Redirect(Box<Response>);

impl Redirect {
    /// The same redirection for good: a 308, which keeps method and body (RFC 9110 section 15.4.9). Browsers remember
    /// it.
    #[must_use]
    pub fn permanent(self) -> Redirect {
        self.with_status(StatusCode::PERMANENT_REDIRECT)
    }

    /// The same redirection for now: a 307, which keeps method and body (RFC 9110 section 15.4.8).
    #[must_use]
    pub fn temporary(self) -> Redirect {
        self.with_status(StatusCode::TEMPORARY_REDIRECT)
    }

    /// The same redirection with another status, a number or a [`StatusCode`]: 301, 302, 307, 308.
    #[must_use]
    pub fn with_status(self, status: impl IntoStatus) -> Redirect {
        Redirect(Box::new(self.0.with_status(status)))
    }

    /// The same redirection with this header in place of any of its name, text or typed. What cannot be a header makes
    /// it a logged 500.
    #[must_use]
    pub fn with_header<N, V>(self, name: N, value: V) -> Redirect
    where
        N: TryInto<HeaderName, Error: Into<http::Error>>,
        V: TryInto<HeaderValue, Error: Into<http::Error>>,
    {
        Redirect(Box::new(self.0.with_header(name, value)))
    }
}

impl IntoResponse for Redirect {
    fn into_response(self) -> Response {
        *self.0
    }
}

impl From<Redirect> for HttpError {
    fn from(redirect: Redirect) -> HttpError {
        HttpError::from(redirect.into_response())
    }
}

impl From<Redirect> for Error {
    fn from(redirect: Redirect) -> Error {
        HttpError::from(redirect).into()
    }
}

impl From<Response> for HttpError {
    fn from(mut response: Response) -> HttpError {
        if let Some(error) = response.take_error() {
            return error;
        }
        let mut early = HttpError::of(response.status);
        early.0.reply = Some(response);
        early
    }
}

macro_rules! replies_into {
    ($([$($parameters:tt)*] $reply:ty;)*) => {$(
        impl<$($parameters)*> From<$reply> for Response {
            fn from(reply: $reply) -> Response {
                reply.into_response()
            }
        }

        impl<$($parameters)*> From<$reply> for Redirect {
            fn from(reply: $reply) -> Redirect {
                Redirect(Box::new(reply.into_response()))
            }
        }
    )*};
}

// A handler has replies of one type. Where it returns one of these beside a `Response` or a `Redirect`, the compiler
// says: call `.into()`.
replies_into! {
    [] HttpError;
    [T: Into<String>] Html<T>;
    [T: Serialize] Json<T>;
    [] &'static str;
    [] String;
}

impl From<Redirect> for Response {
    fn from(redirect: Redirect) -> Response {
        *redirect.0
    }
}

impl From<Response> for Redirect {
    fn from(response: Response) -> Redirect {
        Redirect(Box::new(response))
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for HttpError {
    #[track_caller]
    fn from(error: E) -> HttpError {
        made_of(error).raised_at(Location::caller())
    }
}

fn made_of<E: std::error::Error + Send + Sync + 'static>(error: E) -> HttpError {
    let mut error = Some(error);
    match (&mut error as &mut dyn Any).downcast_mut::<Option<Error>>().and_then(Option::take) {
        Some(ours) => from_ours(ours),
        None => {
            let any = &mut error as &mut dyn Any;
            if let Some(form) = any.downcast_mut::<Option<FormError>>().and_then(Option::take) {
                return forms::answer(form);
            }
            let asked = (&error as &dyn Any)
                .downcast_ref()
                .and_then(|io: &Option<_>| asked_for(io.as_ref()?));
            let failed = asked.unwrap_or_else(|| HttpError::of(StatusCode::INTERNAL_SERVER_ERROR));
            error.map_or_else(|| unreachable!("taken above"), |e| failed.with_source(e))
        }
    }
}

fn from_ours(error: Error) -> HttpError {
    let raised = error.raised();
    let mut answer = answer_of(error);
    answer.0.raised = answer.0.raised.or(raised);
    answer
}

fn answer_of(error: Error) -> HttpError {
    match error.kind() {
        ErrorKind::Http => carried(error),
        ErrorKind::Io => {
            let io = std::error::Error::source(&error).and_then(|source| source.downcast_ref());
            io.and_then(asked_for)
                .unwrap_or_else(|| HttpError::of(StatusCode::INTERNAL_SERVER_ERROR))
                .with_source(error)
        }
        ErrorKind::Unavailable | ErrorKind::Desync => {
            HttpError::of(StatusCode::SERVICE_UNAVAILABLE)
                .with_header(header::RETRY_AFTER, RETRY_AFTER)
                .with_source(error)
        }
        ErrorKind::Gone => HttpError::of(StatusCode::CONFLICT)
            .with_message("The session ended while this request was running.")
            .with_source(error),
        _ => HttpError::of(StatusCode::INTERNAL_SERVER_ERROR).with_source(error),
    }
}

/// The answer that an I/O error asks for: a server whose reader of a request body fails says so what it is
/// to be, by an [`HttpError`] inside.
pub(crate) fn asked_for(error: &std::io::Error) -> Option<HttpError> {
    let inner: &Error = error.get_ref()?.downcast_ref()?;
    let carried: &Carried = std::error::Error::source(inner)?.downcast_ref()?;
    let carried = carried.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let asked = carried.as_ref()?;
    Some(HttpError::of(asked.status()).with_message(asked.message()))
}

/// An [`HttpError`] on its way through a function that returns [`Error`].
#[derive(Debug)]
struct Carried(Mutex<Option<HttpError>>);

impl fmt::Display for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an answer on its way out of a handler")
    }
}

impl std::error::Error for Carried {}

impl From<HttpError> for Error {
    fn from(error: HttpError) -> Error {
        let text = format!("{} {}", error.status(), error.message());
        Error::new(ErrorKind::Http, text.trim_end()).with_source(Carried(Mutex::new(Some(error))))
    }
}

fn carried(error: Error) -> HttpError {
    let text = error.to_string();
    let source = error.into_source().and_then(|source| source.downcast::<Carried>().ok());
    let inner = source.and_then(|carried| carried.0.into_inner().ok().flatten());
    inner.unwrap_or_else(|| HttpError::of(StatusCode::INTERNAL_SERVER_ERROR).with_source(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failing() -> std::result::Result<(), std::num::ParseIntError> {
        "x".parse::<i32>().map(|_| ())
    }

    #[test]
    fn replies_become_answers() {
        let table: Vec<(Response, u16, &str, &str)> = vec![
            ("text".into_response(), 200, "text/plain; charset=utf-8", "text"),
            (Html("<b>").into_response(), 200, "text/html; charset=utf-8", "<b>"),
            (vec![65u8].into_response(), 200, "application/octet-stream", "A"),
            (serde_json::json!({"a": 1}).into_response(), 200, "application/json", "{\"a\":1}"),
            (().into_response(), 200, "", ""),
            ((201, "made").into_response(), 201, "text/plain; charset=utf-8", "made"),
            (Some("x").into_response(), 200, "text/plain; charset=utf-8", "x"),
            (None::<String>.into_response(), 404, "", ""),
            (
                Ok::<_, std::fmt::Error>("ok").into_response(),
                200,
                "text/plain; charset=utf-8",
                "ok",
            ),
            (failing().into_response(), 500, "", ""),
            (abort(418, "tea").into_response(), 418, "", ""),
            (abort(999, "").into_response(), 500, "", ""),
            (redirect("/x").into_response(), 303, "", ""),
            (redirect("/\r\nSet-Cookie: x").into_response(), 303, "", ""),
            ("x".into_response().with_header("x", "a\nb"), 500, "", ""),
        ];
        for (number, (response, status, content_type, body)) in table.into_iter().enumerate() {
            assert_eq!(response.status().as_u16(), status, "row {number}");
            let header = response.headers().get(header::CONTENT_TYPE);
            assert_eq!(header.map_or("", |value| value.to_str().unwrap()), content_type);
            assert_eq!(response.into_bytes().unwrap(), body, "row {number}");
        }
    }

    #[test]
    fn what_no_address_holds_is_encoded_in_a_redirection() {
        for (given, sent) in [
            ("/a b?c=d#e", "/a%20b?c=d#e"),
            ("/\r\nSet-Cookie: x\0", "/%0D%0ASet-Cookie:%20x%00"),
            ("/\\evil.example", "/%5Cevil.example"),
            ("/é%C3%A9", "/%C3%A9%C3%A9"),
        ] {
            let response = redirect(given).into_response();
            assert_eq!(response.headers()[header::LOCATION], sent, "{given:?}");
        }
    }

    #[test]
    fn an_answer_survives_the_crates_own_error() {
        let through = |error: HttpError| HttpError::from(Error::from(error)).into_response();
        let response = through(redirect("/login").into());
        assert_eq!(response.headers()[header::LOCATION], "/login");
        assert!(response.error().is_none());
        let response = through(abort(403, "no"));
        assert_eq!(response.error().unwrap().message(), "no");
    }

    #[test]
    fn a_redirect_is_an_error_of_its_own_status() {
        let early = HttpError::from(redirect("/x"))
            .with_header(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        assert_eq!(early.status(), 303);
        let response = HttpError::from(Error::from(early)).into_response();
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
    }

    #[test]
    fn an_address_is_encoded_where_it_is_none() {
        for (address, sent) in [
            ("/a%20b?c=d&e#f", "/a%20b?c=d&e#f"),
            ("https://[::1]:8080/~x;y=(1)!*'@$,+", "https://[::1]:8080/~x;y=(1)!*'@$,+"),
            ("/é b", "/%C3%A9%20b"),
            ("/\\evil.example", "/%5Cevil.example"),
            ("/\t/evil.example", "/%09/evil.example"),
            (" //evil.example", "%20//evil.example"),
        ] {
            let response = redirect(address).into_response();
            assert_eq!(response.headers()[header::LOCATION], sent, "{address}");
        }
    }

    #[test]
    fn what_is_unavailable_is_a_503_that_says_when_to_come_back() {
        let error = Error::new(ErrorKind::Unavailable, "Redis is down");
        let response = Err::<(), _>(error).into_response();
        assert_eq!(response.status(), 503);
        assert!(response.headers().contains_key(header::RETRY_AFTER));
    }

    #[test]
    fn html_is_escaped() {
        assert_eq!(escape_html("<a b='\"&'>"), "&lt;a b=&#39;&quot;&amp;&#39;&gt;");
    }
}
