//! The same bytes read by others: hyper, driven without a runtime or socket, and httparse.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, Version};
use hyper::body::{Body, Incoming};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;

use crate::corpus::{Conversation, End, Seen};

/// What hyper made of what we refuse: for information, nothing is wrong with being stricter.
#[derive(Default)]
pub(crate) struct Tally {
    compared: u64,
    refused: BTreeMap<(u16, &'static str), u64>,
    accepted_by_hyper: BTreeMap<(u16, &'static str), u64>,
}

impl Tally {
    pub(crate) fn print(&self) {
        println!("{} requests compared with hyper's and httparse's", self.compared);
        println!("refused by us, and what hyper did:");
        for ((status, hyper), count) in &self.refused {
            println!("{count:9} {status}, {hyper}");
        }
        println!("where hyper accepted, we refused:");
        for ((status, place), count) in &self.accepted_by_hyper {
            println!("{count:9} {status}, {place}");
        }
    }
}

/// A request in hyper's eyes.
struct Theirs {
    method: Method,
    target: String,
    version: Version,
    headers: HeaderMap,
    body: Vec<u8>,
    absolute: bool,
}

/// Whatever we accept must be the same requests to others.
pub(crate) fn check(input: &[u8], ours: &Conversation, tally: &mut Tally) {
    let theirs = read_by_hyper(input);
    let mut compared = 0;
    for (seen, theirs) in ours.seen.iter().zip(&theirs) {
        same(seen, theirs);
        same_to_httparse(input, seen);
        compared += 1;
    }
    tally.compared += compared as u64;
    assert_eq!(compared, ours.seen.len(), "hyper sees fewer requests");
    match ours.end() {
        End::Refused(status) => {
            let accepted = theirs.len() > compared;
            let hyper = if accepted { "hyper accepted" } else { "hyper did not" };
            *tally.refused.entry((status, hyper)).or_default() += 1;
            if accepted {
                let place = place_of_refusal(input);
                *tally.accepted_by_hyper.entry((status, place)).or_default() += 1;
            }
        }
        // RFC 9110 section 7.6.1: an option is one whatever stands beside it; hyper does not look into a value
        // that is not ASCII.
        End::Closed if ours.seen.last().is_some_and(has_foreign_connection) => {}
        _ => assert_eq!(theirs.len(), compared, "hyper sees more requests"),
    }
}

/// Which part of a request the refusal is about.
fn place_of_refusal(input: &[u8]) -> &'static str {
    let mut growing = Conversation::default();
    for (at, &byte) in input.iter().enumerate() {
        let (in_body, begin) =
            (growing.gathering.is_some(), growing.seen.last().map_or(0, |seen| seen.end));
        growing.push(&[byte]);
        if !matches!(growing.end(), End::Refused(_)) {
            continue;
        }
        let head = &input[begin..=at];
        return if in_body {
            "chunks or trailers"
        } else if head.ends_with(b"\r\n\r\n") && head.len() > 4 {
            fault_of(head)
        } else if head.ends_with(b"\n") && !head.ends_with(b"\r\n") {
            "a bare LF"
        } else if head.trim_ascii().contains(&b'\n') {
            "a field line"
        } else {
            "a request line"
        };
    }
    "nothing"
}

/// What can be wrong with a head only once it is whole.
fn fault_of(head: &[u8]) -> &'static str {
    let count = |wanted: &[u8]| {
        let names = head.split(|byte| *byte == b'\n').skip(1);
        names
            .filter(|line| {
                line.split(|byte| *byte == b':')
                    .next()
                    .unwrap_or_default()
                    .eq_ignore_ascii_case(wanted)
            })
            .count()
    };
    match (count(b"host"), count(b"content-length"), count(b"transfer-encoding"), count(b"expect"))
    {
        (0, ..) => "no Host",
        (2.., ..) => "several Hosts",
        (_, 2.., ..) => "several lengths",
        (_, 1.., 1.., _) => "a length and a coding",
        (_, _, 2.., _) => "several codings",
        (_, _, _, 1..) => "an expectation, a Host, a length or a target",
        (_, 1.., ..) => "a length, a Host or a target",
        (_, _, 1.., _) => "a coding, a Host or a target",
        _ => "a Host or a target",
    }
}

fn has_foreign_connection(seen: &Seen) -> bool {
    seen.headers.get_all(header::CONNECTION).iter().any(|value| !value.as_bytes().is_ascii())
}

