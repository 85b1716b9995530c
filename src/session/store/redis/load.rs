//! Loading a session.
//!
//! One HGETALL, which writes nothing. In [`Layout::BottleSession`], which cannot say when a session was last saved, a
//! PEXPIRE behind it starts the idle limit anew; that it is refused, by a replica for one, keeps nobody out.

use std::sync::Arc;
use std::time::SystemTime;

use super::record::{self, Found, Key, RecordError, SHORT_REPLY};
use super::steps::{Request, Step};
use super::transaction::{self, Call, Outcome, Transaction};
use super::{Layout, MOVE, Settings, desync, foreign, newer, refused};
use crate::pipeline::operation::Round;
use crate::redis::{RedisReply as Reply, Replies};
use crate::session::id::SessionId;
use crate::session::store::{Lifetimes, Load, Loaded, Record};
use crate::{Error, ErrorKind, Result};

pub(super) struct LoadStep {
    settings: Arc<Settings>,
    id: SessionId,
    key: Key,
    /// The key in a layout that this one takes over from.
    former: Option<Box<Key>>,
    lifetimes: Lifetimes,
    state: State,
    /// What the damage observers are to hear.
    damage: Option<Error>,
    too_large: bool,
}

enum State {
    /// The record is to be read.
    Reading,
    /// There is none; that of the former layout is to be looked at.
    Looking,
    /// It is too large for any session, and is removed: it is not to be read again and again.
    Removing,
    /// There is one, which holds this; it is to be taken over, in a transaction of so many commands.
    Moving(Box<Record>, usize),
    Over(Result<Loaded>),
}

impl LoadStep {
    pub(super) fn new(settings: &Arc<Settings>, load: &Load<'_>) -> LoadStep {
        LoadStep {
            settings: settings.clone(),
            id: load.id.clone(),
            key: Key::new(settings, settings.layout, load.id),
            former: settings.former_key(load.id),
            lifetimes: load.lifetimes,
            state: State::Reading,
            damage: None,
            too_large: false,
        }
    }

    fn read(
        &mut self,
        hash: Option<Reply<'_>>,
        layout: Layout,
        now: SystemTime,
    ) -> Result<Result<Loaded>, RecordError> {
        let hash = match hash {
            Some(Reply::Array(hash)) => hash,
            Some(Reply::Error(line)) => return Ok(Err(refused(line))),
            _ => return Err(RecordError::Desync),
        };
        match record::read(&self.settings, layout, &self.key, hash, &self.lifetimes, now) {
            Ok(Found { loaded, left_out }) => {
                if left_out && layout == self.settings.layout {
                    self.damaged("has fields that are not text; these are left out");
                } else if left_out {
                    self.damaged("has fields that are not text; it is not taken over");
                }
                Ok(Ok(loaded))
            }
            Err(RecordError::Damaged(how)) => {
                self.damaged(&format!("{how}: it is no session"));
                Ok(Ok(Loaded::Unknown))
            }
            Err(RecordError::TooLarge) => {
                self.too_large = layout == self.settings.layout;
                let caps = self.settings.caps;
                self.damaged(&format!(
                    "is far larger than {} fields or {} bytes: it is no session",
                    caps.fields, caps.bytes
                ));
                Ok(Ok(Loaded::Unknown))
            }
            Err(RecordError::Newer) => Ok(Err(newer())),
            Err(RecordError::Foreign) => {
                self.state = State::Over(Err(foreign()));
                Err(RecordError::Foreign)
            }
            Err(RecordError::Desync) => Err(RecordError::Desync),
        }
    }

    fn damaged(&mut self, how: &str) {
        let text = format!("the record of {:?} in redis {how}", self.id);
        self.damage = Some(Error::new(ErrorKind::Session, text));
    }
}

impl Step for LoadStep {
    type Outcome = Result<Loaded>;

    fn is_over(&self) -> bool {
        matches!(self.state, State::Over(_))
    }

