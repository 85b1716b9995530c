//! All integration tests, in one binary: it links once.

mod app;
mod redis_store;
mod sessions;
mod store_model;
mod stores;
mod support;
