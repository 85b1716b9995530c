use std::rc::Rc;

use bottle_session::App;

fn main() {
    let mut app = App::new();
    let greeting = Rc::new(String::from("hello"));
    app.get("/", move || greeting.to_string());
}
