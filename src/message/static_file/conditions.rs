//! What a client has of a file already, and which part of it is wanted (RFC 9110 sections 13 and 14).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{self, HeaderMap, HeaderName};

/// On what the client's request makes the answer depend.
#[derive(Clone, Debug)]
pub(super) struct Conditions {
    pub(super) headers: HeaderMap,
}

/// What tells one state of a file from another.
pub(super) struct Validators {
    pub(super) etag: String,
    /// In whole seconds, as a header can say it; `None` for a time that no header can.
    pub(super) modified: Option<SystemTime>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    All,
    Part { first: u64, last: u64 },
    Nothing,
}

/// The time for `Last-Modified`, which must not be in the future (RFC 9110 section 8.8.2.1).
pub(super) fn as_http_date(since_epoch: Duration) -> Option<SystemTime> {
    let time = UNIX_EPOCH.checked_add(Duration::from_secs(since_epoch.as_secs()))?;
    (time <= SystemTime::now()).then_some(time)
}

impl Conditions {
    fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The tags in all lines of this header, as they were sent.
    fn tags(&self, name: HeaderName) -> impl Iterator<Item = &str> {
        let lines = self.headers.get_all(name).into_iter();
        lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(',')).map(str::trim)
    }

    fn date(&self, name: HeaderName) -> Option<SystemTime> {
        // Some old clients add the file's length behind the date.
        let date = self.header(name)?.split(';').next()?.trim();
        httpdate::parse_http_date(date).ok()
    }

    /// Whether the client wants another state of the file (RFC 9110 section 13.2.2, steps 1 and 2).
    pub(super) fn fail(&self, validators: &Validators) -> bool {
        if self.headers.contains_key(header::IF_MATCH) {
            let same = |tag: &str| tag == "*" || tag == validators.etag;
            return !self.tags(header::IF_MATCH).any(same);
        }
        let since = self.date(header::IF_UNMODIFIED_SINCE).zip(validators.modified);
        since.is_some_and(|(since, modified)| modified > since)
    }

    /// Whether the client has this state of the file already (RFC 9110 section 13.2.2, steps 3 and 4).
    pub(super) fn unmodified(&self, validators: &Validators) -> bool {
        if self.headers.contains_key(header::IF_NONE_MATCH) {
            let weakly = |tag: &str| tag == "*" || tag.trim_start_matches("W/") == validators.etag;
            return self.tags(header::IF_NONE_MATCH).any(weakly);
        }
        let since = self.date(header::IF_MODIFIED_SINCE);
        since.zip(validators.modified).is_some_and(|(since, modified)| modified <= since)
    }

    pub(super) fn wanted(&self, size: u64, validators: &Validators) -> Wanted {
        match self.header(header::RANGE) {
            Some(range) if self.is_same(validators) => {
                read_range(range, size).unwrap_or(Wanted::All)
            }
            _ => Wanted::All,
        }
    }

    /// Whether the part that the client has is of this state of the file (RFC 9110 section 13.1.5).
    fn is_same(&self, validators: &Validators) -> bool {
        match self.header(header::IF_RANGE) {
            None => true,
            Some(tag) if tag.starts_with('"') => tag == validators.etag,
            Some(date) => {
                let date = httpdate::parse_http_date(date).ok();
                date.is_some() && date == validators.modified
            }
        }
    }
}

/// Which bytes a `Range` asks for; `None` where it is to be ignored: not well-formed, not of bytes, or more
/// than one range.
fn read_range(range: &str, size: u64) -> Option<Wanted> {
    let (unit, range) = range.split_once('=')?;
    let (first, last) = range.trim().split_once('-')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    let end = size.saturating_sub(1);
    if first.is_empty() {
        return match number(last)? {
            0 => Some(Wanted::Nothing),
            _ if size == 0 => None,
            suffix => Some(Wanted::Part { first: size.saturating_sub(suffix), last: end }),
        };
    }
    let first = number(first)?;
    let last = if last.is_empty() { end.max(first) } else { number(last)? };
    if last < first {
        return None;
    }
    Some(match first < size {
        true => Wanted::Part { first, last: last.min(end) },
        false => Wanted::Nothing,
    })
}

/// A number of digits alone; one that is too large for any file is as large as can be.
fn number(digits: &str) -> Option<u64> {
    let well_formed = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    well_formed.then(|| digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_rfc_has_them() {
        let part = |first, last| Some(Wanted::Part { first, last });
        let table = [
            ("bytes=0-0", 10, part(0, 0)),
            ("bytes=2-5", 10, part(2, 5)),
            ("bytes=2-", 10, part(2, 9)),
            ("bytes=-3", 10, part(7, 9)),
            ("bytes=-30", 10, part(0, 9)),
            ("bytes=9-99999999999999999999", 10, part(9, 9)),
            ("Bytes= 0-1", 10, part(0, 1)),
            ("bytes=10-", 10, Some(Wanted::Nothing)),
            ("bytes=10-20", 10, Some(Wanted::Nothing)),
            ("bytes=99999999999999999999-", 10, Some(Wanted::Nothing)),
            ("bytes=-0", 10, Some(Wanted::Nothing)),
            ("bytes=0-", 0, Some(Wanted::Nothing)),
            ("bytes=-5", 0, None),
            ("bytes=5-2", 10, None),
            ("bytes=0-1,4-5", 10, None),
            ("bytes=-", 10, None),
            ("bytes=+1-2", 10, None),
            ("bytes=a-b", 10, None),
            ("bytes", 10, None),
            ("lines=0-1", 10, None),
        ];
        for (range, size, wanted) in table {
            assert_eq!(read_range(range, size), wanted, "{range} of {size}");
        }
    }

    #[test]
    fn no_time_that_a_header_cannot_say_is_said() {
        assert_eq!(as_http_date(Duration::from_secs(1 << 40)), None);
        let (whole, fraction) = (Duration::from_secs(9), Duration::from_millis(9_700));
        assert_eq!(as_http_date(fraction), Some(UNIX_EPOCH + whole));
    }
}
