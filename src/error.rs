//! The one error type: what kind, what happened, where, and what would do.

use std::fmt;
use std::panic::Location;

/// What the functions of this crate return.
///
/// ```
/// use bottle_session::{App, Redirect, Result, Session, SessionPlugin, redirect};
///
/// let mut app = App::new();
/// app.install(SessionPlugin::new().in_memory())?;
/// app.post("/login/<name>", |session: &mut Session, name: &str| -> Result<Redirect> {
///     session.log_in(name)?;
///     Ok(redirect("/"))
/// });
/// # app.build()?;
/// # Ok::<(), bottle_session::Error>(())
/// ```
pub type Result<T, E = Error> = std::result::Result<T, E>;

pub(crate) type Source = Box<dyn std::error::Error + Send + Sync>;

/// An error of this crate.
///
/// Its text says what is wrong, where (the file and line of the registration, where there is one) and
/// what would do. [`kind`](Error::kind) is for programs, [`source`](std::error::Error::source) keeps the
/// cause.
///
/// A handler that returns one answers 500, or 503 with `Retry-After` where the kind is
/// [`Unavailable`](ErrorKind::Unavailable); the text goes to the log and never to the client.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    location: Option<&'static Location<'static>>,
    /// Where another error became this one; for the log.
    raised: Option<&'static Location<'static>>,
    causes: Vec<Error>,
    source: Option<Source>,
}

/// What sort of thing went wrong.
///
/// ```
/// use bottle_session::{Error, ErrorKind, Session};
///
/// fn vote(session: &mut Session) -> Result<&'static str, Error> {
///     match session.set_if_absent("voted", "yes") {
///         Ok(true) => Ok("counted"),
///         Ok(false) => Ok("you have voted already"),
///         Err(error) if error.kind() == ErrorKind::Gone => Ok("you have been logged out"),
///         Err(error) => Err(error),
///     }
/// }
/// # let _ = vote;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A rule that is not well-formed, or one that conflicts with another.
    Rule,
    /// A route whose handler asks for what nobody provides.
    Route,
    /// A plugin that cannot be installed.
    Plugin,
    /// A setting that cannot work: a wrong address, a refused password, contradictory options.
    Config,
    /// Several registration errors; [`Error::errors`] has each.
    Build,
    /// The operating system refused: a port in use, a broken socket.
    Io,
    /// The store or Redis cannot be reached, or did not answer in time. Worth another try later.
    Unavailable,
    /// Redis or a store answered with an error.
    Redis,
    /// A session value that cannot be stored: too large, too many, not text, not JSON.
    Session,
    /// A reply that belongs to another session; the connection it came over was closed.
    Desync,
    /// The session was destroyed, renewed or expired while it was in use; nothing was written.
    Gone,
    /// Input that cannot be read: a form, a JSON document, a header.
    Input,
    /// An answer on its way out of a handler: what `abort` and `redirect` make.
    Http,
    /// An error of the app's own, or of another crate: [`Error::other`].
    Other,
}

impl Error {
    /// An error with this kind and text.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error(Box::new(Inner {
            kind,
            message: message.into(),
            location: None,
            raised: None,
            causes: Vec::new(),
            source: None,
        }))
    }

    /// An error of another crate, or a text, as one of this crate: for functions that return
    /// [`bottle_session::Result`](Result). A handler that returns it answers 500.
    ///
    /// ```
    /// use bottle_session::{App, Error};
    ///
    /// fn app() -> bottle_session::Result<App> {
    ///     let _port: u16 = "8888".parse().map_err(Error::other)?;
    ///     Ok(App::new())
    /// }
    /// # app()?;
    /// # Ok::<(), Error>(())
    /// ```
    #[track_caller]
    pub fn other(error: impl Into<Source> + 'static) -> Error {
        let source = boxed(error);
        let mut error = Error::new(ErrorKind::Other, source.to_string());
        error.0.raised = in_users_program(Location::caller());
        error.with_source(source)
    }

    /// The same error with its cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Source>) -> Error {
        self.0.source = Some(source.into());
        self
    }

    /// The same error, blaming this place in the user's program unless it already blames one.
    #[must_use]
    pub(crate) fn at(mut self, location: &'static Location<'static>) -> Error {
        self.0.location.get_or_insert(location);
        self
    }

    /// One error that holds several.
    pub(crate) fn many(mut errors: Vec<Error>) -> Error {
        if errors.len() == 1 {
            return errors.remove(0);
        }
        let message = format!("{} registrations cannot work", errors.len());
        let mut error = Error::new(ErrorKind::Build, message);
        error.0.causes = errors;
        error
    }

    /// What sort of thing went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The errors that this one gathers; empty unless the kind is [`ErrorKind::Build`].
    pub fn errors(&self) -> &[Error] {
        &self.0.causes
    }

    /// The place in the user's program that registered what cannot work.
    pub fn location(&self) -> Option<&'static Location<'static>> {
        self.0.location
    }

    /// Where another error became this one.
    pub(crate) fn raised(&self) -> Option<&'static Location<'static>> {
        self.0.raised
    }
}

