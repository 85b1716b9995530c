//! Headers that make browsers careful.

use std::time::Duration;

use http::header::{self, HeaderName, HeaderValue};

use crate::message::address::is_public;
use crate::message::request::Scheme;
use crate::message::response::Response;
use crate::message::response_head::header_pair;
use crate::pipeline::exchange::Exchange;
use crate::pipeline::plugin::{Installed, Plugin};
use crate::pipeline::route::Route;
use crate::{Error, ErrorKind, Result};

const ONE_YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Puts headers on each answer that make browsers careful (OWASP HTTP Headers Cheat Sheet). A header that the answer has
/// already stays as it is, so that a handler can say otherwise.
///
/// | header | value unless set | means |
/// |---|---|---|
/// | `Content-Security-Policy` | `default-src 'self'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'; object-src 'none'` | scripts, styles, images and forms of this site alone, none inside the page's text; nobody else shows it in a frame |
/// | `X-Content-Type-Options` | `nosniff` | what is no script by its type is run as none |
/// | `Referrer-Policy` | `strict-origin-when-cross-origin` | other sites see this one's name and no path |
/// | `Strict-Transport-Security` | `max-age=31536000` | https for the next year; over https alone (RFC 6797 section 7.2), and for public names, so that a certificate for localhost binds nothing else there |
///
/// ```
/// use bottle_session::{App, SecurityHeadersPlugin, TestClient};
///
/// let mut app = App::new();
/// app.install(SecurityHeadersPlugin::new().directive("img-src", "'self' https://images.example.com"))?;
/// app.get("/", || "hello");
/// let answer = TestClient::new(app)?.get("/").send();
/// assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
/// assert!(answer.header("content-security-policy").unwrap().ends_with("; img-src 'self' https://images.example.com"));
/// # Ok::<(), bottle_session::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct SecurityHeadersPlugin {
    directives: Vec<(String, String)>,
    report_only: bool,
    referrer_policy: String,
    hsts: Option<Duration>,
    hsts_subdomains: bool,
    /// Further ones.
    others: Vec<(String, String)>,
    /// All of them as they are sent.
    headers: Vec<(HeaderName, HeaderValue)>,
    hsts_value: Option<HeaderValue>,
}

impl SecurityHeadersPlugin {
    /// A plugin with the headers of the table.
    pub fn new() -> SecurityHeadersPlugin {
        let directives = [
            ("default-src", "'self'"),
            ("base-uri", "'self'"),
            ("form-action", "'self'"),
            ("frame-ancestors", "'self'"),
            ("object-src", "'none'"),
        ];
        SecurityHeadersPlugin {
            directives: directives.map(|(name, value)| (name.into(), value.into())).into(),
            report_only: false,
            referrer_policy: "strict-origin-when-cross-origin".to_owned(),
            hsts: Some(ONE_YEAR),
            hsts_subdomains: false,
            others: Vec::new(),
            headers: Vec::new(),
            hsts_value: None,
        }
    }

    /// A directive of the policy (Content Security Policy Level 3), in place of the one of its name if there is one:
    /// `directive("script-src", "'self' https://cdn.example.com")`. `directive("frame-ancestors", "'none'")` forbids
    /// frames altogether.
    #[must_use]
    pub fn directive(
        mut self,
        name: impl Into<String>,
        value: impl Into<String>,
    ) -> SecurityHeadersPlugin {
        let (name, value) = (name.into(), value.into());
        match self.directives.iter_mut().find(|(other, _)| *other == name) {
            Some((_, other)) => *other = value,
            None => self.directives.push((name, value)),
        }
        self
    }

    /// Takes a directive out of the policy; without any there is no policy.
    #[must_use]
    pub fn without_directive(mut self, name: &str) -> SecurityHeadersPlugin {
        self.directives.retain(|(other, _)| other != name);
        self
    }

