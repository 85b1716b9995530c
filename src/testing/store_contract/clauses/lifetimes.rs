//! A save starts the idle limit anew, a load does not. Nothing goes past the absolute limit.

use super::*;

pub(in crate::testing::store_contract) fn a_session_ends_after_its_idle_limit(
    context: &Context<'_>,
) {
    let short = Lifetimes { idle: 10 * MINUTE, absolute: None };
    let brief = context.id();
    let saved = context.save_with(&brief, Action::Create, &set(&[("a", "1")]), short, None);
    assert_eq!(saved.expect("the store works"), Saved::Stored);
    let id = context.create(&[("name", "Chris")]);
    // A tenth longer, so that nobody is logged out early whose reads do not start it anew.
    if context.can().times {
        context.pass(10 * MINUTE);
        assert!(context.load_with(&brief, short).is_some());
        context.pass(MINUTE);
        assert_eq!(context.load_with(&brief, short), None);
        context.pass(54 * MINUTE);
        context.holds(&id, &[("name", "Chris")]);
        context.pass(MINUTE);
    } else {
        context.pass(10 * MINUTE);
        assert_eq!(context.load_with(&brief, short), None);
        context.holds(&id, &[("name", "Chris")]);
        context.pass(HOUR);
    }
    context.is_dead(&id);
}

pub(in crate::testing::store_contract) fn a_load_does_not_start_the_idle_limit_anew(
    context: &Context<'_>,
) {
    let id = context.create(&[("turn", "0")]);
    for _ in 0..3 {
        context.pass(20 * MINUTE);
        context.holds(&id, &[("turn", "0")]);
    }
    context.pass(6 * MINUTE);
    match context.can().times {
        true => context.is_dead(&id),
        // Nobody would know when to save it.
        false => context.holds(&id, &[("turn", "0")]),
    }
}

pub(in crate::testing::store_contract) fn a_save_starts_the_idle_limit_anew(context: &Context<'_>) {
    let id = context.create(&[("turn", "0")]);
    for _ in 0..3 {
        context.pass(50 * MINUTE);
        assert_eq!(context.update(&id, &[("turn", "1")]), Saved::Stored);
        context.pass(50 * MINUTE);
        assert_eq!(context.update(&id, &[]), Saved::Stored);
    }
    let to = context.target(&id);
    context.pass(50 * MINUTE);
    assert_eq!(context.save(&id, Action::Rotate { to: &to }, &[]), Saved::Stored);
    context.pass(50 * MINUTE);
    context.holds(&to, &[("turn", "1")]);
    context.pass(KEPT);
    context.is_dead(&to);
}

pub(in crate::testing::store_contract) fn a_failed_load_brings_nothing_back(context: &Context<'_>) {
    let id = context.create(&[("name", "Chris")]);
    context.pass(KEPT);
    let forever = Lifetimes { idle: 1000 * HOUR, absolute: None };
    assert_eq!(context.load_with(&id, forever), None);
    assert_eq!(context.load_with(&id, forever), None);
}

pub(in crate::testing::store_contract) fn nothing_goes_past_the_absolute_limit(
    context: &Context<'_>,
) {
    if !context.can().times {
        fails(context.store().check(&LIMITED), ErrorKind::Config);
        return;
    }
    context.store().check(&LIMITED).expect("an absolute limit is declared to work");
    let changes = set(&[("number", "1")]);
    let id = context.id();
    let to = context.target(&id);
    let save = |id: &SessionId, action, remember| {
        context.save_with(id, action, &changes, LIMITED, remember).expect("the store works")
    };
    assert_eq!(save(&id, Action::Create, Some(100 * HOUR)), Saved::Stored);
    let load = |id| Load { id, lifetimes: LIMITED };
    context.pass(50 * MINUTE);
    assert!(context.load_with(&id, LIMITED).is_some());
    context.pass(50 * MINUTE);
    assert_eq!(save(&id, Action::Rotate { to: &to }, None), Saved::Stored);
    let id = to.clone();
    context.pass(50 * MINUTE);
    assert_eq!(save(&id, Action::Update, Some(200 * HOUR)), Saved::Stored);
    assert_eq!(context.store().increment(&load(&id), "number", 1).expect("it is live"), 2);
    assert!(context.store().set_if_absent(&load(&id), "once", "1").expect("it is live"));
    assert_eq!(context.store().take(&load(&id), &["none"]).expect("it is live"), [None]);
    context.pass(29 * MINUTE);
    assert!(context.load_with(&id, LIMITED).is_some());
    context.pass(MINUTE);
    assert_eq!(save(&id, Action::Update, Some(300 * HOUR)), Saved::Gone);
    assert_eq!(context.load_with(&id, LIMITED), None);
    assert_eq!(context.load(&id), None);
}

