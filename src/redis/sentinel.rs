//! The master behind sentinels: they are asked for each new connection, and listened to for failovers.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, RwLock, Weak};
use std::time::Instant;

use ::redis::{ErrorKind as RedisErrorKind, RedisError, RedisResult, Value, cmd};

use super::config::{Address, RedisConfig};
use super::connection::Connection;
use super::failover::{Announced, Answered, Change, Failover, Node};
use super::sentinel_listener::{SentinelListener, deliver};
use super::transport::Trust;
use super::upstream::Upstream;
use crate::Result;
use crate::lock::{lock, read, unpoisoned, write};

/// The sentinels that watch a master of this name.
pub(super) struct Sentinel {
    pub(super) nodes: Vec<Arc<SentinelNode>>,
    pub(super) master: String,
    pub(super) tls: bool,
}

/// Where one sentinel is, and who we are there.
pub(super) struct SentinelNode {
    pub(super) config: RedisConfig,
    pub(super) trust: Trust,
}

impl Sentinel {
    /// Masters are talked to over TLS where the settings for them say so.
    pub(super) fn new(nodes: Vec<RedisConfig>, master: &str, tls: bool) -> Result<Sentinel> {
        let with_trust = |config: RedisConfig| {
            let trust = Trust::new(&config)?;
            Ok(Arc::new(SentinelNode { config, trust }))
        };
        let nodes = nodes.into_iter().map(with_trust).collect::<Result<_>>()?;
        Ok(Sentinel { nodes, master: master.to_owned(), tls })
    }
}

/// What one pool knows of its master from the sentinels.
pub(super) struct MasterMonitor {
    pub(super) sentinel: Arc<Sentinel>,
    upstream: Weak<Upstream>,
    state: Mutex<Failover>,
    /// Notices when writes go on.
    released: Condvar,
    held: AtomicBool,
    /// Connections of an older generation lead to another server than the master.
    fenced: AtomicU64,
    observers: Mutex<Vec<(u64, Observer)>>,
    registered: AtomicU64,
    /// The listener of this process, once there is one.
    listener: RwLock<Option<Arc<SentinelListener>>>,
}

/// Hears of changes. Called on any thread, and never with a lock held.
type Observer = Arc<dyn Fn(&Change) + Send + Sync>;

/// Removes the observer when it is dropped.
pub(super) struct ObserverGuard {
    monitor: Arc<MasterMonitor>,
    number: u64,
}

impl Drop for ObserverGuard {
    fn drop(&mut self) {
        lock(&self.monitor.observers).retain(|(number, _)| *number != self.number);
    }
}

impl MasterMonitor {
    pub(super) fn new(sentinel: Arc<Sentinel>, upstream: Weak<Upstream>) -> MasterMonitor {
        let state = Mutex::new(Failover::new(sentinel.nodes.len()));
        MasterMonitor {
            sentinel,
            upstream,
            state,
            released: Condvar::new(),
            held: AtomicBool::new(false),
            fenced: AtomicU64::new(0),
            observers: Mutex::default(),
            registered: AtomicU64::new(0),
            listener: RwLock::default(),
        }
    }

    /// Whether writes are to wait.
    pub(super) fn is_held(&self) -> bool {
        self.held.load(Ordering::Acquire)
    }

    /// Whether connections of this generation lead elsewhere than to the master.
    pub(super) fn is_fenced(&self, generation: u64) -> bool {
        generation < self.fenced.load(Ordering::Acquire)
    }

