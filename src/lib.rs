//! A small, synchronous, Bottle-style web framework with server-side sessions.
#![forbid(unsafe_code)]

mod app;
mod cookies;
mod error;
mod exchange;
mod handler;
pub mod plugin;
mod redis;
mod request;
mod response;
mod router;
pub mod server;
mod service;
mod session;
pub mod testing;

/// The `redis` crate that [`RedisConnection`] works with.
pub use ::redis as redis_crate;
pub use app::{App, HookOutcome, IntoMethods, IntoRules, RouteOptions};
pub use cookies::{Cookie, RequestCookies, SameSite};
pub use error::{Error, ErrorKind, Result};
pub use exchange::Exchange;
pub use handler::{Argument, Binder, Form, Handler, Query, Signature, Wildcard};
#[doc(no_inline)]
pub use http;
pub use plugin::{Batch, Callback, Entry, Installed, Plugin, Provided, Provision, Route};
pub use redis::{BreakerState, RedisConfig, RedisConnection, RedisPlugin, RedisPool};
pub use request::{DEFAULT_BODY_LIMIT, Request, RequestBody, Scheme};
pub use response::{
    Body, Html, HttpError, IntoResponse, Json, Redirect, Response, ResponseHead, abort,
    escape_html, redirect,
};
pub use router::Filter;
pub use server::{ListenAddress, Server, ShutdownHandle};
pub use service::{Service, Urls};
pub use session::SessionPlugin;
pub use session::data::Session;
pub use session::events::{Counters, Counts, Event, Events, LogEvents};
pub use session::id::{IdFormat, SessionId};
pub use session::memory::MemoryStore;
pub use session::redis::{Layout, RedisStore};
pub use session::store::{Action, Changes, Lifetimes, Load, Record, Save, Saved, SessionStore};
pub use testing::TestClient;

#[doc(hidden)]
pub mod __private {
    pub use crate::handler::Named;
    pub use crate::router::{Captures, Filter, Filters, Found, Router, Rule};
}

/// The README's programs, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeDoctests;
