//! A pool of connections that never hands out one that something went wrong with.

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once, RwLock, Weak};
use std::time::{Duration, Instant};

use ::redis::{RedisError, RedisResult, Value};
use scheduled_thread_pool::ScheduledThreadPool;

use super::batch::{Batch, Manner, Received, deliver, fail, is_read_only};
use super::breaker::{Breaker, BreakerState};
#[cfg(unix)]
use super::channel::RedisChannel;
use super::commands::RedisConnection;
use super::config::{Address, RedisConfig};
use super::connection::{Connection, Reply};
use super::errors::{as_redis_error, copy, is_demoted};
use super::failover::Change;
use super::sentinel::{Registration, Watch};
use super::transport::Trust;
use super::upstream::{FOR_EVER, Failure, Source, Timings, Upstream};
use crate::logging::Recurring;
use crate::pipeline::operation::{Answer, Carrier, Operation, Progress, Remote};
#[cfg(unix)]
use crate::pipeline::operation::{Channel, Wake};
use crate::{Error, ErrorKind, Result};

/// How often somebody who waits for a connection looks up: r2d2 wakes nobody when connecting fails.
const LOOK_UP: Duration = Duration::from_millis(10);

/// Twice the longest pause between two attempts to connect.
const RETRY_WITHIN: Duration = Duration::from_millis(400);

/// Connections to one Redis, upstream by sessions and the app's own data. Clones share them too.
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
    upstream: Arc<Upstream>,
    /// Hears when all idle connections are to be closed.
    _cut: Option<Registration>,
}

