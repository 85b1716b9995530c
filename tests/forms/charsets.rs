//! Text that is not UTF-8, and what a client says of its encoding.

use std::collections::HashMap;

use bottle_session::{App, Form, HttpError, Json, Query, Request, Result, TestClient};

use super::{MULTIPART, One, URLENCODED, client, multipart};

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
