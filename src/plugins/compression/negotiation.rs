//! Which encoding a client prefers.

use http::HeaderMap;
use http::header::ACCEPT_ENCODING;

use super::encoder::Encoding;
use crate::message::accept::weighted_items;

/// The encoding of ours that the client accepts most gladly; `None` where it wants none of them, or would rather have
/// none (RFC 9110 section 12.5.3).
pub(super) fn accepted(headers: &HeaderMap) -> Option<Encoding> {
    let items: Vec<_> = weighted_items(headers, ACCEPT_ENCODING).collect();
    let weight = |names: &[&str]| {
        let named = |(name, _): &&(&str, u16)| names.iter().any(|n| name.eq_ignore_ascii_case(n));
        let own = items.iter().filter(named).map(|(_, weight)| *weight).max();
        own.or_else(|| items.iter().find(|(name, _)| *name == "*").map(|(_, weight)| *weight))
    };
    let identity = items.iter().find(|(name, _)| name.eq_ignore_ascii_case("identity"));
    let identity = identity.map_or(0, |(_, weight)| *weight);
    let mut best = None;
    // Where two weigh the same, the first one.
    for encoding in Encoding::ALL.iter().copied() {
        let weight = weight(encoding.accepted_as()).unwrap_or(0);
        if weight > best.map_or(0, |(_, weight)| weight) {
            best = Some((encoding, weight));
        }
    }
    best.filter(|(_, weight)| *weight >= identity).map(|(encoding, _)| encoding)
}

#[cfg(all(test, feature = "brotli", feature = "gzip"))]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_client_decides_and_brotli_goes_first_where_it_does_not() {
        for (header, expected) in [
            ("", None),
            ("gzip", Some(Encoding::Gzip)),
            ("x-gzip", Some(Encoding::Gzip)),
            ("GZip", Some(Encoding::Gzip)),
            ("gzip, deflate, br, zstd", Some(Encoding::Brotli)),
            ("br;q=0.5, gzip;q=0.8", Some(Encoding::Gzip)),
            ("br;q=0, gzip", Some(Encoding::Gzip)),
            ("br;q=0,gzip;q=0.000", None),
            ("*", Some(Encoding::Brotli)),
            ("*;q=0.1, br;q=0", Some(Encoding::Gzip)),
            ("identity", None),
            ("identity;q=1, gzip;q=0.5", None),
            ("identity;q=0.5, gzip;q=1", Some(Encoding::Gzip)),
            ("deflate", None),
            ("gzip;q=2", None),
            ("gzip;q=high", None),
            ("gzip ; level=1 ; Q = 0.3", Some(Encoding::Gzip)),
            (",,gzip,", Some(Encoding::Gzip)),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(header));
            assert_eq!(accepted(&headers), expected, "{header:?}");
        }
        assert_eq!(accepted(&HeaderMap::new()), None);
    }
}
