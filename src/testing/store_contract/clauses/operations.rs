//! The operations on single fields.

use super::*;

pub(in crate::testing::store_contract) fn an_increment_returns_the_sum(context: &Context<'_>) {
    let id = context.create(&[("other", "x")]);
    let load = Load { id: &id, lifetimes: IDLE };
    let add = |by| context.store().increment(&load, "n", by).expect("it is a number");
    let big = (1i64 << 53) + 1;
    for (by, sum) in
        [(1, 1), (41, 42), (-50, -8), (0, -8), (8, 0), (big, big), (i64::MAX - big, i64::MAX)]
    {
        assert_eq!(add(by), sum, "adding {by}");
    }
    assert_eq!((add(i64::MIN), add(i64::MIN + 1)), (-1, i64::MIN));
    let expected = i64::MIN.to_string();
    context.holds(&id, &[("other", "x"), ("n", &expected)]);
}

pub(in crate::testing::store_contract) fn an_increment_refuses_what_is_no_number(
    context: &Context<'_>,
) {
    let (max, past) = (i64::MAX.to_string(), "9223372036854775808");
    for text in ["", "x", "1.5", " 1", "1 ", "+1", "01", "-0", "1e3", past, &max] {
        let id = context.create(&[("n", text)]);
        let load = Load { id: &id, lifetimes: IDLE };
        let error = fails(context.store().increment(&load, "n", 1), ErrorKind::Session);
        assert!(error.to_string().contains("\"n\""), "{error}");
        context.holds(&id, &[("n", text)]);
    }
    let id = context.create(&[("n", &i64::MIN.to_string())]);
    let load = Load { id: &id, lifetimes: IDLE };
    fails(context.store().increment(&load, "n", -1), ErrorKind::Session);
}

pub(in crate::testing::store_contract) fn increments_at_the_same_time_all_count(
    context: &Context<'_>,
) {
    let id = context.create(&[("n", "0")]);
    let load = Load { id: &id, lifetimes: IDLE };
    let sums = at_once(8, |_| {
        let add = |_| context.store().increment(&load, "n", 1).expect("it is a number");
        (0..25).map(add).collect::<Vec<_>>()
    });
    let sums: BTreeSet<i64> = sums.into_iter().flatten().collect();
    assert!(sums.into_iter().eq(1..=200), "each increment returned its own sum");
    context.holds(&id, &[("n", "200")]);
}

pub(in crate::testing::store_contract) fn taken_fields_are_gone(context: &Context<'_>) {
    let id = context.create(&[("a", "1"), ("b", "2"), ("c", "3"), ("d", "")]);
    let load = Load { id: &id, lifetimes: IDLE };
    let take = |keys: &[&str]| context.store().take(&load, keys).expect("it is live");
    let value = |text: &str| Some(text.to_owned());
    assert_eq!(take(&["c", "none", "a"]), [value("3"), None, value("1")]);
    assert_eq!(take(&["a", "c"]), [None, None]);
    assert_eq!(take(&["d", "d"]), [value(""), None]);
    assert_eq!(take(&[]), Vec::<Option<String>>::new());
    context.holds(&id, &[("b", "2")]);
}

pub(in crate::testing::store_contract) fn sixty_four_takers_get_one_value(context: &Context<'_>) {
    let id = context.create(&[("prize", "1"), ("stays", "2")]);
    let load = Load { id: &id, lifetimes: IDLE };
    let taken = at_once(64, |_| context.store().take(&load, &["prize"]).expect("it is live"));
    let values: Vec<_> = taken.into_iter().flatten().flatten().collect();
    assert_eq!(values, ["1"]);
    context.holds(&id, &[("stays", "2")]);
}

pub(in crate::testing::store_contract) fn set_if_absent_sets_once(context: &Context<'_>) {
    let id = context.create(&[("empty", "")]);
    let load = Load { id: &id, lifetimes: IDLE };
    let set = |key, value| context.store().set_if_absent(&load, key, value).expect("it is live");
    assert!(set("a", "1"));
    assert!(!set("a", "2"));
    assert!(!set("a", "1"));
    assert!(!set("empty", "3"));
    context.holds(&id, &[("empty", ""), ("a", "1")]);
}

pub(in crate::testing::store_contract) fn sixty_four_setters_set_once(context: &Context<'_>) {
    let id = context.create(&[("stays", "2")]);
    let load = Load { id: &id, lifetimes: IDLE };
    let set = at_once(64, |turn| {
        let set = context.store().set_if_absent(&load, "lock", &turn.to_string());
        set.expect("it is live").then(|| turn.to_string())
    });
    let winners: Vec<_> = set.into_iter().flatten().collect();
    assert_eq!(winners.len(), 1, "{winners:?}");
    context.holds(&id, &[("stays", "2"), ("lock", &winners[0])]);
}

