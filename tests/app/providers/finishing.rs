//! The ends of values.

use super::*;

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
