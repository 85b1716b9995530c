//! Reserved fields: those that the plugin keeps in a session for its own use.

use super::store::{Changes, Fields};

/// The prefix of their keys. Keys of users cannot begin with it.
pub(super) const PREFIX: char = '\u{1}';

/// How many there are at most; they count towards the caps of stores.
pub(super) const MAX_FIELDS: usize = 4;

/// How many bytes they have at most, keys and values together.
pub(super) const MAX_BYTES: usize = 1024;

/// Since when the session has its id: milliseconds since 1970, by the clock of the machine that gave it.
pub(super) const SINCE: &str = "\u{1}i";

/// The id that the session had before, in its grace period: encrypted under the present one.
pub(super) const FORMER: &str = "\u{1}f";

/// The secret of the session's CSRF tokens, where it is not that of its id: encrypted under the id.
pub(super) const TOKENS: &str = "\u{1}t";

/// The plugin's own fields of one session.
#[derive(Clone, Debug, Default)]
pub(super) struct ReservedFields(Fields);

impl ReservedFields {
    /// Takes the reserved fields out of the fields of a record, so that users do not see them.
    pub(super) fn out_of(fields: &mut Fields) -> ReservedFields {
        let is_reserved = |(key, _): &(&str, &str)| is_reserved(key);
        // Keys are sorted; only the empty one comes before.
        if !fields.iter().take(2).any(|field| is_reserved(&field)) {
            return ReservedFields::default();
        }
        let own: Fields = fields.iter().filter(is_reserved).collect();
        own.iter().for_each(|(key, _)| drop(fields.remove(key)));
        ReservedFields(own)
    }

    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)
    }

    /// Takes one out and returns its value.
    pub(super) fn take(&mut self, key: &str) -> Option<String> {
        self.0.remove(key)
    }

    pub(super) fn set(&mut self, key: &str, value: &str, changes: &mut Changes) {
        self.0.insert(key, value);
        changes.fields.insert(key.to_owned(), Some(value.to_owned()));
    }

    pub(super) fn remove(&mut self, key: &str, changes: &mut Changes) {
        if self.0.remove(key).is_some() {
            changes.fields.insert(key.to_owned(), None);
        }
    }
}

/// Whether a key is one of the plugin's own.
pub(crate) fn is_reserved(key: &str) -> bool {
    key.starts_with(PREFIX)
}
