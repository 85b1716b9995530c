//! A real cluster of three nodes and a replica: sessions are where their slots are.

use std::time::Duration;

use bottle_session::testing::store_contract::{
    Capabilities, StoreUnderTest, check_clause, check_contract,
};
use bottle_session::{
    Action, ErrorKind, Layout, RedisCluster, RedisConfig, RedisPlugin, RedisPool, RedisStore,
    Session, SessionPlugin, SessionStore, TestClient,
};

use crate::faults::wait_until;
use crate::guide_redis;
use crate::stores::AGE;
use crate::support::logs::{collect_logs, errors_of};
use crate::support::redis_server::{RedisServer, info};
use crate::support::sessions::{fresh_id, load, save};
use crate::support::visitors::{Site, app_with};

const SLOTS: [(u16, u16); 3] = [(0, 5460), (5461, 10922), (10923, 16383)];

pub struct Cluster {
    /// Three masters and their replicas: one of the first, or one of each.
    pub nodes: Vec<(RedisServer, u16)>,
}

impl Cluster {
    pub fn start() -> Cluster {
        Cluster::with_replicas(1)
    }

    /// With replicas of so many of its masters.
    pub fn with_replicas(replicas: usize) -> Cluster {
        let all = 3 + replicas;
        let settings = ["--cluster-node-timeout", "500", "--repl-diskless-sync-delay", "0"];
        let nodes: Vec<_> = (0..all).map(|_| RedisServer::start_node(&settings)).collect();
        let first_port = nodes[0].1.to_string();
        let cluster = Cluster { nodes };
        for (node, (from, to)) in SLOTS.iter().enumerate() {
            // One by one: ADDSLOTSRANGE is unknown before Redis 7.
            let slots: Vec<_> = (*from..=*to).map(|slot| slot.to_string()).collect();
            let add = ["ADDSLOTS"].into_iter().chain(slots.iter().map(String::as_str));
            cluster.tell(node, &add.collect::<Vec<_>>());
        }
        for node in 0..all {
            cluster.tell(node, &["SET-CONFIG-EPOCH", &(node + 1).to_string()]);
            if node > 0 {
                cluster.tell(node, &["MEET", "127.0.0.1", &first_port]);
            }
        }
        let everybody =
            |line: &str| (0..all).all(|node| cluster.ask(node, &["INFO"]).contains(line));
        wait_until("all have met", || everybody(&format!("cluster_known_nodes:{all}")));
        for (replica, (server, _)) in cluster.nodes[3..].iter().enumerate() {
            let master = cluster.id(replica);
            wait_until("the replica follows", || {
                let replicate = redis::cmd("CLUSTER").arg(&["REPLICATE", &master]).to_owned();
                replicate.exec(&mut server.connect(0)).is_ok()
            });
        }
        wait_until("the cluster works", || everybody("cluster_state:ok"));
        cluster
    }

    pub fn ask(&self, node: usize, words: &[&str]) -> String {
        let mut connection = self.nodes[node].0.connect(0);
        redis::cmd("CLUSTER").arg(words).query(&mut connection).unwrap()
    }

    pub fn tell(&self, node: usize, words: &[&str]) {
        assert_eq!(self.ask(node, words), "OK", "{words:?}");
    }

    pub fn id(&self, node: usize) -> String {
        self.ask(node, &["MYID"])
    }

    /// Moves a slot, with its keys one by one, as operators do.
    pub fn move_slot(&self, slot: u16, from: usize, to: usize) {
        let (slot, port) = (slot.to_string(), self.nodes[to].1.to_string());
        let (from_id, to_id) = (self.id(from), self.id(to));
        self.tell(to, &["SETSLOT", &slot, "IMPORTING", &from_id]);
        self.tell(from, &["SETSLOT", &slot, "MIGRATING", &to_id]);
        let mut connection = self.nodes[from].0.connect(0);
        loop {
            let keys: Vec<String> = redis::cmd("CLUSTER")
                .arg(&["GETKEYSINSLOT", &slot, "10"])
                .query(&mut connection)
                .unwrap();
            if keys.is_empty() {
                break;
            }
            for key in keys {
                // It may have been deleted meanwhile.
                let migrate = ["127.0.0.1", &port, &key, "0", "1000"];
                redis::cmd("MIGRATE").arg(&migrate).exec(&mut connection).unwrap();
            }
        }
        for node in [to, from] {
            self.tell(node, &["SETSLOT", &slot, "NODE", &to_id]);
        }
    }

    /// Whether a node is a master, as far as it knows.
    pub fn is_master(&self, node: usize) -> bool {
        let role = info(&mut self.nodes[node].0.connect(0), "replication");
        role.get("role").is_some_and(|role| role == "master")
    }

