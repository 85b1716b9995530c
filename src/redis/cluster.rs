//! A cluster: each key belongs to one of 16384 slots, each slot to one node, and that may change.

mod slots;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

pub(crate) use self::slots::slot;
use self::slots::{SlotMap, key, read_slots, target};
use super::batch::{BatchOptions, fail};
use super::breaker::BreakerState;
use super::config::{Node, RedisConfig};
use super::errors::copy;
use super::pool::RedisPool;
use super::resp::Reply;
use crate::lock::{lock, read, try_lock, write};
use crate::logging::{OneLine, ThrottledLog};
use crate::pipeline::operation::{Answer, Operation, Remote, RemoteService};
use crate::pipeline::service::AlreadyLogged;
use crate::{Error, ErrorKind, Result};

/// How often one command follows its slot to another node.
const MAX_REDIRECTIONS: usize = 4;

/// How long a map of the slots counts as new, although a node fails.
const MAP_TTL: Duration = Duration::from_millis(250);

/// The nodes of a Redis cluster, for [`RedisStore::on_cluster`](crate::RedisStore::on_cluster). Clones share
/// the connections.
///
/// This is for sessions. [`RedisPlugin`](crate::RedisPlugin) and [`RedisPool`] talk to one server: with a node
/// of a cluster for it, only the keys of that node work, and for the others the error says so. For other data in
/// a cluster there is the client of the `redis` crate.
///
/// Nodes in containers announce addresses of their own network: [`RedisConfig::address_map`] says where these are
/// reached. One that announces no name is reached where it was asked.
///
/// Each node has a [`RedisPool`] of its own, with its own breaker: where one is down, the sessions of the
/// others go on. When a replica takes over, or slots move, the new map is read. Does not connect until it is
/// used.
///
/// ```no_run
/// use bottle_session::{RedisCluster, RedisConfig, RedisStore, SessionPlugin};
///
/// let nodes = ["redis://10.0.0.1:6379", "redis://10.0.0.2:6379"];
/// let cluster = RedisCluster::new(nodes, RedisConfig::default())?;
/// let plugin = SessionPlugin::new().store(RedisStore::on_cluster(cluster));
/// # Ok::<(), bottle_session::Error>(())
/// ```
#[derive(Clone)]
pub struct RedisCluster(Arc<Inner>);

struct Inner {
    config: RedisConfig,
    tls: bool,
    seeds: Vec<Node>,
    pools: Mutex<BTreeMap<Node, RedisPool>>,
    map: RwLock<Arc<SlotMap>>,
    /// When the map was read last; whoever holds this reads it.
    reading: Mutex<Option<Instant>>,
    /// Why no node said who has the slots.
    refusal: Mutex<Option<Error>>,
    /// What somebody has to change.
    misconfigured: ThrottledLog,
    observers: Arc<RwLock<Vec<Observer>>>,
}

type Observer = Arc<dyn Fn(Option<&Error>) + Send + Sync>;

