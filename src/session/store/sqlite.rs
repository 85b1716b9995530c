//! Sessions in one file, by SQLite.

mod database;
mod devices;
mod errors;
mod expired;
mod files;
mod group;
mod health;
mod json;
mod open;
mod record;
mod sweep;
#[cfg(test)]
mod tests;
mod tombstones;
mod write;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use rusqlite::Connection;

use self::database::{Database, Open};
use self::devices::{Ending, list};
use self::expired::ExpiredRow;
use self::group::Group;
use self::record::Key;
use self::write::{Answer, Found, Operation, Transaction, Write, damaged, find};
use super::devices::{Device, EndDevices};
use super::{BreakerObserver, Caps, Load, Loaded, Save, Saved, SessionStore};
use crate::pipeline::histogram::{Histogram, SECONDS, SIZES};
use crate::redis::copy;
use crate::session::id::SessionId;
use crate::{Error, ErrorKind, Result};

/// When a save in a file is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Once the disk has it (fsync): it survives the end of the process, `kill -9` included, and a power cut.
    #[default]
    Full,
    /// Once the operating system has it: it survives the end of the process, `kill -9` included, but a power cut may
    /// take back what was saved shortly before, as much as the system had not written yet. The file stays whole.
    Relaxed,
}

/// Keeps sessions in one file, by SQLite: they survive a restart, a kill and a power cut, and need no server (feature
/// `sqlite`).
///
/// For an app on one machine. Several processes may have the file open, during a restart for one. It must be on a disk
/// of that machine: on a network file system (NFS, SMB) locks do not hold, and what was saved can be lost. The guide has
/// [a page](crate::guide::file) on backups, on looking into the file, and on what goes wrong.
///
/// A save takes about as long as the disk takes to write (fsync); those that come at the same time share that. Loads
/// write nothing. What has expired is removed once a minute while somebody comes, and the space is given back. A session
/// with one short value takes about 160 bytes of the file.
///
/// ```
/// use bottle_session::{Durability, SqliteStore};
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("sessions.db");
///
/// let store = SqliteStore::open(path)?.durability(Durability::Relaxed);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// A disk that is full and a lock that another process holds for five seconds are of kind
/// [`Unavailable`](ErrorKind::Unavailable), a 503, for whoever changes something or logs out; loads go on, and all is
/// well again when there is room. A damaged file, or one that was removed or replaced while it was open, is of kind
/// [`Config`](ErrorKind::Config), a 500 and a line in the log: nobody becomes a stranger for it, and nothing is
/// acknowledged that the next program would not find.
///
/// # The clock
///
/// It is the machine's, which outlives the process: one that jumps far ahead ends all sessions.
pub struct SqliteStore {
    database: Arc<Database>,
    group: Group<Vec<Write>, Vec<Result<Answer>>>,
    durability: Durability,
    caps: Caps,
    prefix: String,
    commits: Commits,
}

/// What commits were like.
pub(crate) struct Commits {
    pub(crate) seconds: Histogram,
    /// How many saves went together.
    pub(crate) sizes: Histogram,
}

impl SqliteStore {
    /// Opens the file, and makes it where there is none, readable for this user alone. Sessions have at most 256 fields
    /// and 64 KiB.
    ///
    /// It stands beside two others while it is open, `-wal` and `-shm`, so the folder must be writable, too.
    ///
    /// # Errors
    ///
    /// Of kind [`Config`](ErrorKind::Config), with the path and what would do: the file is another program's or no
    /// database, or a newer version of this crate has written it, and stays as it is; it, or its folder, is not there or
    /// cannot be written; SQLite can keep no write-ahead log there; the path is `:memory:` or a `file:` address.
    pub fn open(path: impl AsRef<Path>) -> Result<SqliteStore> {
        SqliteStore::with_clock(path, SystemTime::now)
    }

    /// The same with this clock, so that a test can let time pass.
    pub fn with_clock(
        path: impl AsRef<Path>,
        clock: impl Fn() -> SystemTime + Send + Sync + 'static,
    ) -> Result<SqliteStore> {
        Ok(SqliteStore {
            database: Arc::new(Database::open(path.as_ref(), Box::new(clock))?),
            group: Group::new(),
            durability: Durability::Full,
            caps: Caps::default(),
            prefix: String::new(),
            commits: Commits { seconds: Histogram::new(SECONDS), sizes: Histogram::new(SIZES) },
        })
    }

