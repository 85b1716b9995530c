//! The connection to Redis that an event loop owns: pipelined, and never waited for.
//!
//! What one iteration of the loop submitted goes out as one pipeline; several are in flight at once. A thread of its own
//! connects, as names, sentinels and TLS handshakes block. A connection that errs, stalls or is out of step is closed:
//! operations that were in flight are sent once more on a new one where they may be repeated, the others fail. What
//! timed out is never repeated.

mod connection;
mod in_flight;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use ::redis::RedisError;

pub(super) use self::connection::Connected;
use self::in_flight::InFlightBatch;
use super::batch::{BatchOptions, fail};
use super::errors::copy;
use super::sentinel::ObserverGuard;
use super::upstream::{CHECK_AFTER_IDLE, Upstream};
use crate::pipeline::operation::{Channel, Ready, Waiting, Wake};
use crate::{Error, ErrorKind, Result};

/// How long a connection that is too old goes on where no other could be made.
const RENEWED_AGAIN_AFTER: Duration = Duration::from_secs(1);

pub(super) struct RedisChannel {
    upstream: Arc<Upstream>,
    /// Gone when nobody can submit any more.
    pool: Weak<dyn Any + Send + Sync>,
    options: BatchOptions,
    wake: Wake,
    /// Has the loop woken when a failover begins or ends.
    _woken: Option<ObserverGuard>,
    state: State,
    renewal: Renewal,
    /// Submitted and not sent.
    queue: VecDeque<Queued>,
    /// The same, and not to be sent before a failover is over: they write.
    held: VecDeque<Queued>,
    /// Sent, the oldest first.
    in_flight: VecDeque<InFlightBatch>,
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

struct Queued {
    ticket: usize,
    waiting: Box<dyn Waiting>,
    /// When it gives up waiting to be sent.
    until: Instant,
    repeated: bool,
}

/// How much longer the event loop waits than the thread that connects may take, so that the error of that thread is reported.
const CONNECT_GRACE: Duration = Duration::from_millis(50);

struct WakeOnDrop(Wake);

impl Drop for WakeOnDrop {
    fn drop(&mut self) {
        (self.0)();
    }
}

type Done = Vec<(usize, Box<dyn Waiting>)>;

impl RedisChannel {
    pub(super) fn new(
        upstream: Arc<Upstream>,
        pool: Weak<dyn Any + Send + Sync>,
        options: BatchOptions,
        wake: Wake,
    ) -> RedisChannel {
        let woken = wake.clone();
        let woken = upstream.monitor.as_ref().map(|monitor| monitor.observe(move |_| woken()));
        RedisChannel {
            upstream,
            pool,
            options,
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
    fn timeout(&self) -> Duration {
        let config = &self.upstream.config;
        config.connect_timeout.saturating_add(config.operation_timeout)
    }

    /// Takes the new connection, or the error, from the thread that connects.
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
            self.upstream.read_announcements();
            self.drop_if_fenced(now, done);
        }
        // What came before the end is good.
        if let Err(error) = self.read_replies(now, done) {
            return self.close(&error, now, done);
        }
        if let Err(error) = moved {
            self.close(&RedisError::from(error), now, done);
        }
    }

    /// Sends the operations that have waited for the end of a failover.
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
            let retired = self.upstream.is_retired(connected.generation);
            let doubtful = connected.answered + CHECK_AFTER_IDLE <= now;
            match self.in_flight.is_empty() {
                true if retired || doubtful => self.state = State::Disconnected,
                // What is in flight is still answered.
                false if retired => return,
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
                false => self.upstream.breaker.enter(now, self.timeout()),
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
                while self.send_next(now, done) {}
                self.exchange_out(now, done);
            }
        }
    }

    fn exchange_out(&mut self, now: Instant, done: &mut Done) {
        let State::Connected(connected) = &mut self.state else { return };
        if let Err(error) = connected.send() {
            self.close(&RedisError::from(error), now, done);
        }
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
            let _wakes = WakeOnDrop(wake);
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
                let until = now + self.upstream.config.connect_timeout + CONNECT_GRACE;
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
        let until = now + self.timeout();
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

    fn advance(&mut self, now: Instant, done: &mut Done) {
        self.connect(now, done);
        self.drop_if_fenced(now, done);
        self.release_held();
        if let State::Connected(connected) = &mut self.state
            && self.in_flight.front().is_some_and(|sent| sent.deadline <= now)
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
        let oldest = self.in_flight.front().map(|sent| sent.deadline);
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
