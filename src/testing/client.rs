//! A client without sockets.

use std::sync::Mutex;

use bytes::Bytes;
use cookie::time::OffsetDateTime;
use cookie::{Cookie, CookieJar};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, StatusCode};
use serde::Serialize;
use url::Url;

use super::multipart::{self, Part};
use super::response::TestResponse;
use crate::Result;
use crate::app::App;
use crate::lock::lock;
use crate::message::base64;
use crate::message::body::RequestBody;
use crate::message::request::Request;
use crate::message::response::{Body, Response};
use crate::pipeline::exchange::Exchange;
use crate::pipeline::service::Service;
use crate::session::flash::Flash;
use crate::session::view::Session;

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

    /// A PUT request.
    pub fn put(&self, target: &str) -> TestRequest<'_> {
        self.request(Method::PUT, target)
    }

    /// A PATCH request.
    pub fn patch(&self, target: &str) -> TestRequest<'_> {
        self.request(Method::PATCH, target)
    }

    /// A DELETE request.
    pub fn delete(&self, target: &str) -> TestRequest<'_> {
        self.request(Method::DELETE, target)
    }

    /// Any request. The target is a path, with a query or without.
    pub fn request(&self, method: Method, target: &str) -> TestRequest<'_> {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("localhost"));
        TestRequest {
            client: self,
            method,
            target: target.to_owned(),
            headers,
            body: Bytes::new(),
            parts: Vec::new(),
            follows: false,
        }
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
        lock(&self.jar)
    }

    /// Has the app answer, and looks at the sessions before they go.
    fn handle(&self, request: Request) -> (Response, Vec<Flash>) {
        let mut exchange = Exchange::new(request);
        self.service.prepare(std::slice::from_mut(&mut exchange));
        self.service.run(&mut exchange);
        let sessions = exchange.held::<Session>();
        let flashes = sessions.flat_map(Session::waiting_flashes).collect();
        self.service.finish(std::slice::from_mut(&mut exchange));
        (exchange.into_response(), flashes)
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
    /// Of a multipart form.
    parts: Vec<Part>,
    follows: bool,
}

