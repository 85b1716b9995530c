//! Who is logged in, as an argument: what makes the user of a request, and who may go on.

use std::any::{TypeId, type_name};
use std::panic::Location;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::{self, HeaderValue};
use http::{Method, StatusCode};

use super::App;
use super::hooks::Located;
use super::plugins::Installation;
use crate::handler::{Binder, Named, ProviderDefinition, ProviderFn, Signature, provider};
use crate::message::accept::weighted_items;
use crate::message::http_error::{HttpError, IntoHttpError};
use crate::message::into_response::{IntoResponse, Json};
use crate::message::redirect::redirect;
use crate::message::request::Request;
use crate::pipeline::completion::HookCallback;
use crate::pipeline::plugin::Provided;
use crate::pipeline::urls::Urls;
use crate::session::view::Session;
use crate::{Error, ErrorKind, Result};

/// Gives handlers the user who is logged in: a value of the app's own type, found by the name that
/// [`Session::log_in`] got.
///
/// - `&mut U` or `&U` is for people who are logged in. Others get the [login page](LoginPlugin::login_page), with what they
///   asked for as `?next=`, where the request is a GET that accepts HTML; else a 401, for a client that asks for JSON
///   with a JSON body.
/// - `Option<&mut U>` is `None` for them.
///
/// The loader runs on the thread of the handler, once for a request, and only on routes where somebody asks. A user of
/// whom it says `None` does not exist any more and is logged out. Its error is the answer, a 503 or another one of at
/// least 500, and never passes for nobody. It is a [provider](App::provide) of keyword `user`, and as such is skipped,
/// uninstalled and inherited by mounted apps; several of them have different keywords.
///
/// ```
/// use bottle_session::{App, LoginPlugin, Provided, Request, Result, Session, SessionPlugin, TestClient, redirect_back};
///
/// struct User { name: String, is_admin: bool }
///
/// impl Provided for User {}
///
/// fn find(id: &str) -> std::io::Result<Option<User>> {
///     // A real app asks its database.
///     Ok(["ada", "bob"].contains(&id).then(|| User { name: id.to_owned(), is_admin: id == "ada" }))
/// }
///
/// let mut app = App::new();
/// app.install(SessionPlugin::new().in_memory())?;
/// app.install(LoginPlugin::new(find).login_page("login"))?;
/// app.get("/", |user: Option<&mut User>| user.map_or("nobody".to_owned(), |user| user.name.clone()));
/// app.get("/notes", |user: &mut User| format!("notes of {}", user.name));
/// app.get("/admin", |user: &mut User| format!("{} rules", user.name)).require(|user: &User| user.is_admin);
/// app.get("/login", || "Who are you?").name("login");
/// app.post("/login/<name>", |session: &mut Session, request: &Request, name: &str| -> Result<_> {
///     session.log_in(name)?;
///     Ok(redirect_back(request, "/"))
/// });
///
/// let client = TestClient::new(app)?;
/// let answer = client.get("/notes").header("accept", "text/html").send();
/// assert_eq!(answer.header("location"), Some("/login?next=%2Fnotes"));
/// assert_eq!(client.get("/notes").header("accept", "application/json").send().status(), 401);
/// let answer = client.post("/login/bob?next=%2Fnotes").send();
/// assert_eq!(answer.header("location"), Some("/notes"));
/// assert_eq!(client.get("/notes").send().text(), "notes of bob");
/// assert_eq!(client.get("/admin").send().status(), 403);
/// # Ok::<(), bottle_session::Error>(())
/// ```
pub struct LoginPlugin<U> {
    load: Loader<U>,
    page: Option<Arc<str>>,
    keyword: String,
    session: Option<&'static str>,
}

type Loader<U> = Arc<dyn Fn(&str) -> Result<Option<U>, HttpError> + Send + Sync>;

