//! Flash messages: text that one request leaves for the next page its visitor sees.

use std::time::{SystemTime, UNIX_EPOCH};

use super::view::Session;
use crate::Result;

/// What the keys of flash messages start with. Behind it stand the time in microseconds, so that the
/// messages sort in their order, and a random part, so that two requests never write the same key.
const PREFIX: &str = "_flash.";

/// A message that a request left for a later one: see [`Session::flash`].
///
/// ```
/// use bottle_session::{App, Flash, Session, SessionPlugin, TestClient};
///
/// let mut app = App::new();
/// app.install(SessionPlugin::new().in_memory())?;
/// app.get("/save", |session: &mut Session| session.flash("info", "Saved."));
/// app.get("/", |session: &mut Session| -> bottle_session::Result<String> {
///     let flashes: Vec<Flash> = session.take_flashes()?;
///     Ok(flashes.iter().map(|flash| format!("{}: {}", flash.category, flash.text)).collect())
/// });
/// let browser = TestClient::new(app)?;
/// browser.get("/save").send();
/// assert_eq!(browser.get("/").send().text(), "info: Saved.");
/// assert_eq!(browser.get("/").send().text(), "");
/// # Ok::<(), bottle_session::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Flash {
    /// What sort of message it is, in the app's own words: `"error"`, `"info"`.
    pub category: String,
    /// What it says.
    pub text: String,
}

/// Flash messages.
impl Session {
    /// Leaves a message for the next page that [takes](Session::take_flashes) it.
    ///
    /// Each message is a key of its own, which starts with `_flash.`: messages of concurrent requests all
    /// arrive, they count towards the session's caps, and [`iter`](Session::iter), [`len`](Session::len)
    /// and [`clear`](Session::clear) see them as they see any other key. One that cannot be stored is
    /// refused as [`set`](Session::set) refuses it.
    ///
    /// ```
    /// use bottle_session::{App, Session, SessionPlugin, TestClient, redirect};
    ///
    /// let mut app = App::new();
    /// app.install(SessionPlugin::new().in_memory())?;
    /// app.post("/save", |session: &mut Session| {
    ///     session.flash("info", "Saved.");
    ///     redirect("/")
    /// });
    /// app.get("/", |session: &mut Session| -> bottle_session::Result<String> {
    ///     let flashes = session.take_flashes()?;
    ///     Ok(flashes.iter().map(|flash| format!("{}: {}", flash.category, flash.text)).collect())
    /// });
    ///
    /// let client = TestClient::new(app)?;
    /// client.post("/save").send();
    /// assert_eq!(client.get("/").send().text(), "info: Saved.");
    /// assert_eq!(client.get("/").send().text(), "");
    /// # Ok::<(), bottle_session::Error>(())
    /// ```
    pub fn flash(&mut self, category: impl Into<String>, text: impl ToString) {
        if let Err(error) = self.try_flash(category.into(), text.to_string()) {
            self.refuse(error);
        }
    }

    fn try_flash(&mut self, category: String, text: String) -> Result<()> {
        let value = serde_json::json!([category, text]);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        // Behind all that this request knows of, even where the clock was set back.
        let last = self
            .flash_keys()
            .next_back()
            .and_then(order)
            .map_or(0, |order| order.saturating_add(1));
        let order = u64::try_from(now).unwrap_or(u64::MAX).max(last);
        let unique = self.context.fresh_id()?.expose();
        self.try_set(format!("{PREFIX}{order:016x}.{}", &unique[..8]), value)
    }

    /// Takes the messages that were left for this visitor, this request's own included, in the order in
    /// which they were left.
    ///
    /// Each is shown exactly once: of several requests that take at the same time one gets it, for it is
    /// taken out of the store at once, after the changes made so far have been saved. This is a round trip
    /// only where messages from earlier requests are there. Those that come into the store while this
    /// request runs are for the next one.
    pub fn take_flashes(&mut self) -> Result<Vec<Flash>> {
        self.used.set(true);
        let (own, stored): (Vec<_>, Vec<_>) = (self.flash_keys().map(str::to_owned))
            .partition(|key| self.changes.fields.contains_key(key));
        let mut taken = Vec::new();
        if !stored.is_empty() {
            // Nobody else knows of this request's own: they need not make the way to the store and back.
            let kept: Vec<_> = own.iter().filter_map(|key| self.unset(key)).collect();
            let keys: Vec<_> = stored.iter().map(String::as_str).collect();
            let done = self.take_at_once(&keys);
            if done.is_ok() {
                // Before this request's own are back: the store does not have them.
                stored.iter().for_each(|key| drop(self.fields.remove(key)));
                self.detach_if_emptied();
            }
            for (key, value) in own.iter().zip(kept) {
                self.fields.insert(key, &value);
                self.changes.fields.insert(key.clone(), Some(value));
            }
            for (key, value) in stored.into_iter().zip(done?) {
                taken.extend(value.map(|value| (key, value)));
            }
        }
        for key in own {
            taken.extend(self.unset(&key).map(|value| (key, value)));
        }
        taken.sort();
        Ok(taken.into_iter().map(|(_, value)| Flash::read(value)).collect())
    }

    /// The messages that are there, in their order; nobody has asked for the session by looking at them.
    pub(crate) fn waiting_flashes(&self) -> Vec<Flash> {
        let waiting = self.fields.iter().filter(|(key, _)| is_flash(key));
        waiting.map(|(_, value)| Flash::read(value.to_owned())).collect()
    }

    fn flash_keys(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.fields.iter().map(|(key, _)| key).filter(|key| is_flash(key))
    }

    /// Undoes the setting of a key that no store has seen.
    fn unset(&mut self, key: &str) -> Option<String> {
        self.changes.fields.remove(key);
        self.fields.remove(key)
    }
}

impl Flash {
    /// A message as [`Session::flash`] leaves it.
    pub fn new(category: impl Into<String>, text: impl ToString) -> Flash {
        Flash { category: category.into(), text: text.to_string() }
    }

    fn read(value: String) -> Flash {
        let (category, text) = serde_json::from_str(&value)
            // Not ours: another program that shares the session left plain text.
            .unwrap_or_else(|_| ("message".to_owned(), value));
        Flash { category, text }
    }
}

pub(super) fn is_flash(key: &str) -> bool {
    key.starts_with(PREFIX)
}

fn order(key: &str) -> Option<u64> {
    let digits = key.strip_prefix(PREFIX)?.split('.').next()?;
    u64::from_str_radix(digits, 16).ok()
}
