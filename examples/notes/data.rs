//! People and notes, in SQLite: in memory, or in a file.

use std::fs::OpenOptions;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bottle_session::{Error, Provided, Result};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;

const SCHEMA: &str = "
    PRAGMA foreign_keys = ON;
    CREATE TABLE IF NOT EXISTS user (
        name TEXT PRIMARY KEY,
        -- Whom sessions are of: whoever takes the name of somebody who is gone is somebody else.
        id TEXT NOT NULL UNIQUE DEFAULT (lower(hex(randomblob(16)))),
        password TEXT NOT NULL,
        is_admin INTEGER NOT NULL,
        picture BLOB
    );
    CREATE TABLE IF NOT EXISTS note (
        id INTEGER PRIMARY KEY,
        owner TEXT NOT NULL REFERENCES user (name) ON DELETE CASCADE,
        title TEXT NOT NULL,
        text TEXT NOT NULL,
        file_name TEXT,
        file BLOB,
        changed INTEGER NOT NULL
    );
";

/// The database, for all handlers. Each method holds its lock for one statement or two.
#[derive(Clone)]
pub struct Data(Arc<Mutex<Connection>>);

impl Provided for Data {}

/// Who is logged in.
#[derive(Clone, Serialize)]
pub struct User {
    pub name: String,
    pub is_admin: bool,
    pub has_picture: bool,
}

impl Provided for User {}

#[derive(Serialize)]
pub struct Note {
    pub id: i64,
    pub title: String,
    pub text: String,
    pub file_name: Option<String>,
}

/// How much somebody has.
#[derive(Serialize)]
pub struct Summary {
    pub user: User,
    pub notes: i64,
}

impl User {
    fn of(row: &Row<'_>) -> rusqlite::Result<User> {
        Ok(User { name: row.get(0)?, is_admin: row.get(1)?, has_picture: row.get(2)? })
    }
}

impl Note {
    fn of(row: &Row<'_>) -> rusqlite::Result<Note> {
        Ok(Note { id: row.get(0)?, title: row.get(1)?, text: row.get(2)?, file_name: row.get(3)? })
    }
}

impl Data {
    pub fn in_memory() -> Result<Data> {
        Data::of(Connection::open_in_memory())
    }

    /// The file is for its owner alone, and so is what SQLite puts beside it, which gets the same mode.
    pub fn open(file: &str) -> Result<Data> {
        let mut options = OpenOptions::new();
        options.append(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(file)?;
        Data::of(Connection::open(file))
    }

    fn of(opened: rusqlite::Result<Connection>) -> Result<Data> {
        let db = opened.map_err(Error::other)?;
        // Another process may be writing to the same file.
        db.busy_timeout(Duration::from_secs(2)).map_err(Error::other)?;
        db.execute_batch(SCHEMA).map_err(Error::other)?;
        Ok(Data(Arc::new(Mutex::new(db))))
    }

    fn db(&self) -> MutexGuard<'_, Connection> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn user(&self, id: &str) -> rusqlite::Result<Option<User>> {
        let sql = "SELECT name, is_admin, picture IS NOT NULL FROM user WHERE id = ?";
        self.db().query_row(sql, [id], User::of).optional()
    }

    /// Whom a session of this user is of.
    pub fn id(&self, name: &str) -> rusqlite::Result<String> {
        self.db().query_row("SELECT id FROM user WHERE name = ?", [name], |row| row.get(0))
    }

    /// What is kept of this user's password.
    pub fn password(&self, name: &str) -> rusqlite::Result<Option<String>> {
        let sql = "SELECT password FROM user WHERE name = ?";
        self.db().query_row(sql, [name], |row| row.get(0)).optional()
    }

    /// Adds a user, unless the name is taken. The first one is the administrator.
    pub fn add_user(&self, name: &str, password: &str) -> rusqlite::Result<bool> {
        let sql = "INSERT OR IGNORE INTO user (name, password, is_admin)
                   VALUES (?, ?, NOT EXISTS (SELECT 1 FROM user))";
        Ok(self.db().execute(sql, [name, password])? == 1)
    }

