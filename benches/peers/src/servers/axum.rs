//! As in the README of tower-sessions-redis-store, with a pool of six connections.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::Path;
use axum::routing::get;
use axum_server::accept::NoDelayAcceptor;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use rustls::ServerConfig;
use tower_sessions::cookie::time;
use tower_sessions::{Expiry, Session, SessionManagerLayer};
use tower_sessions_redis_store::RedisStore;
use tower_sessions_redis_store::fred::prelude::{ClientLike, Config, Pool};

use super::{LARGE, LIFETIME, SLEEP};
use crate::Failure;

pub fn serve(address: &str, redis: &str) -> Result<(), Failure> {
    serve_with(address, redis, None)
}

pub fn serve_tls(address: &str, redis: &str, folder: &str) -> Result<(), Failure> {
    serve_with(address, redis, Some(super::config(folder)?))
}

fn serve_with(address: &str, redis: &str, tls: Option<ServerConfig>) -> Result<(), Failure> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let pool = Pool::new(Config::from_url(redis)?, None, None, None, 6)?;
        let _connecting = pool.connect();
        pool.wait_for_connect().await?;
        let expiry = Expiry::OnInactivity(time::Duration::try_from(LIFETIME)?);
        let sessions =
            SessionManagerLayer::new(RedisStore::new(pool)).with_secure(false).with_expiry(expiry);
        let large = Bytes::from(vec![b'x'; LARGE]);
        let app = Router::new()
            .route("/create/{name}", get(create))
            .route("/read", get(read))
            .route("/change", get(change))
            .route("/count", get(count))
            .layer(sessions)
            // Added behind the layer, so that they do not pass through it.
            .route("/plain", get(|| async { "hello" }))
            .route("/large", get(move || async move { large }))
            .route("/sleep", get(sleep));
        if let Some(tls) = tls {
            // Without TCP_NODELAY its first answer on each connection takes 40 ms.
            let acceptor = RustlsAcceptor::new(RustlsConfig::from_config(Arc::new(tls)));
            let acceptor = acceptor.acceptor(NoDelayAcceptor::new());
            let server = axum_server::bind(address.parse()?).acceptor(acceptor);
            return Ok(server.serve(app.into_make_service()).await?);
        }
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

async fn sleep() -> &'static str {
    tokio::time::sleep(SLEEP).await;
    "slept"
}
