//! The options of the session plugin.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::context::SessionContext;
use super::cookie::CookieSettings;
use super::events::{Counters, Events};
use super::store::redis::Layout;
use super::store::{Caps, SessionStore};
use crate::Error;
use crate::message::cookies::SameSite;
use crate::redis::{RedisConfig, RedisPool};

/// Provides a [`Session`](crate::Session) to the handlers that ask for one.
///
/// Names and defaults of the first options are those of Python's bottle-session 1.0:
///
/// | option | default | |
/// |---|---|---|
/// | [`host`](Self::host), [`port`](Self::port), [`db`](Self::db) | `localhost`, 6379, 0 | where Redis is |
/// | [`password`](Self::password), [`username`](Self::username) | none | for Redis |
/// | [`redis`](Self::redis) | | all of Redis in one value |
/// | [`cookie_name`](Self::cookie_name) | `bottle.session` | |
/// | [`cookie_lifetime`](Self::cookie_lifetime) | 300 s | the idle limit; `None`: until the browser ends, 7 days in the store |
/// | [`cookie_secure`](Self::cookie_secure) | over https | |
/// | [`cookie_httponly`](Self::cookie_httponly) | false | |
/// | [`keyword`](Self::keyword) | `session` | the argument's name in [`named!`](crate::named) |
/// | [`url`](Self::url), [`pool`](Self::pool), [`store`](Self::store), [`file`](Self::file), [`in_memory`](Self::in_memory) | | other ways to say where |
/// | [`cookie_path`](Self::cookie_path), [`cookie_domain`](Self::cookie_domain), [`cookie_same_site`](Self::cookie_same_site), [`cookie_partitioned`](Self::cookie_partitioned) | `/`, none, Lax, false | |
/// | [`max_age`](Self::max_age) | none | the absolute limit |
/// | [`key_prefix`](Self::key_prefix), [`layout`](Self::layout), [`migrate_from`](Self::migrate_from) | the cookie's name and `:`, [`Layout::Default`], none | the records in Redis |
/// | [`max_bytes`](Self::max_bytes), [`max_fields`](Self::max_fields) | 64 KiB, 256 | the largest session |
/// | [`anonymous_lifetime`](Self::anonymous_lifetime) | none | of sessions in which nobody is logged in |
/// | [`renew_every`](Self::renew_every) | none | for how long a session keeps its id |
/// | `sealed` (feature `sealed`) | | the store cannot read what sessions hold |
/// | [`max_sessions_per_user`](Self::max_sessions_per_user), [`keep_addresses`](Self::keep_addresses) | none, true | of users who [log in](crate::Session::log_in) |
/// | [`connect_timeout`](Self::connect_timeout), [`operation_timeout`](Self::operation_timeout), [`pool_size`](Self::pool_size) | 1 s, 500 ms, 16 | deadlines of Redis |
/// | [`replicas`](Self::replicas), [`max_connection_age`](Self::max_connection_age) | 0, none | for a Redis that fails over |
/// | [`events`](Self::events) | [`LogEvents`](crate::LogEvents) | who hears what happens |
pub struct SessionPlugin {
    pub(super) keyword: String,
    pub(super) backend: Backend,
    pub(super) redis: RedisConfig,
    pub(super) redis_was_set: bool,
    pub(super) layout: Option<Layout>,
    pub(super) migrate_from: Option<Layout>,
    pub(super) key_prefix: Option<String>,
    pub(super) cookie: CookieSettings,
    pub(super) lifetime: Option<Duration>,
    pub(super) max_age: Option<Duration>,
    pub(super) hardened: bool,
    pub(super) caps: Caps,
    pub(super) anonymous: Option<Duration>,
    pub(super) most_sessions: Option<usize>,
    pub(super) renew_every: Option<Duration>,
    pub(super) seals: bool,
    pub(super) keeps_addresses: bool,
    pub(super) events: Option<Box<dyn Events>>,
    pub(super) counters: Counters,
    /// The first option that could not work; told at install, when there is somebody to tell.
    pub(super) refused: Option<Error>,
    pub(super) context: OnceLock<Arc<SessionContext>>,
    /// Whether there is nothing more to say of who can see the cookie.
    pub(super) exposure_logged: AtomicBool,
}

pub(super) enum Backend {
    Redis,
    Pool(RedisPool),
    Store(Arc<dyn SessionStore>),
    File(PathBuf),
    Memory,
}

