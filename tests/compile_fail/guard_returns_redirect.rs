use bottle_session::{App, Session, redirect};

fn main() {
    let mut app = App::new();
    app.before(|_session: &mut Session| redirect("/login"));
}
