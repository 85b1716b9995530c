//! Errors that are answers, and the answers that other errors become.

use std::any::Any;
use std::fmt;
use std::panic::Location;
use std::sync::{Arc, Mutex};

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};

use crate::error::in_users_program;
use crate::message::forms::{self, FormError};
use crate::message::into_response::IntoResponse;
use crate::message::response::Response;
use crate::message::response_head::header_pair;
use crate::message::status::IntoStatus;
use crate::{Error, ErrorKind};

/// How long a client is told to wait after a 503, in seconds: a breaker has looked again by then.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

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

/// An answer that ends a handler early: what [`abort`] makes, and what any other error becomes.
///
/// `?` turns every [`std::error::Error`] that is `Send` and `Sync` into one: a 500 whose cause is logged, with the file
/// and line of that `?`, and not shown, or what the error itself says where it is an [`Error`] of this crate. It
/// therefore does not implement `std::error::Error` itself.
///
/// ```
/// use bottle_session::{App, HttpError, TestClient, abort};
///
/// fn item(id: &str) -> Result<String, HttpError> {
///     let id: u32 = id.parse()?; // 500: the text is logged, and not sent
///     Err(abort(429, format!("Slow down with {id}.")).with_header("retry-after", "5"))
/// }
///
/// let mut app = App::new();
/// app.get("/item/<id>", item);
/// let client = TestClient::new(app)?;
/// assert_eq!(client.get("/item/seven").send().status(), 500);
/// assert_eq!(client.get("/item/7").send().header("retry-after"), Some("5"));
/// # Ok::<(), bottle_session::Error>(())
/// ```
#[derive(Debug)]
pub struct HttpError(pub(super) Box<Failed>);

#[derive(Debug)]
pub(super) struct Failed {
    status: StatusCode,
    message: String,
    pub(super) headers: HeaderMap,
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

    pub(super) fn of(status: StatusCode) -> HttpError {
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

/// Ends a handler with an error status, a number or a [`StatusCode`]: `return Err(abort(404, "no such page"))`.
///
/// A number that is no status (RFC 9110 section 15: 100 to 599) is a logged 500.
///
/// ```
/// use bottle_session::{App, HttpError, TestClient, abort};
///
/// let mut app = App::new();
/// app.get("/item/<id:int>", |id: i64| -> Result<String, HttpError> {
///     if id == 7 { Ok("seven".to_owned()) } else { Err(abort(404, "There is no such item.")) }
/// });
/// let client = TestClient::new(app)?;
/// assert_eq!(client.get("/item/7").send().text(), "seven");
/// assert_eq!(client.get("/item/8").send().status(), 404);
/// # Ok::<(), bottle_session::Error>(())
/// ```
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
    use crate::message::redirect::redirect;

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
    fn what_is_unavailable_is_a_503_that_says_when_to_come_back() {
        let error = Error::new(ErrorKind::Unavailable, "Redis is down");
        let response = Err::<(), _>(error).into_response();
        assert_eq!(response.status(), 503);
        assert!(response.headers().contains_key(header::RETRY_AFTER));
    }
}
