//! Server-sent events: an answer that goes on.

use std::fmt::Write;
use std::io::{self, Read};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName};

use crate::message::into_response::IntoResponse;
use crate::message::response::Response;

/// How often a stream that has nothing to say says that it is there, unless set.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// One event for a browser's `EventSource`, as HTML's section "Server-sent events" has it.
///
/// ```
/// use bottle_session::ServerSentEvent;
///
/// let event = ServerSentEvent::new("two\nlines").event("note").id("7");
/// assert_eq!(event.to_string(), "event: note\nid: 7\ndata: two\ndata: lines\n\n");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerSentEvent {
    data: Option<String>,
    event: Option<String>,
    id: Option<String>,
    retry: Option<Duration>,
    comment: Option<String>,
}

impl ServerSentEvent {
    /// An event with this text, of any number of lines.
    pub fn new(data: impl Into<String>) -> ServerSentEvent {
        ServerSentEvent { data: Some(data.into()), ..ServerSentEvent::default() }
    }

    /// An event with this value as JSON; an error where it cannot be JSON.
    pub fn json(data: &impl serde::Serialize) -> crate::Result<ServerSentEvent> {
        let text = serde_json::to_string(data).map_err(crate::Error::other)?;
        Ok(ServerSentEvent::new(text))
    }

    /// What scripts do not see: it keeps proxies from taking the stream for a dead one.
    pub fn comment(text: impl Into<String>) -> ServerSentEvent {
        ServerSentEvent { comment: Some(text.into()), ..ServerSentEvent::default() }
    }

    /// The name that scripts listen to: `message` unless set. Line ends in it become spaces.
    #[must_use]
    pub fn event(mut self, name: impl Into<String>) -> ServerSentEvent {
        self.event = Some(one_line(name.into()));
        self
    }

    /// What the browser says as `Last-Event-ID` when it has lost the stream and asks again. One line without NUL: such
    /// become spaces.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> ServerSentEvent {
        self.id = Some(one_line(id.into()));
        self
    }

    /// After how long the browser asks again, from now on.
    #[must_use]
    pub fn retry(mut self, after: Duration) -> ServerSentEvent {
        self.retry = Some(after);
        self
    }
}

/// A line end would begin another field.
fn one_line(text: String) -> String {
    text.replace(['\r', '\n', '\0'], " ")
}

/// The lines of a text, whichever of its three ends each has.
fn lines(text: &str) -> impl Iterator<Item = String> {
    let unified = text.replace("\r\n", "\n").replace('\r', "\n");
    unified.split('\n').map(str::to_owned).collect::<Vec<_>>().into_iter()
}

impl std::fmt::Display for ServerSentEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for line in self.comment.iter().flat_map(|text| lines(text)) {
            writeln!(f, ": {line}")?;
        }
        if let Some(name) = &self.event {
            writeln!(f, "event: {name}")?;
        }
        if let Some(id) = &self.id {
            writeln!(f, "id: {id}")?;
        }
        if let Some(retry) = self.retry {
            writeln!(f, "retry: {}", retry.as_millis())?;
        }
        for line in self.data.iter().flat_map(|text| lines(text)) {
            writeln!(f, "data: {line}")?;
        }
        f.write_char('\n')
    }
}

/// An answer of [events](ServerSentEvent) (`text/event-stream`), each sent when it is there.
///
/// Made of an iterator, it ends with that. Made of the receiving end of a channel, it ends when all senders have gone, and
/// while nothing comes it sends a comment every 15 seconds: so a client that has left is noticed, and a proxy does not
/// give up.
///
/// A stream holds a thread as long as it goes on; [the guide](crate::guide::threads) has figures and limits. A server that
/// stops waits for it, up to its deadline: whoever sends the events can hear of that by
/// [`&ShutdownHandle`](crate::ShutdownHandle), and end them. Browsers
/// keep no more than six connections to a site over HTTP/1.1: let a page have one stream. Through a proxy that speaks HTTP/2 it is
/// a hundred.
///
/// ```
/// use std::sync::mpsc;
/// use bottle_session::{App, EventStream, Request, ServerSentEvent, TestClient};
///
/// let mut app = App::new();
/// app.get("/events", |request: &Request| {
///     let last: u64 = request.header("last-event-id").and_then(|id| id.parse().ok()).unwrap_or(0);
///     let (sender, events) = mpsc::channel();
///     std::thread::spawn(move || {
///         for number in last + 1..=3 {
///             let event = ServerSentEvent::new(format!("tick {number}")).id(number.to_string());
///             // An error: the visitor has left.
///             if sender.send(event).is_err() {
///                 break;
///             }
///         }
///     });
///     EventStream::receive(events)
/// });
/// let answer = TestClient::new(app)?.get("/events").header("last-event-id", "2").send();
/// assert_eq!(answer.text(), "id: 3\ndata: tick 3\n\n");
/// # Ok::<(), bottle_session::Error>(())
/// ```
pub struct EventStream {
    events: Events,
}

