//! `axum_sqlite ADDRESS FILE SECONDS`: as in the README of tower-sessions-sqlx-store, with sqlx's pool of ten connections; the
//! file as durable as ours, with a write-ahead log.

#![forbid(unsafe_code)]

use std::error::Error;
use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use tower_sessions::cookie::time;
use tower_sessions::{Expiry, Session, SessionManagerLayer};
use tower_sessions_sqlx_store::SqliteStore;
use tower_sessions_sqlx_store::sqlx::SqlitePool;
use tower_sessions_sqlx_store::sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous,
};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, file, seconds] = &arguments[..] else {
        return Err("usage: axum_sqlite ADDRESS FILE SECONDS".into());
    };
    let lifetime = Duration::from_secs(seconds.parse()?);
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        let store = SqliteStore::new(SqlitePool::connect_with(options).await?);
        store.migrate().await?;
        let expiry = Expiry::OnInactivity(time::Duration::try_from(lifetime)?);
        let sessions = SessionManagerLayer::new(store).with_secure(false).with_expiry(expiry);
        let app = Router::new()
            .route("/create/{name}", get(create))
            .route("/read", get(read))
            .route("/change", get(change))
            .route("/count", get(count))
            .layer(sessions)
            .route("/plain", get(|| async { "hello" }));
        let listener = tokio::net::TcpListener::bind(address).await?;
        Ok(axum::serve(listener, app).await?)
    })
}

async fn create(session: Session, Path(name): Path<String>) -> &'static str {
    session.insert("name", name).await.expect("the store answers");
    "created"
}

async fn read(session: Session) -> String {
    let name: Option<String> = session.get("name").await.expect("the store answers");
    format!("Hello, {}", name.as_deref().unwrap_or("?"))
}

async fn change(session: Session) -> String {
    let count: Option<u64> = session.get("count").await.expect("the store answers");
    let count = count.unwrap_or(0) + 1;
    session.insert("count", count).await.expect("the store answers");
    count.to_string()
}

async fn count(session: Session) -> String {
    let count: Option<u64> = session.get("count").await.expect("the store answers");
    count.unwrap_or(0).to_string()
}
