//! Cross-origin requests: which other sites' scripts may use the app.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use url::Url;

use crate::message::request::Request;
use crate::message::response::Response;
use crate::pipeline::exchange::Exchange;
use crate::pipeline::plugin::{Installed, Plugin};
use crate::pipeline::route::Route;
use crate::{Error, ErrorKind, Result};

/// Says which other sites' scripts may read answers and send more than a form could (Fetch standard, "CORS protocol").
///
/// | option | unless set |
/// |---|---|
/// | [`origin`](Self::origin), [`any_origin`](Self::any_origin), [`origin_if`](Self::origin_if) | none: one of them is needed |
/// | [`methods`](Self::methods) | GET, HEAD, POST, PUT, PATCH, DELETE |
/// | [`headers`](Self::headers) | those that the script asks for |
/// | [`expose`](Self::expose) | those that scripts always see |
/// | [`credentials`](Self::credentials) | false |
/// | [`max_age`](Self::max_age) | 2 hours, the most that Chrome keeps |
///
/// It answers preflights itself, before guards and handlers: also on routes that take OPTIONS, and for a route that skips
/// it not at all. Guards that ask who somebody is belong into [`before`](crate::App::before): a
/// [`before_request`](crate::App::before_request) hook of the outermost app comes before all plugins, and preflights have no
/// cookies. Whoever sends a request that needs no preflight is not kept from it: against forged forms there is
/// [`CsrfPlugin`](crate::CsrfPlugin).
///
/// ```
/// use bottle_session::{App, CorsPlugin, TestClient};
/// use bottle_session::http::Method;
///
/// let mut app = App::new();
/// app.install(CorsPlugin::new().origin("https://app.example.com").credentials())?;
/// app.put("/note", || "kept");
///
/// let client = TestClient::new(app)?;
/// let preflight = client
///     .request(Method::OPTIONS, "/note")
///     .header("origin", "https://app.example.com")
///     .header("access-control-request-method", "PUT")
///     .send();
/// assert_eq!(preflight.status(), 204);
/// assert_eq!(preflight.header("access-control-allow-origin"), Some("https://app.example.com"));
/// # Ok::<(), bottle_session::Error>(())
/// ```
#[derive(Clone)]
pub struct CorsPlugin {
    origins: Vec<String>,
    any: bool,
    rule: Option<OriginRule>,
    methods: Vec<String>,
    headers: Option<Vec<String>>,
    exposed: Vec<String>,
    credentials: bool,
    max_age: Duration,
    sent: Sent,
}

type OriginRule = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// Values as they are sent.
#[derive(Clone, Default)]
struct Sent {
    methods: Option<HeaderValue>,
    headers: Option<HeaderValue>,
    exposed: Option<HeaderValue>,
    max_age: Option<HeaderValue>,
}

impl CorsPlugin {
    /// A plugin that allows no origin yet.
    pub fn new() -> CorsPlugin {
        let methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];
        CorsPlugin {
            origins: Vec::new(),
            any: false,
            rule: None,
            methods: methods.map(str::to_owned).into(),
            headers: None,
            exposed: Vec::new(),
            credentials: false,
            max_age: Duration::from_secs(2 * 60 * 60),
            sent: Sent::default(),
        }
    }

    /// Allows the scripts of this origin, such as `https://app.example.com`: a scheme, a host, and a port that is not the
    /// scheme's own. The scheme may be an app's, `capacitor://localhost` or `chrome-extension://<id>`. May be called
    /// several times.
    #[must_use]
    pub fn origin(mut self, origin: impl Into<String>) -> CorsPlugin {
        self.origins.push(origin.into());
        self
    }

    /// Allows the scripts of all sites, for what is public. It does not go with [`credentials`](Self::credentials).
    #[must_use]
    pub fn any_origin(mut self) -> CorsPlugin {
        self.any = true;
        self
    }

    /// Allows the scripts of those origins for which this says so, beside the others. It is asked on an event loop: be
    /// quick. Beware of `ends_with`: `https://evil-example.com` ends with `example.com`.
    #[must_use]
    pub fn origin_if(mut self, rule: impl Fn(&str) -> bool + Send + Sync + 'static) -> CorsPlugin {
        self.rule = Some(Arc::new(rule));
        self
    }

    /// The methods that need a preflight which scripts may use.
    #[must_use]
    pub fn methods<'a>(mut self, methods: impl IntoIterator<Item = &'a str>) -> CorsPlugin {
        self.methods = methods.into_iter().map(str::to_owned).collect();
        self
    }

    /// The request headers that scripts may set: whatever they ask for unless set.
    #[must_use]
    pub fn headers<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> CorsPlugin {
        self.headers = Some(names.into_iter().map(str::to_owned).collect());
        self
    }

    /// The headers of answers that scripts may read, beside those that they always may.
    #[must_use]
    pub fn expose<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> CorsPlugin {
        self.exposed = names.into_iter().map(str::to_owned).collect();
        self
    }

    /// Lets scripts send cookies, and read the answers to them. The session's cookie goes along only where it is
    /// [`SameSite::None`](crate::SameSite).
    #[must_use]
    pub fn credentials(mut self) -> CorsPlugin {
        self.credentials = true;
        self
    }

    /// For how long a browser need not ask again.
    #[must_use]
    pub fn max_age(mut self, age: Duration) -> CorsPlugin {
        self.max_age = age;
        self
    }

    /// What `Access-Control-Allow-Origin` says to this origin.
    fn allowed(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        if self.any {
            return Some(HeaderValue::from_static("*"));
        }
        let text = origin.to_str().ok()?;
        // Whoever has none, of a sandboxed frame for one.
        let is_allowed = text != "null"
            && (self.origins.iter().any(|known| known == text)
                || self.rule.as_ref().is_some_and(|rule| rule(text)));
        is_allowed.then(|| origin.clone())
    }

    /// The answer to a preflight.
    fn preflight(&self, request: &Request, origin: &HeaderValue) -> Response {
        let mut response = Response::new(StatusCode::NO_CONTENT);
        let headers = response.headers_mut();
        let vary = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";
        headers.insert(header::VARY, HeaderValue::from_static(vary));
        let Some(allowed) = self.allowed(origin) else {
            log::debug!("{request:?}: {origin:?} is no origin that the cors plugin allows");
            return response;
        };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        let asked = request.headers().get(header::ACCESS_CONTROL_REQUEST_HEADERS);
        let names = self.sent.headers.as_ref().or(asked.filter(|_| self.headers.is_none()));
        for (name, value) in [
            (header::ACCESS_CONTROL_ALLOW_METHODS, self.sent.methods.as_ref()),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, names),
            (header::ACCESS_CONTROL_MAX_AGE, self.sent.max_age.as_ref()),
        ] {
            if let Some(value) = value {
                headers.insert(name, value.clone());
            }
        }
        self.add_credentials(headers);
        response
    }

    fn add_credentials(&self, headers: &mut HeaderMap) {
        if self.credentials {
            let name = header::ACCESS_CONTROL_ALLOW_CREDENTIALS;
            headers.insert(name, HeaderValue::from_static("true"));
        }
    }

    fn refused(text: String) -> Error {
        Error::new(ErrorKind::Config, format!("cors plugin: {text}"))
    }
}

