//! One request on its way: request, route, wildcard values, provided values, answer.

use std::any::Any;
use std::sync::Arc;

use http::Method;

use crate::logging::request_id::{self, RequestId, RequestIdGuard};
use crate::message::http_error::HttpError;
use crate::message::request::Request;
use crate::message::response::Response;
use crate::message::response_head::ResponseHead;
use crate::pipeline::completion::{Caused, caused};
use crate::pipeline::operation::Pending;
use crate::pipeline::plugin::Provided;
use crate::pipeline::provider::{ValueSource, Values};
use crate::pipeline::route::{Ask, Route};
use crate::pipeline::service::Endpoint;
use crate::pipeline::shutdown::ShutdownHandle;
use crate::pipeline::urls::Urls;
use crate::routing::Captures;

/// One request on its way through a [`Service`](crate::Service), with all that belongs to it.
///
/// It is one pointer wide: stages hand exchanges on by the slice, and each has a lot to carry.
///
/// ```
/// use bottle_session::{App, Callback, Plugin, Route, TestClient};
///
/// /// Says in a header which route has answered.
/// struct Names;
///
/// impl Plugin for Names {
///     fn name(&self) -> &str {
///         "names"
///     }
///
///     fn apply(&self, callback: Callback, route: &Route) -> Callback {
///         let rule = route.rules().join(" ");
///         Callback::new(move |exchange| {
///             let method = exchange.request().method().clone();
///             callback.call(exchange).with_header("x-route", format!("{method} {rule}"))
///         })
///     }
/// }
///
/// let mut app = App::new();
/// app.install(Names)?;
/// app.get("/item/<id:int>", |id: i64| id.to_string());
/// assert_eq!(TestClient::new(app)?.get("/item/7").send().header("x-route"), Some("GET /item/<id:int>"));
/// # Ok::<(), bottle_session::Error>(())
/// ```
pub struct Exchange(Box<Inner>);

struct Inner {
    request: Request,
    method: Method,
    endpoint: Option<Arc<Endpoint>>,
    /// The route that an OPTIONS request asks for which no route takes.
    watched_as: Option<Arc<Endpoint>>,
    id: Option<RequestId>,
    captures: Captures,
    /// Which of the route's rules matched.
    rule: usize,
    slots: Vec<Slot>,
    values: Values,
    /// What an error page asks of plugins that the route did not.
    late: Vec<Ask>,
    /// The answer of the router, where pages and hooks that see it ask plugins for something first.
    later: Option<Response>,
    /// What an error page shows.
    error: Option<HttpError>,
    response: Option<Response>,
    /// An answer that hooks have seen was an error, whatever they made of it.
    failed: bool,
    head: ResponseHead,
    /// The head as it was before the handler borrowed it.
    head_before: Option<ResponseHead>,
    urls: Option<Arc<Urls>>,
    position: Position,
    /// What it waits for before it can go on.
    pending: Option<Pending>,
}

/// What a plugin provides.
#[derive(Default)]
struct Slot {
    value: Option<Box<dyn Any + Send>>,
    /// It was asked to: where there is no value, it has refused.
    tried: bool,
}

/// How far an exchange has come through the stages of the plugins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Position {
    /// The plugin of this slot is the next to acquire.
    Acquiring(usize),
    /// The handler is next.
    Acquired,
    /// The plugins of the slots below this one are still to release, the last one first.
    Releasing(usize),
    /// Nothing is left but to finish the answer.
    Released,
}

/// What keeps an exchange from going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(unix), allow(dead_code))]
pub(crate) enum Waits {
    /// Nothing: its handler can run, or its answer be sent.
    Nothing,
    /// An operation at a remote service.
    Operation,
    /// A plugin that may block: it needs a thread.
    Thread,
}

impl Exchange {
    /// A request at the start of its way.
    pub fn new(request: Request) -> Exchange {
        Exchange(Box::new(Inner {
            method: request.method().clone(),
            request,
            endpoint: None,
            watched_as: None,
            id: None,
            captures: Captures::default(),
            rule: 0,
            slots: Vec::new(),
            values: Values::default(),
            late: Vec::new(),
            later: None,
            error: None,
            response: None,
            failed: false,
            head: ResponseHead::default(),
            head_before: None,
            urls: None,
            position: Position::Acquiring(0),
            pending: None,
        }))
    }

