//! The server for the open internet: blocking handlers, idle connections that cost no thread.
//!
//! Each *event loop* has connections and one worker, which polls them, reads what is ready without blocking, takes
//! the requests that are whole through their stages, and runs their handlers. One loop serves as long as its worker has
//! time left; then there are more, up to one for each core.
//!
//! No loop waits for a store. Where a plugin leaves a request [pending](crate::plugin::Entry::wait) on an operation, the
//! loop sends it over a connection of its own, one pipeline for all that one iteration made ready, and goes on; the
//! replies are one more event. Plugins that [may block](crate::Plugin::may_block) run on other threads, but for what
//! [hardly ever does](crate::Plugin::acquire_rarely_blocks), which runs as handlers do.
//!
//! A worker that waits in one handler for more than a millisecond or two, or computes in it for ten, loses the loop:
//! another one takes the poller and what was not started, so that one slow handler delays nobody. A handler that
//! blocked a moment ago is left to another thread from the start.
//!
//! | limit or deadline | option | default | past it |
//! |---|---|---|---|
//! | bytes of a head | [`max_head`](Native::max_head) | 64 KiB | 431 |
//! | bytes of a target | [`max_target`](Native::max_target) | 8 KiB | 414 |
//! | header fields | [`max_fields`](Native::max_fields) | 100, at most 256 | 431 |
//! | bytes of a body | [`max_body`](Native::max_body) | 1 GiB | 413 |
//! | body held in memory before the handler runs | [`body_buffer`](Native::body_buffer) | 64 KiB | the handler reads from the connection |
//! | connections | [`max_connections`](Native::max_connections) | 16,384 | 503 |
//! | threads in handlers that block | [`max_threads`](Native::max_threads) | 512 | requests wait |
//! | requests that wait for a thread, and streams that do | [`max_queue`](Native::max_queue) | 1,024 each | 503 |
//! | time for a head, and for a TLS handshake before it | [`head_deadline`](Native::head_deadline) | 10 s | 408; closes within the handshake |
//! | rate of a body | [`body_rate`](Native::body_rate) | 1 KiB/s after 10 s | 408; an error for a handler that reads |
//! | time between requests | [`idle_deadline`](Native::idle_deadline) | 75 s | closes |
//! | time in which a client takes nothing of an answer | [`write_deadline`](Native::write_deadline) | 30 s | closes |
//! | time for a client behind a last answer | [`linger`](Native::linger) | 2 s | closes |
//! | bytes that a client may still send behind a last answer | [`linger`](Native::linger) | 1 MiB | are not read |
//! | time for requests on open connections at a shutdown | [`lame_duck`](Native::lame_duck) | 2 s | closes |
//! | time to finish what runs at a shutdown | [`drain_deadline`](Native::drain_deadline) | 30 s | ends |
//!
//! A body that is too large for memory holds a thread for as long as it arrives, however slowly the rate
//! allows. At most half of `max_threads` do; further such requests are answered 503, and the other half is
//! left for those that need not wait for their clients. The body of an answer whose length is not known may wait for
//! what it sends, as events do, and holds a thread meanwhile. One in eight threads is not for these: however many
//! streams wait, handlers and bodies that arrive get on. Streams past that have their heads, and wait for a thread.
//!
//! What each mechanism is for, and what is lost without it. A test that is named fails, or never ends, where the mechanism is
//! taken out. Figures are medians of three rounds with the mechanism and, behind the arrow, without it, over loopback on two
//! cores, which the load generator and other work shared:
//!
//! | mechanism | what it is for | without it |
//! |---|---|---|
//! | more event loops than one | more small requests than one core can serve | requests that compute 1 ms 1,250 → 950 a second |
//! | the autoscaler | one loop while its worker has time left: large batches, and cores for the store | processor time of a session request of 8 connections 29 → 35 µs, p99 1.5 ms → 2.4 ms; of 64 connections p99 of plain requests 4 ms → 57 ms, but session requests a second 25,000 → 32,000 |
//! | hand-off by the monitor | a handler that blocks delays nobody | `slow_handlers_delay_nobody_and_each_gets_a_thread` |
//! | blocking or computing, by `/proc` | a worker that waits for a core is left alone | p99 of plain requests beside 4 handlers that compute 3 ms 16 ms → 207 ms, their median 3.3 ms → 0.8 ms |
//! | hand-off of what computes, after 10 ms | a handler that computes delays others for 10 ms | median of plain requests beside 2 handlers that compute 50 ms 0.5 ms → 100 ms |
//! | marks on handlers that blocked | a second in which such a handler has a thread from the start | plain requests a second beside 8 handlers that sleep 5 ms 24,000 → 2,000, their median 0.25 ms → 3.2 ms |
//! | the queue dealt out at a second hand-off within 20 ms | requests behind several that block start at once | the last of 16 requests to 16 routes that sleep 50 ms is answered after 58 ms → 83 ms |
//! | half of the threads kept from bodies that arrive | slow uploads leave threads for others | `clients_that_send_large_bodies_slowly_leave_threads_for_others` |
//! | an eighth of the threads kept from streams, and their own queue | handlers get on however many streams wait | `however_many_streams_wait_health_checks_quick_requests_and_files_pass` |
//! | lingering behind a last answer | a client that still sends reads its answer | `a_client_past_the_limit_that_goes_on_sending_meets_no_reset` |
//! | connections held unread behind a last answer | the same of a proxy that sends more than is thrown away | `who_sends_a_large_body_through_a_proxy_sees_an_answer_that_was_made_without_reading_it` |
//! | connections past the limit kept until they have read so | a 503 and no reset | of 300 clients that send a request of 1 KB, 300 → 11 read the 503 |
//! | the lame duck at a shutdown | requests on their way over idle connections are answered | of the POSTs of 32 visitors through nginx, 0 → 4 fail at each shutdown |
//! | the monitor's sleep | an idle server uses no processor time | 0 → 900 wake-ups a second, 1.5 % of a core |
//!
//! With feature `https` it speaks TLS itself; see `server::tls`. All of the above holds there as well.
//!
//! What is malformed or ambiguous (RFC 9112) is a 400, an unknown transfer coding or CONNECT a 501, an
//! unknown expectation a 417, another version of HTTP a 505. After each of these the connection closes.

