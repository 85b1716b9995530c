//! All integration tests, in one binary: it links once.

mod app;
mod sessions;
mod stores;
mod support;
