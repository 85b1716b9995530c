//! What a session does in the store at once.

use super::reserved::is_reserved;
use super::saving::{PlannedSave, SaveTime, unsaved};
use super::state::{Failure, SessionState};
use super::store::memory::integer;
use super::store::{Load, gone, not_a_number};
use super::view::Session;
use crate::redis::copy;
use crate::{ErrorKind, Result};

/// What acts in the store at once.
impl Session {
    /// Saves now what has changed so far, instead of when the handler has returned.
    ///
    /// Kind [`Gone`](ErrorKind::Gone): the session was destroyed, renewed or expired since this request
    /// loaded it, and nothing was written.
    ///
    /// After an error of another kind the changes are lost. Whatever this request then does at once in the
    /// store is the same error, and so is its answer: none of it is acknowledged.
    ///
    /// Once it has committed a [new id](Session::regenerate), the answer carries that id, also where it becomes
    /// an error or the handler panics: the old one is dead.
    pub fn commit(&mut self) -> Result<()> {
        match self.failure.take() {
            Some(Failure::Refused(error)) => {
                self.failure = Some(Failure::Unsaved(copy(&error)));
                return Err(error);
            }
            Some(Failure::Unsaved(why)) => {
                let error = unsaved(&why);
                self.failure = Some(Failure::Unsaved(why));
                return Err(error);
            }
            None => {}
        }
        if let Err(error) = self.seal_stored().and_then(|()| self.save_all()) {
            self.failure = Some(Failure::Unsaved(copy(&error)));
            return Err(error);
        }
        match self.state {
            SessionState::Gone(_) => Err(gone()),
            _ => Ok(()),
        }
    }

    /// Saves what has changed, and then what had to wait for that.
    fn save_all(&mut self) -> Result<()> {
        loop {
            let planned = self.plan_saves(SaveTime::Commit)?;
            let is_all = planned.is_empty() || !self.has_deferred_saves;
            planned.into_iter().try_for_each(|planned| self.save_at_once(planned))?;
            if is_all {
                return Ok(());
            }
        }
    }

    /// Saves it under the id that the session turns out to have.
    fn save_at_once(&mut self, planned: PlannedSave) -> Result<()> {
        let context = self.context.clone();
        let mut next = Some(planned);
        while let Some(planned) = next {
            let saved = context.store.save(&planned.save());
            next = match self.conclude_save(planned, saved)? {
                Some(lost) => {
                    let found = context.load(lost.id());
                    self.resume(lost, found)?
                }
                None => None,
            };
        }
        Ok(())
    }

    /// Adds to a number in the store and returns the sum; a missing key counts as 0. Changes made so far
    /// are saved first.
    pub fn incr(&mut self, key: &str, by: i64) -> Result<i64> {
        self.used.set(true);
        self.check(key, &i64::MIN.to_string())?;
        if !self.is_stored()? {
            // Nobody else knows a session that is not stored yet.
            let held = self.fields.get(key).map_or(Some(0), integer);
            let sum = held.and_then(|held| held.checked_add(by));
            let sum = sum.ok_or_else(|| not_a_number(key))?;
            self.try_set(key, sum)?;
            return self.commit().map(|()| sum);
        }
        let sum = self.add_at_once(key, by)?;
        self.fields.insert(key, &sum.to_string());
        Ok(sum)
    }

    /// Takes a value out of the store: of several requests that take it at the same time exactly one gets
    /// it. Changes made so far are saved first.
    pub fn take(&mut self, key: &str) -> Result<Option<String>> {
        self.used.set(true);
        if is_reserved(key) {
            return Ok(None);
        }
        if !self.is_stored()? {
            return Ok(self.remove(key));
        }
        let mut taken = self.take_at_once(&[key])?;
        self.fields.remove(key);
        self.detach_if_emptied();
        Ok(taken.pop().flatten())
    }

    /// Sets a value unless the store has one, and says whether it did: of several requests that try at
    /// the same time exactly one does. Changes made so far are saved first. Where another request was
    /// first, this one's view does not have its value.
    pub fn set_if_absent(&mut self, key: &str, value: impl ToString) -> Result<bool> {
        self.used.set(true);
        let value = value.to_string();
        self.check(key, &value)?;
        if !self.is_stored()? {
            let absent = !self.fields.contains_key(key);
            if absent {
                self.try_set(key, value)?;
            }
            return self.commit().map(|()| absent);
        }
        let set = self.set_if_absent_at_once(key, &value)?;
        if set {
            self.fields.insert(key, &value);
        }
        Ok(set)
    }

    /// Whether the store has the session, once it has the changes made so far: these may have emptied it.
    fn is_stored(&mut self) -> Result<bool> {
        if self.id().is_some() {
            self.commit()?;
        }
        Ok(self.id().is_some())
    }

    pub(super) fn at_once<T>(&mut self, act: impl Fn(&Load<'_>) -> Result<T>) -> Result<T> {
        self.commit()?;
        let id = self.id().ok_or_else(gone)?;
        let lifetimes = self.lifetimes();
        let mut done = act(&Load { id, lifetimes });
        // Or another request has rotated it.
        while let Err(error) = &done
            && error.kind() == ErrorKind::Gone
            && self.may_have_successor()
            && let Some(found) = self.id().map(|id| self.context.load(id))
        {
            done = match found.map(|found| self.move_to_successor(&found)) {
                Ok(Some(id)) => act(&Load { id: &id, lifetimes }),
                Ok(None) => break,
                Err(error) => Err(error),
            };
        }
        if let Err(error) = &done {
            match error.kind() {
                ErrorKind::Gone => self.lost(),
                // The caller's own mistake: a value that is no number.
                ErrorKind::Session => {}
                _ => self.unreported = Some(copy(error)),
            }
            self.context.emit_error(error);
        }
        done
    }
}
