//! Tables of heads and bodies, cut at every byte and mutated.

use super::*;

const LIMITS: HeadLimits = HeadLimits { bytes: 2048, target: 256, fields: 16 };

fn complete(input: &[u8]) -> Result<Option<Box<Head>>, u16> {
    match parse_head(input, &LIMITS) {
        Ok(Parsed::Complete(head)) => Ok(Some(head)),
        Ok(Parsed::Incomplete) => Ok(None),
        Err(Refused(status)) => Err(status.as_u16()),
    }
}

#[test]
fn heads_are_read() {
    use Framing::*;
    // Head, method, target, host, framing, keep alive, expects.
    let table = [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / a", Empty, true, false),
        ("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / a", Empty, true, false),
        ("GET /x?y=%20 HTTP/1.0\r\n\r\n", "GET /x?y=%20 -", Empty, false, false),
        ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", "GET / -", Empty, true, false),
        ("GET / HTTP/1.1\r\nHost:\r\nConnection: a, close\r\n\r\n", "GET / ", Empty, false, false),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS * a", Empty, true, false),
        ("OPTIONS http://b HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS * b", Empty, true, false),
        ("GET http://b:8/p?q HTTP/1.1\r\nHost: a\r\n\r\n", "GET /p?q b:8", Empty, true, false),
        ("GET http://b?q HTTP/1.1\r\nHost: a\r\n\r\n", "GET /?q b", Empty, true, false),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
            "POST / a",
            Length(5),
            true,
            false,
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "POST / a", Empty, true, false),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n",
            "POST / a",
            Chunked,
            true,
            false,
        ),
        (
            "PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\n",
            "PUT / a",
            Length(1),
            true,
            true,
        ),
        ("BREW /pot HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", "BREW /pot [::1]:80", Empty, true, false),
    ];
    for (text, line, framing, keep_alive, expects) in table {
        let head = complete(text.as_bytes()).unwrap().unwrap();
        let host = head.headers.get("host").map_or("-", |host| host.to_str().unwrap());
        assert_eq!(format!("{} {} {host}", head.method, head.target), line, "{text:?}");
        assert_eq!((head.framing, head.keep_alive), (framing, keep_alive), "{text:?}");
        assert_eq!((head.expect_continue, head.consumed), (expects, text.len()), "{text:?}");
    }
}

#[test]
fn what_is_ambiguous_or_too_much_is_refused() {
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(300));
    let unfinished = format!("GET /{}", "x".repeat(300));
    let large = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(2048));
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(16));
    let with = |fields: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let table: Vec<(String, u16)> = vec![
        (long, 414),
        (unfinished, 414),
        (large, 431),
        (many, 431),
        (with("Content-Length: 5\r\nContent-Length: 6\r\n"), 400),
        (with("Content-Length: 5, 6\r\n"), 400),
        (with("Content-Length: 5, 5\r\n"), 400),
        (with("Content-Length: 5\r\nContent-Length: 5\r\n"), 400),
        (with("Content-Length: +5\r\n"), 400),
        (with("Content-Length: -5\r\n"), 400),
        (with("Content-Length: 0x5\r\n"), 400),
        (with("Content-Length: 5 5\r\n"), 400),
        (with("Content-Length:\r\n"), 400),
        (with("Content-Length: 18446744073709551616\r\n"), 400),
        (with("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), 400),
        (with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), 400),
        (with("Transfer-Encoding: gzip, chunked\r\n"), 501),
        (with("Transfer-Encoding: chunked, identity\r\n"), 400),
        (with("Transfer-Encoding: chunked, chunked\r\n"), 400),
        (with("Transfer-Encoding: xchunked\r\n"), 400),
        (with("Transfer-Encoding: \x0bchunked\r\n"), 400),
        (with("Transfer-Encoding : chunked\r\n"), 400),
        (with("Content-Length : 5\r\n"), 400),
        (with("X: a\r\n b\r\n"), 400),
        (with("X: a\rb\r\n"), 400),
        (with("X: a\nY: b\r\n"), 400),
        (with("X: a\0b\r\n"), 400),
        (with("X\0: a\r\n"), 400),
        (with(": a\r\n"), 400),
        (with("X\r\n"), 400),
        (with("Host: a\r\n"), 400),
        (with("Host: b\r\n"), 400),
        (with("Expect: 200-ok\r\n"), 417),
        ("GET / HTTP/1.1\r\n\r\n".into(), 400),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n".into(), 400),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n".into(), 400),
        ("GET / HTTP/1.1\r\nHost: a@b\r\n\r\n".into(), 400),
        ("GET / HTTP/1.1\nHost: a\n\n".into(), 400),
        ("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".into(), 400),
        ("GET http://a:80A0/ HTTP/1.1\r\nHost: a\r\n\r\n".into(), 400),
        ("GET http://a:99999/ HTTP/1.1\r\nHost: a\r\n\r\n".into(), 400),
        ("GET / HTTP/1.2\r\nHost: a\r\n\r\n".into(), 505),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n".into(), 505),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), 505),
        ("GET / HTTP/11\r\nHost: a\r\n\r\n".into(), 400),
        ("GET / http/1.1\r\nHost: a\r\n\r\n".into(), 400),
        ("GET /\r\n\r\n".into(), 400),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n".into(), 400),
        ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n".into(), 400),
        ("GET /#x HTTP/1.1\r\nHost: a\r\n\r\n".into(), 400),
        ("GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n".into(), 400),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n".into(), 400),
        ("GET a HTTP/1.1\r\nHost: a\r\n\r\n".into(), 400),
        ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n".into(), 400),
        ("GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n".into(), 400),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n".into(), 501),
        ("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".into(), 400),
        ("\x16\x03\x01\x02\0\x01\0".into(), 400),
    ];
    for (text, status) in table {
        assert_eq!(complete(text.as_bytes()).map(|_| "served"), Err(status), "{text:?}");
    }
}

