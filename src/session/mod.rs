//! Sessions: the plugin and its options.

mod atomic;
mod context;
pub(crate) mod cookie;
pub(crate) mod csrf;
pub(crate) mod events;
pub(crate) mod flash;
mod forms;
pub(crate) mod id;
mod saving;
pub(crate) mod store;
pub(crate) mod view;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use smallvec::SmallVec;

use self::context::SessionContext;
use self::cookie::CookieSettings;
use self::events::{Counters, Event, Events, LogEvents};
use self::id::IdGenerator;
use self::saving::Pending;
use self::store::memory::MemoryStore;
use self::store::redis::{Layout, RedisStore};
use self::store::{Caps, Lifetimes, PipelinedStore, SessionStore};
use self::view::Session;
use crate::logging::{OneLine, Recurring};
use crate::message::address::{ListenAddress, is_public};
use crate::message::cookies::SameSite;
use crate::message::request::Scheme;
use crate::pipeline::plugin::{Batch, Callback, Installed, Plugin, Provision, Route};
use crate::redis::{RedisConfig, RedisPool};
use crate::{Error, ErrorKind, Result};

/// How long the store keeps a session whose cookie ends with the browser: 7 days, as in bottle-session.
const BROWSER_SESSION: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The absolute limit of a hardened session unless another is set.
const HARDENED_MAX_AGE: Duration = Duration::from_secs(12 * 60 * 60);

/// Provides a [`Session`] to the handlers that ask for one.
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
/// | [`url`](Self::url), [`pool`](Self::pool), [`store`](Self::store), [`in_memory`](Self::in_memory) | | other ways to say where |
/// | [`cookie_path`](Self::cookie_path), [`cookie_domain`](Self::cookie_domain), [`cookie_same_site`](Self::cookie_same_site), [`cookie_partitioned`](Self::cookie_partitioned) | `/`, none, Lax, false | |
/// | [`max_age`](Self::max_age) | none | the absolute limit |
/// | [`key_prefix`](Self::key_prefix), [`layout`](Self::layout), [`migrate_from`](Self::migrate_from) | the cookie's name and `:`, [`Layout::Default`], none | the records in Redis |
/// | [`max_bytes`](Self::max_bytes), [`max_fields`](Self::max_fields) | 64 KiB, 256 | the largest session |
/// | [`connect_timeout`](Self::connect_timeout), [`operation_timeout`](Self::operation_timeout), [`pool_size`](Self::pool_size) | 1 s, 500 ms, 16 | deadlines of Redis |
/// | [`replicas`](Self::replicas), [`max_connection_age`](Self::max_connection_age) | 0, none | for a Redis that fails over |
/// | [`events`](Self::events) | [`LogEvents`] | who hears what happens |
pub struct SessionPlugin {
    keyword: String,
    backend: Backend,
    redis: RedisConfig,
    redis_was_set: bool,
    layout: Option<Layout>,
    migrate_from: Option<Layout>,
    key_prefix: Option<String>,
    cookie: CookieSettings,
    lifetime: Option<Duration>,
    max_age: Option<Duration>,
    hardened: bool,
    caps: Caps,
    events: Option<Box<dyn Events>>,
    counters: Counters,
    /// The first option that could not work; told at install, when there is somebody to tell.
    refused: Option<Error>,
    context: OnceLock<Arc<SessionContext>>,
    /// Whether there is nothing more to say of who can see the cookie.
    told: AtomicBool,
}

enum Backend {
    Redis,
    Pool(RedisPool),
    Store(Arc<dyn SessionStore>),
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
            events: None,
            counters: Counters::default(),
            refused: None,
            context: OnceLock::new(),
            told: AtomicBool::new(false),
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
    /// [`RedisStore::migrate_from`]. The former cookie is found as long as the name is the same, which
    /// [`hardened`](Self::hardened) changes: these two do not go together.
    #[must_use]
    pub fn migrate_from(mut self, former: Layout) -> SessionPlugin {
        self.migrate_from = Some(former);
        self
    }

