//! Counts and times of requests, sessions and Redis, as Prometheus reads them.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, RwLock};
use std::time::Instant;

use http::{Method, header};

use crate::lock::{read, write};
use crate::message::response::Response;
use crate::pipeline::exchange::Exchange;
use crate::pipeline::histogram::{Histogram, SECONDS};
use crate::pipeline::plugin::{Callback, Plugin};
use crate::pipeline::route::Route;
use crate::redis::RedisPool;
use crate::session::events::Counters;
use crate::session::store::memory::MemoryStore;
#[cfg(feature = "sqlite")]
use crate::session::store::sqlite::SqliteStore;

mod page;

/// Measures requests, and makes a page of that and of sessions and Redis, in the text format of Prometheus (version 0.0.4).
///
/// | metric | type | labels |
/// |---|---|---|
/// | `http_requests_total` | counter | `method`, `route` (the rule; empty where there is none), `status` |
/// | `http_request_duration_seconds` | histogram | `method`, `route`; until the answer leaves, without the time that a stream takes |
/// | `http_stage_duration_seconds` | histogram | `stage`: `prepare` (values are acquired, the handler waits for a thread), `run` (the handler), `finish` (values are saved) |
/// | `http_requests_in_flight` | gauge | |
/// | `session_events_total` | counter | `keyword`, `event`: see [`Counts`](crate::Counts) |
/// | `redis_round_trips_total`, `redis_operations_total` | counter | `pool` |
/// | `redis_batch_size` | histogram | `pool`; operations that went in one round trip |
/// | `redis_round_trip_seconds` | histogram | `pool` |
/// | `redis_connections` | gauge | `pool`, `state`: `idle`, `used`; those of event loops not included |
/// | `redis_breaker_open` | gauge | `pool`; 1 while operations fail at once |
/// | `memory_sessions`, `memory_sessions_capacity` | gauge | `store`: see [`memory`](Self::memory) |
/// | `file_commit_seconds` | histogram | `store`: see [`file`](Self::file); until the disk has it, at full durability |
/// | `file_batch_size` | histogram | `store`; saves that went in one commit |
/// | `file_bytes` | gauge | `store`; the file and its write-ahead log |
///
/// Methods that HTTP does not name count as `OTHER`, so that visitors make no new series.
///
/// The handle is cloned: one is installed, one makes the page. Whoever may read that page learns how busy the site is, so
/// keep it from visitors: by a [`BasicAuthPlugin`](crate::BasicAuthPlugin), or a `location /metrics { deny all; }` in the
/// proxy.
///
/// ```
/// use bottle_session::{App, MetricsPlugin, SessionPlugin, TestClient};
///
/// let sessions = SessionPlugin::new().in_memory();
/// let metrics = MetricsPlugin::new().sessions("session", sessions.counters());
/// let mut app = App::new();
/// app.install(metrics.clone())?;
/// app.install(sessions)?;
/// app.get("/hello/<name>", |name: &str| format!("Hello, {name}"));
/// app.get("/metrics", move || metrics.page()).skip("metrics");
///
/// let client = TestClient::new(app)?;
/// client.get("/hello/Ada").send();
/// let line = r#"http_requests_total{method="GET",route="/hello/<name>",status="200"} 1"#;
/// assert!(client.get("/metrics").send().text().contains(line));
/// # Ok::<(), bottle_session::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct MetricsPlugin {
    requests: Arc<Requests>,
    sessions: Vec<(String, Counters)>,
    pools: Vec<(String, RedisPool)>,
    memory: Vec<(String, Arc<MemoryStore>)>,
    #[cfg(feature = "sqlite")]
    files: Vec<(String, Arc<SqliteStore>)>,
    gauges: Vec<Gauge>,
}

/// Another metric of the app's.
#[derive(Clone)]
struct Gauge {
    name: String,
    help: String,
    value: Arc<dyn Fn() -> f64 + Send + Sync>,
}

