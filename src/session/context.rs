//! The context that all sessions of a plugin share: store, cookie, ids, limits, observer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::header::{self, HeaderValue};
use smallvec::SmallVec;

use super::cookie::CookieSettings;
use super::events::{Counters, Event, Events};
use super::id::{IdFormat, IdGenerator, SessionId};
use super::rotation::{MAX_STEPS, next_id};
use super::saving::{CookieAction, PendingCookie, PlannedSave, SaveTime};
use super::state::GraceId;
use super::store::save::TOMBSTONE_FOR;
use super::store::{Caps, Lifetimes, Load, Loaded, Record, Saved, SessionStore};
use super::view::{Session, Visitor};
use crate::logging::{OneLine, ThrottledLog};
use crate::message::address::is_this_machine;
use crate::message::cookies::Cookie;
use crate::message::http_error::HttpError;
use crate::message::into_response::IntoResponse;
use crate::message::request::{Request, Scheme};
use crate::message::response_head::ResponseHead;
use crate::pipeline::batch::Entry;
use crate::{Error, ErrorKind, Result};

/// How many cookies of the session's name are looked up, all in the same round trip.
const COOKIES_TRIED: usize = 4;

/// The ids that a request sends: seldom more than one.
pub(crate) type SentIds = SmallVec<[SessionId; 1]>;

/// Store, cookie, ids, limits and observer of one session plugin.
pub(crate) struct SessionContext {
    pub(crate) store: Arc<dyn SessionStore>,
    pub(crate) format: IdFormat,
    /// Ids of a layout that the store takes over from.
    pub(crate) former_format: Option<IdFormat>,
    pub(crate) cookie: CookieSettings,
    pub(crate) lifetimes: Lifetimes,
    pub(crate) caps: Caps,
    /// Whether the cookie outlives the browser: `cookie_lifetime` is not `None`.
    pub(crate) persistent: bool,
    pub(crate) generator: IdGenerator,
    pub(crate) events: Box<dyn Events>,
    pub(crate) counters: Counters,
    /// The idle limit of a session in which nobody is logged in.
    pub(crate) anonymous: Option<Duration>,
    /// In how many sessions a user may be logged in.
    pub(crate) most_sessions: Option<usize>,
    /// How long a session has an id at most before it is rotated.
    pub(crate) renew_every: Option<Duration>,
    /// Whether records are made with sealed values.
    pub(crate) seals: bool,
    /// Whether logins keep where they came from.
    pub(crate) keeps_addresses: bool,
    /// Failures of which only a handler has heard, that went on.
    pub(crate) unreported: ThrottledLog,
    /// Whether it was logged that somebody has logged in with a cookie that others can read.
    pub(crate) open_login_logged: AtomicBool,
    /// Whether it was logged that browsers drop the cookie.
    pub(crate) lost_cookie_logged: AtomicBool,
}

impl SessionContext {
    pub(crate) fn fresh_id(&self) -> Result<SessionId> {
        self.generator.next(self.format)
    }

    /// An id that the session can move to in one step.
    pub(crate) fn id_to_move_to(&self, from: &SessionId) -> Result<SessionId> {
        // In a cluster one in 256 will do, or one in 16384; it would take a broken store to need so many.
        for _ in 0..1_000_000 {
            let id = self.fresh_id()?;
            if self.store.can_move(from, &id) {
                return Ok(id);
            }
        }
        Err(Error::new(ErrorKind::Session, "the session store lets the session move to no new id"))
    }

    pub(crate) fn emit(&self, event: Event<'_>) {
        self.counters.count(&event);
        // Who looks on decides nothing: a panic here would keep a new id from its browser, and fail the others
        // of the batch.
        if catch_unwind(AssertUnwindSafe(|| self.events.event(event))).is_err() {
            log::error!("the observer of sessions panicked at {event:?}");
        }
    }

    /// Emits the event of an error of the store.
    pub(crate) fn emit_error(&self, error: &Error) {
        self.emit(match error.kind() {
            ErrorKind::Desync => Event::Desync,
            ErrorKind::Gone => Event::WriteLost,
            // The caller's own mistake: a value that is no number.
            ErrorKind::Session => return,
            _ => Event::StoreError(error),
        });
    }

    /// Whether the cookie of a session with this own lifetime has a `Max-Age`.
    pub(crate) fn cookie_has_max_age(&self, own_lifetime: Option<Duration>) -> bool {
        self.persistent || own_lifetime.is_some() && own_lifetime != self.anonymous
    }

