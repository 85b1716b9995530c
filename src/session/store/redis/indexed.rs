//! Saves that also update the index of a user's sessions: logins, moves, logouts and renewals; see [`index`](super::index).
//! Without a user there is no update.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::devices::{EndStep, end};
use super::index::{
    Entry, Index, LivenessCheck, MAX_INDEX_BYTES, Registration, entries, key_of, name_of,
};
use super::record::{self, Key, RecordError, SHORT_REPLY};
use super::save::SaveStep;
use super::steps::{Request, Step};
use super::{Settings, desync, refused};
use crate::pipeline::operation::Round;
use crate::redis::{RedisReply as Reply, Replies};
use crate::session::id::SessionId;
use crate::session::store::devices::{EndDevices, LogIn, beyond, handle_of};
use crate::session::store::{Action, Remember, Save, Saved};
use crate::{Error, ErrorKind, Result};

pub(super) struct IndexedSave {
    settings: Arc<Settings>,
    /// The save itself, until it is over.
    save: Option<SaveStep>,
    index_update: Option<IndexUpdate>,
    state: State,
}

/// The update of the index that goes with a save.
enum IndexUpdate {
    /// Its lifetime is extended to that of the session, in milliseconds.
    Renewal(Index, String),
    /// The session is removed from it.
    Logout(Index),
    /// A login, or a move of a session with a user.
    Insertion(Box<Insertion>),
}

struct Insertion {
    index: Index,
    registration: Registration,
    /// Who logs in, and in how many sessions the user may be; nothing of a move.
    user: Option<(String, Option<usize>)>,
    /// What the index held before this login.
    others: Vec<Entry>,
}

enum State {
    /// The lifetime of an index on another node is to be extended before the save.
    Touching,
    Registering,
    Saving,
    /// The session with this name is to be removed from an index on another node after the save.
    Removing(Vec<u8>),
    Confirming,
    /// All sessions of the user were ended meanwhile: the record that was written is to be removed.
    RollingBack,
    /// The other sessions in the index are to be checked after a login.
    Checking(LivenessCheck),
    /// The oldest sessions are to be ended.
    EndingOldest(VecDeque<EndStep>),
    Over(Result<Saved>),
}

impl IndexedSave {
    pub(super) fn new(settings: &Arc<Settings>, save: &Save<'_>) -> IndexedSave {
        let index_update = IndexUpdate::of(settings, save);
        let state = match &index_update {
            Some(IndexUpdate::Insertion(_)) => State::Registering,
            Some(IndexUpdate::Renewal(..)) if settings.in_cluster => State::Touching,
            _ => State::Saving,
        };
        let step = SaveStep::new(settings, save);
        IndexedSave { settings: settings.clone(), save: Some(step), index_update, state }
            .skip_if_refused()
    }

    /// Ends at once if the save was refused before anything was sent.
    fn skip_if_refused(mut self) -> IndexedSave {
        if self.save.as_ref().is_some_and(Step::is_over) {
            self.state = State::Saving;
            self.take_outcome();
        }
        self
    }

    fn insertion(&mut self) -> Option<&mut Insertion> {
        match &mut self.index_update {
            Some(IndexUpdate::Insertion(insertion)) => Some(insertion),
            _ => None,
        }
    }

    /// Goes on once the save itself is over.
    fn take_outcome(&mut self) {
        let is_over = self.save.as_ref().is_some_and(Step::is_over);
        let Some(save) = self.save.take_if(|_| is_over) else { return };
        let idle = save.idle();
        let leaves = matches!(self.index_update, Some(IndexUpdate::Logout(_)));
        let name = (leaves && self.settings.in_cluster).then(|| save.name());
        let outcome = save.into_outcome();
        self.state = match (&mut self.index_update, &outcome, name) {
            (Some(IndexUpdate::Insertion(insertion)), Ok(Saved::Stored), _) => {
                insertion.registration.lifetime = lifetime(&self.settings, idle);
                State::Confirming
            }
            (_, Ok(Saved::Stored), Some(name)) => State::Removing(name),
            _ => State::Over(outcome),
        };
    }

    /// The next state after the record was removed that the index no longer has.
    fn rolled_back(&self) -> State {
        State::Over(match &self.index_update {
            Some(IndexUpdate::Insertion(insertion)) if insertion.user.is_some() => {
                Err(ended_meanwhile())
            }
            _ => Ok(Saved::Gone),
        })
    }

    /// The next state after a confirmed insertion: a login removes expired sessions from the index and ends the oldest ones.
    fn confirmed(&mut self, now: SystemTime) -> State {
        let now = record::milliseconds_since_1970(now);
        let Some(Insertion { index, registration, user: Some((user, max_sessions)), others }) =
            self.insertion()
        else {
            return State::Over(Ok(Saved::Stored));
        };
        let may_be_too_many = max_sessions.is_some_and(|max_sessions| others.len() > max_sessions);
        if !may_be_too_many && !others.iter().any(|entry| entry.is_past_registration(now)) {
            return State::Over(Ok(Saved::Stored));
        }
        let (others, name) = (std::mem::take(others), registration.name.clone());
        State::Checking(LivenessCheck::new(index.clone(), user.clone(), name, others))
    }

