//! Headers and cookies that are set whatever the answer will be.

use std::fmt;

use cookie::Cookie;
use http::HeaderMap;
use http::header::{self, HeaderName, HeaderValue};
use smallvec::SmallVec;

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
    /// Each of the cookies as a header.
    set_cookies: SmallVec<[HeaderValue; 1]>,
    /// The answer is another one for other cookies.
    varies_by_cookie: bool,
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
        let value = set_cookie_value(&cookie)?;
        self.put_cookie(cookie, value);
        Ok(())
    }

    fn put_cookie(&mut self, cookie: Cookie<'static>, value: HeaderValue) {
        let same = |other: &Cookie<'_>| {
            (other.name(), other.path(), other.domain())
                == (cookie.name(), cookie.path(), cookie.domain())
        };
        if let Some(at) = self.cookies.iter().position(same) {
            self.cookies.remove(at);
            self.set_cookies.remove(at);
        }
        // There is seldom a second one.
        self.cookies.reserve_exact(1);
        self.cookies.push(cookie);
        self.set_cookies.push(value);
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

    /// Has the answer say that it is another one for other cookies.
    pub(crate) fn vary_by_cookie(&mut self) {
        self.varies_by_cookie = true;
    }

    /// The cookies set so far.
    pub fn cookies(&self) -> &[Cookie<'static>] {
        &self.cookies
    }

    pub(crate) fn merge(&mut self, other: ResponseHead) {
        self.headers.extend(other.headers);
        self.varies_by_cookie |= other.varies_by_cookie;
        for (cookie, value) in other.cookies.into_iter().zip(other.set_cookies) {
            self.put_cookie(cookie, value);
        }
    }

    pub(crate) fn attach(self, response: &mut Response) {
        let (mut headers, mut varies_by_cookie) = (self.headers, self.varies_by_cookie);
        if !headers.is_empty() {
            // Vary gathers: replacing it would let a cache forget what the handler said.
            let vary: Vec<_> = headers.get_all(header::VARY).iter().cloned().collect();
            headers.remove(header::VARY);
            response.headers.extend(headers);
            for value in vary {
                varies_by_cookie &= value != "Cookie";
                response.headers.append(header::VARY, value);
            }
        }
        if varies_by_cookie {
            response.headers.append(header::VARY, HeaderValue::from_static("Cookie"));
        }
        for value in self.set_cookies {
            response.headers.append(header::SET_COOKIE, value);
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
