//! The id of a request, and the current one of each thread, which its log lines carry.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

/// The longest id, in bytes.
const MAX_BYTES: usize = 128;

thread_local! {
    static CURRENT: RefCell<Option<RequestId>> = const { RefCell::new(None) };
}

/// The id of a request: up to 128 ASCII letters, digits and `-._~+/=:@`, so that it can stand in a header and in a log
/// line as it is.
///
/// [`RequestIdPlugin`](crate::RequestIdPlugin) provides it to handlers as `&RequestId`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// The id; `None` where the text cannot be one.
    pub fn parse(text: &str) -> Option<RequestId> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=:@".contains(&byte);
        let is_id = !text.is_empty() && text.len() <= MAX_BYTES && text.bytes().all(fits);
        is_id.then(|| RequestId(text.into()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id of the request that this thread works for: in a handler, in what a plugin does for one request, while an
    /// answer's body is read.
    ///
    /// ```
    /// use bottle_session::{App, RequestId, RequestIdPlugin, TestClient};
    ///
    /// let mut app = App::new();
    /// app.install(RequestIdPlugin::new())?;
    /// app.get("/", || RequestId::current().map_or(String::new(), |id| id.to_string()));
    /// let answer = TestClient::new(app)?.get("/").send();
    /// assert_eq!(answer.header("x-request-id"), Some(&*answer.text()));
    /// # Ok::<(), bottle_session::Error>(())
    /// ```
    pub fn current() -> Option<RequestId> {
        // A thread that ends has none.
        CURRENT.try_with(|current| current.borrow().clone()).ok().flatten()
    }

    /// Makes this the current id of the thread until the guard is dropped, so that its log lines carry it. For threads that a
    /// handler starts.
    ///
    /// ```
    /// use bottle_session::RequestId;
    ///
    /// let id = RequestId::parse("4711").unwrap();
    /// std::thread::spawn(move || {
    ///     let _guard = id.enter();
    ///     assert_eq!(RequestId::current(), Some(id));
    /// })
    /// .join()
    /// .unwrap();
    /// ```
    pub fn enter(&self) -> RequestIdGuard {
        RequestIdGuard::swap(Some(self.clone()))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Keeps the current id of a thread until it is dropped; see [`RequestId::enter`].
#[must_use = "the id is the current one until this is dropped"]
#[derive(Debug)]
pub struct RequestIdGuard {
    before: Option<RequestId>,
    /// It belongs to its thread.
    _thread: std::marker::PhantomData<Rc<()>>,
}

impl RequestIdGuard {
    fn swap(id: Option<RequestId>) -> RequestIdGuard {
        let before = CURRENT.try_with(|current| current.replace(id)).ok().flatten();
        RequestIdGuard { before, _thread: std::marker::PhantomData }
    }
}

impl Drop for RequestIdGuard {
    fn drop(&mut self) {
        let before = self.before.take();
        let _ = CURRENT.try_with(|current| current.replace(before));
    }
}

/// Makes this the current id of the thread, if there is one.
pub(crate) fn enter(id: Option<&RequestId>) -> Option<RequestIdGuard> {
    id.map(RequestId::enter)
}

/// Leaves the thread without a current id: for lines that concern many requests, or show the id themselves.
pub(crate) fn leave() -> RequestIdGuard {
    RequestIdGuard::swap(None)
}

/// Adds the id of its request to each log line, whoever logs it, and hands it on to another logger: ` request_id=…` at
/// the end.
///
/// ```
/// use bottle_session::RequestIdLogger;
///
/// let logger = env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).build();
/// log::set_max_level(logger.filter());
/// log::set_boxed_logger(Box::new(RequestIdLogger::new(logger))).unwrap();
/// ```
///
/// Key-values of a record (feature `kv` of `log`) are not handed on. A logger with a format of its own can ask [`RequestId::current`] instead. That of an app without a logger has the id
/// by itself.
#[derive(Clone, Debug)]
pub struct RequestIdLogger<L> {
    inner: L,
}

impl<L: log::Log> RequestIdLogger<L> {
    /// A logger in front of this one.
    pub fn new(inner: L) -> RequestIdLogger<L> {
        RequestIdLogger { inner }
    }
}

impl<L: log::Log> log::Log for RequestIdLogger<L> {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        self.inner.enabled(metadata)
    }

    fn log(&self, record: &log::Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        match RequestId::current() {
            None => self.inner.log(record),
            Some(id) => self.inner.log(
                &log::Record::builder()
                    .metadata(record.metadata().clone())
                    .args(format_args!("{} request_id={id}", record.args()))
                    .module_path(record.module_path())
                    .file(record.file())
                    .line(record.line())
                    .build(),
            ),
        }
    }

    fn flush(&self) {
        self.inner.flush();
    }
}

#[test]
fn an_id_can_stand_in_a_header_and_in_a_log_line() {
    let longest = "x".repeat(MAX_BYTES);
    for text in ["4711", "a-b._~+/=:@Z9", &longest] {
        assert_eq!(RequestId::parse(text).unwrap().as_str(), text);
    }
    for text in ["", "a b", "a\nb", "é", "a\"b", "a,b", "\u{1b}[0m", &(longest + "x")] {
        assert_eq!(RequestId::parse(text), None, "{text:?}");
    }
}

#[test]
fn a_thread_works_for_one_request_inside_another_and_goes_back() {
    let [outer, inner] = ["outer", "inner"].map(|text| RequestId::parse(text).unwrap());
    let _outer = outer.enter();
    {
        let _inner = enter(Some(&inner));
        assert_eq!(RequestId::current(), Some(inner));
        let _none = leave();
        assert_eq!(RequestId::current(), None);
    }
    assert!(enter(None).is_none());
    assert_eq!(RequestId::current(), Some(outer));
}
