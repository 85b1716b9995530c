use bottle_session::App;

fn main() {
    let mut app = App::new();
    let mut visits = 0;
    app.get("/", move || {
        visits += 1;
        "hello"
    });
}
