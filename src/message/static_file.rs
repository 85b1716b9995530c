//! Files as replies: conditional requests, ranges, downloads.

mod conditions;

use std::fs::File;
use std::io::{self, ErrorKind as Io, Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};
use std::time::UNIX_EPOCH;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use self::conditions::{Conditions, Validators, Wanted, as_http_date};
use crate::message::http_error::HttpError;
use crate::message::into_response::IntoResponse;
use crate::message::request::Request;
use crate::message::response::Response;
use crate::message::response_head::header_pair;
use crate::message::status::IntoStatus;
use crate::{Error, ErrorKind};

/// A file below `root` as a reply.
///
/// It answers `If-None-Match` and `If-Modified-Since` with a 304, `If-Match` and `If-Unmodified-Since` with a 412, a
/// `Range` of bytes with a 206 or 416 (RFC 9110 sections 13 and 14; of several ranges in one request none, which is a
/// 200), and is read while it is sent. The type follows from the name's extension.
///
/// What is not there, or is no file, is a 404. So is what a name in the path hides with a dot at its begin, such as
/// `.git/config` or `.env`, unless [`dot_files`](StaticFile::dot_files) says otherwise. What must not be read is a 403: a `filename` with `..` in it,
/// a symbolic link that leads out of `root`, a file that the operating system refuses. A link that stays
/// inside is followed, and `root` itself may be one. A filename that starts with `/` counts from `root`.
/// Whoever can write into `root` while it is served is trusted.
///
/// ```
/// use bottle_session::{App, Request, static_file};
///
/// let mut app = App::new();
/// app.get("/static/<name:path>", |request: &Request, name: &str| {
///     static_file(request, name, "/srv/app/static")
/// });
/// app.get("/report", |request: &Request| {
///     static_file(request, "2026.csv", "/srv/app/reports").download_as("report.csv")
/// });
/// # app.build()?;
/// # Ok::<(), bottle_session::Error>(())
/// ```
pub fn static_file(request: &Request, filename: &str, root: impl AsRef<Path>) -> StaticFile {
    // To any other method a 304 would say that nothing had been done (RFC 9110 section 13.2.1), and only a
    // GET has ranges (section 14.2).
    const PRECONDITIONS: [HeaderName; 4] = [
        header::IF_MATCH,
        header::IF_UNMODIFIED_SINCE,
        header::IF_NONE_MATCH,
        header::IF_MODIFIED_SINCE,
    ];
    let (preconditions, ranges): (&[HeaderName], &[HeaderName]) = match *request.method() {
        Method::GET => (&PRECONDITIONS, &[header::RANGE, header::IF_RANGE]),
        Method::HEAD => (&PRECONDITIONS, &[]),
        _ => (&[], &[]),
    };
    let mut headers = HeaderMap::new();
    for name in preconditions.iter().chain(ranges) {
        for value in request.headers().get_all(name) {
            headers.append(name.clone(), value.clone());
        }
    }
    let conditions = Conditions { headers };
    StaticFile {
        root: root.as_ref().to_owned(),
        filename: filename.to_owned(),
        content_type: None,
        download: None,
        dot_files: false,
        status: None,
        headers: HeaderMap::new(),
        refused: None,
        conditions,
    }
}

/// A file as a reply: what [`static_file`] makes.
#[derive(Clone, Debug)]
pub struct StaticFile {
    root: PathBuf,
    filename: String,
    content_type: Option<String>,
    download: Option<Download>,
    dot_files: bool,
    status: Option<StatusCode>,
    headers: HeaderMap,
    /// The first setting that could not work.
    refused: Option<String>,
    conditions: Conditions,
}

#[derive(Clone, Debug)]
enum Download {
    UnderItsName,
    As(String),
}

impl StaticFile {
    /// Sends the file under this type instead of the one that its extension stands for.
    ///
    /// ```
    /// use bottle_session::{Request, StaticFile, static_file};
    ///
    /// fn license(request: &Request) -> StaticFile {
    ///     static_file(request, "LICENSE", "/srv/app").content_type("text/plain; charset=utf-8")
    /// }
    /// ```
    #[must_use]
    pub fn content_type(mut self, content_type: impl Into<String>) -> StaticFile {
        self.content_type = Some(content_type.into());
        self
    }

    /// Has the browser save the file instead of showing it.
    ///
    /// ```
    /// use bottle_session::{Request, StaticFile, static_file};
    ///
    /// fn archive(request: &Request, name: &str) -> StaticFile {
    ///     static_file(request, name, "/srv/app/archive").download()
    /// }
    /// ```
    #[must_use]
    pub fn download(mut self) -> StaticFile {
        self.download = Some(Download::UnderItsName);
        self
    }

    /// Has the browser save the file under another name.
    ///
    /// ```
    /// use bottle_session::{Request, StaticFile, static_file};
    ///
    /// fn invoice(request: &Request, number: u32) -> StaticFile {
    ///     static_file(request, &format!("{number}.pdf"), "/srv/app/invoices").download_as("invoice.pdf")
    /// }
    /// ```
    #[must_use]
    pub fn download_as(mut self, name: impl Into<String>) -> StaticFile {
        self.download = Some(Download::As(name.into()));
        self
    }

