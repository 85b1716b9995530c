//! A private Redis on a unix socket, of the version that the tests are run on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use super::logs::{assert_no_ids, collect_logs};

/// The variable of the environment that names the program to start for redis-server in all tests.
pub const PROGRAM: &str = "BOTTLE_SESSION_REDIS_SERVER";

/// Starts the server's program, Debian's where the environment names no other.
pub fn start_program(with: impl FnOnce(&mut Command) -> &mut Command) -> Child {
    let program = std::env::var_os(PROGRAM).unwrap_or_else(|| "redis-server".into());
    let mut command = Command::new(&program);
    with(&mut command).stdout(Stdio::null()).spawn().unwrap_or_else(|error| {
        panic!("{}: {error}; run tests/run.sh, which installs it", program.display())
    })
}

pub struct RedisServer {
    process: Child,
    folder: PathBuf,
    databases: AtomicU32,
    options: Vec<String>,
}

static SHARED: Mutex<Weak<RedisServer>> = Mutex::new(Weak::new());
static STARTED: AtomicU32 = AtomicU32::new(0);

impl RedisServer {
    pub fn start(options: &[&str]) -> RedisServer {
        // Whatever talks to it shows no id in any log.
        collect_logs();
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("bs-redis-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let options = options.iter().map(|option| option.to_string()).collect::<Vec<_>>();
        let process = launch(&folder, &options);
        let mut server = RedisServer { process, folder, databases: AtomicU32::new(0), options };
        server.wait();
        server
    }

    /// Ends the process as a crash would.
    pub fn kill(&mut self) {
        self.process.kill().expect("our own process");
        self.process.wait().expect("it ends");
    }

    /// Starts the process again after [`kill`](RedisServer::kill), with the data that it wrote down.
    pub fn start_again(&mut self) {
        self.begin_again();
        self.wait();
    }

    /// The same without waiting until it serves: first it loads the data.
    pub fn begin_again(&mut self) {
        self.process = launch(&self.folder, &self.options);
    }

    /// Waits until it serves.
    pub fn wait(&mut self) {
        while self.try_connect(0).is_err() {
            let ended = self.process.try_wait().expect("our own process");
            assert!(ended.is_none(), "the server does not start with {:?}", self.options);
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// A server on a TCP port of its own, for programs that know no unix sockets, and the port.
    pub fn start_on_port() -> (RedisServer, u16) {
        RedisServer::start_on_port_with(&[])
    }

    /// The same with options of its own.
    pub fn start_on_port_with(options: &[&str]) -> (RedisServer, u16) {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        (RedisServer::start_on(free, options), free)
    }

    /// A node of a cluster that is yet to be made, and its port.
    pub fn start_node(options: &[&str]) -> (RedisServer, u16) {
        // The second port, 10000 higher, is where nodes talk to each other: before Redis 7 no other will do.
        let free = |port| std::net::TcpListener::bind(("127.0.0.1", port));
        let port = loop {
            let port = free(0).unwrap().local_addr().unwrap().port();
            if port.checked_add(10_000).is_some_and(|bus| free(bus).is_ok()) {
                break port;
            }
        };
        (RedisServer::start_on(port, &[&["--cluster-enabled", "yes"], options].concat()), port)
    }

    fn start_on(port: u16, options: &[&str]) -> RedisServer {
        let port = port.to_string();
        let ours = ["--bind", "127.0.0.1", "--port", &port];
        RedisServer::start(&[&ours, options].concat())
    }

    /// One server for all tests that run at the same time, stopped when the last of them ends.
    pub fn shared() -> Arc<RedisServer> {
        let mut shared = SHARED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        shared.upgrade().unwrap_or_else(|| {
            let server = Arc::new(RedisServer::start(&[]));
            *shared = Arc::downgrade(&server);
            server
        })
    }

    /// The number of a database that nobody used yet.
    pub fn fresh_database(&self) -> u32 {
        self.databases.fetch_add(1, Ordering::Relaxed)
    }

    pub fn url(&self, database: u32) -> String {
        format!("redis+unix://{}?db={database}", self.folder.join("socket").display())
    }

    pub fn connect(&self, database: u32) -> redis::Connection {
        self.try_connect(database).expect("the server answers")
    }

    /// A connection of the one user, who has a password.
    pub fn connect_with_password(&self, password: &str) -> redis::Connection {
        let url = format!("{}&pass={password}", self.url(0));
        redis::Client::open(url).unwrap().get_connection().expect("this is the password")
    }

    /// A connection to a server that has no time even for PING.
    pub fn connect_while_busy(&self) -> redis::Connection {
        redis::Client::open(self.url(0)).unwrap().get_connection().expect("the server listens")
    }

    /// Whether it has no time for others while it loads its data.
    pub fn is_loading(&self) -> bool {
        self.try_connect(0).is_err_and(|error| error.code() == Some("LOADING"))
    }

    /// The number that the server gave to the newest client over TCP.
    pub fn newest_client(&self) -> u64 {
        let list: String = redis::cmd("CLIENT").arg("LIST").query(&mut self.connect(0)).unwrap();
        let over_tcp = list.lines().filter(|client| client.contains(" addr=127.0.0.1:"));
        let number = |client: &str| client.split([' ', '=']).nth(1).unwrap().parse().unwrap();
        over_tcp.map(number).max().expect("there is one")
    }

    /// What it tells of replication; nothing where it does not answer, as one that has just become a replica.
    pub fn tells_of_replication(&self) -> BTreeMap<String, String> {
        let text = self.try_connect(0).and_then(|mut connection| {
            redis::cmd("INFO").arg("replication").query::<String>(&mut connection)
        });
        lines_of(&text.unwrap_or_default())
    }

    /// How many clients the server has over TCP.
    pub fn clients(&self) -> usize {
        let list: String = redis::cmd("CLIENT").arg("LIST").query(&mut self.connect(0)).unwrap();
        list.lines().filter(|client| client.contains(" addr=127.0.0.1:")).count()
    }

    fn try_connect(&self, database: u32) -> redis::RedisResult<redis::Connection> {
        let mut connection = redis::Client::open(self.url(database))?.get_connection()?;
        redis::cmd("PING").exec(&mut connection)?;
        Ok(connection)
    }
}

fn launch(folder: &Path, options: &[String]) -> Child {
    start_program(|command| {
        command
            .args(["--port", "0", "--save", "", "--databases", "1000", "--unixsocket"])
            .arg(folder.join("socket"))
            .arg("--dir")
            .arg(folder)
            .args(options)
    })
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
        assert_no_ids();
    }
}

/// The keys that hold more than what a session that has ended leaves for a minute.
pub fn but_tombstones(connection: &mut redis::Connection) -> Vec<String> {
    let mut keys: Vec<String> = redis::cmd("KEYS").arg("*").query(connection).unwrap();
    keys.retain(|key| {
        let ask = |command: &str| redis::cmd(command).arg(key).to_owned();
        let names: Vec<String> = ask("HKEYS").query(connection).unwrap();
        let left: i64 = ask("PTTL").query(connection).unwrap();
        names != ["\0x"] || !(1..=60_000).contains(&left)
    });
    keys
}

/// A section of what the server tells of itself.
pub fn info(connection: &mut redis::Connection, section: &str) -> BTreeMap<String, String> {
    lines_of(&redis::cmd("INFO").arg(section).query::<String>(connection).unwrap())
}

fn lines_of(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}
