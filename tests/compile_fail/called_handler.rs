use bottle_session::App;

fn hello() -> &'static str {
    "hello"
}

fn main() {
    let mut app = App::new();
    app.get("/", hello());
}
