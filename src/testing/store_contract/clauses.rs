//! The clauses, in the order of the sentences of the contract.

mod concurrency;
mod devices;
mod lifetimes;
mod loads;
mod moves;
mod operations;
mod saves;
mod slices;
mod tombstones;

use std::collections::BTreeSet;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use super::recorder::Recorder;
use super::{Capabilities, StoreUnderTest};
use crate::session::id::IdGenerator;
use crate::{
    Action, Changes, Device, EndDevices, Error, ErrorKind, Lifetimes, Load, LogIn, Record,
    Remember, Result, Save, Saved, SessionId,
};

pub(super) use self::concurrency::*;
pub(super) use self::devices::*;
pub(super) use self::lifetimes::*;
pub(super) use self::loads::*;
pub(super) use self::moves::*;
pub(super) use self::operations::*;
pub(super) use self::saves::*;
pub(super) use self::slices::*;
pub(super) use self::tombstones::*;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
/// How long a record is kept whose idle limit is an hour.
const KEPT: Duration = Duration::from_secs(66 * 60);

/// Long enough that the time a test itself takes never decides.
const IDLE: Lifetimes = Lifetimes { idle: HOUR, absolute: None };
const LIMITED: Lifetimes = Lifetimes { idle: HOUR, absolute: Some(Duration::from_secs(3 * 3600)) };

/// A store under test, in the words of the clauses.
pub(super) struct Context<'a> {
    subject: &'a dyn StoreUnderTest,
    store: &'a Recorder<'a>,
    ids: IdGenerator,
}

impl<'a> Context<'a> {
    pub(super) fn new(subject: &'a dyn StoreUnderTest, store: &'a Recorder<'a>) -> Context<'a> {
        Context { subject, store, ids: IdGenerator::new() }
    }

    fn store(&self) -> &Recorder<'a> {
        self.store
    }

    fn can(&self) -> Capabilities {
        self.subject.capabilities()
    }

    fn pass(&self, time: Duration) {
        self.subject.advance(time);
    }

    fn id(&self) -> SessionId {
        self.ids.next(self.store().id_format()).expect("the operating system gives random numbers")
    }

    /// A fresh id that this session can move to.
    fn target(&self, from: &SessionId) -> SessionId {
        std::iter::repeat_with(|| self.id())
            .take(1_000_000)
            .find(|to| self.store().can_move(from, to))
            .expect("one in a million ids is one that a session can move to")
    }

    fn create(&self, pairs: &[(&str, &str)]) -> SessionId {
        let id = self.id();
        assert_eq!(self.save(&id, Action::Create, pairs), Saved::Stored);
        id
    }

    fn update(&self, id: &SessionId, pairs: &[(&str, &str)]) -> Saved {
        self.save(id, Action::Update, pairs)
    }

    fn destroy(&self, id: &SessionId) {
        // Whether there was one to end only some stores say.
        self.save(id, Action::Destroy, &[]);
    }

    fn save(&self, id: &SessionId, action: Action<'_>, pairs: &[(&str, &str)]) -> Saved {
        self.save_with(id, action, &set(pairs), IDLE, None).expect("the store works")
    }

    fn save_with(
        &self,
        id: &SessionId,
        action: Action<'_>,
        changes: &Changes,
        lifetimes: Lifetimes,
        remember: Option<Duration>,
    ) -> Result<Saved> {
        let remember = match remember {
            Some(limit) => Remember::To(Some(limit)),
            None => Remember::Same(None),
        };
        self.store().save(&Save { remember, ..Save::new(id, action, changes, lifetimes) })
    }

    fn load(&self, id: &SessionId) -> Option<Record> {
        self.load_with(id, IDLE)
    }

    fn load_with(&self, id: &SessionId, lifetimes: Lifetimes) -> Option<Record> {
        self.store().load(&Load { id, lifetimes }).expect("the store works").session()
    }

    #[track_caller]
    fn holds(&self, id: &SessionId, pairs: &[(&str, &str)]) {
        let record = self.load(id);
        assert_eq!(record.as_ref().map(sorted), Some(owned(pairs)), "what the session holds");
    }

    #[track_caller]
    fn is_dead(&self, id: &SessionId) {
        assert_eq!(self.load(id), None, "a dead session");
    }
}

fn set(pairs: &[(&str, &str)]) -> Changes {
    let pairs = pairs.iter().map(|(key, value)| (key.to_string(), Some(value.to_string())));
    Changes { cleared: false, fields: pairs.collect() }
}

fn removed(keys: &[&str]) -> Changes {
    Changes { cleared: false, fields: keys.iter().map(|key| (key.to_string(), None)).collect() }
}

fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut pairs: Vec<_> =
        pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    pairs.sort();
    pairs
}

fn sorted(record: &Record) -> Vec<(String, String)> {
    record.fields.clone().into_iter().collect()
}

#[track_caller]
fn fails<T: std::fmt::Debug>(result: Result<T>, kind: ErrorKind) -> Error {
    let error = result.expect_err("this has to be an error");
    assert_eq!(error.kind(), kind, "{error}");
    error
}

/// Runs all of these at once and returns their answers in order.
fn at_once<T: Send>(count: usize, act: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let start = Barrier::new(count);
    let turn = |number| {
        start.wait();
        act(number)
    };
    thread::scope(|scope| {
        let turn = &turn;
        let threads: Vec<_> = (0..count).map(|number| scope.spawn(move || turn(number))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no thread panics")).collect()
    })
}
