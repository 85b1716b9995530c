//! Functions of up to eight arguments: handlers and error pages, guards and hooks, providers.

use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use http::StatusCode;

use super::argument::Argument;
use super::binder::Binder;
use crate::message::http_error::HttpError;
use crate::message::into_response::{HookOutcome, IntoResponse};
use crate::message::response::Response;
use crate::pipeline::completion::{HookCallback, PageCallback};
use crate::pipeline::exchange::Exchange;
use crate::pipeline::plugin::Callback;
use crate::pipeline::provider::{Create, ProviderOutcome, Value};

/// What can be registered for a route: closures and functions of up to eight [arguments](Argument), and
/// [`named!`](crate::named) ones.
///
/// It says no more than the shape, so that the compiler names a wrong *argument* rather than the whole
/// closure; [`Handler`] says the rest.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler",
    label = "expected a closure or function of up to eight arguments",
    note = "give each argument of a closure its type: `|session: &mut Session, name: &str| …`"
)]
pub trait Signature<M> {}

/// A function whose arguments all fit. Implemented for every fitting function.
#[doc(hidden)]
pub trait Invoke<M>: Send + Sync + 'static {
    /// What was settled when the app was built.
    type Plans: Send + Sync + 'static;
    /// What the function returns.
    type Reply;

    /// Settles what each argument asks for.
    fn plan(&self, binder: &mut Binder<'_>) -> Option<Self::Plans>;

    /// Runs it, unless an argument refuses.
    fn invoke(
        &self,
        plans: &Self::Plans,
        exchange: &mut Exchange,
    ) -> Result<Self::Reply, HttpError>;
}

/// A handler, or an error page, whose arguments and reply all fit. Implemented for every fitting function; there is
/// nothing to implement.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler",
    label = "expected a closure or function of up to eight arguments",
    note = "give each argument of a closure its type: `|session: &mut Session, name: &str| …`"
)]
pub trait Handler<M>: Signature<M> + Invoke<M> {
    /// Makes the answer.
    #[doc(hidden)]
    fn respond(reply: Self::Reply) -> Response;
}

/// A [guard](crate::App::before) or an [after-request hook](crate::App::after_request): it takes what handlers take, and
/// returns nothing or a `Result` whose error is the answer. Implemented for every fitting function; there is nothing to
/// implement.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a hook",
    label = "expected a closure or function of up to eight arguments",
    note = "give each argument of a closure its type: `|session: &mut Session, request: &Request| …`"
)]
pub trait Hook<M>: Signature<M> + Invoke<M> {
    /// The answer, if the hook gives one.
    #[doc(hidden)]
    fn answer(reply: Self::Reply) -> Option<Response>;
}

/// A [condition](crate::RouteOptions::require): it takes what handlers take, and returns a `bool`. Implemented for every
/// fitting function; there is nothing to implement.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a condition",
    label = "expected a closure or function of up to eight arguments that returns a `bool`",
    note = "give each argument of a closure its type: `|user: &User| user.is_admin`"
)]
pub trait Condition<M>: Signature<M> + Invoke<M> {
    /// Whether the request may go on.
    #[doc(hidden)]
    fn holds(reply: Self::Reply) -> bool;
}

/// What makes a value of others: it takes what handlers take, and returns a `T` that is
/// [`Provided`](crate::Provided), or a `Result` of one. Implemented for every fitting function; there is nothing to
/// implement.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a provider",
    label = "expected a closure or function of up to eight arguments",
    note = "give each argument of a closure its type: `|session: &mut Session, users: &Users| …`"
)]
pub trait ProviderFn<M>: Signature<M> + Invoke<M> {
    /// What it provides.
    type Value: crate::Provided;

    /// The value, or the answer in its place.
    #[doc(hidden)]
    fn value(reply: Self::Reply) -> Result<Self::Value, HttpError>;
}

