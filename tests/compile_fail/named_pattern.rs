use bottle_session::{App, Json, named};

fn main() {
    let mut app = App::new();
    app.post("/text", |Json(text): Json<String>| text);
    app.post("/", named!(|Json(text): Json<String>| text));
}
