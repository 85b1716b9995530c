//! Parts of the session as values of the app's own types.

use std::collections::BTreeMap;

use bottle_session::{App, Data, HttpError, Session, SessionPlugin, TestClient, abort, named};
use serde::{Deserialize, Serialize};

use crate::support::logs::{collect_logs, errors_of};

#[derive(Debug, Default, Deserialize, Serialize)]
struct Cart {
    items: BTreeMap<String, u32>,
}

fn client(set_up: impl FnOnce(&mut App)) -> TestClient {
    let mut app = App::new();
    app.install(SessionPlugin::new().in_memory()).unwrap();
    app.provide_data::<Cart>("cart");
    app.get("/show", |cart: &Data<Cart>| format!("{:?}", cart.items));
    app.get("/raw", |session: &mut Session| session.get("cart").unwrap_or("-").to_owned());
    set_up(&mut app);
    TestClient::new(app).unwrap()
}

fn add(cart: &mut Data<Cart>, item: String) {
    *cart.items.entry(item).or_default() += 1;
}

#[test]
fn a_value_is_the_default_until_it_is_changed_and_saved_when_it_is() {
    let client = client(|app| {
        app.post("/add/<item>", add);
        app.get("/touch", |cart: &mut Data<Cart>| cart.items.len().to_string());
        app.get("/undo", |cart: &mut Data<Cart>| {
            cart.items.insert("tea".to_owned(), 7);
            cart.items.remove("tea");
        });
    });
    assert_eq!(client.get("/show").send().text(), "{}");
    for path in ["/show", "/touch", "/undo"] {
        let answer = client.get(path).send();
        assert!(answer.set_cookies().is_empty(), "{path}: a default is not worth a session");
    }
    let added = client.post("/add/tea").send();
    assert!(added.cookie("bottle.session").is_some());
    client.post("/add/tea").send();
    assert_eq!(client.get("/show").send().text(), r#"{"tea": 2}"#);
    assert_eq!(client.get("/raw").send().text(), r#"{"items":{"tea":2}}"#);
}

#[test]
fn what_the_handler_removes_with_the_session_or_from_it_does_not_come_back() {
    let client = client(|app| {
        app.before(|cart: &mut Data<Cart>| add(cart, "visit".to_owned()));
        app.get("/", || "counted");
        app.get("/logout", |session: &mut Session| session.log_out());
        app.get("/remove", |session: &mut Session| drop(session.remove("cart")));
        app.get("/clear", |session: &mut Session| session.clear());
    });
    for path in ["/logout", "/remove", "/clear"] {
        client.get("/").send();
        let stored = client.get("/raw").send().text();
        assert!(stored.contains("visit"), "{path}: {stored}");
        client.get(path).send();
        // The guard of this request has counted it, and nothing before.
        let left = client.get("/show").send().text();
        assert_eq!(left, r#"{"visit": 1}"#, "{path}");
        client.get("/logout").send();
        assert_eq!(client.cookie("bottle.session"), None, "{path}");
    }
}

#[test]
fn it_is_there_beside_the_session_in_any_order_and_once_for_all() {
    let client = client(|app| {
        app.post("/first/<item>", |cart: &mut Data<Cart>, session: &mut Session, item: String| {
            session.set("last", &item);
            add(cart, item);
        });
        app.post("/last/<item>", |session: &mut Session, cart: &mut Data<Cart>, item: String| {
            session.set("last", &item);
            add(cart, item);
        });
        app.get("/guarded", |cart: &Data<Cart>| format!("{:?}", cart.items))
            .before(|cart: &mut Data<Cart>| add(cart, "by the guard".to_owned()));
        app.get("/named/<item>", named!(|item: String, cart: &mut Data<Cart>| add(cart, item)));
        app.get("/last", |session: &mut Session| session.get("last").unwrap().to_owned());
    });
    client.post("/first/tea").send();
    client.post("/last/cups").send();
    assert_eq!(client.get("/last").send().text(), "cups");
    assert_eq!(client.get("/show").send().text(), r#"{"cups": 1, "tea": 1}"#);
    client.get("/named/tea").send();
    assert_eq!(client.get("/guarded").send().text(), r#"{"by the guard": 1, "cups": 1, "tea": 2}"#);
    assert_eq!(client.get("/show").send().text(), r#"{"by the guard": 1, "cups": 1, "tea": 2}"#);
}

#[test]
fn it_is_saved_after_an_error_and_not_after_a_panic() {
    let client = client(|app| {
        app.post("/<how>/<item>", |cart: &mut Data<Cart>, how: &str, item: String| {
            add(cart, item);
            match how {
                "panic" => panic!("on purpose"),
                "abort" => Err(abort(409, "no")),
                _ => Ok(()),
            }
        });
    });
    assert_eq!(client.post("/abort/tea").send().status(), 409);
    assert_eq!(client.post("/panic/cups").send().status(), 500);
    assert_eq!(client.get("/show").send().text(), r#"{"tea": 1}"#, "as with what is set");
}

#[test]
fn what_is_no_such_value_is_an_error_that_names_key_and_type_and_no_value() {
    collect_logs();
    let client = client(|app| {
        app.get("/set/<text:path>", |session: &mut Session, text: &str| session.set("cart", text));
        app.get("/wrong", |cart: &Data<Cart>| cart.items.len().to_string());
        app.get("/optional", |cart: Option<&Data<Cart>>| cart.is_some().to_string());
    });
    for (text, expected) in [
        ("{}", "missing field `items` at line 1 column 2"),
        (r#"{"items":{"tea":"secret"}}"#, "expected u32 at line 1 column 24"),
        ("secret", "expected value at line 1 column 1"),
    ] {
        let path = percent_encoded(text);
        assert_eq!(client.get(&format!("/set/{path}")).send().status(), 200);
        assert_eq!(client.get("/wrong").send().status(), 500);
        assert_eq!(client.get("/optional").send().status(), 500, "a broken value is no absent one");
        let text = format!("session key \"cart\" holds no {}::Cart: {expected}", module_path!());
        assert_eq!(errors_of(&format!("/wrong answers 500: {text}")).len(), 1, "{text}");
    }
    assert!(errors_of("/wrong").iter().all(|line| !line.contains("secret")));
}

fn percent_encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[test]
fn of_several_sessions_the_option_says_which() {
    let mut app = App::new();
    app.install(SessionPlugin::new().in_memory()).unwrap();
    let admin = SessionPlugin::new().in_memory().keyword("admin").cookie_name("admin.session");
    app.install(admin).unwrap();
    app.provide_data::<Cart>("cart").session("admin").keyword("basket");
    app.get("/add/<item>", named!(|basket: &mut Data<Cart>, item: String| add(basket, item)));
    let client = TestClient::new(app).unwrap();
    let answer = client.get("/add/tea").send();
    assert!(answer.cookie("admin.session").is_some() && answer.cookie("bottle.session").is_none());
}

#[test]
fn without_a_session_plugin_the_app_does_not_build() {
    let mut app = App::new();
    app.provide_data::<Cart>("cart");
    app.get("/", |_: &Data<Cart>| "never");
    let error = app.build().unwrap_err().to_string();
    assert!(
        error.contains("the provider of bottle_session::Data<")
            && error.contains("asks for bottle_session::Session"),
        "{error}"
    );
}

#[test]
fn a_value_too_large_for_the_session_is_refused() {
    let mut app = App::new();
    app.install(SessionPlugin::new().in_memory().max_bytes(64)).unwrap();
    app.provide_data::<Cart>("cart");
    app.get("/add/<item>", |cart: &mut Data<Cart>, item: String| -> Result<(), HttpError> {
        add(cart, item);
        Ok(())
    });
    app.get("/show", |cart: &Data<Cart>| format!("{:?}", cart.items));
    let client = TestClient::new(app).unwrap();
    assert_eq!(client.get(&format!("/add/{}", "x".repeat(65))).send().status(), 500);
    assert_eq!(client.get("/show").send().text(), "{}");
}
