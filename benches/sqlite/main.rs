//! How fast sessions in a file are, as ratios to what else there is on the same machine in the same run:
//! `cargo bench --features sqlite --bench sqlite`, or with the names of some of the parts behind `--`:
//! `threads`, `one`, `loads`, `redis`, `processes`, `written`, `million`. All of it takes about three minutes. Linux only: it reads /proc, has
//! `cc` make a slow fsync, and starts a `redis-server`.

mod measure;
mod raw;
mod redis_server;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bottle_session::{
    Action, Durability, Load, MemoryStore, RedisPool, RedisStore, Save, SessionId, SessionStore,
    SqliteStore,
};

use measure::{
    LIFETIMES, Saves, create, create_with, fresh_id, loads, loads_by, memory, saves, set, update,
    written,
};
use raw::Raw;
use redis_server::RedisServer;

/// How many sessions there are before something is measured.
const SESSIONS: usize = 100_000;
const FOR: Duration = Duration::from_secs(3);

type Part = (&'static str, fn());

/// What is measured by this name.
const PARTS: [Part; 7] = [
    ("threads", threads),
    ("one", one_thread),
    ("loads", one_thread_loads),
    ("redis", beside_redis),
    ("processes", two_processes),
    ("written", bytes_written),
    ("million", a_million),
];

/// What other processes of this program are for.
const ROLES: [Part; 6] = [
    ("raw", raw_saves_in_turns),
    ("raw-loads", raw_loads),
    ("slow-threads", threads_of_a_slow_disk),
    ("slow-processes", two_processes_of_a_slow_disk),
    ("pairs", pairs_of_another),
    ("memory", memory_of_a_million),
];

fn main() {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if let Some(role) = arguments.first().and_then(|word| word.strip_prefix("role=")) {
        let (_, role) = ROLES.iter().find(|(name, _)| *name == role).expect("a role");
        return role();
    }
    println!("| what | bar | ratio or figure | of |\n|---|---|---|---|");
    for (name, part) in PARTS {
        if arguments.is_empty() || arguments.iter().any(|word| word == name) {
            part();
        }
    }
}

fn row(what: &str, bar: &str, figure: String, of: String) {
    println!("| {what} | {bar} | {figure} | {of} |");
}

fn ratio(ours: f64, theirs: f64) -> String {
    format!("{:.2}", ours / theirs)
}

/// A folder on the disk that holds the build, which goes with this value.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let target = std::env::current_exe().expect("this program has a path");
        let folder = target.with_file_name(format!("bench-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder beside this program");
        Folder(folder)
    }

    fn file(&self) -> PathBuf {
        self.0.join("sessions.db")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A store with so many sessions, whose log has grown to its size: on ext4 it is slow before that.
fn filled(path: &Path, sessions: usize) -> (SqliteStore, Vec<SessionId>) {
    let store = SqliteStore::open(path).expect("a new file");
    let ids = create(&store, sessions);
    (store, ids)
}

/// The same with ids that another process of this program knows.
fn filled_for_others(path: &Path) -> (SqliteStore, Vec<SessionId>) {
    let (store, ids) = (SqliteStore::open(path).expect("a new file"), numbered_ids());
    create_with(&store, &ids);
    (store, ids)
}

/// The file that another process has filled.
fn raw_of_the_file() -> (Raw, Vec<SessionId>) {
    let path = std::env::var_os(FILE).expect("the file");
    (Raw::open(Path::new(&path)), numbered_ids())
}

fn numbered_ids() -> Vec<SessionId> {
    (0..SESSIONS).map(measure::numbered_id).collect()
}

fn this(role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
    command.arg(format!("role={role}"));
    command
}

/// Saves by 32 threads, in groups and one commit each.
fn compare_threads(bar: &str, what: &str) {
    let folder = Folder::new("threads");
    let (store, ids) = filled(&folder.file(), SESSIONS);
    let ours = saves(32, FOR, &ids, &|id, n| update(&store, id, n));
    drop(store);
    let raw = Raw::open(&folder.file());
    let theirs = saves(32, FOR, &ids, &|id, n| raw.save(id, n));
    let of =
        |saves: &Saves| format!("{:.0}/s, slowest {:.0} ms", saves.per_second, saves.slowest_ms);
    row(
        &format!("saves, 32 threads{what} : rusqlite, a commit each"),
        bar,
        ratio(ours.per_second, theirs.per_second),
        format!("{} : {}", of(&ours), of(&theirs)),
    );
    row(
        &format!("slowest save, 32 threads{what}"),
        "< 150 ms",
        format!("{:.0} ms", ours.slowest_ms),
        format!("{:.0} ms", theirs.slowest_ms),
    );
}

fn threads() {
    compare_threads(">= 1.8", "");
    on_a_slow_disk("slow-threads");
}

/// Has another process of this program measure what each fsync that takes longer makes of it.
fn on_a_slow_disk(role: &str) {
    let folder = Folder::new("shim");
    let shim = folder.0.join("slow_fsync.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/sqlite/slow_fsync.c");
    let mut compile = Command::new("cc");
    compile.args(["-shared", "-fPIC", "-O2", "-o"]).arg(&shim).arg(source);
    assert!(compile.status().expect("cc").success());
    let run = this(role).env("LD_PRELOAD", &shim).env("FSYNC_US", "2000").status();
    assert!(run.expect("this program again").success());
}

fn threads_of_a_slow_disk() {
    compare_threads(">= 10", ", each fsync 2 ms slower");
}

const FILE: &str = "BOTTLE_SESSION_BENCH_FILE";

/// On the same file, but by hand in a process of its own: SQLite shares the memory for pages among all connections of one
/// process, so that each would take the other's.
fn one_thread() {
    let folder = Folder::new("one");
    let (store, ids) = filled_for_others(&folder.file());
    let mut other = this("raw");
    other.env(FILE, folder.file()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut other = other.spawn().expect("this program again");
    let mut ask = other.stdin.take().expect("a pipe");
    let mut told = BufReader::new(other.stdout.take().expect("a pipe")).lines();
    // In turns: the disk is not the same from one second to the next.
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let each = |id: &SessionId, n: u64| update(&store, id, n);
        ours.push(saves(1, FOR / 6, &ids, &each).per_second);
        ask.write_all(b"\n").expect("it listens");
        let figure = told.next().expect("it answers").expect("text");
        theirs.push(figure.parse().expect("a figure"));
    }
    drop(ask);
    other.wait().expect("it ends");
    let [ours, theirs] = [ours, theirs].map(|mut figures| {
        figures.sort_by(f64::total_cmp);
        figures[TURNS / 2]
    });
    row(
        "saves, 1 thread : rusqlite, a commit each",
        ">= 0.9",
        ratio(ours, theirs),
        format!("{ours:.0}/s : {theirs:.0}/s"),
    );
}

/// How many turns each has; the one in the middle counts.
const TURNS: usize = 11;

fn raw_saves_in_turns() {
    let (raw, ids) = raw_of_the_file();
    for _ in std::io::stdin().lines() {
        let figure = saves(1, FOR / 6, &ids, &|id, n| raw.save(id, n)).per_second;
        println!("{figure}");
    }
}

fn one_thread_loads() {
    let folder = Folder::new("loads");
    let (store, ids) = filled_for_others(&folder.file());
    let ours = loads(1, FOR, &ids, &store);
    let theirs = this("raw-loads").env(FILE, folder.file()).output().expect("it runs");
    assert!(theirs.status.success(), "{}", String::from_utf8_lossy(&theirs.stderr));
    let theirs: f64 = String::from_utf8_lossy(&theirs.stdout).parse().expect("a figure");
    row(
        "loads, 1 thread : rusqlite, a bare SELECT",
        "",
        ratio(ours, theirs),
        format!("{ours:.0}/s : {theirs:.0}/s"),
    );
    let memory = MemoryStore::new().capacity(SESSIONS);
    let in_memory = create(&memory, SESSIONS);
    for threads in [1, 32] {
        let ours = loads(threads, FOR, &ids, &store);
        let theirs = loads(threads, FOR, &in_memory, &memory);
        let bar = if threads == 1 { ">= 0.15" } else { "" };
        row(
            &format!(
                "loads, {threads} thread{} : MemoryStore",
                if threads == 1 { "" } else { "s" }
            ),
            bar,
            ratio(ours, theirs),
            format!("{ours:.0}/s : {theirs:.0}/s"),
        );
    }
}

fn raw_loads() {
    let (raw, ids) = raw_of_the_file();
    print!("{}", loads_by(1, FOR, &ids, &|id| raw.load(id)));
}

/// Against Redis on a unix socket, which writes each command to its disk before it answers.
fn beside_redis() {
    let folder = Folder::new("redis");
    let (store, ids) = filled(&folder.file(), SESSIONS);
    for (always, durability, bars) in [
        ("always", Durability::Full, [">= 0.9 (aim)", ""]),
        ("everysec", Durability::Relaxed, ["", ""]),
    ] {
        let server = RedisServer::start(&folder.0, always);
        let pool = RedisPool::open(&server.url()).expect("a pool");
        let redis = RedisStore::new(pool);
        let in_redis = create(&redis, SESSIONS / 10);
        let relaxed;
        let store: &SqliteStore = match durability {
            Durability::Full => &store,
            Durability::Relaxed => {
                relaxed =
                    SqliteStore::open(folder.file()).expect("the same file").durability(durability);
                &relaxed
            }
        };
        let ours = saves(32, FOR, &ids, &|id, n| update(store, id, n));
        let theirs = saves(32, FOR, &in_redis, &|id, n| update(&redis, id, n));
        let name = match durability {
            Durability::Full => "full",
            Durability::Relaxed => "relaxed",
        };
        row(
            &format!("saves, 32 threads, {name} : Redis, appendfsync {always}"),
            bars[0],
            ratio(ours.per_second, theirs.per_second),
            format!("{:.0}/s : {:.0}/s", ours.per_second, theirs.per_second),
        );
        for threads in [1, 32] {
            let ours = loads(threads, FOR, &ids, store);
            let theirs = loads(threads, FOR, &in_redis, &redis);
            row(
                &format!("loads, {threads} threads : Redis, appendfsync {always}"),
                bars[1],
                ratio(ours, theirs),
                format!("{ours:.0}/s : {theirs:.0}/s"),
            );
        }
    }
}

/// Adds to a number and saves, as many threads as possible, for a while; the slowest pair of each.
fn pairs(path: &Path) -> Saves {
    let store = SqliteStore::open(path).expect("the file");
    let ids: Vec<_> = (0..10).map(measure::numbered_id).collect();
    saves(8, FOR, &ids, &|id, n| {
        let load = Load { id, lifetimes: LIFETIMES };
        store.increment(&load, "n", 1).is_ok() && update(&store, id, n)
    })
}

fn two_processes() {
    compare_processes("");
    on_a_slow_disk("slow-processes");
}

fn two_processes_of_a_slow_disk() {
    compare_processes(", each fsync 2 ms slower");
}

fn compare_processes(what: &str) {
    let folder = Folder::new("processes");
    let store = SqliteStore::open(folder.file()).expect("a new file");
    for id in (0..10).map(measure::numbered_id) {
        store.save(&Save::new(&id, Action::Create, &set("0"), LIFETIMES)).expect("a session");
    }
    drop(store);
    let other = this("pairs").env(FILE, folder.file()).stdout(Stdio::piped()).spawn();
    let other = other.expect("this program again");
    let ours = pairs(&folder.file());
    let theirs = other.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&theirs.stdout);
    let mut figures = said.split_whitespace().map(|word| word.parse::<f64>().expect("a figure"));
    let (per_second, slowest) = (figures.next().expect("one"), figures.next().expect("another"));
    row(
        &format!("two processes of 8 threads: slowest pair of writes{what}"),
        "< 200 ms",
        format!("{:.0} ms", ours.slowest_ms.max(slowest)),
        format!("{:.0} and {per_second:.0} pairs/s", ours.per_second),
    );
}

fn pairs_of_another() {
    let path = std::env::var_os(FILE).expect("the file");
    let saves = pairs(Path::new(&path));
    println!("{} {}", saves.per_second, saves.slowest_ms);
}

fn bytes_written() {
    let folder = Folder::new("written");
    let (store, ids) = filled(&folder.file(), SESSIONS);
    let (count, before) = (20_000, written());
    for (n, id) in ids.iter().cycle().step_by(7).take(count).enumerate() {
        assert!(update(&store, id, n as u64 % 1000));
    }
    let each = (written() - before) / count as u64;
    row("bytes written a save, 100,000 sessions", "<= 10,000", format!("{each}"), String::new());
}

fn a_million() {
    assert!(this("memory").status().expect("this program again").success());
}

fn memory_of_a_million() {
    let folder = Folder::new("million");
    let count = 1_000_000;
    let store = SqliteStore::open(folder.file()).expect("a new file");
    // Their ids are not the store's memory.
    let before = memory();
    let mut most = 0;
    for _ in 0..count / 10_000 {
        let ids = create(&store, 10_000);
        let loaded = store.load(&Load { id: &ids[5000], lifetimes: LIFETIMES });
        assert!(loaded.expect("it works").session().is_some());
        drop(ids);
        most = most.max(memory().saturating_sub(before));
    }
    drop(store);
    let bytes = std::fs::metadata(folder.file()).expect("the file").len();
    let each = bytes as f64 / count as f64;
    row(
        "bytes a session, 1,000,000 sessions",
        "<= 170",
        format!("{each:.0}"),
        format!("{bytes} bytes"),
    );
    let mib = most as f64 / 1024.0 / 1024.0;
    row("memory while they are made", "< 32 MiB", format!("{mib:.1} MiB"), String::new());
    let begun = Instant::now();
    let store = SqliteStore::open(folder.file()).expect("the file");
    let id = fresh_id();
    assert!(
        store.load(&Load { id: &id, lifetimes: LIFETIMES }).expect("it works").session().is_none()
    );
    let opened = begun.elapsed().as_secs_f64() * 1000.0;
    row("open it, and load one", "<= 20 ms", format!("{opened:.1} ms"), String::new());
}
