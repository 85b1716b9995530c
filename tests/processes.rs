//! The greeter as a process: over sockets, over Redis, beside another one, beside Python's.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::http::{Browser, exchange};
use crate::support::process::Program;
use crate::support::redis_server::{RedisServer, but_tombstones};

const COOKIE: &str = "bottle.session";

#[test]
fn a_greeter_in_memory_greets_and_ends_when_it_is_asked() {
    let greeter = Program::greeter(&[], None);
    let (mut chris, mut stranger) = (Browser::default(), Browser::default());
    let at = greeter.address;
    let first = chris.get(at, "/");
    assert_eq!((first.body.as_str(), first.set_cookies().len()), ("I don't recognize you.\n", 0));
    assert_eq!(chris.text(at, "/set"), "What was that?\n");
    assert_eq!(chris.text(at, "/set/Chris"), "I recognize you now.\n");
    assert_eq!(chris.text(at, "/"), "Hello, Chris\n");
    assert_eq!(stranger.text(at, "/"), "I don't recognize you.\n");
    assert_eq!(chris.text(at, "/keys"), "name\n");
    assert_eq!(chris.get(at, "/nowhere").status, 404);
    assert!(greeter.terminate().success());
}

#[test]
fn a_second_signal_ends_a_greeter_that_waits_for_a_client() {
    let greeter = Program::greeter(&[], None);
    let mut client = TcpStream::connect(greeter.address).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n").unwrap();
    // Both are served before the first signal: what came before is under way then.
    assert_eq!(Browser::default().get(greeter.address, "/").status, 200);
    greeter.ask_to_end();
    while TcpStream::connect(greeter.address).is_ok() {
        std::thread::sleep(Duration::from_millis(5));
    }
    client.write_all(b"X: still here\r\n").unwrap();
    // What shells report for SIGTERM; a shutdown that has come to its end is a 0.
    assert_eq!(greeter.terminate().code(), Some(128 + 15));
    let mut rest = Vec::new();
    let _ = client.read_to_end(&mut rest);
    assert!(rest.is_empty(), "{rest:?}");
}

#[test]
fn the_options_reach_the_cookie() {
    let options =
        ["--cookie-name", "id", "--cookie-lifetime", "90", "--cookie-secure", "--cookie-httponly"];
    let greeter = Program::greeter(&options, None);
    let answer = Browser::default().get(greeter.address, "/set/Ada");
    let cookie = answer.set_cookies()[0];
    assert!(cookie.starts_with("id="), "{cookie}");
    for attribute in ["Max-Age=99", "Secure", "HttpOnly", "SameSite=Lax", "Path=/"] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
}

#[test]
fn two_greeters_share_a_session_in_redis_and_it_survives_a_restart() {
    let (redis, port) = RedisServer::start_on_port();
    let url = format!("redis://127.0.0.1:{port}/3");
    let one = Program::greeter(&[], Some(&url));
    let two = Program::greeter(&["--redis-port", &port.to_string(), "--redis-db", "3"], None);
    let mut chris = Browser::default();
    chris.text(one.address, "/set/Chris");
    assert_eq!(chris.text(two.address, "/"), "Hello, Chris\n");
    chris.text(two.address, "/set/Christine");
    assert_eq!(chris.text(one.address, "/"), "Hello, Christine\n");

    let mut database = redis.connect(3);
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut database).unwrap();
    let [key] = keys.as_slice() else { panic!("one session, not {keys:?}") };
    assert!(key.starts_with("bottle.session:"), "{key}");
    assert!(!key.contains(chris.cookies[COOKIE].as_str()), "the key is the id");
    let name: String = redis::cmd("HGET").arg(key).arg("name").query(&mut database).unwrap();
    assert_eq!(name, "Christine");
    let left: i64 = redis::cmd("TTL").arg(key).query(&mut database).unwrap();
    // A tenth longer than the cookie's 600 seconds.
    assert!((658..=660).contains(&left), "{left}");

    assert!(one.terminate().success());
    let again = Program::greeter(&[], Some(&url));
    assert_eq!(chris.text(again.address, "/"), "Hello, Christine\n");
    chris.text(again.address, "/forget");
    let keys = but_tombstones(&mut database);
    assert!(keys.is_empty(), "{keys:?}");
}

