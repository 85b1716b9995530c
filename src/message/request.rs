//! The request: method, target, headers, cookies, body.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};

use bytes::Bytes;
use http::header::{self, AsHeaderName, Entry};
use http::uri::PathAndQuery;
use http::{Extensions, HeaderMap, Method, Version};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use url::Url;

use crate::message::base64;
use crate::message::body::{DEFAULT_BODY_LIMIT, RequestBody, Unreadable};
use crate::message::cookies::RequestCookies;
use crate::message::forms::{self, FormData, FormError, FormLimits};
use crate::{Error, ErrorKind, Result};

/// One request.
pub struct Request {
    method: Method,
    target: PathAndQuery,
    version: Version,
    headers: HeaderMap,
    remote_addr: Option<SocketAddr>,
    scheme: Scheme,
    prefix: String,
    from_trusted_proxy: bool,
    /// How much of the path leads to the mounted app.
    mount: usize,
    extensions: Extensions,
    cookies: OnceLock<RequestCookies>,
    /// Whether somebody has looked at a signed or encrypted cookie.
    pub(super) read_secret_cookie: AtomicBool,
    pub(super) unread: Mutex<Option<RequestBody>>,
    pub(super) buffered: OnceLock<std::result::Result<Bytes, Unreadable>>,
    pub(super) form: OnceLock<std::result::Result<FormData, FormError>>,
    pub(super) body_limit: u64,
    pub(super) form_limits: FormLimits,
}

/// What a path cannot hold as it is (RFC 3986 section 3.3), the percent sign apart.
const NOT_IN_PATH: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// How the client reached the server.
///
/// ```
/// use bottle_session::{App, Request, Scheme, TestClient};
///
/// let mut app = App::new();
/// app.get("/", |request: &Request| match request.scheme() {
///     Scheme::Https => "safe",
///     Scheme::Http => "in clear",
/// });
/// assert_eq!(TestClient::new(app)?.get("/").send().text(), "in clear");
/// # Ok::<(), bottle_session::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scheme {
    /// In clear.
    #[default]
    Http,
    /// Over TLS: of the server's own, or a trusted proxy said so.
    Https,
}

impl std::fmt::Display for Scheme {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        })
    }
}

impl Request {
    /// A request for this target (`/path?query`, or `*`), without headers or a body.
    pub fn new(method: Method, target: PathAndQuery) -> Request {
        Request {
            method,
            target,
            version: Version::HTTP_11,
            headers: HeaderMap::new(),
            remote_addr: None,
            scheme: Scheme::Http,
            prefix: String::new(),
            from_trusted_proxy: false,
            mount: 0,
            extensions: Extensions::new(),
            cookies: OnceLock::new(),
            read_secret_cookie: AtomicBool::new(false),
            unread: Mutex::new(None),
            buffered: OnceLock::new(),
            form: OnceLock::new(),
            body_limit: DEFAULT_BODY_LIMIT,
            form_limits: FormLimits::new(),
        }
    }

    /// The same request in this version of HTTP.
    #[must_use]
    pub fn with_version(mut self, version: Version) -> Request {
        self.version = version;
        self
    }

    /// The same request with these headers and no others. Cookies are secrets, which their `Debug` does not show
    /// from here on.
    #[must_use]
    pub fn with_headers(mut self, mut headers: HeaderMap) -> Request {
        if let Entry::Occupied(mut cookies) = headers.entry(header::COOKIE) {
            cookies.iter_mut().for_each(|value| value.set_sensitive(true));
        }
        *self.headers_mut() = headers;
        self
    }

    /// The same request from this client.
    #[must_use]
    pub fn with_remote_addr(mut self, address: SocketAddr) -> Request {
        self.remote_addr = Some(address);
        self
    }

    /// The same request over this scheme.
    #[must_use]
    pub fn with_scheme(mut self, scheme: Scheme) -> Request {
        self.scheme = scheme;
        self
    }

    /// The same request, of an app that visitors find below this path, such as `/shop`. `Urls` and the paths of
    /// cookies begin with it; the request's own path does not.
    #[must_use]
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Request {
        self.prefix = prefix.into();
        self
    }

