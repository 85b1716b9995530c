//! How many requests a visitor may send in a time.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::StatusCode;
use http::header::{self, HeaderName, HeaderValue};

use self::memory::MemoryCounts;
use self::redis::RedisCount;
use self::window::{Counted, Verdict, Window};
use crate::logging::ThrottledLog;
use crate::message::http_error::HttpError;
use crate::message::into_response::IntoResponse;
use crate::message::response::Response;
use crate::message::response_head::ResponseHead;
use crate::pipeline::batch::Batch;
use crate::pipeline::exchange::Exchange;
use crate::pipeline::plugin::{Callback, Installed, Plugin, Provided, Provision};
use crate::pipeline::route::Route;
use crate::redis::RedisPool;
use crate::session::view::Session;
use crate::{Error, ErrorKind, Result};

mod memory;
mod redis;
mod window;

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// Whom a count is of: an address, or a session.
type Key = [u8; 16];

/// Answers 429 with `Retry-After` to whoever sends more requests to its routes than so many in a time, and says on each
/// answer how many are left (`RateLimit` and `RateLimit-Policy`, draft-ietf-httpapi-ratelimit-headers-10).
///
/// | option | unless set |
/// |---|---|
/// | [`per_session`](Self::per_session) | each address is counted; an IPv6 address by its first 64 bits, which is what one household has |
/// | [`redis`](Self::redis) | counted in this process |
/// | [`keyword`](Self::keyword) | `rate_limit`; a second limit on a route needs another one |
///
/// The window slides: of the requests of the window before, as many count as it still overlaps (the estimate is exact where
/// they came evenly). Requests that are refused count as well: who goes on all the same stays out. All routes of the plugin are
/// counted together, and what is no route is not counted.
///
/// Behind a proxy the address is the proxy's, for all visitors together, unless the server
/// [trusts](crate::server::native::Native::trusted_proxies) it. Where the address is not known, over a unix socket from a proxy
/// that is not trusted, nobody is limited, and the log says so.
///
/// ```
/// use std::time::Duration;
/// use bottle_session::{App, RateLimitPlugin};
///
/// let mut app = App::new();
/// let logins = RateLimitPlugin::new(5, Duration::from_secs(60)).keyword("logins");
/// app.post("/login", || "welcome").apply(logins);
/// # app.build()?;
/// # Ok::<(), bottle_session::Error>(())
/// ```
#[derive(Clone)]
pub struct RateLimitPlugin {
    keyword: String,
    window: Window,
    session: Option<String>,
    counts: Counts,
    clock: Arc<dyn Fn() -> SystemTime + Send + Sync>,
    policy: Option<HeaderValue>,
    log: ThrottledLog,
}

#[derive(Clone)]
enum Counts {
    Memory(Arc<MemoryCounts>),
    Redis { pool: RedisPool, prefix: String },
}

/// What takes the plugin's place in a request: nothing that a handler could want.
struct Passed;

impl Provided for Passed {}

impl RateLimitPlugin {
    /// A limit of so many requests, at least one, in a time of at least a second.
    pub fn new(requests: u64, time: Duration) -> RateLimitPlugin {
        RateLimitPlugin {
            keyword: "rate_limit".to_owned(),
            window: Window { limit: requests, length: time },
            session: None,
            counts: Counts::Memory(Arc::default()),
            clock: Arc::new(SystemTime::now),
            policy: None,
            log: ThrottledLog::default(),
        }
    }

    /// Counts the requests of each session of the plugin of this keyword, `session` for one, and not those of each
    /// address, which many may share. Whoever has no session is counted by address: a new one for each request would
    /// be a way around. The routes then load the session.
    ///
    /// A session in which nobody is logged in counts as well, and whoever finds a route without a limit that gives out sessions
    /// gets a new count with each: let that route have a limit, too, and count attempts to log in by address.
    #[must_use]
    pub fn per_session(mut self, keyword: impl Into<String>) -> RateLimitPlugin {
        self.session = Some(keyword.into());
        self
    }

