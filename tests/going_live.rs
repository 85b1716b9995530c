//! What the guide says of going live, on real processes behind a real nginx.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::http::Browser;
use crate::support::process::{Program, example};
use crate::support::proxies::{Proxy, folder};
use crate::support::redis_server::RedisServer;

const PAGE: &str = include_str!("../src/guide/going_live.md");

const VISITORS: usize = 8;

fn block(language: &str) -> &'static str {
    PAGE.split_once(&format!("```{language}\n"))
        .and_then(|(_, rest)| rest.split_once("```"))
        .unwrap_or_else(|| panic!("the page has lines of {language}"))
        .0
}

/// Visitors who change their sessions and read them back until they are told to stop.
struct Load {
    at: SocketAddr,
    over: AtomicBool,
    rounds: AtomicUsize,
    failed: AtomicUsize,
}

impl Load {
    fn on(at: SocketAddr) -> Load {
        let (over, rounds, failed) = Default::default();
        Load { at, over, rounds, failed }
    }

    /// One visitor, and how many of its requests failed.
    fn visit(&self, number: usize) {
        let (mut browser, mut acknowledged) = (Browser::default(), None);
        for round in 0.. {
            if self.over.load(Ordering::SeqCst) {
                break;
            }
            let name = format!("visitor{number}-{round}");
            match browser.get(self.at, &format!("/set/{name}")).status {
                200 => acknowledged = Some(name),
                _ => drop(self.failed.fetch_add(1, Ordering::SeqCst)),
            }
            let read = browser.get(self.at, "/");
            match (read.status, &acknowledged) {
                // A change without an answer may have been made, or not.
                (200, Some(name)) if self.failed.load(Ordering::SeqCst) == 0 => {
                    assert_eq!(read.body, format!("Hello, {name}\n"));
                }
                (200, Some(_)) => {
                    let own = format!("Hello, visitor{number}-");
                    assert!(read.body.starts_with(&own), "{}", read.body);
                }
                (200, None) => {}
                _ => drop(self.failed.fetch_add(1, Ordering::SeqCst)),
            }
            self.rounds.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Waits until so many rounds more are over.
    fn pass(&self, rounds: usize, visitors: &[std::thread::ScopedJoinHandle<'_, ()>]) {
        let until = self.rounds.load(Ordering::SeqCst) + rounds;
        while self.rounds.load(Ordering::SeqCst) < until {
            assert!(!visitors.iter().any(|visitor| visitor.is_finished()), "a visitor has failed");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Runs all visitors beside `act`.
    fn during(&self, act: impl FnOnce(&[std::thread::ScopedJoinHandle<'_, ()>])) {
        /// Stops the visitors also where `act` fails.
        struct Over<'a>(&'a AtomicBool);

        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::SeqCst);
            }
        }

        std::thread::scope(|scope| {
            let over = Over(&self.over);
            let visitors: Vec<_> =
                (0..VISITORS).map(|number| scope.spawn(move || self.visit(number))).collect();
            act(&visitors);
            drop(over);
            visitors.into_iter().for_each(|visitor| visitor.join().unwrap());
        });
    }
}

#[test]
fn one_of_two_processes_behind_nginx_is_killed_under_load_and_nobody_loses_a_session() {
    let (_redis, port) = RedisServer::start_on_port();
    let url = format!("redis://127.0.0.1:{port}/0");
    let (one, two) = (Program::greeter(&[], Some(&url)), Program::greeter(&[], Some(&url)));
    let first = one.address;
    let lines = block("nginx")
        .replace("127.0.0.1:8001", &first.to_string())
        .replace("127.0.0.1:8002", &two.address.to_string())
        .replace("listen 443 ssl;", "listen LISTEN;");
    let nginx = Proxy::nginx(folder("two-processes"), &lines);
    let load = Load::on(nginx.address);
    let mut again = None;
    load.during(|visitors| {
        load.pass(300, visitors);
        assert_eq!(load.failed.load(Ordering::SeqCst), 0, "{}", nginx.log());
        one.kill();
        load.pass(300, visitors);
        again = Some(Program::greeter(&["--listen", &first.to_string()], Some(&url)));
        load.pass(300, visitors);
    });
    // Each of those requests may be done twice, so nginx has asked the other process.
    let failed = load.failed.load(Ordering::SeqCst);
    assert_eq!(failed, 0, "{failed} of {VISITORS} in flight: {}", nginx.log());
    // The process that came back serves whom it never saw.
    let mut browser = Browser::default();
    browser.text(two.address, "/set/Ada");
    assert_eq!(browser.text(again.as_ref().unwrap().address, "/"), "Hello, Ada\n");
}

#[test]
fn restarts_on_a_socket_of_systemd_refuse_nobody_who_connects() {
    let (_redis, port) = RedisServer::start_on_port();
    let host = port.to_string();
    let options = ["--listen", "systemd", "--redis-port", &host];
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let start = || Program::greeter_handed_with(listener.try_clone().unwrap(), &options);
    let load = Load::on(listener.local_addr().unwrap());
    // Held until the visitors have stopped: they connect anew for each request.
    let mut server = Some(start());
    load.during(|visitors| {
        for _ in 0..5 {
            load.pass(50, visitors);
            // As `systemctl restart` does: the next one starts when the last one has ended.
            assert!(server.take().unwrap().terminate().success());
            server = Some(start());
        }
        load.pass(50, visitors);
    });
    assert_eq!(load.failed.load(Ordering::SeqCst), 0);
}

#[test]
fn systemd_understands_the_template() {
    let folder = folder("template");
    let start = format!("ExecStart={}", example("greeter").display());
    let service = block("systemd-service").replace("ExecStart=/usr/local/bin/app", &start);
    std::fs::write(folder.join("app@.socket"), block("systemd-socket")).unwrap();
    std::fs::write(folder.join("app@.service"), service).unwrap();
    let units = ["app@8001.socket", "app@8001.service"].map(|name| folder.join(name));
    let verified = Command::new("systemd-analyze").arg("verify").args(units).output().unwrap();
    let said = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success() && said.is_empty(), "{said}");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn the_script_for_a_new_version_is_one_that_a_shell_reads() {
    let checked = Command::new("sh").args(["-n", "-c", block("sh")]).status().unwrap();
    assert!(checked.success());
}

#[test]
fn the_container_file_starts_the_app_as_process_1_and_copies_what_a_project_has() {
    let lines: Vec<_> = block("dockerfile").lines().filter(|line| !line.is_empty()).collect();
    let known = ["FROM", "WORKDIR", "COPY", "RUN", "USER", "ENV", "EXPOSE", "STOPSIGNAL", "CMD"];
    for line in &lines {
        let word = line.split(' ').next().unwrap();
        assert!(known.contains(&word), "{line}");
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for copied in lines.iter().filter(|line| line.starts_with("COPY") && !line.contains("--from")) {
        let words: Vec<_> = copied.split(' ').skip(1).collect();
        for path in &words[..words.len() - 1] {
            assert!(root.join(path).exists(), "{path}");
        }
    }
    let command = lines.last().unwrap().strip_prefix("CMD ").unwrap();
    let command: Vec<String> = serde_json::from_str(command).expect("an array, and no shell");
    let copied = lines.iter().find(|line| line.contains("--from=build")).unwrap();
    assert!(copied.ends_with(&command[0]), "{copied}");
}
