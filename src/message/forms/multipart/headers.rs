//! The headers of a part, and the parameters of a content type.

use std::borrow::Cow;

use memchr::memmem;
use percent_encoding::percent_decode_str;

use super::Malformed;

/// How many bytes the headers of one part may have.
pub(super) const HEADERS: usize = 8 * 1024;

/// What the headers of a part say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Part {
    /// As bytes: a field whose name is not UTF-8 is one that nobody asks for.
    pub(in super::super) name: Vec<u8>,
    /// A part with a file name is a file.
    pub(in super::super) filename: Option<String>,
    pub(in super::super) content_type: Option<String>,
}

/// The boundary in a `Content-Type`.
pub(in super::super) fn boundary(content_type: &str) -> Result<String, Malformed> {
    let parameters = content_type.split_once(';').map_or("", |(_, parameters)| parameters);
    let boundary =
        Parameters(parameters.as_bytes()).only("boundary")?.ok_or("its type names no boundary")?;
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(byte);
    match String::from_utf8(boundary.into_owned()) {
        Ok(boundary)
            if (1..=70).contains(&boundary.len())
                && boundary.as_bytes().iter().all(allowed)
                && !boundary.ends_with(' ') =>
        {
            Ok(boundary)
        }
        _ => Err(Cow::Borrowed("its boundary is none (RFC 2046 section 5.1.1)")),
    }
}

/// The parameter `charset` of a content type that has one.
pub(in super::super) fn charset(content_type: &str) -> Result<Option<String>, Malformed> {
    let parameters = content_type.split_once(';').map_or("", |(_, parameters)| parameters);
    let charset = Parameters(parameters.as_bytes()).only("charset")?;
    Ok(charset.map(|charset| as_well_as_it_can_be(&charset)))
}

pub(super) fn headers(bytes: &[u8]) -> Result<Part, Malformed> {
    let (mut disposition, mut content_type, mut encoding) = (None, None, None);
    for line in lines(bytes) {
        let colon = memchr::memchr(b':', line).ok_or("a header has no colon")?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if name.is_empty() || !name.iter().copied().all(is_token) {
            return Err(Cow::Borrowed("a header has no proper name"));
        }
        if value.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
            return Err(Cow::Borrowed("a header holds a control character"));
        }
        let value = value.trim_ascii();
        if name.eq_ignore_ascii_case(b"content-disposition") {
            if disposition.replace(value).is_some() {
                return Err(Cow::Borrowed("a part has two Content-Dispositions"));
            }
        } else if name.eq_ignore_ascii_case(b"content-type") {
            if content_type.replace(as_well_as_it_can_be(value)).is_some() {
                return Err(Cow::Borrowed("a part has two Content-Types"));
            }
        } else if name.eq_ignore_ascii_case(b"content-transfer-encoding") {
            encoding = Some(value);
        }
    }
    let disposition = disposition.ok_or("a part has no Content-Disposition")?;
    let semicolon = memchr::memchr(b';', disposition).unwrap_or(disposition.len());
    let (kind, parameters) = disposition.split_at(semicolon);
    if !kind.trim_ascii().eq_ignore_ascii_case(b"form-data") {
        return Err(Cow::Borrowed("a part is no form-data"));
    }
    let parameters = Parameters(parameters);
    let name = as_browsers_mean(&parameters.only("name")?.ok_or("a part has no name")?);
    let filename = match parameters.only("filename*")? {
        // Not for forms (RFC 7578 section 4.2), but some clients write it.
        Some(extended) => Some(extended_value(&extended)?),
        None => {
            let filename = parameters.only("filename")?;
            filename.map(|filename| as_well_as_it_can_be(&as_browsers_mean(&filename)))
        }
    };
    // These three mean: as it is.
    if let Some(encoding) = encoding
        && ![&b"7bit"[..], b"8bit", b"binary"]
            .iter()
            .any(|same| encoding.eq_ignore_ascii_case(same))
    {
        let (name, encoding) = (as_well_as_it_can_be(&name), as_well_as_it_can_be(encoding));
        return Err(Cow::Owned(format!(
            "part {name:?} has the Content-Transfer-Encoding {encoding:?}, which forms do not have; \
             send it as it is (RFC 7578 section 4.7)"
        )));
    }
    Ok(Part { name, filename, content_type })
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(bytes);
    std::iter::from_fn(move || {
        let bytes = rest?;
        let end = memmem::find(bytes, b"\r\n");
        rest = end.map(|end| &bytes[end + 2..]);
        Some(&bytes[..end.unwrap_or(bytes.len())])
    })
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// UTF-8, or else Latin-1, which gives every byte some letter: curl on Windows sends names in the code page of
/// its user.
fn as_well_as_it_can_be(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().copied().map(char::from).collect(),
    }
}

