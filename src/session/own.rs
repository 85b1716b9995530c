//! Fields of a session that are the plugin's own, and how it keeps secrets in them.

use super::store::{Changes, Fields};

/// What the keys of such fields begin with. No key of a user does.
pub(super) const PREFIX: char = '\u{1}';

/// How many there are at most; they count towards the caps of stores.
pub(super) const MOST: usize = 4;

/// How many bytes they have at most, keys and values together.
pub(super) const LONGEST: usize = 1024;

/// Since when the session has its id: milliseconds since 1970, by the clock of the machine that gave it.
pub(super) const SINCE: &str = "\u{1}i";

/// The id that the session had before, in its grace period: encrypted under the present one.
pub(super) const FORMER: &str = "\u{1}f";

/// The secret of the session's CSRF tokens, where it is not that of its id: encrypted under the id.
pub(super) const TOKENS: &str = "\u{1}t";

/// The plugin's own fields of one session.
#[derive(Clone, Debug, Default)]
pub(super) struct OwnFields(Fields);

impl OwnFields {
    /// Takes them out of the fields of a record, so that nobody else sees them.
    pub(super) fn out_of(fields: &mut Fields) -> OwnFields {
        let is_own = |(key, _): &(&str, &str)| is_own(key);
        // Keys are sorted; only the empty one comes before.
        if !fields.iter().take(2).any(|field| is_own(&field)) {
            return OwnFields::default();
        }
        let own: Fields = fields.iter().filter(is_own).collect();
        own.iter().for_each(|(key, _)| drop(fields.remove(key)));
        OwnFields(own)
    }

    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)
    }

    /// Takes one out, for whoever keeps it from then on.
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
pub(crate) fn is_own(key: &str) -> bool {
    key.starts_with(PREFIX)
}
