//! A pool of connections that never hands out one that something went wrong with.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once, RwLock};
use std::time::{Duration, Instant};

use ::redis::{ErrorKind as RedisErrorKind, RedisError, RedisResult, Value};
use scheduled_thread_pool::ScheduledThreadPool;

use super::batch::{Batch, Manner, Received, deliver};
use super::breaker::{Breaker, BreakerState};
#[cfg(unix)]
use super::channel::RedisChannel;
use super::commands::RedisConnection;
use super::config::{Address, RedisConfig};
use super::connection::{Connection, Reply, SHORT};
use super::errors::{TooLarge, as_redis_error, copy, is_demoted};
use super::transport::Trust;
use crate::pipeline::operation::{Answer, Carrier, Operation, Progress, Remote};
#[cfg(unix)]
use crate::pipeline::operation::{Channel, Wake};
use crate::pipeline::service::LoggedBefore;
use crate::{Error, ErrorKind, Result};

/// After this long without use a connection may be dead without a sign: servers and firewalls close idle ones. The
/// pool asks, an event loop makes a new one.
pub(super) const DOUBTFUL_AFTER: Duration = Duration::from_secs(30);

/// How often somebody who waits for a connection looks up: r2d2 wakes nobody when connecting fails.
const LOOK_UP: Duration = Duration::from_millis(10);

/// Twice the longest pause between two attempts to connect.
const RETRY_WITHIN: Duration = Duration::from_millis(400);

/// As many new connections in a row that are closed on us, or send garbage, mean that Redis is down.
const DROPS: u32 = 3;

/// How often connecting is tried, one attempt right after the other, where it is refused.
const ATTEMPTS: u32 = 3;

/// A time-out that is longer is as good as this one, which a clock can be set to.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Connections to one Redis, shared by sessions and the app's own data. Clones share them too.
///
/// Opening a pool does not connect: an app starts while Redis is down, and works once it is there. A
/// connection that saw anything but a whole, expected reply is closed and never used again. While Redis
/// does not answer, a breaker lets operations fail at once and one of them try, four times a second.
/// A process that was forked makes connections of its own.
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
    own: RwLock<OwnedPool>,
    shared: Arc<Shared>,
}

/// The connections of one process. After a fork parent and child must not talk over the same sockets, and the
/// threads that connect are the parent's alone.
struct OwnedPool {
    process: u32,
    pool: r2d2::Pool<Manager>,
}

/// What the pool and its manager both know.
pub(super) struct Shared {
    pub(super) config: RedisConfig,
    source: Source,
    trust: Trust,
    pub(super) breaker: Breaker,
    /// Goes up when a connection was lost, so that the others are asked whether they still stand.
    generation: AtomicU64,
    /// Connections of an older generation than this are closed without asking: one that was asked did not
    /// stand, and each more would cost its time.
    condemned: AtomicU64,
    /// How often connecting has failed.
    refusals: AtomicU64,
    /// Why it failed last.
    refusal: Mutex<Option<(ErrorKind, String)>>,
    /// New connections that were closed on us, and those that sent garbage, since the last reply.
    drops: AtomicU32,
    advised: Once,
    observers: RwLock<Vec<Observer>>,
}

/// How connections come about.
enum Source {
    Network,
    #[cfg(feature = "r2d2_redis")]
    External(super::external::ExternalPool),
}

/// Hears when Redis stops answering, and why, and when it answers again.
type Observer = Arc<dyn Fn(Option<&Error>) + Send + Sync>;

