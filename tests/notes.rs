//! The example `notes`, as its visitors meet it: in a browser, by keyboard, with a screen reader's eyes, over a restart.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bottle_session::server::native::Native;
use bottle_session::{App, Html, MemoryStore, SessionPlugin, TestClient};
use serde_json::json;

use crate::events::Lines;
use crate::faults::wait_until;
use crate::notes_example::{Data, app, sessions};
use crate::support::browser::{Browser, Chromium, ENTER, TAB};
use crate::support::process::{Program, example};
use crate::support::redis_server::RedisServer;
use crate::support::serving::{Reply, Serving};

const PASSWORD: &str = "correct horse";

/// Where browsers take plain http for as safe as https.
const LOCAL: &str = "localhost";

struct Site(Serving);

impl Site {
    fn start() -> Site {
        let app = app(sessions(false).in_memory(), Data::in_memory().unwrap()).unwrap();
        Site(Serving::start(Native::bind("127.0.0.1:0").unwrap(), app))
    }

    fn url(&self, path: &str) -> String {
        format!("http://{LOCAL}:{}{path}", self.0.address.port())
    }
}

fn sign_up(browser: &mut Browser, at: &str, name: &str) -> String {
    browser.open(&format!("{at}/signup"));
    browser.fill("#name", name);
    browser.fill("#password", PASSWORD);
    browser.follow("main button")
}

fn log_in(browser: &mut Browser, at: &str, name: &str) -> String {
    browser.open(&format!("{at}/login"));
    browser.fill("#name", name);
    browser.fill("#password", PASSWORD);
    browser.follow("main button")
}

fn add_note(browser: &mut Browser, title: &str) -> String {
    browser.fill("#title", title);
    browser.follow("#note button")
}

fn titles(browser: &mut Browser) -> Vec<String> {
    let script = "return [...document.querySelectorAll('.notes h2')].map(e => e.innerText)";
    serde_json::from_value(browser.script(script)).unwrap()
}

/// A folder that goes when the test ends.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        Folder(crate::support::proxies::folder(name))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn without_a_browser_it_is_an_app_like_others() {
    let data = Data::in_memory().unwrap();
    let ada = TestClient::new(app(sessions(false).in_memory(), data).unwrap()).unwrap();
    let bob = TestClient::of(ada.service().clone());
    let post = |client: &TestClient, path: &str, form: &[(&str, &str)]| {
        let sent = client.post(path).header("sec-fetch-site", "same-origin").form(&form).send();
        (sent.status(), sent.header("location").map_or(sent.text(), str::to_owned))
    };
    let page = |client: &TestClient, path: &str| client.get(path).send().text();
    let account = |name| [("name", name), ("password", PASSWORD)];

    let welcome = ada.get("/").send();
    assert!(welcome.text().contains("A notebook of your own"), "{}", welcome.text());
    assert_eq!(welcome.set_cookies(), [""; 0], "who only looks in gets no session");
    let refused = ada.get("/account").header("accept", "text/html").send();
    assert_eq!(refused.header("location"), Some("/login?next=%2Faccount"));
    assert_eq!(post(&ada, "/signup", &account("ada")), (303, "/".to_owned()));
    assert_eq!(post(&bob, "/signup", &account("ada")).0, 400);
    let (status, wrong) = post(&bob, "/signup", &[("name", "<b>"), ("password", "short")]);
    assert_eq!(status, 400);
    assert!(wrong.contains("value=\"&lt;b&gt;\"") && wrong.contains("at least 8 characters"));
    assert_eq!(post(&bob, "/signup", &account("bob")).0, 303);

    assert_eq!(post(&ada, "/notes", &[("title", "Tea & <milk>"), ("text", "green")]).0, 303);
    assert_eq!(post(&ada, "/notes", &[("title", "Bread"), ("text", "")]).0, 303);
    let (status, wrong) = post(&ada, "/notes", &[("title", " "), ("text", "of nothing")]);
    assert_eq!(status, 400);
    assert!(wrong.contains("A note needs a title.") && wrong.contains(">of nothing</textarea>"));
    let found = page(&ada, "/?q=GREEN");
    assert!(found.contains("Tea &amp; &lt;milk&gt;") && !found.contains("Bread"), "{found}");
    assert!(page(&ada, "/?q=coffee").contains("No note has “coffee” in it."));

    // What is somebody's is nobody else's.
    assert!(!page(&bob, "/").contains("Bread"));
    for path in ["/notes/1", "/notes/1/file", "/nowhere"] {
        assert_eq!(bob.get(path).send().status(), 404, "{path}");
    }
    let lost = page(&bob, "/nowhere");
    assert!(lost.contains("<h1>Not Found</h1>") && lost.contains("To the notes"), "{lost}");
    assert_eq!(post(&bob, "/notes/1", &[("title", "mine"), ("text", "")]).0, 404);
    assert_eq!(post(&bob, "/notes/1/remove", &[]).0, 404);

    // The first one is the administrator.
    assert!(page(&ada, "/admin").contains("bob"));
    assert_eq!(bob.get("/admin").send().status(), 403);
    assert_eq!(post(&bob, "/admin/remove", &[("name", "ada")]).0, 403);
    assert_eq!(post(&ada, "/admin/remove", &[("name", "bob")]), (303, "/admin".to_owned()));
    assert_eq!(bob.get("/account").send().status(), 401, "whoever is gone is logged out");

    assert_eq!(post(&ada, "/logout", &[]).0, 303);
    for (next, to) in [("/account", "/account"), ("//evil.example", "/"), ("/\\evil", "/")] {
        let form = &account("ada");
        let login = format!("/login?next={}", next.replace('/', "%2F").replace('\\', "%5C"));
        assert_eq!(post(&ada, &login, form), (303, to.to_owned()));
    }
    assert_eq!(post(&ada, "/login", &[("name", "ada"), ("password", "wrong")]).0, 400);
    let metrics = page(&ada, "/metrics");
    for line in [
        "http_requests_total{method=\"POST\",route=\"/signup\",status=\"303\"} 2",
        "session_events_total{keyword=\"session\",event=\"created\"} ",
        "\nnotes 2\n",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    assert_eq!(ada.post("/notes").form(&[("title", "forged"), ("text", "")]).send().status(), 403);
}

