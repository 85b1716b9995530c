//! A to-do list, as in the tutorial of Bottle: on SQLite, with forms, an editing page and error pages.
//!
//! ```text
//! cargo run --example todo
//! curl -d task='Read the tutorial' localhost:8888/new
//! curl localhost:8888/
//! curl localhost:8888/item/1
//! ```

mod database;

use bottle_session::{
    App, Form, Html, HttpError, Json, Redirect, Result, Session, SessionPlugin, Urls, abort,
    escape_html, redirect,
};
use rusqlite::{OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use database::{Database, Db};

const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS todo (
    id INTEGER PRIMARY KEY,
    task TEXT NOT NULL CHECK (length(task) BETWEEN 1 AND 100),
    open INTEGER NOT NULL DEFAULT 1
)";

#[derive(Serialize)]
struct Item {
    id: i64,
    task: String,
    open: bool,
}

impl Item {
    fn of(row: &Row<'_>) -> rusqlite::Result<Item> {
        Ok(Item { id: row.get("id")?, task: row.get("task")?, open: row.get("open")? })
    }

    fn find(db: &Db, id: i64) -> Result<Item, HttpError> {
        let found = db.query_row("SELECT * FROM todo WHERE id = ?", [id], Item::of).optional()?;
        found.ok_or_else(|| abort(404, format!("There is no item {id}.")))
    }
}

#[derive(Deserialize)]
struct NewItem {
    task: String,
}

#[derive(Deserialize)]
struct Edited {
    task: String,
    #[serde(default)]
    open: bool,
}

fn main() -> Result<()> {
    let address = std::env::var("LISTEN").unwrap_or("127.0.0.1:8888".to_owned());
    println!("The list is in todo.db. Listening on http://{address}");
    app(database("todo.db".as_ref())?)?.run(&address)
}

/// The database, made if need be.
pub fn database(path: &std::path::Path) -> Result<Database> {
    Database::open(path, SCHEMA).map_err(bottle_session::Error::other)
}

/// The list.
pub fn app(database: Database) -> Result<App> {
    let mut app = App::new();
    app.install(SessionPlugin::new().in_memory().cookie_httponly(true))?;
    database::install(&mut app, database);
    app.get("/", list).name("list");
    app.get("/new", || page("New", &form("/new", "", None)));
    app.post("/new", add);
    app.get("/edit/<id:int>", |db: &mut Db, id: i64| -> Result<_, HttpError> {
        let Item { id, task, open } = Item::find(db, id)?;
        Ok(page("Edit", &form(&format!("/edit/{id}"), &task, Some(open))))
    })
    .name("edit");
    app.post("/edit/<id:int>", edit);
    app.get("/item/<id:int>", |db: &mut Db, id: i64| Item::find(db, id).map(Json));
    app.error(404, |error: &HttpError, urls: &Urls| -> Result<_> {
        let list = urls.build("list", &[])?;
        let told = escape_html(error.message());
        Ok(page("Not found", &format!("<p>{told}</p><p><a href=\"{list}\">All items</a></p>")))
    });
    Ok(app)
}

fn list(db: &mut Db, session: &mut Session, urls: &Urls) -> Result<Html<String>, HttpError> {
    let flashes = session.take_flashes()?;
    let mut shown: String =
        flashes.iter().map(|flash| format!("<p>{}</p>", escape_html(&flash.text))).collect();
    shown.push_str("<ul>");
    let mut open = db.prepare("SELECT * FROM todo WHERE open ORDER BY id")?;
    for item in open.query_map([], Item::of)? {
        let Item { id, task, .. } = item?;
        let edit = urls.build("edit", &[("id", &id.to_string())])?;
        shown.push_str(&format!("<li>{} <a href=\"{edit}\">edit</a></li>", escape_html(&task)));
    }
    shown.push_str("</ul><p><a href=\"/new\">new</a></p>");
    Ok(page("To do", &shown))
}

fn add(
    db: &mut Db,
    session: &mut Session,
    Form(new): Form<NewItem>,
) -> Result<Redirect, HttpError> {
    let added = db.execute("INSERT INTO todo (task) VALUES (?)", [new.task.trim()]);
    database::unless_refused(added)?.ok_or_else(no_task)?;
    session.flash("info", format!("Added item {}.", db.last_insert_rowid()));
    Ok(redirect("/"))
}

fn no_task() -> HttpError {
    abort(400, "A task has 1 to 100 characters.")
}

fn edit(
    db: &mut Db,
    session: &mut Session,
    id: i64,
    Form(edited): Form<Edited>,
) -> Result<Redirect, HttpError> {
    let Item { id, .. } = Item::find(db, id)?;
    let changes = params![edited.task.trim(), edited.open, id];
    let changed = db.execute("UPDATE todo SET task = ?, open = ? WHERE id = ?", changes);
    database::unless_refused(changed)?.ok_or_else(no_task)?;
    session.flash("info", format!("Changed item {id}."));
    Ok(redirect("/"))
}

fn page(title: &str, body: &str) -> Html<String> {
    Html(format!("<!DOCTYPE html><title>{title}</title><h1>{title}</h1>{body}"))
}

fn form(action: &str, task: &str, open: Option<bool>) -> String {
    let task = escape_html(task);
    let open = open.map_or(String::new(), |open| {
        let checked = if open { " checked" } else { "" };
        format!("<label><input type=\"checkbox\" name=\"open\"{checked}> open</label>")
    });
    format!(
        "<form method=\"post\" action=\"{action}\"><input name=\"task\" value=\"{task}\" maxlength=\"100\" required>\
         {open}<button>Save</button></form>"
    )
}
