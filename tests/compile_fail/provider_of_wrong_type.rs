use bottle_session::{App, Session};

struct User;

fn main() {
    let mut app = App::new();
    app.provide(|_session: &mut Session| User);
}
