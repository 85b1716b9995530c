//! A cart that is kept in the session as a type of one's own, errors of one's own with their answers, and how such an app is
//! tested.
//!
//! ```text
//! cargo run --example cart
//! curl -b jar -c jar -X POST localhost:8888/cart/tea
//! curl -b jar -c jar localhost:8888/cart
//! curl -b jar -c jar -X POST -H 'Accept: application/json' localhost:8888/cart/gold
//! ```
//! `/cart/read/x` fails, and shows in a browser what `debug(true)` tells the app's author.

use std::collections::BTreeMap;
use std::fmt;

use bottle_session::{App, Data, HttpError, Result, SessionPlugin, abort};
use serde::{Deserialize, Serialize};

/// What a visitor has chosen, and how many of each.
#[derive(Default, Deserialize, Serialize)]
struct Cart {
    items: BTreeMap<String, u32>,
}

/// What can go wrong in the shop.
#[derive(Debug)]
enum ShopError {
    NoSuchItem(String),
    TooMany(u32),
}

impl fmt::Display for ShopError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ShopError::NoSuchItem(item) => write!(f, "there is no {item}"),
            ShopError::TooMany(most) => write!(f, "more than {most}"),
        }
    }
}

impl std::error::Error for ShopError {}

impl Cart {
    /// Knows nothing of HTTP.
    fn add(&mut self, item: &str) -> Result<u32, ShopError> {
        if !["tea", "cup"].contains(&item) {
            return Err(ShopError::NoSuchItem(item.to_owned()));
        }
        let count = self.items.entry(item.to_owned()).or_default();
        if *count == 3 {
            return Err(ShopError::TooMany(3));
        }
        *count += 1;
        Ok(*count)
    }
}

fn main() -> Result<()> {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    let address = std::env::var("LISTEN").unwrap_or("127.0.0.1:8888".to_owned());
    app()?.run(&address)
}

pub(crate) fn app() -> Result<App> {
    let mut app = App::new();
    app.debug(cfg!(debug_assertions));
    app.install(SessionPlugin::new().in_memory())?;
    app.provide_data::<Cart>("cart");
    app.on_error(|error: &ShopError| match error {
        ShopError::NoSuchItem(item) => abort(404, format!("We do not sell {item}.")),
        ShopError::TooMany(most) => abort(409, format!("We sell {most} at a time.")),
    });

    app.get("/cart", |cart: &Data<Cart>| -> Result<String, HttpError> {
        Ok(serde_json::to_string(&cart.items)?)
    });
    app.post("/cart/<item>", |cart: &mut Data<Cart>, item: &str| -> Result<String, HttpError> {
        Ok(format!("{} of {item}\n", cart.add(item)?))
    });
    app.get("/cart/read/<number>", |number: &str| number.parse::<u32>().map(|n| n.to_string()));
    Ok(app)
}

#[test]
fn a_cart_keeps_what_was_chosen() {
    use bottle_session::TestClient;

    let client = TestClient::new(app().unwrap()).unwrap();
    assert_eq!(client.get("/cart").send().text(), "{}");
    for count in 1..=3 {
        assert_eq!(client.post("/cart/tea").send().text(), format!("{count} of tea\n"));
    }
    assert_eq!(client.post("/cart/tea").send().status(), 409);
    let refused = client.post("/cart/gold").header("accept", "application/json").send();
    assert_eq!(refused.text(), r#"{"error":"We do not sell gold.","status":404}"#);
    assert_eq!(client.get("/cart").send().text(), r#"{"tea":3}"#);
}
