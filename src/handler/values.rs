//! Arguments that borrow what plugins and providers provide, and the app's state.

use std::any::{Any, type_name};
use std::sync::Arc;

use super::argument::Argument;
use super::binder::Binder;
use crate::message::http_error::HttpError;
use crate::pipeline::exchange::Exchange;
use crate::pipeline::plugin::Provided;
use crate::pipeline::provider::{Place, Value, broken_promise};

/// A value while a handler borrows it, or why it cannot.
#[derive(Default)]
pub struct Held {
    value: Option<Value>,
    refused: Option<HttpError>,
}

impl Held {
    /// Looks whether the value is there; a provider makes it now.
    fn look<T: Provided>(place: Place, exchange: &mut Exchange) -> Held {
        let refused = exchange.refusal_at(place, type_name::<T>()).or_else(|| {
            let held = exchange.value_at(place).is_some_and(|value| value.is::<T>());
            (!held).then(|| broken_promise(type_name::<T>()))
        });
        Held { value: None, refused }
    }

    /// The same for who can do without.
    fn look_for_option(place: Place, lenient: bool, exchange: &mut Exchange) -> Held {
        exchange.make(place);
        let refused = if lenient { None } else { exchange.failure_at(place) };
        Held { value: None, refused }
    }

    fn borrowed<T: Provided>(&mut self) -> Option<&mut T> {
        self.value.as_mut()?.downcast_mut()
    }
}

fn there<T>(value: Option<T>) -> T {
    value.unwrap_or_else(|| unreachable!("refused when there is none"))
}

/// What a provider has made outlives a panic of who borrows it: it is still to be finished.
fn saved(place: Place, held: Held, exchange: &mut Exchange) {
    if let Place::Provider(_) = place {
        exchange.return_value(place, held.value);
    }
}

impl<T: Provided> Argument for &mut T {
    type Plan = Place;
    type State = Held;
    type Item<'a> = &'a mut T;

    fn plan(binder: &mut Binder<'_>) -> Option<Place> {
        binder.borrow::<T>(true)
    }

    fn take(place: &Place, exchange: &mut Exchange) -> Held {
        Held::look::<T>(*place, exchange)
    }

    fn refusal(held: &mut Held) -> Option<HttpError> {
        held.refused.take()
    }

    fn hold(place: &Place, held: &mut Held, exchange: &mut Exchange) {
        held.value = exchange.lend_value(*place);
    }

    fn lend<'a>(_: &'a Place, held: &'a mut Held, _: &'a Exchange) -> &'a mut T {
        there(held.borrowed())
    }

    fn put_back(place: &Place, held: Held, exchange: &mut Exchange) {
        exchange.return_value(*place, held.value);
    }

    fn abandon(place: &Place, held: Held, exchange: &mut Exchange) {
        saved(*place, held, exchange);
    }
}

impl<T: Provided> Argument for Option<&mut T> {
    type Plan = Optional<Place>;
    type State = Held;
    type Item<'a> = Option<&'a mut T>;

    fn plan(binder: &mut Binder<'_>) -> Option<Optional<Place>> {
        Some(Optional { of: binder.borrow::<T>(false)?, lenient: binder.is_lenient() })
    }

    fn take(plan: &Optional<Place>, exchange: &mut Exchange) -> Held {
        Held::look_for_option(plan.of, plan.lenient, exchange)
    }

    fn refusal(held: &mut Held) -> Option<HttpError> {
        held.refused.take()
    }

    fn hold(plan: &Optional<Place>, held: &mut Held, exchange: &mut Exchange) {
        held.value = exchange.lend_value(plan.of);
    }

    fn lend<'a>(_: &'a Optional<Place>, held: &'a mut Held, _: &'a Exchange) -> Option<&'a mut T> {
        held.borrowed()
    }

    fn put_back(plan: &Optional<Place>, held: Held, exchange: &mut Exchange) {
        exchange.return_value(plan.of, held.value);
    }

    fn abandon(plan: &Optional<Place>, held: Held, exchange: &mut Exchange) {
        saved(plan.of, held, exchange);
    }
}

/// What an argument borrows that can do without.
pub struct Optional<P> {
    of: P,
    /// It also does without where a provider fails.
    lenient: bool,
}

/// Where a shared reference leads.
pub enum Shared {
    /// To state of the app, the same for all requests.
    State(Arc<dyn Any + Send + Sync>),
    /// To a value of this request.
    Value(Place),
}

impl Shared {
    fn place(&self) -> Place {
        match self {
            Shared::State(_) => Place::Nowhere,
            Shared::Value(place) => *place,
        }
    }

    fn lend<'a, T: Provided>(&'a self, held: &'a mut Held) -> Option<&'a T> {
        match self {
            Shared::State(state) => (**state).downcast_ref(),
            Shared::Value(_) => held.borrowed::<T>().map(|value| &*value),
        }
    }
}

impl<T: Provided> Argument for &T {
    type Plan = Shared;
    type State = Held;
    type Item<'a> = &'a T;

    fn plan(binder: &mut Binder<'_>) -> Option<Shared> {
        binder.share::<T>(true)
    }

    fn take(shared: &Shared, exchange: &mut Exchange) -> Held {
        match shared {
            Shared::State(_) => Held::default(),
            Shared::Value(place) => Held::look::<T>(*place, exchange),
        }
    }

    fn refusal(held: &mut Held) -> Option<HttpError> {
        held.refused.take()
    }

    fn hold(shared: &Shared, held: &mut Held, exchange: &mut Exchange) {
        held.value = exchange.lend_value(shared.place());
    }

    fn lend<'a>(shared: &'a Shared, held: &'a mut Held, _: &'a Exchange) -> &'a T {
        there(shared.lend(held))
    }

    fn put_back(shared: &Shared, held: Held, exchange: &mut Exchange) {
        exchange.return_value(shared.place(), held.value);
    }

    fn abandon(shared: &Shared, held: Held, exchange: &mut Exchange) {
        saved(shared.place(), held, exchange);
    }
}

impl<T: Provided> Argument for Option<&T> {
    type Plan = Optional<Shared>;
    type State = Held;
    type Item<'a> = Option<&'a T>;

    fn plan(binder: &mut Binder<'_>) -> Option<Optional<Shared>> {
        Some(Optional { of: binder.share::<T>(false)?, lenient: binder.is_lenient() })
    }

    fn take(plan: &Optional<Shared>, exchange: &mut Exchange) -> Held {
        Held::look_for_option(plan.of.place(), plan.lenient, exchange)
    }

    fn refusal(held: &mut Held) -> Option<HttpError> {
        held.refused.take()
    }

    fn hold(plan: &Optional<Shared>, held: &mut Held, exchange: &mut Exchange) {
        held.value = exchange.lend_value(plan.of.place());
    }

    fn lend<'a>(plan: &'a Optional<Shared>, held: &'a mut Held, _: &'a Exchange) -> Option<&'a T> {
        plan.of.lend(held)
    }

    fn put_back(plan: &Optional<Shared>, held: Held, exchange: &mut Exchange) {
        exchange.return_value(plan.of.place(), held.value);
    }

    fn abandon(plan: &Optional<Shared>, held: Held, exchange: &mut Exchange) {
        saved(plan.of.place(), held, exchange);
    }
}
