//! Addresses as text: read, checked, and shown without a password.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use url::Url;

use super::{Address, Node, RedisConfig};
use crate::{Error, ErrorKind, Result};

impl RedisConfig {
    /// Reads `redis://user:password@host:port/db`, the same with `rediss` for TLS (feature `rustls`), or
    /// `unix:///path?db=0&user=name&pass=word`.
    pub fn from_url(text: &str) -> Result<RedisConfig> {
        RedisConfig::default().url(text)
    }

    /// Takes from such a URL what it says, and leaves the rest as it is.
    pub fn url(self, text: &str) -> Result<RedisConfig> {
        let refused = |why: &str| {
            let text = format!("the Redis address {why}; expected redis://host:6379/0");
            Err(Error::new(ErrorKind::Config, text))
        };
        let Ok(url) = Url::parse(text) else { return refused("is not a URL") };
        match url.scheme() {
            "redis" | "valkey" => self.at_tcp(&url, false),
            "rediss" | "valkeys" if cfg!(feature = "rustls") => self.at_tcp(&url, true),
            "rediss" | "valkeys" => refused("asks for TLS, which needs the feature `rustls`"),
            "unix" | "redis+unix" | "valkey+unix" => self.at_unix(&url),
            // What else stands before a colon may be a user, or a password.
            scheme @ ("http" | "https" | "tcp" | "localhost") => {
                refused(&format!("has scheme {scheme:?}"))
            }
            _ => refused("has another scheme than redis, rediss and unix"),
        }
    }

    fn at_tcp(mut self, url: &Url, tls: bool) -> Result<RedisConfig> {
        // Not quoted: it may be what stands behind a slash in the password.
        let refused = |what: &str| {
            let text = format!("the Redis address has {what}; expected redis://host:6379/0");
            Err(Error::new(ErrorKind::Config, text))
        };
        if url.path().contains('@') {
            return refused("an @ behind the host (a / in a password is written %2F)");
        }
        if url.query().is_some() || url.fragment().is_some() {
            return refused("a query or fragment, which would have no effect");
        }
        let host = url.host_str().unwrap_or("localhost");
        // The url crate keeps the brackets of an IPv6 address; sockets do not want them.
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        self.address = Address::Tcp { host, port: url.port().unwrap_or(6379), tls };
        if !url.username().is_empty() {
            self.username = Some(decoded(url.username())?);
        }
        if let Some(password) = url.password() {
            self.password = Some(decoded(password)?);
        }
        match url.path().trim_start_matches('/') {
            "" => {}
            db => self.db = database(db)?,
        }
        Ok(self)
    }

    fn at_unix(mut self, url: &Url) -> Result<RedisConfig> {
        if url.has_authority() && !url.authority().is_empty() {
            let text = "the Redis address has something before the path of its socket; expected \
                        unix:///path?db=0&user=name&pass=word";
            return Err(Error::new(ErrorKind::Config, text));
        }
        if url.path().contains('&') {
            let text = "the Redis address has a & in the path of its socket (written %26 there); expected \
                        unix:///path?db=0&user=name&pass=word";
            return Err(Error::new(ErrorKind::Config, text));
        }
        self.address = Address::Unix(PathBuf::from(decoded(url.path())?));
        for (name, value) in url.query_pairs() {
            match name.as_ref() {
                "db" => self.db = database(&value)?,
                "user" => self.username = Some(value.into_owned()),
                "pass" => self.password = Some(value.into_owned()),
                // Not quoted: it may be what stands behind a & in the password.
                _ => {
                    let text = "the Redis address has other options than db, user and pass (a & in a password \
                                is written %26)";
                    return Err(Error::new(ErrorKind::Config, text));
                }
            }
        }
        Ok(self)
    }
}

fn decoded(text: &str) -> Result<String> {
    let decoded = percent_decode_str(text).decode_utf8().map_err(|error| {
        Error::new(ErrorKind::Config, "the Redis address is not UTF-8 once decoded")
            .with_source(error)
    })?;
    Ok(decoded.into_owned())
}

/// Reads `host:port`, `[::1]:port` for one.
pub(super) fn node(text: &str) -> Result<Node> {
    let node = text.rsplit_once(':').and_then(|(host, port)| {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = bare.unwrap_or(host);
        let port = port.parse().ok().filter(|port| *port != 0)?;
        (is_host(host) && bare.is_some() == host.contains(':')).then(|| (host.to_owned(), port))
    });
    node.ok_or_else(|| {
        // Not quoted: a whole URL may hold a password.
        let text = "an address of the address map is no host and port, such as 172.18.0.2:6379 or [::1]:6379";
        Error::new(ErrorKind::Config, text)
    })
}

