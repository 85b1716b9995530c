//! A server that runs, with the sessions that it has given out.

use std::fs;
use std::process::Command;
use std::thread;

use super::http::Client;
use super::options::Server;
use super::process::{Process, free_port};
use super::{FOLDER, SOURCES};
use crate::Failure;
use crate::servers::LIFETIME;

/// Requests take turns through these, so that hardly ever two of one session are under way at once.
pub const SESSIONS: usize = 1024;
/// How many clients log in at a time.
const CLIENTS: usize = 8;

pub struct Running {
    pub server: Server,
    pub process: Process,
    pub port: u16,
    pub database: usize,
    /// Cookies of the sessions of `visitor-0`, `visitor-1`, …
    pub sessions: Vec<String>,
}

impl Running {
    /// `redis`: the port of Redis, or of a proxy to it.
    pub fn start(server: Server, redis: u16, database: usize) -> Result<Running, Failure> {
        Running::start_replicated(server, redis, database, 0)
    }

    /// The same where a save counts once so many replicas have it, which only ours can do.
    pub fn start_replicated(
        server: Server,
        redis: u16,
        database: usize,
        replicas: u32,
    ) -> Result<Running, Failure> {
        let port = free_port()?;
        let address = format!("127.0.0.1:{port}");
        let url = format!("redis://127.0.0.1:{redis}/{database}");
        let lifetime = LIFETIME.as_secs().to_string();
        let command = match server {
            Server::Express => {
                let mut command = Command::new("node");
                command.arg(format!("{FOLDER}/express/server.js"));
                command.args([&port.to_string(), &url, &lifetime]);
                command.env("NODE_ENV", "production");
                command
            }
            Server::Flask | Server::Bottle => {
                // Two workers for each core and one more, as gunicorn's documentation recommends. Workers with
                // threads keep connections open; its default ones need a proxy in front that does.
                let workers = 2 * thread::available_parallelism()?.get() + 1;
                let mut command = Command::new("python3");
                command.args(["-m", "gunicorn", "--worker-class", "gthread", "--threads", "4"]);
                command.args(["--workers", &workers.to_string(), "--bind", &address]);
                command.args(["--chdir", &format!("{SOURCES}/python")]);
                command.arg(format!("{server}_peer:app"));
                command.env("PYTHONPATH", format!("{FOLDER}/python"));
                command.env("PYTHONDONTWRITEBYTECODE", "1");
                command.env("REDIS_URL", url).env("LIFETIME_S", lifetime);
                command
            }
            _ => {
                let mut command = Command::new(std::env::current_exe()?);
                command.args(["serve", server.name(), &address, &url]);
                command.env("REPLICAS", replicas.to_string());
                command
            }
        };
        Running::start_command(server, command, port, database)
    }

    /// A server that this command starts.
    pub fn start_command(
        server: Server,
        mut command: Command,
        port: u16,
        database: usize,
    ) -> Result<Running, Failure> {
        let log = format!("{FOLDER}/{server}-{database}.log");
        let mut process = Process::start(&mut command, &log)?;
        process.wait_until(&format!("{server}, see {log},"), || {
            Client::new(port).text("/plain", "").is_ok_and(|body| body == "hello")
        })?;
        Ok(Running { server, process, port, database, sessions: Vec::new() })
    }

    /// Logs the visitors in, if they are not.
    pub fn log_in(&mut self) -> Result<(), Failure> {
        if !self.sessions.is_empty() {
            return Ok(());
        }
        self.sessions = log_in(self.port, false)?;
        fs::write(self.script(), script(&self.sessions) + super::load::DONE)?;
        Ok(())
    }

    /// The script for wrk that goes through the sessions.
    pub fn script(&self) -> String {
        format!("{FOLDER}/{}-{}.lua", self.server, self.database)
    }
}

/// Logs all visitors in; their cookies.
pub fn log_in(port: u16, tls: bool) -> Result<Vec<String>, Failure> {
    let log_in_some = |first: usize| {
        let mut client = if tls { Client::inside_tls(port)? } else { Client::new(port) };
        let names = (first..first + SESSIONS / CLIENTS).map(|n| format!("visitor-{n}"));
        names.map(|name| client.create(&name)).collect::<Result<Vec<String>, Failure>>()
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..SESSIONS)
            .step_by(SESSIONS / CLIENTS)
            .map(|first| scope.spawn(move || log_in_some(first)))
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| match thread.join() {
                Ok(Ok(cookies)) => cookies.into_iter().map(Ok).collect(),
                Ok(Err(failure)) => vec![Err(failure)],
                Err(_) => vec![Err("a thread that logs in panicked".into())],
            })
            .collect()
    })
}

/// The first request that wrk asks the script for is not sent: it looks whether there are several in it.
pub fn script(cookies: &[String]) -> String {
    let mut text = "local cookies = {\n".to_owned();
    for cookie in cookies {
        text += &format!("  {cookie:?},\n");
    }
    text += "}
local requests, next = {}, -1
function init(arguments)
  for n, cookie in ipairs(cookies) do
    requests[n - 1] = wrk.format(nil, nil, { Host = wrk.headers.Host, Cookie = cookie })
  end
end
function request()
  local text = requests[math.max(next, 0) % #cookies]
  next = next + 1
  return text
end
";
    text
}
