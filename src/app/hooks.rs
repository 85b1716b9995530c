//! Hooks, guards and error pages of an app.

use std::panic::Location;
use std::time::Duration;

use http::StatusCode;

use super::App;
use crate::Error;
use crate::ErrorKind;
use crate::handler::{self, BindHook, Condition, Handler, Hook, Signature};
use crate::message::into_response::HookOutcome;
use crate::message::request::Request;
use crate::message::status::IntoStatus;

/// A function and where it was given.
#[derive(Clone)]
pub(crate) struct Located<T> {
    pub(crate) function: T,
    pub(crate) location: &'static Location<'static>,
}

/// What is asked before a handler runs.
#[derive(Clone)]
pub(crate) enum Guard {
    Function(BindHook),
    /// Whether the users of the route have logged in not longer ago than this. Whose they are is known once the handler
    /// and all other guards are bound.
    RecentLogin(Duration),
}

impl Guard {
    pub(super) fn function<M, G: Signature<M> + Hook<M>>(guard: G) -> Guard {
        Guard::Function(handler::hook(guard))
    }

    pub(super) fn condition<M, C: Signature<M> + Condition<M>>(condition: C) -> Guard {
        Guard::Function(handler::condition(condition))
    }
}

impl App {
    /// Runs `hook` before each request finds its route. It may change the request, and with its
    /// [path](Request::set_path) the route; an `Err` of what it returns is the answer. Requests that are ready together
    /// pass their hooks one after another: what waits for long, and what asks for the session, is a
    /// [guard](App::before).
    ///
    /// In a [mounted](App::mount) app it runs once a request has found a route of that app, and for such
    /// requests alone. One path can be written in many ways (`/admin`, `/%61dmin`), and [`Request::path`] is as the client
    /// wrote it: what guards a part of an app belongs into a group or a mounted app.
    ///
    /// ```
    /// use bottle_session::{App, HttpError, Request, abort};
    ///
    /// let mut app = App::new();
    /// app.before_request(|request: &mut Request| match request.header("x-key") {
    ///     Some("open sesame") => Ok(()),
    ///     _ => Err(abort(403, "Say the magic words.")),
    /// });
    /// ```
    pub fn before_request<R: HookOutcome>(
        &mut self,
        hook: impl Fn(&mut Request) -> R + Send + Sync + 'static,
    ) -> &mut App {
        self.before.push(Box::new(move |request| hook(request).into_answer()));
        self
    }

    /// Runs `guard` before the handler of each route of this app, and of those mounted in it, inside the plugins: it
    /// takes what handlers take, such as the session, and an `Err` of what it returns is the answer. The app around comes
    /// first, then those added first, then the [guards of the route](crate::RouteOptions::before).
    ///
    /// ```
    /// use bottle_session::{App, Redirect, Session, SessionPlugin, TestClient, redirect};
    ///
    /// let mut app = App::new();
    /// app.install(SessionPlugin::new().in_memory())?;
    /// app.group("/notes", |notes| {
    ///     notes.before(|session: &mut Session| match session.get("name") {
    ///         Some(_) => Ok(()),
    ///         None => Err(redirect("/login")),
    ///     });
    ///     notes.get("/", || "notes");
    /// });
    /// app.get("/login", || "Who are you?");
    ///
    /// let client = TestClient::new(app)?;
    /// assert_eq!(client.get("/notes/").send().header("location"), Some("/login"));
    /// # Ok::<(), bottle_session::Error>(())
    /// ```
    #[track_caller]
    pub fn before<M, G: Signature<M> + Hook<M>>(&mut self, guard: G) -> &mut App {
        self.guards
            .push(Located { function: Guard::function(guard), location: Location::caller() });
        self
    }

    /// Lets requests go on for which `condition` holds, on all routes of this app and of those mounted in it; others get
    /// a 403. It takes what handlers take, and runs among the [guards](App::before).
    ///
    /// A condition on the [user](crate::LoginPlugin) is for people who are logged in; the others are sent to the login
    /// page.
    #[track_caller]
    pub fn require<M, C: Signature<M> + Condition<M>>(&mut self, condition: C) -> &mut App {
        let (function, location) = (Guard::condition(condition), Location::caller());
        self.guards.push(Located { function, location });
        self
    }

    /// Lets requests go on of users who have [logged in](crate::Session::log_in) not longer ago than this: before something that
    /// matters, the password is to be typed again (OWASP Session Management Cheat Sheet, "Reauthentication"). Others are
    /// answered as by the [`LoginPlugin`](crate::LoginPlugin), which this needs. Of several, those count whose users the route
    /// asks for, in its handler or in a guard; that it asks for none is an error when the app is built. Logging in again starts
    /// the time anew.
    #[track_caller]
    pub fn require_recent(&mut self, login: Duration) -> &mut App {
        let (function, location) = (Guard::RecentLogin(login), Location::caller());
        self.guards.push(Located { function, location });
        self
    }

