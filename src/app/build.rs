//! Builds a service of an app: parses rules, binds arguments to what provides them, has plugins wrap callbacks.

mod hooks;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use http::{Method, StatusCode};

use self::hooks::{BindPhase, watchers, with_guards};
use super::hooks::{Guard, Located};
use super::inheritance::Inherited;
use super::plugins::compatible;
use super::route::RouteDefinition;
use super::{App, Mount};
use crate::handler::{BindHook, BindPage, Function, Resolver, Wildcards, add_ask};
use crate::logging::ThrottledLog;
use crate::message::backtrace;
use crate::message::body::DEFAULT_BODY_LIMIT;
use crate::message::response::Response;
use crate::pipeline::debug::Debugging;
use crate::pipeline::expiring_flag::ExpiringFlag;
use crate::pipeline::plugin::{Callback, Plugin};
use crate::pipeline::route::Route;
use crate::pipeline::service::{Endpoint, Inner, Scope, Service, Target};
use crate::pipeline::serving::Servers;
use crate::pipeline::shutdown::ShutdownHandle;
use crate::pipeline::urls::Urls;
use crate::routing::{Accepts, Filters, Prefix, Router, Rule};
use crate::{Error, ErrorKind, Result};

/// The service of an app, or an error with everything in it that cannot work.
pub(crate) fn service(app: App) -> Result<Service> {
    let mut builder = Builder::default();
    let body_limit = app.body_limit.unwrap_or(DEFAULT_BODY_LIMIT);
    let debugging = app.debug.then(Debugging::default);
    builder.add_app(app, &Prefix::default(), Inherited::default());
    builder.add_aliases();
    builder.check_login_pages();
    let prefixes = builder.prefixes();
    if !builder.errors.is_empty() {
        builder.plugins.iter().for_each(|plugin| plugin.close());
        return Err(Error::many(builder.errors));
    }
    // What stands in for a route of the outermost app: there is none yet when a request arrives.
    let stand_in = builder.scopes.first().and_then(|scope| scope.unrouted.first());
    let arrivals = stand_in.map_or(Vec::new(), |(_, endpoint)| endpoint.watchers.clone());
    if debugging.is_some() {
        backtrace::install_panic_hook();
    }
    Ok(Service::new(Inner {
        router: builder.router,
        plugins: builder.plugins,
        arrivals,
        scopes: builder.scopes,
        prefixes,
        urls: Arc::new(builder.urls),
        unavailable: ThrottledLog::default(),
        servers: Servers::of(builder.shutdown),
        body_limit,
        debugging,
    }))
}

/// The state of a build.
#[derive(Default)]
struct Builder {
    router: Router<Target>,
    plugins: Vec<Arc<dyn Plugin>>,
    scopes: Vec<Scope>,
    /// What the app of each scope has for all its routes.
    parts: Vec<ScopeParts>,
    urls: Urls,
    /// The handle that will stop the server.
    shutdown: Arc<OnceLock<ShutdownHandle>>,
    errors: Vec<Error>,
    /// The errors that have been reported.
    reported: HashSet<String>,
    names: HashSet<String>,
    /// Rules that come by themselves, for paths that no other rule has.
    aliases: Vec<(Option<Method>, Rule, Target)>,
    /// Names of routes where one logs in.
    login_pages: Vec<Located<Arc<str>>>,
    /// How many providers there are.
    providers: usize,
    /// Those that a route has asked for, by their numbers.
    resolved: HashSet<usize>,
}

/// The guards, hooks and error pages that an app has for all its routes.
struct ScopeParts {
    level: usize,
    prefix: Prefix,
    guards: Vec<Located<Guard>>,
    after: Vec<Located<BindHook>>,
    pages: Vec<(Option<StatusCode>, Located<BindPage>)>,
}

