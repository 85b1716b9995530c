//! Bodies that are slow, long or malformed.

use super::*;

#[test]
fn a_streamed_body_that_is_slow_or_long_or_malformed_says_what_its_answer_should_be() {
    let server = bind().body_buffer(2).max_body(50_000).body_rate(1_000_000, 4 * SHORT);
    let server = Serving::start(server, app());
    let chunk = "9c40\r\n".to_owned() + &"x".repeat(40_000) + "\r\n";
    let table = [
        ("Content-Length: 100\r\n\r\nabc", 408, "too slowly"),
        ("Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n64\r\nabc", 408, "too slowly"),
        (&format!("Transfer-Encoding: chunked\r\n\r\n{chunk}{chunk}"), 413, "larger than 50000"),
        ("Transfer-Encoding: chunked\r\n\r\nb\r\nabcdefghijk\r\nx", 400, "malformed"),
    ];
    for (rest, status, why) in table {
        let ask = |target: &str| {
            let mut client = server.client();
            client.send(format!(
                "POST {target} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{rest}"
            ));
            let reply = client.reply();
            assert!(client.is_closed(), "{target} {rest:.60}");
            reply
        };
        for target in ["/body", "/copy", "/copy-io", "/json"] {
            let reply = ask(target);
            assert_eq!(reply.status, status, "{target} {rest:.60}");
            assert!(reply.text().contains(why), "{target} {rest:.60}: {}", reply.text());
        }
        // A handler that looks at the error itself is free to.
        let seen = ask("/read");
        assert!(seen.text().starts_with("broken: ") && seen.text().contains(why), "{seen:?}");
    }
}

#[test]
fn clients_that_send_large_bodies_slowly_leave_threads_for_others() {
    let hour = Duration::from_secs(3600);
    let server = Serving::start(bind().max_threads(2).body_rate(1, hour), app());
    let head = "POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 70000\r\n";
    let mut slow = server.client();
    // Told to go on by the handler that waits for it.
    assert_eq!(slow.send(format!("{head}Expect: 100-continue\r\n\r\n")).reply().status, 100);
    for expect in ["", "Expect: 100-continue\r\n"] {
        let mut another = server.client();
        let reply = another.send(format!("{head}{expect}\r\n")).reply();
        assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")));
        assert!(another.is_closed());
        assert_eq!(server.client().get("/").text(), "hello");
    }
    assert_eq!(slow.send("x".repeat(70_000)).reply().text(), "70000");
    assert_eq!(slow.send(format!("{head}\r\n{}", "x".repeat(70_000))).reply().text(), "70000");
}

#[test]
fn a_chunked_body_that_fits_the_buffer_and_is_longer_than_any_may_be_is_refused() {
    let server = Serving::start(bind().max_body(10), app());
    let ask = |chunks: &str| {
        let mut client = server.client();
        let head = "POST /body HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        client.send(format!("{head}{chunks}0\r\n\r\n")).reply()
    };
    assert_eq!(ask("5\r\nabcde\r\n5\r\nabcde\r\n").text(), "10");
    assert_eq!(ask("5\r\nabcde\r\n6\r\nabcdef\r\n").status, 413);
}

#[test]
fn a_large_body_that_nobody_reads_ends_the_connection_behind_the_answer() {
    let server = Serving::start(bind(), app());
    let mut client = server.client();
    client.send("POST /ignore HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n");
    client.send(vec![b'G'; 100_000]);
    let reply = client.reply();
    assert_eq!((reply.text(), reply.header("connection")), ("ignored", Some("close")));
    assert!(client.is_closed());
}
