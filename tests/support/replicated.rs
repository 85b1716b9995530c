//! A primary, two replicas and three sentinels: what operators run.

use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use super::redis_server::{RedisServer, start_program};
use crate::faults::wait_until;

/// The name under which sentinels know the master in all tests.
pub const NAME: &str = "sessions";

pub struct SentinelServer {
    process: Child,
    folder: PathBuf,
    pub port: u16,
}

impl SentinelServer {
    /// Watches the master on this port, which counts as down where so many sentinels say so.
    pub fn watching(master: u16, quorum: u32) -> SentinelServer {
        SentinelServer::watching_with(master, quorum, "")
    }

    /// The same with settings of its own.
    pub fn watching_with(master: u16, quorum: u32, more: &str) -> SentinelServer {
        let port = free_port();
        let folder =
            std::env::temp_dir().join(format!("bs-sentinel-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let settings = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor {NAME} 127.0.0.1 {master} {quorum}\n\
             sentinel down-after-milliseconds {NAME} 300\nsentinel failover-timeout {NAME} 2000\n{more}",
            folder.display()
        );
        std::fs::write(folder.join("sentinel.conf"), settings).unwrap();
        let process = launch(&folder);
        let server = SentinelServer { process, folder, port };
        server.wait();
        server
    }

    fn wait(&self) {
        wait_until("the sentinel listens", || self.ask("PING", &[]).is_ok());
    }

    pub fn ask(&self, command: &str, words: &[&str]) -> redis::RedisResult<redis::Value> {
        let mut connection = redis::Client::open(self.url())?.get_connection()?;
        redis::cmd(command).arg(words).query(&mut connection)
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// How many replicas, or sentinels besides it, it knows and takes for sound.
    pub fn sound(&self, of: &str) -> usize {
        let Ok(redis::Value::Array(known)) = self.ask("SENTINEL", &[of, NAME]) else { return 0 };
        let is_sound = |one: &&redis::Value| {
            let words: Vec<String> = redis::from_redis_value((*one).clone()).unwrap_or_default();
            let value = |name: &str| {
                let at = words.iter().step_by(2).position(|word| word == name)?;
                words.get(2 * at + 1).cloned()
            };
            let flags = value("flags").unwrap_or_default();
            let follows = value("master-link-status").is_none_or(|status| status == "ok");
            // What another sentinel last said of the master, `master_down`, stays until it is asked again.
            let is_down =
                |flag| ["s_down", "o_down", "disconnected"].contains(&flag) || flags.is_empty();
            follows && !flags.split(',').any(is_down)
        };
        known.iter().filter(is_sound).count()
    }

    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    pub fn start_again(&mut self) {
        self.process = launch(&self.folder);
        self.wait();
    }

    /// Stops the process without ending it, or lets it go on.
    pub fn hang(&self, hangs: bool) {
        let signal = if hangs { "-STOP" } else { "-CONT" };
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill").success());
    }
}

fn launch(folder: &std::path::Path) -> Child {
    let file = folder.join("sentinel.conf");
    start_program(|command| command.arg(file).arg("--sentinel"))
}

impl Drop for SentinelServer {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Servers with their ports, the first of them the primary at first, and the sentinels.
pub struct Replicated {
    pub servers: Vec<(RedisServer, u16)>,
    pub sentinels: Vec<SentinelServer>,
}

impl Replicated {
    pub fn start() -> Replicated {
        let settings = ["--repl-diskless-sync-delay", "0"];
        let mut servers = vec![RedisServer::start_on_port_with(&settings)];
        let primary = servers[0].1;
        for _ in 0..2 {
            let port = primary.to_string();
            let of = ["--replicaof", "127.0.0.1", &port];
            servers.push(RedisServer::start_on_port_with(&[&settings[..], &of].concat()));
        }
        let sentinels = (0..3).map(|_| SentinelServer::watching(primary, 2)).collect();
        let replicated = Replicated { servers, sentinels };
        replicated.wait_until_sound(2);
        replicated
    }

    /// Waits until so many replicas follow the primary, and all sentinels know of them and of each other.
    pub fn wait_until_sound(&self, replicas: usize) {
        wait_until("the replicas follow", || {
            let port = self.servers[self.primary()].1.to_string();
            let follows = |server: &&(RedisServer, u16)| {
                let told = server.0.tells_of_replication();
                let is = |name: &str, value: &str| told.get(name).is_some_and(|is| is == value);
                is("role", "slave") && is("master_port", &port) && is("master_link_status", "up")
            };
            self.servers.iter().filter(follows).count() >= replicas
        });
        wait_until("the sentinels know everybody", || {
            let knows_all = |sentinel: &SentinelServer| {
                sentinel.sound("REPLICAS") >= replicas && sentinel.sound("SENTINELS") == 2
            };
            self.sentinels.iter().all(knows_all)
        });
    }

    /// Has the first sentinel replace the primary, as operators do before an upgrade.
    pub fn fail_over(&self) {
        wait_until("a failover begins", || {
            self.sentinels[0].ask("SENTINEL", &["FAILOVER", NAME]).is_ok()
        });
    }

    /// The number of the server that the first sentinel takes for the primary.
    pub fn primary(&self) -> usize {
        let named = self.sentinels[0].ask("SENTINEL", &["GET-MASTER-ADDR-BY-NAME", NAME]).unwrap();
        let (_, port): (String, u16) = redis::from_redis_value(named).unwrap();
        self.servers.iter().position(|server| server.1 == port).expect("one of ours")
    }

    /// Waits until sentinels have replaced a primary that was killed.
    pub fn wait_for_another_primary(&self, before: usize) {
        for look in 1.. {
            if self.primary() != before {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
            if look % 500 == 0 {
                // Sentinels that were starved of time have seen too late that it is down, and take its replicas for
                // out of date. By ten times this period they may be.
                let set = ["SET", NAME, "down-after-milliseconds", "20000"];
                self.sentinels.iter().for_each(|sentinel| drop(sentinel.ask("SENTINEL", &set)));
            }
        }
    }

    /// Whether a server says that it is a replica. One that is just becoming one closes connections.
    pub fn is_replica(&self, number: usize) -> bool {
        let told = self.servers[number].0.tells_of_replication();
        told.get("role").is_some_and(|role| role == "slave")
    }
}
