//! Sessions to measure with, and how.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bottle_session::{Action, Changes, IdFormat, Lifetimes, Load, Save, SessionId, SessionStore};

pub const LIFETIMES: Lifetimes = Lifetimes { idle: Duration::from_secs(3600), absolute: None };

pub fn set(value: &str) -> Changes {
    Changes { cleared: false, fields: [("user".to_owned(), Some(value.to_owned()))].into() }
}

/// An id, different each time and in each run.
pub fn fresh_id() -> SessionId {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("random numbers");
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let text: String = (0..42).map(|at| digits[usize::from(bytes[at % 32]) % 64] as char).collect();
    SessionId::parse(&format!("{text}A"), IdFormat::Base64Url).expect("an id")
}

/// An id that two processes know.
pub fn numbered_id(number: usize) -> SessionId {
    SessionId::parse(&format!("{number:x>42}A"), IdFormat::Base64Url).expect("an id")
}

/// Makes so many sessions with one short value.
pub fn create(store: &dyn SessionStore, count: usize) -> Vec<SessionId> {
    let ids: Vec<_> = (0..count).map(|_| fresh_id()).collect();
    create_with(store, &ids);
    ids
}

/// The same with these ids.
pub fn create_with(store: &dyn SessionStore, ids: &[SessionId]) {
    let changes = set("12345");
    for ids in ids.chunks(1000) {
        let saves: Vec<_> =
            ids.iter().map(|id| Save::new(id, Action::Create, &changes, LIFETIMES)).collect();
        assert!(store.save_many(&saves).iter().all(Result::is_ok));
    }
}

/// Saves a new value under the same key.
pub fn update(store: &dyn SessionStore, id: &SessionId, value: u64) -> bool {
    let changes = set(&value.to_string());
    store.save(&Save::new(id, Action::Update, &changes, LIFETIMES)).is_ok()
}

pub struct Saves {
    pub per_second: f64,
    pub slowest_ms: f64,
}

/// Has so many threads save for a while, each through sessions of its own.
pub fn saves(
    threads: usize,
    time: Duration,
    ids: &[SessionId],
    save: &(dyn Fn(&SessionId, u64) -> bool + Sync),
) -> Saves {
    let (stop, all, slowest) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let begun = run(threads, time, &stop, &|thread| {
        let (mut count, mut most) = (0, Duration::ZERO);
        for (n, id) in ids.iter().cycle().skip(thread * ids.len() / threads).step_by(7).enumerate()
        {
            let begun = Instant::now();
            assert!(save(id, n as u64 % 1000), "a save failed");
            most = most.max(begun.elapsed());
            count += 1;
            if stop.load(Ordering::Relaxed) {
                break;
            }
        }
        all.fetch_add(count, Ordering::SeqCst);
        slowest.fetch_max(most.as_micros() as u64, Ordering::SeqCst);
    });
    Saves {
        per_second: all.into_inner() as f64 / begun.as_secs_f64(),
        slowest_ms: slowest.into_inner() as f64 / 1000.0,
    }
}

/// How many loads so many threads do in a second.
pub fn loads(threads: usize, time: Duration, ids: &[SessionId], store: &dyn SessionStore) -> f64 {
    loads_by(threads, time, ids, &|id| {
        let loaded = store.load(&Load { id, lifetimes: LIFETIMES });
        loaded.expect("a load failed").session().is_some()
    })
}

/// The same, by whatever loads.
pub fn loads_by(
    threads: usize,
    time: Duration,
    ids: &[SessionId],
    load: &(dyn Fn(&SessionId) -> bool + Sync),
) -> f64 {
    let (stop, all) = (AtomicBool::new(false), AtomicU64::new(0));
    let took = run(threads, time, &stop, &|thread| {
        let mut count = 0;
        for id in ids.iter().cycle().skip(thread * ids.len() / threads).step_by(7) {
            assert!(load(id), "no session was loaded");
            count += 1;
            if stop.load(Ordering::Relaxed) {
                break;
            }
        }
        all.fetch_add(count, Ordering::SeqCst);
    });
    all.into_inner() as f64 / took.as_secs_f64()
}

/// Runs the threads until the time is over; how long that took.
fn run(
    threads: usize,
    time: Duration,
    stop: &AtomicBool,
    act: &(dyn Fn(usize) + Sync),
) -> Duration {
    let start = Barrier::new(threads + 1);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let start = &start;
            scope.spawn(move || {
                start.wait();
                act(thread);
            });
        }
        start.wait();
        let begun = Instant::now();
        std::thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
        begun
    })
    .elapsed()
}

/// What this process has passed to calls that write, in bytes.
pub fn written() -> u64 {
    figure("/proc/self/io", "wchar:")
}

/// What the system has given this process, in bytes.
pub fn memory() -> u64 {
    figure("/proc/self/status", "VmRSS:") * 1024
}

fn figure(file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(file).expect("Linux");
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect(name);
    line.trim().trim_end_matches(" kB").parse().expect(name)
}
