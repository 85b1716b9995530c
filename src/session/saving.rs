//! The end of a request: what is saved of its session, and which cookie is sent.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use super::events::Event;
use super::id::SessionId;
use super::reserved::FORMER;
use super::rotation::{GRACE, next_id, without_reserved};
use super::state::{
    DestroyState, Failure, GraceId, IdChange, IncomingId, LoginState, PreviousIdGrace, Renewal,
    SessionState,
};
use super::store::devices::{agent_of, network_of};
use super::store::{Action, Changes, Lifetimes, Loaded, LogIn, OldId, Remember, Save, Saved};
use super::view::Session;
use crate::lock::lock;
use crate::pipeline::service::AlreadyLogged;
use crate::{Error, Result};

/// The id, and the idle limit of its own, that the store has given a session while its request was running: the
/// id that the browser has is dead, and without this one its visitor would be logged out. Kept outside of the
/// session, which a panic of the handler drops.
#[derive(Clone, Default)]
pub(crate) struct PendingCookie(Arc<Mutex<Option<NewId>>>);

type NewId = (SessionId, Option<Duration>);

impl PendingCookie {
    pub(super) fn set(&self, pending_cookie: Option<NewId>) {
        *lock(&self.0) = pending_cookie;
    }

    pub(crate) fn get(&self) -> Option<NewId> {
        lock(&self.0).clone()
    }
}

/// What the response does with the session's cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum CookieAction {
    /// The browser has what it needs.
    #[default]
    Nothing,
    /// Send the id.
    Send,
    /// Make the browser forget it.
    Remove,
}

/// When changes are saved.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum SaveTime {
    /// While the handler runs. That the idle limit is to start anew can wait: another request may renew the id before.
    Commit,
    End,
}

/// One save that is to be sent to the store, together with those of other sessions.
pub(crate) struct PlannedSave {
    id: SessionId,
    kind: Kind,
    /// It contains nothing that the handler did, so that nothing is lost if it fails.
    is_housekeeping: bool,
    changes: Changes,
    lifetimes: Lifetimes,
    remember: Remember,
    renewed_ago: Option<Duration>,
    login: Option<NewLogin>,
    /// Who was logged in before.
    user: Option<String>,
    created: Option<SystemTime>,
}

/// A login: the user, the browser and the address.
struct NewLogin {
    user: String,
    agent: String,
    address: String,
    max_sessions: Option<usize>,
}

enum Kind {
    Create,
    Update {
        /// The idle limit starts anew, and the cookie with it.
        renews: bool,
    },
    Rotate(SessionId, OldIdFate),
    Destroy,
    ExtendGrace,
    EndGrace,
}

/// What the store keeps under the id that a session moves away from.
enum OldIdFate {
    Linked,
    Unlinked,
    InGrace(String),
}

impl PlannedSave {
    fn new(id: SessionId, kind: Kind, lifetimes: Lifetimes) -> PlannedSave {
        PlannedSave {
            id,
            kind,
            is_housekeeping: false,
            changes: Changes::default(),
            lifetimes,
            remember: Remember::default(),
            renewed_ago: None,
            login: None,
            user: None,
            created: None,
        }
    }

    /// The id of the session to save.
    pub(crate) fn id(&self) -> &SessionId {
        &self.id
    }