    /// Has browsers report what the policy forbids, to the console and to where its `report-to` says, and forbid
    /// nothing: to try one on a site that is there already.
    #[must_use]
    pub fn report_only(mut self) -> SecurityHeadersPlugin {
        self.report_only = true;
        self
    }

    /// The referrer policy: `strict-origin-when-cross-origin` unless set.
    #[must_use]
    pub fn referrer_policy(mut self, policy: impl Into<String>) -> SecurityHeadersPlugin {
        self.referrer_policy = policy.into();
        self
    }

    /// For how long browsers that came over https come over nothing else: a year unless set. Zero makes them forget it,
    /// `None` leaves the header out.
    #[must_use]
    pub fn hsts(mut self, lifetime: impl Into<Option<Duration>>) -> SecurityHeadersPlugin {
        self.hsts = lifetime.into();
        self
    }

    /// Has it hold for all subdomains as well: those that speak no https cannot be reached any more.
    #[must_use]
    pub fn hsts_subdomains(mut self) -> SecurityHeadersPlugin {
        self.hsts_subdomains = true;
        self
    }

    /// Another header for each answer, such as `header("permissions-policy", "camera=(), microphone=()")`. One of the
    /// table's takes the place of that: `header("content-security-policy", …)` is the whole policy, whatever directives
    /// there are.
    #[must_use]
    pub fn header(
        mut self,
        name: impl Into<String>,
        value: impl Into<String>,
    ) -> SecurityHeadersPlugin {
        self.others.push((name.into(), value.into()));
        self
    }

    fn policy(&self) -> Result<Option<(String, String)>> {
        let name = match self.report_only {
            true => "content-security-policy-report-only",
            false => "content-security-policy",
        };
        let is_split = |text: &str| text.contains([';', ',']);
        if let Some((name, value)) =
            self.directives.iter().find(|(name, value)| is_split(name) || is_split(value))
        {
            let text = format!(
                "security_headers plugin: \"{name} {value}\" is not one directive; call directive for each"
            );
            return Err(Error::new(ErrorKind::Config, text));
        }
        let directives: Vec<_> =
            self.directives.iter().map(|(name, value)| format!("{name} {value}")).collect();
        let policy = directives.join("; ");
        Ok((!policy.is_empty()).then(|| (name.to_owned(), policy)))
    }
}

impl Default for SecurityHeadersPlugin {
    fn default() -> SecurityHeadersPlugin {
        SecurityHeadersPlugin::new()
    }
}

impl Plugin for SecurityHeadersPlugin {
    fn name(&self) -> &str {
        "security_headers"
    }

    fn setup(&mut self, _: &Installed<'_>) -> Result<()> {
        let own = [
            ("x-content-type-options".to_owned(), "nosniff".to_owned()),
            ("referrer-policy".to_owned(), self.referrer_policy.clone()),
        ];
        // The first one of a name goes out.
        let all = self.others.iter().cloned().chain(self.policy()?).chain(own);
        self.headers =
            all.map(|(name, value)| header_pair(name, value)).collect::<Result<Vec<_>>>()?;
        self.hsts_value = self.hsts.map(|lifetime| {
            let subdomains = if self.hsts_subdomains { "; includeSubDomains" } else { "" };
            let text = format!("max-age={}{subdomains}", lifetime.as_secs());
            HeaderValue::try_from(text).unwrap_or_else(|_| unreachable!("digits and letters"))
        });
        Ok(())
    }

    fn watches(&self, _: &Route) -> bool {
        true
    }

    fn end(&self, exchange: &mut Exchange, answer: &mut Response) {
        let headers = answer.headers_mut();
        for (name, value) in &self.headers {
            headers.entry(name).or_insert_with(|| value.clone());
        }
        let request = exchange.request();
        if let Some(value) = &self.hsts_value
            && request.scheme() == Scheme::Https
            && request.host().is_some_and(is_public)
        {
            headers.entry(header::STRICT_TRANSPORT_SECURITY).or_insert_with(|| value.clone());
        }
    }
}