    /// Looks at the cookie that somebody has logged in with.
    pub(super) fn logged_in(&self, visitor: &Visitor) {
        let is_local = visitor.address.is_none_or(|address| address.to_canonical().is_loopback());
        let is_secure = self.cookie.secure.unwrap_or(visitor.scheme == Scheme::Https);
        if self.cookie.http_only || is_secure || is_local {
            return;
        }
        if !self.open_login_logged.swap(true, Ordering::Relaxed) {
            log::warn!(
                "a user has logged in with session cookie {}: scripts can read it, and whoever is on the way; set \
                 cookie_httponly(true) and cookie_secure(true), or hardened(), and serve https",
                self.cookie
            );
        }
    }

    /// Looks whether a browser keeps the cookie that this request's answer sends (RFC 6265bis section 5.7, step 8): a Secure
    /// one over plain http only for this machine.
    fn is_kept(&self, request: &Request) {
        let is_lost = self.cookie.is_secure()
            && request.scheme() == Scheme::Http
            && request.host().is_some_and(|host| !is_this_machine(host));
        if is_lost && !self.lost_cookie_logged.swap(true, Ordering::Relaxed) {
            let host = request.host().unwrap_or_default();
            log::warn!(
                "session cookie {} is Secure, and a request for {host:?} came over plain http, where browsers drop it: each \
                 of their requests gets a new session; serve https, have the proxy in front say that it does \
                 (trusted_proxies, X-Forwarded-Proto), or leave cookie_secure unset, which follows the request",
                self.cookie
            );
        }
    }

    /// The ids in the request's cookies, as far as they could be ids. A browser that has cookies of this name for
    /// several paths or domains sends all of them.
    pub(crate) fn sent_ids(&self, request: &Request) -> SentIds {
        let (mut ids, mut sent) = (SentIds::new(), false);
        for value in request.cookies().raw(&self.cookie.name) {
            sent = true;
            let former = || SessionId::parse(value, self.former_format?);
            let id = SessionId::parse(value, self.format).or_else(former);
            match id.filter(|id| !ids.contains(id)) {
                Some(id) if ids.len() < COOKIES_TRIED => ids.push(id),
                _ => {}
            }
        }
        if sent && ids.is_empty() {
            self.emit(Event::MalformedId);
        }
        ids
    }