fn same(ours: &Seen, theirs: &Theirs) {
    assert_eq!((&ours.method, ours.version), (&theirs.method, theirs.version));
    // RFC 9112 section 3.2.4: without a path, an absolute target of OPTIONS is about the server. hyper tells
    // its applications only the path that it takes for empty, and httparse's is compared below.
    if !(theirs.absolute && ours.method == Method::OPTIONS && ours.target == "*") {
        assert_eq!(ours.target, theirs.target);
    } else {
        assert_eq!(theirs.target, "/");
    }
    assert_eq!(ours.headers, theirs.headers);
    assert_eq!(ours.body, theirs.body);
}

/// The head alone: where it ends, and every byte of its parts.
fn same_to_httparse(input: &[u8], seen: &Seen) {
    let mut room = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Request::new(&mut room);
    let length = head.parse(&input[seen.begin..]).unwrap().unwrap();
    assert_eq!(seen.begin + length, seen.body_begin, "a head of another length to httparse");
    assert_eq!(head.method, Some(seen.method.as_str()));
    assert_eq!(head.version, Some(u8::from(seen.version == Version::HTTP_11)));
    let target = head.path.unwrap();
    if target.starts_with(['/', '*']) {
        assert_eq!(target, seen.target);
    } else {
        let (_, behind) = target.split_once("://").unwrap();
        let path = behind.find(['/', '?']).map_or("", |at| &behind[at..]);
        let path = match path {
            "" if seen.method == Method::OPTIONS => "*".to_owned(),
            _ if path.starts_with('/') => path.to_owned(),
            _ => format!("/{path}"),
        };
        assert_eq!(path, seen.target);
    }
    let mut fields: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for field in head.headers.iter() {
        fields.entry(field.name.to_ascii_lowercase()).or_default().push(field.value);
    }
    for name in seen.headers.keys() {
        let values = fields.remove(name.as_str()).unwrap_or_default();
        // The host of an absolute target replaces that of the header.
        if name != header::HOST || target.starts_with(['/', '*']) {
            assert!(seen.headers.get_all(name).iter().eq(values), "{name} is another to httparse");
        }
    }
    assert!(fields.is_empty(), "httparse sees more: {fields:?}");
}

fn read_by_hyper(input: &[u8]) -> Vec<Theirs> {
    let found = Arc::new(Mutex::new(Vec::new()));
    let service = service_fn(|request: Request<Incoming>| {
        let found = found.clone();
        async move {
            if let Some(theirs) = gather(request).await {
                found.lock().unwrap().push(theirs);
            }
            Ok::<_, Infallible>(Response::new(String::new()))
        }
    });
    let wire = Wire { input: input.to_vec(), read: 0 };
    let mut server = Builder::new();
    // As many as we take of trailers; of fields we take less.
    server.half_close(true).max_headers(100).auto_date_header(false);
    let mut connection = pin!(server.serve_connection(wire, service));
    let mut context = Context::from_waker(Waker::noop());
    // Nothing is ever waited for: the wire is always ready.
    for _ in 0..10_000 {
        if connection.as_mut().poll(&mut context).is_ready() {
            let mut found = found.lock().unwrap();
            return std::mem::take(&mut *found);
        }
    }
    panic!("hyper makes no progress");
}

/// `None` where the body does not come to its end.
async fn gather(request: Request<Incoming>) -> Option<Theirs> {
    let (head, mut incoming) = request.into_parts();
    let mut body = Vec::new();
    while let Some(frame) = poll_fn(|context| Pin::new(&mut incoming).poll_frame(context)).await {
        if let Ok(data) = frame.ok()?.into_data() {
            body.extend_from_slice(&data);
        }
    }
    let mut headers = head.headers;
    let query = head.uri.query().map_or(String::new(), |query| format!("?{query}"));
    // RFC 9112 section 3.2.1: an empty path is "/", and so says `path`.
    let target = format!("{}{query}", head.uri.path());
    let authority = head.uri.authority();
    if let Some(authority) = authority {
        // RFC 9112 section 3.2.2: the server's business, which hyper leaves to the application.
        headers.insert(header::HOST, HeaderValue::from_str(authority.as_str()).unwrap());
    }
    let (method, version, absolute) = (head.method, head.version, authority.is_some());
    Some(Theirs { method, target, version, headers, body, absolute })
}

/// A connection that has received all its bytes and the end, and takes whatever is sent.
struct Wire {
    input: Vec<u8>,
    read: usize,
}

impl Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let count = buffer.remaining().min(self.input.len() - self.read);
        buffer.put_slice(&self.input[self.read..self.read + count]);
        self.read += count;
        Poll::Ready(Ok(()))
    }
}

impl Write for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
