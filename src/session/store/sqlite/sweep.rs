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

/// How often a sweep is started, if the store is used.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// How long a step may take, as a save may have to wait for it. Steps that take less than half of it are made larger.
const MAX_STEP_TIME: Duration = Duration::from_millis(10);

/// How many rows or pages the first step handles, and each step at least and at most.
const FIRST_STEP: u32 = 64;
const MIN_STEP: u32 = 16;
const MAX_STEP: u32 = 4096;

/// How many pages must be free, and what part of the file, before they are given back.
const MIN_FREE_PAGES: u32 = 64;
const MIN_FREE_FRACTION: u32 = 4;

/// When the next sweep is due.
pub(super) struct SweepSchedule {
    opened: Instant,
    /// In milliseconds since the file was opened.
    due: AtomicU64,
    running: Arc<AtomicBool>,
    failed: ThrottledLog,
}

impl SweepSchedule {
    pub(super) fn new() -> SweepSchedule {
        SweepSchedule {
            opened: Instant::now(),
            due: AtomicU64::new(0),
            running: Arc::default(),
            failed: ThrottledLog::default(),
        }
    }

    fn now(&self) -> u64 {
        self.opened.elapsed().as_millis() as u64
    }

    /// `None` if a sweep is running.
    fn begin(&self) -> Option<SweepGuard> {
        let began = !self.running.swap(true, Ordering::SeqCst);
        began.then(|| SweepGuard(self.running.clone()))
    }

    #[cfg(test)]
    pub(super) fn make_due(&self) {
        self.due.store(0, Ordering::Relaxed);
    }
}

/// Marks that a sweep is running until it is dropped, even if its thread panics or cannot be started.
struct SweepGuard(Arc<AtomicBool>);

impl Drop for SweepGuard {
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
    /// Starts a sweep if one is due. Called with each use of the store.
    pub(super) fn sweep_if_due(self: &Arc<Database>) {
        let sweeping = &self.sweeping;
        let now = sweeping.now();
        if now < sweeping.due.load(Ordering::Relaxed) {
            return;
        }
        let Some(running) = sweeping.begin() else { return };
        sweeping.due.store(now + SWEEP_INTERVAL.as_millis() as u64, Ordering::Relaxed);
        let database = Arc::downgrade(self);
        let thread = Builder::new().name("session-sweep".to_owned());
        // Where there is no thread, another time.
        let _ = thread.spawn(move || {
            let _running = running;
            run(&database);
        });
    }

    fn log_outcome(&self, outcome: Result<()>) {
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
            ended => return database.log_outcome(ended.map(drop)),
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
        Sweep { stage: Stage::Rows, size: FIRST_STEP, swept: false }
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
                    self.size = FIRST_STEP;
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
        if took > MAX_STEP_TIME {
            self.size = (self.size / 2).max(MIN_STEP);
        } else if took < MAX_STEP_TIME / 2 {
            self.size = (self.size * 2).min(MAX_STEP);
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
    Ok(free >= MIN_FREE_PAGES && free >= number(connection, "page_count")? / MIN_FREE_FRACTION)
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
