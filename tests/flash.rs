//! Flash messages.

use std::sync::Barrier;

use bottle_session::{App, Flash, Layout, RedisPool, Result, Session, SessionPlugin, TestClient};

use crate::support::redis_server::RedisServer;

fn texts(flashes: Vec<Flash>) -> String {
    flashes.into_iter().map(|flash| flash.text).collect::<Vec<_>>().join(" ")
}

fn client() -> TestClient {
    client_of(SessionPlugin::new().in_memory())
}

/// On Redis, in this layout, and the server, which ends with the test.
fn on_redis(layout: Layout) -> (TestClient, RedisServer) {
    let server = RedisServer::start(&[]);
    let pool = RedisPool::open(&server.url(0)).unwrap();
    (client_of(SessionPlugin::new().pool(pool).layout(layout)), server)
}

fn client_of(plugin: SessionPlugin) -> TestClient {
    let counters = plugin.counters();
    let mut app = App::new();
    app.install(plugin).unwrap();
    app.get("/flash/<text>", |s: &mut Session, text: &str| s.flash("info", text));
    app.get("/take", |s: &mut Session| -> Result<String> { Ok(texts(s.take_flashes()?)) });
    app.get("/both/<text>", |s: &mut Session, text: &str| -> Result<String> {
        s.set("seen", text);
        s.flash("info", text);
        Ok(texts(s.take_flashes()?))
    });
    app.get("/twice", |s: &mut Session| -> Result<String> {
        Ok(format!("{}|{}", texts(s.take_flashes()?), texts(s.take_flashes()?)))
    });
    app.get("/foreign", |s: &mut Session| s.set("_flash.0", "from elsewhere"));
    app.get("/categories", |s: &mut Session| -> Result<String> {
        Ok(format!("{:?}", s.take_flashes()?.iter().map(|f| &f.category[..]).collect::<Vec<_>>()))
    });
    app.get("/seen", |s: &mut Session| s.get("seen").unwrap_or("-").to_owned());
    app.get("/len", |s: &mut Session| s.len().to_string());
    app.get("/destroy", |s: &mut Session| -> Result<String> {
        s.flash("info", "never");
        s.destroy();
        Ok(texts(s.take_flashes()?))
    });
    app.get("/large", |s: &mut Session| s.flash("info", "x".repeat(70_000)));
    app.get("/created", move || counters.snapshot().created.to_string());
    TestClient::new(app).unwrap()
}

fn text(client: &TestClient, path: &str) -> String {
    let response = client.get(path).send();
    assert_eq!(response.status(), 200, "{path}");
    response.text()
}

#[test]
fn messages_are_shown_once_and_in_order() {
    let client = client();
    for path in ["/flash/one", "/flash/two", "/flash/three"] {
        text(&client, path);
    }
    assert_eq!(text(&client, "/len"), "3");
    assert_eq!(text(&client, "/twice"), "one two three|");
    assert_eq!(text(&client, "/take"), "");
    assert_eq!(text(&client, "/len"), "0");
}

#[test]
fn a_message_taken_by_its_own_request_leaves_no_trace() {
    let client = client();
    text(&client, "/flash/earlier");
    assert_eq!(text(&client, "/both/now"), "earlier now");
    assert_eq!(text(&client, "/len"), "1", "the key `seen`");
    assert_eq!(text(&client, "/take"), "");
}

#[test]
fn a_new_visitor_who_has_no_message_gets_no_session() {
    let client = client();
    for path in ["/take", "/destroy"] {
        let response = client.get(path).send();
        assert_eq!(response.text(), "");
        assert_eq!(response.set_cookies().len(), 0, "{path}");
    }
    assert_eq!(text(&client, "/created"), "0");
}

#[test]
fn a_category_comes_with_its_message_and_plain_text_is_a_message() {
    let client = client();
    text(&client, "/flash/one");
    text(&client, "/foreign");
    assert_eq!(text(&client, "/categories"), r#"["message", "info"]"#);
}

#[test]
fn a_message_past_the_cap_is_refused() {
    assert_eq!(client().get("/large").send().status(), 500);
}

#[test]
fn on_redis_too_messages_are_shown_once_and_in_order() {
    for layout in [Layout::Default, Layout::BottleSession] {
        let (client, _server) = on_redis(layout);
        for path in ["/flash/one", "/flash/two"] {
            text(&client, path);
        }
        assert_eq!(text(&client, "/both/three"), "one two three", "{layout:?}");
        assert_eq!(text(&client, "/take"), "");
        assert_eq!(text(&client, "/seen"), "three", "{layout:?}");
        shown_by_one(&client);
    }
}

#[test]
fn of_requests_that_take_together_each_message_is_shown_by_one() {
    shown_by_one(&client());
}

fn shown_by_one(first: &TestClient) {
    let cookie = || first.cookie("bottle.session").unwrap();
    for round in 0..50 {
        text(first, &format!("/flash/a{round}"));
        text(first, &format!("/flash/b{round}"));
        let takers: Vec<_> = (0..4)
            .map(|_| {
                let taker = TestClient::of(first.service().clone());
                taker.set_cookie("bottle.session", &cookie());
                taker
            })
            .collect();
        let start = Barrier::new(takers.len());
        let mut shown: Vec<String> = std::thread::scope(|scope| {
            let threads: Vec<_> = takers
                .iter()
                .map(|taker| {
                    scope.spawn(|| {
                        start.wait();
                        text(taker, "/take")
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        shown.retain(|text| !text.is_empty());
        assert_eq!(shown, [format!("a{round} b{round}")]);
    }
}
