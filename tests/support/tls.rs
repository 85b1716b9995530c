//! Certificates made for the test, and clients that speak TLS with rustls.

use std::fs::Permissions;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, SystemTime};

use bottle_session::rustls::crypto::CryptoProvider;
use bottle_session::rustls::crypto::ring::default_provider;
use bottle_session::rustls::pki_types::pem::PemObject;
use bottle_session::rustls::pki_types::{CertificateDer, ServerName};
use bottle_session::rustls::{ClientConfig, ClientConnection, RootCertStore};
use bottle_session::server::native::Native;
use bottle_session::server::tls::Tls;
use rcgen::{CertificateParams, DnType, KeyPair};

/// A folder that ends with the test.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Folder {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("bs-https-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Runs openssl there; words are between spaces.
    pub fn openssl(&self, words: &str) -> String {
        let done = Command::new("openssl")
            .args(words.split(' '))
            .current_dir(&self.0)
            .stdin(Stdio::null())
            .output()
            .expect("openssl is installed");
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "openssl {words}: {said}");
        String::from_utf8_lossy(&done.stdout).into_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl AsRef<Path> for Folder {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

/// For whom the certificates of the tests are.
pub const NAMES: [&str; 5] = ["localhost", "example.org", "*.example.net", "127.0.0.1", "::1"];

/// Writes a new certificate that vouches for itself and ends in so many days, and its key: `NAME.pem` and `NAME.key`.
pub fn make_certificate(folder: &Folder, name: &str, days: i64) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(NAMES.map(str::to_owned)).unwrap();
    let day = Duration::from_secs(24 * 60 * 60);
    let now = SystemTime::now();
    let end = match u32::try_from(days) {
        // An hour more, so that they are whole days for as long as the test takes.
        Ok(days) => now + days * day + Duration::from_secs(3600),
        Err(_) => now - days.unsigned_abs() as u32 * day,
    };
    (params.not_before, params.not_after) = ((now - 1000 * day).into(), end.into());
    params.distinguished_name.push(DnType::CommonName, name);
    let certificate = params.self_signed(&key).unwrap();
    std::fs::write(folder.path(&format!("{name}.pem")), certificate.pem()).unwrap();
    let key_file = folder.path(&format!("{name}.key"));
    std::fs::write(&key_file, key.serialize_pem()).unwrap();
    std::fs::set_permissions(&key_file, Permissions::from_mode(0o600)).unwrap();
}

/// One certificate for all tests that do not look at it: its folder, in which it is `own.pem` and `own.key`.
pub fn own() -> &'static Folder {
    static OWN: OnceLock<Folder> = OnceLock::new();
    OWN.get_or_init(|| {
        let folder = Folder::new();
        // Whoever took the cryptography of the process, and not its own, would have none: as where two crates of an
        // application brought one each.
        let none = CryptoProvider {
            cipher_suites: Vec::new(),
            kx_groups: Vec::new(),
            ..default_provider()
        };
        none.install_default().expect("no other one");
        make_certificate(&folder, "own", 100);
        folder
    })
}

/// Has the server speak TLS with it.
pub fn inside(native: Native) -> Native {
    let read = |name| std::fs::read(own().path(name)).unwrap();
    native.tls(Tls::pem(read("own.pem"), read("own.key")).unwrap())
}

/// What a client that trusts this certificate, and no other one, is made of.
pub fn trusting(certificate: &Path) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
    ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// The same for the certificate of all tests.
pub fn config() -> Arc<ClientConfig> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    CONFIG.get_or_init(|| Arc::new(trusting(&own().path("own.pem")))).clone()
}

pub fn session(config: &Arc<ClientConfig>) -> ClientConnection {
    ClientConnection::new(config.clone(), ServerName::try_from("localhost").unwrap()).unwrap()
}

/// The client's side of a connection inside TLS. Clones are the same connection.
#[derive(Clone)]
pub struct TlsStream(Arc<Inside>);

struct Inside {
    socket: TcpStream,
    session: Mutex<ClientConnection>,
}

impl TlsStream {
    pub fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> TlsStream {
        let socket = TcpStream::connect(address).expect("the server listens");
        TlsStream::new(socket, session(config))
    }

    pub fn new(socket: TcpStream, session: ClientConnection) -> TlsStream {
        TlsStream(Arc::new(Inside { socket, session: Mutex::new(session) }))
    }

    pub fn socket(&self) -> &TcpStream {
        &self.0.socket
    }

    pub fn session(&self) -> MutexGuard<'_, ClientConnection> {
        self.0.session.lock().unwrap()
    }

    /// Shakes hands, as far as the client's side has to.
    pub fn shake_hands(&self) -> io::Result<()> {
        let (mut session, mut socket) = (self.session(), self.socket());
        while session.is_handshaking() || session.wants_write() {
            session.complete_io(&mut socket)?;
        }
        Ok(())
    }

    /// Ends the connection without a word.
    pub fn shutdown_socket(&self) {
        self.0.socket.shutdown(Shutdown::Both).unwrap();
    }

    /// Says that nothing follows, in TLS (which takes a handshake) and below it.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.shake_hands()?;
        let (mut session, mut socket) = (self.session(), self.socket());
        session.send_close_notify();
        session.complete_io(&mut socket)?;
        self.0.socket.shutdown(how)
    }
}

impl Read for TlsStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (mut session, mut socket) = (self.session(), self.socket());
        bottle_session::rustls::Stream::new(&mut *session, &mut socket).read(buffer)
    }
}

impl Write for TlsStream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let (mut session, mut socket) = (self.session(), self.socket());
        bottle_session::rustls::Stream::new(&mut *session, &mut socket).write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        let (mut session, mut socket) = (self.session(), self.socket());
        bottle_session::rustls::Stream::new(&mut *session, &mut socket).flush()
    }
}
