//! Composition of apps: state, providers, groups and mounted apps.

use std::any::{TypeId, type_name};
use std::marker::PhantomData;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use super::hooks::{Guard, Located};
use super::{App, Mount};
use crate::handler::{
    self, Condition, Hook, Kind, ProviderDefinition, ProviderFn, Signature, Source,
};
use crate::message::http_error::HttpError;
use crate::message::into_response::HookOutcome;
use crate::message::response::Response;
use crate::pipeline::exchange::Exchange;
use crate::pipeline::plugin::Provided;
use crate::pipeline::provider::{Value, keyword_of, public_name};
use crate::{Error, ErrorKind, Result};

/// State, providers, groups and mounted apps.
impl App {
    /// Gives all routes of this app, and of those mounted in it, a value to share: a handler's `&T` argument. A type of
    /// another crate goes into [`Own`](crate::Own). Many threads use it at the same time: what changes is behind a lock,
    /// or an atomic.
    ///
    /// An argument that asks for state that nobody gave is an error when the app is built, and so is a second value of one
    /// type in one app. In a mounted app, a value of its own goes before that of the app around.
    ///
    /// ```
    /// use std::sync::atomic::{AtomicU64, Ordering};
    /// use bottle_session::{App, Provided, TestClient};
    ///
    /// #[derive(Default)]
    /// struct Visits(AtomicU64);
    ///
    /// impl Provided for Visits {}
    ///
    /// let mut app = App::new();
    /// app.state(Visits::default());
    /// app.get("/", |visits: &Visits| (visits.0.fetch_add(1, Ordering::Relaxed) + 1).to_string());
    ///
    /// let client = TestClient::new(app)?;
    /// client.get("/").send();
    /// assert_eq!(client.get("/").send().text(), "2");
    /// # Ok::<(), bottle_session::Error>(())
    /// ```
    #[track_caller]
    pub fn state<T: Provided + Sync>(&mut self, value: T) -> &mut App {
        let location = Location::caller();
        let (type_id, type_name) = (TypeId::of::<T>(), type_name::<T>());
        if let Some(other) = self.states.iter().find(|other| other.type_id == type_id) {
            let at = other.location;
            let text = format!(
                "the app has a {} as its state already, given at {}:{}; give one of them a type of its own",
                public_name(type_name),
                at.file(),
                at.line()
            );
            self.errors.push(Error::new(ErrorKind::Plugin, text).at(location));
        }
        let (name, keyword) = ("state".to_owned(), keyword_of(type_name));
        let kind = Kind::State(Arc::new(value));
        self.states.push(Source {
            name,
            keyword,
            type_id,
            type_name,
            kind,
            skipped: false,
            location,
        });
        self
    }

