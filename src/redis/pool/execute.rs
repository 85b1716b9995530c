//! Executes operations and commands over a connection of the pool, and repeats those that may be repeated.

use std::sync::Arc;
use std::time::Instant;

use ::redis::{RedisError, RedisResult, Value};

use super::RedisPool;
use crate::pipeline::operation::{Answer, Operation, Progress, RemoteService};
#[cfg(unix)]
use crate::pipeline::operation::{Channel, Wake};
use crate::redis::batch::{Batch, BatchOptions, Received, deliver, fail, is_read_only};
#[cfg(unix)]
use crate::redis::channel::RedisChannel;
use crate::redis::connection::{Connection, Reply};
use crate::redis::errors::{as_redis_error, copy, is_demoted};
use crate::redis::upstream::{Deadlines, Failure, Source};
use crate::{Error, ErrorKind, Result};

impl RedisPool {
    #[cfg(unix)]
    fn channel_in(&self, options: BatchOptions, wake: Wake) -> Option<Box<dyn Channel>> {
        match self.0.upstream.source {
            Source::Network => {
                let upstream = self.0.upstream.clone();
                Some(Box::new(RedisChannel::new(upstream, self.weak(), options, wake)))
            }
            // Where Redis is, only that pool knows.
            #[cfg(feature = "r2d2_redis")]
            Source::External(_) => None,
        }
    }

    fn run_in(&self, options: BatchOptions, operations: &mut [&mut dyn Operation]) {
        let mut left: Vec<&mut dyn Operation> =
            operations.iter_mut().map(|operation| &mut **operation).collect();
        while !left.is_empty() {
            left = self.round(left, options, |_, _| ());
        }
    }