    pub(crate) fn loads<'a>(
        &self,
        ids: impl IntoIterator<Item = &'a SessionId>,
    ) -> impl Iterator<Item = Load<'a>> {
        let lifetimes = self.lifetimes;
        ids.into_iter().map(move |id| Load { id, lifetimes })
    }

    /// What the store has under this id; waits for it.
    pub(crate) fn load(&self, id: &SessionId) -> Result<Loaded> {
        self.store.load(&Load { id, lifetimes: self.lifetimes })
    }

    /// Gives a request its session: the first of these ids that the store answered is one, or a new one. Where that is an id
    /// in its grace period, it comes back instead: what the store has under the [next](Successor::id) one is for
    /// [`provide_successor`](SessionContext::provide_successor).
    pub(crate) fn provide(
        self: &Arc<SessionContext>,
        entry: &mut Entry<'_>,
        ids: SentIds,
        answers: impl IntoIterator<Item = Result<Loaded>>,
    ) -> Option<Successor> {
        let was_sent = !ids.is_empty();
        match first_found(ids, answers) {
            Ok(Found::Session(id, record)) => self.provide_loaded(entry, id, None, record),
            Ok(Found::InGrace(successor)) => return Some(successor),
            Ok(Found::Ended(id)) => self.provide_ended(entry, id),
            Ok(Found::PastGrace(id, since)) => self.provide_past_grace(entry, id, since),
            // Never adopted: a session made now gets an id of its own.
            Ok(Found::Nothing) if was_sent => self.provide_unknown(entry, Event::UnknownId),
            Ok(Found::Nothing) => {
                put(entry, Session::new(self.clone()));
            }
            Err(error) => self.refuse(entry, error),
        }
        None
    }

    /// Gives a request the session that has this id, by what the store has under it. Comes back where that has been rotated, too.
    pub(crate) fn provide_successor(
        self: &Arc<SessionContext>,
        entry: &mut Entry<'_>,
        mut successor: Successor,
        found: Result<Loaded>,
    ) -> Option<Successor> {
        let found = match found {
            Ok(Loaded::Session(record)) => {
                self.provide_loaded(entry, successor.id, Some(successor.grace_id), record);
                return None;
            }
            Ok(found) => found,
            Err(error) => {
                self.refuse(entry, error);
                return None;
            }
        };
        if let Loaded::InGrace(left) | Loaded::GraceEnding(left) = &found
            && successor.steps < MAX_STEPS
            && let Some(next) = next_id(&successor.id, left)
        {
            (successor.id, successor.steps) = (next, successor.steps + 1);
            return Some(successor);
        }
        match (successor.other, found) {
            (Some((id, record)), _) => self.provide_loaded(entry, id, None, record),
            (None, Loaded::Unknown) => self.provide_unknown(entry, Event::UnknownId),
            (None, Loaded::PastGrace { since, .. }) => {
                self.provide_past_grace(entry, successor.grace_id.id, since);
            }
            (None, _) => self.provide_ended(entry, successor.grace_id.id),
        }
        None
    }

    /// A request that was on its way for long has no session, and makes none in the place of the one that its browser has by
    /// now; one that comes later is a stranger's.
    fn provide_past_grace(
        self: &Arc<SessionContext>,
        entry: &mut Entry<'_>,
        id: SessionId,
        since: Duration,
    ) {
        match since < TOMBSTONE_FOR {
            true => self.provide_dead(entry, id, Event::IdPastGrace),
            false => self.provide_unknown(entry, Event::IdPastGrace),
        }
    }

    fn provide_unknown(self: &Arc<SessionContext>, entry: &mut Entry<'_>, event: Event<'_>) {
        self.emit(event);
        put(entry, Session::of_unknown_id(self.clone()));
    }

    fn provide_loaded(
        self: &Arc<SessionContext>,
        entry: &mut Entry<'_>,
        id: SessionId,
        grace_id: Option<GraceId>,
        record: Record,
    ) {
        match Session::loaded(self.clone(), id, grace_id, record) {
            Ok(session) => {
                self.emit(Event::Loaded);
                put(entry, session);
            }
            // A damaged record is no session.
            Err(error) if error.kind() == ErrorKind::Session => {
                self.emit(Event::Damaged(&error));
                put(entry, Session::of_unknown_id(self.clone()));
            }
            Err(error) => self.refuse(entry, error),
        }
    }

    fn provide_ended(self: &Arc<SessionContext>, entry: &mut Entry<'_>, id: SessionId) {
        self.provide_dead(entry, id, Event::UnknownId);
    }

    fn provide_dead(
        self: &Arc<SessionContext>,
        entry: &mut Entry<'_>,
        id: SessionId,
        event: Event<'_>,
    ) {
        self.emit(event);
        put(entry, Session::ended(self.clone(), id));
    }

    /// Refuses a request whose session the store cannot load. An empty session in its place would log the visitor out.
    fn refuse(&self, entry: &mut Entry<'_>, error: Error) {
        self.emit_error(&error);
        // What is answered without it is for nobody to keep: it is only so while this lasts.
        keep_from_caches(entry.head_mut());
        entry.refuse(HttpError::from(error).into_response());
    }

    /// What has to be saved before the answer may leave.
    pub(crate) fn plan(&self, entry: &mut Entry<'_>) -> Result<Vec<PlannedSave>> {
        match entry.get_mut::<Session>() {
            // Half of what a handler did is not what it did: nothing is saved where a value was refused.
            Some(session) => match (session.planned.take(), session.take_failure()) {
                (Some(planned), _) => planned,
                (None, Some(error)) => Err(error),
                (None, None) => session.plan_saves(SaveTime::End),
            },
            None => Ok(Vec::new()),
        }
    }

    /// The same for a thread that goes on with this request; whether there is anything to save.
    pub(crate) fn plan_ahead(&self, entry: &mut Entry<'_>) -> bool {
        let planned = self.plan(entry);
        let saves = planned.as_ref().is_ok_and(|planned| !planned.is_empty());
        if let Some(session) = entry.get_mut::<Session>() {
            session.planned = Some(planned);
        }
        saves
    }

    /// Takes note of how the saves ended, and completes the answer, unless there is more to do first.
    pub(crate) fn conclude_saves(
        &self,
        entry: &mut Entry<'_>,
        planned: Vec<PlannedSave>,
        answers: impl IntoIterator<Item = Result<Saved>>,
    ) -> Option<FollowUp> {
        let mut answers = answers.into_iter();
        let (mut outcome, mut lost) = (Ok(()), None);
        if let Some(session) = entry.get_mut::<Session>() {
            for planned in planned {
                let saved = answers.next().unwrap_or_else(|| Err(missing_answer()));
                match session.conclude_save(planned, saved) {
                    Ok(None) => {}
                    // The one that the session has by now comes first.
                    Ok(again) => lost = lost.or(again),
                    Err(error) => outcome = outcome.and(Err(error)),
                }
            }
        }
        match (outcome, lost) {
            (Ok(()), Some(planned)) => Some(FollowUp::Resume(LostSave(Box::new(planned)))),
            (outcome, _) => self.go_on(entry, outcome),
        }
    }

    /// What the session has held back until now; the answer is completed where that is nothing.
    fn go_on(&self, entry: &mut Entry<'_>, outcome: Result<()>) -> Option<FollowUp> {
        let held_back = match (&outcome, entry.get_mut::<Session>()) {
            (Ok(()), Some(session)) if session.has_deferred_saves => {
                session.plan_saves(SaveTime::End)
            }
            _ => Ok(Vec::new()),
        };
        match held_back {
            Ok(planned) if planned.is_empty() => self.finish(entry, outcome),
            Ok(planned) => return Some(FollowUp::Save(planned)),
            Err(error) => self.finish(entry, Err(error)),
        }
        None
    }

    /// What is to be done instead, by what the store has under the id that a save came back for. The answer is completed where
    /// that is nothing.
    pub(crate) fn resume(
        &self,
        entry: &mut Entry<'_>,
        LostSave(planned): LostSave,
        found: Result<Loaded>,
    ) -> Option<FollowUp> {
        let resumed = match entry.get_mut::<Session>() {
            Some(session) => session.resume(*planned, found),
            None => Ok(None),
        };
        match resumed {
            Ok(Some(planned)) => Some(FollowUp::Save(vec![planned])),
            Ok(None) => self.go_on(entry, Ok(())),
            Err(error) => self.go_on(entry, Err(error)),
        }
    }

    /// Says on the answer what became of the session.
    pub(crate) fn finish(&self, entry: &mut Entry<'_>, outcome: Result<()>) {
        let Some(mut session) = entry.take::<Session>() else { return };
        if let Some(error) = session.take_unreported().filter(|error| !response_has(entry, error)) {
            let level = match error.kind() {
                ErrorKind::Unavailable => log::Level::Warn,
                _ => log::Level::Error,
            };
            let error = OneLine(error).to_string();
            self.unreported.log_throttled(level, &error, || {
                format!("an operation of a session failed, and its handler went on: {error}")
            });
        }
        let scheme = entry.request().scheme();
        if session.cookie_action() == CookieAction::Send {
            self.is_kept(entry.request());
        }
        let head = entry.head_mut();
        let written = match outcome {
            // Before the cookie: a failed save must not hand out an id.
            Err(error) => {
                self.write_pending_cookie(&session.pending_cookie(), scheme, head).and(Err(error))
            }
            Ok(()) => self.write_cookies(&session, scheme, head),
        };
        if let Err(error) = written {
            // Whatever the handler has said of the answer that it thought this would be.
            keep_from_caches(entry.head_mut());
            entry.replace(HttpError::from(error).into_response());
        }
    }

    fn write_cookies(
        &self,
        session: &Session,
        scheme: Scheme,
        head: &mut ResponseHead,
    ) -> Result<()> {
        match (session.cookie_action(), session.id()) {
            (CookieAction::Send, Some(id)) => {
                head.set_cookie(self.cookie_holding(id, session.own_lifetime(), scheme))?;
                if session.holds_nothing_private() {
                    revalidate(head);
                    return Ok(());
                }
            }
            (CookieAction::Remove, _) => head.set_cookie(self.cookie.removal(scheme))?,
            (CookieAction::Send | CookieAction::Nothing, _) => {
                if session.was_used() {
                    head.vary_by_cookie();
                }
                return Ok(());
            }
        }
        keep_from_caches(head);
        Ok(())
    }

    /// Says on the answer of a request that failed no more than the id that the store has given the session.
    pub(crate) fn write_pending_cookie(
        &self,
        planned: &PendingCookie,
        scheme: Scheme,
        head: &mut ResponseHead,
    ) -> Result<()> {
        if let Some((id, own_lifetime)) = planned.get() {
            head.set_cookie(self.cookie_holding(&id, own_lifetime, scheme))?;
            keep_from_caches(head);
        }
        Ok(())
    }

    fn cookie_holding(
        &self,
        id: &SessionId,
        own: Option<Duration>,
        scheme: Scheme,
    ) -> Cookie<'static> {
        let lifetime = self.cookie_has_max_age(own).then(|| self.lifetimes.kept_for(own));
        self.cookie.holding(id.expose(), lifetime, scheme)
    }
}