impl Builder {
    fn add_app(&mut self, mut app: App, prefix: &Prefix, inherited: Inherited) {
        self.errors.append(&mut app.errors);
        self.login_pages.append(&mut app.login_pages);
        let scope = self.scopes.len();
        let first_slot = self.plugins.len();
        self.plugins.extend(app.plugins.iter().map(|installed| installed.plugin.clone()));
        let (parent, level) = (inherited.parent, inherited.level);
        let first_provider = self.providers;
        self.providers += app.providers.len();
        let inherited =
            inherited.with(&mut app, scope, first_slot, first_provider, &mut self.errors);
        self.scopes.push(Scope {
            parent,
            before: std::mem::take(&mut app.before),
            depth: prefix.depth(),
            problem_json: inherited.problem_json.unwrap_or(false),
            unrouted: Vec::new(),
        });
        self.parts.push(ScopeParts {
            level,
            prefix: prefix.clone(),
            guards: std::mem::take(&mut app.guards),
            after: std::mem::take(&mut app.after),
            pages: std::mem::take(&mut app.pages),
        });
        let mut mounts = app.mounts.into_iter().peekable();
        for (number, mut definition) in app.routes.into_iter().enumerate() {
            while let Some(mount) = mounts.next_if(|mount| mount.after <= number) {
                self.add_mount(mount, &app.filters, prefix, &inherited);
            }
            definition.body_limit = definition.body_limit.or(inherited.body_limit);
            self.add_route(definition, &inherited, &app.filters, prefix, scope);
        }
        for mount in mounts {
            self.add_mount(mount, &app.filters, prefix, &inherited);
        }
        self.add_unrouted(scope, &inherited);
        self.check_unasked(&inherited, scope);
    }

    fn add_mount(
        &mut self,
        mount: Mount,
        filters: &Filters,
        prefix: &Prefix,
        inherited: &Inherited,
    ) {
        match prefix.join(&mount.prefix, filters) {
            Ok(prefix) => {
                let inherited = match mount.app.isolated {
                    true => inherited.isolated(),
                    false => inherited.clone(),
                };
                self.add_app(mount.app, &prefix, inherited);
            }
            Err(error) => self.errors.push(error.at(mount.location)),
        }
    }

