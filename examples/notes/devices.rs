//! Where somebody is logged in, and how that ends: one device, or all but this one.

use bottle_session::{App, FormError, HttpError, IntoResponse, Response, Session, abort, redirect};
use minijinja::context;
use minijinja::value::Serde;

use super::data::User;
use super::view::{Page, Pages};

pub fn add_to(app: &mut App) {
    app.group("/devices", |devices| {
        devices.before(|_: &User| {});
        devices.get("/", show).name("devices");
        devices.post("/others/end", end_others);
        devices.post("/<handle>/end", end);
    });
}

fn show(session: &mut Session, user: &User, pages: &Pages) -> Result<Response, HttpError> {
    let values = context! { devices => Serde(session.devices()?) };
    let form = &FormError::default();
    pages.show(session, Page { name: "devices.html", user: Some(user), form, values })
}

fn end(handle: &str, session: &mut Session) -> Result<Response, HttpError> {
    if !session.end_device(handle)? {
        return Err(abort(404, "You are not logged in there any more."));
    }
    session.flash("info", "You are logged out there.");
    Ok(redirect("/devices").into_response())
}

fn end_others(session: &mut Session) -> Result<Response, HttpError> {
    session.end_other_devices()?;
    session.flash("info", "You are logged in here and nowhere else.");
    Ok(redirect("/devices").into_response())
}
