//! Commands to bytes.

use std::io::Write;

use smallvec::SmallVec;

use super::{Replies, Reply};
use crate::pipeline::operation::Round;

impl Round<'_> {
    /// Writes one command, to which one reply is expected.
    pub fn command(&mut self, words: &[&[u8]]) {
        self.command_of(words.len(), |command| {
            words.iter().for_each(|word| command.word(word));
        });
    }

    /// Writes one command of so many words.
    pub(crate) fn command_of(&mut self, words: usize, write: impl FnOnce(&mut Command<'_>)) {
        push_header(self.out, b'*', words);
        let mut command = Command { out: self.out, left: words };
        write(&mut command);
        debug_assert_eq!(command.left, 0, "as many words as were announced");
        self.replies += 1;
    }

    /// Says which key the request is for: a cluster finds the node by it.
    pub fn for_key(&mut self, key: &[u8]) {
        if self.one_key {
            self.key = Some(key.to_vec());
        }
    }
}

/// One command, word for word.
pub(crate) struct Command<'a> {
    out: &'a mut Vec<u8>,
    left: usize,
}

impl Command<'_> {
    pub(crate) fn word(&mut self, word: &[u8]) {
        push_bulk(self.out, word);
        self.left = self.left.saturating_sub(1);
    }

    pub(crate) fn number(&mut self, number: i64) {
        push_number(self.out, number);
        self.left = self.left.saturating_sub(1);
    }

    pub(crate) fn words(&mut self, words: &Words) {
        self.out.extend_from_slice(&words.bytes);
        self.left = self.left.saturating_sub(words.count);
    }
}

/// Words for a command, encoded before it is known where they go.
#[derive(Clone, Debug, Default)]
pub(crate) struct Words {
    bytes: SmallVec<[u8; 64]>,
    count: usize,
}

impl Words {
    pub(crate) fn push(&mut self, word: &[u8]) {
        push_bulk(&mut self.bytes, word);
        self.count += 1;
    }

    pub(crate) fn push_number(&mut self, number: i64) {
        push_number(&mut self.bytes, number);
        self.count += 1;
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// The words.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        Replies::of(&self.bytes, self.count).filter_map(Reply::bulk)
    }
}

fn push_number(out: &mut impl Write, number: i64) {
    let mut text = [0; 20];
    push_bulk(out, decimal(number.unsigned_abs(), number < 0, &mut text));
}

/// Writes to memory, which does not fail.
pub(super) fn push_bulk(out: &mut impl Write, word: &[u8]) {
    push_header(out, b'$', word.len());
    let _ = out.write_all(word);
    let _ = out.write_all(b"\r\n");
}

pub(super) fn push_header(out: &mut impl Write, kind: u8, length: usize) {
    let mut text = [0; 20];
    let _ = out.write_all(&[kind]);
    let _ = out.write_all(decimal(length as u64, false, &mut text));
    let _ = out.write_all(b"\r\n");
}

fn decimal(mut value: u64, negative: bool, text: &mut [u8; 20]) -> &[u8] {
    let mut at = text.len();
    loop {
        at -= 1;
        text[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    if negative {
        at -= 1;
        text[at] = b'-';
    }
    &text[at..]
}

/// Replies that another client has parsed, as they came over the transport.
#[cfg(feature = "r2d2_redis")]
pub(in crate::redis) fn encoded(replies: &[crate::redis::connection::Reply]) -> Vec<u8> {
    fn push(out: &mut Vec<u8>, value: &redis::Value) {
        use redis::Value;
        match value {
            Value::Nil => out.extend_from_slice(b"$-1\r\n"),
            Value::Int(number) => out.extend_from_slice(format!(":{number}\r\n").as_bytes()),
            Value::BulkString(bytes) => push_bulk(out, bytes),
            Value::SimpleString(text) => out.extend_from_slice(format!("+{text}\r\n").as_bytes()),
            Value::Okay => out.extend_from_slice(b"+OK\r\n"),
            Value::Array(items) => {
                push_header(out, b'*', items.len());
                items.iter().for_each(|item| push(out, item));
            }
            // Nothing else comes from a server of protocol 2.
            _ => out.extend_from_slice(b"-ERR a reply of another protocol\r\n"),
        }
    }
    let mut out = Vec::new();
    for reply in replies {
        match reply {
            Ok(value) => push(&mut out, value),
            Err(error) => {
                let line = format!("-{} {}", error.code(), error.details().unwrap_or_default());
                out.extend_from_slice(line.trim_end().as_bytes());
                out.extend_from_slice(b"\r\n");
            }
        }
    }
    out
}
