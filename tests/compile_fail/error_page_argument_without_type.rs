use bottle_session::App;

fn main() {
    let mut app = App::new();
    app.error(404, |error, _request| error.message().to_owned());
}
