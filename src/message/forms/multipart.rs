//! `multipart/form-data` (RFC 7578, RFC 2046 section 5.1), as browsers write it (WHATWG HTML, "Multipart form
//! data"), in pieces as they arrive.
//!
//! Strict where leniency would let two readers of one body see two forms: every delimiter line, header and
//! parameter is well-formed, or the form is refused. A preamble and an epilogue are passed over.

use std::borrow::Cow;
use std::ops::Range;

use memchr::memmem;
use percent_encoding::percent_decode_str;

/// How many bytes the headers of one part may have.
const HEADERS: usize = 8 * 1024;

/// What the headers of a part say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Part {
    /// As bytes: a field whose name is not UTF-8 is one that nobody asks for.
    pub(super) name: Vec<u8>,
    /// A part with a file name is a file.
    pub(super) filename: Option<String>,
    pub(super) content_type: Option<String>,
}

/// Why a form is refused, to be put behind "the form is malformed: ".
pub(super) type Malformed = Cow<'static, str>;

/// What the parser has found at the beginning of the bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Not enough to tell. More bytes are needed, behind these.
    More,
    /// A part begins.
    Part(Part),
    /// These bytes belong to the part.
    Content(Range<usize>),
    /// The part ends.
    PartEnd,
    /// The form ends; whatever follows is not part of it.
    End,
}

/// Reads a form from bytes that somebody else holds.
pub(super) struct Parser {
    delimiter: memmem::Finder<'static>,
    state: State,
    parts: usize,
    most_parts: usize,
}

#[derive(Clone, Copy)]
enum State {
    /// Before the first byte: a delimiter there needs no line break before it.
    Start,
    Preamble,
    /// Behind a delimiter.
    Delimiter,
    /// In the white space that may follow a delimiter.
    Padding,
    /// At the line break in front of the headers.
    Head,
    /// In a part. The bytes to skip are the second line break behind its headers, which can be that of the
    /// delimiter as well: an empty part without one of its own.
    Content {
        skip: usize,
    },
}

impl Parser {
    /// A parser of a form with this boundary, and at most so many parts.
    pub(super) fn new(boundary: &str, most_parts: usize) -> Parser {
        let delimiter = format!("\r\n--{boundary}");
        Parser {
            delimiter: memmem::Finder::new(&delimiter).into_owned(),
            state: State::Start,
            parts: 0,
            most_parts,
        }
    }

    /// What comes next in `bytes`, and how many of them are done with, once that has been looked at. The next call
    /// gets the others, with what has arrived since behind them. `ended` says that nothing will.
    pub(super) fn next(&mut self, bytes: &[u8], ended: bool) -> Result<(usize, Event), Malformed> {
        match self.advance(bytes, ended)? {
            (_, Event::More) if ended => Err(Cow::Borrowed(BREAKS_OFF)),
            found => Ok(found),
        }
    }