/// How many redirections are followed before they count as endless: as many as browsers follow.
const MAX_REDIRECTS: usize = 20;

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

    /// Sends a form as `multipart/form-data`, as browsers do where it has files, with this field in it.
    ///
    /// ```
    /// use bottle_session::{App, Form, TestClient, Upload};
    /// use serde::Deserialize;
    ///
    /// #[derive(Deserialize)]
    /// struct Note {
    ///     title: String,
    ///     picture: Upload,
    /// }
    ///
    /// let mut app = App::new();
    /// app.post("/notes", |Form(note): Form<Note>| {
    ///     format!("{}: {}, {} bytes", note.title, note.picture.filename(), note.picture.len())
    /// });
    /// let client = TestClient::new(app)?;
    /// let request = client.post("/notes").field("title", "Tea").file("picture", "cup.png", "image/png", "PNG");
    /// assert_eq!(request.send().text(), "Tea: cup.png, 3 bytes");
    /// # Ok::<(), bottle_session::Error>(())
    /// ```
    #[must_use]
    pub fn field(mut self, name: &str, text: impl Into<Bytes>) -> Self {
        self.parts.push(Part { name: name.to_owned(), file: None, content: text.into() });
        self
    }

    /// Sends a form as `multipart/form-data` with this file in it; see [`field`](TestRequest::field).
    #[must_use]
    pub fn file(
        mut self,
        name: &str,
        file_name: &str,
        content_type: &str,
        content: impl Into<Bytes>,
    ) -> Self {
        let file = Some((file_name.to_owned(), content_type.to_owned()));
        self.parts.push(Part { name: name.to_owned(), file, content: content.into() });
        self
    }

    /// Follows redirections as a browser does: after a 303, and after the 301 or 302 of a POST, with a GET; after any
    /// other with the same method and body. One that leads to another host is not followed: it is the answer.
    ///
    /// ```
    /// use bottle_session::{App, Flash, Session, SessionPlugin, TestClient, redirect};
    ///
    /// let mut app = App::new();
    /// app.install(SessionPlugin::new().in_memory())?;
    /// app.post("/save", |session: &mut Session| {
    ///     session.flash("info", "Saved.");
    ///     redirect("/notes")
    /// });
    /// app.get("/notes", |session: &mut Session| -> bottle_session::Result<String> {
    ///     Ok(session.take_flashes()?.into_iter().map(|flash| flash.text).collect())
    /// });
    ///
    /// let client = TestClient::new(app)?;
    /// assert_eq!(client.post("/save").send().flashes(), [Flash::new("info", "Saved.")]);
    /// let page = client.post("/save").follow_redirects().send();
    /// assert_eq!((page.target(), &*page.text()), ("/notes", "Saved.Saved."));
    /// # Ok::<(), bottle_session::Error>(())
    /// ```
    #[must_use]
    pub fn follow_redirects(mut self) -> Self {
        self.follows = true;
        self
    }

    /// Sends the request and waits for the answer.
    ///
    /// # Panics
    ///
    /// If the target is not one, a cookie in the jar holds a control character, the answer's body breaks
    /// off, or more than twenty redirections are to be followed.
    pub fn send(mut self) -> TestResponse {
        if !self.parts.is_empty() {
            let (content_type, body) = multipart::encode(&self.parts);
            self = self.header("content-type", &content_type).body(body);
        }
        let mut answer = self.send_once();
        let mut followed = 0;
        while self.follows && self.go_on(&answer) {
            followed += 1;
            assert!(followed <= MAX_REDIRECTS, "endless redirections, to {}", self.target);
            answer = self.send_once();
        }
        answer
    }

    /// Becomes the request that a browser sends after this answer, if it is a redirection that is followed.
    fn go_on(&mut self, answer: &TestResponse) -> bool {
        let status = answer.status();
        let is_redirect = matches!(status, 301 | 302 | 303 | 307 | 308);
        let Some(location) = answer.header("location").filter(|_| is_redirect) else {
            return false;
        };
        let host = self.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let here = Url::parse(&format!("http://{}{}", host.unwrap_or("localhost"), self.target));
        let Some(next) = here.as_ref().ok().and_then(|here| here.join(location).ok()) else {
            return false;
        };
        // Whether over TLS or not, it is this app.
        if here.is_ok_and(|here| (here.host(), here.port()) != (next.host(), next.port())) {
            return false;
        }
        let of_post = self.method == Method::POST && matches!(status, 301 | 302);
        if of_post || (status == 303 && self.method != Method::HEAD) {
            self.method = Method::GET;
            self.body = Bytes::new();
            self.headers.remove(header::CONTENT_TYPE);
            self.headers.remove(header::CONTENT_LENGTH);
        }
        self.target = match next.query() {
            Some(query) => format!("{}?{query}", next.path()),
            None => next.path().to_owned(),
        };
        true
    }

    fn send_once(&self) -> TestResponse {
        let mut headers = self.headers.clone();
        // Without their attributes, which are for the client alone.
        let cookies: Vec<_> =
            self.client.jar().iter().map(|cookie| cookie.stripped().to_string()).collect();
        if !cookies.is_empty() {
            let value = HeaderValue::from_bytes(cookies.join("; ").as_bytes());
            let value = value.expect("cookies without control characters");
            headers.append(header::COOKIE, value);
        }
        let target = PathAndQuery::try_from(&self.target[..]);
        let request =
            Request::new(self.method.clone(), target.expect("a path, with a query or without"))
                .with_headers(headers)
                .with_body(RequestBody::Bytes(self.body.clone()));
        let (response, flashes) = self.client.handle(request);
        self.client.keep(response.headers());
        let (status, headers) = (response.status(), response.headers().clone());
        // No server would send the body of one of these.
        let bodiless = status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED;
        let body = if bodiless { Bytes::new() } else { whole(response) };
        TestResponse { target: self.target.clone(), status, headers, body, flashes }
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
