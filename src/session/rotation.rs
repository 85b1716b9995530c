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
use super::reserved::{self, FORMER, ReservedFields, SINCE, TOKENS};
use super::saving::CookieAction;
use super::state::{GraceId, IdChange, PreviousIdGrace, SessionState};
use super::store::{Changes, Loaded};
use super::view::Session;
use crate::Result;

/// How long an id is good yet whose successor has been presented.
pub(super) const GRACE: Duration = Duration::from_secs(10);

/// How many grace periods lead from one id to the next at most.
pub(super) const MAX_STEPS: usize = 16;

/// By how many milliseconds the clocks of two machines differ at most.
const CLOCKS_DIFFER: u64 = 60_000;

const NEXT_ID: &[u8] = b"bottle-session next id\0";
const FORMER_ID: &[u8] = b"bottle-session former id\0";
const TOKEN_SECRET: &[u8] = b"bottle-session token secret\0";

/// The new id that was left under an old one.
pub(super) fn next_id(old: &SessionId, text: &str) -> Option<SessionId> {
    old.decrypt_id(NEXT_ID, text)
}

impl Session {
    /// The new id for a session that has had its present one for long enough, and what is left of it under the old one.
    pub(super) fn rotation(&self) -> Option<(SessionId, String)> {
        let (Some(every), SessionState::Stored { id, next: IdChange::None }) =
            (self.context.renew_every, &self.state)
        else {
            return None;
        };
        // One grace period at a time.
        if self.grace_id.is_some() || self.reserved.get(FORMER).is_some() || self.sealing.is_open()
        {
            return None;
        }
        // A session from before the option, or one that several requests have filled together, may have no room for what a
        // rotation notes.
        let caps = &self.context.caps;
        if self.fields.len() > caps.fields || self.fields.bytes() > caps.bytes {
            return None;
        }
        let since = self.reserved.get(SINCE).and_then(|text| text.parse().ok());
        let is_young = |since: u64| match milliseconds_since_1970().checked_sub(since) {
            Some(age) => Duration::from_millis(age) < every,
            // By the clock of another machine; one that is far ahead tells nothing.
            None => since - milliseconds_since_1970() < CLOCKS_DIFFER,
        };
        if since.is_some_and(is_young) {
            return None;
        }
        let salted = |to: SessionId| {
            let left = id.encrypt_id(NEXT_ID, &self.context.generator.random()?, &to);
            Ok((to, left))
        };
        let rotation: Result<_> = self.context.id_to_move_to(id).and_then(salted);
        // It keeps its id for now.
        rotation.inspect_err(|error| self.context.emit_error(error)).ok()
    }

    /// What a session has to know of itself under the id that it rotates to.
    pub(super) fn note_rotation(&mut self, to: &SessionId, changes: &mut Changes) -> Result<()> {
        let Some(from) = self.id().cloned() else { return Ok(()) };
        let former = to.encrypt_id(FORMER_ID, &self.context.generator.random()?, &from);
        self.reserved.set(TOKENS, &self.tokens_under(&from, to), changes);
        self.reserved.set(FORMER, &former, changes);
        self.note_new_id(changes);
        Ok(())
    }

    /// The secret of the tokens that the session has under one id, as it is noted under the next one.
    fn tokens_under(&self, id: &SessionId, next: &SessionId) -> String {
        encode_base64url(&next.encrypt(TOKEN_SECRET, &self.token_secret_of(id)))
    }

    /// The same for a new id that has nothing to do with the old one.
    pub(super) fn note_new_id(&mut self, changes: &mut Changes) {
        if self.context.renew_every.is_some() {
            self.reserved.set(SINCE, &milliseconds_since_1970().to_string(), changes);
        }
    }

    /// Has a session that gets a new id by itself forget what it knew of rotations, also where another request has rotated it
    /// meanwhile.
    pub(super) fn forget_rotation(&mut self, changes: &mut Changes) {
        for key in [FORMER, TOKENS] {
            self.reserved.remove(key, changes);
            if self.context.renew_every.is_some() {
                changes.fields.insert(key.to_owned(), None);
            }
        }
    }

    /// The id whose grace period is to end, as this request came with the one that follows it.
    pub(super) fn former_to_end(&mut self) -> Option<SessionId> {
        if self.grace_id.is_some() || self.previous_id_grace != PreviousIdGrace::Unchanged {
            return None;
        }
        let former = self.reserved.get(FORMER)?;
        let former = self.id()?.decrypt_id(FORMER_ID, former);
        self.previous_id_grace =
            if former.is_some() { PreviousIdGrace::EndRequested } else { PreviousIdGrace::Ends };
        former
    }

    /// Whether the answer carries an id of which this request does not know whether it is good yet: another one may have
    /// logged in or out meanwhile.
    pub(super) fn carries_unproven_id(&self) -> bool {
        self.cookie == CookieAction::Send
            && !self.is_proven
            && self.grace_id.as_ref().is_some_and(|grace_id| grace_id.is_open)
    }

    /// What the session's CSRF tokens are made of, under its present id.
    pub(super) fn token_secret_of(&self, id: &SessionId) -> [u8; 32] {
        let mut kept = [0; 32];
        match self
            .reserved
            .get(TOKENS)
            .and_then(|text| decode_base64url(text.as_bytes(), &mut kept))
        {
            Some(()) => id.encrypt(TOKEN_SECRET, &kept),
            None => id.derived(super::csrf::token::PURPOSE),
        }
    }

    /// Goes on under the id that another request has rotated the session to since this one loaded it, by what is left under
    /// the old id. `None` where the session is gone. Also where the grace period is over by now: the old id was good when this
    /// request came with it.
    pub(super) fn move_to_successor(&mut self, loaded: &Loaded) -> Option<SessionId> {
        let (id, left) = (self.id()?.clone(), loaded.left()?);
        let next = next_id(&id, left)?;
        self.steps += 1;
        // What else it knows of rotations is in the store, under the new id.
        let tokens = self.tokens_under(&id, &next);
        self.reserved = ReservedFields::default();
        self.reserved.set(TOKENS, &tokens, &mut Changes::default());
        self.state = SessionState::stored(next.clone());
        let is_open = matches!(loaded, Loaded::InGrace(_));
        self.grace_id.get_or_insert(GraceId { id, is_open });
        self.cookie = if is_open { CookieAction::Send } else { CookieAction::Nothing };
        Some(next)
    }

    /// Whether what was not found under the session's id may be under another one by now, to which a request beside this one
    /// has rotated it.
    pub(super) fn may_have_successor(&self) -> bool {
        self.context.store.keeps_tombstones() && self.steps < MAX_STEPS
    }

    /// Goes on under the id that the session has by now.
    pub(super) fn catch_up(&mut self) -> Result<()> {
        while self.context.renew_every.is_some()
            && self.may_have_successor()
            && let Some(id) = self.id()
        {
            let found = self.context.load(id)?;
            if self.move_to_successor(&found).is_none() {
                break;
            }
        }
        Ok(())
    }

    /// Takes note that the session is gone, where a request wanted to save something.
    pub(super) fn write_lost(&mut self) {
        self.lost();
        self.context.emit(Event::WriteLost);
    }
}

fn milliseconds_since_1970() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// Leaves what is not the plugin's own.
pub(super) fn without_reserved(changes: &mut Changes) {
    changes.fields.retain(|key, _| !reserved::is_reserved(key));
}
