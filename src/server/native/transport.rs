//! What a connection's bytes travel over: a socket, bare or inside TLS.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
#[cfg(feature = "https")]
use std::sync::{Arc, Mutex, MutexGuard};

use super::socket::Socket;
#[cfg(feature = "https")]
use crate::lock::lock;
#[cfg(feature = "https")]
use crate::server::tls::{self, Refused, Session, TlsAcceptor};

pub(super) enum Transport {
    Plain(Socket),
    #[cfg(feature = "https")]
    Tls(Tls),
}

#[cfg(feature = "https")]
pub(super) struct Tls {
    socket: Socket,
    acceptor: Arc<TlsAcceptor>,
    /// Never waited for: a connection is one thread's at a time, its loop's or its handler's.
    session: Mutex<Session>,
}

/// What a read has brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// So many bytes off the wire, whatever became of them.
    Bytes(usize),
    /// Likewise, and they are the last ones.
    #[cfg(feature = "https")]
    Last,
    /// The client sends no more.
    End,
    /// Bytes of a handshake that take long to answer; see [`Transport::compute`].
    #[cfg(feature = "https")]
    Computes(usize),
}

/// Why nothing could be read, or can be any more.
#[derive(Debug)]
pub(super) enum Trouble {
    Io(io::Error),
    #[cfg(feature = "https")]
    Refused(Refused),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        Trouble::Io(error)
    }
}

impl From<Trouble> for io::Error {
    fn from(trouble: Trouble) -> io::Error {
        match trouble {
            Trouble::Io(error) => error,
            #[cfg(feature = "https")]
            Trouble::Refused(refused) => {
                io::Error::new(io::ErrorKind::InvalidData, refused.to_string())
            }
        }
    }
}

/// How far sending came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    All,
    /// The socket takes no more now. Whether it took anything.
    Blocked {
        some: bool,
    },
    /// More must be read from the body first, which may block.
    NeedsMore,
}

impl Transport {
    pub(super) fn is_plain(&self) -> bool {
        matches!(self, Transport::Plain(_))
    }

    pub(super) fn socket(&self) -> &Socket {
        match self {
            Transport::Plain(socket) => socket,
            #[cfg(feature = "https")]
            Transport::Tls(tls) => &tls.socket,
        }
    }

    /// Reads once, and adds what the client has said to `plain`. A read that does not fill `scratch` has emptied the
    /// socket; nothing stays behind inside TLS.
    pub(super) fn receive(
        &self,
        scratch: &mut [u8],
        plain: &mut Vec<u8>,
    ) -> Result<Received, Trouble> {
        match self {
            Transport::Plain(socket) => {
                let count = read(socket, scratch)?;
                plain.extend_from_slice(&scratch[..count]);
                Ok(if count == 0 { Received::End } else { Received::Bytes(count) })
            }
            #[cfg(feature = "https")]
            Transport::Tls(tls) => tls.receive(scratch, plain),
        }
    }

    /// Reads once, and throws away what it was.
    pub(super) fn discard(&self, scratch: &mut [u8]) -> io::Result<usize> {
        read(self.socket(), scratch)
    }

    /// Takes what there is room for, which may be all, to be sent now or with [`flush`](Transport::flush).
    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Transport::Plain(socket) => (&mut &*socket).write(bytes),
            #[cfg(feature = "https")]
            Transport::Tls(tls) => tls.write(bytes),
        }
    }

    /// Sends what was taken and not sent.
    pub(super) fn flush(&self) -> io::Result<Sent> {
        match self {
            Transport::Plain(_) => Ok(Sent::All),
            #[cfg(feature = "https")]
            Transport::Tls(tls) => tls.flush(&mut tls.session()),
        }
    }

    /// Writes all of it, as far as the time-out of the socket allows.
    pub(super) fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.write(bytes)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                count => bytes = &bytes[count..],
            }
        }
        match self.flush()? {
            Sent::All => Ok(()),
            _ => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Lets the next flush say that nothing follows (`close_notify`), so that one write does for both.
    pub(super) fn say_last(&self) {
        #[cfg(feature = "https")]
        if let Transport::Tls(tls) = self {
            tls.session().close();
        }
    }
}