    /// Carries out one round of each operation, in one pipeline; while a failover is under way, those that write come
    /// in another one, once it is over. Those that are not over are in `again`, those whose reply `redirects` takes
    /// from them (it is about something else than they asked) are nobody's.
    pub(in crate::redis) fn round<'o>(
        &self,
        operations: Vec<&'o mut dyn Operation>,
        options: BatchOptions,
        mut redirects: impl FnMut(&mut Option<&'o mut dyn Operation>, Answer<'_>),
    ) -> Vec<&'o mut dyn Operation> {
        let mut deadlines = Deadlines::starting_now(&self.0.upstream.config);
        let (mut reads, mut writes) = (operations, Vec::new());
        if self.0.upstream.is_held() {
            for operation in std::mem::take(&mut reads) {
                match is_read_only(operation) {
                    true => reads.push(operation),
                    false => writes.push(operation),
                }
            }
        }
        let mut again = Vec::new();
        for operations in [reads, writes] {
            if !operations.is_empty() {
                let left = self.attempts(operations, options, &mut deadlines, &mut redirects);
                again.extend(left);
            }
        }
        again
    }

    /// Carries out one round of each operation. What may be repeated is sent once more where the connection is lost.
    fn attempts<'o>(
        &self,
        mut operations: Vec<&'o mut dyn Operation>,
        options: BatchOptions,
        deadlines: &mut Deadlines,
        redirects: &mut impl FnMut(&mut Option<&'o mut dyn Operation>, Answer<'_>),
    ) -> Vec<&'o mut dyn Operation> {
        let upstream = &self.0.upstream;
        let mut attempt = 1;
        loop {
            let mut connection = match self.checkout_before(deadlines) {
                Ok(connection) => connection,
                Err(error) => {
                    operations.into_iter().for_each(|operation| fail(operation, copy(&error)));
                    return Vec::new();
                }
            };
            let mut batch = Batch::new(options);
            let now = connection.now();
            operations.retain_mut(|operation| batch.push(&mut **operation, now, options.one_key));
            if operations.is_empty() {
                return operations;
            }
            let is_written = (0..operations.len()).any(|number| batch.writes(number));
            upstream.read_announcements();
            if upstream.is_fenced(connection.generation) {
                // Nothing was sent, and the next one leads to the new master.
                connection.dirty = true;
                upstream.breaker.undecided(Instant::now());
                continue;
            }
            if is_written && upstream.is_held() {
                drop(connection);
                let is_over = upstream.wait_while_held(deadlines.connected);
                upstream.breaker.undecided(Instant::now());
                if !is_over {
                    operations.into_iter().for_each(|operation| fail(operation, upstream.held()));
                    return Vec::new();
                }
                // To the new master a connection is yet to be made.
                deadlines.connected = deadlines.replied;
                continue;
            }
            let reply_by = deadlines.reply_by(&upstream.config);
            let now = Instant::now();
            batch.finish(connection.clock(), now, reply_by.saturating_duration_since(now));
            let reused = connection.used;
            let carried = connection.carry(&mut batch, reply_by, upstream.config.max_reply);
            upstream.read_announcements();
            let (bytes, received) = match carried {
                Ok(carried) if !upstream.is_fenced(connection.generation) => carried,
                carried => {
                    let (error, may_repeat) = match carried.map(drop) {
                        Err(error) if error.is_timeout() && batch.awaits_replicas() => {
                            (upstream.too_few_replicas(None), false)
                        }
                        Err(error) => match upstream.failure(&error, reused) {
                            Failure::Stale(error) => (error, attempt == 1),
                            Failure::Other(error) => (error, false),
                        },
                        // By the old master, which forgets it.
                        Ok(()) => (upstream.overtaken(), attempt == 1),
                    };
                    connection.dirty = true;
                    let mut left = Vec::new();
                    for (number, operation) in operations.into_iter().enumerate() {
                        match may_repeat && batch.is_repeatable(number) {
                            true => left.push(operation),
                            false => fail(operation, copy(&error)),
                        }
                    }
                    operations = left;
                    if operations.is_empty() {
                        return operations;
                    }
                    attempt += 1;
                    continue;
                }
            };
            upstream.answered(operations.len(), batch.age(Instant::now()));
            if batch.is_replica() {
                upstream.discard(&mut connection);
            }
            let clock = match received {
                Received::InStep(_) => connection.now(),
                Received::Refused(error) => {
                    operations.into_iter().for_each(|operation| fail(operation, copy(&error)));
                    return Vec::new();
                }
                Received::Incomplete => unreachable!("a connection reads whole replies"),
            };
            let held = upstream.is_held();
            let shortfall = upstream.shortfall(&batch);
            let (mut again, mut left) = (Vec::new(), Vec::new());
            for (number, operation) in operations.into_iter().enumerate() {
                if batch.writes(number) && held {
                    match attempt == 1 && batch.is_repeatable(number) {
                        true => left.push(operation),
                        false => fail(operation, upstream.overtaken()),
                    }
                    continue;
                }
                let answer = batch.answer(number, &bytes, clock);
                let mut operation = Some(operation);
                redirects(&mut operation, answer);
                let Some(operation) = operation else { continue };
                if let (true, Some(error)) = (batch.writes(number), &shortfall) {
                    fail(operation, copy(error));
                    continue;
                }
                match deliver(operation, answer) {
                    Progress::Done => {}
                    Progress::Again => again.push(operation),
                    Progress::Desync => connection.dirty = true,
                }
            }
            if left.is_empty() {
                return again;
            }
            drop(connection);
            again.extend(self.attempts(left, options, deadlines, redirects));
            return again;
        }
    }

    fn round_trip(
        &self,
        connection: &mut Connection,
        packed: &[u8],
        count: usize,
        deadlines: &Deadlines,
        limit: usize,
    ) -> std::result::Result<Vec<Reply>, Failure> {
        let upstream = &self.0.upstream;
        let (reused, begin) = (connection.used, Instant::now());
        match connection.exchange(packed, count, deadlines.reply_by(&upstream.config), limit) {
            Ok(replies) => {
                upstream.answered(1, begin.elapsed());
                if demoted(&replies) {
                    upstream.discard(connection);
                }
                Ok(replies)
            }
            Err(error) => Err(upstream.failure(&error, reused)),
        }
    }

    /// Waits while a failover is under way, within the deadline. Whether it has waited.
    pub(in crate::redis) fn wait_while_held(&self) -> Result<bool> {
        let upstream = &self.0.upstream;
        upstream.read_announcements();
        if !upstream.is_held() {
            return Ok(false);
        }
        match upstream.wait_while_held(Instant::now() + upstream.config.connect_timeout) {
            true => Ok(true),
            false => Err(upstream.held()),
        }
    }

    /// Sends a handler's own commands over a connection that it holds. What happens to the connection is
    /// remembered. The breaker hears of it, unless the command may block: it waits on purpose or has
    /// no one reply. Where the commands may write, a reply that a failover has overtaken does not count.
    pub(in crate::redis) fn exchange_on(
        &self,
        connection: &mut Connection,
        packed: &[u8],
        count: usize,
        may_block: bool,
        is_read: bool,
    ) -> RedisResult<Vec<Reply>> {
        let upstream = &self.0.upstream;
        let (reused, begin) = (connection.used, Instant::now());
        let deadline = begin + upstream.config.operation_timeout;
        let reply = connection.exchange(packed, count, deadline, upstream.config.max_reply);
        upstream.read_announcements();
        let error = match reply {
            Ok(_)
                if upstream.is_fenced(connection.generation) || !is_read && upstream.is_held() =>
            {
                connection.dirty = true;
                return Err(as_redis_error(upstream.overtaken(), false));
            }
            Ok(replies) => {
                upstream.answered(1, begin.elapsed());
                if demoted(&replies) {
                    upstream.discard(connection);
                }
                return Ok(replies);
            }
            Err(error) => error,
        };
        let timed_out = error.is_timeout();
        if may_block && (timed_out || !error.is_io_error()) {
            upstream.breaker.undecided(Instant::now());
            return Err(as_redis_error(upstream.lost(&error), timed_out));
        }
        match upstream.failure(&error, reused) {
            Failure::Stale(failure) | Failure::Other(failure) => {
                Err(as_redis_error(failure, timed_out))
            }
        }
    }

    /// Asks the server something about itself: one command, which may be sent twice.
    pub(in crate::redis) fn ask(&self, command: &::redis::Cmd) -> Result<Value> {
        let (config, packed) = (&self.0.upstream.config, command.get_packed_command());
        let deadlines = Deadlines::starting_now(config);
        let once = || -> std::result::Result<_, Failure> {
            let mut connection = self.checkout_before(&deadlines).map_err(Failure::Other)?;
            self.round_trip(&mut connection, &packed, 1, &deadlines, config.max_reply)
        };
        let done = match once() {
            Err(Failure::Stale(_)) => once(),
            done => done,
        };
        let replies = done.map_err(|failure| match failure {
            Failure::Stale(error) | Failure::Other(error) => error,
        })?;
        let reply = replies.into_iter().next().ok_or_else(|| {
            Error::new(ErrorKind::Redis, format!("{config}: no reply to a command"))
        })?;
        Ok(reply.map_err(RedisError::from)?)
    }
}

