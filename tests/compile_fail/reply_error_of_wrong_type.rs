use bottle_session::App;

struct ShopError;

fn page() -> Result<&'static str, ShopError> {
    Ok("hello")
}

fn main() {
    let mut app = App::new();
    app.get("/", page);
}
