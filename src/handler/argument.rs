//! What a handler's argument can be.

use std::any::Any;

use http::{HeaderMap, Method, StatusCode};

use super::binder::Binder;
use super::extract::apply_form_limits;
use crate::message::request::Request;
use crate::message::response::{HttpError, ResponseHead};
use crate::pipeline::exchange::Exchange;
use crate::pipeline::plugin::Provided;
use crate::pipeline::service::Urls;

/// What a handler can ask for.
///
/// | argument | what it is |
/// |---|---|
/// | `&mut T`, `T:` [`Provided`] | the value of the plugin that provides `T`: `&mut Session` |
/// | `Option<&mut T>` | the same, or `None` where the plugin has none (Redis is down) |
/// | `&str`, `String`, `char`, `bool`, integers, floats | a wildcard; a value that does not fit does not match |
/// | `Option` of those | a wildcard that not every rule of the route has |
/// | [`Wildcard<T>`](super::Wildcard) | a wildcard of any type that is `FromStr` |
/// | `&Request` | the request |
/// | `&mut ResponseHead` | headers and cookies for the answer, whatever it will be |
/// | `&Urls` | addresses of named routes |
/// | [`Query<T>`](super::Query), [`Form<T>`](super::Form), [`Json<T>`](crate::Json) | the query, the form or the JSON body, deserialized |
/// | `Result<Form<T>, FormError>`, `Result<Query<T>, FormError>` | the same, or what is wrong with it and what was sent |
/// | `Checked<Form<T>>`, `Checked<Query<T>>` (feature `garde`) | the same, after the checks of its type |
/// | `&HeaderMap`, `Method` | of the request |
///
/// An argument has an owned state that is taken from the exchange, and an item that is lent from it while
/// the handler runs. Implement it for a type of your own to make an extractor.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a handler argument",
    label = "`{Self}` is not something a handler can ask for",
    note = "a handler takes `&mut Session` (what a plugin provides), `Option<&mut Session>`, `&Request`, wildcards as `&str`, `String`, numbers or `Option` of them, `Query<T>`, `Form<T>`, `Json<T>`, `Wildcard<T>`, `&mut ResponseHead`"
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

    /// Takes the state out of the exchange.
    fn take(plan: &Self::Plan, exchange: &mut Exchange) -> Self::State;

    /// Why the handler cannot run with this state; nothing by default.
    fn refusal(state: &mut Self::State) -> Option<HttpError> {
        let _ = state;
        None
    }

    /// Lends the handler its argument. Not called after a refusal.
    fn lend<'a>(
        plan: &'a Self::Plan,
        state: &'a mut Self::State,
        exchange: &'a Exchange,
    ) -> Self::Item<'a>;

    /// Puts the state back. Not called when the handler panics.
    fn put_back(plan: &Self::Plan, state: Self::State, exchange: &mut Exchange) {
        let _ = (plan, state, exchange);
    }
}

type Slot = Option<Box<dyn Any + Send>>;

fn take_slot(slot: usize, exchange: &mut Exchange) -> Slot {
    exchange.slot(slot).and_then(Option::take)
}

fn put_slot(slot: usize, state: Slot, exchange: &mut Exchange) {
    if let Some(place) = exchange.slot(slot) {
        *place = state;
    }
}

impl<T: Provided> Argument for &mut T {
    type Plan = usize;
    type State = Slot;
    type Item<'a> = &'a mut T;

    fn plan(binder: &mut Binder<'_>) -> Option<usize> {
        binder.slot::<T>(true)
    }

    fn take(slot: &usize, exchange: &mut Exchange) -> Slot {
        take_slot(*slot, exchange)
    }

    fn refusal(state: &mut Slot) -> Option<HttpError> {
        let held = state.as_ref().is_some_and(|value| value.is::<T>());
        (!held).then(|| {
            HttpError::new(StatusCode::INTERNAL_SERVER_ERROR).with_source(format!(
                "a plugin promised {} and put none into the exchange",
                std::any::type_name::<T>()
            ))
        })
    }

    fn lend<'a>(_: &'a usize, state: &'a mut Slot, _: &'a Exchange) -> &'a mut T {
        match state.as_mut().and_then(|value| value.downcast_mut()) {
            Some(value) => value,
            None => unreachable!("refused when there is none"),
        }
    }

    fn put_back(slot: &usize, state: Slot, exchange: &mut Exchange) {
        put_slot(*slot, state, exchange);
    }
}

impl<T: Provided> Argument for Option<&mut T> {
    type Plan = usize;
    type State = Slot;
    type Item<'a> = Option<&'a mut T>;

    fn plan(binder: &mut Binder<'_>) -> Option<usize> {
        binder.slot::<T>(false)
    }

    fn take(slot: &usize, exchange: &mut Exchange) -> Slot {
        take_slot(*slot, exchange)
    }

    fn lend<'a>(_: &'a usize, state: &'a mut Slot, _: &'a Exchange) -> Option<&'a mut T> {
        state.as_mut()?.downcast_mut()
    }

    fn put_back(slot: &usize, state: Slot, exchange: &mut Exchange) {
        put_slot(*slot, state, exchange);
    }
}

impl Argument for &mut ResponseHead {
    type Plan = ();
    type State = ResponseHead;
    type Item<'a> = &'a mut ResponseHead;

    fn plan(binder: &mut Binder<'_>) -> Option<()> {
        binder.head()
    }

    fn take((): &(), exchange: &mut Exchange) -> ResponseHead {
        exchange.lend_head()
    }

    fn lend<'a>(_: &'a (), state: &'a mut ResponseHead, _: &'a Exchange) -> &'a mut ResponseHead {
        state
    }

    fn put_back((): &(), state: ResponseHead, exchange: &mut Exchange) {
        exchange.return_head(state);
    }
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
