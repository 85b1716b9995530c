//! Two plugins: one that provides a value of its own type, one that only wraps callbacks.
//!
//! ```text
//! cargo run --example own_plugin
//! curl -i localhost:8888/
//! curl -i localhost:8888/plain
//! ```

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bottle_session::{App, Batch, Callback, Plugin, Provided, Provision, Result, Route};

/// The number of the request, for a handler that asks for `&mut Ticket`.
struct Ticket(u64);

impl Provided for Ticket {}

#[derive(Default)]
struct Tickets {
    next: AtomicU64,
}

impl Plugin for Tickets {
    fn name(&self) -> &str {
        "tickets"
    }

    fn provides(&self) -> Option<Provision> {
        Some(Provision::of::<Ticket>("ticket"))
    }

    fn acquire(&self, batch: &mut Batch<'_>) {
        for mut entry in batch.iter_mut() {
            entry.put(Ticket(self.next.fetch_add(1, Ordering::Relaxed) + 1));
        }
    }
}

/// Says in a header how long the handler took.
struct Timing;

impl Plugin for Timing {
    fn name(&self) -> &str {
        "timing"
    }

    fn apply(&self, callback: Callback, _route: &Route) -> Callback {
        Callback::new(move |exchange| {
            let start = Instant::now();
            let response = callback.call(exchange);
            let took = start.elapsed().as_secs_f64() * 1000.0;
            response.with_header("server-timing", format!("app;dur={took:.3}"))
        })
    }
}

fn main() -> Result<()> {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    let address = std::env::var("LISTEN").unwrap_or("127.0.0.1:8888".to_owned());
    println!("Listening on http://{address}");
    app()?.run(&address)
}

fn app() -> Result<App> {
    let mut app = App::new();
    app.install(Timing)?;
    app.install(Tickets::default())?;
    app.get("/", |ticket: &mut Ticket| format!("You have ticket {}.\n", ticket.0));
    app.get("/plain", || "No ticket was drawn.\n").skip("timing");
    Ok(app)
}

#[test]
fn only_who_asks_draws_a_ticket() {
    use bottle_session::TestClient;

    let client = TestClient::new(app().unwrap()).unwrap();
    assert_eq!(client.get("/").send().text(), "You have ticket 1.\n");
    let plain = client.get("/plain").send();
    assert_eq!(plain.header("server-timing"), None);
    let second = client.get("/").send();
    assert_eq!(second.text(), "You have ticket 2.\n");
    assert!(second.header("server-timing").unwrap().starts_with("app;dur="));
}
