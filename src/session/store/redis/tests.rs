//! The operations without a socket: bytes in, outcome out; and every order in which several of them can meet.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::operate::OperateStep;
use super::record::{PROOF, REMEMBER, SAVED};
use super::*;
use crate::pipeline::operation::{Answer, Progress, Round};
use crate::redis::{RedisReply as Reply, Replies};
use crate::session::store::{Changes, Fields, Remember};

const NOW: u64 = 1_760_000_000_000;
const IDLE: Lifetimes = Lifetimes { idle: Duration::from_secs(300), absolute: None };
const KEPT: u64 = 330_000;
const MONTH: Duration = Duration::from_secs(30 * 86_400);
/// Longer than the plugin's idle limit, but over after two of them.
const SHORT: Duration = Duration::from_secs(600);

fn settings() -> Arc<Settings> {
    Arc::new(Settings {
        layout: Layout::Default,
        former: None,
        prefix: None,
        caps: Caps::default(),
        in_cluster: false,
        damaged: Damaged::default(),
    })
}

fn id(letter: &str) -> SessionId {
    SessionId::parse(&(letter.repeat(42) + "A"), IdFormat::Base64Url).unwrap()
}

fn set(pairs: &[(&str, &str)]) -> Changes {
    let pairs = pairs.iter().map(|(key, value)| (key.to_string(), Some(value.to_string())));
    Changes { cleared: false, fields: pairs.collect() }
}

fn at(time: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(time)
}

/// What an operation sends, and whether that may be sent twice.
struct Sent {
    bytes: Vec<u8>,
    replies: usize,
    repeatable: bool,
}

impl Sent {
    fn by(operation: &mut dyn Operation, now: u64, one_key: bool) -> Sent {
        let mut bytes = Vec::new();
        let mut round = Round::new(&mut bytes, at(now), one_key);
        operation.request(&mut round);
        let (replies, repeatable) = (round.replies, round.repeatable);
        Sent { bytes, replies, repeatable }
    }

    fn commands(&self) -> Vec<Vec<&[u8]>> {
        let commands = Replies::of(&self.bytes, self.replies).map(|command| match command {
            Reply::Array(words) => words.filter_map(Reply::bulk).collect(),
            other => panic!("{other:?} is no command"),
        });
        commands.collect()
    }

    fn names(&self) -> String {
        let names = self.commands().into_iter().map(|c| String::from_utf8_lossy(c[0]).into_owned());
        names.collect::<Vec<_>>().join(" ")
    }
}

fn answer(operation: &mut dyn Operation, bytes: &[u8], replies: usize, now: u64) -> Progress {
    operation.answer(Answer { bytes, replies, clock: at(now) })
}

fn save(id: &SessionId, action: Action<'_>, changes: &Changes) -> Steps<SaveStep> {
    let save = Save::new(id, action, changes, IDLE);
    Steps::new([SaveStep::new(&settings(), &save)])
}

fn load(id: &SessionId) -> Steps<LoadStep> {
    Steps::new([LoadStep::new(&settings(), &Load { id, lifetimes: IDLE })])
}

/// The reply of an array of texts.
fn array(texts: &[&str]) -> String {
    let texts = texts.iter().map(|text| format!("${}\r\n{text}\r\n", text.len()));
    format!("*{}\r\n{}", texts.len(), texts.collect::<String>())
}

fn proof_of(id: &SessionId, created: u64) -> String {
    let key = Key::new(&settings(), Layout::Default, id);
    String::from_utf8(key.proof(created)).unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn base36(value: u64) -> String {
    text(&record::base36(value))
}

#[test]
fn a_script_that_redis_does_not_know_is_sent_whole_once() {
    let one = id("A");
    let mut create = save(&one, Action::Create, &set(&[("a", "1")]));
    let unknown = b"-NOSCRIPT No matching script. Please use EVAL.\r\n";
    let first = Sent::by(&mut create, NOW, false);
    assert_eq!((first.names().as_str(), first.repeatable), ("EVALSHA", true));
    assert_eq!(answer(&mut create, unknown, 1, NOW), Progress::Again);
    let second = Sent::by(&mut create, NOW, false);
    assert_eq!(second.names(), "EVAL");
    assert_eq!(first.commands()[0][2..], second.commands()[0][2..]);
    // Doubled, or late: it is not the answer to a script that was sent whole.
    assert_eq!(answer(&mut create, unknown, 1, NOW), Progress::OutOfStep);
    let error = create.into_outcomes().next().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Desync);
}

