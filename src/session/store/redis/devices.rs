//! Listing and ending the sessions of one user; see [`index`](super::index).

use std::sync::Arc;
use std::time::SystemTime;

use super::index::{Index, LivenessCheck, MAX_INDEX_BYTES, entries, key_of, name_of};
use super::record::{self, Key, RecordError, SHORT_REPLY};
use super::save::TOMBSTONE_MILLIS;
use super::steps::{Request, Step};
use super::tombstone::Tombstone;
use super::transaction::script;
use super::{END, Settings, desync, refused};
use crate::pipeline::operation::Round;
use crate::redis::{RedisReply as Reply, Replies};
use crate::session::id::SessionId;
use crate::session::store::devices::{Device, EndDevices, no_such_device};
use crate::{Error, Result};

/// Lists them.
pub(super) struct ListStep {
    settings: Arc<Settings>,
    index: Index,
    user: String,
    this: Vec<u8>,
    state: Listing,
}

enum Listing {
    /// The index is to be read.
    Reading,
    /// Its sessions are to be looked at.
    Looking(LivenessCheck),
    Over(Result<Vec<Device>>),
}

impl ListStep {
    pub(super) fn new(settings: &Arc<Settings>, user: &str, this: Option<&SessionId>) -> ListStep {
        let name = |id| name_of(settings, &Key::new(settings, settings.layout, id));
        ListStep {
            settings: settings.clone(),
            index: Index::of(settings, user),
            user: user.to_owned(),
            this: this.map(name).unwrap_or_default(),
            state: Listing::Reading,
        }
    }
}

impl Step for ListStep {
    type Outcome = Result<Vec<Device>>;

    fn is_over(&self) -> bool {
        matches!(self.state, Listing::Over(_))
    }

    fn request(&mut self, round: &mut Round<'_>) -> Request {
        match &self.state {
            Listing::Looking(check) => check.request(&self.settings, round),
            _ => {
                self.index.set_as_key(round);
                self.index.read(round);
            }
        }
        Request { repeatable: true, read_only: false, max_reply_bytes: MAX_INDEX_BYTES }
    }

    fn answer(&mut self, replies: &mut Replies<'_>, now: SystemTime) -> Result<(), RecordError> {
        self.state = match std::mem::replace(&mut self.state, Listing::Reading) {
            Listing::Reading => match replies.next() {
                Some(Reply::Array(pairs)) => {
                    let (index, user) = (self.index.clone(), self.user.clone());
                    let check = LivenessCheck::new(index, user, self.this.clone(), entries(pairs)?);
                    Listing::Looking(check)
                }
                Some(Reply::Error(line)) => Listing::Over(Err(refused(line))),
                _ => return Err(RecordError::Desync),
            },
            Listing::Looking(mut check) => match check.answer(&self.settings, replies, now)? {
                Ok(()) => Listing::Looking(check),
                Err(error) => Listing::Over(Err(error)),
            },
            over @ Listing::Over(_) => over,
        };
        if matches!(&self.state, Listing::Looking(check) if check.is_over())
            && let Listing::Looking(check) = std::mem::replace(&mut self.state, Listing::Reading)
        {
            self.state = Listing::Over(Ok(check.into_devices()));
        }
        Ok(())
    }

    fn fail(&mut self, error: Error) {
        if !self.is_over() {
            self.state = Listing::Over(Err(error));
        }
    }

    fn into_outcome(self) -> Result<Vec<Device>> {
        match self.state {
            Listing::Over(outcome) => outcome,
            _ => Err(desync()),
        }
    }
}

/// Ends them.
pub(super) struct EndStep {
    settings: Arc<Settings>,
    index: Index,
    which: &'static str,
    /// Of which session, or which handle.
    name: Vec<u8>,
    state: Ending,
}

enum Ending {
    /// The sessions are to be marked as ended in the index, which returns their names.
    Marking,
    /// The records of these are to be removed.
    Removing(Removal),
    /// The entries of these sessions are to be removed from the index. The number is that of the records removed.
    RemovingFromIndex(Vec<Vec<u8>>, usize),
    Over(Result<usize>),
}

struct Removal {
    names: Vec<Vec<u8>>,
    /// How many have been removed; in a cluster each twice.
    done: usize,
    /// How many of them were there.
    were_there: usize,
}

impl Removal {
    /// In a cluster each is removed twice, as one that moves from one node to another may be missed once.
    fn is_over(&self, in_cluster: bool) -> bool {
        self.done >= self.names.len() * if in_cluster { 2 } else { 1 }
    }
}

