//! Fields as the types of a struct.

use std::collections::HashMap;
use std::fmt::Debug;

use bottle_session::{
    App, Form, FormError, HttpError, Json, Problem, Query, Request, Result, TestClient, Upload,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{MULTIPART, One, URLENCODED, multipart, refused};
use crate::support::logs::{collect_logs, errors_of};

/// A multipart body of these fields.
fn fields(pairs: &str) -> Vec<u8> {
    let parts: Vec<_> = pairs
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap())
        .map(|(name, value)| (format!("name=\"{name}\""), value))
        .collect();
    multipart(&parts.iter().map(|(name, value)| (&name[..], *value)).collect::<Vec<_>>())
}

/// What a type makes of these fields: in a query, in a urlencoded form, in a multipart one. All say the same.
fn read<T: DeserializeOwned + Debug + 'static>(sent: &str) -> (u16, String) {
    let mut app = App::new();
    app.post("/form", |Form(value): Form<T>| format!("{value:?}"));
    app.get("/query", |Query(value): Query<T>| format!("{value:?}"));
    app.error_default(|error: &HttpError| error.message().to_owned());
    let client = TestClient::new(app).unwrap();
    let encoded = sent.replace(' ', "+");
    let form = client.post("/form").header("content-type", URLENCODED).body(encoded.clone()).send();
    let parts = client.post("/form").header("content-type", MULTIPART).body(fields(sent)).send();
    let query = client.get(&format!("/query?{encoded}")).send();
    let text = form.text();
    assert_eq!((parts.status(), parts.text()), (form.status(), text.clone()), "multipart {sent}");
    let of_query = query.text().replace("Something in the address", "Something in the form");
    assert_eq!((query.status(), of_query), (form.status(), text.clone()), "query {sent}");
    (form.status(), text)
}

#[derive(Debug, Deserialize)]
enum Color {
    #[serde(rename = "red")]
    Red,
    #[serde(rename = "blue")]
    Blue,
}

#[derive(Debug, Deserialize)]
struct Defaulted<T: Default> {
    #[serde(default)]
    #[allow(dead_code)]
    a: T,
}

fn one<T: DeserializeOwned + Debug + 'static>(sent: &str) -> String {
    let (status, text) = read::<One<T>>(sent);
    match status {
        200 => text.replace("One { a: ", "").replace(" }", ""),
        400 => text.replace("Something in the form is wrong. a: ", ""),
        _ => format!("{status} {text}"),
    }
}

