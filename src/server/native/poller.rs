//! All connections of one event loop, its channels to remote services, and what the operating system says about them.

mod accepting;
mod channels;

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token};

use self::accepting::Listening;
pub(super) use self::channels::Resumed;
use self::channels::Watched;
use super::connection::{Connection, Job, Next};
use super::event_loop::InFlight;
use super::options::Options;
use crate::logging::ThrottledLog;
use crate::pipeline::operation::{Ready as ReadyFor, Waiting, Wake};

/// The token of the first listener; the next one has the number before it.
const LISTENERS: usize = usize::MAX;

/// How many listeners there may be.
pub(super) const MOST_LISTENERS: usize = 16;

pub(super) const WAKER: Token = Token(LISTENERS - MOST_LISTENERS);

/// The token of the first channel; the next one has the number before it.
const CHANNELS: usize = WAKER.0 - 1;

/// How many channels there may be: each is to another Redis.
const MOST_CHANNELS: usize = 1024;

pub(super) struct Poller {
    poll: Poll,
    events: Events,
    slots: Vec<Slot>,
    free: Vec<usize>,
    listeners: Vec<Listening>,
    closing: bool,
    /// Why accepting paused: out of file descriptors, twenty times a second.
    paused: ThrottledLog,
    scratch: Vec<u8>,
    next_scan: Instant,
    options: Arc<Options>,
    /// Connections that are a worker's until they come back, and what for.
    pub(super) ready: Vec<(Box<Connection>, Job)>,
    /// Connections for other loops to take.
    pub(super) accepted: Vec<Connection>,
    /// When the last wait ended.
    pub(super) woke: Instant,
    /// Wakes the loop that this is the poller of.
    pub(super) wake: Option<Wake>,
    channels: Vec<Watched>,
    /// Requests that wait for operations; the index is the ticket.
    waiting: Vec<Option<(InFlight, usize)>>,
    free_tickets: Vec<usize>,
    /// Requests whose operations are over.
    pub(super) resumed: Vec<Resumed>,
    over: Vec<(usize, Box<dyn Waiting>)>,
    /// Slots of connections that are with workers, and whose clients send no more.
    pub(super) ended: Vec<usize>,
}

enum Slot {
    Free,
    Here(Box<Connection>),
    /// With a worker. Whether its socket had something to say meanwhile.
    Out {
        event: bool,
        ended: bool,
    },
}

/// A connection that comes back from a worker, or that it is gone.
pub(super) enum Returned {
    New(Box<Connection>),
    Open(Box<Connection>),
    Closed(usize),
}

impl Poller {
    pub(super) fn new(options: Arc<Options>) -> io::Result<Poller> {
        Ok(Poller {
            poll: Poll::new()?,
            events: Events::with_capacity(256),
            slots: Vec::new(),
            free: Vec::new(),
            listeners: Vec::new(),
            closing: false,
            paused: ThrottledLog::default(),
            scratch: vec![0; 64 * 1024],
            next_scan: Instant::now(),
            options,
            ready: Vec::new(),
            accepted: Vec::new(),
            woke: Instant::now(),
            wake: None,
            channels: Vec::new(),
            waiting: Vec::new(),
            free_tickets: Vec::new(),
            resumed: Vec::new(),
            over: Vec::new(),
            ended: Vec::new(),
        })
    }

    pub(super) fn registry(&self) -> &Registry {
        self.poll.registry()
    }

    /// Whether nothing is left and nothing will come.
    pub(super) fn is_empty_for_good(&self) -> bool {
        self.closing && self.count() == 0 && self.accepted.is_empty()
    }

    /// How many connections there are.
    pub(super) fn count(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Closes everything at once, and says how many requests that cuts.
    pub(super) fn clear(&mut self) -> usize {
        let is_cut = |slot: &&Slot| match slot {
            Slot::Free => false,
            Slot::Here(connection) => connection.is_answering(),
            Slot::Out { .. } => true,
        };
        let cut = self.slots.iter().filter(is_cut).count();
        self.listeners.clear();
        self.slots.clear();
        self.free.clear();
        self.ready.clear();
        self.channels.clear();
        self.waiting.clear();
        self.free_tickets.clear();
        self.resumed.clear();
        self.ended.clear();
        cut
    }

    /// Waits until something can be done and does what does not block; the rest is in `ready` then.
    /// With `rest` there is something else to do: it only looks.
    pub(super) fn poll(&mut self, rest: bool) -> io::Result<()> {
        let mut now = Instant::now();
        self.advance_channels(now);
        let eager = rest
            || !self.ready.is_empty()
            || !self.resumed.is_empty()
            || !self.accepted.is_empty()
            || self.listeners.iter().any(|listening| listening.is_due(now));
        // Without connections there are no deadlines.
        let scan = (self.count() > 0).then_some(self.next_scan);
        let channels = self.channels.iter().filter_map(|watched| watched.channel.deadline()).min();
        let accept = self.listeners.iter().filter_map(|listening| listening.accept_at).min();
        let until = [scan, accept, channels].into_iter().flatten().min();
        let wait = match eager {
            true => Some(Duration::ZERO),
            false => until.map(|until| until.saturating_duration_since(now)),
        };
        match self.poll.poll(&mut self.events, wait) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => now = Instant::now(),
        }
        self.woke = now;
        let mut touched = Vec::new();
        for event in &self.events {
            match event.token() {
                WAKER => self.channels.iter_mut().for_each(|watched| watched.ready = true),
                Token(token) if token > WAKER.0 => {
                    if let Some(listening) = self.listeners.get_mut(LISTENERS - token) {
                        listening.accept_at = Some(now);
                    }
                }
                Token(token) if token > CHANNELS - MOST_CHANNELS => {
                    if let Some(watched) = self.channels.get_mut(CHANNELS - token) {
                        watched.channel.ready(ReadyFor {
                            readable: event.is_readable() || event.is_error(),
                            writable: event.is_writable(),
                            ended: event.is_read_closed(),
                        });
                        watched.ready = true;
                    }
                }
                Token(slot) => match self.slots.get_mut(slot) {
                    Some(Slot::Here(connection)) => {
                        connection.readable |= event.is_readable() || event.is_error();
                        connection.ended |= event.is_read_closed();
                        touched.push(slot);
                    }
                    Some(Slot::Out { event: seen, ended }) => {
                        *seen = true;
                        *ended |= event.is_read_closed();
                        if *ended {
                            self.ended.push(slot);
                        }
                    }
                    Some(Slot::Free) | None => {}
                },
            }
        }
        self.advance_channels(now);
        touched.into_iter().for_each(|slot| self.advance(slot, now));
        self.accept(now);
        if now >= self.next_scan {
            self.scan(now);
        }
        Ok(())
    }

