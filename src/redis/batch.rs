//! Operations that go to Redis in one pipeline, as bytes: what is sent, and which bytes of the reply are whose.
//!
//! Each pipeline ends with an `ECHO` of a nonce that was never said before, and once a second with `TIME` before it. No
//! reply is believed until as many have come as were asked for and the nonce is in its place: a connection that is out of step by one reply, an error
//! of the server or of ours, shows here and not in somebody else's session.

#[cfg(test)]
mod tests;

use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use super::errors::refusal;
use super::resp::{ProtocolError, Replies, Reply, end_of};
use crate::Error;
use crate::pipeline::operation::{Answer, Operation, Progress, RemoteClock, Round};

/// What `TIME`, `ECHO`, an error in their place and the frames of replies have at most.
const OVERHEAD: usize = 16 * 1024;

/// For how long the server's clock is extrapolated from its last reply to `TIME`.
const CLOCK_TTL: Duration = Duration::from_secs(1);

/// How much later than its time-out a server may end a WAIT: it checks ten times a second.
const WAIT_OVERSHOOT: Duration = Duration::from_millis(150);

/// One operation's part of a pipeline.
#[derive(Clone, Copy, Debug)]
struct Part {
    /// How many replies it gets.
    replies: usize,
    /// Where these begin and end in what was received.
    start: usize,
    end: usize,
    repeatable: bool,
    writes: bool,
}

/// A pipeline: the bytes to send, and how far its replies have come.
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    parts: Vec<Part>,
    /// Before the replies of each operation, one to ASKING.
    asking: bool,
    nonce: Nonce,
    /// Whether the server is asked for the time.
    asks_time: bool,
    /// How many replicas are to have what the pipeline writes.
    wait: u32,
    /// How many have it, or why the server does not say.
    replicas: Result<u32, Error>,
    /// The most bytes that the replies may have.
    limit: usize,
    /// When it was ended.
    sealed: Option<Instant>,
    // How far the received bytes are understood.
    at: usize,
    part: usize,
    seen: usize,
    is_replica: bool,
}

/// The result of receiving the replies of a pipeline.
pub(super) enum Received {
    /// More bytes are to come.
    Incomplete,
    /// All are there, and in step. The time, if the server was asked for it.
    InStep(Option<RemoteClock>),
    /// The server refused the nonce or the time, for this reason, and so perhaps everything: none is believed.
    Refused(Error),
}

/// Replies that are not to this pipeline.
#[derive(Debug)]
pub(super) enum Broken {
    Protocol,
    /// The replies are more than this many bytes.
    TooLarge(usize),
}

impl From<ProtocolError> for Broken {
    fn from(_: ProtocolError) -> Broken {
        Broken::Protocol
    }
}

/// How a pipeline is written.
#[derive(Clone, Copy, Default)]
pub(super) struct BatchOptions {
    /// Each request is for one key, as in a cluster.
    pub(super) one_key: bool,
    /// Each request is preceded by ASKING: its slot is on the way to this node.
    pub(super) asking: bool,
    /// As many replicas must have what is written before it counts.
    pub(super) replicas: u32,
}

impl Batch {
    pub(super) fn new(options: BatchOptions) -> Batch {
        Batch {
            bytes: Vec::with_capacity(1024),
            parts: Vec::new(),
            asking: options.asking,
            nonce: Nonce::new(),
            asks_time: false,
            wait: options.replicas,
            replicas: Ok(0),
            limit: OVERHEAD,
            sealed: None,
            at: 0,
            part: 0,
            seen: 0,
            is_replica: false,
        }
    }

    /// Writes an operation's request. False where that panicked: the operation has failed, and is not in the pipeline.
    pub(super) fn push(
        &mut self,
        operation: &mut dyn Operation,
        clock: SystemTime,
        one_key: bool,
    ) -> bool {
        let before = self.bytes.len();
        let mut round = Round::new(&mut self.bytes, clock, one_key);
        if self.asking {
            round.command(&[b"ASKING"]);
        }
        if catch_unwind(AssertUnwindSafe(|| operation.request(&mut round))).is_err() {
            self.bytes.truncate(before);
            let text = "writing a request to Redis panicked";
            fail(operation, Error::new(crate::ErrorKind::Redis, text));
            return false;
        }
        let Round { replies, repeatable, read_only, limit, .. } = round;
        self.limit = self.limit.saturating_add(limit);
        self.parts.push(Part { replies, start: 0, end: 0, repeatable, writes: !read_only });
        true
    }

