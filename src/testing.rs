//! What helps to test an app, a plugin or a store.

mod client;
pub mod store_contract;

pub use client::{TestClient, TestRequest, TestResponse};
