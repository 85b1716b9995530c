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
use std::panic::Location;
use std::sync::Arc;

use http::{Extensions, Method};

use crate::Result;
use crate::message::request::Request;
use crate::message::response::Response;
use crate::message::response_head::ResponseHead;
use crate::pipeline::exchange::{Exchange, Position};
use crate::pipeline::operation::{Operation, Pending, Remote, Then};
use crate::pipeline::provider::Place;

/// A value that a plugin or a [provider](crate::App::provide) provides and a handler can ask for, as `&mut T`, `&T` or an
/// `Option` of these; or the [state](crate::App::state) of an app, which is `&T`.
///
/// A type of another crate goes into [`Own`](crate::Own).
#[diagnostic::on_unimplemented(
    message = "nothing provides `{Self}`: a reference to it cannot be a handler argument",
    label = "`{Self}` does not implement `Provided`",
    note = "a type of your own says so itself: `impl bottle_session::Provided for {Self} {{}}`",
    note = "a type of another crate goes into `Own`: `&Own<{Self}>`, `&mut Own<{Self}>`"
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
pub trait Plugin: Send + Sync + 'static {
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

    /// Hears where the app is served, once a server listens there.
    fn serving(&self, address: &crate::message::address::ListenAddress) {
        let _ = address;
    }

    /// Releases what the plugin holds: it was uninstalled, or the app has ended.
    fn close(&self) {}
}

/// The plugins that an app has already, as [`Plugin::setup`] sees them: names and keywords.
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

/// A route as plugins see it.
pub struct Route {
    pub(crate) methods: Vec<Method>,
    pub(crate) rules: Vec<String>,
    pub(crate) name: Option<String>,
    pub(crate) config: Extensions,
    pub(crate) location: &'static Location<'static>,
    pub(crate) body_limit: Option<u64>,
    pub(crate) scope: usize,
    pub(crate) wildcards: Vec<String>,
    /// For each rule and each wildcard of the route: its place among the rule's captures.
    pub(crate) places: Vec<Vec<Option<usize>>>,
    pub(crate) asks: Vec<Ask>,
    /// What there is on this route by its keyword, asked for or not.
    pub(crate) keywords: Vec<(String, Place)>,
}

/// A slot that a route wants filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) slot: usize,
    /// False where every argument for it is an `Option`.
    pub(crate) required: bool,
}

impl Route {
    /// The methods; empty for a route that takes any.
    pub fn methods(&self) -> &[Method] {
        &self.methods
    }

    /// The rules as they were written, with the prefix of a mounted app.
    pub fn rules(&self) -> &[String] {
        &self.rules
    }

    /// The name, for building addresses.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// A setting of this type that the route was registered with.
    pub fn config<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.config.get()
    }

    /// Whether the handler, or a plugin on this route, asks for this keyword.
    pub fn asks_for(&self, keyword: &str) -> bool {
        match self.place_of(keyword) {
            Some(Place::Plugin(slot)) => self.asks(slot),
            // Only those that somebody asks for are there.
            Some(Place::Provider(_)) => true,
            Some(Place::Nowhere) | None => false,
        }
    }

    /// Where the route was registered.
    pub fn location(&self) -> &'static Location<'static> {
        self.location
    }

    pub(crate) fn asks(&self, slot: usize) -> bool {
        self.asks.iter().any(|ask| ask.slot == slot)
    }

    pub(crate) fn asks_anything(&self) -> bool {
        !self.asks.is_empty()
    }

    pub(crate) fn place_of(&self, keyword: &str) -> Option<Place> {
        self.keywords.iter().find(|known| known.0 == keyword).map(|known| known.1)
    }

    pub(crate) fn wildcard_index(&self, name: &str) -> Option<usize> {
        self.wildcards.iter().position(|known| known == name)
    }

    pub(crate) fn capture_index(&self, rule: usize, wildcard: usize) -> Option<usize> {
        *self.places.get(rule)?.get(wildcard)?
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Route({:?} {:?})", self.methods, self.rules)
    }
}

