//! A small, synchronous, Bottle-style web framework with server-side sessions.
#![forbid(unsafe_code)]

mod error;

pub use error::{Error, ErrorKind, Result};