    fn checked(&mut self, check: LivenessCheck) -> State {
        let settings = self.settings.clone();
        let Some(Insertion { user: Some((user, max_sessions)), .. }) = self.insertion() else {
            return State::Over(Ok(Saved::Stored));
        };
        let oldest = beyond(*max_sessions, &check.into_devices());
        let end = |handle: &String| EndStep::new(&settings, user, EndDevices::One(handle));
        let ends: VecDeque<_> = oldest.iter().map(end).collect();
        if ends.is_empty() { State::Over(Ok(Saved::Stored)) } else { State::EndingOldest(ends) }
    }
}

impl IndexUpdate {
    fn of(settings: &Arc<Settings>, save: &Save<'_>) -> Option<IndexUpdate> {
        let name = |id: &SessionId| name_of(settings, &Key::new(settings, settings.layout, id));
        let user = save.login.map(|login| login.user).or(save.user)?;
        let index = Index::of(settings, user);
        let lifetime = lifetime(settings, save.idle());
        let (to, from) = match save.action {
            Action::Create => (save.id, Vec::new()),
            Action::Rotate { to } if to == save.id => (to, Vec::new()),
            Action::Rotate { to } => (to, name(save.id)),
            Action::Destroy => return Some(IndexUpdate::Logout(index)),
            // One that is to live longer, or whose request has run for so long that it may have kept the session since it
            // was renewed.
            Action::Update
                if matches!(save.remember, Remember::To(_))
                    || save.renewed_ago.is_none_or(|ago| ago >= save.idle() / 2) =>
            {
                return Some(IndexUpdate::Renewal(index, lifetime));
            }
            Action::Update | Action::ExtendGrace | Action::EndGrace(_) => return None,
        };
        // A session that nobody logs in to, made by who says that somebody is, has no user.
        if save.login.is_none() && from.is_empty() {
            return None;
        }
        let login = |LogIn { agent, address, .. }: LogIn<'_>| {
            let address = if address.is_empty() { "-" } else { address };
            format!("{} {address} {agent}", handle_of(to)).into_bytes()
        };
        let registration = Registration {
            name: name(to),
            from,
            login: save.login.map(login).unwrap_or_default(),
            unknown: login(LogIn::new("")),
            lifetime,
        };
        let user = save.login.map(|login| (login.user.to_owned(), login.max_sessions));
        Some(IndexUpdate::Insertion(Box::new(Insertion {
            index,
            registration,
            user,
            others: Vec::new(),
        })))
    }
}

/// For how many milliseconds the index of a session with this idle limit is kept: twice as long as the session, which may be
/// saved for another tenth of its life before the next renewal.
fn lifetime(settings: &Settings, idle: Duration) -> String {
    record::milliseconds(settings.kept_for(idle).saturating_mul(2)).to_string()
}

/// The error of a login while all of its user's sessions were being ended.
fn ended_meanwhile() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "all sessions of this user were ended while they logged in; another try logs them in",
    )
}

impl Step for IndexedSave {
    type Outcome = Result<Saved>;

    fn is_over(&self) -> bool {
        matches!(self.state, State::Over(_))
    }

    fn request(&mut self, round: &mut Round<'_>) -> Request {
        let mut request =
            Request { repeatable: true, read_only: false, max_reply_bytes: SHORT_REPLY };
        match (&mut self.state, &self.index_update) {
            (State::Saving, index_update) => {
                let Some(save) = &mut self.save else { return request };
                if let (Some(IndexUpdate::Renewal(index, lifetime)), false) =
                    (index_update, self.settings.in_cluster)
                {
                    index.touch(round, lifetime);
                }
                request = save.request(round);
                if let (Some(IndexUpdate::Logout(index)), false) =
                    (index_update, self.settings.in_cluster)
                {
                    index.remove(round, &save.name());
                }
                request.max_reply_bytes = request.max_reply_bytes.saturating_add(SHORT_REPLY);
            }
            (State::Checking(check), _) => {
                check.request(&self.settings, round);
                request.max_reply_bytes = MAX_INDEX_BYTES;
            }
            (State::EndingOldest(ends), _) => {
                if let Some(end) = ends.front_mut() {
                    request = end.request(round);
                }
            }
            (State::Touching, Some(IndexUpdate::Renewal(index, lifetime))) => {
                index.set_as_key(round);
                index.touch(round, lifetime);
            }
            (State::Removing(name), Some(IndexUpdate::Logout(index))) => {
                index.set_as_key(round);
                index.remove(round, name);
            }
            (State::Registering, Some(IndexUpdate::Insertion(insertion))) => {
                insertion.index.set_as_key(round);
                insertion.index.register(round, &insertion.registration);
                request.max_reply_bytes = MAX_INDEX_BYTES;
            }
            (State::Confirming, Some(IndexUpdate::Insertion(insertion))) => {
                insertion.index.set_as_key(round);
                insertion.index.confirm(round, &insertion.registration);
            }
            (State::RollingBack, Some(IndexUpdate::Insertion(insertion))) => {
                let key = key_of(&self.settings, &insertion.registration.name);
                round.for_key(&key);
                end(round, &[&key]);
            }
            _ => {}
        }
        request
    }

