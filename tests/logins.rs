//! Who is logged in: devices, their ends, and the user as an argument. Here is what the tests share.

mod anonymous;
mod devices;
mod index;
mod standards;
mod users;

use bottle_session::{App, Json, Result, Session, SessionPlugin, TestClient};

const COOKIE: &str = "bottle.session";

fn devices_app(plugin: SessionPlugin) -> App {
    let mut app = App::new();
    app.install(plugin).unwrap();
    app.get("/in/<user>", |s: &mut Session, user: &str| s.log_in(user));
    app.get("/out", |s: &mut Session| s.log_out());
    app.get("/who", |s: &mut Session| s.user_id().unwrap_or("-").to_owned());
    app.get("/new-id", |s: &mut Session| s.regenerate());
    app.get("/devices", |s: &mut Session| s.devices().map(Json));
    app.get("/end/<handle>", |s: &mut Session, handle: &str| -> Result<String> {
        Ok(s.end_device(handle)?.to_string())
    });
    app.get("/end-others", |s: &mut Session| -> Result<String> {
        Ok(s.end_other_devices()?.to_string())
    });
    app.get("/end-all", |s: &mut Session| -> Result<String> {
        Ok(s.end_all_devices()?.to_string())
    });
    app.get("/new-password/<user>", |s: &mut Session, user: &str| -> Result<String> {
        s.log_in(user)?;
        Ok(s.end_other_devices()?.to_string())
    });
    app
}

fn text(client: &TestClient, path: &str) -> String {
    let answer = client.get(path).send();
    assert_eq!(answer.status(), 200, "{path}: {}", answer.text());
    answer.text()
}

/// Another browser.
fn another(client: &TestClient) -> TestClient {
    TestClient::of(client.service().clone())
}
