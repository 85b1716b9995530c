//! The plugin at work: what it checks and opens when it is installed, and what it does to each batch.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use smallvec::SmallVec;

use super::context::{FollowUp, LostSave, SessionContext, Successor, missing_answer};
use super::cookie::CookieSettings;
use super::events::{Event, LogEvents};
use super::id::IdGenerator;
use super::options::{Backend, SessionPlugin};
use super::reserved;
use super::saving::PlannedSave;
use super::sealing::{plain_size, sealed_size};
use super::store::devices::no_index;
use super::store::memory::MemoryStore;
use super::store::redis::{Layout, RedisStore};
#[cfg(feature = "sqlite")]
use super::store::sqlite::SqliteStore;
use super::store::{Caps, Lifetimes, PipelinedStore, SessionStore};
use super::view::Session;
use crate::logging::{OneLine, ThrottledLog};
use crate::message::address::{ListenAddress, is_public};
use crate::message::request::Scheme;
use crate::pipeline::batch::{Batch, Entry};
use crate::pipeline::plugin::{Callback, Installed, Plugin, Provision};
use crate::pipeline::route::Route;
use crate::redis::RedisPool;
use crate::{Error, ErrorKind, Result};

/// How long the store keeps a session whose cookie ends with the browser: 7 days, as in bottle-session.
const BROWSER_SESSION: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The absolute limit of a hardened session unless another is set.
const HARDENED_MAX_AGE: Duration = Duration::from_secs(12 * 60 * 60);

impl SessionPlugin {
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

