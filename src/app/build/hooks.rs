//! Binds the guards, hooks and error pages of a scope to its routes.

use std::sync::Arc;

use http::StatusCode;

use super::Builder;
use crate::app::hooks::{Guard, Located};
use crate::app::inheritance::Inherited;
use crate::app::login::recent;
use crate::app::plugins::InstalledPlugin;
use crate::handler::{Asks, Binder, Function, Resolver, Role, Wildcards, add_ask};
use crate::message::into_response::IntoResponse;
use crate::message::response::Response;
use crate::pipeline::completion::{AfterHook, HookCallback, Page};
use crate::pipeline::expiring_flag::ExpiringFlag;
use crate::pipeline::plugin::Callback;
use crate::pipeline::route::{Ask, Route};
use crate::pipeline::service::Endpoint;

/// When a guard is bound: some depend on what the handler asks for.
#[derive(Clone, Copy)]
pub(super) enum BindPhase {
    BeforeHandler,
    AfterHandler,
}

/// Error pages and after-request hooks of a route.
pub(super) struct RouteHooks {
    pub(super) pages: Vec<Page>,
    pub(super) after: Vec<AfterHook>,
    pub(super) asks: Vec<Ask>,
}

impl RouteHooks {
    pub(super) fn has_early(&self) -> bool {
        self.pages.iter().any(|page| page.early) || self.after.iter().any(|hook| hook.early)
    }
}

impl Builder {
    /// This scope and those around it, innermost first.
    pub(super) fn scope_chain(&self, scope: usize) -> Vec<usize> {
        std::iter::successors(Some(scope), |scope| self.scopes[*scope].parent).collect()
    }

    /// The guards of a route that are bound in this phase, each with its place in the order they run in.
    pub(super) fn guards(
        &self,
        resolver: &mut Resolver,
        scope: usize,
        own: &[Located<Guard>],
        asks: &mut Vec<Ask>,
        phase: BindPhase,
    ) -> Vec<(usize, HookCallback)> {
        let scope_chain = self.scope_chain(scope);
        let of_apps = scope_chain.iter().rev().flat_map(|scope| &self.parts[*scope].guards);
        of_apps
            .chain(own)
            .enumerate()
            .filter_map(|(place, guard)| {
                let bind = |binder: &mut Binder<'_>| match (&guard.function, phase) {
                    (Guard::Function(bind), BindPhase::BeforeHandler) => bind(binder),
                    (Guard::RecentLogin(login), BindPhase::AfterHandler) => recent(*login, binder),
                    _ => None,
                };
                let function = Function::titled(Role::Guard, "the guard", guard.location);
                let (bound, asked) = resolver.bind(function, bind);
                asked.plugins.into_iter().for_each(|ask| add_ask(asks, ask));
                Some((place, bound?))
            })
            .collect()
    }

    /// Pages and hooks, bound to what the resolver finds.
    pub(super) fn route_hooks(&self, resolver: &mut Resolver, scope: usize) -> RouteHooks {
        let mut hooks = RouteHooks { pages: Vec::new(), after: Vec::new(), asks: Vec::new() };
        for parts in self.scope_chain(scope).into_iter().map(|scope| &self.parts[scope]) {
            for (status, page) in &parts.pages {
                let title = match status {
                    Some(status) => format!("the page for {}", status.as_u16()),
                    None => "the page for all errors".to_owned(),
                };
                let function = Function::titled(Role::ErrorPage, title, page.location);
                let (bound, Asks { mut plugins, any }) =
                    resolver.bind(function, |binder| (page.function)(binder));
                // Without its values a page is not shown, and nothing worse happens.
                plugins.iter_mut().for_each(|ask| ask.required = false);
                hooks.pages.extend(bound.map(|show| Page {
                    status: *status,
                    show,
                    asks: plugins,
                    early: any,
                }));
            }
            for hook in &parts.after {
                let function =
                    Function::titled(Role::AfterHook, "the after-request hook", hook.location);
                let (bound, asks) = resolver.bind(function, |binder| (hook.function)(binder));
                // Without its values a hook does not run, and nothing worse happens.
                let optional = |ask: Ask| Ask { required: false, ..ask };
                asks.plugins.into_iter().for_each(|ask| add_ask(&mut hooks.asks, optional(ask)));
                hooks.after.extend(bound.map(|run| AfterHook { run, early: asks.any }));
            }
        }
        hooks
    }

    /// Adds the stand-in for a route that requests without a route get: pages and hooks of the app that the path belongs to.
    pub(super) fn add_unrouted(&mut self, scope: usize, inherited: &Inherited) {
        let statuses = [
            None,
            Some(StatusCode::NOT_FOUND),
            Some(StatusCode::METHOD_NOT_ALLOWED),
            Some(StatusCode::BAD_REQUEST),
        ];
        for status in statuses {
            let mut resolver = inherited.resolver(Wildcards::default());
            let hooks = self.route_hooks(&mut resolver, scope);
            self.report(&mut resolver);
            let mut asks = hooks.asks.clone();
            let page =
                hooks.pages.iter().find(|page| page.status.is_none_or(|own| Some(own) == status));
            if let (Some(page), Some(_)) = (page, status) {
                page.asks.iter().for_each(|ask| add_ask(&mut asks, *ask));
            }
            let route = Route {
                methods: Vec::new(),
                rules: Vec::new(),
                name: None,
                config: http::Extensions::new(),
                location: std::panic::Location::caller(),
                body_limit: None,
                scope,
                wildcards: Vec::new(),
                places: Vec::new(),
                asks,
                keywords: resolver.keywords(),
            };
            let has_early = hooks.has_early();
            let plugins = inherited.plugins.iter().map(|(plugin, slot)| (plugin, *slot));
            let watchers = watchers(plugins, &route);
            let callback = Callback::new(|exchange| {
                exchange.take_later().unwrap_or_else(|| Response::new(StatusCode::NOT_FOUND))
            });
            let endpoint = Endpoint {
                route,
                callback,
                arguments: Vec::new(),
                converters: inherited.converters.clone(),
                is_route: false,
                has_early,
                providers: resolver.providers,
                pages: hooks.pages,
                after: hooks.after,
                handler_blocks: ExpiringFlag::default(),
                shutdown: self.shutdown.clone(),
                watchers,
            };
            self.scopes[scope].unrouted.push((status, Arc::new(endpoint)));
            if !has_early {
                // The same for all.
                break;
            }
        }
    }
}

/// The slots of the plugins that watch this route.
pub(super) fn watchers<'a>(
    plugins: impl Iterator<Item = (&'a InstalledPlugin, usize)>,
    route: &Route,
) -> Vec<usize> {
    plugins.filter(|(own, _)| own.plugin.watches(route)).map(|(_, slot)| slot).collect()
}

/// The handler behind its guards.
pub(super) fn with_guards(guards: Vec<(usize, HookCallback)>, handler: Callback) -> Callback {
    if guards.is_empty() {
        return handler;
    }
    Callback::new(move |exchange| {
        for (_, guard) in &guards {
            match guard(exchange) {
                Ok(None) => {}
                Ok(Some(answer)) => return answer,
                Err(refused) => return refused.into_response(),
            }
        }
        handler.call(exchange)
    })
}
