//! All integration tests, in one binary: it links once.

mod access_log;
mod app;
mod architecture;
mod basic_auth;
mod batches;
mod bottle_ports;
mod browser;
#[path = "../examples/cart.rs"]
#[allow(dead_code)]
mod cart_example;
mod compile_messages;
#[cfg(any(feature = "brotli", feature = "gzip"))]
mod compression;
mod cors;
mod csrf;
mod debug_pages;
mod errors;
mod events;
mod examples_in_docs;
mod failover;
mod failover_sentinels;
mod faults;
mod files;
mod flash;
mod forms;
#[cfg(feature = "garde")]
#[path = "../examples/forms.rs"]
#[allow(dead_code)]
mod forms_example;
mod going_live;
mod guide;
mod guide_logs;
mod guide_redis;
mod hostile;
#[cfg(feature = "https")]
#[allow(clippy::duplicate_mod)]
#[path = "hostile/mod.rs"]
mod hostile_over_tls;
#[cfg(feature = "https")]
mod https;
mod links;
mod listening;
#[cfg(unix)]
mod logging;
#[path = "../examples/login.rs"]
// It hashes passwords as the notes do.
#[allow(dead_code, clippy::duplicate_mod)]
mod login_example;
mod login_pages;
mod logins;
mod memory;
mod metrics;
mod nginx;
mod notes;
#[path = "../examples/notes/main.rs"]
#[allow(dead_code)]
mod notes_example;
mod package;
#[path = "../examples/pages/main.rs"]
#[allow(dead_code)]
mod pages_example;
mod pending;
mod processes;
mod production;
mod rate_limit;
mod readme;
mod redis_cluster;
#[cfg(feature = "r2d2_redis")]
mod redis_external;
mod redis_permissions;
mod redis_pool;
mod redis_replicas;
mod redis_sentinel;
mod redis_sessions;
mod redis_store;
#[cfg(feature = "rustls")]
mod redis_tls;
mod redis_versions;
mod request_id;
#[cfg(all(feature = "sealed", feature = "sqlite"))]
mod sealed;
mod security_headers;
mod servers;
mod session_batches;
mod session_data;
mod sessions;
#[cfg(all(unix, feature = "sqlite"))]
mod sqlite_faults;
#[cfg(all(unix, feature = "sqlite"))]
mod sqlite_guide;
#[cfg(all(unix, feature = "sqlite"))]
mod sqlite_store;
#[cfg(all(unix, feature = "sqlite"))]
mod sqlite_tombstones;
mod static_files;
mod store_model;
mod stores;
mod support;
mod test_client;
#[cfg(feature = "tiny_http")]
mod tiny_http;
mod watching;
