//! A store that keeps logins lists a user's live sessions and ends them.

use super::*;

/// Says whether the store keeps logins; one that does not has these clauses by refusing. What other clauses have left of
/// these users goes first.
fn keeps(context: &Context<'_>) -> bool {
    let keeps = context.store().keeps_logins();
    for user in ["ada", "ada 1.b", "bob"].into_iter().filter(|_| keeps) {
        end(context, user, EndDevices::All);
    }
    keeps
}

/// Logs the user in, in a new session.
fn log_in(context: &Context<'_>, login: LogIn<'_>) -> SessionId {
    let (id, none) = (context.id(), set(&[]));
    let save = Save { login: Some(login), ..Save::new(&id, Action::Create, &none, IDLE) };
    assert_eq!(context.store().save(&save).expect("the store works"), Saved::Stored);
    id
}

/// Moves a session in which this user is logged in to a new id.
fn moves(context: &Context<'_>, user: &str, id: &SessionId) -> (SessionId, Saved) {
    let (to, none) = (context.target(id), set(&[]));
    let save = Save::new(id, Action::Rotate { to: &to }, &none, IDLE);
    let saved = context.store().save(&Save { user: Some(user), ..save });
    (to, saved.expect("the store works"))
}

fn devices(context: &Context<'_>, user: &str, this: Option<&SessionId>) -> Vec<Device> {
    context.store().devices(user, this).expect("the store works")
}

fn end(context: &Context<'_>, user: &str, which: EndDevices<'_>) -> usize {
    context.store().end_devices(user, which).expect("the store works")
}

/// The handle of this session.
fn handle(context: &Context<'_>, user: &str, id: &SessionId) -> String {
    let devices = devices(context, user, Some(id));
    let this = devices.into_iter().find(|device| device.is_this);
    this.expect("the session is listed").handle
}

pub(in crate::testing::store_contract) fn a_users_devices_are_listed_the_latest_login_first(
    context: &Context<'_>,
) {
    if !keeps(context) {
        return;
    }
    let (agent, address) = ("Browser/1.0 (číslo; 7) ", "203.0.113.0/24");
    let first = log_in(context, LogIn { agent, address, ..LogIn::new("ada 1.b") });
    context.pass(HOUR / 2);
    let second = log_in(context, LogIn::new("ada 1.b"));
    log_in(context, LogIn::new("bob"));
    context.create(&[("name", "nobody")]);
    let listed = devices(context, "ada 1.b", Some(&first));
    let this: Vec<_> = listed.iter().map(|device| device.is_this).collect();
    assert_eq!(this, [false, true], "{listed:?}");
    assert_eq!((&*listed[1].agent, &*listed[1].address), (agent, address));
    assert_eq!((&*listed[0].agent, &*listed[0].address), ("", ""));
    let between = listed[0].logged_in.duration_since(listed[1].logged_in);
    assert!(between.is_ok_and(|time| time >= HOUR / 2 - MINUTE), "{listed:?}");
    // Whoever uses it is seen.
    let (none, seen) = (set(&[]), listed[1].last_seen);
    let save = Save::new(&first, Action::Update, &none, IDLE);
    let saved = context.store().save(&Save { user: Some("ada 1.b"), ..save });
    assert_eq!(saved.expect("the store works"), Saved::Stored);
    let later = devices(context, "ada 1.b", None).remove(1).last_seen.duration_since(seen);
    assert!(later.as_ref().is_ok_and(|time| *time >= HOUR / 2 - MINUTE), "{later:?}");
    assert_ne!(handle(context, "ada 1.b", &first), handle(context, "ada 1.b", &second));
    assert_eq!(devices(context, "carol", None), []);
}