#[cfg(feature = "https")]
impl Transport {
    pub(super) fn inside_tls(socket: Socket, acceptor: Arc<TlsAcceptor>) -> Transport {
        Transport::Tls(Tls { socket, acceptor, session: Mutex::new(Session::new()) })
    }

    /// Computes the step of the handshake that waits, and sends what comes of it as far as the socket takes it. Takes
    /// long, and waits for nobody.
    pub(super) fn compute(&self, plain: &mut Vec<u8>) -> Result<(), Trouble> {
        let Transport::Tls(tls) = self else { return Ok(()) };
        tls.acceptor.give_way();
        let mut session = tls.session();
        let computed = session.compute(&tls.acceptor, plain);
        tls.flush(&mut session)?;
        computed.map(|_| ()).map_err(Trouble::Refused)
    }

    /// Says that nothing follows, as far as that can be said at once.
    pub(super) fn say_goodbye(&self) {
        let Transport::Tls(tls) = self else { return };
        let mut session = tls.session();
        session.close();
        if session.wants_write() {
            let _ = tls.socket.set_nonblocking(true);
            let _ = tls.flush(&mut session);
        }
    }

    /// Takes note of a request on a connection that has had one before.
    pub(super) fn visited(&self) {
        if let Transport::Tls(tls) = self {
            tls.acceptor.visited();
        }
    }

    /// Counts a handshake that failed; how many there have been.
    pub(super) fn failed(&self) -> u64 {
        match self {
            Transport::Tls(tls) => tls.acceptor.failed(),
            Transport::Plain(_) => 0,
        }
    }
}

#[cfg(feature = "https")]
impl Tls {
    fn session(&self) -> MutexGuard<'_, Session> {
        lock(&self.session)
    }

    fn receive(&self, scratch: &mut [u8], plain: &mut Vec<u8>) -> Result<Received, Trouble> {
        let mut session = self.session();
        if session.has_ended() {
            return Ok(Received::End);
        }
        let count = read(&self.socket, scratch)?;
        if count == 0 {
            return Ok(Received::End);
        }
        match session.receive(&self.acceptor, &scratch[..count], plain) {
            Ok(tls::Received::Computes) => Ok(Received::Computes(count)),
            Ok(tls::Received::Taken) => Ok(Received::Bytes(count)),
            Ok(tls::Received::Ended) => Ok(Received::Last),
            Err(refused) => {
                // The alert. Who does not take that at once goes without.
                let _ = self.flush(&mut session);
                Err(Trouble::Refused(refused))
            }
        }
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut session = self.session();
        if session.found_no_tls() {
            return (&self.socket).write(bytes);
        }
        loop {
            let count = session.write(bytes)?;
            if count > 0 || bytes.is_empty() {
                return Ok(count);
            }
            // There is no room for more.
            if session.write_to(&mut &self.socket)? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
    }

    fn flush(&self, session: &mut Session) -> io::Result<Sent> {
        let mut some = false;
        while session.wants_write() {
            match session.write_to(&mut &self.socket) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => some = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_blocked(&error) => return Ok(Sent::Blocked { some }),
                Err(error) => return Err(error),
            }
        }
        Ok(Sent::All)
    }
}

impl AsRawFd for Transport {
    fn as_raw_fd(&self) -> RawFd {
        self.socket().as_raw_fd()
    }
}

fn read(mut socket: &Socket, scratch: &mut [u8]) -> io::Result<usize> {
    loop {
        match socket.read(scratch) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

/// Whether nothing could be done now, or within a socket's time-out.
pub(super) fn is_blocked(error: &io::Error) -> bool {
    [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut].contains(&error.kind())
}
