//! Everything that can go wrong with Redis, under load: nobody sees another's session, nothing acknowledged
//! is lost, and all is well again when the fault is over.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};

use bottle_session::{
    App, BreakerState, Event, RedisConfig, RedisConnection, RedisPool, Result, Session,
    SessionPlugin, TestClient,
};

use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::redis_server::RedisServer;
use crate::support::visitors::{self, Site};
#[cfg(target_os = "linux")]
use crate::support::{http, process::Program};

const CONNECT: Duration = Duration::from_millis(500);
const OPERATION: Duration = Duration::from_millis(250);
const POOL: u32 = 4;

struct Stage {
    redis: RedisServer,
    proxy: FaultProxy,
    site: Site,
}

fn stage() -> Stage {
    stage_with(&[], POOL)
}

fn stage_with(options: &[&str], pool_size: u32) -> Stage {
    let (redis, port) = RedisServer::start_on_port_with(options);
    let proxy = FaultProxy::start(port);
    let config = RedisConfig::from_url(&proxy.url())
        .unwrap()
        .connect_timeout(CONNECT)
        .operation_timeout(OPERATION)
        .pool_size(pool_size);
    let site = Site::new(RedisPool::new(config).unwrap());
    Stage { redis, proxy, site }
}

impl Stage {
    /// Lets the visitors come, a fault begin, strike until `enough`, and end; then everybody must be served
    /// as before.
    fn play(
        &mut self,
        scenario: &str,
        begin: impl FnOnce(&mut RedisServer, &FaultProxy),
        enough: impl Fn(&Site, &FaultProxy) -> bool,
        end: impl FnOnce(&mut RedisServer, &FaultProxy),
    ) {
        let Stage { redis, proxy, site } = self;
        wait_until("everybody has logged in", || site.everybody_is_served());
        site.measure_health();
        let over = site.under_load(|| {
            begin(redis, proxy);
            wait_until("the fault has struck", || enough(site, proxy));
            end(redis, proxy);
            Instant::now()
        });
        self.recover(scenario, over);
    }

    /// Measures how it is while all is well with other visitors, of whom these know nothing.
    fn measure_with_others(&self) {
        let others = Site::new(RedisPool::open(&self.proxy.url()).unwrap());
        others.measure_health();
        self.site.seen.take_health_from(&others.seen);
    }

    fn recover(&mut self, scenario: &str, over: Instant) {
        let site = &self.site;
        wait_until("everybody is served again", || site.everybody_is_served());
        let recovery = over.elapsed();
        site.seen.assert_right(scenario);
        let settings = ["NOAUTH", "WRONGTYPE", "wrong password"].contains(&scenario);
        let failed = site.seen.failed.load(Ordering::Relaxed);
        assert!(settings || failed == 0, "{scenario}: {failed} answers 500, and it passes");
        assert_eq!(site.pool.breaker(), BreakerState::Closed);
        // Also those that were given up.
        wait_until("no connection is left over", || clients(&site.pool) <= POOL as usize);
        report(scenario, site, recovery);
    }
}

/// How many clients the server has over TCP.
fn clients(pool: &RedisPool) -> usize {
    let list: Result<String> = pool.connection().command("CLIENT", "LIST");
    list.unwrap().lines().filter(|client| client.contains(" addr=127.0.0.1:")).count()
}

/// One row of the table that tests/faults.sh prints.
fn report(scenario: &str, site: &Site, recovery: Duration) {
    let seen = &site.seen;
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "| {scenario} | {} | {} | {} | {} | {} | {} ms | {:.1} ms | {:.1} ms | {} ms |",
        count(&seen.requests),
        count(&seen.wrong),
        count(&seen.lost),
        count(&seen.unavailable),
        count(&seen.failed),
        seen.slowest().as_millis(),
        seen.healthy_p99().as_secs_f64() * 1000.0,
        seen.plain_p99().as_secs_f64() * 1000.0,
        recovery.as_millis(),
    );
}

/// Polls; a condition that never comes true is a failure and not a test that hangs.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..30_000 {
        if condition() {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    panic!("still not true: {what}");
}

fn many_failures(site: &Site, _: &FaultProxy) -> bool {
    site.seen.failures() >= 2_000
}

fn struck(times: u64) -> impl Fn(&Site, &FaultProxy) -> bool {
    move |_, proxy| proxy.affected() >= times
}

fn pass(_: &mut RedisServer, proxy: &FaultProxy) {
    proxy.set(Fault::Pass);
}

