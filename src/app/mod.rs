//! The app: routes, plugins, hooks, error pages, mounted apps.

mod build;
mod inherit;
mod parts;

use std::panic::Location;
use std::sync::Arc;

use http::{Extensions, Method, StatusCode};

use crate::handler::{
    self, BindHook, BindPage, BindReply, Handler, Hook, ProviderDraft, Signature, Source,
};
use crate::message::into_response::HookOutcome;
use crate::message::request::Request;
use crate::message::status::IntoStatus;
use crate::pipeline::plugin::{Installed, Plugin, Provision};
use crate::pipeline::service::{BeforeHook, Service, Urls};
use crate::routing::{Filter, Filters, Prefix};
use crate::server::{self, ShutdownHandle};
use crate::{Error, ErrorKind, Result};

pub use parts::{GroupOutcome, MountOptions, ProviderOptions};

/// A Bottle-style app: routes and what goes with them.
///
/// Registering never fails on the spot; [`build`](App::build) (and [`run`](App::run)) report all that
/// cannot work at once, each with file and line.
///
/// ```
/// use bottle_session::{App, TestClient};
///
/// let mut app = App::new();
/// app.get(["/hello", "/hello/<name>"], |name: Option<&str>| {
///     format!("Hello, {}", name.unwrap_or("stranger"))
/// });
/// let client = TestClient::new(app)?;
/// assert_eq!(client.get("/hello/Ada").send().text(), "Hello, Ada");
/// # Ok::<(), bottle_session::Error>(())
/// ```
pub struct App {
    pub(crate) plugins: Vec<InstalledPlugin>,
    pub(crate) providers: Vec<ProviderDraft>,
    pub(crate) states: Vec<Source>,
    pub(crate) drafts: Vec<Draft>,
    pub(crate) filters: Filters,
    pub(crate) before: Vec<BeforeHook>,
    pub(crate) guards: Vec<Placed<BindHook>>,
    /// The one added last comes first.
    pub(crate) after: Vec<Placed<BindHook>>,
    /// By status; `None` is for all.
    pub(crate) pages: Vec<(Option<StatusCode>, Placed<BindPage>)>,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) errors: Vec<Error>,
    pub(crate) body_limit: Option<u64>,
    /// What the app around has does not hold here.
    pub(crate) isolated: bool,
    log_to_stderr: bool,
}

/// A function and where it was given.
#[derive(Clone)]
pub(crate) struct Placed<T> {
    pub(crate) function: T,
    pub(crate) location: &'static Location<'static>,
}

/// An app inside another one.
pub(crate) struct Mount {
    pub(crate) prefix: String,
    pub(crate) app: App,
    /// How many routes of the app around were declared before it.
    pub(crate) after: usize,
    pub(crate) location: &'static Location<'static>,
}

#[derive(Clone)]
pub(crate) struct InstalledPlugin {
    pub(crate) plugin: Arc<dyn Plugin>,
    pub(crate) name: String,
    pub(crate) provision: Option<Provision>,
    pub(crate) location: &'static Location<'static>,
}

/// A route before the app is built.
pub(crate) struct Draft {
    pub(crate) methods: Vec<Method>,
    pub(crate) rules: Vec<String>,
    pub(crate) bind: BindReply,
    pub(crate) guards: Vec<Placed<BindHook>>,
    pub(crate) name: Option<String>,
    pub(crate) skip: Skip,
    pub(crate) plugins: Vec<InstalledPlugin>,
    pub(crate) config: Extensions,
    pub(crate) body_limit: Option<u64>,
    pub(crate) location: &'static Location<'static>,
}

#[derive(Default)]
pub(crate) struct Skip {
    all: bool,
    names: Vec<String>,
    keywords: Vec<String>,
}