#[test]
fn nobody_is_named_like_the_way_up_and_who_is_can_be_removed() {
    let data = Data::in_memory().unwrap();
    let ada = TestClient::new(app(sessions(false).in_memory(), data.clone()).unwrap()).unwrap();
    let post = |path: &str, form: &[(&str, &str)]| {
        ada.post(path).header("sec-fetch-site", "same-origin").form(&form).send()
    };
    for (name, status) in [("ada", 303), (".", 400), ("..", 400), ("-_.", 400), (".ada", 303)] {
        assert_eq!(post("/signup", &[("name", name), ("password", PASSWORD)]).status(), status);
    }
    // From before there was that rule.
    data.add_user("..", "").unwrap();
    post("/login", &[("name", "ada"), ("password", PASSWORD)]);
    assert!(ada.get("/admin").send().text().contains("name=\"name\" value=\"..\""));
    assert_eq!(post("/admin/remove", &[("name", "..")]).status(), 303);
    assert_eq!(data.users().unwrap().len(), 2);
}

#[test]
fn who_logged_in_a_while_ago_types_the_password_again_before_people_are_removed() {
    let now = Arc::new(Mutex::new(SystemTime::now() - Duration::from_secs(20 * 60)));
    let clock = now.clone();
    let store = MemoryStore::with_clock(move || *clock.lock().unwrap());
    let data = Data::in_memory().unwrap();
    let ada = TestClient::new(app(sessions(false).store(store), data).unwrap()).unwrap();
    let post = |path: &str| {
        let form = [("name", "ada"), ("password", PASSWORD)];
        ada.post(path).header("sec-fetch-site", "same-origin").form(&form).send()
    };
    post("/signup");
    assert_eq!(ada.get("/").send().status(), 200);
    let answer = ada.get("/admin").header("accept", "text/html").send();
    assert_eq!(answer.header("location"), Some("/login?next=%2Fadmin"));
    assert_eq!(post("/admin/remove").status(), 401);
    *now.lock().unwrap() = SystemTime::now();
    assert_eq!(post("/login?next=%2Fadmin").header("location"), Some("/admin"));
    assert_eq!(ada.get("/admin").send().status(), 200);
}

