//! What a handler's argument can be.

use http::{HeaderMap, Method, StatusCode};

use super::binder::{Binder, Role};
use super::extract::apply_form_limits;
use crate::message::http_error::HttpError;
use crate::message::request::Request;
use crate::message::response::Response;
use crate::message::response_head::ResponseHead;
use crate::pipeline::exchange::Exchange;
use crate::pipeline::shutdown::ShutdownHandle;
use crate::pipeline::urls::Urls;

/// What a handler can ask for.
///
/// | argument | what it is |
/// |---|---|
/// | `&mut T`, `T:` [`Provided`](crate::Provided) | the value of the plugin or [provider](crate::App::provide) that provides `T`: `&mut Session` |
/// | `&T` | the same, only to look at; or the [state](crate::App::state) of the app |
/// | `Option<&mut T>`, `Option<&T>` | the same, or `None` where the plugin has none (Redis is down), or where the provider answers with less than a 500 (nobody is logged in) |
/// | `&str`, `String`, `char`, `bool`, integers, floats | a wildcard; a value that does not fit does not match |
/// | `Option` of those | a wildcard that not every rule of the route has |
/// | [`Wildcard<T>`](super::Wildcard) | a wildcard of any type that is `FromStr` |
/// | `&Request` | the request |
/// | `&mut ResponseHead` | headers and cookies for the answer, whatever it will be |
/// | `&Urls` | addresses of named routes |
/// | `&ShutdownHandle` | says when the server is to stop, for what an answer streams |
/// | [`Query<T>`](super::Query), [`Form<T>`](super::Form), [`Json<T>`](crate::Json) | the query, the form or the JSON body, deserialized |
/// | `Result<Form<T>, FormError>`, `Result<Query<T>, FormError>` | the same, or what is wrong with it and what was sent |
/// | `Checked<Form<T>>`, `Checked<Query<T>>` (feature `garde`) | the same, after the checks of its type |
/// | `&HeaderMap`, `Method` | of the request |
/// | `&HttpError` | the error, in an [error page](crate::App::error) |
/// | `&mut Response`, `&Response` | the answer, in an [after-request hook](crate::App::after_request) |
///
/// An argument has an owned state that is taken from the exchange, and an item that is lent from it while
/// the handler runs. Implement it for a type of your own to make an extractor. One that reads what a plugin or provider
/// gives asks for it in [`plan`](Argument::plan), and finds it in [`take`](Argument::take) wherever it stands among the
/// arguments:
///
/// ```
/// use bottle_session::{App, Argument, Asked, Binder, Exchange, HttpError, Session, SessionPlugin, TestClient};
///
/// struct Name(String);
///
/// impl Argument for Name {
///     type Plan = Asked<Session>;
///     type State = Result<Name, Option<HttpError>>;
///     type Item<'a> = Name;
///
///     fn plan(binder: &mut Binder<'_>) -> Option<Asked<Session>> {
///         binder.ask()
///     }
///
///     fn take(asked: &Asked<Session>, exchange: &mut Exchange) -> Self::State {
///         let session = exchange.asked(asked).map_err(Some)?;
///         Ok(Name(session.get("name").unwrap_or("stranger").to_owned()))
///     }
///
///     fn refusal(state: &mut Self::State) -> Option<HttpError> {
///         state.as_mut().err().and_then(Option::take)
///     }
///
///     fn lend<'a>(_: &'a Asked<Session>, state: &'a mut Self::State, _: &'a Exchange) -> Name {
///         std::mem::replace(state, Err(None)).unwrap_or(Name(String::new()))
///     }
/// }
///
/// let mut app = App::new();
/// app.install(SessionPlugin::new().in_memory())?;
/// app.get("/", |session: &mut Session, name: Name| format!("{} {}", session.is_new(), name.0));
/// assert_eq!(TestClient::new(app)?.get("/").send().text(), "true stranger");
/// # Ok::<(), bottle_session::Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a handler argument",
    label = "`{Self}` is not something a handler can ask for",
    note = "a handler takes `&mut Session` (what a plugin or `app.provide(…)` provides), `Option<&mut Session>`, `&T` (the app's state), `&Request`, wildcards as `&str`, `String`, numbers or `Option` of them, `Query<T>`, `Form<T>`, `Json<T>`, `Wildcard<T>`, `&mut ResponseHead`"
)]
pub trait Argument {
    /// What was settled when the app was built.
    type Plan: Send + Sync + 'static;
    /// What is taken from the exchange before the handler runs.
    type State;
    /// What the handler gets.
    type Item<'a>;

