//! What the scripts answer.

use std::time::{Duration, SystemTime};

use redis::Value;

use super::scripts::Answer;
use super::{Layout, RESERVED};
use crate::session::store::Record;
use crate::{Error, ErrorKind, Result};

/// A reply that was held against the session it is for.
pub(super) struct Reply {
    pub(super) status: Status,
    rest: std::vec::IntoIter<Value>,
}

/// The second item of each reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Ok,
    Stored,
    Gone,
    /// No metadata, or of a version that is not ours.
    Damaged,
    /// The record is marked as another session's.
    Foreign,
    Oversized,
    Taken,
    NotANumber,
}

impl Status {
    fn read(value: &Value) -> Option<Status> {
        let Value::BulkString(text) = value else { return None };
        Some(match text.as_slice() {
            b"ok" => Status::Ok,
            b"stored" => Status::Stored,
            b"gone" => Status::Gone,
            b"damaged" => Status::Damaged,
            b"foreign" => Status::Foreign,
            b"oversized" => Status::Oversized,
            b"taken" => Status::Taken,
            b"not a number" => Status::NotANumber,
            _ => return None,
        })
    }
}

/// Whether this is the whole reply to such a request for the session with this mark.
pub(super) fn echoes(reply: &Value, mark: &str, answer: Answer) -> bool {
    let Value::Array(items) = reply else { return false };
    let [Value::BulkString(echo), status, rest @ ..] = items.as_slice() else { return false };
    let is_whole = match (Status::read(status), answer, rest) {
        (Some(Status::Ok), Answer::Record, [_, _, _, Value::Array(_)])
        | (Some(Status::Ok), Answer::Number, [Value::Int(_) | Value::BulkString(_)])
        | (Some(Status::Ok), Answer::Values, [Value::Array(_)])
        | (Some(Status::Stored | Status::Taken), Answer::Saved, []) => true,
        (Some(Status::Ok | Status::Stored | Status::Taken) | None, ..) => false,
        (Some(_), _, rest) => rest.is_empty(),
    };
    echo == mark.as_bytes() && is_whole
}

/// Whether the record behind it is that session's own, too.
pub(super) fn belongs(reply: &Value, mark: &str, answer: Answer) -> bool {
    let foreign = matches!(reply, Value::Array(items)
        if items.get(1).and_then(Status::read) == Some(Status::Foreign));
    echoes(reply, mark, answer) && !foreign
}

/// The error of a reply that is not the one to our request.
pub(super) fn desync() -> Error {
    Error::new(
        ErrorKind::Desync,
        "redis gave a reply that belongs to another session; the connection was closed",
    )
}

impl Reply {
    pub(super) fn read(reply: Value) -> Result<Reply> {
        let Value::Array(items) = reply else { return Err(desync()) };
        let status = items.get(1).and_then(Status::read).ok_or_else(desync)?;
        let mut rest = items.into_iter();
        rest.nth(1);
        Ok(Reply { status, rest })
    }

    /// The error of a status that the operation cannot have.
    pub(super) fn unexpected(&self) -> Error {
        match self.status {
            Status::Foreign => Error::new(
                ErrorKind::Desync,
                "the session's record in redis is marked as another session's; the connection was \
                 closed",
            ),
            _ => desync(),
        }
    }

    /// A loaded record, or `None` where it is not text.
    pub(super) fn record(&mut self, layout: Layout) -> Result<Option<Record>> {
        let mut time = || match self.rest.next() {
            Some(Value::Nil) => Ok(None),
            Some(Value::Int(time)) => Ok(u64::try_from(time).ok().map(Duration::from_millis)),
            _ => Err(desync()),
        };
        let (created, saved_ago, remember) = (time()?, time()?, time()?);
        let Some(Value::Array(flat)) = self.rest.next() else { return Err(desync()) };
        let mut fields = Vec::with_capacity(flat.len() / 2);
        let mut flat = flat.into_iter();
        while let (Some(key), Some(value)) = (flat.next(), flat.next()) {
            let (Some(key), Some(value)) = (text(key)?, text(value)?) else { return Ok(None) };
            if layout != Layout::Default || !key.starts_with(RESERVED) {
                fields.push((key, value));
            }
        }
        let created = created.and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since));
        Ok(Some(Record { fields, created, saved_ago, remember }))
    }

    /// A number, as a number or as text.
    pub(super) fn integer(&mut self) -> Result<i64> {
        match self.rest.next() {
            Some(Value::Int(number)) => Ok(number),
            Some(Value::BulkString(text)) => std::str::from_utf8(&text)
                .ok()
                .and_then(|text| text.parse().ok())
                .ok_or_else(desync),
            _ => Err(desync()),
        }
    }

    /// The values that were taken; one that is no text counts as none.
    pub(super) fn texts(&mut self) -> Result<Vec<Option<String>>> {
        let Some(Value::Array(values)) = self.rest.next() else { return Err(desync()) };
        let read = |value| match value {
            Value::Nil => Ok(None),
            value => text(value),
        };
        values.into_iter().map(read).collect()
    }
}

fn text(value: Value) -> Result<Option<String>> {
    match value {
        Value::BulkString(bytes) => Ok(String::from_utf8(bytes).ok()),
        _ => Err(desync()),
    }
}
