//! What handlers read and reply: values, errors, headers and cookies.

use super::*;

#[test]
fn query_form_and_json_are_read_into_types() {
    let client = client(|app| {
        app.get("/q", |Query(page): Query<Page>| format!("{} {:?}", page.number, page.size));
        app.post("/f", |Form(page): Form<Page>| page.number.to_string());
        app.post("/j", |Json(page): Json<Page>| Json(page));
        app.post("/small", |request: &Request| -> Result<String> {
            Ok(String::from_utf8_lossy(request.body()?).into_owned())
        })
        .body_limit(4);
    });
    let page = Page { number: 3, size: None };
    assert_eq!(client.get("/q?number=2&size=5").send().text(), "2 Some(5)");
    assert_eq!(client.get("/q?number=x").send().status(), 400);
    assert_eq!(client.post("/f").form(&page).send().text(), "3");
    assert_eq!(client.post("/f").json(&page).send().status(), 415);
    assert_eq!(client.post("/j").json(&page).send().json::<Page>().unwrap().number, 3);
    assert_eq!(
        client.post("/j").header("content-type", "application/json").body("{").send().status(),
        400
    );
    assert_eq!(client.post("/small").body("1234").send().text(), "1234");
    assert_eq!(client.post("/small").body("12345").send().status(), 413);
    let large = "x".repeat(1024 * 1024 + 1);
    assert_eq!(
        client
            .post("/f")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(large)
            .send()
            .status(),
        413
    );
}

#[test]
fn errors_have_pages_and_keep_their_status() {
    let client = client(|app| {
        app.get("/abort", || abort(418, "short & <stout>").into_response());
        app.get("/none", || None::<String>);
        app.get("/fail", || "x".parse::<u8>().map(|n| n.to_string()));
        app.get("/panic", || -> String { panic!("secret") });
        app.get("/plain", || abort(410, "plain").into_response());
        app.get("/redirect", || -> Result<String> { Err(redirect("/login").into()) });
        app.get("/early", || -> std::result::Result<String, HttpError> {
            let number: u8 = "300".parse()?;
            Ok(number.to_string())
        });
        app.error(404, |error: &HttpError, request: &Request| {
            format!("{} {}", error.status(), request.path())
        });
        app.error(410, || -> String { panic!("a page that fails") });
        app.error_default(|error: &HttpError| {
            Html(format!("any: {}", bottle_session::escape_html(error.message())))
        });
    });
    for (path, status, text) in [
        ("/abort", 418, "any: short &amp; &lt;stout&gt;"),
        ("/none", 404, "404 Not Found /none"),
        ("/nowhere", 404, "404 Not Found /nowhere"),
        ("/fail", 500, "any: "),
        ("/panic", 500, "any: "),
        ("/early", 500, "any: "),
        ("/redirect", 303, ""),
    ] {
        let response = client.get(path).send();
        assert_eq!((response.status(), response.text().as_str()), (status, text), "{path}");
    }
    let plain = client.get("/plain").send();
    // The page for the status has failed: the one for all.
    assert_eq!((plain.status(), plain.text().as_str()), (410, "any: plain"));
}

#[test]
fn cookies_and_headers_survive_whatever_the_answer_is() {
    fn mark(head: &mut ResponseHead) -> Result<()> {
        head.set_cookie(Cookie::new("kept", "yes"))?;
        head.set_header("x-kept", "yes")
    }
    let client = client(|app| {
        app.get("/ok", |head: &mut ResponseHead| mark(head).map(|()| "ok"));
        app.get("/abort", |head: &mut ResponseHead| -> Result<()> {
            mark(head)?;
            Err(abort(403, "no").into())
        });
        app.get("/redirect", |head: &mut ResponseHead| -> Result<_> {
            mark(head)?;
            Ok(redirect("/"))
        });
        app.get("/fail", |head: &mut ResponseHead| -> std::result::Result<(), HttpError> {
            mark(head)?;
            "x".parse::<u8>()?;
            Ok(())
        });
        app.get("/own", |head: &mut ResponseHead| -> Result<Response> {
            mark(head)?;
            Ok(Response::text("own").with_cookie(Cookie::new("other", "1")))
        });
    });
    for path in ["/ok", "/abort", "/redirect", "/fail", "/own"] {
        client.forget_cookies();
        let response = client.get(path).send();
        assert_eq!(response.header("x-kept"), Some("yes"), "{path}");
        assert_eq!(client.cookie("kept").as_deref(), Some("yes"), "{path}");
    }
    assert_eq!(client.cookie("other").as_deref(), Some("1"));
}

#[test]
fn nothing_gets_out_of_a_header() {
    let client = client(|app| {
        app.get("/head/<v>", |head: &mut ResponseHead, v: &str| match head.set_header("x-v", v) {
            Ok(()) => "set".to_owned(),
            Err(error) => error.to_string(),
        });
        app.get("/to/<v>", |v: &str| redirect(v));
        app.get("/cookie/<v>", |v: &str| {
            Response::text("x").with_cookie(Cookie::new("c", v.to_owned()))
        });
    });
    for bad in ["a%0D%0Ab:c", "a%0Ab", "a%00b", "a%0Db"] {
        assert!(
            client.get(&format!("/head/{bad}")).send().text().contains("not a header value"),
            "{bad}"
        );
        let redirected = client.get(&format!("/to/{bad}")).send();
        assert_eq!(
            (redirected.status(), redirected.header("location")),
            (303, Some(bad)),
            "encoded anew"
        );
        let cookies = client.get(&format!("/cookie/{bad}")).send();
        assert!(!cookies.set_cookies()[0].contains(['\r', '\n', '\0']), "{bad}");
    }
}

#[test]
fn the_head_is_borrowed_once() {
    let error = build_error(|app| {
        app.get("/", |_: &mut ResponseHead, _: &mut ResponseHead| "x");
    });
    assert!(error.contains("argument 2 asks a second time for &mut ResponseHead"), "{error}");
}