    /// How long ago it was ended.
    pub(super) fn age(&self, now: Instant) -> Duration {
        self.sealed.map_or(Duration::ZERO, |sealed| now.saturating_duration_since(sealed))
    }

    /// Ends the pipeline. Nothing is pushed behind this. The time is asked for unless `clock` was told it a moment ago. The
    /// replies are to be there within `timeout`.
    pub(super) fn finish(&mut self, clock: Option<RemoteClock>, now: Instant, timeout: Duration) {
        self.sealed = Some(now);
        self.asks_time = clock.is_none_or(|clock| clock.age(now) >= CLOCK_TTL);
        if !self.parts.iter().any(|part| part.writes) {
            self.wait = 0;
        }
        let mut round = Round::new(&mut self.bytes, SystemTime::UNIX_EPOCH, false);
        if self.wait > 0 {
            // Its reply is to be there before the time is up. Zero would be for ever.
            let time = timeout.saturating_sub(WAIT_OVERSHOOT).max(timeout / 2).as_millis();
            let time = time.clamp(1, u128::from(u32::MAX));
            let (replicas, time) = (self.wait.to_string(), time.to_string());
            round.command(&[b"WAIT", replicas.as_bytes(), time.as_bytes()]);
        }
        if self.asks_time {
            round.command(&[b"TIME"]);
        }
        round.command(&[b"ECHO", self.nonce.as_bytes()]);
    }

    pub(super) fn len(&self) -> usize {
        self.parts.len()
    }

    /// How many replies the whole pipeline gets, those to `TIME` and `ECHO` included.
    #[cfg(feature = "r2d2_redis")]
    pub(super) fn replies(&self) -> usize {
        let own = 1 + usize::from(self.asks_time) + usize::from(self.wait > 0);
        self.parts.iter().map(|part| part.replies).sum::<usize>() + own
    }

    /// Whether this operation's request may be sent once more.
    pub(super) fn is_repeatable(&self, operation: usize) -> bool {
        self.parts[operation].repeatable
    }

    /// Whether this operation's request may change something.
    pub(super) fn writes(&self, operation: usize) -> bool {
        self.parts[operation].writes
    }

    /// What is written counts only if as many replicas have it as are to; else this is how many have, or why that is
    /// not known.
    pub(super) fn shortfall(&self) -> Option<Result<u32, &Error>> {
        match &self.replicas {
            Ok(replicas) if *replicas < self.wait => Some(Ok(*replicas)),
            Ok(_) => None,
            Err(refused) => Some(Err(refused)),
        }
    }

    /// Whether all operations have been answered and the replicas have not, so that the server is there.
    pub(super) fn awaits_replicas(&self) -> bool {
        self.wait > 0 && self.part == self.parts.len()
    }

    /// The operation whose reply is the next to be whole.
    pub(super) fn current(&self) -> usize {
        self.part
    }

    /// How many bytes the whole reply has, once it is there.
    pub(super) fn received_len(&self) -> usize {
        self.at
    }

    /// Whether the server said of itself that it is a replica, so that the primary is somewhere else now.
    pub(super) fn is_replica(&self) -> bool {
        self.is_replica
    }

