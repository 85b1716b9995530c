use bottle_session::{App, HttpError};

fn main() {
    let mut app = App::new();
    app.provide(|| -> Result<Vec<u8>, HttpError> { Ok(Vec::new()) });
}
