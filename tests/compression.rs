//! Answers that travel compressed, and those that do not.

use std::io::Read;
use std::sync::mpsc;
use std::time::Duration;

use bottle_session::server::native::Native;
use bottle_session::testing::TestResponse;
use bottle_session::{
    App, CompressionPlugin, EventStream, Html, Json, Request, Response, ServerSentEvent, Session,
    SessionPlugin, TestClient, static_file,
};

use crate::support::serving::Serving;

fn text() -> String {
    (0..400).map(|number| format!("line {number} of this text\n")).collect()
}

fn app(plugin: CompressionPlugin) -> App {
    let mut app = App::new();
    app.install(plugin).unwrap();
    app.install(SessionPlugin::new().in_memory()).unwrap();
    app.get("/text", text);
    app.get("/html", || Html(text()));
    app.get("/json", || Json(vec![text()]));
    app.get("/large", || Html(text().repeat(40)));
    app.get("/small", || "small");
    app.get("/bytes", || text().into_bytes());
    app.get("/stream", || {
        let text = text();
        let middle = text.len() / 2;
        Response::chunks([text[..middle].to_owned(), text[middle..].to_owned()])
            .with_header("content-type", "text/plain")
    });
    app.get("/encoded", || Response::text(text()).with_header("content-encoding", "zstd"));
    app.get("/as-it-is", || {
        Response::text(text()).with_header("cache-control", "public, No-Transform")
    });
    app.get("/part", || Response::text(text()).with_status(206));
    app.get("/tagged", || Response::text(text()).with_header("etag", "\"v1\""));
    app.get("/visitor", |session: &mut Session| format!("{:?}{}", session.get("name"), text()));
    app.get("/log-in", |session: &mut Session| {
        session.set("name", "Ada");
        text()
    });
    app.get("/private", || Response::text(text()).with_header("cache-control", "private"));
    app.get("/events", || EventStream::new([ServerSentEvent::new(text())]));
    app
}

fn decoded(encoding: Option<&str>, bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    match encoding {
        None => plain.extend_from_slice(bytes),
        #[cfg(feature = "gzip")]
        Some("gzip") => {
            flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain).unwrap();
        }
        #[cfg(feature = "brotli")]
        Some("br") => {
            brotli::Decompressor::new(bytes, 4096).read_to_end(&mut plain).unwrap();
        }
        Some(other) => panic!("{other}"),
    }
    plain
}

fn get(client: &TestClient, path: &str, accept: &str) -> TestResponse {
    client.get(path).header("accept-encoding", accept).send()
}

/// The encodings that this build has.
fn encodings() -> Vec<&'static str> {
    let mut all = Vec::new();
    if cfg!(feature = "gzip") {
        all.push("gzip");
    }
    if cfg!(feature = "brotli") {
        all.push("br");
    }
    all
}

#[test]
fn what_gets_smaller_is_compressed_for_those_who_accept_it() {
    let client = TestClient::new(app(CompressionPlugin::new())).unwrap();
    for encoding in encodings() {
        for path in ["/text", "/html", "/json", "/large", "/stream"] {
            let plain = client.get(path).send();
            assert_eq!(plain.header("content-encoding"), None, "{path}");
            let packed = get(&client, path, encoding);
            assert_eq!(packed.header("content-encoding"), Some(encoding), "{path}");
            for answer in [&plain, &packed] {
                assert_eq!(answer.header("vary"), Some("Accept-Encoding"), "{path}");
            }
            assert_eq!(decoded(Some(encoding), packed.bytes()), &plain.bytes()[..], "{path}");
            assert!(packed.bytes().len() * 2 < plain.bytes().len(), "{path}");
        }
    }
}

#[test]
fn what_must_not_or_need_not_be_compressed_is_left_alone() {
    let client = TestClient::new(app(CompressionPlugin::new())).unwrap();
    for path in ["/small", "/bytes", "/as-it-is", "/part", "/events"] {
        let answer = get(&client, path, "gzip, br");
        assert_eq!(answer.header("content-encoding"), None, "{path}");
        assert_eq!(answer.header("vary"), None, "{path}");
    }
    assert_eq!(get(&client, "/encoded", "gzip, br").header("content-encoding"), Some("zstd"));
    assert_eq!(get(&client, "/text", "identity").header("content-encoding"), None);
    assert_eq!(get(&client, "/text", "gzip;q=0, br;q=0").header("content-encoding"), None);
}

#[test]
fn what_is_for_one_visitor_is_not_compressed_beside_a_secret_unless_that_is_said_to_be_safe() {
    let client = TestClient::new(app(CompressionPlugin::new())).unwrap();
    let accept = encodings()[0];
    for path in ["/log-in", "/visitor", "/private"] {
        assert_eq!(get(&client, path, accept).header("content-encoding"), None, "{path}");
    }
    let with_password =
        client.get("/text").basic_auth("ada", "x").header("accept-encoding", accept);
    assert_eq!(with_password.send().header("content-encoding"), None);
    let client = TestClient::new(app(CompressionPlugin::new().personal())).unwrap();
    for path in ["/log-in", "/visitor", "/private"] {
        assert_eq!(get(&client, path, accept).header("content-encoding"), Some(accept), "{path}");
    }
}

