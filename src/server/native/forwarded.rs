//! What a proxy in front says about the client, where that proxy is trusted.

use std::net::{IpAddr, SocketAddr};

use http::header::{self, HeaderMap, HeaderValue};

use super::options::Options;
use crate::message::request::{Request, Scheme};
use crate::server::http1::{is_authority, is_token};
use crate::{Error, ErrorKind, Result};

/// The headers in which the proxies in front say who the client is and what it asked for.
///
/// A proxy must set or remove each header of the family that counts: one that it passes on as it came is
/// the client's word. Those of the other family are never looked at. A proxy that appends to a `Forwarded` of
/// the client's must take care with what it quotes; one that replaces it need not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyHeaders {
    /// `X-Forwarded-For`, `X-Forwarded-Proto`, `X-Forwarded-Host`, and `X-Forwarded-Prefix` for an app that visitors
    /// find below a path ([`Request::prefix`](crate::Request::prefix)). Where several proxies add to these, the words
    /// of the outermost one that is trusted count.
    #[default]
    XForwarded,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// Addresses such as `10.0.0.0/8` or `::1`; `unix` stands for whoever comes over a unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Network {
    Unix,
    Ip { base: u128, bits: u32 },
}

impl Network {
    pub(super) fn parse(text: &str) -> Result<Network> {
        if text == "unix" {
            return Ok(Network::Unix);
        }
        let wrong = || {
            let text = format!(
                "{text:?} is no network of trusted proxies; write \"10.0.0.0/8\", \"::1\" or \"unix\""
            );
            Error::new(ErrorKind::Config, text)
        };
        let (address, bits) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(b)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let (width, offset) = if address.is_ipv4() { (32, 96) } else { (128, 0) };
        let bits = match bits {
            None => width,
            Some(bits) => bits.parse().ok().filter(|bits| *bits <= width).ok_or_else(wrong)?,
        };
        let bits = bits + offset;
        Ok(Network::Ip { base: number(address) & mask(bits), bits })
    }

    fn contains(&self, peer: Option<IpAddr>) -> bool {
        match (self, peer) {
            (Network::Unix, None) => true,
            (Network::Ip { base, bits }, Some(peer)) => number(peer) & mask(*bits) == *base,
            _ => false,
        }
    }
}

/// IPv4 addresses are counted as their mapped IPv6 ones, which is how a dual-stack listener sees them.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn mask(bits: u32) -> u128 {
    u128::MAX.checked_shl(128 - bits).unwrap_or(0)
}

/// What a trusted peer says about the request as the client made it.
#[derive(Debug, Default, PartialEq)]
struct Said {
    client: Option<IpAddr>,
    scheme: Option<Scheme>,
    host: Option<HeaderValue>,
    prefix: Option<String>,
}

/// Takes what a trusted peer says about the client into the request.
///
/// The client is the last address that no trusted proxy put there: everything to its left is only
/// the client's word.
pub(super) fn apply(request: Request, peer: Option<SocketAddr>, options: &Options) -> Request {
    let trusted =
        |ip: Option<IpAddr>| options.trusted_proxies.iter().any(|network| network.contains(ip));
    if !trusted(peer.map(|peer| peer.ip())) {
        return request;
    }
    let said = match options.proxy_headers {
        ProxyHeaders::XForwarded => x_forwarded(request.headers(), |ip| trusted(Some(ip))),
        ProxyHeaders::Forwarded => forwarded(request.headers(), |ip| trusted(Some(ip))),
    };
    let mut request = request;
    request.set_from_trusted_proxy();
    if let Some(host) = said.host {
        request.headers_mut().insert(header::HOST, host);
    }
    // Also http, where the connection to this server is https: what counts is how the client came.
    if let Some(scheme) = said.scheme {
        request = request.with_scheme(scheme);
    }
    if let Some(prefix) = said.prefix {
        request = request.with_prefix(prefix);
    }
    match said.client {
        Some(ip) => request.with_remote_addr(SocketAddr::new(ip, 0)),
        None => request,
    }
}

