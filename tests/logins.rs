//! Who is logged in: devices, their ends, and the user as an argument.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, SystemTime};

use bottle_session::http::Method;
use bottle_session::testing::store_contract::StoreUnderTest;
use bottle_session::{
    Action, App, Changes, EndDevices, Error, ErrorKind, HttpError, Json, Layout, LogIn,
    LoginPlugin, MemoryStore, Provided, RedisPool, RedisStore, Request, Result, Save, Saved,
    Session, SessionPlugin, SessionStore, TestClient, named, redirect_back,
};
use serde_json::Value;

use crate::stores::{Memory, Redis};
use crate::support::redis_server::{RedisServer, info};
use crate::support::sessions::{IDLE, create, fresh_id, load};

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

fn devices(client: &TestClient) -> Vec<Value> {
    client.get("/devices").send().json().unwrap()
}

/// Another browser.
fn another(client: &TestClient) -> TestClient {
    TestClient::of(client.service().clone())
}

/// The same test in memory and in Redis.
fn in_both(test: impl Fn(TestClient)) {
    test(TestClient::new(devices_app(SessionPlugin::new().in_memory())).unwrap());
    let server = RedisServer::shared();
    let pool = RedisPool::open(&server.url(server.fresh_database())).unwrap();
    test(TestClient::new(devices_app(SessionPlugin::new().pool(pool))).unwrap());
}

#[test]
fn a_user_sees_all_devices_and_ends_one_or_all_others() {
    in_both(|laptop| {
        let [phone, tablet, stranger] = [(); 3].map(|()| another(&laptop));
        laptop.get("/in/ada").header("user-agent", "Laptop/1.0").send();
        phone.get("/in/ada").header("user-agent", &"Phone ".repeat(60)).send();
        tablet.get("/in/ada").send();
        stranger.get("/in/bob").send();
        let listed = devices(&laptop);
        assert_eq!(listed.len(), 3, "{listed:?}");
        let agents: Vec<_> =
            listed.iter().map(|device| device["agent"].as_str().unwrap()).collect();
        assert!(agents.contains(&"Laptop/1.0") && agents.contains(&""), "{agents:?}");
        assert!(agents.iter().any(|agent| agent.len() == 256), "{agents:?}");
        let this =
            |listed: &[Value]| listed.iter().find(|d| d["is_this"] == true).cloned().unwrap();
        let handle =
            |client: &TestClient| this(&devices(client))["handle"].as_str().unwrap().to_owned();
        // A handle of somebody else does nothing.
        assert_eq!(text(&laptop, &format!("/end/{}", handle(&stranger))), "false");
        assert_eq!(text(&stranger, "/who"), "bob");
        // It outlives a new id of its session.
        let tablets = handle(&tablet);
        text(&tablet, "/new-id");
        assert_eq!(handle(&tablet), tablets);
        assert_eq!(text(&laptop, &format!("/end/{tablets}")), "true");
        assert_eq!((text(&tablet, "/who"), devices(&tablet).len()), ("-".to_owned(), 0));
        assert_eq!(text(&laptop, "/end-others"), "1");
        assert_eq!(
            (text(&phone, "/who"), text(&laptop, "/who")),
            ("-".to_owned(), "ada".to_owned())
        );
        // Ending this one logs out.
        assert_eq!(text(&laptop, &format!("/end/{}", handle(&laptop))), "true");
        assert_eq!((text(&laptop, "/who"), laptop.cookie(COOKIE)), ("-".to_owned(), None));
        assert_eq!(text(&stranger, "/who"), "bob");
    });
}

#[test]
fn a_new_password_ends_all_other_devices_in_the_same_request() {
    in_both(|laptop| {
        let phone = another(&laptop);
        text(&laptop, "/in/ada");
        text(&phone, "/in/ada");
        assert_eq!(text(&laptop, "/new-password/ada"), "1");
        assert_eq!(
            (text(&phone, "/who"), text(&laptop, "/who")),
            ("-".to_owned(), "ada".to_owned())
        );
        assert_eq!(devices(&laptop).len(), 1);
        text(&phone, "/in/ada");
        assert_eq!(text(&phone, "/end-all"), "2");
        for client in [&phone, &laptop] {
            assert_eq!(text(client, "/who"), "-");
        }
        assert_eq!(text(&another(&laptop), "/end-all"), "0", "who is not logged in has no devices");
    });
}

