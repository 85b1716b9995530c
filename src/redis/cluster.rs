//! A cluster: each key belongs to one of 16384 slots, each slot to one node, and that may change.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::{Duration, Instant};

use ::redis::{Arg, Cmd, Pipeline, ServerError, Value, cmd};

use super::config::RedisConfig;
use super::link::Reply;
use super::pool::{RedisPool, Repeat};
use crate::{Error, ErrorKind, Result};

const SLOTS: u16 = 16384;

/// How often one command follows its slot to another node.
const REDIRECTIONS: usize = 4;

/// How long a map of the slots counts as new, although a node fails.
const MAP_IS_NEW: Duration = Duration::from_millis(250);

/// The nodes of a Redis cluster, for [`RedisStore::on_cluster`](crate::RedisStore::on_cluster). Clones share
/// the connections.
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
    seeds: Vec<Node>,
    pools: Mutex<BTreeMap<Node, RedisPool>>,
    map: RwLock<Arc<Map>>,
    /// When the map was read last; whoever holds this reads it.
    reading: Mutex<Option<Instant>>,
    observers: Arc<RwLock<Vec<Observer>>>,
}

type Observer = Box<dyn Fn(Option<&Error>) + Send + Sync>;

type Node = (String, u16);

/// Who has which slots: the last slot of each range, the first one, and the node.
#[derive(Default)]
struct Map(BTreeMap<u16, (u16, Node)>);

impl Map {
    fn owner(&self, slot: u16) -> Option<&Node> {
        let (_, (first, node)) = self.0.range(slot..).next()?;
        (*first <= slot).then_some(node)
    }
}

