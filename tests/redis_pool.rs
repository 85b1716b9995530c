//! What the pool and the connections of handlers do when Redis or the network between does not do well.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bottle_session::redis_crate::{self as redis, Commands};
use bottle_session::{
    App, BreakerState, ErrorKind, RedisCluster, RedisConfig, RedisConnection, RedisPlugin,
    RedisPool, Result, Session, SessionPlugin, TestClient,
};

use crate::faults::wait_until;
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::logs::{collect_logs, errors_of, logs_of};
use crate::support::redis_server::RedisServer;

/// A server, a proxy in front of it, and a pool that goes through the proxy.
fn proxied(pool_size: u32) -> (RedisServer, FaultProxy, RedisPool) {
    let (server, port) = RedisServer::start_on_port();
    let proxy = FaultProxy::start(port);
    let config = RedisConfig::from_url(&proxy.url()).unwrap().pool_size(pool_size);
    (server, proxy, RedisPool::new(config.operation_timeout(Duration::from_millis(200))).unwrap())
}

fn pool_of(server: &RedisServer, connections: u32) -> RedisPool {
    let config = RedisConfig::from_url(&server.url(0)).unwrap().pool_size(connections);
    RedisPool::new(config).unwrap()
}

fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

/// Tries until it works.
fn recovers(pool: &RedisPool) -> RedisConnection {
    let mut connection = pool.connection();
    while connection.run::<String>(&redis::cmd("PING")).is_err() {
        std::thread::yield_now();
    }
    connection
}

#[test]
fn a_pool_opens_while_redis_is_down_and_finds_it_later() {
    let (mut server, port) = RedisServer::start_on_port();
    server.kill();
    let pool = RedisPool::open(&format!("redis://127.0.0.1:{port}")).unwrap();
    let mut connection = pool.connection();
    assert_eq!(kind(connection.incr::<u64>("n", 1)), ErrorKind::Unavailable);
    assert_eq!(pool.breaker(), BreakerState::Open);
    let error = connection.incr::<u64>("n", 1).unwrap_err();
    assert!(error.to_string().contains("failing at once until it answers again"), "{error}");
    server.start_again();
    recovers(&pool);
    assert_eq!(pool.breaker(), BreakerState::Closed);
    assert_eq!(connection.incr::<u64>("n", 1).unwrap(), 1);
}

#[test]
fn a_restart_goes_unnoticed_by_who_comes_afterwards() {
    let (mut server, port) = RedisServer::start_on_port();
    let pool = RedisPool::open(&format!("redis://127.0.0.1:{port}")).unwrap();
    let mut three = [pool.connection(), pool.connection(), pool.connection()];
    for connection in &mut three {
        connection.set("key", "value").unwrap();
    }
    drop(three);
    server.kill();
    server.start_again();
    for _ in 0..3 {
        let mut connection = pool.connection();
        assert_eq!(connection.get::<Option<String>>("key").unwrap(), None);
    }
}

#[test]
fn connections_that_the_server_closed_are_replaced_unnoticed() {
    let server = RedisServer::start(&[]);
    let pool = pool_of(&server, 2);
    for round in 1..=5 {
        let mut admin = server.connect(0);
        redis::cmd("CLIENT")
            .arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"])
            .exec(&mut admin)
            .unwrap();
        assert_eq!(pool.connection().incr::<u64>("n", 1).unwrap(), round);
    }
}

#[test]
fn a_held_connection_that_the_server_closed_is_replaced_unnoticed() {
    let server = RedisServer::start(&[]);
    let pool = pool_of(&server, 1);
    let mut connection = pool.connection();
    let kill = ["KILL", "TYPE", "normal", "SKIPME", "yes"];
    for round in 1..=5 {
        assert_eq!(connection.incr::<u64>("n", 1).unwrap(), round);
        redis::cmd("CLIENT").arg(&kill).exec(&mut server.connect(0)).unwrap();
    }
    // What the server kept for it is gone with it: that must not go unnoticed.
    connection.command::<()>("WATCH", "n").unwrap();
    redis::cmd("CLIENT").arg(&kill).exec(&mut server.connect(0)).unwrap();
    assert_eq!(kind(connection.incr::<u64>("n", 1)), ErrorKind::Unavailable);
}

