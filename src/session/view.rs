//! The session as a handler has it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::HeaderValue;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::context::SessionContext;
use super::id::SessionId;
use super::reserved::{ReservedFields, is_reserved};
use super::saving::{CookieAction, PendingCookie, PlannedSave};
use super::sealing::Sealing;
use super::state::{
    DestroyState, Failure, GraceId, IdChange, IncomingId, LoginState, PreviousIdGrace, Renewal,
    SessionState,
};
use super::store::{Changes, Fields, Lifetimes, Record, Remember};
use crate::message::request::Scheme;
use crate::pipeline::plugin::Provided;
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
    pub(super) state: SessionState,
    pub(super) fields: Fields,
    pub(super) changes: Changes,
    pub(super) remember: Remember,
    pub(super) login: LoginState,
    pub(super) renewal: Renewal,
    /// Destroyed sessions that the store still has, or may have.
    /// With the users who were logged in in them.
    pub(super) ended: Vec<(SessionId, Option<String>)>,
    /// The id of a session that the store let go of with its last field, as far as is known here. What is set
    /// afterwards goes into a new one: to save it under this id would bring back what is gone.
    pub(super) emptied: Option<SessionId>,
    pub(super) created: Option<SystemTime>,
    pub(super) reserved: ReservedFields,
    pub(super) sealing: Sealing,
    /// The id that the request came with, where that is one in its grace period.
    pub(super) grace_id: Option<GraceId>,
    /// The store has said during this request that the session has the id that it has now.
    pub(super) is_proven: bool,
    pub(super) previous_id_grace: PreviousIdGrace,
    pub(super) destroy_state: DestroyState,
    /// Something was not saved yet, as it depends on what becomes of what was.
    pub(super) has_deferred_saves: bool,
    /// What is to be saved, where that was found out before it could be.
    pub(super) planned: Option<Result<Vec<PlannedSave>>>,
    /// How many rotations by others this request has followed.
    pub(super) steps: usize,
    pub(super) incoming_id: IncomingId,
    pub(super) pending_cookie: PendingCookie,
    pub(super) cookie: CookieAction,
    pub(super) failure: Option<Failure>,
    /// An operation in the store failed, for this reason, of which only the handler has heard.
    pub(super) unreported: Option<Error>,
    pub(super) used: Cell<bool>,
    pub(super) visitor: Visitor,
}

/// Whose request it is: what a login keeps of it.
#[derive(Clone, Debug)]
pub(crate) struct Visitor {
    pub(crate) agent: Option<HeaderValue>,
    pub(crate) address: Option<IpAddr>,
    pub(crate) scheme: Scheme,
}

impl Default for Visitor {
    fn default() -> Visitor {
        Visitor { agent: None, address: None, scheme: Scheme::Http }
    }
}

impl Provided for Session {}

/// A cookie that is to live longer than browsers keep one is sent anew at least this often (RFC 6265bis section 5.5).
const RENEWED_EVERY: Duration = Duration::from_secs(30 * 24 * 60 * 60);

impl Session {
    pub(crate) fn new(context: Arc<SessionContext>) -> Session {
        Session {
            context,
            state: SessionState::new(),
            fields: Fields::new(),
            changes: Changes::default(),
            remember: Remember::Same(None),
            login: LoginState::Same(None),
            renewal: Renewal::Due,
            ended: Vec::new(),
            emptied: None,
            created: None,
            reserved: ReservedFields::default(),
            sealing: Sealing::default(),
            grace_id: None,
            is_proven: false,
            previous_id_grace: PreviousIdGrace::Unchanged,
            destroy_state: DestroyState::None,
            has_deferred_saves: false,
            planned: None,
            steps: 0,
            incoming_id: IncomingId::Nothing,
            pending_cookie: PendingCookie::default(),
            cookie: CookieAction::Nothing,
            failure: None,
            unreported: None,
            used: Cell::new(false),
            visitor: Visitor::default(),
        }
    }

    /// A new session, for a request that came with an id that the store does not know.
    pub(crate) fn of_unknown_id(context: Arc<SessionContext>) -> Session {
        Session { incoming_id: IncomingId::UnknownId, ..Session::new(context) }
    }

