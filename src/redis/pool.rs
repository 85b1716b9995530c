//! A pool of connections that never hands out one that something went wrong with.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, Once};
use std::time::{Duration, Instant};

use ::redis::{
    Client, Connection, ErrorKind as RedisErrorKind, Pipeline, RedisError, ServerError, Value,
};
use scheduled_thread_pool::ScheduledThreadPool;

use super::breaker::{Breaker, BreakerState};
use super::config::RedisConfig;
use crate::{Error, ErrorKind, Result};

/// After this long without use a connection is asked whether it still stands: servers and firewalls close
/// idle ones.
const DOUBTFUL_AFTER: Duration = Duration::from_secs(30);

/// The threads that connect, for all pools: connecting never blocks a request past its deadline.
static CONNECTING: LazyLock<Arc<ScheduledThreadPool>> = LazyLock::new(|| {
    Arc::new(
        ScheduledThreadPool::builder()
            .num_threads(2)
            .thread_name_pattern("redis-connect-{}")
            .build(),
    )
});

/// Connections to one Redis, shared by sessions and the app's own data. Clones share them too.
///
/// Opening a pool does not connect: an app starts while Redis is down, and works once it is there. A
/// connection that saw anything but a whole, expected reply is closed and never used again. While Redis
/// does not answer, a breaker lets operations fail at once and one of them try, four times a second.
///
/// ```no_run
/// use bottle_session::{App, RedisPlugin, RedisPool, SessionPlugin};
///
/// let pool = RedisPool::open("redis://localhost:6379/0")?;
/// let mut app = App::new();
/// app.install(SessionPlugin::new().pool(pool.clone()))?;
/// app.install(RedisPlugin::new().pool(pool))?;
/// # Ok::<(), bottle_session::Error>(())
/// ```
#[derive(Clone)]
pub struct RedisPool(Arc<Inner>);

struct Inner {
    pool: r2d2::Pool<Manager>,
    shared: Arc<Shared>,
}

/// What the pool and its manager both know.
struct Shared {
    config: RedisConfig,
    breaker: Breaker,
    /// Goes up when a connection was lost, so that the others are asked whether they still stand.
    generation: AtomicU64,
    /// Why connecting failed last.
    refusal: Mutex<Option<(ErrorKind, String)>>,
    advised: Once,
}

/// Whether an operation may be sent a second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Twice is as good as once.
    Idempotent,
    /// It may have been done although its reply was lost.
    Never,
}

/// Why a round trip failed.
enum Failure {
    /// The connection was closed before anything was answered: a reused one had gone stale.
    Stale(Error),
    /// Anything else.
    Other(Error),
}

impl RedisPool {
    /// A pool for the Redis at this address; see [`RedisConfig::from_url`]. Does not connect yet.
    pub fn open(url: &str) -> Result<RedisPool> {
        RedisPool::new(RedisConfig::from_url(url)?)
    }

    /// A pool for the Redis with these settings. Does not connect yet.
    pub fn new(config: RedisConfig) -> Result<RedisPool> {
        config.check()?;
        let info = config.connection_info()?;
        let client = Client::open(info).map_err(|error| {
            Error::new(ErrorKind::Config, format!("{config}: not an address")).with_source(error)
        })?;
        let shared = Arc::new(Shared {
            config: config.clone(),
            breaker: Breaker::default(),
            generation: AtomicU64::new(0),
            refusal: Mutex::new(None),
            advised: Once::new(),
        });
        let pool = r2d2::Pool::builder()
            .max_size(config.pool_size)
            .min_idle(Some(0))
            .connection_timeout(config.connect_timeout)
            .test_on_check_out(true)
            .error_handler(Box::new(r2d2::NopErrorHandler))
            .thread_pool(CONNECTING.clone())
            .build_unchecked(Manager { client, shared: shared.clone() });
        Ok(RedisPool(Arc::new(Inner { pool, shared })))
    }

    /// Whether operations reach Redis right now.
    pub fn breaker(&self) -> BreakerState {
        self.0.shared.breaker.state()
    }

    /// How many connections there are, and how many of them are idle.
    pub fn connections(&self) -> (u32, u32) {
        let state = self.0.pool.state();
        (state.connections, state.idle_connections)
    }