    /// The request.
    pub fn request(&self) -> &Request {
        &self.0.request
    }

    /// The request, to change.
    pub fn request_mut(&mut self) -> &mut Request {
        &mut self.0.request
    }

    /// The route, once one was found.
    pub fn route(&self) -> Option<&Route> {
        self.0.endpoint.as_deref().filter(|endpoint| endpoint.is_route).map(|e| &e.route)
    }

    /// The route, or what stands in for one where the router found none.
    fn around(&self) -> Option<&Route> {
        self.0.endpoint.as_deref().map(|endpoint| &endpoint.route)
    }

    /// The rule that the path fits, of those of the route, once one was found: `/user/<id:int>`. With the prefix of a
    /// mounted app.
    pub fn rule(&self) -> Option<&str> {
        self.route()?.rules().get(self.0.rule).map(String::as_str)
    }

    /// The id of the request, where a plugin has given it one: [`RequestIdPlugin`](crate::RequestIdPlugin) does.
    pub fn request_id(&self) -> Option<&RequestId> {
        self.0.id.as_ref()
    }

    /// Gives the request an id, which its log lines carry from then on; see [`RequestId::current`].
    pub fn set_request_id(&mut self, id: RequestId) {
        self.0.id = Some(id);
    }

    /// Lines that this thread logs carry the id of the request until the guard is dropped.
    pub(crate) fn enter_request_id(&self) -> Option<RequestIdGuard> {
        request_id::enter(self.0.id.as_ref())
    }

    /// The value of the wildcard of this name.
    pub fn wildcard(&self, name: &str) -> Option<&str> {
        self.wildcard_at(self.route()?.wildcard_index(name)?)
    }

    /// What the plugin or provider of this keyword provides to this route, if it is of this type.
    ///
    /// For plugins, which say in [`Plugin::uses`](crate::Plugin::uses) what they need; one that only looks where a handler asks finds that
    /// out by [`Route::asks_for`](crate::Route::asks_for) first. Of what neither the handler nor
    /// a plugin asks for there is none, and the log says so, as it does where a provider answers with 500 or more. An [`Argument`](crate::Argument) of one's own asks with
    /// [`Binder::ask`](crate::Binder::ask) and finds the value with [`asked`](Exchange::asked).
    pub fn provided<T: Provided>(&mut self, keyword: &str) -> Option<&mut T> {
        let route = self.around()?;
        let place = route.source_of(keyword)?;
        let asked = match place {
            ValueSource::Plugin(slot) => self.asks(slot),
            ValueSource::Provider(_) => true,
            ValueSource::None => false,
        };
        if !asked {
            log::error!(
                "{:?} has no value of keyword {keyword:?}, as nobody has asked for it: say so in Plugin::uses, or in \
                 Argument::plan with Binder::ask",
                self.0.request
            );
            return None;
        }
        if self.make(place)
            && let Some(error) = self.0.values.failure(place)
        {
            let (Caused { text, logged, .. }, status) = (caused(error), error.status().as_u16());
            log::log!(
                if logged { log::Level::Debug } else { log::Level::Error },
                "{:?} has no value of keyword {keyword:?}, as its provider answers {status}{text}",
                self.0.request
            );
        }
        self.value_at(place)?.downcast_mut()
    }

    /// Headers and cookies for the answer, whatever it will be.
    pub fn head_mut(&mut self) -> &mut ResponseHead {
        &mut self.0.head
    }

    /// Addresses of the app's named routes.
    pub fn urls(&self) -> &Urls {
        self.0.urls.as_deref().unwrap_or_else(|| Urls::none())
    }

    /// The answer, once there is one.
    pub fn response(&self) -> Option<&Response> {
        self.0.response.as_ref()
    }

    /// Gives the request its answer. Before the handler this keeps the handler from running.
    pub fn answer(&mut self, response: Response) {
        self.0.response = Some(response);
    }

    /// Notes whether the answer is an error, before a hook can put another one in its place.
    pub(crate) fn note_failure(&mut self) {
        self.0.failed |= self.response().is_some_and(Response::is_error);
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.0.failed
    }

