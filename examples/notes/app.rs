//! The app: its plugins, what its handlers can ask for, and its parts.

use bottle_session::http::HeaderValue;
use bottle_session::http::header::{
    CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use bottle_session::{
    App, CsrfPlugin, HttpError, Request, Response, Result, Session, SessionPlugin,
};

use super::data::{Data, User};
use super::live::Live;
use super::view::{ICON, Pages, SCRIPT, STYLE};
use super::{account, admin, live, notebook};

/// Nothing but what this site sends; no script, style or picture of a visitor's runs as one of the page.
const POLICY: &str =
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

pub fn app(sessions: SessionPlugin, data: Data) -> Result<App> {
    let counters = sessions.counters();
    let mut app = App::new();
    app.install(CsrfPlugin::new())?;
    app.install(sessions)?;
    app.state(data);
    app.state(Pages::new()?);
    app.state(Live::default());
    app.provide(user);
    app.after_request(|response: &mut Response| {
        let headers = response.headers_mut();
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    });
    app.error_default(|error: &HttpError, pages: &Pages| pages.error(error));

    account::add_to(&mut app);
    notebook::add_to(&mut app);
    live::add_to(&mut app);
    app.mount("/admin", admin::app());

    app.get("/style.css", || asset(STYLE, "text/css; charset=utf-8"));
    app.get("/icon.svg", || asset(ICON, "image/svg+xml"));
    app.get("/live.js", || asset(SCRIPT, "text/javascript; charset=utf-8"));
    app.get("/health", || "ok");
    app.get("/metrics", move || {
        let counts = counters.snapshot();
        let lines = counts.iter().map(|(name, count)| format!("notes_sessions_{name} {count}\n"));
        lines.collect::<String>()
    });
    Ok(app)
}

/// Who is logged in, for whoever asks for `&User`; others are sent to the login page. Somebody who is not there any
/// more is logged out.
fn user(session: &mut Session, request: &Request, data: &Data) -> Result<User, HttpError> {
    let id = session.user_id().ok_or_else(|| account::to_login(request))?;
    match data.user(id)? {
        Some(user) => Ok(user),
        None => {
            session.log_out();
            Err(account::to_login(request))
        }
    }
}

fn asset(text: &'static str, kind: &'static str) -> Response {
    Response::text(text)
        .with_header("content-type", kind)
        .with_header("cache-control", "public, max-age=3600")
}
