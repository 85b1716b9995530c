//! The methods on slices answer in the order of the slice; one session's error concerns no other.

use super::*;

pub(in crate::testing::store_contract) fn slices_are_answered_in_order(context: &Context<'_>) {
    let store = context.store();
    assert!(store.load_many(&[]).is_empty());
    assert!(store.save_many(&[]).is_empty());
    let ids: Vec<_> = (0..50).map(|_| context.id()).collect();
    let changes: Vec<_> = (0..50).map(|turn| set(&[("turn", &turn.to_string())])).collect();
    let save = |turn: usize, action| {
        let (id, changes) = (&ids[turn], &changes[turn]);
        Save::new(id, action, changes, IDLE)
    };
    let even: Vec<_> = (0..50).step_by(2).map(|turn| save(turn, Action::Create)).collect();
    for saved in store.save_many(&even) {
        assert_eq!(saved.expect("the store works"), Saved::Stored);
    }
    let all: Vec<_> = ids.iter().map(|id| Load { id, lifetimes: IDLE }).collect();
    for (turn, loaded) in store.load_many(&all).into_iter().enumerate() {
        let fields = loaded.expect("the store works").session().as_ref().map(sorted);
        let expected = (turn % 2 == 0).then(|| owned(&[("turn", &turn.to_string())]));
        assert_eq!(fields, expected, "turn {turn}");
    }
    let updates: Vec<_> = (0..50).map(|turn| save(turn, Action::Update)).collect();
    for (turn, saved) in store.save_many(&updates).into_iter().enumerate() {
        let expected = if turn % 2 == 0 { Saved::Stored } else { Saved::Gone };
        assert_eq!(saved.expect("the store works"), expected, "turn {turn}");
    }
    // One session more than once: in the order of the slice.
    let (none, to) = (Changes::default(), context.target(&ids[2]));
    let destroy = Save { changes: &none, ..save(0, Action::Destroy) };
    let rotate = Save { changes: &none, ..save(2, Action::Rotate { to: &to }) };
    let batch = [destroy, save(0, Action::Update), rotate, save(2, Action::Update)];
    let saved: Vec<_> = store.save_many(&batch).into_iter().map(Result::unwrap).collect();
    assert_eq!(saved, [Saved::Stored, Saved::Gone, Saved::Stored, Saved::Gone]);
    context.holds(&to, &[("turn", "2")]);
}

pub(in crate::testing::store_contract) fn one_error_in_a_slice_concerns_no_other(
    context: &Context<'_>,
) {
    let (taken, first, last) = (context.create(&[("a", "1")]), context.id(), context.id());
    let changes = set(&[("b", "2")]);
    let save = |id| Save::new(id, Action::Create, &changes, IDLE);
    let saved = context.store().save_many(&[save(&first), save(&taken), save(&last)]);
    assert!(matches!(saved[..], [Ok(Saved::Stored), Err(_), Ok(Saved::Stored)]), "{saved:?}");
    context.holds(&taken, &[("a", "1")]);
    context.holds(&first, &[("b", "2")]);
    context.holds(&last, &[("b", "2")]);
}
