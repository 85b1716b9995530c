//! The router: which rule a path belongs to.
//!
//! Order, as in Bottle: for each of the request's verbs (HEAD: HEAD, GET; else the method; then ANY)
//! static rules first, then dynamic ones in the order of their declaration; the first match wins. A value
//! that its filter or its argument cannot hold does not match, and the search goes on.
//!
//! Static rules are found in a hash map, and dynamic ones in a tree of their segments, so that a match takes
//! as long among a thousand as among ten. A regex only runs for a wildcard that has one.

mod captures;
mod filter;
mod hash;
mod path;
mod rule;
mod rule_parser;
mod segment;
mod tree;

use std::collections::HashMap;

use http::Method;

pub use captures::Captures;
pub use filter::{Filter, Filters};
use hash::RuleMap;
use path::decoded_path;
use rule::Shape;
pub use rule::{Prefix, Rule};
use tree::{Node, Numbers};

/// Whether an argument accepts the value of a wildcard.
pub(crate) type Accepts = fn(&str) -> bool;

/// Rules and what they lead to.
pub struct Router<T> {
    routes: Vec<Entry<T>>,
    statics: RuleMap<Vec<usize>>,
    tree: Node,
    /// Rules by their pattern, to find conflicts.
    patterns: HashMap<String, Vec<usize>>,
}

struct Entry<T> {
    /// `None` is ANY.
    method: Option<Method>,
    rule: Rule,
    value: T,
}

/// What the search came to.
#[derive(Debug)]
pub enum Found<'a, T> {
    /// A rule matched.
    Match {
        /// What it leads to.
        value: &'a T,
        /// The values of its wildcards.
        captures: Captures,
    },
    /// No rule matches the path.
    Nothing,
    /// Rules match the path, for these methods only.
    MethodNotAllowed(Vec<Method>),
    /// The path has a malformed escape, or is not UTF-8 once decoded.
    BadPath,
}

impl<T> Default for Router<T> {
    fn default() -> Router<T> {
        Router {
            routes: Vec::new(),
            statics: RuleMap::default(),
            tree: Node::default(),
            patterns: HashMap::new(),
        }
    }
}

impl<T> Router<T> {
    /// A router without rules.
    pub fn new() -> Router<T> {
        Router::default()
    }

    /// Adds a rule; a method of `None` is ANY. The error is what the same method and pattern lead to
    /// already.
    pub fn insert(&mut self, method: Option<Method>, rule: Rule, value: T) -> Result<(), &T> {
        let number = self.routes.len();
        let same = self.patterns.entry(rule.pattern()).or_default();
        if let Some(other) = same.iter().find(|other| self.routes[**other].method == method) {
            return Err(&self.routes[*other].value);
        }
        same.push(number);
        match rule.shape() {
            Shape::Static(text) => self.statics.entry(text.clone()).or_default().push(number),
            Shape::Steps(steps) => self.tree.insert(steps, number),
        }
        self.routes.push(Entry { method, rule, value });
        Ok(())
    }

    /// The methods of all rules, with those that come by themselves: what `OPTIONS *` asks for.
    pub fn methods(&self) -> Vec<Method> {
        allowed(self.routes.iter().filter_map(|entry| entry.method.as_ref()))
    }

    /// Finds the rule for a request. `accept` may refuse a match; the search then goes on.
    pub fn find(
        &self,
        method: &Method,
        raw_path: &str,
        mut accept: impl FnMut(&T, &Captures) -> bool,
    ) -> Found<'_, T> {
        let Some(path) = decoded_path(raw_path) else { return Found::BadPath };
        let statics = self.statics.get(path.as_ref()).map_or(&[][..], Vec::as_slice);
        let mut dynamic = None;
        let verbs = [Some(method), (method == Method::HEAD).then_some(&Method::GET)];
        let verbs = verbs.into_iter().flatten().map(Some).chain([None]);
        let mut matches = |number: usize, verb: Option<&Method>| {
            let entry = &self.routes[number];
            if verb != entry.method.as_ref() {
                return None;
            }
            let captures = entry.rule.captures(&path)?;
            accept(&entry.value, &captures).then_some((&entry.value, captures))
        };
        for verb in verbs {
            let found = statics.iter().find_map(|number| matches(*number, verb)).or_else(|| {
                let dynamic = dynamic.get_or_insert_with(|| self.candidates(&path));
                dynamic.iter().find_map(|number| matches(*number, verb))
            });
            if let Some((value, captures)) = found {
                return Found::Match { value, captures };
            }
        }
        let candidates = dynamic.unwrap_or_default();
        let all = statics.iter().chain(&candidates);
        let allowed = self.allowed(all, &path, accept);
        if allowed.is_empty() { Found::Nothing } else { Found::MethodNotAllowed(allowed) }
    }

    /// The numbers of the dynamic rules that match but for their values, in the order of declaration.
    fn candidates(&self, path: &str) -> Numbers {
        let mut found = Numbers::new();
        self.tree.search(path.strip_prefix('/'), &mut found);
        found.sort_unstable();
        found
    }

    /// The methods that the path has, with those that come by themselves (RFC 9110 section 10.2.1).
    fn allowed<'a>(
        &self,
        candidates: impl Iterator<Item = &'a usize>,
        path: &str,
        mut accept: impl FnMut(&T, &Captures) -> bool,
    ) -> Vec<Method> {
        allowed(candidates.filter_map(|number| {
            let entry = &self.routes[*number];
            let captures = entry.rule.captures(path)?;
            entry.method.as_ref().filter(|_| accept(&entry.value, &captures))
        }))
    }
}

/// The methods and those that come by themselves (RFC 9110 section 10.2.1), each once, sorted.
fn allowed<'a>(methods: impl Iterator<Item = &'a Method>) -> Vec<Method> {
    let mut allowed: Vec<Method> = Vec::new();
    for method in methods {
        let head = (method == Method::GET).then_some(&Method::HEAD);
        for method in [Some(method), head, Some(&Method::OPTIONS)].into_iter().flatten() {
            if !allowed.contains(method) {
                allowed.push(method.clone());
            }
        }
    }
    allowed.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
    allowed
}

#[cfg(test)]
mod tests;
