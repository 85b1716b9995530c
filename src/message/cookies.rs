//! Cookies: the ones a request carries and the ones an answer sets.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::time::Duration;

use http::HeaderMap;
use http::header::{self, HeaderValue};
use percent_encoding::percent_decode_str;
use smallvec::SmallVec;

use crate::{Error, ErrorKind, Result};

use cookie::CookieBuilder;
pub use cookie::{Cookie, SameSite};

/// How long a browser keeps a cookie, as a [`Duration`] of the standard library: `max_age` of the `cookie` crate has one
/// of its own.
///
/// ```
/// use std::time::Duration;
/// use bottle_session::{Cookie, CookieLifetime, ResponseHead, Result};
///
/// fn remember_theme(head: &mut ResponseHead) -> Result<()> {
///     let year = Duration::from_secs(365 * 24 * 60 * 60);
///     head.set_cookie(Cookie::build(("theme", "dark")).path("/").lifetime(year))
/// }
/// ```
pub trait CookieLifetime {
    /// The same cookie with this `Max-Age`, in whole seconds (RFC 6265 section 5.2.2).
    #[must_use]
    fn lifetime(self, lifetime: Duration) -> Self;
}

impl CookieLifetime for Cookie<'_> {
    fn lifetime(mut self, lifetime: Duration) -> Self {
        self.set_max_age(in_seconds(lifetime));
        self
    }
}

impl CookieLifetime for CookieBuilder<'_> {
    fn lifetime(self, lifetime: Duration) -> Self {
        self.max_age(in_seconds(lifetime))
    }
}

fn in_seconds(lifetime: Duration) -> cookie::time::Duration {
    cookie::time::Duration::seconds(i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX))
}

/// The cookies of one request, read from its `Cookie` headers.
///
/// A pair that is not well-formed is passed over and hides no other. Names are compared byte for byte, as
/// RFC 6265 section 5.4 has them: a percent-encoded name is another name, so `__Host-` cannot be forged.
///
/// `Debug` shows the names and no values: some are secrets.
///
/// ```
/// use bottle_session::{App, Request, RequestCookies, TestClient};
///
/// let mut app = App::new();
/// app.get("/", |request: &Request| {
///     let cookies: &RequestCookies = request.cookies();
///     format!("{:?}, all of them: {:?}", cookies.get("theme"), cookies.iter().collect::<Vec<_>>())
/// });
/// let answer = TestClient::new(app)?.get("/").header("cookie", "theme=dark%20red; a=1").send();
/// assert_eq!(answer.text(), r#"Some("dark red"), all of them: [("theme", "dark%20red"), ("a", "1")]"#);
/// # Ok::<(), bottle_session::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct RequestCookies {
    /// Names and values, one behind the other.
    text: String,
    pairs: SmallVec<[Pair; 2]>,
}

/// Where one cookie is in the text.
#[derive(Clone, Copy)]
struct Pair {
    name: usize,
    value: usize,
    end: usize,
}

impl RequestCookies {
    pub(crate) fn parse(headers: &HeaderMap) -> RequestCookies {
        let mut cookies = RequestCookies::default();
        for line in headers.get_all(header::COOKIE) {
            cookies.text.reserve(line.len());
            for pair in line.as_bytes().split(|byte| *byte == b';') {
                let Ok(pair) = std::str::from_utf8(pair) else { continue };
                let Some((name, value)) = pair.split_once('=') else { continue };
                // No other space is taken off (RFC 6265 section 5.4): a browser lets any site nearby set a
                // name that starts with U+2000, and that must not become `__Host-`.
                let [name, value] = [name, value].map(|text| text.trim_matches([' ', '\t']));
                if !name.is_empty() {
                    cookies.push(name, unquoted(value));
                }
            }
        }
        cookies
    }

    fn push(&mut self, name: &str, value: &str) {
        let start = self.text.len();
        self.text.push_str(name);
        self.text.push_str(value);
        let pair = Pair { name: start, value: start + name.len(), end: self.text.len() };
        self.pairs.push(pair);
    }

    /// The value of the first cookie of this name, percent-decoded where it is percent-encoded text.
    pub fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        self.iter().find(|pair| pair.0 == name).map(|pair| decoded(pair.1))
    }

    /// The values of all cookies of this name, as they were sent. A browser sends several where they were
    /// set for different paths or domains, the most specific path first.
    pub fn raw<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.iter().filter(move |pair| pair.0 == name).map(|pair| pair.1)
    }

    /// All cookies in the order sent, as they were sent.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let text =
            |pair: &Pair| (&self.text[pair.name..pair.value], &self.text[pair.value..pair.end]);
        self.pairs.iter().map(text)
    }
}

impl fmt::Debug for RequestCookies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(|(name, _)| name)).finish()
    }
}

fn unquoted(value: &str) -> &str {
    value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)
}

pub(crate) fn decoded(value: &str) -> Cow<'_, str> {
    percent_decode_str(value).decode_utf8().unwrap_or(Cow::Borrowed(value))
}

