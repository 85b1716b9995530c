//! Sessions in Redis.

mod reply;
mod scripts;

use std::fmt;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use redis::{Cmd, Pipeline};

use self::reply::{Reply, Status};
use self::scripts::{Script, Scripts};
use super::contract::{
    Action, BreakerObserver, Caps, DamageObserver, Lifetimes, Load, Record, Save, Saved,
    SessionStore, gone, id_taken, not_a_number,
};
use crate::redis::{
    RedisCluster, RedisPool, Repeat, Reply as RedisReply, copy, server_error, slot,
};
use crate::session::id::{IdFormat, SessionId};
use crate::{Error, ErrorKind, Result};

/// What no key of the user begins with, so that the default layout has a place for its own field.
const RESERVED: char = '\0';

/// A hundred years: a longer lifetime is kept as this one, which Redis can add to its clock.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Keeps sessions in Redis: they outlive the process, and all processes share them.
///
/// Loading is one round trip, saving is another, for one session as for a whole batch. Each is a script on
/// the session's key, so it is one atomic step and works on a cluster as well. Needs Redis 5 or newer, or
/// Valkey.
///
/// ```no_run
/// use bottle_session::{RedisPool, RedisStore};
///
/// let store = RedisStore::new(RedisPool::open("redis://localhost:6379/0")?);
/// # Ok::<(), bottle_session::Error>(())
/// ```
#[derive(Debug)]
pub struct RedisStore {
    backend: Backend,
    layout: Layout,
    former: Option<Layout>,
    prefix: Option<String>,
    caps: Caps,
    damaged: Damaged,
}

/// Who hears of records that are no sessions.
#[derive(Default)]
struct Damaged(RwLock<Vec<Arc<DamageObserver>>>);

impl fmt::Debug for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Damaged")
    }
}

/// What the scripts are sent to.
#[derive(Debug)]
enum Backend {
    Pool(RedisPool),
    Cluster(RedisCluster),
}

impl Backend {
    /// One answer for each command. Where `ours` finds that a reply is not to its command, the connection
    /// is closed.
    fn send(
        &self,
        pipeline: &Pipeline,
        repeat: Repeat,
        limit: usize,
        ours: impl Fn(usize, &RedisReply) -> bool,
    ) -> Vec<Result<RedisReply>> {
        let pool = match self {
            Backend::Cluster(cluster) => {
                let mut calls: Vec<Call> =
                    pipeline.cmd_iter().map(|command| Call::new(command, repeat)).collect();
                let mut operations: Vec<&mut dyn crate::pipeline::operation::Operation> =
                    calls.iter_mut().map(|call| call as _).collect();
                cluster.remote().run(&mut operations);
                return calls.into_iter().map(|call| call.reply).collect();
            }
            Backend::Pool(pool) => pool,
        };
        let all = |replies: &[RedisReply]| replies.iter().enumerate().all(|(at, r)| ours(at, r));
        match pool.send_checked(pipeline, repeat, limit, all) {
            Ok(replies) => replies.into_iter().map(Ok).collect(),
            Err(error) => {
                // The others get the same text, the last one its cause as well.
                let others = (1..pipeline.len()).map(|_| Err(copy(&error)));
                let mut failed: Vec<_> = others.collect();
                failed.push(Err(error));
                failed
            }
        }
    }
}

/// One call of a script as an operation.
struct Call {
    packed: Vec<u8>,
    key: Vec<u8>,
    repeat: Repeat,
    reply: Result<RedisReply>,
}

impl Call {
    fn new(command: &Cmd, repeat: Repeat) -> Call {
        let key = match command.args_iter().nth(3) {
            Some(redis::Arg::Simple(key)) => key.to_vec(),
            _ => Vec::new(),
        };
        Call { packed: command.get_packed_command(), key, repeat, reply: Err(reply::desync()) }
    }
}

impl crate::pipeline::operation::Operation for Call {
    fn request(&mut self, round: &mut crate::pipeline::operation::Round<'_>) {
        round.out.extend_from_slice(&self.packed);
        round.replies += 1;
        round.for_key(&self.key);
        if self.repeat == Repeat::Idempotent {
            round.repeatable();
        }
    }

    fn answer(
        &mut self,
        answer: crate::pipeline::operation::Answer<'_>,
    ) -> crate::pipeline::operation::Progress {
        self.reply = match redis::parse_redis_value(answer.bytes) {
            Ok(redis::Value::ServerError(error)) => Ok(Err(error)),
            Ok(value) => Ok(Ok(value)),
            Err(_) => Err(reply::desync()),
        };
        crate::pipeline::operation::Progress::Done
    }

