//! The breaker: a Redis that is down costs one time-out, not one for each request.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::lock::lock;
use crate::logging::OneLine;
use crate::pipeline::service::AlreadyLogged;
use crate::{Error, ErrorKind, Result};

/// How long everything fails at once before one operation may try again.
const OPEN_TIME: Duration = Duration::from_millis(250);

/// Whether operations reach Redis.
///
/// ```
/// use bottle_session::{App, BreakerState, RedisPool};
///
/// let pool = RedisPool::open("redis://localhost:6379/0")?;
/// let mut app = App::new();
/// app.get("/ready", move || match pool.breaker() {
///     BreakerState::Closed => (200, "ready"),
///     BreakerState::Open | BreakerState::HalfOpen => (503, "Redis does not answer"),
/// });
/// # app.build()?;
/// # Ok::<(), bottle_session::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// They do.
    Closed,
    /// They fail at once.
    Open,
    /// One of them is trying.
    HalfOpen,
}

#[derive(Debug, Default)]
pub(super) struct Breaker {
    state: Mutex<State>,
    /// Whether the state is another than closed: what every operation asks first.
    tripped: AtomicBool,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Closed,
    Open {
        until: Instant,
        reason: Reason,
    },
    HalfOpen {
        /// The trial counts as lost from here on: its thread may never come back.
        until: Instant,
        reason: Reason,
    },
}

#[derive(Clone, Debug)]
struct Reason {
    kind: ErrorKind,
    text: String,
}

impl Reason {
    fn error(&self) -> Error {
        let text = format!("{} (failing at once until it answers again)", self.text);
        Error::new(self.kind, text).with_source(AlreadyLogged)
    }
}

impl Breaker {
    /// Lets an operation pass, or fails it at once. A trial may take until `trial_timeout` has passed.
    pub(super) fn enter(&self, now: Instant, trial_timeout: Duration) -> Result<()> {
        if !self.tripped.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut state = self.lock();
        match &*state {
            State::Closed => Ok(()),
            State::Open { until, reason } | State::HalfOpen { until, reason } if now < *until => {
                Err(reason.error())
            }
            State::Open { reason, .. } | State::HalfOpen { reason, .. } => {
                *state = State::HalfOpen {
                    until: now + trial_timeout + OPEN_TIME,
                    reason: reason.clone(),
                };
                Ok(())
            }
        }
    }

    /// Fails where the breaker has opened since [`enter`](Breaker::enter).
    pub(super) fn while_open(&self, now: Instant) -> Result<()> {
        if !self.tripped.load(Ordering::Acquire) {
            return Ok(());
        }
        match &*self.lock() {
            State::Open { until, reason } if now < *until => Err(reason.error()),
            _ => Ok(()),
        }
    }

    /// Notes that Redis answered. Returns whether the breaker was open.
    pub(super) fn succeeded(&self) -> bool {
        if !self.tripped.load(Ordering::Acquire) {
            return false;
        }
        let mut state = self.lock();
        let news = !matches!(*state, State::Closed);
        if news {
            *state = State::Closed;
            self.tripped.store(false, Ordering::Release);
            // Not while it is locked: a logger may need Redis itself.
            drop(state);
            log::info!("Redis answers again");
        }
        news
    }

    /// Notes that Redis did not answer. Returns whether the breaker was closed.
    pub(super) fn failed(&self, now: Instant, error: &Error) -> bool {
        let mut state = self.lock();
        let before = match &*state {
            State::Closed => None,
            State::Open { reason, .. } | State::HalfOpen { reason, .. } => Some(reason.kind),
        };
        let reason = Reason { kind: error.kind(), text: error.to_string() };
        *state = State::Open { until: now + OPEN_TIME, reason };
        self.tripped.store(true, Ordering::Release);
        drop(state);
        // That it is wrong is to be heard also where it was down before.
        if before != Some(error.kind()) {
            let error = OneLine(error);
            log::error!("{error}; failing at once until it answers again");
        }
        before.is_none()
    }

    /// A trial ended without telling whether Redis answers: the next one may try.
    pub(super) fn undecided(&self, now: Instant) {
        if !self.tripped.load(Ordering::Acquire) {
            return;
        }
        let mut state = self.lock();
        if let State::HalfOpen { reason, .. } = &*state {
            *state = State::Open { until: now, reason: reason.clone() };
        }
    }

    pub(super) fn state(&self) -> BreakerState {
        match *self.lock() {
            State::Closed => BreakerState::Closed,
            State::Open { .. } => BreakerState::Open,
            State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_operation_tries_while_the_others_fail_at_once() {
        let (breaker, start) = (Breaker::default(), Instant::now());
        let trial_timeout = Duration::from_secs(1);
        let passes =
            |millis| breaker.enter(start + Duration::from_millis(millis), trial_timeout).is_ok();
        let failed = |millis| {
            let error = Error::new(ErrorKind::Unavailable, "down");
            breaker.failed(start + Duration::from_millis(millis), &error)
        };
        assert!(passes(0) && passes(0));
        assert!(failed(0));
        assert_eq!(breaker.state(), BreakerState::Open);
        assert!(!passes(249));
        assert!(passes(250));
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        assert!(!passes(251));
        assert!(!failed(300), "no news");
        assert!(!passes(549));
        assert!(passes(550));
        // A trial that never ends does not keep the others out for ever.
        assert!(!passes(550 + 1249));
        assert!(passes(550 + 1250));
        // A trial that told nothing leaves its place to the next.
        assert!(!passes(551 + 1250));
        breaker.undecided(start + Duration::from_millis(552 + 1250));
        assert!(passes(552 + 1250) && !passes(553 + 1250));
        assert!(breaker.succeeded() && !breaker.succeeded());
        breaker.undecided(start);
        assert!(passes(551) && passes(551));
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn the_reason_is_told() {
        let breaker = Breaker::default();
        let now = Instant::now();
        breaker.failed(now, &Error::new(ErrorKind::Config, "wrong password"));
        let error = breaker.enter(now, Duration::ZERO).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().starts_with("wrong password ("), "{error}");
    }
}