impl EndStep {
    pub(super) fn new(settings: &Arc<Settings>, user: &str, which: EndDevices<'_>) -> EndStep {
        let (which, name) = match which {
            EndDevices::All => ("all", Vec::new()),
            EndDevices::AllBut(id) => {
                ("but", name_of(settings, &Key::new(settings, settings.layout, id)))
            }
            EndDevices::One(handle) => ("one", handle.as_bytes().to_vec()),
        };
        let (settings, index) = (settings.clone(), Index::of(settings, user));
        EndStep { settings, index, which, name, state: Ending::Marking }
    }
}

/// Removes the sessions with these keys, in one step.
pub(super) fn end(round: &mut Round<'_>, keys: &[&[u8]]) {
    let now = record::milliseconds_since_1970(round.now());
    let tombstone =
        Tombstone::Ended(String::new()).written(now.saturating_add(TOMBSTONE_MILLIS), b"");
    script(round, END, keys, &[&tombstone, TOMBSTONE_MILLIS.to_string().as_bytes()], &[]);
}

impl Step for EndStep {
    type Outcome = Result<usize>;

    fn is_over(&self) -> bool {
        matches!(self.state, Ending::Over(_))
    }

    fn request(&mut self, round: &mut Round<'_>) -> Request {
        let mut max_reply_bytes = SHORT_REPLY;
        match &self.state {
            Ending::Removing(Removal { names, done, .. }) if self.settings.in_cluster => {
                let key = key_of(&self.settings, &names[done % names.len()]);
                round.for_key(&key);
                end(round, &[&key]);
            }
            // One script: not one of them is left to move when another is removed.
            Ending::Removing(Removal { names, .. }) => {
                let keys: Vec<_> = names.iter().map(|name| key_of(&self.settings, name)).collect();
                end(round, &keys.iter().map(Vec::as_slice).collect::<Vec<_>>());
            }
            Ending::RemovingFromIndex(names, _) => {
                self.index.set_as_key(round);
                self.index.remove_ended(round, names);
            }
            Ending::Marking | Ending::Over(_) => {
                self.index.set_as_key(round);
                self.index.mark_ended(round, self.which, &self.name);
                max_reply_bytes = MAX_INDEX_BYTES;
            }
        }
        Request { repeatable: true, read_only: false, max_reply_bytes }
    }

    fn answer(&mut self, replies: &mut Replies<'_>, _: SystemTime) -> Result<(), RecordError> {
        let reply = replies.next();
        if let Some(Reply::Error(line)) = reply {
            self.state = Ending::Over(Err(refused(line)));
            return Ok(());
        }
        let in_cluster = self.settings.in_cluster;
        self.state = match (std::mem::replace(&mut self.state, Ending::Marking), reply) {
            (Ending::Marking, Some(Reply::Nil)) => Ending::Over(Err(no_such_device())),
            (Ending::Marking, Some(Reply::Array(names))) => {
                let names = names.map(|name| Some(name.bulk()?.to_vec()));
                let names = names.collect::<Option<Vec<_>>>().ok_or(RecordError::Desync)?;
                match names.is_empty() {
                    true => Ending::Over(Ok(0)),
                    false => Ending::Removing(Removal { names, done: 0, were_there: 0 }),
                }
            }
            (Ending::Removing(mut removal), Some(Reply::Integer(count))) => {
                removal.done += if in_cluster { 1 } else { removal.names.len() };
                removal.were_there += usize::try_from(count).unwrap_or(0);
                match removal.is_over(in_cluster) {
                    true => Ending::RemovingFromIndex(removal.names, removal.were_there),
                    false => Ending::Removing(removal),
                }
            }
            (Ending::RemovingFromIndex(_, count), Some(_)) => Ending::Over(Ok(count)),
            _ => return Err(RecordError::Desync),
        };
        Ok(())
    }

    fn fail(&mut self, error: Error) {
        self.state = match std::mem::replace(&mut self.state, Ending::Marking) {
            over @ Ending::Over(_) => over,
            // All of them are removed; who looks next finds that out.
            Ending::RemovingFromIndex(_, count) => Ending::Over(Ok(count)),
            Ending::Marking | Ending::Removing(_) => Ending::Over(Err(error)),
        };
    }

    fn into_outcome(self) -> Result<usize> {
        match self.state {
            Ending::Over(outcome) => outcome,
            _ => Err(desync()),
        }
    }
}
