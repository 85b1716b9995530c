//! Connections from an `r2d2_redis` pool that the application already has.
//!
//! The `redis` 0.20 below it keeps a connection in use after a time-out, and what comes late is then taken for
//! the reply to the next command. So each batch begins with an ECHO of a word that was never said before:
//! whoever used the connection earlier, in whatever way, a reply that is not ours is recognized. And a
//! connection that anything happened to is broken for good before its pool has it back.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::net::TcpListener;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, mpsc};
use std::time::{Duration, Instant};

use ::redis::{ServerError, Value};
use r2d2_redis::redis::{self as old, ErrorKind as OldErrorKind};
use r2d2_redis::{RedisConnectionManager, r2d2};

use super::connection::Reply;

/// The application's own pool.
pub(super) type ExternalPool = r2d2::Pool<RedisConnectionManager>;

/// A connection that is taken when somebody is there to use it, and goes back when it is dropped: what
/// nobody uses is the application's.
pub(super) struct External {
    pool: ExternalPool,
    /// `None` until then, and once it is given up.
    connection: Option<r2d2::PooledConnection<RedisConnectionManager>>,
    /// Whether its pool may have it back.
    pub(super) fit: bool,
}

impl External {
    pub(super) fn of(pool: &ExternalPool) -> External {
        External { pool: pool.clone(), connection: None, fit: false }
    }

    /// Takes a connection before the deadline, unless it has one.
    pub(super) fn take(&mut self, deadline: Instant) -> Result<(), CheckoutError> {
        if self.connection.is_some() {
            return Ok(());
        }
        let taken = match self.pool.test_on_check_out() {
            false => self.pool.get_timeout(left(deadline)),
            true => take_tested(&self.pool, deadline)?,
        };
        match taken {
            Ok(connection) => self.connection = Some(connection),
            Err(_) if self.pool.state().connections >= self.pool.max_size() => {
                return Err(CheckoutError::AllInUse);
            }
            Err(error) => return Err(CheckoutError::Down(error.to_string())),
        }
        Ok(())
    }

    /// Sends packed commands and reads their replies before the deadline.
    pub(super) fn exchange(
        &mut self,
        packed: &[u8],
        count: usize,
        deadline: Instant,
    ) -> io::Result<Vec<Reply>> {
        let word = nonce();
        let mut bytes = ::redis::cmd("ECHO").arg(&word).get_packed_command();
        bytes.extend_from_slice(packed);
        let connection = self.connection.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        connection.set_write_timeout(Some(left(deadline))).map_err(failed)?;
        connection.send_packed_command(&bytes).map_err(failed)?;
        match receive(connection, deadline)? {
            Ok(Value::BulkString(echo)) if echo == word.as_bytes() => {}
            // Even what looks like an error concerning ECHO may be the late reply to something else.
            Err(error) => return Err(garbage(&format!("to ECHO: {error:?}"))),
            Ok(_) => return Err(garbage("an earlier command's came late")),
        }
        (0..count).map(|_| receive(connection, deadline)).collect()
    }

    pub(super) fn is_open(&self) -> bool {
        self.connection
            .as_ref()
            .is_none_or(|connection| old::ConnectionLike::is_open(&**connection))
    }
}

type Taken = Result<r2d2::PooledConnection<RedisConnectionManager>, r2d2::Error>;

/// Takes a connection that its pool tests first, by a PING without a time-out. Where Redis is mute, it is not
/// the request that waits for that but a thread of its own, one for each connection of the pool at most.
fn take_tested(pool: &ExternalPool, deadline: Instant) -> Result<Taken, CheckoutError> {
    let down = |why: String| CheckoutError::Down(why);
    let (give, taken) = mpsc::sync_channel(0);
    let theirs = pool.clone();
    // Sooner than the deadline, so that a pool whose connections are all in use can still say so.
    let timeout = left(deadline).mul_f32(0.9);
    let take = move || {
        // Nobody waits any more: the connection goes back.
        drop(give.send(theirs.get_timeout(timeout)));
    };
    std::thread::Builder::new()
        .name("redis-external".to_owned())
        .spawn(take)
        .map_err(|error| down(error.to_string()))?;
    taken.recv_timeout(left(deadline)).map_err(|_| down("a connection is mute".to_owned()))
}