    /// Settles what the argument asks for, or tells the binder why it cannot have it.
    fn plan(binder: &mut Binder<'_>) -> Option<Self::Plan>;

    /// Takes the state out of the exchange. All values are still there: what arguments borrow, they
    /// [hold](Argument::hold) only once none of them refuses. Not called once an argument in front of this one has
    /// refused.
    fn take(plan: &Self::Plan, exchange: &mut Exchange) -> Self::State;

    /// Why the handler cannot run with this state; nothing by default.
    fn refusal(state: &mut Self::State) -> Option<HttpError> {
        let _ = state;
        None
    }

    /// Moves what the handler is to borrow out of the exchange; nothing by default. Not called after a refusal.
    fn hold(plan: &Self::Plan, state: &mut Self::State, exchange: &mut Exchange) {
        let _ = (plan, state, exchange);
    }

    /// Lends the handler its argument. Not called after a refusal.
    fn lend<'a>(
        plan: &'a Self::Plan,
        state: &'a mut Self::State,
        exchange: &'a Exchange,
    ) -> Self::Item<'a>;

    /// Puts the state back. When the handler panics, [`abandon`](Argument::abandon) is called instead.
    fn put_back(plan: &Self::Plan, state: Self::State, exchange: &mut Exchange) {
        let _ = (plan, state, exchange);
    }

    /// The handler has panicked: the state is dropped, unless something of it must not be lost.
    fn abandon(plan: &Self::Plan, state: Self::State, exchange: &mut Exchange) {
        let _ = (plan, state, exchange);
    }
}

impl Argument for &mut ResponseHead {
    type Plan = ();
    type State = ResponseHead;
    type Item<'a> = &'a mut ResponseHead;

    fn plan(binder: &mut Binder<'_>) -> Option<()> {
        binder.once("&mut ResponseHead")
    }

    fn take((): &(), _: &mut Exchange) -> ResponseHead {
        ResponseHead::default()
    }

    fn hold((): &(), state: &mut ResponseHead, exchange: &mut Exchange) {
        *state = exchange.lend_head();
    }

    fn lend<'a>(_: &'a (), state: &'a mut ResponseHead, _: &'a Exchange) -> &'a mut ResponseHead {
        state
    }

    fn put_back((): &(), state: ResponseHead, exchange: &mut Exchange) {
        // Nothing was lent where another argument has refused; to merge nothing changes nothing.
        exchange.return_head(state);
    }
}

impl Argument for &mut Response {
    type Plan = ();
    type State = Option<Response>;
    type Item<'a> = &'a mut Response;

    fn plan(binder: &mut Binder<'_>) -> Option<()> {
        binder.only_in(Role::AfterHook, "&mut Response")?;
        binder.once("&mut Response")
    }

    fn take((): &(), _: &mut Exchange) -> Option<Response> {
        None
    }

    fn hold((): &(), state: &mut Option<Response>, exchange: &mut Exchange) {
        *state = exchange.take_response();
    }

    fn lend<'a>(_: &'a (), state: &'a mut Option<Response>, _: &'a Exchange) -> &'a mut Response {
        state.get_or_insert_with(|| Response::new(StatusCode::INTERNAL_SERVER_ERROR))
    }

    fn put_back((): &(), state: Option<Response>, exchange: &mut Exchange) {
        if let Some(response) = state {
            exchange.answer(response);
        }
    }
}

macro_rules! of_a_role {
    ($($item:ty, $role:ident, $name:literal: $exchange:ident => $value:expr;)*) => {$(
        impl Argument for &$item {
            type Plan = ();
            type State = ();
            type Item<'a> = &'a $item;

            fn plan(binder: &mut Binder<'_>) -> Option<()> {
                binder.only_in(Role::$role, $name)
            }

            fn take((): &(), _: &mut Exchange) {}

            fn lend<'a>(_: &'a (), _: &'a mut (), $exchange: &'a Exchange) -> &'a $item {
                match $value {
                    Some(value) => value,
                    None => unreachable!("only in functions for which there is one"),
                }
            }
        }
    )*};
}

of_a_role! {
    HttpError, ErrorPage, "&HttpError": exchange => exchange.error();
    Response, AfterHook, "&Response": exchange => exchange.response();
}

