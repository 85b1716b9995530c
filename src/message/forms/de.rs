//! A form's fields as a type of the user's, by serde.
//!
//! The crate `serde_html_form` comes closest. It reads urlencoded text alone, refuses the second value of a field
//! and a bool that is `1`, and its errors do not say which field they are about.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::num::{IntErrorKind, ParseIntError};
use std::str::FromStr;
use std::sync::atomic::Ordering;

use http::StatusCode;
use serde::de::value::{BorrowedStrDeserializer, MapDeserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Expected, IntoDeserializer, MapAccess,
    SeqAccess, Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;
use smallvec::SmallVec;

use super::error::{FormError, Part, Problem};
use super::{Entry, FormData, Value, secret, upload};

/// After so many wrong fields, those that come later are not looked for.
const MOST_FAULTS: usize = 50;

/// Fields that every form has and no struct.
const OUR_OWN: [&str; 2] = ["csrf_token", "_charset_"];

impl FormData {
    /// Reads the fields into a type, or says all that is wrong with them.
    pub(crate) fn read<T: DeserializeOwned>(&self, part: Part) -> Result<T, FormError> {
        let sent: Order = (0..self.entries.len()).collect();
        // By name, with the values of each in the order sent.
        let mut order = sent.clone();
        order.sort_by_key(|at| self.entry_name(*at));
        let mut faults: Vec<Fault> = Vec::new();
        let mut names = None;
        loop {
            let context = Context {
                form: self,
                order: &order,
                sent: &sent,
                names: Cell::new(None),
                usage: Cell::default(),
                untyped: RefCell::default(),
            };
            let fault = match T::deserialize(Fields(&context)) {
                Ok(value) if faults.is_empty() => return Ok(value),
                // It has changed its mind.
                Ok(_) => break,
                Err(fault) => fault,
            };
            if fault.mistyped {
                return Err(self.mistyped(&fault, &context.untyped.borrow()));
            }
            names = context.names.get();
            let at = fault.entry;
            if faults.iter().any(|known| known.field == fault.field) || faults.len() == MOST_FAULTS
            {
                break;
            }
            faults.push(fault);
            // Once more, with this field at the end, to see what is wrong with the others.
            let Some(at) = at.and_then(|entry| order.iter().position(|at| *at == entry)) else {
                break;
            };
            let name = self.entry_name(order[at]);
            let same = order[at..].iter().take_while(|at| self.entry_name(**at) == name).count();
            order[at..].rotate_left(same);
        }
        let place =
            |field: &str| names.and_then(|names| names.iter().position(|name| *name == field));
        faults.sort_by_key(|fault| place(&fault.field));
        let mut error = FormError::of(part, self.kept());
        for fault in faults {
            error.wrong(&fault.field, fault.problem, fault.detail);
        }
        Err(error)
    }

    /// The type wants what no form gives: whoever wrote it has to know, the visitor can do nothing about it.
    fn mistyped(&self, fault: &Fault, untyped: &[usize]) -> FormError {
        let sent = fault.text.as_deref().map(str::as_bytes);
        let hidden = (untyped.iter().map(|at| &self.entries[*at]))
            .filter(|entry| sent.is_none() || self.text(entry) == sent)
            .map(|entry| String::from_utf8_lossy(self.name(entry)).into_owned());
        let fields: Vec<_> = match fault.field.is_empty() {
            true => hidden.collect(),
            false => vec![fault.field.clone()],
        };
        let detail = format!(
            "field {}: {}, and a form is text. Behind #[serde(flatten)], in an untagged enum or one with a tag, serde \
             does not say which type it wants (serde issue 1183): take that struct as an argument of its own, Form<…> \
             beside Form<…>, or give the field a #[serde(deserialize_with)]",
            fields.join(" or "),
            fault.detail
        );
        FormError::whole(StatusCode::INTERNAL_SERVER_ERROR, "", detail)
    }
}

type Order = SmallVec<[usize; 16]>;

/// What one attempt at reading a form knows and finds out.
struct Context<'de> {
    form: &'de FormData,
    /// The entries by name.
    order: &'de [usize],
    /// The entries in the order sent.
    sent: &'de [usize],
    /// The fields of the struct, where serde tells them.
    names: Cell<Option<&'static [&'static str]>>,
    /// What the type makes of the field that is being read.
    usage: Cell<Usage>,
    /// The entries whose types serde did not tell.
    untyped: RefCell<Vec<usize>>,
}

/// What serde found wrong.
type Fault = Box<Finding>;

#[derive(Debug)]
pub(super) struct Finding {
    /// The field; empty where serde does not say.
    field: String,
    /// The first entry of the field that was being read.
    entry: Option<usize>,
    problem: Problem,
    /// For the log. It holds no value.
    detail: String,
    /// The type expects what is no text.
    mistyped: bool,
    /// The text that was found in its place.
    text: Option<String>,
}

fn fault(problem: Problem) -> Fault {
    detailed(problem, String::new())
}

fn detailed(problem: Problem, detail: impl Into<String>) -> Fault {
    let (field, detail) = (String::new(), detail.into());
    Box::new(Finding { field, entry: None, problem, detail, mistyped: false, text: None })
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problem.fmt(f)
    }
}

impl std::error::Error for Finding {}