    fn add_route(
        &mut self,
        definition: RouteDefinition,
        inherited: &Inherited,
        filters: &Filters,
        prefix: &Prefix,
        scope: usize,
    ) {
        let location = definition.location;
        let errors_before = self.errors.len();
        let texts: Vec<_> = definition.rules.iter().map(|rule| prefix.text_with(rule)).collect();
        let mut rules = Vec::new();
        let mut without_slash = Vec::new();
        for (number, text) in definition.rules.iter().enumerate() {
            match prefix.rule(text, filters) {
                Ok(rule) => rules.push(rule),
                Err(error) => self.errors.push(error.at(location)),
            }
            if text == "/" && !prefix.is_empty() {
                without_slash.extend(prefix.rule("", filters).map(|rule| (number, rule)));
            }
        }
        let first_own = self.plugins.len();
        self.plugins.extend(definition.plugins.iter().map(|installed| installed.plugin.clone()));
        if self.errors.len() > errors_before {
            return;
        }
        let wildcards = collect_wildcards(&rules);
        let places = wildcards.rules.iter().map(|(_, places)| places.clone()).collect();
        let names = wildcards.names.clone();
        let title = format!("route {}", texts.join(", "));
        for unknown in definition.skip.unknown(&inherited.named()) {
            let text = format!("{title} skips what is not there: {unknown}");
            self.errors.push(Error::new(ErrorKind::Plugin, text).at(location));
        }
        let own = definition.plugins.iter().zip(first_own..);
        let wrapping: Vec<_> = inherited
            .plugins
            .iter()
            .filter(|(plugin, _)| !definition.skip.skips(&plugin.name, plugin.keyword()))
            .map(|(plugin, slot)| (plugin, *slot))
            .collect();
        for (plugin, _) in own.clone() {
            let fits = wrapping.iter().try_for_each(|(other, _)| {
                compatible(&plugin.name, plugin.provision.as_ref(), other)
            });
            let fits = fits.and_then(|()| inherited.check_keyword(plugin, &definition.skip));
            self.errors.extend(fits.err().map(|error| error.at(location)));
        }
        let sources = inherited.sources(own.clone(), &definition.skip);
        let mut resolver = Resolver::new(title.clone(), Some(location), sources, wildcards);
        let mut route = Route {
            methods: definition.methods,
            rules: texts,
            name: definition.name,
            config: definition.config,
            location,
            body_limit: definition.body_limit,
            scope,
            wildcards: names,
            places,
            asks: Vec::new(),
            keywords: Vec::new(),
        };
        let (own_guards, asks) = (&definition.guards, &mut route.asks);
        let mut guards =
            self.guards(&mut resolver, scope, own_guards, asks, BindPhase::BeforeHandler);
        let function = Function::handler();
        let (handler, asks) = resolver.bind(function, |binder| (definition.bind)(binder));
        asks.plugins.into_iter().for_each(|ask| add_ask(&mut route.asks, ask));
        let asks = &mut route.asks;
        guards.extend(self.guards(&mut resolver, scope, own_guards, asks, BindPhase::AfterHandler));
        guards.sort_by_key(|(place, _)| *place);
        let hooks = self.route_hooks(&mut resolver, scope);
        hooks.asks.iter().for_each(|ask| add_ask(&mut route.asks, *ask));
        route.keywords = resolver.keywords();
        let wrapping: Vec<_> = wrapping.into_iter().chain(own).collect();
        for (plugin, _) in &wrapping {
            for keyword in plugin.plugin.uses(&route) {
                match resolver.use_keyword(&keyword) {
                    Some(asks) => asks.into_iter().for_each(|ask| add_ask(&mut route.asks, ask)),
                    None => {
                        let name = &plugin.name;
                        let text = format!(
                            "{title}: plugin {name:?} uses keyword {keyword:?}, which no plugin on this \
                             route has; install that plugin, or skip {name:?} here"
                        );
                        self.errors.push(Error::new(ErrorKind::Plugin, text).at(location));
                    }
                }
            }
        }
        route.keywords = resolver.keywords();
        self.report(&mut resolver);
        // What could not be bound has said so, and the app is never built with it.
        let handler = handler.unwrap_or_else(|| Callback::new(|_| Response::new(500)));
        let watchers = watchers(wrapping.iter().copied(), &route);
        let mut callback = inherited.converters.wrap(with_guards(guards, handler));
        for (plugin, _) in wrapping.iter().rev() {
            callback = plugin.plugin.apply(callback, &route);
        }
        let accepts = std::mem::take(&mut resolver.accepts);
        let endpoint = Endpoint {
            route,
            callback,
            arguments: resolver.arguments,
            converters: inherited.converters.clone(),
            is_route: true,
            has_early: hooks.has_early(),
            providers: resolver.providers,
            pages: hooks.pages,
            after: hooks.after,
            handler_blocks: ExpiringFlag::default(),
            shutdown: self.shutdown.clone(),
            watchers,
        };
        self.add_endpoint(endpoint, rules, without_slash, &accepts);
    }

    /// Reports the problems that the resolver found, each once.
    fn report(&mut self, resolver: &mut Resolver) {
        self.resolved.extend(resolver.resolved_providers());
        for trouble in resolver.problems.drain(..) {
            if self.reported.insert(trouble.key) {
                self.errors.push(trouble.error);
            }
        }
    }

    /// Providers that no route asks for must find what they need all the same.
    fn check_unasked(&mut self, inherited: &Inherited, scope: usize) {
        let mut resolver = inherited.resolver(Wildcards { unknown: true, ..Wildcards::default() });
        for number in inherited.own_providers(scope) {
            if !self.resolved.contains(&number) {
                resolver.resolve_provider(number);
            }
        }
        self.report(&mut resolver);
    }