#[test]
fn a_logout_leaves_the_list() {
    in_both(|laptop| {
        let phone = another(&laptop);
        text(&laptop, "/in/ada");
        text(&phone, "/in/ada");
        text(&phone, "/out");
        assert_eq!(devices(&laptop).len(), 1);
        // Another user in the same browser.
        text(&phone, "/in/ada");
        text(&phone, "/in/bob");
        assert_eq!((devices(&laptop).len(), devices(&phone).len()), (1, 1));
    });
}

#[test]
fn an_address_is_kept_as_its_network_or_not_at_all() {
    for (plugin, expected) in [
        (SessionPlugin::new().in_memory(), "203.0.113.0/24"),
        (SessionPlugin::new().in_memory().keep_addresses(false), ""),
    ] {
        let client = TestClient::new(devices_app(plugin)).unwrap();
        let request = Request::new(Method::GET, "/in/ada".parse().unwrap());
        let request = request.with_remote_addr(([203, 0, 113, 77], 5000).into());
        let response = client.service().handle(request);
        let cookie = response.headers()["set-cookie"].to_str().unwrap();
        let id = cookie.split([';', '=']).nth(1).unwrap();
        client.set_cookie(COOKIE, id);
        assert_eq!(devices(&client)[0]["address"], expected);
    }
}

#[test]
fn the_most_sessions_of_a_user_are_kept() {
    let plugin = SessionPlugin::new().in_memory().max_sessions_per_user(2);
    let first = TestClient::new(devices_app(plugin)).unwrap();
    let [second, third] = [(); 2].map(|()| another(&first));
    for client in [&first, &second, &third] {
        text(client, "/in/ada");
    }
    let who = [&first, &second, &third].map(|client| text(client, "/who"));
    assert_eq!(who, ["-", "ada", "ada"]);
}

#[test]
fn what_needs_logins_is_refused_where_there_is_no_place_for_them() {
    let pool = || RedisPool::open(&RedisServer::shared().url(0)).unwrap();
    let plugin = SessionPlugin::new().pool(pool()).layout(Layout::BottleSession);
    let error = App::new().install(plugin.max_sessions_per_user(3)).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Config);
    let told = "cannot be kept: the store of these sessions does not keep who is logged in";
    assert!(error.to_string().contains(&format!("max_sessions_per_user {told}")), "{error}");
    let plugin = SessionPlugin::new().pool(pool()).layout(Layout::BottleSession);
    let error =
        App::new().install(plugin.anonymous_lifetime(Duration::from_secs(60))).err().unwrap();
    assert!(error.to_string().contains(&format!("anonymous_lifetime {told}")), "{error}");
    let mut app = App::new();
    app.install(SessionPlugin::new().pool(pool()).layout(Layout::BottleSession)).unwrap();
    app.get("/", |session: &mut Session| session.log_in("ada").unwrap_err().to_string());
    let told = text(&TestClient::new(app).unwrap(), "/");
    assert!(told.contains("take MemoryStore, SqliteStore, or RedisStore"), "{told}");
    let store = RedisStore::new(pool()).layout(Layout::BottleSession);
    assert_eq!(store.devices("ada", None).unwrap_err().kind(), ErrorKind::Config);
}

#[test]
fn sessions_without_a_user_have_an_idle_limit_of_their_own() {
    let now = Arc::new(Mutex::new(SystemTime::now()));
    let clock = now.clone();
    let pass = |seconds| *now.lock().unwrap() += Duration::from_secs(seconds);
    let store = MemoryStore::with_clock(move || *clock.lock().unwrap());
    let plugin = SessionPlugin::new().store(store).anonymous_lifetime(Duration::from_secs(60));
    let counters = plugin.counters();
    let mut app = devices_app(plugin);
    app.get("/set", |s: &mut Session| s.set("cart", 1));
    app.get("/cart", |s: &mut Session| s.get("cart").unwrap_or("-").to_owned());
    app.get("/remember", |s: &mut Session| s.remember(Duration::from_secs(600)));
    let client = TestClient::new(app).unwrap();
    let sends = |path: &str| {
        let cookie = client.get(path).send().header("set-cookie").map(str::to_owned);
        cookie.map(|cookie| {
            cookie.split("; ").find(|part| part.starts_with("Max-Age")).map(str::to_owned)
        })
    };
    assert_eq!(sends("/set"), Some(Some("Max-Age=66".to_owned())));
    pass(50);
    assert_eq!(text(&client, "/cart"), "1");
    pass(70);
    assert_eq!(text(&client, "/cart"), "-", "the short limit");
    text(&client, "/set");
    assert_eq!(sends("/in/ada"), Some(Some("Max-Age=330".to_owned())));
    pass(290);
    assert_eq!((text(&client, "/cart"), text(&client, "/who")), ("1".into(), "ada".into()));
    text(&client, "/out");
    // One that is remembered is so, before and behind a login.
    text(&client, "/set");
    assert_eq!(sends("/remember"), Some(Some("Max-Age=660".to_owned())));
    pass(590);
    assert_eq!(sends("/in/ada"), Some(Some("Max-Age=660".to_owned())));
    assert_eq!((counters.snapshot().created, counters.snapshot().anonymous), (3, 3));
    // Whoever logs in at once was never anybody else.
    let other = another(&client);
    text(&other, "/in/bob");
    assert_eq!((counters.snapshot().created, counters.snapshot().anonymous), (4, 3));
}

