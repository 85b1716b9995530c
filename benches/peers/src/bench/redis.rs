//! The Redis of the run, and proxies to it.

use std::net::TcpStream;
use std::process::Command;

use redis::{Client, Connection, RedisResult, cmd};

use super::process::{Process, free_port};
use crate::Failure;

/// One database for each server and distance.
const DATABASES: usize = 32;

pub struct Redis {
    pub process: Process,
    pub port: u16,
    connection: Connection,
}

impl Redis {
    pub fn start(folder: &str) -> Result<Redis, Failure> {
        let port = free_port()?;
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
        command.args(["--save", "", "--appendonly", "no"]);
        command.args(["--databases", &DATABASES.to_string()]);
        let log = format!("{folder}/redis.log");
        let mut process = Process::start(&mut command, &log)?;
        let client = Client::open(format!("redis://127.0.0.1:{port}"))?;
        process
            .wait_until(&format!("redis-server, see {log},"), || client.get_connection().is_ok())?;
        Ok(Redis { process, port, connection: client.get_connection()? })
    }

    /// A replica, which is there once this returns and gone when that is dropped.
    pub fn replicate(&mut self, folder: &str) -> Result<Process, Failure> {
        let (port, primary) = (free_port()?, self.port.to_string());
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
        command.args(["--save", "", "--appendonly", "no"]);
        command.args(["--databases", &DATABASES.to_string(), "--replicaof", "127.0.0.1", &primary]);
        let log = format!("{folder}/replica.log");
        let mut process = Process::start(&mut command, &log)?;
        let client = Client::open(format!("redis://127.0.0.1:{primary}"))?;
        process.wait_until(&format!("the replica, see {log},"), || {
            // A replica that has been sent the data counts for what was written before, and may get what is written after
            // only a second later.
            let written = || {
                let mut connection = client.get_connection()?;
                cmd("SET").arg("replicated").arg(1).exec(&mut connection)?;
                cmd("WAIT").arg(1).arg(100).query::<u32>(&mut connection)
            };
            written() == Ok(1) && written() == Ok(1)
        })?;
        Ok(process)
    }

    /// How many commands it has had from others than this program.
    pub fn commands(&mut self) -> RedisResult<u64> {
        let text: String = cmd("INFO").arg("commandstats").query(&mut self.connection)?;
        let calls = |line: &str| {
            let (name, values) = line.strip_prefix("cmdstat_")?.split_once(':')?;
            let calls = values.split(',').find_map(|value| value.strip_prefix("calls="))?;
            (name != "info").then(|| calls.parse::<u64>().ok())?
        };
        Ok(text.lines().filter_map(calls).sum())
    }

    pub fn keys(&mut self, database: usize) -> RedisResult<u64> {
        cmd("SELECT").arg(database).exec(&mut self.connection)?;
        cmd("DBSIZE").query(&mut self.connection)
    }

    pub fn flush(&mut self, database: usize) -> RedisResult<()> {
        cmd("SELECT").arg(database).exec(&mut self.connection)?;
        cmd("FLUSHDB").arg("SYNC").exec(&mut self.connection)
    }

    /// The memory that Redis uses for what it keeps, its indexes included.
    pub fn used_memory(&mut self) -> Result<u64, Failure> {
        let text: String = cmd("INFO").arg("memory").query(&mut self.connection)?;
        let used = text.lines().find_map(|line| line.strip_prefix("used_memory:"));
        Ok(used.ok_or("INFO has no used_memory")?.trim().parse()?)
    }
}

/// A proxy to Redis, and its port.
pub struct Proxy {
    _process: Process,
    pub port: u16,
}

impl Proxy {
    /// `delay`: microseconds, in each direction.
    pub fn start(redis: u16, delay: u32, folder: &str) -> Result<Proxy, Failure> {
        let port = free_port()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args([
            "delay",
            &format!("127.0.0.1:{port}"),
            &format!("127.0.0.1:{redis}"),
            &delay.to_string(),
        ]);
        let log = format!("{folder}/delay-{delay}.log");
        let mut process = Process::start(&mut command, &log)?;
        process.wait_until(&format!("the proxy, see {log},"), || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        })?;
        Ok(Proxy { _process: process, port })
    }
}