impl Site {
    /// Sends a form from a page of the site.
    fn post(&self, path: &str, cookie: &str, form: &str) -> Reply {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nSec-Fetch-Site: same-origin\r\nCookie: {cookie}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n",
            form.len()
        );
        self.0.client().send(head + form).reply()
    }
}

#[test]
fn a_cookie_from_before_renew_every_is_renewed_and_open_forms_stay_good() {
    let (store, data) = (Arc::new(MemoryStore::new()), Data::in_memory().unwrap());
    let client = |sessions: SessionPlugin| {
        TestClient::new(app(sessions.store(store.clone()), data.clone()).unwrap()).unwrap()
    };
    let before = client(sessions(false).renew_every(None));
    let form = [("name", "ada"), ("password", PASSWORD)];
    before.post("/signup").header("sec-fetch-site", "same-origin").form(&form).send();
    let page = before.get("/").send().text();
    let token = page.split("csrf_token\" value=\"").nth(1).unwrap().split('"').next().unwrap();
    let old = before.cookie("notes").unwrap();

    let ada = client(sessions(false));
    ada.set_cookie("notes", &old);
    assert_eq!(ada.get("/account").send().status(), 200);
    assert_ne!(ada.cookie("notes").unwrap(), old);
    let note = [("title", "Tea"), ("text", ""), ("csrf_token", token)];
    assert_eq!(ada.post("/notes").form(&note).send().status(), 303);
}

#[test]
fn a_user_has_four_streams_and_a_newer_one_ends_the_oldest() {
    let site = Site::start();
    let sign_up = |name: &str| {
        let reply = site.post("/signup", "", &format!("name={name}&password=correct+horse"));
        reply.header("set-cookie").unwrap().split(';').next().unwrap().to_owned()
    };
    let listen = |cookie: &str| {
        let request = format!("GET /live HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n");
        let mut stream = Lines::of(site.0.client(), &request);
        assert_eq!(stream.event(), ["data: 0"]);
        stream
    };
    let (ada, bob) = (sign_up("ada"), sign_up("bob"));
    let mut bobs = listen(&bob);
    let mut adas: Vec<_> = (0..5).map(|_| listen(&ada)).collect();
    // The first one has ended, and its page is told not to ask again.
    let mut oldest = adas.remove(0);
    assert_eq!(oldest.event(), ["event: end", "data:"]);
    assert_eq!(oldest.event(), [""; 0]);
    assert_eq!(site.post("/notes", &ada, "title=Tea&text=").status, 303);
    for stream in adas.iter_mut().chain([&mut bobs]) {
        assert_eq!(stream.event(), ["data: 1"]);
    }
}

#[test]
fn who_guesses_passwords_guesses_ten_a_minute() {
    let site = Site::start();
    // A few more than ten: as a minute passes into the next one, the count is an estimate.
    let guesses = [(); 13].map(|()| site.post("/login", "", "name=ada&password=wrong").status);
    assert_eq!(guesses[0], 400);
    assert_eq!(guesses[12], 429);
}

#[cfg(unix)]
#[test]
fn files_are_for_their_owner_alone_whatever_the_umask() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new("notes-mode");
    let file = folder.path("notes.db");
    let mut command = Command::new("sh");
    command.args(["-c", "umask 0; exec \"$0\" --listen 127.0.0.1:0 --file \"$1\""]);
    let (_redis, port) = RedisServer::start_on_port();
    command.env("REDIS_URL", format!("redis://127.0.0.1:{port}/0"));
    let _notes = Program::start_silently(command.arg(example("notes")).arg(&file));
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn without_javascript_all_of_it_works() {
    let (site, folder) = (Site::start(), Folder::new("notes-plain"));
    let mut browser = Browser::without_javascript();
    let page = "data:text/html,<p>off</p><script>document.body.textContent = 'on'</script>";
    assert_eq!(browser.open(page), "off");
    assert!(sign_up(&mut browser, &site.url(""), "ada").contains("Welcome, ada."));
    assert!(browser.follow("header button").contains("A notebook of your own"));
    assert!(log_in(&mut browser, &site.url(""), "ada").contains("Welcome back, ada."));
    let file = folder.path("tea.txt");
    std::fs::write(&file, "green").unwrap();
    browser.choose("#file", &file);
    add_note(&mut browser, "Tea");
    assert!(add_note(&mut browser, "Bread").contains("tea.txt"));
    browser.fill("#q", "tea");
    browser.follow("[role=search] button");
    assert_eq!(titles(&mut browser), ["Tea"]);
    std::fs::write(folder.path("me.png"), pixel()).unwrap();
    browser.open(&site.url("/account"));
    browser.choose("#picture", &folder.path("me.png"));
    assert!(browser.follow("section button").contains("That is you now."));
    assert!(browser.follow("header button").contains("A notebook of your own"));
}

