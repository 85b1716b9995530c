//! How a session is written in Redis: its key, the store's own fields, and what a reply says of it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use smallvec::SmallVec;

use super::tombstone::{self, TOMBSTONE_FIELD};
use super::{Layout, Settings};
use crate::redis::{RedisReply as Reply, Replies};
use crate::session::id::SessionId;
use crate::session::store::fields::FieldsIn;
use crate::session::store::{Fields, Lifetimes, Loaded, Login, Record};

// The store's own fields, in the default layout. No key of a user begins with NUL.

/// What proves a record: version, owner's mark, time of creation. Only a creation, a move and a migration write it.
pub(super) const PROOF: &[u8] = b"\0";
/// When the idle limit last began anew together with the cookie, and with which limit the record was last saved:
/// `<ms since 1970>.<ms>`.
pub(super) const SAVED: &[u8] = b"\0s";
/// The session's own idle limit, in milliseconds.
pub(super) const REMEMBER: &[u8] = b"\0r";
/// Who is logged in, and since when: `<ms since 1970>.<user>`. Only a creation and a move write it.
pub(super) const LOGIN: &[u8] = b"\0u";

/// What a proof begins with that this version of the crate has written.
const VERSION: u8 = b'1';

const MARK: usize = 11;

/// How many characters of the id's digest a key has: 168 bits, which nobody finds an id for, nor two ids that share them.
/// With the default prefix the key fits the smallest piece of memory that Redis could have for it.
const DIGEST: usize = 28;

/// A hundred years: a longer lifetime is kept as this one, which Redis can add to its clock.
const MAX_LIFETIME: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// A record of up to so many times the caps is loaded: requests that add to a session at the same time, each of them
/// within the caps, must not end it.
const TOLERATED: usize = 4;

/// By how many milliseconds a record may have been saved in the future.
const CLOCKS_DIFFER: u64 = 60_000;

/// Replies of up to so many times the caps are read, to be told that they are too large.
const READ: usize = 64;

/// The key of a record, and the mark of its owner.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) name: SmallVec<[u8; 48]>,
    /// Version and mark.
    proof: [u8; 1 + MARK],
}

impl Key {
    pub(super) fn new(settings: &Settings, layout: Layout, id: &SessionId) -> Key {
        let mut proof = [VERSION; 1 + MARK];
        let prefix = settings.prefix_of(layout);
        let name = match layout {
            Layout::Default => {
                let digest = id.digest();
                let text = crate::session::id::base64url(&digest);
                // Of 64 bits, which is all that a reply to somebody else's request has to be told by.
                proof[1..].copy_from_slice(&text[text.len() - MARK..]);
                let mut name = SmallVec::from_slice(prefix.as_bytes());
                if settings.in_cluster {
                    name.extend_from_slice(format!("{{{:02x}}}", digest[0]).as_bytes());
                }
                name.extend_from_slice(&text[..DIGEST]);
                name
            }
            Layout::BottleSession => {
                SmallVec::from_vec((prefix.to_owned() + &id.expose_uuid()).into_bytes())
            }
        };
        Key { name, proof }
    }

    /// What the proof of this owner's record begins with.
    pub(super) fn owner(&self) -> &[u8] {
        &self.proof
    }

    /// The proof of a record that was created then.
    pub(super) fn proof(&self, created: u64) -> Vec<u8> {
        [&self.proof, &base36(created)[..]].concat()
    }

    /// When the record with this proof was created, if it is this owner's.
    pub(super) fn created(&self, proof: &[u8]) -> Result<u64, RecordError> {
        match proof.split_at_checked(1 + MARK) {
            Some(([VERSION, ..], created)) => {
                let created = number(created).ok_or(RecordError::Damaged("has a damaged proof"))?;
                if proof.starts_with(&self.proof) { Ok(created) } else { Err(RecordError::Foreign) }
            }
            _ if matches!(proof, [b'2'..=b'9', ..]) => Err(RecordError::Newer),
            _ => Err(RecordError::Damaged("has a damaged proof")),
        }
    }
}

