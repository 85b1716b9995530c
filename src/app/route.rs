//! Routes before the app is built, and what can be said of them.

use std::panic::Location;
use std::time::Duration;

use http::{Extensions, Method};

use super::App;
use super::hooks::{Guard, Located};
use super::plugins::{InstalledPlugin, compatible, prepared};
use crate::handler::{BindReply, Condition, Hook, Signature};
use crate::pipeline::plugin::{Plugin, Provision};

/// A route before the app is built.
pub(crate) struct RouteDefinition {
    pub(crate) methods: Vec<Method>,
    pub(crate) rules: Vec<String>,
    pub(crate) bind: BindReply,
    pub(crate) guards: Vec<Located<Guard>>,
    pub(crate) name: Option<String>,
    pub(crate) skip: Skip,
    pub(crate) plugins: Vec<InstalledPlugin>,
    pub(crate) config: Extensions,
    pub(crate) body_limit: Option<u64>,
    pub(crate) location: &'static Location<'static>,
}

#[derive(Default)]
pub(crate) struct Skip {
    all: bool,
    names: Vec<String>,
    keywords: Vec<String>,
}

impl Skip {
    /// What it names that is not among these, which have a name and perhaps a keyword.
    pub(crate) fn unknown(&self, there: &[(&str, Option<&str>)]) -> Vec<String> {
        let names: Vec<_> = there.iter().map(|(name, _)| *name).collect();
        let keywords: Vec<_> = there.iter().filter_map(|(_, keyword)| *keyword).collect();
        let told = |known: &[&str]| match known {
            [] => "none".to_owned(),
            known => known.join(", "),
        };
        let unknown = |what: &str, skipped: &[String], known: &[&str]| {
            let lacks = skipped.iter().filter(|name| !known.contains(&name.as_str()));
            let told = told(known);
            lacks.map(|name| format!("{what} {name:?}; known: {told}")).collect::<Vec<_>>()
        };
        let mut all = unknown("plugin", &self.names, &names);
        all.extend(unknown("keyword", &self.keywords, &keywords));
        all
    }

    pub(crate) fn skips(&self, name: &str, keyword: Option<&str>) -> bool {
        self.all
            || self.names.iter().any(|known| known == name)
            || keyword.is_some_and(|keyword| self.keywords.iter().any(|known| known == keyword))
    }
}

/// What a route takes besides rule and handler; returned by [`App::get`] and its like.
///
/// ```
/// use bottle_session::{App, CsrfPlugin, SessionPlugin, TestClient};
///
/// let mut app = App::new();
/// app.install(CsrfPlugin::new())?;
/// app.install(SessionPlugin::new().in_memory())?;
/// app.post("/webhook", || "heard").name("webhook").skip("csrf").body_limit(64 * 1024);
/// assert_eq!(TestClient::new(app)?.post("/webhook").send().text(), "heard");
/// # Ok::<(), bottle_session::Error>(())
/// ```
pub struct RouteOptions<'a> {
    pub(super) app: &'a mut App,
}

