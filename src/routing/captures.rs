//! The values of a rule's wildcards.

use smallvec::SmallVec;

/// The values of the named wildcards of a rule that matched, decoded, in the rule's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captures {
    /// All values, one behind the other.
    text: String,
    ends: SmallVec<[usize; 4]>,
}

impl Captures {
    /// Room for this many values that have this many bytes together.
    pub(super) fn with_capacity(values: usize, bytes: usize) -> Captures {
        let bytes = if values == 0 { 0 } else { bytes };
        Captures { text: String::with_capacity(bytes), ends: SmallVec::with_capacity(values) }
    }

    /// The value of the wildcard at this place.
    pub fn get(&self, index: usize) -> Option<&str> {
        let end = *self.ends.get(index)?;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        Some(&self.text[start..end])
    }

    pub(super) fn push(&mut self, value: &str) {
        self.text.push_str(value);
        self.ends.push(self.text.len());
    }
}
