//! What sentinels say, and what follows: writes wait, connections move, and no sentinel alone is in anybody's way.

use std::time::{Duration, Instant};

use bottle_session::server::native::Native;
use bottle_session::{BreakerState, RedisConfig, RedisPool, SessionPlugin};

use crate::faults::wait_until;
use crate::support::fake_sentinel::FakeSentinel;
use crate::support::logs::logs_of;
use crate::support::recorder::app;
use crate::support::redis_server::RedisServer;
use crate::support::replicated::{NAME, free_port};
use crate::support::serving::{Client, Reply, Serving};

/// Two servers, of which sentinels name the first, and an app with its sessions there.
struct Stage {
    old: (RedisServer, u16),
    new: (RedisServer, u16),
    sentinels: Vec<FakeSentinel>,
    pool: RedisPool,
    serving: Serving,
}

impl Stage {
    fn start() -> Stage {
        Stage::with(3, |_| ())
    }

    /// With so many sentinels, of which something is said before anybody asks them.
    fn with(sentinels: usize, before: impl FnOnce(&[FakeSentinel])) -> Stage {
        let (old, new) = (RedisServer::start_on_port(), RedisServer::start_on_port());
        let sentinels: Vec<_> = (0..sentinels).map(|_| FakeSentinel::naming(old.1)).collect();
        before(&sentinels);
        let urls: Vec<_> = sentinels.iter().map(FakeSentinel::url).collect();
        let urls = urls.iter().map(String::as_str);
        let pool = RedisPool::sentinel(urls, NAME, RedisConfig::default()).unwrap();
        let server = Native::bind("127.0.0.1:0").unwrap().idle_deadline(Duration::from_secs(3600));
        let serving = Serving::start(server, app(SessionPlugin::new().pool(pool.clone())));
        Stage { old, new, sentinels, pool, serving }
    }

    /// Somebody whose session has the register 1.
    fn visitor(&self) -> Visitor {
        let mut visitor = Visitor { client: self.serving.client(), cookie: String::new() };
        let begun = visitor.get("/begin/1");
        assert_eq!(begun.status, 200, "{}", begun.text());
        let set = begun.header("set-cookie").expect("a cookie");
        visitor.cookie = set.split(';').next().expect("a pair").to_owned();
        visitor
    }

    fn wait_until_heard(&self) {
        wait_until("all sentinels are listened to", || {
            self.sentinels.iter().all(|sentinel| sentinel.listeners() == 1)
        });
    }
}

struct Visitor {
    client: Client,
    cookie: String,
}

impl Visitor {
    fn get(&mut self, path: &str) -> Reply {
        self.ask(path);
        self.client.reply()
    }

    fn ask(&mut self, path: &str) {
        let cookie = &self.cookie;
        self.client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n"));
    }

    fn answer(&mut self, path: &str) -> (u16, String) {
        let reply = self.get(path);
        if reply.status == 503 {
            assert!(reply.header("retry-after").is_some(), "{reply:?}");
            assert!(reply.header("set-cookie").is_none(), "{reply:?}");
        }
        (reply.status, reply.text().to_owned())
    }

    fn is_served(&mut self, path: &str) -> bool {
        self.answer(path).0 == 200
    }
}

#[test]
fn while_a_failover_is_under_way_writes_wait_and_reads_go_on() {
    let stage = Stage::start();
    let mut ada = stage.visitor();
    stage.wait_until_heard();
    let old = stage.old.1;
    stage.sentinels[1].begin_failover(old);
    for path in ["/write/2", "/count", "/put/2", "/take", "/once/2", "/renew", "/end"] {
        assert_eq!(ada.answer(path).0, 503, "{path}");
        assert_eq!(ada.answer("/read"), (200, "1 0 0".to_owned()), "behind {path}");
    }
    assert_eq!(stage.pool.breaker(), BreakerState::Closed, "Redis is not down");
    assert_eq!(stage.pool.connection().get::<Option<String>>("own").unwrap(), None);
    let error = stage.pool.connection().set("own", "x").unwrap_err();
    assert!(error.to_string().ends_with("a failover is under way, nothing was written"), "{error}");
    // A handler's own connection, too: on it nothing is sent before.
    let mut held = stage.pool.connection();
    assert_eq!(held.get::<Option<String>>("own").unwrap(), None);
    let waiting = std::thread::spawn(move || held.set("own", "y"));
    // Who waits goes on as soon as it is over.
    ada.ask("/write/3");
    stage.sentinels[1].abort_failover(old);
    assert_eq!(ada.client.reply().text(), "written");
    waiting.join().unwrap().unwrap();
    assert_eq!(ada.answer("/read"), (200, "3 0 0".to_owned()));
    assert!(ada.is_served("/count"));
}