#[test]
fn what_is_sent() {
    let (one, to, none) = (id("A"), id("B"), Changes::default());
    let mut changes = set(&[("a", "1")]);
    changes.fields.insert("b".to_owned(), None);
    let cleared = Changes { cleared: true, fields: BTreeMap::new() };
    let rotate = Action::Rotate { to: &to };
    for (action, changes, names, repeatable) in [
        (Action::Create, &changes, "EVALSHA", true),
        (Action::Update, &changes, "MULTI HSET HDEL HMGET PEXPIRE EXEC", false),
        (Action::Update, &none, "MULTI HSET HMGET PEXPIRE EXEC", false),
        (Action::Update, &cleared, "MULTI EVAL HSET HMGET PEXPIRE EXEC", false),
        (rotate, &changes, "MULTI EVAL HMGET PEXPIRE EXEC", true),
        (Action::Destroy, &none, "UNLINK", true),
    ] {
        let sent = Sent::by(&mut save(&one, action, changes), NOW, false);
        assert_eq!((sent.names().as_str(), sent.repeatable), (names, repeatable));
    }
    let sent = Sent::by(&mut load(&one), NOW, false);
    assert_eq!((sent.names().as_str(), sent.repeatable), ("HGETALL", true));
    // In a cluster each request is for one key, and two sessions go one after the other.
    let sent = Sent::by(&mut save(&one, Action::Create, &changes), NOW, true);
    assert_eq!(sent.names(), "EVALSHA");
    let loads = [&one, &to].map(|id| LoadStep::new(&settings(), &Load { id, lifetimes: IDLE }));
    let mut both = Steps::new(loads);
    for (one_key, names) in [(false, "HGETALL HGETALL"), (true, "HGETALL")] {
        assert_eq!(Sent::by(&mut both, NOW, one_key).names(), names);
    }
    assert_eq!(answer(&mut both, b"*0\r\n", 1, NOW), Progress::Again);
    assert_eq!(Sent::by(&mut both, NOW, true).names(), "HGETALL");
    assert_eq!(answer(&mut both, b"*0\r\n", 1, NOW), Progress::Done);
    // One more with something that may not be repeated is not repeated.
    let saves = [Action::Destroy, Action::Update]
        .map(|action| SaveStep::new(&settings(), &Save::new(&one, action, &none, IDLE)));
    assert!(!Sent::by(&mut Steps::new(saves), NOW, false).repeatable);
}

#[test]
fn what_is_read_of_a_record() {
    let id = id("A");
    let proof = proof_of(&id, NOW - 1000);
    let own = |at: i64, idle: Duration| text(&record::saved(NOW.saturating_add_signed(-at), idle));
    let (saved, of_a_month) = (own(500, IDLE.idle), own(500, MONTH));
    let month = base36(MONTH.as_millis() as u64);
    let (half_a_second, tenth) = (Duration::from_millis(500), Duration::from_secs(30));
    let old = own(329_999, IDLE.idle);
    let (a_little_ahead, far_ahead) = (own(-60_000, IDLE.idle), own(-60_001, IDLE.idle));
    let read = |fields: &[&str]| {
        let mut load = load(&id);
        Sent::by(&mut load, NOW, false);
        assert_eq!(answer(&mut load, array(fields).as_bytes(), 1, NOW), Progress::Done);
        load.into_outcomes().next().unwrap().unwrap()
    };
    let record = read(&["name", "Ada", "\0", &proof, "", "é", "\0s", &saved]).unwrap();
    assert!(record.fields.iter().eq([("", "é"), ("name", "Ada")]));
    assert_eq!(record.created, Some(at(NOW - 1000)));
    for (name, fields, renewed_ago, remember) in [
        ("saved", &["\0s", &saved][..], Some(half_a_second), None),
        ("old", &["\0s", &old], Some(Duration::from_millis(329_999)), None),
        // The clocks of two servers differ, or one was set back.
        ("a little ahead", &["\0s", &a_little_ahead], Some(Duration::ZERO), None),
        ("far ahead", &["\0s", &far_ahead], Some(tenth), None),
        ("remembered", &["\0s", &of_a_month, "\0r", &month], Some(half_a_second), Some(MONTH)),
        // Saved by a request that did not know of it: to be saved anew.
        ("remembered meanwhile", &["\0s", &saved, "\0r", &month], Some(MONTH / 10), Some(MONTH)),
        ("another idle limit", &["\0s", &of_a_month], Some(tenth), None),
        ("a strange time", &["\0s", "x"], Some(tenth), None),
        ("a later field", &["\0x", "1"], Some(tenth), None),
    ] {
        let record = read(&[&["\0", proof.as_str()], fields].concat());
        let seen = record.as_ref().and_then(|record| record.renewed_ago);
        assert_eq!(seen, renewed_ago, "{name}");
        assert_eq!(record.and_then(|record| record.remember), remember, "{name}");
    }
    assert!(read(&["name", "Ada", "\0s", &saved]).is_none(), "without a proof it is none");
}