    /// Waits until writes may go on, but not for longer than this. Whether they may.
    pub(super) fn wait(&self, until: Instant) -> bool {
        let mut state = lock(&self.state);
        while state.is_held() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.released.wait_timeout(state, left);
            state = unpoisoned(waited).0;
        }
        true
    }

    /// Has this called with each change, until the answer is dropped.
    pub(super) fn observe(
        self: &Arc<MasterMonitor>,
        observer: impl Fn(&Change) + Send + Sync + 'static,
    ) -> ObserverGuard {
        let number = self.registered.fetch_add(1, Ordering::Relaxed);
        lock(&self.observers).push((number, Arc::new(observer)));
        ObserverGuard { monitor: self.clone(), number }
    }

    /// Hears what the sentinels have said by now: a reply of the master that came after that is not to be believed
    /// before.
    pub(super) fn read_announcements(self: &Arc<MasterMonitor>) {
        if let Some(listener) = self.known_listener() {
            deliver(listener.read_announcements(self));
        }
    }

    // What the listener hears.

    pub(super) fn announced(&self, number: usize, announced: &Announced) -> Option<Change> {
        let mut state = lock(&self.state);
        let change = state.announced(number, announced, Instant::now());
        self.apply(&state, change)
    }

    pub(super) fn answered(&self, number: usize, answered: Option<Answered>) -> Option<Change> {
        let mut state = lock(&self.state);
        let change = state.answered(number, answered, Instant::now());
        self.apply(&state, change)
    }

    pub(super) fn lost(&self, number: usize) {
        lock(&self.state).lost(number);
    }

    pub(super) fn tick(&self) -> Option<Change> {
        let mut state = lock(&self.state);
        let change = state.tick(Instant::now());
        self.apply(&state, change)
    }

    /// What must be so before anybody can look again.
    fn apply(&self, state: &Failover, change: Option<Change>) -> Option<Change> {
        if let Some(Change::Switched(_)) = &change
            && let Some(upstream) = self.upstream.upgrade()
        {
            // Newer than what anybody has seen before.
            let generation = upstream.generation.fetch_add(1, Ordering::AcqRel) + 1;
            upstream.retired.fetch_max(generation, Ordering::AcqRel);
            self.fenced.fetch_max(generation, Ordering::AcqRel);
        }
        self.held.store(state.is_held(), Ordering::Release);
        if change.is_some() {
            self.released.notify_all();
        }
        change
    }

    /// Notifies the pool and the observers of a change.
    pub(super) fn notify(&self, change: &Change) {
        if let Some(upstream) = self.upstream.upgrade() {
            let config = &upstream.config;
            match change {
                Change::Held => log::warn!("{config}: a failover is under way, writes wait"),
                Change::Released => {
                    log::warn!("{config}: the failover came to nothing, writes go on")
                }
                Change::GivenUp => log::error!(
                    "{config}: a failover was announced and its sentinels have not been heard since, writes go on; \
                     if another server is master by now, they are lost"
                ),
                Change::Switched((host, port)) => {
                    log::warn!("{config}: the master is {host}:{port} now");
                }
            }
        }
        let observers = lock(&self.observers).clone();
        observers.iter().for_each(|(_, observer)| observer(change));
    }

    // Connecting.

    /// Connects to the master before the deadline. None of the sentinels, by not answering, takes the time
    /// of the others.
    pub(super) fn connect(
        self: &Arc<MasterMonitor>,
        config: &RedisConfig,
        trust: &Trust,
        deadline: Instant,
    ) -> RedisResult<Connection> {
        let listener = self.listener();
        let left = deadline.saturating_duration_since(Instant::now());
        let (notices, refused) = listener.ask(self, Instant::now() + left / 2);
        deliver(notices);
        let Some(upstream) = self.upstream.upgrade() else { return Err(failed("is not needed")) };
        let (candidates, generation) = {
            let state = lock(&self.state);
            // Together: what switches later makes this generation old.
            (state.candidates(Instant::now()), upstream.generation.load(Ordering::Acquire))
        };
        let unknown = || failed("is known to none of the sentinels");
        let mut last = refused.unwrap_or_else(unknown);
        for (tried, node) in candidates.iter().enumerate() {
            let left = deadline.saturating_duration_since(Instant::now());
            let soon = Instant::now() + left / (candidates.len() - tried) as u32;
            let (host, port) = config.reached(node.clone());
            let address = Address::Tcp { host, port, tls: self.sentinel.tls };
            let connected = Connection::connect(config, &address, trust, generation, soon)
                .and_then(|mut connection| is_master(&mut connection, soon).map(|()| connection));
            match connected {
                Ok(mut connection) => {
                    if self.adopt(node, &upstream, &mut connection) {
                        return Ok(connection);
                    }
                    last = failed("is no master any more");
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Takes a server for the master that says it is, unless another one has become that meanwhile.
    fn adopt(&self, node: &Node, upstream: &Upstream, connection: &mut Connection) -> bool {
        let mut state = lock(&self.state);
        if upstream.is_retired(connection.generation) && state.master() != Some(node) {
            return false;
        }
        let change = state.adopt(node, Instant::now());
        let change = self.apply(&state, change);
        connection.generation = upstream.generation.load(Ordering::Acquire);
        drop(state);
        if let Some(change) = change {
            self.notify(&change);
        }
        true
    }

    /// The same as [`Upstream::promote`], where no switch comes in between: it would not fence the connection off.
    pub(super) fn promote(&self, connection: &mut Connection, generation: u64) -> bool {
        let _switches = lock(&self.state);
        self.upstream.upgrade().is_some_and(|upstream| upstream.promote(connection, generation))
    }

    fn known_listener(&self) -> Option<Arc<SentinelListener>> {
        let ours = read(&self.listener);
        ours.as_ref().filter(|ours| ours.is_of_this_process()).cloned()
    }

    /// The listener of this process, which hears for this pool from now on.
    fn listener(self: &Arc<MasterMonitor>) -> Arc<SentinelListener> {
        if let Some(listener) = self.known_listener() {
            return listener;
        }
        let mut ours = write(&self.listener);
        match ours.as_ref().filter(|ours| ours.is_of_this_process()) {
            Some(listener) => listener.clone(),
            None => {
                let listener = SentinelListener::of_this_process();
                listener.register(self);
                // That of the parent may be locked by threads that this process does not have.
                std::mem::forget(ours.replace(listener.clone()));
                listener
            }
        }
    }
}

fn is_master(connection: &mut Connection, deadline: Instant) -> RedisResult<()> {
    let role = connection.ask(&cmd("ROLE"), deadline)?;
    let Value::Array(items) = role else { return Err(failed("gave no role")) };
    match items.first() {
        Some(Value::BulkString(role)) if role == b"master" => {
            // As if it had not been asked: the first use may find it closed.
            connection.used = false;
            Ok(())
        }
        _ => Err(failed("is no master, or none any more")),
    }
}

fn failed(why: &'static str) -> RedisError {
    RedisError::from((RedisErrorKind::Io, why))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Duration;

    use super::super::pool::RedisPool;
    use super::super::scripted_server::{answers, serve};
    use super::super::upstream::Deadlines;
    use super::*;

    #[test]
    fn a_switch_while_a_connection_is_asked_whether_it_stands_cuts_it() {
        let timeout = Duration::from_secs(60);
        let config = RedisConfig::default().connect_timeout(timeout).operation_timeout(timeout);
        let pool = RedisPool::sentinel(["redis://127.0.0.1:1"], "sessions", config).unwrap();
        let upstream = pool.upstream().clone();
        let monitor = upstream.monitor.clone().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let switches = Arc::new(AtomicBool::new(false));
        let (switching, asked) = (switches.clone(), monitor.clone());
        serve(listener, move |words| {
            if words[0] == "PING" && switching.load(Ordering::SeqCst) {
                let node = |port| ("127.0.0.1".to_owned(), port);
                asked.announced(0, &Announced::Switched(node(port), node(port + 1)));
            }
            answers("+PONG\r\n")
        });
        let connect = || {
            let address = Address::Tcp { host: "127.0.0.1".to_owned(), port, tls: false };
            let (config, trust) = (&upstream.config, &upstream.trust);
            let generation = upstream.generation.load(Ordering::SeqCst);
            let deadline = Instant::now() + timeout;
            Connection::connect(config, &address, trust, generation, deadline).unwrap()
        };
        let deadlines = Deadlines::starting_now(&upstream.config);
        let (mut first, mut second, mut third) = (connect(), connect(), connect());
        // Another connection was lost: there is a doubt.
        upstream.generation.fetch_add(1, Ordering::SeqCst);
        assert!(upstream.is_healthy(&mut first, &deadlines));
        assert_eq!(first.generation, 1);
        switches.store(true, Ordering::SeqCst);
        assert!(!upstream.is_healthy(&mut second, &deadlines));
        // One that was looked at before the switch, and is to count as new after it.
        let generation = upstream.generation.load(Ordering::SeqCst);
        assert!(!monitor.promote(&mut third, generation));
        for connection in [first, second, third] {
            assert!(upstream.is_fenced(connection.generation), "{}", connection.generation);
        }
        assert!(!upstream.is_fenced(connect().generation));
    }
}
