//! Saving a session with its user's index: what a login, a move, a logout and a renewal do there beside the save itself; see
//! [`index`](super::index). A session in which nobody is logged in costs nothing here.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::devices::{EndStep, end};
use super::index::{Entry, Index, LONGEST_INDEX, Registration, Survey, entries, key_of, name_of};
use super::record::{self, Key, SHORT_REPLY, Unfit};
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
    part: Option<Part>,
    state: State,
}

/// What is done to the index.
enum Part {
    /// It is to live on with the session, for so many milliseconds.
    Renewal(Index, String),
    /// The session leaves it.
    Logout(Index),
    /// A login, or a move of a session with a user.
    Arrival(Box<Arrival>),
}

struct Arrival {
    index: Index,
    registration: Registration,
    /// Who logs in, and in how many sessions the user may be; nothing of a move.
    user: Option<(String, Option<usize>)>,
    /// What the index held before this login.
    others: Vec<Entry>,
}

enum State {
    /// An index on another node is to be told before the save.
    Telling,
    Registering,
    Saving,
    /// An index on another node is to be told after the save that the session with this name leaves it.
    Leaving(Vec<u8>),
    Confirming,
    /// All sessions of the user have been ended meanwhile: the record that was written is to be removed.
    Withdrawing,
    /// What the index holds besides a login is to be looked at.
    Looking(Survey),
    /// The oldest logins are to end.
    Trimming(VecDeque<EndStep>),
    Over(Result<Saved>),
}

impl IndexedSave {
    pub(super) fn new(settings: &Arc<Settings>, save: &Save<'_>) -> IndexedSave {
        let part = Part::of(settings, save);
        let state = match &part {
            Some(Part::Arrival(_)) => State::Registering,
            Some(Part::Renewal(..)) if settings.in_cluster => State::Telling,
            _ => State::Saving,
        };
        let step = SaveStep::new(settings, save);
        IndexedSave { settings: settings.clone(), save: Some(step), part, state }.unless_refused()
    }

    /// What is refused without a question is not asked.
    fn unless_refused(mut self) -> IndexedSave {
        if self.save.as_ref().is_some_and(Step::is_over) {
            self.state = State::Saving;
            self.take_outcome();
        }
        self
    }

    fn arrival(&mut self) -> Option<&mut Arrival> {
        match &mut self.part {
            Some(Part::Arrival(arrival)) => Some(arrival),
            _ => None,
        }
    }

    /// Goes on once the save itself is over.
    fn take_outcome(&mut self) {
        let is_over = self.save.as_ref().is_some_and(Step::is_over);
        let Some(save) = self.save.take_if(|_| is_over) else { return };
        let idle = save.idle();
        let name = matches!(self.part, Some(Part::Logout(_))).then(|| save.name());
        let outcome = save.into_outcome();
        self.state = match (&mut self.part, &outcome, name) {
            (Some(Part::Arrival(arrival)), Ok(Saved::Stored), _) => {
                arrival.registration.lifetime = lifetime(&self.settings, idle);
                State::Confirming
            }
            (_, Ok(Saved::Stored), Some(name)) if self.settings.in_cluster => State::Leaving(name),
            _ => State::Over(outcome),
        };
    }

    /// What follows where the index no longer has the session that was written.
    fn withdrawn(&self) -> State {
        State::Over(match &self.part {
            Some(Part::Arrival(arrival)) if arrival.user.is_some() => Err(ended_meanwhile()),
            _ => Ok(Saved::Gone),
        })
    }

    /// What follows a confirmed arrival: a login takes what is dead out of the index, and ends the oldest logins.
    fn confirmed(&mut self, now: SystemTime) -> State {
        let now = record::milliseconds_since_1970(now);
        let Some(Arrival { index, registration, user: Some((user, most)), others }) =
            self.arrival()
        else {
            return State::Over(Ok(Saved::Stored));
        };
        let may_be_too_many = most.is_some_and(|most| others.len() > most);
        if !may_be_too_many && !others.iter().any(|entry| entry.is_settled(now)) {
            return State::Over(Ok(Saved::Stored));
        }
        let (others, name) = (std::mem::take(others), registration.name.clone());
        State::Looking(Survey::new(index.clone(), user.clone(), name, others))
    }

    fn surveyed(&mut self, survey: Survey) -> State {
        let settings = self.settings.clone();
        let Some(Arrival { user: Some((user, most)), .. }) = self.arrival() else {
            return State::Over(Ok(Saved::Stored));
        };
        let oldest = beyond(*most, &survey.into_devices());
        let end = |handle: &String| EndStep::new(&settings, user, EndDevices::One(handle));
        let ends: VecDeque<_> = oldest.iter().map(end).collect();
        if ends.is_empty() { State::Over(Ok(Saved::Stored)) } else { State::Trimming(ends) }
    }
}

