//! The fields of a session: text under keys.

use std::collections::BTreeMap;
use std::fmt;

/// Bytes that no field has, before it is worth moving the others together.
const SLACK: usize = 1024;

/// The fields of a session: text under keys, sorted by key.
///
/// All of them lie in one buffer, so that loading a session takes two allocations and not two for each field.
///
/// ```
/// use bottle_session::Fields;
///
/// let pairs = [("name", "Ada"), ("born", "1815")];
/// let mut fields: Fields = pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
/// fields.insert("name", "Countess");
/// assert_eq!(fields.get("name"), Some("Countess"));
/// assert_eq!(fields.iter().collect::<Vec<_>>(), [("born", "1815"), ("name", "Countess")]);
/// ```
#[derive(Clone, Default)]
pub struct Fields {
    text: String,
    entries: Vec<Entry>,
    /// How many bytes all keys and values have together.
    bytes: usize,
}

/// Where a field lies.
#[derive(Clone, Copy, Debug)]
struct Entry {
    key: Span,
    value: Span,
}

#[derive(Clone, Copy, Debug)]
struct Span {
    start: usize,
    length: usize,
}

impl Span {
    fn of(self, text: &str) -> &str {
        &text[self.start..self.start + self.length]
    }
}

impl Fields {
    /// No fields.
    pub fn new() -> Fields {
        Fields::default()
    }

    /// The value under this key.
    pub fn get(&self, key: &str) -> Option<&str> {
        let at = self.find(key).ok()?;
        Some(self.entries[at].value.of(&self.text))
    }

    /// Whether there is a value under this key.
    pub fn contains_key(&self, key: &str) -> bool {
        self.find(key).is_ok()
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many bytes all keys and values have together.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Keys and values, sorted by key.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&str, &str)> {
        self.entries.iter().map(|entry| (entry.key.of(&self.text), entry.value.of(&self.text)))
    }

    /// Sets the value under this key.
    pub fn insert(&mut self, key: &str, value: &str) {
        match self.find(key) {
            Ok(at) => {
                self.bytes -= self.entries[at].value.length;
                self.entries[at].value = self.push(value);
            }
            Err(at) => {
                let entry = Entry { key: self.push(key), value: self.push(value) };
                self.bytes += key.len();
                self.entries.insert(at, entry);
            }
        }
        self.bytes += value.len();
        self.tidy();
    }

    /// Removes the field of this key and returns its value.
    pub fn remove(&mut self, key: &str) -> Option<String> {
        let entry = self.entries.remove(self.find(key).ok()?);
        self.bytes -= entry.key.length + entry.value.length;
        let value = entry.value.of(&self.text).to_owned();
        self.tidy();
        Some(value)
    }

    /// Removes all fields.
    pub fn clear(&mut self) {
        *self = Fields::default();
    }

    /// Removes all fields but those with these keys.
    pub(crate) fn retain(&mut self, keeps: impl Fn(&str) -> bool) {
        *self = self.iter().filter(|(key, _)| keeps(key)).collect();
    }

    /// The same fields in as little memory as they need.
    pub(crate) fn compact(&self) -> Fields {
        let mut compact = Fields::with_capacity(self.len(), self.bytes);
        self.iter().for_each(|(key, value)| compact.push_last(key, value));
        compact
    }

    fn tidy(&mut self) {
        if self.text.len() > 2 * self.bytes + SLACK {
            *self = self.compact();
        }
    }

    fn with_capacity(fields: usize, bytes: usize) -> Fields {
        let (text, entries) = (String::with_capacity(bytes), Vec::with_capacity(fields));
        Fields { text, entries, bytes: 0 }
    }

    /// Adds a field whose key is greater than all others.
    fn push_last(&mut self, key: &str, value: &str) {
        let entry = Entry { key: self.push(key), value: self.push(value) };
        self.entries.push(entry);
        self.bytes += key.len() + value.len();
    }