/// Why a record cannot be taken for a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordError {
    Damaged(&'static str),
    TooLarge,
    /// It is marked as another session's.
    Foreign,
    /// A later version of the crate has written it.
    Newer,
    /// The reply is none to the question.
    Desync,
}

/// What a reply to HGETALL holds.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) loaded: Loaded,
    /// Fields of it were left out that are not text.
    pub(super) left_out: bool,
}

/// Reads the record of this key. `now` is the server's clock.
pub(super) fn read(
    settings: &Settings,
    layout: Layout,
    key: &Key,
    hash: Replies<'_>,
    lifetimes: &Lifetimes,
    now: SystemTime,
) -> Result<Found, RecordError> {
    let (mut proof, mut saved, mut remember, mut login, mut left) = (None, None, None, None, None);
    let (mut count, mut bytes) = (0, 0);
    let mut fields = FieldsIn::copy(hash.as_bytes(), hash.len() / 2);
    let mut pairs = hash;
    while let Some(name) = pairs.next() {
        let (Some(name), Some(Some(value))) = (name.bulk(), pairs.next().map(Reply::bulk)) else {
            return Err(RecordError::Desync);
        };
        match name {
            [0, ..] if layout == Layout::Default => match name {
                PROOF => proof = Some(value),
                SAVED => saved = Some(value),
                REMEMBER => remember = Some(value),
                LOGIN => login = Some(value),
                TOMBSTONE_FIELD => left = Some(value),
                _ => {}
            },
            _ => {
                (count, bytes) = (count + 1, bytes + name.len() + value.len());
                if let Some(fields) = &mut fields {
                    fields.push(name, value);
                }
            }
        }
    }
    let mut record = Record::default();
    let present = match layout {
        Layout::BottleSession => count > 0,
        Layout::Default => match proof {
            // Nothing, or what a session or a late save has left.
            None => {
                let now = milliseconds_since_1970(now);
                let loaded = left.map(|left| tombstone::loaded(left, now)).unwrap_or_default();
                return Ok(Found { loaded, left_out: false });
            }
            Some(proof) => {
                let created = key.created(proof)?;
                record.created = UNIX_EPOCH.checked_add(Duration::from_millis(created));
                record.login = login.map(read_login).transpose()?;
                record.remember = remember.and_then(number).map(Duration::from_millis);
                record.renewed_ago =
                    Some(age(saved, record.remember.unwrap_or(lifetimes.idle), now));
                !is_past_absolute(lifetimes, created, now)
            }
        },
    };
    if !present {
        return Ok(Found::default());
    }
    let most = |cap: usize| cap.saturating_mul(TOLERATED);
    if count > most(settings.caps.fields) || bytes > most(settings.caps.bytes) {
        return Err(RecordError::TooLarge);
    }
    let left_out = fields.is_none();
    record.fields = match fields {
        Some(fields) => fields.done(),
        None if layout == Layout::BottleSession => text_only(hash),
        None => return Err(RecordError::Damaged("is not text")),
    };
    Ok(Found { loaded: Loaded::Session(record), left_out })
}

/// Whether a session that was created then has reached its absolute limit.
pub(super) fn is_past_absolute(lifetimes: &Lifetimes, created: u64, now: SystemTime) -> bool {
    let end = |limit| created.saturating_add(milliseconds(limit));
    lifetimes.absolute.is_some_and(|limit| end(limit) <= milliseconds_since_1970(now))
}

/// How long ago the idle limit began anew. Where the record was saved with another idle limit than it has, as it can be if it was
/// remembered at the same moment, its record ends too early or too late until it is saved anew, which it is once a tenth of the limit
/// has passed.
fn age(saved: Option<&[u8]>, idle: Duration, now: SystemTime) -> Duration {
    let due = idle / 10;
    let times = saved.and_then(timed).and_then(|(at, limit)| Some((at, number(limit)?)));
    match times {
        Some((at, for_idle)) => {
            let now = milliseconds_since_1970(now);
            let ago = Duration::from_millis(now.saturating_sub(at));
            // The clocks of two servers may differ a little, and one that was set back would say "just now" for long.
            let is_ahead = at > now.saturating_add(CLOCKS_DIFFER);
            if for_idle == milliseconds(idle) && !is_ahead { ago } else { ago.max(due) }
        }
        None => due,
    }
}

