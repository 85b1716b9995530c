//! What SQLite's errors mean for who is served, and what would do.

use std::path::Path;

use rusqlite::ErrorCode;
use rusqlite::ffi::SQLITE_IOERR_CORRUPTFS;

use crate::{Error, ErrorKind};

/// What SQLite says went wrong.
pub(super) fn code(error: &rusqlite::Error) -> Option<ErrorCode> {
    match error {
        // Of a statement that cannot be prepared.
        rusqlite::Error::SqlInputError { error, .. } => Some(error.code),
        error => error.sqlite_error_code(),
    }
}

/// The error of work on an open file. What passes is [`Unavailable`](ErrorKind::Unavailable): a disk that is full, a
/// lock that another process holds; damage does not.
pub(super) fn failed(path: &Path, doing: &str, error: rusqlite::Error) -> Error {
    let (kind, advice) = match code(&error) {
        _ if is_damage(&error) => (ErrorKind::Config, DAMAGED),
        Some(ErrorCode::DiskFull) => (ErrorKind::Unavailable, "; make room on its disk"),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => (
            ErrorKind::Unavailable,
            "; another process holds its lock: look which one has a transaction open there",
        ),
        Some(ErrorCode::ReadOnly) => {
            (ErrorKind::Unavailable, "; it, its folder or its file system has become read-only")
        }
        Some(ErrorCode::SystemIoFailure) => (
            ErrorKind::Unavailable,
            "; the operating system's log says what is wrong with the disk",
        ),
        _ => (ErrorKind::Unavailable, ""),
    };
    let text = format!("cannot {doing} the session file {}: {error}{advice}", path.display());
    Error::new(kind, text).with_source(error)
}

/// What would do about a damaged file.
pub(super) const DAMAGED: &str = "; it is damaged: stop the program, and restore a backup, repair a copy with \
                                  .recover of the sqlite3 shell, or move it away, which logs everybody out";

/// Whether the file itself is wrong.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    match code(error) {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => true,
        Some(ErrorCode::SystemIoFailure) => {
            error.sqlite_extended_error_code() == Some(SQLITE_IOERR_CORRUPTFS)
        }
        // Statements that fit each table of ours do not fit this one.
        Some(ErrorCode::Unknown) => true,
        _ => false,
    }
}

pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(code(error), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// The error of a file that cannot be opened, in these words.
pub(super) fn refused(path: &Path, why: &str) -> Error {
    Error::new(ErrorKind::Config, format!("the session file {} {why}", path.display()))
}
