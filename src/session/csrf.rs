//! Protection against forged requests: another site must not make a visitor's browser act in their name.

pub(super) mod token;

use http::{Method, StatusCode};
use url::{Origin, Url};

use super::view::Session;
use crate::handler::apply_form_limits;
use crate::logging::{OneLine, ThrottledLog};
use crate::message::http_error::HttpError;
use crate::message::into_response::IntoResponse;
use crate::message::request::{Request, Scheme};
use crate::pipeline::exchange::Exchange;
use crate::pipeline::plugin::{Callback, Installed, Plugin};
use crate::pipeline::route::Route;
use crate::{Error, ErrorKind, Result};

/// The header in which a script sends the token.
const HEADER: &str = "x-csrf-token";

/// The field in which a form sends it.
const FIELD: &str = "csrf_token";

/// What a new session holds that has handed out a token and has nothing else to keep.
pub(super) const MARKER: &str = "_csrf";

/// Refuses forged requests with a 403 (OWASP Cross-Site Request Forgery Prevention Cheat Sheet, "Fetch Metadata" and
/// "Synchronizer Token Pattern").
///
/// On every route that takes a method other than GET, HEAD, OPTIONS and TRACE, a request of such a method is looked at:
///
/// 1. Where does the browser say that it comes from? `Sec-Fetch-Site: same-origin` is a page of this site: it is accepted,
///    whatever token it carries, so that neither a login in another tab nor a session that has ended spoils a form.
///    `cross-site` and `same-site` are refused, and so is an `Origin` that is not that of the `Host`, unless it is a
///    [trusted](CsrfPlugin::trusted_origin) one.
/// 2. Where it does not say (`none`, a browser from before 2023, plain http) the request must carry a token of its session
///    ([`Session::csrf_token`]), as the header `X-CSRF-Token` or as the form field `csrf_token`. With the header, the body
///    is left unread. So must one from a trusted origin. `Origin: null` over plain http, which a page with
///    `Referrer-Policy: no-referrer` sends, says nothing either.
///
/// What a page of this site sends is not always what its author wrote: markup that somebody managed to inject, a form
/// without a script, is same-origin, too. [`always_token`](CsrfPlugin::always_token) asks for the token as well.
///
/// Who is refused reads what happened, and finds what they typed by going back. The log says at `info` which rule it was,
/// and which headers were sent.
///
/// Such routes always load the session. A route that other programs call, with credentials of their own and
/// no cookie, does without: `.skip("csrf")`.
///
/// ```
/// use bottle_session::{App, CsrfPlugin, Session, SessionPlugin, TestClient};
///
/// let mut app = App::new();
/// app.install(SessionPlugin::new().in_memory())?;
/// app.install(CsrfPlugin::new().trusted_origin("https://accounts.example.com"))?;
/// app.post("/transfer", |_: &mut Session| "done");
/// app.post("/hook", || "heard").skip("csrf");
///
/// let client = TestClient::new(app)?;
/// assert_eq!(client.post("/transfer").send().status(), 403);
/// assert_eq!(client.post("/hook").send().status(), 200);
/// # Ok::<(), bottle_session::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct CsrfPlugin {
    keyword: String,
    trusted: Vec<Origin>,
    always_token: bool,
    /// The first option that could not work; told at install.
    refused: Option<String>,
    /// Requests that were refused.
    refusals: ThrottledLog,
}

impl CsrfPlugin {
    /// A plugin that checks against the session of keyword `session` and trusts no other origin.
    pub fn new() -> CsrfPlugin {
        CsrfPlugin {
            keyword: "session".to_owned(),
            trusted: Vec::new(),
            always_token: false,
            refused: None,
            refusals: ThrottledLog::default(),
        }
    }

    /// The keyword of the session that the tokens belong to: `session` unless set.
    #[must_use]
    pub fn keyword(mut self, keyword: impl Into<String>) -> CsrfPlugin {
        self.keyword = keyword.into();
        self
    }

    /// Lets requests from the pages of this origin, such as `https://accounts.example.com`, through the first
    /// check. They need a token all the same. May be called several times.
    #[must_use]
    pub fn trusted_origin(mut self, origin: &str) -> CsrfPlugin {
        match Url::parse(origin) {
            Ok(url)
                if url.origin().is_tuple()
                    && (url.path(), url.query(), url.fragment()) == ("/", None, None) =>
            {
                self.trusted.push(url.origin());
            }
            _ => {
                self.refused.get_or_insert_with(|| origin.to_owned());
            }
        }
        self
    }

