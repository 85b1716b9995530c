//! Fuzzes src/message/forms/multipart.rs and compares it with multer.

use std::collections::{BTreeMap, HashSet};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use crate::multipart::{Event, Malformed, Parser, Part};
use crate::random::Random;

const BOUNDARY: &str = "b-1";
const MOST_PARTS: usize = 20;

const SEEDS: &[&str] = &[
    "--b-1--\r\n",
    "--b-1\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\none\r\ntwo\r\n--b-1--\r\n",
    "preamble\r\n--b-1 \t\r\ncontent-disposition:form-data;name=a;filename=\"x.txt\"\r\n\
     Content-Type: text/plain; charset=utf-8\r\n\r\n\r\n--\r\n-b\r\n--b-1\r\n\
     Content-Disposition: form-data; name=\"c%22\"\r\n\r\n\r\n--b-1--epilogue\r\n--b-1\r\n",
    "--b-1\r\nContent-Disposition: form-data; name=a; filename*=UTF-8''%C3%A9\r\n\
     Content-Transfer-Encoding: binary\r\nX: y\r\n\r\n\r\n--b-1--",
    "--b-1\r\nContent-Disposition: form-data; name=\"a\\\"b\\\\c\"; filename=\"C:\\d\\e\"\r\n\r\nx\r\n--b-1--",
    "--b-1\r\nContent-Disposition: form-data; name=a\r\n\r\n--b-1--",
];

const TOKENS: &[&str] = &[
    "\r\n",
    "\n",
    "\r",
    "\r\n\r\n",
    "--",
    "-",
    "--b-1",
    "\r\n--b-1",
    "\r\n--b-1\r\n",
    "\r\n--b-1--",
    "b-1",
    "--b-12",
    "Content-Disposition: form-data; name=a\r\n",
    "Content-Disposition: form-data",
    "; name=",
    "; filename=",
    "\"",
    "\\",
    ";",
    "=",
    "*",
    "'",
    "%22",
    "%0D",
    "%C3",
    "é",
    "\u{85}",
    "\0",
    "\t",
    " ",
    ":",
    "X: y\r\n",
    "name",
    "a",
    "Content-Type: text/plain\r\n",
    "Content-Transfer-Encoding: base64\r\n",
    "UTF-8''",
];

type Form = Vec<(Part, Vec<u8>)>;

pub(crate) fn fuzz(cases: u64, random: &mut Random) {
    let mut pool: Vec<Vec<u8>> = SEEDS.iter().map(|seed| seed.as_bytes().to_vec()).collect();
    let mut seen = HashSet::new();
    let mut tally = BTreeMap::<_, u64>::new();
    for seed in &pool {
        let form = check(seed, true, random).expect("a form");
        seen.insert(features(&Ok(form)));
    }
    // Most of what is mutated is a form: what is refused already seldom becomes more interesting.
    let mut sound = pool.clone();
    let mut accepted = 0;
    for _ in 0..cases {
        let base = if random.below(4) == 0 { &pool } else { &sound };
        let body = mutate(random.one_of(base).clone(), &pool, random);
        let form = check(&body, false, random);
        if let Ok(form) = &form {
            accepted += 1;
            *tally.entry(compare(&body, form)).or_default() += 1;
        }
        if pool.len() < 5000 && seen.insert(features(&form)) {
            let _ = check(&body, true, random);
            if form.is_ok() {
                sound.push(body.clone());
            }
            pool.push(body);
        }
    }
    println!(
        "forms: {cases} cases, {} kept, {accepted} are forms; to multer these are",
        pool.len() - SEEDS.len()
    );
    for (verdict, count) in tally {
        println!("{count:9} {verdict}");
    }
    assert!(cases < 10_000 || accepted * 20 > cases, "{accepted} accepted");
}

