//! Answers as they leave, and what comes behind the last one.

use std::io;
use std::time::Instant;

use http::{Method, StatusCode};

use super::incoming::consume;
use super::{Connection, Job, Next, State};
use crate::server::native::access;
use crate::server::native::body::SharedBody;
use crate::server::native::outgoing::Outgoing;
use crate::server::native::transport::Sent;

/// How a client that speaks TLS begins: a record with a handshake message, version 3.x (RFC 8446 section 5.1).
const CLIENT_HELLO: [u8; 2] = [0x16, 0x03];

impl Connection {
    /// Tells the client that there is no room for it. Whether the connection is to be kept until the client has read
    /// that: closed at once, a request that is on its way would bring back a reset in place of the answer.
    pub(crate) fn turn_away(&mut self) -> bool {
        // Before its handshake there is nothing that it would understand.
        #[cfg(feature = "https")]
        if !self.transport.is_plain() {
            return false;
        }
        self.turned_away = self.options.turn_away();
        let next = self.answer(Outgoing::refusal(StatusCode::SERVICE_UNAVAILABLE, false, None));
        self.turned_away.is_some() && !matches!(next, Next::Close)
    }

    /// Takes the connection back from a handler, and says whether another request can follow: not where
    /// part of the body is still to come.
    pub(crate) fn reclaim(&mut self, stream: Option<SharedBody>) -> bool {
        let Some(stream) = stream else { return true };
        self.readable = true;
        let behind = stream.close();
        let whole = self.transport.socket().set_nonblocking(true).is_ok() && behind.is_some();
        self.input = behind.unwrap_or_default();
        consume(&mut self.input, 0);
        whole
    }

    /// Takes the answer and sends what the socket takes, reading its body meanwhile; for threads that may block. Of a body
    /// that may wait nothing is read yet: that is a task of its own.
    pub(crate) fn answer(&mut self, mut outgoing: Outgoing) -> Next {
        let sent = match outgoing.may_wait() {
            true => outgoing.flush(&self.transport),
            false => outgoing.send(&self.transport),
        };
        let now = Instant::now();
        if let Ok(Sent::All) = sent {
            return self.all_sent(outgoing.keep_alive, now);
        }
        self.state = State::Sending(Box::new(outgoing));
        self.deadline = now + self.options.write_deadline;
        self.after_sending(sent, now)
    }

    /// Sends more of the answer, reading its body meanwhile.
    pub(crate) fn send_body(&mut self) -> Next {
        let State::Sending(outgoing) = &mut self.state else { return Next::Wait };
        let sent = outgoing.send(&self.transport);
        let now = Instant::now();
        // Reading the body took some of the time: that is not the client's stall.
        self.deadline = self.deadline.max(now + self.options.write_deadline / 2);
        self.after_sending(sent, now)
    }

    /// Whether the answer is one that may wait for what it sends.
    pub(crate) fn may_wait(&self) -> bool {
        matches!(&self.state, State::Sending(outgoing) if outgoing.may_wait())
    }

    pub(super) fn resume(&mut self, now: Instant) -> Next {
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
                Next::Hand(Job::SendBody)
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
    pub(crate) fn linger(&mut self, now: Instant) {
        self.transport.socket().close_write();
        self.input = Vec::new();
        self.state = State::Lingering(self.options.linger_bytes);
        self.deadline = now + self.options.linger;
        self.readable = true;
    }

    pub(super) fn refuse(&mut self, status: StatusCode) -> Next {
        let begins = matches!(self.state, State::Head) && self.transport.is_plain();
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
        self.answer(Outgoing::refusal(status, head, None))
    }
}
