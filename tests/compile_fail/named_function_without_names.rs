use bottle_session::{App, named};

fn hello(name: &str) -> String {
    format!("hello, {name}")
}

fn main() {
    let mut app = App::new();
    app.get("/<name>", named!(hello));
}
