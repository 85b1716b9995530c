//! The settings in the guide's page on Redis, on a real one.

use std::path::Path;
use std::process::Child;

use bottle_session::redis_crate as redis;
use bottle_session::{
    App, ErrorKind, RedisConfig, RedisPool, RedisStore, Session, SessionPlugin, TestClient,
};

use crate::faults::wait_until;
use crate::redis_permissions::{documented, use_all};
use crate::support::logs::{collect_logs, logs_of};
use crate::support::proxies::folder;
use crate::support::redis_server::{RedisServer, info, start_program};
use crate::support::sessions::create;

const PAGE: &str = include_str!("../src/guide/redis.md");

/// The lines of the page in this language.
pub fn lines(language: &str) -> Vec<&'static str> {
    let block = PAGE
        .split_once(&format!("```{language}\n"))
        .and_then(|(_, rest)| rest.split_once("```"))
        .unwrap_or_else(|| panic!("the page has settings for {language}"))
        .0;
    block.lines().collect()
}

/// The same as options of the server's program.
pub fn options(language: &str) -> Vec<String> {
    let split = |line: &str| {
        let (name, value) = line.split_once(' ').expect("a name and a value");
        [format!("--{name}"), value.to_owned()]
    };
    lines(language).into_iter().flat_map(split).collect()
}

fn app(pool: RedisPool) -> TestClient {
    let mut app = App::new();
    app.install(SessionPlugin::new().pool(pool)).unwrap();
    app.get("/set", |s: &mut Session| s.set("name", "Ada"));
    app.get("/", |s: &mut Session| s.get("name").unwrap_or("nobody").to_owned());
    TestClient::new(app).unwrap()
}

#[test]
fn the_settings_for_the_server_keep_sessions_over_a_crash_and_give_nothing_to_warn_of() {
    collect_logs();
    let options = options("redis-conf");
    let mut server = RedisServer::start(&options.iter().map(String::as_str).collect::<Vec<_>>());
    let client = app(RedisPool::open(&server.url(0)).unwrap());
    assert_eq!(client.get("/set").send().status(), 200);
    assert_eq!(client.get("/").send().text(), "Ada");
    assert_eq!(logs_of(server.url(0).trim_start_matches("redis+")), [""; 0]);
    // The process crashes and not the machine: what was written is the system's.
    server.kill();
    server.start_again();
    wait_until("it is found again", || client.get("/").send().status() == 200);
    assert_eq!(client.get("/").send().text(), "Ada");
}

#[test]
fn connections_that_redis_closes_for_its_timeout_are_replaced_unnoticed() {
    let (server, port) = RedisServer::start_on_port_with(&["--timeout", "1"]);
    let client = app(RedisPool::open(&format!("redis://127.0.0.1:{port}")).unwrap());
    assert_eq!(client.get("/set").send().status(), 200);
    for _ in 0..2 {
        assert!(server.clients() > 0);
        wait_until("Redis has closed them", || server.clients() == 0);
        assert_eq!(client.get("/").send().text(), "Ada");
    }
}

#[test]
fn sessions_take_as_much_memory_as_the_page_says() {
    let server = RedisServer::start(&[]);
    let mut connection = server.connect(0);
    let version = info(&mut connection, "server")["redis_version"].clone();
    let store = RedisStore::new(RedisPool::open(&server.url(0)).unwrap());
    let values = |count: usize, length: usize| {
        (0..count).map(|at| (format!("key {at}"), "x".repeat(length))).collect::<Vec<_>>()
    };
    for (row, fields) in [
        ("one value of 3 bytes", values(1, 3)),
        ("a CSRF token and nothing else", vec![("_csrf".to_owned(), String::new())]),
        ("5 values of 20 bytes", values(5, 20)),
        ("20 values of 50 bytes", values(20, 50)),
        ("20 values of 100 bytes", values(20, 100)),
    ] {
        redis::cmd("FLUSHALL").exec(&mut connection).unwrap();
        let fields: Vec<_> =
            fields.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        create(&store, &fields);
        let key: String = redis::cmd("RANDOMKEY").query(&mut connection).unwrap();
        let usage = redis::cmd("MEMORY").arg("USAGE").arg(key).arg("SAMPLES").arg(0).to_owned();
        let bytes: usize = usage.query(&mut connection).unwrap();
        let said =
            PAGE.split_once(&format!("| {row} | ")).unwrap().1.split_once(" bytes").unwrap().0;
        let said: usize = said.replace(',', "").parse().unwrap();
        // How many buckets a table has is a matter of chance, and other versions need more or less.
        let slack = if version.starts_with("7.0") { said / 20 } else { said / 3 };
        assert!(bytes.abs_diff(said) <= slack, "{row}: {bytes} bytes in Redis {version}");
    }
}

