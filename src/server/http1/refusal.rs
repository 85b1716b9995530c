//! Responses of the server itself, for requests that it does not serve: a 400 for a malformed one, a 503 when it is overloaded.

use http::header::{self, HeaderMap};
use http::{StatusCode, Version};

use super::write::{Delivery, write_head};

/// A response of the server itself, after which the connection is closed: with this text, or its status as one. For a HEAD
/// request it has no body.
pub(crate) fn refusal(status: StatusCode, head: bool, text: Option<&str>) -> Vec<u8> {
    let body = text.map_or_else(|| format!("{status}\n"), str::to_owned);
    let mut headers = HeaderMap::new();
    let plain_text = header::HeaderValue::from_static("text/plain; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, plain_text);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
    }
    let mut out = Vec::with_capacity(256);
    let delivery = Delivery::Length(body.len() as u64);
    write_head(&mut out, status, &headers, delivery, Version::HTTP_11, false);
    if !head {
        out.extend_from_slice(body.as_bytes());
    }
    out
}
