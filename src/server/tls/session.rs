//! TLS of one connection, between the bytes on the wire and the plaintext, without a socket.

use std::fmt;
use std::io::{self, BufRead, Write};

use rustls::server::{Accepted, AcceptedAlert, Acceptor, ServerConnection};
use rustls::{Error, PeerIncompatible, ProtocolVersion};

use super::TlsAcceptor;

/// The first byte of each TLS connection: a record that holds a handshake message (RFC 8446 section 5.1).
const HANDSHAKE: u8 = 0x16;

/// The alert that says that the versions are too old (RFC 8446 section 6.2).
const PROTOCOL_VERSION: u8 = 70;

pub(crate) struct Session {
    stage: Stage,
    /// Received, and to be understood once the step before it has been computed.
    held: Vec<u8>,
    /// Whether the client has said that it sends no more.
    ended: bool,
}

enum Stage {
    /// Nothing has come yet. The first byte says whether it is TLS at all.
    Silent,
    /// The ClientHello arrives.
    Hello(Box<Acceptor>),
    /// The answer to the ClientHello waits to be computed.
    Accepted(Box<Accepted>),
    /// The ClientHello has been answered.
    Connected(Box<ServerConnection>),
    /// There is no more TLS; this is what is still to be sent, an alert most likely.
    Over(Vec<u8>),
    /// There never was any.
    NotTls,
}

/// What became of the bytes that were received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// They are understood as far as they go.
    Taken,
    /// A step of the handshake is to be computed, which takes long; see [`Session::compute`].
    Computes,
    /// The client sends no more (`close_notify`).
    Ended,
}

/// Why a connection cannot go on.
#[derive(Debug)]
pub(crate) enum Refused {
    /// It speaks HTTP without TLS; what it has said is in the plaintext, and it can be answered likewise.
    PlainHttp,
    /// It speaks neither.
    Unknown,
    Tls(Error),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::PlainHttp => f.write_str("it speaks plain HTTP"),
            Refused::Unknown => f.write_str("it speaks neither TLS nor HTTP"),
            Refused::Tls(error) => error.fmt(f),
        }
    }
}

impl Session {
    pub(crate) fn new() -> Session {
        Session { stage: Stage::Silent, held: Vec::new(), ended: false }
    }

    /// Takes all of these bytes in, and adds the plaintext in them to `plain`.
    pub(crate) fn receive(
        &mut self,
        acceptor: &TlsAcceptor,
        bytes: &[u8],
        plain: &mut Vec<u8>,
    ) -> Result<Received, Refused> {
        match &mut self.stage {
            Stage::Silent => match bytes.first() {
                None => Ok(Received::Taken),
                Some(&HANDSHAKE) => {
                    self.stage = Stage::Hello(Box::default());
                    self.hello(bytes)
                }
                Some(first) => {
                    self.stage = Stage::NotTls;
                    if !first.is_ascii_uppercase() {
                        return Err(Refused::Unknown);
                    }
                    plain.extend_from_slice(bytes);
                    Err(Refused::PlainHttp)
                }
            },
            Stage::Hello(_) => self.hello(bytes),
            Stage::Accepted(_) => {
                self.held.extend_from_slice(bytes);
                Ok(Received::Computes)
            }
            Stage::Connected(connection) => {
                if !self.held.is_empty() || acceptor.takes_long(connection) {
                    self.held.extend_from_slice(bytes);
                    return Ok(Received::Computes);
                }
                self.feed(bytes, plain)
            }
            Stage::Over(_) | Stage::NotTls => Ok(Received::Ended),
        }
    }

    /// Computes what [`Received::Computes`] spoke of.
    pub(crate) fn compute(
        &mut self,
        acceptor: &TlsAcceptor,
        plain: &mut Vec<u8>,
    ) -> Result<Received, Refused> {
        self.stage = match std::mem::replace(&mut self.stage, Stage::Over(Vec::new())) {
            Stage::Accepted(accepted) => {
                match accepted.into_connection(acceptor.config().clone()) {
                    Ok(connection) => Stage::Connected(Box::new(connection)),
                    Err((error, alert)) => return Err(self.over(error, alert)),
                }
            }
            other => other,
        };
        let held = std::mem::take(&mut self.held);
        self.feed(&held, plain)
    }

