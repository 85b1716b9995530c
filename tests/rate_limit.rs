//! How many requests pass, in this process and in Redis, per address and per session.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use bottle_session::http::uri::PathAndQuery;
use bottle_session::http::{HeaderMap, HeaderValue, Method};
use bottle_session::server::native::Native;
use bottle_session::{
    App, RateLimitPlugin, RedisPool, Request, Response, Service, Session, SessionPlugin, TestClient,
};

use crate::support::logs::{collect_logs, logs_of};
use crate::support::redis_server::RedisServer;
use crate::support::serving::Serving;

const MINUTE: Duration = Duration::from_secs(60);

/// No test sees the end of one.
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

fn app(plugin: RateLimitPlugin) -> App {
    let mut app = App::new();
    app.install(plugin).unwrap();
    app.get("/", || "hello");
    app.get("/free", || "hello").skip("rate_limit");
    app
}

fn from(service: &Service, address: &str, path: &'static str) -> Response {
    let request = Request::new(Method::GET, PathAndQuery::from_static(path));
    service.handle(request.with_remote_addr(address.parse().unwrap()))
}

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers().get(name).map(|value| value.to_str().unwrap())
}

#[test]
fn each_address_has_a_limit_of_its_own_and_is_told_what_is_left() {
    let seconds = Arc::new(AtomicU64::new(600));
    let clock = seconds.clone();
    let clock = move || UNIX_EPOCH + Duration::from_secs(clock.load(Ordering::SeqCst));
    let plugin = RateLimitPlugin::new(3, MINUTE).with_clock(clock);
    let service = app(plugin).build().unwrap();
    for (second, address, status, left, retry) in [
        (600, "192.0.2.1:1", 200, "r=2;t=60", None),
        (600, "192.0.2.1:2", 200, "r=1;t=60", None),
        (630, "192.0.2.1:1", 200, "r=0;t=30", None),
        (630, "192.0.2.1:1", 429, "r=0;t=60", Some("60")),
        (630, "[::ffff:192.0.2.1]:1", 429, "r=0;t=66", Some("66")),
        (630, "192.0.2.2:1", 200, "r=2;t=30", None),
        // One household has 2^64 addresses.
        (630, "[2001:db8:0:1::1]:1", 200, "r=2;t=30", None),
        (630, "[2001:db8:0:1:ffff::2]:1", 200, "r=1;t=30", None),
        (630, "[2001:db8:0:2::1]:1", 200, "r=2;t=30", None),
        // Of five, half are left half a window later, and this one.
        (690, "192.0.2.1:1", 429, "r=0;t=18", Some("18")),
        (780, "192.0.2.1:1", 200, "r=2;t=60", None),
    ] {
        seconds.store(second, Ordering::SeqCst);
        let answer = from(&service, address, "/");
        assert_eq!(answer.status(), status, "{second} {address}");
        assert_eq!(header(&answer, "ratelimit-policy"), Some("\"rate_limit\";q=3;w=60"));
        assert_eq!(header(&answer, "ratelimit"), Some(&*format!("\"rate_limit\";{left}")));
        assert_eq!(header(&answer, "retry-after"), retry, "{second} {address}");
    }
    // Not one of its routes, and no route at all.
    for (path, status) in [("/free", 200), ("/nowhere", 404)] {
        let answer = from(&service, "192.0.2.1:1", path);
        assert_eq!((answer.status().as_u16(), header(&answer, "ratelimit")), (status, None));
    }
}

/// A session's cookie, as it was set.
fn cookie_of(response: &Response) -> String {
    let cookie = header(response, "set-cookie").unwrap();
    cookie.split(';').next().unwrap().to_owned()
}

fn with_cookie(service: &Service, cookie: &str) -> Response {
    let mut headers = HeaderMap::new();
    headers.insert("cookie", HeaderValue::from_str(cookie).unwrap());
    let request = Request::new(Method::GET, PathAndQuery::from_static("/"));
    let address = "192.0.2.1:1".parse().unwrap();
    service.handle(request.with_headers(headers).with_remote_addr(address))
}

/// Sessions of one address, each with a limit of its own, and those who have none.
fn sessions_have_limits(limit: RateLimitPlugin) {
    let mut app = App::new();
    app.install(limit.per_session("session")).unwrap();
    app.install(SessionPlugin::new().in_memory()).unwrap();
    app.get("/", |_: &mut Session| "hello");
    app.get("/new", |session: &mut Session| session.set("a", "b")).skip("rate_limit");
    let service = app.build().unwrap();
    let visitors: Vec<_> =
        (0..2).map(|_| cookie_of(&from(&service, "192.0.2.1:1", "/new"))).collect();
    for visitor in &visitors {
        let statuses = [(); 4].map(|()| with_cookie(&service, visitor).status().as_u16());
        assert_eq!(statuses, [200, 200, 200, 429]);
    }
    // A made-up session for each request is no way around.
    let made_up = |number: u32| format!("bottle.session={}{number}", "x".repeat(42));
    let statuses =
        [0, 1, 2, 3].map(|number| with_cookie(&service, &made_up(number)).status().as_u16());
    assert_eq!(statuses, [200, 200, 200, 429]);
}

