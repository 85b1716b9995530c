//! What does not fit into cells.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::thread;
use std::time::Duration;

use super::http::Client;
use super::load::{Figures, Load, Typical};
use super::options::{Extra, Server};
use super::redis::Proxy;
use super::report::{Table, digits};
use super::running::Running;
use super::{Bench, FOLDER};
use crate::Failure;

/// Microseconds in each direction: a Redis 20 ms away.
const VERY_FAR: u32 = 10_000;
const READERS: usize = 64;
const SLEEPERS: usize = 100;
const IDLE: usize = 10_000;
/// A database that no cell uses.
const DATABASE: usize = 30;
/// Enough that what else grows in Redis does not count.
const SESSIONS: u64 = 10_000;

pub fn run(bench: &mut Bench) -> Result<Vec<Table>, Failure> {
    let mut tables = Vec::new();
    for extra in bench.options.extras.clone() {
        // Many threads and connections have no place in a quick look.
        if bench.options.quick && matches!(extra, Extra::Sleeping | Extra::Idle) {
            continue;
        }
        eprintln!("{extra}");
        let table = match extra {
            Extra::Waiting => waiting(bench, false)?,
            Extra::Apart => waiting(bench, true)?,
            Extra::Sleeping => sleeping(bench)?,
            Extra::Idle => idle(bench)?,
            Extra::Record => record(bench)?,
            Extra::Commands => commands(bench)?,
            Extra::Replicas => replicas(bench)?,
            Extra::File => super::file::run(bench)?,
        };
        tables.extend((!table.rows.is_empty()).then_some(table));
    }
    Ok(tables)
}

impl Bench {
    /// Those of `servers` that are to be measured, each anew on a database of its own.
    fn start(&mut self, servers: &[Server], redis: u16) -> Result<Vec<Running>, Failure> {
        self.redis.flush(DATABASE)?;
        let chosen = servers.iter().filter(|server| self.options.servers.contains(server));
        chosen.map(|server| Running::start(*server, redis, DATABASE)).collect()
    }
}

/// Plain requests at 8 connections, with and without something else that the server has to do.
fn beside(
    bench: &Bench,
    running: &[Running],
    others: impl Fn(&Running) -> Load,
    title: String,
) -> Result<Table, Failure> {
    let seconds = bench.options.seconds;
    let mut measured: Vec<[Vec<Figures>; 2]> = running.iter().map(|_| Default::default()).collect();
    for round in 0..bench.options.rounds {
        for n in 0..running.len() {
            let n = (n + round) % running.len();
            let port = running[n].port;
            let plain = Load { port, path: "/plain", connections: 8, seconds, script: None };
            measured[n][0].push(plain.run()?);
            let others = others(&running[n]);
            let figures = thread::scope(|scope| {
                let others = scope.spawn(|| others.run());
                // Until all of them are under way.
                thread::sleep(Duration::from_millis(300));
                let figures = plain.run();
                others.join().map_err(|_| "a thread panicked")??;
                figures
            });
            measured[n][1].push(figures?);
        }
    }
    let rows = running.iter().zip(&measured).map(|(running, measured)| {
        let [alone, beside] = measured.each_ref().map(|figures| Typical::of(figures));
        vec![
            running.server.to_string(),
            alone.to_string(),
            beside.to_string(),
            format!("{:.2}", beside.p99_ms / alone.p99_ms),
        ]
    });
    let head = ["server", "alone", "beside them", "p99 as a multiple"];
    Ok(Table { title, head: head.map(str::to_owned).to_vec(), rows: rows.collect() })
}

