//! The results as a table for programs, as tables for people, and as ratios to the best peer.

use std::fs;
use std::time::Duration;

use super::options::{Case, Distance, Server};
use super::{FOLDER, chart};
use crate::Failure;

pub const HEADER: &str = "case\tconnections\tdistance\tserver\trps\tp50_ms\tp99_ms\tserver_us\tredis_us\trss_kib\tcommands";

/// One measurement.
pub struct Row {
    pub case: Case,
    pub connections: usize,
    pub distance: Distance,
    pub server: Server,
    pub per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub requests: u64,
    pub server_time: Duration,
    pub redis_time: Duration,
    pub commands: u64,
    pub rss_kib: u64,
}

/// The same over all rounds.
#[derive(Clone)]
pub struct Cell {
    pub case: Case,
    pub connections: usize,
    pub distance: Distance,
    pub server: Server,
    pub per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub server_us: f64,
    pub redis_us: f64,
    pub rss_kib: f64,
    pub commands: f64,
}

impl Row {
    pub fn cell(&self) -> Cell {
        cell(&[self])
    }

    fn place(&self) -> (Case, Distance, usize, Server) {
        (self.case, self.distance, self.connections, self.server)
    }
}

impl Cell {
    pub fn line(&self) -> String {
        format!(
            "{}\t{}\t{}\t{}\t{:.0}\t{:.3}\t{:.3}\t{:.1}\t{:.2}\t{:.0}\t{:.2}",
            self.case,
            self.connections,
            self.distance,
            self.server,
            self.per_second,
            self.p50_ms,
            self.p99_ms,
            self.server_us,
            self.redis_us,
            self.rss_kib,
            self.commands
        )
    }

    fn at(&self, case: Case, distance: Distance, connections: usize) -> bool {
        (self.case, self.distance, self.connections) == (case, distance, connections)
    }
}

pub fn medians(rows: &[Row]) -> Vec<Cell> {
    let mut rows: Vec<&Row> = rows.iter().collect();
    rows.sort_by_key(|row| row.place());
    rows.chunk_by(|one, other| one.place() == other.place()).map(cell).collect()
}

