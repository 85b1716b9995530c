//! Arguments that read the query, the body or a wildcard into a type of the user's.

use std::any::type_name;
use std::fmt;
use std::str::FromStr;

use http::StatusCode;
use serde::de::DeserializeOwned;

use super::argument::Argument;
use super::binder::Binder;
use crate::message::forms::{FormData, FormError, FormLimits, Part};
use crate::message::http_error::HttpError;
use crate::message::into_response::Json;
use crate::message::request::Request;
use crate::pipeline::exchange::Exchange;
use crate::pipeline::provider::public_name;

/// The query, read into a type: `|Query(page): Query<Page>|`. It obeys the rules of [`Form`], and is refused as a form
/// is; `Result<Query<T>, FormError>` leaves that to the handler.
///
/// `Debug` shows no value.
///
/// ```
/// use bottle_session::{App, Query, TestClient};
/// use serde::Deserialize;
///
/// #[derive(Deserialize)]
/// struct Page {
///     number: u32,
/// }
///
/// let mut app = App::new();
/// app.get("/list", |Query(page): Query<Page>| format!("page {}", page.number));
/// let client = TestClient::new(app)?;
/// assert_eq!(client.get("/list?number=3").send().text(), "page 3");
/// assert_eq!(client.get("/list?number=three").send().status(), 400);
/// # Ok::<(), bottle_session::Error>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Query<T>(pub T);

/// The form in the request's body, urlencoded or multipart, read into a type: `|Form(note): Form<NewNote>|`.
///
/// One that does not fit answers 400 with a page that names the fields and what is expected of them. With
/// `Result<Form<T>, FormError>` the handler shows the form again: the [`FormError`] has what was sent, and what is wrong
/// with each field. What is no form answers 415, one past a [limit](crate::FormLimits) 413.
///
/// | type of the field | sent | read |
/// |---|---|---|
/// | `String` | `title=Tea` | `"Tea"`; left empty, the empty text |
/// | a number | `pages=7` | 7; spaces around it do not matter |
/// | `Option` of anything | `pages=` | `None`, as where it was not sent: also an `Option<String>` that was left empty |
/// | `bool` | `public=on` | `true`, as are `true` and `1`; `false`, `off` and `0` are `false` |
/// | the same with `#[serde(default)]` | nothing, as a box that is not ticked | `false` |
/// | `Vec` | `tags=a&tags=b` | both, in the order sent; one is one |
/// | the same with `#[serde(default)]` | nothing | none |
/// | an enum without data | `color=red` | the variant `red` |
/// | [`Upload`](crate::Upload), `Option` or `Vec` of it | a file | the file; no file chosen: an error, `None`, none |
/// | [`Secret`](crate::Secret) | `password=…` | text that is never shown, kept or logged |
///
/// Of several values for one that is wanted, the last counts: `public=0&public=1` is `true`. `#[serde(rename =
/// "tags[]")]` reads names that are no names in Rust. Text that is not UTF-8 is an error at its field, where the type
/// has that field. Fields that the type does not have are passed over. Two `Form`s in one handler read the same form.
///
/// Numbers, bools and lists behind `#[serde(flatten)]` are not read: serde does not say there which type it wants. Such
/// a form answers 500, and the log says what to do: take the inner struct as a second argument.
///
/// `Debug` shows no value.
///
/// ```
/// use bottle_session::{App, Form, TestClient};
/// use serde::Deserialize;
///
/// #[derive(Deserialize)]
/// struct NewNote {
///     title: String,
///     pages: Option<u32>,
/// }
///
/// let mut app = App::new();
/// app.post("/notes", |Form(note): Form<NewNote>| format!("{}, {:?} pages", note.title, note.pages));
/// let sent = TestClient::new(app)?.post("/notes").form(&[("title", "Tea"), ("pages", "")]).send();
/// assert_eq!(sent.text(), "Tea, None pages");
/// # Ok::<(), bottle_session::Error>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Form<T>(pub T);