#[test]
fn what_is_no_reply_to_a_load_closes_the_connection() {
    let (own, other) = (id("A"), id("B"));
    let foreign = array(&["\0", &proof_of(&other, NOW), "name", "Bob"]);
    for reply in
        ["+OK\r\n", ":1\r\n", "$-1\r\n", "*1\r\n$1\r\na\r\n", "*2\r\n$1\r\na\r\n:1\r\n", &foreign]
    {
        let mut load = load(&own);
        Sent::by(&mut load, NOW, false);
        assert_eq!(answer(&mut load, reply.as_bytes(), 1, NOW), Progress::OutOfStep, "{reply:?}");
        let error = load.into_outcomes().next().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Desync, "{error}");
    }
    // One that is out of step takes the later ones along, a record of another owner does not.
    for (first, second) in [(foreign.as_str(), true), ("+OK\r\n", false)] {
        let loads =
            [&own, &other].map(|id| LoadStep::new(&settings(), &Load { id, lifetimes: IDLE }));
        let mut both = Steps::new(loads);
        Sent::by(&mut both, NOW, false);
        let replies = format!("{first}*0\r\n");
        assert_eq!(answer(&mut both, replies.as_bytes(), 2, NOW), Progress::OutOfStep);
        let outcomes: Vec<_> = both.into_outcomes().collect();
        assert!(outcomes[0].is_err());
        assert_eq!(outcomes[1].is_ok(), second, "{first:?}");
    }
}

