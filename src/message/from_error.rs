//! What other errors are answered with.

use std::error::Error as StdError;
use std::fmt;
use std::panic::Location;
use std::sync::Mutex;

use http::StatusCode;
use http::header::{self, HeaderValue};

use crate::error::{Source, boxed, causes, find};
use crate::lock::lock;
use crate::message::forms::{self, FormError};
use crate::message::http_error::HttpError;
use crate::{Error, ErrorKind};

/// How long a client is told to wait after a 503, in seconds: a breaker has looked again by then.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

impl<E: Into<Box<dyn StdError + Send + Sync>> + 'static> From<E> for HttpError {
    #[track_caller]
    fn from(error: E) -> HttpError {
        answer_to(boxed(error)).raised_at(Location::caller())
    }
}

/// The answer to an error: what the outermost of its causes says of which this crate knows, else a 500.
fn answer_to(error: Source) -> HttpError {
    let known = causes(&*error).find_map(known);
    let Known { answer, raised, complete } =
        known.unwrap_or_else(|| Known::of(StatusCode::INTERNAL_SERVER_ERROR));
    let answer = if complete { answer } else { answer.with_source(error) };
    match raised {
        Some(raised) => answer.raised_at(raised),
        None => answer,
    }
}

/// What an error of this crate is answered with.
struct Known {
    answer: HttpError,
    /// Where another error became it.
    raised: Option<&'static Location<'static>>,
    /// It was an answer all along, with a cause of its own or none.
    complete: bool,
}

impl Known {
    fn of(status: StatusCode) -> Known {
        Known { answer: HttpError::of(status), raised: None, complete: false }
    }
}

fn known(cause: &(dyn StdError + 'static)) -> Option<Known> {
    if let Some(error) = find::<Error>(cause) {
        let known = of_ours(error);
        return Some(Known { raised: known.raised.or(error.raised()), ..known });
    }
    if let Some(form) = find::<FormError>(cause) {
        return Some(Known { answer: forms::answer(form), raised: None, complete: false });
    }
    let asked = asked_for(find::<std::io::Error>(cause)?)?;
    Some(Known { answer: asked, raised: None, complete: false })
}

fn of_ours(error: &Error) -> Known {
    match error.kind() {
        ErrorKind::Http => {
            let carried = error.source().and_then(|source| source.downcast_ref::<Carried>());
            match carried.and_then(Carried::take) {
                Some(answer) => Known { answer, raised: None, complete: true },
                None => Known::of(StatusCode::INTERNAL_SERVER_ERROR),
            }
        }
        ErrorKind::Io => {
            let asked = error.source().and_then(|source| asked_for(source.downcast_ref()?));
            let known = Known::of(StatusCode::INTERNAL_SERVER_ERROR);
            Known { answer: asked.unwrap_or(known.answer), ..known }
        }
        ErrorKind::Unavailable | ErrorKind::Desync => {
            let known = Known::of(StatusCode::SERVICE_UNAVAILABLE);
            Known { answer: known.answer.with_header(header::RETRY_AFTER, RETRY_AFTER), ..known }
        }
        ErrorKind::Gone => {
            let known = Known::of(StatusCode::CONFLICT);
            let text = "The session ended while this request was running.";
            Known { answer: known.answer.with_message(text), ..known }
        }
        // It only carries what another crate said.
        ErrorKind::Other => (error.source().and_then(|source| causes(source).find_map(known)))
            .unwrap_or_else(|| Known::of(StatusCode::INTERNAL_SERVER_ERROR)),
        _ => Known::of(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

/// The answer that an I/O error asks for: a server whose reader of a request body fails says so what it is
/// to be, by an [`HttpError`] inside.
pub(crate) fn asked_for(error: &std::io::Error) -> Option<HttpError> {
    let inner: &Error = error.get_ref()?.downcast_ref()?;
    let carried: &Carried = inner.source()?.downcast_ref()?;
    let carried = lock(&carried.0);
    let asked = carried.as_ref()?;
    Some(HttpError::of(asked.status()).with_message(asked.message()))
}

/// An [`HttpError`] on its way through a function that returns [`Error`].
#[derive(Debug)]
struct Carried(Mutex<Option<HttpError>>);

impl Carried {
    fn take(&self) -> Option<HttpError> {
        lock(&self.0).take()
    }
}

impl fmt::Display for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an answer on its way out of a handler")
    }
}

impl StdError for Carried {}

impl From<HttpError> for Error {
    fn from(error: HttpError) -> Error {
        let text = format!("{} {}", error.status(), error.message());
        Error::new(ErrorKind::Http, text.trim_end()).with_source(Carried(Mutex::new(Some(error))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::http_error::abort;
    use crate::message::into_response::IntoResponse;
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
