//! What becomes of a session at the end of its request: what is saved, and what the cookie says then.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use super::events::Event;
use super::id::SessionId;
use super::state::{Failure, LoginState, Next, Renewal, Stage};
use super::store::devices::{agent_of, network_of};
use super::store::{Action, Changes, Lifetimes, LogIn, Remember, Save, Saved};
use super::view::Session;
use crate::pipeline::service::LoggedBefore;
use crate::{Error, Result};

/// The id, and the idle limit of its own, that the store has given a session while its request was running: the
/// id that the browser has is dead, and without this one its visitor would be logged out. Kept outside of the
/// session, which a panic of the handler drops.
#[derive(Clone, Default)]
pub(crate) struct PendingCookie(Arc<Mutex<Option<NewId>>>);

type NewId = (SessionId, Option<Duration>);

impl PendingCookie {
    pub(super) fn set(&self, pending_cookie: Option<NewId>) {
        *self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = pending_cookie;
    }

    pub(crate) fn get(&self) -> Option<NewId> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }
}

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

/// When changes are saved.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    /// While the handler runs. That the idle limit is to start anew can wait: another request may renew the id before.
    Commit,
    End,
}

/// One save on its way to the store, on its own so that many sessions' saves go together.
pub(crate) struct Pending {
    id: SessionId,
    kind: Kind,
    changes: Changes,
    lifetimes: Lifetimes,
    remember: Remember,
    renewed_ago: Option<Duration>,
    login: Option<NewLogin>,
    /// Who was logged in before.
    user: Option<String>,
    created: Option<SystemTime>,
}

/// Who logs in, and from where.
struct NewLogin {
    user: String,
    agent: String,
    address: String,
    most: Option<usize>,
}

enum Kind {
    Create,
    Update {
        /// The idle limit starts anew, and the cookie with it.
        renews: bool,
    },
    /// Nothing changed but that.
    Refresh,
    Rotate(SessionId),
    Destroy,
}

impl Pending {
    fn destruction((id, user): (SessionId, Option<String>), lifetimes: Lifetimes) -> Pending {
        Pending {
            id,
            kind: Kind::Destroy,
            changes: Changes::default(),
            lifetimes,
            remember: Remember::default(),
            renewed_ago: None,
            login: None,
            user,
            created: None,
        }
    }

    pub(crate) fn save(&self) -> Save<'_> {
        Save {
            id: &self.id,
            action: match &self.kind {
                Kind::Create => Action::Create,
                Kind::Update { .. } | Kind::Refresh => Action::Update,
                Kind::Rotate(to) => Action::Rotate { to },
                Kind::Destroy => Action::Destroy,
            },
            changes: &self.changes,
            lifetimes: self.lifetimes,
            remember: self.remember,
            renewed_ago: self.renewed_ago,
            login: self.login.as_ref().map(|login| LogIn {
                user: &login.user,
                agent: &login.agent,
                address: &login.address,
                most: login.most,
            }),
            user: self.user.as_deref(),
            created: self.created,
        }
    }
}

impl Session {
    /// What has to be saved, in this order. The session counts as unchanged from here on.
    pub(crate) fn pending(&mut self, at: At) -> Result<Vec<Pending>> {
        let lifetimes = self.context.lifetimes;
        let ended = std::mem::take(&mut self.ended).into_iter();
        let mut pending: Vec<_> =
            ended.map(|ended| Pending::destruction(ended, lifetimes)).collect();
        let is_changed = !self.changes.is_empty() || matches!(self.remember, Remember::To(_));
        let logs_in = matches!(self.login, LoginState::In(_));
        let is_due = matches!(self.renewal, Renewal::Due);
        let (id, kind) = match &mut self.stage {
            Stage::Gone(_) => return Ok(pending),
            // "Remember nothing" is not worth a record.
            Stage::New { .. } if self.changes.is_empty() && !logs_in => return Ok(pending),
            Stage::New { next } => match next.take() {
                Some(id) => (id, Kind::Create),
                None => (self.context.fresh_id()?, Kind::Create),
            },
            Stage::Stored { id, next: Next::New(to) } => {
                let to = to.take().map_or_else(|| self.context.id_to_move_to(id), Ok)?;
                (id.clone(), Kind::Rotate(to))
            }
            Stage::Stored { id, next: Next::Same } if is_changed => {
                let renews = is_due || matches!(self.remember, Remember::To(_));
                (id.clone(), Kind::Update { renews })
            }
            Stage::Stored { id, next: Next::Same } if is_due && at == At::End => {
                (id.clone(), Kind::Refresh)
            }
            Stage::Stored { .. } => return Ok(pending),
        };
        let mut changes = std::mem::take(&mut self.changes);
        if matches!(kind, Kind::Create) {
            changes.cleared = false;
        }
        if let Stage::Stored { next, .. } = &mut self.stage {
            *next = Next::Same;
        }
        let renewed_ago = match (&kind, self.renewal) {
            (Kind::Update { renews: false }, Renewal::Was { ago, at }) => Some(ago + at.elapsed()),
            _ => None,
        };
        let user = self.logged_in().map(|login| login.user.clone());
        let login = match std::mem::replace(&mut self.login, LoginState::Same(None)) {
            LoginState::In(login) => {
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
            | (Kind::Rotate(_), Some(_), Remember::Same(Some(limit))) => Remember::To(Some(limit)),
            (.., remember) => remember,
        };
        let created = self.created;
        self.remember = Remember::Same(remember.limit());
        pending.push(Pending {
            id,
            kind,
            changes,
            lifetimes,
            remember,
            renewed_ago,
            login,
            user,
            created,
        });
        Ok(pending)
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
            most: self.context.most_sessions,
        }
    }

