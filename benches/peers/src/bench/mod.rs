//! Starts the servers, has wrk load them in turns, checks their answers, and writes down what came of it.

use std::fs::{self, File};
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

mod chart;
mod check;
mod extras;
mod file;
mod http;
mod load;
mod options;
mod process;
mod redis;
mod report;
mod running;

use check::Checker;
use load::Load;
use options::{Case, Distance, Options, Server};
use redis::Proxy;
use report::{Cell, Row};
use running::Running;

pub use load::DONE;
pub use process::{Process, free_port};
pub use redis::Redis;
pub use report::median;
pub use running::{log_in, script};

use crate::Failure;

/// What is measured goes here, and what is installed.
pub const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/peers");
const SOURCES: &str = env!("CARGO_MANIFEST_DIR");
/// What the proxy delays each direction by, in microseconds.
const FAR: u32 = 250;

pub fn run(arguments: &[&str]) -> Result<(), Failure> {
    let Some(options) = Options::parse(arguments)? else {
        println!("{}", options::USAGE);
        return Ok(());
    };
    fs::create_dir_all(FOLDER)?;
    let mut bench = Bench {
        redis: Redis::start(FOLDER)?,
        proxy: None,
        servers: Vec::new(),
        rows: Vec::new(),
        failures: Vec::new(),
        rounds: File::create(format!("{FOLDER}/rounds.tsv"))?,
        progress: Progress { started: Instant::now(), done: 0, all: options.cells() },
        options,
    };
    writeln!(bench.rounds, "round\t{}", report::HEADER)?;
    let cells = bench.cells()?;
    bench.servers.clear();
    let extras = extras::run(&mut bench)?;
    report::write(&cells, &extras)?;
    if bench.failures.is_empty() {
        return Ok(());
    }
    for failure in &bench.failures {
        eprintln!("{failure}");
    }
    Err(format!("{} measurements failed; they are not in the results", bench.failures.len()).into())
}

impl Options {
    /// How many single measurements there are in all cells.
    fn cells(&self) -> usize {
        let columns = self.distances.iter().flat_map(|distance| {
            self.connections.iter().filter(|connections| self.includes(*distance, **connections))
        });
        columns.count() * self.cases.len() * self.servers.len() * self.rounds
    }
}

struct Bench {
    options: Options,
    redis: Redis,
    proxy: Option<Proxy>,
    servers: Vec<(Distance, Running)>,
    rows: Vec<Row>,
    failures: Vec<String>,
    rounds: File,
    progress: Progress,
}

struct Progress {
    started: Instant,
    done: usize,
    all: usize,
}

impl Bench {
    fn cells(&mut self) -> Result<Vec<Cell>, Failure> {
        let (distances, cases) = (self.options.distances.clone(), self.options.cases.clone());
        // A machine that has just been busy may be slower for a while: each server is first in its turn.
        let mut order = self.options.servers.clone();
        for round in 1..=self.options.rounds {
            for &distance in &distances {
                for &case in &cases {
                    for connections in self.options.connections.clone() {
                        if self.options.includes(distance, connections) {
                            self.turn(round, case, connections, distance, &order)?;
                        }
                    }
                    if case == Case::Create {
                        self.forget(distance)?;
                    }
                }
            }
            order.rotate_left(1);
        }
        Ok(report::medians(&self.rows))
    }

    /// One cell of each server.
    fn turn(
        &mut self,
        round: usize,
        case: Case,
        connections: usize,
        distance: Distance,
        order: &[Server],
    ) -> Result<(), Failure> {
        eprint!(
            "round {round}/{}, {case}, {connections} connections, Redis {distance}:",
            self.options.rounds
        );
        for &server in order {
            let row = self
                .running(server, distance)
                .and_then(|place| self.measure(place, case, connections, distance));
            match row {
                Ok(row) => {
                    eprint!(" {server} {:.0}", row.per_second);
                    writeln!(self.rounds, "{round}\t{}", row.cell().line())?;
                    self.rows.push(row);
                }
                Err(failure) => {
                    eprint!(" {server} FAILED");
                    self.failures.push(format!(
                        "{case}, {connections} connections, Redis {distance}, {server}, round {round}: {failure}"
                    ));
                }
            }
            self.progress.done += 1;
        }
        let Progress { started, done, all } = self.progress;
        let left = started.elapsed().mul_f64((all - done) as f64 / done as f64);
        eprintln!("  [{done}/{all}, {} min left]", left.as_secs().div_ceil(60));
        Ok(())
    }

