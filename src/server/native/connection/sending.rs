//! Answers as they leave, and what comes behind the last one.

use std::io;
use std::time::Instant;

use http::{Method, StatusCode};

use super::incoming::consume;
use super::{Connection, Next, State};
use crate::server::native::access;
use crate::server::native::body::SharedBody;
use crate::server::native::outgoing::{Outgoing, Sent};

/// How a client that speaks TLS begins: a record with a handshake message, version 3.x (RFC 8446 section 5.1).
const CLIENT_HELLO: [u8; 2] = [0x16, 0x03];

impl Connection {
    /// Tells the client that there is no room for it. Whether the connection is to be kept until the client has read
    /// that: closed at once, a request that is on its way would bring back a reset in place of the answer.
    pub(in crate::server::native) fn turn_away(&mut self) -> bool {
        // Before its handshake there is nothing that it would understand.
        #[cfg(feature = "https")]
        if !self.transport.is_plain() {
            return false;
        }
        self.turned_away = self.options.turn_away();
        let refusal = Outgoing::refusal(StatusCode::SERVICE_UNAVAILABLE, false);
        let next = self.answer(refusal);
        self.turned_away.is_some() && !matches!(next, Next::Close)
    }

    /// Takes the connection back from a handler, and says whether another request can follow: not where
    /// part of the body is still to come.
    pub(in crate::server::native) fn reclaim(&mut self, stream: Option<SharedBody>) -> bool {
        let Some(stream) = stream else { return true };
        self.readable = true;
        let behind = stream.close();
        let whole = behind.is_some();
        self.input = behind.unwrap_or_default();
        consume(&mut self.input, 0);
        whole
    }

    /// Takes the answer and sends what the socket takes; for threads that may block.
    pub(in crate::server::native) fn answer(&mut self, mut outgoing: Outgoing) -> Next {
        let sent = outgoing.send(&self.transport);
        self.begin(outgoing, sent)
    }

    /// Takes the answer and sends what is there of it: its body is read later.
    pub(in crate::server::native) fn answer_without_waiting(
        &mut self,
        mut outgoing: Outgoing,
    ) -> Next {
        let sent = outgoing.flush(&self.transport);
        self.begin(outgoing, sent)
    }

    pub(super) fn begin(&mut self, outgoing: Outgoing, sent: io::Result<Sent>) -> Next {
        let now = Instant::now();
        if let Ok(Sent::All) = sent {
            return self.all_sent(outgoing.keep_alive, now);
        }
        self.state = State::Sending(Box::new(outgoing));
        self.deadline = now + self.options.write_deadline;
        self.after_sending(sent, now)
    }

    /// Sends more of the answer, reading its body meanwhile.
    pub(in crate::server::native) fn pump(&mut self) -> Next {
        let State::Sending(outgoing) = &mut self.state else { return Next::Wait };
        let sent = outgoing.send(&self.transport);
        let now = Instant::now();
        // Reading the body took some of the time: that is not the client's stall.
        self.deadline = self.deadline.max(now + self.options.write_deadline / 2);
        self.after_sending(sent, now)
    }

    /// Whether the answer is one that may wait for what it sends.
    pub(in crate::server::native) fn may_wait(&self) -> bool {
        matches!(&self.state, State::Sending(outgoing) if outgoing.may_wait())
    }

    pub(super) fn resume(&mut self, now: Instant) -> Next {
        let State::Sending(outgoing) = &mut self.state else { return Next::Wait };
        let sent = outgoing.flush(&self.transport);
        self.after_sending(sent, now)
    }

    pub(super) fn after_sending(&mut self, sent: io::Result<Sent>, now: Instant) -> Next {
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

    pub(super) fn all_sent(&mut self, keep_alive: bool, now: Instant) -> Next {
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
    pub(in crate::server::native) fn linger(&mut self, now: Instant) {
        self.transport.close_write();
        self.input = Vec::new();
        self.state = State::Lingering(self.options.linger_bytes);
        self.deadline = now + self.options.linger;
        self.readable = true;
    }

    pub(super) fn refuse(&mut self, status: StatusCode, now: Instant) -> Next {
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
        self.send_refusal(Outgoing::refusal(status, head), now)
    }

    pub(in crate::server::native) fn send_refusal(
        &mut self,
        refusal: Outgoing,
        now: Instant,
    ) -> Next {
        self.state = State::Sending(Box::new(refusal));
        self.deadline = now + self.options.write_deadline;
        self.resume(now)
    }
}
