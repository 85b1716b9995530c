//! `multipart/form-data` on the bytes of a whole body (RFC 7578, RFC 2046 section 5.1), as browsers write it
//! (WHATWG HTML, "Multipart form data").
//!
//! Strict where leniency would let two readers of one body see two forms: every delimiter line, header and
//! parameter is well-formed, or the form is refused. A preamble and an epilogue are passed over.

use std::borrow::Cow;
use std::ops::Range;

use memchr::memmem;
use percent_encoding::percent_decode_str;

/// How many parts one form may have. A browser sends one for each control.
const PARTS: usize = 1000;

/// How many bytes the headers of one part may have.
const HEADERS: usize = 8 * 1024;

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) name: String,
    /// Where there is one, the part is a file.
    pub(super) filename: Option<String>,
    pub(super) content_type: Option<String>,
    pub(super) content: Range<usize>,
}

/// Why a form is refused, to be put behind "the form is malformed: ".
pub(super) type Malformed = &'static str;

/// The boundary in a `Content-Type`.
pub(super) fn boundary(content_type: &str) -> Result<Cow<'_, str>, Malformed> {
    let parameters = content_type.split_once(';').map_or("", |(_, parameters)| parameters);
    let boundary = Parameters(parameters).only("boundary")?.ok_or("its type names no boundary")?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(&byte);
    match (1..=70).contains(&boundary.len())
        && boundary.bytes().all(allowed)
        && !boundary.ends_with(' ')
    {
        true => Ok(boundary),
        false => Err("its boundary is none (RFC 2046 section 5.1.1)"),
    }
}

/// The parts of a body.
pub(super) fn parse(body: &[u8], boundary: &str) -> Result<Vec<Part>, Malformed> {
    let delimiter = format!("\r\n--{boundary}");
    let finder = memmem::Finder::new(&delimiter);
    let mut parts = Vec::new();
    // The first delimiter may be the very beginning.
    let mut at = match body.starts_with(&delimiter.as_bytes()[2..]) {
        true => delimiter.len() - 2,
        false => finder.find(body).ok_or("there is no delimiter")? + delimiter.len(),
    };
    loop {
        if body[at..].starts_with(b"--") {
            return Ok(parts);
        }
        let padding = body[at..].iter().take_while(|byte| b" \t".contains(byte)).count();
        at += padding;
        if !body[at..].starts_with(b"\r\n") {
            return Err("a delimiter does not end its line");
        }
        at += 2;
        if parts.len() == PARTS {
            return Err("it has more than 1000 parts");
        }
        // Found first, so that no header can hide it. Its line break may be the one just passed.
        let end =
            finder.find(&body[at - 2..]).ok_or("it breaks off: the last delimiter is missing")?;
        let stop = at - 2 + end;
        let mut part = Part::default();
        // The blank line behind the headers may be that of the delimiter: an empty part without its own.
        let start = at + headers(&body[at..stop + 2], &mut part)?;
        part.content = start.min(stop)..stop;
        at = stop + delimiter.len();
        parts.push(part);
    }
}

/// Reads the headers of a part and says how long they are, with the blank line.
fn headers(bytes: &[u8], part: &mut Part) -> Result<usize, Malformed> {
    let window = &bytes[..bytes.len().min(HEADERS)];
    let end = memmem::find(window, b"\r\n\r\n").ok_or(match window.len() == HEADERS {
        true => "a part has more than 8 KiB of headers",
        false => "the headers of a part do not end",
    })?;
    let text = std::str::from_utf8(&bytes[..end]).map_err(|_| "a header is not UTF-8")?;
    let mut disposition = None;
    for line in text.split("\r\n") {
        let (name, value) = line.split_once(':').ok_or("a header has no colon")?;
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err("a header has no proper name");
        }
        if value.contains(|character: char| character.is_control() && character != '\t') {
            return Err("a header holds a control character");
        }
        let value = value.trim_matches([' ', '\t']);
        if name.eq_ignore_ascii_case("content-disposition") {
            if disposition.replace(value).is_some() {
                return Err("a part has two Content-Dispositions");
            }
        } else if name.eq_ignore_ascii_case("content-type") {
            if part.content_type.replace(value.to_owned()).is_some() {
                return Err("a part has two Content-Types");
            }
        } else if name.eq_ignore_ascii_case("content-transfer-encoding")
            // Deprecated by RFC 7578 section 4.7; these three mean: as it is.
            && !["7bit", "8bit", "binary"].iter().any(|same| value.eq_ignore_ascii_case(same))
        {
            return Err("a part has a Content-Transfer-Encoding");
        }
    }
    let disposition = disposition.ok_or("a part has no Content-Disposition")?;
    let (kind, parameters) = disposition.split_once(';').unwrap_or((disposition, ""));
    if !kind.trim().eq_ignore_ascii_case("form-data") {
        return Err("a part is no form-data");
    }
    let parameters = Parameters(parameters);
    part.name = as_browsers_mean(&parameters.only("name")?.ok_or("a part has no name")?);
    part.filename = match parameters.only("filename*")? {
        // Not for forms (RFC 7578 section 4.2), but some clients write it.
        Some(extended) => Some(extended_value(&extended)?),
        None => parameters.only("filename")?.map(|name| as_browsers_mean(&name)),
    };
    Ok(end + 4)
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Browsers escape what would end a quoted name or its line by percent, and nothing else.
fn as_browsers_mean(name: &str) -> String {
    name.replace("%22", "\"").replace("%0D", "\r").replace("%0A", "\n")
}

