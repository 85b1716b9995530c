//! Plugins: what they are asked, in which order, and what they may touch.
//!
//! A plugin wraps the callbacks of routes ([`apply`](Plugin::apply)), or provides a value to those whose
//! handlers ask for its keyword ([`acquire`](Plugin::acquire), [`release`](Plugin::release)), or both. The
//! first installed is the outermost: it acquires first and releases last.
//!
//! A plugin that only wraps:
//!
//! ```
//! use std::time::Instant;
//! use bottle_session::{App, Callback, Plugin, Route, TestClient};
//!
//! struct Timing;
//!
//! impl Plugin for Timing {
//!     fn name(&self) -> &str {
//!         "timing"
//!     }
//!
//!     fn apply(&self, callback: Callback, _route: &Route) -> Callback {
//!         Callback::new(move |exchange| {
//!             let start = Instant::now();
//!             let response = callback.call(exchange);
//!             response.with_header("server-timing", format!("app;dur={}", start.elapsed().as_millis()))
//!         })
//!     }
//! }
//!
//! let mut app = App::new();
//! app.install(Timing)?;
//! app.get("/", || "hello");
//! let response = TestClient::new(app)?.get("/").send();
//! assert!(response.headers().contains_key("server-timing"));
//! # Ok::<(), bottle_session::Error>(())
//! ```

use std::any::{Any, TypeId, type_name};
use std::fmt;
use std::sync::Arc;

use crate::Result;
use crate::message::response::Response;
pub use crate::pipeline::batch::{Batch, Entry};
use crate::pipeline::exchange::Exchange;
pub use crate::pipeline::route::Route;

/// A value that a plugin or a [provider](crate::App::provide) provides and a handler can ask for, as `&mut T`, `&T` or an
/// `Option` of these; or the [state](crate::App::state) of an app, which is `&T`.
///
/// A type of another crate goes into [`Own`](crate::Own).
///
/// ```
/// use bottle_session::{App, Provided, TestClient};
///
/// struct Motto(&'static str);
///
/// impl Provided for Motto {}
///
/// let mut app = App::new();
/// app.state(Motto("less is more"));
/// app.get("/", |motto: &Motto| motto.0);
/// assert_eq!(TestClient::new(app)?.get("/").send().text(), "less is more");
/// # Ok::<(), bottle_session::Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "nothing provides `{Self}`: a reference to it cannot be a handler argument",
    label = "`{Self}` does not implement `Provided`",
    note = "a type of your own (not an `Arc` or `Vec` of it) says so itself: `impl bottle_session::Provided for {Self} {{}}`",
    note = "a type of another crate goes into `Own`: `&Own<{Self}>`, `&mut Own<{Self}>`",
    note = "a request is lent as `&Request`; `App::before_request` may change one before it finds its route"
)]
pub trait Provided: Send + 'static {}

/// What a plugin provides: a type, under a keyword.
#[derive(Clone, Debug)]
pub struct Provision {
    pub(crate) keyword: String,
    pub(crate) type_id: TypeId,
    pub(crate) type_name: &'static str,
    pub(crate) claim: Option<String>,
}

impl Provision {
    /// Values of type `T` under this keyword.
    pub fn of<T: Provided>(keyword: impl Into<String>) -> Provision {
        Provision {
            keyword: keyword.into(),
            type_id: TypeId::of::<T>(),
            type_name: type_name::<T>(),
            claim: None,
        }
    }

    /// The same provision, claiming something that no other plugin of the app may have as well, such as
    /// the name of a cookie.
    #[must_use]
    pub fn claiming(mut self, what: impl Into<String>) -> Provision {
        self.claim = Some(what.into());
        self
    }

    /// The keyword.
    pub fn keyword(&self) -> &str {
        &self.keyword
    }
}

/// What is to run when a route is met: the handler, or what a plugin wrapped around it.
#[derive(Clone)]
pub struct Callback(Arc<dyn Fn(&mut Exchange) -> Response + Send + Sync>);

impl Callback {
    /// A callback that runs this function.
    pub fn new(run: impl Fn(&mut Exchange) -> Response + Send + Sync + 'static) -> Callback {
        Callback(Arc::new(run))
    }

    /// Runs it.
    pub fn call(&self, exchange: &mut Exchange) -> Response {
        (self.0)(exchange)
    }
}

impl fmt::Debug for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Callback")
    }
}

/// An extension of an app.
///
/// Only [`name`](Plugin::name) is required. A plugin is known by its name and keyword: two with
/// different keywords never shadow each other, the same keyword twice in one app is an error.
pub trait Plugin: Any + Send + Sync {
    /// The name, for `skip`, `uninstall` and messages.
    fn name(&self) -> &str;

    /// What the plugin provides, if anything. Asked once, before [`setup`](Plugin::setup).
    fn provides(&self) -> Option<Provision> {
        None
    }

    /// Which keywords of other plugins this one uses on this route (through [`Exchange::provided`])
    /// although the handler need not ask for them. Asked once per route, when the app is built.
    fn uses(&self, route: &Route) -> Vec<String> {
        let _ = route;
        Vec::new()
    }

    /// Prepares for service, or refuses. Called once, when the plugin is installed.
    fn setup(&mut self, installed: &Installed<'_>) -> Result<()> {
        let _ = installed;
        Ok(())
    }

    /// Wraps the callback of a route, or hands it back untouched. Called once per route, when the app is
    /// built.
    fn apply(&self, callback: Callback, route: &Route) -> Callback {
        let _ = route;
        callback
    }

