//! All integration tests, in one binary: it links once.

mod app;
mod compile_messages;
mod sessions;
mod stores;
