//! Answers: what a handler can reply with, and how it becomes status, headers and body.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::io::Read;
use std::sync::Mutex;

use bytes::Bytes;
use cookie::Cookie;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::Serialize;

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
    /// Set where the answer is an error that an error page may still dress.
    error: Option<HttpError>,
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
    /// An empty answer with this status.
    pub fn new(status: StatusCode) -> Response {
        Response { status, headers: HeaderMap::new(), body: Body::Bytes(Bytes::new()), error: None }
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

    fn of(content_type: HeaderValue, body: Bytes) -> Response {
        let mut response = Response::new(StatusCode::OK);
        response.headers.insert(header::CONTENT_TYPE, content_type);
        response.body = Body::Bytes(body);
        response
    }

    /// The same answer with another status.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Response {
        self.status = status;
        self
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

    /// The error behind the answer, where it came from `abort`, a failed `Result` or a panic.
    pub fn error(&self) -> Option<&HttpError> {
        self.error.as_ref()
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

    /// The error behind the answer, with what was put onto the answer's head since.
    pub(crate) fn take_error(&mut self) -> Option<HttpError> {
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

fn header_pair<N, V>(name: N, value: V) -> Result<(HeaderName, HeaderValue)>
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
/// | `Result<T, E>` | `T`; an error is a logged 500, unless it is an [`HttpError`] or a [`Redirect`] |
/// | [`Response`], [`HttpError`], [`Redirect`] | itself |
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a handler's reply",
    label = "the reply of this handler is `{Self}`",
    note = "a handler replies with text, `Html`, bytes, `Json<T>`, `(StatusCode, T)`, `Option<T>`, `Result<T, E>` or `Response`"
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
        match StatusCode::from_u16(self.0) {
            Ok(status) => self.1.into_response().with_status(status),
            Err(error) => HttpError::from(error).into_response(),
        }
    }
}

impl<T: IntoResponse> IntoResponse for Option<T> {
    fn into_response(self) -> Response {
        match self {
            Some(reply) => reply.into_response(),
            None => HttpError::new(StatusCode::NOT_FOUND).into_response(),
        }
    }
}

impl<T: IntoResponse, E: Into<HttpError>> IntoResponse for Result<T, E> {
    fn into_response(self) -> Response {
        match self {
            Ok(reply) => reply.into_response(),
            Err(error) => error.into().into_response(),
        }
    }
}

/// An answer that ends a handler early: what [`abort`] makes, and what any other error becomes.
///
/// `?` turns every [`std::error::Error`] into one: a 500 whose cause is logged and not shown, or what the
/// error itself says where it is an [`Error`] of this crate. It therefore does not implement
/// `std::error::Error` itself.
#[derive(Debug)]
pub struct HttpError(Box<Failed>);

#[derive(Debug)]
struct Failed {
    status: StatusCode,
    message: String,
    headers: HeaderMap,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
    /// A whole answer that goes out as it is.
    reply: Option<Response>,
}

impl HttpError {
    /// An error with this status and no text of its own.
    pub fn new(status: StatusCode) -> HttpError {
        HttpError(Box::new(Failed {
            status,
            message: String::new(),
            headers: HeaderMap::new(),
            source: None,
            reply: None,
        }))
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
        self.0.source = Some(source.into());
        self
    }

    /// The same error with this header on its answer.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> HttpError {
        let headers = match &mut self.0.reply {
            Some(reply) => &mut reply.headers,
            None => &mut self.0.headers,
        };
        headers.insert(name, value);
        self
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

/// Ends a handler with an error status: `return Err(abort(404, "no such page"))`.
///
/// A number that is no status (RFC 9110 section 15: 100 to 599) is a logged 500.
pub fn abort(status: u16, message: impl Into<String>) -> HttpError {
    match StatusCode::from_u16(status) {
        Ok(status) if (100..600).contains(&status.as_u16()) => {
            HttpError::new(status).with_message(message)
        }
        _ => HttpError::new(StatusCode::INTERNAL_SERVER_ERROR)
            .with_source(format!("abort was given {status}, which is no HTTP status")),
    }
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
pub fn redirect(location: impl Into<String>) -> Redirect {
    Redirect { status: StatusCode::SEE_OTHER, location: location.into() }
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
#[derive(Clone, Debug)]
pub struct Redirect {
    status: StatusCode,
    location: String,
}

impl Redirect {
    /// The same redirection with another status: 301, 302, 307, 308.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Redirect {
        self.status = status;
        self
    }
}

impl IntoResponse for Redirect {
    fn into_response(self) -> Response {
        let location = utf8_percent_encode(&self.location, NOT_IN_ADDRESS).to_string();
        Response::new(self.status).with_header(header::LOCATION, location)
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
        let mut early = HttpError::new(response.status);
        early.0.reply = Some(response);
        early
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for HttpError {
    fn from(error: E) -> HttpError {
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
                let failed =
                    asked.unwrap_or_else(|| HttpError::new(StatusCode::INTERNAL_SERVER_ERROR));
                error.map_or_else(|| unreachable!("taken above"), |e| failed.with_source(e))
            }
        }
    }
}

fn from_ours(error: Error) -> HttpError {
    match error.kind() {
        ErrorKind::Http => carried(error),
        ErrorKind::Io => {
            let io = std::error::Error::source(&error).and_then(|source| source.downcast_ref());
            io.and_then(asked_for)
                .unwrap_or_else(|| HttpError::new(StatusCode::INTERNAL_SERVER_ERROR))
                .with_source(error)
        }
        ErrorKind::Unavailable | ErrorKind::Desync => {
            HttpError::new(StatusCode::SERVICE_UNAVAILABLE)
                .with_header(header::RETRY_AFTER, RETRY_AFTER)
                .with_source(error)
        }
        ErrorKind::Gone => HttpError::new(StatusCode::CONFLICT)
            .with_message("The session ended while this request was running.")
            .with_source(error),
        _ => HttpError::new(StatusCode::INTERNAL_SERVER_ERROR).with_source(error),
    }
}

/// The answer that an I/O error asks for: a server whose reader of a request body fails says so what it is
/// to be, by an [`HttpError`] inside.
pub(crate) fn asked_for(error: &std::io::Error) -> Option<HttpError> {
    let inner: &Error = error.get_ref()?.downcast_ref()?;
    let carried: &Carried = std::error::Error::source(inner)?.downcast_ref()?;
    let carried = carried.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let asked = carried.as_ref()?;
    Some(HttpError::new(asked.status()).with_message(asked.message()))
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
    inner.unwrap_or_else(|| HttpError::new(StatusCode::INTERNAL_SERVER_ERROR).with_source(text))
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
