//! The operations that act in the store at once and have a result. They are few, and each is a script: it looks
//! whether there is a session before it does anything, and leaves its idle limit as it is.

use std::sync::Arc;
use std::time::SystemTime;

use smallvec::SmallVec;

use super::record::{self, Key, PROOF, RecordError, SHORT_REPLY};
use super::steps::{Request, Step};
use super::transaction::{Call, script};
use super::{COMPARE, GUARD, Layout, Settings, desync, foreign, newer, refused};
use crate::pipeline::operation::Round;
use crate::redis::{RedisReply as Reply, Replies};
use crate::session::store::{Lifetimes, Load};
use crate::session::store::{gone, not_a_number};
use crate::{Error, Result};

/// Fields in one HSET: a script can pass on some thousands of words, and no more.
const MAX_FIELDS_PER_HSET: usize = 500;

pub(super) struct OperateStep {
    settings: Arc<Settings>,
    key: Key,
    lifetimes: Lifetimes,
    operation: Atomic,
    outcome: Option<Result<Done>>,
}

pub(super) enum Atomic {
    Increment(String, i64),
    Take(Vec<String>),
    SetIfAbsent(String, String),
    /// Not in a layout without proofs.
    CompareAndSet {
        key: String,
        held: Option<String>,
        fields: Vec<(String, String)>,
    },
}

/// What an operation comes to.
#[derive(Debug)]
pub(super) enum Done {
    Number(i64),
    Values(Vec<Option<String>>),
}

impl OperateStep {
    pub(super) fn new(
        settings: &Arc<Settings>,
        load: &Load<'_>,
        operation: Atomic,
    ) -> Result<OperateStep> {
        match &operation {
            Atomic::Increment(name, _) | Atomic::SetIfAbsent(name, _) => settings.check_key(name),
            Atomic::Take(names) => names.iter().try_for_each(|name| settings.check_key(name)),
            Atomic::CompareAndSet { key, fields, .. } => {
                let names = fields.iter().map(|(name, _)| name).chain([key]);
                names.into_iter().try_for_each(|name| settings.check_key(name))
            }
        }?;
        Ok(OperateStep {
            settings: settings.clone(),
            key: Key::new(settings, settings.layout, load.id),
            lifetimes: load.lifetimes,
            operation,
            outcome: None,
        })
    }

    fn has_proof(&self) -> bool {
        self.settings.layout == Layout::Default
    }

    fn calls(&self) -> SmallVec<[Call<'_>; 4]> {
        let mut calls = SmallVec::new();
        if self.has_proof() {
            calls.push(Call::new("HGET").with(PROOF));
        }
        match &self.operation {
            Atomic::Increment(name, by) => {
                calls.push(Call::new("HINCRBY").with(name.as_bytes()).with_number(*by));
                // A number of Lua has only 53 bits: the sum comes as text.
                calls.push(Call::new("HGET").with(name.as_bytes()));
            }
            Atomic::SetIfAbsent(name, value) => {
                calls.push(Call::new("HSETNX").with(name.as_bytes()).with(value.as_bytes()));
            }
            Atomic::CompareAndSet { fields, .. } => {
                for part in fields.chunks(MAX_FIELDS_PER_HSET) {
                    calls.push(part.iter().fold(Call::new("HSET"), |call, (name, value)| {
                        call.with(name.as_bytes()).with(value.as_bytes())
                    }));
                }
            }
            Atomic::Take(names) if names.is_empty() => {}
            Atomic::Take(names) => {
                for command in ["HMGET", "HDEL"] {
                    let call = Call::new(command);
                    calls.push(names.iter().fold(call, |call, name| call.with(name.as_bytes())));
                }
            }
        }
        calls
    }

