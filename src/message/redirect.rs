//! Redirections.

use std::borrow::Cow;

use http::StatusCode;
use http::header::{self, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::Serialize;

use crate::Error;
use crate::message::http_error::HttpError;
use crate::message::into_response::{Html, IntoResponse, Json};
use crate::message::request::Request;
use crate::message::response::Response;
use crate::message::status::IntoStatus;

/// Sends the client to another address with a 303 (RFC 9110 section 15.4.4: the next request is a GET):
/// as a reply, `redirect("/login")`, or early, `return Err(redirect("/login").into())`.
///
/// The address goes out as it is, of this site or of another. What cannot stand in one, such as a space, a
/// line end, a backslash or `é`, is percent-encoded; what is encoded already stays so. An address that a visitor named
/// (`/login?next=…`) may lead anywhere: [`redirect_back`] stays on the site.
///
/// Another status is one word: [`redirect("/new").permanent()`](Redirect::permanent) is a 308.
pub fn redirect(location: impl Into<String>) -> Redirect {
    let location = utf8_percent_encode(&location.into(), NOT_IN_ADDRESS).to_string();
    let answer = Response::new(StatusCode::SEE_OTHER).with_header(header::LOCATION, location);
    Redirect(Box::new(answer))
}

/// Sends the client back where it came from: to the `next` of the query, or of the form, where that is an address of
/// this site; else to this default. It answers a login: [`LoginPlugin`](crate::LoginPlugin) sends people to the login page
/// with `?next=`.
///
/// Followed is a path with or without a query, and nothing else (OWASP Unvalidated Redirects and Forwards Cheat Sheet): no
/// scheme, no host, no `//` or backslash in its path, no control character.
///
/// ```
/// use bottle_session::{App, Request, TestClient, redirect_back};
///
/// let mut app = App::new();
/// app.post("/login", |request: &Request| redirect_back(request, "/"));
/// let client = TestClient::new(app)?;
/// let sent_to = |address: &str| client.post(address).send().header("location").map(str::to_owned);
/// assert_eq!(sent_to("/login?next=%2Fnotes%3Fpage%3D2").as_deref(), Some("/notes?page=2"));
/// assert_eq!(sent_to("/login?next=%2F%2Fevil.example").as_deref(), Some("/"));
/// # Ok::<(), bottle_session::Error>(())
/// ```
pub fn redirect_back(request: &Request, default: impl Into<String>) -> Redirect {
    let of_query = request.query("next").ok().flatten();
    let of_form = || request.form().ok()?.get("next").ok()?.map(str::to_owned);
    let next = of_query.map(Cow::into_owned).or_else(of_form);
    redirect(next.filter(|next| stays_here(next)).unwrap_or_else(|| default.into()))
}

/// Whether this is an address of the same site, to every browser. They take a backslash for a slash, drop tabs and line
/// ends wherever they stand, and take what two slashes begin for the name of a host.
fn stays_here(address: &str) -> bool {
    let path = address.split(['?', '#']).next().unwrap_or_default();
    let is_plain = |character: char| !character.is_control() && !character.is_whitespace();
    path.starts_with('/')
        && !path.contains("//")
        && !path.contains('\\')
        && address.chars().all(is_plain)
        // `/..//evil.example` and its like are of this site, but not for all who read addresses.
        && !path.split('/').any(|segment| matches!(segment, "." | ".."))
}

/// What no address holds as it is (RFC 3986 section 2). Browsers drop tabs and take a backslash for a slash:
/// unencoded, `/\evil.example` were another host.
const NOT_IN_ADDRESS: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'<')
    .add(b'>')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// A redirection; see [`redirect`].
///
/// A handler has replies of one type. One that returns early with `redirect` and replies with a page at its end turns the
/// page into this type, or both into a [`Response`]:
///
/// ```
/// use bottle_session::{App, Html, Session, SessionPlugin, redirect};
///
/// let mut app = App::new();
/// app.install(SessionPlugin::new().in_memory())?;
/// app.get("/", |session: &mut Session| {
///     if session.get("name").is_none() {
///         return redirect("/login");
///     }
///     Html("<b>Hello</b>").into()
/// });
/// # app.build()?;
/// # Ok::<(), bottle_session::Error>(())
/// ```
#[derive(Debug)]
pub struct Redirect(Box<Response>);

impl Redirect {
    /// The same redirection for good: a 308, which keeps method and body (RFC 9110 section 15.4.9). Browsers remember
    /// it.
    #[must_use]
    pub fn permanent(self) -> Redirect {
        self.with_status(StatusCode::PERMANENT_REDIRECT)
    }

    /// The same redirection for now: a 307, which keeps method and body (RFC 9110 section 15.4.8).
    #[must_use]
    pub fn temporary(self) -> Redirect {
        self.with_status(StatusCode::TEMPORARY_REDIRECT)
    }