/// Why a round trip failed.
pub(super) enum Failure {
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
        RedisPool::over(config, Source::Network)
    }

    /// Takes connections from the pool that the application has already, of `r2d2_redis` 0.14. `config` has the
    /// time-outs; where Redis is, and who we are there, that pool knows.
    ///
    /// A connection is taken for each operation and goes back after it, without time-outs, as `r2d2_redis`
    /// makes them. One that anything happened to is closed. One that somebody else left out of step, as the
    /// `redis` 0.20 below `r2d2_redis` does after a time-out, is recognized: the operation fails, and its
    /// connection is closed.
    #[cfg(feature = "r2d2_redis")]
    pub fn from_r2d2_redis(
        pool: r2d2_redis::r2d2::Pool<r2d2_redis::RedisConnectionManager>,
        config: RedisConfig,
    ) -> Result<RedisPool> {
        RedisPool::over(config.pool_size(pool.max_size()), Source::External(pool))
    }

    fn over(mut config: RedisConfig, source: Source) -> Result<RedisPool> {
        config.check()?;
        config.connect_timeout = config.connect_timeout.min(FOR_EVER);
        config.operation_timeout = config.operation_timeout.min(FOR_EVER);
        let trust = Trust::new(&config)?;
        let shared = Arc::new(Shared {
            config,
            source,
            trust,
            breaker: Breaker::default(),
            generation: AtomicU64::new(0),
            condemned: AtomicU64::new(0),
            refusals: AtomicU64::new(0),
            refusal: Mutex::new(None),
            drops: AtomicU32::new(0),
            advised: Once::new(),
            observers: RwLock::default(),
        });
        let own = RwLock::new(OwnedPool::new(&shared));
        Ok(RedisPool(Arc::new(Inner { own, shared })))
    }

    /// The connections of this process.
    fn own(&self) -> r2d2::Pool<Manager> {
        let process = std::process::id();
        let own = &self.0.own;
        {
            let own = own.read().unwrap_or_else(|poisoned| poisoned.into_inner());
            if own.process == process {
                return own.pool.clone();
            }
        }
        let mut own = own.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        if own.process != process {
            let parents = std::mem::replace(&mut *own, OwnedPool::new(&self.0.shared));
            // Its locks may be held by threads that this process does not have.
            std::mem::forget(parents);
        }
        own.pool.clone()
    }

    /// A pool for the master that these sentinels (`redis://host:26379`, with their own password if they have
    /// one) know by this name. `config` has everything else: who we are at the master, and the time-outs.
    ///
    /// After a failover new connections go to the new master; old ones are closed as soon as a server
    /// says that it is a replica. Redis replicates after it has answered: what was saved in the last moment
    /// of a master can be lost, unless `min-replicas-to-write` and the like are set there.
    pub fn sentinel<'a>(
        nodes: impl IntoIterator<Item = &'a str>,
        master: &str,
        config: RedisConfig,
    ) -> Result<RedisPool> {
        let nodes = nodes.into_iter().map(RedisConfig::from_url).collect::<Result<Vec<_>>>()?;
        if nodes.is_empty() {
            let text = format!("no sentinels to ask for master {master:?}; name at least one");
            return Err(Error::new(ErrorKind::Config, text));
        }
        RedisPool::new(config.behind_sentinels(nodes, master)?)
    }

    /// Whether operations reach Redis right now.
    pub fn breaker(&self) -> BreakerState {
        self.0.shared.breaker.state()
    }

    /// How many connections there are, and how many of them are idle.
    pub fn connections(&self) -> (u32, u32) {
        let state = self.own().state();
        (state.connections, state.idle_connections)
    }

    /// Has this called whenever the breaker opens, with the reason, and when it closes. On the thread of the
    /// operation that found out: be quick.
    pub fn on_breaker(&self, observer: impl Fn(Option<&Error>) + Send + Sync + 'static) {
        let mut observers =
            self.0.shared.observers.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        observers.push(Arc::new(observer));
    }

    /// A connection for work outside of a handler, on a thread of the app's own for one. It takes a place in
    /// the pool with its first command, until it is given back or dropped.
    pub fn connection(&self) -> RedisConnection {
        RedisConnection::new(self.clone())
    }

    #[cfg(all(test, unix))]
    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }

    pub(super) fn config(&self) -> &RedisConfig {
        &self.0.shared.config
    }

    /// Asks the server something about itself: one command, which may be sent twice.
    pub(super) fn ask(&self, command: &::redis::Cmd) -> Result<Value> {
        let (config, packed) = (&self.0.shared.config, command.get_packed_command());
        let timings = Timings::starting_now(config);
        let once = || -> std::result::Result<_, Failure> {
            let mut connection = self.checkout_before(&timings).map_err(Failure::Other)?;
            self.round_trip(&mut connection, &packed, 1, &timings, config.max_reply)
        };
        let done = match once() {
            Err(Failure::Stale(_)) => once(),
            done => done,
        };
        let replies = done.map_err(|failure| match failure {
            Failure::Stale(error) | Failure::Other(error) => error,
        })?;
        let reply = replies.into_iter().next().ok_or_else(|| {
            Error::new(ErrorKind::Redis, format!("{config}: no reply to a command"))
        })?;
        Ok(reply.map_err(RedisError::from)?)
    }

    /// The Redis of this pool as a remote service that carries out [operations](crate::Operation).
    pub fn remote(&self) -> Remote {
        Remote(Arc::new(self.clone()))
    }

    /// Carries out one round of each operation, in one pipeline. Those that are not over are in `again`, those whose
    /// reply `redirects` takes from them (it is about something else than they asked) are nobody's.
    pub(super) fn round<'o>(
        &self,
        mut operations: Vec<&'o mut dyn Operation>,
        manner: Manner,
        mut redirects: impl FnMut(&mut Option<&'o mut dyn Operation>, Answer<'_>),
    ) -> Vec<&'o mut dyn Operation> {
        let shared = &self.0.shared;
        let timings = Timings::starting_now(&shared.config);
        for attempt in 1.. {
            let mut connection = match self.checkout_before(&timings) {
                Ok(connection) => connection,
                Err(error) => {
                    operations.into_iter().for_each(|operation| operation.fail(copy(&error)));
                    return Vec::new();
                }
            };
            let mut batch = Batch::new(manner);
            let now = connection.now();
            operations.iter_mut().for_each(|op| batch.push(&mut **op, now, manner.one_key));
            batch.seal();
            let reused = connection.used;
            let carried = connection.carry(
                &mut batch,
                timings.reply_by(&shared.config),
                shared.config.max_reply,
            );
            let (bytes, received) = match carried {
                Ok(carried) => carried,
                Err(error) => {
                    let (error, may_repeat) = match shared.failure(&error, reused) {
                        Failure::Stale(error) => (error, attempt == 1),
                        Failure::Other(error) => (error, false),
                    };
                    let mut left = Vec::new();
                    for (number, operation) in operations.into_iter().enumerate() {
                        match may_repeat && batch.is_repeatable(number) {
                            true => left.push(operation),
                            false => operation.fail(copy(&error)),
                        }
                    }
                    operations = left;
                    if operations.is_empty() {
                        return operations;
                    }
                    continue;
                }
            };
            shared.answered();
            if batch.is_replica() {
                shared.discard(&mut connection);
            }
            let clock = match received {
                Received::InStep(clock) => clock.now(Instant::now()),
                Received::Refused(error) => {
                    operations.into_iter().for_each(|operation| operation.fail(copy(&error)));
                    return Vec::new();
                }
                Received::Incomplete => unreachable!("a connection reads whole replies"),
            };
            let mut again = Vec::new();
            for (number, operation) in operations.into_iter().enumerate() {
                let answer = batch.answer(number, &bytes, clock);
                let mut operation = Some(operation);
                redirects(&mut operation, answer);
                let Some(operation) = operation else { continue };
                match deliver(operation, answer) {
                    Progress::Done => {}
                    Progress::Again => again.push(operation),
                    Progress::OutOfStep => connection.dirty = true,
                }
            }
            return again;
        }
        operations
    }

    /// A connection that nothing has gone wrong with.
    pub(super) fn checkout(&self) -> Result<r2d2::PooledConnection<Manager>> {
        self.checkout_before(&Timings::starting_now(&self.0.shared.config))
    }

    /// Whether a connection that somebody holds can be used again.
    pub(super) fn is_healthy(&self, connection: &mut Connection) -> bool {
        let shared = &self.0.shared;
        connection.process == std::process::id()
            && shared.is_healthy(connection, &Timings::starting_now(&shared.config))
    }

    fn checkout_before(&self, timings: &Timings) -> Result<r2d2::PooledConnection<Manager>> {
        let shared = &self.0.shared;
        let now = Instant::now();
        shared.breaker.enter(now, timings.replied.saturating_duration_since(now))?;
        loop {
            let mut connection = self.wait_for_connection(timings)?;
            #[cfg(feature = "r2d2_redis")]
            self.take(&mut connection, timings)?;
            if shared.is_healthy(&mut connection, timings) {
                return Ok(connection);
            }
            // The pool closes it.
            connection.dirty = true;
        }
    }

    /// Waits until there is a connection, or until it is known that there will be none.
    fn wait_for_connection(&self, timings: &Timings) -> Result<r2d2::PooledConnection<Manager>> {
        let (pool, shared) = (&self.own(), &self.0.shared);
        let refusals = shared.refusals.load(Ordering::Acquire);
        loop {
            let left = timings.connected.saturating_duration_since(Instant::now());
            let at_least = Duration::from_millis(1);
            if let Ok(connection) = pool.get_timeout(left.min(LOOK_UP).max(at_least)) {
                return Ok(connection);
            }
            let connections = pool.state().connections;
            let in_use = connections >= pool.max_size();
            if left <= LOOK_UP && in_use {
                return Err(shared.all_in_use(connections));
            }
            let refused = !in_use && shared.refusals.load(Ordering::Acquire) != refusals;
            if refused || left <= LOOK_UP {
                let error = shared.no_connection();
                shared.down(&error);
                return Err(error);
            }
            // What others have found out meanwhile holds for us as well.
            shared.breaker.while_open(Instant::now())?;
        }
    }

    /// Takes what the connection stands for out of the application's pool, where it is from there.
    #[cfg(feature = "r2d2_redis")]
    fn take(&self, connection: &mut Connection, timings: &Timings) -> Result<()> {
        use super::external::NotTaken;

        let shared = &self.0.shared;
        connection.take(timings.connected).map_err(|why| match why {
            NotTaken::AllInUse => shared.all_in_use(shared.config.pool_size),
            NotTaken::Down(why) => {
                let text = format!("no connection from the r2d2_redis pool: {why}");
                let error = Error::new(ErrorKind::Unavailable, text);
                shared.down(&error);
                error
            }
        })
    }

    fn round_trip(
        &self,
        connection: &mut Connection,
        packed: &[u8],
        count: usize,
        timings: &Timings,
        limit: usize,
    ) -> std::result::Result<Vec<Reply>, Failure> {
        let shared = &self.0.shared;
        let reused = connection.used;
        match connection.exchange(packed, count, timings.reply_by(&shared.config), limit) {
            Ok(replies) => {
                shared.answered();
                if demoted(&replies) {
                    shared.discard(connection);
                }
                Ok(replies)
            }
            Err(error) => Err(shared.failure(&error, reused)),
        }
    }

    /// Sends a handler's own commands over a connection that it holds. What happens to the connection is
    /// remembered. The breaker hears of it, unless the command may block: it waits on purpose or has
    /// no one reply.
    pub(super) fn exchange_on(
        &self,
        connection: &mut Connection,
        packed: &[u8],
        count: usize,
        may_block: bool,
    ) -> RedisResult<Vec<Reply>> {
        let shared = &self.0.shared;
        let reused = connection.used;
        let deadline = Instant::now() + shared.config.operation_timeout;
        let error = match connection.exchange(packed, count, deadline, shared.config.max_reply) {
            Ok(replies) => {
                shared.answered();
                if demoted(&replies) {
                    shared.discard(connection);
                }
                return Ok(replies);
            }
            Err(error) => error,
        };
        let timed_out = error.is_timeout();
        if may_block && (timed_out || !error.is_io_error()) {
            shared.breaker.undecided(Instant::now());
            return Err(as_redis_error(shared.lost(&error), timed_out));
        }
        match shared.failure(&error, reused) {
            Failure::Stale(failure) | Failure::Other(failure) => {
                Err(as_redis_error(failure, timed_out))
            }
        }
    }
}