    fn fail(&mut self, error: Error) {
        self.reply = Err(error);
    }
}

/// How a session is written in Redis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Layout {
    /// The key is `bottle.session:` and the SHA-256 of the id in hexadecimal, so that whoever reads Redis
    /// or a dump of it can open no session. A hash holds the user's fields, and under the key `"\0"` the
    /// time of creation, the time of the last save, the owner's mark, and the session's own idle limit.
    #[default]
    Default,
    /// What Python's bottle-session 1.0 writes, so that both share live sessions: the key is `session:` and
    /// the id as a UUID with dashes, and the hash holds the user's fields and nothing else.
    ///
    /// There is no place for more, therefore: an absolute limit is refused; a session's own idle limit counts
    /// for the request that sets it and ends with the next one; no owner's mark is checked; the key in Redis
    /// is the id; and a session whose last field is removed is gone: a request that has emptied what it sees, and
    /// saved that at once, goes on in a new session, also where another has added a field meanwhile. Unless the
    /// cookie ends with the browser, each answer sends it, so that one that comes late can put a dead id in place of
    /// a renewed one. Two plugins of one app that use this layout
    /// need a database each, or an id from the cookie of one opens the same session in the other, as in Python.
    BottleSession,
}

impl RedisStore {
    /// A store in the [default layout](Layout::Default) for sessions of at most 256 fields and 64 KiB.
    pub fn new(pool: RedisPool) -> RedisStore {
        RedisStore::over(Backend::Pool(pool))
    }

    /// The same in a cluster.
    ///
    /// In the default layout, the first two hexadecimal digits of what follows the prefix stand in braces, so
    /// that an id can be renewed in one atomic step within one of 256 slots. With
    /// [`Layout::BottleSession`], whose keys are fixed, renewing an id tries some ten thousand new ones for
    /// one in the same slot, which takes some milliseconds.
    pub fn on_cluster(cluster: RedisCluster) -> RedisStore {
        RedisStore::over(Backend::Cluster(cluster))
    }

    fn over(backend: Backend) -> RedisStore {
        let (layout, former, prefix, caps) = (Layout::Default, None, None, Caps::default());
        RedisStore { backend, layout, former, prefix, caps, damaged: Damaged::default() }
    }

    /// How sessions are written in Redis.
    pub fn layout(mut self, layout: Layout) -> RedisStore {
        self.layout = layout;
        self
    }

    /// Takes over the live sessions of another layout, for an app that leaves Python's bottle-session.
    ///
    /// A cookie that the new layout does not know is looked for in the old one; a session found there moves
    /// to the new layout in one atomic step and keeps its id, so that no request of this browser, not even one
    /// on its way, loses it. Its creation counts from the move. New sessions, and those whose id is renewed,
    /// have ids of the new kind. The way back does not exist: stop the Python processes first, as a session
    /// that moved is unknown to them. Once the longest lifetime has passed, remove this setting.
    ///
    /// Two plugins that take over from one database open each other's former sessions meanwhile, as they did in
    /// Python. Both keys are in one script, which a cluster cannot run.
    pub fn migrate_from(mut self, former: Layout) -> RedisStore {
        self.former = Some(former);
        self
    }

    /// What the keys in Redis begin with: `bottle.session:`, or `session:` in
    /// [`Layout::BottleSession`], which is fixed in Python's. Stores of two plugins in one Redis need prefixes of
    /// their own, or an id from the cookie of one opens the same session in the other.
    pub fn key_prefix(mut self, prefix: impl Into<String>) -> RedisStore {
        self.prefix = Some(prefix.into());
        self
    }

    /// How many fields one session holds at most. A record with more is no session.
    pub fn max_fields(mut self, fields: usize) -> RedisStore {
        self.caps.fields = fields;
        self
    }

    /// How many bytes the keys and values of one session have at most. A record with more is no session.
    pub fn max_bytes(mut self, bytes: usize) -> RedisStore {
        self.caps.bytes = bytes;
        self
    }

    fn load_request(&self, load: &Load<'_>) -> Request {
        let (scripts, key) = (Scripts::of(self.layout), self.key(load.id));
        match self.former_key(load.id) {
            Some(former) => self.request(&scripts.load_former, load, &[&key, &former]),
            None => self.request(&scripts.load, load, &[&key]),
        }
    }

