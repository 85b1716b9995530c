//! Values that closures make of other values, and state.

use std::sync::atomic::AtomicBool;

use bottle_session::{Argument, Asked, Binder, MemoryStore, Own, Session, SessionPlugin};

use super::*;

struct Users(&'static [&'static str]);

impl Provided for Users {}

#[derive(Debug)]
struct User {
    name: String,
}

impl Provided for User {}

struct Tenant(String);

impl Provided for Tenant {}

type Log = Arc<Mutex<Vec<String>>>;

fn told(log: &Log) -> Vec<String> {
    std::mem::take(&mut *log.lock().unwrap())
}

/// The user of the session, or the way to the login page.
fn user_of(session: &mut Session, users: &Users) -> std::result::Result<User, HttpError> {
    let name = session.get("name").unwrap_or_default();
    match users.0.contains(&name) {
        true => Ok(User { name: name.to_owned() }),
        false => Err(redirect("/login").into()),
    }
}

fn with_users(app: &mut App) {
    app.install(SessionPlugin::new().in_memory()).unwrap();
    app.state(Users(&["ada", "bob"]));
    app.provide(user_of);
    app.get("/login/<name>", |session: &mut Session, name: &str| session.set("name", name));
}

#[test]
fn a_value_is_made_of_others_wherever_these_were_installed() {
    let client = client(|app| {
        // The route, then what it asks for, then what that asks for.
        app.get("/", |user: &mut User, tenant: &Tenant| format!("{} {}", user.name, tenant.0));
        app.provide(|request: &Request, user: &User| {
            Tenant(format!("{}@{}", user.name, request.host().unwrap_or_default()))
        });
        with_users(app);
    });
    assert_eq!(client.get("/").send().header("location"), Some("/login"));
    client.get("/login/ada").send();
    // The route borrows a user of whom the tenant has been made.
    assert_eq!(client.get("/").send().text(), "ada ada@localhost");
}

#[test]
fn a_session_is_found_wherever_it_stands_among_the_arguments() {
    struct Name(String);
    impl Argument for Name {
        type Plan = Asked<Session>;
        type State = Option<std::result::Result<Name, HttpError>>;
        type Item<'a> = Name;

        fn plan(binder: &mut Binder<'_>) -> Option<Asked<Session>> {
            binder.ask()
        }

        fn take(asked: &Asked<Session>, exchange: &mut Exchange) -> Self::State {
            let session = exchange.asked(asked);
            Some(session.map(|session| Name(session.get("name").unwrap_or("-").to_owned())))
        }

        fn refusal(state: &mut Self::State) -> Option<HttpError> {
            match state.take()? {
                Ok(name) => {
                    *state = Some(Ok(name));
                    None
                }
                Err(error) => Some(error),
            }
        }

        fn lend<'a>(_: &'a Asked<Session>, state: &'a mut Self::State, _: &'a Exchange) -> Name {
            state.take().and_then(std::result::Result::ok).unwrap()
        }
    }
    let with_sessions = |app: &mut App| {
        with_users(app);
        app.get("/alone", |name: Name| name.0);
        app.get("/behind", |session: &mut Session, name: Name| {
            format!("{} {}", name.0, session.is_new())
        });
        app.get("/before", |name: Name, _: &mut Session| name.0);
    };
    let client = client(with_sessions);
    client.get("/login/ada").send();
    for (path, expected) in [("/alone", "ada"), ("/behind", "ada false"), ("/before", "ada")] {
        assert_eq!(client.get(path).send().text(), expected, "{path}");
    }
    let error = build_error(|app| {
        app.get("/", |name: Name| name.0);
    });
    assert!(
        error.contains("argument 1 asks for bottle_session::Session, which no installed plugin"),
        "{error}"
    );
}

