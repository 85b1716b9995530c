//! The session's cookie: its attributes, and which of them go together.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use crate::message::cookies::{Cookie, SameSite, set_cookie_value};
use crate::message::request::Scheme;
use crate::{Error, ErrorKind, Result};

/// Browsers keep no cookie longer: 400 days (RFC 6265bis section 5.5).
const MAX_LIFETIME: Duration = Duration::from_secs(400 * 24 * 60 * 60);

#[derive(Clone, Debug)]
pub(crate) struct CookieSettings {
    pub(crate) name: String,
    pub(crate) path: String,
    pub(crate) domain: Option<String>,
    /// `None`: where the visitor came over https.
    pub(crate) secure: Option<bool>,
    pub(crate) http_only: bool,
    pub(crate) same_site: SameSite,
    pub(crate) partitioned: bool,
}

/// The defaults of Python's bottle-session, and `SameSite=Lax`, which browsers take for granted by now.
impl Default for CookieSettings {
    fn default() -> CookieSettings {
        CookieSettings {
            name: "bottle.session".to_owned(),
            path: "/".to_owned(),
            domain: None,
            secure: None,
            http_only: false,
            same_site: SameSite::Lax,
            partitioned: false,
        }
    }
}

impl CookieSettings {
    /// Refuses what no browser would keep (RFC 6265bis sections 4.1.2 and 4.1.3).
    pub(crate) fn check(&self) -> Result<()> {
        let refused = |why: &str| {
            Err(Error::new(ErrorKind::Config, format!("session cookie {:?}: {why}", self.name)))
        };
        let is_token =
            |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if self.name.is_empty() || !self.name.bytes().all(is_token) {
            return refused(
                "the name must be a token (RFC 6265 section 4.1.1): letters, digits, !#$&'*+-.^_`|~",
            );
        }
        if self.name.contains('%') {
            return refused(
                "a name with % would be percent-encoded and not come back; leave it out",
            );
        }
        if !self.path.starts_with('/') {
            return refused("cookie_path must start with /");
        }
        if !self.domain.as_deref().is_none_or(is_host_name) {
            return refused(
                "cookie_domain must be the name of a host, such as example.org: no scheme, no port",
            );
        }
        let secure = self.is_secure();
        if starts_with(&self.name, "__host-")
            && (!secure || self.path != "/" || self.domain.is_some())
        {
            return refused(
                "browsers keep a __Host- cookie only with cookie_secure(true), path / and no domain",
            );
        }
        if starts_with(&self.name, "__secure-") && !secure {
            return refused("browsers keep a __Secure- cookie only with cookie_secure(true)");
        }
        let is_http = ["__http-", "__host-http-"].iter().any(|it| starts_with(&self.name, it));
        if is_http && !(secure && self.http_only) {
            return refused(
                "browsers keep a __Http- cookie only with cookie_secure(true) and cookie_httponly(true)",
            );
        }
        if self.same_site == SameSite::None && !secure {
            return refused("browsers keep a SameSite=None cookie only with cookie_secure(true)");
        }
        if self.partitioned && !secure {
            return refused("browsers keep a partitioned cookie only with cookie_secure(true)");
        }
        set_cookie_value(&self.holding(String::new(), None, Scheme::Http)).map(|_| ()).map_err(
            |error| Error::new(ErrorKind::Config, format!("session {error}")).with_source(error),
        )
    }

    /// Whether it is sent over https only, whoever gets it.
    pub(crate) fn is_secure(&self) -> bool {
        self.secure == Some(true)
    }

    /// Whether scripts see it, or plain http, although its visitor came over https.
    pub(crate) fn is_open_over_https(&self) -> bool {
        !self.http_only || self.secure == Some(false)
    }

