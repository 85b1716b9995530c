//! The session as a handler has it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::context::SessionContext;
use super::id::SessionId;
use super::store::memory::integer;
use super::store::{
    Action, Changes, Fields, Lifetimes, Load, Record, Save, Saved, gone, not_a_number,
};
use crate::pipeline::plugin::Provided;
use crate::pipeline::service::LoggedBefore;
use crate::redis::copy;
use crate::{Error, ErrorKind, Result};

/// A visitor's session: text under keys, kept between requests.
///
/// What a handler sees is a local view, loaded before it ran. Reading never fails and never touches the
/// network; changes are saved when the handler has returned, and only what changed: two requests that set
/// different keys at the same time both survive. Where saving fails, the client gets an error and not the
/// handler's answer.
///
/// [`incr`](Session::incr), [`take`](Session::take), [`set_if_absent`](Session::set_if_absent) and
/// [`commit`](Session::commit) act in the store at once.
///
/// ```
/// use bottle_session::{App, Session, SessionPlugin, TestClient};
///
/// let mut app = App::new();
/// app.install(SessionPlugin::new().in_memory())?;
/// app.get("/", |session: &mut Session| match session.get("name") {
///     Some(name) => format!("Hello, {name}"),
///     None => "I don't recognize you.".to_owned(),
/// });
/// app.get("/set/<name>", |session: &mut Session, name: &str| session.set("name", name));
///
/// let client = TestClient::new(app)?;
/// assert_eq!(client.get("/").send().text(), "I don't recognize you.");
/// client.get("/set/Ada").send();
/// assert_eq!(client.get("/").send().text(), "Hello, Ada");
/// # Ok::<(), bottle_session::Error>(())
/// ```
pub struct Session {
    pub(super) context: Arc<SessionContext>,
    /// The id under which the store has the session; none while it is new.
    id: Option<SessionId>,
    pub(super) fields: Fields,
    pub(super) changes: Changes,
    renewed: bool,
    /// The id that the session will be saved under, where it had to be known before: it is new, or renewed.
    next_id: Option<SessionId>,
    /// Destroyed sessions that the store still has, or may have.
    ended: Vec<SessionId>,
    /// The id of a session that the store let go of, as far as is known here.
    detached: Option<SessionId>,
    remember: Option<Duration>,
    remember_changed: bool,
    created: Option<SystemTime>,
    /// The session is to be saved although nothing changes, so that its idle limit starts anew.
    stale: bool,
    loaded: bool,
    gone: bool,
    pending_cookie: PendingCookie,
    cookie: CookieDue,
    pub(super) refused: Option<Error>,
    /// A commit failed, for this reason: what it was to save is lost, whatever the handler made of its error.
    unsaved: Option<Error>,
    /// An operation in the store failed, for this reason, of which only the handler has heard.
    unheard: Option<Error>,
    pub(super) used: Cell<bool>,
}

impl Provided for Session {}

/// The id, and the idle limit of its own, that the store has given a session while its request was running: the
/// id that the browser has is dead, and without this one its visitor would be logged out. Kept outside of the
/// session, which a panic of the handler drops.
#[derive(Clone, Default)]
pub(crate) struct PendingCookie(Arc<Mutex<Option<NewId>>>);

type NewId = (SessionId, Option<Duration>);

impl PendingCookie {
    fn set(&self, pending_cookie: Option<NewId>) {
        *self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = pending_cookie;
    }

    pub(crate) fn get(&self) -> Option<NewId> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }
}

/// A cookie that is to live longer than browsers keep one is sent anew at least this often (RFC 6265bis section 5.5).
const RENEWED_EVERY: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// What the answer is to do about the session's cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum CookieDue {
    /// The browser has what it needs.
    #[default]
    Nothing,
    /// Send the id.
    Send,
    /// Make the browser forget it.
    Remove,
}

/// What is to be done to a session's record before its answer may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Untouched,
    /// Read, and its idle limit is to start anew.
    Read,
    Created,
    Changed,
    Renewed,
}