#[test]
fn an_extractor_asks_for_a_keyword() {
    struct Both(String);
    impl Argument for Both {
        type Plan = (Asked<Number>, Asked<Number>);
        type State = String;
        type Item<'a> = Both;

        fn plan(binder: &mut Binder<'_>) -> Option<Self::Plan> {
            Some((binder.ask_keyword("a")?, binder.ask_keyword("b")?))
        }

        fn take((a, b): &Self::Plan, exchange: &mut Exchange) -> String {
            let a = exchange.asked(a).unwrap().0;
            format!("{a} {}", exchange.asked(b).unwrap().0)
        }

        fn lend<'a>(_: &'a Self::Plan, state: &'a mut String, _: &'a Exchange) -> Both {
            Both(std::mem::take(state))
        }
    }
    let client = client(|app| {
        app.install(Counting::new("a", 1)).unwrap();
        app.install(Counting::new("b", 5)).unwrap();
        app.get("/", |both: Both| both.0);
    });
    assert_eq!(client.get("/").send().text(), "2 6");
    let error = build_error(|app| {
        app.install(Counting::new("a", 1)).unwrap();
        app.get("/", |both: Both| both.0);
    });
    assert!(
        error.contains("but no installed plugin has keyword \"b\"; known keywords: a"),
        "{error}"
    );
}

#[test]
fn a_value_that_nobody_has_asked_for_is_in_the_log() {
    struct Peeking;
    impl Plugin for Peeking {
        fn name(&self) -> &str {
            "peeking"
        }
        fn apply(&self, callback: Callback, _: &Route) -> Callback {
            Callback::new(move |exchange| {
                let found = exchange.provided::<Number>("n").is_some();
                callback.call(exchange).with_header("x-found", found.to_string())
            })
        }
    }
    crate::support::logs::collect_logs();
    let client = client(|app| {
        app.install(Counting::new("n", 0)).unwrap();
        app.install(Peeking).unwrap();
        app.get("/asks/for/it", |_: &mut Number| "x");
        app.get("/asks/for/nothing", || "x");
    });
    assert_eq!(client.get("/asks/for/it").send().header("x-found"), Some("true"));
    assert_eq!(client.get("/asks/for/nothing").send().header("x-found"), Some("false"));
    let lines = crate::support::logs::logs_of("/asks/for/nothing");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(
        lines[0].contains("has no value of keyword \"n\", as nobody has asked for it"),
        "{lines:?}"
    );
    assert!(crate::support::logs::logs_of("/asks/for/it").is_empty());
}

#[test]
fn a_value_is_made_once_and_only_where_somebody_asks() {
    let made = Arc::new(AtomicUsize::new(0));
    let count = made.clone();
    let client = client(|app| {
        app.provide(move || Number(count.fetch_add(1, Ordering::SeqCst) + 1));
        app.provide(|number: &Number| Tenant(number.0.to_string()));
        app.provide(|number: &mut Number, tenant: &Tenant| User {
            name: format!("{} {}", number.0, tenant.0),
        });
        app.get("/", |user: &User, number: &mut Number, tenant: &Tenant| {
            format!("{} {} {}", user.name, number.0, tenant.0)
        });
        app.get("/other", || "x");
    });
    assert_eq!(client.get("/other").send().text(), "x");
    assert_eq!(made.load(Ordering::SeqCst), 0);
    for number in 1..=2 {
        let expected = format!("{number} {number} {number} {number}");
        assert_eq!(client.get("/").send().text(), expected);
        assert_eq!(made.load(Ordering::SeqCst), number);
    }
}

#[test]
fn a_route_that_asks_for_nothing_costs_a_provider_nothing() {
    let log = Arc::default();
    let client = client(|app| {
        app.install(Counting::logging("n", &log)).unwrap();
        app.provide(|number: &mut Number| Tenant(number.0.to_string()));
        app.get("/asks", |tenant: &Tenant| tenant.0.clone());
        app.get("/other", || "x");
    });
    client.get("/other").send();
    assert_eq!(told(&log), ["n wraps"]);
    assert_eq!(client.get("/asks").send().text(), "1");
    // What the provider needs of a plugin is acquired before the handlers, as ever.
    assert_eq!(told(&log), ["n acquires", "n wraps", "n releases"]);
}

