//! Where a Redis server is and how long it may take.

mod url;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use self::url::{is_host, node};
use super::sentinel::Sentinel;
use crate::{Error, ErrorKind, Result};

/// Where a Redis server is, who we are there, and how long things may take.
///
/// | setting | default |
/// |---|---|
/// | host, port, db | `localhost`, 6379, 0 |
/// | username, password, or credentials that are asked for | none |
/// | connect_timeout | 1 s, the time until a connection is there |
/// | operation_timeout | 500 ms, the time until all replies of one round trip are there |
/// | pool_size | 16 connections |
/// | max_reply | 64 MiB, what the replies of one round trip may have |
/// | address_map | none, nodes are reached where they say |
/// | replicas | 0, how many replicas must have a save before it counts |
/// | max_connection_age | none, after which connections are renewed |
///
/// `Debug` shows no password.
#[derive(Clone)]
pub struct RedisConfig {
    pub(super) address: Address,
    pub(super) db: i64,
    pub(super) username: Option<String>,
    pub(super) password: Option<String>,
    pub(super) credentials: Option<CredentialsProvider>,
    pub(super) connect_timeout: Duration,
    pub(super) operation_timeout: Duration,
    pub(super) pool_size: u32,
    pub(super) max_reply: usize,
    /// Addresses that nodes announce, and where they are reached.
    pub(super) reached_at: Arc<BTreeMap<Node, Node>>,
    pub(super) replicas: u32,
    pub(super) max_connection_age: Option<Duration>,
    #[cfg(feature = "rustls")]
    pub(super) ca_certificate: Option<Vec<u8>>,
    /// The client's certificate, and its key.
    #[cfg(feature = "rustls")]
    pub(super) client_certificate: Option<(Vec<u8>, Vec<u8>)>,
}

/// Host and port.
pub(super) type Node = (String, u16);

/// Says who we are when a connection is made.
type CredentialsProvider = Arc<dyn Fn() -> Result<(String, String)> + Send + Sync>;

#[derive(Clone)]
pub(super) enum Address {
    Tcp {
        host: String,
        port: u16,
        tls: bool,
    },
    Unix(PathBuf),
    /// Whoever is the master at the time.
    Sentinel(Arc<Sentinel>),
}

impl Address {
    #[cfg(feature = "rustls")]
    pub(super) fn is_tls(&self) -> bool {
        match self {
            Address::Tcp { tls, .. } => *tls,
            Address::Unix(_) => false,
            Address::Sentinel(sentinel) => sentinel.tls,
        }
    }
}

impl Default for RedisConfig {
    fn default() -> RedisConfig {
        RedisConfig {
            address: Address::Tcp { host: "localhost".to_owned(), port: 6379, tls: false },
            db: 0,
            username: None,
            password: None,
            credentials: None,
            connect_timeout: Duration::from_secs(1),
            operation_timeout: Duration::from_millis(500),
            pool_size: 16,
            max_reply: 64 * 1024 * 1024,
            reached_at: Arc::default(),
            replicas: 0,
            max_connection_age: None,
            #[cfg(feature = "rustls")]
            ca_certificate: None,
            #[cfg(feature = "rustls")]
            client_certificate: None,
        }
    }
}

impl RedisConfig {
    /// The host: `localhost` unless set.
    #[must_use]
    pub fn host(mut self, host: impl Into<String>) -> RedisConfig {
        let (port, tls) = self.port_and_tls();
        self.address = Address::Tcp { host: host.into(), port, tls };
        self
    }

    /// The port: 6379 unless set.
    #[must_use]
    pub fn port(mut self, port: u16) -> RedisConfig {
        let (_, tls) = self.port_and_tls();
        let host = match self.address {
            Address::Tcp { host, .. } => host,
            Address::Unix(_) | Address::Sentinel(_) => "localhost".to_owned(),
        };
        self.address = Address::Tcp { host, port, tls };
        self
    }

    pub(super) fn port_and_tls(&self) -> (u16, bool) {
        match self.address {
            Address::Tcp { port, tls, .. } => (port, tls),
            Address::Unix(_) | Address::Sentinel(_) => (6379, false),
        }
    }

    /// The number of the database: 0 unless set.
    #[must_use]
    pub fn db(mut self, db: i64) -> RedisConfig {
        self.db = db;
        self
    }

