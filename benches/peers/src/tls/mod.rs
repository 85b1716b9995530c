//! Servers over TLS side by side: each on one core, the load on another.
//!
//! What is compared is the time on a core for a request: with the load's own core full, requests per second are wrk's.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::Failure;
use crate::bench::{FOLDER, Process, Redis, free_port, median};

pub mod load;

const USAGE: &str = "\
benches/run.sh --tls [OPTIONS]: this crate and its peers over TLS 1.3, each on one core and the load on another.

  --only LIST     of hello,large,sessions,handshakes,storm,idle
  --servers LIST  of ours,axum,actix,nginx (nginx in front of ours)
  --rounds N      how many; 3 unless told otherwise
  --seconds N     how long each measurement takes; 2 unless told otherwise

All of it takes about 12 minutes. The tables are in target/peers/tls.md.";

const CASES: [&str; 6] = ["hello", "large", "sessions", "handshakes", "storm", "idle"];
const SERVERS: [&str; 4] = ["ours", "axum", "actix", "nginx"];

/// The core of the servers, and that of the load.
const SERVER_CORE: &str = "0";
const LOAD_CORE: &str = "1";

const CONNECTIONS: [usize; 3] = [1, 32, 256];
const STORM: usize = 64;
const IDLE: usize = 10_000;
/// Databases that no cell of the other benchmark uses.
const DATABASE: usize = 20;

struct Options {
    cases: Vec<String>,
    servers: Vec<String>,
    rounds: usize,
    seconds: u64,
}

impl Options {
    fn parse(arguments: &[&str]) -> Result<Option<Options>, Failure> {
        let all = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let mut options =
            Options { cases: all(&CASES), servers: all(&SERVERS), rounds: 3, seconds: 2 };
        let list = |value: &str, known: &[&str]| -> Result<Vec<String>, Failure> {
            let names: Vec<_> = value.split(',').map(str::to_owned).collect();
            match names.iter().find(|name| !known.contains(&&***name)) {
                Some(name) => Err(format!("unknown: {name}; known: {}", known.join(", ")).into()),
                None => Ok(names),
            }
        };
        let mut arguments = arguments.iter();
        while let Some(&argument) = arguments.next() {
            if ["--help", "-h"].contains(&argument) {
                return Ok(None);
            }
            let value = arguments.next().ok_or_else(|| format!("{argument} needs a value"))?;
            match argument {
                "--only" => options.cases = list(value, &CASES)?,
                "--servers" => options.servers = list(value, &SERVERS)?,
                "--rounds" => options.rounds = value.parse()?,
                "--seconds" => options.seconds = value.parse()?,
                _ => return Err(format!("unknown option {argument}; --help lists them").into()),
            }
        }
        Ok(Some(options))
    }
}

/// A server that runs on its core, or several that are one.
struct Running {
    name: String,
    processes: Vec<Process>,
    port: u16,
    cookies: Vec<String>,
}

impl Running {
    /// One of the servers of this program.
    fn start(name: &str, redis: u16, database: usize, tls: bool) -> Result<Running, Failure> {
        let port = free_port()?;
        let (address, url) =
            (format!("127.0.0.1:{port}"), format!("redis://127.0.0.1:{redis}/{database}"));
        let mut command = pinned(SERVER_CORE);
        command.arg(std::env::current_exe()?);
        match tls {
            true => command.args(["serve-tls", name, &address, &url, &folder()]),
            false => command.args(["serve", name, &address, &url]),
        };
        let log = format!("{FOLDER}/tls-{name}-{tls}.log");
        let mut process = Process::start(&mut command, &log)?;
        let listens = || std::net::TcpStream::connect(&address).is_ok();
        process.wait_until(&format!("{name}, see {log},"), listens)?;
        let (name, cookies) = (name.to_owned(), Vec::new());
        Ok(Running { name, processes: vec![process], port, cookies })
    }