#[test]
fn who_can_do_without_goes_on_unless_the_server_failed() {
    let with = |app: &mut App| {
        app.provide(|request: &Request| -> std::result::Result<User, HttpError> {
            match request.query("how")?.as_deref() {
                Some("redirect") => Err(redirect("/login").into()),
                Some("missing") => Err(abort(404, "no such user")),
                Some("down") => Err(abort(503, "later")),
                Some("broken") => Err("x".parse::<u8>().unwrap_err().into()),
                Some("panic") => panic!("on purpose"),
                _ => Ok(User { name: "ada".to_owned() }),
            }
        });
        app.get("/needs", |user: &User| user.name.clone());
        app.get("/can", |user: Option<&mut User>| user.map_or("-".to_owned(), |u| u.name.clone()));
        app.get("/looks", |user: Option<&User>| user.map_or("-".to_owned(), |u| u.name.clone()));
    };
    let client = client(with);
    for (how, needs, can) in [
        ("", 200, Some("ada")),
        ("?how=redirect", 303, Some("-")),
        ("?how=missing", 404, Some("-")),
        ("?how=down", 503, None),
        ("?how=broken", 500, None),
        ("?how=panic", 500, None),
    ] {
        assert_eq!(client.get(&format!("/needs{how}")).send().status(), needs, "{how}");
        for path in ["/can", "/looks"] {
            let response = client.get(&format!("{path}{how}")).send();
            match can {
                Some(text) => {
                    assert_eq!((response.status(), &*response.text()), (200, text), "{path}{how}");
                }
                None => assert_eq!(response.status(), needs, "{path}{how}"),
            }
        }
    }
}

#[test]
fn an_answer_in_place_of_a_value_is_given_once_somebody_needs_it() {
    let made = Arc::new(AtomicUsize::new(0));
    let count = made.clone();
    let client = client(|app| {
        app.provide(move || -> std::result::Result<User, HttpError> {
            count.fetch_add(1, Ordering::SeqCst);
            Err(abort(401, "who?"))
        });
        app.before(|user: Option<&User>| assert!(user.is_none()));
        app.get("/", |user: &User| user.name.clone());
    });
    let response = client.get("/").send();
    assert_eq!(response.status(), 401);
    assert!(response.text().contains("who?"), "{}", response.text());
    assert_eq!(made.load(Ordering::SeqCst), 1);
}

#[test]
fn nothing_is_made_behind_an_argument_that_refuses() {
    let client = client(|app| {
        app.provide(|| -> std::result::Result<User, HttpError> { Err(abort(401, "who?")) });
        app.provide(|| -> Tenant { panic!("nobody needs it") });
        app.get("/", |_: &User, _: &Tenant| "x");
    });
    assert_eq!(client.get("/").send().status(), 401);
}

/// Says what becomes of it.
struct Traced {
    name: &'static str,
    log: Log,
}

impl Drop for Traced {
    fn drop(&mut self) {
        self.log.lock().unwrap().push(format!("{} is dropped", self.name));
    }
}

struct First(Traced);
struct Second(Traced);
impl Provided for First {}
impl Provided for Second {}

