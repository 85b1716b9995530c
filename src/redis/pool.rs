//! A pool of connections that never hands out one that something went wrong with.

pub(super) mod checkout;
mod execute;

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, Once, RwLock, Weak};
use std::time::Instant;

use ::redis::Value;

use self::checkout::ForkSafePool;
use self::execute::Replicated;
use super::breaker::{Breaker, BreakerState};
use super::commands::RedisConnection;
use super::config::{Address, RedisConfig};
use super::connection::Reply;
use super::failover::Change;
use super::sentinel::{MasterMonitor, ObserverGuard};
use super::transport::Trust;
use super::upstream::{NO_TIMEOUT, RoundTrips, Source, Upstream};
use crate::lock::write;
use crate::logging::ThrottledLog;
use crate::pipeline::operation::Remote;
use crate::{Error, ErrorKind, Result};

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
    own: RwLock<ForkSafePool>,
    upstream: Arc<Upstream>,
    /// Hears when all idle connections are to be closed.
    _on_switch: Option<ObserverGuard>,
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
        config.connect_timeout = config.connect_timeout.min(NO_TIMEOUT);
        config.operation_timeout = config.operation_timeout.min(NO_TIMEOUT);
        let trust = Trust::new(&config)?;
        let sentinel = match &config.address {
            Address::Sentinel(sentinel) => Some(sentinel.clone()),
            Address::Tcp { .. } | Address::Unix(_) => None,
        };
        let upstream = Arc::new_cyclic(|upstream| Upstream {
            monitor: sentinel
                .map(|sentinel| Arc::new(MasterMonitor::new(sentinel, upstream.clone()))),
            short_of_replicas: ThrottledLog::default(),
            config,
            source,
            trust,
            breaker: Breaker::default(),
            generation: AtomicU64::new(0),
            retired: AtomicU64::new(0),
            refusals: AtomicU64::new(0),
            refusal: Mutex::new(None),
            drops: AtomicU32::new(0),
            warned: Once::new(),
            observers: RwLock::default(),
            round_trips: RoundTrips::default(),
        });
        let own = RwLock::new(ForkSafePool::new(&upstream));
        let on_switch = upstream.monitor.clone();
        Ok(RedisPool(Arc::new_cyclic(|inner: &Weak<Inner>| {
            let inner = inner.clone();
            let on_switch = on_switch.map(|monitor| {
                monitor.observe(move |change| {
                    if let (Change::Switched(_), Some(inner)) = (change, inner.upgrade()) {
                        RedisPool(inner).close_retired();
                    }
                })
            });
            Inner { own, upstream, _on_switch: on_switch }
        })))
    }

    /// Closes the idle connections that lead elsewhere than to the master.
    fn close_retired(&self) {
        let (pool, mut kept) = (self.own(), Vec::new());
        while let Some(mut connection) = pool.try_get() {
            match self.0.upstream.is_retired(connection.generation) {
                true => connection.dirty = true,
                false => kept.push(connection),
            }
        }
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

    /// What its round trips were like, those of event loops included.
    pub(crate) fn round_trips(&self) -> &RoundTrips {
        &self.0.upstream.round_trips
    }

    /// How many connections there are, and how many of them are idle.
    pub fn connections(&self) -> (u32, u32) {
        let state = self.own().state();
        (state.connections, state.idle_connections)
    }

    /// Has this called whenever the breaker opens, with the reason, and when it closes. On the thread of the
    /// operation that found out: be quick.
    pub fn on_breaker(&self, observer: impl Fn(Option<&Error>) + Send + Sync + 'static) {
        let mut observers = write(&self.0.upstream.observers);
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

    /// Refuses a node of a cluster, which has a part of the keys only. A server that does not answer may be there later.
    pub(crate) fn check_no_cluster(&self) -> Result<()> {
        let upstream = &self.0.upstream;
        if !matches!(upstream.source, Source::Network) {
            return Ok(());
        }
        // Over a connection of its own: a server that is down is to open no breaker here.
        let Ok(mut connection) = upstream.open() else { return Ok(()) };
        let deadline = Instant::now() + upstream.config.operation_timeout;
        let command = ::redis::cmd("CLUSTER").arg("INFO").get_packed_command();
        let replies = connection.exchange(&command, 1, deadline, upstream.config.max_reply);
        // One that is none refuses the command.
        let is_node = |reply: &Reply| match reply {
            Ok(Value::BulkString(text)) => text.starts_with(b"cluster_"),
            _ => false,
        };
        match replies {
            Ok(replies) if replies.iter().any(is_node) => Err(Error::new(
                ErrorKind::Config,
                format!(
                    "{} is a node of a cluster, which has a part of the keys only; sessions in a cluster are kept by \
                     RedisStore::on_cluster, and for other data there is the cluster client of the redis crate",
                    upstream.config
                ),
            )),
            _ => Ok(()),
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
}

impl fmt::Debug for RedisPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisPool({}, {:?})", self.0.upstream.config, self.breaker())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::atomic::{AtomicUsize, Ordering};

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
