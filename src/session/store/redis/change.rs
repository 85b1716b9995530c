//! Changing a session: creations, updates, moves, ends, and the three operations.
//!
//! An update is one transaction: HSET, HDEL, HMGET of the proof and of the session's own idle limit, PEXPIRE. It does not
//! ask first whether the session is there. That dead stays dead all the same follows from who writes the proof:
//!
//! 1. A record without a proof is no session to any reader. The proof is written by a creation, which carries a
//!    finished record to a key that is free (RENAMENX), by a move to a free key, and by a migration; all of them to the key of
//!    an id that is new in this layout. Nothing else writes it, and no update does.
//! 2. So what ends a session, ends it for good: UNLINK, a move (RENAME), expiry, an eviction and FLUSHALL take the proof
//!    with the key, at one moment. An update that comes before this moment is part of what ends. One that comes behind
//!    writes values without a proof, sees that, and answers [`Saved::Gone`].
//! 3. An update is one transaction, so nothing comes between its HSET and its HMGET: the proof that it sees is the one
//!    beside its values. Expiry can, in Redis 5; then PEXPIRE finds no key.
//! 4. What a late update wrote has an end, as PEXPIRE is in the same transaction. It is removed in a second round trip by a
//!    script that looks for the proof again. If the connection is cut before, it lies there unseen until it ends: two late
//!    updates only add to it, a creation never meets it (a fresh id), a migration replaces it (RENAME).
//! 5. A cut connection before EXEC leaves nothing, one behind it a whole update whose answer is lost: it is not sent again,
//!    and its request answers 503. Creations, moves and ends are sent again, and find that they have been done.
//! 6. A move whose old record is gone writes nothing, unless the new one has the new id's mark: that was this move.
//!
//! The PEXPIRE of an update goes by the idle limit that the session was loaded with. If `remember` has changed that
//! meanwhile, the transaction tells, and another one corrects it before the answer; if that one's connection is cut, the next
//! load sees by the time of the save that the record ends at the wrong time, and its request saves it anew.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use smallvec::SmallVec;

use super::record::{self, Key, PROOF, REMEMBER, SAVED, SHORT_REPLY, Unfit};
use super::steps::{Request, Step};
use super::transaction::{self, Call, Outcome, Transaction};
use super::{EMPTY, GUARD, Layout, ROTATE, Settings, desync, foreign, newer, refused};
use crate::pipeline::operation::Round;
use crate::redis::{RedisReply as Reply, Replies, Words};
use crate::session::store::contract::{gone, id_taken, not_a_number};
use crate::session::store::{Action, Changes, Fields, Lifetimes, Load, Save, Saved};
use crate::{Error, Result};

/// Words in one HSET or HDEL. A script can pass on some thousands, and no more.
const CHUNK: usize = 2000;

pub(super) struct ChangeStep {
    settings: Arc<Settings>,
    key: Key,
    what: What,
    lifetimes: Lifetimes,
    /// The idle limit that the record is to live by.
    idle: Duration,
    /// The session's own one, where it changes.
    remember: Option<Duration>,
    /// When the session was created, in milliseconds since 1970, as far as is known.
    created: Option<u64>,
    values: Values,
    /// What came of writing; only the record's end is still to be corrected.
    written: Option<Result<Done>>,
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
    operation: Option<Atomic>,
}

/// An operation that acts in the store and has a result.
pub(super) enum Atomic {
    Increment(String, i64),
    Take(Vec<String>),
    SetIfAbsent(String, String),
}

/// What a change comes to.
#[derive(Debug)]
pub(super) enum Done {
    Saved(Saved),
    Number(i64),
    Values(Vec<Option<String>>),
}

enum State {
    Writing,
    /// A record is there already: is it what was to be created?
    Comparing,
    /// There is no session. What was written to it is to be removed.
    CleaningUp,
    /// The session has reached its absolute limit. Its record is to be removed.
    Removing,
    Over(Result<Done>),
}

