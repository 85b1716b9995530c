//! From an app to a service: rules are read, arguments find what they ask for, plugins wrap callbacks.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use http::Method;

use crate::app::{App, Draft, InstalledPlugin, Mount, compatible};
use crate::handler::{Binder, Provider, Wildcards};
use crate::logging::Recurring;
use crate::message::request::DEFAULT_BODY_LIMIT;
use crate::pipeline::plugin::{Ask, Plugin, Route};
use crate::pipeline::service::{Endpoint, Inner, Scope, Service, Target, Urls};
use crate::pipeline::slow::Slow;
use crate::routing::Accepts;
use crate::routing::{Filters, Prefix, Router, Rule};
use crate::{Error, ErrorKind, Result};

/// The service of an app, or all that cannot work.
pub(crate) fn service(app: App) -> Result<Service> {
    let mut building = Building {
        router: Router::new(),
        plugins: Vec::new(),
        scopes: Vec::new(),
        urls: Urls::default(),
        errors: Vec::new(),
        names: HashSet::new(),
    };
    let body_limit = app.body_limit.unwrap_or(DEFAULT_BODY_LIMIT);
    building.add_app(app, &Prefix::default(), None, None);
    if !building.errors.is_empty() {
        building.plugins.iter().for_each(|plugin| plugin.close());
        return Err(Error::many(building.errors));
    }
    Ok(Service::new(Inner {
        router: building.router,
        plugins: building.plugins,
        scopes: building.scopes,
        urls: Arc::new(building.urls),
        unavailable: Recurring::default(),
        body_limit,
    }))
}

/// An app on its way to a service.
struct Building {
    router: Router<Target>,
    plugins: Vec<Arc<dyn Plugin>>,
    scopes: Vec<Scope>,
    urls: Urls,
    errors: Vec<Error>,
    names: HashSet<String>,
}

impl Building {
    fn add_app(
        &mut self,
        app: App,
        prefix: &Prefix,
        parent: Option<usize>,
        body_limit: Option<u64>,
    ) {
        self.errors.extend(app.errors);
        let scope = self.scopes.len();
        self.scopes.push(Scope { parent, ..app.scope });
        let body_limit = app.body_limit.or(body_limit);
        let first_slot = self.plugins.len();
        self.plugins.extend(app.plugins.iter().map(|installed| installed.plugin.clone()));
        let mut mounts = app.mounts.into_iter().peekable();
        for (number, mut draft) in app.drafts.into_iter().enumerate() {
            while let Some(mount) = mounts.next_if(|mount| mount.after <= number) {
                self.add_mount(mount, &app.filters, prefix, scope, body_limit);
            }
            draft.body_limit = draft.body_limit.or(body_limit);
            self.add_route(draft, &app.plugins, first_slot, &app.filters, prefix, scope);
        }
        for mount in mounts {
            self.add_mount(mount, &app.filters, prefix, scope, body_limit);
        }
    }

    fn add_mount(
        &mut self,
        mount: Mount,
        filters: &Filters,
        prefix: &Prefix,
        scope: usize,
        body_limit: Option<u64>,
    ) {
        match prefix.join(&mount.prefix, filters) {
            Ok(prefix) => self.add_app(mount.app, &prefix, Some(scope), body_limit),
            Err(error) => self.errors.push(error.at(mount.location)),
        }
    }

