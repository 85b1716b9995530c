//! TCP and unix sockets behind one face.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use listenfd::ListenFd;
use socket2::SockRef;

use crate::Result;
use crate::server::{ListenAddress, cannot_listen};

/// The most connections that may wait to be accepted, where the system's own limit allows it: a burst is
/// to wait, not to be dropped and tried again a second later.
const QUEUE: i32 = 4096;

/// The address that stands for a socket which systemd passed on.
const PASSED_ON: &str = "systemd";

/// What connections come from.
pub(super) enum Listener {
    Tcp(TcpListener),
    /// Its name in the file system is cleared away with it, where that is ours.
    Unix(UnixListener, Option<Name>),
}

/// The file that a unix socket of ours is found at.
pub(super) struct Name {
    path: PathBuf,
    /// Device and inode, where they could be learned.
    file: Option<(u64, u64)>,
}

impl Name {
    fn of(path: &Path) -> Name {
        Name { path: path.to_owned(), file: file_at(path) }
    }
}

fn file_at(path: &Path) -> Option<(u64, u64)> {
    path.symlink_metadata().ok().map(|found| (found.dev(), found.ino()))
}

/// One connection's bytes; never blocking unless a body is streamed to a handler.
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    /// Listens on `host:port`, or on a unix socket where the address is `unix:` and a path, or takes the
    /// socket that systemd passed on.
    pub(super) fn bind(address: &str) -> Result<Listener> {
        let failed = |error: io::Error| cannot_listen(address, error);
        if address == PASSED_ON {
            return passed_on().map_err(failed);
        }
        if let Some(path) = address.strip_prefix("unix:") {
            return bind_unix(Path::new(path)).map_err(failed);
        }
        let mut last = io::Error::new(io::ErrorKind::InvalidInput, "no such address");
        for address in address.to_socket_addrs().map_err(failed)? {
            // Binds with SO_REUSEADDR: after a restart the port is there at once.
            let bound = TcpListener::bind(address)
                .and_then(|listener| SockRef::from(&listener).listen(QUEUE).map(|()| listener));
            match bound {
                Ok(listener) => return Ok(Listener::Tcp(listener)),
                Err(error) => last = error,
            }
        }
        Err(failed(last))
    }

    pub(super) fn address(&self) -> io::Result<ListenAddress> {
        Ok(match self {
            Listener::Tcp(listener) => ListenAddress::Tcp(listener.local_addr()?),
            Listener::Unix(listener, _) => {
                let address = listener.local_addr()?;
                ListenAddress::Unix(address.as_pathname().unwrap_or(Path::new("")).to_owned())
            }
        })
    }

    pub(super) fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Listener::Tcp(listener) => listener.set_nonblocking(true),
            Listener::Unix(listener, _) => listener.set_nonblocking(true),
        }
    }

    /// The next connection, ready for use without blocking.
    pub(super) fn accept(&self) -> io::Result<(Socket, Option<SocketAddr>)> {
        let (socket, peer) = match self {
            Listener::Tcp(listener) => {
                let (stream, peer) = listener.accept()?;
                // An answer is written in one piece: waiting for more to send would only delay it.
                let _ = stream.set_nodelay(true);
                (Socket::Tcp(stream), Some(peer))
            }
            Listener::Unix(listener, _) => (Socket::Unix(listener.accept()?.0), None),
        };
        socket.set_nonblocking(true)?;
        Ok((socket, peer))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Listener::Unix(_, Some(Name { path, file: Some(file) })) = self
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
    let mut taken = TAKEN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if *taken {
        return Err(none("the socket that systemd passed on is in use already"));
    }
    let mut passed = ListenFd::from_env();
    // What is no TCP socket stays where it is, and can be taken as the other sort.
    let listener = match passed.take_tcp_listener(0) {
        Ok(Some(listener)) => Some(Listener::Tcp(listener)),
        _ => passed.take_unix_listener(0)?.map(|listener| Listener::Unix(listener, None)),
    };
    *taken = listener.is_some();
    listener.ok_or_else(|| {
        none(
            "systemd passed no socket on (LISTEN_FDS); start the program from a .socket unit or with \
             systemd-socket-activate",
        )
    })
}

fn bind_unix(path: &Path) -> io::Result<Listener> {
    let bind =
        || UnixListener::bind(path).map(|listener| Listener::Unix(listener, Some(Name::of(path))));
    match bind() {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_left_behind(path) => {
            std::fs::remove_file(path)?;
            bind()
        }
        other => other,
    }
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
        match self {
            Listener::Tcp(listener) => listener.as_raw_fd(),
            Listener::Unix(listener, _) => listener.as_raw_fd(),
        }
    }
}

impl Socket {
    pub(super) fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        match self {
            Socket::Tcp(stream) => stream.set_nonblocking(nonblocking),
            Socket::Unix(stream) => stream.set_nonblocking(nonblocking),
        }
    }

    /// How long a blocking read or write may take.
    pub(super) fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        // Zero would mean for ever.
        let timeout = Some(timeout.max(Duration::from_millis(1)));
        match self {
            Socket::Tcp(stream) => {
                stream.set_read_timeout(timeout)?;
                stream.set_write_timeout(timeout)
            }
            Socket::Unix(stream) => {
                stream.set_read_timeout(timeout)?;
                stream.set_write_timeout(timeout)
            }
        }
    }

    pub(super) fn close_write(&self) {
        let _ = match self {
            Socket::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Socket::Unix(stream) => stream.shutdown(Shutdown::Write),
        };
    }
}

impl Read for &Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => (&mut &*stream).read(buffer),
            Socket::Unix(stream) => (&mut &*stream).read(buffer),
        }
    }
}

impl Write for &Socket {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => (&mut &*stream).write(buffer),
            Socket::Unix(stream) => (&mut &*stream).write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Socket::Tcp(stream) => stream.as_raw_fd(),
            Socket::Unix(stream) => stream.as_raw_fd(),
        }
    }
}

#[cfg(test)]
mod tests {
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
