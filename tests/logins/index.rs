//! The index of a user's sessions: what it costs, how large it gets, and that an end of all misses none.

use std::sync::{Barrier, Mutex};
use std::time::Duration;

use bottle_session::testing::store_contract::StoreUnderTest;
use bottle_session::{
    Action, Changes, EndDevices, ErrorKind, Layout, LogIn, MemoryStore, RedisPool, RedisStore,
    Save, Saved, SessionStore,
};

use crate::stores::Redis;
use crate::support::redis_server::{RedisServer, info};
use crate::support::sessions::{IDLE, create, fresh_id, load};

/// How many commands a server has carried out, those of scripts included.
fn commands(connection: &mut redis::Connection) -> u64 {
    let stats = info(connection, "commandstats");
    let calls = |line: &String| line.split([',', '=']).nth(1)?.parse::<u64>().ok();
    let ours = stats.iter().filter(|(name, _)| !name.contains("info") && !name.contains("config"));
    ours.filter_map(|(_, line)| calls(line)).sum()
}

#[test]
fn only_sessions_with_a_user_cost_a_command_more() {
    let server = RedisServer::start(&[]);
    let store = RedisStore::new(RedisPool::open(&server.url(0)).unwrap());
    let mut connection = server.connect(0);
    let none = Changes::default();
    let anonymous = create(&store, &[("a", "1")]);
    let user = fresh_id(store.id_format());
    let save = Save::new(&user, Action::Create, &none, IDLE);
    assert_eq!(
        store.save(&Save { login: Some(LogIn::new("ada")), ..save }).unwrap(),
        Saved::Stored
    );
    let mut cost = |id, user: Option<&str>, renewed_ago| {
        load(&store, id).unwrap();
        let before = commands(&mut connection);
        load(&store, id).unwrap();
        let save = Save { user, renewed_ago, ..Save::new(id, Action::Update, &none, IDLE) };
        assert_eq!(store.save(&save).unwrap(), Saved::Stored);
        commands(&mut connection) - before
    };
    let nobody = cost(&anonymous, None, None);
    assert_eq!(cost(&user, Some("ada"), Some(Duration::from_secs(60))), nobody);
    // A renewal, once in a tenth of the lifetime: a script, and what it looks at.
    let renewal = cost(&user, Some("ada"), None);
    assert!((nobody + 1..=nobody + 3).contains(&renewal), "{nobody}, {renewal}");
}

/// Makes a session of who logs in.
fn logged_in(store: &dyn SessionStore, login: LogIn<'_>) {
    let (id, none) = (fresh_id(store.id_format()), Changes::default());
    let save = Save { login: Some(login), ..Save::new(&id, Action::Create, &none, IDLE) };
    assert_eq!(store.save(&save).unwrap(), Saved::Stored);
}

#[test]
fn an_index_holds_no_more_than_live_sessions_and_lives_no_longer() {
    let subject = Redis::new(Layout::Default);
    let store = subject.store();
    let log_in = || logged_in(store, LogIn::new("ada"));
    for round in 0..5 {
        // More than one look, and one reply of Redis, holds.
        for _ in 0..if round == 0 { 600 } else { 10 } {
            log_in();
        }
        // The first login after they have expired takes them out.
        subject.advance(Duration::from_secs(70 * 60));
        log_in();
        assert_eq!(subject.index_length(), Some(1), "round {round}");
        assert_eq!(store.devices("ada", None).unwrap().len(), 1);
    }
    subject.advance(Duration::from_secs(3 * 3600));
    assert_eq!(subject.index_length(), None, "it expires");
}

#[test]
fn a_user_with_many_sessions_logs_in_and_keeps_only_the_most_there_may_be() {
    let subject = Redis::new(Layout::Default);
    let (store, user) = (subject.store(), "a".repeat(200));
    let log_in = |most| logged_in(store, LogIn { max_sessions: most, ..LogIn::new(&user) });
    (0..600).for_each(|_| log_in(None));
    subject.advance(Duration::from_secs(120));
    log_in(None);
    assert_eq!(store.devices(&user, None).unwrap().len(), 601);
    log_in(Some(3));
    assert_eq!(store.devices(&user, None).unwrap().len(), 3);
}

/// Sixteen threads log in while another one ends all, a thousand times: no login from before a call outlives it.
fn no_survivor(store: &dyn SessionStore) {
    const THREADS: usize = 16;
    const TIMES: usize = 1000;
    let (turn, none) = (Barrier::new(THREADS + 1), Changes::default());
    let logged_in = Mutex::new(Vec::new());
    let log_in = || {
        let id = fresh_id(store.id_format());
        let save = Save::new(&id, Action::Create, &none, IDLE);
        match store.save(&Save { login: Some(LogIn::new("ada")), ..save }) {
            Ok(Saved::Stored) => logged_in.lock().unwrap().push(id),
            Ok(Saved::Gone) => panic!("a login makes a session"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
                assert!(load(store, &id).unwrap().is_none(), "a login that failed");
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..TIMES {
                    turn.wait();
                    log_in();
                    turn.wait();
                }
            });
        }
        for _ in 0..TIMES {
            let before = std::mem::take(&mut *logged_in.lock().unwrap());
            turn.wait();
            store.end_devices("ada", EndDevices::All).unwrap();
            for id in before {
                assert!(load(store, &id).unwrap().is_none(), "{id:?} has survived");
            }
            turn.wait();
        }
    });
    store.end_devices("ada", EndDevices::All).unwrap();
    for id in logged_in.into_inner().unwrap() {
        assert!(load(store, &id).unwrap().is_none(), "{id:?} has survived");
    }
    assert_eq!(store.devices("ada", None).unwrap(), []);
}

#[test]
fn sixteen_threads_log_in_while_another_ends_all_and_none_survives_in_memory() {
    no_survivor(&MemoryStore::new());
}

#[test]
fn sixteen_threads_log_in_while_another_ends_all_and_none_survives_in_redis() {
    let server = RedisServer::start(&[]);
    let store = RedisStore::new(RedisPool::open(&server.url(0)).unwrap());
    no_survivor(&store);
}