#[test]
fn a_late_reply_reaches_nobody() {
    let (_server, proxy, pool) = proxied(1);
    for round in 0..5 {
        let (mine, yours) = (format!("mine{round}"), format!("yours{round}"));
        let mut connection = pool.connection();
        connection.set(&mine, "mine").unwrap();
        connection.set(&yours, "yours").unwrap();
        proxy.set(Fault::Stall);
        assert_eq!(kind(connection.get::<String>(&mine)), ErrorKind::Unavailable);
        drop(connection);
        // The reply comes now.
        proxy.set(Fault::Pass);
        assert_eq!(recovers(&pool).get::<String>(&yours).unwrap(), "yours");
    }
}

#[test]
fn a_reply_that_trickles_does_not_stretch_the_deadline() {
    let (server, proxy, pool) = proxied(1);
    let () = server.connect(0).set("key", "x".repeat(1000)).unwrap();
    let mut connection = pool.connection();
    connection.exists("key").unwrap();
    // Each byte comes well within the time-out of one read, and all of them in half a minute.
    proxy.set(Fault::Trickle(Duration::from_millis(30)));
    let error = connection.get::<String>("key").unwrap_err();
    assert!(error.to_string().contains("no reply within 200ms"), "{error}");
}

#[test]
fn a_batch_has_one_deadline() {
    let (_server, proxy, pool) = proxied(1);
    let mut connection = pool.connection();
    connection.set("key", 1).unwrap();
    proxy.set(Fault::Trickle(Duration::from_millis(5)));
    // A hundred replies of four bytes: each is quick, all of them are not.
    let mut pipeline = redis::pipe();
    for _ in 0..100 {
        pipeline.cmd("EXISTS").arg("key");
    }
    let error = pipeline.query::<Vec<bool>>(&mut connection).unwrap_err();
    assert!(error.is_timeout(), "{error}");
    assert_eq!(bottle_session::Error::from(error).kind(), ErrorKind::Unavailable);
}

#[test]
fn a_reply_that_nobody_asked_for_closes_the_connection() {
    let (server, proxy, pool) = proxied(1);
    let mut connection = pool.connection();
    connection.set("key", "value").unwrap();
    let before = server.newest_client();
    proxy.set(Fault::Garbage(b"+OK\r\n$7\r\nforeign\r\n"));
    assert_eq!(kind(connection.set("key", "value")), ErrorKind::Unavailable);
    drop(connection);
    proxy.set(Fault::Pass);
    assert_eq!(recovers(&pool).get::<String>("key").unwrap(), "value");
    assert_ne!(server.newest_client(), before);
}

#[test]
fn the_beginning_of_a_reply_that_nobody_asked_for_closes_the_connection() {
    // What is left over waits in this side's memory, where no look at the socket finds it.
    for left_over in [&b"+OK\r\n+"[..], b"+OK\r\n$8\r\n", b"+OK\r\n*1\r\n", b"+OK\r\nnonsense"] {
        let (server, proxy, pool) = proxied(1);
        let mut connection = pool.connection();
        connection.set("key", "value").unwrap();
        let before = server.newest_client();
        proxy.set(Fault::Garbage(left_over));
        assert_eq!(kind(connection.set("key", "value")), ErrorKind::Unavailable, "{left_over:?}");
        drop(connection);
        proxy.set(Fault::Pass);
        assert_eq!(recovers(&pool).get::<String>("key").unwrap(), "value");
        assert_ne!(server.newest_client(), before);
    }
}

#[test]
fn the_late_answer_to_our_own_question_reaches_nobody() {
    let (server, proxy, pool) = proxied(1);
    let () = server.connect(0).set("key", "value").unwrap();
    // Connecting has a second, which this is well within; the pool's question after it has 200 ms.
    proxy.set(Fault::Delay(Duration::from_millis(300)));
    let mut connection = pool.connection();
    let answer = connection.get::<String>("key");
    assert!(answer.as_ref().is_ok_and(|value| value == "value") || answer.is_err(), "{answer:?}");
    drop(connection);
    proxy.set(Fault::Pass);
    assert_eq!(recovers(&pool).get::<String>("key").unwrap(), "value");
}

