//! The integration tests: one binary, one module for each part.

mod stores;
mod support;
