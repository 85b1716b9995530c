//! For administrators: an app of its own, mounted at `/admin`. Its guard is asked before each of its handlers.

use bottle_session::{App, FormError, HttpError, IntoResponse, Response, Session, abort, redirect};
use minijinja::context;
use minijinja::value::Serde;

use super::data::{Data, User};
use super::view::{Page, Pages};

pub fn app() -> App {
    let mut app = App::new();
    app.before(|user: &User| match user.is_admin {
        true => Ok(()),
        false => Err(abort(403, "This is for administrators.")),
    });
    app.get("/", |session: &mut Session, user: &User, data: &Data, pages: &Pages| {
        let (form, values) = (&FormError::default(), context! { people => Serde(data.users()?) });
        pages.show(session, Page { name: "users.html", user: Some(user), form, values })
    })
    .name("users");
    app.post("/users/<name>/remove", remove);
    app
}

fn remove(
    name: &str,
    session: &mut Session,
    user: &User,
    data: &Data,
) -> Result<Response, HttpError> {
    if name == user.name {
        return Err(abort(409, "You cannot remove yourself."));
    }
    if !data.remove_user(name)? {
        return Err(abort(404, "There is nobody of this name."));
    }
    session.flash("info", format!("{name} is gone."));
    Ok(redirect("/admin").into_response())
}
