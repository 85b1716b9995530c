//! Forms and uploads, as handlers see them. Here is what the tests share.

mod charsets;
#[cfg(feature = "garde")]
mod checks;
mod errors;
mod parsing;
mod types;
mod uploads;

use bottle_session::{App, Form, FormError, Request, Result, TestClient, Upload};
use serde::Deserialize;
use serde::de::DeserializeOwned;

fn multipart(parts: &[(&str, &str)]) -> Vec<u8> {
    let part = |(parameters, content): &(&str, &str)| {
        format!("--b\r\nContent-Disposition: form-data; {parameters}\r\n\r\n{content}\r\n")
    };
    let mut body: String = parts.iter().map(part).collect();
    body.push_str("--b--\r\n");
    body.into_bytes()
}

const MULTIPART: &str = "multipart/form-data; boundary=b";

const URLENCODED: &str = "application/x-www-form-urlencoded";

fn client() -> TestClient {
    let mut app = App::new();
    app.post("/", |request: &Request| -> Result<String> {
        let form = request.form()?;
        // A second time it is the same form.
        assert!(std::ptr::eq(form, request.form()?));
        let fields = form.fields()?;
        let files: Vec<_> = form
            .files()
            .map(|f| (f.field(), f.filename(), f.raw_filename(), f.content_type(), f.len()))
            .collect();
        Ok(format!("{fields:?} {files:?}"))
    })
    .body_limit(1000);
    app.post("/named", |request: &Request| -> Result<String> {
        let form = request.form()?;
        let all = form.get_all("a")?;
        let files: Vec<_> = form.files_of("f").map(|file| file.bytes().unwrap().to_vec()).collect();
        let last = form.file("f").map(|file| file.raw_filename().to_owned());
        Ok(format!("{:?} {:?} {all:?} {files:?} {last:?}", form.get("a")?, form.get("f")?))
    });
    app.post("/late", |request: &Request| -> Result<String> {
        request.body_reader()?;
        Ok(request.form()?.get("a")?.unwrap_or_default().to_owned())
    });
    TestClient::new(app).unwrap()
}

#[derive(Debug, Deserialize)]
struct One<T> {
    #[allow(dead_code)]
    a: T,
}

/// Why a urlencoded form is refused.
fn refused<T: DeserializeOwned + 'static>(sent: &str) -> FormError {
    let mut app = App::new();
    let (teller, told) = std::sync::mpsc::channel();
    let teller = std::sync::Mutex::new(teller);
    app.post("/", move |form: Result<Form<T>, FormError>| {
        teller.lock().unwrap().send(form.err()).unwrap();
    });
    let client = TestClient::new(app).unwrap();
    client.post("/").header("content-type", URLENCODED).body(sent.to_owned()).send();
    told.recv().unwrap().expect("refused")
}

#[derive(Debug, Deserialize)]
#[allow(dead_code)]
struct NewNote {
    title: String,
    pages: Option<u32>,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    public: bool,
    picture: Option<Upload>,
    #[serde(default)]
    others: Vec<Upload>,
}
