//! Handlers: closures and functions, and how their arguments find what they ask for.
//!
//! A handler is any `Fn` of up to eight [arguments](Argument) whose reply is an
//! [`IntoResponse`](crate::IntoResponse). What an argument asks for is settled when the app is built:
//!
//! - in a plain closure or function by *type*: `&mut T` is the value of the one plugin on that route that
//!   provides `T`, and the first wildcard argument is the rule's first wildcard, and so on;
//! - in [`named!`](crate::named) by *keyword*, which is the argument's name.

mod argument;
mod binder;
mod extract;

pub use argument::Argument;
pub use binder::Binder;
pub(crate) use binder::{Provider, Wildcards};
#[cfg(feature = "garde")]
pub use extract::Checked;
pub(crate) use extract::apply_form_limits;
pub use extract::{Form, Query, Wildcard};

use crate::message::response::{IntoResponse, Response};
use crate::pipeline::exchange::Exchange;
use crate::pipeline::plugin::Callback;

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

/// A handler whose arguments and reply all fit. Implemented for every fitting function; there is nothing
/// to implement.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler",
    label = "expected a closure or function of up to eight arguments",
    note = "give each argument of a closure its type: `|session: &mut Session, name: &str| …`"
)]
pub trait Handler<M>: Signature<M> + Send + Sync + 'static {
    /// Settles what each argument asks for.
    #[doc(hidden)]
    fn bind(self, binder: &mut Binder<'_>) -> Callback;
}

macro_rules! handlers {
    ($(($($argument:ident $state:ident $plan:ident),*);)*) => {$(
        impl<Func, $($argument,)* R> Signature<fn($($argument),*) -> R> for Func
        where
            Func: Fn($($argument),*) -> R,
        {
        }

        impl<Func, $($argument,)* R> Handler<fn($($argument),*) -> R> for Func
        where
            Func: Fn($($argument),*) -> R + Send + Sync + 'static,
            $($argument: Argument + 'static,)*
            R: IntoResponse,
            Func: for<'a> Fn($($argument::Item<'a>),*) -> R,
        {
            #[allow(unused_variables, unused_mut, irrefutable_let_patterns)]
            fn bind(self, binder: &mut Binder<'_>) -> Callback {
                binder.count(0 $(+ { let _ = stringify!($argument); 1 })*);
                $(let $plan = binder.next::<$argument>();)*
                let ($(Some($plan),)*) = ($($plan,)*) else { return unbound() };
                Callback::new(move |exchange: &mut Exchange| -> Response {
                    $(let mut $state = $argument::take(&$plan, exchange);)*
                    let refusal = None::<crate::HttpError>$(.or_else(|| $argument::refusal(&mut $state)))*;
                    let response = match refusal {
                        Some(error) => IntoResponse::into_response(error),
                        None => {
                            let lender: &Exchange = exchange;
                            self($($argument::lend(&$plan, &mut $state, lender)),*).into_response()
                        }
                    };
                    $($argument::put_back(&$plan, $state, exchange);)*
                    response
                })
            }
        }
    )*};
}

handlers! {
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

/// What stands in for a handler that could not be bound; the app is never built with it.
fn unbound() -> Callback {
    Callback::new(|_| Response::new(http::StatusCode::INTERNAL_SERVER_ERROR))
}

/// A handler whose arguments are found by their names; made by [`named!`](crate::named).
#[doc(hidden)]
pub struct Named<F> {
    pub names: &'static [&'static str],
    pub handler: F,
}

/// Marks the named form of a handler.
#[doc(hidden)]
pub struct ByName<M>(std::marker::PhantomData<M>);

impl<F: Signature<M>, M> Signature<ByName<M>> for Named<F> {}

impl<F: Handler<M>, M> Handler<ByName<M>> for Named<F> {
    fn bind(self, binder: &mut Binder<'_>) -> Callback {
        binder.use_names(self.names);
        self.handler.bind(binder)
    }
}

/// A handler whose arguments are found by their *names*, as in Bottle: a plugin's value by its keyword,
/// a wildcard by its name. Types must fit as well.
///
/// ```
/// use bottle_session::{App, Session, SessionPlugin, named};
///
/// fn greet(name: &str, session: &mut Session) -> String {
///     session.set("name", name);
///     format!("Hello, {name}")
/// }
///
/// let mut app = App::new();
/// app.install(SessionPlugin::new().in_memory())?;
/// app.install(SessionPlugin::new().in_memory().keyword("admin").cookie_name("admin.session"))?;
/// app.get("/who/<user>", named!(|admin: &mut Session, session: &mut Session, user: &str| {
///     format!("{user}: {} and {}", session.is_new(), admin.is_new())
/// }));
/// app.get("/greet/<user>", named!(greet(user, session)));
/// app.build()?;
/// # Ok::<(), bottle_session::Error>(())
/// ```
#[macro_export]
macro_rules! named {
    (move |$($rest:tt)*) => {
        $crate::named!(@names [move] $($rest)*)
    };
    (|$($rest:tt)*) => {
        $crate::named!(@names [] $($rest)*)
    };
    (@names [$($how:ident)?] $($name:ident : $type:ty),* $(,)? | -> $reply:ty $body:block) => {
        $crate::__private::Named {
            names: &[$(stringify!($name)),*],
            handler: $($how)? |$($name: $type),*| -> $reply { $body },
        }
    };
    (@names [$($how:ident)?] $($name:ident : $type:ty),* $(,)? | $body:expr) => {
        $crate::__private::Named {
            names: &[$(stringify!($name)),*],
            handler: $($how)? |$($name: $type),*| $body,
        }
    };
    (@names $($rest:tt)*) => {
        ::core::compile_error!(
            "named! takes a closure whose arguments are each a plain name and its type: \
             named!(|session: &mut Session, name: &str| …)"
        )
    };
    ($function:path, $($name:ident),* $(,)?) => {
        $crate::__private::Named { names: &[$(stringify!($name)),*], handler: $function }
    };
    ($($function:ident)::+ ( $($name:ident),* $(,)? )) => {
        $crate::__private::Named { names: &[$(stringify!($name)),*], handler: $($function)::+ }
    };
    ($($function:ident)::+) => {
        ::core::compile_error!(
            "named! needs the name of each argument of the function: named!(greet(session, name))"
        )
    };
    ($($rest:tt)*) => {
        ::core::compile_error!(
            "named! takes a closure, named!(|session: &mut Session, name: &str| …), or a function \
             with the names of its arguments, named!(greet(session, name))"
        )
    };
}