/// RFC 5987 section 3.2: `UTF-8''%C3%A9`.
fn extended_value(text: &str) -> Result<String, Malformed> {
    let mut pieces = text.splitn(3, '\'');
    match (pieces.next(), pieces.next(), pieces.next()) {
        (Some(charset), Some(_), Some(value)) if charset.eq_ignore_ascii_case("utf-8") => {
            let decoded = percent_decode_str(value).decode_utf8();
            Ok(decoded.map_err(|_| "a filename* is not UTF-8")?.into_owned())
        }
        _ => Err("a filename* is not UTF-8"),
    }
}

/// The parameters of a header value: `; name=token; name="quoted"`, from behind the first semicolon.
#[derive(Clone, Copy)]
struct Parameters<'a>(&'a str);

impl<'a> Parameters<'a> {
    /// The value of this parameter; two of them are one too many.
    fn only(self, wanted: &str) -> Result<Option<Cow<'a, str>>, Malformed> {
        let mut found = None;
        let mut rest = self;
        while let Some((name, value)) = rest.next()? {
            if name.eq_ignore_ascii_case(wanted) && found.replace(value).is_some() {
                return Err("a header has a parameter twice");
            }
        }
        Ok(found)
    }

    fn next(&mut self) -> Result<Option<(&'a str, Cow<'a, str>)>, Malformed> {
        let text = self.0.trim_start_matches([' ', '\t', ';']);
        if text.is_empty() {
            return Ok(None);
        }
        let (name, rest) = text.split_once('=').ok_or("a parameter has no value")?;
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err("a parameter has no proper name");
        }
        let (value, rest) = match rest.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let end = rest.find([';', ' ', '\t']).unwrap_or(rest.len());
                if end == 0 || rest[..end].contains('"') {
                    return Err("a parameter has no proper value");
                }
                (Cow::Borrowed(&rest[..end]), &rest[end..])
            }
        };
        let rest = rest.trim_start_matches([' ', '\t']);
        if !rest.is_empty() && !rest.starts_with(';') {
            return Err("a parameter goes on behind its value");
        }
        self.0 = rest;
        Ok(Some((name, value)))
    }
}

/// Reads a quoted text up to its closing quote; says what follows. A backslash stands for itself unless a
/// quote or another one follows: old browsers send whole Windows paths.
fn unquote(text: &str) -> Result<(Cow<'_, str>, &str), Malformed> {
    let mut value = String::new();
    let mut rest = text;
    loop {
        let at = rest.find(['"', '\\']).ok_or("a quoted parameter does not end")?;
        value.push_str(&rest[..at]);
        let (mark, behind) = rest[at..].split_at(1);
        if mark == "\"" {
            return Ok((Cow::Owned(value), behind));
        }
        rest = behind;
        match behind.chars().next() {
            Some(escaped @ ('"' | '\\')) => {
                value.push(escaped);
                rest = &behind[1..];
            }
            _ => value.push('\\'),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each part as `name=content`, or `name(filename, type)=content`.
    fn parsed(body: &str, boundary: &str) -> Result<Vec<String>, Malformed> {
        let show = |part: Part| {
            let content = &body[part.content];
            match part.filename {
                None => format!("{}={content}", part.name),
                Some(file) => {
                    let content_type = part.content_type.unwrap_or_default();
                    format!("{}({file}, {content_type})={content}", part.name)
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
        assert!(
            parse(b"--b\r\nContent-Disposition: form-data; name=\"\xff\"\r\n\r\n\r\n--b--", "b")
                .is_err()
        );
    }

    #[test]
    fn parts_and_headers_have_a_limit() {
        let part = "--b\r\nContent-Disposition: form-data; name=a\r\n\r\n\r\n";
        assert_eq!(parsed(&(part.repeat(PARTS) + "--b--"), "b").unwrap().len(), PARTS);
        assert!(parsed(&(part.repeat(PARTS + 1) + "--b--"), "b").is_err());
        let headers = |length| of_disposition(&format!("; name=a\r\nX: {}", "y".repeat(length)));
        assert!(headers(8000).is_ok());
        assert_eq!(headers(8192), Err("a part has more than 8 KiB of headers"));
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
                for part in parse(&body, "b").unwrap_or_default() {
                    assert!(body.get(part.content).is_some());
                }
                body.remove(at);
                for part in parse(&body, "b").unwrap_or_default() {
                    assert!(body.get(part.content).is_some());
                }
            }
        }
    }
}
