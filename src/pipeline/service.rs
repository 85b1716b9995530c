//! A built app: what servers see, and the three stages of a request.

mod route_lookup;

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use http::StatusCode;
use smallvec::SmallVec;

use crate::Result;
use crate::logging::{OneLine, ThrottledLog};
use crate::message::address::ListenAddress;
use crate::message::backtrace;
use crate::message::http_error::HttpError;
use crate::message::into_response::IntoResponse;
use crate::message::request::Request;
use crate::message::response::Response;
use crate::pipeline::batch::{Batch, Entry, Stage};
use crate::pipeline::completion::{AfterHook, Page};
use crate::pipeline::debug::{ArgumentInfo, Debugging};
use crate::pipeline::error_converters::Converters;
use crate::pipeline::exchange::{Exchange, Position};
use crate::pipeline::expiring_flag::ExpiringFlag;
use crate::pipeline::operation::{Operation, Pending, Waiting};
use crate::pipeline::plugin::{self, Callback, Plugin};
use crate::pipeline::provider::BoundProvider;
use crate::pipeline::route::Route;
use crate::pipeline::serving::{Servers, Serving};
use crate::pipeline::shutdown::ShutdownHandle;
use crate::pipeline::urls::Urls;
use crate::routing::Accepts;
use crate::routing::Router;

/// A built app, ready to answer requests. Clones share it.
///
/// A server takes requests through three stages, [`prepare`](Service::prepare), [`run`](Service::run) and
/// [`finish`](Service::finish). The first and the last take slices: a server that has 32 requests ready
/// hands over all 32, and the session plugin loads 32 sessions in one round trip.
/// [`handle`](Service::handle) is all three for one request.
///
/// ```
/// use bottle_session::http::Method;
/// use bottle_session::{App, Request, Service};
///
/// let mut app = App::new();
/// app.get("/hello", || "hello");
/// let service: Service = app.build()?;
/// let answer = service.handle(Request::new(Method::GET, "/hello".parse().unwrap()));
/// assert_eq!(&answer.into_bytes()?[..], b"hello");
/// # Ok::<(), bottle_session::Error>(())
/// ```
#[derive(Clone)]
pub struct Service(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) router: Router<Target>,
    /// All plugins, outermost first. The index is the slot of what each provides.
    pub(crate) plugins: Vec<Arc<dyn Plugin>>,
    /// The slots of those that see each request arrive.
    pub(crate) arrivals: Vec<usize>,
    /// The app itself, then the apps mounted in it.
    pub(crate) scopes: Vec<Scope>,
    /// Which mounted app a path belongs to that no route has.
    pub(crate) prefixes: Router<usize>,
    pub(crate) urls: Arc<Urls>,
    pub(crate) body_limit: u64,
    /// What is answered 503, by its cause.
    pub(crate) unavailable: ThrottledLog,
    pub(crate) servers: Servers,
    /// Whether the app's author is to see what goes wrong.
    pub(crate) debugging: Option<Debugging>,
}

/// What a rule leads to.
pub(crate) struct Target {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) rule: usize,
    /// Which captures must fit which arguments.
    pub(crate) accepts: Vec<(usize, Accepts)>,
}

/// A route and what is to run when it is met.
pub(crate) struct Endpoint {
    pub(crate) route: Route,
    pub(crate) callback: Callback,
    /// What its handler takes.
    pub(crate) arguments: Vec<ArgumentInfo>,
    /// What errors are answered with that did not come from the callback.
    pub(crate) converters: Converters,
    /// False for what stands in for a route.
    pub(crate) is_route: bool,
    /// What makes the values that its functions ask for, each behind those that it needs itself.
    pub(crate) providers: Vec<BoundProvider>,
    /// Innermost first.
    pub(crate) pages: Vec<Page>,
    /// In the order they run in.
    pub(crate) after: Vec<AfterHook>,
    /// Whether a page or a hook asks for values of the request.
    pub(crate) has_early: bool,
    /// Its handler has blocked a short time ago, so that it is run on another thread.
    pub(crate) handler_blocks: ExpiringFlag,
    /// Who stops the server; unset until there is one.
    pub(crate) shutdown: Arc<OnceLock<ShutdownHandle>>,
    /// The slots of the plugins that watch it, outermost first.
    pub(crate) watchers: Vec<usize>,
}

pub(crate) type BeforeHook = Box<dyn Fn(&mut Request) -> Option<Response> + Send + Sync>;

/// One app, on its own or mounted.
pub(crate) struct Scope {
    /// The app around, unless this one inherits nothing.
    pub(crate) parent: Option<usize>,
    pub(crate) before: Vec<BeforeHook>,
    /// How many segments its prefix has, where each is one.
    pub(crate) depth: Option<usize>,
    /// JSON errors are of RFC 9457.
    pub(crate) problem_json: bool,
    /// What stands in for a route where the router finds none, by the status of that.
    pub(crate) unrouted: Vec<(Option<StatusCode>, Arc<Endpoint>)>,
}

