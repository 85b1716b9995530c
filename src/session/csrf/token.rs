//! Tokens against forged requests.

use subtle::ConstantTimeEq;

use super::MARKER;
use crate::Result;
use crate::session::id::{decode_base64url, encode_base64url};
use crate::session::state::{IdChange, SessionState};
use crate::session::view::Session;

/// Tokens against forged requests.
impl Session {
    /// The token by which [`CsrfPlugin`](crate::CsrfPlugin) knows the requests that this app's own pages send: put it into each
    /// form as the field `csrf_token`, or have scripts send it as the header `X-CSRF-Token`. It needs no
    /// escaping in HTML.
    ///
    /// It is derived from the session's id, which [`SessionPlugin`](crate::SessionPlugin) draws from a
    /// generator that the operating system seeds: pages of one session that load at the same time never spoil each
    /// other's forms, and with [`regenerate`](Session::regenerate) or [`destroy`](Session::destroy) all earlier
    /// tokens are void. So call it after them. Each call masks it anew, so that it cannot be guessed from the
    /// size of compressed pages (BREACH); all of them are valid. A visitor without a session gets one, which
    /// holds the key `_csrf`.
    ///
    /// ```
    /// use bottle_session::{App, CsrfPlugin, Html, Session, SessionPlugin, TestClient};
    ///
    /// let mut app = App::new();
    /// app.install(SessionPlugin::new().in_memory())?;
    /// app.install(CsrfPlugin::new())?;
    /// app.get("/", |session: &mut Session| {
    ///     let token = session.csrf_token();
    ///     Html(format!(
    ///         r#"<form method="post"><input type="hidden" name="csrf_token" value="{token}"></form>"#
    ///     ))
    /// });
    /// app.post("/", || "done");
    ///
    /// let client = TestClient::new(app)?;
    /// let page = client.get("/").send().text();
    /// let token = page.split('"').rev().nth(1).unwrap();
    /// assert_eq!(client.post("/").form(&[("csrf_token", token)]).send().text(), "done");
    /// assert_eq!(client.post("/").send().status(), 403);
    /// # Ok::<(), bottle_session::Error>(())
    /// ```
    pub fn csrf_token(&mut self) -> String {
        self.used.set(true);
        self.masked_token().unwrap_or_else(|error| {
            self.refuse(error);
            String::new()
        })
    }

    fn masked_token(&mut self) -> Result<String> {
        if self.id().is_none() {
            self.try_set(MARKER, "")?;
        }
        let token = match &self.state {
            SessionState::Stored { id, next: IdChange::None } => self.token_secret_of(id),
            _ => self.coming_id()?.derived(PURPOSE),
        };
        let mask = self.context.generator.random()?;
        Ok(encode_base64url(&mask) + &encode_base64url(&xor(&mask, &token)))
    }

    /// Whether this is a token of the session that the request came with. [`CsrfPlugin`](crate::CsrfPlugin) asks this; a
    /// handler that skips the plugin can ask it itself. The comparison takes the same time for every token.
    pub fn verify_csrf(&self, token: &str) -> bool {
        self.used.set(true);
        let Some((mask, masked)) = token.as_bytes().split_at_checked(43) else { return false };
        let (mut mask_bits, mut masked_bits) = ([0; 32], [0; 32]);
        let read = decode_base64url(mask, &mut mask_bits)
            .and_then(|()| decode_base64url(masked, &mut masked_bits));
        match (read, self.id()) {
            (Some(()), Some(id)) => {
                xor(&mask_bits, &masked_bits).ct_eq(&self.token_secret_of(id)).into()
            }
            _ => false,
        }
    }
}

pub(in crate::session) const PURPOSE: &[u8] = b"bottle-session csrf\0";

fn xor(one: &[u8; 32], other: &[u8; 32]) -> [u8; 32] {
    std::array::from_fn(|at| one[at] ^ other[at])
}