#[test]
fn with_a_switch_all_connections_to_the_old_master_are_closed_and_what_waits_goes_to_the_new_one() {
    let stage = Stage::start();
    let mut ada = stage.visitor();
    stage.wait_until_heard();
    // Idle connections of the pool, too.
    assert!(ada.is_served("/count"));
    assert!(stage.old.0.clients() >= 2);
    let (old, new) = (stage.old.1, stage.new.1);
    stage.sentinels[0].begin_failover(old);
    // A new session waits to be stored.
    ada.cookie.clear();
    ada.ask("/begin/2");
    stage.sentinels[0].switch(old, new);
    let begun = ada.client.reply();
    assert_eq!(begun.status, 200, "{}", begun.text());
    wait_until("nobody is connected to the old master", || stage.old.0.clients() == 0);
    ada.cookie = begun.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    assert_eq!(ada.answer("/read"), (200, "2 0 0".to_owned()));
    assert_eq!(ada.answer("/count"), (200, "1".to_owned()));
    // The others hear of it later, and nobody goes back meanwhile.
    for sentinel in &stage.sentinels[1..] {
        sentinel.switch(old, new);
    }
    assert_eq!(ada.answer("/count"), (200, "2".to_owned()));
    assert_eq!(stage.old.0.clients(), 0);
}

#[test]
fn a_switch_that_nobody_announces_is_found_by_asking() {
    let stage = Stage::start();
    let mut ada = stage.visitor();
    stage.wait_until_heard();
    for sentinel in &stage.sentinels {
        let mut says = sentinel.says();
        (says.master, says.epoch) = (stage.new.1, 1);
    }
    wait_until("nobody is connected to the old master", || stage.old.0.clients() == 0);
    assert!(ada.is_served("/begin/2"));
    assert!(stage.new.0.clients() > 0);
}

#[test]
fn events_of_other_masters_do_not_matter() {
    let stage = Stage::start();
    let mut ada = stage.visitor();
    stage.wait_until_heard();
    let (old, new) = (stage.old.1, stage.new.1);
    let sentinel = &stage.sentinels[0];
    sentinel.publish("+try-failover", &format!("master others 127.0.0.1 {old}"));
    sentinel.publish("+try-failover", &format!("master sessions 127.0.0.1 {new}"));
    sentinel.publish("+switch-master", &format!("others 127.0.0.1 {old} 127.0.0.1 {new}"));
    sentinel.publish("+try-failover", "nonsense");
    let asked = sentinel.says().asked;
    wait_until("they have been heard", || sentinel.says().asked > asked);
    assert!(ada.is_served("/write/2") && ada.is_served("/count"));
    assert_eq!(stage.new.0.clients(), 0);
}

#[test]
fn a_sentinel_that_announces_a_failover_and_vanishes_does_not_stop_writes_for_long() {
    let stage = Stage::start();
    let mut ada = stage.visitor();
    stage.wait_until_heard();
    stage.sentinels[0].begin_failover(stage.old.1);
    assert_eq!(ada.answer("/write/2").0, 503);
    stage.sentinels[0].go();
    let gone = Instant::now();
    while !ada.is_served("/write/3") {}
    println!("writes went on {:?} after the sentinel had vanished", gone.elapsed());
}

#[test]
fn with_one_sentinel_a_failover_that_it_announced_before_it_vanished_ends_with_a_loud_line() {
    let stage = Stage::with(1, |_| ());
    let mut ada = stage.visitor();
    stage.wait_until_heard();
    stage.sentinels[0].begin_failover(stage.old.1);
    assert_eq!(ada.answer("/write/2").0, 503);
    stage.sentinels[0].go();
    let gone = Instant::now();
    while !ada.is_served("/write/3") {}
    println!("writes went on {:?} after the only sentinel had vanished", gone.elapsed());
    assert!(!logs_of("its sentinels have not been heard since").is_empty());
}

