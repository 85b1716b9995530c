//! A board on which all visitors see at once what one of them writes: server-sent events.
//!
//! ```text
//! cargo run --example events
//! ```
//!
//! Then open http://localhost:8888 in two windows.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bottle_session::{
    App, EventStream, Html, HttpError, Provided, Request, Result, ServerSentEvent, abort,
};

const PAGE: &str = r#"<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>Board</title>
<form><input name="text" autofocus required maxlength="200"> <button>Say it</button></form>
<ul></ul>
<script>
const form = document.querySelector("form");
// The browser asks again by itself, and says what it has seen last.
new EventSource("/events").addEventListener("note", event => {
    const item = document.createElement("li");
    item.textContent = event.data;
    document.querySelector("ul").prepend(item);
});
form.addEventListener("submit", event => {
    event.preventDefault();
    fetch("/notes", { method: "POST", body: new URLSearchParams(new FormData(form)) });
    form.reset();
});
</script>
"#;

/// How many notes a visitor who comes later still sees, and how many may wait for one who is slow.
const KEPT: usize = 100;

/// What was written, and who listens.
#[derive(Default)]
struct Board(Mutex<Notes>);

#[derive(Default)]
struct Notes {
    /// How many there were before those that are kept.
    forgotten: usize,
    kept: Vec<String>,
    listeners: Vec<SyncSender<ServerSentEvent>>,
}

impl Provided for Board {}

impl Board {
    fn write(&self, text: &str) {
        let mut notes = self.0.lock().unwrap();
        notes.kept.push(text.to_owned());
        let event = event(notes.forgotten + notes.kept.len(), text);
        // Who has left has no channel any more; who is too slow loses this one, and comes again for what was missed.
        notes.listeners.retain(|listener| listener.try_send(event.clone()).is_ok());
        if notes.kept.len() > KEPT {
            notes.kept.remove(0);
            notes.forgotten += 1;
        }
    }

    /// The notes behind the one of this number, and those to come.
    fn listen(&self, seen: usize) -> Receiver<ServerSentEvent> {
        let mut notes = self.0.lock().unwrap();
        let (listener, events) = sync_channel(2 * KEPT);
        let first = notes.forgotten + 1;
        for (number, text) in (first..).zip(&notes.kept).filter(|(number, _)| *number > seen) {
            let _ = listener.try_send(event(number, text));
        }
        notes.listeners.push(listener);
        events
    }
}

fn event(number: usize, text: &str) -> ServerSentEvent {
    ServerSentEvent::new(text).event("note").id(number.to_string())
}

/// The whole app.
pub fn app() -> App {
    let mut app = App::new();
    app.state(Board::default());
    app.get("/", || Html(PAGE));
    app.get("/events", |request: &Request, board: &Board| {
        let seen = request.header("last-event-id").and_then(|id| id.parse().ok()).unwrap_or(0);
        EventStream::receive(board.listen(seen))
    });
    app.post("/notes", |request: &Request, board: &Board| -> Result<(), HttpError> {
        let form = request.form()?;
        match form.get("text")?.map(str::trim) {
            Some(text) if !text.is_empty() && text.len() <= 800 => board.write(text),
            _ => return Err(abort(400, "A note has 1 to 800 bytes.")),
        }
        Ok(())
    });
    app
}

fn main() -> Result<()> {
    let address = std::env::var("LISTEN").unwrap_or("127.0.0.1:8888".to_owned());
    println!("Listening on http://{address}");
    app().run(&address)
}
