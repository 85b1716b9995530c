//! A route of a built app.

use std::fmt;
use std::panic::Location;

use http::{Extensions, Method};

use crate::pipeline::provider::ValueSource;

/// A route as plugins see it.
pub struct Route {
    pub(crate) methods: Vec<Method>,
    pub(crate) rules: Vec<String>,
    pub(crate) name: Option<String>,
    pub(crate) config: Extensions,
    pub(crate) location: &'static Location<'static>,
    pub(crate) body_limit: Option<u64>,
    pub(crate) scope: usize,
    pub(crate) wildcards: Vec<String>,
    /// For each rule and each wildcard of the route: its place among the rule's captures.
    pub(crate) places: Vec<Vec<Option<usize>>>,
    pub(crate) asks: Vec<Ask>,
    /// What there is on this route by its keyword, asked for or not.
    pub(crate) keywords: Vec<(String, ValueSource)>,
}

/// A slot that a route wants filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) slot: usize,
    /// False where every argument for it is an `Option`.
    pub(crate) required: bool,
}

impl Route {
    /// The methods; empty for a route that takes any.
    pub fn methods(&self) -> &[Method] {
        &self.methods
    }

    /// The rules as they were written, with the prefix of a mounted app.
    pub fn rules(&self) -> &[String] {
        &self.rules
    }

    /// The name, for building addresses.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// A setting of this type that the route was registered with.
    pub fn config<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.config.get()
    }

    /// Whether the handler, or a plugin on this route, asks for this keyword.
    pub fn asks_for(&self, keyword: &str) -> bool {
        match self.source_of(keyword) {
            Some(ValueSource::Plugin(slot)) => self.asks(slot),
            // Only those that somebody asks for are there.
            Some(ValueSource::Provider(_)) => true,
            Some(ValueSource::None) | None => false,
        }
    }

    /// Whether this stands in for a route where the app has none: it has no rules and no methods.
    pub fn is_stand_in(&self) -> bool {
        self.rules.is_empty()
    }

    /// Where the route was registered.
    pub fn location(&self) -> &'static Location<'static> {
        self.location
    }

    pub(crate) fn asks(&self, slot: usize) -> bool {
        self.asks.iter().any(|ask| ask.slot == slot)
    }

    pub(crate) fn asks_anything(&self) -> bool {
        !self.asks.is_empty()
    }

    pub(crate) fn source_of(&self, keyword: &str) -> Option<ValueSource> {
        self.keywords.iter().find(|known| known.0 == keyword).map(|known| known.1)
    }

    pub(crate) fn wildcard_index(&self, name: &str) -> Option<usize> {
        self.wildcards.iter().position(|known| known == name)
    }

    pub(crate) fn capture_index(&self, rule: usize, wildcard: usize) -> Option<usize> {
        *self.places.get(rule)?.get(wildcard)?
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Route({:?} {:?})", self.methods, self.rules)
    }
}
