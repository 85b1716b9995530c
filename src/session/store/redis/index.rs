//! The index of a user's sessions: which there are, and how all of them end.
//!
//! For each user who has logged in there is one hash. Its key is the prefix, `u:` and a digest of the user's name; in a
//! cluster it has a slot of its own, so that nothing here is one atomic step over an index and a session. A field is the
//! key of a session without the prefix, its value `<generation> <time of registration> <handle> <address> <agent>`; the field
//! `generation` is a number that ends count up. What happens to it, each line in one step (a script, or one command):
//!
//! - a **login** (1) registers its fresh id, (2) creates the record, (3) confirms: is it registered still, of the present
//!   generation? Only then it is acknowledged, and its id handed out. Else it removes its record and fails.
//! - a **move** of a session in which somebody is logged in, from A to B, (1) registers B, unless A is of a former generation,
//!   (2) moves the record, which is one step as ever, and fails where A is not there, (3) confirms as a login does, and takes A out
//!   of the index.
//! - an **end of all** (1) counts the generation up and reads who is registered, (2) removes the records of all of these, (3) takes
//!   those of a former generation out of the index. Without a cluster (2) is one script. In a cluster it goes through all of
//!   them twice. An end of one does the same with the entries of one handle, whose generation becomes `-`, which is never the present one.
//! - a **logout** removes the record, then its entry. Where the session has moved away from the id, that is the one of the key where
//!   it is now.
//!
//! # Why nothing survives
//!
//! Let the end's step (1) be the moment T. The claim: once its step (2) is over, no session that was logged in before T, or is the
//! continuation of one, is loaded.
//!
//! 1. *A session whose record was there at T is in the list*: it was registered before it was written, and leaves
//!    the index only after its record has ended or moved (logout, confirm), or by pruning, which takes only what it has found dead a minute
//!    after its registration, when whoever would still write it is not confirmed any more.
//! 2. *A login under way at T* has registered before T, or it is one after T. If its record comes before the removal, it is
//!    removed; if it comes later, step (3) of the login comes after T, finds a former generation, and fails: nobody has ever been given this
//!    id. If the process dies before that, a record is left that nobody has an id for, until it expires.
//! 3. *A move from A to B under way at T*: registered after T it is refused, as A is of a former generation. Registered before, B is in
//!    the list. The move needs A's record, so that it comes before A's removal. In one script A and B are removed at
//!    the same moment. In a cluster B may have been looked for before the move and A after it; then the second
//!    round finds B. It finds all: what moves on from B registered when B was there; if that was before T, so was the move from A
//!    to B, and there was no such A at T; if it was after T, it is refused.
//! 4. *Crashes.* Whatever step of an end was the last one, the entries are there until (3), and (3) takes none of them
//!    whose record was not removed: the same call once more finds all. Each step may be done twice. A login or a move that
//!    stops between two steps leaves an entry too many, never one too few.
//! 5. *After the end* the index holds logins and moves of the present generation only; each later end finds them by 1.
//!
//! 6. *A [tombstone](super::tombstone) is no record.* A move, a logout and an end look for the proof, and so take
//!    it for nothing. Only a login's creation that is sent twice makes room for a record where its own was ended meanwhile, which is
//!    the case of 2. Whoever follows it to another key does there what they would do with that key's id.
//!
//! The index lives at least twice as long as any of its sessions: a registration and each save that
//! [renews](crate::Record::renewed_ago) a session see to that, which is the one command that sessions with a user cost. An
//! unplanned failover can lose what no replica had; where an index is on another node of a cluster than a session, it can lose the
//! entry and keep the session, which [`replicas`](crate::RedisConfig::replicas) prevents.
//!
//! An entry whose session has expired stays until the index is used: a list removes what it finds dead, and so does a login.

use std::time::SystemTime;

use sha2::{Digest, Sha256};

use super::record::{self, Key, LOGIN, PROOF, RecordError, SAVED};
use super::transaction::script;
use super::{Settings, refused};
use crate::pipeline::operation::Round;
use crate::redis::{RedisReply as Reply, Replies};
use crate::session::id::base64url;
use crate::session::store::devices::{Device, newest_first};
use crate::{Error, Result};

const CONFIRM: &str = include_str!("lua/confirm.lua");
const MARK_ENDED: &str = include_str!("lua/mark_ended.lua");
const REMOVE_ENDED: &str = include_str!("lua/remove_ended.lua");
const REGISTER: &str = include_str!("lua/register.lua");
const TOUCH: &str = include_str!("lua/touch.lua");
const PRUNE: &str = include_str!("lua/prune.lua");

