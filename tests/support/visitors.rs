//! Fifty visitors of one app, each with a mark of its own in its session, who notice whatever goes wrong.

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bottle_session::server::native::Native;
use bottle_session::{
    App, RedisConnection, RedisPlugin, RedisPool, Result, Session, SessionPlugin,
};

use crate::support::serving::{Client, Reply, Serving};

const VISITORS: usize = 50;
const THREADS: usize = 6;

/// An app on a pool, served on a port of its own, and its visitors.
pub struct Site {
    pub pool: RedisPool,
    server: Serving,
    visitors: Vec<Mutex<Visitor>>,
    pub seen: Seen,
    /// Whether a session may be gone: after FLUSHALL.
    forgetful: AtomicBool,
    ended: AtomicBool,
}

/// A browser with one connection, which it keeps, and one cookie.
pub struct Browser {
    address: SocketAddr,
    /// Made at the first request: a server closes what is silent from the start.
    connection: Option<Client>,
    cookie: Option<String>,
}

impl Browser {
    fn new(address: SocketAddr) -> Browser {
        Browser { address, connection: None, cookie: None }
    }

    pub fn get(&mut self, path: &str) -> Reply {
        let cookie = self.cookie.as_ref().map(|pair| format!("Cookie: {pair}\r\n"));
        let cookie = cookie.unwrap_or_default();
        let connection = self.connection.get_or_insert_with(|| {
            Client::new(TcpStream::connect(self.address).expect("the server listens"))
        });
        connection.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{cookie}\r\n"));
        let reply = connection.reply();
        if let Some(set) = reply.header("set-cookie") {
            let (pair, attributes) = set.split_once(';').expect("attributes");
            self.cookie = (!attributes.contains("Max-Age=0")).then(|| pair.to_owned());
        }
        reply
    }
}

struct Visitor {
    browser: Browser,
    mark: String,
    /// The last number that a set was answered 200 for.
    acknowledged: u64,
    /// The last number that was sent: it may be stored although its answer was a failure.
    attempted: u64,
}

/// What the visitors saw.
#[derive(Default)]
pub struct Seen {
    pub requests: AtomicU64,
    /// Answers 200 with another's session, or with none.
    pub wrong: AtomicU64,
    /// Acknowledged numbers that were not there later.
    pub lost: AtomicU64,
    pub unavailable: AtomicU64,
    pub failed: AtomicU64,
    /// Answers that break a rule: a cookie with a failure, a 503 without Retry-After, another status,
    /// a route without a session that fails.
    pub odd: AtomicU64,
    slowest: AtomicU64,
    plain: Mutex<Vec<Duration>>,
    /// What the 99th percentile of these was before the fault.
    healthy: Mutex<Duration>,
    examples: Mutex<Vec<String>>,
}

/// What kind of route was asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    Session,
    Nothing,
}

pub fn app(pool: &RedisPool) -> App {
    app_with(SessionPlugin::new().pool(pool.clone()), pool)
}

/// With sessions from anywhere, and a pool for the app's own data.
pub fn app_with(sessions: SessionPlugin, pool: &RedisPool) -> App {
    let mut app = App::new();
    app.install(sessions.cookie_lifetime(Duration::from_secs(3600))).unwrap();
    app.install(RedisPlugin::new().pool(pool.clone())).unwrap();
    app.get("/plain", || "plain");
    app.get("/login/<mark>", |session: &mut Session, mark: &str| {
        session.set("mark", mark);
        "welcome"
    });
    app.get("/set/<number:int>", |session: &mut Session, number: i64| {
        session.set("number", number);
        session.get("mark").unwrap_or("nobody").to_owned()
    });
    app.get("/who", |session: &mut Session| {
        let number = session.parse::<u64>("number").unwrap_or(0);
        format!("{} {number}", session.get("mark").unwrap_or("nobody"))
    });
    app.get("/maybe", |session: Option<&mut Session>| match session {
        Some(session) => session.get("mark").unwrap_or("nobody").to_owned(),
        None => "without".to_owned(),
    });
    app.get("/own/<mark>", |rdb: &mut RedisConnection, mark: &str| -> Result<String> {
        let value: Option<String> = rdb.get(&format!("own:{mark}"))?;
        Ok(value.unwrap_or_else(|| "nobody".to_owned()))
    });
    app.get("/own/set/<mark>", |rdb: &mut RedisConnection, mark: &str| -> Result<&'static str> {
        rdb.set(&format!("own:{mark}"), mark)?;
        Ok("stored")
    });
    app
}

