//! Several commands as one atomic step, or none of them: MULTI and EXEC, or a script where it must look first.

use super::record::RecordError;
use crate::pipeline::operation::Round;
use crate::redis::{RedisReply as Reply, Replies, Words};

/// A command on one key: all of its words but the key.
pub(super) struct Call<'a> {
    pub(super) name: &'static str,
    pub(super) own: Words,
    /// More words, which were encoded before.
    pub(super) more: Option<&'a Words>,
}

impl<'a> Call<'a> {
    pub(super) fn new(name: &'static str) -> Call<'a> {
        Call { name, own: Words::default(), more: None }
    }

    pub(super) fn with(mut self, word: &[u8]) -> Call<'a> {
        self.own.push(word);
        self
    }

    pub(super) fn with_number(mut self, number: i64) -> Call<'a> {
        self.own.push_number(number);
        self
    }

    pub(super) fn and(mut self, more: &'a Words) -> Call<'a> {
        self.more = Some(more);
        self
    }

    /// Sets when the key ends, from now on in milliseconds.
    pub(super) fn expiry(ends: u64) -> Call<'a> {
        Call::new("PEXPIRE").with_number(ends.try_into().unwrap_or(i64::MAX))
    }

    /// What goes behind the key.
    pub(super) fn words(&self) -> impl Iterator<Item = &[u8]> {
        self.own.iter().chain(self.more.into_iter().flat_map(Words::iter))
    }

    pub(super) fn arguments(&self) -> usize {
        self.own.len() + self.more.map_or(0, Words::len)
    }
}

/// A transaction as it is written.
pub(super) struct Transaction<'a, 'b> {
    round: &'a mut Round<'b>,
    queued: usize,
}

impl<'a, 'b> Transaction<'a, 'b> {
    pub(super) fn begin(round: &'a mut Round<'b>) -> Transaction<'a, 'b> {
        round.command(&[b"MULTI"]);
        Transaction { round, queued: 0 }
    }

    pub(super) fn command(&mut self, words: &[&[u8]]) {
        self.round.command(words);
        self.queued += 1;
    }

    pub(super) fn call(&mut self, key: &[u8], call: &Call<'_>) {
        self.round.command_of(2 + call.arguments(), |command| {
            command.word(call.name.as_bytes());
            command.word(key);
            command.words(&call.own);
            if let Some(more) = call.more {
                command.words(more);
            }
        });
        self.queued += 1;
    }

    /// Calls a script that runs these commands.
    pub(super) fn script(
        &mut self,
        text: &str,
        keys: &[&[u8]],
        arguments: &[&[u8]],
        calls: &[Call<'_>],
    ) {
        script(self.round, text, keys, arguments, calls);
        self.queued += 1;
    }

    /// Ends it. The answer is how many commands were queued.
    pub(super) fn commit(self) -> usize {
        self.round.command(&[b"EXEC"]);
        self.queued
    }
}

/// Calls a script that runs these commands, as lua/run.lua reads them.
pub(super) fn script(
    round: &mut Round<'_>,
    text: &str,
    keys: &[&[u8]],
    arguments: &[&[u8]],
    calls: &[Call<'_>],
) {
    let words: usize = calls.iter().map(|call| 2 + call.arguments()).sum();
    round.command_of(3 + keys.len() + arguments.len() + words, |command| {
        command.word(b"EVAL");
        command.word(text.as_bytes());
        command.number(keys.len() as i64);
        keys.iter().chain(arguments).for_each(|word| command.word(word));
        for call in calls {
            command.number(1 + call.arguments() as i64);
            command.word(call.name.as_bytes());
            command.words(&call.own);
            if let Some(more) = call.more {
                command.words(more);
            }
        }
    });
}

/// What became of a transaction.
pub(super) enum Outcome<'a> {
    /// It was carried out: what its commands answered.
    Done(Replies<'a>),
    /// Redis refused it as a whole, for this reason.
    Refused(&'a [u8]),
}

/// Reads the replies to a transaction of so many commands.
pub(super) fn read<'a>(
    replies: &mut Replies<'a>,
    queued: usize,
) -> Result<Outcome<'a>, RecordError> {
    let (mut refused, mut alone) = (None, false);
    for at in 0..=queued {
        match (at, replies.next()) {
            (0, Some(Reply::Status(b"OK"))) => {}
            (1.., Some(Reply::Status(b"QUEUED"))) => {}
            (_, Some(Reply::Error(line))) => {
                refused.get_or_insert(line);
                alone |= at == 0;
            }
            // Where MULTI is refused, the others are carried out by themselves.
            (_, Some(_)) if alone => {}
            _ => return Err(RecordError::Desync),
        }
    }
    match (replies.next(), refused) {
        // EXECABORT says no more than that the reason came before, or behind this.
        (Some(Reply::Error(line)), refused) => {
            let reason = line.strip_prefix(b"EXECABORT Transaction discarded because of: ");
            Ok(Outcome::Refused(refused.or(reason).unwrap_or(line)))
        }
        // Redis 5 carries out what it has not refused. It refuses all that writes, or nothing.
        (Some(Reply::Array(_)), Some(line)) => Ok(Outcome::Refused(line)),
        (Some(Reply::Array(results)), None) if results.len() == queued => {
            Ok(Outcome::Done(results))
        }
        _ => Err(RecordError::Desync),
    }
}
