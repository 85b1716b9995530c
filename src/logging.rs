//! Logging: texts on one line, which input cannot forge, and throttling of lines that repeat.

use std::fmt::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use log::Level;

pub(crate) mod request_id;

use self::request_id::RequestId;

use crate::lock::lock;

/// How often a line reports the events of a kind that goes on.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// After how long without an event a kind is over.
const QUIET_PERIOD: Duration = Duration::from_secs(10);

/// How many kinds are counted apart at most, as texts that hold input have no limit.
const MAX_KINDS: usize = 16;

/// Writes log lines to standard error.
struct StandardError;

impl log::Log for StandardError {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= Level::Info
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            let id = RequestId::current().map(|id| format!(" request_id={id}")).unwrap_or_default();
            let line = format!("{:5} {}{id}\n", record.level(), record.args());
            // Nobody is left to be told that standard error is closed.
            let _ = std::io::Write::write_all(&mut std::io::stderr().lock(), line.as_bytes());
        }
    }

    fn flush(&self) {}
}

/// Writes log lines from `info` upwards to standard error, unless the program has a logger.
pub(crate) fn log_to_stderr() {
    if log::set_logger(&StandardError).is_ok() {
        log::set_max_level(log::LevelFilter::Info);
    }
}

/// A text on one line, without what begins another line or steers a terminal (CWE-117): texts of errors and panics
/// quote input.
pub(crate) struct OneLine<T>(pub(crate) T);

impl<T: fmt::Display> fmt::Display for OneLine<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

struct Escaping<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(is_unsafe) {
            let (before, found) = rest.split_at(at);
            self.0.write_str(before)?;
            let mut characters = found.chars();
            if let Some(character) = characters.next() {
                write!(self.0, "{}", character.escape_default())?;
            }
            rest = characters.as_str();
        }
        self.0.write_str(rest)
    }
}

/// Controls, what else ends a line, and what turns the direction of a text around.
fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A log for events that can happen very often, throttled by kind: it writes one line when a kind begins, one a minute with the
/// count and an example, and one when it is over. All other events are logged at level debug.
///
/// Clones share their state.
#[derive(Clone, Default)]
pub(crate) struct ThrottledLog(Arc<Kinds>);

impl fmt::Debug for ThrottledLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ThrottledLog")
    }
}

#[derive(Default)]
struct Kinds(Mutex<State>);

#[derive(Default)]
struct State {
    kinds: Vec<Kind>,
    /// Whether the reporter thread runs, which writes the lines that are due later.
    has_reporter: bool,
}

struct Kind {
    name: String,
    level: Level,
    began: Instant,
    last: Instant,
    /// When the last line was written.
    reported: Instant,
    /// How many events there were in all, and since the last line.
    total: u64,
    unreported: u64,
    example: String,
}

impl ThrottledLog {
    /// Logs an event of this kind. `line` is called only if its text is needed.
    pub(crate) fn log_throttled(&self, level: Level, kind: &str, line: impl FnOnce() -> String) {
        let has_reporter = self.0.log(Instant::now(), level, kind, line);
        if !has_reporter {
            self.start_reporter();
        }
    }

    /// Starts the reporter thread. It ends when all kinds are over.
    fn start_reporter(&self) {
        let kinds = Arc::downgrade(&self.0);
        let thread = std::thread::Builder::new().name("log".to_owned());
        // Without the thread, lines are written with the next event.
        self.0.state().has_reporter = thread.spawn(move || report(&kinds)).is_ok();
    }
}

