//! Who the master is: Sentinel knows, and is asked for each new connection.

use std::time::Instant;

use ::redis::{ErrorKind as RedisErrorKind, RedisError, RedisResult, Value, cmd};

use super::config::{Address, RedisConfig};
use super::connection::Connection;
use super::transport::Trust;
use crate::Result;

/// The sentinels that watch a master of this name.
pub(super) struct Sentinel {
    nodes: Vec<(RedisConfig, Trust)>,
    pub(super) master: String,
    pub(super) tls: bool,
}

impl Sentinel {
    /// Masters are talked to over TLS where the settings for them say so.
    pub(super) fn new(nodes: Vec<RedisConfig>, master: &str, tls: bool) -> Result<Sentinel> {
        let with_trust = |node: RedisConfig| {
            let trust = Trust::new(&node)?;
            Ok((node, trust))
        };
        let nodes = nodes.into_iter().map(with_trust).collect::<Result<_>>()?;
        Ok(Sentinel { nodes, master: master.to_owned(), tls })
    }

    /// Connects to the master before the deadline. None of the sentinels, by not answering, takes the time
    /// of the others.
    pub(super) fn connect(
        &self,
        config: &RedisConfig,
        trust: &Trust,
        generation: u64,
        deadline: Instant,
    ) -> RedisResult<Connection> {
        let mut last = failed("has no sentinels that could be asked");
        for (asked, (node, node_trust)) in self.nodes.iter().enumerate() {
            // A share for each node that is left, and one for the master.
            let shares = self.nodes.len() - asked + 1;
            let left = deadline.saturating_duration_since(Instant::now());
            let soon = Instant::now() + left / shares as u32;
            let connected = self.ask(node, node_trust, soon).and_then(|master| {
                let mut connection =
                    Connection::connect(config, &master, trust, generation, deadline)?;
                // A sentinel that was cut off may still name the one before.
                is_master(&mut connection, deadline)?;
                Ok(connection)
            });
            match connected {
                Ok(connection) => return Ok(connection),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn ask(&self, node: &RedisConfig, trust: &Trust, deadline: Instant) -> RedisResult<Address> {
        let mut connection = Connection::connect(node, &node.address, trust, 0, deadline)?;
        let mut question = cmd("SENTINEL");
        question.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.master);
        let reply = connection.ask(&question, deadline)?;
        let address: Option<(String, u16)> = ::redis::from_redis_value(reply)?;
        let announced = address.ok_or_else(|| failed("knows no master of this name"))?;
        let (host, port) = node.reached(announced);
        Ok(Address::Tcp { host, port, tls: self.tls })
    }
}

fn is_master(connection: &mut Connection, deadline: Instant) -> RedisResult<()> {
    let role = connection.ask(&cmd("ROLE"), deadline)?;
    let Value::Array(items) = role else { return Err(failed("gave no role")) };
    match items.first() {
        Some(Value::BulkString(role)) if role == b"master" => {
            // As if it had not been asked: the first use may find it closed.
            connection.used = false;
            Ok(())
        }
        _ => Err(failed("is no master, or none any more")),
    }
}

fn failed(why: &'static str) -> RedisError {
    RedisError::from((RedisErrorKind::Io, why))
}
