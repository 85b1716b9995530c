//! One connection between polls: what it has received, what it waits for, until when.

mod incoming;
mod sending;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;

use self::incoming::Gathering;
pub(super) use self::incoming::Incoming;
use super::options::{Options, Permit};
use super::outgoing::Outgoing;
use super::socket::Socket;
use super::transport::{Received, Transport, Trouble};
use crate::server::http1::Refused;

pub(super) struct Connection {
    pub(super) transport: Arc<Transport>,
    /// Which listener it came from.
    #[cfg(feature = "https")]
    pub(super) purpose: Purpose,
    pub(super) peer: Option<SocketAddr>,
    /// Its place among the poller's connections.
    pub(super) slot: usize,
    /// Received and not yet understood.
    pub(super) input: Vec<u8>,
    /// How much of it was looked at for a head that is not whole.
    looked_at: usize,
    pub(super) state: State,
    pub(super) deadline: Instant,
    /// Where it is beyond the limit of connections.
    turned_away: Option<Permit>,
    /// Whether the socket may hold more than was read: an edge is announced only once.
    pub(super) readable: bool,
    /// Whether the client will send no more: everything is read up to the end then.
    pub(super) ended: bool,
    pub(super) options: Arc<Options>,
}

/// What a listener's connections are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    App,
    /// To be sent on to the app's address with https.
    #[cfg(feature = "https")]
    Redirects,
}

pub(super) enum State {
    /// Its handshake is under way, or nothing has come behind it. The deadline is that of the first head.
    #[cfg(feature = "https")]
    Handshake,
    /// Between requests, or inside a head.
    Head,
    /// A body that is gathered before its handler runs.
    Body(Box<Gathering>),
    /// Its request is being handled.
    Handled,
    Sending(Box<Outgoing>),
    /// The last answer is sent; what still comes is thrown away, so that closing does not destroy the
    /// answer on its way (RFC 9112 section 9.6).
    Lingering(usize),
    /// More came than is thrown away. It is not read, but the socket stays: a proxy that is still sending the
    /// body has not looked at the answer, and a reset would take its place.
    Held(#[expect(dead_code, reason = "counts for as long as it is there")] Permit),
}

/// What became of a connection.
pub(super) enum Next {
    /// Waits for its socket.
    Wait,
    /// A worker is to do this.
    Hand(Job),
    Close,
}

/// What a connection needs a worker for.
pub(super) enum Job {
    /// A request is whole.
    Handle(Incoming),
    /// A thread that may block is to send more of the answer.
    SendBody,
    /// A thread is to compute a step of its handshake.
    #[cfg(feature = "https")]
    Compute,
}

impl Connection {
    pub(super) fn new(
        socket: Socket,
        peer: Option<SocketAddr>,
        purpose: Purpose,
        options: Arc<Options>,
        now: Instant,
    ) -> Connection {
        let (transport, state) = match purpose {
            #[cfg(feature = "https")]
            Purpose::App if options.tls.is_some() => Connection::inside_tls(socket, &options),
            _ => (Transport::Plain(socket), State::Head),
        };
        Connection {
            transport: Arc::new(transport),
            #[cfg(feature = "https")]
            purpose,
            peer,
            slot: 0,
            input: Vec::new(),
            looked_at: 0,
            state,
            deadline: now + options.head_deadline,
            turned_away: None,
            readable: true,
            ended: false,
            options,
        }
    }

    /// Whether it waits for a request of which nothing has arrived.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.state, State::Head) && self.input.is_empty()
    }

    /// Whether it waits for a request, or for the rest of one.
    pub(super) fn awaits_request(&self) -> bool {
        match self.state {
            #[cfg(feature = "https")]
            State::Handshake => true,
            State::Head | State::Body(_) => true,
            State::Handled | State::Sending(_) | State::Lingering(_) | State::Held(_) => false,
        }
    }

    /// Whether a request of it has been read, and its answer has not been sent.
    pub(super) fn is_answering(&self) -> bool {
        matches!(self.state, State::Handled | State::Sending(_))
    }

    /// Whether something can be done without waiting for the poller.
    pub(super) fn is_eager(&self) -> bool {
        let sends = matches!(&self.state, State::Sending(outgoing) if outgoing.needs_more());
        self.readable || !self.input.is_empty() || sends
    }

