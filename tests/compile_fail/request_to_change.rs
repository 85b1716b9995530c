use bottle_session::{App, Request};

fn main() {
    let mut app = App::new();
    app.get("/", |request: &mut Request| request.path().to_owned());
}