#[test]
fn python_and_rust_share_live_sessions_in_both_directions() {
    let (redis, port) = RedisServer::start_on_port();
    let url = format!("redis://127.0.0.1:{port}/0");
    let rust = Program::greeter(&["--layout", "bottle-session"], Some(&url));
    let python = Program::python_greeter(port, 0);
    let (rust_at, python_at) = (rust.address, python.address);
    for (first, second) in [(rust_at, python_at), (python_at, rust_at)] {
        let mut browser = Browser::default();
        browser.text(first, "/set/Chris");
        assert_eq!(browser.cookies[COOKIE].len(), 32);
        assert_eq!(browser.text(second, "/"), "Hello, Chris\n");
        browser.text(second, "/set/Christine");
        assert_eq!(browser.text(first, "/"), "Hello, Christine\n");

        for renewing in [first, second] {
            let old = browser.clone();
            browser.text(renewing, "/regenerate");
            assert_ne!(browser.cookies[COOKIE], old.cookies[COOKIE]);
            for reading in [first, second] {
                assert_eq!(browser.text(reading, "/"), "Hello, Christine\n");
                assert_eq!(old.clone().text(reading, "/"), "I don't recognize you.\n");
            }
        }

        let old = browser.clone();
        browser.text(second, "/forget");
        for reading in [first, second] {
            assert_eq!(old.clone().text(reading, "/"), "I don't recognize you.\n");
        }
    }
    let mut browser = Browser::default();
    browser.text(rust_at, "/set/Zo%C3%AB");
    let mut database = redis.connect(0);
    let id = &browser.cookies[COOKIE];
    let dashed =
        format!("{}-{}-{}-{}-{}", &id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..]);
    let key = format!("session:{dashed}");
    let fields: Vec<String> = redis::cmd("HGETALL").arg(&key).query(&mut database).unwrap();
    assert_eq!(fields, ["name", "Zoë"]);
    let left: i64 = redis::cmd("TTL").arg(&key).query(&mut database).unwrap();
    assert!((598..=600).contains(&left), "{left}");
}

#[test]
fn no_log_shows_an_id_even_at_its_most_talkative() {
    let (redis, port) = RedisServer::start_on_port();
    for layout in ["default", "bottle-session"] {
        let url = format!("redis://127.0.0.1:{port}/0");
        let (greeter, log) = Program::greeter_logging(&["--layout", layout], Some(&url));
        let at = greeter.address;
        let mut browser = Browser::default();
        let mut ids = Vec::new();
        for path in ["/set/Ada", "/regenerate", "/", "/forget", "/set/Bob", "/nowhere"] {
            browser.get(at, path);
            ids.extend(browser.cookies.get(COOKIE).cloned());
        }
        // A session that went away, a made-up id, a malformed one, and a record of another type.
        browser.cookies.insert(COOKIE.to_owned(), ids[0].clone());
        browser.get(at, "/");
        browser.cookies.insert(COOKIE.to_owned(), "not an id, but shown?".to_owned());
        browser.get(at, "/");
        let mut database = redis.connect(0);
        let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut database).unwrap();
        for key in &keys {
            redis::cmd("SET").arg(key).arg("damaged").exec(&mut database).unwrap();
        }
        browser.cookies.insert(COOKIE.to_owned(), ids[ids.len() - 1].clone());
        assert_eq!(browser.get(at, "/").status, 500);
        redis::cmd("FLUSHALL").exec(&mut database).unwrap();
        greeter.terminate();
        let log = log.join().unwrap();
        assert!(log.contains("answers 500"), "{log}");
        for id in ids.iter().map(String::as_str).chain(["shown?"]) {
            assert!(!log.contains(&id[..id.len().min(12)]), "{id} in {log}");
        }
    }
}

#[test]
fn many_clients_at_once_each_keep_their_own_session() {
    let (_redis, port) = RedisServer::start_on_port();
    let greeter = Program::greeter(&[], Some(&format!("redis://127.0.0.1:{port}/0")));
    let at = greeter.address;
    let failed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for number in 0..16 {
            let failed = &failed;
            scope.spawn(move || {
                let mut browser = Browser::default();
                browser.text(at, &format!("/set/user{number}"));
                for _ in 0..50 {
                    if browser.text(at, "/") != format!("Hello, user{number}\n") {
                        failed.store(true, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    assert!(!failed.load(Ordering::SeqCst));
}

#[test]
fn a_body_that_announces_too_much_is_refused_and_the_server_lives() {
    let greeter = Program::greeter(&[], None);
    let head = format!(
        "POST / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: 2147483648\r\n\r\n",
        greeter.address
    );
    let address = greeter.address;
    let refused = std::thread::spawn(move || first_line(address, head.as_bytes()));
    assert!(refused.join().unwrap().contains(" 413 "));
    assert_eq!(Browser::default().text(address, "/"), "I don't recognize you.\n");
    let small = format!(
        "POST / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi"
    );
    assert_eq!(exchange(address, small.as_bytes()).status, 405);
}

fn first_line(address: std::net::SocketAddr, request: &[u8]) -> String {
    use std::io::{BufRead, BufReader, Write};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.write_all(request).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line
}
