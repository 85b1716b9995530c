//! Forms: fields and uploaded files, however the client encoded them.

mod de;
mod error;
mod limits;
mod multipart;
mod query;
mod receive;
mod secret;
mod upload;
mod urlencoded;

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{StatusCode, header};

pub use error::{FormError, Problem};
pub(crate) use error::{Part, answer};
pub use limits::FormLimits;
pub(crate) use query::{query_value, query_values};
pub use secret::Secret;
pub use upload::{Upload, UploadReader};

use crate::Result;
use crate::message::request::Request;

/// A form: its fields and files, in the order sent. See [`Request::form`].
///
/// `Debug` shows the names alone.
#[derive(Default)]
pub struct FormData {
    /// Decoded names and texts, one behind the other.
    buffer: Vec<u8>,
    entries: Vec<Entry>,
}

struct Entry {
    name: Range<usize>,
    value: Value,
    /// A type has asked for it by name, and not for a secret: it can be shown again.
    shown: AtomicBool,
}

enum Value {
    /// In the buffer, whether UTF-8 or not.
    Text(Range<usize>),
    File(Upload),
    /// A control for files in which none was chosen.
    NoFile,
}

impl FormData {
    /// The value of this field, the last of several. A value that is not UTF-8 is an error that answers 400 and
    /// names the field.
    ///
    /// ```
    /// use bottle_session::{Request, Result};
    ///
    /// fn greet(request: &Request) -> Result<String> {
    ///     Ok(format!("Hello, {}", request.form()?.get("name")?.unwrap_or("stranger")))
    /// }
    /// # let _ = greet;
    /// ```
    pub fn get(&self, name: &str) -> Result<Option<&str>> {
        Ok(self.texts_of(name).next_back().map(|text| utf8(name, text)).transpose()?)
    }

    /// All values of this field, in the order sent. One that is not UTF-8 is an error, as with
    /// [`get`](FormData::get).
    pub fn get_all(&self, name: &str) -> Result<Vec<&str>> {
        Ok(self.texts_of(name).map(|text| utf8(name, text)).collect::<Result<_, FormError>>()?)
    }

    /// Names and values of all fields, in the order sent. One that is not UTF-8 is an error, as with
    /// [`get`](FormData::get).
    pub fn fields(&self) -> Result<Vec<(&str, &str)>> {
        let fields = self.entries.iter().filter_map(|entry| Some((entry, self.text(entry)?)));
        let fields = fields.map(|(entry, text)| {
            let name = String::from_utf8_lossy(self.name(entry));
            Ok((utf8(&name, self.name(entry))?, utf8(&name, text)?))
        });
        Ok(fields.collect::<Result<_, FormError>>()?)
    }

    /// The file of this control, the last of several. `None` also where the visitor chose no file.
    ///
    /// ```
    /// use bottle_session::{Request, Result, abort};
    ///
    /// fn upload(request: &Request) -> Result<String> {
    ///     let form = request.form()?;
    ///     let file = form.file("picture").ok_or_else(|| abort(400, "Choose a picture."))?;
    ///     let path = file.save_to("/srv/app/pictures")?;
    ///     Ok(format!("{} bytes in {}", file.len(), path.display()))
    /// }
    /// # let _ = upload;
    /// ```
    pub fn file(&self, name: &str) -> Option<&Upload> {
        self.files_of(name).last()
    }

    /// All files of this control (`<input type="file" multiple>`), in the order sent.
    pub fn files_of(&self, name: &str) -> impl Iterator<Item = &Upload> {
        self.files().filter(move |file| file.field() == name)
    }

    /// All files, in the order sent.
    pub fn files(&self) -> impl Iterator<Item = &Upload> {
        self.entries.iter().filter_map(|entry| match &entry.value {
            Value::File(file) => Some(file),
            Value::Text(_) | Value::NoFile => None,
        })
    }

    /// What shows the form again with this text at one of its fields: for what only the handler can find wrong, where
    /// the form was read as a type before.
    ///
    /// ```
    /// use bottle_session::{Form, FormError, Request, Result};
    /// use serde::Deserialize;
    ///
    /// #[derive(Deserialize)]
    /// struct NewNote {
    ///     title: String,
    /// }
    ///
    /// fn add(request: &Request, form: Result<Form<NewNote>, FormError>) -> Result<String> {
    ///     let Form(note) = form?;
    ///     if note.title == "Tea" {
    ///         return Err(request.form()?.refuse("title", "is there already").into());
    ///     }
    ///     Ok(note.title)
    /// }
    /// # let _ = add;
    /// ```
    pub fn refuse(&self, field: &str, message: impl Into<String>) -> FormError {
        let mut error = FormError::of(Part::Form, self.kept());
        error.add(field, message);
        error
    }

