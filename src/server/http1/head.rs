//! A request's head: request line and header fields.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, StatusCode, Uri, Version};

use super::{Framing, Refused};

/// The most header fields that any limit allows: as many as the tokeniser has room for.
const ROOM: usize = 256;

/// How long a head may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadLimits {
    /// Bytes of the whole head.
    pub(crate) bytes: usize,
    /// Bytes of the request target.
    pub(crate) target: usize,
    /// Header fields.
    pub(crate) fields: usize,
}

/// A head that was understood.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) method: Method,
    pub(crate) target: PathAndQuery,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    pub(crate) framing: Framing,
    pub(crate) keep_alive: bool,
    pub(crate) expect_continue: bool,
    /// How many bytes of the input it took.
    pub(crate) consumed: usize,
}

/// What the bytes so far are.
#[derive(Debug)]
pub(crate) enum Parsed {
    Complete(Box<Head>),
    Incomplete,
}

/// Reads the head at the start of `input`.
pub(crate) fn parse_head(input: &[u8], limits: &HeadLimits) -> Result<Parsed, Refused> {
    // RFC 9112 section 2.2: an empty line in front of the request line is ignored.
    let skipped = if input.starts_with(b"\r\n") { 2 } else { 0 };
    let input = &input[skipped..];
    if input.is_empty() || input == b"\r" {
        return Ok(Parsed::Incomplete);
    }
    if matches!(input[0], b'\r' | b'\n') {
        return Err(Refused::BAD);
    }
    // Most heads arrive whole; what does not is looked at for its limits before more of it is waited for.
    let end = end_of_head(input);
    let window = &input[..end.unwrap_or(input.len())];
    within_limits(window, limits)?;
    only_whole_line_ends(window)?;

    let mut room = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; ROOM];
    let room = &mut room[..limits.fields.min(ROOM)];
    let mut tokens = httparse::Request::new(&mut []);
    let status = httparse::ParserConfig::default()
        .parse_request_with_uninit_headers(&mut tokens, window, room)
        .map_err(|error| refusal_of(error, window))?;
    let httparse::Status::Complete(length) = status else { return Ok(Parsed::Incomplete) };
    if length != window.len() {
        return Err(Refused::BAD);
    }

    let shared = Bytes::copy_from_slice(window);
    let share = |part: &[u8]| {
        let at = part.as_ptr() as usize - window.as_ptr() as usize;
        shared.slice(at..at + part.len())
    };
    let method = tokens.method.ok_or(Refused::BAD)?;
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| Refused::BAD)?;
    let version = if tokens.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    let mut headers = HeaderMap::with_capacity(tokens.headers.len());
    for field in tokens.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Refused::BAD)?;
        let value = HeaderValue::from_maybe_shared(share(field.value)).map_err(|_| Refused::BAD)?;
        headers.append(name, value);
    }
    one_host(&headers, version)?;
    let target = tokens.path.ok_or(Refused::BAD)?;
    let target = target_of(&method, target, &share, &mut headers)?;
    Ok(Parsed::Complete(Box::new(Head {
        framing: framing(&headers, version)?,
        keep_alive: keep_alive(&headers, version),
        expect_continue: expectation(&headers, version)?,
        method,
        target,
        version,
        headers,
        consumed: skipped + length,
    })))
}

/// Where the empty line that ends a head ends. A bare LF counts here, so that it is seen and refused.
fn end_of_head(input: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = input[from..].iter().position(|byte| *byte == b'\n') {
        let next = from + at + 1;
        match &input[next..] {
            [b'\n', ..] => return Some(next + 1),
            [b'\r', b'\n', ..] => return Some(next + 2),
            _ => from = next,
        }
    }
    None
}

fn within_limits(window: &[u8], limits: &HeadLimits) -> Result<(), Refused> {
    let line = window.iter().position(|byte| *byte == b'\n').unwrap_or(window.len());
    let mut words = window[..line].split(|byte| *byte == b' ');
    // No method is nearly as long, and without a bound the target's limit could be walked around.
    if words.next().is_some_and(|method| method.len() > 64) {
        return Err(Refused::BAD);
    }
    if words.next().is_some_and(|target| target.len() > limits.target) {
        return Err(Refused(StatusCode::URI_TOO_LONG));
    }
    if window.len() > limits.bytes {
        return Err(Refused(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
    }
    Ok(())
}

/// RFC 9112 section 2.2: a bare CR must not be taken for a line end, and nobody needs a bare LF. NUL is
/// no part of anything.
fn only_whole_line_ends(window: &[u8]) -> Result<(), Refused> {
    let mut before = 0;
    for &byte in window {
        if byte == 0 || (byte == b'\n') != (before == b'\r') {
            return Err(Refused::BAD);
        }
        before = byte;
    }
    Ok(())
}

fn refusal_of(error: httparse::Error, window: &[u8]) -> Refused {
    match error {
        httparse::Error::TooManyHeaders => Refused(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
        httparse::Error::Version if names_another_version(window) => {
            Refused(StatusCode::HTTP_VERSION_NOT_SUPPORTED)
        }
        _ => Refused::BAD,
    }
}

fn names_another_version(window: &[u8]) -> bool {
    let line = window.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let word = line.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
    matches!(word, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
        if major.is_ascii_digit() && minor.is_ascii_digit())
}

/// RFC 9112 section 3.2: one Host in HTTP/1.1, at most one in 1.0.
fn one_host(headers: &HeaderMap, version: Version) -> Result<(), Refused> {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if version == Version::HTTP_10 => Ok(()),
        (Some(host), None) if is_host(host.as_bytes()) => Ok(()),
        _ => Err(Refused::BAD),
    }
}

fn is_host(host: &[u8]) -> bool {
    host.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(byte))
}

fn target_of(
    method: &Method,
    target: &str,
    share: &dyn Fn(&[u8]) -> Bytes,
    headers: &mut HeaderMap,
) -> Result<PathAndQuery, Refused> {
    if method == Method::CONNECT {
        return Err(Refused(StatusCode::NOT_IMPLEMENTED));
    }
    if !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return Err(Refused::BAD);
    }
    if target == "*" {
        let star = || PathAndQuery::from_static("*");
        return if method == Method::OPTIONS { Ok(star()) } else { Err(Refused::BAD) };
    }
    if target.starts_with('/') {
        let shared = share(target.as_bytes());
        return PathAndQuery::from_maybe_shared(shared).map_err(|_| Refused::BAD);
    }
    absolute(method, target, headers)
}