#[test]
fn devices_see_each_other_and_end_each_other() {
    let (site, chromium) = (Site::start(), Chromium::shared());
    let (mut laptop, mut phone) = (chromium.browser(), Browser::another());
    let at = site.url("");
    let devices = |browser: &mut Browser| {
        browser.open(&site.url("/devices"));
        let script = "return document.querySelectorAll('tbody tr').length";
        browser.script(script).as_u64().unwrap()
    };
    sign_up(&mut laptop, &at, "ada");
    assert_eq!(devices(&mut laptop), 1);
    log_in(&mut phone, &at, "ada");
    for browser in [&mut laptop, &mut phone] {
        assert_eq!(devices(browser), 2);
        let shown = browser.text();
        assert_eq!(shown.matches("this one").count(), 1, "{shown}");
        assert_eq!(shown.matches("HeadlessChrome").count(), 2, "{shown}");
    }
    // One.
    assert!(laptop.follow("tbody button").contains("You are logged out there."));
    assert_eq!(devices(&mut laptop), 1);
    assert!(phone.reload().contains("Log in"));
    assert_eq!(phone.url(), format!("{at}/login?next=%2Fdevices"));
    // All others.
    phone.fill("#name", "ada");
    phone.fill("#password", PASSWORD);
    assert!(phone.follow("main button").contains("Your devices"));
    assert!(phone.follow("#others button").contains("here and nowhere else"));
    assert_eq!(devices(&mut phone), 1);
    assert!(laptop.reload().contains("Log in"));
}

#[test]
fn the_browser_has_the_cookie_with_its_flags() {
    let (site, chromium) = (Site::start(), Chromium::shared());
    let mut browser = chromium.browser();
    browser.open(&site.url("/"));
    sign_up(&mut browser, &site.url(""), "ada");
    let cookie = browser.cookie();
    assert_eq!((&cookie.name[..], &cookie.path[..], &cookie.same_site[..]), ("notes", "/", "Lax"));
    assert!(cookie.http_only && !cookie.secure);
    assert_eq!(browser.script("return document.cookie"), "");
}

#[cfg(feature = "dev-certificate")]
#[test]
fn over_https_the_cookie_is_the_strictest_there_is() {
    let mut command = Command::new(example("notes"));
    let notes = Program::start_silently(
        command.args(["https", "--listen", "https://127.0.0.1:0"]).env_remove("REDIS_URL"),
    );
    let at = format!("https://{LOCAL}:{}", notes.address.port());
    let chromium = Chromium::shared();
    let mut browser = chromium.browser();
    assert!(sign_up(&mut browser, &at, "ada").contains("Welcome, ada."));
    let cookie = browser.cookie();
    assert_eq!(cookie.name, "__Host-notes");
    assert!(cookie.http_only && cookie.secure && cookie.path == "/");
    assert_eq!(cookie.same_site, "Lax");
}

/// Visits a site over restarts of its server.
fn restarts(folder: &Folder, start: impl Fn(&mut Command) -> Program) {
    let start = |listen: &str| {
        let mut command = Command::new(example("notes"));
        command.args(["--listen", listen, "--file"]).arg(folder.path("notes.db"));
        start(command.env_remove("REDIS_URL"))
    };
    let first = start("127.0.0.1:0");
    let listen = first.address.to_string();
    let at = format!("http://{LOCAL}:{}", first.address.port());
    let chromium = Chromium::shared();
    let mut browser = chromium.browser();
    sign_up(&mut browser, &at, "ada");
    add_note(&mut browser, "Before");
    // Without a word, as a crash would.
    first.kill();
    let second = start(&listen);
    browser.open(&format!("{at}/"));
    assert_eq!(titles(&mut browser), ["Before"]);
    // The form is from the process before: its token is as good as ever.
    browser.fill("#title", "Between");
    assert!(second.terminate().success());
    let _third = start(&listen);
    assert!(browser.follow("#note button").contains("“Between” is noted."));
    assert_eq!(titles(&mut browser), ["Between", "Before"]);
}

