//! Random interleavings of everything a store can do, held against a model small enough to be right.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use bottle_session::testing::store_contract::StoreUnderTest;
use bottle_session::{
    Action, Changes, EndDevices, ErrorKind, Layout, Lifetimes, Load, LogIn, OldId, Record,
    Remember, Result, Save, Saved, SessionId,
};

use crate::stores::{Memory, Redis};
use crate::support::sessions::fresh_id;

const STEPS: usize = 30;

/// What users are called, before the number of their case.
const USERS: [&str; 2] = ["ada", "číslo.7 "];

#[test]
fn the_memory_store_does_what_the_model_does() {
    run(Memory::new(), 0..4000);
}

#[test]
fn the_redis_store_does_what_the_model_does() {
    run(Redis::new(Layout::Default), 0..1200);
}

#[test]
fn the_redis_store_in_bottle_sessions_layout_does_what_the_model_does() {
    run(Redis::new(Layout::BottleSession), 0..1200);
}

#[cfg(feature = "sqlite")]
#[test]
fn the_sqlite_store_does_what_the_model_does() {
    run(crate::stores::File::new(bottle_session::Durability::Relaxed), 0..1200);
}

fn run(subject: impl StoreUnderTest, seeds: std::ops::Range<u64>) {
    for seed in seeds {
        Case::new(&subject, seed).run();
    }
}

/// Time in the model, in minutes.
type Minutes = u64;

/// One session in the model.
#[derive(Clone, Debug)]
struct Session {
    fields: BTreeMap<String, String>,
    created: Minutes,
    /// When its idle limit last began anew together with the cookie.
    renewed: Minutes,
    /// The idle limit that the request which saved it took it to have.
    saved_for: Minutes,
    remember: Option<Minutes>,
    login: Option<(&'static str, Minutes)>,
    /// The id under which the user has logged in: its handle stays that of this login.
    login_id: usize,
    expires: Minutes,
}

/// What the store should hold, and the rules of the contract, in so many words.
struct Model {
    live: BTreeMap<usize, Session>,
    now: Minutes,
    idle: Minutes,
    absolute: Option<Minutes>,
    /// Whether it can say when it was last saved; where not, loads start the idle limit anew.
    keeps_times: bool,
    keeps_remember: bool,
    keeps_empty: bool,
}

/// A change of a session in the model.
#[derive(Clone, Debug)]
struct Write {
    changes: Changes,
    /// A limit of its own, or none any more.
    remember: Option<Option<Minutes>>,
    renewed_ago: Option<Minutes>,
    login: Option<&'static str>,
}

impl Model {
    fn pass(&mut self, time: Minutes) {
        self.now += time;
        self.live.retain(|_, session| session.expires > self.now);
    }

    fn touch(&mut self, id: usize, once: Option<Minutes>) {
        let (now, idle, absolute, more) = (self.now, self.idle, self.absolute, self.keeps_times);
        let Some(session) = self.live.get_mut(&id) else { return };
        let idle = once.or(session.remember).unwrap_or(idle);
        // A tenth longer than promised; all idle limits are of tens of minutes.
        session.expires = now + idle + if more { idle / 10 } else { 0 };
        if let Some(absolute) = absolute {
            session.expires = session.expires.min(session.created + absolute);
        }
        if session.fields.is_empty() && !self.keeps_empty {
            self.live.remove(&id);
        }
    }

    fn write(&mut self, id: usize, write: &Write) {
        let (now, keeps_remember, idle) = (self.now, self.keeps_remember, self.idle);
        let Some(session) = self.live.get_mut(&id) else { return };
        if write.changes.cleared {
            session.fields.clear();
        }
        for (key, value) in &write.changes.fields {
            match value {
                Some(value) => session.fields.insert(key.clone(), value.clone()),
                None => session.fields.remove(key),
            };
        }
        if let Some(user) = write.login {
            (session.login, session.login_id) = (Some((user, now)), id);
        }
        if write.renewed_ago.is_none() {
            session.renewed = now;
        }
        session.saved_for = write.remember.flatten().unwrap_or(idle);
        if keeps_remember {
            session.remember = write.remember.unwrap_or(session.remember);
        }
        self.touch(id, write.remember.flatten());
    }

    fn load(&mut self, id: usize) -> Option<Session> {
        if !self.keeps_times {
            self.touch(id, None);
        }
        self.live.get(&id).cloned()
    }

