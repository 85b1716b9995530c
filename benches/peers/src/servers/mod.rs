//! The app of the comparison on each server that is a Rust crate: `/plain` has no session, `/create/<name>` makes
//! one, `/read` reads its name, `/change` counts in it, `/count` reads the count, `/sleep` takes a second.

use std::time::Duration;

pub mod actix;
pub mod axum;
pub mod ours;
pub mod tiny_http;

/// How long a session lives without a change: longer than a run of the comparison.
pub const LIFETIME: Duration = Duration::from_secs(2 * 60 * 60);
/// What `/sleep` takes.
pub const SLEEP: Duration = Duration::from_secs(1);
