//! Sessions in one Redis, each crate's as its documentation shows: `/login` makes one, `/read` reads it,
//! `/count` changes it.

use std::time::Duration;

use bottle_session::server::native::Native;
use bottle_session::{App, Session, SessionPlugin};

use crate::{ADDRESS, Failure, announce, ours_with};

const LIFETIME: Duration = Duration::from_secs(300);

pub fn ours(redis: &str) -> Result<(), Failure> {
    let mut app = App::new();
    app.install(SessionPlugin::new().url(redis).cookie_lifetime(LIFETIME))?;
    app.get("/login", |session: &mut Session| session.set("name", "Ada"));
    app.get("/read", |session: &mut Session| {
        format!("Hello, {}", session.get("name").unwrap_or("?"))
    });
    app.get("/count", |session: &mut Session| {
        let count = session.parse("count").unwrap_or(0) + 1;
        session.set("count", count);
        count.to_string()
    });
    ours_with(Native::bind(ADDRESS)?, app)
}

pub fn axum(redis: &str) -> Result<(), Failure> {
    use axum::routing::get;
    use tower_sessions::{Expiry, Session, SessionManagerLayer, cookie::time};
    use tower_sessions_redis_store::RedisStore;
    use tower_sessions_redis_store::fred::prelude::{ClientLike, Config, Pool};

    async fn login(session: Session) {
        session.insert("name", "Ada").await.expect("the store answers");
    }
    async fn read(session: Session) -> String {
        let name: Option<String> = session.get("name").await.expect("the store answers");
        format!("Hello, {}", name.as_deref().unwrap_or("?"))
    }
    async fn count(session: Session) -> String {
        let count: Option<u64> = session.get("count").await.expect("the store answers");
        let count = count.unwrap_or(0) + 1;
        session.insert("count", count).await.expect("the store answers");
        count.to_string()
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let pool = Pool::new(Config::from_url(redis)?, None, None, None, 6)?;
        let _task = pool.connect();
        pool.wait_for_connect().await?;
        let expiry = Expiry::OnInactivity(time::Duration::try_from(LIFETIME)?);
        let layer =
            SessionManagerLayer::new(RedisStore::new(pool)).with_secure(false).with_expiry(expiry);
        let app = axum::Router::new()
            .route("/login", get(login))
            .route("/read", get(read))
            .route("/count", get(count))
            .layer(layer);
        let listener = tokio::net::TcpListener::bind(ADDRESS).await?;
        announce(listener.local_addr()?.port());
        Ok(axum::serve(listener, app).await?)
    })
}

pub fn actix(redis: &str) -> Result<(), Failure> {
    use actix_session::config::PersistentSession;
    use actix_session::{Session, SessionMiddleware, storage::RedisSessionStore};
    use actix_web::cookie::{Key, time};
    use actix_web::{App, Error, HttpServer, web};

    async fn login(session: Session) -> Result<&'static str, Error> {
        session.insert("name", "Ada")?;
        Ok("")
    }
    async fn read(session: Session) -> Result<String, Error> {
        let name: Option<String> = session.get("name")?;
        Ok(format!("Hello, {}", name.as_deref().unwrap_or("?")))
    }
    async fn count(session: Session) -> Result<String, Error> {
        let count = session.get::<u64>("count")?.unwrap_or(0) + 1;
        session.insert("count", count)?;
        Ok(count.to_string())
    }
    actix_web::rt::System::new().block_on(async {
        let store = RedisSessionStore::new(redis).await.map_err(|error| error.to_string())?;
        let lifetime = time::Duration::try_from(LIFETIME)?;
        let key = Key::generate();
        let server = HttpServer::new(move || {
            let sessions = SessionMiddleware::builder(store.clone(), key.clone())
                .cookie_secure(false)
                .session_lifecycle(PersistentSession::default().session_ttl(lifetime));
            App::new()
                .wrap(sessions.build())
                .route("/login", web::get().to(login))
                .route("/read", web::get().to(read))
                .route("/count", web::get().to(count))
        });
        let cores = std::thread::available_parallelism()?.get();
        let server = server.workers(cores).bind(ADDRESS)?;
        announce(server.addrs()[0].port());
        Ok(server.run().await?)
    })
}
