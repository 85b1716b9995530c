//! A request's head: request line and header fields.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, StatusCode, Uri, Version};
use memchr::memchr;
use smallvec::SmallVec;

use super::host::is_authority;
use super::{Framing, Refused, is_text, is_token};

/// No method is nearly as long, and without a bound the target's limit could be walked around.
const MAX_METHOD_BYTES: usize = 64;

/// The most header fields that any limit allows.
const MAX_FIELDS: usize = 256;

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
    if input.is_empty() || (input == b"\r" && skipped == 0) {
        return Ok(Parsed::Incomplete);
    }
    let mut ends = SmallVec::new();
    let whole = line_ends(input, &mut ends);
    let length = ends.last().copied().unwrap_or(0);
    if !whole {
        // What is there is judged, so that nonsense is not waited for; but a line only when it is whole:
        // what a head is must not depend on the pieces that it arrives in.
        if length > 0 {
            read_lines(input, &ends, limits)?;
        }
        begins_a_line(input, length, limits)?;
        return Ok(Parsed::Incomplete);
    }
    let (line, fields) = read_lines(input, &ends, limits)?;
    fields.one_host(line.version)?;
    let framing = fields.framing(line.version)?;
    let expect_continue = fields.expectation(line.version)?;
    let keep_alive = fields.keep_alive(line.version);
    let mut headers = fields.headers;
    Ok(Parsed::Complete(Box::new(Head {
        target: target_of(&line, &mut headers)?,
        method: line.method,
        version: line.version,
        headers,
        framing,
        keep_alive,
        expect_continue,
        consumed: skipped + length,
    })))
}

/// Where lines of a head end; one more than it may have is enough.
type Ends = SmallVec<[usize; 32]>;

/// Finds the lines, and says whether the last of them is the empty one that ends the head. A head with bare
/// LFs may have none: its lines are refused.
fn line_ends(input: &[u8], ends: &mut Ends) -> bool {
    let mut from = 0;
    while let Some(at) = memchr(b'\n', &input[from..]) {
        let empty = at == 1 && from > 0 && input[from] == b'\r';
        from += at + 1;
        ends.push(from);
        if empty || ends.len() > MAX_FIELDS + 2 {
            return empty;
        }
    }
    false
}

/// Reads whole lines: the request line and header fields, up to the empty line if there is one.
fn read_lines(
    input: &[u8],
    ends: &Ends,
    limits: &HeadLimits,
) -> Result<(RequestLine, Fields), Refused> {
    let shared = Bytes::copy_from_slice(&input[..ends.last().copied().unwrap_or(0)]);
    let (mut at, mut request_line) = (0, None);
    let most = limits.fields.min(MAX_FIELDS);
    // One more than there are: a map that is full grows when it is looked into.
    let headers = HeaderMap::with_capacity(ends.len().saturating_sub(1).min(most + 1));
    let mut fields = Fields { headers, ..Fields::default() };
    for &end in ends {
        // RFC 9112 section 2.2: nobody needs a bare LF.
        let Some(line) = input[at..end].strip_suffix(b"\r\n") else {
            return Err(Refused::BAD);
        };
        match request_line {
            None => request_line = Some(RequestLine::read(line, at, &shared, limits)?),
            Some(_) if line.is_empty() => {}
            Some(_) if fields.count == most => {
                return Err(Refused::TOO_LARGE);
            }
            Some(_) => fields.read(line, at, &shared)?,
        }
        if end > limits.bytes {
            return Err(Refused::TOO_LARGE);
        }
        at = end;
    }
    Ok((request_line.ok_or(Refused::BAD)?, fields))
}

/// The line behind those that are whole, as far as it has arrived.
fn begins_a_line(input: &[u8], at: usize, limits: &HeadLimits) -> Result<(), Refused> {
    let line = &input[at..];
    let text = line.strip_suffix(b"\r").unwrap_or(line);
    if !text.iter().all(|&byte| is_text(byte)) {
        return Err(Refused::BAD);
    }
    if at == 0 {
        if !is_token(input[0]) {
            return Err(Refused::BAD);
        }
        let (method, rest) = text.split_at(memchr(b' ', text).unwrap_or(text.len()));
        let target = rest.get(1..).unwrap_or_default();
        let target = memchr(b' ', target).unwrap_or(target.len());
        within_limits(method.len(), target, limits)?;
    }
    if input.len() > limits.bytes { Err(Refused::TOO_LARGE) } else { Ok(()) }
}

