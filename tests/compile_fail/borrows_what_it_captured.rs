use bottle_session::App;

fn main() {
    let mut app = App::new();
    let greeting = String::from("hello");
    app.get("/", || greeting.clone());
}