fn finishing(log: &Log) -> TestClient {
    let client = |app: &mut App| {
        app.install(Counting::logging("n", log)).unwrap();
        let (made, ended) = (log.clone(), log.clone());
        app.provide(move |_: &mut Number| {
            made.lock().unwrap().push("first is made".to_owned());
            First(Traced { name: "first", log: made.clone() })
        })
        .finish(move |first, answer| {
            let (status, is_error) = (answer.status().as_u16(), answer.is_error());
            ended.lock().unwrap().push(format!("first ends {status} {is_error}"));
            drop(first.0);
        });
        let (made, ended) = (log.clone(), log.clone());
        app.provide(move |_: &First, request: &Request| -> Result<Second> {
            made.lock().unwrap().push("second is made".to_owned());
            assert!(request.query("how")?.as_deref() != Some("unmade"), "on purpose");
            Ok(Second(Traced { name: "second", log: made.clone() }))
        })
        .finish(move |second, answer| -> std::result::Result<(), HttpError> {
            let (status, is_error) = (answer.status().as_u16(), answer.is_error());
            let _kept = second.0;
            ended.lock().unwrap().push(format!("second ends {status} {is_error}"));
            match answer.headers().get("x-end").map(|end| end.to_str().unwrap()) {
                Some("fail") => Err(abort(507, "full")),
                Some("panic") => panic!("on purpose"),
                _ => Ok(()),
            }
        });
        app.get(
            "/<how>",
            |_: &mut Second, how: &str| -> std::result::Result<Response, HttpError> {
                match how {
                    "abort" => Err(abort(409, "no")),
                    "redirect" => Err(redirect("/x").into()),
                    "panic" => panic!("on purpose"),
                    how => Ok(Response::text("fine").with_header("x-end", how)),
                }
            },
        );
    };
    super::client(client)
}

#[test]
fn values_are_finished_the_last_one_first_whatever_the_answer() {
    let log = Log::default();
    let client = finishing(&log);
    let made = ["n acquires", "n wraps", "first is made", "second is made"];
    for (path, second, first, status) in [
        ("/fine", "200 false", "200 false", 200),
        ("/abort", "409 true", "409 true", 409),
        ("/redirect", "303 false", "303 false", 303),
        ("/panic", "500 true", "500 true", 500),
        // What replaces the answer is what the others see.
        ("/fail", "200 false", "507 true", 507),
    ] {
        assert_eq!(client.get(path).send().status(), status, "{path}");
        let mut expected = made.map(str::to_owned).to_vec();
        expected.push(format!("second ends {second}"));
        expected.push("second is dropped".to_owned());
        expected.push(format!("first ends {first}"));
        expected.push("first is dropped".to_owned());
        if path != "/panic" {
            expected.push("n releases".to_owned());
        }
        assert_eq!(told(&log), expected, "{path}");
    }
    // A panic at the end is as bad as one of the handler: nothing is saved.
    assert_eq!(client.get("/panic").send().status(), 500);
    told(&log);
    assert_eq!(client.get("/panic?").send().status(), 500);
    told(&log);
}

#[test]
fn an_end_that_panics_replaces_the_answer_and_drops_its_value() {
    let log = Log::default();
    let mut app = App::new();
    app.install(Counting::logging("n", &log)).unwrap();
    let (outer, inner) = (log.clone(), log.clone());
    app.provide(move |_: &mut Number| First(Traced { name: "first", log: outer.clone() }))
        .finish(move |_, answer| inner.lock().unwrap().push(format!("first {}", answer.status())));
    let made = log.clone();
    app.provide(move |_: &First| Second(Traced { name: "second", log: made.clone() }))
        .finish(|_, _| -> () { panic!("on purpose") });
    app.get("/", |_: &Second| "fine");
    let response = TestClient::new(app).unwrap().get("/").send();
    assert_eq!(response.status(), 500);
    let expected = [
        "n acquires",
        "n wraps",
        "second is dropped",
        "first 500 Internal Server Error",
        "first is dropped",
        "n closes",
    ];
    assert_eq!(told(&log), expected);
}

#[test]
fn what_was_made_before_a_provider_panicked_is_finished() {
    let log = Log::default();
    let client = finishing(&log);
    assert_eq!(client.get("/fine?how=unmade").send().status(), 500);
    let expected = [
        "n acquires",
        "n wraps",
        "first is made",
        "second is made",
        "first ends 500 true",
        "first is dropped",
    ];
    assert_eq!(told(&log), expected);
}

