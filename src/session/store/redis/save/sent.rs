//! What a save sends.

use smallvec::SmallVec;

use super::{CreatesBy, Rotation, SaveStep, TOMBSTONE_MILLIS};
use crate::pipeline::operation::Round;
use crate::session::store::Remember;
use crate::session::store::redis::dump;
use crate::session::store::redis::index::name_of;
use crate::session::store::redis::record::{self, Key, LOGIN, PROOF, REMEMBER, SAVED};
use crate::session::store::redis::tombstone::Tombstone;
use crate::session::store::redis::transaction::{Call, Transaction, script};
use crate::session::store::redis::{CREATE, DESTROY, EMPTY, GRACE, GUARD, ROTATE};
use crate::session::store::save::PAST_GRACE_FOR;

impl SaveStep {
    /// The commands that write the values.
    pub(super) fn calls(&self, now: u64, proof: Option<&[u8]>) -> SmallVec<[Call<'_>; 4]> {
        let (mut calls, mut set) = (SmallVec::new(), self.values.set.iter());
        let mut first = Call::new("HSET");
        if let Some(proof) = proof {
            first = first.with(PROOF).with(proof);
        }
        if self.has_proof() {
            let renewed = now.saturating_sub(self.renewed_ago.map_or(0, record::milliseconds));
            first = first.with(SAVED).with(&record::saved(renewed, self.idle));
        }
        if let (true, Remember::To(Some(own))) = (self.has_proof(), self.remember) {
            first = first.with(REMEMBER).with(&record::base36(record::milliseconds(own)));
        }
        if let (true, Some(user)) = (self.has_proof(), &self.login) {
            first = first.with(LOGIN).with(&record::login(user, now));
        }
        match set.next() {
            Some(words) => calls.push(first.and(words)),
            None if self.has_proof() => calls.push(first),
            None => {}
        }
        calls.extend(set.map(|words| Call::new("HSET").and(words)));
        if let (true, None, Remember::To(None)) = (self.has_proof(), proof, self.remember) {
            calls.push(Call::new("HDEL").with(REMEMBER));
        }
        calls.extend(self.values.removed.iter().map(|words| Call::new("HDEL").and(words)));
        calls
    }

    pub(super) fn create(&self, round: &mut Round<'_>, now: u64) {
        let proof = self.has_proof().then(|| self.key.proof(now));
        let calls = self.calls(now, proof.as_deref());
        let sets = || calls.iter().filter(|call| call.name == "HSET");
        let count = sets().map(Call::arguments).sum();
        let kept_for: i64 = self.kept_for(Some(now), now).try_into().unwrap_or(i64::MAX);
        if let CreatesBy::Restore = self.creates_by {
            let hash = dump::hash(count, sets().flat_map(Call::words));
            return round.command_of(5, |command| {
                command.word(b"RESTORE");
                command.word(&self.key.name);
                // Redis before 7 writes this command to its append-only file as it is: what is counted from now on would begin
                // anew with each restart. And 0 from now on would be for ever.
                command.number(kept_for.saturating_add_unsigned(now));
                command.word(&hash);
                command.word(b"ABSTTL");
            });
        }
        round.command_of(5 + count, |command| {
            command.word(b"EVAL");
            command.word(CREATE.as_bytes());
            command.number(1);
            command.word(&self.key.name);
            command.number(kept_for);
            sets().flat_map(Call::words).for_each(|word| command.word(word));
        });
    }

    pub(super) fn update(&self, round: &mut Round<'_>, now: u64) -> usize {
        let key = &self.key.name[..];
        let (mut calls, expiry) =
            (self.calls(now, None), Call::expiry(self.kept_for(self.created, now)));
        let is_alone = round.is_for_one_key();
        let mut transaction = Transaction::begin(round);
        if !self.has_proof() {
            if self.values.cleared {
                calls.insert(0, Call::new("UNLINK"));
            }
            calls.push(expiry);
            transaction.script(GUARD, &[key], &[b""], &calls);
            self.check_permissions_first(&mut transaction, is_alone);
            return transaction.commit();
        }
        if self.values.cleared {
            transaction.script(EMPTY, &[key], &[b"1"], &[]);
        }
        calls.iter().for_each(|call| transaction.call(key, call));
        transaction.command(&[b"HMGET", key, PROOF, REMEMBER]);
        transaction.call(key, &expiry);
        transaction.commit()
    }

