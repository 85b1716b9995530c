//! The client that tests of apps are written with.

use bottle_session::http::Method;
use bottle_session::{
    App, Cookie, Flash, Form, Request, Response, ResponseHead, Result, Session, SessionPlugin,
    TestClient, Upload, redirect,
};
use serde::Deserialize;

fn client(set_up: impl FnOnce(&mut App)) -> TestClient {
    let mut app = App::new();
    app.install(SessionPlugin::new().in_memory()).unwrap();
    set_up(&mut app);
    TestClient::new(app).unwrap()
}

fn echo(request: &Request) -> Result<String> {
    let body = String::from_utf8_lossy(request.body()?).into_owned();
    Ok(format!("{} {} {body}", request.method(), request.target()))
}

#[test]
fn it_sends_every_method() {
    let client = client(|app| {
        app.route("ANY", "/", echo);
    });
    for (request, expected) in [
        (client.get("/"), "GET / "),
        (client.post("/").body("a"), "POST / a"),
        (client.put("/").body("b"), "PUT / b"),
        (client.patch("/").body("c"), "PATCH / c"),
        (client.delete("/?d"), "DELETE /?d "),
        (client.request(Method::OPTIONS, "/"), "OPTIONS / "),
    ] {
        assert_eq!(request.send().text(), expected);
    }
}

#[derive(Deserialize)]
struct Note {
    title: String,
    #[serde(default)]
    tags: Vec<String>,
    pictures: Vec<Upload>,
}

#[test]
fn it_sends_forms_with_files() {
    let client = client(|app| {
        app.post("/", |Form(note): Form<Note>| {
            let pictures = note.pictures.iter().map(|picture| {
                let bytes = picture.bytes().map(|bytes| bytes.to_vec()).unwrap_or_default();
                format!("{:?} {:?} {:?}", picture.filename(), picture.content_type(), bytes)
            });
            format!("{} {:?} {}", note.title, note.tags, pictures.collect::<Vec<_>>().join(" and "))
        });
    });
    let answer = client
        .post("/")
        .field("title", "Tea\r\n------bottle-session-test--")
        .field("tags", "hot")
        .field("tags", "green")
        .file("pictures", "cup \"1\".png", "image/png", &b"\x89PNG\r\n"[..])
        .file("pictures", "empty.txt", "text/plain", "")
        .send();
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let text = answer.text();
    assert!(text.starts_with("Tea\r\n------bottle-session-test-- [\"hot\", \"green\"] "), "{text}");
    assert!(text.contains("Some(\"image/png\") [137, 80, 78, 71, 13, 10] and "), "{text}");
}

#[test]
fn it_follows_redirections_as_a_browser_does() {
    let client = client(|app| {
        app.route("ANY", "/<how:re:30[0-9]>", |how: u16| {
            Response::from(redirect("/end?a=b#part").with_status(how))
        });
        app.post("/twice", || redirect("303"));
        app.get("/away", || redirect("https://elsewhere.example/end"));
        app.get("/absolute", || redirect("http://localhost/end"));
        app.get("/round", || redirect("/round"));
        app.route("ANY", "/end", echo);
    });
    for (how, method, expected) in [
        (301, Method::POST, "GET /end?a=b "),
        (302, Method::POST, "GET /end?a=b "),
        (303, Method::POST, "GET /end?a=b "),
        (303, Method::PUT, "GET /end?a=b "),
        (302, Method::PUT, "PUT /end?a=b body"),
        (307, Method::POST, "POST /end?a=b body"),
        (308, Method::POST, "POST /end?a=b body"),
    ] {
        let request = client.request(method.clone(), &format!("/{how}")).body("body");
        let answer = request.follow_redirects().send();
        assert_eq!(answer.text(), expected, "{how} {method}");
        assert_eq!(answer.target(), "/end?a=b");
    }
    assert_eq!(client.post("/303").send().status(), 303, "it follows none unless asked to");
    assert_eq!(client.post("/twice").follow_redirects().send().text(), "GET /end?a=b ");
    assert_eq!(client.get("/absolute").follow_redirects().send().text(), "GET /end ");
    let away = client.get("/away").follow_redirects().send();
    assert_eq!((away.status(), away.target()), (303, "/away"));
    let round = || client.get("/round").follow_redirects().send();
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(round)).unwrap_err();
    let text = panic.downcast_ref::<String>().unwrap();
    assert_eq!(text, "endless redirections, to /round");
}

#[test]
fn it_shows_cookies_with_their_attributes() {
    let client = client(|app| {
        app.get("/", |head: &mut ResponseHead| -> Result<()> {
            head.set_cookie(
                Cookie::build(("color", "red")).path("/").secure(true).http_only(true),
            )?;
            head.remove_cookie("old")
        });
    });
    client.set_cookie("old", "x");
    let answer = client.get("/").send();
    let color = answer.cookie("color").unwrap();
    assert_eq!((color.value(), color.path()), ("red", Some("/")));
    assert_eq!((color.secure(), color.http_only()), (Some(true), Some(true)));
    assert!(answer.cookie("old").unwrap().max_age().unwrap().is_zero());
    assert!(answer.cookie("none").is_none());
    assert_eq!((client.cookie("color").as_deref(), client.cookie("old")), (Some("red"), None));
}

#[test]
fn it_shows_the_flashes_that_wait() {
    let client = client(|app| {
        app.post("/save", |session: &mut Session| {
            session.flash("info", "Saved.");
            session.flash("error", "Not all of it.");
            redirect("/")
        });
        app.get("/without", || "x");
        app.get("/with", |_: &mut Session| "x");
        app.get("/", |session: &mut Session| -> Result<String> {
            Ok(session.take_flashes()?.into_iter().map(|flash| flash.text).collect())
        });
    });
    let both = [Flash::new("info", "Saved."), Flash::new("error", "Not all of it.")];
    assert_eq!(client.post("/save").send().flashes(), both);
    assert_eq!(client.get("/without").send().flashes(), []);
    assert_eq!(client.get("/with").send().flashes(), both);
    let page = client.get("/").send();
    assert_eq!(page.text(), "Saved.Not all of it.");
    assert_eq!(page.flashes(), []);
    assert_eq!(client.post("/save").follow_redirects().send().flashes(), []);
}