impl RedisCluster {
    /// A cluster that some of these nodes (`redis://host:port`) belong to; the others are found. `config` has
    /// everything else: who we are, the time-outs, and how many connections each node gets. Where one of the
    /// nodes is a `rediss://`, or the `config` is for one, all are talked to over TLS.
    pub fn new<'a>(
        nodes: impl IntoIterator<Item = &'a str>,
        config: RedisConfig,
    ) -> Result<RedisCluster> {
        let (_, mut tls) = config.port_and_tls();
        let mut seeds = Vec::new();
        for url in nodes {
            let (host, port, over_tls) = RedisConfig::from_url(url)?.cluster_node()?;
            seeds.push((host, port));
            tls |= over_tls;
        }
        let refused =
            |why: &str| Err(Error::new(ErrorKind::Config, format!("Redis cluster: {why}")));
        if seeds.is_empty() {
            return refused("no nodes; name at least one");
        }
        if config.db != 0 {
            return refused("a cluster has no other database than 0");
        }
        let cluster = RedisCluster(Arc::new(Inner {
            config,
            tls,
            seeds,
            pools: Mutex::default(),
            map: RwLock::default(),
            reading: Mutex::default(),
            refusal: Mutex::default(),
            misconfigured: ThrottledLog::default(),
            observers: Arc::default(),
        }));
        // Settings that cannot work are refused here and not with the first request.
        cluster.0.seeds.iter().try_for_each(|node| cluster.pool(node).map(drop))?;
        Ok(cluster)
    }

    /// How many connections there are to all nodes, and how many of them are idle.
    pub fn connections(&self) -> (u32, u32) {
        let pools = lock(&self.0.pools);
        let each = pools.values().map(RedisPool::connections);
        each.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1))
    }

    /// Has this called whenever a node's breaker opens, with the reason, and when it closes.
    pub fn on_breaker(&self, observer: impl Fn(Option<&Error>) + Send + Sync + 'static) {
        let mut observers = write(&self.0.observers);
        observers.push(Arc::new(observer));
    }

    /// The cluster as a remote service that carries out [operations](crate::Operation), each at the node that has
    /// its key. Only threads that may block reach it.
    pub fn remote(&self) -> Remote {
        Remote(Arc::new(self.clone()))
    }

    /// The same for operations that write: what they write counts once [`replicas`](RedisConfig::replicas) of the node
    /// that has it have it, too.
    pub fn write_remote(&self) -> Remote {
        match self.0.config.replicas {
            0 => self.remote(),
            _ => Remote(Arc::new(Replicated(self.clone()))),
        }
    }

    /// Refuses a cluster whose nodes do not wait for replicas, if they are to. One that does not answer may be there
    /// later.
    pub(crate) fn check_replicas(&self) -> Result<()> {
        let pools = lock(&self.0.pools).clone();
        pools.values().try_for_each(RedisPool::check_replicas)
    }

    /// Carries out one round of each operation, in one round trip for each node. One node's failure concerns no
    /// other's operations. Those that are not over are in the answer.
    fn round<'o>(
        &self,
        operations: Vec<&'o mut dyn Operation>,
        replicas: u32,
    ) -> Vec<&'o mut dyn Operation> {
        let options = BatchOptions { one_key: true, asking: false, replicas };
        let (mut left, mut again, mut moved_to) = (operations, Vec::new(), None);
        for _ in 0..MAX_REDIRECTIONS {
            let map = match self.map() {
                Ok(map) => map,
                Err(error) => {
                    left.into_iter().for_each(|operation| fail(operation, copy(&error)));
                    return again;
                }
            };
            let mut by_node: BTreeMap<&Node, Vec<&'o mut dyn Operation>> = BTreeMap::new();
            for operation in left {
                match map.owner(slot(&key(operation))) {
                    Some(node) => by_node.entry(node).or_default().push(operation),
                    None => fail(operation, self.error("no node has the session's slot")),
                }
            }
            left = Vec::new();
            for (node, operations) in by_node {
                let pool = match self.pool(node) {
                    Ok(pool) => pool,
                    Err(error) => {
                        operations.into_iter().for_each(|operation| fail(operation, copy(&error)));
                        continue;
                    }
                };
                let (mut moved, mut asked) = (Vec::new(), Vec::new());
                let unfinished = pool.round(operations, options, |operation, answer| {
                    // Not done there: to send it elsewhere is no repetition.
                    match self.redirection(answer, node) {
                        Some(("MOVED", to)) => {
                            moved_to = to;
                            moved.extend(operation.take());
                        }
                        Some((_, to)) => asked.extend(operation.take().map(|op| (to, op))),
                        None => {}
                    }
                });
                again.extend(unfinished);
                left.extend(moved);
                for (to, operation) in asked {
                    again.extend(self.ask(to, operation, replicas));
                }
                if pool.breaker() != BreakerState::Closed {
                    // Perhaps a replica has taken over.
                    self.read_map(MAP_TTL, None);
                }
            }
            if left.is_empty() {
                return again;
            }
            self.read_map(Duration::ZERO, moved_to.take());
        }
        for operation in left {
            fail(operation, self.error("the session's slot is being moved"));
        }
        again
    }

    /// Carries out one round of an operation at the node that its slot is on the way to.
    fn ask<'o>(
        &self,
        node: Option<Node>,
        operation: &'o mut dyn Operation,
        replicas: u32,
    ) -> Vec<&'o mut dyn Operation> {
        let pool = node.ok_or_else(|| self.error("a node did not say where a slot goes"));
        match pool.and_then(|node| self.pool(&node)) {
            Ok(pool) => {
                let options = BatchOptions { one_key: true, asking: true, replicas };
                pool.round(vec![operation], options, |_, _| ())
            }
            Err(error) => {
                fail(operation, error);
                Vec::new()
            }
        }
    }

    fn run_with(&self, replicas: u32, operations: &mut [&mut dyn Operation]) {
        let mut left: Vec<&mut dyn Operation> =
            operations.iter_mut().map(|operation| &mut **operation).collect();
        while !left.is_empty() {
            left = self.round(left, replicas);
        }
    }

    fn map(&self) -> Result<Arc<SlotMap>> {
        let known = || read(&self.0.map).clone();
        if known().0.is_empty() {
            self.read_map(Duration::ZERO, None);
        }
        match known() {
            map if map.0.is_empty() => Err(self.no_map()),
            map => Ok(map),
        }
    }

    /// The error where no node says who has the slots: that of one that says why, where there is one.
    fn no_map(&self) -> Error {
        let text = "no node says who has the slots";
        let refusal = lock(&self.0.refusal);
        let Some(refusal) = &*refusal else { return self.error(text) };
        // The only refusal to say so that means a wrong setting and has no code of its own.
        let plain = refusal.to_string().contains("cluster support disabled");
        let would_do = match plain {
            true => "; this is no node of a cluster: RedisStore::new takes a RedisPool for it",
            false => "",
        };
        let kind = if plain { ErrorKind::Config } else { refusal.kind() };
        let error = Error::new(kind, format!("{self:?}: {text}: {refusal}{would_do}"));
        if kind == ErrorKind::Unavailable {
            return error;
        }
        // The breaker of a node's pool has told of what it met when connecting.
        if !std::error::Error::source(refusal).is_some_and(|source| source.is::<AlreadyLogged>()) {
            self.0
                .misconfigured
                .log_throttled(log::Level::Error, "", || OneLine(&error).to_string());
        }
        error.with_source(AlreadyLogged)
    }

    /// Reads the map, unless it was read this short a time ago or by somebody else meanwhile. The node that
    /// somebody was sent to knows best; those that do not answer are asked last, and not all in one request.
    ///
    /// Where a new map is no more than a hope, or no node is known to answer, nobody waits for who reads it: that
    /// can take as long as a node that is mute.
    fn read_map(&self, new: Duration, sent_to: Option<Node>) {
        let asked = Instant::now();
        let answers = |pool: &RedisPool| pool.breaker() == BreakerState::Closed;
        let worth_waiting =
            sent_to.is_some() || new.is_zero() && lock(&self.0.pools).values().any(answers);
        let reading = match worth_waiting {
            true => Some(lock(&self.0.reading)),
            false => try_lock(&self.0.reading),
        };
        let Some(mut last) = reading else { return };
        if last.is_some_and(|read| read > asked || read.elapsed() < new) {
            return;
        }
        let mut nodes: Vec<_> = lock(&self.0.pools).clone().into_iter().collect();
        nodes.sort_by_key(|(_, pool)| pool.breaker() != BreakerState::Closed);
        if let Some(node) = sent_to
            && let Ok(pool) = self.pool(&node)
        {
            nodes.insert(0, (node, pool));
        }
        let enough = self.0.config.connect_timeout.saturating_add(self.0.config.operation_timeout);
        let started = Instant::now();
        let mut refusal = None;
        let found =
            nodes.iter().take_while(|_| started.elapsed() < enough).find_map(|(node, pool)| {
                match pool.ask(::redis::cmd("CLUSTER").arg("SLOTS")) {
                    Ok(reply) => read_slots(reply, node, &self.0.config),
                    // Who is down says less than who is not.
                    Err(error) => {
                        let says_more = refusal.as_ref().is_none_or(is_unavailable);
                        refusal = if says_more { Some(error) } else { refusal.take() };
                        None
                    }
                }
            });
        *lock(&self.0.refusal) = refusal;
        if let Some(map) = found {
            // Who has left the cluster needs no connections, and no threads that make them.
            let in_use = |node: &Node| {
                self.0.seeds.contains(node) || map.0.values().any(|(_, owner)| owner == node)
            };
            let mut pools = lock(&self.0.pools);
            let all = std::mem::take(&mut *pools).into_iter();
            let (kept, left): (BTreeMap<_, _>, BTreeMap<_, _>) =
                all.partition(|(node, _)| in_use(node));
            *pools = kept;
            drop(pools);
            drop(left);
            *write(&self.0.map) = Arc::new(map);
        }
        *last = Some(Instant::now());
    }

    fn pool(&self, node: &Node) -> Result<RedisPool> {
        let mut pools = lock(&self.0.pools);
        if let Some(pool) = pools.get(node) {
            return Ok(pool.clone());
        }
        let pool = RedisPool::new(self.0.config.clone().at(&node.0, node.1, self.0.tls))?;
        let observers = self.0.observers.clone();
        pool.on_breaker(move |down| {
            let observers = read(&observers).clone();
            observers.iter().for_each(|observer| observer(down));
        });
        pools.insert(node.clone(), pool.clone());
        Ok(pool)
    }

    /// Where `MOVED` or `ASK` sends an operation, if that is its first error.
    fn redirection(
        &self,
        answer: Answer<'_>,
        asked: &Node,
    ) -> Option<(&'static str, Option<Node>)> {
        let refused = answer.replies().find_map(|reply| match reply {
            Reply::Error(line) => Some(line),
            _ => None,
        })?;
        let line = std::str::from_utf8(refused).ok()?;
        let code =
            ["MOVED", "ASK"].into_iter().find(|code| line.split(' ').next() == Some(code))?;
        Some((code, target(line, asked, &self.0.config)))
    }

    fn error(&self, why: &str) -> Error {
        Error::new(ErrorKind::Unavailable, format!("{self:?}: {why}"))
    }
}

impl RemoteService for RedisCluster {
    fn identity(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    fn run(&self, operations: &mut [&mut dyn Operation]) {
        self.run_with(0, operations);
    }
}

/// A cluster where what is written counts once as many replicas have it as are to.
struct Replicated(RedisCluster);

impl RemoteService for Replicated {
    fn identity(&self) -> usize {
        self.0.identity() + 1
    }

    fn run(&self, operations: &mut [&mut dyn Operation]) {
        self.0.run_with(self.0.0.config.replicas, operations);
    }
}

impl fmt::Debug for RedisCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RedisCluster(")?;
        for (number, (host, port)) in self.0.seeds.iter().enumerate() {
            write!(f, "{}{host}:{port}", if number == 0 { "" } else { ", " })?;
        }
        f.write_str(")")
    }
}

fn is_unavailable(error: &Error) -> bool {
    error.kind() == ErrorKind::Unavailable
}
