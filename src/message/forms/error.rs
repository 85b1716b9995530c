//! A form that cannot be taken as it is: what was sent, and what is wrong with it, field by field.

use std::collections::BTreeMap;
use std::fmt;

use http::StatusCode;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Error;
use crate::message::http_error::HttpError;

/// Why a form or a query cannot be taken as it is, and what was sent, so that the form can be shown again.
///
/// Returned from a handler, or where the handler asks for no `Result`, it answers with its
/// [status](FormError::status), 400 for most, and names each field and what is expected of it. Its `Display` is
/// for the log and says more. Neither shows a value.
///
/// For a template it serializes to what its methods say: `form.value.title`, `form.values.tags`, `form.message.pages`,
/// `form.form_message`. The default is an empty form with nothing wrong.
///
/// ```
/// use bottle_session::{App, Form, FormError, Html, IntoResponse, TestClient, escape_html};
/// use serde::Deserialize;
///
/// #[derive(Deserialize)]
/// struct NewNote {
///     title: String,
///     pages: Option<u32>,
/// }
///
/// fn page(form: &FormError) -> Html<String> {
///     let title = escape_html(form.value("title").unwrap_or_default());
///     Html(format!(r#"<input name="title" value="{title}"> {}"#, form.message("pages").unwrap_or_default()))
/// }
///
/// let mut app = App::new();
/// app.post("/notes", |form: Result<Form<NewNote>, FormError>| match form {
///     Ok(Form(note)) => note.title.into_response(),
///     Err(error) => (error.status(), page(&error)).into_response(),
/// });
/// let client = TestClient::new(app)?;
/// let answer = client.post("/notes").form(&[("title", "Tea"), ("pages", "many")]).send();
/// assert_eq!(answer.text(), r#"<input name="title" value="Tea"> must be a whole number"#);
/// # Ok::<(), bottle_session::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct FormError(Box<Inner>);

#[derive(Clone, Default)]
struct Inner {
    /// None: 400.
    status: Option<StatusCode>,
    /// About the form as a whole.
    message: String,
    /// For the log.
    detail: String,
    part: Part,
    wrong: Vec<Wrong>,
    /// What was sent, in the order sent.
    kept: Vec<(String, String)>,
}

/// What was to be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Part {
    #[default]
    Form,
    Query,
}

#[derive(Clone)]
struct Wrong {
    field: String,
    problem: Problem,
    message: String,
    detail: String,
}

/// What is wrong with a field. [`FormError::translate`] makes texts of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// It was not sent.
    Missing,
    /// It is no whole number.
    WholeNumber,
    /// It is a whole number below this, the least one that fits.
    AtLeast(i128),
    /// It is a whole number above this, the greatest one that fits.
    AtMost(u128),
    /// It is no number.
    Number,
    /// It is no `bool`: none of `on`, `true`, `1`, `off`, `false`, `0`.
    YesOrNo,
    /// It is none of an enum's variants.
    Choice,
    /// It is more or less than one character.
    OneCharacter,
    /// No file was chosen.
    NoFile,
    /// Text was sent where a file is expected: the form lacks `enctype="multipart/form-data"`.
    NotAFile,
    /// A file was sent where text is expected.
    NotText,
    /// It is not UTF-8.
    NotUtf8,
    /// It is larger than so many bytes.
    TooLarge(u64),
    /// What the field's own type says.
    Invalid(String),
    /// What a check says, or the handler.
    Check(String),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Problem::Missing => "is missing",
            Problem::WholeNumber => "must be a whole number",
            Problem::AtLeast(least) => return write!(f, "must be at least {least}"),
            Problem::AtMost(most) => return write!(f, "must be at most {most}"),
            Problem::Number => "must be a number",
            Problem::YesOrNo => "must be yes or no",
            Problem::Choice => "is none of the choices",
            Problem::OneCharacter => "must be one character",
            Problem::NoFile => "must be a file: none was chosen",
            Problem::NotAFile => "must be a file",
            Problem::NotText => "must be text and not a file",
            Problem::NotUtf8 => "cannot be read: it is not UTF-8",
            Problem::TooLarge(most) if most.is_multiple_of(1 << 20) => {
                return write!(f, "is larger than {} MiB", most >> 20);
            }
            Problem::TooLarge(most) => return write!(f, "is larger than {most} bytes"),
            Problem::Invalid(text) | Problem::Check(text) => text,
        })
    }
}

