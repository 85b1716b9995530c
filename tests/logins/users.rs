//! The user as an argument: who may go on, and who is sent to the login page.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bottle_session::http::Method;
use bottle_session::{
    App, Error, HttpError, LoginPlugin, MemoryStore, Provided, Request, Result, Session,
    SessionPlugin, TestClient, named, redirect_back,
};

use super::{COOKIE, another, text};

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
        "tests/logins/users.rs:",
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
        "tests/logins/users.rs:",
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
