//! What the integration tests share.

pub mod redis_server;
pub mod sessions;
