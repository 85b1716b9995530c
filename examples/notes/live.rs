//! How many notes there are, to all who look at the moment: server-sent events from a blocking handler.

use std::io::{Cursor, Read};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bottle_session::{App, HttpError, Provided, Response};

use super::data::{Data, User};

/// How often something is sent although nothing has happened: who has gone is found out so.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Where the news goes.
#[derive(Default)]
pub struct Live(Mutex<Vec<SyncSender<i64>>>);

impl Provided for Live {}

impl Live {
    /// Tells everybody. Who does not keep up misses this one, and who has gone is forgotten.
    pub fn tell(&self, count: i64) {
        let mut listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|listener| {
            !matches!(listener.try_send(count), Err(TrySendError::Disconnected(_)))
        });
    }

    fn listen(&self) -> Receiver<i64> {
        let (listener, news) = mpsc::sync_channel(8);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(listener);
        news
    }
}

/// The news of one listener, as text/event-stream. It holds a thread while it waits.
struct Events {
    news: Receiver<i64>,
    rest: Cursor<String>,
}

impl Read for Events {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            match self.rest.read(buffer)? {
                0 => {}
                count => return Ok(count),
            }
            self.rest = Cursor::new(match self.news.recv_timeout(HEARTBEAT) {
                Ok(count) => event(count),
                Err(RecvTimeoutError::Timeout) => ":\n\n".to_owned(),
                Err(RecvTimeoutError::Disconnected) => return Ok(0),
            });
        }
    }
}

fn event(count: i64) -> String {
    format!("data: {count}\n\n")
}

pub fn add_to(app: &mut App) {
    app.get("/live", |_user: &User, live: &Live, data: &Data| -> Result<Response, HttpError> {
        // Listen first: what comes meanwhile is told twice, and not missed.
        let news = live.listen();
        let rest = Cursor::new(event(data.count()?));
        Ok(Response::stream(Events { news, rest }, None)
            .with_header("content-type", "text/event-stream")
            .with_header("cache-control", "no-store")
            .with_header("x-accel-buffering", "no"))
    });
}
