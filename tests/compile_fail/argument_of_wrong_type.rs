use bottle_session::{App, Session};

fn main() {
    let mut app = App::new();
    app.get("/<name>", |_session: &mut Session, _name: Vec<u8>| "hello");
}
