//! Saving a session: creations, updates, moves and ends.
//!
//! A creation is one RESTORE of a [hash](super::dump), which fails where there is a key. Where RESTORE is refused, a script does
//! the same, at twice the time of Redis.
//!
//! An update is one transaction: HSET, HDEL, HMGET of the proof and of the session's own idle limit, PEXPIRE. It does not
//! ask first whether the session is there. Dead stays dead all the same, because of who writes the proof:
//!
//! 1. A record without a proof is no session to any reader. The proof is written by creations, moves and migrations
//!    alone, each in one step to a key that is free, and a creation and a move to that of a fresh id.
//! 2. What ends a session (UNLINK, a move's RENAME, expiry, eviction, FLUSHALL) takes the proof along, at one moment. The
//!    [tombstone](super::tombstone) that replaces it has none. An update before that moment is part of what ends. One
//!    behind it writes values without a proof, sees that, and answers [`Saved::Gone`].
//! 3. Nothing comes between the HSET and the HMGET of a transaction: the proof that an update sees is the one beside its
//!    values. Only expiry can, in Redis 5; then PEXPIRE finds no key.
//! 4. What a late update wrote has an end from the same transaction. It is removed in a second round trip, by a script that
//!    looks for the proof again; if that is lost, it lies there until its end, and no reader sees it. More late updates
//!    only add to it, a creation removes it first, a migration and a move replace it. The same goes for what the session itself has
//!    left: it says until when it is known, and the clean-up has its key end then.
//! 5. A connection that is cut before EXEC leaves nothing behind, one that is cut after it a whole update whose answer is
//!    lost: it is not sent again, and its request answers 503. Creations, moves and ends are sent again, and find out that
//!    they have been done: a creation by the record, which has its owner's mark and its values, a move by the mark under its new
//!    id, an end by a mark of its own in what it leaves.
//! 6. An end of an id that a session has moved away from goes on at the key that is named there, in a further round trip: in a
//!    cluster that is in the same slot, but a script may not look at a key that it was not given. Whatever comes between finds the
//!    session at one key of that chain, and moves it on along it or ends it.
//!
//! The PEXPIRE of an update goes by the idle limit that its request has loaded. If somebody has set another one meanwhile
//! ([`Session::remember`](crate::Session::remember)), the transaction tells, and another one corrects that before the answer.
//! Either way the next load sees that the record was saved with another limit than it has, and its request saves it anew
//! and sends the right cookie.

mod answered;
mod sent;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use smallvec::SmallVec;

use self::answered::{stored, unmoved};
use super::index::name_of;
use super::record::{self, Key, PROOF, REMEMBER, RecordError, SHORT_REPLY};
use super::steps::{Request, Step};
use super::tombstone::{self, Tombstone};
use super::transaction::{self, Call, Outcome, Transaction};
use super::{Layout, Settings, desync, refused};
use crate::pipeline::operation::Round;
use crate::redis::{RedisReply as Reply, Replies, Words};
use crate::session::store::save::TOMBSTONE_FOR;
use crate::session::store::{Action, Changes, Lifetimes, Remember, Save, Saved};
use crate::{Error, Result};

/// Words in one HSET or HDEL. A script can pass on some thousands, and no more.
const CHUNK: usize = 2000;

/// For how many milliseconds a tombstone is kept.
pub(super) const TOMBSTONE_MILLIS: u64 = TOMBSTONE_FOR.as_millis() as u64;

/// How many moves of a session are followed at most to end it.
const MAX_MOVES: usize = 16;

pub(super) struct SaveStep {
    settings: Arc<Settings>,
    key: Key,
    action: SaveAction,
    lifetimes: Lifetimes,
    /// The idle limit that the record is to live by.
    idle: Duration,
    /// The session's own one.
    remember: Remember,
    /// How long ago the limit began anew, where this save is not to count as that.
    renewed_ago: Option<Duration>,
    /// Who logs in.
    login: Option<String>,
    /// When the session was created, in milliseconds since 1970, as far as is known.
    created: Option<u64>,
    values: Values,
    /// The values are written; only the record's end is still to be corrected.
    is_written: bool,
    /// The key in a layout that this one takes over from, where the session may still be.
    former: Option<Box<Key>>,
    creates_by: CreatesBy,
    state: State,
    /// How many commands the last transaction had.
    queued: usize,
}

enum SaveAction {
    Create,
    Update,
    Rotate(Box<Rotation>),
    Destroy {
        former: Option<Box<Key>>,
        mark: String,
        /// How many moves it has been followed over.
        moves: usize,
    },
    ExtendGrace,
    /// So many milliseconds from now.
    EndGrace(u64),
}

#[derive(Clone, Copy)]
enum CreatesBy {
    Restore,
    /// Where RESTORE is refused.
    Script,
}

/// A move to another id.
struct Rotation {
    to: Key,
    /// The key in a layout that this one takes over from.
    former: Option<Box<Key>>,
    /// What is written to the old key.
    tombstone: Tombstone,
}

