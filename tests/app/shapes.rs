//! Status, headers and bodies: one shape everywhere.

use bottle_session::http::header;
use bottle_session::{
    Body, MemoryStore, Redirect, Session, SessionPlugin, StaticFile, static_file,
};

use super::*;
use crate::support::logs::{collect_logs, logs_of};

#[test]
fn a_status_is_a_number_or_a_status_code_everywhere() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("gone.txt"), "gone").unwrap();
    let root = folder.path().to_owned();
    let client = client(|app| {
        app.get("/abort/number", || abort(418, "").into_response());
        app.get("/abort/code", || abort(StatusCode::IM_A_TEAPOT, "").into_response());
        app.get("/error", || HttpError::new(409).with_status(418).into_response());
        app.get("/redirect", || redirect("/x").with_status(301));
        app.get("/redirect/code", || redirect("/x").with_status(StatusCode::MOVED_PERMANENTLY));
        app.get("/permanent", || redirect("/x").permanent());
        app.get("/temporary", || redirect("/x").temporary());
        app.get("/early", || -> std::result::Result<(), HttpError> {
            Err(HttpError::from(redirect("/x")).with_status(307))
        });
        app.get("/response", || Response::new(202).with_status(203));
        app.get("/tuple", || (201, "x"));
        app.get("/tuple/code", || (StatusCode::CREATED, "x"));
        app.get("/file", move |request: &Request| {
            static_file(request, "gone.txt", &root).with_status(410)
        });
        app.get("/no/abort", || abort(99, "").into_response());
        app.get("/no/status", || Response::new(600));
        app.get("/no/redirect", || redirect("/x").with_status(1));
        app.get("/no/tuple", || (42, "x"));
        app.error(StatusCode::IM_A_TEAPOT, || "tea");
    });
    for (path, status) in [
        ("/abort/number", 418),
        ("/abort/code", 418),
        ("/error", 418),
        ("/redirect", 301),
        ("/redirect/code", 301),
        ("/permanent", 308),
        ("/temporary", 307),
        ("/early", 307),
        ("/response", 203),
        ("/tuple", 201),
        ("/tuple/code", 201),
        ("/file", 410),
        ("/no/abort", 500),
        ("/no/status", 500),
        ("/no/redirect", 500),
        ("/no/tuple", 500),
    ] {
        assert_eq!(client.get(path).send().status(), status, "{path}");
    }
    assert_eq!(client.get("/abort/number").send().text(), "tea");
    assert_eq!(client.get("/file").send().text(), "gone");
    let error = build_error(|app| {
        app.error(42, || "x");
    });
    assert!(
        error.starts_with("42 is no HTTP status; a status is a number from 100 to 599"),
        "{error}"
    );
    assert!(error.contains("(at tests/app/shapes.rs:"), "{error}");
}

#[test]
fn a_header_is_text_or_typed_everywhere() {
    let plain = || header::HeaderValue::from_static("typed");
    let client = client(|app| {
        app.get("/abort", || abort(403, "").with_header("x-a", "text").into_response());
        app.get("/error", move || {
            HttpError::new(403).with_header(header::ETAG, plain()).into_response()
        });
        app.get("/early", || -> std::result::Result<(), HttpError> {
            Err(HttpError::from(redirect("/x")).with_header("x-a", "text"))
        });
        app.get("/redirect", || -> Redirect { redirect("/x").with_header("x-a", "text") });
        app.get("/response", || Response::text("x").with_header("x-a", "text"));
        app.get("/bad/abort", || abort(403, "").with_header("x-a", "a\nb").into_response());
        app.get("/bad/redirect", || redirect("/x").with_header("x a", "text"));
    });
    for (path, status, name, value) in [
        ("/abort", 403, "x-a", Some("text")),
        ("/error", 403, "etag", Some("typed")),
        ("/early", 303, "x-a", Some("text")),
        ("/redirect", 303, "x-a", Some("text")),
        ("/response", 200, "x-a", Some("text")),
        ("/bad/abort", 500, "x-a", None),
        ("/bad/redirect", 500, "location", None),
    ] {
        let response = client.get(path).send();
        assert_eq!((response.status(), response.header(name)), (status, value), "{path}");
    }
}