impl Argument for &Request {
    type Plan = ();
    type State = ();
    type Item<'a> = &'a Request;

    fn plan(_: &mut Binder<'_>) -> Option<()> {
        Some(())
    }

    fn take((): &(), exchange: &mut Exchange) {
        apply_form_limits(exchange);
    }

    fn lend<'a>(_: &'a (), _: &'a mut (), exchange: &'a Exchange) -> &'a Request {
        exchange.request()
    }
}

macro_rules! borrowed {
    ($($item:ty: $exchange:ident => $value:expr;)*) => {$(
        impl Argument for &$item {
            type Plan = ();
            type State = ();
            type Item<'a> = &'a $item;

            fn plan(_: &mut Binder<'_>) -> Option<()> {
                Some(())
            }

            fn take((): &(), _: &mut Exchange) {}

            fn lend<'a>(_: &'a (), _: &'a mut (), $exchange: &'a Exchange) -> &'a $item {
                $value
            }
        }
    )*};
}

borrowed! {
    HeaderMap: exchange => exchange.request().headers();
    Urls: exchange => exchange.urls();
    ShutdownHandle: exchange => exchange.shutdown();
}

impl Argument for Method {
    type Plan = ();
    type State = ();
    type Item<'a> = Method;

    fn plan(_: &mut Binder<'_>) -> Option<()> {
        Some(())
    }

    fn take((): &(), _: &mut Exchange) {}

    fn lend<'a>(_: &'a (), _: &'a mut (), exchange: &'a Exchange) -> Method {
        exchange.request().method().clone()
    }
}

impl Argument for &str {
    type Plan = usize;
    type State = ();
    type Item<'a> = &'a str;

    fn plan(binder: &mut Binder<'_>) -> Option<usize> {
        binder.wildcard(false, |_| true)
    }

    fn take(_: &usize, _: &mut Exchange) {}

    fn lend<'a>(index: &'a usize, _: &'a mut (), exchange: &'a Exchange) -> &'a str {
        exchange.wildcard_at(*index).unwrap_or_default()
    }
}

impl Argument for Option<&str> {
    type Plan = usize;
    type State = ();
    type Item<'a> = Option<&'a str>;

    fn plan(binder: &mut Binder<'_>) -> Option<usize> {
        binder.wildcard(true, |_| true)
    }

    fn take(_: &usize, _: &mut Exchange) {}

    fn lend<'a>(index: &'a usize, _: &'a mut (), exchange: &'a Exchange) -> Option<&'a str> {
        exchange.wildcard_at(*index)
    }
}

macro_rules! parsed {
    ($holds:expr; $($type:ty)*) => {$(
        impl Argument for $type {
            type Plan = usize;
            type State = Option<$type>;
            type Item<'a> = $type;

            fn plan(binder: &mut Binder<'_>) -> Option<usize> {
                binder.wildcard(false, |text| text.parse::<$type>().is_ok_and(|value| $holds(&value)))
            }

            fn take(index: &usize, exchange: &mut Exchange) -> Option<$type> {
                exchange.wildcard_at(*index)?.parse().ok().filter($holds)
            }

            fn refusal(state: &mut Option<$type>) -> Option<HttpError> {
                state.is_none().then(|| HttpError::new(StatusCode::NOT_FOUND))
            }

            fn lend<'a>(_: &'a usize, state: &'a mut Option<$type>, _: &'a Exchange) -> $type {
                state.take().unwrap_or_default()
            }
        }

        impl Argument for Option<$type> {
            type Plan = usize;
            type State = Option<$type>;
            type Item<'a> = Option<$type>;

            fn plan(binder: &mut Binder<'_>) -> Option<usize> {
                binder.wildcard(true, |text| text.parse::<$type>().is_ok_and(|value| $holds(&value)))
            }

            fn take(index: &usize, exchange: &mut Exchange) -> Option<$type> {
                exchange.wildcard_at(*index)?.parse().ok().filter($holds)
            }

            fn lend<'a>(_: &'a usize, state: &'a mut Option<$type>, _: &'a Exchange) -> Option<$type> {
                state.take()
            }
        }
    )*};
}

parsed! { |_| true; String char bool i8 i16 i32 i64 i128 isize u8 u16 u32 u64 u128 usize }
// What is too large for one is no number, nor is "NaN" or "inf".
parsed! { |value: &f32| value.is_finite(); f32 }
parsed! { |value: &f64| value.is_finite(); f64 }
