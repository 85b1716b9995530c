//! The app: its plugins, what its handlers can ask for, and its parts.

use std::time::Duration;

use bottle_session::{
    App, CsrfPlugin, HttpError, LoginPlugin, MetricsPlugin, Response, Result,
    SecurityHeadersPlugin, SessionPlugin,
};

use super::data::{Data, User};
use super::live::Live;
use super::view::{ICON, Pages, SCRIPT, STYLE};
use super::{account, admin, devices, live, notebook};

/// After how long administrators type their password again.
const RECENT: Duration = Duration::from_secs(15 * 60);

pub fn app(sessions: SessionPlugin, data: Data) -> Result<App> {
    let (users, notes) = (data.clone(), data.clone());
    let metrics = MetricsPlugin::new().sessions("session", sessions.counters()).gauge(
        "notes",
        "Notes of everybody.",
        move || notes.count().map_or(f64::NAN, |count| count as f64),
    );
    let mut app = App::new();
    app.install(metrics.clone())?;
    app.install(SecurityHeadersPlugin::new())?;
    app.install(CsrfPlugin::new())?;
    app.install(sessions)?;
    app.install(LoginPlugin::new(move |id: &str| users.user(id)).login_page("login"))?;
    app.state(data);
    app.state(Pages::new()?);
    app.state(Live::default());
    app.error_default(|error: &HttpError, pages: &Pages| pages.error(error));

    account::add_to(&mut app);
    devices::add_to(&mut app);
    notebook::add_to(&mut app);
    live::add_to(&mut app);
    app.mount("/admin", admin::app()).require(|user: &User| user.is_admin).require_recent(RECENT);

    app.get("/style.css", || asset(STYLE, "text/css; charset=utf-8"));
    app.get("/icon.svg", || asset(ICON, "image/svg+xml"));
    app.get("/live.js", || asset(SCRIPT, "text/javascript; charset=utf-8"));
    app.get("/health", || "ok");
    // For the machine that gathers them: the proxy in front keeps visitors out.
    app.get("/metrics", move || metrics.page()).skip("metrics");
    Ok(app)
}

fn asset(text: &'static str, kind: &'static str) -> Response {
    Response::text(text)
        .with_header("content-type", kind)
        .with_header("cache-control", "public, max-age=3600")
}
