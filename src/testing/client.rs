//! A client without sockets.

use std::sync::Mutex;

use bytes::Bytes;
use cookie::time::OffsetDateTime;
use cookie::{Cookie, CookieJar};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::app::App;
use crate::message::base64;
use crate::message::body::RequestBody;
use crate::message::request::Request;
use crate::message::response::{Body, Response};
use crate::pipeline::service::Service;
use crate::{Error, ErrorKind, Result};

/// A client that talks to an app in this process, and keeps its cookies from one request to the next.
///
/// Cookies are known by name alone: each goes along with every request, whatever its path, and also where it
/// is `Secure`. One is forgotten when the app removes it, and not because time has passed.
///
/// ```
/// use bottle_session::{App, Session, SessionPlugin, TestClient};
///
/// let mut app = App::new();
/// app.install(SessionPlugin::new().in_memory())?;
/// app.get("/count", |session: &mut Session| {
///     let count = session.parse::<u32>("count").unwrap_or(0) + 1;
///     session.set("count", count);
///     count.to_string()
/// });
/// let client = TestClient::new(app)?;
/// assert_eq!(client.get("/count").send().text(), "1");
/// assert_eq!(client.get("/count").send().text(), "2");
/// # Ok::<(), bottle_session::Error>(())
/// ```
pub struct TestClient {
    service: Service,
    jar: Mutex<CookieJar>,
}

impl TestClient {
    /// Builds the app and a client for it.
    pub fn new(app: App) -> Result<TestClient> {
        Ok(TestClient::of(app.build()?))
    }

    /// Another client, with a jar of its own, for an app that is built: another browser.
    pub fn of(service: Service) -> TestClient {
        TestClient { service, jar: Mutex::new(CookieJar::new()) }
    }

    /// The app.
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// A GET request.
    pub fn get(&self, target: &str) -> TestRequest<'_> {
        self.request(Method::GET, target)
    }

    /// A POST request.
    pub fn post(&self, target: &str) -> TestRequest<'_> {
        self.request(Method::POST, target)
    }

    /// Any request. The target is a path, with a query or without.
    pub fn request(&self, method: Method, target: &str) -> TestRequest<'_> {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("localhost"));
        TestRequest { client: self, method, target: target.to_owned(), headers, body: Bytes::new() }
    }

    /// The value of a cookie in the jar, as it was set.
    pub fn cookie(&self, name: &str) -> Option<String> {
        self.jar().get(name).map(|cookie| cookie.value().to_owned())
    }

    /// Puts a cookie into the jar. It is sent as it is: what a server would have encoded must be so already.
    pub fn set_cookie(&self, name: &str, value: &str) {
        self.jar().add_original(Cookie::new(name.to_owned(), value.to_owned()));
    }

    /// Empties the jar: another browser.
    pub fn forget_cookies(&self) {
        *self.jar() = CookieJar::new();
    }

    fn jar(&self) -> std::sync::MutexGuard<'_, CookieJar> {
        self.jar.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn keep(&self, headers: &HeaderMap) {
        let mut jar = self.jar();
        for value in headers.get_all(header::SET_COOKIE) {
            let parsed = value.to_str().ok().and_then(|text| Cookie::parse(text.to_owned()).ok());
            let Some(cookie) = parsed else { continue };
            let ended = match (cookie.max_age(), cookie.expires_datetime()) {
                (Some(age), _) => age.is_zero() || age.is_negative(),
                (None, Some(end)) => end <= OffsetDateTime::now_utc(),
                (None, None) => false,
            };
            if ended {
                jar.force_remove(cookie.name());
            } else {
                jar.add_original(cookie);
            }
        }
    }
}

impl std::fmt::Debug for TestClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TestClient").field("service", &self.service).finish_non_exhaustive()
    }
}

/// A request that a [`TestClient`] is about to send.
pub struct TestRequest<'a> {
    client: &'a TestClient,
    method: Method,
    target: String,
    headers: HeaderMap,
    body: Bytes,
}

