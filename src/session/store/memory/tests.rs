use std::sync::atomic::AtomicU64;
use std::time::Duration;

use super::*;
use crate::session::id::{IdFormat, IdGenerator};
use crate::session::store::{Lifetimes, LogIn};

const LIFETIMES: Lifetimes =
    Lifetimes { idle: Duration::from_secs(60), absolute: Some(Duration::from_secs(3600)) };

struct Fixture {
    store: MemoryStore,
    seconds: Arc<AtomicU64>,
    ids: IdGenerator,
}

impl Fixture {
    fn new() -> Fixture {
        let seconds = Arc::new(AtomicU64::new(0));
        let clock = seconds.clone();
        let store = MemoryStore::with_clock(move || {
            SystemTime::UNIX_EPOCH + Duration::from_secs(clock.load(Ordering::SeqCst))
        });
        Fixture { store, seconds, ids: IdGenerator::new() }
    }

    fn id(&self) -> SessionId {
        self.ids.next(IdFormat::default()).unwrap()
    }

    fn pass(&self, seconds: u64) {
        self.seconds.fetch_add(seconds, Ordering::SeqCst);
    }

    fn save(&self, id: &SessionId, action: Action<'_>, pairs: &[(&str, &str)]) -> Result<Saved> {
        let fields = pairs.iter().map(|(key, value)| (key.to_string(), Some(value.to_string())));
        let changes = Changes { cleared: false, fields: fields.collect() };
        self.store.save(&Save::new(id, action, &changes, LIFETIMES))
    }

    fn create(&self) -> SessionId {
        self.create_with(&[])
    }

    fn create_with(&self, pairs: &[(&str, &str)]) -> SessionId {
        let id = self.id();
        self.save(&id, Action::Create, pairs).unwrap();
        id
    }

    fn log_in(&self, id: &SessionId, action: Action<'_>) {
        let changes = Changes::default();
        let save =
            Save { login: Some(LogIn::new("Ada")), ..Save::new(id, action, &changes, LIFETIMES) };
        assert_eq!(self.store.save(&save).unwrap(), Saved::Stored);
    }

    /// How many of these are there.
    fn live(&self, ids: &[SessionId]) -> usize {
        ids.iter().filter(|id| self.load(id).is_some()).count()
    }

    fn load(&self, id: &SessionId) -> Option<Record> {
        self.store.load(&Load { id, lifetimes: LIFETIMES }).unwrap().session()
    }

    fn queued(&self) -> usize {
        self.store.shards.iter().map(|shard| lock(shard).queued()).sum()
    }
}

/// What the fields of a session are that holds nothing of its visitor's.
const INCIDENTAL: [&[(&str, &str)]; 3] = [
    &[],
    &[("_csrf", "")],
    &[("_csrf", ""), ("_flash.1764421000000000.x", "[\"info\",\"Saved.\"]")],
];

#[test]
fn a_full_store_lets_go_of_sessions_with_nothing_but_a_token_or_flashes_before_any_other() {
    let mut fixture = Fixture::new();
    fixture.store = fixture.store.capacity(100);
    // The ones with data are older, and nearer to their end.
    let with_data: Vec<_> = (0..50).map(|_| fixture.create_with(&[("name", "Ada")])).collect();
    fixture.pass(1);
    let bots: Vec<_> = (0..50).map(|at| fixture.create_with(INCIDENTAL[at % 3])).collect();
    // Who got a token first and then logs in has data.
    fixture.save(&bots[7], Action::Update, &[("user", "Ada")]).unwrap();
    fixture.pass(1);
    let mut users: Vec<_> = (0..49).map(|_| fixture.create_with(&[("user", "Bob")])).collect();
    let live = |ids: &[SessionId]| fixture.live(ids);
    assert_eq!((live(&with_data), live(&users), live(&bots)), (50, 49, 1));
    assert!(fixture.load(&bots[7]).is_some());

    // With none of them left, who is nearest to the end goes.
    for gone in 1..=50 {
        users.push(fixture.create_with(&[("user", "Eve")]));
        assert_eq!((live(&with_data), live(&users)), (50 - gone, 49 + gone));
    }
    // Bots take the place of one, and then each other's.
    let bots: Vec<_> = (0..200).map(|at| fixture.create_with(INCIDENTAL[at % 3])).collect();
    assert_eq!((live(&users), live(&bots), fixture.store.len()), (99, 1, 100));
}

