//! What commands and replies travel over: a socket, bare or inside TLS.

use std::io::{ErrorKind, Read, Result, Write};
use std::time::Instant;

use super::config::{Address, RedisConfig};
use super::stream::Stream;

pub(super) enum Transport {
    Bare(Stream),
    #[cfg(feature = "rustls")]
    Tls(Box<rustls::StreamOwned<rustls::ClientConnection, Stream>>),
}

/// Whom to trust, read once for all connections of a pool.
#[derive(Clone, Default)]
pub(super) struct Trust {
    #[cfg(feature = "rustls")]
    tls: Option<std::sync::Arc<rustls::ClientConfig>>,
}

impl Trust {
    /// The authorities that this configuration names, or the operating system's.
    #[cfg(not(feature = "rustls"))]
    pub(super) fn new(_: &RedisConfig) -> crate::Result<Trust> {
        Ok(Trust {})
    }

    /// The authorities that this configuration names, or the operating system's.
    #[cfg(feature = "rustls")]
    pub(super) fn new(config: &RedisConfig) -> crate::Result<Trust> {
        use rustls::pki_types::pem::PemObject;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer};

        use crate::{Error, ErrorKind};

        if !config.address.is_tls() {
            return Ok(Trust { tls: None });
        }
        let refused = |why: &str| Error::new(ErrorKind::Config, format!("{config}: {why}"));
        let mut roots = rustls::RootCertStore::empty();
        match &config.ca_certificate {
            Some(pem) => {
                for certificate in CertificateDer::pem_slice_iter(pem) {
                    certificate
                        .map_err(|error| {
                            refused("the CA certificate is not PEM").with_source(error)
                        })
                        .and_then(|certificate| {
                            roots.add(certificate).map_err(|error| {
                                refused("the CA certificate cannot be used").with_source(error)
                            })
                        })?;
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        if roots.is_empty() {
            return Err(refused(
                "there is no certificate authority to trust; set RedisConfig::ca_certificate",
            ));
        }
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| refused("TLS cannot be set up").with_source(error))?
            .with_root_certificates(roots);
        let tls = match &config.client_certificate {
            None => tls.with_no_client_auth(),
            Some((pem, key)) => {
                let chain =
                    CertificateDer::pem_slice_iter(pem).collect::<std::result::Result<Vec<_>, _>>();
                let chain = chain.map_err(|error| {
                    refused("the client certificate is not PEM").with_source(error)
                })?;
                if chain.is_empty() {
                    return Err(refused("the client certificate is not PEM"));
                }
                // Without the source, which may quote what it read.
                let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| {
                    refused("the client certificate's key is not PEM, or is encrypted")
                })?;
                tls.with_client_auth_cert(chain, key).map_err(|error| {
                    refused("the client certificate and its key cannot be used together")
                        .with_source(error)
                })?
            }
        };
        Ok(Trust { tls: Some(std::sync::Arc::new(tls)) })
    }
}

impl Transport {
    pub(super) fn connect(
        address: &Address,
        trust: &Trust,
        deadline: Instant,
    ) -> Result<Transport> {
        let stream = Stream::connect(address, deadline)?;
        match address {
            Address::Tcp { host, tls: true, .. } => Transport::inside_tls(stream, host, trust),
            _ => Ok(Transport::Bare(stream)),
        }
    }

    #[cfg(feature = "rustls")]
    fn inside_tls(stream: Stream, host: &str, trust: &Trust) -> Result<Transport> {
        use std::io::Error;

        let config = trust.tls.clone().ok_or_else(|| Error::other("TLS was not set up"))?;
        let name =
            rustls::pki_types::ServerName::try_from(host.to_owned()).map_err(Error::other)?;
        let session = rustls::ClientConnection::new(config, name).map_err(Error::other)?;
        let mut transport = rustls::StreamOwned::new(session, stream);
        // Here, so that a certificate that is not trusted is an error of connecting.
        while transport.conn.is_handshaking() {
            transport.conn.complete_io(&mut transport.sock).map_err(explained)?;
        }
        Ok(Transport::Tls(Box::new(transport)))
    }

