//! The open file: one connection writes, some read, and neither waits for the other.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use rusqlite::Connection;

use super::Durability;
use super::errors::{failed, refused};
use super::expired::{ExpiredRow, ExpiredRows, Expiry};
use super::files::Files;
use super::health::Health;
use super::open::{Opened, open};
use super::record::Timestamp;
use super::sweep::SweepSchedule;
use super::write::mark_expired;
use crate::Result;
use crate::lock::{lock, try_lock, unpoisoned};
use crate::logging::OneLine;

/// How long to wait for a lock that another process holds.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The same after a write has failed and until one succeeds: the following writes must not wait as long for the same lock.
const SHORT_BUSY_TIMEOUT: Duration = Duration::from_millis(100);

/// How long this process writes without a pause while another one wants to write as well.
const MAX_WRITE_TURN: Duration = Duration::from_millis(10);

/// How long that pause is: long enough for the other process to try the lock at least once.
const PAUSE: Duration = Duration::from_millis(1);

/// For how long other processes are expected to write after the last wait for one of them.
const CONTENTION_MEMORY: Duration = Duration::from_secs(1);

/// The time between two attempts to take the lock. SQLite's own busy handler waits longer each time, up to 100 ms, so that
/// of two busy processes the slower one starves.
const BUSY_RETRY_INTERVAL: Duration = Duration::from_micros(500);

pub(super) type Clock = Box<dyn Fn() -> SystemTime + Send + Sync>;

pub(super) struct Database {
    pub(super) path: PathBuf,
    files: Files,
    writer: Mutex<Writer>,
    readers: Readers,
    clock: Clock,
    busy_timeout: Duration,
    expired: ExpiredRows,
    pub(super) health: Health,
    pub(super) sweeping: SweepSchedule,
}

impl Database {
    pub(super) fn open(path: &Path, clock: Clock) -> Result<Database> {
        let cores = std::thread::available_parallelism().map_or(4, |cores| cores.get());
        let readers = cores.clamp(4, 16);
        let Opened { path, files, writer, readers } = open(path, readers)?;
        Ok(Database {
            path,
            files,
            writer: Mutex::new(Writer::new(writer)),
            readers: Readers::of(readers),
            clock,
            busy_timeout: BUSY_TIMEOUT,
            expired: ExpiredRows::default(),
            health: Health::default(),
            sweeping: SweepSchedule::new(),
        })
    }

    pub(super) fn now(&self) -> Timestamp {
        Timestamp::of((self.clock)())
    }