impl ChangeStep {
    pub(super) fn save(settings: &Arc<Settings>, save: &Save<'_>) -> ChangeStep {
        let mut step = ChangeStep::new(settings, &Load { id: save.id, lifetimes: save.lifetimes });
        step.what = match save.action {
            Action::Create => What::Create,
            Action::Update => What::Update,
            Action::Rotate { to } => What::Rotate {
                to: Key::new(settings, settings.layout, to),
                former: settings.former_key(save.id),
            },
            Action::Destroy => What::Destroy { former: settings.former_key(save.id) },
        };
        step.remember = save.remember;
        step.idle = save.remember.unwrap_or(step.idle);
        step.created = save.created.map(record::milliseconds_since_1970);
        step.set_values(save.changes);
        step
    }

    pub(super) fn operation(
        settings: &Arc<Settings>,
        load: &Load<'_>,
        operation: Atomic,
    ) -> ChangeStep {
        let mut step = ChangeStep::new(settings, load);
        let checked = match &operation {
            Atomic::Increment(name, _) | Atomic::SetIfAbsent(name, _) => settings.check_key(name),
            Atomic::Take(names) => names.iter().try_for_each(|name| settings.check_key(name)),
        };
        step.values.operation = Some(operation);
        step.unless(checked);
        step
    }

    fn new(settings: &Arc<Settings>, load: &Load<'_>) -> ChangeStep {
        ChangeStep {
            settings: settings.clone(),
            key: Key::new(settings, settings.layout, load.id),
            what: What::Update,
            lifetimes: load.lifetimes,
            idle: load.lifetimes.idle,
            remember: None,
            created: None,
            values: Values::default(),
            written: None,
            state: State::Writing,
            queued: 0,
        }
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
        let checked = names.map(|name| self.settings.check_key(name)).collect::<Result<()>>();
        // Together with what others set it may become more.
        self.unless(checked.and(self.settings.caps.check(count, bytes)));
        if count == 0 && matches!(self.what, What::Create) && !self.settings.keeps_empty() {
            // There is nothing to write.
            self.state = State::Comparing;
        }
    }

    fn unless(&mut self, checked: Result<()>) {
        if let Err(error) = checked {
            self.state = State::Over(Err(error));
        }
    }

    fn has_proof(&self) -> bool {
        self.settings.layout == Layout::Default
    }

    /// How long the record is kept from now on, in milliseconds.
    fn kept_for(&self, created: Option<u64>, now: u64) -> u64 {
        let kept = record::milliseconds(self.lifetimes.kept_for(Some(self.idle)));
        let Some(absolute) = self.lifetimes.absolute.map(record::milliseconds) else { return kept };
        // Where that is not known, now is the latest that it can be.
        let end = created.unwrap_or(now).saturating_add(absolute);
        kept.min(end.saturating_sub(now))
    }

    // What is sent.

