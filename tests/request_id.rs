//! The id of a request: in its answer, and in each of its log lines.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use bottle_session::http::Method;
use bottle_session::http::uri::PathAndQuery;
use bottle_session::server::native::Native;
use bottle_session::{
    AccessLogPlugin, App, Event, Exchange, RedisPool, Request, RequestId, RequestIdLogger,
    RequestIdPlugin, Response, Server, Session, SessionPlugin, ShutdownHandle, TestClient, named,
};

use crate::faults::wait_until;
use crate::support::proxies::{Proxy, folder};
use crate::support::redis_server::RedisServer;

const SOCKET: &str = "BOTTLE_SESSION_TEST_IDS_SOCKET";
const REDIS: &str = "BOTTLE_SESSION_TEST_IDS_REDIS";

#[test]
fn each_answer_has_the_id_that_its_handler_knows_whatever_the_answer_is() {
    let mut app = App::new();
    app.install(RequestIdPlugin::new()).unwrap();
    app.get("/", |id: &RequestId| id.to_string());
    app.get("/thread", || RequestId::current().unwrap().to_string());
    app.get("/named", named!(|request_id: &RequestId| request_id.to_string()));
    app.get("/panics", || -> &'static str { panic!("on purpose") });
    app.get("/skips", || RequestId::current().map_or("none".to_owned(), |id| id.to_string()))
        .skip("request_id");
    let client = TestClient::new(app).unwrap();
    let mut ids = std::collections::BTreeSet::new();
    for path in ["/", "/thread", "/named"] {
        let answer = client.get(path).send();
        let id = answer.header("x-request-id").unwrap().to_owned();
        assert_eq!(answer.text(), id, "{path}");
        assert!(id.len() == 24 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        assert!(ids.insert(id));
    }
    for (path, status) in [("/panics", 500), ("/nowhere", 404)] {
        let answer = client.get(path).send();
        assert_eq!(answer.status(), status);
        assert!(ids.insert(answer.header("x-request-id").unwrap().to_owned()), "{path}");
    }
    let answer = client.get("/skips").send();
    // It has arrived before its route was known, and so its lines have an id.
    assert_ne!(answer.text(), "none");
    assert_eq!(answer.header("x-request-id"), None);
    assert_eq!(RequestId::current(), None);
    // Nobody is believed who is no trusted proxy.
    let answer = client.get("/").header("x-request-id", "mine").send();
    assert_ne!(answer.header("x-request-id"), Some("mine"));
}

#[test]
fn a_header_of_another_name_and_one_that_is_none() {
    let mut app = App::new();
    app.install(RequestIdPlugin::new().header("X-Correlation-Id")).unwrap();
    let answer = TestClient::new(app).unwrap().get("/").send();
    assert!(answer.header("x-correlation-id").is_some());
    let plugin = RequestIdPlugin::new().header("a b");
    let error = App::new().install(plugin).map(drop).unwrap_err().to_string();
    assert!(error.contains("\"a b\" is no name of a header"), "{error}");
}

/// An event, and the request that it was of.
type Told = (String, Option<RequestId>);

/// Loads and saves many sessions at once, and says with which ids the store's events were.
fn ids_of_events(sessions: impl Fn() -> SessionPlugin) {
    const COUNT: usize = 16;
    let seen: Arc<Mutex<Vec<Told>>> = Arc::default();
    let events = seen.clone();
    let mut app = App::new();
    let plugin = sessions().events(move |event: Event<'_>| {
        events.lock().unwrap().push((format!("{event:?}"), RequestId::current()));
    });
    app.install(RequestIdPlugin::new()).unwrap();
    app.install(plugin).unwrap();
    app.get("/", |session: &mut Session| session.set("a", "b"));
    app.get("/end", |session: &mut Session| session.destroy());
    let service = app.build().unwrap();
    let round = |path: &'static str, round: &str, cookies: &[String]| -> Vec<Response> {
        let exchange = |number: usize| {
            let mut request = Request::new(Method::GET, PathAndQuery::from_static(path));
            if let Some(cookie) = cookies.get(number) {
                request.headers_mut().insert("cookie", cookie.parse().unwrap());
            }
            let mut exchange = Exchange::new(request);
            exchange.set_request_id(RequestId::parse(&format!("{round}-{number}")).unwrap());
            exchange
        };
        let mut batch: Vec<_> = (0..COUNT).map(exchange).collect();
        service.prepare(&mut batch);
        batch.iter_mut().for_each(|exchange| service.run(exchange));
        service.finish(&mut batch);
        batch.into_iter().map(Exchange::into_response).collect()
    };
    let answers = round("/", "new", &[]);
    let cookies: Vec<_> = answers
        .iter()
        .map(|answer| {
            let cookie = answer.headers()["set-cookie"].to_str().unwrap();
            cookie.split(';').next().unwrap().to_owned()
        })
        .collect();
    round("/end", "end", &cookies);
    round("/end", "again", &cookies);
    let mut expected = Vec::new();
    for number in 0..COUNT {
        for (event, round) in [
            ("Anonymous", "new"),
            ("Created", "new"),
            ("Loaded", "end"),
            ("Destroyed", "end"),
            ("UnknownId", "again"),
        ] {
            expected.push((event.to_owned(), RequestId::parse(&format!("{round}-{number}"))));
        }
    }
    let mut seen = seen.lock().unwrap().clone();
    let order = |one: &Told| (one.0.clone(), one.1.as_ref().map(|id| id.as_str().to_owned()));
    seen.sort_by_key(order);
    expected.sort_by_key(order);
    assert_eq!(seen, expected);
}

