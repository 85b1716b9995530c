//! Where a server listens.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// Where a server listens.
///
/// ```
/// use bottle_session::server::native::Native;
/// use bottle_session::{ListenAddress, Server};
///
/// let server = Native::bind("127.0.0.1:0")?;
/// let ListenAddress::Tcp(address) = server.address() else { panic!("it is plain HTTP") };
/// assert!(address.port() != 0 && server.address().is_local());
/// assert_eq!(server.address().to_string(), format!("http://{address}"));
/// # Ok::<(), bottle_session::Error>(())
/// ```
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

/// The name or address of a host that may have a port.
pub(crate) fn without_port(host: &str) -> &str {
    let bare = host.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(bare, _)| bare);
    bare.unwrap_or_else(|| host.split_once(':').map_or(host, |(name, _)| name))
}

/// Whether a host, which may have a port, is this machine, as far as its name tells (RFC 6761 section 6.3).
pub(crate) fn is_this_machine(host: &str) -> bool {
    let name = without_port(host);
    match name.parse::<IpAddr>() {
        Ok(ip) => ip.to_canonical().is_loopback(),
        Err(_) => {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            name == "localhost" || name.ends_with(".localhost")
        }
    }
}

/// Whether others than this machine and its network can reach a host, which may have a port, as far as its name tells:
/// not a private address, nor a name that never is in the public DNS (RFC 6761, 6762 and 8375, ICANN's `internal`).
pub(crate) fn is_public(host: &str) -> bool {
    let name = without_port(host);
    if let Ok(ip) = name.parse::<IpAddr>() {
        return match ip.to_canonical() {
            IpAddr::V4(ip) => {
                !(ip.is_loopback() || ip.is_private() || ip.is_link_local() || ip.is_unspecified())
            }
            IpAddr::V6(ip) => {
                !(ip.is_loopback()
                    || ip.is_unique_local()
                    || ip.is_unicast_link_local()
                    || ip.is_unspecified())
            }
        };
    }
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let own = [".localhost", ".local", ".internal", ".test", ".home.arpa"];
    name.contains('.') && !own.iter().any(|end| name.ends_with(end))
}

#[test]
fn a_public_host_is_told_from_one_of_this_network() {
    for host in
        ["shop.example", "SHOP.EXAMPLE.:8443", "8.8.8.8", "8.8.8.8:80", "[2606:4700::1]:443"]
    {
        assert!(is_public(host), "{host}");
    }
    for host in [
        "localhost",
        "localhost:80",
        "a.localhost",
        "127.0.0.1:80",
        "10.1.2.3",
        "192.168.0.1:8080",
        "app",
        "app:80",
        "printer.local",
        "db.internal.",
        "169.254.1.1",
        "0.0.0.0",
        "[::1]:80",
        "[fe80::1]",
        "[fd00::1]:1",
        "[::ffff:10.0.0.1]",
        "",
    ] {
        assert!(!is_public(host), "{host}");
    }
}
