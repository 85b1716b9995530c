//! What is left under an id that is a session's no more, in stores that keep it.

use super::*;
use crate::{Loaded, OldId};

const SECOND: Duration = Duration::from_secs(1);

fn found(context: &Context<'_>, id: &SessionId) -> Loaded {
    context.store().load(&Load { id, lifetimes: IDLE }).expect("the store works")
}

fn ends(context: &Context<'_>, id: &SessionId) -> Saved {
    context.save(id, Action::Destroy, &[])
}

/// Moves a session, and says where to.
fn moved(context: &Context<'_>, id: &SessionId, old_id: OldId<'_>) -> SessionId {
    let (to, none) = (context.target(id), set(&[]));
    let save = Save { old_id, ..Save::new(id, Action::Rotate { to: &to }, &none, IDLE) };
    assert_eq!(context.store().save(&save).expect("the store works"), Saved::Stored);
    to
}

pub(in crate::testing::store_contract) fn a_session_that_was_ended_is_known_for_a_minute(
    context: &Context<'_>,
) {
    if !context.store().keeps_tombstones() {
        return;
    }
    let (id, unknown) = (context.create(&[("a", "1")]), context.id());
    assert_eq!((ends(context, &id), ends(context, &id)), (Saved::Stored, Saved::Gone));
    assert_eq!((found(context, &id), found(context, &unknown)), (Loaded::Ended, Loaded::Unknown));
    assert_eq!(ends(context, &unknown), Saved::Gone);
    context.pass(40 * SECOND);
    // What comes late writes nothing, and makes it no longer.
    assert_eq!(context.update(&id, &[("b", "2")]), Saved::Gone);
    fails(context.store().increment(&Load { id: &id, lifetimes: IDLE }, "n", 1), ErrorKind::Gone);
    assert_eq!(found(context, &id), Loaded::Ended);
    context.pass(21 * SECOND);
    assert_eq!(found(context, &id), Loaded::Unknown);
    context.is_dead(&id);
}

pub(in crate::testing::store_contract) fn who_ends_an_id_ends_the_session_that_has_moved_away_from_it(
    context: &Context<'_>,
) {
    if !context.store().keeps_tombstones() {
        return;
    }
    for moves in 1..4 {
        let first = context.create(&[("a", "1")]);
        let mut ids = vec![first];
        for _ in 0..moves {
            ids.push(moved(context, &ids[ids.len() - 1], OldId::Linked));
        }
        let last = &ids[moves];
        assert!(ids[..moves].iter().all(|id| found(context, id) == Loaded::Ended));
        context.holds(last, &[("a", "1")]);
        context.pass(40 * SECOND);
        assert_eq!(ends(context, &ids[0]), Saved::Stored, "after {moves} moves");
        assert!(ids.iter().all(|id| found(context, id) == Loaded::Ended));
        assert_eq!(ends(context, &ids[0]), Saved::Gone);
        assert_eq!(context.update(last, &[("b", "2")]), Saved::Gone);
    }
    // Not for longer than a minute.
    let id = context.create(&[("a", "1")]);
    let to = moved(context, &id, OldId::Linked);
    context.pass(61 * SECOND);
    assert_eq!((found(context, &id), ends(context, &id)), (Loaded::Unknown, Saved::Gone));
    context.holds(&to, &[("a", "1")]);
}

pub(in crate::testing::store_contract) fn who_ends_an_id_that_was_unlinked_ends_nothing(
    context: &Context<'_>,
) {
    if !context.store().keeps_tombstones() {
        return;
    }
    let first = context.create(&[("a", "1")]);
    let second = moved(context, &first, OldId::Linked);
    let last = moved(context, &second, OldId::Unlinked);
    for id in [&first, &second] {
        assert_eq!((found(context, id), ends(context, id)), (Loaded::Ended, Saved::Gone));
    }
    context.holds(&last, &[("a", "1")]);
}

pub(in crate::testing::store_contract) fn an_id_in_its_grace_period_tells_what_was_left_for_its_holder(
    context: &Context<'_>,
) {
    if !context.store().keeps_tombstones() {
        return;
    }
    let text = "text of any kind: ключ, 'quotes', a.b c";
    let id = context.create(&[("a", "1")]);
    let (to, changes) = (context.target(&id), set(&[("b", "2")]));
    let save = Save {
        old_id: OldId::InGrace(text),
        ..Save::new(&id, Action::Rotate { to: &to }, &changes, IDLE)
    };
    // Twice, as it is sent when the answer was lost.
    for _ in 0..2 {
        assert_eq!(context.store().save(&save).expect("the store works"), Saved::Stored);
        assert_eq!(found(context, &id), Loaded::InGrace(text.to_owned()));
        context.holds(&to, &[("a", "1"), ("b", "2")]);
    }
    // Nothing is saved under it, and nobody is logged in: who holds it is to go on under the new one.
    assert_eq!(context.update(&id, &[("c", "3")]), Saved::Gone);
    fails(context.store().take(&Load { id: &id, lifetimes: IDLE }, &["a"]), ErrorKind::Gone);
    let (other, none) = (context.target(&id), set(&[]));
    let again = Save::new(&id, Action::Rotate { to: &other }, &none, IDLE);
    assert_eq!(context.store().save(&again).expect("the store works"), Saved::Gone);
    if context.store().keeps_logins() {
        let logs_in = Save { login: Some(LogIn::new("ada")), ..again };
        assert_eq!(context.store().save(&logs_in).expect("the store works"), Saved::Gone);
    }
    context.is_dead(&other);
    assert_eq!(found(context, &id), Loaded::InGrace(text.to_owned()));
    // Who ends it ends the session.
    let next = moved(context, &to, OldId::Linked);
    assert_eq!(ends(context, &id), Saved::Stored);
    assert_eq!(found(context, &next), Loaded::Ended);
}

