use bottle_session::{App, Session};

struct Page;

fn main() {
    let mut app = App::new();
    app.get("/", |_session: &mut Session| Page);
}
