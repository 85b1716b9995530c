//! A small, synchronous, Bottle-style web framework with server-side sessions.
//!
//! A counter that remembers its visitor:
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
//! Without `in_memory()` sessions live in the Redis on localhost, and outlive the process. The
//! [README](https://docs.rs/crate/bottle-session/latest) is the guide: options, promises, examples, and all
//! differences from Bottle and Python's bottle-session.
//!
//! # How it works
//!
//! ```text
//! bytes in → Request → prepare: route, then plugins acquire ─┐
//!                      run:     callback (plugins' wrappers → guards → arguments → handler) → Response → providers finish
//!                      finish:  plugins release → error page → cookies onto headers ─→ bytes out
//! ```
//!
//! An [`Exchange`] is one request on its way. A [`Service`] is a built app: what a server sees, and the three
//! stages. [`prepare`](Service::prepare) and [`finish`](Service::finish) take whole batches, so that the
//! sessions of many requests are one round trip.
//!
//! Handlers block, the session path does not. An event loop of the [native server](server::native) sends what its
//! requests need of Redis over a connection of its own and goes on; when the replies are there, it runs their handlers;
//! when what these have changed is acknowledged, it sends their answers. A handler that blocks is left to another thread.
//!
//! ## Glossary
//!
//! | word | meaning |
//! |---|---|
//! | rule, wildcard, filter | `/user/<id:int>` is a rule, `<id:int>` a wildcard, `int` its filter |
//! | route | rules and methods that lead to one handler |
//! | handler, callback | the closure of the app; the handler with what plugins wrapped around it |
//! | plugin, keyword | provides a value to handlers that ask for it, under a keyword; wraps callbacks |
//! | provider | a closure of the app that makes a value for a request, out of others |
//! | state | a value that all requests share |
//! | guard, hook, error page | a closure that runs before a handler, after it, in place of an error; it takes what handlers take |
//! | exchange, batch | one request with its route, values and response; several of them in one stage |
//! | stage | prepare, run or finish |
//! | acquire, release | a plugin provides its value before the handler; takes it back after it |
//! | operation, pending | what a stage asks of a remote service; an exchange that waits for one |
//! | store, record | what keeps sessions; what it holds of one session |
//! | event loop, worker | a poller with its connections; the thread that runs it |
//! | channel | the connection of an event loop to a remote service |
//! | hand-off, monitor | another worker takes a loop whose worker is blocked; the thread that sees to it |
//! | breaker | fails operations at once while Redis does not answer |
//!
//! # The map
//!
//! | | |
//! |---|---|
//! | [`App`] | routes, plugins, providers, state, guards, hooks, error pages, groups and mounted apps; [`build`](App::build) checks it all |
//! | [`Provided`], [`Own`] | what plugins, providers and state provide |
//! | [`Argument`], [`IntoResponse`], [`named!`] | what handlers take and reply |
//! | [`Filter`] | what wildcards take: `<id:int>` |
//! | [`Request`], [`Response`], [`ResponseHead`], [`abort`], [`redirect`], [`static_file`] | what comes in and goes out |
//! | [`App::files`], [`Files`] | folders of files; the guide has [a page](guide::files) |
//! | [`HttpError`], [`App::on_error`], [`App::error`], [`App::debug`] | errors and their pages; the guide has [a page](guide::errors) |
//! | [`Form`], [`Query`], [`FormError`], [`Upload`], [`Secret`], [`FormData`] | forms and uploads; the guide has [a page](guide::forms) |
//! | [`Session`], [`SessionPlugin`] | sessions, and the options |
//! | [`Data`] | a part of the session as a type of the app's own |
//! | [`CsrfPlugin`] | against forged requests |
//! | [`SessionStore`], [`MemoryStore`], [`RedisStore`], `SqliteStore` | where they are kept |
//! | [`RedisPool`], [`RedisPlugin`], [`RedisConnection`] | Redis for sessions and for the app's own data |
//! | [`plugin`] | how to write a plugin |
//! | [`server`] | servers, and how they are stopped |
//! | [`testing`] | [`TestClient`]; the contract of stores as tests |
//! | [`Error`] | the one error type |
//!
//! The [guide] has a page for each subject.
//!
//! # Features
//!
//! - `tiny_http` (default): the adapter for the tiny_http server.
//! - `https`: the native server speaks TLS. `dev-certificate`: a certificate made at the start, to develop with.
//! - `rustls`: Redis over TLS.
//! - `r2d2_redis`: a pool of `r2d2_redis` 0.14 that the app has already.
//! - `sqlite`: sessions in one file.
//! - `garde`: checks of what forms hold, beyond their types.
//! - `anyhow`: what is inside of an `anyhow::Error` is seen: its status, and by [`App::on_error`].
//! - `secure-cookies`: signed and encrypted cookies of the app's own.
#![forbid(unsafe_code)]

mod app;
mod error;
#[cfg(any(doc, doctest))]
pub mod guide;
mod handler;
mod logging;
mod message;
mod pipeline;
mod redis;
mod routing;
pub mod server;
mod session;
pub mod testing;

/// The `redis` crate that [`RedisConnection`] works with.
pub use ::redis as redis_crate;
#[cfg(all(unix, feature = "https"))]
#[cfg_attr(docsrs, doc(cfg(feature = "https")))]
pub use ::rustls;
pub use app::{
    App, DataOptions, GroupOutcome, IntoMethods, IntoRules, MountOptions, ProviderOptions,
    RouteOptions,
};
#[cfg(feature = "secure-cookies")]
pub use cookie::Key;
pub use error::{Error, ErrorKind, Result};
#[cfg(feature = "garde")]
pub use handler::Checked;
pub use handler::{Argument, Binder, Form, Handler, Hook, ProviderFn, Query, Signature, Wildcard};
#[doc(no_inline)]
pub use http;
pub use message::address::ListenAddress;
pub use message::body::{DEFAULT_BODY_LIMIT, RequestBody};
pub use message::cookies::{Cookie, CookieLifetime, RequestCookies, SameSite};
pub use message::files::Files;
pub use message::forms::{FormData, FormError, FormLimits, Problem, Secret, Upload, UploadReader};
pub use message::http_error::{HttpError, IntoHttpError, abort, basic_challenge};
pub use message::into_response::{HookOutcome, Html, IntoResponse, Json, escape_html};
pub use message::redirect::{Redirect, redirect};
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
pub use pipeline::provider::{Asked, Own, Yields};
pub use pipeline::route::Route;
pub use pipeline::service::Service;
pub use pipeline::urls::Urls;
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
    Load, LogIn, Login, PipelinedStore, Record, Remember, Save, Saved, SessionStore,
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
