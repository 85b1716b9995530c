//! Programs of others: openssl s_client, Python's ssl, curl; and what they may do more than once.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;

use bottle_session::rustls::HandshakeKind;
use bottle_session::rustls::RootCertStore;
use bottle_session::rustls::crypto::ring::{Ticketer, default_provider};
use bottle_session::rustls::pki_types::pem::PemObject;
use bottle_session::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use bottle_session::rustls::server::{
    NoServerSessionStorage, ResolvesServerCertUsingSni, ServerConfig, WebPkiClientVerifier,
};
use bottle_session::rustls::sign::CertifiedKey;
use bottle_session::rustls::{ClientConfig, ClientConnection};
use bottle_session::server::native::Native;
use bottle_session::server::tls::Tls;

use super::{GET, LAST, app, bind, raw};
use crate::support::serving::{Client, Serving, Stream};
use crate::support::tls::{self, Folder, TlsStream};

/// What openssl's client says, with this on its input.
fn s_client(server: &Serving, options: &str, input: &str) -> String {
    let mut child = Command::new("openssl")
        .args(["s_client", "-connect", &server.address.to_string(), "-servername", "localhost"])
        .args(["-CAfile", &tls::own().text("own.pem"), "-verify_return_error"])
        .args(options.split_whitespace())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl is installed");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let done = child.wait_with_output().unwrap();
    String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr)
}

#[test]
fn openssl_speaks_tls_1_3_and_1_2_resumes_and_may_not_do_more() {
    let server = Serving::start(bind(), app());
    for (version, name) in [("-tls1_3", "TLSv1.3"), ("-tls1_2", "TLSv1.2")] {
        let said = s_client(&server, &format!("-quiet -ign_eof {version}"), LAST);
        assert!(said.contains("\r\n\r\nhello"), "{version}: {said}");
        let said = s_client(&server, &format!("-ign_eof -alpn http/1.1 {version}"), LAST);
        assert!(said.contains("ALPN protocol: http/1.1") && said.contains(name), "{said}");
        assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
        assert!(
            said.contains("Secure Renegotiation IS") && !said.contains("Max Early Data: 1"),
            "{said}"
        );
        let folder = Folder::new();
        let session = folder.text("session");
        s_client(&server, &format!("-ign_eof -sess_out {session} {version}"), LAST);
        let again = s_client(&server, &format!("-ign_eof -sess_in {session} {version}"), LAST);
        assert!(again.contains("Reused, TLSv1."), "{again}");
    }
    let said = s_client(&server, "-ign_eof -alpn h2", LAST);
    assert!(said.contains("alert number 120"), "{said}");
    for old in ["-tls1", "-tls1_1"] {
        let said = s_client(&server, &format!("{old} -cipher DEFAULT@SECLEVEL=0"), "");
        assert!(said.contains("alert number 70"), "{old}: {said}");
    }
    // Its first share of a key is of a kind that the server has not: both say hello twice.
    let said = s_client(&server, "-quiet -ign_eof -tls1_3 -groups P-521:P-256", LAST);
    assert!(said.contains("\r\n\r\nhello"), "{said}");
    // A line of R asks for other keys, and with TLS 1.2 for another handshake; K updates keys with 1.3.
    let said = s_client(&server, "-tls1_2", &format!("R\n{LAST}"));
    assert!(!said.contains("hello"), "{said}");
    let said = s_client(&server, "-tls1_3 -ign_eof", LAST);
    assert!(said.contains("hello"), "{said}");
}

#[test]
fn pythons_ssl_is_served_and_sees_a_clean_end() {
    let server = Serving::start(bind(), app());
    let script = r#"
import http.client, socket, ssl, sys
port, certificate = int(sys.argv[1]), sys.argv[2]
context = ssl.create_default_context(cafile=certificate)
connection = http.client.HTTPSConnection("localhost", port, context=context)
for length in (0, 1, 16384, 1000000):
    connection.request("POST", "/count", b"x" * length)
    assert connection.getresponse().read() == str(length).encode(), length
connection.request("GET", "/large")
assert connection.getresponse().read() == b"z" * 3000000
connection.request("GET", "/stream")
assert connection.getresponse().read() == b"x" * 100000
with socket.create_connection(("localhost", port)) as plain:
    # An end that is not said is an error here.
    with context.wrap_socket(plain, server_hostname="localhost", suppress_ragged_eofs=False) as secure:
        secure.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = b""
        while True:
            piece = secure.recv(1000)
            if not piece:
                break
            answer += piece
        assert answer.endswith(b"hello"), answer
        secure.unwrap()
for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
    context = ssl.create_default_context(cafile=certificate)
    context.minimum_version = context.maximum_version = version
    connection = http.client.HTTPSConnection("localhost", port, context=context)
    connection.request("GET", "/about")
    said = connection.getresponse().read().decode()
    assert said == f"true https://localhost:{port}/about", said
print("done")
"#;
    let port = server.address.port().to_string();
    let certificate = tls::own().text("own.pem");
    let done = Command::new("python3").args(["-c", script, &port, &certificate]).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && done.stdout == b"done\n", "{said}");
}