impl Skip {
    /// What it names that is not among these, which have a name and perhaps a keyword.
    pub(crate) fn unknown(&self, there: &[(&str, Option<&str>)]) -> Vec<String> {
        let names: Vec<_> = there.iter().map(|(name, _)| *name).collect();
        let keywords: Vec<_> = there.iter().filter_map(|(_, keyword)| *keyword).collect();
        let told = |known: &[&str]| match known {
            [] => "none".to_owned(),
            known => known.join(", "),
        };
        let unknown = |what: &str, skipped: &[String], known: &[&str]| {
            let lacks = skipped.iter().filter(|name| !known.contains(&name.as_str()));
            let told = told(known);
            lacks.map(|name| format!("{what} {name:?}; known: {told}")).collect::<Vec<_>>()
        };
        let mut all = unknown("plugin", &self.names, &names);
        all.extend(unknown("keyword", &self.keywords, &keywords));
        all
    }

    pub(crate) fn skips(&self, name: &str, keyword: Option<&str>) -> bool {
        self.all
            || self.names.iter().any(|known| known == name)
            || keyword.is_some_and(|keyword| self.keywords.iter().any(|known| known == keyword))
    }
}

impl App {
    /// An app without routes or plugins.
    pub fn new() -> App {
        App {
            plugins: Vec::new(),
            providers: Vec::new(),
            states: Vec::new(),
            drafts: Vec::new(),
            filters: Filters::default(),
            before: Vec::new(),
            guards: Vec::new(),
            after: Vec::new(),
            pages: Vec::new(),
            mounts: Vec::new(),
            errors: Vec::new(),
            body_limit: None,
            isolated: false,
            log_to_stderr: true,
        }
    }