pub(in crate::testing::store_contract) fn a_shortened_absolute_limit_holds_at_once(
    context: &Context<'_>,
) {
    if !context.can().times {
        fails(context.store().check(&LIMITED), ErrorKind::Config);
        return;
    }
    type Way<'a> = &'a dyn Fn(&SessionId, Lifetimes) -> bool;
    let ways: [Way<'_>; 4] = [
        &|id, lifetimes| context.load_with(id, lifetimes).is_some(),
        &|id, lifetimes| {
            let saved = context.save_with(id, Action::Update, &set(&[]), lifetimes, None);
            saved.expect("the store works") == Saved::Stored
        },
        &|id, lifetimes| {
            let action = Action::Rotate { to: &context.target(id) };
            let saved = context.save_with(id, action, &set(&[]), lifetimes, None);
            saved.expect("the store works") == Saved::Stored
        },
        &|id, lifetimes| context.store().take(&Load { id, lifetimes }, &["a"]).is_ok(),
    ];
    for lives in ways {
        let id = context.create(&[("a", "1")]);
        context.pass(30 * MINUTE);
        let shortened = Lifetimes { idle: HOUR, absolute: Some(20 * MINUTE) };
        assert!(!lives(&id, shortened));
        assert_eq!(context.load_with(&id, shortened), None);
    }
}

pub(in crate::testing::store_contract) fn a_remembered_session_has_its_own_idle_limit(
    context: &Context<'_>,
) {
    let day = 24 * HOUR;
    let id = context.id();
    let save = |id: &SessionId, action, remember| {
        let saved = context.save_with(id, action, &set(&[("a", "1")]), IDLE, remember);
        saved.expect("the store works")
    };
    assert_eq!(save(&id, Action::Create, Some(day)), Saved::Stored);
    context.pass(23 * HOUR);
    let record = context.load(&id).expect("it is remembered");
    if !context.can().remember {
        assert_eq!(record.remember, None);
        context.pass(KEPT);
        context.is_dead(&id);
        return;
    }
    assert_eq!(record.remember, Some(day));
    assert_eq!(save(&id, Action::Update, None), Saved::Stored);
    context.pass(23 * HOUR);
    let to = context.target(&id);
    assert_eq!(save(&id, Action::Rotate { to: &to }, None), Saved::Stored);
    context.pass(23 * HOUR);
    let load = Load { id: &to, lifetimes: IDLE };
    assert!(context.store().set_if_absent(&load, "b", "2").expect("it is live"));
    context.pass(3 * HOUR);
    assert_eq!(context.load(&to).and_then(|record| record.remember), Some(day));
    assert_eq!(save(&to, Action::Update, Some(10 * MINUTE)), Saved::Stored);
    assert_eq!(context.load(&to).and_then(|record| record.remember), Some(10 * MINUTE));
    context.pass(11 * MINUTE);
    context.is_dead(&to);
}

pub(in crate::testing::store_contract) fn a_session_can_lose_its_own_idle_limit(
    context: &Context<'_>,
) {
    let (day, changes) = (24 * HOUR, set(&[("a", "1")]));
    let back = |id: &SessionId, action: Action<'_>| {
        let save = Save::new(id, action, &changes, IDLE);
        let saved = context.store().save(&Save { remember: Remember::To(None), ..save });
        assert_eq!(saved.expect("the store works"), Saved::Stored);
    };
    for moves in [false, true] {
        let id = context.id();
        let saved = context.save_with(&id, Action::Create, &changes, IDLE, Some(day));
        assert_eq!(saved.expect("the store works"), Saved::Stored);
        let to = context.target(&id);
        match moves {
            true => back(&id, Action::Rotate { to: &to }),
            false => back(&id, Action::Update),
        }
        let id = if moves { to } else { id };
        assert_eq!(context.load(&id).map(|record| record.remember), Some(None));
        context.pass(KEPT);
        context.is_dead(&id);
    }
}

pub(in crate::testing::store_contract) fn a_record_says_how_long_ago_it_was_renewed(
    context: &Context<'_>,
) {
    let id = context.create(&[("a", "1")]);
    let to = context.target(&id);
    let age = |id: &SessionId| context.load(id).expect("it is live").renewed_ago;
    if !context.can().times {
        assert_eq!(age(&id), None);
        return;
    }
    let is_about = |id: &SessionId, time: Duration| {
        let age = age(id).expect("the time of the last save is declared to be kept");
        assert!(age >= time && age < time + MINUTE, "{age:?} instead of {time:?}");
    };
    is_about(&id, Duration::ZERO);
    context.pass(10 * MINUTE);
    is_about(&id, 10 * MINUTE);
    is_about(&id, 10 * MINUTE);
    context.pass(10 * MINUTE);
    is_about(&id, 20 * MINUTE);
    assert_eq!(context.update(&id, &[]), Saved::Stored);
    is_about(&id, Duration::ZERO);
    // One without the cookie: the record's life begins anew, the time does not.
    context.pass(30 * MINUTE);
    let (changes, lifetimes) = (set(&[("b", "2")]), IDLE);
    let save = Save::new(&id, Action::Update, &changes, lifetimes);
    let saved = context.store().save(&Save { renewed_ago: Some(30 * MINUTE), ..save });
    assert_eq!(saved.expect("the store works"), Saved::Stored);
    is_about(&id, 30 * MINUTE);
    context.pass(40 * MINUTE);
    is_about(&id, 70 * MINUTE);
    assert_eq!(context.save(&id, Action::Rotate { to: &to }, &[]), Saved::Stored);
    is_about(&to, Duration::ZERO);
}
