//! A save writes the changed fields and no others. A save never brings back what is gone.

use super::*;

pub(in crate::testing::store_contract) fn a_save_writes_the_changes_and_nothing_else(
    context: &Context<'_>,
) {
    let id = context.create(&[("a", "1"), ("b", "2"), ("c", "3")]);
    let mut changes = removed(&["b", "unknown"]);
    changes.fields.extend(set(&[("c", "4"), ("d", "5")]).fields);
    let saved = context.save_with(&id, Action::Update, &changes, IDLE, None);
    assert_eq!(saved.expect("the store works"), Saved::Stored);
    context.holds(&id, &[("a", "1"), ("c", "4"), ("d", "5")]);
    assert_eq!(context.update(&id, &[]), Saved::Stored);
    context.holds(&id, &[("a", "1"), ("c", "4"), ("d", "5")]);
}

pub(in crate::testing::store_contract) fn a_cleared_session_holds_only_what_was_set_after(
    context: &Context<'_>,
) {
    let id = context.create(&[("a", "1"), ("b", "2")]);
    let mut changes = set(&[("b", "3"), ("c", "4")]);
    changes.fields.extend(removed(&["d"]).fields);
    changes.cleared = true;
    let saved = context.save_with(&id, Action::Update, &changes, IDLE, None);
    assert_eq!(saved.expect("the store works"), Saved::Stored);
    context.holds(&id, &[("b", "3"), ("c", "4")]);
    let to = context.target(&id);
    let saved = context.save_with(&id, Action::Rotate { to: &to }, &changes, IDLE, None);
    assert_eq!(saved.expect("the store works"), Saved::Stored);
    context.holds(&to, &[("b", "3"), ("c", "4")]);
    // The plugin's own fields stay; Python's layout has none.
    if context.can().times {
        assert_eq!(context.update(&to, &[("\u{1}own", "5")]), Saved::Stored);
        for _ in 0..2 {
            let saved = context.save_with(&to, Action::Update, &changes, IDLE, None);
            assert_eq!(saved.expect("the store works"), Saved::Stored);
            context.holds(&to, &[("\u{1}own", "5"), ("b", "3"), ("c", "4")]);
        }
        let last = context.target(&to);
        let saved = context.save_with(&to, Action::Rotate { to: &last }, &changes, IDLE, None);
        assert_eq!(saved.expect("the store works"), Saved::Stored);
        context.holds(&last, &[("\u{1}own", "5"), ("b", "3"), ("c", "4")]);
    }
}

fn nothing_can_be_saved(context: &Context<'_>, id: &SessionId) {
    assert_eq!(context.update(id, &[("late", "1")]), Saved::Gone);
    context.is_dead(id);
    let to = context.target(id);
    assert_eq!(context.save(id, Action::Rotate { to: &to }, &[("late", "1")]), Saved::Gone);
    context.is_dead(id);
    context.is_dead(&to);
}

pub(in crate::testing::store_contract) fn a_save_never_brings_back_a_destroyed_session(
    context: &Context<'_>,
) {
    let id = context.create(&[("a", "1")]);
    context.destroy(&id);
    nothing_can_be_saved(context, &id);
}

pub(in crate::testing::store_contract) fn a_save_never_brings_back_an_expired_session(
    context: &Context<'_>,
) {
    let id = context.create(&[("a", "1")]);
    context.pass(KEPT);
    nothing_can_be_saved(context, &id);
}

pub(in crate::testing::store_contract) fn a_save_never_brings_back_a_moved_session(
    context: &Context<'_>,
) {
    let id = context.create(&[("a", "1")]);
    let to = context.target(&id);
    assert_eq!(context.save(&id, Action::Rotate { to: &to }, &[]), Saved::Stored);
    nothing_can_be_saved(context, &id);
    context.holds(&to, &[("a", "1")]);
}

pub(in crate::testing::store_contract) fn a_save_never_brings_back_an_unknown_session(
    context: &Context<'_>,
) {
    nothing_can_be_saved(context, &context.id());
}

pub(in crate::testing::store_contract) fn destroying_again_is_fine(context: &Context<'_>) {
    let (id, other) = (context.create(&[("a", "1")]), context.create(&[("b", "2")]));
    context.destroy(&id);
    context.destroy(&id);
    context.destroy(&context.id());
    context.is_dead(&id);
    context.holds(&other, &[("b", "2")]);
}