    /// `None` where the store has to answer with an error.
    fn create(&mut self, id: usize, write: &Write) -> Option<Saved> {
        let session = Session {
            fields: BTreeMap::new(),
            created: self.now,
            renewed: self.now,
            saved_for: 0,
            remember: None,
            login: None,
            login_id: 0,
            expires: 0,
        };
        if let Some(there) = self.live.get(&id) {
            let set = write.changes.fields.iter().filter_map(|(k, v)| Some((k, v.as_ref()?)));
            return there.fields.iter().eq(set).then_some(Saved::Stored);
        }
        self.live.insert(id, session);
        self.write(id, write);
        Some(Saved::Stored)
    }

    fn update(&mut self, id: usize, write: &Write) -> Option<Saved> {
        if !self.live.contains_key(&id) {
            return Some(Saved::Gone);
        }
        self.write(id, write);
        Some(Saved::Stored)
    }

    fn rotate(&mut self, id: usize, to: usize, write: &Write) -> Option<Saved> {
        match (self.live.contains_key(&id), self.live.contains_key(&to)) {
            (false, false) if write.login.is_some() => self.create(to, write),
            (false, false) => Some(Saved::Gone),
            (false, true) => Some(Saved::Stored),
            (true, true) => None,
            (true, false) => {
                let session = self.live.remove(&id)?;
                self.live.insert(to, session);
                self.write(to, write);
                Some(Saved::Stored)
            }
        }
    }

    /// The sessions in which this user is logged in.
    fn devices(&self, user: &str) -> Vec<usize> {
        let is_theirs = |session: &Session| session.login.is_some_and(|login| login.0 == user);
        self.live.iter().filter(|(_, session)| is_theirs(session)).map(|(id, _)| *id).collect()
    }

    fn destroy(&mut self, id: usize) -> Option<Saved> {
        self.live.remove(&id);
        Some(Saved::Stored)
    }

    /// Lets an operation act on the fields; an error of its kind leaves them as they were.
    fn operate<T>(
        &mut self,
        id: usize,
        act: impl FnOnce(&mut BTreeMap<String, String>) -> Result<T, ErrorKind>,
    ) -> Result<T, ErrorKind> {
        let session = self.live.get_mut(&id).ok_or(ErrorKind::Gone)?;
        let answer = act(&mut session.fields);
        if session.fields.is_empty() && !self.keeps_empty {
            self.live.remove(&id);
        }
        answer
    }
}

/// xorshift64*: the same numbers on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit
    }

    fn one_of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())].clone()
    }

    fn write(&mut self) -> Write {
        let mut changes = Changes { cleared: self.below(8) == 0, ..Changes::default() };
        for _ in 0..self.below(4) {
            let value = self.one_of(&[None, Some(""), Some("1"), Some("-7"), Some("text")]);
            changes.fields.insert(self.key().to_owned(), value.map(str::to_owned));
        }
        let own = [None, None, None, None, Some(None), Some(Some(20)), Some(Some(1440))];
        Write { changes, remember: self.one_of(&own), renewed_ago: None, login: None }
    }

    fn key(&mut self) -> &'static str {
        self.one_of(&["a", "b", "c", "číslo"])
    }
}

/// A random history of one store and its model.
struct Case<'a> {
    subject: &'a dyn StoreUnderTest,
    random: Random,
    model: Model,
    ids: Vec<SessionId>,
    moves: Vec<(usize, usize)>,
    /// The ids under which there was a session once.
    ever: BTreeSet<usize>,
    /// Of this case alone, as the store is that of all cases.
    users: [&'static str; 2],
    /// The handles of logins, as the store has told them.
    handles: BTreeMap<usize, String>,
    /// Told when a step goes wrong.
    history: String,
}