    fn advance(&mut self, bytes: &[u8], ended: bool) -> Result<(usize, Event), Malformed> {
        let mut at = 0;
        loop {
            let rest = &bytes[at..];
            let length = self.delimiter.needle().len();
            match self.state {
                State::Start if rest.len() < length - 2 && !ended => return Ok((at, Event::More)),
                State::Start if rest.starts_with(&self.delimiter.needle()[2..]) => {
                    at += length - 2;
                    self.state = State::Delimiter;
                }
                State::Start => self.state = State::Preamble,
                State::Preamble => match self.delimiter.find(rest) {
                    Some(found) => {
                        at += found + length;
                        self.state = State::Delimiter;
                    }
                    None if ended => return Err(Cow::Borrowed("there is no delimiter")),
                    None => return Ok((at + rest.len().saturating_sub(length - 1), Event::More)),
                },
                State::Delimiter if rest.len() < 2 => return Ok((at, Event::More)),
                State::Delimiter if rest.starts_with(b"--") => return Ok((at + 2, Event::End)),
                State::Delimiter => self.state = State::Padding,
                State::Padding => {
                    let padding = rest.iter().take_while(|byte| b" \t".contains(byte)).count();
                    at += padding;
                    if rest[padding..].len() < 2 && !ended {
                        return Ok((at, Event::More));
                    }
                    if !rest[padding..].starts_with(b"\r\n") {
                        return Err(Cow::Borrowed("a delimiter does not end its line"));
                    }
                    if self.parts == self.most_parts {
                        let most = self.most_parts;
                        return Err(Cow::Owned(format!("it has more than {most} parts")));
                    }
                    self.parts += 1;
                    self.state = State::Head;
                }
                State::Head => {
                    let (taken, event) = self.head(rest)?;
                    return Ok((at + taken, event));
                }
                State::Content { skip } => {
                    let (content, event) = match self.delimiter.find(rest) {
                        Some(end) if end <= skip => {
                            self.state = State::Delimiter;
                            return Ok((at + end + length, Event::PartEnd));
                        }
                        Some(end) => (end, Event::Content(at + skip..at + end)),
                        None if ended => return Err(Cow::Borrowed(BREAKS_OFF)),
                        // The last bytes can be the first ones of a delimiter.
                        None => match rest.len().saturating_sub(length - 1) {
                            safe if safe > skip => (safe, Event::Content(at + skip..at + safe)),
                            _ => return Ok((at, Event::More)),
                        },
                    };
                    self.state = State::Content { skip: 0 };
                    return Ok((at + content, event));
                }
            }
        }
    }

    /// The headers of a part, from the line break in front of them. No header can hide a delimiter.
    fn head(&mut self, bytes: &[u8]) -> Result<(usize, Event), Malformed> {
        let window = &bytes[2..bytes.len().min(2 + HEADERS)];
        let end = memmem::find(window, b"\r\n\r\n");
        // No delimiter goes beyond a line break: one that begins in front of the blank line ends there, too.
        let delimiter = self.delimiter.find(&bytes[..2 + end.unwrap_or(window.len())]);
        match (end, delimiter) {
            (_, Some(_)) => Err(Cow::Borrowed("the headers of a part do not end")),
            (None, None) if window.len() == HEADERS => {
                Err(Cow::Borrowed("a part has more than 8 KiB of headers"))
            }
            (None, None) => Ok((0, Event::More)),
            (Some(end), None) => {
                let part = headers(&window[..end])?;
                self.state = State::Content { skip: 2 };
                // The second line break stays.
                Ok((2 + end + 2, Event::Part(part)))
            }
        }
    }
}

const BREAKS_OFF: &str = "it breaks off: the last delimiter is missing";

