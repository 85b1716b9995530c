//! Filters: which texts a wildcard takes, and what it makes of them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use regex::Regex;

use super::rule::Piece;
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
        pattern: String,
        whole: Regex,
        parse: Option<Convert>,
        format: Option<Convert>,
    },
}

impl Filter {
    /// A filter for the texts that this regex matches as a whole. It sees decoded text, and takes a slash
    /// where the pattern does.
    pub fn regex(pattern: &str) -> Result<Filter> {
        let whole = Regex::new(&format!(r"\A(?:{pattern})\z")).map_err(|error| {
            Error::new(ErrorKind::Rule, format!("{pattern:?} is no regex")).with_source(error)
        })?;
        let (name, pattern) = ("re".to_owned(), pattern.to_owned());
        Ok(Filter(Kind::Regex { name, pattern, whole, parse: None, format: None }))
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

    fn named(mut self, known_as: &str, config: Option<&str>) -> Filter {
        if let Kind::Regex { name, .. } = &mut self.0 {
            *name = match config {
                Some(config) => format!("{known_as}:{config}"),
                None => known_as.to_owned(),
            };
        }
        self
    }

    pub(super) fn segment() -> Filter {
        Filter(Kind::Segment)
    }

    pub(super) fn is_path(&self) -> bool {
        matches!(self.0, Kind::Path)
    }

    /// Whether a slash in a value is a real one.
    pub(super) fn spans(&self) -> bool {
        match &self.0 {
            Kind::Path => true,
            Kind::Regex { whole, .. } => whole.is_match("a/b") || whole.is_match("1/1"),
            _ => false,
        }
    }

    /// The filter as a piece of a segment that is matched by hand, where it can be.
    pub(super) fn piece(&self, named: bool) -> Option<Piece> {
        match self.0 {
            Kind::Segment => Some(Piece::Any { named }),
            Kind::Int => Some(Piece::Int { named }),
            Kind::Float => Some(Piece::Float { named }),
            Kind::Path | Kind::Regex { .. } => None,
        }
    }

    pub(super) fn pattern(&self) -> &str {
        match &self.0 {
            Kind::Segment => "[^/]+",
            Kind::Int => r"-?[0-9]+",
            Kind::Float => r"-?[0-9.]+",
            Kind::Path => "(?s:.+?)",
            Kind::Regex { pattern, .. } => pattern,
        }
    }

    /// The value for a text that the pattern matched.
    pub(super) fn convert(&self, text: &str) -> Option<String> {
        match &self.0 {
            Kind::Int if !is_int(text) => None,
            Kind::Float if !is_float(text) => None,
            Kind::Regex { parse: Some(parse), .. } => parse(text),
            _ => Some(text.to_owned()),
        }
    }

    /// The text for a value.
    pub(super) fn text_for(&self, value: &str) -> Option<String> {
        let fits = match &self.0 {
            Kind::Segment | Kind::Path => !value.is_empty(),
            Kind::Int => is_int(value),
            Kind::Float => is_float(value),
            Kind::Regex { format: Some(format), whole, .. } => {
                return format(value).filter(|text| whole.is_match(text));
            }
            Kind::Regex { whole, .. } => whole.is_match(value),
        };
        fits.then(|| value.to_owned())
    }
}

/// Which of two filters of a rule it is: the same text means the same paths.
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

/// `-?\d+` that an `i64` can hold.
pub(super) fn is_int(text: &str) -> bool {
    // `i64` also reads a plus sign, which in Bottle is no part of a number.
    !text.starts_with('+') && text.parse::<i64>().is_ok()
}

/// `-?[\d.]+` that an `f64` can hold.
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
                .map(|filter| filter.named(name, config))
                .map_err(|error| problem(format!("filter {name:?}: {error}"), config.is_some()));
        }
        let plain = |kind| match config {
            None => Ok(Filter(kind)),
            Some(_) => Err(problem(format!("filter {name:?} takes no configuration"), true)),
        };
        match name {
            "int" => plain(Kind::Int),
            "float" => plain(Kind::Float),
            "path" => plain(Kind::Path),
            "re" => Filter::regex(config.unwrap_or("[^/]+"))
                .map(|filter| filter.named(name, config))
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