impl TestRequest<'_> {
    /// Adds a header. One that a request has once (`Host`, `Content-Type`, `Content-Length`, `Authorization`) takes the
    /// place of the one that is there.
    ///
    /// # Panics
    ///
    /// If name or value cannot be a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        const ONCE: [HeaderName; 4] =
            [header::HOST, header::CONTENT_TYPE, header::CONTENT_LENGTH, header::AUTHORIZATION];
        let name: HeaderName = name.parse().expect("a header name");
        let value = HeaderValue::from_str(value).expect("a header value");
        match ONCE.contains(&name) {
            true => drop(self.headers.insert(name, value)),
            false => drop(self.headers.append(name, value)),
        }
        self
    }

    /// Sends name and password by HTTP's basic authentication (RFC 7617).
    ///
    /// # Panics
    ///
    /// If the name holds a colon, which no name can.
    #[must_use]
    pub fn basic_auth(self, name: &str, password: &str) -> Self {
        assert!(!name.contains(':'), "a name without a colon");
        let credentials = base64::encode(format!("{name}:{password}").as_bytes());
        self.header("authorization", &format!("Basic {credentials}"))
    }

    /// Sends these bytes as the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(self.body.len()));
        self
    }

    /// Sends a form; a list in it is a field of several values.
    ///
    /// # Panics
    ///
    /// If the value cannot be a form.
    #[must_use]
    pub fn form(self, form: &impl Serialize) -> Self {
        let text = serde_html_form::to_string(form).expect("a value that can be a form");
        self.header("content-type", "application/x-www-form-urlencoded").body(text)
    }

    /// Sends a JSON document.
    ///
    /// # Panics
    ///
    /// If the value cannot be JSON.
    #[must_use]
    pub fn json(self, value: &impl Serialize) -> Self {
        let json = serde_json::to_vec(value).expect("a value that can be JSON");
        self.header("content-type", "application/json").body(json)
    }

    /// Sends the request and waits for the answer.
    ///
    /// # Panics
    ///
    /// If the target is not one, a cookie in the jar holds a control character, or the answer's body breaks
    /// off.
    pub fn send(mut self) -> TestResponse {
        // Without their attributes, which are for the client alone.
        let cookies: Vec<_> =
            self.client.jar().iter().map(|cookie| cookie.stripped().to_string()).collect();
        if !cookies.is_empty() {
            let value = HeaderValue::from_bytes(cookies.join("; ").as_bytes());
            let value = value.expect("cookies without control characters");
            self.headers.append(header::COOKIE, value);
        }
        let target = PathAndQuery::try_from(self.target).expect("a path, with a query or without");
        let request = Request::new(self.method, target)
            .with_headers(self.headers)
            .with_body(RequestBody::Bytes(self.body));
        let response = self.client.service.handle(request);
        self.client.keep(response.headers());
        let (status, headers) = (response.status(), response.headers().clone());
        // No server would send the body of one of these.
        let bodiless = status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED;
        let body = if bodiless { Bytes::new() } else { whole(response) };
        TestResponse { status, headers, body }
    }
}

/// The body as far as a server would send it, which is as far as its length was promised.
fn whole(response: Response) -> Bytes {
    let promised = match response.body() {
        Body::Stream { length: Some(length), .. } => Some(*length),
        Body::Stream { length: None, .. } | Body::Bytes(_) => None,
    };
    let mut body = response.into_bytes().expect("a body that can be read to its end");
    if let Some(promised) = promised {
        assert!(body.len() as u64 >= promised, "the body ends before the {promised}th byte");
        body.truncate(usize::try_from(promised).unwrap_or(usize::MAX));
    }
    body
}

/// What an app answered a [`TestClient`].
#[derive(Clone, Debug)]
pub struct TestResponse {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl TestResponse {
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
