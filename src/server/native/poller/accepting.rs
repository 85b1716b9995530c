//! Listeners, and the connections that they accept.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Token};

use super::{LISTENERS, Poller};
use crate::logging::ThrottledLog;
use crate::server::native::connection::{Connection, Purpose};
use crate::server::native::options::Options;
use crate::server::native::socket::Listener;

/// How long accepting pauses when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How many connections are taken before those that are there are served.
const ACCEPTED_AT_ONCE: usize = 64;

pub(super) struct Listening {
    listener: Listener,
    purpose: Purpose,
    /// When there is something to accept.
    pub(super) accept_at: Option<Instant>,
}

impl Poller {
    pub(crate) fn listen(&mut self, listener: Listener, purpose: Purpose) -> io::Result<()> {
        let (fd, token) = (listener.as_raw_fd(), Token(LISTENERS - self.listeners.len()));
        self.poll.registry().register(&mut SourceFd(&fd), token, Interest::READABLE)?;
        self.listeners.push(Listening { listener, purpose, accept_at: None });
        Ok(())
    }

    pub(super) fn accept(&mut self, now: Instant) {
        for listening in &mut self.listeners {
            if listening.is_due(now) {
                listening.accept(&mut self.accepted, &self.options, &self.paused, now);
            }
        }
    }

    /// Takes the connections that wait to be accepted, and listens no more.
    pub(crate) fn stop_accepting(&mut self) {
        self.closing = true;
        let now = Instant::now();
        for mut listening in self.listeners.drain(..) {
            loop {
                listening.accept(&mut self.accepted, &self.options, &self.paused, now);
                // It is due again at once as long as there are more; later, where there are no file descriptors.
                if listening.accept_at != Some(now) {
                    break;
                }
            }
        }
    }
}

impl Listening {
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.accept_at.is_some_and(|at| at <= now)
    }

    fn accept(
        &mut self,
        accepted: &mut Vec<Connection>,
        options: &Arc<Options>,
        paused: &ThrottledLog,
        now: Instant,
    ) {
        self.accept_at = None;
        for _ in 0..ACCEPTED_AT_ONCE {
            match self.listener.accept() {
                Ok((socket, peer)) => {
                    let options = options.clone();
                    accepted.push(Connection::new(socket, peer, self.purpose, options, now));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    let line = || format!("accepting pauses: {error}");
                    paused.log_throttled(log::Level::Error, &error.to_string(), line);
                    self.accept_at = Some(now + ACCEPT_PAUSE);
                    return;
                }
            }
        }
        self.accept_at = Some(now);
    }
}

/// Whether the next `accept` can do better.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::*;
    [ConnectionAborted, ConnectionReset, ConnectionRefused, Interrupted].contains(&error.kind())
}