#[test]
fn tls_1_3_only_is_that() {
    let read = |name| std::fs::read(tls::own().path(name)).unwrap();
    let only = Tls::pem(read("own.pem"), read("own.key")).unwrap().tls13_only();
    let server = Serving::start(Native::bind("127.0.0.1:0").unwrap().tls(only), app());
    assert!(s_client(&server, "-quiet -ign_eof -tls1_3", LAST).contains("\r\n\r\nhello"));
    assert!(s_client(&server, "-tls1_2", "").contains("alert number 70"));
}

fn ask(stream: &TlsStream) -> Option<HandshakeKind> {
    assert_eq!(Client::over(Stream::Tls(stream.clone())).get("/").text(), "hello");
    stream.session().handshake_kind()
}

#[test]
fn a_client_resumes_after_thousands_of_others() {
    let others = if std::env::var_os("BOTTLE_SESSION_LONG").is_some() { 10_000 } else { 400 };
    let server = Serving::start(bind(), app());
    let own = Arc::new(tls::trusting(&tls::own().path("own.pem")));
    assert_eq!(ask(&TlsStream::connect(server.address, &own)), Some(HandshakeKind::Full));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..others / 4 {
                    let other = Arc::new(tls::trusting(&tls::own().path("own.pem")));
                    assert_eq!(
                        ask(&TlsStream::connect(server.address, &other)),
                        Some(HandshakeKind::Full)
                    );
                }
            });
        }
    });
    assert_eq!(ask(&TlsStream::connect(server.address, &own)), Some(HandshakeKind::Resumed));
}

/// A certificate of this name and its key, in files.
fn pair(folder: &Folder, name: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    tls::make_certificate(folder, name, 100);
    let chain = CertificateDer::pem_file_iter(folder.path(&format!("{name}.pem"))).unwrap();
    let key = PrivateKeyDer::from_pem_file(folder.path(&format!("{name}.key"))).unwrap();
    (chain.collect::<Result<_, _>>().unwrap(), key)
}

fn serve(config: ServerConfig) -> Serving {
    let tls = Tls::config(config).unwrap();
    Serving::start(Native::bind("127.0.0.1:0").unwrap().tls(tls), app())
}

#[test]
fn with_a_config_each_name_has_its_certificate() {
    tls::own();
    let (folder, provider) = (Folder::new(), Arc::new(default_provider()));
    let mut names = ResolvesServerCertUsingSni::new();
    for name in ["localhost", "example.org"] {
        let (chain, key) = pair(&folder, name);
        names.add(name, CertifiedKey::from_der(chain, key, &provider).unwrap()).unwrap();
    }
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(names));
    config.ticketer = Ticketer::new().unwrap();
    let server = serve(config);
    for name in ["localhost", "example.org"] {
        let trusted = Arc::new(tls::trusting(&folder.path(&format!("{name}.pem"))));
        let session = ClientConnection::new(trusted, ServerName::try_from(name).unwrap()).unwrap();
        ask(&TlsStream::new(raw(server.address), session));
    }
    let trusted = Arc::new(tls::trusting(&folder.path("localhost.pem")));
    let session = ClientConnection::new(trusted, ServerName::try_from("www.example.net").unwrap());
    assert!(TlsStream::new(raw(server.address), session.unwrap()).shake_hands().is_err());
}

#[test]
fn with_a_config_only_clients_with_a_certificate_are_served_and_none_resumes() {
    tls::own();
    let (folder, provider) = (Folder::new(), Arc::new(default_provider()));
    let (staff, stranger) = (pair(&folder, "staff"), pair(&folder, "stranger"));
    let mut authorities = RootCertStore::empty();
    authorities.add(staff.0[0].clone()).unwrap();
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider.clone());
    let (chain, key) = pair(&folder, "localhost");
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(chain, key)
        .unwrap();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    let server = serve(config);
    let client = |identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>| {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(folder.path("localhost.pem")).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        Arc::new(match identity {
            Some((chain, key)) => config.with_client_auth_cert(chain, key).unwrap(),
            None => config.with_no_client_auth(),
        })
    };
    let known = client(Some(staff));
    for _ in 0..3 {
        let kind = ask(&TlsStream::connect(server.address, &known));
        assert_eq!(kind, Some(HandshakeKind::Full), "never resumed");
    }
    for unknown in [client(None), client(Some(stranger))] {
        let mut stream = TlsStream::connect(server.address, &unknown);
        // With TLS 1.3 it is told after its own handshake is over.
        let _ = stream.write_all(GET.as_bytes());
        let mut answer = Vec::new();
        let error = stream.read_to_end(&mut answer).unwrap_err().to_string();
        assert!(answer.is_empty() && error.contains("alert"), "{error}");
    }
}
