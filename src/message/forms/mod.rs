//! Forms: fields and uploaded files, however the client encoded them.

mod multipart;

use std::fmt;

use bytes::Bytes;
use http::StatusCode;
use http::header;

use crate::message::request::Request;
use crate::message::response::HttpError;
use crate::{Error, Result};

/// A form: its fields and files, in the order sent. See [`Request::form`].
#[derive(Clone, Debug, Default)]
pub struct FormData {
    fields: Vec<(String, String)>,
    files: Vec<UploadedFile>,
}

/// A file that came with a form. See [`FormData::file`].
#[derive(Clone)]
pub struct UploadedFile {
    field: String,
    filename: String,
    raw_filename: String,
    content_type: Option<String>,
    content: Bytes,
}

/// How many fields a urlencoded form may have, as many as a multipart one. Each takes far more memory than
/// the two bytes that it takes in the body.
const FIELDS: usize = 1000;

/// Why a body is no form: the status of the answer, and a text for the client.
pub(crate) type NoForm = (StatusCode, String);

impl FormData {
    /// The first value of this name.
    ///
    /// ```
    /// use bottle_session::{Request, Result};
    ///
    /// fn greet(request: &Request) -> Result<String> {
    ///     Ok(format!("Hello, {}", request.form()?.get("name").unwrap_or("stranger")))
    /// }
    /// ```
    pub fn get(&self, name: &str) -> Option<&str> {
        self.get_all(name).next()
    }

    /// All values of this name, in the order sent.
    pub fn get_all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.fields().filter(move |field| field.0 == name).map(|field| field.1)
    }

    /// Names and values of all fields, in the order sent.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The first file of the control of this name. `None` also where the visitor chose no file.
    ///
    /// ```
    /// use bottle_session::{Request, Result, abort};
    ///
    /// fn upload(request: &Request) -> Result<String> {
    ///     let form = request.form()?;
    ///     let file = form.file("picture").ok_or_else(|| abort(400, "Choose a picture."))?;
    ///     std::fs::write(format!("/srv/app/pictures/{}", file.filename()), file.bytes())?;
    ///     Ok(format!("{} bytes", file.bytes().len()))
    /// }
    /// ```
    pub fn file(&self, name: &str) -> Option<&UploadedFile> {
        self.files_of(name).next()
    }

    /// All files of the control of this name (`<input type="file" multiple>`), in the order sent.
    pub fn files_of(&self, name: &str) -> impl Iterator<Item = &UploadedFile> {
        self.files().filter(move |file| file.field == name)
    }

    /// All files, in the order sent.
    pub fn files(&self) -> impl Iterator<Item = &UploadedFile> {
        self.files.iter()
    }
}

impl UploadedFile {
    /// The name of the form's control.
    pub fn field(&self) -> &str {
        &self.field
    }

    /// A name that is safe as the name of a file: the last component of the client's, of letters, digits,
    /// `-`, `_` and `.` alone, with no dot in front or at the end, at most 255 bytes, never empty (`empty`
    /// stands in). Two files can have the same, and one on the disk as well.
    pub fn filename(&self) -> &str {
        &self.filename
    }

    /// The name that the client sent. It can be anything: `../../etc/passwd`.
    pub fn raw_filename(&self) -> &str {
        &self.raw_filename
    }

    /// The type that the client sent. It can be anything, whatever the content is.
    pub fn content_type(&self) -> Option<&str> {
        self.content_type.as_deref()
    }

    /// The content. Clones of it share the memory of the request's body.
    pub fn bytes(&self) -> &Bytes {
        &self.content
    }
}

/// Without the content.
impl fmt::Debug for UploadedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UploadedFile")
            .field("field", &self.field)
            .field("raw_filename", &self.raw_filename)
            .field("content_type", &self.content_type)
            .field("bytes", &self.content.len())
            .finish()
    }
}

