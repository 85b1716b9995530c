//! Saves that count once replicas have them, and servers that change places behind one name.

use std::time::Duration;

use bottle_session::server::native::Native;
use bottle_session::{
    Action, App, BreakerState, ErrorKind, IdFormat, RedisCluster, RedisConfig, RedisPool,
    RedisStore, Saved, SessionPlugin,
};

use crate::faults::wait_until;
use crate::redis_cluster::Cluster;
use crate::support::fault_proxy::FaultProxy;
use crate::support::logs::errors_of;
use crate::support::recorder::app;
use crate::support::redis_server::{RedisServer, info};
use crate::support::serving::{Client, Reply, Serving};
use crate::support::sessions::{create, fields, fresh_id, owned, save};

struct Visitor {
    client: Client,
    cookie: String,
}

impl Visitor {
    fn of(serving: &Serving) -> Visitor {
        let mut visitor = Visitor { client: serving.client(), cookie: String::new() };
        let begun = visitor.get("/begin/1");
        assert_eq!(begun.status, 200, "{}", begun.text());
        let set = begun.header("set-cookie").expect("a cookie");
        visitor.cookie = set.split(';').next().expect("a pair").to_owned();
        visitor
    }

    fn get(&mut self, path: &str) -> Reply {
        let cookie = &self.cookie;
        let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n");
        self.client.send(head).reply()
    }
}

fn serve(pool: &RedisPool) -> Serving {
    let server = Native::bind("127.0.0.1:0").unwrap().idle_deadline(Duration::from_secs(3600));
    Serving::start(server, app(SessionPlugin::new().pool(pool.clone())))
}

fn replica_of(port: u16) -> RedisServer {
    let of = ["--replicaof", "127.0.0.1", &port.to_string()];
    RedisServer::start(&of)
}

/// Waits until so many replicas are there, and have everything.
fn wait_for_replicas(server: &RedisServer, count: usize) {
    wait_until("the replicas follow", || {
        let mut connection = server.connect(0);
        let there = info(&mut connection, "replication")["connected_slaves"] == count.to_string();
        let mut is_replicated = || {
            // For a connection that has written nothing, WAIT answers at once.
            redis::cmd("SETEX").arg(&["any", "1", ""]).exec(&mut connection).unwrap();
            let wait = redis::cmd("WAIT").arg(count).arg(100).to_owned();
            wait.query::<usize>(&mut connection).unwrap() == count
        };
        // Twice: a replica that has been sent the data counts for what was written before, and may get what is written
        // after only a second later.
        there && is_replicated() && is_replicated()
    });
}

#[test]
fn a_save_counts_once_the_replicas_have_it_and_reads_do_not_wait() {
    let (server, port) = RedisServer::start_on_port_with(&["--repl-diskless-sync-delay", "0"]);
    let mut replica = replica_of(port);
    wait_for_replicas(&server, 1);
    let config = RedisConfig::default().host("127.0.0.1").port(port).replicas(1);
    let pool = RedisPool::new(config).unwrap();
    let serving = serve(&pool);
    let mut ada = Visitor::of(&serving);
    assert_eq!(ada.get("/write/2").status, 200);
    // It is there although nobody waits here.
    let mut connection = replica.connect(0);
    let keys: Vec<String> = redis::cmd("KEYS").arg("bottle*").query(&mut connection).unwrap();
    let register: String =
        redis::cmd("HGET").arg(&keys[0]).arg("register").query(&mut connection).unwrap();
    assert_eq!((keys.len(), register.as_str()), (1, "2"));
    drop(connection);

    let mut bob = Visitor::of(&serving);
    replica.kill();
    wait_for_replicas(&server, 0);
    for path in ["/write/3", "/count", "/put/4", "/take", "/once/5", "/renew", "/end"] {
        let who = if path == "/renew" { &mut bob } else { &mut ada };
        let refused = who.get(path);
        assert_eq!(
            (refused.status, refused.header("retry-after").is_some()),
            (503, true),
            "{path}"
        );
        // What was ended may be gone, but nobody was told so.
        assert_eq!(ada.get("/read").status, 200, "behind {path}");
    }
    assert_eq!(pool.breaker(), BreakerState::Closed, "Redis is not down");
    let told = errors_of(&format!("{port}/0: "));
    let told: Vec<_> =
        told.iter().filter(|line| line.contains(" replicas had what was written")).collect();
    assert_eq!(told.len(), 1, "one line for all of them: {told:?}");

    let _replica = replica_of(port);
    wait_for_replicas(&server, 1);
    let mut eve = Visitor::of(&serving);
    assert_eq!(eve.get("/write/2").status, 200);
    assert_eq!(eve.get("/read").text(), "2 0 0");
}

#[test]
fn reads_never_stand_behind_a_save_that_waits() {
    let (server, port) = RedisServer::start_on_port();
    let config = RedisConfig::default()
        .host("127.0.0.1")
        .port(port)
        .replicas(1)
        .operation_timeout(Duration::from_secs(3600));
    let pool = RedisPool::new(config).unwrap();
    let (plain, waiting) = (RedisPool::open(&format!("redis://127.0.0.1:{port}")).unwrap(), pool);
    let mut ada = Visitor::of(&serve(&plain));
    let serving = serve(&waiting);
    // This one waits for most of an hour.
    let mut bob = serving.client();
    bob.send("GET /begin/1 HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_until("a save waits", || {
        let list: String = redis::cmd("CLIENT").arg("LIST").query(&mut server.connect(0)).unwrap();
        list.contains("cmd=wait")
    });
    ada.client = serving.client();
    assert_eq!(ada.get("/read").text(), "1 0 0");
}

