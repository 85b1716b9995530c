//! Plugins that leave requests pending on operations: who goes on when, on every server.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bottle_session::server::native::Native;
use bottle_session::{
    Answer, App, Batch, BreakerState, Entry, Error, HttpError, IntoResponse, Operation, Plugin,
    Progress, Provided, Provision, RedisConfig, RedisPool, RedisReply, Remote, Round, Session,
    SessionPlugin, TestClient, named,
};

use crate::faults::wait_until;
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::redis_server::RedisServer;
use crate::support::serving::{Reply, Serving};

/// A number that Redis gave.
struct Ticket(i64);

impl Provided for Ticket {}

/// Adds to a key in Redis as often as it is told, in as many round trips.
struct Count {
    key: String,
    times: usize,
    sum: Result<i64, Error>,
}

impl Operation for Count {
    fn request(&mut self, round: &mut Round<'_>) {
        round.command(&[b"INCRBY", self.key.as_bytes(), b"1"]);
    }

    fn answer(&mut self, answer: Answer<'_>) -> Progress {
        let Some(RedisReply::Integer(sum)) = answer.replies().next() else {
            return Progress::Desync;
        };
        self.sum = Ok(sum);
        self.times -= 1;
        if self.times == 0 { Progress::Done } else { Progress::Again }
    }

    fn fail(&mut self, error: Error) {
        self.sum = Err(error);
    }
}

/// Provides a ticket, and counts another key when it is given back. Its stages are pending meanwhile.
struct Tickets {
    remote: Remote,
    name: &'static str,
    order: Arc<Mutex<Vec<String>>>,
}

impl Tickets {
    fn new(pool: &RedisPool, name: &'static str, order: &Arc<Mutex<Vec<String>>>) -> Tickets {
        Tickets { remote: pool.remote(), name, order: order.clone() }
    }

    fn count(&self, what: &str, times: usize) -> Count {
        let key = format!("{}:{what}", self.name);
        Count { key, times, sum: Ok(0) }
    }
}

fn refuse(entry: &mut Entry<'_>, error: Error) {
    entry.replace(HttpError::from(error).into_response());
}

impl Plugin for Tickets {
    fn name(&self) -> &str {
        self.name
    }

    fn provides(&self) -> Option<Provision> {
        Some(Provision::of::<Ticket>(self.name))
    }

    fn may_block(&self) -> bool {
        false
    }

    fn acquire(&self, batch: &mut Batch<'_>) {
        for mut entry in batch.iter_mut() {
            let (order, name) = (self.order.clone(), self.name);
            entry.wait(&self.remote, self.count("acquired", 2), move |count, entry| {
                order.lock().unwrap().push(format!("{name} acquired"));
                match count.sum {
                    Ok(sum) => entry.put(Ticket(sum)),
                    Err(error) => refuse(entry, error),
                }
            });
        }
    }

    fn release(&self, batch: &mut Batch<'_>) {
        for mut entry in batch.iter_mut() {
            let Some(Ticket(_)) = entry.take() else { continue };
            let (order, name) = (self.order.clone(), self.name);
            let again = (self.remote.clone(), self.count("released", 1));
            entry.wait(&self.remote, self.count("released", 1), move |count, entry| {
                if let Err(error) = count.sum {
                    return refuse(entry, error);
                }
                // And once more.
                let (remote, more) = again;
                entry.wait(&remote, more, move |count, entry| {
                    order.lock().unwrap().push(format!("{name} released"));
                    if let Err(error) = count.sum {
                        refuse(entry, error);
                    }
                });
            });
        }
    }
}

/// What a browser does on a server or without one.
enum Browser {
    Sockets(Serving, Option<String>),
    InProcess(TestClient),
}

impl Browser {
    fn both(app: impl Fn() -> App) -> [Browser; 2] {
        let native = Native::bind("127.0.0.1:0").unwrap().active_threads(1);
        [
            Browser::Sockets(Serving::start(native, app()), None),
            Browser::InProcess(TestClient::new(app()).unwrap()),
        ]
    }

    fn get(&mut self, path: &str) -> (u16, String) {
        match self {
            Browser::InProcess(client) => {
                let response = client.get(path).send();
                (response.status(), response.text())
            }
            Browser::Sockets(server, cookie) => {
                let reply = get(server, path, cookie.as_deref());
                *cookie = cookie_of(&reply).or(cookie.take());
                (reply.status, reply.text().to_owned())
            }
        }
    }
}

fn get(server: &Serving, path: &str, cookie: Option<&str>) -> Reply {
    let cookie = cookie.map(|pair| format!("Cookie: {pair}\r\n")).unwrap_or_default();
    let mut client = server.client();
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{cookie}\r\n"));
    client.reply()
}

