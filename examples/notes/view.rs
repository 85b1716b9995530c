//! The pages: templates, with what each of them shows of the visitor.

use std::time::{Duration, UNIX_EPOCH};

use bottle_session::http::StatusCode;
use bottle_session::{
    Error, FormError, Html, HttpError, IntoResponse, Provided, Response, Session,
};
use minijinja::value::Serde;
use minijinja::{Environment, Value, context};

use super::data::User;

pub const STYLE: &str = include_str!("pages/style.css");
pub const SCRIPT: &str = include_str!("pages/live.js");

pub const ICON: &str = include_str!("pages/icon.svg");

const TEMPLATES: [(&str, &str); 12] = [
    ("fields.html", include_str!("pages/fields.html")),
    ("layout.html", include_str!("pages/layout.html")),
    ("welcome.html", include_str!("pages/welcome.html")),
    ("credentials.html", include_str!("pages/credentials.html")),
    ("signup.html", include_str!("pages/signup.html")),
    ("login.html", include_str!("pages/login.html")),
    ("notes.html", include_str!("pages/notes.html")),
    ("note.html", include_str!("pages/note.html")),
    ("account.html", include_str!("pages/account.html")),
    ("devices.html", include_str!("pages/devices.html")),
    ("users.html", include_str!("pages/users.html")),
    ("error.html", include_str!("pages/error.html")),
];

/// The templates, for all handlers. What they show is escaped, as their names end with `.html`.
pub struct Pages(Environment<'static>);

impl Provided for Pages {}

/// A page under way: what it shows, and of whom.
pub struct Page<'a> {
    pub name: &'a str,
    pub user: Option<&'a User>,
    pub form: &'a FormError,
    pub values: Value,
}

impl Pages {
    pub fn new() -> Result<Pages, Error> {
        let mut templates = Environment::new();
        templates.add_filter("date", |seconds: u64| {
            httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds))
        });
        for (name, text) in TEMPLATES {
            templates.add_template(name, text).map_err(Error::other)?;
        }
        Ok(Pages(templates))
    }

    /// The page, with the messages that wait for it. Nobody keeps it who has logged out since.
    pub fn show(&self, session: &mut Session, page: Page<'_>) -> Result<Response, HttpError> {
        let flashes = session.take_flashes()?;
        let flashes: Vec<_> = flashes
            .into_iter()
            .map(|flash| context! { category => flash.category, text => flash.text })
            .collect();
        let text = self.0.get_template(page.name)?.render(context! {
            user => Serde(page.user),
            form => Serde(page.form),
            // A visitor who only looks in gets no session, and no cookie.
            token => (page.name != "welcome.html").then(|| session.csrf_token()),
            flashes,
            ..page.values
        })?;
        let is_wrong = page.form.messages().next().is_some() || page.form.form_message().is_some();
        let status = if is_wrong { page.form.status() } else { StatusCode::OK };
        Ok((status, Html(text)).into_response().with_header("cache-control", "no-store"))
    }

    /// What is shown in place of a page.
    pub fn error(&self, error: &HttpError) -> Result<Html<String>, HttpError> {
        let template = self.0.get_template("error.html")?;
        let text = template.render(context! {
            status => error.status().as_u16(),
            reason => error.status().canonical_reason(),
            message => error.message(),
        })?;
        Ok(Html(text))
    }
}