    /// Goes on as far as it can without blocking.
    pub(super) fn advance(&mut self, scratch: &mut [u8], now: Instant) -> Next {
        let next = self.step(scratch, now);
        // What TLS itself has to say, such as tickets, goes with an answer where there is one.
        if matches!(next, Next::Wait) && !self.is_sending() && self.transport.flush().is_err() {
            return Next::Close;
        }
        next
    }

    fn step(&mut self, scratch: &mut [u8], now: Instant) -> Next {
        loop {
            let understood = match self.state {
                #[cfg(feature = "https")]
                State::Handshake if self.input.is_empty() => Ok(None),
                #[cfg(feature = "https")]
                State::Handshake => {
                    self.state = State::Head;
                    continue;
                }
                State::Head => self.take_head(now),
                State::Body(_) => self.take_body(),
                State::Sending(_) => match self.resume(now) {
                    Next::Wait if !self.is_sending() => continue,
                    next => return next,
                },
                State::Lingering(_) => Ok(None),
                State::Held(_) if self.ended => return Next::Close,
                State::Held(_) | State::Handled => return Next::Wait,
            };
            match understood {
                Ok(Some(next)) => return next,
                Ok(None) => {}
                Err(Refused(status)) => match self.refuse(status) {
                    Next::Wait if !self.is_sending() => {}
                    next => return next,
                },
            }
            if !self.readable {
                return Next::Wait;
            }
            match self.receive(scratch, now) {
                Ok(None) => {}
                Ok(Some(next)) => return next,
                Err(Trouble::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Next::Wait;
                }
                Err(Trouble::Io(_)) => return Next::Close,
                #[cfg(feature = "https")]
                Err(Trouble::Refused(refused)) => match self.fail(&refused, now) {
                    Next::Wait if !self.is_sending() => {}
                    next => return next,
                },
            }
        }
    }

    fn is_sending(&self) -> bool {
        matches!(self.state, State::Sending(_))
    }

    /// Reads once; `None` where that may be gone on with.
    fn receive(&mut self, scratch: &mut [u8], now: Instant) -> Result<Option<Next>, Trouble> {
        self.readable = false;
        if matches!(self.state, State::Lingering(_)) {
            return Ok(self.discard(scratch)?);
        }
        let was_idle = self.is_idle();
        let received = self.transport.receive(scratch, &mut self.input)?;
        if was_idle && !self.input.is_empty() {
            self.deadline = now + self.options.head_deadline;
            #[cfg(feature = "https")]
            self.transport.visited();
        }
        // A read that does not fill the buffer has emptied the socket: asking again would cost a call.
        match received {
            Received::Bytes(count) => {
                self.readable = count == scratch.len() || self.ended;
                Ok(None)
            }
            #[cfg(feature = "https")]
            Received::Last => {
                (self.ended, self.readable) = (true, true);
                Ok(None)
            }
            #[cfg(feature = "https")]
            Received::Computes(count) => {
                self.readable = count == scratch.len() || self.ended;
                Ok(Some(Next::Hand(Job::Compute)))
            }
            Received::End => Ok(Some(Next::Close)),
        }
    }

    /// Throws away what comes behind the last answer, as far as that goes.
    fn discard(&mut self, scratch: &mut [u8]) -> io::Result<Option<Next>> {
        let count = self.transport.discard(scratch)?;
        self.readable = count == scratch.len() || self.ended;
        match &mut self.state {
            _ if count == 0 => return Ok(Some(Next::Close)),
            State::Lingering(left) if *left < count => match self.options.hold() {
                Some(hold) => self.state = State::Held(hold),
                None => return Ok(Some(Next::Close)),
            },
            State::Lingering(left) => *left -= count,
            _ => {}
        }
        Ok(None)
    }