/// How many characters of the digest of a user's name a key has: 168 bits.
const DIGEST: usize = 28;

/// For how many milliseconds after a registration its record may still be written.
const REGISTRATION_TIMEOUT: u64 = 60_000;

/// How many sessions are checked in one round trip, so that other requests do not wait long behind them.
const CHECKS_PER_ROUND_TRIP: usize = 100;

/// How many bytes an index has at most: some 50,000 sessions.
pub(super) const MAX_INDEX_BYTES: usize = 16 << 20;

/// The key of a user's index.
#[derive(Clone, Debug)]
pub(super) struct Index(Vec<u8>);

impl Index {
    pub(super) fn of(settings: &Settings, user: &str) -> Index {
        let digest = Sha256::new().chain_update(b"bottle-session user\0").chain_update(user);
        let digest = base64url(&digest.finalize().into());
        let prefix = settings.prefix_of(settings.layout).as_bytes();
        Index([prefix, b"u:", &digest[..DIGEST]].concat())
    }

    pub(super) fn set_as_key(&self, round: &mut Round<'_>) {
        round.for_key(&self.0);
    }

    pub(super) fn read(&self, round: &mut Round<'_>) {
        round.command(&[b"HGETALL", &self.0]);
    }

    pub(super) fn register(&self, round: &mut Round<'_>, registration: &Registration) {
        let Registration { name, from, login, unknown, lifetime } = registration;
        let now = record::base36(record::milliseconds_since_1970(round.now()));
        let arguments: [&[u8]; 6] = [name, from, login, unknown, &now, lifetime.as_bytes()];
        script(round, REGISTER, &[&self.0], &arguments, &[]);
    }

    pub(super) fn confirm(&self, round: &mut Round<'_>, registration: &Registration) {
        let Registration { name, from, lifetime, .. } = registration;
        script(round, CONFIRM, &[&self.0], &[name, from, lifetime.as_bytes()], &[]);
    }

    pub(super) fn touch(&self, round: &mut Round<'_>, lifetime: &str) {
        script(round, TOUCH, &[&self.0], &[lifetime.as_bytes()], &[]);
    }

    pub(super) fn remove(&self, round: &mut Round<'_>, name: &[u8]) {
        round.command(&[b"HDEL", &self.0, name]);
    }

    pub(super) fn mark_ended(&self, round: &mut Round<'_>, which: &str, name: &[u8]) {
        script(round, MARK_ENDED, &[&self.0], &[which.as_bytes(), name], &[]);
    }

    pub(super) fn remove_ended(&self, round: &mut Round<'_>, names: &[Vec<u8>]) {
        let names: Vec<_> = names.iter().map(Vec::as_slice).collect();
        script(round, REMOVE_ENDED, &[&self.0], &names, &[]);
    }

    fn prune(&self, round: &mut Round<'_>, expired: &[Entry]) {
        let words: Vec<_> =
            expired.iter().flat_map(|entry| [&entry.name[..], &entry.value]).collect();
        script(round, PRUNE, &[&self.0], &words, &[]);
    }
}

/// The registration of a session in an index.
#[derive(Debug)]
pub(super) struct Registration {
    pub(super) name: Vec<u8>,
    /// The session that moves there, or nothing.
    pub(super) from: Vec<u8>,
    /// What is kept of the login: handle, address and agent; nothing where somebody is logged in already.
    pub(super) login: Vec<u8>,
    /// The same of a session that the index does not know.
    pub(super) unknown: Vec<u8>,
    /// For how many milliseconds the index is to be kept.
    pub(super) lifetime: String,
}

/// The name of a session in an index.
pub(super) fn name_of(settings: &Settings, key: &Key) -> Vec<u8> {
    key.name[settings.prefix_of(settings.layout).len()..].to_vec()
}

/// The key of the session with this name in an index.
pub(super) fn key_of(settings: &Settings, name: &[u8]) -> Vec<u8> {
    [settings.prefix_of(settings.layout).as_bytes(), name].concat()
}

/// What an index holds of one session.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: Vec<u8>,
    value: Vec<u8>,
    registered: u64,
    handle: String,
    address: String,
    agent: String,
}

