//! Logging in and out, with a session for everybody and another one for administrators.
//!
//! ```text
//! cargo run --example login
//! curl -c jar -b jar -d name=ada -d password=lovelace localhost:8888/login
//! curl -c jar -b jar localhost:8888/
//! curl -c jar -b jar -X POST localhost:8888/admin
//! curl -c jar -b jar localhost:8888/
//! curl -c jar -b jar -X POST localhost:8888/logout
//! ```

use std::time::Duration;

use bottle_session::{
    App, Form, HttpError, Redirect, Result, Session, SessionPlugin, abort, named, redirect,
};
use serde::{Deserialize, Serialize};

#[derive(Deserialize, Serialize)]
struct Credentials {
    name: String,
    password: String,
}

fn main() -> Result<()> {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    let address = std::env::var("LISTEN").unwrap_or("127.0.0.1:8888".to_owned());
    println!("Sessions are kept in memory. Listening on http://{address}");
    app()?.run(&address)
}

fn app() -> Result<App> {
    let mut app = App::new();
    app.install(SessionPlugin::new().in_memory().cookie_httponly(true))?;
    app.install(
        SessionPlugin::new()
            .in_memory()
            .keyword("admin")
            .cookie_name("admin.session")
            .cookie_path("/")
            .cookie_lifetime(Duration::from_secs(120))
            .cookie_httponly(true),
    )?;
    app.get(
        "/",
        named!(|session: &mut Session, admin: &mut Session| {
            match (session.user_id(), admin.user_id()) {
                (None, _) => "Nobody is logged in.\n".to_owned(),
                (Some(user), None) => format!("{user} is logged in.\n"),
                (Some(user), Some(_)) => format!("{user} is logged in and an administrator.\n"),
            }
        }),
    );
    app.post("/login", named!(log_in(form, session)));
    app.post(
        "/admin",
        named!(|session: &mut Session, admin: &mut Session| {
            let user = session.user_id().ok_or_else(|| abort(403, "Log in first."))?;
            admin.log_in(user)?;
            Ok::<_, HttpError>(redirect("/"))
        }),
    );
    app.post(
        "/logout",
        named!(|session: &mut Session, admin: &mut Session| {
            session.log_out();
            admin.log_out();
            redirect("/")
        }),
    );
    Ok(app)
}

fn log_in(
    Form(given): Form<Credentials>,
    session: &mut Session,
) -> std::result::Result<Redirect, HttpError> {
    // A real app asks its database for a password hash, and compares with argon2.
    if (given.name.as_str(), given.password.as_str()) != ("ada", "lovelace") {
        return Err(abort(401, "Name or password is wrong."));
    }
    session.log_in(given.name)?;
    Ok(redirect("/"))
}

#[test]
fn logging_in_changes_the_id_and_logging_out_ends_it() {
    use bottle_session::TestClient;

    let client = TestClient::new(app().unwrap()).unwrap();
    let log_in = |password: &str| {
        let form = Credentials { name: "ada".to_owned(), password: password.to_owned() };
        client.post("/login").form(&form).send().status()
    };
    assert_eq!(log_in("wrong"), 401);
    assert_eq!(client.post("/admin").send().status(), 403);
    assert_eq!(log_in("lovelace"), 303);
    let first = client.cookie("bottle.session").unwrap();
    assert_eq!(client.get("/").send().text(), "ada is logged in.\n");
    assert_eq!(log_in("lovelace"), 303);
    assert_ne!(client.cookie("bottle.session").unwrap(), first);
    assert_eq!(client.post("/admin").send().status(), 303);
    assert_eq!(client.get("/").send().text(), "ada is logged in and an administrator.\n");
    client.post("/logout").send();
    assert_eq!(client.cookie("bottle.session"), None);
    client.set_cookie("bottle.session", &first);
    assert_eq!(client.get("/").send().text(), "Nobody is logged in.\n");
}
