//! The app of the comparison on each server that is a Rust crate: `/plain` has no session, `/create/<name>` makes
//! one, `/read` reads its name, `/change` counts in it, `/count` reads the count, `/sleep` takes a second.

use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::Failure;

pub mod actix;
pub mod axum;
pub mod ours;
pub mod tiny_http;

/// How long a session lives without a change: longer than a run of the comparison.
pub const LIFETIME: Duration = Duration::from_secs(2 * 60 * 60);
/// How many bytes `/large` answers with.
pub const LARGE: usize = 1024 * 1024;
/// What `/sleep` takes.
pub const SLEEP: Duration = Duration::from_secs(1);

/// The certificate of the run as rustls takes it: with ring, as for all servers here; all else as it is by default.
fn config(folder: &str) -> Result<ServerConfig, Failure> {
    let chain = CertificateDer::pem_file_iter(format!("{folder}/cert.pem"))?;
    let key = PrivateKeyDer::from_pem_file(format!("{folder}/key.pem"))?;
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain.collect::<Result<_, _>>()?, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
