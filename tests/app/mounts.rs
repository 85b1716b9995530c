//! Apps inside apps.

use super::*;

#[test]
fn a_mounted_app_keeps_its_plugins_hooks_and_pages() {
    let mut shop = App::new();
    shop.install(Counting::new("counter", 100)).unwrap();
    shop.get("/", || "shop");
    shop.get("/item/<id:int>", |id: u32, n: &mut Number| format!("{id} {}", n.0)).name("item");
    shop.get("/gone", || abort(410, "").into_response());
    shop.error(410, || "sold out");
    shop.before_request(|request: &mut Request| match request.query("stop").unwrap() {
        Some(_) => Err(abort(402, "pay")),
        None => Ok(()),
    });
    let client = client(|app| {
        app.install(Counting::new("counter", 0)).unwrap();
        app.get("/", |n: &mut Number| n.0.to_string());
        app.error(404, || "lost");
        app.mount("/shop", shop);
    });
    assert_eq!(client.get("/").send().text(), "1");
    assert_eq!(client.get("/shop/item/5").send().text(), "5 101");
    assert_eq!(client.get("/shop/").send().text(), "shop");
    assert_eq!(client.get("/shop/gone").send().text(), "sold out");
    assert_eq!(client.get("/shop/nothing").send().text(), "lost");
    assert_eq!(client.get("/shop/?stop=1").send().status(), 402);
    assert_eq!(client.get("/?stop=1").send().status(), 200);
    assert_eq!(client.service().url("item", &[("id", "7")]).unwrap(), "/shop/item/7");
}

#[test]
fn a_prefix_is_a_rule_of_the_app_around() {
    let mut inner = App::new();
    inner.get("/<n:int>", |color: &str, n: i64| format!("{color} {n}"));
    let mut app = App::new();
    app.filter("id", |_| Filter::regex("[0-9a-f]+"));
    app.filter("color", |_| Filter::regex("red"));
    app.mount("/c/<color:color>", inner);
    let mut inner = App::new();
    inner.filter("id", |_| Filter::regex("[xyz]+"));
    inner.get("/<own:id>", |id: &str, own: &str| format!("{id} {own}")).name("inner");
    inner.get("", |id: &str| format!("{id} itself"));
    app.mount("/<id:id>/", inner);
    assert_eq!(app.url("inner", &[("id", "ff"), ("own", "xx")]).unwrap(), "/ff/xx");
    let client = TestClient::new(app).unwrap();
    for (path, expected) in [("/c/red/5", "red 5"), ("/ff/xyz", "ff xyz"), ("/ff", "ff itself")] {
        assert_eq!(client.get(path).send().text(), expected, "{path}");
    }
    for path in ["/c/blue/5", "/ff/ff", "/xx/xx", "/ff/"] {
        assert_eq!(client.get(path).send().status(), 404, "{path}");
    }
}

#[test]
fn what_cannot_be_mounted_is_said() {
    let mounted = |prefix: &'static str, rule: &'static str| {
        build_error(move |app| {
            let mut inner = App::new();
            inner.get(rule, || "x");
            app.mount(prefix, inner);
        })
    };
    for (prefix, rule, expected) in [
        ("/shop", "item", "a rule starts with a slash in rule \"item\", column 1"),
        ("shop", "/item", "a rule starts with a slash in rule \"shop\", column 1"),
        ("/", "", "a rule starts with a slash in rule \"\", column 1"),
        ("/<a", "/b>", "a wildcard without its >"),
        ("/<a>", "/<a>", "a second wildcard named \"a\" in rule \"/<a>\", column 3"),
        ("/<a:hax>", "/", "unknown filter \"hax\" in rule \"/<a:hax>\", column 5"),
    ] {
        let error = mounted(prefix, rule);
        assert!(error.contains(expected), "{prefix} {rule}: {error}");
        assert!(error.contains("(at tests/app/mounts.rs:"), "{error}");
    }
}

#[test]
fn a_mounted_app_keeps_its_body_limit() {
    fn reads(app: &mut App) {
        app.post("/read", |request: &Request| -> Result<String> {
            Ok(request.body()?.len().to_string())
        });
    }
    let mut small = App::new();
    small.body_limit(4);
    reads(&mut small);
    small.post("/own", |request: &Request| request.body().map(|_| "x")).body_limit(9);
    let mut inherits = App::new();
    reads(&mut inherits);
    small.mount("/inner", inherits);
    let client = client(|app| {
        app.body_limit(8);
        reads(app);
        app.mount("/small", small);
    });
    for (path, length, status) in [
        ("/read", 8, 200),
        ("/read", 9, 413),
        ("/small/read", 4, 200),
        ("/small/read", 5, 413),
        ("/small/own", 9, 200),
        ("/small/inner/read", 4, 200),
        ("/small/inner/read", 5, 413),
    ] {
        let body = "x".repeat(length);
        assert_eq!(client.post(path).body(body).send().status(), status, "{path} {length}");
    }
}

#[test]
fn a_mounted_app_guards_all_spellings_of_its_paths() {
    let mut admin = App::new();
    admin.before_request(|_: &mut Request| Err::<(), _>(abort(403, "no")));
    admin.get("/<p:path>", |_: &str| "secret");
    let client = client(|app| {
        app.mount("/admin", admin);
        app.get("/open", || "open");
    });
    for path in ["/admin/x", "/%61dmin/x", "/admin/%2e%2e/open", "/admin/..%2Fopen", "/admin//x"] {
        assert_eq!(client.get(path).send().status(), 403, "{path}");
    }
    for path in ["//admin/x", "/./admin/x", "/admin%2Fx", "/admin;/x", "/admin%00/x", "/ADMIN/x"] {
        assert_eq!(client.get(path).send().status(), 404, "{path}");
    }
    assert_eq!(client.get("/open").send().text(), "open");
}

#[test]
fn mounted_routes_are_declared_where_they_are_mounted() {
    let numbered = |name: &'static str| {
        let mut inner = App::new();
        inner.install(Counting::new("counter", 0)).unwrap();
        inner.get("/<id>", move |id: &str, n: &mut Number| format!("{name} {id} {}", n.0 > 0));
        inner
    };
    let client = client(|app| {
        app.install(Counting::new("counter", 0)).unwrap();
        app.get("/early/<id:int>", |id: i64, n: &mut Number| format!("own {id} {}", n.0 > 0));
        app.mount("/early", numbered("early"));
        app.get("/<p:path>", |p: &str| p.to_owned()).apply(Counting::new("own", 0));
        app.mount("/late", numbered("late"));
    });
    for (path, expected) in [
        ("/early/5", "own 5 true"),
        ("/early/x", "early x true"),
        ("/late/x", "late/x"),
        ("/other", "other"),
    ] {
        assert_eq!(client.get(path).send().text(), expected, "{path}");
    }
}
