//! The states of a session while a request has it.

use std::time::{Duration, Instant};

use super::id::SessionId;
use super::store::Login;
use crate::Error;

/// Where the session is.
pub(super) enum Stage {
    /// In no store yet.
    New {
        /// The id that it will be saved under, where that had to be known before.
        next: Option<SessionId>,
    },
    /// The store has it under this id.
    Stored { id: SessionId, next: Next },
    /// It was destroyed, moved or expired since it was loaded: nothing is saved.
    Gone(SessionId),
}

/// What a save does to the id of a session that is stored.
pub(super) enum Next {
    Same,
    /// A new id, which is there where it had to be known before.
    New(Option<SessionId>),
}

impl Stage {
    pub(super) fn new() -> Stage {
        Stage::New { next: None }
    }

    pub(super) fn stored(id: SessionId) -> Stage {
        Stage::Stored { id, next: Next::Same }
    }

    pub(super) fn id(&self) -> Option<&SessionId> {
        match self {
            Stage::New { .. } => None,
            Stage::Stored { id, .. } | Stage::Gone(id) => Some(id),
        }
    }
}

/// What a request came with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CameWith {
    Session,
    /// An id that the store does not know.
    UnknownId,
    /// The id of a session that was ended or renewed a moment ago.
    EndedId,
    Nothing,
}

/// What the store says of the session that this request has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Nothing was ended.
    None,
    /// It has not answered yet.
    Asked,
    /// The session is over.
    Over,
    /// It was over before, or who has this id must not end it.
    NothingThere,
}

/// The grace period of the id before the one that this request came with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Former {
    /// It is as it was.
    Same,
    /// The store is to end it, and has not answered yet.
    Asked,
    /// It ends, and the session can forget that id.
    Ends,
}

/// The id in its grace period that a request came with.
#[derive(Clone, Debug)]
pub(super) struct Via {
    pub(super) id: SessionId,
    /// Nobody has presented the next one yet.
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
    /// So long ago, as of then.
    Was { ago: Duration, at: Instant },
    /// Long enough ago that it does once more, with the end of this request.
    Due,
    /// It does with each load, in a layout that has no place for the time.
    EachLoad,
}

impl Renewal {
    /// Just now.
    pub(super) fn now() -> Renewal {
        Renewal::Was { ago: Duration::ZERO, at: Instant::now() }
    }
}

/// Why nothing that the handler did is acknowledged.
pub(super) enum Failure {
    /// A value was refused, and nobody has heard of it yet.
    Refused(Error),
    /// A commit failed: what it was to save is lost, whatever the handler made of its error.
    Unsaved(Error),
}
