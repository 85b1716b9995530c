//! Clients over TLS: what wrk cannot do. None of them checks certificates.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme, StreamOwned,
};

use crate::Failure;

/// As many connections shake hands at a time.
const THREADS: usize = 6;
/// Those that are connected in a storm, and how often each of them asks.
const CONNECTED: usize = 8;
const EVERY: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(10);

const GET: &[u8] = b"GET /plain HTTP/1.1\r\nHost: localhost\r\n\r\n";
const LAST: &[u8] = b"GET /plain HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

pub type Stream = StreamOwned<ClientConnection, TcpStream>;

#[derive(Debug)]
struct Unchecked(CryptoProvider);

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A client that never resumes.
pub fn config() -> Result<Arc<ClientConfig>, Failure> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Unchecked(ring::default_provider())))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

pub fn connect(port: u16, config: &Arc<ClientConfig>) -> Result<Stream, Failure> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let session = ClientConnection::new(config.clone(), ServerName::try_from("localhost")?)?;
    Ok(StreamOwned::new(session, stream))
}

/// Shakes hands, asks once, and reads to the end.
fn visit(port: u16, config: &Arc<ClientConfig>) -> Result<(), Failure> {
    let mut stream = connect(port, config)?;
    stream.write_all(LAST)?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        // Some servers end without `close_notify`.
        Err(error) if error.kind() != ErrorKind::UnexpectedEof => return Err(error.into()),
        _ => {}
    }
    if !answer.starts_with(b"HTTP/1.1 200 ") || !answer.ends_with(b"hello") {
        return Err("a wrong answer".into());
    }
    Ok(())
}

/// Asks on a connection that stays open.
pub fn ask(stream: &mut Stream) -> Result<(), Failure> {
    stream.write_all(GET)?;
    let (mut answer, mut filled) = ([0; 1024], 0);
    while !answer[..filled].ends_with(b"hello") {
        match stream.read(&mut answer[filled..])? {
            0 => return Err("the server closed the connection".into()),
            count => filled += count,
        }
    }
    Ok(())
}

/// Prints how many full handshakes with one request each there were.
pub fn shake_hands(port: u16, seconds: u64) -> Result<(), Failure> {
    let (config, end) = (config()?, Instant::now() + Duration::from_secs(seconds));
    let count = AtomicU64::new(0);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    while Instant::now() < end {
                        visit(port, &config)?;
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok::<(), Failure>(())
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a panic")?)
    })?;
    println!("figures {}", count.into_inner());
    Ok(())
}

/// Prints percentiles of how long those that are connected waited, in microseconds.
///
/// The storm is another process of low priority: who waits for an answer must not wait for a core behind clients that compute
/// handshakes, which would count as the server's time.
pub fn visit_in_a_storm(port: u16, seconds: u64, clients: usize) -> Result<(), Failure> {
    let config = config()?;
    let mut connected: Vec<Stream> =
        (0..CONNECTED).map(|_| connect(port, &config)).collect::<Result<_, _>>()?;
    for stream in &mut connected {
        ask(stream)?;
    }
    let mut storm = Command::new("nice");
    storm.args(["-n", "19"]).arg(std::env::current_exe()?).arg("storm");
    storm.args([port.to_string(), clients.to_string()]).stdin(Stdio::piped());
    let mut storm = storm.spawn()?;
    // Until all of them are under way.
    thread::sleep(Duration::from_millis(300));
    let end = Instant::now() + Duration::from_secs(seconds);
    let asked = thread::scope(|scope| {
        let askers: Vec<_> = connected
            .into_iter()
            .map(|mut stream| {
                scope.spawn(move || {
                    let mut waited = Vec::new();
                    while Instant::now() < end {
                        let begun = Instant::now();
                        ask(&mut stream)?;
                        waited.push(begun.elapsed());
                        thread::sleep(EVERY);
                    }
                    Ok::<_, Failure>(waited)
                })
            })
            .collect();
        askers
            .into_iter()
            .map(|thread| thread.join().map_err(|_| "a panic")?)
            .collect::<Result<Vec<_>, Failure>>()
    });
    drop(storm.stdin.take());
    if !storm.wait()?.success() {
        return Err("the storm has failed".into());
    }
    let mut waited = asked?.concat();
    waited.sort_unstable();
    let at = |share: f64| waited[((waited.len() - 1) as f64 * share) as usize].as_micros();
    println!("figures {} {} {}", at(0.5), at(0.9), at(0.99));
    Ok(())
}

/// So many clients that shake hands and leave, until the standard input ends.
pub fn storm(port: u16, clients: usize) -> Result<(), Failure> {
    let (config, over) = (config()?, AtomicBool::new(false));
    thread::scope(|scope| {
        let storm: Vec<_> = (0..clients)
            .map(|_| {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        visit(port, &config)?;
                    }
                    Ok::<(), Failure>(())
                })
            })
            .collect();
        let _ = std::io::stdin().read(&mut [0]);
        over.store(true, Ordering::Relaxed);
        storm.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a panic")?)
    })
}
