//! Counts in Redis.

use std::fmt::Write;

use super::Key;
use super::window::{At, Counted, Window};
use crate::pipeline::operation::{Answer, Operation, Progress, Round};
use crate::redis::RedisReply;
use crate::{Error, ErrorKind, Result};

/// Counts a request, and asks how many there were in the window before: plain commands, as each request comes by here.
pub(super) struct RedisCount {
    /// Of the keys: what they begin with, and whose count it is.
    visitor: String,
    window: Window,
    at: At,
    counted: Result<Counted>,
}

impl RedisCount {
    pub(super) fn new(prefix: &str, key: Key, window: Window) -> RedisCount {
        let mut visitor = prefix.to_owned();
        for byte in key {
            // Nothing fails that writes to a text.
            let _ = write!(visitor, "{byte:02x}");
        }
        let unanswered = Error::new(ErrorKind::Unavailable, "it has not answered");
        let at = window.at(std::time::UNIX_EPOCH);
        RedisCount { visitor, window, at, counted: Err(unanswered) }
    }

    /// The counts, and the time by the clock of Redis.
    pub(super) fn into_counted(self) -> Result<(Counted, At)> {
        self.counted.map(|counted| (counted, self.at))
    }
}

impl Operation for RedisCount {
    fn request(&mut self, round: &mut Round<'_>) {
        self.at = self.window.at(round.now());
        let now = format!("{}:{}", self.visitor, self.at.index);
        let before = format!("{}:{}", self.visitor, self.at.index.saturating_sub(1));
        let kept = (2 * self.window.length.as_millis()).to_string();
        round.command(&[b"INCR", now.as_bytes()]);
        round.command(&[b"PEXPIRE", now.as_bytes(), kept.as_bytes()]);
        round.command(&[b"GET", before.as_bytes()]);
    }

    fn answer(&mut self, answer: Answer<'_>) -> Progress {
        let mut replies = answer.replies();
        let (now, _, before) = (replies.next(), replies.next(), replies.next());
        let number = |bytes: &[u8]| std::str::from_utf8(bytes).ok()?.parse::<u64>().ok();
        self.counted = match (now, before) {
            (Some(RedisReply::Error(text)), _) | (_, Some(RedisReply::Error(text))) => {
                Err(Error::new(ErrorKind::Redis, String::from_utf8_lossy(text)))
            }
            (Some(RedisReply::Integer(now)), Some(before)) => {
                let before = before.bulk().and_then(number).unwrap_or(0);
                Ok(Counted { before, now: u64::try_from(now).unwrap_or(0) })
            }
            _ => return Progress::Desync,
        };
        Progress::Done
    }

    fn fail(&mut self, error: Error) {
        self.counted = Err(error);
    }
}