impl MetricsPlugin {
    /// A plugin that measures requests.
    pub fn new() -> MetricsPlugin {
        MetricsPlugin::default()
    }

    /// Has the page tell of the sessions of this keyword, whose counters
    /// [`SessionPlugin::counters`](crate::SessionPlugin::counters) gives.
    #[must_use]
    pub fn sessions(mut self, keyword: impl Into<String>, counters: Counters) -> MetricsPlugin {
        self.sessions.push((keyword.into(), counters));
        self
    }

    /// Has the page tell of a pool, under a name of the app's choice.
    #[must_use]
    pub fn redis(mut self, name: impl Into<String>, pool: RedisPool) -> MetricsPlugin {
        self.pools.push((name.into(), pool));
        self
    }

    /// Has the page tell of a store in memory, under a name of the app's choice.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use bottle_session::{MemoryStore, MetricsPlugin, SessionPlugin};
    ///
    /// let store = Arc::new(MemoryStore::new());
    /// let metrics = MetricsPlugin::new().memory("sessions", store.clone());
    /// let sessions = SessionPlugin::new().store(store);
    /// assert!(metrics.text().contains(r#"memory_sessions{store="sessions"} 0"#));
    /// # let _ = sessions;
    /// ```
    #[must_use]
    pub fn memory(mut self, name: impl Into<String>, store: Arc<MemoryStore>) -> MetricsPlugin {
        self.memory.push((name.into(), store));
        self
    }

    /// Has the page tell of sessions in a file, under a name of the app's choice.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use bottle_session::{MetricsPlugin, SessionPlugin, SqliteStore};
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("sessions.db");
    ///
    /// let store = Arc::new(SqliteStore::open(path)?);
    /// let metrics = MetricsPlugin::new().file("sessions", store.clone());
    /// let sessions = SessionPlugin::new().store(store);
    /// # let _ = (metrics, sessions);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[cfg(feature = "sqlite")]
    #[cfg_attr(docsrs, doc(cfg(feature = "sqlite")))]
    #[must_use]
    pub fn file(mut self, name: impl Into<String>, store: Arc<SqliteStore>) -> MetricsPlugin {
        self.files.push((name.into(), store));
        self
    }

    /// Another number for the page, asked for whenever that is read.
    ///
    /// ```
    /// use bottle_session::MetricsPlugin;
    ///
    /// let started = std::time::Instant::now();
    /// let up = move || started.elapsed().as_secs_f64();
    /// let metrics = MetricsPlugin::new().gauge("uptime_seconds", "Since the start.", up);
    /// assert!(metrics.text().contains("uptime_seconds 0.0"));
    /// ```
    ///
    /// # Panics
    ///
    /// If the name is not made of letters, digits, `_` and `:`, or begins with a digit.
    #[must_use]
    pub fn gauge(
        mut self,
        name: impl Into<String>,
        help: impl Into<String>,
        value: impl Fn() -> f64 + Send + Sync + 'static,
    ) -> MetricsPlugin {
        let (name, help) = (name.into(), help.into());
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_:".contains(&byte);
        let is_name = name.bytes().all(fits) && name.starts_with(|c: char| !c.is_ascii_digit());
        assert!(is_name, "{name:?} is no name of a metric");
        self.gauges.push(Gauge { name, help, value: Arc::new(value) });
        self
    }

    /// The page.
    pub fn page(&self) -> Response {
        Response::text(self.text())
            .with_header(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")
            .with_header(header::CACHE_CONTROL, "no-store")
    }
}

impl fmt::Debug for MetricsPlugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsPlugin").finish_non_exhaustive()
    }
}

/// What was measured of requests.
struct Requests {
    /// By rule.
    routes: RwLock<HashMap<String, Arc<OfRoute>>>,
    prepare: Histogram,
    run: Histogram,
    finish: Histogram,
    in_flight: AtomicI64,
}