/// What is new about a form: why it is refused, or what its parts are made of.
fn features(form: &Result<Form, Malformed>) -> String {
    match form {
        // Without what it quotes.
        Err(why) => why.split('"').next().unwrap_or_default().to_owned(),
        Ok(form) => form
            .iter()
            .map(|(part, content)| {
                let lengths = [part.name.len(), content.len()].map(|length| length.min(3));
                let file = part.filename.as_ref().map(|name| name.len().min(3));
                format!(
                    "{lengths:?} {file:?} {} {};",
                    part.content_type.is_some(),
                    content.contains(&b'\n')
                )
            })
            .collect(),
    }
}

fn mutate(mut body: Vec<u8>, pool: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    for _ in 0..=random.below(3) {
        let at = random.below(body.len() + 1);
        let end = at + random.below((body.len() - at).min(12) + 1);
        match random.below(5) {
            0 => drop(body.drain(at..end)),
            1 if at < body.len() => body[at] = random.below(256) as u8,
            2 => {
                let other = random.one_of(pool);
                let from = random.below(other.len() + 1);
                let piece = &other[from..other.len().min(from + random.below(80))];
                body.splice(at..end, piece.iter().copied());
            }
            _ => {
                drop(body.splice(at..end.min(at + random.below(3)), random.one_of(TOKENS).bytes()))
            }
        }
    }
    body.truncate(4000);
    body
}

/// Reads a body that arrives in pieces, each of the size that `size` gives, and checks what the parser promises.
fn read(body: &[u8], mut size: impl FnMut() -> usize) -> Result<Form, Malformed> {
    let mut parser = Parser::new(BOUNDARY, MOST_PARTS);
    let (mut form, mut start, mut arrived): (Form, _, _) = (Vec::new(), 0, 0);
    let mut open = false;
    loop {
        let bytes = &body[start..arrived];
        let ended = arrived == body.len();
        let (taken, event) = parser.next(bytes, ended)?;
        assert!(taken <= bytes.len(), "more than there is");
        match event {
            Event::More => {
                assert!(!ended, "there is no more");
                // However large a form is, what has to be held is not.
                assert!(bytes.len() - taken < 9000, "{} bytes held", bytes.len() - taken);
                arrived = body.len().min(arrived + size().max(1));
            }
            Event::Part(part) => {
                assert!(!open, "a part in a part");
                open = true;
                form.push((part, Vec::new()));
            }
            Event::Content(range) => {
                assert!(open && !range.is_empty(), "content of nothing");
                form.last_mut().expect("a part").1.extend_from_slice(&bytes[range]);
            }
            Event::PartEnd => assert!(std::mem::take(&mut open), "the end of nothing"),
            Event::End => {
                assert!(!open, "the form ends in a part");
                return Ok(form);
            }
        }
        start += taken;
    }
}

