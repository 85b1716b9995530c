use std::cell::Cell;

use bottle_session::{App, Own};

fn main() {
    let mut app = App::new();
    app.state(Own(Cell::new(0)));
}
