//! Redis: a pool of synchronous connections, and the plugin that lends them to handlers.

mod batch;
mod breaker;
#[cfg(unix)]
mod channel;
mod cluster;
mod config;
mod connection;
mod errors;
#[cfg(feature = "r2d2_redis")]
mod lent;
mod link;
mod plugin;
mod pool;
mod resp;
#[cfg(test)]
mod scripted;
mod sentinel;
mod stream;
mod wire;

pub use breaker::BreakerState;
pub use cluster::RedisCluster;
pub(crate) use cluster::slot;
pub use config::RedisConfig;
pub use connection::RedisConnection;
pub(crate) use errors::{copy, refusal};
pub use plugin::RedisPlugin;
pub use pool::RedisPool;
pub(crate) use resp::Words;
pub use resp::{Replies, Reply as RedisReply};
