//! Opening a session file, or refusing to.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::database::{BUSY_TIMEOUT, busy_handler, start_busy_timeout};
use super::errors::{DAMAGED, code, failed, is_busy, is_damage, refused};
use super::files::Files;
use crate::lock::lock;
use crate::{Error, ErrorKind, Result};

/// "BtSs": whose file it is (`PRAGMA application_id`).
pub(super) const APPLICATION: i32 = 0x4274_5373;

/// The newest schema that this version knows (`PRAGMA user_version`).
pub(super) const SCHEMA: i32 = 2;

/// The index of ends is by the minute: an exact one would change with each save.
const TABLES: &str = "
CREATE TABLE sessions (
    key BLOB NOT NULL UNIQUE,    -- SHA-256 of the id
    mark BLOB NOT NULL,          -- of its owner
    created INTEGER NOT NULL,    -- times are milliseconds since 1970
    renewed INTEGER NOT NULL,    -- when the idle limit last began anew together with the cookie
    saved_for INTEGER NOT NULL,  -- the idle limit, in milliseconds, as the last save took it to be
    remember INTEGER,            -- the idle limit of its own
    expires INTEGER NOT NULL,
    user TEXT,                   -- who is logged in
    logged_in INTEGER,
    prefix TEXT,                 -- of the store where that is
    handle TEXT,                 -- what its user ends it by
    agent TEXT,
    address TEXT,
    next BLOB,                   -- of a session that has moved away: key and mark of where it is now
    grace TEXT,                  -- of a key that has a grace period, or had one: the new id, encrypted
    grace_ends INTEGER,          -- when that is over, or was
    fields TEXT                  -- a JSON object of texts; NULL once this is no session any more
) STRICT;
CREATE INDEX sessions_by_end ON sessions (expires / 60000);
CREATE INDEX sessions_by_user ON sessions (user, prefix) WHERE user IS NOT NULL;
";

/// What connections keep of the file in memory: the one that writes, and those that read. The first of these serves alone
/// as long as nobody else reads, and has the largest part: each has half of the one before, and this much at least.
const WRITER_KIB: i64 = 4096;
const FIRST_READER_KIB: i64 = 8192;
const LEAST_READER_KIB: i64 = 512;

/// Once the log is longer it is cut to this.
const LOG_BYTES: i64 = 64 * 1024 * 1024;

pub(super) struct Opened {
    pub(super) path: PathBuf,
    pub(super) files: Files,
    pub(super) writer: Connection,
    pub(super) readers: Vec<Connection>,
}

/// Opens the file, and makes it where there is none.
pub(super) fn open(path: &Path, readers: usize) -> Result<Opened> {
    // One at a time: what makes a file must not close it while somebody else has it open, which would drop their locks.
    static OPENING: Mutex<()> = Mutex::new(());
    let text = path.to_string_lossy();
    if text.is_empty() || text == ":memory:" || text.starts_with("file:") {
        return Err(Error::new(
            ErrorKind::Config,
            format!(
                "{text:?} is no path of a session file; sessions in memory are MemoryStore, and an address with \
                 options of SQLite's is not taken"
            ),
        ));
    }
    let path = std::path::absolute(path).map_err(|error| no_file(path, error))?;
    let _opening = lock(&OPENING);
    let is_empty = provide(&path)?;
    if !is_empty {
        inspect(&path)?;
    }
    let file = path.canonicalize().map_err(|error| no_file(&path, error))?;
    make_private(&file)?;
    let before = Files::main(&path);
    let writer = connect(&file, &path, WRITER_KIB)?;
    // Until it is known to be ours, its bytes stay as they are.
    let checkpoint = |at_close: bool| {
        let no = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
        writer.set_db_config(no, !at_close).map_err(|error| not_opened(&path, error))
    };
    checkpoint(false)?;
    establish(&writer, &path, is_empty)?;
    checkpoint(true)?;
    let reader = |place: usize| {
        let kib = (FIRST_READER_KIB >> place).max(LEAST_READER_KIB);
        let reader = connect(&file, &path, kib)?;
        let set = reader.pragma_update(None, "query_only", "ON");
        // Reads what is there, so that all is open from here on.
        set.and_then(|()| number(&reader, "user_version")).map_err(|e| not_opened(&path, e))?;
        Ok(reader)
    };
    let readers = (0..readers).map(reader).collect::<Result<_>>()?;
    let files = Files::of(&path, &file).filter(|files| Some(files.file()) == before);
    let files =
        files.ok_or_else(|| refused(&path, "was replaced while it was opened; try again"))?;
    Ok(Opened { path, files, writer, readers })
}

