//! The connection to Redis that an event loop owns: pipelined, and never waited for.
//!
//! What one iteration of the loop submitted goes out as one pipeline; several are in flight at once. A thread of its own
//! connects, as names, sentinels and TLS handshakes block. A connection that errs, stalls or is out of step is closed:
//! operations that were in flight are sent once more on a new one where they may be repeated, the others fail. What
//! timed out is never repeated.

use std::any::Any;
use std::collections::VecDeque;
use std::io::{ErrorKind as IoErrorKind, Read, Write};
use std::os::fd::RawFd;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use ::redis::RedisError;

use super::batch::{Batch, Manner, Received, deliver, fail, is_read_only};
use super::connection::{broken, no_reply};
use super::errors::{TooLarge, copy};
use super::sentinel::Registration;
use super::transport::Transport;
use super::upstream::{DOUBTFUL_AFTER, Failure, Upstream};
use crate::pipeline::operation::{Channel, Progress, Ready, RemoteClock, Waiting, Wake};
use crate::{Error, ErrorKind, Result};

/// How many operations and bytes one pipeline has at most: its replies are believed when the last one is there, and a
/// large session is not to hold up more small ones than these.
const BATCH: usize = 128;
const BATCH_BYTES: usize = 64 * 1024;

/// How many operations and bytes are in flight at most; past it others wait, in order.
const IN_FLIGHT: usize = 1024;
const IN_FLIGHT_BYTES: usize = 1024 * 1024;

/// How much is read at a time, and how large a buffer an idle connection keeps.
const READ: usize = 64 * 1024;

/// How long a connection that is too old goes on where no other could be made.
const RENEWED_AGAIN_AFTER: Duration = Duration::from_secs(1);

pub(super) struct RedisChannel {
    upstream: Arc<Upstream>,
    /// Gone when nobody can submit any more.
    pool: Weak<dyn Any + Send + Sync>,
    manner: Manner,
    wake: Wake,
    /// Has the loop woken when a failover begins or ends.
    _woken: Option<Registration>,
    state: State,
    renewal: Renewal,
    /// Submitted and not sent.
    queue: VecDeque<Queued>,
    /// The same, and not to be sent before a failover is over: they write.
    held: VecDeque<Queued>,
    /// Sent, the oldest first.
    in_flight: VecDeque<Flight>,
    /// How many operations and bytes these are.
    operations: usize,
    bytes: usize,
    /// How many connections there have been.
    number: u64,
    /// Whether the breaker has let those pass that wait for this connection.
    entered: bool,
}

enum State {
    Disconnected,
    /// A thread connects; nobody waits for it any longer than until then.
    Connecting(Receiver<Result<Connected>>, Instant),
    Connected(Box<Connected>),
}

/// What is to take the place of a connection that is too old.
enum Renewal {
    None,
    Connecting(Receiver<Result<Connected>>),
    /// It is there, and takes over once all that is in flight is answered.
    Ready(Box<Connected>),
}

/// A connection that has been made and introduced.
pub(super) struct Connected {
    pub(super) transport: Transport,
    pub(super) clock: Option<RemoteClock>,
    pub(super) generation: u64,
    /// When another one is to take its place.
    renew_at: Option<Instant>,
    out: Vec<u8>,
    sent: usize,
    /// What has been received and not understood is the first `filled` bytes; the rest is room.
    received: Vec<u8>,
    filled: usize,
    /// Whether the socket may have more to read, or take more.
    readable: bool,
    writable: bool,
    /// Whether the server sends no more: everything is read up to the end then, as no other event tells.
    ended: bool,
    /// Whether anything has been answered over it, and when that was the last time.
    used: bool,
    answered: Instant,
}

struct Queued {
    ticket: usize,
    waiting: Box<dyn Waiting>,
    /// When it gives up waiting to be sent.
    until: Instant,
    repeated: bool,
}

/// A pipeline on its way.
struct Flight {
    batch: Batch,
    operations: Vec<Queued>,
    deadline: Instant,
}

/// How much longer than the thread that connects the loop waits for it: that one knows better what went wrong.
const GRACE: Duration = Duration::from_millis(50);

struct WakesAtTheEnd(Wake);

impl Drop for WakesAtTheEnd {
    fn drop(&mut self) {
        (self.0)();
    }
}

type Done = Vec<(usize, Box<dyn Waiting>)>;

impl Connected {
    pub(super) fn new(
        transport: Transport,
        clock: Option<RemoteClock>,
        generation: u64,
        renew_at: Option<Instant>,
    ) -> Connected {
        Connected {
            transport,
            clock,
            generation,
            renew_at,
            out: Vec::new(),
            sent: 0,
            received: Vec::new(),
            filled: 0,
            readable: true,
            writable: true,
            ended: false,
            used: false,
            answered: Instant::now(),
        }
    }

