//! Pages that show the app's author what went wrong, and to nobody else.

use std::fmt::{Display, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use http::header::{self, HeaderName, HeaderValue};
use url::Url;

use crate::error::causes;
use crate::message::address::ListenAddress;
use crate::message::error_page::title;
use crate::message::http_error::HttpError;
use crate::message::into_response::escape_html;
use crate::message::request::Request;
use crate::message::response::Response;
use crate::pipeline::exchange::Exchange;
use crate::pipeline::plugin::Plugin;
use crate::pipeline::provider::public_name;

/// Whether debugging pages may be shown.
#[derive(Debug, Default)]
pub(crate) struct Debugging {
    listens: AtomicU8,
    /// A warning that a page was not shown has been logged.
    warned: AtomicBool,
}

/// Where the app is served.
const NOWHERE: u8 = 0;
const ON_LOOPBACK: u8 = 1;
const ON_NETWORK: u8 = 2;

/// Headers whose values are secrets.
const SECRET_HEADERS: [&str; 5] =
    ["authorization", "cookie", "proxy-authorization", "x-api-key", "x-csrf-token"];

/// Headers that proxies add, besides those that begin with `x-forwarded`. `Via` is RFC 9110's, section
/// 7.6.3; `Forwarded` RFC 7239's.
const PROXY_HEADERS: [HeaderName; 3] =
    [header::FORWARDED, header::VIA, HeaderName::from_static("x-real-ip")];

/// Name and type of an argument of a handler.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ArgumentInfo {
    pub(crate) name: Option<&'static str>,
    pub(crate) type_name: &'static str,
}

impl Debugging {
    /// The app is served here, too.
    pub(crate) fn serving(&self, address: &ListenAddress) {
        let is_loopback = address.socket_addr().is_some_and(|at| at.ip().is_loopback());
        let listens = if is_loopback { ON_LOOPBACK } else { ON_NETWORK };
        self.listens.fetch_max(listens, Ordering::Relaxed);
    }

    /// Whether the sender of this request may see debugging pages. If not, the reason is logged once.
    pub(crate) fn may_show(&self, request: &Request) -> bool {
        match self.obstacle(request) {
            None => true,
            Some(obstacle) => {
                if !self.warned.swap(true, Ordering::Relaxed) {
                    log::warn!("debug(true) shows nothing of an error: {obstacle}");
                }
                false
            }
        }
    }

    fn obstacle(&self, request: &Request) -> Option<&'static str> {
        let forwarded = |name: &HeaderName| {
            PROXY_HEADERS.contains(name) || name.as_str().starts_with("x-forwarded")
        };
        match self.listens.load(Ordering::Relaxed) {
            NOWHERE => return Some("no server has said where it listens"),
            ON_LOOPBACK => {}
            _ => return Some("the server listens on more than a loopback address"),
        }
        // Behind a proxy on the same machine every visitor is a loopback peer.
        if request.is_from_trusted_proxy() || request.headers().keys().any(forwarded) {
            return Some("the request came through a proxy");
        }
        // What nginx sends unless told otherwise, with a Host of its own and no word of a proxy.
        if request.version() == http::Version::HTTP_10 {
            return Some("the request is HTTP/1.0, which proxies send and browsers do not");
        }
        if !request.remote_addr().is_some_and(|peer| peer.ip().to_canonical().is_loopback()) {
            return Some("the client is on another machine");
        }
        // Any name can be made to mean 127.0.0.1: a page of that name could read what is answered (DNS rebinding).
        if !request.host().is_some_and(is_this_machine)
            || request.headers().get_all(header::HOST).iter().count() > 1
        {
            return Some("the Host is not localhost, 127.0.0.1 or [::1]");
        }
        // A script of another site, which the answer may let read itself (CORS).
        let is_fetched = request
            .header("sec-fetch-site")
            .is_some_and(|site| !["same-origin", "none"].contains(&site))
            && request.header("sec-fetch-mode") != Some("navigate");
        let is_own = |origin| Url::parse(origin).is_ok_and(|url| request.is_own_origin(&url));
        if is_fetched || request.header("origin").is_some_and(|origin| !is_own(origin)) {
            return Some("a script of another site asks");
        }
        None
    }
}

/// Whether a `Host` names this machine, with a port or without.
fn is_this_machine(host: &str) -> bool {
    let names = ["localhost", "127.0.0.1", "[::1]"];
    names.iter().any(|name| {
        let prefix = host.get(..name.len()).is_some_and(|prefix| prefix.eq_ignore_ascii_case(name));
        let rest = host.get(name.len()..).unwrap_or_default();
        let is_port = |rest: &str| {
            let digits = rest.strip_prefix(':');
            digits.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
        };
        prefix && (rest.is_empty() || is_port(rest))
    })
}

