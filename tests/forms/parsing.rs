//! What is a form, in which encoding of the body, and what is refused.

use bottle_session::{
    App, CsrfPlugin, Form, Json, Request, Result, Session, SessionPlugin, TestClient,
};

use super::{MULTIPART, URLENCODED, client, multipart};

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