impl Part {
    fn of(settings: &Arc<Settings>, save: &Save<'_>) -> Option<Part> {
        let name = |id: &SessionId| name_of(settings, &Key::new(settings, settings.layout, id));
        let user = save.login.map(|login| login.user).or(save.user)?;
        let index = Index::of(settings, user);
        let lifetime = lifetime(settings, save.idle());
        let (to, from) = match save.action {
            Action::Create => (save.id, Vec::new()),
            Action::Rotate { to } if to == save.id => (to, Vec::new()),
            Action::Rotate { to } => (to, name(save.id)),
            Action::Destroy => return Some(Part::Logout(index)),
            // One that is to live longer, or whose request has run for so long that it may have kept the session since it
            // was renewed.
            Action::Update
                if matches!(save.remember, Remember::To(_))
                    || save.renewed_ago.is_none_or(|ago| ago >= save.idle() / 2) =>
            {
                return Some(Part::Renewal(index, lifetime));
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
        let user = save.login.map(|login| (login.user.to_owned(), login.most));
        Some(Part::Arrival(Box::new(Arrival { index, registration, user, others: Vec::new() })))
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
            Request { repeatable: true, read_only: false, longest_reply: SHORT_REPLY };
        match (&mut self.state, &self.part) {
            (State::Saving, part) => {
                let Some(save) = &mut self.save else { return request };
                if let (Some(Part::Renewal(index, lifetime)), false) =
                    (part, self.settings.in_cluster)
                {
                    index.touch(round, lifetime);
                }
                request = save.request(round);
                if let (Some(Part::Logout(index)), false) = (part, self.settings.in_cluster) {
                    index.remove(round, &save.name());
                }
                request.longest_reply = request.longest_reply.saturating_add(SHORT_REPLY);
            }
            (State::Looking(survey), _) => {
                survey.request(&self.settings, round);
                request.longest_reply = LONGEST_INDEX;
            }
            (State::Trimming(ends), _) => {
                if let Some(end) = ends.front_mut() {
                    request = end.request(round);
                }
            }
            (State::Telling, Some(Part::Renewal(index, lifetime))) => {
                index.is_asked(round);
                index.touch(round, lifetime);
            }
            (State::Leaving(name), Some(Part::Logout(index))) => {
                index.is_asked(round);
                index.remove(round, name);
            }
            (State::Registering, Some(Part::Arrival(arrival))) => {
                arrival.index.is_asked(round);
                arrival.index.register(round, &arrival.registration);
                request.longest_reply = LONGEST_INDEX;
            }
            (State::Confirming, Some(Part::Arrival(arrival))) => {
                arrival.index.is_asked(round);
                arrival.index.confirm(round, &arrival.registration);
            }
            (State::Withdrawing, Some(Part::Arrival(arrival))) => {
                let key = key_of(&self.settings, &arrival.registration.name);
                round.for_key(&key);
                end(round, &[&key]);
            }
            _ => {}
        }
        request
    }

    fn answer(&mut self, replies: &mut Replies<'_>, now: SystemTime) -> Result<(), Unfit> {
        if matches!(self.state, State::Saving) {
            let Some(save) = &mut self.save else { return Err(Unfit::OutOfStep) };
            let aside = self.part.as_ref().filter(|_| !self.settings.in_cluster);
            // That the index could not be told ends nothing: it lives for long yet, and the next renewal tells it.
            if matches!(aside, Some(Part::Renewal(..))) {
                replies.next().ok_or(Unfit::OutOfStep)?;
            }
            save.answer(replies, now)?;
            if matches!(aside, Some(Part::Logout(_))) {
                replies.next().ok_or(Unfit::OutOfStep)?;
            }
            self.take_outcome();
            return Ok(());
        }
        self.state = match std::mem::replace(&mut self.state, State::Saving) {
            State::Telling => match replies.next() {
                Some(_) => State::Saving,
                None => return Err(Unfit::OutOfStep),
            },
            State::Leaving(_) => match replies.next() {
                Some(_) => State::Over(Ok(Saved::Stored)),
                None => return Err(Unfit::OutOfStep),
            },
            State::Registering => match replies.next() {
                Some(Reply::Nil) => State::Over(Ok(Saved::Gone)),
                Some(Reply::Array(index)) => {
                    let others = entries(index)?;
                    if let Some(arrival) = self.arrival() {
                        arrival.others = others;
                    }
                    State::Saving
                }
                Some(Reply::Error(line)) => State::Over(Err(refused(line))),
                _ => return Err(Unfit::OutOfStep),
            },
            State::Confirming => match replies.next() {
                Some(Reply::Integer(1)) => self.confirmed(now),
                Some(Reply::Integer(_)) => State::Withdrawing,
                Some(Reply::Error(line)) => State::Over(Err(refused(line))),
                _ => return Err(Unfit::OutOfStep),
            },
            State::Withdrawing => match replies.next() {
                Some(Reply::Integer(_)) => self.withdrawn(),
                Some(Reply::Error(line)) => State::Over(Err(refused(line))),
                _ => return Err(Unfit::OutOfStep),
            },
            State::Looking(mut survey) => {
                // Whether that worked or not: who logs in next looks again.
                let _ = survey.answer(&self.settings, replies, now)?;
                if survey.is_over() { self.surveyed(survey) } else { State::Looking(survey) }
            }
            State::Trimming(mut ends) => {
                if let Some(end) = ends.front_mut() {
                    end.answer(replies, now)?;
                }
                if ends.front().is_some_and(Step::is_over) {
                    ends.pop_front();
                }
                if ends.is_empty() { State::Over(Ok(Saved::Stored)) } else { State::Trimming(ends) }
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
                        Ok(Saved::Stored) if matches!(self.part, Some(Part::Arrival(_))) => {
                            Err(desync())
                        }
                        outcome => outcome,
                    })
                }
                None => State::Over(Err(error)),
            },
            // The login stands.
            State::Looking(_) | State::Trimming(_) => State::Over(Ok(Saved::Stored)),
            // The record is gone; its entry is found dead by who looks next.
            State::Leaving(_) => State::Over(Ok(Saved::Stored)),
            // A move stands without it: whoever ends all sessions knows the new one.
            State::Confirming if self.arrival().is_some_and(|arrival| arrival.user.is_none()) => {
                State::Over(Ok(Saved::Stored))
            }
            State::Telling | State::Registering | State::Confirming | State::Withdrawing => {
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