impl SessionPlugin {
    /// A plugin with the default options: Redis on localhost, a cookie of 300 seconds.
    pub fn new() -> SessionPlugin {
        SessionPlugin {
            keyword: "session".to_owned(),
            backend: Backend::Redis,
            redis: RedisConfig::default(),
            redis_was_set: false,
            layout: None,
            migrate_from: None,
            key_prefix: None,
            cookie: CookieSettings::default(),
            lifetime: Some(Duration::from_secs(300)),
            max_age: None,
            hardened: false,
            caps: Caps::default(),
            anonymous: None,
            renew_every: None,
            most_sessions: None,
            seals: false,
            keeps_addresses: true,
            events: None,
            counters: Counters::default(),
            refused: None,
            context: OnceLock::new(),
            exposure_logged: AtomicBool::new(false),
        }
    }

    fn change_redis(mut self, change: impl FnOnce(RedisConfig) -> RedisConfig) -> SessionPlugin {
        self.redis = change(self.redis);
        self.redis_was_set = true;
        self
    }

    /// Where Redis is and how it is reached, in one value: for what has no option here, such as
    /// [credentials](RedisConfig::credentials) that change. It replaces what was said of Redis before; `host`, `port` and
    /// the like change it further.
    ///
    /// ```no_run
    /// use bottle_session::{RedisConfig, SessionPlugin};
    ///
    /// let redis = RedisConfig::default().host("sessions.internal").db(2);
    /// let plugin = SessionPlugin::new().redis(redis);
    /// ```
    #[must_use]
    pub fn redis(self, config: RedisConfig) -> SessionPlugin {
        self.change_redis(|_| config)
    }

    /// The host of the Redis server: `localhost` unless set.
    #[must_use]
    pub fn host(self, host: impl Into<String>) -> SessionPlugin {
        self.change_redis(|redis| redis.host(host))
    }

    /// The port of the Redis server: 6379 unless set.
    #[must_use]
    pub fn port(self, port: u16) -> SessionPlugin {
        self.change_redis(|redis| redis.port(port))
    }

    /// The number of the Redis database: 0 unless set.
    #[must_use]
    pub fn db(self, db: i64) -> SessionPlugin {
        self.change_redis(|redis| redis.db(db))
    }

    /// The Redis user (ACL, Redis 6 and later): none unless set.
    #[must_use]
    pub fn username(self, username: impl Into<String>) -> SessionPlugin {
        self.change_redis(|redis| redis.username(username))
    }

    /// The Redis password: none unless set.
    #[must_use]
    pub fn password(self, password: impl Into<String>) -> SessionPlugin {
        self.change_redis(|redis| redis.password(password))
    }

    /// How long connecting to Redis may take: 1 s unless set.
    #[must_use]
    pub fn connect_timeout(self, timeout: Duration) -> SessionPlugin {
        self.change_redis(|redis| redis.connect_timeout(timeout))
    }

    /// How long a load or save may take: 500 ms unless set.
    #[must_use]
    pub fn operation_timeout(self, timeout: Duration) -> SessionPlugin {
        self.change_redis(|redis| redis.operation_timeout(timeout))
    }

    /// How many replicas of Redis must have a save before it counts: 0 unless set; see [`RedisConfig::replicas`].
    #[must_use]
    pub fn replicas(self, replicas: u32) -> SessionPlugin {
        self.change_redis(|redis| redis.replicas(replicas))
    }

    /// After how long a connection to Redis is renewed: never unless set; see [`RedisConfig::max_connection_age`].
    #[must_use]
    pub fn max_connection_age(self, age: impl Into<Option<Duration>>) -> SessionPlugin {
        self.change_redis(|redis| redis.max_connection_age(age))
    }

    /// How many connections to Redis there may be: 16 unless set. As many as the server has workers.
    #[must_use]
    pub fn pool_size(self, connections: u32) -> SessionPlugin {
        self.change_redis(|redis| redis.pool_size(connections))
    }

    /// Where Redis is, as `redis://user:password@host:port/db`, `rediss://…` (feature `rustls`) or
    /// `unix:///path?db=0`. What it does not say stays as it is.
    #[must_use]
    pub fn url(mut self, url: &str) -> SessionPlugin {
        match self.redis.clone().url(url) {
            Ok(config) => self.redis(config),
            Err(error) => {
                self.refused.get_or_insert(error);
                self
            }
        }
    }

    /// Shares a pool with the rest of the app.
    #[must_use]
    pub fn pool(mut self, pool: RedisPool) -> SessionPlugin {
        self.backend = Backend::Pool(pool);
        self
    }

