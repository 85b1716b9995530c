//! What is logged, for tests that look at it.

use std::sync::{Mutex, MutexGuard, Once};

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Collector;

impl log::Log for Collector {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        let ours = metadata.target().starts_with("bottle_session");
        metadata.target() == "bottle_session::access"
            || ours && metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            lines().push(format!("{} {}", record.level(), record.args()));
        }
    }

    fn flush(&self) {}
}

fn lines() -> MutexGuard<'static, Vec<String>> {
    LINES.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Starts to collect the lines of access logs, and warnings and errors, of all servers of this process.
pub fn collect_logs() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Collector).expect("no other logger");
        log::set_max_level(log::LevelFilter::Info);
    });
}

/// The lines so far that contain this.
pub fn access_log_of(part: &str) -> Vec<String> {
    lines().iter().filter(|line| line.contains(part)).cloned().collect()
}

/// The errors so far that contain this.
pub fn errors_of(part: &str) -> Vec<String> {
    lines()
        .iter()
        .filter(|line| line.starts_with("ERROR ") && line.contains(part))
        .cloned()
        .collect()
}