    pub fn set_picture(&self, name: &str, picture: &[u8]) -> rusqlite::Result<()> {
        let sql = "UPDATE user SET picture = ? WHERE name = ?";
        self.db().execute(sql, params![picture, name]).map(drop)
    }

    pub fn picture(&self, name: &str) -> rusqlite::Result<Option<Vec<u8>>> {
        let sql = "SELECT picture FROM user WHERE name = ?";
        let found = self.db().query_row(sql, [name], |row| row.get(0)).optional()?;
        Ok(found.flatten())
    }

    pub fn users(&self) -> rusqlite::Result<Vec<Summary>> {
        let db = self.db();
        let mut found = db.prepare(
            "SELECT name, is_admin, picture IS NOT NULL, count(note.id) FROM user
             LEFT JOIN note ON owner = name GROUP BY name ORDER BY name",
        )?;
        let rows =
            found.query_map([], |row| Ok(Summary { user: User::of(row)?, notes: row.get(3)? }))?;
        rows.collect()
    }

    /// Removes a user and all that is theirs.
    pub fn remove_user(&self, name: &str) -> rusqlite::Result<bool> {
        Ok(self.db().execute("DELETE FROM user WHERE name = ?", [name])? == 1)
    }

    /// The notes of this user that hold these words, the newest first; all of them where there are none.
    pub fn notes(&self, owner: &str, words: &str) -> rusqlite::Result<Vec<Note>> {
        let db = self.db();
        let mut found = db.prepare(
            "SELECT id, title, text, file_name FROM note
             WHERE owner = ?1 AND instr(lower(title || char(10) || text), lower(?2)) > 0
             ORDER BY changed DESC, id DESC",
        )?;
        found.query_map([owner, words], Note::of)?.collect()
    }

    pub fn note(&self, owner: &str, id: i64) -> rusqlite::Result<Option<Note>> {
        let sql = "SELECT id, title, text, file_name FROM note WHERE owner = ? AND id = ?";
        self.db().query_row(sql, params![owner, id], Note::of).optional()
    }

    /// Adds a note, with a file of this name where there is one.
    pub fn add_note(
        &self,
        owner: &str,
        (title, text): (&str, &str),
        file: Option<(&str, &[u8])>,
    ) -> rusqlite::Result<i64> {
        let (name, file) = file.unzip();
        let db = self.db();
        db.execute(
            "INSERT INTO note (owner, title, text, file_name, file, changed)
             VALUES (?, ?, ?, ?, ?, ?)",
            params![owner, title, text, name, file, now()],
        )?;
        Ok(db.last_insert_rowid())
    }

    pub fn change_note(
        &self,
        owner: &str,
        id: i64,
        (title, text): (&str, &str),
    ) -> rusqlite::Result<bool> {
        let sql = "UPDATE note SET title = ?, text = ?, changed = ? WHERE owner = ? AND id = ?";
        Ok(self.db().execute(sql, params![title, text, now(), owner, id])? == 1)
    }

    pub fn remove_note(&self, owner: &str, id: i64) -> rusqlite::Result<bool> {
        let sql = "DELETE FROM note WHERE owner = ? AND id = ?";
        Ok(self.db().execute(sql, params![owner, id])? == 1)
    }

    /// The name and the bytes of a note's file.
    pub fn file(&self, owner: &str, id: i64) -> rusqlite::Result<Option<(String, Vec<u8>)>> {
        let sql = "SELECT file_name, file FROM note
                   WHERE owner = ? AND id = ? AND file IS NOT NULL";
        let both = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
        self.db().query_row(sql, params![owner, id], both).optional()
    }

    /// How many notes there are of all people.
    pub fn count(&self) -> rusqlite::Result<i64> {
        self.db().query_row("SELECT count(*) FROM note", [], |row| row.get(0))
    }
}

fn now() -> i64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