    /// The same redirection with another status, a number or a [`StatusCode`]: 301, 302, 307, 308.
    #[must_use]
    pub fn with_status(self, status: impl IntoStatus) -> Redirect {
        Redirect(Box::new(self.0.with_status(status)))
    }

    /// The same redirection with this header in place of any of its name, text or typed. What cannot be a header makes
    /// it a logged 500.
    #[must_use]
    pub fn with_header<N, V>(self, name: N, value: V) -> Redirect
    where
        N: TryInto<HeaderName, Error: Into<http::Error>>,
        V: TryInto<HeaderValue, Error: Into<http::Error>>,
    {
        Redirect(Box::new(self.0.with_header(name, value)))
    }
}

impl IntoResponse for Redirect {
    fn into_response(self) -> Response {
        *self.0
    }
}

impl From<Redirect> for HttpError {
    fn from(redirect: Redirect) -> HttpError {
        HttpError::from(redirect.into_response())
    }
}

impl From<Redirect> for Error {
    fn from(redirect: Redirect) -> Error {
        HttpError::from(redirect).into()
    }
}

macro_rules! replies_into {
    ($([$($parameters:tt)*] $reply:ty;)*) => {$(
        impl<$($parameters)*> From<$reply> for Response {
            fn from(reply: $reply) -> Response {
                reply.into_response()
            }
        }

        impl<$($parameters)*> From<$reply> for Redirect {
            fn from(reply: $reply) -> Redirect {
                Redirect(Box::new(reply.into_response()))
            }
        }
    )*};
}

// A handler has replies of one type. Where it returns one of these beside a `Response` or a `Redirect`, the compiler
// says: call `.into()`.
replies_into! {
    [] HttpError;
    [T: Into<String>] Html<T>;
    [T: Serialize] Json<T>;
    [] &'static str;
    [] String;
}

impl From<Redirect> for Response {
    fn from(redirect: Redirect) -> Response {
        *redirect.0
    }
}

impl From<Response> for Redirect {
    fn from(response: Response) -> Redirect {
        Redirect(Box::new(response))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_address_holds_is_encoded_in_a_redirection() {
        for (given, sent) in [
            ("/a b?c=d#e", "/a%20b?c=d#e"),
            ("/\r\nSet-Cookie: x\0", "/%0D%0ASet-Cookie:%20x%00"),
            ("/\\evil.example", "/%5Cevil.example"),
            ("/é%C3%A9", "/%C3%A9%C3%A9"),
        ] {
            let response = redirect(given).into_response();
            assert_eq!(response.headers()[header::LOCATION], sent, "{given:?}");
        }
    }

    #[test]
    fn only_addresses_of_this_site_are_followed() {
        for address in
            ["/", "/a", "/a/b?c=d&e=//f#g", "/%2F%2Fa", "/a:b@c", "/číslo", "/?next=http://a"]
        {
            assert!(stays_here(address), "{address}");
        }
        // Known ways to another site, or to a script.
        for address in [
            "",
            "a",
            "evil.example",
            "//evil.example",
            "///evil.example",
            "////evil.example",
            "/\\evil.example",
            "/\\/evil.example",
            "\\\\evil.example",
            "\\/evil.example",
            "/\t/evil.example",
            "/\n/evil.example",
            "/\r\n/evil.example",
            "\t//evil.example",
            " //evil.example",
            "/ /evil.example",
            "/\0/evil.example",
            "/\u{a0}/evil.example",
            "/\u{2028}/evil.example",
            "/.//evil.example",
            "/..//evil.example",
            "/../evil.example",
            "/a//evil.example",
            "http://evil.example",
            "https:evil.example",
            "https:/evil.example",
            "HTTPS://evil.example",
            "http:///evil.example",
            "javascript:alert(1)",
            "java\nscript:alert(1)",
            "data:text/html,x",
            "mailto:a@evil.example",
            "?//evil.example",
            "#//evil.example",
            "@evil.example",
            ".evil.example",
            "http:%2F%2Fevil.example",
            "\u{ff0f}\u{ff0f}evil.example",
            "//evil%00.example",
            "//user@evil.example",
            "//[::1]/",
        ] {
            assert!(!stays_here(address), "{address:?}");
        }
    }

    #[test]
    fn an_address_is_encoded_where_it_is_none() {
        for (address, sent) in [
            ("/a%20b?c=d&e#f", "/a%20b?c=d&e#f"),
            ("https://[::1]:8080/~x;y=(1)!*'@$,+", "https://[::1]:8080/~x;y=(1)!*'@$,+"),
            ("/é b", "/%C3%A9%20b"),
            ("/\\evil.example", "/%5Cevil.example"),
            ("/\t/evil.example", "/%09/evil.example"),
            (" //evil.example", "%20//evil.example"),
        ] {
            let response = redirect(address).into_response();
            assert_eq!(response.headers()[header::LOCATION], sent, "{address}");
        }
    }
}
