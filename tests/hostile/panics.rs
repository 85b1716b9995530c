//! Mistakes of the app outside of handlers.

use super::*;

/// Panics when it is dropped.
#[derive(Clone)]
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("on purpose");
    }
}

/// A body that gives so many bytes, or says so of more than there is room for, and holds a bomb.
struct Unsound {
    left: usize,
    _bomb: Option<Bomb>,
}

impl Read for Unsound {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.left == usize::MAX {
            return Ok(buffer.len() + 1);
        }
        let count = self.left.min(buffer.len());
        self.left -= count;
        Ok(count)
    }
}

fn unsound(left: usize, bomb: Option<Bomb>) -> Response {
    Response::stream(Unsound { left, _bomb: bomb }, None)
}

#[test]
fn a_panic_outside_of_handlers_costs_one_answer_and_no_thread_and_no_connection() {
    let mut app = app();
    app.before_request(|request: &mut Request| {
        if request.path() == "/extension" {
            request.extensions_mut().insert(Bomb);
        }
    });
    app.get("/extension", || "dropped");
    app.get("/short", || unsound(10, Some(Bomb)));
    app.get("/long", || unsound(usize::MAX - 1, Some(Bomb)));
    app.get("/greedy", || unsound(usize::MAX, None));
    app.get("/greedy-known", || {
        Response::stream(Unsound { left: usize::MAX, _bomb: None }, Some(10))
    });
    let native = bind().active_threads(1).max_threads(2);
    let server = Serving::start(native.drain_deadline(Duration::from_secs(3600)), app);
    for _ in 0..3 {
        assert_eq!(server.client().get("/short").body, [0; 10]);
        assert_eq!(server.client().get("/extension").status, 500);
        for target in ["/greedy", "/greedy-known"] {
            let mut client = server.client();
            client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
            assert_eq!(client.try_reply(false), None);
        }
        let mut head = server.client();
        head.send("HEAD /short HTTP/1.1\r\nHost: a\r\n\r\n");
        head.try_reply(true);
        // Dropped where connections are closed, while nothing runs.
        let mut left = server.client();
        left.send("GET /long HTTP/1.1\r\nHost: a\r\n\r\n");
        left.stream.read_exact(&mut [0; 1000]).unwrap();
        drop(left);
        assert_eq!(server.client().get("/").text(), "hello");
    }
    // A connection that was forgotten would be waited for.
    server.shutdown.shutdown();
    server.join();
}
