//! Addresses of named routes.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use crate::routing::Rule;
use crate::{Error, ErrorKind, Result};

/// Addresses of named routes: a handler's `&Urls` argument.
///
/// ```
/// use bottle_session::{App, Result, TestClient, Urls};
///
/// let mut app = App::new();
/// app.get("/item/<id:int>", |id: i64| id.to_string()).name("item");
/// app.get("/", |urls: &Urls| -> Result<String> { urls.build("item", &[("id", "7")]) });
/// assert_eq!(TestClient::new(app)?.get("/").send().text(), "/item/7");
/// # Ok::<(), bottle_session::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Urls {
    rules: Arc<HashMap<String, Vec<Rule>>>,
    prefix: String,
}

impl Urls {
    pub(crate) fn none() -> &'static Urls {
        static NONE: LazyLock<Urls> = LazyLock::new(Urls::default);
        &NONE
    }

    /// Adds a rule of the route of this name.
    pub(crate) fn add(&mut self, name: &str, rule: Rule) {
        Arc::make_mut(&mut self.rules).entry(name.to_owned()).or_default().push(rule);
    }

    /// The same addresses, for visitors who find the app below this path.
    pub(crate) fn below(&self, prefix: &str) -> Urls {
        Urls { rules: self.rules.clone(), prefix: prefix.to_owned() }
    }

    /// The address of the route of this name: its first rule that takes the given wildcards, each value
    /// percent-encoded. Arguments that are no wildcards become the query, as in Bottle's `get_url`. Where a trusted
    /// proxy said below which path the app is ([`Request::prefix`](crate::Request::prefix)), it begins with that.
    pub fn build(&self, name: &str, arguments: &[(&str, &str)]) -> Result<String> {
        let rules = self.rules.get(name).ok_or_else(|| {
            let mut known: Vec<_> = self.rules.keys().map(String::as_str).collect();
            known.sort_unstable();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            Error::new(ErrorKind::Route, format!("no route is named {name:?}; named are: {known}"))
        })?;
        // The rule that uses most of the arguments says what the caller meant.
        let fitting = rules
            .iter()
            .filter(|rule| rule.wildcards().all(|w| arguments.iter().any(|given| given.0 == w)))
            .max_by_key(|rule| rule.wildcards().count());
        match fitting.or(rules.first()) {
            Some(rule) => Ok(format!("{}{}", self.prefix, rule.build(arguments)?)),
            None => Err(Error::new(ErrorKind::Route, format!("route {name:?} has no rule"))),
        }
    }
}
