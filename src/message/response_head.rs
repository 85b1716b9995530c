//! Headers and cookies that are set whatever the answer will be.

use std::fmt;

use cookie::Cookie;
use http::HeaderMap;
use http::header::{self, HeaderName, HeaderValue};

use crate::message::cookies::set_cookie_value;
use crate::message::response::Response;
use crate::{Error, ErrorKind, Result};

/// Headers and cookies set while a request is handled, whatever its answer will be: a handler's
/// `&mut ResponseHead` argument.
///
/// They are put onto the answer that is chosen in the end, so they survive `abort`, redirects, error
/// pages and failed handlers.
///
/// `Debug` shows the names of the cookies and no values: some are secrets.
///
/// ```
/// use bottle_session::{App, Cookie, HttpError, ResponseHead, TestClient, abort};
///
/// let mut app = App::new();
/// app.get("/", |head: &mut ResponseHead| -> Result<(), HttpError> {
///     head.set_header("x-hint", "later")?;
///     head.set_cookie(Cookie::new("theme", "dark"))?;
///     Err(abort(409, "Not now."))
/// });
/// let answer = TestClient::new(app)?.get("/").send();
/// // Both are there, whatever the answer is.
/// assert_eq!((answer.status(), answer.header("x-hint")), (409, Some("later")));
/// assert!(answer.set_cookies()[0].starts_with("theme=dark"));
/// # Ok::<(), bottle_session::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct ResponseHead {
    headers: HeaderMap,
    cookies: Vec<Cookie<'static>>,
}

impl ResponseHead {
    /// Sets a header in place of whatever the answer has under its name.
    pub fn set_header<N, V>(&mut self, name: N, value: V) -> Result<()>
    where
        N: TryInto<HeaderName, Error: Into<http::Error>>,
        V: TryInto<HeaderValue, Error: Into<http::Error>>,
    {
        let (name, value) = header_pair(name, value)?;
        self.headers.insert(name, value);
        Ok(())
    }

    /// Sets a cookie. A later one of the same name, path and domain takes its place.
    pub fn set_cookie(&mut self, cookie: impl Into<Cookie<'static>>) -> Result<()> {
        let cookie = cookie.into();
        set_cookie_value(&cookie)?;
        let same = |other: &Cookie<'_>| {
            (other.name(), other.path(), other.domain())
                == (cookie.name(), cookie.path(), cookie.domain())
        };
        self.cookies.retain(|other| !same(other));
        self.cookies.push(cookie);
        Ok(())
    }

    /// Makes the browser forget a cookie. Path and domain must be those it was set with.
    pub fn remove_cookie(&mut self, cookie: impl Into<Cookie<'static>>) -> Result<()> {
        let mut cookie = cookie.into();
        cookie.make_removal();
        self.set_cookie(cookie)
    }

    /// The headers set so far, cookies apart.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The headers, to change.
    pub fn headers_mut(&mut self) -> &mut HeaderMap {
        &mut self.headers
    }

    /// Says, once, that the answer is another one for other cookies.
    pub(crate) fn vary_by_cookie(&mut self) {
        let headers = self.headers_mut();
        if !headers.get_all(header::VARY).iter().any(|value| value == "Cookie") {
            headers.append(header::VARY, HeaderValue::from_static("Cookie"));
        }
    }

    /// The cookies set so far.
    pub fn cookies(&self) -> &[Cookie<'static>] {
        &self.cookies
    }

    pub(crate) fn merge(&mut self, other: ResponseHead) {
        self.headers.extend(other.headers);
        for cookie in other.cookies {
            // Each was checked when it was set.
            let _ = self.set_cookie(cookie);
        }
    }

    pub(crate) fn attach(self, response: &mut Response) {
        let vary = self.headers.get_all(header::VARY).iter().cloned().collect::<Vec<_>>();
        let mut headers = self.headers;
        headers.remove(header::VARY);
        response.headers.extend(headers);
        // Vary gathers: replacing it would let a cache forget what the handler said.
        for value in vary {
            response.headers.append(header::VARY, value);
        }
        for cookie in &self.cookies {
            if let Ok(value) = set_cookie_value(cookie) {
                response.headers.append(header::SET_COOKIE, value);
            }
        }
    }
}

impl fmt::Debug for ResponseHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cookies: Vec<_> = self.cookies.iter().map(Cookie::name).collect();
        f.debug_struct("ResponseHead")
            .field("headers", &self.headers)
            .field("cookies", &cookies)
            .finish()
    }
}

pub(crate) fn header_pair<N, V>(name: N, value: V) -> Result<(HeaderName, HeaderValue)>
where
    N: TryInto<HeaderName, Error: Into<http::Error>>,
    V: TryInto<HeaderValue, Error: Into<http::Error>>,
{
    let refused = |what: &str, error: http::Error| {
        Error::new(ErrorKind::Input, format!("not a header {what}")).with_source(error)
    };
    let name = name.try_into().map_err(|error| refused("name", error.into()))?;
    let value =
        value.try_into().map_err(|error| refused(&format!("value for {name}"), error.into()))?;
    Ok((name, value))
}