impl FormError {
    /// A form that cannot be read at all: the answer's status, a text for the visitor, one for the log.
    pub(super) fn whole(
        status: StatusCode,
        message: impl Into<String>,
        detail: impl Into<String>,
    ) -> FormError {
        let (message, detail) = (message.into(), detail.into());
        FormError(Box::new(Inner { status: Some(status), message, detail, ..Inner::default() }))
    }

    /// The body of the request cannot be read.
    pub(super) fn body(error: Error) -> FormError {
        let error = HttpError::from(error);
        let detail = error.cause().map(ToString::to_string).unwrap_or_default();
        FormError::whole(error.status(), error.message(), detail)
    }

    /// A form with nothing wrong in it yet.
    pub(super) fn of(part: Part, kept: Vec<(String, String)>) -> FormError {
        FormError(Box::new(Inner { part, kept, ..Inner::default() }))
    }

    /// One field is wrong.
    pub(super) fn field(status: StatusCode, field: &str, problem: Problem) -> FormError {
        let mut error = FormError::of(Part::Form, Vec::new());
        error.0.status = Some(status);
        error.wrong(field, problem, String::new());
        error
    }

    /// Adds to what is wrong. The first problem of a field gives its message.
    pub(super) fn wrong(&mut self, field: &str, problem: Problem, detail: String) {
        let (field, message) = (field.to_owned(), problem.to_string());
        self.0.wrong.push(Wrong { field, problem, message, detail });
    }

    /// The status of the answer: 400, 413 past a limit, 415 for what is no form, or is not UTF-8 by its own word.
    pub fn status(&self) -> StatusCode {
        self.0.status.unwrap_or(StatusCode::BAD_REQUEST)
    }

    /// What was sent for this field, the last of several. Only fields that the form's type has are kept. Files are
    /// not, nor is what no browser would fill in again: [`Secret`](crate::Secret)s, and fields that serde hides, those
    /// behind `#[serde(flatten)]`.
    pub fn value(&self, field: &str) -> Option<&str> {
        self.values(field).next_back()
    }

    /// All that was sent for this field, in the order sent.
    pub fn values(&self, field: &str) -> impl DoubleEndedIterator<Item = &str> {
        self.0.kept.iter().filter(move |kept| kept.0 == field).map(|kept| &kept.1[..])
    }

    /// What is wrong with this field, in words for the visitor.
    pub fn message(&self, field: &str) -> Option<&str> {
        self.messages().find(|wrong| wrong.0 == field).map(|wrong| wrong.1)
    }

    /// All that is wrong: fields and texts.
    pub fn messages(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.wrong.iter().map(|wrong| (&wrong.field[..], &wrong.message[..]))
    }

    /// What is wrong with this field, for programs.
    pub fn problem(&self, field: &str) -> Option<&Problem> {
        self.0.wrong.iter().find(|wrong| wrong.field == field).map(|wrong| &wrong.problem)
    }

    /// What is wrong with the form as a whole, where it is no matter of a field: it broke off, or is too large.
    pub fn form_message(&self) -> Option<&str> {
        Some(&self.0.message[..]).filter(|message| !message.is_empty())
    }

    /// Adds what the handler has found wrong.
    pub fn add(&mut self, field: &str, message: impl Into<String>) {
        self.wrong(field, Problem::Check(message.into()), String::new());
    }

    /// Fills in a value, for a form that is shown the first time: of an empty one, `FormError::default()`.
    pub fn set_value(&mut self, field: &str, value: impl ToString) {
        self.0.kept.retain(|kept| kept.0 != field);
        self.0.kept.push((field.to_owned(), value.to_string()));
    }