/// A connection that a handler holds until it is told to let go.
fn hold(pool: &RedisPool) -> (App, Arc<Barrier>) {
    let (mut app, door) = (visitors::app(pool), Arc::new(Barrier::new(POOL as usize + 1)));
    let inside = door.clone();
    app.get("/hold", move |rdb: &mut RedisConnection| -> Result<&'static str> {
        rdb.set("held", 1)?;
        // Once when all hold one, and once when all may go.
        inside.wait();
        inside.wait();
        Ok("held")
    });
    (app, door)
}

#[test]
fn a_full_pool() {
    let Stage { redis, proxy, site } = stage();
    let (app, door) = hold(&site.pool);
    let mut stage = Stage { redis, proxy, site: Site::serving(site.pool.clone(), app) };
    wait_until("everybody has logged in", || stage.site.everybody_is_served());
    stage.site.measure_health();
    let held = std::thread::scope(|scope| {
        for _ in 0..POOL {
            let mut browser = stage.site.another_browser();
            scope.spawn(move || assert_eq!(browser.get("/hold").text(), "held"));
        }
        door.wait();
        stage.site.under_load(|| {
            wait_until("failures", || stage.site.seen.failures() > 20);
            // Busy is not down.
            assert_eq!(stage.site.pool.breaker(), BreakerState::Closed);
        });
        door.wait();
        Instant::now()
    });
    stage.recover("a full pool", held);
}

/// A fault of the network that is there for a while.
fn network(scenario: &str, fault: Fault, enough: impl Fn(&Site, &FaultProxy) -> bool) {
    stage().play(scenario, |_, proxy| proxy.set(fault), enough, pass);
}

#[test]
fn slow_replies() {
    let slow = Fault::Delay(OPERATION / 10);
    network("replies 25 ms late", slow, struck(100));
}

#[test]
fn stalled_replies_released_late() {
    let mut stage = stage();
    for _ in 0..3 {
        let stall = |_: &mut _, proxy: &FaultProxy| proxy.set(Fault::Stall);
        let seen = |site: &Site| site.seen.failures();
        let before = seen(&stage.site);
        stage.play(
            "replies stalled, released late",
            stall,
            |site, _| seen(site) > before + 500,
            pass,
        );
    }
}

#[test]
fn trickling_replies() {
    let trickle = Fault::Trickle(OPERATION / 3);
    network("replies one byte at a time", trickle, many_failures);
}

#[test]
fn cut_before_the_request() {
    network("cut before the request arrives", Fault::CutBefore, many_failures);
}

#[test]
fn cut_after_the_request() {
    network("cut after the request arrived", Fault::CutAfter, many_failures);
}

#[test]
fn cut_at_random() {
    network("one chunk in 20 cut in the middle", Fault::CutAtRandom(20), struck(200));
}

#[test]
fn garbage() {
    let garbage = Fault::Garbage(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    network("garbage", garbage, many_failures);
}

#[test]
fn more_replies_than_commands() {
    let another = Fault::Garbage(b"$9\r\nvisitor-1\r\n$9\r\nvisitor-1\r\n");
    network("two replies to one command", another, many_failures);
}

#[test]
fn connections_refused() {
    let refuse = |_: &mut RedisServer, proxy: &FaultProxy| {
        proxy.set(Fault::Refuse);
        proxy.cut();
    };
    stage().play("connections closed at once", refuse, many_failures, pass);
}

#[test]
fn connections_accepted_and_never_answered() {
    let mute = |_: &mut RedisServer, proxy: &FaultProxy| {
        proxy.set(Fault::Mute);
        proxy.cut();
    };
    stage().play("accepted and never answered", mute, many_failures, pass);
}

#[test]
fn loading() {
    let loading = Fault::Answer("-LOADING Redis is loading the dataset in memory");
    network("LOADING", loading, many_failures);
}

#[test]
fn redis_absent_at_start() {
    let mut stage = stage();
    stage.measure_with_others();
    stage.redis.kill();
    stage.site.under_load(|| wait_until("failures", || stage.site.seen.failures() > 1_000));
    stage.redis.start_again();
    stage.recover("absent at start", Instant::now());
}

#[test]
fn killed_and_started_again() {
    // Each write is on disk before it is acknowledged.
    let mut stage = stage_with(&["--appendonly", "yes", "--appendfsync", "always"], POOL);
    let kill = |redis: &mut RedisServer, _: &FaultProxy| redis.kill();
    stage.play("killed and started again", kill, many_failures, |redis, _| redis.start_again());
}

#[test]
fn killed_and_slow_to_load_its_data() {
    // Microseconds for each command that the visitors left; others are answered after each thousand.
    let options = ["--appendonly", "yes", "--appendfsync", "always", "--key-load-delay", "100"];
    let mut stage = stage_with(&options, POOL);
    let kill = |redis: &mut RedisServer, _: &FaultProxy| {
        redis.kill();
        redis.begin_again();
        wait_until("it says LOADING", || redis.is_loading());
    };
    stage.play("killed and slow to load its data", kill, |_, _| true, |redis, _| redis.wait());
    assert!(stage.site.seen.unavailable.load(Ordering::Relaxed) > 0);
}

/// Sends commands to the server itself, past the proxy.
fn tell(redis: &RedisServer, commands: &[&[&str]]) {
    let mut connection = redis.connect(0);
    for words in commands {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]).exec(&mut connection).unwrap_or_else(|e| panic!("{words:?}: {e}"));
    }
}

