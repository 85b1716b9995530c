//! The page of metrics: what it counts, and that Prometheus could read it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bottle_session::http::Method;
use bottle_session::server::native::Native;
use bottle_session::{
    App, MemoryStore, MetricsPlugin, RedisPool, Session, SessionPlugin, SessionStore, TestClient,
    abort,
};

use crate::support::redis_server::RedisServer;
use crate::support::serving::Serving;

/// The samples of a page, and the types of its metrics. Fails where the page is none.
fn read(page: &str) -> (BTreeMap<String, f64>, BTreeMap<String, String>) {
    let (mut samples, mut types) = (BTreeMap::new(), BTreeMap::new());
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(types.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} twice");
        } else if !line.starts_with("# HELP ") {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let metric = name.split('{').next().unwrap();
            let ends = ["_bucket", "_sum", "_count"];
            let family = ends.iter().find_map(|end| metric.strip_suffix(end)).unwrap_or(metric);
            assert!(types.contains_key(metric) || types[family] == "histogram", "{line}");
            let value = value.parse().unwrap();
            assert!(samples.insert(name.to_owned(), value).is_none(), "{name} twice");
        }
    }
    assert!(page.ends_with('\n'));
    (samples, types)
}

fn app(metrics: &MetricsPlugin, sessions: SessionPlugin) -> App {
    let mut app = App::new();
    app.install(metrics.clone()).unwrap();
    app.install(sessions).unwrap();
    app.get("/hello/<name>", |name: &str| format!("Hello, {name}"));
    app.get("/visit", |session: &mut Session| session.set("a", "b"));
    app.get("/refused", || Err::<(), _>(abort(403, "No.")));
    app.get("/say/\"\\<", || "odd");
    let page = metrics.clone();
    app.get("/metrics", move || page.page()).skip("metrics");
    app
}