    /// Keeps sessions in another store.
    #[must_use]
    pub fn store(mut self, store: impl SessionStore) -> SessionPlugin {
        self.backend = Backend::Store(Arc::new(store));
        self
    }

    /// Keeps sessions in this file, for an app on one machine that has no Redis: they survive a restart, `kill -9` and a
    /// power cut. Needs the feature `sqlite`, which the error names at install where it is missing. What else can be
    /// said of the file is said with [`store`](Self::store) and a `SqliteStore`.
    ///
    /// ```no_run
    /// # use bottle_session::{App, SessionPlugin};
    /// # let mut app = App::new();
    /// app.install(SessionPlugin::new().file("sessions.db"))?;
    /// # Ok::<(), bottle_session::Error>(())
    /// ```
    #[must_use]
    pub fn file(mut self, path: impl Into<PathBuf>) -> SessionPlugin {
        self.backend = Backend::File(path.into());
        self
    }

    /// Keeps sessions in this process's memory: gone when it ends, shared with nobody.
    #[must_use]
    pub fn in_memory(mut self) -> SessionPlugin {
        self.backend = Backend::Memory;
        self
    }

    /// How sessions are written in Redis: [`Layout::Default`] unless set.
    #[must_use]
    pub fn layout(mut self, layout: Layout) -> SessionPlugin {
        self.layout = Some(layout);
        self
    }

    /// Takes over the live sessions of another layout, for an app that leaves Python's bottle-session; see
    /// [`RedisStore::migrate_from`](crate::RedisStore::migrate_from). The former cookie is found as long as the name is the same, which
    /// [`hardened`](Self::hardened) changes: these two do not go together.
    #[must_use]
    pub fn migrate_from(mut self, former: Layout) -> SessionPlugin {
        self.migrate_from = Some(former);
        self
    }

    /// What the keys of the default layout start with: the name of the cookie and a colon unless set,
    /// `bottle.session:` for one, so that an id from one cookie opens nothing in another, also where their sessions
    /// are in the same Redis. In a [`file`](Self::file) it goes into the keys, which do not show it.
    #[must_use]
    pub fn key_prefix(mut self, prefix: impl Into<String>) -> SessionPlugin {
        self.key_prefix = Some(prefix.into());
        self
    }

    /// The name of the cookie: `bottle.session` unless set.
    #[must_use]
    pub fn cookie_name(mut self, name: impl Into<String>) -> SessionPlugin {
        self.cookie.name = name.into();
        self
    }

    /// How long a session lives without requests, and its cookie with it: 300 s unless set. `None` makes a
    /// cookie that ends with the browser; the store then keeps the session for 7 days without requests.
    ///
    /// The store's clock decides. The time starts anew, and the cookie is sent, when the session is created or gets a new
    /// id, and with the first request after a tenth of the lifetime has passed. Record and cookie live a tenth longer, so that nobody is logged out early; but no cookie
    /// is to be kept for more than 400 days, which browsers do not, and one for more than 300 is sent anew after 30.
    #[must_use]
    pub fn cookie_lifetime(mut self, lifetime: impl Into<Option<Duration>>) -> SessionPlugin {
        self.lifetime = lifetime.into();
        self
    }

    /// Whether the browser sends the cookie over https only. Unless set, it does where the visitor came over https:
    /// the server itself speaks TLS, or a trusted proxy says so.
    #[must_use]
    pub fn cookie_secure(mut self, secure: bool) -> SessionPlugin {
        self.cookie.secure = Some(secure);
        self
    }

    /// Whether scripts in the page cannot see the cookie: false unless set.
    #[must_use]
    pub fn cookie_httponly(mut self, http_only: bool) -> SessionPlugin {
        self.cookie.http_only = http_only;
        self
    }

    /// The paths for which the browser sends the cookie: `/` unless set.
    #[must_use]
    pub fn cookie_path(mut self, path: impl Into<String>) -> SessionPlugin {
        self.cookie.path = path.into();
        self
    }

    /// The domain for which the browser sends the cookie: none unless set, which is this host alone.
    #[must_use]
    pub fn cookie_domain(mut self, domain: impl Into<String>) -> SessionPlugin {
        self.cookie.domain = Some(domain.into());
        self
    }

    /// On which requests from other sites the browser sends the cookie: Lax unless set.
    #[must_use]
    pub fn cookie_same_site(mut self, same_site: SameSite) -> SessionPlugin {
        self.cookie.same_site = same_site;
        self
    }