#[test]
fn a_full_store_lets_go_of_whoever_has_not_logged_in_before_who_has() {
    let mut fixture = Fixture::new();
    fixture.store = fixture.store.capacity(10);
    // Of these one logs in with its first request, without a field, one with a move, and one when its session is gone.
    let (first, before) = (fixture.id(), fixture.create_with(&[("cart", "1")]));
    let (moved, gone, anew) = (fixture.id(), fixture.id(), fixture.id());
    fixture.log_in(&first, Action::Create);
    fixture.log_in(&before, Action::Rotate { to: &moved });
    fixture.log_in(&gone, Action::Rotate { to: &anew });
    for _ in 0..100 {
        fixture.pass(1);
        for id in [&first, &moved, &anew] {
            fixture.save(id, Action::Update, &[]).unwrap();
        }
        fixture.pass(1);
        fixture.create_with(&[("cart", "2")]);
    }
    assert_eq!((fixture.live(&[first, moved, anew]), fixture.store.len()), (3, 10));
    // With nobody else left, who has been away longest.
    let users: Vec<_> = (0..20)
        .map(|_| {
            fixture.pass(1);
            let id = fixture.id();
            fixture.log_in(&id, Action::Create);
            id
        })
        .collect();
    assert_eq!((fixture.live(&users), fixture.live(&users[10..])), (10, 10));
}

#[test]
fn a_full_store_lets_go_of_who_has_been_away_longest() {
    let mut fixture = Fixture::new();
    fixture.store = fixture.store.capacity(10);
    let mut ids = Vec::new();
    for _ in 0..10 {
        fixture.pass(1);
        ids.push(fixture.create_with(&[("name", "Ada")]));
    }
    // Every other one is used once more, in another order.
    for id in ids.iter().step_by(2).rev() {
        fixture.pass(1);
        fixture.save(id, Action::Update, &[]).unwrap();
    }
    fixture.pass(1);
    let away = ids.iter().skip(1).step_by(2);
    for gone in away.chain(ids.iter().step_by(2).rev()) {
        assert!(fixture.load(gone).is_some());
        fixture.create_with(&[("name", "Eve")]);
        assert!(fixture.load(gone).is_none());
    }
}

#[test]
fn a_session_that_took_the_place_of_the_least_one_meanwhile_is_not_lost_in_its_stead() {
    // The candidate leaves, logs in, or is used; its shard holds none of so low a priority then.
    let changes: [fn(&Fixture, &SessionId); 3] = [
        |fixture, id| assert!(fixture.save(id, Action::Destroy, &[]).is_ok()),
        |fixture, id| fixture.log_in(id, Action::Update),
        |fixture, id| assert!(fixture.save(id, Action::Update, &[]).is_ok()),
    ];
    for change in changes {
        let fixture = Fixture::new();
        let bot = fixture.create();
        fixture.pass(1);
        let users: Vec<_> = (0..100)
            .map(|_| {
                let id = fixture.id();
                fixture.log_in(&id, Action::Create);
                id
            })
            .collect();
        let seen = fixture.store.eviction_candidate().unwrap();
        assert_eq!(seen.0, Priority::Incidental);
        change(&fixture, &bot);
        assert!(!fixture.store.evict(seen));
        assert_eq!(fixture.live(&users), 100);
        let seen = fixture.store.eviction_candidate().unwrap();
        assert!(fixture.store.evict(seen), "looking again finds the one to lose");
    }
}

#[test]
fn a_session_that_is_left_with_flashes_alone_is_worth_no_more_than_they_are() {
    let mut fixture = Fixture::new();
    fixture.store = fixture.store.capacity(2);
    let (left, stored) = (fixture.id(), fixture.id());
    fixture.save(&left, Action::Create, &[("user", "Ada")]).unwrap();
    fixture.save(&stored, Action::Create, &[("user", "Bob")]).unwrap();
    fixture.pass(1);
    let load = Load { id: &left, lifetimes: LIFETIMES };
    assert_eq!(fixture.store.take(&load, &["user"]).unwrap(), [Some("Ada".to_owned())]);
    fixture.save(&left, Action::Update, &[("_flash.1", "[]")]).unwrap();
    fixture.create();
    assert!(fixture.load(&left).is_none() && fixture.load(&stored).is_some());
}

#[test]
fn a_store_without_a_place_says_so() {
    let mut fixture = Fixture::new();
    fixture.store = fixture.store.capacity(0);
    let error = fixture.save(&fixture.id(), Action::Create, &[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let text = "the session store in memory has no place for any session; raise its capacity";
    assert_eq!(error.to_string(), text);
}

#[test]
fn a_full_store_keeps_to_its_capacity_whoever_comes_at_the_same_time() {
    let mut fixture = Fixture::new();
    fixture.store = fixture.store.capacity(100);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..2_000 {
                    fixture.create();
                    assert!(fixture.store.len() <= 100);
                }
            });
        }
    });
    assert_eq!((fixture.store.len(), fixture.queued()), (100, 100));
}

