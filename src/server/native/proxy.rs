//! What a proxy in front says about the client, where that proxy is trusted.

use std::net::{IpAddr, SocketAddr};

use http::header::{self, HeaderMap, HeaderValue};

use crate::request::{Request, Scheme};
use crate::{Error, ErrorKind, Result};

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

/// Takes X-Forwarded-For, -Proto and -Host from a trusted peer into the request.
///
/// The client is the last address that no trusted proxy put there: everything to its left is only
/// the client's word.
pub(super) fn apply(request: Request, peer: Option<SocketAddr>, trusted: &[Network]) -> Request {
    let is_trusted = |ip: Option<IpAddr>| trusted.iter().any(|network| network.contains(ip));
    if !is_trusted(peer.map(|peer| peer.ip())) {
        return request;
    }
    let client = client(request.headers(), |ip| is_trusted(Some(ip)));
    let https = last(request.headers(), "x-forwarded-proto")
        .is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"));
    let host = last(request.headers(), "x-forwarded-host")
        .and_then(|host| HeaderValue::from_str(host).ok());
    let mut request = request;
    if let Some(host) = host {
        request.headers_mut().insert(header::HOST, host);
    }
    if https {
        request = request.with_scheme(Scheme::Https);
    }
    match client {
        Some(ip) => request.with_remote_addr(SocketAddr::new(ip, 0)),
        None => request,
    }
}

fn client(headers: &HeaderMap, is_trusted: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
    let all: Vec<_> = headers
        .get_all("x-forwarded-for")
        .iter()
        .flat_map(|value| value.to_str().unwrap_or("").split(','))
        .collect();
    let mut client = None;
    for hop in all.iter().rev() {
        let Some(ip) = address(hop.trim()) else { break };
        client = Some(ip);
        if !is_trusted(ip) {
            break;
        }
    }
    client
}

fn address(text: &str) -> Option<IpAddr> {
    let bare = text.trim_matches(['[', ']']).parse().ok();
    bare.or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

/// The nearest proxy's word: it stands last.
fn last<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let value = headers.get_all(name).iter().next_back()?.to_str().ok()?;
    value.rsplit(',').next().map(str::trim).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use http::Method;
    use http::uri::PathAndQuery;

    use super::*;

    fn seen(peer: &str, trusted: &[&str], fields: &[(&'static str, &str)]) -> String {
        let trusted: Vec<_> = trusted.iter().map(|text| Network::parse(text).unwrap()).collect();
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
        let request = apply(request, peer, &trusted);
        let client = request.remote_addr().map_or("-".to_owned(), |at| at.ip().to_string());
        format!("{client} {:?} {}", request.scheme(), request.host().unwrap())
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
    fn a_network_that_is_none_is_refused() {
        for text in ["", "10.0.0.0/33", "localhost", "::/129", "10.0.0.0/-1"] {
            assert!(Network::parse(text).is_err(), "{text}");
        }
    }
}
