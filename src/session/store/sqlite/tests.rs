mod tombstones;

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Barrier, Mutex};
use std::time::Duration;

use rusqlite::Connection;
use tempfile::TempDir;

use super::open::use_log;
use super::sweep::Sweep;
use super::*;
use crate::lock::lock;
use crate::session::id::{IdFormat, IdGenerator};
use crate::session::store::{Action, Changes, Lifetimes, Record};

const LIFETIMES: Lifetimes =
    Lifetimes { idle: Duration::from_secs(600), absolute: Some(Duration::from_secs(36_000)) };

struct Fixture {
    store: SqliteStore,
    seconds: Arc<AtomicU64>,
    ids: IdGenerator,
    folder: TempDir,
}

impl Fixture {
    fn new() -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let seconds = Arc::new(AtomicU64::new(1_000_000));
        let clock = seconds.clone();
        let store = SqliteStore::with_clock(folder.path().join("sessions.db"), move || {
            SystemTime::UNIX_EPOCH + Duration::from_secs(clock.load(Ordering::SeqCst))
        });
        Fixture { store: store.unwrap(), seconds, ids: IdGenerator::new(), folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("sessions.db")
    }

    fn id(&self) -> SessionId {
        self.ids.next(IdFormat::default()).unwrap()
    }

    fn pass(&self, seconds: u64) {
        self.seconds.fetch_add(seconds, Ordering::SeqCst);
    }

    fn save(&self, id: &SessionId, action: Action<'_>, pairs: &[(&str, &str)]) -> Result<Saved> {
        let fields = pairs.iter().map(|(key, value)| (key.to_string(), Some(value.to_string())));
        let changes = Changes { cleared: false, fields: fields.collect() };
        self.store.save(&Save::new(id, action, &changes, LIFETIMES))
    }

    fn create(&self, pairs: &[(&str, &str)]) -> SessionId {
        let id = self.id();
        assert_eq!(self.save(&id, Action::Create, pairs).unwrap(), Saved::Stored);
        id
    }

    fn create_many(&self, count: usize) -> Vec<SessionId> {
        let ids: Vec<_> = (0..count).map(|_| self.id()).collect();
        let changes = Changes {
            cleared: false,
            fields: [("user".to_owned(), Some("12345".to_owned()))].into(),
        };
        let save = |id| Save::new(id, Action::Create, &changes, LIFETIMES);
        for ids in ids.chunks(1000) {
            let saves: Vec<_> = ids.iter().map(save).collect();
            assert!(self.store.save_many(&saves).iter().all(|saved| saved.is_ok()));
        }
        ids
    }

    fn load(&self, id: &SessionId) -> Result<Option<Record>> {
        self.store.load(&Load { id, lifetimes: LIFETIMES }).map(Loaded::session)
    }

    fn holds(&self, id: &SessionId, pairs: &[(&str, &str)]) {
        let record = self.load(id).unwrap().expect("it is live");
        assert_eq!(record.fields.iter().collect::<Vec<_>>(), pairs);
    }

    /// Sweeps to the end; how many steps that took.
    fn sweep(&self) -> usize {
        let mut sweep = Sweep::new();
        std::iter::from_fn(|| sweep.step(&self.store.database).unwrap().then_some(())).count()
    }

    fn count(&self) -> i64 {
        let sql = "SELECT count(*) FROM sessions";
        self.store.database.read(|file| file.query_row(sql, [], |row| row.get(0))).unwrap()
    }

    fn bytes(&self) -> u64 {
        fs::metadata(self.path()).unwrap().len()
    }

    /// What the store says to whoever hears of it: whether it is down, each time.
    fn news(&self) -> Arc<Mutex<Vec<bool>>> {
        let news = Arc::new(Mutex::new(Vec::new()));
        let told = news.clone();
        self.store.on_breaker(Box::new(move |down| lock(&told).push(down.is_some())));
        news
    }
}

#[track_caller]
fn fails<T: fmt::Debug>(result: Result<T>, kind: ErrorKind, text: &str) {
    let error = result.expect_err("this has to be an error");
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(text), "{error}");
}

