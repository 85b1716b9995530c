//! Signing up, logging in, and seeing where: passwords with argon2, "remember me", a page of devices, one for administrators.
//!
//! ```text
//! cargo run --example login
//! ```
//! and open http://localhost:8888/ in two browsers. The first one who signs up is the administrator.

#[path = "bottle_ports/passwords.rs"]
mod passwords;

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use bottle_session::{
    App, CsrfPlugin, Form, Html, HttpError, LoginPlugin, Own, Provided, Redirect, Request, Result,
    Secret, Session, SessionPlugin, abort, escape_html, redirect, redirect_back,
};
use serde::Deserialize;

/// How long a session is kept that is to be remembered.
const MONTH: Duration = Duration::from_secs(30 * 24 * 60 * 60);

#[derive(Clone)]
struct User {
    name: String,
    is_admin: bool,
    password: String,
}

impl Provided for User {}

/// A real app has a database here.
type Users = Arc<RwLock<BTreeMap<String, User>>>;

#[derive(Deserialize)]
struct Credentials {
    name: String,
    password: Secret,
    remember: Option<String>,
}

fn main() -> Result<()> {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    let address = std::env::var("LISTEN").unwrap_or("127.0.0.1:8888".to_owned());
    println!("Sessions are kept in memory. Listening on http://{address}");
    app()?.run(&address)
}

pub(crate) fn app() -> Result<App> {
    let users = Users::default();
    let known = users.clone();
    let find = move |name: &str| -> Result<Option<User>> {
        Ok(known.read().unwrap_or_else(|poisoned| poisoned.into_inner()).get(name).cloned())
    };
    let mut app = App::new();
    app.state(Own(users));
    let sessions = SessionPlugin::new().in_memory().cookie_httponly(true);
    app.install(
        sessions
            .anonymous_lifetime(Duration::from_secs(3600))
            .cookie_lifetime(Duration::from_secs(7200)),
    )?;
    app.install(CsrfPlugin::new())?;
    app.install(LoginPlugin::new(find).login_page("login"))?;

    app.get("/", home);
    app.get("/login", login_page).name("login");
    app.post("/login", log_in);
    app.post("/signup", sign_up);
    app.post("/logout", |session: &mut Session| {
        session.log_out();
        redirect("/")
    });
    app.get("/admin", |user: &User| format!("{} may do anything.", user.name))
        .require(|user: &User| user.is_admin);
    app.group("/devices", |devices| {
        devices.before(|_: &User| {});
        devices.get("/", devices_page);
        devices.post("/others/end", |session: &mut Session| -> Result<_> {
            session.end_other_devices()?;
            Ok(redirect("/devices/"))
        });
        devices.post("/<handle>/end", |session: &mut Session, handle: &str| -> Result<_> {
            session.end_device(handle)?;
            Ok(redirect("/devices/"))
        });
    });
    Ok(app)
}

fn home(session: &mut Session, user: Option<&User>) -> Html<String> {
    let Some(user) = user else {
        return page("<p>Nobody is logged in.</p><a href=\"/login\">Log in</a>");
    };
    let (name, log_out) = (escape_html(&user.name), button(session, "/logout", "Log out"));
    page(&format!("<p>{name} is logged in.</p><a href=\"/devices/\">Devices</a>{log_out}"))
}

fn login_page(session: &mut Session) -> Html<String> {
    let token = escape_html(&session.csrf_token());
    // A form without an action is sent to the address of its page, with what that has as ?next=.
    let form = |action: &str, id: &str, label: &str| {
        format!(
            r#"<form id="{id}" method="post"{action}><input type="hidden" name="csrf_token" value="{token}">
            <label>Name <input name="name" autocomplete="username"></label>
            <label>Password <input type="password" name="password"></label>
            <label><input type="checkbox" name="remember"> Remember me</label>
            <button>{label}</button></form>"#
        )
    };
    let (login, signup) =
        (form("", "login", "Log in"), form(" action=\"/signup\"", "signup", "Sign up"));
    page(&format!("{login}{signup}"))
}

fn devices_page(session: &mut Session) -> Result<Html<String>> {
    let mut rows = String::new();
    for device in session.devices()? {
        let agent = escape_html(&device.agent);
        let what = match device.is_this {
            true => "this device".to_owned(),
            false => button(session, &format!("/devices/{}/end", device.handle), "End this"),
        };
        rows += &format!("<li>{agent} from {} {what}</li>", escape_html(&device.address));
    }
    let others = button(session, "/devices/others/end", "End all others");
    Ok(page(&format!("<ul>{rows}</ul>{others}")))
}

fn button(session: &mut Session, action: &str, label: &str) -> String {
    let token = escape_html(&session.csrf_token());
    format!(
        r#"<form method="post" action="{action}"><input type="hidden" name="csrf_token" value="{token}">
        <button>{label}</button></form>"#
    )
}

