//! Sessions in a file: what opens, what is refused, what the file shows, and what visitors see when it fails.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use bottle_session::{
    Action, App, Changes, Durability, EndDevices, ErrorKind, IdFormat, LogIn, Save, Saved, Session,
    SessionPlugin, SessionStore, SqliteStore, TestClient,
};
use rusqlite::Connection;
use tempfile::TempDir;

use crate::faults::wait_until;
use crate::support::http::Browser;
use crate::support::logs::{collect_logs, logs_of};
use crate::support::process::Program;
use crate::support::sessions::{IDLE, create, fields, fresh_id, load, owned, save};

pub fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sessions.db");
    (folder, path)
}

/// Waits until nobody has the file open: a sweep may, for a step. Who closes it last writes all back.
pub fn is_closed(path: &Path) {
    let log = path.with_file_name("sessions.db-wal");
    wait_until("the file is closed", || !log.exists());
}

/// The text of the error of opening this.
#[track_caller]
fn refusal(path: impl AsRef<Path>) -> String {
    let error = SqliteStore::open(path).expect_err("this is to be refused");
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    error.to_string()
}

#[test]
fn what_is_no_session_file_is_refused_and_stays_as_it_is() {
    let (_folder, path) = folder();
    let make: [(&str, &dyn Fn()); 7] = [
        ("is no database of SQLite", &|| fs::write(&path, "a text\n").unwrap()),
        ("is no database of SQLite", &|| fs::write(&path, [0xff; 10_000]).unwrap()),
        ("is the database of another program", &|| {
            let other = Connection::open(&path).unwrap();
            other.execute_batch("CREATE TABLE notes (text TEXT)").unwrap();
        }),
        ("is the database of another program", &|| {
            let other = Connection::open(&path).unwrap();
            other.pragma_update(None, "journal_mode", "WAL").unwrap();
            other.execute_batch("CREATE TABLE sessions (key BLOB)").unwrap();
        }),
        ("was written by a newer version of bottle-session (schema 3, this one knows 2)", &|| {
            drop(SqliteStore::open(&path).unwrap());
            let newer = Connection::open(&path).unwrap();
            newer.pragma_update(None, "user_version", 3).unwrap();
        }),
        (
            "was written by a version of bottle-session from before the first release (schema 1",
            &|| {
                drop(SqliteStore::open(&path).unwrap());
                let older = Connection::open(&path).unwrap();
                older.pragma_update(None, "user_version", 1).unwrap();
            },
        ),
        ("is no file but something else", &|| fs::create_dir(&path).unwrap()),
    ];
    for (text, make) in make {
        make();
        let bytes = |path: &Path| fs::read(path).unwrap_or_default();
        let before = bytes(&path);
        let error = refusal(&path);
        assert!(error.contains(&format!("the session file {} {text}", path.display())), "{error}");
        assert_eq!(bytes(&path), before, "{text}");
        let beside = fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(beside, 1, "nothing is made beside it");
        if path.is_file() {
            fs::remove_file(&path).unwrap();
        }
    }
}

#[test]
fn a_newer_schema_that_only_the_log_has_is_refused_and_stays_there() {
    let (_folder, path) = folder();
    drop(SqliteStore::open(&path).unwrap());
    // A newer process that was killed: its log was not written back.
    let newer = Connection::open(&path).unwrap();
    newer.pragma_update(None, "user_version", 7).unwrap();
    let log = path.with_file_name("sessions.db-wal");
    let copy = |name: &str| {
        fs::copy(path.with_file_name(name), path.with_file_name("x".to_owned() + name))
    };
    copy("sessions.db").unwrap();
    copy("sessions.db-wal").unwrap();
    let copied = path.with_file_name("xsessions.db");
    let before = (fs::read(&copied).unwrap(), fs::read(&log).unwrap());
    assert!(refusal(&copied).contains("schema 7, this one knows 2"));
    let after = fs::read(path.with_file_name("xsessions.db-wal")).unwrap();
    assert_eq!((fs::read(&copied).unwrap(), after), before);
}

#[test]
fn a_place_where_no_file_can_be_is_named() {
    let (_folder, path) = folder();
    for (address, text) in [
        (":memory:", "\":memory:\" is no path of a session file"),
        ("file:sessions.db?mode=memory", "is no path of a session file"),
        ("", "\"\" is no path"),
    ] {
        assert!(refusal(address).contains(text), "{}", refusal(address));
    }
    let missing = path.join("none/sessions.db");
    let error = refusal(&missing);
    let folder = path.join("none");
    assert!(error.contains(&missing.display().to_string()), "{error}");
    assert!(
        error.contains(&format!("there is no folder {}; make it", folder.display())),
        "{error}"
    );
    let link = path.with_file_name("link.db");
    symlink(&missing, &link).unwrap();
    assert!(refusal(&link).contains("is a link to what is not there"));
    assert!(refusal("/dev/null").contains("is no file but something else"));
    assert!(!path.exists());
}

