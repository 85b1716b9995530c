//! The body of a request: read whole, as a stream, or for a form, within its limit.

use std::io::Read;
use std::sync::{Mutex, OnceLock};

use bytes::Bytes;
use http::StatusCode;
use serde::de::DeserializeOwned;

use crate::lock::lock;
use crate::message::forms::{FormData, FormError, FormLimits};
use crate::message::from_error::asked_for;
use crate::message::http_error::{HttpError, abort};
use crate::message::request::Request;
use crate::{Error, ErrorKind, Result};

/// How much of a body is read into memory unless the app or the route says otherwise: 1 MiB.
///
/// ```
/// use bottle_session::{App, DEFAULT_BODY_LIMIT, Request, TestClient};
///
/// let mut app = App::new();
/// app.post("/", |request: &Request| -> bottle_session::Result<String> {
///     Ok(request.body()?.len().to_string())
/// });
/// let client = TestClient::new(app)?;
/// let most = vec![0; DEFAULT_BODY_LIMIT as usize];
/// assert_eq!(client.post("/").body(most.clone()).send().status(), 200);
/// assert_eq!(client.post("/").body([most, vec![0]].concat()).send().status(), 413);
/// # Ok::<(), bottle_session::Error>(())
/// ```
pub const DEFAULT_BODY_LIMIT: u64 = 1024 * 1024;

/// The body of a request as a server hands it over.
///
/// ```
/// use bottle_session::http::Method;
/// use bottle_session::{App, Request, RequestBody};
///
/// let mut app = App::new();
/// app.post("/", |request: &Request| -> bottle_session::Result<String> {
///     Ok(String::from_utf8_lossy(request.body()?).into_owned())
/// });
/// let request = Request::new(Method::POST, "/".parse().unwrap());
/// let request = request.with_body(RequestBody::Bytes("hello".into()));
/// let answer = app.build()?.handle(request);
/// assert_eq!(&answer.into_bytes()?[..], b"hello");
/// # Ok::<(), bottle_session::Error>(())
/// ```
#[non_exhaustive]
pub enum RequestBody {
    /// All of it.
    Bytes(Bytes),
    /// Still arriving.
    Stream {
        /// Where the rest comes from. An [`io::Error`](std::io::Error) that holds an [`Error`] made of an
        /// [`HttpError`] says what the answer is to be if the handler returns it: 408, for example.
        reader: Box<dyn Read + Send>,
        /// How many bytes are to come, where the client said it.
        length: Option<u64>,
    },
}

#[derive(Clone, Debug)]
pub(super) enum Unreadable {
    TooLarge(u64),
    Taken,
    Broken(String),
    /// The server says what the answer is to be.
    Refused(StatusCode, String),
}

impl Request {
    /// The same request with this body.
    #[must_use]
    pub fn with_body(mut self, body: RequestBody) -> Request {
        self.unread = Mutex::new(Some(body));
        self.buffered = OnceLock::new();
        self.form = OnceLock::new();
        self
    }

    /// How many bytes of body [`body`](Request::body) reads: 1 MiB unless the app or the route says
    /// otherwise.
    pub fn body_limit(&self) -> u64 {
        self.body_limit
    }

    pub(crate) fn set_body_limit(&mut self, limit: u64) {
        self.body_limit = limit;
    }

    /// The whole body, read once and kept.
    ///
    /// A body past the limit is an error that answers 413 when a handler returns it, one that breaks off
    /// answers 400.
    pub fn body(&self) -> Result<&[u8]> {
        self.body_bytes().map(|bytes| &bytes[..])
    }

    pub(crate) fn body_bytes(&self) -> Result<&Bytes> {
        let read = self.buffered.get_or_init(|| self.read_body(self.body_limit));
        read.as_ref().map_err(Unreadable::error)
    }

    /// The limits of a form in the body; [`FormLimits`] has the defaults.
    pub fn form_limits(&self) -> FormLimits {
        self.form_limits
    }

