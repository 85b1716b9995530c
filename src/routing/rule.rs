//! Rules: matching paths and building addresses. `rule_parser` parses their text.

use std::fmt;
use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::captures::Captures;
use super::filter::{Filter, Filters};
use super::path::{decoded_path, split, split_before};
use super::rule_parser::{self, Part};
use super::segment::{SegmentPattern, Token};
use crate::{Error, ErrorKind, Result};

/// What a path may hold as it is: RFC 3986 section 3.3, pchar without `%`, and the slash.
const PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=')
    .remove(b':')
    .remove(b'@')
    .remove(b'/');

/// A rule that was read.
#[derive(Clone)]
pub struct Rule(Arc<Inner>);

struct Inner {
    text: String,
    parts: Vec<Part>,
    /// How many of its wildcards have a name.
    named: usize,
    shape: Shape,
}

/// What the rules of a mounted app stand behind: a rule itself, with the filters of the app around.
#[derive(Clone, Debug, Default)]
pub struct Prefix {
    text: String,
    parts: Vec<Part>,
}

#[derive(Debug)]
pub(super) enum Shape {
    /// No wildcards: the decoded path must be this.
    Static(String),
    /// One step after another, each behind a slash.
    Steps(Vec<Step>),
}

/// What a rule wants next of a path.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// A segment that is this text.
    Text(String),
    /// A segment that the pattern takes.
    Segment(SegmentPattern),
    /// All segments but the last `after`, which the pattern takes.
    Span { pattern: SegmentPattern, after: usize },
}

impl Prefix {
    /// The prefix of an app that is mounted at this rule, below this one.
    pub fn join(&self, at: &str, filters: &Filters) -> Result<Prefix> {
        match at.trim_end_matches('/') {
            "" => Ok(self.clone()),
            at => Ok(Prefix { text: self.text_with(at), parts: self.parts_with(at, filters)? }),
        }
    }

    /// Whether it is that of the outermost app.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// How many segments it has, where each of its wildcards is one.
    pub fn depth(&self) -> Option<usize> {
        self.parts.iter().try_fold(0, |depth, part| match part {
            Part::Text(text) => Some(depth + text.matches('/').count()),
            Part::Wildcard { filter, .. } => (!filter.spans()).then_some(depth),
        })
    }

    /// Reads a rule behind this prefix. An empty one is the prefix itself.
    pub fn rule(&self, text: &str, filters: &Filters) -> Result<Rule> {
        let parts = match text.is_empty() && !self.parts.is_empty() {
            true => self.parts.clone(),
            false => self.parts_with(text, filters)?,
        };
        Rule::of(self.text_with(text), parts)
    }

    /// The text of a rule behind this prefix.
    pub fn text_with(&self, text: &str) -> String {
        format!("{}{text}", self.text)
    }

    fn parts_with(&self, text: &str, filters: &Filters) -> Result<Vec<Part>> {
        let more = rule_parser::parse(text, filters, &self.parts)?;
        Ok(linked(self.parts.iter().cloned().chain(more)))
    }
}

impl Rule {
    /// Reads a rule.
    pub fn parse(text: &str, filters: &Filters) -> Result<Rule> {
        Prefix::default().rule(text, filters)
    }

    fn of(text: String, parts: Vec<Part>) -> Result<Rule> {
        let shape = shape(&parts).map_err(|error| {
            let what =
                format!("rule {text:?} cannot be matched: its filters together are too much");
            Error::new(ErrorKind::Rule, what).with_source(error)
        })?;
        let named = parts
            .iter()
            .filter(|part| matches!(part, Part::Wildcard { name: Some(_), .. }))
            .count();
        Ok(Rule(Arc::new(Inner { text, parts, named, shape })))
    }

    /// The rule as it was written.
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// The names of its wildcards, in order.
    pub fn wildcards(&self) -> impl Iterator<Item = &str> {
        self.filters().filter_map(|(name, _)| name)
    }

    /// Whether it has a wildcard of this name with the filter `float`.
    pub(crate) fn has_float(&self, wildcard: &str) -> bool {
        self.filters().any(|(name, filter)| name == Some(wildcard) && filter.is_float())
    }

    fn filters(&self) -> impl Iterator<Item = (Option<&str>, &Filter)> {
        self.0.parts.iter().filter_map(|part| match part {
            Part::Text(_) => None,
            Part::Wildcard { name, filter } => Some((name.as_deref(), filter)),
        })
    }

    pub(super) fn shape(&self) -> &Shape {
        &self.0.shape
    }