/// Reads the entries in a reply to HGETALL, and skips other fields.
pub(super) fn entries(mut pairs: Replies<'_>) -> Result<Vec<Entry>, RecordError> {
    let mut entries = Vec::new();
    while let Some(name) = pairs.next() {
        let (Some(name), Some(Some(value))) = (name.bulk(), pairs.next().map(Reply::bulk)) else {
            return Err(RecordError::Desync);
        };
        let Ok(text) = std::str::from_utf8(value) else { continue };
        let mut words = text.splitn(5, ' ').skip(1);
        if let (Some(registered), Some(handle), Some(address), Some(agent)) =
            (words.next(), words.next(), words.next(), words.next())
            && let Some(registered) = record::number(registered.as_bytes())
        {
            let address = if address == "-" { "" } else { address };
            entries.push(Entry {
                name: name.to_vec(),
                value: value.to_vec(),
                registered,
                handle: handle.to_owned(),
                address: address.to_owned(),
                agent: agent.to_owned(),
            });
        }
    }
    Ok(entries)
}

impl Entry {
    /// Whether its record will not be written any more if it is missing.
    pub(super) fn is_past_registration(&self, now: u64) -> bool {
        self.registered.saturating_add(REGISTRATION_TIMEOUT) < now
    }
}

/// Checks which sessions of an index are live, and removes the others from it.
pub(super) struct LivenessCheck {
    index: Index,
    user: String,
    /// The name in the index of the session that asks.
    this: Vec<u8>,
    entries: Vec<Entry>,
    /// How many entries have been checked.
    checked: usize,
    devices: Vec<Device>,
    expired: Vec<Entry>,
}

impl LivenessCheck {
    pub(super) fn new(
        index: Index,
        user: String,
        this: Vec<u8>,
        entries: Vec<Entry>,
    ) -> LivenessCheck {
        LivenessCheck {
            index,
            user,
            this,
            entries,
            checked: 0,
            devices: Vec::new(),
            expired: Vec::new(),
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.checked == self.entries.len() && self.expired.is_empty()
    }

    /// The live sessions, the latest login first.
    pub(super) fn into_devices(mut self) -> Vec<Device> {
        newest_first(&mut self.devices);
        self.devices
    }

    /// The entries to check in the next round trip: in a cluster one, as each may be on another node.
    fn next(&self, settings: &Settings) -> &[Entry] {
        let rest = &self.entries[self.checked..];
        &rest[..rest.len().min(if settings.in_cluster { 1 } else { CHECKS_PER_ROUND_TRIP })]
    }

    pub(super) fn request(&self, settings: &Settings, round: &mut Round<'_>) {
        let next = self.next(settings);
        if next.is_empty() {
            self.index.set_as_key(round);
            return self.index.prune(round, &self.expired);
        }
        for entry in next {
            let key = key_of(settings, &entry.name);
            round.for_key(&key);
            round.command(&[b"HMGET", &key, PROOF, SAVED, LOGIN]);
        }
    }

    pub(super) fn answer(
        &mut self,
        settings: &Settings,
        replies: &mut Replies<'_>,
        now: SystemTime,
    ) -> Result<Result<(), Error>, RecordError> {
        let count = self.next(settings).len();
        if count == 0 {
            self.expired.clear();
            // An error is ignored: the next check finds them again.
            return replies.next().map(|_| Ok(())).ok_or(RecordError::Desync);
        }
        let mut refusal = Ok(());
        for _ in 0..count {
            let entry = &self.entries[self.checked];
            self.checked += 1;
            let mut held = match replies.next() {
                Some(Reply::Array(held)) => held,
                Some(Reply::Error(line)) => {
                    refusal = Err(refused(line));
                    continue;
                }
                _ => return Err(RecordError::Desync),
            };
            let mut field = || held.next().and_then(Reply::bulk);
            match (field(), field(), field()) {
                (Some(_), saved, Some(login)) => {
                    let login = record::read_login(login).ok();
                    let last_seen = saved.and_then(record::renewed);
                    if let Some(login) = login.filter(|login| login.user == self.user) {
                        self.devices.push(Device {
                            handle: entry.handle.clone(),
                            logged_in: login.at,
                            last_seen: last_seen.unwrap_or(login.at),
                            agent: entry.agent.clone(),
                            address: entry.address.clone(),
                            is_this: entry.name == self.this,
                        });
                    }
                }
                _ if entry.is_past_registration(record::milliseconds_since_1970(now)) => {
                    self.expired.push(entry.clone());
                }
                _ => {}
            }
        }
        Ok(refusal)
    }
}