#[test]
fn client_kill() {
    let mut stage = stage();
    let kill = |redis: &mut RedisServer, _: &FaultProxy| {
        let mut connection = redis.connect(0);
        for _ in 0..100 {
            let kill = ["KILL", "TYPE", "normal", "SKIPME", "yes"];
            redis::cmd("CLIENT").arg(&kill).exec(&mut connection).unwrap();
            // Somebody has to be connected, or there is nobody to kill.
            wait_until("a visitor's connection", || redis.clients() > 0);
        }
    };
    stage.play("CLIENT KILL, 100 times", kill, |_, _| true, |_, _| ());
}

#[test]
fn out_of_memory() {
    let fill = |redis: &mut RedisServer, _: &FaultProxy| {
        let full: [&[&str]; 2] = [
            &["CONFIG", "SET", "maxmemory-policy", "noeviction"],
            &["CONFIG", "SET", "maxmemory", "1"],
        ];
        tell(redis, &full);
    };
    let free = |redis: &mut RedisServer, _: &FaultProxy| {
        tell(redis, &[&["CONFIG", "SET", "maxmemory", "0"]]);
    };
    stage().play("OOM with noeviction", fill, many_failures, free);
}

#[test]
fn wrong_type() {
    // All sessions step aside for lists of the same name, and come back afterwards.
    let swap = |to: &'static str| {
        move |redis: &mut RedisServer, _: &FaultProxy| {
            let script = match to {
                "lists" => {
                    "for _, key in ipairs(redis.call('KEYS', 'bottle.session:*')) do
                       redis.call('RENAME', key, 'aside:' .. key); redis.call('RPUSH', key, 'x')
                     end"
                }
                _ => {
                    "for _, key in ipairs(redis.call('KEYS', 'aside:*')) do
                       redis.call('RENAME', key, string.sub(key, 7))
                     end"
                }
            };
            tell(redis, &[&["EVAL", script, "0"]]);
        }
    };
    stage().play("WRONGTYPE", swap("lists"), many_failures, swap("sessions"));
}

#[test]
fn no_password_where_one_is_needed() {
    let lock = |redis: &mut RedisServer, proxy: &FaultProxy| {
        tell(redis, &[&["CONFIG", "SET", "requirepass", "secret"]]);
        // Who is connected stays so; new connections need the password.
        proxy.cut();
    };
    stage().play("NOAUTH", lock, many_failures, unlock);
}

fn unlock(redis: &mut RedisServer, _: &FaultProxy) {
    let mut connection = redis.connect_with_password("secret");
    let open = ["SET", "requirepass", ""];
    redis::cmd("CONFIG").arg(&open).exec(&mut connection).unwrap();
}

#[test]
fn a_wrong_password() {
    let (redis, port) = RedisServer::start_on_port();
    let proxy = FaultProxy::start(port);
    let config = RedisConfig::from_url(&proxy.url()).unwrap().password("guess").pool_size(POOL);
    let mut stage = Stage { redis, proxy, site: Site::new(RedisPool::new(config).unwrap()) };
    stage.measure_with_others();
    tell(&stage.redis, &[&["CONFIG", "SET", "requirepass", "secret"]]);
    stage.site.under_load(|| wait_until("failures", || stage.site.seen.failures() > 1_000));
    assert_eq!(stage.site.seen.unavailable.load(Ordering::Relaxed), 0, "a matter of settings");
    let mut connection = stage.redis.connect_with_password("secret");
    let right = ["SET", "requirepass", "guess"];
    redis::cmd("CONFIG").arg(&right).exec(&mut connection).unwrap();
    stage.recover("wrong password", Instant::now());
}

#[test]
fn a_replica_that_refuses_writes() {
    let demote = |redis: &mut RedisServer, _: &FaultProxy| {
        // Its master is nobody: the port of a listener that has gone.
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        tell(redis, &[&["REPLICAOF", "127.0.0.1", &nobody.port().to_string()]]);
    };
    let promote =
        |redis: &mut RedisServer, _: &FaultProxy| tell(redis, &[&["REPLICAOF", "NO", "ONE"]]);
    stage().play("READONLY", demote, many_failures, promote);
}

