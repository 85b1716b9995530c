//! Apps of this crate with one plugin each.

use std::hint::black_box;
use std::time::Duration;

use bottle_session::http::uri::PathAndQuery;
use bottle_session::http::{HeaderMap, HeaderValue, Method};
use bottle_session::{
    AccessLogPlugin, App, BasicAuthPlugin, CompressionPlugin, CorsPlugin, Html, MetricsPlugin,
    RateLimitPlugin, Request, RequestIdPlugin, SecurityHeadersPlugin,
};

use crate::{Case, page};

/// What handles a request of this case.
pub fn service(case: Case) -> impl FnMut() {
    let mut app = App::new();
    match case {
        Case::Bare | Case::BarePage => Ok(&mut app),
        Case::RequestId => app.install(RequestIdPlugin::new()),
        Case::AccessLog => app.install(AccessLogPlugin::new().to_writer(std::io::sink())),
        Case::Metrics => app.install(MetricsPlugin::new()),
        Case::SecurityHeaders => app.install(SecurityHeadersPlugin::new()),
        Case::Cors => app.install(CorsPlugin::new().origin("https://app.example")),
        Case::RateLimit => {
            app.install(RateLimitPlugin::new(u32::MAX.into(), Duration::from_secs(3600)))
        }
        Case::BasicAuth => app.install(BasicAuthPlugin::new("x").user("ada", "secret")),
        Case::Gzip | Case::Brotli => app.install(CompressionPlugin::new()),
    }
    .expect("a plugin");
    if case.base() == Case::BarePage {
        let page = page();
        app.get("/", move || Html(page.clone()));
    } else {
        app.get("/", || "hello");
    }
    let service = app.build().expect("an app");
    let mut headers = HeaderMap::new();
    for (name, value) in case.headers() {
        headers.insert(*name, HeaderValue::from_static(value));
    }
    let address = "192.0.2.1:1".parse().expect("an address");
    move || {
        let request = Request::new(Method::GET, PathAndQuery::from_static("/"))
            .with_headers(headers.clone())
            .with_remote_addr(address);
        let response = service.handle(request);
        assert_eq!(response.status(), 200);
        black_box(response.into_bytes()).expect("a body");
    }
}
