//! One connection between polls: what it has received, what it waits for, until when.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{Method, StatusCode};
use memchr::memchr;

use super::access;
use super::body::SharedBody;
use super::options::{Hold, Options};
use super::outgoing::{Audience, Outgoing, Sent};
use super::proxy;
use super::socket::Socket;
use super::transport::{Received, Transport, Trouble};
use crate::message::body::RequestBody;
use crate::message::request::Request;
#[cfg(feature = "https")]
use crate::message::request::Scheme;
use crate::pipeline::exchange::Exchange;
use crate::server::http1::{BodyDecoder, Framing, Head, Parsed, Refused, parse_head};

/// How much an idle connection may keep of its buffer.
const KEPT: usize = 1024;

/// How a client that speaks TLS begins: a record with a handshake message, version 3.x (RFC 8446 section 5.1).
const CLIENT_HELLO: [u8; 2] = [0x16, 0x03];

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
    turned_away: Option<Hold>,
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
    Held(#[expect(dead_code, reason = "counts for as long as it is there")] Hold),
}

pub(super) struct Gathering {
    head: Box<Head>,
    decoder: BodyDecoder,
    body: Vec<u8>,
    started: Instant,
}

/// What became of a connection.
pub(super) enum Next {
    /// Waits for its socket.
    Wait,
    /// A request is whole.
    Handle(Incoming),
    /// A thread that may block is to send more of the answer.
    Pump,
    /// A thread is to compute a step of its handshake.
    #[cfg(feature = "https")]
    Compute,
    Close,
}