pub(in crate::testing::store_contract) fn compare_and_set_sets_where_the_text_is_the_same(
    context: &Context<'_>,
) {
    if !context.store().can_compare_and_set() {
        return;
    }
    let id = context.create(&[("a", "1"), ("empty", ""), ("stays", "s")]);
    let load = Load { id: &id, lifetimes: IDLE };
    let set = |key, held, fields: &[(&str, &str)]| {
        context.store().compare_and_set(&load, key, held, fields).expect("it is live")
    };
    // What is there, or not there, is told from an empty text, and from one that only begins with it.
    for (key, held) in
        [("a", None), ("a", Some("")), ("a", Some("11")), ("empty", None), ("none", Some(""))]
    {
        assert!(!set(key, held, &[("a", "x"), ("b", "x")]), "{key} {held:?}");
    }
    context.holds(&id, &[("a", "1"), ("empty", ""), ("stays", "s")]);
    assert!(set("a", Some("1"), &[("a", "2\r\n\0")]));
    assert!(!set("a", Some("1"), &[("a", "3")]));
    assert!(set("a", Some("2\r\n\0"), &[("b", "4"), ("empty", "5")]));
    assert!(set("none", None, &[("none", "6")]));
    assert!(set("empty", Some("5"), &[("empty", "")]));
    let expected = [("a", "2\r\n\0"), ("b", "4"), ("empty", ""), ("none", "6"), ("stays", "s")];
    context.holds(&id, &expected);
    // Many at once.
    let names: Vec<String> = (0..250).map(|n| format!("many{n}")).collect();
    let many: Vec<_> = names.iter().map(|name| (name.as_str(), "m")).collect();
    assert!(set("a", Some("2\r\n\0"), &many));
    context.holds(&id, &[&expected[..], &many].concat());
}

pub(in crate::testing::store_contract) fn of_those_who_compare_at_the_same_time_one_sets(
    context: &Context<'_>,
) {
    if !context.store().can_compare_and_set() {
        return;
    }
    let id = context.create(&[("n", "0")]);
    let load = Load { id: &id, lifetimes: IDLE };
    for round in 0..20 {
        let (held, new) = (round.to_string(), (round + 1).to_string());
        let set = at_once(8, |turn| {
            let winner = turn.to_string();
            let fields = [("n", new.as_str()), ("winner", winner.as_str())];
            let set = context.store().compare_and_set(&load, "n", Some(&held), &fields);
            set.expect("it is live").then_some(winner)
        });
        let winners: Vec<_> = set.into_iter().flatten().collect();
        assert_eq!(winners.len(), 1, "{winners:?}");
        context.holds(&id, &[("n", &new), ("winner", &winners[0])]);
    }
}

pub(in crate::testing::store_contract) fn a_store_that_cannot_compare_and_set_says_so(
    context: &Context<'_>,
) {
    if context.store().can_compare_and_set() {
        return;
    }
    let id = context.create(&[("n", "1")]);
    let load = Load { id: &id, lifetimes: IDLE };
    let done = context.store().compare_and_set(&load, "n", Some("1"), &[("n", "2")]);
    fails(done, ErrorKind::Config);
    context.holds(&id, &[("n", "1")]);
}

pub(in crate::testing::store_contract) fn operations_leave_the_idle_limit_as_it_is(
    context: &Context<'_>,
) {
    let id = context.create(&[("stays", "1")]);
    let (store, load) = (context.store(), Load { id: &id, lifetimes: IDLE });
    context.pass(50 * MINUTE);
    assert_eq!(store.increment(&load, "n", 1).expect("it is live"), 1);
    assert_eq!(store.take(&load, &["none"]).expect("it is live"), [None]);
    assert!(!store.set_if_absent(&load, "stays", "2").expect("it is live"));
    if store.can_compare_and_set() {
        for (held, set) in [("1", true), ("2", false)] {
            let done = store.compare_and_set(&load, "stays", Some(held), &[("stays", "1")]);
            assert_eq!(done.expect("it is live"), set);
        }
    }
    if context.can().times {
        let record = context.load(&id).expect("it is live");
        assert!(record.renewed_ago >= Some(50 * MINUTE), "{:?}", record.renewed_ago);
    }
    context.pass(KEPT - 50 * MINUTE);
    context.is_dead(&id);
}

pub(in crate::testing::store_contract) fn operations_on_a_dead_session_say_so(
    context: &Context<'_>,
) {
    let destroyed = context.create(&[("n", "1")]);
    let expired = context.create(&[("n", "1")]);
    context.pass(KEPT);
    context.destroy(&destroyed);
    let moved = context.create(&[("n", "1")]);
    let to = context.target(&moved);
    assert_eq!(context.save(&moved, Action::Rotate { to: &to }, &[]), Saved::Stored);
    for id in [destroyed, expired, moved, context.id()] {
        let (store, load) = (context.store(), Load { id: &id, lifetimes: IDLE });
        fails(store.increment(&load, "n", 1), ErrorKind::Gone);
        fails(store.take(&load, &["n"]), ErrorKind::Gone);
        fails(store.set_if_absent(&load, "m", "1"), ErrorKind::Gone);
        if store.can_compare_and_set() {
            for held in [None, Some("1")] {
                fails(store.compare_and_set(&load, "n", held, &[("m", "1")]), ErrorKind::Gone);
            }
        }
        context.is_dead(&id);
    }
    context.holds(&to, &[("n", "1")]);
}