/// One save on its way to the store, on its own so that many sessions' saves go together.
pub(crate) struct Pending {
    id: SessionId,
    kind: Kind,
    changes: Changes,
    lifetimes: Lifetimes,
    remember: Option<Duration>,
    created: Option<SystemTime>,
}

enum Kind {
    Create,
    Update,
    /// Nothing changed: the idle limit starts anew, if the session is still there, and the cookie with it.
    Refresh,
    Rotate(SessionId),
    Destroy,
}

impl Pending {
    pub(crate) fn save(&self) -> Save<'_> {
        Save {
            id: &self.id,
            action: match &self.kind {
                Kind::Create => Action::Create,
                Kind::Update | Kind::Refresh => Action::Update,
                Kind::Rotate(to) => Action::Rotate { to },
                Kind::Destroy => Action::Destroy,
            },
            changes: &self.changes,
            lifetimes: self.lifetimes,
            remember: self.remember,
            created: self.created,
        }
    }
}

impl Session {
    pub(crate) fn new(context: Arc<SessionContext>) -> Session {
        Session {
            context,
            id: None,
            fields: Fields::new(),
            changes: Changes::default(),
            renewed: false,
            next_id: None,
            ended: Vec::new(),
            detached: None,
            remember: None,
            remember_changed: false,
            created: None,
            stale: false,
            loaded: false,
            gone: false,
            pending_cookie: PendingCookie::default(),
            cookie: CookieDue::Nothing,
            refused: None,
            unsaved: None,
            unheard: None,
            used: Cell::new(false),
        }
    }

    pub(crate) fn loaded(context: Arc<SessionContext>, id: SessionId, record: Record) -> Session {
        let idle = record.remember.unwrap_or(context.lifetimes.idle);
        let stale = record.saved_ago.is_some_and(|ago| ago >= (idle / 10).min(RENEWED_EVERY));
        let cookie = match record.saved_ago {
            // Without a time of the last save there is only bottle-session's own way: with every answer.
            None if context.cookie_has_max_age(record.remember) => CookieDue::Send,
            _ => CookieDue::Nothing,
        };
        Session {
            id: Some(id),
            fields: record.fields,
            remember: record.remember,
            created: record.created,
            loaded: true,
            stale,
            cookie,
            ..Session::new(context)
        }
    }

    // Reading.

