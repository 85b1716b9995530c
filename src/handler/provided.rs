//! Arguments that borrow what plugins and providers provide, and the app's state.

use std::any::{Any, type_name};
use std::sync::Arc;

use super::argument::Argument;
use super::binder::Binder;
use crate::message::http_error::HttpError;
use crate::pipeline::exchange::Exchange;
use crate::pipeline::plugin::Provided;
use crate::pipeline::provider::{Value, ValueSource, missing_value};

/// A value while a handler borrows it, or the error if it is unavailable.
#[derive(Default)]
pub struct Borrowed {
    value: Option<Value>,
    refused: Option<HttpError>,
}

impl Borrowed {
    /// Has a provider make the value, and fails if there is none.
    fn make<T: Provided>(place: ValueSource, exchange: &mut Exchange) -> Borrowed {
        let refused = exchange.refusal_at(place, type_name::<T>()).or_else(|| {
            let held = exchange.value_at(place).is_some_and(|value| value.is::<T>());
            (!held).then(|| missing_value(type_name::<T>()))
        });
        Borrowed { value: None, refused }
    }

    /// The same for an optional value. If not `lenient`, an error of the provider still fails.
    fn make_optional(place: ValueSource, lenient: bool, exchange: &mut Exchange) -> Borrowed {
        exchange.make(place);
        let refused = if lenient { None } else { exchange.failure_at(place) };
        Borrowed { value: None, refused }
    }

    fn get_mut<T: Provided>(&mut self) -> Option<&mut T> {
        self.value.as_mut()?.downcast_mut()
    }
}

fn present<T>(value: Option<T>) -> T {
    value.unwrap_or_else(|| unreachable!("refused when there is none"))
}

/// Returns the value of a provider after a panic of the function that borrowed it: it must still be finished.
fn keep_for_finish(place: ValueSource, borrowed: Borrowed, exchange: &mut Exchange) {
    if let ValueSource::Provider(_) = place {
        exchange.return_value(place, borrowed.value);
    }
}

impl<T: Provided> Argument for &mut T {
    type Plan = ValueSource;
    type State = Borrowed;
    type Item<'a> = &'a mut T;

    fn plan(binder: &mut Binder<'_>) -> Option<ValueSource> {
        binder.borrow::<T>(true)
    }

    fn take(place: &ValueSource, exchange: &mut Exchange) -> Borrowed {
        Borrowed::make::<T>(*place, exchange)
    }

    fn refusal(borrowed: &mut Borrowed) -> Option<HttpError> {
        borrowed.refused.take()
    }

    fn hold(place: &ValueSource, borrowed: &mut Borrowed, exchange: &mut Exchange) {
        borrowed.value = exchange.lend_value(*place);
    }

    fn lend<'a>(_: &'a ValueSource, borrowed: &'a mut Borrowed, _: &'a Exchange) -> &'a mut T {
        present(borrowed.get_mut())
    }

    fn put_back(place: &ValueSource, borrowed: Borrowed, exchange: &mut Exchange) {
        exchange.return_value(*place, borrowed.value);
    }

    fn abandon(place: &ValueSource, borrowed: Borrowed, exchange: &mut Exchange) {
        keep_for_finish(*place, borrowed, exchange);
    }
}

impl<T: Provided> Argument for Option<&mut T> {
    type Plan = Optional<ValueSource>;
    type State = Borrowed;
    type Item<'a> = Option<&'a mut T>;

    fn plan(binder: &mut Binder<'_>) -> Option<Optional<ValueSource>> {
        Some(Optional { of: binder.borrow::<T>(false)?, lenient: binder.is_lenient() })
    }

    fn take(plan: &Optional<ValueSource>, exchange: &mut Exchange) -> Borrowed {
        Borrowed::make_optional(plan.of, plan.lenient, exchange)
    }

    fn refusal(borrowed: &mut Borrowed) -> Option<HttpError> {
        borrowed.refused.take()
    }

    fn hold(plan: &Optional<ValueSource>, borrowed: &mut Borrowed, exchange: &mut Exchange) {
        borrowed.value = exchange.lend_value(plan.of);
    }