#[test]
fn a_server_that_lets_nobody_wait_is_refused_at_the_start() {
    let (server, port) = RedisServer::start_on_port();
    let user = ["SETUSER", "app", "on", ">secret", "~*", "+@all", "-wait"];
    redis::cmd("ACL").arg(&user).exec(&mut server.connect(0)).unwrap();
    let url = format!("redis://app:secret@127.0.0.1:{port}");
    let plugin = || SessionPlugin::new().url(&url);
    App::new().install(plugin()).unwrap();
    let error = App::new().install(plugin().replicas(1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let text = error.to_string();
    let start = format!(
        "redis://127.0.0.1:{port}/0: replicas(1) needs the command WAIT, which the server refuses (Redis: "
    );
    assert!(text.starts_with(&start), "{text}");
    // A replica is no primary yet, and may be one when it is needed.
    let replica = replica_of(port);
    App::new().install(SessionPlugin::new().url(&replica.url(0)).replicas(1)).unwrap();
    // Where nobody answers at the start, the first save tells.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let away = SessionPlugin::new().url(&format!("redis://127.0.0.1:{gone}")).replicas(1);
    App::new().install(away).unwrap();
    let pool = RedisPool::new(RedisConfig::from_url(&url).unwrap().replicas(1)).unwrap();
    let store = RedisStore::new(pool);
    let error = save(&store, &fresh_id(IdFormat::Base64Url), Action::Create, &[]).unwrap_err();
    assert_eq!((error.kind(), error.to_string().starts_with(&start)), (ErrorKind::Config, true));
}

#[test]
fn in_a_cluster_the_replicas_of_the_node_that_has_the_slot_count() {
    let cluster = Cluster::start();
    let url = cluster.url(1);
    let config = RedisConfig::default().replicas(1).pool_size(4);
    let store = RedisStore::on_cluster(RedisCluster::new([url.as_str()], config).unwrap());
    let (mut stored, mut refused) = (0, 0);
    while stored == 0 || refused == 0 {
        let id = fresh_id(IdFormat::Base64Url);
        match save(&store, &id, Action::Create, &[("name", "Ada")]) {
            Ok(saved) => {
                assert_eq!(saved, Saved::Stored);
                assert_eq!(fields(&store, &id), Some(owned(&[("name", "Ada")])));
                stored += 1;
            }
            // Only the first node has a replica.
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable);
                assert!(error.to_string().contains("0 of 1 replicas"), "{error}");
                refused += 1;
            }
        }
    }
}

#[test]
fn a_primary_that_has_become_a_replica_is_left_for_the_one_that_its_name_leads_to() {
    let (old, old_port) = RedisServer::start_on_port();
    let (new, new_port) = RedisServer::start_on_port();
    let name = FaultProxy::start(old_port);
    let pool = RedisPool::open(&name.url()).unwrap();
    let serving = serve(&pool);
    let mut ada = Visitor::of(&serving);
    assert_eq!(ada.get("/count").text(), "1");
    name.lead_to(new_port);
    let of = ["127.0.0.1", &new_port.to_string()];
    redis::cmd("REPLICAOF").arg(&of).exec(&mut old.connect(0)).unwrap();
    wait_until("the old one follows", || {
        info(&mut old.connect(0), "replication")["master_link_status"] == "up"
    });
    // One write finds out, over the loop's connection or the pool's.
    let mut bob = serving.client();
    let mut begin = || bob.get("/begin/1");
    let first = begin();
    assert!([200, 503].contains(&first.status), "{}", first.text());
    let second = begin();
    assert_eq!(second.status, 200, "{}", second.text());
    ada.cookie = second.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    assert_eq!(ada.get("/count").text(), "1");
    let keys: usize = redis::cmd("DBSIZE").query(&mut new.connect(0)).unwrap();
    assert!(keys > 0);
}

#[test]
fn connections_past_their_age_are_renewed_so_that_a_switch_without_an_error_is_found() {
    let (old, old_port) = RedisServer::start_on_port();
    let (new, new_port) = RedisServer::start_on_port();
    let name = FaultProxy::start(old_port);
    let config = RedisConfig::from_url(&name.url()).unwrap();
    let pool = RedisPool::new(config.max_connection_age(Duration::from_millis(50))).unwrap();
    let serving = serve(&pool);
    let mut ada = Visitor::of(&serving);
    assert_eq!(ada.get("/count").text(), "1");
    name.lead_to(new_port);
    let count =
        |server: &RedisServer| redis::cmd("DBSIZE").query::<usize>(&mut server.connect(0)).unwrap();
    // Both ways to Redis: over the loop's connection, and over the pool's.
    let mut newcomer = serving.client();
    while count(&new) == 0 {
        assert_eq!(newcomer.get("/begin/1").status, 200);
    }
    let (store, was) = (RedisStore::new(pool.clone()), count(&new));
    wait_until("those of the pool lead there, too", || {
        create(&store, &[]);
        count(&new) > was
    });
    assert!(count(&old) > 0);
}