    /// When a save is acknowledged: [`Durability::Full`] unless set.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> SqliteStore {
        self.durability = durability;
        self
    }

    /// How many fields one session holds at most.
    #[must_use]
    pub fn max_fields(mut self, fields: usize) -> SqliteStore {
        self.caps.fields = fields;
        self
    }

    /// How many bytes the keys and values of one session have at most.
    #[must_use]
    pub fn max_bytes(mut self, bytes: usize) -> SqliteStore {
        self.caps.bytes = bytes;
        self
    }

    /// What goes into the keys besides the ids: nothing unless set. Stores of one file with different prefixes know
    /// nothing of each other's sessions.
    #[must_use]
    pub fn key_prefix(mut self, prefix: impl Into<String>) -> SqliteStore {
        self.prefix = prefix.into();
        self
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.database.path
    }

    /// Has these carried out, with those of others who come at the same time, and returns one answer for each.
    fn carry_out(&self, writes: Vec<Write>) -> Vec<Result<Answer>> {
        self.database.sweep_if_due();
        let count = writes.len();
        let answers = self.group.submit(writes, |batches| self.transaction(batches));
        answers.unwrap_or_else(|| (0..count).map(|_| Err(abandoned())).collect())
    }

    /// Carries out all batches as one transaction. One that fails fails all that is in it.
    fn transaction(&self, batches: &[Vec<Write>]) -> Vec<Vec<Result<Answer>>> {
        let (caps, begun) = (self.caps, Instant::now());
        let done = self.database.write(self.durability, |connection, now| {
            let transaction = Transaction { connection, now, caps, prefix: &self.prefix };
            let batch = |batch: &Vec<Write>| {
                batch.iter().map(|write| transaction.carry_out(write)).collect()
            };
            batches.iter().map(batch).collect()
        });
        if done.is_ok() {
            self.commits.seconds.observe(begun.elapsed().as_secs_f64());
            self.commits.sizes.observe(batches.iter().map(Vec::len).sum::<usize>() as f64);
        }
        done.unwrap_or_else(|error| {
            let each = |batch: &Vec<Write>| batch.iter().map(|_| Err(copy(&error))).collect();
            batches.iter().map(each).collect()
        })
    }

    pub(crate) fn commits(&self) -> &Commits {
        &self.commits
    }

    /// How many bytes the file and its write-ahead log take.
    pub(crate) fn bytes(&self) -> u64 {
        let mut log = self.database.path.clone().into_os_string();
        log.push("-wal");
        let size = |path: &Path| std::fs::metadata(path).map_or(0, |found| found.len());
        size(&self.database.path) + size(Path::new(&log))
    }

    fn operate(&self, load: &Load<'_>, operation: Operation) -> Result<Answer> {
        let key = Key::of(load.id, &self.prefix);
        self.one(Write::Operate(key, load.lifetimes, operation))
    }

    fn one(&self, write: Write) -> Result<Answer> {
        self.carry_out(vec![write]).pop().unwrap_or_else(|| Err(abandoned()))
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore")
            .field("path", &self.database.path)
            .field("durability", &self.durability)
            .finish_non_exhaustive()
    }
}

impl SessionStore for SqliteStore {
    fn load(&self, load: &Load<'_>) -> Result<Loaded> {
        let mut records = self.load_many(std::slice::from_ref(load));
        records.pop().unwrap_or(Ok(Loaded::Unknown))
    }

    fn keeps_logins(&self) -> bool {
        true
    }

    fn keeps_tombstones(&self) -> bool {
        true
    }

    fn devices(&self, user: &str, this: Option<&SessionId>) -> Result<Vec<Device>> {
        let this = this.map(|id| Key::of(id, &self.prefix));
        let now = self.database.now();
        let read = |file: &Connection| list(file, &self.prefix, user, this.as_ref(), now);
        self.database.read(read)?
    }

    fn end_devices(&self, user: &str, which: EndDevices<'_>) -> Result<usize> {
        let which = Ending::of(which, |id| Key::of(id, &self.prefix));
        match self.one(Write::End(user.to_owned(), which))? {
            Answer::Ended(count) => Ok(count),
            _ => Err(abandoned()),
        }
    }

    fn save(&self, save: &Save<'_>) -> Result<Saved> {
        saved(self.one(Write::save(save, &self.prefix)))
    }