    /// Routes GET requests for `rule` to `handler`, and HEAD requests where no route has them.
    #[track_caller]
    pub fn get<M, H: Signature<M> + Handler<M>>(
        &mut self,
        rule: impl IntoRules,
        handler: H,
    ) -> RouteOptions<'_> {
        self.route(Method::GET, rule, handler)
    }

    /// Routes POST requests for `rule` to `handler`.
    #[track_caller]
    pub fn post<M, H: Signature<M> + Handler<M>>(
        &mut self,
        rule: impl IntoRules,
        handler: H,
    ) -> RouteOptions<'_> {
        self.route(Method::POST, rule, handler)
    }

    /// Routes PUT requests for `rule` to `handler`.
    #[track_caller]
    pub fn put<M, H: Signature<M> + Handler<M>>(
        &mut self,
        rule: impl IntoRules,
        handler: H,
    ) -> RouteOptions<'_> {
        self.route(Method::PUT, rule, handler)
    }

    /// Routes PATCH requests for `rule` to `handler`.
    #[track_caller]
    pub fn patch<M, H: Signature<M> + Handler<M>>(
        &mut self,
        rule: impl IntoRules,
        handler: H,
    ) -> RouteOptions<'_> {
        self.route(Method::PATCH, rule, handler)
    }

    /// Routes DELETE requests for `rule` to `handler`.
    #[track_caller]
    pub fn delete<M, H: Signature<M> + Handler<M>>(
        &mut self,
        rule: impl IntoRules,
        handler: H,
    ) -> RouteOptions<'_> {
        self.route(Method::DELETE, rule, handler)
    }

    /// Routes requests of these methods (`"ANY"` for any) for one rule or several to `handler`.
    #[track_caller]
    pub fn route<M, H: Signature<M> + Handler<M>>(
        &mut self,
        methods: impl IntoMethods,
        rules: impl IntoRules,
        handler: H,
    ) -> RouteOptions<'_> {
        let location = Location::caller();
        let methods = methods.into_methods().unwrap_or_else(|name| {
            let text = match name.is_empty() {
                true => "a route needs a method such as \"GET\", or \"ANY\" for all".to_owned(),
                false => format!("{name:?} is no HTTP method; methods are tokens such as \"GET\""),
            };
            self.errors.push(Error::new(ErrorKind::Route, text).at(location));
            Vec::new()
        });
        let rules = rules.into_rules();
        if rules.is_empty() {
            let text = "a route needs at least one rule";
            self.errors.push(Error::new(ErrorKind::Route, text).at(location));
        }
        self.drafts.push(Draft {
            methods,
            rules,
            bind: handler::reply(handler),
            guards: Vec::new(),
            name: None,
            skip: Skip::default(),
            plugins: Vec::new(),
            config: Extensions::new(),
            body_limit: None,
            location,
        });
        RouteOptions { app: self }
    }

    /// Installs a plugin for all routes of this app, those registered before included.
    ///
    /// Fails where the plugin refuses, or where another one has its keyword.
    #[track_caller]
    pub fn install(&mut self, plugin: impl Plugin) -> Result<&mut App> {
        let location = Location::caller();
        let unique = |name: &str, provision: Option<&Provision>| {
            self.plugins.iter().try_for_each(|other| compatible(name, provision, other))
        };
        let installed = prepared(plugin, &self.plugins, &[], unique, location);
        let installed = installed.map_err(|error| error.at(location))?;
        self.plugins.push(installed);
        Ok(self)
    }

    /// Uninstalls and closes all plugins of this name, and says how many there were. A provider goes by its keyword.
    pub fn uninstall(&mut self, name: &str) -> usize {
        self.uninstall_where(|installed| installed.name == name) + self.withdraw(name)
    }

    /// Uninstalls and closes the plugin, or the provider, of this keyword, and says whether there was one.
    pub fn uninstall_keyword(&mut self, keyword: &str) -> bool {
        let of_keyword = |installed: &InstalledPlugin| installed.keyword() == Some(keyword);
        self.uninstall_where(of_keyword) + self.withdraw(keyword) > 0
    }

    fn withdraw(&mut self, keyword: &str) -> usize {
        let before = self.providers.len();
        self.providers.retain(|provider| provider.keyword != keyword);
        before - self.providers.len()
    }

    fn uninstall_where(&mut self, goes: impl Fn(&InstalledPlugin) -> bool) -> usize {
        let before = self.plugins.len();
        self.plugins.retain(|installed| {
            let goes = goes(installed);
            if goes {
                installed.plugin.close();
            }
            !goes
        });
        before - self.plugins.len()
    }

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
    /// first, then those added first, then the [guards of the route](RouteOptions::before).
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
        self.guards.push(Placed { function: handler::hook(guard), location: Location::caller() });
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
        let placed = Placed { function: handler::hook(hook), location: Location::caller() };
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
        let page = (status, Placed { function: handler::page(page), location });
        match status {
            // A page for the status goes before one for all.
            Some(_) => self.pages.insert(0, page),
            None => self.pages.push(page),
        }
    }

    /// Adds a filter that rules of this app can name: `<color:hex>`. It is made anew for each wildcard,
    /// from the wildcard's configuration.
    pub fn filter(
        &mut self,
        name: impl Into<String>,
        make: impl Fn(Option<&str>) -> Result<Filter> + Send + Sync + 'static,
    ) -> &mut App {
        self.filters.add(name, make);
        self
    }

    /// How much of a request's body is read into memory: 1 MiB unless set; a route can have its own.
    pub fn body_limit(&mut self, bytes: u64) -> &mut App {
        self.body_limit = Some(bytes);
        self
    }

    /// Builds the address of a named route of this app; see [`Urls::build`].
    pub fn url(&self, name: &str, arguments: &[(&str, &str)]) -> Result<String> {
        let mut urls = Urls::default();
        self.collect_urls(&Prefix::default(), &mut urls)?;
        urls.build(name, arguments)
    }

    fn collect_urls(&self, prefix: &Prefix, urls: &mut Urls) -> Result<()> {
        for draft in &self.drafts {
            let Some(name) = &draft.name else { continue };
            for rule in &draft.rules {
                let rule =
                    prefix.rule(rule, &self.filters).map_err(|error| error.at(draft.location))?;
                urls.add(name, rule);
            }
        }
        self.mounts.iter().try_for_each(|mount| {
            let prefix = prefix
                .join(&mount.prefix, &self.filters)
                .map_err(|error| error.at(mount.location))?;
            mount.app.collect_urls(&prefix, urls)
        })
    }

    /// Checks everything and makes a [`Service`]. The error holds all that cannot work.
    pub fn build(self) -> Result<Service> {
        build::service(self)
    }

    /// Whether [`run`](App::run) writes log lines to standard error where no logger is installed: true unless set.
    pub fn log_to_stderr(&mut self, wanted: bool) -> &mut App {
        self.log_to_stderr = wanted;
        self
    }

    /// Builds the app and serves it on this address until SIGINT or SIGTERM; with TLS where it begins with `https://`
    /// (feature `https`). [`server::bind`](crate::server::bind) says what addresses there are.
    ///
    /// A request that is running then is finished; a second signal ends the program at once.
    ///
    /// Where the program has installed no logger, log lines from `info` upwards are written to standard error: where it
    /// listens, why an answer is a 500. [`log_to_stderr(false)`](App::log_to_stderr) says no.
    pub fn run(self, address: &str) -> Result<()> {
        if self.log_to_stderr {
            crate::logging::log_to_stderr();
        }
        let service = self.build()?;
        let shutdown = ShutdownHandle::new();
        shutdown.on_signals()?;
        server::run(address, service, &shutdown)
    }
}

