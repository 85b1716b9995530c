//! What guards, hooks, error pages and providers see where something failed.

use bottle_session::{Argument, Asked, Binder, Error, ErrorKind, Own};

use super::*;
use crate::support::logs;

type Log = Arc<Mutex<Vec<String>>>;

fn told(log: &Log) -> Vec<String> {
    std::mem::take(&mut *log.lock().unwrap())
}

struct User;

impl Provided for User {}

struct Tenant;

impl Provided for Tenant {}

#[test]
fn what_a_hook_makes_of_an_error_does_not_commit_it() {
    let log = Log::default();
    let ended = log.clone();
    let client = client(|app| {
        app.install(Counting::new("n", 0)).unwrap();
        app.provide(|| Own(0u8)).finish(move |_, answer| {
            let end = if answer.is_error() { "ROLLBACK" } else { "COMMIT" };
            ended.lock().unwrap().push(format!("{} {end}", answer.status().as_u16()));
        });
        app.get("/<how>", |_: &mut Own<u8>, how: &str| -> std::result::Result<&'static str, _> {
            match how {
                "abort" => Err(abort(409, "no")),
                "panic" => panic!("on purpose"),
                _ => Ok("fine"),
            }
        });
        // They ask for a value, and so run before the others are finished; the one added last runs first.
        app.after_request(|request: &Request, _: Option<&Number>| {
            match request.query("then").unwrap().as_deref() {
                Some("redirect") => Err(redirect("/sorry")),
                _ => Ok(()),
            }
        });
        app.after_request(|request: &Request, _: Option<&Number>, response: &mut Response| {
            match request.query("first").unwrap().as_deref() {
                Some("replace") => {
                    *response = Response::text("sorry");
                    Ok(())
                }
                Some("fail") => Err(abort(500, "the hook failed")),
                _ => Ok(()),
            }
        });
    });
    for (path, status, expected) in [
        ("/fine", 200, "200 COMMIT"),
        ("/fine?first=replace", 200, "200 COMMIT"),
        ("/fine?then=redirect", 303, "303 COMMIT"),
        ("/abort", 409, "409 ROLLBACK"),
        ("/abort?first=replace", 200, "200 ROLLBACK"),
        ("/abort?then=redirect", 303, "303 ROLLBACK"),
        ("/panic?first=replace", 200, "200 ROLLBACK"),
        ("/panic?then=redirect", 303, "303 ROLLBACK"),
        ("/fine?first=fail&then=redirect", 303, "303 ROLLBACK"),
    ] {
        assert_eq!(client.get(path).send().status(), status, "{path}");
        assert_eq!(told(&log), [expected], "{path}");
    }
}

#[test]
fn guards_of_a_mount_run_in_the_order_they_were_added_in() {
    let log = Log::default();
    let guard = |name: &'static str| {
        let log = log.clone();
        move || log.lock().unwrap().push(name.to_owned())
    };
    let mut inner = App::new();
    inner.before(guard("inner"));
    inner.get("/", || "x").before(guard("route"));
    let client = client(|app| {
        app.before(guard("outer"));
        app.mount("/in", inner).before(guard("first")).before(guard("second"));
    });
    client.get("/in/").send();
    assert_eq!(told(&log), ["outer", "first", "second", "inner", "route"]);
}

/// Looks at the user of a route, and says in `uses` what it needs on some.
struct Peeking;

impl Plugin for Peeking {
    fn name(&self) -> &str {
        "peeking"
    }

    fn uses(&self, route: &Route) -> Vec<String> {
        let uses = route.rules()[0].ends_with("/used");
        uses.then(|| "user".to_owned()).into_iter().collect()
    }

    fn apply(&self, callback: Callback, _: &Route) -> Callback {
        Callback::new(move |exchange| {
            let found = exchange.provided::<User>("user").is_some();
            callback.call(exchange).with_header("x-found", found.to_string())
        })
    }
}

