//! Sessions in a file: ours beside axum with tower-sessions, both by SQLite with a write-ahead log, both on the disk before
//! they answer.

use std::fs;
use std::process::Command;

use super::load::{Figures, Load, Typical};
use super::options::Server;
use super::process::free_port;
use super::report::Table;
use super::running::Running;
use super::{Bench, FOLDER, check};
use crate::Failure;
use crate::servers::LIFETIME;

/// What scripts and logs are named after, instead of a database of Redis.
const DATABASE: usize = 40;

pub fn run(bench: &Bench) -> Result<Table, Failure> {
    let title =
        "Requests per second (p99 in ms) with sessions in a file, on the disk before the answer:";
    let head = ["request, connections", "ours", "axum, tower-sessions-sqlx-store", "ratio"];
    let mut table =
        Table { title: title.to_owned(), head: head.map(str::to_owned).to_vec(), rows: Vec::new() };
    let mut running = [start(Server::Ours)?, start(Server::Axum)?];
    for running in &mut running {
        running.log_in()?;
    }
    for path in ["/read", "/change"] {
        for connections in bench.options.connections.clone() {
            let mut measured: [Vec<Figures>; 2] = Default::default();
            for round in 0..bench.options.rounds {
                for n in 0..2 {
                    let n = (n + round) % 2;
                    let (port, seconds) = (running[n].port, bench.options.seconds);
                    let script = Some(running[n].script());
                    check::names(&running[n])?;
                    let before = check::counts(&running[n])?;
                    let figures = Load { port, path, connections, seconds, script }.run()?;
                    let counted = check::counts(&running[n])?.saturating_sub(before);
                    let right = check::counted(figures.requests, connections);
                    if path == "/change" && !right.contains(&counted) {
                        let server = running[n].server;
                        return Err(format!("{server}: {counted} changes, not {right:?}").into());
                    }
                    measured[n].push(figures);
                }
            }
            let [ours, theirs] = measured.each_ref().map(|figures| Typical::of(figures));
            let per_second = (ours.per_second, theirs.per_second);
            eprintln!(
                "file, {path}, {connections} connections: {:.0} {:.0}",
                per_second.0, per_second.1
            );
            table.rows.push(vec![
                format!("{path}, {connections}"),
                ours.to_string(),
                theirs.to_string(),
                format!("{:.2}", per_second.0 / per_second.1),
            ]);
        }
    }
    Ok(table)
}

/// A server with a file of its own.
fn start(server: Server) -> Result<Running, Failure> {
    let folder = format!("{FOLDER}/file-{server}");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    let (port, file) = (free_port()?, format!("{folder}/sessions.db"));
    let address = format!("127.0.0.1:{port}");
    let this = std::env::current_exe()?;
    let command = match server {
        Server::Axum => {
            let mut command = Command::new(this.with_file_name("axum_sqlite"));
            command.args([&address, &file, &LIFETIME.as_secs().to_string()]);
            command
        }
        _ => {
            let mut command = Command::new(this);
            command.args(["serve", "file", &address, &file]);
            command
        }
    };
    Running::start_command(server, command, port, DATABASE)
}
