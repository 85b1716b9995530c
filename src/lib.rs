//! A small, synchronous, Bottle-style web framework with server-side sessions.
#![forbid(unsafe_code)]

mod error;
mod redis;
mod session;
pub mod testing;

pub use error::{Error, ErrorKind, Result};
pub use redis::RedisPool;
pub use session::id::{IdFormat, SessionId};
pub use session::memory::MemoryStore;
pub use session::redis::{Layout, RedisStore};
pub use session::store::{Action, Changes, Lifetimes, Load, Record, Save, Saved, SessionStore};
