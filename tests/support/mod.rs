//! What the integration tests share.

pub mod http;
pub mod process;
pub mod redis_server;
pub mod serving;
pub mod sessions;
