//! Calls the lifecycle methods of the plugins that watch a route: `arrive`, `begin` and `end`, even if no route is found.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use http::{Method, StatusCode, header};

use crate::message::error_page::page;
use crate::message::http_error::HttpError;
use crate::pipeline::exchange::Exchange;
use crate::pipeline::service::{Endpoint, Service, panicked};
use crate::routing::Found;

impl Service {
    /// Calls [`arrive`](crate::Plugin::arrive) of the plugins of the outermost app, before a route is looked up.
    pub(crate) fn arrive(&self, exchange: &mut Exchange) {
        for plugin in self.plugins_at(self.arrivals()) {
            plugin.arrive(exchange);
            if exchange.response().is_some() {
                return;
            }
        }
    }

    /// Calls [`begin`](crate::Plugin::begin) of the plugins that watch the route, or the stand-in for one.
    pub(crate) fn begin(&self, exchange: &mut Exchange) {
        let Some(endpoint) = exchange.watched().cloned() else { return };
        for plugin in self.plugins_at(&endpoint.watchers) {
            plugin.begin(exchange);
            if exchange.response().is_some() {
                return;
            }
        }
    }

    /// Calls [`end`](crate::Plugin::end) of the plugins that watch the route, the innermost first. A panic is a 500.
    pub(crate) fn end(&self, exchange: &mut Exchange) {
        let Some(endpoint) = exchange.watched().filter(|watched| !watched.watchers.is_empty())
        else {
            return;
        };
        let endpoint = endpoint.clone();
        for plugin in self.plugins_at(&endpoint.watchers).rev() {
            let Some(mut answer) = exchange.take_response() else { return };
            let ended = catch_unwind(AssertUnwindSafe(|| plugin.end(exchange, &mut answer)));
            if let Err(panic) = ended {
                let text = panicked(&format!("plugin {:?}", plugin.name()), panic.as_ref());
                log::error!("{:?}: {text}", exchange.request());
                let error = HttpError::new(StatusCode::INTERNAL_SERVER_ERROR);
                answer = page(&error, exchange.request(), self.has_problem_json(exchange));
                answer.set_error_page_of(error.with_source(text));
            }
            exchange.answer(answer);
        }
    }

    /// The route that a CORS preflight asks for (Fetch standard), where no route takes the OPTIONS request itself, so that the
    /// plugins of that route answer it.
    pub(crate) fn preflight_target(&self, exchange: &Exchange) -> Option<Arc<Endpoint>> {
        let request = exchange.request();
        let name = request.headers().get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
        if request.method() != Method::OPTIONS || !request.headers().contains_key(header::ORIGIN) {
            return None;
        }
        let method = Method::from_bytes(name.as_bytes()).ok()?;
        match self.find(&method, request.path()) {
            Found::Match { value, .. } => Some(value.endpoint.clone()),
            Found::MethodNotAllowed(_) | Found::Nothing | Found::BadPath => None,
        }
    }
}