    /// What a deadline that has passed means.
    pub(super) fn expire(&mut self, now: Instant) -> Next {
        match self.state {
            #[cfg(feature = "https")]
            State::Handshake => Next::Close,
            State::Head if self.input.is_empty() => Next::Close,
            State::Head | State::Body(_) => self.refuse(StatusCode::REQUEST_TIMEOUT),
            // A socket says that it takes more only once much of its buffer is free (a third of it on Linux): a
            // client that takes a little at a time is found out by trying.
            State::Sending(_) => match self.resume(now) {
                Next::Wait if self.is_sending() && self.deadline <= now => Next::Close,
                next => next,
            },
            State::Lingering(_) | State::Held(_) | State::Handled => Next::Close,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::super::outgoing::Audience;
    use super::incoming::KEPT;
    use super::*;
    use crate::message::response::Response;

    const AUDIENCE: Audience =
        Audience { version: http::Version::HTTP_11, head: false, keep_alive: true };

    fn connected(options: Options) -> (Connection, UnixStream) {
        let (client, server) = UnixStream::pair().unwrap();
        server.set_nonblocking(true).unwrap();
        let socket = Socket(server.into());
        let now = Instant::now();
        (Connection::new(socket, None, Purpose::App, Arc::new(options), now), client)
    }

    /// A connection behind its last answer, to which more than the limit has been sent since.
    fn sent_too_much(options: Options) -> (Connection, UnixStream, Next) {
        let (mut connection, mut client) = connected(Options { linger_bytes: 100, ..options });
        let mut scratch = vec![0; 64 * 1024];
        let mut next = Next::Close;
        for sent in [&b"not a request\r\n\r\n"[..], &[b'x'; 100], b"x"] {
            client.write_all(sent).unwrap();
            connection.readable = true;
            next = connection.advance(&mut scratch, Instant::now());
        }
        (connection, client, next)
    }

    #[test]
    fn behind_a_last_answer_so_much_is_thrown_away_and_the_rest_waits_unread() {
        let (mut connection, mut client, next) = sent_too_much(Options::default());
        assert!(matches!(next, Next::Wait));
        client.set_nonblocking(true).unwrap();
        let piece = [b'x'; 64 * 1024];
        while client.write(&piece).is_ok() {
            connection.readable = true;
            assert!(matches!(connection.advance(&mut [0; 1024], Instant::now()), Next::Wait));
        }
        let due = connection.deadline;
        assert!(matches!(connection.expire(due), Next::Close));
        // The client has gone: the poller says so, and nobody waits for the deadline.
        connection.ended = true;
        assert!(matches!(connection.advance(&mut [0; 1024], Instant::now()), Next::Close));
        drop(connection);
        client.set_nonblocking(false).unwrap();
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer);
        assert!(answer.starts_with(b"HTTP/1.1 400 "), "{answer:?}");
    }

    #[test]
    fn a_quarter_of_all_connections_may_wait_unread_behind_their_last_answers() {
        let options = Options { max_connections: 8, ..Options::default() };
        let waits = |connections: &[(Connection, UnixStream, Next)]| {
            connections.iter().map(|(_, _, next)| matches!(next, Next::Wait)).collect::<Vec<_>>()
        };
        let mut held: Vec<_> = (0..3).map(|_| sent_too_much(options.clone())).collect();
        assert_eq!(waits(&held), [true, true, false]);
        held.clear();
        assert!(matches!(sent_too_much(options).2, Next::Wait), "there is room again");
    }

    #[test]
    fn an_idle_connection_keeps_no_buffer_of_a_large_request() {
        let (mut connection, mut client) = connected(Options::default());
        let mut scratch = vec![0; 64 * 1024];
        for length in [10, 60_000, 100_000] {
            let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
            client.write_all(head.as_bytes()).unwrap();
            client.write_all(&vec![b'x'; length]).unwrap();
            connection.readable = true;
            let Next::Hand(Job::Handle(incoming)) =
                connection.advance(&mut scratch, Instant::now())
            else {
                panic!("no request of {length} bytes");
            };
            assert_eq!(incoming.exchange.request().body().unwrap().len(), length);
            assert!(connection.reclaim(incoming.stream));
            connection.answer(Outgoing::new(Response::text("taken"), AUDIENCE));
            assert!(connection.is_idle());
            let kept = connection.input.capacity();
            assert!(kept <= KEPT, "{kept} bytes kept of a body of {length}");
        }
    }

    #[test]
    fn a_client_that_takes_a_little_in_time_is_waited_for() {
        let (mut connection, mut client) = connected(Options::default());
        let answer = Response::bytes(vec![b'x'; 4_000_000]);
        assert!(matches!(connection.answer(Outgoing::new(answer, AUDIENCE)), Next::Wait));
        let mut taken = vec![0; 64 * 1024];
        for _ in 0..10 {
            client.read_exact(&mut taken).unwrap();
            let due = connection.deadline;
            assert!(matches!(connection.expire(due), Next::Wait));
            assert!(connection.deadline > due);
        }
        let due = connection.deadline;
        assert!(matches!(connection.expire(due), Next::Close));
    }
}
