//! The operations without a socket: bytes in, outcome out.

#[cfg(unix)]
mod endings;
mod model_server;
mod orders;
#[cfg(unix)]
mod successors;
mod tombstones;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::operate::OperateStep;
use super::record::{PROOF, REMEMBER, SAVED};
use super::save::SaveStep;
use super::tombstone::TOMBSTONE_FIELD;
use super::*;
use crate::pipeline::operation::{Answer, Progress, Round};
use crate::redis::{RedisReply as Reply, Replies};
use crate::session::store::Changes;

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
        creates_by_script: Arc::default(),
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
fn where_restore_is_refused_a_script_creates_from_then_on() {
    let (settings, one, changes) = (settings(), id("A"), set(&[("a", "1")]));
    let create =
        || Steps::new([SaveStep::new(&settings, &Save::new(&one, Action::Create, &changes, IDLE))]);
    let (mut first, mut second, mut third) = (create(), create(), create());
    let refused = b"-NOPERM this user has no permissions to run the 'restore' command\r\n";
    let unknown = b"-ERR unknown command 'RESTORE'\r\n";
    for (step, refusal) in
        [(&mut first, &refused[..]), (&mut second, unknown), (&mut third, refused)]
    {
        let sent = Sent::by(step, NOW, false);
        assert_eq!((sent.names().as_str(), sent.repeatable), ("RESTORE", true));
        assert_eq!(answer(step, refusal, 1, NOW), Progress::Again);
        assert_eq!(Sent::by(step, NOW, false).names(), "EVAL");
    }
    // No second time: there is nothing else to try.
    assert_eq!(answer(&mut first, refused, 1, NOW), Progress::Done);
    let error = first.into_outcomes().next().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    // So it may be something else that is refused.
    assert_eq!(Sent::by(&mut create(), NOW, false).names(), "RESTORE");
    assert_eq!(answer(&mut second, b":1\r\n", 1, NOW), Progress::Done);
    assert_eq!(Sent::by(&mut create(), NOW, false).names(), "EVAL");
    // The answer to a RESTORE is none to a script.
    assert_eq!(answer(&mut third, b"+OK\r\n", 1, NOW), Progress::Desync);
}

#[test]
fn a_creation_says_when_its_record_ends_by_the_clock_of_redis() {
    let (one, changes) = (id("A"), set(&[("a", "1")]));
    for (idle, ends) in [(IDLE.idle, NOW + KEPT), (Duration::ZERO, NOW)] {
        let lifetimes = Lifetimes { idle, absolute: None };
        let save = Save::new(&one, Action::Create, &changes, lifetimes);
        let sent = Sent::by(&mut Steps::new([SaveStep::new(&settings(), &save)]), NOW, false);
        let command = &sent.commands()[0];
        assert_eq!((text(command[2]), text(command[4])), (ends.to_string(), "ABSTTL".to_owned()));
    }
}

#[test]
fn what_is_sent() {
    let (one, to, none) = (id("A"), id("B"), Changes::default());
    let mut changes = set(&[("a", "1")]);
    changes.fields.insert("b".to_owned(), None);
    let cleared = Changes { cleared: true, fields: BTreeMap::new() };
    let rotate = Action::Rotate { to: &to };
    for (action, changes, names, repeatable) in [
        (Action::Create, &changes, "RESTORE", true),
        (Action::Update, &changes, "MULTI HSET HDEL HMGET PEXPIRE EXEC", false),
        (Action::Update, &none, "MULTI HSET HMGET PEXPIRE EXEC", false),
        (Action::Update, &cleared, "MULTI EVAL HSET HMGET PEXPIRE EXEC", false),
        (rotate, &changes, "MULTI EVAL HMGET PEXPIRE EXEC", true),
        (Action::Destroy, &none, "EVAL", true),
        (Action::ExtendGrace, &none, "EVAL", true),
        (Action::EndGrace(IDLE.idle), &none, "EVAL", true),
    ] {
        let sent = Sent::by(&mut save(&one, action, changes), NOW, false);
        assert_eq!((sent.names().as_str(), sent.repeatable), (names, repeatable));
    }
    let sent = Sent::by(&mut load(&one), NOW, false);
    assert_eq!((sent.names().as_str(), sent.repeatable), ("HGETALL", true));
    // In a cluster each request is for one key, and two sessions go one after the other.
    let sent = Sent::by(&mut save(&one, Action::Create, &changes), NOW, true);
    assert_eq!(sent.names(), "RESTORE");
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
        load.into_outcomes().next().unwrap().unwrap().session()
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
        assert_eq!(answer(&mut load, reply.as_bytes(), 1, NOW), Progress::Desync, "{reply:?}");
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
        assert_eq!(answer(&mut both, replies.as_bytes(), 2, NOW), Progress::Desync);
        let outcomes: Vec<_> = both.into_outcomes().collect();
        assert!(outcomes[0].is_err());
        assert_eq!(outcomes[1].is_ok(), second, "{first:?}");
    }
}

#[test]
fn what_redis_says_to_an_update_decides_what_the_answer_is() {
    use Progress::{Again, Desync, Done};
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
            Desync,
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
        (format!("{queued}*-1\r\n"), Desync, error(ErrorKind::Desync, "")),
        (format!("{queued}*2\r\n:1\r\n:1\r\n"), Desync, error(ErrorKind::Desync, "")),
        (format!("{queued}*3\r\n:1\r\n:1\r\n:1\r\n"), Desync, error(ErrorKind::Desync, "")),
        (results(":1\r\n", nil, 1), Desync, error(ErrorKind::Desync, "")),
        (queued.to_owned() + "+OK\r\n", Desync, error(ErrorKind::Desync, "")),
        (
            "+OK\r\n+OK\r\n+QUEUED\r\n+QUEUED\r\n*0\r\n".to_owned(),
            Desync,
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
        assert_eq!(progress, Progress::Desync, "{replies:?}");
        let outcome = operation.into_outcomes().next().unwrap();
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Desync);
    }
}
