//! Redis over TLS, with certificates made for the test.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use bottle_session::{
    App, ErrorKind, RedisCluster, RedisConfig, RedisPlugin, RedisPool, RedisStore, Session,
    SessionPlugin, SessionStore, TestClient,
};

use crate::support::redis_server::RedisServer;
use crate::support::sessions::{fresh_id, load};

/// An authority, and a server's certificate that it vouches for.
struct Certificates(PathBuf);

impl Certificates {
    fn make() -> Certificates {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("bs-tls-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("leaf.ext"), "subjectAltName=IP:127.0.0.1\n").unwrap();
        let openssl = |words: &str| {
            let done = Command::new("openssl")
                .args(words.split(' '))
                .current_dir(&folder)
                .stderr(Stdio::null())
                .status()
                .expect("openssl is installed");
            assert!(done.success(), "openssl {words}");
        };
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        openssl(&format!("req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=authority"));
        openssl(&format!("req {key} -keyout server.key -out server.csr -subj /CN=server"));
        openssl(
            "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem \
             -days 2 -extfile leaf.ext",
        );
        Certificates(folder)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    fn authority(&self) -> Vec<u8> {
        std::fs::read(Path::new(&self.path("ca.pem"))).unwrap()
    }

    /// A server that talks TLS on this port, and the port.
    fn server(&self) -> (RedisServer, u16) {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (port, certificate) = (free.to_string(), self.path("server.pem"));
        let (key, authority) = (self.path("server.key"), self.path("ca.pem"));
        let options = [
            ["--bind", "127.0.0.1"],
            ["--tls-port", &port],
            ["--tls-cert-file", &certificate],
            ["--tls-key-file", &key],
            ["--tls-ca-cert-file", &authority],
            ["--tls-auth-clients", "no"],
        ];
        (RedisServer::start(&options.concat()), free)
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn client(config: RedisConfig) -> TestClient {
    let pool = RedisPool::new(config).unwrap();
    let mut app = App::new();
    app.install(SessionPlugin::new().pool(pool.clone())).unwrap();
    app.install(RedisPlugin::new().pool(pool)).unwrap();
    app.get("/set/<name>", |session: &mut Session, name: &str| {
        session.set("name", name);
        "set"
    });
    app.get("/", |session: &mut Session| session.get("name").unwrap_or("nobody").to_owned());
    TestClient::new(app).unwrap()
}

#[test]
fn sessions_travel_over_tls() {
    let certificates = Certificates::make();
    let (_redis, port) = certificates.server();
    let config = RedisConfig::from_url(&format!("rediss://127.0.0.1:{port}/2")).unwrap();
    let client = client(config.ca_certificate(certificates.authority()));
    assert_eq!(client.get("/set/Ada").send().status(), 200);
    assert_eq!(client.get("/").send().text(), "Ada");
    // More than one TLS record, there and back.
    let long = "x".repeat(40_000);
    assert_eq!(client.get(&format!("/set/{long}")).send().status(), 200);
    assert_eq!(client.get("/").send().text(), long);
}

#[test]
fn a_server_whose_authority_is_unknown_is_not_talked_to() {
    let (certificates, others) = (Certificates::make(), Certificates::make());
    let (_redis, port) = certificates.server();
    let config = RedisConfig::from_url(&format!("rediss://127.0.0.1:{port}")).unwrap();
    let client = client(config.ca_certificate(others.authority()));
    let answer = client.get("/set/Ada").send();
    // Nothing that passes: somebody has to change a setting, or is in the way.
    assert_eq!((answer.status(), answer.set_cookies().len()), (500, 0));
}

#[test]
fn a_certificate_that_is_none_is_refused_at_once() {
    for pem in ["", "-----BEGIN CERTIFICATE-----\nxx\n-----END CERTIFICATE-----\n"] {
        let config = RedisConfig::from_url("rediss://127.0.0.1:1").unwrap().ca_certificate(pem);
        assert_eq!(RedisPool::new(config).unwrap_err().kind(), ErrorKind::Config);
    }
}

#[test]
fn a_cluster_of_nodes_over_tls_is_not_talked_to_in_the_clear() {
    let certificates = Certificates::make();
    let (_server, port) = certificates.server();
    let config = RedisConfig::default().ca_certificate(certificates.authority());
    let cluster = RedisCluster::new([&*format!("rediss://127.0.0.1:{port}")], config).unwrap();
    let store = RedisStore::on_cluster(cluster.clone());
    let id = fresh_id(store.id_format());
    // The server is none of a cluster, and says so: the connection stands.
    assert!(load(&store, &id).is_err());
    assert_eq!(cluster.connections(), (1, 1));
}

#[test]
fn sentinels_over_tls_are_vouched_for_by_the_same_authority() {
    let certificates = Certificates::make();
    // Not a sentinel, but whoever gets to its refusal has trusted its certificate.
    let (_server, port) = certificates.server();
    let config = RedisConfig::default().ca_certificate(certificates.authority());
    let node = format!("rediss://127.0.0.1:{port}");
    let pool = RedisPool::sentinel([&*node], "sessions", config).unwrap();
    let error = pool.connection().exists("key").unwrap_err().to_string();
    assert!(error.contains("unknown command"), "{error}");
}
