//! Guards, after-request hooks and error pages: they take what handlers take.

use bottle_session::{Error, ErrorKind, Session, SessionPlugin};

use super::*;

type Seen = Arc<Mutex<Vec<String>>>;

fn told(seen: &Seen) -> Vec<String> {
    std::mem::take(&mut *seen.lock().unwrap())
}

/// Tells what an after-request hook sees.
fn watch(app: &mut App, seen: &Seen) {
    let seen = seen.clone();
    app.after_request(move |request: &Request, response: &Response| {
        let error = response.error().map(|error| {
            let cause = error.cause().map_or("-".to_owned(), ToString::to_string);
            format!("{} {:?} {cause}", error.status().as_u16(), error.message())
        });
        let line = format!("{} {} {error:?}", request.path(), response.status().as_u16());
        seen.lock().unwrap().push(line);
    });
}

#[test]
fn hooks_run_around_every_request() {
    let client = client(|app| {
        app.before_request(|request: &mut Request| {
            if request.path() == "/old" {
                request.set_target("/new".parse().unwrap());
            }
        });
        app.before_request(|request: &mut Request| match request.path() {
            "/secret" => Err(abort(403, "no")),
            _ => Ok(()),
        });
        app.after_request(|response: &mut Response| {
            response.headers_mut().insert("x-after", "1".parse().unwrap());
        });
        app.get("/new", || "new");
        app.get("/secret", || "secret");
    });
    let moved = client.get("/old").send();
    assert_eq!((moved.text().as_str(), moved.header("x-after")), ("new", Some("1")));
    let refused = client.get("/secret").send();
    assert_eq!((refused.status(), refused.header("x-after")), (403, Some("1")));
    assert_eq!(client.get("/nowhere").send().header("x-after"), Some("1"));
}

#[test]
fn after_request_hooks_run_the_last_one_first() {
    let mut inner = App::new();
    inner.get("/", || "x");
    inner.after_request(|response: &mut Response| note(response, "inner"));
    fn note(response: &mut Response, what: &'static str) {
        response.headers_mut().append("x-order", what.parse().unwrap());
    }
    let client = client(|app| {
        app.after_request(|response: &mut Response| note(response, "first"));
        app.after_request(|response: &mut Response| note(response, "second"));
        app.mount("/in", inner);
    });
    let response = client.get("/in/").send();
    let order: Vec<_> = response.headers().get_all("x-order").iter().collect();
    assert_eq!(order, ["inner", "second", "first"]);
}

