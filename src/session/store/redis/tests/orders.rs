//! Every order in which what happens to one session at once can be carried out, with lost connections between.

use std::collections::BTreeMap;
use std::time::Duration;

use super::model_server::{Server, parts};
use super::*;
use crate::session::store::{Fields, OldId, Remember};

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
    /// Moves it from A to B, and leaves this.
    Rotate(OldId<'static>),
    /// Moves it from B to C.
    Onward,
    /// Time passes, more than the plugin's idle limit and less than a month.
    Pass,
    /// Redis drops the key.
    Evict,
}

const ACTS: [Act; 15] = [
    Act::Update("a"),
    Act::Update("b"),
    Act::Refresh,
    Act::Clear,
    Act::UpdateEarly("c"),
    Act::Remember(Some(MONTH)),
    Act::Remember(Some(SHORT)),
    Act::Remember(None),
    Act::Destroy,
    Act::Rotate(OldId::Linked),
    Act::Rotate(OldId::Unlinked),
    Act::Rotate(OldId::InGrace("left")),
    Act::Onward,
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
    /// What was left under which key, and until when it is known.
    left: BTreeMap<Vec<u8>, (OldId<'static>, u64)>,
    actors: Vec<Actor>,
    faults: usize,
    history: String,
}

impl World {
    /// A session that all of them have loaded.
    fn new(acts: &[Act]) -> World {
        let ([from, to, further], settings) = (["A", "B", "C"].map(id), settings());
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
                Act::Rotate(_) => action = Action::Rotate { to: &to },
                Act::Onward => action = Action::Rotate { to: &further },
                Act::Refresh | Act::Pass | Act::Evict => {}
            }
            let renewed_ago = matches!(act, Act::UpdateEarly(_)).then(|| Duration::from_secs(20));
            let id = if *act == Act::Onward { &to } else { &from };
            let old_id = if let Act::Rotate(old_id) = act { *old_id } else { OldId::Linked };
            let save = Save::new(id, action, &changes, IDLE);
            let save = Save { remember, renewed_ago, old_id, ..save };
            let steps = Steps::new([SaveStep::new(&settings, &save)]);
            Actor { act: *act, steps, saved: None, sent_again: false, failed: false, over: false }
        });
        let key = Key::new(&settings, Layout::Default, &from).name.to_vec();
        let truth = Truth { key, fields: [("start", "0")].into_iter().collect(), remember: None };
        let actors = actors.collect();
        let (left, history) = (BTreeMap::new(), format!("{acts:?}"));
        World { server, truth: Some(truth), left, actors, faults: 0, history }
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
        let key = Key::new(&settings(), Layout::Default, &id("A")).name.to_vec();
        let actor = &mut self.actors[at];
        match actor.act {
            Act::Pass => {
                self.server.pass(2 * KEPT);
                self.truth = self.truth.take().filter(|truth| truth.remember == Some(MONTH));
                self.left.clear();
                actor.over = true;
                return;
            }
            Act::Evict => {
                self.server.keys.remove(&key);
                self.truth = self.truth.take().filter(|truth| truth.key != key);
                self.left.remove(&key);
                actor.over = true;
                return;
            }
            _ => {}
        }
        let sent = Sent::by(&mut actor.steps, self.server.now, false);
        if fate != 1 {
            let asked = sent.commands().into_iter().find_map(|command| {
                let is_script = command[0] == b"EVAL" && command[1] != EMPTY.as_bytes();
                is_script.then(|| command[3].to_vec())
            });
            let replies = self.server.run(&sent);
            let key = asked.as_ref().unwrap_or(&key);
            // What is done twice may find the second time that its session, or what it has left, is gone since.
            let again = asked.is_some()
                && match actor.act {
                    Act::Rotate(_) | Act::Onward => true,
                    _ => !self.left.contains_key(key),
                };
            if actor.saved.is_none() || again {
                let until = self.server.now + 60_000;
                actor.saved = carried_out(&mut self.truth, &mut self.left, actor.act, key, until);
            }
            if fate == 0 {
                let now = self.server.now;
                let progress = answer(&mut actor.steps, &replies, sent.replies, now);
                assert_ne!(progress, Progress::Desync, "{}", self.history);
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
        let key_of = |letter| Key::new(&settings(), Layout::Default, &id(letter)).name.to_vec();
        for (key, hash) in &self.server.keys {
            assert!(hash.ends.is_some(), "{history}: a key without an end");
            let lives = self.truth.as_ref().is_some_and(|truth| truth.key == *key);
            assert_eq!(hash.fields.contains_key(PROOF), lives, "{history}: dead stays dead");
            assert!(["A", "B", "C"].map(key_of).contains(key), "{history}: {key:?}");
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
        for letter in ["A", "B", "C"] {
            let mut load = load(&id(letter));
            let sent = Sent::by(&mut load, self.server.now, false);
            let replies = self.server.run(&sent);
            answer(&mut load, &replies, sent.replies, self.server.now);
            let loaded = load.into_outcomes().next().unwrap().unwrap();
            let key = Key::new(&settings(), Layout::Default, &id(letter)).name.to_vec();
            let truth = self.truth.as_ref().filter(|truth| truth.key == key);
            let hash = self.server.keys.get(&key);
            let Some(truth) = truth.filter(|_| hash.is_some()) else {
                let left = self.left.get(&key).filter(|(_, until)| *until > self.server.now);
                let expected = match left {
                    None => Loaded::Unknown,
                    Some((OldId::InGrace(text), _)) => Loaded::InGrace((*text).to_owned()),
                    Some(_) => Loaded::Ended,
                };
                // A late update whose clean-up is lost may bring the end of what it finds forward.
                let is_lost = self.faults > 0 && loaded == Loaded::Unknown && hash.is_none();
                assert!(loaded == expected || is_lost, "{history}: {loaded:?} of {expected:?}");
                if let Some(hash) = hash.filter(|_| self.faults == 0) {
                    assert!(hash.fields.keys().eq([TOMBSTONE_FIELD]), "{history}: left over");
                    // A late update has given it an end of its own.
                    assert_eq!(
                        hash.ends,
                        Some(parts(&hash.fields[TOMBSTONE_FIELD]).1),
                        "{history}"
                    );
                }
                continue;
            };
            let record = loaded.session().unwrap_or_else(|| panic!("{history}: lost"));
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

/// What an act does to the session in the moment in which it is carried out, under this key; what it leaves is known until
/// then. `None` where it is to go on elsewhere.
fn carried_out(
    truth: &mut Option<Truth>,
    left: &mut BTreeMap<Vec<u8>, (OldId<'static>, u64)>,
    act: Act,
    key: &[u8],
    until: u64,
) -> Option<Saved> {
    let key_of = |letter| Key::new(&settings(), Layout::Default, &id(letter)).name.to_vec();
    let Some(session) = truth.as_mut().filter(|truth| truth.key == key) else {
        // The second time that the same move is carried out, it has been done.
        let moved = |letter| truth.as_ref().is_some_and(|truth| truth.key == key_of(letter));
        return match act {
            Act::Rotate(_) if moved("B") => Some(Saved::Stored),
            Act::Onward if moved("C") => Some(Saved::Stored),
            Act::Destroy
                if matches!(left.get(key), Some((OldId::Linked | OldId::InGrace(_), _))) =>
            {
                None
            }
            _ => Some(Saved::Gone),
        };
    };
    match act {
        Act::Update(name) | Act::UpdateEarly(name) => session.fields.insert(name, "1"),
        Act::Clear => session.fields.clear(),
        Act::Remember(own) => session.remember = own,
        Act::Rotate(old_id) => {
            session.key = key_of("B");
            let lives = matches!(old_id, OldId::InGrace(_));
            let until = if lives { until - 60_000 + KEPT } else { until };
            left.insert(key.to_vec(), (old_id, until));
        }
        Act::Onward => {
            session.key = key_of("C");
            left.insert(key.to_vec(), (OldId::Linked, until));
        }
        Act::Destroy => {
            *truth = None;
            left.insert(key.to_vec(), (OldId::Unlinked, until));
        }
        Act::Refresh | Act::Pass | Act::Evict => {}
    }
    Some(Saved::Stored)
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
                // What is left, and where the session moves on, is a matter of who ends it.
                let all = [one, other, third];
                let is_followed = |act: &Act| {
                    use OldId::{InGrace, Unlinked};
                    matches!(act, Act::Rotate(Unlinked | InGrace(_)) | Act::Onward)
                };
                if all.iter().any(is_followed) && !all.contains(&Act::Destroy) {
                    continue;
                }
                runs += all_runs(&[one, other, third], 1);
            }
        }
    }
    assert!(runs > 10_000, "{runs}");
}