fn x_forwarded(headers: &HeaderMap, trusted: impl Fn(IpAddr) -> bool) -> Said {
    let mut client = None;
    let hops: Vec<_> = words(headers, "x-forwarded-for").collect();
    // How many proxies in front of the nearest one are believed.
    let mut beyond = 0;
    for (number, hop) in hops.into_iter().rev().enumerate() {
        let Some(ip) = address(hop) else { break };
        (client, beyond) = (Some(ip), number);
        if !trusted(ip) {
            break;
        }
    }
    // The nearest proxy's word stands last, and before it that of the one in front of it. Where there are fewer words,
    // the nearest ones said nothing of their own.
    let word = |name| {
        let words: Vec<_> = words(headers, name).collect();
        let last = words.len().checked_sub(1)?;
        words.get(last.saturating_sub(beyond)).copied().filter(|word| !word.is_empty())
    };
    Said {
        client,
        scheme: word("x-forwarded-proto").and_then(scheme),
        host: word("x-forwarded-host").and_then(host),
        prefix: word("x-forwarded-prefix").and_then(prefix),
    }
}

/// A path below which an app can be, without a slash at its end. In a link `//evil` would be another host.
fn prefix(text: &str) -> Option<String> {
    let path = text.strip_suffix('/').unwrap_or(text);
    let is_segment = |segment: &str| {
        let unreserved =
            |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@%".contains(&byte);
        !["", ".", ".."].contains(&segment) && segment.bytes().all(unreserved)
    };
    let is_path = path.strip_prefix('/')?.split('/').all(is_segment);
    // A `;` would end the path of a cookie.
    (is_path && !path.contains(';')).then(|| path.to_owned())
}

fn words<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .flat_map(|value| value.to_str().unwrap_or("").split(','))
        .map(str::trim)
}

/// RFC 7239: each proxy appends an element about the request as it received it. The one that counts was
/// appended by the outermost proxy that is trusted.
fn forwarded(headers: &HeaderMap, trusted: impl Fn(IpAddr) -> bool) -> Said {
    let mut said = Said::default();
    let elements: Option<Vec<_>> = headers
        .get_all(header::FORWARDED)
        .iter()
        .map(|value| elements(value.to_str().ok()?))
        .collect::<Option<Vec<_>>>()
        .map(|values| values.concat());
    // What cannot be read cannot be told apart from what a client made up.
    for element in elements.unwrap_or_default().into_iter().rev() {
        let value = |name: &str| {
            element.iter().find(|pair| pair.0.eq_ignore_ascii_case(name)).map(|pair| &*pair.1)
        };
        let client = value("for").and_then(address);
        said = Said {
            // "unknown" and made-up names: the proxy itself is as near as can be known.
            client: client.or(said.client),
            scheme: value("proto").and_then(scheme),
            host: value("host").and_then(host),
            prefix: None,
        };
        if !client.is_some_and(&trusted) {
            break;
        }
    }
    said
}

type Pairs = Vec<(String, String)>;

/// The elements of a Forwarded header, each a list of names and values; `None` where it is malformed.
fn elements(text: &str) -> Option<Vec<Pairs>> {
    let (mut elements, mut rest) = (vec![Pairs::new()], text);
    loop {
        rest = rest.trim_start();
        // RFC 9110 section 5.6.1: empty elements of a list are no elements.
        if !rest.starts_with([',', ';']) && !rest.is_empty() {
            let (name, after) = rest.split_once('=')?;
            let (value, after) = value(after)?;
            if name.is_empty() || !name.bytes().all(is_token) {
                return None;
            }
            elements.last_mut()?.push((name.to_owned(), value));
            rest = after.trim_start();
        }
        match rest.bytes().next() {
            None => break,
            Some(b',') => elements.push(Pairs::new()),
            Some(b';') => {}
            Some(_) => return None,
        }
        rest = &rest[1..];
    }
    elements.retain(|pairs| !pairs.is_empty());
    Some(elements)
}

/// A token or a quoted string, and what stands behind it.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.bytes().position(|byte| !is_token(byte)).unwrap_or(text.len());
        return (end > 0).then(|| (text[..end].to_owned(), &text[end..]));
    };
    let (mut value, mut chars) = (String::new(), quoted.chars());
    loop {
        match chars.next()? {
            '"' => return Some((value, chars.as_str())),
            '\\' => value.push(chars.next()?),
            char => value.push(char),
        }
    }
}

