//! Pages made by minijinja: a layout, addresses of routes, flash messages, the current user, forms with their token, pages of
//! errors in the same layout, and a folder of assets.
//!
//! ```text
//! cargo run --example pages
//! ```
//! and open http://localhost:8888/ in a browser.

use std::sync::Mutex;

use bottle_session::{
    App, CsrfPlugin, Form, Html, HttpError, Own, Provided, Redirect, Result, Session,
    SessionPlugin, Urls, escape_html, redirect,
};
use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, ErrorKind, context};
use serde::Deserialize;

// A real app has them in a folder, and reads it with minijinja's `path_loader`. What ends in .html is escaped.
const TEMPLATES: [(&str, &str); 3] = [
    (
        "layout.html",
        r#"<!DOCTYPE html>
<html lang="en">
<title>{% block title %}Guest book{% endblock %}</title>
<link rel="stylesheet" href="/assets/site.css">
<nav><a href="{{ url_for("home") }}">Guest book</a>
{%- if user %} {{ user }} <form method="post" action="{{ url_for("logout") }}">{{ csrf_field }}<button>Log out</button></form>
{%- endif %}</nav>
{%- for flash in flashes %}
<p class="flash {{ flash.category }}" role="status">{{ flash.text }}</p>
{%- endfor %}
<main>{% block main %}{% endblock %}</main>
</html>
"#,
    ),
    (
        "home.html",
        r#"{% extends "layout.html" %}
{% block main %}
{%- for entry in entries %}
<p id="entry-{{ loop.index0 }}"><a href="{{ url_for("entry", number=loop.index0) }}">{{ entry }}</a></p>
{%- endfor %}
<form method="post" action="{{ url_for(action) }}">{{ csrf_field }}
<label>{{ label }} <input name="text" required></label> <button>Send</button></form>
{% endblock %}"#,
    ),
    (
        "message.html",
        r#"{% extends "layout.html" %}
{% block title %}{{ title }}{% endblock %}
{% block main %}<h1>{{ title }}</h1><p>{{ text }}</p>{% endblock %}"#,
    ),
];

/// The entries of the book.
#[derive(Default)]
struct Entries(Mutex<Vec<String>>);

impl Provided for Entries {}

impl Entries {
    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }
}

#[derive(Deserialize)]
struct Sent {
    text: String,
}

/// What the templates of one request know beside what their handlers tell them.
struct Page {
    templates: Environment<'static>,
    around: Value,
}

impl Provided for Page {}

impl Page {
    fn new(templates: &Environment<'static>, session: &mut Session, urls: &Urls) -> Result<Page> {
        let token = session.csrf_token();
        let field = format!(r#"<input type="hidden" name="csrf_token" value="{token}">"#);
        let flashes = session.take_flashes()?.into_iter();
        let flashes: Vec<_> = flashes
            .map(|flash| context! { category => flash.category, text => flash.text })
            .collect();
        let urls = urls.clone();
        let url_for = move |name: String, wildcards: Kwargs| {
            let values = wildcards
                .args()
                .map(|name| Ok((name, wildcards.get::<Value>(name)?.to_string())))
                .collect::<std::result::Result<Vec<_>, minijinja::Error>>()?;
            let values: Vec<_> = values.iter().map(|(name, value)| (*name, &value[..])).collect();
            let address = urls.build(&name, &values).map_err(|error| {
                minijinja::Error::new(ErrorKind::InvalidOperation, "url_for").with_source(error)
            })?;
            Ok(Value::from_safe_string(escape_html(&address)))
        };
        let around = context! {
            user => session.user_id(),
            csrf_field => Value::from_safe_string(field),
            flashes,
            url_for => Value::from_function(url_for),
        };
        Ok(Page { templates: templates.clone(), around })
    }

    fn render(&self, name: &str, own: Value) -> Result<Html<String>, HttpError> {
        let template = self.templates.get_template(name)?;
        Ok(Html(template.render(context! { ..own, ..self.around.clone() })?))
    }
}

fn main() -> Result<()> {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    let address = std::env::var("LISTEN").unwrap_or("127.0.0.1:8888".to_owned());
    let mut app = app()?;
    app.debug(cfg!(debug_assertions));
    app.run(&address)
}

pub(crate) fn app() -> Result<App> {
    let mut templates = Environment::new();
    for (name, text) in TEMPLATES {
        templates.add_template(name, text).map_err(bottle_session::Error::other)?;
    }

    let mut app = App::new();
    app.install(SessionPlugin::new().in_memory().cookie_httponly(true))?;
    app.install(CsrfPlugin::new())?;
    app.state(Own(templates));
    app.state(Entries::default());
    // Made once a request, and only where a handler or an error page asks for it.
    app.provide(|templates: &Own<Environment<'static>>, session: &mut Session, urls: &Urls| {
        Page::new(templates, session, urls)
    });
    app.error_default(|page: &Page, error: &HttpError| {
        let title = error.status().to_string();
        page.render("message.html", context! { title, text => error.message() })
    });

