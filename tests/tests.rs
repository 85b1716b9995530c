//! All integration tests, in one binary: it links once.

mod app;
mod csrf;
mod flash;
mod sessions;
mod stores;
