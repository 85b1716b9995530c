//! Arguments that read the query, the body or a wildcard into a type of the user's.

use std::str::FromStr;

use http::StatusCode;
use serde::de::DeserializeOwned;

use super::argument::Argument;
use super::binder::Binder;
use crate::message::forms::check_urlencoded;
use crate::message::request::Request;
use crate::message::response::{HttpError, Json};
use crate::pipeline::exchange::Exchange;

/// The query, deserialized: `|Query(page): Query<Page>|`. One that does not fit answers 400.
#[derive(Clone, Debug)]
pub struct Query<T>(pub T);

/// The form of the request's body (`application/x-www-form-urlencoded`), deserialized. Another
/// `Content-Type` answers 415, a form that does not fit 400, one past the body limit 413. A form with files
/// is read with [`Request::form`].
#[derive(Clone, Debug)]
pub struct Form<T>(pub T);

/// A wildcard of any type that is [`FromStr`]: `|Wildcard(address): Wildcard<Ipv4Addr>|`. A value that
/// cannot be read does not match the rule.
#[derive(Clone, Debug)]
pub struct Wildcard<T>(pub T);

type Read<T> = Result<Option<T>, Option<HttpError>>;

fn bad_request(what: &str, error: impl std::fmt::Display) -> HttpError {
    HttpError::new(StatusCode::BAD_REQUEST)
        .with_message(format!("The {what} is not as expected: {error}."))
}

fn query<T: DeserializeOwned>(request: &Request) -> Result<Query<T>, HttpError> {
    serde_urlencoded::from_str(request.query_string())
        .map(Query)
        .map_err(|error| bad_request("query", error))
}

fn form<T: DeserializeOwned>(request: &Request) -> Result<Form<T>, HttpError> {
    let content_type = request.content_type();
    if content_type != "application/x-www-form-urlencoded" {
        return Err(HttpError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE).with_message(format!(
            "Expected a form (application/x-www-form-urlencoded), not {content_type:?}."
        )));
    }
    let body = request.body()?;
    check_urlencoded(body)
        .map_err(|(status, message)| HttpError::new(status).with_message(message))?;
    serde_urlencoded::from_bytes(body).map(Form).map_err(|error| bad_request("form", error))
}

fn json<T: DeserializeOwned>(request: &Request) -> Result<Json<T>, HttpError> {
    let content_type = request.content_type();
    if content_type != "application/json" && !content_type.ends_with("+json") {
        return Err(HttpError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE)
            .with_message(format!("Expected application/json, not {content_type:?}.")));
    }
    Ok(Json(request.json()?))
}

macro_rules! extractors {
    ($($extractor:ident: $read:path;)*) => {$(
        impl<T: DeserializeOwned> Argument for $extractor<T> {
            type Plan = ();
            type State = Read<$extractor<T>>;
            type Item<'a> = $extractor<T>;

            fn plan(_: &mut Binder<'_>) -> Option<()> {
                Some(())
            }

            fn take((): &(), exchange: &mut Exchange) -> Self::State {
                $read(exchange.request()).map(Some).map_err(Some)
            }

            fn refusal(state: &mut Self::State) -> Option<HttpError> {
                state.as_mut().err().and_then(Option::take)
            }

            fn lend<'a>(_: &'a (), state: &'a mut Self::State, _: &'a Exchange) -> $extractor<T> {
                match state.as_mut().ok().and_then(Option::take) {
                    Some(value) => value,
                    None => unreachable!("lent once, and refused when there is none"),
                }
            }
        }
    )*};
}

extractors! {
    Query: query;
    Form: form;
    Json: json;
}

impl<T: FromStr> Argument for Wildcard<T> {
    type Plan = usize;
    type State = Option<T>;
    type Item<'a> = Wildcard<T>;

    fn plan(binder: &mut Binder<'_>) -> Option<usize> {
        binder.wildcard(false, |text| text.parse::<T>().is_ok())
    }

    fn take(index: &usize, exchange: &mut Exchange) -> Option<T> {
        exchange.wildcard_at(*index)?.parse().ok()
    }

    fn refusal(state: &mut Option<T>) -> Option<HttpError> {
        state.is_none().then(|| HttpError::new(StatusCode::NOT_FOUND))
    }

    fn lend<'a>(_: &'a usize, state: &'a mut Option<T>, _: &'a Exchange) -> Wildcard<T> {
        match state.take() {
            Some(value) => Wildcard(value),
            None => unreachable!("lent once, and refused when there is none"),
        }
    }
}