/// A request and what its answer needs to know.
pub(super) struct Incoming {
    pub(super) exchange: Exchange,
    pub(super) audience: Audience,
    pub(super) stream: Option<SharedBody>,
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
            _ => (Transport::Bare(socket), State::Head),
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
                Err(Refused(status)) => match self.refuse(status, now) {
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
                Ok(Some(Next::Compute))
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

    fn take_head(&mut self, now: Instant) -> Result<Option<Next>, Refused> {
        if self.input.is_empty() {
            return Ok(None);
        }
        let new = self.input.get(self.looked_at..).unwrap_or_default();
        let within = self.input.len() <= self.options.head.bytes;
        if self.looked_at > 0 && within && memchr(b'\n', new).is_none() {
            // Without another line there is nothing to understand: single bytes are to cost little.
            self.looked_at = self.input.len();
            return Ok(None);
        }
        let Parsed::Complete(head) = parse_head(&self.input, &self.options.head)? else {
            self.looked_at = self.input.len();
            return Ok(None);
        };
        self.looked_at = 0;
        if matches!(head.framing, Framing::Length(length) if length > self.options.max_body) {
            return Err(Refused(StatusCode::PAYLOAD_TOO_LARGE));
        }
        consume(&mut self.input, head.consumed);
        match head.framing {
            Framing::Empty => Ok(Some(self.hand_over(*head, None, None))),
            framing => {
                let decoder = BodyDecoder::new(framing);
                let gathering = Gathering { head, decoder, body: Vec::new(), started: now };
                self.deadline = now + self.options.body_allowance(0);
                self.state = State::Body(Box::new(gathering));
                self.take_body()
            }
        }
    }

    fn take_body(&mut self) -> Result<Option<Next>, Refused> {
        let State::Body(gathering) = &mut self.state else { return Ok(None) };
        let limit = self.options.body_buffer;
        let must_stream = match gathering.head.framing {
            Framing::Length(length) => length > limit as u64,
            _ => false,
        };
        if !must_stream {
            let step = gathering.decoder.decode(&self.input, &mut gathering.body, limit)?;
            consume(&mut self.input, step.consumed);
            // Only a chunked body can turn out to be too long; nothing else looks at one that fits the buffer.
            if gathering.body.len() as u64 > self.options.max_body {
                return Err(Refused(StatusCode::PAYLOAD_TOO_LARGE));
            }
        }
        let waits_to_be_told = gathering.head.expect_continue && gathering.body.is_empty();
        let done = gathering.decoder.is_done();
        // What was received and cannot be decoded for want of room shows that the body is too long to hold.
        let full = !self.input.is_empty();
        if !done && !must_stream && !waits_to_be_told && !full {
            let allowed = self.options.body_allowance(gathering.body.len() as u64);
            self.deadline = gathering.started + allowed;
            return Ok(None);
        }
        let State::Body(gathering) = std::mem::replace(&mut self.state, State::Handled) else {
            return Ok(None);
        };
        let Gathering { head, decoder, body, .. } = *gathering;
        if done {
            return Ok(Some(self.hand_over(*head, Some(RequestBody::Bytes(body.into())), None)));
        }
        let length = match head.framing {
            Framing::Length(length) => Some(length),
            _ => None,
        };
        let stream = SharedBody::new(
            self.transport.clone(),
            decoder,
            (std::mem::take(&mut self.input), body),
            head.expect_continue,
            self.options.clone(),
        );
        let body = RequestBody::Stream { reader: Box::new(stream.clone()), length };
        Ok(Some(self.hand_over(*head, Some(body), Some(stream))))
    }

    fn hand_over(
        &mut self,
        head: Head,
        body: Option<RequestBody>,
        stream: Option<SharedBody>,
    ) -> Next {
        self.state = State::Handled;
        let audience = Audience {
            version: head.version,
            head: head.method == Method::HEAD,
            keep_alive: head.keep_alive,
        };
        let mut request = Request::new(head.method, head.target)
            .with_version(head.version)
            .with_headers(head.headers)
            .with_body(body.unwrap_or(RequestBody::Bytes(Bytes::new())));
        #[cfg(feature = "https")]
        if !self.transport.is_bare() {
            request = request.with_scheme(Scheme::Https);
        }
        if let Some(peer) = self.peer {
            request = request.with_remote_addr(peer);
        }
        if !self.options.trusted_proxies.is_empty() {
            request = proxy::apply(request, self.peer, &self.options);
        }
        Next::Handle(Incoming { exchange: Exchange::new(request), audience, stream })
    }

    /// Tells the client that there is no room for it. Whether the connection is to be kept until the client has read
    /// that: closed at once, a request that is on its way would bring back a reset in place of the answer.
    pub(super) fn turn_away(&mut self) -> bool {
        // Before its handshake there is nothing that it would understand.
        #[cfg(feature = "https")]
        if !self.transport.is_bare() {
            return false;
        }
        self.turned_away = self.options.turn_away();
        let refusal = Outgoing::refusal(StatusCode::SERVICE_UNAVAILABLE, false);
        let next = self.answer(refusal);
        self.turned_away.is_some() && !matches!(next, Next::Close)
    }

    /// Takes the connection back from a handler, and says whether another request can follow: not where
    /// part of the body is still to come.
    pub(super) fn reclaim(&mut self, stream: Option<SharedBody>) -> bool {
        let Some(stream) = stream else { return true };
        self.readable = true;
        let behind = stream.close();
        let whole = behind.is_some();
        self.input = behind.unwrap_or_default();
        consume(&mut self.input, 0);
        whole
    }

    /// Takes the answer and sends what the socket takes; for threads that may block.
    pub(super) fn answer(&mut self, mut outgoing: Outgoing) -> Next {
        let sent = outgoing.send(&self.transport);
        self.begin(outgoing, sent)
    }

    /// Takes the answer and sends what is there of it: its body is read later.
    pub(super) fn answer_without_waiting(&mut self, mut outgoing: Outgoing) -> Next {
        let sent = outgoing.flush(&self.transport);
        self.begin(outgoing, sent)
    }

    fn begin(&mut self, outgoing: Outgoing, sent: io::Result<Sent>) -> Next {
        let now = Instant::now();
        if let Ok(Sent::All) = sent {
            return self.all_sent(outgoing.keep_alive, now);
        }
        self.state = State::Sending(Box::new(outgoing));
        self.deadline = now + self.options.write_deadline;
        self.after_sending(sent, now)
    }

    /// Sends more of the answer, reading its body meanwhile.
    pub(super) fn pump(&mut self) -> Next {
        let State::Sending(outgoing) = &mut self.state else { return Next::Wait };
        let sent = outgoing.send(&self.transport);
        let now = Instant::now();
        // Reading the body took some of the time: that is not the client's stall.
        self.deadline = self.deadline.max(now + self.options.write_deadline / 2);
        self.after_sending(sent, now)
    }

    /// Whether the answer is one that may wait for what it sends.
    pub(super) fn may_wait(&self) -> bool {
        matches!(&self.state, State::Sending(outgoing) if outgoing.may_wait())
    }

    fn resume(&mut self, now: Instant) -> Next {
        let State::Sending(outgoing) = &mut self.state else { return Next::Wait };
        let sent = outgoing.flush(&self.transport);
        self.after_sending(sent, now)
    }

    fn after_sending(&mut self, sent: io::Result<Sent>, now: Instant) -> Next {
        let State::Sending(outgoing) = &mut self.state else { return Next::Wait };
        match sent {
            Ok(Sent::All) => {
                let keep_alive = outgoing.keep_alive;
                self.all_sent(keep_alive, now)
            }
            Ok(Sent::Blocked { some }) => {
                // Trying in vain does not prolong a stall.
                if some {
                    self.deadline = now + self.options.write_deadline;
                }
                Next::Wait
            }
            Ok(Sent::NeedsMore) => {
                self.deadline = now + self.options.write_deadline;
                Next::Pump
            }
            Err(_) => Next::Close,
        }
    }

    fn all_sent(&mut self, keep_alive: bool, now: Instant) -> Next {
        if keep_alive {
            self.state = State::Head;
            self.deadline = now
                + match self.input.is_empty() {
                    true => self.options.idle_deadline,
                    false => self.options.head_deadline,
                };
        } else {
            self.linger(now);
        }
        Next::Wait
    }

    /// Sends nothing more, and throws away what still comes.
    pub(super) fn linger(&mut self, now: Instant) {
        self.transport.close_write();
        self.input = Vec::new();
        self.state = State::Lingering(self.options.linger_bytes);
        self.deadline = now + self.options.linger;
        self.readable = true;
    }

    fn refuse(&mut self, status: StatusCode, now: Instant) -> Next {
        let begins = matches!(self.state, State::Head) && self.transport.is_bare();
        if begins && self.input.starts_with(&CLIENT_HELLO) {
            self.options.speaks_tls(self.peer);
        } else {
            log::debug!("refused a request of {:?}: {status}", self.peer);
        }
        if self.options.access_log {
            access::refused(self.peer, status);
        }
        // As far as it can be told of what is no request.
        let head = match &self.state {
            State::Body(gathering) => gathering.head.method == Method::HEAD,
            _ => self.input.strip_prefix(b"\r\n").unwrap_or(&self.input).starts_with(b"HEAD "),
        };
        self.send_refusal(Outgoing::refusal(status, head), now)
    }

    pub(super) fn send_refusal(&mut self, refusal: Outgoing, now: Instant) -> Next {
        self.state = State::Sending(Box::new(refusal));
        self.deadline = now + self.options.write_deadline;
        self.resume(now)
    }

    /// What a deadline that has passed means.
    pub(super) fn expire(&mut self, now: Instant) -> Next {
        match self.state {
            #[cfg(feature = "https")]
            State::Handshake => Next::Close,
            State::Head if self.input.is_empty() => Next::Close,
            State::Head | State::Body(_) => self.refuse(StatusCode::REQUEST_TIMEOUT, now),
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

/// Takes what was understood off the input. What large requests needed, an idle connection must not keep.
fn consume(input: &mut Vec<u8>, count: usize) {
    input.drain(..count);
    if input.is_empty() && input.capacity() > KEPT {
        *input = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::message::response::Response;

    const AUDIENCE: Audience =
        Audience { version: http::Version::HTTP_11, head: false, keep_alive: true };

    fn connected(options: Options) -> (Connection, UnixStream) {
        let (client, server) = UnixStream::pair().unwrap();
        server.set_nonblocking(true).unwrap();
        let socket = Socket::Unix(server);
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
            let Next::Handle(incoming) = connection.advance(&mut scratch, Instant::now()) else {
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
