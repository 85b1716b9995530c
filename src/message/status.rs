//! What can be a status.

use http::StatusCode;

use crate::{Error, ErrorKind, Result};

/// A status: a [`StatusCode`], or a number from 100 to 599 (RFC 9110 section 15).
///
/// ```
/// use bottle_session::http::StatusCode;
/// use bottle_session::{App, IntoStatus, TestClient, abort};
///
/// fn refused(status: impl IntoStatus) -> bottle_session::HttpError {
///     abort(status, "No.")
/// }
///
/// assert_eq!(refused(403).status(), refused(StatusCode::FORBIDDEN).status());
/// let mut app = App::new();
/// app.post("/", || (201, "made"));
/// assert_eq!(TestClient::new(app)?.post("/").send().status(), 201);
/// # Ok::<(), bottle_session::Error>(())
/// ```
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