    /// Lets `act` read what has been committed.
    pub(super) fn read<T>(
        &self,
        act: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T> {
        let reader = self.readers.take();
        start_busy_timeout(self.busy_timeout);
        let done = act(reader.connection()).map_err(|error| failed(&self.path, "read", error));
        if let Err(error) = &done {
            self.health.is_loud(error);
        }
        done
    }

    /// Lets `act` write, in one transaction. Once this returns `Ok`, all of it is as durable as said, in the file that
    /// the next program will open; after an error none of it is to be acknowledged.
    pub(super) fn write<T>(
        &self,
        durability: Durability,
        act: impl FnOnce(&Connection, Timestamp) -> rusqlite::Result<T>,
    ) -> Result<T> {
        let busy_timeout =
            if self.health.has_failed() { SHORT_BUSY_TIMEOUT } else { self.busy_timeout };
        let mut writer = lock(&self.writer);
        writer.yield_to_other_processes();
        let done = self.transaction(writer, durability, busy_timeout, act);
        self.health.hear(&self.path, done.as_ref().err());
        done
    }

    /// Like [`write`](Database::write), for maintenance, which may fail as it is retried later.
    pub(super) fn maintain<T>(
        &self,
        act: impl FnOnce(&Connection, Timestamp) -> rusqlite::Result<T>,
    ) -> Result<T> {
        self.transaction(lock(&self.writer), Durability::Relaxed, SHORT_BUSY_TIMEOUT, act)
    }

    fn transaction<T>(
        &self,
        mut writer: MutexGuard<'_, Writer>,
        durability: Durability,
        busy_timeout: Duration,
        act: impl FnOnce(&Connection, Timestamp) -> rusqlite::Result<T>,
    ) -> Result<T> {
        let expired = self.expired.all();
        let done = writer.transaction(durability, busy_timeout, |connection| {
            for row in &expired {
                mark_expired(connection, row)?;
            }
            act(connection, self.now())
        });
        let done = done.map_err(|error| failed(&self.path, "write", error))?;
        self.check_files()?;
        drop(writer);
        self.expired.forget(&expired);
        Ok(done)
    }

    /// Fails if the open file is no longer the one under its path.
    pub(super) fn check_files(&self) -> Result<()> {
        match self.files.lost() {
            None => Ok(()),
            Some(lost) => Err(refused(
                &self.path,
                &format!(
                    "was removed or replaced while it was open ({} is not what it was): nothing that is saved now \
                     would be found again; put it back as it was, or restart the program",
                    lost.display()
                ),
            )),
        }
    }

    /// The expiry that was found of this row before, as long as its `expires` is this, even if the clock has gone back since.
    pub(super) fn known_expiry(&self, digest: &[u8; 32], expires: Timestamp) -> Option<Expiry> {
        self.expired.get(digest, expires)
    }

    /// Makes rows stay expired when the clock goes back, or the absolute limit grows. Does not wait:
    /// what is not written now is written by the next transaction, and this process remembers it until then.
    pub(super) fn mark_expired(&self, expired: Vec<ExpiredRow>) {
        self.expired.add(expired);
        let Some(writer) = try_lock(&self.writer) else { return };
        let nothing_else = |_: &Connection, _| Ok(());
        let marked = self.transaction(writer, Durability::Relaxed, Duration::ZERO, nothing_else);
        if let Err(error) = marked {
            log::debug!("what has expired stays in the file for now: {}", OneLine(error));
        }
    }

    /// Checkpoints the write-ahead log as far as no reader needs it, over a read connection, so that no write waits.
    pub(super) fn checkpoint(&self) -> Result<()> {
        self.read(|connection| {
            connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
        })
    }

    #[cfg(test)]
    pub(super) fn set_busy_timeout(&mut self, busy_timeout: Duration) {
        self.busy_timeout = busy_timeout;
    }

    #[cfg(test)]
    pub(super) fn with_writer<T>(&self, act: impl FnOnce(&Connection) -> T) -> T {
        act(&lock(&self.writer).connection)
    }
}

/// The one connection that writes.
struct Writer {
    connection: Connection,
    durability: Durability,
    /// When another process was last waited for.
    waited: Option<Instant>,
    /// Since when there was no pause in which another process could have begun to write.
    turn: Instant,
    ended: Instant,
}

impl Writer {
    fn new(connection: Connection) -> Writer {
        let now = Instant::now();
        Writer { connection, durability: Durability::Full, waited: None, turn: now, ended: now }
    }

    /// Pauses after a long run of writes if another process may be waiting for the lock: without a pause the lock is free
    /// for so short a time that a process which polls it hardly ever gets it.
    fn yield_to_other_processes(&mut self) {
        let now = Instant::now();
        if now.duration_since(self.ended) >= PAUSE {
            self.turn = now;
        }
        let is_alone =
            self.waited.is_none_or(|waited| now.duration_since(waited) > CONTENTION_MEMORY);
        if !is_alone && now.duration_since(self.turn) >= MAX_WRITE_TURN {
            std::thread::sleep(PAUSE);
            self.turn = Instant::now();
        }
    }

