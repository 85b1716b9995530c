//! What the integration tests share.

pub mod browser;
pub mod fake_sentinel;
pub mod fault_proxy;
pub mod http;
pub mod logs;
pub mod process;
pub mod proxies;
pub mod recorder;
pub mod redis_server;
pub mod replicated;
pub mod serving;
pub mod sessions;
#[cfg(feature = "https")]
pub mod tls;
pub mod visitors;
