use bottle_session::{App, Result};

struct Page;

fn page() -> Result<Page> {
    Ok(Page)
}

fn main() {
    let mut app = App::new();
    app.get("/", page);
}