mod access;
mod autoscaler;
mod body;
mod connection;
mod engine;
mod event_loop;
mod event_loops;
mod forwarded;
#[cfg(feature = "https")]
mod handshake;
mod options;
mod outgoing;
mod ownership;
mod poller;
#[cfg(feature = "https")]
mod redirects;
mod run_loop;
#[cfg(feature = "https")]
mod secure;
mod socket;
mod threads;
mod transport;

/// What threads share in [`ownership`], which a model checks with others in their place.
mod sync {
    pub(super) use std::sync::atomic::{AtomicU64, Ordering};
    pub(super) use std::sync::{Mutex, MutexGuard};
}

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use self::connection::Purpose;
use self::engine::Engine;
use self::event_loops::EventLoops;
use self::forwarded::Network;
pub use self::forwarded::ProxyHeaders;
use self::options::{Options, bounded};
use self::socket::Listener;
use super::{ListenAddress, Server, ShutdownHandle, elsewhere};
use crate::Result;
use crate::pipeline::service::Service;

/// The default server; see the [module](self) for how it works and for its limits.
///
/// ```
/// use bottle_session::server::native::Native;
/// use bottle_session::{App, Server, ShutdownHandle};
///
/// let mut app = App::new();
/// app.get("/", || "hello");
/// let server = Native::bind("127.0.0.1:0")?.access_log(true).trusted_proxies(["127.0.0.1"])?;
/// let shutdown = ShutdownHandle::new();
/// # shutdown.shutdown();
/// server.serve(app.build()?, &shutdown)?;
/// # Ok::<(), bottle_session::Error>(())
/// ```
pub struct Native {
    listener: Listener,
    address: ListenAddress,
    elsewhere: String,
    options: Options,
    event_loops: usize,
    #[cfg(feature = "https")]
    secure: secure::Settings,
}

impl Native {
    /// Listens on an address such as `127.0.0.1:8888` (port 0 takes any free one), on a unix socket
    /// (`unix:/run/app.socket`), or on the first socket that systemd passed on (`systemd`; socket
    /// activation, sd_listen_fds(3)).
    ///
    /// Of a unix socket, behind a `?`, `group` and `mode` say who may connect:
    /// `unix:/run/app.socket?group=www-data` for an nginx that runs as `www-data`, where the app's user is a member
    /// of that group. Unless set, the group is the process's and the mode `660`. One that lets everybody connect is
    /// refused.
    ///
    /// Behind `https://` it is an address to serve with TLS (feature `https`). The environment variables `TLS_CERT` and
    /// `TLS_KEY` name the files of the certificate, as `Tls::files` has them. Without them, an
    /// address of this machine only gets a certificate of its own, made for this run (feature `dev-certificate`).
    pub fn bind(address: &str) -> Result<Native> {
        if let Some(bare) = address.strip_prefix("https://") {
            return Native::bind_https(address, bare);
        }
        let mut native = Native::new(Listener::bind(address)?)?;
        native.elsewhere = elsewhere(address, &native.address);
        Ok(native)
    }

