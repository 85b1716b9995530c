//! Notes: listed, searched, written, changed, removed; each with a file, if it has one.

use bottle_session::{
    App, Form, FormError, FormLimits, HttpError, IntoResponse, Query, Request, Response, Session,
    Upload, abort, redirect,
};
use minijinja::context;
use minijinja::value::Serde;
use serde::Deserialize;

use super::data::{Data, User};
use super::live::Live;
use super::view::{Page, Pages};

/// The largest file of a note.
const FILE: u64 = 5 << 20;

#[derive(Deserialize)]
struct Search {
    #[serde(default)]
    q: String,
}

#[derive(Deserialize)]
struct NewNote {
    title: String,
    text: String,
    file: Option<Upload>,
}

#[derive(Deserialize)]
struct Changed {
    title: String,
    text: String,
}

pub fn add_to(app: &mut App) {
    app.get("/", index).name("notes");
    app.post("/notes", add).body_limit(FILE + (1 << 20)).config(FormLimits::new().file(FILE));
    app.get("/notes/<id:int>", edit).name("note");
    app.post("/notes/<id:int>", change);
    app.post("/notes/<id:int>/remove", remove);
    app.get("/notes/<id:int>/file", file).name("file");
}

/// For everybody: a word of welcome, or the notes.
fn index(
    Query(search): Query<Search>,
    session: &mut Session,
    user: Option<&User>,
    data: &Data,
    pages: &Pages,
) -> Result<Response, HttpError> {
    match user {
        Some(user) => list(&search.q, &FormError::default(), session, user, data, pages),
        None => {
            let (form, values) = (&FormError::default(), context! { count => data.count()? });
            pages.show(session, Page { name: "welcome.html", user: None, form, values })
        }
    }
}

fn list(
    words: &str,
    form: &FormError,
    session: &mut Session,
    user: &User,
    data: &Data,
    pages: &Pages,
) -> Result<Response, HttpError> {
    let values = context! {
        words,
        notes => Serde(data.notes(&user.name, words)?),
        count => data.count()?,
    };
    pages.show(session, Page { name: "notes.html", user: Some(user), form, values })
}

/// What is wrong with this title; texts may be empty.
fn wrong_title(title: &str) -> Option<&'static str> {
    match title.trim().chars().count() {
        0 => Some("A note needs a title."),
        1..=80 => None,
        _ => Some("A title has at most 80 characters."),
    }
}

fn add(
    sent: Result<Form<NewNote>, FormError>,
    request: &Request,
    session: &mut Session,
    user: &User,
    data: &Data,
    pages: &Pages,
    live: &Live,
) -> Result<Response, HttpError> {
    let new = match sent {
        Ok(Form(new)) => new,
        Err(error) => return list("", &error, session, user, data, pages),
    };
    if let Some(wrong) = wrong_title(&new.title) {
        let wrong = request.form()?.refuse("title", wrong);
        return list("", &wrong, session, user, data, pages);
    }
    let bytes = new.file.as_ref().map(Upload::bytes).transpose()?;
    let file = new.file.as_ref().map(Upload::filename).zip(bytes.as_deref());
    data.add_note(&user.name, (new.title.trim(), &new.text), file)?;
    live.tell(data.count()?);
    session.flash("info", format!("“{}” is noted.", new.title.trim()));
    Ok(redirect("/").into_response())
}

fn nothing_there() -> HttpError {
    abort(404, "You have no such note.")
}

fn edit(
    id: i64,
    session: &mut Session,
    user: &User,
    data: &Data,
    pages: &Pages,
) -> Result<Response, HttpError> {
    let note = data.note(&user.name, id)?.ok_or_else(nothing_there)?;
    let mut form = FormError::default();
    form.set_value("title", &note.title);
    form.set_value("text", &note.text);
    let page = Page {
        name: "note.html",
        user: Some(user),
        form: &form,
        values: context! { note => Serde(note) },
    };
    pages.show(session, page)
}

fn change(
    id: i64,
    Form(changed): Form<Changed>,
    request: &Request,
    session: &mut Session,
    user: &User,
    data: &Data,
    pages: &Pages,
) -> Result<Response, HttpError> {
    if let Some(wrong) = wrong_title(&changed.title) {
        let form = &request.form()?.refuse("title", wrong);
        let note = data.note(&user.name, id)?.ok_or_else(nothing_there)?;
        let page = Page {
            name: "note.html",
            user: Some(user),
            form,
            values: context! { note => Serde(note) },
        };
        return pages.show(session, page);
    }
    if !data.change_note(&user.name, id, (changed.title.trim(), &changed.text))? {
        return Err(nothing_there());
    }
    session.flash("info", format!("“{}” is changed.", changed.title.trim()));
    Ok(redirect("/").into_response())
}

fn remove(
    id: i64,
    session: &mut Session,
    user: &User,
    data: &Data,
    live: &Live,
) -> Result<Response, HttpError> {
    if !data.remove_note(&user.name, id)? {
        return Err(nothing_there());
    }
    live.tell(data.count()?);
    session.flash("info", "The note is gone.");
    Ok(redirect("/").into_response())
}

/// Saved and not shown, whatever it is: HTML of a visitor's must not run as a page of this site.
fn file(id: i64, user: &User, data: &Data) -> Result<Response, HttpError> {
    let (name, bytes) = data.file(&user.name, id)?.ok_or_else(nothing_there)?;
    Ok(Response::bytes(bytes).with_header("content-disposition", disposition(&name)))
}

/// As RFC 6266 has it: any name in UTF-8, for what is from this century.
fn disposition(name: &str) -> String {
    let name: String = form_urlencoded::byte_serialize(name.as_bytes()).collect();
    format!("attachment; filename*=UTF-8''{}", name.replace('+', "%20").replace('*', "%2A"))
}
