//! Histories of what two processes of an app acknowledged while Redis fails over, and a judge of them: nothing
//! acknowledged is lost, nothing is done twice, nothing that was ended is alive.
//!
//! By default one planned failover and one killed primary on each server version; with `BOTTLE_SESSION_LONG=1` all there
//! is.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bottle_session::server::native::Native;
use bottle_session::{
    Action, Device, EndDevices, Load, Loaded, MemoryStore, RedisCluster, RedisConfig, RedisPool,
    RedisStore, Result, Save, Saved, SessionId, SessionPlugin, SessionStore,
};

use crate::faults::wait_until;
use crate::redis_cluster::Cluster;
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::process::{Program, RECORDED};
use crate::support::recorder::{Asked, Came, Record, Step, app, judge, record};
use crate::support::redis_server::RedisServer;
use crate::support::replicated::{NAME, Replicated};
use crate::support::serving::Serving;

/// Serves the app of the recorder where the environment says with which Redis; else there is nothing to test.
#[test]
fn a_process_of_the_recorded_app() {
    let Ok(redis) = std::env::var(RECORDED) else { return };
    let (kind, rest) = redis.split_once(' ').expect("a kind, and addresses");
    let (replicas, urls) = rest.split_once(' ').expect("a number, and addresses");
    let config = RedisConfig::default().replicas(replicas.parse().expect("a number"));
    let urls: Vec<&str> = urls.split(' ').collect();
    let store = match kind {
        "sentinels" => RedisStore::new(RedisPool::sentinel(urls, NAME, config).unwrap()),
        "cluster" => RedisStore::on_cluster(RedisCluster::new(urls, config).unwrap()),
        _ => RedisStore::new(RedisPool::new(config.url(urls[0]).unwrap()).unwrap()),
    };
    let server = serving(SessionPlugin::new().store(store));
    println!("listening on {}", server.address);
    loop {
        std::thread::park();
    }
}

fn serving(sessions: SessionPlugin) -> Serving {
    let server = Native::bind("127.0.0.1:0").unwrap().idle_deadline(Duration::from_secs(3600));
    Serving::start(server, app(sessions))
}

/// Two processes of the app.
struct Processes {
    redis: String,
    running: Mutex<[Option<Program>; 2]>,
    addresses: Mutex<[SocketAddr; 2]>,
}

impl Processes {
    fn start(kind: &str, replicas: u32, urls: &[String]) -> Processes {
        let redis = format!("{kind} {replicas} {}", urls.join(" "));
        let running = [(); 2].map(|()| Program::recorded(&redis));
        let addresses = Mutex::new([running[0].address, running[1].address]);
        Processes { redis, running: Mutex::new(running.map(Some)), addresses }
    }

    /// Kills one of them, and starts another in its place.
    fn replace(&self, number: usize) {
        let killed = self.running.lock().unwrap()[number].take();
        killed.expect("it runs").kill();
        let next = Program::recorded(&self.redis);
        self.addresses.lock().unwrap()[number] = next.address;
        self.running.lock().unwrap()[number] = Some(next);
    }

    fn record(&self, meanwhile: impl FnOnce()) -> Record {
        record(&self.addresses, meanwhile)
    }
}

fn behind_sentinels(replicated: &Replicated, replicas: u32) -> Processes {
    let urls: Vec<_> = replicated.sentinels.iter().map(|sentinel| sentinel.url()).collect();
    Processes::start("sentinels", replicas, &urls)
}

/// The time that the visitors need to see what a fault has done.
fn go_on(time: Duration) {
    // The load goes on meanwhile; nothing is waited for.
    std::thread::sleep(time);
}

fn is_long() -> bool {
    std::env::var_os("BOTTLE_SESSION_LONG").is_some()
}

