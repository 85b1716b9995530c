use std::cell::Cell;

use bottle_session::App;

fn main() {
    let mut app = App::new();
    let visits = Cell::new(0);
    app.get("/", move || {
        visits.set(visits.get() + 1);
        "hello"
    });
}
