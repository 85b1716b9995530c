use bottle_session::{App, Html, Response, Session, redirect};

fn main() {
    let mut app = App::new();
    app.get("/", |session: &mut Session| -> Response {
        if session.get("name").is_none() {
            return redirect("/login");
        }
        Html("<b>hello</b>")
    });
}