fn cookie_of(reply: &Reply) -> Option<String> {
    Some(reply.header("set-cookie")?.split(';').next()?.to_owned())
}

#[test]
fn several_plugins_that_wait_on_one_request_do_so_in_their_order() {
    let redis = RedisServer::start(&[]);
    let pool = RedisPool::open(&redis.url(0)).unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    let app = || {
        let mut app = App::new();
        app.install(Tickets::new(&pool, "outer", &order)).unwrap();
        app.install(SessionPlugin::new().pool(pool.clone())).unwrap();
        app.install(Tickets::new(&pool, "inner", &order)).unwrap();
        let handler = named!(|outer: &mut Ticket, session: &mut Session, inner: &mut Ticket| {
            let visits = session.parse("visits").unwrap_or(0) + 1;
            session.set("visits", visits);
            format!("{} {} {visits}", outer.0, inner.0)
        });
        app.get("/", handler);
        app.get("/plain", || "plain");
        app
    };
    let mut tickets = 0;
    for mut browser in Browser::both(app) {
        for visit in 1..=3 {
            tickets += 2;
            order.lock().unwrap().clear();
            let expected = format!("{tickets} {tickets} {visit}");
            assert_eq!(browser.get("/"), (200, expected));
            let expected = ["outer acquired", "inner acquired", "inner released", "outer released"];
            assert_eq!(*order.lock().unwrap(), expected);
            assert_eq!(browser.get("/plain"), (200, "plain".to_owned()));
        }
    }
    let released: i64 = pool.connection().get("outer:released").unwrap();
    assert_eq!(released, tickets);
}

/// Provides by waiting on its own thread.
struct Sleeper;

impl Plugin for Sleeper {
    fn name(&self) -> &str {
        "sleeper"
    }

    fn provides(&self) -> Option<Provision> {
        Some(Provision::of::<Ticket>("slept"))
    }

    fn acquire(&self, batch: &mut Batch<'_>) {
        std::thread::sleep(Duration::from_millis(5));
        batch.iter_mut().for_each(|mut entry| entry.put(Ticket(5)));
    }

    fn release(&self, batch: &mut Batch<'_>) {
        std::thread::sleep(Duration::from_millis(5));
        batch.iter_mut().for_each(|mut entry| assert!(entry.take::<Ticket>().is_some()));
    }
}

#[test]
fn plugins_that_block_and_plugins_that_wait_go_together_on_one_request() {
    let redis = RedisServer::start(&[]);
    let pool = RedisPool::open(&redis.url(0)).unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    for sleeper_first in [true, false] {
        let app = || {
            let mut app = App::new();
            if sleeper_first {
                app.install(Sleeper).unwrap();
            }
            app.install(Tickets::new(&pool, "waits", &order)).unwrap();
            if !sleeper_first {
                app.install(Sleeper).unwrap();
            }
            app.get(
                "/",
                named!(|waits: &mut Ticket, slept: &mut Ticket| waits.0.min(slept.0).to_string()),
            );
            app.get("/one", named!(|waits: &mut Ticket| (waits.0 > 0).to_string()));
            app
        };
        for mut browser in Browser::both(app) {
            for _ in 0..3 {
                assert_eq!(browser.get("/one"), (200, "true".to_owned()));
                let (status, text) = browser.get("/");
                assert!(status == 200 && (1..=5).contains(&text.parse().unwrap()), "{text}");
            }
        }
    }
}

#[test]
fn a_panic_behind_an_operation_is_the_500_of_that_request_alone() {
    struct Panics(Remote);
    impl Plugin for Panics {
        fn name(&self) -> &str {
            "panics"
        }
        fn provides(&self) -> Option<Provision> {
            Some(Provision::of::<Ticket>("panics"))
        }
        fn acquire(&self, batch: &mut Batch<'_>) {
            for mut entry in batch.iter_mut() {
                let count = Count { key: "panics".to_owned(), times: 1, sum: Ok(0) };
                entry.wait(&self.0, count, |count, entry| {
                    let sum = count.sum.unwrap();
                    assert!(sum % 2 == 1, "an even number");
                    entry.put(Ticket(sum));
                });
            }
        }
        fn release(&self, batch: &mut Batch<'_>) {
            batch.iter_mut().for_each(|mut entry| assert!(entry.take::<Ticket>().is_some()));
        }
    }
    let redis = RedisServer::start(&[]);
    let pool = RedisPool::open(&redis.url(0)).unwrap();
    let app = || {
        let mut app = App::new();
        app.install(Panics(pool.remote())).unwrap();
        app.get("/", |ticket: &mut Ticket| ticket.0.to_string());
        app
    };
    let mut number = 0;
    for mut browser in Browser::both(app) {
        for _ in 0..2 {
            number += 2;
            assert_eq!(browser.get("/"), (200, (number - 1).to_string()));
            assert_eq!(browser.get("/").0, 500);
        }
    }
}