    /// The user (ACL, Redis 6 and later): none unless set.
    #[must_use]
    pub fn username(mut self, username: impl Into<String>) -> RedisConfig {
        self.username = Some(username.into());
        self
    }

    /// The password: none unless set.
    #[must_use]
    pub fn password(mut self, password: impl Into<String>) -> RedisConfig {
        self.password = Some(password.into());
        self
    }

    /// Who says user and password: asked for each new connection, for passwords that change while the app runs. An
    /// empty user is none. Goes before [`username`](RedisConfig::username) and [`password`](RedisConfig::password).
    ///
    /// It is called on the thread that connects, and takes of the time that this has. Where it fails, connecting
    /// does; connections that are there go on.
    ///
    /// ```
    /// use bottle_session::RedisConfig;
    ///
    /// let config = RedisConfig::default().credentials(|| {
    ///     let password = std::fs::read_to_string("/run/secrets/redis")?;
    ///     Ok(("app".to_owned(), password.trim_end().to_owned()))
    /// });
    /// ```
    #[must_use]
    pub fn credentials(
        mut self,
        provider: impl Fn() -> Result<(String, String)> + Send + Sync + 'static,
    ) -> RedisConfig {
        self.credentials = Some(Arc::new(provider));
        self
    }

    /// User and password for a new connection, as far as there are any.
    pub(super) fn current_credentials(&self) -> Result<(Option<String>, Option<String>)> {
        match &self.credentials {
            Some(provider) => provider().map(|(user, password)| {
                (Some(user).filter(|user| !user.is_empty()), Some(password))
            }),
            None => Ok((self.username.clone(), self.password.clone())),
        }
    }

