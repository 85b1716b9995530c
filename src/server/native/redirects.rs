//! The port of plain HTTP beside one of TLS: it sends visitors on, lets an ACME client show its challenges, and never
//! reaches the app.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::header::{self, HeaderValue};
use http::{Method, StatusCode};
use nix::libc::{O_NOFOLLOW, O_NONBLOCK};

use crate::message::address::without_port;
use crate::message::request::Request;
use crate::message::response::Response;
use crate::server::tls::TlsAcceptor;

/// Below which an authority looks for the answers to its challenges (RFC 8555 section 8.3).
const CHALLENGES: &str = "/.well-known/acme-challenge/";

/// An answer is a token and a thumbprint, about 90 bytes.
const LONGEST_CHALLENGE: u64 = 4096;

/// The port that browsers do not show.
const HTTPS: u16 = 443;

/// Where requests without TLS are sent on to.
#[derive(Debug)]
pub(super) struct Redirects {
    pub(super) acceptor: Arc<TlsAcceptor>,
    /// The port that visitors find the app at.
    pub(super) port: u16,
    /// The folder in which an ACME client puts its answers.
    pub(super) challenges: Option<PathBuf>,
}

/// How a request is answered.
#[derive(Debug)]
pub(super) enum Redirected {
    Answer(Response),
    /// With a file, which takes a thread to read.
    File(PathBuf),
}

impl Redirects {
    pub(super) fn answer(&self, request: &Request) -> Redirected {
        if let Some(folder) = &self.challenges
            && let Some(token) = request.target().path().strip_prefix(CHALLENGES)
        {
            let is_read = [Method::GET, Method::HEAD].contains(request.method());
            return match is_read && is_token(token) {
                // Where certbot puts it: `--webroot-path` is the root of a site.
                true => Redirected::File(folder.join(&CHALLENGES[1..]).join(token)),
                false => Redirected::Answer(plain(StatusCode::NOT_FOUND, "404 Not Found\n")),
            };
        }
        Redirected::Answer(self.redirect(request))
    }

    /// Only names of the certificate are sent on to: to any other, it would be an open redirect.
    fn redirect(&self, request: &Request) -> Response {
        let refused = |why: &str| plain(StatusCode::BAD_REQUEST, why);
        let host = request.host().map(without_port).filter(|host| self.acceptor.is_for(host));
        let Some(host) = host else {
            return refused(
                "This port sends on to https, and only to the names of its certificate.\n",
            );
        };
        let target = request.target();
        if !target.path().starts_with('/') {
            return refused("This port sends on to https, and only what has a path.\n");
        }
        let port = match self.port {
            HTTPS => String::new(),
            port => format!(":{port}"),
        };
        let (open, close) = if host.contains(':') { ("[", "]") } else { ("", "") };
        let location = format!("https://{open}{host}{close}{port}{target}");
        match HeaderValue::try_from(&location) {
            Ok(value) => {
                let mut response =
                    plain(StatusCode::PERMANENT_REDIRECT, &format!("See {location}\n"));
                response.headers_mut().insert(header::LOCATION, value);
                response
            }
            Err(_) => refused("This port sends on to https, and not to such an address.\n"),
        }
    }
}

/// RFC 8555 section 8.3: base64url. So it names a file of the folder and nothing else.
fn is_token(text: &str) -> bool {
    let is_one = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    !text.is_empty() && text.bytes().all(is_one)
}

/// The answer to a challenge, where it is there.
pub(super) fn challenge(path: &Path) -> Response {
    let read = || {
        // Opening a FIFO would wait for who writes to it, and a link may lead anywhere.
        let file = OpenOptions::new().read(true).custom_flags(O_NOFOLLOW | O_NONBLOCK).open(path);
        let file = file.ok()?;
        let found = file.metadata().ok()?;
        if !found.is_file() || found.len() > LONGEST_CHALLENGE {
            return None;
        }
        let mut bytes = Vec::new();
        file.take(LONGEST_CHALLENGE).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    };
    match read() {
        Some(bytes) => {
            // As bytes: nobody's browser is to make a page of it.
            Response::bytes(bytes).with_header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
        }
        None => plain(StatusCode::NOT_FOUND, "404 Not Found\n"),
    }
}

fn plain(status: StatusCode, text: &str) -> Response {
    Response::text(text).with_status(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_no_path() {
        for (text, expected) in
            [("Ab-_9", true), ("", false), ("..", false), ("a/b", false), ("a%2fb", false)]
        {
            assert_eq!(is_token(text), expected, "{text:?}");
        }
    }
}
