//! Errors of the app's own types, and what visitors see of errors.

use std::error::Error as StdError;
use std::fmt;

use bottle_session::http::StatusCode;
use bottle_session::{
    App, Error, ErrorKind, FormError, Html, HttpError, Own, Request, Response, Session,
    SessionPlugin, TestClient, abort, redirect,
};

use crate::support::logs::{collect_logs, errors_of};

/// An error of an app's own.
#[derive(Debug)]
enum Shop {
    NoSuchItem(u32),
    Broken(Box<dyn StdError + Send + Sync>),
}

impl fmt::Display for Shop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shop::NoSuchItem(item) => write!(f, "no item {item}"),
            Shop::Broken(_) => f.write_str("the shop is broken"),
        }
    }
}

impl StdError for Shop {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Shop::NoSuchItem(_) => None,
            Shop::Broken(cause) => Some(&**cause),
        }
    }
}

/// An error of another library, caused by the shop's.
#[derive(Debug)]
struct Around(Shop);

impl fmt::Display for Around {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("something around it")
    }
}

impl StdError for Around {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.0)
    }
}

type Boxed = Box<dyn StdError + Send + Sync>;

fn fails() -> Result<String, Shop> {
    Err(Shop::NoSuchItem(7))
}

fn answer(error: &Shop) -> HttpError {
    match error {
        Shop::NoSuchItem(item) => abort(404, format!("There is no item {item}.")),
        Shop::Broken(_) => abort(503, "The shop is closed."),
    }
}

fn client(set_up: impl FnOnce(&mut App)) -> TestClient {
    let mut app = App::new();
    set_up(&mut app);
    TestClient::new(app).unwrap()
}

#[test]
fn an_error_of_the_apps_own_is_answered_wherever_it_was_passed_on() {
    let client = client(|app| {
        app.install(SessionPlugin::new().in_memory()).unwrap();
        app.on_error(answer);
        app.get("/returned", fails);
        app.get("/passed", || -> Result<String, HttpError> { Ok(fails()?) });
        app.get("/boxed", || -> Result<String, Boxed> { Ok(fails()?) });
        app.get("/passed-boxed", || -> Result<String, HttpError> {
            Ok(fails().map_err(Boxed::from)?)
        });
        app.get("/other", || -> bottle_session::Result<String> { fails().map_err(Error::other) });
        app.get("/caused", || -> Result<String, HttpError> { Ok(fails().map_err(Around)?) });
        app.get("/anyhow", || -> Result<String, HttpError> {
            let text: anyhow::Result<String> = fails().map_err(anyhow::Error::from);
            Ok(text?)
        });
        app.get("/guarded", || "never").before(|| -> Result<(), Shop> { fails().map(|_| ()) });
        app.provide(|| -> Result<Own<u8>, Shop> { Err(Shop::NoSuchItem(7)) }).keyword("seven");
        app.get("/provided", |_: &mut Own<u8>| "never");
        app.provide(|| Own(0u16))
            .keyword("sixteen")
            .finish(|_, _| -> Result<(), Shop> { Err(Shop::NoSuchItem(7)) });
        app.get("/finished", |_: &mut Own<u16>| "never");
    });
    let seen = cfg!(feature = "anyhow");
    for (path, expected) in [
        ("/returned", true),
        ("/passed", true),
        ("/boxed", true),
        ("/passed-boxed", true),
        ("/other", true),
        ("/caused", true),
        ("/anyhow", seen),
        ("/guarded", true),
        ("/provided", true),
        ("/finished", true),
    ] {
        let answer = client.get(path).send();
        assert_eq!(answer.status(), if expected { 404 } else { 500 }, "{path}");
        assert_eq!(answer.text().contains("There is no item 7."), expected, "{path}");
    }
}

#[cfg(feature = "anyhow")]
#[test]
fn what_is_inside_of_an_anyhow_error_is_seen_through_its_contexts() {
    use anyhow::Context;

    collect_logs();
    let client = client(|app| {
        app.on_error(answer);
        app.get("/anyhow/<which>", |which: &str| -> anyhow::Result<String> {
            match which {
                "own" => fails().context("asking").context("trying"),
                "down" => {
                    Err(Error::new(ErrorKind::Unavailable, "Redis is down")).context("trying")
                }
                "abort" => Err(Error::from(abort(418, "tea")))?,
                "redirect" => Err(Error::from(redirect("/login"))).context("trying"),
                _ => anyhow::bail!("nothing known"),
            }
        });
    });
    for (which, status) in
        [("own", 404), ("down", 503), ("abort", 418), ("redirect", 303), ("text", 500)]
    {
        assert_eq!(client.get(&format!("/anyhow/{which}")).send().status(), status, "{which}");
    }
    let lines = errors_of("/anyhow/text answers 500: nothing known");
    assert_eq!(lines.len(), 1, "{lines:?}");
}