    fn increment(&self, load: &Load<'_>, key: &str, by: i64) -> Result<i64> {
        match self.operate(load, Operation::Increment(key.to_owned(), by))? {
            Answer::Sum(sum) => Ok(sum),
            _ => Err(abandoned()),
        }
    }

    fn take(&self, load: &Load<'_>, keys: &[&str]) -> Result<Vec<Option<String>>> {
        let keys = keys.iter().map(|key| key.to_string()).collect();
        match self.operate(load, Operation::Take(keys))? {
            Answer::Taken(values) => Ok(values),
            _ => Err(abandoned()),
        }
    }

    fn set_if_absent(&self, load: &Load<'_>, key: &str, value: &str) -> Result<bool> {
        match self.operate(load, Operation::SetIfAbsent(key.to_owned(), value.to_owned()))? {
            Answer::Set(set) => Ok(set),
            _ => Err(abandoned()),
        }
    }

    fn compare_and_set(
        &self,
        load: &Load<'_>,
        key: &str,
        held: Option<&str>,
        fields: &[(&str, &str)],
    ) -> Result<bool> {
        let (key, held) = (key.to_owned(), held.map(str::to_owned));
        let fields = fields.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let fields = fields.collect();
        match self.operate(load, Operation::CompareAndSet { key, held, fields })? {
            Answer::Set(set) => Ok(set),
            _ => Err(abandoned()),
        }
    }

    fn can_compare_and_set(&self) -> bool {
        true
    }

    fn load_many(&self, batch: &[Load<'_>]) -> Vec<Result<Loaded>> {
        let database = &self.database;
        database.sweep_if_due();
        let keys: Vec<_> = batch.iter().map(|load| Key::of(load.id, &self.prefix)).collect();
        let found = database.read(|connection| {
            let now = database.now();
            // One is a transaction by itself.
            let open = (keys.len() > 1).then(|| Open::begin(connection, "BEGIN")).transpose()?;
            let found = keys.iter().map(|key| find(connection, key));
            let found = found.collect::<rusqlite::Result<Vec<_>>>()?;
            open.map_or(Ok(()), Open::commit)?;
            Ok((now, found))
        });
        let (now, found) = match found {
            Ok(found) => found,
            Err(error) => return batch.iter().map(|_| Err(copy(&error))).collect(),
        };
        let mut expired = Vec::new();
        let mut records = Vec::with_capacity(batch.len());
        for ((load, key), found) in batch.iter().zip(keys).zip(found) {
            let at_this_time = |found: Found| {
                let Some(expires) = found.expires() else { return Some(found) };
                let known = database.known_expiry(&key.digest, expires);
                let expiry = known.or_else(|| {
                    let expiry = found.expiry(&load.lifetimes, now)?;
                    expired.push(ExpiredRow { digest: key.digest, expires, expiry });
                    Some(expiry)
                });
                found.after(expiry)
            };
            records.push(match found.and_then(at_this_time) {
                None => Ok(Loaded::Unknown),
                Some(Found::Damaged) => Err(damaged()),
                Some(Found::Session(stored)) => {
                    stored.record(load, now).map(Loaded::Session).map_err(|_| damaged())
                }
                Some(Found::Tombstone(tombstone)) => Ok(tombstone.loaded(now)),
            });
        }
        for error in records.iter().filter_map(|record| record.as_ref().err()) {
            database.health.is_loud(error);
        }
        if !expired.is_empty() {
            database.mark_expired(expired);
        }
        records
    }

    fn save_many(&self, batch: &[Save<'_>]) -> Vec<Result<Saved>> {
        if batch.is_empty() {
            return Vec::new();
        }
        let writes = batch.iter().map(|save| Write::save(save, &self.prefix));
        self.carry_out(writes.collect()).into_iter().map(saved).collect()
    }

    /// The system has the file in memory, or at least what is in use of it.
    fn loads_rarely_block(&self) -> bool {
        true
    }

    fn caps(&self) -> Caps {
        self.caps
    }

    fn on_breaker(&self, observer: BreakerObserver) {
        self.database.health.observe(observer);
    }
}

fn saved(answer: Result<Answer>) -> Result<Saved> {
    match answer? {
        Answer::Saved(saved) => Ok(saved),
        _ => Err(abandoned()),
    }
}

/// The error of a write whose commit panicked before it returned an answer.
fn abandoned() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the thread that wrote the session file panicked; whether this was written is not known",
    )
}
