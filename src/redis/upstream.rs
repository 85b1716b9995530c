//! One Redis as all its connections know it: how it is reached, whether it answers, which connections to trust.

use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once, RwLock};
use std::time::{Duration, Instant};

use ::redis::{ErrorKind as RedisErrorKind, RedisError, RedisResult, Value};

use super::batch::Batch;
use super::breaker::Breaker;
use super::config::RedisConfig;
use super::connection::{Connection, MAX_SETUP_REPLY};
use super::errors::{TooLarge, connecting, is_distrust, said};
use super::sentinel::MasterMonitor;
use super::transport::Trust;
use crate::lock::{lock, read};
use crate::logging::ThrottledLog;
use crate::pipeline::histogram::{Histogram, SECONDS, SIZES};
use crate::pipeline::service::AlreadyLogged;
use crate::{Error, ErrorKind, Result};

/// After this long without use a connection may be dead without a sign: servers and firewalls close idle ones. The
/// pool asks, an event loop makes a new one.
pub(super) const CHECK_AFTER_IDLE: Duration = Duration::from_secs(30);

/// As many new connections in a row that are closed on us, or send garbage, mean that Redis is down.
const MAX_DROPS: u32 = 3;

/// How often connecting is tried, one attempt right after the other, where it is refused.
const CONNECT_ATTEMPTS: u32 = 3;

/// Stands for no time-out. Longer ones are cut to it, as adding them to a time could overflow.
pub(super) const NO_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 3600);

/// What the pool, its manager and the channels of event loops know of one Redis.
pub(super) struct Upstream {
    pub(super) config: RedisConfig,
    pub(super) source: Source,
    pub(super) trust: Trust,
    pub(super) breaker: Breaker,
    /// Goes up when a connection was lost, so that the others are asked whether they still stand.
    pub(super) generation: AtomicU64,
    /// Connections of an older generation than this are closed without asking: one that was asked did not
    /// stand, and each more would cost its time.
    pub(super) retired: AtomicU64,
    /// How often connecting has failed.
    pub(super) refusals: AtomicU64,
    /// Why it failed last.
    pub(super) refusal: Mutex<Option<(ErrorKind, String)>>,
    /// New connections that were closed on us, and those that sent garbage, since the last reply.
    pub(super) drops: AtomicU32,
    pub(super) warned: Once,
    /// What the sentinels say, where there are some.
    pub(super) monitor: Option<Arc<MasterMonitor>>,
    /// Saves that too few replicas have.
    pub(super) short_of_replicas: ThrottledLog,
    pub(super) observers: RwLock<Vec<Observer>>,
    pub(super) round_trips: RoundTrips,
}

/// The round trips that were answered.
pub(crate) struct RoundTrips {
    /// How many operations went in each.
    pub(crate) sizes: Histogram,
    /// How long each took.
    pub(crate) seconds: Histogram,
}

impl Default for RoundTrips {
    fn default() -> RoundTrips {
        RoundTrips { sizes: Histogram::new(SIZES), seconds: Histogram::new(SECONDS) }
    }
}

impl RoundTrips {
    fn count(&self, operations: usize, took: Duration) {
        self.sizes.observe(operations as f64);
        self.seconds.observe(took.as_secs_f64());
    }
}

/// How connections come about.
pub(super) enum Source {
    Network,
    #[cfg(feature = "r2d2_redis")]
    External(super::external::ExternalPool),
}

/// Hears when Redis stops answering, and why, and when it answers again.
pub(super) type Observer = Arc<dyn Fn(Option<&Error>) + Send + Sync>;

/// Why a round trip failed.
pub(super) enum Failure {
    /// The connection was closed before anything was answered: a reused one had gone stale.
    Stale(Error),
    /// Anything else.
    Other(Error),
}

/// Until when the parts of one operation may take, a repetition included.
pub(super) struct Deadlines {
    pub(super) connected: Instant,
    pub(super) replied: Instant,
}

impl Deadlines {
    pub(super) fn starting_now(config: &RedisConfig) -> Deadlines {
        let connected = Instant::now() + config.connect_timeout;
        Deadlines { connected, replied: connected + config.operation_timeout }
    }

    pub(super) fn reply_by(&self, config: &RedisConfig) -> Instant {
        self.replied.min(Instant::now() + config.operation_timeout)
    }
}

