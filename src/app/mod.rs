//! The app: routes, plugins, hooks, error pages, mounted apps.

mod build;
mod composition;
mod data;
mod errors;
mod files;
mod hooks;
mod inheritance;
mod login;
mod plugins;
mod route;

use std::panic::Location;
use std::sync::Arc;

use http::{Extensions, Method, StatusCode};

use crate::handler::{self, BindHook, BindPage, Handler, ProviderDefinition, Signature, Source};
use crate::pipeline::error_converters::Converter;
use crate::pipeline::service::{BeforeHook, Service};
use crate::pipeline::urls::Urls;
use crate::routing::{Filter, Filters, Prefix};
use crate::server::{self, ShutdownHandle};
use crate::{Error, ErrorKind, Result};

pub use composition::{GroupOutcome, MountOptions, ProviderOptions};
pub use data::DataOptions;
use hooks::{Guard, Located};
pub use login::LoginPlugin;
pub use plugins::Installation;
use plugins::InstalledPlugin;
pub use route::{IntoMethods, IntoRules, RouteOptions};
use route::{RouteDefinition, Skip};

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
    pub(crate) providers: Vec<ProviderDefinition>,
    pub(crate) states: Vec<Source>,
    pub(crate) routes: Vec<RouteDefinition>,
    /// Names of routes that there must be, each with who needs it.
    pub(crate) login_pages: Vec<Located<Arc<str>>>,
    pub(crate) filters: Filters,
    pub(crate) before: Vec<BeforeHook>,
    pub(crate) guards: Vec<Located<Guard>>,
    /// The one added last comes first.
    pub(crate) after: Vec<Located<BindHook>>,
    /// By status; `None` is for all.
    pub(crate) pages: Vec<(Option<StatusCode>, Located<BindPage>)>,
    /// What errors of its own types are answered with.
    pub(crate) converters: Vec<Converter>,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) errors: Vec<Error>,
    pub(crate) body_limit: Option<u64>,
    /// What the app around has does not hold here.
    pub(crate) isolated: bool,
    pub(crate) problem_json: Option<bool>,
    pub(crate) debug: bool,
    log_to_stderr: bool,
}

/// An app inside another one.
pub(crate) struct Mount {
    pub(crate) prefix: String,
    pub(crate) app: App,
    /// How many routes of the app around were declared before it.
    pub(crate) after: usize,
    pub(crate) location: &'static Location<'static>,
}

impl App {
    /// An app without routes or plugins.
    pub fn new() -> App {
        App {
            plugins: Vec::new(),
            providers: Vec::new(),
            login_pages: Vec::new(),
            states: Vec::new(),
            routes: Vec::new(),
            filters: Filters::default(),
            before: Vec::new(),
            guards: Vec::new(),
            after: Vec::new(),
            pages: Vec::new(),
            converters: Vec::new(),
            mounts: Vec::new(),
            errors: Vec::new(),
            body_limit: None,
            isolated: false,
            problem_json: None,
            debug: false,
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
        self.routes.push(RouteDefinition {
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
        for route in &self.routes {
            let Some(name) = &route.name else { continue };
            for rule in &route.rules {
                let rule =
                    prefix.rule(rule, &self.filters).map_err(|error| error.at(route.location))?;
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
        let rules: Vec<_> = self.routes.iter().flat_map(|route| &route.rules).collect();
        f.debug_struct("App").field("rules", &rules).finish_non_exhaustive()
    }
}
