//! Every order in which what happens to one session at once can be carried out, with lost connections between.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::session::store::{Fields, Remember};

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
            let record = load.into_outcomes().next().unwrap().unwrap().session();
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
