use bottle_session::{App, Session};

fn name(session: &mut Session) -> Option<&str> {
    session.get("name")
}

fn main() {
    let mut app = App::new();
    app.get("/", name);
}
