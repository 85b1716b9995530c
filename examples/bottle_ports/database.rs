//! A database in SQLite: a pool of connections, and one with a transaction for each request that asks for it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bottle_session::{App, HttpError, Own, Provided, Result};
use rusqlite::{Connection, ErrorCode};

/// Where the database is, and connections that nobody uses.
#[derive(Clone)]
pub struct Database {
    path: PathBuf,
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Provided for Database {}

/// What handlers ask for: `db: &mut Db`.
pub type Db = Own<Connection>;

impl Database {
    pub fn open(path: impl AsRef<Path>, schema: &str) -> rusqlite::Result<Database> {
        let database = Database { path: path.as_ref().to_owned(), idle: Arc::default() };
        database.checkout()?.execute_batch(schema)?;
        Ok(database)
    }

    pub fn checkout(&self) -> rusqlite::Result<Connection> {
        if let Some(connection) = self.idle().pop() {
            return Ok(connection);
        }
        let connection = Connection::open(&self.path)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA foreign_keys = ON;")?;
        Ok(connection)
    }

    pub fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Gives the app `&mut Db`. What a request changes is there as a whole, if its answer is no error, or not at all.
pub fn install(app: &mut App, database: Database) {
    let pool = database.clone();
    app.state(database);
    app.provide(|database: &Database| -> Result<Db, HttpError> {
        let db = database.checkout()?;
        db.execute_batch("BEGIN")?;
        Ok(Own(db))
    })
    .keyword("db")
    .finish(move |Own(db), answer| -> rusqlite::Result<()> {
        let end = if answer.is_error() { "ROLLBACK" } else { "COMMIT" };
        // Where that fails, the transaction is open still, and the next visitor would commit it: such a connection does
        // not go back to the pool. It is closed, which rolls back.
        db.execute_batch(end)?;
        pool.idle().push(db);
        Ok(())
    });
}

/// `None` where a constraint of the schema refuses it.
pub fn unless_refused<T>(done: rusqlite::Result<T>) -> rusqlite::Result<Option<T>> {
    match done {
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => Ok(None),
        done => done.map(Some),
    }
}