#[test]
fn the_headers_of_a_file_do_not_land_on_its_404() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.css"), "a").unwrap();
    let root = folder.path().to_owned();
    let client = client(|app| {
        app.get("/<name>", move |request: &Request, name: &str| -> StaticFile {
            static_file(request, name, &root)
                .with_header(header::CACHE_CONTROL, "max-age=86400")
                .with_header("content-type", "text/x-own")
        });
    });
    let found = client.get("/a.css").send();
    let own = |name| found.header(name).map(str::to_owned);
    assert_eq!(own("cache-control").as_deref(), Some("max-age=86400"));
    assert_eq!(own("content-type").as_deref(), Some("text/x-own"));
    let etag = own("etag").unwrap();
    let unchanged = client.get("/a.css").header("if-none-match", &etag).send();
    assert_eq!(unchanged.status(), 304);
    assert_eq!(unchanged.header("cache-control"), Some("max-age=86400"));
    let lost = client.get("/b.css").send();
    assert_eq!((lost.status(), lost.header("cache-control")), (404, None));
}

#[test]
fn a_body_is_made_of_pieces() {
    let client = client(|app| {
        app.get("/lines", || Response::chunks((1..=3).map(|n| format!("{n}\n"))));
        app.get("/mixed", || Response::chunks(vec![&b"a"[..], &b""[..], &b"bc"[..]]));
        app.get("/none", || Response::chunks(Vec::<String>::new()));
    });
    for (path, body) in [("/lines", "1\n2\n3\n"), ("/mixed", "abc"), ("/none", "")] {
        assert_eq!(client.get(path).send().text(), body, "{path}");
    }
    // Each piece is sent when it is there: one read gives one piece.
    let mut pieces = vec!["one", "two"].into_iter();
    let response = Response::chunks(std::iter::from_fn(move || pieces.next()));
    let (_, _, Body::Stream { mut reader, length: None }) = response.into_parts() else {
        panic!("a stream")
    };
    let mut buffer = [0; 64];
    assert_eq!(reader.read(&mut buffer).unwrap(), 3);
    assert_eq!(reader.read(&mut buffer[..2]).unwrap(), 2);
    assert_eq!(reader.read(&mut buffer).unwrap(), 1);
    assert_eq!(reader.read(&mut buffer).unwrap(), 0);
}

#[test]
fn name_and_password_come_with_the_request() {
    let client = client(|app| {
        app.before(|request: &Request| match request.basic_auth() {
            Some((name, password)) if name == "ada" && password == "é:s" => Ok(()),
            _ => Err(bottle_session::basic_challenge("a \"quoted\" realm")),
        });
        app.get("/", || "in");
    });
    assert_eq!(client.get("/").basic_auth("ada", "é:s").send().text(), "in");
    let refused = client.get("/").basic_auth("ada", "wrong").send();
    assert_eq!(refused.status(), 401);
    let challenge = r#"Basic realm="a \"quoted\" realm", charset="UTF-8""#;
    assert_eq!(refused.header("www-authenticate"), Some(challenge));
    assert_eq!(client.get("/").header("authorization", "Basic !").send().status(), 401);
}

#[test]
fn the_client_replaces_what_a_request_has_once() {
    let client = client(|app| {
        app.post("/", |request: &Request| {
            ["host", "content-type", "x-many"]
                .map(|name| request.headers().get_all(name).iter().count().to_string())
                .join(" ")
        });
    });
    let response = client
        .post("/")
        .header("host", "example.org")
        .json(&1)
        .header("content-type", "application/vnd.api+json")
        .header("x-many", "1")
        .header("x-many", "2")
        .send();
    assert_eq!(response.text(), "1 1 2");
}