/// A database connection out of a pool, which must never go back with a transaction open.
struct Connection {
    pool: Arc<Pool>,
    open: bool,
}

#[derive(Default)]
struct Pool {
    returned_open: AtomicBool,
    commits_fail: AtomicBool,
    log: Log,
}

impl Connection {
    fn execute(&mut self, command: &str) -> std::result::Result<(), std::io::Error> {
        self.pool.log.lock().unwrap().push(command.to_owned());
        match command {
            "BEGIN" => self.open = true,
            "COMMIT" if self.pool.commits_fail.load(Ordering::SeqCst) => {
                return Err(std::io::Error::other("disk full"));
            }
            "COMMIT" | "ROLLBACK" => self.open = false,
            _ => {}
        }
        Ok(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.pool.returned_open.fetch_or(self.open, Ordering::SeqCst);
    }
}

#[test]
fn a_transaction_ends_before_its_connection_goes_back_and_before_the_session_is_saved() {
    let pool = Arc::new(Pool::default());
    let store = MemoryStore::new();
    let own = pool.clone();
    let client = client(|app| {
        app.install(SessionPlugin::new().store(store)).unwrap();
        app.state(Own(own));
        app.provide(|pool: &Own<Arc<Pool>>| -> std::result::Result<Own<Connection>, HttpError> {
            let mut db = Connection { pool: pool.0.clone(), open: false };
            db.execute("BEGIN")?;
            Ok(Own(db))
        })
        .keyword("db")
        .finish(|mut db, answer| {
            if answer.is_error() {
                return db.execute("ROLLBACK");
            }
            db.execute("COMMIT").inspect_err(|_| {
                let _ = db.execute("ROLLBACK");
            })
        });
        app.get(
            "/<what>",
            named!(|db: &mut Own<Connection>,
                    session: &mut Session,
                    what: &str|
             -> std::result::Result<&'static str, HttpError> {
                db.execute("INSERT")?;
                session.set("what", what);
                match what {
                    "abort" => Err(abort(400, "no")),
                    "redirect" => Err(redirect("/").into()),
                    "panic" => panic!("on purpose"),
                    _ => Ok("done"),
                }
            }),
        );
    });
    for (path, status, end) in [
        ("/fine", 200, &["COMMIT"][..]),
        ("/abort", 400, &["ROLLBACK"]),
        ("/redirect", 303, &["COMMIT"]),
        ("/panic", 500, &["ROLLBACK"]),
    ] {
        assert_eq!(client.get(path).send().status(), status, "{path}");
        let expected = [&["BEGIN", "INSERT"], end].concat();
        assert_eq!(told(&pool.log), expected, "{path}");
    }
    pool.commits_fail.store(true, Ordering::SeqCst);
    assert_eq!(client.get("/fine").send().status(), 500);
    assert_eq!(told(&pool.log), ["BEGIN", "INSERT", "COMMIT", "ROLLBACK"]);
    assert!(!pool.returned_open.load(Ordering::SeqCst));
}

#[test]
fn a_batch_of_32_makes_a_value_for_each_request() {
    let log = Arc::default();
    let mut app = App::new();
    app.install(Counting::logging("n", &log)).unwrap();
    app.provide(|number: &mut Number| Tenant(number.0.to_string()));
    app.get("/", |tenant: &Tenant| tenant.0.clone());
    let service = app.build().unwrap();
    let request = || Request::new(Method::GET, "/".parse().unwrap());
    let mut batch: Vec<_> = (0..32).map(|_| Exchange::new(request())).collect();
    service.prepare(&mut batch);
    batch.iter_mut().for_each(|exchange| service.run(exchange));
    service.finish(&mut batch);
    for (number, exchange) in batch.into_iter().enumerate() {
        let body = exchange.into_response().into_bytes().unwrap();
        assert_eq!(body, (number + 1).to_string());
    }
    // Their session would have been loaded in one batch.
    let acquired = told(&log).iter().filter(|line| *line == "n acquires").count();
    assert_eq!(acquired, 1);
}