    /// Whether nothing more is received: the client has said so, or there is no more TLS.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended || matches!(self.stage, Stage::Over(_) | Stage::NotTls)
    }

    /// Whether it turned out that the client speaks no TLS.
    pub(crate) fn found_no_tls(&self) -> bool {
        matches!(self.stage, Stage::NotTls)
    }

    fn hello(&mut self, mut bytes: &[u8]) -> Result<Received, Refused> {
        let Stage::Hello(hello) = &mut self.stage else { return Ok(Received::Taken) };
        while !bytes.is_empty() {
            if let Err(error) = taken(hello.read_tls(&mut bytes)) {
                return Err(self.over(error, None));
            }
            match hello.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => {
                    self.stage = Stage::Accepted(Box::new(accepted));
                    self.held = bytes.to_vec();
                    return Ok(Received::Computes);
                }
                Err((error, alert)) => return Err(self.over(error, alert)),
            }
        }
        Ok(Received::Taken)
    }

    fn feed(&mut self, mut bytes: &[u8], plain: &mut Vec<u8>) -> Result<Received, Refused> {
        let Stage::Connected(connection) = &mut self.stage else { return Ok(Received::Ended) };
        loop {
            // Without bytes, there may be some that came with the ClientHello.
            if !bytes.is_empty()
                && let Err(error) = taken(connection.read_tls(&mut bytes))
            {
                self.stage = Stage::Over(Vec::new());
                return Err(Refused::Tls(error));
            }
            let state = match connection.process_new_packets() {
                Ok(state) => state,
                Err(error) => {
                    let mut alert = Vec::new();
                    while connection.wants_write() && connection.write_tls(&mut alert).is_ok() {}
                    self.stage = Stage::Over(alert);
                    return Err(Refused::Tls(error));
                }
            };
            if state.plaintext_bytes_to_read() > 0 {
                let mut reader = connection.reader();
                while let Ok(chunk) = reader.fill_buf() {
                    if chunk.is_empty() {
                        break;
                    }
                    plain.extend_from_slice(chunk);
                    let count = chunk.len();
                    reader.consume(count);
                }
            }
            if state.peer_has_closed() {
                self.ended = true;
                return Ok(Received::Ended);
            }
            if bytes.is_empty() {
                return Ok(Received::Taken);
            }
        }
    }

    fn over(&mut self, error: Error, alert: impl Into<Option<AcceptedAlert>>) -> Refused {
        let mut bytes = Vec::new();
        if let Some(mut alert) = alert.into() {
            // A vector takes all of it.
            let _ = alert.write_all(&mut bytes);
            // Which only clients leave out that know nothing newer than TLS 1.1.
            let required = PeerIncompatible::SignatureAlgorithmsExtensionRequired;
            if let (Error::PeerIncompatible(why), Some(description)) = (&error, bytes.last_mut())
                && *why == required
            {
                *description = PROTOCOL_VERSION;
            }
        }
        self.stage = Stage::Over(bytes);
        Refused::Tls(error)
    }

    /// Takes as much of the plaintext as there is room for, to be sent.
    pub(crate) fn write(&mut self, plain: &[u8]) -> io::Result<usize> {
        match &mut self.stage {
            Stage::Connected(connection) => connection.writer().write(plain),
            _ => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Says that nothing more is sent (`close_notify`); twice is as good as once.
    pub(crate) fn close(&mut self) {
        if let Stage::Connected(connection) = &mut self.stage {
            connection.send_close_notify();
        }
    }

    /// Whether there is something to send.
    pub(crate) fn wants_write(&self) -> bool {
        match &self.stage {
            Stage::Connected(connection) => connection.wants_write(),
            Stage::Over(bytes) => !bytes.is_empty(),
            _ => false,
        }
    }

    /// Sends what there is to send, as far as the wire takes it.
    pub(crate) fn write_to(&mut self, wire: &mut dyn Write) -> io::Result<usize> {
        match &mut self.stage {
            Stage::Connected(connection) => connection.write_tls(wire),
            Stage::Over(bytes) => {
                let count = wire.write(bytes)?;
                bytes.drain(..count);
                Ok(count)
            }
            _ => Ok(0),
        }
    }
}

/// rustls takes up to 4 KiB at a time. An error, or nothing taken, says that it has no room for more of one record or message.
fn taken(count: io::Result<usize>) -> Result<(), Error> {
    match count {
        Ok(0) => Err(Error::General("there is no room for more of a message".to_owned())),
        Ok(_) => Ok(()),
        Err(error) => Err(Error::General(error.to_string())),
    }
}

impl TlsAcceptor {
    /// Whether what the client sends next makes the handshake compute for long. With TLS 1.3 only the ClientHello
    /// does, and the certificate of a client.
    fn takes_long(&self, connection: &ServerConnection) -> bool {
        let only_finished = connection.protocol_version() == Some(ProtocolVersion::TLSv1_3)
            && connection.negotiated_key_exchange_group().is_some()
            && !self.may_ask_for_certificates();
        connection.is_handshaking() && !only_finished
    }
}
