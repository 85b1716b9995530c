//! Completes responses before they are sent: error pages, after-request hooks, cookies and headers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use http::header::{self, HeaderValue};
use http::{Method, StatusCode};

use crate::logging::OneLine;
use crate::message::backtrace;
use crate::message::cookies::set_cookie_below;
use crate::message::error_page;
use crate::message::http_error::HttpError;
use crate::message::into_response::IntoResponse;
use crate::message::response::Response;
use crate::pipeline::debug;
use crate::pipeline::exchange::{Exchange, Position};
use crate::pipeline::route::{Ask, Route};
use crate::pipeline::service::{AlreadyLogged, Endpoint, Service, panicked};
use crate::{Error, ErrorKind};

/// An error page that is bound to a route.
pub(crate) struct Page {
    /// `None` for one that shows all errors.
    pub(crate) status: Option<StatusCode>,
    pub(crate) show: PageCallback,
    /// The values that it asks plugins for; acquired if the route has not asked for them.
    pub(crate) asks: Vec<Ask>,
    /// It asks for values of the request, and so runs before they are finished and saved.
    pub(crate) early: bool,
}

/// Runs a guard or a hook and returns its response, if it gives one. The error is that of an argument that is unavailable.
pub(crate) type HookCallback =
    Arc<dyn Fn(&mut Exchange) -> Result<Option<Response>, HttpError> + Send + Sync>;

/// Runs an error page. The error is that of an argument that is unavailable.
pub(crate) type PageCallback =
    Arc<dyn Fn(&mut Exchange) -> Result<Response, HttpError> + Send + Sync>;

/// An after-request hook that is bound to a route.
pub(crate) struct AfterHook {
    pub(crate) run: HookCallback,
    /// It asks for values of this request, and so runs before they are finished and saved.
    pub(crate) early: bool,
}

impl Endpoint {
    /// The pages for this status: the innermost app's for the status, its page for any, then those of the apps around it.
    fn pages_for(&self, status: StatusCode) -> impl Iterator<Item = &Page> {
        self.pages.iter().filter(move |page| page.status.is_none_or(|own| own == status))
    }
}

impl Service {
    /// Completes the answer of an exchange that plugins are done with.
    pub(crate) fn complete(&self, exchange: &mut Exchange) {
        let _guard = exchange.enter_request_id();
        if exchange.response().is_none() {
            let answer = HttpError::new(StatusCode::INTERNAL_SERVER_ERROR)
                .with_source("nothing answered the request");
            exchange.answer(answer.into_response());
        }
        // Nothing is made for what comes now.
        exchange.finish_values();
        self.render_error_page(exchange);
        self.run_hooks(exchange, false);
        let Some(mut answer) = exchange.take_response() else { return };
        let mut head = exchange.take_head();
        if exchange.request().has_read_secret_cookie() {
            head.vary_by_cookie();
        }
        head.attach(&mut answer);
        place_cookies(&mut answer, exchange.request().prefix());
        exchange.answer(answer);
        self.end(exchange);
        let Some(mut answer) = exchange.take_response() else { return };
        if exchange.client_method() == Method::HEAD {
            answer.discard_body();
        }
        exchange.answer(answer);
    }

    /// Shows pages and runs hooks that ask for values of the request, while these are there.
    pub(crate) fn finish_early(&self, exchange: &mut Exchange) {
        let early = exchange.endpoint().filter(|endpoint| endpoint.has_early).cloned();
        if let Some(endpoint) = early {
            let error = exchange.response().filter(|answer| answer.needs_error_page());
            let status = error.and_then(|answer| Some(answer.error()?.status()));
            let page = status.and_then(|status| endpoint.pages_for(status).next());
            if page.is_some_and(|page| page.early) {
                self.render_error_page(exchange);
            }
            self.run_hooks(exchange, true);
        }
        exchange.finish_values();
    }

