//! Parts of an app: groups and mounted apps, and what they inherit.

use bottle_session::{Own, Session, SessionPlugin};

use super::*;

struct Greeting(&'static str);

impl Provided for Greeting {}

fn greeting(greeting: &Greeting) -> String {
    greeting.0.to_owned()
}

/// An app that has everything, around this one.
fn around(inner: App, isolated: bool) -> Result<TestClient> {
    let mut app = App::new();
    app.install(Counting::new("n", 0))?;
    app.state(Greeting("hello"));
    app.state(Own(7u8));
    app.provide(|n: &mut Number, state: &Own<u8>| Own(format!("{} {}", n.0, state.0)));
    app.before(|request: &Request| match request.query("guard").unwrap() {
        Some(_) => Err(abort(402, "guarded")),
        None => Ok(()),
    });
    app.after_request(|response: &mut Response| {
        response.headers_mut().insert("x-after", "outer".parse().unwrap());
    });
    app.error(409, || "outer page");
    app.error(404, || "outer 404");
    app.body_limit(4);
    let mount = app.mount("/in", inner);
    if isolated {
        let _ = mount.isolated();
    }
    TestClient::new(app)
}

fn plain() -> App {
    let mut inner = App::new();
    inner.get("/clash", || abort(409, "").into_response());
    inner.post("/read", |request: &Request| request.body().map(|body| body.len().to_string()));
    inner
}

#[test]
fn a_mounted_app_inherits_all_that_the_app_around_has() {
    let mut inner = plain();
    inner.get("/all", |greeting: &Greeting, n: &mut Number, made: &Own<String>| {
        format!("{} {} {}", greeting.0, n.0, made.0)
    });
    let mut innermost = App::new();
    innermost.get("/greet", greeting);
    inner.mount("/deep", innermost);
    let client = around(inner, false).unwrap();
    assert_eq!(client.get("/in/all").send().text(), "hello 1 1 7");
    assert_eq!(client.get("/in/deep/greet").send().text(), "hello");
    assert_eq!(client.get("/in/all?guard=1").send().status(), 402);
    assert_eq!(client.get("/in/all").send().header("x-after"), Some("outer"));
    assert_eq!(client.get("/in/clash").send().text(), "outer page");
    assert_eq!(client.get("/in/nowhere").send().text(), "outer 404");
    assert_eq!(client.post("/in/read").body("12345").send().status(), 413);
}

#[test]
fn an_isolated_app_inherits_nothing() {
    let client = around(plain(), true).unwrap();
    assert_eq!(client.get("/in/clash?guard=1").send().status(), 409);
    assert_eq!(client.get("/in/clash").send().header("x-after"), None);
    assert!(client.get("/in/clash").send().text().contains("409 Conflict"));
    assert!(client.get("/in/nowhere").send().text().contains("404 Not Found"));
    assert_eq!(client.post("/in/read").body("12345").send().text(), "5");
    let asks = |ask: fn(&mut App)| {
        let mut inner = App::new();
        ask(&mut inner);
        around(inner, true).unwrap_err().to_string()
    };
    for error in [
        asks(|app| {
            app.get("/", greeting);
        }),
        asks(|app| {
            app.get("/", |n: &mut Number| n.0.to_string());
        }),
        asks(|app| {
            app.get("/", |made: &Own<String>| made.0.clone());
        }),
    ] {
        assert!(error.contains("which no installed plugin, provider or state provides"), "{error}");
    }
}

#[test]
fn what_the_inner_app_has_itself_goes_before() {
    let mut inner = plain();
    inner.install(Counting::new("n", 100)).unwrap();
    inner.state(Greeting("hi"));
    inner.error(404, || "inner 404");
    inner.body_limit(8);
    inner.after_request(|response: &mut Response| {
        response.headers_mut().insert("x-after", "inner".parse().unwrap());
    });
    // The provider of the app around is made of what holds here.
    inner.get("/all", |greeting: &Greeting, n: &mut Number, made: &Own<String>| {
        format!("{} {} {}", greeting.0, n.0, made.0)
    });
    let client = around(inner, false).unwrap();
    assert_eq!(client.get("/in/all").send().text(), "hi 101 101 7");
    assert_eq!(client.get("/in/nowhere").send().text(), "inner 404");
    assert_eq!(client.get("/nowhere").send().text(), "outer 404");
    assert_eq!(client.get("/in/clash").send().text(), "outer page");
    assert_eq!(client.post("/in/read").body("12345678").send().text(), "8");
    // The app around comes last.
    assert_eq!(client.get("/in/all").send().header("x-after"), Some("outer"));
    let mut inner = App::new();
    inner.provide(|| Own("mine".to_owned()));
    inner.get("/", |made: &Own<String>| made.0.clone());
    assert_eq!(around(inner, false).unwrap().get("/in/").send().text(), "mine");
}

#[test]
fn a_session_plugin_of_the_same_keyword_takes_the_place_of_the_outer_one() {
    let mut inner = App::new();
    inner.install(SessionPlugin::new().in_memory().cookie_name("inner")).unwrap();
    inner.get("/set", |session: &mut Session| session.set("a", "1"));
    let client = client(|app| {
        app.install(SessionPlugin::new().in_memory().cookie_name("outer")).unwrap();
        app.get("/set", |session: &mut Session| session.set("a", "1"));
        app.mount("/in", inner);
    });
    client.get("/in/set").send();
    assert_eq!((client.cookie("outer"), client.cookie("inner").is_some()), (None, true));
    client.get("/set").send();
    assert!(client.cookie("outer").is_some());
    // The same cookie under another keyword would be two sessions in one.
    let error = build_error(|app| {
        app.install(SessionPlugin::new().in_memory()).unwrap();
        let mut inner = App::new();
        inner.install(SessionPlugin::new().in_memory().keyword("own")).unwrap();
        app.mount("/in", inner);
    });
    assert!(error.contains("cannot have cookie \"bottle.session\""), "{error}");
    assert!(error.contains("(at tests/app/parts.rs:"), "{error}");
}

#[test]
fn a_plugin_without_a_keyword_is_replaced_by_name() {
    struct Marking(&'static str);
    impl Plugin for Marking {
        fn name(&self) -> &str {
            "marking"
        }
        fn apply(&self, callback: Callback, _: &Route) -> Callback {
            let mark = self.0;
            Callback::new(move |exchange| {
                let mut response = callback.call(exchange);
                response.headers_mut().append("x-mark", mark.parse().unwrap());
                response
            })
        }
    }
    let marks = |client: &TestClient, path: &str| {
        let response = client.get(path).send();
        let marks = response.headers().get_all("x-mark").iter();
        marks.map(|mark| mark.to_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let client = client(|app| {
        app.install(Marking("outer")).unwrap();
        app.group("/inherits", |group| {
            group.get("/", || "x");
            group.get("/skips", || "x").skip("marking");
        });
        app.group("/own", |group| -> Result<()> {
            group.install(Marking("inner"))?;
            group.get("/", || "x");
            Ok(())
        });
    });
    assert_eq!(marks(&client, "/inherits/"), ["outer"]);
    assert_eq!(marks(&client, "/inherits/skips"), [] as [&str; 0]);
    assert_eq!(marks(&client, "/own/"), ["inner"]);
}

#[test]
fn what_fails_in_a_group_is_an_error_when_the_app_is_built() {
    let error = build_error(|app| {
        app.group("/own", |group| -> Result<()> {
            group.install(Counting::new("n", 0))?;
            group.install(Counting::new("n", 0))?;
            Ok(())
        });
    });
    assert!(error.contains("cannot have keyword \"n\""), "{error}");
    assert!(error.contains("(at tests/app/parts.rs:"), "{error}");
}

#[test]
fn an_error_page_answers_for_all_below_its_prefix() {
    let mut shop = App::new();
    shop.get("/item/<id:int>", |id: i64| id.to_string());
    shop.error(404, || "shop 404");
    shop.error(405, || "shop 405");
    let mut admin = App::new();
    admin.error(404, || "admin 404");
    admin.get("/users", || "users");
    shop.mount("/admin", admin);
    let mut user = App::new();
    user.error(404, |error: &HttpError| format!("user {}", error.status().as_u16()));
    user.get("/profile", || "profile");
    let client = client(|app| {
        app.error_default(|error: &HttpError| format!("outer {}", error.status().as_u16()));
        app.mount("/shop", shop);
        app.mount("/u/<name>", user);
        app.get("/shopping", || "shopping");
    });
    for (method, path, expected) in [
        ("GET", "/shop", "shop 404"),
        ("GET", "/shop/", "shop 404"),
        ("GET", "/shop/nowhere/at/all", "shop 404"),
        ("GET", "/%73hop/nowhere", "shop 404"),
        ("POST", "/shop/item/7", "shop 405"),
        ("GET", "/shop/item/x", "shop 404"),
        ("GET", "/shop/admin", "admin 404"),
        ("GET", "/shop/admin/x", "admin 404"),
        ("GET", "/shop/adminx", "shop 404"),
        ("POST", "/shop/admin/users", "shop 405"),
        ("GET", "/u/ada/x", "user 404"),
        ("GET", "/u/ada", "user 404"),
        ("GET", "/u", "outer 404"),
        ("GET", "/shopping/x", "outer 404"),
        ("GET", "/shopx", "outer 404"),
        ("POST", "/shopping", "outer 405"),
    ] {
        let response = client.request(method.parse().unwrap(), path).send();
        assert_eq!(response.text(), expected, "{method} {path}");
    }
}

#[test]
fn the_rule_of_a_slash_is_found_without_it() {
    let mut admin = App::new();
    admin.get("/", |request: &Request| format!("admin at {}", request.mount_path()));
    admin.post("/", || "posted");
    let mut own = App::new();
    own.get("/", || "with");
    own.get("", || "without");
    own.post("/", || "posted");
    let mut user = App::new();
    user.get("/", |request: &Request, name: &str| format!("{name} at {}", request.mount_path()));
    let client = client(|app| {
        app.mount("/admin/", admin);
        app.mount("/own", own);
        app.mount("/u/<name>", user);
        app.mount("/taken", {
            let mut taken = App::new();
            taken.get("/", || "mounted");
            taken
        });
        app.get("/taken", || "outer");
        app.get("/<:path>", || "anything");
    });
    for (method, path, expected) in [
        ("GET", "/admin", "admin at /admin"),
        ("GET", "/admin/", "admin at /admin"),
        ("GET", "/%61dmin", "admin at /%61dmin"),
        ("POST", "/admin", "posted"),
        ("GET", "/own", "without"),
        ("GET", "/own/", "with"),
        ("POST", "/own", "posted"),
        ("GET", "/u/ada/", "ada at /u/ada"),
        ("GET", "/taken", "outer"),
        ("GET", "/taken/", "mounted"),
        ("GET", "/other", "anything"),
    ] {
        let response = client.request(method.parse().unwrap(), path).send();
        assert_eq!(response.text(), expected, "{method} {path}");
    }
}

#[test]
fn a_request_knows_where_its_app_is_mounted() {
    let told = |request: &Request| format!("{:?} {}", request.mount_path(), request.url());
    let mut deep = App::new();
    deep.get("/x", told);
    let mut inner = App::new();
    inner.get("/x", told);
    inner.mount("/deep/<n:int>", deep);
    let client = client(|app| {
        app.get("/x", told);
        app.mount("/in", inner);
    });
    for (path, expected) in [
        ("/x?a=1", "\"\" http://localhost/x?a=1"),
        ("/in/x", "\"/in\" http://localhost/in/x"),
        ("/in/deep/7/x", "\"/in/deep/7\" http://localhost/in/deep/7/x"),
    ] {
        assert_eq!(client.get(path).send().text(), expected, "{path}");
    }
}
