//! Limits and deadlines.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::forwarded::{Network, ProxyHeaders};
#[cfg(feature = "https")]
use super::redirects::Redirects;
use crate::logging::ThrottledLog;
use crate::server::http1::HeadLimits;
#[cfg(feature = "https")]
use crate::server::tls::TlsAcceptor;

/// A century: what is added to a point in time must not overflow.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// How many connections are held unread behind their last answers, and how many beyond the limit, whatever the limit of connections.
const MOST_HELD: usize = 1024;

/// A deadline as it is kept: `Duration::MAX` means that there is none.
pub(super) fn bounded(deadline: Duration) -> Duration {
    deadline.min(LONGEST)
}

/// All that can be set; [`Native`](super::Native) documents each.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) head: HeadLimits,
    pub(super) max_body: u64,
    pub(super) body_buffer: usize,
    pub(super) max_connections: usize,
    pub(super) max_threads: usize,
    pub(super) max_queue: usize,
    pub(super) head_deadline: Duration,
    pub(super) body_rate: u64,
    pub(super) body_grace: Duration,
    pub(super) idle_deadline: Duration,
    pub(super) write_deadline: Duration,
    pub(super) linger: Duration,
    pub(super) linger_bytes: usize,
    pub(super) held: Permits,
    /// Connections beyond the limit, which have been told so and are not yet closed.
    pub(super) turned_away: Permits,
    pub(super) lame_duck: Duration,
    /// Set once what has not fully arrived will not be waited for.
    pub(super) cut_off: Arc<AtomicBool>,
    pub(super) drain_deadline: Duration,
    pub(super) trusted_proxies: Vec<Network>,
    pub(super) proxy_headers: ProxyHeaders,
    pub(super) access_log: bool,
    #[cfg(feature = "https")]
    pub(super) tls: Option<Arc<TlsAcceptor>>,
    #[cfg(feature = "https")]
    pub(super) redirects: Option<Arc<Redirects>>,
    /// Clients that speak TLS where it is not spoken.
    pub(super) speak_tls: Arc<ThrottledLog>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            head: HeadLimits { bytes: 64 * 1024, target: 8 * 1024, fields: 100 },
            max_body: 1024 * 1024 * 1024,
            body_buffer: 64 * 1024,
            max_connections: 16_384,
            max_threads: 512,
            max_queue: 1024,
            head_deadline: Duration::from_secs(10),
            body_rate: 1024,
            body_grace: Duration::from_secs(10),
            idle_deadline: Duration::from_secs(75),
            write_deadline: Duration::from_secs(30),
            linger: Duration::from_secs(2),
            linger_bytes: 1024 * 1024,
            held: Permits::default(),
            turned_away: Permits::default(),
            lame_duck: Duration::from_secs(2),
            cut_off: Arc::default(),
            drain_deadline: Duration::from_secs(30),
            trusted_proxies: Vec::new(),
            proxy_headers: ProxyHeaders::default(),
            access_log: false,
            #[cfg(feature = "https")]
            tls: None,
            #[cfg(feature = "https")]
            redirects: None,
            speak_tls: Arc::default(),
        }
    }
}

impl Options {
    /// How long a body of which this much has arrived may go on since its start.
    pub(super) fn body_allowance(&self, received: u64) -> Duration {
        self.body_grace + Duration::from_secs_f64(received as f64 / self.body_rate.max(1) as f64)
    }

    /// Counts a connection that is held unread behind its last answer, unless there are as many as may be: the others
    /// are for visitors, and each can keep a full buffer of the system's.
    pub(super) fn hold(&self) -> Option<Permit> {
        self.held.acquire(self.most_held())
    }

    /// Counts a connection beyond the limit, unless there are as many as may be.
    pub(super) fn turn_away(&self) -> Option<Permit> {
        self.turned_away.acquire(self.most_held())
    }

    /// Says that a client speaks TLS where it is not spoken.
    pub(super) fn speaks_tls(&self, peer: Option<SocketAddr>) {
        let peer = peer.map_or("unix".to_owned(), |peer| peer.to_string());
        let line = || format!("{peer} speaks TLS to a port that serves plain http");
        self.speak_tls.log_throttled(log::Level::Info, "TLS", line);
    }

    fn most_held(&self) -> usize {
        (self.max_connections / 4).clamp(1, MOST_HELD)
    }

    /// How often deadlines are looked at.
    pub(super) fn tick(&self) -> Duration {
        [self.head_deadline, self.body_grace, self.idle_deadline, self.write_deadline, self.linger]
            .into_iter()
            .min()
            .unwrap_or(self.linger)
            .div_f64(4.0)
            .clamp(Duration::from_millis(5), Duration::from_millis(500))
    }
}

/// How many connections there are of a sort that is bounded by itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Permits(Arc<AtomicUsize>);

/// One of them; it counts until it is dropped.
pub(super) struct Permit(Permits);

impl Permits {
    pub(super) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts one more, unless there are as many as may be.
    pub(super) fn acquire(&self, most: usize) -> Option<Permit> {
        let permit = Permit(self.clone());
        (self.0.fetch_add(1, Ordering::Relaxed) < most).then_some(permit)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}
