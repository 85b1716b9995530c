//! For administrators: an app of its own, mounted at `/admin` with a condition on who comes in.

use bottle_session::{
    App, Form, FormError, HttpError, IntoResponse, Response, Session, abort, redirect,
};
use minijinja::context;
use minijinja::value::Serde;
use serde::Deserialize;

use super::data::{Data, User};
use super::view::{Page, Pages};

/// Whom to remove. Not in the address, where a browser takes a name such as `..` for the way up.
#[derive(Deserialize)]
struct Person {
    name: String,
}

pub fn app() -> App {
    let mut app = App::new();
    app.get("/", |session: &mut Session, user: &User, data: &Data, pages: &Pages| {
        let (form, values) = (&FormError::default(), context! { people => Serde(data.users()?) });
        pages.show(session, Page { name: "users.html", user: Some(user), form, values })
    })
    .name("users");
    app.post("/remove", remove);
    app
}

fn remove(
    Form(Person { name }): Form<Person>,
    session: &mut Session,
    user: &User,
    data: &Data,
) -> Result<Response, HttpError> {
    if name == user.name {
        return Err(abort(409, "You cannot remove yourself."));
    }
    if !data.remove_user(&name)? {
        return Err(abort(404, "There is nobody of this name."));
    }
    session.flash("info", format!("{name} is gone."));
    Ok(redirect("/admin").into_response())
}
