//! How many round trips and commands things take.

use super::*;

#[test]
fn a_load_is_one_round_trip() {
    let mut fixture = Fixture::new();
    let id = create(&fixture.store, &[("a", "1")]);
    load(&fixture.store, &id).unwrap();
    let (trips, used) = fixture.count(|store| {
        load(store, &id).unwrap();
    });
    assert_eq!(trips, 1);
    // It writes nothing.
    assert_eq!(used, commands(&[("hgetall", 1), ("echo", 1)]));
}

#[test]
fn a_save_is_one_round_trip() {
    let mut fixture = Fixture::new();
    let id = create(&fixture.store, &[("a", "1")]);
    let (trips, used) = fixture.count(|store| {
        save(store, &id, Action::Update, &[("a", "2"), ("b", "3")]).unwrap();
    });
    assert_eq!(trips, 1);
    let transaction = [("multi", 1), ("hset", 1), ("hmget", 1), ("pexpire", 1), ("exec", 1)];
    let expected = [&transaction[..], &[("echo", 1)]].concat();
    assert_eq!(used, commands(&expected));
}

#[test]
fn a_creation_an_end_and_a_move_are_one_round_trip_each() {
    for layout in [Layout::Default, Layout::BottleSession] {
        let mut fixture = Fixture::with(|store| store.layout(layout));
        let format = fixture.store.id_format();
        let (id, to) = (fresh_id(format), fresh_id(format));
        create(&fixture.store, &[("a", "1")]);
        for (id, action) in [
            (&id, Action::Create),
            (&id, Action::Update),
            (&id, Action::Rotate { to: &to }),
            (&to, Action::Destroy),
        ] {
            let (trips, used) = fixture.count(|store| {
                let pairs = if action == Action::Destroy { &[][..] } else { &[("b", "2")] };
                assert_eq!(save(store, id, action, pairs).unwrap(), Saved::Stored);
            });
            assert_eq!(trips, 1, "{layout:?} {action:?}: {used:?}");
            if action == Action::Create {
                assert_eq!(used, commands(&[("restore", 1), ("echo", 1)]), "{layout:?}");
            }
        }
    }
}

#[test]
fn a_batch_is_one_round_trip() {
    let mut fixture = Fixture::new();
    let ids: Vec<_> = (0..32).map(|_| create(&fixture.store, &[("a", "1")])).collect();
    load(&fixture.store, &ids[0]).unwrap();
    let loads: Vec<_> = ids.iter().map(|id| Load { id, lifetimes: IDLE }).collect();
    let (trips, used) = fixture.count(|store| {
        assert!(
            store.load_many(&loads).into_iter().all(|record| record.unwrap().session().is_some())
        );
    });
    assert_eq!((trips, used["hgetall"], used["echo"]), (1, 32, 1));
    let changes = set(&[("a", "2")]);
    let update = |id| Save::new(id, Action::Update, &changes, IDLE);
    let saves: Vec<_> = ids.iter().map(update).collect();
    let (trips, used) = fixture.count(|store| {
        let mut saved = store.save_many(&saves).into_iter();
        assert!(saved.all(|saved| saved.unwrap() == Saved::Stored));
    });
    assert_eq!((trips, used["exec"], used["echo"]), (1, 32, 1));
    let (trips, used) = fixture.count(|store| {
        store.load_many(&[]);
        store.save_many(&[]);
    });
    assert_eq!((trips, used), (0, BTreeMap::new()));
}

#[test]
fn an_operation_is_one_round_trip() {
    let mut fixture = Fixture::new();
    let id = create(&fixture.store, &[("a", "1")]);
    let load = Load { id: &id, lifetimes: IDLE };
    let act = |store: &RedisStore| {
        store.increment(&load, "n", 1).unwrap();
        store.take(&load, &["a", "b"]).unwrap();
        store.set_if_absent(&load, "c", "1").unwrap();
    };
    let (trips, used) = fixture.count(act);
    assert_eq!((trips, used["eval"]), (3, 3));
}