    /// Whether files and folders whose names begin with a dot are served: not unless set. For a folder such as
    /// `.well-known`, better name it in the root.
    ///
    /// ```
    /// use bottle_session::{Request, StaticFile, static_file};
    ///
    /// fn well_known(request: &Request, name: &str) -> StaticFile {
    ///     // The root may have such a name in any case.
    ///     static_file(request, name, "/srv/app/.well-known")
    /// }
    ///
    /// fn backup(request: &Request, name: &str) -> StaticFile {
    ///     static_file(request, name, "/srv/home").dot_files(true)
    /// }
    /// ```
    #[must_use]
    pub fn dot_files(mut self, served: bool) -> StaticFile {
        self.dot_files = served;
        self
    }

    /// Sends the file with another status than 200, a number or a [`StatusCode`], such as a page for what is gone. The
    /// answers that have no file in them, a 304 or a 404, keep theirs.
    #[must_use]
    pub fn with_status(mut self, status: impl IntoStatus) -> StaticFile {
        match status.into_status() {
            Ok(status) => self.status = Some(status),
            Err(error) => self.refuse(&error),
        }
        self
    }

    /// Sends this header with the file in place of any of its name, text or typed; also with the 304 that says that the
    /// client has the file already, and never with a 404 or another error.
    ///
    /// ```
    /// use bottle_session::{Request, StaticFile, static_file};
    ///
    /// fn asset(request: &Request, name: &str) -> StaticFile {
    ///     static_file(request, name, "/srv/app/assets").with_header("cache-control", "max-age=86400")
    /// }
    /// ```
    #[must_use]
    pub fn with_header<N, V>(mut self, name: N, value: V) -> StaticFile
    where
        N: TryInto<HeaderName, Error: Into<http::Error>>,
        V: TryInto<HeaderValue, Error: Into<http::Error>>,
    {
        match header_pair(name, value) {
            Ok((name, value)) => {
                self.headers.insert(name, value);
            }
            Err(error) => self.refuse(&error),
        }
        self
    }

    fn refuse(&mut self, error: &Error) {
        self.refused.get_or_insert_with(|| error.to_string());
    }

    fn answer(&self) -> Result<Response, Error> {
        if let Some(text) = &self.refused {
            return Err(Error::new(ErrorKind::Input, text.clone()));
        }
        let mut response = self.file()?;
        let status = response.status();
        if let Some(own) = self.status
            && status == StatusCode::OK
        {
            response = response.with_status(own);
        }
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            response.headers_mut().extend(self.headers.clone());
        }
        Ok(response)
    }

    fn file(&self) -> Result<Response, Error> {
        let path = self.locate()?;
        let (file, size, validators) = open(&path)?;
        if self.conditions.fail(&validators) {
            return Ok(Response::new(StatusCode::PRECONDITION_FAILED));
        }
        let mut response = match self.conditions.unmodified(&validators) {
            true => Response::new(StatusCode::NOT_MODIFIED),
            false => self.content(file, size, &validators)?,
        };
        if let Some(modified) = validators.modified {
            let date = httpdate::fmt_http_date(modified);
            response = response.with_header(header::LAST_MODIFIED, date);
        }
        Ok(response.with_header(header::ETAG, validators.etag))
    }

    /// Whether the file is there, and may be read as far as its path says.
    pub(crate) fn is_there(&self) -> bool {
        self.locate().is_ok_and(|path| path.is_file())
    }

    /// The file's own path, below the root.
    fn locate(&self) -> Result<PathBuf, Error> {
        let relative = Path::new(self.filename.trim_start_matches('/'));
        let inside = |component| matches!(component, Component::Normal(_) | Component::CurDir);
        if !relative.components().all(inside) {
            return Err(denied());
        }
        let hidden = |component: Component<'_>| match component {
            Component::Normal(name) => name.as_encoded_bytes().starts_with(b"."),
            _ => false,
        };
        if !self.dot_files && relative.components().any(hidden) {
            return Err(HttpError::new(StatusCode::NOT_FOUND).into());
        }
        let root = self.root.canonicalize().map_err(|error| {
            let text = format!("static files: the root {} cannot be read", self.root.display());
            Error::new(ErrorKind::Config, text).with_source(error)
        })?;
        let path = root.join(relative).canonicalize().map_err(refused)?;
        if path.starts_with(&root) { Ok(path) } else { Err(denied()) }
    }

    fn content(
        &self,
        mut file: File,
        size: u64,
        validators: &Validators,
    ) -> Result<Response, Error> {
        let mut response = match self.conditions.wanted(size, validators) {
            Wanted::All => Response::stream(file.take(size), Some(size)),
            Wanted::Part { first, last } => {
                file.seek(SeekFrom::Start(first)).map_err(refused)?;
                let length = last - first + 1;
                Response::stream(file.take(length), Some(length))
                    .with_status(StatusCode::PARTIAL_CONTENT)
                    .with_header(header::CONTENT_RANGE, format!("bytes {first}-{last}/{size}"))
            }
            Wanted::Nothing => {
                return Ok(Response::new(StatusCode::RANGE_NOT_SATISFIABLE)
                    .with_header(header::CONTENT_RANGE, format!("bytes */{size}")));
            }
        };
        response = response
            .with_header(header::ACCEPT_RANGES, "bytes")
            .with_header(header::CONTENT_TYPE, self.type_of_content())
            // What a browser takes a file for is decided here and not by what somebody wrote into it.
            .with_header(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        let own_name = || self.filename.rsplit('/').next().unwrap_or_default();
        Ok(match &self.download {
            None => response,
            Some(Download::UnderItsName) => {
                response.with_header(header::CONTENT_DISPOSITION, attachment(own_name()))
            }
            Some(Download::As(name)) => {
                response.with_header(header::CONTENT_DISPOSITION, attachment(name))
            }
        })
    }

    /// What the name's extension says, unless it was said otherwise.
    pub(crate) fn type_of_content(&self) -> String {
        if let Some(content_type) = &self.content_type {
            return content_type.clone();
        }
        let extension = self.filename.rsplit_once('.').map(|(_, extension)| extension);
        let known =
            |extension: &str| TYPES.iter().find(|(ext, _)| extension.eq_ignore_ascii_case(ext));
        if let Some((_, content_type)) = extension.and_then(known) {
            return (*content_type).to_owned();
        }
        let guessed = mime_guess::from_path(&self.filename).first_or_octet_stream();
        let is_text = guessed.type_() == "text" || guessed.subtype() == "javascript";
        if is_text { format!("{guessed}; charset=utf-8") } else { guessed.to_string() }
    }
}

