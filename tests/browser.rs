//! What only a real browser can show: which cookies it keeps, when it sends them along, and what its pages see.

use std::time::{Duration, SystemTime};

use bottle_session::http::header;
use bottle_session::server::native::Native;
use bottle_session::{
    App, CsrfPlugin, Html, Redirect, RedisPool, Request, ResponseHead, Result, SameSite, Session,
    SessionPlugin, escape_html, redirect,
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use url::Url;

use crate::support::browser::{Browser, Chromium, Cookie};
use crate::support::redis_server::RedisServer;
use crate::support::serving::Serving;

/// Where browsers take plain http for as safe as https.
const LOCAL: &str = "localhost";

/// The same, and another site.
const OTHER_LOCAL: &str = "127.0.0.1";

/// Where plain http is what it is.
const PLAIN: &str = "shop.example";
const OTHER_PLAIN: &str = "evil.example";

const STRANGER: &str = "I don't recognize you.";

/// A server that browsers find under every name.
struct Site(Serving);

impl Site {
    fn start(app: App) -> Site {
        Site(Serving::start(Native::bind("127.0.0.1:0").unwrap(), app))
    }

    fn origin(&self, host: &str) -> String {
        format!("http://{host}:{}", self.0.address.port())
    }

    fn url(&self, host: &str, path: &str) -> String {
        self.origin(host) + path
    }
}

fn greeter(sessions: SessionPlugin) -> App {
    let mut app = App::new();
    app.install(sessions).unwrap();
    app.route(["GET", "POST"], "/", |session: &mut Session| greeting(session));
    app.get("/set/<name>", |session: &mut Session, name: &str| {
        session.set("name", name);
        "I recognize you now."
    });
    app.get("/count", |session: &mut Session| {
        let count = session.parse("count").unwrap_or(0) + 1;
        session.set("count", count);
        format!("{} {count}", greeting(session))
    });
    app.get("/private", |session: &mut Session, head: &mut ResponseHead| -> Result<String> {
        head.set_header(header::CACHE_CONTROL, "no-store")?;
        Ok(greeting(session))
    });
    app.get("/regenerate", |session: &mut Session| {
        session.regenerate();
        greeting(session)
    });
    app.get("/destroy", |session: &mut Session| session.destroy());
    app.get("/remember/<seconds>", |session: &mut Session, seconds: u64| {
        session.remember(Duration::from_secs(seconds));
    });
    app
}

fn greeting(session: &Session) -> String {
    session.get("name").map_or(STRANGER.to_owned(), |name| format!("Hello, {name}"))
}

/// Somebody else's site. Its page sends its visitor wherever its query says.
fn elsewhere() -> App {
    let mut app = App::new();
    app.get("/", |request: &Request| {
        let [to, token] =
            ["to", "token"].map(|name| request.query(name).unwrap().unwrap_or_default());
        Html(page_leading_to(&to, &token))
    });
    app.get("/frame", |request: &Request| {
        let to = request.query("to").unwrap().unwrap_or_default();
        Html(format!(r#"<iframe src="{}"></iframe>"#, escape_html(&to)))
    });
    app
}

fn page_leading_to(url: &str, token: &str) -> String {
    let [url, token] = [url, token].map(escape_html);
    format!(
        r#"<a href="{url}">go</a>
        <form method="post" action="{url}">
            <input type="hidden" name="csrf_token" value="{token}"><button>send</button>
        </form>"#
    )
}

fn with_query(url: &str, query: &[(&str, &str)]) -> String {
    Url::parse_with_params(url, query).unwrap().into()
}

#[test]
fn a_visitor_is_known_from_page_to_page_until_the_session_is_destroyed() {
    let redis = RedisServer::shared();
    let pool = RedisPool::open(&redis.url(redis.fresh_database())).unwrap();
    let chromium = Chromium::shared();
    for sessions in [SessionPlugin::new().in_memory(), SessionPlugin::new().pool(pool)] {
        let site = Site::start(greeter(sessions));
        let at = |path| site.url(LOCAL, path);
        let mut browser = chromium.browser();
        assert_eq!(browser.open(&at("/")), STRANGER);
        assert_eq!(browser.cookies(), []);
        assert_eq!(browser.open(&at("/set/Chris")), "I recognize you now.");
        let first = browser.cookie();
        assert_eq!(browser.open(&at("/")), "Hello, Chris");
        assert_eq!(browser.reload(), "Hello, Chris");
        browser.change_tabs();
        assert_eq!(browser.open(&at("/")), "Hello, Chris");
        assert_eq!(browser.cookie().value, first.value);

        browser.open(&at("/regenerate"));
        let renewed = browser.cookie();
        assert_eq!((&renewed.name, &renewed.path), (&first.name, &first.path));
        assert_ne!(renewed.value, first.value);
        assert_eq!(browser.open(&at("/")), "Hello, Chris");

        browser.open(&at("/destroy"));
        assert_eq!(browser.cookies(), []);
        assert_eq!(browser.open(&at("/")), STRANGER);
    }
}

#[test]
fn the_cookie_ends_with_the_browser_or_with_its_lifetime() {
    let hour = Duration::from_secs(3600);
    let month = Duration::from_secs(30 * 24 * 3600);
    let table = [
        // cookie_lifetime, remember, how long the browser is to keep the cookie
        (None, None, None),
        (Some(hour), None, Some(hour)),
        (None, Some(month), Some(month)),
        (Some(hour), Some(month), Some(month)),
    ];
    let sites = [0, 1, 2, 3].map(|row| {
        let sessions = SessionPlugin::new().in_memory().cookie_lifetime(table[row].0);
        Site::start(greeter(sessions.cookie_name(format!("row-{row}"))))
    });
    let chromium = Chromium::shared();
    let mut browser = chromium.browser();
    for (row, site) in sites.iter().enumerate() {
        let (lifetime, remember, kept) = table[row];
        let mut from = now();
        browser.open(&site.url(LOCAL, "/set/Ada"));
        assert_keeps(&mut browser, row, from, lifetime);
        if let Some(remember) = remember {
            from = now();
            browser.open(&site.url(LOCAL, &format!("/remember/{}", remember.as_secs())));
        }
        assert_keeps(&mut browser, row, from, kept);
    }
    browser.restart();
    for (row, site) in sites.iter().enumerate() {
        let known = if table[row].2.is_some() { "Hello, Ada" } else { STRANGER };
        assert_eq!(browser.open(&site.url(LOCAL, "/")), known, "row {row}");
    }
}

/// The browser keeps this row's cookie, which it got since `from`, for so long.
fn assert_keeps(browser: &mut Browser, row: usize, from: u64, lifetime: Option<Duration>) {
    let until = now();
    let cookies = browser.cookies();
    let cookie = cookies.iter().find(|cookie| cookie.name == format!("row-{row}")).unwrap();
    // A tenth longer than promised, as it is sent anew only once a tenth has passed.
    match (cookie.expiry, lifetime.map(|lifetime| (lifetime * 11 / 10).as_secs())) {
        (None, None) => {}
        (Some(expiry), Some(lifetime)) => {
            assert!((from + lifetime..=until + lifetime).contains(&expiry), "row {row}: {expiry}");
        }
        (expiry, lifetime) => panic!("row {row}: {expiry:?} for {lifetime:?}"),
    }
}

fn now() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

#[test]
fn a_hardened_cookie_is_kept_where_the_connection_is_safe_and_hidden_from_scripts() {
    let cookie = |name: &str, domain: &str, hardened| Cookie {
        name: name.to_owned(),
        value: String::new(),
        domain: domain.to_owned(),
        path: "/".to_owned(),
        secure: hardened,
        http_only: hardened,
        same_site: "Lax".to_owned(),
        expiry: None,
    };
    let plain = |host| (false, host, Some(cookie("bottle.session", host, false)));
    let hardened = |host| (true, host, Some(cookie("__Host-bottle.session", host, true)));
    let table = [
        plain(LOCAL),
        hardened(LOCAL),
        plain(OTHER_LOCAL),
        hardened(OTHER_LOCAL),
        plain(PLAIN),
        (true, PLAIN, None),
    ];
    let chromium = Chromium::shared();
    for (hardened, host, expected) in table {
        let sessions = SessionPlugin::new().in_memory().cookie_lifetime(None);
        let site = Site::start(greeter(if hardened { sessions.hardened() } else { sessions }));
        let mut browser = chromium.browser();
        browser.open(&site.url(host, "/set/Ada"));
        let mut cookies = browser.cookies();
        let seen_by_script = cookies.iter().find(|cookie| !cookie.http_only);
        let seen_by_script = seen_by_script
            .map_or(String::new(), |cookie| format!("{}={}", cookie.name, cookie.value));
        assert_eq!(browser.script("return document.cookie"), seen_by_script, "{host}");
        cookies.iter_mut().for_each(|cookie| cookie.value.clear());
        let known = if expected.is_some() { "Hello, Ada" } else { STRANGER };
        assert_eq!(cookies, Vec::from_iter(expected), "{host}");
        assert_eq!(browser.open(&site.url(host, "/")), known, "{host}");
    }
}

#[test]
fn what_comes_from_other_sites_brings_the_session_as_same_site_says() {
    let (known, stranger) = ("Hello, Ada", STRANGER);
    let table = [
        // cookie_same_site, the other page's host, what its link, its form and its frame show
        (SameSite::Strict, OTHER_LOCAL, [stranger, stranger, stranger]),
        (SameSite::Lax, OTHER_LOCAL, [known, stranger, stranger]),
        // The browser sends no cookies of other sites from frames, whatever they say.
        (SameSite::None, OTHER_LOCAL, [known, known, stranger]),
        // Another port is another origin, and no other site.
        (SameSite::Strict, LOCAL, [known, known, known]),
        (SameSite::Lax, LOCAL, [known, known, known]),
    ];
    let elsewhere = Site::start(elsewhere());
    let chromium = Chromium::shared();
    for (same_site, host, expected) in table {
        let sessions = SessionPlugin::new().in_memory().cookie_same_site(same_site);
        let site = Site::start(greeter(sessions.cookie_secure(same_site == SameSite::None)));
        let mut browser = chromium.browser();
        browser.open(&site.url(LOCAL, "/set/Ada"));
        let cookie = browser.cookie();
        let to = site.url(LOCAL, "/");
        let (page, frame) = (elsewhere.url(host, "/"), elsewhere.url(host, "/frame"));
        let page = with_query(&page, &[("to", &to)]);
        browser.open(&page);
        let by_link = browser.follow("a");
        browser.open(&page);
        let by_form = browser.follow("button");
        browser.open(&with_query(&frame, &[("to", &to)]));
        let in_frame = browser.text_of_frame();
        assert_eq!([by_link, by_form, in_frame], expected, "{same_site} from {host}");
        // Who comes without a session does not lose it.
        assert_eq!(browser.open(&to), known);
        assert_eq!(browser.cookie().value, cookie.value);
    }
}

#[test]
fn a_partitioned_session_is_another_one_on_each_site_that_embeds_it() {
    let elsewhere = Site::start(elsewhere());
    let chromium = Chromium::shared();
    // What is not partitioned, the browser neither sends nor keeps in another site's frame.
    for (partitioned, counts) in [(false, [1, 1, 1]), (true, [1, 2, 1])] {
        let sessions = SessionPlugin::new().in_memory().cookie_same_site(SameSite::None);
        let sessions = sessions.cookie_secure(true).cookie_partitioned(partitioned);
        let site = Site::start(greeter(sessions));
        let count = site.url(LOCAL, "/count");
        let frame = with_query(&elsewhere.url(OTHER_LOCAL, "/frame"), &[("to", &count)]);
        let mut browser = chromium.browser();
        let embedded = [(); 2].map(|()| {
            browser.open(&frame);
            browser.text_of_frame()
        });
        let [first, second, alone] = counts.map(|count| format!("{STRANGER} {count}"));
        assert_eq!(embedded, [first, second], "partitioned: {partitioned}");
        assert_eq!(browser.open(&count), alone, "partitioned: {partitioned}");
        browser.cookie();
    }
}

/// A form that is checked. Who is refused reads what the browser told of where it came from.
fn guarded(sessions: SessionPlugin, csrf: CsrfPlugin) -> App {
    let mut app = App::new();
    app.install(csrf).unwrap();
    app.install(sessions).unwrap();
    app.get(
        "/",
        |session: &mut Session, request: &Request, head: &mut ResponseHead| -> Result<_> {
            if let Some(policy) = request.query("policy").unwrap() {
                head.set_header(header::REFERRER_POLICY, &*policy)?;
            }
            Ok(Html(page_leading_to("/act", &session.csrf_token())))
        },
    );
    app.post("/act", || "done");
    app.error(403, |request: &Request| {
        let site = request.header("sec-fetch-site").unwrap_or("untold");
        let cookie = request.cookie("bottle.session");
        format!("{site}, {} session", if cookie.is_some() { "with" } else { "without" })
    });
    app
}

#[test]
fn the_apps_own_forms_and_scripts_pass_with_their_token() {
    let chromium = Chromium::shared();
    let site = Site::start(guarded(SessionPlugin::new().in_memory(), CsrfPlugin::new()));
    // Over plain http, browsers do not say where a request comes from: the token decides.
    for (host, path, without) in [
        (LOCAL, "/", 200),
        (LOCAL, "/?policy=no-referrer", 200),
        (PLAIN, "/", 403),
        (PLAIN, "/?policy=no-referrer", 403),
    ] {
        let mut browser = chromium.browser();
        browser.open(&site.url(host, path));
        let send = |headers: &str| {
            format!(
                "const token = document.forms[0].elements.csrf_token.value;
                 return fetch('/act', {{ method: 'POST', headers: {headers} }})
                     .then(answer => answer.status)"
            )
        };
        assert_eq!(browser.script(&send("{ 'X-CSRF-Token': token }")), 200, "{host}{path}");
        assert_eq!(browser.script(&send("{}")), without, "{host}{path}");
        assert_eq!(browser.follow("button"), "done", "{host}{path}");
        assert_eq!(browser.status(), 200);
    }
}

#[test]
fn forms_of_other_pages_are_refused_even_with_the_token_and_the_session() {
    // A page without an origin.
    const DATA: &str = "";
    let elsewhere = Site::start(elsewhere());
    let table = [
        // cookie_same_site, this site's host, the other page's host, what the browser tells
        (SameSite::Lax, LOCAL, OTHER_LOCAL, "cross-site, without session"),
        (SameSite::None, LOCAL, OTHER_LOCAL, "cross-site, with session"),
        (SameSite::None, LOCAL, DATA, "cross-site, with session"),
        (SameSite::Strict, LOCAL, LOCAL, "same-site, with session"),
        // Over plain http browsers tell no more than the origin.
        (SameSite::Lax, PLAIN, OTHER_PLAIN, "untold, without session"),
        (SameSite::Lax, PLAIN, DATA, "untold, without session"),
        (SameSite::Lax, PLAIN, PLAIN, "untold, with session"),
    ];
    let chromium = Chromium::shared();
    for (same_site, host, other, told) in table {
        let sessions = SessionPlugin::new().in_memory().cookie_same_site(same_site);
        let sessions = sessions.cookie_secure(same_site == SameSite::None);
        let site = Site::start(guarded(sessions, CsrfPlugin::new()));
        let mut browser = chromium.browser();
        let token = token(&mut browser, &site, host);
        let act = site.url(host, "/act");
        browser.open(&match other {
            DATA => {
                let page = page_leading_to(&act, &token);
                format!("data:text/html,{}", utf8_percent_encode(&page, NON_ALPHANUMERIC))
            }
            other => with_query(&elsewhere.url(other, "/"), &[("to", &act), ("token", &token)]),
        });
        let answer = (browser.follow("button"), browser.status());
        assert_eq!(answer, (told.to_owned(), 403), "{same_site}, from {other} to {host}");
    }
}

#[test]
fn forms_of_a_trusted_origin_pass_with_the_token_and_the_session() {
    let elsewhere = Site::start(elsewhere());
    let trusting = CsrfPlugin::new().trusted_origin(&elsewhere.origin(OTHER_LOCAL));
    let sessions = SessionPlugin::new().in_memory().cookie_same_site(SameSite::None);
    let site = Site::start(guarded(sessions.cookie_secure(true), trusting));
    let chromium = Chromium::shared();
    let mut browser = chromium.browser();
    let token = token(&mut browser, &site, LOCAL);
    let act = site.url(LOCAL, "/act");
    for (token, answer) in
        [(&token[..], ("done", 200)), ("made-up", ("cross-site, with session", 403))]
    {
        let page = elsewhere.url(OTHER_LOCAL, "/");
        browser.open(&with_query(&page, &[("to", &act), ("token", token)]));
        assert_eq!((&browser.follow("button")[..], browser.status()), answer);
    }
}

/// A token of the visitor's session.
fn token(browser: &mut Browser, site: &Site, host: &str) -> String {
    browser.open(&site.url(host, "/"));
    let token = browser.script("return document.forms[0].elements.csrf_token.value");
    token.as_str().unwrap().to_owned()
}

#[test]
fn a_message_is_shown_on_the_page_after_the_redirect_and_never_again() {
    let mut app = App::new();
    app.install(SessionPlugin::new().in_memory()).unwrap();
    app.get("/", |session: &mut Session| -> Result<Html<String>> {
        let saved = session.parse("saved").unwrap_or(0);
        let messages = session.take_flashes()?.into_iter().map(|flash| escape_html(&flash.text));
        let messages = messages.collect::<String>();
        Ok(Html(format!(
            r#"{saved}: {messages}<form method="post" action="/save"><button></button></form>"#
        )))
    });
    app.post("/save", |session: &mut Session| -> Redirect {
        let saved = session.parse("saved").unwrap_or(0) + 1;
        session.set("saved", saved);
        session.flash("info", format!("Saved <{saved}>"));
        redirect("/")
    });
    let site = Site::start(app);
    let chromium = Chromium::shared();
    let mut browser = chromium.browser();
    let home = site.url(LOCAL, "/");
    assert_eq!(browser.open(&home), "0:");
    for saved in [1, 2] {
        assert_eq!(browser.follow("button"), format!("{saved}: Saved <{saved}>"));
        assert_eq!(browser.url(), home);
        // Nor is anything sent again.
        assert_eq!(browser.reload(), format!("{saved}:"));
        assert_eq!(browser.open(&home), format!("{saved}:"));
    }
}

#[test]
fn the_back_button_shows_nothing_from_before_the_end_that_was_not_to_be_kept() {
    let site = Site::start(greeter(SessionPlugin::new().in_memory().hardened()));
    let chromium = Chromium::shared();
    // The first sends the cookie, so that it is not kept; the second says so itself.
    for path in ["/regenerate", "/private"] {
        let mut browser = chromium.browser();
        browser.open(&site.url(LOCAL, "/set/Ada"));
        assert_eq!(browser.open(&site.url(LOCAL, path)), "Hello, Ada");
        browser.open(&site.url(LOCAL, "/destroy"));
        assert_eq!(browser.back(), STRANGER, "{path}");
        assert_eq!(browser.url(), site.url(LOCAL, path));
    }
}

#[cfg(feature = "garde")]
mod forms {
    use std::path::PathBuf;

    use super::*;
    use crate::forms_example as example;
    use crate::support::browser::{ENTER, TAB};

    /// The example, with a folder for its pictures.
    struct Notes {
        site: Site,
        folder: PathBuf,
    }

    impl Notes {
        fn start(name: &str) -> Notes {
            let folder = std::env::temp_dir().join(format!("bs-{name}-{}", std::process::id()));
            std::fs::create_dir_all(folder.join("pictures")).unwrap();
            let site = Site::start(example::app(&folder.join("pictures")).unwrap());
            Notes { site, folder }
        }
    }

    impl Drop for Notes {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }

    /// What the controls of the form for a note hold.
    fn controls(browser: &mut Browser) -> String {
        let script = "return [...document.forms.note.elements]
            .filter(e => e.name && e.type !== 'hidden' && e.type !== 'file')
            .map(e => e.type === 'checkbox' ? e.checked : e.value).join()";
        browser.script(script).as_str().unwrap().to_owned()
    }

    fn wrong(browser: &mut Browser) -> String {
        let script = "return [...document.querySelectorAll('.wrong')].map(e => e.id + ': ' + e.textContent).join()";
        browser.script(script).as_str().unwrap().to_owned()
    }

    fn notes(browser: &mut Browser) -> String {
        let script = "return [...document.querySelectorAll('li')].map(e => e.innerText).join('; ')";
        browser.script(script).as_str().unwrap().to_owned()
    }

    #[test]
    fn a_form_is_filled_in_by_keyboard_alone_with_a_file_and_corrected() {
        let chromium = Chromium::shared();
        let notes_site = Notes::start("keyboard");
        let file = notes_site.folder.join("文件 é.pdf");
        // Larger than what stays in memory.
        let content = "pdf ".repeat(100_000);
        std::fs::write(&file, &content).unwrap();
        for host in [LOCAL, PLAIN] {
            let mut browser = chromium.browser();
            browser.open(&notes_site.site.url(host, "/"));
            assert_eq!(browser.script("return document.scripts.length"), 0, "no script");
            // The title has the focus. Enter sends the form.
            browser.press(&format!("Tea & <milk>{TAB}many{TAB} {TAB} {TAB} "));
            browser.follow_keys(&format!("{TAB}{TAB}{ENTER}"));
            assert_eq!(browser.status(), 400, "{host}");
            assert_eq!(wrong(&mut browser), "pages-wrong: must be a whole number", "{host}");
            assert_eq!(controls(&mut browser), "Tea & <milk>,many,true,true,true", "{host}");
            // A screen reader says what is wrong where it is.
            let about = "return document.getElementById(document.forms.note.pages.getAttribute('aria-describedby')).textContent";
            assert_eq!(browser.script(about), "must be a whole number");
            // The number is selected where Tab comes to it; the second box is taken out again.
            browser.press(&format!("{TAB}7{TAB}{TAB} {TAB}{TAB}"));
            browser.choose_file(&file);
            browser.follow_keys(&format!("{TAB}{ENTER}"));
            assert_eq!(browser.status(), 200, "{host}");
            let saved = notes(&mut browser);
            let last = saved.split("; ").last().unwrap();
            assert!(
                last.starts_with("Tea & <milk>, 7 pages, home, public, 文件 é"),
                "{host}: {last}"
            );
        }
        let pictures: Vec<_> = std::fs::read_dir(notes_site.folder.join("pictures"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert_eq!(pictures.len(), 2);
        assert!(
            pictures.contains(&notes_site.folder.join("pictures").join("文件 é.pdf")),
            "{pictures:?}"
        );
        assert!(pictures.iter().all(|path| std::fs::read_to_string(path).unwrap() == content));
    }

    #[test]
    fn after_a_mistake_back_shows_what_was_typed_and_reload_saves_nothing() {
        let chromium = Chromium::shared();
        let site = Notes::start("back");
        for host in [LOCAL, PLAIN] {
            let mut browser = chromium.browser();
            let home = site.site.url(host, "/");
            browser.open(&home);
            let before = notes(&mut browser);
            browser.press(&format!("Tea{TAB}many{TAB} "));
            browser.follow("#note button");
            assert_eq!(wrong(&mut browser), "pages-wrong: must be a whole number", "{host}");
            browser.reload();
            assert_eq!(controls(&mut browser), "Tea,many,true,false,false", "{host}: after Reload");
            assert_eq!((notes(&mut browser), browser.status()), (before.clone(), 400));
            browser.back();
            assert_eq!(browser.url(), home);
            assert_eq!(controls(&mut browser), "Tea,many,true,false,false", "{host}: after Back");
            browser.script("document.forms.note.pages.value = '7'");
            browser.follow("#note button");
            let saved = notes(&mut browser);
            assert!(saved.ends_with("Tea, 7 pages, home"), "{host}: {saved}");
            // The answer was a redirect: Reload sends nothing again.
            browser.reload();
            assert_eq!(notes(&mut browser), saved);
        }
    }

    #[test]
    fn a_form_that_was_open_while_its_visitor_logged_in_in_another_tab_is_saved_or_loses_nothing() {
        let chromium = Chromium::shared();
        let site = Notes::start("tabs");
        // Over plain http the browser does not say where a form comes from, and the login has ended its token.
        for (host, saved) in [(LOCAL, true), (PLAIN, false)] {
            let mut browser = chromium.browser();
            let home = site.site.url(host, "/");
            browser.open(&home);
            browser.press(&format!("Tea{TAB}7"));
            let first = browser.new_tab();
            browser.open(&home);
            browser.script("document.forms.login.elements.name.value = 'ada'; document.forms.login.password.value = 'lovelace'");
            assert!(browser.follow("#login button").starts_with("ada is logged in."));
            browser.go_to_tab(&first);
            let answer = browser.follow("#note button");
            if saved {
                assert!(answer.starts_with("ada is logged in."), "{answer}");
                assert_eq!(notes(&mut browser), "Tea, 7 pages, no tags");
                continue;
            }
            assert_eq!(browser.status(), 403);
            assert!(
                answer
                    .contains("Nothing was changed: the page is from before you logged in or out"),
                "{answer}"
            );
            assert!(answer.contains("Go back: what you typed is still there."), "{answer}");
            browser.back();
            assert_eq!(controls(&mut browser), "Tea,7,false,false,false");
        }
    }

    #[test]
    fn the_same_login_form_in_two_tabs_logs_in_twice() {
        let chromium = Chromium::shared();
        let site = Notes::start("logins");
        let mut browser = chromium.browser();
        let home = site.site.url(LOCAL, "/");
        let fill = "document.forms.login.elements.name.value = 'ada'; document.forms.login.password.value = 'lovelace'";
        browser.open(&home);
        browser.script(fill);
        let first = browser.new_tab();
        browser.open(&home);
        browser.script(fill);
        assert!(browser.follow("#login button").starts_with("ada is logged in."));
        browser.go_to_tab(&first);
        assert!(browser.follow("#login button").starts_with("ada is logged in."));
    }
}