pub(crate) const ROOT: usize = 0;

/// Whether a stage may run plugins that block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(unix), allow(dead_code))]
pub(crate) enum Blocking {
    Allowed,
    /// Those that acquire may which hardly ever do.
    Rare,
    Forbidden,
}

impl Service {
    pub(crate) fn new(inner: Inner) -> Service {
        Service(Arc::new(inner))
    }

    /// Answers one request.
    pub fn handle(&self, request: Request) -> Response {
        let mut exchange = Exchange::new(request);
        self.prepare(std::slice::from_mut(&mut exchange));
        self.run(&mut exchange);
        self.finish(std::slice::from_mut(&mut exchange));
        exchange.into_response()
    }

    /// The first stage: each request finds its route, then the plugins acquire what the routes ask for. Waits for
    /// what the plugins wait for.
    pub fn prepare(&self, batch: &mut [Exchange]) {
        self.route(batch);
        self.acquire_all(batch);
    }

    /// The plugins acquire what the routes ask for. Waits for what the plugins wait for.
    pub(crate) fn acquire_all(&self, batch: &mut [Exchange]) {
        self.acquire(batch, Blocking::Allowed);
        while self.carry_out(batch) {
            self.acquire(batch, Blocking::Allowed);
        }
    }

    /// Each request finds its route, which waits for nobody.
    pub(crate) fn route(&self, batch: &mut [Exchange]) {
        for exchange in batch.iter_mut() {
            catching_panics(exchange, |exchange| self.find_route(exchange));
            if exchange.endpoint().is_none() {
                self.enter_none(exchange, ROOT, None);
            }
        }
    }

    /// The plugins acquire what the routes ask for. Each exchange goes as far as it can: until it has all, until it
    /// waits for an operation, or until it needs a thread that may block.
    pub(crate) fn acquire(&self, batch: &mut [Exchange], blocking: Blocking) {
        for (slot, plugin) in self.0.plugins.iter().enumerate() {
            if !batch.iter().any(|exchange| Stage::Acquire.concerns(exchange, slot)) {
                continue;
            }
            let is_allowed = match blocking {
                Blocking::Allowed => true,
                Blocking::Rare => plugin.acquire_rarely_blocks() || !plugin.may_block(),
                Blocking::Forbidden => !plugin.may_block(),
            };
            if !is_allowed {
                // They stay in front of this slot.
                return self.acquire_others(batch, slot, blocking);
            }
            self.stage(batch, slot, Stage::Acquire, |batch| plugin.acquire(batch));
        }
        batch.iter_mut().for_each(|exchange| self.acquired(exchange));
    }

    fn acquired(&self, exchange: &mut Exchange) {
        if !exchange.is_pending() {
            exchange.move_to(Position::Acquired);
        }
    }

    /// Goes on with those that the plugin of this slot, which may block, is not the next one for.
    fn acquire_others(&self, batch: &mut [Exchange], slot: usize, blocking: Blocking) {
        // One by one: a plugin that blocks is the exception, and its requests go to a thread together.
        for exchange in batch.iter_mut() {
            if Stage::Acquire.concerns(exchange, slot) {
                exchange.move_to(Position::Acquiring(slot));
            } else if let Position::Acquiring(next) = exchange.position()
                && !exchange.is_pending()
            {
                exchange.move_to(Position::Acquiring(next.max(slot + 1)));
                self.acquire(std::slice::from_mut(exchange), blocking);
            }
        }
    }

    /// Whether the plugin that this exchange waits for hardly ever blocks when it acquires.
    #[cfg_attr(not(unix), allow(dead_code))]
    pub(crate) fn rarely_blocks(&self, exchange: &Exchange) -> bool {
        matches!(exchange.position(), Position::Acquiring(slot)
            if self.0.plugins.get(slot).is_some_and(|plugin| plugin.acquire_rarely_blocks()))
    }

    /// Carries out the operations that exchanges of the batch wait for, and says whether there were any.
    fn carry_out(&self, batch: &mut [Exchange]) -> bool {
        let mut any = false;
        while let Some(remote) =
            batch.iter_mut().find_map(|exchange| Some(exchange.pending()?.remote.clone()))
        {
            any = true;
            let mut waiting = Vec::with_capacity(batch.len());
            for exchange in batch.iter_mut() {
                if exchange.pending().is_some_and(|pending| pending.remote.is(&remote))
                    && let Some(pending) = exchange.take_pending()
                {
                    waiting.push((exchange, pending));
                }
            }
            let operations = waiting.iter_mut().map(|(_, pending)| &mut *pending.waiting);
            let mut operations: Vec<_> =
                operations.map(|waiting| waiting as &mut dyn Operation).collect();
            let carried = catch_unwind(AssertUnwindSafe(|| remote.run(&mut operations)));
            for (exchange, Pending { slot, waiting, .. }) in waiting {
                match &carried {
                    Ok(()) => self.conclude(exchange, slot, waiting),
                    Err(panic) => self.fail_after_panic(exchange, slot, panic.as_ref()),
                }
            }
        }
        any
    }