#[test]
fn a_sweep_removes_what_has_expired_and_gives_the_space_back() {
    let fixture = Fixture::new();
    let dead = fixture.create_many(20_000);
    let full = fixture.bytes();
    fixture.pass(300);
    let live = fixture.create_many(10);
    // Of these the idle limit began anew.
    assert_eq!(fixture.save(&dead[0], Action::Update, &[]).unwrap(), Saved::Stored);
    fixture.pass(480);
    assert!(fixture.sweep() > 20, "in short steps");
    assert_eq!(fixture.count(), 11);
    assert!(fixture.load(&dead[0]).unwrap().is_some());
    assert!(live.iter().all(|id| fixture.load(id).unwrap().is_some()));
    assert!(full > 2_000_000, "{full}");
    assert!(fixture.bytes() < 200_000, "{} of {full} bytes", fixture.bytes());
    assert_eq!(fixture.sweep(), 1, "nothing is left to do");
}

#[test]
fn whoever_comes_starts_a_sweep() {
    let fixture = Fixture::new();
    fixture.create_many(100);
    fixture.pass(3600);
    let again = SqliteStore::with_clock(fixture.path(), {
        let seconds = fixture.seconds.clone();
        move || SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.load(Ordering::SeqCst))
    });
    let again = again.unwrap();
    assert_eq!(
        again.load(&Load { id: &fixture.id(), lifetimes: LIFETIMES }).unwrap(),
        Loaded::Unknown
    );
    while fixture.count() > 0 {
        std::thread::yield_now();
    }
}

#[test]
fn a_sweep_that_panicked_is_not_the_last_one() {
    let fixture = Fixture::new();
    fixture.create_many(10);
    fixture.pass(3600);
    let panics = Arc::new(AtomicU64::new(1));
    let store = SqliteStore::with_clock(fixture.path(), {
        let (seconds, panics) = (fixture.seconds.clone(), panics.clone());
        move || {
            let is_sweep = std::thread::current().name() == Some("session-sweep");
            if is_sweep
                && panics
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
                    .is_ok()
            {
                panic!("in the middle of a sweep");
            }
            SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.load(Ordering::SeqCst))
        }
    });
    let store = store.unwrap();
    let load = || store.load(&Load { id: &fixture.id(), lifetimes: LIFETIMES }).unwrap();
    let begun = std::time::Instant::now();
    while fixture.count() > 0 {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "{} panics are due",
            panics.load(Ordering::SeqCst)
        );
        store.database.sweeping.make_due();
        assert_eq!(load(), Loaded::Unknown);
        std::thread::yield_now();
    }
    assert_eq!(panics.load(Ordering::SeqCst), 0);
}

#[test]
fn what_was_seen_dead_stays_dead_when_the_clock_goes_back() {
    let fixture = Fixture::new();
    let (seen, unseen) = (fixture.create(&[("a", "1")]), fixture.create(&[("a", "1")]));
    let held = fixture.create(&[("a", "1")]);
    // Another process, which writes just then.
    let other = Connection::open(fixture.path()).unwrap();
    fixture.pass(1000);
    assert_eq!(fixture.load(&seen).unwrap(), None);
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(fixture.load(&held).unwrap(), None);
    fixture.seconds.fetch_sub(900, Ordering::SeqCst);
    assert_eq!(fixture.load(&seen).unwrap(), None);
    assert_eq!(fixture.load(&held).unwrap(), None, "also while its row is there");
    other.execute_batch("ROLLBACK").unwrap();
    for id in [&seen, &held] {
        assert_eq!(fixture.save(id, Action::Update, &[("late", "1")]).unwrap(), Saved::Gone);
        assert_eq!(fixture.load(id).unwrap(), None);
    }
    fixture.holds(&unseen, &[("a", "1")]);
    assert_eq!(fixture.count(), 1);
}

#[test]
fn a_full_disk_fails_what_changes_something_and_nobody_else_and_passes() {
    let fixture = Fixture::new();
    let news = fixture.news();
    let ids = fixture.create_many(1000);
    let limit = |pages: &str| {
        let sql = format!("PRAGMA max_page_count = {pages}");
        fixture.store.database.with_writer(|file| file.query_row(&sql, [], |_| Ok(()))).unwrap();
    };
    limit("1");
    let long = "x".repeat(50_000);
    for _ in 0..3 {
        let id = fixture.id();
        let saved = fixture.save(&id, Action::Create, &[("long", &long)]);
        fails(saved, ErrorKind::Unavailable, "database or disk is full; make room on its disk");
        assert_eq!(fixture.load(&id).unwrap(), None);
        assert!(ids.iter().all(|id| fixture.load(id).unwrap().is_some()));
    }
    assert_eq!(*lock(&news), [true]);
    limit("1000000");
    let id = fixture.create(&[("long", &long)]);
    fixture.holds(&id, &[("long", &long)]);
    assert_eq!(*lock(&news), [true, false]);
}