    /// Gives the request its answer once plugins have acquired what is asked for.
    pub(crate) fn answer_later(&mut self, response: Response) {
        self.0.later = Some(response);
    }

    pub(crate) fn take_later(&mut self) -> Option<Response> {
        self.0.later.take()
    }

    pub(crate) fn position(&self) -> Position {
        self.0.position
    }

    pub(crate) fn move_to(&mut self, position: Position) {
        self.0.position = position;
    }

    pub(crate) fn pending(&mut self) -> Option<&mut Pending> {
        self.0.pending.as_mut()
    }

    pub(crate) fn is_pending(&self) -> bool {
        self.0.pending.is_some()
    }

    pub(crate) fn take_pending(&mut self) -> Option<Pending> {
        self.0.pending.take()
    }

    pub(crate) fn wait_for(&mut self, pending: Pending) {
        self.0.pending = Some(pending);
    }

    /// What keeps it from going on, once a stage has been taken as far as it goes without blocking.
    pub(crate) fn waits(&self) -> Waits {
        match self.0.position {
            _ if self.0.pending.is_some() => Waits::Operation,
            Position::Acquiring(_) | Position::Releasing(_) => Waits::Thread,
            Position::Acquired | Position::Released => Waits::Nothing,
        }
    }

    /// Whether plugins have something to release.
    pub(crate) fn holds_anything(&self) -> bool {
        self.0.slots.iter().any(|slot| slot.value.is_some())
    }

    /// The method that the client sent, whatever a hook made of it.
    pub(crate) fn client_method(&self) -> &Method {
        &self.0.method
    }

    pub(crate) fn take_response(&mut self) -> Option<Response> {
        self.0.response.take()
    }

    pub(crate) fn take_head(&mut self) -> ResponseHead {
        let head = std::mem::take(&mut self.0.head);
        match self.0.head_before.take() {
            // The handler that borrowed it panicked. What others had set is not lost with it.
            Some(mut before) => {
                before.merge(head);
                before
            }
            None => head,
        }
    }

    /// The head, for a handler; it comes back by [`return_head`](Exchange::return_head) unless that panics.
    pub(crate) fn lend_head(&mut self) -> ResponseHead {
        let head = self.take_head();
        self.0.head_before = Some(head.clone());
        head
    }

    pub(crate) fn values(&mut self) -> &mut Values {
        &mut self.0.values
    }

    /// The error that a page shows.
    pub(crate) fn error(&self) -> Option<&HttpError> {
        self.0.error.as_ref()
    }

    pub(crate) fn set_error(&mut self, error: HttpError) {
        self.0.error = Some(error);
    }

    pub(crate) fn take_error(&mut self) -> Option<HttpError> {
        self.0.error.take()
    }

    /// Asks plugins for more than the route has asked for, and says whether there is anything to acquire.
    pub(crate) fn ask_late(&mut self, asks: &[Ask], slots: usize) -> bool {
        let tried = |slot: usize| self.0.slots.get(slot).is_some_and(|slot| slot.tried);
        let missing = |ask: &&Ask| !self.holds(ask.slot) && !tried(ask.slot);
        let late: Vec<_> = asks.iter().filter(missing).copied().collect();
        if !late.is_empty() {
            self.0.slots.resize_with(slots, Slot::default);
        }
        self.0.late = late;
        !self.0.late.is_empty()
    }

    /// All that was asked for late is there, or was refused.
    pub(crate) fn asked_late(&mut self) {
        self.0.late.clear();
    }

    pub(crate) fn return_head(&mut self, head: ResponseHead) {
        self.0.head_before = None;
        self.0.head.merge(head);
    }

    /// Who stops the server that answers the request.
    pub fn shutdown(&self) -> &ShutdownHandle {
        let known = self.0.endpoint.as_deref().and_then(|endpoint| endpoint.shutdown.get());
        known.unwrap_or_else(|| ShutdownHandle::of_nobody())
    }

    pub(crate) fn set_urls(&mut self, urls: Arc<Urls>) {
        self.0.urls = Some(urls);
    }

