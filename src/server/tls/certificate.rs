//! A certificate, its chain and its key, from PEM.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{Error as TlsError, InconsistentKeys};

use crate::{Error, ErrorKind, Result};

/// How long before its end a certificate is spoken of.
const WARN_BEFORE: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// A certificate with its chain and its key, which belong together.
#[derive(Clone)]
pub(super) struct Certificate {
    pub(super) key: Arc<CertifiedKey>,
    /// When it ends, where that could be read.
    ends: Option<SystemTime>,
}

/// How the two parts are called in messages.
#[derive(Clone, Copy)]
pub(super) struct Called<'a> {
    pub(super) chain: &'a str,
    pub(super) key: &'a str,
}

/// What is to be said of when a certificate ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// So many days ago.
    Past(u64),
    /// In so many days, which are few.
    Near(u64),
    Far,
}

impl Certificate {
    /// Reads the certificate, then its chain, and the key, all of them PEM.
    pub(super) fn from_pem(chain: &[u8], key: &[u8], called: Called<'_>) -> Result<Certificate> {
        let chain = read_chain(chain, called.chain)?;
        let key = read_key(key, called)?;
        Certificate::new(chain, key, called)
    }

    pub(super) fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        called: Called<'_>,
    ) -> Result<Certificate> {
        let Called { chain: chain_name, key: key_name } = called;
        let leaf = chain.first().map(|leaf| leaf.to_vec()).unwrap_or_default();
        let ends = not_after(&leaf);
        if let Err(error) = ParsedCertificate::try_from(&CertificateDer::from(leaf.as_slice())) {
            let text = format!("the certificate in {chain_name} cannot be understood: {error}");
            return Err(refused(text).with_source(error));
        }
        let key = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| {
            let text = match &error {
                TlsError::InconsistentKeys(InconsistentKeys::KeyMismatch) => format!(
                    "the key in {key_name} is not that of the certificate in {chain_name}; take both from one \
                     place, and let the certificate itself stand before its chain"
                ),
                error => format!(
                    "the key in {key_name} cannot be used: {error}; it must be ECDSA (P-256 or P-384), Ed25519, or \
                     RSA of 2,048 to 8,192 bits"
                ),
            };
            refused(text).with_source(error)
        })?;
        Ok(Certificate { key: Arc::new(key), ends })
    }

    pub(super) fn end(&self, now: SystemTime) -> End {
        self.ends.map_or(End::Far, |ends| End::of(ends, now))
    }
}

impl End {
    fn of(ends: SystemTime, now: SystemTime) -> End {
        let days = |time: Duration| time.as_secs() / (24 * 60 * 60);
        match ends.duration_since(now) {
            Err(past) => End::Past(days(past.duration())),
            Ok(left) if left <= WARN_BEFORE => End::Near(days(left)),
            Ok(_) => End::Far,
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = |days| if days == 1 { "" } else { "s" };
        match *self {
            End::Past(0) => f.write_str("has expired today"),
            End::Past(days) => write!(f, "has expired {days} day{} ago", plural(days)),
            End::Near(0) => f.write_str("expires within a day"),
            End::Near(days) => write!(f, "expires in {days} day{}", plural(days)),
            End::Far => f.write_str("is valid"),
        }
    }
}

/// The cryptography, whatever other crates of the application bring: rustls would panic where there are two.
pub(super) fn provider() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}

/// Whether the certificate of this key is for this name or IP address.
pub(super) fn is_for(key: &CertifiedKey, host: &str) -> bool {
    let Some(leaf) = key.cert.first() else { return false };
    let Ok(name) = ServerName::try_from(host) else { return false };
    ParsedCertificate::try_from(leaf)
        .is_ok_and(|leaf| rustls::client::verify_server_name(&leaf, &name).is_ok())
}

fn refused(text: String) -> Error {
    Error::new(ErrorKind::Config, text)
}

fn read_chain(text: &[u8], name: &str) -> Result<Vec<CertificateDer<'static>>> {
    if text.trim_ascii().is_empty() {
        return Err(refused(format!(
            "{name} is empty; it should hold a certificate and its chain"
        )));
    }
    let chain: Vec<_> = CertificateDer::pem_slice_iter(text)
        .collect::<std::result::Result<_, _>>()
        .map_err(|error| malformed(name, error))?;
    if chain.is_empty() {
        return Err(refused(format!(
            "{name} holds no certificate (-----BEGIN CERTIFICATE-----); one in DER becomes PEM with openssl x509 \
             -inform der -in FILE -out cert.pem"
        )));
    }
    Ok(chain)
}

