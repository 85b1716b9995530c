//! Where a user is logged in, and how they end that elsewhere.

use std::time::Duration;

use bottle_session::http::Method;
use bottle_session::testing::store_contract::StoreUnderTest;
use bottle_session::{
    Action, App, Changes, EndDevices, ErrorKind, Layout, LogIn, RedisPool, RedisStore, Request,
    Save, Session, SessionPlugin, SessionStore, TestClient,
};
use serde_json::Value;

use super::{COOKIE, another, devices_app, text};
use crate::stores::Memory;
use crate::support::redis_server::RedisServer;
use crate::support::sessions::{IDLE, fresh_id};

fn devices(client: &TestClient) -> Vec<Value> {
    client.get("/devices").send().json().unwrap()
}

/// The same test in memory and in Redis.
fn in_both(test: impl Fn(TestClient)) {
    test(TestClient::new(devices_app(SessionPlugin::new().in_memory())).unwrap());
    let server = RedisServer::shared();
    let pool = RedisPool::open(&server.url(server.fresh_database())).unwrap();
    test(TestClient::new(devices_app(SessionPlugin::new().pool(pool))).unwrap());
}

#[test]
fn a_user_sees_all_devices_and_ends_one_or_all_others() {
    in_both(|laptop| {
        let [phone, tablet, stranger] = [(); 3].map(|()| another(&laptop));
        laptop.get("/in/ada").header("user-agent", "Laptop/1.0").send();
        phone.get("/in/ada").header("user-agent", &"Phone ".repeat(60)).send();
        tablet.get("/in/ada").send();
        stranger.get("/in/bob").send();
        let listed = devices(&laptop);
        assert_eq!(listed.len(), 3, "{listed:?}");
        let agents: Vec<_> =
            listed.iter().map(|device| device["agent"].as_str().unwrap()).collect();
        assert!(agents.contains(&"Laptop/1.0") && agents.contains(&""), "{agents:?}");
        assert!(agents.iter().any(|agent| agent.len() == 256), "{agents:?}");
        let this =
            |listed: &[Value]| listed.iter().find(|d| d["is_this"] == true).cloned().unwrap();
        let handle =
            |client: &TestClient| this(&devices(client))["handle"].as_str().unwrap().to_owned();
        // A handle of somebody else does nothing.
        assert_eq!(text(&laptop, &format!("/end/{}", handle(&stranger))), "false");
        assert_eq!(text(&stranger, "/who"), "bob");
        // It outlives a new id of its session.
        let tablets = handle(&tablet);
        text(&tablet, "/new-id");
        assert_eq!(handle(&tablet), tablets);
        assert_eq!(text(&laptop, &format!("/end/{tablets}")), "true");
        assert_eq!((text(&tablet, "/who"), devices(&tablet).len()), ("-".to_owned(), 0));
        assert_eq!(text(&laptop, "/end-others"), "1");
        assert_eq!(
            (text(&phone, "/who"), text(&laptop, "/who")),
            ("-".to_owned(), "ada".to_owned())
        );
        // Ending this one logs out.
        assert_eq!(text(&laptop, &format!("/end/{}", handle(&laptop))), "true");
        assert_eq!((text(&laptop, "/who"), laptop.cookie(COOKIE)), ("-".to_owned(), None));
        assert_eq!(text(&stranger, "/who"), "bob");
    });
}

#[test]
fn a_new_password_ends_all_other_devices_in_the_same_request() {
    in_both(|laptop| {
        let phone = another(&laptop);
        text(&laptop, "/in/ada");
        text(&phone, "/in/ada");
        assert_eq!(text(&laptop, "/new-password/ada"), "1");
        assert_eq!(
            (text(&phone, "/who"), text(&laptop, "/who")),
            ("-".to_owned(), "ada".to_owned())
        );
        assert_eq!(devices(&laptop).len(), 1);
        text(&phone, "/in/ada");
        assert_eq!(text(&phone, "/end-all"), "2");
        for client in [&phone, &laptop] {
            assert_eq!(text(client, "/who"), "-");
        }
        assert_eq!(text(&another(&laptop), "/end-all"), "0", "who is not logged in has no devices");
    });
}