    fn add_endpoint(
        &mut self,
        endpoint: Endpoint,
        rules: Vec<Rule>,
        without_slash: Vec<(usize, Rule)>,
        accepts: &[(usize, Accepts)],
    ) {
        let endpoint = Arc::new(endpoint);
        let route = &endpoint.route;
        if let Some(name) = &route.name {
            if !self.names.insert(name.clone()) {
                let text = format!("two routes are named {name:?}; a name leads to one route");
                self.errors.push(Error::new(ErrorKind::Route, text).at(route.location));
            }
            rules.iter().for_each(|rule| self.urls.add(name, rule.clone()));
        }
        let methods: Vec<Option<Method>> = match route.methods.as_slice() {
            [] => vec![None],
            methods => methods.iter().cloned().map(Some).collect(),
        };
        let target = |number: usize| {
            let accepts = accepts.iter().filter_map(|(wildcard, accepts)| {
                Some((route.capture_index(number, *wildcard)?, *accepts))
            });
            Target { endpoint: endpoint.clone(), rule: number, accepts: accepts.collect() }
        };
        for (number, rule) in rules.into_iter().enumerate() {
            for method in &methods {
                let inserted = self.router.insert(method.clone(), rule.clone(), target(number));
                if let Err(other) = inserted {
                    self.errors.push(conflict(method, &rule, route, other));
                }
            }
        }
        for (number, rule) in without_slash {
            let aliases =
                methods.iter().map(|method| (method.clone(), rule.clone(), target(number)));
            self.aliases.extend(aliases);
        }
    }

    fn check_login_pages(&mut self) {
        for Located { function: name, location } in std::mem::take(&mut self.login_pages) {
            if let Err(error) = self.urls.build(&name, &[("next", "/")]) {
                let text = format!(
                    "login_page({name:?}) leads nowhere: {error}; call .name({name:?}) on the route where one logs in"
                );
                self.errors.push(Error::new(ErrorKind::Route, text).at(location));
            }
        }
    }

    fn add_aliases(&mut self) {
        for (method, rule, target) in std::mem::take(&mut self.aliases) {
            // A rule that was written goes before one that comes by itself.
            let _ = self.router.insert(method, rule, target);
        }
    }

    /// Which scope the paths belong to that no route has: the innermost one.
    fn prefixes(&self) -> Router<usize> {
        let mut router = Router::new();
        let mut scopes: Vec<_> =
            self.parts.iter().enumerate().filter(|(_, parts)| !parts.prefix.is_empty()).collect();
        scopes.sort_by_key(|(_, parts)| std::cmp::Reverse(parts.level));
        for (scope, parts) in scopes {
            for text in ["", "/", "/<:path>"] {
                if let Ok(rule) = parts.prefix.rule(text, &Filters::default()) {
                    // Of two with one prefix, the first one.
                    let _ = router.insert(None, rule, scope);
                }
            }
        }
        router
    }
}

fn conflict(method: &Option<Method>, rule: &Rule, route: &Route, other: &Target) -> Error {
    let other = &other.endpoint.route;
    let method = method.as_ref().map_or("ANY", Method::as_str);
    let text = format!(
        "{method} {} is registered already, as {} at {}:{}; two routes are told apart by their methods, \
         their texts or their filters, as in <id:int>",
        rule.text(),
        other.rules.join(", "),
        other.location.file(),
        other.location.line()
    );
    Error::new(ErrorKind::Route, text).at(route.location)
}

/// The wildcards of all rules, in the order of the rule that has most of them.
fn collect_wildcards(rules: &[Rule]) -> Wildcards {
    let mut names: Vec<String> = Vec::new();
    let mut longest_first: Vec<&Rule> = rules.iter().collect();
    longest_first.sort_by_key(|rule| std::cmp::Reverse(rule.wildcards().count()));
    for name in longest_first.iter().flat_map(|rule| rule.wildcards()) {
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    let places = |rule: &Rule| -> Vec<Option<usize>> {
        let own: HashMap<&str, usize> = rule.wildcards().zip(0..).collect();
        names.iter().map(|name| own.get(name.as_str()).copied()).collect()
    };
    let floats = names.iter().map(|name| rules.iter().any(|rule| rule.has_float(name))).collect();
    let rules = rules.iter().map(|rule| (rule.text().to_owned(), places(rule))).collect();
    Wildcards { names, floats, rules, unknown: false }
}