fn database(text: &str) -> Result<i64> {
    // Not quoted: behind a misplaced / or & it is part of a password.
    text.parse().ok().filter(|db| *db >= 0).ok_or_else(|| {
        let text = "the Redis address has something else than a number for its database";
        Error::new(ErrorKind::Config, text)
    })
}

/// Whether this can be the name or the address of a machine, and not a whole URL in its place.
pub(super) fn is_host(text: &str) -> bool {
    let forbidden = |character: char| {
        "/\\@?#&".contains(character) || character.is_whitespace() || character.is_control()
    };
    let is_address = || {
        let (address, _zone) = text.split_once('%').unwrap_or((text, ""));
        address.parse::<Ipv6Addr>().is_ok()
    };
    !text.is_empty() && !text.contains(forbidden) && (!text.contains(':') || is_address())
}

/// Where it is, without a password.
impl fmt::Display for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Address::Tcp { host, port, tls } => {
                // What is no host may hold a password.
                let host = if is_host(host) { host } else { "?" };
                write!(f, "redis{}://{host}:{port}/{}", if *tls { "s" } else { "" }, self.db)
            }
            Address::Unix(path) => write!(f, "unix://{}?db={}", path.display(), self.db),
            Address::Sentinel(sentinel) => write!(f, "sentinel://{}/{}", sentinel.master, self.db),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        for (text, expected) in [
            ("redis://localhost", Ok("redis://localhost:6379/0")),
            ("redis://ada:p%40ss@example.org:7000/3", Ok("redis://example.org:7000/3")),
            ("redis://[::1]:7000", Ok("redis://::1:7000/0")),
            ("unix:///run/redis.sock?db=2&pass=x", Ok("unix:///run/redis.sock?db=2")),
            ("localhost:6379", Err("has scheme \"localhost\"")),
            ("http://localhost", Err("has scheme \"http\"")),
            ("redis://localhost/x", Err("something else than a number for its database")),
            ("redis://localhost/-1", Err("something else than a number for its database")),
            ("unix:///x?color=red", Err("other options than db, user and pass")),
            ("", Err("is not a URL")),
            // What would otherwise be passed over.
            ("redis://localhost?db=3", Err("a query or fragment")),
            ("redis://localhost/#insecure", Err("a query or fragment")),
            ("redis://ada:12/34@localhost", Err("an @ behind the host")),
            ("unix://run/redis.sock", Err("before the path of its socket")),
            ("unix://ada:secret@/run/redis.sock", Err("is not a URL")),
        ] {
            match (RedisConfig::from_url(text).map_err(|error| error.to_string()), expected) {
                (Ok(config), Ok(expected)) => assert_eq!(config.to_string(), expected),
                (Err(error), Err(expected)) => assert!(error.contains(expected), "{error}"),
                (got, _) => panic!("{text}: {got:?}"),
            }
        }
    }

    #[test]
    fn what_is_no_host_is_refused_and_what_may_hold_a_password_is_never_shown() {
        for host in [
            "redis://:secret@db",
            "redis://:secret@db:6379/0",
            ":secret@db",
            "user:secret@db",
            "db/secret",
            "db:secret",
            "secret db",
            "db?pass=secret",
            "secret\n",
            "",
        ] {
            let config = RedisConfig::default().host(host);
            let error = config.check().unwrap_err().to_string();
            assert!(error.starts_with("Redis: the host is no name or address"), "{error}");
            assert!(!format!("{error} {config} {config:?}").contains("secret"), "{host}");
        }
        for host in ["localhost", "db.example.org", "10.0.0.1", "::1", "fe80::1%eth0", "a_b-c"] {
            RedisConfig::default().host(host).check().unwrap();
        }
        for url in [
            "unix:///run/redis.sock?db=0&pass=a&secret",
            "unix:///run/redis.sock?pass=a&db=secret",
            "unix:///run/redis.sock&pass=secret",
            "redis://:pass/secret",
            "redis://user:pass/secret@db",
            "secret:6379",
            "user:secret@db",
            ":secret@db",
            "redis://:secret@db?x",
        ] {
            let error = RedisConfig::from_url(url).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("secret"), "{url}: {error:?}");
        }
    }

    #[test]
    fn a_password_is_kept_and_not_shown() {
        let config = RedisConfig::from_url("redis://ada:p%40ss@example.org").unwrap();
        assert_eq!(config.password.as_deref(), Some("p@ss"));
        assert_eq!(config.username.as_deref(), Some("ada"));
        assert!(!format!("{config:?} {config}").contains("p@ss"));
        let error = RedisConfig::from_url("nonsense://:secret@x").unwrap_err();
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    }
}
