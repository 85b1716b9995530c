//! HTTPS: what the native server needs to speak TLS itself (feature `https`).
//!
//! ```no_run
//! use bottle_session::server::native::Native;
//! use bottle_session::server::tls::Tls;
//! use bottle_session::{App, Server, ShutdownHandle};
//!
//! let mut app = App::new();
//! app.get("/", || "hello");
//! let live = "/etc/letsencrypt/live/example.org";
//! let tls = Tls::files(format!("{live}/fullchain.pem"), format!("{live}/privkey.pem"))?;
//! let server = Native::bind("0.0.0.0:443")?
//!     .tls(tls)
//!     .redirect_from("0.0.0.0:80")?
//!     .acme_folder("/var/lib/acme");
//! let shutdown = ShutdownHandle::new();
//! shutdown.on_signals()?;
//! server.serve(app.build()?, &shutdown)?;
//! # Ok::<(), bottle_session::Error>(())
//! ```
//!
//! `app.run("https://0.0.0.0:443")` does the same without a redirect; `TLS_CERT` and `TLS_KEY` name the files. On an
//! address of this machine only, without those, it makes a certificate of its own (feature `dev-certificate`).
//!
//! - TLS 1.3 and 1.2 (rustls with ring); older versions are refused. HTTP/1.1 (ALPN `http/1.1`); no early data, no
//!   renegotiation. HTTP/2 is a reverse proxy's job.
//! - Tickets let clients resume without a new key exchange of certificates. Their keys change every six hours, and they
//!   outlive a renewal of the certificate, but not the process.
//! - [`head_deadline`](super::native::Native::head_deadline) counts from the moment of accepting: a client has that time
//!   for its handshake and its first head together.
//! - Handshakes compute on threads of their own, as many as there are cores, so that a storm of them does not delay the
//!   visitors who are connected.
//! - Whoever speaks plain HTTP to this port gets a 400 that names the https address.
//! - Handshakes that fail are log lines at level debug, with their number.

mod certificate;
mod renewal;
#[cfg(feature = "dev-certificate")]
mod self_signed;
mod session;

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use rustls::server::{ClientHello, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};

use self::certificate::{Called, Certificate, provider};
pub(crate) use self::renewal::RenewalWatcher;
use self::renewal::{Files, Loaded, Renewal};
pub(crate) use self::session::{Received, Refused, Session};
use crate::lock::{read, write};
use crate::message::address::ListenAddress;
use crate::{Error, ErrorKind, Result};

/// The one protocol that is spoken inside TLS (RFC 7301).
const HTTP_1_1: &[u8] = b"http/1.1";

/// The variables that name the files of [`App::run`](crate::App::run) with an `https://` address.
const CERT_VARIABLE: &str = "TLS_CERT";
const KEY_VARIABLE: &str = "TLS_KEY";

/// A certificate with its key, for [`Native::tls`](super::native::Native::tls).
pub struct Tls {
    source: Source,
    tls13_only: bool,
    names: Vec<String>,
}

enum Source {
    Files(Files, Loaded),
    Pem(Certificate),
    #[cfg(feature = "dev-certificate")]
    SelfSigned(Certificate),
    Config(Box<ServerConfig>),
}

impl Tls {
    /// A certificate with its chain behind it, and its key, in two files (PEM; PKCS8, PKCS1 or SEC1).
    ///
    /// While the server serves, both paths are looked at every 10 seconds, links followed anew, and at once when the
    /// process gets SIGHUP, which does not end it any more. A new pair that belongs together is in use from the next handshake on;
    /// connections, tickets and requests under way go on. A pair that cannot be used is logged once, and again whenever the
    /// files change; the old one serves on. Where that one ends within 14 days, there is an error in the log each day.
    ///
    /// An error says what is wrong with which file. A key that every user of the machine may read, and a certificate that has
    /// expired or will within 14 days, are warned of and served.
    pub fn files(certificate: impl AsRef<Path>, key: impl AsRef<Path>) -> Result<Tls> {
        let files = Files::new(certificate.as_ref(), key.as_ref());
        let loaded = files.load()?;
        Ok(Tls::new(Source::Files(files, loaded)))
    }