    fn save_request(&self, save: &Save<'_>) -> Result<Request> {
        self.check_keys(save.changes.fields.keys().map(String::as_str))?;
        let mut keys = vec![self.key(save.id)];
        let (action, to_mark) = match save.action {
            Action::Create => ("create", String::new()),
            Action::Update => ("update", String::new()),
            Action::Rotate { to } => {
                keys.push(self.key(to));
                keys.extend(self.former_key(save.id));
                ("rotate", to.mark())
            }
            Action::Destroy => {
                keys.extend(self.former_key(save.id));
                ("destroy", String::new())
            }
        };
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let load = Load { id: save.id, lifetimes: save.lifetimes };
        let mut request = self.request(&Scripts::of(self.layout).save, &load, &keys);
        let set =
            || save.changes.fields.iter().filter_map(|(key, value)| Some((key, value.as_ref()?)));
        let removed = save.changes.fields.iter().filter(|(_, value)| value.is_none());
        request
            .command
            .arg(action)
            .arg(to_mark)
            .arg(save.remember.map_or(String::new(), milliseconds))
            .arg(u8::from(save.changes.cleared))
            .arg(set().count());
        for (key, value) in set() {
            request.command.arg(key).arg(value);
        }
        for (key, _) in removed {
            request.command.arg(key);
        }
        Ok(request)
    }

    /// Runs one operation. It is never repeated: its effect may have happened although no answer came.
    fn operate(
        &self,
        load: &Load<'_>,
        script: &'static Script,
        arguments: &[&str],
    ) -> Result<Reply> {
        let mut request = self.request(script, load, &[&self.key(load.id)]);
        request.command.arg(arguments);
        let reply = only(self.send(vec![request], Repeat::Never))?;
        match reply.status {
            Status::Ok => Ok(reply),
            Status::Gone | Status::Damaged => Err(gone()),
            Status::Oversized => Err(self.caps.exceeded()),
            // The field is the first argument of the only operation that says so.
            Status::NotANumber => Err(not_a_number(arguments[0])),
            Status::Stored | Status::Taken | Status::Foreign => Err(reply.unexpected()),
        }
    }

    /// What all scripts get: whose session, how long it lives, and how large it may be.
    fn request(&self, script: &'static Script, load: &Load<'_>, keys: &[&str]) -> Request {
        let mark = load.id.mark();
        let mut command = script.by_hash(keys);
        command
            .arg(&mark)
            .arg(milliseconds(load.lifetimes.idle))
            .arg(load.lifetimes.absolute.map_or(String::new(), milliseconds))
            .arg(self.caps.fields)
            .arg(self.caps.bytes);
        Request { script, mark, command }
    }

    /// Sends all requests in one round trip; one more where Redis does not know the scripts.
    fn send(&self, requests: Vec<Request>, repeat: Repeat) -> Vec<Result<Reply>> {
        let mut pipeline = Pipeline::with_capacity(requests.len());
        let mut expected = Vec::with_capacity(requests.len());
        for Request { script, mark, command } in requests {
            pipeline.add_command(command);
            expected.push((script, mark));
        }
        let mut replies = self.exchange(&pipeline, &expected, repeat);
        let unknown: Vec<usize> = replies
            .iter()
            .enumerate()
            .filter_map(|(at, reply)| matches!(reply, Err(Failed::NoScript)).then_some(at))
            .collect();
        if !unknown.is_empty() {
            let commands: Vec<&Cmd> = pipeline.cmd_iter().collect();
            let mut again = Pipeline::with_capacity(unknown.len());
            for at in &unknown {
                again.add_command(expected[*at].0.by_text(commands[*at]));
            }
            let expected: Vec<_> = unknown.iter().map(|at| expected[*at].clone()).collect();
            for (at, reply) in unknown.into_iter().zip(self.exchange(&again, &expected, repeat)) {
                replies[at] = reply;
            }
        }
        replies.into_iter().map(|reply| reply.map_err(Failed::into_error)).collect()
    }

    fn exchange(
        &self,
        pipeline: &Pipeline,
        expected: &[Expected],
        repeat: Repeat,
    ) -> Vec<Result<Reply, Failed>> {
        if expected.is_empty() {
            return Vec::new();
        }
        let ours = |at: usize, reply: &RedisReply| match reply {
            Ok(value) => {
                let (script, mark) = &expected[at];
                reply::belongs(value, mark, script.answer)
            }
            Err(_) => true,
        };
        let replies =
            self.backend.send(pipeline, repeat, self.longest_replies(pipeline.len()), ours);
        // One reply that is somebody else's means that none of them can be trusted; a foreign record
        // concerns only its own session.
        let in_step = expected.iter().zip(&replies).all(|((script, mark), reply)| match reply {
            Ok(Ok(value)) => reply::echoes(value, mark, script.answer),
            _ => true,
        });
        replies
            .into_iter()
            .map(|reply| match reply.map_err(Failed::Error)? {
                _ if !in_step => Err(Failed::Error(reply::desync())),
                Ok(value) => Reply::read(value).map_err(Failed::Error),
                Err(error) if error.code() == "NOSCRIPT" => Err(Failed::NoScript),
                Err(error) => Err(Failed::Error(server_error(&error))),
            })
            .collect()
    }