impl Upstream {
    /// The error of a round trip that failed.
    pub(super) fn lost(&self, error: &RedisError) -> Error {
        if let Some(TooLarge(limit)) = TooLarge::of(error) {
            let would_do = match *limit < self.config.max_reply {
                true => "which no session of this store has",
                false => "ask for less at a time, or raise RedisConfig::max_reply",
            };
            let text = format!("{}: {}; {would_do}", self.config, TooLarge(*limit));
            return Error::new(ErrorKind::Redis, text);
        }
        let text = match error.is_timeout() {
            true => format!("{}: no reply within {:?}", self.config, self.config.operation_timeout),
            false => format!("{}: {error}", self.config),
        };
        Error::new(ErrorKind::Unavailable, text).with_source(error.clone())
    }

    /// What a failed round trip means.
    pub(super) fn failure(&self, error: &RedisError, reused: bool) -> Failure {
        let failure = self.lost(error);
        if TooLarge::of(error).is_some() {
            self.is_there();
            return Failure::Other(failure);
        }
        self.generation.fetch_add(1, Ordering::AcqRel);
        let dropped = !error.is_timeout() && error.is_connection_dropped();
        let garbled = matches!(error.kind(), RedisErrorKind::Parse);
        let is_one_of_few = || self.drops.fetch_add(1, Ordering::AcqRel) + 1 < MAX_DROPS;
        if (dropped && reused) || ((dropped || garbled) && is_one_of_few()) {
            // It may be no more than one connection that was closed or out of step: the next one tells.
            self.breaker.undecided(Instant::now());
            return match dropped {
                true => Failure::Stale(failure),
                false => Failure::Other(failure),
            };
        }
        self.down(&failure);
        Failure::Other(failure)
    }

    /// Redis answered so many operations in one round trip, which took so long.
    pub(super) fn answered(&self, operations: usize, took: Duration) {
        self.round_trips.count(operations, took);
        self.is_there();
    }

    /// Redis is there.
    fn is_there(&self) {
        if self.drops.load(Ordering::Relaxed) != 0 {
            self.drops.store(0, Ordering::Release);
        }
        if self.breaker.succeeded() {
            self.notify_observers(None);
        }
    }

    /// Redis does not answer.
    pub(super) fn down(&self, why: &Error) {
        if self.breaker.failed(Instant::now(), why) {
            self.notify_observers(Some(why));
        }
    }

    pub(super) fn notify_observers(&self, down: Option<&Error>) {
        // Not while they are locked: what an observer does is its own affair.
        let observers = read(&self.observers).clone();
        for observer in observers {
            // Its panic is no failure of the operation that found out.
            if catch_unwind(AssertUnwindSafe(|| observer(down))).is_err() {
                log::error!("{}: an observer of the breaker panicked", self.config);
            }
        }
    }

    /// Gives up this connection and all that were made before it: a new one may lead to another server.
    pub(super) fn discard(&self, connection: &mut Connection) {
        connection.dirty = true;
        self.retire(connection.generation);
    }

    /// Gives up all connections of this generation and of former ones.
    pub(super) fn retire(&self, generation: u64) {
        // First: who sees the new generation sees that the old ones are retired.
        self.retired.fetch_max(generation + 1, Ordering::AcqRel);
        self.generation.fetch_max(generation + 1, Ordering::AcqRel);
    }

    /// Hears what the sentinels have said by now. To be called before what a connection has received is believed.
    pub(super) fn read_announcements(&self) {
        if let Some(monitor) = &self.monitor {
            monitor.read_announcements();
        }
    }

    /// Whether a failover is under way, so that nothing that is written counts.
    pub(super) fn is_held(&self) -> bool {
        self.monitor.as_ref().is_some_and(|monitor| monitor.is_held())
    }

    /// Whether connections of this generation lead to another server than the master.
    pub(super) fn is_fenced(&self, generation: u64) -> bool {
        self.monitor.as_ref().is_some_and(|monitor| monitor.is_fenced(generation))
    }

    /// Waits while a failover is under way, but no longer than this. Whether it is over.
    pub(super) fn wait_while_held(&self, until: Instant) -> bool {
        self.monitor.as_ref().is_none_or(|monitor| monitor.wait(until))
    }

    /// The error of a write that was not sent, as a failover is under way.
    pub(super) fn held(&self) -> Error {
        let text = format!("{}: a failover is under way, nothing was written", self.config);
        Error::new(ErrorKind::Unavailable, text)
    }