/// The boundary in a `Content-Type`.
pub(super) fn boundary(content_type: &str) -> Result<String, Malformed> {
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
pub(super) fn charset(content_type: &str) -> Result<Option<String>, Malformed> {
    let parameters = content_type.split_once(';').map_or("", |(_, parameters)| parameters);
    let charset = Parameters(parameters.as_bytes()).only("charset")?;
    Ok(charset.map(|charset| as_well_as_it_can_be(&charset)))
}

fn headers(bytes: &[u8]) -> Result<Part, Malformed> {
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

#[cfg(test)]
mod tests {
    use super::*;

    const PARTS: usize = 1000;

    /// The parts of a body that arrives in pieces of this size.
    fn in_pieces(
        body: &[u8],
        boundary: &str,
        size: usize,
    ) -> Result<Vec<(Part, Vec<u8>)>, Malformed> {
        let mut parser = Parser::new(boundary, PARTS);
        let (mut parts, mut start, mut arrived) = (Vec::new(), 0, 0);
        loop {
            let bytes = &body[start..arrived];
            let (taken, event) = parser.next(bytes, arrived == body.len())?;
            match event {
                Event::More => arrived = body.len().min(arrived + size),
                Event::Part(part) => parts.push((part, Vec::new())),
                Event::Content(range) => {
                    parts.last_mut().unwrap().1.extend_from_slice(&bytes[range]);
                }
                Event::PartEnd => {}
                Event::End => return Ok(parts),
            }
            start += taken;
        }
    }

    fn parse(body: &[u8], boundary: &str) -> Result<Vec<(Part, Vec<u8>)>, Malformed> {
        let whole = in_pieces(body, boundary, body.len());
        for size in [1, 7] {
            let cut = in_pieces(body, boundary, size);
            match (&cut, &whole) {
                // What is wrong in two ways may be refused for either.
                (Err(_), Err(_)) => {}
                _ => assert_eq!(cut, whole, "in pieces of {size}: {body:?}"),
            }
        }
        whole
    }

    /// Each part as `name=content`, or `name(filename, type)=content`.
    fn parsed(body: &str, boundary: &str) -> Result<Vec<String>, Malformed> {
        let show = |(part, content): (Part, Vec<u8>)| {
            let name = String::from_utf8(part.name).unwrap();
            let content = String::from_utf8(content).unwrap();
            match part.filename {
                None => format!("{name}={content}"),
                Some(file) => {
                    let content_type = part.content_type.unwrap_or_default();
                    format!("{name}({file}, {content_type})={content}")
                }
            }
        };
        Ok(parse(body.as_bytes(), boundary)?.into_iter().map(show).collect())
    }

    fn of_disposition(parameters: &str) -> Result<Vec<String>, Malformed> {
        let head = format!("Content-Disposition: form-data{parameters}");
        parsed(&format!("--b\r\n{head}\r\n\r\nx\r\n--b--"), "b")
    }

    const FORM: &str = "--b\r\nContent-Disposition: form-data; name=\"text\"\r\n\r\none\r\ntwo\r\n\
        --b\r\ncontent-disposition:form-data;filename=a.txt;name=file\r\nContent-Type: text/plain\r\n\r\n\
        \r\n--\r\n-b\r\n--b--\r\n";

    #[test]
    fn a_form_is_its_parts() {
        let parts = ["text=one\r\ntwo", "file(a.txt, text/plain)=\r\n--\r\n-b"];
        assert_eq!(parsed(FORM, "b").unwrap(), parts);
        let surrounded = format!("preamble --b\r\n{FORM}epilogue\r\n--b\r\n");
        assert_eq!(parsed(&surrounded, "b").unwrap(), parts);
        let padded = FORM.replace("--b\r\nC", "--b \t\r\nC");
        assert_eq!(parsed(&padded, "b").unwrap(), parts);
    }

    #[test]
    fn a_form_or_a_part_may_be_empty() {
        assert_eq!(parsed("--b--", "b").unwrap(), [""; 0]);
        assert_eq!(parsed("\r\n--b--\r\n", "b").unwrap(), [""; 0]);
        let head = "Content-Disposition: form-data; name=a\r\n";
        for empty in ["\r\n\r\n", "\r\n"] {
            assert_eq!(parsed(&format!("--b\r\n{head}{empty}--b--"), "b").unwrap(), ["a="]);
        }
    }

    #[test]
    fn names_are_read_as_browsers_and_others_write_them() {
        for (parameters, expected) in [
            ("; name=\"a b\"", "a b=x"),
            ("; name=\"é;=,\"", "é;=,=x"),
            ("; name=\"\"", "=x"),
            ("; name=\"a%22b%0D%0A%41\"", "a\"b\r\n%41=x"),
            ("; name=\"a\\\"b\\\\c\"", "a\"b\\c=x"),
            ("; name=a; filename=\"C:\\dir\\f.txt\"", "a(C:\\dir\\f.txt, )=x"),
            ("; name=a; filename=\"\"", "a(, )=x"),
            ("; NAME=a ; FileName=f ;", "a(f, )=x"),
            ("; name=a; filename=f; filename*=UTF-8''%C3%A9", "a(é, )=x"),
            ("; name=a; filename*=utf-8'en'it's", "a(it's, )=x"),
        ] {
            assert_eq!(of_disposition(parameters).unwrap(), [expected], "{parameters}");
        }
    }

    #[test]
    fn what_is_cut_off_anywhere_is_refused() {
        let whole = FORM.trim_end();
        for end in 0..whole.len() {
            assert!(parsed(&whole[..end], "b").is_err(), "{:?}", &whole[..end]);
        }
    }

    #[test]
    fn what_two_readers_could_read_two_ways_is_refused() {
        for parameters in [
            "",
            "; filename=f",
            "; name=a; name=b",
            "; name=a; filename=f; FILENAME=g",
            "; name",
            "; name=",
            "; =a",
            "; na me=a",
            "; name=\"a",
            "; name=\"a\\\"",
            "; name=\"a\"b",
            "; name=a b",
            "; name=a\"b\"",
            "; name=\"a\nb\"",
            "; name=\"a\0b\"",
            "; name=a; filename*=latin1''%E9",
            "; name=a; filename*=UTF-8''%E9",
            "; name=a; filename*=f",
            "\r\nContent-Disposition: form-data; name=a",
            "; name=a\r\n folded",
            "; name=a\r\nX",
            "; name=a\r\nX : y",
            "; name=a\r\n: y",
            "; name=a\r\nContent-Type: a/b\r\ncontent-type: c/d",
            "; name=a\r\nContent-Transfer-Encoding: base64",
            "; name=a\r\nX: \u{c}y",
            "; name=a\n",
        ] {
            assert!(of_disposition(parameters).is_err(), "{parameters:?}");
        }
        let good = "Content-Disposition: form-data; name=a\r\n\r\nx";
        for body in [
            String::new(),
            "--b".to_owned(),
            "--bc\r\n".to_owned(),
            format!("--b\n{good}\r\n--b--"),
            format!("--b\r\n{good}\n--b--"),
            format!("--b\r\n{good}\r\n--bc\r\n--b--"),
            format!("--b x\r\n{good}\r\n--b--"),
            format!(" --b\r\n{good}"),
            "--b\r\n--b--".to_owned(),
            "--b\r\n\r\nx\r\n--b--".to_owned(),
            "--b\r\nX: y\r\n\r\nx\r\n--b--".to_owned(),
            "--b\r\nContent-Disposition: attachment; name=a\r\n\r\nx\r\n--b--".to_owned(),
        ] {
            assert!(parsed(&body, "b").is_err(), "{body:?}");
        }
        // With a colon in the boundary, its line could pass for a header.
        let hidden = "--a:b\r\nContent-Disposition: form-data; name=a\r\n--a:b\r\n\r\nx\r\n--a:b--";
        assert!(parsed(hidden, "a:b").is_err());
    }

    #[test]
    fn names_that_are_not_utf_8_spoil_no_form() {
        let head =
            b"--b\r\nContent-Disposition: form-data; name=\"Kj\xe6r\"; filename=\"Kj\xe6r.txt\"";
        let [(part, content)] =
            parse(&[head, &b"\r\n\r\nx\r\n--b--"[..]].concat(), "b").unwrap().try_into().unwrap();
        assert_eq!((&part.name[..], &content[..]), (&b"Kj\xe6r"[..], &b"x"[..]));
        assert_eq!(part.filename.as_deref(), Some("Kjær.txt"));
    }

    #[test]
    fn an_encoded_part_is_named() {
        let encoded = |encoding| {
            of_disposition(&format!("; name=a\r\nContent-Transfer-Encoding: {encoding}"))
        };
        for encoding in ["7bit", "8bit", "Binary"] {
            assert_eq!(encoded(encoding).unwrap(), ["a=x"]);
        }
        for encoding in ["base64", "quoted-printable"] {
            let expected = format!(
                "part \"a\" has the Content-Transfer-Encoding \"{encoding}\", which forms do not \
                 have; send it as it is (RFC 7578 section 4.7)"
            );
            assert_eq!(encoded(encoding).unwrap_err(), expected);
        }
    }

    #[test]
    fn parts_and_headers_have_a_limit() {
        let part = "--b\r\nContent-Disposition: form-data; name=a\r\n\r\n\r\n";
        assert_eq!(parsed(&(part.repeat(PARTS) + "--b--"), "b").unwrap().len(), PARTS);
        assert!(parsed(&(part.repeat(PARTS + 1) + "--b--"), "b").is_err());
        let headers = |length| of_disposition(&format!("; name=a\r\nX: {}", "y".repeat(length)));
        assert!(headers(8000).is_ok());
        assert_eq!(headers(8192).unwrap_err(), "a part has more than 8 KiB of headers");
    }

    #[test]
    fn a_boundary_is_found_where_the_type_names_one() {
        let longest = "x".repeat(70);
        for (content_type, expected) in [
            (
                "multipart/form-data; boundary=----WebKitFormBoundaryAbC",
                "----WebKitFormBoundaryAbC",
            ),
            ("multipart/form-data; charset=utf-8; Boundary=\"a b:c\"", "a b:c"),
            (&format!("multipart/form-data;boundary={longest}"), &longest[..]),
        ] {
            assert_eq!(boundary(content_type).unwrap(), expected);
        }
        let long = format!("multipart/form-data; boundary={longest}x");
        for content_type in [
            "multipart/form-data",
            "multipart/form-data; boundary",
            "multipart/form-data; boundary=",
            "multipart/form-data; boundary=\"\"",
            "multipart/form-data; boundary=\"a \"",
            "multipart/form-data; boundary=a; boundary=b",
            "multipart/form-data; boundary=\"a",
            "multipart/form-data; boundary=é",
            "multipart/form-data; boundary=\"a\\\"b\"",
            &long,
        ] {
            assert!(boundary(content_type).is_err(), "{content_type}");
        }
    }

    #[test]
    fn whatever_was_put_in_comes_out() {
        let mut state: u64 = 88_172_645_463_325_252;
        let mut below = |limit: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % limit as u64) as usize
        };
        let pieces =
            ["\r", "\n", "\r\n", "\r\n-", "\r\n--", "--", "-", "b", "b--", "\r\n--a", ":", "x"];
        let (mut forms, mut parts) = (0, 0);
        for _ in 0..5000 {
            let contents: Vec<String> = (0..below(4))
                .map(|_| (0..below(6)).map(|_| pieces[below(pieces.len())]).collect())
                .collect();
            // A content that has the delimiter in it, or is one behind its blank line, cannot be sent.
            if contents.iter().any(|content| format!("\r\n{content}\r\n").contains("\r\n--b")) {
                continue;
            }
            let mut body = String::new();
            for (number, content) in contents.iter().enumerate() {
                let head = format!("Content-Disposition: form-data; name=\"{number}\"");
                body.push_str(&format!("--b\r\n{head}\r\n\r\n{content}\r\n"));
            }
            body.push_str("--b--\r\n");
            let expected: Vec<_> =
                contents.iter().enumerate().map(|(n, content)| format!("{n}={content}")).collect();
            assert_eq!(parsed(&body, "b").unwrap(), expected, "{body:?}");
            (forms, parts) = (forms + 1, parts + contents.len());
        }
        assert!(forms > 3000 && parts > 3000, "{parts} parts in {forms} forms");
    }

    #[test]
    fn no_bytes_make_it_panic() {
        // Every single change of one byte, and every removal: refused or read, never worse.
        for at in 0..FORM.len() {
            for byte in [0, b'\r', b'\n', b'-', b'b', b'"', b'\\', b';', b'=', b'%', 0x80, 0xff] {
                let mut body = FORM.as_bytes().to_vec();
                body[at] = byte;
                let _ = parse(&body, "b");
                body.remove(at);
                let _ = parse(&body, "b");
            }
        }
    }
}