impl<U: Provided> LoginPlugin<U> {
    /// With the function that finds a user, by the name that [`Session::log_in`] got.
    pub fn new<E: IntoHttpError>(
        load: impl Fn(&str) -> Result<Option<U>, E> + Send + Sync + 'static,
    ) -> LoginPlugin<U> {
        LoginPlugin {
            load: Arc::new(move |user| load(user).map_err(IntoHttpError::into_http_error)),
            page: None,
            keyword: "user".to_owned(),
            session: None,
        }
    }

    /// The [name](crate::RouteOptions::name) of the route where one logs in, which is sent where people go who are not logged
    /// in. Without one they get a 401. That no route has this name is an error when the app is built.
    #[must_use]
    pub fn login_page(mut self, route: impl Into<String>) -> LoginPlugin<U> {
        self.page = Some(route.into().into());
        self
    }

    /// The name under which [`named!`](crate::named) handlers ask for the user: `user` unless set.
    #[must_use]
    pub fn keyword(mut self, keyword: impl Into<String>) -> LoginPlugin<U> {
        self.keyword = keyword.into();
        self
    }

    /// The keyword of the session in which users log in, where an app has several.
    #[must_use]
    pub fn session(mut self, keyword: &'static str) -> LoginPlugin<U> {
        self.session = Some(keyword);
        self
    }
}

impl<U> std::fmt::Debug for LoginPlugin<U> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoginPlugin")
            .field("keyword", &self.keyword)
            .field("page", &self.page)
            .finish_non_exhaustive()
    }
}

impl<U: Provided> Installation for LoginPlugin<U> {
    fn install(self, app: &mut App, location: &'static Location<'static>) -> Result<()> {
        let LoginPlugin { load, page, keyword, session } = self;
        let at = LoginPage(page.clone());
        let user = move |session: &mut Session, request: &Request, urls: &Urls| {
            let Some(user) = session.user_id() else { return Err(at.refuses(request, urls)) };
            match load(user) {
                Ok(Some(user)) => Ok(user),
                Ok(None) => {
                    session.log_out();
                    Err(at.refuses(request, urls))
                }
                Err(error) => Err(of_the_server(error)),
            }
        };
        if let Some(page) = page.clone() {
            app.login_pages.push(Located { function: page, location });
        }
        let last = move |session: &mut Session, _: &Request, _: &Urls| LastLogin {
            at: session.logged_in_at(),
            page: LoginPage(page.clone()),
        };
        let last_login = LAST_LOGIN.to_owned() + &keyword;
        provide(app, keyword, session, user, location);
        provide(app, last_login, session, last, location);
        Ok(())
    }
}

/// Adds a provider of what is made of the session of this keyword, or of the only one.
fn provide<M, P: Signature<M> + ProviderFn<M>>(
    app: &mut App,
    keyword: String,
    session: Option<&'static str>,
    make: P,
    location: &'static Location<'static>,
) {
    let bind = match session {
        None => provider(make),
        Some(session) => {
            // Once for each plugin of an app.
            let names = Box::leak(Box::new([session, "request", "urls"]));
            provider(Named { names, handler: make })
        }
    };
    app.providers.push(ProviderDefinition {
        number: 0,
        keyword,
        type_id: TypeId::of::<P::Value>(),
        type_name: type_name::<P::Value>(),
        bind,
        finish: None,
        location,
    });
}

/// What stands in front of a user's keyword in that of their last login.
const LAST_LOGIN: &str = "last login of ";