    pub(crate) fn enter(
        &mut self,
        endpoint: Arc<Endpoint>,
        rule: usize,
        captures: Captures,
        slots: usize,
    ) {
        if endpoint.route.asks_anything() {
            self.0.slots.resize_with(slots, Slot::default);
        }
        self.0.values = Values::of(endpoint.providers.len());
        self.0.endpoint = Some(endpoint);
        self.0.rule = rule;
        self.0.captures = captures;
    }

    /// Whose plugins watch it.
    pub(crate) fn watched(&self) -> Option<&Arc<Endpoint>> {
        self.0.watched_as.as_ref().or(self.0.endpoint.as_ref())
    }

    pub(crate) fn watch_as(&mut self, endpoint: Arc<Endpoint>) {
        self.0.watched_as = Some(endpoint);
    }

    pub(crate) fn endpoint(&self) -> Option<&Arc<Endpoint>> {
        self.0.endpoint.as_ref()
    }

    /// Whether the handler of its route has blocked a short time ago.
    #[cfg_attr(not(unix), allow(dead_code))]
    pub(crate) fn handler_blocks(&self) -> bool {
        self.0.endpoint.as_deref().is_some_and(|endpoint| endpoint.handler_blocks.is_set())
    }

    /// The value of a wildcard by its place in the route.
    pub(crate) fn wildcard_at(&self, index: usize) -> Option<&str> {
        self.0.captures.get(self.around()?.capture_index(self.0.rule, index)?)
    }

    pub(crate) fn asks(&self, slot: usize) -> bool {
        match self.0.late.as_slice() {
            [] => self.around().is_some_and(|route| route.asks(slot)),
            // What the route has asked for, it has or was refused.
            late => late.iter().any(|ask| ask.slot == slot),
        }
    }

    pub(crate) fn requires(&self, slot: usize) -> bool {
        let requires = |asks: &[Ask]| asks.iter().any(|ask| ask.slot == slot && ask.required);
        match self.0.late.as_slice() {
            [] => self.around().is_some_and(|route| requires(&route.asks)),
            late => requires(late),
        }
    }

    /// Whether its answer, which is there already, is for an error page or a hook to see that may block.
    #[cfg_attr(not(unix), allow(dead_code))]
    pub(crate) fn must_run(&self) -> bool {
        self.0.response.is_none()
            || (!self.0.values.is_closed()
                && self.0.endpoint.as_deref().is_some_and(|endpoint| endpoint.has_early))
    }

    pub(crate) fn slot(&mut self, slot: usize) -> Option<&mut Option<Box<dyn Any + Send>>> {
        self.0.slots.get_mut(slot).map(|slot| &mut slot.value)
    }

    /// Notes that the plugin of this slot is asked for its value.
    pub(crate) fn try_slot(&mut self, slot: usize) {
        if let Some(slot) = self.0.slots.get_mut(slot) {
            slot.tried = true;
        }
    }

    /// The values of this type that plugins provide, as long as no function borrows them.
    pub(crate) fn held<T: Provided>(&self) -> impl Iterator<Item = &T> {
        self.0.slots.iter().filter_map(|slot| slot.value.as_ref()?.downcast_ref())
    }

    pub(crate) fn holds(&self, slot: usize) -> bool {
        self.0.slots.get(slot).is_some_and(|slot| slot.value.is_some())
    }

    /// Drops all that plugins provided, unsaved: what a panic leaves behind is not to be trusted.
    pub(crate) fn drop_provided(&mut self) {
        self.0.pending = None;
        self.0.slots.iter_mut().for_each(|slot| *slot = Slot::default());
    }

    /// Ends in a 500 that saves nothing.
    #[cfg_attr(not(unix), allow(dead_code))]
    pub(crate) fn fail(&mut self) {
        self.drop_provided();
        self.answer(Response::new(http::StatusCode::INTERNAL_SERVER_ERROR));
        self.move_to(Position::Released);
    }

    /// The answer of an exchange that has gone its way.
    ///
    /// An exchange that was not finished answers 500.
    pub fn into_response(self) -> Response {
        let unfinished = || Response::new(http::StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = self.0.response.unwrap_or_else(unfinished);
        response.set_request_id(self.0.id);
        response
    }
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Exchange({:?})", self.0.request)
    }
}