    /// Counts in Redis, for all processes of a site together: one round trip of three commands per request (`INCR`,
    /// `PEXPIRE`, `GET`), together with those of other requests. The keys begin with `rate_limit:`, or what the
    /// [keyword](Self::keyword) is, and expire after twice the time. While Redis does not count, nobody is limited, and the
    /// log says so.
    #[must_use]
    pub fn redis(mut self, pool: RedisPool) -> RateLimitPlugin {
        self.counts = Counts::Redis { pool, prefix: String::new() };
        self
    }

    /// What tells this limit from others: in the answer's headers, in `skip`, and in the keys of Redis.
    #[must_use]
    pub fn keyword(mut self, keyword: impl Into<String>) -> RateLimitPlugin {
        self.keyword = keyword.into();
        self
    }

    /// Asks this clock, so that a test can let time pass; in Redis, its own clock decides.
    #[must_use]
    pub fn with_clock(
        mut self,
        clock: impl Fn() -> SystemTime + Send + Sync + 'static,
    ) -> RateLimitPlugin {
        self.clock = Arc::new(clock);
        self
    }

    fn key_of_address(&self, address: Option<IpAddr>) -> Option<Key> {
        match address {
            Some(IpAddr::V4(v4)) => Some(v4.to_ipv6_mapped().octets()),
            Some(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_some() => Some(v6.octets()),
            Some(IpAddr::V6(v6)) => {
                let mut key = v6.octets();
                key[8..].fill(0);
                Some(key)
            }
            None => {
                self.log.log_throttled(log::Level::Warn, "address", || {
                    let keyword = &self.keyword;
                    format!(
                        "limit {keyword:?} holds for nobody, as their addresses are not known: trust the proxy in front"
                    )
                });
                None
            }
        }
    }

    fn count_in_memory(&self, counts: &MemoryCounts, key: Key) -> Option<Verdict> {
        let at = self.window.at((self.clock)());
        let counted = counts.count(at.index, key);
        if counted.is_none() {
            self.log.log_throttled(log::Level::Warn, "full", || {
                let keyword = &self.keyword;
                format!(
                    "limit {keyword:?} counts as many visitors as it can, and holds for no others"
                )
            });
        }
        counted.map(|counted| self.window.judge(counted, at))
    }

    fn judge_redis(&self, count: RedisCount) -> Option<Verdict> {
        match count.into_counted() {
            Ok((counted, at)) => Some(self.window.judge(counted, at)),
            Err(error) => {
                let error = crate::logging::OneLine(error).to_string();
                self.log.log_throttled(log::Level::Warn, &error, || {
                    format!(
                        "limit {:?} holds for nobody, as Redis does not count: {error}",
                        self.keyword
                    )
                });
                None
            }
        }
    }

    /// Says on the answer what is left; the answer itself, where nothing is.
    fn apply_to(&self, head: &mut ResponseHead, verdict: Option<Verdict>) -> Option<Response> {
        let verdict = verdict?;
        let keyword = &self.keyword;
        let text = format!("\"{keyword}\";r={};t={}", verdict.remaining, verdict.seconds);
        let (Some(policy), Ok(limit)) = (&self.policy, HeaderValue::try_from(text)) else {
            unreachable!("the keyword was looked at when the plugin was installed")
        };
        head.headers_mut().append(POLICY, policy.clone());
        head.headers_mut().append(LIMIT, limit);
        let seconds = verdict.seconds;
        (!verdict.passes).then(|| {
            let plural = if seconds == 1 { "" } else { "s" };
            HttpError::new(StatusCode::TOO_MANY_REQUESTS)
                .with_message(format!("Too many requests. Try again in {seconds} second{plural}."))
                .with_header(header::RETRY_AFTER, seconds)
                .into_response()
        })
    }

    /// Counts a request whose session is there, on the handler's thread.
    fn refuse(&self, session_keyword: &str, exchange: &mut Exchange) -> Option<Response> {
        let session = exchange.provided::<Session>(session_keyword);
        let of_session = session.and_then(|session| {
            let derived = session.id()?.derived(b"bottle-session rate limit\0");
            derived.first_chunk::<16>().copied()
        });
        let address = exchange.request().remote_addr().map(|at| at.ip());
        let key = of_session.or_else(|| self.key_of_address(address))?;
        let verdict = match &self.counts {
            Counts::Memory(counts) => self.count_in_memory(counts, key),
            Counts::Redis { pool, prefix } => {
                let mut count = RedisCount::new(prefix, key, self.window);
                pool.write_remote().run(&mut [&mut count]);
                self.judge_redis(count)
            }
        };
        self.apply_to(exchange.head_mut(), verdict)
    }
}

impl fmt::Debug for RateLimitPlugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Window { limit, length } = self.window;
        write!(f, "RateLimitPlugin({:?}, {limit} in {length:?})", self.keyword)
    }
}

