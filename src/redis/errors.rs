//! What Redis's own errors mean for a request.

use std::fmt;
use std::sync::Arc;

use ::redis::{RedisError, ServerError};

use crate::pipeline::service::LoggedBefore;
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
    matches!(
        code,
        Some("NOAUTH" | "WRONGPASS" | "NOPERM" | "WRONGTYPE" | "MOVED" | "ASK" | "CROSSSLOT")
    )
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
    let distrusted =
        io_error(error).is_some_and(|source| source.kind() == std::io::ErrorKind::InvalidData);
    match distrusted || refused && !full && !passes(error.code()) {
        true => ErrorKind::Config,
        false => ErrorKind::Unavailable,
    }
}

/// The error of a command that Redis refused.
pub(crate) fn server_error(error: &ServerError) -> Error {
    let details = error.details().unwrap_or_default();
    let text = format!("Redis: {} {details}", error.code());
    let text = unquoted(&text).trim_end().to_owned() + what_would_do(Some(error.code()));
    Error::new(kind(Some(error.code())), text)
}

/// The code of an error line, such as `READONLY`.
pub(super) fn code(line: &[u8]) -> &str {
    let end = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
    std::str::from_utf8(&line[..end]).unwrap_or_default()
}

/// The error of a command that Redis refused with this line.
pub(crate) fn refusal(line: &[u8]) -> Error {
    let code = code(line);
    let text = format!("Redis: {}", String::from_utf8_lossy(line));
    let text = unquoted(&text).trim_end().to_owned() + what_would_do(Some(code));
    Error::new(kind(Some(code)), text)
}

/// The same error for one more session of a batch: its text has the causes, as these can be in one error alone.
pub(crate) fn copy(error: &Error) -> Error {
    match std::error::Error::source(error) {
        Some(source) if source.is::<LoggedBefore>() => {
            Error::new(error.kind(), error.to_string()).with_source(LoggedBefore)
        }
        _ => Error::new(error.kind(), format!("{error:?}")),
    }
}

/// To a command that it does not know, Redis quotes the arguments: a session's key, perhaps its values, and an
/// error ends in a log.
fn unquoted(text: &str) -> &str {
    text.split(", with args beginning with").next().unwrap_or_default()
}

/// For errors that a plain pool gets from a node of a cluster.
fn what_would_do(code: Option<&str>) -> &'static str {
    match code {
        Some("MOVED" | "ASK") => {
            "; this is one node of a cluster and another has the key: sessions go there with \
             RedisStore::on_cluster, other data with the cluster client of the redis crate"
        }
        Some("CROSSSLOT") => {
            "; the keys of one command must be in one slot of the cluster: give them the same {tag}"
        }
        _ => "",
    }
}

/// The pool's error as one of the `redis` crate, which its traits ask for. It comes back as what it was.
pub(super) fn disguised(error: Error, timed_out: bool) -> RedisError {
    let kind = match timed_out {
        true => std::io::ErrorKind::TimedOut,
        false => std::io::ErrorKind::NotConnected,
    };
    RedisError::from(std::io::Error::new(kind, error))
}

impl From<RedisError> for Error {
    fn from(error: RedisError) -> Error {
        let ours = io_error(&error)
            .and_then(|error| error.get_ref()?.downcast_ref::<Error>())
            .map(|ours| (ours.kind(), ours.to_string()));
        let (kind, text) = ours.unwrap_or_else(|| {
            let kind = match super::pool::is_reply(&error) {
                true => kind(error.code()),
                false if error.is_io_error() => ErrorKind::Unavailable,
                false => ErrorKind::Redis,
            };
            (kind, format!("Redis: {error}{}", what_would_do(error.code())))
        });
        match unquoted(&text) {
            short if short.len() < text.len() => Error::new(kind, short),
            _ => Error::new(kind, text).with_source(error),
        }
    }
}

/// Redis sent more than these bytes in reply.
#[derive(Debug)]
pub(super) struct TooLarge(pub(super) usize);

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "more than {} bytes in reply, the connection was closed", self.0)
    }
}

impl std::error::Error for TooLarge {}

impl TooLarge {
    pub(super) fn of(error: &RedisError) -> Option<&TooLarge> {
        io_error(error)?.get_ref()?.downcast_ref()
    }
}

fn io_error(error: &RedisError) -> Option<&std::io::Error> {
    // What the crate gives as the cause is the `Arc` itself that it keeps it in.
    type Shared = Arc<dyn std::error::Error + Send + Sync>;
    std::error::Error::source(error)?.downcast_ref::<Shared>()?.downcast_ref::<std::io::Error>()
}