    /// Whether a node follows its master, and the cluster works.
    pub fn is_sound(&self, node: usize) -> bool {
        let told = info(&mut self.nodes[node].0.connect(0), "replication");
        let follows = told.get("master_link_status").is_some_and(|status| status == "up");
        follows && self.ask(node, &["INFO"]).contains("cluster_state:ok")
    }

    pub fn keys(&self, node: usize) -> Vec<String> {
        redis::cmd("KEYS").arg("*").query(&mut self.nodes[node].0.connect(0)).unwrap()
    }

    pub fn url(&self, node: usize) -> String {
        format!("redis://127.0.0.1:{}", self.nodes[node].1)
    }

    pub fn open(&self) -> RedisCluster {
        RedisCluster::new([self.url(1).as_str()], RedisConfig::default().pool_size(4)).unwrap()
    }
}

#[test]
fn sessions_follow_their_slots() {
    let mut cluster = Cluster::start();
    let (_own, own_port) = RedisServer::start_on_port();
    let own = RedisPool::open(&format!("redis://127.0.0.1:{own_port}")).unwrap();
    let sessions = SessionPlugin::new().store(RedisStore::on_cluster(cluster.open()));
    let site = Site::serving(own.clone(), app_with(sessions, &own));
    wait_until("everybody has logged in", || site.everybody_is_served());
    assert!((0..3).all(|node| !cluster.keys(node).is_empty()), "all nodes have sessions");

    // A slot on its way: its key is already there, and the others do not know (ASK).
    let key = cluster.keys(1).remove(0);
    let slot = redis::cmd("CLUSTER")
        .arg(&["KEYSLOT", &key])
        .query::<u16>(&mut cluster.nodes[1].0.connect(0))
        .unwrap()
        .to_string();
    let (from, to) = (cluster.id(1), cluster.id(2));
    cluster.tell(2, &["SETSLOT", &slot, "IMPORTING", &from]);
    cluster.tell(1, &["SETSLOT", &slot, "MIGRATING", &to]);
    let port = cluster.nodes[2].1.to_string();
    let own_keys = cluster.keys(1);
    let tag = &key[..key.find('}').unwrap()];
    for key in own_keys.iter().filter(|key| key.starts_with(tag)) {
        let migrate = ["127.0.0.1", &port, key, "0", "1000"];
        redis::cmd("MIGRATE").arg(&migrate).exec(&mut cluster.nodes[1].0.connect(0)).unwrap();
    }
    wait_until("served by a slot on its way", || site.everybody_is_served());
    // Arrived (MOVED).
    cluster.tell(2, &["SETSLOT", &slot, "NODE", &to]);
    cluster.tell(1, &["SETSLOT", &slot, "NODE", &to]);
    wait_until("served by a slot that moved", || site.everybody_is_served());
    assert!(cluster.keys(2).contains(&key));
    site.seen.assert_right("moved slots");

    // What is acknowledged is on the replica, too: Redis itself promises that only if it is asked.
    wait_until("the replica has everything", || {
        let wait = redis::cmd("WAIT").arg(1).arg(1000).to_owned();
        wait.query::<u32>(&mut cluster.nodes[0].0.connect(0)).unwrap() == 1
    });
    cluster.nodes[0].0.kill();
    let killed = std::time::Instant::now();
    assert!(!site.everybody_is_served(), "some of them are on that node");
    wait_until("everybody is served by the replica", || site.everybody_is_served());
    println!("served by the promoted replica {} ms after the kill", killed.elapsed().as_millis());
    site.seen.assert_right("failover in a cluster");
}

/// A store in a cluster, which grows older on each of its masters.
struct InCluster<'a> {
    cluster: &'a Cluster,
    store: RedisStore,
    layout: Layout,
}

impl StoreUnderTest for InCluster<'_> {
    fn store(&self) -> &dyn SessionStore {
        &self.store
    }

    fn advance(&self, by: Duration) {
        let age = redis::cmd("EVAL").arg(AGE).arg(0).arg(by.as_millis() as u64).to_owned();
        for (master, _) in &self.cluster.nodes[..3] {
            age.exec(&mut master.connect(0)).unwrap();
        }
    }

    fn capabilities(&self) -> Capabilities {
        match self.layout {
            Layout::BottleSession => Capabilities::fields_only(),
            _ => Capabilities::default(),
        }
    }
}

