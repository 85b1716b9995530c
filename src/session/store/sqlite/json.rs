//! Fields as a JSON object, which the sqlite3 shell shows and asks for.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::Serializer;

use crate::session::store::Fields;

/// What stands where the fields should is no JSON object of texts.
#[derive(Debug)]
pub(super) struct Damaged;

/// The same fields are the same text.
pub(super) fn write(fields: &Fields) -> String {
    let mut text = Vec::with_capacity(fields.bytes() + 6 * fields.len() + 2);
    // Text is always JSON, and a vector takes all there is.
    let _ = serde_json::Serializer::new(&mut text).collect_map(fields.iter());
    String::from_utf8(text).unwrap_or_default()
}

pub(super) fn read(text: &str) -> Result<Fields, Damaged> {
    let mut input = serde_json::Deserializer::from_str(text);
    let fields = input.deserialize_map(Object).map_err(|_| Damaged)?;
    input.end().map_err(|_| Damaged)?;
    Ok(fields)
}

struct Object;

impl<'de> Visitor<'de> for Object {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of texts")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Fields, M::Error> {
        let mut failed = None;
        let pairs = std::iter::from_fn(|| match map.next_entry::<Text<'de>, Text<'de>>() {
            Ok(pair) => pair,
            Err(error) => {
                failed = Some(error);
                None
            }
        });
        let fields = pairs.collect();
        failed.map_or(Ok(fields), Err)
    }
}

/// A text that lies in the input, unless it has escapes.
struct Text<'a>(Cow<'a, str>);

impl AsRef<str> for Text<'_> {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Text<'de>, D::Error> {
        struct OfText;

        impl<'de> Visitor<'de> for OfText {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }

        deserializer.deserialize_str(OfText)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_what_they_were() {
        for (pairs, text) in [
            (&[][..], "{}"),
            (&[("b", "2"), ("a", "1")], r#"{"a":"1","b":"2"}"#),
            (
                &[("", "\0\"\\\n"), ("ключ", "☕\u{10ffff}")],
                "{\"\":\"\\u0000\\\"\\\\\\n\",\"ключ\":\"☕\u{10ffff}\"}",
            ),
        ] {
            let fields: Fields = pairs.iter().copied().collect();
            assert_eq!(write(&fields), text);
            assert_eq!(read(text).unwrap(), fields);
        }
    }

    #[test]
    fn what_is_no_object_of_texts_is_damaged() {
        for text in ["", "{", "[]", "null", "{\"a\":1}", "{\"a\":\"1\"", "{\"a\":\"1\"} x", "\0{}"]
        {
            assert!(read(text).is_err(), "{text:?}");
        }
    }
}
