use bottle_session::{App, Session};

fn main() {
    let mut app = App::new();
    app.get("/", |_session: &Session| "hello");
}
