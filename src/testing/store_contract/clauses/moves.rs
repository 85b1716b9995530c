//! A move is one atomic step; a repetition answers Stored again.

use super::*;

pub(in crate::testing::store_contract) fn a_move_takes_everything_along(context: &Context<'_>) {
    let id = context.create(&[("a", "1"), ("b", "2"), ("c", "3")]);
    let to = context.target(&id);
    let mut changes = set(&[("b", "4"), ("d", "5")]);
    changes.fields.extend(removed(&["c"]).fields);
    let saved = context.save_with(&id, Action::Rotate { to: &to }, &changes, IDLE, None);
    assert_eq!(saved.expect("the store works"), Saved::Stored);
    context.is_dead(&id);
    context.holds(&to, &[("a", "1"), ("b", "4"), ("d", "5")]);
}

pub(in crate::testing::store_contract) fn a_move_may_be_repeated(context: &Context<'_>) {
    let id = context.create(&[("a", "1")]);
    let to = context.target(&id);
    for _ in 0..3 {
        assert_eq!(context.save(&id, Action::Rotate { to: &to }, &[("b", "2")]), Saved::Stored);
        context.is_dead(&id);
        context.holds(&to, &[("a", "1"), ("b", "2")]);
    }
    context.destroy(&to);
    assert_eq!(context.save(&id, Action::Rotate { to: &to }, &[]), Saved::Gone);
    context.is_dead(&to);
}

pub(in crate::testing::store_contract) fn a_move_never_overwrites(context: &Context<'_>) {
    let id = context.create(&[("a", "1")]);
    let other = context.target(&id);
    assert_eq!(context.save(&other, Action::Create, &[("b", "2")]), Saved::Stored);
    let onto = Action::Rotate { to: &other };
    let result = context.save_with(&id, onto, &set(&[("c", "3")]), IDLE, None);
    assert!(result.is_err(), "{result:?}");
    context.holds(&id, &[("a", "1")]);
    context.holds(&other, &[("b", "2")]);
}

pub(in crate::testing::store_contract) fn a_login_goes_with_the_session_until_the_next_one(
    context: &Context<'_>,
) {
    if !context.store().keeps_logins() {
        return;
    }
    let none = set(&[]);
    let logs_in = |id: &SessionId, action: Action<'_>, user| {
        let save = Save { login: Some(LogIn::new(user)), ..Save::new(id, action, &none, IDLE) };
        assert_eq!(context.store().save(&save).expect("the store works"), Saved::Stored);
    };
    let login = |id: &SessionId| context.load(id).expect("it is live").login;
    let user = |id: &SessionId| login(id).map(|login| login.user);
    let since = |id: &SessionId| login(id).expect("somebody is logged in").at;
    let anonymous = context.create(&[("a", "1")]);
    assert_eq!(login(&anonymous), None);
    let id = context.target(&anonymous);
    logs_in(&anonymous, Action::Rotate { to: &id }, "číslo 7.b");
    assert_eq!(user(&id).as_deref(), Some("číslo 7.b"));
    context.is_dead(&anonymous);
    context.holds(&id, &[("a", "1")]);
    let first = since(&id);
    assert_eq!(context.update(&id, &[("b", "2")]), Saved::Stored);
    let moved = context.target(&id);
    assert_eq!(context.save(&id, Action::Rotate { to: &moved }, &[]), Saved::Stored);
    assert_eq!((user(&moved).as_deref(), since(&moved)), (Some("číslo 7.b"), first));
    context.pass(10 * MINUTE);
    let (again, first) = (context.target(&moved), since(&moved));
    logs_in(&moved, Action::Rotate { to: &again }, "číslo 7.b");
    let later = since(&again).duration_since(first).expect("the later login counts");
    assert!(later >= 10 * MINUTE && later < 11 * MINUTE, "{later:?}");
    let new = context.id();
    logs_in(&new, Action::Create, "ada");
    assert_eq!(user(&new).as_deref(), Some("ada"));
}

pub(in crate::testing::store_contract) fn who_logs_in_gets_a_session_although_the_old_one_is_gone(
    context: &Context<'_>,
) {
    if !context.store().keeps_logins() {
        return;
    }
    let changes = set(&[("b", "2")]);
    for destroyed in [true, false] {
        let id = context.create(&[("a", "1")]);
        match destroyed {
            true => context.destroy(&id),
            false => context.pass(KEPT),
        }
        let to = context.target(&id);
        let save = Save::new(&id, Action::Rotate { to: &to }, &changes, IDLE);
        let save = Save { login: Some(LogIn::new("ada")), ..save };
        // Twice, as it is sent when the answer was lost.
        for _ in 0..2 {
            assert_eq!(context.store().save(&save).expect("the store works"), Saved::Stored);
            let record = context.load(&to).expect("it is live");
            assert_eq!(record.login.as_ref().map(|login| login.user.as_str()), Some("ada"));
            context.holds(&to, &[("b", "2")]);
            context.is_dead(&id);
        }
        context.pass(KEPT);
        context.is_dead(&to);
    }
    if !context.can().times {
        return;
    }
    // One that has reached its absolute limit, as the request knows: the new one has all its time before it.
    let id = context.create(&[("a", "1")]);
    let created = context.load(&id).expect("it is live").created;
    context.pass(30 * MINUTE);
    let limits = Lifetimes { idle: HOUR, absolute: Some(20 * MINUTE) };
    let to = context.target(&id);
    let save = Save::new(&id, Action::Rotate { to: &to }, &changes, limits);
    let save = Save { login: Some(LogIn::new("ada")), created, ..save };
    assert_eq!(context.store().save(&save).expect("the store works"), Saved::Stored);
    context.pass(19 * MINUTE);
    assert!(context.load_with(&to, limits).is_some_and(|record| record.login.is_some()));
    context.pass(MINUTE);
    assert_eq!(context.load_with(&to, limits), None);
}

pub(in crate::testing::store_contract) fn of_two_moves_one_wins(context: &Context<'_>) {
    for _ in 0..20 {
        let id = context.create(&[("a", "1")]);
        let targets: Vec<_> = (0..4).map(|_| context.target(&id)).collect();
        let saved = at_once(targets.len(), |turn| {
            context.save(&id, Action::Rotate { to: &targets[turn] }, &[])
        });
        assert_eq!(saved.iter().filter(|saved| **saved == Saved::Stored).count(), 1);
        for (target, saved) in targets.iter().zip(saved) {
            assert_eq!(context.load(target).is_some(), saved == Saved::Stored);
        }
        context.is_dead(&id);
    }
}
