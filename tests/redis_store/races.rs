//! Many at once, and things that are done twice.

use super::*;

#[test]
fn a_repeated_creation_is_stored_once() {
    for layout in [Layout::Default, Layout::BottleSession] {
        let fixture = Fixture::with(|store| store.layout(layout));
        let id = create(&fixture.store, &[("a", "1"), ("b", "2")]);
        let again = save(&fixture.store, &id, Action::Create, &[("a", "1"), ("b", "2")]).unwrap();
        assert_eq!(again, Saved::Stored);
        assert!(save(&fixture.store, &id, Action::Create, &[("a", "1")]).is_err());
        assert_eq!(fields(&fixture.store, &id), Some(owned(&[("a", "1"), ("b", "2")])));
    }
}

#[test]
fn a_thousand_pairs_of_savers_lose_nothing() {
    let fixture = Fixture::new();
    let store = &fixture.store;
    for round in 0..1000 {
        let round = round.to_string();
        let id = create(store, &[("start", &round)]);
        let save = |key| save(store, &id, Action::Update, &[(key, &round)]).unwrap();
        let saved = together(|| save("left"), || save("right"));
        assert_eq!(saved, (Saved::Stored, Saved::Stored));
        let expected = owned(&[("left", &round), ("right", &round), ("start", &round)]);
        assert_eq!(fields(store, &id), Some(expected));
    }
}

#[test]
fn a_thousand_destroyed_sessions_stay_destroyed() {
    let fixture = Fixture::new();
    let store = &fixture.store;
    let mut gone = 0;
    for _ in 0..1000 {
        let id = create(store, &[("a", "1")]);
        let (_, saved) = together(
            || save(store, &id, Action::Destroy, &[]).unwrap(),
            || save(store, &id, Action::Update, &[("b", "2")]).unwrap(),
        );
        gone += u32::from(saved == Saved::Gone);
        assert_eq!(fields(store, &id), None);
    }
    assert!(gone > 0 && gone < 1000, "both orders were meant to happen: {gone}");
}