fn check(body: &[u8], thorough: bool, random: &mut Random) -> Result<Form, Malformed> {
    let whole = read(body, || body.len());
    let same = |cut: Result<Form, Malformed>, how: &str| match (&cut, &whole) {
        // What is wrong in two ways may be refused for either.
        (Err(_), Err(_)) => {}
        _ => assert_eq!(cut, whole, "{how}: {:?}", String::from_utf8_lossy(body)),
    };
    same(read(body, || 1), "byte by byte");
    same(read(body, || random.below(40)), "in pieces");
    if thorough {
        for cut in 1..body.len().min(1000) {
            let mut first = true;
            same(
                read(body, || if std::mem::take(&mut first) { cut } else { body.len() }),
                "in two",
            );
        }
    }
    let Ok(form) = &whole else { return whole };
    let delimiter = format!("\r\n--{BOUNDARY}");
    let mut anew = Vec::new();
    for (part, content) in form {
        assert!(
            memchr::memmem::find(content, delimiter.as_bytes()).is_none(),
            "a delimiter in a part"
        );
        let escape = |name: &[u8]| {
            let escaped =
                [(&b"\\"[..], &b"\\\\"[..]), (b"\"", b"%22"), (b"\r", b"%0D"), (b"\n", b"%0A")];
            escaped.iter().fold(name.to_vec(), |name, (from, to)| replace(&name, from, to))
        };
        anew.extend_from_slice(
            format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"").as_bytes(),
        );
        anew.extend(escape(&part.name));
        if let Some(filename) = &part.filename {
            anew.extend_from_slice(b"\"; filename=\"");
            anew.extend(escape(filename.as_bytes()));
        }
        anew.extend_from_slice(b"\"\r\n");
        if let Some(content_type) = &part.content_type {
            anew.extend_from_slice(format!("Content-Type: {content_type}\r\n").as_bytes());
        }
        anew.extend_from_slice(b"\r\n");
        anew.extend_from_slice(content);
        anew.extend_from_slice(b"\r\n");
    }
    anew.extend_from_slice(format!("--{BOUNDARY}--").as_bytes());
    // A control character that was percent-encoded, and a `%22` that stood for itself, do not come back as they were.
    let plain = |name: &[u8]| !name.iter().any(u8::is_ascii_control) && !name.contains(&b'%');
    let filename = |part: &Part| part.filename.clone().unwrap_or_default().into_bytes();
    if form.iter().all(|(part, _)| plain(&part.name) && plain(&filename(part))) {
        assert_eq!(read(&anew, || anew.len()).as_ref(), Ok(form), "written anew");
    }
    whole
}

fn replace(text: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut replaced = Vec::new();
    let mut rest = text;
    while let Some(at) = memchr::memmem::find(rest, from) {
        replaced.extend_from_slice(&rest[..at]);
        replaced.extend_from_slice(to);
        rest = &rest[at + from.len()..];
    }
    replaced.extend_from_slice(rest);
    replaced
}

/// Whatever we accept and multer accepts, too, has the same parts of the same content.
fn compare(body: &[u8], form: &Form) -> &'static str {
    let first = memchr::memmem::find(body, b"--b-1").unwrap_or_default();
    if first > 0 && !body[..first].ends_with(b"\r\n") {
        return "not compared: multer takes a boundary in the middle of a preamble's line for one";
    }
    match by_multer(body) {
        Err(_) => "refused",
        Ok(theirs) => {
            if theirs.iter().any(|(_, content)| content.starts_with(b"--b-1")) {
                // RFC 2046 section 5.1.1: the line break behind the headers can be that of the delimiter.
                return "read otherwise: an empty part without a line break of its own";
            }
            let ours: Vec<_> = form.iter().map(|(_, content)| content).collect();
            let theirs_only: Vec<_> = theirs.iter().map(|(_, content)| content).collect();
            assert_eq!(theirs_only, ours, "{:?}", String::from_utf8_lossy(body));
            for ((part, _), (name, _)) in form.iter().zip(&theirs) {
                // Of anything else, the two read quotes, escapes and doubled parameters differently.
                if part.name.iter().all(u8::is_ascii_alphanumeric) && !part.name.is_empty() {
                    let ours = String::from_utf8_lossy(&part.name);
                    if name.as_deref() != Some(&*ours) {
                        return "the same but for a name";
                    }
                }
            }
            "the same"
        }
    }
}

fn by_multer(body: &[u8]) -> multer::Result<Vec<(Option<String>, Vec<u8>)>> {
    let body = Bytes::copy_from_slice(body);
    let stream = futures_util::stream::iter([Ok::<_, std::io::Error>(body)]);
    let mut multipart = multer::Multipart::new(stream, BOUNDARY);
    let reading = pin!(async move {
        let mut form = Vec::new();
        while let Some(field) = multipart.next_field().await? {
            let name = field.name().map(str::to_owned);
            form.push((name, field.bytes().await?.to_vec()));
        }
        Ok(form)
    });
    let mut reading = reading;
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..1000 {
        if let Poll::Ready(form) = reading.as_mut().poll(&mut context) {
            return form;
        }
    }
    panic!("multer waits for what has arrived")
}