    /// What is left of a session for a request that came with its id a moment after it was ended or renewed.
    pub(crate) fn ended(context: Arc<SessionContext>, id: SessionId) -> Session {
        Session {
            state: SessionState::Gone(id),
            incoming_id: IncomingId::EndedId,
            ..Session::new(context)
        }
    }

    /// The session as that of this visitor's request.
    pub(crate) fn of(mut self, visitor: Visitor) -> Session {
        self.visitor = visitor;
        self
    }

    /// The session of this record. `grace_id` is the id in its grace period that led to it, if one did. The error is
    /// [that of a sealed record](Sealing::open).
    pub(super) fn loaded(
        context: Arc<SessionContext>,
        id: SessionId,
        grace_id: Option<GraceId>,
        mut record: Record,
    ) -> Result<Session> {
        let mut reserved = ReservedFields::out_of(&mut record.fields);
        let sealing = Sealing::open(&context, &id, &mut reserved, &mut record.fields)?;
        let idle = record.remember.unwrap_or(context.lifetimes.idle);
        let renewal = match record.renewed_ago {
            None => Renewal::EachLoad,
            Some(ago) if ago >= (idle / 10).min(RENEWED_EVERY) => Renewal::Due,
            Some(ago) => Renewal::Was { ago, at: Instant::now() },
        };
        let cookie = match renewal {
            Renewal::EachLoad if context.cookie_has_max_age(record.remember) => CookieAction::Send,
            _ if grace_id.as_ref().is_some_and(|grace_id| grace_id.is_open) => CookieAction::Send,
            _ => CookieAction::Nothing,
        };
        Ok(Session {
            state: SessionState::stored(id),
            fields: record.fields,
            remember: Remember::Same(record.remember),
            login: LoginState::Same(record.login),
            renewal,
            created: record.created,
            reserved,
            sealing,
            grace_id,
            incoming_id: IncomingId::Session,
            cookie,
            ..Session::new(context)
        })
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
        self.incoming_id != IncomingId::Session
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
    /// One that cannot be stored (past the caps, or a key that starts with NUL or U+0001) is refused: the session
    /// stays as it was, and the answer is a logged 500, for nothing is acknowledged that is not stored.
    /// [`try_set`](Session::try_set) leaves it to the handler.
    pub fn set(&mut self, key: impl Into<String>, value: impl ToString) {
        if let Err(error) = self.try_set(key, value) {
            self.refuse(error);
        }
    }

    /// Sets a value, or says why it cannot be stored: past the cap on the session's size or on the number
    /// of its keys, or a key that starts with NUL or U+0001, which are kept for the store's and the plugin's own use.
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
        if self.id().is_some() && !self.changes.cleared {
            self.changes.fields.insert(key.to_owned(), None);
        } else {
            self.changes.fields.remove(key);
        }
        Some(value)
    }

    /// Removes all keys; the session stays, with its id.
    pub fn clear(&mut self) {
        self.fields.clear();
        self.changes = Changes { cleared: self.id().is_some(), fields: BTreeMap::new() };
    }

    /// Gives the session a new id when it is saved, and keeps its data: the old id is dead at once. To be
    /// done whenever somebody gains rights, as [`log_in`](Session::log_in) does by itself, against session fixation (OWASP Session Management
    /// Cheat Sheet, "Renew the Session ID After Any Privilege Level Change").
    ///
    /// Where the store does not say in time whether it has renewed the id, the answer is a 503 that leaves the
    /// cookie alone: the old id may be dead and the new one is in nobody's hands, so that the visitor may have
    /// to log in again. They may have to as well where another answer, which sends the old id anew because its
    /// request saved before, comes after this one's.
    pub fn regenerate(&mut self) {
        if let SessionState::Stored { next, .. } = &mut self.state
            && matches!(next, IdChange::None)
        {
            *next = IdChange::New(None);
        }
    }