    /// The same from memory, for `include_bytes!` and secrets of the environment; it stays as it is.
    pub fn pem(certificate: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Result<Tls> {
        let called = Called { chain: "the given certificate", key: "the given key" };
        let certificate = Certificate::from_pem(certificate.as_ref(), key.as_ref(), called)?;
        Ok(Tls::new(Source::Pem(certificate)))
    }

    /// A certificate made at the start, for `localhost`, `127.0.0.1` and `::1`: to develop with. Its SHA-256 fingerprint is
    /// logged. A server on an address that others can reach refuses to serve with it.
    #[cfg(feature = "dev-certificate")]
    #[cfg_attr(docsrs, doc(cfg(feature = "dev-certificate")))]
    pub fn self_signed() -> Result<Tls> {
        Ok(Tls::new(Source::SelfSigned(self_signed::make()?)))
    }

    /// What rustls can and is not an option here: several names, certificates of clients, other versions and suites.
    ///
    /// Make it with [`ServerConfig::builder_with_provider`]; without a provider, rustls panics where two crates of the
    /// application brought one each. `alpn_protocols` is set to `http/1.1` where it is empty, and may hold nothing else.
    /// Early data is turned off. All else is as given: without a `ticketer`, 256 sessions are remembered.
    ///
    /// A certificate for each name that clients ask for (SNI):
    ///
    /// ```no_run
    /// use std::sync::Arc;
    ///
    /// use bottle_session::rustls::crypto::ring::{Ticketer, default_provider};
    /// use bottle_session::rustls::pki_types::pem::PemObject;
    /// use bottle_session::rustls::pki_types::{CertificateDer, PrivateKeyDer};
    /// use bottle_session::rustls::server::{ResolvesServerCertUsingSni, ServerConfig};
    /// use bottle_session::rustls::sign::CertifiedKey;
    /// use bottle_session::server::tls::Tls;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let provider = Arc::new(default_provider());
    /// let mut names = ResolvesServerCertUsingSni::new();
    /// for name in ["example.org", "example.net"] {
    ///     let chain = CertificateDer::pem_file_iter(format!("/etc/app/{name}.pem"))?;
    ///     let key = PrivateKeyDer::from_pem_file(format!("/etc/app/{name}.key"))?;
    ///     names.add(name, CertifiedKey::from_der(chain.collect::<Result<_, _>>()?, key, &provider)?)?;
    /// }
    /// let mut config = ServerConfig::builder_with_provider(provider)
    ///     .with_safe_default_protocol_versions()?
    ///     .with_no_client_auth()
    ///     .with_cert_resolver(Arc::new(names));
    /// config.ticketer = Ticketer::new()?;
    /// let tls = Tls::config(config)?.names(["example.org", "example.net"]);
    /// # let _ = tls;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Only clients with a certificate of an authority of one's own. Nothing is to be resumed then, as a ticket would go on
    /// vouching for a certificate that has been withdrawn:
    ///
    /// ```no_run
    /// use std::sync::Arc;
    ///
    /// use bottle_session::rustls::RootCertStore;
    /// use bottle_session::rustls::crypto::ring::default_provider;
    /// use bottle_session::rustls::pki_types::pem::PemObject;
    /// use bottle_session::rustls::pki_types::{CertificateDer, PrivateKeyDer};
    /// use bottle_session::rustls::server::{NoServerSessionStorage, ServerConfig, WebPkiClientVerifier};
    /// use bottle_session::server::tls::Tls;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let provider = Arc::new(default_provider());
    /// let mut authorities = RootCertStore::empty();
    /// authorities.add(CertificateDer::from_pem_file("/etc/app/staff.pem")?)?;
    /// let staff =
    ///     WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider.clone()).build()?;
    /// let chain = CertificateDer::pem_file_iter("/etc/app/cert.pem")?.collect::<Result<_, _>>()?;
    /// let mut config = ServerConfig::builder_with_provider(provider)
    ///     .with_safe_default_protocol_versions()?
    ///     .with_client_cert_verifier(staff)
    ///     .with_single_cert(chain, PrivateKeyDer::from_pem_file("/etc/app/key.pem")?)?;
    /// config.session_storage = Arc::new(NoServerSessionStorage {});
    /// config.send_tls13_tickets = 0;
    /// let tls = Tls::config(config)?;
    /// # let _ = tls;
    /// # Ok(())
    /// # }
    /// ```
    pub fn config(mut config: ServerConfig) -> Result<Tls> {
        if config.alpn_protocols.is_empty() {
            config.alpn_protocols = vec![HTTP_1_1.to_vec()];
        }
        if let Some(other) = config.alpn_protocols.iter().find(|name| *name != HTTP_1_1) {
            let other = String::from_utf8_lossy(other);
            let text = format!(
                "alpn_protocols names {other:?}, which this server does not speak; leave it empty, or name http/1.1"
            );
            return Err(Error::new(ErrorKind::Config, text));
        }
        // What comes early can be sent again by anybody (RFC 8446 section 8).
        config.max_early_data_size = 0;
        Ok(Tls::new(Source::Config(Box::new(config))))
    }

    fn new(source: Source) -> Tls {
        Tls { source, tls13_only: false, names: Vec::new() }
    }

    /// Speaks TLS 1.3 only; 1.2 as well unless set. A [`config`](Tls::config) has its own versions.
    #[must_use]
    pub fn tls13_only(mut self) -> Tls {
        self.tls13_only = true;
        self
    }

    /// The names, such as `example.org` or `*.example.org`, that [`redirect_from`](super::native::Native::redirect_from)
    /// redirects to; those of the certificate unless set. A [`config`](Tls::config) must say.
    #[must_use]
    pub fn names(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Tls {
        self.names = names.into_iter().map(Into::into).collect();
        self
    }

    /// What an `https://` address alone says: the files that the environment names, or a certificate of its own.
    pub(crate) fn from_environment(address: &ListenAddress) -> Result<Tls> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        match (variable(CERT_VARIABLE), variable(KEY_VARIABLE)) {
            (Some(certificate), Some(key)) => Tls::files(Path::new(&certificate), Path::new(&key)),
            (None, None) if address.is_local() => Tls::for_development(),
            (certificate, _) => {
                let missing = match certificate {
                    Some(_) => format!("{KEY_VARIABLE} is not set"),
                    None => format!("{CERT_VARIABLE} is not set"),
                };
                let text = format!(
                    "{missing}: {address} needs a certificate; {CERT_VARIABLE} and {KEY_VARIABLE} are to name its \
                     files, such as certbot's fullchain.pem and privkey.pem"
                );
                Err(Error::new(ErrorKind::Config, text))
            }
        }
    }

    #[cfg(feature = "dev-certificate")]
    fn for_development() -> Result<Tls> {
        Tls::self_signed()
    }

    #[cfg(not(feature = "dev-certificate"))]
    fn for_development() -> Result<Tls> {
        let text = format!(
            "{CERT_VARIABLE} and {KEY_VARIABLE} name no files of a certificate; feature dev-certificate makes one for \
             addresses of this machine"
        );
        Err(Error::new(ErrorKind::Config, text))
    }

    /// What accepts connections at this address; and what renews the certificate, as long as it is kept.
    pub(crate) fn into_acceptor(
        self,
        address: &ListenAddress,
    ) -> Result<(TlsAcceptor, Option<RenewalWatcher>)> {
        let (certificate, renewal) = match self.source {
            Source::Config(config) => {
                let acceptor = TlsAcceptor {
                    config: Arc::new(*config),
                    current: None,
                    names: self.names,
                    failed: AtomicU64::new(0),
                    yields: AtomicU32::new(0),
                };
                return Ok((acceptor, None));
            }
            Source::Files(files, loaded) => (loaded.certificate.clone(), Some((files, loaded))),
            Source::Pem(certificate) => (certificate, None),
            #[cfg(feature = "dev-certificate")]
            Source::SelfSigned(_) if !address.is_local() => {
                let text = format!(
                    "{address} can be reached from elsewhere, and a self-signed certificate is for this machine only; \
                     take Tls::files"
                );
                return Err(Error::new(ErrorKind::Config, text));
            }
            #[cfg(feature = "dev-certificate")]
            Source::SelfSigned(certificate) => (certificate, None),
        };
        let _ = address;
        let current = Arc::new(CurrentCertificate::new(&certificate));
        let versions: &[_] = if self.tls13_only { &[&TLS13] } else { &[&TLS13, &TLS12] };
        let refused = |error: rustls::Error| {
            Error::new(ErrorKind::Config, format!("TLS cannot be set up: {error}"))
                .with_source(error)
        };
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(versions)
            .map_err(refused)?
            .with_no_client_auth()
            .with_cert_resolver(current.clone());
        config.alpn_protocols = vec![HTTP_1_1.to_vec()];
        // Else 256 sessions are remembered, of all visitors.
        config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(refused)?;
        // Each connection earns another one: as many as a client opens at once, it has next time.
        config.send_tls13_tickets = 1;
        let watch = renewal
            .map(|(files, loaded)| {
                RenewalWatcher::start(Renewal::new(files, loaded, current.clone()))
            })
            .transpose()?;
        let acceptor = TlsAcceptor {
            config: Arc::new(config),
            current: Some(current),
            names: self.names,
            failed: AtomicU64::new(0),
            yields: AtomicU32::new(0),
        };
        Ok((acceptor, watch))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::Files(files, _) => write!(f, "Tls({files:?})"),
            Source::Pem(_) => f.write_str("Tls(Pem)"),
            #[cfg(feature = "dev-certificate")]
            Source::SelfSigned(_) => f.write_str("Tls(SelfSigned)"),
            Source::Config(_) => f.write_str("Tls(Config)"),
        }
    }
}

