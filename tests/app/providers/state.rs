//! State of the app.

use super::*;

#[test]
fn state_is_shared_by_all_requests_and_asked_for_by_reference() {
    #[derive(Default)]
    struct Visits(AtomicUsize);
    impl Provided for Visits {}
    let client = client(|app| {
        app.state(Visits::default());
        app.state(Own(vec![1u8, 2]));
        app.get("/", |visits: &Visits, again: &Visits, list: &Own<Vec<u8>>| {
            again.0.fetch_add(1, Ordering::SeqCst);
            format!("{} {}", visits.0.load(Ordering::SeqCst), list.len())
        });
        app.get("/option", |visits: Option<&Visits>| visits.is_some().to_string());
        app.get("/all", |visits: &Visits| visits.0.load(Ordering::SeqCst).to_string()).skip_all();
    });
    assert_eq!(client.get("/").send().text(), "1 2");
    assert_eq!(client.get("/").send().text(), "2 2");
    assert_eq!(client.get("/option").send().text(), "true");
    assert_eq!(client.get("/all").send().text(), "2");
    for (error, expected) in [
        (
            build_error(|app| {
                app.get("/", |_: &Visits| "x");
            }),
            "Visits, which no installed plugin, provider or state provides",
        ),
        (
            build_error(|app| {
                app.state(Own(vec![1i32]));
                app.get("/", |_: &Own<Vec<u8>>| "x");
            }),
            "no plugin that provides anything is installed; state: bottle_session::Own<alloc::vec::Vec<i32>>",
        ),
        (
            build_error(|app| {
                app.state(Visits::default());
                app.get("/", |_: &mut Visits| "x");
            }),
            "Visits, which is state of the app, and shared: ask for &tests",
        ),
        (
            build_error(|app| {
                app.state(Visits::default());
                app.state(Visits::default());
            }),
            "as its state already, given at tests/app/providers/state.rs:",
        ),
    ] {
        assert!(error.contains(expected), "{error}");
    }
}
