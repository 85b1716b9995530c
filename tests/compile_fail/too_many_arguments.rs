use bottle_session::App;

fn main() {
    let mut app = App::new();
    app.get(
        "/<a>/<b>/<c>/<d>/<e>/<f>/<g>/<h>/<i>",
        |a: u8, b: u8, c: u8, d: u8, e: u8, f: u8, g: u8, h: u8, i: u8| {
            (a + b + c + d + e + f + g + h + i).to_string()
        },
    );
}
