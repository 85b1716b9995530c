//! The options of the plugin in variables of the environment.

use std::ffi::OsString;
use std::str::FromStr;
use std::time::Duration;

use super::options::SessionPlugin;
use super::store::redis::Layout;
use crate::message::cookies::SameSite;
use crate::redis::RedisConfig;
use crate::{Error, ErrorKind, Result};

/// Reads one option.
type Set = fn(SessionPlugin, &Value) -> Result<SessionPlugin>;

/// Those that say where sessions are, if not in Redis: one of them at most, and then none of Redis.
const PLACES: [&str; 2] = ["FILE", "IN_MEMORY"];

/// Those of Redis. The address comes first: the others change it further.
const OF_REDIS: &[(&str, Set)] = &[
    ("URL", |plugin, value| {
        let text = value.text()?;
        RedisConfig::from_url(text)
            .map_err(|error| value.refused(error.kind(), &error.to_string()))?;
        Ok(plugin.url(text))
    }),
    ("HOST", |plugin, value| Ok(plugin.host(value.text()?))),
    ("PORT", |plugin, value| Ok(plugin.port(value.number("a port, 0 to 65535")?))),
    ("DB", |plugin, value| Ok(plugin.db(value.number("the number of a database")?))),
    ("USERNAME", |plugin, value| Ok(plugin.username(value.text()?))),
    ("PASSWORD", |plugin, value| Ok(plugin.password(value.text()?))),
    ("CONNECT_TIMEOUT", |plugin, value| Ok(plugin.connect_timeout(value.seconds()?))),
    ("OPERATION_TIMEOUT", |plugin, value| Ok(plugin.operation_timeout(value.seconds()?))),
    ("REPLICAS", |plugin, value| Ok(plugin.replicas(value.number("a number")?))),
    ("MAX_CONNECTION_AGE", |plugin, value| Ok(plugin.max_connection_age(value.seconds_or_none()?))),
    ("POOL_SIZE", |plugin, value| Ok(plugin.pool_size(value.number("a number")?))),
    ("LAYOUT", |plugin, value| Ok(plugin.layout(value.layout()?))),
    ("MIGRATE_FROM", |plugin, value| Ok(plugin.migrate_from(value.layout()?))),
];

const OTHERS: &[(&str, Set)] = &[
    ("FILE", |plugin, value| Ok(plugin.file(&value.value))),
    ("IN_MEMORY", |plugin, value| Ok(if value.flag()? { plugin.in_memory() } else { plugin })),
    ("KEY_PREFIX", |plugin, value| Ok(plugin.key_prefix(value.text()?))),
    ("COOKIE_NAME", |plugin, value| Ok(plugin.cookie_name(value.text()?))),
    ("COOKIE_LIFETIME", |plugin, value| Ok(plugin.cookie_lifetime(value.seconds_or_none()?))),
    ("COOKIE_SECURE", |plugin, value| Ok(plugin.cookie_secure(value.flag()?))),
    ("COOKIE_HTTPONLY", |plugin, value| Ok(plugin.cookie_httponly(value.flag()?))),
    ("COOKIE_PATH", |plugin, value| Ok(plugin.cookie_path(value.text()?))),
    ("COOKIE_DOMAIN", |plugin, value| Ok(plugin.cookie_domain(value.text()?))),
    ("COOKIE_SAME_SITE", |plugin, value| Ok(plugin.cookie_same_site(value.same_site()?))),
    ("COOKIE_PARTITIONED", |plugin, value| Ok(plugin.cookie_partitioned(value.flag()?))),
    ("KEYWORD", |plugin, value| Ok(plugin.keyword(value.text()?))),
    ("MAX_AGE", |plugin, value| Ok(plugin.max_age(value.seconds_or_none()?))),
    ("MAX_BYTES", |plugin, value| Ok(plugin.max_bytes(value.number("a number of bytes")?))),
    ("MAX_FIELDS", |plugin, value| Ok(plugin.max_fields(value.number("a number")?))),
    ("RENEW_EVERY", |plugin, value| Ok(plugin.renew_every(value.seconds_or_none()?))),
    ("SEALED", |plugin, value| if value.flag()? { seal(plugin, value) } else { Ok(plugin) }),
    ("ANONYMOUS_LIFETIME", |plugin, value| Ok(plugin.anonymous_lifetime(value.seconds_or_none()?))),
    ("MAX_SESSIONS_PER_USER", |plugin, value| {
        Ok(plugin.max_sessions_per_user(value.number("a number")?))
    }),
    ("KEEP_ADDRESSES", |plugin, value| Ok(plugin.keep_addresses(value.flag()?))),
    ("HARDENED", |plugin, value| Ok(if value.flag()? { plugin.hardened() } else { plugin })),
];

