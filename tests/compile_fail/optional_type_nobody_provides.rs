use bottle_session::App;

struct Clock;

fn main() {
    let mut app = App::new();
    app.get("/", |_clock: Option<&mut Clock>| "hello");
}