#[test]
fn a_server_that_is_restarted_finds_its_visitors_logged_in_in_redis() {
    let (_redis, port) = RedisServer::start_on_port();
    let url = format!("redis://127.0.0.1:{port}/0");
    restarts(&Folder::new("notes-redis"), |command| {
        Program::start_silently(command.env("REDIS_URL", &url))
    });
}

#[cfg(feature = "sqlite")]
#[test]
fn a_server_that_is_restarted_finds_its_visitors_logged_in_in_a_file() {
    restarts(&Folder::new("notes-file-restart"), Program::start_silently);
}

#[test]
fn an_id_that_somebody_has_planted_is_nobodys_login() {
    let (site, chromium) = (Site::start(), Chromium::shared());
    let mut browser = chromium.browser();
    let at = site.url("");
    sign_up(&mut browser, &at, "ada");
    browser.follow("header button");
    // The attacker has a session of their own, a real one, and makes the victim's browser use it.
    browser.open(&format!("{at}/login"));
    let planted = browser.cookie().value;
    browser.devtools("Network.clearBrowserCookies", json!({}));
    browser.set_cookie("notes", &planted);
    assert!(log_in(&mut browser, &at, "ada").contains("Welcome back, ada."));
    assert_ne!(browser.cookie().value, planted);
    // With what they planted they are nobody.
    let mut attacker = site.0.client();
    attacker.send(format!("GET /account HTTP/1.1\r\nHost: a\r\nCookie: notes={planted}\r\n\r\n"));
    assert_eq!(attacker.reply().status, 401);
}

#[test]
fn a_form_on_another_site_writes_no_note() {
    let (site, chromium) = (Site::start(), Chromium::shared());
    let mut elsewhere = App::new();
    let to = site.url("/notes");
    elsewhere.get("/", move || {
        Html(format!(
            r#"<form method="post" action="{to}"><input name="title" value="forged">
            <input name="text" value=""><button>Win a prize</button></form>"#
        ))
    });
    let elsewhere = Serving::start(Native::bind("127.0.0.1:0").unwrap(), elsewhere);
    let mut browser = chromium.browser();
    sign_up(&mut browser, &site.url(""), "ada");
    // Another port of the same host is the same site to cookies, and another origin.
    for host in [LOCAL, "127.0.0.1"] {
        browser.open(&format!("http://{host}:{}/", elsewhere.address.port()));
        assert!(browser.follow("button").contains("Forbidden"), "{host}");
        assert_eq!(browser.status(), 403);
    }
    browser.open(&site.url("/"));
    assert_eq!(titles(&mut browser), [""; 0]);
}

#[test]
fn after_logging_out_back_shows_nothing_of_the_notes() {
    let (site, chromium) = (Site::start(), Chromium::shared());
    let mut browser = chromium.browser();
    sign_up(&mut browser, &site.url(""), "ada");
    add_note(&mut browser, "Secret plans");
    browser.open(&site.url("/notes/1"));
    assert!(browser.follow("header button").contains("A notebook of your own"));
    let shown = browser.back();
    assert!(shown.contains("Log in") && !shown.contains("Secret"), "{shown}");
}

