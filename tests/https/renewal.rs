//! Certificates that are renewed while the server serves.

use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;

use bottle_session::rustls::pki_types::CertificateDer;
use bottle_session::rustls::pki_types::pem::PemObject;
use bottle_session::rustls::{ClientConfig, HandshakeKind, RootCertStore};

use crate::faults::wait_until;
use crate::support::process::Program;
use crate::support::serving::{Client, Stream};
use crate::support::tls::{self, Folder, TlsStream, make_certificate};

/// Certificates as certbot keeps them: links in `live` to files in `archive`.
struct Live(Folder);

impl Live {
    fn new() -> Live {
        tls::own();
        let live = Live(Folder::new());
        live.make("1");
        live.make("2");
        for file in ["pem", "key"] {
            live.link(file, "1");
        }
        live
    }

    fn make(&self, number: &str) {
        make_certificate(&self.0, number, 100);
    }

    /// Replaces one of the links, as certbot does.
    fn link(&self, file: &str, number: &str) {
        let link = self.0.path(&format!("live.{file}"));
        let _ = std::fs::remove_file(&link);
        symlink(format!("{number}.{file}"), &link).unwrap();
    }

    fn serve(&self) -> (Program, Receiver<String>) {
        let (certificate, key) = (self.0.text("live.pem"), self.0.text("live.key"));
        Program::greeter_reading(&[
            "--listen",
            "https://127.0.0.1:0",
            "--certificate",
            &certificate,
            "--key",
            &key,
        ])
    }

    /// A client that trusts either.
    fn trusting(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        for number in ["1", "2"] {
            roots.add(self.certificate(number)).unwrap();
        }
        let mut config = tls::trusting(&self.0.path("1.pem"));
        let verifier = bottle_session::rustls::client::WebPkiServerVerifier::builder_with_provider(
            Arc::new(roots),
            Arc::new(bottle_session::rustls::crypto::ring::default_provider()),
        );
        config.dangerous().set_certificate_verifier(verifier.build().unwrap());
        Arc::new(config)
    }

    fn certificate(&self, number: &str) -> CertificateDer<'static> {
        certificate_in(&self.0.path(&format!("{number}.pem")))
    }
}

fn certificate_in(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).unwrap()
}

/// Which certificate a new connection is shown.
fn shown(program: &Program, live: &Live) -> CertificateDer<'static> {
    let stream = TlsStream::connect(program.address, &live.trusting());
    stream.shake_hands().unwrap();
    stream.session().peer_certificates().unwrap()[0].clone().into_owned()
}

fn next_line(log: &Receiver<String>, part: &str) -> String {
    log.iter().find(|line| line.contains(part)).unwrap_or_else(|| panic!("no line with {part:?}"))
}

#[test]
fn a_renewal_under_load_fails_no_request_and_cuts_no_connection_and_no_ticket() {
    let live = Live::new();
    let (program, log) = live.serve();
    let over = AtomicBool::new(false);
    let (kept, fresh) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let address = program.address;
    let connect = |config: Arc<_>| Client::over(Stream::Tls(TlsStream::connect(address, &config)));
    let before = live.trusting();
    assert_eq!(connect(before.clone()).get("/").status, 200);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut client = connect(live.trusting());
                while !over.load(Ordering::SeqCst) {
                    assert_eq!(client.get("/").status, 200);
                    kept.fetch_add(1, Ordering::SeqCst);
                }
            });
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    assert_eq!(connect(live.trusting()).get("/").status, 200);
                    fresh.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let more = |count: &AtomicUsize| {
            let so_far = count.load(Ordering::SeqCst);
            wait_until("more requests", || count.load(Ordering::SeqCst) > so_far + 20);
        };
        for number in ["2", "1", "2"] {
            for file in ["pem", "key"] {
                live.link(file, number);
                // Also between the two, when they do not belong together.
                program.signal("HUP");
                more(&kept);
                more(&fresh);
            }
            wait_until("the new one is in use", || {
                shown(&program, &live) == live.certificate(number)
            });
        }
        over.store(true, Ordering::SeqCst);
    });
    let stream = TlsStream::connect(address, &before);
    assert_eq!(Client::over(Stream::Tls(stream.clone())).get("/").status, 200);
    assert_eq!(stream.session().handshake_kind(), Some(HandshakeKind::Resumed));
    assert!(program.terminate().success());
    let loud = log.iter().filter(|line| line.contains("ERROR"));
    assert_eq!(loud.collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn files_that_cannot_be_used_are_told_of_once_and_the_old_certificate_serves_on() {
    let live = Live::new();
    let (program, log) = live.serve();
    let still = |number| {
        assert_eq!(shown(&program, &live), live.certificate(number));
    };
    let why = "a new certificate cannot be used, and the one in use stays: ";
    // Since it serves, SIGHUP no longer ends it.
    still("1");
    live.link("pem", "2");
    program.signal("HUP");
    assert!(next_line(&log, why).contains("is not that of the certificate in "));
    still("1");
    std::fs::remove_file(live.0.path("live.key")).unwrap();
    program.signal("HUP");
    assert!(next_line(&log, why).contains("live.key\": No such file"));
    still("1");
    std::fs::write(live.0.path("live.key"), "").unwrap();
    // The same files, the same line: only once, however often they are looked at.
    for _ in 0..5 {
        program.signal("HUP");
        still("1");
    }
    std::fs::remove_file(live.0.path("live.key")).unwrap();
    live.link("key", "2");
    program.signal("HUP");
    let lines: Vec<_> = log
        .iter()
        .take_while(|line| !line.contains("live.pem\" is new, and in use"))
        .filter(|line| line.contains(why))
        .collect();
    assert!(lines.len() <= 2 && lines[0].contains("live.key\" is empty"), "{lines:#?}");
    still("2");
    assert!(program.terminate().success());
}

#[test]
fn without_a_signal_the_files_are_looked_at_every_ten_seconds() {
    let live = Live::new();
    let (program, _log) = live.serve();
    assert_eq!(shown(&program, &live), live.certificate("1"));
    for file in ["key", "pem"] {
        live.link(file, "2");
    }
    wait_until("it is in use", || shown(&program, &live) == live.certificate("2"));
    drop(TcpStream::connect(program.address));
}
