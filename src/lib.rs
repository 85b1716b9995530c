//! A small, synchronous, Bottle-style web framework with server-side sessions.
//!
//! ```
//! use bottle_session::{App, Session, SessionPlugin, TestClient};
//!
//! let mut app = App::new();
//! app.install(SessionPlugin::new().in_memory())?;
//! app.get("/count", |session: &mut Session| {
//!     let visits = session.parse("visits").unwrap_or(0) + 1;
//!     session.set("visits", visits);
//!     format!("This is your visit number {visits}.")
//! });
//!
//! let browser = TestClient::new(app)?; // or: app.run("127.0.0.1:8888")
//! browser.get("/count").send();
//! assert_eq!(browser.get("/count").send().text(), "This is your visit number 2.");
//! # Ok::<(), bottle_session::Error>(())
//! ```
//!
//! Without `in_memory()` sessions live in the Redis on localhost, and outlive the process. A handler says by the types of its arguments
//! what it needs: a [`Session`], a [`Form`], your own [user](LoginPlugin) or [database connection](App::provide).
//!
//! Begin with the [tutorial](guide::tutorial), or with the page of the [guide] for [Bottle](guide::from_bottle) or
//! [axum](guide::from_axum) users; [inside](guide::inside) shows how a request flows, defines the words, and sorts the items below by subject.
//!
//! # Features
//!
//! - `tiny_http` (default): an adapter for the tiny_http server. [`App::run`] takes the crate's own, [`server::native`], wherever there is unix.
//! - `https`: the native server speaks TLS. `dev-certificate`: a certificate made at the start, to develop with.
//! - `rustls`: Redis over TLS (`rediss://`).
//! - `r2d2_redis`: a pool of `r2d2_redis` 0.14 that the app has already.
//! - `sqlite`: sessions in one file.
//! - `sealed`: values of sessions that only their visitor's cookie opens.
//! - `garde`: checks of what forms hold, beyond their types.
//! - `gzip`, `brotli`: compressed answers, `CompressionPlugin`.
//! - `anyhow`: an `anyhow::Error` answers with the status of the error in it, which [`App::on_error`] sees.
//! - `secure-cookies`: signed and encrypted cookies of the app's own.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

mod app;
mod error;
#[cfg(any(doc, doctest))]
pub mod guide;
mod handler;
mod lock;
mod logging;
mod message;
mod pipeline;
mod plugins;
mod redis;
mod routing;
pub mod server;
mod session;
pub mod testing;

/// The `redis` crate that [`RedisConnection`] works with.
pub use ::redis as redis_crate;
#[cfg(all(unix, feature = "https"))]
pub use ::rustls;
pub use app::{
    App, DataOptions, GroupOutcome, Installation, IntoMethods, IntoRules, LoginPlugin,
    MountOptions, ProviderOptions, RouteOptions,
};
#[cfg(feature = "secure-cookies")]
pub use cookie::Key;
pub use error::{Error, ErrorKind, Result};
#[cfg(feature = "garde")]
pub use handler::Checked;
pub use handler::{
    Argument, Binder, Condition, Form, Handler, Hook, ProviderFn, Query, Signature, Wildcard,
};
#[doc(no_inline)]
pub use http;
pub use logging::request_id::{RequestId, RequestIdGuard, RequestIdLogger};
pub use message::address::ListenAddress;
pub use message::body::{DEFAULT_BODY_LIMIT, RequestBody};
pub use message::cookies::{Cookie, CookieLifetime, RequestCookies, SameSite};
pub use message::events::{EventStream, ServerSentEvent};
pub use message::files::Files;
pub use message::forms::{FormData, FormError, FormLimits, Problem, Secret, Upload, UploadReader};
pub use message::http_error::{HttpError, IntoHttpError, abort, basic_challenge};
pub use message::into_response::{HookOutcome, Html, IntoResponse, Json, escape_html};
pub use message::redirect::{Redirect, redirect, redirect_back};
pub use message::request::{Request, Scheme};
pub use message::response::{Body, Response};
pub use message::response_head::ResponseHead;
#[cfg(feature = "secure-cookies")]
pub use message::secure_cookies::cookie_key;
pub use message::static_file::{StaticFile, static_file};
pub use message::status::IntoStatus;
pub use pipeline::batch::{Batch, Entry};
pub use pipeline::exchange::Exchange;
pub use pipeline::operation::{Answer, Operation, Progress, Remote, Round};
pub use pipeline::plugin;
pub use pipeline::plugin::{Callback, Installed, Plugin, Provided, Provision};
pub use pipeline::provider::{Asked, Own, ProviderOutcome};
pub use pipeline::route::Route;
pub use pipeline::service::Service;
pub use pipeline::urls::Urls;
pub use plugins::access_log::AccessLogPlugin;
pub use plugins::basic_auth::BasicAuthPlugin;
#[cfg(any(feature = "brotli", feature = "gzip"))]
#[cfg_attr(docsrs, doc(cfg(any(feature = "brotli", feature = "gzip"))))]
pub use plugins::compression::CompressionPlugin;
pub use plugins::cors::CorsPlugin;
pub use plugins::metrics::MetricsPlugin;
pub use plugins::rate_limit::RateLimitPlugin;
pub use plugins::request_id::RequestIdPlugin;
pub use plugins::security_headers::SecurityHeadersPlugin;
pub use redis::{
    BreakerState, CommandArguments, RedisCluster, RedisConfig, RedisConnection, RedisPlugin,
    RedisPool, RedisReply, Replies,
};
pub use routing::Filter;
pub use server::{Server, ShutdownHandle};
pub use session::SessionPlugin;
pub use session::csrf::CsrfPlugin;
pub use session::data::Data;
pub use session::events::{Counters, Counts, Event, Events, LogEvents};
pub use session::flash::Flash;
pub use session::id::{IdFormat, SessionId};
pub use session::store::memory::MemoryStore;
pub use session::store::redis::{Layout, RedisStore};
#[cfg(feature = "sqlite")]
#[cfg_attr(docsrs, doc(cfg(feature = "sqlite")))]
pub use session::store::sqlite::{Durability, SqliteStore};
pub use session::store::{
    Action, BreakerObserver, Caps, Changes, DamageObserver, Device, EndDevices, Fields, Lifetimes,
    Load, Loaded, LogIn, Login, OldId, PipelinedStore, Record, Remember, Save, Saved, SessionStore,
    StoreOperation,
};
pub use session::view::Session;
pub use testing::TestClient;

#[doc(hidden)]
pub mod __private {
    pub use crate::handler::Named;
    pub use crate::redis::count_strings;
    pub use crate::routing::{Captures, Filter, Filters, Found, Router, Rule};
}

/// The README's programs, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeDoctests;
