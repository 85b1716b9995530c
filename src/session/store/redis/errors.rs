//! The errors of a store.

use crate::redis::refusal;
use crate::{Error, ErrorKind};

/// The error of a reply that is not the one to our request.
pub(super) fn desync() -> Error {
    Error::new(
        ErrorKind::Desync,
        "redis gave a reply that is none to the session's request; the connection was closed",
    )
}

pub(super) fn foreign() -> Error {
    Error::new(
        ErrorKind::Desync,
        "the session's record in redis is marked as another session's; the connection was closed",
    )
}

pub(super) fn newer() -> Error {
    Error::new(
        ErrorKind::Config,
        "the session's record in redis was written by a newer version of bottle-session; bring this \
         program up to that version too, or keep the two apart with key_prefix",
    )
}

/// The error of what Redis refused.
pub(super) fn refused(line: &[u8]) -> Error {
    explained(refusal(line))
}

/// Where Redis does not let us use a command, that is a matter of its settings.
pub(super) fn explained(error: Error) -> Error {
    let text = error.to_string();
    let unknown = ["unknown command", "Unknown Redis command", "Unknown command"];
    if !unknown.iter().any(|unknown| text.contains(unknown)) && !text.starts_with("Redis: NOPERM") {
        return error;
    }
    Error::new(
        ErrorKind::Config,
        format!(
            "{text}; sessions need the commands that the documentation of RedisStore lists: allow them (ACL), \
             and under their own names (rename-command)"
        ),
    )
}