impl Default for CorsPlugin {
    fn default() -> CorsPlugin {
        CorsPlugin::new()
    }
}

impl fmt::Debug for CorsPlugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CorsPlugin")
            .field("origins", &self.origins)
            .field("any", &self.any)
            .field("credentials", &self.credentials)
            .finish_non_exhaustive()
    }
}

/// An origin as browsers send it: in lower case, without the port that the scheme has by itself.
fn serialized(origin: &str) -> Option<String> {
    let url = Url::parse(origin).ok()?;
    let user = (url.username(), url.password());
    if !matches!(url.path(), "" | "/")
        || (url.query(), url.fragment(), user) != (None, None, ("", None))
    {
        return None;
    }
    if url.origin().is_tuple() {
        return Some(url.origin().ascii_serialization());
    }
    let host = url.host_str().filter(|host| !host.is_empty())?.to_ascii_lowercase();
    let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
    Some(format!("{}://{host}{port}", url.scheme()))
}

/// A list of names as a header has it; `None` where there are none.
fn list(what: &str, names: &[String], is_one: fn(&str) -> bool) -> Result<Option<HeaderValue>> {
    if let Some(other) = names.iter().find(|name| !is_one(name)) {
        return Err(CorsPlugin::refused(format!("{other:?} is no {what}")));
    }
    let value = HeaderValue::try_from(names.join(", "));
    let value = value.unwrap_or_else(|_| unreachable!("tokens can stand in a header"));
    Ok((!names.is_empty()).then_some(value))
}

impl Plugin for CorsPlugin {
    fn name(&self) -> &str {
        "cors"
    }

    fn setup(&mut self, _: &Installed<'_>) -> Result<()> {
        for origin in &mut self.origins {
            *origin = match serialized(origin) {
                Some(origin) => origin,
                None => {
                    let text = format!(
                        "{origin:?} is no origin; write \"https://app.example.com\", without a path"
                    );
                    return Err(CorsPlugin::refused(text));
                }
            };
        }
        match (self.any, self.origins.is_empty() && self.rule.is_none(), self.credentials) {
            (false, true, _) => Err(CorsPlugin::refused(
                "no origin is allowed; say which with origin, or any_origin".to_owned(),
            )),
            (true, _, true) => Err(CorsPlugin::refused(
                "any_origin does not go with credentials: every site could act as its visitors; name the origins"
                    .to_owned(),
            )),
            _ => Ok(()),
        }?;
        let is_method = |name: &str| Method::from_bytes(name.as_bytes()).is_ok();
        let is_name = |name: &str| HeaderName::try_from(name).is_ok();
        self.sent = Sent {
            methods: list("method", &self.methods, is_method)?,
            headers: list("header", self.headers.as_deref().unwrap_or_default(), is_name)?,
            exposed: list("header", &self.exposed, is_name)?,
            max_age: Some(HeaderValue::from(self.max_age.as_secs())),
        };
        Ok(())
    }

    fn watches(&self, _: &Route) -> bool {
        true
    }

    fn begin(&self, exchange: &mut Exchange) {
        let request = exchange.request();
        let headers = request.headers();
        if request.method() == Method::OPTIONS
            && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
            && let Some(origin) = headers.get(header::ORIGIN)
        {
            let answer = self.preflight(request, origin);
            exchange.answer(answer);
        }
    }

    fn end(&self, exchange: &mut Exchange, answer: &mut Response) {
        let request = exchange.request();
        if request.method() == Method::OPTIONS
            && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
        {
            return;
        }
        let headers = answer.headers_mut();
        if !self.any {
            // Also where nobody asks from elsewhere: a cache must not give this answer to somebody who does.
            headers.append(header::VARY, HeaderValue::from_static("Origin"));
        }
        let origin = request.headers().get(header::ORIGIN);
        let Some(allowed) = origin.and_then(|origin| self.allowed(origin)) else { return };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        if let Some(exposed) = &self.sent.exposed {
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed.clone());
        }
        self.add_credentials(headers);
    }
}