    fn push(&mut self, text: &str) -> Span {
        let start = self.text.len();
        self.text.push_str(text);
        Span { start, length: text.len() }
    }

    fn find(&self, key: &str) -> Result<usize, usize> {
        self.entries.binary_search_by(|entry| entry.key.of(&self.text).cmp(key))
    }
}

/// Fields in one allocation of as many bytes as they need, and two or three more for each: for what is kept long. The
/// same fields are the same text.
#[derive(PartialEq, Eq)]
pub(crate) struct Packed(Box<str>);

impl Fields {
    /// How many there are, and then, sorted by key, how long key and value are and both of them. Numbers are digits to
    /// the base of 64, which are ASCII, so that all of it is text.
    pub(crate) fn pack(&self) -> Packed {
        let lengths = self.entries.iter().flat_map(|entry| [entry.key.length, entry.value.length]);
        let numbers = digits(self.len()) + lengths.map(digits).sum::<usize>();
        let mut text = String::with_capacity(numbers + self.bytes);
        push_number(&mut text, self.len());
        for (key, value) in self.iter() {
            push_number(&mut text, key.len());
            push_number(&mut text, value.len());
            text.push_str(key);
            text.push_str(value);
        }
        Packed(text.into_boxed_str())
    }
}

impl Packed {
    pub(crate) fn unpack(&self) -> Fields {
        let text = String::from(&*self.0);
        let (mut at, mut bytes) = (0, 0);
        let count = number(&text, &mut at);
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            let (key, value) = (number(&text, &mut at), number(&text, &mut at));
            let key = Span { start: at, length: key };
            let value = Span { start: at + key.length, length: value };
            entries.push(Entry { key, value });
            at += key.length + value.length;
            bytes += key.length + value.length;
        }
        Fields { text, entries, bytes }
    }
}

/// How many digits a number has.
fn digits(number: usize) -> usize {
    (number.checked_ilog2().unwrap_or(0) / 6 + 1) as usize
}

/// The last digit comes first; all before the highest have 64 added.
fn push_number(text: &mut String, mut number: usize) {
    while number >= 64 {
        text.push(char::from(64 + (number % 64) as u8));
        number /= 64;
    }
    text.push(char::from(number as u8));
}

/// The number that begins at this place, which is behind it afterwards.
fn number(text: &str, at: &mut usize) -> usize {
    let (mut number, mut shift) = (0, 0);
    loop {
        let digit = text.as_bytes()[*at];
        *at += 1;
        number |= usize::from(digit % 64) << shift;
        shift += 6;
        if digit < 64 {
            return number;
        }
    }
}

/// Fields that lie in a buffer already, as the reply of a store.
pub(crate) struct FieldsIn<'a> {
    buffer: &'a [u8],
    fields: Fields,
}

impl<'a> FieldsIn<'a> {
    /// Copies the buffer; `None` where it is not text throughout.
    pub(crate) fn copy(buffer: &'a [u8], fields: usize) -> Option<FieldsIn<'a>> {
        let text = std::str::from_utf8(buffer).ok()?.to_owned();
        let entries = Vec::with_capacity(fields);
        Some(FieldsIn { buffer, fields: Fields { text, entries, bytes: 0 } })
    }

    /// Adds a field by parts of the buffer, both of them text: what stands around them is ASCII.
    pub(crate) fn push(&mut self, key: &'a [u8], value: &'a [u8]) {
        let start = |part: &[u8]| part.as_ptr().addr().wrapping_sub(self.buffer.as_ptr().addr());
        let span = |part: &[u8]| Span { start: start(part), length: part.len() };
        self.fields.entries.push(Entry { key: span(key), value: span(value) });
        self.fields.bytes += key.len() + value.len();
    }

    /// The fields, once all have been added, each key once.
    pub(crate) fn done(self) -> Fields {
        let Fields { text, mut entries, bytes } = self.fields;
        entries.sort_unstable_by(|one, other| one.key.of(&text).cmp(other.key.of(&text)));
        Fields { text, entries, bytes }
    }
}

impl<K: AsRef<str>, V: AsRef<str>> FromIterator<(K, V)> for Fields {
    /// Of several values under one key the last one counts.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Fields {
        let mut fields = Fields::default();
        for (key, value) in pairs {
            let (key, value) = (key.as_ref(), value.as_ref());
            match fields.entries.last() {
                Some(last) if last.key.of(&fields.text) >= key => fields.insert(key, value),
                _ => fields.push_last(key, value),
            }
        }
        fields
    }
}

