//! When a value is made, and what comes in its place.

use super::*;

#[test]
fn a_value_that_nobody_has_asked_for_is_in_the_log() {
    struct Peeking;
    impl Plugin for Peeking {
        fn name(&self) -> &str {
            "peeking"
        }
        fn apply(&self, callback: Callback, _: &Route) -> Callback {
            Callback::new(move |exchange| {
                let found = exchange.provided::<Number>("n").is_some();
                callback.call(exchange).with_header("x-found", found.to_string())
            })
        }
    }
    crate::support::logs::collect_logs();
    let client = client(|app| {
        app.install(Counting::new("n", 0)).unwrap();
        app.install(Peeking).unwrap();
        app.get("/asks/for/it", |_: &mut Number| "x");
        app.get("/asks/for/nothing", || "x");
    });
    assert_eq!(client.get("/asks/for/it").send().header("x-found"), Some("true"));
    assert_eq!(client.get("/asks/for/nothing").send().header("x-found"), Some("false"));
    let lines = crate::support::logs::logs_of("/asks/for/nothing");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(
        lines[0].contains("has no value of keyword \"n\", as nobody has asked for it"),
        "{lines:?}"
    );
    assert!(crate::support::logs::logs_of("/asks/for/it").is_empty());
}

#[test]
fn a_value_is_made_once_and_only_where_somebody_asks() {
    let made = Arc::new(AtomicUsize::new(0));
    let count = made.clone();
    let client = client(|app| {
        app.provide(move || Number(count.fetch_add(1, Ordering::SeqCst) + 1));
        app.provide(|number: &Number| Tenant(number.0.to_string()));
        app.provide(|number: &mut Number, tenant: &Tenant| User {
            name: format!("{} {}", number.0, tenant.0),
        });
        app.get("/", |user: &User, number: &mut Number, tenant: &Tenant| {
            format!("{} {} {}", user.name, number.0, tenant.0)
        });
        app.get("/other", || "x");
    });
    assert_eq!(client.get("/other").send().text(), "x");
    assert_eq!(made.load(Ordering::SeqCst), 0);
    for number in 1..=2 {
        let expected = format!("{number} {number} {number} {number}");
        assert_eq!(client.get("/").send().text(), expected);
        assert_eq!(made.load(Ordering::SeqCst), number);
    }
}

#[test]
fn a_route_that_asks_for_nothing_costs_a_provider_nothing() {
    let log = Arc::default();
    let client = client(|app| {
        app.install(Counting::logging("n", &log)).unwrap();
        app.provide(|number: &mut Number| Tenant(number.0.to_string()));
        app.get("/asks", |tenant: &Tenant| tenant.0.clone());
        app.get("/other", || "x");
    });
    client.get("/other").send();
    assert_eq!(told(&log), ["n wraps"]);
    assert_eq!(client.get("/asks").send().text(), "1");
    // What the provider needs of a plugin is acquired before the handlers, as ever.
    assert_eq!(told(&log), ["n acquires", "n wraps", "n releases"]);
}

#[test]
fn who_can_do_without_goes_on_unless_the_server_failed() {
    let with = |app: &mut App| {
        app.provide(|request: &Request| -> std::result::Result<User, HttpError> {
            match request.query("how")?.as_deref() {
                Some("redirect") => Err(redirect("/login").into()),
                Some("missing") => Err(abort(404, "no such user")),
                Some("down") => Err(abort(503, "later")),
                Some("broken") => Err("x".parse::<u8>().unwrap_err().into()),
                Some("panic") => panic!("on purpose"),
                _ => Ok(User { name: "ada".to_owned() }),
            }
        });
        app.get("/needs", |user: &User| user.name.clone());
        app.get("/can", |user: Option<&mut User>| user.map_or("-".to_owned(), |u| u.name.clone()));
        app.get("/looks", |user: Option<&User>| user.map_or("-".to_owned(), |u| u.name.clone()));
    };
    let client = client(with);
    for (how, needs, can) in [
        ("", 200, Some("ada")),
        ("?how=redirect", 303, Some("-")),
        ("?how=missing", 404, Some("-")),
        ("?how=down", 503, None),
        ("?how=broken", 500, None),
        ("?how=panic", 500, None),
    ] {
        assert_eq!(client.get(&format!("/needs{how}")).send().status(), needs, "{how}");
        for path in ["/can", "/looks"] {
            let response = client.get(&format!("{path}{how}")).send();
            match can {
                Some(text) => {
                    assert_eq!((response.status(), &*response.text()), (200, text), "{path}{how}");
                }
                None => assert_eq!(response.status(), needs, "{path}{how}"),
            }
        }
    }
}

#[test]
fn an_answer_in_place_of_a_value_is_given_once_somebody_needs_it() {
    let made = Arc::new(AtomicUsize::new(0));
    let count = made.clone();
    let client = client(|app| {
        app.provide(move || -> std::result::Result<User, HttpError> {
            count.fetch_add(1, Ordering::SeqCst);
            Err(abort(401, "who?"))
        });
        app.before(|user: Option<&User>| assert!(user.is_none()));
        app.get("/", |user: &User| user.name.clone());
    });
    let response = client.get("/").send();
    assert_eq!(response.status(), 401);
    assert!(response.text().contains("who?"), "{}", response.text());
    assert_eq!(made.load(Ordering::SeqCst), 1);
}

#[test]
fn nothing_is_made_behind_an_argument_that_refuses() {
    let client = client(|app| {
        app.provide(|| -> std::result::Result<User, HttpError> { Err(abort(401, "who?")) });
        app.provide(|| -> Tenant { panic!("nobody needs it") });
        app.get("/", |_: &User, _: &Tenant| "x");
    });
    assert_eq!(client.get("/").send().status(), 401);
}

#[test]
fn a_batch_of_32_makes_a_value_for_each_request() {
    let log = Arc::default();
    let mut app = App::new();
    app.install(Counting::logging("n", &log)).unwrap();
    app.provide(|number: &mut Number| Tenant(number.0.to_string()));
    app.get("/", |tenant: &Tenant| tenant.0.clone());
    let service = app.build().unwrap();
    let request = || Request::new(Method::GET, "/".parse().unwrap());
    let mut batch: Vec<_> = (0..32).map(|_| Exchange::new(request())).collect();
    service.prepare(&mut batch);
    batch.iter_mut().for_each(|exchange| service.run(exchange));
    service.finish(&mut batch);
    for (number, exchange) in batch.into_iter().enumerate() {
        let body = exchange.into_response().into_bytes().unwrap();
        assert_eq!(body, (number + 1).to_string());
    }
    // Their session would have been loaded in one batch.
    let acquired = told(&log).iter().filter(|line| *line == "n acquires").count();
    assert_eq!(acquired, 1);
}
