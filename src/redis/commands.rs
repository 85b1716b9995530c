//! The connection that a handler borrows.

use std::fmt;

use ::redis::{Cmd, ConnectionLike, FromRedisValue, RedisResult, ToRedisArgs, Value};

use super::arguments::CommandArguments;
use super::connection::Reply;
use super::errors::as_redis_error;
use super::pool::RedisPool;
use super::pool::checkout::Manager;
use crate::Result;
use crate::pipeline::plugin::Provided;

/// A connection to Redis, for the app's own data: a handler's `&mut RedisConnection` argument, provided by
/// [`RedisPlugin`](crate::RedisPlugin).
///
/// It takes a connection out of the pool with the first command, and gives it back when the handler has
/// returned. Until then it has it for itself: what the handler does with the session at once, such as
/// [`Session::incr`](crate::Session::incr), needs another one of the same pool, unless
/// [`give_back`](RedisConnection::give_back) comes first. The common commands are methods;
/// [`command`](RedisConnection::command) sends any other, and because it implements [`ConnectionLike`], all of the
/// [`redis`] crate works on it: its `Commands` trait, pipelines, scripts.
///
/// A command's reply of the wrong type, and an error reply, leave the connection as it was. After anything
/// else, a time-out for one, it is closed. So it is after commands that leave something behind on the
/// server's side (`SELECT`, `WATCH`, `MULTI`, `SUBSCRIBE`, `CLIENT`, …): the next user must not find it.
///
/// ```no_run
/// use bottle_session::{App, RedisConnection, RedisPlugin, Result};
///
/// let mut app = App::new();
/// app.install(RedisPlugin::new())?;
/// app.get("/visits", |rdb: &mut RedisConnection| -> Result<String> {
///     let visitors: u64 = rdb.incr("visitors", 1)?;
///     let newest: Vec<String> = rdb.command("LRANGE", &["newest", "0", "9"])?;
///     Ok(format!("{visitors} visitors, the last were {newest:?}"))
/// });
/// # Ok::<(), bottle_session::Error>(())
/// ```
///
/// [`redis`]: https://docs.rs/redis
pub struct RedisConnection {
    pool: RedisPool,
    connection: Option<r2d2::PooledConnection<Manager>>,
    /// Whether it has just been looked at.
    fresh: bool,
}

impl Provided for RedisConnection {}

impl RedisConnection {
    pub(crate) fn new(pool: RedisPool) -> RedisConnection {
        RedisConnection { pool, connection: None, fresh: false }
    }

    /// Gives the connection back to the pool before the handler returns; the next command takes another.
    pub fn give_back(&mut self) {
        self.connection = None;
    }

    /// `GET`: the value, or its absence if `T` is an `Option`.
    pub fn get<T: FromRedisValue>(&mut self, key: &str) -> Result<T> {
        self.run(::redis::cmd("GET").arg(key))
    }

    /// `SET`.
    pub fn set(&mut self, key: &str, value: impl ToRedisArgs) -> Result<()> {
        self.run(::redis::cmd("SET").arg(key).arg(value))
    }

    /// `DEL`: whether the key was there.
    pub fn del(&mut self, key: &str) -> Result<bool> {
        self.run(::redis::cmd("DEL").arg(key))
    }

    /// `EXISTS`.
    pub fn exists(&mut self, key: &str) -> Result<bool> {
        self.run(::redis::cmd("EXISTS").arg(key))
    }

    /// `EXPIRE`, in seconds: whether the key was there.
    pub fn expire(&mut self, key: &str, seconds: i64) -> Result<bool> {
        self.run(::redis::cmd("EXPIRE").arg(key).arg(seconds))
    }

    /// `INCRBY`: the sum.
    pub fn incr<T: FromRedisValue>(&mut self, key: &str, by: i64) -> Result<T> {
        self.run(::redis::cmd("INCRBY").arg(key).arg(by))
    }

    /// `HGET`: the value, or its absence if `T` is an `Option`.
    pub fn hget<T: FromRedisValue>(&mut self, key: &str, field: &str) -> Result<T> {
        self.run(::redis::cmd("HGET").arg(key).arg(field))
    }

    /// `HSET` of one field: whether it is new.
    pub fn hset(&mut self, key: &str, field: &str, value: impl ToRedisArgs) -> Result<bool> {
        self.run(::redis::cmd("HSET").arg(key).arg(field).arg(value))
    }

    /// `HDEL` of one field: whether it was there.
    pub fn hdel(&mut self, key: &str, field: &str) -> Result<bool> {
        self.run(::redis::cmd("HDEL").arg(key).arg(field))
    }

