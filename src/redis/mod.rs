//! Redis: a pool of synchronous connections, and the plugin that lends them to handlers.

mod arguments;
mod batch;
mod breaker;
#[cfg(unix)]
mod channel;
mod cluster;
mod commands;
mod config;
mod connection;
mod errors;
#[cfg(feature = "r2d2_redis")]
mod external;
mod failover;
mod plugin;
mod pool;
mod resp;
#[cfg(test)]
mod scripted_server;
mod sentinel;
mod sentinel_connection;
mod sentinel_listener;
mod sentinel_poller;
mod stream;
mod transport;
mod upstream;

pub use arguments::CommandArguments;
pub use breaker::BreakerState;
pub use cluster::RedisCluster;
pub(crate) use cluster::slot;
pub use commands::RedisConnection;
pub use config::RedisConfig;
pub(crate) use errors::{copy, refusal};
pub use plugin::RedisPlugin;
pub use pool::RedisPool;
pub(crate) use resp::Words;
#[doc(hidden)]
pub use resp::count_strings;
#[cfg(test)]
pub(crate) use resp::end_of;
pub use resp::{Replies, Reply as RedisReply};