const STYLE: &str = "\
:root{color-scheme:light dark}\
body{margin:2rem auto;max-width:72rem;padding:0 1rem;font:1rem/1.5 system-ui,sans-serif}\
h1{font-size:1.4rem;margin:0}h2{font-size:1.05rem;margin:1.75rem 0 .5rem}\
.cause{font-size:1.15rem;overflow-wrap:anywhere;margin:.5rem 0}\
table{border-collapse:collapse}th,td{text-align:left;vertical-align:top;padding:.15rem 1.5rem .15rem 0;\
overflow-wrap:anywhere}th{font-weight:600}\
code,pre,td{font-family:ui-monospace,monospace;font-size:.9rem}\
pre{overflow-x:auto;padding:1rem;border:1px solid #8884;border-radius:.5rem}\
ol{margin:0;padding-left:1.5rem}small{opacity:.7}";

/// The page with all that is known of an error, for the author of the app.
pub(crate) fn page(
    error: &HttpError,
    exchange: &Exchange,
    plugins: &[Arc<dyn Plugin>],
) -> Response {
    let status = error.status();
    let title = escape_html(&title(status));
    let mut page = Page(format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
    ));
    page.error(error);
    page.route(exchange);
    page.request(exchange.request());
    page.plugins(exchange, plugins);
    if let Some(backtrace) = error.backtrace() {
        page.heading("Backtrace");
        page.element("pre", backtrace);
    }
    page.push("<p><small>Only this machine sees this page, as the app says debug(true).</small></p>\n</body>\n</html>\n");
    Response::html(page.0)
        .with_status(status)
        .with_header(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))
        .with_header(
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(
                "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
            ),
        )
}

/// A buffer of HTML. Values are escaped.
struct Page(String);

impl Page {
    fn push(&mut self, html: &str) {
        self.0.push_str(html);
    }

    fn heading(&mut self, text: &str) {
        self.element("h2", text);
    }

    fn element(&mut self, name: &str, text: impl Display) {
        // Writing into a string cannot fail.
        let _ = writeln!(self.0, "<{name}>{}</{name}>", escape_html(&text.to_string()));
    }

    fn table(&mut self, rows: impl IntoIterator<Item = (String, String)>) {
        self.push("<table>\n");
        for (name, value) in rows {
            let (name, value) = (escape_html(&name), escape_html(&value));
            let _ = writeln!(self.0, "<tr><th>{name}</th><td>{value}</td></tr>");
        }
        self.push("</table>\n");
    }

    fn error(&mut self, error: &HttpError) {
        let causes = texts(error);
        let said = causes.first().map_or(error.message(), String::as_str);
        let _ = writeln!(self.0, "<p class=\"cause\">{}</p>", escape_html(said));
        if let Some(at) = error.location() {
            self.table([("raised at".to_owned(), format!("{}:{}", at.file(), at.line()))]);
        }
        if causes.len() > 1 {
            self.heading("Caused by");
            self.push("<ol>\n");
            causes[1..].iter().for_each(|cause| self.element("li", cause));
            self.push("</ol>\n");
        }
    }

    fn route(&mut self, exchange: &Exchange) {
        self.heading("Route");
        let Some(route) = exchange.route() else {
            return self.element("p", "none fits");
        };
        let methods: Vec<_> = route.methods().iter().map(http::Method::as_str).collect();
        let methods = if methods.is_empty() { "ANY".to_owned() } else { methods.join(", ") };
        let at = route.location();
        let mut rows = vec![
            ("rule".to_owned(), format!("{methods} {}", route.rules().join(", "))),
            ("registered at".to_owned(), format!("{}:{}", at.file(), at.line())),
        ];
        rows.extend(route.name().map(|name| ("name".to_owned(), name.to_owned())));
        for wildcard in &route.wildcards {
            let value = exchange.wildcard(wildcard).unwrap_or("not in this rule");
            rows.push((format!("<{wildcard}>"), value.to_owned()));
        }
        self.table(rows);
        let arguments = exchange.endpoint().map_or(&[][..], |endpoint| &endpoint.arguments);
        if !arguments.is_empty() {
            self.heading("Arguments of the handler");
            self.table(arguments.iter().zip(1..).map(|(argument, number)| {
                let name = argument.name.map_or_else(|| format!("{number}"), str::to_owned);
                (name, public_name(argument.type_name))
            }));
        }
    }