fn within_limits(method: usize, target: usize, limits: &HeadLimits) -> Result<(), Refused> {
    if method > MAX_METHOD_BYTES {
        return Err(Refused::BAD);
    }
    if target > limits.target {
        return Err(Refused(StatusCode::URI_TOO_LONG));
    }
    Ok(())
}

struct RequestLine {
    method: Method,
    target: Bytes,
    version: Version,
}

impl RequestLine {
    /// RFC 9112 section 3: three words, with one space between them.
    fn read(
        line: &[u8],
        at: usize,
        shared: &Bytes,
        limits: &HeadLimits,
    ) -> Result<RequestLine, Refused> {
        let method = memchr(b' ', line).ok_or(Refused::BAD)?;
        let begin = method + 1;
        let target = memchr(b' ', &line[begin..]);
        within_limits(method, target.unwrap_or(line.len() - begin), limits)?;
        let end = begin + target.ok_or(Refused::BAD)?;
        if !line[begin..end].iter().all(|&byte| byte.is_ascii_graphic() && byte != b'#') {
            return Err(Refused::BAD);
        }
        let version = match &line[end + 1..] {
            b"HTTP/1.1" => Version::HTTP_11,
            b"HTTP/1.0" => Version::HTTP_10,
            [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
                if major.is_ascii_digit() && minor.is_ascii_digit() =>
            {
                return Err(Refused(StatusCode::HTTP_VERSION_NOT_SUPPORTED));
            }
            _ => return Err(Refused::BAD),
        };
        let method = Method::from_bytes(&line[..method]).map_err(|_| Refused::BAD)?;
        Ok(RequestLine { method, target: shared.slice(at + begin..at + end), version })
    }
}

/// The header fields, and what those say that concern the message itself.
#[derive(Default)]
struct Fields {
    headers: HeaderMap,
    count: usize,
    hosts: usize,
    lengths: usize,
    length: Option<u64>,
    codings: usize,
    coding: Coding,
    close: bool,
    keep_alive: bool,
    expects: bool,
    expects_other: bool,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Coding {
    /// None, or none that says where the body ends.
    #[default]
    None,
    Chunked,
    /// Others, and then chunked.
    Unknown,
}

impl Coding {
    /// RFC 9112 section 6.3: without chunked as the last one (and nowhere else) the end of the body is unknown.
    fn of(value: &[u8]) -> Coding {
        let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
        let mut codings = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        match codings.next_back() {
            Some(last) if is_chunked(last) => {}
            _ => return Coding::None,
        }
        let mut before = codings.peekable();
        if before.peek().is_none() {
            return Coding::Chunked;
        }
        match before.all(|coding| !coding.is_empty() && !is_chunked(coding)) {
            true => Coding::Unknown,
            false => Coding::None,
        }
    }
}

impl Fields {
    fn read(&mut self, line: &[u8], at: usize, shared: &Bytes) -> Result<(), Refused> {
        let colon = memchr(b':', line).ok_or(Refused::BAD)?;
        // A name has no spaces: a continued line and a space before the colon are refused here. A value
        // has no control characters but tabs: so are NUL and bare CR.
        let name = HeaderName::from_bytes(&line[..colon]).map_err(|_| Refused::BAD)?;
        let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
        let value = &line[colon + 1..];
        let before = value.iter().take_while(|byte| is_space(byte)).count();
        let value = &value[before..];
        let behind = value.iter().rev().take_while(|byte| is_space(byte)).count();
        let begin = at + colon + 1 + before;
        let value = shared.slice(begin..begin + value.len() - behind);
        let value = HeaderValue::from_maybe_shared(value).map_err(|_| Refused::BAD)?;
        self.note(&name, value.as_bytes());
        self.headers.try_append(name, value).map_err(|_| Refused::TOO_LARGE)?;
        self.count += 1;
        Ok(())
    }

