//! Exchanges that go through a stage of a plugin together.

use std::any::Any;

use crate::logging::request_id::{RequestId, RequestIdGuard};
use crate::message::request::Request;
use crate::message::response::Response;
use crate::message::response_head::ResponseHead;
use crate::pipeline::exchange::{Exchange, Position};
use crate::pipeline::operation::{Operation, Pending, Remote, Then};
use crate::pipeline::plugin::Provided;
use crate::pipeline::route::Route;

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
///
/// ```
/// use bottle_session::{App, Batch, Entry, Plugin, Provided, Provision, Response, TestClient};
///
/// struct Language(String);
///
/// impl Provided for Language {}
///
/// struct Languages;
///
/// impl Plugin for Languages {
///     fn name(&self) -> &str {
///         "languages"
///     }
///
///     fn provides(&self) -> Option<Provision> {
///         Some(Provision::of::<Language>("language"))
///     }
///
///     fn acquire(&self, batch: &mut Batch<'_>) {
///         batch.iter_mut().for_each(|mut entry: Entry<'_>| {
///             match entry.request().header("accept-language").map(str::to_owned) {
///                 Some(language) => entry.put(Language(language)),
///                 None => entry.refuse(Response::text("in which language?").with_status(406)),
///             }
///         });
///     }
/// }
///
/// let mut app = App::new();
/// app.install(Languages)?;
/// app.get("/", |language: &Language| language.0.clone());
/// let client = TestClient::new(app)?;
/// assert_eq!(client.get("/").header("accept-language", "fr").send().text(), "fr");
/// assert_eq!(client.get("/").send().status(), 406);
/// # Ok::<(), bottle_session::Error>(())
/// ```
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

    /// The id of the request, where a plugin has given it one.
    pub fn request_id(&self) -> Option<&RequestId> {
        self.exchange.request_id()
    }

    /// Lines that this thread logs carry the id of the request until the guard is dropped. For stages that handle the requests
    /// of a batch one after the other; in the callbacks of [`wait`](Entry::wait) the id is entered already.
    pub fn enter_request_id(&self) -> Option<RequestIdGuard> {
        self.exchange.enter_request_id()
    }

    /// Whether the handler can do without: it asks for `Option<&mut T>` only.
    pub fn is_optional(&self) -> bool {
        !self.exchange.requires(self.slot)
    }

    /// Provides the value.
    ///
    /// It must be of the type that [`Plugin::provides`](crate::plugin::Plugin::provides) names.
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
        let id = self.exchange.request_id().cloned();
        let waiting = Box::new(Then { operation, then, id });
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
