use bottle_session::App;

fn main() {
    let mut app = App::new();
    app.get("/", || -> Result<String, String> { Err("no".to_owned()) });
}