#[test]
fn one_hook_sees_every_error_with_its_cause() {
    let seen = Seen::default();
    for with_pages in [false, true] {
        let mut inner = App::new();
        inner.get("/fails", || "y".parse::<u8>().map(|n| n.to_string()));
        let client = client(|app| {
            watch(app, &seen);
            if with_pages {
                app.error(403, || "forbidden page");
                app.error_default(|error: &HttpError| format!("page for {}", error.status()));
            }
            app.install(Counting::new("n", 0)).unwrap();
            app.get("/fine", || "x");
            app.get("/aborts", || abort(403, "no").into_response());
            app.get("/fails", || "x".parse::<u8>().map(|n| n.to_string()));
            app.get("/panics", || -> String { panic!("on purpose") });
            app.get("/refused", |n: &mut Number| n.0.to_string());
            app.get("/redirects", || redirect("/fine"));
            app.get("/form", |Query(page): Query<Page>| page.number.to_string());
            app.mount("/inner", inner);
        });
        for (path, expected) in [
            ("/fine", "/fine 200 None"),
            ("/redirects", "/redirects 303 None"),
            ("/aborts", r#"/aborts 403 Some("403 \"no\" -")"#),
            ("/fails", r#"/fails 500 Some("500 \"\" invalid digit found in string")"#),
            (
                "/panics",
                r#"/panics 500 Some("500 \"\" its handler, a hook or a filter panicked: on purpose")"#,
            ),
            ("/refused?refuse=1", r#"/refused 503 Some("503 \"\" -")"#),
            ("/nowhere", r#"/nowhere 404 Some("404 \"\" -")"#),
            ("/inner/fails", r#"/inner/fails 500 Some("500 \"\" invalid digit found in string")"#),
            ("/inner/nowhere", r#"/inner/nowhere 404 Some("404 \"\" -")"#),
            ("/%FF", r#"/%FF 400 Some("400 \"The path is not percent-encoded UTF-8.\" -")"#),
        ] {
            let response = client.get(path).send();
            assert_eq!(told(&seen), [expected], "{path}");
            if with_pages && response.status() >= 400 {
                assert!(response.text().contains("page"), "{path}: {}", response.text());
            }
        }
        let response = client.post("/fine").send();
        assert_eq!(response.status(), 405);
        assert_eq!(told(&seen), [r#"/fine 405 Some("405 \"\" -")"#]);
    }
}

#[test]
fn a_hook_sees_what_fails_when_plugins_release() {
    struct Failing;
    impl Plugin for Failing {
        fn name(&self) -> &str {
            "failing"
        }
        fn provides(&self) -> Option<Provision> {
            Some(Provision::of::<Number>("n"))
        }
        fn acquire(&self, batch: &mut Batch<'_>) {
            batch.iter_mut().for_each(|mut entry| entry.put(Number(1)));
        }
        fn release(&self, batch: &mut Batch<'_>) {
            for mut entry in batch.iter_mut() {
                entry.take::<Number>();
                let error = Error::new(ErrorKind::Unavailable, "the store is down");
                entry.replace(HttpError::from(error).into_response());
            }
        }
    }
    let seen = Seen::default();
    let early = Seen::default();
    let own = early.clone();
    let client = client(|app| {
        app.install(Failing).unwrap();
        watch(app, &seen);
        // It asks for what is released, and so runs before.
        app.after_request(move |n: Option<&Number>, response: &Response| {
            own.lock().unwrap().push(format!("{} {}", response.status(), n.is_some()));
        });
        app.error(503, |n: Option<&Number>| format!("sorry, {}", n.is_some()));
        app.get("/", |_: &mut Number| "fine");
    });
    let response = client.get("/").send();
    // The page can do without, and nothing is there any more.
    assert_eq!((response.status(), &*response.text()), (503, "sorry, false"));
    assert_eq!(told(&seen), [r#"/ 503 Some("503 \"\" the store is down")"#]);
    assert_eq!(told(&early), ["200 OK true"]);
}

#[test]
fn guards_take_what_handlers_take() {
    let client = client(|app| {
        app.install(SessionPlugin::new().in_memory()).unwrap();
        app.get("/login/<name>", |session: &mut Session, name: &str| session.set("name", name));
        app.get("/open", || "open");
        app.group("/notes", |notes| {
            notes.before(|session: &mut Session| match session.get("name") {
                Some(_) => Ok(()),
                None => Err(redirect("/login")),
            });
            notes.get("/", || "notes");
            notes
                .get("/<owner>/<id:int>", |owner: &str, id: i64| format!("{id} of {owner}"))
                .before(named!(|owner: &str, session: &mut Session| {
                    match session.get("name") == Some(owner) {
                        true => Ok(()),
                        false => Err(abort(403, "not yours")),
                    }
                }));
        });
    });
    assert_eq!(client.get("/open").send().text(), "open");
    assert_eq!(client.get("/notes/").send().header("location"), Some("/login"));
    assert_eq!(client.get("/notes/ada/1").send().status(), 303);
    client.get("/login/ada").send();
    assert_eq!(client.get("/notes/").send().text(), "notes");
    assert_eq!(client.get("/notes/ada/1").send().text(), "1 of ada");
    assert_eq!(client.get("/notes/bob/1").send().status(), 403);
}

#[test]
fn guards_run_inside_the_plugins_and_from_the_outermost_app_on() {
    let log = Arc::<Mutex<Vec<String>>>::default();
    let guard = |name: &'static str| {
        let log = log.clone();
        move || log.lock().unwrap().push(name.to_owned())
    };
    let mut inner = App::new();
    inner.before(guard("inner"));
    inner.get("/", || "x").before(guard("route")).before(guard("route, too"));
    let client = client(|app| {
        app.install(Counting::logging("n", &log)).unwrap();
        app.before(guard("outer"));
        app.before(guard("outer, too"));
        app.mount("/in", inner).before(guard("mount"));
        app.get("/out", || "x");
    });
    client.get("/in/").send();
    let expected = ["n wraps", "outer", "outer, too", "mount", "inner", "route", "route, too"];
    assert_eq!(told(&log), expected);
    client.get("/out").send();
    assert_eq!(told(&log), ["n wraps", "outer", "outer, too"]);
    // No route, no guard.
    client.get("/in/nowhere").send();
    assert!(told(&log).is_empty());
}

#[test]
fn a_guard_whose_plugin_is_skipped_is_an_error() {
    let error = build_error(|app| {
        app.install(Counting::new("n", 0)).unwrap();
        app.before(|_: Option<&Number>| ());
        app.get("/x", || "x").skip("counting");
    });
    assert!(
        error.contains("the guard: argument 1 asks for tests::app::Number, but the route skips plugin \"counting\""),
        "{error}"
    );
    assert!(error.contains("it is for route /x at tests/app/hooks.rs:"), "{error}");
}

fn with_pages(app: &mut App) {
    app.install(SessionPlugin::new().in_memory()).unwrap();
    app.get("/login/<name>", |session: &mut Session, name: &str| session.set("name", name));
    app.get("/fails", || "x".parse::<u8>().map(|n| n.to_string()));
    app.get("/fails/with", |session: &mut Session| -> std::result::Result<String, HttpError> {
        session.set("seen", "yes");
        Err(abort(500, "broken"))
    });
    app.get("/panics/with", |session: &mut Session| -> String {
        session.set("seen", "half");
        panic!("on purpose")
    });
    app.get("/seen", |session: &mut Session| session.get("seen").unwrap_or("-").to_owned());
    app.get("/home", || "home").name("home");
    app.error(404, |session: &mut Session, urls: &Urls, error: &HttpError| -> Result<String> {
        let name = session.get("name").unwrap_or("stranger").to_owned();
        Ok(format!("{} {name} {}", error.status().as_u16(), urls.build("home", &[])?))
    });
    app.error_default(|session: Option<&mut Session>| {
        session.map_or("no session".to_owned(), |session| {
            format!("{} {:?}", session.get("name").unwrap_or("stranger"), session.get("seen"))
        })
    });
}

#[test]
fn an_error_page_asks_for_the_session_and_addresses() {
    let client = client(with_pages);
    assert_eq!(client.get("/nowhere").send().text(), "404 stranger /home");
    // A page that only looks makes no session.
    assert_eq!(client.cookie("bottle.session"), None);
    client.get("/login/ada").send();
    let response = client.get("/nowhere").send();
    assert_eq!((response.status(), &*response.text()), (404, "404 ada /home"));
    // The route has not asked for the session; the page has.
    assert_eq!(client.get("/fails").send().text(), "ada None");
    // It sees what the handler changed, and that is saved, as ever.
    assert_eq!(client.get("/fails/with").send().text(), "ada Some(\"yes\")");
    assert_eq!(client.get("/seen").send().text(), "yes");
    // After a panic it sees what is stored, and what the handler changed is not saved.
    assert_eq!(client.get("/panics/with").send().text(), "ada Some(\"yes\")");
    assert_eq!(client.get("/seen").send().text(), "yes");
    assert_eq!(client.post("/home").send().text(), "ada Some(\"yes\")");
}

#[test]
fn error_pages_ask_for_sessions_of_many_in_one_batch() {
    let log = Arc::default();
    let mut app = App::new();
    app.install(Counting::logging("n", &log)).unwrap();
    app.error(404, |n: &mut Number| n.0.to_string());
    let service = app.build().unwrap();
    let request = || Request::new(Method::GET, "/nowhere".parse().unwrap());
    let mut batch: Vec<_> = (0..32).map(|_| Exchange::new(request())).collect();
    service.prepare(&mut batch);
    batch.iter_mut().for_each(|exchange| service.run(exchange));
    service.finish(&mut batch);
    let texts: Vec<_> =
        batch.into_iter().map(|e| e.into_response().into_bytes().unwrap()).collect();
    assert_eq!(texts, (1..=32).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(told(&log), ["n acquires", "n releases"]);
}

#[test]
fn a_page_asks_plugins_for_what_the_route_has_not_asked_for_and_no_more() {
    let log = Arc::default();
    let client = client(|app| {
        app.install(Counting::logging("a", &log)).unwrap();
        app.install(Counting::logging("b", &log)).unwrap();
        app.error(
            404,
            named!(|a: Option<&Number>, b: Option<&Number>| format!(
                "{:?}",
                (a.is_some(), b.is_some())
            )),
        );
        app.get(
            "/",
            named!(|a: Option<&Number>| match a {
                Some(_) => abort(404, "").into_response(),
                None => abort(404, "there is none").into_response(),
            }),
        );
    });
    let stages = || {
        let stages = told(&log);
        stages.into_iter().filter(|stage| !stage.ends_with("wraps")).collect::<Vec<_>>()
    };
    assert_eq!(client.get("/").send().text(), "(true, true)");
    assert_eq!(stages(), ["a acquires", "b acquires", "b releases", "a releases"]);
    // What was refused once is not tried again.
    assert_eq!(client.get("/?refuse=1").send().text(), "(false, false)");
    assert_eq!(stages(), ["a acquires", "b acquires"]);
}

#[test]
fn a_page_that_cannot_be_shown_hides_nothing() {
    let mut inner = App::new();
    inner.error(404, |_: &mut Number| "inner page");
    inner.get("/fails", || abort(409, "clash").into_response());
    inner.error(409, || -> String { panic!("on purpose") });
    let client = client(|app| {
        app.install(Counting::new("n", 0)).unwrap();
        app.error(404, || "outer page");
        app.error_default(|| -> Result<String> { Err(Error::new(ErrorKind::Input, "broken")) });
        app.mount("/in", inner);
    });
    assert_eq!(client.get("/in/nowhere").send().text(), "inner page");
    // The plugin has none: the page of the app around.
    let response = client.get("/in/nowhere?refuse=1").send();
    assert_eq!((response.status(), &*response.text()), (404, "outer page"));
    let response = client.get("/in/fails").send();
    assert_eq!(response.status(), 409);
    assert!(response.text().contains("clash"), "{}", response.text());
}

#[test]
fn a_page_or_a_hook_that_cannot_be_had_sends_nobody_to_the_login_page() {
    struct User;
    impl Provided for User {}
    let client = client(|app| {
        app.provide(|request: &Request| -> std::result::Result<User, HttpError> {
            match request.query("user")? {
                Some(_) => Ok(User),
                None => Err(redirect("/login").into()),
            }
        });
        app.get("/", || "public");
        app.error(404, |_: &User| "lost, dear user");
        app.error_default(|| "lost");
        app.after_request(|_: &User, response: &mut Response| {
            response.headers_mut().insert("x-user", "yes".parse().unwrap());
        });
    });
    for (path, status, text, user) in [
        ("/", 200, "public", None),
        ("/?user=1", 200, "public", Some("yes")),
        ("/nowhere", 404, "lost", None),
        ("/nowhere?user=1", 404, "lost, dear user", Some("yes")),
    ] {
        let response = client.get(path).send();
        assert_eq!((response.status(), &*response.text()), (status, text), "{path}");
        assert_eq!(response.header("x-user"), user, "{path}");
    }
}

#[test]
fn where_a_route_skips_it_a_page_does_without() {
    let with = |page: fn(&mut App)| {
        let mut app = App::new();
        app.install(Counting::new("n", 0)).unwrap();
        page(&mut app);
        app.get("/x", || abort(404, "").into_response()).skip_all();
        app
    };
    let app = with(|app| {
        app.error(404, |n: Option<&Number>| n.is_some().to_string());
    });
    let client = TestClient::new(app).unwrap();
    assert_eq!(client.get("/x").send().text(), "false");
    assert_eq!(client.get("/nowhere").send().text(), "true");
    let app = with(|app| {
        app.error(404, |n: &Number| n.0.to_string());
    });
    let error = app.build().unwrap_err().to_string();
    assert!(
        error.starts_with("the page for 404: argument 1 asks for tests::app::Number, but"),
        "{error}"
    );
    assert!(error.contains("with Option it does without there"), "{error}");
}

#[test]
fn a_hook_asks_for_the_session_and_replaces_the_answer() {
    let client = client(|app| {
        app.install(SessionPlugin::new().in_memory()).unwrap();
        app.get("/", || "x");
        app.get("/login", |session: &mut Session| session.set("name", "ada"));
        app.after_request(|session: &mut Session, response: &mut Response| {
            let name = session.get("name").unwrap_or("-").parse().unwrap();
            response.headers_mut().insert("x-name", name);
            session.set("visits", session.parse("visits").unwrap_or(0) + 1);
        });
        app.after_request(|request: &Request| match request.query("stop").unwrap() {
            Some(_) => Err(abort(451, "stopped")),
            None => Ok(()),
        });
        app.error(451, || "a page for it");
        app.get("/visits", |session: &mut Session| session.get("visits").map(str::to_owned));
    });
    client.get("/login").send();
    assert_eq!(client.get("/").send().header("x-name"), Some("ada"));
    assert_eq!(client.get("/nowhere").send().header("x-name"), Some("ada"));
    assert_eq!(client.get("/visits").send().text(), "3");
    let stopped = client.get("/?stop=1").send();
    assert_eq!((stopped.status(), &*stopped.text()), (451, "a page for it"));
}

#[test]
fn what_only_pages_and_hooks_have_is_refused_elsewhere() {
    for (error, expected) in [
        (
            build_error(|app| {
                app.get("/", |_: &HttpError| "x");
            }),
            "route /: argument 1 asks for &HttpError, which error pages, as in app.error(404, …), have alone",
        ),
        (
            build_error(|app| {
                app.before(|_: &mut Response| ());
                app.get("/", || "x");
            }),
            "the guard: argument 1 asks for &mut Response, which after-request hooks, as in app.after_request(…), \
             have alone",
        ),
    ] {
        assert!(error.contains(expected), "{error}");
        assert!(error.contains("(at tests/app/hooks.rs:"), "{error}");
    }
}