/// A guard that lets users pass who have logged in not longer ago than this: those for whom the route asks.
pub(super) fn recent(login: Duration, binder: &mut Binder<'_>) -> Option<HookCallback> {
    let keywords = binder.keywords_of::<LastLogin>();
    let users: Vec<&str> = keywords.iter().filter_map(|k| k.strip_prefix(LAST_LOGIN)).collect();
    let asked: Vec<&str> = match users[..] {
        [] => {
            binder.error("require_recent needs a LoginPlugin, and there is none here; install one");
            return None;
        }
        [one] => vec![one],
        _ => users.iter().copied().filter(|user| binder.is_asked_for(user)).collect(),
    };
    if asked.is_empty() {
        binder.error(format!(
            "require_recent does not know whose login is meant, as this asks for none of the users of keywords {}; \
             ask for that user, as in .require(|_: &User| true)",
            users.join(", ")
        ));
        return None;
    }
    let logins: Option<Vec<_>> = asked
        .iter()
        .map(|user| binder.ask_keyword::<LastLogin>(&format!("{LAST_LOGIN}{user}")))
        .collect();
    let logins = logins?;
    Some(Arc::new(move |exchange| {
        for last in &logins {
            let last = exchange.asked(last)?.clone();
            last.within(login, exchange.request(), exchange.urls())?;
        }
        Ok(None)
    }))
}

/// When the user of a request has logged in.
#[derive(Clone)]
pub(crate) struct LastLogin {
    at: Option<SystemTime>,
    page: LoginPage,
}

impl Provided for LastLogin {}

impl LastLogin {
    /// What answers where that is longer ago, or nobody is logged in.
    fn within(&self, time: Duration, request: &Request, urls: &Urls) -> Result<(), HttpError> {
        // A login by a clock that is ahead is a recent one.
        let is_recent = |at: SystemTime| at.elapsed().unwrap_or_default() <= time;
        if self.at.is_some_and(is_recent) { Ok(()) } else { Err(self.page.refuses(request, urls)) }
    }
}

/// Where one logs in.
#[derive(Clone)]
struct LoginPage(Option<Arc<str>>);

impl LoginPage {
    /// The answer to who is not logged in.
    fn refuses(&self, request: &Request, urls: &Urls) -> HttpError {
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        if let Some(page) = self.0.as_deref().filter(|_| is_read && accepts(request, "text/html")) {
            let next = format!("{}{}", request.prefix(), request.target());
            return match urls.build(page, &[("next", &next)]) {
                Ok(address) => redirect(address).into(),
                Err(error) => error.into(),
            };
        }
        let challenge = HeaderValue::from_static("Cookie");
        let error = HttpError::new(StatusCode::UNAUTHORIZED);
        let error = match accepts(request, "application/json") {
            true => {
                let body = serde_json::json!({ "error": "login_required" });
                HttpError::from(Json(body).into_response().with_status(401))
            }
            false => error.with_message("You are not logged in."),
        };
        error.with_header(header::WWW_AUTHENTICATE, challenge)
    }
}

/// Whether the request names this media type among those that it accepts (RFC 9110 section 12.5.1). What accepts anything is no
/// browser that shows a page.
fn accepts(request: &Request, media_type: &str) -> bool {
    weighted_items(request.headers(), header::ACCEPT)
        .any(|(named, weight)| named.eq_ignore_ascii_case(media_type) && weight > 0)
}

/// An error of the loader never passes for nobody, whatever status it has.
fn of_the_server(error: HttpError) -> HttpError {
    if error.status().is_server_error() {
        return error;
    }
    let text = format!("the user could not be loaded: the loader answered {}", error.status());
    Error::new(ErrorKind::Other, text).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;
    use http::uri::PathAndQuery;

    #[test]
    fn only_a_named_media_type_is_accepted() {
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        for (accept, html, json) in [
            (browser, true, false),
            ("*/*", false, false),
            ("", false, false),
            ("Text/HTML ; q=0.5", true, false),
            ("text/html;level=1; q = 0 , application/json", false, true),
            ("application/json, text/plain, */*", false, true),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]);
            let request = Request::new(Method::GET, PathAndQuery::from_static("/"));
            let request = request.with_headers(headers);
            let found = ["text/html", "application/json"].map(|wanted| accepts(&request, wanted));
            assert_eq!(found, [html, json], "{accept:?}");
        }
    }
}