/// Where events come from.
enum Events {
    Iterator(Box<dyn Iterator<Item = ServerSentEvent> + Send>),
    Channel { receiver: Receiver<ServerSentEvent>, keep_alive: Duration },
}

impl Events {
    /// Waits for the next one.
    fn next(&mut self) -> Option<ServerSentEvent> {
        match self {
            Events::Iterator(events) => events.next(),
            Events::Channel { receiver, keep_alive: Duration::ZERO } => receiver.recv().ok(),
            Events::Channel { receiver, keep_alive } => match receiver.recv_timeout(*keep_alive) {
                Ok(event) => Some(event),
                Err(RecvTimeoutError::Timeout) => Some(ServerSentEvent::comment("")),
                Err(RecvTimeoutError::Disconnected) => None,
            },
        }
    }
}

impl EventStream {
    /// The events of an iterator, which may wait for each of them. One that waits for long yields a
    /// [comment](ServerSentEvent::comment) now and then.
    pub fn new<I>(events: I) -> EventStream
    where
        I: IntoIterator<Item = ServerSentEvent, IntoIter: Send + 'static>,
    {
        EventStream { events: Events::Iterator(Box::new(events.into_iter())) }
    }

    /// The events that come through a channel, until its last sender is gone.
    pub fn receive(receiver: Receiver<ServerSentEvent>) -> EventStream {
        EventStream { events: Events::Channel { receiver, keep_alive: KEEP_ALIVE } }
    }

    /// After how long without an event of a channel a comment is sent: 15 seconds unless set. Less than the time that the
    /// proxy in front waits, which is 60 seconds for nginx. With zero there is none, and who has left is noticed by the next
    /// event alone.
    #[must_use]
    pub fn keep_alive(mut self, every: Duration) -> EventStream {
        if let Events::Channel { keep_alive, .. } = &mut self.events {
            *keep_alive = every;
        }
        self
    }
}

impl std::fmt::Debug for EventStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EventStream")
    }
}

impl IntoResponse for EventStream {
    fn into_response(self) -> Response {
        let reader = EventReader { events: self.events, rest: Bytes::new() };
        Response::stream(reader, None)
            .with_header(header::CONTENT_TYPE, "text/event-stream")
            .with_header(header::CACHE_CONTROL, "no-store")
            // nginx would gather a whole buffer before it passes on the first event.
            .with_header(HeaderName::from_static("x-accel-buffering"), "no")
    }
}

struct EventReader {
    events: Events,
    rest: Bytes,
}

impl Read for EventReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.rest.is_empty() {
            match self.events.next() {
                Some(event) => self.rest = Bytes::from(event.to_string()),
                None => return Ok(0),
            }
        }
        let count = self.rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.rest.split_to(count));
        Ok(count)
    }
}

#[test]
fn an_event_is_written_as_the_standard_has_it() {
    use ServerSentEvent as Event;
    for (event, text) in [
        (Event::new("one"), "data: one\n\n"),
        (Event::new(""), "data: \n\n"),
        (Event::new("a\r\nb\rc\n"), "data: a\ndata: b\ndata: c\ndata: \n\n"),
        (Event::new("x").id("a\nb").event("c\rd"), "event: c d\nid: a b\ndata: x\n\n"),
        (Event::new("x").retry(Duration::from_millis(2_500)), "retry: 2500\ndata: x\n\n"),
        (Event::comment(""), ": \n\n"),
        (Event::comment("a\ndata: b"), ": a\n: data: b\n\n"),
        (Event::json(&["é", "\n"]).unwrap(), "data: [\"é\",\"\\n\"]\n\n"),
    ] {
        assert_eq!(event.to_string(), text);
    }
}