    /// Makes a value of others: `provider` takes what handlers take, and gives a `T` that is [`Provided`], or a `Result`
    /// whose error is the answer. Handlers ask for it as `&mut T` or `&T`, and so do guards, error pages, hooks and other
    /// providers. A type of another crate goes into [`Own`](crate::Own).
    ///
    /// It runs on the thread of the handler, at most once for a request, and only on routes where somebody asks for its
    /// value; the others it costs nothing. What it needs itself may be installed before or after it. Where nobody provides
    /// that, or several do, and where providers need each other, the app does not build, and the error names both places.
    ///
    /// Who asks for `Option<&mut T>` goes on without, where the provider answers with less than a 500: a redirection to
    /// the login page, a 401, a 404. An error of the server (500 and more) answers the request all the same: that a
    /// database does not answer must not pass for the absence of a user. Only error pages and after-request hooks, for which
    /// there is an answer already, go on without.
    ///
    /// As a plugin it goes by its keyword, in [`named!`](crate::named), [`skip`](crate::RouteOptions::skip) and
    /// [`uninstall`](App::uninstall): the name of the type as that of an argument (`new_user` for `NewUser`) unless
    /// [set](ProviderOptions::keyword).
    ///
    /// ```
    /// use bottle_session::{App, HttpError, Provided, Session, SessionPlugin, TestClient, redirect};
    /// use std::collections::BTreeMap;
    ///
    /// struct Users(BTreeMap<&'static str, u16>);
    ///
    /// impl Provided for Users {}
    ///
    /// struct User {
    ///     born: u16,
    /// }
    ///
    /// impl Provided for User {}
    ///
    /// let mut app = App::new();
    /// app.install(SessionPlugin::new().in_memory())?;
    /// app.state(Users(BTreeMap::from([("ada", 1815)])));
    /// app.provide(|session: &mut Session, users: &Users| -> Result<User, HttpError> {
    ///     match session.get("name").and_then(|name| users.0.get(name)) {
    ///         Some(born) => Ok(User { born: *born }),
    ///         None => Err(redirect("/login/ada").into()),
    ///     }
    /// });
    /// app.get("/", |user: &User| user.born.to_string());
    /// app.get("/who", |user: Option<&User>| if user.is_some() { "you" } else { "nobody" });
    /// app.get("/login/<name>", |session: &mut Session, name: &str| session.set("name", name));
    ///
    /// let client = TestClient::new(app)?;
    /// assert_eq!(client.get("/").send().header("location"), Some("/login/ada"));
    /// assert_eq!(client.get("/who").send().text(), "nobody");
    /// client.get("/login/ada").send();
    /// assert_eq!(client.get("/").send().text(), "1815");
    /// # Ok::<(), bottle_session::Error>(())
    /// ```
    #[track_caller]
    pub fn provide<M, P: Signature<M> + ProviderFn<M>>(
        &mut self,
        provider: P,
    ) -> ProviderOptions<'_, P::Value> {
        let type_name = type_name::<P::Value>();
        self.providers.push(ProviderDefinition {
            number: 0,
            keyword: keyword_of(type_name),
            type_id: TypeId::of::<P::Value>(),
            type_name,
            bind: handler::provider(provider),
            finish: None,
            location: Location::caller(),
        });
        ProviderOptions { app: self, of: PhantomData }
    }

    /// Serves routes below a prefix, in an app of their own that this one is around: see [`mount`](App::mount). What the
    /// function returns may be a `Result`, so that `?` works in it; the app then does not build.
    ///
    /// ```
    /// use bottle_session::{App, TestClient};
    ///
    /// let mut app = App::new();
    /// app.group("/books", |books| {
    ///     books.get("/", || "all");
    ///     books.get("/<id:int>", |id: i64| format!("book {id}"));
    /// });
    /// let client = TestClient::new(app)?;
    /// assert_eq!(client.get("/books").send().text(), "all");
    /// assert_eq!(client.get("/books/7").send().text(), "book 7");
    /// # Ok::<(), bottle_session::Error>(())
    /// ```
    #[track_caller]
    pub fn group<R: GroupOutcome>(
        &mut self,
        prefix: impl Into<String>,
        set_up: impl FnOnce(&mut App) -> R,
    ) -> MountOptions<'_> {
        let location = Location::caller();
        let mut group = App::new();
        if let Err(error) = set_up(&mut group).into_result() {
            group.errors.push(error.at(location));
        }
        self.mount_at(prefix.into(), group, location)
    }

    /// Serves another app's routes under a prefix, which is a rule itself, with the filters of this app. A
    /// slash at its end does not count. The routes go before those that this app declares later, as if each were declared
    /// here. The mounted app's rule `""` is the prefix without a slash behind it; where no rule is, its rule `/` has that
    /// path, too: `/admin` and `/admin/` are one page, whose relative links need the slash.
    ///
    /// What this app has holds in the mounted one: plugins, providers, state, guards, hooks, error pages, body limit. A
    /// plugin or provider of the mounted app takes the place of one with the same keyword, or, where neither provides
    /// anything, of the same name. Its hooks and guards run inside this app's; its error pages and its body limit go before
    /// this app's, and its error pages show the 404 and the 405 of all paths below the prefix. A provider of this app
    /// finds what it needs as the route does that asks for it: there, a session plugin of the mounted app is its, too.
    ///
    /// [`isolated`](MountOptions::isolated) inherits nothing.
    #[track_caller]
    pub fn mount(&mut self, prefix: impl Into<String>, app: App) -> MountOptions<'_> {
        self.mount_at(prefix.into(), app, Location::caller())
    }

    fn mount_at(
        &mut self,
        prefix: String,
        app: App,
        location: &'static Location<'static>,
    ) -> MountOptions<'_> {
        let after = self.routes.len();
        self.mounts.push(Mount { prefix, app, after, location });
        MountOptions { app: self, guards: 0 }
    }
}

impl App {
    /// The provider that was added last, whose options are being set.
    pub(super) fn last_provider(&mut self) -> &mut ProviderDefinition {
        let last = self.providers.len() - 1;
        &mut self.providers[last]
    }
}

/// What a provider takes besides its function; returned by [`App::provide`].
pub struct ProviderOptions<'a, T> {
    app: &'a mut App,
    of: PhantomData<fn() -> T>,
}

