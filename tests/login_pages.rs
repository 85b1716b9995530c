//! The example `login` in two browsers of one user, and one of another.

use std::time::{Duration, SystemTime};

use bottle_session::server::native::Native;

use crate::login_example::app;
use crate::support::browser::{Browser, Chromium};
use crate::support::serving::Serving;

const PASSWORD: &str = "correct horse";

/// Fills in one of the two forms of the login page that is open, and sends it.
fn send(browser: &mut Browser, form: &str, name: &str, password: &str) -> String {
    browser.fill(&format!("{form} [name=name]"), name);
    browser.fill(&format!("{form} [name=password]"), password);
    browser.follow(&format!("{form} button"))
}

#[test]
fn two_browsers_list_and_end_each_other() {
    let site = Serving::start(Native::bind("127.0.0.1:0").unwrap(), app().unwrap());
    let url = |path: &str| format!("http://localhost:{}{path}", site.address.port());
    let chromium = Chromium::shared();
    let (mut laptop, mut phone) = (chromium.browser(), Browser::another());

    laptop.open(&url("/login"));
    let anonymous = laptop.cookie().value;
    assert!(send(&mut laptop, "#signup", "ada", PASSWORD).contains("ada is logged in."));
    let cookie = laptop.cookie();
    assert_ne!(cookie.value, anonymous, "a login is a new id");
    assert!(cookie.http_only);

    phone.open(&url("/login"));
    send(&mut phone, "#login", "ada", "wrong");
    assert_eq!(phone.status(), 401);
    phone.back();
    phone.click("#login [name=remember]");
    assert!(send(&mut phone, "#login", "ada", PASSWORD).contains("ada is logged in."));
    let kept = Duration::from_secs(phone.cookie().expiry.expect("remembered"));
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap();
    assert!(kept > now + Duration::from_secs(29 * 24 * 3600));
    // Whoever is remembered is so by a browser that was closed meanwhile.
    phone.restart();

    for browser in [&mut laptop, &mut phone] {
        let shown = browser.open(&url("/devices/"));
        for (text, times) in [("this device", 1), ("End this", 1), ("HeadlessChrome", 2)] {
            assert_eq!(shown.matches(text).count(), times, "{shown}");
        }
    }
    assert!(!laptop.follow("li button").contains("End this"));
    // The other one is logged out; once it has logged in it is where it wanted to go.
    phone.reload();
    assert_eq!(phone.url(), url("/login?next=%2Fdevices%2F"));
    assert!(send(&mut phone, "#login", "ada", PASSWORD).contains("End this"));
    assert!(!phone.follow("ul ~ form button").contains("End this"));
    assert!(laptop.open(&url("/")).contains("Nobody is logged in."));
    assert_eq!(phone.open(&url("/admin")), "ada may do anything.");
    phone.open(&url("/"));
    assert!(phone.follow("form button").contains("Nobody is logged in."));
    assert_eq!(phone.cookies(), []);

    laptop.open(&url("/login"));
    send(&mut laptop, "#signup", "bob", PASSWORD);
    laptop.open(&url("/admin"));
    assert_eq!(laptop.status(), 403);
}
