//! The integration tests: one binary, one module for each part.

mod redis_store;
mod stores;
mod support;
