//! What the guide says of a session file.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use bottle_session::{Action, Changes, IdFormat, LogIn, Save, Saved, SessionStore, SqliteStore};
use rusqlite::Connection;

use crate::sqlite_store::folder;
use crate::support::sessions::{IDLE, create, fields, fresh_id, owned, save};

#[test]
fn a_backup_is_whole_while_the_store_goes_on() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).unwrap();
    let ids: Vec<_> = (0..100).map(|n: i32| create(&store, &[("n", &n.to_string())])).collect();
    let copy = path.with_file_name("backup.db");
    // As the guide has it.
    let sql = "VACUUM INTO '/backup/sessions.db'";
    assert!(include_str!("../src/guide/file.md").contains(sql));
    let shell = Connection::open(&path).unwrap();
    shell.execute_batch(&sql.replace("/backup/sessions.db", copy.to_str().unwrap())).unwrap();
    assert_eq!(save(&store, &ids[0], Action::Destroy, &[]).unwrap(), Saved::Stored);
    let restored = SqliteStore::open(&copy).unwrap();
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(fields(&restored, id), Some(owned(&[("n", &n.to_string())])));
    }
    let mode = fs::metadata(&copy).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn the_guides_queries_show_sessions() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).unwrap();
    let ended = create(&store, &[("name", "Eve")]);
    create(&store, &[("name", "Ada")]);
    assert_eq!(save(&store, &ended, Action::Destroy, &[]).unwrap(), Saved::Stored);
    let shell = Connection::open(&path).unwrap();
    let page = include_str!("../src/guide/file.md");
    let queries: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("sqlite> ")).collect();
    assert_eq!(queries.len(), 3);
    let count: i64 = shell.query_row(queries[0], [], |row| row.get(0)).unwrap();
    assert_eq!(count, 1);
    let shown: String = shell.query_row(queries[1], [], |row| row.get(3)).unwrap();
    assert_eq!(shown, "{\"name\":\"Ada\"}");
    let store = SqliteStore::open(&path).unwrap().key_prefix("bottle.session:");
    for user in ["ada", "eve"] {
        let (id, none) = (fresh_id(IdFormat::default()), Changes::default());
        let login = Some(LogIn { agent: user, ..LogIn::new(user) });
        let save = Save { login, ..Save::new(&id, Action::Create, &none, IDLE) };
        assert_eq!(store.save(&save).unwrap(), Saved::Stored);
    }
    let mut devices = shell.prepare(queries[2]).unwrap();
    let agents = devices.query_map([], |row| row.get(1)).unwrap();
    assert_eq!(agents.collect::<rusqlite::Result<Vec<String>>>().unwrap(), ["ada"]);
    let plan = format!("EXPLAIN QUERY PLAN {}", queries[2]);
    let plan: String = shell.query_row(&plan, [], |row| row.get(3)).unwrap();
    assert!(plan.contains("sessions_by_user (user=? AND prefix=?)"), "{plan}");
}