    /// The method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The path as the client wrote it, percent-encoded: `/admin` and `/%61dmin` find the same route. To
    /// keep visitors out of a part of an app, [mount](crate::App::mount) it and give it a hook of its own.
    pub fn path(&self) -> &str {
        self.target.path()
    }

    /// Path and query as they were sent.
    pub fn target(&self) -> &PathAndQuery {
        &self.target
    }

    /// Changes the target; before routing (in a before-request hook) this changes the route.
    pub fn set_target(&mut self, target: PathAndQuery) {
        self.target = target;
        self.mount = 0;
    }

    /// Changes the path and keeps the query: in a before-request hook, this changes the route. What a path cannot hold is
    /// percent-encoded, `?` and `#` too; what is encoded already stays so. A path begins with a slash.
    ///
    /// ```
    /// use bottle_session::{App, Request, TestClient};
    ///
    /// let mut app = App::new();
    /// app.before_request(|request: &mut Request| match request.path().strip_suffix('/') {
    ///     Some(path) if !path.is_empty() => request.set_path(&path.to_owned()),
    ///     _ => Ok(()),
    /// });
    /// app.get("/books", || "books");
    /// assert_eq!(TestClient::new(app)?.get("/books/?page=2").send().text(), "books");
    /// # Ok::<(), bottle_session::Error>(())
    /// ```
    pub fn set_path(&mut self, path: &str) -> Result<()> {
        let refused =
            |why: &str| Error::new(ErrorKind::Input, format!("{path:?} is no path: {why}"));
        if !path.starts_with('/') {
            return Err(refused("a path begins with a slash"));
        }
        let mut target = utf8_percent_encode(path, NOT_IN_PATH).to_string();
        if let Some(query) = self.target.query() {
            target.push('?');
            target.push_str(query);
        }
        let target = PathAndQuery::try_from(target)
            .map_err(|error| refused("it is too long").with_source(error))?;
        self.set_target(target);
        Ok(())
    }

    /// Changes the method; before routing this changes the route.
    pub fn set_method(&mut self, method: Method) {
        self.method = method;
    }

    /// What stands behind the `?`, as it was sent; empty without one.
    pub fn query_string(&self) -> &str {
        self.target.query().unwrap_or("")
    }

