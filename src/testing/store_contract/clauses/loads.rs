//! An unknown, expired or damaged session is no session.

use super::*;

pub(in crate::testing::store_contract) fn an_unknown_session_is_no_session(context: &Context<'_>) {
    context.create(&[("name", "Chris")]);
    context.is_dead(&context.id());
}

pub(in crate::testing::store_contract) fn a_created_session_loads_as_it_was_saved(
    context: &Context<'_>,
) {
    let first = context.create(&[("name", "Chris"), ("colour", "green")]);
    let second = context.create(&[("name", "Ada")]);
    context.holds(&first, &[("name", "Chris"), ("colour", "green")]);
    context.holds(&second, &[("name", "Ada")]);
    let record = context.load(&first).expect("it was created");
    assert_eq!(record.created.is_some(), context.can().times);
    assert_eq!(record.remember, None);
}

pub(in crate::testing::store_contract) fn any_text_is_kept_as_it_is(context: &Context<'_>) {
    let long = "x".repeat(10_000);
    let pairs = [
        ("empty", ""),
        ("", "no key"),
        ("ключ 🔑", "značení ☕"),
        ("bytes", "\0\r\n\t\u{7f}\u{10ffff}"),
        ("in\0side", "a key with NUL in it"),
        ("long", &long),
        ("5", "12"),
    ];
    let id = context.create(&pairs);
    context.holds(&id, &pairs);
}

pub(in crate::testing::store_contract) fn an_empty_session_is_kept(context: &Context<'_>) {
    let id = context.create(&[("only", "1")]);
    let gone = removed(&["only"]);
    let saved = context.save_with(&id, Action::Update, &gone, IDLE, None).expect("the store works");
    assert_eq!(saved, Saved::Stored);
    if !context.can().empty {
        context.is_dead(&id);
        assert_eq!(context.update(&id, &[("new", "1")]), Saved::Gone);
        return;
    }
    context.holds(&id, &[]);
    assert_eq!(context.update(&id, &[("new", "1")]), Saved::Stored);
    context.holds(&id, &[("new", "1")]);
    let empty = context.create(&[]);
    context.holds(&empty, &[]);
}

pub(in crate::testing::store_contract) fn a_creation_never_overwrites(context: &Context<'_>) {
    let id = context.create(&[("name", "Chris")]);
    for other in [&[("name", "Eve")][..], &[("name", "Chris"), ("more", "1")], &[("x", "Chris")]] {
        let result = context.save_with(&id, Action::Create, &set(other), IDLE, None);
        assert!(result.is_err(), "{other:?} is not what was created: {result:?}");
        context.holds(&id, &[("name", "Chris")]);
    }
}