#[test]
fn a_reply_past_the_limit_is_not_read_any_further() {
    let (server, port) = RedisServer::start_on_port();
    let config = RedisConfig::from_url(&format!("redis://127.0.0.1:{port}")).unwrap();
    let pool = RedisPool::new(config.pool_size(1).max_reply(100_000)).unwrap();
    let mut connection = pool.connection();
    connection.set("small", "x".repeat(90_000)).unwrap();
    connection.set("large", "x".repeat(500_000)).unwrap();
    let before = server.newest_client();
    let error = connection.get::<String>("large").unwrap_err();
    // Another try would not help, and Redis is not down.
    assert_eq!(error.kind(), ErrorKind::Redis);
    for expected in ["more than 100000 bytes", "raise RedisConfig::max_reply"] {
        assert!(error.to_string().contains(expected), "{error}");
    }
    assert_eq!(pool.breaker(), BreakerState::Closed);
    assert_eq!(connection.get::<String>("small").unwrap().len(), 90_000);
    assert_ne!(server.newest_client(), before);
    // All replies of a round trip count together, and each round trip anew.
    let mut both = redis::pipe();
    both.get("small").get("small");
    assert!(both.query::<(String, String)>(&mut connection).is_err());
    assert_eq!(connection.get::<String>("small").unwrap().len(), 90_000);
}

#[test]
fn no_time_is_too_long() {
    let server = RedisServer::start(&[]);
    let config = RedisConfig::from_url(&server.url(0)).unwrap();
    let config = config.connect_timeout(Duration::MAX).operation_timeout(Duration::MAX);
    let pool = RedisPool::new(config).unwrap();
    assert_eq!(pool.connection().incr::<u64>("n", 1).unwrap(), 1);
}

#[test]
fn garbage_closes_the_connection() {
    for garbage in [&b"HTTP/1.1 200 OK\r\n\r\n"[..], b"$3\r\nabcdef\r\n", b"\0\0\0\n"] {
        let (_server, proxy, pool) = proxied(1);
        let mut connection = pool.connection();
        connection.set("key", "value").unwrap();
        proxy.set(Fault::Garbage(garbage));
        assert_eq!(kind(connection.get::<String>("key")), ErrorKind::Unavailable);
        proxy.set(Fault::Pass);
        assert_eq!(recovers(&pool).get::<String>("key").unwrap(), "value");
    }
}

#[test]
fn a_state_that_passes_is_no_reason_to_reconnect() {
    let (server, proxy, pool) = proxied(1);
    let mut connection = pool.connection();
    connection.set("key", "value").unwrap();
    let before = server.newest_client();
    for (answer, expected) in [
        ("-LOADING Redis is loading the dataset in memory", ErrorKind::Unavailable),
        ("-BUSY Redis is busy running a script", ErrorKind::Unavailable),
        ("-MASTERDOWN Link with MASTER is down", ErrorKind::Unavailable),
        ("-OOM command not allowed when used memory > 'maxmemory'", ErrorKind::Unavailable),
        ("-MISCONF Redis is configured to save RDB snapshots", ErrorKind::Unavailable),
        ("-CLUSTERDOWN The cluster is down", ErrorKind::Unavailable),
        ("-NOPERM this user has no permissions", ErrorKind::Config),
        ("-NOAUTH Authentication required", ErrorKind::Config),
        ("-WRONGTYPE Operation against a key", ErrorKind::Config),
        ("-ERR unknown command", ErrorKind::Redis),
    ] {
        proxy.set(Fault::Answer(answer));
        assert_eq!(kind(connection.get::<String>("key")), expected, "{answer}");
        proxy.set(Fault::Pass);
        assert_eq!(connection.get::<String>("key").unwrap(), "value", "{answer}");
        assert_eq!(pool.breaker(), BreakerState::Closed, "{answer}");
    }
    assert_eq!(server.newest_client(), before);
    // Who is master now is not this one: whoever held the connection goes there with the next command.
    proxy.set(Fault::Answer("-READONLY You can't write against a read only replica"));
    assert_eq!(kind(connection.set("key", "value")), ErrorKind::Unavailable);
    proxy.set(Fault::Pass);
    assert_eq!(connection.get::<String>("key").unwrap(), "value");
    assert_ne!(server.newest_client(), before);
}

