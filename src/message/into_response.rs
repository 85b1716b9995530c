//! What a handler can reply with, and what a hook may return.

use std::borrow::Cow;

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;

use crate::Result;
use crate::message::http_error::{HttpError, IntoHttpError};
use crate::message::response::{BYTES, Response, TEXT};

/// What a handler can reply with.
///
/// | reply | answer |
/// |---|---|
/// | `&'static str`, `String`, `Cow<'static, str>`, `char` | 200, `text/plain` |
/// | [`Html`] | 200, `text/html` |
/// | `Vec<u8>`, `&'static [u8]`, [`Bytes`] | 200, `application/octet-stream` |
/// | [`Json<T>`], [`serde_json::Value`] | 200, `application/json` |
/// | `()` | 200, empty |
/// | [`StatusCode`] | that status, empty |
/// | `(StatusCode, T)`, `(u16, T)` | `T` with that status |
/// | `Option<T>` | `T`, or a 404 |
/// | `Result<T, E>` | `T`; an error is a logged 500, unless it is an [`HttpError`], a [`Redirect`](crate::Redirect) or a [`Response`] |
/// | [`Response`], [`HttpError`], [`Redirect`](crate::Redirect) | itself |
///
/// A handler has replies of one type. Where they differ, say `-> Response` and call `.into_response()` on each, or end
/// early with `Err` in a `Result<T, HttpError>`.
///
/// ```
/// use bottle_session::{App, IntoResponse, Response, TestClient};
///
/// struct Celsius(f64);
///
/// impl IntoResponse for Celsius {
///     fn into_response(self) -> Response {
///         Response::text(format!("{:.1} °C", self.0))
///     }
/// }
///
/// let mut app = App::new();
/// app.get("/", || Celsius(21.5));
/// assert_eq!(TestClient::new(app)?.get("/").send().text(), "21.5 °C");
/// # Ok::<(), bottle_session::Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a handler's reply",
    label = "the reply of this handler is `{Self}`",
    note = "a handler replies with text, `Html`, bytes, `Json<T>`, `(StatusCode, T)`, `Option<T>`, `Result<T, E>` or `Response`",
    note = "replies of several types: say `-> Response`, and call `.into_response()` on each",
    note = "handlers are blocking: `async` closures and functions are none"
)]
pub trait IntoResponse {
    /// Makes the answer.
    fn into_response(self) -> Response;
}

/// HTML text as a reply: `Html(format!("<b>{}</b>", escape_html(name)))`.
///
/// ```
/// use bottle_session::{App, Html, TestClient};
///
/// let mut app = App::new();
/// app.get("/", || Html("<h1>Hello</h1>"));
/// let answer = TestClient::new(app)?.get("/").send();
/// assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
/// # Ok::<(), bottle_session::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Html<T>(pub T);

/// A JSON document: as a reply, anything that serde can serialize; as a handler's argument, the request's
/// body.
///
/// ```
/// use bottle_session::{App, Json, TestClient};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Deserialize, Serialize)]
/// struct Point {
///     x: i32,
///     y: i32,
/// }
///
/// let mut app = App::new();
/// app.post("/mirror", |Json(point): Json<Point>| Json(Point { x: point.y, y: point.x }));
/// let client = TestClient::new(app)?;
/// let answer = client.post("/mirror").json(&Point { x: 1, y: 2 }).send();
/// assert_eq!(answer.text(), r#"{"x":2,"y":1}"#);
/// # Ok::<(), bottle_session::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Json<T>(pub T);

/// Text that is safe inside HTML elements and quoted attributes.
///
/// ```
/// use bottle_session::escape_html;
///
/// assert_eq!(escape_html("<b>\"Tea\" & 'milk'</b>").contains('<'), false);
/// assert!(escape_html("Tea & milk").starts_with("Tea &amp; milk"));
/// ```
pub fn escape_html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

macro_rules! replies {
    ($($reply:ty: $this:ident => $response:expr;)*) => {$(
        impl IntoResponse for $reply {
            fn into_response(self) -> Response {
                let $this = self;
                $response
            }
        }
    )*};
}

