//! Saving a session: creations, updates, moves and ends.
//!
//! An update is one transaction: HSET, HDEL, HMGET of the proof and of the session's own idle limit, PEXPIRE. It does not
//! ask first whether the session is there. Dead stays dead all the same, because of who writes the proof:
//!
//! 1. A record without a proof is no session to any reader. The proof is written by creations, moves and migrations
//!    alone, each in one step to a key that is free, and a creation and a move to that of a fresh id.
//! 2. What ends a session (UNLINK, a move's RENAME, expiry, eviction, FLUSHALL) takes the proof along, at one moment. An
//!    update before that moment is part of what ends. One behind it writes values without a proof, sees that, and
//!    answers [`Saved::Gone`].
//! 3. Nothing comes between the HSET and the HMGET of a transaction: the proof that an update sees is the one beside its
//!    values. Only expiry can, in Redis 5; then PEXPIRE finds no key.
//! 4. What a late update wrote has an end from the same transaction. It is removed in a second round trip, by a script that
//!    looks for the proof again; if that is lost, it lies there until its end, and no reader sees it. More late updates
//!    only add to it, a creation removes it first, a migration and a move replace it.
//! 5. A connection that is cut before EXEC leaves nothing behind, one that is cut after it a whole update whose answer is
//!    lost: it is not sent again, and its request answers 503. Creations, moves and ends are sent again, and find out that
//!    they have been done: a creation by the record, which has its owner's mark and its values, a move by the mark under its new id.
//!
//! The PEXPIRE of an update goes by the idle limit that its request has loaded. If somebody has set another one meanwhile
//! ([`Session::remember`](crate::Session::remember)), the transaction tells, and another one corrects that before the answer.
//! Either way the next load sees that the record was saved with another limit than it has, and its request saves it anew
//! and sends the right cookie.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use smallvec::SmallVec;

use super::record::{self, Key, LOGIN, PROOF, REMEMBER, SAVED, SHORT_REPLY, Unfit};
use super::steps::{Request, Step};
use super::transaction::{self, Call, Outcome, Transaction};
use super::{CREATE, EMPTY, GUARD, Layout, ROTATE, Settings, desync, foreign, newer, refused};
use crate::pipeline::operation::Round;
use crate::redis::{RedisReply as Reply, Replies, Words};
use crate::session::store::contract::id_taken;
use crate::session::store::{Action, Changes, Fields, Lifetimes, Remember, Save, Saved};
use crate::{Error, Result};

/// Words in one HSET or HDEL. A script can pass on some thousands, and no more.
const CHUNK: usize = 2000;

pub(super) struct SaveStep {
    settings: Arc<Settings>,
    key: Key,
    what: What,
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
    former: Option<Key>,
    /// Redis does not know the script.
    is_unknown: bool,
    state: State,
    /// How many commands the last transaction had.
    queued: usize,
}