    pub(crate) fn save(&self) -> Save<'_> {
        Save {
            id: &self.id,
            action: match &self.kind {
                Kind::Create => Action::Create,
                Kind::Update { .. } => Action::Update,
                Kind::Rotate(to, _) => Action::Rotate { to },
                Kind::Destroy => Action::Destroy,
                Kind::ExtendGrace => Action::ExtendGrace,
                Kind::EndGrace => Action::EndGrace(GRACE),
            },
            changes: &self.changes,
            lifetimes: self.lifetimes,
            remember: self.remember,
            renewed_ago: self.renewed_ago,
            login: self.login.as_ref().map(|login| LogIn {
                user: &login.user,
                agent: &login.agent,
                address: &login.address,
                max_sessions: login.max_sessions,
            }),
            user: self.user.as_deref(),
            old_id: match &self.kind {
                Kind::Rotate(_, OldIdFate::Unlinked) => OldId::Unlinked,
                Kind::Rotate(_, OldIdFate::InGrace(left)) => OldId::InGrace(left),
                _ => OldId::Linked,
            },
            created: self.created,
        }
    }

    /// Makes it one for the id that another request has rotated the session to.
    fn retarget(&mut self, id: SessionId) {
        self.id = id;
        if matches!(self.kind, Kind::Rotate(_, OldIdFate::InGrace(_))) {
            self.kind = Kind::Update { renews: false };
        }
        if matches!(self.kind, Kind::Update { .. }) {
            without_reserved(&mut self.changes);
        }
    }
}

