use bottle_session::{App, Request, redirect};

fn main() {
    let mut app = App::new();
    app.before_request(|_request: &mut Request| redirect("/login"));
}
