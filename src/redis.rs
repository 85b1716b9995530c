//! TEMPORARY stand-in until the redis branch is merged.
#![allow(missing_docs)]
use crate::{Error, ErrorKind, Result};
use redis::{ConnectionLike, Pipeline, ServerError, Value};
use std::sync::{Arc, Mutex};

#[derive(Clone, Debug)]
pub struct RedisPool {
    client: redis::Client,
    idle: Arc<Mutex<Vec<Conn>>>,
}
struct Conn(redis::Connection);
impl std::fmt::Debug for Conn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Conn")
    }
}
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Repeat {
    Idempotent,
    Never,
}
fn io(error: redis::RedisError) -> Error {
    Error::new(ErrorKind::Unavailable, "redis").with_source(error)
}
impl RedisPool {
    pub fn open(url: &str) -> Result<RedisPool> {
        Ok(RedisPool { client: redis::Client::open(url).map_err(io)?, idle: Arc::default() })
    }
    pub(crate) fn send_checked(
        &self,
        pipeline: &Pipeline,
        _: Repeat,
        check: &dyn Fn(&[Result<Value, ServerError>]) -> bool,
    ) -> Result<Vec<Result<Value, ServerError>>> {
        let idle = self.idle.lock().unwrap().pop();
        let mut connection = match idle {
            Some(c) => c.0,
            None => self.client.get_connection().map_err(io)?,
        };
        let replies = connection
            .req_packed_commands(&pipeline.get_packed_pipeline(), 0, pipeline.len())
            .map_err(io)?;
        let replies: Vec<_> = replies
            .into_iter()
            .map(|v| match v {
                Value::ServerError(e) => Err(e),
                v => Ok(v),
            })
            .collect();
        if check(&replies) {
            self.idle.lock().unwrap().push(Conn(connection));
        }
        Ok(replies)
    }
}
pub(crate) fn server_error(error: &ServerError) -> Error {
    let kind = match error.code() {
        "OOM" | "READONLY" | "LOADING" | "BUSY" | "MISCONF" | "MASTERDOWN" => {
            ErrorKind::Unavailable
        }
        _ => ErrorKind::Redis,
    };
    Error::new(kind, error.to_string())
}
