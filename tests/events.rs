//! Answers that go on: server-sent events, and downloads that are made while they are sent.

use std::io::{BufRead, BufReader, Read};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bottle_session::server::native::Native;
use bottle_session::{App, EventStream, Response, ServerSentEvent, TestClient};

use crate::faults::wait_until;
use crate::support::serving::{Client, Serving};

#[path = "../examples/events.rs"]
#[allow(dead_code)]
mod example;

/// The lines of an answer's body, its chunks put together, one by one as they come.
pub struct Lines(BufReader<Box<dyn Read>>);

impl Lines {
    /// Asks for a stream, and reads its head.
    pub fn of(mut client: Client, request: &str) -> Lines {
        client.send(request);
        let stream = client.stream.socket().try_clone().unwrap();
        let mut reader = BufReader::new(Box::new(stream) as Box<dyn Read>);
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            assert!(reader.read_line(&mut line).unwrap() > 0, "it ended");
        }
        Lines(reader)
    }

    /// The next line of an event, or nothing at its end. Each event is a chunk.
    fn next(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// The lines of the next event; empty at the end of the stream.
    pub fn event(&mut self) -> Vec<String> {
        let size = self.next();
        assert!(usize::from_str_radix(&size, 16).is_ok(), "{size:?}");
        let mut lines = Vec::new();
        loop {
            match self.next() {
                line if line.is_empty() => break,
                line => lines.push(line),
            }
        }
        if !lines.is_empty() {
            assert_eq!(self.next(), "", "the end of the chunk");
        }
        lines
    }
}

const GET: &str = "GET /events HTTP/1.1\r\nHost: a\r\n\r\n";

/// An app whose one visitor gets what this sends, and what says whether it is still read.
fn one_visitor(keep_alive: Duration) -> (App, Sender<ServerSentEvent>) {
    let (sender, receiver) = mpsc::channel();
    let receiver: Mutex<Option<Receiver<_>>> = Mutex::new(Some(receiver));
    let mut app = App::new();
    app.get("/events", move || {
        let events = receiver.lock().unwrap().take().unwrap();
        EventStream::receive(events).keep_alive(keep_alive)
    });
    app.get("/quick", || "quick");
    (app, sender)
}

#[test]
fn an_event_comes_through_before_the_next_one_is_made() {
    let (app, sender) = one_visitor(Duration::from_secs(60));
    let server = Serving::start(Native::bind("127.0.0.1:0").unwrap(), app);
    let mut lines = Lines::of(server.client(), GET);
    for number in 1..=3 {
        let event = ServerSentEvent::new(format!("tick\n{number}")).id(number.to_string());
        sender.send(event).unwrap();
        assert_eq!(
            lines.event(),
            [format!("id: {number}"), "data: tick".to_owned(), format!("data: {number}")]
        );
        // It holds up nobody.
        assert_eq!(server.client().get("/quick").text(), "quick");
    }
    drop(sender);
    assert_eq!(lines.event(), [""; 0], "the stream ends with its senders");
}

#[test]
fn without_time_between_comments_there_are_none() {
    let (app, sender) = one_visitor(Duration::ZERO);
    let server = Serving::start(Native::bind("127.0.0.1:0").unwrap(), app);
    let mut lines = Lines::of(server.client(), GET);
    // A comment for each moment until then would come first.
    std::thread::sleep(Duration::from_millis(20));
    sender.send(ServerSentEvent::new("tick")).unwrap();
    assert_eq!(lines.event(), ["data: tick"]);
}

#[test]
fn while_nothing_comes_comments_do_and_who_has_left_is_noticed() {
    let (app, sender) = one_visitor(Duration::from_millis(5));
    let server = Serving::start(Native::bind("127.0.0.1:0").unwrap(), app);
    let mut lines = Lines::of(server.client(), GET);
    assert_eq!(lines.event(), [":"]);
    assert_eq!(lines.event(), [":"]);
    drop(lines);
    wait_until("the stream's end", || sender.send(ServerSentEvent::comment("?")).is_err());
}

#[test]
fn events_of_an_iterator_have_the_headers_that_browsers_and_proxies_need() {
    let mut app = App::new();
    app.get("/", || EventStream::new((1..=2).map(|n| ServerSentEvent::new(n.to_string()))));
    let answer = TestClient::new(app).unwrap().get("/").send();
    assert_eq!(answer.text(), "data: 1\n\ndata: 2\n\n");
    for (name, value) in [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-store"),
        ("x-accel-buffering", "no"),
    ] {
        assert_eq!(answer.header(name), Some(value));
    }
}

#[test]
fn a_download_is_made_piece_by_piece_as_it_is_sent() {
    // A report of a hundred megabytes, of which no more is made than somebody reads.
    const LINES: usize = 10_000_000;
    let made = Arc::new(AtomicUsize::new(0));
    let dropped = Arc::new(AtomicBool::new(false));
    struct OnDrop(Arc<AtomicBool>);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let (counted, told) = (made.clone(), dropped.clone());
    let mut app = App::new();
    app.get("/report.csv", move || {
        let (made, on_drop) = (counted.clone(), OnDrop(told.clone()));
        let rows = (0..LINES).map(move |number| {
            let _ = &on_drop;
            made.store(number, Ordering::SeqCst);
            format!("{number},row\n")
        });
        Response::chunks(rows)
            .with_header("content-type", "text/csv")
            .with_header("content-disposition", "attachment; filename=\"report.csv\"")
    });
    let server = Serving::start(Native::bind("127.0.0.1:0").unwrap(), app);
    let mut lines = Lines::of(server.client(), "GET /report.csv HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!([lines.next(), lines.next()], ["6", "0,row"]);
    assert!(made.load(Ordering::SeqCst) < LINES - 1);
    // The visitor leaves, and nothing more is made.
    drop(lines);
    wait_until("the download's end", || dropped.load(Ordering::SeqCst));
    assert!(made.load(Ordering::SeqCst) < LINES - 1);
}

#[test]
fn the_example_shows_all_visitors_what_one_of_them_writes() {
    let server = Serving::start(Native::bind("127.0.0.1:0").unwrap(), example::app());
    let mut client = server.client();
    assert!(client.get("/").text().contains("new EventSource(\"/events\")"));
    let mut write = |text: &str| {
        let body = format!("text={text}");
        let head = "POST /notes HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\n";
        client.send(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()));
        client.reply().status
    };
    assert_eq!((write("one"), write("")), (200, 400));
    let mut visitors = [Lines::of(server.client(), GET), Lines::of(server.client(), GET)];
    let note = |number: u32, text: &str| {
        ["event: note".to_owned(), format!("id: {number}"), format!("data: {text}")]
    };
    for lines in &mut visitors {
        assert_eq!(lines.event(), note(1, "one"));
    }
    assert_eq!(write("two"), 200);
    for lines in &mut visitors {
        assert_eq!(lines.event(), note(2, "two"));
    }
    let again = "GET /events HTTP/1.1\r\nHost: a\r\nLast-Event-ID: 1\r\n\r\n";
    assert_eq!(Lines::of(server.client(), again).event(), note(2, "two"));
}
