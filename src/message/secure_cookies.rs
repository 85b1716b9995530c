//! Signed and encrypted cookies of the app's own (feature `secure-cookies`).
//!
//! A signed cookie (HMAC-SHA256) can be read by its owner and not changed; an encrypted one (AES-256-GCM)
//! can be neither. Neither can be taken back: whoever keeps an old one can send it again. What must end,
//! or must not be repeated, belongs into the [`Session`](crate::Session). The answer to a request whose were looked at says
//! `Vary: Cookie`.
//!
//! ```
//! use bottle_session::{App, Cookie, Request, ResponseHead, Result, TestClient, cookie_key};
//!
//! // In earnest: a random secret from the app's settings, the same in every process and after every restart.
//! let key = cookie_key("MkM7qv4nTzUeYtD2uF0m3oY8a6xJpWcB")?;
//!
//! let mut app = App::new();
//! let signing = key.clone();
//! app.get("/theme/<name>", move |head: &mut ResponseHead, name: &str| -> Result<&'static str> {
//!     head.set_signed_cookie(&signing, Cookie::build(("theme", name.to_owned())).path("/"))?;
//!     Ok("set")
//! });
//! app.get("/", move |request: &Request| {
//!     request.signed_cookie(&key, "theme").unwrap_or_else(|| "plain".to_owned())
//! });
//!
//! let client = TestClient::new(app)?;
//! client.get("/theme/dark").send();
//! assert_eq!(client.get("/").send().text(), "dark");
//! client.set_cookie("theme", "forged");
//! assert_eq!(client.get("/").send().text(), "plain");
//! # Ok::<(), bottle_session::Error>(())
//! ```

use std::sync::atomic::Ordering;

use cookie::{Cookie, CookieJar, Key};

use crate::message::cookies::decoded;
use crate::message::request::Request;
use crate::message::response_head::ResponseHead;
use crate::{Error, ErrorKind, Result};

/// The length of the signature that the `cookie` crate puts in front of a signed value: SHA-256 in base64.
const SIGNATURE: usize = 44;

/// The shortest secret, in bytes: as long as the keys.
const MIN_SECRET_BYTES: usize = 32;

/// A key for signed and encrypted cookies, of any secret of 32 bytes or more: text or bytes, from the app's settings. A
/// shorter one is an error. The secret must be random (`openssl rand -base64 32`), and the same in all processes.
///
/// The two keys are the 64 bytes that HKDF-Expand (RFC 5869 section 2.3) with SHA-256 makes of the secret, with the info
/// `COOKIE;SIGNED:HMAC-SHA256;PRIVATE:AEAD-AES-256-GCM`: the first 32 sign (HMAC-SHA256), the others encrypt
/// (AES-256-GCM).
///
/// ```
/// use bottle_session::cookie_key;
///
/// assert!(cookie_key("MkM7qv4nTzUeYtD2uF0m3oY8a6xJpWcB").is_ok());
/// let error = cookie_key("secret").unwrap_err().to_string();
/// assert_eq!(error, "a secret of 6 bytes is too short for a key: it takes 32 random bytes or more");
/// ```
pub fn cookie_key(secret: impl AsRef<[u8]>) -> Result<Key> {
    match secret.as_ref() {
        secret if secret.len() >= MIN_SECRET_BYTES => Ok(Key::derive_from(secret)),
        secret => {
            let text = format!(
                "a secret of {} bytes is too short for a key: it takes {MIN_SECRET_BYTES} random bytes or more",
                secret.len()
            );
            Err(Error::new(ErrorKind::Config, text))
        }
    }
}

/// Signed and encrypted cookies (feature `secure-cookies`).
impl Request {
    /// The value of the first cookie of this name that was [set](ResponseHead::set_signed_cookie) with this
    /// key; `None` where there is none, or where somebody else made it.
    ///
    /// ```
    /// use bottle_session::{Key, Request};
    ///
    /// fn theme(request: &Request, key: &Key) -> String {
    ///     request.signed_cookie(key, "theme").unwrap_or_else(|| "plain".to_owned())
    /// }
    /// ```
    pub fn signed_cookie(&self, key: &Key, name: &str) -> Option<String> {
        let jar = CookieJar::new();
        self.first_cookie(name, |value| {
            let (signature, value) = value.split_at_checked(SIGNATURE)?;
            let signed = jar.signed(key).verify(cookie(name, format!("{signature}{name}={value}")));
            signed.map(|_| value.to_owned())
        })
    }

