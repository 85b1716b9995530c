//! The clauses, in the order of the sentences of the contract.

use std::collections::BTreeSet;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use super::recorder::Recorder;
use super::{Capabilities, StoreUnderTest};
use crate::session::id::IdGenerator;
use crate::{
    Action, Changes, Error, ErrorKind, Lifetimes, Load, Record, Remember, Result, Save, Saved,
    SessionId,
};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
/// How long a record is kept whose idle limit is an hour.
const KEPT: Duration = Duration::from_secs(66 * 60);

/// Long enough that the time a test itself takes never decides.
const IDLE: Lifetimes = Lifetimes { idle: HOUR, absolute: None };
const LIMITED: Lifetimes = Lifetimes { idle: HOUR, absolute: Some(Duration::from_secs(3 * 3600)) };

/// A store under test, in the words of the clauses.
pub(super) struct Context<'a> {
    subject: &'a dyn StoreUnderTest,
    store: &'a Recorder<'a>,
    ids: IdGenerator,
}

impl<'a> Context<'a> {
    pub(super) fn new(subject: &'a dyn StoreUnderTest, store: &'a Recorder<'a>) -> Context<'a> {
        Context { subject, store, ids: IdGenerator::new() }
    }

    fn store(&self) -> &Recorder<'a> {
        self.store
    }

    fn can(&self) -> Capabilities {
        self.subject.capabilities()
    }

    fn pass(&self, time: Duration) {
        self.subject.advance(time);
    }

    fn id(&self) -> SessionId {
        self.ids.next(self.store().id_format()).expect("the operating system gives random numbers")
    }

    /// A fresh id that this session can move to.
    fn target(&self, from: &SessionId) -> SessionId {
        std::iter::repeat_with(|| self.id())
            .take(1_000_000)
            .find(|to| self.store().can_move(from, to))
            .expect("one in a million ids is one that a session can move to")
    }

    fn create(&self, pairs: &[(&str, &str)]) -> SessionId {
        let id = self.id();
        assert_eq!(self.save(&id, Action::Create, pairs), Saved::Stored);
        id
    }

    fn update(&self, id: &SessionId, pairs: &[(&str, &str)]) -> Saved {
        self.save(id, Action::Update, pairs)
    }

    fn destroy(&self, id: &SessionId) {
        assert_eq!(self.save(id, Action::Destroy, &[]), Saved::Stored);
    }

    fn save(&self, id: &SessionId, action: Action<'_>, pairs: &[(&str, &str)]) -> Saved {
        self.save_with(id, action, &set(pairs), IDLE, None).expect("the store works")
    }

    fn save_with(
        &self,
        id: &SessionId,
        action: Action<'_>,
        changes: &Changes,
        lifetimes: Lifetimes,
        remember: Option<Duration>,
    ) -> Result<Saved> {
        let remember = match remember {
            Some(limit) => Remember::To(Some(limit)),
            None => Remember::Same(None),
        };
        self.store().save(&Save { remember, ..Save::new(id, action, changes, lifetimes) })
    }

    fn load(&self, id: &SessionId) -> Option<Record> {
        self.load_with(id, IDLE)
    }

    fn load_with(&self, id: &SessionId, lifetimes: Lifetimes) -> Option<Record> {
        self.store().load(&Load { id, lifetimes }).expect("the store works")
    }

    #[track_caller]
    fn holds(&self, id: &SessionId, pairs: &[(&str, &str)]) {
        let record = self.load(id);
        assert_eq!(record.as_ref().map(sorted), Some(owned(pairs)), "what the session holds");
    }

    #[track_caller]
    fn is_dead(&self, id: &SessionId) {
        assert_eq!(self.load(id), None, "a dead session");
    }
}

fn set(pairs: &[(&str, &str)]) -> Changes {
    let pairs = pairs.iter().map(|(key, value)| (key.to_string(), Some(value.to_string())));
    Changes { cleared: false, fields: pairs.collect() }
}

fn removed(keys: &[&str]) -> Changes {
    Changes { cleared: false, fields: keys.iter().map(|key| (key.to_string(), None)).collect() }
}

fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut pairs: Vec<_> =
        pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    pairs.sort();
    pairs
}

