//! A quick hash for texts of rules.
//!
//! The keys of these maps are the app's rules. What clients send is only looked up and never inserted, so
//! that nobody can fill them with collisions, and the keyed hash of the standard library would only cost
//! time.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map whose keys are texts of rules.
pub(super) type RuleMap<V> = HashMap<String, V, BuildHasherDefault<QuickHasher>>;

/// Multiplies eight bytes at a time.
#[derive(Default)]
pub(super) struct QuickHasher(u64);

impl QuickHasher {
    fn mix(&mut self, word: u64) {
        // An odd number whose bits are evenly spread: 2^64 divided by the golden ratio.
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Hasher for QuickHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            self.mix(rest.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)));
        }
    }

    fn write_u8(&mut self, byte: u8) {
        self.mix(u64::from(byte));
    }

    fn finish(&self) -> u64 {
        // The best bits of a product are its high ones, and the map takes the low ones first.
        self.0.rotate_left(26)
    }
}