    fn lend<'a>(
        _: &'a Optional<ValueSource>,
        borrowed: &'a mut Borrowed,
        _: &'a Exchange,
    ) -> Option<&'a mut T> {
        borrowed.get_mut()
    }

    fn put_back(plan: &Optional<ValueSource>, borrowed: Borrowed, exchange: &mut Exchange) {
        exchange.return_value(plan.of, borrowed.value);
    }

    fn abandon(plan: &Optional<ValueSource>, borrowed: Borrowed, exchange: &mut Exchange) {
        keep_for_finish(plan.of, borrowed, exchange);
    }
}

/// The place of an optional value.
pub struct Optional<P> {
    of: P,
    /// It also does without where a provider fails.
    lenient: bool,
}

/// The place that a shared reference is to, or the state itself.
pub enum Shared {
    /// To state of the app, the same for all requests.
    State(Arc<dyn Any + Send + Sync>),
    /// To a value of this request.
    Value(ValueSource),
}

impl Shared {
    fn place(&self) -> ValueSource {
        match self {
            Shared::State(_) => ValueSource::None,
            Shared::Value(place) => *place,
        }
    }

    fn lend<'a, T: Provided>(&'a self, borrowed: &'a mut Borrowed) -> Option<&'a T> {
        match self {
            Shared::State(state) => (**state).downcast_ref(),
            Shared::Value(_) => borrowed.get_mut::<T>().map(|value| &*value),
        }
    }
}

impl<T: Provided> Argument for &T {
    type Plan = Shared;
    type State = Borrowed;
    type Item<'a> = &'a T;

    fn plan(binder: &mut Binder<'_>) -> Option<Shared> {
        binder.share::<T>(true)
    }

    fn take(shared: &Shared, exchange: &mut Exchange) -> Borrowed {
        match shared {
            Shared::State(_) => Borrowed::default(),
            Shared::Value(place) => Borrowed::make::<T>(*place, exchange),
        }
    }

    fn refusal(borrowed: &mut Borrowed) -> Option<HttpError> {
        borrowed.refused.take()
    }

    fn hold(shared: &Shared, borrowed: &mut Borrowed, exchange: &mut Exchange) {
        borrowed.value = exchange.lend_value(shared.place());
    }

    fn lend<'a>(shared: &'a Shared, borrowed: &'a mut Borrowed, _: &'a Exchange) -> &'a T {
        present(shared.lend(borrowed))
    }

    fn put_back(shared: &Shared, borrowed: Borrowed, exchange: &mut Exchange) {
        exchange.return_value(shared.place(), borrowed.value);
    }

    fn abandon(shared: &Shared, borrowed: Borrowed, exchange: &mut Exchange) {
        keep_for_finish(shared.place(), borrowed, exchange);
    }
}

impl<T: Provided> Argument for Option<&T> {
    type Plan = Optional<Shared>;
    type State = Borrowed;
    type Item<'a> = Option<&'a T>;

    fn plan(binder: &mut Binder<'_>) -> Option<Optional<Shared>> {
        Some(Optional { of: binder.share::<T>(false)?, lenient: binder.is_lenient() })
    }

    fn take(plan: &Optional<Shared>, exchange: &mut Exchange) -> Borrowed {
        Borrowed::make_optional(plan.of.place(), plan.lenient, exchange)
    }

    fn refusal(borrowed: &mut Borrowed) -> Option<HttpError> {
        borrowed.refused.take()
    }

    fn hold(plan: &Optional<Shared>, borrowed: &mut Borrowed, exchange: &mut Exchange) {
        borrowed.value = exchange.lend_value(plan.of.place());
    }

    fn lend<'a>(
        plan: &'a Optional<Shared>,
        borrowed: &'a mut Borrowed,
        _: &'a Exchange,
    ) -> Option<&'a T> {
        plan.of.lend(borrowed)
    }

    fn put_back(plan: &Optional<Shared>, borrowed: Borrowed, exchange: &mut Exchange) {
        exchange.return_value(plan.of.place(), borrowed.value);
    }

    fn abandon(plan: &Optional<Shared>, borrowed: Borrowed, exchange: &mut Exchange) {
        keep_for_finish(plan.of.place(), borrowed, exchange);
    }
}
