//! What the integration tests share.

pub mod browser;
pub mod fault_proxy;
pub mod http;
pub mod logs;
pub mod process;
pub mod proxies;
pub mod redis_server;
pub mod serving;
pub mod sessions;
#[cfg(feature = "https")]
pub mod tls;
pub mod visitors;