#[test]
fn a_file_is_for_its_owner_alone_and_holds_no_id() {
    let (_folder, path) = folder();
    // Made by an administrator, for everybody.
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    let store = SqliteStore::open(&path).unwrap();
    let (moved, ended) = (create(&store, &[("name", "Ada")]), create(&store, &[]));
    let id = fresh_id(IdFormat::default());
    assert_eq!(save(&store, &moved, Action::Rotate { to: &id }, &[]).unwrap(), Saved::Stored);
    assert_eq!(save(&store, &ended, Action::Destroy, &[]).unwrap(), Saved::Stored);
    let files = ["sessions.db", "sessions.db-wal", "sessions.db-shm"];
    let files = files.map(|name| path.with_file_name(name));
    for file in &files {
        let mode = fs::metadata(file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", file.display());
    }
    let contains = |needle: &[u8]| {
        files.iter().any(|file| {
            let bytes = fs::read(file).unwrap();
            bytes.windows(needle.len()).any(|window| window == needle)
        })
    };
    assert!(contains(b"{\"name\":\"Ada\"}"), "the sqlite3 shell shows the fields");
    for id in [&id, &moved, &ended] {
        assert!(!contains(id.expose().as_bytes()));
        let hex = id.expose_uuid().replace('-', "");
        let bits: Vec<_> =
            (0..16).map(|at| u8::from_str_radix(&hex[2 * at..][..2], 16).unwrap()).collect();
        assert!(!contains(&bits), "nor the bits of it");
    }
}

#[test]
fn a_file_through_a_link_and_a_relative_path_are_the_same_file() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).unwrap();
    let id = create(&store, &[("name", "Ada")]);
    let link = path.with_file_name("link.db");
    symlink("sessions.db", &link).unwrap();
    let other = SqliteStore::open(&link).unwrap();
    assert_eq!(fields(&other, &id), Some(owned(&[("name", "Ada")])));
    assert_eq!(save(&other, &id, Action::Update, &[("b", "2")]).unwrap(), Saved::Stored);
    assert_eq!(fields(&store, &id), Some(owned(&[("b", "2"), ("name", "Ada")])));
    assert!(!path.with_file_name("link.db-wal").exists());
}