    fn now(&self, now: Instant) -> SystemTime {
        self.clock.map_or_else(SystemTime::now, |clock| clock.now(now))
    }

    /// Sends what the socket takes.
    fn send(&mut self) -> std::io::Result<()> {
        while self.writable && self.sent < self.out.len() {
            match self.transport.write(&self.out[self.sent..]) {
                Ok(0) => return Err(IoErrorKind::WriteZero.into()),
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == IoErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == IoErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.sent == self.out.len() {
            self.out.clear();
            self.out.shrink_to(READ);
            self.sent = 0;
        }
        // TLS may hold some of it back.
        match self.transport.flush() {
            Err(error) if error.kind() == IoErrorKind::WouldBlock => self.writable = false,
            flushed => flushed?,
        }
        Ok(())
    }

    /// Receives what is there.
    fn receive(&mut self) -> std::io::Result<()> {
        while self.readable {
            if self.received.len() < self.filled + READ / 2 {
                self.received.resize(self.filled + READ, 0);
            }
            let room = &mut self.received[self.filled..];
            let size = room.len();
            match self.transport.read(room) {
                Ok(0) => return Err(IoErrorKind::UnexpectedEof.into()),
                // A read that does not fill the buffer has emptied the socket; what TLS has decrypted comes record by
                // record.
                Ok(count) => {
                    self.filled += count;
                    self.readable = count == size || self.ended || self.transport.is_tls();
                }
                Err(error) if error.kind() == IoErrorKind::WouldBlock => self.readable = false,
                Err(error) if error.kind() == IoErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl RedisChannel {
    pub(super) fn new(
        upstream: Arc<Upstream>,
        pool: Weak<dyn Any + Send + Sync>,
        manner: Manner,
        wake: Wake,
    ) -> RedisChannel {
        let woken = wake.clone();
        let woken = upstream.watch.as_ref().map(|watch| watch.observe(move |_| woken()));
        RedisChannel {
            upstream,
            pool,
            manner,
            wake,
            _woken: woken,
            state: State::Disconnected,
            renewal: Renewal::None,
            queue: VecDeque::new(),
            held: VecDeque::new(),
            in_flight: VecDeque::new(),
            operations: 0,
            bytes: 0,
            number: 0,
            entered: false,
        }
    }

    /// How long an operation may wait to be sent, connecting included.
    fn patience(&self) -> Duration {
        let config = &self.upstream.config;
        config.connect_timeout.saturating_add(config.operation_timeout)
    }

    /// Takes note of a connection that has come about, or has not.
    fn connect(&mut self, now: Instant, done: &mut Done) {
        let State::Connecting(connecting, until) = &self.state else { return };
        let connected = match connecting.try_recv() {
            Err(TryRecvError::Empty) if now < *until => return,
            // A name that is not resolved, or a unix socket whose queue is full, has no deadline of its own.
            Err(TryRecvError::Empty) => {
                let (config, time) = (&self.upstream.config, self.upstream.config.connect_timeout);
                let text = format!("{config}: no connection within {time:?}");
                Err(Error::new(ErrorKind::Unavailable, text))
            }
            Err(TryRecvError::Disconnected) => {
                Err(Error::new(ErrorKind::Unavailable, "connecting to Redis panicked"))
            }
            Ok(connected) => connected,
        };
        match connected {
            Ok(connected) => {
                self.number += 1;
                self.entered = true;
                self.state = State::Connected(Box::new(connected));
            }
            Err(error) => {
                self.state = State::Disconnected;
                self.upstream.down(&error);
                self.fail_queue(&error, done);
            }
        }
    }

    /// Sends and receives, and hands the replies that are whole to their operations.
    fn exchange(&mut self, now: Instant, done: &mut Done) {
        let State::Connected(connected) = &mut self.state else { return };
        let moved = connected.receive().and_then(|()| connected.send());
        if !self.in_flight.is_empty() {
            // What the sentinels have said by now goes before what the master says.
            self.upstream.attend();
            self.leave(now, done);
        }
        // What came before the end is good.
        if let Err(error) = self.understand(now, done) {
            return self.lose(&error, now, done);
        }
        if let Err(error) = moved {
            self.lose(&RedisError::from(error), now, done);
        }
    }

    fn understand(&mut self, now: Instant, done: &mut Done) -> std::result::Result<(), RedisError> {
        let mut start = 0;
        let (mut in_step, patience) = (true, self.patience());
        let is_held = self.upstream.is_held();
        loop {
            let State::Connected(connected) = &mut self.state else { return Ok(()) };
            let received = &connected.received[start..connected.filled];
            if received.is_empty() {
                break;
            }
            let max = self.upstream.config.max_reply;
            let Some(flight) = self.in_flight.front_mut() else { return Err(no_reply()) };
            let clock = match flight.batch.receive(received, max, now).map_err(broken)? {
                Received::Incomplete => break,
                Received::InStep(told) => {
                    connected.clock = told.or(connected.clock);
                    Ok(connected.now(now))
                }
                Received::Refused(error) => Err(error),
            };
            (connected.used, connected.answered) = (true, now);
            let Some(Flight { batch, operations, .. }) = self.in_flight.pop_front() else { break };
            self.operations -= operations.len();
            self.bytes -= batch.bytes.len();
            self.upstream.answered();
            if batch.is_replica() {
                self.upstream.condemn(connected.generation);
            }
            let shortfall = self.upstream.shortfall(&batch);
            for (number, mut queued) in operations.into_iter().enumerate() {
                let writes = batch.writes(number);
                if writes && is_held {
                    // Perhaps no replica has heard of it.
                    match batch.is_repeatable(number) && !queued.repeated {
                        true => {
                            queued.repeated = true;
                            self.held.push_back(queued);
                        }
                        false => {
                            fail(&mut *queued.waiting, self.upstream.overtaken());
                            done.push((queued.ticket, queued.waiting));
                        }
                    }
                    continue;
                }
                let progress = match &clock {
                    Ok(_) if writes && let Some(error) = &shortfall => {
                        fail(&mut *queued.waiting, copy(error));
                        Progress::Done
                    }
                    Ok(clock) => {
                        let answer = batch.answer(number, received, *clock);
                        deliver(&mut *queued.waiting, answer)
                    }
                    Err(error) => {
                        fail(&mut *queued.waiting, copy(error));
                        Progress::Done
                    }
                };
                if progress == Progress::Again {
                    queued.until = now + patience;
                    queued.repeated = false;
                    self.queue.push_back(queued);
                } else {
                    in_step &= progress == Progress::Done;
                    done.push((queued.ticket, queued.waiting));
                }
            }
            start += batch.received_len();
        }
        if let State::Connected(connected) = &mut self.state {
            connected.received.copy_within(start..connected.filled, 0);
            connected.filled -= start;
            if connected.filled == 0 && connected.received.len() > READ {
                connected.received = Vec::new();
            }
        }
        if in_step { Ok(()) } else { Err(no_reply()) }
    }

    /// Closes the connection, for this reason.
    fn lose(&mut self, error: &RedisError, now: Instant, done: &mut Done) {
        let State::Connected(connected) = std::mem::replace(&mut self.state, State::Disconnected)
        else {
            return;
        };
        // One that was closed while nobody used it is no news.
        let is_unexpected = !connected.used && !self.queue.is_empty();
        let dropped = !error.is_timeout() && error.is_connection_dropped();
        if self.in_flight.is_empty() && dropped && !is_unexpected {
            return;
        }
        let too_large = TooLarge::of(error).is_some();
        let (error, may_repeat) = match self.upstream.failure(error, connected.used) {
            Failure::Stale(error) => (error, true),
            Failure::Other(error) => (error, false),
        };
        self.end_flights(&error, may_repeat, too_large, now, done);
    }

    /// Closes the connection where it leads to another server than the master: what is in flight counts as cut, its
    /// replies included that have come.
    fn leave(&mut self, now: Instant, done: &mut Done) {
        let State::Connected(connected) = &self.state else { return };
        if self.upstream.is_cut(connected.generation) {
            self.state = State::Disconnected;
            let error = self.upstream.overtaken();
            self.end_flights(&error, true, false, now, done);
        }
    }

    /// Sends what was in flight once more, where it may be, and fails the rest for this reason.
    fn end_flights(
        &mut self,
        error: &Error,
        may_repeat: bool,
        too_large: bool,
        now: Instant,
        done: &mut Done,
    ) {
        (self.operations, self.bytes) = (0, 0);
        let mut again = Vec::new();
        for (at, flight) in std::mem::take(&mut self.in_flight).into_iter().enumerate() {
            let Flight { batch, operations, deadline } = flight;
            // Whose reply was too large for any session: the others are not to blame.
            let culprit = (at == 0 && too_large).then(|| batch.current());
            for (number, mut queued) in operations.into_iter().enumerate() {
                let is_late = deadline <= now;
                let innocent = too_large && culprit != Some(number);
                let repeats = (may_repeat || !is_late) && (innocent || !queued.repeated);
                if repeats && culprit != Some(number) && batch.is_repeatable(number) {
                    queued.repeated |= !innocent;
                    again.push(queued);
                } else {
                    fail(&mut *queued.waiting, copy(error));
                    done.push((queued.ticket, queued.waiting));
                }
            }
        }
        again.into_iter().rev().for_each(|queued| self.queue.push_front(queued));
    }

    /// Gives up what has waited for too long.
    fn expire(&mut self, now: Instant, done: &mut Done) {
        let late = self.in_flight.front().filter(|flight| flight.deadline <= now);
        if late.is_some_and(|flight| flight.batch.awaits_replicas()) {
            // What comes later is nobody's.
            self.state = State::Disconnected;
            let error = self.upstream.too_few_replicas(None);
            self.end_flights(&error, false, false, now, done);
        } else if late.is_some() {
            self.lose(&RedisError::from(std::io::Error::from(IoErrorKind::TimedOut)), now, done);
        }
        let patience = self.patience();
        while self.queue.front().is_some_and(|queued| queued.until <= now) {
            let Some(mut queued) = self.queue.pop_front() else { break };
            let text = format!("{}: no connection was free in {patience:?}", self.upstream.config);
            fail(&mut *queued.waiting, Error::new(ErrorKind::Unavailable, text));
            done.push((queued.ticket, queued.waiting));
        }
        // What was in flight before has waited for longer than what is in front of it.
        if self.held.iter().any(|queued| queued.until <= now) {
            let (late, held) = { self.held.drain(..) }.partition(|queued| queued.until <= now);
            self.held = held;
            for mut queued in VecDeque::into_iter(late) {
                fail(&mut *queued.waiting, self.upstream.held());
                done.push((queued.ticket, queued.waiting));
            }
        }
    }

    /// Lets those go on that have waited for the end of a failover.
    fn release_held(&mut self) {
        if !self.held.is_empty() && !self.upstream.is_held() {
            self.held.append(&mut self.queue);
            std::mem::swap(&mut self.held, &mut self.queue);
        }
    }

    /// Sends what was submitted, as far as there is room in flight, and connects where that is needed.
    fn start(&mut self, now: Instant, done: &mut Done) {
        if self.queue.is_empty() {
            return;
        }
        if let State::Connected(connected) = &self.state {
            let condemned = self.upstream.is_condemned(connected.generation);
            let doubtful = connected.answered + DOUBTFUL_AFTER <= now;
            match self.in_flight.is_empty() {
                true if condemned || doubtful => self.state = State::Disconnected,
                // What is in flight is still answered.
                false if condemned => return,
                _ => {}
            }
        }
        if self.renew(now) {
            return;
        }
        if !matches!(self.state, State::Connecting(..)) {
            // While one pipeline tries, others fail at once.
            let entered = std::mem::take(&mut self.entered) || !self.in_flight.is_empty();
            let entered = match entered {
                true => self.upstream.breaker.while_open(now),
                false => self.upstream.breaker.enter(now, self.patience()),
            };
            if let Err(error) = entered {
                return self.fail_queue(&error, done);
            }
        }
        match &self.state {
            State::Disconnected => self.begin_to_connect(now, done),
            State::Connecting(..) => {
                if let Err(error) = self.upstream.breaker.while_open(now) {
                    self.fail_queue(&error, done);
                }
            }
            State::Connected(_) => {
                while self.fill(now, done) {}
                self.exchange_out(now, done);
            }
        }
    }

    fn exchange_out(&mut self, now: Instant, done: &mut Done) {
        let State::Connected(connected) = &mut self.state else { return };
        if let Err(error) = connected.send() {
            self.lose(&RedisError::from(error), now, done);
        }
    }

    /// Makes one more pipeline of what was submitted; false where there is nothing, or no room.
    fn fill(&mut self, now: Instant, done: &mut Done) -> bool {
        let State::Connected(connected) = &mut self.state else { return false };
        // Behind one that waits for replicas, the next one would lose its time.
        let waits = self.manner.replicas > 0;
        let room = match waits {
            true => self.in_flight.is_empty(),
            false => self.operations < IN_FLIGHT && self.bytes < IN_FLIGHT_BYTES,
        };
        if self.queue.is_empty() || !room {
            return false;
        }
        let (most, most_bytes) = match waits {
            true => (IN_FLIGHT, IN_FLIGHT_BYTES),
            false => (BATCH, BATCH_BYTES),
        };
        self.upstream.attend();
        if self.upstream.is_cut(connected.generation) {
            // What is submitted goes to the new master.
            self.leave(now, done);
            return false;
        }
        let clock = connected.now(now);
        let is_held = self.upstream.is_held();
        let mut batch = Batch::new(self.manner);
        let mut operations = Vec::with_capacity(self.queue.len().min(most));
        while batch.len() < most
            && batch.bytes.len() < most_bytes
            && let Some(mut queued) = self.queue.pop_front()
        {
            if is_held && !is_read_only(&mut *queued.waiting) {
                self.held.push_back(queued);
                continue;
            }
            if batch.push(&mut *queued.waiting, clock, false) {
                operations.push(queued);
            } else {
                done.push((queued.ticket, queued.waiting));
            }
        }
        if operations.is_empty() {
            return true;
        }
        batch.seal(connected.clock, now, self.upstream.config.operation_timeout);
        connected.out.extend_from_slice(&batch.bytes);
        self.operations += operations.len();
        self.bytes += batch.bytes.len();
        let deadline = now + self.upstream.config.operation_timeout;
        self.in_flight.push_back(Flight { batch, operations, deadline });
        true
    }

    /// Puts another connection in the place of one that is too old, once it is there. Whether nothing is to be sent
    /// before, as what is in flight is to be answered first.
    fn renew(&mut self, now: Instant) -> bool {
        let State::Connected(connected) = &mut self.state else {
            self.renewal = Renewal::None;
            return false;
        };
        if let Renewal::Connecting(made) = &self.renewal {
            match made.try_recv() {
                Err(TryRecvError::Empty) => {}
                Ok(Ok(made)) => self.renewal = Renewal::Ready(Box::new(made)),
                // The old one does for a while.
                Ok(Err(_)) | Err(TryRecvError::Disconnected) => self.renewal = Renewal::None,
            }
        }
        match std::mem::replace(&mut self.renewal, Renewal::None) {
            Renewal::None if connected.renew_at.is_some_and(|at| at <= now) => {
                connected.renew_at = Some(now + RENEWED_AGAIN_AFTER);
                if let Ok(made) = self.connecting() {
                    self.renewal = Renewal::Connecting(made);
                }
            }
            Renewal::Ready(made) if self.in_flight.is_empty() => {
                self.number += 1;
                self.state = State::Connected(made);
            }
            renewal => self.renewal = renewal,
        }
        matches!(self.renewal, Renewal::Ready(_))
    }

    fn connecting(&self) -> std::io::Result<Receiver<Result<Connected>>> {
        let (give, connected) = channel();
        let (upstream, wake) = (self.upstream.clone(), self.wake.clone());
        let connect = move || {
            // Also where it panics.
            let _wakes = WakesAtTheEnd(wake);
            // Nobody waits any more where the loop has ended.
            let _ = give.send(upstream.connect_channel());
        };
        let thread = std::thread::Builder::new().name("redis-connect".to_owned());
        thread.spawn(connect)?;
        Ok(connected)
    }

    fn begin_to_connect(&mut self, now: Instant, done: &mut Done) {
        match self.connecting() {
            Ok(connected) => {
                let until = now + self.upstream.config.connect_timeout + GRACE;
                self.state = State::Connecting(connected, until);
            }
            Err(error) => {
                let text = format!("no thread to connect to {}: {error}", self.upstream.config);
                self.fail_queue(&Error::new(ErrorKind::Unavailable, text), done);
            }
        }
    }

    fn fail_queue(&mut self, error: &Error, done: &mut Done) {
        for mut queued in self.queue.drain(..) {
            fail(&mut *queued.waiting, copy(error));
            done.push((queued.ticket, queued.waiting));
        }
    }
}

impl Channel for RedisChannel {
    fn submit(&mut self, ticket: usize, waiting: Box<dyn Waiting>, now: Instant) {
        let until = now + self.patience();
        self.queue.push_back(Queued { ticket, waiting, until, repeated: false });
    }

    fn ready(&mut self, ready: Ready) {
        if let State::Connected(connected) = &mut self.state {
            connected.ended |= ready.ended;
            connected.readable |= ready.readable || ready.ended;
            connected.writable |= ready.writable;
        }
    }

    fn is_forgotten(&self) -> bool {
        self.queue.is_empty()
            && self.held.is_empty()
            && self.in_flight.is_empty()
            && self.pool.strong_count() == 0
    }

    fn drive(&mut self, now: Instant, done: &mut Done) {
        self.connect(now, done);
        self.leave(now, done);
        self.release_held();
        if let State::Connected(connected) = &mut self.state
            && self.in_flight.front().is_some_and(|flight| flight.deadline <= now)
        {
            // The loop may have been busy, and the replies been there all the time.
            connected.readable = true;
        }
        self.exchange(now, done);
        self.expire(now, done);
        self.release_held();
        self.start(now, done);
        if matches!(self.state, State::Disconnected) {
            // Lost while it was written to: what may be repeated waits for a new one.
            self.start(now, done);
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let oldest = self.in_flight.front().map(|flight| flight.deadline);
        let first = self.queue.front().into_iter().chain(&self.held);
        let first = first.map(|queued| queued.until).min();
        let connecting = match &self.state {
            State::Connecting(_, until) => Some(*until),
            _ => None,
        };
        oldest.into_iter().chain(first).chain(connecting).min()
    }

    fn socket(&self) -> Option<(RawFd, u64)> {
        match &self.state {
            State::Connected(connected) => Some((connected.transport.fd(), self.number)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::breaker::BreakerState;
    use super::super::config::{Address, RedisConfig};
    use super::super::connection::Connection;
    use super::super::failover::Announced;
    use super::super::pool::RedisPool;
    use super::super::scripted::{Ask, Does, answers, serve};
    use super::*;
    use crate::pipeline::operation::{Answer, Operation, Round};
    use crate::pipeline::plugin::Entry;

    const READY: Ready = Ready { readable: true, writable: true, ended: false };

    /// An operation that tells its outcome.
    struct Told(Ask, std::sync::mpsc::Sender<std::result::Result<String, Error>>);

    impl Operation for Told {
        fn request(&mut self, round: &mut Round<'_>) {
            self.0.request(round);
        }
        fn answer(&mut self, answer: Answer<'_>) -> Progress {
            self.0.answer(answer)
        }
        fn fail(&mut self, error: Error) {
            self.0.fail(error);
        }
    }

    impl Waiting for Told {
        fn finish(self: Box<Self>, _: &mut Entry<'_>) {}
    }

    impl Drop for Told {
        fn drop(&mut self) {
            let _ = self.1.send(self.0.reply.take().expect("an outcome"));
        }
    }

    struct Stage {
        pool: RedisPool,
        channel: RedisChannel,
        done: Done,
    }

    fn stage(answer: impl Fn(&[String]) -> Does + Send + Sync + 'static) -> Stage {
        stage_with(Duration::from_secs(60), answer)
    }

    fn stage_with(
        operation_timeout: Duration,
        answer: impl Fn(&[String]) -> Does + Send + Sync + 'static,
    ) -> Stage {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        serve(listener, answer);
        at(port, operation_timeout)
    }

    fn at(port: u16, operation_timeout: Duration) -> Stage {
        let config = RedisConfig::default()
            .host("127.0.0.1")
            .port(port)
            .connect_timeout(Duration::from_secs(60))
            .operation_timeout(operation_timeout);
        let pool = RedisPool::new(config).unwrap();
        let channel = {
            let (upstream, manner) = (pool.upstream().clone(), Manner::default());
            RedisChannel::new(upstream, pool.weak(), manner, Arc::new(|| ()))
        };
        Stage { pool, channel, done: Vec::new() }
    }

    impl Stage {
        /// Submits these commands in one turn and drives the channel until all are over.
        fn ask(&mut self, commands: &[(&str, bool)]) -> Vec<std::result::Result<String, String>> {
            let outcomes: Vec<_> = commands
                .iter()
                .enumerate()
                .map(|(ticket, (words, repeatable))| {
                    let (tell, told) = std::sync::mpsc::channel();
                    let waiting = Box::new(Told(Ask::new(words, *repeatable), tell));
                    self.channel.submit(ticket, waiting, Instant::now());
                    told
                })
                .collect();
            let mut over = 0;
            while over < commands.len() {
                self.channel.ready(READY);
                self.channel.drive(Instant::now(), &mut self.done);
                over += self.done.len();
                self.done.clear();
                std::thread::sleep(Duration::from_micros(200));
            }
            let outcome = |told: std::sync::mpsc::Receiver<_>| told.recv().unwrap();
            outcomes
                .into_iter()
                .map(|told| outcome(told).map_err(|error: Error| error.to_string()))
                .collect()
        }
    }

    #[test]
    fn what_one_turn_submits_is_answered_in_order() {
        let mut stage = stage(|words| answers(&format!("+{}\r\n", words[1])));
        let commands: Vec<String> = (0..500).map(|number| format!("GET {number}")).collect();
        let commands: Vec<_> = commands.iter().map(|command| (command.as_str(), true)).collect();
        for _ in 0..3 {
            for (number, reply) in stage.ask(&commands).into_iter().enumerate() {
                assert_eq!(reply, Ok(format!("+{number}\r\n")));
            }
        }
        assert_eq!(stage.channel.number, 1, "one connection");
        assert_eq!((stage.channel.operations, stage.channel.bytes), (0, 0));
    }

    #[test]
    fn what_was_in_flight_on_a_connection_that_is_cut_is_sent_once_more_if_it_may_be() {
        let cuts = Arc::new(AtomicUsize::new(0));
        let left = cuts.clone();
        let mut stage = stage(move |words| {
            let cut = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
            match cut {
                Ok(_) => Does::Closes,
                Err(_) => answers(&format!("+{}\r\n", words[1])),
            }
        });
        assert_eq!(stage.ask(&[("GET a", true)]), [Ok("+a\r\n".to_owned())]);
        cuts.store(1, Ordering::SeqCst);
        let outcome = stage.ask(&[("GET a", true), ("SET b", false)]);
        assert_eq!(outcome[0], Ok("+a\r\n".to_owned()));
        let error = outcome[1].as_ref().unwrap_err();
        assert!(error.contains("end of file") || error.contains("reset"), "{error}");
        // Twice in a row is once too often for the operation, and no proof that Redis is down.
        cuts.store(2, Ordering::SeqCst);
        assert!(stage.ask(&[("GET a", true)])[0].is_err());
        assert_eq!(stage.pool.breaker(), BreakerState::Closed);
        assert_eq!(stage.ask(&[("GET a", true)]), [Ok("+a\r\n".to_owned())]);
    }

    #[test]
    fn what_timed_out_is_not_sent_again_and_opens_the_breaker() {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        serve(listener, move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            Does::Hangs
        });
        let mut stage = at(port, Duration::from_millis(300));
        let error = stage.ask(&[("GET a", true)])[0].clone().unwrap_err();
        assert!(error.contains("no reply within 300ms"), "{error}");
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        assert_eq!(stage.pool.breaker(), BreakerState::Open);
        // While it is open, others fail at once, and nothing is asked.
        let error = stage.ask(&[("GET a", true)])[0].clone().unwrap_err();
        assert!(error.contains("failing at once"), "{error}");
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn replicas_that_do_not_answer_are_no_proof_that_redis_is_down() {
        let mut stage = stage_with(Duration::from_millis(300), |words| match words[0].as_str() {
            "WAIT" => Does::Hangs,
            _ => answers("+fine\r\n"),
        });
        stage.channel.manner.replicas = 2;
        let error = stage.ask(&[("SET a", false)])[0].clone().unwrap_err();
        assert!(error.contains("replicas had what was written within 300ms"), "{error}");
        assert_eq!(stage.pool.breaker(), BreakerState::Closed);
        // One that does not even answer the write itself is down.
        let mut stage = stage_with(Duration::from_millis(300), |_| Does::Hangs);
        stage.channel.manner.replicas = 2;
        let error = stage.ask(&[("SET a", false)])[0].clone().unwrap_err();
        assert!(error.contains("no reply within 300ms"), "{error}");
        assert_eq!(stage.pool.breaker(), BreakerState::Open);
    }

    #[test]
    fn replies_that_nobody_asked_for_close_the_connection() {
        let mut stage = stage(|words| match words[0].as_str() {
            "TWICE" => answers("+one\r\n+two\r\n"),
            _ => answers("+fine\r\n"),
        });
        assert!(stage.ask(&[("TWICE", true)])[0].is_err());
        assert_eq!(stage.ask(&[("GET a", true)]), [Ok("+fine\r\n".to_owned())]);
        assert!(stage.channel.number > 1, "a new connection");
    }

    #[test]
    fn nobody_there_fails_all_that_wait_and_opens_the_breaker() {
        let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut stage = at(gone, Duration::from_secs(60));
        for outcome in stage.ask(&[("GET a", true), ("SET b", false)]) {
            assert!(outcome.unwrap_err().contains("refused"));
        }
        assert_eq!(stage.pool.breaker(), BreakerState::Open);
    }

    #[test]
    fn a_server_that_closes_an_idle_connection_fails_nobody() {
        let mut stage = stage(|words| match words[0].as_str() {
            "LAST" => Does::Answers(b"+bye\r\n".to_vec()),
            _ => answers("+fine\r\n"),
        });
        assert_eq!(stage.ask(&[("LAST", false)]), [Ok("+bye\r\n".to_owned())]);
        let State::Connected(connected) = &mut stage.channel.state else { panic!("connected") };
        // As if the server had closed it.
        connected.transport.shut_down();
        stage.channel.ready(READY);
        stage.channel.drive(Instant::now(), &mut stage.done);
        assert!(stage.channel.socket().is_none());
        assert_eq!(stage.ask(&[("SET a", false)]), [Ok("+fine\r\n".to_owned())]);
    }

    #[test]
    fn a_connection_that_may_be_dead_or_leads_to_a_replica_is_replaced() {
        let mut stage = stage(|words| match words[0].as_str() {
            "WRITE" => answers("-READONLY You can't write against a read only replica.\r\n"),
            _ => answers("+fine\r\n"),
        });
        assert_eq!(stage.ask(&[("GET a", true)]), [Ok("+fine\r\n".to_owned())]);
        let State::Connected(connected) = &mut stage.channel.state else { panic!("connected") };
        connected.answered -= DOUBTFUL_AFTER;
        assert_eq!(stage.ask(&[("SET a", false)]), [Ok("+fine\r\n".to_owned())]);
        assert_eq!(stage.channel.number, 2);
        let outcome = stage.ask(&[("WRITE a", false), ("GET a", true)]);
        assert!(outcome[0].as_ref().unwrap().starts_with("-READONLY"));
        assert_eq!(stage.ask(&[("GET a", true)]), [Ok("+fine\r\n".to_owned())]);
        assert_eq!(stage.channel.number, 3);
    }

    #[test]
    fn nothing_is_written_to_a_master_that_is_none_any_more() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        serve(listener, |_| answers("+fine\r\n"));
        let config = RedisConfig::default().connect_timeout(Duration::from_secs(60));
        let pool = RedisPool::sentinel(["redis://127.0.0.1:1"], "sessions", config).unwrap();
        let (upstream, manner) = (pool.upstream().clone(), Manner::default());
        let address = Address::Tcp { host: "127.0.0.1".to_owned(), port, tls: false };
        let deadline = Instant::now() + Duration::from_secs(60);
        let made = Connection::connect(&upstream.config, &address, &upstream.trust, 0, deadline);
        let mut channel = RedisChannel::new(upstream.clone(), pool.weak(), manner, Arc::new(|| ()));
        channel.state = State::Connected(Box::new(made.unwrap().into_channel().unwrap()));
        let (tell, told) = std::sync::mpsc::channel();
        let waiting = Box::new(Told(Ask::new("SET a", false), tell));
        channel.submit(0, waiting, Instant::now());
        // After the turn began, which looked.
        let node = |port| ("127.0.0.1".to_owned(), port);
        let switched = Announced::Switched(node(port), node(port + 1));
        upstream.watch.as_ref().unwrap().announced(0, &switched);
        let mut done = Vec::new();
        assert!(!channel.fill(Instant::now(), &mut done));
        assert!(channel.in_flight.is_empty() && matches!(channel.state, State::Disconnected));
        assert_eq!((channel.queue.len(), done.len()), (1, 0), "it goes to the new master");
        channel.fail_queue(&upstream.held(), &mut done);
        done.clear();
        assert!(told.recv().unwrap().is_err());
    }

    #[test]
    fn who_has_waited_for_a_failover_for_too_long_fails_wherever_it_stands() {
        let mut stage = stage(|_| answers("+fine\r\n"));
        let (tell, told) = std::sync::mpsc::channel();
        let now = Instant::now();
        for (ticket, seconds) in [(0, 9), (1, 1), (2, 5)] {
            let waiting = Box::new(Told(Ask::new("SET a", true), tell.clone()));
            let until = now + Duration::from_secs(seconds);
            stage.channel.held.push_back(Queued { ticket, waiting, until, repeated: false });
        }
        for (seconds, ticket) in [(1, 1), (5, 2), (9, 0)] {
            let at = now + Duration::from_secs(seconds);
            assert_eq!(stage.channel.deadline(), Some(at));
            stage.channel.expire(at, &mut stage.done);
            assert!(stage.done.iter().map(|done| done.0).eq([ticket]));
            stage.done.clear();
            let error = told.recv().unwrap().unwrap_err().to_string();
            assert!(error.ends_with("a failover is under way, nothing was written"), "{error}");
        }
    }

    #[test]
    fn what_is_past_the_room_in_flight_waits_in_order() {
        let (let_go, gate) = std::sync::mpsc::channel::<()>();
        let gate = std::sync::Mutex::new(gate);
        let mut stage = stage(move |words| {
            if words[0] == "HOLD" {
                gate.lock().unwrap().recv().unwrap();
            }
            answers(&format!("+{}\r\n", words[1]))
        });
        assert_eq!(stage.ask(&[("GET a", true)]), [Ok("+a\r\n".to_owned())]);
        let (tell, told) = std::sync::mpsc::channel();
        for ticket in 0..2 * IN_FLIGHT {
            let words = if ticket == 0 { "HOLD 0".to_owned() } else { format!("GET {ticket}") };
            let waiting = Box::new(Told(Ask::new(&words, true), tell.clone()));
            stage.channel.submit(ticket, waiting, Instant::now());
        }
        stage.channel.drive(Instant::now(), &mut stage.done);
        assert!((IN_FLIGHT..IN_FLIGHT + BATCH).contains(&stage.channel.operations));
        assert!(stage.channel.queue.len() >= IN_FLIGHT - BATCH);
        let_go.send(()).unwrap();
        while stage.done.len() < 2 * IN_FLIGHT {
            stage.channel.ready(READY);
            stage.channel.drive(Instant::now(), &mut stage.done);
            std::thread::yield_now();
        }
        assert!(stage.done.iter().map(|done| done.0).eq(0..2 * IN_FLIGHT));
        stage.done.clear();
        drop(tell);
        assert!(told.iter().enumerate().all(|(n, reply)| reply.unwrap() == format!("+{n}\r\n")));
    }
}