#[test]
fn what_redis_says_to_an_update_decides_what_the_answer_is() {
    use Progress::{Again, Done, OutOfStep};
    let (own, other) = (id("A"), id("B"));
    let queued = "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n";
    let results = |proof: &str, remember: &str, kept: u8| {
        format!("{queued}*3\r\n:1\r\n*2\r\n{proof}{remember}:{kept}\r\n")
    };
    let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
    let (proof, nil) = (bulk(&proof_of(&own, NOW)), "$-1\r\n");
    let refused = |line: &str| {
        format!("+OK\r\n+QUEUED\r\n-{line}\r\n+QUEUED\r\n-EXECABORT Transaction discarded\r\n")
    };
    let saved = |saved| Ok::<_, (ErrorKind, &str)>(saved);
    let error = |kind, text| Err((kind, text));
    for (replies, progress, outcome) in [
        (results(&proof, nil, 1), Done, saved(Saved::Stored)),
        (results(&proof, &bulk(&base36(300_000)), 1), Done, saved(Saved::Stored)),
        (results(&proof, &bulk("X"), 1), Done, saved(Saved::Stored)),
        // Somebody has set another idle limit.
        (results(&proof, &bulk(&base36(600_000)), 1), Again, saved(Saved::Stored)),
        // Gone: what was written is removed. If that fails, it is gone all the same.
        (results(nil, nil, 1), Again, saved(Saved::Gone)),
        (results(&proof, nil, 0), Done, saved(Saved::Gone)),
        (results(&bulk("x"), nil, 1), Done, saved(Saved::Gone)),
        (results(&bulk("2"), nil, 1), Done, error(ErrorKind::Config, "newer version")),
        (
            results(&bulk(&proof_of(&other, NOW)), nil, 1),
            OutOfStep,
            error(ErrorKind::Desync, "another session's"),
        ),
        // Of a transaction that is refused, the reason and not EXECABORT.
        (
            refused("OOM command not allowed"),
            Done,
            error(ErrorKind::Unavailable, "Redis: OOM command"),
        ),
        (refused("READONLY You can't"), Done, error(ErrorKind::Unavailable, "Redis: READONLY You")),
        (
            refused("NOPERM no 'pexpire'"),
            Done,
            error(ErrorKind::Config, "'pexpire'; sessions need the commands"),
        ),
        (
            refused("ERR unknown command 'PEXPIRE', with args"),
            Done,
            error(ErrorKind::Config, "'PEXPIRE'"),
        ),
        (
            "-NOPERM no 'multi'\r\n:1\r\n*2\r\n$-1\r\n$-1\r\n:1\r\n-ERR EXEC without MULTI\r\n"
                .to_owned(),
            Done,
            error(ErrorKind::Config, "no 'multi'"),
        ),
        (
            format!("{queued}-READONLY You can't write\r\n"),
            Done,
            error(ErrorKind::Unavailable, "READONLY"),
        ),
        (
            format!("{queued}-EXECABORT Transaction discarded because of: OOM command\r\n"),
            Done,
            error(ErrorKind::Unavailable, "Redis: OOM command"),
        ),
        (
            format!("{queued}*3\r\n-WRONGTYPE of a list\r\n-WRONGTYPE of a list\r\n:1\r\n"),
            Done,
            error(ErrorKind::Config, "WRONGTYPE"),
        ),
        // Nothing that such a transaction is answered.
        (format!("{queued}*-1\r\n"), OutOfStep, error(ErrorKind::Desync, "")),
        (format!("{queued}*2\r\n:1\r\n:1\r\n"), OutOfStep, error(ErrorKind::Desync, "")),
        (format!("{queued}*3\r\n:1\r\n:1\r\n:1\r\n"), OutOfStep, error(ErrorKind::Desync, "")),
        (results(":1\r\n", nil, 1), OutOfStep, error(ErrorKind::Desync, "")),
        (queued.to_owned() + "+OK\r\n", OutOfStep, error(ErrorKind::Desync, "")),
        (
            "+OK\r\n+OK\r\n+QUEUED\r\n+QUEUED\r\n*0\r\n".to_owned(),
            OutOfStep,
            error(ErrorKind::Desync, ""),
        ),
    ] {
        let mut update = save(&own, Action::Update, &set(&[("a", "1")]));
        let sent = Sent::by(&mut update, NOW, false);
        assert_eq!(sent.replies, 5);
        assert_eq!(answer(&mut update, replies.as_bytes(), 5, NOW), progress, "{replies:?}");
        if progress == Again {
            update.fail(Error::new(ErrorKind::Unavailable, "cut"));
        }
        let seen = update.into_outcomes().next().unwrap();
        match (&seen, outcome) {
            (Ok(seen), Ok(outcome)) => assert_eq!(*seen, outcome, "{replies:?}"),
            (Err(seen), Err((kind, text))) => {
                assert_eq!(seen.kind(), kind, "{replies:?}: {seen}");
                assert!(seen.to_string().contains(text), "{replies:?}: {seen}");
            }
            (seen, _) => panic!("{replies:?}: {seen:?}"),
        }
    }
}

#[test]
fn what_is_no_reply_to_an_operation_closes_the_connection() {
    let id = id("A");
    let proof = proof_of(&id, NOW);
    let proof = format!("${}\r\n{proof}\r\n", proof.len());
    for (operation, replies) in [
        (Atomic::Increment("n".into(), 1), "*3\r\nPROOF:1\r\n*0\r\n"),
        (Atomic::Increment("n".into(), 1), "*2\r\nPROOF:1\r\n"),
        (Atomic::Increment("n".into(), 1), "*3\r\n:1\r\n:1\r\n$1\r\n1\r\n"),
        (Atomic::SetIfAbsent("n".into(), "1".into()), "*2\r\nPROOF*0\r\n"),
        (Atomic::Take(vec!["n".into()]), "*3\r\nPROOF*2\r\n$-1\r\n$-1\r\n:1\r\n"),
        (Atomic::Take(vec!["n".into()]), "+OK\r\n"),
    ] {
        let step = OperateStep::new(&settings(), &Load { id: &id, lifetimes: IDLE }, operation);
        let mut operation = Steps::new([step.unwrap()]);
        let sent = Sent::by(&mut operation, NOW, false);
        assert_eq!((sent.names().as_str(), sent.repeatable), ("EVAL", false));
        let replies = replies.replace("PROOF", &proof);
        let progress = answer(&mut operation, replies.as_bytes(), 1, NOW);
        assert_eq!(progress, Progress::OutOfStep, "{replies:?}");
        let outcome = operation.into_outcomes().next().unwrap();
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Desync);
    }
}