/// Browsers escape what would end a quoted name or its line by percent, and nothing else.
fn as_browsers_mean(name: &[u8]) -> Vec<u8> {
    let mut meant = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((&byte, behind)) = rest.split_first() {
        let escaped = match rest.get(..3) {
            Some(b"%22") => Some(b'"'),
            Some(b"%0D") => Some(b'\r'),
            Some(b"%0A") => Some(b'\n'),
            _ => None,
        };
        meant.push(escaped.unwrap_or(byte));
        rest = if escaped.is_some() { &rest[3..] } else { behind };
    }
    meant
}

/// RFC 5987 section 3.2: `UTF-8''%C3%A9`.
fn extended_value(text: &[u8]) -> Result<String, Malformed> {
    let text = std::str::from_utf8(text).map_err(|_| "a filename* is not UTF-8")?;
    let mut pieces = text.splitn(3, '\'');
    match (pieces.next(), pieces.next(), pieces.next()) {
        (Some(charset), Some(_), Some(value)) if charset.eq_ignore_ascii_case("utf-8") => {
            let decoded = percent_decode_str(value).decode_utf8();
            Ok(decoded.map_err(|_| "a filename* is not UTF-8")?.into_owned())
        }
        _ => Err(Cow::Borrowed("a filename* is not UTF-8")),
    }
}

/// A parameter's name and value.
type Parameter<'a> = (&'a [u8], Cow<'a, [u8]>);

/// The parameters of a header value: `; name=token; name="quoted"`, from the first semicolon.
#[derive(Clone, Copy)]
struct Parameters<'a>(&'a [u8]);

impl<'a> Parameters<'a> {
    /// The value of this parameter; two of them are one too many.
    fn only(self, wanted: &str) -> Result<Option<Cow<'a, [u8]>>, Malformed> {
        let mut found = None;
        let mut rest = self;
        while let Some((name, value)) = rest.next()? {
            if name.eq_ignore_ascii_case(wanted.as_bytes()) && found.replace(value).is_some() {
                return Err(Cow::Borrowed("a header has a parameter twice"));
            }
        }
        Ok(found)
    }

    fn next(&mut self) -> Result<Option<Parameter<'a>>, Malformed> {
        let start = self.0.iter().position(|byte| !b" \t;".contains(byte));
        let Some(start) = start else { return Ok(None) };
        let text = &self.0[start..];
        let equals = memchr::memchr(b'=', text).ok_or("a parameter has no value")?;
        let (name, rest) = (&text[..equals], &text[equals + 1..]);
        if name.is_empty() || !name.iter().copied().all(is_token) {
            return Err(Cow::Borrowed("a parameter has no proper name"));
        }
        let (value, rest) = match rest.strip_prefix(b"\"") {
            Some(quoted) => unquote(quoted)?,
            None => {
                let end = rest.iter().position(|byte| b"; \t".contains(byte));
                let (value, rest) = rest.split_at(end.unwrap_or(rest.len()));
                if value.is_empty() || value.contains(&b'"') {
                    return Err(Cow::Borrowed("a parameter has no proper value"));
                }
                (Cow::Borrowed(value), rest)
            }
        };
        let rest = rest.trim_ascii_start();
        if !rest.is_empty() && !rest.starts_with(b";") {
            return Err(Cow::Borrowed("a parameter goes on behind its value"));
        }
        self.0 = rest;
        Ok(Some((name, value)))
    }
}

/// Reads a quoted text up to its closing quote; says what follows. A backslash stands for itself unless a
/// quote or another one follows: old browsers send whole Windows paths.
fn unquote(text: &[u8]) -> Result<(Cow<'_, [u8]>, &[u8]), Malformed> {
    let mut value = Vec::new();
    let mut rest = text;
    loop {
        let at = memchr::memchr2(b'"', b'\\', rest).ok_or("a quoted parameter does not end")?;
        value.extend_from_slice(&rest[..at]);
        let (mark, behind) = (rest[at], &rest[at + 1..]);
        if mark == b'"' {
            return Ok((Cow::Owned(value), behind));
        }
        rest = behind;
        match behind.first() {
            Some(&escaped @ (b'"' | b'\\')) => {
                value.push(escaped);
                rest = &behind[1..];
            }
            _ => value.push(b'\\'),
        }
    }
}