    fn note(&mut self, name: &HeaderName, value: &[u8]) {
        match *name {
            header::HOST => {
                // One that is none counts as too many.
                self.hosts += if is_authority(value) { 1 } else { 2 };
            }
            header::CONTENT_LENGTH => {
                self.lengths += 1;
                self.length = number(value);
            }
            header::TRANSFER_ENCODING => {
                self.codings += 1;
                self.coding = Coding::of(value);
            }
            header::CONNECTION => {
                for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            header::EXPECT => {
                self.expects = true;
                self.expects_other |= !value.eq_ignore_ascii_case(b"100-continue");
            }
            _ => {}
        }
    }

    /// RFC 9112 section 3.2: one Host in HTTP/1.1, at most one in 1.0.
    fn one_host(&self, version: Version) -> Result<(), Refused> {
        match self.hosts {
            1 => Ok(()),
            0 if version == Version::HTTP_10 => Ok(()),
            _ => Err(Refused::BAD),
        }
    }

    /// RFC 9112 section 6. Each of what is refused is how one server's body becomes another's request;
    /// the same length twice, which section 6.3 leaves to us, comes from no honest client either.
    fn framing(&self, version: Version) -> Result<Framing, Refused> {
        match (self.codings, self.lengths, self.length) {
            (0, 0, _) | (0, 1, Some(0)) => Ok(Framing::Empty),
            (0, 1, Some(length)) => Ok(Framing::Length(length)),
            (1, 0, _) if version == Version::HTTP_11 => match self.coding {
                Coding::Chunked => Ok(Framing::Chunked),
                Coding::Unknown => Err(Refused(StatusCode::NOT_IMPLEMENTED)),
                Coding::None => Err(Refused::BAD),
            },
            _ => Err(Refused::BAD),
        }
    }

    fn keep_alive(&self, version: Version) -> bool {
        !self.close && (version == Version::HTTP_11 || self.keep_alive)
    }

    /// RFC 9110 section 10.1.1: the only expectation there is; in HTTP/1.0 it is ignored.
    fn expectation(&self, version: Version) -> Result<bool, Refused> {
        if self.expects_other {
            return Err(Refused(StatusCode::EXPECTATION_FAILED));
        }
        Ok(self.expects && version == Version::HTTP_11)
    }
}

/// RFC 9110 section 8.6: digits, and nothing else.
pub(super) fn number(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok()?;
    // The parser of numbers takes a sign.
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn target_of(line: &RequestLine, headers: &mut HeaderMap) -> Result<PathAndQuery, Refused> {
    let (method, target) = (&line.method, &line.target);
    if *method == Method::CONNECT {
        return Err(Refused(StatusCode::NOT_IMPLEMENTED));
    }
    match &target[..] {
        b"/" => Ok(PathAndQuery::from_static("/")),
        b"*" if *method == Method::OPTIONS => Ok(PathAndQuery::from_static("*")),
        [b'/', ..] => PathAndQuery::from_maybe_shared(target.clone()).map_err(|_| Refused::BAD),
        _ => absolute(method, std::str::from_utf8(target).map_err(|_| Refused::BAD)?, headers),
    }
}

/// RFC 9112 section 3.2.2: the host of an absolute target counts, not that of the Host header.
fn absolute(
    method: &Method,
    target: &str,
    headers: &mut HeaderMap,
) -> Result<PathAndQuery, Refused> {
    let uri: Uri = target.parse().map_err(|_| Refused::BAD)?;
    let authority = uri.authority().ok_or(Refused::BAD)?.as_str();
    let http = matches!(uri.scheme_str(), Some("http" | "https"));
    // The parser of URIs is not as strict.
    if !http || authority.is_empty() || !is_authority(authority.as_bytes()) {
        return Err(Refused::BAD);
    }
    let host = HeaderValue::from_str(authority).map_err(|_| Refused::BAD)?;
    headers.insert(header::HOST, host);
    let bare = target.split_once("://").is_some_and(|(_, rest)| !rest.contains(['/', '?']));
    match uri.path_and_query() {
        _ if bare && *method == Method::OPTIONS => Ok(PathAndQuery::from_static("*")),
        Some(target) if target.as_str().starts_with('/') => Ok(target.clone()),
        Some(query) => format!("/{}", query.as_str()).parse().map_err(|_| Refused::BAD),
        None => Ok(PathAndQuery::from_static("/")),
    }
}
