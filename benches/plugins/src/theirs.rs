//! A tower service with one layer of tower-http each; nothing in it waits, so that each future is polled until it is done.

use std::convert::Infallible;
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bottle_session::http::{HeaderName, HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt, Full};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_http::compression::CompressionLayer;
use tower_http::cors::CorsLayer;
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer};
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::trace::TraceLayer;
use tower_http::validate_request::ValidateRequestHeaderLayer;

use crate::{Case, page};

type Body = Full<&'static [u8]>;

fn now<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return output;
        }
    }
}

fn caller<S, B>(case: Case, service: S) -> Box<dyn FnMut()>
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone + 'static,
    B: BodyExt<Error: std::fmt::Debug>,
{
    Box::new(move || {
        let mut request = Request::new(Full::default());
        *request.method_mut() = Method::GET;
        for (name, value) in case.headers() {
            request.headers_mut().insert(*name, HeaderValue::from_static(value));
        }
        let response = now(service.clone().oneshot(request)).expect("infallible");
        assert_eq!(response.status(), 200);
        black_box(now(response.into_body().collect()).expect("a body").to_bytes());
    })
}

/// What handles a request of this case, where tower-http has a layer for it.
#[allow(deprecated)]
pub fn service(case: Case) -> Option<Box<dyn FnMut()>> {
    let page: &'static [u8] = page().leak().as_bytes();
    let is_page = case.base() == Case::BarePage;
    let bare = service_fn(move |_: Request<Body>| {
        let (content, kind): (&'static [u8], _) = if is_page {
            (page, "text/html; charset=utf-8")
        } else {
            (b"hello", "text/plain; charset=utf-8")
        };
        let mut response = Response::new(Full::new(content));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        std::future::ready(Ok::<_, Infallible>(response))
    });
    Some(match case {
        Case::Bare | Case::BarePage => caller(case, bare),
        Case::RequestId => {
            let set = SetRequestIdLayer::x_request_id(MakeRequestUuid);
            caller(case, set.layer(PropagateRequestIdLayer::x_request_id().layer(bare)))
        }
        Case::AccessLog => caller(case, TraceLayer::new_for_http().layer(bare)),
        Case::SecurityHeaders => {
            let set = |name, value| {
                let name = HeaderName::from_static(name);
                SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value))
            };
            let policy = "default-src 'self'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'; object-src 'none'";
            let one = set("content-security-policy", policy).layer(bare);
            let two = set("x-content-type-options", "nosniff").layer(one);
            caller(case, set("referrer-policy", "strict-origin-when-cross-origin").layer(two))
        }
        Case::Cors => {
            let origin = HeaderValue::from_static("https://app.example");
            caller(case, CorsLayer::new().allow_origin([origin]).layer(bare))
        }
        Case::BasicAuth => {
            caller(case, ValidateRequestHeaderLayer::basic("ada", "secret").layer(bare))
        }
        Case::Gzip | Case::Brotli => caller(case, CompressionLayer::new().layer(bare)),
        Case::Metrics | Case::RateLimit => return None,
    })
}