/// An error as a box, in which [`find`] finds it.
pub(crate) fn boxed<E: Into<Source> + 'static>(error: E) -> Source {
    #[cfg(feature = "anyhow")]
    {
        let mut error = Some(error);
        let any = (&mut error as &mut dyn std::any::Any).downcast_mut::<Option<anyhow::Error>>();
        if let Some(error) = any.and_then(Option::take) {
            return Box::new(Anyhow(error));
        }
        error.map_or_else(|| unreachable!("taken above"), Into::into)
    }
    #[cfg(not(feature = "anyhow"))]
    {
        static ONCE: std::sync::Once = std::sync::Once::new();
        if std::any::type_name::<E>() == "anyhow::Error" {
            ONCE.call_once(|| {
                log::warn!("an anyhow::Error answers 500 whatever is in it: bottle-session looks inside with its feature anyhow");
            });
        }
        error.into()
    }
}

/// An error and its causes, outermost first.
pub(crate) fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    let next = |cause: &&'a (dyn std::error::Error + 'static)| (*cause).source();
    std::iter::successors(Some(error), next)
}

/// An error of this type: this cause itself, or what is inside of it where that is anyhow's.
pub(crate) fn find<'a, E>(cause: &'a (dyn std::error::Error + 'static)) -> Option<&'a E>
where
    E: std::error::Error + Send + Sync + 'static,
{
    #[cfg(feature = "anyhow")]
    if let Some(Anyhow(error)) = cause.downcast_ref() {
        return error.downcast_ref();
    }
    cause.downcast_ref()
}

/// An `anyhow::Error`, whose own box would hide what is in it.
#[cfg(feature = "anyhow")]
#[derive(Debug)]
struct Anyhow(anyhow::Error);

#[cfg(feature = "anyhow")]
impl fmt::Display for Anyhow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(feature = "anyhow")]
impl std::error::Error for Anyhow {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

/// This place, where it is one of the user's program and not of this crate or the standard library: `map_err` calls from
/// there what it is given.
pub(crate) fn in_users_program(
    location: &'static Location<'static>,
) -> Option<&'static Location<'static>> {
    let file = location.file();
    let own = file!().strip_suffix("error.rs").unwrap_or(file!());
    let is_users =
        !file.starts_with(own) && !file.starts_with("/rustc/") && !file.contains("/library/core/");
    is_users.then_some(location)
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        if let Some(location) = self.0.location {
            write!(f, " (at {}:{})", location.file(), location.line())?;
        }
        for cause in &self.0.causes {
            write!(f, "\n  - {cause}")?;
        }
        Ok(())
    }
}

/// Shows the text, and the causes that it does not tell: `main` prints this when it returns the error.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            let said = cause.to_string();
            if !text.contains(&said) {
                text.push_str(": ");
                text.push_str(&said);
            }
            source = cause.source();
        }
        f.write_str(&text)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

impl From<std::io::Error> for Error {
    #[track_caller]
    fn from(error: std::io::Error) -> Error {
        let mut own = Error::new(ErrorKind::Io, error.to_string());
        own.0.raised = in_users_program(Location::caller());
        own.with_source(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_says_what_and_where() {
        let error = Error::new(ErrorKind::Rule, "unclosed wildcard").at(Location::caller());
        let text = error.to_string();
        assert!(text.starts_with("unclosed wildcard (at src/error.rs:"), "{text}");
    }

    #[test]
    fn several_errors_are_listed() {
        let one = || Error::new(ErrorKind::Rule, "one");
        assert_eq!(Error::many(vec![one()]).to_string(), "one");
        let both = Error::many(vec![one(), Error::new(ErrorKind::Route, "two")]);
        assert_eq!(both.to_string(), "2 registrations cannot work\n  - one\n  - two");
        assert_eq!(both.errors().len(), 2);
    }

    #[test]
    fn the_debug_text_ends_with_the_cause() {
        let error = Error::new(ErrorKind::Io, "cannot listen").with_source("in use");
        assert_eq!(format!("{error:?}"), "cannot listen: in use");
        let told =
            Error::new(ErrorKind::Io, "cannot listen: in use; stop it").with_source("in use");
        assert_eq!(format!("{told:?}"), "cannot listen: in use; stop it");
    }
}
