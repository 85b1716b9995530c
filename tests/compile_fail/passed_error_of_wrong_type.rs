use bottle_session::{App, HttpError};

struct ShopError;

fn price() -> Result<u32, ShopError> {
    Ok(7)
}

fn main() {
    let mut app = App::new();
    app.get("/", || -> Result<String, HttpError> { Ok(price()?.to_string()) });
}