    /// Asks for the token also where the browser says that the request comes from a page of this site. Markup that
    /// somebody injects into one of its pages, without a script, can send forms, but knows no token.
    #[must_use]
    pub fn always_token(mut self) -> CsrfPlugin {
        self.always_token = true;
        self
    }

    fn check(&self, exchange: &mut Exchange) -> Result<()> {
        let refused = match self.source(exchange.request()) {
            Source::Own if !self.always_token => return Ok(()),
            Source::Foreign(header) => Refused::Foreign(header),
            Source::Own | Source::Trusted | Source::Unknown => {
                apply_form_limits(exchange);
                let token = token(exchange.request())?;
                let session = exchange.provided::<Session>(&self.keyword).ok_or_else(|| {
                    let keyword = &self.keyword;
                    let text =
                        format!("the token cannot be checked: no session of keyword {keyword:?}");
                    Error::new(ErrorKind::Unavailable, text)
                })?;
                match token {
                    Some(token) if session.verify_csrf(&token) => return Ok(()),
                    Some(_) => Refused::WrongToken,
                    None => Refused::NoToken,
                }
            }
        };
        let request = exchange.request();
        let sent = |name| request.header(name).unwrap_or("not sent");
        let reason = refused.reason();
        self.refusals.log_throttled(log::Level::Info, &reason, || {
            let line = format_args!(
                "{} {} is refused by the csrf plugin: {reason}; Sec-Fetch-Site: {}, Origin: {}, Host: {}",
                request.method(),
                request.path(),
                sent("sec-fetch-site"),
                sent("origin"),
                sent("host"),
            );
            // Headers are text, and text can do more than ASCII.
            OneLine(line).to_string()
        });
        Err(HttpError::new(StatusCode::FORBIDDEN).with_message(refused.message()).into())
    }

    /// Where the request comes from, as far as the browser says.
    fn source(&self, request: &Request) -> Source {
        let origin = request.header("origin");
        let parsed = origin.and_then(|origin| Url::parse(origin).ok());
        let trusted = parsed.as_ref().is_some_and(|url| self.trusted.contains(&url.origin()));
        match (request.header("sec-fetch-site"), origin) {
            // The browser knows best, also where a proxy has changed the Host.
            (Some("same-origin"), _) => Source::Own,
            _ if trusted => Source::Trusted,
            (Some("none"), _) | (None, None) => Source::Unknown,
            (Some(_), _) => Source::Foreign("Sec-Fetch-Site"),
            (None, Some("null")) if request.scheme() == Scheme::Http => Source::Unknown,
            (None, Some(_)) if parsed.is_some_and(|url| request.is_own_origin(&url)) => {
                Source::Unknown
            }
            (None, Some(_)) => Source::Foreign("Origin"),
        }
    }
}

/// Where a request comes from.
#[derive(Debug, PartialEq, Eq)]
enum Source {
    /// A page of this site: the browser says so.
    Own,
    Trusted,
    /// The browser does not say, or what is easily made up.
    Unknown,
    /// Another site: this header says so.
    Foreign(&'static str),
}

/// Why a request is refused.
enum Refused {
    Foreign(&'static str),
    NoToken,
    WrongToken,
}

impl Refused {
    /// For the log.
    fn reason(&self) -> String {
        match self {
            Refused::Foreign(header) => format!("rule 1, {header} names another site"),
            Refused::NoToken => {
                "rule 2, it has neither the form field csrf_token nor the header X-CSRF-Token"
                    .to_owned()
            }
            Refused::WrongToken => "rule 2, its token is not that of its session".to_owned(),
        }
    }

    /// For the visitor.
    fn message(&self) -> &'static str {
        match self {
            Refused::Foreign(_) => {
                "Nothing was changed: the request comes from a page of another site."
            }
            Refused::NoToken => {
                "Nothing was changed: the request carries no token, by which this site knows its own forms. Go back: \
                 what you typed is still there. Copy it, load the page again, and send it from there."
            }
            Refused::WrongToken => {
                "Nothing was changed: the page is from before you logged in or out, or was open for too long. Go back: \
                 what you typed is still there. Copy it, load the page again, and send it from there."
            }
        }
    }
}

fn token(request: &Request) -> Result<Option<String>> {
    if let Some(token) = request.header(HEADER) {
        return Ok(Some(token.to_owned()));
    }
    match request.content_type().as_str() {
        "application/x-www-form-urlencoded" | "multipart/form-data" => {
            Ok(request.form()?.get(FIELD)?.map(str::to_owned))
        }
        _ => Ok(None),
    }
}

fn is_safe(method: &Method) -> bool {
    // RFC 9110 section 9.2.1.
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE].contains(method)
}

