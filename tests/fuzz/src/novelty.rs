//! What is new about an input: which ways through the parser it shows for the first time.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::corpus::{Conversation, End};
use crate::http1::Framing;

/// All that was seen so far.
#[derive(Default)]
pub(crate) struct Novelty(HashSet<u64>);

impl Novelty {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the input shows anything that none before it did. Remembers what it shows.
    pub(crate) fn is_new(&mut self, input: &[u8], found: &Conversation) -> bool {
        let mut features = Vec::new();
        for seen in &found.seen {
            features.push(hash(&(0, seen.framing_kind(), seen.keep_alive, seen.expect_continue)));
            features.push(hash(&(1, bucket(seen.headers.len()), seen.method.is_safe())));
            features.push(hash(&(2, bucket(seen.body.len()), seen.framing_kind())));
            features.push(hash(&(3, seen.begin > 0, seen.end - seen.begin == 0)));
            for name in seen.headers.keys() {
                features.push(hash(&(
                    4,
                    name.as_str().len() < 20,
                    seen.headers.get_all(name).iter().count().min(3),
                )));
            }
        }
        features.push(hash(&(5, found.seen.len().min(4), format!("{:?}", found.end()))));
        // The way there: where in the message it stands, and the bytes around, at each step.
        let mut growing = Conversation::default();
        let (mut place, mut before) = ("head".to_owned(), [b'\n'; 2]);
        let mut line = 0;
        for &byte in input {
            growing.push(&[byte]);
            let (class, last) = (class(byte), before.map(class));
            if let End::Refused(status) = growing.end() {
                // Which rule it was shows in what stands at the byte that broke it.
                features.push(hash(&(6, status, &place, last, class, line.min(2))));
                break;
            }
            let next = match &growing.gathering {
                // The state's name, and those of its parts, without their numbers.
                Some((_, decoder, _)) => {
                    format!("{decoder:?}").replace(|c: char| c.is_ascii_digit(), "")
                }
                None => "head".to_owned(),
            };
            if next != "head" || place != "head" {
                features.push(hash(&(7, &place, &next, class)));
            } else {
                features.push(hash(&(8, last, class, line.min(2))));
            }
            line = if next != place { 0 } else { line + usize::from(byte == b'\n') };
            (place, before) = (next, [before[1], byte]);
        }
        let known = self.0.len();
        self.0.extend(features);
        self.0.len() > known
    }
}

impl crate::corpus::Seen {
    fn framing_kind(&self) -> u8 {
        match self.framing {
            Framing::Empty => 0,
            Framing::Length(_) => 1,
            Framing::Chunked => 2,
        }
    }
}

fn hash(feature: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    feature.hash(&mut hasher);
    hasher.finish()
}

/// Powers of two.
fn bucket(count: usize) -> u32 {
    usize::BITS - count.leading_zeros()
}

/// Bytes that no rule tells apart are one.
fn class(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => b'0',
        b'a'..=b'f' | b'A'..=b'F' => b'a',
        b'g'..=b'z' | b'G'..=b'Z' => b'g',
        b'\r' | b'\n' | b'\t' | 0 => byte,
        0x01..=0x1f | 0x7f => 1,
        0x80.. => 0x80,
        _ => byte,
    }
}
