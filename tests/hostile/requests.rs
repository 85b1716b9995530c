//! Requests that are malformed, ambiguous, cut off, or come byte by byte.

use super::*;

#[test]
fn what_is_refused_is_answered_once_and_nothing_behind_it_is_a_request() {
    let server = Serving::start(bind().max_body(1000), app());
    let behind = "GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(3);
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(9000));
    let large = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(70_000));
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(200));
    let post = |fields: &str| format!("POST /ignore HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
    let table = [
        (post("Content-Length: 5\r\nContent-Length: 6"), 400),
        (post("Content-Length: 5\r\nTransfer-Encoding: chunked"), 400),
        (post("Transfer-Encoding: chunked") + "5\nabcde\r\n0\r\n\r\n", 400),
        (post("Transfer-Encoding: chunked") + "-5\r\n", 400),
        (post("Transfer-Encoding: gzip"), 400),
        (post("Transfer-Encoding: gzip, chunked"), 501),
        (post("Transfer-Encoding : chunked"), 400),
        (post("X: a\r\n b"), 400),
        (post("X: a\rb"), 400),
        (post("X: a\0b"), 400),
        (post("Host: b"), 400),
        (post("Expect: the unexpected"), 417),
        (post("Content-Length: 1001"), 413),
        (post("Content-Length: 100000000000"), 413),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/3.0\r\nHost: a\r\n\r\n".to_owned(), 505),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 501),
        ("\x16\x03\x01\0\r\n\r\n".to_owned(), 400),
        (long, 414),
        (large, 431),
        (many, 431),
    ];
    for (request, status) in table {
        let mut client = server.client();
        client.send(format!("{request}{behind}"));
        let reply = client.reply();
        assert_eq!(reply.status, status, "{:?}", &request[..request.len().min(90)]);
        assert_eq!(reply.header("connection"), Some("close"));
        assert!(client.is_closed(), "something else was answered: {request:.90?}");
    }
    assert_eq!(server.client().get("/").text(), "hello");
}

#[test]
fn a_request_in_single_bytes_is_a_request() {
    let server = Serving::start(bind(), app());
    let mut client = server.client();
    client.stream.set_nodelay(true).unwrap();
    let request =
        "POST /read HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    for byte in request.bytes() {
        client.send([byte]);
    }
    assert_eq!(client.reply().text(), "3");
}

#[test]
fn a_client_that_sends_half_a_request_is_told_and_closed() {
    // Long enough for a client on a busy machine to begin.
    let server =
        Serving::start(bind().head_deadline(8 * SHORT).body_rate(1_000_000, 4 * SHORT), app());
    for half in ["GET / HT", "POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc"] {
        let mut client = server.client();
        assert_eq!(client.send(half).reply().status, 408, "{half:?}");
        assert!(client.is_closed());
    }
    let mut silent = server.client();
    assert!(silent.is_closed());
}

#[test]
fn what_refuses_a_head_request_has_no_body() {
    let server = Serving::start(bind().max_body(10), app());
    for (request, status) in [
        ("HEAD / HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("\r\nHEAD / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned(), 400),
        (format!("HEAD /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(9000)), 414),
        ("HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n".to_owned(), 413),
        ("HEAD / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n".to_owned(), 400),
        ("HEAD /early HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 500),
    ] {
        let mut client = server.client();
        let reply = client.send(&request).reply_to_head();
        assert_eq!(reply.status, status, "{request:.60?}");
        assert!(reply.header("content-length").is_some_and(|length| length != "0"));
        assert!(client.is_closed(), "a body behind {request:.60?}");
    }
}

#[test]
fn trailers_are_bounded_and_never_become_headers() {
    let mut app = app();
    app.post("/headers", |request: &Request| -> bottle_session::Result<String> {
        let text = String::from_utf8_lossy(request.body()?);
        Ok(format!("{text} {:?} {:?}", request.header("host"), request.header("x-admin")))
    });
    let server = Serving::start(bind(), app);
    let request = |trailers: &str| {
        let head = "POST /headers HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        format!("{head}3\r\nabc\r\n0\r\n{trailers}\r\n")
    };
    let mut client = server.client();
    client.send(request("Host: b\r\nX-Admin: yes\r\nConnection: close\r\n"));
    assert_eq!(client.reply().text(), "abc Some(\"a\") None");
    client.send(request(&"X: y\r\n".repeat(100)));
    assert_eq!(client.reply().text(), "abc Some(\"a\") None");
    client.send(request(&"X: y\r\n".repeat(101)));
    assert_eq!(client.reply().status, 431);
    assert!(client.is_closed());
}

#[test]
fn what_is_refused_is_refused_with_the_same_status_in_single_bytes() {
    let server = Serving::start(bind(), app());
    let table = [
        ("GET / HTTP/2.0\r\n", 505),
        ("GET /  HTTP/1.1\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a:80A0\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n", 400),
    ];
    for (request, status) in table {
        let mut client = server.client();
        client.stream.set_nodelay(true).unwrap();
        for byte in request.bytes() {
            client.send([byte]);
        }
        assert_eq!(client.reply().status, status, "{request:?}");
        assert!(client.is_closed());
    }
}