impl Site {
    pub fn new(pool: RedisPool) -> Site {
        Site::serving(pool.clone(), app(&pool))
    }

    pub fn serving(pool: RedisPool, app: App) -> Site {
        // On a slow machine a visitor's turn may come late.
        let server = Native::bind("127.0.0.1:0").unwrap().idle_deadline(Duration::from_secs(3600));
        let server = Serving::start(server, app);
        let visitors = (0..VISITORS).map(|number| {
            Mutex::new(Visitor {
                browser: Browser::new(server.address),
                mark: format!("visitor-{number}"),
                acknowledged: 0,
                attempted: 0,
            })
        });
        Site {
            visitors: visitors.collect(),
            pool,
            server,
            seen: Seen::default(),
            forgetful: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        }
    }

    /// Somebody who is not one of the fifty.
    pub fn another_browser(&self) -> Browser {
        Browser::new(self.server.address)
    }

    /// From now on sessions may be gone; whoever finds theirs gone logs in again.
    pub fn forget(&self) {
        self.forgetful.store(true, Ordering::SeqCst);
    }

    /// Visits with several threads while `meanwhile` runs.
    pub fn under_load<T>(&self, meanwhile: impl FnOnce() -> T) -> T {
        self.ended.store(false, Ordering::SeqCst);
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                scope.spawn(move || {
                    let ours = self.visitors.iter().skip(thread).step_by(THREADS).cycle();
                    for visitor in ours.take_while(|_| !self.ended.load(Ordering::SeqCst)) {
                        if !self.visit(&mut lock(visitor)) {
                            // Whoever is refused waits a little, and leaves the machine to the others.
                            std::thread::sleep(Duration::from_millis(2));
                        }
                    }
                });
            }
            // Also where `meanwhile` panics: the threads must end.
            let _end = End(&self.ended);
            meanwhile()
        })
    }

    /// Measures, with the load that comes afterwards, how long the route takes that needs nothing while all is
    /// well: the median of a few short rounds. These visits count for nothing else.
    pub fn measure_health(&self) {
        let seen = &self.seen;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (requests, slowest) = (count(&seen.requests), count(&seen.slowest));
        let mut rounds = [(); 5].map(|()| {
            lock(&seen.plain).clear();
            self.under_load(|| {
                while lock(&seen.plain).len() < 1_000 {
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
            seen.plain_p99()
        });
        rounds.sort();
        *lock(&seen.healthy) = rounds[rounds.len() / 2];
        lock(&seen.plain).clear();
        seen.requests.store(requests, Ordering::Relaxed);
        seen.slowest.store(slowest, Ordering::Relaxed);
    }

    /// Whether all visitors are served as if nothing had ever been wrong.
    pub fn everybody_is_served(&self) -> bool {
        // Each of them asks, also after one has been refused.
        let refused = self.visitors.iter().filter(|visitor| !self.visit(&mut lock(visitor)));
        refused.count() == 0
    }

    /// One visitor asks for everything once; whether all of it worked.
    fn visit(&self, visitor: &mut Visitor) -> bool {
        let mut served = true;
        if visitor.browser.cookie.is_none() {
            let mark = visitor.mark.clone();
            for path in [format!("/own/set/{mark}"), format!("/login/{mark}")] {
                if self.ask(visitor, &path, Needs::Session).is_none() {
                    return false;
                }
            }
            // A new session: nothing is in it yet.
            (visitor.acknowledged, visitor.attempted) = (0, 0);
        }
        visitor.attempted += 1;
        let path = format!("/set/{}", visitor.attempted);
        match self.ask(visitor, &path, Needs::Session) {
            Some(who) if self.is_theirs(visitor, &who) => visitor.acknowledged = visitor.attempted,
            Some(_) => return false,
            None => served = false,
        }
        match self.ask(visitor, "/who", Needs::Session) {
            Some(text) => {
                let (who, number) = text.split_once(' ').expect("two words");
                if !self.is_theirs(visitor, who) {
                    return false;
                }
                let number: u64 = number.parse().expect("a number");
                if number < visitor.acknowledged || number > visitor.attempted {
                    let Visitor { acknowledged, attempted, .. } = visitor;
                    self.seen.note(&self.seen.lost, || {
                        format!("{who} has {number}, not {acknowledged} to {attempted}")
                    });
                }
            }
            None => served = false,
        }
        match self.ask(visitor, "/maybe", Needs::Nothing).as_deref() {
            Some("without") => served = false,
            Some(who) => drop(self.is_theirs(visitor, who)),
            None => served = false,
        }
        let path = format!("/own/{}", visitor.mark);
        match self.ask(visitor, &path, Needs::Session) {
            Some(who) => drop(self.is_theirs(visitor, &who)),
            None => served = false,
        }
        let start = Instant::now();
        served &= self.ask(visitor, "/plain", Needs::Nothing).as_deref() == Some("plain");
        lock(&self.seen.plain).push(start.elapsed());
        served
    }

    /// Whether an answer was this visitor's; where a session is allowed to be gone, they leave it.
    fn is_theirs(&self, visitor: &mut Visitor, who: &str) -> bool {
        if who == visitor.mark {
            return true;
        }
        if who == "nobody" && self.forgetful.load(Ordering::SeqCst) {
            visitor.browser.cookie = None;
            return false;
        }
        self.seen.note(&self.seen.wrong, || format!("{} was answered {who}", visitor.mark));
        false
    }

    /// The text of an answer 200.
    fn ask(&self, visitor: &mut Visitor, path: &str, needs: Needs) -> Option<String> {
        let seen = &self.seen;
        let start = Instant::now();
        let answer = visitor.browser.get(path);
        let took = start.elapsed().as_micros() as u64;
        seen.requests.fetch_add(1, Ordering::Relaxed);
        if needs == Needs::Session {
            seen.slowest.fetch_max(took, Ordering::Relaxed);
        }
        let odd = |why: &str| {
            let what = || format!("{path}: {why}: {} {:?}", answer.status, answer.headers);
            seen.note(&seen.odd, what);
        };
        if answer.status == 200 {
            return Some(answer.text().to_owned());
        }
        if needs == Needs::Nothing {
            odd("needs no session");
        }
        if answer.header("set-cookie").is_some() {
            odd("a cookie with a failure");
        }
        match answer.status {
            503 if !has_retry_after(&answer) => odd("no Retry-After"),
            503 => drop(seen.unavailable.fetch_add(1, Ordering::Relaxed)),
            500 => drop(seen.failed.fetch_add(1, Ordering::Relaxed)),
            _ => odd("status"),
        }
        None
    }
}

fn has_retry_after(answer: &Reply) -> bool {
    answer.header("retry-after").is_some_and(|value| value.parse::<u32>().is_ok())
}

impl Seen {
    fn note(&self, counter: &AtomicU64, example: impl FnOnce() -> String) {
        counter.fetch_add(1, Ordering::Relaxed);
        let mut examples = lock(&self.examples);
        if examples.len() < 5 {
            examples.push(example());
        }
    }

    pub fn failures(&self) -> u64 {
        self.unavailable.load(Ordering::Relaxed) + self.failed.load(Ordering::Relaxed)
    }

    /// Nobody saw another's session, lost a write, or was told a failure in the wrong way.
    pub fn assert_right(&self, scenario: &str) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let bad = (count(&self.wrong), count(&self.lost), count(&self.odd));
        assert_eq!(bad, (0, 0, 0), "{scenario}: wrong, lost, odd: {:#?}", lock(&self.examples));
    }

    /// The slowest answer of a route with a session or a connection.
    pub fn slowest(&self) -> Duration {
        Duration::from_micros(self.slowest.load(Ordering::Relaxed))
    }

    /// The 99th percentile of a route that needs neither.
    pub fn plain_p99(&self) -> Duration {
        let mut times = lock(&self.plain).clone();
        times.sort();
        times.get(times.len() * 99 / 100).copied().unwrap_or_default()
    }

    pub fn take_health_from(&self, other: &Seen) {
        *lock(&self.healthy) = other.healthy_p99();
    }

    /// The same while all was well.
    pub fn healthy_p99(&self) -> Duration {
        *lock(&self.healthy)
    }
}

struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
