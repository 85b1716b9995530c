//! Chromium, driven by chromedriver over WebDriver (<https://www.w3.org/TR/webdriver2/>).

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::serving::Client;

const OPTIONS: [&str; 12] = [
    "--headless",
    // Root has no sandbox; nor have most containers.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-crash-reporter",
    "--disable-default-apps",
    "--disable-sync",
    "--disable-quic",
    // All hosts are this machine: the tests may name theirs as they like, and nothing reaches the network.
    "--host-resolver-rules=MAP * 127.0.0.1",
];

/// A browser for several tests, which have it one after the other.
pub struct Chromium(Mutex<Browser>);

static SHARED: Mutex<Weak<Chromium>> = Mutex::new(Weak::new());
static STARTED: AtomicU32 = AtomicU32::new(0);

impl Chromium {
    /// One for all tests that run at the same time, ended when the last of them ends.
    pub fn shared() -> Arc<Chromium> {
        let mut shared = lock(&SHARED);
        shared.upgrade().unwrap_or_else(|| {
            let chromium = Arc::new(Chromium(Mutex::new(Browser::start(&json!({})))));
            *shared = Arc::downgrade(&chromium);
            chromium
        })
    }

    /// The browser, with nothing left in it of the test before.
    pub fn browser(&self) -> MutexGuard<'_, Browser> {
        let mut browser = lock(&self.0);
        browser.forget_everything();
        browser
    }
}

/// A Chromium and the chromedriver that drives it; both end when this is dropped.
pub struct Browser {
    driver: Child,
    // Kept open: chromedriver must not fail for want of somebody who reads.
    _output: BufReader<ChildStdout>,
    client: Client,
    session: Session,
    folder: PathBuf,
    preferences: Value,
}

/// What chromedriver tells of a Chromium that it has started.
#[derive(Default)]
struct Session {
    path: String,
    process: u64,
}

/// Keys as WebDriver has them.
pub const TAB: char = '\u{e004}';
pub const ENTER: char = '\u{e007}';

/// A cookie as the browser keeps it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cookie {
    pub name: String,
    pub value: String,
    pub domain: String,
    pub path: String,
    pub secure: bool,
    pub http_only: bool,
    pub same_site: String,
    /// In seconds since 1970; none where the cookie ends with the browser.
    pub expiry: Option<u64>,
}

impl Browser {
    /// Somebody else's, or the same user's on another device: with a profile of its own.
    pub fn another() -> Browser {
        Browser::start(&json!({}))
    }

    /// One that runs no script of any page.
    pub fn without_javascript() -> Browser {
        Browser::start(&json!({ "managed_default_content_settings": { "javascript": 2 } }))
    }

