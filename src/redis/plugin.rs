//! The plugin that lends handlers a connection.

use std::fmt;

use super::commands::RedisConnection;
use super::config::RedisConfig;
use super::pool::RedisPool;
use crate::pipeline::batch::Batch;
use crate::pipeline::plugin::{Callback, Installed, Plugin, Provision};
use crate::pipeline::route::Route;
use crate::{Error, ErrorKind, Result};

/// Provides a [`RedisConnection`] to the handlers that ask for one: what Python's bottle-redis does.
///
/// | option | default |
/// |---|---|
/// | [`keyword`](Self::keyword) | `rdb` |
/// | [`pool`](Self::pool), [`config`](Self::config), [`url`](Self::url) | `redis://localhost:6379/0` |
///
/// A handler that never sends a command costs nothing. A node of a cluster is refused when the plugin is installed, or, if it
/// does not answer then, by the errors of commands on keys of other nodes.
///
/// ```
/// use bottle_session::{App, RedisConnection, RedisPlugin, Result};
///
/// let mut app = App::new();
/// app.install(RedisPlugin::new())?; // the Redis on localhost
/// app.get("/visits", |rdb: &mut RedisConnection| -> Result<String> {
///     let visitor: u64 = rdb.incr("visitors", 1)?;
///     Ok(format!("You are visitor {visitor}."))
/// });
/// # app.build()?;
/// # Ok::<(), bottle_session::Error>(())
/// ```
pub struct RedisPlugin {
    keyword: String,
    pool: Option<RedisPool>,
    config: Option<Result<RedisConfig>>,
}

impl RedisPlugin {
    /// A plugin for the Redis on localhost, under keyword `rdb`.
    pub fn new() -> RedisPlugin {
        RedisPlugin { keyword: "rdb".to_owned(), pool: None, config: None }
    }

    /// The name under which [`named!`](crate::named) handlers ask for the connection: `rdb` unless set.
    #[must_use]
    pub fn keyword(mut self, keyword: impl Into<String>) -> RedisPlugin {
        self.keyword = keyword.into();
        self
    }

    /// Shares a pool with the rest of the app.
    #[must_use]
    pub fn pool(mut self, pool: RedisPool) -> RedisPlugin {
        self.pool = Some(pool);
        self
    }

    /// Where Redis is; see [`RedisConfig::from_url`].
    #[must_use]
    pub fn url(mut self, url: &str) -> RedisPlugin {
        self.config = Some(RedisConfig::from_url(url));
        self
    }

    /// Where Redis is and how long it may take.
    #[must_use]
    pub fn config(mut self, config: RedisConfig) -> RedisPlugin {
        self.config = Some(Ok(config));
        self
    }
}

impl Default for RedisPlugin {
    fn default() -> RedisPlugin {
        RedisPlugin::new()
    }
}

impl fmt::Debug for RedisPlugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisPlugin({:?}, {:?})", self.keyword, self.pool)
    }
}

impl Plugin for RedisPlugin {
    fn name(&self) -> &str {
        "redis"
    }

    fn provides(&self) -> Option<Provision> {
        Some(Provision::of::<RedisConnection>(&self.keyword))
    }

    fn setup(&mut self, _: &Installed<'_>) -> Result<()> {
        match (&self.pool, self.config.take()) {
            (None, config) => {
                self.pool =
                    Some(RedisPool::new(config.unwrap_or_else(|| Ok(RedisConfig::default()))?)?);
            }
            (Some(_), None) => {}
            (Some(_), Some(_)) => {
                let text = format!(
                    "redis plugin {:?}: a pool knows where Redis is; url and config are said where it is opened",
                    self.keyword
                );
                return Err(Error::new(ErrorKind::Config, text));
            }
        }
        self.pool.as_ref().map_or(Ok(()), RedisPool::check_no_cluster)
    }

    /// Gives the connection back as soon as the handler has returned: a session that is saved afterwards
    /// may need it.
    fn apply(&self, callback: Callback, route: &Route) -> Callback {
        if !route.asks_for(&self.keyword) {
            return callback;
        }
        let keyword = self.keyword.clone();
        Callback::new(move |exchange| {
            let response = callback.call(exchange);
            if let Some(connection) = exchange.provided::<RedisConnection>(&keyword) {
                connection.give_back();
            }
            response
        })
    }

    /// A connection is taken with the handler's first command.
    fn may_block(&self) -> bool {
        false
    }

    fn acquire(&self, batch: &mut Batch<'_>) {
        if let Some(pool) = &self.pool {
            for mut entry in batch.iter_mut() {
                entry.put(RedisConnection::new(pool.clone()));
            }
        }
    }
}