#[test]
fn many_open_a_new_file_at_once() {
    let (_folder, path) = folder();
    let stores: Vec<_> = std::thread::scope(|scope| {
        let open = || SqliteStore::open(&path).unwrap();
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let id = create(&stores[0], &[("n", "1")]);
    for store in &stores {
        assert!(load(store, &id).unwrap().is_some());
    }
}

#[test]
fn sessions_outlive_the_store_in_both_durabilities() {
    for durability in [Durability::Full, Durability::Relaxed] {
        let (_folder, path) = folder();
        let open = || SqliteStore::open(&path).unwrap().durability(durability);
        let store = open();
        let (kept, ended) = (create(&store, &[("a", "1")]), create(&store, &[("a", "2")]));
        assert_eq!(save(&store, &ended, Action::Destroy, &[]).unwrap(), Saved::Stored);
        drop(store);
        is_closed(&path);
        let store = open();
        assert_eq!(fields(&store, &kept), Some(owned(&[("a", "1")])));
        assert_eq!(fields(&store, &ended), None);
    }
}

fn app(plugin: SessionPlugin) -> App {
    let mut app = App::new();
    app.install(plugin).unwrap();
    app.get("/", |session: &mut Session| session.get("name").unwrap_or("nobody").to_owned());
    app.get("/set/<name>", |session: &mut Session, name: &str| session.set("name", name));
    app.get("/out", |session: &mut Session| session.destroy());
    app.get("/panic", |session: &mut Session| {
        session.set("name", "half");
        panic!("in the middle of it");
        #[allow(unreachable_code)]
        ()
    });
    app.get("/plain", || "plain");
    app
}

fn client(path: &Path) -> TestClient {
    TestClient::new(app(SessionPlugin::new().file(path))).unwrap()
}

#[test]
fn the_plugin_keeps_sessions_in_a_file_over_a_restart() {
    let (_folder, path) = folder();
    let ada = client(&path);
    assert_eq!(ada.get("/").send().text(), "nobody");
    ada.get("/set/Ada").send();
    assert_eq!(ada.get("/panic").send().status(), 500);
    assert_eq!(ada.get("/").send().text(), "Ada", "a panic saves nothing");
    let cookie = ada.cookie("bottle.session").unwrap();
    drop(ada);
    let again = client(&path);
    again.set_cookie("bottle.session", &cookie);
    assert_eq!(again.get("/").send().text(), "Ada");
}

#[test]
fn two_plugins_on_one_file_know_nothing_of_each_other() {
    let (_folder, path) = folder();
    let ada = client(&path);
    ada.get("/set/Ada").send();
    let id = ada.cookie("bottle.session").unwrap();
    let plugin = SessionPlugin::new().file(&path).cookie_name("admin");
    let admin = TestClient::new(app(plugin)).unwrap();
    admin.set_cookie("admin", &id);
    assert_eq!(admin.get("/").send().text(), "nobody");
    assert_eq!(ada.get("/").send().text(), "Ada");
}

#[test]
fn stores_of_other_prefixes_have_users_of_their_own() {
    let (_folder, path) = folder();
    let open = |prefix| SqliteStore::open(&path).unwrap().key_prefix(prefix);
    let stores = ["a:", "b:", ""].map(open);
    for store in &stores {
        let (id, none) = (fresh_id(store.id_format()), Changes::default());
        let save =
            Save { login: Some(LogIn::new("ada")), ..Save::new(&id, Action::Create, &none, IDLE) };
        assert_eq!(store.save(&save).unwrap(), Saved::Stored);
    }
    // As a program that cron runs.
    assert_eq!(open("a:").end_devices("ada", EndDevices::All).unwrap(), 1);
    let left = stores.map(|store| store.devices("ada", None).unwrap().len());
    assert_eq!(left, [0, 1, 1]);
}

#[test]
fn options_of_redis_do_not_go_with_a_file() {
    let (_folder, path) = folder();
    for plugin in [
        SessionPlugin::new().file(&path).host("localhost"),
        SessionPlugin::new().url("redis://localhost").file(&path),
        SessionPlugin::new().file(&path).layout(bottle_session::Layout::Default),
    ] {
        let error = App::new().install(plugin).map(drop).unwrap_err();
        assert!(error.to_string().contains("do not go with file"), "{error}");
    }
    assert!(!path.exists());
}

#[test]
fn damage_is_an_error_and_a_loud_line_and_nobody_becomes_a_stranger() {
    collect_logs();
    let (_folder, path) = folder();
    let ada = client(&path);
    ada.get("/set/Ada").send();
    let cookie = ada.cookie("bottle.session").unwrap();
    drop(ada);
    is_closed(&path);
    // All but the first page, which says whose file it is.
    let mut bytes = fs::read(&path).unwrap();
    assert!(bytes.len() > 3 * 4096);
    bytes[4096..].fill(0xa5);
    fs::write(&path, bytes).unwrap();
    let again = client(&path);
    again.set_cookie("bottle.session", &cookie);
    for request in ["/", "/set/Eve", "/out"] {
        let answer = again.get(request).send();
        assert_eq!((answer.status(), answer.set_cookies()), (500, vec![]), "{request}");
    }
    assert_eq!(again.cookie("bottle.session"), Some(cookie));
    assert_eq!(again.get("/plain").send().status(), 200);
    // Of who came first: a visitor, or the sweep.
    let mut lines = logs_of(&path.display().to_string());
    lines.retain(|line| line.starts_with("ERROR sessions in a file: cannot "));
    assert!(lines.len() == 1 && lines[0].contains("restore a backup"), "{lines:?}");
}

#[test]
fn a_file_that_was_removed_or_replaced_acknowledges_nothing_more() {
    type Act = fn(&Path);
    let acts: [(&str, Act); 4] = [
        ("removed", |path| fs::remove_file(path).unwrap()),
        ("its log was removed", |path| {
            fs::remove_file(path.with_file_name("sessions.db-wal")).unwrap();
        }),
        ("replaced", |path| {
            let other = path.with_file_name("other.db");
            fs::write(&other, "").unwrap();
            drop(SqliteStore::open(&other).unwrap());
            fs::rename(other, path).unwrap();
        }),
        ("its folder moved", |path| {
            let folder = path.parent().unwrap();
            fs::rename(folder, folder.with_file_name("moved")).unwrap();
        }),
    ];
    for (what, act) in acts {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("folder");
        fs::create_dir(&folder).unwrap();
        let path = folder.join("sessions.db");
        let ada = client(&path);
        ada.get("/set/Ada").send();
        act(&path);
        for request in ["/set/Eve", "/out"] {
            let answer = ada.get(request).send();
            assert_eq!((answer.status(), answer.set_cookies()), (500, vec![]), "{what}: {request}");
        }
        assert_eq!(TestClient::of(ada.service().clone()).get("/set/Bob").send().status(), 500);
    }
}

#[test]
fn a_file_that_is_put_back_goes_on() {
    let (_folder, path) = folder();
    let ada = client(&path);
    ada.get("/set/Ada").send();
    let aside = path.with_file_name("aside.db");
    fs::rename(&path, &aside).unwrap();
    assert_eq!(ada.get("/set/Eve").send().status(), 500);
    fs::rename(&aside, &path).unwrap();
    assert_eq!(ada.get("/set/Ada").send().status(), 200);
    assert_eq!(ada.get("/").send().text(), "Ada");
}

#[test]
fn a_greeter_greets_after_a_restart() {
    let (_folder, path) = folder();
    let path = path.to_str().unwrap();
    let mut chris = Browser::default();
    let greeter = Program::greeter(&["--file", path], None);
    assert_eq!(chris.text(greeter.address, "/set/Chris"), "I recognize you now.\n");
    greeter.kill();
    let greeter = Program::greeter(&["--file", path], None);
    assert_eq!(chris.text(greeter.address, "/"), "Hello, Chris\n");
    assert!(greeter.terminate().success());
}
