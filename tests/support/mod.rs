//! What the integration tests share.

pub mod redis_server;
