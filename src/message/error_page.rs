//! The built-in pages of errors: for people in HTML, for programs in JSON.

use http::StatusCode;
use http::header::{self, HeaderValue};
use serde_json::json;

use crate::message::http_error::HttpError;
use crate::message::into_response::escape_html;
use crate::message::request::Request;
use crate::message::response::Response;

/// Follows the visitor's choice of dark or light, and needs nothing from anywhere else.
const STYLE: &str = "\
:root{color-scheme:light dark}\
body{margin:0;min-height:100vh;display:grid;place-items:center;\
background:#f6f7f9;color:#1c2024;font:1rem/1.5 system-ui,sans-serif}\
main{max-width:34rem;padding:2rem;margin:1rem;border-radius:.75rem;background:#fff;\
box-shadow:0 1px 3px #0002,0 8px 24px #0001}\
h1{margin:0 0 .5rem;font-size:1.5rem;line-height:1.25}\
p{margin:0;overflow-wrap:anywhere;white-space:pre-line}\
@media(prefers-color-scheme:dark){body{background:#111418;color:#e6e8eb}main{background:#1b1f24;box-shadow:none}}";

/// The page of an error as this client would have it.
pub(crate) fn page(error: &HttpError, request: &Request, problem_json: bool) -> Response {
    let mut page = match request.wanted_json() {
        Some(json) if problem_json || json.eq_ignore_ascii_case("application/problem+json") => {
            error.problem_json()
        }
        Some(_) => error.json(),
        None => error.html(),
    };
    page.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    page
}

/// How an error looks that has no page of its own.
///
/// ```
/// use bottle_session::{App, HttpError, Request, Response, TestClient, abort, escape_html};
///
/// let mut app = App::new();
/// // A page of one's own for people; programs have JSON as without it.
/// app.error_default(|error: &HttpError, request: &Request| match request.wants_json() {
///     true => error.json(),
///     false => Response::html(format!("<h1>Sorry</h1>{}", escape_html(error.message()))),
/// });
/// app.get("/", || abort(402, "The trial is over."));
///
/// let client = TestClient::new(app)?;
/// assert_eq!(client.get("/").send().text(), "<h1>Sorry</h1>The trial is over.");
/// let answer = client.get("/").header("accept", "application/json").send();
/// assert_eq!(answer.text(), r#"{"error":"The trial is over.","status":402}"#);
/// # Ok::<(), bottle_session::Error>(())
/// ```
impl HttpError {
    /// The built-in page in HTML: the status, and the [message](HttpError::message) or, where there is none, a sentence
    /// for visitors. It has no script, follows the browser's choice of dark or light, and shows no cause.
    pub fn html(&self) -> Response {
        let status = self.status();
        let title = escape_html(&title(status));
        let message = match self.message() {
            "" => explanation(status).to_owned(),
            message => escape_html(message),
        };
        let page = format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"robots\" content=\"noindex\">\n<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n\
             <body>\n<main>\n<h1>{title}</h1>\n<p>{message}</p>\n</main>\n</body>\n</html>\n"
        );
        Response::html(page).with_status(status)
    }

    /// The error as JSON: `{"error": …, "status": …}`. The error is the [message](HttpError::message) or, where there is
    /// none, the name of the status.
    pub fn json(&self) -> Response {
        let status = self.status();
        let error = match self.message() {
            "" => reason(status),
            message => message,
        };
        Response::json(&json!({"error": error, "status": status.as_u16()})).with_status(status)
    }

    /// The error as `application/problem+json` (RFC 9457): `{"title": …, "status": …, "detail": …}`, without `detail`
    /// where there is no [message](HttpError::message). The type is `about:blank`, which goes without saying (section
    /// 4.2.1): the status tells all.
    pub fn problem_json(&self) -> Response {
        let status = self.status();
        let mut problem = json!({"title": reason(status), "status": status.as_u16()});
        if !self.message().is_empty() {
            problem["detail"] = self.message().into();
        }
        Response::json(&problem)
            .with_status(status)
            .with_header(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"))
    }
}

fn reason(status: StatusCode) -> &'static str {
    status.canonical_reason().unwrap_or("Error")
}

pub(crate) fn title(status: StatusCode) -> String {
    format!("{} {}", status.as_u16(), reason(status))
}

/// What a status means for a visitor.
fn explanation(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "You have to log in to see this page.",
        403 => "You are not allowed to see this page.",
        404 => "There is no page at this address.",
        405 => "This address does not take this kind of request.",
        408 => "The request took too long to arrive.",
        410 => "This page is no longer there.",
        413 => "What was sent is too large.",
        429 => "There were too many requests. Please try again in a moment.",
        503 => "The service is not available at the moment. Please try again soon.",
        400..=499 => "The request could not be answered.",
        _ => "Something went wrong on our side. Please try again later.",
    }
}