    /// Starts Chromium with these preferences of its profile besides.
    fn start(preferences: &Value) -> Browser {
        // As many users have it, and some browsers always: no cookies of sites in frames of others.
        let mut profile = json!({ "cookie_controls_mode": 1 });
        let known = profile.as_object_mut().expect("an object");
        known.extend(
            preferences.as_object().into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())),
        );
        let preferences = json!({ "profile": profile });
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let folder =
            std::env::temp_dir().join(format!("bs-browser-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        // Chromedriver takes a free port of ::1 and then the same one of 127.0.0.1, which may be in use.
        let (driver, output, port) = (0..10)
            .find_map(|_| start_driver(&folder))
            .expect("chromedriver ended ten times before it listened");
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let client = Client::new(TcpStream::connect(address).expect("chromedriver listens"));
        let session = Session::default();
        let mut browser = Browser { driver, _output: output, client, session, folder, preferences };
        browser.begin();
        browser
    }

    fn begin(&mut self) {
        let profile = format!("--user-data-dir={}", self.folder.join("profile").display());
        let options: Vec<&str> = OPTIONS.into_iter().chain([&profile[..]]).collect();
        let wanted = json!({
            "goog:chromeOptions": {
                "args": options,
                "prefs": self.preferences,
            },
            // Those that a server has made for itself.
            "acceptInsecureCerts": true,
            // A slow machine is no failure.
            "timeouts": { "script": null },
        });
        let wanted = json!({ "capabilities": { "alwaysMatch": wanted } });
        let begun = self.ask("POST", "/session", &wanted).unwrap_or_else(|error| {
            panic!("chromedriver starts no Chromium (tests/run.sh installs it): {error}")
        });
        self.session = Session {
            path: format!("/session/{}", begun["sessionId"].as_str().expect("a session")),
            process: begun["capabilities"]["goog:processID"].as_u64().expect("a process"),
        };
    }

    /// Ends the browser as its user does, and starts it again with what it keeps on disk.
    pub fn restart(&mut self) {
        self.command("DELETE", "", json!({}));
        self.session = Session::default();
        self.begin();
    }

    fn forget_everything(&mut self) {
        self.open("about:blank");
        for forget in ["Network.clearBrowserCookies", "Network.clearBrowserCache"] {
            self.devtools(forget, json!({}));
        }
    }

    /// Sends Chromium a command of the DevTools protocol, for what WebDriver has no word.
    pub fn devtools(&mut self, command: &str, parameters: Value) -> Value {
        let body = json!({ "cmd": command, "params": parameters });
        self.command("POST", "/goog/cdp/execute", body)
    }

    /// Opens a new tab and closes all others.
    pub fn change_tabs(&mut self) {
        let old = self.command("GET", "/window/handles", json!({}));
        let new = self.command("POST", "/window/new", json!({ "type": "tab" }));
        for handle in old.as_array().expect("a list") {
            self.command("POST", "/window", json!({ "handle": handle }));
            self.command("DELETE", "/window", json!({}));
        }
        self.command("POST", "/window", json!({ "handle": new["handle"] }));
    }

    /// Opens a page, as by typing its address, and returns what it shows.
    pub fn open(&mut self, url: &str) -> String {
        self.command("POST", "/url", json!({ "url": url }));
        self.text()
    }

    pub fn reload(&mut self) -> String {
        self.command("POST", "/refresh", json!({}));
        self.text()
    }

    pub fn back(&mut self) -> String {
        self.command("POST", "/back", json!({}));
        self.text()
    }

    /// Clicks on what leads to another page, and returns what that one shows.
    pub fn follow(&mut self, selector: &str) -> String {
        let element = self.element(selector);
        self.leave(|browser| {
            browser.command("POST", &format!("/element/{element}/click"), json!({}));
        })
    }

    fn leave(&mut self, act: impl FnOnce(&mut Browser)) -> String {
        self.script("window.isLeft = true");
        act(self);
        while self.script("return window.isLeft || document.readyState !== 'complete'") == true {
            std::thread::sleep(Duration::from_millis(2));
        }
        self.text()
    }

    /// What the page shows.
    pub fn text(&mut self) -> String {
        let text = self.script("return document.documentElement.innerText");
        text.as_str().expect("text").trim().to_owned()
    }

    /// What a frame of the page shows.
    pub fn text_of_frame(&mut self) -> String {
        let frame = self.script("return document.querySelector('iframe')");
        self.command("POST", "/frame", json!({ "id": frame }));
        let text = self.text();
        self.command("POST", "/frame", json!({ "id": null }));
        text
    }

    /// The address of the page.
    pub fn url(&mut self) -> String {
        self.command("GET", "/url", json!({})).as_str().expect("text").to_owned()
    }

    /// The status that the page came with.
    pub fn status(&mut self) -> u64 {
        let script = "return performance.getEntriesByType('navigation')[0].responseStatus";
        self.script(script).as_u64().expect("a number")
    }

    /// Runs a script in the page and returns what it returns; of a promise, what it is fulfilled with.
    pub fn script(&mut self, script: &str) -> Value {
        self.command("POST", "/execute/sync", json!({ "script": script, "args": [] }))
    }

    /// The cookies that belong to the page.
    pub fn cookies(&mut self) -> Vec<Cookie> {
        let cookies = self.command("GET", "/cookie", json!({}));
        serde_json::from_value(cookies).expect("cookies")
    }

    /// The only cookie that belongs to the page.
    pub fn cookie(&mut self) -> Cookie {
        let [cookie] = self.cookies().try_into().expect("one cookie");
        cookie
    }

    fn element(&mut self, selector: &str) -> String {
        let wanted = json!({ "using": "css selector", "value": selector });
        let element = self.command("POST", "/element", wanted);
        let mut references = element.as_object().expect("an element").values();
        references.next().and_then(Value::as_str).expect("a reference").to_owned()
    }

    fn command(&mut self, method: &str, path: &str, body: Value) -> Value {
        let path = format!("{}{path}", self.session.path);
        self.ask(method, &path, &body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    fn ask(&mut self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let body = if method == "POST" { body.to_string() } else { String::new() };
        let length = body.len();
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}");
        let request = format!("{head}\r\n\r\n{body}");
        self.client.stream.write_all(request.as_bytes()).map_err(|error| error.to_string())?;
        let reply = self.client.try_reply(false).ok_or("chromedriver does not answer")?;
        let mut answer: Value =
            serde_json::from_slice(&reply.body).map_err(|error| error.to_string())?;
        let value = answer["value"].take();
        match reply.status {
            200 => Ok(value),
            _ => Err(format!("{}: {}", value["error"], value["message"])),
        }
    }
}

/// What the tests of the examples with pages need besides.
impl Browser {
    /// Presses keys, the last of which leads to another page, and returns what that one shows.
    pub fn follow_keys(&mut self, keys: &str) -> String {
        self.leave(|browser| browser.press(keys))
    }

    /// Presses keys one after the other, wherever the focus is. [`TAB`] and the like are characters, too.
    pub fn press(&mut self, keys: &str) {
        let strokes: Vec<_> = keys
            .chars()
            .flat_map(|key| {
                ["keyDown", "keyUp"].map(|stroke| json!({ "type": stroke, "value": key }))
            })
            .collect();
        let keyboard = json!({ "type": "key", "id": "keyboard", "actions": strokes });
        self.command("POST", "/actions", json!({ "actions": [keyboard] }));
    }

    #[cfg(feature = "garde")]
    /// Chooses a file in the control that has the focus, which opens the system's own dialog otherwise.
    pub fn choose_file(&mut self, path: &Path) {
        let element = self.command("GET", "/element/active", json!({}));
        let mut references = element.as_object().expect("an element").values();
        let element = references.next().and_then(Value::as_str).expect("a reference").to_owned();
        let path = path.to_str().expect("text");
        self.command("POST", &format!("/element/{element}/value"), json!({ "text": path }));
    }

    /// Types into a control, in place of what it holds.
    pub fn fill(&mut self, selector: &str, text: &str) {
        let element = self.element(selector);
        self.command("POST", &format!("/element/{element}/clear"), json!({}));
        self.command("POST", &format!("/element/{element}/value"), json!({ "text": text }));
    }

    /// Chooses a file in this control.
    pub fn choose(&mut self, selector: &str, path: &Path) {
        let element = self.element(selector);
        let path = path.to_str().expect("text");
        self.command("POST", &format!("/element/{element}/value"), json!({ "text": path }));
    }

    /// Clicks on what leads to no other page.
    pub fn click(&mut self, selector: &str) {
        let element = self.element(selector);
        self.command("POST", &format!("/element/{element}/click"), json!({}));
    }

    /// Plants a cookie.
    pub fn set_cookie(&mut self, name: &str, value: &str) {
        let cookie = json!({ "name": name, "value": value, "path": "/", "httpOnly": true });
        self.command("POST", "/cookie", json!({ "cookie": cookie }));
    }

    /// What the window shows, as a PNG in base64.
    pub fn picture(&mut self) -> String {
        let picture = self.command("GET", "/screenshot", json!({}));
        picture.as_str().expect("text").to_owned()
    }

    /// Opens one more tab and goes there; returns the one before, to go back to.
    pub fn new_tab(&mut self) -> Value {
        let old = self.command("GET", "/window", json!({}));
        let new = self.command("POST", "/window/new", json!({ "type": "tab" }));
        self.go_to_tab(&new["handle"]);
        old
    }

    pub fn go_to_tab(&mut self, handle: &Value) {
        self.command("POST", "/window", json!({ "handle": handle }));
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let Session { path, process } = std::mem::take(&mut self.session);
        // Chromedriver ends its Chromium. Where it cannot, because one of them hangs, the system does.
        if process != 0 && self.ask("DELETE", &path, &json!({})).is_err() {
            let _ = Command::new("kill").args(["-KILL", &process.to_string()]).status();
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
        remove(&self.folder);
    }
}

/// Removes a folder to which processes that are about to end may still write.
fn remove(folder: &Path) {
    while folder.exists() && std::fs::remove_dir_all(folder).is_err() {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Starts chromedriver and reads which port it listens on. `None` if it has ended before that.
fn start_driver(folder: &Path) -> Option<(Child, BufReader<ChildStdout>, u16)> {
    let mut driver = Command::new("chromedriver")
        .arg("--port=0")
        // Chromium keeps some things beside its profile.
        .env("HOME", folder)
        .env_remove("XDG_CONFIG_HOME")
        .env_remove("XDG_CACHE_HOME")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("chromedriver (chromium and chromium-driver; tests/run.sh installs them)");
    let mut output = BufReader::new(driver.stdout.take().expect("piped"));
    let mut line = String::new();
    while output.read_line(&mut line).expect("text") > 0 {
        if let Some((_, port)) = line.split_once("started successfully on port ") {
            let port = port.trim_end().trim_end_matches('.').parse().expect("a port");
            return Some((driver, output, port));
        }
        line.clear();
    }
    let _ = driver.wait();
    None
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
