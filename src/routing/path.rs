//! Paths: percent-decoding that keeps an encoded slash apart from a real one.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// Stands for a `%2F` in a decoded path. U+FFFF is no character, and a path that holds it is refused.
pub(super) const ENCODED_SLASH: char = '\u{FFFF}';

/// The path decoded, `%2F` as [`ENCODED_SLASH`]. `None` where an escape is malformed or the result is not
/// UTF-8.
pub(super) fn decoded_path(raw: &str) -> Option<Cow<'_, str>> {
    if raw.contains(ENCODED_SLASH) {
        return None;
    }
    if !raw.contains('%') {
        return Some(Cow::Borrowed(raw));
    }
    let hex = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_hexdigit);
    let bytes = raw.as_bytes();
    let malformed = |at: usize| !hex(bytes.get(at + 1)) || !hex(bytes.get(at + 2));
    if bytes.iter().enumerate().any(|(at, byte)| *byte == b'%' && malformed(at)) {
        return None;
    }
    let mut decoded = String::with_capacity(raw.len());
    for (number, token) in split_encoded_slashes(raw).enumerate() {
        if number > 0 {
            decoded.push(ENCODED_SLASH);
        }
        let token = percent_decode_str(token).decode_utf8().ok()?;
        if token.contains(ENCODED_SLASH) {
            return None;
        }
        decoded.push_str(&token);
    }
    Some(Cow::Owned(decoded))
}

fn split_encoded_slashes(raw: &str) -> impl Iterator<Item = &str> {
    raw.split("%2F").flat_map(|token| token.split("%2f"))
}

/// The first segment, and what comes behind its slash.
pub(super) fn split(path: &str) -> (&str, Option<&str>) {
    match path.split_once('/') {
        Some((segment, rest)) => (segment, Some(rest)),
        None => (path, None),
    }
}

/// All but the last `count` segments, at least one, and those.
pub(super) fn split_before(path: &str, count: usize) -> Option<(&str, Option<&str>)> {
    let Some(slash) = count.checked_sub(1) else { return Some((path, None)) };
    let (at, _) = path.rmatch_indices('/').nth(slash)?;
    Some((&path[..at], Some(&path[at + 1..])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_decoded() {
        let table = [
            ("/plain", Some("/plain")),
            ("/caf%C3%A9", Some("/café")),
            ("/a%2Fb%2fc/d", Some("/a\u{FFFF}b\u{FFFF}c/d")),
            ("/%25", Some("/%")),
            ("/%252F", Some("/%2F")),
            ("/%", None),
            ("/%4", None),
            ("/%G1", None),
            ("/%FF", None),
            ("/%C3/%A9", None),
            ("/%EF%BF%BF", None),
        ];
        for (raw, expected) in table {
            assert_eq!(decoded_path(raw).as_deref(), expected, "{raw}");
        }
    }

    #[test]
    fn the_last_segments_are_split_off() {
        let table = [
            ("a/b/c", 0, Some(("a/b/c", None))),
            ("a/b/c", 1, Some(("a/b", Some("c")))),
            ("a/b/c", 2, Some(("a", Some("b/c")))),
            ("a/b/c", 3, None),
            ("/", 1, Some(("", Some("")))),
            ("", 0, Some(("", None))),
        ];
        for (path, count, expected) in table {
            assert_eq!(split_before(path, count), expected, "{path} {count}");
        }
    }
}