impl Session {
    /// The saves to send, in this order. The session counts as unchanged from here on.
    pub(crate) fn plan_saves(&mut self, at: SaveTime) -> Result<Vec<PlannedSave>> {
        let lifetimes = self.context.lifetimes;
        let mut planned = Vec::new();
        for (id, user) in std::mem::take(&mut self.ended) {
            planned.push(PlannedSave { user, ..PlannedSave::new(id, Kind::Destroy, lifetimes) });
        }
        let is_changed = !self.changes.is_empty() || matches!(self.remember, Remember::To(_));
        let logs_in = matches!(self.login, LoginState::In { .. });
        let is_due = matches!(self.renewal, Renewal::Due);
        let rotation = if at == SaveTime::End { self.rotation() } else { None };
        if at == SaveTime::End
            && let Some(former) = self.former_to_end()
        {
            planned.push(PlannedSave::new(former, Kind::EndGrace, lifetimes));
        }
        let forgets =
            self.previous_id_grace == PreviousIdGrace::Ends && self.reserved.get(FORMER).is_some();
        let proves = at == SaveTime::End && self.carries_unproven_id();
        self.has_deferred_saves = false;
        let (id, kind) = match &mut self.state {
            SessionState::Gone(_) => {
                if self.incoming_id == IncomingId::EndedId && !self.changes.is_empty() {
                    self.changes = Changes::default();
                    self.context.emit(Event::WriteLost);
                }
                return Ok(planned);
            }
            // "Remember nothing" is not worth a record.
            SessionState::New { .. } if self.changes.is_empty() && !logs_in => return Ok(planned),
            // A session in the place of one that this visitor had no more, or must not end, would take the place of
            // another request's, too: of the login that has ended it.
            SessionState::New { .. }
                if !logs_in
                    && self.destroy_state == DestroyState::Requested
                    && !planned.is_empty() =>
            {
                self.has_deferred_saves = true;
                return Ok(planned);
            }
            SessionState::New { .. }
                if !logs_in
                    && matches!(
                        self.destroy_state,
                        DestroyState::Requested | DestroyState::NotFound
                    ) =>
            {
                self.changes = Changes::default();
                self.context.emit(Event::WriteLost);
                return Ok(planned);
            }
            SessionState::New { next } => match next.take() {
                Some(id) => (id, Kind::Create),
                None => (self.context.fresh_id()?, Kind::Create),
            },
            SessionState::Stored { id, next: IdChange::New(to) } => {
                let to = to.take().map_or_else(|| self.context.id_to_move_to(id), Ok)?;
                // Who knew the id of an anonymous session, and had perhaps planted it, has no part in a login.
                let old = match self.login {
                    LoginState::In { again: false, .. } => OldIdFate::Unlinked,
                    _ => OldIdFate::Linked,
                };
                (id.clone(), Kind::Rotate(to, old))
            }
            SessionState::Stored { id, next: IdChange::None } => match rotation {
                Some((to, left)) => (id.clone(), Kind::Rotate(to, OldIdFate::InGrace(left))),
                None if is_changed => {
                    let renews = is_due || matches!(self.remember, Remember::To(_));
                    (id.clone(), Kind::Update { renews })
                }
                None if at == SaveTime::End && (is_due || forgets || proves) => {
                    (id.clone(), Kind::Update { renews: is_due })
                }
                None => return Ok(planned),
            },
        };
        let mut changes = std::mem::take(&mut self.changes);
        match &kind {
            Kind::Create => {
                changes.cleared = false;
                self.note_new_id(&mut changes);
                self.seal_creation(&id, &mut changes)?;
            }
            Kind::Rotate(to, OldIdFate::InGrace(_)) => {
                self.note_rotation(to, &mut changes)?;
                self.seal_move(to, false, &mut changes)?;
            }
            Kind::Rotate(to, _) => {
                self.forget_rotation(&mut changes);
                self.note_new_id(&mut changes);
                self.seal_move(to, logs_in, &mut changes)?;
            }
            _ => {
                if forgets {
                    self.reserved.remove(FORMER, &mut changes);
                }
                self.seal_update(&id, &mut changes)?;
            }
        }
        let is_housekeeping = !is_changed
            && match &kind {
                Kind::Update { .. } => true,
                Kind::Rotate(_, old) => matches!(old, OldIdFate::InGrace(_)),
                _ => false,
            };
        if let SessionState::Stored { next, .. } = &mut self.state {
            *next = IdChange::None;
        }
        let renewed_ago = match (&kind, self.renewal) {
            (Kind::Update { renews: false }, Renewal::Was { ago, at }) => Some(ago + at.elapsed()),
            _ => None,
        };
        let user = self.logged_in().map(|login| login.user.clone());
        let login = match std::mem::replace(&mut self.login, LoginState::Same(None)) {
            LoginState::In { login, .. } => {
                let new = self.new_login(&login.user);
                self.login = LoginState::Same(Some(login));
                Some(new)
            }
            same @ LoginState::Same(_) => {
                self.login = same;
                None
            }
        };
        let anonymous = self.context.anonymous.filter(|_| user.is_none() && login.is_none());
        let was_anonymous = login.is_some() && self.remember.limit() == self.context.anonymous;
        let remember = match (&kind, &login, self.remember) {
            (_, Some(_), Remember::Same(Some(_))) if was_anonymous => Remember::To(None),
            (Kind::Create, None, Remember::Same(None)) if anonymous.is_some() => {
                Remember::To(anonymous)
            }
            // In a record that is made anew it is not yet.
            (Kind::Create, _, Remember::Same(Some(limit)))
            | (Kind::Rotate(..), Some(_), Remember::Same(Some(limit))) => Remember::To(Some(limit)),
            (.., remember) => remember,
        };
        let created = self.created;
        self.remember = Remember::Same(remember.limit());
        if let (Some(GraceId { id, is_open: true }), Kind::Update { renews: true }) =
            (&self.grace_id, &kind)
        {
            let extended = PlannedSave::new(id.clone(), Kind::ExtendGrace, lifetimes);
            planned.push(PlannedSave { remember: self.remember, created, ..extended });
        }
        // There is seldom more than this one.
        planned.reserve_exact(1);
        planned.push(PlannedSave {
            id,
            kind,
            is_housekeeping,
            changes,
            lifetimes,
            remember,
            renewed_ago,
            login,
            user,
            created,
        });
        Ok(planned)
    }

    /// What goes with the login of this user.
    fn new_login(&self, user: &str) -> NewLogin {
        let address = self.visitor.address.filter(|_| self.context.keeps_addresses);
        NewLogin {
            user: user.to_owned(),
            agent: self
                .visitor
                .agent
                .as_ref()
                .map(|agent| agent_of(agent.as_bytes()))
                .unwrap_or_default(),
            address: address.map(network_of).unwrap_or_default(),
            max_sessions: self.context.most_sessions,
        }
    }