#[test]
fn the_acl_lines_allow_what_sessions_need_and_no_more() {
    let server = RedisServer::start(&[]);
    let mut admin = server.connect(0);
    let mut acl = lines("redis-acl").into_iter();
    let needed = acl.next().unwrap();
    let commands: Vec<_> = needed.split(' ').filter_map(|word| word.strip_prefix('+')).collect();
    assert_eq!(commands, documented(), "the documentation of RedisStore says the same");
    let mut run = |line: &str| {
        let mut words = line.split(' ');
        redis::cmd(words.next().unwrap()).arg(words.collect::<Vec<_>>()).exec(&mut admin).unwrap();
    };
    run(needed);
    let pool = || {
        let config = RedisConfig::from_url(&server.url(0)).unwrap();
        RedisPool::new(config.username("app").password("secret")).unwrap()
    };
    let all_done = |pool: RedisPool| {
        use_all(&RedisStore::new(pool)).into_iter().for_each(|done| {
            assert!(
                done.as_ref().err().is_none_or(|error| error.kind() == ErrorKind::Gone),
                "{done:?}"
            );
        });
    };
    all_done(pool());
    acl.for_each(&mut run);
    all_done(pool());
    let list: String = redis::cmd("CLIENT").arg("LIST").query(&mut server.connect(0)).unwrap();
    let second = pool();
    assert!(second.connection().exists("bottle.session:x").is_ok());
    let named: String = redis::cmd("CLIENT").arg("LIST").query(&mut server.connect(0)).unwrap();
    assert!(named.contains(" name=bottle-session "), "{list} {named}");
}

/// A sentinel with the settings of the page, ended when it is dropped.
struct Sentinel {
    process: Child,
    port: u16,
}

impl Sentinel {
    fn watching(master: u16, folder: &Path) -> Sentinel {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let settings = lines("sentinel-conf").join("\n");
        let settings = settings.replace("10.0.0.1 6379 2", &format!("127.0.0.1 {master} 1"));
        let file = folder.join("sentinel.conf");
        let own = format!("port {port}\nbind 127.0.0.1\ndir {}\n", folder.display());
        std::fs::write(&file, own + &settings + "\n").unwrap();
        let process = start_program(|command| command.arg(file).arg("--sentinel"));
        let sentinel = Sentinel { process, port };
        let listens = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        wait_until("the sentinel listens", listens);
        sentinel
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn behind_sentinels_the_user_needs_one_command_more() {
    let (server, port) = RedisServer::start_on_port();
    let folder = folder("guide-sentinel");
    let sentinel = Sentinel::watching(port, &folder);
    let mut admin = server.connect(0);
    let line = lines("redis-acl")[0].split(' ').collect::<Vec<_>>();
    redis::cmd(line[0]).arg(&line[1..]).exec(&mut admin).unwrap();
    let node = format!("redis://127.0.0.1:{}", sentinel.port);
    let pool = || {
        let config = RedisConfig::default().username("app").password("secret");
        RedisPool::sentinel([node.as_str()], "sessions", config).unwrap()
    };
    let error = pool().connection().exists("bottle.session:x").unwrap_err();
    assert!(error.to_string().contains("NOPERM"), "{error}");
    redis::cmd("ACL").arg(&["SETUSER", "app", "+role"]).exec(&mut admin).unwrap();
    let client = app(pool());
    assert_eq!(client.get("/set").send().status(), 200);
    assert_eq!(client.get("/").send().text(), "Ada");
    // Where the address that they say means nothing here, as in a network of containers.
    let (other, other_port) = RedisServer::start_on_port();
    let announced = format!("127.0.0.1:{port}");
    let reached = format!("127.0.0.1:{other_port}");
    let config = RedisConfig::default().address_map([(announced.as_str(), reached.as_str())]);
    let mapped = RedisPool::sentinel([node.as_str()], "sessions", config.unwrap()).unwrap();
    mapped.connection().set("mapped", "1").unwrap();
    let there: bool = redis::cmd("EXISTS").arg("mapped").query(&mut other.connect(0)).unwrap();
    assert!(there);
    drop(sentinel);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn an_address_may_begin_with_valkey() {
    let (_server, port) = RedisServer::start_on_port();
    let pool = RedisPool::open(&format!("valkey://127.0.0.1:{port}/0")).unwrap();
    assert!(pool.connection().exists("any").is_ok());
    assert_eq!(RedisConfig::from_url("valkeys://a").is_ok(), cfg!(feature = "rustls"));
}