#[test]
fn requests_that_wait_for_a_far_redis_hold_no_thread_and_delay_no_other() {
    let (redis, port) = RedisServer::start_on_port();
    let proxy = FaultProxy::start(port);
    let mut app = App::new();
    app.install(SessionPlugin::new().url(&proxy.url()).operation_timeout(Duration::from_secs(60)))
        .unwrap();
    app.get("/set", |session: &mut Session| session.set("name", "Ada"));
    app.get("/", |session: &mut Session| session.get("name").unwrap_or("nobody").to_owned());
    app.get("/plain", || "plain");
    let server =
        Serving::start(Native::bind("127.0.0.1:0").unwrap().active_threads(1).max_threads(1), app);
    let cookie = cookie_of(&get(&server, "/set", None)).unwrap();
    proxy.set(Fault::Stall);
    let ask = |_| {
        let mut client = server.client();
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n"));
        client
    };
    let mut waiting: Vec<_> = (0..64).map(ask).collect();
    wait_until("they wait for Redis", || proxy.affected() > 0);
    for _ in 0..50 {
        assert_eq!(get(&server, "/plain", None).text(), "plain");
    }
    proxy.set(Fault::Pass);
    for client in &mut waiting {
        assert_eq!(client.reply().text(), "Ada");
    }
    drop(redis);
}

#[test]
fn a_few_connections_that_are_cut_every_second_fail_no_read_and_open_no_breaker() {
    let (_redis, port) = RedisServer::start_on_port();
    let proxy = FaultProxy::start(port);
    let pool = RedisPool::new(RedisConfig::from_url(&proxy.url()).unwrap()).unwrap();
    let mut app = App::new();
    app.install(SessionPlugin::new().pool(pool.clone())).unwrap();
    app.get("/set", |session: &mut Session| session.set("name", "Ada"));
    app.get("/", |session: &mut Session| session.get("name").unwrap_or("nobody").to_owned());
    let server = Serving::start(Native::bind("127.0.0.1:0").unwrap(), app);
    let cookie = cookie_of(&get(&server, "/set", None)).unwrap();
    let read = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..100 {
                    let reply = get(&server, "/", Some(&cookie));
                    assert_eq!((reply.status, reply.text()), (200, "Ada"));
                    read.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        scope.spawn(|| {
            let mut cut_at = 20;
            while cut_at < 400 {
                if read.load(Ordering::SeqCst) >= cut_at {
                    proxy.cut();
                    assert_eq!(pool.breaker(), BreakerState::Closed);
                    cut_at += 20;
                }
                std::thread::yield_now();
            }
        });
    });
}

#[test]
fn a_password_that_changes_while_the_app_runs_is_asked_for_at_each_connect() {
    let (redis, port) = RedisServer::start_on_port();
    let password = Arc::new(Mutex::new("first".to_owned()));
    let mut admin = redis.connect(0);
    let mut require = |old: &str, new: &str| {
        if !old.is_empty() {
            redis::cmd("AUTH").arg(old).exec(&mut admin).unwrap();
        }
        redis::cmd("CONFIG").arg(&["SET", "requirepass", new]).exec(&mut admin).unwrap();
        redis::cmd("CLIENT")
            .arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"])
            .exec(&mut admin)
            .unwrap();
    };
    require("", "first");
    let told = password.clone();
    let config = RedisConfig::default()
        .host("127.0.0.1")
        .port(port)
        .credentials(move || Ok((String::new(), told.lock().unwrap().clone())));
    let pool = RedisPool::new(config).unwrap();
    let mut app = App::new();
    app.install(SessionPlugin::new().pool(pool.clone())).unwrap();
    app.get("/set", |session: &mut Session| session.set("name", "Ada"));
    app.get("/", |session: &mut Session| session.get("name").unwrap_or("nobody").to_owned());
    let server = Serving::start(Native::bind("127.0.0.1:0").unwrap(), app);
    let cookie = cookie_of(&get(&server, "/set", None)).unwrap();
    *password.lock().unwrap() = "second".to_owned();
    require("first", "second");
    assert_eq!(get(&server, "/", Some(&cookie)).text(), "Ada");
    pool.connection().set("key", "value").unwrap();
}
