//! What can be a status.

use http::StatusCode;

use crate::{Error, ErrorKind, Result};

/// A status: a [`StatusCode`], or a number from 100 to 599 (RFC 9110 section 15).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no status",
    note = "a status is a number such as `404`, or a `StatusCode`"
)]
pub trait IntoStatus {
    /// The status, or an error that names what is none.
    fn into_status(self) -> Result<StatusCode>;
}

impl IntoStatus for StatusCode {
    fn into_status(self) -> Result<StatusCode> {
        Ok(self)
    }
}

impl IntoStatus for u16 {
    fn into_status(self) -> Result<StatusCode> {
        let status = StatusCode::from_u16(self).ok().filter(|status| status.as_u16() < 600);
        status.ok_or_else(|| {
            let text = format!("{self} is no HTTP status; a status is a number from 100 to 599");
            Error::new(ErrorKind::Input, text)
        })
    }
}