impl Plugin for RateLimitPlugin {
    fn name(&self) -> &str {
        "rate_limit"
    }

    fn provides(&self) -> Option<Provision> {
        Some(Provision::of::<Passed>(&self.keyword))
    }

    fn uses(&self, _: &Route) -> Vec<String> {
        vec![self.session.clone().unwrap_or_else(|| self.keyword.clone())]
    }

    fn setup(&mut self, _: &Installed<'_>) -> Result<()> {
        let (keyword, Window { limit, length }) = (&self.keyword, self.window);
        let refused = |text: &str| {
            Err(Error::new(ErrorKind::Config, format!("rate_limit plugin {keyword:?}: {text}")))
        };
        if limit == 0 || limit > u64::from(u32::MAX) {
            return refused("the limit is a number of requests from 1 to 4294967295");
        }
        if length < Duration::from_secs(1) || length > Duration::from_secs(366 * 24 * 60 * 60) {
            return refused("the time is from a second to a year");
        }
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        if keyword.is_empty() || !keyword.bytes().all(fits) {
            return refused("a keyword that stands in a header is letters, digits and _-.");
        }
        let text = format!("\"{keyword}\";q={limit};w={}", length.as_secs());
        self.policy = HeaderValue::try_from(text).ok();
        if let Counts::Redis { prefix, .. } = &mut self.counts {
            *prefix = format!("{keyword}:{limit}:{}:", length.as_secs());
        }
        Ok(())
    }

    /// With a session the count waits for it: it is on the handler's thread.
    fn apply(&self, callback: Callback, _: &Route) -> Callback {
        let Some(session) = self.session.clone() else { return callback };
        let plugin = self.clone();
        Callback::new(move |exchange| {
            plugin.refuse(&session, exchange).unwrap_or_else(|| callback.call(exchange))
        })
    }

    fn may_block(&self) -> bool {
        false
    }

    fn acquire(&self, batch: &mut Batch<'_>) {
        for mut entry in batch.iter_mut() {
            let _guard = entry.enter_request_id();
            let address = entry.request().remote_addr().map(|at| at.ip());
            let Some(key) = self.key_of_address(address) else {
                entry.put(Passed);
                continue;
            };
            match &self.counts {
                Counts::Memory(counts) => {
                    let verdict = self.count_in_memory(counts, key);
                    match self.apply_to(entry.head_mut(), verdict) {
                        Some(refusal) => entry.refuse(refusal),
                        None => entry.put(Passed),
                    }
                }
                Counts::Redis { pool, prefix } => {
                    let count = RedisCount::new(prefix, key, self.window);
                    let plugin = self.clone();
                    entry.wait(&pool.write_remote(), count, move |count, entry| {
                        let verdict = plugin.judge_redis(count);
                        match plugin.apply_to(entry.head_mut(), verdict) {
                            Some(refusal) => entry.refuse(refusal),
                            None => entry.put(Passed),
                        }
                    });
                }
            }
        }
    }
}

impl From<(u64, u64)> for Counted {
    fn from((before, now): (u64, u64)) -> Counted {
        Counted { before, now }
    }
}