#[test]
fn requests_are_counted_by_method_route_and_status() {
    let sessions = SessionPlugin::new().in_memory();
    let metrics = MetricsPlugin::new().sessions("session", sessions.counters());
    let client = TestClient::new(app(&metrics, sessions)).unwrap();
    for path in ["/hello/Ada", "/hello/Bob", "/visit", "/visit", "/refused", "/nowhere", "/metrics"]
    {
        client.get(path).send();
    }
    client.post("/refused").send();
    client.request(Method::HEAD, "/hello/Ada").send();
    client.request("BREW".parse().unwrap(), "/nowhere").send();
    let answer = client.get("/metrics").send();
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let (samples, types) = read(&answer.text());
    for (labels, count) in [
        (r#"method="GET",route="/hello/<name>",status="200""#, 2.0),
        (r#"method="HEAD",route="/hello/<name>",status="200""#, 1.0),
        (r#"method="GET",route="/visit",status="200""#, 2.0),
        (r#"method="GET",route="/refused",status="403""#, 1.0),
        (r#"method="GET",route="",status="404""#, 1.0),
        (r#"method="POST",route="",status="405""#, 1.0),
        (r#"method="OTHER",route="",status="404""#, 1.0),
    ] {
        assert_eq!(samples[&format!("http_requests_total{{{labels}}}")], count, "{labels}");
    }
    let duration = "http_request_duration_seconds";
    assert_eq!(types[duration], "histogram");
    let of = r#"method="GET",route="/hello/<name>""#;
    assert_eq!(samples[&format!("{duration}_count{{{of}}}")], 2.0);
    assert_eq!(samples[&format!("{duration}_bucket{{{of},le=\"+Inf\"}}")], 2.0);
    assert!(samples[&format!("{duration}_bucket{{{of},le=\"10\"}}")] <= 2.0);
    for (stage, count) in [("prepare", 6.0), ("run", 6.0), ("finish", 6.0)] {
        let name = format!("http_stage_duration_seconds_count{{stage=\"{stage}\"}}");
        assert_eq!(samples[&name], count, "{stage}");
    }
    assert_eq!(samples["http_requests_in_flight"], 0.0);
    for (event, count) in [("created", 1.0), ("loaded", 1.0), ("store_error", 0.0)] {
        let name = format!("session_events_total{{keyword=\"session\",event=\"{event}\"}}");
        assert_eq!(samples[&name], count, "{event}");
    }
}

#[test]
fn texts_in_labels_are_escaped_and_the_app_has_numbers_of_its_own() {
    let store = Arc::new(MemoryStore::new());
    let held = store.clone();
    let metrics = MetricsPlugin::new()
        .gauge("sessions_in_memory", "Sessions\nheld.", move || held.len() as f64);
    let client = TestClient::new(app(&metrics, SessionPlugin::new().store(store))).unwrap();
    assert_eq!(client.get("/say/%22%3C").send().text(), "odd");
    client.get("/visit").send();
    let page = metrics.text();
    assert!(page.contains(r#"route="/say/\"\\<","#), "{page}");
    assert!(page.contains("# HELP sessions_in_memory Sessions\\nheld.\n"), "{page}");
    assert_eq!(read(&page).0["sessions_in_memory"], 1.0);
}

#[test]
fn redis_tells_of_round_trips_batches_and_connections() {
    let redis = RedisServer::shared();
    let pool = RedisPool::open(&redis.url(redis.fresh_database())).unwrap();
    let metrics = MetricsPlugin::new().redis("main", pool.clone());
    let app = app(&metrics, SessionPlugin::new().pool(pool.clone()));
    let server = Serving::start(Native::bind("127.0.0.1:0").unwrap(), app);
    let mut client = server.client();
    for _ in 0..3 {
        assert_eq!(client.get("/visit").status, 200);
    }
    let mut connection = pool.connection();
    connection.set("a", "b").unwrap();
    let (samples, _) = read(client.get("/metrics").text());
    let of = |name: &str| samples[&format!("{name}{{pool=\"main\"}}")];
    // Three sessions were saved; nobody came with one.
    assert!(of("redis_operations_total") >= 3.0);
    assert!(of("redis_round_trips_total") >= 3.0);
    assert_eq!(of("redis_batch_size_count"), of("redis_round_trips_total"));
    assert_eq!(of("redis_batch_size_sum"), of("redis_operations_total"));
    assert_eq!(of("redis_round_trip_seconds_count"), of("redis_round_trips_total"));
    assert_eq!(of("redis_breaker_open"), 0.0);
    assert_eq!(samples["redis_connections{pool=\"main\",state=\"used\"}"], 1.0);
    drop(connection);
}

/// What a page says of a store after so many visits.
fn told_of(
    store: Arc<dyn SessionStore>,
    metrics: MetricsPlugin,
    visits: usize,
) -> (BTreeMap<String, f64>, BTreeMap<String, String>) {
    for _ in 0..visits {
        let app = app(&metrics, SessionPlugin::new().store(store.clone()));
        TestClient::new(app).unwrap().get("/visit").send();
    }
    read(&metrics.text())
}

#[test]
fn a_store_in_memory_is_told_of() {
    let store = Arc::new(MemoryStore::new().capacity(50));
    let metrics = MetricsPlugin::new().memory("short", store.clone());
    let (samples, _) = told_of(store, metrics, 2);
    assert_eq!(samples[r#"memory_sessions{store="short"}"#], 2.0);
    assert_eq!(samples[r#"memory_sessions_capacity{store="short"}"#], 50.0);
}

#[cfg(feature = "sqlite")]
#[test]
fn a_store_in_a_file_is_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sessions.db");
    let store = Arc::new(bottle_session::SqliteStore::open(file).unwrap());
    let metrics = MetricsPlugin::new().file("long", store.clone());
    let (samples, types) = told_of(store, metrics, 3);
    assert_eq!(samples[r#"file_batch_size_bucket{store="long",le="1"}"#], 3.0);
    assert_eq!(samples[r#"file_commit_seconds_count{store="long"}"#], 3.0);
    assert!(samples[r#"file_bytes{store="long"}"#] >= 4096.0, "{samples:?}");
    assert_eq!(
        (types["file_commit_seconds"].as_str(), types["file_bytes"].as_str()),
        ("histogram", "gauge")
    );
}