/// What `mime_guess` does not know, or has from tables older than the web's use of the name.
const TYPES: &[(&str, &str)] = &[
    // RFC 9239 section 6.1.1. Browsers run no module of another type, and `nosniff` keeps them from guessing.
    ("cjs", "text/javascript; charset=utf-8"),
    ("mjs", "text/javascript; charset=utf-8"),
    // ECMA-426 section 5: source maps are JSON.
    ("map", "application/json"),
    // TypeScript has no registered type, and no browser runs it: text that can be read. It is not MPEG's transport stream.
    ("cts", "text/plain; charset=utf-8"),
    ("mts", "text/plain; charset=utf-8"),
    ("ts", "text/plain; charset=utf-8"),
    ("tsx", "text/plain; charset=utf-8"),
    // RFC 8878 section 7.1.
    ("zst", "application/zstd"),
];

impl IntoResponse for StaticFile {
    fn into_response(self) -> Response {
        self.answer().unwrap_or_else(|error| HttpError::from(error).into_response())
    }
}

fn open(path: &Path) -> Result<(File, u64, Validators), Error> {
    // Before it is opened: that would wait for the other end of a pipe.
    if !path.metadata().map_err(refused)?.is_file() {
        return Err(HttpError::new(StatusCode::NOT_FOUND).into());
    }
    let file = File::open(path).map_err(refused)?;
    let metadata = file.metadata().map_err(refused)?;
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let size = metadata.len();
    let validators = Validators {
        etag: format!("\"{size:x}-{:x}\"", modified.unwrap_or_default().as_nanos()),
        modified: modified.and_then(as_http_date),
    };
    Ok((file, size, validators))
}

fn denied() -> Error {
    HttpError::new(StatusCode::FORBIDDEN).with_message("Access denied.").into()
}

fn refused(error: io::Error) -> Error {
    match error.kind() {
        Io::NotFound | Io::NotADirectory | Io::InvalidInput | Io::InvalidFilename => {
            HttpError::new(StatusCode::NOT_FOUND).into()
        }
        Io::PermissionDenied => denied(),
        _ => error.into(),
    }
}

/// RFC 5987 section 3.2.1: what may stand in an extended value as it is.
const ATTR_CHAR: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// RFC 6266: the name as old clients read it, and whole where that is not the same.
fn attachment(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_graphic() && !"\"\\%".contains(c) || c == ' ';
    let plain: String = name.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    match plain == name {
        true => format!("attachment; filename=\"{plain}\""),
        false => {
            let whole = utf8_percent_encode(name, ATTR_CHAR);
            format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{whole}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_download_keeps_its_name() {
        let table = [
            ("a b.pdf", "attachment; filename=\"a b.pdf\""),
            ("é.pdf", "attachment; filename=\"_.pdf\"; filename*=UTF-8''%C3%A9.pdf"),
            (
                "a\"; x=\"\r\n",
                "attachment; filename=\"a_; x=___\"; filename*=UTF-8''a%22%3B%20x%3D%22%0D%0A",
            ),
        ];
        for (name, value) in table {
            assert_eq!(attachment(name), value);
        }
    }
}