impl RouteOptions<'_> {
    fn definition(&mut self) -> &mut RouteDefinition {
        let last = self.app.routes.len() - 1;
        &mut self.app.routes[last]
    }

    /// Names the route, for [`App::url`].
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.definition().name = Some(name.into());
        self
    }

    /// Does without the plugins of this name. An error when the app is built, where it has none.
    pub fn skip(mut self, plugin: impl Into<String>) -> Self {
        self.definition().skip.names.push(plugin.into());
        self
    }

    /// Does without the plugin of this keyword. An error when the app is built, where none has it.
    pub fn skip_keyword(mut self, keyword: impl Into<String>) -> Self {
        self.definition().skip.keywords.push(keyword.into());
        self
    }

    /// Does without any of the app's plugins.
    pub fn skip_all(mut self) -> Self {
        self.definition().skip.all = true;
        self
    }

    /// Adds a plugin for this route only, inside the app's.
    #[track_caller]
    pub fn apply(self, plugin: impl Plugin) -> Self {
        let location = Location::caller();
        let last = self.app.routes.len() - 1;
        let own = &self.app.routes[last].plugins;
        // Those of the app are looked at when it is built: more may come, and the route may skip some.
        let unique = |name: &str, provision: Option<&Provision>| {
            own.iter().try_for_each(|other| compatible(name, provision, other))
        };
        match prepared(plugin, &self.app.plugins, own, unique, location) {
            Ok(installed) => self.app.routes[last].plugins.push(installed),
            Err(error) => self.app.errors.push(error.at(location)),
        }
        self
    }

    /// Runs `guard` before the handler, after those of the app; see [`App::before`].
    #[track_caller]
    pub fn before<M, G: Signature<M> + Hook<M>>(mut self, guard: G) -> Self {
        let placed = Located { function: Guard::function(guard), location: Location::caller() };
        self.definition().guards.push(placed);
        self
    }

    /// Lets requests go on for which `condition` holds, behind the guards so far; others get a 403. See [`App::require`].
    ///
    /// ```
    /// # use bottle_session::{App, Session, SessionPlugin, TestClient};
    /// # let mut app = App::new();
    /// # app.install(SessionPlugin::new().in_memory())?;
    /// app.get("/cart", || "your cart").require(|session: &Session| session.contains_key("cart"));
    /// # assert_eq!(TestClient::new(app)?.get("/cart").send().status(), 403);
    /// # Ok::<(), bottle_session::Error>(())
    /// ```
    #[track_caller]
    pub fn require<M, C: Signature<M> + Condition<M>>(mut self, condition: C) -> Self {
        let (function, location) = (Guard::condition(condition), Location::caller());
        self.definition().guards.push(Located { function, location });
        self
    }

    /// Lets requests go on of users who have logged in not longer ago than this; see [`App::require_recent`].
    #[track_caller]
    pub fn require_recent(mut self, login: Duration) -> Self {
        let (function, location) = (Guard::RecentLogin(login), Location::caller());
        self.definition().guards.push(Located { function, location });
        self
    }

    /// Attaches a setting, which plugins find by its type with [`Route::config`](crate::Route::config).
    pub fn config<T: Clone + Send + Sync + 'static>(mut self, setting: T) -> Self {
        self.definition().config.insert(setting);
        self
    }

    /// How much of a request's body this route reads into memory.
    pub fn body_limit(mut self, bytes: u64) -> Self {
        self.definition().body_limit = Some(bytes);
        self
    }
}

/// One rule or several.
pub trait IntoRules {
    /// Their texts.
    fn into_rules(self) -> Vec<String>;
}

impl IntoRules for &str {
    fn into_rules(self) -> Vec<String> {
        vec![self.to_owned()]
    }
}

impl IntoRules for String {
    fn into_rules(self) -> Vec<String> {
        vec![self]
    }
}

impl<T: Into<String>, const N: usize> IntoRules for [T; N] {
    fn into_rules(self) -> Vec<String> {
        self.into_iter().map(Into::into).collect()
    }
}

impl<T: Into<String>> IntoRules for Vec<T> {
    fn into_rules(self) -> Vec<String> {
        self.into_iter().map(Into::into).collect()
    }
}

/// One method, several, or `"ANY"`.
pub trait IntoMethods {
    /// The methods, none for any; or the name that is no method.
    fn into_methods(self) -> std::result::Result<Vec<Method>, String>;
}

impl IntoMethods for Method {
    fn into_methods(self) -> std::result::Result<Vec<Method>, String> {
        Ok(vec![self])
    }
}

impl IntoMethods for &str {
    fn into_methods(self) -> std::result::Result<Vec<Method>, String> {
        if self.eq_ignore_ascii_case("ANY") {
            return Ok(Vec::new());
        }
        // As in Bottle, "get" is GET.
        Method::from_bytes(self.to_ascii_uppercase().as_bytes())
            .map(|method| vec![method])
            .map_err(|_| self.to_owned())
    }
}

impl<T: IntoMethods, const N: usize> IntoMethods for [T; N] {
    fn into_methods(self) -> std::result::Result<Vec<Method>, String> {
        if N == 0 {
            // Not any method, which is what none of them would mean below.
            return Err(String::new());
        }
        let mut all = Vec::new();
        for methods in self {
            let methods = methods.into_methods()?;
            if methods.is_empty() {
                return Ok(methods);
            }
            all.extend(methods);
        }
        Ok(all)
    }
}
