//! Streams that wait for what they send.

use super::*;

#[test]
fn however_many_streams_wait_health_checks_quick_requests_and_files_pass() {
    let (streams, slow) = (Gate::default(), Gate::default());
    let mut app = gated(&slow);
    let gate = streams.clone();
    app.get("/events", move || Response::stream(Waiting(gate.clone(), false), None));
    app.get("/file", || Response::stream(std::io::repeat(b'x').take(100_000), Some(100_000)));
    // Another thread than the event loop's is to run it, once it has blocked.
    app.get("/sleep", || {
        std::thread::sleep(Duration::from_millis(5));
        "slept"
    });
    let server = Serving::start(bind().max_threads(8).active_threads(1), app);
    let ask = || {
        let mut client = server.client();
        client.send("GET /events HTTP/1.1\r\nHost: a\r\n\r\n");
        client
    };
    // Seven of eight threads wait in them, and those behind have their heads and wait for a thread.
    let mut clients: Vec<_> = (0..7).map(|_| ask()).collect();
    streams.wait_for(7);
    clients.extend((0..33).map(|_| ask()));
    for client in &mut clients {
        let mut head = [0; 15];
        client.stream.read_exact(&mut head).unwrap();
        assert_eq!(&head, b"HTTP/1.1 200 OK");
    }
    for _ in 0..100 {
        assert_eq!(server.client().get("/").text(), "hello");
        assert_eq!(server.client().get("/file").body.len(), 100_000);
    }
    let upload = "POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n";
    let upload = upload.to_owned() + &"x".repeat(100_000);
    for _ in 0..3 {
        assert_eq!(server.client().get("/sleep").text(), "slept");
        let mut client = server.client();
        client.send(&upload);
        assert_eq!(client.reply().text(), "100000");
    }
    assert_eq!(streams.waiting(), 7, "the last thread is not theirs");
    // A handler may have it, and then all wait.
    let mut last = server.client();
    last.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
    slow.wait_for(1);
    streams.open();
    for mut client in clients {
        let mut rest = Vec::new();
        while !rest.ends_with(b"4\r\nword\r\n0\r\n\r\n") {
            let mut byte = [0];
            client.stream.read_exact(&mut byte).unwrap();
            rest.extend(byte);
        }
    }
    slow.open();
    assert_eq!(last.reply().text(), "passed");
}

/// A body that waits at a gate, and tells when it is dropped.
struct Left(Waiting, mpsc::Sender<()>);

impl Read for Left {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        let _ = self.1.send(());
    }
}

#[test]
fn streams_that_wait_for_a_thread_are_bounded_and_let_go_of_when_their_visitors_leave() {
    let (gate, (sender, dropped)) = (Gate::default(), mpsc::channel());
    let (streams, sender) = (gate.clone(), Mutex::new(sender));
    let mut app = app();
    app.get("/events", move || {
        let body = Waiting(streams.clone(), false);
        Response::stream(Left(body, sender.lock().unwrap().clone()), None)
    });
    let server = Serving::start(bind().max_threads(2).max_queue(3).active_threads(1), app);
    let begin = || {
        let mut client = server.client();
        client.send("GET /events HTTP/1.1\r\nHost: a\r\n\r\n");
        client
    };
    let ask = || {
        let (mut client, mut head) = (begin(), [0; 12]);
        client.stream.read_exact(&mut head).unwrap();
        (client, String::from_utf8(head.into()).unwrap())
    };
    let (running, status) = ask();
    assert_eq!(status, "HTTP/1.1 200");
    gate.wait_for(1);
    for _ in 0..3 {
        // Three of these wait, and the others are not kept.
        let begun: Vec<_> = (0..6).map(|_| ask()).collect();
        (0..3).for_each(|_| dropped.recv().unwrap());
        assert_eq!(ask().1, "HTTP/1.1 503");
        dropped.recv().unwrap();
        drop(begun);
        (0..3).for_each(|_| dropped.recv().unwrap());
    }
    // Who leaves before there is an answer is found out, too.
    for _ in 0..3 {
        drop(begin());
        dropped.recv().unwrap();
    }
    assert_eq!(gate.waiting(), 1, "none of them has had a thread");
    let (last, _) = ask();
    gate.open();
    for mut client in [running, last] {
        let mut rest = Vec::new();
        while !rest.ends_with(b"4\r\nword\r\n0\r\n\r\n") {
            let mut byte = [0];
            client.stream.read_exact(&mut byte).unwrap();
            rest.extend(byte);
        }
    }
}
