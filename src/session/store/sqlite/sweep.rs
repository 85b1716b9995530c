//! Removing what has expired, and giving the space back: once a minute at most, in short steps, on a thread of its own
//! that ends when it is done. Saves wait for a step at most, requests for none.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread::Builder;
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};

use super::database::Database;
use super::record::Timestamp;
use crate::logging::{OneLine, ThrottledLog};
use crate::{ErrorKind, Result};

/// How often there is a sweep, where somebody comes.
const EVERY: Duration = Duration::from_secs(60);

/// How long a step may take, and no less than half of that where there is as much to do: a save may have to wait for it.
const STEP: Duration = Duration::from_millis(10);

/// How many rows or pages the first step takes, and each at least and at most.
const FIRST: u32 = 64;
const LEAST: u32 = 16;
const MOST: u32 = 4096;

/// How many pages must be free, and what part of the file, before they are given back.
const FREE_PAGES: u32 = 64;
const FREE_PART: u32 = 4;

/// When the next sweep is due.
pub(super) struct Sweeping {
    opened: Instant,
    /// In milliseconds since the file was opened.
    due: AtomicU64,
    running: Arc<AtomicBool>,
    failed: ThrottledLog,
}

impl Sweeping {
    pub(super) fn new() -> Sweeping {
        Sweeping {
            opened: Instant::now(),
            due: AtomicU64::new(0),
            running: Arc::default(),
            failed: ThrottledLog::default(),
        }
    }

    fn now(&self) -> u64 {
        self.opened.elapsed().as_millis() as u64
    }

    /// Nothing where there is a sweep already.
    fn begin(&self) -> Option<Running> {
        let began = !self.running.swap(true, Ordering::SeqCst);
        began.then(|| Running(self.running.clone()))
    }

    #[cfg(test)]
    pub(super) fn is_due_now(&self) {
        self.due.store(0, Ordering::Relaxed);
    }
}

/// The one sweep that runs, until this is dropped: also where its thread panics, or was refused by the system.
struct Running(Arc<AtomicBool>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

/// What a sweep is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Rows that have expired are removed.
    Rows,
    /// Pages that hold nothing are given back.
    Pages,
    /// What was done is written back, which makes the file as short as it can be.
    File,
}

impl Database {
    /// Starts a sweep where one is due. Whoever uses the store calls this.
    pub(super) fn sweep_if_due(self: &Arc<Database>) {
        let sweeping = &self.sweeping;
        let now = sweeping.now();
        if now < sweeping.due.load(Ordering::Relaxed) {
            return;
        }
        let Some(running) = sweeping.begin() else { return };
        sweeping.due.store(now + EVERY.as_millis() as u64, Ordering::Relaxed);
        let database = Arc::downgrade(self);
        let thread = Builder::new().name("session-sweep".to_owned());
        // Where there is no thread, another time.
        let _ = thread.spawn(move || {
            let _running = running;
            run(&database);
        });
    }

    fn tell_of_sweep(&self, outcome: Result<()>) {
        match outcome {
            Err(error) if error.kind() == ErrorKind::Config => self.health.is_loud(&error),
            Err(error) => self.sweeping.failed.log_throttled(log::Level::Warn, "sweep", || {
                format!("expired sessions stay in the file for now: {}", OneLine(error))
            }),
            Ok(()) => {}
        }
    }
}

/// Sweeps as long as the store is there.
fn run(database: &Weak<Database>) {
    let mut sweep = Sweep::new();
    loop {
        let Some(database) = database.upgrade() else { return };
        let begun = Instant::now();
        let step = sweep.step(&database);
        let took = begun.elapsed();
        match step {
            Ok(true) => sweep.pace(took),
            ended => return database.tell_of_sweep(ended.map(drop)),
        }
        drop(database);
        // Others have as much of the time.
        std::thread::sleep(took);
    }
}

/// One sweep.
pub(super) struct Sweep {
    stage: Stage,
    /// How many rows or pages the next step takes.
    size: u32,
    /// Whether there was anything.
    swept: bool,
}

impl Sweep {
    pub(super) fn new() -> Sweep {
        Sweep { stage: Stage::Rows, size: FIRST, swept: false }
    }

    /// Does one step, and says whether there is another.
    pub(super) fn step(&mut self, database: &Database) -> Result<bool> {
        let size = self.size;
        match self.stage {
            Stage::Rows => {
                database.check_files()?;
                let removed = database.maintain(|connection, now| remove(connection, now, size))?;
                self.swept |= removed > 0;
                if removed < size as usize {
                    let is_worth_it = database.read(is_worth_giving_back)?;
                    self.stage = if is_worth_it { Stage::Pages } else { Stage::File };
                    self.size = FIRST;
                }
                Ok(true)
            }
            Stage::Pages => {
                self.swept = true;
                let (before, left) = database.maintain(|connection, _| {
                    Ok((number(connection, "freelist_count")?, give_back(connection, size)?))
                })?;
                // A file that was made without auto_vacuum gives nothing back.
                if left == 0 || left >= before {
                    self.stage = Stage::File;
                }
                Ok(true)
            }
            Stage::File => {
                if self.swept {
                    database.checkpoint()?;
                }
                Ok(false)
            }
        }
    }

    /// Makes the next step as large as it can be.
    fn pace(&mut self, took: Duration) {
        if took > STEP {
            self.size = (self.size / 2).max(LEAST);
        } else if took < STEP / 2 {
            self.size = (self.size * 2).min(MOST);
        }
    }
}

/// Removes up to so many rows that have expired, the first ones first.
fn remove(connection: &Connection, now: Timestamp, most: u32) -> rusqlite::Result<usize> {
    let mut statement = connection.prepare_cached(
        "DELETE FROM sessions WHERE rowid IN ( \
         SELECT rowid FROM sessions INDEXED BY sessions_by_end WHERE expires / 60000 < ?1 / 60000 \
         ORDER BY expires / 60000 LIMIT ?2)",
    )?;
    statement.execute(params![now.0, most])
}

/// Whether much of the file holds nothing.
fn is_worth_giving_back(connection: &Connection) -> rusqlite::Result<bool> {
    let free = number(connection, "freelist_count")?;
    Ok(free >= FREE_PAGES && free >= number(connection, "page_count")? / FREE_PART)
}

/// Moves up to so many free pages to the end of the file and cuts it; how many are left.
fn give_back(connection: &Connection, pages: u32) -> rusqlite::Result<u32> {
    let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
    let mut rows = statement.query([])?;
    // It gives back one page for each row that is asked for.
    while rows.next()?.is_some() {}
    number(connection, "freelist_count")
}

fn number(connection: &Connection, pragma: &str) -> rusqlite::Result<u32> {
    connection.pragma_query_value(None, pragma, |row| row.get(0))
}