#[test]
fn sessions_of_one_address_have_limits_of_their_own() {
    sessions_have_limits(RateLimitPlugin::new(3, YEAR));
}

#[test]
fn all_processes_count_together_in_redis() {
    let redis = RedisServer::shared();
    let url = redis.url(redis.fresh_database());
    let limit = || RateLimitPlugin::new(6, YEAR).redis(RedisPool::open(&url).unwrap());
    // On a server's event loop, in a process without one, and several at once.
    let server = Serving::start(Native::bind("127.0.0.1:0").unwrap(), app(limit()));
    let client = TestClient::new(app(limit())).unwrap();
    let service = app(limit()).build().unwrap();
    assert_eq!(client.get("/").send().status(), 200, "who has no address has no limit");
    let passed = Mutex::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = server.client();
                for _ in 0..2 {
                    let statuses = [
                        client.get("/").status,
                        from(&service, "127.0.0.1:9", "/").status().as_u16(),
                    ];
                    *passed.lock().unwrap() +=
                        statuses.iter().filter(|status| **status == 200).count();
                }
            });
        }
    });
    assert_eq!(*passed.lock().unwrap(), 6);
    let keys: Vec<String> =
        RedisPool::open(&url).unwrap().connection().command("KEYS", "*").unwrap();
    assert!(keys.len() == 1 && keys[0].starts_with("rate_limit:"), "{keys:?}");
}

#[test]
fn sessions_are_counted_in_redis_too() {
    let redis = RedisServer::shared();
    let pool = RedisPool::open(&redis.url(redis.fresh_database())).unwrap();
    sessions_have_limits(RateLimitPlugin::new(3, YEAR).redis(pool));
}

#[test]
fn while_nobody_counts_nobody_is_limited_and_the_log_says_so() {
    collect_logs();
    let pool = RedisPool::open("redis://127.0.0.1:1").unwrap();
    let plugin = RateLimitPlugin::new(1, MINUTE).redis(pool).keyword("unreachable");
    let mut app = App::new();
    app.install(plugin).unwrap();
    app.get("/", || "hello");
    let service = app.build().unwrap();
    for _ in 0..3 {
        let answer = from(&service, "192.0.2.1:1", "/");
        assert_eq!((answer.status().as_u16(), header(&answer, "ratelimit")), (200, None));
    }
    let lines = logs_of("limit \"unreachable\" holds for nobody, as Redis does not count: ");
    assert!(!lines.is_empty() && lines[0].starts_with("WARN "), "{lines:?}");
}

#[test]
fn several_limits_hold_on_one_route() {
    let mut app = App::new();
    app.install(RateLimitPlugin::new(100, MINUTE)).unwrap();
    app.post("/login", || "welcome").apply(RateLimitPlugin::new(1, MINUTE).keyword("logins"));
    app.get("/", || "hello");
    let service = app.build().unwrap();
    let login = || {
        let request = Request::new(Method::POST, PathAndQuery::from_static("/login"));
        service.handle(request.with_remote_addr("192.0.2.1:1".parse().unwrap()))
    };
    let first = login();
    let policies: Vec<_> = first.headers().get_all("ratelimit-policy").iter().collect();
    assert_eq!(policies, ["\"rate_limit\";q=100;w=60", "\"logins\";q=1;w=60"]);
    assert_eq!(login().status(), 429);
    assert_eq!(from(&service, "192.0.2.1:1", "/").status(), 200);
}

#[test]
fn a_limit_that_means_nothing_is_refused_when_it_is_installed() {
    for (plugin, text) in [
        (RateLimitPlugin::new(0, MINUTE), "the limit is a number of requests from 1"),
        (RateLimitPlugin::new(1, Duration::ZERO), "the time is from a second to a year"),
        (RateLimitPlugin::new(1, MINUTE).keyword("a b"), "a keyword that stands in a header"),
    ] {
        let error = App::new().install(plugin).map(drop).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
    let mut app = App::new();
    app.install(RateLimitPlugin::new(1, MINUTE).per_session("session")).unwrap();
    app.get("/", || "hello");
    let error = app.build().map(drop).unwrap_err().to_string();
    assert!(error.contains("uses keyword \"session\""), "{error}");
}