macro_rules! functions {
    ($(($($argument:ident $state:ident $plan:ident),*);)*) => {$(
        impl<Func, $($argument,)* R> Signature<fn($($argument),*) -> R> for Func
        where
            Func: Fn($($argument),*) -> R,
        {
        }

        impl<Func, $($argument,)* R> Invoke<fn($($argument),*) -> R> for Func
        where
            Func: Fn($($argument),*) -> R + Send + Sync + 'static,
            $($argument: Argument + 'static,)*
            Func: for<'a> Fn($($argument::Item<'a>),*) -> R,
        {
            type Plans = ($($argument::Plan,)*);
            type Reply = R;

            fn plan(&self, binder: &mut Binder<'_>) -> Option<Self::Plans> {
                binder.count(0 $(+ { let _ = stringify!($argument); 1 })*);
                // All of them, so that each says what is wrong with it.
                $(let $plan = binder.next::<$argument>();)*
                Some(($($plan?,)*))
            }

            #[allow(unused_variables, unused_mut, clippy::unused_unit)]
            fn invoke(&self, plans: &Self::Plans, exchange: &mut Exchange) -> Result<R, HttpError> {
                let ($($plan,)*) = plans;
                let mut refused = None::<HttpError>;
                $(
                    let mut $state = None;
                    if refused.is_none() {
                        let mut taken = $argument::take($plan, exchange);
                        refused = $argument::refusal(&mut taken);
                        $state = Some(taken);
                    }
                )*
                if let Some(error) = refused {
                    $(if let Some(state) = $state {
                        $argument::put_back($plan, state, exchange);
                    })*
                    return Err(error);
                }
                $(let Some(mut $state) = $state else { unreachable!("nothing was refused") };)*
                $($argument::hold($plan, &mut $state, exchange);)*
                let lender: &Exchange = exchange;
                let done = catch_unwind(AssertUnwindSafe(|| {
                    self($($argument::lend($plan, &mut $state, lender)),*)
                }));
                match done {
                    Ok(reply) => {
                        $($argument::put_back($plan, $state, exchange);)*
                        Ok(reply)
                    }
                    Err(panic) => {
                        $($argument::abandon($plan, $state, exchange);)*
                        resume_unwind(panic)
                    }
                }
            }
        }

        impl<Func, $($argument,)* R> Handler<fn($($argument),*) -> R> for Func
        where
            Func: Fn($($argument),*) -> R + Send + Sync + 'static,
            $($argument: Argument + 'static,)*
            R: IntoResponse,
            Func: for<'a> Fn($($argument::Item<'a>),*) -> R,
        {
            fn respond(reply: R) -> Response {
                reply.into_response()
            }
        }

        impl<Func, $($argument,)* R> Hook<fn($($argument),*) -> R> for Func
        where
            Func: Fn($($argument),*) -> R + Send + Sync + 'static,
            $($argument: Argument + 'static,)*
            R: HookOutcome,
            Func: for<'a> Fn($($argument::Item<'a>),*) -> R,
        {
            fn answer(reply: R) -> Option<Response> {
                reply.into_answer()
            }
        }

        impl<Func, $($argument,)*> Condition<fn($($argument),*) -> bool> for Func
        where
            Func: Fn($($argument),*) -> bool + Send + Sync + 'static,
            $($argument: Argument + 'static,)*
            Func: for<'a> Fn($($argument::Item<'a>),*) -> bool,
        {
            fn holds(reply: bool) -> bool {
                reply
            }
        }

        impl<Func, $($argument,)* R> ProviderFn<fn($($argument),*) -> R> for Func
        where
            Func: Fn($($argument),*) -> R + Send + Sync + 'static,
            $($argument: Argument + 'static,)*
            R: ProviderOutcome,
            Func: for<'a> Fn($($argument::Item<'a>),*) -> R,
        {
            type Value = R::Value;

            fn value(reply: R) -> Result<R::Value, HttpError> {
                reply.into_value()
            }
        }
    )*};
}

functions! {
    ();
    (A a p1);
    (A a p1, B b p2);
    (A a p1, B b p2, C c p3);
    (A a p1, B b p2, C c p3, D d p4);
    (A a p1, B b p2, C c p3, D d p4, E e p5);
    (A a p1, B b p2, C c p3, D d p4, E e p5, F f p6);
    (A a p1, B b p2, C c p3, D d p4, E e p5, F f p6, G g p7);
    (A a p1, B b p2, C c p3, D d p4, E e p5, F f p6, G g p7, H h p8);
}

