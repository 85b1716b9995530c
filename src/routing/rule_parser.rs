//! Parses rules. Their grammar:
//!
//! ```text
//! rule     = "/" (text | wildcard)*
//! wildcard = "<" [name] [":" [filter] [":" [config]]] ">"
//! ```
//!
//! `\<`, `\>`, `\:`, `\{` and `\\` in a text stand for the character. A `>` behind a `\<` needs no escape, nor does a `:`
//! or `{` that does not look like the wildcard of another framework, `/:name` or `{name}`. In a configuration,
//! `\>` and `\<` do, and every other backslash is left for the filter: `<id:re:\d+>`. A wildcard without a
//! name is matched and not passed on.

use std::iter::Peekable;
use std::str::CharIndices;

use super::filter::{Filter, Filters};
use super::path::ENCODED_SLASH;
use crate::{Error, ErrorKind, Result};

/// What a rule is made of. No two texts stand side by side.
#[derive(Clone, Debug)]
pub(super) enum Part {
    Text(String),
    Wildcard { name: Option<String>, filter: Filter },
}

/// Parses a rule that follows these parts, which are the prefix of a mounted app.
pub(super) fn parse(text: &str, filters: &Filters, before: &[Part]) -> Result<Vec<Part>> {
    Parser { text, rest: text.char_indices().peekable(), filters, before }.parts()
}

struct Parser<'a> {
    text: &'a str,
    rest: Peekable<CharIndices<'a>>,
    filters: &'a Filters,
    before: &'a [Part],
}

impl Parser<'_> {
    fn parts(mut self) -> Result<Vec<Part>> {
        if !self.text.starts_with('/') {
            return Err(self.error("a rule starts with a slash", 0));
        }
        let mut parts = Vec::new();
        let mut literal = String::new();
        // Of a `\<its>` the end needs no escape, as in Bottle.
        let mut escaped_ends = 0;
        while let Some((at, character)) = self.rest.next() {
            match character {
                '<' => {
                    if !literal.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut literal)));
                    }
                    let wildcard = self.wildcard(at, &parts)?;
                    parts.push(wildcard);
                }
                '>' if escaped_ends > 0 => {
                    escaped_ends -= 1;
                    literal.push('>');
                }
                '>' => return Err(self.error("a > without its <; write \\> for the character", at)),
                '\\' => match self.rest.next_if(|(_, next)| "<>:{\\".contains(*next)) {
                    Some((_, escaped)) => {
                        match escaped {
                            '<' => escaped_ends += 1,
                            '>' => escaped_ends = usize::saturating_sub(escaped_ends, 1),
                            _ => {}
                        }
                        literal.push(escaped);
                    }
                    None => literal.push('\\'),
                },
                ':' | '{' => {
                    if let Some(name) = self.foreign_wildcard(at) {
                        let text = format!(
                            "a wildcard is written <{name}>; write \\{character} for the character"
                        );
                        return Err(self.error(text, at));
                    }
                    literal.push(character);
                }
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

    /// The name of what is a wildcard in other frameworks, `/:name` or `{name}`, where one begins here.
    fn foreign_wildcard(&self, at: usize) -> Option<&str> {
        let behind = &self.text[at + 1..];
        let name = |text: &str| {
            text.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count()
        };
        if self.text[at..].starts_with(':') {
            let begins =
                self.text[..at].ends_with('/') && !behind.starts_with(|c: char| c.is_ascii_digit());
            return Some(&behind[..name(behind)]).filter(|name| begins && !name.is_empty());
        }
        let inner = behind.split_once('}')?.0.trim_start_matches('*');
        Some(&inner[..name(inner)]).filter(|name| is_name(name))
    }

    fn wildcard(&mut self, start: usize, before: &[Part]) -> Result<Part> {
        let end = self.end_of_wildcard(start)?;
        let inner = &self.text[start + 1..end];
        let mut fields = inner.splitn(3, ':');
        let name = fields.next().unwrap_or("");
        let filter_at = start + 1 + name.len() + 1;
        let filter = fields.next();
        let config = fields.next().filter(|config| !config.is_empty()).map(unescaped);
        if !name.is_empty() && !is_name(name) {
            let text = format!(
                "{name:?} is no name for a wildcard, which starts with a letter or _ and goes on with \
                 letters, digits and _"
            );
            return Err(self.error(text, start + 1));
        }
        let same = |part: &Part| matches!(part, Part::Wildcard { name: Some(n), .. } if n == name);
        if !name.is_empty() && self.before.iter().chain(before).any(same) {
            return Err(self.error(format!("a second wildcard named {name:?}"), start + 1));
        }
        let filter = match filter {
            None => Filter::segment(),
            Some(filter) => self.filters.make(filter, config.as_deref()).map_err(|problem| {
                let config_at = filter_at + filter.len() + 1;
                self.error(problem.message, if problem.in_config { config_at } else { filter_at })
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
        let what = what.into();
        let known = match what.starts_with("unknown filter") {
            true => format!("; known: {}", self.filters.names()),
            false => String::new(),
        };
        let text = format!("{what} in rule {:?}, column {column}{known}", self.text);
        Error::new(ErrorKind::Rule, text)
    }
}

fn is_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// A configuration without the backslashes that only got a bracket past the end of the wildcard. They
/// cannot stay: to a regex `\<` is the start of a word.
fn unescaped(config: &str) -> String {
    let mut text = String::with_capacity(config.len());
    let mut characters = config.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some(bracket @ ('<' | '>')) => text.push(bracket),
                other => text.extend(std::iter::once('\\').chain(other)),
            },
            other => text.push(other),
        }
    }
    text
}
