//! Channels to remote services, and the requests that wait for operations.

use std::time::Instant;

use mio::unix::SourceFd;
use mio::{Interest, Token};

use super::{CHANNELS, MOST_CHANNELS, Poller};
use crate::pipeline::operation::{Channel, Pending, Remote, Waiting};
use crate::server::native::event_loop::InFlight;

/// A channel to a remote service.
pub(super) struct Watched {
    service: usize,
    pub(super) channel: Box<dyn Channel>,
    /// The number of the socket that is registered.
    socket: Option<u64>,
    /// Whether it has something to do.
    pub(super) ready: bool,
}

/// A request that goes on with its stage.
pub(crate) struct Resumed {
    pub(crate) in_flight: InFlight,
    /// The slot of the plugin that it waited for, and the operation that is over.
    pub(crate) over: Option<(usize, Box<dyn Waiting>)>,
}

impl Poller {
    /// Submits the operations that requests wait for, to be sent before the loop waits again. Those whose service no
    /// channel reaches are in the answer.
    pub(crate) fn submit(&mut self, requests: Vec<InFlight>) -> Vec<InFlight> {
        if requests.is_empty() {
            return requests;
        }
        let now = Instant::now();
        let mut unreachable = Vec::new();
        for (mut exchange, recipient) in requests {
            let Some(remote) = exchange.pending().map(|pending| pending.remote.clone()) else {
                self.resumed.push(Resumed { in_flight: (exchange, recipient), over: None });
                continue;
            };
            let Some(channel) = self.channel(&remote) else {
                unreachable.push((exchange, recipient));
                continue;
            };
            let Some(Pending { slot, waiting, .. }) = exchange.take_pending() else { continue };
            let ticket = self.free_tickets.pop().unwrap_or_else(|| {
                self.waiting.push(None);
                self.waiting.len() - 1
            });
            self.waiting[ticket] = Some(((exchange, recipient), slot));
            let watched = &mut self.channels[channel];
            watched.channel.submit(ticket, waiting, now);
            watched.ready = true;
        }
        unreachable
    }

    /// Submits operations and sends them at once.
    pub(crate) fn send(&mut self, requests: Vec<InFlight>) -> Vec<InFlight> {
        let unreachable = self.submit(requests);
        self.advance_channels(Instant::now());
        unreachable
    }

    /// The channel to a service, if one can reach it.
    pub(super) fn channel(&mut self, remote: &Remote) -> Option<usize> {
        let service = remote.0.identity();
        let known = self.channels.iter().position(|watched| watched.service == service);
        if known.is_some() {
            return known;
        }
        let channel = remote.0.channel(self.wake.clone()?)?;
        let watched = Watched { service, channel, socket: None, ready: false };
        // The number of a channel is its token: one that nobody needs any more leaves its place to another.
        match self.channels.iter().position(|watched| watched.channel.is_forgotten()) {
            Some(number) => {
                self.channels[number] = watched;
                Some(number)
            }
            None if self.channels.len() < MOST_CHANNELS => {
                self.channels.push(watched);
                Some(self.channels.len() - 1)
            }
            None => None,
        }
    }

    /// Lets the channels go on that have something to do, and takes note of the operations that are over.
    pub(super) fn advance_channels(&mut self, now: Instant) {
        for (number, watched) in self.channels.iter_mut().enumerate() {
            let is_due = watched.channel.deadline().is_some_and(|deadline| deadline <= now);
            if !watched.ready && !is_due {
                continue;
            }
            watched.ready = false;
            watched.channel.advance(now, &mut self.over);
            match watched.channel.socket() {
                Some((_, socket)) if watched.socket == Some(socket) => {}
                Some((fd, socket)) => {
                    let both = Interest::READABLE | Interest::WRITABLE;
                    let token = Token(CHANNELS - number);
                    match self.poll.registry().register(&mut SourceFd(&fd), token, both) {
                        Ok(()) => watched.socket = Some(socket),
                        // Its operations end at their deadlines.
                        Err(error) => log::error!("a channel cannot be watched: {error}"),
                    }
                }
                None => watched.socket = None,
            }
        }
        for (ticket, waiting) in self.over.drain(..) {
            let Some((in_flight, slot)) = self.waiting[ticket].take() else { continue };
            self.free_tickets.push(ticket);
            self.resumed.push(Resumed { in_flight, over: Some((slot, waiting)) });
        }
    }
}
