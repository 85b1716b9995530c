//! What helps to test an app, a plugin or a store.

pub mod store_contract;