pub(in crate::testing::store_contract) fn a_grace_period_lives_as_long_as_the_session_would(
    context: &Context<'_>,
) {
    if !context.store().keeps_tombstones() {
        return;
    }
    let id = context.create(&[("a", "1")]);
    let to = moved(context, &id, OldId::InGrace("next"));
    let none = set(&[]);
    let extend = |id: &SessionId| {
        let save = Save::new(id, Action::ExtendGrace, &none, IDLE);
        context.store().save(&save).expect("the store works")
    };
    for _ in 0..3 {
        context.pass(HOUR);
        assert_eq!((extend(&id), context.update(&to, &[])), (Saved::Stored, Saved::Stored));
        assert_eq!(found(context, &id), Loaded::InGrace("next".to_owned()));
    }
    assert_eq!((extend(&to), extend(&context.id())), (Saved::Gone, Saved::Gone));
    context.pass(KEPT);
    assert_eq!((found(context, &id), extend(&id)), (Loaded::Unknown, Saved::Gone));
}

pub(in crate::testing::store_contract) fn a_grace_period_that_is_over_is_known_for_an_hour(
    context: &Context<'_>,
) {
    if !context.store().keeps_tombstones() {
        return;
    }
    let none = set(&[]);
    let end = |id: &SessionId, seconds: u32| {
        let action = Action::EndGrace(seconds * SECOND);
        context.store().save(&Save::new(id, action, &none, IDLE)).expect("the store works")
    };
    // For how many minutes.
    let past_grace = |id: &SessionId| match found(context, id) {
        Loaded::PastGrace { left, since } if left == "next" => Some(since.as_secs() / 60),
        _ => None,
    };
    let id = context.create(&[("a", "1")]);
    assert_eq!((end(&id, 10), end(&context.id(), 10)), (Saved::Gone, Saved::Gone));
    let to = moved(context, &id, OldId::InGrace("next"));
    assert_eq!(found(context, &id), Loaded::InGrace("next".to_owned()));
    assert_eq!(end(&id, 20), Saved::Stored);
    assert_eq!(found(context, &id), Loaded::GraceEnding("next".to_owned()));
    context.pass(10 * SECOND);
    // Once more makes it no longer, nor does a request with the id, which does not shorten what comes after it either.
    let short = Lifetimes { idle: MINUTE, absolute: None };
    let extended = context.store().save(&Save::new(&id, Action::ExtendGrace, &none, short));
    assert_eq!((extended.expect("the store works"), end(&id, 20)), (Saved::Stored, Saved::Stored));
    context.pass(11 * SECOND);
    assert_eq!((past_grace(&id), end(&id, 20)), (Some(0), Saved::Gone));
    if context.store().keeps_logins() {
        let next = context.target(&id);
        let logs_in = Save {
            login: Some(LogIn::new("ada")),
            ..Save::new(&id, Action::Rotate { to: &next }, &none, IDLE)
        };
        assert_eq!(context.store().save(&logs_in).expect("the store works"), Saved::Gone);
        context.is_dead(&next);
    }
    context.pass(50 * MINUTE);
    assert_eq!((past_grace(&id), ends(context, &id)), (Some(50), Saved::Gone));
    context.holds(&to, &[("a", "1")]);
    assert_eq!(context.update(&id, &[("b", "2")]), Saved::Gone);
    context.pass(HOUR);
    assert_eq!(found(context, &id), Loaded::Unknown);
}

pub(in crate::testing::store_contract) fn devices_that_were_ended_are_known_for_a_minute(
    context: &Context<'_>,
) {
    if !context.store().keeps_tombstones() || !context.store().keeps_logins() {
        return;
    }
    let none = set(&[]);
    let ids: Vec<_> = (0..3)
        .map(|_| {
            let id = context.id();
            let save = Save::new(&id, Action::Create, &none, IDLE);
            let save = Save { login: Some(LogIn::new("grace")), ..save };
            assert_eq!(context.store().save(&save).expect("the store works"), Saved::Stored);
            id
        })
        .collect();
    assert_eq!(context.store().end_devices("grace", EndDevices::All).expect("it works"), 3);
    assert!(ids.iter().all(|id| found(context, id) == Loaded::Ended));
    context.pass(61 * SECOND);
    assert!(ids.iter().all(|id| found(context, id) == Loaded::Unknown));
}
