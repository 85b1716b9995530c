//! A line for each request: who asked for what, and what came of it.

use std::fmt::{self, Write as _};
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use cookie::time::OffsetDateTime;
use http::header::{self, AsHeaderName};
use http::{Method, Version};
use serde::Serialize;

use crate::lock::lock;
use crate::logging::request_id::{self, RequestId};
use crate::logging::{OneLine, ThrottledLog};
use crate::message::request::Request;
use crate::message::response::{Body, Response};
use crate::pipeline::exchange::Exchange;
use crate::pipeline::plugin::{Installed, Plugin};
use crate::pipeline::route::Route;
use crate::{Error, ErrorKind, Result};

/// The target of the lines in the log.
const TARGET: &str = "bottle_session::access";

/// Writes a line for each request once it is answered, a streamed body included: in Combined Log Format, with the
/// route's rule, the request id and the seconds that it took behind it, or in JSON.
///
/// ```text
/// 192.0.2.7 - ada [30/Nov/2026:13:55:36 +0000] "GET /user/7 HTTP/1.1" 200 2326 "-" "curl/8.5.0" "/user/<id:int>" 4711 0.001204
/// {"time":"2026-11-30T13:55:36Z","remote":"192.0.2.7","user":"ada","method":"GET","target":"/user/7", …}
/// ```
///
/// The bytes are those of the body as it leaves the app. The user is the one that the client names by basic
/// authentication, also where the answer is a 401. `-` is what is not known; in JSON it is left out. A line that goes to the log has the request id
/// in its place, and no logger adds it once more. In a quoted part,
/// a quotation mark, a backslash and what is no printable ASCII are escaped as Apache does (`\"`, `\x0a`).
///
/// Installed first, or behind [`RequestIdPlugin`](crate::RequestIdPlugin), it sees what other plugins made of the answer.
/// Requests that the server refuses itself, such as what is no HTTP, are no requests of the app: the server's own
/// [`access_log`](crate::server::native::Native::access_log) has them.
///
/// ```
/// use bottle_session::{AccessLogPlugin, App, TestClient};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("access.log");
/// let mut app = App::new();
/// app.install(AccessLogPlugin::new().json().to_file(&path))?;
/// app.get("/", || "hello");
/// TestClient::new(app)?.get("/").send();
/// assert!(std::fs::read_to_string(&path)?.contains(r#""status":200,"bytes":5"#));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct AccessLogPlugin {
    format: Format,
    /// To be opened when the plugin is installed.
    file: Option<PathBuf>,
    sink: Arc<Sink>,
}

#[derive(Clone, Copy)]
enum Format {
    Combined,
    Json,
}

/// Where lines go.
enum Sink {
    Log,
    Writer { writer: Mutex<Box<dyn Write + Send>>, failed: ThrottledLog },
}

impl AccessLogPlugin {
    /// A plugin that writes Combined Log Format to the app's logger, at level info and target `bottle_session::access`.
    pub fn new() -> AccessLogPlugin {
        AccessLogPlugin { format: Format::Combined, file: None, sink: Arc::new(Sink::Log) }
    }

    /// Writes JSON, one object in each line.
    #[must_use]
    pub fn json(mut self) -> AccessLogPlugin {
        self.format = Format::Json;
        self
    }

    /// Appends to this file, which is made where it is not there. It stays open: a rotation copies and truncates it
    /// (logrotate's `copytruncate`), or restarts the app.
    #[must_use]
    pub fn to_file(mut self, path: impl Into<PathBuf>) -> AccessLogPlugin {
        self.file = Some(path.into());
        self
    }

    /// Writes to this, standard output for one, a whole line at a time. The thread waits for it: what may be slow wants a
    /// thread of its own behind a channel.
    #[must_use]
    pub fn to_writer(mut self, writer: impl Write + Send + 'static) -> AccessLogPlugin {
        (self.file, self.sink) = (None, Arc::new(Sink::of(writer)));
        self
    }
}

