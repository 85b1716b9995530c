//! RESP2, the protocol of Redis: commands to bytes, bytes to replies, without a socket.
//!
//! Whole replies are found in what has arrived by [`end_of`], and read where they lie by [`Replies`]: no byte of a
//! session is copied before it is known to be one.

mod encode;

pub(crate) use self::encode::Words;
#[cfg(feature = "r2d2_redis")]
pub(super) use self::encode::encoded;
use crate::pipeline::operation::Answer;

/// Replies inside replies, at most: nothing that is asked for here goes deeper than three.
const DEPTH: usize = 8;

/// More than any single string or array of Redis has (`proto-max-bulk-len` is 512 MiB).
const MAX_LENGTH: u64 = 1 << 32;

/// A reply of Redis, where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// A status such as `OK` or `QUEUED`.
    Status(&'a [u8]),
    /// The server's refusal: a code such as `READONLY`, and words.
    Error(&'a [u8]),
    /// A number.
    Integer(i64),
    /// Bytes.
    Bulk(&'a [u8]),
    /// Nothing: no such key or field.
    Nil,
    /// Several replies.
    Array(Replies<'a>),
}

impl<'a> Reply<'a> {
    /// The bytes, where it is some.
    pub fn bulk(self) -> Option<&'a [u8]> {
        match self {
            Reply::Bulk(bytes) => Some(bytes),
            _ => None,
        }
    }
}

/// Replies that follow each other.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Replies<'a> {
    bytes: &'a [u8],
    left: usize,
}

impl std::fmt::Debug for Replies<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} replies", self.left)
    }
}