#[test]
fn a_server_that_is_mute_trips_the_breaker_and_is_found_again() {
    let (_server, proxy, pool) = proxied(4);
    pool.connection().set("key", "value").unwrap();
    proxy.set(Fault::Mute);
    assert_eq!(kind(pool.connection().get::<String>("key")), ErrorKind::Unavailable);
    assert_eq!(pool.breaker(), BreakerState::Open);
    proxy.set(Fault::Pass);
    recovers(&pool);
    assert_eq!(pool.breaker(), BreakerState::Closed);
    assert_eq!(pool.connection().get::<String>("key").unwrap(), "value");
}

#[test]
fn a_command_that_blocks_disturbs_nobody_else() {
    let server = RedisServer::start(&[]);
    let config = RedisConfig::from_url(&server.url(0)).unwrap().pool_size(4);
    let pool = RedisPool::new(config.operation_timeout(Duration::from_millis(100))).unwrap();
    let blocking = std::thread::spawn({
        let pool = pool.clone();
        move || {
            for _ in 0..3 {
                let blocked = pool.connection().command::<()>("BLPOP", &["nothing", "0"]);
                assert_eq!(kind(blocked), ErrorKind::Unavailable);
            }
        }
    });
    while !blocking.is_finished() {
        pool.connection().incr::<u64>("n", 1).unwrap();
    }
    blocking.join().unwrap();
}

#[test]
fn what_is_wrong_with_the_configuration_is_said() {
    let (server, port) = RedisServer::start_on_port();
    redis::cmd("CONFIG")
        .arg(&["SET", "requirepass", "right"])
        .exec(&mut server.connect(0))
        .unwrap();
    let at = |rest: &str| format!("redis://{rest}");
    for (url, expected) in [
        (at(&format!("127.0.0.1:{port}")), "NOAUTH"),
        (at(&format!(":wrong@127.0.0.1:{port}")), "WRONGPASS"),
        (at(&format!("nobody:right@127.0.0.1:{port}")), "WRONGPASS"),
        (at(&format!(":right@127.0.0.1:{port}/99999")), "DB index is out of range"),
    ] {
        let pool = RedisPool::open(&url).unwrap();
        let error = pool.connection().get::<String>("key").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.to_string().contains(expected), "{error}");
        assert!(!format!("{error:?} {pool:?}").contains("wrong@"), "{error:?} {pool:?}");
        // Found when connecting, and said once: nobody else tries a command to find it again.
        assert_eq!(pool.breaker(), BreakerState::Open, "{error}");
        // However often: the reason is not lost while the breaker is open.
        assert_eq!(kind(pool.connection().get::<String>("key")), ErrorKind::Config);
    }
    let pool = RedisPool::open(&at(&format!("default:right@127.0.0.1:{port}/3"))).unwrap();
    assert_eq!(pool.connection().get::<Option<String>>("key").unwrap(), None);
}

/// How often each refusal is tried: whether the error or the end of the connection is seen first is a matter of moments.
const TRIES: usize = 20;

#[test]
fn what_a_server_says_before_it_closes_is_heard_and_decides_whether_it_passes() {
    let denied = "DENIED Redis is running in protected mode because protected mode is enabled and no password is set";
    for (line, expected, status) in [
        ("ERR max number of clients reached", ErrorKind::Unavailable, 503),
        (denied, ErrorKind::Config, 500),
    ] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        // As Redis does: it reads nothing of what was sent meanwhile.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let _ = stream.unwrap().write_all(format!("-{line}\r\n").as_bytes());
            }
        });
        for _ in 0..TRIES {
            let pool = RedisPool::open(&url).unwrap();
            let error = pool.connection().exists("key").unwrap_err();
            assert_eq!(error.kind(), expected, "{error}");
            assert!(error.to_string().contains(line.split_once(' ').unwrap().1), "{error}");
        }
        let pool = RedisPool::open(&url).unwrap();
        let mut app = App::new();
        app.install(SessionPlugin::new().pool(pool)).unwrap();
        app.get("/", |s: &mut Session| s.set("a", "1"));
        assert_eq!(TestClient::new(app).unwrap().get("/").send().status(), status);
    }
}