/// Replaces the primary, and waits until the one before is a replica: until then it takes writes that it will forget.
fn plan_failover(replicated: &Replicated) {
    let before = replicated.primary();
    replicated.fail_over();
    let begun = Instant::now();
    while !replicated.is_replica(before) {
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("the old primary was a replica after {:?}", begun.elapsed());
    go_on(Duration::from_secs(1));
}

#[test]
fn a_planned_failover_loses_nothing() {
    let replicated = Replicated::start();
    let processes = behind_sentinels(&replicated, 0);
    let seen = processes.record(|| {
        go_on(Duration::from_secs(1));
        plan_failover(&replicated);
    });
    seen.assert_right("a planned failover");
    seen.assert_reads_went_on();
}

#[test]
fn a_killed_primary_takes_nothing_along_that_its_replicas_had() {
    let mut replicated = Replicated::start();
    // Either of them may be promoted.
    let processes = behind_sentinels(&replicated, 2);
    let seen = processes.record(|| {
        go_on(Duration::from_secs(1));
        let primary = replicated.primary();
        replicated.servers[primary].0.kill();
        replicated.wait_for_another_primary(primary);
        go_on(Duration::from_secs(3));
    });
    seen.assert_right("the primary killed");
}

// For as long as it takes.

#[test]
fn ten_planned_failovers_in_a_row_lose_nothing() {
    if !is_long() {
        return;
    }
    let mut replicated = Replicated::start();
    for replicas in [0, 1] {
        let processes = behind_sentinels(&replicated, replicas);
        let seen = processes.record(|| {
            for number in 0..10 {
                // Sentinels that do not lead have their own troubles.
                match number {
                    4 => replicated.sentinels[1].kill(),
                    7 => replicated.sentinels[2].hang(true),
                    _ => {}
                }
                plan_failover(&replicated);
                match number {
                    4 => replicated.sentinels[1].start_again(),
                    7 => replicated.sentinels[2].hang(false),
                    _ => {}
                }
                replicated.wait_until_sound(2);
            }
        });
        seen.assert_right(&format!("ten planned failovers, replicas({replicas})"));
        seen.assert_reads_went_on();
    }
}

#[test]
fn five_killed_primaries_take_nothing_along() {
    if !is_long() {
        return;
    }
    let mut replicated = Replicated::start();
    let processes = behind_sentinels(&replicated, 2);
    let seen = processes.record(|| {
        for _ in 0..5 {
            let primary = replicated.primary();
            replicated.servers[primary].0.kill();
            replicated.wait_for_another_primary(primary);
            go_on(Duration::from_secs(2));
            replicated.servers[primary].0.start_again();
            replicated.wait_until_sound(2);
            go_on(Duration::from_secs(2));
        }
    });
    seen.assert_right("the primary killed five times");
}

#[test]
fn nothing_is_lost_where_one_server_restarts_connections_are_cut_or_apps_are_killed() {
    if !is_long() {
        return;
    }
    let durable = ["--appendonly", "yes", "--appendfsync", "always"];
    let (mut server, port) = RedisServer::start_on_port_with(&durable);
    let processes = Processes::start("one", 0, &[format!("redis://127.0.0.1:{port}")]);
    let seen = processes.record(|| {
        for _ in 0..10 {
            go_on(Duration::from_secs(1));
            server.kill();
            server.start_again();
        }
    });
    seen.assert_right("Redis killed and started again ten times");

    let proxy = FaultProxy::start(port);
    let processes = Processes::start("one", 0, &[proxy.url()]);
    let seen = processes.record(|| {
        for one_in in [1000, 200, 50] {
            proxy.set(Fault::CutAtRandom(one_in));
            go_on(Duration::from_secs(5));
        }
        proxy.set(Fault::CutAfter);
        go_on(Duration::from_secs(1));
        proxy.set(Fault::Pass);
        go_on(Duration::from_secs(2));
    });
    seen.assert_right("connections cut");

    let processes = Processes::start("one", 0, &[format!("redis://127.0.0.1:{port}")]);
    let seen = processes.record(|| {
        for number in 0..10 {
            go_on(Duration::from_secs(1));
            processes.replace(number % 2);
        }
    });
    seen.assert_right("apps killed");
}

#[test]
fn nothing_is_lost_in_a_cluster_whatever_happens() {
    if !is_long() {
        return;
    }
    let mut cluster = Cluster::with_replicas(3);
    let urls: Vec<_> = (0..6).map(|node| cluster.url(node)).collect();
    let processes = Processes::start("cluster", 0, &urls);
    let seen = processes.record(|| {
        for round in 0..17 {
            // The replica takes the place of its master, and the other way round.
            let master = round % 3;
            let replica = if cluster.is_master(master) { master + 3 } else { master };
            wait_until("the replica follows", || cluster.is_sound(replica));
            wait_until("the replica has taken over", || {
                // It gives up after five seconds where the others did not hear of it.
                cluster.tell(replica, &["FAILOVER"]);
                (0..600).any(|_| {
                    std::thread::sleep(Duration::from_millis(10));
                    cluster.is_master(replica)
                })
            });
            go_on(Duration::from_millis(300));
        }
    });
    seen.assert_right("17 planned failovers in a cluster");
    drop(processes);

    let processes = Processes::start("cluster", 1, &urls);
    let seen = processes.record(|| {
        for _ in 0..5 {
            let master = if cluster.is_master(0) { 0 } else { 3 };
            let replica = 3 - master;
            wait_until("the replica follows", || cluster.is_sound(replica));
            cluster.nodes[master].0.kill();
            wait_until("the replica has taken over", || cluster.is_master(replica));
            go_on(Duration::from_secs(1));
            cluster.nodes[master].0.start_again();
            wait_until("it has become a replica", || cluster.is_sound(master));
        }
    });
    seen.assert_right("a master of a cluster killed five times");
    drop(processes);
    drop(cluster);

    let cluster = Cluster::start();
    let urls: Vec<_> = (0..3).map(|node| cluster.url(node)).collect();
    let processes = Processes::start("cluster", 0, &urls);
    let seen = processes.record(|| {
        go_on(Duration::from_millis(500));
        // Those of the sessions: each id has one of 256 tags.
        let keyslot = redis::cmd("CLUSTER").arg("KEYSLOT").to_owned();
        let mut slots: Vec<u16> = (0..256)
            .map(|tag| {
                let mut ask = keyslot.clone();
                ask.arg(format!("{{{tag:02x}}}"));
                ask.query(&mut cluster.nodes[0].0.connect(0)).unwrap()
            })
            .filter(|slot| (5461..=10922).contains(slot))
            .collect();
        slots.dedup();
        for (from, to) in [(1, 2), (2, 1)] {
            slots.iter().for_each(|slot| cluster.move_slot(*slot, from, to));
        }
    });
    seen.assert_right("slots moving all the time");
}

// Who judges must be judged.

/// A store that acknowledges one save in so many without doing it.
struct Forgetful {
    store: Arc<MemoryStore>,
    one_in: u64,
    saves: AtomicU64,
    /// Ends that it has acknowledged and not done.
    forgot_ends: Arc<AtomicU64>,
}

impl Forgetful {
    fn forgets(&self) -> bool {
        self.saves.fetch_add(1, Ordering::Relaxed) % self.one_in == self.one_in - 1
    }
}

impl SessionStore for Forgetful {
    fn keeps_logins(&self) -> bool {
        self.store.keeps_logins()
    }

    fn devices(&self, user: &str, this: Option<&SessionId>) -> Result<Vec<Device>> {
        self.store.devices(user, this)
    }

    fn end_devices(&self, user: &str, which: EndDevices<'_>) -> Result<usize> {
        if self.forgets() {
            self.forgot_ends.fetch_add(1, Ordering::SeqCst);
            return Ok(0);
        }
        self.store.end_devices(user, which)
    }

    fn load(&self, load: &Load<'_>) -> Result<Loaded> {
        self.store.load(load)
    }

    fn save(&self, save: &Save<'_>) -> Result<Saved> {
        match save.action {
            // A session that is never there is seen at once, and is no test.
            Action::Create => self.store.save(save),
            action if self.forgets() => {
                if matches!(action, Action::Destroy) {
                    self.forgot_ends.fetch_add(1, Ordering::SeqCst);
                }
                Ok(Saved::Stored)
            }
            _ => self.store.save(save),
        }
    }

    fn increment(&self, load: &Load<'_>, key: &str, by: i64) -> Result<i64> {
        self.store.increment(load, key, by)
    }

    fn take(&self, load: &Load<'_>, keys: &[&str]) -> Result<Vec<Option<String>>> {
        self.store.take(load, keys)
    }

    fn set_if_absent(&self, load: &Load<'_>, key: &str, value: &str) -> Result<bool> {
        self.store.set_if_absent(load, key, value)
    }
}

fn forgetting(store: &Arc<MemoryStore>, one_in: u64) -> Forgetful {
    let (saves, forgot_ends) = (AtomicU64::new(0), Arc::default());
    Forgetful { store: store.clone(), one_in, saves, forgot_ends }
}

fn recorded(stores: [Forgetful; 2], meanwhile: impl FnOnce()) -> Record {
    let servers = stores.map(|store| serving(SessionPlugin::new().store(store)));
    let addresses = Mutex::new([servers[0].address, servers[1].address]);
    record(&addresses, meanwhile)
}

#[test]
fn the_judge_cries_where_one_save_in_a_hundred_is_dropped_and_only_there() {
    let store = Arc::new(MemoryStore::new());
    let sound = || forgetting(&store, u64::MAX);
    recorded([sound(), sound()], || go_on(Duration::from_secs(1))).assert_right("no fault");
    let stores = [(); 2].map(|()| forgetting(&store, 100));
    let ends = stores.each_ref().map(|store| store.forgot_ends.clone());
    let seen = recorded(stores, || {
        wait_until("an end was forgotten by each", || {
            ends.iter().all(|ends| ends.load(Ordering::SeqCst) > 0)
        });
    });
    let faults = seen.faults();
    assert!(faults.iter().any(|fault| fault.contains("the register is")), "{faults:#?}");
    assert!(faults.iter().any(|fault| fault.contains("is alive")), "{faults:#?}");
}

#[test]
fn the_judge_cries_where_two_processes_do_not_share_their_store() {
    let own = || forgetting(&Arc::new(MemoryStore::new()), u64::MAX);
    let seen = recorded([own(), own()], || go_on(Duration::from_secs(1)));
    let faults = seen.faults();
    assert!(faults.iter().any(|fault| fault.contains("the session is gone")), "{faults:#?}");
}

#[test]
fn each_kind_of_fault_is_found_in_a_history() {
    let back = |text: &str| Came::Back(text.to_owned());
    let begin = || (Asked::Begin(1), vec![back("begun")]);
    type Asks = Vec<(Asked, Vec<Came>)>;
    let table: Vec<(Asks, Option<&str>)> = vec![
        (vec![begin(), (Asked::Read, vec![back("1 0 0")])], None),
        (vec![begin(), (Asked::Read, vec![back("0 0 0")])], Some("the register is 0, not 1")),
        (
            vec![
                begin(),
                (Asked::Write(2), vec![Came::Open]),
                (Asked::Write(3), vec![back("written")]),
                // It may come late, but not twice.
                (Asked::Read, vec![back("2 0 0")]),
                (Asked::Read, vec![back("3 0 0")]),
            ],
            Some("the register is 3, not 2"),
        ),
        (
            vec![
                begin(),
                (Asked::Write(2), vec![back("written")]),
                (Asked::Read, vec![back("1 0 0")]),
            ],
            Some("the register is 1, not 2"),
        ),
        (
            vec![begin(), (Asked::Count, vec![back("1")]), (Asked::Count, vec![back("1")])],
            Some("the sum is 1, after 1"),
        ),
        (vec![begin(), (Asked::Count, vec![Came::Open]), (Asked::Count, vec![back("2")])], None),
        (vec![begin(), (Asked::Count, vec![back("2")])], Some("the sum is 2, after 0")),
        (
            vec![begin(), (Asked::Count, vec![back("1")]), (Asked::Read, vec![back("1 0 0")])],
            Some("the counter is 0, not 1"),
        ),
        (
            vec![
                begin(),
                (Asked::Put(2), vec![back("put")]),
                (Asked::Take, vec![back("2"), back("2")]),
            ],
            Some("ticket 2 was taken twice"),
        ),
        (
            vec![
                begin(),
                (Asked::Put(2), vec![back("put")]),
                (Asked::Take, vec![back("0"), back("0")]),
            ],
            Some("ticket 2 is lost"),
        ),
        (
            vec![
                begin(),
                (Asked::Put(2), vec![back("put")]),
                (Asked::Take, vec![back("0"), Came::Open]),
                (Asked::Take, vec![back("2"), back("0")]),
            ],
            None,
        ),
        (vec![begin(), (Asked::Once(2, 3), vec![back("1"), back("1")])], Some("both were first")),
        (vec![begin(), (Asked::Once(2, 3), vec![back("0"), back("0")])], Some("nobody was first")),
        (
            vec![
                begin(),
                (Asked::Once(2, 3), vec![back("1"), back("0")]),
                (Asked::Read, vec![back("1 0 3")]),
            ],
            Some("set_if_absent has left 3, not 2"),
        ),
        (
            vec![
                begin(),
                (Asked::Once(2, 3), vec![Came::Open, back("0")]),
                (Asked::Read, vec![back("1 0 2")]),
            ],
            None,
        ),
        (
            vec![begin(), (Asked::End, vec![back("ended")]), (Asked::Ask(1), vec![back("1 0 0")])],
            Some("the session that was over at step 1 is alive"),
        ),
        (vec![begin(), (Asked::Read, vec![back("none")])], Some("the session is gone")),
        (vec![begin(), (Asked::Renew, vec![Came::Open]), (Asked::Read, vec![back("none")])], None),
    ];
    for (asks, expected) in table {
        let history: Vec<_> = asks
            .into_iter()
            .map(|(asked, came)| Step { asked, came, at: Instant::now(), took: Duration::ZERO })
            .collect();
        let faults = judge(&history);
        match expected {
            Some(expected) => {
                assert!(
                    faults.iter().any(|fault| fault.contains(expected)),
                    "{faults:?}: {expected}"
                );
            }
            None => assert!(faults.is_empty(), "{faults:?}"),
        }
    }
}