impl<'a> Replies<'a> {
    /// So many replies, which are whole.
    pub(crate) fn of(bytes: &'a [u8], count: usize) -> Replies<'a> {
        Replies { bytes, left: count }
    }

    /// How many are left.
    pub fn len(&self) -> usize {
        self.left
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// The bytes of those that are left, as they came.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

impl<'a> Iterator for Replies<'a> {
    type Item = Reply<'a>;

    fn next(&mut self) -> Option<Reply<'a>> {
        if self.left == 0 {
            return None;
        }
        let (reply, rest) = read(self.bytes, self.left == 1)?;
        self.bytes = rest;
        self.left -= 1;
        Some(reply)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<'a> Answer<'a> {
    /// The replies, one for each command.
    pub fn replies(&self) -> Replies<'a> {
        Replies { bytes: self.bytes, left: self.replies }
    }
}

/// What is no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProtocolError;

/// How many bytes the first reply in these has; `None` where it is not whole yet.
pub(crate) fn end_of(bytes: &[u8]) -> Result<Option<usize>, ProtocolError> {
    end_from(bytes, 0, DEPTH)
}

fn end_from(bytes: &[u8], at: usize, depth: usize) -> Result<Option<usize>, ProtocolError> {
    let Some(&kind) = bytes.get(at) else { return Ok(None) };
    if !matches!(kind, b'+' | b'-' | b':' | b'$' | b'*') {
        return Err(ProtocolError);
    }
    let Some((line, after)) = line(bytes, at + 1)? else { return Ok(None) };
    match kind {
        b'+' | b'-' => Ok(Some(after)),
        b':' => integer(line).map(|_| Some(after)),
        b'$' => {
            let Some(length) = length(line)? else { return Ok(Some(after)) };
            let end = after + length;
            match bytes.get(end..end + 2) {
                Some(b"\r\n") => Ok(Some(end + 2)),
                Some(_) => Err(ProtocolError),
                None => Ok(None),
            }
        }
        _ => {
            let mut end = after;
            let count = length(line)?.unwrap_or(0);
            if depth == 0 {
                return Err(ProtocolError);
            }
            for _ in 0..count {
                match end_from(bytes, end, depth - 1)? {
                    Some(next) => end = next,
                    None => return Ok(None),
                }
            }
            Ok(Some(end))
        }
    }
}

/// Reads the first of these replies, which are whole. Where it is the last one, all of them are its own.
fn read(bytes: &[u8], is_last: bool) -> Option<(Reply<'_>, &[u8])> {
    let (line, after) = line(bytes, 1).ok()??;
    let rest = &bytes[after..];
    Some(match bytes[0] {
        b'+' => (Reply::Status(line), rest),
        b'-' => (Reply::Error(line), rest),
        b':' => (Reply::Integer(integer(line).ok()?), rest),
        b'$' => match length(line).ok()? {
            Some(length) => (Reply::Bulk(rest.get(..length)?), rest.get(length + 2..)?),
            None => (Reply::Nil, rest),
        },
        b'*' => match length(line).ok()? {
            Some(left) => {
                let whole = if is_last { bytes.len() } else { end_of(bytes).ok()?? };
                (Reply::Array(Replies { bytes: &bytes[after..whole], left }), &bytes[whole..])
            }
            None => (Reply::Nil, rest),
        },
        _ => return None,
    })
}

/// The line that begins here, and where the next one does.
fn line(bytes: &[u8], at: usize) -> Result<Option<(&[u8], usize)>, ProtocolError> {
    let Some(rest) = bytes.get(at..) else { return Ok(None) };
    let Some(length) = memchr::memchr(b'\r', rest) else { return Ok(None) };
    match rest.get(length + 1) {
        Some(b'\n') => Ok(Some((&rest[..length], at + length + 2))),
        Some(_) => Err(ProtocolError),
        None => Ok(None),
    }
}

fn integer(line: &[u8]) -> Result<i64, ProtocolError> {
    std::str::from_utf8(line).ok().and_then(|text| text.parse().ok()).ok_or(ProtocolError)
}

/// A length; `None` for that of nothing, which is -1.
fn length(line: &[u8]) -> Result<Option<usize>, ProtocolError> {
    if line == b"-1" {
        return Ok(None);
    }
    let mut value = 0u64;
    if line.is_empty() || line.len() > 10 {
        return Err(ProtocolError);
    }
    for byte in line {
        match byte {
            b'0'..=b'9' => value = value * 10 + u64::from(byte - b'0'),
            _ => return Err(ProtocolError),
        }
    }
    match value < MAX_LENGTH {
        true => Ok(Some(value as usize)),
        false => Err(ProtocolError),
    }
}

/// Finds so many replies at the start of these bytes, reads them, and counts the strings in them: what a load does, for
/// the benchmark of this module.
#[doc(hidden)]
pub fn count_strings(bytes: &[u8], replies: usize) -> Option<usize> {
    let mut end = 0;
    for _ in 0..replies {
        end += end_of(&bytes[end..]).ok()??;
    }
    Some(strings_in(Replies::of(&bytes[..end], replies)))
}

fn strings_in(replies: Replies<'_>) -> usize {
    let count = |reply| match reply {
        Reply::Bulk(_) => 1,
        Reply::Array(replies) => strings_in(replies),
        _ => 0,
    };
    replies.map(count).sum()
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};
    use redis::Value;

    use super::encode::{push_bulk, push_header};
    use super::*;
    use crate::pipeline::operation::Round;

    /// All replies in these bytes, as the `redis` crate would have them; `None` where they are no whole replies.
    fn replies(mut bytes: &[u8]) -> Option<Vec<Value>> {
        let mut values = Vec::new();
        while !bytes.is_empty() {
            let end = end_of(bytes).ok()??;
            values.push(value(read(&bytes[..end], true)?.0));
            bytes = &bytes[end..];
        }
        Some(values)
    }

    fn value(reply: Reply<'_>) -> Value {
        let text = |line: &[u8]| String::from_utf8_lossy(line).into_owned();
        match reply {
            Reply::Status(b"OK") => Value::Okay,
            Reply::Status(line) => Value::SimpleString(text(line)),
            Reply::Error(line) => match redis::parse_redis_value(&[b"-", line, b"\r\n"].concat()) {
                Ok(error) => error,
                // It wants text.
                Err(_) => Value::Nil,
            },
            Reply::Integer(number) => Value::Int(number),
            Reply::Bulk(bytes) => Value::BulkString(bytes.to_vec()),
            Reply::Nil => Value::Nil,
            Reply::Array(replies) => {
                let count = replies.len();
                let values: Vec<_> = replies.map(value).collect();
                assert_eq!(values.len(), count, "as many as announced");
                Value::Array(values)
            }
        }
    }

    #[test]
    fn replies_are_read_where_they_lie() {
        use Value::{Array, BulkString, Int, Nil, Okay};
        let bulk = |text: &str| BulkString(text.into());
        for (bytes, expected) in [
            ("+OK\r\n", Some(vec![Okay])),
            ("+QUEUED\r\n", Some(vec![Value::SimpleString("QUEUED".to_owned())])),
            (":-12\r\n:9223372036854775807\r\n", Some(vec![Int(-12), Int(i64::MAX)])),
            ("$0\r\n\r\n$-1\r\n*-1\r\n", Some(vec![bulk(""), Nil, Nil])),
            ("$4\r\n\r\n\r\n\r\n", Some(vec![bulk("\r\n\r\n")])),
            ("*0\r\n", Some(vec![Array(vec![])])),
            (
                "*2\r\n*2\r\n$1\r\na\r\n:1\r\n$-1\r\n+OK\r\n",
                Some(vec![Array(vec![Array(vec![bulk("a"), Int(1)]), Nil]), Okay]),
            ),
            // Not whole.
            ("+OK\r", None),
            ("$4\r\nabc\r\n", None),
            ("*2\r\n:1\r\n", None),
            // Nothing of Redis's.
            ("HTTP/1.1 400 Bad Request\r\n", None),
            ("+OK\rx", None),
            ("$3\r\nabcd\r\n", None),
            ("$-2\r\n", None),
            ("$1_0\r\n", None),
            ("$99999999999\r\n", None),
            (":\r\n", None),
            (":1a\r\n", None),
            ("*9\r\n*9\r\n*9\r\n*9\r\n*9\r\n*9\r\n*9\r\n*9\r\n*9\r\n*9\r\n", None),
        ] {
            assert_eq!(replies(bytes.as_bytes()), expected, "{bytes:?}");
        }
    }

    #[test]
    fn commands_are_written_word_for_word() {
        let mut out = Vec::new();
        let mut round = Round::new(&mut out, std::time::SystemTime::UNIX_EPOCH, true);
        round.command(&[b"HGETALL", b"key"]);
        round.command_of(3, |command| {
            command.word(b"X");
            command.word(b"bottle.session:");
            command.number(-1200);
        });
        round.for_key(b"key");
        assert_eq!((round.replies, round.key.as_deref()), (2, Some(&b"key"[..])));
        let expected = "*2\r\n$7\r\nHGETALL\r\n$3\r\nkey\r\n\
                        *3\r\n$1\r\nX\r\n$15\r\nbottle.session:\r\n$5\r\n-1200\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    fn random(rng: &mut ChaCha20Rng, out: &mut Vec<u8>, depth: usize) {
        let mut below = |limit: u64| rng.next_u64() % limit;
        match below(if depth == 0 { 5 } else { 7 }) {
            0 => out.extend_from_slice(b"+OK\r\n"),
            1 => out.extend_from_slice(b"-ERR no such thing\r\n"),
            2 => out.extend_from_slice(format!(":{}\r\n", rng.next_u64() as i64).as_bytes()),
            3 => out.extend_from_slice(b"$-1\r\n"),
            4 => {
                let length = below(20) as usize;
                let bytes: Vec<u8> = (0..length).map(|_| rng.next_u64() as u8).collect();
                push_bulk(out, &bytes);
            }
            _ => {
                let count = below(4) as usize;
                push_header(out, b'*', count);
                (0..count).for_each(|_| random(rng, out, depth - 1));
            }
        }
    }

    /// What the `redis` crate makes of these bytes, all of which it must use.
    fn theirs(bytes: &[u8]) -> Option<Vec<Value>> {
        let (mut input, mut parser, mut values) = (bytes, redis::Parser::new(), Vec::new());
        loop {
            match parser.parse_value(&mut input) {
                Ok(value) => values.push(value),
                Err(error) if error.is_io_error() && values_end(&error) => return Some(values),
                Err(_) => return None,
            }
        }
    }

    fn values_end(error: &redis::RedisError) -> bool {
        error.to_string().contains("unexpected end of file")
            || error.to_string().contains("UnexpectedEof")
            || error.to_string().contains("end of file")
    }

    #[test]
    fn random_replies_are_read_as_the_redis_crate_reads_them_and_damaged_ones_harm_nobody() {
        let mut rng = ChaCha20Rng::seed_from_u64(18);
        let (mut same, mut refused) = (0, 0);
        for _ in 0..20_000 {
            let mut bytes = Vec::new();
            let count = 1 + rng.next_u64() % 3;
            (0..count).for_each(|_| random(&mut rng, &mut bytes, 3));
            let whole = replies(&bytes);
            assert_eq!(whole.as_ref().map(Vec::len), Some(count as usize), "{bytes:?}");
            assert_eq!(whole, theirs(&bytes), "{:?}", String::from_utf8_lossy(&bytes));
            // Never a reply out of a part of one.
            let cut = rng.next_u64() as usize % bytes.len();
            let part = replies(&bytes[..cut]);
            assert!(part.is_none_or(|part| part.len() < count as usize || cut == 0));
            // Whatever is damaged is refused, or is another reply, which the redis crate reads alike.
            let at = rng.next_u64() as usize % bytes.len();
            bytes[at] = rng.next_u64() as u8;
            match replies(&bytes) {
                // It is lenient where a number or a line is no such thing; we need not be.
                None => refused += 1,
                ours => {
                    same += 1;
                    if let Some(theirs) = theirs(&bytes) {
                        assert_eq!(ours, Some(theirs), "{:?}", String::from_utf8_lossy(&bytes));
                    }
                }
            }
        }
        assert!(same > 1_000 && refused > 1_000, "{same} {refused}");
    }
}