    /// Takes a connection (back).
    pub(super) fn take(&mut self, returned: Returned) {
        match returned {
            Returned::Closed(slot) => self.release(slot),
            Returned::New(mut connection) => {
                let slot = self.free.pop().unwrap_or_else(|| {
                    self.slots.push(Slot::Free);
                    self.slots.len() - 1
                });
                connection.slot = slot;
                let (fd, both) =
                    (connection.transport.as_raw_fd(), Interest::READABLE | Interest::WRITABLE);
                match self.poll.registry().register(&mut SourceFd(&fd), Token(slot), both) {
                    Ok(()) => self.slots[slot] = Slot::Here(connection),
                    Err(error) => {
                        log::warn!("a connection cannot be watched: {error}");
                        self.free.push(slot);
                    }
                }
            }
            Returned::Open(mut connection) => {
                let slot = connection.slot;
                if let Slot::Out { event, ended } = self.slots[slot] {
                    connection.readable |= event;
                    connection.ended |= ended;
                }
                let eager = connection.is_eager();
                self.slots[slot] = Slot::Here(connection);
                if eager {
                    self.advance(slot, Instant::now());
                }
            }
        }
    }

    /// Gives a connection that comes back away, to another poller, unless there is something to do for it
    /// here: what its socket says from now on, the other one will hear.
    pub(super) fn detach(
        &mut self,
        connection: Box<Connection>,
    ) -> Result<Box<Connection>, Box<Connection>> {
        let slot = connection.slot;
        let heard = matches!(self.slots[slot], Slot::Out { event: true, .. });
        if heard || !connection.is_idle() || connection.is_eager() {
            return Err(connection);
        }
        let fd = connection.transport.as_raw_fd();
        if let Err(error) = self.poll.registry().deregister(&mut SourceFd(&fd)) {
            log::warn!("a connection cannot move: {error}");
            return Err(connection);
        }
        self.release(slot);
        Ok(connection)
    }

    fn advance(&mut self, slot: usize, now: Instant) {
        let Some(Slot::Here(connection)) = self.slots.get_mut(slot) else { return };
        let next = connection.advance(&mut self.scratch, now);
        self.apply(slot, next);
    }

    fn apply(&mut self, slot: usize, next: Next) {
        match next {
            Next::Wait => {}
            Next::Close => self.release(slot),
            Next::Hand(job) => {
                let ended = matches!(&self.slots[slot], Slot::Here(connection) if connection.ended);
                let out = Slot::Out { event: false, ended };
                if let Slot::Here(connection) = std::mem::replace(&mut self.slots[slot], out) {
                    self.ready.push((connection, job));
                }
            }
        }
    }

    /// Closes: dropping the socket also ends its registration.
    fn release(&mut self, slot: usize) {
        self.slots[slot] = Slot::Free;
        self.free.push(slot);
    }

    /// Closes what is idle, and what waits for the rest of a request.
    pub(super) fn close_unbegun(&mut self) {
        let now = Instant::now();
        for slot in 0..self.slots.len() {
            let awaits = |slot: &Slot| matches!(slot, Slot::Here(it) if it.awaits_request());
            if awaits(&self.slots[slot]) {
                self.advance(slot, now);
                if awaits(&self.slots[slot]) {
                    self.release(slot);
                }
            }
        }
    }

    fn scan(&mut self, now: Instant) {
        self.next_scan = now + self.options.tick();
        for slot in 0..self.slots.len() {
            match &mut self.slots[slot] {
                Slot::Here(connection) if connection.deadline <= now => {
                    let next = connection.expire(now);
                    self.apply(slot, next);
                    self.advance(slot, now);
                }
                // It may wait for a thread only since then.
                Slot::Out { ended: true, .. } => self.ended.push(slot),
                _ => {}
            }
        }
    }
}
