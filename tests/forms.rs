//! Forms and uploads, as handlers see them.

use std::collections::HashMap;
use std::fmt::Debug;
use std::io::Read;

use bottle_session::http::{Method, uri::PathAndQuery};
use bottle_session::{
    App, CsrfPlugin, Form, FormError, FormLimits, HttpError, Json, Problem, Query, Request,
    RequestBody, Result, Secret, Session, SessionPlugin, TestClient, Upload,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::support::logs::{collect_logs, errors_of};

fn multipart(parts: &[(&str, &str)]) -> Vec<u8> {
    let part = |(parameters, content): &(&str, &str)| {
        format!("--b\r\nContent-Disposition: form-data; {parameters}\r\n\r\n{content}\r\n")
    };
    let mut body: String = parts.iter().map(part).collect();
    body.push_str("--b--\r\n");
    body.into_bytes()
}

const MULTIPART: &str = "multipart/form-data; boundary=b";
const URLENCODED: &str = "application/x-www-form-urlencoded";

fn client() -> TestClient {
    let mut app = App::new();
    app.post("/", |request: &Request| -> Result<String> {
        let form = request.form()?;
        // A second time it is the same form.
        assert!(std::ptr::eq(form, request.form()?));
        let fields = form.fields()?;
        let files: Vec<_> = form
            .files()
            .map(|f| (f.field(), f.filename(), f.raw_filename(), f.content_type(), f.len()))
            .collect();
        Ok(format!("{fields:?} {files:?}"))
    })
    .body_limit(1000);
    app.post("/named", |request: &Request| -> Result<String> {
        let form = request.form()?;
        let all = form.get_all("a")?;
        let files: Vec<_> = form.files_of("f").map(|file| file.bytes().unwrap().to_vec()).collect();
        let last = form.file("f").map(|file| file.raw_filename().to_owned());
        Ok(format!("{:?} {:?} {all:?} {files:?} {last:?}", form.get("a")?, form.get("f")?))
    });
    app.post("/late", |request: &Request| -> Result<String> {
        request.body_reader()?;
        Ok(request.form()?.get("a")?.unwrap_or_default().to_owned())
    });
    TestClient::new(app).unwrap()
}

#[test]
fn both_encodings_give_fields_and_files() {
    let client = client();
    let urlencoded = client.post("/").header("content-type", "Application/X-www-form-urlencoded");
    let urlencoded = urlencoded.body("a=1&b=%C3%A9+x&a=2&c").send();
    assert_eq!(urlencoded.text(), r#"[("a", "1"), ("b", "é x"), ("a", "2"), ("c", "")] []"#);
    let body = multipart(&[
        ("name=a", "1"),
        ("name=\"é\"", "x\r\ny"),
        ("name=f; filename=\"../é a.txt\"", "123"),
        ("name=none; filename=\"\"", ""),
    ]);
    let sent = client.post("/").header("content-type", MULTIPART).body(body).send();
    let expected = r#"[("a", "1"), ("é", "x\r\ny")] [("f", "é a.txt", "../é a.txt", None, 3)]"#;
    assert_eq!(sent.text(), expected);
    let empty = client.post("/").header("content-type", URLENCODED).send();
    assert_eq!(empty.text(), "[] []");
}

#[test]
fn fields_and_files_are_found_by_name() {
    let body = multipart(&[
        ("name=a", "1"),
        ("name=a", "2"),
        ("name=f; filename=x", "\u{1}"),
        ("name=f; filename=y", ""),
    ]);
    let sent = client().post("/named").header("content-type", MULTIPART).body(body).send();
    assert_eq!(sent.text(), r#"Some("2") None ["1", "2"] [[1], []] Some("y")"#);
}

#[test]
fn a_file_is_any_bytes_and_a_field_is_text() {
    let client = client();
    let with = |parameters: &str| {
        let mut body = multipart(&[(parameters, "XY")]);
        let at = body.windows(2).position(|pair| pair == b"XY").unwrap();
        body[at..at + 2].copy_from_slice(&[0xff, 0x00]);
        client.post("/named").header("content-type", MULTIPART).body(body).send()
    };
    assert_eq!(with("name=f; filename=x").text(), r#"None None [] [[255, 0]] Some("x")"#);
    let refused = with("name=a");
    assert_eq!(refused.status(), 400);
    assert!(refused.text().contains("a: cannot be read: it is not UTF-8"), "{}", refused.text());
    // What nobody asks for harms nobody.
    assert_eq!(with("name=b").text(), "None None [] [] None");
}

#[test]
fn what_is_no_form_is_refused_with_its_reason() {
    let client = client();
    let good = multipart(&[("name=a", "1")]);
    for (content_type, body, status, reason) in [
        (MULTIPART, &good[..], 200, ""),
        (MULTIPART, &good[..good.len() - 5], 400, "The form is malformed: it breaks off"),
        (MULTIPART, b"", 400, "The form is malformed: there is no delimiter"),
        ("multipart/form-data", &good, 400, "names no boundary"),
        ("multipart/mixed; boundary=b", &good, 415, "Expected a form"),
        ("application/json", b"{}", 415, "Expected a form"),
        ("", b"a=1", 415, "Expected a form"),
        (MULTIPART, &[b'x'; 1001], 413, "larger than 1000 bytes"),
    ] {
        let mut request = client.post("/");
        if !content_type.is_empty() {
            request = request.header("content-type", content_type);
        }
        let response = request.body(body.to_vec()).send();
        assert_eq!(response.status(), status, "{content_type}");
        assert!(response.text().contains(reason), "{}", response.text());
    }
}

#[test]
fn a_body_that_was_taken_as_a_stream_is_no_form_any_more() {
    let late = client().post("/late").form(&[("a", "1")]).send();
    assert_eq!(late.status(), 500);
}

#[test]
fn a_form_with_files_carries_its_csrf_token() {
    let mut app = App::new();
    app.install(SessionPlugin::new().in_memory()).unwrap();
    app.install(CsrfPlugin::new()).unwrap();
    app.get("/", |session: &mut Session| session.csrf_token());
    app.post("/", |request: &Request| -> Result<String> {
        Ok(request.form()?.file("f").map(|file| file.len()).unwrap_or(0).to_string())
    });
    let client = TestClient::new(app).unwrap();
    let token = client.get("/").send().text();
    for (token, status) in [(token.as_str(), 200), ("wrong", 403)] {
        let body = multipart(&[("name=f; filename=x", "123"), ("name=csrf_token", token)]);
        let sent = client.post("/").header("content-type", MULTIPART).body(body).send();
        assert_eq!(sent.status(), status);
    }
    // A token that came as a file is none.
    let body = multipart(&[("name=csrf_token; filename=x", &token)]);
    let sent = client.post("/").header("content-type", MULTIPART).body(body).send();
    assert_eq!(sent.status(), 403);
}

#[test]
fn fields_have_a_limit_however_they_are_encoded() {
    let mut app = App::new();
    app.post("/form", |request: &Request| -> Result<String> {
        Ok(request.form()?.fields()?.len().to_string())
    });
    app.post("/typed", |Form(fields): Form<Vec<(String, String)>>| fields.len().to_string());
    let client = TestClient::new(app).unwrap();
    for path in ["/form", "/typed"] {
        let send = |body: String| client.post(path).header("content-type", URLENCODED).body(body);
        // What has no name and no value is no field.
        let most = send("&".repeat(5000) + &"a&".repeat(1000)).send();
        assert_eq!((most.status(), most.text().as_str()), (200, "1000"), "{path}");
        let more = send("a&".repeat(1001)).send();
        assert_eq!(more.status(), 400, "{path}");
        assert!(more.text().contains("it has more than 1000 fields"), "{path}: {}", more.text());
    }
}

#[test]
fn json_that_is_nested_without_end_is_refused() {
    let mut app = App::new();
    app.post("/", |Json(value): Json<serde_json::Value>| value.to_string());
    let client = TestClient::new(app).unwrap();
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let nested = |depth| format!("{}1{}", open.repeat(depth), close.repeat(depth));
        let send = |body: String| {
            client.post("/").header("content-type", "application/json").body(body).send()
        };
        assert_eq!(send(nested(100)).text(), nested(100));
        assert_eq!(send(nested(100_000)).status(), 400);
        assert_eq!(send(open.repeat(100_000)).status(), 400);
    }
}

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
struct One<T> {
    #[allow(dead_code)]
    a: T,
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

/// Why a urlencoded form is refused.
fn refused<T: DeserializeOwned + 'static>(sent: &str) -> FormError {
    let mut app = App::new();
    let (teller, told) = std::sync::mpsc::channel();
    let teller = std::sync::Mutex::new(teller);
    app.post("/", move |form: Result<Form<T>, FormError>| {
        teller.lock().unwrap().send(form.err()).unwrap();
    });
    let client = TestClient::new(app).unwrap();
    client.post("/").header("content-type", URLENCODED).body(sent.to_owned()).send();
    told.recv().unwrap().expect("refused")
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
fn what_is_not_utf_8_is_never_garbled_in_silence() {
    let mut app = App::new();
    app.post("/typed", |Form(One { a }): Form<One<String>>| a);
    app.post("/other", |Form(One { a }): Form<One<u8>>| a.to_string());
    app.post("/get", |request: &Request| -> Result<String> {
        Ok(request.form()?.get("a")?.unwrap_or_default().to_owned())
    });
    app.post("/all", |request: &Request| -> Result<String> {
        Ok(request.form()?.fields()?.len().to_string())
    });
    app.post("/map", |Form(map): Form<HashMap<String, String>>| map.len().to_string());
    app.get("/query", |Query(One { a }): Query<One<String>>| a);
    app.get("/query/get", |request: &Request| -> Result<String> {
        Ok(request.query("a")?.unwrap_or_default().into_owned())
    });
    app.get("/query/all", |request: &Request| -> Result<String> {
        Ok(request.queries()?.len().to_string())
    });
    app.error_default(|error: &HttpError| error.message().to_owned());
    let client = TestClient::new(app).unwrap();
    let form = "Something in the form is wrong. a: cannot be read: it is not UTF-8.";
    let query = "Something in the address is wrong. a: cannot be read: it is not UTF-8.";
    for (path, sent, status, text) in [
        ("/typed", "a=Kj%E6r", 400, form),
        ("/get", "a=Kj%E6r", 400, form),
        ("/all", "a=Kj%E6r", 400, form),
        ("/map", "a=Kj%E6r", 400, form),
        ("/typed", "a=Kj%C3%A6r", 200, "Kjær"),
        ("/get", "a=Kj%C3%A6r", 200, "Kjær"),
        // What nobody asks for harms nobody.
        ("/typed", "a=x&b=Kj%E6r", 200, "x"),
        ("/other", "a=1&Kj%E6r=1", 200, "1"),
        ("/get", "a=x&b=Kj%E6r&%E6=1", 200, "x"),
        ("/query", "a=Kj%E6r", 400, query),
        ("/query/get", "a=Kj%E6r", 400, query),
        ("/query/all", "a=Kj%E6r", 400, query),
        ("/query", "a=x&b=Kj%E6r&%E6=1", 200, "x"),
        ("/query/get", "a=x&b=Kj%E6r&%E6=1", 200, "x"),
    ] {
        let got = match path.starts_with("/query") {
            true => client.get(&format!("{path}?{sent}")).send(),
            false => client.post(path).header("content-type", URLENCODED).body(sent).send(),
        };
        assert_eq!((got.status(), &got.text()[..]), (status, text), "{path} {sent}");
    }
}

#[test]
fn a_form_in_another_encoding_is_a_415_that_says_which() {
    let client = client();
    let part = multipart(&[("name=a\r\nContent-Type: text/plain; charset=windows-1252", "x")]);
    let file =
        multipart(&[("name=f; filename=x\r\nContent-Type: text/plain; charset=latin1", "x")]);
    let own = multipart(&[("name=a\r\nContent-Type: text/plain; charset=UTF-8", "x")]);
    let hidden = multipart(&[("name=_charset_", "iso-8859-15")]);
    let latin1 = "application/x-www-form-urlencoded; charset=iso-8859-1";
    for (content_type, body, status, charset) in [
        (latin1, &b"a=x"[..], 415, "iso-8859-1"),
        ("application/x-www-form-urlencoded; charset=utf-8", b"a=x", 200, ""),
        ("application/x-www-form-urlencoded; charset=\"US-ASCII\"", b"a=x", 200, ""),
        (URLENCODED, b"_charset_=windows-1252&a=x", 415, "windows-1252"),
        (URLENCODED, b"_charset_=UTF-8&a=x", 200, ""),
        ("multipart/form-data; boundary=b; charset=koi8-r", &own, 415, "koi8-r"),
        (MULTIPART, &part, 415, "windows-1252"),
        (MULTIPART, &own, 200, ""),
        (MULTIPART, &file, 200, ""),
        (MULTIPART, &hidden, 415, "iso-8859-15"),
    ] {
        let sent = client.post("/").header("content-type", content_type).body(body.to_vec()).send();
        assert_eq!(sent.status(), status, "{content_type}");
        if status == 415 {
            let text = format!(
                "The form says that it is in &quot;{charset}&quot;; forms are read as UTF-8 alone."
            );
            assert!(sent.text().contains(&text), "{}", sent.text());
        }
    }
}

#[test]
fn a_file_whose_name_is_in_a_code_page_spoils_no_form() {
    let mut body = multipart(&[("name=f; filename=\"Kj?r.txt\"", "123"), ("name=a", "1")]);
    let at = body.iter().position(|byte| *byte == b'?').unwrap();
    body[at] = 0xe6;
    let sent = client().post("/").header("content-type", MULTIPART).body(body).send();
    assert_eq!(sent.text(), r#"[("a", "1")] [("f", "Kjær.txt", "Kjær.txt", None, 3)]"#);
}

#[test]
fn an_encoded_part_is_a_400_that_names_it() {
    let body = multipart(&[("name=a\r\nContent-Transfer-Encoding: base64", "eA==")]);
    let sent = client().post("/").header("content-type", MULTIPART).body(body).send();
    assert_eq!(sent.status(), 400);
    for expected in ["part &quot;a&quot;", "base64", "RFC 7578 section 4.7"] {
        assert!(sent.text().contains(expected), "{}", sent.text());
    }
}

#[test]
fn json_behind_a_byte_order_mark_is_read() {
    let mut app = App::new();
    app.post("/", |Json(value): Json<u8>| value.to_string());
    let client = TestClient::new(app).unwrap();
    let send = |body: &'static str| {
        client.post("/").header("content-type", "application/json").body(body).send()
    };
    assert_eq!(send("\u{feff}7").text(), "7");
    assert_eq!(send("\u{feff}\u{feff}7").status(), 400);
}

#[derive(Debug, Deserialize)]
#[allow(dead_code)]
struct NewNote {
    title: String,
    pages: Option<u32>,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    public: bool,
    picture: Option<Upload>,
    #[serde(default)]
    others: Vec<Upload>,
}

fn notes() -> TestClient {
    let mut app = App::new();
    app.post("/notes", |Form(note): Form<NewNote>| format!("{note:?}"));
    app.post("/saved", |Form(note): Form<NewNote>| -> Result<String> {
        let mut text = String::new();
        for file in note.picture.iter().chain(&note.others) {
            let mut content = String::new();
            file.reader().read_to_string(&mut content)?;
            text += &format!("{}={content} ", file.filename());
        }
        Ok(text)
    });
    app.error_default(|error: &HttpError| error.message().to_owned());
    TestClient::new(app).unwrap()
}

#[test]
fn a_struct_takes_both_encodings_and_files_are_fields() {
    let client = notes();
    let send = |path: &str, parts: &[(&str, &str)]| {
        client.post(path).header("content-type", MULTIPART).body(multipart(parts)).send().text()
    };
    let none = "picture: None, others: []";
    let plain =
        client.post("/notes").form(&[("title", "Tea"), ("tags", "a"), ("public", "on")]).send();
    let expected =
        format!(r#"NewNote {{ title: "Tea", pages: None, tags: ["a"], public: true, {none} }}"#);
    assert_eq!(plain.text(), expected);
    // What browsers send where no file was chosen.
    let nothing = [
        ("name=title", "Tea"),
        ("name=tags", "a"),
        ("name=public", "on"),
        ("name=picture; filename=\"\"", ""),
        ("name=others; filename=\"\"", ""),
    ];
    assert_eq!(send("/notes", &nothing), expected);
    let files = [
        ("name=title", "Tea"),
        ("name=picture; filename=\"文件 é.pdf\"", "1"),
        ("name=others; filename=b", "2"),
        ("name=others; filename=c", ""),
    ];
    assert_eq!(send("/saved", &files), "文件 é.pdf=1 b=2 c= ");
    let refused = send("/notes", &[("name=title; filename=x", "Tea"), ("name=others", "x")]);
    let expected = "Something in the form is wrong. title: must be text and not a file; others: must be a file.";
    assert_eq!(refused, expected);
}

#[test]
fn an_upload_is_no_json_and_the_error_says_so() {
    let error = serde_json::from_str::<One<Upload>>(r#"{"a": "x"}"#).unwrap_err().to_string();
    assert!(error.starts_with("an Upload is a field of a Form"), "{error}");
}

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

#[test]
fn form_and_json_in_one_handler_do_not_build() {
    let mut app = App::new();
    app.post("/", |_: Form<One<u8>>, _: Json<u8>| ());
    let error = app.build().unwrap_err().to_string();
    let expected = "route /: argument 2 takes the body as JSON, which argument 1 takes as a form; a body is one of them: \
                    register a route for each, or take &Request and look at its content_type() (at tests/forms.rs:";
    assert!(error.starts_with(expected), "{error}");
    let mut app = App::new();
    app.post(
        "/",
        |_: Form<One<u8>>, _: Result<Form<One<String>>, FormError>, _: Query<One<u8>>| (),
    );
    app.build().unwrap();
}

/// A body that arrives in small pieces, as from a socket.
struct Arriving(std::io::Cursor<Vec<u8>>);

impl Read for Arriving {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = buffer.len().min(1009);
        self.0.read(&mut buffer[..most])
    }
}

fn streamed(content_type: &str, body: Vec<u8>, length: Option<u64>) -> Request {
    let mut request = Request::new(Method::POST, PathAndQuery::from_static("/"));
    request.headers_mut().insert("content-type", content_type.parse().unwrap());
    let reader = Box::new(Arriving(std::io::Cursor::new(body)));
    request.with_body(RequestBody::Stream { reader, length })
}

#[test]
fn large_files_are_streamed_to_the_disk_and_read_from_there() {
    let large: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let mut body = multipart(&[("name=a", "before"), ("name=small; filename=s", "small")]);
    body.truncate(body.len() - "--b--\r\n".len());
    for name in ["one", "two"] {
        body.extend_from_slice(
            format!("--b\r\nContent-Disposition: form-data; name={name}; filename={name}\r\n\r\n")
                .as_bytes(),
        );
        body.extend_from_slice(&large);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(&multipart(&[("name=z", "behind")]));
    let length = body.len() as u64;
    let mut app = App::new();
    app.post("/", move |request: &Request| -> Result<String> {
        let form = request.form()?;
        assert!(request.body().is_err(), "it is not in memory");
        assert_eq!((form.get("a")?, form.get("z")?), (Some("before"), Some("behind")));
        let (one, two) = (form.file("one").unwrap(), form.file("two").unwrap());
        // Readers do not disturb each other.
        let mut readers = [one.reader(), two.reader(), one.reader()];
        let mut read = [vec![], vec![], vec![]];
        for _ in 0..40 {
            for (reader, read) in readers.iter_mut().zip(&mut read) {
                reader.take(100_000).read_to_end(read)?;
            }
        }
        assert!(read.iter().all(|read| *read == large));
        assert!(one.bytes()? == large);
        Ok(format!("{} {:?}", one.len(), form.file("small").unwrap().bytes()?))
    })
    .body_limit(length);
    let service = app.build().unwrap();
    for known in [Some(length), None] {
        let answer = service.handle(streamed(MULTIPART, body.clone(), known));
        assert_eq!(answer.into_bytes().unwrap(), &b"3000000 b\"small\""[..]);
    }
    // One byte over, and one that is missing.
    let more = [&body[..], b"x"].concat();
    let answer = service.handle(streamed(MULTIPART, more, Some(length + 1)));
    assert_eq!(answer.status(), 413);
    let cut = body[..body.len() - 20].to_vec();
    for known in [Some(length), None] {
        assert_eq!(service.handle(streamed(MULTIPART, cut.clone(), known)).status(), 400);
    }
}

#[test]
fn one_field_one_file_and_all_have_their_limits() {
    let mut app = App::new();
    app.post("/", |Form(note): Form<NewNote>| format!("{}", note.title.len()))
        .body_limit(10 << 20)
        .config(FormLimits::new().field(1000).text(2000).file(400_000).count(4));
    app.error_default(|error: &HttpError| error.message().to_owned());
    let service = app.build().unwrap();
    let text = |length| "x".repeat(length);
    let (most, file, more) = (text(1000), text(400_000), text(400_001));
    for (parts, status, said) in [
        (vec![("name=title", &most[..]), ("name=picture; filename=f", &file)], 200, "1000"),
        (vec![("name=title", &text(1001))], 413, "title: is larger than 1000 bytes"),
        (vec![("name=title", &most), ("name=tags", &most)], 413, "tags: is larger than 2000 bytes"),
        (vec![("name=picture; filename=f", &more)], 413, "picture: is larger than 400000 bytes"),
        (vec![("name=title", ""); 4], 200, "0"),
        (vec![("name=title", ""); 5], 400, "it has more than 4 parts"),
    ] {
        let body = multipart(&parts);
        let length = body.len() as u64;
        for request in [
            streamed(MULTIPART, body.clone(), None),
            streamed(MULTIPART, body.clone(), Some(length)),
            streamed(MULTIPART, vec![], None).with_body(RequestBody::Bytes(body.clone().into())),
        ] {
            let answer = service.handle(request);
            let got = answer.status();
            let text = String::from_utf8(answer.into_bytes().unwrap().to_vec()).unwrap();
            assert_eq!(got, status, "{said}: {text}");
            assert!(text.contains(said), "{said}: {text}");
        }
    }
    let urlencoded =
        |body: String| service.handle(streamed(URLENCODED, body.into_bytes(), None)).status();
    assert_eq!(urlencoded(format!("title={most}")), 200);
    assert_eq!(urlencoded(format!("title={most}x")), 413);
    assert_eq!(urlencoded(format!("title=x&other={}", "%41".repeat(700))), 413);
    assert_eq!(urlencoded("title=&".repeat(5)), 400);
}

#[test]
fn a_saved_upload_overwrites_nothing_and_stays_in_its_folder() {
    let folder = std::env::temp_dir().join(format!("bs-uploads-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("inner")).unwrap();
    let saving = folder.join("inner");
    let mut app = App::new();
    app.post("/", move |Form(One { a }): Form<One<Upload>>, request: &Request| -> Result<String> {
        let path = match request.query("name")? {
            Some(name) => a.save_as(&saving, &name)?,
            None => a.save_to(&saving)?,
        };
        Ok(path.strip_prefix(&saving).unwrap().display().to_string())
    });
    let client = TestClient::new(app).unwrap();
    let send = |target: &str, name: &str, content: &str| {
        let body = multipart(&[(&format!("name=a; filename=\"{name}\""), content)]);
        client.post(target).header("content-type", MULTIPART).body(body).send()
    };
    let read = |name: &str| std::fs::read_to_string(folder.join("inner").join(name)).unwrap();
    assert_eq!(send("/", "文件 é.pdf", "one").text(), "文件 é.pdf");
    let second = send("/", "../文件 é.pdf", "two").text();
    assert!(
        second.starts_with("文件 é-") && second.ends_with(".pdf") && second.len() > 20,
        "{second}"
    );
    assert_eq!((read("文件 é.pdf"), read(&second)), ("one".to_owned(), "two".to_owned()));
    #[cfg(unix)]
    {
        // A link that somebody put there is not followed.
        std::os::unix::fs::symlink(folder.join("outside"), folder.join("inner/link.txt")).unwrap();
        assert_ne!(send("/", "link.txt", "three").text(), "link.txt");
        assert!(!folder.join("outside").exists());
    }
    assert_eq!(send("/?name=7.pdf", "x", "four").text(), "7.pdf");
    assert_eq!(read("7.pdf"), "four");
    for name in ["7.pdf", "..", ".", "", "../x", "x/y", "/etc/x", "x/", "a%5Cb", "c:x", "x%00"] {
        assert_eq!(send(&format!("/?name={name}"), "x", "five").status(), 500, "{name}");
    }
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
    assert_eq!(read("7.pdf"), "four");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[cfg(feature = "garde")]
mod checks {
    use std::borrow::Cow;
    use std::fmt::Display;

    use bottle_session::Checked;
    use garde::Validate;
    use garde::i18n::{
        I18n, InvalidCreditCard, InvalidEmail, InvalidPhoneNumber, InvalidUrl, IpKind,
    };

    use super::*;

    #[derive(Debug, Deserialize, Validate)]
    struct Account {
        #[garde(email)]
        email: String,
        #[garde(range(min = 18))]
        age: u8,
        #[garde(length(chars, min = 8))]
        password: Secret,
        #[garde(matches(password))]
        again: Secret,
        #[garde(length(max = 2), inner(length(min = 2)))]
        #[serde(default)]
        tags: Vec<String>,
    }

    #[test]
    fn all_that_is_wrong_is_told_at_its_field_and_the_form_is_kept() {
        let mut app = App::new();
        app.post("/", |form: Result<Checked<Form<Account>>, FormError>| match form {
            Ok(Checked(Form(account))) => account.email,
            Err(error) => serde_json::to_string(&error).unwrap(),
        });
        app.get("/", |Checked(Query(account)): Checked<Query<Account>>| account.email);
        let client = TestClient::new(app).unwrap();
        let bad = "email=ada&age=17&password=secret&again=sacred&tags=a&tags=bc";
        let good = "email=ada@example.com&age=18&password=correct+horse&again=correct+horse";
        let send = |body: &'static str| {
            client.post("/").header("content-type", URLENCODED).body(body).send().text()
        };
        let refused: serde_json::Value = serde_json::from_str(&send(bad)).unwrap();
        assert_eq!(
            refused["value"],
            serde_json::json!({ "email": "ada", "age": "17", "tags": "bc" })
        );
        assert_eq!(
            refused["message"],
            serde_json::json!({
                "email": "not a valid email: value is missing `@`",
                "age": "lower than 18",
                "password": "length is lower than 8",
                "again": "does not match password field",
                "tags": "length is lower than 2",
            })
        );
        assert_eq!(send(good), "ada@example.com");
        assert_eq!(client.get(&format!("/?{good}")).send().text(), "ada@example.com");
        let query = client.get(&format!("/?{bad}")).send();
        assert_eq!(query.status(), 400);
        assert!(query.text().contains("age: lower than 18"), "{}", query.text());
    }

    #[test]
    fn checks_speak_other_languages() {
        struct German;

        macro_rules! german {
            ($($method:ident($($type:ty)?) $text:literal)*) => {
                impl I18n for German {
                    $(fn $method(&self $(, _: $type)?) -> Cow<'static, str> { $text.into() })*

                    fn length_lower_than(&self, min: usize) -> Cow<'static, str> {
                        format!("mindestens {min} Zeichen").into()
                    }
                }
            };
        }
        german! {
            length_greater_than(usize) "zu lang"
            range_lower_than(&dyn Display) "zu klein"
            range_greater_than(&dyn Display) "zu groß"
            credit_card_invalid(InvalidCreditCard) "keine Kreditkarte"
            pattern_no_match(&dyn Display) "falsches Muster"
            contains_missing(&dyn Display) "unvollständig"
            url_invalid(InvalidUrl) "keine Adresse"
            prefix_missing(&dyn Display) "falscher Anfang"
            suffix_missing(&dyn Display) "falsches Ende"
            phone_number_invalid(InvalidPhoneNumber) "keine Telefonnummer"
            ip_invalid(IpKind) "keine IP-Adresse"
            matches_field_mismatch(&dyn Display) "anders"
            email_invalid(InvalidEmail) "keine E-Mail-Adresse"
            ascii_invalid() "nicht ASCII"
            alphanumeric_invalid() "nicht alphanumerisch"
            required_not_set() "fehlt"
        }

        let mut app = App::new();
        app.post("/", |request: &Request, Form(account): Form<Account>| -> Result<String> {
            let form = request.form()?;
            let checked = garde::i18n::with_i18n(German, || form.check(&account, &()));
            Ok(checked.unwrap_err().message("password").unwrap().to_owned())
        });
        let client = TestClient::new(app).unwrap();
        let sent = [("email", "a@b.c"), ("age", "18"), ("password", "secret"), ("again", "secret")];
        assert_eq!(client.post("/").form(&sent).send().text(), "mindestens 8 Zeichen");
    }
}