#[test]
fn busy_with_a_script() {
    // Redis 7 has a newer name for it, and still knows this one.
    let mut stage = stage_with(&["--lua-time-limit", "100"], POOL);
    let mut running = None;
    let slow = |redis: &mut RedisServer, _: &FaultProxy| {
        let mut connection = redis.connect(0);
        running = Some(std::thread::spawn(move || {
            redis::cmd("EVAL").arg("while true do end").arg(0).exec(&mut connection).unwrap_err()
        }));
    };
    let kill = |redis: &mut RedisServer, _: &FaultProxy| {
        let mut connection = redis.connect_while_busy();
        redis::cmd("SCRIPT").arg("KILL").exec(&mut connection).unwrap();
    };
    stage.play("BUSY", slow, many_failures, kill);
    let killed = running.expect("it was started").join().unwrap();
    assert!(killed.to_string().contains("killed"), "{killed}");
}

#[test]
fn flushed() {
    let mut stage = stage();
    stage.site.forget();
    let flush = |redis: &mut RedisServer, _: &FaultProxy| {
        for _ in 0..20 {
            tell(redis, &[&["FLUSHALL"], &["SCRIPT", "FLUSH"]]);
        }
    };
    stage.play("FLUSHALL and SCRIPT FLUSH, 20 times", flush, |_, _| true, |_, _| ());
}

#[test]
#[cfg(target_os = "linux")]
fn the_example_server_comes_out_of_faults_with_the_threads_and_connections_it_had() {
    let (redis, port) = RedisServer::start_on_port();
    let proxy = FaultProxy::start(port);
    let greeter = Program::greeter(&[], Some(&proxy.url()));
    let visit = |browser: &mut http::Browser| {
        let set = browser.get(greeter.address, "/set/Ada").status;
        let got = browser.get(greeter.address, "/").status;
        assert!([200, 503].contains(&set) && [200, 503].contains(&got), "{set} {got}");
        (set, got) == (200, 200)
    };
    let play = || {
        let faults = [
            Fault::Stall,
            Fault::Mute,
            Fault::Refuse,
            Fault::CutBefore,
            Fault::CutAfter,
            Fault::CutAtRandom(4),
            Fault::Garbage(b"garbage\r\n"),
            Fault::Answer("-LOADING Redis is loading the dataset in memory"),
        ];
        for fault in faults {
            let cut = matches!(fault, Fault::Mute | Fault::Refuse);
            proxy.set(fault);
            if cut {
                proxy.cut();
            }
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        let mut browser = http::Browser::default();
                        for _ in 0..20 {
                            visit(&mut browser);
                        }
                    });
                }
            });
            proxy.set(Fault::Pass);
            let browser = Mutex::new(http::Browser::default());
            wait_until("it serves again", || visit(&mut browser.lock().unwrap()));
        }
    };
    play();
    let (threads, files) = greeter.threads_and_files();
    (0..3).for_each(|_| play());
    // But for another event loop: its worker, its poller and waker, its connection to Redis.
    wait_until("no more threads and files than after the first time", || {
        let now = greeter.threads_and_files();
        now.0 <= threads + 1 && now.1 <= files + 3
    });
    // The default size of a pool.
    assert!(redis.clients() <= 16, "{}", redis.clients());
}

#[test]
fn the_breaker_tells_when_it_opens_and_closes() {
    let Stage { mut redis, proxy: _proxy, site } = stage();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let ears = heard.clone();
    let plugin =
        SessionPlugin::new().pool(site.pool.clone()).events(move |event: Event<'_>| match event {
            Event::BreakerOpened(why) => ears.lock().unwrap().push(format!("opened: {why}")),
            Event::BreakerClosed => ears.lock().unwrap().push("closed".to_owned()),
            _ => {}
        });
    let counters = plugin.counters();
    let mut app = App::new();
    app.install(plugin).unwrap();
    app.get("/", |session: &mut Session| session.set("name", "Ada"));
    let client = TestClient::new(app).unwrap();
    redis.kill();
    for _ in 0..20 {
        assert_eq!(client.get("/").send().status(), 503);
    }
    redis.start_again();
    wait_until("it works again", || client.get("/").send().status() == 200);
    let heard = heard.lock().unwrap();
    assert_eq!(heard.len(), 2, "{heard:?}");
    assert!(heard[0].starts_with("opened: redis://127.0.0.1:"), "{heard:?}");
    assert_eq!(heard[1], "closed");
    let counts = counters.snapshot();
    assert_eq!((counts.breaker_opened, counts.breaker_closed), (1, 1));
    assert!(counts.store_error >= 20);
}
