//! Listeners and sockets, of TCP and unix alike.

use std::fs::Permissions;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use listenfd::ListenFd;
use nix::unistd::Group;
use socket2::{Domain, SockAddr, Type};

use crate::Result;
use crate::lock::lock;
use crate::server::{ListenAddress, cannot_listen, canonical};

/// The most connections that may wait to be accepted, where the system's own limit allows it: a burst is
/// to wait, not to be dropped and tried again a second later.
const QUEUE: i32 = 4096;

/// The address that stands for a socket which systemd passed on.
const PASSED_ON: &str = "systemd";

/// What connections come from.
pub(super) struct Listener {
    socket: socket2::Socket,
    /// The name of a unix socket in the file system is cleared away with it, where that is ours.
    name: Option<Name>,
}

/// Who may connect to a unix socket: the owner and the group, and never everybody, as those are whom
/// `trusted_proxies(["unix"])` believes.
const MODE: u32 = 0o660;

/// Where a unix socket is to be, and who may connect.
#[derive(Debug, PartialEq)]
struct UnixAddress<'a> {
    path: &'a Path,
    mode: u32,
    group: Option<&'a str>,
}

impl UnixAddress<'_> {
    /// Reads `/run/app.socket?group=www-data&mode=660`.
    fn parse(text: &str) -> io::Result<UnixAddress<'_>> {
        let wrong = |what: String| io::Error::new(io::ErrorKind::InvalidInput, what);
        let (path, options) = text.split_once('?').unwrap_or((text, ""));
        if path.is_empty() {
            return Err(wrong("no path behind unix:".to_owned()));
        }
        let mut address = UnixAddress { path: Path::new(path), mode: MODE, group: None };
        for option in options.split('&').filter(|option| !option.is_empty()) {
            match option.split_once('=') {
                Some(("group", group)) if !group.is_empty() => address.group = Some(group),
                Some(("mode", mode)) => {
                    let octal = mode.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
                    let number = u32::from_str_radix(mode, 8).ok().filter(|_| octal);
                    address.mode = number.filter(|mode| *mode <= 0o777).ok_or_else(|| {
                        wrong(format!("{mode:?} is no mode of a file, such as 660"))
                    })?;
                    if address.mode & 0o002 != 0 {
                        let text = format!(
                            "with mode {mode} every user of this machine could connect and be believed as a \
                             proxy; name the proxy's group: ?group=www-data"
                        );
                        return Err(wrong(text));
                    }
                }
                _ => {
                    let text = format!("unknown option {option:?}; known: group=NAME, mode=660");
                    return Err(wrong(text));
                }
            }
        }
        Ok(address)
    }
}

/// The file that a unix socket of ours is found at.
pub(super) struct Name {
    path: PathBuf,
    /// Device and inode, where they could be learned.
    file: Option<(u64, u64)>,
}

fn file_at(path: &Path) -> Option<(u64, u64)> {
    path.symlink_metadata().ok().map(|found| (found.dev(), found.ino()))
}

/// The flag with which a client that has gone is an error and no signal, whatever the application does about SIGPIPE.
#[cfg(not(target_vendor = "apple"))]
const NO_SIGNAL: i32 = nix::libc::MSG_NOSIGNAL;
/// Sockets have an option in its place there, which `socket2` sets for listeners, and connections inherit.
#[cfg(target_vendor = "apple")]
const NO_SIGNAL: i32 = 0;

/// One connection's socket; never blocking unless a body is streamed to a handler.
pub(super) struct Socket(pub(super) socket2::Socket);

impl Listener {
    /// A socket that listens already. Its name stays when the listener ends.
    pub(super) fn of(socket: impl Into<socket2::Socket>) -> Listener {
        Listener { socket: socket.into(), name: None }
    }

    /// Listens on `host:port`, or on a unix socket where the address is `unix:` and a path, or takes the
    /// socket that systemd passed on.
    pub(super) fn bind(address: &str) -> Result<Listener> {
        let failed = |error: io::Error| cannot_listen(address, error);
        if address == PASSED_ON {
            return passed_on().map_err(failed);
        }
        if let Some(unix) = address.strip_prefix("unix:") {
            return UnixAddress::parse(unix).and_then(|unix| bind_unix(&unix)).map_err(failed);
        }
        let resolved: Vec<_> = address.to_socket_addrs().map_err(failed)?.collect();
        let mut last = io::Error::new(io::ErrorKind::InvalidInput, "no such address");
        for address in resolved {
            // Binds with SO_REUSEADDR: after a restart the port is there at once.
            let bound = TcpListener::bind(address).map(Listener::of);
            match bound.and_then(|listener| listener.socket.listen(QUEUE).map(|()| listener)) {
                Ok(listener) => return Ok(listener),
                Err(error) => last = error,
            }
        }
        Err(failed(last))
    }

