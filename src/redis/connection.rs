//! One connection to one server, and what is known of it.

use std::io::{Read, Write};
use std::time::{Duration, Instant, SystemTime};

use ::redis::{
    Cmd, ErrorKind as RedisErrorKind, Parser, Pipeline, RedisError, RedisResult, ServerError, Value,
};

use super::batch::{Batch, Broken, Received};
use super::config::{Address, RedisConfig};
use super::errors::{TooLarge, as_redis_error};
use super::transport::{Transport, Trust};
use crate::pipeline::operation::RemoteClock;

/// What the server says to one command: a value, or its refusal.
pub(crate) type Reply = std::result::Result<Value, ServerError>;

/// More bytes than the replies to our own questions have: who we are, whether it stands, what it is.
pub(super) const MAX_SETUP_REPLY: usize = 256 * 1024;

/// A parser that has held more than this is let go, and its memory with it.
const MAX_IDLE_BUFFER: usize = 64 * 1024;

/// What a parser with nothing left over reads after the last reply.
const NOTHING_LEFT: &str = "nothing is left";

/// A connection that knows whether it can be trusted. Made on our own, because the crate's takes its read
/// time-out for one read and not for a reply.
pub(super) struct Connection {
    backing: Backing,
    /// Something was sent and not all of its replies have been read, or more came than was asked for.
    pub(super) dirty: bool,
    /// The server keeps something for it that the next user must not find.
    pub(super) stateful: bool,
    /// Whether it has answered before.
    pub(super) used: bool,
    pub(super) last_used: Instant,
    /// The pool's generation when it was made or last asked.
    pub(super) generation: u64,
    /// The process that made it.
    pub(super) process: u32,
    /// When another one is to take its place, however well it works.
    pub(super) renew_at: Option<Instant>,
    /// The server's clock, once it has told the time.
    clock: Option<RemoteClock>,
}

/// What it goes over.
enum Backing {
    Own {
        transport: Transport,
        parser: Parser,
    },
    /// A connection of the application's own pool.
    #[cfg(feature = "r2d2_redis")]
    External(super::external::External),
}

impl Connection {
    /// Connects to one server with these settings, and says who we are.
    pub(super) fn connect(
        config: &RedisConfig,
        address: &Address,
        trust: &Trust,
        generation: u64,
        deadline: Instant,
    ) -> RedisResult<Connection> {
        let transport = Transport::connect(address, trust, deadline)?;
        let mut connection =
            Connection::over(Backing::Own { transport, parser: Parser::new() }, generation);
        connection.handshake(config, deadline)?;
        connection.used = false;
        Ok(connection)
    }

    /// A connection of the application's own pool, which introduces itself.
    #[cfg(feature = "r2d2_redis")]
    pub(super) fn external(external: super::external::External, generation: u64) -> Connection {
        Connection::over(Backing::External(external), generation)
    }

    fn over(backing: Backing, generation: u64) -> Connection {
        let (last_used, process) = (Instant::now(), std::process::id());
        Connection {
            backing,
            dirty: false,
            stateful: false,
            used: false,
            last_used,
            generation,
            process,
            renew_at: None,
            clock: None,
        }
    }

    /// Whether the pool keeps it for the next operation. One of the application's own pool goes back there, if it is
    /// fit for that.
    pub(super) fn is_kept(&mut self) -> bool {
        let fit = !self.dirty && !self.stateful;
        match &mut self.backing {
            Backing::Own { .. } => fit,
            #[cfg(feature = "r2d2_redis")]
            Backing::External(external) => {
                external.fit = fit;
                false
            }
        }
    }