    /// More bytes than the scripts can send for so many sessions: each field has some bytes around it, each
    /// reply its metadata, and an error its text.
    fn longest_replies(&self, sessions: usize) -> usize {
        let Caps { fields, bytes } = self.caps;
        let longest = fields.saturating_mul(64).saturating_add(bytes).saturating_add(16 * 1024);
        longest.saturating_mul(sessions)
    }

    fn key(&self, id: &SessionId) -> String {
        let key = key(self.layout, self.prefix.as_deref(), id);
        match (&self.backend, self.layout) {
            (Backend::Cluster(_), Layout::Default) => {
                let (before, hash) = key.split_at(key.len() - id.key().len());
                format!("{before}{{{}}}{}", &hash[..2], &hash[2..])
            }
            _ => key,
        }
    }

    fn former_key(&self, id: &SessionId) -> Option<String> {
        let former = self.former.filter(|former| id.format() == id_format(*former))?;
        Some(key(former, None, id))
    }

    fn check_keys<'k>(&self, keys: impl IntoIterator<Item = &'k str>) -> Result<()> {
        let reserved = |key: &&str| self.layout == Layout::Default && key.starts_with(RESERVED);
        match keys.into_iter().find(reserved) {
            None => Ok(()),
            Some(key) => Err(Error::new(
                ErrorKind::Session,
                format!("session field {key:?} cannot be stored: a key must not begin with NUL"),
            )),
        }
    }

    fn loaded(&self, id: &SessionId, mut reply: Reply) -> Result<Option<Record>> {
        let why = match reply.status {
            Status::Ok => match reply.record(self.layout)? {
                Some(record) => return Ok(Some(record)),
                None => "is not text".to_owned(),
            },
            Status::Gone => return Ok(None),
            Status::Damaged => "has no metadata of ours".to_owned(),
            Status::Oversized => {
                let Caps { fields, bytes } = self.caps;
                format!("is larger than {fields} fields or {bytes} bytes")
            }
            Status::Stored | Status::Taken | Status::NotANumber | Status::Foreign => {
                return Err(reply.unexpected());
            }
        };
        let text = format!("{id:?} is no session: its record in redis {why}");
        let error = Error::new(ErrorKind::Session, text);
        // Not while they are locked: what an observer does is its own affair.
        let observers =
            self.damaged.0.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        observers.iter().for_each(|observer| observer(&error));
        Ok(None)
    }

    fn saved(&self, reply: Reply) -> Result<Saved> {
        match reply.status {
            Status::Stored => Ok(Saved::Stored),
            Status::Gone | Status::Damaged => Ok(Saved::Gone),
            Status::Oversized => Err(self.caps.exceeded()),
            Status::Taken => Err(id_taken()),
            Status::Ok | Status::NotANumber | Status::Foreign => Err(reply.unexpected()),
        }
    }
}

impl SessionStore for RedisStore {
    fn load(&self, load: &Load<'_>) -> Result<Option<Record>> {
        only(self.load_many(std::slice::from_ref(load)))
    }

    fn save(&self, save: &Save<'_>) -> Result<Saved> {
        only(self.save_many(std::slice::from_ref(save)))
    }

    fn increment(&self, load: &Load<'_>, key: &str, by: i64) -> Result<i64> {
        self.check_keys([key])?;
        let script = &Scripts::of(self.layout).increment;
        self.operate(load, script, &[key, &by.to_string()])?.integer()
    }

    fn take(&self, load: &Load<'_>, keys: &[&str]) -> Result<Vec<Option<String>>> {
        self.check_keys(keys.iter().copied())?;
        self.operate(load, &Scripts::of(self.layout).take, keys)?.texts()
    }

    fn set_if_absent(&self, load: &Load<'_>, key: &str, value: &str) -> Result<bool> {
        self.check_keys([key])?;
        let script = &Scripts::of(self.layout).set_if_absent;
        Ok(self.operate(load, script, &[key, value])?.integer()? == 1)
    }

