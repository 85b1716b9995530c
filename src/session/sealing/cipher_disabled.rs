//! What stands in for encryption in a program that was built without it: no key can be had.

use std::convert::Infallible;

use crate::session::id::{IdGenerator, SessionId};
use crate::{Error, ErrorKind, Result};

#[derive(Clone)]
pub(in crate::session) struct DataKey(Infallible);

impl DataKey {
    pub(super) fn random(_: &IdGenerator) -> Result<DataKey> {
        Err(not_built())
    }

    pub(super) fn derived(_: &SessionId, _: &[u8]) -> Result<DataKey> {
        Err(not_built())
    }

    pub(super) fn of_bits(_: &[u8; 32]) -> Result<DataKey> {
        Err(not_built())
    }

    pub(super) fn bits(&self) -> &[u8; 32] {
        match self.0 {}
    }

    pub(super) fn encrypt(&self, _: &str, _: &[u8], _: &IdGenerator) -> Result<String> {
        match self.0 {}
    }

    pub(super) fn decrypt(&self, _: &str, _: &str) -> Option<Vec<u8>> {
        match self.0 {}
    }
}

fn not_built() -> Error {
    Error::new(
        ErrorKind::Config,
        "the session's values are sealed, and this program was built without the feature `sealed` of bottle-session; add \
         it in Cargo.toml",
    )
}