/// Makes the file where there is none, for its owner alone: SQLite gives the two beside it the same mode. Says whether
/// it is empty.
fn provide(path: &Path) -> Result<bool> {
    match fs::metadata(path) {
        Ok(there) if !there.is_file() => Err(refused(path, "is no file but something else")),
        Ok(there) => Ok(there.len() == 0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut options = OpenOptions::new();
            options.write(true).create_new(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            match options.open(path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match path.exists() {
                    // Another process has just made it.
                    true => Ok(fs::metadata(path).is_ok_and(|there| there.len() == 0)),
                    false => Err(refused(path, "is a link to what is not there")),
                },
                Err(error) => Err(no_file(path, error)),
                Ok(_) => Ok(true),
            }
        }
        Err(error) => Err(no_file(path, error)),
    }
}

/// The error of a file that cannot be made or looked at.
fn no_file(path: &Path, error: io::Error) -> Error {
    let folder = path.parent().unwrap_or(path).display();
    let why = match error.kind() {
        io::ErrorKind::NotFound => {
            format!("cannot be made, as there is no folder {folder}; make it, or name another")
        }
        io::ErrorKind::PermissionDenied => {
            format!("cannot be made or read by this user; folder {folder} must be theirs to write")
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            format!("cannot be made, as {folder} is on a read-only file system")
        }
        io::ErrorKind::StorageFull => {
            let text = format!("the session file {} cannot be made: {error}", path.display());
            return Error::new(ErrorKind::Unavailable, text).with_source(error);
        }
        _ => format!("cannot be made or read: {error}"),
    };
    refused(path, &why).with_source(error)
}

/// Refuses another program's file, and one of a newer version, before anything is written there or beside it: as SQLite
/// sees a file that never changes, without its lock and its log.
fn inspect(path: &Path) -> Result<()> {
    #[cfg(unix)]
    let bytes = std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str());
    #[cfg(not(unix))]
    let text = path.to_string_lossy().replace('\\', "/");
    #[cfg(not(unix))]
    let bytes = text.as_bytes();
    let address = format!("file:{}?immutable=1", percent_encode(bytes, NON_ALPHANUMERIC));
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let look = || {
        let connection = Connection::open_with_flags(&address, flags)?;
        // While its log is written back the file can be shorter than it says.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_WRITABLE_SCHEMA, true)?;
        Ok((number(&connection, "application_id")?, number(&connection, "user_version")?))
    };
    let (application, version) = look().map_err(|error| not_opened(path, error))?;
    accept(path, application, version)
}

/// Whether a file is ours, by what it says.
fn accept(path: &Path, application: i32, version: i32) -> Result<()> {
    if application != APPLICATION {
        return Err(refused(
            path,
            "is the database of another program; name one that is not there yet",
        ));
    }
    if (1..SCHEMA).contains(&version) {
        return Err(refused(
            path,
            &format!(
                "was written by a version of bottle-session from before the first release (schema {version}, this one \
                 knows {SCHEMA}); remove it, which logs everybody out, or name another file"
            ),
        ));
    }
    if version > SCHEMA {
        return Err(refused(
            path,
            &format!(
                "was written by a newer version of bottle-session (schema {version}, this one knows {SCHEMA}); run \
                 that, or name another file"
            ),
        ));
    }
    Ok(())
}

/// Takes the file, and what an earlier program has left beside it, from everybody but its owner. Whoever is not that
/// has to leave it as it is.
fn make_private(file: &Path) -> Result<()> {
    #[cfg(unix)]
    for file in super::files::with_log(file) {
        use std::os::unix::fs::PermissionsExt;
        let Ok(there) = fs::metadata(&file) else { continue };
        if there.permissions().mode() & 0o077 == 0 {
            continue;
        }
        match fs::set_permissions(&file, fs::Permissions::from_mode(0o600)) {
            Err(error) if error.kind() != io::ErrorKind::PermissionDenied => {
                return Err(no_file(&file, error));
            }
            _ => {}
        }
    }
    #[cfg(not(unix))]
    let _ = file;
    Ok(())
}

