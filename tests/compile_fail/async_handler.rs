use bottle_session::App;

fn main() {
    let mut app = App::new();
    app.get("/", async || "hello");
}