    /// Sets the limits of a form in the body, for a form that is read later.
    pub fn set_form_limits(&mut self, limits: FormLimits) {
        self.form_limits = limits;
    }

    /// The form of the body, which `read` reads the first time.
    pub(crate) fn parsed_form(
        &self,
        read: impl FnOnce() -> Result<FormData, FormError>,
    ) -> Result<&FormData, &FormError> {
        self.form.get_or_init(read).as_ref()
    }

    /// The whole body, where it is not larger than this either.
    pub(crate) fn body_bytes_up_to(&self, limit: u64) -> Result<&Bytes> {
        let read = self.buffered.get_or_init(|| self.read_body(self.body_limit.min(limit)));
        match read.as_ref().map_err(Unreadable::error)? {
            bytes if bytes.len() as u64 > limit => Err(Unreadable::TooLarge(limit).error()),
            bytes => Ok(bytes),
        }
    }

    /// The body for a form that is read piece by piece: all of it where it is in memory or small, and otherwise the
    /// stream, which can be taken once.
    pub(crate) fn form_body(&self) -> Result<FormBody<'_>> {
        let limit = self.body_limit;
        let mut unread = lock(&self.unread);
        match &*unread {
            Some(RequestBody::Stream { length, .. })
                if length.is_none_or(|length| length > SMALL_FORM && length <= limit) =>
            {
                let Some(RequestBody::Stream { reader, length }) = unread.take() else {
                    unreachable!("it was looked at under the same lock")
                };
                let _ = self.buffered.set(Err(Unreadable::Taken));
                Ok(FormBody::Stream(BodyStream { reader, length, limit, read: 0 }))
            }
            _ => {
                drop(unread);
                Ok(FormBody::Whole(self.body_bytes()?))
            }
        }
    }

    /// The body as a stream without a limit, for what is too large to hold. It can be taken once, and not
    /// after [`body`](Request::body). It can be read until the handler returns: an answer that is itself made of
    /// it would break off.
    pub fn body_reader(&self) -> Result<Box<dyn Read + Send>> {
        if self.buffered.get().is_some() {
            return Err(Unreadable::Taken.error());
        }
        let taken = self.take_body();
        // From here on `body` says that the stream has gone.
        let _ = self.buffered.set(Err(Unreadable::Taken));
        Ok(match taken {
            None => Box::new(std::io::empty()),
            Some(RequestBody::Bytes(bytes)) => Box::new(std::io::Cursor::new(bytes)),
            Some(RequestBody::Stream { reader, .. }) => reader,
        })
    }

    /// The body as JSON of this type, behind a byte order mark or without; what is not answers 400 when a handler
    /// returns the error. The `Content-Type` is not looked at.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        let body = self.body()?;
        // RFC 8259 section 8.1: a reader may pass over it.
        let json = body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body);
        serde_json::from_slice(json).map_err(|error| {
            HttpError::new(StatusCode::BAD_REQUEST)
                .with_message(format!("The request body is not the expected JSON: {error}."))
                .into()
        })
    }

    fn read_body(&self, limit: u64) -> std::result::Result<Bytes, Unreadable> {
        match self.take_body() {
            None => Ok(Bytes::new()),
            Some(RequestBody::Bytes(bytes)) if bytes.len() as u64 > limit => {
                Err(Unreadable::TooLarge(limit))
            }
            Some(RequestBody::Bytes(bytes)) => Ok(bytes),
            Some(RequestBody::Stream { length: Some(length), .. }) if length > limit => {
                Err(Unreadable::TooLarge(limit))
            }
            Some(RequestBody::Stream { reader, length }) => read_limited(reader, length, limit),
        }
    }

    fn take_body(&self) -> Option<RequestBody> {
        lock(&self.unread).take()
    }
}

/// Up to this size a multipart form is read into memory as a whole.
const SMALL_FORM: u64 = 256 * 1024;

/// A body that a form is in.
pub(crate) enum FormBody<'a> {
    Whole(&'a Bytes),
    Stream(BodyStream),
}