#[test]
fn expired_sessions_make_room_in_a_full_store() {
    let mut fixture = Fixture::new();
    fixture.store = fixture.store.capacity(100);
    let ids: Vec<_> = (0..100).map(|_| fixture.create()).collect();
    fixture.pass(59);
    assert_eq!(fixture.save(&ids[7], Action::Update, &[]).unwrap(), Saved::Stored);
    fixture.pass(7);
    let fresh: Vec<_> = (0..99).map(|_| fixture.create()).collect();
    assert!(fixture.load(&ids[7]).is_some());
    assert!(fresh.iter().all(|id| fixture.load(id).is_some()));
}

#[test]
fn a_refused_creation_costs_no_place() {
    let mut fixture = Fixture::new();
    fixture.store = fixture.store.capacity(2);
    let id = fixture.create();
    for _ in 0..3 {
        assert!(fixture.save(&id, Action::Create, &[("other", "content")]).is_err());
    }
    fixture.create();
    assert_eq!(fixture.store.len(), 2);
}

#[test]
fn abandoned_sessions_go_without_being_asked_for() {
    let fixture = Fixture::new();
    for _ in 0..2000 {
        fixture.create();
    }
    fixture.pass(66);
    for _ in 0..1000 {
        fixture.create();
    }
    // Each creation sweeps four places in one of 16 shards, which not all are hit equally often.
    assert!(fixture.store.len() < 1200, "{}", fixture.store.len());
}

#[test]
fn neither_use_nor_churn_makes_the_queue_grow() {
    let fixture = Fixture::new();
    let stored = fixture.create();
    for round in 0..1000 {
        let id = fixture.create();
        let to = fixture.id();
        fixture.save(&id, Action::Update, &[]).unwrap();
        fixture.save(&id, Action::Rotate { to: &to }, &[]).unwrap();
        fixture.save(&to, Action::Destroy, &[]).unwrap();
        fixture.pass(round % 2);
        assert_eq!(fixture.save(&stored, Action::Update, &[]).unwrap(), Saved::Stored);
    }
    assert_eq!((fixture.store.len(), fixture.queued()), (1, 1));
}

#[test]
fn a_session_without_a_reachable_end_lives_on() {
    let fixture = Fixture::new();
    let id = fixture.id();
    let lifetimes = Lifetimes { idle: Duration::MAX, absolute: Some(Duration::MAX) };
    let changes = Changes::default();
    let save = Save::new(&id, Action::Create, &changes, lifetimes);
    fixture.store.save(&save).unwrap();
    fixture.pass(u64::from(u32::MAX));
    assert!(fixture.store.load(&Load { id: &id, lifetimes }).unwrap().session().is_some());
    assert!(fixture.load(&id).is_none(), "the limit of this call has passed");
    assert!(fixture.store.is_empty());
}

#[test]
fn two_moves_in_opposite_directions_never_wait_for_each_other() {
    let fixture = Fixture::new();
    let ids: Vec<_> = (0..4).map(|_| fixture.id()).collect();
    fixture.save(&ids[0], Action::Create, &[("a", "1")]).unwrap();
    fixture.save(&ids[1], Action::Create, &[("b", "2")]).unwrap();
    std::thread::scope(|scope| {
        for turn in 0..4 {
            let (fixture, ids) = (&fixture, &ids);
            scope.spawn(move || {
                for round in 0..2000 {
                    let (old, new) = (&ids[(turn + round) % 4], &ids[(turn + round + 1) % 4]);
                    // Onto a live id it is refused, from a dead one nothing moves: both are fine here.
                    let _ = fixture.save(old, Action::Rotate { to: new }, &[]);
                }
            });
        }
    });
    assert_eq!(ids.iter().filter(|id| fixture.load(id).is_some()).count(), 2);
}

#[test]
fn caps_hold_for_every_way_to_write() {
    let mut fixture = Fixture::new();
    fixture.store = fixture.store.max_fields(2).max_bytes(10);
    let id = fixture.id();
    fixture.save(&id, Action::Create, &[("a", "1"), ("b", "2")]).unwrap();
    let load = Load { id: &id, lifetimes: LIFETIMES };
    let to = fixture.id();
    let refused = [
        fixture.save(&id, Action::Update, &[("c", "3")]).unwrap_err(),
        fixture.save(&id, Action::Update, &[("a", "1234567890")]).unwrap_err(),
        fixture.save(&id, Action::Rotate { to: &to }, &[("c", "3")]).unwrap_err(),
        fixture.save(&fixture.id(), Action::Create, &[("a", "1234567890")]).unwrap_err(),
        fixture.store.increment(&load, "c", 1).unwrap_err(),
        fixture.store.set_if_absent(&load, "c", "3").unwrap_err(),
    ];
    for error in refused {
        assert_eq!(error.kind(), ErrorKind::Session, "{error}");
    }
    let fields = fixture.load(&id).unwrap().fields;
    assert!(fields.iter().eq([("a", "1"), ("b", "2")]));
    assert_eq!(fixture.store.increment(&load, "a", 10).unwrap(), 11);
}
