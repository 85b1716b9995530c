use bottle_session::{App, Provided, Session};

struct User;

impl Provided for User {}

fn main() {
    let mut app = App::new();
    app.provide(|_session: Session| User);
}
