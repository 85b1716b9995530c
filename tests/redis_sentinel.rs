//! A master, a replica and a sentinel: sessions go where the master is.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bottle_session::{ErrorKind, RedisConfig, RedisPool};

use crate::faults::wait_until;
use crate::guide_redis::lines;
use crate::support::redis_server::RedisServer;
use crate::support::replicated::{SentinelServer, free_port};
use crate::support::visitors::Site;

fn info(server: &RedisServer, line: &str) -> bool {
    let text: String = redis::cmd("INFO").arg("replication").query(&mut server.connect(0)).unwrap();
    text.lines().any(|found| found.trim() == line)
}

/// A master and a replica that follows it, each with its port, and a sentinel that knows them.
struct Watched {
    master: (RedisServer, u16),
    replica: (RedisServer, u16),
    sentinel: SentinelServer,
}

impl Watched {
    fn start() -> Watched {
        let master = RedisServer::start_on_port();
        let of = ["--replicaof", "127.0.0.1", &master.1.to_string()];
        let replica = RedisServer::start_on_port_with(&of);
        wait_until("the replica follows", || info(&replica.0, "master_link_status:up"));
        let sentinel = SentinelServer::watching(master.1, 1);
        wait_until("the sentinel knows the replica", || {
            let known = sentinel.ask("SENTINEL", &["REPLICAS", "sessions"]).unwrap();
            matches!(&known, redis::Value::Array(replicas) if !replicas.is_empty())
        });
        Watched { master, replica, sentinel }
    }

    /// What is acknowledged is on the replica, too: Redis itself promises that only if it is asked.
    fn wait_for_the_replica(&self) {
        let mut connection = self.master.0.connect(0);
        // For a connection that has written nothing, WAIT answers at once.
        redis::cmd("PUBLISH").arg(&["any", ""]).exec(&mut connection).unwrap();
        let wait = redis::cmd("WAIT").arg(1).arg(0).to_owned();
        assert_eq!(wait.query::<u32>(&mut connection).unwrap(), 1);
    }
}

fn replicate(server: &RedisServer, of: &[&str]) {
    redis::cmd("REPLICAOF").arg(of).exec(&mut server.connect(0)).unwrap();
}

#[test]
fn sessions_outlive_their_master() {
    let mut watched = Watched::start();
    let sentinel = &watched.sentinel;

    // The first sentinel is gone, the second does not know the master: neither is in the way.
    let (stranger, nobody) = (SentinelServer::watching(free_port(), 1), free_port());
    assert!(stranger.ask("SENTINEL", &["REMOVE", "sessions"]).is_ok());
    let nodes = [format!("redis://127.0.0.1:{nobody}"), stranger.url(), sentinel.url()];
    let nodes = nodes.iter().map(String::as_str);
    let config = RedisConfig::default().connect_timeout(Duration::from_millis(500));
    let site = Site::new(RedisPool::sentinel(nodes, "sessions", config).unwrap());
    wait_until("everybody has logged in", || site.everybody_is_served());
    assert!(!format!("{:?}", site.pool).contains("localhost"), "{:?}", site.pool);

    watched.wait_for_the_replica();
    watched.master.0.kill();
    let killed = Instant::now();
    wait_until("everybody is served by the replica", || site.everybody_is_served());
    println!("served by the promoted replica {} ms after the kill", killed.elapsed().as_millis());
    let replica = watched.replica.0;
    assert!(info(&replica, "role:master"));
    site.seen.assert_right("failover");

    // A master that is demoted while it lives: nobody stays with it.
    replicate(&replica, &["127.0.0.1", &free_port().to_string()]);
    wait_until("nobody is served", || !site.everybody_is_served());
    replicate(&replica, &["NO", "ONE"]);
    wait_until("everybody is served again", || site.everybody_is_served());
    site.seen.assert_right("demoted and promoted");
}

#[test]
fn a_master_that_is_demoted_behind_open_connections_is_left_for_the_new_one() {
    let watched = Watched::start();
    let Watched { master: (old, _), replica: (new, new_port), sentinel } = &watched;
    let url = sentinel.url();
    let pool = RedisPool::sentinel([url.as_str()], "sessions", RedisConfig::default()).unwrap();
    let site = Site::new(pool);
    wait_until("everybody has logged in", || site.everybody_is_served());
    watched.wait_for_the_replica();
    // By hand: a sentinel closes the connections of a master that it demotes.
    let new_port = new_port.to_string();
    replicate(new, &["NO", "ONE"]);
    replicate(old, &["127.0.0.1", &new_port]);
    sentinel.ask("SENTINEL", &["REMOVE", "sessions"]).unwrap();
    sentinel.ask("SENTINEL", &["MONITOR", "sessions", "127.0.0.1", &new_port, "1"]).unwrap();
    let served = (0..50).any(|_| site.everybody_is_served());
    assert!(served, "they stay with a master that is none");
    site.seen.assert_right("demoted behind open connections");
    let [unavailable, failed] =
        [&site.seen.unavailable, &site.seen.failed].map(|count| count.load(Ordering::Relaxed));
    // The first write finds out.
    assert!(unavailable < 10 && failed == 0, "{unavailable} answers 503, {failed} answers 500");
}

/// What the guide, and the documentation of `RedisPool::sentinel`, say a user must be allowed.
#[test]
fn a_user_of_the_sentinels_who_may_no_more_than_is_needed_hears_of_a_switch() {
    let (old, new) = (RedisServer::start_on_port(), RedisServer::start_on_port());
    let user = format!("{}\n", lines("sentinel-acl").join("\n"));
    let sentinel = SentinelServer::watching_with(old.1, 1, &user);
    let url = format!("redis://app:secret@127.0.0.1:{}", sentinel.port);
    let pool = RedisPool::sentinel([url.as_str()], "sessions", RedisConfig::default()).unwrap();
    pool.connection().set("key", "value").unwrap();
    wait_until("the sentinel is listened to", || {
        let list = sentinel.ask("CLIENT", &["LIST"]).unwrap();
        let list: String = redis::from_redis_value(list).unwrap();
        list.lines().any(|client| client.contains(" user=app ") && client.contains(" sub=11 "))
    });
    // By hand, which says nothing on the channels of a failover: the answers tell.
    let port = new.1.to_string();
    sentinel.ask("SENTINEL", &["REMOVE", "sessions"]).unwrap();
    sentinel.ask("SENTINEL", &["MONITOR", "sessions", "127.0.0.1", &port, "1"]).unwrap();
    wait_until("nobody is connected to the old master but its sentinel", || {
        let list: String = redis::cmd("CLIENT").arg("LIST").query(&mut old.0.connect(0)).unwrap();
        !list.contains("name=bottle-session")
    });
    pool.connection().set("key", "value").unwrap();
    assert!(redis::cmd("EXISTS").arg("key").query::<bool>(&mut new.0.connect(0)).unwrap());
}

#[test]
fn sentinels_have_to_be_named() {
    let error = RedisPool::sentinel([], "sessions", RedisConfig::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("\"sessions\""), "{error}");
}
