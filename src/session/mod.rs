//! Sessions.

pub(crate) mod id;
pub(crate) mod memory;
pub(crate) mod store;
