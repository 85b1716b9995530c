//! temp
#![allow(missing_docs, unused)]
use crate::Result;
use std::time::Duration;
#[derive(Clone, Default)]
pub struct RedisConfig;
#[derive(Clone)]
pub struct RedisPool;
impl RedisConfig {
    pub fn from_url(_: &str) -> Result<Self> {
        Ok(Self)
    }
    pub fn host(self, _: impl Into<String>) -> Self {
        self
    }
    pub fn port(self, _: u16) -> Self {
        self
    }
    pub fn db(self, _: i64) -> Self {
        self
    }
    pub fn username(self, _: impl Into<String>) -> Self {
        self
    }
    pub fn password(self, _: impl Into<String>) -> Self {
        self
    }
    pub fn connect_timeout(self, _: Duration) -> Self {
        self
    }
    pub fn operation_timeout(self, _: Duration) -> Self {
        self
    }
    pub fn pool_size(self, _: u32) -> Self {
        self
    }
}
impl RedisPool {
    pub fn new(_: RedisConfig) -> Result<Self> {
        Ok(Self)
    }
    pub fn open(_: &str) -> Result<Self> {
        Ok(Self)
    }
}