    /// What the keys of the default layout start with: the name of the cookie and a colon unless set,
    /// `bottle.session:` for one, so that an id from one cookie opens nothing in another, also where their sessions
    /// are in the same Redis.
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

    /// Who hears what happens to sessions; [`LogEvents`] unless set.
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

    /// The cookie as it will be. `hardened` has the last word, wherever it was said.
    fn cookie_settings(&self) -> CookieSettings {
        let mut cookie = self.cookie.clone();
        if self.hardened {
            if !cookie.name.starts_with("__Host-") {
                cookie.name.insert_str(0, "__Host-");
            }
            cookie.secure = Some(true);
            cookie.http_only = true;
        }
        cookie
    }

    fn lifetimes(&self) -> Lifetimes {
        let absolute = self.max_age.or(self.hardened.then_some(HARDENED_MAX_AGE));
        Lifetimes { idle: self.lifetime.unwrap_or(BROWSER_SESSION), absolute }
    }

    fn open_store(&mut self) -> Result<Arc<dyn SessionStore>> {
        let pool = match &self.backend {
            Backend::Store(_) | Backend::Memory if self.redis_was_meant() => {
                return Err(self.config_error(
                    "options of Redis (host, url, layout, …) do not go with in_memory or store; take \
                     one or the other",
                ));
            }
            Backend::Store(store) => return Ok(store.clone()),
            Backend::Memory => {
                let store = MemoryStore::new();
                let Caps { bytes, fields } = self.caps;
                return Ok(Arc::new(store.max_bytes(bytes).max_fields(fields)));
            }
            Backend::Pool(_) if self.redis_was_set => {
                return Err(self.config_error(
                    "a pool knows where Redis is; host, port, db, password, url and the time-outs are \
                     set where it is opened",
                ));
            }
            Backend::Pool(pool) => pool.clone(),
            Backend::Redis => RedisPool::new(self.redis.clone())?,
        };
        let mut store = RedisStore::new(pool)
            .layout(self.layout.unwrap_or_default())
            .max_bytes(self.caps.bytes)
            .max_fields(self.caps.fields);
        if let Some(former) = self.migrate_from {
            store = store.migrate_from(former);
        }
        // What is an id in one cookie must be none in another.
        let own = || format!("{}:", self.cookie.name);
        let is_pythons = self.layout == Some(Layout::BottleSession);
        Ok(match self.key_prefix.take().or_else(|| (!is_pythons).then(own)) {
            Some(prefix) => Arc::new(store.key_prefix(prefix)),
            None => Arc::new(store),
        })
    }

    fn redis_was_meant(&self) -> bool {
        self.redis_was_set
            || self.layout.is_some()
            || self.migrate_from.is_some()
            || self.key_prefix.is_some()
    }

    fn config_error(&self, why: &str) -> Error {
        Error::new(ErrorKind::Config, format!("session plugin {:?}: {why}", self.keyword))
    }

    /// A server that only this machine can reach has visitors from elsewhere all the same where a proxy in front says so.
    fn look_behind_the_proxy(&self, batch: &mut Batch<'_>) {
        for entry in batch.iter_mut() {
            let request = entry.request();
            if !request.is_from_trusted_proxy() {
                continue;
            }
            let asked = match request.host() {
                _ if request.scheme() == Scheme::Https => match self.cookie.is_open_over_https() {
                    true => "over https",
                    false => continue,
                },
                Some(host) if is_public(host) => "of a public host",
                _ => continue,
            };
            if !self.told.swap(true, Ordering::Relaxed) {
                log::warn!(
                    "a proxy passes on what visitors ask {asked}, with session cookie {}: set cookie_secure and \
                     cookie_httponly, or hardened(), unless this is a trusted network",
                    self.cookie
                );
            }
            return;
        }
    }

