//! Sessions and the app's own data on one pool of Redis connections.
//!
//! ```text
//! REDIS_URL=redis://localhost:6379/0 cargo run --example visitors
//! curl -c jar -b jar localhost:8888/visits
//! ```

use std::time::{SystemTime, UNIX_EPOCH};

use bottle_session::{
    App, RedisConnection, RedisPlugin, RedisPool, Result, Session, SessionPlugin,
};

fn main() -> Result<()> {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    let url = std::env::var("REDIS_URL").unwrap_or("redis://localhost:6379/0".to_owned());
    let address = std::env::var("LISTEN").unwrap_or("127.0.0.1:8888".to_owned());
    println!("Counting visitors in {url}. Listening on http://{address}");
    app(RedisPool::open(&url)?)?.run(&address)
}

fn app(pool: RedisPool) -> Result<App> {
    let mut app = App::new();
    app.install(SessionPlugin::new().pool(pool.clone()))?;
    app.install(RedisPlugin::new().pool(pool))?;
    app.get("/visits", |session: &mut Session, rdb: &mut RedisConnection| -> Result<String> {
        let visitor: u64 = rdb.incr("visitors", 1)?;
        let last = match session.parse::<u64>("visit") {
            Some(then) => format!("{} seconds ago", now().saturating_sub(then)),
            None => "never".to_owned(),
        };
        session.set("visit", now());
        Ok(format!("You are visitor {visitor}, your last visit: {last}\n"))
    });
    Ok(app)
}

/// Seconds since 1970, UTC.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