/// What is written to the record.
#[derive(Default)]
struct Values {
    cleared: bool,
    /// Names and values, in turn.
    set: SmallVec<[Words; 1]>,
    removed: SmallVec<[Words; 1]>,
}

enum State {
    Writing,
    /// A record is there already: is it what was to be created?
    Comparing,
    /// The values are written, or there are none; the record is to end later than it does.
    Extending,
    /// There is no session. What was written to it is to be removed.
    CleaningUp,
    /// The session has reached its absolute limit. Its record is to be removed.
    Removing,
    Over(Result<Saved>),
}

impl SaveStep {
    pub(super) fn new(settings: &Arc<Settings>, save: &Save<'_>) -> SaveStep {
        let action = match save.action {
            Action::Create => SaveAction::Create,
            Action::Update => SaveAction::Update,
            Action::Rotate { to } => SaveAction::Rotate(Box::new(Rotation {
                to: Key::new(settings, settings.layout, to),
                former: settings.former_key(save.id),
                tombstone: Tombstone::of(save.old_id),
            })),
            Action::Destroy => {
                let (former, mark) = (settings.former_key(save.id), tombstone::mark());
                SaveAction::Destroy { former, mark, moves: 0 }
            }
            Action::ExtendGrace => SaveAction::ExtendGrace,
            Action::EndGrace(after) => SaveAction::EndGrace(record::milliseconds(after)),
        };
        let mut step = SaveStep {
            settings: settings.clone(),
            key: Key::new(settings, settings.layout, save.id),
            action,
            lifetimes: save.lifetimes,
            idle: save.idle(),
            remember: save.remember,
            renewed_ago: save.renewed_ago,
            login: save.login.map(|login| login.user.to_owned()),
            created: save.created.map(record::milliseconds_since_1970),
            values: Values::default(),
            is_written: false,
            former: match save.action {
                Action::Update | Action::Rotate { .. } => settings.former_key(save.id),
                _ => None,
            },
            creates_by: match settings.creates_by_script.load(Ordering::Relaxed) {
                true => CreatesBy::Script,
                false => CreatesBy::Restore,
            },
            state: State::Writing,
            queued: 0,
        };
        step.set_values(save.changes);
        step
    }

    fn set_values(&mut self, changes: &Changes) {
        self.values.cleared = changes.cleared;
        let (mut count, mut bytes) = (0, 0);
        for (name, value) in &changes.fields {
            match value {
                Some(value) => {
                    (count, bytes) = (count + 1, bytes + name.len() + value.len());
                    let chunk = chunk(&mut self.values.set);
                    chunk.push(name.as_bytes());
                    chunk.push(value.as_bytes());
                }
                None => chunk(&mut self.values.removed).push(name.as_bytes()),
            }
        }
        let names = changes.fields.keys();
        let checked = { names }.try_for_each(|name| self.settings.check_key(name));
        // Together with what others set it may become more.
        if let Err(error) = checked.and(self.settings.caps.check(count, bytes)) {
            self.state = State::Over(Err(error));
            return;
        }
        if count == 0 && matches!(self.action, SaveAction::Create) && !self.settings.keeps_empty() {
            // There is nothing to write.
            self.state = State::Comparing;
        }
    }

    /// Whether it changes nothing, and says no more than that the session was used.
    fn is_only_extended(&self) -> bool {
        let Values { cleared, set, removed } = &self.values;
        self.has_proof()
            && !cleared
            && set.is_empty()
            && removed.is_empty()
            && matches!(self.remember, Remember::Same(_))
    }

    /// What the index calls the session that is written to.
    pub(super) fn name(&self) -> Vec<u8> {
        name_of(&self.settings, &self.key)
    }

    /// The idle limit that the record turned out to have.
    pub(super) fn idle(&self) -> Duration {
        self.idle
    }

    fn has_proof(&self) -> bool {
        self.settings.layout == Layout::Default
    }
}

/// The chunk that has place for two more words.
fn chunk(chunks: &mut SmallVec<[Words; 1]>) -> &mut Words {
    if chunks.last().is_none_or(|last| last.len() + 2 > CHUNK) {
        chunks.push(Words::default());
    }
    let last = chunks.len() - 1;
    &mut chunks[last]
}

impl Step for SaveStep {
    type Outcome = Result<Saved>;

    fn is_over(&self) -> bool {
        matches!(self.state, State::Over(_))
    }