impl SessionPlugin {
    /// A plugin with the options that variables of the environment say: each option of this type is a variable, in
    /// capitals behind the prefix. `FILE` is one, `COOKIE_LIFETIME` another; what takes a value of Rust's
    /// ([`redis`](Self::redis), [`pool`](Self::pool), [`store`](Self::store), [`events`](Self::events)) is none.
    ///
    /// ```text
    /// APP_SESSION_FILE=/var/lib/app/sessions.db
    /// APP_SESSION_COOKIE_LIFETIME=3600
    /// APP_SESSION_HARDENED=true
    /// ```
    ///
    /// Times are seconds, with a fraction where that is of use; `none` is none. What is or is not so is `true` or `false`, `1` or
    /// `0`, `yes` or `no`, `on` or `off`. `COOKIE_SAME_SITE` is `lax`, `strict` or `none`; a layout is `default` or `bottle-session`. An empty
    /// variable is as good as none. What is said on the plugin afterwards counts.
    ///
    /// ```
    /// use bottle_session::{App, SessionPlugin};
    ///
    /// let sessions = SessionPlugin::from_env("APP_SESSION_")?;
    /// # let sessions = sessions.in_memory();
    /// App::new().install(sessions)?;
    /// # Ok::<(), bottle_session::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Of kind [`Config`](ErrorKind::Config), naming the variable: its value is none for this option; there is no such
    /// option; two variables say where the sessions are.
    pub fn from_env(prefix: &str) -> Result<SessionPlugin> {
        from_variables(prefix, std::env::vars_os())
    }
}