/// Why the application's pool gave no connection.
pub(super) enum CheckoutError {
    AllInUse,
    Down(String),
}

fn receive(connection: &mut old::Connection, deadline: Instant) -> io::Result<Reply> {
    if Instant::now() >= deadline {
        return Err(io::ErrorKind::TimedOut.into());
    }
    connection.set_read_timeout(Some(left(deadline))).map_err(failed)?;
    match connection.recv_response() {
        Ok(value) => Ok(Ok(modern(value))),
        Err(error) => match server_error(&error) {
            Some(error) => Ok(Err(error)),
            None => Err(failed(error)),
        },
    }
}

impl Drop for External {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        // As r2d2_redis makes them: a command of the application may block as long as it likes.
        let restored =
            connection.set_read_timeout(None).is_ok() && connection.set_write_timeout(None).is_ok();
        if self.fit && restored {
            return;
        }
        match broken() {
            // The pool sees that it is not open and drops it; what it stood for is closed here.
            Ok(broken) => drop(std::mem::replace(&mut *connection, broken)),
            Err(error) => {
                log::error!("a connection of the r2d2_redis pool is lost for good: {error}");
                std::mem::forget(connection);
            }
        }
    }
}

/// A reply in the words of the present `redis` crate.
fn modern(value: old::Value) -> Value {
    match value {
        old::Value::Nil => Value::Nil,
        old::Value::Int(number) => Value::Int(number),
        old::Value::Data(bytes) => Value::BulkString(bytes),
        old::Value::Bulk(items) => Value::Array(items.into_iter().map(modern).collect()),
        old::Value::Status(text) => Value::SimpleString(text),
        old::Value::Okay => Value::Okay,
    }
}

/// What the server said, or nothing where it was the connection that failed.
fn server_error(error: &old::RedisError) -> Option<ServerError> {
    match error.kind() {
        OldErrorKind::IoError
        | OldErrorKind::ClientError
        | OldErrorKind::TypeError
        | OldErrorKind::InvalidClientConfig
        | OldErrorKind::AuthenticationFailed => return None,
        // Garbage has the same kind as an error reply without a code of its own.
        OldErrorKind::ResponseError if !error.to_string().starts_with(SIGNALLED) => return None,
        _ => {}
    }
    let line = format!("-{} {}\r\n", error.code()?, error.detail().unwrap_or_default());
    match ::redis::parse_redis_value(line.as_bytes()) {
        Ok(Value::ServerError(error)) => Some(error),
        _ => None,
    }
}

const SIGNALLED: &str = "An error was signalled by the server";

fn failed(error: old::RedisError) -> io::Error {
    match error.is_timeout() {
        true => io::ErrorKind::TimedOut.into(),
        false if error.is_connection_dropped() => io::ErrorKind::UnexpectedEof.into(),
        false if error.kind() == OldErrorKind::IoError => io::Error::other(error.to_string()),
        false => garbage(&error.to_string()),
    }
}

fn garbage(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("garbage instead of a reply: {what}"))
}

/// What is left, and never nothing: zero would mean for ever.
fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}

fn nonce() -> String {
    static SEED: LazyLock<u64> = LazyLock::new(|| RandomState::new().build_hasher().finish());
    static SAID: AtomicU64 = AtomicU64::new(0);
    format!("bottle-session {:016x} {}", *SEED, SAID.fetch_add(1, Ordering::Relaxed))
}

/// A connection that is not open: only the end of a connection makes it so, and this one ends at once.
fn broken() -> std::result::Result<old::Connection, Box<dyn std::error::Error>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let client = old::Client::open(format!("redis://{}", listener.local_addr()?))?;
    let mut connection = client.get_connection()?;
    drop(listener.accept()?);
    connection.set_read_timeout(Some(Duration::from_secs(1)))?;
    let _ = connection.recv_response();
    match old::ConnectionLike::is_open(&connection) {
        true => Err("a connection that ended counts as open".into()),
        false => Ok(connection),
    }
}