impl Carrier for RedisPool {
    fn identity(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    #[cfg(unix)]
    fn channel(&self, wake: Wake) -> Option<Box<dyn Channel>> {
        match self.0.shared.source {
            Source::Network => Some(Box::new(RedisChannel::new(self.0.shared.clone(), wake))),
            // Where Redis is, only that pool knows.
            #[cfg(feature = "r2d2_redis")]
            Source::External(_) => None,
        }
    }

    fn run(&self, operations: &mut [&mut dyn Operation]) {
        let mut left: Vec<&mut dyn Operation> =
            operations.iter_mut().map(|operation| &mut **operation).collect();
        while !left.is_empty() {
            left = self.round(left, Manner::default(), |_, _| ());
        }
    }
}

impl OwnedPool {
    fn new(shared: &Arc<Shared>) -> OwnedPool {
        // Threads of its own: a server that accepts and never answers must not hold up another pool.
        let connecting = ScheduledThreadPool::builder()
            .num_threads(2)
            .thread_name_pattern("redis-connect-{}")
            .build();
        let config = &shared.config;
        let pool = r2d2::Pool::builder()
            .max_size(config.pool_size)
            .min_idle(Some(0))
            // r2d2 pauses for up to half of this between its attempts to connect, and uses it for nothing
            // else here.
            .connection_timeout(config.connect_timeout.min(RETRY_WITHIN))
            .test_on_check_out(false)
            .error_handler(Box::new(r2d2::NopErrorHandler))
            .thread_pool(Arc::new(connecting))
            .build_unchecked(Manager { shared: shared.clone() });
        OwnedPool { process: std::process::id(), pool }
    }
}

/// Whether the server is a replica: the master is somewhere else now.
fn demoted(replies: &[Reply]) -> bool {
    replies.iter().any(|reply| reply.as_ref().is_err_and(is_demoted))
}

/// Until when the parts of one operation may take, a repetition included.
struct Timings {
    connected: Instant,
    replied: Instant,
}

impl Timings {
    fn starting_now(config: &RedisConfig) -> Timings {
        let connected = Instant::now() + config.connect_timeout;
        Timings { connected, replied: connected + config.operation_timeout }
    }