    /// nginx with TLS in front of this crate without.
    fn behind_nginx(redis: u16) -> Result<Running, Failure> {
        let mut running = Running::start("ours", redis, DATABASE, false)?;
        let (port, folder, log) = (free_port()?, folder(), format!("{FOLDER}/tls-nginx.log"));
        let config = format!(
            "daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {log};\n\
             events {{ worker_connections 20000; }}\n\
             http {{ access_log off; keepalive_requests 100000000; keepalive_timeout 600s;\n\
             client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;\n\
             fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi;\n\
             scgi_temp_path {folder}/scgi;\n\
             upstream app {{ server 127.0.0.1:{}; keepalive 256; keepalive_requests 100000000; }}\n\
             server {{ listen 127.0.0.1:{port} ssl backlog=4096;\n\
             ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;\n\
             ssl_protocols TLSv1.2 TLSv1.3; ssl_session_cache shared:a:10m;\n\
             location / {{ proxy_pass http://app; proxy_http_version 1.1;\n\
             proxy_set_header Connection \"\"; proxy_set_header Host $http_host; }} }} }}\n",
            running.port
        );
        let path = format!("{folder}/nginx.conf");
        fs::write(&path, config)?;
        let mut command = pinned(SERVER_CORE);
        command.args(["nginx", "-e", &log, "-c", &path]);
        let mut process = Process::start(&mut command, &log)?;
        let listens = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        process.wait_until(&format!("nginx, see {log},"), listens)?;
        running.processes.push(process);
        (running.name, running.port) = ("nginx".to_owned(), port);
        Ok(running)
    }

    /// Seconds on a core so far.
    fn used(&self) -> f64 {
        self.processes.iter().map(|process| process.used().as_secs_f64()).sum()
    }

    fn memory(&self) -> f64 {
        self.processes.iter().map(|process| process.memory() as f64 * 1024.0).sum()
    }

    /// Microseconds on the server's core for each of so many requests; what they are is the load's last line.
    fn cost(&self, load: &mut Command) -> Result<(f64, Vec<f64>), Failure> {
        let before = self.used();
        let figures = figures(load)?;
        // What was under way when the load ended.
        std::thread::sleep(std::time::Duration::from_millis(50));
        Ok(((self.used() - before) * 1e6, figures))
    }

    fn wrk(
        &self,
        scheme: &str,
        path: &str,
        connections: usize,
        seconds: u64,
    ) -> Result<f64, Failure> {
        let script = format!("{FOLDER}/tls-{}.lua", self.name);
        let requests = match self.cookies.is_empty() {
            true => String::new(),
            false => crate::bench::script(&self.cookies),
        };
        fs::write(&script, requests + crate::bench::DONE)?;
        let mut command = pinned(LOAD_CORE);
        command.args(["wrk", "--threads", "1", "--timeout", "10s", "--script", &script]);
        command.args(["--connections", &connections.to_string()]);
        command.args(["--duration", &format!("{seconds}s")]);
        command.arg(format!("{scheme}://127.0.0.1:{}{path}", self.port));
        let (used, figures) = self.cost(&mut command)?;
        if figures[0] == 0.0 || figures[4..].iter().any(|errors| *errors > 0.0) {
            return Err(format!("{}: {path}: wrk had errors: {figures:?}", self.name).into());
        }
        Ok(used / figures[0])
    }
}

fn folder() -> String {
    format!("{FOLDER}/tls")
}

fn pinned(core: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", core]);
    command
}

/// The numbers in the line of figures that a load prints.
fn figures(command: &mut Command) -> Result<Vec<f64>, Failure> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("figures "))
        .ok_or_else(|| format!("{command:?}: {text}{}", String::from_utf8_lossy(&output.stderr)))?;
    Ok(line.split(' ').map(str::parse).collect::<Result<_, _>>()?)
}

/// A P-256 certificate under a P-256 authority, as Let's Encrypt gives them.
fn make_certificate() -> Result<(), Failure> {
    fs::create_dir_all(folder())?;
    let (authority_key, key) = (KeyPair::generate()?, KeyPair::generate()?);
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&authority_key)?;
    let issuer = Issuer::from_params(&params, &authority_key);
    let leaf = CertificateParams::new(["localhost".to_owned()])?.signed_by(&key, &issuer)?;
    fs::write(format!("{}/cert.pem", folder()), leaf.pem() + &authority.pem())?;
    fs::write(format!("{}/key.pem", folder()), key.serialize_pem())?;
    Ok(())
}

/// By row and server, what each round has measured.
#[derive(Default)]
struct Measured {
    rows: Vec<String>,
    values: BTreeMap<(String, String), Vec<f64>>,
}

impl Measured {
    fn add(&mut self, row: &str, server: &str, value: f64) {
        if !self.rows.iter().any(|known| known == row) {
            self.rows.push(row.to_owned());
        }
        eprintln!("{row}, {server}: {value:.1}");
        self.values.entry((row.to_owned(), server.to_owned())).or_default().push(value);
    }

    fn of(&self, row: &str, server: &str) -> Option<f64> {
        let values = self.values.get(&(row.to_owned(), server.to_owned()))?;
        Some(median(values.clone()))
    }

