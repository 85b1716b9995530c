//! What all sessions of one plugin share.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::events::{Counters, Event, Events};
use super::id::{IdFormat, IdGenerator, SessionId};
use super::store::{Caps, Lifetimes, SessionStore};
use crate::{Error, ErrorKind, Result};

/// Store, ids, limits and observer of one session plugin.
pub(crate) struct Keeper {
    pub(crate) store: Arc<dyn SessionStore>,
    pub(crate) format: IdFormat,
    /// Ids of a layout that the store takes over from.
    pub(crate) former_format: Option<IdFormat>,
    pub(crate) lifetimes: Lifetimes,
    pub(crate) caps: Caps,
    /// Whether the cookie outlives the browser: `cookie_lifetime` is not `None`.
    pub(crate) persistent: bool,
    pub(crate) generator: IdGenerator,
    pub(crate) events: Box<dyn Events>,
    pub(crate) counters: Counters,
}

impl Keeper {
    pub(crate) fn fresh_id(&self) -> Result<SessionId> {
        self.generator.next(self.format)
    }

    /// An id that the session can move to in one step.
    pub(crate) fn id_to_move_to(&self, from: &SessionId) -> Result<SessionId> {
        // In a cluster one in 256 will do, or one in 16384; it would take a broken store to need so many.
        for _ in 0..1_000_000 {
            let id = self.fresh_id()?;
            if self.store.can_move(from, &id) {
                return Ok(id);
            }
        }
        Err(Error::new(ErrorKind::Session, "the session store lets the session move to no new id"))
    }

    pub(crate) fn happened(&self, event: Event<'_>) {
        self.counters.count(&event);
        // Who looks on decides nothing: a panic here would keep a new id from its browser, and fail the others
        // of the batch.
        if catch_unwind(AssertUnwindSafe(|| self.events.event(event))).is_err() {
            log::error!("the observer of sessions panicked at {event:?}");
        }
    }

    /// Tells of an error of the store.
    pub(crate) fn failed(&self, error: &Error) {
        self.happened(match error.kind() {
            ErrorKind::Desync => Event::Desync,
            ErrorKind::Gone => Event::WriteLost,
            // The caller's own mistake: a value that is no number.
            ErrorKind::Session => return,
            _ => Event::StoreError(error),
        });
    }

    /// Whether the cookie of a session with this own lifetime has a `Max-Age`.
    pub(crate) fn cookie_has_max_age(&self, own_lifetime: Option<Duration>) -> bool {
        self.persistent || own_lifetime.is_some()
    }
}