    fn transaction<T>(
        &mut self,
        durability: Durability,
        busy_timeout: Duration,
        act: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        if self.durability != durability {
            let synchronous = match durability {
                Durability::Full => "FULL",
                Durability::Relaxed => "NORMAL",
            };
            self.connection.pragma_update(None, "synchronous", synchronous)?;
            self.durability = durability;
        }
        start_busy_timeout(busy_timeout);
        let open = Open::begin(&self.connection, "BEGIN IMMEDIATE")?;
        if HAS_WAITED.get() {
            self.turn = Instant::now();
            self.waited = Some(self.turn);
        }
        let done = act(&self.connection)?;
        open.commit()?;
        self.ended = Instant::now();
        Ok(done)
    }
}

/// A transaction that is rolled back unless it is committed, also by a panic.
pub(super) struct Open<'a>(&'a Connection);

impl<'a> Open<'a> {
    pub(super) fn begin(connection: &'a Connection, sql: &str) -> rusqlite::Result<Open<'a>> {
        let open = Open(connection);
        // One whose end has failed.
        open.roll_back()?;
        connection.prepare_cached(sql)?.execute([])?;
        Ok(open)
    }

    pub(super) fn commit(self) -> rusqlite::Result<()> {
        self.0.prepare_cached("COMMIT")?.execute([]).map(drop)
    }

    fn roll_back(&self) -> rusqlite::Result<()> {
        match self.0.is_autocommit() {
            true => Ok(()),
            false => self.0.execute_batch("ROLLBACK"),
        }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        // Where that fails the next one tries again.
        let _ = self.roll_back();
    }
}

/// The pool of read connections. A thread that finds none free waits until one is returned.
struct Readers {
    free: Mutex<Free>,
    returned: Condvar,
}

struct Free {
    /// Those not in use, in their places.
    connections: Vec<Option<Connection>>,
    /// How many threads wait for one: to wake nobody costs a system call, too.
    waiting: usize,
}

impl Readers {
    fn of(connections: Vec<Connection>) -> Readers {
        let connections = connections.into_iter().map(Some).collect();
        Readers { free: Mutex::new(Free { connections, waiting: 0 }), returned: Condvar::new() }
    }

    /// The first that is free: its cache is the warmest, and the largest.
    fn take(&self) -> Reader<'_> {
        let mut free = lock(&self.free);
        loop {
            if let Some(place) = free.connections.iter().position(Option::is_some) {
                let connection = free.connections[place].take();
                return Reader { readers: self, place, connection };
            }
            free.waiting += 1;
            free = unpoisoned(self.returned.wait(free));
            free.waiting -= 1;
        }
    }
}

struct Reader<'a> {
    readers: &'a Readers,
    place: usize,
    /// There until this is dropped.
    connection: Option<Connection>,
}

impl Reader<'_> {
    fn connection(&self) -> &Connection {
        match &self.connection {
            Some(connection) => connection,
            None => unreachable!("a reader has its connection as long as it is there"),
        }
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        let mut free = lock(&self.readers.free);
        free.connections[self.place] = self.connection.take();
        let somebody_waits = free.waiting > 0;
        drop(free);
        if somebody_waits {
            self.readers.returned.notify_one();
        }
    }
}

thread_local! {
    static BUSY_DEADLINE: Cell<Option<Instant>> = const { Cell::new(None) };
    static HAS_WAITED: Cell<bool> = const { Cell::new(false) };
}

/// Sets how long this thread waits for locks of other processes, counted from now.
pub(super) fn start_busy_timeout(busy_timeout: Duration) {
    BUSY_DEADLINE.set(Instant::now().checked_add(busy_timeout));
    HAS_WAITED.set(false);
}

/// SQLite's busy handler: waits a moment, and returns whether to try the lock again.
pub(super) fn busy_handler(_: i32) -> bool {
    HAS_WAITED.set(true);
    let retry = BUSY_DEADLINE.get().is_some_and(|end| Instant::now() < end);
    if retry {
        std::thread::sleep(BUSY_RETRY_INTERVAL);
    }
    retry
}