impl Request {
    /// The form in the body, `application/x-www-form-urlencoded` or `multipart/form-data`, read once and kept.
    ///
    /// The [body limit](Request::body_limit) is that of fields and files together: routes that take files
    /// often need [a larger one](crate::RouteOptions::body_limit). Returned from a handler, the error
    /// answers 413 past the limit, 415 for another type of body, 400 for a form that is malformed or breaks
    /// off. A form has at most 1000 fields and files together. A part of a multipart one has at most 8 KiB of
    /// headers, and its text must be UTF-8.
    ///
    /// ```
    /// use bottle_session::{App, Request, Result, TestClient};
    ///
    /// let mut app = App::new();
    /// app.post("/upload", |request: &Request| -> Result<String> {
    ///     let form = request.form()?;
    ///     let sizes = form.files().map(|file| format!("{}: {}", file.filename(), file.bytes().len()));
    ///     Ok(format!("{} {:?}", form.get("title").unwrap_or("-"), sizes.collect::<Vec<_>>()))
    /// })
    /// .body_limit(16 * 1024 * 1024);
    ///
    /// let client = TestClient::new(app)?;
    /// let body = "--x\r\nContent-Disposition: form-data; name=\"title\"\r\n\r\nHolidays\r\n\
    ///             --x\r\nContent-Disposition: form-data; name=\"f\"; filename=\"sea.txt\"\r\n\r\nblue\r\n\
    ///             --x--\r\n";
    /// let upload = client.post("/upload").header("content-type", "multipart/form-data; boundary=x");
    /// assert_eq!(upload.body(body).send().text(), r#"Holidays ["sea.txt: 4"]"#);
    /// # Ok::<(), bottle_session::Error>(())
    /// ```
    pub fn form(&self) -> Result<&FormData> {
        // The body's own error is kept by the body.
        let body = self.body_bytes()?;
        self.parsed_form(|| self.read_form(body)).map_err(|(status, message)| {
            Error::from(HttpError::new(*status).with_message(message.clone()))
        })
    }

    fn read_form(&self, body: &Bytes) -> std::result::Result<FormData, NoForm> {
        match self.content_type().as_str() {
            "application/x-www-form-urlencoded" => {
                check_urlencoded(body)?;
                let fields = form_urlencoded::parse(body).into_owned().collect();
                Ok(FormData { fields, files: Vec::new() })
            }
            "multipart/form-data" => {
                let content_type = self.header(header::CONTENT_TYPE).unwrap_or_default();
                read_multipart(body, content_type).map_err(malformed)
            }
            other => Err((
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                format!(
                    "Expected a form (application/x-www-form-urlencoded or multipart/form-data), not \
                     {other:?}."
                ),
            )),
        }
    }
}

/// Refuses a urlencoded form of too many fields.
pub(crate) fn check_urlencoded(body: &[u8]) -> std::result::Result<(), NoForm> {
    match form_urlencoded::parse(body).nth(FIELDS) {
        None => Ok(()),
        Some(_) => Err(malformed("it has more than 1000 fields")),
    }
}

fn malformed(why: multipart::Malformed) -> NoForm {
    (StatusCode::BAD_REQUEST, format!("The form is malformed: {why}."))
}

fn read_multipart(body: &Bytes, content_type: &str) -> Result<FormData, multipart::Malformed> {
    let boundary = multipart::boundary(content_type)?;
    let mut form = FormData::default();
    for part in multipart::parse(body, &boundary)? {
        let content = body.slice(part.content);
        match part.filename {
            None => {
                let text = std::str::from_utf8(&content).map_err(|_| "a field is not UTF-8")?;
                form.fields.push((part.name, text.to_owned()));
            }
            // What browsers send for a control in which no file was chosen.
            Some(name) if name.is_empty() && content.is_empty() => {}
            Some(name) => form.files.push(UploadedFile {
                field: part.name,
                filename: safe_name(&name),
                raw_filename: name,
                content_type: part.content_type,
                content,
            }),
        }
    }
    Ok(form)
}

fn safe_name(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let safe: String = (last.chars())
        .map(|c| if c.is_whitespace() { '_' } else { c })
        .filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c))
        .collect();
    // In front: hidden files and `..`. At the end: what Windows would drop.
    let safe = safe.trim_start_matches('.');
    let safe = safe[..safe.len().min(255)].trim_end_matches('.');
    if safe.is_empty() { "empty".to_owned() } else { safe.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filename_is_safe_whatever_the_client_sent() {
        for (raw, safe) in [
            ("a.txt", "a.txt"),
            ("My Holiday (1).JPG", "My_Holiday_1.JPG"),
            ("../../etc/passwd", "passwd"),
            ("C:\\dir\\a.txt", "a.txt"),
            ("..", "empty"),
            ("/", "empty"),
            ("", "empty"),
            ("日本", "empty"),
            (".htaccess", "htaccess"),
            ("a\0b\r\n.sh", "ab__.sh"),
            ("a.txt...", "a.txt"),
            (&"x".repeat(300), &"x".repeat(255)),
            (&format!("{}.gz", "x".repeat(254)), &"x".repeat(254)),
        ] {
            assert_eq!(safe_name(raw), safe, "{raw:?}");
        }
    }
}
