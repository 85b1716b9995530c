//! Plugins, filters and handlers that clash, fail or break their word.

use super::*;

#[test]
fn what_is_put_onto_an_error_is_on_its_page() {
    struct Marking;
    impl Plugin for Marking {
        fn name(&self) -> &str {
            "marking"
        }
        fn apply(&self, callback: Callback, _: &Route) -> Callback {
            Callback::new(move |exchange| {
                let response = callback.call(exchange).with_header("x-marked", "yes");
                response.with_header("content-type", "image/png")
            })
        }
    }
    let client = client(|app| {
        app.install(Marking).unwrap();
        app.get("/ok", || "x");
        app.get("/fails", || "x".parse::<u8>().map(|n| n.to_string()));
        app.get("/aborts", || abort(403, "no").into_response().with_cookie(("a", "1")));
        app.get("/owns", || {
            abort(418, "").with_header("content-type", "text/x-own").into_response()
        });
    });
    for (path, status, content_type) in [
        ("/ok", 200, "image/png"),
        ("/fails", 500, "text/html; charset=utf-8"),
        ("/aborts", 403, "text/html; charset=utf-8"),
        ("/owns", 418, "text/x-own"),
    ] {
        let response = client.get(path).send();
        assert_eq!(
            (response.status(), response.header("x-marked")),
            (status, Some("yes")),
            "{path}"
        );
        assert_eq!(response.header("content-type"), Some(content_type), "{path}");
    }
    assert_eq!(client.cookie("a").as_deref(), Some("1"));
}

#[test]
fn a_keyword_is_had_once_on_a_route_whatever_came_first() {
    let own_then_apps = |set: fn(bottle_session::RouteOptions<'_>)| {
        let mut app = App::new();
        let route = app.get("/", named!(|n: &mut Number| n.0.to_string()));
        set(route.apply(Counting::new("n", 10)));
        app.install(Counting::new("n", 0)).unwrap();
        TestClient::new(app)
    };
    let error = own_then_apps(|_| ()).unwrap_err().to_string();
    assert!(error.contains("cannot have keyword \"n\", which plugin \"counting\" has"), "{error}");
    let client = own_then_apps(|route| {
        let _ = route.skip_keyword("n");
    })
    .unwrap();
    assert_eq!(client.get("/").send().text(), "11");
    let apps_then_own = build_error(|app| {
        app.install(Counting::new("n", 0)).unwrap();
        app.get("/", || "x").apply(Counting::new("n", 0));
    });
    assert!(apps_then_own.contains("cannot have keyword \"n\""), "{apps_then_own}");
    let own_twice = build_error(|app| {
        app.get("/", || "x").apply(Counting::new("n", 0)).apply(Counting::new("n", 0));
    });
    assert!(own_twice.contains("cannot have keyword \"n\""), "{own_twice}");
}

/// A plugin that does not keep its word, in a way that the query names.
struct Unreliable;

impl Plugin for Unreliable {
    fn name(&self) -> &str {
        "unreliable"
    }

    fn provides(&self) -> Option<Provision> {
        Some(Provision::of::<Number>("n"))
    }

    fn apply(&self, callback: Callback, _: &Route) -> Callback {
        Callback::new(move |exchange| match exchange.request().query("how").unwrap().as_deref() {
            Some("swallow") => {
                let request = Request::new(Method::GET, "/elsewhere".parse().unwrap());
                let mut swallowed = std::mem::replace(exchange, Exchange::new(request));
                callback.call(&mut swallowed)
            }
            Some("twice") => {
                let first = callback.call(exchange).into_bytes().unwrap();
                let second = callback.call(exchange).into_bytes().unwrap();
                Response::bytes([first, second].concat())
            }
            Some("never") => Response::text("never called"),
            _ => callback.call(exchange),
        })
    }

    fn acquire(&self, batch: &mut Batch<'_>) {
        for mut entry in batch.iter_mut() {
            match entry.request().query("how").unwrap().as_deref() {
                Some("nothing") => {}
                Some("other") => entry.put(Other),
                Some("panic") => panic!("on purpose"),
                _ => entry.put(Number(7)),
            }
        }
    }

    fn release(&self, batch: &mut Batch<'_>) {
        for mut entry in batch.iter_mut() {
            assert!(entry.request().query("how").unwrap().as_deref() != Some("late"), "on purpose");
            assert!(entry.take::<Other>().is_none() || entry.get_mut::<Number>().is_none());
            if let Some(number) = entry.take::<Number>() {
                entry.head_mut().set_header("x-number", number.0).unwrap();
            }
        }
    }
}

struct Other;

impl Provided for Other {}

#[test]
fn a_plugin_that_breaks_its_word_harms_that_request_alone() {
    let client = client(|app| {
        app.install(Unreliable).unwrap();
        app.get("/", |n: &mut Number| n.0.to_string());
        app.get("/option", |n: Option<&mut Number>| format!("{:?}", n.map(|n| n.0)));
    });
    for (target, status, text, number) in [
        ("/", 200, "7", Some("7")),
        ("/?how=nothing", 500, "", None),
        ("/?how=other", 500, "", None),
        ("/?how=panic", 500, "", None),
        ("/?how=late", 500, "", None),
        ("/?how=swallow", 200, "7", None),
        ("/?how=twice", 200, "77", Some("7")),
        ("/?how=never", 200, "never called", Some("7")),
        ("/option?how=nothing", 200, "None", None),
        ("/option?how=other", 200, "None", None),
        ("/option", 200, "Some(7)", Some("7")),
    ] {
        let response = client.get(target).send();
        assert_eq!((response.status(), response.header("x-number")), (status, number), "{target}");
        match status {
            200 => assert_eq!(response.text(), text, "{target}"),
            _ => assert!(!response.text().contains("purpose"), "{target}"),
        }
    }
}