#[test]
fn a_store_in_a_cluster_keeps_the_contract() {
    let cluster = Cluster::start();
    let subject = |layout| {
        let store = RedisStore::on_cluster(cluster.open()).layout(layout);
        InCluster { cluster: &cluster, store, layout }
    };
    check_contract(&subject(Layout::Default));
    assert!((0..3).all(|node| !cluster.keys(node).is_empty()), "all nodes took part");
    // Not those that move hundreds of sessions: each move tries thousands of ids in this layout.
    let python = subject(Layout::BottleSession);
    for clause in [
        "a_created_session_loads_as_it_was_saved",
        "a_load_does_not_start_the_idle_limit_anew",
        "a_save_starts_the_idle_limit_anew",
        "a_save_never_brings_back_a_moved_session",
        "a_move_takes_everything_along",
        "a_move_may_be_repeated",
        "a_move_never_overwrites",
        "increments_at_the_same_time_all_count",
        "operations_on_a_dead_session_say_so",
        "slices_are_answered_in_order",
        "one_error_in_a_slice_concerns_no_other",
    ] {
        check_clause(clause, &python);
    }
}

#[test]
fn a_pool_for_one_node_says_what_would_do() {
    let cluster = Cluster::start();
    let pool = RedisPool::open(&cluster.url(0)).unwrap();
    let mut connection = pool.connection();
    // "foo" has slot 12182, which the third node has.
    let error = connection.get::<String>("foo").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("RedisStore::on_cluster"), "{error}");
    // "b" has slot 3300: a command for a key of this node works.
    assert_eq!(connection.incr::<u64>("b", 1).unwrap(), 1);
    let two = connection.command::<u64>("DEL", &["b", "foo"]).unwrap_err();
    assert!(two.to_string().contains("in one slot"), "{two}");
    let mut app = bottle_session::App::new();
    app.install(SessionPlugin::new().pool(pool)).unwrap();
    app.get("/set", |session: &mut Session| session.set("name", "Ada"));
    let client = TestClient::new(app).unwrap();
    let newcomer = |_| {
        client.forget_cookies();
        client.get("/set").send().status()
    };
    let answers: Vec<_> = (0..50).map(newcomer).collect();
    assert!(answers.iter().all(|status| [200, 500].contains(status)), "{answers:?}");
    assert!(answers.contains(&500), "a matter of settings, not a 503");
}

#[test]
fn the_plugin_for_commands_of_the_apps_own_refuses_a_node_of_a_cluster() {
    let cluster = Cluster::start();
    let mut app = bottle_session::App::new();
    let error = app.install(RedisPlugin::new().url(&cluster.url(0))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("is a node of a cluster"), "{error}");
    // One that is not there yet, and a server that is no node, are taken.
    let nobody = RedisConfig::default().host("127.0.0.1").port(1);
    app.install(RedisPlugin::new().config(nobody)).unwrap();
    let server = RedisServer::start(&[]);
    app.install(RedisPlugin::new().keyword("other").url(&server.url(0))).unwrap();
}

/// Tells all nodes how to announce themselves; false where this version knows no such thing.
fn announce(cluster: &Cluster, setting: &str, value: impl Fn(usize) -> String) -> bool {
    (0..4).all(|node| {
        let set = redis::cmd("CONFIG").arg(&["SET", setting, &value(node)]).to_owned();
        set.exec(&mut cluster.nodes[node].0.connect(0)).is_ok()
    })
}

/// Whether sessions work at all nodes.
fn serves_everywhere(cluster: &Cluster, config: RedisConfig) -> bool {
    let store =
        RedisStore::on_cluster(RedisCluster::new([cluster.url(1).as_str()], config).unwrap());
    let ids: Vec<_> = (0..50).map(|_| fresh_id(store.id_format())).collect();
    let saved = ids.iter().all(|id| save(&store, id, Action::Create, &[("a", "1")]).is_ok());
    saved && ids.iter().all(|id| matches!(load(&store, id), Ok(Some(_))))
}

#[test]
fn nodes_that_announce_names_of_their_own_network_are_reached_where_the_address_map_says() {
    let cluster = Cluster::start();
    let name = |node: usize| format!("redis-{node}.invalid");
    // As in containers: only the nodes themselves know these (Redis 7 and later).
    if !announce(&cluster, "cluster-announce-hostname", name)
        || !announce(&cluster, "cluster-preferred-endpoint-type", |_| "hostname".to_owned())
    {
        return;
    }
    wait_until("all know each other's names", || {
        let slots = |node: usize| {
            let words = redis::cmd("CLUSTER").arg("SLOTS").to_owned();
            let slots: redis::Value = words.query(&mut cluster.nodes[node].0.connect(0)).unwrap();
            format!("{slots:?}")
        };
        (0..4).all(|node| (0..3).all(|other| slots(node).contains(&name(other))))
    });
    let config = || RedisConfig::default().pool_size(4);
    assert!(!serves_everywhere(&cluster, config()), "nobody else knows these names");
    let pairs: Vec<_> = (0..4)
        .map(|node| {
            let port = cluster.nodes[node].1;
            (format!("{}:{port}", name(node)), format!("127.0.0.1:{port}"))
        })
        .collect();
    let pairs = pairs.iter().map(|(announced, reached)| (announced.as_str(), reached.as_str()));
    assert!(serves_everywhere(&cluster, config().address_map(pairs).unwrap()));
}

