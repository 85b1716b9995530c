//! As in the README of actix-session: one multiplexed connection, which all workers share.

use actix_session::config::PersistentSession;
use actix_session::{Session, SessionMiddleware, storage::RedisSessionStore};
use actix_web::cookie::{Key, time};
use actix_web::web::Bytes;
use actix_web::{App, Error, HttpServer, web};

use rustls::ServerConfig;

use super::{LARGE, LIFETIME, SLEEP};
use crate::Failure;

pub fn serve(address: &str, redis: &str) -> Result<(), Failure> {
    serve_with(address, redis, None)
}

pub fn serve_tls(address: &str, redis: &str, folder: &str) -> Result<(), Failure> {
    serve_with(address, redis, Some(super::config(folder)?))
}

fn serve_with(address: &str, redis: &str, tls: Option<ServerConfig>) -> Result<(), Failure> {
    actix_web::rt::System::new().block_on(async {
        let store = RedisSessionStore::new(redis).await.map_err(|error| error.to_string())?;
        let lifetime = time::Duration::try_from(LIFETIME)?;
        let key = Key::generate();
        let large = web::Data::new(Bytes::from(vec![b'x'; LARGE]));
        let server = HttpServer::new(move || {
            let sessions = SessionMiddleware::builder(store.clone(), key.clone())
                .cookie_secure(false)
                .session_lifecycle(PersistentSession::default().session_ttl(lifetime));
            App::new()
                .route("/plain", web::get().to(|| async { "hello" }))
                .route("/sleep", web::get().to(sleep))
                .route(
                    "/large",
                    web::get().to(|large: web::Data<Bytes>| async move { large.as_ref().clone() }),
                )
                .app_data(large.clone())
                .service(
                    web::scope("")
                        .wrap(sessions.build())
                        .route("/create/{name}", web::get().to(create))
                        .route("/read", web::get().to(read))
                        .route("/change", web::get().to(change))
                        .route("/count", web::get().to(count)),
                )
        });
        let cores = std::thread::available_parallelism()?.get();
        let server = server.workers(cores);
        let server = match tls {
            None => server.bind(address)?,
            // Without TCP_NODELAY its first answer on each connection takes 40 ms; and at its default it shakes hands
            // with 256 clients at once at most.
            Some(tls) => {
                server.tcp_nodelay(true).max_connection_rate(5000).bind_rustls_0_23(address, tls)?
            }
        };
        Ok(server.run().await?)
    })
}

async fn create(session: Session, name: web::Path<String>) -> Result<&'static str, Error> {
    session.insert("name", name.into_inner())?;
    Ok("created")
}

async fn read(session: Session) -> Result<String, Error> {
    let name: Option<String> = session.get("name")?;
    Ok(format!("Hello, {}", name.as_deref().unwrap_or("?")))
}

async fn change(session: Session) -> Result<String, Error> {
    let count = session.get::<u64>("count")?.unwrap_or(0) + 1;
    session.insert("count", count)?;
    Ok(count.to_string())
}

async fn count(session: Session) -> Result<String, Error> {
    Ok(session.get::<u64>("count")?.unwrap_or(0).to_string())
}

async fn sleep() -> &'static str {
    actix_web::rt::time::sleep(SLEEP).await;
    "slept"
}
