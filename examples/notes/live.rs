//! How many notes there are, to all who look at the moment: server-sent events from a blocking handler.

use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bottle_session::{App, EventStream, HttpError, Provided, ServerSentEvent};

use super::data::{Data, User};

/// How many streams a user has at most. A browser opens no more than six connections to a site over HTTP/1.1, and pages
/// need some; a user of several browsers still holds no more than so many threads.
const MOST: usize = 4;

/// Where the news goes, the oldest stream first.
#[derive(Default)]
pub struct Live(Mutex<Vec<Listener>>);

impl Provided for Live {}

struct Listener {
    user: String,
    sender: SyncSender<ServerSentEvent>,
}

impl Live {
    fn listeners(&self) -> MutexGuard<'_, Vec<Listener>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells everybody. Who does not keep up misses this one, and who has gone is forgotten.
    pub fn tell(&self, count: i64) {
        self.listeners().retain(|listener| {
            !matches!(listener.sender.try_send(event(count)), Err(TrySendError::Disconnected(_)))
        });
    }

    /// A stream that begins with this count. Where the user has as many as there may be, the oldest one ends.
    fn listen(&self, user: &str, count: i64) -> Receiver<ServerSentEvent> {
        let (sender, news) = mpsc::sync_channel(8);
        let _ = sender.try_send(event(count));
        let mut listeners = self.listeners();
        let own = |listener: &Listener| listener.user == user;
        if listeners.iter().filter(|listener| own(listener)).count() >= MOST
            && let Some(oldest) = listeners.iter().position(own)
        {
            let oldest = listeners.remove(oldest);
            // Its page must not ask again.
            let _ = oldest.sender.try_send(ServerSentEvent::new("").event("end"));
        }
        listeners.push(Listener { user: user.to_owned(), sender });
        news
    }
}

fn event(count: i64) -> ServerSentEvent {
    ServerSentEvent::new(count.to_string())
}

pub fn add_to(app: &mut App) {
    app.get("/live", |user: &User, live: &Live, data: &Data| -> Result<EventStream, HttpError> {
        Ok(EventStream::receive(live.listen(&user.name, data.count()?)))
    });
}