    pub(super) fn rotate(
        &self,
        round: &mut Round<'_>,
        Rotation { to, former, tombstone }: &Rotation,
        now: u64,
    ) -> usize {
        let mut calls = self.calls(now, None);
        calls.push(Call::expiry(self.kept_for(self.created, now)));
        let mut keys = vec![&self.key.name[..], &to.name];
        keys.extend(former.as_ref().map(|former| &former.name[..]));
        let oldest = match self.lifetimes.absolute {
            Some(limit) => now.saturating_sub(record::milliseconds(limit)),
            None => 0,
        };
        let owners = if self.has_proof() { [self.key.owner(), to.owner()] } else { [&b""[..]; 2] };
        let (oldest, cleared) = (oldest.to_string(), u8::from(self.values.cleared).to_string());
        // Who logs in gets a session in any case.
        let proof = self.login.as_ref().filter(|_| self.has_proof()).map(|_| to.proof(now));
        let proof = proof.unwrap_or_default();
        let ends = self.kept_for(Some(now), now).to_string();
        // An id in its grace period lives as long as the session.
        let known_for = match tombstone {
            Tombstone::Grace(_) => self.kept_for(self.created, now),
            Tombstone::Linked | Tombstone::Ended(_) => TOMBSTONE_MILLIS,
        };
        let tombstone =
            tombstone.written(now.saturating_add(known_for), &name_of(&self.settings, to));
        let (now, known_for) = (now.to_string(), known_for.to_string());
        let arguments: [&[u8]; 9] = [
            owners[0],
            owners[1],
            oldest.as_bytes(),
            cleared.as_bytes(),
            &proof,
            ends.as_bytes(),
            now.as_bytes(),
            &tombstone,
            known_for.as_bytes(),
        ];
        let is_alone = round.is_for_one_key();
        let mut transaction = Transaction::begin(round);
        transaction.script(ROTATE, &keys, &arguments, &calls);
        match self.has_proof() {
            true => transaction.command(&[b"HMGET", &to.name, PROOF, REMEMBER]),
            false => transaction.command(&[b"EXISTS", &to.name]),
        }
        self.check_permissions_first(&mut transaction, is_alone);
        transaction.commit()
    }

    /// A key that nobody ever sees: at the end of each transaction it is not there.
    pub(super) fn placeholder_key(&self) -> Vec<u8> {
        [&self.key.name[..], b".new"].concat()
    }

    /// What a script may not do is found out in its midst; what a transaction may not do, before it begins. This one
    /// does nothing, but without PEXPIRE nothing is done.
    pub(super) fn check_permissions_first(
        &self,
        transaction: &mut Transaction<'_, '_>,
        is_alone: bool,
    ) {
        if !is_alone {
            transaction.call(&self.placeholder_key(), &Call::expiry(1));
        }
    }

    /// Ends the session, or finds out where it has moved.
    pub(super) fn destroy(
        &self,
        round: &mut Round<'_>,
        former: Option<&Key>,
        mark: &str,
        now: u64,
    ) {
        if !self.has_proof() {
            return round.command(&[b"UNLINK", &self.key.name]);
        }
        let mut keys = vec![&self.key.name[..]];
        keys.extend(former.map(|former| &former.name[..]));
        let tombstone =
            Tombstone::Ended(mark.to_owned()).written(now.saturating_add(TOMBSTONE_MILLIS), b"");
        let (now, known_for) = (now.to_string(), TOMBSTONE_MILLIS.to_string());
        let arguments = [now.as_bytes(), &tombstone, known_for.as_bytes(), mark.as_bytes()];
        script(round, DESTROY, &keys, &arguments, &[]);
    }

    /// Has an id that is in its grace period known for as long as the session, or ends that period so long from now.
    pub(super) fn change_grace(&self, round: &mut Round<'_>, now: u64, after: Option<u64>) {
        let end = after.map_or(0, |after| now.saturating_add(after));
        let known_for = match after {
            Some(after) => after.saturating_add(record::milliseconds(PAST_GRACE_FOR)),
            None => self.kept_for(self.created, now),
        };
        let until = record::base36(now.saturating_add(known_for));
        let (now, known_for) = (now.to_string(), known_for.to_string());
        let arguments: [&[u8]; 4] =
            [now.as_bytes(), &until, known_for.as_bytes(), &record::base36(end)];
        script(round, GRACE, &[&self.key.name], &arguments, &[]);
    }

    /// Removes what a late save has left, if there is no session.
    pub(super) fn clean_up(&self, round: &mut Round<'_>, now: u64) {
        let (dead, now): (&[u8], _) =
            (if self.has_proof() { b"0" } else { b"-1" }, now.to_string());
        script(round, EMPTY, &[&self.key.name], &[dead, now.as_bytes()], &[]);
    }

    /// How long the record is kept from now on, in milliseconds.
    pub(super) fn kept_for(&self, created: Option<u64>, now: u64) -> u64 {
        let kept = record::milliseconds(self.settings.kept_for(self.idle));
        let Some(absolute) = self.lifetimes.absolute.map(record::milliseconds) else { return kept };
        // Where that is not known, now is the latest that it can be.
        let end = created.unwrap_or(now).saturating_add(absolute);
        kept.min(end.saturating_sub(now))
    }
}
