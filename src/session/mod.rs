//! Sessions.

pub(crate) mod id;
pub(crate) mod memory;
pub(crate) mod redis;
pub(crate) mod store;
