//! People: how they sign up, log in and out, and what they look like.

use std::time::Duration;

use bottle_session::{
    App, Form, FormError, HttpError, IntoResponse, RateLimitPlugin, Request, Response, Secret,
    Session, Upload, abort, redirect, redirect_back,
};
use minijinja::context;
use serde::Deserialize;

use super::data::{Data, User};
use super::passwords::{hashed, is_right};
use super::view::{Page, Pages};

/// How long who asks for it stays logged in.
const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);

/// The largest picture of somebody.
const PICTURE: u64 = 256 * 1024;

#[derive(Deserialize)]
struct NewUser {
    name: String,
    password: Secret,
}

#[derive(Deserialize)]
struct Credentials {
    name: String,
    password: Secret,
    #[serde(default)]
    remember: bool,
}

#[derive(Deserialize)]
struct NewPicture {
    picture: Upload,
}

pub fn add_to(app: &mut App) {
    app.get("/signup", |session: &mut Session, pages: &Pages| {
        form("signup.html", pages, session, &FormError::default())
    })
    .name("signup");
    app.post("/signup", sign_up);
    app.get("/login", |session: &mut Session, pages: &Pages| {
        form("login.html", pages, session, &FormError::default())
    })
    .name("login");
    // Counted by address: who guesses passwords guesses ten a minute.
    let attempts = RateLimitPlugin::new(10, Duration::from_secs(60)).keyword("logins");
    app.post("/login", log_in).apply(attempts);
    app.post("/logout", |session: &mut Session| {
        session.log_out();
        redirect("/")
    });
    app.get("/account", |session: &mut Session, user: &User, pages: &Pages| {
        account(pages, session, user, &FormError::default())
    })
    .name("account");
    app.post("/account/picture", set_picture);
    app.get("/pictures/<name>", picture).name("picture");
}

fn form(
    name: &str,
    pages: &Pages,
    session: &mut Session,
    form: &FormError,
) -> Result<Response, HttpError> {
    pages.show(session, Page { name, user: None, form, values: context! {} })
}

fn sign_up(
    sent: Result<Form<NewUser>, FormError>,
    request: &Request,
    session: &mut Session,
    data: &Data,
    pages: &Pages,
) -> Result<Response, HttpError> {
    let new = match sent {
        Ok(Form(new)) => new,
        Err(error) => return form("signup.html", pages, session, &error),
    };
    let mut wrong = Vec::new();
    let is_plain = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    // In an address `.` and `..` are no names.
    let is_name = new.name.chars().all(is_plain) && new.name.contains(char::is_alphanumeric);
    if !is_name || new.name.chars().count() > 30 {
        wrong.push((
            "name",
            "A name has at most 30 letters, digits, and -_., and one letter or digit at least.",
        ));
    }
    if new.password.expose().chars().count() < 8 {
        wrong.push(("password", "A password has at least 8 characters."));
    }
    if wrong.is_empty() && !data.add_user(&new.name, &hashed(new.password.expose())?)? {
        wrong.push(("name", "Somebody has this name already."));
    }
    if let [(field, text), rest @ ..] = &wrong[..] {
        let mut wrong = request.form()?.refuse(field, *text);
        rest.iter().for_each(|(field, text)| wrong.add(field, *text));
        return form("signup.html", pages, session, &wrong);
    }
    session.log_in(data.id(&new.name)?)?;
    session.flash("info", format!("Welcome, {}. This is your notebook.", new.name));
    Ok(redirect("/").into_response())
}

fn log_in(
    sent: Result<Form<Credentials>, FormError>,
    request: &Request,
    session: &mut Session,
    data: &Data,
    pages: &Pages,
) -> Result<Response, HttpError> {
    let given = match sent {
        Ok(Form(given)) => given,
        Err(error) => return form("login.html", pages, session, &error),
    };
    if !is_right(given.password.expose(), data.password(&given.name)?.as_deref()) {
        let wrong = request.form()?.refuse("name", "Name or password is wrong.");
        return form("login.html", pages, session, &wrong);
    }
    session.log_in(data.id(&given.name)?)?;
    session.remember(given.remember.then_some(MONTH));
    session.flash("info", format!("Welcome back, {}.", given.name));
    Ok(redirect_back(request, "/").into_response())
}

fn account(
    pages: &Pages,
    session: &mut Session,
    user: &User,
    form: &FormError,
) -> Result<Response, HttpError> {
    pages.show(session, Page { name: "account.html", user: Some(user), form, values: context! {} })
}

fn set_picture(
    sent: Result<Form<NewPicture>, FormError>,
    request: &Request,
    session: &mut Session,
    user: &User,
    data: &Data,
    pages: &Pages,
) -> Result<Response, HttpError> {
    let new = match sent {
        Ok(Form(new)) => new.picture,
        Err(error) => return account(pages, session, user, &error),
    };
    let wrong = match new.len() {
        length if length > PICTURE => Some("A picture has at most 256 KiB."),
        _ if kind(&new.bytes()?).is_none() => Some("This is no PNG, JPEG, GIF or WebP."),
        _ => None,
    };
    if let Some(wrong) = wrong {
        let wrong = request.form()?.refuse("picture", wrong);
        return account(pages, session, user, &wrong);
    }
    data.set_picture(&user.name, &new.bytes()?)?;
    session.flash("info", "That is you now.");
    Ok(redirect("/account").into_response())
}

/// Anybody who is logged in sees what people look like.
fn picture(name: &str, _user: &User, data: &Data) -> Result<Response, HttpError> {
    let bytes = data.picture(name)?.ok_or_else(|| abort(404, "Nobody of this name has one."))?;
    let kind = kind(&bytes).unwrap_or("application/octet-stream");
    Ok(Response::bytes(bytes).with_header("content-type", kind))
}

/// What these bytes are, by how they begin: the word of who sent them does not count.
fn kind(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x89, b'P', b'N', b'G', ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', ..] => Some("image/gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
        _ => None,
    }
}