/// A [`Form`] or [`Query`] that has passed the checks of its type: those that the crate `garde` 0.23 derives. All that is
/// wrong is told at once, each at its field.
///
/// The names of fields are those in Rust, also where serde has another one for the form. Checks run once all types fit.
/// [`FormData::check`] does the same in the handler, with a context, or in another language.
///
/// ```
/// use bottle_session::{App, Checked, Form, FormError, IntoResponse, Secret, TestClient};
/// use garde::Validate;
/// use serde::Deserialize;
///
/// #[derive(Deserialize, Validate)]
/// struct Account {
///     #[garde(email)]
///     email: String,
///     #[garde(range(min = 18))]
///     age: u8,
///     #[garde(length(chars, min = 8))]
///     password: Secret,
///     #[garde(matches(password))]
///     again: Secret,
/// }
///
/// let mut app = App::new();
/// app.post("/join", |form: Result<Checked<Form<Account>>, FormError>| match form {
///     Ok(Checked(Form(account))) => account.email.into_response(),
///     Err(error) => error.messages().map(|wrong| format!("{wrong:?}\n")).collect::<String>().into_response(),
/// });
/// let client = TestClient::new(app)?;
/// let form = [("email", "ada"), ("age", "17"), ("password", "secret"), ("again", "sacred")];
/// assert_eq!(client.post("/join").form(&form).send().text(), "\
/// (\"email\", \"not a valid email: value is missing `@`\")
/// (\"age\", \"lower than 18\")
/// (\"password\", \"length is lower than 8\")
/// (\"again\", \"does not match password field\")
/// ");
/// # Ok::<(), bottle_session::Error>(())
/// ```
#[cfg(feature = "garde")]
#[derive(Clone, Debug)]
pub struct Checked<T>(pub T);

/// A wildcard of any type that is [`FromStr`]: `|Wildcard(address): Wildcard<Ipv4Addr>|`. A value that
/// cannot be read does not match the rule.
///
/// ```
/// use bottle_session::{App, TestClient, Wildcard};
/// use std::net::Ipv4Addr;
///
/// let mut app = App::new();
/// app.get("/host/<address>", |Wildcard(address): Wildcard<Ipv4Addr>| address.is_private().to_string());
/// let client = TestClient::new(app)?;
/// assert_eq!(client.get("/host/10.0.0.7").send().text(), "true");
/// assert_eq!(client.get("/host/seven").send().status(), 404);
/// # Ok::<(), bottle_session::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Wildcard<T>(pub T);

impl<T> fmt::Debug for Form<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Form<{}>", public_name(type_name::<T>()))
    }
}

impl<T> fmt::Debug for Query<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Query<{}>", public_name(type_name::<T>()))
    }
}

/// What is read from a request, or refused.
pub trait Extract: Sized {
    /// Why it cannot be had.
    type Error: Into<HttpError>;

    /// As what it takes the body, where it does.
    const BODY: Option<&'static str>;

    /// Reads it.
    fn extract(request: &Request) -> Result<Self, Self::Error>;
}

impl<T: DeserializeOwned> Extract for Query<T> {
    type Error = FormError;
    const BODY: Option<&'static str> = None;

    fn extract(request: &Request) -> Result<Query<T>, FormError> {
        FormData::of_query(request)?.read(Part::Query).map(Query)
    }
}

impl<T: DeserializeOwned> Extract for Form<T> {
    type Error = FormError;
    const BODY: Option<&'static str> = Some("a form");

    fn extract(request: &Request) -> Result<Form<T>, FormError> {
        request.form_data()?.read(Part::Form).map(Form)
    }
}

impl<T: DeserializeOwned> Extract for Json<T> {
    type Error = HttpError;
    const BODY: Option<&'static str> = Some("JSON");

    fn extract(request: &Request) -> Result<Json<T>, HttpError> {
        let content_type = request.content_type();
        if content_type != "application/json" && !content_type.ends_with("+json") {
            return Err(HttpError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE)
                .with_message(format!("Expected application/json, not {content_type:?}.")));
        }
        Ok(Json(request.json()?))
    }
}

