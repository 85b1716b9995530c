//! Forms with errors: what they show again, what they keep to themselves, and in which words.

use bottle_session::{
    App, Form, FormError, HttpError, Problem, Query, Request, Result, Secret, Session,
    SessionPlugin, TestClient,
};
use serde::Deserialize;

use super::{NewNote, One, refused};

#[derive(Deserialize)]
#[allow(dead_code)]
struct Login {
    user: String,
    password: Secret,
    pin: Option<Secret>,
    old: Vec<Secret>,
    age: u8,
}

#[test]
fn secrets_are_never_kept_shown_or_logged() {
    let sent = "user=ada&password=hunter2&pin=4711&old=sesame&age=x&csrf_token=t&other=o";
    let error = refused::<Login>(sent);
    assert_eq!(error.value("user"), Some("ada"));
    let shown = format!("{error} {error:?} {}", serde_json::to_string(&error).unwrap());
    for secret in ["hunter2", "4711", "sesame"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    for kept in ["password", "pin", "old", "csrf_token", "other"] {
        assert_eq!(error.value(kept), None, "{kept}");
    }
    // Nor in a form that fails with them.
    let error = refused::<Login>("user=ada&password=%FF&age=7&old=x");
    assert_eq!(
        (error.message("password"), error.value("password")),
        (Some("cannot be read: it is not UTF-8"), None)
    );
}

#[test]
fn secrets_that_serde_hides_are_not_kept_either() {
    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Outer {
        age: u8,
        #[serde(flatten)]
        inner: Inner,
    }
    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Inner {
        password: Secret,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    #[allow(dead_code)]
    enum Either {
        One(Secret),
        Other(String),
    }
    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Untagged {
        age: u8,
        password: Either,
    }
    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Pin(Secret);
    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Newtype {
        age: u8,
        password: Pin,
    }
    let sent = "age=x&password=hunter2";
    for error in [refused::<Outer>(sent), refused::<Untagged>(sent), refused::<Newtype>(sent)] {
        assert_eq!((error.value("age"), error.value("password")), (Some("x"), None));
    }
}

#[test]
fn debug_of_a_form_shows_names_only() {
    let mut app = App::new();
    app.post(
        "/",
        |request: &Request, form: Form<One<String>>, query: Query<One<String>>| -> Result<String> {
            Ok(format!("{:?} {form:?} {query:?}", request.form()?))
        },
    );
    let client = TestClient::new(app).unwrap();
    let text = client.post("/?a=hunter2").form(&[("a", "hunter2"), ("b", "hunter2")]).send().text();
    let one = "tests::forms::One<alloc::string::String>";
    assert_eq!(text, format!(r#"{{"a", "b"}} Form<{one}> Query<{one}>"#));
}

#[test]
fn a_rejected_form_is_shown_again_with_what_is_wrong() {
    let error = refused::<NewNote>("title=Tea+%26+milk&pages=many&tags=a&tags=b&public=on");
    assert_eq!(error.status(), 400);
    assert_eq!(error.value("title"), Some("Tea & milk"));
    assert_eq!(error.values("tags").collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(error.message("pages"), Some("must be a whole number"));
    assert_eq!((error.message("title"), error.form_message()), (None, None));
    assert_eq!(
        serde_json::to_value(&error).unwrap(),
        serde_json::json!({
            "value": { "title": "Tea & milk", "pages": "many", "tags": "b", "public": "on" },
            "values": { "title": ["Tea & milk"], "pages": ["many"], "tags": ["a", "b"], "public": ["on"] },
            "message": { "pages": "must be a whole number" },
            "form_message": "",
        })
    );
}

#[test]
fn texts_can_be_replaced() {
    let error = refused::<NewNote>("pages=99999999999").translate(|field, problem| match problem {
        Problem::Missing => Some(format!("{field} fehlt")),
        Problem::AtMost(most) => Some(format!("höchstens {most}")),
        _ => None,
    });
    assert_eq!(error.message("pages"), Some("höchstens 4294967295"));
    // Also on the page of an app whose handler takes the form as it is.
    let mut app = App::new();
    app.post("/", |Form(_): Form<NewNote>| ());
    app.error(400, |error: &HttpError| {
        let form = error.cause().and_then(|cause| cause.downcast_ref::<FormError>()).unwrap();
        let form = form
            .clone()
            .translate(|_, problem| (*problem == Problem::Missing).then(|| "fehlt".into()));
        form.messages().map(|(field, text)| format!("{field} {text}")).collect::<String>()
    });
    let client = TestClient::new(app).unwrap();
    assert_eq!(client.post("/").form(&[("a", "1")]).send().text(), "title fehlt");
}

#[test]
fn a_handler_adds_what_it_finds_wrong() {
    let mut app = App::new();
    app.post("/", |request: &Request, form: Result<Form<Login>, FormError>| -> Result<String> {
        let Form(login) = form?;
        let mut error = request.form()?.refuse("user", format!("no {}", login.user));
        error.add("password", "or it is wrong");
        Ok(format!("{:?} {:?}", serde_json::to_string(&error).unwrap(), error.message("password")))
    });
    let client = TestClient::new(app).unwrap();
    let text = client
        .post("/")
        .form(&[("user", "ada"), ("password", "p"), ("old", "o"), ("age", "7")])
        .send()
        .text();
    assert!(text.contains(r#"{\"age\":\"7\",\"user\":\"ada\"}"#), "{text}");
    assert!(text.contains(r#"Some("or it is wrong")"#), "{text}");
}

#[test]
fn a_form_that_is_refused_as_a_whole_leaves_that_to_the_handler_too() {
    let mut app = App::new();
    app.post("/", |form: Result<Form<NewNote>, FormError>| {
        let error = form.unwrap_err();
        (error.status(), format!("{:?}", error.form_message()))
    })
    .body_limit(10);
    let client = TestClient::new(app).unwrap();
    let large = client.post("/").form(&[("title", "more than ten bytes")]).send();
    assert_eq!(
        (large.status(), &large.text()[..]),
        (413, r#"Some("The request body is larger than 10 bytes.")"#)
    );
    let json = client.post("/").json(&1).send();
    assert_eq!(json.status(), 415);
}

#[test]
fn a_form_is_kept_for_one_page_in_the_session_within_its_caps() {
    let mut app = App::new();
    app.install(SessionPlugin::new().in_memory().max_bytes(2000)).unwrap();
    app.post("/", |session: &mut Session, form: Result<Form<Login>, FormError>| -> Result<()> {
        session.keep_form("login", &form.err().unwrap())
    });
    app.get("/", |session: &mut Session| -> Result<String> {
        let keys = session.iter().map(|(_, value)| value.to_owned()).collect::<String>();
        assert!(!keys.contains("hunter2"), "{keys}");
        let form = session.take_form("login")?;
        Ok(format!(
            "{:?}",
            form.map(|form| (
                form.value("user").map(str::to_owned),
                form.message("age").map(str::to_owned)
            ))
        ))
    });
    let client = TestClient::new(app).unwrap();
    let send = |user: &str| {
        client
            .post("/")
            .form(&[("user", user), ("password", "hunter2"), ("old", "hunter2"), ("age", "x")])
            .send()
            .status()
    };
    assert_eq!(send("ada"), 200);
    let shown = r#"Some((Some("ada"), Some("must be a whole number")))"#;
    assert_eq!([client.get("/").send().text(), client.get("/").send().text()], [shown, "None"]);
    assert_eq!(send(&"x".repeat(3000)), 500);
}