/// A body that is read piece by piece.
pub(crate) struct BodyStream {
    reader: Box<dyn Read + Send>,
    length: Option<u64>,
    limit: u64,
    read: u64,
}

impl BodyStream {
    /// Reads the next bytes; none at the end.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let read = loop {
            match self.reader.read(buffer) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                read => break read.map_err(|error| Unreadable::of(&error).error())?,
            }
        };
        self.read += read as u64;
        match self.length {
            _ if self.read > self.limit => Err(Unreadable::TooLarge(self.limit).error()),
            Some(length) if read == 0 && self.read != length => {
                let why = format!("{} of {length} bytes arrived", self.read);
                Err(Unreadable::Broken(why).error())
            }
            _ => Ok(read),
        }
    }
}

fn read_limited(
    reader: Box<dyn Read + Send>,
    length: Option<u64>,
    limit: u64,
) -> std::result::Result<Bytes, Unreadable> {
    let mut bytes = Vec::new();
    let mut limited = reader.take(limit.saturating_add(1));
    limited.read_to_end(&mut bytes).map_err(|error| Unreadable::of(&error))?;
    if bytes.len() as u64 > limit {
        return Err(Unreadable::TooLarge(limit));
    }
    match length {
        Some(length) if length != bytes.len() as u64 => {
            Err(Unreadable::Broken(format!("{} of {length} bytes arrived", bytes.len())))
        }
        _ => Ok(Bytes::from(bytes)),
    }
}

impl Unreadable {
    fn of(error: &std::io::Error) -> Unreadable {
        match asked_for(error) {
            Some(asked) => Unreadable::Refused(asked.status(), asked.message().to_owned()),
            None => Unreadable::Broken(error.to_string()),
        }
    }

    fn error(&self) -> Error {
        match self {
            Unreadable::TooLarge(limit) => {
                let text = format!("The request body is larger than {limit} bytes.");
                abort(StatusCode::PAYLOAD_TOO_LARGE.as_u16(), text).into()
            }
            Unreadable::Broken(why) => {
                let text = format!("The request body broke off: {why}.");
                abort(StatusCode::BAD_REQUEST.as_u16(), text).into()
            }
            Unreadable::Refused(status, text) => abort(status.as_u16(), text.clone()).into(),
            Unreadable::Taken => Error::new(
                ErrorKind::Input,
                "the request body has been taken as a stream or read already; use one of \
                 body, body_reader, form and json",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;
    use http::uri::PathAndQuery;

    fn request(body: RequestBody, limit: u64) -> Request {
        let mut request = Request::new(Method::POST, PathAndQuery::from_static("/"));
        request.set_body_limit(limit);
        request.with_body(body)
    }

    fn stream(text: &'static str, length: Option<u64>) -> RequestBody {
        RequestBody::Stream { reader: Box::new(text.as_bytes()), length }
    }

    #[test]
    fn a_body_past_the_limit_is_a_413_and_a_broken_one_a_400() {
        let table = [
            (RequestBody::Bytes(Bytes::from_static(b"12345")), Ok("12345")),
            (RequestBody::Bytes(Bytes::from_static(b"123456")), Err(413)),
            (stream("12345", None), Ok("12345")),
            (stream("12345", Some(5)), Ok("12345")),
            (stream("123456", None), Err(413)),
            (stream("", Some(100_000_000_000)), Err(413)),
            (stream("123", Some(4)), Err(400)),
        ];
        for (body, expected) in table {
            let request = request(body, 5);
            for _ in 0..2 {
                let got = request.body().map_err(|e| HttpError::from(e).status().as_u16());
                assert_eq!(got, expected.map(str::as_bytes));
            }
        }
    }

    #[test]
    fn a_stream_is_taken_once() {
        let request = request(stream("12345", None), 1);
        let mut text = String::new();
        request.body_reader().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "12345");
        assert!(request.body_reader().is_err());
        assert!(request.body().is_err());
    }
}