    fn handshake(&mut self, config: &RedisConfig, deadline: Instant) -> RedisResult<()> {
        let mut greeting = Pipeline::new();
        let (user, password) =
            config.current_credentials().map_err(|error| as_redis_error(error, false))?;
        if let Some(password) = password {
            greeting.cmd("AUTH").arg(user).arg(password);
        }
        if config.db != 0 {
            greeting.cmd("SELECT").arg(config.db);
        }
        let needed = greeting.len();
        // Forbidden to some; but whoever must not even say a name has no password.
        greeting.cmd("CLIENT").arg("SETNAME").arg("bottle-session");
        // Not known before Redis 7.2.
        greeting.cmd("CLIENT").arg("SETINFO").arg("LIB-NAME").arg("bottle-session");
        // For the first operations, which come before the first pipeline has told it.
        greeting.cmd("TIME");
        let (packed, count) = (greeting.get_packed_pipeline(), greeting.len());
        let mut replies = Vec::with_capacity(count);
        if let Err(error) =
            self.exchange_into(&mut replies, &packed, count, deadline, MAX_SETUP_REPLY)
        {
            return Err(turned_away(replies).unwrap_or(error));
        }
        for (number, reply) in replies.into_iter().enumerate() {
            match reply {
                Ok(time) if number + 1 == count => {
                    let time: Result<(u64, u32), _> = ::redis::from_redis_value(time);
                    let said = time.ok().and_then(|(seconds, micros)| {
                        SystemTime::UNIX_EPOCH
                            .checked_add(Duration::new(seconds, micros.min(999_999) * 1000))
                    });
                    self.clock = said.map(|said| RemoteClock::new(said, Instant::now()));
                }
                Ok(_) => {}
                Err(error) if number < needed || stays_out(&error) => return Err(error.into()),
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// Sends packed commands and reads their replies, of so many bytes at most, before the deadline. The
    /// connection counts as dirty from before the first byte until the last reply is read.
    pub(super) fn exchange(
        &mut self,
        packed: &[u8],
        count: usize,
        deadline: Instant,
        limit: usize,
    ) -> RedisResult<Vec<Reply>> {
        let mut replies = Vec::with_capacity(count);
        self.exchange_into(&mut replies, packed, count, deadline, limit)?;
        Ok(replies)
    }

    /// The same; the replies that came are there also where the rest of them did not.
    fn exchange_into(
        &mut self,
        replies: &mut Vec<Reply>,
        packed: &[u8],
        count: usize,
        deadline: Instant,
        limit: usize,
    ) -> RedisResult<()> {
        self.dirty = true;
        match &mut self.backing {
            Backing::Own { transport, parser } => {
                transport.until(deadline);
                talk(transport, parser, packed, count, limit, replies)?;
            }
            // The application's own connections read what they get.
            #[cfg(feature = "r2d2_redis")]
            Backing::External(external) => *replies = external.exchange(packed, count, deadline)?,
        }
        self.used = true;
        self.last_used = Instant::now();
        self.dirty = false;
        Ok(())
    }

    /// Takes the connection that it stands for out of the application's pool.
    #[cfg(feature = "r2d2_redis")]
    pub(super) fn take(&mut self, deadline: Instant) -> Result<(), super::external::CheckoutError> {
        match &mut self.backing {
            Backing::Own { .. } => Ok(()),
            Backing::External(external) => external.take(deadline),
        }
    }

    /// Sends a pipeline and reads its replies before the deadline, of so many bytes at most. The connection counts
    /// as dirty from before the first byte until the replies are known to be in step.
    pub(super) fn carry(
        &mut self,
        batch: &mut Batch,
        deadline: Instant,
        max: usize,
    ) -> RedisResult<(Vec<u8>, Received)> {
        self.dirty = true;
        let (bytes, received) = match &mut self.backing {
            Backing::Own { transport, .. } => {
                transport.until(deadline);
                transport.write_all(&batch.bytes)?;
                transport.flush()?;
                read_replies(transport, batch, max)?
            }
            #[cfg(feature = "r2d2_redis")]
            Backing::External(external) => {
                let replies = external.exchange(&batch.bytes, batch.replies(), deadline)?;
                let bytes = super::resp::encoded(&replies);
                let received = batch.receive(&bytes, max, Instant::now()).map_err(broken)?;
                (bytes, received)
            }
        };
        if let Received::InStep(Some(clock)) = &received {
            self.clock = Some(*clock);
        }
        self.used = true;
        self.last_used = Instant::now();
        self.dirty = false;
        Ok((bytes, received))
    }

    /// The connection for an event loop, which does not wait for it.
    #[cfg(unix)]
    pub(super) fn into_channel(self) -> crate::Result<super::channel::Connected> {
        let (clock, generation, renew_at) = (self.clock, self.generation, self.renew_at);
        let transport = self.into_transport()?;
        Ok(super::channel::Connected::new(transport, clock, generation, renew_at))
    }

    /// What it goes over, for somebody who does not wait.
    pub(super) fn into_transport(self) -> crate::Result<Transport> {
        let mut transport = match self.backing {
            Backing::Own { transport, .. } => transport,
            #[cfg(feature = "r2d2_redis")]
            Backing::External(_) => {
                let text = "a connection of an r2d2_redis pool is not an event loop's";
                return Err(crate::Error::new(crate::ErrorKind::Redis, text));
            }
        };
        transport.set_nonblocking(true)?;
        Ok(transport)
    }

    pub(super) fn clock(&self) -> Option<RemoteClock> {
        self.clock
    }

    /// The time by the server's clock, as far as it is known.
    pub(super) fn now(&self) -> SystemTime {
        self.clock.map_or_else(SystemTime::now, |clock| clock.now(Instant::now()))
    }

    /// Whether, as far as this side knows, the connection stands and nothing unasked has come.
    pub(super) fn is_quiet(&mut self) -> bool {
        match &mut self.backing {
            Backing::Own { transport, .. } => transport.is_quiet(),
            #[cfg(feature = "r2d2_redis")]
            Backing::External(external) => external.is_open(),
        }
    }

    /// One command and its value.
    pub(super) fn ask(&mut self, command: &Cmd, deadline: Instant) -> RedisResult<Value> {
        let replies = self.exchange(&command.get_packed_command(), 1, deadline, MAX_SETUP_REPLY)?;
        Ok(replies.into_iter().next().ok_or_else(no_reply)??)
    }
}

/// Reads until the replies to the whole pipeline are there, and sees that there is nothing else.
fn read_replies(
    transport: &mut Transport,
    batch: &mut Batch,
    max: usize,
) -> RedisResult<(Vec<u8>, Received)> {
    let mut bytes = Vec::with_capacity(1024);
    loop {
        let filled = bytes.len();
        bytes.resize((filled + 4096).max(bytes.capacity()), 0);
        let read = transport.read(&mut bytes[filled..]);
        bytes.truncate(filled + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            read => drop(read?),
        }
        match batch.receive(&bytes, max, Instant::now()).map_err(broken)? {
            Received::Incomplete => {}
            _ if bytes.len() > batch.received_len() => return Err(no_reply()),
            received => return Ok((bytes, received)),
        }
    }
}

/// The error of replies that are not to the pipeline.
pub(super) fn broken(broken: Broken) -> RedisError {
    match broken {
        Broken::Protocol => no_reply(),
        Broken::TooLarge(limit) => std::io::Error::other(TooLarge(limit)).into(),
    }
}

/// Sends packed commands and reads a reply to each, and sees that there is nothing else.
fn talk(
    transport: &mut Transport,
    parser: &mut Parser,
    packed: &[u8],
    count: usize,
    limit: usize,
    replies: &mut Vec<Reply>,
) -> RedisResult<()> {
    let sent = transport.write_all(packed).and_then(|()| transport.flush());
    if let Err(error) = sent {
        let error = RedisError::from(error);
        return match error.is_connection_dropped() {
            // What the server said before it closed is still there to be read, and tells more.
            true => match receive(transport, parser, count, limit, replies) {
                Err(telling) if !telling.is_connection_dropped() => Err(telling),
                _ => Err(error),
            },
            false => Err(error),
        };
    }
    receive(transport, parser, count, limit, replies)
}

/// Reads so many replies, and sees that there is nothing else.
fn receive(
    transport: &mut Transport,
    parser: &mut Parser,
    count: usize,
    limit: usize,
    replies: &mut Vec<Reply>,
) -> RedisResult<()> {
    let mut incoming = Limited { transport, limit, left: limit };
    while replies.len() < count {
        replies.push(match parser.parse_value(&mut incoming).map_err(unreadable)? {
            Value::ServerError(error) => Err(error),
            // Nobody subscribed to anything: this is not a reply to us.
            Value::Push { .. } => return Err(no_reply()),
            value => Ok(value),
        });
    }
    // More than was asked for, if it is only the first byte of it: the next user must not find it, and these
    // are perhaps not our replies either.
    let last = format!("+{NOTHING_LEFT}\r\n");
    match parser.parse_value(last.as_bytes()) {
        Ok(Value::SimpleString(text)) if text == NOTHING_LEFT => {}
        _ => return Err(no_reply()),
    }
    if incoming.limit - incoming.left > MAX_IDLE_BUFFER {
        *parser = Parser::new();
    }
    Ok(())
}

/// Reads so many bytes and no more.
struct Limited<'a> {
    transport: &'a mut Transport,
    limit: usize,
    left: usize,
}

impl Read for Limited<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.left == 0 {
            return Err(std::io::Error::other(TooLarge(self.limit)));
        }
        let room = buffer.len().min(self.left);
        let read = self.transport.read(&mut buffer[..room])?;
        self.left -= read;
        Ok(read)
    }
}

/// Whether the server's refusal to be told a name means that it refuses everything.
fn stays_out(error: &ServerError) -> bool {
    error.code() == "NOAUTH" || super::errors::passes(Some(error.code())) || is_full(error)
}

/// Why a server that says no more than one error, and closes, lets nobody in: it has as many clients as it may, or
/// takes none from other machines.
fn turned_away(replies: Vec<Reply>) -> Option<RedisError> {
    match <[Reply; 1]>::try_from(replies) {
        // That we may not say a name is no reason to close.
        Ok([Err(refusal)]) if refusal.code() != "NOPERM" => Some(refusal.into()),
        _ => None,
    }
}

fn is_full(error: &ServerError) -> bool {
    error.details().is_some_and(|text| text.contains("max number of clients"))
}

/// The error of bytes that are no reply to what was asked.
pub(super) fn no_reply() -> RedisError {
    RedisError::from((RedisErrorKind::Parse, "redis sent something that is no reply to us"))
}

/// The parser's error quotes what it read, which may be anybody's.
fn unreadable(error: RedisError) -> RedisError {
    match error.kind() {
        RedisErrorKind::Parse => no_reply(),
        _ => error,
    }
}