    fn read(&self, reply: Reply<'_>, now: SystemTime) -> Result<Result<Done>, RecordError> {
        let mut replies = match reply {
            Reply::Array(replies) => replies,
            Reply::Nil => return Ok(Err(gone())),
            Reply::Error(line) => return Ok(Err(self.refused(line))),
            _ => return Err(RecordError::Desync),
        };
        if self.has_proof() {
            let proof = replies.next().and_then(Reply::bulk).ok_or(RecordError::Desync)?;
            match self.key.created(proof) {
                Ok(created) if record::is_past_absolute(&self.lifetimes, created, now) => {
                    return Ok(Err(gone()));
                }
                Ok(_) => {}
                Err(RecordError::Damaged(_) | RecordError::TooLarge) => return Ok(Err(gone())),
                Err(RecordError::Newer) => return Ok(Err(newer())),
                Err(record_error) => return Err(record_error),
            }
        }
        let done = match (&self.operation, replies.next()) {
            (Atomic::SetIfAbsent(..), Some(Reply::Integer(set))) => Done::Number(set),
            (Atomic::Increment(..), Some(Reply::Integer(_))) => {
                let sum = replies.next().and_then(Reply::bulk).map(std::str::from_utf8);
                let sum = sum.and_then(|sum| sum.ok()?.parse().ok());
                Done::Number(sum.ok_or(RecordError::Desync)?)
            }
            // How many fields are new is of no interest.
            (Atomic::CompareAndSet { .. }, Some(Reply::Integer(_))) => Done::Number(1),
            (Atomic::CompareAndSet { .. }, None) => Done::Number(0),
            (Atomic::Take(names), None) if names.is_empty() => Done::Values(Vec::new()),
            (Atomic::Take(names), Some(Reply::Array(values))) if values.len() == names.len() => {
                let taken = names.iter().zip(values).enumerate().map(|(at, (name, value))| {
                    // What was taken is gone. What is not text counts as nothing.
                    let value = value.bulk().filter(|_| !names[..at].contains(name))?;
                    std::str::from_utf8(value).ok().map(str::to_owned)
                });
                Done::Values(taken.collect())
            }
            _ => return Err(RecordError::Desync),
        };
        Ok(Ok(done))
    }

    fn refused(&self, line: &[u8]) -> Error {
        let is = |part: &[u8]| memchr::memmem::find(line, part).is_some();
        match &self.operation {
            Atomic::Increment(name, _) if is(b"not an integer") || is(b"overflow") => {
                not_a_number(name)
            }
            _ => refused(line),
        }
    }
}

impl Step for OperateStep {
    type Outcome = Result<Done>;

    fn is_over(&self) -> bool {
        self.outcome.is_some()
    }

    fn request(&mut self, round: &mut Round<'_>) -> Request {
        round.for_key(&self.key.name);
        let proof = if self.has_proof() { PROOF } else { b"" };
        let key: &[&[u8]] = &[&self.key.name];
        match &self.operation {
            Atomic::CompareAndSet { key: compared, held, .. } => {
                let state: &[u8] = if held.is_some() { b"held" } else { b"absent" };
                let held = held.as_deref().unwrap_or_default().as_bytes();
                script(
                    round,
                    COMPARE,
                    key,
                    &[proof, compared.as_bytes(), state, held],
                    &self.calls(),
                );
            }
            _ => script(round, GUARD, key, &[proof], &self.calls()),
        }
        let max_reply_bytes = match self.operation {
            Atomic::Take(_) => record::max_reply_bytes(&self.settings),
            Atomic::Increment(..) | Atomic::SetIfAbsent(..) | Atomic::CompareAndSet { .. } => {
                SHORT_REPLY
            }
        };
        // It may have happened although no answer came.
        Request { repeatable: false, read_only: false, max_reply_bytes }
    }

    fn answer(&mut self, replies: &mut Replies<'_>, now: SystemTime) -> Result<(), RecordError> {
        match self.read(replies.next().ok_or(RecordError::Desync)?, now) {
            Ok(outcome) => self.outcome = Some(outcome),
            Err(RecordError::Foreign) => {
                self.outcome = Some(Err(foreign()));
                return Err(RecordError::Foreign);
            }
            Err(record_error) => return Err(record_error),
        }
        Ok(())
    }

    fn fail(&mut self, error: Error) {
        self.outcome.get_or_insert(Err(error));
    }

    fn into_outcome(self) -> Result<Done> {
        self.outcome.unwrap_or_else(|| Err(desync()))
    }
}
