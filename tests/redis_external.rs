//! An `r2d2_redis` pool that the application already had.

use std::time::Duration;

use bottle_session::{
    Action, Changes, IdFormat, Lifetimes, Load, Save, Saved, SessionId, SessionStore,
};
use bottle_session::{
    BreakerState, ErrorKind, RedisConfig, RedisConnection, RedisPool, RedisStore,
};
use r2d2_redis::redis::{self as old, ConnectionLike};
use r2d2_redis::{RedisConnectionManager, r2d2};

use crate::faults::wait_until;
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::redis_server::RedisServer;

type Theirs = r2d2::Pool<RedisConnectionManager>;

fn lent() -> (RedisServer, FaultProxy, Theirs, RedisPool) {
    let (server, port) = RedisServer::start_on_port();
    let proxy = FaultProxy::start(port);
    let theirs = r2d2::Pool::builder()
        .max_size(1)
        .test_on_check_out(false)
        .build(RedisConnectionManager::new(proxy.url()).unwrap())
        .unwrap();
    let ours = RedisPool::from_r2d2_redis(theirs.clone(), RedisConfig::default()).unwrap();
    (server, proxy, theirs, ours)
}

/// The same pool with the settings of r2d2, which tests a connection before it gives it away.
fn lent_and_tested() -> (RedisServer, FaultProxy, Theirs, RedisPool) {
    let (server, port) = RedisServer::start_on_port();
    let proxy = FaultProxy::start(port);
    let manager = RedisConnectionManager::new(proxy.url()).unwrap();
    let theirs = r2d2::Pool::builder().max_size(1).build(manager).unwrap();
    let config = RedisConfig::default().connect_timeout(Duration::from_millis(200));
    let ours = RedisPool::from_r2d2_redis(theirs.clone(), config).unwrap();
    (server, proxy, theirs, ours)
}

fn recovers(pool: &RedisPool) -> RedisConnection {
    while pool.connection().exists("any").is_err() {
        std::thread::yield_now();
    }
    pool.connection()
}

#[test]
fn the_pool_serves_both() {
    let (server, _proxy, theirs, ours) = lent();
    let mut connection = ours.connection();
    connection.set("key", "value").unwrap();
    let first = server.newest_client();
    assert_eq!(connection.get::<String>("key").unwrap(), "value");
    assert_eq!(connection.hget::<String>("key", "x").unwrap_err().kind(), ErrorKind::Config);
    assert_eq!(connection.get::<String>("key").unwrap(), "value");
    connection.give_back();
    let theirs: String = old::cmd("GET").arg("key").query(&mut *theirs.get().unwrap()).unwrap();
    assert_eq!(theirs, "value");
    assert_eq!(server.newest_client(), first);
}

#[test]
fn sessions_are_kept_in_it() {
    let (_server, _proxy, _theirs, ours) = lent();
    let store = RedisStore::new(ours);
    let id = SessionId::parse(&"A".repeat(43), IdFormat::Base64Url).unwrap();
    let lifetimes = Lifetimes { idle: Duration::from_secs(60), absolute: None };
    let mut changes = Changes::default();
    changes.fields.insert("name".to_owned(), Some("Ada".to_owned()));
    let save = Save::new(&id, Action::Create, &changes, lifetimes);
    assert!(matches!(store.save(&save).unwrap(), Saved::Stored));
    let record = store.load(&Load { id: &id, lifetimes }).unwrap().session().unwrap();
    assert!(record.fields.iter().eq([("name", "Ada")]));
}

#[test]
fn a_late_reply_reaches_nobody() {
    let (_server, proxy, theirs, ours) = lent();
    let mut connection = ours.connection();
    connection.set("mine", "mine").unwrap();
    connection.set("yours", "yours").unwrap();
    proxy.set(Fault::Stall);
    assert_eq!(connection.get::<String>("mine").unwrap_err().kind(), ErrorKind::Unavailable);
    drop(connection);
    proxy.set(Fault::Pass);
    assert_eq!(recovers(&ours).get::<String>("yours").unwrap(), "yours");
    let yours: String = old::cmd("GET").arg("yours").query(&mut *theirs.get().unwrap()).unwrap();
    assert_eq!(yours, "yours");
}

#[test]
fn what_the_application_left_out_of_step_is_recognized() {
    let (_server, proxy, theirs, ours) = lent();
    let mut connection = ours.connection();
    connection.set("mine", "mine").unwrap();
    connection.set("yours", "yours").unwrap();
    connection.give_back();
    // The application itself times out, and its pool keeps the connection.
    let mut its = theirs.get().unwrap();
    its.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    proxy.set(Fault::Stall);
    assert!(old::cmd("GET").arg("mine").query::<String>(&mut *its).unwrap_err().is_timeout());
    assert!(its.is_open());
    drop(its);
    proxy.set(Fault::Pass);
    let error = connection.get::<String>("yours").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(recovers(&ours).get::<String>("yours").unwrap(), "yours");
}

#[test]
fn garbage_closes_the_connection() {
    let (server, proxy, _theirs, ours) = lent();
    let mut connection = ours.connection();
    connection.set("key", "value").unwrap();
    let before = server.newest_client();
    proxy.set(Fault::Garbage(b"nonsense\r\n"));
    assert_eq!(connection.get::<String>("key").unwrap_err().kind(), ErrorKind::Unavailable);
    proxy.set(Fault::Pass);
    assert_eq!(recovers(&ours).get::<String>("key").unwrap(), "value");
    assert!(server.newest_client() > before);
}

#[test]
fn what_is_left_behind_is_closed() {
    let (_server, _proxy, theirs, ours) = lent();
    ours.connection().command::<()>("SELECT", "7").unwrap();
    ours.connection().set("key", "value").unwrap();
    let there: bool = old::cmd("EXISTS").arg("key").query(&mut *theirs.get().unwrap()).unwrap();
    assert!(there);
}

#[test]
fn who_waited_in_vain_takes_nothing_from_the_application() {
    let (_server, _proxy, theirs, _ours) = lent();
    let config = RedisConfig::default().connect_timeout(Duration::from_millis(50));
    let ours = RedisPool::from_r2d2_redis(theirs.clone(), config).unwrap();
    let held = theirs.get().unwrap();
    for _ in 0..3 {
        let error = ours.connection().exists("any").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains("in use"), "{error}");
        // Busy is not down.
        assert_eq!(ours.breaker(), BreakerState::Closed);
    }
    drop(held);
    // Nobody uses ours any more; what it has begun must not end with the application's connection.
    for _ in 0..200 {
        theirs.get_timeout(Duration::from_secs(5)).expect("it has its connection to itself");
        std::thread::yield_now();
    }
    assert!(!ours.connection().exists("any").unwrap());
}

#[test]
fn a_connection_that_is_mute_while_its_pool_tests_it_holds_nobody_up() {
    let (_server, proxy, theirs, ours) = lent_and_tested();
    ours.connection().set("key", "value").unwrap();
    for _ in 0..3 {
        // The pool's PING has no time-out.
        proxy.set(Fault::Stall);
        let its = ours.clone();
        let asking = std::thread::spawn(move || its.connection().get::<String>("key"));
        wait_until("it has been answered", || asking.is_finished());
        let error = asking.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert_eq!(ours.breaker(), BreakerState::Open, "{error}");
        proxy.set(Fault::Pass);
        assert_eq!(recovers(&ours).get::<String>("key").unwrap(), "value");
    }
    // Whoever came too late to be waited for has given it back.
    let theirs: String = old::cmd("GET").arg("key").query(&mut *theirs.get().unwrap()).unwrap();
    assert_eq!(theirs, "value");
}
