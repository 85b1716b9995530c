//! A form's fields as a type of the user's, by serde.
//!
//! The crate `serde_html_form` comes closest. It reads urlencoded text alone, refuses the second value of a field
//! and a bool that is `1`, and its errors do not say which field they are about.

mod fault;
mod values;

use std::cell::{Cell, RefCell};
use std::sync::atomic::Ordering;

use http::StatusCode;
use serde::de::value::{BorrowedStrDeserializer, MapDeserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use smallvec::SmallVec;

use self::fault::{Fault, INVALID, fault};
use self::values::{Usage, Values};
use super::error::{FormError, Part, Problem};
use super::{FormData, secret};

/// After so many wrong fields, those that come later are not looked for.
const MAX_FAULTS: usize = 50;

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
            if faults.iter().any(|known| known.field == fault.field) || faults.len() == MAX_FAULTS {
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