    /// Whether the cookie is kept apart for each site that embeds this one (CHIPS): false unless set.
    #[must_use]
    pub fn cookie_partitioned(mut self, partitioned: bool) -> SessionPlugin {
        self.cookie.partitioned = partitioned;
        self
    }

    /// The name under which [`named!`](crate::named) handlers ask for the session: `session` unless set.
    #[must_use]
    pub fn keyword(mut self, keyword: impl Into<String>) -> SessionPlugin {
        self.keyword = keyword.into();
        self
    }

    /// The absolute limit: a session ends this long after its creation, however busy it is. None unless
    /// set.
    #[must_use]
    pub fn max_age(mut self, max_age: impl Into<Option<Duration>>) -> SessionPlugin {
        self.max_age = max_age.into();
        self
    }

    /// How large a session may become, in bytes of keys and values: 64 KiB unless set. A [`store`](Self::store)
    /// that is given has caps of its own, which hold as well.
    #[must_use]
    pub fn max_bytes(mut self, bytes: usize) -> SessionPlugin {
        self.caps.bytes = bytes;
        self
    }

    /// How many keys a session may have: 256 unless set. A [`store`](Self::store) that is given has caps of its
    /// own, which hold as well.
    #[must_use]
    pub fn max_fields(mut self, fields: usize) -> SessionPlugin {
        self.caps.fields = fields;
        self
    }

    /// The idle limit of a session until somebody [logs in](crate::Session::log_in) there: that of all others unless set. A bot
    /// that takes no cookies makes a session with each request that gets a CSRF token or a flash; with a limit of a few
    /// minutes they are gone again soon. [`Counts::anonymous`](crate::Counts::anonymous) tells how many were made.
    ///
    /// From the login on the session has the [`cookie_lifetime`](Self::cookie_lifetime). One that is
    /// [remembered](crate::Session::remember) lives for as long as that says, logged in or not. It holds for sessions made from now
    /// on. Refused at install in a store that [keeps no logins](SessionStore::keeps_logins).
    #[must_use]
    pub fn anonymous_lifetime(mut self, lifetime: impl Into<Option<Duration>>) -> SessionPlugin {
        self.anonymous = lifetime.into();
        self
    }

    /// Seals the values of sessions: the store keeps them encrypted and authenticated (XChaCha20-Poly1305), and the key lies beside
    /// them under one that is made of the session's id, which only its visitor has. A dump of Redis, a backup or a copy of the file
    /// shows no value, and there is no key to manage, to rotate or to lose. Off unless set; needs the feature `sealed`.
    ///
    /// What can still be seen: names of fields, about how long each value is, when the session was made and used, and who is
    /// [logged in](crate::Session::log_in) and where. This protects against who reads the store, not against who writes it: who does can
    /// remove fields, or put back a whole record of an earlier time. A value that was changed, moved to another field or
    /// taken from another session makes its session none, and is an [`Event::Damaged`](crate::Event::Damaged). Without the cookie
    /// nobody reads a session: no admin tool, and not this app outside of a request.
    ///
    /// Sessions that are there go on: each is sealed before it is next saved, once in its life, with one more round trip. Before
    /// that, all processes must have this version of the program with the feature, as others take sealed values for
    /// what they look like: deploy the feature first and the option later. A program with the feature, but without the option, reads sealed sessions and
    /// leaves them so. [`log_in`](crate::Session::log_in) makes a new key, so that who knew the former id does not
    /// read what is set from then on.
    ///
    /// Each field costs about two microseconds of this machine when it is loaded, and when it is saved; [`incr`](crate::Session::incr)
    /// is two round trips, and more while others add to the same number. The caps count values as they are; a store of the plugin's own
    /// has room for what they are sealed, a third and 55 bytes longer each, but with a [`store`](Self::store) that is given the caps are so much lower that
    /// it fits. Refused at install in a store that cannot
    /// [compare and set](SessionStore::can_compare_and_set), such as [`Layout::BottleSession`].
    ///
    /// ```
    /// use bottle_session::{App, Session, SessionPlugin, TestClient};
    ///
    /// let mut app = App::new();
    /// app.install(SessionPlugin::new().in_memory().sealed())?;
    /// app.get("/set", |session: &mut Session| session.set("card", "4111 1111 1111 1111"));
    /// app.get("/", |session: &mut Session| session.get("card").unwrap_or("none").to_owned());
    ///
    /// let client = TestClient::new(app)?;
    /// client.get("/set").send();
    /// assert_eq!(client.get("/").send().text(), "4111 1111 1111 1111");
    /// # Ok::<(), bottle_session::Error>(())
    /// ```
    #[cfg(feature = "sealed")]
    #[cfg_attr(docsrs, doc(cfg(feature = "sealed")))]
    #[must_use]
    pub fn sealed(mut self) -> SessionPlugin {
        self.seals = true;
        self
    }