    fn request(&mut self, round: &mut Round<'_>) -> Request {
        round.for_key(&self.key.name);
        let now = record::milliseconds_since_1970(round.now());
        let mut max_reply_bytes = SHORT_REPLY;
        match (&self.state, &self.action) {
            (State::Comparing, _) => {
                self.clean_up(round, now);
                round.command(&[b"HGETALL", &self.key.name]);
                max_reply_bytes = record::max_reply_bytes(&self.settings);
            }
            (State::Extending, _) if self.is_written => {
                // Once more together with the question: yet another limit may have been set. That the record was saved
                // with another limit than it has stays to be seen: the next request that loads it sends the right
                // cookie.
                let mut transaction = Transaction::begin(round);
                transaction.command(&[b"HMGET", &self.key.name, PROOF, REMEMBER]);
                transaction.call(&self.key.name, &Call::expiry(self.kept_for(self.created, now)));
                self.queued = transaction.commit();
            }
            (State::Extending, _) => {
                // Not in a transaction, which a Redis without memory does not take. What a dead id has left is no session:
                // one that is there behind it was there before.
                let ends = self.kept_for(self.created, now).to_string();
                round.command(&[b"PEXPIRE", &self.key.name, ends.as_bytes()]);
                round.command(&[b"HEXISTS", &self.key.name, PROOF]);
            }
            (State::CleaningUp, _) => {
                self.clean_up(round, now);
                if let Some(former) = &self.former {
                    round.command(&[b"EXISTS", &former.name]);
                }
            }
            (State::Removing, _) => round.command(&[b"UNLINK", &self.key.name]),
            (_, SaveAction::Create) => {
                self.create(round, now);
            }
            (_, SaveAction::Update) => {
                self.queued = self.update(round, now);
            }
            (_, SaveAction::Rotate(rotation)) => {
                self.queued = self.rotate(round, rotation, now);
            }
            (_, SaveAction::Destroy { former, mark, .. }) => {
                self.destroy(round, former.as_deref(), mark, now);
            }
            (_, SaveAction::ExtendGrace) => self.change_grace(round, now, None),
            (_, SaveAction::EndGrace(after)) => self.change_grace(round, now, Some(*after)),
        }
        let updates = matches!((&self.state, &self.action), (State::Writing, SaveAction::Update));
        Request { repeatable: !updates, read_only: false, max_reply_bytes }
    }

    fn answer(&mut self, replies: &mut Replies<'_>, now: SystemTime) -> Result<(), RecordError> {
        self.state = match (&self.state, &self.action) {
            (State::Comparing, _) => self.compared(replies, now)?,
            (State::Removing, SaveAction::Create) => match replies.next() {
                Some(Reply::Integer(_)) => State::Writing,
                Some(Reply::Error(line)) => State::Over(Err(refused(line))),
                _ => return Err(RecordError::Desync),
            },
            (State::Extending, _) if self.is_written => {
                match transaction::read(replies, self.queued)? {
                    Outcome::Done(mut results) => match results.next() {
                        Some(Reply::Array(own)) => self.read_lifetime(own, now)?,
                        Some(Reply::Error(_)) => stored(),
                        _ => return Err(RecordError::Desync),
                    },
                    Outcome::Refused(_) => stored(),
                }
            }
            (State::Extending, _) => match (replies.next(), replies.next()) {
                (Some(Reply::Error(line)), Some(_)) | (Some(_), Some(Reply::Error(line))) => {
                    State::Over(Err(refused(line)))
                }
                (Some(Reply::Integer(1)), Some(Reply::Integer(1))) => stored(),
                (Some(Reply::Integer(_)), Some(Reply::Integer(_))) => self.gone(),
                _ => return Err(RecordError::Desync),
            },
            // Whether that worked or not: no reader takes it for a session.
            (State::CleaningUp, _) => match (replies.next(), &self.former) {
                (Some(_), None) => self.gone(),
                (Some(_), Some(_)) => match replies.next() {
                    // When it was loaded, Redis did not write, so that it was read where it was.
                    Some(Reply::Integer(1)) => State::Over(Err(unmoved())),
                    Some(_) => self.gone(),
                    None => return Err(RecordError::Desync),
                },
                _ => return Err(RecordError::Desync),
            },
            (State::Removing, _) => match replies.next() {
                Some(_) => self.gone(),
                None => return Err(RecordError::Desync),
            },
            (_, SaveAction::Destroy { .. } | SaveAction::ExtendGrace | SaveAction::EndGrace(_)) => {
                self.ended(replies.next())?
            }
            (_, SaveAction::Create) => self.created(replies.next())?,
            (_, action) => match (transaction::read(replies, self.queued)?, action) {
                // A Redis without memory still sets when a key ends: who only reads must not be logged out by it.
                (Outcome::Refused(line), SaveAction::Update)
                    if line.starts_with(b"OOM") && self.is_only_extended() =>
                {
                    State::Extending
                }
                (Outcome::Refused(line), _) => State::Over(Err(refused(line))),
                (Outcome::Done(results), SaveAction::Rotate(_)) => self.rotated(results, now)?,
                (Outcome::Done(results), _) => self.updated(results, now)?,
            },
        };
        Ok(())
    }

    fn fail(&mut self, error: Error) {
        self.state = match std::mem::replace(&mut self.state, State::Writing) {
            over @ State::Over(_) => over,
            // What was found before the connection failed stands.
            State::Extending if self.is_written => stored(),
            // Whether the session is elsewhere was still to be found out.
            State::CleaningUp if self.former.is_some() => State::Over(Err(error)),
            State::CleaningUp | State::Removing => self.gone(),
            State::Writing | State::Extending | State::Comparing => State::Over(Err(error)),
        };
    }

    fn into_outcome(self) -> Result<Saved> {
        match self.state {
            State::Over(outcome) => outcome,
            _ => Err(desync()),
        }
    }
}