#[test]
fn a_filter_or_a_type_that_panics_is_a_500() {
    struct Touchy;
    impl std::str::FromStr for Touchy {
        type Err = std::convert::Infallible;
        fn from_str(text: &str) -> std::result::Result<Touchy, Self::Err> {
            assert!(text != "bad", "on purpose");
            Ok(Touchy)
        }
    }
    let client = client(|app| {
        app.filter("touchy", |_| {
            Ok(Filter::regex("[a-z]+")?.parse(|text| {
                assert!(text != "bad", "on purpose");
                Some(text.to_owned())
            }))
        });
        app.get("/f/<x:touchy>", |x: &str| x.to_owned());
        app.get("/t/<x>", |_: Wildcard<Touchy>| "fine");
        app.get("/<p:path>", || "any");
    });
    for (path, status) in
        [("/f/bad", 500), ("/f/good", 200), ("/t/bad", 500), ("/t/good", 200), ("/x/bad", 200)]
    {
        assert_eq!(client.get(path).send().status(), status, "{path}");
    }
}

#[test]
fn an_app_that_cannot_be_built_closes_its_plugins() {
    let log = Arc::default();
    let mut app = App::new();
    app.install(Counting::logging("n", &log)).unwrap();
    app.get("/<", || "x");
    assert!(app.build().is_err());
    assert_eq!(*log.lock().unwrap(), ["n closes"]);
}

#[test]
fn what_a_plugin_set_on_the_head_survives_a_panic() {
    struct Securing;
    impl Plugin for Securing {
        fn name(&self) -> &str {
            "securing"
        }
        fn apply(&self, callback: Callback, _: &Route) -> Callback {
            Callback::new(move |exchange| {
                exchange.head_mut().set_header("x-frame-options", "DENY").unwrap();
                callback.call(exchange)
            })
        }
    }
    let client = client(|app| {
        app.install(Securing).unwrap();
        app.get("/without", || -> String { panic!("on purpose") });
        app.get("/with", |head: &mut ResponseHead| -> String {
            head.set_header("x-half-done", "1").unwrap();
            panic!("on purpose")
        });
        app.get("/removes", |head: &mut ResponseHead| {
            head.headers_mut().remove("x-frame-options");
            head.set_header("x-done", "1")
        });
    });
    for (path, status, frames) in
        [("/without", 500, Some("DENY")), ("/with", 500, Some("DENY")), ("/removes", 200, None)]
    {
        let response = client.get(path).send();
        assert_eq!(
            (response.status(), response.header("x-frame-options")),
            (status, frames),
            "{path}"
        );
        assert_eq!(response.header("x-half-done"), None);
    }
}

#[test]
fn what_would_have_no_effect_is_an_error_when_the_app_is_built() {
    let with_plugin = |set: fn(&mut App)| {
        build_error(|app| {
            app.install(Counting::new("n", 0)).unwrap();
            set(app);
        })
    };
    for (error, expected) in [
        (
            with_plugin(|app| {
                app.get("/x", || "x").skip("typo");
            }),
            "route /x skips what is not there: plugin \"typo\"; known: counting (at tests/app/misuse.rs:",
        ),
        (
            with_plugin(|app| {
                app.get("/x", || "x").skip_keyword("counting");
            }),
            "route /x skips what is not there: keyword \"counting\"; known: n (at tests/app/misuse.rs:",
        ),
        (
            build_error(|app| {
                app.get("/x", || "x").skip("csrf");
            }),
            "route /x skips what is not there: plugin \"csrf\"; known: none (at tests/app/misuse.rs:",
        ),
        (
            build_error(|app| {
                app.error(200, || "fine");
            }),
            "200 OK is no error, so its page would never be shown; an error page is for a status of 400 to 599 \
             (at tests/app/misuse.rs:",
        ),
        (
            build_error(|app| {
                app.get("/<id:float>", |id: i64| id.to_string());
            }),
            "route /<id:float>: argument 1 takes wildcard <id>, whose filter is float, and reads no number with a \
             point; make it an f64, or write <id:int> (at tests/app/misuse.rs:",
        ),
        (
            build_error(|app| {
                app.get("/<id:float>", named!(|id: Option<u8>| format!("{id:?}")));
            }),
            "argument \"id\" takes wildcard <id>, whose filter is float",
        ),
    ] {
        assert!(error.contains(expected), "{error}");
    }
    let client = client(|app| {
        app.get("/f/<x:float>", |x: f64| x.to_string());
        app.get("/s/<x:float>", |x: &str| x.to_owned());
    });
    for (path, text) in [("/f/1.5", "1.5"), ("/s/1.50", "1.50")] {
        assert_eq!(client.get(path).send().text(), text);
    }
}
