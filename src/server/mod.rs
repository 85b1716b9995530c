//! Servers: what carries requests to a [`Service`] and answers back.

#[cfg(any(unix, feature = "tiny_http"))]
#[cfg_attr(not(unix), allow(dead_code))]
mod http1;
#[cfg(unix)]
pub mod native;
#[cfg(feature = "tiny_http")]
pub mod tiny_http;
#[cfg(all(unix, feature = "https"))]
pub mod tls;

use std::net::SocketAddr;

use crate::message::address::ListenAddress;
use crate::pipeline::service::Service;
pub use crate::pipeline::serving::Serving;
pub use crate::pipeline::shutdown::{ShutdownHandle, ShutdownStage};
use crate::{Error, ErrorKind, Result};

/// A server: it listens from the moment it exists, and serves until it is told to stop.
///
/// ```
/// use bottle_session::server::native::Native;
/// use bottle_session::{App, Result, Server, ShutdownHandle};
///
/// /// Serves on whatever server there is until it is told to stop.
/// fn serve<S: Server>(server: S, app: App) -> Result<()> {
///     println!("listening on {}", server.address());
///     let shutdown = ShutdownHandle::new();
///     shutdown.on_signals()?;
///     server.serve(app.build()?, &shutdown)
/// }
///
/// let server = Native::bind("127.0.0.1:0")?.access_log(true);
/// # let _ = (serve::<Native>, server);
/// # Ok::<(), bottle_session::Error>(())
/// ```
pub trait Server {
    /// Where it listens, with the real port where it was bound to port 0.
    fn address(&self) -> ListenAddress;

    /// Serves until the handle says stop; then finishes the requests that are running.
    fn serve(self, service: Service, shutdown: &ShutdownHandle) -> Result<()>;
}

/// An address as it is known elsewhere: a listener on `[::]` sees the IPv4 client 192.0.2.7 as `::ffff:192.0.2.7`.
#[cfg(any(unix, feature = "tiny_http"))]
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// What the log says of a name such as `localhost` that is several addresses, of which a server listens on one.
#[cfg(any(unix, feature = "tiny_http"))]
fn elsewhere(name: &str, bound: &ListenAddress) -> String {
    use std::net::ToSocketAddrs;
    let Some(bound) = bound.socket_addr() else { return String::new() };
    let mut others: Vec<_> =
        name.to_socket_addrs().into_iter().flatten().map(|at| at.ip()).collect();
    others.retain(|ip| *ip != bound.ip());
    not_listened_on(name, others)
}

#[cfg(any(unix, feature = "tiny_http"))]
fn not_listened_on(name: &str, mut others: Vec<std::net::IpAddr>) -> String {
    others.dedup();
    if others.is_empty() {
        return String::new();
    }
    let others: Vec<_> = others.iter().map(ToString::to_string).collect();
    format!(" ({name} is also {}, where it does not listen)", others.join(" and "))
}

/// Binds the default server to an address such as `127.0.0.1:8888`; port 0 takes any free one. On unix the
/// address can also be that of a unix socket or `systemd`, or begin with `https://`; see
/// [`Native::bind`](native::Native::bind). What
/// [`App::run`](crate::App::run) does first, for those who want to know the address before they serve.
///
/// ```
/// use bottle_session::{App, Server, ShutdownHandle, server};
///
/// let mut app = App::new();
/// app.get("/", || "hello");
/// let server = server::bind("127.0.0.1:0")?;
/// println!("listening on {}", server.address());
/// let shutdown = ShutdownHandle::new();
/// # shutdown.shutdown();
/// server.serve(app.build()?, &shutdown)?;
/// # Ok::<(), bottle_session::Error>(())
/// ```
#[cfg(unix)]
pub fn bind(address: &str) -> Result<impl Server + use<>> {
    native::Native::bind(address)
}

/// Binds the default server, which away from unix is the tiny_http adapter.
#[cfg(all(not(unix), feature = "tiny_http"))]
pub fn bind(address: &str) -> Result<impl Server + use<>> {
    tiny_http::TinyHttp::bind(address)
}

/// Serves on the default server.
pub(crate) fn run(address: &str, service: Service, shutdown: &ShutdownHandle) -> Result<()> {
    #[cfg(any(unix, feature = "tiny_http"))]
    return bind(address)?.serve(service, shutdown);
    #[cfg(not(any(unix, feature = "tiny_http")))]
    {
        let _ = (service, shutdown);
        let none = "this build has no server; enable feature tiny_http";
        Err(cannot_listen(address, std::io::Error::new(std::io::ErrorKind::Unsupported, none)))
    }
}

/// The error of an address that cannot be listened on.
pub(crate) fn cannot_listen(address: &str, why: std::io::Error) -> Error {
    use std::io::ErrorKind::{AddrInUse, InvalidInput, PermissionDenied};
    let would_do = match why.kind() {
        AddrInUse => {
            "; another program listens there: stop it, or take another port (0 takes any free one)"
        }
        PermissionDenied => "; ports below 1024 and some folders are for privileged users",
        InvalidInput => "; an address is like 127.0.0.1:8888, or unix:/run/app.socket",
        _ => "",
    };
    let text = format!("cannot listen on {address:?}: {why}{would_do}");
    Error::new(ErrorKind::Io, text).with_source(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_cannot_be_listened_on_says_what_would_do() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = taken.local_addr().unwrap().to_string();
        for (address, would_do) in [
            (taken.as_str(), "another program listens there"),
            ("8888", "an address is like 127.0.0.1:8888"),
            ("127.0.0.1:80000", "an address is like 127.0.0.1:8888"),
            (
                "unix:",
                "no path behind unix:; an address is like 127.0.0.1:8888, or unix:/run/app.socket",
            ),
        ] {
            let Err(error) = bind(address) else { panic!("{address} is bound") };
            let text = error.to_string();
            assert!(text.starts_with(&format!("cannot listen on {address:?}: ")), "{text}");
            assert!(text.contains(would_do), "{text}");
            assert_eq!(format!("{error:?}"), text, "the cause is said once");
        }
    }

    #[test]
    fn a_server_does_not_borrow_the_address_it_was_given() {
        let bound = |port: u16| bind(&format!("127.0.0.1:{port}")).unwrap();
        assert!(bound(0).address().is_local());
    }

    #[test]
    fn where_a_name_is_several_addresses_the_log_says_on_which_nobody_listens() {
        let ips = |all: &[&str]| all.iter().map(|ip| ip.parse().unwrap()).collect::<Vec<_>>();
        for (others, expected) in [
            (ips(&[]), ""),
            (ips(&["::1"]), " (localhost:80 is also ::1, where it does not listen)"),
            (
                ips(&["::1", "::1", "127.0.1.1"]),
                " (localhost:80 is also ::1 and 127.0.1.1, where it does not listen)",
            ),
        ] {
            assert_eq!(not_listened_on("localhost:80", others), expected);
        }
        let bound: SocketAddr = "127.0.0.1:8888".parse().unwrap();
        for own in ["127.0.0.1:8888", "127.0.0.1:0", "unix:/run/app.socket"] {
            assert_eq!(elsewhere(own, &ListenAddress::Tcp(bound)), "", "{own}");
        }
    }
}
