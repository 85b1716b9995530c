//! What a clause asked of the store, for the message when it fails.

use std::collections::VecDeque;
use std::fmt::{Debug, Write};
use std::sync::Mutex;

use crate::lock::lock;
use crate::session::id::IdFormat;
use crate::{
    Action, Device, EndDevices, Lifetimes, Load, Loaded, Record, Result, Save, Saved, SessionId,
    SessionStore,
};

/// How many calls are shown: the last ones.
const SHOWN: usize = 12;

/// Hands all calls on to the store and keeps the last ones, with their answers.
pub(super) struct Recorder<'a> {
    store: &'a dyn SessionStore,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// The position is the session's number in the texts.
    ids: Vec<SessionId>,
    calls: VecDeque<String>,
}

impl<'a> Recorder<'a> {
    pub(super) fn new(store: &'a dyn SessionStore) -> Recorder<'a> {
        Recorder { store, seen: Mutex::default() }
    }

    /// The last calls, one in each line.
    pub(super) fn calls(&self) -> String {
        self.seen().calls.iter().fold(String::new(), |text, call| text + "\n  " + call)
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        lock(&self.seen)
    }

    fn keep<T: Debug>(
        &self,
        call: impl FnOnce(&mut Seen) -> String,
        answer: Result<T>,
    ) -> Result<T> {
        let mut seen = self.seen();
        let mut text = call(&mut seen);
        let _ = match &answer {
            Ok(answer) => write!(text, " -> {answer:?}"),
            Err(error) => write!(text, " -> {:?}: {error}", error.kind()),
        };
        if seen.calls.len() == SHOWN {
            seen.calls.pop_front();
        }
        seen.calls.push_back(text);
        answer
    }
}

impl Seen {
    fn name(&mut self, id: &SessionId) -> String {
        let known = self.ids.iter().position(|known| known == id);
        let number = known.unwrap_or_else(|| {
            self.ids.push(id.clone());
            self.ids.len() - 1
        });
        format!("session {}", number + 1)
    }

    fn save(&mut self, save: &Save<'_>) -> String {
        let mut text = format!("save {}: ", self.name(save.id));
        let _ = match save.action {
            Action::Create => write!(text, "create"),
            Action::Update => write!(text, "update"),
            Action::Rotate { to } => write!(text, "move to {}, {:?}", self.name(to), save.old_id),
            Action::Destroy => write!(text, "destroy"),
            Action::ExtendGrace => write!(text, "extend the grace period"),
            Action::EndGrace(after) => write!(text, "end the grace period after {after:?}"),
        };
        let cleared = if save.changes.cleared { ", cleared" } else { "" };
        let (changes, remember) = (&save.changes.fields, save.remember);
        let _ = write!(text, "{cleared}, {changes:?}, {:?}, {remember:?}", save.lifetimes);
        if let Some(login) = save.login {
            let _ = write!(text, ", {:?} logs in", login.user);
        }
        text
    }
}

/// The methods of the store.
impl Recorder<'_> {
    pub(super) fn load(&self, load: &Load<'_>) -> Result<Loaded> {
        let call = |seen: &mut Seen| format!("load {}", seen.name(load.id));
        let answer = self.store.load(load);
        let shown = answer.as_ref().map(|loaded| match loaded {
            Loaded::Session(record) => Ok(Shown(record)),
            other => Err(other),
        });
        let _ = self.keep(call, shown.map_err(crate::redis::copy));
        answer
    }

    pub(super) fn save(&self, save: &Save<'_>) -> Result<Saved> {
        self.keep(|seen| seen.save(save), self.store.save(save))
    }

    pub(super) fn increment(&self, load: &Load<'_>, key: &str, by: i64) -> Result<i64> {
        let call = |seen: &mut Seen| format!("increment {}: {key:?} by {by}", seen.name(load.id));
        self.keep(call, self.store.increment(load, key, by))
    }

    pub(super) fn take(&self, load: &Load<'_>, keys: &[&str]) -> Result<Vec<Option<String>>> {
        let call = |seen: &mut Seen| format!("take {}: {keys:?}", seen.name(load.id));
        self.keep(call, self.store.take(load, keys))
    }

    pub(super) fn set_if_absent(&self, load: &Load<'_>, key: &str, value: &str) -> Result<bool> {
        let call =
            |seen: &mut Seen| format!("set_if_absent {}: {key:?}, {value:?}", seen.name(load.id));
        self.keep(call, self.store.set_if_absent(load, key, value))
    }

    pub(super) fn compare_and_set(
        &self,
        load: &Load<'_>,
        key: &str,
        held: Option<&str>,
        fields: &[(&str, &str)],
    ) -> Result<bool> {
        let call = |seen: &mut Seen| {
            let id = seen.name(load.id);
            format!("compare_and_set {id}: where {key:?} holds {held:?}, {fields:?}")
        };
        self.keep(call, self.store.compare_and_set(load, key, held, fields))
    }

    pub(super) fn can_compare_and_set(&self) -> bool {
        self.store.can_compare_and_set()
    }

    pub(super) fn load_many(&self, batch: &[Load<'_>]) -> Vec<Result<Loaded>> {
        let answers = self.store.load_many(batch);
        let _ = self.keep(|_| format!("load_many of {}", batch.len()), Ok(answers.len()));
        answers
    }

    pub(super) fn save_many(&self, batch: &[Save<'_>]) -> Vec<Result<Saved>> {
        let answers = self.store.save_many(batch);
        let call = |seen: &mut Seen| {
            let saves: Vec<_> = batch.iter().map(|save| seen.save(save)).collect();
            format!("save_many [{}]", saves.join("; "))
        };
        let _ = self.keep(call, Ok(&answers));
        answers
    }

    pub(super) fn id_format(&self) -> IdFormat {
        self.store.id_format()
    }

    pub(super) fn can_move(&self, from: &SessionId, to: &SessionId) -> bool {
        self.store.can_move(from, to)
    }

    pub(super) fn keeps_logins(&self) -> bool {
        self.store.keeps_logins()
    }

    pub(super) fn keeps_tombstones(&self) -> bool {
        self.store.keeps_tombstones()
    }

    pub(super) fn devices(&self, user: &str, this: Option<&SessionId>) -> Result<Vec<Device>> {
        self.keep(|_| format!("devices of {user:?}"), self.store.devices(user, this))
    }

    pub(super) fn end_devices(&self, user: &str, which: EndDevices<'_>) -> Result<usize> {
        let call = |seen: &mut Seen| match which {
            EndDevices::All => format!("end all devices of {user:?}"),
            EndDevices::AllBut(id) => format!("end all devices of {user:?} but {}", seen.name(id)),
            EndDevices::One(handle) => format!("end device {handle} of {user:?}"),
        };
        self.keep(call, self.store.end_devices(user, which))
    }

    pub(super) fn check(&self, lifetimes: &Lifetimes) -> Result<()> {
        self.store.check(lifetimes)
    }
}

/// A record with its values, which are the suite's own.
struct Shown<'a>(&'a Record);

impl Debug for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.0.fields.iter()).finish()?;
        let Record { created, renewed_ago, remember, login, .. } = self.0;
        write!(
            f,
            ", created {created:?}, renewed_ago {renewed_ago:?}, remember {remember:?}, {login:?}"
        )
    }
}
