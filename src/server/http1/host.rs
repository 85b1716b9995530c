//! Whom a request is for: the grammar of `Host` and of absolute targets.

use std::net::Ipv6Addr;

use memchr::memchr;

use super::head::number;

/// RFC 9110 section 7.2: a host of RFC 3986 section 3.2.2 and perhaps a port, or nothing at all. A comma,
/// which that would allow, is what joins two Host lines on their way.
pub(crate) fn is_authority(text: &[u8]) -> bool {
    let (is_host, behind) = if let Some(rest) = text.strip_prefix(b"[") {
        let Some(end) = memchr(b']', rest) else { return false };
        (is_address(&rest[..end]), &rest[end + 1..])
    } else {
        let (name, behind) = text.split_at(memchr(b':', text).unwrap_or(text.len()));
        (is_registered_name(name) && (!name.is_empty() || behind.is_empty()), behind)
    };
    is_host && is_port(behind)
}

fn is_registered_name(name: &[u8]) -> bool {
    let mut bytes = name.iter();
    while let Some(&byte) = bytes.next() {
        let fits = match byte {
            b'%' => (0..2).all(|_| bytes.next().is_some_and(u8::is_ascii_hexdigit)),
            _ => is_name_byte(byte),
        };
        if !fits {
            return false;
        }
    }
    true
}

/// What stands in brackets: an IPv6 address, or one of the kinds yet to come.
fn is_address(text: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(text) else { return false };
    match text.strip_prefix(['v', 'V']).and_then(|text| text.split_once('.')) {
        Some((kind, address)) => {
            let is_kind = !kind.is_empty() && kind.bytes().all(|byte| byte.is_ascii_hexdigit());
            let is_byte = |byte| byte == b':' || is_name_byte(byte);
            is_kind && !address.is_empty() && address.bytes().all(is_byte)
        }
        None => text.parse::<Ipv6Addr>().is_ok(),
    }
}

fn is_port(text: &[u8]) -> bool {
    match text {
        [] | [b':'] => true,
        [b':', port @ ..] => number(port).is_some_and(|port| port <= u16::MAX.into()),
        _ => false,
    }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&'..=b'+' | b';' | b'=')
}