/// Exchanges that go through a stage of a plugin together.
pub struct Batch<'a> {
    pub(crate) exchanges: &'a mut [Exchange],
    pub(crate) slot: usize,
    pub(crate) stage: Stage,
}

/// Which exchanges a batch shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Acquire,
    Release,
}

impl Stage {
    /// Whether the plugin of this slot is the next one for the exchange, and has something to do for it.
    pub(crate) fn concerns(self, exchange: &Exchange, slot: usize) -> bool {
        match (self, exchange.position()) {
            _ if exchange.is_pending() => false,
            (Stage::Acquire, Position::Acquiring(next)) => {
                next <= slot
                    && exchange.asks(slot)
                    && !exchange.holds(slot)
                    && exchange.response().is_none()
            }
            (Stage::Release, Position::Releasing(below)) => slot < below && exchange.holds(slot),
            _ => false,
        }
    }
}

impl Batch<'_> {
    /// The exchanges that this stage of this plugin concerns, in the order of their arrival.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = Entry<'_>> {
        let (slot, stage) = (self.slot, self.stage);
        self.exchanges.iter_mut().filter_map(move |exchange| {
            stage.concerns(exchange, slot).then_some(Entry { exchange, slot })
        })
    }
}

/// One exchange of a batch, as the plugin may touch it.
pub struct Entry<'a> {
    pub(crate) exchange: &'a mut Exchange,
    pub(crate) slot: usize,
}

impl Entry<'_> {
    /// The request.
    pub fn request(&self) -> &Request {
        self.exchange.request()
    }

    /// The route.
    pub fn route(&self) -> Option<&Route> {
        self.exchange.route()
    }

    /// Whether the handler can do without: it asks for `Option<&mut T>` only.
    pub fn is_optional(&self) -> bool {
        !self.exchange.requires(self.slot)
    }

    /// Provides the value.
    ///
    /// It must be of the type that [`Plugin::provides`] names.
    pub fn put<T: Provided>(&mut self, value: T) {
        if let Some(slot) = self.exchange.slot(self.slot) {
            *slot = Some(Box::new(value));
        }
    }

    /// The value.
    pub fn get_mut<T: Provided>(&mut self) -> Option<&mut T> {
        self.exchange.slot(self.slot)?.as_mut()?.downcast_mut()
    }

    /// Takes the value back.
    pub fn take<T: Provided>(&mut self) -> Option<T> {
        let slot = self.exchange.slot(self.slot)?;
        let value: Box<dyn Any + Send> = slot.take()?;
        match value.downcast() {
            Ok(value) => Some(*value),
            Err(other) => {
                *slot = Some(other);
                None
            }
        }
    }

    /// Says that there is no value for this exchange: a route that needs one answers this, one that can do
    /// without runs without.
    pub fn refuse(&mut self, response: Response) {
        if !self.is_optional() {
            self.exchange.answer(response);
        }
    }

    /// Leaves the exchange pending until this operation is over; `then` goes on with it, as the stage would have.
    ///
    /// No thread waits: the native server's event loops carry the operation. Once a stage, an exchange waits for one
    /// operation at a time; `then` may leave it pending on another one.
    pub fn wait<O: Operation>(
        &mut self,
        remote: &Remote,
        operation: O,
        then: impl FnOnce(O, &mut Entry<'_>) + Send + 'static,
    ) {
        let waiting = Box::new(Then { operation, then });
        self.exchange.wait_for(Pending { slot: self.slot, remote: remote.clone(), waiting });
    }

    /// The answer that the handler gave.
    pub fn response(&self) -> Option<&Response> {
        self.exchange.response()
    }

    /// Puts this answer in place of the handler's. Headers and cookies set on the head stay.
    pub fn replace(&mut self, response: Response) {
        self.exchange.answer(response);
    }

    /// Headers and cookies for the answer, whatever it will be.
    pub fn head_mut(&mut self) -> &mut ResponseHead {
        self.exchange.head_mut()
    }
}
