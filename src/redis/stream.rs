//! A socket with a deadline: no read or write goes on after it, however the bytes trickle in.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
#[cfg(unix)]
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::config::Address;

/// A connected socket. A time-out of the operating system counts for one call; the deadline is for all of
/// them.
pub(super) struct Stream {
    socket: Socket,
    deadline: Instant,
    /// The time-outs that the operating system has.
    reading: Duration,
    writing: Duration,
    /// Nothing waits, and no time-out is needed.
    nonblocking: bool,
}

/// How much later than the deadline a time-out may come, which spares a system call for each operation.
const SLACK: Duration = Duration::from_millis(4);

enum Socket {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

impl Stream {
    /// Connects before the deadline, to the first of the host's addresses that lets us.
    pub(super) fn connect(address: &Address, deadline: Instant) -> Result<Stream> {
        let socket = match address {
            Address::Tcp { host, port, .. } => {
                let addresses: Vec<_> = (host.as_str(), *port).to_socket_addrs()?.collect();
                let stream = first(&addresses, deadline, TcpStream::connect_timeout)?;
                stream.set_nodelay(true)?;
                Socket::Tcp(stream)
            }
            #[cfg(unix)]
            Address::Unix(path) => Socket::Unix(UnixStream::connect(path)?),
            #[cfg(not(unix))]
            Address::Unix(_) => {
                return Err(Error::new(ErrorKind::Unsupported, "there are no unix sockets here"));
            }
            Address::Sentinel(_) => return Err(Error::other("a master is not where it is named")),
        };
        let (reading, writing) = (Duration::ZERO, Duration::ZERO);
        Ok(Stream { socket, deadline, reading, writing, nonblocking: false })
    }

    /// Whether reading returns at once where there is nothing to read.
    pub(super) fn set_nonblocking(&mut self, nonblocking: bool) -> Result<()> {
        self.nonblocking = nonblocking;
        match &self.socket {
            Socket::Tcp(stream) => stream.set_nonblocking(nonblocking),
            #[cfg(unix)]
            Socket::Unix(stream) => stream.set_nonblocking(nonblocking),
        }
    }

    #[cfg(all(test, unix))]
    pub(super) fn shut_down(&self) {
        if let Socket::Tcp(stream) = &self.socket {
            stream.shutdown(std::net::Shutdown::Both).unwrap();
        }
    }

    #[cfg(unix)]
    pub(super) fn fd(&self) -> std::os::fd::RawFd {
        use std::os::fd::AsRawFd;
        match &self.socket {
            Socket::Tcp(stream) => stream.as_raw_fd(),
            Socket::Unix(stream) => stream.as_raw_fd(),
        }
    }

    /// From now on, this is when reading and writing end.
    pub(super) fn until(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }
}

/// Connects to the first address that lets us. None of them, by not answering, takes the time of the others.
fn first<T>(
    addresses: &[SocketAddr],
    deadline: Instant,
    connect: impl Fn(&SocketAddr, Duration) -> Result<T>,
) -> Result<T> {
    let mut refused = Error::other("the host has no address");
    for (at, address) in addresses.iter().enumerate() {
        let others = addresses.len() - at;
        match connect(address, left(deadline)? / others as u32) {
            Ok(connected) => return Ok(connected),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

/// What is left until then; an error where that is nothing, which a socket would take for "for ever".
fn left(deadline: Instant) -> Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    match left.is_zero() {
        true => Err(ErrorKind::TimedOut.into()),
        false => Ok(left),
    }
}

/// The time-out to set where the present one is not about what is left.
fn renewed(present: Duration, deadline: Instant) -> Result<Option<Duration>> {
    let left = left(deadline)?;
    let fits = left <= present && present <= left + SLACK;
    Ok((!fits).then(|| left + SLACK / 2))
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let renewed = match self.nonblocking {
            true => None,
            false => renewed(self.reading, self.deadline)?,
        };
        self.reading = renewed.unwrap_or(self.reading);
        match &mut self.socket {
            Socket::Tcp(stream) => {
                renewed.map_or(Ok(()), |time| stream.set_read_timeout(Some(time)))?;
                stream.read(buffer)
            }
            #[cfg(unix)]
            Socket::Unix(stream) => {
                renewed.map_or(Ok(()), |time| stream.set_read_timeout(Some(time)))?;
                stream.read(buffer)
            }
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let renewed = match self.nonblocking {
            true => None,
            false => renewed(self.writing, self.deadline)?,
        };
        self.writing = renewed.unwrap_or(self.writing);
        match &mut self.socket {
            Socket::Tcp(stream) => {
                renewed.map_or(Ok(()), |time| stream.set_write_timeout(Some(time)))?;
                stream.write(bytes)
            }
            #[cfg(unix)]
            Socket::Unix(stream) => {
                renewed.map_or(Ok(()), |time| stream.set_write_timeout(Some(time)))?;
                stream.write(bytes)
            }
        }
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn an_address_that_does_not_answer_leaves_time_for_the_next() {
        let addresses = [1, 2].map(|port| SocketAddr::from(([192, 0, 2, 1], port)));
        let (deadline, granted) = (Instant::now() + Duration::from_secs(60), Cell::new(None));
        let connect = |address: &SocketAddr, time| match address.port() {
            1 => {
                granted.set(Some(time));
                Err(ErrorKind::TimedOut.into())
            }
            _ => Ok("connected"),
        };
        assert_eq!(first(&addresses, deadline, connect).unwrap(), "connected");
        assert!(granted.get() <= Some(Duration::from_secs(30)), "{granted:?}");
        let refused = |_: &SocketAddr, _| Err::<(), _>(ErrorKind::ConnectionRefused.into());
        let error = first(&addresses, deadline, refused).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert!(first(&[], deadline, refused).unwrap_err().to_string().contains("no address"));
    }

    #[test]
    fn bytes_that_trickle_in_do_not_put_off_the_deadline() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let trickling = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // Until the other side has had enough.
            while stream.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let address = Address::Tcp { host: "127.0.0.1".to_owned(), port, tls: false };
        let soon = Instant::now() + Duration::from_secs(5);
        let mut stream = Stream::connect(&address, soon).unwrap();
        stream.until(Instant::now() + Duration::from_millis(50));
        let mut read = Vec::new();
        let error = stream.read_to_end(&mut read).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock), "{error}");
        drop(stream);
        trickling.join().unwrap();
    }
}
