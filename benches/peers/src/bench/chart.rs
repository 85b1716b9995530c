//! The results as a picture: requests per second as bars, legible on a light page and on a dark one.

use std::fmt::Write;

use super::options::{Case, Distance, Server};
use super::report::{Cell, thousands};

const PANEL: usize = 430;
const BAR: usize = 16;
const LINE: usize = 22;
const NAME: usize = 78;
const VALUE: usize = 62;
const TITLE: usize = 34;

const STYLE: &str = "\
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.title { font-weight: 600 }
.bar { fill: #8c959f } .ours { fill: #0969da } .memory { fill: #79b8ff }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .bar { fill: #6e7681 } .ours { fill: #4493f8 } .memory { fill: #1f4f8f }
}";

/// Each kind of request with a session in a panel, Redis near on the left and far on the right.
pub fn draw(cells: &[Cell]) -> String {
    // At 32 connections, or as near to that as was measured.
    let mut connections: Vec<usize> = cells.iter().map(|cell| cell.connections).collect();
    connections.sort_by_key(|count| count.abs_diff(32));
    let connections = connections[0];
    let (mut body, mut top, mut width) = (String::new(), 0, PANEL);
    for case in [Case::Read, Case::Change, Case::Create, Case::Plain] {
        let (mut left, mut height) = (0, 0);
        // What needs no Redis is the same near and far.
        let distances = if case == Case::Plain { &Distance::ALL[..1] } else { Distance::ALL };
        for &distance in distances {
            let chosen = |cell: &&Cell| {
                (cell.case, cell.distance, cell.connections) == (case, distance, connections)
            };
            let bars: Vec<&Cell> = cells.iter().filter(chosen).collect();
            if bars.is_empty() {
                continue;
            }
            panel(&mut body, &bars, left, top);
            left += PANEL + 20;
            width = width.max(left - 20);
            height = height.max(TITLE + bars.len() * LINE + 12);
        }
        top += height;
    }
    let what = format!("Requests per second at {connections} connections");
    text(&mut body, "name", 0, top + 14, &what);
    top += 22;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {top}\" width=\"{width}\" \
         height=\"{top}\" role=\"img\">\n<title>{what}</title>\n\
         <style>\n{STYLE}\n</style>\n{body}</svg>\n"
    )
}

fn panel(body: &mut String, bars: &[&Cell], left: usize, top: usize) {
    let first = bars[0];
    let title = match (first.case, first.distance) {
        (Case::Plain, _) => "no session".to_owned(),
        (case, Distance::Near) => format!("{}, Redis on the same machine", what(case)),
        (case, Distance::Far) => format!("{}, Redis 0.5 ms away", what(case)),
    };
    text(body, "title", left, top + 20, &title);
    let most = bars.iter().map(|cell| cell.per_second).fold(1.0, f64::max);
    for (n, cell) in bars.iter().enumerate() {
        let top = top + TITLE + n * LINE;
        let full = (PANEL - NAME - VALUE) as f64;
        let length = (cell.per_second / most * full).max(1.0);
        let class = match cell.server {
            Server::Ours => "bar ours",
            Server::Memory => "bar memory",
            _ => "bar",
        };
        text(body, "name", left, top + 13, label(cell.server));
        let x = left + NAME;
        let _ = writeln!(
            body,
            "<rect class=\"{class}\" x=\"{x}\" y=\"{top}\" width=\"{length:.1}\" height=\"{BAR}\" rx=\"2\"/>"
        );
        text(body, "value", x + length as usize + 6, top + 13, &thousands(cell.per_second));
    }
}

fn text(body: &mut String, class: &str, x: usize, y: usize, text: &str) {
    let _ = writeln!(body, "<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{text}</text>");
}

fn what(case: Case) -> &'static str {
    match case {
        Case::Plain => "no session",
        Case::Read => "reads its session",
        Case::Change => "changes its session",
        Case::Create => "logs in",
    }
}

fn label(server: Server) -> &'static str {
    match server {
        Server::Ours => "this crate",
        Server::Memory => "in memory",
        other => other.name(),
    }
}
