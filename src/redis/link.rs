//! One connection to one server, and what is known of it.

use std::io::{ErrorKind as IoErrorKind, Read, Write};
use std::time::{Duration, Instant};

use ::redis::{
    Cmd, ErrorKind as RedisErrorKind, Parser, Pipeline, RedisError, RedisResult, ServerError, Value,
};

use super::config::{Address, RedisConfig};
use super::wire::{Trust, Wire};

/// What the server says to one command: a value, or its refusal.
pub(crate) type Reply = std::result::Result<Value, ServerError>;

/// A connection that knows whether it can be trusted. Made on our own, because the crate's takes its read
/// time-out for one read and not for a reply.
pub(super) struct Link {
    wire: Wire,
    parser: Parser,
    /// Something was sent and not all of its replies have been read, or more came than was asked for.
    pub(super) dirty: bool,
    /// Whether it has answered before.
    pub(super) used: bool,
    pub(super) last_used: Instant,
    /// The pool's generation when it was made or last asked.
    pub(super) generation: u64,
}

impl Link {
    /// Connects to one server with these settings, and says who we are.
    pub(super) fn connect(
        config: &RedisConfig,
        address: &Address,
        trust: &Trust,
        generation: u64,
        deadline: Instant,
    ) -> RedisResult<Link> {
        let now = Instant::now();
        let wire = Wire::connect(address, trust, deadline)?;
        let parser = Parser::new();
        let mut link = Link { wire, parser, dirty: false, used: false, last_used: now, generation };
        link.introduce(config, deadline)?;
        link.used = false;
        Ok(link)
    }

    fn introduce(&mut self, config: &RedisConfig, deadline: Instant) -> RedisResult<()> {
        let mut greeting = Pipeline::new();
        if let Some(password) = &config.password {
            greeting.cmd("AUTH").arg(config.username.as_ref()).arg(password);
        }
        if config.db != 0 {
            greeting.cmd("SELECT").arg(config.db);
        }
        let needed = greeting.len();
        // Not known before Redis 7.2, and forbidden to some; but whoever must not even ask has no password.
        greeting.cmd("CLIENT").arg("SETINFO").arg("LIB-NAME").arg("bottle-session");
        let replies =
            self.exchange_until(&greeting.get_packed_pipeline(), greeting.len(), deadline)?;
        for (number, reply) in replies.into_iter().enumerate() {
            match reply {
                Ok(_) => {}
                Err(error) if number < needed || stays_out(&error) => return Err(error.into()),
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// Sends packed commands and reads their replies within this time.
    pub(super) fn exchange(
        &mut self,
        packed: &[u8],
        count: usize,
        timeout: Duration,
    ) -> RedisResult<Vec<Reply>> {
        self.exchange_until(packed, count, Instant::now() + timeout)
    }

    /// The same before a deadline. The connection counts as dirty from before the first byte until the last
    /// reply is read.
    pub(super) fn exchange_until(
        &mut self,
        packed: &[u8],
        count: usize,
        deadline: Instant,
    ) -> RedisResult<Vec<Reply>> {
        self.dirty = true;
        self.wire.until(deadline);
        self.wire.write_all(packed)?;
        self.wire.flush()?;
        let mut replies = Vec::with_capacity(count);
        while replies.len() < count {
            replies.push(match self.parser.parse_value(&mut self.wire).map_err(unreadable)? {
                Value::ServerError(error) => Err(error),
                // Nobody subscribed to anything: this is not a reply to us.
                Value::Push { .. } => return Err(no_reply()),
                value => Ok(value),
            });
        }
        if self.parser.parse_value(Nothing).is_ok() {
            // More replies than commands: the next user must not find them, and these are not ours either.
            return Err(no_reply());
        }
        self.used = true;
        self.last_used = Instant::now();
        self.dirty = false;
        Ok(replies)
    }

    /// One command and its value.
    pub(super) fn ask(&mut self, command: &Cmd, deadline: Instant) -> RedisResult<Value> {
        let replies = self.exchange_until(&command.get_packed_command(), 1, deadline)?;
        Ok(replies.into_iter().next().ok_or_else(no_reply)??)
    }
}

/// Whether the server's refusal to be told a name means that it refuses everything.
fn stays_out(error: &ServerError) -> bool {
    error.code() == "NOAUTH" || super::errors::passes(Some(error.code())) || is_full(error)
}

fn is_full(error: &ServerError) -> bool {
    error.details().is_some_and(|text| text.contains("max number of clients"))
}

fn no_reply() -> RedisError {
    RedisError::from((RedisErrorKind::Parse, "redis sent something that is no reply to us"))
}

/// The parser's error quotes what it read, which may be anybody's.
fn unreadable(error: RedisError) -> RedisError {
    match error.kind() {
        RedisErrorKind::Parse => no_reply(),
        _ => error,
    }
}

/// Lets the parser say whether there is another reply among the bytes it has already read.
struct Nothing;

impl Read for Nothing {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        Err(IoErrorKind::WouldBlock.into())
    }
}
