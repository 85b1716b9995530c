//! Each is one atomic step.

use super::*;

pub(in crate::testing::store_contract) fn saves_of_different_fields_at_the_same_time_both_survive(
    context: &Context<'_>,
) {
    for round in 0..100 {
        let round = round.to_string();
        let id = context.create(&[("start", &round)]);
        let keys = ["left", "right"];
        let saved = at_once(2, |turn| context.update(&id, &[(keys[turn], &round)]));
        assert_eq!(saved, [Saved::Stored, Saved::Stored]);
        context.holds(&id, &[("start", &round), ("left", &round), ("right", &round)]);
    }
}

pub(in crate::testing::store_contract) fn a_session_destroyed_during_saves_stays_destroyed(
    context: &Context<'_>,
) {
    for _ in 0..100 {
        let id = context.create(&[("a", "1")]);
        at_once(2, |turn| match turn {
            0 => context.destroy(&id),
            _ => {
                context.update(&id, &[("b", "2")]);
            }
        });
        context.is_dead(&id);
    }
}

pub(in crate::testing::store_contract) fn a_save_during_a_move_is_kept_or_refused(
    context: &Context<'_>,
) {
    for _ in 0..100 {
        let id = context.create(&[("a", "1")]);
        let to = context.target(&id);
        let saved = at_once(2, |turn| match turn {
            0 => context.save(&id, Action::Rotate { to: &to }, &[]),
            _ => context.update(&id, &[("b", "2")]),
        });
        assert_eq!(saved[0], Saved::Stored);
        context.is_dead(&id);
        match saved[1] {
            Saved::Stored => context.holds(&to, &[("a", "1"), ("b", "2")]),
            Saved::Gone => context.holds(&to, &[("a", "1")]),
        }
    }
}