    fn add_route(
        &mut self,
        draft: Draft,
        installed: &[InstalledPlugin],
        first_slot: usize,
        filters: &Filters,
        prefix: &Prefix,
        scope: usize,
    ) {
        let location = draft.location;
        let errors_before = self.errors.len();
        let texts: Vec<_> = draft.rules.iter().map(|rule| prefix.text_with(rule)).collect();
        let mut rules = Vec::new();
        for text in &draft.rules {
            match prefix.rule(text, filters) {
                Ok(rule) => rules.push(rule),
                Err(error) => self.errors.push(error.at(location)),
            }
        }
        let first_own = self.plugins.len();
        self.plugins.extend(draft.plugins.iter().map(|installed| installed.plugin.clone()));
        if self.errors.len() > errors_before {
            return;
        }
        let wildcards = gathered(&rules);
        let slots = (installed.iter().zip(first_slot..).map(|(p, slot)| (p, slot, false)))
            .chain(draft.plugins.iter().zip(first_own..).map(|(p, slot)| (p, slot, true)));
        let slots: Vec<_> = slots
            .map(|(plugin, slot, own)| (plugin, slot, !own && draft.skip.skips(plugin)))
            .collect();
        let providers: Vec<_> = slots.iter().filter_map(provider).collect();
        let title = format!("route {}", texts.join(", "));
        for unknown in draft.skip.unknown(installed) {
            let text = format!("{title} skips what is not there: {unknown}");
            self.errors.push(Error::new(ErrorKind::Plugin, text).at(location));
        }
        let around = slots.iter().filter(|(_, slot, skipped)| *slot < first_own && !skipped);
        for own in &draft.plugins {
            let fits = |other| compatible(&own.name, own.provision.as_ref(), other);
            let fits = around.clone().try_for_each(|(other, ..)| fits(other));
            self.errors.extend(fits.err().map(|error| error.at(location)));
        }
        let mut binder = Binder::new(title.clone(), &providers, &wildcards);
        let mut callback = (draft.bind)(&mut binder);
        let bound = binder.finish();
        self.errors.extend(bound.errors.into_iter().map(|error| error.at(location)));
        let mut route = Route {
            methods: draft.methods,
            rules: texts,
            name: draft.name,
            config: draft.config,
            location,
            body_limit: draft.body_limit,
            scope,
            wildcards: wildcards.names,
            places: wildcards.rules.into_iter().map(|(_, places)| places).collect(),
            asks: bound.asks,
            keywords: providers
                .iter()
                .filter(|provider| !provider.skipped)
                .map(|provider| (provider.keyword.clone(), provider.slot))
                .collect(),
        };
        let wrapping = slots.iter().filter(|(_, _, skipped)| !skipped);
        for (plugin, _, _) in wrapping.clone() {
            for keyword in plugin.plugin.uses(&route) {
                match route.slot_of(&keyword) {
                    Some(slot) if route.asks(slot) => {}
                    Some(slot) => route.asks.push(Ask { slot, required: true }),
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
        for (plugin, _, _) in wrapping.rev() {
            callback = plugin.plugin.apply(callback, &route);
        }
        self.add_endpoint(Endpoint { route, callback, slow: Slow::default() }, rules, &bound.fits);
    }

    fn add_endpoint(&mut self, endpoint: Endpoint, rules: Vec<Rule>, fits: &[(usize, Accepts)]) {
        let endpoint = Arc::new(endpoint);
        let route = &endpoint.route;
        if let Some(name) = &route.name {
            if !self.names.insert(name.clone()) {
                let text = format!("two routes are named {name:?}; a name leads to one route");
                self.errors.push(Error::new(ErrorKind::Route, text).at(route.location));
            }
            rules.iter().for_each(|rule| self.urls.add(name, rule.clone()));
        }
        for (number, rule) in rules.into_iter().enumerate() {
            let methods: Vec<Option<Method>> = match route.methods.as_slice() {
                [] => vec![None],
                methods => methods.iter().cloned().map(Some).collect(),
            };
            for method in methods {
                let fits = fits.iter().filter_map(|(wildcard, fits)| {
                    Some((route.capture_index(number, *wildcard)?, *fits))
                });
                let target =
                    Target { endpoint: endpoint.clone(), rule: number, fits: fits.collect() };
                if let Err(other) = self.router.insert(method.clone(), rule.clone(), target) {
                    self.errors.push(conflict(&method, &rule, route, other));
                }
            }
        }
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

fn provider((plugin, slot, skipped): &(&InstalledPlugin, usize, bool)) -> Option<Provider> {
    let provision = plugin.provision.as_ref()?;
    Some(Provider {
        plugin: plugin.name.clone(),
        keyword: provision.keyword.clone(),
        type_id: provision.type_id,
        type_name: provision.type_name,
        slot: *slot,
        skipped: *skipped,
    })
}

/// The wildcards of all rules, in the order of the rule that has most of them.
fn gathered(rules: &[Rule]) -> Wildcards {
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
    Wildcards { names, floats, rules }
}