    /// Looks at what has been received so far, from the first byte of the first reply.
    pub(super) fn receive(
        &mut self,
        received: &[u8],
        max: usize,
        now: Instant,
    ) -> Result<Received, Broken> {
        while self.part < self.parts.len() {
            if self.parts[self.part].replies == 0 {
                self.part += 1;
                continue;
            }
            let Some(reply) = self.next(received, max)? else { return Ok(Received::Incomplete) };
            let part = &mut self.parts[self.part];
            if self.seen == 0 {
                part.start = if self.asking { reply.end } else { reply.start };
            }
            self.seen += 1;
            if self.seen >= part.replies {
                part.end = reply.end;
                (self.part, self.seen) = (self.part + 1, 0);
            }
            if received[reply.start] == b'-' {
                let line = &received[reply.start + 1..reply.end - 2];
                self.is_replica |= super::errors::code(line) == "READONLY";
            }
        }
        let at = self.at;
        let mut own: [Option<Range<usize>>; 3] = [None, None, None];
        for (reply, is_expected) in own.iter_mut().zip([self.wait > 0, self.asks_time, true]) {
            if is_expected {
                *reply = self.next(received, max)?;
                if reply.is_none() {
                    self.at = at;
                    return Ok(Received::Incomplete);
                }
            }
        }
        let [replicas, time, Some(echo)] = own else { return Ok(Received::Incomplete) };
        let first = |range: Range<usize>| Replies::of(&received[range], 1).next();
        let in_place = |said: &[u8]| said == self.nonce.as_bytes();
        if let Some(replicas) = replicas {
            self.replicas = match first(replicas) {
                Some(Reply::Integer(replicas)) => Ok(replicas.try_into().unwrap_or(0)),
                Some(Reply::Error(line)) => {
                    self.is_replica |= line.starts_with(b"ERR WAIT cannot be used with replica");
                    Err(refusal(line))
                }
                _ => return Err(Broken::Protocol),
            };
        }
        match (first(echo), time.map(first)) {
            (Some(Reply::Bulk(said)), None) if in_place(said) => Ok(Received::InStep(None)),
            (Some(Reply::Bulk(said)), Some(Some(Reply::Array(time)))) if in_place(said) => {
                let said = clock(time).ok_or(Broken::Protocol)?;
                Ok(Received::InStep(Some(RemoteClock::new(said, now))))
            }
            (Some(Reply::Bulk(said)), Some(Some(Reply::Error(line)))) if in_place(said) => {
                Ok(Received::Refused(refusal(line)))
            }
            // As many replies as there should be, and this one an error: LOADING, NOAUTH, NOPERM and the like.
            (Some(Reply::Error(line)), _) => Ok(Received::Refused(refusal(line))),
            _ => Err(Broken::Protocol),
        }
    }

    fn next(&mut self, received: &[u8], max: usize) -> Result<Option<Range<usize>>, Broken> {
        let limit = self.limit.min(max);
        let start = self.at;
        match end_of(&received[start..])? {
            Some(length) if start + length <= limit => {
                self.at = start + length;
                Ok(Some(start..start + length))
            }
            None if received.len() <= limit => Ok(None),
            _ => Err(Broken::TooLarge(limit)),
        }
    }

    /// The reply to one operation.
    pub(super) fn answer<'a>(
        &self,
        operation: usize,
        received: &'a [u8],
        clock: SystemTime,
    ) -> Answer<'a> {
        let Part { replies, start, end, .. } = self.parts[operation];
        Answer { bytes: &received[start..end], replies: replies - usize::from(self.asking), clock }
    }
}

/// Whether an operation's next request changes nothing. One that panics fails when it is sent.
pub(super) fn is_read_only(operation: &mut dyn Operation) -> bool {
    let mut out = Vec::new();
    let mut round = Round::new(&mut out, SystemTime::now(), true);
    let written = catch_unwind(AssertUnwindSafe(|| operation.request(&mut round)));
    written.is_err() || round.read_only
}

/// Hands a reply to its operation. A panic there fails the operation and no other one.
pub(super) fn deliver(operation: &mut dyn Operation, answer: Answer<'_>) -> Progress {
    catch_unwind(AssertUnwindSafe(|| operation.answer(answer))).unwrap_or_else(|_| {
        fail(operation, Error::new(crate::ErrorKind::Redis, "reading a reply of Redis panicked"));
        Progress::Desync
    })
}

/// Tells an operation that it has failed. A panic there is its own affair.
pub(super) fn fail(operation: &mut dyn Operation, error: Error) {
    if catch_unwind(AssertUnwindSafe(|| operation.fail(error))).is_err() {
        log::error!("an operation panicked when it heard that it has failed");
    }
}

/// The reply to TIME: seconds since 1970, and microseconds.
pub(super) fn clock(time: Replies<'_>) -> Option<SystemTime> {
    let mut numbers = time.map(|number| std::str::from_utf8(number.bulk()?).ok()?.parse().ok());
    let (seconds, micros): (u64, u64) = (numbers.next()??, numbers.next()??);
    let since = Duration::from_secs(seconds).checked_add(Duration::from_micros(micros))?;
    SystemTime::UNIX_EPOCH.checked_add(since)
}

/// A unique text.
struct Nonce([u8; 32]);

impl Nonce {
    fn new() -> Nonce {
        static SEED: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0));
        static SAID: AtomicU64 = AtomicU64::new(0);
        // A forked process has the same seed and numbers, but no connection in common.
        let (seed, number) = (*SEED, SAID.fetch_add(1, Ordering::Relaxed));
        let mut text = [0; 32];
        for (at, digit) in text.iter_mut().enumerate() {
            let half = if at < 16 { seed } else { number };
            *digit = b"0123456789abcdef"[(half >> (60 - 4 * (at % 16)) & 15) as usize];
        }
        Nonce(text)
    }

    fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}
