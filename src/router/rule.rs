//! Rules: one grammar, read and built.
//!
//! ```text
//! rule     = "/" (text | wildcard)*
//! wildcard = "<" [name] [":" filter [":" config]] ">"
//! ```
//!
//! `\<`, `\>`, `\:` and `\\` stand for the character; `:` needs no escape. A wildcard without a name is
//! matched and not passed on.

use std::fmt;
use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use regex::Regex;

use super::captures::Captures;
use super::filter::{Filter, Filters};
use super::path::{ENCODED_SLASH, decoded_path};
use crate::{Error, ErrorKind, Result};

/// What a path segment may hold as it is: RFC 3986 section 3.3, pchar without `%`.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
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
    .remove(b'@');

/// A rule that was read.
#[derive(Clone)]
pub struct Rule(Arc<Inner>);

struct Inner {
    text: String,
    parts: Vec<Part>,
    shape: Shape,
}

#[derive(Clone, Debug)]
enum Part {
    Text(String),
    Wildcard { name: Option<String>, filter: Filter },
}

/// How a rule is matched.
#[derive(Debug)]
pub(super) enum Shape {
    /// No wildcards: the decoded path must be this.
    Static(String),
    /// Segment by segment, by hand; then perhaps a tail that takes what is left.
    Segments { segments: Vec<Segment>, tail: Option<Tail> },
    /// By a regex over the whole path, below these static segments.
    Whole { prefix: Vec<String>, regex: Regex },
}

/// One segment of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Segment {
    Text(String),
    Pattern(Vec<Piece>),
}

/// A piece of a segment with wildcards. Texts and wildcards need not alternate at the ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Piece {
    Text(String),
    Any { named: bool },
    Int { named: bool },
    Float { named: bool },
}

/// A `path` wildcard that ends a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tail {
    pub(super) named: bool,
}

impl Rule {
    /// Reads a rule.
    pub fn parse(text: &str, filters: &Filters) -> Result<Rule> {
        let parts = Parser { text, rest: text.char_indices().peekable(), filters }.parts()?;
        let shape = shape(text, &parts)?;
        Ok(Rule(Arc::new(Inner { text: text.to_owned(), parts, shape })))
    }

    /// The rule as it was written.
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// The names of its wildcards, in order.
    pub fn wildcards(&self) -> impl Iterator<Item = &str> {
        self.0.parts.iter().filter_map(|part| match part {
            Part::Wildcard { name: Some(name), .. } => Some(name.as_str()),
            _ => None,
        })
    }

    pub(super) fn shape(&self) -> &Shape {
        &self.0.shape
    }

    /// What two rules have in common that match the same paths: the rule without its wildcards' names.
    pub(super) fn pattern(&self) -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => text.replace('<', "\\<"),
            Part::Wildcard { filter, .. } => format!("<{filter}>"),
        };
        self.0.parts.iter().map(part).collect()
    }

    /// The values of the named wildcards, if the decoded path matches and every filter converts.
    pub(super) fn captures(&self, path: &str) -> Option<Captures> {
        if let Shape::Static(text) = &self.0.shape {
            return (text == path).then(Captures::default);
        }
        let mut values = Captures::with_capacity(self.wildcards().count(), path.len());
        match &self.0.shape {
            Shape::Static(_) => {}
            Shape::Segments { segments, tail } => {
                let mut rest = path.strip_prefix('/');
                for segment in segments {
                    let (head, below) = split(rest?);
                    rest = below;
                    match segment {
                        Segment::Text(text) => {
                            if text != head {
                                return None;
                            }
                        }
                        Segment::Pattern(pieces) => {
                            capture_pieces(pieces, head, &mut |value| values.push(value))?;
                        }
                    }
                }
                match (tail, rest) {
                    (None, None) => {}
                    (Some(tail), Some(rest)) if !rest.is_empty() => {
                        if tail.named {
                            values.push(rest);
                        }
                    }
                    _ => return None,
                }
            }
            Shape::Whole { regex, .. } => {
                let found = regex.captures(path)?;
                let wildcards = self.0.parts.iter().filter_map(|part| match part {
                    Part::Wildcard { name, filter } => Some((name, filter)),
                    Part::Text(_) => None,
                });
                for (number, (name, filter)) in wildcards.enumerate() {
                    let value = found.name(&group(number))?.as_str();
                    let value = value.replace(ENCODED_SLASH, "/");
                    let value = filter.convert(&value)?;
                    if name.is_some() {
                        values.push(&value);
                    }
                }
            }
        }
        Some(values)
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
                Part::Text(text) => path.extend(text.split('/').map(encoded).intersperse_slash()),
                Part::Wildcard { name: None, .. } => {
                    return Err(refused("it has a wildcard without a name".to_owned()));
                }
                Part::Wildcard { name: Some(name), filter } => {
                    let value = arguments.iter().find(|argument| argument.0 == name);
                    let value =
                        value.ok_or_else(|| refused(format!("no value for <{name}> was given")))?.1;
                    given.push(value);
                    let value = filter.text_for(value).ok_or_else(|| {
                        refused(format!("{value:?} is no value for <{name}>, which is {filter}"))
                    })?;
                    if filter.spans() {
                        path.extend(value.split('/').map(encoded).intersperse_slash());
                    } else {
                        path.push_str(&encoded(&value));
                    }
                }
            }
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

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

