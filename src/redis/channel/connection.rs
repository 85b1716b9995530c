//! A connection of an event loop: bytes out and in, as far as the socket takes and has them.

use std::io::{ErrorKind as IoErrorKind, Read, Write};
use std::time::{Instant, SystemTime};

use crate::pipeline::operation::RemoteClock;
use crate::redis::transport::Transport;

/// How much is read at a time, and how large a buffer an idle connection keeps.
pub(super) const READ: usize = 64 * 1024;

/// A connection that has been made and introduced.
pub(in crate::redis) struct Connected {
    pub(in crate::redis) transport: Transport,
    pub(in crate::redis) clock: Option<RemoteClock>,
    pub(in crate::redis) generation: u64,
    /// When another one is to take its place.
    pub(super) renew_at: Option<Instant>,
    pub(super) out: Vec<u8>,
    pub(super) sent: usize,
    /// What has been received and not understood is the first `filled` bytes; the rest is room.
    pub(super) received: Vec<u8>,
    pub(super) filled: usize,
    /// Whether the socket may have more to read, or take more.
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// Whether the server sends no more: everything is read up to the end then, as no other event tells.
    pub(super) ended: bool,
    /// Whether anything has been answered over it, and when that was the last time.
    pub(super) used: bool,
    pub(super) answered: Instant,
}

impl Connected {
    pub(in crate::redis) fn new(
        transport: Transport,
        clock: Option<RemoteClock>,
        generation: u64,
        renew_at: Option<Instant>,
    ) -> Connected {
        Connected {
            transport,
            clock,
            generation,
            renew_at,
            out: Vec::new(),
            sent: 0,
            received: Vec::new(),
            filled: 0,
            readable: true,
            writable: true,
            ended: false,
            used: false,
            answered: Instant::now(),
        }
    }

    pub(super) fn now(&self, now: Instant) -> SystemTime {
        self.clock.map_or_else(SystemTime::now, |clock| clock.now(now))
    }

    /// Sends what the socket takes.
    pub(super) fn send(&mut self) -> std::io::Result<()> {
        while self.writable && self.sent < self.out.len() {
            match self.transport.write(&self.out[self.sent..]) {
                Ok(0) => return Err(IoErrorKind::WriteZero.into()),
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == IoErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == IoErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.sent == self.out.len() {
            self.out.clear();
            self.out.shrink_to(READ);
            self.sent = 0;
        }
        // TLS may hold some of it back.
        match self.transport.flush() {
            Err(error) if error.kind() == IoErrorKind::WouldBlock => self.writable = false,
            flushed => flushed?,
        }
        Ok(())
    }

    /// Receives what is there.
    pub(super) fn receive(&mut self) -> std::io::Result<()> {
        while self.readable {
            if self.received.len() < self.filled + READ / 2 {
                self.received.resize(self.filled + READ, 0);
            }
            let room = &mut self.received[self.filled..];
            let size = room.len();
            match self.transport.read(room) {
                Ok(0) => return Err(IoErrorKind::UnexpectedEof.into()),
                // A read that does not fill the buffer has emptied the socket; what TLS has decrypted comes record by
                // record.
                Ok(count) => {
                    self.filled += count;
                    self.readable = count == size || self.ended || self.transport.is_tls();
                }
                Err(error) if error.kind() == IoErrorKind::WouldBlock => self.readable = false,
                Err(error) if error.kind() == IoErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