    fn context(&self) -> &Arc<SessionContext> {
        match self.context.get() {
            Some(context) => context,
            None => unreachable!("a plugin is set up before it is used"),
        }
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

impl Plugin for SessionPlugin {
    fn name(&self) -> &str {
        "session"
    }

    fn provides(&self) -> Option<Provision> {
        let claim = format!("cookie {:?}", self.cookie_settings().name);
        Some(Provision::of::<Session>(&self.keyword).claiming(claim))
    }

    fn setup(&mut self, _: &Installed<'_>) -> Result<()> {
        if let Some(error) = self.refused.take() {
            return Err(error);
        }
        let cookie = self.cookie_settings();
        if self.migrate_from.is_some() && cookie.name != self.cookie.name {
            return Err(self.config_error(&format!(
                "hardened names the cookie {:?}, under which migrate_from finds no former session; set \
                 cookie_secure and cookie_httponly instead until all have moved",
                cookie.name
            )));
        }
        self.cookie = cookie;
        self.cookie.check()?;
        let lifetimes = self.lifetimes();
        if lifetimes.idle.is_zero() || lifetimes.absolute.is_some_and(|limit| limit.is_zero()) {
            return Err(self.config_error("a lifetime of zero would end every session at once"));
        }
        let store = self.open_store()?;
        store.check(&lifetimes)?;
        let context = SessionContext {
            format: store.id_format(),
            former_format: store.former_id_format(),
            caps: self.caps.and(store.caps()),
            store,
            cookie: self.cookie.clone(),
            lifetimes,
            persistent: self.lifetime.is_some(),
            generator: IdGenerator::new(),
            events: self.events.take().unwrap_or_else(|| Box::new(LogEvents)),
            counters: self.counters.clone(),
            unheard: Recurring::default(),
        };
        log::info!(
            "sessions of keyword {:?}: cookie {}, idle limit {:?}, absolute limit {:?}",
            self.keyword,
            self.cookie,
            lifetimes.idle,
            lifetimes.absolute
        );
        let context = Arc::new(context);
        // Weak: the context owns the store, which owns this observer.
        let told = Arc::downgrade(&context);
        context.store.on_breaker(Box::new(move |down| {
            if let Some(context) = told.upgrade() {
                context.emit(down.map_or(Event::BreakerClosed, Event::BreakerOpened));
            }
        }));
        let told = Arc::downgrade(&context);
        context.store.on_damage(Box::new(move |why| {
            if let Some(context) = told.upgrade() {
                context.emit(Event::Damaged(why));
            }
        }));
        let _ = self.context.set(context);
        Ok(())
    }

    fn serving(&self, address: &ListenAddress) {
        let is_open = !(self.cookie.is_secure() && self.cookie.http_only);
        let is_told = !is_open || !address.is_local() || address.is_https();
        self.told.store(is_told, Ordering::Relaxed);
        if is_open && !address.is_local() && !address.is_https() {
            log::warn!(
                "serving {address}, which is not only this machine, with session cookie {}: set \
                 cookie_secure and cookie_httponly, or hardened(), unless this is a trusted network",
                self.cookie
            );
        }
    }

    fn may_block(&self) -> bool {
        let store = &self.context().store;
        store.pipelined().is_none() && store.may_block()
    }

    /// A panic saves nothing. But where the handler has renewed the id in the store, its answer says so: at once,
    /// as a plugin further out may panic, too, and then nothing is released.
    fn apply(&self, callback: Callback, route: &Route) -> Callback {
        if !route.asks_for(&self.keyword) {
            return callback;
        }
        let (keyword, context) = (self.keyword.clone(), self.context().clone());
        Callback::new(move |exchange| {
            let scheme = exchange.request().scheme();
            let session = exchange.provided::<Session>(&keyword);
            let pending = session.map(|session| session.pending_cookie()).unwrap_or_default();
            let done = catch_unwind(AssertUnwindSafe(|| callback.call(exchange)));
            let head = exchange.head_mut();
            if let Err(error) = context.write_pending_cookie(&pending, scheme, head) {
                let error = OneLine(error);
                log::error!("a session's new id did not reach its browser: {error}");
            }
            done.unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    fn acquire(&self, batch: &mut Batch<'_>) {
        if !self.told.load(Ordering::Relaxed) {
            self.look_behind_the_proxy(batch);
        }
        let context = self.context();
        match context.store.pipelined() {
            Some(store) => acquire_pipelined(context, store, batch),
            None => acquire(context, batch),
        }
    }

    fn release(&self, batch: &mut Batch<'_>) {
        let context = self.context();
        match context.store.pipelined() {
            Some(store) => release_pipelined(context, store, batch),
            None => release(context, batch),
        }
    }
}

/// Loads all sessions of the batch in one call of the store.
fn acquire(context: &Arc<SessionContext>, batch: &mut Batch<'_>) {
    let ids: Vec<_> = batch.iter_mut().map(|entry| context.sent_ids(entry.request())).collect();
    let loads: Vec<_> = context.loads(ids.iter().flatten()).collect();
    let answers = if loads.is_empty() { Vec::new() } else { context.store.load_many(&loads) };
    let mut answers = answers.into_iter();
    for (mut entry, ids) in batch.iter_mut().zip(ids) {
        let own: SmallVec<[_; 1]> = answers.by_ref().take(ids.len()).collect();
        context.provide(&mut entry, ids, own);
    }
}

/// Leaves each request pending on the loads of its own session.
fn acquire_pipelined(
    context: &Arc<SessionContext>,
    store: &dyn PipelinedStore,
    batch: &mut Batch<'_>,
) {
    for mut entry in batch.iter_mut() {
        let ids = context.sent_ids(entry.request());
        if ids.is_empty() {
            context.provide(&mut entry, ids, []);
            continue;
        }
        let loads: SmallVec<[_; 1]> = context.loads(&ids).collect();
        let (operation, context) = (store.load_operation(&loads), context.clone());
        drop(loads);
        entry.wait(store.remote(), operation, move |operation, entry| {
            context.provide(entry, ids, operation.into_answers());
        });
    }
}

/// Saves all sessions of the batch in one call of the store.
fn release(context: &Arc<SessionContext>, batch: &mut Batch<'_>) {
    let plans: Vec<_> = batch.iter_mut().map(|mut entry| context.plan(&mut entry)).collect();
    let saves: Vec<_> = plans.iter().flatten().flatten().map(Pending::save).collect();
    let answers = if saves.is_empty() { Vec::new() } else { context.store.save_many(&saves) };
    let mut answers = answers.into_iter();
    for (mut entry, plan) in batch.iter_mut().zip(plans) {
        match plan {
            Ok(pending) => {
                let own: SmallVec<[_; 1]> = answers.by_ref().take(pending.len()).collect();
                context.settle(&mut entry, pending, own);
            }
            Err(error) => context.finish(&mut entry, Err(error)),
        }
    }
}

/// Leaves each request that has something to save pending on its own saves.
fn release_pipelined(
    context: &Arc<SessionContext>,
    store: &dyn PipelinedStore,
    batch: &mut Batch<'_>,
) {
    for mut entry in batch.iter_mut() {
        match context.plan(&mut entry) {
            Ok(pending) if pending.is_empty() => context.finish(&mut entry, Ok(())),
            Ok(pending) => {
                let saves: SmallVec<[_; 1]> = pending.iter().map(Pending::save).collect();
                let (operation, context) = (store.save_operation(&saves), context.clone());
                drop(saves);
                entry.wait(store.write_remote(), operation, move |operation, entry| {
                    context.settle(entry, pending, operation.into_answers());
                });
            }
            Err(error) => context.finish(&mut entry, Err(error)),
        }
    }
}
