//! Tombstones and grace periods.

use super::*;
use crate::session::store::{LogIn, OldId};

impl Fixture {
    fn found(&self, id: &SessionId) -> Loaded {
        self.store.load(&Load { id, lifetimes: LIFETIMES }).unwrap()
    }

    fn moved(&self, id: &SessionId, old_id: OldId<'_>) -> SessionId {
        let (to, none) = (self.id(), Changes::default());
        let save = Save { old_id, ..Save::new(id, Action::Rotate { to: &to }, &none, LIFETIMES) };
        assert_eq!(self.store.save(&save).unwrap(), Saved::Stored);
        to
    }

    fn ends(&self, id: &SessionId) -> Saved {
        self.save(id, Action::Destroy, &[]).unwrap()
    }

    fn goes_back(&self, seconds: u64) {
        self.seconds.fetch_sub(seconds, Ordering::SeqCst);
    }
}

#[test]
fn a_sweep_removes_what_sessions_have_left() {
    let fixture = Fixture::new();
    let ids: Vec<_> = (0..5).map(|_| fixture.create(&[("a", "1")])).collect();
    ids[..2].iter().for_each(|id| assert_eq!(fixture.ends(id), Saved::Stored));
    let (next, last) =
        (fixture.moved(&ids[2], OldId::Linked), fixture.moved(&ids[3], OldId::InGrace("next")));
    let end = Action::EndGrace(Duration::from_secs(10));
    assert_eq!(fixture.save(&ids[3], end, &[]).unwrap(), Saved::Stored);
    assert_eq!(fixture.count(), 7);
    fixture.pass(180);
    fixture.sweep();
    assert_eq!(fixture.count(), 4, "three sessions, and an id that is known for an hour");
    assert!(matches!(fixture.found(&ids[3]), Loaded::PastGrace { .. }));
    for id in [&next, &last, &ids[4]] {
        assert_eq!(fixture.save(id, Action::Update, &[]).unwrap(), Saved::Stored);
    }
    fixture.pass(3600);
    fixture.sweep();
    assert_eq!(fixture.count(), 0);
}

#[test]
fn what_was_seen_over_stays_over_when_the_clock_goes_back() {
    for another_process_writes in [false, true] {
        let fixture = Fixture::new();
        let [ended, left, graced, past_grace] = [(); 4].map(|()| fixture.create(&[("a", "1")]));
        assert_eq!(fixture.ends(&ended), Saved::Stored);
        let live = fixture.moved(&left, OldId::Linked);
        fixture.moved(&graced, OldId::InGrace("next"));
        let other = fixture.moved(&past_grace, OldId::InGrace("next"));
        let end = Action::EndGrace(Duration::from_secs(10));
        assert_eq!(fixture.save(&past_grace, end, &[]).unwrap(), Saved::Stored);
        let writer = Connection::open(fixture.path()).unwrap();
        if another_process_writes {
            writer.execute_batch("BEGIN IMMEDIATE").unwrap();
        }
        let all_is_over = || {
            for id in [&ended, &left, &graced] {
                assert_eq!(fixture.found(id), Loaded::Unknown);
            }
            assert!(matches!(fixture.found(&past_grace), Loaded::PastGrace { .. }));
        };
        fixture.pass(700);
        all_is_over();
        fixture.goes_back(695);
        all_is_over();
        if another_process_writes {
            writer.execute_batch("ROLLBACK").unwrap();
        }
        // Nor is anything ended by way of it.
        for id in [&left, &past_grace] {
            assert_eq!(fixture.ends(id), Saved::Gone);
        }
        all_is_over();
        [live, other].iter().for_each(|id| fixture.holds(id, &[("a", "1")]));
    }
}

#[test]
fn what_a_save_has_seen_over_stays_over_when_the_clock_goes_back() {
    let fixture = Fixture::new();
    let id = fixture.create(&[("a", "1")]);
    let to = fixture.moved(&id, OldId::InGrace("next"));
    let end =
        |seconds| fixture.save(&id, Action::EndGrace(Duration::from_secs(seconds)), &[]).unwrap();
    assert_eq!(end(10), Saved::Stored);
    fixture.pass(10);
    assert_eq!(fixture.save(&id, Action::ExtendGrace, &[]).unwrap(), Saved::Gone);
    fixture.goes_back(5);
    assert_eq!((end(10), fixture.ends(&id)), (Saved::Gone, Saved::Gone));
    assert!(matches!(fixture.found(&id), Loaded::PastGrace { .. }));
    fixture.holds(&to, &[("a", "1")]);
}

#[test]
fn a_users_sessions_that_have_expired_are_ended_without_a_trace() {
    let fixture = Fixture::new();
    let none = Changes::default();
    let logs_in = || {
        let id = fixture.id();
        let save = Save::new(&id, Action::Create, &none, LIFETIMES);
        let save = Save { login: Some(LogIn::new("ada")), ..save };
        assert_eq!(fixture.store.save(&save).unwrap(), Saved::Stored);
        id
    };
    let dead = logs_in();
    fixture.pass(660);
    let live = logs_in();
    assert_eq!(fixture.store.end_devices("ada", EndDevices::All).unwrap(), 1);
    assert_eq!(fixture.store.end_devices("ada", EndDevices::All).unwrap(), 0);
    assert_eq!((fixture.found(&dead), fixture.found(&live)), (Loaded::Unknown, Loaded::Ended));
    fixture.goes_back(60);
    assert_eq!(fixture.load(&dead).unwrap(), None, "it was to end as well");
    assert!(fixture.store.devices("ada", None).unwrap().is_empty());
}

#[test]
fn nothing_of_a_session_is_left_in_what_it_leaves() {
    let fixture = Fixture::new();
    let (id, gone) = (fixture.create(&[("card", "4111")]), fixture.create(&[("card", "4111")]));
    fixture.moved(&id, OldId::InGrace("next"));
    assert_eq!(fixture.ends(&gone), Saved::Stored);
    let sql = "SELECT count(*) FROM sessions WHERE fields IS NULL AND user IS NULL AND logged_in IS NULL \
               AND prefix IS NULL AND handle IS NULL AND agent IS NULL AND address IS NULL";
    let emptied: i64 =
        fixture.store.database.read(|file| file.query_row(sql, [], |row| row.get(0))).unwrap();
    assert_eq!((emptied, fixture.count()), (2, 3));
}

#[test]
fn rows_that_lead_in_a_circle_hold_nobody_up() {
    let fixture = Fixture::new();
    let id = fixture.create(&[("a", "1")]);
    fixture.moved(&id, OldId::Linked);
    let leads_to = |next: &[u8]| {
        let sql = "UPDATE sessions SET next = ?1 WHERE next IS NOT NULL";
        let changed = fixture.store.database.with_writer(|file| file.execute(sql, [next]));
        assert_eq!(changed.unwrap(), 1);
    };
    leads_to(&[&id.digest()[..], &id.owner_mark()[..]].concat());
    assert_eq!(fixture.ends(&id), Saved::Gone);
    leads_to(b"nowhere");
    let text = "the row of a session is damaged";
    fails(fixture.load(&id), ErrorKind::Config, text);
    assert_eq!(fixture.ends(&id), Saved::Stored);
    assert_eq!(fixture.found(&id), Loaded::Ended);
}