    /// Goes on with an exchange whose operation is over.
    pub(crate) fn conclude(&self, exchange: &mut Exchange, slot: usize, waiting: Box<dyn Waiting>) {
        let _guard = exchange.enter_request_id();
        let finish = || waiting.finish(&mut Entry { exchange: &mut *exchange, slot });
        if let Err(panic) = catch_unwind(AssertUnwindSafe(finish)) {
            self.fail_after_panic(exchange, slot, panic.as_ref());
        }
    }

    /// The second stage: the route's callback runs, unless there is an answer already. A panic is a 500. What providers
    /// have made is finished.
    pub fn run(&self, exchange: &mut Exchange) {
        let _guard = exchange.enter_request_id();
        backtrace::with_backtraces(self.0.debugging.is_some(), || {
            catching_panics(exchange, |exchange| {
                if exchange.response().is_none()
                    && let Some(endpoint) = exchange.endpoint().cloned()
                {
                    let response = endpoint.callback.call(exchange);
                    exchange.answer(response);
                }
            });
            self.finish_early(exchange);
        });
    }

    /// The last stage, before any byte of an answer leaves: the plugins release, the error pages render
    /// what is an error, hooks see the answer, headers and cookies are put onto it. Waits for what the plugins wait for.
    pub fn finish(&self, batch: &mut [Exchange]) {
        self.release_all(batch);
        batch.iter_mut().for_each(|exchange| self.complete(exchange));
    }

    /// The plugins release what the exchanges hold. Waits for what the plugins wait for.
    pub(crate) fn release_all(&self, batch: &mut [Exchange]) {
        self.release(batch, Blocking::Allowed);
        while self.carry_out(batch) {
            self.release(batch, Blocking::Allowed);
        }
    }

    /// The plugins release what the exchanges hold. Each exchange goes as far as it can: until nothing is left to
    /// release, until it waits for an operation, or until it needs a thread that may block.
    pub(crate) fn release(&self, batch: &mut [Exchange], blocking: Blocking) {
        let slots = self.0.plugins.len();
        for exchange in batch.iter_mut() {
            if matches!(exchange.position(), Position::Acquiring(_) | Position::Acquired) {
                exchange.move_to(Position::Releasing(slots));
            }
        }
        for (slot, plugin) in self.0.plugins.iter().enumerate().rev() {
            if !batch.iter().any(|exchange| Stage::Release.concerns(exchange, slot)) {
                continue;
            }
            if blocking == Blocking::Forbidden && plugin.may_block() {
                return self.release_one_by_one(batch, slot);
            }
            self.stage(batch, slot, Stage::Release, |batch| plugin.release(batch));
        }
        for exchange in batch.iter_mut().filter(|exchange| !exchange.is_pending()) {
            exchange.move_to(Position::Released);
        }
    }

    /// Goes on with those that the plugin of this slot, which may block, does not block for.
    fn release_one_by_one(&self, batch: &mut [Exchange], slot: usize) {
        for exchange in batch.iter_mut() {
            if Stage::Release.concerns(exchange, slot) {
                if self.release_may_block(exchange, slot) {
                    // It stays behind this slot.
                    exchange.move_to(Position::Releasing(slot + 1));
                    continue;
                }
                let one = std::slice::from_mut(exchange);
                self.stage(one, slot, Stage::Release, |one| self.0.plugins[slot].release(one));
            }
            if let Position::Releasing(below) = exchange.position()
                && !exchange.is_pending()
            {
                exchange.move_to(Position::Releasing(below.min(slot)));
                self.release(std::slice::from_mut(exchange), Blocking::Forbidden);
            }
        }
    }

    fn release_may_block(&self, exchange: &mut Exchange, slot: usize) -> bool {
        let _guard = exchange.enter_request_id();
        let asked = catch_unwind(AssertUnwindSafe(|| {
            self.0.plugins[slot].release_may_block(&mut Entry { exchange: &mut *exchange, slot })
        }));
        asked.unwrap_or_else(|panic| {
            self.fail_after_panic(exchange, slot, panic.as_ref());
            false
        })
    }

    pub(crate) fn plugins(&self) -> &[Arc<dyn Plugin>] {
        &self.0.plugins
    }