    /// The id under which the browser will have the session once this request is answered.
    pub(super) fn coming_id(&mut self) -> Result<SessionId> {
        Ok(match &mut self.state {
            SessionState::Stored { id, next: IdChange::None } | SessionState::Gone(id) => {
                id.clone()
            }
            SessionState::Stored { id, next: IdChange::New(next) } => match next {
                Some(next) => next.clone(),
                None => next.insert(self.context.id_to_move_to(id)?).clone(),
            },
            SessionState::New { next: Some(next) } => next.clone(),
            SessionState::New { next } => next.insert(self.context.fresh_id()?).clone(),
        })
    }

    /// Takes note of how a save ended. The cookie is decided here, after the store has answered: an id
    /// that was never stored is never handed out.
    ///
    /// A save that comes back found no session. Perhaps another request has rotated it meanwhile: what the store has under
    /// [its id](PlannedSave::id) is for [`resume`](Session::resume).
    pub(crate) fn conclude_save(
        &mut self,
        planned: PlannedSave,
        saved: Result<Saved>,
    ) -> Result<Option<PlannedSave>> {
        let saved = match saved {
            Ok(saved) => saved,
            Err(error) => {
                self.context.emit_error(&error);
                return match planned.kind {
                    Kind::ExtendGrace | Kind::EndGrace => Ok(None),
                    // What the browser holds then is not known to be right or wrong: leave it alone.
                    _ => {
                        self.cookie = CookieAction::Nothing;
                        // Who only read has lost nothing: a store that refuses to write must not keep them out.
                        if planned.is_housekeeping { Ok(None) } else { Err(error) }
                    }
                };
            }
        };
        if saved == Saved::Stored && planned.login.is_some() {
            self.context.logged_in(&self.visitor);
        }
        match (saved, planned.kind) {
            (_, Kind::ExtendGrace) => {}
            (_, Kind::EndGrace) => {
                self.previous_id_grace = PreviousIdGrace::Ends;
                self.has_deferred_saves = true;
            }
            // A store that keeps no tombstones cannot say whether there was one.
            (Saved::Gone, Kind::Destroy) if self.context.store.keeps_tombstones() => {
                if self.destroy_state == DestroyState::Requested && self.may_have_successor() {
                    return Ok(Some(PlannedSave { kind: Kind::Destroy, ..planned }));
                }
                self.nothing_ended();
            }
            (_, Kind::Destroy) => {
                self.context.emit(Event::Destroyed);
                self.destroy_state = DestroyState::Destroyed;
                // Unless a session is in its place by now.
                let has_other = matches!(self.state, SessionState::Stored { .. });
                if self.incoming_id != IncomingId::Nothing && !has_other {
                    self.cookie = CookieAction::Remove;
                }
            }
            (Saved::Gone, kind) if planned.is_housekeeping => {
                drop(kind);
                self.cookie = CookieAction::Nothing;
            }
            (Saved::Gone, kind) => {
                if self.may_have_successor() {
                    return Ok(Some(PlannedSave { kind, ..planned }));
                }
                self.write_lost();
            }
            (Saved::Stored, Kind::Create) => {
                self.state = SessionState::stored(planned.id);
                self.cookie = CookieAction::Send;
                self.renewal = Renewal::now();
                self.context.emit(Event::Created);
                if self.logged_in().is_none() {
                    self.context.emit(Event::Anonymous);
                }
            }
            (Saved::Stored, Kind::Rotate(to, old)) => {
                self.is_proven = true;
                // The id that is in its grace period will do.
                if !matches!(old, OldIdFate::InGrace(_)) {
                    self.pending_cookie.set(Some((to.clone(), self.own_lifetime())));
                }
                self.state = SessionState::stored(to);
                self.grace_id = None;
                self.cookie = CookieAction::Send;
                self.renewal = Renewal::now();
                self.context.emit(Event::Renewed);
                self.detach_if_emptied();
            }
            (Saved::Stored, Kind::Update { renews: false }) => {
                self.is_proven = true;
                self.detach_if_emptied();
            }
            (Saved::Stored, Kind::Update { renews: true }) => {
                self.is_proven = true;
                let is_other = matches!(planned.remember, Remember::To(_));
                if is_other || self.context.cookie_has_max_age(self.own_lifetime()) {
                    self.cookie = CookieAction::Send;
                }
                if matches!(self.renewal, Renewal::Due | Renewal::Was { .. }) {
                    self.renewal = Renewal::now();
                }
                self.detach_if_emptied();
            }
        }
        Ok(None)
    }