    fn request(&mut self, round: &mut Round<'_>) -> Request {
        round.for_key(&self.key.name);
        let mut max_reply_bytes = record::max_reply_bytes(&self.settings);
        match (&mut self.state, &self.former) {
            (State::Moving(_, queued), Some(former)) => {
                let now = record::milliseconds_since_1970(round.now());
                let (proof, idle) = (self.key.proof(now), self.lifetimes.idle);
                let saved = record::saved(now, idle);
                let ends = record::milliseconds(self.settings.kept_for(idle));
                let mut transaction = Transaction::begin(round);
                let keys: [&[u8]; 2] = [&self.key.name, &former.name];
                let ends = ends.to_string();
                transaction.script(MOVE, &keys, &[&proof, &saved, ends.as_bytes()], &[]);
                transaction.command(&[b"HGETALL", &self.key.name]);
                // Refused as a whole where the script could not set the end of what it has moved.
                transaction.call(&[&self.key.name[..], b".new"].concat(), &Call::expiry(1));
                *queued = transaction.commit();
            }
            (State::Removing, _) => round.command(&[b"UNLINK", &self.key.name]),
            (State::Looking, Some(former)) => round.command(&[b"HGETALL", &former.name]),
            _ => {
                round.command(&[b"HGETALL", &self.key.name]);
                if self.settings.layout == Layout::BottleSession {
                    let ends = record::milliseconds(self.lifetimes.idle).to_string();
                    round.command(&[b"PEXPIRE", &self.key.name, ends.as_bytes()]);
                    max_reply_bytes += SHORT_REPLY;
                }
            }
        }
        // The new idle limit in bottle-session's layout is no promise to anybody.
        let read_only = matches!(self.state, State::Reading | State::Looking);
        Request { repeatable: true, read_only, max_reply_bytes }
    }

    fn answer(&mut self, replies: &mut Replies<'_>, now: SystemTime) -> Result<(), RecordError> {
        self.state = match std::mem::replace(&mut self.state, State::Reading) {
            State::Reading => {
                let layout = self.settings.layout;
                let read = self.read(replies.next(), layout, now)?;
                if layout == Layout::BottleSession {
                    match replies.next() {
                        Some(Reply::Integer(_) | Reply::Error(_)) => {}
                        _ => return Err(RecordError::Desync),
                    }
                }
                match read {
                    Ok(Loaded::Unknown) if self.too_large => State::Removing,
                    Ok(Loaded::Unknown) if self.former.is_some() && self.damage.is_none() => {
                        State::Looking
                    }
                    read => State::Over(read),
                }
            }
            State::Removing => match replies.next() {
                Some(_) => State::Over(Ok(Loaded::Unknown)),
                None => return Err(RecordError::Desync),
            },
            State::Looking => match self.read(replies.next(), Layout::BottleSession, now)? {
                // What cannot be taken over stays where it is, for those that can read it.
                _ if self.damage.is_some() => State::Over(Ok(Loaded::Unknown)),
                Ok(Loaded::Session(record)) => State::Moving(Box::new(record), 0),
                read => State::Over(read),
            },
            State::Moving(seen, queued) => match transaction::read(replies, queued)? {
                Outcome::Done(mut results) => match results.next() {
                    Some(Reply::Error(line)) => State::Over(unmoved(*seen, line)),
                    Some(Reply::Integer(_)) => {
                        State::Over(self.read(results.next(), self.settings.layout, now)?)
                    }
                    _ => return Err(RecordError::Desync),
                },
                Outcome::Refused(line) => State::Over(unmoved(*seen, line)),
            },
            over @ State::Over(_) => over,
        };
        Ok(())
    }

    fn fail(&mut self, error: Error) {
        self.state = match std::mem::replace(&mut self.state, State::Reading) {
            over @ State::Over(_) => over,
            State::Removing => State::Over(Ok(Loaded::Unknown)),
            _ => State::Over(Err(error)),
        };
    }

    fn into_outcome(self) -> Result<Loaded> {
        if let Some(damage) = &self.damage {
            self.settings.tell_of_damage(damage);
        }
        match self.state {
            State::Over(outcome) => outcome,
            _ => Err(desync()),
        }
    }
}

/// A record of the former layout that could not be moved. Where Redis does not write now it is read where it is.
fn unmoved(seen: Record, refusal: &[u8]) -> Result<Loaded> {
    match refused(refusal) {
        error if error.kind() == ErrorKind::Unavailable => Ok(Loaded::Session(seen)),
        error => Err(error),
    }
}