#[test]
fn boxes_and_texts_pass_as_errors_and_are_a_logged_500() {
    collect_logs();
    let client = client(|app| {
        app.get("/fails/box", || -> Result<String, HttpError> {
            let text: Result<String, Boxed> = Err("in a box".into());
            Ok(text?)
        });
        app.get("/fails/text", || -> Result<String, String> { Err("a text".to_owned()) });
        app.get("/fails/anyhow", || -> anyhow::Result<String> { anyhow::bail!("of anyhow") });
    });
    for (path, cause) in [("box", "in a box"), ("text", "a text"), ("anyhow", "of anyhow")] {
        let answer = client.get(&format!("/fails/{path}")).send();
        assert_eq!(answer.status(), 500);
        assert!(!answer.text().contains(cause), "{}", answer.text());
        let lines = errors_of(&format!("/fails/{path} answers 500: {cause}"));
        assert_eq!(lines.len(), 1, "{lines:?}");
    }
    assert!(errors_of("/fails/box")[0].contains("(at tests/errors.rs:"));
}

#[test]
fn an_error_caused_by_one_of_this_crate_answers_as_that_does() {
    let caused = |error: Error| Shop::Broken(Box::new(error));
    let client = client(move |app| {
        app.get("/<how>", move |how: &str| -> Result<String, Shop> {
            Err(match how {
                "down" => caused(Error::new(ErrorKind::Unavailable, "Redis is down")),
                "abort" => caused(abort(402, "Pay.").into()),
                "other" => caused(Error::other(Error::new(ErrorKind::Gone, "gone"))),
                _ => caused(Error::new(ErrorKind::Config, "wrong password")),
            })
        });
    });
    for (how, status) in [("down", 503), ("abort", 402), ("other", 409), ("config", 500)] {
        let answer = client.get(&format!("/{how}")).send();
        assert_eq!(answer.status(), status, "{how}");
        assert_eq!(answer.header("retry-after").is_some(), status == 503, "{how}");
    }
}

#[test]
fn the_innermost_app_answers_first_and_the_outermost_cause_counts() {
    let client = client(|app| {
        app.on_error(|_: &Shop| abort(410, "replaced"));
        app.on_error(|_: &Shop| abort(418, "outer"));
        app.on_error(|_: &std::num::ParseIntError| abort(400, "no number"));
        app.get("/", fails);
        app.group("/inner", |inner| {
            inner.on_error(answer);
            inner.get("/", fails);
            inner.get("/inherited", || "x".parse::<u8>().map(|_| "never"));
            inner.get("/chain", || -> Result<String, Shop> {
                "x".parse::<u8>().map_err(|error| Shop::Broken(error.into()))?;
                Ok(String::new())
            });
        });
        app.group("/isolated", |isolated| {
            isolated.get("/", fails);
        })
        .isolated();
    });
    for (path, status) in [
        ("/", 418),
        ("/inner", 404),
        ("/inner/inherited", 400),
        ("/inner/chain", 503),
        ("/isolated", 500),
    ] {
        assert_eq!(client.get(path).send().status(), status, "{path}");
    }
}

#[test]
fn an_answer_to_an_error_is_shown_on_its_page_and_keeps_its_cause() {
    let client = client(|app| {
        app.on_error(answer);
        app.error(404, |error: &HttpError| {
            let cause = error.cause().map(ToString::to_string).unwrap_or_default();
            let at = error.location().map(|at| at.file()).unwrap_or_default();
            Html(format!("page: {} {cause} {at}", error.message()))
        });
        app.after_request(|response: &mut Response| {
            let is_error = response.is_error().to_string();
            response.headers_mut().insert("x-error", is_error.parse().unwrap());
        });
        app.get("/passed", || -> Result<String, HttpError> { Ok(fails()?) });
    });
    let answer = client.get("/passed").send();
    assert_eq!(answer.text(), "page: There is no item 7. no item 7 tests/errors.rs");
    assert_eq!(answer.header("x-error"), Some("true"));
}

