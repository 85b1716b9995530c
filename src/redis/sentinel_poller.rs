//! Polls the sockets of sentinels: the listener thread waits for messages, a wake-up or a time-out.

#[cfg(not(unix))]
pub(super) use by_interval::{ListenerWaker, SentinelPoller};
#[cfg(unix)]
pub(super) use by_poll::{ListenerWaker, SentinelPoller};

/// Waiting for many sockets at once.
#[cfg(unix)]
mod by_poll {
    use std::io;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use mio::unix::SourceFd;
    use mio::{Events, Interest, Poll, Token, Waker};

    use super::super::transport::Transport;
    use crate::lock::lock;

    const WAKER: Token = Token(usize::MAX);

    /// Wakes the listener thread.
    #[derive(Clone)]
    pub(in super::super) struct ListenerWaker(Arc<Parts>);

    struct Parts {
        waker: Option<Waker>,
        poll: Mutex<Option<Poll>>,
    }

    impl ListenerWaker {
        pub(in super::super) fn new() -> ListenerWaker {
            let made = Poll::new().and_then(|poll| Ok((Waker::new(poll.registry(), WAKER)?, poll)));
            let (waker, poll) = match made {
                Ok((waker, poll)) => (Some(waker), Some(poll)),
                Err(error) => {
                    log::error!(
                        "sentinels are looked at every 20 ms, as they cannot be polled: {error}"
                    );
                    (None, None)
                }
            };
            ListenerWaker(Arc::new(Parts { waker, poll: Mutex::new(poll) }))
        }

        pub(in super::super) fn wake(&self) {
            if let Some(waker) = &self.0.waker {
                // It fails where the process is out of memory.
                let _ = waker.wake();
            }
        }

        pub(in super::super) fn poller(&self) -> SentinelPoller {
            let mut poll = lock(&self.0.poll);
            SentinelPoller { poll: poll.take(), events: Events::with_capacity(16) }
        }
    }

    /// Waits for messages of sentinels.
    pub(in super::super) struct SentinelPoller {
        poll: Option<Poll>,
        events: Events,
    }

    impl SentinelPoller {
        pub(in super::super) fn register(
            &mut self,
            number: usize,
            transport: &Transport,
        ) -> io::Result<()> {
            let Some(poll) = &self.poll else { return Ok(()) };
            let fd = transport.fd();
            poll.registry().register(&mut SourceFd(&fd), Token(number), Interest::READABLE)
        }

        /// Waits for a message of a sentinel, a wake-up or the time-out.
        pub(in super::super) fn wait(&mut self, time: Option<Duration>) {
            let polled = self.poll.as_mut().map(|poll| poll.poll(&mut self.events, time));
            let interrupted = |error: &io::Error| error.kind() == io::ErrorKind::Interrupted;
            if polled.is_none_or(|polled| polled.is_err_and(|error| !interrupted(&error))) {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// Without polling, the sockets are checked at intervals.
#[cfg(not(unix))]
mod by_interval {
    use std::io;
    use std::time::Duration;

    use super::super::transport::Transport;

    #[derive(Clone)]
    pub(in super::super) struct ListenerWaker;

    impl ListenerWaker {
        pub(in super::super) fn new() -> ListenerWaker {
            ListenerWaker
        }

        pub(in super::super) fn wake(&self) {}

        pub(in super::super) fn poller(&self) -> SentinelPoller {
            SentinelPoller
        }
    }

    pub(in super::super) struct SentinelPoller;

    impl SentinelPoller {
        pub(in super::super) fn register(&mut self, _: usize, _: &Transport) -> io::Result<()> {
            Ok(())
        }

        pub(in super::super) fn wait(&mut self, _: Option<Duration>) {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
