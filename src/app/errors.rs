//! What an app makes of errors: answers to those of its own types, the form of pages, debugging.

use crate::message::into_response::IntoResponse;
use crate::pipeline::error_converters::Converter;

use super::App;

/// Errors.
impl App {
    /// Answers errors of this type, wherever a handler, guard, provider, hook or plugin of this app, or of one mounted in
    /// it, ended with one: as the error of its `Result`, by `?` into [`HttpError`](crate::HttpError) or
    /// [`Error::other`](crate::Error::other), or as the cause of another error. Without this an error is a logged 500.
    ///
    /// What the closure returns is a reply like a handler's. An `HttpError`, as [`abort`](crate::abort) makes it, goes to
    /// the error pages, and keeps the error as its [cause](crate::HttpError::cause), for the log and for after-request
    /// hooks; anything else goes out as it is. The log has a line for a status of 500 and more.
    ///
    /// Of the causes of an error the outermost one counts that somebody answers, in a mounted app by its own word before
    /// that of the app around. A second closure for the same type takes the place of the first. Inside an `anyhow::Error`
    /// errors are found with the feature `anyhow`.
    ///
    /// ```
    /// use bottle_session::{App, HttpError, TestClient, abort};
    ///
    /// #[derive(Debug)]
    /// enum ShopError {
    ///     NoSuchItem(u32),
    ///     Closed,
    /// }
    ///
    /// impl std::fmt::Display for ShopError {
    ///     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
    ///         write!(f, "{self:?}")
    ///     }
    /// }
    ///
    /// impl std::error::Error for ShopError {}
    ///
    /// fn price(item: u32) -> Result<u32, ShopError> {
    ///     match item {
    ///         7 => Ok(1250),
    ///         0 => Err(ShopError::Closed),
    ///         other => Err(ShopError::NoSuchItem(other)),
    ///     }
    /// }
    ///
    /// let mut app = App::new();
    /// app.on_error(|error: &ShopError| match error {
    ///     ShopError::NoSuchItem(item) => abort(404, format!("There is no item {item}.")),
    ///     ShopError::Closed => abort(503, "The shop is closed.").with_header("retry-after", "3600"),
    /// });
    /// app.get("/<item:int>", |item: u32| -> Result<String, HttpError> {
    ///     Ok(format!("{} cents", price(item)?))
    /// });
    ///
    /// let client = TestClient::new(app)?;
    /// assert_eq!(client.get("/7").send().text(), "1250 cents");
    /// assert_eq!(client.get("/8").send().status(), 404);
    /// assert_eq!(client.get("/0").send().header("retry-after"), Some("3600"));
    /// # Ok::<(), bottle_session::Error>(())
    /// ```
    pub fn on_error<E, R>(&mut self, answer: impl Fn(&E) -> R + Send + Sync + 'static) -> &mut App
    where
        E: std::error::Error + Send + Sync + 'static,
        R: IntoResponse,
    {
        let converter = Converter::of(answer);
        self.converters.retain(|other| !other.is_for_same(&converter));
        self.converters.push(converter);
        self
    }

    /// Whether JSON errors are of RFC 9457, `application/problem+json`, and not `{"error": …, "status": …}`: not unless
    /// set. It holds for this app and those mounted in it. Clients have JSON where [they ask for it](crate::Request::wants_json);
    /// one that asks for `application/problem+json` has that in any case.
    ///
    /// ```
    /// use bottle_session::{App, TestClient};
    ///
    /// let mut app = App::new();
    /// app.problem_json(true);
    /// let answer = TestClient::new(app)?.get("/").header("accept", "application/json").send();
    /// assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    /// assert_eq!(answer.text(), r#"{"status":404,"title":"Not Found"}"#);
    /// # Ok::<(), bottle_session::Error>(())
    /// ```
    pub fn problem_json(&mut self, wanted: bool) -> &mut App {
        self.problem_json = Some(wanted);
        self
    }

    /// Whether an error of 500 or more shows its cause in the browser: the chain of causes, a backtrace, the route with
    /// file and line, the handler's arguments, the request, the plugins. Not unless set. It is of the outermost app, and
    /// takes the place of its error pages.
    ///
    /// The page is shown only to whom it is for: where the server listens on a loopback address and on no other, the
    /// client is on this machine, the `Host` is `localhost`, `127.0.0.1` or `[::1]` (another site could make its own
    /// name mean this machine: DNS rebinding), and no proxy has passed the request on: no `Forwarded`, `X-Forwarded-…`, `Via`
    /// or `X-Real-IP`, and no HTTP/1.0, which nginx speaks to apps unless told otherwise. A script of another site does not get it
    /// either (`Sec-Fetch-Site`, `Origin`). A proxy that speaks HTTP/1.1 and says nothing of itself is not seen: never put
    /// `debug(true)` behind one. Elsewhere visitors see the usual page, and the log has one warning. Everybody who can log in to the
    /// machine can see it. Values of `Cookie`, `Authorization`, `Proxy-Authorization`,
    /// `X-Api-Key` and `X-CSRF-Token` are not on it.
    ///
    /// A backtrace takes milliseconds; names and lines in it need the debug information of a debug build. While
    /// debugging, a panic hook of the program's own runs as before.
    ///
    /// ```no_run
    /// use bottle_session::App;
    ///
    /// let mut app = App::new();
    /// app.debug(cfg!(debug_assertions));
    /// app.get("/<number>", |number: String| number.parse::<u8>().map(|number| number.to_string()));
    /// app.run("127.0.0.1:8888")?; // http://localhost:8888/many
    /// # Ok::<(), bottle_session::Error>(())
    /// ```
    pub fn debug(&mut self, wanted: bool) -> &mut App {
        self.debug = wanted;
        self
    }
}
