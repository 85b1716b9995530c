//! HTTP's basic authentication in front of routes.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::message::http_error::basic_challenge;
use crate::message::into_response::IntoResponse;
use crate::pipeline::plugin::{Callback, Installed, Plugin};
use crate::pipeline::route::Route;
use crate::{Error, ErrorKind, Result};

/// Lets nobody at the routes without a name and a password of HTTP's basic authentication (RFC 7617): all others are
/// answered 401, and browsers ask.
///
/// It stands around guards and handlers. The password travels with each request, in clear over http: serve it over https.
/// A page that is not there is a 404 for everybody.
///
/// ```
/// use bottle_session::{App, BasicAuthPlugin, TestClient};
///
/// let mut app = App::new();
/// app.group("/admin", |admin| -> bottle_session::Result<()> {
///     admin.install(BasicAuthPlugin::new("Admin").user("ada", "correct horse battery staple"))?;
///     admin.get("/", || "secrets");
///     Ok(())
/// });
/// app.get("/", || "hello");
///
/// let client = TestClient::new(app)?;
/// assert_eq!(client.get("/admin/").send().status(), 401);
/// let request = client.get("/admin/").basic_auth("ada", "correct horse battery staple");
/// assert_eq!(request.send().text(), "secrets");
/// # Ok::<(), bottle_session::Error>(())
/// ```
#[derive(Clone)]
pub struct BasicAuthPlugin {
    realm: String,
    /// SHA-256 of name and password.
    users: Vec<([u8; 32], [u8; 32])>,
    check: Option<Check>,
}

type Check = Arc<dyn Fn(&str, &str) -> bool + Send + Sync>;

impl BasicAuthPlugin {
    /// A plugin that asks in the name of this realm, a text that browsers show or not.
    pub fn new(realm: impl Into<String>) -> BasicAuthPlugin {
        BasicAuthPlugin { realm: realm.into(), users: Vec::new(), check: None }
    }

    /// Lets this user in. May be called several times. Comparing takes the same time whoever asks, and tells nobody
    /// whether there is a user of that name; against guessing a password wants to be long, and
    /// [`RateLimitPlugin`](crate::RateLimitPlugin) in front.
    #[must_use]
    pub fn user(mut self, name: &str, password: &str) -> BasicAuthPlugin {
        self.users.push((digest(name), digest(password)));
        self
    }

    /// Lets those users in for whom this says so, beside the others: whose passwords a database has the hashes of, for
    /// one. It is asked for each request, on the handler's thread, where it may take its time.
    #[must_use]
    pub fn check(
        mut self,
        check: impl Fn(&str, &str) -> bool + Send + Sync + 'static,
    ) -> BasicAuthPlugin {
        self.check = Some(Arc::new(check));
        self
    }

    fn lets_in(&self, name: &str, password: &str) -> bool {
        let (name_digest, password_digest) = (digest(name), digest(password));
        let mut found = Choice::from(0);
        // All of them, so that it takes as long for each.
        for (known_name, known_password) in &self.users {
            found |= known_name.ct_eq(&name_digest) & known_password.ct_eq(&password_digest);
        }
        bool::from(found) || self.check.as_ref().is_some_and(|check| check(name, password))
    }
}

/// Of one length, whatever the text is, so that comparing tells nothing of it.
fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

impl fmt::Debug for BasicAuthPlugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BasicAuthPlugin({:?}, {} users)", self.realm, self.users.len())
    }
}

impl Plugin for BasicAuthPlugin {
    fn name(&self) -> &str {
        "basic_auth"
    }

    fn setup(&mut self, _: &Installed<'_>) -> Result<()> {
        if self.users.is_empty() && self.check.is_none() {
            let text = "basic_auth plugin: it would let nobody in; say whom with user or check";
            return Err(Error::new(ErrorKind::Config, text));
        }
        Ok(())
    }

    fn apply(&self, callback: Callback, _: &Route) -> Callback {
        let plugin = self.clone();
        Callback::new(move |exchange| match exchange.request().basic_auth() {
            Some((name, password)) if plugin.lets_in(&name, &password) => callback.call(exchange),
            _ => basic_challenge(&plugin.realm).into_response(),
        })
    }
}
