//! Errors of an app that cannot work.

use super::*;

#[test]
fn all_that_cannot_work_is_said_at_once_with_its_place() {
    let error = build_error(|app| {
        app.get("/user/<id:imt>", || "x");
        app.get("/n", |_: &mut Number| "x");
        app.get("/w", |_: &str| "x");
        app.get("/twice/<a>", || "x");
        app.get("/twice/<b>", || "x");
    });
    let lines: Vec<_> = error.lines().collect();
    assert_eq!(lines[0], "4 registrations cannot work");
    for (line, expected) in lines[1..].iter().zip([
        "unknown filter \"imt\" in rule \"/user/<id:imt>\", column 11; known: int, float, path, re (at tests/app/build_errors.rs:",
        "route /n: argument 1 asks for tests::app::Number, which no installed plugin, provider or state provides",
        "route /w: argument 1 takes wildcard number 1 of the rule, which has 0",
        "GET /twice/<b> is registered already, as /twice/<a> at tests/app/build_errors.rs:",
    ]) {
        assert!(line.contains(expected), "{line}\nlacks {expected}");
        assert!(line.contains("(at tests/app/build_errors.rs:"), "{line}");
    }
}

#[test]
fn what_an_argument_cannot_have_is_explained() {
    let two = |app: &mut App| {
        app.install(Counting::new("a", 0)).unwrap();
        app.install(Counting::new("b", 0)).unwrap();
    };
    let table: Vec<(String, &str)> = vec![
        (
            build_error(|app| {
                two(app);
                app.get("/", |_: &mut Number| "x");
            }),
            "argument 1 asks for tests::app::Number, which keywords \"a\" and \"b\" provide (at tests/app/build_errors.rs:",
        ),
        (
            build_error(|app| {
                two(app);
                app.get("/", named!(|c: &mut Number| c.0.to_string()));
            }),
            "argument \"c\" asks for tests::app::Number, but no installed plugin has keyword \"c\"; known keywords: a, b",
        ),
        (
            build_error(|app| {
                app.install(Counting::new("a", 0)).unwrap();
                app.get("/", |_: &mut Number| "x").skip("counting");
            }),
            "but the route skips plugin \"counting\" (keyword \"a\")",
        ),
        (
            build_error(|app| {
                app.install(Counting::new("a", 0)).unwrap();
                app.get("/", |_: &mut Number, _: &mut Number| "x");
            }),
            "argument 2 asks a second time for keyword \"a\"",
        ),
        (
            build_error(|app| {
                app.get(["/a", "/a/<x>"], |_: &str| "x");
            }),
            "argument 1 takes wildcard <x>, which rule \"/a\" lacks; make it an Option",
        ),
        (
            build_error(|app| {
                app.get("/<x>/<y>", |_: &str| "x");
            }),
            "the handler takes 1 of the rule's 2 wildcards (<x>, <y>)",
        ),
        (
            build_error(|app| {
                app.get(["/a/<x>/<y>", "/b/<y>/<x>"], |_: &str, _: &str| "x");
            }),
            "has its wildcards in another order",
        ),
        (
            build_error(|app| {
                app.get("/<x>", named!(|y: &str| y.to_owned()));
            }),
            "the rule has none named <y>; its wildcards: <x>",
        ),
        (
            build_error(|app| {
                app.route("NOT A METHOD", "/", || "x");
            }),
            "\"NOT A METHOD\" is no HTTP method",
        ),
        (
            build_error(|app| {
                app.get("/a", || "x").name("n");
                app.get("/b", || "x").name("n");
            }),
            "two routes are named \"n\"",
        ),
    ];
    for (error, expected) in table {
        assert!(error.contains(expected), "{error}\nlacks {expected}");
        assert!(error.contains("(at tests/app/build_errors.rs:"), "{error}");
    }
}
