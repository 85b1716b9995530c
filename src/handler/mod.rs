//! Handlers: closures and functions, and how their arguments find what they ask for.
//!
//! A handler is any `Fn` of up to eight [arguments](Argument) whose reply is an
//! [`IntoResponse`](crate::IntoResponse). What an argument asks for is settled when the app is built:
//!
//! - in a plain closure or function by *type*: `&mut T` is the value of the one plugin on that route that
//!   provides `T`, and the first wildcard argument is the rule's first wildcard, and so on;
//! - in [`named!`](crate::named) by *keyword*, which is the argument's name.
//!
//! Providers, guards, error pages and after-request hooks take the same arguments.

mod argument;
mod binder;
mod extract;
mod function;
mod provided;
mod resolver;

pub use argument::Argument;
pub use binder::Binder;
pub(crate) use binder::{Function, Role};
#[cfg(feature = "garde")]
pub use extract::Checked;
pub(crate) use extract::apply_form_limits;
pub use extract::{Form, Query, Wildcard};

pub(crate) use function::{
    BindHook, BindPage, BindProvider, BindReply, condition, hook, page, provider, reply,
};
pub use function::{Condition, Handler, Hook, Named, ProviderFn, Signature};
pub(crate) use resolver::{Asks, Kind, ProviderDefinition, Resolver, Source, Wildcards, add_ask};

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