#[test]
fn two_tabs_see_the_same_and_the_number_of_notes_is_live() {
    let (site, chromium) = (Site::start(), Chromium::shared());
    let mut browser = chromium.browser();
    sign_up(&mut browser, &site.url(""), "ada");
    let count = "return document.getElementById('count').textContent";
    assert_eq!(browser.script(count), "0");
    let first = browser.new_tab();
    browser.open(&site.url("/"));
    add_note(&mut browser, "From the second tab");
    browser.go_to_tab(&first);
    // Nobody has reloaded this page.
    wait_until("the first tab has heard of it", || browser.script(count) == "1");
    assert_eq!(titles(&mut browser), [""; 0]);
    // Its form is still good, and then it shows both.
    add_note(&mut browser, "From the first tab");
    assert_eq!(titles(&mut browser), ["From the first tab", "From the second tab"]);
    // Logged out in one tab, a form of the other one leads to the login.
    let first = browser.new_tab();
    browser.open(&site.url("/"));
    browser.follow("header button");
    browser.go_to_tab(&first);
    browser.fill("#title", "Too late");
    assert!(browser.follow("#note button").contains("Log in"));
}

#[test]
fn a_file_of_any_name_goes_up_and_comes_down_as_it_was() {
    const NAME: &str = "文件 é.pdf";
    let (site, chromium, folder) = (Site::start(), Chromium::shared(), Folder::new("notes-file"));
    let (sent, saved) = (folder.path(NAME), folder.path("saved"));
    // Larger than what stays in memory, and no text.
    let content: Vec<u8> = (0..400_000u32).map(|byte| (byte % 251) as u8).collect();
    std::fs::write(&sent, &content).unwrap();
    std::fs::create_dir(&saved).unwrap();
    let mut browser = chromium.browser();
    let folder = json!({ "behavior": "allow", "downloadPath": saved });
    browser.devtools("Browser.setDownloadBehavior", folder);
    sign_up(&mut browser, &site.url(""), "ada");
    browser.fill("#title", "With a file");
    browser.choose("#file", &sent);
    let shown = browser.follow("#note button");
    assert!(shown.contains(NAME), "{shown}");
    browser.click(".notes a[download]");
    let file = saved.join(NAME);
    wait_until("the file is there", || {
        std::fs::metadata(&file).is_ok_and(|file| file.len() == content.len() as u64)
    });
    assert!(std::fs::read(&file).unwrap() == content);
    browser.devtools("Browser.setDownloadBehavior", json!({ "behavior": "default" }));
}

/// The smallest picture there is: one pixel.
fn pixel() -> Vec<u8> {
    let text = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
    decoded(text)
}

/// What this base64 stands for.
fn decoded(base64: &str) -> Vec<u8> {
    let mut program = Command::new("base64")
        .arg("--decode")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("base64 of the coreutils");
    let mut input = program.stdin.take().expect("piped");
    let text = base64.to_owned();
    let writer = std::thread::spawn(move || input.write_all(text.as_bytes()).unwrap());
    let decoded = program.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(decoded.status.success());
    decoded.stdout
}

#[test]
fn a_picture_is_shown_once_it_is_one() {
    let (site, chromium, folder) = (Site::start(), Chromium::shared(), Folder::new("notes-face"));
    let mut browser = chromium.browser();
    sign_up(&mut browser, &site.url(""), "ada");
    browser.open(&site.url("/account"));
    for (name, content) in [("page.png", &b"<script>alert(1)</script>"[..]), ("me.png", &pixel())] {
        std::fs::write(folder.path(name), content).unwrap();
        browser.choose("#picture", &folder.path(name));
        let shown = browser.follow("section button");
        assert_eq!(shown.contains("This is no PNG"), name == "page.png", "{shown}");
    }
    let width = "return document.querySelector('img.picture').naturalWidth";
    wait_until("the picture is loaded", || browser.script(width) == 1);
}

#[test]
fn all_of_it_is_done_by_keyboard_alone() {
    let (site, chromium) = (Site::start(), Chromium::shared());
    let mut browser = chromium.browser();
    browser.open(&site.url("/signup"));
    // The first stop leads past the header.
    browser.press(&TAB.to_string());
    assert_eq!(browser.script("return document.activeElement.innerText"), "To the content");
    browser.press(&ENTER.to_string());
    browser.press(&format!("{TAB}ada{TAB}{PASSWORD}"));
    assert!(browser.follow_keys(&ENTER.to_string()).contains("Welcome, ada."));
    // The form kept the #main of its page, and so the next one begins there. Past the search and its button.
    browser.press(&format!("{TAB}{TAB}{TAB}{TAB}green"));
    browser.follow_keys(&format!("{TAB}{TAB}{ENTER}"));
    assert_eq!(browser.status(), 400);
    let about = "const title = document.getElementById('title');
        return document.getElementById(title.getAttribute('aria-describedby')).textContent";
    assert_eq!(browser.script(about), "A note needs a title.");
    assert_eq!(browser.script("return document.getElementById('text').value"), "green");
}