    app.get("/", |page: &Page, session: &mut Session, entries: &Entries| {
        let (action, label) = match session.user_id() {
            Some(_) => ("write", "Your entry"),
            None => ("login", "Your name"),
        };
        page.render("home.html", context! { entries => entries.all(), action, label })
    })
    .name("home");

    app.get("/entry/<number:int>", |page: &Page, entries: &Entries, number: usize| {
        let Some(text) = entries.all().get(number).cloned() else {
            return Err(bottle_session::abort(404, format!("There is no entry {number}.")));
        };
        page.render("message.html", context! { title => format!("Entry {number}"), text })
    })
    .name("entry");

    app.post("/write", |session: &mut Session, entries: &Entries, Form(sent): Form<Sent>| {
        let Some(user) = session.user_id() else {
            session.flash("error", "Log in first.");
            return redirect("/");
        };
        let entry = format!("{}: {}", user, sent.text);
        entries.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(entry);
        session.flash("info", "Thank you.");
        redirect("/")
    })
    .name("write");

    app.post("/login", |session: &mut Session, Form(sent): Form<Sent>| -> Result<Redirect> {
        // A real app asks for a password: see the example `login`.
        session.log_in(&sent.text)?;
        Ok(redirect("/"))
    })
    .name("login");

    app.post("/logout", |session: &mut Session| {
        session.log_out();
        redirect("/")
    })
    .name("logout");

    app.files("/assets", concat!(env!("CARGO_MANIFEST_DIR"), "/examples/pages/assets"));
    Ok(app)
}

#[test]
fn pages_are_made_from_templates() {
    use bottle_session::{Flash, TestClient};

    let client = TestClient::new(app().unwrap()).unwrap();
    let send = |path: &str, text: &str| {
        let request = client.post(path).header("sec-fetch-site", "same-origin");
        request.form(&[("text", text)]).send()
    };
    assert_eq!(send("/write", "early").flashes(), [Flash::new("error", "Log in first.")]);
    let page = client.get("/").send().text();
    assert!(page.contains(r#"<p class="flash error" role="status">Log in first.</p>"#), "{page}");
    assert!(page.contains(r#"action="/login"><input type="hidden" name="csrf_token""#), "{page}");

    send("/login", "<Ada>");
    let request = client.post("/write").header("sec-fetch-site", "same-origin");
    let page = request.form(&[("text", "Hello")]).follow_redirects().send().text();
    for part in [
        "&lt;Ada&gt; <form",
        r#"<a href="/entry/0">&lt;Ada&gt;: Hello</a>"#,
        r#"role="status">Thank you.</p>"#,
        r#"action="/logout""#,
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(client.get("/entry/0").send().text().contains("<h1>Entry 0</h1>"));
    let lost = client.get("/entry/7").send();
    assert_eq!(lost.status(), 404);
    assert!(lost.text().contains("<h1>404 Not Found</h1><p>There is no entry 7.</p>"));
    assert!(client.get("/assets/site.css").send().text().contains("color-scheme"));
}