    /// `HINCRBY`: the sum.
    pub fn hincr<T: FromRedisValue>(&mut self, key: &str, field: &str, by: i64) -> Result<T> {
        self.run(::redis::cmd("HINCRBY").arg(key).arg(field).arg(by))
    }

    /// `LPUSH`: how many items the list has then.
    pub fn lpush(&mut self, key: &str, items: impl ToRedisArgs) -> Result<u64> {
        self.run(::redis::cmd("LPUSH").arg(key).arg(items))
    }

    /// `LTRIM`: keeps the items from `first` to `last`, counted from 0, or from the end with -1.
    pub fn ltrim(&mut self, key: &str, first: i64, last: i64) -> Result<()> {
        self.run(::redis::cmd("LTRIM").arg(key).arg(first).arg(last))
    }

    /// `LRANGE`: the items from `first` to `last`, counted from 0, or from the end with -1.
    pub fn lrange<T: FromRedisValue>(
        &mut self,
        key: &str,
        first: i64,
        last: i64,
    ) -> Result<Vec<T>> {
        self.run(::redis::cmd("LRANGE").arg(key).arg(first).arg(last))
    }

    /// `HGETALL`: a map, or a list of pairs.
    pub fn hgetall<T: FromRedisValue>(&mut self, key: &str) -> Result<T> {
        self.run(::redis::cmd("HGETALL").arg(key))
    }

    /// Any command with its arguments; `()` for none: `rdb.command("FLUSHDB", ())`.
    pub fn command<T: FromRedisValue>(
        &mut self,
        name: &str,
        arguments: impl CommandArguments,
    ) -> Result<T> {
        let mut command = ::redis::cmd(name);
        arguments.add_to(&mut command);
        self.run(&command)
    }

    /// A command of the `redis` crate.
    pub fn run<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T> {
        // Here, where the pool's own error need not pass for one of the `redis` crate.
        if self.connection.is_none() {
            self.connection = Some(self.pool.checkout()?);
            self.fresh = true;
        }
        Ok(command.query(self)?)
    }

    fn exchange(&mut self, packed: &[u8], count: usize) -> RedisResult<Vec<Reply>> {
        let pool = self.pool.clone();
        let only_reads = only_reads(packed);
        let waited =
            !only_reads && pool.wait_while_held().map_err(|error| as_redis_error(error, false))?;
        // Since the last command it may have been closed, or something may have come that nobody asked for. One
        // that the server keeps something for cannot be replaced unnoticed.
        let fresh = std::mem::take(&mut self.fresh) && !waited;
        if let Some(connection) =
            self.connection.as_mut().filter(|connection| !fresh && !connection.stateful)
            && !pool.is_healthy(connection)
        {
            connection.dirty = true;
            self.connection = None;
        }
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(pool.checkout().map_err(|error| as_redis_error(error, false))?),
        };
        let may_block = leaves_something_behind(packed);
        let may_wait = may_block || waits(packed);
        let done = pool.exchange_on(connection, packed, count, may_wait, only_reads);
        // At once, so that the pool closes it however it comes back: a handler may panic.
        connection.stateful |= may_block;
        if done.is_err() {
            // The rest of the handler starts over on a connection that can be trusted; this one is dirty.
            self.connection = None;
        }
        done
    }
}

impl ConnectionLike for RedisConnection {
    fn req_packed_command(&mut self, cmd: &[u8]) -> RedisResult<Value> {
        let mut replies = self.exchange(cmd, 1)?;
        replies.pop().map_or(Ok(Value::Nil), |reply| Ok(reply?))
    }

    fn req_packed_commands(
        &mut self,
        cmd: &[u8],
        offset: usize,
        count: usize,
    ) -> RedisResult<Vec<Value>> {
        let mut replies = self.exchange(cmd, offset + count)?.into_iter();
        // A transaction: what its commands were answered when they were queued.
        for queued in replies.by_ref().take(offset) {
            queued?;
        }
        Ok(replies.map(|reply| reply.unwrap_or_else(Value::ServerError)).collect())
    }

    fn get_db(&self) -> i64 {
        self.pool.config().db
    }

    fn check_connection(&mut self) -> bool {
        self.run::<String>(&::redis::cmd("PING")).is_ok()
    }

    fn is_open(&self) -> bool {
        self.connection.as_ref().is_none_or(|connection| !connection.dirty)
    }
}

impl fmt::Debug for RedisConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisConnection({:?})", self.pool)
    }
}

