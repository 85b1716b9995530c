//! What can happen to a session file and to the processes that have it open: nothing acknowledged is lost, nobody is
//! brought back, nobody starves.
//!
//! By default a few rounds of each; with `BOTTLE_SESSION_LONG=1` as many as are claimed.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use bottle_session::server::native::Native;
use bottle_session::{
    Action, App, Durability, ErrorKind, IdFormat, Load, Saved, Session, SessionId, SessionPlugin,
    SessionStore, SqliteStore,
};
use rusqlite::Connection;

use crate::sqlite_store::is_closed;
use crate::sqlite_tombstones;
use crate::support::http::Browser;
use crate::support::serving::Serving;
use crate::support::sessions::{IDLE, create, fields, fresh_id, load, owned, save, together};

/// What a process of this test program is to do: the file, and more.
const FILE: &str = "BOTTLE_SESSION_TEST_FILE";
const TASK: &str = "BOTTLE_SESSION_TEST_TASK";

pub const THREADS: usize = 8;

pub fn rounds(long: usize, short: usize) -> usize {
    if std::env::var_os("BOTTLE_SESSION_LONG").is_some() { long } else { short }
}

/// This test program as another process, which runs the test that carries out the task.
pub fn process(task: &str, path: &Path, inside: &[&str]) -> Command {
    let this = std::env::current_exe().unwrap();
    let arguments =
        ["sqlite_faults::another_process", "--exact", "--nocapture", "--test-threads=1"];
    let mut command = match inside {
        [] => Command::new(&this),
        [program, rest @ ..] => {
            let mut command = Command::new(program);
            command.args(rest).arg(&this);
            command
        }
    };
    command.args(arguments).env(FILE, path).env(TASK, task);
    command
}

/// What another process does. Without the variables there is nothing to do.
#[test]
fn another_process() {
    let (Some(path), Ok(task)) = (std::env::var_os(FILE), std::env::var(TASK)) else { return };
    let path = PathBuf::from(path);
    match task.as_str() {
        "save full" => save_until_killed(&path, Durability::Full),
        "save relaxed" => save_until_killed(&path, Durability::Relaxed),
        "leave full" => sqlite_tombstones::leave_until_killed(&path, Durability::Full),
        "leave relaxed" => sqlite_tombstones::leave_until_killed(&path, Durability::Relaxed),
        "end" => sqlite_tombstones::end_what_moves(&path),
        "count" => {
            count(&SqliteStore::open(&path).unwrap(), &shared_ids(), "other");
        }
        "full disk" => fill_the_disk(&path),
        "read-only" => find_it_read_only(&path),
        other => panic!("no task is called {other}"),
    }
}

/// Says each save that was acknowledged: what it was, an id, and another id or a number.
pub fn say(what: &str, id: &SessionId, more: &str) {
    let line = format!("> {what} {} {more}\n", id.expose());
    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
}

fn save_until_killed(path: &Path, durability: Durability) {
    let store = SqliteStore::open(path).unwrap().durability(durability);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                // Of its own process, as ids of tests are.
                let id = random_id();
                assert_eq!(
                    save(&store, &id, Action::Create, &[("n", "0")]).unwrap(),
                    Saved::Stored
                );
                for number in 1_u64.. {
                    let number = number.to_string();
                    let saved = save(&store, &id, Action::Update, &[("n", &number)]).unwrap();
                    assert_eq!(saved, Saved::Stored);
                    say("saved", &id, &number);
                }
            });
        }
    });
}

pub fn random_id() -> SessionId {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).unwrap();
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    SessionId::parse(&format!("{text:x>42}A"), IdFormat::Base64Url).unwrap()
}

#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    for (task, durability) in
        [("save full", Durability::Full), ("save relaxed", Durability::Relaxed)]
    {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sessions.db");
        let (mut all, mut acknowledged) = (HashMap::new(), 0);
        for round in 0..rounds(50, 4) {
            // Sooner and later.
            let saved = kill_after(process(task, &path, &[]), 100 + 311 * round % 900);
            acknowledged += saved.len();
            for [_, id, number] in saved {
                all.insert(id, number.parse::<u64>().unwrap());
            }
            let store = SqliteStore::open(&path).unwrap().durability(durability);
            for (id, number) in &all {
                let id = SessionId::parse(id, IdFormat::Base64Url).unwrap();
                let record = load(&store, &id).unwrap().expect("it was acknowledged");
                let held: u64 = record.fields.get("n").unwrap().parse().unwrap();
                assert!(held >= *number, "{task}, round {round}: {held} instead of {number}");
            }
            let file = Connection::open(&path).unwrap();
            let whole: String =
                file.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
            assert_eq!(whole, "ok", "{task}, round {round}");
        }
        println!("{task}: {acknowledged} acknowledged, 0 lost");
    }
}