    #[cfg(not(feature = "https"))]
    fn bind_https(address: &str, _: &str) -> Result<Native> {
        let text = "this build speaks no TLS; feature https does";
        Err(super::cannot_listen(
            address,
            std::io::Error::new(std::io::ErrorKind::Unsupported, text),
        ))
    }

    /// Serves a listener that is bound already.
    pub fn from_listener(listener: TcpListener) -> Result<Native> {
        Native::new(Listener::of(listener))
    }

    /// Serves a unix socket that is bound already. Its name in the file system stays when the server ends.
    pub fn from_unix_listener(listener: UnixListener) -> Result<Native> {
        Native::new(Listener::of(listener))
    }

    fn new(listener: Listener) -> Result<Native> {
        listener.set_nonblocking()?;
        let address = listener.address()?;
        let event_loops = std::thread::available_parallelism().map_or(2, usize::from);
        let (elsewhere, options) = (String::new(), Options::default());
        Ok(Native {
            listener,
            address,
            elsewhere,
            options,
            event_loops,
            #[cfg(feature = "https")]
            secure: secure::Settings::default(),
        })
    }

    /// How many threads compute at the same time: as many as cores unless set; at least one. It is one
    /// until that one has no time left and a core stands idle.
    #[must_use]
    pub fn active_threads(mut self, count: usize) -> Native {
        self.event_loops = count.max(1);
        self
    }

    /// About how many more threads there may be in handlers that block, and in bodies that wait: 512 unless set. One in
    /// eight is not for streams.
    #[must_use]
    pub fn max_threads(mut self, count: usize) -> Native {
        self.options.max_threads = count.max(1);
        self
    }

    /// How many requests may wait for a thread, and as many streams, before others are answered 503: 1,024 unless set.
    #[must_use]
    pub fn max_queue(mut self, count: usize) -> Native {
        self.options.max_queue = count;
        self
    }

    /// How many connections there may be: 16,384 unless set. Further ones are answered 503.
    #[must_use]
    pub fn max_connections(mut self, count: usize) -> Native {
        self.options.max_connections = count.max(1);
        self
    }

    /// How long a request's head may be: 64 KiB unless set.
    #[must_use]
    pub fn max_head(mut self, bytes: usize) -> Native {
        self.options.head.bytes = bytes;
        self
    }

    /// How long a request's target may be: 8 KiB unless set.
    #[must_use]
    pub fn max_target(mut self, bytes: usize) -> Native {
        self.options.head.target = bytes;
        self
    }

    /// How many header fields a request may have: 100 unless set; never more than 256.
    #[must_use]
    pub fn max_fields(mut self, count: usize) -> Native {
        self.options.head.fields = count;
        self
    }

    /// How long a request's body may be, whatever reads it: 1 GiB unless set. What is read into memory
    /// has its own limit; see [`App::body_limit`](crate::App::body_limit).
    #[must_use]
    pub fn max_body(mut self, bytes: u64) -> Native {
        self.options.max_body = bytes;
        self
    }

    /// How long a body may be to be gathered before its handler runs, so that a slow client holds no
    /// thread: 64 KiB unless set. Longer ones are read by the handler as they arrive.
    #[must_use]
    pub fn body_buffer(mut self, bytes: usize) -> Native {
        self.options.body_buffer = bytes;
        self
    }

    /// How long a client may take for a request's head: 10 s unless set. With TLS, its handshake and its first head
    /// have that time together, from when it was accepted.
    #[must_use]
    pub fn head_deadline(mut self, deadline: Duration) -> Native {
        self.options.head_deadline = bounded(deadline);
        self
    }

    /// How slowly a body may arrive: 1,024 bytes a second on average, once 10 s have passed, unless set.
    #[must_use]
    pub fn body_rate(mut self, bytes_per_second: u64, grace: Duration) -> Native {
        self.options.body_rate = bytes_per_second;
        self.options.body_grace = bounded(grace);
        self
    }

