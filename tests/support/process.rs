//! Programs of ours and of others, as processes that end with the test.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{self, Receiver};
use std::thread::JoinHandle;

use super::logs::look_for_ids;

/// The variable of the environment that says where the sessions of a recorded app are.
pub const RECORDED: &str = "BOTTLE_SESSION_RECORDED";

/// A process that listens on a port of its own, ended when this is dropped.
pub struct Program {
    child: Child,
    /// Another process than the child, if it is not that which serves.
    served_by: Option<u32>,
    pub address: SocketAddr,
    // Kept open: a program must not fail for want of somebody who reads.
    _output: BufReader<ChildStdout>,
}

impl Program {
    /// The greeter, built if need be, with these options.
    pub fn greeter(options: &[&str], redis_url: Option<&str>) -> Program {
        Program::greeter_logging(options, redis_url).0
    }

    /// The greeter with all it has to log, which is what the thread returns when the greeter has ended.
    pub fn greeter_logging(
        options: &[&str],
        redis_url: Option<&str>,
    ) -> (Program, JoinHandle<String>) {
        let mut command = Command::new(example("greeter"));
        command.args(["--listen", "127.0.0.1:0"]).args(options);
        command.env_remove("REDIS_URL").env("RUST_LOG", "trace");
        if let Some(url) = redis_url {
            command.env("REDIS_URL", url);
        }
        let mut program = Program::start(command.stderr(Stdio::piped()));
        let mut stderr = program.child.stderr.take().expect("piped");
        let log = std::thread::spawn(move || {
            let mut log = String::new();
            stderr.read_to_string(&mut log).expect("text");
            log.lines().for_each(look_for_ids);
            log
        });
        (program, log)
    }

    /// The greeter with these options and variables.
    #[cfg(feature = "https")]
    pub fn greeter_with_variables(options: &[&str], variables: &[(&str, String)]) -> Program {
        let mut command = Command::new(example("greeter"));
        command.args(options).env_remove("REDIS_URL").env("RUST_LOG", "off");
        command.env_remove("TLS_CERT").env_remove("TLS_KEY");
        for (name, value) in variables {
            command.env(name, value);
        }
        Program::start(&mut command)
    }

    /// The greeter, with so few file descriptors that clients can use them up, and its log, line by line.
    pub fn greeter_with_few_files(files: u32) -> (Program, Receiver<String>) {
        let mut command = Command::new("sh");
        command
            .args(["-c", "ulimit -n \"$1\" && exec \"$0\" --listen 127.0.0.1:0"])
            .arg(example("greeter"))
            .arg(files.to_string())
            .env_remove("REDIS_URL")
            .env("RUST_LOG", "debug");
        Program::start_reading(&mut command)
    }

    /// The greeter with these options, and its log, line by line.
    #[cfg(feature = "https")]
    pub fn greeter_reading(options: &[&str]) -> (Program, Receiver<String>) {
        let mut command = Command::new(example("greeter"));
        command.args(options).env_remove("REDIS_URL").env("RUST_LOG", "debug");
        Program::start_reading(&mut command)
    }

    fn start_reading(command: &mut Command) -> (Program, Receiver<String>) {
        let mut program = Program::start(command.stderr(Stdio::piped()));
        let stderr = BufReader::new(program.child.stderr.take().expect("piped"));
        let (lines, log) = mpsc::channel();
        std::thread::spawn(move || {
            // Read on when nobody listens any more: a full pipe would stop the program.
            stderr.lines().map_while(|line| line.ok()).for_each(|line| drop(lines.send(line)));
        });
        (program, log)
    }

    /// The greeter as process 1 of processes of its own, as in a container: signals that it does not ask for it does not
    /// get.
    pub fn greeter_as_process_1() -> Program {
        let mut command = Command::new("unshare");
        command
            .args(["--map-root-user", "--fork", "--pid", "--kill-child", "--"])
            .arg(example("greeter"))
            .args(["--listen", "127.0.0.1:0"])
            .env_remove("REDIS_URL");
        let mut program = Program::start(&mut command);
        let of = program.child.id();
        let children = std::fs::read_to_string(format!("/proc/{of}/task/{of}/children"));
        program.served_by = children.ok().and_then(|pids| pids.trim().parse().ok());
        assert!(program.served_by.is_some(), "unshare has forked");
        program
    }

    /// The greeter on a socket that it is handed as systemd does: as file descriptor 3.
    pub fn greeter_handed(listener: impl Into<OwnedFd>) -> Program {
        Program::greeter_handed_with(listener, &["--listen", "systemd"])
    }