#[cfg(feature = "secure-cookies")]
#[test]
fn an_answer_that_may_show_a_signed_or_encrypted_cookie_is_for_one_visitor() {
    use bottle_session::{Cookie, ResponseHead, cookie_key};
    let key = cookie_key("MkM7qv4nTzUeYtD2uF0m3oY8a6xJpWcB").unwrap();
    let mut app = app(CompressionPlugin::new());
    let setting = key.clone();
    app.get("/set", move |head: &mut ResponseHead| -> bottle_session::Result<()> {
        head.set_signed_cookie(&setting, Cookie::new("signed", "s"))?;
        head.set_private_cookie(&setting, Cookie::new("private", "p"))
    });
    let signing = key.clone();
    app.get("/signed", move |request: &Request| {
        request.signed_cookie(&signing, "signed").unwrap_or_default() + &text()
    });
    app.get("/sealed", move |request: &Request| {
        request.private_cookie(&key, "private").unwrap_or_default() + &text()
    });
    let client = TestClient::new(app).unwrap();
    let accept = encodings()[0];
    client.get("/set").send();
    for path in ["/signed", "/sealed"] {
        let answer = get(&client, path, accept);
        assert_eq!(answer.header("content-encoding"), None, "{path}");
        assert_eq!(answer.header("vary"), Some("Cookie"), "{path}");
    }
    assert_eq!(get(&client, "/text", accept).header("content-encoding"), Some(accept));
}

#[test]
fn a_strong_tag_becomes_a_weak_one_and_a_head_request_has_the_headers_of_get() {
    let client = TestClient::new(app(CompressionPlugin::new())).unwrap();
    let accept = encodings()[0];
    assert_eq!(get(&client, "/tagged", accept).header("etag"), Some("W/\"v1\""));
    assert_eq!(client.get("/tagged").send().header("etag"), Some("\"v1\""));
    for path in ["/text", "/large", "/stream"] {
        let [get, head] = ["GET", "HEAD"].map(|method| {
            let method = method.parse().unwrap();
            client.request(method, path).header("accept-encoding", accept).send()
        });
        assert!(head.bytes().is_empty());
        for name in ["content-encoding", "vary", "content-type"] {
            assert_eq!(head.header(name), get.header(name), "{path} {name}");
        }
    }
}

#[test]
fn a_file_that_a_browser_has_compressed_need_not_be_sent_again() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("page.txt"), text()).unwrap();
    let mut app = App::new();
    app.install(CompressionPlugin::new()).unwrap();
    let root = folder.path().to_owned();
    app.get("/page.txt", move |request: &Request| static_file(request, "page.txt", &root));
    let client = TestClient::new(app).unwrap();
    let accept = encodings()[0];
    let first = get(&client, "/page.txt", accept);
    assert_eq!(first.header("content-encoding"), Some(accept));
    assert_eq!(decoded(Some(accept), first.bytes()), text().as_bytes());
    assert_eq!(first.header("accept-ranges"), None);
    let etag = first.header("etag").unwrap();
    assert!(etag.starts_with("W/\""), "{etag}");
    let again =
        client.get("/page.txt").header("accept-encoding", accept).header("if-none-match", etag);
    assert_eq!(again.send().status(), 304);
    // A part of the file as it is.
    let part =
        client.get("/page.txt").header("accept-encoding", accept).header("range", "bytes=5-6");
    let part = part.send();
    assert_eq!((part.status(), part.header("content-encoding")), (206, None));
    assert_eq!(part.text(), text()[5..7]);
}

#[test]
fn each_piece_of_a_stream_is_sent_when_it_is_there() {
    for encoding in encodings() {
        let (sender, receiver) = mpsc::channel::<String>();
        let receiver = std::sync::Mutex::new(Some(receiver));
        let mut app = App::new();
        app.install(CompressionPlugin::new()).unwrap();
        app.get("/", move || {
            let pieces = receiver.lock().unwrap().take().unwrap().into_iter();
            Response::chunks(pieces).with_header("content-type", "text/plain")
        });
        let server = Serving::start(Native::bind("127.0.0.1:0").unwrap(), app);
        let mut client = server.client();
        client.send(format!(
            "GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: {encoding}\r\nConnection: close\r\n\r\n"
        ));
        client.stream.socket().set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        // The second piece is not made before the first has come through.
        sender.send("first ".to_owned()).unwrap();
        let (mut raw, mut buffer) = (Vec::new(), [0; 4096]);
        while !partly(encoding, &raw).starts_with(b"first ") {
            let count = client.stream.read(&mut buffer).unwrap();
            assert!(count > 0, "it ended");
            raw.extend_from_slice(&buffer[..count]);
        }
        sender.send("second".to_owned()).unwrap();
        drop(sender);
        client.stream.read_to_end(&mut raw).unwrap();
        assert_eq!(partly(encoding, &raw), b"first second");
    }
}

/// What can be read of a chunked answer so far.
fn partly(encoding: &str, raw: &[u8]) -> Vec<u8> {
    let Some(head) = raw.windows(4).position(|at| at == b"\r\n\r\n") else { return Vec::new() };
    let (mut rest, mut body) = (&raw[head + 4..], Vec::new());
    while let Some(end) = rest.windows(2).position(|at| at == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        let Some(chunk) = rest.get(end + 2..end + 2 + size) else { break };
        body.extend_from_slice(chunk);
        rest = rest.get(end + 4 + size..).unwrap_or_default();
    }
    let mut plain = Vec::new();
    // It breaks off; what has come is there all the same.
    match encoding {
        #[cfg(feature = "gzip")]
        "gzip" => drop(flate2::read::GzDecoder::new(&*body).read_to_end(&mut plain)),
        #[cfg(feature = "brotli")]
        "br" => drop(brotli::Decompressor::new(&*body, 4096).read_to_end(&mut plain)),
        other => panic!("{other}"),
    }
    plain
}