/// Kills the process once it has said so many lines, and returns all that it has said.
pub fn kill_after(mut command: Command, lines: usize) -> Vec<[String; 3]> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let mut saved = Vec::new();
    // Until the end: what it said before it was killed was acknowledged.
    for line in output.lines().map_while(Result::ok) {
        if let Some(said) = line.strip_prefix("> ") {
            let words: Vec<_> = said.split(' ').map(str::to_owned).collect();
            saved.push(words.try_into().expect("three words"));
        }
        if saved.len() == lines {
            child.kill().unwrap();
        }
    }
    let _ = child.wait();
    assert!(saved.len() >= lines, "it ended by itself after {} saves", saved.len());
    saved
}

/// Ids that both processes know.
pub fn shared_ids() -> Vec<SessionId> {
    (0..10).map(|n| SessionId::parse(&format!("{n:x>42}A"), IdFormat::Base64Url).unwrap()).collect()
}

/// Each thread adds to a number of each session and sets a field of its own there, again and again.
fn count(store: &dyn SessionStore, ids: &[SessionId], who: &str) {
    let times = rounds(200, 20);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                let own = format!("{who} {thread}");
                for time in 0..times {
                    let id = &ids[(thread + time) % ids.len()];
                    store.increment(&Load { id, lifetimes: IDLE }, "n", 1).unwrap();
                    let time = time.to_string();
                    let saved = save(store, id, Action::Update, &[(&own, &time)]).unwrap();
                    assert_eq!(saved, Saved::Stored);
                }
            });
        }
    });
}

#[test]
fn two_processes_on_one_file_lose_no_field() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sessions.db");
    let store = SqliteStore::open(&path).unwrap();
    let ids = shared_ids();
    for id in &ids {
        assert_eq!(save(&store, id, Action::Create, &[]).unwrap(), Saved::Stored);
    }
    let mut other = Child::spawned(process("count", &path, &[]));
    count(&store, &ids, "this");
    other.succeeds();
    let times = rounds(200, 20);
    let mut sum = 0;
    for (at, id) in ids.iter().enumerate() {
        let record = load(&store, id).unwrap().unwrap();
        sum += record.fields.get("n").unwrap().parse::<usize>().unwrap();
        for (who, thread) in
            ["this", "other"].iter().flat_map(|who| (0..THREADS).map(move |n| (who, n)))
        {
            let last = (0..times).rev().find(|time| (thread + time) % ids.len() == at);
            let held = record.fields.get(&format!("{who} {thread}"));
            assert_eq!(held, last.map(|time| time.to_string()).as_deref(), "{who} {thread}");
        }
    }
    assert_eq!(sum, 2 * THREADS * times);
}

pub trait Spawned {
    fn spawned(command: Command) -> Self;
    fn succeeds(&mut self);
}

impl Spawned for Child {
    fn spawned(mut command: Command) -> Child {
        command.stdout(Stdio::null()).spawn().unwrap()
    }

    fn succeeds(&mut self) {
        assert!(self.wait().unwrap().success());
    }
}

#[test]
fn what_one_process_ends_stays_dead_for_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sessions.db");
    let [one, other] = [(), ()].map(|()| SqliteStore::open(&path).unwrap());
    for round in 0..rounds(1000, 100) {
        let id = create(&one, &[("a", "1")]);
        let to = fresh_id(IdFormat::default());
        let ends = match round % 2 {
            0 => Action::Destroy,
            _ => Action::Rotate { to: &to },
        };
        let (saved, ended) = together(
            || save(&one, &id, Action::Update, &[("b", "2")]).unwrap(),
            || save(&other, &id, ends, &[]).unwrap(),
        );
        assert_eq!(ended, Saved::Stored);
        for store in [&one, &other] {
            assert_eq!(fields(store, &id), None);
            assert_eq!(save(store, &id, Action::Update, &[("late", "1")]).unwrap(), Saved::Gone);
        }
        if round % 2 == 1 {
            let kept: &[_] =
                if saved == Saved::Stored { &[("a", "1"), ("b", "2")] } else { &[("a", "1")] };
            assert_eq!(fields(&one, &to), Some(owned(kept)));
        }
    }
}

#[test]
fn sixteen_threads_that_do_everything_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("sessions.db")).unwrap();
    let shared = create(&store, &[("n", "0")]);
    let times = rounds(500, 50);
    std::thread::scope(|scope| {
        for thread in 0..16 {
            let (store, shared) = (&store, &shared);
            scope.spawn(move || {
                for time in 0..times {
                    let number = (thread * times + time).to_string();
                    let id = create(store, &[("own", &number)]);
                    store.increment(&Load { id: shared, lifetimes: IDLE }, "n", 1).unwrap();
                    let to = fresh_id(IdFormat::default());
                    let moved =
                        save(store, &id, Action::Rotate { to: &to }, &[("b", "2")]).unwrap();
                    assert_eq!(moved, Saved::Stored);
                    assert_eq!(fields(store, &to), Some(owned(&[("b", "2"), ("own", &number)])));
                    assert_eq!(fields(store, &id), None);
                    assert_eq!(save(store, &to, Action::Destroy, &[]).unwrap(), Saved::Stored);
                    assert_eq!(fields(store, &to), None);
                }
            });
        }
    });
    assert_eq!(fields(&store, &shared), Some(owned(&[("n", &(16 * times).to_string())])));
}