impl<T: Provided> ProviderOptions<'_, T> {
    fn definition(&mut self) -> &mut ProviderDefinition {
        self.app.last_provider()
    }

    /// The keyword, which is the name of the argument in [`named!`](crate::named).
    pub fn keyword(mut self, keyword: impl Into<String>) -> Self {
        self.definition().keyword = keyword.into();
        self
    }

    /// Ends the value: it commits or rolls back, closes, gives back. `finish` runs for each value that was made, after
    /// the handler, guards and error pages, in whatever way these end: with an answer, an `Err` or a panic. The last value
    /// made is finished first. Plugins release what they provide afterwards: a 503 because the session could not be saved
    /// does not undo a commit.
    ///
    /// It gets the value and the answer. [`Response::is_error`] is a status of 400 or more, or a panic; a redirection is
    /// none, also through `Err`. It stays true where an after-request hook has put another answer in the place of an error:
    /// what the visitor sees then does not make the work whole. No byte has left yet: an `Err` of what it returns takes the place of the answer, as a
    /// panic does, which also keeps plugins from saving. Those finished later see the new answer.
    ///
    /// The value is its own: it is dropped at its end, whatever that is, and what comes out of a pool goes back there. A
    /// connection must never go back with a transaction open, which the next visitor would commit. Where `COMMIT` itself
    /// fails, roll back:
    ///
    /// ```
    /// use bottle_session::{App, HttpError, Own, Response};
    /// # struct Connection;
    /// # impl Connection {
    /// #     fn execute(&mut self, _: &str) -> std::io::Result<()> { Ok(()) }
    /// # }
    /// # fn checkout() -> std::io::Result<Connection> { Ok(Connection) }
    ///
    /// let mut app = App::new();
    /// app.provide(|| -> Result<Own<Connection>, HttpError> {
    ///     let mut db = checkout()?;
    ///     db.execute("BEGIN")?;
    ///     Ok(Own(db))
    /// })
    /// .keyword("db")
    /// .finish(|mut db, answer| {
    ///     if answer.is_error() {
    ///         return db.execute("ROLLBACK");
    ///     }
    ///     db.execute("COMMIT").inspect_err(|_| {
    ///         let _ = db.execute("ROLLBACK");
    ///     })
    /// });
    /// app.post("/", |db: &mut Own<Connection>| db.execute("INSERT INTO notes DEFAULT VALUES"));
    /// # app.build()?;
    /// # Ok::<(), bottle_session::Error>(())
    /// ```
    pub fn finish<R: HookOutcome>(
        mut self,
        finish: impl Fn(T, &Response) -> R + Send + Sync + 'static,
    ) -> Self {
        self.definition().finish =
            Some(Arc::new(move |value: Value, answer: &Response, _: &mut Exchange| {
                let Ok(value) = value.downcast::<T>() else {
                    unreachable!("made by the provider of this type")
                };
                finish(*value, answer)
                    .into_answer()
                    .map_or(Ok(()), |answer| Err(HttpError::from(answer)))
            }));
        self
    }
}

/// What a mounted app or a group takes besides its routes; returned by [`App::mount`] and [`App::group`].
///
/// ```
/// use bottle_session::{App, Session, SessionPlugin, TestClient, abort};
///
/// let mut admin = App::new();
/// admin.get("/", || "welcome");
///
/// let mut app = App::new();
/// app.install(SessionPlugin::new().in_memory())?;
/// app.mount("/admin", admin).before(|session: &mut Session| match session.user_id() {
///     Some(_) => Ok(()),
///     None => Err(abort(403, "Log in first.")),
/// });
/// assert_eq!(TestClient::new(app)?.get("/admin").send().status(), 403);
/// # Ok::<(), bottle_session::Error>(())
/// ```
pub struct MountOptions<'a> {
    app: &'a mut App,
    /// How many guards were added here.
    guards: usize,
}

impl MountOptions<'_> {
    fn mounted(&mut self) -> &mut App {
        let last = self.app.mounts.len() - 1;
        &mut self.app.mounts[last].app
    }

    /// Inherits nothing of the app around: no plugin, provider, state, guard, hook, error page or body limit. Only
    /// [before-request hooks](App::before_request) of the outermost app run all the same, as they run before a request
    /// finds its route.
    pub fn isolated(mut self) -> Self {
        self.mounted().isolated = true;
        self
    }

    /// Runs `guard` before the handlers, in front of the guards that the mounted app has and after those added here before;
    /// see [`App::before`].
    #[track_caller]
    pub fn before<M, G: Signature<M> + Hook<M>>(self, guard: G) -> Self {
        self.guard(Guard::function(guard), Location::caller())
    }

    /// Lets requests go on for which `condition` holds, behind the guards so far; others get a 403. See [`App::require`].
    #[track_caller]
    pub fn require<M, C: Signature<M> + Condition<M>>(self, condition: C) -> Self {
        self.guard(Guard::condition(condition), Location::caller())
    }

    /// Lets requests go on of users who have logged in not longer ago than this; see [`App::require_recent`].
    #[track_caller]
    pub fn require_recent(self, login: Duration) -> Self {
        self.guard(Guard::RecentLogin(login), Location::caller())
    }

    fn guard(mut self, function: Guard, location: &'static Location<'static>) -> Self {
        let at = self.guards;
        self.mounted().guards.insert(at, Located { function, location });
        self.guards += 1;
        self
    }
}

/// What the function of a [group](App::group) may return: nothing, or a `Result`.
pub trait GroupOutcome {
    /// The error, if there is one.
    fn into_result(self) -> Result<()>;
}

impl GroupOutcome for () {
    fn into_result(self) -> Result<()> {
        Ok(())
    }
}

impl GroupOutcome for Result<()> {
    fn into_result(self) -> Result<()> {
        self
    }
}
