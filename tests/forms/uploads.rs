//! Uploaded files: as fields, in memory and on the disk, within limits, saved.

use std::io::Read;

use bottle_session::http::Method;
use bottle_session::http::uri::PathAndQuery;
use bottle_session::{
    App, Form, FormLimits, HttpError, Request, RequestBody, Result, TestClient, Upload,
};

use super::{MULTIPART, NewNote, One, URLENCODED, multipart};

fn notes() -> TestClient {
    let mut app = App::new();
    app.post("/notes", |Form(note): Form<NewNote>| format!("{note:?}"));
    app.post("/saved", |Form(note): Form<NewNote>| -> Result<String> {
        let mut text = String::new();
        for file in note.picture.iter().chain(&note.others) {
            let mut content = String::new();
            file.reader().read_to_string(&mut content)?;
            text += &format!("{}={content} ", file.filename());
        }
        Ok(text)
    });
    app.error_default(|error: &HttpError| error.message().to_owned());
    TestClient::new(app).unwrap()
}

#[test]
fn a_struct_takes_both_encodings_and_files_are_fields() {
    let client = notes();
    let send = |path: &str, parts: &[(&str, &str)]| {
        client.post(path).header("content-type", MULTIPART).body(multipart(parts)).send().text()
    };
    let none = "picture: None, others: []";
    let plain =
        client.post("/notes").form(&[("title", "Tea"), ("tags", "a"), ("public", "on")]).send();
    let expected =
        format!(r#"NewNote {{ title: "Tea", pages: None, tags: ["a"], public: true, {none} }}"#);
    assert_eq!(plain.text(), expected);
    // What browsers send where no file was chosen.
    let nothing = [
        ("name=title", "Tea"),
        ("name=tags", "a"),
        ("name=public", "on"),
        ("name=picture; filename=\"\"", ""),
        ("name=others; filename=\"\"", ""),
    ];
    assert_eq!(send("/notes", &nothing), expected);
    let files = [
        ("name=title", "Tea"),
        ("name=picture; filename=\"文件 é.pdf\"", "1"),
        ("name=others; filename=b", "2"),
        ("name=others; filename=c", ""),
    ];
    assert_eq!(send("/saved", &files), "文件 é.pdf=1 b=2 c= ");
    let refused = send("/notes", &[("name=title; filename=x", "Tea"), ("name=others", "x")]);
    let expected = "Something in the form is wrong. title: must be text and not a file; others: must be a file.";
    assert_eq!(refused, expected);
}

#[test]
fn an_upload_is_no_json_and_the_error_says_so() {
    let error = serde_json::from_str::<One<Upload>>(r#"{"a": "x"}"#).unwrap_err().to_string();
    assert!(error.starts_with("an Upload is a field of a Form"), "{error}");
}

/// A body that arrives in small pieces, as from a socket.
struct Arriving(std::io::Cursor<Vec<u8>>);

impl Read for Arriving {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = buffer.len().min(1009);
        self.0.read(&mut buffer[..most])
    }
}

fn streamed(content_type: &str, body: Vec<u8>, length: Option<u64>) -> Request {
    let mut request = Request::new(Method::POST, PathAndQuery::from_static("/"));
    request.headers_mut().insert("content-type", content_type.parse().unwrap());
    let reader = Box::new(Arriving(std::io::Cursor::new(body)));
    request.with_body(RequestBody::Stream { reader, length })
}

#[test]
fn large_files_are_streamed_to_the_disk_and_read_from_there() {
    let large: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let mut body = multipart(&[("name=a", "before"), ("name=small; filename=s", "small")]);
    body.truncate(body.len() - "--b--\r\n".len());
    for name in ["one", "two"] {
        body.extend_from_slice(
            format!("--b\r\nContent-Disposition: form-data; name={name}; filename={name}\r\n\r\n")
                .as_bytes(),
        );
        body.extend_from_slice(&large);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(&multipart(&[("name=z", "behind")]));
    let length = body.len() as u64;
    let mut app = App::new();
    app.post("/", move |request: &Request| -> Result<String> {
        let form = request.form()?;
        assert!(request.body().is_err(), "it is not in memory");
        assert_eq!((form.get("a")?, form.get("z")?), (Some("before"), Some("behind")));
        let (one, two) = (form.file("one").unwrap(), form.file("two").unwrap());
        // Readers do not disturb each other.
        let mut readers = [one.reader(), two.reader(), one.reader()];
        let mut read = [vec![], vec![], vec![]];
        for _ in 0..40 {
            for (reader, read) in readers.iter_mut().zip(&mut read) {
                reader.take(100_000).read_to_end(read)?;
            }
        }
        assert!(read.iter().all(|read| *read == large));
        assert!(one.bytes()? == large);
        Ok(format!("{} {:?}", one.len(), form.file("small").unwrap().bytes()?))
    })
    .body_limit(length);
    let service = app.build().unwrap();
    for known in [Some(length), None] {
        let answer = service.handle(streamed(MULTIPART, body.clone(), known));
        assert_eq!(answer.into_bytes().unwrap(), &b"3000000 b\"small\""[..]);
    }
    // One byte over, and one that is missing.
    let more = [&body[..], b"x"].concat();
    let answer = service.handle(streamed(MULTIPART, more, Some(length + 1)));
    assert_eq!(answer.status(), 413);
    let cut = body[..body.len() - 20].to_vec();
    for known in [Some(length), None] {
        assert_eq!(service.handle(streamed(MULTIPART, cut.clone(), known)).status(), 400);
    }
}

#[test]
fn one_field_one_file_and_all_have_their_limits() {
    let mut app = App::new();
    app.post("/", |Form(note): Form<NewNote>| format!("{}", note.title.len()))
        .body_limit(10 << 20)
        .config(FormLimits::new().field(1000).text(2000).file(400_000).count(4));
    app.error_default(|error: &HttpError| error.message().to_owned());
    let service = app.build().unwrap();
    let text = |length| "x".repeat(length);
    let (most, file, more) = (text(1000), text(400_000), text(400_001));
    for (parts, status, said) in [
        (vec![("name=title", &most[..]), ("name=picture; filename=f", &file)], 200, "1000"),
        (vec![("name=title", &text(1001))], 413, "title: is larger than 1000 bytes"),
        (vec![("name=title", &most), ("name=tags", &most)], 413, "tags: is larger than 2000 bytes"),
        (vec![("name=picture; filename=f", &more)], 413, "picture: is larger than 400000 bytes"),
        (vec![("name=title", ""); 4], 200, "0"),
        (vec![("name=title", ""); 5], 400, "it has more than 4 parts"),
    ] {
        let body = multipart(&parts);
        let length = body.len() as u64;
        for request in [
            streamed(MULTIPART, body.clone(), None),
            streamed(MULTIPART, body.clone(), Some(length)),
            streamed(MULTIPART, vec![], None).with_body(RequestBody::Bytes(body.clone().into())),
        ] {
            let answer = service.handle(request);
            let got = answer.status();
            let text = String::from_utf8(answer.into_bytes().unwrap().to_vec()).unwrap();
            assert_eq!(got, status, "{said}: {text}");
            assert!(text.contains(said), "{said}: {text}");
        }
    }
    let urlencoded =
        |body: String| service.handle(streamed(URLENCODED, body.into_bytes(), None)).status();
    assert_eq!(urlencoded(format!("title={most}")), 200);
    assert_eq!(urlencoded(format!("title={most}x")), 413);
    assert_eq!(urlencoded(format!("title=x&other={}", "%41".repeat(700))), 413);
    assert_eq!(urlencoded("title=&".repeat(5)), 400);
}

#[test]
fn a_saved_upload_overwrites_nothing_and_stays_in_its_folder() {
    let folder = std::env::temp_dir().join(format!("bs-uploads-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("inner")).unwrap();
    let saving = folder.join("inner");
    let mut app = App::new();
    app.post("/", move |Form(One { a }): Form<One<Upload>>, request: &Request| -> Result<String> {
        let path = match request.query("name")? {
            Some(name) => a.save_as(&saving, &name)?,
            None => a.save_to(&saving)?,
        };
        Ok(path.strip_prefix(&saving).unwrap().display().to_string())
    });
    let client = TestClient::new(app).unwrap();
    let send = |target: &str, name: &str, content: &str| {
        let body = multipart(&[(&format!("name=a; filename=\"{name}\""), content)]);
        client.post(target).header("content-type", MULTIPART).body(body).send()
    };
    let read = |name: &str| std::fs::read_to_string(folder.join("inner").join(name)).unwrap();
    assert_eq!(send("/", "文件 é.pdf", "one").text(), "文件 é.pdf");
    let second = send("/", "../文件 é.pdf", "two").text();
    assert!(
        second.starts_with("文件 é-") && second.ends_with(".pdf") && second.len() > 20,
        "{second}"
    );
    assert_eq!((read("文件 é.pdf"), read(&second)), ("one".to_owned(), "two".to_owned()));
    #[cfg(unix)]
    {
        // A link that somebody put there is not followed.
        std::os::unix::fs::symlink(folder.join("outside"), folder.join("inner/link.txt")).unwrap();
        assert_ne!(send("/", "link.txt", "three").text(), "link.txt");
        assert!(!folder.join("outside").exists());
    }
    assert_eq!(send("/?name=7.pdf", "x", "four").text(), "7.pdf");
    assert_eq!(read("7.pdf"), "four");
    for name in ["7.pdf", "..", ".", "", "../x", "x/y", "/etc/x", "x/", "a%5Cb", "c:x", "x%00"] {
        assert_eq!(send(&format!("/?name={name}"), "x", "five").status(), 500, "{name}");
    }
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
    assert_eq!(read("7.pdf"), "four");
    std::fs::remove_dir_all(&folder).unwrap();
}