    /// Sends commands and reads a reply for each, in one round trip and within the operation's deadline. A
    /// command's own error concerns no other command. Where `check` finds that the replies are not to these
    /// commands, the connection is closed.
    pub(crate) fn send_checked(
        &self,
        pipeline: &Pipeline,
        repeat: Repeat,
        check: impl Fn(&[std::result::Result<Value, ServerError>]) -> bool,
    ) -> Result<Vec<std::result::Result<Value, ServerError>>> {
        let packed = pipeline.get_packed_pipeline();
        let once = || -> std::result::Result<_, Failure> {
            let mut link = self.checkout().map_err(Failure::Other)?;
            let replies = self.round_trip(&mut link, &packed, pipeline.len())?;
            if !check(&replies) {
                link.dirty = true;
            }
            Ok(replies)
        };
        match once() {
            Ok(replies) => Ok(replies),
            Err(Failure::Stale(_)) if repeat == Repeat::Idempotent => match once() {
                Ok(replies) => Ok(replies),
                Err(Failure::Stale(error) | Failure::Other(error)) => Err(error),
            },
            Err(Failure::Stale(error) | Failure::Other(error)) => Err(error),
        }
    }

    /// A connection that nothing has gone wrong with.
    pub(super) fn checkout(&self) -> Result<r2d2::PooledConnection<Manager>> {
        let shared = &self.0.shared;
        let patience = shared.config.connect_timeout + shared.config.operation_timeout;
        shared.breaker.enter(Instant::now(), patience)?;
        self.0.pool.get_timeout(shared.config.connect_timeout).map_err(|_| {
            let state = self.0.pool.state();
            if state.connections >= self.0.pool.max_size() {
                // Busy is not down: the breaker is not concerned, but a trial is over.
                return Error::new(
                    ErrorKind::Unavailable,
                    format!(
                        "{}: all {} connections of the pool were in use for {:?}; raise pool_size",
                        shared.config, state.connections, shared.config.connect_timeout
                    ),
                );
            }
            let error = shared.no_connection();
            shared.breaker.failed(Instant::now(), &error);
            error
        })
    }

    fn round_trip(
        &self,
        link: &mut Link,
        packed: &[u8],
        count: usize,
    ) -> std::result::Result<Vec<std::result::Result<Value, ServerError>>, Failure> {
        let shared = &self.0.shared;
        let reused = link.used;
        let done = link.exchange(packed, count, shared.config.operation_timeout);
        match done {
            Ok(replies) => {
                shared.breaker.succeeded();
                Ok(replies)
            }
            Err(error) => Err(shared.failure(error, reused)),
        }
    }

    /// Tells the breaker how a command of a handler's own went, which goes round [`send`](RedisPool::send).
    pub(super) fn note<T>(&self, result: &::redis::RedisResult<T>) {
        let shared = &self.0.shared;
        match result {
            Err(error) if !is_reply(error) => {
                let _ = shared.failure(error.clone(), false);
            }
            _ => shared.breaker.succeeded(),
        }
    }
}

/// Whether an error is a reply of the server, read whole, so that the connection is as good as before.
pub(super) fn is_reply(error: &RedisError) -> bool {
    matches!(error.kind(), RedisErrorKind::Server(_) | RedisErrorKind::Extension)
}

impl fmt::Debug for RedisPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisPool({}, {:?})", self.0.shared.config, self.breaker())
    }
}

impl Shared {
    /// What a failed round trip means.
    fn failure(&self, error: RedisError, reused: bool) -> Failure {
        self.generation.fetch_add(1, Ordering::Relaxed);
        let stale = reused && !error.is_timeout() && error.is_connection_dropped();
        let text = match error.is_timeout() {
            true => format!("{}: no reply within {:?}", self.config, self.config.operation_timeout),
            false => format!("{}: {error}", self.config),
        };
        let failure = Error::new(ErrorKind::Unavailable, text).with_source(error);
        if stale {
            // It may be no more than an idle connection that was closed: the next one tells.
            return Failure::Stale(failure);
        }
        self.breaker.failed(Instant::now(), &failure);
        Failure::Other(failure)
    }

    fn no_connection(&self) -> Error {
        let refusal = self.refusal.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match &*refusal {
            Some((kind, why)) => Error::new(*kind, format!("{}: {why}", self.config)),
            None => Error::new(
                ErrorKind::Unavailable,
                format!("{}: no connection within {:?}", self.config, self.config.connect_timeout),
            ),
        }
    }

    fn refuse(&self, refusal: Option<(ErrorKind, String)>) {
        *self.refusal.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = refusal;
    }
}

/// Makes connections for r2d2 and judges them.
pub(super) struct Manager {
    client: Client,
    shared: Arc<Shared>,
}

/// A connection and what is known of it.
pub(super) struct Link {
    pub(super) connection: Connection,
    /// Something was sent and not all of its replies have been read.
    pub(super) dirty: bool,
    generation: u64,
    used: bool,
    last_used: Instant,
}