impl Default for AccessLogPlugin {
    fn default() -> AccessLogPlugin {
        AccessLogPlugin::new()
    }
}

impl fmt::Debug for AccessLogPlugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, &*self.sink) {
            (Some(path), _) => write!(f, "AccessLogPlugin(to {})", path.display()),
            (None, Sink::Log) => f.write_str("AccessLogPlugin(to the log)"),
            (None, Sink::Writer { .. }) => f.write_str("AccessLogPlugin(to a writer)"),
        }
    }
}

impl Sink {
    fn of(writer: impl Write + Send + 'static) -> Sink {
        Sink::Writer { writer: Mutex::new(Box::new(writer)), failed: ThrottledLog::default() }
    }
}

/// When a request came.
#[derive(Clone, Copy)]
struct Came(Instant);

impl Plugin for AccessLogPlugin {
    fn name(&self) -> &str {
        "access_log"
    }

    fn setup(&mut self, _: &Installed<'_>) -> Result<()> {
        if let Some(path) = &self.file {
            let opened = OpenOptions::new().append(true).create(true).open(path);
            let opened = opened.map_err(|error| {
                let text = format!("access_log plugin: {} cannot be opened", path.display());
                Error::new(ErrorKind::Config, text).with_source(error)
            })?;
            self.sink = Arc::new(Sink::of(opened));
        }
        Ok(())
    }

    fn watches(&self, _: &Route) -> bool {
        true
    }

    fn arrive(&self, exchange: &mut Exchange) {
        exchange.request_mut().extensions_mut().insert(Came(Instant::now()));
    }

    /// In a group or a mounted app it hears of the request no sooner.
    fn begin(&self, exchange: &mut Exchange) {
        let extensions = exchange.request_mut().extensions_mut();
        extensions.get_or_insert_with(|| Came(Instant::now()));
    }

    fn end(&self, exchange: &mut Exchange, answer: &mut Response) {
        let line = Line::new(exchange, answer);
        let (format, sink) = (self.format, self.sink.clone());
        // What a client gets of an answer to HEAD is no body.
        let is_head = exchange.request().method() == Method::HEAD;
        answer.map_body(|body| match body {
            Body::Stream { reader, length } if !is_head => {
                let counting = Counting { reader, count: 0, line: Some(line), format, sink };
                Body::Stream { reader: Box::new(counting), length }
            }
            body => {
                let count = match &body {
                    Body::Bytes(bytes) if !is_head => bytes.len() as u64,
                    Body::Bytes(_) | Body::Stream { .. } => 0,
                };
                line.write(count, format, &sink);
                body
            }
        });
    }
}

/// A streamed body, whose line is written when it has ended or nobody reads it any more.
struct Counting {
    reader: Box<dyn Read + Send>,
    count: u64,
    line: Option<Line>,
    format: Format,
    sink: Arc<Sink>,
}

impl Read for Counting {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.count += count as u64;
        Ok(count)
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        if let Some(line) = self.line.take() {
            line.write(self.count, self.format, &self.sink);
        }
    }
}

/// What is said of a request; in JSON, by these names.
#[derive(Serialize)]
struct Line {
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    method: String,
    target: String,
    version: &'static str,
    status: u16,
    bytes: u64,
    seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    referer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    #[serde(skip)]
    at: OffsetDateTime,
    #[serde(skip)]
    came: Instant,
    #[serde(skip)]
    id: Option<RequestId>,
}