    /// Runs `hook` on each answer, error pages included, before the cookies are put onto it. It takes what handlers take,
    /// and the answer as `&mut Response`, which has the [error](crate::Response::error) behind it: one place that sees every
    /// error with its cause. An `Err` of what the hook returns takes the answer's place. As in Bottle, the one added last
    /// runs first, and those of a mounted app before those of the app around.
    ///
    /// A hook that asks for what plugins or providers provide runs before that is finished and saved, and so does not see
    /// a failure of just that; all its app's routes then ask for it. Any other one sees whatever the answer is in the end.
    /// One that asks for what cannot be had, such as the user where nobody is logged in or a session while the store is
    /// down, does not run, and the answer goes out without it; with an `Option` it runs. What is to keep visitors out is a
    /// [guard](App::before).
    ///
    /// ```
    /// use bottle_session::{App, Request, Response, TestClient};
    ///
    /// let mut app = App::new();
    /// app.get("/", || "x".parse::<u8>().map(|number| number.to_string()));
    /// app.after_request(|request: &Request, response: &mut Response| {
    ///     if let Some(cause) = response.error().and_then(|error| error.cause()) {
    ///         eprintln!("{}: {cause}", request.path()); // or to Sentry
    ///     }
    /// });
    /// assert_eq!(TestClient::new(app)?.get("/").send().status(), 500);
    /// # Ok::<(), bottle_session::Error>(())
    /// ```
    #[track_caller]
    pub fn after_request<M, H: Signature<M> + Hook<M>>(&mut self, hook: H) -> &mut App {
        let placed = Located { function: handler::hook(hook), location: Location::caller() };
        self.after.insert(0, placed);
        self
    }

    /// Shows errors of this status, a number or a [`StatusCode`], on this page: those of this app's routes, and all
    /// others below the prefix that it is mounted at. It takes what handlers take, and the error as
    /// [`&HttpError`](crate::HttpError). The answer keeps the error's status unless the page has one other than 200.
    ///
    /// A page that asks for the session or another value is shown before that is finished and saved; it is acquired then
    /// where the route has not asked for it. Where there is none, as nobody is logged in, the store is down or a provider
    /// fails, a page that asks for it as an `Option` is shown. In place of one that cannot do without, and of one that fails, it is the next:
    /// this app's for all errors, that of the app around, the built-in one.
    ///
    /// ```
    /// use bottle_session::{App, Html, HttpError, Urls, escape_html};
    ///
    /// let mut app = App::new();
    /// // The message may hold what the client sent.
    /// app.error(404, |error: &HttpError| Html(format!("<h1>Lost</h1>{}", escape_html(error.message()))));
    /// app.error(403, |urls: &Urls| urls.build("login", &[]).map(|login| Html(format!("<a href=\"{login}\">Log in</a>"))));
    /// app.get("/login", || "Who are you?").name("login");
    /// # app.build()?;
    /// # Ok::<(), bottle_session::Error>(())
    /// ```
    #[track_caller]
    pub fn error<M, H: Signature<M> + Handler<M>>(
        &mut self,
        status: impl IntoStatus,
        page: H,
    ) -> &mut App {
        let location = Location::caller();
        match status.into_status() {
            Ok(status) if !status.is_client_error() && !status.is_server_error() => {
                let text = format!(
                    "{status} is no error, so its page would never be shown; an error page is for a status of \
                     400 to 599"
                );
                self.errors.push(Error::new(ErrorKind::Route, text).at(location));
            }
            Ok(status) => self.set_page(Some(status), page, location),
            Err(error) => self.errors.push(error.at(location)),
        }
        self
    }

    /// Shows all errors without a page of their own on this page; see [`error`](App::error).
    #[track_caller]
    pub fn error_default<M, H: Signature<M> + Handler<M>>(&mut self, page: H) -> &mut App {
        self.set_page(None, page, Location::caller());
        self
    }

    fn set_page<M, H: Signature<M> + Handler<M>>(
        &mut self,
        status: Option<StatusCode>,
        page: H,
        location: &'static Location<'static>,
    ) {
        self.pages.retain(|(other, _)| *other != status);
        let page = (status, Located { function: handler::page(page), location });
        match status {
            // A page for the status goes before one for all.
            Some(_) => self.pages.insert(0, page),
            None => self.pages.push(page),
        }
    }
}