    /// What is to be saved instead of what found no session, by what the store has under its id; nothing where the session is
    /// gone.
    pub(crate) fn resume(
        &mut self,
        mut planned: PlannedSave,
        found: Result<Loaded>,
    ) -> Result<Option<PlannedSave>> {
        let found = match found {
            Ok(found) => found,
            Err(error) => return self.conclude_save(planned, Err(error)),
        };
        if matches!(planned.kind, Kind::Destroy) {
            // The old id was good when this request came with it.
            self.steps += 1;
            return Ok(match found.left().and_then(|left| next_id(&planned.id, left)) {
                Some(next) => Some(PlannedSave { id: next, ..planned }),
                None => {
                    self.nothing_ended();
                    None
                }
            });
        }
        match self.move_to_successor(&found) {
            Some(id) => {
                planned.retarget(id);
                Ok(Some(planned))
            }
            None => {
                self.write_lost();
                Ok(None)
            }
        }
    }

    fn nothing_ended(&mut self) {
        if self.destroy_state == DestroyState::Requested {
            self.destroy_state = DestroyState::NotFound;
        }
    }

    /// The store has the session no more. The browser may have been told so already, or given a new id by
    /// another request: no cookie that was due is due any more.
    pub(super) fn lost(&mut self) {
        if let Some(id) = self.id().cloned() {
            self.state = SessionState::Gone(id);
        }
        self.pending_cookie.set(None);
        self.cookie = CookieAction::Nothing;
    }

    /// Takes note that the store has let go of the session, where it keeps none without fields.
    pub(super) fn detach_if_emptied(&mut self) {
        if !self.fields.is_empty() || self.context.store.keeps_empty() {
            return;
        }
        if let SessionState::Stored { id, .. } =
            std::mem::replace(&mut self.state, SessionState::new())
        {
            self.emptied = Some(id);
            self.pending_cookie.set(None);
        }
    }

    /// Why nothing that the handler did is to be acknowledged.
    pub(crate) fn take_failure(&mut self) -> Option<Error> {
        Some(match self.failure.take()? {
            Failure::Refused(error) => error,
            Failure::Unsaved(why) => unsaved(&why),
        })
    }

    /// An error of an operation in the store that nobody but the handler has heard of.
    pub(crate) fn take_unreported(&mut self) -> Option<Error> {
        self.unreported.take()
    }

    pub(crate) fn cookie_action(&self) -> CookieAction {
        self.cookie
    }

    /// What the browser must be told whatever else becomes of the request.
    pub(crate) fn pending_cookie(&self) -> PendingCookie {
        self.pending_cookie.clone()
    }
}

/// The error of whatever is done after a commit that failed for this reason.
pub(super) fn unsaved(why: &Error) -> Error {
    let text = "changes of the session could not be saved while the handler was running";
    let error = Error::new(why.kind(), format!("{text}: {why}"));
    // Of an error that was in the log before, the requests that it meets need not be as loud.
    match std::error::Error::source(why).is_some_and(|source| source.is::<AlreadyLogged>()) {
        true => error.with_source(AlreadyLogged),
        false => error,
    }
}
