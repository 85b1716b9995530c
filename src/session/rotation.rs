//! Rotation: a session gets a new id from time to time, and nobody is logged out by an answer that is lost on its way.
//!
//! A rotation moves the session from A to B and leaves at A, for whoever holds A, the id B, encrypted under A. Until B has
//! been presented once, A is an id of the session, and each answer to it carries B. The first request with B ends the grace
//! period of A: A is good for ten seconds more, for the requests that are under way. B knows A, encrypted under B, until
//! then. A request that loaded the session under A before the move finds nothing to save there afterwards: it looks at A
//! again, and saves under B.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::events::Event;
use super::id::{SessionId, decode_base64url, encode_base64url};
use super::own::{self, FORMER, OwnFields, SINCE, TOKENS};
use super::saving::CookieDue;
use super::state::{Next, Stage};
use super::store::{Changes, Loaded};
use super::view::Session;
use crate::Result;

/// How long an id is good yet whose successor has been presented.
pub(super) const GRACE: Duration = Duration::from_secs(10);

/// How many grace periods lead from one id to the next at most.
pub(super) const MOST_STEPS: usize = 16;

const NEXT_ID: &[u8] = b"bottle-session next id\0";
const FORMER_ID: &[u8] = b"bottle-session former id\0";
const TOKEN_SECRET: &[u8] = b"bottle-session token secret\0";

/// The new id that was left under an old one.
pub(super) fn next_id(old: &SessionId, text: &str) -> Option<SessionId> {
    old.decrypt_id(NEXT_ID, text)
}

impl Session {
    /// The new id for a session that has had its present one for long enough, and what is left of it under the old one.
    pub(super) fn rotation(&self) -> Result<Option<(SessionId, String)>> {
        let (Some(every), Stage::Stored { id, next: Next::Same }) =
            (self.context.renew_every, &self.stage)
        else {
            return Ok(None);
        };
        // One grace period at a time.
        if self.via.is_some() || self.own.get(FORMER).is_some() || self.sealing.is_open() {
            return Ok(None);
        }
        let since = self.own.get(SINCE).and_then(|text| text.parse().ok());
        let since = since.map(|millis| UNIX_EPOCH + Duration::from_millis(millis));
        let age = since.map(|since| SystemTime::now().duration_since(since).unwrap_or_default());
        if age.is_some_and(|age| age < every) {
            return Ok(None);
        }
        let to = self.context.id_to_move_to(id)?;
        let left = id.encrypt_id(NEXT_ID, &to);
        Ok(Some((to, left)))
    }

    /// What a session has to know of itself under the id that it rotates to.
    pub(super) fn note_rotation(&mut self, to: &SessionId, changes: &mut Changes) {
        let Some(from) = self.id().cloned() else { return };
        let tokens = to.encrypt(TOKEN_SECRET, &self.token_secret_of(&from));
        self.own.set(TOKENS, &encode_base64url(&tokens), changes);
        self.own.set(FORMER, &to.encrypt_id(FORMER_ID, &from), changes);
        self.note_new_id(changes);
    }

    /// The same for a new id that has nothing to do with the old one.
    pub(super) fn note_new_id(&mut self, changes: &mut Changes) {
        if self.context.renew_every.is_some() {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.own.set(SINCE, &now.as_millis().to_string(), changes);
        }
    }

    /// Has a session that gets a new id by itself forget what it knew of rotations, also where another request has rotated it
    /// meanwhile.
    pub(super) fn forget_rotation(&mut self, changes: &mut Changes) {
        for key in [FORMER, TOKENS] {
            self.own.remove(key, changes);
            if self.context.renew_every.is_some() {
                changes.fields.insert(key.to_owned(), None);
            }
        }
    }

    /// Whether this request came with an id whose predecessor is still in its grace period.
    pub(super) fn confirms(&self) -> bool {
        self.via.is_none() && self.own.get(FORMER).is_some()
    }

    /// The id whose grace period this request ends, as it came with the one that follows it.
    pub(super) fn confirmed(&mut self, changes: &mut Changes) -> Option<SessionId> {
        let former = self.own.get(FORMER)?.to_owned();
        let former = self.id()?.decrypt_id(FORMER_ID, &former);
        self.own.remove(FORMER, changes);
        former
    }

    /// What the session's CSRF tokens are made of, under its present id.
    pub(super) fn token_secret_of(&self, id: &SessionId) -> [u8; 32] {
        let mut kept = [0; 32];
        match self.own.get(TOKENS).and_then(|text| decode_base64url(text.as_bytes(), &mut kept)) {
            Some(()) => id.encrypt(TOKEN_SECRET, &kept),
            None => id.derived(super::csrf::token::PURPOSE),
        }
    }

    /// Goes on under the id that another request has rotated the session to since this one loaded it, by what is left under
    /// the old id. `None` where the session is gone.
    pub(super) fn follow(&mut self, loaded: &Loaded) -> Option<SessionId> {
        let (Loaded::Replaced(text), Some(id)) = (loaded, self.id().cloned()) else { return None };
        let next = next_id(&id, text)?;
        self.steps += 1;
        self.stage = Stage::stored(next.clone());
        // What it knows of its rotation is in the store, under the new id.
        self.own = OwnFields::default();
        self.via.get_or_insert(id);
        self.cookie = CookieDue::Send;
        Some(next)
    }

    /// Whether what was not found under the session's id may be under another one by now, to which a request beside this one
    /// has rotated it.
    pub(super) fn may_follow(&self) -> bool {
        self.context.renew_every.is_some() && self.steps < MOST_STEPS
    }

    /// Takes note that the session is gone, where a request wanted to save something.
    pub(super) fn write_lost(&mut self) {
        self.lost();
        self.context.emit(Event::WriteLost);
    }
}

/// Leaves what is not the plugin's own.
pub(super) fn without_own(changes: &mut Changes) {
    changes.fields.retain(|key, _| !own::is_own(key));
}