#[test]
fn a_lock_that_another_process_holds_is_waited_for_and_then_no_more() {
    let mut fixture = Fixture::new();
    let busy_timeout = Duration::from_millis(300);
    Arc::get_mut(&mut fixture.store.database).unwrap().set_busy_timeout(busy_timeout);
    let news = fixture.news();
    let id = fixture.create(&[("a", "1")]);
    let other = Connection::open(fixture.path()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    for (waits, action) in [(3, Action::Update), (1, Action::Destroy)] {
        let begun = std::time::Instant::now();
        let saved = fixture.save(&id, action, &[]);
        fails(saved, ErrorKind::Unavailable, "database is locked; another process holds its lock");
        assert!(begun.elapsed() >= busy_timeout / 3 * waits, "{:?}", begun.elapsed());
        fixture.holds(&id, &[("a", "1")]);
    }
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(fixture.save(&id, Action::Destroy, &[]).unwrap(), Saved::Stored);
    assert_eq!(*lock(&news), [true, false]);
}

#[test]
fn a_failed_commit_fails_everybody_in_it_and_brings_nothing_back() {
    let fixture = Fixture::new();
    let count = 16;
    let ids: Vec<_> = (0..count).map(|_| fixture.create(&[("a", "1")])).collect();
    let other = Connection::open(fixture.path()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let start = Barrier::new(count);
    std::thread::scope(|scope| {
        for id in &ids {
            let (fixture, start) = (&fixture, &start);
            scope.spawn(move || {
                start.wait();
                let saved = fixture.save(id, Action::Update, &[("a", "2")]);
                fails(saved, ErrorKind::Unavailable, "database is locked");
            });
        }
    });
    other.execute_batch("ROLLBACK").unwrap();
    ids.iter().for_each(|id| fixture.holds(id, &[("a", "1")]));
}

#[test]
fn a_panic_leaves_no_transaction() {
    let fixture = Fixture::new();
    let id = fixture.create(&[("a", "1")]);
    let panics = || {
        fixture.store.database.write(Durability::Full, |file, _| -> rusqlite::Result<()> {
            file.execute("DELETE FROM sessions", [])?;
            panic!("in the middle of a transaction")
        })
    };
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).is_err());
    fixture.holds(&id, &[("a", "1")]);
    assert_eq!(fixture.save(&id, Action::Update, &[("a", "2")]).unwrap(), Saved::Stored);
    fixture.holds(&id, &[("a", "2")]);
}

#[test]
fn a_row_that_is_none_of_ours_concerns_its_own_session_alone() {
    let fixture = Fixture::new();
    let fine = fixture.create(&[("a", "1")]);
    for damage in [
        "fields = '{\"a\":1}'",
        "fields = 'x'",
        "mark = x'0102030405060708'",
        "mark = (SELECT mark FROM sessions ORDER BY rowid LIMIT 1)",
        "fields = ''",
    ] {
        let id = fixture.create(&[("a", "1")]);
        let digest = id.digest();
        let sql = format!("UPDATE sessions SET {damage} WHERE key = ?1");
        let changed = fixture.store.database.with_writer(|file| file.execute(&sql, [&digest[..]]));
        assert_eq!(changed.unwrap(), 1, "{damage}");
        let text = "the row of a session is damaged";
        fails(fixture.load(&id), ErrorKind::Config, text);
        fails(fixture.save(&id, Action::Update, &[("a", "2")]), ErrorKind::Config, text);
        let loads = [&id, &fine].map(|id| Load { id, lifetimes: LIFETIMES });
        let [damaged, loaded] = &fixture.store.load_many(&loads)[..] else { panic!("two answers") };
        assert!(damaged.is_err() && loaded.as_ref().is_ok_and(|loaded| *loaded != Loaded::Unknown));
        // Whoever has it can leave it behind.
        assert_eq!(fixture.save(&id, Action::Destroy, &[]).unwrap(), Saved::Stored);
        assert_eq!(fixture.load(&id).unwrap(), None);
    }
}

#[test]
fn a_file_that_keeps_no_log_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sessions.db");
    let flags = rusqlite::OpenFlags::default();
    // Without shared memory, as on a network.
    let file = Connection::open_with_flags_and_vfs(&path, flags, c"unix-dotfile").unwrap();
    fails(use_log(&file, &path), ErrorKind::Config, "its journal mode stays delete");
}