/// Runs a task on a file system of its own, of this many MiB.
fn on_a_disk_of(mebibytes: usize, task: &str) {
    let folder = tempfile::tempdir().unwrap();
    let script = format!(
        "mount -t tmpfs -o size={mebibytes}m tmpfs {} && exec \"$@\"",
        folder.path().display()
    );
    let inside = ["unshare", "--map-root-user", "--mount", "--", "sh", "-c", &script, "sh"];
    let done = process(task, &folder.path().join("sessions.db"), &inside).output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{said}{}", String::from_utf8_lossy(&done.stderr));
    assert!(said.contains(&format!("done: {task}")), "{said}");
}

#[test]
fn a_disk_that_fills_up_fails_changes_alone_and_all_is_well_when_there_is_room() {
    on_a_disk_of(12, "full disk");
}

fn fill_the_disk(path: &Path) {
    let ballast = path.with_file_name("ballast");
    std::fs::write(&ballast, vec![0; 4 * 1024 * 1024]).unwrap();
    let store = SqliteStore::open(path).unwrap();
    let long = "x".repeat(20_000);
    let mut kept = Vec::new();
    let error = loop {
        let id = fresh_id(IdFormat::default());
        match save(&store, &id, Action::Create, &[("long", &long)]) {
            Ok(saved) => assert_eq!(saved, Saved::Stored),
            Err(error) => break error,
        }
        kept.push(id);
    };
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("make room on its disk"), "{error}");
    assert!(kept.len() > 20, "{}", kept.len());
    let all_are_there = |store: &SqliteStore| {
        kept.iter().for_each(|id| assert_eq!(fields(store, id), Some(owned(&[("long", &long)]))));
    };
    all_are_there(&store);
    // A log-out is a change, too, and none of these is acknowledged.
    let log_out = save(&store, &kept[0], Action::Destroy, &[]);
    let grown = save(&store, &kept[1], Action::Update, &[("more", &long)]);
    for failed in [&log_out, &grown] {
        assert!(
            failed.as_ref().is_err_and(|error| error.kind() == ErrorKind::Unavailable),
            "{failed:?}"
        );
    }
    all_are_there(&store);
    std::fs::remove_file(&ballast).unwrap();
    assert_eq!(save(&store, &kept[0], Action::Update, &[]).unwrap(), Saved::Stored);
    let late = create(&store, &[("late", "1")]);
    drop(store);
    let store = SqliteStore::open(path).unwrap();
    all_are_there(&store);
    assert_eq!(fields(&store, &late), Some(owned(&[("late", "1")])));
    println!("done: full disk");
}

#[test]
fn a_read_only_file_system_is_refused_in_so_many_words() {
    on_a_disk_of(12, "read-only");
}

fn find_it_read_only(path: &Path) {
    let store = SqliteStore::open(path).unwrap();
    create(&store, &[("a", "1")]);
    drop(store);
    is_closed(path);
    let folder = path.parent().unwrap();
    let mounted = Command::new("mount").args(["-o", "remount,ro"]).arg(folder).status().unwrap();
    assert!(mounted.success());
    for (path, text) in [
        (path.to_owned(), "cannot be written: it, or its file system, is read-only for this user"),
        (folder.join("other.db"), "is on a read-only file system"),
    ] {
        let error = SqliteStore::open(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.to_string().contains(text), "{error}");
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    }
    println!("done: read-only");
}

#[test]
fn a_server_goes_on_while_a_save_waits_for_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sessions.db");
    let (ran, has_run) = mpsc::channel();
    let mut app = App::new();
    app.install(SessionPlugin::new().file(&path)).unwrap();
    app.get("/set", move |session: &mut Session| {
        session.set("name", "Ada");
        ran.send(()).unwrap();
    });
    app.get("/name", |session: &mut Session| session.get("name").unwrap_or("nobody").to_owned());
    app.get("/plain", || "plain");
    let server = Serving::start(Native::bind("127.0.0.1:0").unwrap(), app);
    let at = server.address;
    let mut ada = Browser::default();
    assert_eq!(ada.get(at, "/set").status, 200);
    has_run.recv_timeout(Duration::from_secs(60)).unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    std::thread::scope(|scope| {
        let mut waiting = ada.clone();
        let waiting = scope.spawn(move || waiting.get(at, "/set").status);
        has_run.recv_timeout(Duration::from_secs(60)).unwrap();
        // Were a loop to wait, these would come when the lock is given up as lost, and the save would fail.
        assert_eq!(Browser::default().text(at, "/plain"), "plain");
        assert_eq!(ada.text(at, "/name"), "Ada");
        other.execute_batch("ROLLBACK").unwrap();
        assert_eq!(waiting.join().unwrap(), 200);
    });
}