#[test]
fn a_batch_keeps_its_order_also_where_a_step_takes_two_round_trips() {
    let mut fixture = Fixture::new();
    let ids: Vec<_> = (0..3).map(|_| create(&fixture.store, &[("a", "1")])).collect();
    let to = fresh_id(IdFormat::Base64Url);
    let changes = set(&[("b", "2")]);
    let none = Changes::default();
    let save = |id, action| {
        Save::new(id, action, if action == Action::Destroy { &none } else { &changes }, IDLE)
    };
    let batch = [
        save(&ids[0], Action::Update),
        save(&ids[0], Action::Rotate { to: &to }),
        save(&ids[0], Action::Update),
        save(&ids[1], Action::Destroy),
        save(&ids[1], Action::Update),
        save(&ids[2], Action::Update),
    ];
    let saved: Vec<_> = fixture.store.save_many(&batch).into_iter().map(Result::unwrap).collect();
    use Saved::{Gone, Stored};
    assert_eq!(saved, [Stored, Stored, Gone, Stored, Gone, Stored]);
    let loads = [&to, &ids[1], &ids[2]].map(|id| Load { id, lifetimes: IDLE });
    let loaded = fixture.store.load_many(&loads);
    assert!(
        matches!(&loaded[..], [Ok(Loaded::Session(_)), Ok(Loaded::Ended), Ok(Loaded::Session(_))]),
        "{loaded:?}"
    );
    // Nothing is left of what came too late.
    assert_eq!(but_tombstones(&mut fixture.redis).len(), 2);
}

#[test]
fn an_end_by_an_old_id_is_one_round_trip_more_for_each_move() {
    let mut fixture = Fixture::new();
    let first = create(&fixture.store, &[("a", "1")]);
    let mut id = first.clone();
    for moves in 0..3 {
        let to = fresh_id(IdFormat::Base64Url);
        assert_eq!(
            save(&fixture.store, &id, Action::Rotate { to: &to }, &[]).unwrap(),
            Saved::Stored
        );
        if moves == 2 {
            let (trips, used) = fixture.count(|store| {
                assert_eq!(save(store, &first, Action::Destroy, &[]).unwrap(), Saved::Stored);
            });
            assert_eq!((trips, used["eval"]), (4, 4));
        }
        id = to;
    }
    // What is left there is not asked for by any further command.
    let (trips, used) = fixture.count(|store| assert_eq!(fields(store, &first), None));
    assert_eq!((trips, used), (1, commands(&[("hgetall", 1), ("echo", 1)])));
    assert!(but_tombstones(&mut fixture.redis).is_empty());
}

#[test]
fn of_many_sessions_that_are_ended_a_thousand_leave_a_tombstone() {
    let mut fixture = Fixture::new();
    let none = Changes::default();
    let ids: Vec<_> = (0..1100).map(|_| fresh_id(IdFormat::Base64Url)).collect();
    let login = Some(LogIn::new("ada"));
    let logins: Vec<_> =
        ids.iter().map(|id| Save { login, ..Save::new(id, Action::Create, &none, IDLE) }).collect();
    // Each login reads who is in the index.
    for logins in logins.chunks(20) {
        let mut saved = fixture.store.save_many(logins).into_iter();
        assert!(saved.all(|saved| saved.unwrap() == Saved::Stored));
    }
    assert_eq!(fixture.store.end_devices("ada", EndDevices::All).unwrap(), 1100);
    let loads: Vec<_> = ids.iter().map(|id| Load { id, lifetimes: IDLE }).collect();
    let loaded = fixture.store.load_many(&loads);
    let ended = loaded.into_iter().map(Result::unwrap).filter(|found| *found == Loaded::Ended);
    assert_eq!(ended.count(), 1000);
    // The index, whose generation stays.
    assert_eq!(but_tombstones(&mut fixture.redis).len(), 1);
}