#[test]
fn a_plugin_that_looks_for_a_value_that_no_provider_has_made_is_told_so_in_the_log() {
    logs::collect_logs();
    let client = client(|app| {
        app.provide(|request: &Request| -> std::result::Result<User, HttpError> {
            match request.query("how").unwrap().as_deref() {
                Some("down") => {
                    Err(Error::new(ErrorKind::Unavailable, "the users are away").into())
                }
                Some("nobody") => Err(redirect("/login").into()),
                _ => Ok(User),
            }
        });
        app.install(Peeking).unwrap();
        app.get("/peeks/unasked", || "x");
        app.get("/peeks/asked", |_: &User| "x");
        app.get("/peeks/used", || "x");
    });
    for (path, found) in [
        ("/peeks/unasked", "false"),
        ("/peeks/asked", "true"),
        ("/peeks/used", "true"),
        ("/peeks/used?how=nobody", "false"),
        ("/peeks/used?how=down", "false"),
    ] {
        assert_eq!(client.get(path).send().header("x-found"), Some(found), "{path}");
    }
    let lines = logs::errors_of("/peeks/");
    assert_eq!(lines.len(), 2, "{lines:?}");
    for (line, path, expected) in [
        (&lines[0], "/peeks/unasked", "as nobody has asked for it"),
        (&lines[1], "/peeks/used", "as its provider answers 503: the users are away"),
    ] {
        let expected = format!("has no value of keyword \"user\", {expected}");
        assert!(line.contains(path) && line.contains(&expected), "{line}");
    }
}

#[test]
fn a_hook_that_cannot_have_its_value_does_not_fail_the_route() {
    let client = client(|app| {
        app.install(Counting::new("n", 0)).unwrap();
        app.provide(|_: &Number| User);
        app.get("/", || "public");
        app.get("/needs", |n: &mut Number| n.0.to_string());
        app.get("/user", |user: Option<&User>| user.is_some().to_string());
        let mark = |response: &mut Response, mark: &str| {
            response.headers_mut().append("x-hook", mark.parse().unwrap());
        };
        app.after_request(move |_: &mut Number, response: &mut Response| mark(response, "number"));
        app.after_request(move |_: &User, response: &mut Response| mark(response, "user"));
        app.after_request(move |user: Option<&User>, response: &mut Response| {
            mark(response, if user.is_some() { "some" } else { "none" });
        });
    });
    let hooks = |path: &str| {
        let response = client.get(path).send();
        let hooks = response.headers().get_all("x-hook").iter();
        let hooks: Vec<_> = hooks.map(|hook| hook.to_str().unwrap().to_owned()).collect();
        (response.status(), hooks)
    };
    let all = ["some", "user", "number"].map(str::to_owned).to_vec();
    let none = vec!["none".to_owned()];
    assert_eq!(hooks("/"), (200, all));
    assert_eq!(hooks("/?refuse=1"), (200, none.clone()));
    // What the handler needs, also through a provider, is needed as ever.
    assert_eq!(hooks("/needs?refuse=1"), (503, none.clone()));
    assert_eq!(hooks("/user?refuse=1"), (503, none));
}

#[test]
fn a_page_has_values_where_something_answered_before_they_were_acquired() {
    struct Refusing;
    impl Plugin for Refusing {
        fn name(&self) -> &str {
            "refusing"
        }
        fn provides(&self) -> Option<Provision> {
            Some(Provision::of::<Tenant>("tenant"))
        }
        fn acquire(&self, batch: &mut Batch<'_>) {
            batch.iter_mut().for_each(|mut entry| entry.refuse(abort(403, "").into_response()));
        }
    }
    let log = Arc::default();
    let client = client(|app| {
        app.install(Refusing).unwrap();
        app.install(Counting::logging("n", &log)).unwrap();
        app.error(403, |n: Option<&Number>| n.is_some().to_string());
        app.group("/in", |group| {
            group.before_request(|_: &mut Request| Err(abort(403, "")));
            group.get("/", |_: &mut Number| "x");
        });
        app.get("/plugin", |_: &Tenant, _: &mut Number| "x");
    });
    for path in ["/in/", "/plugin"] {
        let response = client.get(path).send();
        assert_eq!((response.status(), &*response.text()), (403, "true"), "{path}");
        assert_eq!(told(&log), ["n acquires", "n releases"], "{path}");
    }
    // What was refused is not tried again.
    assert_eq!(client.get("/in/?refuse=1").send().text(), "false");
    assert_eq!(told(&log), ["n acquires"]);
}