    pub(super) fn address(&self) -> io::Result<ListenAddress> {
        let address = self.socket.local_addr()?;
        Ok(match address.as_socket() {
            Some(tcp) => ListenAddress::Tcp(tcp),
            None => ListenAddress::Unix(address.as_pathname().unwrap_or(Path::new("")).to_owned()),
        })
    }

    pub(super) fn set_nonblocking(&self) -> io::Result<()> {
        self.socket.set_nonblocking(true)
    }

    /// The next connection, ready for use without blocking.
    pub(super) fn accept(&self) -> io::Result<(Socket, Option<SocketAddr>)> {
        let (socket, peer) = self.socket.accept()?;
        let peer = peer.as_socket().map(canonical);
        if peer.is_some() {
            // An answer is written in one piece: waiting for more to send would only delay it.
            let _ = socket.set_tcp_nodelay(true);
        }
        socket.set_nonblocking(true)?;
        Ok((Socket(socket), peer))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(Name { path, file: Some(file) }) = &self.name
            // It may be a successor's by now.
            && file_at(path) == Some(*file)
        {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// The first socket that systemd passed on (sd_listen_fds(3)).
fn passed_on() -> io::Result<Listener> {
    static TAKEN: Mutex<bool> = Mutex::new(false);
    let none = |why: &str| io::Error::new(io::ErrorKind::NotFound, why);
    let mut taken = lock(&TAKEN);
    if *taken {
        return Err(none("the socket that systemd passed on is in use already"));
    }
    let mut passed = ListenFd::from_env();
    // What is no TCP socket stays where it is, and can be taken as the other sort.
    let listener = match passed.take_tcp_listener(0) {
        Ok(Some(listener)) => Some(Listener::of(listener)),
        _ => passed.take_unix_listener(0)?.map(Listener::of),
    };
    *taken = listener.is_some();
    listener.ok_or_else(|| {
        none(
            "systemd passed no socket on (LISTEN_FDS); start the program from a .socket unit or with \
             systemd-socket-activate",
        )
    })
}

fn bind_unix(address: &UnixAddress<'_>) -> io::Result<Listener> {
    let path = address.path;
    let group = address.group.map(group_id).transpose()?;
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    let name = SockAddr::unix(path)?;
    match socket.bind(&name) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_left_behind(path) => {
            std::fs::remove_file(path)?;
            socket.bind(&name)?;
        }
        other => other?,
    }
    let listener =
        Listener { socket, name: Some(Name { path: path.to_owned(), file: file_at(path) }) };
    // Nobody can connect before it listens: no moment at which others than these may.
    if let Some((name, id)) = address.group.zip(group) {
        chown(path, None, Some(id)).map_err(|error| {
            let text = format!(
                "group {name:?} cannot be given the socket ({error}); whoever runs this must be a member of it"
            );
            io::Error::other(text)
        })?;
    }
    std::fs::set_permissions(path, Permissions::from_mode(address.mode))?;
    listener.socket.listen(QUEUE)?;
    Ok(listener)
}

fn group_id(name: &str) -> io::Result<u32> {
    let found = Group::from_name(name)?;
    let none = || io::Error::new(io::ErrorKind::NotFound, format!("no group is named {name:?}"));
    found.map(|group| group.gid.as_raw()).ok_or_else(none)
}

/// Whether this is a socket that nobody listens on, as a process that was killed leaves behind. Any other
/// file at the path is somebody's, and so is a socket that cannot be asked.
fn is_left_behind(path: &Path) -> bool {
    let is_socket = path.symlink_metadata().is_ok_and(|found| found.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    is_socket && UnixStream::connect(path).is_err_and(refused)
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl Socket {
    pub(super) fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.0.set_nonblocking(nonblocking)
    }

    /// How long a blocking read or write may take.
    pub(super) fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        // Zero would mean for ever.
        let timeout = Some(timeout.max(Duration::from_millis(1)));
        self.0.set_read_timeout(timeout)?;
        self.0.set_write_timeout(timeout)
    }

    /// Where the client has connected to.
    #[cfg(feature = "https")]
    pub(super) fn local_address(&self) -> Option<SocketAddr> {
        self.0.local_addr().ok()?.as_socket().map(canonical)
    }

    pub(super) fn close_write(&self) {
        let _ = self.0.shutdown(Shutdown::Write);
    }
}

impl Read for &Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.0).read(buffer)
    }
}