impl Default for App {
    fn default() -> App {
        App::new()
    }
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rules: Vec<_> = self.drafts.iter().flat_map(|draft| &draft.rules).collect();
        f.debug_struct("App").field("rules", &rules).finish_non_exhaustive()
    }
}

impl InstalledPlugin {
    pub(crate) fn keyword(&self) -> Option<&str> {
        self.provision.as_ref().map(Provision::keyword)
    }
}

/// Sets a plugin up among those that are there already, if `compatible` lets it.
fn prepared(
    mut plugin: impl Plugin,
    outer: &[InstalledPlugin],
    inner: &[InstalledPlugin],
    compatible: impl FnOnce(&str, Option<&Provision>) -> Result<()>,
    location: &'static Location<'static>,
) -> Result<InstalledPlugin> {
    let provision = plugin.provides();
    let name = plugin.name().to_owned();
    compatible(&name, provision.as_ref())?;
    let others: Vec<_> = outer
        .iter()
        .chain(inner)
        .map(|other| (other.name.clone(), other.provision.clone()))
        .collect();
    plugin.setup(&Installed { plugins: &others })?;
    Ok(InstalledPlugin { plugin: Arc::new(plugin), name, provision, location })
}

/// Whether a plugin of this name and provision can be where another one is.
pub(crate) fn compatible(
    name: &str,
    provision: Option<&Provision>,
    other: &InstalledPlugin,
) -> Result<()> {
    let (Some(provision), Some(theirs)) = (provision, &other.provision) else { return Ok(()) };
    let (keyword, other) = (&provision.keyword, &other.name);
    let refused = |text: String| Err(Error::new(ErrorKind::Plugin, text));
    if *keyword == theirs.keyword {
        return refused(format!(
            "plugin {name:?} cannot have keyword {keyword:?}, which plugin {other:?} has; give one of them \
             another with keyword(…)"
        ));
    }
    match &provision.claim {
        Some(claim) if theirs.claim.as_ref() == Some(claim) => refused(format!(
            "plugin {name:?} cannot have {claim}, which plugin {other:?} with keyword {:?} has; give one of \
             them another",
            theirs.keyword
        )),
        _ => Ok(()),
    }
}

/// What a route takes besides rule and handler; returned by [`App::get`] and its like.
pub struct RouteOptions<'a> {
    app: &'a mut App,
}