    /// Checks what was read from this form, and says all that is wrong. [`Checked`](crate::Checked) does this with the
    /// default context and in English; for a context, or for `garde::i18n::with_i18n`, do it in the handler.
    #[cfg(feature = "garde")]
    pub fn check<T: garde::Validate>(
        &self,
        value: &T,
        context: &T::Context,
    ) -> Result<(), FormError> {
        self.check_part(Part::Form, value, context)
    }

    #[cfg(feature = "garde")]
    pub(crate) fn check_part<T: garde::Validate>(
        &self,
        part: Part,
        value: &T,
        context: &T::Context,
    ) -> Result<(), FormError> {
        let Err(report) = value.validate_with(context) else { return Ok(()) };
        let mut wrong: Vec<_> = (report.iter())
            .map(|(path, wrong)| {
                let path = path.to_string();
                // What is wrong with one of a list's values is shown at the list.
                let field = path.split(['[', '.']).next().unwrap_or_default().to_owned();
                (field, wrong.message().to_owned())
            })
            .collect();
        // In the order of the page.
        wrong.sort_by_key(|(field, _)| {
            let place = self.entries.iter().position(|entry| self.name(entry) == field.as_bytes());
            place.unwrap_or(usize::MAX)
        });
        let mut error = FormError::of(part, self.kept());
        wrong.into_iter().for_each(|(field, message)| error.add(&field, message));
        Err(error)
    }

    /// The query of a request, as a form.
    pub(crate) fn of_query(request: &Request) -> Result<FormData, FormError> {
        let limits = FormLimits { text: u64::MAX, field: u64::MAX, ..FormLimits::new() };
        let form = FormData::urlencoded(request.query_string().as_bytes(), limits)?;
        // In a query it is no body of another type: a 400.
        match form.foreign_charset() {
            Some(charset) => Err(not_utf8(StatusCode::BAD_REQUEST, charset)),
            None => Ok(form),
        }
    }

    fn urlencoded(text: &[u8], limits: FormLimits) -> Result<FormData, FormError> {
        let mut form = FormData::default();
        form.buffer.reserve(text.len());
        for (name, value) in urlencoded::pairs(text) {
            if form.entries.len() == limits.count {
                return Err(malformed(format!("it has more than {} fields", limits.count)));
            }
            let begin = form.buffer.len();
            urlencoded::decode_into(name, &mut form.buffer);
            let between = form.buffer.len();
            urlencoded::decode_into(value, &mut form.buffer);
            let name = begin..between;
            form.entries.push(Entry::new(name, Value::Text(between..form.buffer.len())));
            form.check_last(limits)?;
        }
        Ok(form)
    }

    /// Refuses the text that came last where it is too large.
    fn check_last(&self, limits: FormLimits) -> Result<(), FormError> {
        let Some(entry) = self.entries.last() else { return Ok(()) };
        let length = self.text(entry).unwrap_or_default().len() as u64;
        let most = match (length > limits.field, self.buffer.len() as u64 > limits.text) {
            (false, false) => return Ok(()),
            (true, _) => limits.field,
            (false, true) => limits.text,
        };
        let field = String::from_utf8_lossy(self.name(entry));
        Err(FormError::field(StatusCode::PAYLOAD_TOO_LARGE, &field, Problem::TooLarge(most)))
    }

    /// The encoding that the form itself says it is in (HTML, "Multipart form data"), where that is not ours.
    fn foreign_charset(&self) -> Option<&[u8]> {
        self.texts_of("_charset_").next_back().filter(|charset| !is_utf8(charset))
    }

    fn name(&self, entry: &Entry) -> &[u8] {
        &self.buffer[entry.name.clone()]
    }

    fn entry_name(&self, at: usize) -> &[u8] {
        self.name(&self.entries[at])
    }

    fn text(&self, entry: &Entry) -> Option<&[u8]> {
        match &entry.value {
            Value::Text(text) => Some(&self.buffer[text.clone()]),
            Value::File(_) | Value::NoFile => None,
        }
    }

    fn texts_of(&self, name: &str) -> impl DoubleEndedIterator<Item = &[u8]> {
        let of_name = move |entry: &&Entry| self.name(entry) == name.as_bytes();
        self.entries.iter().filter(of_name).filter_map(|entry| self.text(entry))
    }

