//! Tombstones in a file: when a process is killed, and when another process writes.

use std::collections::HashMap;
use std::path::Path;
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use bottle_session::{
    Action, App, Changes, Durability, EndDevices, IdFormat, Load, Loaded, LogIn, Save, Saved,
    Session, SessionId, SessionPlugin, SessionStore, SqliteStore, TestClient,
};

use crate::sqlite_faults::{
    Spawned, THREADS, kill_after, process, random_id, rounds, say, shared_ids,
};
use crate::support::sessions::{IDLE, fresh_id, save};

const COOKIE: &str = "bottle.session";

/// A store whose clock stands still, so that nothing expires however long a test takes.
fn timeless(path: &Path) -> SqliteStore {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    SqliteStore::with_clock(path, move || time).unwrap()
}

/// Makes sessions, moves each to another id, and ends it by way of the first one.
pub fn leave_until_killed(path: &Path, durability: Durability) {
    let store = timeless(path).durability(durability);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let [from, to] = [random_id(), random_id()];
                    for (what, id, action) in [
                        ("created", &from, Action::Create),
                        ("moved", &from, Action::Rotate { to: &to }),
                        ("ended", &from, Action::Destroy),
                    ] {
                        assert_eq!(save(&store, id, action, &[]).unwrap(), Saved::Stored, "{what}");
                        say(what, &from, &to.expose());
                    }
                }
            });
        }
    });
}

#[test]
fn what_sessions_leave_is_there_when_the_process_is_killed_and_leads_where_it_should() {
    for (task, durability) in
        [("leave full", Durability::Full), ("leave relaxed", Durability::Relaxed)]
    {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sessions.db");
        for round in 0..rounds(50, 4) {
            let mut pairs = HashMap::new();
            for [what, from, to] in kill_after(process(task, &path, &[]), 100 + 311 * round % 900) {
                pairs.insert((from, to), what);
            }
            let store = timeless(&path).durability(durability);
            let found = |id: &SessionId| store.load(&Load { id, lifetimes: IDLE }).unwrap();
            for ((from, to), last) in &pairs {
                let [from, to] =
                    [from, to].map(|id| SessionId::parse(id, IdFormat::Base64Url).unwrap());
                let is_at_least = match (found(&from), found(&to)) {
                    (Loaded::Session(_), Loaded::Unknown) => last == "created",
                    (Loaded::Ended, Loaded::Session(_)) => last != "ended",
                    (Loaded::Ended, Loaded::Ended) => true,
                    half => panic!("{task}, round {round}: {half:?} after it was {last}"),
                };
                assert!(is_at_least, "{task}, round {round}: it was {last}, and is not any more");
                let has_ended = found(&from) == Loaded::Ended && found(&to) == Loaded::Ended;
                let ends = if has_ended { Saved::Gone } else { Saved::Stored };
                assert_eq!(save(&store, &from, Action::Destroy, &[]).unwrap(), ends);
                assert!([&from, &to].iter().all(|id| found(id).session().is_none()));
            }
        }
    }
}

/// Ends sessions that another process moves on meanwhile.
pub fn end_what_moves(path: &Path) {
    let store = timeless(path);
    for id in &shared_ids() {
        assert_eq!(save(&store, id, Action::Destroy, &[]).unwrap(), Saved::Stored);
    }
    assert_eq!(store.end_devices("ada", EndDevices::All).unwrap(), shared_ids().len());
}

#[test]
fn a_session_that_one_process_moves_is_ended_by_another() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sessions.db");
    let store = timeless(&path);
    let mut first = shared_ids();
    for id in &first {
        assert_eq!(save(&store, id, Action::Create, &[]).unwrap(), Saved::Stored);
    }
    for _ in 0..first.len() {
        let (id, none) = (fresh_id(IdFormat::default()), Changes::default());
        let save = Save::new(&id, Action::Create, &none, IDLE);
        let saved = store.save(&Save { login: Some(LogIn::new("ada")), ..save });
        assert_eq!(saved.unwrap(), Saved::Stored);
        first.push(id);
    }
    let move_on = |ids: &mut Vec<SessionId>| {
        let to = fresh_id(IdFormat::default());
        let moved = save(&store, &ids[ids.len() - 1], Action::Rotate { to: &to }, &[]).unwrap();
        if moved == Saved::Stored {
            ids.push(to);
        }
        moved
    };
    let all_were_ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for first in first {
            let (store, move_on, all_were_ended) = (&store, &move_on, &all_were_ended);
            let mut ids = vec![first];
            assert_eq!(move_on(&mut ids), Saved::Stored);
            scope.spawn(move || {
                loop {
                    let was_ended = all_were_ended.load(Ordering::SeqCst);
                    match move_on(&mut ids) {
                        Saved::Gone => break,
                        Saved::Stored => assert!(!was_ended, "after {} moves", ids.len()),
                    }
                }
                for id in &ids {
                    let found = store.load(&Load { id, lifetimes: IDLE }).unwrap();
                    assert_eq!(found, Loaded::Ended, "of {} ids", ids.len());
                }
            });
        }
        let mut other = Child::spawned(process("end", &path, &[]));
        let ended = other.wait().unwrap();
        all_were_ended.store(true, Ordering::SeqCst);
        assert!(ended.success());
    });
    assert!(store.devices("ada", None).unwrap().is_empty());
}

#[test]
fn a_rotation_whose_answer_was_lost_is_known_after_a_restart_and_no_id_is_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sessions.db");
    let browser = |cookie: Option<&str>| {
        let mut app = App::new();
        // With each request, but for what is in its grace period.
        app.install(SessionPlugin::new().file(&path).renew_every(Duration::from_nanos(1))).unwrap();
        app.get("/", |session: &mut Session| session.get("name").unwrap_or("nobody").to_owned());
        app.get("/set", |session: &mut Session| session.set("name", "Ada"));
        let browser = TestClient::new(app).unwrap();
        cookie.into_iter().for_each(|id| browser.set_cookie(COOKIE, id));
        browser
    };
    let first = browser(None);
    first.get("/set").send();
    let old = first.cookie(COOKIE).unwrap();
    assert_eq!(first.get("/").send().text(), "Ada");
    let new = first.cookie(COOKIE).unwrap();
    assert_ne!(new, old);
    let again = browser(Some(&old));
    for id in [&old, &new] {
        let in_file = |end: &str| {
            let bytes = std::fs::read(folder.path().join(format!("sessions.db{end}"))).unwrap();
            bytes.windows(id.len()).any(|window| window == id.as_bytes())
        };
        assert!(!["", "-wal", "-shm"].into_iter().any(in_file));
    }
    drop(first);
    assert_eq!(again.get("/").send().text(), "Ada");
    assert_eq!(again.cookie(COOKIE).unwrap(), new, "the answer that was lost, once more");
    // Whoever ends the session by the old id ends it.
    let store = SqliteStore::open(&path).unwrap().key_prefix("bottle.session:");
    let [old, new] = [old, new].map(|id| SessionId::parse(&id, IdFormat::Base64Url).unwrap());
    assert_eq!(save(&store, &old, Action::Destroy, &[]).unwrap(), Saved::Stored);
    assert_eq!(store.load(&Load { id: &new, lifetimes: IDLE }).unwrap(), Loaded::Ended);
    assert_eq!(again.get("/").send().text(), "nobody");
}