/// Whether packed commands may wait on purpose, so that a late reply says nothing about the server.
fn waits(packed: &[u8]) -> bool {
    const WAITING: [&str; 13] = [
        "BLPOP",
        "BRPOP",
        "BRPOPLPUSH",
        "BLMOVE",
        "BLMPOP",
        "BZPOPMIN",
        "BZPOPMAX",
        "BZMPOP",
        "XREAD",
        "XREADGROUP",
        "WAIT",
        "WAITAOF",
        "DEBUG",
    ];
    command_names(packed)
        .any(|name| WAITING.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes())))
}

/// Whether packed commands are known to write nothing, so that they go on while a failover is under way.
fn only_reads(packed: &[u8]) -> bool {
    const READING: [&str; 46] = [
        "BITCOUNT",
        "CLUSTER",
        "DBSIZE",
        "ECHO",
        "EXISTS",
        "GET",
        "GETBIT",
        "GETRANGE",
        "HEXISTS",
        "HGET",
        "HGETALL",
        "HKEYS",
        "HLEN",
        "HMGET",
        "HSCAN",
        "HSTRLEN",
        "HVALS",
        "INFO",
        "KEYS",
        "LINDEX",
        "LLEN",
        "LRANGE",
        "MGET",
        "PFCOUNT",
        "PING",
        "PTTL",
        "ROLE",
        "SCAN",
        "SCARD",
        "SISMEMBER",
        "SMEMBERS",
        "SSCAN",
        "STRLEN",
        "TIME",
        "TTL",
        "TYPE",
        "XLEN",
        "XRANGE",
        "XREAD",
        "XREVRANGE",
        "ZCARD",
        "ZCOUNT",
        "ZRANGE",
        "ZRANK",
        "ZSCAN",
        "ZSCORE",
    ];
    command_names(packed)
        .all(|name| READING.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes())))
}

/// Whether packed commands change the state that the server keeps for the connection.
fn leaves_something_behind(packed: &[u8]) -> bool {
    const STATEFUL: [&str; 15] = [
        "SELECT",
        "WATCH",
        "SUBSCRIBE",
        "PSUBSCRIBE",
        "SSUBSCRIBE",
        "MONITOR",
        "CLIENT",
        "AUTH",
        "HELLO",
        "RESET",
        "READONLY",
        "READWRITE",
        "ASKING",
        "SYNC",
        "PSYNC",
    ];
    let mut open = false;
    for name in command_names(packed) {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        if is("MULTI") {
            open = true;
        } else if is("EXEC") || is("DISCARD") {
            open = false;
        } else if STATEFUL.iter().any(|known| is(known)) {
            return true;
        }
    }
    open
}

/// The names of the commands in packed bytes (RESP arrays of bulk strings).
fn command_names(mut packed: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let count = number(&mut packed, b'*')?;
        let mut name = None;
        for _ in 0..count {
            let length = number(&mut packed, b'$')?;
            let text = packed.get(..length)?;
            packed = packed.get(length + 2..)?;
            name.get_or_insert(text);
        }
        name
    })
}

fn number(packed: &mut &[u8], mark: u8) -> Option<usize> {
    let rest = packed.strip_prefix(&[mark])?;
    let end = rest.iter().position(|byte| *byte == b'\r')?;
    let number = std::str::from_utf8(&rest[..end]).ok()?.parse().ok()?;
    *packed = rest.get(end + 2..)?;
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_to_read_only_is_taken_for_a_write() {
        let mut pipeline = ::redis::pipe();
        pipeline.cmd("GET").arg("a").cmd("hgetall").arg("b");
        assert!(only_reads(&pipeline.get_packed_pipeline()));
        pipeline.cmd("INCR").arg("c");
        assert!(!only_reads(&pipeline.get_packed_pipeline()));
        assert!(!only_reads(&::redis::cmd("EVAL").arg("GET").get_packed_command()));
    }

    #[test]
    fn what_a_command_leaves_behind_is_known() {
        let one = |words: &[&str]| {
            let mut command = ::redis::cmd(words[0]);
            command.arg(&words[1..]);
            command.get_packed_command()
        };
        for (words, leaves) in [
            (&["GET", "SELECT"][..], false),
            (&["SELECT", "1"], true),
            (&["watch", "key"], true),
            (&["MULTI"], true),
            (&["SET", "key", "*1\r\n$5\r\nMULTI\r\n"], false),
        ] {
            assert_eq!(leaves_something_behind(&one(words)), leaves, "{words:?}");
        }
        let mut pipeline = ::redis::pipe();
        pipeline.atomic().cmd("SET").arg("a").arg(1);
        assert!(!leaves_something_behind(&pipeline.get_packed_pipeline()));
        pipeline.cmd("CLIENT").arg("SETNAME").arg("x");
        assert!(leaves_something_behind(&pipeline.get_packed_pipeline()));
    }
}
