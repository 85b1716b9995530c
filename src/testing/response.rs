//! What a client without sockets is answered.

use bytes::Bytes;
use cookie::Cookie;
use http::StatusCode;
use http::header::{self, HeaderMap};
use serde::de::DeserializeOwned;

use crate::session::flash::Flash;
use crate::{Error, ErrorKind, Result};

/// What an app answered a [`TestClient`](crate::TestClient).
#[derive(Clone, Debug)]
pub struct TestResponse {
    pub(super) target: String,
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) flashes: Vec<Flash>,
}

impl TestResponse {
    /// The target of the request that it answers: behind [redirections](super::TestRequest::follow_redirects) the last.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The status as a number.
    pub fn status(&self) -> u16 {
        self.status.as_u16()
    }

    /// The headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The first header of this name, where it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The cookies that the answer sets, as it sets them.
    pub fn set_cookies(&self) -> Vec<&str> {
        self.headers.get_all(header::SET_COOKIE).iter().filter_map(|v| v.to_str().ok()).collect()
    }

    /// The cookie of this name that the answer sets, with its attributes; the last of several. One that it removes has a
    /// `Max-Age` of zero. What the client sends from now on is [`TestClient::cookie`](super::TestClient::cookie).
    ///
    /// ```
    /// use bottle_session::{App, Session, SessionPlugin, TestClient};
    ///
    /// let mut app = App::new();
    /// app.install(SessionPlugin::new().in_memory().cookie_httponly(true))?;
    /// app.get("/", |session: &mut Session| session.set("name", "Ada"));
    /// let answer = TestClient::new(app)?.get("/").send();
    /// let cookie = answer.cookie("bottle.session").unwrap();
    /// assert_eq!((cookie.http_only(), cookie.path()), (Some(true), Some("/")));
    /// # Ok::<(), bottle_session::Error>(())
    /// ```
    pub fn cookie(&self, name: &str) -> Option<Cookie<'static>> {
        let cookies = self.set_cookies().into_iter().rev();
        let mut cookies = cookies.filter_map(|text| Cookie::parse(text.to_owned()).ok());
        cookies.find(|cookie| cookie.name() == name)
    }

    /// The [flash messages](crate::Session::flash) that wait in the session behind this request, in the order in which they
    /// were left: its own, and earlier ones that it has not taken. None where its route does not ask for the session.
    pub fn flashes(&self) -> &[Flash] {
        &self.flashes
    }

    /// The body.
    pub fn bytes(&self) -> &Bytes {
        &self.body
    }

    /// The body as text, what is not UTF-8 replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON of this type.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body).map_err(|error| {
            Error::new(ErrorKind::Input, "the answer is not the expected JSON").with_source(error)
        })
    }
}