impl Line {
    fn new(exchange: &Exchange, answer: &Response) -> Line {
        let (request, id) = (exchange.request(), exchange.request_id().cloned());
        let came = request.extensions().get::<Came>().map_or_else(Instant::now, |came| came.0);
        let at = OffsetDateTime::now_utc() - came.elapsed();
        Line {
            time: String::new(),
            remote: request.remote_addr().map(|at| at.ip().to_string()),
            user: request.basic_auth().map(|(name, _)| name).filter(|name| !name.is_empty()),
            method: request.method().to_string(),
            target: request.target().to_string(),
            version: version(request.version()),
            status: answer.status().as_u16(),
            bytes: 0,
            seconds: 0.0,
            referer: text(request, header::REFERER),
            user_agent: text(request, header::USER_AGENT),
            route: exchange.rule().map(str::to_owned),
            request_id: id.as_ref().map(RequestId::to_string),
            at,
            came,
            id,
        }
    }

    fn write(mut self, bytes: u64, format: Format, sink: &Sink) {
        (self.bytes, self.seconds) = (bytes, self.came.elapsed().as_secs_f64());
        let line = match format {
            Format::Combined => self.combined(),
            Format::Json => self.json(),
        };
        match sink {
            Sink::Log => {
                // The line has the id itself; a logger that adds those of requests would write it twice.
                let _idle = request_id::leave();
                log::info!(target: TARGET, "{line}");
            }
            Sink::Writer { writer, failed } => {
                // The body may be read, or dropped, on any thread.
                let _guard = request_id::enter(self.id.as_ref());
                let mut writer = lock(writer);
                let written = writer.write_all((line + "\n").as_bytes());
                if let Err(error) = written.and_then(|()| writer.flush()) {
                    let error = OneLine(error).to_string();
                    failed.log_throttled(log::Level::Error, &error, || {
                        format!("a line of the access log is lost: {error}")
                    });
                }
            }
        }
    }

    /// Combined Log Format as Apache's manual has it (`mod_log_config`), and three fields more.
    fn combined(&self) -> String {
        let word = |word: &Option<String>| word.as_deref().unwrap_or("-").to_owned();
        let quoted = |text: &Option<String>| format!("\"{}\"", Escaped(&word(text)));
        let (at, month) = (self.at, MONTHS[usize::from(u8::from(self.at.month())) - 1]);
        format!(
            "{} - {} [{:02}/{month}/{:04}:{:02}:{:02}:{:02} +0000] \"{} {} {}\" {} {} {} {} {} {} {:.6}",
            word(&self.remote),
            Escaped(&word(&self.user)).to_string().replace(' ', "\\x20"),
            at.day(),
            at.year(),
            at.hour(),
            at.minute(),
            at.second(),
            self.method,
            Escaped(&self.target),
            self.version,
            self.status,
            self.bytes,
            quoted(&self.referer),
            quoted(&self.user_agent),
            quoted(&self.route),
            word(&self.request_id),
            self.seconds,
        )
    }

    fn json(&mut self) -> String {
        let at = self.at;
        self.time = format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
            at.year(),
            u8::from(at.month()),
            at.day(),
            at.hour(),
            at.minute(),
            at.second()
        );
        let line = serde_json::to_string(self)
            .unwrap_or_else(|_| unreachable!("texts and numbers are JSON"));
        on_one_line(line)
    }
}

/// The same JSON, with what some programs take for the end of a line, or for a command to a terminal, escaped: JSON itself
/// escapes the controls of ASCII alone.
fn on_one_line(json: String) -> String {
    let is_raw = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    if !json.contains(is_raw) {
        return json;
    }
    let escaped =
        |c: char| if is_raw(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    json.chars().map(escaped).collect()
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

fn text(request: &Request, name: impl AsHeaderName) -> Option<String> {
    Some(String::from_utf8_lossy(request.headers().get(name)?.as_bytes()).into_owned())
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}

/// A text that ends neither its quotation nor its line.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.bytes() {
            match byte {
                b'"' | b'\\' => write!(f, "\\{}", char::from(byte))?,
                b' '..=b'~' => f.write_char(char::from(byte))?,
                byte => write!(f, "\\x{byte:02x}")?,
            }
        }
        Ok(())
    }
}