impl Write for &Socket {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0.send_with_flags(buffer, NO_SIGNAL)
    }

    fn write_vectored(&mut self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.send_vectored_with_flags(buffers, NO_SIGNAL)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn a_file_at_the_path_that_is_no_socket_left_behind_is_kept() {
        let path = std::env::temp_dir().join(format!("bs-kept-{}", std::process::id()));
        std::fs::write(&path, "somebody's").unwrap();
        let address = format!("unix:{}", path.display());
        assert!(Listener::bind(&address).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "somebody's");
        std::fs::remove_file(&path).unwrap();
        let first = Listener::bind(&address).unwrap();
        assert!(Listener::bind(&address).is_err());
        assert!(path.exists());
        drop(first);
    }

    #[test]
    fn who_may_connect_to_a_unix_socket_is_said_in_its_address() {
        let of = |text| UnixAddress::parse(text).map_err(|error| error.to_string());
        let address = |path, mode, group| Ok(UnixAddress { path: Path::new(path), mode, group });
        let group = Some("www-data");
        for (text, expected) in [
            ("/run/a", address("/run/a", 0o660, None)),
            ("a?group=www-data", address("a", 0o660, group)),
            ("a?mode=600", address("a", 0o600, None)),
            ("a?mode=0770&group=www-data", address("a", 0o770, group)),
        ] {
            assert_eq!(of(text), expected, "{text}");
        }
        for (text, expected) in [
            ("", "no path behind unix:"),
            ("?mode=600", "no path behind unix:"),
            ("a?mode=rw", "\"rw\" is no mode of a file, such as 660"),
            ("a?mode=+6", "\"+6\" is no mode of a file, such as 660"),
            ("a?mode=7777", "\"7777\" is no mode of a file, such as 660"),
            ("a?owner=me", "unknown option \"owner=me\"; known: group=NAME, mode=660"),
            ("a?group=", "unknown option \"group=\"; known: group=NAME, mode=660"),
            (
                "a?mode=666",
                "with mode 666 every user of this machine could connect and be believed as a proxy; name the \
                 proxy's group: ?group=www-data",
            ),
        ] {
            assert_eq!(of(text).unwrap_err(), expected, "{text}");
        }
    }

    #[test]
    fn a_unix_socket_has_the_mode_of_its_address_whatever_the_umask() {
        for (options, mode) in [("", 0o660), ("?mode=600", 0o600), ("?mode=664", 0o664)] {
            let path = std::env::temp_dir().join(format!("bs-mode-{}", std::process::id()));
            let listener = Listener::bind(&format!("unix:{}{options}", path.display())).unwrap();
            let found = path.symlink_metadata().unwrap();
            assert_eq!(found.permissions().mode() & 0o777, mode, "{options}");
            UnixStream::connect(&path).unwrap();
            let address = ListenAddress::Unix(path.clone());
            assert_eq!(listener.address().unwrap(), address, "options are no part of the path");
            drop(listener);
            assert!(!path.exists());
        }
        let path = std::env::temp_dir().join(format!("bs-group-{}", std::process::id()));
        let address = format!("unix:{}?group=nobodys-group", path.display());
        let error = Listener::bind(&address).err().unwrap().to_string();
        assert!(error.ends_with(": no group is named \"nobodys-group\""), "{error}");
        assert!(!path.exists(), "a socket that nobody listens on is left behind");
    }

    #[test]
    fn a_client_of_a_dual_stack_listener_has_the_address_it_has_elsewhere() {
        for (listen, connect, seen) in [
            ("[::]:0", "127.0.0.1", "127.0.0.1"),
            ("[::]:0", "::1", "::1"),
            ("127.0.0.1:0", "127.0.0.1", "127.0.0.1"),
        ] {
            let listener = Listener::bind(listen).unwrap();
            let ListenAddress::Tcp(address) = listener.address().unwrap() else { panic!() };
            let _client = TcpStream::connect((connect, address.port())).unwrap();
            let (_, peer) = listener.accept().unwrap();
            assert_eq!(peer.unwrap().ip().to_string(), seen, "{listen} {connect}");
        }
    }

    #[test]
    fn a_socket_that_took_the_place_of_ours_is_kept() {
        let path = std::env::temp_dir().join(format!("bs-succeeded-{}", std::process::id()));
        let address = format!("unix:{}", path.display());
        let first = Listener::bind(&address).unwrap();
        std::fs::rename(&path, path.with_extension("old")).unwrap();
        let second = Listener::bind(&address).unwrap();
        drop(first);
        assert!(UnixStream::connect(&path).is_ok());
        drop(second);
        assert!(!path.exists());
        std::fs::remove_file(path.with_extension("old")).unwrap();
    }
}