    /// The cookie for a visitor who came over this scheme.
    pub(crate) fn holding(
        &self,
        value: String,
        lifetime: Option<Duration>,
        scheme: Scheme,
    ) -> Cookie<'static> {
        let mut cookie = Cookie::build((self.name.clone(), value))
            .path(match &self.path[..] {
                "/" => Cow::Borrowed("/"),
                path => Cow::Owned(path.to_owned()),
            })
            .secure(self.secure.unwrap_or(scheme == Scheme::Https))
            .http_only(self.http_only)
            .same_site(self.same_site)
            .build();
        if self.partitioned {
            cookie.set_partitioned(true);
        }
        if let Some(domain) = &self.domain {
            cookie.set_domain(domain.clone());
        }
        if let Some(lifetime) = lifetime {
            // Rounded up: the browser must not let go of it before the store does.
            let seconds = lifetime.min(MAX_LIFETIME).as_nanos().div_ceil(1_000_000_000).max(1);
            cookie.set_max_age(cookie::time::Duration::seconds(seconds as i64));
        }
        cookie
    }

    /// The cookie that makes a browser forget the one it has: same name, path and domain.
    pub(crate) fn removal(&self, scheme: Scheme) -> Cookie<'static> {
        let mut cookie = self.holding(String::new(), None, scheme);
        cookie.make_removal();
        cookie
    }
}

/// Letters, digits, hyphens and underscores between dots; a dot before them means nothing (RFC 6265 section 5.2.3).
fn is_host_name(domain: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    domain.strip_prefix('.').unwrap_or(domain).split('.').all(is_label)
}

fn starts_with(name: &str, lower_case_prefix: &str) -> bool {
    // Browsers compare the prefixes without regard to case.
    name.get(..lower_case_prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(lower_case_prefix))
}

impl fmt::Display for CookieSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (Path={}", self.name, self.path)?;
        if let Some(domain) = &self.domain {
            write!(f, "; Domain={domain}")?;
        }
        write!(f, "; SameSite={}", self.same_site)?;
        for (is_set, name) in [
            (self.is_secure(), "Secure"),
            (self.http_only, "HttpOnly"),
            (self.partitioned, "Partitioned"),
            (self.secure.is_none(), "Secure over https"),
        ] {
            if is_set {
                write!(f, "; {name}")?;
            }
        }
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_browser_would_keep_is_refused() {
        let change = |change: &dyn Fn(&mut CookieSettings)| {
            let mut settings = CookieSettings::default();
            change(&mut settings);
            settings.check().is_ok()
        };
        assert!(change(&|_| {}));
        for domain in ["example.org", ".example.org", "a-1.example_2.org", "localhost"] {
            assert!(change(&|s| s.domain = Some(domain.to_owned())), "{domain}");
        }
        for domain in
            ["", ".", "example.org.", "..org", "https://example.org", "example.org:443", "a,b", "é"]
        {
            assert!(!change(&|s| s.domain = Some(domain.to_owned())), "{domain}");
        }
        for (name, secure, http_only, kept) in [
            ("__Http-id", true, true, true),
            ("__Http-id", true, false, false),
            ("__http-id", false, true, false),
            ("__Host-Http-id", true, true, true),
            ("__Host-Http-id", true, false, false),
            ("__Host-id", true, false, true),
        ] {
            let (name, secure) = (name.to_owned(), Some(secure));
            let settings = CookieSettings { name, secure, http_only, ..Default::default() };
            assert_eq!(settings.check().is_ok(), kept, "{settings}");
        }
        let refused: [&dyn Fn(&mut CookieSettings); 12] = [
            &|s| s.name = String::new(),
            &|s| s.name = "a b".to_owned(),
            &|s| s.name = "a;b".to_owned(),
            &|s| s.name = "a%20".to_owned(),
            &|s| s.path = "shop".to_owned(),
            &|s| s.path = "/;Secure".to_owned(),
            &|s| s.domain = Some("x\r\n".to_owned()),
            &|s| s.name = "__Host-id".to_owned(),
            &|s| s.name = "__secure-id".to_owned(),
            &|s| s.same_site = SameSite::None,
            &|s| s.partitioned = true,
            &|s| {
                s.name = "__Host-id".to_owned();
                s.secure = Some(true);
                s.domain = Some("example.org".to_owned());
            },
        ];
        for (number, refused) in refused.iter().enumerate() {
            assert!(!change(refused), "row {number}");
        }
    }

    #[test]
    fn a_removal_names_the_same_cookie() {
        let settings = CookieSettings {
            path: "/shop".to_owned(),
            domain: Some("example.org".to_owned()),
            ..CookieSettings::default()
        };
        let text = settings.removal(Scheme::Http).to_string();
        for part in ["bottle.session=", "Path=/shop", "Domain=example.org", "Max-Age=0"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
