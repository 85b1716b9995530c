use bottle_session::{App, abort};

fn main() {
    let mut app = App::new();
    app.on_error(|error| abort(404, error.to_string()));
}
