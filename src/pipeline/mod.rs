//! How requests travel: an exchange, the plugins that act on it, and the three stages of a service.

pub(crate) mod batch;
pub(crate) mod completion;
pub(crate) mod debug;
pub(crate) mod error_converters;
pub(crate) mod exchange;
// Only servers with threads of their own ask.
#[cfg_attr(not(unix), allow(dead_code))]
pub(crate) mod expiring_flag;
pub(crate) mod histogram;
mod lifecycle;
pub(crate) mod operation;
pub mod plugin;
pub(crate) mod provider;
pub(crate) mod route;
pub(crate) mod service;
pub(crate) mod serving;
pub(crate) mod shutdown;
pub(crate) mod urls;