fn concerns(route: &Route) -> bool {
    // No method at all stands for any.
    route.methods().is_empty() || !route.methods().iter().all(is_safe)
}

impl Default for CsrfPlugin {
    fn default() -> CsrfPlugin {
        CsrfPlugin::new()
    }
}

impl Plugin for CsrfPlugin {
    fn name(&self) -> &str {
        "csrf"
    }

    fn uses(&self, route: &Route) -> Vec<String> {
        if concerns(route) { vec![self.keyword.clone()] } else { Vec::new() }
    }

    fn setup(&mut self, _: &Installed<'_>) -> Result<()> {
        match &self.refused {
            None => Ok(()),
            Some(origin) => Err(Error::new(
                ErrorKind::Config,
                format!(
                    "csrf plugin: {origin:?} is no origin; write scheme, host and port, such as \
                     https://accounts.example.com"
                ),
            )),
        }
    }

    fn apply(&self, callback: Callback, route: &Route) -> Callback {
        if !concerns(route) {
            return callback;
        }
        let plugin = self.clone();
        Callback::new(move |exchange| {
            if !is_safe(exchange.request().method())
                && let Err(error) = plugin.check(exchange)
            {
                return HttpError::from(error).into_response();
            }
            callback.call(exchange)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::uri::PathAndQuery;

    #[test]
    fn where_a_request_comes_from_is_what_the_browser_says() {
        use Source::{Own, Trusted, Unknown};

        let plugin = CsrfPlugin::new().trusted_origin("https://accounts.example.com");
        let (http, https) = (Scheme::Http, Scheme::Https);
        let by_site = Source::Foreign("Sec-Fetch-Site");
        let by_origin = Source::Foreign("Origin");
        let table = [
            // Sec-Fetch-Site, Origin, Host, our scheme as far as it is known
            ("same-origin", "", "example.com", http, &Own),
            ("same-origin", "null", "example.com", https, &Own),
            ("none", "", "example.com", http, &Unknown),
            ("cross-site", "", "example.com", http, &by_site),
            ("same-site", "https://forum.example.com", "example.com", http, &by_site),
            ("same-site", "https://accounts.example.com", "example.com", http, &Trusted),
            ("cross-site", "https://accounts.example.com:444", "example.com", http, &by_site),
            ("cross-site", "http://accounts.example.com", "example.com", http, &by_site),
            ("cross-site", "https://example.com", "example.com", http, &by_site),
            ("cross-site", "null", "example.com", http, &by_site),
            ("nonsense", "", "example.com", http, &by_site),
            ("same-origin", "https://example.com", "behind-a-proxy:8080", http, &Own),
            ("", "https://accounts.example.com", "example.com", http, &Trusted),
            ("", "https://example.com", "example.com", http, &Unknown),
            ("", "https://example.com", "EXAMPLE.com:443", http, &Unknown),
            ("", "http://example.com:8080", "example.com:8080", http, &Unknown),
            ("", "http://example.com", "example.com", https, &by_origin),
            ("", "https://example.com", "example.com", https, &Unknown),
            ("", "http://example.com:8080", "example.com", http, &by_origin),
            ("", "https://evil.com", "example.com", http, &by_origin),
            ("", "https://example.com.evil.com", "example.com", http, &by_origin),
            ("", "null", "example.com", http, &Unknown),
            ("", "null", "example.com", https, &by_origin),
            ("", "null", "null", https, &by_origin),
            ("", "file:///", "", http, &by_origin),
            ("", "https://example.com", "", http, &by_origin),
            ("", "", "example.com", http, &Unknown),
        ];
        for (site, origin, host, scheme, source) in table {
            let target = PathAndQuery::from_static("/");
            let mut request = Request::new(Method::POST, target).with_scheme(scheme);
            for (name, value) in [("sec-fetch-site", site), ("origin", origin), ("host", host)] {
                if !value.is_empty() {
                    request.headers_mut().insert(name, value.parse().unwrap());
                }
            }
            let got = plugin.source(&request);
            assert_eq!(got, *source, "{site} {origin} {host} {scheme:?}");
        }
    }

    #[test]
    fn what_is_no_origin_is_refused_at_install() {
        for origin in ["example.com", "https://example.com/path", "null", "file:///", ""] {
            let mut app = crate::App::new();
            let error = app.install(CsrfPlugin::new().trusted_origin(origin)).unwrap_err();
            assert!(error.to_string().starts_with("csrf plugin: "), "{error}");
        }
    }
}
