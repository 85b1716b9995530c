//! Redis over TLS, with certificates made for the test.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bottle_session::{
    App, ErrorKind, RedisCluster, RedisConfig, RedisPlugin, RedisPool, RedisStore, Result, Session,
    SessionPlugin, SessionStore, TestClient,
};

use crate::guide_redis;
use crate::support::redis_server::RedisServer;
use crate::support::sessions::{fresh_id, load};

/// An authority, and a server's certificate that it vouches for.
struct Certificates(PathBuf);

impl Certificates {
    fn folder() -> Certificates {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("bs-tls-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Certificates(folder)
    }

    fn make() -> Certificates {
        let certificates = Certificates::folder();
        let folder = &certificates.0;
        std::fs::write(folder.join("leaf.ext"), "subjectAltName=IP:127.0.0.1\n").unwrap();
        let openssl = |words: &str| {
            let done = Command::new("openssl")
                .args(words.split(' '))
                .current_dir(folder)
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
        certificates
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

/// However slowly the machine checks certificates.
fn client(config: RedisConfig) -> TestClient {
    let a_minute = Duration::from_secs(60);
    let config = config.connect_timeout(a_minute).operation_timeout(a_minute);
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

/// Certificates as the guide makes them, and whoever else is to be known.
fn made_by_the_guide() -> Certificates {
    let certificates = Certificates::folder();
    // The address of the tests is a number.
    let commands =
        guide_redis::lines("sh").join("\n").replace("DNS:localhost", "DNS:localhost,IP:127.0.0.1");
    certificates.run(&commands);
    certificates
}

impl Certificates {
    /// Runs these commands in the folder.
    fn run(&self, commands: &str) {
        let done = Command::new("sh").args(["-e", "-c", commands]).current_dir(&self.0).output();
        let done = done.expect("sh");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    /// A server with the guide's settings and these in place of some of them, and its port.
    fn server_of_the_guide(&self, others: &[[&str; 2]]) -> (RedisServer, u16) {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut options = guide_redis::options("redis-tls-conf");
        let pairs: Vec<_> = options.chunks_exact_mut(2).collect();
        for pair in pairs {
            let other = others.iter().find(|other| pair[0] == format!("--{}", other[0]));
            let value = other.map_or(pair[1].clone(), |other| other[1].to_owned());
            pair[1] = match pair[0].as_str() {
                "--tls-port" => free.to_string(),
                name if name.ends_with("-file") => self.path(&value),
                _ => value,
            };
        }
        options.extend(["--bind".to_owned(), "127.0.0.1".to_owned()]);
        (RedisServer::start(&options.iter().map(String::as_str).collect::<Vec<_>>()), free)
    }
}

/// However slowly the machine checks certificates.
fn connect(config: RedisConfig) -> Result<bool> {
    RedisPool::new(config.connect_timeout(Duration::from_secs(60)))?.connection().exists("any")
}

#[test]
fn the_settings_of_the_guide_let_in_who_has_a_certificate_and_nobody_else() {
    let (certificates, others) = (made_by_the_guide(), made_by_the_guide());
    let (_redis, port) = certificates.server_of_the_guide(&[]);
    for host in ["localhost", "127.0.0.1"] {
        let config = RedisConfig::from_url(&format!("rediss://{host}:{port}/0")).unwrap();
        let config = config.ca_certificate(certificates.read("ca.pem"));
        let of = |from: &Certificates| {
            config.clone().client_certificate(from.read("app.pem"), from.read("app.key"))
        };
        let client = client(of(&certificates));
        assert_eq!(client.get("/set/Ada").send().status(), 200);
        assert_eq!(client.get("/").send().text(), "Ada");
        for (config, expected) in [
            (
                config.clone(),
                "the server asks for a certificate of ours: give RedisConfig::client_certificate",
            ),
            (
                of(&others),
                "the server does not trust the authority of RedisConfig::client_certificate",
            ),
        ] {
            for _ in 0..20 {
                let error = connect(config.clone()).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Config, "{error}");
                assert!(error.to_string().contains(expected), "{error}");
            }
        }
    }
    // The same for the nodes of a cluster.
    let config = RedisConfig::default()
        .ca_certificate(certificates.read("ca.pem"))
        .client_certificate(certificates.read("app.pem"), certificates.read("app.key"));
    let node = format!("rediss://127.0.0.1:{port}");
    let cluster = RedisCluster::new([node.as_str()], config.clone()).unwrap();
    let store = RedisStore::on_cluster(cluster);
    let error = load(&store, &fresh_id(store.id_format())).unwrap_err().to_string();
    assert!(error.contains("cluster support disabled"), "{error}");
    let pool = RedisPool::sentinel([node.as_str()], "sessions", config).unwrap();
    let error = pool.connection().exists("key").unwrap_err().to_string();
    assert!(error.contains("unknown command"), "{error}");
}

#[test]
fn what_is_wrong_with_the_server_s_certificate_is_said_with_what_would_do() {
    let certificates = made_by_the_guide();
    let itself = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=redis -addext subjectAltName=IP:127.0.0.1";
    certificates.run(&format!("{itself} -keyout itself.key -out itself.pem"));
    let no_authority = "-addext basicConstraints=critical,CA:FALSE";
    assert!(include_str!("../src/guide/redis.md").contains(no_authority));
    certificates.run(&format!("{itself} {no_authority} -keyout leaf.key -out leaf.pem"));
    let (_own, own) = certificates.server_of_the_guide(&[["tls-auth-clients", "no"]]);
    let with = |name: &str| {
        let (pem, key) = (format!("{name}.pem"), format!("{name}.key"));
        certificates.server_of_the_guide(&[
            ["tls-cert-file", &pem],
            ["tls-key-file", &key],
            ["tls-auth-clients", "no"],
        ])
    };
    let ((_itself, of_itself), (_leaf, of_leaf)) = (with("itself"), with("leaf"));
    certificates.run(
        "openssl req -newkey rsa:2048 -nodes -subj /CN=x -addext subjectAltName=DNS:other.example \
         -keyout other.key -out other.csr\n\
         openssl x509 -req -in other.csr -copy_extensions copy -CA ca.pem -CAkey ca.key -days 2 -out other.pem",
    );
    let (_other, of_other) = with("other");
    let config = |port: u16, authority: &str| {
        let config = RedisConfig::from_url(&format!("rediss://127.0.0.1:{port}")).unwrap();
        config.ca_certificate(certificates.read(authority))
    };
    for (port, authority, expected) in [
        (own, "itself.pem", ["UnknownIssuer", "with RedisConfig::ca_certificate"]),
        (of_itself, "itself.pem", ["CaUsedAsEndEntity", "basicConstraints=critical,CA:FALSE"]),
        (of_other, "ca.pem", ["not valid for name", "other.example"]),
    ] {
        let error = connect(config(port, authority)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(expected.iter().all(|part| error.to_string().contains(part)), "{error}");
    }
    // What would do, does.
    assert!(connect(config(own, "ca.pem")).is_ok());
    assert!(connect(config(of_leaf, "leaf.pem")).is_ok());
}

#[test]
fn a_client_certificate_that_is_none_is_refused_at_once_and_its_key_is_not_shown() {
    let certificates = made_by_the_guide();
    let (pem, key) = (certificates.read("app.pem"), certificates.read("app.key"));
    let config = || RedisConfig::from_url("rediss://127.0.0.1:1").unwrap();
    for (pem, key, expected) in [
        (b"nonsense".to_vec(), key.clone(), "the client certificate is not PEM"),
        (
            pem.clone(),
            b"nonsense".to_vec(),
            "the client certificate's key is not PEM, or is encrypted",
        ),
        (pem.clone(), certificates.read("ca.key"), "cannot be used together"),
    ] {
        let error = RedisPool::new(config().client_certificate(pem, key)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.to_string().contains(expected), "{error}");
        assert!(!format!("{error:?}").contains("nonsense"), "{error:?}");
    }
    let good = config().client_certificate(pem, key.clone());
    assert!(!format!("{good:?}").contains("PRIVATE"));
    assert!(RedisPool::new(good).is_ok());
}