#[test]
fn a_browser_cookie_stays_one_while_nobody_is_logged_in() {
    let plugin = SessionPlugin::new().in_memory().cookie_lifetime(None);
    let mut app = devices_app(plugin.anonymous_lifetime(Duration::from_secs(60)));
    app.get("/set", |s: &mut Session| s.set("cart", 1));
    let answer = TestClient::new(app).unwrap().get("/set").send();
    assert!(!answer.header("set-cookie").unwrap().contains("Max-Age"));
}

/// How many commands a server has carried out, those of scripts included.
fn commands(connection: &mut redis::Connection) -> u64 {
    let stats = info(connection, "commandstats");
    let calls = |line: &String| line.split([',', '=']).nth(1)?.parse::<u64>().ok();
    let ours = stats.iter().filter(|(name, _)| !name.contains("info") && !name.contains("config"));
    ours.filter_map(|(_, line)| calls(line)).sum()
}

#[test]
fn only_sessions_with_a_user_cost_a_command_more() {
    let server = RedisServer::start(&[]);
    let store = RedisStore::new(RedisPool::open(&server.url(0)).unwrap());
    let mut connection = server.connect(0);
    let none = Changes::default();
    let anonymous = create(&store, &[("a", "1")]);
    let user = fresh_id(store.id_format());
    let save = Save::new(&user, Action::Create, &none, IDLE);
    assert_eq!(
        store.save(&Save { login: Some(LogIn::new("ada")), ..save }).unwrap(),
        Saved::Stored
    );
    let mut cost = |id, user: Option<&str>, renewed_ago| {
        load(&store, id).unwrap();
        let before = commands(&mut connection);
        load(&store, id).unwrap();
        let save = Save { user, renewed_ago, ..Save::new(id, Action::Update, &none, IDLE) };
        assert_eq!(store.save(&save).unwrap(), Saved::Stored);
        commands(&mut connection) - before
    };
    let nobody = cost(&anonymous, None, None);
    assert_eq!(cost(&user, Some("ada"), Some(Duration::from_secs(60))), nobody);
    // A renewal, once in a tenth of the lifetime: a script, and what it looks at.
    let renewal = cost(&user, Some("ada"), None);
    assert!((nobody + 1..=nobody + 3).contains(&renewal), "{nobody}, {renewal}");
}

/// Makes a session of who logs in.
fn logged_in(store: &dyn SessionStore, login: LogIn<'_>) {
    let (id, none) = (fresh_id(store.id_format()), Changes::default());
    let save = Save { login: Some(login), ..Save::new(&id, Action::Create, &none, IDLE) };
    assert_eq!(store.save(&save).unwrap(), Saved::Stored);
}

#[test]
fn an_index_holds_no_more_than_live_sessions_and_lives_no_longer() {
    let subject = Redis::new(Layout::Default);
    let store = subject.store();
    let log_in = || logged_in(store, LogIn::new("ada"));
    for round in 0..5 {
        // More than one look, and one reply of Redis, holds.
        for _ in 0..if round == 0 { 600 } else { 10 } {
            log_in();
        }
        // The first login after they have expired takes them out.
        subject.advance(Duration::from_secs(70 * 60));
        log_in();
        assert_eq!(subject.index_length(), Some(1), "round {round}");
        assert_eq!(store.devices("ada", None).unwrap().len(), 1);
    }
    subject.advance(Duration::from_secs(3 * 3600));
    assert_eq!(subject.index_length(), None, "it expires");
}