#[test]
fn a_hook_changes_the_path_and_so_the_route() {
    let client = client(|app| {
        app.before_request(|request: &mut Request| match request.path().strip_prefix("/old") {
            Some(rest) => request.set_path(&format!("/new{rest}")),
            None => Ok(()),
        });
        app.get("/new/<name>", |request: &Request, name: &str| {
            format!("{name} {}", request.query_string())
        });
    });
    assert_eq!(client.get("/old/x?a=1").send().text(), "x a=1");
}

#[test]
fn a_store_is_shared_behind_an_arc() {
    let store = Arc::new(MemoryStore::new());
    let app = |name: &str| {
        let mut app = App::new();
        app.install(SessionPlugin::new().store(store.clone()).cookie_name(name)).unwrap();
        app.get("/set", |session: &mut Session| session.set("a", "1"));
        app.get("/", |session: &mut Session| session.get("a").unwrap_or("-").to_owned());
        TestClient::new(app).unwrap()
    };
    let (one, other) = (app("one"), app("other"));
    one.get("/set").send();
    other.set_cookie("other", &one.cookie("one").unwrap());
    assert_eq!(other.get("/").send().text(), "1");
}

#[test]
fn errors_of_others_go_through_functions_of_ours() {
    fn other_crates() -> std::result::Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Err("no such thing".into())
    }
    fn set_up(port: &str) -> Result<App> {
        let _: u16 = port.parse().map_err(Error::other)?;
        other_crates().map_err(Error::other)?;
        Ok(App::new())
    }
    use bottle_session::{Error, ErrorKind};
    let error = set_up("x").unwrap_err();
    assert_eq!(
        (error.kind(), &*error.to_string()),
        (ErrorKind::Other, "invalid digit found in string")
    );
    assert_eq!(set_up("1").unwrap_err().to_string(), "no such thing");
    assert_eq!(HttpError::from(set_up("1").unwrap_err()).status(), 500);
}

#[test]
fn the_line_of_a_500_names_the_place_of_its_question_mark_and_the_route() {
    fn parsed(text: &str) -> std::result::Result<u8, HttpError> {
        Ok(text.parse()?) // here
    }
    collect_logs();
    let question_mark = line!() - 3;
    let client = client(|app| {
        app.get("/place/of/http", || parsed("x").map(|n| n.to_string()));
        app.get("/place/of/io", || -> Result<String> {
            Ok(std::fs::read_to_string("/nonexistent/place")?)
        });
        app.get("/place/of/abort", || abort(500, "x").into_response());
        app.get("/place/of/reply", || "x".parse::<u8>().map(|n| n.to_string()));
        app.get("/place/of/other", || -> Result<()> {
            "x".parse::<u8>().map_err(bottle_session::Error::other)?;
            Ok(())
        });
    });
    let routes = question_mark + 4;
    for (path, cause, place) in [
        ("/place/of/http", ": invalid digit found in string", Some(question_mark)),
        ("/place/of/io", ": No such file or directory (os error 2)", Some(routes + 3)),
        ("/place/of/abort", "", Some(routes + 5)),
        ("/place/of/reply", ": invalid digit found in string", None),
        // Called by the standard library, which knows no place in the program.
        ("/place/of/other", ": invalid digit found in string", None),
    ] {
        assert_eq!(client.get(path).send().status(), 500, "{path}");
        let lines = logs_of(path);
        let [line] = lines.as_slice() else { panic!("{lines:?}") };
        let place =
            place.map_or(String::new(), |place| format!("at tests/app/shapes.rs:{place}; "));
        let expected =
            format!("GET {path} answers 500{cause} ({place}route {path} at tests/app/shapes.rs:");
        assert!(line.contains(&expected), "{line}\nlacks {expected}");
    }
}
