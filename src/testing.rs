//! What helps to test an app, a plugin or a store.

mod client;
mod multipart;
mod response;
pub mod store_contract;

pub use client::{TestClient, TestRequest};
pub use response::TestResponse;