    /// The value of this name in the query, decoded; the last of several. A value that is not UTF-8 is an error that
    /// answers 400 and names it.
    pub fn query(&self, name: &str) -> Result<Option<Cow<'_, str>>> {
        forms::query_value(self.query_string(), name)
    }

    /// All names and values in the query, decoded, in the order sent. One that is not UTF-8 is an error, as with
    /// [`query`](Request::query).
    pub fn queries(&self) -> Result<Vec<(Cow<'_, str>, Cow<'_, str>)>> {
        forms::query_values(self.query_string())
    }

    /// The version of HTTP.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The headers, to change.
    pub fn headers_mut(&mut self) -> &mut HeaderMap {
        // What was read from them may be so no more. A form that was read from the stream cannot be read again.
        self.cookies = OnceLock::new();
        if !matches!(self.buffered.get(), Some(Err(Unreadable::Taken))) {
            self.form = OnceLock::new();
        }
        &mut self.headers
    }

    /// The first header of this name, where it is text: ASCII, or UTF-8 as proxies for single sign-on send it.
    pub fn header(&self, name: impl AsHeaderName) -> Option<&str> {
        std::str::from_utf8(self.headers.get(name)?.as_bytes()).ok()
    }

    /// The host the client asked for: the `Host` header, or what a trusted proxy said.
    pub fn host(&self) -> Option<&str> {
        self.header(header::HOST)
    }

    /// The scheme: `https` where the server itself speaks TLS, unless a trusted proxy said otherwise.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Whether this is the origin that the request was sent to. Its scheme is taken for granted unless a trusted proxy told
    /// ours.
    pub(crate) fn is_own_origin(&self, origin: &Url) -> bool {
        let scheme = match self.scheme {
            Scheme::Https => "https",
            Scheme::Http => origin.scheme(),
        };
        let own = self.host().and_then(|host| Url::parse(&format!("{scheme}://{host}")).ok());
        // Two opaque origins (`null`) are never equal.
        own.is_some_and(|own| own.origin() == origin.origin())
    }

    /// The address as the client has it: scheme, host, prefix, path and query, such as `https://example.org/shop/item?id=7`.
    /// Where the request names no host, which only HTTP/1.0 allows, it begins with the path.
    ///
    /// The host is the client's word: an address that is kept, or sent to somebody else, is better made of a host from the
    /// app's own settings.
    pub fn url(&self) -> String {
        let (prefix, target) = (&self.prefix, &self.target);
        match self.host() {
            Some(host) if !host.is_empty() => {
                format!("{}://{host}{prefix}{target}", self.scheme)
            }
            _ => format!("{prefix}{target}"),
        }
    }

    /// The path below which visitors find the app, such as `/shop`, where a trusted proxy said so; else empty.
    /// `Urls` and the paths of cookies begin with it. `redirect` does not add it, so that what `Urls` built can be
    /// redirected to.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether a proxy has passed it on whose word counts.
    pub fn is_from_trusted_proxy(&self) -> bool {
        self.from_trusted_proxy
    }

    pub(crate) fn set_from_trusted_proxy(&mut self) {
        self.from_trusted_proxy = true;
    }

    /// The path below which the [mounted](crate::App::mount) app is whose route was found, as the client wrote it; empty
    /// in the outermost app, and before a route is found.
    pub fn mount_path(&self) -> &str {
        self.path().get(..self.mount).unwrap_or_default()
    }

    pub(crate) fn set_mount_path(&mut self, length: usize) {
        self.mount = length;
    }

    /// Name and password of HTTP's basic authentication (RFC 7617), in UTF-8. The password may hold colons. `None` where
    /// the client sent none, or what cannot be read. [`basic_challenge`](crate::basic_challenge) asks for them.
    ///
    /// Compare a password with what a password hash such as argon2 made of it, never with the password itself.
    pub fn basic_auth(&self) -> Option<(String, String)> {
        let (scheme, credentials) = self.header(header::AUTHORIZATION)?.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let decoded = String::from_utf8(base64::decode(credentials.trim_matches(' '))?).ok()?;
        let (name, password) = decoded.split_once(':')?;
        let controls = |text: &str| text.chars().any(char::is_control);
        let is_sound = !controls(name) && !controls(password);
        is_sound.then(|| (name.to_owned(), password.to_owned()))
    }

    /// The client's address: the peer of the connection, or what a trusted proxy said. `None` over a unix
    /// socket.
    pub fn remote_addr(&self) -> Option<SocketAddr> {
        self.remote_addr
    }

    /// The cookies.
    pub fn cookies(&self) -> &RequestCookies {
        self.cookies.get_or_init(|| RequestCookies::parse(&self.headers))
    }

    /// Whether somebody has looked at a signed or encrypted cookie: the answer may show it.
    pub(crate) fn has_read_secret_cookie(&self) -> bool {
        self.read_secret_cookie.load(Ordering::Relaxed)
    }

    /// The value of the first cookie of this name, decoded.
    pub fn cookie(&self, name: &str) -> Option<Cow<'_, str>> {
        self.cookies().get(name)
    }

    /// Values that hooks, plugins and servers attach.
    pub fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    /// Values that hooks, plugins and servers attach, to change.
    pub fn extensions_mut(&mut self) -> &mut Extensions {
        &mut self.extensions
    }

    /// The `Content-Type` without its parameters, in lower case; empty without one.
    pub fn content_type(&self) -> String {
        let value = self.header(header::CONTENT_TYPE).unwrap_or("");
        value.split(';').next().unwrap_or("").trim().to_ascii_lowercase()
    }
}

impl fmt::Debug for Request {
    /// Headers are left out: cookies are secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.target)
    }
}