    /// The request as the client sent it. Secrets are left out, as the page may end up in a report.
    fn request(&mut self, request: &Request) {
        self.heading("Request");
        let mut rows =
            vec![("target".to_owned(), format!("{} {}", request.method(), request.target()))];
        for (name, value) in request.headers() {
            let secret = value.is_sensitive() || SECRET_HEADERS.contains(&name.as_str());
            let value = match secret {
                true => "(not shown)".to_owned(),
                false => String::from_utf8_lossy(value.as_bytes()).into_owned(),
            };
            rows.push((name.as_str().to_owned(), value));
        }
        self.table(rows);
    }

    fn plugins(&mut self, exchange: &Exchange, plugins: &[Arc<dyn Plugin>]) {
        let Some(route) = exchange.route().filter(|_| !plugins.is_empty()) else { return };
        self.heading("Plugins of the app");
        self.table(plugins.iter().enumerate().map(|(slot, plugin)| {
            let keyword = plugin.provides().map(|provision| provision.keyword().to_owned());
            let keyword =
                keyword.map_or_else(String::new, |keyword| format!(", keyword {keyword:?}"));
            let used = if route.asks(slot) { ", asked for here" } else { "" };
            (plugin.name().to_owned(), format!("{}{used}", keyword.trim_start_matches(", ")))
        }));
    }
}

/// The causes of an error, outermost first, each text once.
fn texts(error: &HttpError) -> Vec<String> {
    let chain = error.cause().into_iter().flat_map(|cause| causes(cause));
    let mut texts: Vec<String> = chain.map(ToString::to_string).collect();
    texts.dedup();
    texts
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::path::PathBuf;

    use http::Method;
    use http::uri::PathAndQuery;

    use super::*;

    #[test]
    fn only_names_of_this_machine_are_names_of_this_machine() {
        for (host, expected) in [
            ("localhost", true),
            ("LOCALHOST:8888", true),
            ("127.0.0.1:8888", true),
            ("[::1]", true),
            ("[::1]:80", true),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("127.0.0.1:80@evil.example", false),
            ("localhost:evil", false),
            ("evil.example", false),
            ("192.168.0.1", false),
            ("", false),
        ] {
            assert_eq!(is_this_machine(host), expected, "{host}");
        }
    }

    #[test]
    fn what_may_come_from_elsewhere_is_told_from_what_comes_from_here() {
        let local = ListenAddress::Tcp("127.0.0.1:80".parse().unwrap());
        let all = ListenAddress::Tcp("0.0.0.0:80".parse().unwrap());
        let unix = ListenAddress::Unix(PathBuf::from("/run/app.socket"));
        let plain: &[(&str, &str)] = &[("host", "localhost:80")];
        for (served, peer, headers, shows) in [
            (&[&local][..], "127.0.0.1:9", plain, true),
            (&[&local], "[::1]:9", plain, true),
            (&[&local], "[::ffff:127.0.0.1]:9", plain, true),
            (&[], "127.0.0.1:9", plain, false),
            (&[&all], "127.0.0.1:9", plain, false),
            (&[&unix], "127.0.0.1:9", plain, false),
            (&[&local, &all], "127.0.0.1:9", plain, false),
            (&[&all, &local], "127.0.0.1:9", plain, false),
            (&[&local], "192.0.2.7:9", plain, false),
            (&[&local], "127.0.0.1:9", &[("host", "evil.example")], false),
            (&[&local], "127.0.0.1:9", &[], false),
            (&[&local], "127.0.0.1:9", &[("host", "localhost"), ("forwarded", "for=x")], false),
            (&[&local], "127.0.0.1:9", &[("host", "localhost"), ("x-forwarded-for", "")], false),
            (
                &[&local],
                "127.0.0.1:9",
                &[("host", "localhost"), ("x-forwarded-proto", "https")],
                false,
            ),
            (&[&local], "127.0.0.1:9", &[("host", "localhost"), ("via", "1.1 proxy")], false),
        ] {
            let debugging = Debugging::default();
            served.iter().for_each(|address| debugging.serving(address));
            let mut request = Request::new(Method::GET, PathAndQuery::from_static("/"))
                .with_remote_addr(peer.parse::<SocketAddr>().unwrap());
            for (name, value) in headers {
                request.headers_mut().insert(*name, value.parse().unwrap());
            }
            let obstacle = debugging.obstacle(&request);
            assert_eq!(obstacle.is_none(), shows, "{served:?} {peer} {headers:?}: {obstacle:?}");
        }
    }
}
