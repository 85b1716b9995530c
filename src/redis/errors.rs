//! What Redis's own errors mean for a request.

use std::sync::Arc;

use ::redis::{RedisError, ServerError};

use crate::{Error, ErrorKind};

/// Whether the server's error is a state that passes: the same request may work later.
pub(super) fn passes(code: Option<&str>) -> bool {
    matches!(
        code,
        Some(
            "LOADING"
                | "BUSY"
                | "MASTERDOWN"
                | "READONLY"
                | "OOM"
                | "MISCONF"
                | "NOREPLICAS"
                | "CLUSTERDOWN"
                | "TRYAGAIN"
                | "UNBLOCKED"
        )
    )
}

/// Whether the server's error is a matter of configuration: it stays until somebody changes something.
fn is_configuration(code: Option<&str>) -> bool {
    matches!(code, Some("NOAUTH" | "WRONGPASS" | "NOPERM" | "WRONGTYPE"))
}

fn kind(code: Option<&str>) -> ErrorKind {
    match code {
        _ if passes(code) => ErrorKind::Unavailable,
        _ if is_configuration(code) => ErrorKind::Config,
        _ => ErrorKind::Redis,
    }
}

/// What it means that no connection came about.
pub(super) fn connecting(error: &RedisError) -> ErrorKind {
    let refused = super::pool::is_reply(error);
    // The only refusal without a code of its own that passes.
    let full = error.detail().is_some_and(|text| text.contains("max number of clients"));
    // What TLS says of a certificate that it does not trust.
    let distrusted = std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<Arc<dyn std::error::Error + Send + Sync>>())
        .and_then(|source| source.downcast_ref::<std::io::Error>())
        .is_some_and(|source| source.kind() == std::io::ErrorKind::InvalidData);
    match distrusted || refused && !full && !passes(error.code()) {
        true => ErrorKind::Config,
        false => ErrorKind::Unavailable,
    }
}

/// The error of a command that Redis refused.
pub(crate) fn server_error(error: &ServerError) -> Error {
    let text = format!("Redis: {} {}", error.code(), error.details().unwrap_or_default());
    Error::new(kind(Some(error.code())), text.trim_end())
}

impl From<RedisError> for Error {
    fn from(error: RedisError) -> Error {
        let kind = match super::pool::is_reply(&error) {
            true => kind(error.code()),
            false if error.is_io_error() => ErrorKind::Unavailable,
            false => ErrorKind::Redis,
        };
        Error::new(kind, format!("Redis: {error}")).with_source(error)
    }
}