#[test]
fn a_logout_leaves_the_list() {
    in_both(|laptop| {
        let phone = another(&laptop);
        text(&laptop, "/in/ada");
        text(&phone, "/in/ada");
        text(&phone, "/out");
        assert_eq!(devices(&laptop).len(), 1);
        // Another user in the same browser.
        text(&phone, "/in/ada");
        text(&phone, "/in/bob");
        assert_eq!((devices(&laptop).len(), devices(&phone).len()), (1, 1));
    });
}

#[test]
fn an_address_is_kept_as_its_network_or_not_at_all() {
    for (plugin, expected) in [
        (SessionPlugin::new().in_memory(), "203.0.113.0/24"),
        (SessionPlugin::new().in_memory().keep_addresses(false), ""),
    ] {
        let client = TestClient::new(devices_app(plugin)).unwrap();
        let request = Request::new(Method::GET, "/in/ada".parse().unwrap());
        let request = request.with_remote_addr(([203, 0, 113, 77], 5000).into());
        let response = client.service().handle(request);
        let cookie = response.headers()["set-cookie"].to_str().unwrap();
        let id = cookie.split([';', '=']).nth(1).unwrap();
        client.set_cookie(COOKIE, id);
        assert_eq!(devices(&client)[0]["address"], expected);
    }
}

#[test]
fn the_most_sessions_of_a_user_are_kept() {
    let plugin = SessionPlugin::new().in_memory().max_sessions_per_user(2);
    let first = TestClient::new(devices_app(plugin)).unwrap();
    let [second, third] = [(); 2].map(|()| another(&first));
    for client in [&first, &second, &third] {
        text(client, "/in/ada");
    }
    let who = [&first, &second, &third].map(|client| text(client, "/who"));
    assert_eq!(who, ["-", "ada", "ada"]);
}

#[test]
fn what_needs_logins_is_refused_where_there_is_no_place_for_them() {
    let pool = || RedisPool::open(&RedisServer::shared().url(0)).unwrap();
    let plugin = SessionPlugin::new().pool(pool()).layout(Layout::BottleSession);
    let error = App::new().install(plugin.max_sessions_per_user(3)).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Config);
    let told = "cannot be kept: the store of these sessions does not keep who is logged in";
    assert!(error.to_string().contains(&format!("max_sessions_per_user {told}")), "{error}");
    let plugin = SessionPlugin::new().pool(pool()).layout(Layout::BottleSession);
    let error =
        App::new().install(plugin.anonymous_lifetime(Duration::from_secs(60))).err().unwrap();
    assert!(error.to_string().contains(&format!("anonymous_lifetime {told}")), "{error}");
    let mut app = App::new();
    app.install(SessionPlugin::new().pool(pool()).layout(Layout::BottleSession)).unwrap();
    app.get("/", |session: &mut Session| session.log_in("ada").unwrap_err().to_string());
    let told = text(&TestClient::new(app).unwrap(), "/");
    assert!(told.contains("take MemoryStore, SqliteStore, or RedisStore"), "{told}");
    let store = RedisStore::new(pool()).layout(Layout::BottleSession);
    assert_eq!(store.devices("ada", None).unwrap_err().kind(), ErrorKind::Config);
}

#[test]
fn the_memory_store_forgets_what_it_loses() {
    let subject = Memory::new();
    let (store, none) = (subject.store(), Changes::default());
    for _ in 0..3 {
        let id = fresh_id(store.id_format());
        let save = Save::new(&id, Action::Create, &none, IDLE);
        store.save(&Save { login: Some(LogIn::new("ada")), ..save }).unwrap();
    }
    assert_eq!(store.devices("ada", None).unwrap().len(), 3);
    subject.advance(Duration::from_secs(7200));
    assert_eq!(store.devices("ada", None).unwrap(), []);
    assert_eq!(store.end_devices("ada", EndDevices::All).unwrap(), 0);
}