    /// In how many sessions a user may be [logged in](crate::Session::log_in) at the same time: any number unless set. A
    /// login beyond that ends the oldest one. Two logins at the same moment may each not see the other; the next one
    /// ends all that are too many. At least 1; refused at install in a store that
    /// [keeps no logins](SessionStore::keeps_logins).
    #[must_use]
    pub fn max_sessions_per_user(mut self, sessions: usize) -> SessionPlugin {
        self.most_sessions = Some(sessions.max(1));
        self
    }

    /// Gives each session a new id once it has had its present one for so long (OWASP Session Management Cheat Sheet, "Renewal
    /// Timeout"). A copy of an id that comes into the wrong hands later than that opens nothing any more, and tells that
    /// it was copied. One that is used at once goes on with the session as its visitor does, until they log out. None
    /// unless set; each session keeps its id then until somebody [logs in](crate::Session::log_in).
    ///
    /// Nobody is logged out by an answer that gets lost on its way: until the new id has been presented once, the old one is good
    /// as well, and each answer to it carries the new one. After that first use the old id is good for ten seconds more, for
    /// requests that are under way; whoever presents it within the hour after these is an
    /// [`Event::IdPastGrace`](crate::Event::IdPastGrace). Tokens in open forms stay valid.
    /// [`regenerate`](crate::Session::regenerate), [`log_in`](crate::Session::log_in) and
    /// [`destroy`](crate::Session::destroy) have no such grace.
    ///
    /// The end of a request whose session is due does it, in the place of its save; where a user is logged in, the index of the
    /// user's sessions takes two round trips more. The first request with the new id takes two short saves, and each with the
    /// old one a second load and a save. The session has up to four fields of the plugin's own, which count towards the
    /// caps. A few minutes are as short as makes sense. An error at install in a store that
    /// [keeps no tombstones](SessionStore::keeps_tombstones), such as [`Layout::BottleSession`].
    ///
    /// ```
    /// use bottle_session::SessionPlugin;
    /// use std::time::Duration;
    ///
    /// let plugin = SessionPlugin::new()
    ///     .cookie_lifetime(Duration::from_secs(30 * 24 * 3600))
    ///     .renew_every(Duration::from_secs(3600));
    /// # let _ = plugin;
    /// ```
    #[must_use]
    pub fn renew_every(mut self, time: impl Into<Option<Duration>>) -> SessionPlugin {
        self.renew_every = time.into();
        self
    }

    /// Whether a login keeps the address that it came from, shortened to the network, for the
    /// [list of devices](crate::Session::devices): true unless set. Behind a proxy it is the visitor's as far as the
    /// server [trusts the proxy](crate::Request::remote_addr).
    #[must_use]
    pub fn keep_addresses(mut self, keep: bool) -> SessionPlugin {
        self.keeps_addresses = keep;
        self
    }

    /// Who hears what happens to sessions; [`LogEvents`](crate::LogEvents) unless set.
    #[must_use]
    pub fn events(mut self, events: impl Events) -> SessionPlugin {
        self.events = Some(Box::new(events));
        self
    }

    /// The plugin's counters; they count on after it is installed.
    pub fn counters(&self) -> Counters {
        self.counters.clone()
    }

    /// The strictest settings that fit a site of its own behind TLS: a `__Host-` name, Secure, HttpOnly,
    /// and an absolute limit of 12 hours unless one is set; wherever it stands among the options (OWASP Session Management Cheat Sheet; NIST SP
    /// 800-63B section 7.2).
    #[must_use]
    pub fn hardened(mut self) -> SessionPlugin {
        self.hardened = true;
        self
    }
}

impl Default for SessionPlugin {
    fn default() -> SessionPlugin {
        SessionPlugin::new()
    }
}

impl fmt::Debug for SessionPlugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionPlugin")
            .field("keyword", &self.keyword)
            .field("cookie", &self.cookie)
            .finish_non_exhaustive()
    }
}