impl<'a> Case<'a> {
    fn new(subject: &'a dyn StoreUnderTest, seed: u64) -> Case<'a> {
        let mut random = Random((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let can = subject.capabilities();
        let absolute = random.one_of(&[None, Some(60), Some(120)]).filter(|_| can.times);
        let model = Model {
            live: BTreeMap::new(),
            now: 0,
            idle: random.one_of(&[10, 30, 60]),
            absolute,
            keeps_times: can.times,
            keeps_remember: can.remember,
            keeps_empty: can.empty,
        };
        let users = USERS.map(|user| &*format!("{user}{seed}").leak());
        let history = format!("seed {seed}, idle {}, absolute {absolute:?}\n", model.idle);
        Case {
            subject,
            random,
            model,
            ids: Vec::new(),
            moves: Vec::new(),
            ever: BTreeSet::new(),
            users,
            handles: BTreeMap::new(),
            history,
        }
    }

    fn run(&mut self) {
        self.fresh();
        for _ in 0..STEPS {
            self.step();
        }
        for id in 0..self.ids.len() {
            self.load(&[id]);
        }
    }

    fn step(&mut self) {
        match self.random.below(if self.model.keeps_times { 19 } else { 16 }) {
            0..3 => self.pass(),
            3..5 => {
                let count = self.random.below(4);
                let ids: Vec<_> = (0..count).map(|_| self.any()).collect();
                self.load(&ids);
            }
            5..12 => {
                let count = self.random.one_of(&[1, 1, 1, 2, 5]);
                let plans: Vec<_> = (0..count).map(|_| self.plan()).collect();
                self.save(&plans);
            }
            12 => self.increment(),
            13 => self.take(),
            14 => self.set_if_absent(),
            16 => self.list(),
            17 | 18 => self.end(),
            _ => {
                let id = self.any();
                self.load(&[id]);
            }
        }
    }

    fn lifetimes(&self) -> Lifetimes {
        Lifetimes { idle: minutes(self.model.idle), absolute: self.model.absolute.map(minutes) }
    }

    fn fresh(&mut self) -> usize {
        self.ids.push(fresh_id(self.subject.store().id_format()));
        self.ids.len() - 1
    }

    /// A recent id, live or dead: those of long ago are all dead.
    fn any(&mut self) -> usize {
        let recent = self.ids.len().min(4);
        self.ids.len() - 1 - self.random.below(recent)
    }

    fn pass(&mut self) {
        let time = self.random.one_of(&[5, 5, 10, 20, 30, 60]);
        let _ = writeln!(self.history, "pass {time}");
        self.model.pass(time);
        self.subject.advance(minutes(time));
    }

    fn load(&mut self, ids: &[usize]) {
        let _ = writeln!(self.history, "load {ids:?}");
        let expected: Vec<_> = ids.iter().map(|id| self.model.load(*id)).collect();
        let lifetimes = self.lifetimes();
        let loads: Vec<_> = ids.iter().map(|id| Load { id: &self.ids[*id], lifetimes }).collect();
        let loaded = self.subject.store().load_many(&loads);
        assert_eq!(loaded.len(), expected.len());
        for (loaded, expected) in loaded.into_iter().zip(expected) {
            self.compare(loaded.expect("the store works").session(), expected);
        }
    }

    fn compare(&self, loaded: Option<Record>, expected: Option<Session>) {
        let (history, now) = (&self.history, self.model.now);
        let (record, session) = match (loaded, expected) {
            (None, None) => return,
            (Some(record), Some(session)) => (record, session),
            (loaded, expected) => panic!("{history}{loaded:?} instead of {expected:?}"),
        };
        let fields: BTreeMap<_, _> = record.fields.into_iter().collect();
        assert_eq!(fields, session.fields, "{history}");
        assert_eq!(record.remember, session.remember.map(minutes), "{history}");
        let login = record.login.as_ref().map(|login| login.user.as_str());
        assert_eq!(login, session.login.map(|login| login.0), "{history}");
        let times = self.subject.capabilities().times;
        assert_eq!((record.created.is_some(), record.renewed_ago.is_some()), (times, times));
        if let Some(age) = record.renewed_ago {
            // Saved for another limit than it has: its cookie may be the wrong one, so that it is due to be sent.
            let idle = session.remember.unwrap_or(self.model.idle);
            let due = if session.saved_for == idle { Duration::ZERO } else { minutes(idle) / 10 };
            let expected = minutes(now - session.renewed).max(due);
            assert_eq!(age.as_secs() / 60, expected.as_secs() / 60, "{history}");
        }
    }

    fn plan(&mut self) -> (usize, Plan, Write) {
        let write = self.random.write();
        let id = self.any();
        match self.random.below(12) {
            0..3 => (self.fresh(), Plan::Create, write),
            3 => (id, Plan::Create, write),
            4..8 => (id, Plan::Update, write),
            8..10 => {
                let to = self.fresh();
                self.moves.push((id, to));
                (id, Plan::Rotate(to), write)
            }
            10 => {
                // The same move again, or one onto an id that may be in use.
                let (id, to) = match self.moves.last() {
                    Some(last) if self.random.below(2) == 0 => *last,
                    _ => (id, self.any()),
                };
                (id, Plan::Rotate(to), write)
            }
            _ => {
                let (changes, remember) = (Changes::default(), None);
                (id, Plan::Destroy, Write { changes, remember, renewed_ago: None, login: None })
            }
        }
    }

    fn save(&mut self, plans: &[(usize, Plan, Write)]) {
        let mut plans = plans.to_vec();
        let mut made = BTreeSet::new();
        for (id, plan, write) in &mut plans {
            let moves = matches!(plan, Plan::Create | Plan::Rotate(_));
            // A creation or a move onto what is there, or comes in this batch, is an error, whoever logs in.
            let to = if let Plan::Rotate(to) = plan { *to } else { *id };
            let (is_first, is_live) = (made.insert(to), self.model.live.contains_key(&to));
            if moves && self.subject.store().keeps_logins() {
                // No id is ever made twice; an index may know it yet from before.
                let is_fresh = self.ever.insert(to);
                if !(is_fresh || is_live && is_first) {
                    (*id, *plan) = (to, Plan::Update);
                    continue;
                }
            }
            let onto = !is_first || is_live;
            if moves && !onto && self.subject.store().keeps_logins() {
                write.login =
                    self.random.one_of(&[None, None, Some(self.users[0]), Some(self.users[1])]);
            }
        }
        // Some of the updates of sessions with which nothing else happens in this batch leave the cookie as it is.
        for at in 0..plans.len() {
            let id = plans[at].0;
            let is_of_it = |(other, plan, _): &&(usize, Plan, Write)| {
                *other == id || matches!(plan, Plan::Rotate(to) if *to == id)
            };
            let alone = plans.iter().filter(is_of_it).count() == 1;
            if alone && matches!(plans[at].1, Plan::Update) && self.random.below(2) == 0 {
                let renewed = self.model.live.get(&id).map(|session| session.renewed);
                plans[at].2.renewed_ago = renewed.map(|renewed| self.model.now - renewed);
            }
        }
        let _ = writeln!(self.history, "save {plans:?}");
        let mut users = Vec::new();
        let expected: Vec<_> = plans
            .iter()
            .map(|(id, plan, write)| {
                let onto = matches!(plan, Plan::Rotate(to) if self.model.live.contains_key(to));
                let session = self.model.live.get(id).filter(|_| !onto);
                users.push(session.and_then(|session| session.login).map(|login| login.0));
                match plan {
                    Plan::Create => self.model.create(*id, write),
                    Plan::Update => self.model.update(*id, write),
                    Plan::Rotate(to) => self.model.rotate(*id, *to, write),
                    Plan::Destroy => self.model.destroy(*id),
                }
            })
            .collect();
        let lifetimes = self.lifetimes();
        let saves: Vec<_> = plans
            .iter()
            .zip(&users)
            .map(|((id, plan, write), user)| Save {
                id: &self.ids[*id],
                action: match plan {
                    Plan::Create => Action::Create,
                    Plan::Update => Action::Update,
                    Plan::Rotate(to) => Action::Rotate { to: &self.ids[*to] },
                    Plan::Destroy => Action::Destroy,
                },
                changes: &write.changes,
                lifetimes,
                remember: match write.remember {
                    Some(limit) => Remember::To(limit.map(minutes)),
                    None => Remember::Same(None),
                },
                renewed_ago: write.renewed_ago.map(minutes),
                login: write.login.map(LogIn::new),
                user: *user,
                old_id: OldId::default(),
                created: None,
            })
            .collect();
        let saved: Vec<_> =
            self.subject.store().save_many(&saves).into_iter().map(Result::ok).collect();
        assert_eq!(saved, expected, "{}", self.history);
    }

    /// Who is logged in where: each session finds itself in its user's list, under the handle of its login.
    fn list(&mut self) {
        let user = self.random.one_of(&self.users);
        let _ = writeln!(self.history, "list {user}");
        let sessions = self.model.devices(user);
        let listed = self.subject.store().devices(user, None).expect("the store works");
        assert_eq!(listed.len(), sessions.len(), "{}{listed:?}", self.history);
        for id in sessions {
            let this = Some(&self.ids[id]);
            let listed = self.subject.store().devices(user, this).expect("the store works");
            let found = listed.iter().filter(|device| device.is_this).collect::<Vec<_>>();
            assert_eq!(found.len(), 1, "{}{id} in {listed:?}", self.history);
            let login = self.model.live[&id].login_id;
            let known = self.handles.entry(login).or_insert_with(|| found[0].handle.clone());
            assert_eq!(*known, found[0].handle, "{}{id}", self.history);
        }
    }

    fn end(&mut self) {
        let user = self.random.one_of(&self.users);
        let (sessions, one) = (self.model.devices(user), self.any());
        let (which, ended) = match self.random.below(4) {
            0 => (EndDevices::All, Some(sessions)),
            // Whether one that has expired is there still is up to the store.
            1 if !self.model.live.contains_key(&one) => return,
            1 => {
                let others = sessions.iter().copied().filter(|id| *id != one).collect();
                let ended = sessions.contains(&one).then_some(others);
                (EndDevices::AllBut(&self.ids[one]), ended)
            }
            _ => {
                let session = self.model.live.get(&one);
                let login = session.and_then(|session| Some((session.login?.0, session.login_id)));
                // Perhaps of another user.
                let Some((of, login)) = login else { return };
                let Some(handle) = self.handles.get(&login) else { return };
                let ended = if of == user { vec![one] } else { Vec::new() };
                (EndDevices::One(handle), Some(ended))
            }
        };
        let _ = writeln!(self.history, "end {which:?} of {user}, {one}: {ended:?}");
        let count = self.subject.store().end_devices(user, which);
        let expected = ended.as_ref().map(Vec::len).ok_or(ErrorKind::Gone);
        assert_eq!(count.map_err(|error| error.kind()), expected, "{}", self.history);
        for id in ended.into_iter().flatten() {
            self.model.live.remove(&id);
        }
    }

    fn increment(&mut self) {
        let (id, key, by) = (self.any(), self.random.key(), self.random.one_of(&[1, -3, i64::MAX]));
        let _ = writeln!(self.history, "increment {id} {key} {by}");
        let expected = self.model.operate(id, |fields| {
            let held = fields.get(key).map_or("0", String::as_str);
            let sum = held.parse().ok().and_then(|held: i64| held.checked_add(by));
            let sum = sum.ok_or(ErrorKind::Session)?;
            fields.insert(key.to_owned(), sum.to_string());
            Ok(sum)
        });
        let load = Load { id: &self.ids[id], lifetimes: self.lifetimes() };
        let sum = self.subject.store().increment(&load, key, by);
        assert_eq!(sum.map_err(|error| error.kind()), expected, "{}", self.history);
    }

    fn take(&mut self) {
        let (id, keys) = (self.any(), [self.random.key(), self.random.key()]);
        let _ = writeln!(self.history, "take {id} {keys:?}");
        let expected =
            self.model.operate(id, |fields| Ok(keys.map(|key| fields.remove(key)).to_vec()));
        let load = Load { id: &self.ids[id], lifetimes: self.lifetimes() };
        let taken = self.subject.store().take(&load, &keys);
        assert_eq!(taken.map_err(|error| error.kind()), expected, "{}", self.history);
    }

    fn set_if_absent(&mut self) {
        let (id, key) = (self.any(), self.random.key());
        let _ = writeln!(self.history, "set_if_absent {id} {key}");
        let expected = self.model.operate(id, |fields| {
            let absent = !fields.contains_key(key);
            fields.entry(key.to_owned()).or_insert_with(|| "once".to_owned());
            Ok(absent)
        });
        let load = Load { id: &self.ids[id], lifetimes: self.lifetimes() };
        let set = self.subject.store().set_if_absent(&load, key, "once");
        assert_eq!(set.map_err(|error| error.kind()), expected, "{}", self.history);
    }
}

#[derive(Clone, Debug)]
enum Plan {
    Create,
    Update,
    Rotate(usize),
    Destroy,
}

fn minutes(count: Minutes) -> Duration {
    Duration::from_secs(60 * count)
}
