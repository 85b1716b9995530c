use axum::body::Bytes;
use bottle_session::server::native::Native;
use bottle_session::server::tls::Tls;
use bottle_session::{App, MemoryStore, Server, Session, SessionPlugin, ShutdownHandle};

use super::{LARGE, LIFETIME, SLEEP};
use crate::Failure;

pub fn serve(address: &str, redis: &str) -> Result<(), Failure> {
    let replicas = std::env::var("REPLICAS").map_or(Ok(0), |replicas| replicas.parse())?;
    serve_with(Native::bind(address)?, SessionPlugin::new().url(redis).replicas(replicas))
}

pub fn serve_tls(address: &str, redis: &str, folder: &str) -> Result<(), Failure> {
    let tls = Tls::files(format!("{folder}/cert.pem"), format!("{folder}/key.pem"))?;
    serve_with(Native::bind(address)?.tls(tls), SessionPlugin::new().url(redis))
}

pub fn serve_from_memory(address: &str) -> Result<(), Failure> {
    // More than one run creates.
    let store = MemoryStore::new().capacity(10_000_000);
    serve_with(Native::bind(address)?, SessionPlugin::new().store(store))
}

pub fn serve_from_file(address: &str, file: &str) -> Result<(), Failure> {
    serve_with(Native::bind(address)?, SessionPlugin::new().file(file))
}

fn serve_with(server: Native, sessions: SessionPlugin) -> Result<(), Failure> {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    let mut app = App::new();
    app.install(sessions.cookie_lifetime(LIFETIME))?;
    app.get("/plain", || "hello");
    let large = Bytes::from(vec![b'x'; LARGE]);
    app.get("/large", move || large.clone());
    app.get("/create/<name>", |session: &mut Session, name: &str| {
        session.set("name", name);
        "created"
    });
    app.get("/read", |session: &mut Session| {
        format!("Hello, {}", session.get("name").unwrap_or("?"))
    });
    app.get("/change", |session: &mut Session| {
        let count = session.parse("count").unwrap_or(0) + 1;
        session.set("count", count);
        count.to_string()
    });
    app.get("/count", |session: &mut Session| session.parse("count").unwrap_or(0).to_string());
    app.get("/sleep", || {
        std::thread::sleep(SLEEP);
        "slept"
    });
    Ok(server.serve(app.build()?, &ShutdownHandle::new())?)
}
