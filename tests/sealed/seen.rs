//! What is seen of sealed sessions where they are kept.

use super::*;

/// What must not be seen: names of fields and their values.
const VALUES: [(&str, &str); 3] =
    [("card", "4111-1111-1111-1111"), ("diagnosis", "schizophrenia"), ("n", "918273645")];

struct User;

impl Provided for User {}

/// A visitor logs in, and does what makes a store write. The ids that the browser had come back.
fn visit(plugin: SessionPlugin) -> Vec<String> {
    let mut app = app(plugin);
    app.install(CsrfPlugin::new()).unwrap();
    app.install(LoginPlugin::new(|_: &str| -> Result<_> { Ok(Some(User)) })).unwrap();
    app.get("/secret", |_: &User, s: &mut Session| s.get("card").unwrap_or("-").to_owned());
    let browser = TestClient::new(app).unwrap();
    let mut ids = Vec::new();
    let mut go = |path: &str| {
        let answer = text(&browser, path);
        let id = browser.cookie(COOKIE).unwrap();
        if !ids.contains(&id) {
            ids.push(id);
        }
        answer
    };
    go("/token");
    for (name, value) in VALUES {
        go(&format!("/set/{name}/{value}"));
        go(&format!("/regenerate-and-set/{value}"));
        std::thread::sleep(Duration::from_millis(2));
    }
    go("/in/ada");
    go("/flash/schizophrenia");
    go("/flashes");
    go("/flash/schizophrenia");
    assert_eq!(go("/secret"), VALUES[0].1);
    assert_eq!(go("/incr/n"), "918273648");
    go("/absent/other/schizophrenia");
    go("/commit/918273645");
    go("/in-twice/schizophrenia");
    go("/remember");
    go("/who");
    assert!(ids.len() >= 5, "{ids:?}");
    ids
}

/// Whether these bytes, or their parts in hexadecimal, hold one of the values or ids.
fn shown(dump: &[u8], ids: &[String]) -> Vec<String> {
    let values = ["4111-1111-1111-1111", "4111", "schizophrenia", "918273645", "918273648"];
    let secrets = values.iter().map(|value| value.to_string()).chain(ids.iter().cloned());
    secrets.filter(|secret| memchr_find(dump, secret.as_bytes())).collect()
}

fn memchr_find(dump: &[u8], secret: &[u8]) -> bool {
    dump.windows(secret.len()).any(|part| part == secret)
}

/// All keys and values of a server, of whatever type.
fn dump(connection: &mut redis::Connection) -> Vec<u8> {
    let mut dump = Vec::new();
    let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg("*").query(connection).unwrap();
    for key in keys {
        let kind: String = redis::cmd("TYPE").arg(&key).query(connection).unwrap();
        let mut read = match kind.as_str() {
            "hash" => redis::cmd("HGETALL").arg(&key).to_owned(),
            "zset" => redis::cmd("ZRANGE").arg(&key).arg(0).arg(-1).to_owned(),
            "set" => redis::cmd("SMEMBERS").arg(&key).to_owned(),
            "string" => redis::cmd("MGET").arg(&key).to_owned(),
            other => panic!("a key of type {other}"),
        };
        let values: Vec<Vec<u8>> = std::mem::take(&mut read).query(connection).unwrap();
        for text in std::iter::once(key).chain(values) {
            dump.extend(text);
            dump.push(b'\n');
        }
    }
    dump
}

#[test]
fn a_dump_of_redis_shows_no_value_and_no_id() {
    let (mut server, _) = RedisServer::start_on_port();
    let mut connection = server.connect(0);
    for is_sealed in [false, true] {
        let _: () = redis::cmd("FLUSHALL").query(&mut connection).unwrap();
        let plugin = SessionPlugin::new().url(&server.url(0));
        let ids = visit(if is_sealed { plugin.sealed() } else { plugin });
        let dump = dump(&mut connection);
        assert!(memchr_find(&dump, b"diagnosis"), "names of fields are seen");
        let shown = shown(&dump, &ids);
        match is_sealed {
            true => assert_eq!(shown, Vec::<String>::new()),
            false => assert!(shown.len() >= 3, "without, all is seen: {shown:?}"),
        }
        // What Redis itself would write to its disk, not compressed.
        let _: () = redis::cmd("CONFIG")
            .arg(&["SET", "rdbcompression", "no"])
            .query(&mut connection)
            .unwrap();
        let _: () = redis::cmd("SAVE").query(&mut connection).unwrap();
        let folder: Vec<String> =
            redis::cmd("CONFIG").arg(&["GET", "dir"]).query(&mut connection).unwrap();
        let bytes = std::fs::read(format!("{}/dump.rdb", folder[1])).unwrap();
        assert_eq!(self::shown(&bytes, &ids).is_empty(), is_sealed);
    }
    server.kill();
}

#[test]
fn a_session_file_shows_no_value_and_no_id() {
    for is_sealed in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let plugin = SessionPlugin::new().file(folder.path().join("sessions.db"));
        let ids = visit(if is_sealed { plugin.sealed() } else { plugin });
        let mut bytes = Vec::new();
        for file in std::fs::read_dir(folder.path()).unwrap() {
            // With what it has not written back yet, and the index of that.
            bytes.extend(std::fs::read(file.unwrap().path()).unwrap());
        }
        assert!(memchr_find(&bytes, b"diagnosis"), "names of fields are seen");
        let shown = shown(&bytes, &ids);
        match is_sealed {
            true => assert_eq!(shown, Vec::<String>::new()),
            false => assert!(shown.len() >= 3, "without, all is seen: {shown:?}"),
        }
    }
}

#[test]
fn rotations_leave_nothing_to_see_either() {
    let (mut server, _) = RedisServer::start_on_port();
    let pool = RedisPool::open(&server.url(0)).unwrap();
    let store: Arc<dyn SessionStore> = Arc::new(RedisStore::new(pool));
    if store.keeps_tombstones() {
        let ids = visit(plugin(&store).sealed().renew_every(Duration::from_millis(1)));
        let dump = dump(&mut server.connect(0));
        assert_eq!(shown(&dump, &ids), Vec::<String>::new());
    }
    server.kill();
}