/// How long the name and value of a cookie may be together: browsers drop longer ones without a word (RFC 6265bis
/// section 5.6).
const MAX_BYTES: usize = 4096;

/// The `Set-Cookie` value of a cookie; the value is percent-encoded where RFC 6265 section 4.1.1 does not
/// allow it as it is.
pub(crate) fn set_cookie_value(cookie: &Cookie<'_>) -> Result<HeaderValue> {
    if !is_token(cookie.name()) {
        // Encoded it would come back as a cookie of another name.
        let text = format!(
            "{:?} is no name for a cookie, which is made of letters, digits and !#$&'*+-.^_`|~",
            cookie.name()
        );
        return Err(Error::new(ErrorKind::Input, text));
    }
    for (attribute, value) in [("Path", cookie.path()), ("Domain", cookie.domain())] {
        let forbidden = |character: char| character.is_control() || character == ';';
        if let Some(character) = value.and_then(|value| value.chars().find(|c| forbidden(*c))) {
            let name = cookie.name();
            return Err(Error::new(
                ErrorKind::Input,
                format!(
                    "the {attribute} of cookie {name:?} holds {character:?}, which no attribute may"
                ),
            ));
        }
    }
    let mut text = String::with_capacity(192);
    write!(text, "{}", cookie.encoded()).map_err(|error| not_written(cookie, error))?;
    // Of a name that can come back nothing needs to be encoded; the `cookie` crate does, a `#` for one.
    let name = text.find('=').unwrap_or(text.len());
    if text[..name] != *cookie.name() {
        text.replace_range(..name, cookie.name());
    }
    let length = text.find(';').unwrap_or(text.len()) - 1;
    if length > MAX_BYTES {
        let text = format!(
            "cookie {:?} is {length} bytes long, and browsers drop what has more than {MAX_BYTES} in name and \
             value; a session holds more",
            cookie.name()
        );
        return Err(Error::new(ErrorKind::Input, text));
    }
    let mut value = HeaderValue::try_from(text).map_err(|error| not_written(cookie, error))?;
    // So that no `Debug` of an answer shows it.
    value.set_sensitive(true);
    Ok(value)
}

fn not_written(cookie: &Cookie<'_>, why: impl std::error::Error + Send + Sync + 'static) -> Error {
    let text = format!("cookie {:?} cannot be written as a header", cookie.name());
    Error::new(ErrorKind::Input, text).with_source(why)
}

/// The `Set-Cookie` value with its path below this one, where that is not so already. `None` where there is nothing to
/// change: browsers keep a `__Host-` cookie only with `/`, and find a path themselves where none is said.
pub(crate) fn set_cookie_below(prefix: &str, value: &HeaderValue) -> Option<HeaderValue> {
    let text = std::str::from_utf8(value.as_bytes()).ok()?;
    if text.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("__host-")) {
        return None;
    }
    let is_path = |attribute: &&str| {
        attribute.split_once('=').is_some_and(|(name, _)| name.trim().eq_ignore_ascii_case("path"))
    };
    // The last one counts (RFC 6265 section 5.3).
    let attribute = text.split(';').skip(1).filter(is_path).last()?;
    let path = attribute.split_once('=')?.1.trim();
    let below =
        path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if below || !path.starts_with('/') {
        return None;
    }
    let at = attribute.as_ptr().addr() - text.as_ptr().addr();
    let behind = &text[at + attribute.len()..];
    let placed = format!("{} Path={prefix}{}{behind}", &text[..at], path.trim_end_matches('/'));
    let mut placed = HeaderValue::from_str(&placed).ok()?;
    placed.set_sensitive(value.is_sensitive());
    Some(placed)
}