    /// Ends the session, in the store and in the browser. What is set afterwards goes into a new one.
    pub fn destroy(&mut self) {
        // Another request may have added to what was emptied here: then it is not over yet.
        self.ended.extend(self.emptied.take().map(|id| (id, None)));
        let user = self.logged_in().map(|login| login.user.clone());
        if let SessionState::Stored { id, .. } | SessionState::Gone(id) =
            std::mem::replace(&mut self.state, SessionState::new())
        {
            self.ended.push((id, user));
            if matches!(self.incoming_id, IncomingId::Session | IncomingId::EndedId) {
                self.destroy_state = DestroyState::Requested;
            }
        }
        // Whoever has this one has the session.
        self.ended.extend(self.grace_id.take().map(|grace_id| (grace_id.id, None)));
        self.reserved = ReservedFields::default();
        self.fields.clear();
        self.changes = Changes::default();
        self.remember = Remember::Same(None);
        self.login = LoginState::Same(None);
        self.renewal = Renewal::Due;
        self.created = None;
        self.pending_cookie.set(None);
        // Of one that is known the store says whether it ended.
        self.cookie = match self.incoming_id {
            IncomingId::UnknownId => CookieAction::Remove,
            _ => CookieAction::Nothing,
        };
    }

    /// Gives this session an idle limit of its own, and its cookie the same lifetime ("remember me"). `None` takes that
    /// back: from then on it has the plugin's [`cookie_lifetime`](crate::SessionPlugin::cookie_lifetime).
    ///
    /// In [`Layout::BottleSession`](crate::Layout::BottleSession), which has no place for it, this lasts
    /// only until the session is loaded again.
    ///
    /// A lifetime of zero is refused, as a value that cannot be stored is: [`destroy`](Session::destroy)
    /// ends a session.
    pub fn remember(&mut self, lifetime: impl Into<Option<Duration>>) {
        let lifetime = lifetime.into();
        if lifetime.is_some_and(|lifetime| lifetime.is_zero()) {
            let text = "a session cannot be remembered for no time; destroy ends it";
            return self.refuse(Error::new(ErrorKind::Session, text));
        }
        if lifetime != self.own_lifetime() {
            self.remember = Remember::To(lifetime);
        }
    }

    pub(super) fn check(&self, key: &str, value: &str) -> Result<()> {
        let caps = &self.context.caps;
        let refused = |why: String| {
            Err(Error::new(ErrorKind::Session, format!("session key {key:?}: {why}")))
        };
        if key.starts_with('\0') {
            return refused(
                "keys that start with NUL are the store's own; take another".to_owned(),
            );
        }
        if is_reserved(key) {
            return refused(
                "keys that start with U+0001 are the plugin's own; take another".to_owned(),
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

    // For the plugin.

    /// With its own idle limit, which not every layout has a place for.
    pub(super) fn lifetimes(&self) -> Lifetimes {
        let mut lifetimes = self.context.lifetimes;
        lifetimes.idle = self.own_lifetime().unwrap_or(lifetimes.idle);
        lifetimes
    }

    pub(crate) fn id(&self) -> Option<&SessionId> {
        self.state.id()
    }

    pub(crate) fn own_lifetime(&self) -> Option<Duration> {
        self.remember.limit()
    }

    /// Whether the handler looked at the session, so that its answer depends on the cookie.
    pub(crate) fn was_used(&self) -> bool {
        self.used.get()
    }

    /// Whether it has nothing but what any visitor gets: a token, or messages for the next page.
    pub(crate) fn holds_nothing_private(&self) -> bool {
        self.logged_in().is_none() && hold_nothing_private(&self.fields)
    }

    /// Refuses what the handler did, for this reason, unless there is one already.
    pub(super) fn refuse(&mut self, error: Error) {
        self.failure.get_or_insert(Failure::Refused(error));
    }
}

/// Shows the keys; neither the id nor any value.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("fields", &self.fields)
            .field("new", &(self.incoming_id != IncomingId::Session))
            .finish_non_exhaustive()
    }
}

/// Whether these say no more than that their session has a token, or are flashes.
pub(super) fn hold_nothing_private(fields: &Fields) -> bool {
    let is_incidental =
        |key| key == super::csrf::MARKER || super::flash::is_flash(key) || is_reserved(key);
    fields.iter().all(|(key, _)| is_incidental(key))
}
