//! The states of a session during a request.

use std::time::{Duration, Instant};

use super::id::SessionId;
use super::store::Login;
use crate::Error;

/// Where the session is.
pub(super) enum SessionState {
    /// In no store yet.
    New {
        /// The id that it will be saved under, where that had to be known before.
        next: Option<SessionId>,
    },
    /// The store has it under this id.
    Stored { id: SessionId, next: IdChange },
    /// It was destroyed, moved or expired since it was loaded: nothing is saved.
    Gone(SessionId),
}

/// What a save does to the id of a session that is stored.
pub(super) enum IdChange {
    None,
    /// A new id, which is there where it had to be known before.
    New(Option<SessionId>),
}

impl SessionState {
    pub(super) fn new() -> SessionState {
        SessionState::New { next: None }
    }

    pub(super) fn stored(id: SessionId) -> SessionState {
        SessionState::Stored { id, next: IdChange::None }
    }

    pub(super) fn id(&self) -> Option<&SessionId> {
        match self {
            SessionState::New { .. } => None,
            SessionState::Stored { id, .. } | SessionState::Gone(id) => Some(id),
        }
    }
}

/// What the id that a request came with turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IncomingId {
    Session,
    /// An id that the store does not know.
    UnknownId,
    /// The id of a session that was ended or moved away from it less than a minute ago.
    EndedId,
    Nothing,
}

/// What the store has answered about a session that this request has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DestroyState {
    /// Nothing was ended.
    None,
    /// It has not answered yet.
    Requested,
    /// The session was ended.
    Destroyed,
    /// It had ended before, or must not be ended with this id.
    NotFound,
}

/// The grace period of the id before the one that this request came with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PreviousIdGrace {
    /// It is as it was.
    Unchanged,
    /// The store is to end it, and has not answered yet.
    EndRequested,
    /// It ends, and the session can forget that id.
    Ends,
}

/// The id in its grace period that a request came with.
#[derive(Clone, Debug)]
pub(super) struct GraceId {
    pub(super) id: SessionId,
    /// No request has presented the next id yet.
    pub(super) is_open: bool,
}

/// Who is logged in.
pub(super) enum LoginState {
    /// As the store has it.
    Same(Option<Login>),
    /// This one is from the next save on.
    In {
        login: Login,
        /// The same user was logged in before.
        again: bool,
    },
}

/// When the idle limit last began anew, and the cookie with it.
#[derive(Clone, Copy)]
pub(super) enum Renewal {
    /// `ago` before `at`.
    Was { ago: Duration, at: Instant },
    /// So long ago that it begins anew at the end of this request.
    Due,
    /// It begins anew with each load, in a layout that cannot store the time.
    EachLoad,
}

impl Renewal {
    /// Just now.
    pub(super) fn now() -> Renewal {
        Renewal::Was { ago: Duration::ZERO, at: Instant::now() }
    }
}

/// Why the request must fail although the handler did not.
pub(super) enum Failure {
    /// A value was refused, and the error was not returned to the handler.
    Refused(Error),
    /// A commit failed, so that changes are lost, even if the handler ignored its error.
    Unsaved(Error),
}
