use super::headers::boundary;
use super::*;

const PARTS: usize = 1000;

/// The parts of a body that arrives in pieces of this size.
fn in_pieces(body: &[u8], boundary: &str, size: usize) -> Result<Vec<(Part, Vec<u8>)>, Malformed> {
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
    let head = b"--b\r\nContent-Disposition: form-data; name=\"Kj\xe6r\"; filename=\"Kj\xe6r.txt\"";
    let [(part, content)] =
        parse(&[head, &b"\r\n\r\nx\r\n--b--"[..]].concat(), "b").unwrap().try_into().unwrap();
    assert_eq!((&part.name[..], &content[..]), (&b"Kj\xe6r"[..], &b"x"[..]));
    assert_eq!(part.filename.as_deref(), Some("Kjær.txt"));
}

#[test]
fn an_encoded_part_is_named() {
    let encoded =
        |encoding| of_disposition(&format!("; name=a\r\nContent-Transfer-Encoding: {encoding}"));
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
        ("multipart/form-data; boundary=----WebKitFormBoundaryAbC", "----WebKitFormBoundaryAbC"),
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