#[test]
fn in_a_batch_each_event_of_the_session_store_is_of_its_own_request() {
    ids_of_events(|| SessionPlugin::new().in_memory());
    let redis = RedisServer::shared();
    let pool = RedisPool::open(&redis.url(redis.fresh_database())).unwrap();
    ids_of_events(|| SessionPlugin::new().pool(pool.clone()));
}

/// The app of the process behind nginx.
fn logging_app(redis: &str) -> App {
    let mut app = App::new();
    app.install(RequestIdPlugin::new()).unwrap();
    app.install(AccessLogPlugin::new()).unwrap();
    app.install(SessionPlugin::new().url(redis)).unwrap();
    app.before_request(|_: &mut Request| log::info!(target: "app", "a hook sees it"));
    app.get("/visit", |session: &mut Session| {
        session.set("a", "b");
        log::info!(target: "app", "a handler runs");
    });
    app.get("/fails", |_: &mut Session| "x".parse::<u8>().map(|number| number.to_string()));
    app.get("/breaks-off", || {
        let pieces = (0..3).map(|number| {
            log::info!(target: "app", "piece {number} is made");
            assert!(number < 2, "on purpose");
            "piece"
        });
        Response::chunks(pieces)
    });
    app
}

/// Writes lines of this crate and of the app to standard error.
struct Lines;

impl log::Log for Lines {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        ["app", "bottle_session"].iter().any(|target| metadata.target().starts_with(target))
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = format!("{} {}\n", record.target(), record.args());
        std::io::stderr().lock().write_all(line.as_bytes()).unwrap();
    }

    fn flush(&self) {}
}

/// Another program: this one again, which serves until it is killed.
#[test]
fn serves_behind_nginx_where_the_other_test_says() {
    let Ok(socket) = std::env::var(SOCKET) else { return };
    log::set_boxed_logger(Box::new(RequestIdLogger::new(Lines))).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let server = Native::bind(&format!("unix:{socket}")).unwrap();
    let server = server.trusted_proxies(["unix"]).unwrap().access_log(true);
    let service = logging_app(&std::env::var(REDIS).unwrap()).build().unwrap();
    server.serve(service, &ShutdownHandle::new()).unwrap();
}

/// The program, and what it has logged so far.
fn started(socket: &Path, redis: &str) -> (std::process::Child, Arc<Mutex<String>>) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "request_id::serves_behind_nginx_where_the_other_test_says"]);
    command.args(["--nocapture", "--test-threads=1"]).env(SOCKET, socket).env(REDIS, redis);
    let mut program = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    while std::os::unix::net::UnixStream::connect(socket).is_err() {
        assert!(program.try_wait().unwrap().is_none(), "it ended");
    }
    let stderr = BufReader::new(program.stderr.take().unwrap());
    let log: Arc<Mutex<String>> = Arc::default();
    let told = log.clone();
    std::thread::spawn(move || {
        for line in stderr.lines().map_while(Result::ok) {
            told.lock().unwrap().push_str(&(line + "\n"));
        }
    });
    (program, log)
}