    /// The same with other texts: in another language, or better ones. `None` leaves a text as it is.
    ///
    /// ```
    /// use bottle_session::{FormError, Problem};
    ///
    /// fn in_german(error: FormError) -> FormError {
    ///     error.translate(|field, problem| Some(match problem {
    ///         Problem::Missing => format!("{field} fehlt"),
    ///         Problem::WholeNumber => "muss eine ganze Zahl sein".to_owned(),
    ///         Problem::AtMost(most) => format!("darf höchstens {most} sein"),
    ///         _ => return None,
    ///     }))
    /// }
    /// # let _ = in_german;
    /// ```
    #[must_use]
    pub fn translate(mut self, text: impl Fn(&str, &Problem) -> Option<String>) -> FormError {
        for wrong in &mut self.0.wrong {
            if let Some(text) = text(&wrong.field, &wrong.problem) {
                wrong.message = text;
            }
        }
        self
    }

    /// One text for the visitor, for a page that does not show the form.
    fn text(&self) -> String {
        if !self.0.message.is_empty() || self.0.wrong.is_empty() {
            return self.0.message.clone();
        }
        let what = match self.0.part {
            Part::Form => "the form",
            Part::Query => "the address",
        };
        let wrong: Vec<_> =
            self.messages().map(|(field, message)| format!("{field}: {message}")).collect();
        format!("Something in {what} is wrong. {}.", wrong.join("; "))
    }
}

/// For the log: what the visitor reads, and what a programmer needs besides.
impl fmt::Display for FormError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0.part {
            Part::Form => "the form is refused",
            Part::Query => "the query is refused",
        })?;
        if !self.0.message.is_empty() {
            write!(f, ": {}", self.0.message)?;
        }
        if !self.0.detail.is_empty() {
            write!(f, ": {}", self.0.detail)?;
        }
        for (number, wrong) in self.0.wrong.iter().enumerate() {
            let before = if number == 0 { ":" } else { ";" };
            write!(f, "{before} field {:?} {}", wrong.field, wrong.problem)?;
            if !wrong.detail.is_empty() {
                write!(f, " ({})", wrong.detail)?;
            }
        }
        Ok(())
    }
}

/// Shows the names of the fields that were sent, and no value.
impl fmt::Debug for FormError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept: Vec<_> = self.0.kept.iter().map(|kept| &kept.0).collect();
        let text = self.to_string();
        f.debug_struct("FormError").field("text", &text).field("kept", &kept).finish()
    }
}

impl std::error::Error for FormError {}

impl From<FormError> for Error {
    fn from(error: FormError) -> Error {
        HttpError::from(error).into()
    }
}

/// The answer that says it all in one text.
pub(crate) fn answer(error: &FormError) -> HttpError {
    HttpError::new(error.status()).with_message(error.text())
}

/// What a template sees, and what a session keeps.
#[derive(Serialize, Deserialize)]
struct Shown {
    value: BTreeMap<String, String>,
    values: BTreeMap<String, Vec<String>>,
    message: BTreeMap<String, String>,
    form_message: String,
}

impl Serialize for FormError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut values = BTreeMap::<_, Vec<_>>::new();
        for (name, value) in &self.0.kept {
            values.entry(name.clone()).or_default().push(value.clone());
        }
        let mut message = BTreeMap::new();
        for (field, text) in self.messages() {
            message.entry(field.to_owned()).or_insert_with(|| text.to_owned());
        }
        let value = self.0.kept.iter().cloned().collect();
        let form_message = self.0.message.clone();
        Shown { value, values, message, form_message }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for FormError {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<FormError, D::Error> {
        let shown = Shown::deserialize(deserializer)?;
        let kept = shown.values.into_iter();
        let kept =
            kept.flat_map(|(name, values)| values.into_iter().map(move |v| (name.clone(), v)));
        let mut error = FormError::of(Part::Form, kept.collect());
        error.0.message = shown.form_message;
        shown.message.into_iter().for_each(|(field, message)| error.add(&field, message));
        Ok(error)
    }
}