    /// The installed plugins of this type, outermost first; see [`App::installed`](crate::App::installed).
    pub fn installed<P: Plugin>(&self) -> impl Iterator<Item = &P> {
        self.0.plugins.iter().filter_map(|plugin| plugin::as_type(&**plugin))
    }

    pub(crate) fn servers(&self) -> &Servers {
        &self.0.servers
    }

    pub(crate) fn debugging(&self) -> Option<&Debugging> {
        self.0.debugging.as_ref()
    }

    /// Whether JSON errors are of RFC 9457 in the app that the request belongs to.
    pub(crate) fn has_problem_json(&self, exchange: &Exchange) -> bool {
        let scope = exchange.endpoint().map_or(ROOT, |endpoint| endpoint.route.scope);
        self.0.scopes[scope].problem_json
    }

    pub(crate) fn unavailable(&self) -> &ThrottledLog {
        &self.0.unavailable
    }

    /// Addresses of the named routes.
    pub fn urls(&self) -> &Urls {
        &self.0.urls
    }

    /// Builds the address of a named route; see [`Urls::build`].
    pub fn url(&self, name: &str, arguments: &[(&str, &str)]) -> Result<String> {
        self.0.urls.build(name, arguments)
    }

    /// Tells the plugins where the app is served, and handlers who stops the server. Servers call this once they listen,
    /// and drop what they get when they have ended: then the plugins are [closed](crate::Plugin::close).
    pub fn serving(&self, address: &ListenAddress, shutdown: &ShutdownHandle) -> Serving {
        if let Some(debugging) = &self.0.debugging {
            debugging.serving(address);
        }
        Serving::begin(self, address, shutdown)
    }

    fn stage(
        &self,
        exchanges: &mut [Exchange],
        slot: usize,
        stage: Stage,
        run: impl FnOnce(&mut Batch<'_>),
    ) {
        // Known before it runs: after a panic nobody can tell whom it had touched.
        let concerned: SmallVec<[bool; 32]> =
            exchanges.iter().map(|exchange| stage.concerns(exchange, slot)).collect();
        // One request alone need not be told from others: all that is logged is its own.
        let mut alone = exchanges.iter().zip(&concerned).filter(|(_, concerned)| **concerned);
        let alone = alone.next().filter(|_| alone.next().is_none());
        let _guard = alone.and_then(|(exchange, _)| exchange.enter_request_id());
        let mut batch = Batch { exchanges: &mut *exchanges, slot, stage };
        let done = catch_unwind(AssertUnwindSafe(|| run(&mut batch)));
        for (exchange, _) in exchanges.iter_mut().zip(concerned).filter(|(_, concerned)| *concerned)
        {
            match stage {
                Stage::Acquire => {
                    exchange.try_slot(slot);
                    exchange.move_to(Position::Acquiring(slot + 1));
                }
                Stage::Release => exchange.move_to(Position::Releasing(slot)),
            }
            if let Err(panic) = &done {
                self.fail_after_panic(exchange, slot, panic.as_ref());
            }
        }
    }

    /// A plugin has panicked. Which of its exchanges it had done with is unknown: none of them is to be trusted.
    fn fail_after_panic(&self, exchange: &mut Exchange, slot: usize, panic: &(dyn Any + Send)) {
        let _guard = exchange.enter_request_id();
        let error = panicked(&format!("plugin {:?}", self.0.plugins[slot].name()), panic);
        exchange.drop_provided();
        let answer = HttpError::new(StatusCode::INTERNAL_SERVER_ERROR).with_source(error);
        exchange.answer(answer.into_response());
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plugins: Vec<_> = self.0.plugins.iter().map(|plugin| plugin.name()).collect();
        f.debug_struct("Service").field("plugins", &plugins).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.servers.close(&self.plugins);
    }
}

/// Runs a stage of one exchange; a panic becomes a 500 and leaves nothing to save.
fn catching_panics(exchange: &mut Exchange, run: impl FnOnce(&mut Exchange)) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(exchange))) {
        exchange.drop_provided();
        let error = HttpError::new(StatusCode::INTERNAL_SERVER_ERROR)
            .with_source(panicked("its handler, a hook or a filter", panic.as_ref()))
            .with_backtrace(backtrace::of_last_panic());
        exchange.answer(error.into_response());
    }
}

pub(crate) fn panicked(who: &str, panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    format!("{who} panicked: {}", OneLine(text))
}

/// The cause of an error that was logged when it began: the requests that it meets need not be as loud.
#[derive(Debug)]
pub(crate) struct AlreadyLogged;

impl fmt::Display for AlreadyLogged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an error in the log tells when it began")
    }
}

impl std::error::Error for AlreadyLogged {}