#[cfg(feature = "garde")]
impl<T: DeserializeOwned + garde::Validate<Context: Default>> Extract for Checked<Query<T>> {
    type Error = FormError;
    const BODY: Option<&'static str> = None;

    fn extract(request: &Request) -> Result<Checked<Query<T>>, FormError> {
        let query = FormData::of_query(request)?;
        let value: T = query.read(Part::Query)?;
        query.check_part(Part::Query, &value, &T::Context::default())?;
        Ok(Checked(Query(value)))
    }
}

#[cfg(feature = "garde")]
impl<T: DeserializeOwned + garde::Validate<Context: Default>> Extract for Checked<Form<T>> {
    type Error = FormError;
    const BODY: Option<&'static str> = Form::<T>::BODY;

    fn extract(request: &Request) -> Result<Checked<Form<T>>, FormError> {
        let Form(value) = Form::<T>::extract(request)?;
        request.form_data()?.check(&value, &T::Context::default())?;
        Ok(Checked(Form(value)))
    }
}

/// Reads a form within the limits of its route.
pub(crate) fn apply_form_limits(exchange: &mut Exchange) {
    if let Some(limits) = exchange.route().and_then(|route| route.config::<FormLimits>()).copied() {
        exchange.request_mut().set_form_limits(limits);
    }
}

fn plan<E: Extract>(binder: &mut Binder<'_>) -> Option<()> {
    E::BODY.map_or(Some(()), |kind| binder.body(kind))
}

fn take<E: Extract>(exchange: &mut Exchange) -> Option<Result<E, E::Error>> {
    apply_form_limits(exchange);
    Some(E::extract(exchange.request()))
}

macro_rules! extractor {
    ($extractor:ty, $($bound:tt)*) => {
        impl<T: $($bound)*> Argument for $extractor {
            type Plan = ();
            type State = Option<Result<$extractor, <$extractor as Extract>::Error>>;
            type Item<'a> = $extractor;

            fn plan(binder: &mut Binder<'_>) -> Option<()> {
                plan::<$extractor>(binder)
            }

            fn take((): &(), exchange: &mut Exchange) -> Self::State {
                take(exchange)
            }

            fn refusal(state: &mut Self::State) -> Option<HttpError> {
                match state.take()? {
                    Ok(value) => {
                        *state = Some(Ok(value));
                        None
                    }
                    Err(error) => Some(error.into()),
                }
            }

            fn lend<'a>(_: &'a (), state: &'a mut Self::State, _: &'a Exchange) -> $extractor {
                match state.take() {
                    Some(Ok(value)) => value,
                    _ => unreachable!("lent once, and refused when there is none"),
                }
            }
        }
    };
}

extractor!(Query<T>, DeserializeOwned);
extractor!(Form<T>, DeserializeOwned);
extractor!(Json<T>, DeserializeOwned);
#[cfg(feature = "garde")]
extractor!(Checked<Query<T>>, DeserializeOwned + garde::Validate<Context: Default>);
#[cfg(feature = "garde")]
extractor!(Checked<Form<T>>, DeserializeOwned + garde::Validate<Context: Default>);

impl<E: Extract<Error = FormError>> Argument for Result<E, FormError> {
    type Plan = ();
    type State = Option<Result<E, FormError>>;
    type Item<'a> = Result<E, FormError>;

    fn plan(binder: &mut Binder<'_>) -> Option<()> {
        plan::<E>(binder)
    }

    fn take((): &(), exchange: &mut Exchange) -> Self::State {
        take(exchange)
    }

    /// What the visitor can do nothing about is not the handler's either.
    fn refusal(state: &mut Self::State) -> Option<HttpError> {
        let is_ours = |error: &FormError| error.status().is_server_error();
        match state.take_if(|read| read.as_ref().is_err_and(is_ours)) {
            Some(Err(error)) => Some(error.into()),
            _ => None,
        }
    }

    fn lend<'a>(_: &'a (), state: &'a mut Self::State, _: &'a Exchange) -> Result<E, FormError> {
        state.take().unwrap_or_else(|| unreachable!("lent once, and refused when there is none"))
    }
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