#[test]
fn an_answer_that_is_no_error_goes_out_as_it_is() {
    let client = client(|app| {
        app.on_error(|error: &Shop| match error {
            Shop::NoSuchItem(_) => redirect("/items").into(),
            Shop::Broken(_) => Response::text("sorry").with_status(StatusCode::IM_A_TEAPOT),
        });
        app.provide(|| Own(0u8)).keyword("work").finish(|_, answer| match answer.is_error() {
            true => Err(abort(500, "not what was answered")),
            false => Ok(()),
        });
        app.get("/", |_: &mut Own<u8>| fails());
        app.get("/broken", || -> Result<String, Shop> { Err(Shop::Broken("x".into())) });
    });
    assert_eq!(client.get("/").send().header("location"), Some("/items"));
    let answer = client.get("/broken").send();
    assert_eq!((answer.status(), &*answer.text()), (418, "sorry"));
}

#[test]
fn what_answers_an_error_may_panic() {
    let client = client(|app| {
        app.install(SessionPlugin::new().in_memory()).unwrap();
        app.on_error(|_: &Shop| -> HttpError { panic!("on purpose") });
        app.get("/handler", |session: &mut Session| {
            session.set("name", "Ada");
            fails()
        });
        app.provide(|| Own(0u8)).keyword("work").finish(|_, _| fails().map(|_| ()));
        app.get("/finish", |_: &mut Own<u8>| "never");
        app.get("/name", |session: &mut Session| session.get("name").unwrap_or("-").to_owned());
    });
    assert_eq!(client.get("/handler").send().status(), 500);
    assert_eq!(client.get("/name").send().text(), "-", "a panic saves nothing");
    assert_eq!(client.get("/finish").send().status(), 500);
}

#[test]
fn a_form_error_can_be_answered_too() {
    let client = client(|app| {
        app.on_error(|error: &FormError| {
            Response::json(&error.messages().collect::<Vec<_>>()).with_status(422)
        });
        app.post("/", |request: &Request| -> Result<String, HttpError> {
            Err(request.form()?.refuse("name", "is taken"))?
        });
    });
    let answer = client.post("/").form(&[("name", "Ada")]).send();
    assert_eq!((answer.status(), &*answer.text()), (422, r#"[["name","is taken"]]"#));
}

#[test]
fn visitors_see_a_page_and_programs_json() {
    let client = client(|app| {
        app.get("/said", || abort(403, "<b>Members</b> only."));
        app.get("/unsaid", || abort(503, ""));
        app.get("/failed", || "x".parse::<u8>().map(|number| number.to_string()));
        app.group("/api", |api| {
            api.problem_json(true);
            api.get("/said", || abort(403, "Members only."));
        });
    });
    let page = client.get("/said").header("accept", "text/html,*/*;q=0.8").send();
    assert_eq!(page.status(), 403);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(page.header("vary"), Some("Accept"));
    for part in
        ["<h1>403 Forbidden</h1>", "&lt;b&gt;Members&lt;/b&gt; only.", "color-scheme:light dark"]
    {
        assert!(page.text().contains(part), "{part}: {}", page.text());
    }
    assert!(!page.text().contains("<script") && !page.text().contains("<b>"));
    assert!(client.get("/unsaid").send().text().contains("Please try again soon."));
    let failed = client.get("/failed").send().text();
    assert!(failed.contains("Something went wrong on our side."), "{failed}");
    assert!(!failed.contains("invalid digit"), "{failed}");

    let (json, problem) = ("application/json", "application/problem+json");
    for (path, accept, content_type, text) in [
        ("/said", json, json, r#"{"error":"<b>Members</b> only.","status":403}"#),
        ("/unsaid", json, json, r#"{"error":"Service Unavailable","status":503}"#),
        ("/failed", json, json, r#"{"error":"Internal Server Error","status":500}"#),
        ("/nowhere", json, json, r#"{"error":"Not Found","status":404}"#),
        ("/unsaid", problem, problem, r#"{"status":503,"title":"Service Unavailable"}"#),
        (
            "/api/said",
            json,
            problem,
            r#"{"detail":"Members only.","status":403,"title":"Forbidden"}"#,
        ),
        ("/api/nowhere", json, problem, r#"{"status":404,"title":"Not Found"}"#),
    ] {
        let answer = client.get(path).header("accept", accept).send();
        assert_eq!(answer.header("content-type"), Some(content_type), "{path}");
        assert_eq!(answer.text(), text, "{path}");
        assert_eq!(answer.header("vary"), Some("Accept"), "{path}");
    }
}
