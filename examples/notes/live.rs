//! How many notes there are, to all who look at the moment: server-sent events from a blocking handler.

use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::sync::{Mutex, PoisonError};

use bottle_session::{App, EventStream, HttpError, Provided, ServerSentEvent};

use super::data::{Data, User};

/// Where the news goes.
#[derive(Default)]
pub struct Live(Mutex<Vec<SyncSender<ServerSentEvent>>>);

impl Provided for Live {}

impl Live {
    /// Tells everybody. Who does not keep up misses this one, and who has gone is forgotten.
    pub fn tell(&self, count: i64) {
        let mut listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|listener| {
            !matches!(listener.try_send(event(count)), Err(TrySendError::Disconnected(_)))
        });
    }

    fn listen(&self) -> (SyncSender<ServerSentEvent>, Receiver<ServerSentEvent>) {
        let (listener, news) = mpsc::sync_channel(8);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(listener.clone());
        (listener, news)
    }
}

fn event(count: i64) -> ServerSentEvent {
    ServerSentEvent::new(count.to_string())
}

pub fn add_to(app: &mut App) {
    app.get("/live", |_user: &User, live: &Live, data: &Data| -> Result<EventStream, HttpError> {
        // Listen first: what comes meanwhile is told twice, and not missed.
        let (listener, news) = live.listen();
        let _ = listener.try_send(event(data.count()?));
        Ok(EventStream::receive(news))
    });
}
