//! What is logged, for tests that look at it. And nothing that is logged, in the whole run, may show an id.

use std::io::Write;
use std::sync::{Mutex, MutexGuard, Once};

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Collector;

impl log::Log for Collector {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target().starts_with("bottle_session")
    }

    fn log(&self, record: &log::Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let line = format!("{} {}", record.level(), record.args());
        if shows_an_id(&line) {
            // Not a panic, which would be some request's 500; and past what a test's output is captured by.
            let _ = writeln!(std::io::stderr(), "a log line shows an id: {line}");
            std::process::abort();
        }
        if record.level() <= log::Level::Info {
            lines().push(line);
        }
    }

    fn flush(&self) {}
}

/// Whether a word of it is written as a session's id is, in one layout or the other.
fn shows_an_id(line: &str) -> bool {
    let is_ids = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    line.split(|character: char| !u8::try_from(character).is_ok_and(is_ids)).any(|word| {
        let has = |kind: fn(&u8) -> bool| word.bytes().any(|byte| kind(&byte));
        let all_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match word.len() {
            43 => has(u8::is_ascii_lowercase) && has(u8::is_ascii_uppercase),
            32 => all_hex(word),
            36 => all_hex(&word.replace('-', "")) && word.matches('-').count() == 4,
            _ => false,
        }
    })
}

#[test]
fn an_id_is_recognized() {
    for (line, shows) in [
        ("GET /", false),
        ("SessionId(#0123abcd) is no session", false),
        ("cookie=Ab0_456789012345678901234567890123456789012;", true),
        ("0123456789abcdef0123456789abcdef", true),
        ("session:01234567-89ab-cdef-0123-456789abcdef is", true),
    ] {
        assert_eq!(shows_an_id(line), shows, "{line}");
    }
}

fn lines() -> MutexGuard<'static, Vec<String>> {
    LINES.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Starts to collect what is logged in this process.
pub fn collect_logs() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Collector).expect("no other logger");
        log::set_max_level(log::LevelFilter::Trace);
    });
}

/// The lines so far that contain this.
pub fn logs_of(part: &str) -> Vec<String> {
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