/// Gives a request its session, with what a login keeps of the request, at no cost while nobody logs in.
fn put(entry: &mut Entry<'_>, session: Session) {
    let request = entry.request();
    let agent = request.headers().get(header::USER_AGENT).cloned();
    let address = request.remote_addr().map(|address| address.ip());
    let visitor = Visitor { agent, address, scheme: request.scheme() };
    entry.put(session.of(visitor));
}

/// The id that is to be loaded next for a request that came with one in its grace period.
pub(crate) struct Successor {
    grace_id: GraceId,
    /// The one that the session has now, as far as is known.
    pub(crate) id: SessionId,
    steps: usize,
    /// The session of another cookie, for where this one leads to none.
    other: Option<(SessionId, Record)>,
}

/// What must be done before the response may be sent.
pub(crate) enum FollowUp {
    Save(Vec<PlannedSave>),
    Resume(LostSave),
}

/// A save that found no session.
pub(crate) struct LostSave(Box<PlannedSave>);

impl LostSave {
    /// What the store has under this id decides what becomes of it.
    pub(crate) fn id(&self) -> &SessionId {
        self.0.id()
    }
}

/// What a request's ids turned out to be.
enum Found {
    Session(SessionId, Record),
    InGrace(Successor),
    /// It was a session's a moment ago.
    Ended(SessionId),
    /// It had a grace period that has been over for so long.
    PastGrace(SessionId, Duration),
    Nothing,
}