/// The connections of one process. After a fork parent and child must not talk over the same sockets, and the
/// threads that connect are the parent's alone.
struct OwnedPool {
    process: u32,
    pool: r2d2::Pool<Manager>,
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
        let sentinel = match &config.address {
            Address::Sentinel(sentinel) => Some(sentinel.clone()),
            Address::Tcp { .. } | Address::Unix(_) => None,
        };
        let upstream = Arc::new_cyclic(|upstream| Upstream {
            watch: sentinel.map(|sentinel| Arc::new(Watch::new(sentinel, upstream.clone()))),
            short_of_replicas: Recurring::default(),
            config,
            source,
            trust,
            breaker: Breaker::default(),
            generation: AtomicU64::new(0),
            condemned: AtomicU64::new(0),
            refusals: AtomicU64::new(0),
            refusal: Mutex::new(None),
            drops: AtomicU32::new(0),
            warned: Once::new(),
            observers: RwLock::default(),
        });
        let own = RwLock::new(OwnedPool::new(&upstream));
        let cut = upstream.watch.clone();
        Ok(RedisPool(Arc::new_cyclic(|inner: &Weak<Inner>| {
            let inner = inner.clone();
            let cut = cut.map(|watch| {
                watch.observe(move |change| {
                    if let (Change::Switched(_), Some(inner)) = (change, inner.upgrade()) {
                        RedisPool(inner).close_condemned();
                    }
                })
            });
            Inner { own, upstream, _cut: cut }
        })))
    }

    /// Closes the idle connections that lead elsewhere than to the master.
    fn close_condemned(&self) {
        let (pool, mut kept) = (self.own(), Vec::new());
        while let Some(mut connection) = pool.try_get() {
            match self.0.upstream.is_condemned(connection.generation) {
                true => connection.dirty = true,
                false => kept.push(connection),
            }
        }
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
            let parents = std::mem::replace(&mut *own, OwnedPool::new(&self.0.upstream));
            // Its locks may be held by threads that this process does not have.
            std::mem::forget(parents);
        }
        own.pool.clone()
    }

    /// A pool for the master that these sentinels (`redis://host:26379`, with their own password if they have
    /// one) know by this name. `config` has everything else: who we are at the master, and the time-outs.
    ///
    /// One thread of the process listens to all sentinels, over one connection to each, and asks each once a second;
    /// they need not all be there, and while none is, the master that was known last is used. From the first sign of
    /// a planned failover (`+try-failover`) to its end nothing that is written is acknowledged: it waits as long as the
    /// operation may, and is an error of kind [`Unavailable`](ErrorKind::Unavailable) then; reads go on. Then all
    /// connections to another server than the new master are closed. So such a failover loses nothing, as long as the
    /// sentinel that leads it reaches the process. One that has announced a failover and is not heard of again holds up
    /// writes until a majority of all that are named here has said for five seconds that nothing has changed; with one or two named, of which one
    /// is needed and is away, and with none that answers, for 15 seconds.
    ///
    /// Redis replicates after it has answered: when a master is lost unannounced, so is what it acknowledged in its last
    /// moment. [`RedisConfig::replicas`] narrows that.
    ///
    /// The user at the sentinels needs `subscribe`, `unsubscribe`, `sentinel|get-master-addr-by-name` and
    /// `sentinel|master`, and all channels.
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
        self.0.upstream.breaker.state()
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
            self.0.upstream.observers.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        observers.push(Arc::new(observer));
    }

    /// A connection for work outside of a handler, on a thread of the app's own for one. It takes a place in
    /// the pool with its first command, until it is given back or dropped.
    pub fn connection(&self) -> RedisConnection {
        RedisConnection::new(self.clone())
    }

    #[cfg(unix)]
    pub(super) fn weak(&self) -> std::sync::Weak<dyn std::any::Any + Send + Sync> {
        let weak: std::sync::Weak<Inner> = Arc::downgrade(&self.0);
        weak
    }

    #[cfg(all(test, unix))]
    pub(super) fn upstream(&self) -> &Arc<Upstream> {
        &self.0.upstream
    }

    pub(super) fn config(&self) -> &RedisConfig {
        &self.0.upstream.config
    }

    /// Asks the server something about itself: one command, which may be sent twice.
    pub(super) fn ask(&self, command: &::redis::Cmd) -> Result<Value> {
        let (config, packed) = (&self.0.upstream.config, command.get_packed_command());
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

    /// The same for operations that write: what they write counts once [`replicas`](RedisConfig::replicas) have it. The
    /// same service where that is 0.
    pub fn write_remote(&self) -> Remote {
        match self.config().replicas {
            0 => self.remote(),
            _ => Remote(Arc::new(Replicated(self.clone()))),
        }
    }

    /// Refuses a server that does not wait for replicas, if it is to. One that does not answer may be there later.
    pub(crate) fn check_replicas(&self) -> Result<()> {
        let upstream = &self.0.upstream;
        if upstream.config.replicas == 0 {
            return Ok(());
        }
        // It answers at once.
        let Err(error) = self.ask(::redis::cmd("WAIT").arg(0).arg(1)) else { return Ok(()) };
        let refused = match error.kind() {
            ErrorKind::Unavailable => error,
            _ => upstream.refuses_to_wait(&error),
        };
        if refused.kind() != ErrorKind::Unavailable {
            return Err(refused);
        }
        log::warn!("whether the server waits for replicas shows later: {refused}");
        Ok(())
    }

    #[cfg(unix)]
    fn channel_in(&self, manner: Manner, wake: Wake) -> Option<Box<dyn Channel>> {
        match self.0.upstream.source {
            Source::Network => {
                let upstream = self.0.upstream.clone();
                Some(Box::new(RedisChannel::new(upstream, self.weak(), manner, wake)))
            }
            // Where Redis is, only that pool knows.
            #[cfg(feature = "r2d2_redis")]
            Source::External(_) => None,
        }
    }

    fn run_in(&self, manner: Manner, operations: &mut [&mut dyn Operation]) {
        let mut left: Vec<&mut dyn Operation> =
            operations.iter_mut().map(|operation| &mut **operation).collect();
        while !left.is_empty() {
            left = self.round(left, manner, |_, _| ());
        }
    }

    /// Carries out one round of each operation, in one pipeline; while a failover is under way, those that write come
    /// in another one, once it is over. Those that are not over are in `again`, those whose reply `redirects` takes
    /// from them (it is about something else than they asked) are nobody's.
    pub(super) fn round<'o>(
        &self,
        operations: Vec<&'o mut dyn Operation>,
        manner: Manner,
        mut redirects: impl FnMut(&mut Option<&'o mut dyn Operation>, Answer<'_>),
    ) -> Vec<&'o mut dyn Operation> {
        let mut timings = Timings::starting_now(&self.0.upstream.config);
        let (mut reads, mut writes) = (operations, Vec::new());
        if self.0.upstream.is_held() {
            for operation in std::mem::take(&mut reads) {
                match is_read_only(operation) {
                    true => reads.push(operation),
                    false => writes.push(operation),
                }
            }
        }
        let mut again = Vec::new();
        for operations in [reads, writes] {
            if !operations.is_empty() {
                let left = self.attempts(operations, manner, &mut timings, &mut redirects);
                again.extend(left);
            }
        }
        again
    }

    /// Carries out one round of each operation. What may be repeated is sent once more where the connection is lost.
    fn attempts<'o>(
        &self,
        mut operations: Vec<&'o mut dyn Operation>,
        manner: Manner,
        timings: &mut Timings,
        redirects: &mut impl FnMut(&mut Option<&'o mut dyn Operation>, Answer<'_>),
    ) -> Vec<&'o mut dyn Operation> {
        let upstream = &self.0.upstream;
        let mut attempt = 1;
        loop {
            let mut connection = match self.checkout_before(timings) {
                Ok(connection) => connection,
                Err(error) => {
                    operations.into_iter().for_each(|operation| fail(operation, copy(&error)));
                    return Vec::new();
                }
            };
            let mut batch = Batch::new(manner);
            let now = connection.now();
            operations.retain_mut(|operation| batch.push(&mut **operation, now, manner.one_key));
            if operations.is_empty() {
                return operations;
            }
            let is_written = (0..operations.len()).any(|number| batch.writes(number));
            upstream.attend();
            if upstream.is_cut(connection.generation) {
                // Nothing was sent, and the next one leads to the new master.
                connection.dirty = true;
                upstream.breaker.undecided(Instant::now());
                continue;
            }
            if is_written && upstream.is_held() {
                drop(connection);
                let is_over = upstream.wait_while_held(timings.connected);
                upstream.breaker.undecided(Instant::now());
                if !is_over {
                    operations.into_iter().for_each(|operation| fail(operation, upstream.held()));
                    return Vec::new();
                }
                // To the new master a connection is yet to be made.
                timings.connected = timings.replied;
                continue;
            }
            let reply_by = timings.reply_by(&upstream.config);
            let now = Instant::now();
            batch.seal(connection.clock(), now, reply_by.saturating_duration_since(now));
            let reused = connection.used;
            let carried = connection.carry(&mut batch, reply_by, upstream.config.max_reply);
            upstream.attend();
            let (bytes, received) = match carried {
                Ok(carried) if !upstream.is_cut(connection.generation) => carried,
                carried => {
                    let (error, may_repeat) = match carried.map(drop) {
                        Err(error) if error.is_timeout() && batch.awaits_replicas() => {
                            (upstream.too_few_replicas(None), false)
                        }
                        Err(error) => match upstream.failure(&error, reused) {
                            Failure::Stale(error) => (error, attempt == 1),
                            Failure::Other(error) => (error, false),
                        },
                        // By the old master, which forgets it.
                        Ok(()) => (upstream.overtaken(), attempt == 1),
                    };
                    connection.dirty = true;
                    let mut left = Vec::new();
                    for (number, operation) in operations.into_iter().enumerate() {
                        match may_repeat && batch.is_repeatable(number) {
                            true => left.push(operation),
                            false => fail(operation, copy(&error)),
                        }
                    }
                    operations = left;
                    if operations.is_empty() {
                        return operations;
                    }
                    attempt += 1;
                    continue;
                }
            };
            upstream.answered();
            if batch.is_replica() {
                upstream.discard(&mut connection);
            }
            let clock = match received {
                Received::InStep(_) => connection.now(),
                Received::Refused(error) => {
                    operations.into_iter().for_each(|operation| fail(operation, copy(&error)));
                    return Vec::new();
                }
                Received::Incomplete => unreachable!("a connection reads whole replies"),
            };
            let held = upstream.is_held();
            let shortfall = upstream.shortfall(&batch);
            let (mut again, mut left) = (Vec::new(), Vec::new());
            for (number, operation) in operations.into_iter().enumerate() {
                if batch.writes(number) && held {
                    match attempt == 1 && batch.is_repeatable(number) {
                        true => left.push(operation),
                        false => fail(operation, upstream.overtaken()),
                    }
                    continue;
                }
                let answer = batch.answer(number, &bytes, clock);
                let mut operation = Some(operation);
                redirects(&mut operation, answer);
                let Some(operation) = operation else { continue };
                if let (true, Some(error)) = (batch.writes(number), &shortfall) {
                    fail(operation, copy(error));
                    continue;
                }
                match deliver(operation, answer) {
                    Progress::Done => {}
                    Progress::Again => again.push(operation),
                    Progress::OutOfStep => connection.dirty = true,
                }
            }
            if left.is_empty() {
                return again;
            }
            drop(connection);
            again.extend(self.attempts(left, manner, timings, redirects));
            return again;
        }
    }

    /// A connection that nothing has gone wrong with.
    pub(super) fn checkout(&self) -> Result<r2d2::PooledConnection<Manager>> {
        self.checkout_before(&Timings::starting_now(&self.0.upstream.config))
    }

    /// Whether a connection that somebody holds can be used again.
    pub(super) fn is_healthy(&self, connection: &mut Connection) -> bool {
        let upstream = &self.0.upstream;
        connection.process == std::process::id()
            && upstream.is_healthy(connection, &Timings::starting_now(&upstream.config))
    }

    fn checkout_before(&self, timings: &Timings) -> Result<r2d2::PooledConnection<Manager>> {
        let upstream = &self.0.upstream;
        let now = Instant::now();
        upstream.breaker.enter(now, timings.replied.saturating_duration_since(now))?;
        loop {
            let mut connection = self.wait_for_connection(timings)?;
            #[cfg(feature = "r2d2_redis")]
            self.take(&mut connection, timings)?;
            if upstream.is_healthy(&mut connection, timings) {
                return Ok(connection);
            }
            // The pool closes it.
            connection.dirty = true;
        }
    }

    /// Waits until there is a connection, or until it is known that there will be none.
    fn wait_for_connection(&self, timings: &Timings) -> Result<r2d2::PooledConnection<Manager>> {
        let (pool, upstream) = (&self.own(), &self.0.upstream);
        let refusals = upstream.refusals.load(Ordering::Acquire);
        loop {
            let left = timings.connected.saturating_duration_since(Instant::now());
            let at_least = Duration::from_millis(1);
            if let Ok(connection) = pool.get_timeout(left.min(LOOK_UP).max(at_least)) {
                return Ok(connection);
            }
            let connections = pool.state().connections;
            let in_use = connections >= pool.max_size();
            if left <= LOOK_UP && in_use {
                return Err(upstream.all_in_use(connections));
            }
            let refused = !in_use && upstream.refusals.load(Ordering::Acquire) != refusals;
            if refused || left <= LOOK_UP {
                let error = upstream.no_connection();
                upstream.down(&error);
                return Err(error);
            }
            // What others have found out meanwhile holds for us as well.
            upstream.breaker.while_open(Instant::now())?;
        }
    }

    /// Takes what the connection stands for out of the application's pool, where it is from there.
    #[cfg(feature = "r2d2_redis")]
    fn take(&self, connection: &mut Connection, timings: &Timings) -> Result<()> {
        use super::external::NotTaken;

        let upstream = &self.0.upstream;
        connection.take(timings.connected).map_err(|why| match why {
            NotTaken::AllInUse => upstream.all_in_use(upstream.config.pool_size),
            NotTaken::Down(why) => {
                let text = format!("no connection from the r2d2_redis pool: {why}");
                let error = Error::new(ErrorKind::Unavailable, text);
                upstream.down(&error);
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
        let upstream = &self.0.upstream;
        let reused = connection.used;
        match connection.exchange(packed, count, timings.reply_by(&upstream.config), limit) {
            Ok(replies) => {
                upstream.answered();
                if demoted(&replies) {
                    upstream.discard(connection);
                }
                Ok(replies)
            }
            Err(error) => Err(upstream.failure(&error, reused)),
        }
    }

    /// Waits while a failover is under way, within the deadline. Whether it has waited.
    pub(super) fn wait_while_held(&self) -> Result<bool> {
        let upstream = &self.0.upstream;
        upstream.attend();
        if !upstream.is_held() {
            return Ok(false);
        }
        match upstream.wait_while_held(Instant::now() + upstream.config.connect_timeout) {
            true => Ok(true),
            false => Err(upstream.held()),
        }
    }

    /// Sends a handler's own commands over a connection that it holds. What happens to the connection is
    /// remembered. The breaker hears of it, unless the command may block: it waits on purpose or has
    /// no one reply. Where the commands may write, a reply that a failover has overtaken does not count.
    pub(super) fn exchange_on(
        &self,
        connection: &mut Connection,
        packed: &[u8],
        count: usize,
        may_block: bool,
        is_read: bool,
    ) -> RedisResult<Vec<Reply>> {
        let upstream = &self.0.upstream;
        let reused = connection.used;
        let deadline = Instant::now() + upstream.config.operation_timeout;
        let reply = connection.exchange(packed, count, deadline, upstream.config.max_reply);
        upstream.attend();
        let error = match reply {
            Ok(_) if upstream.is_cut(connection.generation) || !is_read && upstream.is_held() => {
                connection.dirty = true;
                return Err(as_redis_error(upstream.overtaken(), false));
            }
            Ok(replies) => {
                upstream.answered();
                if demoted(&replies) {
                    upstream.discard(connection);
                }
                return Ok(replies);
            }
            Err(error) => error,
        };
        let timed_out = error.is_timeout();
        if may_block && (timed_out || !error.is_io_error()) {
            upstream.breaker.undecided(Instant::now());
            return Err(as_redis_error(upstream.lost(&error), timed_out));
        }
        match upstream.failure(&error, reused) {
            Failure::Stale(failure) | Failure::Other(failure) => {
                Err(as_redis_error(failure, timed_out))
            }
        }
    }
}

/// The Redis of a pool as a service where what is written counts once as many replicas have it as are to.
struct Replicated(RedisPool);

impl Replicated {
    fn manner(&self) -> Manner {
        Manner { replicas: self.0.config().replicas, ..Manner::default() }
    }
}

impl Carrier for Replicated {
    /// Another one than the pool's: it has connections of its own.
    fn identity(&self) -> usize {
        self.0.identity() + 1
    }

    #[cfg(unix)]
    fn channel(&self, wake: Wake) -> Option<Box<dyn Channel>> {
        self.0.channel_in(self.manner(), wake)
    }

    fn run(&self, operations: &mut [&mut dyn Operation]) {
        self.0.run_in(self.manner(), operations);
    }
}

impl Carrier for RedisPool {
    fn identity(&self) -> usize {
        Arc::as_ptr(&self.0.upstream).addr()
    }

    #[cfg(unix)]
    fn channel(&self, wake: Wake) -> Option<Box<dyn Channel>> {
        self.channel_in(Manner::default(), wake)
    }

    fn run(&self, operations: &mut [&mut dyn Operation]) {
        self.run_in(Manner::default(), operations);
    }
}

impl OwnedPool {
    fn new(upstream: &Arc<Upstream>) -> OwnedPool {
        // Threads of its own: a server that accepts and never answers must not hold up another pool.
        let connecting = ScheduledThreadPool::builder()
            .num_threads(2)
            .thread_name_pattern("redis-connect-{}")
            .build();
        let config = &upstream.config;
        let pool = r2d2::Pool::builder()
            .max_size(config.pool_size)
            .min_idle(Some(0))
            // r2d2 pauses for up to half of this between its attempts to connect, and uses it for nothing
            // else here.
            .connection_timeout(config.connect_timeout.min(RETRY_WITHIN))
            .test_on_check_out(false)
            .error_handler(Box::new(r2d2::NopErrorHandler))
            .thread_pool(Arc::new(connecting))
            .build_unchecked(Manager { upstream: upstream.clone() });
        OwnedPool { process: std::process::id(), pool }
    }
}

/// Whether the server is a replica: the master is somewhere else now.
fn demoted(replies: &[Reply]) -> bool {
    replies.iter().any(|reply| reply.as_ref().is_err_and(is_demoted))
}

impl fmt::Debug for RedisPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisPool({}, {:?})", self.0.upstream.config, self.breaker())
    }
}

/// Makes connections for r2d2 and judges them.
pub(super) struct Manager {
    upstream: Arc<Upstream>,
}

impl r2d2::ManageConnection for Manager {
    type Connection = Connection;
    type Error = Error;

    fn connect(&self) -> Result<Connection> {
        self.upstream.open()
    }

    /// Never asked by r2d2: [`Upstream::is_healthy`] knows the deadline.
    fn is_valid(&self, _: &mut Connection) -> Result<()> {
        Ok(())
    }

    fn has_broken(&self, connection: &mut Connection) -> bool {
        !connection.is_kept()
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