    #[cfg(not(feature = "rustls"))]
    fn inside_tls(_: Stream, _: &str, _: &Trust) -> Result<Transport> {
        Err(std::io::Error::new(std::io::ErrorKind::Unsupported, "TLS needs the feature `rustls`"))
    }

    /// Looks, without waiting, whether the other side has closed, or has said something unasked.
    pub(super) fn is_quiet(&mut self) -> bool {
        if self.set_nonblocking(true).is_err() {
            return false;
        }
        let seen = self.read(&mut [0]);
        let waits = matches!(seen, Err(error) if error.kind() == ErrorKind::WouldBlock);
        self.set_nonblocking(false).is_ok() && waits
    }

    pub(super) fn set_nonblocking(&mut self, nonblocking: bool) -> Result<()> {
        match self {
            Transport::Bare(stream) => stream.set_nonblocking(nonblocking),
            #[cfg(feature = "rustls")]
            Transport::Tls(transport) => transport.sock.set_nonblocking(nonblocking),
        }
    }

    /// Ends it, as a server does that has enough.
    #[cfg(all(test, unix))]
    pub(super) fn shut_down(&self) {
        match self {
            Transport::Bare(stream) => stream.shut_down(),
            #[cfg(feature = "rustls")]
            Transport::Tls(transport) => transport.sock.shut_down(),
        }
    }

    #[cfg(unix)]
    pub(super) fn is_tls(&self) -> bool {
        !matches!(self, Transport::Bare(_))
    }

    #[cfg(unix)]
    pub(super) fn fd(&self) -> std::os::fd::RawFd {
        match self {
            Transport::Bare(stream) => stream.fd(),
            #[cfg(feature = "rustls")]
            Transport::Tls(transport) => transport.sock.fd(),
        }
    }

    /// From now on, this is when reading and writing end.
    pub(super) fn until(&mut self, deadline: Instant) {
        match self {
            Transport::Bare(stream) => stream.until(deadline),
            #[cfg(feature = "rustls")]
            Transport::Tls(transport) => transport.sock.until(deadline),
        }
    }
}

/// What would do about certificates that one of the two sides does not take.
#[cfg(feature = "rustls")]
fn explained(error: std::io::Error) -> std::io::Error {
    use rustls::{AlertDescription, CertificateError};

    let tls = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    let would_do = match tls {
        Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            "no authority that is trusted here has signed the server's certificate: name the one that has with \
             RedisConfig::ca_certificate"
        }
        // rustls has no word of its own for it.
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(other)))
            if format!("{other:?}").contains("CaUsedAsEndEntity") =>
        {
            "the server's certificate is that of an authority (CA:TRUE), as openssl makes them where nothing else \
             is said, and no server's: make it with -addext basicConstraints=critical,CA:FALSE, or have an \
             authority sign one"
        }
        Some(rustls::Error::AlertReceived(AlertDescription::CertificateRequired)) => {
            "the server asks for a certificate of ours: give RedisConfig::client_certificate"
        }
        Some(rustls::Error::AlertReceived(AlertDescription::UnknownCA)) => {
            "the server does not trust the authority of RedisConfig::client_certificate"
        }
        _ => return error,
    };
    std::io::Error::new(error.kind(), format!("{error}; {would_do}"))
}

impl Read for Transport {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        match self {
            Transport::Bare(stream) => stream.read(buffer),
            #[cfg(feature = "rustls")]
            Transport::Tls(transport) => transport.read(buffer).map_err(explained),
        }
    }
}

impl Write for Transport {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        match self {
            Transport::Bare(stream) => stream.write(bytes),
            #[cfg(feature = "rustls")]
            Transport::Tls(transport) => transport.write(bytes),
        }
    }

    fn flush(&mut self) -> Result<()> {
        match self {
            Transport::Bare(stream) => stream.flush(),
            #[cfg(feature = "rustls")]
            Transport::Tls(transport) => transport.flush(),
        }
    }
}
