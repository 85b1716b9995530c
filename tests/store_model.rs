//! Random interleavings of everything a store can do, held against a model small enough to be right.

mod model;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use bottle_session::testing::store_contract::StoreUnderTest;
use bottle_session::{
    Action, Changes, EndDevices, ErrorKind, Layout, Lifetimes, Load, Loaded, LogIn, OldId,
    Remember, Save, SessionId,
};

use self::model::{Minutes, Model, Old, Session, Write};
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
            idle: random.one_of(&[10, 30, 60]),
            absolute,
            keeps_times: can.times,
            keeps_remember: can.remember,
            keeps_empty: can.empty,
            keeps_tombstones: subject.store().keeps_tombstones(),
            ..Model::default()
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
        for ((loaded, expected), id) in loaded.into_iter().zip(expected).zip(ids) {
            self.compare(*id, loaded.expect("the store works"), expected);
        }
    }

    fn compare(&self, id: usize, loaded: Loaded, expected: Option<Session>) {
        let (history, now) = (&self.history, self.model.now);
        let (record, session) = match (loaded, expected) {
            (Loaded::Session(record), Some(session)) => (record, session),
            (mut loaded, None) => {
                // Some time has passed while the test ran.
                if let Loaded::PastGrace { since, .. } = &mut loaded {
                    *since = minutes(since.as_secs() / 60);
                }
                return assert_eq!(loaded, self.model.found(id), "{history}{id}");
            }
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
        let grace = self.model.in_open_grace();
        if !grace.is_empty() && self.random.below(4) == 0 {
            let plan =
                self.random.one_of(&[Plan::ExtendGrace, Plan::EndGrace(5), Plan::EndGrace(10)]);
            // Or of an id that is in none, or whose grace period is to end.
            let id = if matches!(plan, Plan::ExtendGrace) || self.random.below(2) == 0 {
                self.random.one_of(&grace)
            } else {
                id
            };
            return (id, plan, Write::default());
        }
        let old = self.random.one_of(&[Old::Linked, Old::Linked, Old::Unlinked, Old::InGrace]);
        match self.random.below(12) {
            0..3 => (self.fresh(), Plan::Create, write),
            3 => (id, Plan::Create, write),
            4..8 => (id, Plan::Update, write),
            8..10 => {
                let to = self.fresh();
                self.moves.push((id, to));
                (id, Plan::Rotate(to, old), write)
            }
            10 => {
                // The same move again, or one onto an id that may be in use.
                let (id, to) = match self.moves.last() {
                    Some(last) if self.random.below(2) == 0 => *last,
                    _ => (id, self.any()),
                };
                (id, Plan::Rotate(to, old), write)
            }
            _ => (id, Plan::Destroy, Write::default()),
        }
    }

    fn save(&mut self, plans: &[(usize, Plan, Write)]) {
        let mut plans = plans.to_vec();
        self.end_with_what_leads_elsewhere(&mut plans);
        let (mut made, mut gone) = (BTreeSet::new(), BTreeSet::new());
        for (id, plan, write) in &mut plans {
            let moves = matches!(plan, Plan::Create | Plan::Rotate(..));
            // A creation or a move onto what is there, or comes in this batch, is an error, whoever logs in.
            let to = if let Plan::Rotate(to, _) = plan { *to } else { *id };
            let is_live = self.model.live.contains_key(&to) && !gone.contains(&to);
            let is_first = made.insert(to);
            if matches!(plan, Plan::Rotate(..) | Plan::Destroy) {
                gone.insert(*id);
            }
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
                *other == id || matches!(plan, Plan::Rotate(to, _) if *to == id)
            };
            let alone = plans.iter().filter(is_of_it).count() == 1;
            if alone && matches!(plans[at].1, Plan::Update) && self.random.below(2) == 0 {
                let renewed = self.model.live.get(&id).map(|session| session.renewed);
                plans[at].2.renewed_ago = renewed.map(|renewed| self.model.now - renewed);
            }
        }
        let created = self.note_creation(&mut plans);
        let _ = writeln!(self.history, "save {plans:?}");
        let mut users = Vec::new();
        let expected: Vec<_> = plans
            .iter()
            .map(|(id, plan, write)| {
                let onto = matches!(plan, Plan::Rotate(to, _) if self.model.live.contains_key(to));
                let session = self.model.live.get(id).filter(|_| !onto);
                users.push(session.and_then(|session| session.login).map(|login| login.0));
                match plan {
                    Plan::Create => self.model.create(*id, write),
                    Plan::Update => self.model.update(*id, write),
                    Plan::Rotate(to, old) => self.model.rotate(*id, *to, *old, write),
                    Plan::Destroy => self.model.destroy(*id),
                    Plan::ExtendGrace => self.model.extend_grace(*id),
                    Plan::EndGrace(after) => self.model.end_grace(*id, *after),
                }
            })
            .collect();
        let lifetimes = self.lifetimes();
        let texts: Vec<_> = (0..self.ids.len()).map(|id| id.to_string()).collect();
        let saves: Vec<_> = plans
            .iter()
            .zip(&users)
            .map(|((id, plan, write), user)| Save {
                id: &self.ids[*id],
                action: match plan {
                    Plan::Create => Action::Create,
                    Plan::Update => Action::Update,
                    Plan::Rotate(to, _) => Action::Rotate { to: &self.ids[*to] },
                    Plan::Destroy => Action::Destroy,
                    Plan::ExtendGrace => Action::ExtendGrace,
                    Plan::EndGrace(after) => Action::EndGrace(minutes(*after)),
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
                old_id: match plan {
                    Plan::Rotate(_, Old::Unlinked) => OldId::Unlinked,
                    Plan::Rotate(to, Old::InGrace) => OldId::InGrace(&texts[*to]),
                    _ => OldId::Linked,
                },
                created: created.get(id).copied(),
            })
            .collect();
        let saved = self.subject.store().save_many(&saves).into_iter();
        let saved: Vec<_> = saved
            .map(|saved| match saved {
                Ok(saved) => Some(saved),
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    panic!("the store works: {error}")
                }
                Err(_) => None,
            })
            .collect();
        assert_eq!(saved, expected, "{}", self.history);
    }

    /// A store may carry out at once what concerns several ids. Where an end follows a session to another id, what else happens to
    /// that one in the same batch may come before or after.
    fn end_with_what_leads_elsewhere(&self, plans: &mut Vec<(usize, Plan, Write)>) {
        let mut gone = BTreeSet::new();
        let end = plans.iter().position(|(id, plan, _)| {
            let is_there = self.model.live.contains_key(id) && !gone.contains(id);
            if matches!(plan, Plan::Rotate(..) | Plan::Destroy) {
                gone.insert(*id);
            }
            matches!(plan, Plan::Destroy) && !is_there
        });
        plans.truncate(end.map_or(plans.len(), |end| end + 1));
    }

    /// When the sessions were created that rotate: an id in its grace period lives as long as they do, by what its request knows.
    fn note_creation(&self, plans: &mut [(usize, Plan, Write)]) -> BTreeMap<usize, SystemTime> {
        let (mut created, mut seen) = (BTreeMap::new(), BTreeSet::new());
        for (id, plan, write) in plans {
            let is_first = seen.insert(*id);
            let Plan::Rotate(to, old @ Old::InGrace) = plan else { continue };
            seen.insert(*to);
            let load = Load { id: &self.ids[*id], lifetimes: self.lifetimes() };
            let load = || self.subject.store().load(&load).expect("the store works").session();
            match (is_first && self.model.keeps_tombstones).then(load).flatten() {
                Some(record) if record.remember.is_none() || write.remember.is_some() => {
                    created.extend(record.created.map(|at| (*id, at)));
                }
                _ => *old = Old::Linked,
            }
        }
        created
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
            self.model.end(id);
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
    Rotate(usize, Old),
    Destroy,
    ExtendGrace,
    EndGrace(Minutes),
}

pub fn minutes(count: Minutes) -> Duration {
    Duration::from_secs(60 * count)
}
