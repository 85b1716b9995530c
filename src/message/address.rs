//! Where a server listens.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// An IP address and port, plain HTTP.
    Tcp(SocketAddr),
    /// An IP address and port, HTTPS.
    Tls(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

impl ListenAddress {
    /// Whether only this machine can connect.
    pub fn is_local(&self) -> bool {
        match self {
            ListenAddress::Tcp(address) | ListenAddress::Tls(address) => address.ip().is_loopback(),
            ListenAddress::Unix(_) => true,
        }
    }

    /// The IP address and port; a unix socket has none.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self {
            ListenAddress::Tcp(address) | ListenAddress::Tls(address) => Some(*address),
            ListenAddress::Unix(_) => None,
        }
    }

    /// Whether the server itself speaks TLS there. Behind a proxy that does, it need not.
    pub fn is_https(&self) -> bool {
        matches!(self, ListenAddress::Tls(_))
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Tcp(address) => write!(f, "http://{address}"),
            ListenAddress::Tls(address) => write!(f, "https://{address}"),
            ListenAddress::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