#[test]
fn names_find_providers_by_their_keywords_and_wildcards() {
    let client = client(|app| {
        app.provide(|| Number(1)).keyword("one");
        app.provide(|| Number(2)).keyword("two");
        app.provide(named!(|id: u32, two: &mut Number| User { name: format!("{id}/{}", two.0) }));
        app.state(Users(&["ada"]));
        app.get(
            "/<kind>/<id>",
            named!(|user: &User, one: &mut Number, kind: &str, list: &Users| {
                format!("{} {} {kind} {}", user.name, one.0, list.0[0])
            }),
        );
    });
    assert_eq!(client.get("/item/7").send().text(), "7/2 1 item ada");
    // A value that the provider cannot read does not match the rule.
    assert_eq!(client.get("/item/x").send().status(), 404);
}

#[test]
fn a_form_is_read_by_a_provider_and_the_handler() {
    let client = client(|app| {
        app.provide(|Form(page): Form<Page>| Number(page.number as usize));
        app.post("/", |number: &Number, Form(page): Form<Page>| {
            format!("{} {}", number.0, page.number)
        });
    });
    let page = Page { number: 3, size: None };
    assert_eq!(client.post("/").form(&page).send().text(), "3 3");
    assert_eq!(client.post("/").form(&[("number", "x")]).send().status(), 400);
    let error = build_error(|app| {
        app.provide(|Form(page): Form<Page>| Number(page.number as usize));
        app.post("/", |_: &Number, _: Json<Page>| "x");
    });
    assert!(
        error.contains("takes the body as JSON, which argument 1 of the provider of"),
        "{error}"
    );
}

#[test]
fn skipped_and_uninstalled_providers_are_not_there() {
    let provider = |app: &mut App| {
        app.provide(|| Number(7));
    };
    let error = build_error(|app| {
        provider(app);
        app.get("/x", |_: &Number| "x").skip("number");
    });
    assert!(
        error.contains("route /x: argument 1 asks for tests::app::Number, but the route skips plugin \"number\""),
        "{error}"
    );
    let error = build_error(|app| {
        provider(app);
        app.get("/x", || "x").skip_keyword("numbers");
    });
    assert!(error.contains("keyword \"numbers\"; known: number"), "{error}");
    let client = client(|app| {
        provider(app);
        app.get("/own", |n: &mut Number| n.0.to_string())
            .skip_keyword("number")
            .apply(Counting::new("number", 0));
        app.get("/app", |n: &mut Number| n.0.to_string());
    });
    assert_eq!(client.get("/own").send().text(), "1");
    assert_eq!(client.get("/app").send().text(), "7");
    let mut app = App::new();
    provider(&mut app);
    assert!(app.uninstall_keyword("number"));
    assert_eq!(app.uninstall("number"), 0);
    app.get("/", |_: &Number| "x");
    assert!(app.build().is_err());
}

