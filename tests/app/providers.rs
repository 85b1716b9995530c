//! Values that closures make of other values, and state. Here is what the tests share.

mod errors;
mod finishing;
mod making;
mod sources;
mod state;

use std::sync::atomic::AtomicBool;

use bottle_session::{Argument, Asked, Binder, MemoryStore, Own, Session, SessionPlugin};

use super::*;

struct Users(&'static [&'static str]);

impl Provided for Users {}

#[derive(Debug)]
struct User {
    name: String,
}

impl Provided for User {}

struct Tenant(String);

impl Provided for Tenant {}

type Log = Arc<Mutex<Vec<String>>>;

fn told(log: &Log) -> Vec<String> {
    std::mem::take(&mut *log.lock().unwrap())
}

/// The user of the session, or the way to the login page.
fn user_of(session: &mut Session, users: &Users) -> std::result::Result<User, HttpError> {
    let name = session.get("name").unwrap_or_default();
    match users.0.contains(&name) {
        true => Ok(User { name: name.to_owned() }),
        false => Err(redirect("/login").into()),
    }
}

fn with_users(app: &mut App) {
    app.install(SessionPlugin::new().in_memory()).unwrap();
    app.state(Users(&["ada", "bob"]));
    app.provide(user_of);
    app.get("/login/<name>", |session: &mut Session, name: &str| session.set("name", name));
}
