//! Checks connections out of the pool, and makes new ones.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use scheduled_thread_pool::ScheduledThreadPool;

use super::RedisPool;
#[cfg(feature = "r2d2_redis")]
use crate::ErrorKind;
use crate::lock::{read, write};
use crate::redis::connection::Connection;
use crate::redis::upstream::{Deadlines, Upstream};
use crate::{Error, Result};

/// How often a thread that waits for a connection checks whether connecting has failed: r2d2 does not wake it then.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Twice the longest pause between two attempts to connect.
const RETRY_WITHIN: Duration = Duration::from_millis(400);

/// The connections of one process. After a fork parent and child must not talk over the same sockets, and the
/// threads that connect are the parent's alone.
pub(super) struct ForkSafePool {
    pub(super) process: u32,
    pub(super) pool: r2d2::Pool<Manager>,
}

impl RedisPool {
    /// The connections of this process.
    pub(super) fn own(&self) -> r2d2::Pool<Manager> {
        let process = std::process::id();
        let own = &self.0.own;
        {
            let own = read(own);
            if own.process == process {
                return own.pool.clone();
            }
        }
        let mut own = write(own);
        if own.process != process {
            let parents = std::mem::replace(&mut *own, ForkSafePool::new(&self.0.upstream));
            // Its locks may be held by threads that this process does not have.
            std::mem::forget(parents);
        }
        own.pool.clone()
    }

    /// Whether a connection that somebody holds can be used again.
    pub(in crate::redis) fn is_healthy(&self, connection: &mut Connection) -> bool {
        let upstream = &self.0.upstream;
        connection.process == std::process::id()
            && upstream.is_healthy(connection, &Deadlines::starting_now(&upstream.config))
    }

    /// A connection that nothing has gone wrong with.
    pub(in crate::redis) fn checkout(&self) -> Result<r2d2::PooledConnection<Manager>> {
        self.checkout_before(&Deadlines::starting_now(&self.0.upstream.config))
    }

    pub(super) fn checkout_before(
        &self,
        deadlines: &Deadlines,
    ) -> Result<r2d2::PooledConnection<Manager>> {
        let upstream = &self.0.upstream;
        let now = Instant::now();
        upstream.breaker.enter(now, deadlines.replied.saturating_duration_since(now))?;
        loop {
            let mut connection = self.wait_for_connection(deadlines)?;
            #[cfg(feature = "r2d2_redis")]
            self.take(&mut connection, deadlines)?;
            if upstream.is_healthy(&mut connection, deadlines) {
                return Ok(connection);
            }
            // The pool closes it.
            connection.dirty = true;
        }
    }

    /// Waits until there is a connection, or until it is known that there will be none.
    fn wait_for_connection(
        &self,
        deadlines: &Deadlines,
    ) -> Result<r2d2::PooledConnection<Manager>> {
        let (pool, upstream) = (&self.own(), &self.0.upstream);
        let refusals = upstream.refusals.load(Ordering::Acquire);
        loop {
            let left = deadlines.connected.saturating_duration_since(Instant::now());
            let at_least = Duration::from_millis(1);
            if let Ok(connection) = pool.get_timeout(left.min(POLL_INTERVAL).max(at_least)) {
                return Ok(connection);
            }
            let connections = pool.state().connections;
            let in_use = connections >= pool.max_size();
            if left <= POLL_INTERVAL && in_use {
                return Err(upstream.all_in_use(connections));
            }
            let refused = !in_use && upstream.refusals.load(Ordering::Acquire) != refusals;
            if refused || left <= POLL_INTERVAL {
                let error = upstream.no_connection();
                upstream.down(&error);
                return Err(error);
            }
            // What others have found out meanwhile holds for us as well.
            upstream.breaker.while_open(Instant::now())?;
        }
    }

    /// Takes what the connection stands for out of the application's pool, where it is from there.
    #[cfg(feature = "r2d2_redis")]
    fn take(&self, connection: &mut Connection, deadlines: &Deadlines) -> Result<()> {
        use crate::redis::external::CheckoutError;

        let upstream = &self.0.upstream;
        connection.take(deadlines.connected).map_err(|why| match why {
            CheckoutError::AllInUse => upstream.all_in_use(upstream.config.pool_size),
            CheckoutError::Down(why) => {
                let text = format!("no connection from the r2d2_redis pool: {why}");
                let error = Error::new(ErrorKind::Unavailable, text);
                upstream.down(&error);
                error
            }
        })
    }
}

impl ForkSafePool {
    pub(super) fn new(upstream: &Arc<Upstream>) -> ForkSafePool {
        // Threads of its own: a server that accepts and never answers must not hold up another pool.
        let connecting = ScheduledThreadPool::builder()
            .num_threads(2)
            .thread_name_pattern("redis-connect-{}")
            .build();
        let config = &upstream.config;
        let pool = r2d2::Pool::builder()
            .max_size(config.pool_size)
            .min_idle(Some(0))
            // r2d2 pauses for up to half of this between its attempts to connect, and uses it for nothing
            // else here.
            .connection_timeout(config.connect_timeout.min(RETRY_WITHIN))
            .test_on_check_out(false)
            .error_handler(Box::new(r2d2::NopErrorHandler))
            .thread_pool(Arc::new(connecting))
            .build_unchecked(Manager { upstream: upstream.clone() });
        ForkSafePool { process: std::process::id(), pool }
    }
}

/// Makes connections for r2d2 and judges them.
pub(in crate::redis) struct Manager {
    upstream: Arc<Upstream>,
}

impl r2d2::ManageConnection for Manager {
    type Connection = Connection;
    type Error = Error;

    fn connect(&self) -> Result<Connection> {
        self.upstream.open()
    }

    /// Never asked by r2d2: [`Upstream::is_healthy`] knows the deadline.
    fn is_valid(&self, _: &mut Connection) -> Result<()> {
        Ok(())
    }

    fn has_broken(&self, connection: &mut Connection) -> bool {
        !connection.is_kept()
    }
}