    /// The value of the first cookie of this name that was [set](ResponseHead::set_private_cookie) with this
    /// key; `None` where there is none, or where somebody else made it.
    ///
    /// ```
    /// use bottle_session::{Key, Request};
    ///
    /// fn seen(request: &Request, key: &Key) -> u32 {
    ///     request.private_cookie(key, "seen").and_then(|text| text.parse().ok()).unwrap_or(0)
    /// }
    /// ```
    pub fn private_cookie(&self, key: &Key, name: &str) -> Option<String> {
        let jar = CookieJar::new();
        self.first_cookie(name, |value| {
            let opened = jar.private(key).decrypt(cookie(name, value.to_owned()));
            opened.map(|cookie| cookie.value().to_owned())
        })
    }

    /// A cookie of the same name that somebody else set, for another path say, must not hide ours.
    fn first_cookie(&self, name: &str, open: impl Fn(&str) -> Option<String>) -> Option<String> {
        self.read_secret_cookie.store(true, Ordering::Relaxed);
        self.cookies().raw(name).find_map(|value| open(&decoded(value)))
    }
}

/// Signed and encrypted cookies (feature `secure-cookies`).
impl ResponseHead {
    /// Sets a cookie that its owner can read and not change. Name and value are signed together: the value is
    /// no good under another name.
    ///
    /// ```
    /// use bottle_session::{Cookie, Key, ResponseHead, Result};
    ///
    /// fn remember_theme(head: &mut ResponseHead, key: &Key) -> Result<()> {
    ///     head.set_signed_cookie(key, Cookie::build(("theme", "dark")).path("/").http_only(true))
    /// }
    /// ```
    pub fn set_signed_cookie(
        &mut self,
        key: &Key,
        cookie: impl Into<Cookie<'static>>,
    ) -> Result<()> {
        let cookie = cookie.into();
        let (name, value) = (cookie.name().to_owned(), cookie.value().to_owned());
        // The jar signs a value alone. With its name in front it cannot be moved to another cookie.
        let bound = with_value(cookie, format!("{name}={value}"));
        let mut jar = CookieJar::new();
        jar.signed_mut(key).add(bound);
        let signed = made(&jar, &name)?;
        let signature = signed.value().get(..SIGNATURE).ok_or_else(|| unmade(&name))?;
        let value = format!("{signature}{value}");
        self.set_cookie(with_value(signed, value))
    }

    /// Sets a cookie that its owner can neither read nor change. Name and value are sealed together: the
    /// value is no good under another name.
    ///
    /// ```
    /// use bottle_session::{Cookie, Key, ResponseHead, Result};
    ///
    /// fn count(head: &mut ResponseHead, key: &Key, seen: u32) -> Result<()> {
    ///     head.set_private_cookie(key, Cookie::build(("seen", seen.to_string())).path("/"))
    /// }
    /// ```
    pub fn set_private_cookie(
        &mut self,
        key: &Key,
        cookie: impl Into<Cookie<'static>>,
    ) -> Result<()> {
        let cookie = cookie.into();
        let name = cookie.name().to_owned();
        let mut jar = CookieJar::new();
        jar.private_mut(key).add(cookie);
        self.set_cookie(made(&jar, &name)?)
    }
}

fn cookie(name: &str, value: String) -> Cookie<'static> {
    Cookie::new(name.to_owned(), value)
}

fn with_value(mut cookie: Cookie<'static>, value: String) -> Cookie<'static> {
    cookie.set_value(value);
    cookie
}

fn made(jar: &CookieJar, name: &str) -> Result<Cookie<'static>> {
    jar.get(name).cloned().ok_or_else(|| unmade(name))
}

