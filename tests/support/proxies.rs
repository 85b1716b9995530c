//! The real nginx, HAProxy and Apache, each in the foreground of a process of its own, ended when it is dropped.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::serving::Client;

pub struct Proxy {
    process: Child,
    folder: PathBuf,
    pub address: SocketAddr,
}

/// A new folder for the files of one test.
pub fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("bs-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a folder for temporary files");
    folder
}

/// The shortest lines that the guide gives for nginx, with this socket in place of `/run/app.socket`.
pub fn nginx_in_short(socket: &Path) -> String {
    let lines = include_str!("../../src/guide/proxies.md")
        .split_once("```nginx-short\n")
        .and_then(|(_, rest)| rest.split_once("```"))
        .expect("the guide has short lines for nginx")
        .0;
    lines
        .replace("/run/app.socket", socket.to_str().expect("UTF-8"))
        .replace("listen 443 ssl;", "listen LISTEN;")
}

impl Proxy {
    /// An nginx with these lines in its `http` block; `LISTEN` in them stands for its address.
    pub fn nginx(folder: PathBuf, lines: &str) -> Proxy {
        Proxy::nginx_as(folder, None, lines)
    }

    /// One whose workers run as this user, for which the tests must run as root.
    pub fn nginx_as(folder: PathBuf, user: Option<&str>, lines: &str) -> Proxy {
        let at = folder.display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {at}/{kind};\n"))
            .concat();
        let process = match user {
            Some(user) => format!("user {user};"),
            None => "master_process off;".to_owned(),
        };
        let config = format!(
            "daemon off; {process} pid {at}/pid; error_log {at}/log;\nevents {{}}\n\
             http {{\naccess_log off;\n{temporary}{lines}\n}}\n"
        );
        let mut command = Command::new("nginx");
        command.arg("-p").arg(&folder).args(["-c", "nginx.conf", "-e", "log"]);
        Proxy::start(command, folder, "nginx.conf", &config)
    }

    /// An HAProxy with this configuration behind a `global` section.
    pub fn haproxy(folder: PathBuf, lines: &str) -> Proxy {
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(folder.join("haproxy.cfg"));
        Proxy::start(command, folder, "haproxy.cfg", &format!("global\n    maxconn 500\n{lines}\n"))
    }

    /// An Apache with these lines behind what it needs to run.
    pub fn apache(folder: PathBuf, lines: &str) -> Proxy {
        let at = folder.display();
        let modules: String =
            ["mpm_event", "authz_core", "proxy", "proxy_http", "headers", "setenvif", "xsendfile"]
                .map(|name| {
                    format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n")
                })
                .concat();
        let user = match runs_as_root() {
            true => "User www-data\nGroup www-data\n",
            false => "",
        };
        let config = format!(
            "ServerRoot {at}\nServerName localhost\nPidFile {at}/pid\nErrorLog {at}/log\n\
             DefaultRuntimeDir {at}\nMutex file:{at} default\n{modules}{user}Listen LISTEN\n{lines}\n"
        );
        let mut command = Command::new("apache2");
        command.args(["-DFOREGROUND", "-f"]).arg(folder.join("apache.conf"));
        Proxy::start(command, folder, "apache.conf", &config)
    }

    fn start(mut command: Command, folder: PathBuf, file: &str, config: &str) -> Proxy {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = config.replace("LISTEN", &free.to_string());
        std::fs::write(folder.join(file), config).expect("the configuration is written");
        let output = std::fs::File::create(folder.join("output")).expect("a file for the output");
        // Where Debian keeps them, which plain users do not look for.
        let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
        let process = command
            .env("PATH", path)
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("the file can be shared"))
            .stderr(output)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}; tests/run.sh installs it"));
        let mut proxy = Proxy { process, folder, address: free };
        while TcpStream::connect(proxy.address).is_err() {
            if let Some(status) = proxy.process.try_wait().unwrap() {
                panic!("{command:?} ended ({status}): {}", proxy.log());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        proxy
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        let read = |name| std::fs::read_to_string(self.folder.join(name)).unwrap_or_default();
        read("output") + &read("log")
    }

    pub fn client(&self) -> Client {
        Client::new(TcpStream::connect(self.address).expect("the proxy listens"))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // A master process takes its workers along only where it is asked.
        let pid = self.process.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Whether the tests run as root, as they do where proxies are to run as other users.
pub fn runs_as_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}