/// The time that a field of the store's own begins with, and what is behind its dot.
fn timed(text: &[u8]) -> Option<(u64, &[u8])> {
    let dot = text.iter().position(|byte| *byte == b'.')?;
    Some((number(&text[..dot])?, &text[dot + 1..]))
}

/// The time of the last renewal, and the idle limit of a save.
pub(super) fn saved(renewed: u64, idle: Duration) -> SmallVec<[u8; 32]> {
    let mut text = SmallVec::new();
    text.extend_from_slice(&base36(renewed));
    text.push(b'.');
    text.extend_from_slice(&base36(milliseconds(idle)));
    text
}

/// When the idle limit last began anew, of what is written of that.
pub(super) fn renewed(saved: &[u8]) -> Option<SystemTime> {
    let (at, _) = timed(saved)?;
    UNIX_EPOCH.checked_add(Duration::from_millis(at))
}

/// What is written of who logs in.
pub(super) fn login(user: &str, now: u64) -> Vec<u8> {
    [&base36(now)[..], b".", user.as_bytes()].concat()
}

pub(super) fn read_login(text: &[u8]) -> Result<Login, RecordError> {
    let login = timed(text).and_then(|(at, user)| {
        let at = UNIX_EPOCH.checked_add(Duration::from_millis(at))?;
        Some(Login { user: String::from_utf8(user.to_vec()).ok()?, at })
    });
    login.ok_or(RecordError::Damaged("has a damaged login"))
}

/// The fields that are text.
fn text_only(mut pairs: Replies<'_>) -> Fields {
    let mut fields = Fields::new();
    while let (Some(Reply::Bulk(name)), Some(Reply::Bulk(value))) = (pairs.next(), pairs.next()) {
        if let (Ok(name), Ok(value)) = (std::str::from_utf8(name), std::str::from_utf8(value)) {
            fields.insert(name, value);
        }
    }
    fields
}

/// How many bytes the reply to HGETALL has at most.
pub(super) fn max_reply_bytes(settings: &Settings) -> usize {
    let caps = settings.caps;
    // Each field has some bytes around it.
    let longest = caps.fields.saturating_mul(64).saturating_add(caps.bytes);
    longest.saturating_mul(READ).saturating_add(16 * 1024)
}

/// How many bytes the reply to other questions has at most.
pub(super) const SHORT_REPLY: usize = 16 * 1024;

/// For PEXPIRE and for the store's own fields; rounded up, so that no lifetime becomes none.
pub(super) fn milliseconds(time: Duration) -> u64 {
    let time = time.min(MAX_LIFETIME).as_nanos().div_ceil(1_000_000);
    u64::try_from(time).unwrap_or(u64::MAX)
}

pub(super) fn milliseconds_since_1970(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    u64::try_from(since).unwrap_or(u64::MAX)
}

/// A number in the store's own fields: base 36, which is short, and which Lua reads as well.
pub(super) fn base36(mut value: u64) -> SmallVec<[u8; 16]> {
    let (mut text, mut at) = ([0; 16], 16);
    loop {
        at -= 1;
        text[at] = b"0123456789abcdefghijklmnopqrstuvwxyz"[(value % 36) as usize];
        value /= 36;
        if value == 0 {
            return SmallVec::from_slice(&text[at..]);
        }
    }
}

/// Reads such a number, of at most 10 digits, which are 100,000 years.
pub(super) fn number(text: &[u8]) -> Option<u64> {
    let is_ours = |byte: &u8| byte.is_ascii_digit() || byte.is_ascii_lowercase();
    let whole = (1..=10).contains(&text.len()) && text.iter().all(is_ours);
    let value = |value: u64, digit: &u8| {
        let digit = if digit.is_ascii_digit() { digit - b'0' } else { digit - b'a' + 10 };
        value * 36 + u64::from(digit)
    };
    whole.then(|| text.iter().fold(0, value))
}
