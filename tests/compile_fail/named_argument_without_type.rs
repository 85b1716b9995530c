use bottle_session::{App, named};

fn main() {
    let mut app = App::new();
    app.get("/<name>", named!(|name| format!("hello, {name}")));
}