fn from_variables(
    prefix: &str,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<SessionPlugin> {
    let mut values = Vec::new();
    for (variable, value) in variables {
        let Some(variable) = variable.to_str() else { continue };
        let Some(option) = variable.strip_prefix(prefix).filter(|_| !value.is_empty()) else {
            continue;
        };
        let (variable, option) = (variable.to_owned(), option.to_owned());
        values.push(Value { variable, option, value });
    }
    let options = || OF_REDIS.iter().chain(OTHERS);
    if let Some(unknown) =
        values.iter().find(|value| options().all(|(name, _)| *name != value.option))
    {
        let known: Vec<_> = options().map(|(name, _)| *name).collect();
        let why = format!("no option has this name; known behind {prefix}: {}", known.join(", "));
        return Err(unknown.refused(ErrorKind::Config, &why));
    }
    refuse_two_places(&values)?;
    options().try_fold(SessionPlugin::new(), |plugin, (name, set)| {
        match values.iter().find(|value| value.option == *name) {
            Some(value) => set(plugin, value),
            None => Ok(plugin),
        }
    })
}

fn refuse_two_places(values: &[Value]) -> Result<()> {
    let is_place = |value: &&Value| {
        PLACES.contains(&value.option.as_str())
            && (value.option == "FILE" || value.flag().unwrap_or(true))
    };
    let mut places = values.iter().filter(is_place);
    let Some(place) = places.next() else { return Ok(()) };
    let is_of_redis = |value: &&Value| OF_REDIS.iter().any(|(name, _)| *name == value.option);
    match places.next().or_else(|| values.iter().find(is_of_redis)) {
        None => Ok(()),
        Some(other) => Err(place.refused(
            ErrorKind::Config,
            &format!("it and {} both say where sessions are kept; set one of them", other.variable),
        )),
    }
}

#[cfg(feature = "sealed")]
fn seal(plugin: SessionPlugin, _: &Value) -> Result<SessionPlugin> {
    Ok(plugin.sealed())
}

#[cfg(not(feature = "sealed"))]
fn seal(_: SessionPlugin, value: &Value) -> Result<SessionPlugin> {
    let why = "sealed values need the feature `sealed` of bottle-session, which this program was built without; add it in \
               Cargo.toml";
    Err(value.refused(ErrorKind::Config, why))
}

/// What a variable says of an option.
struct Value {
    variable: String,
    option: String,
    value: OsString,
}

impl Value {
    fn text(&self) -> Result<&str> {
        let no_text = || self.refused(ErrorKind::Config, "its value is no text (UTF-8)");
        self.value.to_str().ok_or_else(no_text)
    }

    fn number<T: FromStr>(&self, what: &str) -> Result<T> {
        self.text()?.trim().parse().map_err(|_| self.is_no(what))
    }

    fn flag(&self) -> Result<bool> {
        match self.text()?.trim().to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Ok(true),
            "false" | "0" | "no" | "off" => Ok(false),
            _ => Err(self.is_no("true or false")),
        }
    }

    fn seconds(&self) -> Result<Duration> {
        let what = "a number of seconds";
        let seconds: f64 = self.number(what)?;
        Duration::try_from_secs_f64(seconds).map_err(|_| self.is_no(what))
    }

    fn seconds_or_none(&self) -> Result<Option<Duration>> {
        match self.text()?.trim() {
            "none" => Ok(None),
            _ => self.seconds().map(Some).map_err(|_| self.is_no("a number of seconds, or none")),
        }
    }

    fn same_site(&self) -> Result<SameSite> {
        match self.text()?.trim().to_ascii_lowercase().as_str() {
            "lax" => Ok(SameSite::Lax),
            "strict" => Ok(SameSite::Strict),
            "none" => Ok(SameSite::None),
            _ => Err(self.is_no("lax, strict or none")),
        }
    }

    fn layout(&self) -> Result<Layout> {
        match self.text()?.trim() {
            "default" => Ok(Layout::Default),
            "bottle-session" => Ok(Layout::BottleSession),
            _ => Err(self.is_no("default or bottle-session")),
        }
    }

    fn is_no(&self, what: &str) -> Error {
        let value = self.value.to_string_lossy();
        self.refused(ErrorKind::Config, &format!("needs {what}, not {value:?}"))
    }

    fn refused(&self, kind: ErrorKind, why: &str) -> Error {
        Error::new(kind, format!("{}: {why}", self.variable))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::options::Backend;

    fn plugin(variables: &[(&str, &str)]) -> Result<SessionPlugin> {
        let own = |(name, value): &(&str, &str)| (format!("APP_{name}").into(), value.into());
        from_variables("APP_", variables.iter().map(own))
    }

    #[test]
    fn each_option_that_is_a_text_has_a_variable() {
        let source = include_str!("options.rs");
        let options = source
            .split("#[must_use]\n")
            .skip(1)
            .filter_map(|rest| rest.trim_start().strip_prefix("pub fn ")?.split(['(', '<']).next());
        let values = ["redis", "pool", "store", "events"];
        let mut options: Vec<_> = options
            .filter(|option| !values.contains(option))
            .map(str::to_ascii_uppercase)
            .collect();
        let mut known: Vec<_> =
            OF_REDIS.iter().chain(OTHERS).map(|(name, _)| name.to_string()).collect();
        options.sort();
        known.sort();
        assert_eq!(known, options);
    }

    #[test]
    fn each_variable_sets_its_option() {
        let plugin = plugin(&[
            ("FILE", "/srv/sessions.db"),
            ("KEY_PREFIX", "a:"),
            ("COOKIE_NAME", "id"),
            ("COOKIE_LIFETIME", "none"),
            ("COOKIE_SECURE", "off"),
            ("COOKIE_HTTPONLY", "TRUE"),
            ("COOKIE_PATH", "/app"),
            ("COOKIE_DOMAIN", "example.org"),
            ("COOKIE_SAME_SITE", "Strict"),
            ("COOKIE_PARTITIONED", "1"),
            ("KEYWORD", "admin"),
            ("MAX_AGE", "86400"),
            ("MAX_BYTES", "1000"),
            ("MAX_FIELDS", "10"),
            ("ANONYMOUS_LIFETIME", "90"),
            ("MAX_SESSIONS_PER_USER", "3"),
            ("KEEP_ADDRESSES", "no"),
            ("SEALED", if cfg!(feature = "sealed") { "on" } else { "off" }),
            ("HARDENED", "yes"),
            ("IN_MEMORY", "no"),
            ("HOST", ""),
        ])
        .unwrap();
        assert!(matches!(&plugin.backend, Backend::File(path) if path == "/srv/sessions.db"));
        assert_eq!((plugin.key_prefix.as_deref(), plugin.keyword.as_str()), (Some("a:"), "admin"));
        assert_eq!((plugin.lifetime, plugin.max_age), (None, Some(Duration::from_secs(86_400))));
        assert_eq!((plugin.caps.bytes, plugin.caps.fields), (1000, 10));
        assert!(plugin.hardened && !plugin.redis_was_set);
        assert_eq!(plugin.anonymous, Some(Duration::from_secs(90)));
        assert_eq!((plugin.most_sessions, plugin.keeps_addresses), (Some(3), false));
        assert_eq!(plugin.seals, cfg!(feature = "sealed"));
        let cookie = &plugin.cookie;
        assert_eq!((cookie.name.as_str(), cookie.path.as_str()), ("id", "/app"));
        assert_eq!(
            (cookie.domain.as_deref(), cookie.same_site),
            (Some("example.org"), SameSite::Strict)
        );
        assert_eq!(
            (cookie.secure, cookie.http_only, cookie.partitioned),
            (Some(false), true, true)
        );
    }

    #[test]
    fn each_variable_of_redis_sets_its_option() {
        let with = plugin(&[
            ("PORT", "7000"),
            ("URL", "redis://ada:secret@redis.example:6390/2"),
            ("HOST", "other.example"),
            ("DB", "3"),
            ("CONNECT_TIMEOUT", "0.25"),
            ("OPERATION_TIMEOUT", "2"),
            ("REPLICAS", "1"),
            ("MAX_CONNECTION_AGE", "600"),
            ("POOL_SIZE", "4"),
            ("LAYOUT", "bottle-session"),
            ("MIGRATE_FROM", "default"),
            ("USERNAME", "eve"),
            ("PASSWORD", "word"),
        ]);
        let with = with.unwrap();
        let said = SessionPlugin::new()
            .url("redis://ada:secret@redis.example:6390/2")
            .host("other.example")
            .port(7000)
            .db(3)
            .username("eve")
            .password("word")
            .connect_timeout(Duration::from_millis(250))
            .operation_timeout(Duration::from_secs(2))
            .replicas(1)
            .max_connection_age(Duration::from_secs(600))
            .pool_size(4);
        assert_eq!(format!("{:?}", with.redis), format!("{:?}", said.redis));
        assert_eq!(
            (with.layout, with.migrate_from),
            (Some(Layout::BottleSession), Some(Layout::Default))
        );
    }

    #[test]
    fn an_error_names_the_variable() {
        for (variables, text) in [
            (&[("PORT", "x")][..], "APP_PORT: needs a port, 0 to 65535, not \"x\""),
            (
                &[("COOKIE_LIFETIME", "5m")],
                "APP_COOKIE_LIFETIME: needs a number of seconds, or none, not \"5m\"",
            ),
            (&[("MAX_AGE", "-1")], "APP_MAX_AGE: needs a number of seconds, or none, not \"-1\""),
            (
                &[("CONNECT_TIMEOUT", "none")],
                "APP_CONNECT_TIMEOUT: needs a number of seconds, not \"none\"",
            ),
            (
                &[("COOKIE_SECURE", "maybe")],
                "APP_COOKIE_SECURE: needs true or false, not \"maybe\"",
            ),
            (
                &[("COOKIE_SAME_SITE", "x")],
                "APP_COOKIE_SAME_SITE: needs lax, strict or none, not \"x\"",
            ),
            (&[("LAYOUT", "x")], "APP_LAYOUT: needs default or bottle-session, not \"x\""),
            (&[("URL", "http://x")], "APP_URL: "),
            (
                &[("COKIE_NAME", "x")],
                "APP_COKIE_NAME: no option has this name; known behind APP_: URL, HOST, ",
            ),
            (
                &[("FILE", "a"), ("HOST", "b")],
                "APP_FILE: it and APP_HOST both say where sessions are kept; set one of them",
            ),
            (
                &[("IN_MEMORY", "true"), ("FILE", "a")],
                "APP_IN_MEMORY: it and APP_FILE both say where sessions are kept; set one of them",
            ),
        ] {
            let error = plugin(variables).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().starts_with(text), "{error}");
        }
    }
}