fn scheme(text: &str) -> Option<Scheme> {
    let is = |name: &str| text.eq_ignore_ascii_case(name);
    if is("https") { Some(Scheme::Https) } else { is("http").then_some(Scheme::Http) }
}

fn host(text: &str) -> Option<HeaderValue> {
    let host = !text.is_empty() && is_authority(text.as_bytes());
    HeaderValue::from_str(text).ok().filter(|_| host)
}

fn address(text: &str) -> Option<IpAddr> {
    let bare = text.trim_matches(['[', ']']).parse().ok();
    let ip = bare.or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()));
    ip.map(|ip: IpAddr| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::Method;
    use http::uri::PathAndQuery;

    use super::*;

    fn seen(peer: &str, trusted: &[&str], fields: &[(&'static str, &str)]) -> String {
        let proxy_headers = match fields.iter().any(|(name, _)| *name == "forwarded") {
            true => ProxyHeaders::Forwarded,
            false => ProxyHeaders::XForwarded,
        };
        let trusted_proxies = trusted.iter().map(|text| Network::parse(text).unwrap()).collect();
        let options = Options { trusted_proxies, proxy_headers, ..Options::default() };
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::from_static("inner"));
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let peer: Option<SocketAddr> = peer.parse().ok();
        let mut request =
            Request::new(Method::GET, PathAndQuery::from_static("/")).with_headers(headers);
        if let Some(peer) = peer {
            request = request.with_remote_addr(peer);
        }
        let request = apply(request, peer, &options);
        let client = request.remote_addr().map_or("-".to_owned(), |at| at.ip().to_string());
        let host = request.host().unwrap();
        format!("{client} {:?} {host}{}", request.scheme(), request.prefix())
    }

    #[test]
    fn what_several_proxies_add_is_walked_along_those_that_are_trusted() {
        // By `X-Forwarded-For`, `-Proto`, `-Host` and `-Prefix`; the peer is trusted.
        let table = [
            (["9.9.9.9, 10.0.0.7", "https,http", "", ""], "9.9.9.9 Https inner"),
            (["9.9.9.9, 10.0.0.7", "http, https", "", ""], "9.9.9.9 Http inner"),
            (["9.9.9.9, 10.0.0.7", "https", "outer", "/a"], "9.9.9.9 Https outer/a"),
            (
                ["9.9.9.9, 10.0.0.7", "https, http", "outer, middle", "/a, /b"],
                "9.9.9.9 Https outer/a",
            ),
            (["9.9.9.9", "https, http", "evil, outer", "/evil, /a"], "9.9.9.9 Http outer/a"),
            (["6.6.6.6, 9.9.9.9", "https, http", "evil, outer", ""], "9.9.9.9 Http outer"),
            (["6.6.6.6, x, 10.0.0.7", "https, https, http", "", ""], "10.0.0.7 Http inner"),
            (["10.0.0.9, 10.0.0.8, 10.0.0.7", "https, http, http", "", ""], "10.0.0.9 Https inner"),
            (["", "https, http", "", ""], "10.0.0.1 Http inner"),
        ];
        for (said, expected) in table {
            let names =
                ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-prefix"];
            let fields: Vec<_> =
                names.into_iter().zip(said).filter(|(_, value)| !value.is_empty()).collect();
            assert_eq!(seen("10.0.0.1:5", &["10.0.0.0/8"], &fields), expected, "{said:?}");
        }
    }

    #[test]
    fn the_prefix_of_a_trusted_proxy_is_a_path_or_nothing() {
        for (text, expected) in [
            ("/shop", "/shop"),
            ("/shop/", "/shop"),
            ("/a/b%20c", "/a/b%20c"),
            ("", ""),
            ("/", ""),
            ("shop", ""),
            ("//evil", ""),
            ("/a//b", ""),
            ("/\\evil", ""),
            ("http:", ""),
            ("http://evil/", ""),
            ("/a?b", ""),
            ("/a#b", ""),
            ("/a;Domain=x", ""),
            ("/a/../b", ""),
            ("/a b", ""),
            ("/a\tb", ""),
            ("/é", ""),
        ] {
            let fields = [("x-forwarded-prefix", text)];
            let expected = format!("10.0.0.1 Http inner{expected}");
            assert_eq!(seen("10.0.0.1:5", &["10.0.0.0/8"], &fields), expected, "{text:?}");
            assert_eq!(seen("10.0.0.1:5", &[], &fields), "10.0.0.1 Http inner", "{text:?}");
            let forwarded = [("forwarded", "for=10.0.0.1"), ("x-forwarded-prefix", text)];
            assert_eq!(seen("10.0.0.1:5", &["10.0.0.0/8"], &forwarded), "10.0.0.1 Http inner");
        }
    }

    #[test]
    fn only_a_trusted_proxy_is_believed() {
        let fields = [
            ("x-forwarded-for", "6.6.6.6, 9.9.9.9, 10.0.0.7"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "outer"),
        ];
        let table = [
            ("10.0.0.1:5", vec![], "10.0.0.1 Http inner"),
            ("10.0.0.1:5", vec!["11.0.0.0/8"], "10.0.0.1 Http inner"),
            ("10.0.0.1:5", vec!["10.0.0.0/8"], "9.9.9.9 Https outer"),
            ("10.0.0.1:5", vec!["10.0.0.1"], "10.0.0.7 Https outer"),
            ("[::ffff:10.0.0.1]:5", vec!["10.0.0.0/24"], "9.9.9.9 Https outer"),
            ("-", vec!["10.0.0.0/8"], "- Http inner"),
            ("-", vec!["unix", "10.0.0.7"], "9.9.9.9 Https outer"),
            ("[::1]:5", vec!["::/0"], "6.6.6.6 Https outer"),
        ];
        for (peer, trusted, expected) in table {
            assert_eq!(seen(peer, &trusted, &fields), expected, "{peer} {trusted:?}");
        }
    }

    #[test]
    fn forwarded_says_what_the_outermost_trusted_proxy_saw() {
        let forged = ("x-forwarded-for", "6.6.6.6");
        let table = [
            ("for=9.9.9.9;proto=https;host=outer", "9.9.9.9 Https outer"),
            ("For=\"9.9.9.9:4711\"; PROTO=HTTPS", "9.9.9.9 Https inner"),
            ("for=\"[2001:db8::1]:80\";host=\"a.example:81\"", "2001:db8::1 Http a.example:81"),
            (
                "for=6.6.6.6, for=9.9.9.9;proto=https, for=10.0.0.7;proto=http",
                "9.9.9.9 Https inner",
            ),
            ("for=6.6.6.6;host=evil, for=unknown;host=outer", "10.0.0.1 Http outer"),
            ("for=_hidden;proto=https", "10.0.0.1 Https inner"),
            ("for=6.6.6.6, for=_hidden, for=10.0.0.7;host=x", "10.0.0.7 Http inner"),
            (", for=9.9.9.9;; host=\"ou\\ter\" ,", "9.9.9.9 Http outer"),
            ("", "10.0.0.1 Http inner"),
            // Malformed: nothing of it is believed.
            ("for=9.9.9.9;proto", "10.0.0.1 Http inner"),
            ("for=\"9.9.9.9;proto=https", "10.0.0.1 Http inner"),
            ("for=9.9.9.9 proto=https", "10.0.0.1 Http inner"),
            ("for=[::1]", "10.0.0.1 Http inner"),
            ("host=\"a b\"", "10.0.0.1 Http inner"),
            ("=9.9.9.9", "10.0.0.1 Http inner"),
        ];
        for (text, expected) in table {
            let fields = [forged, ("forwarded", text)];
            assert_eq!(seen("10.0.0.1:5", &["10.0.0.0/8"], &fields), expected, "{text}");
            assert_eq!(seen("10.0.0.1:5", &[], &fields), "10.0.0.1 Http inner", "{text}");
        }
        let several = [
            ("forwarded", "for=6.6.6.6"),
            ("forwarded", "for=9.9.9.9"),
            ("forwarded", "for=10.0.0.2"),
        ];
        assert_eq!(seen("10.0.0.1:5", &["10.0.0.0/8"], &several), "9.9.9.9 Http inner");
    }

    #[test]
    fn a_network_that_is_none_is_refused() {
        for text in ["", "10.0.0.0/33", "localhost", "::/129", "10.0.0.0/-1"] {
            assert!(Network::parse(text).is_err(), "{text}");
        }
    }
}
