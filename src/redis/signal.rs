//! What the thread that listens to sentinels waits for: their words, a wake, the time.

#[cfg(not(unix))]
pub(super) use looked_at::{Signal, Watcher};
#[cfg(unix)]
pub(super) use polled::{Signal, Watcher};

/// Waiting for many sockets at once.
#[cfg(unix)]
mod polled {
    use std::io;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use mio::unix::SourceFd;
    use mio::{Events, Interest, Poll, Token, Waker};

    use super::super::transport::Transport;
    use crate::lock::lock;

    const WAKER: Token = Token(usize::MAX);

    /// Wakes the thread that listens.
    #[derive(Clone)]
    pub(in super::super) struct Signal(Arc<Parts>);

    struct Parts {
        waker: Option<Waker>,
        poll: Mutex<Option<Poll>>,
    }

    impl Signal {
        pub(in super::super) fn new() -> Signal {
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
            Signal(Arc::new(Parts { waker, poll: Mutex::new(poll) }))
        }

        pub(in super::super) fn wake(&self) {
            if let Some(waker) = &self.0.waker {
                // It fails where the process is out of memory.
                let _ = waker.wake();
            }
        }

        pub(in super::super) fn watcher(&self) -> Watcher {
            let mut poll = lock(&self.0.poll);
            Watcher { poll: poll.take(), events: Events::with_capacity(16) }
        }
    }

    /// Hears when a sentinel has said something.
    pub(in super::super) struct Watcher {
        poll: Option<Poll>,
        events: Events,
    }

    impl Watcher {
        pub(in super::super) fn watch(
            &mut self,
            number: usize,
            transport: &Transport,
        ) -> io::Result<()> {
            let Some(poll) = &self.poll else { return Ok(()) };
            let fd = transport.fd();
            poll.registry().register(&mut SourceFd(&fd), Token(number), Interest::READABLE)
        }

        /// Waits for what comes first: words of a sentinel, a wake, the time.
        pub(in super::super) fn wait(&mut self, time: Option<Duration>) {
            let polled = self.poll.as_mut().map(|poll| poll.poll(&mut self.events, time));
            let interrupted = |error: &io::Error| error.kind() == io::ErrorKind::Interrupted;
            if polled.is_none_or(|polled| polled.is_err_and(|error| !interrupted(&error))) {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// Where sockets cannot be waited for, they are looked at.
#[cfg(not(unix))]
mod looked_at {
    use std::io;
    use std::time::Duration;

    use super::super::transport::Transport;

    #[derive(Clone)]
    pub(in super::super) struct Signal;

    impl Signal {
        pub(in super::super) fn new() -> Signal {
            Signal
        }

        pub(in super::super) fn wake(&self) {}

        pub(in super::super) fn watcher(&self) -> Watcher {
            Watcher
        }
    }

    pub(in super::super) struct Watcher;

    impl Watcher {
        pub(in super::super) fn watch(&mut self, _: usize, _: &Transport) -> io::Result<()> {
            Ok(())
        }

        pub(in super::super) fn wait(&mut self, _: Option<Duration>) {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