/// The Redis of a pool as a service where what is written counts once as many replicas have it as are to.
pub(super) struct Replicated(pub(super) RedisPool);

impl Replicated {
    fn options(&self) -> BatchOptions {
        BatchOptions { replicas: self.0.config().replicas, ..BatchOptions::default() }
    }
}

impl RemoteService for Replicated {
    /// Another one than the pool's: it has connections of its own.
    fn identity(&self) -> usize {
        self.0.identity() + 1
    }

    #[cfg(unix)]
    fn channel(&self, wake: Wake) -> Option<Box<dyn Channel>> {
        self.0.channel_in(self.options(), wake)
    }

    fn run(&self, operations: &mut [&mut dyn Operation]) {
        self.0.run_in(self.options(), operations);
    }
}

impl RemoteService for RedisPool {
    fn identity(&self) -> usize {
        Arc::as_ptr(&self.0.upstream).addr()
    }

    #[cfg(unix)]
    fn channel(&self, wake: Wake) -> Option<Box<dyn Channel>> {
        self.channel_in(BatchOptions::default(), wake)
    }

    fn run(&self, operations: &mut [&mut dyn Operation]) {
        self.run_in(BatchOptions::default(), operations);
    }
}

/// Whether the server is a replica: the master is somewhere else now.
fn demoted(replies: &[Reply]) -> bool {
    replies.iter().any(|reply| reply.as_ref().is_err_and(is_demoted))
}