#[test]
fn a_server_with_as_many_clients_as_it_may_have_says_so_and_is_found_again() {
    let (server, port) = RedisServer::start_on_port();
    let mut only = server.connect(0);
    let mut limit = |clients: &str| {
        redis::cmd("CONFIG").arg(&["SET", "maxclients", clients]).exec(&mut only).unwrap();
    };
    limit("1");
    let open = || RedisPool::open(&format!("redis://127.0.0.1:{port}")).unwrap();
    for _ in 0..TRIES {
        let error = open().connection().exists("key").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains("max number of clients reached"), "{error}");
    }
    let pool = open();
    assert!(pool.connection().exists("key").is_err());
    limit("100");
    recovers(&pool);
}

#[test]
fn a_server_that_takes_nobody_from_other_machines_says_so() {
    let free = std::net::TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port();
    // Before Redis 7, whoever says where to listen is trusted with it.
    let options = ["--port", &free.to_string(), "--protected-mode", "yes"];
    let _server = RedisServer::start(&options);
    // As from elsewhere: by an address of this machine that is not its loopback one, where it has any.
    let route = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    if route.connect("192.0.2.1:9").is_err() {
        return;
    }
    let host = route.local_addr().unwrap().ip();
    for _ in 0..TRIES {
        let pool = RedisPool::open(&format!("redis://{host}:{free}")).unwrap();
        let error = pool.connection().exists("key").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.to_string().contains("DENIED"), "{error}");
    }
}

#[test]
fn what_is_wrong_with_the_configuration_is_logged_once_however_many_requests_it_meets() {
    collect_logs();
    let (server, port) = RedisServer::start_on_port();
    let mut admin = server.connect(0);
    redis::cmd("CONFIG").arg(&["SET", "requirepass", "right"]).exec(&mut admin).unwrap();
    let proxy = FaultProxy::start(port);
    let pool = RedisPool::open(&proxy.url()).unwrap();
    let mut app = App::new();
    app.install(SessionPlugin::new().pool(pool)).unwrap();
    app.get("/logged-once", |_: &mut Session| "served");
    let client = TestClient::new(app).unwrap();
    let status = || {
        client.set_cookie("bottle.session", &"A".repeat(43));
        client.get("/logged-once").send().status()
    };
    // It is heard also where Redis was just down before.
    proxy.set(Fault::Refuse);
    assert_eq!(status(), 503);
    proxy.set(Fault::Pass);
    wait_until("the missing password is found", || status() == 500);
    assert!((0..50).all(|_| status() == 500));
    let address = proxy.url().trim_start_matches("redis://").to_owned();
    let errors = errors_of(&address);
    assert_eq!(errors.iter().filter(|line| line.contains("NOAUTH")).count(), 1, "{errors:?}");
    assert_eq!(errors_of("/logged-once"), [""; 0]);
}

#[test]
fn a_redis_that_drops_sessions_when_its_memory_is_full_is_warned_of_once() {
    for (policy, warned) in [
        ("noeviction", 0),
        ("allkeys-lru", 1),
        // Of these each drops keys that have an end, as all sessions have.
        ("volatile-lru", 1),
        ("volatile-ttl", 1),
    ] {
        let server = RedisServer::start(&["--maxmemory-policy", policy]);
        let pool = pool_of(&server, 2);
        let (mut one, mut other) = (pool.connection(), pool.connection());
        assert!(one.exists("any").is_ok() && other.exists("any").is_ok());
        let warnings = logs_of(server.url(0).trim_start_matches("redis+"));
        assert_eq!(warnings.len(), warned, "{policy}: {warnings:?}");
        assert!(warnings.iter().all(|line| line.contains(policy)), "{warnings:?}");
    }
}

#[test]
fn a_pool_that_is_exhausted_says_so_and_is_not_down() {
    let server = RedisServer::start(&[]);
    let config = RedisConfig::from_url(&server.url(0)).unwrap().pool_size(1);
    let pool = RedisPool::new(config.connect_timeout(Duration::from_millis(50))).unwrap();
    let mut first = pool.connection();
    first.incr::<u64>("n", 1).unwrap();
    let error = pool.connection().incr::<u64>("n", 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("all 1 connections of the pool were in use"), "{error}");
    assert_eq!(pool.breaker(), BreakerState::Closed);
    first.give_back();
    assert_eq!(pool.connection().incr::<u64>("n", 1).unwrap(), 2);
}

