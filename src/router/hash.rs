//! A quick hash (FNV-1a) for texts of rules.
//!
//! The keys of these maps are the app's rules. What clients send is only looked up and never inserted, so
//! that nobody can fill them with collisions, and the keyed hash of the standard library would only cost
//! time.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map whose keys are texts of rules.
pub(super) type RuleMap<V> = HashMap<String, V, BuildHasherDefault<Fnv>>;

pub(super) struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Fnv {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