#[test]
fn nodes_that_announce_no_name_are_reached_where_they_were_asked() {
    let cluster = Cluster::start();
    for kind in ["unknown-endpoint", "hostname"] {
        // Without a name, which they say as nothing or as "?".
        if !announce(&cluster, "cluster-preferred-endpoint-type", |_| kind.to_owned()) {
            return;
        }
        assert!(serves_everywhere(&cluster, RedisConfig::default().pool_size(4)), "{kind}");
    }
}

#[test]
fn in_a_cluster_the_user_needs_two_commands_more() {
    let cluster = Cluster::start();
    let config = || RedisConfig::default().pool_size(4).username("app").password("secret");
    let tell_all = |line: &str| {
        let words: Vec<_> = line.split(' ').collect();
        for (node, _) in &cluster.nodes[..3] {
            redis::cmd(words[0]).arg(&words[1..]).exec(&mut node.connect(0)).unwrap();
        }
    };
    tell_all(guide_redis::lines("redis-acl")[0]);
    let open = || RedisCluster::new([cluster.url(1).as_str()], config()).unwrap();
    let store = RedisStore::on_cluster(open());
    let error = load(&store, &fresh_id(store.id_format())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.to_string().contains("NOPERM"), "{error}");
    tell_all("ACL SETUSER app +asking +cluster|slots");
    assert!(serves_everywhere(&cluster, config()));
}

#[test]
fn a_cluster_that_is_none_is_a_500_that_says_so() {
    collect_logs();
    let (_server, port) = RedisServer::start_on_port();
    let node = format!("redis://127.0.0.1:{port}");
    let cluster = RedisCluster::new([node.as_str()], RedisConfig::default()).unwrap();
    let mut app = bottle_session::App::new();
    app.install(SessionPlugin::new().store(RedisStore::on_cluster(cluster))).unwrap();
    app.get("/no-cluster", |s: &mut Session| s.set("name", "Ada"));
    let client = TestClient::new(app).unwrap();
    for _ in 0..100 {
        assert_eq!(client.get("/no-cluster").send().status(), 500);
    }
    let lines = errors_of(&format!("RedisCluster(127.0.0.1:{port})"));
    assert!(
        matches!(&lines[..], [line] if line.contains("This instance has cluster support disabled")),
        "{lines:#?}"
    );
}

#[test]
fn an_id_is_renewed_in_one_step() {
    let cluster = Cluster::start();
    for layout in [Layout::Default, Layout::BottleSession] {
        let store = RedisStore::on_cluster(cluster.open()).layout(layout);
        let mut app = bottle_session::App::new();
        app.install(SessionPlugin::new().store(store)).unwrap();
        app.get("/set/<name>", |session: &mut Session, name: &str| session.set("name", name));
        app.get("/who", |session: &mut Session| session.get("name").unwrap_or("nobody").to_owned());
        app.get("/renew", |session: &mut Session| session.regenerate());
        let client = TestClient::new(app).unwrap();
        client.get("/set/Ada").send();
        for _ in 0..5 {
            let old = client.cookie("bottle.session").unwrap();
            assert_eq!(client.get("/renew").send().status(), 200);
            assert_ne!(client.cookie("bottle.session").unwrap(), old);
            assert_eq!(client.get("/who").send().text(), "Ada", "{layout:?}");
            let thief = TestClient::of(client.service().clone());
            thief.set_cookie("bottle.session", &old);
            assert_eq!(thief.get("/who").send().text(), "nobody", "the old id is dead");
        }
    }
}

#[test]
fn what_a_cluster_cannot_do_is_refused_at_once() {
    let refused = |nodes: &[&str], config| {
        let error = RedisCluster::new(nodes.iter().copied(), config).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        error.to_string()
    };
    assert!(refused(&[], RedisConfig::default()).contains("no nodes"));
    let node = ["redis://127.0.0.1:1"];
    assert!(refused(&node, RedisConfig::default().db(3)).contains("database"));
    let other = |rest: &str| refused(&[&format!("redis://{rest}")], RedisConfig::default());
    assert!(other("ada:secret@127.0.0.1:1").contains("say it in the RedisConfig"));
    assert!(other("127.0.0.1:1/3").contains("database"));
    assert!(refused(&["unix:///x"], RedisConfig::default()).contains("a host and a port"));
    let cluster = RedisCluster::new(node, RedisConfig::default()).unwrap();
    let store = RedisStore::on_cluster(cluster).migrate_from(Layout::BottleSession);
    let error = bottle_session::App::new().install(SessionPlugin::new().store(store)).unwrap_err();
    assert!(error.to_string().contains("cluster"), "{error}");
}