fn read_key(text: &[u8], called: Called<'_>) -> Result<PrivateKeyDer<'static>> {
    let name = called.key;
    if text.trim_ascii().is_empty() {
        return Err(refused(format!("{name} is empty; it should hold the key of the certificate")));
    }
    let has = |part: &str| memchr::memmem::find(text, part.as_bytes()).is_some();
    if has("BEGIN ENCRYPTED PRIVATE KEY") || has("Proc-Type: 4,ENCRYPTED") {
        return Err(refused(format!(
            "the key in {name} is encrypted, and nobody is there to type its password; openssl pkey -in FILE -out \
             key.pem writes it without one"
        )));
    }
    match PrivateKeyDer::from_pem_slice(text) {
        Ok(key) => Ok(key),
        Err(pem::Error::NoItemsFound) => {
            let why = if has("BEGIN CERTIFICATE") {
                "; it holds a certificate: are the two swapped?"
            } else {
                " (-----BEGIN PRIVATE KEY-----)"
            };
            Err(refused(format!("{name} holds no private key{why}")))
        }
        Err(error) => Err(malformed(name, error)),
    }
}

fn malformed(name: &str, error: pem::Error) -> Error {
    refused(format!("{name} is not PEM: {error}")).with_source(error)
}

/// When a certificate ends (RFC 5280 section 4.1), where its DER can be followed so far.
fn not_after(certificate: &[u8]) -> Option<SystemTime> {
    const SEQUENCE: u8 = 0x30;
    const VERSION: u8 = 0xa0;
    let (_, certificate, _) = element(certificate)?;
    let (_, mut rest, _) = element(certificate)?;
    let (tag, _, behind) = element(rest)?;
    if tag == VERSION {
        rest = behind;
    }
    // Serial number, signature algorithm, issuer.
    for _ in 0..3 {
        rest = element(rest)?.2;
    }
    let (tag, validity, _) = element(rest)?;
    let (_, _, behind) = element(validity)?;
    let (kind, text, _) = element(behind)?;
    if tag != SEQUENCE { None } else { time(kind, text) }
}

/// An element of DER: its tag, what is in it, and what is behind it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // So many bytes hold the length.
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (inside, behind) = rest.split_at_checked(length)?;
    Some((tag, inside, behind))
}

/// Reads a UTCTime (`261129203000Z`) or a GeneralizedTime (`20501129203000Z`).
fn time(kind: u8, text: &[u8]) -> Option<SystemTime> {
    const UTC_TIME: u8 = 0x17;
    const GENERALIZED_TIME: u8 = 0x18;
    let text = std::str::from_utf8(text.strip_suffix(b"Z")?).ok()?;
    let (year, rest) = match kind {
        UTC_TIME => {
            let (year, rest) = text.split_at_checked(2)?;
            let year: i64 = year.parse().ok()?;
            // RFC 5280 section 4.1.2.5.1.
            (if year >= 50 { 1900 + year } else { 2000 + year }, rest)
        }
        GENERALIZED_TIME => {
            let (year, rest) = text.split_at_checked(4)?;
            (year.parse().ok()?, rest)
        }
        _ => return None,
    };
    let mut numbers = [0_i64; 5];
    for (at, number) in numbers.iter_mut().enumerate() {
        *number = rest.get(2 * at..2 * at + 2)?.parse().ok()?;
    }
    let [month, day, hour, minute, second] = numbers;
    // Days since 1970 in the Gregorian calendar, whose years begin in March here, so that a leap day is the last one.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days =
        365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 719_469;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_certificate_is_read() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let (utc, generalized) = (0x17, 0x18);
        // By date -u -d … +%s.
        for (kind, text, seconds) in [
            (utc, "700101000000Z", Some(0)),
            (utc, "261129203007Z", Some(1_795_984_207)),
            (utc, "240229235959Z", Some(1_709_251_199)),
            (utc, "491231235959Z", Some(2_524_607_999)),
            (generalized, "20500101000000Z", Some(2_524_608_000)),
            (generalized, "99991231235959Z", Some(253_402_300_799)),
            (generalized, "21000301000000Z", Some(4_107_542_400)),
            (utc, "690101000000Z", None),
            (utc, "2611292030Z", None),
            (utc, "261129203007", None),
            (generalized, "261129203007Z", None),
            (0x02, "261129203007Z", None),
        ] {
            assert_eq!(time(kind, text.as_bytes()), seconds.map(at), "{text}");
        }
    }

    #[test]
    fn der_that_breaks_off_anywhere_has_no_end() {
        // A certificate up to its validity: version, serial number, algorithm, issuer.
        let mut inside = vec![0xa0, 3, 2, 1, 2, 2, 1, 7, 0x30, 0, 0x30, 0, 0x30, 30, 0x17, 13];
        inside.extend(b"250101000000Z\x17\x0d261129203007Z");
        let mut whole = vec![0x30, 0x81, (inside.len() + 2) as u8, 0x30, inside.len() as u8];
        whole.extend(&inside);
        let expected = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_984_207);
        assert_eq!(not_after(&whole), Some(expected));
        for cut in 0..whole.len() {
            assert_eq!(not_after(&whole[..cut]), None, "{cut}");
        }
        assert_eq!(element(&[0x30, 0x80, 0, 0]), None, "of no length");
        assert_eq!(element(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 0]), None);
    }

    #[test]
    fn few_days_are_spoken_of() {
        let day = Duration::from_secs(24 * 60 * 60);
        let now = SystemTime::UNIX_EPOCH + 1000 * day;
        let table = [
            (now - 3 * day, End::Past(3), "has expired 3 days ago"),
            (now - day / 2, End::Past(0), "has expired today"),
            (now + day / 2, End::Near(0), "expires within a day"),
            (now + day, End::Near(1), "expires in 1 day"),
            (now + 14 * day, End::Near(14), "expires in 14 days"),
            (now + 15 * day, End::Far, "is valid"),
        ];
        for (ends, expected, text) in table {
            let end = End::of(ends, now);
            assert_eq!((end, end.to_string().as_str()), (expected, text));
        }
    }
}
