//! Errors of providers that cannot work.

use super::*;

#[test]
fn skipped_and_uninstalled_providers_are_not_there() {
    let provider = |app: &mut App| {
        app.provide(|| Number(7));
    };
    let error = build_error(|app| {
        provider(app);
        app.get("/x", |_: &Number| "x").skip("number");
    });
    assert!(
        error.contains("route /x: argument 1 asks for tests::app::Number, but the route skips plugin \"number\""),
        "{error}"
    );
    let error = build_error(|app| {
        provider(app);
        app.get("/x", || "x").skip_keyword("numbers");
    });
    assert!(error.contains("keyword \"numbers\"; known: number"), "{error}");
    let client = client(|app| {
        provider(app);
        app.get("/own", |n: &mut Number| n.0.to_string())
            .skip_keyword("number")
            .apply(Counting::new("number", 0));
        app.get("/app", |n: &mut Number| n.0.to_string());
    });
    assert_eq!(client.get("/own").send().text(), "1");
    assert_eq!(client.get("/app").send().text(), "7");
    let mut app = App::new();
    provider(&mut app);
    assert!(app.uninstall_keyword("number"));
    assert_eq!(app.uninstall("number"), 0);
    app.get("/", |_: &Number| "x");
    assert!(app.build().is_err());
}

#[test]
fn what_a_provider_cannot_have_is_said_with_both_places() {
    let place = |line: u32| format!("tests/app/providers/errors.rs:{line}");
    // Nobody provides it.
    let line = line!() + 2;
    let error = build_error(|app| {
        app.provide(|tenant: &Tenant| Number(tenant.0.len()));
        app.get("/x", |number: &Number| number.0.to_string());
        app.get("/y", |number: &Number| number.0.to_string());
    });
    assert_eq!(
        error,
        format!(
            "the provider of tests::app::Number (keyword \"number\"): argument 1 asks for \
             tests::app::providers::Tenant, which no installed plugin, provider or state provides; install one \
             before the app is built; known keywords: number; it is for route /x at {} (at {})",
            place(line + 1),
            place(line)
        )
    );
    // Nobody asks for it, and it cannot work all the same.
    let error = build_error(|app| {
        app.provide(|tenant: &Tenant| Number(tenant.0.len()));
    });
    assert!(error.contains("argument 1 asks for tests::app::providers::Tenant"), "{error}");
    // Two provide it.
    let line = line!() + 2;
    let error = build_error(|app| {
        app.provide(|| Number(1)).keyword("one");
        app.provide(|| Number(2)).keyword("two");
        app.provide(|number: &Number| Tenant(number.0.to_string()));
    });
    let expected = format!(
        "asks for tests::app::Number, which keywords \"one\" and \"two\" provide (at {} and {}); say which with named!(",
        place(line),
        place(line + 1)
    );
    assert!(error.contains(&expected), "{error}");
    // A handler borrows a value once.
    let error = build_error(|app| {
        app.provide(|| Number(1));
        app.get("/", |_: &Number, _: &mut Number| "x");
    });
    assert!(error.contains("argument 2 asks a second time for keyword \"number\""), "{error}");
    // A circle, told once, wherever it is entered.
    let line = line!() + 2;
    let error = build_error(|app| {
        app.provide(|tenant: &Tenant| Number(tenant.0.len()));
        app.provide(|user: &User| Tenant(user.name.clone()));
        app.provide(|number: &Number| User { name: number.0.to_string() });
        app.get("/x", |user: &User| user.name.clone());
        app.get("/y", |tenant: &Tenant| tenant.0.clone());
    });
    assert_eq!(
        error,
        format!(
            "providers need each other: tests::app::Number (keyword \"number\", at {0}) asks for \
             tests::app::providers::Tenant (keyword \"tenant\", at {1}) asks for \
             tests::app::providers::User (keyword \"user\", at {2}) asks for \
             tests::app::Number (keyword \"number\", at {0}) (at {0})",
            place(line),
            place(line + 1),
            place(line + 2)
        )
    );
    // One that needs itself.
    let error = build_error(|app| {
        app.provide(|number: &Number| Number(number.0));
    });
    assert!(error.starts_with("providers need each other: tests::app::Number"), "{error}");
}

#[test]
fn a_keyword_is_had_once_by_providers_too() {
    let error = build_error(|app| {
        app.provide(|| Number(1));
        app.provide(|| Number(2));
    });
    assert!(error.contains("cannot have keyword \"number\", which the provider of tests::app::Number at tests/app/providers/errors.rs:"), "{error}");
    let error = build_error(|app| {
        app.provide(|| Tenant(String::new())).keyword("n");
        app.install(Counting::new("n", 0)).unwrap();
    });
    assert!(
        error.contains("\"counting\" cannot have keyword \"n\", which the provider of"),
        "{error}"
    );
}