/// A function whose arguments are found by their names; made by [`named!`](crate::named).
#[doc(hidden)]
pub struct Named<F> {
    pub names: &'static [&'static str],
    pub handler: F,
}

/// Marks the named form of a function.
#[doc(hidden)]
pub struct ByName<M>(PhantomData<M>);

impl<F: Signature<M>, M> Signature<ByName<M>> for Named<F> {}

impl<F: Invoke<M>, M> Invoke<ByName<M>> for Named<F> {
    type Plans = F::Plans;
    type Reply = F::Reply;

    fn plan(&self, binder: &mut Binder<'_>) -> Option<F::Plans> {
        binder.use_names(self.names);
        self.handler.plan(binder)
    }

    fn invoke(&self, plans: &F::Plans, exchange: &mut Exchange) -> Result<F::Reply, HttpError> {
        self.handler.invoke(plans, exchange)
    }
}

impl<F: Handler<M>, M> Handler<ByName<M>> for Named<F> {
    fn respond(reply: F::Reply) -> Response {
        F::respond(reply)
    }
}

impl<F: Hook<M>, M> Hook<ByName<M>> for Named<F> {
    fn answer(reply: F::Reply) -> Option<Response> {
        F::answer(reply)
    }
}

impl<F: Condition<M>, M> Condition<ByName<M>> for Named<F> {
    fn holds(reply: F::Reply) -> bool {
        F::holds(reply)
    }
}

impl<F: ProviderFn<M>, M> ProviderFn<ByName<M>> for Named<F> {
    type Value = F::Value;

    fn value(reply: F::Reply) -> Result<F::Value, HttpError> {
        F::value(reply)
    }
}

/// Binds a function to a route; called once for each route.
type Bind<T> = Arc<dyn Fn(&mut Binder<'_>) -> Option<T> + Send + Sync>;

pub(crate) type BindReply = Bind<Callback>;
pub(crate) type BindPage = Bind<PageCallback>;
pub(crate) type BindHook = Bind<HookCallback>;
pub(crate) type BindProvider = Bind<Create>;

/// A handler, to be bound.
pub(crate) fn reply<M, H: Handler<M>>(handler: H) -> BindReply {
    let handler = Arc::new(handler);
    Arc::new(move |binder| {
        let (plans, handler) = (handler.plan(binder)?, handler.clone());
        Some(Callback::new(move |exchange| match handler.invoke(&plans, exchange) {
            Ok(reply) => H::respond(reply),
            Err(error) => error.into_response(),
        }))
    })
}

/// An error page, to be bound.
pub(crate) fn page<M, P: Handler<M>>(page: P) -> BindPage {
    let page = Arc::new(page);
    Arc::new(move |binder| {
        let (plans, page) = (page.plan(binder)?, page.clone());
        Some(Arc::new(move |exchange| page.invoke(&plans, exchange).map(P::respond)))
    })
}

/// A guard or a hook, to be bound.
pub(crate) fn hook<M, H: Hook<M>>(hook: H) -> BindHook {
    let hook = Arc::new(hook);
    Arc::new(move |binder| {
        let (plans, hook) = (hook.plan(binder)?, hook.clone());
        Some(Arc::new(move |exchange| hook.invoke(&plans, exchange).map(H::answer)))
    })
}

/// A condition, as a guard that answers 403 where it does not hold, to be bound.
pub(crate) fn condition<M, C: Condition<M>>(condition: C) -> BindHook {
    let condition = Arc::new(condition);
    Arc::new(move |binder| {
        let (plans, condition) = (condition.plan(binder)?, condition.clone());
        Some(Arc::new(move |exchange| {
            let holds = condition.invoke(&plans, exchange).map(C::holds)?;
            Ok((!holds).then(|| HttpError::new(StatusCode::FORBIDDEN).into_response()))
        }))
    })
}

/// A provider, to be bound.
pub(crate) fn provider<M, P: ProviderFn<M>>(provider: P) -> BindProvider {
    let provider = Arc::new(provider);
    Arc::new(move |binder| {
        let (plans, provider) = (provider.plan(binder)?, provider.clone());
        Some(Arc::new(move |exchange| {
            let value = provider.invoke(&plans, exchange).and_then(P::value)?;
            Ok(Box::new(value) as Value)
        }))
    })
}
