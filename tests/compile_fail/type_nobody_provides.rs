use bottle_session::App;

struct Clock;

fn main() {
    let mut app = App::new();
    app.get("/", |_clock: &mut Clock| "hello");
}