pub(in crate::testing::store_contract) fn a_device_keeps_its_handle_over_a_move(
    context: &Context<'_>,
) {
    if !keeps(context) {
        return;
    }
    let id = log_in(context, LogIn { agent: "Browser", ..LogIn::new("ada") });
    let before = devices(context, "ada", Some(&id));
    let (to, saved) = moves(context, "ada", &id);
    assert_eq!(saved, Saved::Stored);
    let after = devices(context, "ada", Some(&to));
    assert_eq!(after.len(), 1, "{after:?}");
    let told = |device: &Device| (device.handle.clone(), device.agent.clone(), device.is_this);
    assert_eq!(told(&after[0]), told(&before[0]));
    // The next login is another device.
    let (next, none) = (context.target(&to), set(&[]));
    let save = Save::new(&to, Action::Rotate { to: &next }, &none, IDLE);
    let save = Save { login: Some(LogIn::new("ada")), user: Some("ada"), ..save };
    assert_eq!(context.store().save(&save).expect("the store works"), Saved::Stored);
    let again = devices(context, "ada", Some(&next));
    assert!(again.len() == 1 && again[0].is_this, "{again:?}");
    assert_ne!(again[0].handle, before[0].handle);
}

pub(in crate::testing::store_contract) fn one_device_ends_and_the_others_stay(
    context: &Context<'_>,
) {
    if !keeps(context) {
        return;
    }
    let [one, other] = [(); 2].map(|()| log_in(context, LogIn::new("ada")));
    let foreign = log_in(context, LogIn::new("bob"));
    let [ones, bobs] = [("ada", &one), ("bob", &foreign)].map(|(u, id)| handle(context, u, id));
    // A handle means nothing but in the list of its user.
    for unknown in [&*bobs, "", "-", "generation", "%w*"] {
        assert_eq!(end(context, "ada", EndDevices::One(unknown)), 0, "{unknown:?}");
    }
    let (moved, saved) = moves(context, "ada", &one);
    assert_eq!(saved, Saved::Stored);
    assert_eq!(end(context, "ada", EndDevices::One(&ones)), 1);
    assert_eq!(end(context, "ada", EndDevices::One(&ones)), 0);
    context.is_dead(&one);
    context.is_dead(&moved);
    assert_eq!(context.update(&moved, &[("a", "1")]), Saved::Gone);
    for id in [&other, &foreign] {
        assert!(context.load(id).is_some());
    }
    assert_eq!(devices(context, "ada", None).len(), 1);
}

pub(in crate::testing::store_contract) fn all_devices_but_one_end(context: &Context<'_>) {
    if !keeps(context) {
        return;
    }
    let [this, one, other] = [(); 3].map(|()| log_in(context, LogIn::new("ada")));
    let stranger = context.id();
    let none = context.store().end_devices("ada", EndDevices::AllBut(&stranger));
    fails(none, ErrorKind::Gone);
    assert_eq!(devices(context, "ada", None).len(), 3);
    assert_eq!(end(context, "ada", EndDevices::AllBut(&this)), 2);
    context.is_dead(&one);
    context.is_dead(&other);
    // It lives on as ever.
    let (moved, saved) = moves(context, "ada", &this);
    assert_eq!(saved, Saved::Stored);
    assert!(devices(context, "ada", Some(&moved))[0].is_this);
    assert_eq!(end(context, "ada", EndDevices::AllBut(&moved)), 0);
    assert!(context.load(&moved).is_some());
}

pub(in crate::testing::store_contract) fn all_devices_end_and_come_back_by_no_save(
    context: &Context<'_>,
) {
    if !keeps(context) {
        return;
    }
    let ids = [(); 3].map(|()| log_in(context, LogIn::new("ada")));
    let foreign = log_in(context, LogIn::new("bob"));
    assert_eq!(end(context, "ada", EndDevices::All), 3);
    assert_eq!(end(context, "ada", EndDevices::All), 0);
    assert_eq!(devices(context, "ada", None), []);
    for id in &ids {
        assert_eq!(context.update(id, &[("a", "1")]), Saved::Gone);
        let (to, saved) = moves(context, "ada", id);
        assert_eq!(saved, Saved::Gone);
        context.is_dead(id);
        context.is_dead(&to);
    }
    assert!(context.load(&foreign).is_some());
    // Whoever logs in from now on is.
    let again = log_in(context, LogIn::new("ada"));
    assert!(devices(context, "ada", Some(&again))[0].is_this);
    assert_eq!(moves(context, "ada", &again).1, Saved::Stored);
    assert_eq!(end(context, "ada", EndDevices::All), 1);
}

