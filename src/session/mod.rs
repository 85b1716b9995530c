//! Sessions.

pub(crate) mod id;
pub(crate) mod store;
