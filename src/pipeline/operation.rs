//! What a stage of a plugin waits for without holding a thread: operations at a remote service.
//!
//! An operation does no I/O. It writes a request, reads the reply, and says whether it is done or needs another
//! round trip. Whoever carries it owns the connection: the event loops of [`server::native`](crate::server::native)
//! send what one iteration made ready as one write and take the requests further when the replies are there; a thread that
//! may block (a test, another server, [`Session::commit`](crate::Session::commit)) does the same over a pool.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::batch::Entry;
use crate::Error;
use crate::logging::request_id::{self, RequestId};

/// One operation at a remote service that answers requests in their order, such as Redis. It may take several round
/// trips.
///
/// ```
/// use bottle_session::{Answer, Error, Operation, Progress, RedisPool, Round};
///
/// /// Asks the server whether it is there.
/// #[derive(Default)]
/// struct Ping {
///     failed: Option<Error>,
/// }
///
/// impl Operation for Ping {
///     fn request(&mut self, round: &mut Round<'_>) {
///         round.repeatable();
///         round.read_only();
///         round.command(&[b"PING"]);
///     }
///
///     fn answer(&mut self, answer: Answer<'_>) -> Progress {
///         let _ = answer.replies();
///         Progress::Done
///     }
///
///     fn fail(&mut self, error: Error) {
///         self.failed = Some(error);
///     }
/// }
///
/// let pool = RedisPool::open("redis://localhost:1/0")?; // nobody listens there
/// let mut ping = Ping::default();
/// pool.remote().run(&mut [&mut ping]);
/// assert!(ping.failed.is_some());
/// # Ok::<(), bottle_session::Error>(())
/// ```
pub trait Operation: Send + 'static {
    /// Writes the request of the next round trip. Called again, with nothing changed in between, where a request has
    /// to be sent once more over another connection.
    fn request(&mut self, round: &mut Round<'_>);

    /// Reads the reply to the last request.
    fn answer(&mut self, answer: Answer<'_>) -> Progress;

    /// Hears that there will be no reply. Whether the remote service has carried out the request is not known.
    fn fail(&mut self, error: Error);
}

/// How far an operation is after a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It is over.
    Done,
    /// It needs another round trip.
    Again,
    /// It is over, as the reply was not one to its request: the connection is closed.
    Desync,
}

/// The request of one round trip, as an operation writes it.
pub struct Round<'a> {
    pub(crate) out: &'a mut Vec<u8>,
    pub(crate) replies: usize,
    pub(crate) repeatable: bool,
    pub(crate) read_only: bool,
    /// How many bytes the replies have at most.
    pub(crate) limit: usize,
    pub(crate) clock: SystemTime,
    /// What a cluster finds the node by; unset where nobody asks.
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) one_key: bool,
}

impl<'a> Round<'a> {
    pub(crate) fn new(out: &'a mut Vec<u8>, clock: SystemTime, one_key: bool) -> Round<'a> {
        let (replies, limit, key) = (0, usize::MAX, None);
        let (repeatable, read_only) = (false, false);
        Round { out, replies, repeatable, read_only, limit, clock, key, one_key }
    }

    /// The time by the clock of the remote service, as far as it is known: what it said last, and the time since.
    pub fn now(&self) -> SystemTime {
        self.clock
    }

    /// Whether all keys of this request must be one: in a cluster, another key may be on another node.
    pub fn is_for_one_key(&self) -> bool {
        self.one_key
    }

    /// Says that carrying the request out twice is as good as once: where the connection is closed before the reply
    /// is there, it is sent again, once.
    pub fn repeatable(&mut self) {
        self.repeatable = true;
    }

    /// Says that the request changes nothing: it goes on while a failover is under way, when writes wait. A request
    /// that does not say so is taken for one that writes.
    pub fn read_only(&mut self) {
        self.read_only = true;
    }

    /// Says how many bytes the replies to this request have at most; a connection that sends more is closed.
    pub fn at_most(&mut self, bytes: usize) {
        self.limit = bytes;
    }
}

/// The reply to the request of one round trip.
#[derive(Clone, Copy)]
pub struct Answer<'a> {
    /// As many whole replies as the request expects, as they came over the wire.
    pub(crate) bytes: &'a [u8],
    pub(crate) replies: usize,
    pub(crate) clock: SystemTime,
}

impl Answer<'_> {
    /// The time by the clock of the remote service when it answered.
    pub fn now(&self) -> SystemTime {
        self.clock
    }
}