#[test]
fn a_head_cut_at_any_byte_is_waited_for() {
    let text = b"\r\nPOST /a?b HTTP/1.1\r\nHost: a\r\nX: y \r\nContent-Length: 3\r\n\r\nabc";
    let end = text.len() - 3;
    for cut in 0..end {
        assert!(complete(&text[..cut]).unwrap().is_none(), "{cut}");
    }
    for cut in end..=text.len() {
        assert_eq!(complete(&text[..cut]).unwrap().unwrap().consumed, end);
    }
}

fn decode(framing: Framing, pieces: &[&[u8]]) -> Result<(String, usize, bool), u16> {
    let (mut decoder, mut out, mut consumed) = (BodyDecoder::new(framing), Vec::new(), 0);
    for piece in pieces {
        let step = decoder.decode(piece, &mut out, 1000).map_err(|refused| refused.0.as_u16())?;
        consumed += step.consumed;
    }
    Ok((String::from_utf8(out).unwrap(), consumed, decoder.is_done()))
}

#[test]
fn chunked_bodies_are_read_in_pieces_of_any_size() {
    let table = [
        ("0\r\n\r\n", ""),
        ("3\r\nabc\r\n0\r\n\r\n", "abc"),
        ("A;ext=\"v\"\r\n0123456789\r\n000\r\n\r\n", "0123456789"),
        ("1\r\na\r\n2\r\nbc\r\n0\r\nTrailer: x\r\nOther: y\r\n\r\n", "abc"),
    ];
    for (text, body) in table {
        let followed = format!("{text}GET /");
        for cut in 0..followed.len() {
            let (one, two) = followed.as_bytes().split_at(cut);
            assert_eq!(decode(Framing::Chunked, &[one, two]).unwrap().0, body, "{text:?} at {cut}");
        }
        let bytes: Vec<&[u8]> = followed.as_bytes().chunks(1).collect();
        let whole = decode(Framing::Chunked, &bytes);
        assert_eq!(whole, Ok((body.to_owned(), text.len(), true)), "{text:?}");
    }
    assert_eq!(decode(Framing::Length(3), &[b"ab", b"cd"]), Ok(("abc".to_owned(), 3, true)));
}

#[test]
fn malformed_chunks_are_refused() {
    let table = [
        "\r\n",
        "x\r\n",
        "-1\r\n",
        "+1\r\n",
        "0x1\r\n",
        " 1\r\n",
        "1 \r\n",
        "1\n",
        "1\rx",
        ";a\r\n",
        "1;\0\r\n",
        "1;\r\n",
        "1; \r\n",
        "1;a;\r\n",
        "1;a\nb\r\n",
        "10000000000000000\r\n",
        "1\r\nab",
        "1\r\na\n",
        "1\r\na\r\r",
        "0\r\nX\r\n",
        "0\r\n: y\r\n",
        "0\r\nX: y\n",
        "0\r\nX : y\r\n",
        "0\r\n y\r\n",
        "0\r\nX: \0",
    ];
    for text in table {
        assert_eq!(decode(Framing::Chunked, &[text.as_bytes()]), Err(400), "{text:?}");
    }
    let long = format!("1;{}", "x".repeat(300));
    assert_eq!(decode(Framing::Chunked, &[long.as_bytes()]), Err(400));
    let trailers = format!("0\r\n{}", "X: y\r\n".repeat(2000));
    assert_eq!(decode(Framing::Chunked, &[trailers.as_bytes()]), Err(431));
}

#[test]
fn a_refused_body_stays_refused() {
    let mut decoder = BodyDecoder::new(Framing::Chunked);
    let mut out = Vec::new();
    assert_eq!(decoder.decode(b"x", &mut out, 100), Err(Refused::BAD));
    assert_eq!(decoder.decode(b"0\r\n\r\n", &mut out, 100), Err(Refused::BAD));
    assert!(!decoder.is_done());
}

#[test]
fn a_full_buffer_takes_no_more() {
    let mut decoder = BodyDecoder::new(Framing::Chunked);
    let mut out = Vec::new();
    let step = decoder.decode(b"5\r\nabcde\r\n0\r\n\r\n", &mut out, 2).unwrap();
    assert_eq!((step, out.as_slice()), (Decoded { consumed: 5, done: false }, &b"ab"[..]));
    out.clear();
    let step = decoder.decode(b"cde\r\n0\r\n\r\n", &mut out, 9).unwrap();
    assert_eq!((step, out.as_slice()), (Decoded { consumed: 10, done: true }, &b"cde"[..]));
}