/// As much of Redis as saves and loads need.
#[derive(Default)]
struct Server {
    keys: BTreeMap<Vec<u8>, Hash>,
    now: u64,
}

#[derive(Clone, Debug, Default)]
struct Hash {
    fields: BTreeMap<Vec<u8>, Vec<u8>>,
    ends: Option<u64>,
}

impl Server {
    /// Carries out a request, which is one step: no operation sends more than one that writes.
    fn run(&mut self, sent: &Sent) -> Vec<u8> {
        let (mut out, mut queued) = (Vec::new(), None::<Vec<Vec<&[u8]>>>);
        for command in sent.commands() {
            match (command[0], &mut queued) {
                (b"MULTI", _) => {
                    queued = Some(Vec::new());
                    out.extend(b"+OK\r\n");
                }
                (b"EXEC", _) => {
                    let commands = queued.take().expect("MULTI came before");
                    out.extend(format!("*{}\r\n", commands.len()).bytes());
                    commands.iter().for_each(|command| out.extend(self.command(command)));
                }
                (_, Some(queued)) => {
                    queued.push(command);
                    out.extend(b"+QUEUED\r\n");
                }
                _ => out.extend(self.command(&command)),
            }
        }
        self.keys.retain(|_, hash| !hash.fields.is_empty());
        out
    }