fn sorted(record: &Record) -> Vec<(String, String)> {
    record.fields.clone().into_iter().collect()
}

#[track_caller]
fn fails<T: std::fmt::Debug>(result: Result<T>, kind: ErrorKind) -> Error {
    let error = result.expect_err("this has to be an error");
    assert_eq!(error.kind(), kind, "{error}");
    error
}

/// Runs all of these at once and returns their answers in order.
fn at_once<T: Send>(count: usize, act: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let start = Barrier::new(count);
    let turn = |number| {
        start.wait();
        act(number)
    };
    thread::scope(|scope| {
        let turn = &turn;
        let threads: Vec<_> = (0..count).map(|number| scope.spawn(move || turn(number))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no thread panics")).collect()
    })
}

// An unknown, expired or damaged session is no session.

pub(super) fn an_unknown_session_is_no_session(context: &Context<'_>) {
    context.create(&[("name", "Chris")]);
    context.is_dead(&context.id());
}

pub(super) fn a_created_session_loads_as_it_was_saved(context: &Context<'_>) {
    let first = context.create(&[("name", "Chris"), ("colour", "green")]);
    let second = context.create(&[("name", "Ada")]);
    context.holds(&first, &[("name", "Chris"), ("colour", "green")]);
    context.holds(&second, &[("name", "Ada")]);
    let record = context.load(&first).expect("it was created");
    assert_eq!(record.created.is_some(), context.can().times);
    assert_eq!(record.remember, None);
}

pub(super) fn any_text_is_kept_as_it_is(context: &Context<'_>) {
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

pub(super) fn an_empty_session_is_kept(context: &Context<'_>) {
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

pub(super) fn a_creation_never_overwrites(context: &Context<'_>) {
    let id = context.create(&[("name", "Chris")]);
    for other in [&[("name", "Eve")][..], &[("name", "Chris"), ("more", "1")], &[("x", "Chris")]] {
        let result = context.save_with(&id, Action::Create, &set(other), IDLE, None);
        assert!(result.is_err(), "{other:?} is not what was created: {result:?}");
        context.holds(&id, &[("name", "Chris")]);
    }
}

// A save starts the idle limit anew, a load does not. Nothing goes past the absolute limit.

pub(super) fn a_session_ends_after_its_idle_limit(context: &Context<'_>) {
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

pub(super) fn a_load_does_not_start_the_idle_limit_anew(context: &Context<'_>) {
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

pub(super) fn a_save_starts_the_idle_limit_anew(context: &Context<'_>) {
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

pub(super) fn a_failed_load_brings_nothing_back(context: &Context<'_>) {
    let id = context.create(&[("name", "Chris")]);
    context.pass(KEPT);
    let forever = Lifetimes { idle: 1000 * HOUR, absolute: None };
    assert_eq!(context.load_with(&id, forever), None);
    assert_eq!(context.load_with(&id, forever), None);
}

pub(super) fn nothing_goes_past_the_absolute_limit(context: &Context<'_>) {
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

pub(super) fn a_shortened_absolute_limit_holds_at_once(context: &Context<'_>) {
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

pub(super) fn a_remembered_session_has_its_own_idle_limit(context: &Context<'_>) {
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

pub(super) fn a_session_can_lose_its_own_idle_limit(context: &Context<'_>) {
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

pub(super) fn a_record_says_how_long_ago_it_was_renewed(context: &Context<'_>) {
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

// A save writes the changed fields and no others. A save never brings back what is gone.

pub(super) fn a_save_writes_the_changes_and_nothing_else(context: &Context<'_>) {
    let id = context.create(&[("a", "1"), ("b", "2"), ("c", "3")]);
    let mut changes = removed(&["b", "unknown"]);
    changes.fields.extend(set(&[("c", "4"), ("d", "5")]).fields);
    let saved = context.save_with(&id, Action::Update, &changes, IDLE, None);
    assert_eq!(saved.expect("the store works"), Saved::Stored);
    context.holds(&id, &[("a", "1"), ("c", "4"), ("d", "5")]);
    assert_eq!(context.update(&id, &[]), Saved::Stored);
    context.holds(&id, &[("a", "1"), ("c", "4"), ("d", "5")]);
}

pub(super) fn a_cleared_session_holds_only_what_was_set_after(context: &Context<'_>) {
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
}

fn nothing_can_be_saved(context: &Context<'_>, id: &SessionId) {
    assert_eq!(context.update(id, &[("late", "1")]), Saved::Gone);
    context.is_dead(id);
    let to = context.target(id);
    assert_eq!(context.save(id, Action::Rotate { to: &to }, &[("late", "1")]), Saved::Gone);
    context.is_dead(id);
    context.is_dead(&to);
}

pub(super) fn a_save_never_brings_back_a_destroyed_session(context: &Context<'_>) {
    let id = context.create(&[("a", "1")]);
    context.destroy(&id);
    nothing_can_be_saved(context, &id);
}

pub(super) fn a_save_never_brings_back_an_expired_session(context: &Context<'_>) {
    let id = context.create(&[("a", "1")]);
    context.pass(KEPT);
    nothing_can_be_saved(context, &id);
}

pub(super) fn a_save_never_brings_back_a_moved_session(context: &Context<'_>) {
    let id = context.create(&[("a", "1")]);
    let to = context.target(&id);
    assert_eq!(context.save(&id, Action::Rotate { to: &to }, &[]), Saved::Stored);
    nothing_can_be_saved(context, &id);
    context.holds(&to, &[("a", "1")]);
}

pub(super) fn a_save_never_brings_back_an_unknown_session(context: &Context<'_>) {
    nothing_can_be_saved(context, &context.id());
}

pub(super) fn destroying_again_is_fine(context: &Context<'_>) {
    let (id, other) = (context.create(&[("a", "1")]), context.create(&[("b", "2")]));
    context.destroy(&id);
    context.destroy(&id);
    context.destroy(&context.id());
    context.is_dead(&id);
    context.holds(&other, &[("b", "2")]);
}

// A move is one atomic step; a repetition answers Stored again.

pub(super) fn a_move_takes_everything_along(context: &Context<'_>) {
    let id = context.create(&[("a", "1"), ("b", "2"), ("c", "3")]);
    let to = context.target(&id);
    let mut changes = set(&[("b", "4"), ("d", "5")]);
    changes.fields.extend(removed(&["c"]).fields);
    let saved = context.save_with(&id, Action::Rotate { to: &to }, &changes, IDLE, None);
    assert_eq!(saved.expect("the store works"), Saved::Stored);
    context.is_dead(&id);
    context.holds(&to, &[("a", "1"), ("b", "4"), ("d", "5")]);
}

pub(super) fn a_move_may_be_repeated(context: &Context<'_>) {
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

pub(super) fn a_move_never_overwrites(context: &Context<'_>) {
    let id = context.create(&[("a", "1")]);
    let other = context.target(&id);
    assert_eq!(context.save(&other, Action::Create, &[("b", "2")]), Saved::Stored);
    let onto = Action::Rotate { to: &other };
    let result = context.save_with(&id, onto, &set(&[("c", "3")]), IDLE, None);
    assert!(result.is_err(), "{result:?}");
    context.holds(&id, &[("a", "1")]);
    context.holds(&other, &[("b", "2")]);
}

pub(super) fn a_login_goes_with_the_session_until_the_next_one(context: &Context<'_>) {
    if !context.store().keeps_logins() {
        return;
    }
    let none = set(&[]);
    let logs_in = |id: &SessionId, action: Action<'_>, user| {
        let save = Save { login: Some(user), ..Save::new(id, action, &none, IDLE) };
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

pub(super) fn who_logs_in_gets_a_session_although_the_old_one_is_gone(context: &Context<'_>) {
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
        let save = Save { login: Some("ada"), ..save };
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
    let save = Save { login: Some("ada"), created, ..save };
    assert_eq!(context.store().save(&save).expect("the store works"), Saved::Stored);
    context.pass(19 * MINUTE);
    assert!(context.load_with(&to, limits).is_some_and(|record| record.login.is_some()));
    context.pass(MINUTE);
    assert_eq!(context.load_with(&to, limits), None);
}

pub(super) fn of_two_moves_one_wins(context: &Context<'_>) {
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

// The three operations.

pub(super) fn an_increment_returns_the_sum(context: &Context<'_>) {
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

pub(super) fn an_increment_refuses_what_is_no_number(context: &Context<'_>) {
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

pub(super) fn increments_at_the_same_time_all_count(context: &Context<'_>) {
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

pub(super) fn taken_fields_are_gone(context: &Context<'_>) {
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

pub(super) fn sixty_four_takers_get_one_value(context: &Context<'_>) {
    let id = context.create(&[("prize", "1"), ("stays", "2")]);
    let load = Load { id: &id, lifetimes: IDLE };
    let taken = at_once(64, |_| context.store().take(&load, &["prize"]).expect("it is live"));
    let values: Vec<_> = taken.into_iter().flatten().flatten().collect();
    assert_eq!(values, ["1"]);
    context.holds(&id, &[("stays", "2")]);
}

pub(super) fn set_if_absent_sets_once(context: &Context<'_>) {
    let id = context.create(&[("empty", "")]);
    let load = Load { id: &id, lifetimes: IDLE };
    let set = |key, value| context.store().set_if_absent(&load, key, value).expect("it is live");
    assert!(set("a", "1"));
    assert!(!set("a", "2"));
    assert!(!set("a", "1"));
    assert!(!set("empty", "3"));
    context.holds(&id, &[("empty", ""), ("a", "1")]);
}

pub(super) fn sixty_four_setters_set_once(context: &Context<'_>) {
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

pub(super) fn operations_leave_the_idle_limit_as_it_is(context: &Context<'_>) {
    let id = context.create(&[("stays", "1")]);
    let (store, load) = (context.store(), Load { id: &id, lifetimes: IDLE });
    context.pass(50 * MINUTE);
    assert_eq!(store.increment(&load, "n", 1).expect("it is live"), 1);
    assert_eq!(store.take(&load, &["none"]).expect("it is live"), [None]);
    assert!(!store.set_if_absent(&load, "stays", "2").expect("it is live"));
    if context.can().times {
        let record = context.load(&id).expect("it is live");
        assert!(record.renewed_ago >= Some(50 * MINUTE), "{:?}", record.renewed_ago);
    }
    context.pass(KEPT - 50 * MINUTE);
    context.is_dead(&id);
}

pub(super) fn operations_on_a_dead_session_say_so(context: &Context<'_>) {
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
        context.is_dead(&id);
    }
    context.holds(&to, &[("n", "1")]);
}

// Each is one atomic step.

pub(super) fn saves_of_different_fields_at_the_same_time_both_survive(context: &Context<'_>) {
    for round in 0..100 {
        let round = round.to_string();
        let id = context.create(&[("start", &round)]);
        let keys = ["left", "right"];
        let saved = at_once(2, |turn| context.update(&id, &[(keys[turn], &round)]));
        assert_eq!(saved, [Saved::Stored, Saved::Stored]);
        context.holds(&id, &[("start", &round), ("left", &round), ("right", &round)]);
    }
}

pub(super) fn a_session_destroyed_during_saves_stays_destroyed(context: &Context<'_>) {
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

pub(super) fn a_save_during_a_move_is_kept_or_refused(context: &Context<'_>) {
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

// The methods on slices answer in the order of the slice; one session's error concerns no other.

pub(super) fn slices_are_answered_in_order(context: &Context<'_>) {
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
        let fields = loaded.expect("the store works").as_ref().map(sorted);
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

pub(super) fn one_error_in_a_slice_concerns_no_other(context: &Context<'_>) {
    let (taken, first, last) = (context.create(&[("a", "1")]), context.id(), context.id());
    let changes = set(&[("b", "2")]);
    let save = |id| Save::new(id, Action::Create, &changes, IDLE);
    let saved = context.store().save_many(&[save(&first), save(&taken), save(&last)]);
    assert!(matches!(saved[..], [Ok(Saved::Stored), Err(_), Ok(Saved::Stored)]), "{saved:?}");
    context.holds(&taken, &[("a", "1")]);
    context.holds(&first, &[("b", "2")]);
    context.holds(&last, &[("b", "2")]);
}
