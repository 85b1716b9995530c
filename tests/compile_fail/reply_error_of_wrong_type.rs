use bottle_session::App;

fn page() -> Result<&'static str, String> {
    Ok("hello")
}

fn main() {
    let mut app = App::new();
    app.get("/", page);
}
