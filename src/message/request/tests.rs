use super::*;

fn request(body: RequestBody, limit: u64) -> Request {
    let mut request = Request::new(Method::POST, PathAndQuery::from_static("/?a=1&b=%20x&a=2"));
    request.set_body_limit(limit);
    request.with_body(body)
}

fn stream(text: &'static str, length: Option<u64>) -> RequestBody {
    RequestBody::Stream { reader: Box::new(text.as_bytes()), length }
}

#[test]
fn what_was_read_before_is_read_anew() {
    let headers = |value| HeaderMap::from_iter([(header::COOKIE, value)]);
    let one = http::HeaderValue::from_static("a=1");
    let two = http::HeaderValue::from_static("a=2");
    let request = request(stream("12345", None), 5).with_headers(headers(one));
    assert_eq!(
        (request.cookie("a").as_deref(), request.body().unwrap()),
        (Some("1"), &b"12345"[..])
    );
    let request = request.with_headers(headers(two)).with_body(stream("67", None));
    assert_eq!((request.cookie("a").as_deref(), request.body().unwrap()), (Some("2"), &b"67"[..]));
}

#[test]
fn a_header_in_utf_8_is_text() {
    let headers = ["Ren\u{e9}e".as_bytes(), b"Ren\xe9e", b"plain"]
        .map(|value| http::HeaderValue::from_bytes(value).unwrap());
    for (value, expected) in headers.into_iter().zip([Some("Renée"), None, Some("plain")]) {
        let request = request(stream("", None), 1)
            .with_headers(HeaderMap::from_iter([(header::FROM, value)]));
        assert_eq!(request.header("from"), expected);
    }
}

#[test]
fn basic_credentials_are_read_as_they_were_sent() {
    let some = |name: &str, password: &str| Some((name.to_owned(), password.to_owned()));
    for (sent, expected) in [
        ("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", some("Aladdin", "open sesame")),
        ("basic  dGVzdDoxMjPCow==", some("test", "123\u{a3}")),
        ("BASIC YTpiOmM6ZA", some("a", "b:c:d")),
        ("Basic Og==", some("", "")),
        ("Basic YQ==", None),
        ("Basic dGVzdDoxMjOj", None),
        ("Basic YTpiCg==", None),
        ("Basic ????", None),
        ("Basic", None),
        ("Bearer YTpi", None),
        ("", None),
    ] {
        let mut request = request(stream("", None), 1);
        request.headers_mut().insert("authorization", sent.parse().unwrap());
        assert_eq!(request.basic_auth(), expected, "{sent}");
    }
    assert_eq!(request(stream("", None), 1).basic_auth(), None);
}

#[test]
fn the_address_is_the_one_that_the_visitor_sees() {
    let mut request = request(stream("", None), 1);
    assert_eq!(request.url(), "/?a=1&b=%20x&a=2");
    request.headers_mut().insert("host", "example.org:8080".parse().unwrap());
    assert_eq!(request.url(), "http://example.org:8080/?a=1&b=%20x&a=2");
    let request = request.with_scheme(Scheme::Https).with_prefix("/shop");
    assert_eq!(request.url(), "https://example.org:8080/shop/?a=1&b=%20x&a=2");
}

#[test]
fn a_path_is_changed_and_the_query_kept() {
    let mut request = request(stream("", None), 1);
    for (path, target) in [
        ("/new", "/new?a=1&b=%20x&a=2"),
        ("/a b/\u{e9}?#%41", "/a%20b/%C3%A9%3F%23%41?a=1&b=%20x&a=2"),
    ] {
        request.set_path(path).unwrap();
        assert_eq!(request.target().as_str(), target);
    }
    for (path, why) in [
        ("new", "\"new\" is no path: a path begins with a slash"),
        (&*format!("/{}", "x".repeat(70_000)), "is no path: it is too long"),
    ] {
        let error = request.set_path(path).unwrap_err().to_string();
        assert!(error.ends_with(why), "{error}");
    }
}

#[test]
fn queries_are_decoded() {
    let request = request(stream("", None), 1);
    assert_eq!(request.query("b").unwrap().as_deref(), Some(" x"));
    assert_eq!(request.query("a").unwrap().as_deref(), Some("2"));
    assert_eq!(request.query("c").unwrap(), None);
    assert_eq!(request.queries().unwrap().len(), 3);
}