    /// What two rules have in common that match the same paths: the rule without its wildcards' names.
    pub(super) fn pattern(&self) -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => text.replace('\\', r"\\").replace('<', r"\<"),
            // Quoted, so that a filter cannot pass for its end and a text behind it.
            Part::Wildcard { filter, .. } => format!("<{:?}>", filter.identity()),
        };
        self.0.parts.iter().map(part).collect()
    }

    /// The values of the named wildcards, if the decoded path matches and every filter converts.
    pub(super) fn captures(&self, path: &str) -> Option<Captures> {
        let steps = match &self.0.shape {
            Shape::Static(text) => return (text == path).then(Captures::default),
            Shape::Steps(steps) => steps,
        };
        let mut values = Captures::with_capacity(self.0.named, path.len());
        let mut filters = self.filters();
        let mut receive = |text| {
            let (name, filter) = filters.next()?;
            let value = filter.convert(text)?;
            if name.is_some() {
                values.push(&value);
            }
            Some(())
        };
        let mut rest = path.strip_prefix('/');
        for step in steps {
            rest = match step {
                Step::Text(text) => {
                    let (head, below) = split(rest?);
                    (head == text).then_some(below)?
                }
                Step::Segment(pattern) => {
                    let (head, below) = split(rest?);
                    pattern.take(head, &mut receive)?;
                    below
                }
                Step::Span { pattern, after } => {
                    let (head, below) = split_before(rest?, *after)?;
                    pattern.take(head, &mut receive)?;
                    below
                }
            };
        }
        rest.is_none().then_some(values)
    }

    /// The path for these values, each percent-encoded, and with what is no wildcard as the query.
    ///
    /// The path leads back to this rule and these values, or it is an error.
    pub fn build(&self, arguments: &[(&str, &str)]) -> Result<String> {
        let refused = |why: String| {
            Error::new(ErrorKind::Route, format!("cannot build rule {:?}: {why}", self.0.text))
        };
        let mut path = String::new();
        let mut given = Vec::new();
        for part in &self.0.parts {
            match part {
                Part::Text(text) => path.push_str(text),
                Part::Wildcard { name: None, .. } => {
                    return Err(refused("it has a wildcard without a name".to_owned()));
                }
                Part::Wildcard { name: Some(name), filter } => {
                    let value = arguments.iter().find(|argument| argument.0 == name);
                    let value =
                        value.ok_or_else(|| refused(format!("no value for <{name}> was given")))?.1;
                    given.push(value);
                    path.push_str(&filter.text_for(value).ok_or_else(|| {
                        let would_do = match value.contains('/') && !filter.spans() {
                            true => format!("; a value with a slash needs <{name}:path>"),
                            false => String::new(),
                        };
                        refused(format!(
                            "{value:?} is no value for <{name}>, which is {filter}{would_do}"
                        ))
                    })?);
                }
            }
        }
        let mut path = utf8_percent_encode(&path, PATH).to_string();
        if path.starts_with("//") {
            // In a link this would be another host: RFC 3986 section 4.2.
            path.replace_range(1..2, "%2F");
        }
        let back = decoded_path(&path).and_then(|path| self.captures(&path));
        let leads_back = back.is_some_and(|values| {
            given.iter().enumerate().all(|(index, value)| values.get(index) == Some(value))
        });
        let dots = path.split('/').any(|segment| segment == "." || segment == "..");
        if !leads_back || dots {
            return Err(refused(format!("{path:?} would not lead back to the same values")));
        }
        let query: Vec<_> =
            arguments.iter().filter(|given| !self.wildcards().any(|w| w == given.0)).collect();
        if !query.is_empty() {
            let mut text = form_urlencoded::Serializer::new(String::new());
            text.extend_pairs(query);
            path.push('?');
            path.push_str(&text.finish());
        }
        Ok(path)
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rule({:?})", self.0.text)
    }
}

fn shape(parts: &[Part]) -> Result<Shape, regex::Error> {
    if let [Part::Text(text)] = parts {
        return Ok(Shape::Static(text.clone()));
    }
    let mut segments = segments(parts);
    let spans = |segment: &Vec<Part>| {
        segment.iter().any(|part| matches!(part, Part::Wildcard { filter, .. } if filter.spans()))
    };
    let first = segments.iter().position(spans);
    let mut after = None;
    if let (Some(first), Some(last)) = (first, segments.iter().rposition(spans)) {
        let behind = segments.split_off(last + 1);
        let span = segments.split_off(first);
        after = Some(behind.len());
        segments.push(joined(span));
        segments.extend(behind);
    }
    let step = |(at, segment): (usize, Vec<Part>)| {
        Ok(match (segment.as_slice(), after) {
            ([], _) => Step::Text(String::new()),
            ([Part::Text(text)], _) => Step::Text(text.clone()),
            (pattern, Some(after)) if Some(at) == first => {
                Step::Span { pattern: self::pattern(pattern)?, after }
            }
            (pattern, _) => Step::Segment(self::pattern(pattern)?),
        })
    };
    Ok(Shape::Steps(segments.into_iter().enumerate().map(step).collect::<Result<_, _>>()?))
}

/// The parts between the slashes.
fn segments(parts: &[Part]) -> Vec<Vec<Part>> {
    let mut segments = Vec::new();
    let mut segment = Vec::new();
    for part in parts {
        let Part::Text(text) = part else {
            segment.push(part.clone());
            continue;
        };
        for (number, text) in text.split('/').enumerate() {
            if number > 0 {
                segments.push(std::mem::take(&mut segment));
            }
            if !text.is_empty() {
                segment.push(Part::Text(text.to_owned()));
            }
        }
    }
    segments.push(segment);
    // What is before the first slash: nothing.
    segments.remove(0);
    segments
}

/// Segments as one, with their slashes.
fn joined(segments: Vec<Vec<Part>>) -> Vec<Part> {
    linked(segments.into_iter().enumerate().flat_map(|(number, segment)| {
        let slash = (number > 0).then(|| Part::Text("/".to_owned()));
        slash.into_iter().chain(segment)
    }))
}

/// The parts, texts that stand side by side as one.
fn linked(all: impl Iterator<Item = Part>) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for part in all {
        match (parts.last_mut(), part) {
            (Some(Part::Text(text)), Part::Text(more)) => text.push_str(&more),
            (_, part) => parts.push(part),
        }
    }
    parts
}

fn pattern(parts: &[Part]) -> Result<SegmentPattern, regex::Error> {
    let token = |part: &Part| match part {
        Part::Text(text) => Token::Text(text.clone()),
        Part::Wildcard { filter, .. } => filter.token(),
    };
    let filters = parts.iter().filter_map(|part| match part {
        Part::Text(_) => None,
        Part::Wildcard { filter, .. } => Some(filter),
    });
    SegmentPattern::new(parts.iter().map(token).collect(), &filters.collect::<Vec<_>>())
}