    /// The error of a write that was sent before a failover was heard of.
    pub(super) fn overtaken(&self) -> Error {
        let text = format!(
            "{}: a failover began before the reply was there, whether it was written will show",
            self.config
        );
        Error::new(ErrorKind::Unavailable, text)
    }

    /// The error of a write that too few replicas have, if that is so.
    pub(super) fn shortfall(&self, batch: &Batch) -> Option<Error> {
        Some(match batch.shortfall()? {
            Ok(have) => self.too_few_replicas(Some(have)),
            Err(refused) => self.refuses_to_wait(refused),
        })
    }

    /// The error of a write that so many replicas have, if that is known. It is told once for all of them.
    pub(super) fn too_few_replicas(&self, have: Option<u32>) -> Error {
        let (config, wanted) = (&self.config, self.config.replicas);
        let have = match have {
            Some(have) => format!("{have} of {wanted}"),
            None => format!("fewer than {wanted}"),
        };
        let text = format!(
            "{config}: {have} replicas had what was written within {:?}",
            config.operation_timeout
        );
        self.short_of_replicas.log_throttled(log::Level::Error, "replicas", || text.clone());
        Error::new(ErrorKind::Unavailable, text).with_source(AlreadyLogged)
    }

    /// The error of a server that does not wait for replicas.
    pub(super) fn refuses_to_wait(&self, refused: &Error) -> Error {
        let text = format!(
            "{}: replicas({}) needs the command WAIT, which the server refuses ({refused})",
            self.config, self.config.replicas
        );
        // A replica may be left for its master; nothing else of this passes.
        let passes = refused.kind() == ErrorKind::Unavailable || is_replica(refused);
        let kind = if passes { ErrorKind::Unavailable } else { ErrorKind::Config };
        Error::new(kind, text)
    }

    pub(super) fn is_retired(&self, generation: u64) -> bool {
        generation < self.retired.load(Ordering::Acquire)
    }

    /// Whether a connection can be used. A look at the socket shows what the kernel knows: that the server
    /// closed it, or that a reply came late. The server is asked only where there is a doubt: after another
    /// connection was lost, or after a while without use. A PING on every checkout would double what a load
    /// costs.
    pub(super) fn is_healthy(&self, connection: &mut Connection, deadlines: &Deadlines) -> bool {
        if connection.renew_at.is_some_and(|at| at <= Instant::now()) {
            return false;
        }
        // Before anything is looked at: what is retired later has an older generation than the next one.
        let generation = self.generation.load(Ordering::Acquire);
        // Dirty before its first use: the advice that we asked for did not come in time.
        if connection.dirty || self.is_retired(connection.generation) || !connection.is_quiet() {
            return false;
        }
        if connection.generation == generation && connection.last_used.elapsed() < CHECK_AFTER_IDLE
        {
            return true;
        }
        let ping = ::redis::cmd("PING").get_packed_command();
        let deadline = deadlines.connected.min(Instant::now() + self.config.operation_timeout);
        let answered = connection.exchange(&ping, 1, deadline, MAX_SETUP_REPLY).is_ok();
        if !answered {
            self.retire(generation);
            return false;
        }
        match &self.monitor {
            Some(monitor) => monitor.promote(connection, generation),
            None => self.promote(connection, generation),
        }
    }

    /// Counts a connection that stands as one of this generation, unless it has been retired meanwhile.
    pub(super) fn promote(&self, connection: &mut Connection, generation: u64) -> bool {
        let is_good = !self.is_retired(connection.generation);
        if is_good {
            connection.generation = generation;
        }
        is_good
    }

    pub(super) fn connect(&self) -> RedisResult<Connection> {
        let generation = self.generation.load(Ordering::Acquire);
        let (config, trust) = (&self.config, &self.trust);
        let deadline = Instant::now() + config.connect_timeout;
        match &self.source {
            Source::Network => {}
            #[cfg(feature = "r2d2_redis")]
            Source::External(pool) => {
                return Ok(Connection::external(super::external::External::of(pool), generation));
            }
        }
        let connect = || match &self.monitor {
            Some(monitor) => monitor.connect(config, trust, deadline),
            None => Connection::connect(config, &config.address, trust, generation, deadline),
        };
        // One that is refused or cut is no proof that Redis is down; several in a row are.
        let mut connected = connect();
        for _ in 1..CONNECT_ATTEMPTS {
            match &connected {
                Err(error) if is_refusal(error) && Instant::now() < deadline => {
                    connected = connect();
                }
                _ => break,
            }
        }
        connected
    }