impl Default for Requests {
    fn default() -> Requests {
        let stage = || Histogram::new(SECONDS);
        Requests {
            routes: RwLock::default(),
            prepare: stage(),
            run: stage(),
            finish: stage(),
            in_flight: AtomicI64::new(0),
        }
    }
}

/// What was measured of one route.
#[derive(Default)]
struct OfRoute {
    /// By method.
    durations: [OnceLock<Histogram>; METHODS.len()],
    /// By method and status.
    answers: RwLock<Vec<(usize, u16, AtomicU64)>>,
}

/// What is no method of these is counted as the last one.
const METHODS: [&str; 10] =
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE", "OTHER"];

impl Requests {
    fn of(&self, rule: &str) -> Arc<OfRoute> {
        let known = read(&self.routes);
        if let Some(route) = known.get(rule) {
            return route.clone();
        }
        drop(known);
        let mut routes = write(&self.routes);
        routes.entry(rule.to_owned()).or_default().clone()
    }
}

impl OfRoute {
    fn answered(&self, method: &Method, status: u16, seconds: f64) {
        let last = METHODS.len() - 1;
        let method = METHODS.iter().position(|name| *name == method.as_str()).unwrap_or(last);
        self.durations[method].get_or_init(|| Histogram::new(SECONDS)).observe(seconds);
        let is_it = |it: &&(usize, u16, AtomicU64)| it.0 == method && it.1 == status;
        let answers = read(&self.answers);
        if let Some((.., count)) = answers.iter().find(is_it) {
            count.fetch_add(1, Ordering::Relaxed);
            return;
        }
        drop(answers);
        let mut answers = write(&self.answers);
        match answers.iter().find(is_it) {
            Some((.., count)) => drop(count.fetch_add(1, Ordering::Relaxed)),
            None => answers.push((method, status, AtomicU64::new(1))),
        }
    }
}

/// The times of a request on its way.
#[derive(Clone)]
struct Times {
    came: Instant,
    ran: Option<Instant>,
    _in_flight: Arc<InFlight>,
}

/// A request that is not answered yet, whatever becomes of it.
struct InFlight(Arc<Requests>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl MetricsPlugin {
    fn times(&self) -> Times {
        self.requests.in_flight.fetch_add(1, Ordering::Relaxed);
        let in_flight = Arc::new(InFlight(self.requests.clone()));
        Times { came: Instant::now(), ran: None, _in_flight: in_flight }
    }
}

fn seconds_since(begin: Instant, end: Instant) -> f64 {
    end.saturating_duration_since(begin).as_secs_f64()
}

impl Plugin for MetricsPlugin {
    fn name(&self) -> &str {
        "metrics"
    }

    fn watches(&self, _: &Route) -> bool {
        true
    }

    fn begin(&self, exchange: &mut Exchange) {
        exchange.request_mut().extensions_mut().get_or_insert_with(|| self.times());
    }

    fn apply(&self, callback: Callback, _: &Route) -> Callback {
        let requests = self.requests.clone();
        Callback::new(move |exchange| {
            let begin = Instant::now();
            if let Some(times) = exchange.request().extensions().get::<Times>() {
                requests.prepare.observe(seconds_since(times.came, begin));
            }
            let response = callback.call(exchange);
            let end = Instant::now();
            requests.run.observe(seconds_since(begin, end));
            if let Some(times) = exchange.request_mut().extensions_mut().get_mut::<Times>() {
                times.ran = Some(end);
            }
            response
        })
    }

    fn end(&self, exchange: &mut Exchange, answer: &mut Response) {
        let Some(times) = exchange.request_mut().extensions_mut().remove::<Times>() else { return };
        let now = Instant::now();
        if let Some(ran) = times.ran {
            self.requests.finish.observe(seconds_since(ran, now));
        }
        let route = self.requests.of(exchange.rule().unwrap_or(""));
        let (method, status) = (exchange.request().method(), answer.status().as_u16());
        route.answered(method, status, seconds_since(times.came, now));
    }
}