#[test]
fn a_field_is_what_its_type_makes_of_it() {
    let table = [
        // A field left empty.
        (one::<Option<u32>>("a="), "None"),
        (one::<Option<u32>>("a=7"), "Some(7)"),
        (one::<Option<u32>>("b="), "None"),
        (one::<Option<String>>("a="), "None"),
        (one::<Option<bool>>("a="), "None"),
        (one::<Option<Color>>("a="), "None"),
        (one::<String>("a="), "\"\""),
        (one::<u32>("a="), "must be a whole number."),
        // Several values, and one.
        (one::<Vec<String>>("a=red&b=x&a=blue"), r#"["red", "blue"]"#),
        (one::<Vec<u8>>("a=1"), "[1]"),
        (one::<Vec<u8>>("a=1&a=x"), "must be a whole number."),
        (one::<Vec<String>>("b=1"), "is missing."),
        (one::<Option<Vec<String>>>("b=1"), "None"),
        (one::<Option<Vec<String>>>("a=x&a="), r#"Some(["x", ""])"#),
        (one::<(u8, u8)>("a=1&a=2"), "(1, 2)"),
        (one::<String>("a=1&a=2"), "\"2\""),
        (one::<u8>("a=x&a=2"), "2"),
        (one::<Option<u8>>("a=&a=2"), "Some(2)"),
        // Ticked boxes.
        (one::<bool>("a=on"), "true"),
        (one::<bool>("a=true"), "true"),
        (one::<bool>("a=1"), "true"),
        (one::<bool>("a=off"), "false"),
        (one::<bool>("a=false"), "false"),
        (one::<bool>("a=0"), "false"),
        (one::<bool>("a=0&a=1"), "true"),
        (one::<bool>("a=0"), "false"),
        (one::<bool>("a=maybe"), "must be yes or no."),
        (one::<bool>("b="), "is missing."),
        // Numbers as people type them.
        (one::<u8>("a= 7 "), "7"),
        (one::<u8>("a=-7"), "must be at least 0."),
        (one::<i8>("a=-700"), "must be at least -128."),
        (one::<u8>("a=256"), "must be at most 255."),
        (one::<u8>("a=7.5"), "must be a whole number."),
        (
            one::<i128>("a=-170141183460469231731687303715884105728"),
            "-170141183460469231731687303715884105728",
        ),
        (one::<u64>("a=18446744073709551615"), "18446744073709551615"),
        (one::<f64>("a=7.5"), "7.5"),
        (one::<f32>("a=0.1"), "0.1"),
        (one::<f64>("a=seven"), "must be a number."),
        (one::<f64>("a=NaN"), "must be a number."),
        (one::<std::num::NonZeroU8>("a=0"), "is not valid."),
        // Others.
        (one::<char>("a=x"), "'x'"),
        (one::<char>("a=xy"), "must be one character."),
        (one::<Color>("a=red"), "Red"),
        (one::<Vec<Color>>("a=red&a=blue"), "[Red, Blue]"),
        (one::<Color>("a=green"), "is none of the choices."),
        (one::<std::net::Ipv4Addr>("a=127.0.0.1"), "127.0.0.1"),
        (one::<Upload>("a=cat.jpg"), "must be a file."),
        (one::<Upload>("a="), "must be a file: none was chosen."),
        (one::<Option<Upload>>("a="), "None"),
    ];
    for (number, (got, expected)) in table.into_iter().enumerate() {
        assert_eq!(got, expected, "row {number}");
    }
}

#[test]
fn what_is_not_sent_is_what_its_default_says() {
    assert_eq!(read::<Defaulted<bool>>("").1, "Defaulted { a: false }");
    assert_eq!(read::<Defaulted<Vec<String>>>("b=1").1, "Defaulted { a: [] }");
}

#[test]
fn a_box_that_is_not_ticked_needs_a_default_and_the_log_says_so() {
    let refused = refused::<One<bool>>("b=1");
    assert_eq!(
        refused.to_string(),
        "the form is refused: field \"a\" is missing (not sent, as a box that is not ticked and a list of which nothing \
         is chosen are not; #[serde(default)] makes those false and empty)"
    );
}

#[test]
fn a_struct_that_denies_other_fields_names_them_and_takes_a_forms_token() {
    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Strict {
        a: u8,
    }
    assert_eq!(read::<Strict>("a=1&csrf_token=x&_charset_=utf-8").1, "Strict { a: 1 }");
    let (status, text) = read::<Strict>("a=1&b=2");
    let expected = "Something in the form is wrong. b: is no field of this form.";
    assert_eq!((status, &text[..]), (400, expected));
}

#[test]
fn names_with_brackets_are_renamed() {
    #[derive(Debug, Deserialize)]
    #[allow(dead_code)]
    struct Shirt {
        #[serde(rename = "color[]")]
        colors: Vec<Color>,
    }
    let (_, text) = read::<Shirt>("color[]=red&color[]=blue");
    assert_eq!(text, "Shirt { colors: [Red, Blue] }");
}

#[test]
fn a_form_is_a_map_or_a_list_of_pairs_where_it_is_read_as_one() {
    type Pairs = Vec<(String, String)>;
    assert_eq!(read::<Pairs>("b=1&a=2&b=3").1, r#"[("b", "1"), ("a", "2"), ("b", "3")]"#);
    assert_eq!(read::<HashMap<String, String>>("a=1&a=2").1, r#"{"a": "2"}"#);
    assert_eq!(read::<HashMap<String, Vec<u8>>>("a=1&a=2").1, r#"{"a": [1, 2]}"#);
    assert_eq!(read::<()>("a=1").1, "()");
}

#[test]
fn of_several_values_the_last_counts_wherever_it_is_asked_for() {
    let mut app = App::new();
    app.post("/", |request: &Request| -> Result<String> {
        let (form, query) = (request.form()?.get("a")?, request.query("a")?);
        Ok(format!("{form:?} {query:?}"))
    });
    let client = TestClient::new(app).unwrap();
    let sent = client.post("/?a=1&a=2").form(&[("a", "3"), ("a", "4")]).send();
    assert_eq!(sent.text(), r#"Some("4") Some("2")"#);
}

#[test]
fn what_is_wrong_is_told_all_at_once_in_the_order_of_the_struct() {
    #[derive(Debug, Deserialize)]
    #[allow(dead_code)]
    struct Many {
        z: u8,
        name: String,
        y: u8,
        color: Color,
        a: bool,
    }
    let sent = "a=x&color=green&name=Ada&y=7&z=many&unknown=1";
    let (status, text) = read::<Many>(sent);
    let expected = "Something in the form is wrong. z: must be a whole number; color: is none of the choices; \
                    a: must be yes or no.";
    assert_eq!((status, &text[..]), (400, expected));
    let error = refused::<Many>(sent);
    assert_eq!(
        error.to_string(),
        "the form is refused: field \"z\" must be a whole number; field \"color\" is none of the choices (expected one \
         of red, blue); field \"a\" must be yes or no (expected on, true, 1, off, false or 0)"
    );
    assert_eq!(
        (error.value("name"), error.value("z"), error.value("unknown")),
        (Some("Ada"), Some("many"), None)
    );
    assert_eq!(error.problem("color"), Some(&Problem::Choice));
}

#[test]
fn a_number_behind_flatten_is_told_to_whoever_wrote_it() {
    #[derive(Debug, Deserialize)]
    #[allow(dead_code)]
    struct Page {
        page: u32,
    }
    #[derive(Debug, Deserialize)]
    #[allow(dead_code)]
    struct Search {
        words: String,
        #[serde(flatten)]
        page: Page,
    }
    let mut app = App::new();
    app.get("/flattened", |Query(_): Query<Search>| ());
    app.get("/handled", |_: Result<Query<Search>, FormError>| "never");
    app.get(
        "/two",
        |Query(HashMap { .. }): Query<HashMap<String, String>>, Query(page): Query<Page>| {
            page.page.to_string()
        },
    );
    let client = TestClient::new(app).unwrap();
    collect_logs();
    for path in ["/flattened", "/handled"] {
        assert_eq!(client.get(&format!("{path}?words=tea&page=7")).send().status(), 500);
        let line = errors_of(&format!("GET {path} answers 500")).pop().unwrap();
        let expected =
            "field page: its type expects u32, and a form is text. Behind #[serde(flatten)]";
        assert!(line.contains(expected), "{line}");
        let advice = "take that struct as an argument of its own, Form<…> beside Form<…>";
        assert!(line.contains(advice), "{line}");
    }
    // What the log advises works.
    assert_eq!(client.get("/two?words=tea&page=7").send().text(), "7");
}

#[test]
fn text_behind_flatten_works() {
    #[derive(Debug, Deserialize)]
    #[allow(dead_code)]
    struct Inner {
        b: String,
        c: Option<String>,
    }
    #[derive(Debug, Deserialize)]
    #[allow(dead_code)]
    struct Outer {
        a: u8,
        #[serde(flatten)]
        inner: Inner,
    }
    let (_, text) = read::<Outer>("a=1&b=x&b=y");
    assert_eq!(text, r#"Outer { a: 1, inner: Inner { b: "y", c: None } }"#);
}

#[test]
fn form_and_json_in_one_handler_do_not_build() {
    let mut app = App::new();
    app.post("/", |_: Form<One<u8>>, _: Json<u8>| ());
    let error = app.build().unwrap_err().to_string();
    let expected = "route /: argument 2 takes the body as JSON, which argument 1 takes as a form; a body is one of them: \
                    register a route for each, or take &Request and look at its content_type() (at tests/forms/types.rs:";
    assert!(error.starts_with(expected), "{error}");
    let mut app = App::new();
    app.post(
        "/",
        |_: Form<One<u8>>, _: Result<Form<One<String>>, FormError>, _: Query<One<u8>>| (),
    );
    app.build().unwrap();
}
