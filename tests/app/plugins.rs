//! Plugins: their order, their stages, what they provide.

use super::*;

#[test]
fn the_first_installed_is_the_outermost() {
    let log = Arc::default();
    let mut app = App::new();
    app.install(Counting::logging("a", &log)).unwrap();
    app.install(Counting::logging("b", &log)).unwrap();
    app.get("/", named!(|b: &mut Number, a: &mut Number| format!("{} {}", a.0, b.0)));
    app.get("/only", named!(|b: &mut Number| b.0.to_string())).skip_keyword("a");
    app.get("/plain", || "plain").skip_all();
    let client = TestClient::new(app).unwrap();
    assert_eq!(client.get("/").send().text(), "1 1");
    let expected = ["a acquires", "b acquires", "a wraps", "b wraps", "b releases", "a releases"];
    assert_eq!(*log.lock().unwrap(), expected);
    log.lock().unwrap().clear();
    assert_eq!(client.get("/only").send().text(), "2");
    assert_eq!(*log.lock().unwrap(), ["b acquires", "b wraps", "b releases"]);
    log.lock().unwrap().clear();
    client.get("/plain").send();
    assert!(log.lock().unwrap().is_empty());
    drop(client);
    assert_eq!(*log.lock().unwrap(), ["a closes", "b closes"]);
}

#[test]
fn a_batch_goes_through_each_stage_together() {
    let log = Arc::default();
    let mut app = App::new();
    app.install(Counting::logging("n", &log)).unwrap();
    app.get("/", |n: &mut Number| n.0.to_string());
    app.get("/plain", || "plain");
    let service = app.build().unwrap();
    let request = |target: &str| Request::new(Method::GET, target.parse().unwrap());
    let targets = ["/", "/plain", "/?refuse=1", "/nowhere", "/"];
    let mut batch: Vec<_> = targets.iter().map(|target| Exchange::new(request(target))).collect();
    service.prepare(&mut batch);
    batch.iter_mut().for_each(|exchange| service.run(exchange));
    service.finish(&mut batch);
    let statuses: Vec<_> =
        batch.into_iter().map(|exchange| exchange.into_response().status().as_u16()).collect();
    assert_eq!(statuses, [200, 200, 503, 404, 200]);
    let wraps = log.lock().unwrap().iter().filter(|line| line.ends_with("wraps")).count();
    assert_eq!(wraps, 3);
    let stages = |stage| log.lock().unwrap().iter().filter(|l| **l == format!("n {stage}")).count();
    assert_eq!((stages("acquires"), stages("releases")), (1, 1));
}

#[test]
fn who_can_do_without_runs_without() {
    let client = client(|app| {
        app.install(Counting::new("n", 0)).unwrap();
        app.get("/needs", |n: &mut Number| n.0.to_string());
        app.get("/option", |n: Option<&mut Number>| format!("{:?}", n.map(|n| n.0)));
    });
    assert_eq!(client.get("/needs?refuse=1").send().status(), 503);
    assert_eq!(client.get("/option?refuse=1").send().text(), "None");
    assert_eq!(client.get("/option").send().text(), "Some(1)");
}

#[test]
fn a_panic_leaves_nothing_to_release() {
    let log = Arc::default();
    let client = client(|app| {
        app.install(Counting::logging("n", &log)).unwrap();
        app.get("/", |_: &mut Number| -> String { panic!("on purpose") });
        app.get("/fine", |n: &mut Number| n.0.to_string());
    });
    let response = client.get("/").send();
    assert_eq!((response.status(), response.header("x-number")), (500, None));
    assert!(!response.text().contains("on purpose"));
    assert!(!log.lock().unwrap().contains(&"n releases".to_owned()));
    assert_eq!(client.get("/fine").send().text(), "2");
}

#[test]
fn plugins_are_uninstalled_by_name_or_keyword() {
    let log = Arc::default();
    let mut app = App::new();
    for keyword in ["a", "b", "c"] {
        app.install(Counting::logging(keyword, &log)).unwrap();
    }
    assert!(app.uninstall_keyword("b"));
    assert!(!app.uninstall_keyword("b"));
    assert_eq!(app.uninstall("counting"), 2);
    assert_eq!(*log.lock().unwrap(), ["b closes", "a closes", "c closes"]);
    app.get("/", |n: &mut Number| n.0.to_string());
    let error = app.build().unwrap_err().to_string();
    assert!(error.contains("which no installed plugin, provider or state provides"), "{error}");
}

#[test]
fn plugins_for_one_route_and_typed_settings() {
    #[derive(Clone)]
    struct Limit(u32);
    struct Limiting;
    impl Plugin for Limiting {
        fn name(&self) -> &str {
            "limiting"
        }
        fn apply(&self, callback: Callback, route: &Route) -> Callback {
            match route.config::<Limit>() {
                None => callback,
                Some(limit) => {
                    let limit = limit.0.to_string();
                    Callback::new(move |exchange| {
                        callback.call(exchange).with_header("x-limit", limit.as_str())
                    })
                }
            }
        }
    }
    let client = client(|app| {
        app.install(Limiting).unwrap();
        app.get("/limited", || "x").config(Limit(5));
        app.get("/free", || "x");
        app.get("/own", |n: &mut Number| n.0.to_string()).apply(Counting::new("n", 6));
    });
    assert_eq!(client.get("/limited").send().header("x-limit"), Some("5"));
    assert_eq!(client.get("/free").send().header("x-limit"), None);
    assert_eq!(client.get("/own").send().text(), "7");
}

#[test]
fn the_same_keyword_twice_is_an_error_at_install() {
    let mut app = App::new();
    app.install(Counting::new("a", 0)).unwrap();
    let error = app.install(Counting::new("a", 0)).unwrap_err().to_string();
    assert!(error.contains("cannot have keyword \"a\", which plugin \"counting\" has"), "{error}");
    assert!(error.contains("(at tests/app/plugins.rs:"), "{error}");
}

#[test]
fn a_plugin_that_uses_another_must_find_it() {
    struct Using;
    impl Plugin for Using {
        fn name(&self) -> &str {
            "using"
        }
        fn uses(&self, _: &Route) -> Vec<String> {
            vec!["n".to_owned()]
        }
        fn apply(&self, callback: Callback, _: &Route) -> Callback {
            Callback::new(move |exchange| {
                let number = exchange.provided::<Number>("n").map_or(0, |number| number.0);
                callback.call(exchange).with_header("x-used", number.to_string())
            })
        }
    }
    let error = build_error(|app| {
        app.install(Using).unwrap();
        app.get("/", || "x");
    });
    assert!(error.contains("plugin \"using\" uses keyword \"n\", which no plugin"), "{error}");
    let client = client(|app| {
        app.install(Counting::new("n", 4)).unwrap();
        app.install(Using).unwrap();
        app.get("/", || "x");
    });
    assert_eq!(client.get("/").send().header("x-used"), Some("5"));
}