/// A remote service that carries out operations. Clones are the same service.
#[derive(Clone)]
pub struct Remote(pub(crate) Arc<dyn RemoteService>);

impl Remote {
    /// Carries the operations out, in one round trip where each needs no more, and waits for all of them.
    pub fn run(&self, operations: &mut [&mut dyn Operation]) {
        if !operations.is_empty() {
            self.0.run(operations);
        }
    }

    /// Whether both are one service.
    pub(crate) fn is(&self, other: &Remote) -> bool {
        self.0.identity() == other.0.identity()
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Remote")
    }
}

/// How operations reach a remote service.
pub(crate) trait RemoteService: Send + Sync {
    /// What tells this service from others.
    fn identity(&self) -> usize;

    /// Carries them out on this thread, which may block.
    fn run(&self, operations: &mut [&mut dyn Operation]);

    /// A connection for an event loop, which `wake` wakes when there is something to do; `None` where only
    /// [`run`](RemoteService::run) reaches the service.
    fn channel(&self, wake: Wake) -> Option<Box<dyn Channel>> {
        let _ = wake;
        None
    }
}

/// Wakes an event loop, from any thread.
pub(crate) type Wake = Arc<dyn Fn() + Send + Sync>;

/// A connection that an event loop owns. None of its methods blocks.
#[cfg_attr(not(unix), allow(dead_code))]
pub(crate) trait Channel: Send {
    /// Takes operations over. They are sent with the next [`advance`](Channel::advance).
    fn submit(&mut self, ticket: usize, waiting: Box<dyn Waiting>, now: Instant);

    /// Hears what its socket is ready for.
    fn ready(&mut self, ready: Ready);

    /// Whether nothing but event loops knows the service any more.
    fn is_forgotten(&self) -> bool;

    /// Goes on as far as it can: connects, sends, receives, and gives up what is past its deadline. Operations that
    /// are over are in `done`.
    fn advance(&mut self, now: Instant, done: &mut Vec<(usize, Box<dyn Waiting>)>);

    /// When to call [`advance`](Channel::advance) although nothing has come.
    fn deadline(&self) -> Option<Instant>;

    /// The socket to watch for reading and writing, and a number that tells it from former ones.
    #[cfg(unix)]
    fn socket(&self) -> Option<(std::os::fd::RawFd, u64)>;
}

/// What a socket is ready for.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(unix), allow(dead_code))]
pub(crate) struct Ready {
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// The other side sends no more.
    pub(crate) ended: bool,
}

/// An operation, and what follows when it is over.
pub(crate) trait Waiting: Operation {
    fn finish(self: Box<Self>, entry: &mut Entry<'_>);
}

/// What an exchange waits for in a stage of a plugin.
pub(crate) struct Pending {
    /// The slot of the plugin.
    pub(crate) slot: usize,
    pub(crate) remote: Remote,
    pub(crate) waiting: Box<dyn Waiting>,
}

pub(crate) struct Then<O, F> {
    pub(crate) operation: O,
    pub(crate) then: F,
    /// Of the request that waits.
    pub(crate) id: Option<RequestId>,
}

impl<O: Operation, F: Send + 'static> Operation for Then<O, F> {
    fn request(&mut self, round: &mut Round<'_>) {
        let _guard = request_id::enter(self.id.as_ref());
        self.operation.request(round);
    }

    fn answer(&mut self, answer: Answer<'_>) -> Progress {
        let _guard = request_id::enter(self.id.as_ref());
        self.operation.answer(answer)
    }

    fn fail(&mut self, error: Error) {
        let _guard = request_id::enter(self.id.as_ref());
        self.operation.fail(error);
    }
}

impl<O: Operation, F: FnOnce(O, &mut Entry<'_>) + Send + 'static> Waiting for Then<O, F> {
    fn finish(self: Box<Self>, entry: &mut Entry<'_>) {
        let Then { operation, then, .. } = *self;
        then(operation, entry);
    }
}

/// The clock of a remote service: what it said last, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RemoteClock {
    said: SystemTime,
    at: Instant,
}

impl RemoteClock {
    pub(crate) fn new(said: SystemTime, at: Instant) -> RemoteClock {
        RemoteClock { said, at }
    }

    /// How long ago it was told.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.at)
    }

    pub(crate) fn now(&self, now: Instant) -> SystemTime {
        self.said.checked_add(now.saturating_duration_since(self.at)).unwrap_or(self.said)
    }
}