    /// Medians, and those of ours as multiples of the others'.
    fn table(&self) -> String {
        let mut text = "| | ours | axum | actix | nginx | ours / best peer | ours / nginx |\n\
                        |---|---|---|---|---|---|---|\n"
            .to_owned();
        for row in &self.rows {
            let [ours, axum, actix, nginx] = SERVERS.map(|server| self.of(row, server));
            let best = axum.into_iter().chain(actix).min_by(f64::total_cmp);
            let shown = |value: Option<f64>| value.map_or(String::new(), |it| format!("{it:.1}"));
            let ratio = |other: Option<f64>| {
                ours.zip(other)
                    .map_or(String::new(), |(ours, other)| format!("{:.2}", ours / other))
            };
            let cells = [ours, axum, actix, nginx].map(shown).join(" | ");
            text += &format!("| {row} | {cells} | {} | {} |\n", ratio(best), ratio(nginx));
        }
        text
    }
}

pub fn run(arguments: &[&str]) -> Result<(), Failure> {
    let Some(options) = Options::parse(arguments)? else {
        println!("{USAGE}");
        return Ok(());
    };
    make_certificate()?;
    let mut redis = Redis::start(FOLDER)?;
    let mut measured = Measured::default();
    let mut order = options.servers.clone();
    for round in 1..=options.rounds {
        eprintln!("round {round} of {}", options.rounds);
        for case in &options.cases {
            for server in &order {
                redis.flush(DATABASE)?;
                case_of(case, server, redis.port, &options, &mut measured)?;
            }
        }
        order.rotate_left(1);
    }
    let text = format!(
        "Microseconds on the server's core for one request or handshake; of the storm, milliseconds that those who are \
         connected wait; bytes of memory. Medians of {} rounds; lower is better.\n\n{}",
        options.rounds,
        measured.table()
    );
    fs::write(format!("{FOLDER}/tls.md"), &text)?;
    println!("{text}");
    Ok(())
}

fn case_of(
    case: &str,
    server: &str,
    redis: u16,
    options: &Options,
    measured: &mut Measured,
) -> Result<(), Failure> {
    let seconds = options.seconds;
    let start = || match server {
        "nginx" => Running::behind_nginx(redis),
        name => Running::start(name, redis, DATABASE, true),
    };
    let program = std::env::current_exe()?;
    let own = |arguments: &[String]| {
        let mut command = pinned(LOAD_CORE);
        command.arg(&program).args(arguments);
        command
    };
    match case {
        "hello" => {
            let running = start()?;
            for connections in CONNECTIONS {
                let cost = running.wrk("https", "/plain", connections, seconds)?;
                measured.add(&format!("hello, {connections} connections"), server, cost);
            }
        }
        "large" => {
            let cost = start()?.wrk("https", "/large", 32, seconds)?;
            measured.add("1 MiB, 32 connections", server, cost);
        }
        "sessions" if server == "nginx" => {}
        "sessions" => {
            for tls in [true, false] {
                let mut running =
                    Running::start(server, redis, DATABASE + 1 + usize::from(tls), tls)?;
                running.cookies = crate::bench::log_in(running.port, tls)?;
                let scheme = if tls { "https" } else { "http" };
                for path in ["/read", "/change"] {
                    let cost = running.wrk(scheme, path, 32, seconds)?;
                    measured.add(&format!("{path}, 32 connections, {scheme}"), server, cost);
                }
            }
        }
        "handshakes" => {
            let running = start()?;
            let mut command =
                own(&["shake-hands".into(), running.port.to_string(), seconds.to_string()]);
            let (used, figures) = running.cost(&mut command)?;
            measured.add("full handshake and a request", server, used / figures[0]);
        }
        "storm" => {
            let running = start()?;
            for (clients, name) in [(0, "calm"), (STORM, "in the storm")] {
                let mut command = own(&[
                    "visit".into(),
                    running.port.to_string(),
                    seconds.to_string(),
                    clients.to_string(),
                ]);
                let (_, figures) = running.cost(&mut command)?;
                for (at, percentile) in ["p50", "p90", "p99"].into_iter().enumerate() {
                    measured.add(&format!("{percentile}, {name}"), server, figures[at] / 1e3);
                }
            }
        }
        _ => {
            let running = start()?;
            let config = load::config()?;
            // What the first connections make once.
            let warm =
                load::connect(running.port, &config).and_then(|mut stream| load::ask(&mut stream));
            warm?;
            let before = running.memory();
            let mut open = Vec::with_capacity(IDLE);
            for _ in 0..IDLE {
                let mut stream = load::connect(running.port, &config)?;
                load::ask(&mut stream)?;
                open.push(stream);
            }
            let each = (running.memory() - before) / IDLE as f64;
            measured.add("bytes of an idle connection", server, each);
        }
    }
    Ok(())
}
