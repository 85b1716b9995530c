//! How much memory sessions in a `MemoryStore`, connections and streams take: measured in processes of their own, as
//! the system counts it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bottle_session::server::native::Native;
use bottle_session::{Action, App, Changes, Lifetimes, MemoryStore, Response, Save, SessionStore};

use crate::support::serving::Serving;
use crate::support::sessions::{fresh_id, set};

/// How many sessions a process is to keep, for the test that is this process.
const SESSIONS: &str = "BOTTLE_SESSION_TEST_SESSIONS";

/// What the system has given this process, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

/// Prints how much memory sessions with one short value take each. Without the variable there is nothing to do.
#[test]
fn keep_sessions() {
    let Some(count) = std::env::var(SESSIONS).ok().and_then(|count| count.parse().ok()) else {
        return;
    };
    let count: usize = count;
    let store = MemoryStore::new().capacity(count);
    let create = |changes: &Changes| {
        let id = fresh_id(store.id_format());
        let lifetimes = Lifetimes { idle: Duration::from_secs(3600), absolute: None };
        store.save(&Save::new(&id, Action::Create, changes, lifetimes)).unwrap();
    };
    let changes = set(&[("name", "Ada")]);
    let before = resident();
    (0..count).for_each(|_| create(&changes));
    assert_eq!(store.len(), count);
    println!("bytes: {}", (resident() - before) / count);
}

#[test]
fn a_session_with_one_short_value_takes_at_most_400_bytes() {
    for count in [100_000, 1_000_000] {
        let this = std::env::current_exe().unwrap();
        let done = Command::new(this)
            .args(["--exact", "memory::keep_sessions", "--nocapture", "--test-threads=1"])
            .env(SESSIONS, count.to_string())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&done.stdout);
        let bytes = said.split_once("bytes: ").and_then(|(_, rest)| rest.lines().next());
        let bytes: usize = bytes.and_then(|bytes| bytes.parse().ok()).expect(&said);
        println!("{count} sessions: {bytes} bytes each");
        assert!((60..=400).contains(&bytes), "{count}: {bytes}");
    }
}

/// How many visitors a process is to hold, for the test that is this process.
const VISITORS: &str = "BOTTLE_SESSION_TEST_VISITORS";

/// A body that waits until the test is over.
struct Waiting(Arc<(Mutex<(usize, bool)>, Condvar)>);

impl Read for Waiting {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        let mut state = self.0.0.lock().unwrap();
        state.0 += 1;
        self.0.1.notify_all();
        while !state.1 {
            state = self.0.1.wait(state).unwrap();
        }
        Ok(0)
    }
}

/// Prints how much memory visitors take who wait: with nothing under way, and on streams.
#[test]
fn hold_visitors() {
    let Some(count) = std::env::var(VISITORS).ok().and_then(|count| count.parse::<usize>().ok())
    else {
        return;
    };
    let waiting = Arc::new((Mutex::new((0, false)), Condvar::new()));
    let mut app = App::new();
    app.get("/", || "hello");
    let gate = waiting.clone();
    app.get("/events", move || Response::stream(Waiting(gate.clone()), None));
    // Another event loop, which a busy machine may begin, has buffers of its own.
    let native = Native::bind("127.0.0.1:0").unwrap().active_threads(1);
    let server = Serving::start(native, app);
    let connect = |path: &str| {
        let mut stream = TcpStream::connect(server.address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let mut head = [0; 15];
        stream.read_exact(&mut head).unwrap();
        assert_eq!(&head, b"HTTP/1.1 200 OK");
        stream
    };
    // What the first ones take is the server's own.
    let _first: Vec<_> = (0..10).map(|_| connect("/")).collect();
    let before = resident();
    let _idle: Vec<_> = (0..count).map(|_| connect("/")).collect();
    println!("connection: {}", (resident() - before) / count);
    let before = resident();
    let _streams: Vec<_> = (0..count).map(|_| connect("/events")).collect();
    let mut state = waiting.0.lock().unwrap();
    while state.0 < count {
        state = waiting.1.wait(state).unwrap();
    }
    drop(state);
    println!("stream: {}", (resident() - before) / count);
    waiting.0.lock().unwrap().1 = true;
    waiting.1.notify_all();
}

#[test]
fn connections_and_streams_take_what_the_guide_says() {
    let this = std::env::current_exe().unwrap();
    let done = Command::new(this)
        .args(["--exact", "memory::hold_visitors", "--nocapture", "--test-threads=1"])
        .env(VISITORS, "400")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    let page = include_str!("../src/guide/threads.md");
    for (what, sentence, most) in [
        ("connection: ", "A connection that waits: less than 3.5 KiB", 3584),
        ("stream: ", "A thread that waits in a stream takes less than 60 KiB", 60 * 1024),
    ] {
        assert!(page.contains(sentence), "{sentence}");
        let bytes = said.split_once(what).and_then(|(_, rest)| rest.lines().next());
        let bytes: usize = bytes.and_then(|bytes| bytes.parse().ok()).expect(&said);
        println!("{what}{bytes} bytes");
        assert!(bytes < most, "{what}{bytes}");
    }
}