fn connect(file: &Path, path: &Path, cache_kib: i64) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || {
        let connection = Connection::open_with_flags(file, flags)?;
        connection.busy_handler(Some(busy_handler))?;
        connection.set_prepared_statement_cache_capacity(32);
        Ok(connection)
    };
    let connection = open().map_err(|error| not_opened(path, error))?;
    // SQLite opens for reading what cannot be written.
    if connection.is_readonly("main").unwrap_or(false) {
        return Err(refused(
            path,
            "cannot be written: it, or its file system, is read-only for this user",
        ));
    }
    start_busy_timeout(BUSY_TIMEOUT);
    let set = || {
        // Two processes may open a new file at once: what concerns the file comes first, under its lock.
        connection.pragma_update(None, "cache_size", -cache_kib)?;
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        connection.pragma_update(None, "cell_size_check", "ON")?;
        connection.pragma_update(None, "trusted_schema", "OFF")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        // Where fsync leaves it in the disk's own memory: on macOS.
        connection.pragma_update(None, "fullfsync", "ON")?;
        connection.pragma_update(None, "checkpoint_fullfsync", "ON")
    };
    set().map_err(|error| not_opened(path, error))?;
    Ok(connection)
}

/// Makes the file one of ours, or refuses it.
fn establish(connection: &Connection, path: &Path, is_empty: bool) -> Result<()> {
    let not_opened = |error| not_opened(path, error);
    if is_empty {
        // Before the first page, which then says whose file it is from the first moment on.
        let begin = || {
            connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
            connection.pragma_update(None, "application_id", APPLICATION)
        };
        begin().map_err(not_opened)?;
    }
    // Also as the log has it.
    let application = number(connection, "application_id").map_err(not_opened)?;
    let version = number(connection, "user_version").map_err(not_opened)?;
    accept(path, application, version)?;
    use_log(connection, path)?;
    connection.pragma_update(None, "wal_autocheckpoint", 1000).map_err(not_opened)?;
    let limit = format!("PRAGMA journal_size_limit = {LOG_BYTES}");
    connection.query_row(&limit, [], |_| Ok(())).map_err(not_opened)?;
    if version == 0 {
        let create = || {
            connection.execute_batch("BEGIN IMMEDIATE")?;
            // Another process may have been first.
            if number(connection, "user_version")? == 0 {
                connection.execute_batch(TABLES)?;
                connection.pragma_update(None, "user_version", SCHEMA)?;
            }
            connection.execute_batch("COMMIT")
        };
        create().map_err(not_opened)?;
    }
    Ok(())
}

/// Has changes written to a log beside the file (WAL), so that reads go on meanwhile.
pub(super) fn use_log(connection: &Connection, path: &Path) -> Result<()> {
    let until = Instant::now() + BUSY_TIMEOUT;
    let mode: String = loop {
        match connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)) {
            // Of this lock SQLite does not ask its busy handler.
            Err(error) if is_busy(&error) && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(1));
            }
            mode => break mode.map_err(|error| not_opened(path, error))?,
        }
    };
    match mode.as_str() {
        "wal" => Ok(()),
        other => Err(refused(
            path,
            &format!(
                "is where SQLite keeps no write-ahead log (its journal mode stays {other}); a network file system is \
                 one such place: name a file on a disk of this machine"
            ),
        )),
    }
}

fn number(connection: &Connection, pragma: &str) -> rusqlite::Result<i32> {
    connection.pragma_query_value(None, pragma, |row| row.get(0))
}

/// The error of a file that SQLite does not open.
fn not_opened(path: &Path, error: rusqlite::Error) -> Error {
    let why = match code(&error) {
        Some(ErrorCode::NotADatabase) => {
            "is no database of SQLite; name one that is not there yet, or move it away".to_owned()
        }
        _ if is_damage(&error) => format!("cannot be opened: {error}{DAMAGED}"),
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => format!(
            "cannot be opened: {error}; this user must be able to write it and its folder, where SQLite keeps two \
             files beside it"
        ),
        _ => return failed(path, "open", error),
    };
    refused(path, &why).with_source(error)
}