    fn open_store(&self) -> Result<Arc<dyn SessionStore>> {
        let pool = match &self.backend {
            Backend::File(_)
                if self.redis_was_set || self.layout.or(self.migrate_from).is_some() =>
            {
                return Err(self.config_error(
                    "options of Redis (host, url, layout, …) do not go with file; take one or the other",
                ));
            }
            Backend::Store(_) | Backend::Memory if self.redis_was_meant() => {
                return Err(self.config_error(
                    "options of Redis (host, url, layout, …) do not go with in_memory or store; take \
                     one or the other",
                ));
            }
            Backend::Store(store) => return Ok(store.clone()),
            Backend::File(path) => return self.open_file(path),
            Backend::Memory => {
                let store = MemoryStore::new();
                let Caps { bytes, fields } = self.store_caps();
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
        let Caps { bytes, fields } = self.store_caps();
        let mut store = RedisStore::new(pool)
            .layout(self.layout.unwrap_or_default())
            .max_bytes(bytes)
            .max_fields(fields);
        if let Some(former) = self.migrate_from {
            store = store.migrate_from(former);
        }
        let is_pythons = self.layout == Some(Layout::BottleSession);
        Ok(match is_pythons && self.key_prefix.is_none() {
            false => Arc::new(store.key_prefix(self.prefix())),
            true => Arc::new(store),
        })
    }

    /// How much a store of the plugin's own holds. Sealed values are longer than what the caps count.
    fn store_caps(&self) -> Caps {
        if self.seals { sealed_size(self.caps) } else { self.caps }
    }

    /// How much a session may hold: what the option says, unless that would not fit into the store with what is the plugin's own.
    fn session_caps(&self, store: &dyn SessionStore) -> Result<Caps> {
        let mut caps = self.caps.and(store.caps());
        if self.renew_every.is_some() && !self.seals {
            caps.fields = caps.fields.saturating_sub(reserved::MAX_FIELDS);
            caps.bytes = caps.bytes.saturating_sub(reserved::MAX_BYTES);
        }
        if self.seals {
            caps = self.caps.and(plain_size(store.caps(), self.caps.fields));
            if caps.bytes == 0 || caps.fields == 0 {
                return Err(self.config_error(
                    "the caps of the store have no room for sealed values, which are 55 bytes and a third longer; raise \
                     its max_bytes, or lower the plugin's max_fields",
                ));
            }
        }
        Ok(caps)
    }

    /// What is an id in one cookie must be none in another.
    fn prefix(&self) -> String {
        self.key_prefix.clone().unwrap_or_else(|| format!("{}:", self.cookie.name))
    }

    #[cfg(feature = "sqlite")]
    fn open_file(&self, path: &Path) -> Result<Arc<dyn SessionStore>> {
        let Caps { bytes, fields } = self.store_caps();
        let store = SqliteStore::open(path)?.max_bytes(bytes).max_fields(fields);
        Ok(Arc::new(store.key_prefix(self.prefix())))
    }

    #[cfg(not(feature = "sqlite"))]
    fn open_file(&self, path: &Path) -> Result<Arc<dyn SessionStore>> {
        Err(self.config_error(&format!(
            "sessions in the file {} need the feature `sqlite` of bottle-session, which this program was built \
             without; add it in Cargo.toml",
            path.display()
        )))
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
    fn warn_behind_proxy(&self, batch: &mut Batch<'_>) {
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
            if !self.exposure_logged.swap(true, Ordering::Relaxed) {
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
        if self.anonymous.is_some_and(|limit| limit.is_zero()) {
            return Err(
                self.config_error("an anonymous_lifetime of zero would end every session at once")
            );
        }
        let of_logins = [
            ("max_sessions_per_user", self.most_sessions.is_some()),
            ("anonymous_lifetime", self.anonymous.is_some()),
        ];
        if let Some((option, _)) = of_logins.iter().find(|(_, set)| *set && !store.keeps_logins()) {
            return Err(self.config_error(&format!("{option} cannot be kept: {}", no_index())));
        }
        if self.renew_every.is_some() && !store.keeps_tombstones() {
            return Err(self.config_error(
                "renew_every needs a store that keeps ids in their grace period; take MemoryStore, SqliteStore, or \
                 RedisStore in its default layout",
            ));
        }
        if self.renew_every.is_some_and(|every| every.is_zero()) {
            return Err(
                self.config_error("renew_every(0) would rotate every session with each request")
            );
        }
        if self.seals && !store.can_compare_and_set() {
            return Err(self.config_error(
                "sealed() needs a store that can compare and set; take MemoryStore, SqliteStore, or RedisStore in its \
                 default layout (in Layout::BottleSession values are what Python reads, plain, and there is no place for a \
                 key)",
            ));
        }
        let context = SessionContext {
            format: store.id_format(),
            former_format: store.former_id_format(),
            caps: self.session_caps(&*store)?,
            store,
            cookie: self.cookie.clone(),
            lifetimes,
            persistent: self.lifetime.is_some(),
            generator: IdGenerator::new(),
            events: self.events.take().unwrap_or_else(|| Box::new(LogEvents)),
            counters: self.counters.clone(),
            anonymous: self.anonymous,
            most_sessions: self.most_sessions,
            renew_every: self.renew_every,
            seals: self.seals,
            keeps_addresses: self.keeps_addresses,
            unreported: ThrottledLog::default(),
            open_login_logged: AtomicBool::new(false),
            lost_cookie_logged: AtomicBool::new(false),
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
        let observer = Arc::downgrade(&context);
        context.store.on_breaker(Box::new(move |down| {
            if let Some(context) = observer.upgrade() {
                context.emit(down.map_or(Event::BreakerClosed, Event::BreakerOpened));
            }
        }));
        let observer = Arc::downgrade(&context);
        context.store.on_damage(Box::new(move |why| {
            if let Some(context) = observer.upgrade() {
                context.emit(Event::Damaged(why));
            }
        }));
        let _ = self.context.set(context);
        Ok(())
    }

    fn serving(&self, address: &ListenAddress) {
        let is_open = !(self.cookie.is_secure() && self.cookie.http_only);
        let is_logged = !is_open || !address.is_local() || address.is_https();
        self.exposure_logged.store(is_logged, Ordering::Relaxed);
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

    fn acquire_rarely_blocks(&self) -> bool {
        self.context().store.loads_rarely_block()
    }

    fn release_may_block(&self, entry: &mut Entry<'_>) -> bool {
        self.context().plan_ahead(entry)
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
            let cookie = session.map(|session| session.pending_cookie()).unwrap_or_default();
            let done = catch_unwind(AssertUnwindSafe(|| callback.call(exchange)));
            if let (Ok(_), Some(session)) = (&done, exchange.provided::<Session>(&keyword)) {
                session.seal_before_save();
            }
            let head = exchange.head_mut();
            if let Err(error) = context.write_pending_cookie(&cookie, scheme, head) {
                let error = OneLine(error);
                log::error!("a session's new id did not reach its browser: {error}");
            }
            done.unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    fn acquire(&self, batch: &mut Batch<'_>) {
        if !self.exposure_logged.load(Ordering::Relaxed) {
            self.warn_behind_proxy(batch);
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
            Some(_) => release_pipelined(context, batch),
            None => release(context, batch),
        }
    }
}

/// Loads all sessions of the batch in one call of the store.
fn acquire(context: &Arc<SessionContext>, batch: &mut Batch<'_>) {
    let sent = |entry: Entry<'_>| {
        let _guard = entry.enter_request_id();
        context.sent_ids(entry.request())
    };
    let ids: Vec<_> = batch.iter_mut().map(sent).collect();
    let loads: Vec<_> = context.loads(ids.iter().flatten()).collect();
    let answers = if loads.is_empty() { Vec::new() } else { context.store.load_many(&loads) };
    let mut answers = answers.into_iter();
    for (mut entry, ids) in batch.iter_mut().zip(ids) {
        let _guard = entry.enter_request_id();
        let own: SmallVec<[_; 1]> = answers.by_ref().take(ids.len()).collect();
        let mut successor = context.provide(&mut entry, ids, own);
        while let Some(step) = successor {
            let found = context.load(&step.id);
            successor = context.provide_successor(&mut entry, step, found);
        }
    }
}

/// Leaves each request pending on the loads of its own session.
fn acquire_pipelined(
    context: &Arc<SessionContext>,
    store: &dyn PipelinedStore,
    batch: &mut Batch<'_>,
) {
    for mut entry in batch.iter_mut() {
        let _guard = entry.enter_request_id();
        let ids = context.sent_ids(entry.request());
        if ids.is_empty() {
            context.provide(&mut entry, ids, []);
            continue;
        }
        let loads: SmallVec<[_; 1]> = context.loads(&ids).collect();
        let (operation, context) = (store.load_operation(&loads), context.clone());
        drop(loads);
        entry.wait(store.remote(), operation, move |operation, entry| {
            let successor = context.provide(entry, ids, operation.into_answers());
            load_successor_pipelined(&context, entry, successor);
        });
    }
}

/// Leaves a request that came with an id in its grace period pending on the load of the next one.
fn load_successor_pipelined(
    context: &Arc<SessionContext>,
    entry: &mut Entry<'_>,
    successor: Option<Successor>,
) {
    let (Some(step), Some(store)) = (successor, context.store.pipelined()) else { return };
    let load: SmallVec<[_; 1]> = context.loads([&step.id]).collect();
    let (operation, context) = (store.load_operation(&load), context.clone());
    drop(load);
    entry.wait(store.remote(), operation, move |operation, entry| {
        let found = operation.into_answers().pop().unwrap_or_else(|| Err(missing_answer()));
        let successor = context.provide_successor(entry, step, found);
        load_successor_pipelined(&context, entry, successor);
    });
}

/// Saves all sessions of the batch in one call of the store.
fn release(context: &Arc<SessionContext>, batch: &mut Batch<'_>) {
    let plan = |mut entry: Entry<'_>| {
        let _guard = entry.enter_request_id();
        context.plan(&mut entry)
    };
    let plans: Vec<_> = batch.iter_mut().map(plan).collect();
    let saves: Vec<_> = plans.iter().flatten().flatten().map(PlannedSave::save).collect();
    let answers = if saves.is_empty() { Vec::new() } else { context.store.save_many(&saves) };
    let mut answers = answers.into_iter();
    for (mut entry, plan) in batch.iter_mut().zip(plans) {
        let _guard = entry.enter_request_id();
        match plan {
            Ok(planned) => {
                let own: SmallVec<[_; 1]> = answers.by_ref().take(planned.len()).collect();
                let mut more = context.conclude_saves(&mut entry, planned, own);
                while let Some(next) = more {
                    more = match next {
                        FollowUp::Resume(lost) => {
                            let found = context.load(lost.id());
                            context.resume(&mut entry, lost, found)
                        }
                        FollowUp::Save(planned) => {
                            let saves: SmallVec<[_; 1]> =
                                planned.iter().map(PlannedSave::save).collect();
                            let saved = context.store.save_many(&saves);
                            drop(saves);
                            context.conclude_saves(&mut entry, planned, saved)
                        }
                    };
                }
            }
            Err(error) => context.finish(&mut entry, Err(error)),
        }
    }
}

/// Leaves each request that has something to save pending on its own saves.
fn release_pipelined(context: &Arc<SessionContext>, batch: &mut Batch<'_>) {
    for mut entry in batch.iter_mut() {
        let _guard = entry.enter_request_id();
        match context.plan(&mut entry) {
            Ok(planned) if planned.is_empty() => context.finish(&mut entry, Ok(())),
            Ok(planned) => save_pipelined(context, &mut entry, planned),
            Err(error) => context.finish(&mut entry, Err(error)),
        }
    }
}

fn save_pipelined(context: &Arc<SessionContext>, entry: &mut Entry<'_>, planned: Vec<PlannedSave>) {
    let Some(store) = context.store.pipelined() else { return };
    let saves: SmallVec<[_; 1]> = planned.iter().map(PlannedSave::save).collect();
    let (operation, context) = (store.save_operation(&saves), context.clone());
    drop(saves);
    entry.wait(store.write_remote(), operation, move |operation, entry| {
        let more = context.conclude_saves(entry, planned, operation.into_answers());
        go_on_pipelined(&context, entry, more);
    });
}

fn go_on_pipelined(context: &Arc<SessionContext>, entry: &mut Entry<'_>, more: Option<FollowUp>) {
    match more {
        Some(FollowUp::Save(planned)) => save_pipelined(context, entry, planned),
        Some(FollowUp::Resume(lost)) => resume_pipelined(context, entry, lost),
        None => {}
    }
}

/// Leaves a request whose save found no session pending on what there is instead.
fn resume_pipelined(context: &Arc<SessionContext>, entry: &mut Entry<'_>, lost: LostSave) {
    let Some(store) = context.store.pipelined() else { return };
    let load: SmallVec<[_; 1]> = context.loads([lost.id()]).collect();
    let (operation, context) = (store.load_operation(&load), context.clone());
    drop(load);
    // Where saves are carried out: a replica may not have seen the rotation yet.
    entry.wait(store.write_remote(), operation, move |operation, entry| {
        let found = operation.into_answers().pop().unwrap_or_else(|| Err(missing_answer()));
        let more = context.resume(entry, lost, found);
        go_on_pipelined(&context, entry, more);
    });
}

#[cfg(not(feature = "sqlite"))]
#[test]
fn a_file_without_the_feature_is_an_error_that_names_it() {
    let mut app = crate::App::new();
    let error = app.install(SessionPlugin::new().file("/srv/sessions.db")).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    for part in ["/srv/sessions.db", "the feature `sqlite` of bottle-session"] {
        assert!(error.to_string().contains(part), "{error}");
    }
}