    fn command(&mut self, words: &[&[u8]]) -> Vec<u8> {
        let number = |count: usize| format!(":{count}\r\n").into_bytes();
        let bulk = |value: Option<&Vec<u8>>| match value {
            Some(value) => [format!("${}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat(),
            None => b"$-1\r\n".to_vec(),
        };
        let (key, rest) = (words[1].to_vec(), &words[2..]);
        match words[0] {
            b"HSET" => {
                let hash = self.keys.entry(key).or_default();
                for pair in rest.chunks(2) {
                    hash.fields.insert(pair[0].to_vec(), pair[1].to_vec());
                }
                number(rest.len() / 2)
            }
            b"HDEL" => {
                let hash = self.keys.get_mut(&key);
                number(hash.map_or(0, |hash| {
                    rest.iter().filter(|name| hash.fields.remove(**name).is_some()).count()
                }))
            }
            b"HMGET" => {
                let fields = self.keys.get(&key).map(|hash| &hash.fields);
                let values =
                    rest.iter().map(|name| bulk(fields.and_then(|fields| fields.get(*name))));
                [format!("*{}\r\n", rest.len()).into_bytes(), values.collect::<Vec<_>>().concat()]
                    .concat()
            }
            b"HGETALL" => {
                let fields =
                    self.keys.get(&key).map(|hash| hash.fields.clone()).unwrap_or_default();
                let pairs = fields
                    .iter()
                    .map(|(name, value)| [bulk(Some(name)), bulk(Some(value))].concat());
                let pairs: Vec<_> = pairs.collect();
                [format!("*{}\r\n", 2 * pairs.len()).into_bytes(), pairs.concat()].concat()
            }
            b"PEXPIRE" => {
                let time: u64 = std::str::from_utf8(rest[0]).unwrap().parse().unwrap();
                let Some(hash) = self.keys.get_mut(&key) else { return number(0) };
                hash.ends = Some(self.now + time);
                self.pass(0);
                number(1)
            }
            b"UNLINK" => number(usize::from(self.keys.remove(&key).is_some())),
            // The only script that is called so is the one that creates.
            b"EVALSHA" if self.keys.contains_key(rest[1]) => number(0),
            b"EVALSHA" => {
                let hash = self.keys.entry(rest[1].to_vec()).or_default();
                for pair in rest[3..].chunks(2) {
                    hash.fields.insert(pair[0].to_vec(), pair[1].to_vec());
                }
                hash.ends =
                    Some(self.now + String::from_utf8_lossy(rest[2]).parse::<u64>().unwrap());
                number(1)
            }
            b"EVAL" if key == EMPTY.as_bytes() => {
                let hash = self.keys.entry(rest[1].to_vec()).or_default();
                let lives = hash.fields.contains_key(PROOF);
                if lives == (rest[2] == b"1") {
                    let own: &[&[u8]] = if lives { &[] } else { &[SAVED, REMEMBER] };
                    hash.fields.retain(|name, _| name[0] == 0 && !own.contains(&&name[..]));
                }
                bulk(None)
            }
            b"EVAL" if key == ROTATE.as_bytes() => {
                let (from, to, owners) = (rest[1], rest[2], [rest[3], rest[4]]);
                let proof = self.keys.get(from).and_then(|hash| hash.fields.get(PROOF)).cloned();
                let Some(proof) = proof else { return bulk(None) };
                assert!(proof.starts_with(owners[0]), "these are their own");
                if self.keys.contains_key(to) {
                    return number(0);
                }
                let mut hash = self.keys.remove(from).expect("it has a proof");
                hash.fields.insert(PROOF.to_vec(), [owners[1], &proof[owners[0].len()..]].concat());
                self.keys.insert(to.to_vec(), hash);
                let mut replies = Vec::new();
                let mut calls = &rest[9..];
                while let [count, command @ ..] = calls {
                    let count: usize = std::str::from_utf8(count).unwrap().parse().unwrap();
                    let (name, arguments) = command[..count].split_first().unwrap();
                    replies.push(self.command(&[&[*name, to], arguments].concat()));
                    calls = &command[count..];
                }
                [format!("*{}\r\n", replies.len()).into_bytes(), replies.concat()].concat()
            }
            other => panic!("{}", String::from_utf8_lossy(other)),
        }
    }

    fn pass(&mut self, time: u64) {
        self.now += time;
        let now = self.now;
        self.keys.retain(|_, hash| hash.ends.is_none_or(|ends| ends > now));
    }
}

/// What somebody does to the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Update(&'static str),
    /// What a read does once a tenth of the lifetime has passed.
    Refresh,
    Clear,
    /// Sets an idle limit of the session's own, or takes it back.
    Remember(Option<Duration>),
    /// A change before a tenth of the lifetime has passed.
    UpdateEarly(&'static str),
    Destroy,
    Rotate,
    /// Time passes, more than the plugin's idle limit and less than a month.
    Pass,
    /// Redis drops the key.
    Evict,
}

const ACTS: [Act; 12] = [
    Act::Update("a"),
    Act::Update("b"),
    Act::Refresh,
    Act::Clear,
    Act::UpdateEarly("c"),
    Act::Remember(Some(MONTH)),
    Act::Remember(Some(SHORT)),
    Act::Remember(None),
    Act::Destroy,
    Act::Rotate,
    Act::Pass,
    Act::Evict,
];

/// What is true of the session, in so many words.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Truth {
    key: Vec<u8>,
    fields: Fields,
    remember: Option<Duration>,
}

/// Somebody on the way.
struct Actor {
    act: Act,
    steps: Steps<SaveStep>,
    /// What it has to answer, once its first request has been carried out.
    saved: Option<Saved>,
    sent_again: bool,
    failed: bool,
    over: bool,
}

/// All runs of a test that makes choices, one after the other.
#[derive(Default)]
struct Choices {
    made: Vec<(usize, usize)>,
    at: usize,
}

impl Choices {
    fn pick(&mut self, count: usize) -> usize {
        if self.at == self.made.len() {
            self.made.push((0, count));
        }
        self.at += 1;
        self.made[self.at - 1].0
    }