/// RFC 9110 section 5.6.2, but for the percent sign, which other readers decode.
fn is_token(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cookies(lines: &[&'static str]) -> RequestCookies {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::COOKIE, HeaderValue::from_static(line));
        }
        RequestCookies::parse(&headers)
    }

    #[test]
    fn a_malformed_cookie_hides_no_other() {
        for line in ["; ; =x; nonsense; a=1", "a=1;", " a = 1 ;b", "b=\"x;a=1", "a=1; a=2"] {
            assert_eq!(cookies(&[line]).get("a").as_deref(), Some("1"), "{line:?}");
        }
    }

    #[test]
    fn an_encoded_name_is_another_name() {
        let cookies = cookies(&["%5F_Host-id=evil; __Host-id=good"]);
        assert_eq!(cookies.raw("__Host-id").collect::<Vec<_>>(), ["good"]);
    }

    #[test]
    fn a_space_that_is_none_of_http_belongs_to_the_name() {
        for space in ["\u{a0}", "\u{2000}", "\u{3000}", "\u{85}"] {
            let mut headers = HeaderMap::new();
            let line = format!("{space}__Host-id=evil; __Host-id{space}=evil; \t__Host-id =good");
            headers.append(header::COOKIE, HeaderValue::from_bytes(line.as_bytes()).unwrap());
            let cookies = RequestCookies::parse(&headers);
            assert_eq!(cookies.raw("__Host-id").collect::<Vec<_>>(), ["good"], "{space:?}");
        }
    }

    #[test]
    fn a_cookie_comes_back_under_its_name_or_is_refused() {
        for name in
            ["", " ", "a b", "a=b", "a;b", "é", "a%41", "a%", "a\"", "a,b", "a(b)", "a\r\nb"]
        {
            let error = set_cookie_value(&Cookie::new(name, "1")).unwrap_err().to_string();
            assert!(error.contains("is no name for a cookie"), "{name:?}: {error}");
        }
        for name in ["__Host-id", "bottle.session", "a!#$&'*+-.^_`|~9"] {
            let mut headers = HeaderMap::new();
            headers.append(header::COOKIE, set_cookie_value(&Cookie::new(name, "1")).unwrap());
            assert_eq!(RequestCookies::parse(&headers).get(name).as_deref(), Some("1"), "{name}");
        }
    }

    #[test]
    fn a_lifetime_is_in_whole_seconds() {
        let day = Duration::from_millis(86_400_999);
        for cookie in
            [Cookie::new("a", "1").lifetime(day), Cookie::build(("a", "1")).lifetime(day).build()]
        {
            assert_eq!(cookie.to_string(), "a=1; Max-Age=86400");
        }
        assert!(Cookie::new("a", "1").lifetime(Duration::MAX).max_age().is_some());
    }

    #[test]
    fn any_value_comes_back() {
        for value in ["", "a b", "\"q\"", "\"", "%41", "%", "é;,=\r\n\0\t", "\\", "a=b; c=d", "+"]
        {
            let mut headers = HeaderMap::new();
            headers.append(header::COOKIE, set_cookie_value(&Cookie::new("a", value)).unwrap());
            let cookies = RequestCookies::parse(&headers);
            assert_eq!(cookies.get("a").as_deref(), Some(value), "{value:?}");
            assert_eq!(cookies.iter().count(), 1, "{value:?}");
        }
    }

    #[test]
    fn a_cookie_that_browsers_would_drop_is_refused() {
        let set = |value: String| set_cookie_value(&Cookie::new("name", value));
        assert!(set("x".repeat(4092)).is_ok());
        let error = set("x".repeat(4093)).unwrap_err().to_string();
        let expected = "cookie \"name\" is 4097 bytes long, and browsers drop what has more than 4096 in name and \
                        value; a session holds more";
        assert_eq!(error, expected);
        // As they are sent: each of these takes three bytes.
        assert!(set(" ".repeat(1364)).is_ok());
        assert!(set(" ".repeat(1365)).is_err());
    }

    #[test]
    fn values_are_unquoted_and_decoded() {
        let cookies = cookies(&["a=\"x y\"; b=%C3%A9; c=%FF", "d=1"]);
        for (name, value) in [("a", "x y"), ("b", "é"), ("c", "%FF"), ("d", "1")] {
            assert_eq!(cookies.get(name).as_deref(), Some(value));
        }
    }

    #[test]
    fn the_path_of_a_cookie_is_put_below_that_of_the_app() {
        for (cookie, expected) in [
            ("a=1; Path=/", Some("a=1; Path=/shop")),
            ("a=1; path=/cart/; Secure", Some("a=1; Path=/shop/cart; Secure")),
            ("a=1;Path=/x;Path = /y", Some("a=1;Path=/x; Path=/shop/y")),
            ("a=/x; Path=/shopping", Some("a=/x; Path=/shop/shopping")),
            ("a=1; Path=/shop", None),
            ("a=1; Path=/shop/cart", None),
            ("a=1; HttpOnly", None),
            ("path=/; Secure", None),
            ("a=1; Path=", None),
            ("__Host-a=1; Path=/; Secure", None),
            ("__HOST-a=1; Path=/; Secure", None),
            ("__Secure-a=1; Path=/; Secure", Some("__Secure-a=1; Path=/shop; Secure")),
        ] {
            let placed = set_cookie_below("/shop", &HeaderValue::from_static(cookie));
            assert_eq!(placed.as_ref().map(|value| value.to_str().unwrap()), expected, "{cookie}");
        }
    }

    #[test]
    fn what_is_too_long_for_browsers_is_name_and_value() {
        for (length, fits) in [(4095, true), (4096, false)] {
            let cookie = Cookie::build(("a", "x".repeat(length))).path("/shop").secure(true);
            assert_eq!(set_cookie_value(&cookie.build()).is_ok(), fits, "{length}");
        }
    }

    #[test]
    fn nothing_gets_out_of_its_place_in_set_cookie() {
        let value = set_cookie_value(&Cookie::new("a", "1; Path=/x\r\n")).unwrap();
        let value = value.to_str().unwrap();
        assert_eq!(value, "a=1%3B%20Path%3D%2Fx%0D%0A");
        for path in ["/;Domain=x", "/\r\nX: y", "/\0"] {
            let cookie = Cookie::build(("a", "1")).path(path).build();
            assert!(set_cookie_value(&cookie).is_err(), "{path:?}");
        }
    }
}