/// The first of these ids that is a session. One of which the store cannot tell whether it is keeps the later ones
/// out: to go on with another session, or with none, would not be what the visitor has.
fn first_found(ids: SentIds, answers: impl IntoIterator<Item = Result<Loaded>>) -> Result<Found> {
    let (mut answers, mut found) = (answers.into_iter(), Found::Nothing);
    for id in ids {
        let answer = answers.next().unwrap_or_else(|| Err(missing_answer()));
        found = match (answer, found) {
            (Ok(Loaded::Session(record)), Found::InGrace(successor)) => {
                return Ok(Found::InGrace(Successor { other: Some((id, record)), ..successor }));
            }
            (_, found @ Found::InGrace(_)) => found,
            (Ok(Loaded::Session(record)), _) => return Ok(Found::Session(id, record)),
            (Ok(answer @ (Loaded::InGrace(_) | Loaded::GraceEnding(_))), found) => {
                let is_open = matches!(answer, Loaded::InGrace(_));
                match answer.left().and_then(|left| next_id(&id, left)) {
                    Some(next) => Found::InGrace(Successor {
                        grace_id: GraceId { id, is_open },
                        id: next,
                        steps: 1,
                        other: None,
                    }),
                    None => found,
                }
            }
            (Ok(Loaded::Ended), _) => Found::Ended(id),
            (Ok(Loaded::PastGrace { since, .. }), Found::Nothing) => Found::PastGrace(id, since),
            (Ok(Loaded::PastGrace { .. } | Loaded::Unknown), found) => found,
            (Err(error), _) => return Err(error),
        };
    }
    Ok(found)
}

/// Whether the response is this error, which is then logged with it.
fn response_has(entry: &Entry<'_>, error: &Error) -> bool {
    let answered = entry.response().and_then(|response| response.error());
    let cause = answered.and_then(|error| error.cause());
    let cause = cause.map(|cause| cause as &(dyn std::error::Error + 'static));
    let mut causes = std::iter::successors(cause, |cause| cause.source());
    causes.any(|cause| cause.to_string() == error.to_string())
}

pub(crate) fn missing_answer() -> Error {
    Error::new(ErrorKind::Unavailable, "the session store gave fewer answers than it was asked")
}

fn keep_from_caches(head: &mut ResponseHead) {
    head.vary_by_cookie();
    head.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
}

/// For the visitor's own browser, which asks before it shows the answer again: Back keeps what was typed into a form.
fn revalidate(head: &mut ResponseHead) {
    head.vary_by_cookie();
    let headers = head.headers_mut();
    if headers.get(header::CACHE_CONTROL).is_none_or(|value| value != "no-store") {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    }
}