    /// Makes a connection, and takes note of how that went.
    pub(super) fn open(&self) -> Result<Connection> {
        match self.connect() {
            Ok(mut connection) => {
                self.refuse(None);
                connection.renew_at = self.config.max_connection_age.map(renewal);
                if matches!(self.source, Source::Network) {
                    self.warned.call_once(|| warn_of_eviction(&mut connection, &self.config));
                }
                Ok(connection)
            }
            Err(error) => {
                let (kind, text) = (connecting(&error), said(&error));
                self.refuse(Some((kind, text.clone())));
                Err(Error::new(kind, text))
            }
        }
    }

    /// Makes a connection for an event loop.
    #[cfg(unix)]
    pub(super) fn connect_channel(&self) -> Result<super::channel::Connected> {
        let connection = self.open().map_err(|error| {
            Error::new(error.kind(), format!("{}: {error}", self.config)).with_source(AlreadyLogged)
        })?;
        connection.into_channel()
    }

    /// Busy is not down. A trial of the breaker's is over, undecided.
    pub(super) fn all_in_use(&self, connections: u32) -> Error {
        self.breaker.undecided(Instant::now());
        let (config, time) = (&self.config, self.config.connect_timeout);
        let text = format!(
            "{config}: all {connections} connections of the pool were in use for {time:?}; raise pool_size"
        );
        Error::new(ErrorKind::Unavailable, text)
    }

    pub(super) fn no_connection(&self) -> Error {
        let refusal = lock(&self.refusal);
        match &*refusal {
            Some((kind, why)) => Error::new(*kind, format!("{}: {why}", self.config))
                // By the breaker, which hears of it next.
                .with_source(AlreadyLogged),
            None => Error::new(
                ErrorKind::Unavailable,
                format!("{}: no connection within {:?}", self.config, self.config.connect_timeout),
            ),
        }
    }

    pub(super) fn refuse(&self, refusal: Option<(ErrorKind, String)>) {
        let refused = refusal.is_some();
        *lock(&self.refusal) = refusal;
        if refused {
            self.refusals.fetch_add(1, Ordering::AcqRel);
        }
    }
}

/// Whether a server has refused to wait for replicas because it is one.
fn is_replica(refused: &Error) -> bool {
    refused.to_string().contains("WAIT cannot be used with replica")
}

/// When a connection that is made now is renewed: up to a tenth earlier than its age, so that those made together are
/// not renewed together.
fn renewal(age: Duration) -> Instant {
    let share = RandomState::new().hash_one(0) as f64 / u64::MAX as f64;
    Instant::now() + age.min(NO_TIMEOUT).mul_f64(1.0 - share / 10.0)
}

/// Whether connecting failed at once, by the network's or the other side's doing, and may not the next time.
fn is_refusal(error: &RedisError) -> bool {
    let settled = error.is_timeout() || is_distrust(error) || TooLarge::of(error).is_some();
    error.is_io_error() && !settled
}

/// Whether an error is a reply of the server, read whole, so that the connection is as good as before.
pub(super) fn is_reply(error: &RedisError) -> bool {
    matches!(error.kind(), RedisErrorKind::Server(_) | RedisErrorKind::Extension)
}

/// Says once if the server may drop sessions for others' sake.
fn warn_of_eviction(connection: &mut Connection, config: &RedisConfig) {
    let info = ::redis::cmd("INFO").arg("memory").get_packed_command();
    let deadline = Instant::now() + config.operation_timeout;
    let Ok(replies) = connection.exchange(&info, 1, deadline, MAX_SETUP_REPLY) else { return };
    let text = match replies.into_iter().next() {
        Some(Ok(Value::BulkString(bytes))) => bytes,
        Some(Ok(Value::VerbatimString { text, .. })) => text.into_bytes(),
        // Forbidden, perhaps; this is advice and no more.
        _ => return,
    };
    let text = String::from_utf8_lossy(&text);
    let policy = text.lines().find_map(|line| line.strip_prefix("maxmemory_policy:"));
    // Every session has an end, so a volatile- policy has an eye on sessions above all.
    if let Some(policy) = policy.map(str::trim).filter(|policy| *policy != "noeviction") {
        log::warn!(
            "{config} drops keys when its memory is full (maxmemory-policy {policy}), sessions among them, \
             which logs visitors out; noeviction does not"
        );
    }
}
