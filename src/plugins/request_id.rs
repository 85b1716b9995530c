//! An id for each request, in its answer and in each of its log lines.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use http::header::{HeaderName, HeaderValue};

use crate::logging::request_id::RequestId;
use crate::message::request::Request;
use crate::message::response::Response;
use crate::pipeline::batch::Batch;
use crate::pipeline::exchange::Exchange;
use crate::pipeline::plugin::{Installed, Plugin, Provided, Provision};
use crate::pipeline::route::Route;
use crate::{Error, ErrorKind, Result};

impl Provided for RequestId {}

/// Gives each request an id: in the answer's `X-Request-Id`, in each log line of the request, and to handlers that ask
/// for `&RequestId`.
///
/// A [trusted proxy](crate::server::native::Native::trusted_proxies)'s `X-Request-Id` is taken over, so that its log and
/// the app's tell of one request by one name; nginx passes on what it was sent, or makes one with `proxy_set_header
/// X-Request-Id $request_id;`. From anybody else, and where it cannot be an id, a new one is made: 24 hexadecimal digits.
///
/// Install it first. Log lines have the id from then on: those of hooks and handlers, of this crate (the session store
/// and the server included) and of any other, as long as the app's logger is behind a
/// [`RequestIdLogger`](crate::RequestIdLogger) or asks for [`RequestId::current`]. Where the app has no logger, the one
/// that [`run`](crate::App::run) installs writes it. Lines about several requests, about Redis as a whole for one, have none.
///
/// ```
/// use bottle_session::{App, RequestId, RequestIdPlugin, TestClient};
///
/// let mut app = App::new();
/// app.install(RequestIdPlugin::new())?;
/// app.get("/", |id: &RequestId| format!("Should this go wrong, tell us {id}."));
///
/// let client = TestClient::new(app)?;
/// assert!(client.get("/").send().headers().contains_key("x-request-id"));
/// assert!(client.get("/nowhere").send().headers().contains_key("x-request-id"));
/// # Ok::<(), bottle_session::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct RequestIdPlugin {
    keyword: String,
    header: String,
    name: HeaderName,
}

impl RequestIdPlugin {
    /// A plugin that reads and writes `X-Request-Id`, under keyword `request_id`.
    pub fn new() -> RequestIdPlugin {
        RequestIdPlugin {
            keyword: "request_id".to_owned(),
            header: "x-request-id".to_owned(),
            name: HeaderName::from_static("x-request-id"),
        }
    }

    /// The name of the header, such as `X-Correlation-Id`: `X-Request-Id` unless set.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>) -> RequestIdPlugin {
        self.header = name.into();
        self
    }

    /// The name under which [`named!`](crate::named) handlers ask for the id: `request_id` unless set.
    #[must_use]
    pub fn keyword(mut self, keyword: impl Into<String>) -> RequestIdPlugin {
        self.keyword = keyword.into();
        self
    }

    fn give(&self, exchange: &mut Exchange) {
        if exchange.request_id().is_none() {
            let id = self.sent(exchange.request()).unwrap_or_else(made);
            exchange.set_request_id(id);
        }
    }

    fn sent(&self, request: &Request) -> Option<RequestId> {
        let sent = request.is_from_trusted_proxy().then(|| request.header(&self.name))?;
        RequestId::parse(sent?)
    }
}

/// A new id. It is no secret, but tells nobody how many there were.
fn made() -> RequestId {
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let (high, low) = (KEY.hash_one((count, 0u8)), KEY.hash_one((count, 1u8)));
    let text = format!("{high:016x}{:08x}", low >> 32);
    RequestId::parse(&text).unwrap_or_else(|| unreachable!("hexadecimal digits are an id"))
}

impl Default for RequestIdPlugin {
    fn default() -> RequestIdPlugin {
        RequestIdPlugin::new()
    }
}

impl Plugin for RequestIdPlugin {
    fn name(&self) -> &str {
        "request_id"
    }

    fn provides(&self) -> Option<Provision> {
        Some(Provision::of::<RequestId>(&self.keyword))
    }

    fn setup(&mut self, _: &Installed<'_>) -> Result<()> {
        self.name = HeaderName::try_from(&self.header).map_err(|error| {
            let text = format!("request_id plugin: {:?} is no name of a header", self.header);
            Error::new(ErrorKind::Config, text).with_source(error)
        })?;
        Ok(())
    }

    fn watches(&self, _: &Route) -> bool {
        true
    }

    fn arrive(&self, exchange: &mut Exchange) {
        self.give(exchange);
    }

    /// In a group or a mounted app it hears of the request no sooner.
    fn begin(&self, exchange: &mut Exchange) {
        self.give(exchange);
    }

    fn end(&self, exchange: &mut Exchange, answer: &mut Response) {
        let id = exchange.request_id();
        if let Some(Ok(value)) = id.map(|id| HeaderValue::from_str(id.as_str())) {
            answer.headers_mut().insert(self.name.clone(), value);
        }
    }

    fn may_block(&self) -> bool {
        false
    }

    fn acquire(&self, batch: &mut Batch<'_>) {
        for mut entry in batch.iter_mut() {
            if let Some(id) = entry.request_id().cloned() {
                entry.put(id);
            }
        }
    }
}
