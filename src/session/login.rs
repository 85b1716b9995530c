//! Who is logged in in a session.

use std::time::SystemTime;

use super::reserved::ReservedFields;
use super::state::{IdChange, LoginState, SessionState};
use super::store::{Changes, Login};
use super::view::Session;
use crate::{Error, ErrorKind, Result};

/// How many bytes a user's name has at most.
const MAX_USER_BYTES: usize = 256;

impl Session {
    /// Logs a user in, with the save: the session gets a new id, the old one is dead, so that nobody who knew it, or planted
    /// it, is logged in with it (session fixation). What an anonymous visitor's session held moves along; where another user was logged in, that
    /// session ends and this one starts empty.
    ///
    /// The name is the app's own: what it finds the user by, 1 to 256 bytes without control characters; the error says what is
    /// wrong with another one. It is of kind [`Config`](ErrorKind::Config) in a store that
    /// [keeps no logins](crate::SessionStore::keeps_logins), such as [`Layout::BottleSession`](crate::Layout::BottleSession).
    ///
    /// Where the session was ended meanwhile, by another request, the user gets a new one.
    ///
    /// ```
    /// use bottle_session::{App, Session, SessionPlugin, TestClient, redirect};
    ///
    /// let mut app = App::new();
    /// app.install(SessionPlugin::new().in_memory())?;
    /// app.post("/login/<user>", |session: &mut Session, user: &str| -> bottle_session::Result<_> {
    ///     session.log_in(user)?;
    ///     Ok(redirect("/"))
    /// });
    /// app.get("/", |session: &mut Session| session.user_id().unwrap_or("nobody").to_owned());
    /// app.post("/logout", |session: &mut Session| session.log_out());
    ///
    /// let client = TestClient::new(app)?;
    /// client.post("/login/ada").send();
    /// assert_eq!(client.get("/").send().text(), "ada");
    /// client.post("/logout").send();
    /// assert_eq!(client.get("/").send().text(), "nobody");
    /// # Ok::<(), bottle_session::Error>(())
    /// ```
    pub fn log_in(&mut self, user: impl ToString) -> Result<()> {
        let user = user.to_string();
        if user.is_empty() || user.len() > MAX_USER_BYTES || user.chars().any(char::is_control) {
            let text = format!(
                "user {user:?} cannot log in: a user's name has 1 to {MAX_USER_BYTES} bytes and no control characters"
            );
            return Err(Error::new(ErrorKind::Session, text));
        }
        if !self.context.store.keeps_logins() {
            let text = "nobody can log in: the store of this session does not keep who is logged in; take \
                        MemoryStore, SqliteStore, or RedisStore in its default layout";
            return Err(Error::new(ErrorKind::Config, text));
        }
        if self.user_id().is_some_and(|other| other != user) {
            self.destroy();
        }
        let again = match &self.login {
            LoginState::Same(login) => login.as_ref().is_some_and(|login| login.user == user),
            LoginState::In { again, .. } => *again,
        };
        match &mut self.state {
            SessionState::New { next } => *next = None,
            SessionState::Stored { next, .. } => *next = IdChange::New(None),
            SessionState::Gone(_) => {
                self.state = SessionState::new();
                self.fields.clear();
                self.changes = Changes::default();
                self.created = None;
                self.reserved = ReservedFields::default();
            }
        }
        self.login = LoginState::In { login: Login { user, at: SystemTime::now() }, again };
        Ok(())
    }

    /// Logs the user out: ends the session, as [`destroy`](Session::destroy) does.
    pub fn log_out(&mut self) {
        self.destroy();
    }

    /// The user who is logged in, by the name that [`log_in`](Session::log_in) got.
    pub fn user_id(&self) -> Option<&str> {
        self.used.set(true);
        self.logged_in().map(|login| login.user.as_str())
    }

    /// Since when the user is logged in, by the store's clock (by this machine's in the request that logs in): to ask for the password again before something that matters
    /// (OWASP Session Management Cheat Sheet, "Reauthentication").
    pub fn logged_in_at(&self) -> Option<SystemTime> {
        self.used.set(true);
        self.logged_in().map(|login| login.at)
    }

    pub(super) fn logged_in(&self) -> Option<&Login> {
        match &self.login {
            LoginState::Same(login) => login.as_ref(),
            LoginState::In { login, .. } => Some(login),
        }
    }
}
