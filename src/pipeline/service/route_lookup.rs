//! Finds the route of a request, and runs the hooks before it.

use std::sync::Arc;

use http::{Method, StatusCode};

use super::{ROOT, Service, Target};
use crate::message::http_error::HttpError;
use crate::message::into_response::IntoResponse;
use crate::message::response::Response;
use crate::pipeline::completion::not_allowed;
use crate::pipeline::exchange::Exchange;
use crate::pipeline::plugin::Plugin;
use crate::routing::Found;

impl Service {
    pub(crate) fn arrivals(&self) -> &[usize] {
        &self.0.arrivals
    }

    pub(crate) fn plugins_at<'a>(
        &'a self,
        slots: &'a [usize],
    ) -> impl DoubleEndedIterator<Item = &'a dyn Plugin> {
        slots.iter().map(|slot| &*self.0.plugins[*slot])
    }

    pub(crate) fn find(&self, method: &Method, path: &str) -> Found<'_, Target> {
        let accepts = |target: &Target, captures: &crate::routing::Captures| {
            target.accepts.iter().all(|(index, accepts)| captures.get(*index).is_none_or(accepts))
        };
        self.0.router.find(method, path, accepts)
    }

    pub(super) fn find_route(&self, exchange: &mut Exchange) {
        exchange.set_urls(match exchange.request().prefix() {
            "" => self.0.urls.clone(),
            prefix => Arc::new(self.0.urls.below(prefix)),
        });
        exchange.request_mut().set_body_limit(self.0.body_limit);
        self.arrive(exchange);
        let _guard = exchange.enter_request_id();
        if exchange.response().is_some() {
            return;
        }
        if let Some(response) = self.before(ROOT, exchange) {
            return exchange.answer(response);
        }
        let request = exchange.request();
        if request.path() == "*" && request.method() == Method::OPTIONS {
            // RFC 9110 section 9.3.7: what the server can do, whatever the path.
            let response = not_allowed(request.method(), &self.0.router.methods());
            return exchange.answer(response);
        }
        let answer = match self.find(request.method(), request.path()) {
            Found::Match { value, captures } => {
                let (endpoint, rule) = (value.endpoint.clone(), value.rule);
                if let Some(limit) = endpoint.route.body_limit {
                    exchange.request_mut().set_body_limit(limit);
                }
                let scope = endpoint.route.scope;
                exchange.enter(endpoint, rule, captures, self.0.plugins.len());
                self.begin(exchange);
                let _guard = exchange.enter_request_id();
                if scope != ROOT && exchange.response().is_none() {
                    self.enter_mounted(scope, exchange);
                }
                return;
            }
            Found::MethodNotAllowed(allowed) => not_allowed(exchange.request().method(), &allowed),
            Found::Nothing => HttpError::new(StatusCode::NOT_FOUND).into_response(),
            Found::BadPath => HttpError::new(StatusCode::BAD_REQUEST)
                .with_message("The path is not percent-encoded UTF-8.")
                .into_response(),
        };
        let path = exchange.request().path();
        let scope = match self.0.prefixes.find(&Method::GET, path, |_, _| true) {
            Found::Match { value, .. } => *value,
            _ => ROOT,
        };
        self.enter_none(exchange, scope, Some(answer.status()));
        if let Some(asked) = self.preflight_target(exchange) {
            exchange.watch_as(asked);
        }
        self.begin(exchange);
        if exchange.response().is_some() {
            return;
        }
        match exchange.endpoint().is_some_and(|endpoint| endpoint.has_early) {
            // Its page or a hook asks for more, which plugins acquire for many together.
            true => exchange.answer_later(answer),
            false => exchange.answer(answer),
        }
    }

    /// Enters what stands in for a route: it has the pages and hooks of the app that the path belongs to.
    pub(super) fn enter_none(
        &self,
        exchange: &mut Exchange,
        scope: usize,
        status: Option<StatusCode>,
    ) {
        let unrouted = &self.0.scopes[scope].unrouted;
        let of_status = unrouted.iter().find(|(of, _)| *of == status);
        if let Some((_, endpoint)) = of_status.or(unrouted.first()) {
            let captures = crate::routing::Captures::default();
            exchange.enter(endpoint.clone(), 0, captures, self.0.plugins.len());
        }
    }

    pub(super) fn enter_mounted(&self, scope: usize, exchange: &mut Exchange) {
        if let Some(depth) = self.0.scopes[scope].depth {
            let path = exchange.request().path();
            let ends = path.match_indices('/').map(|(at, _)| at).skip(1).chain([path.len()]);
            let end = depth.checked_sub(1).and_then(|number| ends.into_iter().nth(number));
            exchange.request_mut().set_mount_path(end.unwrap_or(0));
        }
        if let Some(response) = self.before_mounted(scope, exchange) {
            exchange.answer(response);
        }
    }

    pub(super) fn before(&self, scope: usize, exchange: &mut Exchange) -> Option<Response> {
        self.0.scopes[scope].before.iter().find_map(|hook| hook(exchange.request_mut()))
    }

    /// The hooks of a mounted app, those of the app it is mounted in first.
    pub(super) fn before_mounted(&self, scope: usize, exchange: &mut Exchange) -> Option<Response> {
        match self.0.scopes[scope].parent {
            Some(parent) if parent != ROOT => self.before_mounted(parent, exchange),
            _ => None,
        }
        .or_else(|| self.before(scope, exchange))
    }
}