#[test]
fn a_request_id_given_to_nginx_comes_out_in_every_log_line_of_that_request() {
    let redis = RedisServer::shared();
    let folder = folder("request-ids");
    let socket = folder.join("app.socket");
    let (mut program, log) = started(&socket, &redis.url(redis.fresh_database()));
    let lines = format!(
        "server {{ listen LISTEN; location / {{ proxy_pass http://unix:{}; }} }}",
        socket.display()
    );
    let nginx = Proxy::nginx(folder, &lines);
    let mut client = nginx.client();
    let mut ask = |path: &str, id: &str, cookie: &str| {
        client.send(format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\nX-Request-Id: {id}\r\nCookie: {cookie}\r\n\r\n"
        ));
        let reply = client.reply();
        assert_eq!(reply.header("x-request-id"), Some(id), "{path}");
        reply
    };
    let reply = ask("/visit", "first.4711", "a=b");
    let cookie = reply.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    assert_eq!(ask("/fails", "second.4712", &cookie).status, 500);
    assert_eq!(ask("/nowhere", "third.4713", &cookie).status, 404);
    // It breaks off, and nginx closes.
    client = nginx.client();
    let head = "GET /breaks-off HTTP/1.1\r\nHost: a\r\nConnection: close\r\n";
    client.send(format!("{head}X-Request-Id: fourth.4714\r\n\r\n"));
    let mut broken = Vec::new();
    let _ = client.stream.read_to_end(&mut broken);
    // The last line: the body is dropped behind the connection.
    wait_until("the line of the answer that broke off", || {
        log.lock().unwrap().contains("GET /breaks-off HTTP/1.")
    });
    program.kill().unwrap();
    program.wait().unwrap();
    let log = log.lock().unwrap().clone();

    // A line of the plugin's access log has the id in a place of its own, any other at its end; none has it twice.
    let of = |id: &str| -> Vec<&str> {
        let at_the_end = format!(" request_id={id}");
        log.lines()
            .filter(|line| {
                let in_its_place = line.starts_with("bottle_session::access ")
                    && line.contains(&format!(" {id} "));
                line.ends_with(&at_the_end) || in_its_place
            })
            .inspect(|line| assert_eq!(line.matches(id).count(), 1, "{line}"))
            .collect()
    };
    for (id, expected) in [
        (
            "first.4711",
            &[
                "app a hook sees it",
                "app a handler runs",
                "session event: Created",
                "\"GET /visit HTTP/1.",
                "\"GET /visit\" 200 0",
            ][..],
        ),
        (
            "second.4712",
            &[
                "app a hook sees it",
                "session event: Loaded",
                "GET /fails answers 500: invalid digit found in string",
                "\"GET /fails HTTP/1.",
                "\"GET /fails\" 500 ",
            ],
        ),
        (
            "third.4713",
            &[
                "app a hook sees it",
                "GET /nowhere answers 404",
                "\"GET /nowhere HTTP/1.",
                "\"GET /nowhere\" 404 ",
            ],
        ),
        (
            "fourth.4714",
            &[
                "app a hook sees it",
                "\"GET /breaks-off\" 200 ",
                "app piece 0 is made",
                "app piece 1 is made",
                "app piece 2 is made",
                "an answer breaks off: the body of an answer panicked",
                "\"GET /breaks-off HTTP/1.",
            ],
        ),
    ] {
        let lines = of(id);
        let mut left = lines.iter();
        for text in expected {
            assert!(left.any(|line| line.contains(text)), "{text} of {id}, in this order: {log}");
        }
    }
    // And no line of any of them is without.
    let stray: Vec<_> = log
        .lines()
        .filter(|line| !line.contains(" request_id="))
        .filter(|line| {
            !["first.", "second.", "third.", "fourth."].iter().any(|id| line.contains(id))
        })
        .filter(|line| {
            let starts = ["app ", "bottle_session::session::events ", "bottle_session::access "];
            starts.iter().any(|start| line.starts_with(start)) || line.contains("GET /")
        })
        .collect();
    assert!(stray.is_empty(), "{stray:?}");
}