#[test]
fn a_sentinel_that_restarts_is_listened_to_again() {
    let stage = Stage::start();
    let mut ada = stage.visitor();
    stage.wait_until_heard();
    stage.sentinels[2].go();
    assert!(ada.is_served("/write/2"));
    stage.sentinels[2].says().is_gone = false;
    stage.wait_until_heard();
    stage.sentinels[2].begin_failover(stage.old.1);
    assert_eq!(ada.answer("/write/3").0, 503);
    // It restarts in the midst of it, and has forgotten.
    stage.sentinels[2].go();
    let mut says = stage.sentinels[2].says();
    (says.leads_failover, says.is_gone) = (false, false);
    drop(says);
    while !ada.is_served("/write/4") {}
}

#[test]
fn a_sentinel_that_hangs_is_in_nobodys_way() {
    // From the start, and later.
    let stage = Stage::with(3, |sentinels| sentinels[0].says().is_mute = true);
    let mut ada = stage.visitor();
    wait_until("the others are listened to", || {
        stage.sentinels[1..].iter().all(|sentinel| sentinel.listeners() == 1)
    });
    stage.sentinels[1].says().is_mute = true;
    for number in 0..20 {
        assert!(ada.is_served(&format!("/write/{number}")) && ada.is_served("/count"));
    }
    // The one that is left is heard.
    stage.sentinels[2].begin_failover(stage.old.1);
    assert_eq!(ada.answer("/write/2").0, 503);
    stage.sentinels[2].switch(stage.old.1, stage.new.1);
    assert!(ada.is_served("/begin/3"));
}

#[test]
fn a_sentinel_that_names_a_wrong_address_is_not_believed() {
    let nobody = free_port();
    for epoch in [0, 7] {
        let stage = Stage::with(3, |sentinels| {
            let mut says = sentinels[0].says();
            (says.master, says.epoch) = (nobody, epoch);
        });
        // With a newer epoch than the others it may be the first to know, for a while.
        let mut client = stage.serving.client();
        while client.get("/begin/1").status != 200 {}
        let mut ada = stage.visitor();
        assert!(ada.is_served("/write/2") && ada.is_served("/count"));
        // It announces that its address is the new one.
        let switch = format!("sessions 127.0.0.1 {} 127.0.0.1 {nobody}", stage.old.1);
        stage.sentinels[0].publish("+switch-master", &switch);
        while !ada.is_served("/write/3") {}
        assert_eq!(ada.answer("/read"), (200, "3 1 0".to_owned()), "epoch {epoch}");
    }
}

#[test]
fn sessions_go_on_while_all_sentinels_are_gone() {
    let stage = Stage::start();
    let mut ada = stage.visitor();
    stage.wait_until_heard();
    stage.sentinels.iter().for_each(FakeSentinel::go);
    assert!(ada.is_served("/write/2") && ada.is_served("/count"));
    // Over new connections, too: the last master that was named is still one.
    let kill = redis::cmd("CLIENT").arg(&["KILL", "TYPE", "normal"]).to_owned();
    kill.exec(&mut stage.old.0.connect(0)).unwrap();
    while !(ada.is_served("/write/3") && ada.is_served("/count")) {}
    assert_eq!(ada.answer("/read").1.split(' ').next(), Some("3"));
}

#[test]
fn the_whole_process_has_one_connection_to_each_sentinel() {
    let stage = Stage::start();
    let mut visitors: Vec<_> = (0..8).map(|_| stage.visitor()).collect();
    let urls: Vec<_> = stage.sentinels.iter().map(FakeSentinel::url).collect();
    let urls = || urls.iter().map(String::as_str);
    let config = RedisConfig::default().db(1);
    let other = RedisPool::sentinel(urls(), NAME, config).unwrap();
    other.connection().set("own", "x").unwrap();
    assert!(visitors.iter_mut().all(|visitor| visitor.is_served("/count")));
    stage.wait_until_heard();
    // Both pools hear of it.
    stage.sentinels[0].begin_failover(stage.old.1);
    let error = other.connection().set("own", "y").unwrap_err();
    assert!(error.to_string().contains("a failover is under way"), "{error}");
    assert!(!visitors[0].is_served("/write/2"));
    // And one that is opened meanwhile.
    let late = RedisPool::sentinel(urls(), NAME, RedisConfig::default()).unwrap();
    assert!(late.connection().set("own", "y").is_err());
    stage.wait_until_heard();
}
