//! Filters: which texts a wildcard takes, and what it makes of them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use regex::Regex;
use regex_syntax::hir::{Class, Hir, HirKind};

use super::path::ENCODED_SLASH;
use super::segment::Token;
use crate::{Error, ErrorKind, Result};

type Convert = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;
type Make = Arc<dyn Fn(Option<&str>) -> Result<Filter> + Send + Sync>;

/// What a wildcard takes. The built-in ones are `int`, `float`, `path` and `re`; others are added with
/// [`App::filter`](crate::App::filter).
///
/// ```
/// use bottle_session::{App, Filter, TestClient};
///
/// let mut app = App::new();
/// app.filter("hex", |_config| {
///     Ok(Filter::regex("[0-9a-fA-F]+")?
///         .parse(|text| u64::from_str_radix(text, 16).ok().map(|number| number.to_string()))
///         .format(|text| text.parse::<u64>().ok().map(|number| format!("{number:x}"))))
/// });
/// app.get("/color/<value:hex>", |value: u64| value.to_string()).name("color");
/// assert_eq!(app.url("color", &[("value", "255")])?, "/color/ff");
/// assert_eq!(TestClient::new(app)?.get("/color/FF").send().text(), "255");
/// # Ok::<(), bottle_session::Error>(())
/// ```
#[derive(Clone)]
pub struct Filter(Kind);

#[derive(Clone)]
enum Kind {
    Segment,
    Int,
    Float,
    Path,
    Regex {
        name: String,
        /// Where the app's own factory is that made this one: two apps may use one name for two things.
        factory: usize,
        pattern: String,
        whole: Regex,
        spans: bool,
        parse: Option<Convert>,
        format: Option<Convert>,
    },
}

impl Filter {
    /// A filter for the texts that this regex matches as a whole; it needs no anchors. It sees decoded text.
    ///
    /// A pattern that can match a slash (`.+`, but not `\w+` or `[^/]+`) goes over several segments, and
    /// any other stays inside its own. An encoded slash, `%2F`, divides no segments; it is a slash in the value,
    /// which the pattern must match as it then is: `[^/]+` never gives a value with a slash.
    pub fn regex(pattern: &str) -> Result<Filter> {
        let no_regex = |source: Box<dyn std::error::Error + Send + Sync>| {
            Error::new(ErrorKind::Rule, format!("{pattern:?} is no regex")).with_source(source)
        };
        // On its own first: "a)(b" would only be a regex between our parentheses.
        let parsed = regex_syntax::parse(pattern).map_err(|error| no_regex(error.into()))?;
        let whole = Regex::new(&format!(r"\A(?:{pattern})\z"));
        Ok(Filter(Kind::Regex {
            name: "re".to_owned(),
            factory: 0,
            pattern: pattern.to_owned(),
            whole: whole.map_err(|error| no_regex(error.into()))?,
            spans: can_match_a_slash(&parsed),
            parse: None,
            format: None,
        }))
    }

    /// The same filter, making the handler's value from the text of the path. `None` does not match.
    #[must_use]
    pub fn parse(self, convert: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Filter {
        self.with(|parse, _| *parse = Some(Arc::new(convert)))
    }

    /// The same filter, making the text of a path from a value, for addresses that are built. `None` is
    /// no value of this filter.
    #[must_use]
    pub fn format(
        self,
        convert: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
    ) -> Filter {
        self.with(|_, format| *format = Some(Arc::new(convert)))
    }

    fn with(mut self, change: impl FnOnce(&mut Option<Convert>, &mut Option<Convert>)) -> Filter {
        if let Kind::Regex { parse, format, .. } = &mut self.0 {
            change(parse, format);
        }
        self
    }

    fn named(mut self, known_as: &str, config: Option<&str>, made_at: usize) -> Filter {
        if let Kind::Regex { name, factory, .. } = &mut self.0 {
            *name = match config {
                Some(config) => format!("{known_as}:{config}"),
                None => known_as.to_owned(),
            };
            *factory = made_at;
        }
        self
    }

    /// What two filters have in common that take the same texts.
    pub(super) fn identity(&self) -> String {
        match &self.0 {
            Kind::Regex { factory, .. } => format!("{self} {factory}"),
            _ => self.to_string(),
        }
    }

    pub(super) fn segment() -> Filter {
        Filter(Kind::Segment)
    }

    pub(super) fn is_float(&self) -> bool {
        matches!(self.0, Kind::Float)
    }

    /// Whether it can take more than one segment.
    pub(super) fn spans(&self) -> bool {
        matches!(self.0, Kind::Path | Kind::Regex { spans: true, .. })
    }

    pub(super) fn token(&self) -> Token {
        match &self.0 {
            Kind::Segment => Token::Any,
            Kind::Int => Token::Int,
            Kind::Float => Token::Float,
            Kind::Path => Token::Path,
            Kind::Regex { pattern, .. } => Token::Regex(pattern.clone()),
        }
    }

    /// The regex for all of a wildcard's text, if it has one.
    pub(super) fn whole(&self) -> Option<&Regex> {
        match &self.0 {
            Kind::Regex { whole, .. } => Some(whole),
            _ => None,
        }
    }

    /// The value for a text of the path that the filter's pattern matched.
    pub(super) fn convert<'a>(&self, text: &'a str) -> Option<Cow<'a, str>> {
        match &self.0 {
            Kind::Int => is_int(text).then_some(Cow::Borrowed(text)),
            Kind::Float => is_float(text).then_some(Cow::Borrowed(text)),
            // Beside real slashes an encoded one is one more; where there can be none, no value has one, so that
            // no handler is given `../..` as the name of a file.
            Kind::Segment => (!text.contains(ENCODED_SLASH)).then_some(Cow::Borrowed(text)),
            Kind::Path => Some(decoded(text)),
            Kind::Regex { whole, parse, .. } => {
                let value = decoded(text);
                if matches!(value, Cow::Owned(_)) && !whole.is_match(&value) {
                    return None;
                }
                match parse {
                    Some(parse) => parse(&value).map(Cow::Owned),
                    None => Some(value),
                }
            }
        }
    }

    /// The text of the path for a value.
    pub(super) fn text_for(&self, value: &str) -> Option<String> {
        let accepts = match &self.0 {
            Kind::Segment => !value.is_empty() && !value.contains('/'),
            Kind::Path => !value.is_empty(),
            Kind::Int => is_int(value),
            Kind::Float => is_float(value),
            Kind::Regex { format, whole, .. } => {
                let text = match format {
                    Some(format) => format(value)?,
                    None => value.to_owned(),
                };
                return whole.is_match(&text).then_some(text);
            }
        };
        accepts.then(|| value.to_owned())
    }
}