#[test]
fn what_one_user_leaves_behind_the_next_does_not_find() {
    let server = RedisServer::start(&[]);
    let pool = pool_of(&server, 1);
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    for left in [
        "SELECT 7",
        "select 7",
        "MULTI",
        "WATCH key",
        "SUBSCRIBE news",
        "SUBSCRIBE news weather",
        "MONITOR",
        "CLIENT SETNAME somebody",
        "CLIENT REPLY SKIP",
        "HELLO 3",
        "RESET",
    ] {
        let words = words(left);
        let mut first = pool.connection();
        // Whether it works (HELLO 3 changes the protocol) is not the question.
        let _ = first.command::<redis::Value>(&words[0], &words[1..]);
        drop(first);
        let mut second = pool.connection();
        second.set("key", "value").unwrap();
        assert_eq!(second.get::<String>("key").unwrap(), "value", "{left}");
        let client: String = second.command("CLIENT", "INFO").unwrap();
        for expected in [" db=0 ", " sub=0 ", " multi=-1 ", " name=bottle-session "] {
            assert!(client.contains(expected), "{left}: {client}");
        }
        // Redis tells of it since version 7.
        assert!(!client.contains(" resp=3"), "{left}: {client}");
    }
}

#[test]
fn the_redis_crate_works_on_a_handlers_connection() {
    let server = RedisServer::start(&[]);
    let mut connection = pool_of(&server, 1).connection();
    let () = Commands::set(&mut connection, "a", 1).unwrap();
    let (a, b): (i64, i64) =
        redis::pipe().atomic().incr("a", 1).incr("b", 5).query(&mut connection).unwrap();
    assert_eq!((a, b), (2, 5));
    let script = redis::Script::new("return redis.call('GET', KEYS[1]) .. ARGV[1]");
    assert_eq!(script.key("a").arg("!").invoke::<String>(&mut connection).unwrap(), "2!");
    // A transaction that Redis refuses to queue leaves the connection in order.
    let refused = redis::pipe().atomic().cmd("NONSENSE").incr("a", 1).exec(&mut connection);
    assert!(refused.is_err());
    assert_eq!(connection.get::<i64>("a").unwrap(), 2);
    let keys: Vec<String> = connection.scan().unwrap().collect::<redis::RedisResult<_>>().unwrap();
    assert_eq!(keys.len(), 2);
}

#[test]
fn the_common_commands_do_what_they_say() {
    let server = RedisServer::start(&[]);
    let mut rdb = pool_of(&server, 1).connection();
    rdb.set("name", "Ada").unwrap();
    assert_eq!(rdb.get::<Option<String>>("name").unwrap().as_deref(), Some("Ada"));
    assert!(rdb.exists("name").unwrap() && rdb.expire("name", 60).unwrap());
    assert!(rdb.del("name").unwrap() && !rdb.del("name").unwrap());
    assert_eq!(rdb.incr::<i64>("n", 3).unwrap(), 3);
    assert_eq!(rdb.incr::<i64>("n", -1).unwrap(), 2);
    assert!(rdb.hset("hash", "field", 1).unwrap());
    assert_eq!(rdb.hincr::<i64>("hash", "field", 2).unwrap(), 3);
    assert_eq!(rdb.hget::<u8>("hash", "field").unwrap(), 3);
    let all: std::collections::HashMap<String, i32> = rdb.hgetall("hash").unwrap();
    assert_eq!(all["field"], 3);
    assert!(rdb.hdel("hash", "field").unwrap());
    assert_eq!(rdb.lpush("list", &["a", "b", "c"]).unwrap(), 3);
    rdb.ltrim("list", 0, 1).unwrap();
    assert_eq!(rdb.lrange::<String>("list", 0, -1).unwrap(), ["c", "b"]);
    // A reply that does not fit is the app's mistake, and no more than that.
    assert_eq!(kind(rdb.get::<u8>("nothing here")), ErrorKind::Redis);
    assert_eq!(rdb.incr::<i64>("n", 1).unwrap(), 3);
}

#[test]
fn who_hears_that_redis_is_down_may_use_the_pool() {
    let (mut server, port) = RedisServer::start_on_port();
    server.kill();
    let pool = RedisPool::open(&format!("redis://127.0.0.1:{port}")).unwrap();
    let its = pool.clone();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let told = heard.clone();
    pool.on_breaker(move |down| {
        its.on_breaker(|_| ());
        let failed = its.connection().exists("any").is_err();
        told.lock().unwrap().push((down.is_some(), failed));
    });
    let asking = std::thread::spawn(move || pool.connection().exists("any").is_err());
    wait_until("it has been told", || asking.is_finished());
    assert!(asking.join().unwrap());
    assert_eq!(*heard.lock().unwrap(), [(true, true)]);
}