impl RedisCluster {
    /// A cluster that some of these nodes (`redis://host:port`) belong to; the others are found. `config` has
    /// everything else: who we are, the time-outs, and how many connections each node gets.
    pub fn new<'a>(
        nodes: impl IntoIterator<Item = &'a str>,
        config: RedisConfig,
    ) -> Result<RedisCluster> {
        let seed = |url| RedisConfig::from_url(url)?.host_and_port();
        let seeds = nodes.into_iter().map(seed).collect::<Result<Vec<_>>>()?;
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
            seeds,
            pools: Mutex::default(),
            map: RwLock::default(),
            reading: Mutex::default(),
            observers: Arc::default(),
        }));
        // Settings that cannot work are refused here and not with the first request.
        cluster.0.seeds.iter().try_for_each(|node| cluster.pool(node).map(drop))?;
        Ok(cluster)
    }

    /// How many connections there are to all nodes, and how many of them are idle.
    pub fn connections(&self) -> (u32, u32) {
        let pools = locked(&self.0.pools);
        let each = pools.values().map(RedisPool::connections);
        each.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1))
    }

    /// Has this called whenever a node's breaker opens, with the reason, and when it closes.
    pub fn on_breaker(&self, observer: impl Fn(Option<&Error>) + Send + Sync + 'static) {
        let mut observers =
            self.0.observers.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        observers.push(Box::new(observer));
    }

    /// Sends each command to the node that has its key, in one round trip for each node. One node's failure
    /// concerns no other's commands.
    pub(crate) fn send_each(
        &self,
        pipeline: &Pipeline,
        repeat: Repeat,
        limit: usize,
        ours: impl Fn(usize, &Reply) -> bool,
    ) -> Vec<Result<Reply>> {
        let commands: Vec<&Cmd> = pipeline.cmd_iter().collect();
        let mut answers: Vec<Option<Result<Reply>>> = commands.iter().map(|_| None).collect();
        let mut left: Vec<usize> = (0..commands.len()).collect();
        for _ in 0..REDIRECTIONS {
            let map = match self.map() {
                Ok(map) => map,
                Err(error) => {
                    left.drain(..).for_each(|at| answers[at] = Some(Err(copy(&error))));
                    break;
                }
            };
            let mut by_node: BTreeMap<&Node, Vec<usize>> = BTreeMap::new();
            for at in left.drain(..) {
                match map.owner(slot(key(commands[at]))) {
                    Some(node) => by_node.entry(node).or_default().push(at),
                    None => answers[at] = Some(Err(self.error("no node has the session's slot"))),
                }
            }
            for (node, ats) in by_node {
                let mut part = Pipeline::with_capacity(ats.len());
                for at in &ats {
                    part.add_command(commands[*at].clone());
                }
                let whole = |replies: &[Reply]| {
                    replies.iter().zip(&ats).all(|(reply, at)| ours(*at, reply))
                };
                let replies =
                    self.pool(node).and_then(|pool| pool.send_checked(&part, repeat, limit, whole));
                match replies {
                    Ok(replies) => {
                        for (at, reply) in ats.iter().copied().zip(replies) {
                            match &reply {
                                // Not done there: this is no repetition.
                                Err(error) if error.code() == "MOVED" => left.push(at),
                                Err(error) if error.code() == "ASK" => {
                                    let only = |reply: &Reply| ours(at, reply);
                                    let there = self.ask(error, commands[at], repeat, limit, only);
                                    answers[at] = Some(there);
                                }
                                _ => answers[at] = Some(Ok(reply)),
                            }
                        }
                    }
                    Err(error) => {
                        ats.iter().for_each(|at| answers[*at] = Some(Err(copy(&error))));
                        // Perhaps a replica has taken over.
                        self.read_map(MAP_IS_NEW);
                    }
                }
            }
            if left.is_empty() {
                break;
            }
            self.read_map(Duration::ZERO);
        }
        let lost = || Err(self.error("the session's slot is being moved"));
        answers.into_iter().map(|answer| answer.unwrap_or_else(lost)).collect()
    }

    /// Sends one command to the node that its slot is on the way to.
    fn ask(
        &self,
        error: &ServerError,
        command: &Cmd,
        repeat: Repeat,
        limit: usize,
        ours: impl Fn(&Reply) -> bool,
    ) -> Result<Reply> {
        let target = error.details().and_then(|text| text.rsplit(' ').next()?.rsplit_once(':'));
        let node = target.and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?)));
        let node = node.ok_or_else(|| self.error("a node did not say where a slot goes"))?;
        let mut both = Pipeline::with_capacity(2);
        both.add_command(cmd("ASKING")).add_command(command.clone());
        let last = |replies: &[Reply]| replies.last().is_none_or(&ours);
        let replies = self.pool(&node)?.send_checked(&both, repeat, limit, last)?;
        replies.into_iter().next_back().ok_or_else(|| self.error("a node gave no reply"))
    }

    fn map(&self) -> Result<Arc<Map>> {
        let known = || self.0.map.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        if known().0.is_empty() {
            self.read_map(Duration::ZERO);
        }
        match known() {
            map if map.0.is_empty() => Err(self.error("no node says who has the slots")),
            map => Ok(map),
        }
    }

    /// Reads the map, unless it was read this short a time ago or by somebody else meanwhile.
    fn read_map(&self, new: Duration) {
        let asked = Instant::now();
        let mut read = locked(&self.0.reading);
        if read.is_some_and(|read| read > asked || read.elapsed() < new) {
            return;
        }
        let mut nodes: Vec<Node> = locked(&self.0.pools).keys().cloned().collect();
        nodes.extend(self.0.seeds.iter().cloned());
        let map = nodes.iter().find_map(|node| {
            let mut question = Pipeline::new();
            question.cmd("CLUSTER").arg("SLOTS");
            let slots = |replies: &[Reply]| matches!(replies, [Ok(Value::Array(_)) | Err(_)]);
            let limit = usize::MAX;
            let replies =
                self.pool(node).ok()?.send_checked(&question, Repeat::Idempotent, limit, slots);
            read_slots(replies.ok()?.into_iter().next()?.ok()?, node)
        });
        if let Some(map) = map {
            *self.0.map.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = Arc::new(map);
        }
        *read = Some(Instant::now());
    }

    fn pool(&self, node: &Node) -> Result<RedisPool> {
        let mut pools = locked(&self.0.pools);
        if let Some(pool) = pools.get(node) {
            return Ok(pool.clone());
        }
        let pool = RedisPool::new(self.0.config.clone().host(&node.0).port(node.1))?;
        let observers = self.0.observers.clone();
        pool.on_breaker(move |down| {
            let observers = observers.read().unwrap_or_else(|poisoned| poisoned.into_inner());
            observers.iter().for_each(|observer| observer(down));
        });
        pools.insert(node.clone(), pool.clone());
        Ok(pool)
    }

    fn error(&self, why: &str) -> Error {
        Error::new(ErrorKind::Unavailable, format!("{self:?}: {why}"))
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

/// The reply to `CLUSTER SLOTS`: first and last slot, the master, its replicas.
fn read_slots(reply: Value, asked: &Node) -> Option<Map> {
    let Value::Array(ranges) = reply else { return None };
    let mut map = Map::default();
    for range in ranges {
        let Value::Array(range) = range else { return None };
        let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = range.as_slice()
        else {
            return None;
        };
        let [host, Value::Int(port), ..] = master.as_slice() else { return None };
        let host = match host {
            Value::BulkString(host) if !host.is_empty() => String::from_utf8(host.clone()).ok()?,
            // A node that does not know its own address has the one that we asked it at.
            _ => asked.0.clone(),
        };
        let (first, last) = (u16::try_from(*first).ok()?, u16::try_from(*last).ok()?);
        map.0.insert(last, (first, (host, u16::try_from(*port).ok()?)));
    }
    Some(map)
}

/// The first key of a script's call.
fn key(command: &Cmd) -> &[u8] {
    match command.args_iter().nth(3) {
        Some(Arg::Simple(key)) => key,
        _ => &[],
    }
}

/// The slot of a key: CRC16 (XMODEM) of what stands in its first braces, or of all of it (Redis cluster
/// specification, "Hash tags").
pub(crate) fn slot(key: &[u8]) -> u16 {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        let close = rest.iter().position(|byte| *byte == b'}').filter(|close| *close > 0)?;
        Some(&rest[..close])
    });
    let crc = tag.unwrap_or(key).iter().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| match crc & 0x8000 {
            0 => crc << 1,
            _ => (crc << 1) ^ 0x1021,
        })
    });
    crc % SLOTS
}

fn copy(error: &Error) -> Error {
    Error::new(error.kind(), format!("{error:?}"))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_the_slot_that_redis_says() {
        // From CLUSTER KEYSLOT.
        for (key, expected) in [
            ("123456789", 12739),
            ("", 0),
            ("foo", 12182),
            ("{foo}bar", 12182),
            ("foo{}{bar}", 8363),
        ] {
            assert_eq!(slot(key.as_bytes()), expected, "{key}");
        }
    }

    #[test]
    fn a_slot_that_nobody_has_has_no_owner() {
        let node = ("a".to_owned(), 1);
        let map = Map(BTreeMap::from([(20, (10, node.clone()))]));
        assert_eq!(
            [9, 10, 20, 21].map(|slot| map.owner(slot) == Some(&node)),
            [false, true, true, false]
        );
    }
}
