//! Forms that are shown again behind a redirect.

use super::view::Session;
use crate::Result;
use crate::message::forms::FormError;

/// What the keys of kept forms start with.
const PREFIX: &str = "_form.";

/// Forms that are shown again.
impl Session {
    /// Keeps a form that could not be taken for the next page that [takes](Session::take_form) it: behind a redirect, so
    /// that Reload sends nothing twice. The name is the app's own, one for each form; a later one takes an earlier one's
    /// place.
    ///
    /// It is a key of the session, which starts with `_form.`, and counts towards its caps: one that is too large is an
    /// error, and then the form is best shown at once. Secrets and files are not in it.
    ///
    /// ```
    /// use bottle_session::{
    ///     App, Form, FormError, IntoResponse, Response, Result, Session, SessionPlugin, TestClient, redirect,
    /// };
    /// use serde::Deserialize;
    ///
    /// #[derive(Deserialize)]
    /// struct NewNote {
    ///     title: String,
    ///     pages: u32,
    /// }
    ///
    /// let mut app = App::new();
    /// app.install(SessionPlugin::new().in_memory())?;
    /// app.post("/notes", |session: &mut Session, form: Result<Form<NewNote>, FormError>| -> Result<Response> {
    ///     if let Err(error) = form {
    ///         session.keep_form("note", &error)?;
    ///         return Ok(redirect("/notes/new").into_response());
    ///     }
    ///     Ok("Saved.".into_response())
    /// });
    /// app.get("/notes/new", |session: &mut Session| -> Result<String> {
    ///     let form = session.take_form("note")?.unwrap_or_default();
    ///     Ok(format!("title: {:?}, pages {:?}", form.value("title"), form.message("pages")))
    /// });
    ///
    /// let client = TestClient::new(app)?;
    /// client.post("/notes").form(&[("title", "Tea"), ("pages", "")]).send();
    /// let page = client.get("/notes/new").send().text();
    /// assert_eq!(page, r#"title: Some("Tea"), pages Some("must be a whole number")"#);
    /// assert_eq!(client.get("/notes/new").send().text(), "title: None, pages None");
    /// # Ok::<(), bottle_session::Error>(())
    /// ```
    pub fn keep_form(&mut self, name: &str, form: &FormError) -> Result<()> {
        self.set_json(format!("{PREFIX}{name}"), form)
    }

    /// Takes the form that was kept under this name, once: of several requests one gets it. This is a round trip only
    /// where there is one.
    pub fn take_form(&mut self, name: &str) -> Result<Option<FormError>> {
        let key = format!("{PREFIX}{name}");
        if !self.contains_key(&key) {
            return Ok(None);
        }
        // What is no form is no form of ours.
        Ok(self.take(&key)?.and_then(|json| serde_json::from_str(&json).ok()))
    }
}