replies! {
    Response: this => this;
    &'static str: this => Response::of(TEXT, Bytes::from_static(this.as_bytes()));
    String: this => Response::text(this);
    Cow<'static, str>: this => Response::text(this);
    char: this => Response::text(this);
    Vec<u8>: this => Response::bytes(this);
    &'static [u8]: this => Response::of(BYTES, Bytes::from_static(this));
    Bytes: this => Response::bytes(this);
    serde_json::Value: this => Response::json(&this);
    (): _this => Response::new(StatusCode::OK);
    StatusCode: this => Response::new(this);
}

impl<T: Into<String>> IntoResponse for Html<T> {
    fn into_response(self) -> Response {
        Response::html(self.0)
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        Response::json(&self.0)
    }
}

impl<T: IntoResponse> IntoResponse for (StatusCode, T) {
    fn into_response(self) -> Response {
        self.1.into_response().with_status(self.0)
    }
}

impl<T: IntoResponse> IntoResponse for (u16, T) {
    fn into_response(self) -> Response {
        self.1.into_response().with_status(self.0)
    }
}

impl<T: IntoResponse> IntoResponse for Option<T> {
    fn into_response(self) -> Response {
        match self {
            Some(reply) => reply.into_response(),
            None => HttpError::of(StatusCode::NOT_FOUND).into_response(),
        }
    }
}

impl<T: IntoResponse, E: IntoHttpError> IntoResponse for Result<T, E> {
    fn into_response(self) -> Response {
        match self {
            Ok(reply) => reply.into_response(),
            Err(error) => error.into_http_error().into_response(),
        }
    }
}

/// What a hook or a guard may return: nothing, or a `Result` whose error is the answer.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be what a hook returns",
    label = "this hook returns `{Self}`",
    note = "a hook returns nothing, or a `Result<(), E>` whose error is the answer: `Err(redirect(\"/login\"))`, `Err(abort(403, text))`, and `Ok(())` to go on"
)]
pub trait HookOutcome {
    /// The answer, if the hook gives one.
    fn into_answer(self) -> Option<Response>;
}

impl HookOutcome for () {
    fn into_answer(self) -> Option<Response> {
        None
    }
}

impl<E: IntoHttpError> HookOutcome for std::result::Result<(), E> {
    fn into_answer(self) -> Option<Response> {
        self.err().map(|error| error.into_http_error().into_response())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::http_error::abort;
    use crate::message::redirect::redirect;
    use http::header;

    fn failing() -> std::result::Result<(), std::num::ParseIntError> {
        "x".parse::<i32>().map(|_| ())
    }

    #[test]
    fn replies_become_answers() {
        let table: Vec<(Response, u16, &str, &str)> = vec![
            ("text".into_response(), 200, "text/plain; charset=utf-8", "text"),
            (Html("<b>").into_response(), 200, "text/html; charset=utf-8", "<b>"),
            (vec![65u8].into_response(), 200, "application/octet-stream", "A"),
            (serde_json::json!({"a": 1}).into_response(), 200, "application/json", "{\"a\":1}"),
            (().into_response(), 200, "", ""),
            ((201, "made").into_response(), 201, "text/plain; charset=utf-8", "made"),
            (Some("x").into_response(), 200, "text/plain; charset=utf-8", "x"),
            (None::<String>.into_response(), 404, "", ""),
            (
                Ok::<_, std::fmt::Error>("ok").into_response(),
                200,
                "text/plain; charset=utf-8",
                "ok",
            ),
            (failing().into_response(), 500, "", ""),
            (abort(418, "tea").into_response(), 418, "", ""),
            (abort(999, "").into_response(), 500, "", ""),
            (redirect("/x").into_response(), 303, "", ""),
            (redirect("/\r\nSet-Cookie: x").into_response(), 303, "", ""),
            ("x".into_response().with_header("x", "a\nb"), 500, "", ""),
        ];
        for (number, (response, status, content_type, body)) in table.into_iter().enumerate() {
            assert_eq!(response.status().as_u16(), status, "row {number}");
            let header = response.headers().get(header::CONTENT_TYPE);
            assert_eq!(header.map_or("", |value| value.to_str().unwrap()), content_type);
            assert_eq!(response.into_bytes().unwrap(), body, "row {number}");
        }
    }

    #[test]
    fn html_is_escaped() {
        assert_eq!(escape_html("<a b='\"&'>"), "&lt;a b=&#39;&quot;&amp;&#39;&gt;");
    }
}