trait IntersperseSlash: Iterator<Item = String> + Sized {
    /// The items with `/` between them.
    fn intersperse_slash(self) -> impl Iterator<Item = String> {
        self.enumerate().map(|(number, text)| if number == 0 { text } else { format!("/{text}") })
    }
}

impl<I: Iterator<Item = String>> IntersperseSlash for I {}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rule({:?})", self.0.text)
    }
}

/// The first segment, and what comes behind its slash.
pub(super) fn split(path: &str) -> (&str, Option<&str>) {
    match path.split_once('/') {
        Some((segment, rest)) => (segment, Some(rest)),
        None => (path, None),
    }
}

fn group(number: usize) -> String {
    format!("wildcard{number}_")
}

// Reading.

struct Parser<'a> {
    text: &'a str,
    rest: std::iter::Peekable<std::str::CharIndices<'a>>,
    filters: &'a Filters,
}

impl Parser<'_> {
    fn parts(mut self) -> Result<Vec<Part>> {
        if !self.text.starts_with('/') {
            return Err(self.error("a rule starts with a slash", 0));
        }
        let mut parts = Vec::new();
        let mut literal = String::new();
        while let Some((at, character)) = self.rest.next() {
            match character {
                '<' => {
                    if !literal.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut literal)));
                    }
                    let wildcard = self.wildcard(at, &parts)?;
                    parts.push(wildcard);
                }
                '>' => return Err(self.error("a > without its <; write \\> for the character", at)),
                '\\' => match self.rest.next_if(|(_, next)| "<>:\\".contains(*next)) {
                    Some((_, escaped)) => literal.push(escaped),
                    None => literal.push('\\'),
                },
                ENCODED_SLASH => {
                    return Err(self.error("U+FFFF is no character and cannot be matched", at));
                }
                other => literal.push(other),
            }
        }
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(parts)
    }

    fn wildcard(&mut self, start: usize, before: &[Part]) -> Result<Part> {
        let end = self.end_of_wildcard(start)?;
        let inner = &self.text[start + 1..end];
        let mut fields = inner.splitn(3, ':');
        let name = fields.next().unwrap_or("");
        let filter_at = start + 1 + name.len() + 1;
        let filter = fields.next();
        // `\>` and `\<` only got the character past the end of the wildcard.
        let config = fields.next().map(|config| config.replace("\\>", ">").replace("\\<", "<"));
        if name.is_empty() && filter.is_none() {
            return Err(self.error("an empty wildcard; give it a name or a filter", start));
        }
        let is_name = |name: &str| {
            name.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        if !name.is_empty() && !is_name(name) {
            let text = format!(
                "{name:?} is no name for a wildcard, which starts with a letter or _ and goes on with \
                 letters, digits and _"
            );
            return Err(self.error(text, start + 1));
        }
        let same = |part: &Part| matches!(part, Part::Wildcard { name: Some(n), .. } if n == name);
        if before.iter().any(same) {
            return Err(self.error(format!("a second wildcard named {name:?}"), start + 1));
        }
        let filter = match filter {
            None => Filter::segment(),
            Some(filter) => self.filters.make(filter, config.as_deref()).map_err(|problem| {
                self.error(
                    problem.message,
                    match problem.in_config {
                        true => filter_at + filter.len() + 1,
                        false => filter_at,
                    },
                )
            })?,
        };
        let name = (!name.is_empty()).then(|| name.to_owned());
        Ok(Part::Wildcard { name, filter })
    }

    fn end_of_wildcard(&mut self, start: usize) -> Result<usize> {
        while let Some((at, character)) = self.rest.next() {
            match character {
                '>' => return Ok(at),
                '\\' => {
                    self.rest.next();
                }
                _ => {}
            }
        }
        Err(self.error("a wildcard without its >; write \\< for the character", start))
    }

    fn error(&self, what: impl Into<String>, at: usize) -> Error {
        let column = self.text[..at.min(self.text.len())].chars().count() + 1;
        let (known, what) = (self.filters.names(), what.into());
        let known = if what.starts_with("unknown filter") {
            format!("; known: {known}")
        } else {
            String::new()
        };
        let text = format!("{what} in rule {:?}, column {column}{known}", self.text);
        Error::new(ErrorKind::Rule, text)
    }
}

// Choosing how to match.