fn cell(rows: &[&Row]) -> Cell {
    let of = |value: fn(&Row) -> f64| median(rows.iter().map(|row| value(row)).collect());
    // The system counts in hundredths of a second, too coarse for a single measurement with few requests.
    let requests: u64 = rows.iter().map(|row| row.requests).sum();
    let each = |value: fn(&Row) -> Duration| {
        rows.iter().map(|row| value(row)).sum::<Duration>().as_secs_f64() * 1e6 / requests as f64
    };
    let first = rows[0];
    Cell {
        case: first.case,
        connections: first.connections,
        distance: first.distance,
        server: first.server,
        per_second: of(|row| row.per_second),
        p50_ms: of(|row| row.p50_ms),
        p99_ms: of(|row| row.p99_ms),
        server_us: each(|row| row.server_time),
        redis_us: each(|row| row.redis_time),
        rss_kib: of(|row| row.rss_kib as f64),
        commands: of(|row| row.commands as f64 / row.requests as f64),
    }
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

/// A table for people, in Markdown.
pub struct Table {
    pub title: String,
    pub head: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

impl Table {
    fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let rows: String = self.rows.iter().map(|row| line(row)).collect();
        format!(
            "{}\n\n{}|{}\n{rows}\n",
            self.title,
            line(&self.head),
            "---|".repeat(self.head.len())
        )
    }
}

/// Writes all files, and prints the tables.
pub fn write(cells: &[Cell], extras: &[Table]) -> Result<(), Failure> {
    let mut report = String::new();
    if !cells.is_empty() {
        let lines: String = cells.iter().map(|cell| cell.line() + "\n").collect();
        fs::write(format!("{FOLDER}/results.tsv"), format!("{HEADER}\n{lines}"))?;
        fs::write(format!("{FOLDER}/sessions.svg"), chart::draw(cells))?;
        for table in [speed(cells), cost(cells), ratios(cells)] {
            report += &table.markdown();
        }
    }
    report.extend(extras.iter().map(Table::markdown));
    fs::write(format!("{FOLDER}/report.md"), &report)?;
    println!("{report}");
    Ok(())
}

/// The cells in the order of the tables, those of one row together.
fn by_row(cells: &[Cell]) -> impl Iterator<Item = &[Cell]> {
    cells.chunk_by(|one, other| one.at(other.case, other.distance, other.connections))
}

fn servers(cells: &[Cell]) -> Vec<Server> {
    let measured = |server: &Server| cells.iter().any(|cell| cell.server == *server);
    Server::ALL.iter().copied().filter(measured).collect()
}

fn table(cells: &[Cell], title: &str, show: impl Fn(&Cell) -> String) -> Table {
    let servers = servers(cells);
    let mut head = vec!["request, Redis, connections".to_owned()];
    head.extend(servers.iter().map(Server::to_string));
    let row = |row: &[Cell]| {
        let mut texts = vec![place(&row[0])];
        texts.extend(servers.iter().map(|server| {
            row.iter().find(|cell| cell.server == *server).map(&show).unwrap_or_default()
        }));
        texts
    };
    Table { title: title.to_owned(), head, rows: by_row(cells).map(row).collect() }
}

fn place(cell: &Cell) -> String {
    format!("{}, {}, {}", cell.case, cell.distance, cell.connections)
}

fn speed(cells: &[Cell]) -> Table {
    table(cells, "Requests per second, in brackets p99 in ms:", |cell| {
        format!("{} ({})", thousands(cell.per_second), digits(cell.p99_ms))
    })
}

fn cost(cells: &[Cell]) -> Table {
    table(
        cells,
        "Microseconds on a core for one request, server + Redis; commands in Redis; in brackets the server's MiB:",
        |cell| {
            format!(
                "{} + {}; {} ({:.0})",
                digits(cell.server_us),
                digits(cell.redis_us),
                digits(cell.commands),
                cell.rss_kib / 1024.0
            )
        },
    )
}

/// Ours beside the best peer of an async stack.
fn ratios(cells: &[Cell]) -> Table {
    let mut rows = Vec::new();
    for row in by_row(cells) {
        let best = row
            .iter()
            .filter(|cell| Server::ASYNC.contains(&cell.server))
            .max_by(|one, other| one.per_second.total_cmp(&other.per_second));
        let ours = row.iter().find(|cell| cell.server == Server::Ours);
        let (Some(ours), Some(best)) = (ours, best) else { continue };
        let plain = cells.iter().find(|cell| {
            cell.server == Server::Ours && cell.at(Case::Plain, ours.distance, ours.connections)
        });
        let to_plain = plain.filter(|_| ours.case != Case::Plain);
        rows.push(vec![
            place(ours),
            best.server.to_string(),
            format!("{:.2}", ours.per_second / best.per_second),
            format!("{:.2}", ours.p99_ms / best.p99_ms),
            format!("{:.2}", ours.server_us / best.server_us),
            if best.redis_us > 0.0 {
                format!("{:.2}", ours.redis_us / best.redis_us)
            } else {
                String::new()
            },
            to_plain.map_or(String::new(), |plain| {
                format!("{:.2}", ours.per_second / plain.per_second)
            }),
        ]);
    }
    let head = [
        "request, Redis, connections",
        "best async peer",
        "requests/s",
        "p99",
        "server time",
        "Redis time",
        "requests/s to own plain",
    ];
    Table {
        title: "Ours as a multiple of the best async peer's:".to_owned(),
        head: head.map(str::to_owned).to_vec(),
        rows,
    }
}

/// Three figures that count, with commas.
pub fn thousands(value: f64) -> String {
    let step = if value >= 10_000.0 {
        100.0
    } else if value >= 1_000.0 {
        10.0
    } else {
        1.0
    };
    let text = format!("{:.0}", (value / step).round() * step);
    match text.len() {
        length @ 4.. => format!("{},{}", &text[..length - 3], &text[length - 3..]),
        _ => text,
    }
}

pub fn digits(value: f64) -> String {
    if value >= 9.95 { format!("{value:.0}") } else { format!("{value:.1}") }
}
