//! The values of one field, as whatever its type wants.

use std::num::{IntErrorKind, ParseIntError};
use std::str::FromStr;

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{DeserializeSeed, Deserializer, IntoDeserializer, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::Context;
use super::fault::{Fault, detailed, fault};
use crate::message::forms::error::Problem;
use crate::message::forms::{Entry, Value, upload};

/// What the type makes of a field's values.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Usage {
    /// It did not say what it wants.
    #[default]
    Untyped,
    Typed,
    Ignored,
}

/// All values that were sent under one name, or one of them. Where one is wanted, the last counts.
#[derive(Clone, Copy)]
pub(super) struct Values<'de> {
    pub(super) context: &'de Context<'de>,
    /// At least one entry.
    pub(super) run: &'de [usize],
}

impl<'de> Values<'de> {
    fn entries(self) -> impl Iterator<Item = &'de Entry> {
        self.run.iter().map(move |at| &self.context.form.entries[*at])
    }

    fn last(self) -> &'de Value {
        match self.run.last() {
            Some(at) => &self.context.form.entries[*at].value,
            None => &Value::NoFile,
        }
    }

    fn bytes(self) -> Result<&'de [u8], Fault> {
        match self.last() {
            Value::Text(text) => Ok(&self.context.form.buffer[text.clone()]),
            Value::NoFile => Ok(&[]),
            Value::File(_) => Err(fault(Problem::NotText)),
        }
    }

    fn text(self) -> Result<&'de str, Fault> {
        std::str::from_utf8(self.bytes()?).map_err(|_| fault(Problem::NotUtf8))
    }

    fn typed(self) -> Self {
        self.context.usage.set(Usage::Typed);
        self
    }

    fn integer<T: FromStr<Err = ParseIntError>>(self, least: i128, most: u128) -> Result<T, Fault> {
        // People type spaces.
        let text = self.typed().text()?.trim();
        text.parse().map_err(|error: ParseIntError| {
            // The error of a negative number for an unsigned type does not say so.
            let digits = text.strip_prefix('-').unwrap_or_default();
            let is_negative =
                !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            fault(match error.kind() {
                IntErrorKind::PosOverflow => Problem::AtMost(most),
                IntErrorKind::NegOverflow => Problem::AtLeast(least),
                _ if is_negative => Problem::AtLeast(least),
                _ => Problem::WholeNumber,
            })
        })
    }

    fn float(self) -> Result<f64, Fault> {
        let read: Option<f64> = self.typed().text()?.trim().parse().ok();
        // "NaN" and "inf" are none, as in a wildcard.
        read.filter(|value| value.is_finite()).ok_or_else(|| fault(Problem::Number))
    }
}

impl<'de> IntoDeserializer<'de, Fault> for Values<'de> {
    type Deserializer = Values<'de>;

    fn into_deserializer(self) -> Values<'de> {
        self
    }
}

macro_rules! integers {
    ($($method:ident $type:ident $visit:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            #[allow(clippy::cast_lossless, clippy::cast_sign_loss)]
            let value = self.integer::<$type>($type::MIN as i128, $type::MAX as u128)?;
            visitor.$visit(value)
        }
    )*};
}

impl<'de> Deserializer<'de> for Values<'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_borrowed_str(self.text()?)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.typed().deserialize_any(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_borrowed_bytes(self.typed().bytes()?)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let mut characters = self.typed().text()?.chars();
        match (characters.next(), characters.next()) {
            (Some(only), None) => visitor.visit_char(only),
            _ => Err(fault(Problem::OneCharacter)),
        }
    }

    /// A ticked box sends `on` unless its `value` says otherwise.
    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let text = self.typed().text()?.trim();
        let is = |words: [&str; 3]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
        if is(["on", "true", "1"]) {
            visitor.visit_bool(true)
        } else if is(["off", "false", "0"]) {
            visitor.visit_bool(false)
        } else {
            Err(detailed(Problem::YesOrNo, "expected on, true, 1, off, false or 0"))
        }
    }

    integers! {
        deserialize_i8 i8 visit_i8
        deserialize_i16 i16 visit_i16
        deserialize_i32 i32 visit_i32
        deserialize_i64 i64 visit_i64
        deserialize_i128 i128 visit_i128
        deserialize_u8 u8 visit_u8
        deserialize_u16 u16 visit_u16
        deserialize_u32 u32 visit_u32
        deserialize_u64 u64 visit_u64
        deserialize_u128 u128 visit_u128
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        // Read as what it is: by way of an f64 it would be rounded twice.
        let read: Option<f32> = self.typed().text()?.trim().parse().ok();
        match read.filter(|value| value.is_finite()) {
            Some(value) => visitor.visit_f32(value),
            None => Err(fault(Problem::Number)),
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_f64(self.float()?)
    }

    /// What was left empty is none, whatever the type.
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let is_empty = self.entries().all(|entry| match &entry.value {
            Value::Text(text) => text.is_empty(),
            Value::NoFile => true,
            Value::File(_) => false,
        });
        if is_empty { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.typed();
        visitor.visit_seq(Each(self))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        if name != upload::NAME {
            return visitor.visit_newtype_struct(self);
        }
        match self.typed().last() {
            Value::File(upload) => upload.clone().hand_to(visitor),
            Value::NoFile => Err(fault(Problem::NoFile)),
            Value::Text(text) if text.is_empty() => Err(fault(Problem::NoFile)),
            Value::Text(_) => {
                Err(detailed(Problem::NotAFile, "the form lacks enctype=\"multipart/form-data\""))
            }
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let text = self.typed().text()?;
        BorrowedStrDeserializer::new(text).deserialize_enum(name, variants, visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.context.usage.set(Usage::Ignored);
        visitor.visit_unit()
    }

    forward_to_deserialize_any! { unit unit_struct map struct }
}

/// The values one by one. A control in which no file was chosen has none.
struct Each<'de>(Values<'de>);

impl<'de> SeqAccess<'de> for Each<'de> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Fault> {
        while let Some((first, rest)) = self.0.run.split_first() {
            let context = self.0.context;
            self.0.run = rest;
            if !matches!(context.form.entries[*first].value, Value::NoFile) {
                let run = std::slice::from_ref(first);
                return seed.deserialize(Values { context, run }).map(Some);
            }
        }
        Ok(None)
    }
}