    /// Goes on to the next run, if there is one.
    fn next(&mut self) -> bool {
        self.at = 0;
        while let Some((made, count)) = self.made.pop() {
            if made + 1 < count {
                self.made.push((made + 1, count));
                return true;
            }
        }
        false
    }
}

struct World {
    server: Server,
    truth: Option<Truth>,
    actors: Vec<Actor>,
    faults: usize,
    history: String,
}

impl World {
    /// A session that all of them have loaded.
    fn new(acts: &[Act]) -> World {
        let (from, to, settings) = (id("A"), id("B"), settings());
        let start = set(&[("start", "0")]);
        let mut server = Server { now: NOW, ..Server::default() };
        let mut create = save(&from, Action::Create, &start);
        let sent = Sent::by(&mut create, NOW, false);
        let replies = server.run(&sent);
        assert_eq!(answer(&mut create, &replies, sent.replies, NOW), Progress::Done);
        let actors = acts.iter().map(|act| {
            let (mut changes, mut action, mut remember) =
                (Changes::default(), Action::Update, Remember::Same(None));
            match act {
                Act::Update(key) | Act::UpdateEarly(key) => changes = set(&[(key, "1")]),
                Act::Clear => changes.cleared = true,
                Act::Remember(own) => remember = Remember::To(*own),
                Act::Destroy => action = Action::Destroy,
                Act::Rotate => action = Action::Rotate { to: &to },
                Act::Refresh | Act::Pass | Act::Evict => {}
            }
            let renewed_ago = matches!(act, Act::UpdateEarly(_)).then(|| Duration::from_secs(20));
            let save = Save::new(&from, action, &changes, IDLE);
            let save = Save { remember, renewed_ago, ..save };
            let steps = Steps::new([SaveStep::new(&settings, &save)]);
            Actor { act: *act, steps, saved: None, sent_again: false, failed: false, over: false }
        });
        let key = Key::new(&settings, Layout::Default, &from).name;
        let truth = Truth { key, fields: [("start", "0")].into_iter().collect(), remember: None };
        let actors = actors.collect();
        World { server, truth: Some(truth), actors, faults: 0, history: format!("{acts:?}") }
    }

    fn run(&mut self, choices: &mut Choices, most_faults: usize) {
        loop {
            // Minutes do not pass between two requests of one save.
            let midway = |actor: &Actor| actor.saved.is_some() && !actor.over;
            let halts = self.actors.iter().any(midway);
            let can_go = |actor: &Actor| !(actor.over || halts && actor.act == Act::Pass);
            let open = (0..self.actors.len()).filter(|at| can_go(&self.actors[*at]));
            let open: Vec<_> = open.collect();
            if open.is_empty() {
                break;
            }
            let at = open[choices.pick(open.len())];
            let act = self.actors[at].act;
            let fate = match act {
                Act::Pass | Act::Evict => 0,
                _ if self.faults >= most_faults => 0,
                _ => choices.pick(3),
            };
            self.history += &format!("; {act:?}{}", ["", " lost", " unanswered"][fate]);
            self.faults += usize::from(fate != 0);
            self.turn(at, fate);
            self.check();
        }
        self.finish();
    }

    fn turn(&mut self, at: usize, fate: usize) {
        let key = Key::new(&settings(), Layout::Default, &id("A")).name;
        let actor = &mut self.actors[at];
        match actor.act {
            Act::Pass => {
                self.server.pass(2 * KEPT);
                self.truth = self.truth.take().filter(|truth| truth.remember == Some(MONTH));
                actor.over = true;
                return;
            }
            Act::Evict => {
                self.server.keys.remove(&key);
                self.truth = self.truth.take().filter(|truth| truth.key != key);
                actor.over = true;
                return;
            }
            _ => {}
        }
        let sent = Sent::by(&mut actor.steps, self.server.now, false);
        if fate != 1 {
            let replies = self.server.run(&sent);
            if actor.saved.is_none() {
                actor.saved = Some(carried_out(&mut self.truth, actor.act, &key));
            }
            if fate == 0 {
                let now = self.server.now;
                let progress = answer(&mut actor.steps, &replies, sent.replies, now);
                assert_ne!(progress, Progress::OutOfStep, "{}", self.history);
                actor.over = progress == Progress::Done;
                return;
            }
        }
        // As a carrier does: once more over another connection, if that may be.
        if sent.repeatable && !actor.sent_again {
            actor.sent_again = true;
        } else {
            actor.steps.fail(Error::new(ErrorKind::Unavailable, "cut"));
            (actor.over, actor.failed) = (true, true);
        }
    }

