//! What a connection inside TLS does besides HTTP: its handshake, how it fails, and how it ends.

use std::time::Instant;

use http::{StatusCode, header};

use super::connection::{Connection, Next, State};
use super::options::Options;
use super::outgoing::Outgoing;
use super::socket::Socket;
use super::transport::{Transport, Trouble};
use crate::logging::OneLine;
use crate::server::http1::{Parsed, parse_head};
use crate::server::tls::Refused;

impl Connection {
    /// What a new connection inside TLS begins with.
    pub(super) fn inside_tls(socket: Socket, options: &Options) -> (Transport, State) {
        match &options.tls {
            Some(acceptor) => (Transport::inside_tls(socket, acceptor.clone()), State::Handshake),
            None => (Transport::Plain(socket), State::Head),
        }
    }

    /// Computes the step of the handshake that waits since `asked`; for threads that may take long.
    pub(super) fn compute(&mut self, asked: Instant) -> Next {
        // Many can have waited before it. What has waited for more than half of its time would be computed in vain: its
        // client needs some for the rest, too. In a storm, those behind it are served in time instead.
        let left = self.deadline.saturating_duration_since(asked);
        if asked.elapsed() >= left / 2 {
            return Next::Close;
        }
        match self.transport.compute(&mut self.input) {
            Ok(()) => Next::Wait,
            Err(Trouble::Io(_)) => Next::Close,
            Err(Trouble::Refused(refused)) => self.fail(&refused, Instant::now()),
        }
    }

    /// Ends a connection whose client speaks no TLS, or not so that it could go on. The alert is sent; what comes behind
    /// it must be read away, as a reset could destroy it on its way.
    pub(super) fn fail(&mut self, refused: &Refused, now: Instant) -> Next {
        let (count, peer) = (self.transport.failed(), self.peer);
        log::debug!("TLS with {peer:?} has failed ({count} so far): {}", OneLine(refused));
        match refused {
            Refused::PlainHttp => {
                let host = self.plain_host().unwrap_or_default();
                let text = format!("This port speaks https: use https://{host}/\n");
                let head = self.input.starts_with(b"HEAD ");
                let page = Outgoing::refusal(StatusCode::BAD_REQUEST, head, Some(&text));
                self.answer(page)
            }
            Refused::Unknown => Next::Close,
            Refused::Tls(_) => {
                self.linger(now);
                Next::Wait
            }
        }
    }

    /// The host that a request without TLS is for, as far as it has come; or else where it came to.
    fn plain_host(&self) -> Option<String> {
        let host = match parse_head(&self.input, &self.options.head) {
            Ok(Parsed::Complete(head)) => head.headers.get(header::HOST).cloned(),
            _ => None,
        };
        let host = host.and_then(|host| host.to_str().ok().map(str::to_owned));
        let named = host.filter(|host| !host.is_empty());
        named.or_else(|| self.transport.socket().local_address().map(|address| address.to_string()))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // An answer that breaks off must look like it: a client may take `close_notify` for its end.
        if self.awaits_request() {
            self.transport.say_goodbye();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;
    use std::time::Duration;

    use rcgen::{CertificateParams, KeyPair};
    use rustls::crypto::ring::default_provider;
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::super::connection::{Job, Purpose};
    use super::super::outgoing::Audience;
    use super::*;
    use crate::message::address::ListenAddress;
    use crate::message::response::Response;
    use crate::server::tls::Tls;

    /// Both sides of a connection inside TLS, before a byte has been sent.
    fn connected(options: Options, now: Instant) -> (Connection, UnixStream, ClientConnection) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let tls = Tls::pem(certificate.pem(), key.serialize_pem()).unwrap();
        let address = ListenAddress::Tcp("127.0.0.1:443".parse().unwrap());
        let (acceptor, _) = tls.into_acceptor(&address).unwrap();
        let options = Options { tls: Some(Arc::new(acceptor)), ..options };
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let session = ClientConnection::new(Arc::new(config), name).unwrap();
        let (client, server) = UnixStream::pair().unwrap();
        server.set_nonblocking(true).unwrap();
        let socket = Socket(server.into());
        let connection = Connection::new(socket, None, Purpose::App, Arc::new(options), now);
        (connection, client, session)
    }

    fn advance(connection: &mut Connection, now: Instant) -> Next {
        connection.readable = true;
        match connection.advance(&mut [0; 4096], now) {
            Next::Hand(Job::Compute) => connection.compute(Instant::now()),
            next => next,
        }
    }

    #[test]
    fn the_deadline_of_the_first_head_counts_from_accept_and_no_byte_of_a_handshake_moves_it() {
        let begun = Instant::now();
        let minutes = |count: u64| Duration::from_secs(60 * count);
        let options =
            Options { head_deadline: minutes(2), idle_deadline: minutes(10), ..Options::default() };
        let (mut connection, mut client, mut session) = connected(options, begun);
        let due = begun + minutes(2);
        session.write_tls(&mut client).unwrap();
        assert!(matches!(advance(&mut connection, begun + minutes(1)), Next::Wait));
        assert_eq!(connection.deadline, due);
        while session.is_handshaking() {
            session.read_tls(&mut client).unwrap();
            session.process_new_packets().unwrap();
        }
        session.writer().write_all(b"GET / HTTP/1.1\r\n").unwrap();
        while session.wants_write() {
            session.write_tls(&mut client).unwrap();
        }
        assert!(matches!(advance(&mut connection, begun + minutes(1)), Next::Wait));
        assert_eq!(connection.deadline, due, "nor the beginning of the head");
        session.writer().write_all(b"Host: a\r\n\r\n").unwrap();
        session.write_tls(&mut client).unwrap();
        assert!(matches!(advance(&mut connection, begun + minutes(1)), Next::Hand(Job::Handle(_))));
        let audience = Audience { version: http::Version::HTTP_11, head: false, keep_alive: true };
        connection.answer(Outgoing::new(Response::text("hello"), audience));
        // The next one has its own.
        session.writer().write_all(b"GET").unwrap();
        session.write_tls(&mut client).unwrap();
        assert!(matches!(advance(&mut connection, begun + minutes(5)), Next::Wait));
        assert_eq!(connection.deadline, begun + minutes(7));
    }

    #[test]
    fn a_handshake_that_waited_past_half_of_the_time_it_had_left_is_not_computed() {
        let now = Instant::now();
        let ago = |minutes: u64| now - Duration::from_secs(60 * minutes);
        let deadline = Duration::from_secs(60 * 60);
        let options = Options { head_deadline: deadline, ..Options::default() };
        // When it came, when its step was ready, and whether that is computed.
        for (came, asked, computed) in [
            (0, 0, true),
            (29, 29, true),
            (31, 31, false),
            (60, 60, false),
            // The client has taken its time, and the server none.
            (55, 0, true),
            (55, 4, true),
            (55, 10, false),
            (61, 0, false),
        ] {
            let (mut connection, mut client, mut session) = connected(options.clone(), ago(came));
            session.write_tls(&mut client).unwrap();
            connection.readable = true;
            assert!(matches!(
                connection.advance(&mut [0; 4096], ago(asked)),
                Next::Hand(Job::Compute)
            ));
            let next = connection.compute(ago(asked));
            assert_eq!(matches!(next, Next::Wait), computed, "{came} {asked}");
        }
    }
}