    /// How long it may take until a connection is there: 1 s unless set.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> RedisConfig {
        self.connect_timeout = timeout;
        self
    }

    /// How long it may take until all replies of one round trip are there: 500 ms unless set.
    #[must_use]
    pub fn operation_timeout(mut self, timeout: Duration) -> RedisConfig {
        self.operation_timeout = timeout;
        self
    }

    /// How many connections there may be: 16 unless set. As many as the server has workers.
    #[must_use]
    pub fn pool_size(mut self, connections: u32) -> RedisConfig {
        self.pool_size = connections;
        self
    }

    /// How many bytes the replies of one round trip may have: 64 MiB unless set. Past it they are not read any
    /// further, the connection is closed, and the command's error says so. Replies to sessions have a lower
    /// limit, which follows from the caps of the store. The connections of an `r2d2_redis` pool read what they
    /// get.
    #[must_use]
    pub fn max_reply(mut self, bytes: usize) -> RedisConfig {
        self.max_reply = bytes;
        self
    }

    /// How many replicas must have what a session saves before that counts: 0 unless set. Redis answers first and
    /// replicates then, so a server that is lost takes along what no replica has.
    ///
    /// Behind the saves of each round trip goes a `WAIT` for so many replicas, with the time that the operation has left;
    /// reads do not wait. Where fewer have answered by then, the request fails as where Redis does not answer (503),
    /// although the save may be on the primary. A server that does not let us `WAIT` is an error when the plugin is
    /// installed, or with the first save where it was not reached then. `WAIT` blocks its connection, so each event loop
    /// has a second one for saves.
    ///
    /// This holds on one server with replicas, behind Sentinel and in a cluster. It narrows what the loss of a server
    /// takes along, and is no consensus: behind Sentinel a planned failover promotes one replica while another one may go
    /// on to acknowledge for the old primary, which is why [`RedisPool::sentinel`](crate::RedisPool::sentinel) listens
    /// to the sentinels. It does not concern the commands of a [`RedisConnection`](crate::RedisConnection).
    #[must_use]
    pub fn replicas(mut self, replicas: u32) -> RedisConfig {
        self.replicas = replicas;
        self
    }

    /// After how long a connection is replaced by a new one, for which the name of the host is resolved anew: never
    /// unless set. For a Redis whose name or proxy is switched to another server without an error on the old
    /// connections; a server that has become a replica is left at its first `READONLY` anyway. The connections are renewed
    /// one by one, each up to a tenth earlier, so that those made together are not renewed together. Those of an
    /// `r2d2_redis` pool are that pool's to renew.
    #[must_use]
    pub fn max_connection_age(mut self, age: impl Into<Option<Duration>>) -> RedisConfig {
        self.max_connection_age = age.into();
        self
    }

    /// The certificate of the authority, in PEM, that the server's must come from; the operating system's
    /// authorities unless set. For `rediss://` addresses, those of sentinels and of a cluster's nodes included.
    #[cfg(feature = "rustls")]
    #[must_use]
    pub fn ca_certificate(mut self, pem: impl Into<Vec<u8>>) -> RedisConfig {
        self.ca_certificate = Some(pem.into());
        self
    }

    /// The certificate by which the server knows us, with those between it and its authority behind it, and its key:
    /// both in PEM, the key not encrypted. None unless set. For servers that ask for one (`tls-auth-clients yes`, which
    /// is Redis's default); sentinels and the nodes of a cluster get the same.
    ///
    /// ```no_run
    /// use bottle_session::RedisConfig;
    ///
    /// let config = RedisConfig::from_url("rediss://redis.internal")?
    ///     .ca_certificate(std::fs::read("/etc/app/authority.pem")?)
    ///     .client_certificate(std::fs::read("/etc/app/app.pem")?, std::fs::read("/etc/app/app.key")?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[cfg(feature = "rustls")]
    #[must_use]
    pub fn client_certificate(
        mut self,
        pem: impl Into<Vec<u8>>,
        key: impl Into<Vec<u8>>,
    ) -> RedisConfig {
        self.client_certificate = Some((pem.into(), key.into()));
        self
    }

    /// Where nodes of a cluster, and masters behind sentinels, are reached whose addresses mean nothing here: those of
    /// a container network, of which some ports are published. Each pair is an address as they announce it, such as
    /// `172.18.0.2:6379`, and where that one is reached. Others are reached where they say.
    ///
    /// ```
    /// use bottle_session::{RedisCluster, RedisConfig};
    ///
    /// let published = [("172.18.0.2:6379", "127.0.0.1:7001"), ("172.18.0.3:6379", "127.0.0.1:7002")];
    /// let config = RedisConfig::default().address_map(published)?;
    /// let cluster = RedisCluster::new(["redis://127.0.0.1:7001"], config)?;
    /// # let _ = cluster;
    /// # Ok::<(), bottle_session::Error>(())
    /// ```
    pub fn address_map<'a>(
        mut self,
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<RedisConfig> {
        let pairs =
            pairs.into_iter().map(|(announced, reached)| Ok((node(announced)?, node(reached)?)));
        self.reached_at = Arc::new(pairs.collect::<Result<_>>()?);
        Ok(self)
    }

    /// Where the node is reached that announces this address.
    pub(super) fn reached(&self, announced: Node) -> Node {
        self.reached_at.get(&announced).cloned().unwrap_or(announced)
    }

    /// Where a node of a cluster is, and whether it talks TLS.
    pub(super) fn cluster_node(&self) -> Result<(String, u16, bool)> {
        let refused = |why: &str| Err(Error::new(ErrorKind::Config, format!("{self}: {why}")));
        let Address::Tcp { host, port, tls } = &self.address else {
            return refused("a node of a cluster has a host and a port");
        };
        if self.username.is_some() || self.password.is_some() || self.credentials.is_some() {
            return refused(
                "who we are, all nodes of a cluster are told: say it in the RedisConfig",
            );
        }
        match self.db {
            0 => Ok((host.clone(), *port, *tls)),
            _ => refused("a cluster has no other database than 0"),
        }
    }

    /// The same settings for the server at this address.
    pub(super) fn at(mut self, host: &str, port: u16, tls: bool) -> RedisConfig {
        self.address = Address::Tcp { host: host.to_owned(), port, tls };
        self
    }

    /// The same settings for the master that these sentinels know by this name.
    pub(super) fn behind_sentinels(
        mut self,
        #[cfg_attr(not(feature = "rustls"), expect(unused_mut))] mut nodes: Vec<RedisConfig>,
        master: &str,
    ) -> Result<RedisConfig> {
        let (_, tls) = self.port_and_tls();
        // Addresses do not say whom to trust: one authority vouches for all of them.
        #[cfg(feature = "rustls")]
        for node in &mut nodes {
            node.ca_certificate.clone_from(&self.ca_certificate);
            node.client_certificate.clone_from(&self.client_certificate);
        }
        self.address = Address::Sentinel(Arc::new(Sentinel::new(nodes, master, tls)?));
        Ok(self)
    }

    /// Whether both are for the same server, as the same user.
    pub(super) fn is_same_server(&self, other: &RedisConfig) -> bool {
        let place = match (&self.address, &other.address) {
            (
                Address::Tcp { host, port, tls },
                Address::Tcp { host: other_host, port: other_port, tls: other_tls },
            ) => (host, port, tls) == (other_host, other_port, other_tls),
            _ => false,
        };
        #[cfg(feature = "rustls")]
        let place = place
            && self.ca_certificate == other.ca_certificate
            && self.client_certificate == other.client_certificate;
        let has_provider = self.credentials.is_some() || other.credentials.is_some();
        place
            && !has_provider
            && (&self.username, &self.password) == (&other.username, &other.password)
    }

    pub(super) fn check(&self) -> Result<()> {
        let refused = |why: &str| Err(Error::new(ErrorKind::Config, format!("Redis: {why}")));
        if matches!(&self.address, Address::Tcp { host, .. } if !is_host(host)) {
            return refused(
                "the host is no name or address of a machine (it is not shown, as it may hold a password); \
                 what begins with redis:// is given to `url`, a port to `port`",
            );
        }
        if self.connect_timeout.is_zero() || self.operation_timeout.is_zero() {
            return refused("a time-out of zero leaves no time for anything");
        }
        if self.max_reply == 0 {
            return refused(
                "a limit of zero bytes lets no reply in; max_reply is 64 MiB unless set",
            );
        }
        if self.max_connection_age.is_some_and(|age| age.is_zero()) {
            return refused(
                "a max_connection_age of zero would renew every connection before its first use",
            );
        }
        if self.username.is_some() && self.password.is_none() && self.credentials.is_none() {
            return refused(
                "a user without a password would not be told to the server; set one, an empty one for a user \
                 that needs none",
            );
        }
        match self.pool_size {
            0 => refused("a pool of no connections serves nobody"),
            65_536.. => refused(
                "a pool of more connections than a machine has ports; pool_size is 16 unless set",
            ),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisConfig({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_reached_where_the_map_says() {
        let pairs =
            [("172.18.0.2:6379", "127.0.0.1:7001"), ("[fd00::2]:6379", "db.example.org:7002")];
        let config = RedisConfig::default().address_map(pairs).unwrap();
        let reached = |host: &str, port| config.reached((host.to_owned(), port));
        assert_eq!(reached("172.18.0.2", 6379), ("127.0.0.1".to_owned(), 7001));
        assert_eq!(reached("fd00::2", 6379), ("db.example.org".to_owned(), 7002));
        assert_eq!(reached("172.18.0.2", 6380), ("172.18.0.2".to_owned(), 6380));
        for wrong in
            ["172.18.0.2", "a:0", "a:x", ":1", "::1:6379", "[a]:1", "redis://:secret@a:1", ""]
        {
            for pair in [(wrong, "a:1"), ("a:1", wrong)] {
                let error = RedisConfig::default().address_map([pair]).unwrap_err().to_string();
                assert!(error.contains("no host and port") && !error.contains("secret"), "{wrong}");
            }
        }
    }

    #[cfg(feature = "rustls")]
    #[test]
    fn servers_that_know_us_by_another_certificate_are_told_apart() {
        let config = || RedisConfig::default().ca_certificate("authority");
        assert!(config().is_same_server(&config()));
        let ours = || config().client_certificate("ours", "key");
        assert!(ours().is_same_server(&ours()));
        assert!(!config().is_same_server(&ours()));
        assert!(!ours().is_same_server(&config().client_certificate("theirs", "key")));
        assert!(!ours().is_same_server(&config().client_certificate("ours", "another key")));
    }

    #[test]
    fn settings_that_cannot_work_are_refused() {
        let new = RedisConfig::default;
        for (config, expected) in [
            (new().connect_timeout(Duration::ZERO), "a time-out of zero"),
            (new().pool_size(0), "serves nobody"),
            (new().max_reply(0), "lets no reply in"),
            (new().pool_size(u32::MAX), "than a machine has ports"),
            (new().username("ada"), "a user without a password"),
            (new().max_connection_age(Duration::ZERO), "would renew every connection"),
        ] {
            let error = config.check().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert!(new().username("ada").password("").check().is_ok());
    }
}