enum What {
    Create,
    Update,
    Rotate {
        to: Key,
        /// The key in a layout that this one takes over from.
        former: Option<Key>,
    },
    Destroy {
        former: Option<Key>,
    },
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
        let what = match save.action {
            Action::Create => What::Create,
            Action::Update => What::Update,
            Action::Rotate { to } => What::Rotate {
                to: Key::new(settings, settings.layout, to),
                former: settings.former_key(save.id),
            },
            Action::Destroy => What::Destroy { former: settings.former_key(save.id) },
        };
        let mut step = SaveStep {
            settings: settings.clone(),
            key: Key::new(settings, settings.layout, save.id),
            what,
            lifetimes: save.lifetimes,
            idle: save.idle(),
            remember: save.remember,
            renewed_ago: save.renewed_ago,
            login: save.login.map(str::to_owned),
            created: save.created.map(record::milliseconds_since_1970),
            values: Values::default(),
            is_written: false,
            former: match save.action {
                Action::Update | Action::Rotate { .. } => settings.former_key(save.id),
                Action::Create | Action::Destroy => None,
            },
            is_unknown: false,
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
        if count == 0 && matches!(self.what, What::Create) && !self.settings.keeps_empty() {
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

    fn has_proof(&self) -> bool {
        self.settings.layout == Layout::Default
    }

    /// How long the record is kept from now on, in milliseconds.
    fn kept_for(&self, created: Option<u64>, now: u64) -> u64 {
        let kept = record::milliseconds(self.settings.kept_for(self.idle));
        let Some(absolute) = self.lifetimes.absolute.map(record::milliseconds) else { return kept };
        // Where that is not known, now is the latest that it can be.
        let end = created.unwrap_or(now).saturating_add(absolute);
        kept.min(end.saturating_sub(now))
    }

    // What is sent.

    /// The commands that write the values.
    fn calls(&self, now: u64, proof: Option<&[u8]>) -> SmallVec<[Call<'_>; 4]> {
        let (mut calls, mut set) = (SmallVec::new(), self.values.set.iter());
        let mut first = Call::new("HSET");
        if let Some(proof) = proof {
            first = first.with(PROOF).with(proof);
        }
        if self.has_proof() {
            let renewed = now.saturating_sub(self.renewed_ago.map_or(0, record::milliseconds));
            first = first.with(SAVED).with(&record::saved(renewed, self.idle));
        }
        if let (true, Remember::To(Some(own))) = (self.has_proof(), self.remember) {
            first = first.with(REMEMBER).with(&record::base36(record::milliseconds(own)));
        }
        if let (true, Some(user)) = (self.has_proof(), &self.login) {
            first = first.with(LOGIN).with(&record::login(user, now));
        }
        match set.next() {
            Some(words) => calls.push(first.and(words)),
            None if self.has_proof() => calls.push(first),
            None => {}
        }
        calls.extend(set.map(|words| Call::new("HSET").and(words)));
        if let (true, None, Remember::To(None)) = (self.has_proof(), proof, self.remember) {
            calls.push(Call::new("HDEL").with(REMEMBER));
        }
        calls.extend(self.values.removed.iter().map(|words| Call::new("HDEL").and(words)));
        calls
    }

    fn create(&self, round: &mut Round<'_>, now: u64) {
        static HASH: LazyLock<String> =
            LazyLock::new(|| ::redis::Script::new(CREATE).get_hash().to_owned());
        let proof = self.has_proof().then(|| self.key.proof(now));
        let calls = self.calls(now, proof.as_deref());
        let (name, script) = match self.is_unknown {
            false => (&b"EVALSHA"[..], HASH.as_bytes()),
            true => (&b"EVAL"[..], CREATE.as_bytes()),
        };
        let sets = || calls.iter().filter(|call| call.name == "HSET");
        let words = sets().map(Call::arguments).sum::<usize>();
        round.command_of(5 + words, |command| {
            command.word(name);
            command.word(script);
            command.number(1);
            command.word(&self.key.name);
            command.number(self.kept_for(Some(now), now).try_into().unwrap_or(i64::MAX));
            for call in sets() {
                command.words(&call.own);
                if let Some(more) = call.more {
                    command.words(more);
                }
            }
        });
    }

    fn update(&self, round: &mut Round<'_>, now: u64) -> usize {
        let key = &self.key.name[..];
        let (mut calls, expiry) =
            (self.calls(now, None), Call::expiry(self.kept_for(self.created, now)));
        let is_alone = round.is_for_one_key();
        let mut transaction = Transaction::begin(round);
        if !self.has_proof() {
            if self.values.cleared {
                calls.insert(0, Call::new("UNLINK"));
            }
            calls.push(expiry);
            transaction.script(GUARD, &[key], &[b""], &calls);
            self.or_nothing(&mut transaction, is_alone);
            return transaction.commit();
        }
        if self.values.cleared {
            transaction.script(EMPTY, &[key], &[b"1"], &[]);
        }
        calls.iter().for_each(|call| transaction.call(key, call));
        transaction.command(&[b"HMGET", key, PROOF, REMEMBER]);
        transaction.call(key, &expiry);
        transaction.commit()
    }

    fn rotate(&self, round: &mut Round<'_>, to: &Key, former: Option<&Key>, now: u64) -> usize {
        let mut calls = self.calls(now, None);
        calls.push(Call::expiry(self.kept_for(self.created, now)));
        let mut keys = vec![&self.key.name[..], &to.name];
        keys.extend(former.map(|former| &former.name[..]));
        let oldest = match self.lifetimes.absolute {
            Some(limit) => now.saturating_sub(record::milliseconds(limit)),
            None => 0,
        };
        let owners = if self.has_proof() { [self.key.owner(), to.owner()] } else { [&b""[..]; 2] };
        let (oldest, cleared) = (oldest.to_string(), u8::from(self.values.cleared).to_string());
        // Who logs in gets a session in any case.
        let proof = self.login.as_ref().filter(|_| self.has_proof()).map(|_| to.proof(now));
        let proof = proof.unwrap_or_default();
        let ends = self.kept_for(Some(now), now).to_string();
        let arguments =
            [owners[0], owners[1], oldest.as_bytes(), cleared.as_bytes(), &proof, ends.as_bytes()];
        let is_alone = round.is_for_one_key();
        let mut transaction = Transaction::begin(round);
        transaction.script(ROTATE, &keys, &arguments, &calls);
        match self.has_proof() {
            true => transaction.command(&[b"HMGET", &to.name, PROOF, REMEMBER]),
            false => transaction.command(&[b"EXISTS", &to.name]),
        }
        self.or_nothing(&mut transaction, is_alone);
        transaction.commit()
    }

    /// A key that nobody ever sees: at the end of each transaction it is not there.
    fn unseen(&self) -> Vec<u8> {
        [&self.key.name[..], b".new"].concat()
    }

    /// What a script may not do is found out in its midst; what a transaction may not do, before it begins. This one
    /// does nothing, but without PEXPIRE nothing is done.
    fn or_nothing(&self, transaction: &mut Transaction<'_, '_>, is_alone: bool) {
        if !is_alone {
            transaction.call(&self.unseen(), &Call::expiry(1));
        }
    }

    /// Removes what a late save has left, if there is no session.
    fn clean_up(&self, round: &mut Round<'_>) {
        let dead: &[u8] = if self.has_proof() { b"0" } else { b"-1" };
        round.command(&[b"EVAL", EMPTY.as_bytes(), b"1", &self.key.name, dead]);
    }

    // What is answered.

    fn created(&mut self, reply: Option<Reply<'_>>) -> Result<State, Unfit> {
        match reply {
            Some(Reply::Integer(1)) => Ok(stored()),
            Some(Reply::Integer(0)) => Ok(State::Comparing),
            Some(Reply::Error(line)) if line.starts_with(b"NOSCRIPT") && !self.is_unknown => {
                self.is_unknown = true;
                Ok(State::Writing)
            }
            // Not to what was sent: the script was in it.
            Some(Reply::Error(line)) if line.starts_with(b"NOSCRIPT") => Err(Unfit::OutOfStep),
            Some(Reply::Error(line)) => Ok(State::Over(Err(refused(line)))),
            _ => Err(Unfit::OutOfStep),
        }
    }

    /// Whether the record that is there is what was to be created: then this was the second time. If it was what a
    /// late save has left, it has made room by now.
    fn compared(&self, replies: &mut Replies<'_>, now: SystemTime) -> Result<State, Unfit> {
        let hash = match (replies.next(), replies.next()) {
            (Some(Reply::Nil), Some(Reply::Array(hash))) => hash,
            (Some(Reply::Error(line)), Some(_)) | (Some(_), Some(Reply::Error(line))) => {
                return Ok(State::Over(Err(refused(line))));
            }
            _ => return Err(Unfit::OutOfStep),
        };
        let (settings, lifetimes) = (&self.settings, &self.lifetimes);
        let found = record::read(settings, settings.layout, &self.key, hash, lifetimes, now);
        let mut wanted = Fields::new();
        for chunk in &self.values.set {
            let mut words = chunk.iter().map(String::from_utf8_lossy);
            while let (Some(name), Some(value)) = (words.next(), words.next()) {
                wanted.insert(&name, &value);
            }
        }
        let is_wanted = match found.map(|found| found.record) {
            Ok(Some(record)) => record.fields == wanted,
            Ok(None) if hash.is_empty() && wanted.is_empty() => true,
            Ok(None) if hash.is_empty() => return Ok(State::Writing),
            // It has reached its absolute limit, and no update has found that yet.
            Ok(None) => return Ok(State::Removing),
            Err(_) => false,
        };
        Ok(if is_wanted { stored() } else { State::Over(Err(id_taken())) })
    }

    fn updated(&mut self, mut results: Replies<'_>, now: SystemTime) -> Result<State, Unfit> {
        if !self.has_proof() {
            return match results.next() {
                Some(Reply::Array(_)) => Ok(stored()),
                Some(Reply::Nil) => Ok(self.gone()),
                Some(Reply::Error(line)) => Ok(State::Over(Err(refused(line)))),
                _ => Err(Unfit::OutOfStep),
            };
        }
        let Some(values) = results.len().checked_sub(2) else { return Err(Unfit::OutOfStep) };
        if let Some(line) = results.by_ref().take(values).find_map(error_line) {
            return Ok(State::Over(Err(refused(line))));
        }
        match (results.next(), results.next()) {
            // The key has ended in the midst of the transaction, as it can in Redis 5.
            (Some(Reply::Array(_)), Some(Reply::Integer(0))) => Ok(self.gone()),
            (Some(Reply::Array(own)), Some(Reply::Integer(_))) => self.settled(own, now),
            (Some(Reply::Error(line)), _) | (_, Some(Reply::Error(line))) => {
                Ok(State::Over(Err(refused(line))))
            }
            _ => Err(Unfit::OutOfStep),
        }
    }

    fn rotated(&mut self, mut results: Replies<'_>, now: SystemTime) -> Result<State, Unfit> {
        let What::Rotate { to, .. } = &self.what else { return Err(Unfit::OutOfStep) };
        let moved = match results.next() {
            Some(Reply::Array(_)) => true,
            Some(Reply::Nil) => false,
            Some(Reply::Integer(0)) => return Ok(State::Over(Err(id_taken()))),
            Some(Reply::Error(line)) => return Ok(State::Over(Err(refused(line)))),
            Some(Reply::Bulk(proof)) => {
                let unfit = self.key.created(proof).err().unwrap_or(Unfit::OutOfStep);
                return self.unfit(unfit);
            }
            _ => return Err(Unfit::OutOfStep),
        };
        // Under its old id it is not. If it is under the new one, who but this move can have brought it there?
        let (own, is_there) = match results.next() {
            Some(Reply::Array(own)) => {
                let proof = { own }.next().and_then(Reply::bulk);
                let created = proof.and_then(|proof| to.created(proof).ok());
                (
                    Some(own),
                    created.is_some_and(|created| {
                        !record::is_past_absolute(&self.lifetimes, created, now)
                    }),
                )
            }
            Some(Reply::Integer(keys)) => (None, keys == 1),
            Some(Reply::Error(line)) => return Ok(State::Over(Err(refused(line)))),
            _ => return Err(Unfit::OutOfStep),
        };
        match (moved, own) {
            (true, Some(own)) => {
                // From here on it is an update of the record under its new key.
                self.key = to.clone();
                self.what = What::Update;
                self.settled(own, now)
            }
            (true, None) => Ok(stored()),
            (false, _) if is_there => Ok(stored()),
            (false, _) if self.former.is_some() => Ok(State::CleaningUp),
            (false, _) => Ok(self.gone()),
        }
    }

    /// Reads what an update asks for at its end: whether there is a session, and how long it is to live.
    fn settled(&mut self, mut own: Replies<'_>, now: SystemTime) -> Result<State, Unfit> {
        let created = match own.next() {
            // It has ended since it was written.
            Some(Reply::Nil) if self.is_written => return Ok(stored()),
            Some(Reply::Nil) => return Ok(State::CleaningUp),
            Some(Reply::Bulk(proof)) => match self.key.created(proof) {
                Ok(created) => created,
                Err(unfit) => return self.unfit(unfit),
            },
            _ => return Err(Unfit::OutOfStep),
        };
        if record::is_past_absolute(&self.lifetimes, created, now) {
            return Ok(State::Removing);
        }
        let idle = own.next().and_then(Reply::bulk).and_then(record::number);
        let idle = idle.map_or(self.lifetimes.idle, Duration::from_millis);
        // Without the time of creation the record may have been given a later end than the absolute limit.
        let is_right = self.created.is_some() || self.lifetimes.absolute.is_none();
        if is_right && record::milliseconds(idle) == record::milliseconds(self.idle) {
            return Ok(stored());
        }
        // Or somebody else has set the limit since this session was loaded, or taken it back.
        self.idle = idle;
        self.created = Some(created);
        self.is_written = true;
        Ok(State::Extending)
    }

    fn gone(&self) -> State {
        State::Over(Ok(if self.is_written { Saved::Stored } else { Saved::Gone }))
    }

    /// The proof that is there is not that of this session.
    fn unfit(&mut self, unfit: Unfit) -> Result<State, Unfit> {
        match unfit {
            Unfit::Damaged(_) | Unfit::TooLarge => Ok(self.gone()),
            Unfit::Newer => Ok(State::Over(Err(newer()))),
            Unfit::OutOfStep => Err(unfit),
            Unfit::Foreign => {
                self.state = State::Over(Err(foreign()));
                Err(unfit)
            }
        }
    }
}

fn unmoved() -> Error {
    Error::new(
        crate::ErrorKind::Unavailable,
        "redis did not let the session move from its former layout when it was loaded, nothing was written; \
         another try moves it",
    )
}

fn stored() -> State {
    State::Over(Ok(Saved::Stored))
}

fn error_line(reply: Reply<'_>) -> Option<&[u8]> {
    match reply {
        Reply::Error(line) => Some(line),
        _ => None,
    }
}

/// The chunk that has place for two more words.
fn chunk(chunks: &mut SmallVec<[Words; 1]>) -> &mut Words {
    if chunks.last().is_none_or(|last| last.len() + 2 > CHUNK) {
        chunks.push(Words::short());
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
        let mut longest_reply = SHORT_REPLY;
        match (&self.state, &self.what) {
            (State::Comparing, _) => {
                self.clean_up(round);
                round.command(&[b"HGETALL", &self.key.name]);
                longest_reply = record::longest_reply(&self.settings);
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
                let ends = self.kept_for(self.created, now).to_string();
                round.command(&[b"PEXPIRE", &self.key.name, ends.as_bytes()]);
            }
            (State::CleaningUp, _) => {
                self.clean_up(round);
                if let Some(former) = &self.former {
                    round.command(&[b"EXISTS", &former.name]);
                }
            }
            (State::Removing, _) => round.command(&[b"UNLINK", &self.key.name]),
            (_, What::Create) => self.create(round, now),
            (_, What::Update) => {
                self.queued = self.update(round, now);
            }
            (_, What::Rotate { to, former }) => {
                self.queued = self.rotate(round, to, former.as_ref(), now);
            }
            (_, What::Destroy { former: None }) => {
                round.command(&[b"UNLINK", &self.key.name]);
            }
            (_, What::Destroy { former: Some(former) }) => {
                round.command(&[b"UNLINK", &self.key.name, &former.name]);
            }
        }
        let updates = matches!((&self.state, &self.what), (State::Writing, What::Update));
        Request { repeatable: !updates, read_only: false, longest_reply }
    }

    fn answer(&mut self, replies: &mut Replies<'_>, now: SystemTime) -> Result<(), Unfit> {
        self.state = match (&self.state, &self.what) {
            (State::Comparing, _) => self.compared(replies, now)?,
            (State::Removing, What::Create) => match replies.next() {
                Some(Reply::Integer(_)) => State::Writing,
                Some(Reply::Error(line)) => State::Over(Err(refused(line))),
                _ => return Err(Unfit::OutOfStep),
            },
            (State::Extending, _) if self.is_written => {
                match transaction::read(replies, self.queued)? {
                    Outcome::Done(mut results) => match results.next() {
                        Some(Reply::Array(own)) => self.settled(own, now)?,
                        Some(Reply::Error(_)) => stored(),
                        _ => return Err(Unfit::OutOfStep),
                    },
                    Outcome::Refused(_) => stored(),
                }
            }
            (State::Extending, _) => match replies.next() {
                Some(Reply::Integer(0)) => self.gone(),
                Some(Reply::Integer(_)) => stored(),
                Some(Reply::Error(line)) => State::Over(Err(refused(line))),
                _ => return Err(Unfit::OutOfStep),
            },
            // Whether that worked or not: no reader takes it for a session.
            (State::CleaningUp, _) => match (replies.next(), &self.former) {
                (Some(_), None) => self.gone(),
                (Some(_), Some(_)) => match replies.next() {
                    // When it was loaded, Redis did not write, so that it was read where it was.
                    Some(Reply::Integer(1)) => State::Over(Err(unmoved())),
                    Some(_) => self.gone(),
                    None => return Err(Unfit::OutOfStep),
                },
                _ => return Err(Unfit::OutOfStep),
            },
            (State::Removing, _) => match replies.next() {
                Some(_) => self.gone(),
                None => return Err(Unfit::OutOfStep),
            },
            (_, What::Destroy { .. }) => match replies.next() {
                Some(Reply::Integer(_)) => stored(),
                Some(Reply::Error(line)) => State::Over(Err(refused(line))),
                _ => return Err(Unfit::OutOfStep),
            },
            (_, What::Create) => self.created(replies.next())?,
            (_, what) => match (transaction::read(replies, self.queued)?, what) {
                // A Redis without memory still sets when a key ends: who only reads must not be logged out by it.
                (Outcome::Refused(line), What::Update)
                    if line.starts_with(b"OOM") && self.is_only_extended() =>
                {
                    State::Extending
                }
                (Outcome::Refused(line), _) => State::Over(Err(refused(line))),
                (Outcome::Done(results), What::Rotate { .. }) => self.rotated(results, now)?,
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
