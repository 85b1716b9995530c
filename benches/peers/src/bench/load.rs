//! wrk: many requests at once.

use std::fmt;
use std::process::Command;

use super::FOLDER;
use super::report::{median, thousands};
use crate::Failure;

/// What a script for wrk ends with, so that figures need not be read from a table for people.
pub const DONE: &str = r#"
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("figures %d %d %d %d %d %d %d %d %d\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), e.connect, e.read, e.write, e.status, e.timeout))
end
"#;

pub struct Figures {
    pub requests: u64,
    pub per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

/// The medians of several rounds; shown as requests per second, p99 in brackets.
pub struct Typical {
    pub per_second: f64,
    pub p99_ms: f64,
}

impl Typical {
    pub fn of(rounds: &[Figures]) -> Typical {
        let of = |value: fn(&Figures) -> f64| median(rounds.iter().map(value).collect());
        Typical { per_second: of(|each| each.per_second), p99_ms: of(|each| each.p99_ms) }
    }
}

impl fmt::Display for Typical {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:.3})", thousands(self.per_second), self.p99_ms)
    }
}

pub struct Load {
    pub port: u16,
    pub path: &'static str,
    pub connections: usize,
    pub seconds: u64,
    /// Without one: the same request each time, without a cookie.
    pub script: Option<String>,
}

impl Load {
    /// Runs to its end. Whatever went wrong with a request is an error.
    pub fn run(&self) -> Result<Figures, Failure> {
        let script = match &self.script {
            Some(script) => script.clone(),
            None => {
                let script = format!("{FOLDER}/done.lua");
                std::fs::write(&script, DONE)?;
                script
            }
        };
        let output = Command::new("wrk")
            .args(["--threads", "1", "--timeout", "10s", "--script", &script])
            .args(["--connections", &self.connections.to_string()])
            .args(["--duration", &format!("{}s", self.seconds)])
            .arg(format!("http://127.0.0.1:{}{}", self.port, self.path))
            .output()
            .map_err(|error| format!("wrk cannot be started: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let figures = text.lines().find_map(|line| line.strip_prefix("figures "));
        let Some(figures) = figures else {
            return Err(format!("wrk: {text}{}", String::from_utf8_lossy(&output.stderr)).into());
        };
        let figures: Result<Vec<u64>, _> = figures.split(' ').map(str::parse).collect();
        let [requests, duration, p50, p99, errors @ ..] = &figures?[..] else {
            return Err("wrk: too few figures".into());
        };
        if *requests == 0 || errors.iter().any(|count| *count > 0) {
            return Err(format!(
                "{requests} requests, of which went wrong (connect, read, write, status, time-out): {errors:?}"
            )
            .into());
        }
        Ok(Figures {
            requests: *requests,
            per_second: *requests as f64 * 1e6 / *duration as f64,
            p50_ms: *p50 as f64 / 1e3,
            p99_ms: *p99 as f64 / 1e3,
        })
    }
}