    fn reply_by(&self, config: &RedisConfig) -> Instant {
        self.replied.min(Instant::now() + config.operation_timeout)
    }
}

/// Whether connecting failed at once, by the network's or the other side's doing.
fn is_refusal(error: &RedisError) -> bool {
    error.is_io_error() && !error.is_timeout() && TooLarge::of(error).is_none()
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
    /// The error of a round trip that failed.
    fn lost(&self, error: &RedisError) -> Error {
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
            self.answered();
            return Failure::Other(failure);
        }
        self.generation.fetch_add(1, Ordering::AcqRel);
        let dropped = !error.is_timeout() && error.is_connection_dropped();
        let garbled = matches!(error.kind(), RedisErrorKind::Parse);
        let is_one_of_few = || self.drops.fetch_add(1, Ordering::AcqRel) + 1 < DROPS;
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

    /// Redis answered.
    pub(super) fn answered(&self) {
        if self.drops.load(Ordering::Relaxed) != 0 {
            self.drops.store(0, Ordering::Release);
        }
        if self.breaker.succeeded() {
            self.tell(None);
        }
    }

    /// Redis does not answer.
    pub(super) fn down(&self, why: &Error) {
        if self.breaker.failed(Instant::now(), why) {
            self.tell(Some(why));
        }
    }

    fn tell(&self, down: Option<&Error>) {
        // Not while they are locked: what an observer does is its own affair.
        let observers =
            self.observers.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        for observer in observers {
            // Its panic is no failure of the operation that found out.
            if catch_unwind(AssertUnwindSafe(|| observer(down))).is_err() {
                log::error!("{}: an observer of the breaker panicked", self.config);
            }
        }
    }

    /// Gives up this connection and all that were made before it: a new one may lead to another server.
    fn discard(&self, connection: &mut Connection) {
        connection.dirty = true;
        self.condemn(connection.generation);
    }

    /// Gives up all connections of this generation and of former ones.
    pub(super) fn condemn(&self, generation: u64) {
        self.generation.fetch_max(generation + 1, Ordering::AcqRel);
        self.condemned.fetch_max(generation + 1, Ordering::AcqRel);
    }

    pub(super) fn is_condemned(&self, generation: u64) -> bool {
        generation < self.condemned.load(Ordering::Acquire)
    }

    /// Whether a connection can be used. A look at the socket shows what the kernel knows: that the server
    /// closed it, or that a reply came late. The server is asked only where there is a doubt: after another
    /// connection was lost, or after a while without use. A PING on every checkout would double what a load
    /// costs.
    fn is_healthy(&self, connection: &mut Connection, timings: &Timings) -> bool {
        // Dirty before its first use: the advice that we asked for did not come in time.
        if connection.dirty || self.is_condemned(connection.generation) || !connection.is_quiet() {
            return false;
        }
        let generation = self.generation.load(Ordering::Acquire);
        if connection.generation == generation && connection.last_used.elapsed() < DOUBTFUL_AFTER {
            return true;
        }
        let ping = ::redis::cmd("PING").get_packed_command();
        let deadline = timings.connected.min(Instant::now() + self.config.operation_timeout);
        let answered = connection.exchange(&ping, 1, deadline, SHORT).is_ok();
        connection.generation = generation;
        if !answered {
            self.condemn(generation);
        }
        answered
    }

    fn connect(&self) -> RedisResult<Connection> {
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
        let connect = || match &config.address {
            Address::Sentinel(sentinel) => sentinel.connect(config, trust, generation, deadline),
            address => Connection::connect(config, address, trust, generation, deadline),
        };
        // One that is refused or cut is no proof that Redis is down; several in a row are.
        let mut connected = connect();
        for _ in 1..ATTEMPTS {
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
    fn open(&self) -> Result<Connection> {
        match self.connect() {
            Ok(mut connection) => {
                self.refuse(None);
                if matches!(self.source, Source::Network) {
                    self.advised.call_once(|| warn_of_eviction(&mut connection, &self.config));
                }
                Ok(connection)
            }
            Err(error) => {
                let kind = super::errors::connecting(&error);
                self.refuse(Some((kind, error.to_string())));
                Err(Error::new(kind, error.to_string()))
            }
        }
    }

    /// Makes a connection for an event loop.
    #[cfg(unix)]
    pub(super) fn connect_channel(&self) -> Result<super::channel::Connected> {
        let connection = self.open().map_err(|error| {
            Error::new(error.kind(), format!("{}: {error}", self.config)).with_source(LoggedBefore)
        })?;
        connection.into_channel()
    }

    /// Busy is not down. A trial of the breaker's is over, undecided.
    fn all_in_use(&self, connections: u32) -> Error {
        self.breaker.undecided(Instant::now());
        let (config, time) = (&self.config, self.config.connect_timeout);
        let text = format!(
            "{config}: all {connections} connections of the pool were in use for {time:?}; raise pool_size"
        );
        Error::new(ErrorKind::Unavailable, text)
    }

    fn no_connection(&self) -> Error {
        let refusal = self.refusal.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match &*refusal {
            Some((kind, why)) => Error::new(*kind, format!("{}: {why}", self.config))
                // By the breaker, which hears of it next.
                .with_source(LoggedBefore),
            None => Error::new(
                ErrorKind::Unavailable,
                format!("{}: no connection within {:?}", self.config, self.config.connect_timeout),
            ),
        }
    }

    fn refuse(&self, refusal: Option<(ErrorKind, String)>) {
        let refused = refusal.is_some();
        *self.refusal.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = refusal;
        if refused {
            self.refusals.fetch_add(1, Ordering::AcqRel);
        }
    }
}

/// Makes connections for r2d2 and judges them.
pub(super) struct Manager {
    shared: Arc<Shared>,
}

impl r2d2::ManageConnection for Manager {
    type Connection = Connection;
    type Error = Error;

    fn connect(&self) -> Result<Connection> {
        self.shared.open()
    }

    /// Never asked by r2d2: [`Shared::is_healthy`] knows the deadline.
    fn is_valid(&self, _: &mut Connection) -> Result<()> {
        Ok(())
    }

    fn has_broken(&self, connection: &mut Connection) -> bool {
        !connection.is_kept()
    }
}

/// Says once if the server may drop sessions for others' sake.
fn warn_of_eviction(connection: &mut Connection, config: &RedisConfig) {
    let info = ::redis::cmd("INFO").arg("memory").get_packed_command();
    let deadline = Instant::now() + config.operation_timeout;
    let Ok(replies) = connection.exchange(&info, 1, deadline, SHORT) else { return };
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

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// A server that answers whatever it is told, and how many have connected.
    fn server() -> (RedisPool, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        let connected = Arc::new(AtomicUsize::new(0));
        let count = connected.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || {
                    let (mut bytes, mut answered) = (Vec::new(), 0);
                    let mut buffer = [0; 4096];
                    while let Ok(read @ 1..) = stream.read(&mut buffer) {
                        bytes.extend_from_slice(&buffer[..read]);
                        // One answer for each command, which begins with the number of its words.
                        let told = bytes.iter().filter(|byte| **byte == b'*').count();
                        let answers = "+OK\r\n".repeat(told - answered);
                        answered = told;
                        if stream.write_all(answers.as_bytes()).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        (RedisPool::open(&url).unwrap(), connected)
    }

    #[test]
    fn a_forked_process_makes_connections_of_its_own() {
        let (pool, connected) = server();
        for _ in 0..3 {
            pool.connection().set("key", "value").unwrap();
        }
        assert_eq!(connected.load(Ordering::SeqCst), 1);
        // As if this were the child.
        pool.0.own.write().unwrap().process += 1;
        for _ in 0..3 {
            pool.connection().set("key", "value").unwrap();
        }
        assert_eq!((connected.load(Ordering::SeqCst), pool.connections()), (2, (1, 1)));
        // One that is held while the process forks.
        let mut held = pool.checkout().unwrap();
        assert!(pool.is_healthy(&mut held));
        held.process += 1;
        assert!(!pool.is_healthy(&mut held));
    }
}