fn shape(text: &str, parts: &[Part]) -> Result<Shape> {
    if let Some(all) = static_text(parts) {
        return Ok(Shape::Static(all));
    }
    if let Some(shape) = segmented(parts) {
        return Ok(shape);
    }
    let mut pattern = String::from(r"\A");
    let mut number = 0;
    for part in parts {
        match part {
            Part::Text(text) => pattern.push_str(&regex::escape(text)),
            Part::Wildcard { filter, .. } => {
                pattern.push_str(&format!("(?P<{}>{})", group(number), filter.pattern()));
                number += 1;
            }
        }
    }
    pattern.push_str(r"\z");
    let regex = Regex::new(&pattern).map_err(|error| {
        let text = format!("rule {text:?} cannot be matched: its filters together are too much");
        Error::new(ErrorKind::Rule, text).with_source(error)
    })?;
    let prefix = match parts.first() {
        Some(Part::Text(text)) => {
            let mut segments: Vec<_> = text.split('/').skip(1).map(str::to_owned).collect();
            // The last one goes on with a wildcard.
            segments.pop();
            segments
        }
        _ => Vec::new(),
    };
    Ok(Shape::Whole { prefix, regex })
}

fn static_text(parts: &[Part]) -> Option<String> {
    parts
        .iter()
        .map(|part| match part {
            Part::Text(text) => Some(text.as_str()),
            Part::Wildcard { .. } => None,
        })
        .collect()
}

/// The rule segment by segment, where each can be matched by hand: one wildcard, or several that take
/// anything, and `path` only as the last segment.
fn segmented(parts: &[Part]) -> Option<Shape> {
    let mut segments: Vec<Vec<Piece>> = Vec::new();
    let mut tail = None;
    for (number, part) in parts.iter().enumerate() {
        match part {
            Part::Text(text) => {
                for (place, text) in text.split('/').enumerate() {
                    if place > 0 {
                        segments.push(Vec::new());
                    }
                    if !text.is_empty() {
                        segments.last_mut()?.push(Piece::Text(text.to_owned()));
                    }
                }
            }
            Part::Wildcard { name, filter } => {
                let named = name.is_some();
                if filter.is_path() {
                    // What a regex would do by trying, a tail does at once.
                    if number + 1 != parts.len() || !segments.last()?.is_empty() {
                        return None;
                    }
                    segments.pop();
                    tail = Some(Tail { named });
                } else {
                    segments.last_mut()?.push(filter.piece(named)?);
                }
            }
        }
    }
    let segments = segments
        .into_iter()
        .map(|pieces| {
            let wildcards = || pieces.iter().filter(|piece| !matches!(piece, Piece::Text(_)));
            match (pieces.as_slice(), wildcards().count()) {
                ([], _) => Some(Segment::Text(String::new())),
                ([Piece::Text(text)], _) => Some(Segment::Text(text.clone())),
                (_, 1) => Some(Segment::Pattern(pieces)),
                _ if wildcards().all(|piece| matches!(piece, Piece::Any { .. })) => {
                    Some(Segment::Pattern(pieces))
                }
                _ => None,
            }
        })
        .collect::<Option<Vec<_>>>()?;
    Some(Shape::Segments { segments, tail })
}

/// Whether a segment's pieces fit the text.
pub(super) fn fits(pieces: &[Piece], text: &str) -> bool {
    capture_pieces(pieces, text, &mut |_| ()).is_some()
}

/// Takes a segment apart, from its end: each text at its last possible place makes the wildcards before it
/// as long as they can be, which is what greedy wildcards do. Linear, whatever the text.
fn capture_pieces(pieces: &[Piece], text: &str, take: &mut impl FnMut(&str)) -> Option<()> {
    if let [one] = pieces {
        return capture(one, text, take);
    }
    let mut found: Vec<&str> = Vec::new();
    let mut rest = text;
    let mut at = pieces.len();
    while at > 0 {
        at -= 1;
        match (&pieces[at], at.checked_sub(1).map(|before| &pieces[before])) {
            (Piece::Text(text), _) => rest = rest.strip_suffix(text.as_str())?,
            (_, None) => {
                found.push(std::mem::take(&mut rest));
            }
            (_, Some(Piece::Text(before))) if at == 1 => {
                // The first text is where the segment starts.
                let value = rest.strip_prefix(before.as_str())?;
                rest = before;
                found.push(value);
            }
            (_, Some(Piece::Text(before))) => {
                let last = rest.char_indices().next_back()?.0;
                let start = rest[..last].rfind(before.as_str())? + before.len();
                found.push(&rest[start..]);
                rest = &rest[..start];
            }
            (_, Some(_)) => {
                // Two wildcards side by side: the later one gets one character.
                let last = rest.char_indices().next_back()?.0;
                found.push(&rest[last..]);
                rest = &rest[..last];
            }
        }
    }
    if !rest.is_empty() {
        return None;
    }
    let wildcards = pieces.iter().filter(|piece| !matches!(piece, Piece::Text(_)));
    wildcards.zip(found.iter().rev()).try_for_each(|(piece, value)| capture(piece, value, take))
}

fn capture(piece: &Piece, text: &str, take: &mut impl FnMut(&str)) -> Option<()> {
    let (fits, named) = match piece {
        Piece::Text(expected) => (text == expected, false),
        Piece::Any { named } => (!text.is_empty(), *named),
        Piece::Int { named } => (super::filter::is_int(text), *named),
        Piece::Float { named } => (super::filter::is_float(text), *named),
    };
    if fits && named {
        take(text);
    }
    fits.then_some(())
}
