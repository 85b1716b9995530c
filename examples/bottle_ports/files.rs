//! A file manager on SQLite: folders, uploads and downloads, and a JSON API mounted in it.
//!
//! ```text
//! cargo run --example files
//! curl -c jar -b jar -d name=ada -d password=lovelace1815 localhost:8888/login
//! curl -b jar -F file=@README.md localhost:8888/folder/1/upload
//! curl -u ada:lovelace1815 localhost:8888/api/folders/1
//! ```

mod database;
mod passwords;

use bottle_session::{
    App, CsrfPlugin, Error, Form, Html, HttpError, Json, Provided, Redirect, Request, Response,
    Result, Secret, Session, SessionPlugin, Upload, Urls, abort, basic_challenge, escape_html,
    named, redirect,
};
use rusqlite::{OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};
use serde_json::json;

use database::{Database, Db};

/// A file's folder is looked at when the request ends: a file without one is refused by COMMIT.
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS user (name TEXT PRIMARY KEY, password TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS folder (
        id INTEGER PRIMARY KEY,
        parent INTEGER REFERENCES folder (id) ON DELETE CASCADE,
        name TEXT NOT NULL,
        UNIQUE (parent, name)
    );
    CREATE TABLE IF NOT EXISTS file (
        id INTEGER PRIMARY KEY,
        folder INTEGER NOT NULL REFERENCES folder (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
        name TEXT NOT NULL,
        type TEXT NOT NULL,
        content BLOB NOT NULL,
        UNIQUE (folder, name)
    );
    INSERT OR IGNORE INTO folder (id, parent, name) VALUES (1, NULL, '');
";

/// Who is logged in.
struct User {
    name: String,
}

impl Provided for User {}

#[derive(Serialize)]
struct Entry {
    id: i64,
    name: String,
}

impl Entry {
    fn of(row: &Row<'_>) -> rusqlite::Result<Entry> {
        Ok(Entry { id: row.get(0)?, name: row.get(1)? })
    }
}

/// The folder that the address names, and what is in it.
#[derive(Serialize)]
struct Folder {
    id: i64,
    name: String,
    parent: Option<i64>,
    folders: Vec<Entry>,
    files: Vec<Entry>,
}

impl Provided for Folder {}

#[derive(Deserialize)]
struct Credentials {
    name: String,
    password: Secret,
}

#[derive(Deserialize)]
struct Uploaded {
    file: Upload,
}

#[derive(Deserialize)]
struct NewFolder {
    name: String,
}

#[derive(Deserialize)]
struct NewFile {
    folder: i64,
    name: String,
    text: String,
}

fn main() -> Result<()> {
    let address = std::env::var("LISTEN").unwrap_or("127.0.0.1:8888".to_owned());
    println!("The files are in files.db. Listening on http://{address}");
    app(database("files.db".as_ref(), "ada", "lovelace1815")?)?.run(&address)
}

/// The database, made if need be, with a user.
pub fn database(path: &std::path::Path, name: &str, password: &str) -> Result<Database> {
    let database = Database::open(path, SCHEMA).map_err(Error::other)?;
    let user = params![name, passwords::hashed(password)?];
    let made = database.checkout().and_then(|db| {
        db.execute("INSERT OR IGNORE INTO user (name, password) VALUES (?, ?)", user)
    });
    made.map_err(Error::other)?;
    Ok(database)
}

/// The file manager, and its API.
pub fn app(database: Database) -> Result<App> {
    let mut app = App::new();
    app.install(SessionPlugin::new().in_memory().cookie_httponly(true))?;
    database::install(&mut app, database);
    app.provide(named!(|session: &mut Session| -> Result<User, Redirect> {
        match session.get("user") {
            Some(name) => Ok(User { name: name.to_owned() }),
            None => Err(redirect("/login")),
        }
    }));
    // By its name: of whichever route, the wildcard <folder>.
    app.provide(named!(|db: &mut Db, folder: i64| find(db, folder)));
    app.get("/", |_: &User| redirect("/folder/1"));
    app.get("/login", || page("Log in", LOGIN));
    app.post("/login", log_in);
    app.group("/folder/<folder:int>", |folder| -> Result<()> {
        folder.install(CsrfPlugin::new())?;
        folder.before(|_: &User| ());
        folder.get("", named!(browse(user, folder, session, urls)));
        folder.post("/upload", named!(upload(db, folder, form))).body_limit(16 * 1024 * 1024);
        folder.post("/new", named!(make_folder(db, folder, form)));
        Ok(())
    });
    app.get("/file/<id:int>", |_: &User, db: &mut Db, id: i64| download(db, id)).name("file");
    app.error(403, |error: &HttpError| page("Not allowed", &escape_html(error.message())));
    app.mount("/api", api());
    Ok(app)
}

/// The API: the same database, name and password with each request, errors in JSON.
fn api() -> App {
    let mut api = App::new();
    api.before(|request: &Request, db: &mut Db| -> Result<(), HttpError> {
        let Some((name, password)) = request.basic_auth() else {
            return Err(basic_challenge("Files"));
        };
        match passwords::is_right(&password, password_of(db, &name)?.as_deref()) {
            true => Ok(()),
            false => Err(basic_challenge("Files")),
        }
    });
    api.get("/folders/<folder:int>", named!(|folder: &Folder| serde_json::to_value(folder)));
    api.post("/files", |db: &mut Db, Json(new): Json<NewFile>| -> Result<_, HttpError> {
        insert(db, new.folder, &new.name, "text/plain; charset=utf-8", new.text.as_bytes())?;
        Ok((201, Json(json!({ "id": db.last_insert_rowid() }))))
    });
    api.get("/files/<id:int>", |db: &mut Db, id: i64| download(db, id));
    api.delete("/files/<id:int>", |db: &mut Db, id: i64| -> Result<_, HttpError> {
        match db.execute("DELETE FROM file WHERE id = ?", [id])? {
            0 => Err(abort(404, "There is no such file.")),
            _ => Ok(204u16).map(|status| (status, ())),
        }
    });
    api.error_default(|error: &HttpError| {
        let (status, text) = (error.status(), error.message());
        (status, Json(json!({ "status": status.as_u16(), "error": text })))
    });
    api
}

fn find(db: &Db, id: i64) -> Result<Folder, HttpError> {
    let listed = |query: &str| -> rusqlite::Result<Vec<Entry>> {
        db.prepare(query)?.query_map([id], Entry::of)?.collect()
    };
    let found = db.query_row("SELECT name, parent FROM folder WHERE id = ?", [id], |row| {
        Ok((row.get(0)?, row.get(1)?))
    });
    let Some((name, parent)) = found.optional()? else {
        return Err(abort(404, "There is no such folder."));
    };
    let folders = listed("SELECT id, name FROM folder WHERE parent = ? ORDER BY name")?;
    let files = listed("SELECT id, name FROM file WHERE folder = ? ORDER BY name")?;
    Ok(Folder { id, name, parent, folders, files })
}

fn browse(
    user: &User,
    folder: &Folder,
    session: &mut Session,
    urls: &Urls,
) -> Result<Html<String>, HttpError> {
    let mut shown = format!("<p>Logged in as {}.</p><ul>", escape_html(&user.name));
    if let Some(parent) = folder.parent {
        shown.push_str(&format!("<li><a href=\"/folder/{parent}\">..</a></li>"));
    }
    for Entry { id, name } in &folder.folders {
        shown.push_str(&format!("<li><a href=\"/folder/{id}\">{}/</a></li>", escape_html(name)));
    }
    for Entry { id, name } in &folder.files {
        let url = urls.build("file", &[("id", &id.to_string())])?;
        shown.push_str(&format!("<li><a href=\"{url}\">{}</a></li>", escape_html(name)));
    }
    let (id, token) = (folder.id, session.csrf_token());
    shown.push_str(&format!(
        "</ul><form method=\"post\" action=\"/folder/{id}/upload\" enctype=\"multipart/form-data\">\
         <input type=\"hidden\" name=\"csrf_token\" value=\"{token}\"><input type=\"file\" name=\"file\">\
         <button>Upload</button></form>"
    ));
    Ok(page(&format!("/{}", escape_html(&folder.name)), &shown))
}

fn upload(
    db: &mut Db,
    folder: &Folder,
    Form(Uploaded { file }): Form<Uploaded>,
) -> Result<Redirect, HttpError> {
    let content = file.bytes()?;
    let kind = file.content_type().unwrap_or("application/octet-stream");
    insert(db, folder.id, file.filename(), kind, &content)?;
    Ok(redirect(format!("/folder/{}", folder.id)))
}

fn make_folder(
    db: &mut Db,
    folder: &Folder,
    Form(new): Form<NewFolder>,
) -> Result<Redirect, HttpError> {
    let values = params![folder.id, new.name];
    let made = db.execute("INSERT INTO folder (parent, name) VALUES (?, ?)", values);
    database::unless_refused(made)?.ok_or_else(|| abort(409, "There is such a folder."))?;
    Ok(redirect(format!("/folder/{}", db.last_insert_rowid())))
}

fn insert(db: &Db, folder: i64, name: &str, kind: &str, content: &[u8]) -> Result<(), HttpError> {
    let values = params![folder, name, kind, content];
    let inserted =
        db.execute("INSERT INTO file (folder, name, type, content) VALUES (?, ?, ?, ?)", values);
    database::unless_refused(inserted)?.ok_or_else(|| abort(409, "There is such a file."))?;
    Ok(())
}

fn download(db: &Db, id: i64) -> Result<Response, HttpError> {
    let query = "SELECT type, content FROM file WHERE id = ?";
    let found = db.query_row(query, [id], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let (kind, content): (String, Vec<u8>) =
        found.ok_or_else(|| abort(404, "There is no such file."))?;
    // Somebody uploaded it: it must not run as a page of this site.
    Ok(Response::bytes(content)
        .with_header("content-type", kind)
        .with_header("content-disposition", "attachment")
        .with_header("x-content-type-options", "nosniff"))
}

fn log_in(
    db: &mut Db,
    session: &mut Session,
    Form(given): Form<Credentials>,
) -> Result<Redirect, HttpError> {
    match passwords::is_right(given.password.expose(), password_of(db, &given.name)?.as_deref()) {
        true => {
            session.regenerate();
            session.set("user", given.name);
            Ok(redirect("/"))
        }
        false => Err(abort(401, "Name or password is wrong.")),
    }
}

fn password_of(db: &Db, name: &str) -> Result<Option<String>, HttpError> {
    let query = "SELECT password FROM user WHERE name = ?";
    Ok(db.query_row(query, [name], |row| row.get(0)).optional()?)
}

const LOGIN: &str = "<form method=\"post\"><label>Name <input name=\"name\"></label> \
    <label>Password <input name=\"password\" type=\"password\"></label><button>Go on</button></form>";

fn page(title: &str, body: &str) -> Html<String> {
    Html(format!("<!DOCTYPE html><title>{title}</title><h1>{title}</h1>{body}"))
}