    /// The place of a server that runs, started if need be.
    fn running(&mut self, server: Server, distance: Distance) -> Result<usize, Failure> {
        let runs =
            |(at, running): &(Distance, Running)| *at == distance && running.server == server;
        if let Some(place) = self.servers.iter().position(runs) {
            return Ok(place);
        }
        let port = match distance {
            Distance::Near => self.redis.port,
            Distance::Far => match &self.proxy {
                Some(proxy) => proxy.port,
                None => self.proxy.insert(Proxy::start(self.redis.port, FAR, FOLDER)?).port,
            },
        };
        let database = 2 * server as usize + distance as usize;
        self.servers.push((distance, Running::start(server, port, database)?));
        Ok(self.servers.len() - 1)
    }

    fn measure(
        &mut self,
        place: usize,
        case: Case,
        connections: usize,
        distance: Distance,
    ) -> Result<Row, Failure> {
        let in_sessions = matches!(case, Case::Read | Case::Change);
        if in_sessions {
            self.servers[place].1.log_in()?;
            check::names(&self.servers[place].1)?;
        }
        let running = &self.servers[place].1;
        let mut checker = Checker::new(case, running)?;
        let counts = |running| if case == Case::Change { check::counts(running) } else { Ok(0) };
        let counted_before = counts(running)?;
        let keys_before = self.redis.keys(running.database)?;
        let load = Load {
            port: running.port,
            path: match case {
                Case::Plain => "/plain",
                Case::Read => "/read",
                Case::Change => "/change",
                Case::Create => "/create/Ada",
            },
            connections,
            seconds: self.options.seconds,
            script: in_sessions.then(|| running.script()),
        };

        let before = used(running, &mut self.redis)?;
        let stop = AtomicBool::new(false);
        let (figures, asked) = thread::scope(|scope| {
            let asked = scope.spawn(|| checker.ask_until(&stop));
            let figures = load.run();
            stop.store(true, Ordering::Relaxed);
            (figures, asked.join())
        });
        let after = used_at_rest(running, &mut self.redis)?;

        let asked = asked.map_err(|_| "the checker panicked")?;
        let (figures, asked) = match (figures, asked) {
            (Ok(figures), Ok(asked)) => (figures, asked),
            (Err(load), Err(checker)) => return Err(format!("{load}; beside it: {checker}").into()),
            (Err(failure), _) | (_, Err(failure)) => return Err(failure),
        };
        checker.after()?;
        if in_sessions {
            check::names(running)?;
        }
        let counted = counts(running)?.saturating_sub(counted_before);
        let right = check::counted(figures.requests, connections);
        if case == Case::Change && !right.contains(&counted) {
            return Err(format!("{counted} changes are in the sessions and not {right:?}").into());
        }
        let made = self.redis.keys(running.database)?.saturating_sub(keys_before);
        let right = figures.requests + asked..=figures.requests + asked + connections as u64;
        if case == Case::Create && running.server != Server::Memory && !right.contains(&made) {
            return Err(format!("{made} sessions were made and not {right:?}").into());
        }
        Ok(Row {
            case,
            connections,
            distance,
            server: running.server,
            per_second: figures.per_second,
            p50_ms: figures.p50_ms,
            p99_ms: figures.p99_ms,
            // Those under way when wrk stopped have been worked on as well.
            requests: figures.requests + asked + connections as u64,
            server_time: after.server - before.server,
            redis_time: after.redis - before.redis,
            commands: after.commands - before.commands,
            rss_kib: running.process.memory(),
        })
    }

    /// Removes what the servers at this distance have made.
    fn forget(&mut self, distance: Distance) -> Result<(), Failure> {
        // What is in a server's own memory ends with it.
        self.servers.retain(|(at, running)| *at != distance || running.server != Server::Memory);
        for (_, running) in self.servers.iter_mut().filter(|(at, _)| *at == distance) {
            self.redis.flush(running.database)?;
            running.sessions.clear();
        }
        Ok(())
    }
}

/// What has been used up so far.
struct Used {
    server: Duration,
    redis: Duration,
    commands: u64,
}

fn used(running: &Running, redis: &mut Redis) -> Result<Used, Failure> {
    let server = running.process.used();
    Ok(Used { server, redis: redis.process.used(), commands: redis.commands()? })
}

/// The same once the server has worked off what was under way.
fn used_at_rest(running: &Running, redis: &mut Redis) -> Result<Used, Failure> {
    let mut last = used(running, redis)?;
    for _ in 0..40 {
        thread::sleep(Duration::from_millis(30));
        let now = used(running, redis)?;
        if now.commands == last.commands && now.server - last.server <= Duration::from_millis(10) {
            break;
        }
        last = now;
    }
    Ok(last)
}