#[test]
fn an_observer_that_panics_changes_no_answer() {
    let (mut server, port) = RedisServer::start_on_port();
    server.kill();
    let pool = RedisPool::open(&format!("redis://127.0.0.1:{port}")).unwrap();
    pool.on_breaker(|_| std::panic::resume_unwind(Box::new("on purpose")));
    assert_eq!(kind(pool.connection().exists("any")), ErrorKind::Unavailable);
    server.start_again();
    wait_until("Redis is found again", || pool.connection().exists("any").is_ok());
    assert_eq!(pool.breaker(), BreakerState::Closed);
}

#[test]
fn a_plugin_with_two_ideas_of_where_redis_is_is_refused() {
    let pool = RedisPool::open("redis://localhost").unwrap();
    let plugin = RedisPlugin::new().pool(pool).url("redis://example.org");
    let error = App::new().install(plugin).unwrap_err();
    assert!(error.to_string().contains("a pool knows where Redis is"), "{error}");
}

#[test]
fn a_host_that_is_none_is_refused_at_install_wherever_it_came_from() {
    for host in ["redis://:secret@db", "user:secret@db", "db/secret", "secret@db"] {
        let config = || RedisConfig::default().host(host);
        let refused = [
            App::new().install(SessionPlugin::new().host(host)).unwrap_err(),
            App::new().install(RedisPlugin::new().config(config())).unwrap_err(),
            RedisPool::new(config()).unwrap_err(),
            RedisPool::sentinel(["redis://db"], "m", config().username("secret")).unwrap_err(),
        ];
        for (number, error) in refused.iter().enumerate() {
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
            let expected = if number == 3 {
                "a user without a password"
            } else {
                "the host is no name or address"
            };
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
    for url in ["redis://:sec/ret@db", "redis://db/@secret", "secret:6379", "redis://a b"] {
        let error = App::new().install(SessionPlugin::new().url(url)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
        assert!(RedisCluster::new([url], RedisConfig::default()).is_err());
        assert!(RedisPool::sentinel([url], "m", RedisConfig::default()).is_err());
    }
}

#[test]
fn an_error_of_redis_shows_no_arguments() {
    let server = RedisServer::start(&[]);
    let mut connection = pool_of(&server, 1).connection();
    let error = connection.command::<()>("NONSENSE", &["key", "secret"]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Redis);
    // Quoted in one way or another.
    let text = error.to_string().replace('`', "'");
    assert!(text.contains("unknown command 'NONSENSE'"), "{error}");
    assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
}

#[test]
fn a_command_has_arguments_of_any_shape_or_none_and_the_redis_crate_has_more() {
    use bottle_session::redis_crate::{Commands, pipe};

    let server = RedisServer::shared();
    let pool = RedisPool::open(&server.url(server.fresh_database())).unwrap();
    let mut rdb = pool.connection();
    let names = vec!["b".to_owned(), "c".to_owned()];
    assert_eq!(rdb.command::<u64>("SADD", ("set", "a")).unwrap(), 1);
    assert_eq!(rdb.command::<u64>("SADD", ("set", &names)).unwrap(), 2);
    assert_eq!(rdb.command::<u64>("SCARD", "set").unwrap(), 3);
    assert_eq!(rdb.command::<u64>("SCARD", String::from("set")).unwrap(), 3);
    assert_eq!(rdb.command::<u64>("SADD", ["set", "d"]).unwrap(), 1);
    assert_eq!(rdb.command::<u64>("SADD", &["set", "e"]).unwrap(), 1);
    // What the crate has as traits and pipelines works on the connection.
    let members: std::collections::BTreeSet<String> = rdb.smembers("set").unwrap();
    assert_eq!(members.len(), 5);
    let both: (u64, u64) = pipe().incr("n", 2).incr("n", 3).query(&mut rdb).unwrap();
    assert_eq!(both, (2, 5));
    rdb.command::<()>("FLUSHDB", ()).unwrap();
    assert_eq!(rdb.command::<u64>("DBSIZE", ()).unwrap(), 0);
}