fn unmade(name: &str) -> Error {
    Error::new(ErrorKind::Input, format!("cookie {name:?} could not be signed or encrypted"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;
    use http::uri::PathAndQuery;

    type Set = fn(&mut ResponseHead, &Key, Cookie<'static>) -> Result<()>;
    type Get = fn(&Request, &Key, &str) -> Option<String>;

    const WAYS: [(Set, Get); 2] = [
        (|head, key, cookie| head.set_signed_cookie(key, cookie), Request::signed_cookie),
        (|head, key, cookie| head.set_private_cookie(key, cookie), Request::private_cookie),
    ];

    /// What a browser sends back.
    fn sent(set: Set, key: &Key, name: &str, value: &str) -> String {
        let mut head = ResponseHead::default();
        set(&mut head, key, cookie(name, value.to_owned())).unwrap();
        head.cookies()[0].encoded().to_string()
    }

    fn request(cookies: &str) -> Request {
        let mut request = Request::new(Method::GET, PathAndQuery::from_static("/"));
        request.headers_mut().insert("cookie", cookies.parse().unwrap());
        request
    }

    #[test]
    fn a_key_comes_from_a_secret_by_the_documented_derivation() {
        // HKDF-Expand by its definition: T(1) = HMAC(secret, info, 1), T(2) = HMAC(secret, T(1), info, 2).
        fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
            use sha2::{Digest, Sha256};
            let pad = |with: u8| {
                let padded = key.iter().copied().chain(std::iter::repeat(0)).take(64);
                padded.map(|byte| byte ^ with).collect::<Vec<_>>()
            };
            let inner = Sha256::digest([&pad(0x36)[..], text].concat());
            Sha256::digest([&pad(0x5c)[..], &inner[..]].concat()).to_vec()
        }
        let info = b"COOKIE;SIGNED:HMAC-SHA256;PRIVATE:AEAD-AES-256-GCM";
        let secret = b"0123456789abcdef0123456789abcdef";
        let first = hmac(secret, &[&info[..], &[1]].concat());
        let second = hmac(secret, &[&first[..], info, &[2]].concat());
        let key = cookie_key(secret).unwrap();
        assert_eq!(key.master(), [first, second].concat());
        assert!(cookie_key(&secret[..31]).is_err());
    }

    #[test]
    fn a_cookie_comes_back_as_it_was_set() {
        let key = Key::generate();
        for (set, get) in WAYS {
            for value in ["", "dark", "a=b; c", "\"quoted\"", "%41 ü\r\n", &"x".repeat(2500)] {
                let request = request(&sent(set, &key, "a", value));
                assert_eq!(get(&request, &key, "a").as_deref(), Some(value));
                assert_eq!(get(&request, &key, "b"), None);
            }
        }
    }

    #[test]
    fn what_was_changed_moved_or_made_with_another_key_is_no_cookie() {
        let key = Key::generate();
        for (set, get) in WAYS {
            let good = sent(set, &key, "a", "value");
            let moved = good.replacen("a=", "b=", 1);
            let changed = format!("{}X", &good[..good.len() - 1]);
            for cookies in ["a=value", "a=", "a=\"\"", &changed, &good[..20], &moved] {
                assert_eq!(get(&request(cookies), &key, "a"), None, "{cookies}");
                assert_eq!(get(&request(cookies), &key, "b"), None, "{cookies}");
            }
            assert_eq!(get(&request(&good), &Key::generate(), "a"), None);
        }
        let [(sign, get_signed), (encrypt, get_private)] = WAYS;
        assert_eq!(get_signed(&request(&sent(encrypt, &key, "a", "1")), &key, "a"), None);
        assert_eq!(get_private(&request(&sent(sign, &key, "a", "1")), &key, "a"), None);
    }

    #[test]
    fn name_and_value_cannot_be_divided_anew() {
        let key = Key::generate();
        let good = sent(WAYS[0].0, &key, "a", "b=c");
        let (signature, _) = good.strip_prefix("a=").unwrap().split_at(good.len() - 2 - 5);
        let forged = format!("a%3Db={signature}c");
        assert_eq!(request(&forged).signed_cookie(&key, "a=b"), None);
        assert_eq!(request(&good).signed_cookie(&key, "a").as_deref(), Some("b=c"));
    }

    #[test]
    fn a_foreign_cookie_hides_no_good_one() {
        let key = Key::generate();
        for (set, get) in WAYS {
            let cookies = format!("a=foreign; {}", sent(set, &key, "a", "good"));
            assert_eq!(get(&request(&cookies), &key, "a").as_deref(), Some("good"));
        }
    }

    #[test]
    fn attributes_stay() {
        let (mut head, key) = (ResponseHead::default(), Key::generate());
        let cookie = Cookie::build(("a", "1")).path("/x").http_only(true).secure(true);
        head.set_signed_cookie(&key, cookie.clone()).unwrap();
        head.set_private_cookie(&key, cookie.path("/y")).unwrap();
        for (cookie, path) in head.cookies().iter().zip(["/x", "/y"]) {
            assert_eq!(cookie.path(), Some(path));
            assert_eq!((cookie.http_only(), cookie.secure()), (Some(true), Some(true)));
        }
    }
}
