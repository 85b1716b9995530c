//! Values of a query.

use std::borrow::Cow;

use super::error::{FormError, Part, Problem};
use super::urlencoded;
use crate::Result;

/// A value of a query, decoded.
pub(crate) fn query_value<'a>(query: &'a str, name: &str) -> Result<Option<Cow<'a, str>>> {
    let of_name = |pair: &(&[u8], &[u8])| &*urlencoded::decode(pair.0) == name.as_bytes();
    let last = urlencoded::pairs(query.as_bytes()).filter(of_name).last();
    Ok(last.map(|(_, value)| query_text(name, value)).transpose()?)
}

/// Names and values of a query, decoded.
pub(crate) fn query_values(query: &str) -> Result<Vec<(Cow<'_, str>, Cow<'_, str>)>> {
    let pairs = urlencoded::pairs(query.as_bytes()).map(|(name, value)| {
        let shown = String::from_utf8_lossy(name);
        Ok((query_text(&shown, name)?, query_text(&shown, value)?))
    });
    Ok(pairs.collect::<Result<_, FormError>>()?)
}

fn query_text<'a>(name: &str, text: &'a [u8]) -> Result<Cow<'a, str>, FormError> {
    let text = match urlencoded::decode(text) {
        Cow::Borrowed(text) => std::str::from_utf8(text).map(Cow::Borrowed).ok(),
        Cow::Owned(text) => String::from_utf8(text).map(Cow::Owned).ok(),
    };
    text.ok_or_else(|| {
        let mut error = FormError::of(Part::Query, Vec::new());
        error.wrong(name, Problem::NotUtf8, String::new());
        error
    })
}