    /// The text under this key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.used.set(true);
        self.fields.get(key)
    }

    /// The value under this key, parsed; `None` also where it is not such a value.
    pub fn parse<T: FromStr>(&self, key: &str) -> Option<T> {
        self.get(key)?.parse().ok()
    }

    /// The value under this key, read as JSON; `None` also where it is not such a value.
    pub fn get_json<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        serde_json::from_str(self.get(key)?).ok()
    }

    /// Whether the key is there.
    pub fn contains_key(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.used.set(true);
        self.fields.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keys and values, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.used.set(true);
        self.fields.iter()
    }

    /// The keys, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.iter().map(|(key, _)| key)
    }

    /// The values, sorted by key.
    pub fn values(&self) -> impl Iterator<Item = &str> {
        self.iter().map(|(_, value)| value)
    }

    /// Whether the request came without a session: none was stored when it arrived.
    pub fn is_new(&self) -> bool {
        self.used.set(true);
        !self.loaded
    }

    /// When the session was created, by the store's clock; `None` while it is new, and in a layout that
    /// does not say.
    pub fn created(&self) -> Option<SystemTime> {
        self.used.set(true);
        self.created
    }

    // Changing.

    /// Sets a value.
    ///
    /// One that cannot be stored (past the caps, or a key that starts with NUL) is refused: the session
    /// stays as it was, and the answer is a logged 500, for nothing is acknowledged that is not stored.
    /// [`try_set`](Session::try_set) leaves it to the handler.
    pub fn set(&mut self, key: impl Into<String>, value: impl ToString) {
        if let Err(error) = self.try_set(key, value) {
            self.refused.get_or_insert(error);
        }
    }

    /// Sets a value, or says why it cannot be stored: past the cap on the session's size or on the number
    /// of its keys, or a key that starts with NUL, which is kept for the store's own use.
    pub fn try_set(&mut self, key: impl Into<String>, value: impl ToString) -> Result<()> {
        let (key, value) = (key.into(), value.to_string());
        self.check(&key, &value)?;
        // The same value again changes nothing, and costs no round trip.
        if self.fields.get(&key) == Some(&*value) {
            return Ok(());
        }
        self.fields.insert(&key, &value);
        self.changes.fields.insert(key, Some(value));
        Ok(())
    }

    /// Sets a value to the JSON of anything that serde can serialize.
    pub fn set_json(&mut self, key: impl Into<String>, value: &impl Serialize) -> Result<()> {
        let key = key.into();
        let json = serde_json::to_string(value).map_err(|error| {
            let text = format!("session key {key:?}: the value cannot be JSON");
            Error::new(ErrorKind::Session, text).with_source(error)
        })?;
        self.try_set(key, json)
    }

    /// Removes a key and returns what was there.
    pub fn remove(&mut self, key: &str) -> Option<String> {
        self.used.set(true);
        let value = self.fields.remove(key)?;
        if self.id.is_some() && !self.changes.cleared {
            self.changes.fields.insert(key.to_owned(), None);
        } else {
            self.changes.fields.remove(key);
        }
        Some(value)
    }

    /// Removes all keys; the session stays, with its id.
    pub fn clear(&mut self) {
        self.fields.clear();
        self.changes = Changes { cleared: self.id.is_some(), fields: BTreeMap::new() };
    }

    /// Gives the session a new id when it is saved, and keeps its data: the old id is dead at once. To be
    /// done whenever somebody logs in or gains rights, against session fixation (OWASP Session Management
    /// Cheat Sheet, "Renew the Session ID After Any Privilege Level Change").
    ///
    /// Where the store does not say in time whether it has renewed the id, the answer is a 503 that leaves the
    /// cookie alone: the old id may be dead and the new one is in nobody's hands, so that the visitor may have
    /// to log in again. They may have to as well where another answer, which sends the old id anew because its
    /// request saved before, comes after this one's.
    pub fn regenerate(&mut self) {
        self.renewed = true;
    }

    /// Ends the session, in the store and in the browser. What is set afterwards goes into a new one.
    pub fn destroy(&mut self) {
        // Another request may have added to what was emptied here: then it is not over yet.
        self.ended.extend(self.detached.take());
        self.ended.extend(self.id.take());
        self.fields.clear();
        self.changes = Changes::default();
        self.renewed = false;
        self.next_id = None;
        self.remember = None;
        self.remember_changed = false;
        self.created = None;
        self.stale = false;
        self.gone = false;
        self.pending_cookie.set(None);
        self.cookie = if self.loaded { CookieDue::Remove } else { CookieDue::Nothing };
    }

    /// Gives this session an idle limit of its own, and its cookie the same lifetime ("remember me").
    ///
    /// In [`Layout::BottleSession`](crate::Layout::BottleSession), which has no place for it, this lasts
    /// only until the session is loaded again.
    ///
    /// A lifetime of zero is refused, as a value that cannot be stored is: [`destroy`](Session::destroy)
    /// ends a session.
    pub fn remember(&mut self, lifetime: Duration) {
        if lifetime.is_zero() {
            let text = "a session cannot be remembered for no time; destroy ends it";
            self.refused.get_or_insert_with(|| Error::new(ErrorKind::Session, text));
            return;
        }
        if self.remember != Some(lifetime) {
            self.remember = Some(lifetime);
            self.remember_changed = true;
        }
    }

    // In the store, at once.

    /// Saves now what has changed so far, instead of when the handler has returned.
    ///
    /// Kind [`Gone`](ErrorKind::Gone): the session was destroyed, renewed or expired since this request
    /// loaded it, and nothing was written.
    ///
    /// After an error of another kind the changes are lost. Whatever this request then does at once in the
    /// store is the same error, and so is its answer: none of it is acknowledged.
    ///
    /// Once it has committed a [new id](Session::regenerate), the answer carries that id, also where it becomes
    /// an error or the handler panics: the old one is dead.
    pub fn commit(&mut self) -> Result<()> {
        if let Some(error) = self.refused.take() {
            self.unsaved.get_or_insert_with(|| copy(&error));
            return Err(error);
        }
        if let Some(error) = self.unsaved() {
            return Err(error);
        }
        let context = self.context.clone();
        // What is only stale can wait for the end: another request may renew the id before.
        let stale = std::mem::take(&mut self.stale);
        let pending = self.pending()?;
        self.stale = stale && pending.is_empty();
        for pending in pending {
            let saved = context.store.save(&pending.save());
            if let Err(error) = self.settle(pending, saved) {
                self.unsaved.get_or_insert_with(|| copy(&error));
                return Err(error);
            }
        }
        match self.gone {
            true => Err(gone()),
            false => Ok(()),
        }
    }

    /// Adds to a number in the store and returns the sum; a missing key counts as 0. Changes made so far
    /// are saved first.
    pub fn incr(&mut self, key: &str, by: i64) -> Result<i64> {
        self.used.set(true);
        self.check(key, &i64::MIN.to_string())?;
        let context = self.context.clone();
        if !self.is_stored()? {
            // Nobody else knows a session that is not stored yet.
            let held = self.fields.get(key).map_or(Some(0), integer);
            let sum = held.and_then(|held| held.checked_add(by));
            let sum = sum.ok_or_else(|| not_a_number(key))?;
            self.try_set(key, sum)?;
            return self.commit().map(|()| sum);
        }
        let sum = self.at_once(|load| context.store.increment(load, key, by))?;
        self.fields.insert(key, &sum.to_string());
        Ok(sum)
    }

    /// Takes a value out of the store: of several requests that take it at the same time exactly one gets
    /// it. Changes made so far are saved first.
    pub fn take(&mut self, key: &str) -> Result<Option<String>> {
        self.used.set(true);
        if !self.is_stored()? {
            return Ok(self.remove(key));
        }
        let context = self.context.clone();
        let mut taken = self.at_once(|load| context.store.take(load, &[key]))?;
        self.fields.remove(key);
        self.detach_if_emptied();
        Ok(taken.pop().flatten())
    }

    /// Sets a value unless the store has one, and says whether it did: of several requests that try at
    /// the same time exactly one does. Changes made so far are saved first. Where another request was
    /// first, this one's view does not have its value.
    pub fn set_if_absent(&mut self, key: &str, value: impl ToString) -> Result<bool> {
        self.used.set(true);
        let value = value.to_string();
        self.check(key, &value)?;
        let context = self.context.clone();
        if !self.is_stored()? {
            let absent = !self.fields.contains_key(key);
            if absent {
                self.try_set(key, value)?;
            }
            return self.commit().map(|()| absent);
        }
        let set = self.at_once(|load| context.store.set_if_absent(load, key, &value))?;
        if set {
            self.fields.insert(key, &value);
        }
        Ok(set)
    }

    /// With its own idle limit, which not every layout has a place for.
    fn lifetimes(&self) -> Lifetimes {
        let mut lifetimes = self.context.lifetimes;
        lifetimes.idle = self.remember.unwrap_or(lifetimes.idle);
        lifetimes
    }

    /// Whether the store has the session, once it has the changes made so far: these may have emptied it.
    fn is_stored(&mut self) -> Result<bool> {
        if self.id.is_some() {
            self.commit()?;
        }
        Ok(self.id.is_some())
    }

    pub(super) fn at_once<T>(&mut self, act: impl FnOnce(&Load<'_>) -> Result<T>) -> Result<T> {
        self.commit()?;
        let id = self.id.as_ref().ok_or_else(gone)?;
        let done = act(&Load { id, lifetimes: self.lifetimes() });
        if let Err(error) = &done {
            match error.kind() {
                ErrorKind::Gone => self.lost(),
                // The caller's own mistake: a value that is no number.
                ErrorKind::Session => {}
                _ => self.unheard = Some(copy(error)),
            }
            self.context.emit_error(error);
        }
        done
    }

    /// The store has the session no more. The browser may have been told so already, or given a new id by
    /// another request: no cookie that was due is due any more.
    fn lost(&mut self) {
        self.gone = true;
        self.pending_cookie.set(None);
        self.cookie = CookieDue::Nothing;
    }

    /// The browser gets the cookie, and with that a fresh one.
    fn cookie_is_due(&mut self) {
        self.cookie = CookieDue::Send;
        self.stale = false;
    }

    /// Where a store lets go of a session with its last field, what is set afterwards goes into a new one:
    /// to save it under the old id would bring back what is gone.
    pub(super) fn detach_if_emptied(&mut self) {
        if self.fields.is_empty() && !self.context.store.keeps_empty() {
            self.detached = self.id.take();
            self.pending_cookie.set(None);
        }
    }

    fn check(&self, key: &str, value: &str) -> Result<()> {
        let caps = &self.context.caps;
        let refused = |why: String| {
            Err(Error::new(ErrorKind::Session, format!("session key {key:?}: {why}")))
        };
        if key.starts_with('\0') {
            return refused(
                "keys that start with NUL are the store's own; take another".to_owned(),
            );
        }
        let known = self.fields.get(key);
        if known.is_none() && self.fields.len() >= caps.fields {
            return refused(format!(
                "the session has {} keys already, which is the cap; remove some, or raise max_fields",
                self.fields.len()
            ));
        }
        let replaced = known.map_or(0, |value| key.len() + value.len());
        let size = self.fields.bytes() - replaced + key.len() + value.len();
        // Other requests may have set so much at the same time that it is past the caps: what makes it smaller is welcome.
        if size > caps.bytes && size > self.fields.bytes() {
            return refused(format!(
                "a value of {} bytes would make the session {size} bytes large, and {} are the cap; keep \
                 large things elsewhere and their key here, or raise max_bytes",
                value.len(),
                caps.bytes
            ));
        }
        Ok(())
    }

    // Saving; for the plugin.

    fn status(&self) -> Status {
        if self.gone {
            return Status::Untouched;
        }
        match (&self.id, self.changes.is_empty() && !self.remember_changed) {
            (Some(_), _) if self.renewed => Status::Renewed,
            (Some(_), true) if self.stale => Status::Read,
            (Some(_), true) | (None, true) => Status::Untouched,
            (Some(_), false) => Status::Changed,
            // "Remember nothing" is not worth a record.
            (None, false) if self.changes.is_empty() => Status::Untouched,
            (None, false) => Status::Created,
        }
    }

    /// What has to be saved, in this order. The session counts as unchanged from here on.
    pub(crate) fn pending(&mut self) -> Result<Vec<Pending>> {
        let (lifetimes, mut pending) = (self.lifetimes(), Vec::new());
        for id in std::mem::take(&mut self.ended) {
            pending.push(Pending {
                id,
                kind: Kind::Destroy,
                changes: Changes::default(),
                lifetimes,
                remember: None,
                created: None,
            });
        }
        let (id, kind) = match (self.status(), self.id.clone()) {
            (Status::Untouched, _) => return Ok(pending),
            (Status::Read, Some(id)) => (id, Kind::Refresh),
            (Status::Changed, Some(id)) => (id, Kind::Update),
            (Status::Renewed, Some(id)) => (id, Kind::Rotate(self.new_id()?)),
            (Status::Created | Status::Read | Status::Changed | Status::Renewed, _) => {
                (self.new_id()?, Kind::Create)
            }
        };
        let mut changes = std::mem::take(&mut self.changes);
        if matches!(kind, Kind::Create) {
            changes.cleared = false;
        }
        let remember = self.remember.filter(|_| self.remember_changed);
        self.remember_changed = false;
        self.renewed = false;
        let created = self.created;
        pending.push(Pending { id, kind, changes, lifetimes, remember, created });
        Ok(pending)
    }

    fn new_id(&mut self) -> Result<SessionId> {
        match (self.next_id.take(), &self.id) {
            (Some(id), _) => Ok(id),
            (None, Some(from)) => self.context.id_to_move_to(from),
            (None, None) => self.context.fresh_id(),
        }
    }

    /// The id under which the browser will have the session once this request is answered.
    pub(super) fn coming_id(&mut self) -> Result<SessionId> {
        if let (Some(id), false) = (&self.id, self.renewed) {
            return Ok(id.clone());
        }
        let id = self.new_id()?;
        Ok(self.next_id.insert(id).clone())
    }

    /// Takes note of how a save ended. The cookie is decided here, after the store has answered: an id
    /// that was never stored is never handed out.
    pub(crate) fn settle(&mut self, pending: Pending, saved: Result<Saved>) -> Result<()> {
        let saved = match (saved, &pending.kind) {
            (Ok(saved), _) => saved,
            (Err(error), kind) => {
                // What the browser holds then is not known to be right or wrong: leave it alone.
                self.cookie = CookieDue::Nothing;
                self.context.emit_error(&error);
                // Who only read has lost nothing: a store that refuses to write must not keep them out.
                return if matches!(kind, Kind::Refresh) { Ok(()) } else { Err(error) };
            }
        };
        match (saved, pending.kind) {
            (_, Kind::Destroy) => self.context.emit(super::Event::Destroyed),
            (Saved::Gone, Kind::Refresh) => self.cookie = CookieDue::Nothing,
            (Saved::Gone, _) => {
                self.lost();
                self.context.emit(super::Event::WriteLost);
            }
            (Saved::Stored, Kind::Create) => {
                self.id = Some(pending.id);
                self.cookie_is_due();
                self.context.emit(super::Event::Created);
            }
            (Saved::Stored, Kind::Rotate(to)) => {
                self.pending_cookie.set(Some((to.clone(), self.remember)));
                self.id = Some(to);
                self.cookie_is_due();
                self.context.emit(super::Event::Renewed);
                self.detach_if_emptied();
            }
            (Saved::Stored, Kind::Update | Kind::Refresh) => {
                self.stale = false;
                if self.context.cookie_has_max_age(self.remember) {
                    self.cookie = CookieDue::Send;
                }
                self.detach_if_emptied();
            }
        }
        Ok(())
    }

    /// A value that `set` refused and nobody has heard of yet.
    pub(crate) fn take_refused(&mut self) -> Option<Error> {
        self.refused.take().or_else(|| self.unsaved())
    }

    fn unsaved(&self) -> Option<Error> {
        let why = self.unsaved.as_ref()?;
        let text = "changes of the session could not be saved while the handler was running";
        let error = Error::new(why.kind(), format!("{text}: {why}"));
        // Of an error that was in the log before, the requests that it meets need not be as loud.
        Some(
            match std::error::Error::source(why).is_some_and(|source| source.is::<LoggedBefore>()) {
                true => error.with_source(LoggedBefore),
                false => error,
            },
        )
    }

    /// An error of an operation in the store that nobody but the handler has heard of.
    pub(crate) fn take_unheard(&mut self) -> Option<Error> {
        self.unheard.take()
    }

    pub(crate) fn cookie_due(&self) -> CookieDue {
        self.cookie
    }

    /// What the browser must be told whatever else becomes of the request.
    pub(crate) fn pending_cookie(&self) -> PendingCookie {
        self.pending_cookie.clone()
    }

    pub(crate) fn id(&self) -> Option<&SessionId> {
        self.id.as_ref()
    }

    pub(crate) fn own_lifetime(&self) -> Option<Duration> {
        self.remember
    }

    /// Whether the handler looked at the session, so that its answer depends on the cookie.
    pub(crate) fn was_used(&self) -> bool {
        self.used.get()
    }
}

/// Shows the keys; neither the id nor any value.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("fields", &self.fields)
            .field("new", &!self.loaded)
            .finish_non_exhaustive()
    }
}