    /// Gives an error its page, the built-in one where no other can be shown.
    fn render_error_page(&self, exchange: &mut Exchange) {
        if !exchange.response().is_some_and(Response::needs_error_page) {
            return;
        }
        self.convert(exchange);
        let Some(mut answer) = exchange.take_response() else { return };
        let Some(error) = answer.take_error() else { return exchange.answer(answer) };
        self.log_error(&error, exchange);
        let status = error.status();
        exchange.set_error(error);
        let endpoint = exchange.endpoint().cloned();
        let mut pages = endpoint.iter().flat_map(|endpoint| endpoint.pages_for(status));
        let made = match self.is_debugged(exchange, status) {
            true => None,
            false => pages.find_map(|page| self.show(page, exchange)),
        };
        let error = exchange.take_error().unwrap_or_else(|| HttpError::new(status));
        let mut made = made.unwrap_or_else(|| self.built_in_page(&error, exchange));
        if made.status() == StatusCode::OK {
            made = made.with_status(status);
        }
        made.headers_mut().extend(error.headers().clone());
        made.set_error_page_of(error);
        exchange.answer(made);
    }

    /// Lets the app answer an error that came from somewhere else than its handlers.
    fn convert(&self, exchange: &mut Exchange) {
        let Some(endpoint) = exchange.endpoint().cloned() else { return };
        let Some(answer) = exchange.take_response() else { return };
        let converted = catch_unwind(AssertUnwindSafe(|| endpoint.converters.convert(answer)));
        let converted = converted.unwrap_or_else(|panic| {
            let text = panicked("the answer to an error", panic.as_ref());
            HttpError::new(StatusCode::INTERNAL_SERVER_ERROR).with_source(text).into_response()
        });
        exchange.answer(converted);
    }

    /// Whether the app's author sees what went wrong.
    fn is_debugged(&self, exchange: &Exchange, status: StatusCode) -> bool {
        let debugging = self.debugging().filter(|_| status.is_server_error());
        let request = exchange.request();
        debugging
            .is_some_and(|debugging| request.wanted_json().is_none() && debugging.may_show(request))
    }

    fn built_in_page(&self, error: &HttpError, exchange: &Exchange) -> Response {
        match self.is_debugged(exchange, error.status()) {
            true => debug::page(error, exchange, self.plugins()),
            false => error_page::page(error, exchange.request(), self.has_problem_json(exchange)),
        }
    }

    fn show(&self, page: &Page, exchange: &mut Exchange) -> Option<Response> {
        self.acquire_late(page, exchange);
        match catch_unwind(AssertUnwindSafe(|| (page.show)(exchange))) {
            Ok(Ok(made)) => match made.error() {
                None => Some(made),
                // A page that itself failed must not hide what it was to show.
                Some(error) => {
                    let (request, text) = (exchange.request(), caused(error).text);
                    log::error!("{request:?}: an error page has failed{text}");
                    None
                }
            },
            Ok(Err(refused)) => {
                let (request, text) = (exchange.request(), caused(&refused).text);
                log::debug!("{request:?}: an error page cannot be shown{text}");
                None
            }
            Err(panic) => {
                log::error!("{}", panicked("an error page", panic.as_ref()));
                None
            }
        }
    }

    /// Has plugins acquire what a page asks for and the route did not. Waits for what they wait for.
    fn acquire_late(&self, page: &Page, exchange: &mut Exchange) {
        if page.asks.is_empty()
            || exchange.values().is_closed()
            || !exchange.ask_late(&page.asks, self.plugins().len())
        {
            return;
        }
        exchange.move_to(Position::Acquiring(0));
        self.acquire_all(std::slice::from_mut(exchange));
        // A plugin's refusal is no answer to this request, which has one.
        exchange.take_response();
        exchange.asked_late();
        exchange.move_to(Position::Acquired);
    }