#[test]
fn what_a_provider_cannot_have_is_said_with_both_places() {
    let place = |line: u32| format!("tests/app/providers.rs:{line}");
    // Nobody provides it.
    let line = line!() + 2;
    let error = build_error(|app| {
        app.provide(|tenant: &Tenant| Number(tenant.0.len()));
        app.get("/x", |number: &Number| number.0.to_string());
        app.get("/y", |number: &Number| number.0.to_string());
    });
    assert_eq!(
        error,
        format!(
            "the provider of tests::app::Number (keyword \"number\"): argument 1 asks for \
             tests::app::providers::Tenant, which no installed plugin, provider or state provides; install one \
             before the app is built; known keywords: number; it is for route /x at {} (at {})",
            place(line + 1),
            place(line)
        )
    );
    // Nobody asks for it, and it cannot work all the same.
    let error = build_error(|app| {
        app.provide(|tenant: &Tenant| Number(tenant.0.len()));
    });
    assert!(error.contains("argument 1 asks for tests::app::providers::Tenant"), "{error}");
    // Two provide it.
    let line = line!() + 2;
    let error = build_error(|app| {
        app.provide(|| Number(1)).keyword("one");
        app.provide(|| Number(2)).keyword("two");
        app.provide(|number: &Number| Tenant(number.0.to_string()));
    });
    let expected = format!(
        "asks for tests::app::Number, which keywords \"one\" and \"two\" provide (at {} and {}); say which with named!(",
        place(line),
        place(line + 1)
    );
    assert!(error.contains(&expected), "{error}");
    // A handler borrows a value once.
    let error = build_error(|app| {
        app.provide(|| Number(1));
        app.get("/", |_: &Number, _: &mut Number| "x");
    });
    assert!(error.contains("argument 2 asks a second time for keyword \"number\""), "{error}");
    // A circle, told once, wherever it is entered.
    let line = line!() + 2;
    let error = build_error(|app| {
        app.provide(|tenant: &Tenant| Number(tenant.0.len()));
        app.provide(|user: &User| Tenant(user.name.clone()));
        app.provide(|number: &Number| User { name: number.0.to_string() });
        app.get("/x", |user: &User| user.name.clone());
        app.get("/y", |tenant: &Tenant| tenant.0.clone());
    });
    assert_eq!(
        error,
        format!(
            "providers need each other: tests::app::Number (keyword \"number\", at {0}) asks for \
             tests::app::providers::Tenant (keyword \"tenant\", at {1}) asks for \
             tests::app::providers::User (keyword \"user\", at {2}) asks for \
             tests::app::Number (keyword \"number\", at {0}) (at {0})",
            place(line),
            place(line + 1),
            place(line + 2)
        )
    );
    // One that needs itself.
    let error = build_error(|app| {
        app.provide(|number: &Number| Number(number.0));
    });
    assert!(error.starts_with("providers need each other: tests::app::Number"), "{error}");
}

#[test]
fn a_keyword_is_had_once_by_providers_too() {
    let error = build_error(|app| {
        app.provide(|| Number(1));
        app.provide(|| Number(2));
    });
    assert!(error.contains("cannot have keyword \"number\", which the provider of tests::app::Number at tests/app/providers.rs:"), "{error}");
    let error = build_error(|app| {
        app.provide(|| Tenant(String::new())).keyword("n");
        app.install(Counting::new("n", 0)).unwrap();
    });
    assert!(
        error.contains("\"counting\" cannot have keyword \"n\", which the provider of"),
        "{error}"
    );
}

