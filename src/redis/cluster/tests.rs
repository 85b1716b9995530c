use std::net::TcpListener;

use super::slots::SLOTS;
use super::*;
use crate::redis::scripted_server::{self, Ask, answers};

fn port(listener: &TcpListener) -> u16 {
    listener.local_addr().unwrap().port()
}

fn all_slots_at(port: u16) -> &'static str {
    format!("*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$9\r\n127.0.0.1\r\n:{port}\r\n").leak()
}

fn cluster(ports: &[u16], config: RedisConfig) -> RedisCluster {
    let nodes: Vec<_> = ports.iter().map(|port| format!("redis://127.0.0.1:{port}")).collect();
    RedisCluster::new(nodes.iter().map(String::as_str), config).unwrap()
}

fn read(cluster: &RedisCluster) -> Result<String> {
    let mut ask = Ask::new("HGETALL key", true);
    cluster.remote().run(&mut [&mut ask]);
    ask.reply.unwrap()
}

/// Two listeners, that of the lower port first: nodes are asked in this order.
fn in_order() -> [TcpListener; 2] {
    let mut two = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    two.sort_by_key(port);
    two
}

/// A node that answers CLUSTER SLOTS and every other command with these words.
fn serve(listener: TcpListener, slots: &'static str, other: &'static str) {
    scripted_server::serve(listener, move |words| match words[0].as_str() {
        "CLUSTER" => answers(slots),
        _ => answers(other),
    });
}

#[test]
fn a_node_that_was_sent_away_takes_nobody_along() {
    let [away, there] = in_order();
    let ports = [port(&away), port(&there)];
    serve(away, "*0\r\n", "+OK\r\n");
    serve(there, all_slots_at(ports[1]), "+here\r\n");
    assert_eq!(read(&cluster(&ports, RedisConfig::default())).unwrap(), "+here\r\n");
}

#[test]
fn who_is_sent_to_a_node_asks_that_one_for_the_map() {
    let [stale, there] = in_order();
    let ports = [port(&stale), port(&there)];
    let moved = format!("-MOVED 1 :{}\r\n", ports[1]).leak();
    serve(stale, all_slots_at(ports[0]), moved);
    serve(there, all_slots_at(ports[1]), "+here\r\n");
    assert_eq!(read(&cluster(&ports, RedisConfig::default())).unwrap(), "+here\r\n");
}

#[test]
fn a_node_that_announces_no_name_is_where_it_was_asked() {
    for name in ["$1\r\n?", "$0\r\n", "$-1"] {
        let [asked, owner] = in_order();
        let ports = [port(&asked), port(&owner)];
        let slots = |port| format!("*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n{name}\r\n:{port}\r\n");
        // Whom it sends there, as well.
        let moved =
            format!("-MOVED 1 {}:{}\r\n", if name.contains('?') { "?" } else { "" }, ports[1]);
        let (stale, new) = (slots(ports[0]).leak(), slots(ports[1]).leak());
        serve(asked, stale, moved.leak());
        serve(owner, new, "+here\r\n");
        let cluster = cluster(&ports[..1], RedisConfig::default());
        assert_eq!(read(&cluster).unwrap(), "+here\r\n", "{name:?}");
    }
}

#[test]
fn a_node_is_reached_where_the_address_map_says() {
    let [asked, owner] = in_order();
    let ports = [port(&asked), port(&owner)];
    // 192.0.2.0/24 is nobody's (RFC 5737).
    let slots = "*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$9\r\n192.0.2.1\r\n:6379\r\n";
    serve(asked, slots, "-MOVED 1 192.0.2.2:6379\r\n");
    serve(owner, slots.replace("192.0.2.1", "192.0.2.2").leak(), "+here\r\n");
    let [one, other] = ports.map(|port| format!("127.0.0.1:{port}"));
    let map = [("192.0.2.1:6379", one.as_str()), ("192.0.2.2:6379", other.as_str())];
    let config = RedisConfig::default().address_map(map).unwrap();
    let cluster = cluster(&ports[..1], config);
    assert_eq!(read(&cluster).unwrap(), "+here\r\n");
    // A seed that is named by where it is reached is one node with the one that announces itself.
    assert_eq!(lock(&cluster.0.pools).len(), 2);
}

#[test]
fn why_no_node_says_who_has_the_slots_is_said() {
    for (reply, kind, text) in [
        (
            "-ERR This instance has cluster support disabled\r\n",
            ErrorKind::Config,
            "cluster support disabled; this is no node of a cluster: RedisStore::new takes a RedisPool for it",
        ),
        ("-NOPERM User default has no permissions\r\n", ErrorKind::Config, "no permissions"),
        ("-LOADING Redis is loading the dataset in memory\r\n", ErrorKind::Unavailable, "LOADING"),
        ("*0\r\n", ErrorKind::Unavailable, "no node says who has the slots"),
    ] {
        let [node, _] = in_order();
        let port = port(&node);
        serve(node, reply, "+OK\r\n");
        let error = read(&cluster(&[port], RedisConfig::default())).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        let (begin, end) = (format!("RedisCluster(127.0.0.1:{port}): no node says"), text);
        let told = error.to_string();
        assert!(told.starts_with(&begin) && told.contains(end), "{told}");
    }
}

#[test]
fn nodes_that_have_left_cost_nothing_any_more() {
    let [one, _] = in_order();
    let port = port(&one);
    serve(one, all_slots_at(port), "+here\r\n");
    let cluster = cluster(&[port], RedisConfig::default());
    cluster.pool(&("127.0.0.1".to_owned(), 1)).unwrap();
    assert!(read(&cluster).is_ok());
    assert_eq!(lock(&cluster.0.pools).len(), 1);
}

#[test]
fn one_request_does_not_wait_for_each_node_that_is_mute() {
    // They take connections and say nothing.
    let mute = [(); 8].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let time = Duration::from_millis(100);
    let config = RedisConfig::default().connect_timeout(time).operation_timeout(time);
    let cluster = cluster(&mute.each_ref().map(port), config);
    assert!(read(&cluster).is_err());
    let pools = lock(&cluster.0.pools);
    let found_out = pools.values().filter(|pool| pool.breaker() != BreakerState::Closed).count();
    assert!((1..8).contains(&found_out), "{found_out}");
}

#[test]
fn nobody_waits_for_who_reads_the_map_where_no_node_answers() {
    let [mute, _] = in_order();
    let time = Duration::from_millis(100);
    let config = RedisConfig::default().connect_timeout(time).operation_timeout(time);
    let cluster = cluster(&[port(&mute)], config);
    assert!(read(&cluster).is_err());
    let node = ("127.0.0.1".to_owned(), port(&mute));
    for map in [SlotMap::default(), SlotMap(BTreeMap::from([(SLOTS - 1, (0, node))]))] {
        *cluster.0.map.write().unwrap() = Arc::new(map);
        let reading = lock(&cluster.0.reading);
        let (answer, answered) = std::sync::mpsc::channel();
        let asking = cluster.clone();
        std::thread::spawn(move || answer.send(read(&asking).is_err()));
        let failed = answered.recv_timeout(Duration::from_secs(60));
        assert!(failed.expect("it waits for nobody"));
        drop(reading);
    }
}