    fn load_many(&self, batch: &[Load<'_>]) -> Vec<Result<Option<Record>>> {
        let requests = batch.iter().map(|load| self.load_request(load)).collect();
        let replies = self.send(requests, Repeat::Idempotent);
        let records = batch.iter().zip(replies);
        records.map(|(load, reply)| self.loaded(load.id, reply?)).collect()
    }

    fn save_many(&self, batch: &[Save<'_>]) -> Vec<Result<Saved>> {
        // Another session's update would not become repeatable by being in a batch with a creation.
        let repeat = match batch.iter().any(|save| save.action == Action::Update) {
            true => Repeat::Never,
            false => Repeat::Idempotent,
        };
        let (mut requests, mut answers) = (Vec::with_capacity(batch.len()), Vec::new());
        for save in batch {
            answers.push(self.save_request(save).map(|request| requests.push(request)));
        }
        let mut replies = self.send(requests, repeat).into_iter();
        let answer = |sent: Result<()>| {
            sent?;
            replies
                .next()
                .unwrap_or_else(|| Err(reply::desync()))
                .and_then(|reply| self.saved(reply))
        };
        answers.into_iter().map(answer).collect()
    }

    fn id_format(&self) -> IdFormat {
        id_format(self.layout)
    }

    fn keeps_empty(&self) -> bool {
        // A hash without fields is no key in Redis; the default layout always has its metadata.
        self.layout != Layout::BottleSession
    }

    fn former_id_format(&self) -> Option<IdFormat> {
        self.former.map(id_format)
    }

    fn on_breaker(&self, observer: BreakerObserver) {
        match &self.backend {
            Backend::Pool(pool) => pool.on_breaker(observer),
            Backend::Cluster(cluster) => cluster.on_breaker(observer),
        }
    }

    fn on_damage(&self, observer: DamageObserver) {
        let mut observers = self.damaged.0.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        observers.push(Arc::new(observer));
    }

    fn can_move(&self, from: &SessionId, to: &SessionId) -> bool {
        match &self.backend {
            Backend::Pool(_) => true,
            Backend::Cluster(_) => slot(self.key(from).as_bytes()) == slot(self.key(to).as_bytes()),
        }
    }

    fn check(&self, lifetimes: &Lifetimes) -> Result<()> {
        let refuse = |message: &str| Err(Error::new(ErrorKind::Config, message));
        match (self.layout, self.former) {
            (Layout::BottleSession, _) if lifetimes.absolute.is_some() => refuse(
                "Layout::BottleSession has no place for the time of creation, so it cannot keep an \
                 absolute limit (max_age); leave the limit out, or use Layout::Default",
            ),
            (_, Some(_)) if matches!(self.backend, Backend::Cluster(_)) => refuse(
                "RedisStore::migrate_from moves a session from one key to another in one step, which a \
                 cluster cannot do; migrate before the move to a cluster",
            ),
            (layout, Some(former)) if layout == former => refuse(
                "RedisStore::migrate_from names the layout that the store already has; set the new \
                 one with RedisStore::layout",
            ),
            (Layout::BottleSession, Some(_)) => refuse(
                "RedisStore::migrate_from has no way from the default layout to \
                 Layout::BottleSession; it takes over bottle-session's sessions into the default one",
            ),
            _ => Ok(()),
        }
    }
}

/// One call of a script on its way.
struct Request {
    script: &'static Script,
    mark: String,
    command: Cmd,
}

/// What a reply is held against: the script that was called, and whose session it was for.
type Expected = (&'static Script, String);

enum Failed {
    NoScript,
    Error(Error),
}

impl Failed {
    fn into_error(self) -> Error {
        match self {
            Failed::Error(error) => error,
            Failed::NoScript => Error::new(
                ErrorKind::Redis,
                "redis does not know a script that it was just given; are EVAL and EVALSHA allowed?",
            ),
        }
    }
}

fn id_format(layout: Layout) -> IdFormat {
    match layout {
        Layout::Default => IdFormat::Base64Url,
        Layout::BottleSession => IdFormat::Uuid,
    }
}

fn key(layout: Layout, prefix: Option<&str>, id: &SessionId) -> String {
    match layout {
        Layout::Default => prefix.unwrap_or("bottle.session:").to_owned() + &id.key(),
        Layout::BottleSession => prefix.unwrap_or("session:").to_owned() + &id.expose_uuid(),
    }
}

/// For PEXPIRE; rounded up, so that no lifetime becomes none.
fn milliseconds(time: Duration) -> String {
    time.min(LONGEST).as_nanos().div_ceil(1_000_000).to_string()
}

/// One answer for one request.
fn only<T>(answers: Vec<Result<T>>) -> Result<T> {
    answers.into_iter().next().unwrap_or_else(|| Err(reply::desync()))
}