/// A text of the path, its encoded slashes as slashes.
fn decoded(text: &str) -> Cow<'_, str> {
    match text.contains(ENCODED_SLASH) {
        true => Cow::Owned(text.replace(ENCODED_SLASH, "/")),
        false => Cow::Borrowed(text),
    }
}

/// Whether some text that the regex matches may have a slash in it.
fn can_match_a_slash(regex: &Hir) -> bool {
    match regex.kind() {
        HirKind::Empty | HirKind::Look(_) => false,
        HirKind::Literal(literal) => literal.0.contains(&b'/'),
        HirKind::Class(Class::Unicode(class)) => {
            class.iter().any(|range| (range.start()..=range.end()).contains(&'/'))
        }
        HirKind::Class(Class::Bytes(class)) => {
            class.iter().any(|range| (range.start()..=range.end()).contains(&b'/'))
        }
        HirKind::Repetition(repetition) => can_match_a_slash(&repetition.sub),
        HirKind::Capture(group) => can_match_a_slash(&group.sub),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => parts.iter().any(can_match_a_slash),
    }
}

/// What errors call it.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Kind::Segment => "any text without a slash",
            Kind::Int => "int",
            Kind::Float => "float",
            Kind::Path => "path",
            Kind::Regex { name, .. } => name,
        })
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Filter({self})")
    }
}

/// `-?[0-9]+` that an `i64` can hold.
pub(super) fn is_int(text: &str) -> bool {
    // `i64` also reads a plus sign, which in Bottle is no part of a number.
    !text.starts_with('+') && text.parse::<i64>().is_ok()
}

/// `-?[0-9.]+` that an `f64` can hold.
pub(super) fn is_float(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty()
        && digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
        && digits.parse::<f64>().is_ok()
}

/// The filters that rules can name.
#[derive(Clone, Default)]
pub struct Filters {
    own: BTreeMap<String, Make>,
}

/// Why a filter cannot be had.
pub(super) struct Problem {
    pub(super) message: String,
    pub(super) in_config: bool,
}

impl Filters {
    /// Adds a filter, or replaces one of this name.
    pub fn add(
        &mut self,
        name: impl Into<String>,
        make: impl Fn(Option<&str>) -> Result<Filter> + Send + Sync + 'static,
    ) {
        self.own.insert(name.into(), Arc::new(make));
    }

    pub(super) fn make(
        &self,
        name: &str,
        config: Option<&str>,
    ) -> std::result::Result<Filter, Problem> {
        let problem = |message: String, in_config| Problem { message, in_config };
        if let Some(make) = self.own.get(name) {
            return make(config)
                .map(|filter| filter.named(name, config, Arc::as_ptr(make).cast::<()>() as usize))
                .map_err(|error| problem(format!("filter {name:?}: {error}"), config.is_some()));
        }
        let plain = |kind| match config {
            None => Ok(Filter(kind)),
            Some(_) => Err(problem(format!("filter {name:?} takes no configuration"), true)),
        };
        match name {
            // As in Bottle, an empty name is the default filter, and that takes a regex.
            "" if config.is_none() => Ok(Filter::segment()),
            "int" => plain(Kind::Int),
            "float" => plain(Kind::Float),
            "path" => plain(Kind::Path),
            "re" | "" => Filter::regex(config.unwrap_or("[^/]+"))
                .map(|filter| filter.named("re", config, 0))
                .map_err(|error| problem(format!("{error:?}").replace('\n', " "), true)),
            _ => Err(problem(format!("unknown filter {name:?}"), false)),
        }
    }

    pub(super) fn names(&self) -> String {
        let own = self.own.keys().map(String::as_str);
        ["int", "float", "path", "re"].into_iter().chain(own).collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Debug for Filters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Filters({})", self.names())
    }
}