    /// What holds after every step.
    fn check(&self) {
        let history = &self.history;
        let key_of = |letter| Key::new(&settings(), Layout::Default, &id(letter)).name;
        for (key, hash) in &self.server.keys {
            assert!(hash.ends.is_some(), "{history}: a key without an end");
            let lives = self.truth.as_ref().is_some_and(|truth| truth.key == *key);
            assert_eq!(hash.fields.contains_key(PROOF), lives, "{history}: dead stays dead");
            assert!([key_of("A"), key_of("B")].contains(key), "{history}: {key:?}");
        }
        match &self.truth {
            Some(truth) if !self.server.keys.contains_key(&truth.key) => {
                // Only a connection that was cut in the midst of two saves can have brought the end forward.
                let remembered = truth.remember.is_some() && self.faults > 0;
                assert!(remembered, "{history}: a live session was lost");
            }
            _ => {}
        }
    }

    fn finish(&mut self) {
        let history = self.history.clone();
        for actor in std::mem::take(&mut self.actors) {
            let outcome = actor.steps.into_outcomes().next().unwrap();
            match (actor.act, outcome) {
                (Act::Pass | Act::Evict, _) => {}
                (act, Ok(saved)) => assert_eq!(Some(saved), actor.saved, "{history}: {act:?}"),
                (_, Err(_)) => assert!(actor.failed, "{history}"),
            }
        }
        for letter in ["A", "B"] {
            let mut load = load(&id(letter));
            let sent = Sent::by(&mut load, self.server.now, false);
            let replies = self.server.run(&sent);
            answer(&mut load, &replies, sent.replies, self.server.now);
            let record = load.into_outcomes().next().unwrap().unwrap();
            let key = Key::new(&settings(), Layout::Default, &id(letter)).name;
            let truth = self.truth.as_ref().filter(|truth| truth.key == key);
            let hash = self.server.keys.get(&key);
            let Some(truth) = truth.filter(|_| hash.is_some()) else {
                assert_eq!(record, None, "{history}");
                assert!(hash.is_none() || self.faults > 0, "{history}: left over");
                continue;
            };
            let record = record.unwrap_or_else(|| panic!("{history}: lost"));
            assert_eq!(record.fields, truth.fields, "{history}");
            assert_eq!(record.remember, truth.remember, "{history}");
            let idle = record.remember.unwrap_or(IDLE.idle);
            let left = hash.unwrap().ends.unwrap() - self.server.now;
            let kept = (idle + idle / 10).as_millis() as u64;
            let passed = self.history.matches("; Pass").count() as u64 * 2 * KEPT;
            let right = left <= kept && left >= kept.saturating_sub(passed);
            let healed = record.renewed_ago >= Some(idle / 10);
            assert!(right || healed && self.faults > 0, "{history}: {left} ms are left");
        }
    }
}

/// What an act does to the session in the moment in which it is carried out.
fn carried_out(truth: &mut Option<Truth>, act: Act, key: &[u8]) -> Saved {
    let Some(session) = truth.as_mut().filter(|truth| truth.key == key) else {
        // The second time that the same move is carried out, it has been done.
        let moved = act == Act::Rotate && truth.is_some();
        return if moved || act == Act::Destroy { Saved::Stored } else { Saved::Gone };
    };
    match act {
        Act::Update(name) | Act::UpdateEarly(name) => session.fields.insert(name, "1"),
        Act::Clear => session.fields.clear(),
        Act::Remember(own) => session.remember = own,
        Act::Rotate => session.key = Key::new(&settings(), Layout::Default, &id("B")).name,
        Act::Destroy => *truth = None,
        Act::Refresh | Act::Pass | Act::Evict => {}
    }
    Saved::Stored
}

fn all_runs(acts: &[Act], most_faults: usize) -> usize {
    let (mut choices, mut runs) = (Choices::default(), 0);
    loop {
        World::new(acts).run(&mut choices, most_faults);
        runs += 1;
        if !choices.next() {
            return runs;
        }
    }
}

#[test]
fn whatever_happens_to_a_session_at_once_in_whatever_order_dead_stays_dead_and_what_is_stored_stays()
 {
    let mut runs = 0;
    for (at, one) in ACTS.into_iter().enumerate() {
        for (and, other) in ACTS.into_iter().enumerate().skip(at) {
            runs += all_runs(&[one, other], 2);
            for third in ACTS.into_iter().skip(and) {
                runs += all_runs(&[one, other, third], 1);
            }
        }
    }
    assert!(runs > 10_000, "{runs}");
}
