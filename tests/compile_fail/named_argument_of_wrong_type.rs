use bottle_session::{App, Session, named};

fn main() {
    let mut app = App::new();
    app.get("/<name>", named!(|_session: &mut Session, _name: Vec<u8>| "hello"));
}