#[test]
fn state_is_shared_by_all_requests_and_asked_for_by_reference() {
    #[derive(Default)]
    struct Visits(AtomicUsize);
    impl Provided for Visits {}
    let client = client(|app| {
        app.state(Visits::default());
        app.state(Own(vec![1u8, 2]));
        app.get("/", |visits: &Visits, again: &Visits, list: &Own<Vec<u8>>| {
            again.0.fetch_add(1, Ordering::SeqCst);
            format!("{} {}", visits.0.load(Ordering::SeqCst), list.len())
        });
        app.get("/option", |visits: Option<&Visits>| visits.is_some().to_string());
        app.get("/all", |visits: &Visits| visits.0.load(Ordering::SeqCst).to_string()).skip_all();
    });
    assert_eq!(client.get("/").send().text(), "1 2");
    assert_eq!(client.get("/").send().text(), "2 2");
    assert_eq!(client.get("/option").send().text(), "true");
    assert_eq!(client.get("/all").send().text(), "2");
    for (error, expected) in [
        (
            build_error(|app| {
                app.get("/", |_: &Visits| "x");
            }),
            "Visits, which no installed plugin, provider or state provides",
        ),
        (
            build_error(|app| {
                app.state(Own(vec![1i32]));
                app.get("/", |_: &Own<Vec<u8>>| "x");
            }),
            "no plugin that provides anything is installed; state: bottle_session::Own<alloc::vec::Vec<i32>>",
        ),
        (
            build_error(|app| {
                app.state(Visits::default());
                app.get("/", |_: &mut Visits| "x");
            }),
            "Visits, which is state of the app, and shared: ask for &tests",
        ),
        (
            build_error(|app| {
                app.state(Visits::default());
                app.state(Visits::default());
            }),
            "as its state already, given at tests/app/providers.rs:",
        ),
    ] {
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_plugin_uses_the_value_of_a_provider() {
    struct Using;
    impl Plugin for Using {
        fn name(&self) -> &str {
            "using"
        }
        fn uses(&self, _: &Route) -> Vec<String> {
            vec!["tenant".to_owned()]
        }
        fn apply(&self, callback: Callback, route: &Route) -> Callback {
            assert!(route.asks_for("tenant") && route.asks_for("n"));
            Callback::new(move |exchange| {
                let tenant = exchange.provided::<Tenant>("tenant").unwrap().0.clone();
                callback.call(exchange).with_header("x-tenant", tenant)
            })
        }
    }
    let client = client(|app| {
        app.install(Using).unwrap();
        app.provide(|n: &mut Number| Tenant(n.0.to_string()));
        app.install(Counting::new("n", 4)).unwrap();
        app.get("/", || "x");
    });
    assert_eq!(client.get("/").send().header("x-tenant"), Some("5"));
}

#[test]
fn providers_run_on_few_threads_and_each_value_is_finished() {
    use bottle_session::server::native::Native;

    use crate::support::serving::Serving;

    let counts = Arc::new([const { AtomicUsize::new(0) }; 3]);
    let [making, ending] = [counts.clone(), counts.clone()];
    let mut app = App::new();
    app.install(SessionPlugin::new().in_memory()).unwrap();
    app.provide(move |session: &mut Session, request: &Request| {
        let at_once = making[0].fetch_add(1, Ordering::SeqCst) + 1;
        making[1].fetch_max(at_once, Ordering::SeqCst);
        session.set("seen", "yes");
        // It blocks, as a database does.
        std::thread::sleep(std::time::Duration::from_millis(3));
        making[0].fetch_sub(1, Ordering::SeqCst);
        Tenant(request.query_string().to_owned())
    })
    .finish(move |tenant, answer| {
        assert!(!tenant.0.is_empty() && answer.status().as_u16() < 500);
        ending[2].fetch_add(1, Ordering::SeqCst);
    });
    app.get("/", |tenant: &Tenant| tenant.0.clone());
    app.error(404, |tenant: &Tenant| format!("lost {}", tenant.0));
    let server = Native::bind("127.0.0.1:0").unwrap().max_threads(3);
    let serving = Serving::start(server, app);
    std::thread::scope(|scope| {
        for visitor in 0..16 {
            let serving = &serving;
            scope.spawn(move || {
                let mut client = serving.client();
                for number in 0..8 {
                    let reply = client.get(&format!("/?{visitor}.{number}"));
                    assert_eq!(
                        (reply.status, reply.text()),
                        (200, &*format!("{visitor}.{number}"))
                    );
                    assert!(reply.header("set-cookie").is_some());
                }
            });
        }
    });
    let lost = serving.client().get("/nowhere?7");
    assert_eq!((lost.status, lost.text()), (404, "lost 7"));
    let [_, most, ended] = &*counts;
    assert_eq!(ended.load(Ordering::SeqCst), 16 * 8 + 1);
    assert!((1..=3).contains(&most.load(Ordering::SeqCst)), "{most:?}");
}