    /// How long a connection may wait for its next request: 75 s unless set.
    #[must_use]
    pub fn idle_deadline(mut self, deadline: Duration) -> Native {
        self.options.idle_deadline = bounded(deadline);
        self
    }

    /// How long a client may take nothing of an answer: 30 s unless set.
    #[must_use]
    pub fn write_deadline(mut self, deadline: Duration) -> Native {
        self.options.write_deadline = bounded(deadline);
        self
    }

    /// How long a client may still send behind the last answer on its connection, and how much of that is read and
    /// thrown away: 2 s and 1 MiB unless set. Closing at once could destroy the answer on its way (RFC 9112 section
    /// 9.6), so where more comes it waits unread, and the connection is closed when the client has gone or the time
    /// is over; at once where a quarter of [`max_connections`](Native::max_connections), or 1,024, wait so.
    #[must_use]
    pub fn linger(mut self, deadline: Duration, bytes: usize) -> Native {
        self.options.linger = bounded(deadline);
        self.options.linger_bytes = bytes;
        self
    }

    /// For how long a server that shuts down still answers what comes on the connections that are open: 2 s unless
    /// set, and no longer than there are any. Each answer says that it is the last one; then what is idle is closed,
    /// and what has not fully arrived. A proxy that has just sent a request on an idle connection would else find it
    /// closed, and could not send a POST again.
    #[must_use]
    pub fn lame_duck(mut self, time: Duration) -> Native {
        self.options.lame_duck = bounded(time);
        self
    }

    /// How long requests that run at a shutdown may go on: 30 s unless set.
    #[must_use]
    pub fn drain_deadline(mut self, deadline: Duration) -> Native {
        self.options.drain_deadline = bounded(deadline);
        self
    }

    /// Proxies whose word on the client counts ([`proxy_headers`](Native::proxy_headers) says which): networks
    /// such as `10.0.0.0/8`, addresses, or `unix` for whoever comes over a unix socket. None unless set: those
    /// headers are anybody's word.
    pub fn trusted_proxies<'a>(
        mut self,
        networks: impl IntoIterator<Item = &'a str>,
    ) -> Result<Native> {
        self.options.trusted_proxies =
            networks.into_iter().map(Network::parse).collect::<Result<_>>()?;
        Ok(self)
    }

    /// The headers in which trusted proxies say who the client is: `X-Forwarded-For`, `-Proto`, `-Host` and
    /// `-Prefix` unless set.
    #[must_use]
    pub fn proxy_headers(mut self, headers: ProxyHeaders) -> Native {
        self.options.proxy_headers = headers;
        self
    }

    /// Whether each request is logged, at level info and target `bottle_session::access`: client, request,
    /// status, bytes of the body, time. Off unless set. Cookies and other headers are never logged; queries
    /// are, with what links carry in them.
    #[must_use]
    pub fn access_log(mut self, on: bool) -> Native {
        self.options.access_log = on;
        self
    }
}

impl Server for Native {
    fn address(&self) -> ListenAddress {
        self.address.clone()
    }

    #[cfg_attr(not(feature = "https"), allow(unused_mut))]
    fn serve(mut self, service: Service, shutdown: &ShutdownHandle) -> Result<()> {
        // Kept until the server has ended: it renews the certificate.
        #[cfg(feature = "https")]
        let _renewal = self.secure.apply(&self.address, &mut self.options)?;
        let _serving = service.serving(&self.address, shutdown);
        let options = Arc::new(self.options);
        let mut listeners = vec![(self.listener, Purpose::App)];
        let (address, elsewhere) = (&self.address, &self.elsewhere);
        log::info!("listens on {address}{elsewhere} with up to {} event loops", self.event_loops);
        #[cfg(feature = "https")]
        for (redirects, address) in self.secure.take_listeners() {
            log::info!("sends on to https from {address}");
            listeners.push((redirects, Purpose::Redirects));
        }
        let event_loops = EventLoops::new(options.clone(), listeners)?;
        let engine = Arc::new(Engine::new(service, options, event_loops, self.event_loops));
        let weak = Arc::downgrade(&engine);
        shutdown.on_change(move |stage| {
            if let Some(engine) = weak.upgrade() {
                engine.enter(stage);
            }
        });
        engine.serve()
    }
}

impl std::fmt::Debug for Native {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Native({})", self.address)
    }
}