    /// The id under which the browser will have the session once this request is answered.
    pub(super) fn coming_id(&mut self) -> Result<SessionId> {
        Ok(match &mut self.stage {
            Stage::Stored { id, next: Next::Same } | Stage::Gone(id) => id.clone(),
            Stage::Stored { id, next: Next::New(next) } => match next {
                Some(next) => next.clone(),
                None => next.insert(self.context.id_to_move_to(id)?).clone(),
            },
            Stage::New { next: Some(next) } => next.clone(),
            Stage::New { next } => next.insert(self.context.fresh_id()?).clone(),
        })
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
            (_, Kind::Destroy) => self.context.emit(Event::Destroyed),
            (Saved::Gone, Kind::Refresh) => self.cookie = CookieDue::Nothing,
            (Saved::Gone, _) => {
                self.lost();
                self.context.emit(Event::WriteLost);
            }
            (Saved::Stored, Kind::Create) => {
                self.stage = Stage::stored(pending.id);
                self.cookie = CookieDue::Send;
                self.renewal = Renewal::now();
                self.context.emit(Event::Created);
                if self.logged_in().is_none() {
                    self.context.emit(Event::Anonymous);
                }
            }
            (Saved::Stored, Kind::Rotate(to)) => {
                self.pending_cookie.set(Some((to.clone(), self.own_lifetime())));
                self.stage = Stage::stored(to);
                self.cookie = CookieDue::Send;
                self.renewal = Renewal::now();
                self.context.emit(Event::Renewed);
                self.detach_if_emptied();
            }
            (Saved::Stored, Kind::Update { renews: false }) => self.detach_if_emptied(),
            (Saved::Stored, Kind::Update { renews: true } | Kind::Refresh) => {
                let is_other = matches!(pending.remember, Remember::To(_));
                if is_other || self.context.cookie_has_max_age(self.own_lifetime()) {
                    self.cookie = CookieDue::Send;
                }
                if matches!(self.renewal, Renewal::Due | Renewal::Was { .. }) {
                    self.renewal = Renewal::now();
                }
                self.detach_if_emptied();
            }
        }
        Ok(())
    }

    /// The store has the session no more. The browser may have been told so already, or given a new id by
    /// another request: no cookie that was due is due any more.
    pub(super) fn lost(&mut self) {
        if let Some(id) = self.id().cloned() {
            self.stage = Stage::Gone(id);
        }
        self.pending_cookie.set(None);
        self.cookie = CookieDue::Nothing;
    }

    /// Takes note that the store has let go of the session, where it keeps none without fields.
    pub(super) fn detach_if_emptied(&mut self) {
        if !self.fields.is_empty() || self.context.store.keeps_empty() {
            return;
        }
        if let Stage::Stored { id, .. } = std::mem::replace(&mut self.stage, Stage::new()) {
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
}

/// The error of whatever is done after a commit that failed for this reason.
pub(super) fn unsaved(why: &Error) -> Error {
    let text = "changes of the session could not be saved while the handler was running";
    let error = Error::new(why.kind(), format!("{text}: {why}"));
    // Of an error that was in the log before, the requests that it meets need not be as loud.
    match std::error::Error::source(why).is_some_and(|source| source.is::<LoggedBefore>()) {
        true => error.with_source(LoggedBefore),
        false => error,
    }
}