impl RouteOptions<'_> {
    fn draft(&mut self) -> &mut Draft {
        let last = self.app.drafts.len() - 1;
        &mut self.app.drafts[last]
    }

    /// Names the route, for [`App::url`].
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.draft().name = Some(name.into());
        self
    }

    /// Does without the plugins of this name. An error when the app is built, where it has none.
    pub fn skip(mut self, plugin: impl Into<String>) -> Self {
        self.draft().skip.names.push(plugin.into());
        self
    }

    /// Does without the plugin of this keyword. An error when the app is built, where none has it.
    pub fn skip_keyword(mut self, keyword: impl Into<String>) -> Self {
        self.draft().skip.keywords.push(keyword.into());
        self
    }

    /// Does without any of the app's plugins.
    pub fn skip_all(mut self) -> Self {
        self.draft().skip.all = true;
        self
    }

    /// Adds a plugin for this route only, inside the app's.
    #[track_caller]
    pub fn apply(self, plugin: impl Plugin) -> Self {
        let location = Location::caller();
        let last = self.app.drafts.len() - 1;
        let own = &self.app.drafts[last].plugins;
        // Those of the app are looked at when it is built: more may come, and the route may skip some.
        let unique = |name: &str, provision: Option<&Provision>| {
            own.iter().try_for_each(|other| compatible(name, provision, other))
        };
        match prepared(plugin, &self.app.plugins, own, unique, location) {
            Ok(installed) => self.app.drafts[last].plugins.push(installed),
            Err(error) => self.app.errors.push(error.at(location)),
        }
        self
    }

    /// Runs `guard` before the handler, after those of the app; see [`App::before`].
    #[track_caller]
    pub fn before<M, G: Signature<M> + Hook<M>>(mut self, guard: G) -> Self {
        let placed = Placed { function: handler::hook(guard), location: Location::caller() };
        self.draft().guards.push(placed);
        self
    }

    /// Attaches a setting, which plugins find by its type with [`Route::config`](crate::Route::config).
    pub fn config<T: Clone + Send + Sync + 'static>(mut self, setting: T) -> Self {
        self.draft().config.insert(setting);
        self
    }

    /// How much of a request's body this route reads into memory.
    pub fn body_limit(mut self, bytes: u64) -> Self {
        self.draft().body_limit = Some(bytes);
        self
    }
}

/// One rule or several.
pub trait IntoRules {
    /// Their texts.
    fn into_rules(self) -> Vec<String>;
}

impl IntoRules for &str {
    fn into_rules(self) -> Vec<String> {
        vec![self.to_owned()]
    }
}

impl IntoRules for String {
    fn into_rules(self) -> Vec<String> {
        vec![self]
    }
}

impl<T: Into<String>, const N: usize> IntoRules for [T; N] {
    fn into_rules(self) -> Vec<String> {
        self.into_iter().map(Into::into).collect()
    }
}

impl<T: Into<String>> IntoRules for Vec<T> {
    fn into_rules(self) -> Vec<String> {
        self.into_iter().map(Into::into).collect()
    }
}

/// One method, several, or `"ANY"`.
pub trait IntoMethods {
    /// The methods, none for any; or the name that is no method.
    fn into_methods(self) -> std::result::Result<Vec<Method>, String>;
}

impl IntoMethods for Method {
    fn into_methods(self) -> std::result::Result<Vec<Method>, String> {
        Ok(vec![self])
    }
}

impl IntoMethods for &str {
    fn into_methods(self) -> std::result::Result<Vec<Method>, String> {
        if self.eq_ignore_ascii_case("ANY") {
            return Ok(Vec::new());
        }
        // As in Bottle, "get" is GET.
        Method::from_bytes(self.to_ascii_uppercase().as_bytes())
            .map(|method| vec![method])
            .map_err(|_| self.to_owned())
    }
}

impl<T: IntoMethods, const N: usize> IntoMethods for [T; N] {
    fn into_methods(self) -> std::result::Result<Vec<Method>, String> {
        if N == 0 {
            // Not any method, which is what none of them would mean below.
            return Err(String::new());
        }
        let mut all = Vec::new();
        for methods in self {
            let methods = methods.into_methods()?;
            if methods.is_empty() {
                return Ok(methods);
            }
            all.extend(methods);
        }
        Ok(all)
    }
}