fn report(kinds: &Weak<Kinds>) {
    while let Some(due) = kinds.upgrade().and_then(|kinds| kinds.report_due(Instant::now())) {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

impl Kinds {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }

    /// Returns whether the reporter thread runs.
    fn log(&self, now: Instant, level: Level, name: &str, line: impl FnOnce() -> String) -> bool {
        let mut state = self.state();
        let known = state.kinds.iter().position(|kind| kind.name == name);
        let name = if known.is_none() && state.kinds.len() >= MAX_KINDS { "" } else { name };
        match state.kinds.iter_mut().find(|kind| kind.name == name) {
            None => {
                state.kinds.push(Kind {
                    name: name.to_owned(),
                    level,
                    began: now,
                    last: now,
                    reported: now,
                    total: 1,
                    unreported: 0,
                    example: String::new(),
                });
                log::log!(level, "{}", line());
            }
            Some(kind) => {
                kind.total += 1;
                kind.unreported += 1;
                kind.last = now;
                let debugging = log::log_enabled!(Level::Debug);
                if kind.unreported == 1 || debugging {
                    let line = line();
                    log::debug!("{line}");
                    kind.example = line;
                }
                kind.report_continuation(now);
            }
        }
        state.has_reporter
    }

    /// Writes the lines that are due, and returns when the next one is due; `None` if all kinds are over.
    fn report_due(&self, now: Instant) -> Option<Instant> {
        let mut state = self.state();
        state.kinds.retain_mut(|kind| {
            let is_over = now >= kind.last + QUIET_PERIOD;
            if is_over {
                kind.report_end();
            } else {
                kind.report_continuation(now);
            }
            !is_over
        });
        let due = state
            .kinds
            .iter()
            .map(|kind| (kind.last + QUIET_PERIOD).min(kind.reported + REPORT_INTERVAL))
            .min();
        state.has_reporter = due.is_some();
        // What was told of this minute is not due before the next one.
        due.map(|due| due.max(now + Duration::from_millis(100)))
    }
}

impl Kind {
    fn report_continuation(&mut self, now: Instant) {
        if self.unreported > 0 && now >= self.reported + REPORT_INTERVAL {
            // It tells of many requests.
            let _none = request_id::leave();
            log::log!(
                self.level,
                "{} times more within a minute, such as: {}",
                self.unreported,
                self.example
            );
            (self.unreported, self.reported) = (0, now);
        }
    }

    fn report_end(&self) {
        let took = (self.last - self.began).as_secs();
        // What happened once was told when it did.
        if self.total > 1 {
            let example = &self.example;
            log::log!(self.level, "over: {} times in {took} s, such as: {example}", self.total);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_stays_on_its_line_and_steers_no_terminal() {
        for (text, line) in [
            ("plain é \"q\" \\ 日本", "plain é \"q\" \\ 日本"),
            ("a\r\nERROR forged", "a\\r\\nERROR forged"),
            ("\x1b[2J\x07\0", "\\u{1b}[2J\\u{7}\\u{0}"),
            ("\u{85}\u{9b}\u{7f}", "\\u{85}\\u{9b}\\u{7f}"),
            ("a\u{2028}b\u{202e}c", "a\\u{2028}b\\u{202e}c"),
        ] {
            assert_eq!(OneLine(text).to_string(), line);
            assert_eq!(format!("{}", OneLine(format_args!("{text}{text}"))), line.repeat(2));
        }
    }

    #[test]
    fn what_goes_on_is_told_of_once_a_minute_and_when_it_is_over() {
        let kinds = Kinds::default();
        let begin = Instant::now();
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let reported = |kinds: &Kinds| {
            kinds.state().kinds.iter().map(|kind| (kind.total, kind.unreported)).collect::<Vec<_>>()
        };
        // A hundred a second for 90 seconds.
        for second in 0..90 {
            for _ in 0..100 {
                kinds.log(at(second), Level::Warn, "down", || format!("at {second}"));
            }
        }
        assert_eq!(
            reported(&kinds),
            [(9_000, 2_999)],
            "the last line was at 60 s, with 6,000 and one"
        );
        kinds.log(at(90), Level::Warn, "other", || "other".to_owned());
        assert_eq!(reported(&kinds), [(9_000, 2_999), (1, 0)]);
        assert_eq!(kinds.report_due(at(95)), Some(at(99)));
        assert_eq!(kinds.report_due(at(99)), Some(at(100)));
        assert_eq!(reported(&kinds), [(1, 0)], "the first one is over");
        assert_eq!(kinds.report_due(at(100)), None);
        // And begins anew.
        kinds.log(at(200), Level::Warn, "down", || "again".to_owned());
        assert_eq!(reported(&kinds), [(1, 0)]);
    }

    #[test]
    fn texts_without_end_are_not_kinds_without_end() {
        let kinds = Kinds::default();
        for number in 0..1_000 {
            kinds.log(Instant::now(), Level::Warn, &number.to_string(), String::new);
        }
        let state = kinds.state();
        assert_eq!(state.kinds.len(), MAX_KINDS + 1);
        assert_eq!(state.kinds[MAX_KINDS].total, 1_000 - MAX_KINDS as u64);
    }
}