impl serde::de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Fault {
        fault(Problem::Invalid(message.to_string()))
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Fault {
        let problem = Problem::Invalid(INVALID.to_owned());
        let mut fault = detailed(problem, format!("its type expects {expected}"));
        fault.mistyped = true;
        if let Unexpected::Str(text) = unexpected {
            fault.text = Some(text.to_owned());
        }
        fault
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Fault {
        detailed(Problem::Invalid(INVALID.to_owned()), format!("expected {expected}"))
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Fault {
        let problem = Problem::Invalid("has too many or too few values".to_owned());
        detailed(problem, format!("{length} of them, expected {expected}"))
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Fault {
        detailed(Problem::Choice, format!("expected one of {}", expected.join(", ")))
    }

    fn unknown_field(field: &str, _: &'static [&'static str]) -> Fault {
        let mut fault = fault(Problem::Invalid("is no field of this form".to_owned()));
        fault.field = field.to_owned();
        fault
    }

    fn missing_field(field: &'static str) -> Fault {
        let detail = "not sent, as a box that is not ticked and a list of which nothing is chosen are not; \
                      #[serde(default)] makes those false and empty";
        let mut fault = detailed(Problem::Missing, detail);
        fault.field = field.to_owned();
        fault
    }
}

/// The whole form: a struct, a map, or a list of pairs.
struct Fields<'de>(&'de Context<'de>);

impl<'de> Deserializer<'de> for Fields<'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_map(Entries { rest: self.0.order, values: &[], context: self.0 })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.0.names.set(Some(names));
        self.deserialize_any(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let context = self.0;
        let pairs = context.sent.iter().map(|at| {
            let run = std::slice::from_ref(at);
            (Key(context.form.entry_name(*at)), Values { context, run })
        });
        visitor.visit_seq(MapDeserializer::new(pairs))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        tuple tuple_struct map enum identifier ignored_any
    }
}

/// The fields one after the other, each with all its values.
struct Entries<'de> {
    rest: &'de [usize],
    values: &'de [usize],
    context: &'de Context<'de>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fault> {
        let form = self.context.form;
        loop {
            let Some(first) = self.rest.first() else { return Ok(None) };
            let name = form.entry_name(*first);
            let same = self.rest.iter().take_while(|at| form.entry_name(**at) == name).count();
            (self.values, self.rest) = self.rest.split_at(same);
            let is_unknown =
                |own: &&str| self.context.names.get().is_some_and(|names| !names.contains(own));
            if !OUR_OWN.iter().any(|own| own.as_bytes() == name && is_unknown(own)) {
                return seed.deserialize(Key(name)).map(Some);
            }
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let Entries { values: run, context, .. } = *self;
        context.usage.set(Usage::Untyped);
        secret::take_asked();
        let read = seed.deserialize(Values { context, run });
        let is_secret = secret::take_asked();
        let is_shown = match context.usage.get() {
            Usage::Ignored => false,
            Usage::Typed => true,
            Usage::Untyped => {
                context.untyped.borrow_mut().extend_from_slice(run);
                // Behind #[serde(flatten)] can be a secret.
                context.names.get().is_some()
            }
        };
        if is_shown && !is_secret {
            let entries = run.iter().map(|at| &context.form.entries[*at]);
            entries.for_each(|entry| entry.shown.store(true, Ordering::Relaxed));
        }
        read.map_err(|mut fault| {
            fault.entry = run.first().copied();
            let name = fault.entry.map(|at| context.form.entry_name(at)).unwrap_or_default();
            fault.field = String::from_utf8_lossy(name).into_owned();
            if is_secret {
                // Who knows what it quotes.
                fault.detail.clear();
                if let Problem::Invalid(text) = &mut fault.problem {
                    *text = INVALID.to_owned();
                }
            }
            fault
        })
    }
}

const INVALID: &str = "is not valid";

/// A field's name.
#[derive(Clone, Copy)]
struct Key<'de>(&'de [u8]);

impl<'de> IntoDeserializer<'de, Fault> for Key<'de> {
    type Deserializer = Key<'de>;

    fn into_deserializer(self) -> Key<'de> {
        self
    }
}

impl<'de> Deserializer<'de> for Key<'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match std::str::from_utf8(self.0) {
            Ok(name) => visitor.visit_borrowed_str(name),
            Err(_) => Err(fault(Problem::NotUtf8)),
        }
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match std::str::from_utf8(self.0) {
            Ok(name) => visitor.visit_borrowed_str(name),
            // A struct passes over what is none of its fields.
            Err(_) => visitor.visit_borrowed_bytes(self.0),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let text = std::str::from_utf8(self.0).map_err(|_| fault(Problem::NotUtf8))?;
        BorrowedStrDeserializer::new(text).deserialize_enum(name, variants, visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct seq tuple tuple_struct map struct ignored_any
    }
}

/// What the type makes of a field's values.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Usage {
    /// It did not say what it wants.
    #[default]
    Untyped,
    Typed,
    Ignored,
}

/// All values that were sent under one name, or one of them. Where one is wanted, the last counts.
#[derive(Clone, Copy)]
struct Values<'de> {
    context: &'de Context<'de>,
    /// At least one entry.
    run: &'de [usize],
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