impl From<BTreeMap<String, String>> for Fields {
    fn from(fields: BTreeMap<String, String>) -> Fields {
        fields.into_iter().collect()
    }
}

impl IntoIterator for Fields {
    type Item = (String, String);
    type IntoIter = std::vec::IntoIter<(String, String)>;

    fn into_iter(self) -> Self::IntoIter {
        let pairs: Vec<_> =
            self.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        pairs.into_iter()
    }
}

impl PartialEq for Fields {
    fn eq(&self, other: &Fields) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl Eq for Fields {}

/// Shows the keys and no value: those are the visitor's.
impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(|(key, _)| key)).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn fields_are_a_sorted_map_however_they_are_changed() {
        let (mut fields, mut map) = (Fields::new(), BTreeMap::new());
        let mut number = 1u32;
        for step in 0..20_000 {
            number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let key = format!("ключ {}", number >> 27);
            let value = "x".repeat((number >> 8) as usize % 50);
            match number % 8 {
                0 => assert_eq!(fields.remove(&key), map.remove(&key)),
                1 => fields = fields.pack().unpack(),
                2 => assert_eq!(fields.get(&key), map.get(&key).map(String::as_str)),
                _ => {
                    fields.insert(&key, &value);
                    map.insert(key, value);
                }
            }
            let bytes: usize = map.iter().map(|(key, value)| key.len() + value.len()).sum();
            assert_eq!((fields.len(), fields.bytes()), (map.len(), bytes), "step {step}");
            assert!(fields.text.len() <= 2 * bytes + SLACK + 100, "step {step}");
        }
        assert!(fields.clone().into_iter().eq(map.clone()));
        let again: Fields = map.into_iter().rev().collect();
        assert_eq!(fields, again);
    }

    #[test]
    fn packed_fields_take_no_more_than_they_need_and_are_the_same_however_they_were_made() {
        for length in [0, 1, 63, 64, 4_095, 4_096, 300_000] {
            let mut fields: Fields = [("ключ", "x".repeat(length))].into_iter().collect();
            let packed = fields.pack();
            assert_eq!(packed.unpack(), fields);
            assert_eq!(packed.0.len(), fields.bytes() + 2 + digits(length));
            fields.insert("name", "Ada");
            assert!(fields.pack() != packed);
            fields.remove("name");
            assert!(fields.pack() == packed);
        }
        assert_eq!(Fields::new().pack().unpack(), Fields::new());
    }

    #[test]
    fn fields_lie_in_the_buffer_they_came_in() {
        let buffer = "$2\r\nné\r\n$0\r\n\r\n$1\r\na\r\n$2\r\nя\r\n".as_bytes();
        let part = |start, end| &buffer[start..end];
        let mut fields = FieldsIn::copy(buffer, 2).unwrap();
        fields.push(part(4, 7), part(13, 13));
        fields.push(part(19, 20), part(26, 28));
        let mut fields = fields.done();
        assert_eq!(fields.iter().collect::<Vec<_>>(), [("a", "я"), ("né", "")]);
        fields.insert("a", "b");
        assert_eq!((fields.get("a"), fields.bytes()), (Some("b"), 5));
        assert!(FieldsIn::copy(b"a\xff", 0).is_none());
    }

    #[test]
    fn debug_shows_no_value() {
        let fields: Fields = [("card", "4111")].into_iter().collect();
        assert_eq!(format!("{fields:?}"), "{\"card\"}");
    }
}