fn page(body: &str) -> Html<String> {
    Html(format!("<!doctype html><html lang=\"en\"><title>Logins</title>{body}"))
}

/// Blocks for as long as argon2 takes; other requests have other threads.
fn log_in(
    Form(given): Form<Credentials>,
    session: &mut Session,
    request: &Request,
    Own(users): &Own<Users>,
) -> std::result::Result<Redirect, HttpError> {
    let known =
        users.read().unwrap_or_else(|poisoned| poisoned.into_inner()).get(&given.name).cloned();
    // Whoever is not known takes as long as who is: who asks is not told which names there are.
    let fits =
        passwords::is_right(given.password.expose(), known.as_ref().map(|user| &*user.password));
    match known {
        Some(user) if fits => start(session, &user, given.remember.is_some())?,
        _ => return Err(abort(401, "Name or password is wrong.")),
    }
    Ok(redirect_back(request, "/"))
}

fn sign_up(
    Form(given): Form<Credentials>,
    session: &mut Session,
    Own(users): &Own<Users>,
) -> std::result::Result<Redirect, HttpError> {
    let is_name = (1..=64).contains(&given.name.len()) && !given.name.contains(char::is_control);
    if !is_name || given.password.expose().chars().count() < 8 {
        return Err(abort(400, "A name has 1 to 64 bytes, a password 8 characters or more."));
    }
    let password = passwords::hashed(given.password.expose())?;
    let mut users = users.write().unwrap_or_else(|poisoned| poisoned.into_inner());
    if users.contains_key(&given.name) {
        return Err(abort(409, "The name is taken."));
    }
    let user = User { name: given.name.clone(), is_admin: users.is_empty(), password };
    start(session, &user, given.remember.is_some())?;
    users.insert(given.name, user);
    Ok(redirect("/"))
}

fn start(session: &mut Session, user: &User, remember: bool) -> Result<()> {
    session.log_in(&user.name)?;
    session.remember(remember.then_some(MONTH));
    Ok(())
}

#[test]
fn two_browsers_of_one_user_see_each_other_and_end_each_other() {
    use bottle_session::TestClient;
    use bottle_session::testing::TestResponse;

    let laptop = TestClient::new(app().unwrap()).unwrap();
    let phone = TestClient::of(laptop.service().clone());
    let post = |client: &TestClient, path: &str, form: &[(&str, &str)]| -> TestResponse {
        client.post(path).header("sec-fetch-site", "same-origin").form(&form).send()
    };
    let ada = [("name", "ada"), ("password", "lovelace")];
    let html = |path: &str| laptop.get(path).header("accept", "text/html").send();
    assert_eq!(html("/devices/").header("location"), Some("/login?next=%2Fdevices%2F"));
    assert_eq!(post(&laptop, "/login", &ada).status(), 401);
    for refused in [[("name", ""), ada[1]], [ada[0], ("password", "short")]] {
        assert_eq!(post(&laptop, "/signup", &refused).status(), 400);
    }
    assert_eq!(post(&laptop, "/signup", &ada).header("location"), Some("/"));
    let first = laptop.cookie("bottle.session").unwrap();
    assert_eq!(post(&phone, "/signup", &ada).status(), 409);
    assert_eq!(post(&phone, "/login", &[("name", "ada"), ("password", "wrong")]).status(), 401);
    let answer = post(
        &phone,
        "/login?next=%2Fdevices%2F",
        &[("name", "ada"), ("password", "lovelace"), ("remember", "on")],
    );
    assert_eq!(answer.header("location"), Some("/devices/"));
    assert!(answer.header("set-cookie").unwrap().contains("Max-Age=2851200"));
    assert_eq!(laptop.get("/admin").send().text(), "ada may do anything.");
    let page = phone.get("/devices/").send().text();
    assert_eq!((page.matches("this device").count(), page.matches("End this").count()), (1, 1));
    // Logging in again is a new id.
    assert_eq!(post(&laptop, "/login", &ada).status(), 303);
    assert_ne!(laptop.cookie("bottle.session").unwrap(), first);
    assert_eq!(post(&phone, "/devices/others/end", &[]).status(), 303);
    assert!(laptop.get("/").send().text().contains("Nobody is logged in."));
    assert_eq!(post(&laptop, "/login", &ada).status(), 303);
    let page = laptop.get("/devices/").send().text();
    let end = page.split("action=\"").find(|part| part.contains("End this")).unwrap();
    assert_eq!(post(&laptop, end.split('"').next().unwrap(), &[]).status(), 303);
    assert!(phone.get("/").send().text().contains("Nobody is logged in."));
    post(&laptop, "/logout", &[]);
    assert_eq!(laptop.cookie("bottle.session"), None);
    // Who signs up later is no administrator.
    post(&phone, "/signup", &[("name", "bob"), ("password", "a secret")]);
    assert_eq!(phone.get("/admin").send().status(), 403);
}
