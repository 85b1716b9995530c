//! Errors that are answers, and the answers that other errors become.

use std::backtrace::Backtrace;
use std::panic::Location;
use std::sync::Arc;

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};

use crate::error::in_users_program;
use crate::message::backtrace;
use crate::message::into_response::IntoResponse;
use crate::message::response::Response;
use crate::message::response_head::header_pair;
use crate::message::status::IntoStatus;

/// What can be the error of a handler's, a hook's or a provider's `Result`: [`HttpError`], [`Redirect`](crate::Redirect), [`Response`],
/// and whatever becomes a `Box<dyn Error + Send + Sync>`: every type that is [`std::error::Error`], `Send` and `Sync`, such
/// a box itself, `anyhow::Error`, a text.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the error of a handler's `Result`",
    label = "the error of this `Result` is `{Self}`",
    note = "with `Result<T, HttpError>`, `Err(abort(400, text))` answers that status, `Err(redirect(address).into())` a redirection, and `?` takes any type that is `std::error::Error + Send + Sync`, `Box<dyn Error + Send + Sync>` and `anyhow::Error`",
    note = "a type of your own is one with `impl std::fmt::Display` and `impl std::error::Error` for it; `app.on_error(|error: &{Self}| …)` then says what it answers"
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
/// `?` turns every [`std::error::Error`] that is `Send` and `Sync` into one, and what becomes a box of one: `Box<dyn Error +
/// Send + Sync>`, `anyhow::Error`, a text. It is a 500 whose cause is logged, with the file and line of that `?`, and not
/// shown. Where the error is an [`Error`](crate::Error) of this crate, or caused by one, it answers as that does: 503 where
/// Redis is down. [`App::on_error`](crate::App::on_error) answers errors of the app's own types. It therefore does not
/// implement `std::error::Error` itself.
///
/// Inside an `anyhow::Error` this crate looks with the feature `anyhow`; without it each is a 500.
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
    pub(super) raised: Option<&'static Location<'static>>,
    /// How the program came there, where the app is being debugged.
    backtrace: Option<Arc<Backtrace>>,
    /// An answer of the app's own to another error.
    converted: bool,
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
            backtrace: None,
            converted: false,
        }))
    }

    /// Blames this place, where it is one of the user's program and not of this crate or the standard library.
    pub(super) fn raised_at(mut self, location: &'static Location<'static>) -> HttpError {
        self.0.raised = self.0.raised.or_else(|| in_users_program(location));
        self.0.backtrace = self.0.backtrace.or_else(backtrace::capture);
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
    /// shows it through [`escape_html`](crate::escape_html).
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

    /// The same error with the backtrace of a panic, where there is one.
    pub(crate) fn with_backtrace(mut self, backtrace: Option<Arc<Backtrace>>) -> HttpError {
        self.0.backtrace = backtrace.or(self.0.backtrace);
        self
    }

    pub(crate) fn backtrace(&self) -> Option<&Backtrace> {
        self.0.backtrace.as_deref()
    }

    /// Whether the app has made it of another error already.
    pub(crate) fn is_converted(&self) -> bool {
        self.0.converted
    }

    /// This error as the answer to another one, whose cause and place it keeps.
    pub(crate) fn in_place_of(mut self, other: HttpError) -> HttpError {
        let other = *other.0;
        let own = std::mem::replace(&mut self.0.headers, other.headers);
        self.0.headers.extend(own);
        self.0.source = self.0.source.or(other.source);
        self.0.raised = other.raised.or(self.0.raised);
        self.0.backtrace = other.backtrace.or(self.0.backtrace);
        self.0.converted = true;
        self
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
            backtrace: self.0.backtrace.clone(),
            converted: self.0.converted,
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