/// Where the readers are at another server than the plain requests, what there is to see is the machine that they share.
fn waiting(bench: &mut Bench, apart: bool) -> Result<Table, Failure> {
    let proxy = Proxy::start(bench.redis.port, VERY_FAR, FOLDER)?;
    let mut running = bench.start(&Server::SLEEPING, proxy.port)?;
    if apart && running.len() == 1 {
        return Err("apart needs two servers at least".into());
    }
    for running in &mut running {
        running.log_in()?;
    }
    let seconds = bench.options.seconds + 1;
    let readers = |plain: &Running| {
        let at = running.iter().position(|running| running.port == plain.port).unwrap_or(0);
        let read = &running[(at + usize::from(apart)) % running.len()];
        let (port, script) = (read.port, Some(read.script()));
        Load { port, path: "/read", connections: READERS, seconds, script }
    };
    let of = if apart { " of another server" } else { "" };
    let title = format!(
        "Plain requests per second at 8 connections (p99 in ms), while {READERS} others read sessions{of} from a Redis \
         20 ms away:"
    );
    beside(bench, &running, readers, title)
}

fn sleeping(bench: &mut Bench) -> Result<Table, Failure> {
    let running = bench.start(&Server::SLEEPING, bench.redis.port)?;
    let seconds = bench.options.seconds + 1;
    let sleepers = |running: &Running| Load {
        port: running.port,
        path: "/sleep",
        connections: SLEEPERS,
        seconds,
        script: None,
    };
    let title = format!(
        "Plain requests per second at 8 connections (p99 in ms), while {SLEEPERS} others sleep a second each:"
    );
    beside(bench, &running, sleepers, title)
}

/// Processes that have served nothing else.
fn idle(bench: &mut Bench) -> Result<Table, Failure> {
    const HELLO: &[u8] = b"GET /plain HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut rows = Vec::new();
    for running in bench.start(&Server::SLEEPING, bench.redis.port)? {
        let mut open = Vec::with_capacity(IDLE);
        for _ in 0..IDLE {
            let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, running.port))?;
            connection.write_all(HELLO)?;
            let mut answer = [0; 1024];
            let length = connection.read(&mut answer)?;
            if !answer[..length].starts_with(b"HTTP/1.1 200 ") {
                return Err(format!("{} does not answer", running.server).into());
            }
            open.push(connection);
        }
        let mib = running.process.memory() as f64 / 1024.0;
        rows.push(vec![running.server.to_string(), digits(mib)]);
    }
    Ok(Table {
        title: format!("MiB of memory with {IDLE} idle connections:"),
        head: ["server", "MiB"].map(str::to_owned).to_vec(),
        rows,
    })
}

/// The bytes of Redis for a session with one short value.
fn record(bench: &mut Bench) -> Result<Table, Failure> {
    let mut rows = Vec::new();
    for server in bench.options.servers.clone() {
        if server == Server::Memory {
            continue;
        }
        bench.redis.flush(DATABASE)?;
        for running in bench.start(&[server], bench.redis.port)? {
            let mut client = Client::new(running.port);
            // The first request opens connections, which take memory, too.
            client.create("Ada")?;
            let before = bench.redis.used_memory()?;
            for _ in 0..SESSIONS {
                client.create("Ada")?;
            }
            let grown = bench.redis.used_memory()?.saturating_sub(before);
            if bench.redis.keys(DATABASE)? != SESSIONS + 1 {
                return Err("a session is not one key".into());
            }
            rows.push(vec![server.to_string(), (grown / SESSIONS).to_string()]);
        }
    }
    Ok(Table {
        title: format!(
            "Bytes of Redis for a session with one short value (growth of used_memory by {SESSIONS} of them):"
        ),
        head: ["server", "bytes"].map(str::to_owned).to_vec(),
        rows,
    })
}

