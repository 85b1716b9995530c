//! A certificate that is made at the start, to develop with.

use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};

use super::certificate::{Called, Certificate};
use crate::{Error, ErrorKind, Result};

/// For whom it is.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Browsers take none that is valid for longer than 398 days, though one has agreed to it.
const VALID_FOR: Duration = Duration::from_secs(90 * 24 * 60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Makes a certificate, and logs by what it is recognized.
pub(super) fn make() -> Result<Certificate> {
    let refused = |error: rcgen::Error| {
        let text = format!("no certificate can be made: {error}");
        Error::new(ErrorKind::Config, text).with_source(error)
    };
    let key = KeyPair::generate().map_err(refused)?;
    let mut params = CertificateParams::new(NAMES.map(str::to_owned)).map_err(refused)?;
    // Clocks differ.
    let now = SystemTime::now();
    (params.not_before, params.not_after) = ((now - DAY).into(), (now + VALID_FOR).into());
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.self_signed(&key).map_err(refused)?;
    let digest = Sha256::digest(certificate.der());
    let fingerprint: Vec<_> = digest.iter().map(|byte| format!("{byte:02X}")).collect();
    log::info!(
        "made a certificate for {}, SHA-256 fingerprint {}",
        NAMES.join(", "),
        fingerprint.join(":")
    );
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let called = Called { chain: "the certificate that was made", key: "its key" };
    Certificate::new(vec![certificate.der().clone()], key, called)
}