    /// The same with these options.
    pub fn greeter_handed_with(listener: impl Into<OwnedFd>, options: &[&str]) -> Program {
        let mut command = Command::new("sh");
        let script = "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\"";
        command
            .args(["-c", script])
            .arg(example("greeter"))
            .args(options)
            .env_remove("REDIS_URL")
            .env("RUST_LOG", "off");
        Program::start_with(command.stdin(listener.into()))
    }

    /// The app of the [recorder](super::recorder), with its sessions there: this test program, which runs one test
    /// that serves it.
    pub fn recorded(redis: &str) -> Program {
        let mut command = Command::new(std::env::current_exe().expect("this test has a path"));
        let test = "failover::a_process_of_the_recorded_app";
        command.args([test, "--exact", "--nocapture", "--test-threads=1"]);
        Program::start(command.env(RECORDED, redis))
    }

    /// Python's greeter of tests/interop.
    pub fn python_greeter(redis_port: u16, database: u32) -> Program {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        // Where tests/run.sh installs bottle-session, unless it says otherwise.
        let packages = std::env::var_os("BOTTLE_SESSION_PYTHON")
            .map_or_else(|| root.join("target/interop/python"), PathBuf::from);
        let mut command = Command::new("python3");
        command.env("PYTHONPATH", packages);
        let script = root.join("tests/interop/greeter.py");
        Program::start(command.arg(script).arg(redis_port.to_string()).arg(database.to_string()))
    }

    /// A command that ends up as a program which says where it listens.
    pub fn start_silently(command: &mut Command) -> Program {
        Program::start(command.env("RUST_LOG", "off"))
    }

    #[cfg(feature = "https")]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Starts a program that prints "listening on" and its port.
    fn start(command: &mut Command) -> Program {
        Program::start_with(command.stdin(Stdio::null()))
    }

    fn start_with(command: &mut Command) -> Program {
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        let port = loop {
            line.clear();
            let read = output.read_line(&mut line).expect("text");
            assert!(
                read > 0,
                "{command:?} ended before it listened; run tests/run.sh to install what it needs"
            );
            if let Some((_, rest)) = line.to_lowercase().split_once("listening on ") {
                // A unix socket has no port.
                let port = if rest.starts_with("unix:") { "0" } else { rest };
                let port = port.trim().rsplit(':').next().and_then(|port| port.parse().ok());
                break port.unwrap_or_else(|| panic!("no port: {line:?}"));
            }
        };
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        Program { child, served_by: None, address, _output: output }
    }

    /// How many threads and how many open files the process has.
    pub fn threads_and_files(&self) -> (usize, usize) {
        let process = PathBuf::from(format!("/proc/{}", self.child.id()));
        let count = |of| std::fs::read_dir(process.join(of)).expect("our own process").count();
        (count("task"), count("fd"))
    }

    /// How many bytes of memory the process has.
    #[cfg(feature = "https")]
    pub fn memory(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kib: usize = line.split_whitespace().next().unwrap().parse().unwrap();
        kib * 1024
    }

    /// For how long it has had a core, in hundredths of a second (proc(5)).
    #[cfg(feature = "https")]
    pub fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields = stat.rsplit_once(") ").unwrap().1.split(' ').skip(11).take(2);
        fields.map(|field| field.parse::<u64>().unwrap()).sum()
    }

    /// Sends the process a signal, such as `HUP`.
    #[cfg(feature = "https")]
    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", signal, &pid]).status().expect("kill");
        assert!(sent.success());
    }

    /// Asks the process to end, as an operator does.
    pub fn ask_to_end(&self) {
        let pid = self.served_by.unwrap_or(self.child.id()).to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().expect("kill");
        assert!(sent.success());
    }

    /// Ends the process as a crash would.
    pub fn kill(mut self) {
        self.child.kill().expect("our own process");
    }

    /// Asks the process to end, and says how it ended.
    pub fn terminate(mut self) -> std::process::ExitStatus {
        self.ask_to_end();
        self.child.wait().expect("the process ends")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn example(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let folder = BUILT.get_or_init(|| {
        let mut build = Command::new(env!("CARGO"));
        build
            .args(["build", "--quiet", "--examples"])
            .args(cfg!(feature = "https").then_some("--features=https,dev-certificate"))
            .args(cfg!(feature = "sqlite").then_some("--features=sqlite"))
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        // What cargo tells a test of its package, the build of another one (ring) would take for a change.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
                build.env_remove(name);
            }
        }
        let built = build.status().expect("cargo runs");
        assert!(built.success(), "the examples do not build");
        let test = std::env::current_exe().expect("this test has a path");
        let profile = test.parent().and_then(Path::parent).expect("target/debug/deps");
        profile.join("examples")
    });
    folder.join(name)
}
