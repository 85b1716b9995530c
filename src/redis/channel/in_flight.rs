//! Pipelines in flight: which operations are sent together, how their replies are read, and how they fail or are sent again.

use std::collections::VecDeque;
use std::io::ErrorKind as IoErrorKind;
use std::time::Instant;

use ::redis::RedisError;

use super::connection::READ;
use super::{Done, Queued, RedisChannel, State};
use crate::pipeline::operation::Progress;
use crate::redis::batch::{Batch, Received, deliver, fail, is_read_only};
use crate::redis::connection::{broken, no_reply};
use crate::redis::errors::{TooLarge, copy};
use crate::redis::upstream::Failure;
use crate::{Error, ErrorKind};

/// How many operations and bytes one pipeline has at most: its replies are believed when the last one is there, and a
/// large session is not to hold up more small ones than these.
pub(super) const BATCH: usize = 128;

const BATCH_BYTES: usize = 64 * 1024;

/// How many operations and bytes are in flight at most; past it others wait, in order.
pub(super) const IN_FLIGHT: usize = 1024;

const IN_FLIGHT_BYTES: usize = 1024 * 1024;

/// A pipeline that was sent and not yet answered.
pub(super) struct InFlightBatch {
    pub(super) batch: Batch,
    pub(super) operations: Vec<Queued>,
    pub(super) deadline: Instant,
}

impl RedisChannel {
    pub(super) fn read_replies(
        &mut self,
        now: Instant,
        done: &mut Done,
    ) -> std::result::Result<(), RedisError> {
        let mut start = 0;
        let (mut in_step, timeout) = (true, self.timeout());
        let is_held = self.upstream.is_held();
        loop {
            let State::Connected(connected) = &mut self.state else { return Ok(()) };
            let received = &connected.received[start..connected.filled];
            if received.is_empty() {
                break;
            }
            let max = self.upstream.config.max_reply;
            let Some(sent) = self.in_flight.front_mut() else { return Err(no_reply()) };
            let clock = match sent.batch.receive(received, max, now).map_err(broken)? {
                Received::Incomplete => break,
                Received::InStep(told) => {
                    connected.clock = told.or(connected.clock);
                    Ok(connected.now(now))
                }
                Received::Refused(error) => Err(error),
            };
            (connected.used, connected.answered) = (true, now);
            let Some(InFlightBatch { batch, operations, .. }) = self.in_flight.pop_front() else {
                break;
            };
            self.operations -= operations.len();
            self.bytes -= batch.bytes.len();
            self.upstream.answered(operations.len(), batch.age(now));
            if batch.is_replica() {
                self.upstream.retire(connected.generation);
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
                    queued.until = now + timeout;
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
    pub(super) fn close(&mut self, error: &RedisError, now: Instant, done: &mut Done) {
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
        self.fail_in_flight(&error, may_repeat, too_large, now, done);
    }

    /// Closes the connection where it leads to another server than the master: what is in flight counts as cut, its
    /// replies included that have come.
    pub(super) fn drop_if_fenced(&mut self, now: Instant, done: &mut Done) {
        let State::Connected(connected) = &self.state else { return };
        if self.upstream.is_fenced(connected.generation) {
            self.state = State::Disconnected;
            let error = self.upstream.overtaken();
            self.fail_in_flight(&error, true, false, now, done);
        }
    }

    /// Sends repeatable operations in flight once more, and fails the others with this error.
    fn fail_in_flight(
        &mut self,
        error: &Error,
        may_repeat: bool,
        too_large: bool,
        now: Instant,
        done: &mut Done,
    ) {
        (self.operations, self.bytes) = (0, 0);
        let mut again = Vec::new();
        for (at, sent) in std::mem::take(&mut self.in_flight).into_iter().enumerate() {
            let InFlightBatch { batch, operations, deadline } = sent;
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

    /// Fails operations whose deadline has passed.
    pub(super) fn expire(&mut self, now: Instant, done: &mut Done) {
        let late = self.in_flight.front().filter(|sent| sent.deadline <= now);
        if late.is_some_and(|sent| sent.batch.awaits_replicas()) {
            // What comes later is nobody's.
            self.state = State::Disconnected;
            let error = self.upstream.too_few_replicas(None);
            self.fail_in_flight(&error, false, false, now, done);
        } else if late.is_some() {
            self.close(&RedisError::from(std::io::Error::from(IoErrorKind::TimedOut)), now, done);
        }
        let timeout = self.timeout();
        while self.queue.front().is_some_and(|queued| queued.until <= now) {
            let Some(mut queued) = self.queue.pop_front() else { break };
            let text = format!("{}: no connection was free in {timeout:?}", self.upstream.config);
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

    /// Makes one more pipeline of what was submitted; false where there is nothing, or no room.
    pub(super) fn send_next(&mut self, now: Instant, done: &mut Done) -> bool {
        let State::Connected(connected) = &mut self.state else { return false };
        // Behind one that waits for replicas, the next one would lose its time.
        let waits = self.options.replicas > 0;
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
        self.upstream.read_announcements();
        if self.upstream.is_fenced(connected.generation) {
            // What is submitted goes to the new master.
            self.drop_if_fenced(now, done);
            return false;
        }
        let clock = connected.now(now);
        let is_held = self.upstream.is_held();
        let mut batch = Batch::new(self.options);
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
        batch.finish(connected.clock, now, self.upstream.config.operation_timeout);
        connected.out.extend_from_slice(&batch.bytes);
        self.operations += operations.len();
        self.bytes += batch.bytes.len();
        let deadline = now + self.upstream.config.operation_timeout;
        self.in_flight.push_back(InFlightBatch { batch, operations, deadline });
        true
    }
}
