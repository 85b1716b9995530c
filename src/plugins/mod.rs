//! Small plugins that most sites want, each on its own. They use what any plugin can.

pub(crate) mod access_log;
pub(crate) mod basic_auth;
#[cfg(any(feature = "brotli", feature = "gzip"))]
pub(crate) mod compression;
pub(crate) mod cors;
pub(crate) mod metrics;
pub(crate) mod rate_limit;
pub(crate) mod request_id;
pub(crate) mod security_headers;