impl r2d2::ManageConnection for Manager {
    type Connection = Link;
    type Error = Error;

    fn connect(&self) -> Result<Link> {
        let config = &self.shared.config;
        let generation = self.shared.generation.load(Ordering::Relaxed);
        let connected = self.client.get_connection_with_timeout(config.connect_timeout);
        let link = connected.and_then(|connection| {
            connection.set_read_timeout(Some(config.operation_timeout))?;
            connection.set_write_timeout(Some(config.operation_timeout))?;
            let last_used = Instant::now();
            Ok(Link { connection, dirty: false, generation, used: false, last_used })
        });
        match link {
            Ok(mut link) => {
                self.shared.refuse(None);
                self.shared.advised.call_once(|| advise(&mut link, config));
                Ok(link)
            }
            Err(error) => {
                let kind = match error.kind() {
                    RedisErrorKind::AuthenticationFailed
                    | RedisErrorKind::InvalidClientConfig
                    | RedisErrorKind::Server(_)
                    | RedisErrorKind::Extension
                        if !super::errors::passes(error.code()) =>
                    {
                        ErrorKind::Config
                    }
                    _ => ErrorKind::Unavailable,
                };
                self.shared.refuse(Some((kind, error.to_string())));
                Err(Error::new(kind, error.to_string()))
            }
        }
    }

    /// Asks the server only where there is a doubt: after another connection was lost, or after a while
    /// without use. A PING on every checkout would double what a load costs.
    fn is_valid(&self, link: &mut Link) -> Result<()> {
        let generation = self.shared.generation.load(Ordering::Relaxed);
        if link.generation == generation && link.last_used.elapsed() < DOUBTFUL_AFTER {
            return Ok(());
        }
        link.generation = generation;
        let ping = ::redis::cmd("PING").get_packed_command();
        match link.exchange(&ping, 1, self.shared.config.operation_timeout) {
            Ok(_) if !link.dirty => Ok(()),
            _ => Err(Error::new(ErrorKind::Unavailable, "the connection was lost")),
        }
    }

    fn has_broken(&self, link: &mut Link) -> bool {
        link.dirty || !::redis::ConnectionLike::is_open(&link.connection)
    }
}

impl Link {
    /// Sends packed commands and reads their replies before the deadline. The connection counts as dirty
    /// from before the first byte until the last reply is read.
    fn exchange(
        &mut self,
        packed: &[u8],
        count: usize,
        timeout: Duration,
    ) -> ::redis::RedisResult<Vec<std::result::Result<Value, ServerError>>> {
        let deadline = Instant::now() + timeout;
        self.dirty = true;
        self.used = true;
        self.connection.send_packed_command(packed)?;
        let mut replies = Vec::with_capacity(count);
        while replies.len() < count {
            if !replies.is_empty() {
                // A read time-out counts for one reply; the deadline is for all of them.
                let left = deadline.saturating_duration_since(Instant::now());
                self.connection.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            }
            match self.connection.recv_response()? {
                Value::ServerError(error) => replies.push(Err(error)),
                // Nobody subscribed to anything: this is not a reply to us.
                Value::Push { .. } => {
                    return Err(RedisError::from((
                        RedisErrorKind::Parse,
                        "unexpected push message",
                    )));
                }
                value => replies.push(Ok(value)),
            }
        }
        if count > 1 {
            self.connection.set_read_timeout(Some(timeout))?;
        }
        self.last_used = Instant::now();
        self.dirty = false;
        Ok(replies)
    }
}

/// Says once if the server may drop sessions for others' sake.
fn advise(link: &mut Link, config: &RedisConfig) {
    let info = ::redis::cmd("INFO").arg("memory").get_packed_command();
    let Ok(replies) = link.exchange(&info, 1, config.operation_timeout) else { return };
    let text = match replies.into_iter().next() {
        Some(Ok(Value::BulkString(bytes))) => bytes,
        Some(Ok(Value::VerbatimString { text, .. })) => text.into_bytes(),
        // Forbidden, perhaps; this is advice and no more.
        _ => return,
    };
    let text = String::from_utf8_lossy(&text);
    let policy = text.lines().find_map(|line| line.strip_prefix("maxmemory_policy:"));
    if let Some(policy) = policy.map(str::trim).filter(|policy| policy.starts_with("allkeys-")) {
        log::warn!(
            "{config} evicts any key when its memory is full (maxmemory-policy {policy}), which logs \
             visitors out; noeviction or a volatile- policy does not"
        );
    }
}