#[test]
fn a_user_with_many_sessions_logs_in_and_keeps_only_the_most_there_may_be() {
    let subject = Redis::new(Layout::Default);
    let (store, user) = (subject.store(), "a".repeat(200));
    let log_in = |most| logged_in(store, LogIn { most, ..LogIn::new(&user) });
    (0..600).for_each(|_| log_in(None));
    subject.advance(Duration::from_secs(120));
    log_in(None);
    assert_eq!(store.devices(&user, None).unwrap().len(), 601);
    log_in(Some(3));
    assert_eq!(store.devices(&user, None).unwrap().len(), 3);
}

/// Sixteen threads log in while another one ends all, a thousand times: no login from before a call outlives it.
fn no_survivor(store: &dyn SessionStore) {
    const THREADS: usize = 16;
    const TIMES: usize = 1000;
    let (turn, none) = (Barrier::new(THREADS + 1), Changes::default());
    let logged_in = Mutex::new(Vec::new());
    let log_in = || {
        let id = fresh_id(store.id_format());
        let save = Save::new(&id, Action::Create, &none, IDLE);
        match store.save(&Save { login: Some(LogIn::new("ada")), ..save }) {
            Ok(Saved::Stored) => logged_in.lock().unwrap().push(id),
            Ok(Saved::Gone) => panic!("a login makes a session"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
                assert!(load(store, &id).unwrap().is_none(), "a login that failed");
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..TIMES {
                    turn.wait();
                    log_in();
                    turn.wait();
                }
            });
        }
        for _ in 0..TIMES {
            let before = std::mem::take(&mut *logged_in.lock().unwrap());
            turn.wait();
            store.end_devices("ada", EndDevices::All).unwrap();
            for id in before {
                assert!(load(store, &id).unwrap().is_none(), "{id:?} has survived");
            }
            turn.wait();
        }
    });
    store.end_devices("ada", EndDevices::All).unwrap();
    for id in logged_in.into_inner().unwrap() {
        assert!(load(store, &id).unwrap().is_none(), "{id:?} has survived");
    }
    assert_eq!(store.devices("ada", None).unwrap(), []);
}

#[test]
fn sixteen_threads_log_in_while_another_ends_all_and_none_survives_in_memory() {
    no_survivor(&MemoryStore::new());
}

#[test]
fn sixteen_threads_log_in_while_another_ends_all_and_none_survives_in_redis() {
    let server = RedisServer::start(&[]);
    let store = RedisStore::new(RedisPool::open(&server.url(0)).unwrap());
    no_survivor(&store);
}

// The user as an argument.

#[derive(Debug)]
struct User {
    name: String,
    is_admin: bool,
}

impl Provided for User {}

struct Users {
    client: TestClient,
    loads: Arc<AtomicUsize>,
    gone: Arc<AtomicBool>,
    broken: Arc<Mutex<Option<u16>>>,
}

impl Users {
    fn new(plugin: SessionPlugin, add: impl FnOnce(&mut App)) -> Users {
        let loads = Arc::new(AtomicUsize::new(0));
        let (gone, broken) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(None)));
        let (count, is_gone, is_broken) = (loads.clone(), gone.clone(), broken.clone());
        let find = move |id: &str| -> std::result::Result<Option<User>, HttpError> {
            count.fetch_add(1, Ordering::Relaxed);
            if let Some(status) = *is_broken.lock().unwrap() {
                return Err(HttpError::new(status));
            }
            let user = User { name: id.to_owned(), is_admin: id == "ada" };
            Ok((!is_gone.load(Ordering::Relaxed)).then_some(user))
        };
        let mut app = App::new();
        app.install(plugin).unwrap();
        app.install(LoginPlugin::new(find).login_page("login")).unwrap();
        app.get("/", |user: Option<&mut User>| {
            user.map_or("nobody".to_owned(), |u| u.name.clone())
        });
        app.get("/none", || "no user");
        app.get("/notes", |user: &mut User| user.name.clone());
        app.post("/notes", |user: &mut User| user.name.clone());
        app.get("/twice", |user: &User| user.name.clone())
            .before(|user: &User| {
                if user.name.is_empty() { Err("no name") } else { Ok(()) }.map_err(Error::other)
            })
            .require(|user: &User| !user.name.is_empty());
        app.get("/admin", |user: &mut User| user.name.clone()).require(|user: &User| user.is_admin);
        app.get("/pay", || "paid").require_recent(Duration::from_secs(600));
        app.group("/staff", |staff| {
            staff.require(|user: &User| user.is_admin);
            staff.get("/a", || "a");
        });
        let mut inner = App::new();
        inner.get("/b", || "b");
        app.mount("/inner", inner)
            .require(|user: &User| user.is_admin)
            .require_recent(Duration::from_secs(600));
        app.get("/login", || "Who are you?").name("login");
        app.post("/login/<name>", |s: &mut Session, request: &Request, name: &str| -> Result<_> {
            s.log_in(name)?;
            Ok(redirect_back(request, "/"))
        });
        add(&mut app);
        Users { client: TestClient::new(app).unwrap(), loads, gone, broken }
    }

    fn in_memory() -> Users {
        Users::new(SessionPlugin::new().in_memory(), |_| ())
    }

    fn loads(&self) -> usize {
        self.loads.swap(0, Ordering::Relaxed)
    }

    fn status(&self, path: &str) -> u16 {
        self.client.get(path).send().status()
    }
}