    fn answer(&mut self, replies: &mut Replies<'_>, now: SystemTime) -> Result<(), RecordError> {
        if matches!(self.state, State::Saving) {
            let Some(save) = &mut self.save else { return Err(RecordError::Desync) };
            let update = self.index_update.as_ref().filter(|_| !self.settings.in_cluster);
            // That the index could not be told ends nothing: it lives for long yet, and the next renewal tells it.
            if matches!(update, Some(IndexUpdate::Renewal(..))) {
                replies.next().ok_or(RecordError::Desync)?;
            }
            save.answer(replies, now)?;
            if matches!(update, Some(IndexUpdate::Logout(_))) {
                replies.next().ok_or(RecordError::Desync)?;
            }
            self.take_outcome();
            return Ok(());
        }
        self.state = match std::mem::replace(&mut self.state, State::Saving) {
            State::Touching => match replies.next() {
                Some(_) => State::Saving,
                None => return Err(RecordError::Desync),
            },
            State::Removing(_) => match replies.next() {
                Some(_) => State::Over(Ok(Saved::Stored)),
                None => return Err(RecordError::Desync),
            },
            State::Registering => match replies.next() {
                Some(Reply::Nil) => State::Over(Ok(Saved::Gone)),
                Some(Reply::Array(index)) => {
                    let others = entries(index)?;
                    if let Some(insertion) = self.insertion() {
                        insertion.others = others;
                    }
                    State::Saving
                }
                Some(Reply::Error(line)) => State::Over(Err(refused(line))),
                _ => return Err(RecordError::Desync),
            },
            State::Confirming => match replies.next() {
                Some(Reply::Integer(1)) => self.confirmed(now),
                Some(Reply::Integer(_)) => State::RollingBack,
                Some(Reply::Error(line)) => State::Over(Err(refused(line))),
                _ => return Err(RecordError::Desync),
            },
            State::RollingBack => match replies.next() {
                Some(Reply::Integer(_)) => self.rolled_back(),
                Some(Reply::Error(line)) => State::Over(Err(refused(line))),
                _ => return Err(RecordError::Desync),
            },
            State::Checking(mut check) => {
                // Whether that worked or not: who logs in next looks again.
                let _ = check.answer(&self.settings, replies, now)?;
                if check.is_over() { self.checked(check) } else { State::Checking(check) }
            }
            State::EndingOldest(mut ends) => {
                if let Some(end) = ends.front_mut() {
                    end.answer(replies, now)?;
                }
                if ends.front().is_some_and(Step::is_over) {
                    ends.pop_front();
                }
                if ends.is_empty() {
                    State::Over(Ok(Saved::Stored))
                } else {
                    State::EndingOldest(ends)
                }
            }
            state @ (State::Saving | State::Over(_)) => state,
        };
        Ok(())
    }

    fn fail(&mut self, error: Error) {
        self.state = match std::mem::replace(&mut self.state, State::Saving) {
            over @ State::Over(_) => over,
            State::Saving => match self.save.take() {
                Some(mut save) => {
                    save.fail(error);
                    State::Over(match save.into_outcome() {
                        // What was found before the connection failed stands, but nothing is confirmed.
                        Ok(Saved::Stored)
                            if matches!(self.index_update, Some(IndexUpdate::Insertion(_))) =>
                        {
                            Err(desync())
                        }
                        outcome => outcome,
                    })
                }
                None => State::Over(Err(error)),
            },
            // The login stands.
            State::Checking(_) | State::EndingOldest(_) => State::Over(Ok(Saved::Stored)),
            // The record is gone; its entry is found dead by who looks next.
            State::Removing(_) => State::Over(Ok(Saved::Stored)),
            // A move stands without it: whoever ends all sessions knows the new one.
            State::Confirming
                if self.insertion().is_some_and(|insertion| insertion.user.is_none()) =>
            {
                State::Over(Ok(Saved::Stored))
            }
            State::Touching | State::Registering | State::Confirming | State::RollingBack => {
                State::Over(Err(error))
            }
        };
    }

    fn into_outcome(self) -> Result<Saved> {
        match self.state {
            State::Over(outcome) => outcome,
            _ => Err(desync()),
        }
    }
}