#[test]
fn a_page_that_can_do_without_is_shown_where_a_provider_fails() {
    let client = client(|app| {
        app.install(Counting::new("n", 0)).unwrap();
        app.provide(|_: &Number| User);
        app.provide(|| -> std::result::Result<Tenant, HttpError> { Err(abort(503, "away")) });
        app.error_default(|error: &HttpError, user: Option<&User>, tenant: Option<&mut Tenant>| {
            format!("{} {} {}", error.status().as_u16(), user.is_some(), tenant.is_some())
        });
        app.get("/user", |_: &User| "x");
        app.get("/tenant", |tenant: Option<&Tenant>| tenant.is_some().to_string());
    });
    for (path, expected) in [
        ("/nowhere", "404 true false"),
        ("/nowhere?refuse=1", "404 false false"),
        ("/user?refuse=1", "503 false false"),
        ("/tenant", "503 true false"),
    ] {
        assert_eq!(client.get(path).send().text(), expected, "{path}");
    }
}

/// Whether there is a user; nobody minds if not.
struct Known(bool);

impl Argument for Known {
    type Plan = Asked<User>;
    type State = bool;
    type Item<'a> = Known;

    fn plan(binder: &mut Binder<'_>) -> Option<Asked<User>> {
        binder.ask()
    }

    fn take(asked: &Asked<User>, exchange: &mut Exchange) -> bool {
        exchange.asked(asked).is_ok()
    }

    fn lend<'a>(_: &'a Asked<User>, state: &'a mut bool, _: &'a Exchange) -> Known {
        Known(*state)
    }
}

#[test]
fn an_answer_in_place_of_a_value_is_there_for_all_who_ask() {
    let client = client(|app| {
        app.provide(|request: &Request| -> std::result::Result<User, HttpError> {
            match request.query("how").unwrap().as_deref() {
                Some("redirect") => Err(redirect("/login").into()),
                Some("abort") => Err(abort(401, "who?").with_header("x-why", "nobody")),
                Some("page") => Err(Response::text("who?").with_status(402).into()),
                _ => Ok(User),
            }
        });
        app.get("/alone", |known: Known| known.0.to_string());
        app.get("/", |_: Known, _: Known, _: &User| "x");
    });
    assert_eq!(client.get("/alone").send().text(), "true");
    assert_eq!(client.get("/alone?how=redirect").send().text(), "false");
    assert_eq!(client.get("/").send().text(), "x");
    let response = client.get("/?how=redirect").send();
    assert_eq!((response.status(), response.header("location")), (303, Some("/login")));
    let response = client.get("/?how=abort").send();
    assert_eq!((response.status(), response.header("x-why")), (401, Some("nobody")));
    assert!(response.text().contains("who?"), "{}", response.text());
    let response = client.get("/?how=page").send();
    assert_eq!((response.status(), &*response.text()), (402, "who?"));
}

#[test]
fn what_each_of_many_parts_cannot_have_is_said() {
    let error = build_error(|app| {
        for number in 0..16 {
            app.group(format!("/good/{number}"), |group| {
                group.provide(|| Number(1));
                group.get("/", |n: &Number| n.0.to_string());
            });
            app.group(format!("/bad/{number}"), |group| {
                group.provide(|_: &Tenant| User).keyword(format!("user{number}"));
            });
        }
    });
    let missing: Vec<_> =
        (0..16).filter(|n| !error.contains(&format!("(keyword \"user{n}\")"))).collect();
    assert!(missing.is_empty(), "{missing:?}: {error}");
}
