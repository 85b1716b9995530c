//! What a client would like best: the weights in `Accept` and `Accept-Encoding` (RFC 9110 section 12.4.2).

use http::HeaderMap;
use http::header::{self, HeaderName};

use crate::message::request::Request;

/// The greatest weight, in thousandths, which an item without a weight has.
const FULL_WEIGHT: u16 = 1000;

/// The items of a header such as `Accept`, in the order sent, each with its weight in thousandths. A weight that cannot
/// be read counts as 0, which is not accepted.
pub(crate) fn weighted_items(
    headers: &HeaderMap,
    name: HeaderName,
) -> impl Iterator<Item = (&str, u16)> {
    let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).filter_map(|item| {
        let mut parts = item.split(';').map(str::trim);
        let name = parts.next().filter(|name| !name.is_empty())?;
        let weight = parts.find_map(|part| {
            let (parameter, value) = part.split_once('=')?;
            parameter.trim().eq_ignore_ascii_case("q").then(|| value.trim())
        });
        Some((name, weight.map_or(FULL_WEIGHT, parse_weight)))
    })
}

fn parse_weight(weight: &str) -> u16 {
    let weight: Option<f32> = weight.parse().ok();
    let weight = weight.filter(|weight| (0.0..=1.0).contains(weight)).unwrap_or(0.0);
    (weight * f32::from(FULL_WEIGHT)).round() as u16
}

/// The weight of a content coding; that of `*` where it is not named, 0 where neither is.
pub(crate) fn weight_of_coding(headers: &HeaderMap, coding: &str) -> u16 {
    let weight = |wanted: &str| {
        weighted_items(headers, header::ACCEPT_ENCODING)
            .find(|(name, _)| name.eq_ignore_ascii_case(wanted))
            .map(|(_, weight)| weight)
    };
    weight(coding).or_else(|| weight("*")).unwrap_or(0)
}

impl Request {
    /// Whether the client would rather have JSON than HTML, by its `Accept` header: a type of JSON (`application/json`,
    /// `application/problem+json`, anything that ends in `+json`) has a greater weight there than `text/html`, or the
    /// same and stands in front of it. `*/*` asks for neither, which is what `curl` sends.
    ///
    /// ```
    /// use bottle_session::{App, Request, TestClient};
    ///
    /// let mut app = App::new();
    /// app.get("/", |request: &Request| if request.wants_json() { "JSON" } else { "HTML" });
    /// let client = TestClient::new(app)?;
    /// assert_eq!(client.get("/").header("accept", "application/json").send().text(), "JSON");
    /// assert_eq!(client.get("/").header("accept", "text/html, */*;q=0.8").send().text(), "HTML");
    /// # Ok::<(), bottle_session::Error>(())
    /// ```
    pub fn wants_json(&self) -> bool {
        self.wanted_json().is_some()
    }

    /// The type of JSON that the client would rather have than HTML.
    pub(crate) fn wanted_json(&self) -> Option<&str> {
        let mut best: Option<(&str, u16)> = None;
        for (name, weight) in weighted_items(self.headers(), header::ACCEPT) {
            let counts = is_json(name) || is_html(name);
            if counts && weight > best.map_or(0, |(_, weight)| weight) {
                best = Some((name, weight));
            }
        }
        best.map(|(name, _)| name).filter(|name| is_json(name))
    }
}

fn is_json(media_type: &str) -> bool {
    let media_type = media_type.to_ascii_lowercase();
    media_type == "application/json" || media_type.ends_with("+json")
}

fn is_html(media_type: &str) -> bool {
    ["text/html", "application/xhtml+xml"].iter().any(|html| media_type.eq_ignore_ascii_case(html))
}

#[cfg(test)]
mod tests {
    use http::Method;
    use http::uri::PathAndQuery;

    use super::*;

    fn request(name: HeaderName, value: &str) -> Request {
        let mut request = Request::new(Method::GET, PathAndQuery::from_static("/"));
        request.headers_mut().insert(name, value.parse().unwrap());
        request
    }

    #[test]
    fn json_is_wanted_where_it_weighs_more_than_html() {
        for (accept, wanted) in [
            ("", None),
            ("*/*", None),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", None),
            ("application/json", Some("application/json")),
            ("application/json, text/plain, */*", Some("application/json")),
            ("Application/Problem+JSON", Some("Application/Problem+JSON")),
            (
                "application/vnd.shop+json;v=2;q=0.9, text/html;q=0.5",
                Some("application/vnd.shop+json"),
            ),
            ("text/html, application/json", None),
            ("application/json, text/html", Some("application/json")),
            ("text/html;q=0.5, application/json", Some("application/json")),
            ("application/json;q=0", None),
            ("application/json;q=nonsense", None),
            ("application/json;q=0.3, text/html;q=0.4", None),
        ] {
            assert_eq!(request(header::ACCEPT, accept).wanted_json(), wanted, "{accept}");
        }
    }

    #[test]
    fn a_coding_that_is_not_named_weighs_what_the_asterisk_does() {
        for (accept, br, gzip) in [
            ("", 0, 0),
            ("gzip, deflate, br, zstd", 1000, 1000),
            ("GZIP;q=0.5", 0, 500),
            ("*;q=0.25, gzip;q=0", 250, 0),
            ("br;q=2", 0, 0),
        ] {
            let request = request(header::ACCEPT_ENCODING, accept);
            let weight = |coding| weight_of_coding(request.headers(), coding);
            assert_eq!((weight("br"), weight("gzip")), (br, gzip), "{accept}");
        }
    }
}