pub(in crate::testing::store_contract) fn a_dead_device_is_not_listed(context: &Context<'_>) {
    if !keeps(context) {
        return;
    }
    let [expires, logs_out, stays] = [(); 3].map(|()| log_in(context, LogIn::new("ada")));
    let none = set(&[]);
    let save = Save::new(&logs_out, Action::Destroy, &none, IDLE);
    let saved = context.store().save(&Save { user: Some("ada"), ..save });
    assert_eq!(saved.expect("the store works"), Saved::Stored);
    assert_eq!(devices(context, "ada", None).len(), 2);
    context.pass(HOUR / 2);
    let save = Save::new(&stays, Action::Update, &none, IDLE);
    let saved = context.store().save(&Save { user: Some("ada"), ..save });
    assert_eq!(saved.expect("the store works"), Saved::Stored);
    context.pass(HOUR);
    context.is_dead(&expires);
    let listed = devices(context, "ada", Some(&stays));
    assert!(listed.len() == 1 && listed[0].is_this, "{listed:?}");
    // However long it is used, its user finds it.
    for _ in 0..5 {
        let save = Save::new(&stays, Action::Update, &none, IDLE);
        let saved = context.store().save(&Save { user: Some("ada"), ..save });
        assert_eq!(saved.expect("the store works"), Saved::Stored);
        context.pass(HOUR);
    }
    assert_eq!(end(context, "ada", EndDevices::All), 1);
    context.is_dead(&stays);
}

pub(in crate::testing::store_contract) fn beyond_the_most_the_oldest_login_ends(
    context: &Context<'_>,
) {
    if !keeps(context) {
        return;
    }
    let logs_in = || {
        context.pass(MINUTE);
        log_in(context, LogIn { max_sessions: Some(2), ..LogIn::new("ada") })
    };
    let ids: Vec<_> = (0..4).map(|_| logs_in()).collect();
    for (at, id) in ids.iter().enumerate() {
        assert_eq!(context.load(id).is_some(), at >= 2, "login {at}");
    }
    // A move is no login.
    assert_eq!(moves(context, "ada", &ids[2]).1, Saved::Stored);
    assert_eq!(devices(context, "ada", None).len(), 2);
}

pub(in crate::testing::store_contract) fn who_logs_in_while_all_devices_end_is_ended_or_came_later(
    context: &Context<'_>,
) {
    if !keeps(context) {
        return;
    }
    for _ in 0..20 {
        // Half of them log in; the others have, and move on and on.
        let before: Vec<_> = (0..3).map(|_| log_in(context, LogIn::new("ada"))).collect();
        let acted = at_once(7, |number| match number {
            0 => {
                end(context, "ada", EndDevices::All);
                Vec::new()
            }
            1..4 => {
                let (id, none) = (context.id(), set(&[]));
                let save = Save::new(&id, Action::Create, &none, IDLE);
                let save = Save { login: Some(LogIn::new("ada")), ..save };
                // A login during an end may fail, and then there is none.
                let saved = context.store().save(&save);
                if saved.is_err() {
                    context.is_dead(&id);
                }
                vec![id]
            }
            _ => {
                let mut ids = vec![before[number - 4].clone()];
                while let Some(id) = ids.last()
                    && ids.len() < 8
                {
                    match moves(context, "ada", id) {
                        (to, Saved::Stored) => ids.push(to),
                        (to, Saved::Gone) => {
                            ids.push(to);
                            break;
                        }
                    }
                }
                ids
            }
        });
        for id in acted[4..].iter().flatten() {
            context.is_dead(id);
        }
        // Those that came later are in the list, and the next end ends them.
        let ids = || acted[1..4].iter().flatten();
        let live = ids().filter(|id| context.load(id).is_some()).count();
        assert_eq!(devices(context, "ada", None).len(), live);
        assert_eq!(end(context, "ada", EndDevices::All), live);
        ids().for_each(|id| context.is_dead(id));
    }
}

pub(in crate::testing::store_contract) fn a_store_without_logins_says_so(context: &Context<'_>) {
    if keeps(context) {
        return;
    }
    fails(context.store().devices("ada", None), ErrorKind::Config);
    fails(context.store().end_devices("ada", EndDevices::All), ErrorKind::Config);
}