/// What one request of each kind sends to Redis, as MONITOR shows it.
fn commands(bench: &mut Bench) -> Result<Table, Failure> {
    let mut rows = Vec::new();
    for server in bench.options.servers.clone() {
        if server == Server::Memory {
            continue;
        }
        for running in bench.start(&[server], bench.redis.port)? {
            let mut client = Client::new(running.port);
            // The first requests open connections.
            let cookie = client.create("Ada")?;
            for path in ["/read", "/change"] {
                client.text(path, &cookie)?;
            }
            let mut monitor = Monitor::start(bench.redis.port)?;
            for path in ["/plain", "/create/Ada", "/read", "/change"] {
                let cookie = if path == "/read" || path == "/change" { &cookie } else { "" };
                let answer = client.get(path, cookie)?;
                let mut sent = monitor.commands()?;
                if sent.is_empty() {
                    sent.push("nothing".to_owned());
                }
                let cookie = if answer.cookie.is_empty() { "" } else { "yes" };
                rows.push(vec![
                    server.to_string(),
                    path.to_owned(),
                    sent.join("; "),
                    cookie.to_owned(),
                ]);
            }
        }
    }
    let head = ["server", "request", "sent to Redis", "sets a cookie"];
    Ok(Table {
        title: "What one request sends to Redis (MONITOR):".to_owned(),
        head: head.map(str::to_owned).to_vec(),
        rows,
    })
}

/// What it costs that a save counts once a replica has it. Redis has one replica for as long as this takes, also for
/// those who do not wait for it.
fn replicas(bench: &mut Bench) -> Result<Table, Failure> {
    let head = ["request, connections", "replicas(0)", "replicas(1)", "ratio"];
    let head = head.map(str::to_owned).to_vec();
    let title = "Requests per second (p99 in ms) of ours, where a save counts once a replica on the same machine has \
                 it:";
    let mut table = Table { title: title.to_owned(), head, rows: Vec::new() };
    if !bench.options.servers.contains(&Server::Ours) {
        return Ok(table);
    }
    bench.redis.flush(DATABASE)?;
    let _replica = bench.redis.replicate(FOLDER)?;
    let mut running = Vec::new();
    for replicas in [0, 1] {
        let (redis, database) = (bench.redis.port, DATABASE + replicas as usize);
        bench.redis.flush(database)?;
        let mut one = Running::start_replicated(Server::Ours, redis, database, replicas)?;
        one.log_in()?;
        running.push(one);
    }
    for path in ["/read", "/change"] {
        for connections in bench.options.connections.clone() {
            let mut measured: [Vec<Figures>; 2] = Default::default();
            for round in 0..bench.options.rounds {
                for n in 0..2 {
                    let n = (n + round) % 2;
                    let (port, seconds) = (running[n].port, bench.options.seconds);
                    let script = Some(running[n].script());
                    measured[n].push(Load { port, path, connections, seconds, script }.run()?);
                }
            }
            let [without, with] = measured.each_ref().map(|figures| Typical::of(figures));
            table.rows.push(vec![
                format!("{path}, {connections}"),
                without.to_string(),
                with.to_string(),
                format!("{:.2}", with.per_second / without.per_second),
            ]);
        }
    }
    Ok(table)
}

struct Monitor(BufReader<TcpStream>);

impl Monitor {
    fn start(redis: u16) -> Result<Monitor, Failure> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, redis))?;
        stream.write_all(b"MONITOR\r\n")?;
        // How long nothing must come until all has come.
        stream.set_read_timeout(Some(Duration::from_millis(300)))?;
        let mut monitor = Monitor(BufReader::new(stream));
        monitor.commands()?;
        Ok(monitor)
    }

    /// What has been sent since the last call.
    fn commands(&mut self) -> Result<Vec<String>, Failure> {
        let mut commands = Vec::new();
        loop {
            let mut line = String::new();
            match self.0.read_line(&mut line) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(commands),
                done => done?,
            };
            // +1764421860.1 [30 127.0.0.1:1] "GET" "key"; what a script calls is from lua.
            if let Some((from, command)) = line.trim_end().split_once("] ") {
                let from = if from.ends_with("lua") { "(script) " } else { "" };
                commands.push(format!("{from}{}", shown(command)));
            }
        }
    }
}

/// The command and what it is about, without the values that differ each time.
fn shown(command: &str) -> String {
    let words = command.split("\" \"").map(|word| word.trim_matches('"'));
    let words = words.map(|word| if word.len() > 24 { "…" } else { word });
    words.collect::<Vec<_>>().join(" ").replace('|', "\\|")
}