    /// Whether [`acquire`](Plugin::acquire) or [`release`](Plugin::release) may block: wait for a network, a disk, or
    /// a lock that is held for long. True unless a plugin says otherwise: the native server then runs both on threads
    /// that may block. Where they never block, its event loops run them, which is cheaper.
    fn may_block(&self) -> bool {
        true
    }

    /// Whether [`acquire`](Plugin::acquire), of a plugin that [may block](Plugin::may_block), hardly ever does: what it
    /// reads is in memory as a rule, as a file is that the system has in its cache. False unless a plugin says
    /// otherwise. The native server then runs it as it runs handlers, on the thread of the event loop: where that does
    /// block, another thread takes the loop within a millisecond or two, and for a second `acquire` runs on others from
    /// the start.
    fn acquire_rarely_blocks(&self) -> bool {
        false
    }

    /// Whether [`release`](Plugin::release) may block for this entry, of a plugin that [may block](Plugin::may_block): it
    /// cannot where there is nothing to save, for one. True unless a plugin says otherwise. Asked on an event loop, which
    /// then releases what cannot block itself, and saves the request the way to another thread and back.
    fn release_may_block(&self, entry: &mut Entry<'_>) -> bool {
        let _ = entry;
        true
    }

    /// Puts the provided value into each exchange of the batch, before the handlers run. The batch holds
    /// exactly those whose routes ask for the keyword and that have no answer yet.
    ///
    /// An entry may also be left [pending](Entry::wait) on an operation at a remote service; the value is put when that
    /// is over, and the other exchanges of the batch go on.
    ///
    /// It does not see what other plugins provide. A value that is made of others, such as the user of a session, is
    /// one for a [provider](crate::App::provide).
    fn acquire(&self, batch: &mut Batch<'_>) {
        let _ = batch;
    }

    /// Takes the values back, after the handlers and before any byte of an answer leaves. The batch holds
    /// exactly the exchanges that still hold a value of this plugin. As in `acquire`, an entry may be left
    /// [pending](Entry::wait): its answer waits for that.
    fn release(&self, batch: &mut Batch<'_>) {
        let _ = batch;
    }

    /// Whether the plugin watches this route: it sees requests [begin](Plugin::begin) and answers [end](Plugin::end).
    /// Asked once per route, when the app is built, and once for what [stands in](Route::is_stand_in) for a route where
    /// the app has none, a 404 for one. A route that a plugin does not watch costs it nothing.
    fn watches(&self, route: &Route) -> bool {
        let _ = route;
        false
    }

    /// Sees a request that has just come, before hooks and before its route is known. An answer keeps all else from
    /// running. For plugins of the outermost app that watch what stands in for a route, whichever route it will be.
    ///
    /// Called on an event loop, as are `begin` and `end`: it must not block.
    fn arrive(&self, exchange: &mut Exchange) {
        let _ = exchange;
    }

    /// Sees a request whose route is known, or is known not to be there, before values are acquired and before the hooks
    /// of a mounted app. An [answer](Exchange::answer) keeps the handler from running.
    ///
    /// A CORS preflight that no route takes has no [route](Exchange::route), and is seen by the plugins that watch the
    /// route it asks for.
    fn begin(&self, exchange: &mut Exchange) {
        let _ = exchange;
    }

    /// Sees the answer as it leaves, whatever it is: of a handler, a hook, another plugin or the router, with its error
    /// page, headers and cookies. The plugin installed first sees it last. A server's own refusals, of what is no request
    /// or when it is overloaded, are no answers of the app.
    fn end(&self, exchange: &mut Exchange, answer: &mut Response) {
        let _ = (exchange, answer);
    }

    /// Hears where the app is served, once a server listens there.
    fn serving(&self, address: &crate::message::address::ListenAddress) {
        let _ = address;
    }

    /// Releases what the plugin holds. Called once: when it is uninstalled, when the server has ended, or, where none has
    /// served the app, when the last clone of its [`Service`](crate::Service) is dropped. Requests that were cut at the end
    /// of the server's deadline may still be running.
    fn close(&self) {}
}

/// The plugin, if it is of this type.
pub(crate) fn as_type<P: Plugin>(plugin: &dyn Plugin) -> Option<&P> {
    let any: &dyn Any = plugin;
    any.downcast_ref()
}

/// The plugins that an app has already, as [`Plugin::setup`] sees them: names and keywords.
///
/// ```
/// use bottle_session::{App, Error, ErrorKind, Installed, Plugin, Result};
///
/// struct Last;
///
/// impl Plugin for Last {
///     fn name(&self) -> &str {
///         "last"
///     }
///
///     fn setup(&mut self, installed: &Installed<'_>) -> Result<()> {
///         match installed.iter().find(|(name, _)| *name == "session") {
///             Some(_) => Ok(()),
///             None => Err(Error::new(ErrorKind::Plugin, "install the session plugin first")),
///         }
///     }
/// }
///
/// assert!(App::new().install(Last).is_err());
/// ```
#[derive(Clone, Debug)]
pub struct Installed<'a> {
    pub(crate) plugins: &'a [(String, Option<Provision>)],
}

impl Installed<'_> {
    /// Name and keyword of each, outermost first.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.plugins
            .iter()
            .map(|(name, provision)| (name.as_str(), provision.as_ref().map(Provision::keyword)))
    }
}