/// How many handshakes give way after each request of somebody who was connected.
const YIELDS: u32 = 64;

/// What all connections of a server over TLS share.
pub(crate) struct TlsAcceptor {
    config: Arc<ServerConfig>,
    /// The certificate, unless the application's own configuration has it.
    current: Option<Arc<CurrentCertificate>>,
    names: Vec<String>,
    /// Handshakes that failed.
    failed: AtomicU64,
    /// How many handshakes give way yet to those who are connected.
    yields: AtomicU32,
}

impl TlsAcceptor {
    fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    fn may_ask_for_certificates(&self) -> bool {
        self.current.is_none()
    }

    /// Takes note of a request of somebody who was connected.
    pub(crate) fn visited(&self) {
        self.yields.store(YIELDS, Ordering::Relaxed);
    }

    /// Lets the threads that answer those who are connected go first, where there have been requests of these lately. Without
    /// any, handshakes follow each other closely: to change threads between them costs a third of their time.
    pub(crate) fn give_way(&self) {
        let left = self.yields.load(Ordering::Relaxed);
        if left > 0 {
            // One too many or too few is no matter.
            self.yields.store(left - 1, Ordering::Relaxed);
            std::thread::yield_now();
        }
    }

    /// Counts a handshake that failed; how many there have been.
    pub(crate) fn failed(&self) -> u64 {
        self.failed.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Whether it is known for which names there are certificates.
    pub(crate) fn knows_names(&self) -> bool {
        self.current.is_some() || !self.names.is_empty()
    }

    /// Whether there is a certificate for this name or IP address.
    pub(crate) fn is_for(&self, host: &str) -> bool {
        match &self.current {
            Some(current) if self.names.is_empty() => certificate::is_for(&current.get(), host),
            _ => self.names.iter().any(|name| covers(name, host)),
        }
    }
}

/// Whether a name, perhaps with a wildcard for its first label, is that of the host.
fn covers(name: &str, host: &str) -> bool {
    match name.strip_prefix("*.") {
        Some(parent) => host
            .split_once('.')
            .is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(parent)),
        None => name.eq_ignore_ascii_case(host),
    }
}

impl fmt::Debug for TlsAcceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsAcceptor")
    }
}

/// The certificate in use, which a renewal replaces: all else of the configuration stays, tickets above all.
struct CurrentCertificate(RwLock<Arc<CertifiedKey>>);

impl CurrentCertificate {
    fn new(certificate: &Certificate) -> CurrentCertificate {
        CurrentCertificate(RwLock::new(certificate.key.clone()))
    }

    fn get(&self) -> Arc<CertifiedKey> {
        read(&self.0).clone()
    }

    fn replace(&self, certificate: &Certificate) {
        *write(&self.0) = certificate.key.clone();
    }
}

impl ResolvesServerCert for CurrentCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.get())
    }
}

impl fmt::Debug for CurrentCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CurrentCertificate")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_wildcard_covers_one_label() {
        for (name, host, expected) in [
            ("example.org", "example.org", true),
            ("example.org", "EXAMPLE.org", true),
            ("example.org", "www.example.org", false),
            ("*.example.org", "www.example.org", true),
            ("*.example.org", "a.b.example.org", false),
            ("*.example.org", "example.org", false),
            ("*.example.org", ".example.org", false),
        ] {
            assert_eq!(covers(name, host), expected, "{name} {host}");
        }
    }
}