    fn run_hooks(&self, exchange: &mut Exchange, early: bool) {
        let with_hooks = exchange.endpoint().filter(|endpoint| !endpoint.after.is_empty());
        let Some(endpoint) = with_hooks.cloned() else { return };
        for hook in endpoint.after.iter().filter(|hook| hook.early == early) {
            exchange.note_failure();
            match catch_unwind(AssertUnwindSafe(|| (hook.run)(exchange))) {
                Ok(Ok(None)) => {}
                // Nobody is logged in, say: that is not this answer's fault.
                Ok(Err(refused)) => {
                    let (request, text) = (exchange.request(), caused(&refused).text);
                    log::debug!("{request:?}: an after-request hook cannot run{text}");
                }
                Ok(Ok(Some(answer))) => {
                    exchange.answer(answer);
                    self.render_error_page(exchange);
                }
                Err(panic) => {
                    let text = panicked("an after-request hook", panic.as_ref());
                    log::error!("{:?}: {text}", exchange.request());
                    let error = HttpError::new(StatusCode::INTERNAL_SERVER_ERROR)
                        .with_source(text)
                        .with_backtrace(backtrace::of_last_panic());
                    let mut page = self.built_in_page(&error, exchange);
                    page.set_error_page_of(error);
                    exchange.answer(page);
                }
            }
        }
    }

    fn log_error(&self, error: &HttpError, exchange: &Exchange) {
        let Caused { text, logged, misconfigured } = caused(error);
        let request = exchange.request();
        let (method, path, status) = (request.method(), request.path(), error.status().as_u16());
        let line = || format!("{method} {path} answers {status}{text}");
        if logged || error.status() == StatusCode::SERVICE_UNAVAILABLE {
            // Thousands a second where a store is down.
            self.unavailable().log_throttled(log::Level::Warn, &format!("{status}{text}"), line);
        } else if misconfigured {
            // It stays so for all until somebody repairs it.
            self.unavailable().log_throttled(log::Level::Error, &format!("{status}{text}"), line);
        } else if error.status().is_server_error() {
            log::error!("{}{}", line(), places(error, exchange.route()));
        } else {
            log::debug!("{}{}", line(), places(error, exchange.route()));
        }
    }
}

/// The causes of an error on one line.
pub(crate) struct Caused {
    pub(crate) text: String,
    /// It was logged when it began.
    pub(crate) logged: bool,
    /// A setting is wrong.
    misconfigured: bool,
}

pub(crate) fn caused(error: &HttpError) -> Caused {
    let mut caused = Caused { text: String::new(), logged: false, misconfigured: false };
    let mut cause = error.cause().map(|cause| cause as &(dyn std::error::Error + 'static));
    let mut last = String::new();
    while let Some(error) = cause {
        let text = OneLine(error).to_string();
        // What wraps another error often says the same.
        if text != last {
            caused.text.push_str(": ");
            caused.text.push_str(&text);
        }
        last = text;
        caused.logged |= error.is::<AlreadyLogged>();
        caused.misconfigured |=
            (error.downcast_ref::<Error>()).is_some_and(|error| error.kind() == ErrorKind::Config);
        cause = error.source();
    }
    caused
}

/// Where in the user's program the error was made, and where its route was registered.
fn places(error: &HttpError, route: Option<&Route>) -> String {
    let raised = error.location().map(|at| format!("at {}:{}", at.file(), at.line()));
    let route = route.map(|route| {
        let at = route.location();
        format!("route {} at {}:{}", route.rules().join(", "), at.file(), at.line())
    });
    let places: Vec<_> = raised.into_iter().chain(route).collect();
    match places.is_empty() {
        true => String::new(),
        false => format!(" ({})", places.join("; ")),
    }
}

/// Puts the paths of an answer's cookies below the path that visitors find the app at.
fn place_cookies(answer: &mut Response, prefix: &str) {
    if prefix.is_empty() {
        return;
    }
    if let header::Entry::Occupied(mut cookies) = answer.headers_mut().entry(header::SET_COOKIE) {
        for cookie in cookies.iter_mut() {
            if let Some(placed) = set_cookie_below(prefix, cookie) {
                *cookie = placed;
            }
        }
    }
}

pub(crate) fn not_allowed(method: &Method, allowed: &[Method]) -> Response {
    let list = allowed.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
    let value = HeaderValue::from_str(&list).unwrap_or(HeaderValue::from_static(""));
    if method == Method::OPTIONS {
        let mut response = Response::new(StatusCode::NO_CONTENT);
        response.headers_mut().insert(header::ALLOW, value);
        return response;
    }
    HttpError::new(StatusCode::METHOD_NOT_ALLOWED).with_header(header::ALLOW, value).into_response()
}
