//! A real browser, on a certificate that the server has made itself.

use bottle_session::server::native::Native;
use bottle_session::server::tls::Tls;
use bottle_session::{App, Session, SessionPlugin};

use crate::support::browser::Chromium;
use crate::support::serving::Serving;
use crate::support::tls;

#[test]
fn a_browser_keeps_secure_cookies_on_a_certificate_made_for_this_machine() {
    tls::own();
    let chromium = Chromium::shared();
    for hardened in [false, true] {
        let sessions = SessionPlugin::new().in_memory();
        let mut app = App::new();
        app.install(if hardened { sessions.hardened() } else { sessions }).unwrap();
        app.get("/", |session: &mut Session| match session.get("name") {
            Some(name) => format!("Hello, {name}"),
            None => "I don't recognize you.".to_owned(),
        });
        app.get("/set/<name>", |session: &mut Session, name: &str| {
            session.set("name", name);
            "I recognize you now."
        });
        let tls = Tls::self_signed().unwrap();
        let server = Serving::start(Native::bind("127.0.0.1:0").unwrap().tls(tls), app);
        let at = |path: &str| format!("https://localhost:{}{path}", server.address.port());
        let mut browser = chromium.browser();
        assert_eq!(browser.open(&at("/set/Ada")), "I recognize you now.");
        let cookie = browser.cookie();
        let name = if hardened { "__Host-bottle.session" } else { "bottle.session" };
        assert_eq!((&cookie.name[..], cookie.secure), (name, true));
        assert_eq!(browser.open(&at("/")), "Hello, Ada");
        assert_eq!(browser.reload(), "Hello, Ada");
    }
}
