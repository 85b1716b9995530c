//! What is logged, for tests that look at it; and in none of it, by whichever test, an id.

use std::sync::{Mutex, MutexGuard, Once};

use bottle_session::RequestId;

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());
/// What is logged for a request, with its id.
static FOR_REQUESTS: Mutex<Vec<(String, RequestId)>> = Mutex::new(Vec::new());
static WITH_IDS: Mutex<Vec<String>> = Mutex::new(Vec::new());

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
        look_for_ids(&line);
        if let Some(id) = RequestId::current() {
            FOR_REQUESTS.lock().unwrap().push((line.clone(), id));
        }
        if record.level() <= log::Level::Info {
            lines().push(line);
        }
    }

    fn flush(&self) {}
}

/// The ids that a logger would add to the lines with this in them.
pub fn request_ids_of(part: &str) -> Vec<RequestId> {
    let lines = FOR_REQUESTS.lock().unwrap();
    lines.iter().filter(|(line, _)| line.contains(part)).map(|(_, id)| id.clone()).collect()
}

/// Takes note of a log line that shows what is written as an id of a session is, in either layout.
pub fn look_for_ids(line: &str) {
    if line.split(|c: char| !c.is_ascii_alphanumeric() && !"-_".contains(c)).any(is_like_an_id) {
        WITH_IDS.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(line.to_owned());
    }
}

fn is_like_an_id(word: &str) -> bool {
    let digits = word.bytes().filter(u8::is_ascii_digit).count();
    let hex = || word.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    match word.len() {
        // Words alone can be as long: 43 random characters without a digit are one in 1,500.
        43 => digits > 0,
        // A UUID, with its dashes or without.
        32 | 36 => digits > 0 && hex(),
        _ => false,
    }
}

/// Fails where any log line so far, of whatever test, has shown an id. Helpers call it when they are done.
pub fn assert_no_ids() {
    let lines = WITH_IDS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    // A second panic would hide the first one.
    assert!(lines.is_empty() || std::thread::panicking(), "ids in logs: {lines:#?}");
}

#[test]
fn what_is_written_like_an_id_is_found_in_a_line() {
    let table = [
        ("loaded 0123456789abcdefghijklmnopqrstuvwxyzABCDEF_ from", true),
        ("cookie \"bottle.session=0123456789abcdefghijklmnopqrstuvwxyzABCDEF-\"", true),
        ("session:01234567-89ab-cdef-0123-456789abcdef is gone", true),
        ("id=0123456789abcdef0123456789abcdef", true),
        ("bottle_session::server::native: listens on 127.0.0.1:8888", false),
        ("a_word_of_forty_three_characters_and_no_more", false),
    ];
    for (line, found) in table {
        let mut words = line.split(|c: char| !c.is_ascii_alphanumeric() && !"-_".contains(c));
        assert_eq!(words.any(is_like_an_id), found, "{line}");
    }
}

fn lines() -> MutexGuard<'static, Vec<String>> {
    LINES.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Starts to look at what this process logs, and to collect all but what is for debugging.
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