#[test]
fn who_is_not_logged_in_is_sent_to_the_login_page_and_back() {
    let users = Users::in_memory();
    let client = &users.client;
    let page = "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8";
    let answer = client.get("/notes?page=2&a=b").header("accept", page).send();
    assert_eq!(answer.status(), 303);
    assert_eq!(answer.header("location"), Some("/login?next=%2Fnotes%3Fpage%3D2%26a%3Db"));
    for (method, accept, body) in [
        (Method::POST, page, "You are not logged in."),
        (Method::GET, "*/*", "You are not logged in."),
        (Method::GET, "application/json", r#"{"error":"login_required"}"#),
        (Method::POST, "application/json", r#"{"error":"login_required"}"#),
    ] {
        let answer = client.request(method.clone(), "/notes").header("accept", accept).send();
        assert_eq!(answer.status(), 401, "{method} {accept}");
        assert!(answer.text().contains(body), "{method} {accept}: {}", answer.text());
        assert_eq!(answer.header("www-authenticate"), Some("Cookie"));
    }
    assert_eq!(text(client, "/"), "nobody");
    assert_eq!(users.loads(), 0, "nobody is nobody to load");
    let answer = client.post("/login/ada?next=%2Fnotes%3Fpage%3D2").send();
    assert_eq!(answer.header("location"), Some("/notes?page=2"));
    assert_eq!(
        client.post("/login/ada?next=%2F%2Fevil.example").send().header("location"),
        Some("/")
    );
    let form = [("next", "/notes")];
    assert_eq!(client.post("/login/ada").form(&form).send().header("location"), Some("/notes"));
    assert_eq!(text(client, "/notes"), "ada");
}

#[test]
fn a_user_is_loaded_once_a_request_and_only_where_somebody_asks() {
    let users = Users::in_memory();
    users.client.post("/login/ada").send();
    assert_eq!(users.loads(), 0);
    for (path, loads) in
        [("/none", 0), ("/", 1), ("/notes", 1), ("/twice", 1), ("/admin", 1), ("/pay", 0)]
    {
        assert_eq!(users.status(path), 200, "{path}");
        assert_eq!(users.loads(), loads, "{path}");
    }
}

#[test]
fn a_user_who_no_longer_exists_is_logged_out() {
    let users = Users::in_memory();
    users.client.post("/login/ada").send();
    users.gone.store(true, Ordering::Relaxed);
    assert_eq!(text(&users.client, "/"), "nobody");
    assert_eq!(users.client.cookie(COOKIE), None);
    users.gone.store(false, Ordering::Relaxed);
    assert_eq!(users.status("/notes"), 401);
    assert_eq!(users.loads(), 1, "the session has ended with the first request");
}

#[test]
fn an_error_of_the_loader_never_passes_for_nobody() {
    let users = Users::in_memory();
    users.client.post("/login/ada").send();
    for (error, answered) in [(503, 503), (500, 500), (404, 500), (401, 500)] {
        *users.broken.lock().unwrap() = Some(error);
        for path in ["/", "/notes", "/admin"] {
            assert_eq!(users.status(path), answered, "{path} {error}");
        }
    }
    *users.broken.lock().unwrap() = None;
    assert_eq!(text(&users.client, "/notes"), "ada");
}

#[test]
fn conditions_hold_on_routes_groups_and_mounted_apps() {
    let users = Users::in_memory();
    for (user, status) in [("bob", 403), ("ada", 200)] {
        assert_eq!(users.client.post(&format!("/login/{user}")).send().status(), 303);
        for path in ["/admin", "/staff/a", "/inner/b"] {
            assert_eq!(users.status(path), status, "{user} {path}");
        }
        assert_eq!(users.status("/notes"), 200);
    }
    let nobody = another(&users.client);
    let answer = nobody.get("/inner/b").header("accept", "text/html").send();
    assert_eq!(answer.header("location"), Some("/login?next=%2Finner%2Fb"));
}

#[test]
fn what_matters_asks_for_a_recent_login() {
    let hour_ago = SystemTime::now() - Duration::from_secs(3600);
    let now = Arc::new(Mutex::new(hour_ago));
    let clock = now.clone();
    let store = MemoryStore::with_clock(move || *clock.lock().unwrap());
    let plugin = SessionPlugin::new().store(store).cookie_lifetime(Duration::from_secs(7200));
    let users = Users::new(plugin, |_| ());
    assert_eq!(users.status("/pay"), 401);
    users.client.post("/login/ada").send();
    assert_eq!(users.status("/notes"), 200);
    for path in ["/pay", "/inner/b"] {
        let answer = users.client.get(path).header("accept", "text/html").send();
        let login = format!("/login?next={}", path.replace('/', "%2F"));
        assert_eq!(answer.header("location"), Some(&*login));
    }
    *now.lock().unwrap() = SystemTime::now();
    users.client.post("/login/ada").send();
    assert_eq!((users.status("/pay"), users.status("/inner/b")), (200, 200));
}

#[test]
fn users_of_several_sessions_have_keywords() {
    struct Admin(String);
    impl Provided for Admin {}
    let mut app = App::new();
    app.install(SessionPlugin::new().in_memory()).unwrap();
    app.install(SessionPlugin::new().in_memory().keyword("admin").cookie_name("admin")).unwrap();
    let user = |id: &str| Ok::<_, Error>(Some(User { name: id.to_owned(), is_admin: false }));
    app.install(LoginPlugin::new(user).session("session")).unwrap();
    let admin = |id: &str| Ok::<_, Error>(Some(Admin(id.to_owned())));
    app.install(LoginPlugin::new(admin).keyword("chief").session("admin")).unwrap();
    app.get(
        "/in",
        named!(|session: &mut Session, admin: &mut Session| -> Result<()> {
            session.log_in("ada")?;
            admin.log_in("root")
        }),
    );
    app.get(
        "/",
        named!(|user: &User, chief: Option<&Admin>| format!(
            "{} {}",
            user.name,
            chief.map_or("-", |a| &a.0)
        )),
    );
    app.get("/by-type", |user: &User, admin: &Admin| format!("{} {}", user.name, admin.0));
    let client = TestClient::new(app).unwrap();
    assert_eq!(client.get("/").send().status(), 401);
    client.get("/in").send();
    assert_eq!(
        (text(&client, "/"), text(&client, "/by-type")),
        ("ada root".into(), "ada root".into())
    );
}

#[test]
fn a_login_page_that_is_none_is_an_error_when_the_app_is_built() {
    let built = |name: &str| {
        let mut app = App::new();
        app.install(SessionPlugin::new().in_memory()).unwrap();
        let find = |_: &str| Ok::<_, Error>(None::<User>);
        app.install(LoginPlugin::new(find).login_page(name)).unwrap();
        app.get("/login", || "Who are you?").name("login");
        app.get("/<language>/in", |_: &str| "Who are you?").name("wildcard");
        app.build().map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(built("login"), Ok(()));
    let error = built("sign-in").unwrap_err();
    for part in [
        "tests/logins.rs:",
        "login_page(\"sign-in\") leads nowhere: no route is named \"sign-in\"; named are: login, wildcard",
        "call .name(\"sign-in\") on the route where one logs in",
    ] {
        assert!(error.contains(part), "{error}");
    }
    assert!(built("wildcard").is_err(), "nobody says which language");
}

/// Users and administrators in sessions of their own; administrators have logged in just now, users an hour ago.
fn two_kinds(add: impl FnOnce(&mut App)) -> Result<TestClient> {
    let hour_ago = SystemTime::now() - Duration::from_secs(3600);
    let users = SessionPlugin::new().store(MemoryStore::with_clock(move || hour_ago));
    let mut app = App::new();
    app.install(users)?;
    app.install(SessionPlugin::new().in_memory().keyword("staff").cookie_name("staff"))?;
    let user = |id: &str| Ok::<_, Error>(Some(User { name: id.to_owned(), is_admin: false }));
    app.install(LoginPlugin::new(user).session("session"))?;
    let chief = |id: &str| Ok::<_, Error>(Some(Chief(id.to_owned())));
    app.install(LoginPlugin::new(chief).keyword("chief").session("staff"))?;
    app.get(
        "/in",
        named!(|session: &mut Session, staff: &mut Session| -> Result<()> {
            session.log_in("ada")?;
            staff.log_in("root")
        }),
    );
    add(&mut app);
    let client = TestClient::new(app)?;
    client.get("/in").send();
    Ok(client)
}

struct Chief(String);

impl Provided for Chief {}

#[test]
fn of_several_logins_those_are_recent_whose_users_the_route_asks_for() {
    let minute = Duration::from_secs(60);
    let client = two_kinds(|app| {
        app.get("/user", |user: &User| user.name.clone()).require_recent(minute);
        app.get("/chief", |chief: &Chief| chief.0.clone()).require_recent(minute);
        app.get("/both", |_: &User, _: &Chief| "both").require_recent(minute);
        app.get("/guard", || "guard").require_recent(minute).require(|_: &Chief| true);
        app.group("/group", |group| {
            group.require_recent(minute);
            group.get("/user", |_: &User| "user");
            group.get("/chief", |_: &Chief| "chief");
        });
    });
    let client = client.unwrap();
    for (path, status) in [
        ("/user", 401),
        ("/chief", 200),
        ("/both", 401),
        ("/guard", 200),
        ("/group/user", 401),
        ("/group/chief", 200),
    ] {
        assert_eq!(client.get(path).send().status(), status, "{path}");
    }
    let told = two_kinds(|app| {
        app.get("/pay", || "paid").require_recent(minute);
    });
    let error = told.err().unwrap().to_string();
    for part in [
        "tests/logins.rs:",
        "this asks for none of the users of keywords user, chief",
        "ask for that user, as in .require(|_: &User| true)",
    ] {
        assert!(error.contains(part), "{error}");
    }
    let mut none = App::new();
    none.install(SessionPlugin::new().in_memory()).unwrap();
    none.get("/pay", || "paid").require_recent(minute);
    let error = none.build().err().unwrap().to_string();
    assert!(error.contains("require_recent needs a LoginPlugin"), "{error}");
}

#[test]
fn the_memory_store_forgets_what_it_loses() {
    let subject = Memory::new();
    let (store, none) = (subject.store(), Changes::default());
    for _ in 0..3 {
        let id = fresh_id(store.id_format());
        let save = Save::new(&id, Action::Create, &none, IDLE);
        store.save(&Save { login: Some(LogIn::new("ada")), ..save }).unwrap();
    }
    assert_eq!(store.devices("ada", None).unwrap().len(), 3);
    subject.advance(Duration::from_secs(7200));
    assert_eq!(store.devices("ada", None).unwrap(), []);
    assert_eq!(store.end_devices("ada", EndDevices::All).unwrap(), 0);
}

/// The names of all functions in the sources below this folder.
fn functions(folder: &std::path::Path, found: &mut std::collections::BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            functions(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let names = text.lines().filter_map(|line| line.trim().strip_prefix("fn "));
            found.extend(names.filter_map(|name| Some(name.split_once('(')?.0.to_owned())));
        }
    }
}

#[test]
fn each_test_that_the_table_of_standards_names_is_there() {
    let page = include_str!("../src/guide/logins.md");
    let rows = page.lines().skip_while(|line| !line.starts_with("| asked for")).skip(2);
    let rows: Vec<_> = rows.take_while(|line| line.starts_with('|')).collect();
    assert!(rows.len() >= 15, "{rows:?}");
    let (root, mut found) = (env!("CARGO_MANIFEST_DIR"), std::collections::BTreeSet::new());
    for folder in ["src", "tests"] {
        functions(&std::path::Path::new(root).join(folder), &mut found);
    }
    for row in rows {
        let tests = row.trim_end_matches([' ', '|']).rsplit_once('|').unwrap().1;
        let named: Vec<_> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "{row}");
        for name in named {
            assert!(found.contains(name), "there is no test {name}: {row}");
        }
    }
}
