//! All integration tests, in one binary: it links once.

mod app;
mod hostile;
mod processes;
mod redis_store;
mod servers;
mod sessions;
mod stores;
mod support;