    /// The commands that write the values.
    fn calls(&self, now: u64, proof: Option<&[u8]>) -> SmallVec<[Call<'_>; 4]> {
        let Values { set, removed, operation, .. } = &self.values;
        let (mut calls, mut set) = (SmallVec::new(), set.iter());
        let mut first = Call::new("HSET");
        if let Some(proof) = proof {
            first = first.with(PROOF).with(proof);
        }
        if self.has_proof() {
            first = first.with(SAVED).with(record::saved(now, self.idle).as_bytes());
        }
        if let (true, Some(own)) = (self.has_proof(), self.remember) {
            first = first.with(REMEMBER).with(record::milliseconds(own).to_string().as_bytes());
        }
        match set.next() {
            Some(words) => calls.push(first.and(words)),
            None if self.has_proof() => calls.push(first),
            None => {}
        }
        calls.extend(set.map(|words| Call::new("HSET").and(words)));
        calls.extend(removed.iter().map(|words| Call::new("HDEL").and(words)));
        let all = |call, names: &[String]| {
            names.iter().fold(call, |call: Call<'_>, name| call.with(name.as_bytes()))
        };
        match operation {
            Some(Atomic::Increment(name, by)) => {
                calls.push(Call::new("HINCRBY").with(name.as_bytes()).with_number(*by));
                if !self.has_proof() {
                    // Through a script: a number of Lua has only 53 bits, and so the sum comes as text.
                    calls.push(Call::new("HGET").with(name.as_bytes()));
                }
            }
            Some(Atomic::SetIfAbsent(name, value)) => {
                calls.push(Call::new("HSETNX").with(name.as_bytes()).with(value.as_bytes()));
            }
            Some(Atomic::Take(names)) if !names.is_empty() => {
                calls.push(all(Call::new("HMGET"), names));
                calls.push(all(Call::new("HDEL"), names));
            }
            Some(Atomic::Take(_)) | None => {}
        }
        calls
    }

    fn create(&self, round: &mut Round<'_>, now: u64) -> usize {
        let key = &self.key.name[..];
        let proof = self.has_proof().then(|| self.key.proof(now));
        let mut calls = self.calls(now, proof.as_deref());
        calls.push(Call::expiry(self.kept_for(Some(now), now)));
        let in_cluster = round.is_for_one_key();
        let mut transaction = Transaction::begin(round);
        if in_cluster {
            // A command for two keys is refused while their slot is on its way to another node.
            transaction.script(GUARD, &[key], &[b"0"], &calls);
            return transaction.commit();
        }
        // The record is made under a key that nobody sees, and takes its place if that is free.
        let made = self.unseen();
        calls.iter().for_each(|call| transaction.call(&made, call));
        transaction.command(&[b"RENAMENX", &made, key]);
        transaction.command(&[b"UNLINK", &made]);
        transaction.commit()
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
            transaction.script(GUARD, &[key], &[b"1"], &calls);
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
        let arguments = [owners[0], owners[1], oldest.as_bytes(), cleared.as_bytes()];
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

    fn created(&mut self, mut results: Replies<'_>) -> Result<State, Unfit> {
        // That of the script in a cluster, else those of the values, PEXPIRE, RENAMENX and UNLINK.
        for _ in 0..results.len().saturating_sub(2) {
            match results.next() {
                Some(Reply::Error(line)) => return Ok(self.refused(line)),
                Some(Reply::Integer(_)) => {}
                _ => return Err(Unfit::OutOfStep),
            }
        }
        match results.next() {
            Some(Reply::Integer(1) | Reply::Array(_)) => Ok(State::Over(Ok(STORED))),
            Some(Reply::Integer(0) | Reply::Nil) => Ok(State::Comparing),
            Some(Reply::Error(line)) => Ok(self.refused(line)),
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
        Ok(State::Over(if is_wanted { Ok(STORED) } else { Err(id_taken()) }))
    }

    fn updated(&mut self, mut results: Replies<'_>, now: SystemTime) -> Result<State, Unfit> {
        if !self.has_proof() {
            return match results.next() {
                Some(Reply::Error(line)) => Ok(self.refused(line)),
                Some(Reply::Nil) => Ok(self.gone()),
                Some(Reply::Array(mut replies)) => {
                    // The last one is that to PEXPIRE.
                    let count = replies.len().saturating_sub(1);
                    match self.answer_among(&mut replies, count)? {
                        Ok(answer) => Ok(State::Over(Ok(self.done(answer)?))),
                        Err(line) => Ok(self.refused(line)),
                    }
                }
                _ => Err(Unfit::OutOfStep),
            };
        }
        // Those of the values, then HMGET and PEXPIRE.
        let count = results.len().saturating_sub(2);
        let answer = self.answer_among(&mut results, count)?;
        match (results.next(), results.next()) {
            (Some(Reply::Error(line)), _) | (_, Some(Reply::Error(line))) => Ok(self.refused(line)),
            // Of a key that has ended in the midst of the transaction, as it can in Redis 5.
            (Some(Reply::Array(_)), Some(Reply::Integer(0))) => Ok(self.gone()),
            (Some(Reply::Array(own)), Some(Reply::Integer(_))) => self.settled(own, answer, now),
            _ => Err(Unfit::OutOfStep),
        }
    }

    fn rotated(&mut self, mut results: Replies<'_>, now: SystemTime) -> Result<State, Unfit> {
        let What::Rotate { to, .. } = &self.what else { return Err(Unfit::OutOfStep) };
        let moved = match results.next() {
            Some(Reply::Array(_)) => true,
            Some(Reply::Nil) => false,
            Some(Reply::Integer(0)) => return Ok(State::Over(Err(id_taken()))),
            Some(Reply::Error(line)) => return Ok(self.refused(line)),
            Some(Reply::Bulk(proof)) => {
                return match self.key.created(proof) {
                    Ok(_) | Err(Unfit::Damaged(_) | Unfit::TooLarge) => Ok(self.gone()),
                    Err(Unfit::Newer) => Ok(State::Over(Err(newer()))),
                    Err(unfit) => self.unfit(unfit),
                };
            }
            _ => return Err(Unfit::OutOfStep),
        };
        // Under its old id it is not. If it is under the new one, who but this move can have brought it there?
        let (own, is_there) = match results.next() {
            Some(Reply::Array(own)) => {
                let proof = { own }.next().and_then(Reply::bulk);
                let created = proof.and_then(|proof| to.created(proof).ok());
                (Some(own), created.is_some_and(|created| !self.is_past_absolute(created, now)))
            }
            Some(Reply::Integer(keys)) => (None, keys == 1),
            Some(Reply::Error(line)) => return Ok(self.refused(line)),
            _ => return Err(Unfit::OutOfStep),
        };
        match (moved, own) {
            (true, Some(own)) => {
                // From here on it is an update of the record under its new key.
                self.key = to.clone();
                self.what = What::Update;
                self.settled(own, Ok(None), now)
            }
            (true, None) => Ok(State::Over(Ok(STORED))),
            (false, _) if is_there => Ok(State::Over(Ok(STORED))),
            (false, _) => Ok(self.gone()),
        }
    }

    /// Reads the replies to so many commands that write values: the one that has a result, or the first refusal.
    fn answer_among<'a>(
        &self,
        replies: &mut Replies<'a>,
        count: usize,
    ) -> Result<Result<Option<Reply<'a>>, &'a [u8]>, Unfit> {
        let from_the_end = match &self.values.operation {
            Some(Atomic::Take(names)) if !names.is_empty() => 2,
            Some(Atomic::Increment(..) | Atomic::SetIfAbsent(..)) => 1,
            Some(Atomic::Take(_)) | None => 0,
        };
        let (mut answer, mut refused) = (None, None);
        for at in 0..count {
            match replies.next() {
                Some(Reply::Error(line)) => refused = refused.or(Some(line)),
                Some(reply) if at + from_the_end == count => answer = Some(reply),
                Some(_) => {}
                None => return Err(Unfit::OutOfStep),
            }
        }
        Ok(refused.map_or(Ok(answer), Err))
    }

    /// Reads what an update asks for at its end: whether there is a session, and how long it is to live.
    fn settled(
        &mut self,
        mut own: Replies<'_>,
        answer: Result<Option<Reply<'_>>, &[u8]>,
        now: SystemTime,
    ) -> Result<State, Unfit> {
        let created = match own.next() {
            Some(Reply::Nil) => return Ok(State::CleaningUp),
            Some(Reply::Bulk(proof)) => match self.key.created(proof) {
                Ok(created) => created,
                Err(Unfit::Damaged(_) | Unfit::TooLarge) => return Ok(self.gone()),
                Err(Unfit::Newer) => return Ok(State::Over(Err(newer()))),
                Err(unfit) => return self.unfit(unfit),
            },
            _ => return Err(Unfit::OutOfStep),
        };
        if self.is_past_absolute(created, now) {
            return Ok(State::Removing);
        }
        let done = match (self.written.take(), answer) {
            (Some(written), _) => written,
            (None, Ok(answer)) => Ok(self.done(answer)?),
            (None, Err(line)) => Err(self.refusal(line)),
        };
        let own = own.next().and_then(Reply::bulk).and_then(record::number);
        match own.filter(|own| *own != record::milliseconds(self.idle)) {
            // Somebody else has set it since this session was loaded.
            Some(own) => {
                self.idle = Duration::from_millis(own);
                (self.remember, self.values) = (None, Values::default());
                self.written = Some(done);
                Ok(State::Writing)
            }
            None => Ok(State::Over(done)),
        }
    }

    fn is_past_absolute(&self, created: u64, now: SystemTime) -> bool {
        let end = |limit| created.saturating_add(record::milliseconds(limit));
        self.lifetimes
            .absolute
            .is_some_and(|limit| end(limit) <= record::milliseconds_since_1970(now))
    }

    fn done(&self, answer: Option<Reply<'_>>) -> Result<Done, Unfit> {
        match (&self.values.operation, answer) {
            (None, _) => Ok(STORED),
            (
                Some(Atomic::Increment(..) | Atomic::SetIfAbsent(..)),
                Some(Reply::Integer(number)),
            ) => Ok(Done::Number(number)),
            (Some(Atomic::Increment(..)), Some(Reply::Bulk(sum))) => {
                let sum = std::str::from_utf8(sum).ok().and_then(|sum| sum.parse().ok());
                sum.map(Done::Number).ok_or(Unfit::OutOfStep)
            }
            (Some(Atomic::Take(names)), None) if names.is_empty() => Ok(Done::Values(Vec::new())),
            (Some(Atomic::Take(names)), Some(Reply::Array(values)))
                if values.len() == names.len() =>
            {
                let taken = names.iter().zip(values).enumerate().map(|(at, (name, value))| {
                    // What was taken is gone. What is not text counts as nothing.
                    let value = value.bulk().filter(|_| !names[..at].contains(name))?;
                    std::str::from_utf8(value).ok().map(str::to_owned)
                });
                Ok(Done::Values(taken.collect()))
            }
            _ => Err(Unfit::OutOfStep),
        }
    }

    fn gone(&mut self) -> State {
        State::Over(match (self.written.take(), &self.values.operation) {
            // It has ended since.
            (Some(written), _) => written,
            (None, None) => Ok(Done::Saved(Saved::Gone)),
            (None, Some(_)) => Err(gone()),
        })
    }

    fn refused(&self, line: &[u8]) -> State {
        State::Over(Err(self.refusal(line)))
    }

    fn refusal(&self, line: &[u8]) -> Error {
        let is = |part: &[u8]| memchr::memmem::find(line, part).is_some();
        match &self.values.operation {
            Some(Atomic::Increment(name, _)) if is(b"not an integer") || is(b"overflow") => {
                not_a_number(name)
            }
            _ => refused(line),
        }
    }

    /// The record is somebody else's: the connection is closed.
    fn unfit(&mut self, unfit: Unfit) -> Result<State, Unfit> {
        self.state = State::Over(Err(if unfit == Unfit::Foreign { foreign() } else { desync() }));
        Err(unfit)
    }
}

const STORED: Done = Done::Saved(Saved::Stored);

/// The chunk that has place for two more words.
fn chunk(chunks: &mut SmallVec<[Words; 1]>) -> &mut Words {
    if chunks.last().is_none_or(|last| last.len() + 2 > CHUNK) {
        chunks.push(Words::default());
    }
    let last = chunks.len() - 1;
    &mut chunks[last]
}

impl Step for ChangeStep {
    type Outcome = Result<Done>;

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
            (State::CleaningUp, _) => self.clean_up(round),
            (State::Removing, _) => round.command(&[b"UNLINK", &self.key.name]),
            (_, What::Create) => {
                self.queued = self.create(round, now);
            }
            (_, What::Update) => {
                self.queued = self.update(round, now);
                if matches!(self.values.operation, Some(Atomic::Take(_))) {
                    longest_reply = record::longest_reply(&self.settings);
                }
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
        Request { repeatable: !updates, longest_reply }
    }

    fn answer(&mut self, replies: &mut Replies<'_>, now: SystemTime) -> Result<(), Unfit> {
        self.state = match (&self.state, &self.what) {
            (State::Comparing, _) => self.compared(replies, now)?,
            (State::Removing, What::Create) => match replies.next() {
                Some(Reply::Integer(_)) => State::Writing,
                Some(Reply::Error(line)) => self.refused(line),
                _ => return Err(Unfit::OutOfStep),
            },
            // Whether that worked or not: no reader takes it for a session.
            (State::CleaningUp | State::Removing, _) => match replies.next() {
                Some(_) => self.gone(),
                None => return Err(Unfit::OutOfStep),
            },
            (_, What::Destroy { .. }) => match replies.next() {
                Some(Reply::Integer(_)) => State::Over(Ok(STORED)),
                Some(Reply::Error(line)) => State::Over(Err(refused(line))),
                _ => return Err(Unfit::OutOfStep),
            },
            (_, what) => match (transaction::read(replies, self.queued)?, what) {
                (Outcome::Refused(line), _) => self.refused(line),
                (Outcome::Done(results), What::Create) => self.created(results)?,
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
            State::CleaningUp | State::Removing => self.gone(),
            State::Writing | State::Comparing => State::Over(Err(error)),
        };
    }

    fn into_outcome(self) -> Result<Done> {
        match self.state {
            State::Over(outcome) => outcome,
            _ => Err(desync()),
        }
    }
}
