//! Names and passwords in front of routes.

use bottle_session::{App, BasicAuthPlugin, TestClient};

fn client() -> TestClient {
    let mut app = App::new();
    let plugin = BasicAuthPlugin::new("The \"library\"")
        .user("ada", "correct horse")
        .user("bob", "pass:word")
        .check(|name, password| name == "eve" && password.len() == 12);
    app.install(plugin).unwrap();
    app.get("/", || "books");
    app.get("/open", || "hello").skip("basic_auth");
    TestClient::new(app).unwrap()
}

#[test]
fn only_who_has_name_and_password_comes_in() {
    let client = client();
    for (name, password, status) in [
        ("ada", "correct horse", 200),
        ("bob", "pass:word", 200),
        ("eve", "twelve chars", 200),
        ("ada", "pass:word", 401),
        ("bob", "correct horse", 401),
        ("ada", "", 401),
        ("", "correct horse", 401),
        ("Ada", "correct horse", 401),
        ("ada", "correct horse ", 401),
        ("eve", "short", 401),
        ("nobody", "anything", 401),
    ] {
        let answer = client.get("/").basic_auth(name, password).send();
        assert_eq!(answer.status(), status, "{name} {password}");
    }
    for authorization in ["", "Basic", "Basic !!", "Bearer ada", "Basic YWRh"] {
        let answer = client.get("/").header("authorization", authorization).send();
        assert_eq!(answer.status(), 401, "{authorization}");
        let challenge = r#"Basic realm="The \"library\"", charset="UTF-8""#;
        assert_eq!(answer.header("www-authenticate"), Some(challenge));
    }
    assert_eq!(client.get("/").send().status(), 401);
    assert_eq!(client.get("/open").send().text(), "hello");
}

#[test]
fn a_plugin_that_would_let_nobody_in_is_refused_and_its_debug_shows_no_password() {
    let error = App::new().install(BasicAuthPlugin::new("x")).map(drop).unwrap_err().to_string();
    assert!(error.contains("it would let nobody in; say whom with user or check"), "{error}");
    let plugin = BasicAuthPlugin::new("x").user("ada", "secret");
    assert_eq!(format!("{plugin:?}"), "BasicAuthPlugin(\"x\", 1 users)");
}
