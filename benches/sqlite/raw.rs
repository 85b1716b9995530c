//! The same save by hand: rusqlite, one connection that all threads share, one commit for each save.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use bottle_session::SessionId;
use rusqlite::{Connection, params};

use crate::measure::LIFETIMES;

pub struct Raw(Mutex<Connection>);

impl Raw {
    /// Opens a file that is there.
    pub fn open(path: &Path) -> Raw {
        let open = || -> rusqlite::Result<Connection> {
            let connection = Connection::open(path)?;
            connection.pragma_update(None, "synchronous", "FULL")?;
            connection.pragma_update(None, "cache_size", -4096)?;
            Ok(connection)
        };
        Raw(Mutex::new(open().expect("the file")))
    }

    /// Reads the row, and does nothing with it.
    pub fn load(&self, id: &SessionId) -> bool {
        let key = digest(id);
        let connection = self.0.lock().expect("nobody panics");
        let load = || -> rusqlite::Result<String> {
            connection
                .prepare_cached("SELECT fields FROM sessions WHERE key = ?1")?
                .query_row(params![key], |row| row.get(0))
        };
        !load().expect("the file works").is_empty()
    }

    pub fn save(&self, id: &SessionId, value: u64) -> bool {
        let key = digest(id);
        let connection = self.0.lock().expect("nobody panics");
        let save = || -> rusqlite::Result<usize> {
            let connection = &*connection;
            connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
            let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis()
                as i64;
            let fields: String = connection
                .prepare_cached("SELECT fields FROM sessions WHERE key = ?1 AND expires > ?2")?
                .query_row(params![key, now], |row| row.get(0))?;
            let mut fields: BTreeMap<String, String> =
                serde_json::from_str(&fields).expect("fields");
            fields.insert("user".to_owned(), value.to_string());
            let fields = serde_json::to_string(&fields).expect("text");
            let expires = now + LIFETIMES.kept_for(None).as_millis() as i64;
            let changed = connection
                .prepare_cached(
                    "UPDATE sessions SET renewed = ?2, expires = ?3, fields = ?4 WHERE key = ?1",
                )?
                .execute(params![key, now, expires, fields])?;
            connection.prepare_cached("COMMIT")?.execute([])?;
            Ok(changed)
        };
        save().expect("the file works") == 1
    }
}

fn digest(id: &SessionId) -> Vec<u8> {
    let text = id.key();
    let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    (0..32).map(|at| digit(2 * at)).collect()
}