/// RFC 9112 section 3.2.2: the host of an absolute target counts, not that of the Host header.
fn absolute(
    method: &Method,
    target: &str,
    headers: &mut HeaderMap,
) -> Result<PathAndQuery, Refused> {
    let uri: Uri = target.parse().map_err(|_| Refused::BAD)?;
    let authority = uri.authority().ok_or(Refused::BAD)?;
    let http = matches!(uri.scheme_str(), Some("http" | "https"));
    // What stands behind the host is a port or nothing; the parser of URIs is not that strict.
    let port = authority.as_str()[authority.host().len()..].strip_prefix(':').unwrap_or("");
    let is_port = port.is_empty() || port.parse::<u16>().is_ok_and(|_| !port.starts_with('+'));
    if !http || authority.as_str().contains('@') || authority.host().is_empty() || !is_port {
        return Err(Refused::BAD);
    }
    let host = HeaderValue::from_str(authority.as_str()).map_err(|_| Refused::BAD)?;
    headers.insert(header::HOST, host);
    let bare = target.split_once("://").is_some_and(|(_, rest)| !rest.contains(['/', '?']));
    match uri.path_and_query() {
        _ if bare && method == Method::OPTIONS => Ok(PathAndQuery::from_static("*")),
        Some(target) if target.as_str().starts_with('/') => Ok(target.clone()),
        Some(query) => format!("/{}", query.as_str()).parse().map_err(|_| Refused::BAD),
        None => Ok(PathAndQuery::from_static("/")),
    }
}

/// RFC 9112 section 6.
fn framing(headers: &HeaderMap, version: Version) -> Result<Framing, Refused> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let length = content_length(headers)?;
    if let Some(coding) = codings.next() {
        // Each of these is how one server's body becomes another server's request.
        if length.is_some() || version == Version::HTTP_10 || codings.next().is_some() {
            return Err(Refused::BAD);
        }
        return match coding.as_bytes() {
            coding if coding.eq_ignore_ascii_case(b"chunked") => Ok(Framing::Chunked),
            b"" => Err(Refused::BAD),
            _ => Err(Refused(StatusCode::NOT_IMPLEMENTED)),
        };
    }
    Ok(match length {
        None | Some(0) => Framing::Empty,
        Some(length) => Framing::Length(length),
    })
}

/// The same length said twice is one length; anything else that is not a plain number is refused.
fn content_length(headers: &HeaderMap) -> Result<Option<u64>, Refused> {
    let mut length = None;
    for value in headers.get_all(header::CONTENT_LENGTH) {
        for part in value.to_str().map_err(|_| Refused::BAD)?.split(',') {
            let part = part.trim_matches([' ', '\t']);
            if part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(Refused::BAD);
            }
            let number: u64 = part.parse().map_err(|_| Refused::BAD)?;
            if length.is_some_and(|length| length != number) {
                return Err(Refused::BAD);
            }
            length = Some(number);
        }
    }
    Ok(length)
}

fn keep_alive(headers: &HeaderMap, version: Version) -> bool {
    let has = |option: &str| {
        headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|word| word.trim().eq_ignore_ascii_case(option))
    };
    !has("close") && (version == Version::HTTP_11 || has("keep-alive"))
}

/// RFC 9110 section 10.1.1: the only expectation there is; in HTTP/1.0 it is ignored.
fn expectation(headers: &HeaderMap, version: Version) -> Result<bool, Refused> {
    let mut expected = false;
    for value in headers.get_all(header::EXPECT) {
        if !value.as_bytes().eq_ignore_ascii_case(b"100-continue") {
            return Err(Refused(StatusCode::EXPECTATION_FAILED));
        }
        expected = version == Version::HTTP_11;
    }
    Ok(expected)
}