/// axe-core, which tests/run.sh brings from npm.
fn axe() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/axe/package/axe.min.js");
    std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; tests/run.sh brings it", path.display()))
}

#[test]
fn axe_finds_nothing_on_any_page_light_or_dark() {
    let (site, chromium, axe, folder) =
        (Site::start(), Chromium::shared(), axe(), Folder::new("notes-axe"));
    let mut browser = chromium.browser();
    let pages = |browser: &mut Browser, paths: &[&str]| {
        for scheme in ["light", "dark"] {
            let feature = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
            browser.devtools("Emulation.setEmulatedMedia", json!({ "features": feature }));
            for path in paths {
                if !path.is_empty() {
                    browser.open(&site.url(path));
                }
                assert_no_violation(browser, &axe, &format!("{path}, {scheme}"));
            }
        }
        browser.devtools("Emulation.setEmulatedMedia", json!({ "features": [] }));
    };
    pages(&mut browser, &["/", "/signup", "/login", "/nowhere"]);
    browser.open(&site.url("/login"));
    browser.fill("#name", "nobody");
    browser.fill("#password", PASSWORD);
    assert!(browser.follow("main button").contains("Name or password is wrong."));
    pages(&mut browser, &[""]);
    sign_up(&mut browser, &site.url(""), "ada");
    // With the message of welcome.
    pages(&mut browser, &[""]);
    std::fs::write(folder.path("a.pdf"), "pdf").unwrap();
    browser.fill("#title", "With a file");
    browser.choose("#file", &folder.path("a.pdf"));
    browser.follow("#note button");
    browser.follow("#note button");
    assert_eq!(browser.status(), 400);
    pages(&mut browser, &["", "/", "/?q=nothing", "/notes/1", "/account", "/admin", "/devices"]);
    // With a device that can be ended.
    let mut phone = Browser::another();
    log_in(&mut phone, &site.url(""), "ada");
    pages(&mut browser, &["/devices"]);
}

fn assert_no_violation(browser: &mut Browser, axe: &str, page: &str) {
    browser.script(axe);
    let found = browser.script("return axe.run(document).then(found => found.violations)");
    let violations = found.as_array().expect("a list");
    let told: Vec<_> = violations
        .iter()
        .map(|found| {
            let at = found["nodes"].as_array().into_iter().flatten();
            let at: Vec<_> = at.map(|node| node["html"].to_string()).collect();
            format!("{}: {} {}", found["id"], found["help"], at.join(", "))
        })
        .collect();
    assert!(told.is_empty(), "{page}:\n{}", told.join("\n"));
}

/// Makes the pictures of the README anew: `cargo test --all-features --test tests -- --ignored pictures_for_the_readme`.
#[test]
#[ignore = "writes examples/notes/light.png and dark.png"]
fn pictures_for_the_readme() {
    let (site, chromium) = (Site::start(), Chromium::shared());
    let mut browser = chromium.browser();
    let size = json!({ "width": 760, "height": 620, "deviceScaleFactor": 1, "mobile": false });
    browser.devtools("Emulation.setDeviceMetricsOverride", size);
    sign_up(&mut browser, &site.url(""), "ada");
    for (title, text) in [
        ("Analytical engine", "It might act upon other things besides number."),
        ("Shopping", "tea, milk, bread"),
    ] {
        browser.fill("#text", text);
        add_note(&mut browser, title);
    }
    for scheme in ["light", "dark"] {
        let feature = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        browser.devtools("Emulation.setEmulatedMedia", json!({ "features": feature }));
        let png = decoded(&browser.picture());
        let path = format!("{}/examples/notes/{scheme}.png", env!("CARGO_MANIFEST_DIR"));
        std::fs::write(path, png).unwrap();
    }
    browser.devtools("Emulation.clearDeviceMetricsOverride", json!({}));
    browser.devtools("Emulation.setEmulatedMedia", json!({ "features": [] }));
}