    /// What can be shown again.
    fn kept(&self) -> Vec<(String, String)> {
        let shown = self.entries.iter().filter(|entry| entry.shown.load(Ordering::Relaxed));
        let texts = shown.filter_map(|entry| {
            let name = std::str::from_utf8(self.name(entry)).ok()?;
            let text = std::str::from_utf8(self.text(entry)?).ok()?;
            Some((name.to_owned(), text.to_owned()))
        });
        texts.collect()
    }
}

impl Entry {
    fn new(name: Range<usize>, value: Value) -> Entry {
        Entry { name, value, shown: AtomicBool::new(false) }
    }
}

impl fmt::Debug for FormData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.entries.iter().map(|entry| String::from_utf8_lossy(self.name(entry)));
        f.debug_set().entries(names).finish()
    }
}

fn utf8<'a>(name: &str, text: &'a [u8]) -> Result<&'a str, FormError> {
    std::str::from_utf8(text)
        .map_err(|_| FormError::field(StatusCode::BAD_REQUEST, name, Problem::NotUtf8))
}

fn malformed(why: impl fmt::Display) -> FormError {
    FormError::whole(StatusCode::BAD_REQUEST, format!("The form is malformed: {why}."), "")
}

/// ASCII is UTF-8, too.
fn is_utf8(charset: &[u8]) -> bool {
    ["utf-8", "utf8", "us-ascii"].iter().any(|own| charset.eq_ignore_ascii_case(own.as_bytes()))
}

fn not_utf8(status: StatusCode, charset: &[u8]) -> FormError {
    let charset = String::from_utf8_lossy(charset);
    let text = format!("The form says that it is in {charset:?}; forms are read as UTF-8 alone.");
    FormError::whole(status, text, "")
}

impl Request {
    /// The form in the body, `application/x-www-form-urlencoded` or `multipart/form-data`, read once and kept.
    ///
    /// The [body limit](Request::body_limit) is that of fields and files together: routes that take files
    /// often need [a larger one](crate::RouteOptions::body_limit); [`FormLimits`] has the others. Returned from a
    /// handler, the error answers 413 past a limit, 415 for another type of body and for what says of itself that it
    /// is not UTF-8, 400 for a form that is malformed or breaks off. A part of a multipart form has at most 8 KiB of
    /// headers.
    ///
    /// A multipart form of more than 256 KiB is read piece by piece and not kept as it was sent: the
    /// [body](Request::body) cannot be read besides.
    ///
    /// ```
    /// use bottle_session::{App, Request, Result, TestClient};
    ///
    /// let mut app = App::new();
    /// app.post("/upload", |request: &Request| -> Result<String> {
    ///     let form = request.form()?;
    ///     let sizes = form.files().map(|file| format!("{}: {}", file.filename(), file.len()));
    ///     Ok(format!("{} {:?}", form.get("title")?.unwrap_or("-"), sizes.collect::<Vec<_>>()))
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
        Ok(self.form_data()?)
    }

    pub(crate) fn form_data(&self) -> Result<&FormData, FormError> {
        self.parsed_form(|| self.read_form()).map_err(FormError::clone)
    }

    fn read_form(&self) -> Result<FormData, FormError> {
        let limits = self.form_limits();
        let content_type = self.header(header::CONTENT_TYPE).unwrap_or_default();
        let form = match self.content_type().as_str() {
            "application/x-www-form-urlencoded" => {
                check_charset(content_type)?;
                let body = self.body_bytes_up_to(limits.text).map_err(FormError::body)?;
                FormData::urlencoded(body, limits)?
            }
            "multipart/form-data" => {
                let boundary = multipart::headers::boundary(content_type).map_err(malformed)?;
                check_charset(content_type)?;
                receive::receive(self.form_body().map_err(FormError::body)?, &boundary, limits)?
            }
            other => {
                let text = format!(
                    "Expected a form (application/x-www-form-urlencoded or multipart/form-data), not {other:?}."
                );
                return Err(FormError::whole(StatusCode::UNSUPPORTED_MEDIA_TYPE, text, ""));
            }
        };
        match form.foreign_charset() {
            Some(charset) => Err(not_utf8(StatusCode::UNSUPPORTED_MEDIA_TYPE, charset)),
            None => Ok(form),
        }
    }
}

fn check_charset(content_type: &str) -> Result<(), FormError> {
    match multipart::headers::charset(content_type).map_err(malformed)? {
        Some(charset) if !is_utf8(charset.as_bytes()) => {
            Err(not_utf8(StatusCode::UNSUPPORTED_MEDIA_TYPE, charset.as_bytes()))
        }
        _ => Ok(()),
    }
}