#[test]
fn an_answer_has_the_framing_its_client_understands() {
    use http::Version as V;
    let written = |status: u16, head, version, length, keep_alive| {
        let status = StatusCode::from_u16(status).unwrap();
        let mut headers = http::HeaderMap::new();
        headers.insert("date", http::HeaderValue::from_static("now"));
        headers.insert("content-length", http::HeaderValue::from_static("999"));
        headers.insert("transfer-encoding", http::HeaderValue::from_static("gzip"));
        let delivery = Delivery::of(status, head, version, length);
        let mut out = Vec::new();
        write_head(&mut out, status, &headers, delivery, version, keep_alive);
        String::from_utf8(out).unwrap().replace("\r\n", "|")
    };
    let start = "HTTP/1.1 200 OK|date: now|";
    let table = [
        (200, false, V::HTTP_11, Some(3), true, format!("{start}content-length: 3||")),
        (200, false, V::HTTP_11, None, true, format!("{start}transfer-encoding: chunked||")),
        (200, false, V::HTTP_10, None, false, format!("{start}connection: close||")),
        (
            200,
            false,
            V::HTTP_10,
            Some(0),
            true,
            format!("{start}content-length: 0|connection: keep-alive||"),
        ),
        (200, true, V::HTTP_11, Some(3), true, format!("{start}content-length: 3||")),
        (200, true, V::HTTP_11, None, true, format!("{start}|")),
        (204, false, V::HTTP_11, Some(0), true, "HTTP/1.1 204 No Content|date: now||".to_owned()),
        (
            304,
            false,
            V::HTTP_11,
            Some(3),
            false,
            "HTTP/1.1 304 Not Modified|date: now|connection: close||".to_owned(),
        ),
    ];
    for (status, head, version, length, keep_alive, text) in table {
        assert_eq!(written(status, head, version, length, keep_alive), text);
    }
    let mut out = Vec::new();
    push_chunk(&mut out, b"", ChunkEnd::More);
    push_chunk(&mut out, b"0123456789", ChunkEnd::More);
    push_chunk(&mut out, b"", ChunkEnd::Last);
    assert_eq!(out, b"a\r\n0123456789\r\n0\r\n\r\n");
}

#[test]
fn an_answer_without_a_date_gets_the_time_of_its_second() {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};
    let second = || {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        UNIX_EPOCH + Duration::from_secs(since.as_secs())
    };
    let written = || {
        let answer = String::from_utf8(refusal(StatusCode::NOT_FOUND, false, None)).unwrap();
        let date = answer.lines().find_map(|line| line.strip_prefix("date: ")).unwrap();
        httpdate::parse_http_date(date).unwrap()
    };
    let first = second();
    // Also once what was kept of an earlier one is no longer true.
    while second() == first {
        let (before, date, after) = (second(), written(), second());
        assert!(before <= date && date <= after, "{before:?} {date:?} {after:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(written() > first);
}

/// What we accept, httparse accepts, with the same end, method, target and fields; and no input panics.
#[test]
fn mutated_heads_never_mean_something_else_to_another_parser() {
    let seeds: [&[u8]; 4] = [
        b"GET /path?query=1 HTTP/1.1\r\nHost: example.org\r\nAccept: */*\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\nConnection: close\r\n\r\nhello",
        b"PUT http://a/b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"OPTIONS * HTTP/1.0\r\nConnection: keep-alive\r\nX:\t y \r\n\r\n",
    ];
    let spice = b"\r\n\0 \t:;,/*#HTP10\x7f\x80\xff-+chunked";
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = move |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % below as u64) as usize
    };
    let mut accepted = 0;
    for round in 0..60_000 {
        let mut input = seeds[round % seeds.len()].to_vec();
        for _ in 0..=next(3) {
            let (at, byte) = (next(input.len()), spice[next(spice.len())]);
            match next(4) {
                0 => input[at] = byte,
                1 => input.insert(at, byte),
                2 if input.len() > 1 => drop(input.remove(at)),
                _ => input.truncate(at.max(1)),
            }
        }
        let Ok(Some(head)) = complete(&input) else { continue };
        accepted += 1;
        let mut room = [httparse::EMPTY_HEADER; 32];
        let mut other = httparse::Request::new(&mut room);
        let end = other.parse(&input).unwrap().unwrap();
        assert_eq!((end, other.method), (head.consumed, Some(head.method.as_str())));
        assert_eq!(other.headers.len(), head.headers.len(), "{input:?}");
        let path = other.path.unwrap();
        let same = path.ends_with(head.target.as_str()) || !path.starts_with('/');
        assert!(same, "{path} is not {}", head.target);
        let mut decoder = BodyDecoder::new(head.framing);
        let mut out = Vec::new();
        let _ = decoder.decode(&input[end..], &mut out, 100);
        assert!(out.len() <= input.len() - end);
    }
    assert!(accepted > 1000, "{accepted}");
}
