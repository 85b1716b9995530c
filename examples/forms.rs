//! A form with a file, shown again with what is wrong at each field. No JavaScript; the pages are made by minijinja.
//!
//! ```text
//! cargo run --example forms --features garde
//! ```
//! and open http://localhost:8888/ in a browser. Or, without one:
//! ```text
//! curl -F title= -F pages=many -F color=green localhost:8888/notes
//! ```
//! which is refused for want of a token, as curl is no browser.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bottle_session::{
    App, Checked, CsrfPlugin, Form, FormError, FormLimits, Html, IntoResponse, Request, Response,
    Result, Secret, Session, SessionPlugin, StaticFile, Upload, redirect, static_file,
};
use garde::Validate;
use minijinja::value::Serde;
use minijinja::{Environment, context};
use serde::{Deserialize, Serialize};

const TEMPLATE: &str = r#"<!doctype html>
<html lang="en">
<title>Notes</title>
<style>label, input, select, button { display: block; margin: .3em 0 } .wrong { color: #b00 }</style>
{%- macro wrong(name) %}
    {%- if form.message[name] %}<p class="wrong" id="{{ name }}-wrong">{{ form.message[name] }}</p>{% endif %}
{%- endmacro %}
{%- macro about(name) %}
    {%- if form.message[name] %} aria-invalid="true" aria-describedby="{{ name }}-wrong"{% endif %}
{%- endmacro %}
<p id="user">{% if user %}{{ user }} is logged in.{% else %}Nobody is logged in.{% endif %}</p>
{%- if form.form_message %}<p class="wrong">{{ form.form_message }}</p>{% endif %}
<form id="note" method="post" action="/notes" enctype="multipart/form-data">
<input type="hidden" name="csrf_token" value="{{ token }}">
<label for="title">Title</label>
<input id="title" name="title" value="{{ form.value.title }}"{{ about("title") }} autofocus>{{ wrong("title") }}
<label for="pages">Pages</label>
<input id="pages" name="pages" inputmode="numeric" value="{{ form.value.pages }}"{{ about("pages") }}>{{ wrong("pages") }}
<fieldset><legend>Tags</legend>
{%- for tag in ["home", "work"] %}
<label><input type="checkbox" name="tags" value="{{ tag }}"{% if tag in form.values.tags %} checked{% endif %}> {{ tag }}</label>
{%- endfor %}
</fieldset>
<label><input type="checkbox" name="public"{% if form.value.public %} checked{% endif %}> Public</label>
<label for="picture">Picture</label>
<input id="picture" type="file" name="picture"{{ about("picture") }}>{{ wrong("picture") }}
<button>Save</button>
</form>
<form id="login" method="post" action="/login">
<input type="hidden" name="csrf_token" value="{{ token }}">
<label for="name">Name</label> <input id="name" name="name" autocomplete="username">
<label for="password">Password</label>
<input id="password" type="password" name="password" autocomplete="current-password">
<button>Log in</button>
</form>
<ul>
{%- for note in notes %}
<li>{{ note.title }}, {{ note.pages }} pages, {{ note.tags | join(" and ") or "no tags" }}{% if note.public %}, public{% endif %}
{%- if note.picture %}, <a href="/pictures/{{ note.picture | urlencode }}">{{ note.picture }}</a>{% endif %}</li>
{%- endfor %}
</ul>
</html>
"#;

#[derive(Deserialize, Validate)]
struct NewNote {
    #[garde(length(chars, min = 1, max = 80))]
    title: String,
    #[garde(range(min = 1, max = 1000))]
    pages: Option<u32>,
    #[garde(skip)]
    #[serde(default)]
    tags: Vec<String>,
    #[garde(skip)]
    #[serde(default)]
    public: bool,
    #[garde(skip)]
    picture: Option<Upload>,
}

#[derive(Deserialize)]
struct Login {
    name: String,
    password: Secret,
}

#[derive(Clone, Serialize)]
struct Note {
    title: String,
    pages: u32,
    tags: Vec<String>,
    public: bool,
    picture: Option<String>,
}

/// What all handlers share.
struct Notebook {
    templates: Environment<'static>,
    notes: Mutex<Vec<Note>>,
    pictures: PathBuf,
}

fn main() -> Result<()> {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    let pictures = std::env::temp_dir().join("notebook");
    std::fs::create_dir_all(&pictures)?;
    let address = std::env::var("LISTEN").unwrap_or("127.0.0.1:8888".to_owned());
    println!("Pictures are kept in {}. Listening on http://{address}", pictures.display());
    app(&pictures)?.run(&address)
}

pub(crate) fn app(pictures: &Path) -> Result<App> {
    let mut templates = Environment::new();
    templates.add_template("page.html", TEMPLATE).map_err(std::io::Error::other)?;
    let (notes, pictures) = (Mutex::default(), pictures.to_owned());
    let notebook = Arc::new(Notebook { templates, notes, pictures });

    let mut app = App::new();
    app.install(SessionPlugin::new().in_memory().cookie_httponly(true))?;
    app.install(CsrfPlugin::new())?;

    let book = notebook.clone();
    app.get("/", move |session: &mut Session| book.page(session, &FormError::default()));

    let book = notebook.clone();
    app.post(
        "/notes",
        move |session: &mut Session, form: Result<Checked<Form<NewNote>>, FormError>| {
            let Checked(Form(note)) = match form {
                Ok(form) => form,
                Err(error) => return (error.status(), book.page(session, &error)).into_response(),
            };
            match book.add(note) {
                Ok(()) => redirect("/").into_response(),
                Err(error) => Err::<(), _>(error).into_response(),
            }
        },
    )
    .body_limit(20 << 20)
    .config(FormLimits::new().file(10 << 20));

    let book = notebook.clone();
    app.post(
        "/login",
        move |session: &mut Session,
              request: &Request,
              Form(login): Form<Login>|
              -> Result<Response> {
            // A real app asks its database for a password hash, and compares with argon2.
            if (&login.name[..], login.password.expose()) != ("ada", "lovelace") {
                let error = request.form()?.refuse("name", "Name or password is wrong.");
                return Ok((error.status(), book.page(session, &error)).into_response());
            }
            session.regenerate();
            session.set("user", login.name);
            Ok(redirect("/").into_response())
        },
    );

    app.get("/pictures/<name>", move |request: &Request, name: &str| -> StaticFile {
        // Whatever it is, it is saved and not shown: a visitor's HTML must not run as a page of this site.
        static_file(request, name, &notebook.pictures).download()
    });
    Ok(app)
}

impl Notebook {
    fn page(&self, session: &mut Session, form: &FormError) -> Result<Html<String>> {
        let notes = self.notes.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        let (token, user) = (session.csrf_token(), session.get("user"));
        let page = self.templates.get_template("page.html").map_err(std::io::Error::other)?;
        let page =
            page.render(context! { form => Serde(form), notes => Serde(&notes), token, user });
        Ok(Html(page.map_err(std::io::Error::other)?))
    }

    fn add(&self, note: NewNote) -> Result<()> {
        let saved = note.picture.map(|picture| picture.save_to(&self.pictures)).transpose()?;
        let name = |path: PathBuf| Some(path.file_name()?.to_string_lossy().into_owned());
        let note = Note {
            title: note.title,
            pages: note.pages.unwrap_or(1),
            tags: note.tags,
            public: note.public,
            picture: saved.and_then(name),
        };
        self.notes.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(note);
        Ok(())
    }
}

#[test]
fn a_note_is_saved_or_its_form_is_shown_again() {
    use bottle_session::TestClient;

    let client = TestClient::new(app(&std::env::temp_dir()).unwrap()).unwrap();
    let send = |fields: &[(&str, &str)]| {
        let form = client.post("/notes").header("sec-fetch-site", "same-origin").form(&fields);
        let answer = form.send();
        (answer.status(), answer.text())
    };
    let (status, page) = send(&[("title", "<Tea>"), ("pages", "many"), ("tags", "work")]);
    assert_eq!(status, 400);
    assert!(page.contains(r#"value="&lt;Tea&gt;""#), "{page}");
    assert!(page.contains(r#"value="work" checked"#), "{page}");
    assert!(
        page.contains(r#"<p class="wrong" id="pages-wrong">must be a whole number</p>"#),
        "{page}"
    );
    let (status, page) = send(&[("title", ""), ("pages", "2000")]);
    assert_eq!(status, 400);
    assert!(
        page.contains("length is lower than 1") && page.contains("greater than 1000"),
        "{page}"
    );
    assert_eq!(send(&[("title", "Tea"), ("pages", "")]).0, 303);
    assert!(client.get("/").send().text().contains("<li>Tea, 1 pages, no tags</li>"));
}
