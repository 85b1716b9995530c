use bottle_session::{App, abort};

struct ShopError;

fn main() {
    let mut app = App::new();
    app.on_error(|_error: &ShopError| abort(404, "no such item"));
}
