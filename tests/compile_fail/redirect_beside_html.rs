use bottle_session::{App, Html, Session, redirect};

fn main() {
    let mut app = App::new();
    app.get("/", |session: &mut Session| {
        if session.get("name").is_none() {
            return redirect("/login");
        }
        Html("<b>hello</b>")
    });
}
